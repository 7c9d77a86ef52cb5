//! Verified GETs of objects that must not change.
//!
//! **Invariant:** bytes that are given are those of the version that was listed, and all that were asked for: nobody relies on a server's
//! honouring `If-Match` or a range.
//! **Invariant:** a GET ends: each attempt by silence, and attempts that bring nothing are counted.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path;
use robustmq_common::limits::dataset as limits;
use tokio::time::Instant;

#[cfg(test)]
mod faulty;
mod limiter;
mod link;
mod source;
#[cfg(test)]
mod tests;

pub use source::{FetchStats, ObjectSource, bad_etag, same_time};

/// An object as it was listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Where it lies in its store.
    pub path: Path,
    /// What was listed; `None` where the store has no such thing (then the time of its last change is all that is known).
    pub etag: Option<String>,
    /// Bytes.
    pub size: u64,
    /// When it was changed last, milliseconds since 1970.
    pub modified_ms: i64,
}

/// Why bytes could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// It was deleted since it was listed.
    #[error("{0} is gone: it was deleted after the topic listed it")]
    Gone(String),
    /// It was replaced since it was listed.
    #[error("{object} was changed after the topic listed it: {reason}")]
    Changed {
        /// The object.
        object: String,
        /// What is different.
        reason: String,
    },
    /// No permission.
    #[error("{object} may not be read: {reason}")]
    Forbidden {
        /// The object.
        object: String,
        /// What the store said.
        reason: String,
    },
    /// It cannot be had now; later it may.
    #[error("{object} cannot be read now: {reason}")]
    Unavailable {
        /// The object.
        object: String,
        /// The last failure.
        reason: String,
    },
    /// Its bytes are not those that were indexed, though the store says that it is the same.
    #[error("{object} has other bytes than when it was indexed: {reason}")]
    Damaged {
        /// The object.
        object: String,
        /// What is different.
        reason: String,
    },
    /// It had offsets when it was found that it cannot be read.
    #[error("{object} has lost records: {reason}")]
    Lost {
        /// The object.
        object: String,
        /// Why.
        reason: String,
    },
}

impl FetchError {
    /// Whether trying again will not help: what was listed is not there any more.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Gone(_) | Self::Changed { .. } | Self::Damaged { .. } | Self::Lost { .. } => true,
            Self::Forbidden { .. } | Self::Unavailable { .. } => false,
        }
    }
}

/// Where bytes come from.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// These bytes of the object, all of them, of the version that was listed.
    ///
    /// # Errors
    /// [`FetchError`].
    async fn get(&self, object: &Object, range: Range<u64>) -> Result<Bytes, FetchError>;

    /// The same for who needs them at that time: where GETs wait for each other, those come first that are needed first.
    ///
    /// # Errors
    /// [`FetchError`].
    async fn get_by(
        &self,
        object: &Object,
        range: Range<u64>,
        _by: Instant,
    ) -> Result<Bytes, FetchError> {
        self.get(object, range).await
    }
}

/// A source for a reader that goes on at [`limits::READ_BYTES_PER_SECOND`]: what lies further on is needed later.
pub struct Paced {
    source: Arc<dyn Source>,
    /// What lies before this is needed at that time, what lies further on later.
    from: u64,
    by: Instant,
}

impl Paced {
    /// For who reads so many other bytes before those at `from`.
    #[must_use]
    pub fn new(source: Arc<dyn Source>, from: u64, distance_bytes: u64) -> Self {
        Self { source, from, by: Instant::now() + time_to_read(distance_bytes) }
    }
}

/// What a reader takes for so many bytes, about.
#[expect(clippy::cast_precision_loss, reason = "some milliseconds more or less")]
fn time_to_read(bytes: u64) -> Duration {
    let seconds = bytes as f64 / limits::READ_BYTES_PER_SECOND as f64;
    // Beyond this, nobody has to be told what is needed first.
    Duration::from_secs_f64(seconds.min(3600.0))
}

#[async_trait]
impl Source for Paced {
    async fn get(&self, object: &Object, range: Range<u64>) -> Result<Bytes, FetchError> {
        let by = self.by + time_to_read(range.start.saturating_sub(self.from));
        self.source.get_by(object, range, by).await
    }
}
