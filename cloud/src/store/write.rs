//! What is written: [`WriteBatch`], and the answer to it: [`PendingWrite`].

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use robustmq_common::limits;
use tokio::sync::oneshot;

use super::{Era, StoreError};

/// One change of a [`WriteBatch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOp {
    /// Sets a key.
    Put(Bytes, Bytes),
    /// Removes a key.
    Delete(Bytes),
    /// Removes every key of the range.
    DeleteRange(Range<Bytes>),
}

impl WriteOp {
    /// Bytes of keys and values.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Put(key, value) => key.len() + value.len(),
            Self::Delete(key) => key.len(),
            Self::DeleteRange(range) => range.start.len() + range.end.len(),
        }
    }
}

/// Called once with the outcome of a write, on the store's writer, in the order of submission and before the
/// [`PendingWrite`] resolves. It must be quick, and must not take a lock that is held around [`super::Store::submit`].
pub type Completion = Box<dyn FnOnce(&Result<(), StoreError>) + Send>;

/// Changes that are applied together or not at all, in the order in which they were added.
#[derive(Default)]
pub struct WriteBatch {
    ops: Vec<WriteOp>,
    bytes: usize,
    era: Option<Era>,
    completion: Option<Completion>,
}

impl fmt::Debug for WriteBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteBatch")
            .field("ops", &self.ops.len())
            .field("bytes", &self.bytes)
            .field("era", &self.era)
            .finish_non_exhaustive()
    }
}

impl WriteBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> &mut Self {
        self.push(WriteOp::Put(key.into(), value.into()))
    }

    /// Removes a key, if it is there.
    pub fn delete(&mut self, key: impl Into<Bytes>) -> &mut Self {
        self.push(WriteOp::Delete(key.into()))
    }

    /// Removes every key in `range`.
    pub fn delete_range(&mut self, range: Range<Bytes>) -> &mut Self {
        self.push(WriteOp::DeleteRange(range))
    }

    fn push(&mut self, op: WriteOp) -> &mut Self {
        self.bytes += op.size();
        self.ops.push(op);
        self
    }

    /// Says on which state the batch was built: it is refused if a write failed since then.
    #[must_use]
    pub fn in_era(mut self, era: Era) -> Self {
        self.era = Some(era);
        self
    }

    /// Registers what is told the outcome first. It replaces an earlier one.
    #[must_use]
    pub fn on_complete(
        mut self,
        completion: impl FnOnce(&Result<(), StoreError>) + Send + 'static,
    ) -> Self {
        self.completion = Some(Box::new(completion));
        self
    }

    /// The same changes, to be submitted again if they are refused. A completion is called once, so it is not among them.
    #[must_use]
    pub(crate) fn again(&self) -> Self {
        let Self { ops, bytes, era, completion } = self;
        debug_assert!(completion.is_none(), "whoever has a completion submits by itself");
        Self { ops: ops.clone(), bytes: *bytes, era: *era, completion: None }
    }

    /// The era that the batch was built in.
    #[must_use]
    pub fn era(&self) -> Option<Era> {
        self.era
    }

    /// Its changes.
    #[must_use]
    pub fn ops(&self) -> &[WriteOp] {
        &self.ops
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Bytes of keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Splits the batch for an engine's queue: the queued write and the future that answers it.
    pub(super) fn into_queued(self) -> (QueuedWrite, PendingWrite) {
        let (sender, receiver) = oneshot::channel();
        let queued = QueuedWrite {
            ops: self.ops,
            bytes: self.bytes,
            guards: Vec::new(),
            completion: self.completion,
            answer: sender,
        };
        (queued, PendingWrite(receiver))
    }
}

/// A write in an engine's queue.
pub(super) struct QueuedWrite {
    pub(super) ops: Vec<WriteOp>,
    pub(super) bytes: usize,
    /// The index entries that the keys of `ops` must still have for the puts to count; empty in ordinary writes.
    pub(super) guards: Vec<Bytes>,
    completion: Option<Completion>,
    answer: oneshot::Sender<Result<(), StoreError>>,
}

#[cfg_attr(
    not(any(feature = "rocksdb", test)),
    expect(dead_code, reason = "for the engines that have a writer of their own")
)]
impl QueuedWrite {
    /// Puts that count only where the key still has the entry named beside it.
    pub(super) fn guarded(ops: Vec<WriteOp>, guards: Vec<Bytes>) -> (Self, PendingWrite) {
        let (answer, receiver) = oneshot::channel();
        let bytes = ops.iter().map(WriteOp::size).sum();
        (Self { ops, bytes, guards, completion: None, answer }, PendingWrite(receiver))
    }

    pub(super) fn is_guarded(&self) -> bool {
        !self.guards.is_empty()
    }

    /// It removes something and puts little, or moves values out of what is to be removed: what frees a full disk.
    pub(super) fn makes_room(&self) -> bool {
        self.is_guarded()
            || self.bytes <= limits::STORE_FREEING_WRITE_BYTES
                && self.ops.iter().any(|op| !matches!(op, WriteOp::Put(..)))
    }

    /// Tells the outcome: first to the completion, then to the waiting future.
    pub(super) fn answer(self, outcome: &Result<(), StoreError>) {
        if let Some(completion) = self.completion {
            completion(outcome);
        }
        // Nobody waits if the future was dropped; the write counts all the same.
        let _ = self.answer.send(outcome.clone());
    }
}

/// Resolves when the write is durable, or has failed. Dropping it does not take the write back.
#[derive(Debug)]
#[must_use = "a write is durable only once this has resolved"]
pub struct PendingWrite(oneshot::Receiver<Result<(), StoreError>>);

#[cfg_attr(
    not(any(feature = "rocksdb", test)),
    expect(dead_code, reason = "for the engines that have a writer of their own")
)]
impl PendingWrite {
    /// Waits on a thread that may block.
    pub(super) fn wait(self) -> Result<(), StoreError> {
        self.0.blocking_recv().unwrap_or(Err(StoreError::Closed))
    }
}

impl Future for PendingWrite {
    type Output = Result<(), StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // A dropped sender means that the engine ended without an answer.
        Pin::new(&mut self.0).poll(cx).map(|answer| answer.unwrap_or(Err(StoreError::Closed)))
    }
}
