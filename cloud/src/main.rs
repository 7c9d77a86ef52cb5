//! `robustmq-cloud`: the command line only.

use std::process::ExitCode;

/// The system's own keeps what was freed for longer, and in one heap for each core: after readers at random places the broker had a third more
/// memory, and did not give back what a smaller cache left (`scripts/bench dataset --row jumps`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    robustmq_cloud::cli::run()
}
