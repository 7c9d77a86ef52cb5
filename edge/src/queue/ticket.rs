//! A result that many wait for: one for each group of appends that share a sync.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use robustmq_common::ids::{EdgeSeq, LaneId};

use super::errors::AppendError;

/// Set once; everybody who waits is woken.
#[derive(Debug)]
pub(super) struct Ticket<R> {
    inner: Mutex<Inner<R>>,
}

#[derive(Debug)]
struct Inner<R> {
    result: Option<R>,
    /// One for each waiter that was polled, so bounded by the waiters.
    wakers: Vec<Waker>,
}

impl<R: Clone> Ticket<R> {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { inner: Mutex::new(Inner { result: None, wakers: Vec::new() }) })
    }

    pub fn resolve(&self, result: R) {
        let wakers = {
            let mut inner = self.lock();
            inner.result.get_or_insert(result);
            std::mem::take(&mut inner.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    pub fn get(&self) -> Option<R> {
        self.lock().result.clone()
    }

    /// `slot` is the waiter's own, `None` at first.
    fn poll(&self, slot: &mut Option<usize>, context: &Context<'_>) -> Poll<R> {
        let mut inner = self.lock();
        if let Some(result) = &inner.result {
            return Poll::Ready(result.clone());
        }
        match slot.and_then(|slot| inner.wakers.get_mut(slot)) {
            Some(waker) => waker.clone_from(context.waker()),
            None => {
                *slot = Some(inner.wakers.len());
                inner.wakers.push(context.waker().clone());
            }
        }
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Inner<R>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a ticket.
pub(super) struct Wait<R> {
    ticket: Arc<Ticket<R>>,
    slot: Option<usize>,
}

impl<R> Wait<R> {
    pub fn new(ticket: Arc<Ticket<R>>) -> Self {
        Self { ticket, slot: None }
    }
}

impl<R: Clone> Future for Wait<R> {
    type Output = R;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<R> {
        let this = &mut *self;
        this.ticket.poll(&mut this.slot, context)
    }
}

/// What became of one group: records through `synced_through` are safe, the others met the error.
#[derive(Clone, Debug)]
pub(super) struct GroupOutcome {
    pub synced_through: EdgeSeq,
    pub error: AppendError,
}

/// An append that has its place and waits for the sync that covers it. Dropping it does not take the append back.
#[must_use = "the device may be answered only once this has resolved"]
pub struct PendingAppend {
    lane: LaneId,
    seq: EdgeSeq,
    wait: Wait<GroupOutcome>,
}

impl PendingAppend {
    pub(super) fn new(lane: LaneId, seq: EdgeSeq, ticket: Arc<Ticket<GroupOutcome>>) -> Self {
        Self { lane, seq, wait: Wait::new(ticket) }
    }

    /// The record's lane.
    #[must_use]
    pub fn lane(&self) -> LaneId {
        self.lane
    }

    /// The record's sequence. It counts only once this has resolved `Ok`: after a failure it is given out again.
    #[must_use]
    pub fn seq(&self) -> EdgeSeq {
        self.seq
    }

    /// The outcome, if there is one yet.
    #[must_use]
    pub fn outcome(&self) -> Option<Result<EdgeSeq, AppendError>> {
        self.wait.ticket.get().map(|outcome| self.judge(outcome))
    }

    fn judge(&self, outcome: GroupOutcome) -> Result<EdgeSeq, AppendError> {
        if self.seq <= outcome.synced_through { Ok(self.seq) } else { Err(outcome.error) }
    }
}

impl Future for PendingAppend {
    type Output = Result<EdgeSeq, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.wait).poll(context).map(|outcome| self.judge(outcome))
    }
}
