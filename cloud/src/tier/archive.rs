//! Objects: put, read, removed.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use robustmq_common::ids::Offset;
use robustmq_common::limits;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::ahead::Ahead;
use super::blocks::{BlockId, Blocks, Check, FOOTER, Source};
use super::format::{self, Block, FormatError, SealedObject};
use crate::metrics::TierMetrics;
use crate::objects::{Location, told};
use crate::store::keys::archive::{Archived, Doomed};
use crate::store::keys::partition::PartitionKeys;

/// Why an object was not put, read or removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// The object store does not answer, or refuses.
    #[error("the object store failed: {0}")]
    Unavailable(String),
    /// There is no such object. Its records were deleted, unless somebody else removed it.
    #[error("object {0} is not there")]
    Gone(String),
    /// The object, or what was got of it, again and again, has other bytes than were put.
    #[error("object {object}: {source}")]
    Damaged {
        /// The object's path.
        object: String,
        /// What is wrong.
        source: FormatError,
    },
    /// The broker ends.
    #[error("the archive is closed")]
    Closed,
}

/// What may be set of an archive.
#[derive(Debug, Clone, Copy)]
pub struct TierSettings {
    /// What blocks may take of memory.
    pub cache_bytes: usize,
    /// How long one put may take.
    pub put: Duration,
}

impl Default for TierSettings {
    fn default() -> Self {
        Self { cache_bytes: limits::tier::CACHE_BYTES, put: limits::tier::PUT }
    }
}

/// An archived object of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object {
    /// Whose it is.
    pub keys: PartitionKeys,
    /// What it holds.
    pub archived: Archived,
}

/// A read of archived records that got none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedRead {
    /// Of which partition.
    pub keys: PartitionKeys,
    /// Why.
    pub error: ArchiveError,
}

/// What of a partition lies in one object.
#[derive(Debug)]
pub(crate) struct ColdRead {
    /// Whole batches.
    pub batches: Vec<Bytes>,
    /// Where to go on.
    pub next: Offset,
    /// There was no room for more.
    pub is_full: bool,
}

/// Where archived objects lie, with the cache in front.
pub struct Archive {
    objects: Arc<dyn ObjectStore>,
    path: String,
    settings: TierSettings,
    blocks: Arc<Blocks>,
    ahead: Ahead,
    metrics: TierMetrics,
    /// Objects that are being put.
    uploading: Mutex<HashSet<Uuid>>,
    /// To whoever tells of failed reads.
    failed: mpsc::Sender<FailedRead>,
    untold: Mutex<Option<mpsc::Receiver<FailedRead>>>,
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive").field("path", &self.path).finish_non_exhaustive()
    }
}

/// While it lives, the janitor leaves an object alone.
pub(crate) struct Uploading<'a> {
    archive: &'a Archive,
    object: Uuid,
}

impl Drop for Uploading<'_> {
    fn drop(&mut self) {
        self.archive.lock().remove(&self.object);
    }
}

impl Archive {
    /// The archive at `location`. Reads nothing.
    #[must_use]
    pub fn new(location: Location, settings: TierSettings, metrics: TierMetrics) -> Self {
        let Location { objects, path } = location;
        let blocks = Blocks::new(Arc::clone(&objects), settings.cache_bytes, metrics.clone());
        let (failed, untold) = mpsc::channel(limits::tier::UNTOLD_READS);
        Self {
            failed,
            untold: Mutex::new(Some(untold)),
            blocks: Arc::new(blocks),
            metrics,
            objects,
            path,
            settings,
            ahead: Ahead::default(),
            uploading: Mutex::default(),
        }
    }

    /// Reads that fail from now on, for one who tells of them: it may miss some if there are many. `None` if somebody does already.
    #[must_use]
    pub fn failed_reads(&self) -> Option<mpsc::Receiver<FailedRead>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A reader of `keys` got nothing.
    pub(crate) fn read_failed(&self, keys: &PartitionKeys, error: &ArchiveError) {
        // Where there is no room, there is enough to tell.
        let _ = self.failed.try_send(FailedRead { keys: *keys, error: error.clone() });
    }

    /// What it did.
    #[must_use]
    pub fn metrics(&self) -> &TierMetrics {
        &self.metrics
    }

    /// Bytes of memory that blocks take.
    #[must_use]
    pub fn cache_bytes(&self) -> usize {
        self.blocks.bytes()
    }

    /// Blocks may take so much from now on. What is on its way is not ended.
    pub fn set_cache_bytes(&self, bytes: usize) {
        self.blocks.set_budget_bytes(bytes);
    }

