//! `kill -9` of a process that appends to the queue and drains it, over and over: what it was told is safe is there, under
//! the same sequence, and what it acknowledged stays acknowledged.
//!
//! The process is this test binary itself, running only `the_process_that_is_killed`. It writes what the queue promised
//! to a log beside the queue; a killed process loses nothing that it wrote to a file, so the log is the truth.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use robustmq_common::ids::{EdgeSeq, LaneId};
use robustmq_edge::queue::inspect::{Depth, inspect};
use robustmq_edge::queue::{Append, Origin, Queue, QueueSettings};

const ROUNDS: u64 = 220;
const LANES: u8 = 2;
const DIR: &str = "ROBUSTMQ_QUEUE_KILL_DIR";
const ROUND: &str = "ROBUSTMQ_QUEUE_KILL_ROUND";

fn settings() -> QueueSettings {
    QueueSettings {
        lanes: LANES,
        segment_bytes: 16 * 1024,
        cursor_delay: Duration::from_millis(2),
        ..QueueSettings::default()
    }
}

fn queue_dir(dir: &Path) -> PathBuf {
    dir.join("queue")
}

/// Appends and drains until it is killed.
#[test]
#[ignore = "run by the test below, as the process that it kills"]
fn the_process_that_is_killed() {
    let dir = PathBuf::from(std::env::var(DIR).expect("set by the test that starts this"));
    let round: u64 = std::env::var(ROUND).expect("set as well").parse().expect("a number");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work(&dir, round)).unwrap();
}

async fn work(dir: &Path, round: u64) -> anyhow::Result<()> {
    let mut log = OpenOptions::new().create(true).append(true).open(dir.join("log"))?;
    let (queue, _) = Queue::open(&queue_dir(dir), settings())?;
    log.write_all(b"open\n")?;
    let mut rng = SmallRng::seed_from_u64(round);
    for group in 0u64.. {
        let lane = LaneId(rng.random_range(0..LANES));
        let mut pending = Vec::new();
        for n in 0..rng.random_range(1..40) {
            let mut body = format!("{round}-{group}-{n}").into_bytes();
            body.resize(body.len() + rng.random_range(0..600usize), b' ');
            let origin = Origin { client_id: Bytes::from_static(b"c"), ..Origin::default() };
            let append = Append { lane, origin, ttl: None, body: body.into() };
            pending.push((n, queue.append(&append)?));
        }
        for (n, append) in pending {
            let seq = append.await?;
            log.write_all(format!("append {lane} {seq} {round}-{group}-{n}\n").as_bytes())?;
        }
        if rng.random_bool(0.5) {
            let from = EdgeSeq(queue.position(lane)?.acknowledged_through.0 + 1);
            let batch = queue.read(lane, from, 8192, 1000).await?;
            let through = batch.next.0 - 1;
            log.write_all(format!("acknowledge {lane} {through}\n").as_bytes())?;
            queue.acknowledge(lane, EdgeSeq(through))?;
        }
    }
    Ok(())
}

/// What the log says was promised.
#[derive(Default)]
struct Promised {
    bodies: BTreeMap<u64, String>,
    acknowledged: u64,
    /// How far the queue itself said that it was acknowledged, when it was last looked at.
    seen_acknowledged: u64,
}

#[tokio::test]
async fn what_was_promised_survives_kill_9() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut promised: [Promised; LANES as usize] = Default::default();
    let mut rng = SmallRng::seed_from_u64(7);
    let mut appended = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--exact", "the_process_that_is_killed", "--ignored", "--test-threads=1"])
            .env(DIR, dir.path())
            .env(ROUND, round.to_string())
            .stdout(Stdio::null())
            .spawn()?;
        let opened = wait_for_open(&mut child, &dir.path().join("log")).await;
        // One in ten is killed as soon as it starts to work, the others some way in.
        let longer = if rng.random_bool(0.1) { 0 } else { rng.random_range(1..30) };
        tokio::time::sleep(Duration::from_millis(longer)).await;
        child.kill()?;
        child.wait()?;
        opened?;
        appended += take_log(&dir.path().join("log"), &mut promised)?;
        check(dir.path(), &mut promised).await.with_context(|| format!("round {round}"))?;
    }
    ensure!(appended > ROUNDS, "only {appended} records were promised in {ROUNDS} rounds");
    Ok(())
}

async fn wait_for_open(child: &mut Child, log: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !std::fs::metadata(log).is_ok_and(|found| found.len() > 0) {
        ensure!(child.try_wait()?.is_none(), "the process ended by itself");
        ensure!(Instant::now() < deadline, "the queue was not opened within 30 s");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Moves what the log says into the account and empties it. Returns how many appends it had.
fn take_log(path: &Path, promised: &mut [Promised]) -> anyhow::Result<u64> {
    let mut appended = 0;
    for line in BufReader::new(File::open(path)?).split(b'\n') {
        let line = String::from_utf8(line?)?;
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["append", lane, seq, body] => {
                appended += 1;
                let lane = &mut promised[lane.parse::<usize>()?];
                let before = lane.bodies.insert(seq.parse()?, body.to_owned());
                ensure!(before.is_none(), "sequence {seq} was promised twice");
            }
            ["acknowledge", lane, through] => {
                let lane = &mut promised[lane.parse::<usize>()?];
                lane.acknowledged = lane.acknowledged.max(through.parse()?);
            }
            _ => {}
        }
    }
    File::create(path)?;
    Ok(appended)
}

async fn check(dir: &Path, promised: &mut [Promised]) -> anyhow::Result<()> {
    let found = inspect(&queue_dir(dir), Depth::Verify)?;
    ensure!(found.is_sound(), "{found}");
    let (queue, recovered) = Queue::open(&queue_dir(dir), settings())?;
    ensure!(recovered.damage.is_empty(), "{recovered:?}");
    for (lane, promised) in (0u8..).zip(promised) {
        let position = queue.position(LaneId(lane))?;
        let acknowledged = position.acknowledged_through.0;
        ensure!(acknowledged <= promised.acknowledged, "nothing acknowledges itself");
        ensure!(acknowledged >= promised.seen_acknowledged, "an acknowledgement was taken back");
        promised.seen_acknowledged = acknowledged;
        promised.bodies = promised.bodies.split_off(&(acknowledged + 1));
        let mut next = EdgeSeq(acknowledged + 1);
        loop {
            let batch = queue.read(LaneId(lane), next, 1 << 20, 10_000).await?;
            ensure!(batch.skips.is_empty(), "{:?}", batch.skips);
            if batch.is_empty() {
                break;
            }
            for entry in &batch.entries {
                let body = std::str::from_utf8(&entry.body)?.trim_end().to_owned();
                // One that was not promised in time counts as promised from now on: the uplink may send it.
                let expected = promised.bodies.entry(entry.seq.0).or_insert_with(|| body.clone());
                ensure!(*expected == body, "{} holds {body}, not {expected}", entry.seq);
            }
            next = batch.next;
        }
        let last = promised.bodies.last_key_value().map_or(0, |(seq, _)| *seq);
        ensure!(last < next.0, "{last} was promised, but the lane ends before {next}");
    }
    queue.close().await;
    Ok(())
}
