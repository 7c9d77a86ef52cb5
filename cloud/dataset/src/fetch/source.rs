//! A source in an object store.

use std::fmt::Display;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt as _, StreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::{GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore};
use robustmq_common::chain::chain;
use robustmq_common::limits;
use tokio::time::Instant;

use super::limiter::{Limiter, Permit};
use super::{FetchError, Object, Source};

/// What a source has done.
#[derive(Debug, Default)]
pub struct FetchStats {
    /// Bytes of bodies, those of GETs that broke included.
    pub bytes: AtomicU64,
    /// GETs that were sent.
    pub gets: AtomicU64,
    /// Those of them that were for the rest of one that failed or broke.
    pub retries: AtomicU64,
    /// Those that were sent because one took long, and were as good as that one.
    pub second_gets: AtomicU64,
    /// Those that were answered with 503, 429 or `SlowDown`, or by silence.
    pub slow_downs: AtomicU64,
}

/// Objects of one store.
///
/// The store should try each request once or twice only: this source has its own attempts, and hears of "slow down" only what the store
/// does not keep to itself.
#[derive(Debug)]
pub struct ObjectSource {
    store: Arc<dyn ObjectStore>,
    limiter: Arc<Limiter>,
    files: Option<Arc<LocalFileSystem>>,
    stats: FetchStats,
}

/// Why an attempt ended.
enum Failure {
    /// No attempt would end otherwise.
    Final(FetchError),
    /// The source is asked for too much, or does not answer.
    TooMany(String),
    /// Something else that may pass.
    Passing(String),
}

/// A file as it is at one moment.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

/// What has come of a range.
struct Body {
    range: Range<u64>,
    bytes: BytesMut,
}

impl Body {
    fn new(range: Range<u64>) -> Self {
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let bytes = BytesMut::with_capacity(length.min(limits::dataset::GET_BUFFER_BYTES));
        Self { range, bytes }
    }

    /// What is still to come.
    fn rest(&self) -> Range<u64> {
        self.range.start + self.bytes.len() as u64..self.range.end
    }
}

/// What a GET brought, and how long its first byte took.
struct Brought {
    first_byte: Duration,
    bytes: u64,
}

