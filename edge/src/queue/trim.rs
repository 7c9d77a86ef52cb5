//! What leaves the queue: acknowledged segments, expired and dropped ones, damaged ones.
//!
//! The order is always the same: the cursor, with the skips that explain what goes, becomes durable; then memory stops
//! naming the segment; then the file goes. A crash in between leaves a file that the next start removes.

use std::time::Duration;

use robustmq_common::ids::{EdgeSeq, LaneId};
use robustmq_common::limits::QUEUE_BAD_SEGMENTS_KEPT;

use super::cursor::Cursor;
use super::disk;
use super::errors::AppendError;
use super::read;
use super::scan::{At, Found, Scan, Unreadable};
use super::segment::{self, HEADER_BYTES};
use super::state::{Lane, Segment, Shared, State};
use super::types::{FullPolicy, QueueSettings, Skip, SkipReason};
use super::writer::{WriteError, Writer};

impl Lane {
    /// How long until the lane's files need care; `None` if they do not.
    pub fn next_duty(&self, now: Duration, settings: &QueueSettings) -> Option<Duration> {
        let at_once = self.acknowledge_wanted.is_some()
            || self.segments.iter().any(|segment| segment.quarantine_wanted)
            || self.releasable_segments(settings) > 0;
        if at_once {
            return Some(Duration::ZERO);
        }
        let due = self.cursor_dirty_since?.saturating_add(settings.cursor_delay);
        Some(due.saturating_sub(now))
    }

    /// How many segments at the front are no longer needed. The last one is kept until it is half full, so that a queue
    /// that is drained all the time does not make a file for every record.
    fn releasable_segments(&self, settings: &QueueSettings) -> usize {
        let through = self.releasable_through(settings);
        let ends = self.segments.iter().skip(1).map(|segment| segment.base.0 - 1);
        let whole = ends.take_while(|end| *end <= through.0).count();
        let last = self.segments.len() == whole + 1
            && self.synced <= through
            && self.segments.back().is_some_and(|s| s.len >= settings.segment_bytes / 2);
        whole + usize::from(last)
    }
}

impl Writer {
    /// Moves, stores and applies one lane's cursor, as far as that is due.
    pub fn tend_lane(
        &mut self,
        shared: &Shared,
        index: usize,
        force: bool,
        full: bool,
    ) -> Result<(), String> {
        let Some(lane) = self.lanes.get(index).map(|files| files.id) else { return Ok(()) };
        settle_acknowledgement(shared, lane);
        self.quarantine(shared, lane)?;
        let now = shared.clock.now().uptime;
        let (count, store) = {
            let state = shared.lock();
            if !force && state.retry_at.is_some_and(|at| now < at) {
                return Ok(());
            }
            let Ok(lane) = state.lane(lane) else { return Ok(()) };
            let drained = full && lane.synced <= lane.releasable_through(&shared.settings);
            let count = match drained {
                true => lane.segments.len(),
                false => lane.releasable_segments(&shared.settings),
            };
            let due = lane.cursor_dirty_since.is_some_and(|since| {
                force || now >= since.saturating_add(shared.settings.cursor_delay)
            });
            (count, due || count > 0)
        };
        if store && self.store_cursor(shared, lane)? {
            self.remove_front(shared, lane, count)?;
        }
        Ok(())
    }

    /// Makes the lane's cursor durable; `false` if there was no space for it, which may pass.
    fn store_cursor(&mut self, shared: &Shared, lane: LaneId) -> Result<bool, String> {
        let cursor = {
            let mut state = shared.lock();
            let Ok(lane) = state.lane_mut(lane) else { return Ok(false) };
            lane.raise_floor();
            lane.cursor.clone()
        };
        self.store_cursor_value(shared, lane, cursor)
    }

    fn store_cursor_value(
        &mut self,
        shared: &Shared,
        lane: LaneId,
        cursor: Cursor,
    ) -> Result<bool, String> {
        let files = self.lane_files(lane).map_err(|error| error.to_string())?;
        match files.cursor.store(&cursor.encode()) {
            Ok(()) => {}
            Err(error) if disk::is_full(&error) => {
                self.found_no_space(shared, &format!("the cursor of lane {lane}"), &error);
                return Ok(false);
            }
            Err(error) => return Err(format!("lane {lane}: writing the cursor: {error}")),
        }
        let mut state = shared.lock();
        if let Ok(lane) = state.lane_mut(lane) {
            lane.durable_cursor = cursor;
            if lane.durable_cursor == lane.cursor {
                lane.cursor_dirty_since = None;
            }
        }
        Ok(true)
    }

