//! Serves an axum router over HTTP/1.1 and HTTP/2, with a bound on connections, header time and drain time.

#[cfg(test)]
pub(crate) mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::limits;

/// What one HTTP listener may cost.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Connections at once; the next one waits unaccepted.
    pub connections: usize,
    /// HTTP/2 flow-control window of a stream and of a connection in bytes: how much of request bodies may be in flight.
    pub http2_window_bytes: u32,
    /// Requests in work at once on one HTTP/2 connection.
    pub http2_streams: u32,
    /// A request without the head of an answer after this long, for example since its body does not come, gets 408. An
    /// answer's body may take longer.
    pub request_timeout: Duration,
}

/// Serves until `shutdown`, then lets requests in work finish for at most [`limits::HTTP_DRAIN`]. A handler finds the
/// peer's address as `axum::Extension<SocketAddr>`. A connection whose first request has not come after
/// [`limits::HTTP_HEADER_TIMEOUT`] (or the request timeout, if that is shorter) is closed.
///
/// Returns when the drain is over; failures of single connections are logged at debug level and end only those.
pub async fn serve_http(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: HttpLimits,
    shutdown: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let server = Arc::new(connection_builder(limits));
    loop {
        let Some((stream, peer, slot)) = accept(&listener, &slots, &shutdown).await else { break };
        let requested = Arc::new(AtomicBool::new(false));
        let routes = router
            .clone()
            .layer(axum::Extension(peer))
            .layer(middleware::from_fn_with_state((limits, requested.clone()), answer_in_time));
        let (server, tls, watcher) = (server.clone(), tls.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _slot = slot;
            let served = tokio::select! {
                served = serve_connection(&server, stream, tls, routes, watcher) => served,
                () = no_request(limits, &requested) => Err("no request came".into()),
            };
            if let Err(error) = served {
                tracing::debug!(%peer, error, "HTTP connection ended");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(limits::HTTP_DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("HTTP requests were still in work when the drain ended");
    }
}

type Served = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn serve_connection(
    server: &auto::Builder<TokioExecutor>,
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    routes: Router,
    watcher: Watcher,
) -> Served {
    // Answers are small and waited for: never hold one back for more.
    stream.set_nodelay(true)?;
    let service = TowerToHyperService::new(routes);
    match tls {
        None => {
            let connection = server.serve_connection(TokioIo::new(stream), service);
            watcher.watch(connection.into_owned()).await
        }
        Some(tls) => {
            let stream = tokio::time::timeout(limits::TLS_HANDSHAKE, tls.accept(stream)).await??;
            let connection = server.serve_connection(TokioIo::new(stream), service);
            watcher.watch(connection.into_owned()).await
        }
    }
}

/// Ends when the first request is overdue. The server's own header timeout begins only when it has read enough to tell
/// HTTP/1.1 from HTTP/2.
async fn no_request(limits: HttpLimits, requested: &AtomicBool) {
    tokio::time::sleep(limits.request_timeout.min(limits::HTTP_HEADER_TIMEOUT)).await;
    if requested.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

async fn answer_in_time(
    State((limits, requested)): State<(HttpLimits, Arc<AtomicBool>)>,
    request: Request,
    next: Next,
) -> Response {
    requested.store(true, Ordering::Relaxed);
    let answered = tokio::time::timeout(limits.request_timeout, next.run(request)).await;
    answered.unwrap_or_else(|_| StatusCode::REQUEST_TIMEOUT.into_response())
}

fn connection_builder(limits: HttpLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HTTP_HEADER_TIMEOUT)
        .max_buf_size(limits::HTTP_HEADER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits::HTTP_KEEP_ALIVE)
        .max_header_list_size(u32::try_from(limits::HTTP_HEADER_BYTES).unwrap_or(u32::MAX))
        .initial_stream_window_size(limits.http2_window_bytes)
        .initial_connection_window_size(limits.http2_window_bytes)
        .max_concurrent_streams(limits.http2_streams);
    builder
}

type Accepted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

/// The next connection, once there is a slot for it; `None` at shutdown.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Option<Accepted> {
    let accepted = async {
        let slot = slots.clone().acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => return Some((stream, peer, slot)),
                Err(error) => {
                    // Out of file descriptors, or a peer that left while it waited: the next may work.
                    tracing::warn!(%error, "cannot accept an HTTP connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        accepted = accepted => accepted,
    }
}

/// Keeps a failing `accept` from spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
