//! The composition root: drives the MQTT server core, its connections, the queue, the state and the uplink.
//!
//! ```text
//! listener -> connection (one task each) -> hub (one task, owns mqtt::server) -> queue, state
//!                         ^-- outbox --------'
//! ```
//!
//! A PUBLISH with QoS 1: `connection` decodes it, `hub` gives it to the core, the core asks for it to be stored, the queue
//! answers when it is synced, the core sends PUBACK, `connection` writes it.
//!
//! **Invariant:** this is the only place of the edge that names concrete parts; the others know each other by what they take.
//! **Invariant:** nothing listens before the state reflects every record of the queue.

mod clock;
mod connection;
mod hub;
mod listener;
mod lock;
mod outbox;
mod policy;
mod record;
mod replay;
mod route;
mod rows;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use robustmq_common::admin::Readiness;
use robustmq_common::limits;
use robustmq_common::mqtt::server::{Server, ServerSettings};
use robustmq_common::net::{self, Exposure, StartError};
use robustmq_common::telemetry::LogLevel;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::clock::ServerClock;
use self::connection::{Input, Shared};
use self::hub::{Hub, Parts};
use self::listener::Listener;
use self::lock::DataDirLock;
use self::policy::EdgePolicy;
use self::route::Routes;
use crate::admin;
use crate::queue::{Queue, SystemClock};
use crate::settings::Settings;
use crate::state::{ChangeSet, Positions, Progress, State, StateFile};

pub use self::hub::{Figures, HubError};
pub use self::listener::ListenerCounters;

/// A running gateway.
pub struct Gateway {
    mqtt_address: SocketAddr,
    admin_address: SocketAddr,
    hub: JoinHandle<Result<State, HubError>>,
    queue: Queue,
    connections: TaskTracker,
    background: TaskTracker,
    /// Ends the hub and the listener.
    stop_serving: CancellationToken,
    /// Ends the uplink and the admin listener, afterwards.
    stop_background: CancellationToken,
    _lock: DataDirLock,
}

impl Gateway {
    /// Opens everything, brings the state up to date, and listens.
    ///
    /// # Errors
    /// [`StartError`] says what is in the way: the directory, a port, a file, a setting.
    pub async fn start(settings: &Settings, log_level: LogLevel) -> Result<Self, StartError> {
        let edge_id = settings.resolve_edge_id()?;
        let tls = mqtt_tls(settings)?;
        let lock = DataDirLock::acquire(&settings.data_dir)?;
        let upstream = settings.uplink.url.is_some();
        if !upstream {
            tracing::warn!(
                "[uplink] url is not set: messages stay on this gateway, nothing is queued"
            );
        }
        let routes = Arc::new(Routes::new(&settings.routes, upstream).map_err(|error| {
            StartError::Refused { key: "[[route]] filter".to_owned(), reason: error.to_string() }
        })?);
        let queue = open_queue(settings)?;
        let restored = restore(settings, &queue, &routes).await?;

        let readiness = Readiness::default();
        let mqtt_ready = readiness.register("mqtt");
        let queue_ready = readiness.register("queue");
        queue_ready.ready();
        let exposure = Exposure { authenticated: false, insecure: settings.insecure };
        let mqtt = net::bind("[mqtt] listen", settings.mqtt.listen, exposure).await?;
        let admin = net::bind("[admin] listen", settings.admin.listen, exposure).await?;
        let mqtt_address = local_address(&mqtt)?;
        let admin_address = local_address(&admin)?;

        let (figures, latest_figures) = watch::channel(Figures::default());
        let (input, inputs) = mpsc::channel(limits::EDGE_HUB_INPUTS);
        let stop_serving = CancellationToken::new();
        let stop_background = CancellationToken::new();
        let connections = TaskTracker::new();
        let background = TaskTracker::new();
        let counters = Arc::new(ListenerCounters::default());
        let listener = Listener {
            shared: shared(settings, input),
            tls,
            max_connections: settings.mqtt.max_connections,
            tasks: connections.clone(),
            counters: Arc::clone(&counters),
        };
        let view = admin::View::new(
            edge_id,
            latest_figures,
            counters,
            queue.clone(),
            restored.state.progress(),
            None,
        );
        let hub = Hub::new(Parts {
            server: restored.server,
            clock: restored.clock,
            queue: queue.clone(),
            state: restored.state,
            routes,
            checkpoint_bytes: settings.queue.segment_bytes.min(settings.queue.max_bytes / 8),
            positions: restored.positions,
            figures,
            queue_ready,
        });
        let hub = tokio::spawn(hub.run(inputs, stop_serving.clone()));
        background.spawn(listener.run(mqtt, stop_serving.clone()));
        let router = admin::router(view, readiness, log_level);
        background.spawn(robustmq_common::admin::run(admin, router, stop_background.clone()));
        mqtt_ready.ready();
        Ok(Self {
            mqtt_address,
            admin_address,
            hub,
            queue,
            connections,
            background,
            stop_serving,
            stop_background,
            _lock: lock,
        })
    }

    /// Where MQTT is served.
    #[must_use]
    pub fn mqtt_address(&self) -> SocketAddr {
        self.mqtt_address
    }

