//! What a `tiered` partition archives: closed ranges become objects, by age and size, and the store keeps only where they are.
//!
//! Order of an archiving: the object is noted as doomed; it is put; one write makes it archived and says how far the archive goes, and
//! readers are told; then the batches leave the store. The time index stays, so that everything that goes by it (retention, sizes,
//! look-ups by time) needs to know nothing of objects.
//!
//! **Invariant:** every record of the log is in the store, or in an archived object, or both, whatever crashes in between.
//! **Invariant:** what is archived is a prefix of the log: `archived_to` only grows.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use robustmq_common::ids::Offset;
use robustmq_common::limits;
use robustmq_common::record::BatchError;
use uuid::Uuid;

use super::maintenance::MaintenanceError;
use super::totals::Part;
use super::{LogError, Partition, after};
use crate::store::keys::archive::{Archived, Doomed, archived_from};
use crate::store::keys::damaged;
use crate::store::keys::partition::{Chunk, encode_offset};
use crate::store::{self, ScanLimit, StoreError, WriteBatch};
use crate::tier::{Archive, ArchiveError, Object, ObjectBuilder};

/// What a topic's configuration asks of archiving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TierRules {
    /// `robustmq.tier.local.ms`: older records may go.
    pub local_ms: i64,
    /// `local.retention.bytes`: what is more than this goes, whatever its age.
    pub local_bytes: Option<u64>,
    /// `robustmq.tier.hot.bytes`: of each object, this much of its end is put into the cache.
    pub hot_bytes: u64,
}

/// There is nothing that has to be archived, or it is not known since when: from before the partition was loaded.
pub(super) const LONG_SINCE: i64 = i64::MIN;

/// What is to be archived next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchivePlan {
    /// There is something to do now.
    pub is_due: bool,
    /// When there is though nothing is appended, milliseconds since 1970; `i64::MAX` for never.
    pub due_ms: i64,
    /// Up to where, if it is due.
    until: Offset,
}

/// Why nothing was archived.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchivePassError {
    /// The topic was deleted.
    #[error("the topic was deleted")]
    Dropped,
    /// A batch in the store is none.
    #[error("a batch behind offset {from} cannot be read: {source}")]
    Batch {
        /// Where the range begins.
        from: Offset,
        /// What is wrong.
        source: BatchError,
    },
    /// The object store failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<MaintenanceError> for ArchivePassError {
    fn from(error: MaintenanceError) -> Self {
        match error {
            MaintenanceError::Dropped => Self::Dropped,
            MaintenanceError::Store(error) => Self::Store(error),
        }
    }
}

impl From<LogError> for ArchivePassError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Dropped(_) => Self::Dropped,
            LogError::Store(error) => Self::Store(error),
            LogError::TooManyPartitions(_) => Self::Store(StoreError::Busy { queued_bytes: 0 }),
        }
    }
}

impl Partition {
    /// Everything below it is in archived objects, or deleted.
    pub(super) fn archived_to(&self) -> Offset {
        Offset(self.archived_to.load(Ordering::SeqCst))
    }

    /// The first offset whose record is in the store (ListOffsets with -4, KIP-405).
    #[must_use]
    pub fn local_start(&self) -> Offset {
        self.archived_to().max(self.log_start())
    }

    /// The last offset that was archived.
    #[must_use]
    pub fn last_archived(&self) -> Option<Offset> {
        let to = self.archived_to();
        (to > Offset(0)).then(|| Offset(to.0 - 1))
    }

