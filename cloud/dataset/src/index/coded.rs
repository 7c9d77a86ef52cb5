//! Extents of compressed objects that are read again. What lies in the middle of one cannot be had without what is before it: so decoders stay
//! for a while where they stopped, and whoever asks for what comes next goes on from there.
//!
//! **Invariant:** one decoder of an object works at a time. What it passes on its way goes to those who wait for it here, else to the cache, if
//! that has room for it.
//! **Invariant:** what decoders hold is counted ([`Cache::working_bytes`]), and they go when nobody uses them, or idle ones hold too much.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use robustmq_common::limits::dataset as limits;
use tokio::sync::oneshot;

use super::{ExtentIndex, ObjectIndex};
use crate::cache::Cache;
use crate::fetch::{FetchError, Object, Source};

mod content;
mod stream;
#[cfg(test)]
mod tests;

use self::stream::Stream;

/// An object that is read again.
pub struct Reread<'a> {
    /// Where its bytes come from.
    pub source: Arc<dyn Source>,
    /// Which it is.
    pub object: &'a Object,
    /// Its identity, as it is read.
    pub id: u128,
    /// What it holds.
    pub index: &'a Arc<ObjectIndex>,
}

impl Reread<'_> {
    /// Where in the object the extent ends whose content begins at `start`, about.
    fn raw_end(&self, start: u64) -> u64 {
        let extents = &self.index.extents;
        // Of an object that is being counted it is what is known: then it is too far, by no more than the GETs that are made at once.
        let all = self.index.content_end();
        let number = extents.partition_point(|extent| extent.start < start);
        let end = extents.get(number).map_or(all, |extent| extent.start + u64::from(extent.bytes));
        let raw = u128::from(self.object.size) * u128::from(end) / u128::from(all.max(1));
        u64::try_from(raw).unwrap_or(self.object.size)
    }

    pub(super) fn damaged(&self, reason: String) -> FetchError {
        FetchError::Damaged { object: self.object.path.to_string(), reason }
    }
}

/// The decoders of all objects that are read again.
#[derive(Debug)]
pub struct Streams {
    cache: Arc<Cache>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    objects: HashMap<u128, Arc<Decoders>>,
    /// Somebody looks for what nobody uses.
    is_watched: bool,
}

/// Who waits for an extent.
type Waiting = Vec<oneshot::Sender<Bytes>>;

/// Those of one object.
#[derive(Debug, Default)]
struct Decoders {
    /// Those that do not work now; the one that was used last comes last.
    idle: tokio::sync::Mutex<Vec<Stream>>,
    /// Who waits for content, by where it begins and how long it is: what was counted anew may be cut in other places.
    waiting: Mutex<HashMap<(u64, u32), Waiting>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Decoders {
    fn wait_for(&self, extent: &ExtentIndex) -> oneshot::Receiver<Bytes> {
        let (sender, receiver) = oneshot::channel();
        locked(&self.waiting).entry((extent.start, extent.bytes)).or_default().push(sender);
        receiver
    }

    /// Gives content to those who wait for it. Whether somebody did.
    fn give(&self, extent: &ExtentIndex, content: &Bytes) -> bool {
        let waiting = locked(&self.waiting).remove(&(extent.start, extent.bytes));
        let waiting = waiting.unwrap_or_default();
        let given = waiting.into_iter().filter_map(|waits| waits.send(content.clone()).ok());
        given.count() > 0
    }

    /// Forgets those who do not wait any more; where the last one's content begins.
    fn furthest(&self) -> Option<u64> {
        let mut waiting = locked(&self.waiting);
        waiting.retain(|_, waits| {
            waits.retain(|waits| !waits.is_closed());
            !waits.is_empty()
        });
        waiting.keys().map(|(start, _)| *start).max()
    }
}

impl Streams {
    /// Their memory is counted by this cache.
    #[must_use]
    pub fn new(cache: Arc<Cache>) -> Self {
        Self { cache, inner: Mutex::default() }
    }

