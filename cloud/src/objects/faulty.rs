//! An object store in memory that fails, waits and cuts short as it is told.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

/// One for all the stores that are opened over it, as a bucket is.
#[derive(Debug)]
pub(crate) struct FaultyStore {
    inner: InMemory,
    /// Everything answers with the error.
    down: AtomicBool,
    error: Mutex<&'static str>,
    /// Of a thousand requests so many fail, after having been done or before.
    failing: AtomicU64,
    /// Conditional puts answer 501.
    unconditional: AtomicBool,
    /// So many reads that follow end in the middle.
    truncated: AtomicUsize,
    /// So many reads that follow have another byte somewhere.
    corrupted: AtomicUsize,
    delay_ms: AtomicU64,
    pub(crate) puts: AtomicUsize,
    pub(crate) gets: AtomicUsize,
    rng: Mutex<SmallRng>,
}

impl FaultyStore {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            inner: InMemory::new(),
            down: AtomicBool::new(false),
            error: Mutex::new("503 Slow Down"),
            failing: AtomicU64::new(0),
            unconditional: AtomicBool::new(false),
            truncated: AtomicUsize::new(0),
            delay_ms: AtomicU64::new(0),
            puts: AtomicUsize::new(0),
            gets: AtomicUsize::new(0),
            corrupted: AtomicUsize::new(0),
            rng: Mutex::new(SmallRng::seed_from_u64(seed)),
        })
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    /// From now on everything answers so.
    pub(crate) fn fail_with(&self, error: &'static str) {
        *self.error.lock().expect("no panic") = error;
        self.set_down(true);
    }

    pub(crate) fn refuse_conditions(&self) {
        self.unconditional.store(true, Ordering::Relaxed);
    }

    pub(crate) fn fail_of_thousand(&self, failing: u64) {
        self.failing.store(failing, Ordering::Relaxed);
    }

    pub(crate) fn truncate_reads(&self, reads: usize) {
        self.truncated.store(reads, Ordering::Relaxed);
    }

    pub(crate) fn corrupt_reads(&self, reads: usize) {
        self.corrupted.store(reads, Ordering::Relaxed);
    }

    pub(crate) fn left_to_truncate(&self) -> usize {
        self.truncated.load(Ordering::Relaxed)
    }

    pub(crate) fn set_delay(&self, delay: Duration) {
        let millis = u64::try_from(delay.as_millis()).expect("short");
        self.delay_ms.store(millis, Ordering::Relaxed);
    }

    fn draw(&self) -> bool {
        let failing = self.failing.load(Ordering::Relaxed);
        failing > 0 && self.rng.lock().expect("no panic").random_range(0..1000) < failing
    }

    fn unavailable(&self) -> object_store::Error {
        let source = (*self.error.lock().expect("no panic")).into();
        object_store::Error::Generic { store: "faulty", source }
    }

    async fn before(&self) -> Result<()> {
        let delay = self.delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        if self.down.load(Ordering::Relaxed) || self.draw() {
            Err(self.unavailable())
        } else {
            Ok(())
        }
    }

    /// The answer is lost: what was asked for has happened.
    fn after<T>(&self, outcome: Result<T>) -> Result<T> {
        if outcome.is_ok() && self.draw() { Err(self.unavailable()) } else { outcome }
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        to: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.before().await?;
        if self.unconditional.load(Ordering::Relaxed) && options.mode != PutMode::Overwrite {
            let source = "501 <Code>NotImplemented</Code>".into();
            return Err(object_store::Error::Generic { store: "faulty", source });
        }
        self.puts.fetch_add(1, Ordering::Relaxed);
        self.after(self.inner.put_opts(to, payload, options).await)
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.before().await?;
        self.inner.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> Result<GetResult> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        self.before().await?;
        let found = self.inner.get_opts(from, options).await?;
        let length = found.range.end - found.range.start;
        if length > 1 && take_one(&self.truncated) {
            return spoilt(found, |whole| whole.slice(..whole.len() / 2)).await;
        }
        if length > 0 && take_one(&self.corrupted) {
            return spoilt(found, |whole| {
                let mut bytes = whole.to_vec();
                bytes[0] ^= 1;
                bytes.into()
            })
            .await;
        }
        Ok(found)
    }

    async fn get_ranges(&self, from: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.before().await?;
        self.inner.get_ranges(from, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        if self.down.load(Ordering::Relaxed) || self.draw() {
            return stream::iter([Err(self.unavailable())]).boxed();
        }
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if self.down.load(Ordering::Relaxed) {
            return stream::iter([Err(self.unavailable())]).boxed();
        }
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.before().await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.before().await?;
        self.inner.copy_opts(from, to, options).await
    }
}

fn take_one(left: &AtomicUsize) -> bool {
    let take = |left: usize| left.checked_sub(1);
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
}

/// The same answer with other bytes.
async fn spoilt(found: GetResult, spoil: impl FnOnce(Bytes) -> Bytes) -> Result<GetResult> {
    let (meta, range, attributes) =
        (found.meta.clone(), found.range.clone(), found.attributes.clone());
    let bytes = spoil(found.bytes().await?);
    Ok(GetResult {
        payload: GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed()),
        meta,
        range,
        attributes,
        extensions: object_store::Extensions::default(),
    })
}
