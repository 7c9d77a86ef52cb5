//! Accepts connections, within their limit, until told to stop; then lets them finish what they have begun.

use std::sync::Arc;
use std::time::Duration;

use robustmq_common::limits;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::{Kafka, connection};

/// Keeps a failing `accept` from spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves Kafka clients until `shutdown`, then drains for at most [`limits::KAFKA_DRAIN`].
pub async fn serve(listener: TcpListener, kafka: Arc<Kafka>, shutdown: CancellationToken) {
    let slots = Arc::new(Semaphore::new(kafka.settings.connections));
    let connections = TaskTracker::new();
    // Cut off when the drain is over.
    let abort = CancellationToken::new();
    loop {
        let slot = tokio::select! {
            () = shutdown.cancelled() => break,
            slot = slots.clone().acquire_owned() => slot,
        };
        let Ok(slot) = slot else { break };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a Kafka connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let (kafka, shutdown, abort) = (kafka.clone(), shutdown.clone(), abort.clone());
        let span = tracing::debug_span!("kafka", %peer);
        let serve = async move {
            let _slot = slot;
            let _open = kafka.metrics.kafka_connection_opened();
            tokio::select! {
                () = connection::serve(kafka.clone(), stream, peer, shutdown) => {}
                () = abort.cancelled() => {}
            }
        };
        connections.spawn(serve.instrument(span));
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(limits::KAFKA_DRAIN, connections.wait()).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "Kafka connections cut off after the drain"
        );
        abort.cancel();
    }
}
