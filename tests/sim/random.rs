//! Crashes of edge and cloud, partitions, delays, lost messages and new partitions at random, from fixed seeds. At the end, everything that the
//! queue called synced is in the cloud's log exactly once and in order. With a queue that is too small and drops its oldest records, all that was not
//! dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use robustmq_cloud::uplink::{Ingest, Rights};
use robustmq_common::ids::{EdgeId, LaneId};
use robustmq_common::limits::SYNC_FRAME_BYTES;
use robustmq_common::sync::{EdgeRecord, RecordKey, SessionId};
use robustmq_common::telemetry::LogSettings;
use robustmq_edge::queue::sim_disk::{Faults, SimDisk};
use robustmq_edge::queue::{Append, BootId, Clock, FullPolicy, Now, Origin, Queue, QueueSettings};
use robustmq_edge::uplink::{
    Call, DeadLetter, DeadLetters, Transport, TransportError, Uplink, UplinkMetrics, UplinkParts,
    UplinkSettings,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use turmoil::Sim;
use turmoil::net::{TcpListener, TcpStream};

use crate::cloud::Cloud;

const LANES: u8 = 2;
const PORT: u16 = 9440;
/// Room for records on a small disk: it is full after a few seconds without a cloud.
const SMALL_DISK_BYTES: u64 = 24_000;
/// How long faults go on, in simulated time.
const TROUBLE: Duration = Duration::from_secs(20);
/// How long the two sides then have to come to an end.
const RECOVERY: Duration = Duration::from_secs(600);

#[test]
fn random_crashes_lose_nothing_repeat_nothing_and_keep_order() {
    let tally = simulate_all(FullPolicy::Reject);
    println!("{tally:?}");
    assert!(tally.records > 0 && tally.cloud_crashes + tally.edge_crashes > 0, "nothing happened");
    assert_eq!(tally.dropped, 0);
}

#[test]
fn random_crashes_with_a_queue_that_drops_its_oldest_records_repeat_nothing() {
    let tally = simulate_all(FullPolicy::DropOldest);
    println!("{tally:?}");
    assert!(tally.dropped > 0 && tally.records > tally.dropped, "nothing happened");
    assert!(tally.new_incarnations > 0, "no lane was dropped behind the cloud's position");
}

/// All seeds.
fn simulate_all(policy: FullPolicy) -> Tally {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(100),
    };
    let mut tally = Tally::default();
    for seed in seeds {
        tally.add(&simulate(seed, policy));
    }
    tally
}

#[test]
fn the_same_seed_takes_the_same_course() {
    for policy in [FullPolicy::Reject, FullPolicy::DropOldest] {
        assert_eq!(simulate(3, policy), simulate(3, policy));
    }
}

/// What happened, for a person and for comparing two runs.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Tally {
    records: u64,
    rejected: u64,
    expired: u64,
    dropped: u64,
    new_incarnations: u64,
    cloud_crashes: u64,
    edge_crashes: u64,
    partitions: u64,
    deduplicated: u64,
    simulated_ms: u128,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.rejected += other.rejected;
        self.expired += other.expired;
        self.dropped += other.dropped;
        self.new_incarnations += other.new_incarnations;
        self.cloud_crashes += other.cloud_crashes;
        self.edge_crashes += other.edge_crashes;
        self.partitions += other.partitions;
        self.deduplicated += other.deduplicated;
        self.simulated_ms += other.simulated_ms;
    }
}

/// What the queue promised.
#[derive(Debug, Clone)]
struct Promised {
    payload: Vec<u8>,
    /// It may be skipped as expired.
    mortal: bool,
    /// The cloud can never take it.
    illegal: bool,
}

#[derive(Default)]
struct Ledger {
    synced: BTreeMap<(u8, u64), Promised>,
    dead: BTreeSet<(u8, u64)>,
    next_payload: u64,
    fixed_bytes: Option<u64>,
    quiet: bool,
    drained: bool,
}

type SharedLedger = Arc<Mutex<Ledger>>;

fn lock(ledger: &SharedLedger) -> std::sync::MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

