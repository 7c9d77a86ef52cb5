use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Readiness, router, run};
use crate::limits;
use crate::net::test_http::request;
use crate::telemetry::{LogSettings, subscriber};

struct Running {
    address: SocketAddr,
    readiness: Readiness,
    shutdown: CancellationToken,
    // The level's handle only reloads while its subscriber lives.
    _subscriber: Box<dyn tracing::Subscriber + Send + Sync>,
}

impl Running {
    async fn start() -> Self {
        let mut registry = Registry::default();
        let produced = Counter::<u64>::default();
        registry.register("produced_records", "Records produced", produced.clone());
        produced.inc_by(3);
        let (subscriber, level) =
            subscriber(&LogSettings::default(), false, std::io::sink).expect("info is a level");
        let readiness = Readiness::default();
        let own = Router::new().route("/edges", get(|| async { "[]" }));
        let router = router(readiness.clone(), Arc::new(registry), level).merge(own);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let shutdown = CancellationToken::new();
        tokio::spawn(run(listener, router, shutdown.clone()));
        Self { address, readiness, shutdown, _subscriber: Box::new(subscriber) }
    }

    async fn ask(&self, line: &str, body: &str) -> (u16, String) {
        request(self.address, line, body).await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn answer(status: u16, body: &str) -> (u16, String) {
    (status, body.to_owned())
}

#[tokio::test]
async fn ready_lists_what_is_waited_for() {
    let admin = Running::start().await;
    let (store, kafka) = (admin.readiness.register("store"), admin.readiness.register("kafka"));
    assert_eq!(admin.ask("GET /live", "").await, answer(200, "live\n"));
    assert_eq!(
        admin.ask("GET /ready", "").await,
        answer(503, "kafka: starting\nstore: starting\n")
    );
    store.ready();
    assert_eq!(admin.ask("GET /ready", "").await, answer(503, "kafka: starting\n"));
    kafka.ready();
    assert_eq!(admin.ask("GET /ready", "").await, answer(200, "ready\n"));
    store.not_ready("the disk is full");
    assert_eq!(admin.ask("GET /ready", "").await, answer(503, "store: the disk is full\n"));
}

#[tokio::test]
async fn metrics_are_openmetrics_text() {
    let admin = Running::start().await;
    let (status, text) = admin.ask("GET /metrics", "").await;
    assert_eq!(status, 200);
    assert!(text.contains("\nproduced_records_total 3\n") && text.ends_with("# EOF\n"), "{text}");
}

#[tokio::test]
async fn the_log_level_can_be_read_and_changed() {
    let admin = Running::start().await;
    assert_eq!(admin.ask("GET /log-level", "").await, answer(200, "info\n"));
    assert_eq!(admin.ask("PUT /log-level", "debug,h2=warn\n").await, answer(204, ""));
    assert_eq!(admin.ask("GET /log-level", "").await, answer(200, "debug,h2=warn\n"));
    let (status, text) = admin.ask("PUT /log-level", "robustmq=loud").await;
    assert_eq!(status, 400);
    assert!(text.contains("robustmq=loud") && text.contains("debug or trace"), "{text}");
    assert_eq!(admin.ask("GET /log-level", "").await, answer(200, "debug,h2=warn\n"));
}

#[tokio::test]
async fn own_routes_are_served_and_large_bodies_refused() {
    let admin = Running::start().await;
    assert_eq!(admin.ask("GET /edges", "").await, answer(200, "[]"));
    let nothing = answer(404, "there is nothing at /nothing\n");
    assert_eq!(admin.ask("GET /nothing?a=b", "").await, nothing);
    let body = "x".repeat(limits::ADMIN_BODY_BYTES + 1);
    assert_eq!(admin.ask("PUT /log-level", &body).await.0, 413);
}
