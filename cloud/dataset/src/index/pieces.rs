//! An object's bytes in order, some of them ahead of what is looked at.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt as _, StreamExt as _};
use robustmq_common::limits::dataset as limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::fetch::{FetchError, Object, Source};

/// How an object is read that is indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// GETs that are on their way at once.
    pub gets: usize,
    /// Bytes of the first one and of the first extent; each further one is twice as long, up to [`limits::EXTENT_BYTES`]. Whoever waits for
    /// the first records has them sooner.
    pub first_bytes: usize,
}

impl Pace {
    /// All extents have the usual size.
    #[must_use]
    pub const fn even(gets: usize) -> Self {
        Self { gets, first_bytes: limits::EXTENT_BYTES }
    }

    /// For somebody who waits.
    #[must_use]
    pub const fn urgent(gets: usize) -> Self {
        Self { gets, first_bytes: limits::FIRST_EXTENT_BYTES }
    }
}

/// Room for what is fetched ahead of what is looked at, of all objects that are indexed. The first piece of each needs none, so that all go on.
#[derive(Debug, Clone)]
pub struct Room(Arc<Semaphore>);

/// Permits are for so many bytes each.
const PERMIT_BYTES: usize = 64 * 1024;

impl Room {
    /// Beside a cache of so many bytes.
    #[must_use]
    pub fn beside(cache_bytes: usize) -> Self {
        let (least, most) = limits::PIECES_AHEAD_BYTES.into_inner();
        Self::new((cache_bytes / limits::PIECES_AHEAD_SHARE).clamp(least, most))
    }

    /// For so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / PERMIT_BYTES)))
    }

    fn take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let permits = usize::try_from(bytes).ok()?.div_ceil(PERMIT_BYTES);
        let permits = u32::try_from(permits).ok()?;
        Arc::clone(&self.0).try_acquire_many_owned(permits).ok()
    }
}

impl Default for Room {
    fn default() -> Self {
        Self::new(*limits::PIECES_AHEAD_BYTES.start())
    }
}

/// A piece, which has its room until it is looked at.
type Piece = (Result<Bytes, FetchError>, Option<OwnedSemaphorePermit>);

/// An object in pieces, of which some are on their way ahead of the one that is looked at.
pub(super) struct Pieces<'a> {
    source: &'a dyn Source,
    object: &'a Object,
    ahead: usize,
    /// Where the next GET begins, and how much it asks for.
    at: u64,
    bytes: u64,
    room: Room,
    on_their_way: FuturesOrdered<BoxFuture<'a, Piece>>,
    here: VecDeque<Piece>,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(source: &'a dyn Source, object: &'a Object, pace: Pace, room: &Room) -> Self {
        let (on_their_way, here) = (FuturesOrdered::new(), VecDeque::new());
        let (ahead, bytes) = (pace.gets, pace.first_bytes as u64);
        Self { source, object, ahead, at: 0, bytes, room: room.clone(), on_their_way, here }
    }

    pub(super) async fn next(&mut self) -> Option<Result<Bytes, FetchError>> {
        while self.at < self.object.size && self.on_their_way.len() + self.here.len() < self.ahead {
            let end = (self.at + self.bytes).min(self.object.size);
            let is_first = self.on_their_way.is_empty() && self.here.is_empty();
            let permit = if is_first { None } else { self.room.take(end - self.at) };
            if permit.is_none() && !is_first {
                break;
            }
            self.bytes = (self.bytes * 2).min(limits::EXTENT_BYTES as u64);
            let piece = self.source.get(self.object, self.at..end);
            self.on_their_way.push_back(piece.map(move |piece| (piece, permit)).boxed());
            self.at = end;
        }
        let piece = match self.here.pop_front() {
            None => self.on_their_way.next().await,
            here => here,
        };
        piece.map(|(piece, _)| piece)
    }

    /// Lets what is on its way come, for as long as nobody asks for the next: a GET that nobody looks after keeps its turn, and whoever waits
    /// for readers here would have these wait for a turn.
    pub(super) async fn settle(&mut self) -> Infallible {
        loop {
            match self.on_their_way.next().await {
                Some(piece) => self.here.push_back(piece),
                None => return std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests;
