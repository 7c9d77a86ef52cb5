//! One lane over links and disks that are worse than the defaults expect.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use prometheus_client::registry::Registry;
use robustmq_common::ids::{ChainDigest, CloudGeneration, EdgeSeq, Incarnation, LaneId};
use robustmq_common::sync::{
    Answer, Batch, Hello, LaneState, Outcome, Refusal, SessionId, StoreId,
};
use tokio_util::sync::CancellationToken;

use crate::queue::sim_disk::{Faults, SimDisk};
use crate::queue::{Append, Origin, Queue, QueueSettings, SystemClock};
use crate::uplink::{
    Backlog, Call, DeadLetter, DeadLetters, MemoryBacklog, Transport, TransportError, Uplink,
    UplinkMetrics, UplinkParts, UplinkSettings,
};

const LANE: LaneId = LaneId(0);

/// A cloud that takes whatever comes, behind a link on which a frame of more than `most_bytes` takes too long.
struct SlowLink {
    most_bytes: usize,
    has: Mutex<LaneState>,
}

#[async_trait]
impl Transport for SlowLink {
    async fn call(&self, call: Call, frame: Bytes) -> Result<Bytes, TransportError> {
        if frame.len() > self.most_bytes {
            tokio::time::sleep(Duration::from_secs(30)).await;
            return Err(TransportError::Timeout);
        }
        let mut has = self.has.lock().unwrap();
        let outcome = match call {
            Call::Hello => {
                let hello = Hello::decode(&frame).unwrap();
                if has.acknowledged_through == EdgeSeq(0) {
                    has.digest = hello.lanes[0].digest;
                }
                Outcome::Hello { incarnation: Incarnation(1), lanes: vec![has.clone()] }
            }
            Call::Heartbeat => Outcome::Heartbeat,
            Call::Batch(_) => {
                let batch = Batch::decode(&frame).unwrap();
                let header = batch.header();
                if header.from.0 == has.acknowledged_through.0 + 1 {
                    has.acknowledged_through = EdgeSeq(header.to.0 - 1);
                    has.digest = header.digest_after;
                }
                Outcome::Lane(has.clone())
            }
        };
        Ok(Answer { generation: CloudGeneration(1), outcome }.encode().into())
    }
}

struct NoDeadLetters;

#[async_trait]
impl DeadLetters for NoDeadLetters {
    async fn keep(&self, _letters: Vec<DeadLetter>) -> std::io::Result<()> {
        Ok(())
    }
}

fn nothing() -> LaneState {
    LaneState {
        lane: LANE,
        acknowledged_through: EdgeSeq(0),
        digest: ChainDigest(0),
        open: None,
        rejected: Vec::new(),
    }
}

fn uplink(backlog: Arc<dyn Backlog>, transport: Arc<dyn Transport>) -> Uplink {
    Uplink::new(UplinkParts {
        backlog,
        transport,
        dead_letters: Arc::new(NoDeadLetters),
        settings: UplinkSettings::default(),
        session: SessionId(1),
        jitter: Arc::new(|| 0.5),
        metrics: UplinkMetrics::register(&mut Registry::default()),
    })
}

