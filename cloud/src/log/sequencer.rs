//! What assigns offsets, and how it is read from the store.
//!
//! **Invariant:** in `persistent` nothing is assigned past `end`: the state mirrors what the store holds once everything submitted is
//! applied. In a volatile mode the state is what counts, and `end` is how much of it was submitted.
//! **Invariant:** an offset that a volatile mode gives lies below a reservation that is durable.
//! **Invariant:** the store has no end with a leader epoch of which it does not say where it started.

use std::collections::HashSet;

use robustmq_common::ids::{LeaderEpoch, Offset, ProducerId};

use super::mode::StorageMode;
use super::origins::{OriginKey, Origins};
use super::producers::Producers;
use crate::store::keys::partition::{
    Kind, LogEnd, PartitionKeys, ProducerEntry, decode_offset, encode_offset, trailing_number,
};
use crate::store::keys::{ValueError, damaged};
use crate::store::{Era, ScanLimit, Store, StoreError, WriteBatch};

/// What assigns offsets.
#[derive(Debug)]
pub(super) struct Sequencer {
    /// Read before the rest was read: a failed write since then makes the rest untrue.
    pub era: Era,
    /// The end that the store has once everything submitted is applied.
    pub end: LogEnd,
    /// The offset of the next record.
    pub next_offset: Offset,
    /// Where the leader epoch started.
    pub epoch_start: Offset,
    /// The store knows the leader epoch.
    pub epoch_stored: bool,
    /// The store has a reservation of this partition.
    pub has_reservation: bool,
    /// What the reservation has to reach before the next append is taken.
    pub wanted: Offset,
    pub producers: Producers,
    pub origins: Origins,
    pub closed: bool,
    /// `None` until the first append, or change, says it.
    pub mode: Option<StorageMode>,
    /// The mode is being changed: appends wait.
    pub changing: bool,
    /// What changed since the last write of a volatile mode.
    pub changed: Changed,
    /// That write, if it was not settled yet.
    pub writing: Option<Writing>,
}

/// The producers and lanes whose state the store does not have.
#[derive(Debug, Default)]
pub(super) struct Changed {
    pub producers: HashSet<ProducerId>,
    pub origins: HashSet<OriginKey>,
}

impl Changed {
    fn bytes(&self) -> usize {
        // Sets are at worst half empty.
        2 * (self.producers.len() * size_of::<ProducerId>()
            + self.origins.len() * size_of::<OriginKey>())
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.producers.extend(other.producers);
        self.origins.extend(other.origins);
    }
}

/// A write of what was in memory only.
#[derive(Debug)]
pub(super) struct Writing {
    /// The writes that had ended when it was submitted, and those that had failed.
    pub writes: u64,
    pub failures: u64,
    /// To go back to if it failed.
    pub before: LogEnd,
    pub changed: Changed,
}

/// What the store holds, and what follows from it.
pub(super) struct Loaded {
    pub sequencer: Sequencer,
    /// The end of what is in the store. After a crash in a volatile mode the sequencer goes on behind a hole.
    pub stored_end: Offset,
}

impl Sequencer {
    pub(super) async fn load(
        store: &dyn Store,
        keys: &PartitionKeys,
    ) -> Result<Loaded, StoreError> {
        let era = store.era();
        let stored = store.get(&keys.end()).await?;
        let mut end = match &stored {
            Some(value) => LogEnd::decode(value).map_err(|error| damaged(&keys.end(), error))?,
            None => LogEnd::EMPTY,
        };
        let reserved = offset(store, &keys.reserved()).await?;
        let stored_end = end.next_offset;
        let mut epoch_stored = stored.is_some();
        let mut epoch_start = Offset(0);
        if let Some(reserved) = reserved.filter(|reserved| *reserved > stored_end) {
            // It was not stopped: what it gave out may have been read, so none of it is given again, and clients see a new epoch.
            end.next_offset = reserved;
            end.leader_epoch = LeaderEpoch(end.leader_epoch.0.saturating_add(1));
            (epoch_stored, epoch_start) = (false, reserved);
        } else if end.leader_epoch > LeaderEpoch(0) {
            let key = keys.epoch(end.leader_epoch);
            epoch_start = offset(store, &key).await?.unwrap_or(Offset(0));
        }
        let sequencer = Self {
            era,
            end,
            next_offset: end.next_offset,
            epoch_start,
            epoch_stored,
            has_reservation: reserved.is_some(),
            wanted: Offset(0),
            producers: load_producers(store, keys).await?,
            origins: Origins::default(),
            closed: false,
            mode: None,
            changing: false,
            changed: Changed::default(),
            writing: None,
        };
        Ok(Loaded { sequencer, stored_end })
    }

    /// Has `write`, which puts an end, put where that end's leader epoch started, if the store does not know it.
    pub(super) fn put_epoch(&self, keys: &PartitionKeys, write: &mut WriteBatch) {
        if !self.epoch_stored {
            write.put(keys.epoch(self.end.leader_epoch), encode_offset(self.epoch_start));
        }
    }

    /// What it takes of memory beyond itself.
    pub(super) fn bytes(&self) -> usize {
        self.producers.bytes() + self.origins.bytes() + self.changed.bytes()
    }

    /// Records may be in memory only.
    pub(super) fn is_volatile(&self) -> bool {
        self.mode.is_some_and(StorageMode::is_volatile)
    }
}

/// The offset under `key`.
pub(super) async fn offset(store: &dyn Store, key: &[u8]) -> Result<Option<Offset>, StoreError> {
    let Some(value) = store.get(key).await? else { return Ok(None) };
    decode_offset(&value).map(Some).map_err(|error| damaged(key, error))
}

async fn load_producers(store: &dyn Store, keys: &PartitionKeys) -> Result<Producers, StoreError> {
    let mut producers = Producers::default();
    let mut range = keys.kind_range(Kind::Producer);
    loop {
        let page = store.scan(range.clone(), ScanLimit::items(usize::MAX)).await?;
        for (key, value) in &page.items {
            let (id, entry) = read_producer(key, value).map_err(|error| damaged(key, error))?;
            producers.insert(id, entry);
        }
        match page.resume {
            Some(resume) => range.start = resume,
            None => return Ok(producers),
        }
    }
}

fn read_producer(key: &[u8], value: &[u8]) -> Result<(ProducerId, ProducerEntry), ValueError> {
    Ok((ProducerId(trailing_number(key)?), ProducerEntry::decode(value)?))
}
