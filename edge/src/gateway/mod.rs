//! The composition root: drives the MQTT server core, its connections, the queue, the state and the uplink.
//!
//! ```text
//! listener -> connection (one task each) -> hub (one task, owns mqtt::server) -> queue -> uplink
//!                         ^-- outbox --------'                             `-> state
//! ```
//!
//! A PUBLISH with QoS 1: `connection` decodes it, `hub` gives it to the core, the core asks for it to be stored, the queue
//! answers when it is synced, the core sends PUBACK, `connection` writes it.
//!
//! **Invariant:** this is the only place of the edge that names concrete parts; the others know each other by what they take.
//! **Invariant:** nothing listens before the state reflects every record of the queue.

mod budget;
mod clock;
mod connection;
mod hub;
mod listener;
mod lock;
mod open;
mod outbox;
mod policy;
mod prepare;
mod record;
mod replay;
mod route;
mod rows;
mod sys;
mod upstream;
mod users;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use robustmq_common::admin::{Component, Readiness};
use robustmq_common::limits;
use robustmq_common::net::{self, Exposure, StartError};
use robustmq_common::telemetry::LogLevel;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::budget::Budget;
use self::connection::{Input, Shared};
use self::hub::{Hub, Parts};
use self::listener::Listener;
use self::lock::DataDirLock;
use self::open::Restored;
use self::prepare::Prepared;
use self::route::Routes;
use self::sys::SysTopics;
use self::upstream::Upstream;
use self::users::Users;
use crate::admin;
use crate::queue::Queue;
use crate::settings::Settings;
use crate::state::State;

pub use self::hub::{Figures, HubError};
pub use self::listener::ListenerCounters;
pub use self::prepare::check;
pub use self::users::users_line;

/// A running gateway.
pub struct Gateway {
    mqtt_address: SocketAddr,
    admin_address: SocketAddr,
    hub: JoinHandle<Result<State, HubError>>,
    queue: Queue,
    /// Connections of devices.
    connections: TaskTracker,
    /// Listener, uplink and admin listener.
    background: TaskTracker,
    stop: Stop,
    _lock: DataDirLock,
}

/// What ends what, in this order.
#[derive(Clone, Default)]
struct Stop {
    /// The listener and the hub, which says good-bye to the connections.
    serving: CancellationToken,
    /// The uplink and the admin listener.
    background: CancellationToken,
}

impl Gateway {
    /// Opens everything, brings the state up to date, and listens.
    ///
    /// # Errors
    /// [`StartError`] says what is in the way: the directory, a port, a file, a setting.
    pub async fn start(settings: &Settings, log_level: LogLevel) -> Result<Self, StartError> {
        let Prepared { edge_id, tls, users, routes } = Prepared::of(settings)?;
        let lock = DataDirLock::acquire(&settings.data_dir)?;
        let queue = open::queue(settings)?;
        let transport = upstream::transport(settings, &edge_id, queue.lanes())?;
        if transport.is_none() {
            tracing::warn!(
                "[uplink] url is not set: messages stay on this gateway, nothing is queued"
            );
        }
        let restored = open::state(settings, &queue, &routes, users.clone()).await?;
        let mut registry = Registry::default();
        let upstream =
            transport.map(|transport| Upstream::new(settings, transport, &queue, &mut registry));
        let known = settings.mqtt_exposure();
        let mqtt = net::bind("[mqtt] listen", settings.mqtt.listen, known).await?;
        let anybody = Exposure { authenticated: false, insecure: settings.insecure };
        let admin = net::bind("[admin] listen", settings.admin.listen, anybody).await?;
        let mqtt_address = local_address(&mqtt)?;
        let admin_address = local_address(&admin)?;

        let readiness = Readiness::default();
        let queue_ready = readiness.register("queue");
        queue_ready.ready();
        let (figures, latest_figures) = watch::channel(Figures::default());
        let counters = Arc::new(ListenerCounters::default());
        let view = admin::View::new(
            edge_id,
            latest_figures,
            Arc::clone(&counters),
            queue.clone(),
            restored.state.progress(),
            upstream.as_ref().map(|upstream| upstream.view(settings)),
        );
        let (input, inputs) = mpsc::channel(limits::EDGE_HUB_INPUTS);
        let (connections, background, stop) = Default::default();
        let listener = Listener {
            shared: shared(settings, input, users, &counters),
            tls,
            max_connections: settings.mqtt.max_connections,
            tasks: TaskTracker::clone(&connections),
        };
        let sys = SysTopics::new(settings.mqtt.sys_interval_s, counters);
        let hub = hub(settings, restored, queue.clone(), routes, figures, sys, queue_ready);
        let gateway = Self {
            mqtt_address,
            admin_address,
            hub: tokio::spawn(hub.run(inputs, Stop::clone(&stop).serving)),
            queue,
            connections,
            background,
            stop,
            _lock: lock,
        };
        gateway.spawn(listener.run(mqtt, gateway.stop.serving.clone()));
        let router = admin::router(view, registry, readiness, log_level);
        let stop = gateway.stop.background.clone();
        gateway.spawn(robustmq_common::admin::run(admin, router, stop.clone()));
        if let Some(Upstream { uplink, .. }) = upstream {
            gateway.spawn(async move { uplink.run(stop).await });
        }
        Ok(gateway)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.background.spawn(task);
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
                self.stop.serving.cancel();
                (&mut self.hub).await
            }
        };
        self.stop.serving.cancel();
        self.connections.close();
        if tokio::time::timeout(limits::EDGE_DRAIN, self.connections.wait()).await.is_err() {
            tracing::warn!("connections were still open when the drain ended");
        }
        self.stop.background.cancel();
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

fn hub(
    settings: &Settings,
    restored: Restored,
    queue: Queue,
    routes: Arc<Routes>,
    figures: watch::Sender<Figures>,
    sys: SysTopics,
    queue_ready: Component,
) -> Hub {
    let Restored { server, clock, state, positions } = restored;
    // The queue gives space back by whole segments; half of one is soon enough.
    let checkpoint_bytes = settings.queue.segment_bytes.min(settings.queue.max_bytes / 8) / 2;
    Hub::new(Parts {
        server,
        clock,
        queue,
        state,
        routes,
        checkpoint_bytes,
        positions,
        figures,
        sys,
        queue_ready,
    })
}

fn shared(
    settings: &Settings,
    input: mpsc::Sender<Input>,
    users: Option<Arc<Users>>,
    counters: &Arc<ListenerCounters>,
) -> Shared {
    Shared {
        input,
        budget: Budget::new(limits::EDGE_LARGE_PACKETS_BYTES),
        max_packet_bytes: settings.mqtt.max_packet_bytes,
        users,
        counters: Arc::clone(counters),
    }
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener
        .local_addr()
        .map_err(|error| StartError::Failed(format!("a listener has no address: {error}")))
}
