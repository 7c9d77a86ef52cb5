//! Kafka's protocol spoken by hand: one connection, one request after the other, and nothing behind one's back. For members that come and
//! go faster than a stock client can.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{
    Decodable as _, Encodable as _, HeaderVersion as _, Request, StrBytes,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longer than any answer takes that is not a fault.
const ANSWER: Duration = Duration::from_secs(60);
/// No answer that is asked for is larger.
const ANSWER_BYTES: usize = 64 << 20;

/// One connection.
pub struct Wire {
    stream: TcpStream,
    client_id: StrBytes,
    last_id: i32,
}

impl Wire {
    /// Connects to a broker at `HOST:PORT`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(kafka: &str, client_id: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(kafka).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, client_id: text(client_id), last_id: 0 })
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// When the connection ends before, or what comes is no answer to it.
    pub async fn call<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> anyhow::Result<R::Response> {
        self.last_id += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.last_id)
            .with_client_id(Some(self.client_id.clone()));
        let mut frame = BytesMut::new();
        header.encode(&mut frame, R::header_version(version))?;
        request.encode(&mut frame, version)?;
        let exchange = async {
            self.stream.write_all(&u32::try_from(frame.len())?.to_be_bytes()).await?;
            self.stream.write_all(&frame).await?;
            self.receive().await
        };
        let mut answer =
            tokio::time::timeout(ANSWER, exchange).await.context("no answer came")??;
        let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version))?;
        ensure!(header.correlation_id == self.last_id, "the answer is to another request");
        let response = R::Response::decode(&mut answer, version)?;
        ensure!(answer.is_empty(), "{} bytes follow the answer", answer.len());
        Ok(response)
    }

    async fn receive(&mut self) -> anyhow::Result<Bytes> {
        let length = usize::try_from(self.stream.read_u32().await?)?;
        ensure!(length <= ANSWER_BYTES, "an answer of {length} bytes");
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).await?;
        Ok(Bytes::from(answer))
    }
}

/// A string as requests have them.
#[must_use]
pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
