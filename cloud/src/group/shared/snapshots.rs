//! Named snapshots of a group's progress, and rewinding to one.
//!
//! "Acknowledged" is not "trained": a job that goes back to a checkpoint of its model has to be given again what it acknowledged since. A
//! snapshot that is taken together with the checkpoint says what that is.
//!
//! ```text
//! version(1)=1 taken_ms(8) partitions(4) (topic_id(16) partition(4) length(4) progress(length))*
//! ```
//!
//! **Invariant:** what was in flight when a snapshot was taken counts as not acknowledged: after a rewind it is given out again.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use robustmq_common::ids::{PartitionIndex, TopicId};
use robustmq_common::limits::shared as limits;

use super::coordinator::SharedGroups;
use super::is_shared;
use super::pools::PoolError;
use super::progress::Progress;
use crate::group::coordinator::CoordinatorError;
use crate::group::share::PROTOCOL_TYPE;
use crate::store::keys::group::{GroupKey, snapshot_key, snapshots_range};
use crate::store::keys::partition::PartitionKeys;
use crate::store::keys::{Reader, ValueError, damaged};
use crate::store::{ScanLimit, Store, StoreError, WriteBatch};

const VERSION: u8 = 1;

/// Why a snapshot cannot be taken, or gone back to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Nobody has begun to read in this group.
    #[error("group {0} has no progress: nobody has begun to read in it")]
    NoGroup(String),
    /// It has committed offsets and nothing else, which a rewind would take from it.
    #[error(
        "group {0} shares no records: snapshots are for $shared/ groups and share groups; `robustmq-cloud group reset` moves the committed offsets of others"
    )]
    NotSharing(String),
    /// There is none of that name.
    #[error("group {group} has no snapshot {name}")]
    Unknown {
        /// The group.
        group: String,
        /// The snapshot's name.
        name: String,
    },
    /// There is one already, and it is not to be replaced.
    #[error("group {group} has a snapshot {name} already")]
    Exists {
        /// The group.
        group: String,
        /// The snapshot's name.
        name: String,
    },
    /// A name that cannot be.
    #[error(
        "a snapshot's name has 1 to {} letters, digits, dots, dashes or underscores",
        limits::SNAPSHOT_NAME
    )]
    Name,
    /// See [`limits::SNAPSHOTS`].
    #[error("group {} has {} snapshots, the most that there may be: delete one first", .0, limits::SNAPSHOTS)]
    TooMany(String),
    /// See [`limits::SNAPSHOT_BYTES`].
    #[error(
        "the progress of group {group} is in too many pieces for a snapshot: {bytes} bytes, of at most {}",
        limits::SNAPSHOT_BYTES
    )]
    TooLarge {
        /// The group.
        group: String,
        /// What it would take.
        bytes: usize,
    },
    /// Members join again and again while the group is to go back.
    #[error("members of group {0} come back faster than it can be moved: stop them")]
    Busy(String),
    /// The group.
    #[error(transparent)]
    Group(#[from] CoordinatorError),
    /// The pools.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

impl From<StoreError> for SnapshotError {
    fn from(error: StoreError) -> Self {
        Self::Pool(error.into())
    }
}

/// What is told of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Taken {
    /// Its name.
    pub name: String,
    /// When, in milliseconds since 1970.
    pub taken_ms: i64,
    /// How many partitions it has.
    pub partitions: usize,
}

/// What a rewind did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Rewound {
    /// Partitions that went back.
    pub partitions: usize,
    /// Partitions that the snapshot does not have: the group begins anew on them.
    pub begun_anew: usize,
    /// Partitions of the snapshot whose topics have been deleted since.
    pub deleted: usize,
    /// Records, or offsets where some are missing, that retention has removed since: they cannot be given out again.
    pub gone: u64,
}

/// The progress of a group, partition by partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Snapshot {
    taken_ms: i64,
    partitions: Vec<(PartitionKeys, Progress)>,
}

