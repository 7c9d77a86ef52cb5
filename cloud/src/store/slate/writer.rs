//! The writer: what waits becomes one SlateDB batch, that becomes one object, and then readers see it and it is answered.
//!
//! **Invariant:** one batch is on its way at a time, so whatever SlateDB holds when a batch is durable is durable.
//! **Invariant:** what readers see changes as a whole: the snapshot and the deleted ranges that belong to it (see [`View`]).
//! **Invariant:** any error of SlateDB's ends all writing: it leaves open what the object store holds.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use robustmq_common::chain::chain;
use slatedb::config::{FlushOptions, FlushType};
use slatedb::{CloseReason, Db, DbStatus, ErrorKind};
use tokio::sync::watch;
use tokio::time::Instant;

use super::queue::WriteQueue;
use super::ranges::{self, DeletedRanges, Note, NoteId};
use super::removal::{Removal, Step};
use super::{Published, View};
use crate::store::write::QueuedWrite;
use crate::store::{StoreError, WriteOp};

pub(super) struct Writer {
    pub db: Db,
    pub name: String,
    pub queue: Arc<WriteQueue>,
    pub published: Arc<Published>,
    pub deleted: Arc<DeletedRanges>,
    pub removal: Removal,
    pub flush_interval: Duration,
}

/// A batch for SlateDB, and what it does to the deleted ranges.
#[derive(Default)]
struct Plan {
    batch: slatedb::WriteBatch,
    deleted: Vec<(NoteId, Range<Bytes>)>,
    /// Notes of which nothing is left.
    finished: Vec<NoteId>,
    /// Notes that a newer one covers.
    covered: Vec<NoteId>,
}

impl Writer {
    /// Runs until the queue was closed and is empty, or the store failed.
    pub(super) async fn run(mut self) {
        let mut status = self.db.subscribe();
        let mut last_flush: Option<Instant> = None;
        loop {
            if let Some(view) = self.published.view() {
                self.removal.begin(&view);
            }
            let step = tokio::select! {
                biased;
                reason = closed(&mut status) => {
                    let error = self.ended(reason);
                    return self.queue.answer(Vec::new(), &Err(error));
                }
                () = self.queue.work() => None,
                step = self.removal.ready() => match step {
                    Some(step) => Some(step),
                    None => continue,
                },
            };
            if let Some(last) = last_flush
                && !self.queue.is_closing()
            {
                tokio::time::sleep_until(last + self.flush_interval).await;
            }
            if step.is_none() && self.queue.is_done() {
                self.removal.stop();
                return;
            }
            last_flush = Some(Instant::now());
            let group = self.queue.begin_group();
            let plan = self.plan(&group, step);
            let outcome = self.write(plan).await;
            let failed = outcome.is_err();
            self.queue.answer(group, &outcome);
            if failed {
                return self.removal.stop();
            }
        }
    }

    /// `Ok`: it is durable, and readers see it.
    async fn write(&mut self, plan: Plan) -> Result<(), StoreError> {
        let Plan { batch, deleted, finished, covered } = plan;
        let failed = |error: slatedb::Error| write_failed(&self.name, &error);
        let written = self.db.write(batch).await.map_err(failed)?;
        let options = FlushOptions { flush_type: FlushType::Wal };
        self.db.flush_with_options(options).await.map_err(failed)?;
        written.await_durable().await.map_err(failed)?;
        let snapshot = self.db.snapshot().map_err(failed)?;
        if !deleted.is_empty() || !finished.is_empty() {
            let ranges = Arc::make_mut(&mut self.deleted);
            for id in finished {
                if let Some(note) = self.removal.finish(id) {
                    ranges.remove(id, &note.range);
                }
            }
            for id in covered {
                if let Some(note) = self.removal.take(id) {
                    ranges.remove(id, &note.range);
                }
            }
            for (id, range) in deleted {
                let note = Note { range, seq: written.seqnum() };
                ranges.insert(id, &note);
                self.removal.add(id, note);
            }
        }
        self.published.publish(View { snapshot, deleted: Arc::clone(&self.deleted) });
        Ok(())
    }

