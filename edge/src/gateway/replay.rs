//! Start-up: the state as it was saved, then the queue's records that it does not reflect yet, so that both agree.

use std::iter::Peekable;

use robustmq_common::ids::{EdgeSeq, LaneId};
use robustmq_common::mqtt::server::{Millis, Server};

use super::clock::ServerClock;
use super::{record, rows};
use crate::queue::{Clock, Entry, Queue, QueueError, Replay, Stamp};
use crate::state::{OpenError, Positions, StateFile};

/// Why the state could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The state cannot be read.
    #[error(transparent)]
    State(#[from] OpenError),
    /// The queue cannot be read.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// What start-up did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Replayed {
    /// What the server's state now reflects.
    pub positions: Positions,
    /// What the saved state reflects.
    pub saved: Positions,
    /// The saved positions belong to this queue, as it is. Otherwise nothing was replayed.
    pub continues: bool,
    /// Rows restored.
    pub rows: u64,
    /// Rows that made no sense and were left out.
    pub bad_rows: u64,
    /// Records replayed.
    pub records: u64,
    /// Records that made no sense and were left out.
    pub bad_records: u64,
}

/// Brings `server` to where it was, from the rows of `file` and the queue's tail.
///
/// A state that was made for another queue directory, or for a later state of this one, says nothing about these records:
/// it is taken to reflect all of them. Replaying them could make a packet id look received that was long released, and
/// the next message under it would be lost.
pub(super) fn restore<C: Clock>(
    server: &mut Server,
    file: &StateFile,
    queue: &Queue,
    clock: &ServerClock<C>,
) -> Result<Replayed, ReplayError> {
    let now = clock.now();
    let mut replayed = Replayed {
        positions: Positions::new(),
        saved: Positions::new(),
        continues: true,
        rows: 0,
        bad_rows: 0,
        records: 0,
        bad_records: 0,
    };
    file.for_each(|key, value| match rows::from_row(key, value) {
        Ok(change) => {
            replayed.rows += 1;
            server.restore(now, change);
        }
        Err(error) => {
            replayed.bad_rows += 1;
            tracing::error!(%error, "a row of the state makes no sense and is left out");
        }
    })?;
    replayed.saved = file.positions()?;
    for lane in queue.lanes() {
        replayed.positions.insert(lane, queue.position(lane)?.synced_through);
    }
    let saved = &replayed.saved;
    let reflected = |lane: LaneId| saved.get(&lane).copied().unwrap_or(EdgeSeq(0));
    let ends = &replayed.positions;
    replayed.continues = file.queue_store()? == Some(store_mark(queue))
        && ends.iter().all(|(lane, end)| reflected(*lane) <= *end);
    let mut tails = Vec::new();
    for (lane, end) in ends {
        if replayed.continues && reflected(*lane) < *end {
            tails.push((*lane, queue.replay(*lane, reflected(*lane)).peekable()));
        }
    }
    while let Some((lane, entry)) = next_by_time(&mut tails, queue)? {
        let received_at = server_time(&entry.stamp, queue, clock);
        match record::to_publish(&entry, received_at) {
            Ok(publish) => {
                replayed.records += 1;
                server.replay(now, publish);
            }
            Err(error) => {
                replayed.bad_records += 1;
                tracing::error!(lane = lane.0, sequence = entry.seq.0, %error, "a queue record cannot be replayed");
            }
        }
    }
    server.restored(now);
    Ok(replayed)
}

/// What the state keeps of the queue directory's identity.
pub(super) fn store_mark(queue: &Queue) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&queue.store_id().0[..8]);
    u64::from_be_bytes(first)
}

/// The earliest of the lanes' next records: each lane is in order, and records of different lanes are as near to it as
/// their clocks tell.
fn next_by_time(
    tails: &mut [(LaneId, Peekable<Replay>)],
    queue: &Queue,
) -> Result<Option<(LaneId, Entry)>, QueueError> {
    let mut earliest: Option<(usize, (i64, u64))> = None;
    for (index, (_, tail)) in tails.iter_mut().enumerate() {
        match tail.peek() {
            None => {}
            // Takes it out, to be answered with.
            Some(Err(_)) => earliest = Some((index, (i64::MIN, 0))),
            Some(Ok(entry)) => {
                let at = (queue.resolve(&entry.stamp).unwrap_or(i64::MIN), entry.stamp.uptime_ms);
                if earliest.is_none_or(|(_, least)| at < least) {
                    earliest = Some((index, at));
                }
            }
        }
    }
    let Some((lane, tail)) = earliest.and_then(|(index, _)| tails.get_mut(index)) else {
        return Ok(None);
    };
    tail.next().transpose().map(|entry| entry.map(|entry| (*lane, entry)))
}

/// A record's time of reception in server time, as exactly as the clocks tell.
fn server_time<C: Clock>(stamp: &Stamp, queue: &Queue, clock: &ServerClock<C>) -> Millis {
    let now = clock.machine_now();
    let since_boot = u64::try_from(now.uptime.as_millis()).unwrap_or(u64::MAX);
    let age_ms = if stamp.boot == now.boot {
        since_boot.saturating_sub(stamp.uptime_ms)
    } else {
        let by_wall = queue.resolve(stamp).zip(now.wall_ms);
        by_wall.map_or(since_boot, |(then, now)| {
            u64::try_from(now.saturating_sub(then)).unwrap_or(0).max(since_boot)
        })
    };
    Millis(clock.now().0.saturating_sub(age_ms))
}
