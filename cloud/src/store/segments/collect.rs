//! Giving space back: segments in which nothing lives are removed, and what lives in mostly dead ones is moved to kept segments
//! (see `kept`).
//!
//! What lives is counted by going through the index: an entry is a few dozen bytes for a batch of kilobytes, and nothing has to be
//! kept beside it that could become untrue. Counting takes a bounded share of the time, and happens only if something was removed.
//!
//! **Invariant:** a segment is removed only when the index no longer needs it to be told again, and no entry points into it.
//! **Invariant:** a moved value counts only if its key still points to where it was moved from, and is durable before the log says where
//! it is.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use robustmq_common::disk::{DiskFile, read_range};
use robustmq_common::limits;

use super::files::Files;
use super::format::{Group, HEADER_BYTES, Logged, SEPARATED_BYTES, SegmentHeader, read_group};
use super::index::{Entry, Index, Locator, POSITION_KEY};
use super::kept::{Kept, is_kept};
use crate::store::commit::Committer;
use crate::store::{StoreError, WriteOp};

/// What one collection did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Collected {
    pub removed_segments: usize,
    pub moved_bytes: u64,
    /// The disk is short of room, and the segment that is written to has enough dead bytes to be sealed for them.
    pub wants_seal: bool,
    /// How long it took to find out what lives.
    pub counting: Duration,
}

pub(super) struct Collector {
    pub files: Arc<Files>,
    pub index: Arc<dyn Index>,
    pub commits: Arc<Committer>,
    pub kept: Kept,
    /// Dead bytes that are left alone, besides a fifth of what lives.
    pub tolerated_bytes: u64,
    /// Segments in which something is damaged.
    pub unmovable: Mutex<HashSet<u32>>,
}

/// A segment, and what of it lives: as many bytes as it would take elsewhere.
#[derive(Debug, Clone, Copy)]
struct Counted {
    number: u32,
    bytes: u64,
    live: u64,
}

impl Counted {
    fn dead(&self) -> u64 {
        self.bytes - self.live
    }

    /// Whether it should be emptied where every byte counts.
    fn is_worth_it(&self) -> bool {
        self.dead() > self.bytes / 5
    }

    /// The same of one that is still written to: a small file is not worth what it costs.
    fn is_worth_sealing(&self) -> bool {
        self.bytes > limits::STORE_SEALED_EARLY_BYTES && self.is_worth_it()
    }
}

impl Collector {
    /// Collects the segments below `durable`: those that the index will never be told of again.
    pub(super) fn collect(&self, durable: u32) -> Result<Collected, CollectError> {
        // A group that failed may be whole on the disk, and count after a start: what it speaks of has to be there.
        self.commits.check_writable()?;
        let mut collected = Collected::default();
        let is_short = self.commits.is_short_of_room();
        let started = Instant::now();
        let counted = self.count()?;
        collected.counting = started.elapsed();
        let last = counted.iter().rfind(|segment| !is_kept(segment.number));
        collected.wants_seal = is_short && last.is_some_and(Counted::is_worth_sealing);
        let mut sealed = self.sealed(counted, durable, is_short);
        // The dead ones first: they cost nothing, and may be enough.
        sealed.retain(|segment| {
            let dead = segment.live == 0;
            if dead {
                collected.removed_segments += usize::from(self.remove(segment.number));
            }
            !dead
        });
        sealed.sort_by(|a, b| (a.live * b.bytes).cmp(&(b.live * a.bytes)));
        let live: u64 = sealed.iter().map(|segment| segment.live).sum();
        let mut dead: u64 = sealed.iter().map(Counted::dead).sum();
        for segment in sealed {
            let enough = match is_short {
                // Somebody may have deleted what filled the disk: dead bytes are all that keeps writes out.
                true => !segment.is_worth_it(),
                false => dead <= live / 5 + self.tolerated_bytes,
            };
            if enough {
                break;
            }
            dead -= segment.dead();
            match self.evacuate(segment.number) {
                Ok(moved) => collected.moved_bytes += moved,
                Err(error @ CollectError::Damaged(_)) => {
                    // What can be read of it still is; it is left where it is, and looked at again after a start.
                    tracing::error!(%error, "a segment cannot be emptied");
                    self.unmovable
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(segment.number);
                    continue;
                }
                Err(error @ CollectError::Store(StoreError::Read(_))) => {
                    tracing::warn!(%error, "a segment could not be emptied; it is tried again");
                    continue;
                }
                Err(error) => return Err(error),
            }
            collected.removed_segments += usize::from(self.remove(segment.number));
        }
        if collected.removed_segments > 0
            && let Err(error) = self.files.sync_dir()
        {
            // They are removed again when they are found at the next start.
            tracing::warn!(%error, "removed segments may come back after a crash");
        }
        Ok(collected)
    }