    /// Where status and metrics are served.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Serves until `shutdown`, then stops: says good-bye to the clients, and makes durable what was taken.
    ///
    /// # Errors
    /// What went wrong, in words: the hub could not go on, or the last changes could not be written.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), String> {
        let ended = tokio::select! {
            ended = &mut self.hub => ended,
            () = shutdown.cancelled() => {
                self.stop_serving.cancel();
                (&mut self.hub).await
            }
        };
        self.stop_serving.cancel();
        self.connections.close();
        if tokio::time::timeout(limits::EDGE_DRAIN, self.connections.wait()).await.is_err() {
            tracing::warn!("connections were still open when the drain ended");
        }
        self.stop_background.cancel();
        self.background.close();
        if tokio::time::timeout(limits::EDGE_DRAIN, self.background.wait()).await.is_err() {
            tracing::warn!("background work was still going on when the drain ended");
        }
        self.queue.close().await;
        let state = ended.map_err(|error| format!("the hub failed: {error}"))?;
        let state = state.map_err(|error| error.to_string())?;
        let closed = tokio::task::spawn_blocking(move || state.close()).await;
        closed.map_err(|error| format!("the state could not be closed: {error}"))?
    }
}

fn mqtt_tls(settings: &Settings) -> Result<Option<TlsAcceptor>, StartError> {
    match (&settings.mqtt.tls_cert, &settings.mqtt.tls_key) {
        (Some(certificate), Some(key)) => {
            Ok(Some(TlsAcceptor::from(net::server_tls(certificate, key, &[])?)))
        }
        _ => Ok(None),
    }
}

fn shared(settings: &Settings, input: mpsc::Sender<Input>) -> Shared {
    Shared {
        input,
        budget: Arc::new(Semaphore::new(limits::EDGE_LARGE_PACKETS_BYTES / 1024)),
        max_packet_bytes: settings.mqtt.max_packet_bytes,
    }
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener
        .local_addr()
        .map_err(|error| StartError::Failed(format!("a listener has no address: {error}")))
}

fn failed(error: impl std::fmt::Display) -> StartError {
    StartError::Failed(error.to_string())
}

fn open_queue(settings: &Settings) -> Result<Queue, StartError> {
    let (queue, recovered) =
        Queue::open(&settings.queue_dir(), settings.queue_settings()).map_err(failed)?;
    for lane in &recovered.lanes {
        if lane.truncated_bytes > 0 {
            tracing::warn!(
                lane = lane.lane.0,
                bytes = lane.truncated_bytes,
                "an interrupted append was cut off; nobody was told that it was taken"
            );
        }
    }
    for damage in &recovered.damage {
        tracing::error!(
            lane = damage.lane.0,
            segment = damage.segment,
            at_byte = damage.at_byte,
            from = damage.from.0,
            to = damage.to.0,
            "queue records cannot be read back"
        );
    }
    for note in &recovered.notes {
        tracing::warn!(note, "queue");
    }
    Ok(queue)
}

struct Restored {
    server: Server,
    clock: ServerClock<SystemClock>,
    state: State,
    positions: Positions,
}

async fn restore(
    settings: &Settings,
    queue: &Queue,
    routes: &Arc<Routes>,
) -> Result<Restored, StartError> {
    let file = StateFile::open(&settings.state_file()).map_err(failed)?;
    let clock = ServerClock::resume(SystemClock::new(), file.clock().map_err(failed)?);
    let server_settings = ServerSettings {
        max_packet_bytes: settings.mqtt.max_packet_bytes,
        ..ServerSettings::default()
    };
    let policy = EdgePolicy { routes: Arc::clone(routes) };
    let mut server = Server::new(server_settings, Arc::new(policy));
    let replayed = replay::restore(&mut server, &file, queue, &clock).map_err(failed)?;
    tracing::info!(
        rows = replayed.rows,
        bad_rows = replayed.bad_rows,
        records = replayed.records,
        bad_records = replayed.bad_records,
        "state restored"
    );
    let state = file.start().map_err(failed)?;
    if replayed.continues {
        for (lane, sequence) in &replayed.saved {
            queue.reflected(*lane, *sequence);
        }
    } else {
        adopt_queue(&state, queue, &replayed.positions).await?;
    }
    Ok(Restored { server, clock, state, positions: replayed.positions })
}

/// Nothing was replayed, so the state is up to date with this queue as it is: says so, durably.
async fn adopt_queue(state: &State, queue: &Queue, ends: &Positions) -> Result<(), StartError> {
    let ticket = state.submit(ChangeSet {
        reflects: ends.iter().map(|(lane, end)| (*lane, *end)).collect(),
        queue_store: Some(replay::store_mark(queue)),
        ..ChangeSet::default()
    });
    let mut progress = state.progress();
    let done = |progress: &Progress| {
        progress.committed >= ticket || progress.failing.is_some() || progress.closed
    };
    let reached = progress.wait_for(done).await.map_err(failed)?.clone();
    if reached.committed < ticket {
        let reason = reached.failing.unwrap_or_else(|| "its writer has ended".to_owned());
        return Err(failed(format!("the state cannot be written: {reason}")));
    }
    for (lane, end) in ends {
        queue.reflected(*lane, *end);
    }
    Ok(())
}
