//! One process at a time for a data directory.

use std::fs::{File, OpenOptions};
use std::path::Path;

use robustmq_common::net::StartError;
use rustix::fs::{FlockOperation, flock};

/// Held as long as the process uses the directory; the system releases it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct DataDirLock(#[expect(dead_code, reason = "holding it open is its use")] File);

impl DataDirLock {
    /// Creates the directory where it is missing, and locks it.
    pub(super) fn acquire(data_dir: &Path) -> Result<Self, StartError> {
        let failed = |action: &str, error: &dyn std::fmt::Display| {
            StartError::Failed(format!("data_dir {}: {action}: {error}", data_dir.display()))
        };
        std::fs::create_dir_all(data_dir).map_err(|error| failed("cannot be created", &error))?;
        let path = data_dir.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| failed("cannot be written", &error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(failed("is in use", &"another robustmq-edge runs on it; stop that one first"))
            }
            Err(error) => Err(failed("cannot be locked", &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::DataDirLock;

    #[test]
    fn a_second_holder_is_refused_until_the_first_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep").join("data");
        let first = DataDirLock::acquire(&path).unwrap();
        let refused = DataDirLock::acquire(&path).unwrap_err().to_string();
        assert!(refused.contains("another robustmq-edge"), "{refused}");
        drop(first);
        DataDirLock::acquire(&path).unwrap();
    }
}
