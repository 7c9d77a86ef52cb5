//! `robustmq-cloud`: the command line only.

use std::process::ExitCode;

/// The system's own keeps what was freed in one heap for each thread, and `mimalloc` until a thread allocates again: while Parquet was rendered
/// in a cache of 32 MiB it had 1 GB where this has 0.3, which gives back what is free by threads of its own (`scripts/bench dataset --row parquet`).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    robustmq_cloud::cli::run()
}