impl Snapshot {
    fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        out.put_i64(self.taken_ms);
        out.put_u32(u32::try_from(self.partitions.len()).unwrap_or(u32::MAX));
        for (keys, progress) in &self.partitions {
            let progress = progress.encode();
            out.put_slice(keys.topic.as_bytes());
            out.put_i32(keys.partition.0);
            out.put_u32(u32::try_from(progress.len()).unwrap_or(u32::MAX));
            out.put_slice(&progress);
        }
        out.freeze()
    }

    fn decode(value: &[u8]) -> Result<Self, ValueError> {
        let mut reader = Reader::new(value);
        reader.version(VERSION)?;
        let mut snapshot = Self { taken_ms: reader.i64()?, partitions: Vec::new() };
        for _ in 0..reader.u32()? {
            let topic = TopicId(uuid::Uuid::from_bytes(reader.array()?));
            let partition = PartitionIndex(reader.i32()?);
            let length = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
            let progress = Progress::decode(reader.bytes(length)?)?;
            snapshot.partitions.push((PartitionKeys { topic, partition }, progress));
        }
        reader.end()?;
        Ok(snapshot)
    }
}

/// Milliseconds since 1970.
#[must_use]
pub fn wall_ms() -> i64 {
    super::pools::wall_ms()
}

fn check_name(name: &str) -> Result<(), SnapshotError> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match (1..=limits::SNAPSHOT_NAME).contains(&name.len()) && name.chars().all(is_legal) {
        true => Ok(()),
        false => Err(SnapshotError::Name),
    }
}

impl SharedGroups {
    /// Whether a group that has begun on `partitions` may have snapshots: whether its members share records.
    ///
    /// # Errors
    /// [`SnapshotError::NoGroup`], [`SnapshotError::NotSharing`], [`SnapshotError::Pool`].
    pub async fn check_sharing(
        &self,
        group: &str,
        partitions: &[PartitionKeys],
    ) -> Result<(), SnapshotError> {
        if is_shared(group) {
            return Ok(());
        }
        match self.pools().protocol_type(group).await? {
            Some(kind) if kind == PROTOCOL_TYPE => Ok(()),
            // Consumers without a group protocol only commit.
            None if partitions.is_empty() => Err(SnapshotError::NoGroup(group.to_owned())),
            Some(_) | None => Err(SnapshotError::NotSharing(group.to_owned())),
        }
    }

