//! `robustmq-edge`: the command line only.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
