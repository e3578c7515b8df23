//! The `fanfare` binary.

use std::process::ExitCode;

/// Of three that were measured this one takes the least memory for an idle connection and the least
/// time for a publish (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    fanfare::cli::run(std::env::args_os())
}
