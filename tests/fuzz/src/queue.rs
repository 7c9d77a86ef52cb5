//! The edge's queue over segment files of any content.
//!
//! ```text
//! byte 0  bit 0: true checksums and digests are put in   bit 1: a true header is put in front of each file
//!         bit 2: there is a cursor                       bit 3: there are two files
//! byte 1  what the cursor says is acknowledged           byte 2  below which sequence it says that all was synced
//! byte 3  where the second file begins, in units of 64 bytes
//!      4  the files
//! ```

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{BufMut, Bytes};
use robustmq_common::ids::{EdgeSeq, LaneId};
use robustmq_edge::queue::disk::Disk;
use robustmq_edge::queue::inspect::{Depth, inspect_on};
use robustmq_edge::queue::sim_disk::SimDisk;
use robustmq_edge::queue::{
    Append, BootId, Clock, Entry, Now, OpenError, Origin, Queue, QueueSettings, ReadBatch,
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::memory::bounded;

/// What an input may take besides a multiple of its size: buffers to read ahead, and the simulated disk's registers.
const BASE_BYTES: usize = 2 << 20;
const MEMORY_FACTOR: usize = 64;

const DIR: &str = "/queue";
const LANE: LaneId = LaneId(0);
const STORE: [u8; 16] = *b"the fuzzed store";
const BOOT: [u8; 16] = *b"the fuzzed boot.";
const RECORD_HEAD_BYTES: usize = 56;
const CONTROL_BYTES: usize = 4;
const SEALED: u8 = 1;
const HEADERS: u8 = 2;
const CURSOR: u8 = 4;
const TWO_FILES: u8 = 8;

struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> Now {
        Now { boot: BootId(BOOT), uptime: Duration::from_secs(1), wall_ms: None }
    }
}

/// Nothing panics, memory is bounded, what is read has a true checksum, every sequence is accounted for, and `verify` says of
/// the end what recovery does.
pub fn check(data: &[u8]) {
    bounded(BASE_BYTES + MEMORY_FACTOR * data.len(), || check_files(data));
}

fn check_files(data: &[u8]) {
    let Some((control, rest)) = data.split_first_chunk::<CONTROL_BYTES>() else { return };
    let [mode, acknowledged, floor, split] = *control;
    let disk = SimDisk::new(1);
    put(&disk, "queue.id", &register(&identity()));
    if mode & CURSOR != 0 {
        put(&disk, "lane-0/cursor", &register(&cursor(acknowledged, floor)));
    }
    let files = files(mode, split, rest);
    for (base, bytes) in &files {
        put(&disk, &format!("lane-0/{base:020}.seg"), bytes);
    }
    let looked = inspect_on(&disk, Path::new(DIR), Depth::Verify).expect("the disk is good");
    let (queue, recovered) = match open(&disk) {
        Ok(opened) => opened,
        Err(OpenError::Version { .. }) => return,
        Err(error) => panic!("{error}"),
    };
    let lane = &looked.lanes[0];
    assert_eq!(lane.next_sequence, recovered.lanes[0].next_seq.0, "{looked}");
    let unfinished: u64 = lane.segments.iter().map(|segment| segment.unfinished_bytes).sum();
    assert_eq!(unfinished, recovered.lanes[0].truncated_bytes, "{looked}");
    for entry in queue.replay(LANE, EdgeSeq(0)) {
        check_entry(&entry.expect("the disk is good"), &files);
    }
    let (before, next) = read_all(&queue);
    before.iter().for_each(|entry| check_entry(entry, &files));
    append(&queue);
    drop(queue);
    disk.crash();
    let (queue, _) = open(&disk).expect("it was opened before");
    let (after, _) = read_all(&queue);
    let (last, rest) = after.split_last().expect("one was appended");
    assert_eq!((last.seq, &last.body[..]), (next, &b"more"[..]));
    assert_eq!(rest, before, "what was read once is read again");
}

