//! The uplink over HTTP: three POST routes, bearer tokens, bounded bodies.
//!
//! Memory for batches is bounded by bytes that have arrived, not by requests: an edge on a slow link holds little, and shuts out nobody. Hellos and
//! heartbeats are tiny and never wait behind batches.
//!
//! ```text
//! POST /v1/edges/{edge}/hello                    a hello frame     -> an answer frame
//! POST /v1/edges/{edge}/lanes/{lane}/batches     a batch frame     -> an answer frame
//! POST /v1/edges/{edge}/heartbeat                a heartbeat frame -> an answer frame
//! ```
//!
//! Who is let in: whoever shows the edge's token, over TLS or from loopback. As long as no edge is registered, also whoever comes
//! from loopback without a token, unless `require_token` is set: a first look should not need a ceremony, and
//! nothing outside the machine can use it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use robustmq_common::ids::{EdgeId, LaneId};
use robustmq_common::limits;
use robustmq_common::net::{HttpLimits, serve_http};
use robustmq_common::sync::{Answer, Refusal};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::ingest::Ingest;
use super::refused::Why;
use super::rights::Rights;
use super::tokens::{Denied, Tokens};

/// The content type of frames.
pub const CONTENT_TYPE: &str = "application/x-robustmq-sync";

/// Who is let in, besides tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Admission {
    /// The listener speaks TLS.
    pub tls: bool,
    /// Tokens may come over plain HTTP from other machines (`insecure = true`: inside a trusted network).
    pub insecure: bool,
    /// Nobody is let in without a token, not even from loopback while no edge is registered.
    pub require_token: bool,
}

#[derive(Clone)]
struct Uplink {
    ingest: Ingest,
    tokens: Tokens,
    admission: Admission,
    /// Bytes of batches that have arrived.
    bodies: Arc<Semaphore>,
    /// Batches that are worked on.
    work: Arc<Semaphore>,
}

/// The routes of the uplink listener.
pub fn router(ingest: Ingest, tokens: Tokens, admission: Admission) -> Router {
    let bodies = Arc::new(Semaphore::new(limits::UPLINK_BODY_BYTES));
    let work = Arc::new(Semaphore::new(limits::UPLINK_BATCHES_IN_WORK));
    Router::new()
        .route("/v1/edges/{edge}/hello", post(hello))
        .route("/v1/edges/{edge}/heartbeat", post(heartbeat))
        .route("/v1/edges/{edge}/lanes/{lane}/batches", post(batches))
        .with_state(Uplink { ingest, tokens, admission, bodies, work })
}

/// Serves the uplink until `shutdown`.
pub async fn run(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    shutdown: CancellationToken,
) {
    let cost = HttpLimits {
        connections: limits::UPLINK_CONNECTIONS,
        http2_window_bytes: limits::UPLINK_HTTP2_WINDOW_BYTES,
        http2_streams: limits::UPLINK_HTTP2_STREAMS,
        request_timeout: limits::UPLINK_REQUEST,
    };
    serve_http(listener, tls, router, cost, shutdown).await;
}

async fn hello(
    State(uplink): State<Uplink>,
    Extension(peer): Extension<SocketAddr>,
    Path(edge): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    uplink
        .serve_small(peer, &edge, &headers, body, async |ingest, edge, frame| {
            ingest.hello(edge, frame).await
        })
        .await
}

async fn heartbeat(
    State(uplink): State<Uplink>,
    Extension(peer): Extension<SocketAddr>,
    Path(edge): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    uplink
        .serve_small(peer, &edge, &headers, body, async |ingest, edge, frame| {
            ingest.heartbeat(edge, frame).await
        })
        .await
}

async fn batches(
    State(uplink): State<Uplink>,
    Extension(peer): Extension<SocketAddr>,
    Path((edge, lane)): Path<(String, u8)>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let answer = match uplink.admit(peer, &edge, &headers).await {
        Ok((edge, rights)) => uplink.batch(&edge, &rights, LaneId(lane), body).await,
        Err(refusal) => uplink.ingest.refuse(refusal),
    };
    response(&answer)
}

impl Uplink {
    async fn serve_small<F>(
        &self,
        peer: SocketAddr,
        edge: &str,
        headers: &HeaderMap,
        body: Body,
        handle: F,
    ) -> Response
    where
        F: AsyncFnOnce(&Ingest, &EdgeId, &[u8]) -> Answer,
    {
        let edge = match self.admit(peer, edge, headers).await {
            Ok((edge, _)) => edge,
            Err(refusal) => return response(&self.ingest.refuse(refusal)),
        };
        let frame = match read_body(body, limits::UPLINK_SMALL_BODY_BYTES, None).await {
            Ok((frame, _)) => frame,
            Err(unread) => return response(&self.unread(unread)),
        };
        self.ingest.received(frame.len());
        response(&handle(&self.ingest, &edge, &frame).await)
    }

    async fn batch(&self, edge: &EdgeId, rights: &Rights, lane: LaneId, body: Body) -> Answer {
        let (frame, charged) =
            match read_body(body, limits::SYNC_FRAME_BYTES, Some(&self.bodies)).await {
                Ok(read) => read,
                Err(unread) => return self.unread(unread),
            };
        self.ingest.received(frame.len());
        // Work never waits for a link, so this wait is short; the batch is charged for meanwhile.
        let Ok(slot) = Arc::clone(&self.work).acquire_owned().await else {
            return self.unread(Unread::NoMemory);
        };
        self.ingest.batch_holding(edge, rights, lane, &frame, (charged, slot)).await
    }