fn simulate(seed: u64, policy: FullPolicy) -> Tally {
    if let Ok(level) = std::env::var("SIM_LOG") {
        let settings = LogSettings { level, ..LogSettings::default() };
        let _ = robustmq_common::telemetry::init(&settings);
    }
    tracing::info!(seed, "a simulation starts");
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(Duration::from_millis(5))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(rng.random_range(5..600)))
        .simulation_duration(TROUBLE + RECOVERY + RECOVERY)
        .tcp_capacity(4_096)
        .build();
    let cloud = Arc::new(Cloud::new(rng.random_range(1..4)));
    let disk = SimDisk::new(seed);
    let ledger = SharedLedger::default();
    add_cloud(&mut sim, &cloud, seed);
    add_edge(&mut sim, &disk, &ledger, policy, &mut rng);
    let mut tally = trouble(&mut sim, &cloud, &disk, &mut rng);
    lock(&ledger).quiet = true;
    let deadline = sim.elapsed() + RECOVERY;
    while !lock(&ledger).drained {
        assert!(sim.elapsed() < deadline, "seed {seed}: the queue is not drained");
        sim.step().expect("no host failed");
    }
    cloud.store().release();
    tally.simulated_ms = sim.elapsed().as_millis();
    tally.deduplicated = cloud.metrics.deduplicated_records();
    drop(sim);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(check(seed, policy, &cloud, &lock(&ledger), &mut tally));
    tally
}

/// Lets things go wrong for a while, then mends everything.
fn trouble(sim: &mut Sim<'_>, cloud: &Cloud, disk: &SimDisk, rng: &mut SmallRng) -> Tally {
    let mut tally = Tally::default();
    let (mut cloud_up, mut edge_up) = (true, true);
    while sim.elapsed() < TROUBLE {
        for _ in 0..rng.random_range(1..200) {
            sim.step().expect("no host failed");
        }
        if rng.random_bool(0.1) {
            cloud.set_topic("plant.a", |topic| topic.partitions = (topic.partitions + 1).min(8));
        }
        match rng.random_range(0..7) {
            0 | 1 if cloud_up => {
                cut_power(sim, "cloud");
                let waiting = cloud.store().queued();
                cloud.crash(rng.random_range(0..=waiting));
                tally.cloud_crashes += 1;
                cloud_up = false;
            }
            2 | 3 if edge_up => {
                cut_power(sim, "edge");
                if rng.random_bool(0.5) {
                    disk.crash()
                } else {
                    disk.kill()
                }
                tally.edge_crashes += 1;
                edge_up = false;
            }
            4 => {
                sim.partition("edge", "cloud");
                tally.partitions += 1;
            }
            5 => {
                sim.partition_oneway("cloud", "edge");
                tally.partitions += 1;
            }
            _ => {
                sim.repair("edge", "cloud");
                mend(sim, &mut cloud_up, &mut edge_up);
            }
        }
    }
    sim.repair("edge", "cloud");
    mend(sim, &mut cloud_up, &mut edge_up);
    tally
}

/// Ends a host without a word to the other one: its connections' last packets would go out in an order that differs from run to run.
fn cut_power(sim: &mut Sim<'_>, host: &str) {
    sim.partition("edge", "cloud");
    sim.crash(host);
}

fn mend(sim: &mut Sim<'_>, cloud_up: &mut bool, edge_up: &mut bool) {
    if !std::mem::replace(cloud_up, true) {
        sim.bounce("cloud");
    }
    if !std::mem::replace(edge_up, true) {
        sim.bounce("edge");
    }
}

fn add_cloud(sim: &mut Sim<'_>, cloud: &Arc<Cloud>, seed: u64) {
    let cloud = Arc::clone(cloud);
    let lives = Arc::new(Mutex::new(SmallRng::seed_from_u64(seed ^ 0xc10d)));
    sim.host("cloud", move || {
        let cloud = Arc::clone(&cloud);
        let mut rng = SmallRng::seed_from_u64(lives.lock().expect("not poisoned").random());
        async move {
            let store = cloud.store();
            store.hold();
            let pump = store.clone();
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(rng.random_range(1..30))).await;
                    pump.apply_held(rng.random_range(1..6));
                }
            });
            let ingest = cloud.start();
            let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
            loop {
                let (stream, _) = listener.accept().await?;
                tokio::spawn(serve(stream, ingest.clone()));
            }
        }
    });
}