fn open(disk: &SimDisk) -> Result<(Queue, robustmq_edge::queue::Recovered), OpenError> {
    let settings = QueueSettings { lanes: 1, ..QueueSettings::default() };
    Queue::open_inline(Arc::new(disk.clone()), Arc::new(StoppedClock), Path::new(DIR), settings)
}

/// A queue without a thread answers at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("an inline queue answers at once"),
    }
}

fn append(queue: &Queue) {
    let origin =
        Origin { client_id: Bytes::from_static(b"c"), packet_id: None, qos: 1, retain: false };
    let more = Append { lane: LANE, origin, ttl: None, body: Bytes::from_static(b"more") };
    now(queue.append(&more).expect("there is room")).expect("the disk is good");
}

/// All entries that the uplink would send, and the sequence after them.
fn read_all(queue: &Queue) -> (Vec<Entry>, EdgeSeq) {
    let mut entries = Vec::new();
    let mut next = EdgeSeq(queue.position(LANE).expect("a lane").acknowledged_through.0 + 1);
    loop {
        let batch = now(queue.read(LANE, next, 1 << 16, 1000)).expect("the disk is good");
        assert_eq!(batch.from, next);
        check_account(&batch);
        next = batch.next;
        if batch.is_empty() {
            return (entries, next);
        }
        entries.extend(batch.entries);
    }
}

/// Every sequence is one entry or in one skip.
fn check_account(batch: &ReadBatch) {
    let mut spans: Vec<(u64, u64)> = batch.entries.iter().map(|e| (e.seq.0, e.seq.0 + 1)).collect();
    assert!(spans.is_sorted());
    spans.extend(batch.skips.iter().map(|skip| (skip.from.0, skip.to.0)));
    spans.sort_unstable();
    let mut next = batch.from.0;
    for (from, to) in spans {
        assert!(from == next && to > from, "{from} to {to} after {next}");
        next = to;
    }
    assert_eq!(next, batch.next.0);
}

/// The entry lies in one of the files, with a checksum that is right.
fn check_entry(entry: &Entry, files: &[(u64, Vec<u8>)]) {
    let sequence = entry.seq.0.to_le_bytes();
    let lies_in = |bytes: &[u8]| {
        bytes.windows(RECORD_HEAD_BYTES).enumerate().any(|(at, head)| {
            head[8..16] == sequence
                && length(head).and_then(|length| bytes.get(at..at + length)).is_some_and(
                    |record| {
                        let client = usize::from(u16::from_le_bytes([head[48], head[49]]));
                        let tail = &record[RECORD_HEAD_BYTES..];
                        head[4..8] == crc(record).to_le_bytes()
                            && tail.get(..client) == Some(&entry.origin.client_id[..])
                            && tail.get(client..) == Some(&entry.body[..])
                    },
                )
        })
    };
    assert!(files.iter().any(|(_, bytes)| lies_in(bytes)), "no file holds {entry:?}");
}

fn length(head: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(*head.first_chunk::<4>()?) as usize;
    (length >= RECORD_HEAD_BYTES).then_some(length)
}

fn crc(record: &[u8]) -> u32 {
    let salt = crc32c::crc32c_append(crc32c::crc32c(&STORE), &[LANE.0]);
    crc32c::crc32c_append(crc32c::crc32c_append(salt, &record[..4]), &record[8..])
}

/// The segment files, each with its first sequence.
fn files(mode: u8, split: u8, rest: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let at = match mode & TWO_FILES {
        0 => rest.len(),
        _ => (usize::from(split) * 64).min(rest.len()),
    };
    let (first, second) = rest.split_at(at);
    let mut base = 1;
    let mut digest = xxh3_64_with_seed(&STORE, u64::from(LANE.0));
    let mut files = Vec::new();
    for part in [first, second] {
        if part.is_empty() && !files.is_empty() {
            break;
        }
        let mut records = part.to_vec();
        let (count, after) = walk(&mut records, mode & SEALED != 0, digest);
        let mut file = Vec::new();
        if mode & HEADERS != 0 {
            file = header(base, digest);
        }
        file.append(&mut records);
        files.push((base, file));
        base += count.max(1);
        digest = after;
    }
    files
}

