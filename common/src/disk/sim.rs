//! A disk in memory that crashes: whatever was not synced is lost, kept or torn at random, by a seed.
//!
//! It is as unkind as a real one may be, and no unkinder: unsynced writes survive sector by sector in any combination,
//! names appear and go only with their directory's sync or by luck, a failed sync may have written anything, a full disk
//! takes part of a write, and reads and writes may come up short. What was synced stays.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::{Disk, DiskFile};

const SECTOR_BYTES: usize = 512;

/// A simulated disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Inner>>);

struct Inner {
    files: Vec<Inode>,
    /// As a running program sees them, and as they would be found after a crash at the worst moment.
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    name_changes: Vec<NameChange>,
    rng: SmallRng,
    /// Counts crashes; handles of an earlier life do nothing any more.
    life: u64,
    locked: bool,
    faults: Faults,
    /// Bytes that cannot be read.
    bad_blocks: Vec<(usize, Range<usize>)>,
}

/// What goes wrong, besides crashes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// After this many further calls that change something, the machine stands still: every call fails.
    pub stop_after: Option<u32>,
    /// After this many further syncs, one fails.
    pub fail_sync_after: Option<u32>,
    /// What all files together may hold.
    pub capacity_bytes: Option<u64>,
    /// Overwriting takes new space too, as on file systems that copy on write.
    pub copies_on_write: bool,
    /// Reads and writes may come up short.
    pub short: bool,
}

#[derive(Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

enum NameChange {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            rng: SmallRng::seed_from_u64(seed),
            life: 0,
            locked: false,
            faults: Faults::default(),
            bad_blocks: Vec::new(),
        })))
    }

    /// From now on, these faults.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// The power goes and comes back: open files are gone, and so is what was not synced, more or less. The faults end.
    pub fn crash(&self) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        for inode in &mut inner.files {
            inode.settle(&mut inner.rng);
        }
        for change in std::mem::take(&mut inner.name_changes) {
            if inner.rng.random_bool(0.5) {
                change.apply(&mut inner.durable_names);
            }
        }
        inner.names = inner.durable_names.clone();
        inner.life += 1;
        inner.locked = false;
        inner.faults = Faults::default();
    }

    /// The process is killed: open files are gone, but the kernel keeps what was written. The faults end.
    pub fn kill(&self) {
        let mut inner = self.lock();
        inner.life += 1;
        inner.locked = false;
        inner.faults = Faults::default();
    }

    /// Changes bytes of a file behind everybody's back, durably.
    pub fn corrupt(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.lock();
        let Some(inode) = inner.names.get(path).copied() else { return };
        if let Some(inode) = inner.files.get_mut(inode) {
            change(&mut inode.now);
            inode.durable.clone_from(&inode.now);
            inode.unsynced.clear();
        }
    }

    /// From now on these bytes of a file cannot be read.
    pub fn make_unreadable(&self, path: &Path, bytes: Range<usize>) {
        let mut inner = self.lock();
        if let Some(inode) = inner.names.get(path).copied() {
            inner.bad_blocks.push((inode, bytes));
        }
    }

    /// Whatever could not be read can be.
    pub fn make_readable(&self) {
        self.lock().bad_blocks.clear();
    }

    /// The paths of all files.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.lock().names.keys().cloned().collect()
    }

    /// What all files hold.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.lock().used_bytes()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn used_bytes(&self) -> u64 {
        let lens = self.names.values().filter_map(|inode| self.files.get(*inode));
        lens.map(|inode| inode.now.len() as u64).sum()
    }

    /// Counts a call that changes something; an error if the machine stands still.
    fn change(&mut self) -> io::Result<()> {
        match &mut self.faults.stop_after {
            Some(0) => Err(io::Error::other("the simulated machine stands still")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn shortened(&mut self, len: usize) -> usize {
        if self.faults.short && len > 1 && self.rng.random_bool(0.3) {
            self.rng.random_range(1..len)
        } else {
            len
        }
    }
}

impl Inode {
    /// What a crash leaves.
    fn settle(&mut self, rng: &mut SmallRng) {
        let luck = [0.0, 0.5, 0.9, 1.0][rng.random_range(0..4usize)];
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::SetLen(len) => {
                    if rng.random_bool(luck) {
                        self.durable.resize(len, 0);
                    }
                }
                Change::Write { offset, bytes } => {
                    let mut at = 0;
                    while at < bytes.len() {
                        let to_border = SECTOR_BYTES - (offset + at) % SECTOR_BYTES;
                        let end = bytes.len().min(at + to_border);
                        if rng.random_bool(luck) {
                            write(&mut self.durable, offset + at, &bytes[at..end]);
                        }
                        at = end;
                    }
                }
            }
        }
        self.now.clone_from(&self.durable);
    }
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Create(path, inode) => {
                names.insert(path, inode);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(&from) {
                    names.insert(to, inode);
                }
            }
            Self::Remove(path) => {
                names.remove(&path);
            }
        }
    }
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