impl ObjectSource {
    /// Of this store.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, limiter: Limiter::new(), files: None, stats: FetchStats::default() }
    }

    /// Of files, which somebody may write to while they are read: they are looked at before and after each GET.
    #[must_use]
    pub fn of_files(files: LocalFileSystem) -> Self {
        let files = Arc::new(files);
        Self { files: Some(Arc::clone(&files)), ..Self::new(files) }
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> &FetchStats {
        &self.stats
    }

    /// GETs that it would do at the same time now.
    #[must_use]
    pub fn parallelism(&self) -> usize {
        self.limiter.limit()
    }

    /// The ETag that an object has to have. That of a file has its inode, and one that was put back has another: its size and time tell it from
    /// others. Manifests of earlier releases have ETags of files.
    fn etag<'a>(&self, object: &'a Object) -> Option<&'a str> {
        object.etag.as_deref().filter(|_| self.files.is_none())
    }

    /// One GET for what is still to come of `body`.
    async fn attempt(&self, object: &Object, body: &mut Body) -> Result<Brought, Failure> {
        let rest = body.rest();
        let options = GetOptions {
            if_match: self.etag(object).filter(|etag| !is_weak(etag)).map(str::to_owned),
            range: Some(GetRange::Bounded(rest.clone())),
            ..GetOptions::default()
        };
        // What is no file any more is not opened: a pipe would be waited for without end.
        let stamp = self.stamp(object).await?;
        let (found, first_byte) = self.answer(object, options).await?;
        verify(object, self.etag(object), &rest, &found)?;
        let mut chunks = found.into_stream();
        while let Some(chunk) = in_time(chunks.next()).await? {
            let chunk = chunk.map_err(|error| failure(object, &error))?;
            if chunk.is_empty() {
                // A file that was cut off gives these without end.
                break;
            }
            self.stats.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            self.limiter.came(chunk.len() as u64);
            let left = body.rest();
            if chunk.len() as u64 > left.end - left.start {
                let reason = "its body is longer than what was asked for".to_owned();
                body.bytes.clear();
                return Err(Failure::Passing(reason));
            }
            body.bytes.extend_from_slice(&chunk);
        }
        if stamp != self.stamp(object).await? {
            // The next attempt finds it changed.
            body.bytes.clear();
            return Err(Failure::Passing("it was written to while it was read".to_owned()));
        }
        match body.rest() {
            left if left.is_empty() => Ok(Brought { first_byte, bytes: rest.end - rest.start }),
            left => Err(Failure::Passing(format!(
                "its body ended {} bytes early",
                left.end - left.start
            ))),
        }
    }

    /// The answer to a GET, and how long it took. Of those that take long another one is sent, and the first of the two that answers is taken.
    async fn answer(
        &self,
        object: &Object,
        options: GetOptions,
    ) -> Result<(GetResult, Duration), Failure> {
        let first = self.send(object, options.clone());
        let Some(late) = self.late_after() else { return first.await };
        tokio::pin!(first);
        tokio::select! {
            biased;
            answer = &mut first => return answer,
            () = tokio::time::sleep(late) => {}
        }
        self.stats.second_gets.fetch_add(1, Ordering::Relaxed);
        let second = async {
            match self.send(object, options).await {
                Ok(answer) => answer,
                // What is wrong with it is told by the first, if it is not wrong with that alone.
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = first => answer,
            answer = second => Ok(answer),
        }
    }

    /// After what time an answer is late; `None` where that is not known, and where many were late lately: then it is the store that is slow.
    fn late_after(&self) -> Option<Duration> {
        let second_gets = self.stats.second_gets.load(Ordering::Relaxed);
        let is_seldom = self.stats.gets.load(Ordering::Relaxed)
            >= (second_gets + 1).saturating_mul(limits::dataset::GETS_FOR_A_SECOND);
        let first_byte = self.limiter.first_byte().filter(|_| is_seldom && self.files.is_none())?;
        let late = first_byte.saturating_mul(limits::dataset::GET_LATE_TIMES);
        Some(late.max(limits::dataset::GET_LATE_LEAST))
    }

    async fn send(
        &self,
        object: &Object,
        options: GetOptions,
    ) -> Result<(GetResult, Duration), Failure> {
        let began = Instant::now();
        self.stats.gets.fetch_add(1, Ordering::Relaxed);
        // A client that cannot make a request of what a server has said may panic. Whoever waits for it is to hear of that.
        let answer = AssertUnwindSafe(self.store.get_opts(&object.path, options)).catch_unwind();
        let panicked = |_| Failure::Passing("its GET ended in a panic, see the log".to_owned());
        let answer = in_time(answer).await?.map_err(panicked)?;
        let found = answer.map_err(|error| failure(object, &error))?;
        Ok((found, began.elapsed()))
    }

    /// What tells a version of a file from another; nothing of what is no file.
    async fn stamp(&self, object: &Object) -> Result<Option<Stamp>, Failure> {
        let Some(files) = &self.files else { return Ok(None) };
        let path = files.path_to_filesystem(&object.path);
        let path = path.map_err(|error| failure(object, &error))?;
        let found = tokio::task::spawn_blocking(move || std::fs::metadata(path));
        let found = in_time(found).await?.map_err(std::io::Error::other).flatten();
        let name = || object.path.to_string();
        match found {
            Ok(found) if found.is_file() => {
                let modified = (found.mtime(), found.mtime_nsec());
                Ok(Some(Stamp { inode: found.ino(), bytes: found.len(), modified }))
            }
            Ok(_) => {
                let reason = "it is not a file any more".to_owned();
                Err(Failure::Final(FetchError::Changed { object: name(), reason }))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(Failure::Final(FetchError::Gone(name())))
            }
            Err(error) => Err(Failure::Passing(error.to_string())),
        }
    }

    fn settle(&self, permit: Permit, outcome: &Result<Brought, Failure>) {
        match outcome {
            Ok(Brought { first_byte, bytes }) => permit.brought(*first_byte, *bytes),
            Err(Failure::Final(_)) => permit.succeeded(),
            Err(Failure::TooMany(_)) => {
                self.stats.slow_downs.fetch_add(1, Ordering::Relaxed);
                permit.too_many();
            }
            Err(Failure::Passing(_)) => drop(permit),
        }
    }
}

#[async_trait]
impl Source for ObjectSource {
    async fn get(&self, object: &Object, range: Range<u64>) -> Result<Bytes, FetchError> {
        self.get_by(object, range, Instant::now()).await
    }

    async fn get_by(
        &self,
        object: &Object,
        range: Range<u64>,
        by: Instant,
    ) -> Result<Bytes, FetchError> {
        if range.start > range.end || range.end > object.size {
            let Range { start, end } = range;
            let reason = format!("bytes {start}..{end} were asked for, and it has {}", object.size);
            return Err(FetchError::Damaged { object: object.path.to_string(), reason });
        }
        // What was listed before listings refused them.
        if let Some(reason) = object.etag.as_deref().and_then(bad_etag) {
            return Err(FetchError::Forbidden { object: object.path.to_string(), reason });
        }
        let mut body = Body::new(range);
        // No range says "nothing" in HTTP.
        if body.rest().is_empty() {
            return Ok(Bytes::new());
        }
        let mut failed = 0;
        loop {
            let before = body.bytes.len();
            let rest = body.rest();
            let permit = self.limiter.acquire(by, rest.end - rest.start).await;
            let outcome = self.attempt(object, &mut body).await;
            self.settle(permit, &outcome);
            let reason = match outcome {
                Ok(_) => return Ok(body.bytes.freeze()),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::TooMany(reason) | Failure::Passing(reason)) => reason,
            };
            let brought = body.bytes.len().saturating_sub(before);
            failed = if brought >= limits::dataset::GET_PROGRESS_BYTES { 1 } else { failed + 1 };
            if failed >= limits::dataset::GET_ATTEMPTS {
                return Err(FetchError::Unavailable { object: object.path.to_string(), reason });
            }
            self.stats.retries.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(pause(failed)).await;
        }
    }
}

