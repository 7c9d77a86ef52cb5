//! A real uplink against a real ingest with nothing but function calls between them, so that a test can decide what gets lost.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use robustmq_cloud::uplink::{Ingest, Rights};
use robustmq_common::ids::{EdgeId, LaneId};
use robustmq_common::sync::{EdgeRecord, RecordKey, SessionId};
use robustmq_edge::uplink::{
    Call, DeadLetter, DeadLetters, MemoryBacklog, Transport, TransportError, Uplink, UplinkMetrics,
    UplinkParts, UplinkSettings,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cloud::{Cloud, Logged};

pub const LANE: LaneId = LaneId(0);

/// The way between edge and cloud.
pub struct Link {
    ingest: Mutex<Ingest>,
    /// So many answers to batches get lost: the cloud does the work, the edge does not hear of it.
    pub lose_answers: AtomicU32,
    /// A captive portal answers everything.
    pub portal: AtomicBool,
}

impl Link {
    pub fn to(cloud: &Cloud) -> Arc<Self> {
        Arc::new(Self {
            ingest: Mutex::new(cloud.start()),
            lose_answers: AtomicU32::new(0),
            portal: AtomicBool::new(false),
        })
    }

    /// The cloud starts again on what its store holds now.
    pub fn restart(&self, cloud: &Cloud) {
        *self.ingest.lock().expect("not poisoned") = cloud.start();
    }

    pub fn ingest(&self) -> Ingest {
        self.ingest.lock().expect("not poisoned").clone()
    }
}

pub fn gateway() -> EdgeId {
    EdgeId::new("gw").expect("a legal name")
}

#[async_trait]
impl Transport for Link {
    async fn call(&self, call: Call, frame: Bytes) -> Result<Bytes, TransportError> {
        // A little time has to pass, or the two sides would exchange messages for ever at one moment.
        tokio::time::sleep(Duration::from_millis(5)).await;
        if self.portal.load(Ordering::Relaxed) {
            return Ok(Bytes::from_static(b"<html>Welcome! Please accept our terms.</html>"));
        }
        let ingest = self.ingest();
        let answer = match call {
            Call::Hello => ingest.hello(&gateway(), &frame).await,
            Call::Heartbeat => ingest.heartbeat(&gateway(), &frame).await,
            Call::Batch(lane) => {
                let answer = ingest.batch(&gateway(), &Rights::all(), lane, &frame).await;
                let lose = |left: u32| left.checked_sub(1);
                let lost =
                    self.lose_answers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lose);
                if lost.is_ok() {
                    return Err(TransportError::Timeout);
                }
                answer
            }
        };
        Ok(answer.encode().into())
    }
}

#[derive(Default)]
pub struct DeadLetterList(pub Mutex<Vec<DeadLetter>>);

#[async_trait]
impl DeadLetters for DeadLetterList {
    async fn keep(&self, letters: Vec<DeadLetter>) -> std::io::Result<()> {
        self.0.lock().expect("not poisoned").extend(letters);
        Ok(())
    }
}

/// A gateway that runs.
pub struct Gateway {
    pub backlog: Arc<MemoryBacklog>,
    pub uplink: Uplink,
    pub dead: Arc<DeadLetterList>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Gateway {
    pub fn start(backlog: Arc<MemoryBacklog>, link: &Arc<Link>, session: u128) -> Self {
        let dead = Arc::new(DeadLetterList::default());
        let settings = UplinkSettings { batch_records: 10, ..UplinkSettings::default() };
        let uplink = Uplink::new(UplinkParts {
            backlog: backlog.clone(),
            transport: link.clone(),
            dead_letters: dead.clone(),
            settings,
            session: SessionId(session),
            jitter: Arc::new(|| 0.5),
            metrics: UplinkMetrics::default(),
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let (uplink, stop) = (uplink.clone(), stop.clone());
            async move { uplink.run(stop).await }
        });
        Self { backlog, uplink, dead, stop, task }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("ends without a panic");
    }

    pub async fn drained(&self) {
        eventually("the queue is drained", || self.backlog.is_drained()).await;
    }
}

pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not in 100 simulated seconds: {what}");
}

pub fn record(payload: &str) -> EdgeRecord<'_> {
    EdgeRecord {
        mqtt_topic: "plant/temp",
        client_id: "sensor",
        qos: 1,
        retain: false,
        payload_utf8: false,
        expiry_seconds: None,
        kafka_topic: None,
        key: RecordKey::None,
        content_type: None,
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
        payload: payload.as_bytes(),
    }
}

pub fn body(record: &EdgeRecord<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    record.encode(&mut body).expect("fits");
    body
}

/// Appends records with these payloads and makes them durable.
pub fn publish(backlog: &MemoryBacklog, payloads: impl IntoIterator<Item = String>) {
    for payload in payloads {
        backlog.append(LANE, body(&record(&payload)));
    }
    backlog.sync();
}

/// `prefix1`, `prefix2`, ... in a range.
pub fn numbered(prefix: &str, range: std::ops::RangeInclusive<u32>) -> Vec<String> {
    range.map(|number| format!("{prefix}{number}")).collect()
}

/// Every record in the cloud's log.
pub async fn all_logged(cloud: &Cloud) -> Vec<Logged> {
    let mut logged: Vec<Logged> = cloud.logged().await.into_values().flatten().collect();
    logged.sort_by_key(|record| (record.incarnation, record.lane, record.seq));
    logged
}

/// The payloads in the cloud's log, by incarnation and sequence.
pub async fn payloads(cloud: &Cloud) -> Vec<String> {
    let logged = all_logged(cloud).await;
    logged.iter().map(|record| String::from_utf8_lossy(&record.payload).into_owned()).collect()
}
