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
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use robustmq_common::disk::read_range;
use robustmq_common::limits;

use super::files::Files;
use super::format::{GroupHead, HEAD_BYTES, HEADER_BYTES, Logged, SegmentHeader, decode_meta};
use super::index::{Entry, Index, Locator, POSITION_KEY};
use super::kept::{Kept, is_kept};
use crate::store::commit::Committer;
use crate::store::{StoreError, WriteOp};

/// What one collection did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Collected {
    pub removed_segments: usize,
    pub moved_bytes: u64,
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
    /// Segments in which something could not be read.
    pub unmovable: Mutex<HashSet<u32>>,
}

/// A segment that is not written to any more.
#[derive(Debug, Clone, Copy)]
struct Sealed {
    number: u32,
    bytes: u64,
    live: u64,
}

impl Collector {
    /// Collects the segments below `durable`: those that the index will never be told of again.
    pub(super) fn collect(&self, durable: u32) -> Result<Collected, CollectError> {
        let mut collected = Collected::default();
        let is_short = self.commits.is_short_of_room();
        if is_short {
            self.kept.seal();
        }
        let started = Instant::now();
        let mut sealed = self.count(durable)?;
        collected.counting = started.elapsed();
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
        let mut dead: u64 = sealed.iter().map(|segment| segment.bytes - segment.live).sum();
        for segment in sealed {
            let enough = match is_short {
                // Somebody may have deleted what filled the disk: dead bytes are all that keeps writes out.
                true => segment.live > segment.bytes / 5 * 4,
                false => dead <= live / 5 + self.tolerated_bytes,
            };
            if enough {
                break;
            }
            match self.evacuate(segment.number) {
                Ok(moved) => collected.moved_bytes += moved,
                Err(error @ CollectError::Store(StoreError::Read(_))) => {
                    // What can be read of it still is; it is left where it is, and looked at again after a start.
                    tracing::error!(%error, "a segment cannot be emptied");
                    self.unmovable
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(segment.number);
                    dead -= segment.bytes - segment.live;
                    continue;
                }
                Err(error) => return Err(error),
            }
            collected.removed_segments += usize::from(self.remove(segment.number));
            dead -= segment.bytes - segment.live;
        }
        if collected.removed_segments > 0
            && let Err(error) = self.files.sync_dir()
        {
            // They are removed again when they are found at the next start.
            tracing::warn!(%error, "removed segments may come back after a crash");
        }
        Ok(collected)
    }

    /// The bytes that the index points to in each segment below `durable` and in each kept one that is not written to any more.
    fn count(&self, durable: u32) -> Result<Vec<Sealed>, StoreError> {
        let mut live: HashMap<u32, u64> = HashMap::new();
        self.index.walk(&everything(), &mut |_, entry| {
            if let Some(place) = Locator::of_entry(entry) {
                *live.entry(place.segment).or_default() += u64::from(place.len);
            }
            true
        })?;
        let unmovable = self.unmovable.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let all = self.files.all().into_iter();
        let is_sealed = |number: u32| match is_kept(number) {
            true => !self.kept.is_open(number),
            false => number < durable,
        };
        let sealed = all.filter(|(number, _)| is_sealed(*number) && !unmovable.contains(number));
        let sealed = sealed.map(|(number, bytes)| {
            let live = live.get(&number).copied().unwrap_or(0).min(bytes);
            Sealed { number, bytes, live }
        });
        Ok(sealed.collect())
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
                // Its last write was torn, and nobody was told of it.
                Err(_) if is_kept(number) && !self.lives_after(number, groups.offset)? => break,
                Err(error) => return Err(error.into()),
            };
            for change in changes {
                let Logged::Separated { key, at, len, crc, .. } = change else { continue };
                let offset = u32::try_from(values_at + at)
                    .map_err(|error| StoreError::Read(error.to_string()))?;
                let place = Locator { segment: number, offset, len, crc };
                if self.index.get(&key)? != Some(Entry::At(place).encode()) {
                    continue;
                }
                moved += u64::from(len);
                batch.bytes += key.len() + len as usize;
                batch.keys.push(key);
                batch.places.push(place);
                if batch.bytes >= limits::STORE_MOVED_BYTES {
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
        let Batch { keys, places, .. } = batch;
        if keys.is_empty() {
            return Ok(());
        }
        self.commits.check_free(true)?;
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
    fn read(&self, places: &[Locator]) -> Result<Vec<Bytes>, StoreError> {
        let values = self.files.read(places)?;
        let values = values.ok_or_else(|| StoreError::Read("a segment vanished".to_owned()))?;
        for (place, value) in places.iter().zip(&values) {
            if crc32c::crc32c(value) != place.crc {
                // It stays where it is, so that what can be read of the segment still can be.
                return Err(StoreError::Read(format!(
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

/// Why space was not given back. What was is.
#[derive(Debug, thiserror::Error)]
pub(super) enum CollectError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("values could not be moved: {0}")]
    Move(std::io::Error),
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
    fn open(files: &'a Files, number: u32) -> Result<Self, StoreError> {
        let mut groups = Self { files, number, salt: 0, offset: HEADER_BYTES };
        let header = groups.read(0, HEADER_BYTES)?;
        let header = SegmentHeader::decode(&header).ok_or_else(|| groups.damaged(0))?;
        groups.salt = header.salt;
        Ok(groups)
    }

    /// The next group's changes, and where its values start.
    fn next(&mut self) -> Result<Option<(Vec<Logged>, u64)>, StoreError> {
        let head = self.read(self.offset, HEAD_BYTES)?;
        if head.is_empty() {
            return Ok(None);
        }
        let head = GroupHead::decode(&head, self.salt).ok_or_else(|| self.damaged(self.offset))?;
        let meta_at = self.offset + HEAD_BYTES;
        let meta = self.read(meta_at, u64::from(head.meta_bytes))?;
        if crc32c::crc32c_append(self.salt, &meta) != head.meta_crc {
            return Err(self.damaged(self.offset));
        }
        let changes = decode_meta(meta).ok_or_else(|| self.damaged(self.offset))?;
        self.offset += head.group_bytes();
        Ok(Some((changes, meta_at + u64::from(head.meta_bytes))))
    }

    fn read(&self, at: u64, bytes: u64) -> Result<Bytes, StoreError> {
        let path = self.files.path(self.number);
        let failed =
            |error: std::io::Error| StoreError::Read(format!("{}: {error}", path.display()));
        let file = self.files.get(self.number).map_err(failed)?;
        let file = file.ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        read_range(&*file, at, bytes).map(Bytes::from).map_err(failed)
    }

    fn damaged(&self, at: u64) -> StoreError {
        let path = self.files.path(self.number);
        StoreError::Read(format!("{}: the group at byte {at} is damaged", path.display()))
    }
}
