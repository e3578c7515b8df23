//! Whether the time of an answer tells how near a secret somebody is: two classes of inputs are timed
//! in turns chosen by dice, and Welch's t-test says whether their times differ, as dudect does it
//! (Reparaz, Balasch, Verbauwhede: "Dude, is my code constant time?", 2017).
//!
//! `cargo bench --bench timing`, or `./test.sh timing`. A machine that does other things makes the
//! times noisier and hardly ever different, so a case fails only if most of its rounds say so; and a
//! comparison that ends at the first difference must fail by the same measure, or nothing was measured.

#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up should end")]
#![allow(clippy::indexing_slicing, reason = "there are two classes, and tables of known sizes")]
#![allow(clippy::print_stdout, reason = "the figures are its output")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use fanfare::auth::{Algorithm, Authority, Fault, Hash, Key, Rules, Signer, sign};
use serde_json::json;
use std::fmt::Write as _;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Rounds of a case. One alone may be wrong once in a while, because of somebody else.
const ROUNDS: usize = 20;

/// Times in a round, of both classes together.
const SAMPLES: usize = 50_000;

/// Calls that one time is of, where a clock cannot see a single one.
const CALLS: usize = 16;

/// Beyond this two means differ, but for five rounds in a million.
const THRESHOLD: f64 = 4.5;

/// Of the times of a round so many in a hundred count, the shortest: interrupts are among the others.
const KEPT_PERCENT: usize = 90;

fn main() -> ExitCode {
    println!("{:<44} {:>8} {:>14}   {ROUNDS} rounds of {SAMPLES}", "", "median t", "rounds apart");
    let results = [
        comparing_hashes_takes_as_long_wherever_they_differ(),
        verifying_a_signature_takes_as_long_wherever_it_is_wrong(),
        a_comparison_that_ends_early_is_found(),
    ];
    if results.contains(&false) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Of API tokens the broker knows hashes: they are compared whole.
fn comparing_hashes_takes_as_long_wherever_they_differ() -> bool {
    let secret = hash(|_| 0x5A);
    let wrong = [hash_that_differs_at(0), hash_that_differs_at(31)];
    !is_apart("hashes that differ in the first or last byte", &wrong, |wrong| {
        for _ in 0..CALLS {
            assert!(!black_box(&secret).is(black_box(wrong)));
        }
    })
}

/// A signature that begins rightly is no nearer to being taken than another.
fn verifying_a_signature_takes_as_long_wherever_it_is_wrong() -> bool {
    let secret = b"a secret that is long enough for HS256";
    let key = Key::of_secret(None, Algorithm::Hs256, secret).expect("a key");
    let signer = Signer::of_file(Algorithm::Hs256, secret).expect("a signer");
    let claims = json!({"sub": "a", "aud": "fanfare", "exp": 4_000_000_000_u64});
    let token = sign(&signer, None, &claims).expect("signed");
    let rules = Rules { audience: "fanfare".to_owned(), keys: vec![key], ..Rules::default() };
    let authority = Authority::of(rules);
    assert!(authority.authenticate(&token, 1).is_ok());
    let signature = token.rfind('.').expect("a signature") + 1;
    // The last digit of all has bits that mean nothing.
    let wrong = [wrong_at(&token, signature), wrong_at(&token, token.len() - 2)];
    !is_apart("signatures wrong in the first or last byte", &wrong, |wrong| {
        let judged = authority.authenticate(black_box(wrong), 1);
        assert_eq!(judged.err(), Some(Fault::Signature));
    })
}

/// The instrument: what it must find, or its silence about the others means nothing.
fn a_comparison_that_ends_early_is_found() -> bool {
    let secret = [0x5A_u8; 32];
    let mut wrong = [secret; 2];
    wrong[0][0] ^= 1;
    wrong[1][31] ^= 1;
    is_apart("a comparison that ends at the first difference", &wrong, |wrong| {
        for _ in 0..CALLS {
            let mut pairs = black_box(&secret).iter().zip(black_box(wrong));
            assert!(pairs.any(|(one, other)| black_box(one) != other));
        }
    })
}

/// Whether most rounds say that the two classes of inputs take different times.
fn is_apart<T: Clone>(what: &str, inputs: &[T; 2], act: impl Fn(&T)) -> bool {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let mut found: Vec<f64> = (0..ROUNDS).map(|_| round(&mut dice, inputs, &act).abs()).collect();
    found.sort_by(f64::total_cmp);
    let apart = found.iter().filter(|t| **t > THRESHOLD).count();
    println!("{what:<44} {:>8.2} {apart:>14}", found[ROUNDS / 2]);
    apart * 2 > ROUNDS
}

/// The t of one round.
fn round<T: Clone>(dice: &mut Dice, inputs: &[T; 2], act: &impl Fn(&T)) -> f64 {
    // Both classes in the same place, or it would be the places that differ.
    let mut input = inputs[0].clone();
    let samples: Vec<(usize, Duration)> = (0..SAMPLES)
        .map(|_| {
            let class = dice.coin();
            input.clone_from(&inputs[class]);
            let began = Instant::now();
            act(&input);
            (class, began.elapsed())
        })
        .collect();
    let mut times: Vec<Duration> = samples.iter().map(|(_, took)| *took).collect();
    times.sort_unstable();
    let longest = times[SAMPLES * KEPT_PERCENT / 100];
    let mut moments = [Moments::default(), Moments::default()];
    for (class, took) in samples.into_iter().filter(|(_, took)| *took <= longest) {
        moments[class].add(took.as_secs_f64() * 1e9);
    }
    let [one, other] = moments;
    let spread = one.of_mean() + other.of_mean();
    if spread > 0.0 { (one.mean - other.mean) / spread.sqrt() } else { 0.0 }
}

/// Mean and variance of numbers as they come (Welford).
#[derive(Clone, Copy, Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, number: f64) {
        self.count += 1.0;
        let off = number - self.mean;
        self.mean += off / self.count;
        self.squares += off * (number - self.mean);
    }

    /// The variance of the mean.
    fn of_mean(&self) -> f64 {
        self.squares / (self.count - 1.0).max(1.0) / self.count.max(1.0)
    }
}

fn hash(byte: impl Fn(usize) -> u8) -> Hash {
    let mut text = String::new();
    for index in 0..32 {
        write!(text, "{:02x}", byte(index)).expect("room");
    }
    text.parse().expect("a hash")
}

fn hash_that_differs_at(place: usize) -> Hash {
    hash(|index| if index == place { 0x5B } else { 0x5A })
}

/// The same token with another digit in one place.
fn wrong_at(token: &str, place: usize) -> String {
    let digit = if token.as_bytes()[place] == b'A' { "B" } else { "A" };
    [&token[..place], digit, &token[place + 1..]].concat()
}

/// Numbers that look random: xorshift, by Marsaglia.
struct Dice(u64);

impl Dice {
    fn coin(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::from(self.0 >> 63 == 1)
    }
}
