//! What was asked for and what was given, for tests and benchmarks to read.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::lock;

/// The oldest requests are forgotten beyond so many.
const KEPT: usize = 1 << 20;

/// A request that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// When it came, from the server's start on.
    pub at: Duration,
    /// `GET` and so on.
    pub method: String,
    /// The bucket.
    pub bucket: String,
    /// The object's key; empty for a listing.
    pub key: String,
    /// The part of the object that was answered, where a part was asked for.
    pub range: Option<Range<u64>>,
    /// HTTP's status.
    pub status: u16,
    /// Bytes of the object that were given out so far: fewer than asked for if the body was cut off, or the client left.
    pub bytes: u64,
}

/// Requests in the order in which they came to be answered.
pub(super) struct Requests {
    started: Instant,
    entries: Mutex<VecDeque<(Request, Given)>>,
}

/// Counts the bytes of one answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Given(Arc<AtomicU64>);

impl Given {
    pub(super) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Default for Requests {
    fn default() -> Self {
        Self { started: Instant::now(), entries: Mutex::default() }
    }
}

impl Requests {
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn add(&self, request: Request) -> Given {
        let given = Given::default();
        let mut entries = lock(&self.entries);
        if entries.len() == KEPT {
            entries.pop_front();
        }
        entries.push_back((request, given.clone()));
        given
    }

    pub(super) fn all(&self) -> Vec<Request> {
        let entries = lock(&self.entries);
        let known = |(request, given): &(Request, Given)| Request {
            bytes: given.0.load(Ordering::Relaxed),
            ..request.clone()
        };
        entries.iter().map(known).collect()
    }

    pub(super) fn clear(&self) {
        lock(&self.entries).clear();
    }
}