    /// All segments and what the index points to in them, by number.
    fn count(&self) -> Result<Vec<Counted>, StoreError> {
        // What is written after this counts as dead until the next time, where it cannot be removed yet.
        let all = self.files.all().into_iter();
        let mut live: HashMap<u32, u64> = HashMap::new();
        self.index.walk(&everything(), &mut |key, entry| {
            if let Some(place) = Locator::of_entry(entry) {
                let bytes = u64::from(place.len) + key.len() as u64 + SEPARATED_BYTES;
                *live.entry(place.segment).or_default() += bytes;
            }
            true
        })?;
        let counted = all.map(|(number, bytes)| {
            let live = live.get(&number).copied().unwrap_or(0).min(bytes);
            Counted { number, bytes, live }
        });
        Ok(counted.collect())
    }

    /// Those that may be removed: below `durable`, and kept ones that are not written to any more.
    fn sealed(&self, counted: Vec<Counted>, durable: u32, is_short: bool) -> Vec<Counted> {
        let unmovable = self.unmovable.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_sealed = |segment: &Counted| {
            if !is_kept(segment.number) {
                return segment.number < durable;
            }
            let is_open = self.kept.is_open(segment.number);
            if is_open && is_short && segment.is_worth_sealing() {
                self.kept.seal();
                return true;
            }
            !is_open
        };
        let sealed = counted.into_iter().filter(|segment| !unmovable.contains(&segment.number));
        sealed.filter(is_sealed).collect()
    }

    /// Removes a segment's file. What cannot be removed now is found again by the next count after a start.
    fn remove(&self, number: u32) -> bool {
        match self.files.remove(number) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(number, %error, "a segment that nothing needs could not be removed");
                false
            }
        }
    }

    /// Moves what lives in a segment. When it returns, nothing points into the segment.
    fn evacuate(&self, number: u32) -> Result<u64, CollectError> {
        let mut moved = 0;
        let mut batch = Batch::default();
        let mut groups = Groups::open(&self.files, number)?;
        loop {
            let (changes, values_at) = match groups.next() {
                Ok(Some(group)) => group,
                Ok(None) => break,
                // A write was torn or refused, and nobody was told of it; or nothing is left of what was there.
                Err(CollectError::Damaged(_)) if !self.lives_after(number, groups.offset)? => break,
                Err(error) => return Err(error),
            };
            for change in changes {
                let Logged::Separated { key, at, len, crc, .. } = change else { continue };
                let offset = u32::try_from(values_at + at)
                    .map_err(|error| CollectError::Damaged(error.to_string()))?;
                let place = Locator { segment: number, offset, len, crc };
                if self.index.get(&key)? != Some(Entry::At(place).encode()) {
                    continue;
                }
                moved += u64::from(len);
                batch.bytes += key.len() + len as usize;
                batch.keys.push(key);
                batch.places.push(place);
                if batch.is_full() {
                    self.relocate(std::mem::take(&mut batch))?;
                }
            }
        }
        self.relocate(batch)?;
        Ok(moved)
    }

    /// Whether anything lives in a segment at or after a place.
    fn lives_after(&self, number: u32, offset: u64) -> Result<bool, StoreError> {
        let mut found = false;
        self.index.walk(&everything(), &mut |_, entry| {
            found = Locator::of_entry(entry)
                .is_some_and(|place| place.segment == number && place.end() > offset);
            !found
        })?;
        Ok(found)
    }

    /// Moves a batch of values, and waits for it.
    fn relocate(&self, batch: Batch) -> Result<(), CollectError> {
        let Batch { keys, places, bytes } = batch;
        if keys.is_empty() {
            return Ok(());
        }
        // The write that says where they are is not to be refused for what they take.
        self.commits.check_free(true, bytes as u64)?;
        let values = self.read(&places)?;
        let values: Vec<(Bytes, Bytes)> = keys.into_iter().zip(values).collect();
        let moved_to = self.kept.append(&values).map_err(CollectError::Move)?;
        let (mut puts, mut guards) = (Vec::new(), Vec::new());
        for (((key, _), from), to) in values.into_iter().zip(places).zip(moved_to) {
            puts.push(WriteOp::Put(key, Entry::At(to).encode()));
            guards.push(Entry::At(from).encode());
        }
        self.commits.submit_guarded(puts, guards)?.wait()?;
        Ok(())
    }

    /// The values at `places`, as they were written.
    fn read(&self, places: &[Locator]) -> Result<Vec<Bytes>, CollectError> {
        let values = self.files.read(places)?;
        let values = values.ok_or_else(|| StoreError::Read("a segment vanished".to_owned()))?;
        for (place, value) in places.iter().zip(&values) {
            if crc32c::crc32c(value) != place.crc {
                // It stays where it is, so that what can be read of the segment still can be.
                return Err(CollectError::Damaged(format!(
                    "{}: the value at byte {} is damaged",
                    self.files.path(place.segment).display(),
                    place.offset
                )));
            }
        }
        Ok(values)
    }
}

