//! Locks of directories at a start: a process that was killed takes some seconds to vanish, and has its locks until then.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Disk;
use crate::limits;

/// Takes a lock as [`Disk::lock`] does, and waits for up to [`limits::LOCK_WAIT`] where another process has it. It blocks meanwhile: it is for
/// a start.
///
/// # Errors
/// What the disk says.
pub fn lock_soon(disk: &dyn Disk, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
    wait_for(|| disk.lock(path), path, limits::LOCK_WAIT)
}

fn wait_for<T>(
    mut lock: impl FnMut() -> io::Result<Option<T>>,
    path: &Path,
    most: Duration,
) -> io::Result<Option<T>> {
    let began = Instant::now();
    let mut is_told = false;
    loop {
        let locked = lock()?;
        if locked.is_some() || began.elapsed() >= most {
            return Ok(locked);
        }
        if !is_told {
            is_told = true;
            let (path, seconds) = (path.display(), most.as_secs());
            tracing::info!(%path, seconds, "another process has the lock: it is waited for, since one that was killed may vanish");
        }
        std::thread::park_timeout(limits::LOCK_LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, Path, wait_for};

    /// A start right after `kill -9` failed, since the killed process was there still.
    #[test]
    fn a_lock_that_is_let_go_soon_is_waited_for_and_another_is_not_for_ever() {
        let mut tries = 0;
        let lock = || {
            tries += 1;
            Ok((tries == 3).then_some(()))
        };
        let locked = wait_for(lock, Path::new("lock"), Duration::from_secs(60));
        assert_eq!(locked.expect("no error"), Some(()));
        assert_eq!(tries, 3);
        let never = wait_for(|| Ok(None::<()>), Path::new("lock"), Duration::from_millis(60));
        assert_eq!(never.expect("no error"), None);
    }
}
