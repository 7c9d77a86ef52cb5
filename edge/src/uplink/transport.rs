//! Carries one request and its answer. HTTP in the product, a simulated network in tests.

use async_trait::async_trait;
use bytes::Bytes;
use robustmq_common::ids::LaneId;
use robustmq_common::sync::{Answer, DecodeError};

/// Which request a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// A [`robustmq_common::sync::Hello`].
    Hello,
    /// A [`robustmq_common::sync::Heartbeat`].
    Heartbeat,
    /// A [`robustmq_common::sync::Batch`] of a lane.
    Batch(LaneId),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No connection, or it broke.
    #[error("the cloud cannot be reached: {0}")]
    Unreachable(String),
    /// The answer did not come in time.
    #[error("the cloud did not answer in time")]
    Timeout,
    /// Something answered that is not a cloud: a captive portal, a proxy, another service.
    #[error("what answers is not a robustmq-cloud ({0}); check the URL, and what lies between")]
    NotTheCloud(String),
    /// The answer is from a cloud and cannot be read.
    #[error("the cloud's answer cannot be read: {0}")]
    Unreadable(DecodeError),
}

/// Carries requests to one cloud.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends one frame and gives the bytes of its answer, whatever the status that came with them. Dropping the future gives up
    /// on the answer; the request may have been carried out.
    ///
    /// # Errors
    /// [`TransportError::Unreachable`], [`TransportError::Timeout`].
    async fn call(&self, call: Call, frame: Bytes) -> Result<Bytes, TransportError>;
}

/// Sends one frame and reads the answer. Bytes without the protocol's magic are no answer, whatever status they came with.
///
/// # Errors
/// [`TransportError`].
pub async fn exchange(
    transport: &dyn Transport,
    call: Call,
    frame: Bytes,
) -> Result<Answer, TransportError> {
    let bytes = transport.call(call, frame).await?;
    Answer::decode(&bytes).map_err(|error| match error {
        DecodeError::Magic => TransportError::NotTheCloud(beginning(&bytes)),
        error => TransportError::Unreadable(error),
    })
}

/// The beginning of what came instead of an answer, for the log.
fn beginning(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.get(..60).unwrap_or(bytes));
    format!("it said {:?}", text.lines().next().unwrap_or_default())
}