    /// What there is to archive at `now_ms`. Reads the time index of what is not archived, up to an object's worth.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn plan_archive(
        &self,
        rules: &TierRules,
        now_ms: i64,
    ) -> Result<ArchivePlan, StoreError> {
        let from = self.local_start();
        let gathered_ms = self.gathered_ms(rules, now_ms);
        let mut excess = match rules.local_bytes {
            Some(most) => self.closed_bytes(Part::Local).await?.saturating_sub(most),
            None => 0,
        };
        let excess_due_ms = match excess {
            0 => i64::MAX,
            limits::tier::OBJECT_BYTES.. => now_ms,
            _ => gathered_ms,
        };
        let comes_of_age = |chunk: &Chunk, times: i64| {
            chunk.max_timestamp.saturating_add(rules.local_ms.saturating_mul(times))
        };
        let mut plan = ArchivePlan { is_due: false, due_ms: i64::MAX, until: from };
        let mut bytes = 0_u64;
        let mut whole_ms = i64::MIN;
        let mut resume = self.keys().chunks_from(from);
        'pages: while !resume.is_empty() {
            for (chunk, last) in self.few_chunks(&mut resume).await? {
                if bytes == 0 {
                    // Little waits until it is twice as old, and for more: few objects are cheap.
                    plan.due_ms = comes_of_age(&chunk, 2).max(gathered_ms);
                }
                whole_ms = whole_ms.max(comes_of_age(&chunk, 1));
                if whole_ms <= now_ms || excess > 0 {
                    plan.until = after(last);
                }
                excess = excess.saturating_sub(chunk.bytes);
                bytes = bytes.saturating_add(chunk.bytes);
                if bytes >= limits::tier::OBJECT_BYTES {
                    plan.due_ms = plan.due_ms.min(whole_ms);
                    break 'pages;
                }
            }
        }
        let open = self.sequencer().end.open_chunk;
        if bytes == 0 && open.bytes > 0 {
            plan.due_ms = comes_of_age(&open, 2).max(gathered_ms);
        }
        if plan.until > from {
            plan.due_ms = plan.due_ms.min(excess_due_ms);
        }
        plan.is_due = plan.due_ms <= now_ms;
        Ok(plan)
    }

    /// When what is less than an object has waited long enough for more to come. Its timestamps do not say that: those of a backfill are
    /// old when they come, and each chunk would be an object.
    fn gathered_ms(&self, rules: &TierRules, now_ms: i64) -> i64 {
        // The clock may have been set back.
        let since = self.unarchived_since_ms.fetch_min(now_ms, Ordering::AcqRel).min(now_ms);
        let gather = i64::try_from(limits::tier::GATHER.as_millis()).unwrap_or(i64::MAX);
        since.saturating_add(gather.min(rules.local_ms))
    }

    /// Something was appended that will have to be archived. Called under the sequencer's lock.
    pub(super) fn note_unarchived(&self, now_ms: i64) {
        let (ordering, failure) = (Ordering::AcqRel, Ordering::Acquire);
        let _noted =
            self.unarchived_since_ms.compare_exchange(LONG_SINCE, now_ms, ordering, failure);
    }

    /// Archives one object's worth, if that is due. Returns its bytes; 0 if there was nothing to do.
    ///
    /// # Errors
    /// [`ArchivePassError`]: what was to be archived is in the store as before.
    pub async fn archive(
        self: &Arc<Self>,
        archive: &Archive,
        rules: &TierRules,
        now_ms: i64,
    ) -> Result<u64, ArchivePassError> {
        // One at a time, and none while batches are rewritten.
        let _one_at_a_time = self.compaction.lock().await;
        self.ready_for_upkeep().await?;
        self.leave_store().await?;
        let mut plan = self.plan_archive(rules, now_ms).await?;
        let from = self.local_start();
        if plan.is_due && plan.until == from {
            let is_old = |open: &Chunk| {
                open.max_timestamp.saturating_add(rules.local_ms.saturating_mul(2)) <= now_ms
            };
            self.close_open_chunk(is_old).await?;
            plan = self.plan_archive(rules, now_ms).await?;
        }
        if !plan.is_due || plan.until == from {
            return Ok(0);
        }
        let object = self.gather(from, plan.until).await?;
        let Some(sealed) = object.seal() else {
            // Compaction or a crash has left nothing there.
            self.archived(None, plan.until, now_ms).await?;
            return Ok(0);
        };
        let id = Uuid::new_v4();
        let archived = Archived {
            base_offset: sealed.base_offset,
            last_offset: sealed.last_offset,
            object: id,
            data_bytes: sealed.data_bytes,
            footer_bytes: sealed.footer_bytes,
        };
        let doomed = archived.doomed(self.keys());
        let _uploading = archive.upload(id);
        let mut note = WriteBatch::new();
        note.put(doomed.key(), doomed.encode());
        store::write(self.store(), note).await?;
        archive.put(&doomed, sealed.parts.clone()).await?;
        if rules.hot_bytes > 0 {
            archive.keep_hot(id, &sealed, rules.hot_bytes);
        }
        self.archived(Some((archived, doomed)), plan.until, now_ms).await?;
        self.leave_store().await?;
        Ok(sealed.data_bytes)
    }

    /// The batches of a range of the store.
    async fn gather(&self, from: Offset, until: Offset) -> Result<ObjectBuilder, ArchivePassError> {
        let mut object = ObjectBuilder::default();
        let mut range = self.keys().batches(from, until);
        loop {
            let limit = ScanLimit::bytes(limits::tier::BLOCK_BYTES * 4);
            let page = self.store().scan(range.clone(), limit).await?;
            for (_, batch) in page.items {
                object.push(batch).map_err(|source| ArchivePassError::Batch { from, source })?;
            }
            match page.resume {
                Some(resume) => range.start = resume,
                None => return Ok(object),
            }
        }
    }

    /// Makes an object that was put the place of what it holds.
    async fn archived(
        &self,
        object: Option<(Archived, Doomed)>,
        until: Offset,
        now_ms: i64,
    ) -> Result<(), ArchivePassError> {
        // The log's start does not move meanwhile.
        let _no_deletion = self.maintenance.lock().await;
        let mut write = WriteBatch::new();
        write.put(self.keys().archived_to(), encode_offset(until));
        if let Some((archived, doomed)) = object
            && archived.last_offset >= self.log_start()
        {
            write.put(archived.key(self.keys()), archived.encode());
            write.delete(doomed.key());
        }
        self.write_unless_dropped(write).await?;
        // Before the batches go: whoever finds them gone finds this.
        self.archived_to.fetch_max(until.0, Ordering::SeqCst);
        // What came meanwhile waits from now on.
        let sequencer = self.sequencer();
        let since = if sequencer.end.next_offset > until { now_ms } else { LONG_SINCE };
        self.unarchived_since_ms.store(since, Ordering::Release);
        Ok(())
    }

    /// Removes what is archived from the store, if a crash or a failure has left it there.
    async fn leave_store(&self) -> Result<(), ArchivePassError> {
        let to = self.archived_to();
        if self.left_store_to.load(Ordering::Acquire) >= to.0 {
            return Ok(());
        }
        let mut write = WriteBatch::new();
        write.delete_range(self.keys().batches(Offset(0), to));
        self.write_unless_dropped(write).await?;
        self.left_store_to.fetch_max(to.0, Ordering::AcqRel);
        Ok(())
    }

    /// Has `write` doom the archived objects that end before `before`, at most [`limits::tier::DOOMED_AT_ONCE`].
    pub(super) async fn doom_before(
        &self,
        before: Offset,
        write: &mut WriteBatch,
    ) -> Result<(), StoreError> {
        if self.archived_to() == Offset(0) {
            return Ok(());
        }
        let mut range = archived_from(self.keys(), Offset(0));
        let mut left = limits::tier::DOOMED_AT_ONCE;
        loop {
            let page = self.store().scan(range.clone(), ScanLimit::items(left)).await?;
            for (key, value) in &page.items {
                let decoded = Archived::decode(key, value);
                let (keys, archived) = decoded.map_err(|error| damaged(key, error))?;
                if archived.last_offset >= before || left == 0 {
                    return Ok(());
                }
                left -= 1;
                let doomed = archived.doomed(&keys);
                write.put(doomed.key(), doomed.encode());
                write.delete(key.clone());
            }
            match page.resume {
                Some(resume) if left > 0 => range.start = resume,
                _ => return Ok(()),
            }
        }
    }

    /// Archived batches from the one that holds `from` on: at most `max_bytes`, and with `at_least_one` one if there is one. Where to go
    /// on, and whether there was no room for more.
    pub(super) async fn cold(
        &self,
        from: Offset,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<(Vec<Bytes>, Offset, bool), StoreError> {
        let archive = self.archive_of()?;
        let objects = self.objects_from(from).await?;
        let Some(object) = objects.first() else {
            return Ok((Vec::new(), self.archived_to(), false));
        };
        let read = archive.read(object, objects.get(1), from, max_bytes, at_least_one).await;
        let read = read.map_err(|error| self.failed_read(archive, from, &error))?;
        Ok((read.batches, read.next, read.is_full))
    }

    fn archive_of(&self) -> Result<&Arc<Archive>, StoreError> {
        self.shared.archive.as_ref().ok_or_else(|| {
            let why = "it is archived, and no [tier] object_store is configured";
            StoreError::Read(why.to_owned())
        })
    }

    /// The object that holds `from`, or the next one, and the one behind that.
    async fn objects_from(&self, from: Offset) -> Result<Vec<Object>, StoreError> {
        let range = archived_from(self.keys(), from);
        let page = self.store().scan(range, ScanLimit::items(2)).await?;
        let object = |(key, value): &(Bytes, Bytes)| {
            let (keys, archived) =
                Archived::decode(key, value).map_err(|error| damaged(key, error))?;
            Ok(Object { keys, archived })
        };
        page.items.iter().map(object).collect()
    }

    /// A read from `from` on would have to wait for the object store, unless [`Partition::warm`] was called.
    #[must_use]
    pub fn is_cold(&self, from: Offset) -> bool {
        match self.source() {
            Some(source) => !source.is_warm(from),
            None => from < self.archived_to() && from >= self.log_start(),
        }
    }

    /// Has what a read from `from` on begins with in memory.
    ///
    /// # Errors
    /// [`StoreError::Read`]: the object store does not answer.
    pub async fn warm(&self, from: Offset) -> Result<(), StoreError> {
        if !self.is_cold(from) {
            return Ok(());
        }
        if let Some(source) = self.source() {
            return source.warm(from).await;
        }
        let archive = self.archive_of()?;
        let Some(object) = self.objects_from(from).await?.into_iter().next() else { return Ok(()) };
        let warmed = archive.warm(&object, from).await;
        warmed.map_err(|error| self.failed_read(archive, from, &error))
    }

    fn failed_read(&self, archive: &Archive, from: Offset, error: &ArchiveError) -> StoreError {
        // Unless it was deleted, with its object, meanwhile.
        if self.unstored.may_be_read(from) {
            archive.read_failed(self.keys(), error);
        }
        StoreError::Read(error.to_string())
    }
}