    /// What a group and a step of the removal come to.
    fn plan(&mut self, group: &[QueuedWrite], step: Option<Step>) -> Plan {
        let mut plan = Plan::default();
        if let Some(step) = step {
            for key in step.dead {
                plan.batch.delete(key);
            }
            plan.finished = step.finished;
        }
        let ops = || group.iter().flat_map(|write| &write.ops);
        if ops().any(|op| matches!(op, WriteOp::DeleteRange(_))) {
            self.plan_with_ranges(ops(), &mut plan);
        } else {
            for op in ops() {
                match op {
                    WriteOp::Put(key, value) => {
                        let key = ranges::data_key(key);
                        self.removal.note_write(&key, &self.deleted);
                        plan.batch.put_bytes(key, value.clone());
                    }
                    WriteOp::Delete(key) => plan.batch.delete(ranges::data_key(key)),
                    WriteOp::DeleteRange(_) => {}
                }
            }
        }
        for id in plan.finished.iter().chain(&plan.covered) {
            plan.batch.delete(id.key());
        }
        if plan.batch.is_empty() {
            plan.batch.put_bytes(Bytes::from_static(&ranges::PROBE_KEY), Bytes::new());
        }
        plan
    }

    /// A range deletion does not reach what its own batch puts: what was put before it in the group is taken out here.
    fn plan_with_ranges<'a>(&mut self, ops: impl Iterator<Item = &'a WriteOp>, plan: &mut Plan) {
        let mut changes: BTreeMap<Bytes, Option<&Bytes>> = BTreeMap::new();
        for op in ops {
            match op {
                WriteOp::Put(key, value) => {
                    changes.insert(ranges::data_key(key), Some(value));
                }
                WriteOp::Delete(key) => {
                    changes.insert(ranges::data_key(key), None);
                }
                WriteOp::DeleteRange(range) if range.start < range.end => {
                    let range = ranges::data_key(&range.start)..ranges::data_key(&range.end);
                    let dead: Vec<Bytes> =
                        changes.range(range.clone()).map(|(key, _)| key.clone()).collect();
                    for key in dead {
                        changes.remove(&key);
                    }
                    plan.covered.extend(self.removal.within(self.deleted.notes_in(&range), &range));
                    plan.deleted.push((self.removal.next_id(), range));
                }
                WriteOp::DeleteRange(_) => {}
            }
        }
        for (key, value) in changes {
            match value {
                Some(value) => {
                    self.removal.note_write(&key, &self.deleted);
                    plan.batch.put_bytes(key, value.clone());
                }
                None => plan.batch.delete(key),
            }
        }
        for (id, range) in &plan.deleted {
            plan.batch.put_bytes(id.key(), ranges::encode_note(range));
        }
    }

    /// Why SlateDB has ended. What it refuses from then on carries the error that ended it.
    fn ended(&self, reason: CloseReason) -> StoreError {
        match self.db.snapshot() {
            Err(error) => write_failed(&self.name, &error),
            Ok(_) => StoreError::Poisoned(closed_text(&self.name, reason)),
        }
    }
}

/// Waits until SlateDB has ended by itself.
async fn closed(status: &mut watch::Receiver<DbStatus>) -> CloseReason {
    let ended = status.wait_for(|status| status.close_reason.is_some()).await;
    ended.ok().and_then(|status| status.close_reason).unwrap_or(CloseReason::Panic)
}

fn closed_text(name: &str, reason: CloseReason) -> String {
    match reason {
        CloseReason::Fenced => format!(
            "another broker has opened {name}, so this one may not write there any more; run one broker on it, or give each its own prefix"
        ),
        CloseReason::Clean => format!("{name} was closed"),
        _ => format!("SlateDB ended by itself on {name}"),
    }
}

fn write_failed(name: &str, error: &slatedb::Error) -> StoreError {
    StoreError::Poisoned(match error.kind() {
        ErrorKind::Closed(reason @ (CloseReason::Fenced | CloseReason::Clean)) => {
            closed_text(name, reason)
        }
        _ => format!("a write to {name} failed: {}", chain(error)),
    })
}
