//! A broker that keeps everything in memory and loses it when it ends: for trying clients out without building RocksDB.
//!
//! ```text
//! cargo run -p robustmq-cloud --example memory_broker --no-default-features -- 127.0.0.1:9092
//! ```

use std::sync::Arc;

use robustmq_cloud::broker;
use robustmq_cloud::settings::Settings;
use robustmq_cloud::store::MemoryStore;
use robustmq_common::net::{announce_ready, shutdown_on_signals};
use robustmq_common::telemetry::{self, LogSettings};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut settings = Settings::default();
    if let Some(listen) = std::env::args().nth(1) {
        settings.kafka.listen = listen.parse()?;
    }
    settings.uplink.listen.set_port(0);
    settings.admin.listen.set_port(0);
    let level = std::env::var("ROBUSTMQ_LOG__LEVEL").unwrap_or_else(|_| "info".to_owned());
    let log_level = telemetry::init(&LogSettings { level, ..LogSettings::default() })?;
    let shutdown = shutdown_on_signals()?;
    let store = Arc::new(MemoryStore::new());
    let broker = broker::start(&settings, store, log_level, shutdown.clone()).await?;
    announce_ready(&[("kafka", broker.kafka), ("uplink", broker.uplink), ("admin", broker.admin)]);
    shutdown.cancelled().await;
    broker.stopped().await?;
    Ok(())
}