    /// The object store, and the path under which everything of the archive lies.
    pub(super) fn place(&self) -> (&dyn ObjectStore, &str) {
        (&*self.objects, &self.path)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        self.uploading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `{path}/{topic}/{partition}/{base offset, 20 digits}-{object}`.
    pub(super) fn path_of(&self, keys: &PartitionKeys, base_offset: Offset, object: Uuid) -> Path {
        let (topic, partition) = (keys.topic.0, keys.partition.0);
        let (base, object) = (base_offset.0, object.simple());
        Path::from(format!("{}/{topic}/{partition}/{base:020}-{object}", self.path))
    }

    /// The object that `doomed` notes is about to be put: call it before the note is written.
    pub(crate) fn upload(&self, object: Uuid) -> Uploading<'_> {
        self.lock().insert(object);
        Uploading { archive: self, object }
    }

    /// The objects that are on their way.
    pub(super) fn uploading(&self) -> HashSet<Uuid> {
        self.lock().clone()
    }

    /// Puts an object, which is durable when this returns.
    ///
    /// # Errors
    /// [`ArchiveError::Unavailable`]; it may be there all the same, now or later.
    pub(crate) async fn put(&self, doomed: &Doomed, parts: Vec<Bytes>) -> Result<(), ArchiveError> {
        let path = self.path_of(&doomed.keys, doomed.base_offset, doomed.object);
        let put = self.objects.put(&path, PutPayload::from_iter(parts));
        match tokio::time::timeout(self.settings.put, put).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(ArchiveError::Unavailable(told(&error))),
            Err(_) => {
                let seconds = self.settings.put.as_secs();
                Err(ArchiveError::Unavailable(format!("{path} was not put within {seconds} s")))
            }
        }
    }

    /// Keeps up to `bytes` of the end of what was put in the cache, for those who read a little behind.
    pub(crate) fn keep_hot(&self, object: Uuid, sealed: &SealedObject, bytes: u64) {
        let Some((footer, data)) = sealed.parts.split_last() else { return };
        let Ok(blocks) = format::parse_footer(footer) else { return };
        let mut left = bytes;
        let mut parts = data.iter();
        let blocks: Vec<(usize, Vec<&Bytes>, u64)> = blocks
            .iter()
            .enumerate()
            .map(|(number, block)| {
                let mut size = 0;
                let mut own = Vec::new();
                while size < u64::from(block.bytes) {
                    let Some(part) = parts.next() else { break };
                    size += part.len() as u64;
                    own.push(part);
                }
                (number, own, size)
            })
            .collect();
        for (number, parts, size) in blocks.into_iter().rev() {
            if size > left {
                break;
            }
            left -= size;
            let mut block = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
            parts.into_iter().for_each(|part| block.extend_from_slice(part));
            self.blocks.keep(BlockId { object, number }, block.into());
        }
        if left < bytes {
            self.blocks.keep(BlockId { object, number: FOOTER }, footer.clone());
        }
    }

    /// Removes an object; that it is not there is as good.
    ///
    /// # Errors
    /// [`ArchiveError::Unavailable`].
    pub(super) async fn remove(&self, doomed: &Doomed) -> Result<(), ArchiveError> {
        let path = self.path_of(&doomed.keys, doomed.base_offset, doomed.object);
        let removed = self.objects.delete(&path);
        match tokio::time::timeout(limits::object::READ, removed).await {
            Ok(Ok(()) | Err(object_store::Error::NotFound { .. })) => Ok(()),
            Ok(Err(error)) => Err(ArchiveError::Unavailable(told(&error))),
            Err(_) => Err(ArchiveError::Unavailable(format!("{path} was not removed in time"))),
        }
    }

    /// The batches of `object` from the one that holds `from` on: at most `max_bytes`, and with `at_least_one` one if there is one. Reads
    /// at most to the end of one block, and fetches ahead of those who read along, into `next` too. Without `at_least_one` nothing is
    /// waited for: what is not in memory is as if there were no room for it.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub(crate) async fn read(
        self: &Arc<Self>,
        object: &Object,
        next: Option<&Object>,
        from: Offset,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<ColdRead, ArchiveError> {
        let blocks = match at_least_one {
            true => self.footer(object).await?,
            false => match self.blocks.ready(footer_id(object)) {
                Some(footer) => self.parse_footer(object, &footer)?,
                None => return Ok(ColdRead { batches: Vec::new(), next: from, is_full: true }),
            },
        };
        let number = blocks.partition_point(|block| block.last_offset < from);
        let after = Offset(object.archived.last_offset.0.saturating_add(1));
        let Some(block) = blocks.get(number) else {
            return Ok(ColdRead { batches: Vec::new(), next: after, is_full: false });
        };
        let id = BlockId { object: object.archived.object, number };
        let bytes = match at_least_one {
            true => self.blocks.get(id, &self.source(object, block)).await?,
            false => match self.blocks.ready(id) {
                Some(bytes) => bytes,
                None => return Ok(ColdRead { batches: Vec::new(), next: from, is_full: true }),
            },
        };
        let found = format::batches(&bytes, from, max_bytes, at_least_one);
        let (batches, is_all) = found.map_err(|source| self.damaged(object, source))?;
        let end = match (is_all, batches.last()) {
            (true, _) => Offset(block.last_offset.0.saturating_add(1)),
            (false, Some(last)) => next_offset(last).unwrap_or(after),
            (false, None) => from,
        };
        self.fetch_ahead(object, next, from, end, &blocks, number);
        let taken: usize = batches.iter().map(Bytes::len).sum();
        // Few bytes would hold the whole block in memory, for as long as a slow reader likes.
        let batches = match taken < bytes.len() / limits::tier::COPIED_FRACTION {
            true => batches.iter().map(|batch| Bytes::copy_from_slice(batch)).collect(),
            false => batches,
        };
        let next = if is_all && number + 1 == blocks.len() { after } else { end };
        Ok(ColdRead { batches, next, is_full: !is_all })
    }

    /// Has the block of `object` that holds `from` in memory. Waits for [`limits::tier::WARM_WAIT`]: what has not come by then may come
    /// still, and callers who are gone by then wait for nothing.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub(crate) async fn warm(&self, object: &Object, from: Offset) -> Result<(), ArchiveError> {
        within(limits::tier::WARM_WAIT, self.fetch_first(object, from)).await
    }

    async fn fetch_first(&self, object: &Object, from: Offset) -> Result<(), ArchiveError> {
        let blocks = self.footer(object).await?;
        let number = blocks.partition_point(|block| block.last_offset < from);
        let Some(block) = blocks.get(number) else { return Ok(()) };
        let id = BlockId { object: object.archived.object, number };
        self.blocks.get(id, &self.source(object, block)).await.map(drop)
    }

    /// How many blocks may be asked for at once so that none pushes out another.
    pub(crate) fn blocks_at_once(&self) -> usize {
        (self.blocks.budget_bytes() / 4 / limits::tier::BLOCK_BYTES).max(1)
    }

    fn damaged(&self, object: &Object, source: FormatError) -> ArchiveError {
        let Object { keys, archived } = object;
        let path = self.path_of(keys, archived.base_offset, archived.object);
        ArchiveError::Damaged { object: path.to_string(), source }
    }

    async fn footer(&self, object: &Object) -> Result<Vec<Block>, ArchiveError> {
        let Object { keys, archived } = object;
        let source = Source {
            path: self.path_of(keys, archived.base_offset, archived.object),
            range: archived.data_bytes..archived.data_bytes + u64::from(archived.footer_bytes),
            check: Check::Footer,
        };
        let footer = self.blocks.get(footer_id(object), &source).await?;
        self.parse_footer(object, &footer)
    }

    fn parse_footer(&self, object: &Object, footer: &[u8]) -> Result<Vec<Block>, ArchiveError> {
        format::parse_footer(footer).map_err(|source| self.damaged(object, source))
    }

    fn source(&self, object: &Object, block: &Block) -> Source {
        let Object { keys, archived } = object;
        Source {
            path: self.path_of(keys, archived.base_offset, archived.object),
            range: block.position..block.position + u64::from(block.bytes),
            check: Check::Crc32c(block.crc32c),
        }
    }

    fn fetch_ahead(
        self: &Arc<Self>,
        object: &Object,
        next: Option<&Object>,
        from: Offset,
        end: Offset,
        blocks: &[Block],
        number: usize,
    ) {
        let budget_blocks = (self.blocks.budget_bytes() / 2 / limits::tier::BLOCK_BYTES).max(1);
        let wanted = self.ahead.read(&object.keys, from, end, budget_blocks);
        let wanted = wanted.min(self.blocks_at_once());
        let here = blocks.iter().enumerate().skip(number + 1).take(wanted);
        let mut left = wanted;
        for (number, block) in here {
            left -= 1;
            let id = BlockId { object: object.archived.object, number };
            self.blocks.get_ahead(id, self.source(object, block));
        }
        if let Some(next) = next.copied().filter(|_| left > 0) {
            let archive = Arc::clone(self);
            tokio::spawn(async move {
                let blocks = within(limits::tier::WARM_WAIT, archive.footer(&next)).await?;
                for (number, block) in blocks.iter().enumerate().take(left) {
                    let id = BlockId { object: next.archived.object, number };
                    archive.blocks.get_ahead(id, archive.source(&next, block));
                }
                Ok::<(), ArchiveError>(())
            });
        }
    }
}

fn footer_id(object: &Object) -> BlockId {
    BlockId { object: object.archived.object, number: FOOTER }
}

async fn within<T>(
    most: Duration,
    work: impl Future<Output = Result<T, ArchiveError>>,
) -> Result<T, ArchiveError> {
    tokio::time::timeout(most, work).await.unwrap_or_else(|_| {
        let seconds = most.as_secs();
        Err(ArchiveError::Unavailable(format!("no answer within {seconds} s")))
    })
}

fn next_offset(batch: &Bytes) -> Option<Offset> {
    let header = robustmq_common::record::BatchHeader::parse(batch).ok()?;
    Some(Offset(header.base_offset.0 + i64::from(header.last_offset_delta) + 1))
}