    /// Removes the first `count` segments, which the durable cursor no longer needs.
    fn remove_front(&mut self, shared: &Shared, lane: LaneId, count: usize) -> Result<(), String> {
        let gone: Vec<Segment> = {
            let mut state = shared.lock();
            let State { lanes, disk_bytes, .. } = &mut *state;
            let Some(lane) = lanes.get_mut(usize::from(lane.0)) else { return Ok(()) };
            let gone: Vec<_> = lane.segments.drain(..count.min(lane.segments.len())).collect();
            let freed: u64 = gone.iter().map(|segment| segment.len).sum();
            *disk_bytes = disk_bytes.saturating_sub(freed);
            if lane.segments.is_empty() {
                self.lane_files(lane.id).map_err(|error| error.to_string())?.active = None;
            }
            gone
        };
        let files = self.lane_files(lane).map_err(|error| error.to_string())?;
        for segment in &gone {
            let path = files.dir.join(segment::file_name(segment.base, segment.bad));
            if segment.bad {
                continue;
            }
            if let Err(error) = shared.disk.remove(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove a segment; the next start tries again");
            }
        }
        if gone.iter().any(|segment| segment.bad) {
            keep_newest_bad(shared, lane);
        }
        Ok(())
    }

    /// Makes room below `max_bytes` for one piece, by the policy.
    pub fn make_room(
        &mut self,
        shared: &Shared,
        lane: LaneId,
        needed: u64,
    ) -> Result<(), WriteError> {
        if shared.settings.policy == FullPolicy::Reject {
            return Ok(());
        }
        let max_bytes = shared.settings.max_bytes;
        let over = || shared.lock().disk_bytes.saturating_add(needed) > max_bytes;
        if over() {
            self.purge_expired(shared).map_err(WriteError::Failed)?;
        }
        while over() {
            if !self.drop_oldest(shared, lane).map_err(WriteError::Failed)? {
                let used_bytes = shared.lock().disk_bytes;
                return Err(WriteError::Refused(AppendError::Full { used_bytes, max_bytes }));
            }
        }
        Ok(())
    }

    /// Drops the oldest segment of the least important lane that has one, but of none more important than `for_lane`.
    /// Says whether there was one.
    pub fn drop_oldest(&mut self, shared: &Shared, for_lane: LaneId) -> Result<bool, String> {
        let victim = {
            let state = shared.lock();
            let candidates = state.lanes.iter().rev().filter(|lane| lane.id >= for_lane);
            candidates.filter(|lane| !lane.segments.is_empty()).map(|lane| lane.id).next()
        };
        match victim {
            Some(lane) => self.give_up_front(shared, lane, SkipReason::Dropped),
            None => Ok(false),
        }
    }