#[tokio::test(start_paused = true)]
async fn a_link_too_slow_for_whole_batches_gets_smaller_ones() {
    let backlog = Arc::new(MemoryBacklog::new(StoreId(1), 1));
    let mut noise = 1_u64;
    for _ in 0..400 {
        let body: Vec<u8> = (0..1000)
            .map(|_| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                noise.to_be_bytes()[0]
            })
            .collect();
        backlog.append(LANE, body);
    }
    backlog.sync();
    let link = SlowLink { most_bytes: 20_000, has: Mutex::new(nothing()) };
    let uplink = uplink(backlog.clone(), Arc::new(link));
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { uplink.run(stop).await }
    });
    // The clock is paused, so this takes no time.
    tokio::time::timeout(Duration::from_secs(3600), async {
        while !backlog.is_drained() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await
    .expect("everything gets through");
    stop.cancel();
    running.await.unwrap();
}

/// The queue said that the incarnation was durable when its disk was full, so the uplink sent under a number that a power
/// cut made the queue forget. It has to wait, and to ask again.
#[tokio::test(start_paused = true)]
async fn nothing_is_sent_under_an_incarnation_before_it_is_durable() {
    let disk = SimDisk::new(1);
    let settings = QueueSettings { lanes: 1, ..QueueSettings::default() };
    let clock = Arc::new(SystemClock::new());
    let opened = Queue::open_inline(Arc::new(disk.clone()), clock, Path::new("/q"), settings);
    let (queue, _) = opened.unwrap();
    let origin =
        Origin { client_id: Bytes::from_static(b"a"), packet_id: None, qos: 1, retain: false };
    let append = Append { lane: LANE, origin, ttl: None, body: Bytes::from_static(b"body") };
    queue.append(&append).unwrap().await.unwrap();
    let capacity_bytes = Some(disk.used_bytes());
    disk.set_faults(Faults { capacity_bytes, copies_on_write: true, ..Faults::default() });

    let link = Arc::new(SlowLink { most_bytes: usize::MAX, has: Mutex::new(nothing()) });
    let uplink = uplink(Arc::new(queue.clone()), link.clone());
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (uplink, stop) = (uplink.clone(), stop.clone());
        async move { uplink.run(stop).await }
    });
    let eventually = async |done: &dyn Fn() -> bool| {
        // The clock is paused, so this takes no time.
        let waited = tokio::time::timeout(Duration::from_secs(3600), async {
            while !done() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        waited.await.expect("it comes to that");
    };
    let full = || uplink.status().last_error.is_some_and(|error| error.contains("disk is full"));
    eventually(&full).await;
    assert_eq!(queue.incarnation(), None);
    assert_eq!(link.has.lock().unwrap().acknowledged_through, EdgeSeq(0), "nothing was sent");

    disk.set_faults(Faults::default());
    eventually(&|| link.has.lock().unwrap().acknowledged_through == EdgeSeq(1)).await;
    assert_eq!(queue.incarnation(), Some(Incarnation(1)));
    stop.cancel();
    running.await.unwrap();
}

/// A cloud that takes this edge, or says why not.
struct Doorkeeper(Mutex<Door>);

#[derive(Clone, Copy)]
enum Door {
    Open,
    Refuses,
    Unreachable,
}

#[async_trait]
impl Transport for Doorkeeper {
    async fn call(&self, call: Call, _frame: Bytes) -> Result<Bytes, TransportError> {
        let door = *self.0.lock().unwrap();
        let outcome = match (door, call) {
            (Door::Unreachable, _) => return Err(TransportError::Timeout),
            (Door::Refuses, _) => Outcome::Refused(Refusal::Unauthorised),
            (Door::Open, Call::Heartbeat) => Outcome::Heartbeat,
            (Door::Open, _) => {
                Outcome::Hello { incarnation: Incarnation(1), lanes: vec![nothing()] }
            }
        };
        Ok(Answer { generation: CloudGeneration(1), outcome }.encode().into())
    }
}

/// With nothing to send, only heartbeats hear that the cloud began to refuse this edge, and they kept it to themselves: the edge said that
/// it was connected. The other way round it went on saying that the cloud could not be reached, when it answered again and refused.
#[tokio::test(start_paused = true)]
async fn an_idle_edge_says_what_the_cloud_says_of_it() {
    let backlog = Arc::new(MemoryBacklog::new(StoreId(1), 1));
    let door = Arc::new(Doorkeeper(Mutex::new(Door::Open)));
    let uplink = uplink(backlog, door.clone());
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (uplink, stop) = (uplink.clone(), stop.clone());
        async move { uplink.run(stop).await }
    });
    let expected = [
        (Door::Open, true, None),
        (Door::Refuses, false, Some("token")),
        (Door::Unreachable, false, Some("time")),
        (Door::Refuses, false, Some("token")),
        (Door::Open, true, None),
    ];
    for (now, connected, error) in expected {
        *door.0.lock().unwrap() = now;
        // The clock is paused, so this takes no time: some heartbeats go by.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let status = uplink.status();
        assert_eq!(status.connected, connected, "{status:?}");
        match error {
            Some(error) => assert!(status.last_error.is_some_and(|said| said.contains(error))),
            None => assert_eq!(status.last_error, None),
        }
    }
    stop.cancel();
    running.await.unwrap();
}