/// One request on one connection: kind, lane, length, frame; then length, answer.
async fn serve(mut stream: TcpStream, ingest: Ingest) -> io::Result<()> {
    let (kind, lane) = (stream.read_u8().await?, LaneId(stream.read_u8().await?));
    let length = usize::try_from(stream.read_u32().await?).map_err(io::Error::other)?;
    assert!(length <= SYNC_FRAME_BYTES);
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    let edge = EdgeId::new("gw").map_err(io::Error::other)?;
    let answer = match kind {
        0 => ingest.hello(&edge, &frame).await,
        1 => ingest.heartbeat(&edge, &frame).await,
        _ => ingest.batch(&edge, &Rights::all(), lane, &frame).await,
    };
    let answer = answer.encode();
    stream.write_u32(u32::try_from(answer.len()).map_err(io::Error::other)?).await?;
    stream.write_all(&answer).await?;
    stream.shutdown().await
}

struct SimTransport;

#[async_trait]
impl Transport for SimTransport {
    async fn call(&self, call: Call, frame: Bytes) -> Result<Bytes, TransportError> {
        let exchange = async {
            let (kind, lane) = match call {
                Call::Hello => (0, 0),
                Call::Heartbeat => (1, 0),
                Call::Batch(lane) => (2, lane.0),
            };
            let mut stream = TcpStream::connect(("cloud", PORT)).await?;
            stream.write_u8(kind).await?;
            stream.write_u8(lane).await?;
            stream.write_u32(u32::try_from(frame.len()).map_err(io::Error::other)?).await?;
            stream.write_all(&frame).await?;
            let length = usize::try_from(stream.read_u32().await?).map_err(io::Error::other)?;
            let mut answer = vec![0; length];
            stream.read_exact(&mut answer).await?;
            io::Result::Ok(Bytes::from(answer))
        };
        match tokio::time::timeout(Duration::from_secs(2), exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(TransportError::Unreachable(error.to_string())),
            Err(_) => Err(TransportError::Timeout),
        }
    }
}

struct SimClock;

impl Clock for SimClock {
    fn now(&self) -> Now {
        let uptime = turmoil::sim_elapsed().unwrap_or_default();
        let wall_ms = i64::try_from(uptime.as_millis()).ok().map(|ms| 1_800_000_000_000 + ms);
        Now { boot: BootId([1; 16]), uptime, wall_ms }
    }
}

struct DeadInLedger(SharedLedger);

#[async_trait]
impl DeadLetters for DeadInLedger {
    async fn keep(&self, letters: Vec<DeadLetter>) -> io::Result<()> {
        lock(&self.0).dead.extend(letters.iter().map(|letter| (letter.lane.0, letter.seq.0)));
        Ok(())
    }
}

fn add_edge(
    sim: &mut Sim<'_>,
    disk: &SimDisk,
    ledger: &SharedLedger,
    policy: FullPolicy,
    rng: &mut SmallRng,
) {
    let (disk, ledger) = (disk.clone(), Arc::clone(ledger));
    let lives = Arc::new(Mutex::new(SmallRng::seed_from_u64(rng.random())));
    let settings = UplinkSettings {
        batch_bytes: rng.random_range(100..3_000),
        batch_records: rng.random_range(1..30),
        window: rng.random_range(1..5),
        linger: Duration::from_millis(rng.random_range(0..100)),
        heartbeat: Duration::from_secs(2),
        max_backoff: Duration::from_secs(3),
        ..UplinkSettings::default()
    };
    sim.host("edge", move || {
        let (disk, ledger, settings) = (disk.clone(), Arc::clone(&ledger), settings.clone());
        let rng = SmallRng::seed_from_u64(lives.lock().expect("not poisoned").random());
        run_edge(disk, ledger, policy, settings, rng)
    });
}

async fn run_edge(
    disk: SimDisk,
    ledger: SharedLedger,
    policy: FullPolicy,
    settings: UplinkSettings,
    mut rng: SmallRng,
) -> Result<(), Box<dyn std::error::Error>> {
    let queue_settings = QueueSettings {
        lanes: LANES,
        max_bytes: 1 << 30,
        policy,
        segment_bytes: 2_000,
        cursor_delay: Duration::from_millis(rng.random_range(0..2_000)),
        ..QueueSettings::default()
    };
    let (queue, _) = Queue::open_inline(
        Arc::new(disk.clone()),
        Arc::new(SimClock),
        Path::new("/queue"),
        queue_settings,
    )?;
    if policy == FullPolicy::DropOldest {
        // What it takes without a record.
        let fixed = *lock(&ledger).fixed_bytes.get_or_insert_with(|| disk.used_bytes());
        let capacity_bytes = Some(fixed + SMALL_DISK_BYTES);
        disk.set_faults(Faults { capacity_bytes, ..Faults::default() });
    }
    let seed = rng.random();
    let fractions = Mutex::new(SmallRng::seed_from_u64(seed));
    let uplink = Uplink::new(UplinkParts {
        backlog: Arc::new(queue.clone()),
        transport: Arc::new(SimTransport),
        dead_letters: Arc::new(DeadInLedger(Arc::clone(&ledger))),
        settings,
        session: SessionId(rng.random()),
        jitter: Arc::new(move || fractions.lock().expect("not poisoned").random()),
        metrics: UplinkMetrics::default(),
    });
    tokio::spawn(async move { uplink.run(CancellationToken::new()).await });
    loop {
        tokio::time::sleep(Duration::from_millis(rng.random_range(1..150))).await;
        if lock(&ledger).quiet {
            let drained = (0..LANES).all(|lane| {
                queue
                    .position(LaneId(lane))
                    .is_ok_and(|position| position.acknowledged_through == position.synced_through)
            });
            lock(&ledger).drained = drained;
            continue;
        }
        for _ in 0..rng.random_range(1..6) {
            publish(&queue, &ledger, &mut rng).await;
        }
    }
}