/// Between half of the time that doubles with each failure and all of it, so that those who failed together do not come back together.
fn pause(failed: u32) -> Duration {
    let doubled = limits::dataset::GET_PAUSE.saturating_mul(1 << failed.saturating_sub(1).min(16));
    doubled.min(limits::dataset::GET_PAUSE_MOST).mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

async fn in_time<T>(answer: impl Future<Output = T>) -> Result<T, Failure> {
    let silence = limits::dataset::GET_SILENCE;
    let in_time = tokio::time::timeout(silence, answer).await;
    in_time.map_err(|_| Failure::TooMany(format!("no byte came for {} s", silence.as_secs())))
}

/// Why no request can ask for an object with this ETag, if it is so: no header can carry it.
#[must_use]
pub fn bad_etag(etag: &str) -> Option<String> {
    let has_control = etag.chars().any(char::is_control);
    has_control.then(|| format!("the server gives it an ETag with a control character, {etag:?}"))
}

/// Whether an ETag is one that `If-Match` never matches (RFC 9110, 13.1.1).
fn is_weak(etag: &str) -> bool {
    etag.starts_with("W/")
}

/// The same ETag however it is quoted: listings and answers of some stores differ in that.
fn bare(etag: &str) -> &str {
    etag.trim_start_matches("W/").trim_matches('"')
}

/// Whether two times of a last change are the same: HTTP's headers say whole seconds, listings may say milliseconds.
#[must_use]
pub fn same_time(one_ms: i64, other_ms: i64) -> bool {
    let is_whole = one_ms % 1000 == 0 || other_ms % 1000 == 0;
    one_ms == other_ms || (is_whole && one_ms.div_euclid(1000) == other_ms.div_euclid(1000))
}

/// Whether an answer is of the version that was listed, and begins and ends where it was asked to.
fn verify(
    object: &Object,
    etag: Option<&str>,
    asked: &Range<u64>,
    found: &GetResult,
) -> Result<(), Failure> {
    if let Some(reason) = difference(object, etag, &found.meta) {
        let object = object.path.to_string();
        return Err(Failure::Final(FetchError::Changed { object, reason }));
    }
    if found.range != *asked {
        let (asked, got) = (asked, &found.range);
        let reason = format!(
            "bytes {}..{} came when {}..{} were asked for",
            got.start, got.end, asked.start, asked.end
        );
        return Err(Failure::Passing(reason));
    }
    Ok(())
}

fn difference(object: &Object, etag: Option<&str>, found: &ObjectMeta) -> Option<String> {
    let differs = |what: &str, was: &dyn Display, is: &dyn Display| {
        Some(format!("its {what} was {was} and is {is}"))
    };
    if found.size != object.size {
        return differs("size", &object.size, &found.size);
    }
    if let (Some(was), Some(is)) = (etag, &found.e_tag) {
        return if bare(was) == bare(is) { None } else { differs("ETag", &was, is) };
    }
    let modified_ms = found.last_modified.timestamp_millis();
    if same_time(object.modified_ms, modified_ms) {
        return None;
    }
    differs("last change (in ms since 1970)", &object.modified_ms, &modified_ms)
}

fn failure(object: &Object, error: &object_store::Error) -> Failure {
    use object_store::Error;
    let name = object.path.to_string();
    let reason = chain(error);
    Failure::Final(match error {
        Error::NotFound { .. } => FetchError::Gone(name),
        Error::Precondition { .. } => {
            let reason = "its ETag is another one".to_owned();
            FetchError::Changed { object: name, reason }
        }
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            FetchError::Forbidden { object: name, reason }
        }
        _ if says_out_of_range(&reason) => {
            let reason = format!("it is shorter than its {} bytes", object.size);
            FetchError::Changed { object: name, reason }
        }
        _ if says_too_many(&reason) => return Failure::TooMany(reason),
        _ => return Failure::Passing(reason),
    })
}

/// `object_store` has no error of its own for 503 and 429; their status stands in its text.
fn says_too_many(reason: &str) -> bool {
    let marks =
        ["status code: 503", "status code: 429", "SlowDown", "Slow Down", "Too Many Requests"];
    marks.iter().any(|mark| reason.contains(mark))
}

/// Nor for 416, with which servers answer that do not know `If-Match`.
fn says_out_of_range(reason: &str) -> bool {
    reason.contains("status code: 416") || reason.contains("Wanted range starting at")
}
