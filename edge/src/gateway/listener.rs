//! Accepts MQTT connections, over TCP or TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use robustmq_common::limits;
use robustmq_common::mqtt::server::{ConnId, PeerInfo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{self, Shared};

/// Counts since the start. For metrics.
#[derive(Debug, Default)]
pub struct ListenerCounters {
    /// Connections closed at once since `[mqtt] max_connections` was reached.
    pub over_limit: AtomicU64,
    /// TLS handshakes that failed or took too long.
    pub failed_handshakes: AtomicU64,
    /// Bytes of MQTT received.
    pub received_bytes: AtomicU64,
    /// Bytes of MQTT sent.
    pub sent_bytes: AtomicU64,
}

/// What the listener needs besides its socket.
pub(super) struct Listener {
    /// What it hands to each connection.
    pub shared: Shared,
    /// Present: TLS only.
    pub tls: Option<TlsAcceptor>,
    /// Connections at once; one more is closed as soon as it is accepted.
    pub max_connections: usize,
    /// Runs the connections.
    pub tasks: TaskTracker,
}

impl Listener {
    /// Accepts until `shutdown`. Connections go on after that.
    pub(super) async fn run(self, socket: TcpListener, shutdown: CancellationToken) {
        let slots = Arc::new(Semaphore::new(self.max_connections));
        let mut next_id = 0_u64;
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                accepted = socket.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, or a peer that left while it waited: the next may work.
                    tracing::warn!(%error, "cannot accept an MQTT connection");
                    tokio::time::sleep(limits::EDGE_ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                self.shared.counters.over_limit.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%address, "connection refused: [mqtt] max_connections is reached");
                continue;
            };
            next_id += 1;
            let peer = PeerInfo { address: address.to_string().into(), certificate_subject: None };
            self.spawn(stream, ConnId(next_id), peer, slot);
        }
    }

    fn spawn(&self, stream: TcpStream, id: ConnId, peer: PeerInfo, slot: OwnedSemaphorePermit) {
        let shared = self.shared.clone();
        let tls = self.tls.clone();
        let counters = Arc::clone(&shared.counters);
        self.tasks.spawn(async move {
            let _slot = slot;
            // Latency counts more than packing; what is written at once is packed anyway.
            let _ = stream.set_nodelay(true);
            let Some(tls) = tls else {
                return connection::serve(stream, id, peer, shared).await;
            };
            let handshake = tokio::time::timeout(limits::MQTT_CONNECT_TIMEOUT, tls.accept(stream));
            match handshake.await {
                Ok(Ok(stream)) => connection::serve(stream, id, peer, shared).await,
                Ok(Err(error)) => {
                    counters.failed_handshakes.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(peer = %peer.address, %error, "TLS handshake failed");
                }
                Err(_) => {
                    counters.failed_handshakes.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(peer = %peer.address, "TLS handshake took too long");
                }
            }
        });
    }
}
