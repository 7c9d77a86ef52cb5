//! What a sync of the disk costs at the time: the least that a durable acknowledgement can take.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// What is written before each sync: about what a group commit holds at 100,000 records of 100 bytes a second.
pub const WRITE_BYTES: usize = 16 * 1024;

/// Appends and syncs (fdatasync) in a loop in a file of its own below `dir`; returns how long each took.
///
/// # Errors
/// When the disk fails.
pub fn probe(dir: &Path, length: Duration) -> anyhow::Result<Vec<Duration>> {
    let mut file = tempfile::Builder::new().prefix("fdatasync").tempfile_in(dir)?;
    let piece = [42u8; WRITE_BYTES];
    let started = Instant::now();
    let mut taken = Vec::new();
    while started.elapsed() < length {
        let begun = Instant::now();
        file.write_all(&piece)?;
        file.as_file().sync_data()?;
        taken.push(begun.elapsed());
    }
    Ok(taken)
}