/// Appends one record and, once the queue says that it is synced, writes it down.
async fn publish(queue: &Queue, ledger: &SharedLedger, rng: &mut SmallRng) {
    let number = {
        let mut ledger = lock(ledger);
        ledger.next_payload += 1;
        ledger.next_payload
    };
    let (mortal, illegal) = (rng.random_bool(0.1), rng.random_bool(0.05));
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(8 + rng.random_range(0..200), 7);
    let client_id = format!("device-{}", number % 5);
    let record = EdgeRecord {
        mqtt_topic: if number % 3 == 0 { "plant/a" } else { "plant/b" },
        client_id: &client_id,
        qos: 1,
        retain: false,
        payload_utf8: false,
        expiry_seconds: None,
        kafka_topic: illegal.then_some("not a legal name"),
        key: if number % 7 == 0 { RecordKey::None } else { RecordKey::ClientId },
        content_type: None,
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
        payload: &payload,
    };
    let mut body = Vec::new();
    record.encode(&mut body).expect("fits");
    let lane = LaneId(rng.random_range(0..LANES));
    let append = Append {
        lane,
        origin: Origin { client_id: client_id.clone().into(), ..Origin::default() },
        ttl: mortal.then_some(Duration::from_secs(1)),
        body: body.into(),
    };
    let Ok(pending) = queue.append(&append) else { return };
    if let Ok(seq) = pending.await {
        let before =
            lock(ledger).synced.insert((lane.0, seq.0), Promised { payload, mortal, illegal });
        assert!(before.is_none(), "the queue gave sequence {seq} of lane {lane} twice");
    }
}

async fn check(seed: u64, policy: FullPolicy, cloud: &Cloud, ledger: &Ledger, tally: &mut Tally) {
    let drops = policy == FullPolicy::DropOldest;
    let mut seen = BTreeMap::new();
    let mut incarnations = BTreeSet::new();
    for ((topic, partition), records) in cloud.logged().await {
        let mut last: BTreeMap<(u64, u8), u64> = BTreeMap::new();
        for record in records {
            let place = format!("seed {seed}: {topic}-{partition} {record:?}");
            let before = last.insert((record.incarnation, record.lane), record.seq);
            assert!(before < Some(record.seq), "out of order: {place}");
            incarnations.insert(record.incarnation);
            let again = seen.insert((record.lane, record.seq), record.payload);
            assert!(again.is_none(), "twice: {place}");
        }
    }
    for ((lane, seq), promised) in &ledger.synced {
        let place = format!("seed {seed}: lane {lane} sequence {seq}");
        let dead = ledger.dead.contains(&(*lane, *seq));
        match seen.get(&(*lane, *seq)) {
            Some(payload) => {
                assert!(!promised.illegal && !dead, "rejected and applied: {place}");
                assert_eq!(payload, &promised.payload, "another record: {place}");
            }
            None if promised.mortal && !dead => tally.expired += 1,
            None if drops && !dead => tally.dropped += 1,
            None => assert!(promised.illegal && dead, "lost: {place}"),
        }
        tally.records += 1;
        tally.rejected += u64::from(dead);
    }
    let used = incarnations.len();
    tally.new_incarnations += u64::try_from(used).unwrap_or(u64::MAX).saturating_sub(1);
    assert!(
        used <= 1 || drops,
        "seed {seed}: a crash alone needs no new incarnation: {incarnations:?}"
    );
}
