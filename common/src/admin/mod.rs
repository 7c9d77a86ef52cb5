//! The admin listener: `/live`, `/ready`, `/metrics`, `/log-level`; a binary merges its own routes into [`router`].
//!
//! **Invariant:** `/ready` says 200 only while every component that was registered says that it is ready.
//! **Invariant:** no route of this room changes data; `PUT /log-level` changes what is logged, and nothing else.

mod readiness;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::limits;
use crate::net::{HttpLimits, serve_http};
use crate::telemetry::LogLevel;

pub use readiness::{Component, Readiness};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
struct Admin {
    readiness: Readiness,
    registry: Arc<Registry>,
    log_level: LogLevel,
}

/// The routes that both binaries have:
///
/// - `GET /live`: 200 while the process answers at all.
/// - `GET /ready`: 200, or 503 and a line `component: reason` for each that is not ready.
/// - `GET /metrics`: the registry as OpenMetrics text.
/// - `GET /log-level`: the directives in force. `PUT /log-level` with directives as the body changes them (204), or
///   says what is wrong with them (400).
pub fn router(readiness: Readiness, registry: Arc<Registry>, log_level: LogLevel) -> Router {
    Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/log-level", get(log_level_now).put(set_log_level))
        .with_state(Admin { readiness, registry, log_level })
}

/// Serves a router on the admin listener until `shutdown`. Bodies are limited to [`limits::ADMIN_BODY_BYTES`],
/// connections to [`limits::ADMIN_CONNECTIONS`].
pub async fn run(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let router =
        router.fallback(nothing_there).layer(DefaultBodyLimit::max(limits::ADMIN_BODY_BYTES));
    let cost = HttpLimits {
        connections: limits::ADMIN_CONNECTIONS,
        http2_window_bytes: limits::ADMIN_HTTP2_WINDOW_BYTES,
        http2_streams: limits::ADMIN_HTTP2_STREAMS,
        request_timeout: limits::ADMIN_REQUEST,
    };
    serve_http(listener, None, router, cost, shutdown).await;
}

async fn nothing_there(uri: Uri) -> (StatusCode, String) {
    (StatusCode::NOT_FOUND, format!("there is nothing at {}\n", uri.path()))
}

async fn ready(State(admin): State<Admin>) -> Response {
    let waiting = admin.readiness.not_ready();
    if waiting.is_empty() {
        return "ready\n".into_response();
    }
    let lines: String =
        waiting.iter().map(|(name, reason)| format!("{name}: {reason}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &admin.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be encoded");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn log_level_now(State(admin): State<Admin>) -> String {
    admin.log_level.get() + "\n"
}

async fn set_log_level(State(admin): State<Admin>, filter: String) -> Response {
    match admin.log_level.set(&filter) {
        Ok(()) => {
            tracing::info!(filter = filter.trim(), "log level changed");
            StatusCode::NO_CONTENT.into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}
