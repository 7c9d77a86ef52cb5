//! Tests of the queue, on a disk that fails and crashes.

mod cases;
mod damage;
mod inspect;
mod model;
mod threads;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use robustmq_common::ids::{EdgeSeq, LaneId};

use super::clock::{BootId, Clock, Now};
use super::sim_disk::SimDisk;
use super::{
    Append, AppendError, FullPolicy, Origin, Queue, QueueError, QueueSettings, ReadBatch, Recovered,
};

const DIR: &str = "/queue";
const MIB: u64 = 1024 * 1024;

/// A clock that stands still until it is told otherwise.
#[derive(Clone)]
struct TestClock(Arc<Mutex<Now>>);

impl TestClock {
    fn new() -> Self {
        let now = Now {
            boot: BootId([1; 16]),
            uptime: Duration::from_secs(100),
            wall_ms: Some(1_800_000_000_000),
        };
        Self(Arc::new(Mutex::new(now)))
    }

    fn set(&self, change: impl FnOnce(&mut Now)) {
        change(&mut self.0.lock().unwrap());
    }

    fn advance(&self, by: Duration) {
        self.set(|now| {
            now.uptime += by;
            now.wall_ms = now.wall_ms.map(|wall| wall + i64::try_from(by.as_millis()).unwrap());
        });
    }
}

impl Clock for TestClock {
    fn now(&self) -> Now {
        *self.0.lock().unwrap()
    }
}

/// One simulated gateway.
struct Machine {
    disk: SimDisk,
    clock: TestClock,
    settings: QueueSettings,
}

impl Machine {
    fn new(seed: u64) -> Self {
        let settings = QueueSettings {
            lanes: 1,
            max_bytes: MIB,
            segment_bytes: 4096,
            cursor_delay: Duration::ZERO,
            ..QueueSettings::default()
        };
        Self { disk: SimDisk::new(seed), clock: TestClock::new(), settings }
    }

    fn open(&self) -> (Queue, Recovered) {
        let disk = Arc::new(self.disk.clone());
        let clock = Arc::new(self.clock.clone());
        Queue::open_inline(disk, clock, Path::new(DIR), self.settings.clone()).unwrap()
    }

    /// The power goes, and comes back in another boot.
    fn crash(&self) {
        self.disk.crash();
        self.clock.set(|now| {
            now.boot.0[0] = now.boot.0[0].wrapping_add(1);
            now.uptime = Duration::from_secs(5);
        });
    }

    fn segments(&self, lane: u8) -> Vec<PathBuf> {
        let dir = Path::new(DIR).join(format!("lane-{lane}"));
        let is_segment = |path: &PathBuf| {
            path.starts_with(&dir) && path.extension().is_some_and(|kind| kind != "cursor")
        };
        self.disk.paths().into_iter().filter(is_segment).collect()
    }
}

fn record(lane: u8, body: impl Into<Bytes>) -> Append {
    let origin = Origin {
        client_id: Bytes::from_static(b"sensor-1"),
        packet_id: Some(7),
        qos: 1,
        retain: false,
    };
    Append { lane: LaneId(lane), origin, ttl: None, body: body.into() }
}

/// The outcome of a call that, without a writer thread, is there at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("an inline queue answers at once")
}

fn append(queue: &Queue, append: &Append) -> Result<EdgeSeq, AppendError> {
    queue.append(append).and_then(now)
}

fn read(queue: &Queue, lane: u8, from: u64) -> ReadBatch {
    now(queue.read(LaneId(lane), EdgeSeq(from), 1 << 20, 1000)).unwrap()
}

/// Everything that the uplink would send, in one account.
fn read_all(queue: &Queue, lane: u8) -> Result<ReadBatch, QueueError> {
    let start = queue.position(LaneId(lane))?.acknowledged_through.0 + 1;
    let mut all = now(queue.read(LaneId(lane), EdgeSeq(start), 2000, 7))?;
    loop {
        let more = now(queue.read(LaneId(lane), all.next, 2000, 7))?;
        assert_eq!((more.from, more.digest_before), (all.next, all.digest), "accounts join");
        if more.is_empty() {
            return Ok(all);
        }
        all.next = more.next;
        all.digest = more.digest;
        all.entries.extend(more.entries);
        all.skips.extend(more.skips);
    }
}

/// Fails unless every sequence of the account is exactly one entry or in exactly one skip, in order.
fn check_gapless(batch: &ReadBatch) {
    let mut spans: Vec<(u64, u64)> =
        batch.entries.iter().map(|entry| (entry.seq.0, entry.seq.0 + 1)).collect();
    assert!(spans.is_sorted(), "entries are in order");
    spans.extend(batch.skips.iter().map(|skip| (skip.from.0, skip.to.0)));
    spans.sort_unstable();
    let mut next = batch.from.0;
    for (from, to) in spans {
        assert_eq!(from, next, "{batch:?}");
        assert!(to > from);
        next = to;
    }
    assert_eq!(next, batch.next.0);
}

fn bodies(batch: &ReadBatch) -> Vec<String> {
    batch.entries.iter().map(|e| String::from_utf8_lossy(&e.body).into_owned()).collect()
}

fn drop_oldest(machine: &mut Machine) {
    machine.settings.policy = FullPolicy::DropOldest;
}
