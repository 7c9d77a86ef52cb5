//! A small Kafka client: one connection, one request at a time.

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use kafka_protocol::error::{ParseResponseErrorCode as _, ResponseError};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::{
    Decodable as _, Encodable as _, HeaderVersion as _, Request, StrBytes,
};
use robustmq_common::limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long a broker may take for an answer.
const ANSWER: Duration = Duration::from_secs(30);

/// Why the broker did not do it. Displays as one line.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("no broker at {bootstrap}: {reason}")]
    Connect { bootstrap: String, reason: std::io::Error },
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    #[error("the broker gave no answer within {0:?}")]
    Timeout(Duration),
    #[error("the broker's answer cannot be read: {0}")]
    Answer(String),
    #[error(
        "it answers in HTTP: this is no listener for Kafka clients, but perhaps the one of --admin"
    )]
    Http,
    #[error("the broker does not serve {0:?} in a version that is known here")]
    Unsupported(ApiKey),
    #[error("there is no topic {0}: `robustmq-cloud topic list` shows those that there are")]
    NoTopic(String),
    #[error("{what}: {error}{detail}")]
    Refused { what: String, error: ResponseError, detail: String },
}

/// A connection to one broker.
pub(super) struct Client {
    stream: TcpStream,
    served: ApiVersionsResponse,
    next_id: i32,
    patience: Duration,
}

impl Client {
    pub async fn connect(host: &str, port: u16) -> Result<Self, ClientError> {
        let connect = tokio::time::timeout(ANSWER, TcpStream::connect((host, port))).await;
        let stream = connect.map_err(|_| ClientError::Timeout(ANSWER))?;
        let bootstrap = || format!("{host}:{port}");
        let stream =
            stream.map_err(|reason| ClientError::Connect { bootstrap: bootstrap(), reason })?;
        let served = ApiVersionsResponse::default();
        let mut client = Self { stream, served, next_id: 1, patience: ANSWER };
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("robustmq-cloud"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        client.served = client.call_version(3, &request).await?;
        Ok(client)
    }

    /// From now on an answer may take so long.
    pub fn wait_up_to(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Sends a request in the newest version that both sides know, and `most` at most.
    pub async fn call<R: Request>(
        &mut self,
        most: i16,
        request: &R,
    ) -> Result<R::Response, ClientError> {
        let known = R::VERSIONS;
        let unsupported = || match ApiKey::try_from(R::KEY) {
            Ok(key) => ClientError::Unsupported(key),
            Err(()) => ClientError::Answer(format!("API {} is unknown", R::KEY)),
        };
        let served = self.served.api_keys.iter().find(|api| api.api_key == R::KEY);
        let served = served.ok_or_else(unsupported)?;
        let version = most.min(known.max).min(served.max_version);
        if version < known.min.max(served.min_version) {
            return Err(unsupported());
        }
        self.call_version(version, request).await
    }

    async fn call_version<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Result<R::Response, ClientError> {
        let patience = self.patience;
        let call = tokio::time::timeout(patience, self.exchange(version, request)).await;
        call.map_err(|_| ClientError::Timeout(patience))?
    }

    async fn exchange<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Result<R::Response, ClientError> {
        let unreadable = |error: &dyn std::fmt::Display| ClientError::Answer(error.to_string());
        let correlation_id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(correlation_id)
            .with_client_id(Some(StrBytes::from_static_str("robustmq-cloud")));
        let mut out = BytesMut::new();
        header.encode(&mut out, R::header_version(version)).map_err(|error| unreadable(&error))?;
        request.encode(&mut out, version).map_err(|error| unreadable(&error))?;
        let size = i32::try_from(out.len()).map_err(|error| unreadable(&error))?;
        self.stream.write_all(&size.to_be_bytes()).await?;
        self.stream.write_all(&out).await?;
        let size = self.stream.read_i32().await?;
        if size.to_be_bytes() == *b"HTTP" {
            return Err(ClientError::Http);
        }
        let size = usize::try_from(size)
            .ok()
            .filter(|size| *size <= limits::KAFKA_FRAME_BYTES)
            .ok_or_else(|| unreadable(&"its size is no size"))?;
        let mut answer = vec![0; size];
        self.stream.read_exact(&mut answer).await?;
        let mut answer = Bytes::from(answer);
        let response_header = R::Response::header_version(version);
        let header = ResponseHeader::decode(&mut answer, response_header)
            .map_err(|error| unreadable(&error))?;
        if header.correlation_id != correlation_id {
            return Err(unreadable(&"it belongs to another request"));
        }
        let response =
            R::Response::decode(&mut answer, version).map_err(|error| unreadable(&error))?;
        if answer.has_remaining() {
            return Err(unreadable(&"it is longer than its content"));
        }
        Ok(response)
    }
}

/// Turns an answer's error code into an error about `what`.
pub(super) fn check(what: &str, code: i16, detail: Option<&StrBytes>) -> Result<(), ClientError> {
    match code.err() {
        None => Ok(()),
        Some(ResponseError::UnknownTopicOrPartition) if detail.is_none() => {
            Err(ClientError::NoTopic(what.to_owned()))
        }
        Some(error) => {
            let detail = detail.map(|detail| format!(": {}", detail.as_str())).unwrap_or_default();
            Err(ClientError::Refused { what: what.to_owned(), error, detail })
        }
    }
}
