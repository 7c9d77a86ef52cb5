//! The seam to the disk: few calls, each with one meaning, so that a simulated disk can lose exactly what a real one may.
//!
//! **Invariant:** an `Ok` of `sync` or `sync_dir` covers everything that was called before it, and nothing else is durable.
//!
//! What a crash may take back: writes and lengths since the file's last `sync`; names since their directory's last
//! `sync_dir`. What a failed `sync` leaves behind is unknown (the kernel may have dropped the pages and marked them clean),
//! so nobody tries it twice.
//!
//! The edge's queue and the cloud's segment store write through it; [`sim`] is the disk that they are tested on.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

mod lock;
pub mod sim;

pub use lock::lock_soon;

/// A place with directories and files.
pub trait Disk: Send + Sync {
    /// Makes a directory and those above it, durably; it may be there already.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// The names in a directory, in no order; empty if the directory is not there.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Opens a file to read and write; with `create`, makes it if it is not there.
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name in the same directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes a lock that this process holds until the guard is dropped; `None` if another one has it.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>>;
    /// The bytes that may still be written below a directory; `None` where nobody knows.
    fn free_bytes(&self, dir: &Path) -> Option<u64>;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Its length in bytes.
    fn byte_len(&self) -> io::Result<u64>;
    /// Reads at an offset; may return less than asked for, and 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Reads at an offset into the room that the buffer has beyond its length, which need not be cleared first; may read less, and
    /// nothing at the end.
    fn read_into(&self, buffer: &mut Vec<u8>, offset: u64) -> io::Result<usize> {
        let (start, room) = (buffer.len(), buffer.capacity() - buffer.len());
        buffer.resize(start + room, 0);
        let read = self.read_at(buffer.get_mut(start..).unwrap_or_default(), offset);
        buffer.truncate(start + *read.as_ref().unwrap_or(&0));
        read
    }
    /// Writes at an offset; may write less than asked for.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Cuts or extends it.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes its bytes and length durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
}

/// Reads until the buffer is full or the file ends; returns how much was read.
///
/// # Errors
/// Those of [`DiskFile::read_at`], but for interruptions.
pub fn read_up_to(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The `bytes` bytes at an offset, or what there is before the end.
///
/// # Errors
/// Those of [`DiskFile::read_into`], but for interruptions.
pub fn read_range(file: &dyn DiskFile, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
    let mut buffer = Vec::with_capacity(bytes);
    while buffer.len() < bytes {
        let at = offset + buffer.len() as u64;
        match file.read_into(&mut buffer, at) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    // A vector may be given more room than was asked for.
    buffer.truncate(bytes);
    Ok(buffer)
}

/// Writes everything.
///
/// # Errors
/// Those of [`DiskFile::write_at`], but for interruptions; what was written before it is there.
pub fn write_all(file: &dyn DiskFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match file.write_at(rest, offset + written as u64) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => written += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the error says that there is no space (or quota) left: it may pass, unlike a failing disk.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
    )
}

/// The machine's file systems.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        // One that is there may have been made just before a crash, so its own name is made durable each time.
        let missing = dir.ancestors().skip(1).take_while(|dir| !dir.exists()).count();
        fs::create_dir_all(dir)?;
        for parent in dir.ancestors().skip(1).take(missing + 1) {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            match self.sync_dir(parent) {
                // Who may not look into it cannot have made anything there.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn DiskFile>> {
        let file =
            OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn free_bytes(&self, dir: &Path) -> Option<u64> {
        let disk = rustix::fs::statvfs(dir).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

/// The size of the file system that a directory is in, or will be when it is made; `None` where that is not known.
#[must_use]
pub fn size_bytes(dir: &Path) -> Option<u64> {
    let there =
        dir.ancestors().map(|dir| if dir.as_os_str().is_empty() { ".".as_ref() } else { dir });
    let disk = there.into_iter().find_map(|dir| rustix::fs::statvfs(dir).ok())?;
    Some(disk.f_blocks.saturating_mul(disk.f_frsize)).filter(|bytes| *bytes > 0)
}

/// The machine's file systems, changing nothing: for `inspect` and `verify` beside a running edge.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOnlyDisk;

impl Disk for ReadOnlyDisk {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn open(&self, path: &Path, _create: bool) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(File::open(path)?)))
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn lock(&self, _path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn free_bytes(&self, _dir: &Path) -> Option<u64> {
        Some(0)
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn byte_len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(&self.0, buffer, offset)
    }

    fn read_into(&self, buffer: &mut Vec<u8>, offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pread(&self.0, rustix::buffer::spare_capacity(buffer), offset)?)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(&self.0, bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