    fn unread(&self, unread: Unread) -> Answer {
        self.ingest.refuse(match unread {
            Unread::TooLarge { limit } => {
                Refusal::TooLarge { limit_bytes: u32::try_from(limit).unwrap_or(u32::MAX) }
            }
            Unread::NoMemory | Unread::Broken => self.ingest.overloaded(),
        })
    }

    async fn admit(
        &self,
        peer: SocketAddr,
        edge: &str,
        headers: &HeaderMap,
    ) -> Result<(EdgeId, Rights), Refusal> {
        let edge = EdgeId::new(edge).map_err(|_| Refusal::UnknownEdge)?;
        let refused = |why| self.ingest.refuse_edge(&edge, peer, why);
        let loopback = peer.ip().to_canonical().is_loopback();
        if !self.admission.tls && !self.admission.insecure && !loopback {
            return Err(refused(Why::PlainHttp));
        }
        let unavailable = |error| {
            tracing::warn!(%edge, %error, "an edge's token cannot be read");
            self.ingest.overloaded()
        };
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        let Some(token) = token else {
            let open = loopback && !self.admission.require_token;
            if open && !self.tokens.any().await.map_err(unavailable)? {
                return Ok((edge, Rights::all()));
            }
            return Err(refused(Why::NoToken));
        };
        match self.tokens.check(&edge, token).await.map_err(unavailable)? {
            Ok(rights) => Ok((edge, rights)),
            Err(Denied::Unauthorised) => Err(refused(Why::WrongToken)),
            Err(Denied::UnknownEdge) => Err(refused(Why::NotRegistered)),
        }
    }
}

/// Why a request's body is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unread {
    /// It is larger than this, in bytes.
    TooLarge { limit: usize },
    /// Too much of other bodies is held.
    NoMemory,
    /// The connection broke, or nothing came for too long.
    Broken,
}

/// Reads a body of at most `limit` bytes, and charges `budget` for each byte when it arrives. Nothing waits for the budget: bodies that are half
/// read and wait for each other would never end.
async fn read_body(
    body: Body,
    limit: usize,
    budget: Option<&Arc<Semaphore>>,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Unread> {
    let mut parts = body.into_data_stream();
    let (mut frame, mut charged) = (BytesMut::new(), None);
    loop {
        let part = match tokio::time::timeout(limits::UPLINK_BODY_STALL, parts.next()).await {
            Ok(Some(Ok(part))) => part,
            Ok(None) => return Ok((frame.freeze(), charged)),
            Ok(Some(Err(_))) | Err(_) => return Err(Unread::Broken),
        };
        if frame.len().saturating_add(part.len()) > limit {
            return Err(Unread::TooLarge { limit });
        }
        if let Some(budget) = budget {
            charge(budget, part.len(), &mut charged)?;
        }
        frame.extend_from_slice(&part);
    }
}

fn charge(
    budget: &Arc<Semaphore>,
    bytes: usize,
    charged: &mut Option<OwnedSemaphorePermit>,
) -> Result<(), Unread> {
    let bytes = u32::try_from(bytes).map_err(|_| Unread::NoMemory)?;
    let permit = Arc::clone(budget).try_acquire_many_owned(bytes);
    let permit = permit.map_err(|_| Unread::NoMemory)?;
    match charged {
        Some(charged) => charged.merge(permit),
        None => *charged = Some(permit),
    }
    Ok(())
}

fn response(answer: &Answer) -> Response {
    let status =
        StatusCode::from_u16(answer.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], answer.encode()).into_response()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;

    use super::{Arc, Body, Bytes, Semaphore, StreamExt, Unread, limits, read_body};

    /// A body of which some bytes come at once, and the rest never.
    fn stalled(bytes: usize) -> Body {
        let first = stream::iter([Ok::<_, Infallible>(Bytes::from(vec![0; bytes]))]);
        Body::from_stream(first.chain(stream::pending()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_charged_for_what_has_arrived_and_no_more() {
        let budget = Arc::new(Semaphore::new(1_000));
        let slow = tokio::spawn({
            let budget = budget.clone();
            async move { read_body(stalled(10), 1_000, Some(&budget)).await.map(drop) }
        });
        tokio::time::sleep(limits::UPLINK_BODY_STALL / 2).await;
        assert_eq!(budget.available_permits(), 990);
        let whole = read_body(Body::from(vec![1; 990]), 1_000, Some(&budget)).await;
        let (frame, charged) = whole.expect("there is room for it");
        assert_eq!((frame.len(), budget.available_permits()), (990, 0));
        let next = read_body(Body::from("x"), 1_000, Some(&budget)).await.map(drop);
        assert_eq!(next, Err(Unread::NoMemory));
        assert!(read_body(Body::from("x"), 1_000, None).await.is_ok(), "small ones do not wait");
        drop(charged);
        assert_eq!(slow.await.expect("ends"), Err(Unread::Broken), "given up in the end");
        assert_eq!(budget.available_permits(), 1_000);
    }

    #[tokio::test]
    async fn a_body_over_its_limit_is_not_kept() {
        let budget = Arc::new(Semaphore::new(1_000));
        let read = async |bytes: usize| {
            read_body(Body::from(vec![0; bytes]), 100, Some(&budget)).await.map(drop)
        };
        assert_eq!(read(100).await, Ok(()));
        assert_eq!(read(101).await, Err(Unread::TooLarge { limit: 100 }));
        assert_eq!(budget.available_permits(), 1_000);
    }
}
