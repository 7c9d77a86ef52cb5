//! Status as JSON and metrics of the edge, and what `robustmq-edge status` makes of them.
//!
//! **Invariant:** a figure has one source (the hub, the queue, the state); this room only says it.

mod metrics;
mod status;

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State as Extract};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use robustmq_common::admin::Readiness;
use robustmq_common::ids::EdgeId;
use robustmq_common::telemetry::LogLevel;
use tokio::sync::watch;

use crate::gateway::{Figures, ListenerCounters};
use crate::queue::{LaneStatus, Queue};
use crate::state::Progress;

pub use status::{LaneReport, MqttReport, QueueReport, Status, StatusError, UplinkReport, fetch};

/// Everything that status and metrics are read from.
#[derive(Clone)]
pub struct View {
    edge_id: EdgeId,
    figures: watch::Receiver<Figures>,
    listener: Arc<ListenerCounters>,
    queue: Queue,
    state: watch::Receiver<Progress>,
    /// Absent without a cloud.
    uplink: Option<ReadUplink>,
    /// As they were when metrics were last asked for: reading them may read from disk, which an encoder cannot wait for.
    lanes: Arc<Mutex<Vec<LaneStatus>>>,
    started: std::time::Instant,
}

/// Reads how the uplink stands.
pub type ReadUplink = Arc<dyn Fn() -> UplinkReport + Send + Sync>;

impl View {
    /// A view of a gateway that starts now.
    #[must_use]
    pub fn new(
        edge_id: EdgeId,
        figures: watch::Receiver<Figures>,
        listener: Arc<ListenerCounters>,
        queue: Queue,
        state: watch::Receiver<Progress>,
        uplink: Option<ReadUplink>,
    ) -> Self {
        let started = std::time::Instant::now();
        Self { edge_id, figures, listener, queue, state, uplink, lanes: Arc::default(), started }
    }

    async fn read_lanes(&self) {
        // A closed queue has no lanes to show.
        let lanes = self.queue.status().await.unwrap_or_default();
        *self.lanes.lock().unwrap_or_else(PoisonError::into_inner) = lanes;
    }
}

/// The routes of the admin listener: those of both binaries and `GET /status`. `registry` may have metrics of others.
pub fn router(
    view: View,
    mut registry: Registry,
    readiness: Readiness,
    log_level: LogLevel,
) -> Router {
    registry.register_collector(Box::new(metrics::EdgeCollector::new(view.clone())));
    let status = Router::new().route("/status", get(status)).with_state(view.clone());
    robustmq_common::admin::router(readiness, Arc::new(registry), log_level)
        .layer(from_fn_with_state(view, before_metrics))
        .merge(status)
}

async fn status(Extract(view): Extract<View>) -> Json<Status> {
    Json(view.status().await)
}

async fn before_metrics(Extract(view): Extract<View>, request: Request, next: Next) -> Response {
    if request.uri().path() == "/metrics" {
        view.read_lanes().await;
    }
    next.run(request).await
}