    /// The content of an extent. Everything between a decoder that stays before it and the extent is read as well: `beside` is given what was
    /// passed by.
    ///
    /// # Errors
    /// [`FetchError`].
    pub(super) async fn fetch(
        self: &Arc<Self>,
        reread: &Reread<'_>,
        extent: &ExtentIndex,
        mut beside: impl FnMut(&ExtentIndex, Bytes) + Send,
    ) -> Result<Bytes, FetchError> {
        let decoders = self.decoders(reread.id);
        let mut mine = decoders.wait_for(extent);
        let mut idle = tokio::select! {
            biased;
            Ok(content) = &mut mine => return Ok(content),
            idle = decoders.idle.lock() => idle,
        };
        if let Ok(content) = mine.try_recv() {
            return Ok(content);
        }
        // One before that would read more than one that begins there.
        let begin = reread.index.begin_before(extent.start).content;
        let is_between = |stream: &Stream| (begin..=extent.start).contains(&stream.at());
        let nearest = (0..idle.len()).filter(|at| is_between(&idle[*at]));
        let nearest = nearest.max_by_key(|at| idle[*at].at());
        let mut stream = match nearest {
            Some(at) => idle.remove(at),
            None => Stream::new(reread, extent.start, &self.cache)?,
        };
        loop {
            let needed = decoders.furthest().map_or(extent.start, |start| start.max(extent.start));
            let (next, passed) = stream.go_on(reread, needed).await?;
            stream = next;
            let mut found = None;
            for (passed, content) in passed {
                let is_given = decoders.give(&passed, &content);
                if passed.start == extent.start {
                    found = Some(content);
                } else if !is_given {
                    beside(&passed, content);
                }
            }
            if let Some(content) = found {
                if !stream.is_over(reread) {
                    idle.push(stream);
                }
                if idle.len() > limits::CODED_STREAMS {
                    idle.remove(0);
                }
                drop(idle);
                self.make_room();
                return Ok(content);
            }
        }
    }

    fn decoders(self: &Arc<Self>, object: u128) -> Arc<Decoders> {
        let mut inner = locked(&self.inner);
        if !inner.is_watched {
            inner.is_watched = true;
            tokio::spawn(forget(Arc::downgrade(self)));
        }
        Arc::clone(inner.objects.entry(object).or_default())
    }

    /// While idle decoders hold too much, those that were used longest ago give up what has come and is not decoded; then they go.
    fn make_room(&self) {
        let most = self.cache.memory_bytes() / limits::CODED_IDLE_SHARE;
        let all: Vec<_> = locked(&self.inner).objects.values().map(Arc::clone).collect();
        // Those that work are not idle.
        let mut idle: Vec<_> = all.iter().filter_map(|all| all.idle.try_lock().ok()).collect();
        idle.sort_by_key(|streams| streams.last().map(Stream::used));
        let mut bytes: usize =
            idle.iter().flat_map(|streams| streams.iter()).map(Stream::bytes).sum();
        // The one that was used last goes on however large it is.
        idle.pop();
        for streams in &mut idle {
            for stream in streams.iter_mut() {
                if bytes > most {
                    bytes -= stream.slim();
                }
            }
        }
        for streams in &mut idle {
            while bytes > most && !streams.is_empty() {
                bytes -= streams.remove(0).bytes();
            }
        }
    }
}

/// Lets go of what nobody has used for a while, until there is nothing.
async fn forget(streams: Weak<Streams>) {
    loop {
        tokio::time::sleep(limits::CODED_IDLE / 2).await;
        let Some(streams) = streams.upgrade() else { return };
        let mut inner = locked(&streams.inner);
        inner.objects.retain(|_, decoders| {
            let is_shared = Arc::strong_count(decoders) > 1;
            let Ok(mut idle) = decoders.idle.try_lock() else { return true };
            idle.retain(|stream| stream.used().elapsed() < limits::CODED_IDLE);
            is_shared || !idle.is_empty()
        });
        if inner.objects.is_empty() {
            inner.is_watched = false;
            return;
        }
    }
}
