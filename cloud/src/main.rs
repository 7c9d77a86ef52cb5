//! `robustmq-cloud`: the command line only.

use std::process::ExitCode;

/// The system's own keeps what was freed in one heap for each core, and `mimalloc` until the thread that freed it allocates again: while Parquet
/// was rendered in a cache of 32 MiB it had 1 GB where this has 0.2, which gives back what is free by threads of its own
/// (`scripts/bench dataset --row memory --format parquet`). It is set up in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    robustmq_cloud::cli::run()
}
