//! The uplink over HTTP: three POST routes, bearer tokens, bounded bodies.
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
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use robustmq_common::ids::{EdgeId, LaneId};
use robustmq_common::limits;
use robustmq_common::net::{HttpLimits, serve_http};
use robustmq_common::sync::{Answer, Refusal};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::ingest::Ingest;
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
    bodies: Arc<Semaphore>,
}

/// The routes of the uplink listener.
pub fn router(ingest: Ingest, tokens: Tokens, admission: Admission) -> Router {
    let bodies = Arc::new(Semaphore::new(limits::UPLINK_BODIES_IN_WORK));
    Router::new()
        .route("/v1/edges/{edge}/hello", post(hello))
        .route("/v1/edges/{edge}/heartbeat", post(heartbeat))
        .route("/v1/edges/{edge}/lanes/{lane}/batches", post(batches))
        .with_state(Uplink { ingest, tokens, admission, bodies })
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
        .serve(peer, &edge, &headers, body, async |ingest, edge, _, frame| {
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
        .serve(peer, &edge, &headers, body, async |ingest, edge, _, frame| {
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
    uplink
        .serve(peer, &edge, &headers, body, async |ingest, edge, rights, frame| {
            ingest.batch(edge, rights, LaneId(lane), frame).await
        })
        .await
}

impl Uplink {
    async fn serve<F>(
        &self,
        peer: SocketAddr,
        edge: &str,
        headers: &HeaderMap,
        body: Body,
        handle: F,
    ) -> Response
    where
        F: AsyncFnOnce(&Ingest, &EdgeId, &Rights, &[u8]) -> Answer,
    {
        let (edge, rights) = match self.admit(peer, edge, headers).await {
            Ok(admitted) => admitted,
            Err(refusal) => return response(&self.ingest.refuse(refusal)),
        };
        // Memory for bodies is bounded by how many are read and worked on at once.
        let Ok(_slot) = self.bodies.try_acquire() else {
            return response(&self.ingest.refuse(self.ingest.overloaded()));
        };
        let Ok(frame) = to_bytes(body, limits::SYNC_FRAME_BYTES).await else {
            let limit_bytes = u32::try_from(limits::SYNC_FRAME_BYTES).unwrap_or(u32::MAX);
            return response(&self.ingest.refuse(Refusal::TooLarge { limit_bytes }));
        };
        self.ingest.received(frame.len());
        response(&handle(&self.ingest, &edge, &rights, &frame).await)
    }

    async fn admit(
        &self,
        peer: SocketAddr,
        edge: &str,
        headers: &HeaderMap,
    ) -> Result<(EdgeId, Rights), Refusal> {
        let edge = EdgeId::new(edge).map_err(|_| Refusal::UnknownEdge)?;
        let loopback = peer.ip().to_canonical().is_loopback();
        if !self.admission.tls && !self.admission.insecure && !loopback {
            tracing::warn!(%peer, %edge, "refused an edge over plain HTTP from another machine; use TLS");
            return Err(Refusal::Unauthorised);
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
            return Err(Refusal::Unauthorised);
        };
        match self.tokens.check(&edge, token).await.map_err(unavailable)? {
            Ok(rights) => Ok((edge, rights)),
            Err(Denied::Unauthorised) => Err(Refusal::Unauthorised),
            Err(Denied::UnknownEdge) => Err(Refusal::UnknownEdge),
        }
    }
}

fn response(answer: &Answer) -> Response {
    let status =
        StatusCode::from_u16(answer.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], answer.encode()).into_response()
}