    /// Drops every segment at the front of a lane in which every record's time to live has passed.
    pub fn purge_expired(&mut self, shared: &Shared) -> Result<(), String> {
        for index in 0..self.lanes.len() {
            let Some(lane) = self.lanes.get(index).map(|files| files.id) else { break };
            while read::front_is_expired(shared, lane) {
                if !self.give_up_front(shared, lane, SkipReason::Expired)? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Drops a lane's first segment; what it held above the cursor is listed as skipped.
    fn give_up_front(
        &mut self,
        shared: &Shared,
        lane: LaneId,
        reason: SkipReason,
    ) -> Result<bool, String> {
        let cursor = {
            let mut state = shared.lock();
            let Ok(lane) = state.lane_mut(lane) else { return Ok(false) };
            let Some(front) = lane.segments.front().map(|front| front.base) else {
                return Ok(false);
            };
            let beyond = EdgeSeq(lane.synced.0.saturating_add(1));
            let to = lane.segments.get(1).map_or(beyond, |segment| segment.base);
            lane.raise_floor();
            let mut cursor = lane.cursor.clone();
            let due = EdgeSeq(cursor.acknowledged.0.saturating_add(1));
            let from = cursor.skips.end().unwrap_or(due).max(due);
            let base = front.max(from).min(to);
            let lost = Skip { from, to: base, reason: SkipReason::Quarantined };
            let dropped = Skip { from: base, to, reason };
            count(&mut cursor, &dropped);
            for skip in [lost, dropped] {
                if skip.from < skip.to {
                    cursor.skips.push(skip);
                }
            }
            tracing::warn!(lane = %lane.id, from = %base, %to, ?reason, "queue segment given up");
            lane.cursor = cursor.clone();
            lane.note_expired(from, to, &[]);
            cursor
        };
        // Should the cursor not fit, the skips are in memory only: the file stays until they are durable.
        let stored = self.store_cursor_value(shared, lane, cursor)?;
        if stored {
            self.remove_front(shared, lane, 1)?;
        }
        Ok(stored)
    }

    /// Gives damaged segments the name that says so. They are no longer written to, but still read around.
    fn quarantine(&mut self, shared: &Shared, lane: LaneId) -> Result<(), String> {
        loop {
            let (segment, last) = {
                let state = shared.lock();
                let Ok(lane) = state.lane(lane) else { return Ok(()) };
                let wanted = lane.segments.iter().position(|segment| segment.quarantine_wanted);
                let Some(at) = wanted else { return Ok(()) };
                (lane.segments[at].clone(), at + 1 == lane.segments.len())
            };
            let lost = count_lost(shared, lane, &segment).unwrap_or(0);
            let files = self.lane_files(lane).map_err(|error| error.to_string())?;
            if last {
                files.active = None;
            }
            let bad = files.dir.join(segment::file_name(segment.base, true));
            let renamed = shared
                .disk
                .rename(&files.dir.join(segment::file_name(segment.base, false)), &bad)
                .and_then(|()| shared.disk.sync_dir(&files.dir));
            tracing::error!(%lane, segment = %bad.display(), lost, "queue segment damaged: its unreadable records are skipped");
            let mut state = shared.lock();
            let Ok(lane) = state.lane_mut(lane) else { return Ok(()) };
            lane.cursor.drops.quarantined_records += lost;
            lane.cursor_dirty_since.get_or_insert(shared.clock.now().uptime);
            let found = lane.segments.iter_mut().find(|other| other.base == segment.base);
            if let Some(found) = found {
                found.quarantine_wanted = false;
                found.bad = true;
            }
            if let Err(error) = renamed {
                return Err(format!("renaming a damaged segment to {}: {error}", bad.display()));
            }
        }
    }
}

/// Adds a dropped range to the lane's counters.
fn count(cursor: &mut Cursor, dropped: &Skip) {
    let records = dropped.to.0.saturating_sub(dropped.from.0);
    match dropped.reason {
        SkipReason::Expired => cursor.drops.expired_records += records,
        SkipReason::Dropped => cursor.drops.dropped_records += records,
        SkipReason::Quarantined => cursor.drops.quarantined_records += records,
    }
}

/// The sequences that a segment's damage costs.
fn count_lost(shared: &Shared, lane: LaneId, segment: &Segment) -> std::io::Result<u64> {
    let next_base = {
        let state = shared.lock();
        let lane = state.lane(lane).map_err(std::io::Error::other)?;
        let later = lane.segments.iter().find(|other| other.base > segment.base);
        later.map_or(EdgeSeq(lane.synced.0.saturating_add(1)), |other| other.base)
    };
    let path = shared.lane_dir(lane).join(segment::file_name(segment.base, segment.bad));
    let file = shared.disk.open(&path, false)?;
    let start = At { offset: HEADER_BYTES as u64, next: segment.base, digest: segment.base_digest };
    let mut scan =
        Scan::new(file.as_ref(), shared.salt(lane), start, segment.len, Unreadable::IsDamage);
    let mut lost = 0;
    while let Some(found) = scan.next()? {
        if let Found::Damage { from, to: Some(to), .. } = found {
            lost += to.0.saturating_sub(from.0);
        }
    }
    Ok(lost + next_base.0.saturating_sub(scan.at().next.0))
}

/// Finds the digest at what was acknowledged and moves the cursor there.
fn settle_acknowledgement(shared: &Shared, lane: LaneId) {
    let Some(through) = shared.lock().lane(lane).ok().and_then(|lane| lane.acknowledge_wanted)
    else {
        return;
    };
    let digest = read::digest_at(shared, lane, through).unwrap_or_else(|error| {
        tracing::warn!(%lane, %through, %error, "the digest at the acknowledged record cannot be read");
        None
    });
    if let Ok(lane) = shared.lock().lane_mut(lane) {
        lane.set_acknowledged(through, digest.unwrap_or_default(), shared.clock.now().uptime);
    }
}

/// Keeps the newest damaged segments that are no longer needed as evidence and removes the others.
pub(super) fn keep_newest_bad(shared: &Shared, lane: LaneId) {
    let dir = shared.lane_dir(lane);
    let in_use: Vec<EdgeSeq> = match shared.lock().lane(lane) {
        Ok(lane) => lane.segments.iter().map(|segment| segment.base).collect(),
        Err(_) => return,
    };
    let names = shared.disk.list(&dir).unwrap_or_default();
    let mut kept: Vec<EdgeSeq> = names
        .iter()
        .filter_map(|name| segment::parse_file_name(name))
        .filter(|(base, bad)| *bad && !in_use.contains(base))
        .map(|(base, _)| base)
        .collect();
    kept.sort_unstable();
    let excess = kept.len().saturating_sub(QUEUE_BAD_SEGMENTS_KEPT);
    for base in kept.into_iter().take(excess) {
        let path = dir.join(segment::file_name(base, true));
        if let Err(error) = shared.disk.remove(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove an old damaged segment");
        }
    }
}

/// Marks a segment in which a reader found damage; the writer does the rest.
pub(super) fn report_damage(shared: &Shared, lane: LaneId, base: EdgeSeq) {
    let mut state = shared.lock();
    let Ok(lane) = state.lane_mut(lane) else { return };
    let found = lane.segments.iter_mut().find(|segment| segment.base == base);
    if let Some(segment) = found.filter(|segment| !segment.bad) {
        segment.quarantine_wanted = true;
        shared.work.notify_one();
    }
}