    /// Takes a snapshot of a group's progress on `partitions`, which are all on which it has begun; waits until that is durable.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub async fn take_snapshot(
        &self,
        group: &str,
        name: &str,
        replace: bool,
        partitions: &[PartitionKeys],
        taken_ms: i64,
    ) -> Result<Taken, SnapshotError> {
        check_name(name)?;
        self.check_sharing(group, partitions).await?;
        if partitions.is_empty() {
            return Err(SnapshotError::NoGroup(group.to_owned()));
        }
        let pools = self.pools();
        let _one_at_a_time = pools.snapshots_lock().await;
        let known = list(pools.store(), group).await?;
        let is_known = known.iter().any(|taken| taken.name == name);
        if is_known && !replace {
            return Err(SnapshotError::Exists { group: group.to_owned(), name: name.to_owned() });
        }
        if !is_known && known.len() >= limits::SNAPSHOTS {
            return Err(SnapshotError::TooMany(group.to_owned()));
        }
        let mut snapshot = Snapshot { taken_ms, partitions: Vec::new() };
        for keys in partitions {
            if let Some(progress) = pools.progress(group, keys).await? {
                snapshot.partitions.push((*keys, progress));
            }
        }
        let value = snapshot.encode();
        if value.len() > limits::SNAPSHOT_BYTES {
            let (group, bytes) = (group.to_owned(), value.len());
            return Err(SnapshotError::TooLarge { group, bytes });
        }
        let mut batch = WriteBatch::new();
        batch.put(snapshot_key(group, name), value);
        crate::store::write(&**pools.store(), batch).await?;
        Ok(Taken { name: name.to_owned(), taken_ms, partitions: snapshot.partitions.len() })
    }

    /// The snapshots of a group, by name.
    ///
    /// # Errors
    /// [`SnapshotError::Pool`].
    pub async fn snapshots(&self, group: &str) -> Result<Vec<Taken>, SnapshotError> {
        list(self.pools().store(), group).await
    }

    /// Removes a snapshot.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub async fn delete_snapshot(&self, group: &str, name: &str) -> Result<(), SnapshotError> {
        let pools = self.pools();
        let _one_at_a_time = pools.snapshots_lock().await;
        read(pools.store(), group, name).await?;
        let mut batch = WriteBatch::new();
        batch.delete(snapshot_key(group, name));
        Ok(crate::store::write(&**pools.store(), batch).await?)
    }

    /// The topics that a snapshot has.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub async fn snapshot_topics(
        &self,
        group: &str,
        name: &str,
    ) -> Result<BTreeSet<TopicId>, SnapshotError> {
        let snapshot = read(self.pools().store(), group, name).await?;
        Ok(snapshot.partitions.iter().map(|(keys, _)| keys.topic).collect())
    }

    /// Goes back to a snapshot. Members lose what they hold and their cursors, and join again by themselves. `partitions` are all on which the
    /// group has begun, `deleted` the topics that are no more: they are left out.
    ///
    /// # Errors
    /// [`SnapshotError`]: the group is where it was, but for members that have to join again.
    pub async fn rewind(
        &self,
        group: &str,
        name: &str,
        partitions: &[PartitionKeys],
        deleted: &BTreeSet<TopicId>,
    ) -> Result<Rewound, SnapshotError> {
        self.check_sharing(group, partitions).await?;
        let pools = self.pools();
        let _one_at_a_time = pools.snapshots_lock().await;
        let mut snapshot = read(pools.store(), group, name).await?;
        let taken = snapshot.partitions.len();
        snapshot.partitions.retain(|(keys, _)| !deleted.contains(&keys.topic));
        let partitions_left = snapshot.partitions.len();
        let mut rewound = Rewound {
            partitions: partitions_left,
            begun_anew: 0,
            deleted: taken - partitions_left,
            gone: 0,
        };
        for (keys, progress) in &snapshot.partitions {
            let partition = pools.log().partition(keys.topic, keys.partition).await;
            let start = partition.map_err(PoolError::from)?.offsets().log_start_offset.0;
            rewound.gone += u64::try_from(start - progress.start).unwrap_or_default();
        }
        let is_new = |keys: &&PartitionKeys| {
            let is_in_it = snapshot.partitions.iter().any(|(k, _)| k == *keys);
            !is_in_it && !deleted.contains(&keys.topic)
        };
        let anew: Vec<PartitionKeys> = partitions.iter().filter(is_new).copied().collect();
        rewound.begun_anew = anew.len();
        for _ in 0..limits::REWIND_TRIES {
            self.dismiss(group);
            match pools.replace(group, &snapshot.partitions, &anew).await {
                // Somebody has joined again meanwhile.
                Err(PoolError::InUse) => {}
                Err(error) => return Err(error.into()),
                Ok(()) => return Ok(rewound),
            }
        }
        Err(SnapshotError::Busy(group.to_owned()))
    }

    /// Has all members of a group join again: what they hold goes back, and whatever they commit is refused.
    fn dismiss(&self, group: &str) {
        for member in self.consumers(group) {
            let _gone_already = self.leave(group, &member.stored().member_id, None);
        }
        for member_id in self.share().tokens(group).into_values() {
            let _gone_already = self.share().leave(group, &member_id);
        }
        self.share().end_all_left(group);
    }
}

async fn read(store: &Arc<dyn Store>, group: &str, name: &str) -> Result<Snapshot, SnapshotError> {
    let key = snapshot_key(group, name);
    let value = store.get(&key).await?;
    let unknown = || SnapshotError::Unknown { group: group.to_owned(), name: name.to_owned() };
    let value = value.ok_or_else(unknown)?;
    Ok(Snapshot::decode(&value).map_err(|error| damaged(&key, error))?)
}

/// One after the other, since each may be large.
async fn list(store: &Arc<dyn Store>, group: &str) -> Result<Vec<Taken>, SnapshotError> {
    let mut range = snapshots_range(group);
    let mut found = Vec::new();
    loop {
        let page = store.scan(range.clone(), ScanLimit::items(1)).await?;
        for (key, value) in &page.items {
            let parsed = GroupKey::parse(key).map_err(|error| damaged(key, error))?;
            let snapshot = Snapshot::decode(value).map_err(|error| damaged(key, error))?;
            if let GroupKey::Snapshot { name, .. } = parsed {
                let (taken_ms, partitions) = (snapshot.taken_ms, snapshot.partitions.len());
                found.push(Taken { name, taken_ms, partitions });
            }
        }
        match page.resume {
            Some(next) => range.start = next,
            None => return Ok(found),
        }
    }
}

#[cfg(test)]
mod tests;
