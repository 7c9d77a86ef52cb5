//! Extents that are fetched again.

use std::sync::Arc;

use bytes::Bytes;

use super::ExtentIndex;
use super::coded::{Reread, Streams};
use crate::cache::Cache;
use crate::fetch::FetchError;
use crate::format::parquet::{self, Held};
use crate::format::{Coding, Format};

/// What is kept for a while, between one extent and the next, of objects whose extents cannot be fetched each for itself.
#[derive(Debug, Clone)]
pub struct Between {
    pub(super) cache: Arc<Cache>,
    /// Row groups of Parquet.
    pub groups: Arc<Held>,
    /// Decoders of what is compressed.
    pub streams: Arc<Streams>,
}

impl Between {
    /// Nothing yet; its room is counted by this cache.
    #[must_use]
    pub fn new(cache: &Arc<Cache>) -> Self {
        let groups = Arc::new(Held::new(Arc::clone(cache)));
        let streams = Arc::new(Streams::new(Arc::clone(cache)));
        Self { cache: Arc::clone(cache), groups, streams }
    }
}

/// The content of an extent, from the source. Of a compressed object what is before it is read as well, where nobody has just done so, and
/// `beside` is given what was passed by.
///
/// # Errors
/// [`FetchError`].
pub async fn fetch(
    reread: &Reread<'_>,
    extent: &ExtentIndex,
    between: &Between,
    beside: impl FnMut(&ExtentIndex, Bytes) + Send,
) -> Result<Bytes, FetchError> {
    let Reread { source, object, id, index } = reread;
    if index.reading.format == Format::Parquet {
        let held = (&between.groups, *id);
        return parquet::fetch(&**source, object, index, extent, held).await;
    }
    match index.reading.coding {
        Coding::Plain => {
            source.get(object, extent.start..extent.start + u64::from(extent.bytes)).await
        }
        Coding::Gzip | Coding::Zstd => between.streams.fetch(reread, extent, beside).await,
    }
}