/// How many records follow on each other, and the digest after them; `seal` makes digests and checksums true.
fn walk(records: &mut [u8], seal: bool, mut digest: u64) -> (u64, u64) {
    let (mut at, mut count) = (0, 0);
    while let Some(length) = records.get(at..).and_then(length) {
        let Some(record) = records.get_mut(at..at + length) else { break };
        if seal {
            digest = xxh3_64_with_seed(&record[24..], digest);
            record[16..24].copy_from_slice(&digest.to_le_bytes());
            let crc = crc(record);
            record[4..8].copy_from_slice(&crc.to_le_bytes());
        }
        at += length;
        count += 1;
    }
    (count, digest)
}

fn header(base: u64, digest: u64) -> Vec<u8> {
    let mut out = b"RMQSEGMT\x01\0\0\0".to_vec();
    out.put_slice(&STORE);
    out.put_slice(&BOOT);
    out.put_u64_le(base);
    out.put_u64_le(digest);
    let crc = crc32c::crc32c(&out);
    out.put_u32_le(crc);
    out
}

fn identity() -> Vec<u8> {
    let mut out = vec![1];
    out.put_slice(&STORE);
    out.put_bytes(0, 1 + 8 + 2);
    out
}

fn cursor(acknowledged: u8, floor: u8) -> Vec<u8> {
    let mut out = vec![1];
    out.put_u64_le(u64::from(acknowledged));
    out.put_u64_le(5);
    out.put_u64_le(u64::from(floor));
    out.put_u64_le(7);
    out.put_bytes(0, 3 * 8 + 2);
    out
}

/// Both slots of a register, one of them filled.
fn register(value: &[u8]) -> Vec<u8> {
    let mut covered = Vec::new();
    covered.put_u32_le(u32::try_from(value.len()).expect("a small value"));
    covered.put_u64_le(1);
    covered.put_slice(value);
    let mut out = vec![0; 4096];
    out.put_slice(b"RMQSLOT1");
    out.put_u32_le(crc32c::crc32c(&covered));
    out.put_slice(&covered);
    out.resize(2 * 4096, 0);
    out
}

fn put(disk: &SimDisk, name: &str, bytes: &[u8]) {
    let file = disk.open(&Path::new(DIR).join(name), true).expect("the disk is good");
    let written = file.write_at(bytes, 0).expect("the disk is good");
    assert_eq!(written, bytes.len());
    file.sync().expect("the disk is good");
}

/// Records as the queue writes them, whole and with a piece missing, with and without what goes around them.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let disk = SimDisk::new(1);
    put(&disk, "queue.id", &register(&identity()));
    let (queue, _) = open(&disk).expect("an empty queue");
    for n in 0..8_u8 {
        let origin = Origin {
            client_id: Bytes::from_static(b"sensor"),
            packet_id: Some(u16::from(n)),
            qos: n % 3,
            retain: n % 2 == 0,
        };
        let ttl = (n % 4 == 0).then_some(Duration::from_secs(60));
        let body = vec![n; usize::from(n) * 20].into();
        now(queue.append(&Append { lane: LANE, origin, ttl, body }).expect("there is room"))
            .expect("the disk is good");
    }
    drop(queue);
    let mut whole = Vec::new();
    let name = Path::new(DIR).join(format!("lane-0/{:020}.seg", 1));
    disk.corrupt(&name, |bytes| whole.clone_from(bytes));
    let records = &whole[64..];
    let mut seeds = vec![[&[0, 0, 0, 0], &whole[..]].concat()];
    for mode in 0..16 {
        let control = [mode | HEADERS, 2, 6, 3];
        seeds.push([&control, records].concat());
        seeds.push([&control, &records[..records.len() - 9]].concat());
        seeds.push([&control, &records[..200], &records[230..]].concat());
    }
    seeds
}
