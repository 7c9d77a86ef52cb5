//! A gateway to test against, in this process, on free ports.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use robustmq_common::telemetry::{self, LogSettings};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin::{Status, fetch};
use crate::gateway::Gateway;
use crate::settings::Settings;

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A running gateway whose data directory outlives it.
pub(super) struct Bench {
    pub settings: Settings,
    directory: TempDir,
    running: Option<Running>,
}

struct Running {
    mqtt: SocketAddr,
    admin: SocketAddr,
    shutdown: CancellationToken,
    ended: JoinHandle<Result<(), String>>,
}

impl Bench {
    /// Starts one whose records go to the queue; the cloud never answers.
    pub(super) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(super) async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = Settings { edge_id: "bench".to_owned(), ..Settings::default() };
        settings.data_dir = directory.path().join("data");
        settings.mqtt.listen = "127.0.0.1:0".parse().unwrap();
        settings.admin.listen = "127.0.0.1:0".parse().unwrap();
        settings.uplink.url = Some("http://127.0.0.1:1".to_owned());
        change(&mut settings);
        let mut bench = Self { settings, directory, running: None };
        bench.go().await;
        bench
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts again over the same data.
    pub(super) async fn go(&mut self) {
        let unused_log = telemetry::subscriber(&LogSettings::default(), false, std::io::sink);
        let (_, log_level) = unused_log.unwrap();
        let gateway = Gateway::start(&self.settings, log_level).await.unwrap();
        let shutdown = CancellationToken::new();
        self.running = Some(Running {
            mqtt: gateway.mqtt_address(),
            admin: gateway.admin_address(),
            shutdown: shutdown.clone(),
            ended: tokio::spawn(gateway.run(shutdown)),
        });
    }

    /// As SIGTERM does.
    pub(super) async fn stop(&mut self) {
        let running = self.running.take().unwrap();
        running.shutdown.cancel();
        tokio::time::timeout(PATIENCE, running.ended).await.unwrap().unwrap().unwrap();
    }

    pub(super) async fn restart(&mut self) {
        self.stop().await;
        self.go().await;
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub(super) fn mqtt(&self) -> SocketAddr {
        self.running().mqtt
    }

    pub(super) fn admin(&self) -> String {
        format!("http://{}", self.running().admin)
    }

    pub(super) async fn status(&self) -> Status {
        fetch(&self.admin()).await.unwrap()
    }

    pub(super) async fn metrics(&self) -> String {
        let answer = reqwest::get(format!("{}/metrics", self.admin())).await.unwrap();
        answer.text().await.unwrap()
    }

    /// Waits until the status is as `wanted` says.
    pub(super) async fn eventually(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        let started = std::time::Instant::now();
        loop {
            let status = self.status().await;
            if wanted(&status) {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "waited in vain for: {what}; {status:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
