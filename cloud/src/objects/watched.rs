//! The object store as the engine uses it, with an eye on whether it answers. Who uses it tries again for as long
//! as it takes.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use tokio::time::Instant;

use super::told;

/// What is known of an object store's answers.
#[derive(Debug)]
pub struct Health {
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    answered: Instant,
    /// Of the last request, if it failed.
    error: Option<String>,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    pub fn new() -> Self {
        Self { seen: Mutex::new(Seen { answered: Instant::now(), error: None }) }
    }

    /// How long it has answered nothing.
    pub fn silent_for(&self) -> Duration {
        self.lock().answered.elapsed()
    }

    /// The error of the last request, or that there was no answer.
    pub fn trouble(&self) -> String {
        let error = self.lock().error.clone();
        error.unwrap_or_else(|| "a request has no answer yet".to_owned())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note<T>(&self, outcome: &Result<T>) {
        let mut seen = self.lock();
        match outcome {
            Err(error) if !is_answer(error) => seen.error = Some(told(error)),
            _ => *seen = Seen { answered: Instant::now(), error: None },
        }
    }
}

/// Whether the store did what was asked, and said no.
fn is_answer(error: &object_store::Error) -> bool {
    use object_store::Error;
    matches!(
        error,
        Error::NotFound { .. }
            | Error::AlreadyExists { .. }
            | Error::Precondition { .. }
            | Error::NotModified { .. }
            | Error::NotImplemented { .. }
            | Error::NotSupported { .. }
    )
}

/// Passes everything on.
#[derive(Debug)]
pub struct Watched {
    inner: Arc<dyn ObjectStore>,
    health: Arc<Health>,
}

impl Watched {
    pub fn new(inner: Arc<dyn ObjectStore>, health: Arc<Health>) -> Self {
        Self { inner, health }
    }

    fn noted<T>(&self, outcome: Result<T>) -> Result<T> {
        self.health.note(&outcome);
        outcome
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Watched {
    async fn put_opts(
        &self,
        to: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.noted(self.inner.put_opts(to, payload, options).await)
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.noted(self.inner.put_multipart_opts(to, options).await)
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> Result<GetResult> {
        self.noted(self.inner.get_opts(from, options).await)
    }

    async fn get_ranges(&self, from: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.noted(self.inner.get_ranges(from, ranges).await)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.noted(self.inner.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.noted(self.inner.copy_opts(from, to, options).await)
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.noted(self.inner.rename_opts(from, to, options).await)
    }
}
