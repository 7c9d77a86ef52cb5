//! Dataset topics under load: the parts of `scripts/bench dataset`.
//!
//! **Invariant:** each record's bytes are checked, and that it comes once in each epoch; nothing here judges a time.
//! **Invariant:** other policies are simulated over the units that the broker itself fetched, in the order that its reader saw.

pub mod accelerator;
pub mod crash;
pub mod direct;
pub mod jumps;
pub mod members;
pub mod options;
pub mod reader;
pub mod run;
pub mod simulate;
pub mod stage;
pub mod status;
pub mod training;

use std::time::{Duration, Instant};

pub use options::Options;
pub use reader::Reader;
pub use stage::Stage;
pub use status::Status;

/// Bytes of a megabyte, as disks and networks count.
pub const MEGABYTE: f64 = 1e6;

/// Waits until `due` on a thread of its own.
pub fn wait_until(due: Instant) {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}

/// How long it takes to use `bytes` at a rate.
#[must_use]
pub fn time_of(bytes: usize, bytes_a_second: f64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / bytes_a_second.max(1.0))
}

/// A count that was computed: the nearest that there is.
#[must_use]
pub fn whole(number: f64) -> u64 {
    format!("{:.0}", number.max(0.0)).parse().unwrap_or(u64::MAX)
}
