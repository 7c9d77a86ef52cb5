//! A decoder that goes on through an object.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use robustmq_common::limits::dataset as limits;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Reread;
use super::content::Content;
use crate::cache::{Cache, Working};
use crate::fetch::FetchError;
use crate::format::decode::{DecodeError, Decoder};
use crate::index::{ExtentIndex, ObjectIndex};

/// Content is made in steps of this size: so much of what comes after an extent is kept, at most.
const STEP_BYTES: usize = 256 * 1024;

/// A GET that goes on by itself, as long as somebody may want what it brings.
#[derive(Debug)]
struct Get {
    bytes: usize,
    task: JoinHandle<Result<Bytes, FetchError>>,
}

impl Drop for Get {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Extents in the order of the content.
type Passed = Vec<(ExtentIndex, Bytes)>;

/// A decoder, between two extents.
#[derive(Debug)]
pub(super) struct Stream {
    decoder: Decoder,
    /// What has come and is not decoded: the rest of a piece, which is in memory as a whole.
    raw: Bytes,
    raw_bytes: usize,
    /// GETs for what comes after it.
    gets: VecDeque<Get>,
    /// Where the next GET begins.
    next: u64,
    piece_bytes: u64,
    content: Content,
    working: Working,
    used: Instant,
}

impl Stream {
    /// One that is to come to the content at `start`.
    pub(super) fn new(
        reread: &Reread<'_>,
        start: u64,
        cache: &Arc<Cache>,
    ) -> Result<Self, FetchError> {
        let begin = reread.index.begin_before(start);
        let decoder = Decoder::new(reread.index.reading.coding);
        let decoder = decoder.map_err(|error| reread.damaged(error.to_string()))?.of_indexed();
        Ok(Self {
            decoder,
            raw: Bytes::new(),
            raw_bytes: 0,
            gets: VecDeque::new(),
            next: begin.raw,
            piece_bytes: cache.coded_piece_bytes() as u64,
            content: Content::from(begin.content),
            working: cache.work(),
            used: Instant::now(),
        })
    }

    /// The content that it has next begins here, at least.
    pub(super) fn at(&self) -> u64 {
        self.content.at()
    }

    /// Whether it has given all of the object.
    pub(super) fn is_over(&self, reread: &Reread<'_>) -> bool {
        let is_all_here = self.next >= reread.object.size && self.gets.is_empty();
        is_all_here && self.raw.is_empty() && self.at() >= reread.index.content_end()
    }

    pub(super) fn used(&self) -> Instant {
        self.used
    }

    /// Memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.working.bytes()
    }

    /// Gives up what has come and is not decoded: it is fetched once more when somebody goes on. How many bytes that were.
    pub(super) fn slim(&mut self) -> usize {
        let before = self.bytes();
        self.next -= (self.gets_bytes() + self.raw.len()) as u64;
        self.gets.clear();
        self.raw = Bytes::new();
        self.count();
        before - self.bytes()
    }

    /// Goes on by a piece, and gives the extents that ended with it. GETs are made ahead for what is `needed` after it.
    pub(super) async fn go_on(
        mut self,
        reread: &Reread<'_>,
        needed: u64,
    ) -> Result<(Self, Passed), FetchError> {
        let is_over = self.raw.is_empty()
            && !self.content.has_next(reread.index)
            && !self.receive(reread, needed).await?;
        self.count();
        let index = Arc::clone(reread.index);
        let decoded = tokio::task::spawn_blocking(move || self.decode(&index, needed)).await;
        let (mut this, passed, fault) = decoded.map_err(|error| FetchError::Unavailable {
            object: reread.object.path.to_string(),
            reason: format!("decompressing it failed: {error}"),
        })?;
        if passed.is_empty() {
            fault.map_err(|error| reread.damaged(error.to_string()))?;
            if is_over {
                let at = this.at();
                return Err(reread.damaged(format!("its content ends in the extent at {at}")));
            }
        }
        this.used = Instant::now();
        this.count();
        Ok((this, passed))
    }

    /// Waits for the next piece; `false` after the last one.
    async fn receive(&mut self, reread: &Reread<'_>, needed: u64) -> Result<bool, FetchError> {
        let end = reread.raw_end(needed);
        while self.next < reread.object.size
            && (self.gets.is_empty() || (self.gets.len() < limits::CODED_GETS && self.next < end))
        {
            let range = self.next..(self.next + self.piece_bytes).min(reread.object.size);
            self.next = range.end;
            let bytes = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            let (source, object) = (Arc::clone(&reread.source), reread.object.clone());
            let task = tokio::spawn(async move { source.get(&object, range).await });
            self.gets.push_back(Get { bytes, task });
        }
        self.count();
        let Some(mut get) = self.gets.pop_front() else { return Ok(false) };
        let came = (&mut get.task).await;
        self.raw = came.map_err(|error| FetchError::Unavailable {
            object: reread.object.path.to_string(),
            reason: format!("a GET ended early: {error}"),
        })??;
        self.raw_bytes = self.raw.len();
        Ok(true)
    }

    /// Decompresses what there is until an extent has ended, and leaves those alone that begin after what is `needed`.
    fn decode(
        mut self,
        index: &ObjectIndex,
        needed: u64,
    ) -> (Self, Passed, Result<(), DecodeError>) {
        let (mut passed, mut content) = (Vec::new(), Vec::new());
        loop {
            while self.content.at() <= needed
                && let Some(next) = self.content.next(index)
            {
                passed.push(next);
            }
            if !passed.is_empty() {
                self.content.shrink();
                return (self, passed, Ok(()));
            }
            content.clear();
            let pushed = self.decoder.push(&self.raw, &mut content, STEP_BYTES);
            self.content.add(index, &content);
            match pushed {
                Ok(taken) => self.raw.advance(taken),
                // What came before it was indexed, and was checked then.
                Err(error) if !self.content.has_next(index) => return (self, passed, Err(error)),
                Err(_) => self.raw = Bytes::new(),
            }
            if self.raw.is_empty() && content.len() < STEP_BYTES && !self.content.has_next(index) {
                return (self, passed, Ok(()));
            }
        }
    }

    fn gets_bytes(&self) -> usize {
        self.gets.iter().map(|get| get.bytes).sum()
    }

    fn count(&mut self) {
        if self.raw.is_empty() {
            (self.raw, self.raw_bytes) = (Bytes::new(), 0);
        }
        let bytes = self.raw_bytes + self.gets_bytes() + self.content.memory_bytes();
        self.working.set(bytes + self.decoder.memory_bytes());
    }
}
