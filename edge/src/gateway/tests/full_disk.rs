//! A disk that has no space left for sessions.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use robustmq_common::admin::Readiness;
use robustmq_common::limits;
use robustmq_common::mqtt::packet::{ProtocolVersion, QoS, ReasonCode};
use robustmq_common::mqtt::server::{ConnId, PeerInfo, Server, ServerSettings};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::bench::PATIENCE;
use super::client::{Client, clean, kept, publish};
use crate::gateway::budget::Budget;
use crate::gateway::clock::ServerClock;
use crate::gateway::connection::{self, Shared};
use crate::gateway::hub::{Figures, Hub, HubError, Parts};
use crate::gateway::policy::EdgePolicy;
use crate::gateway::route::Routes;
use crate::gateway::sys::SysTopics;
use crate::queue::sim_disk::SimDisk;
use crate::queue::{Queue, QueueSettings, SystemClock};
use crate::state::tests::{Disk, open_on};
use crate::state::{Progress, SavedClock, State};

/// A hub whose state lies on a disk that can be full.
struct Bench {
    disk: Arc<Disk>,
    progress: watch::Receiver<Progress>,
    shared: Shared,
    next_id: u64,
    stop: CancellationToken,
    ended: JoinHandle<Result<State, HubError>>,
}

impl Bench {
    fn start() -> Self {
        let disk = Arc::<Disk>::default();
        let state = open_on(&disk).start().unwrap();
        let clock = Arc::new(SystemClock::new());
        let settings = QueueSettings::default();
        let queue = Queue::open_on(Arc::new(SimDisk::new(1)), clock, Path::new("/q"), settings);
        let routes = Arc::new(Routes::new(&[], false).unwrap());
        let policy = EdgePolicy { routes: Arc::clone(&routes), users: None };
        let progress = state.progress();
        let hub = Hub::new(Parts {
            server: Server::new(ServerSettings::default(), Arc::new(policy)),
            clock: ServerClock::resume(SystemClock::new(), SavedClock::default()),
            queue: queue.unwrap().0,
            state,
            routes,
            checkpoint_bytes: 1024,
            positions: Default::default(),
            figures: watch::Sender::new(Figures::default()),
            sys: SysTopics::new(limits::EDGE_SYS_INTERVAL_SECONDS, Arc::default()),
            queue_ready: Readiness::default().register("queue"),
        });
        let (input, inputs) = mpsc::channel(64);
        let shared = Shared {
            input,
            budget: Budget::new(limits::EDGE_LARGE_PACKETS_BYTES),
            max_packet_bytes: limits::MQTT_PACKET_BYTES,
            users: None,
            counters: Arc::default(),
        };
        let stop = CancellationToken::new();
        let ended = tokio::spawn(hub.run(inputs, stop.clone()));
        Self { disk, progress, shared, next_id: 0, stop, ended }
    }

    fn open(&mut self, version: ProtocolVersion) -> Client {
        self.next_id += 1;
        let (client, stream) = tokio::io::duplex(64 * 1024);
        let (id, peer) = (ConnId(self.next_id), PeerInfo::default());
        tokio::spawn(connection::serve(stream, id, peer, self.shared.clone()));
        Client::over(client, version)
    }

    async fn space_returns(&mut self) {
        self.disk.full.store(false, Ordering::SeqCst);
        let good = self.progress.wait_for(|progress| progress.failing.is_none());
        tokio::time::timeout(PATIENCE, good).await.unwrap().unwrap();
    }
}

/// The CONNECT of a kept session got no answer until there was space again, however long that took.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_session_is_refused_clearly_while_all_else_goes_on() {
    let mut bench = Bench::start();
    let mut before = bench.open(ProtocolVersion::V5);
    assert_eq!(before.introduce(clean("before", ProtocolVersion::V5)).await.reason, OK);
    bench.disk.full.store(true, Ordering::SeqCst);
    for version in [ProtocolVersion::V5, ProtocolVersion::V311] {
        for attempt in 0..3 {
            let mut client = bench.open(version);
            let answer = client.introduce(kept(&format!("{version:?}"), version)).await;
            assert_eq!(answer.reason, ReasonCode::ServerUnavailable, "{version:?} {attempt}");
            client.expect_closed().await;
        }
    }
    let mut other = bench.open(ProtocolVersion::V311);
    assert_eq!(other.introduce(clean("other", ProtocolVersion::V311)).await.reason, OK);
    before.subscribe("#", QoS::AtLeastOnce).await;
    other.publish(publish("a", "still served", QoS::AtLeastOnce, 1)).await;
    assert_eq!(before.take(1).await, ["still served"]);

    bench.space_returns().await;
    for version in [ProtocolVersion::V5, ProtocolVersion::V311] {
        // The hub may hear of the space a moment after the test does.
        let answer = async {
            loop {
                let mut client = bench.open(version);
                let answer = client.introduce(kept(&format!("{version:?}"), version)).await;
                if answer.reason == OK {
                    return answer;
                }
            }
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap();
        assert!(!answer.session_present, "nothing is left of the attempts");
    }
    bench.stop.cancel();
    let ended = tokio::time::timeout(PATIENCE, bench.ended).await.unwrap().unwrap();
    ended.unwrap().close().unwrap();
}

const OK: ReasonCode = ReasonCode::Success;
