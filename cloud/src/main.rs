//! `robustmq-cloud`: the command line only.

use std::process::ExitCode;

fn main() -> ExitCode {
    robustmq_cloud::cli::run()
}
