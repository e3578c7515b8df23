//! Fuzzes `query` of [`fanfare_fuzz`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fanfare_fuzz::query(input));