impl Disk for SimDisk {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let inner = self.lock();
        let below = inner.names.keys().filter_map(|path| path.strip_prefix(dir).ok());
        let mut names: Vec<String> = below
            .filter_map(|path| path.iter().next())
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        names.dedup();
        Ok(names)
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.lock();
        let inode = match inner.names.get(path) {
            Some(inode) => *inode,
            None if create => {
                inner.change()?;
                let inode = inner.files.len();
                inner.files.push(Inode::default());
                inner.names.insert(path.to_owned(), inode);
                inner.name_changes.push(NameChange::Create(path.to_owned(), inode));
                inode
            }
            None => return Err(ErrorKind::NotFound.into()),
        };
        Ok(Box::new(SimFile { disk: self.clone(), inode, life: inner.life }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.change()?;
        let inode = inner.names.remove(from).ok_or(ErrorKind::NotFound)?;
        inner.names.insert(to.to_owned(), inode);
        inner.name_changes.push(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.change()?;
        inner.names.remove(path).ok_or(ErrorKind::NotFound)?;
        inner.name_changes.push(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.change()?;
        let (here, elsewhere) =
            std::mem::take(&mut inner.name_changes).into_iter().partition(|change| match change {
                NameChange::Create(path, _)
                | NameChange::Remove(path)
                | NameChange::Rename(path, _) => path.parent() == Some(dir),
            });
        inner.name_changes = elsewhere;
        let here: Vec<NameChange> = here;
        here.into_iter().for_each(|change| change.apply(&mut inner.durable_names));
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let mut inner = SimDisk::lock(self);
        if inner.locked {
            return Ok(None);
        }
        inner.locked = true;
        Ok(Some(Box::new(Guard { disk: self.clone(), life: inner.life })))
    }

    fn free_bytes(&self, _dir: &Path) -> Option<u64> {
        let inner = SimDisk::lock(self);
        let capacity = inner.faults.capacity_bytes?;
        Some(capacity.saturating_sub(inner.used_bytes()))
    }
}

struct Guard {
    disk: SimDisk,
    life: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut inner = self.disk.lock();
        if inner.life == self.life {
            inner.locked = false;
        }
    }
}

struct SimFile {
    disk: SimDisk,
    inode: usize,
    life: u64,
}

impl SimFile {
    fn with<T>(
        &self,
        changes: bool,
        work: impl FnOnce(&mut Inner, usize) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut inner = self.disk.lock();
        if inner.life != self.life {
            return Err(io::Error::other("this file was open before the crash"));
        }
        if changes {
            inner.change()?;
        }
        work(&mut inner, self.inode)
    }
}

impl DiskFile for SimFile {
    fn byte_len(&self) -> io::Result<u64> {
        self.with(false, |inner, inode| Ok(inner.files[inode].now.len() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(false, |inner, inode| {
            let offset = usize::try_from(offset).map_err(io::Error::other)?;
            let left = inner.files[inode].now.len().saturating_sub(offset);
            let len = inner.shortened(left.min(buffer.len()));
            let bad = inner.bad_blocks.iter().any(|(other, bytes)| {
                *other == inode && bytes.start < offset + len && offset < bytes.end
            });
            if bad {
                return Err(io::Error::other("simulated bad sector"));
            }
            if len > 0 {
                buffer[..len].copy_from_slice(&inner.files[inode].now[offset..offset + len]);
            }
            Ok(len)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.with(true, |inner, inode| {
            let offset = usize::try_from(offset).map_err(io::Error::other)?;
            let mut len = inner.shortened(bytes.len());
            if let Some(capacity) = inner.faults.capacity_bytes {
                let have = inner.files[inode].now.len();
                let free = usize::try_from(capacity.saturating_sub(inner.used_bytes()));
                let in_place = match inner.faults.copies_on_write {
                    true => 0,
                    false => have.saturating_sub(offset),
                };
                let most = in_place + free.unwrap_or(usize::MAX);
                len = len.min(most);
            }
            if len == 0 && !bytes.is_empty() {
                return Err(ErrorKind::StorageFull.into());
            }
            let bytes = &bytes[..len];
            write(&mut inner.files[inode].now, offset, bytes);
            let change = Change::Write { offset, bytes: bytes.to_vec() };
            inner.files[inode].unsynced.push(change);
            Ok(len)
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(true, |inner, inode| {
            let len = usize::try_from(len).map_err(io::Error::other)?;
            inner.files[inode].now.resize(len, 0);
            inner.files[inode].unsynced.push(Change::SetLen(len));
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(true, |inner, inode| {
            let Inner { files, rng, faults, .. } = inner;
            let inode = &mut files[inode];
            match &mut faults.fail_sync_after {
                Some(0) => {
                    // As the kernel does: the pages count as clean afterwards, whether they were written or not.
                    faults.fail_sync_after = None;
                    let now = inode.now.clone();
                    inode.settle(rng);
                    inode.now = now;
                    return Err(io::Error::other("simulated sync failure"));
                }
                Some(left) => *left -= 1,
                None => {}
            }
            inode.durable.clone_from(&inode.now);
            inode.unsynced.clear();
            Ok(())
        })
    }
}
