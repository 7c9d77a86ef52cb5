//! A bucket whose listings end, whatever it answers: one that is broken, or means harm, could have pages without end.
//!
//! **Invariant:** a listing takes a page of memory, and what of two pages was remembered.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use robustmq_common::limits::object as limits;

/// Passes everything on, but looks at the pages of listings.
pub struct Paged {
    objects: Arc<dyn ObjectStore>,
    pages: Arc<dyn PaginatedListStore>,
}

impl Paged {
    /// A store that has both.
    pub fn new<S: ObjectStore + PaginatedListStore>(store: S) -> Self {
        let store = Arc::new(store);
        Self { objects: store.clone(), pages: store }
    }
}

/// A listing, as far as it has come.
struct Listing {
    pages: Arc<dyn PaginatedListStore>,
    prefix: Option<String>,
    token: Option<String>,
    seen: Seen,
}

impl Listing {
    /// The next page; with it what comes after it, if something does.
    async fn next(mut self) -> Result<(Vec<ObjectMeta>, Option<Self>)> {
        let page_token = self.token.take();
        let options = PaginatedListOptions { page_token, ..PaginatedListOptions::default() };
        let page = self.pages.list_paginated(self.prefix.as_deref(), options).await?;
        let objects = page.result.objects;
        let Some(token) = page.page_token.filter(|token| !token.is_empty()) else {
            return Ok((objects, None));
        };
        self.seen.note(&token, &objects).map_err(endless)?;
        self.token = Some(token);
        Ok((objects, Some(self)))
    }
}

fn endless(why: String) -> Error {
    let why = format!("the server lists without end: {why}");
    Error::Generic { store: "S3", source: why.into() }
}

/// What is remembered of pages, so that those that come round are noticed.
#[derive(Default)]
struct Seen {
    pages: u64,
    objects: u64,
    /// Pages without an object, one after another.
    empty: u64,
    /// A page of the past, by its token and its first key. Whenever twice as many have come it is the newest: whatever goes round comes to it
    /// again (Brent's algorithm).
    page: u64,
    token: String,
    first: Option<Path>,
}

impl Seen {
    /// Takes a page that another one follows. What is wrong with it, if something is.
    fn note(&mut self, token: &str, objects: &[ObjectMeta]) -> std::result::Result<(), String> {
        self.pages += 1;
        self.objects = self.objects.saturating_add(objects.len() as u64);
        self.empty = if objects.is_empty() { self.empty + 1 } else { 0 };
        let first = objects.first().map(|first| &first.location);
        let (pages, before) = (self.pages, self.page);
        if token.len() > limits::TOKEN_BYTES {
            let bytes = token.len();
            return Err(format!("page {pages} has a continuation token of {bytes} bytes"));
        }
        if before > 0 && token == self.token {
            return Err(format!("page {pages} has the continuation token of page {before} again"));
        }
        if let Some(first) = first.filter(|first| self.first.as_ref() == Some(first)) {
            return Err(format!("page {pages} begins with {first}, as page {before} does"));
        }
        if self.empty > limits::EMPTY_PAGES {
            return Err(format!("{} pages in a row have no objects", self.empty));
        }
        if self.objects > limits::LISTED_OBJECTS {
            return Err(format!("{} objects have come, and there are more", self.objects));
        }
        if pages.is_power_of_two() {
            (self.page, self.token, self.first) = (pages, token.to_owned(), first.cloned());
        }
        Ok(())
    }
}

impl fmt::Debug for Paged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.objects.fmt(f)
    }
}

impl fmt::Display for Paged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.objects, f)
    }
}

#[async_trait]
impl ObjectStore for Paged {
    async fn put_opts(
        &self,
        to: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.objects.put_opts(to, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> Result<GetResult> {
        self.objects.get_opts(from, options).await
    }

    async fn get_ranges(&self, from: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.objects.get_ranges(from, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.filter(|prefix| !prefix.as_ref().is_empty());
        let prefix = prefix.map(|prefix| format!("{prefix}/"));
        let (pages, seen) = (Arc::clone(&self.pages), Seen::default());
        let pages = stream::try_unfold(
            Some(Listing { pages, prefix, token: None, seen }),
            |listing| async move {
                let Some(listing) = listing else { return Ok(None) };
                let (objects, next) = listing.next().await?;
                Ok::<_, Error>(Some((stream::iter(objects.into_iter().map(Ok)), next)))
            },
        );
        pages.try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests;
