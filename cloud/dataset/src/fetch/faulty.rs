//! An object store in memory that does what it is told to do wrong.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What happens to a GET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Its body ends after so many bytes, as if it were whole.
    EndsAfter(usize),
    /// Its connection breaks after so many bytes.
    BreaksAfter(usize),
    /// So many bytes come, and then nothing.
    HangsAfter(usize),
    /// No answer comes.
    Hangs,
    /// It is refused with this text.
    Refused(&'static str),
    /// No permission.
    Forbidden,
    /// The client panics.
    Panics,
    /// The server knows no `If-Match`, and answers with this ETag.
    Etag(Option<&'static str>),
    /// As [`Fault::Etag`] without any, and it was changed so many seconds later.
    Later(u64),
    /// The answer is of other bytes, so many further on.
    Shifted(u64),
    /// More bytes come than the answer says.
    TooLong,
    /// Bytes come without end, in pieces of so many.
    Endless(usize),
}

#[derive(Debug, Default)]
pub(crate) struct FaultyStore {
    pub(crate) inner: InMemory,
    /// Of the next GETs, in order.
    faults: Mutex<VecDeque<Option<Fault>>>,
    /// The ranges that were asked for.
    asked: Mutex<Vec<Range<u64>>>,
}

fn refused(text: &'static str) -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: text.into() }
}

impl FaultyStore {
    pub(crate) fn fail(&self, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).extend(faults);
    }

    pub(crate) fn asked(&self) -> Vec<Range<u64>> {
        std::mem::take(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn spoil(found: GetResult, fault: Fault) -> Result<GetResult> {
    let GetResult { mut meta, mut range, attributes, extensions, payload } = found;
    let found = GetResult {
        payload,
        meta: meta.clone(),
        range: range.clone(),
        attributes: attributes.clone(),
        extensions: extensions.clone(),
    };
    let mut whole = found.bytes().await?;
    let mut end: BoxStream<'static, Result<bytes::Bytes>> = stream::empty().boxed();
    match fault {
        Fault::EndsAfter(bytes) => whole.truncate(bytes),
        Fault::BreaksAfter(bytes) => {
            whole.truncate(bytes);
            end = stream::once(async { Err(refused("connection reset by peer")) }).boxed();
        }
        Fault::HangsAfter(bytes) => {
            whole.truncate(bytes);
            end = stream::pending().boxed();
        }
        Fault::Etag(etag) => meta.e_tag = etag.map(str::to_owned),
        Fault::Later(seconds) => {
            meta.e_tag = None;
            meta.last_modified += std::time::Duration::from_secs(seconds);
        }
        Fault::Shifted(further) => range = range.start + further..range.end + further,
        Fault::Endless(bytes) => {
            let piece = bytes::Bytes::from(vec![7; bytes]);
            end = stream::repeat_with(move || Ok(piece.clone())).boxed();
        }
        Fault::TooLong => end = stream::once(async { Ok("more".into()) }).boxed(),
        Fault::Hangs | Fault::Refused(_) | Fault::Forbidden | Fault::Panics => {}
    }
    // In pieces, as they come from a network.
    let pieces: Vec<_> = whole.chunks(1000).map(|piece| Ok(whole.slice_ref(piece))).collect();
    let payload = GetResultPayload::Stream(stream::iter(pieces).chain(end).boxed());
    Ok(GetResult { payload, meta, range, attributes, extensions })
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
        self.inner.put_opts(to, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, from: &Path, mut options: GetOptions) -> Result<GetResult> {
        if let Some(GetRange::Bounded(range)) = &options.range {
            self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(range.clone());
        }
        let fault = self.faults.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        match fault.flatten() {
            None => self.inner.get_opts(from, options).await,
            Some(Fault::Hangs) => std::future::pending().await,
            Some(Fault::Panics) => panic!("request must be valid"),
            Some(Fault::Refused(text)) => Err(refused(text)),
            Some(Fault::Forbidden) => Err(object_store::Error::PermissionDenied {
                path: from.to_string(),
                source: "no s3:GetObject".into(),
            }),
            Some(fault) => {
                if matches!(fault, Fault::Etag(_) | Fault::Later(_)) {
                    options.if_match = None;
                }
                spoil(self.inner.get_opts(from, options).await?, fault).await
            }
        }
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