/// Values to be moved.
#[derive(Default)]
struct Batch {
    keys: Vec<Bytes>,
    places: Vec<Locator>,
    bytes: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.bytes >= limits::STORE_MOVED_BYTES || self.keys.len() >= limits::STORE_MOVED_VALUES
    }
}

/// Why space was not given back. What was is.
#[derive(Debug, thiserror::Error)]
pub(super) enum CollectError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It will not read otherwise the next time.
    #[error("{0}")]
    Damaged(String),
    #[error("values could not be moved: {0}")]
    Move(io::Error),
}

fn everything() -> Range<Bytes> {
    Bytes::new()..Bytes::from_static(POSITION_KEY)
}

/// The groups of a segment that is not written to any more, without their values.
struct Groups<'a> {
    files: &'a Files,
    number: u32,
    salt: u32,
    offset: u64,
}

impl<'a> Groups<'a> {
    fn open(files: &'a Files, number: u32) -> Result<Self, CollectError> {
        let mut groups = Self { files, number, salt: 0, offset: 0 };
        let header = groups.reading(|file| {
            read_range(file, 0, usize::try_from(HEADER_BYTES).map_err(io::Error::other)?)
        })?;
        let header = SegmentHeader::decode(&header).ok_or_else(|| groups.damaged())?;
        (groups.salt, groups.offset) = (header.salt, HEADER_BYTES);
        Ok(groups)
    }

    /// The next group's changes, and where its values start.
    fn next(&mut self) -> Result<Option<(Vec<Logged>, u64)>, CollectError> {
        let (salt, offset) = (self.salt, self.offset);
        let (group, bytes) =
            self.reading(|file| Ok((read_group(file, salt, offset)?, file.byte_len()?)))?;
        match group {
            Some(Group { head, values_at, changes: Some(changes) }) => {
                self.offset += head.group_bytes();
                Ok(Some((changes, values_at)))
            }
            None if offset >= bytes => Ok(None),
            _ => Err(self.damaged()),
        }
    }

    /// Reads from the file, which may have been closed since.
    fn reading<T>(
        &self,
        read: impl FnOnce(&dyn DiskFile) -> io::Result<T>,
    ) -> Result<T, CollectError> {
        let file = self.files.get(self.number);
        let file = file.and_then(|file| file.ok_or_else(|| io::ErrorKind::NotFound.into()));
        file.and_then(|file| read(&*file)).map_err(|error| {
            StoreError::Read(format!("{}: {error}", self.files.path(self.number).display())).into()
        })
    }

    fn damaged(&self) -> CollectError {
        let path = self.files.path(self.number);
        CollectError::Damaged(format!(
            "{}: the group at byte {} is damaged",
            path.display(),
            self.offset
        ))
    }
}
