//! Deletes what lies in deleted ranges, key by key and in small steps, and then the notes (see [`super::ranges`]).
//!
//! A step reads what readers see, beside the writer; the writer then writes the step's deletions like any other batch. Keys that
//! were written into the range meanwhile are left out, since the step saw their older values.
//!
//! **Invariant:** a note goes only in a batch behind which no row is left that it kills. A crash in between repeats a step.
//!
//! What SlateDB cannot do is to list keys without their values: a deleted range is read once from the object store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use robustmq_common::limits;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::View;
use super::ranges::{DeletedRanges, Note, NoteId};
use crate::store::StoreError;

/// What one step found.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// Rows that are dead, by the keys that they are kept under.
    pub dead: Vec<Bytes>,
    /// Notes that nothing is left of behind this step.
    pub finished: Vec<NoteId>,
    /// Where the next step goes on.
    resume: Option<(NoteId, Bytes)>,
}

/// The notes that are left, and the step that is on its way.
#[derive(Default)]
pub(super) struct Removal {
    notes: BTreeMap<NoteId, Note>,
    next: u64,
    resume: Option<(NoteId, Bytes)>,
    reading: Option<JoinHandle<Result<Step, StoreError>>>,
    /// Keys written into deleted ranges since the step began to read.
    written: BTreeSet<Bytes>,
    paused_until: Option<Instant>,
}

impl Removal {
    pub(super) fn new(notes: BTreeMap<NoteId, Note>) -> Self {
        let next = notes.last_key_value().map_or(0, |(id, _)| id.0 + 1);
        Self { notes, next, ..Self::default() }
    }

    /// A number that no note had.
    pub(super) fn next_id(&mut self) -> NoteId {
        let id = NoteId(self.next);
        self.next += 1;
        id
    }

    pub(super) fn add(&mut self, id: NoteId, note: Note) {
        self.notes.insert(id, note);
    }

    /// Takes out a note that is finished, or that a newer one covers.
    pub(super) fn take(&mut self, id: NoteId) -> Option<Note> {
        self.notes.remove(&id)
    }

    /// The notes of `ids` that lie within `range` as a whole.
    pub(super) fn within(
        &self,
        ids: impl Iterator<Item = NoteId>,
        range: &std::ops::Range<Bytes>,
    ) -> Vec<NoteId> {
        let inside = |id: &NoteId| {
            self.notes
                .get(id)
                .is_some_and(|note| range.start <= note.range.start && note.range.end <= range.end)
        };
        ids.filter(inside).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Remembers that `key` was written, if a step that reads may have seen what it had before.
    pub(super) fn note_write(&mut self, key: &Bytes, deleted: &DeletedRanges) {
        let counts =
            self.reading.is_some() && self.written.len() <= limits::object::REMOVAL_WRITTEN;
        if counts && deleted.covers(key) {
            self.written.insert(key.clone());
        }
    }

    /// Begins a step if there is something to do and none is on its way. It reads `view`, which has to be the newest one.
    pub(super) fn begin(&mut self, view: &Arc<View>) {
        let waits = self.paused_until.is_some_and(|until| Instant::now() < until);
        if self.reading.is_some() || self.notes.is_empty() || waits {
            return;
        }
        self.written.clear();
        let resume = self.resume.take().filter(|(id, _)| self.notes.contains_key(id));
        let first = resume.as_ref().map_or(NoteId(0), |(id, _)| *id);
        let notes = self.notes.range(first..).take(limits::object::REMOVAL_RANGES);
        let mut notes: Vec<(NoteId, Note)> = notes.map(|(id, note)| (*id, note.clone())).collect();
        if let (Some((_, note)), Some((_, from))) = (notes.first_mut(), resume) {
            note.range.start = from;
        }
        self.reading = Some(tokio::spawn(read_step(Arc::clone(view), notes)));
    }

    /// Waits for the step that reads, or for when the next one may begin; for ever if there is nothing to do. Safe to drop.
    pub(super) async fn ready(&mut self) -> Option<Step> {
        if let Some(reading) = &mut self.reading {
            let outcome = reading.await;
            self.reading = None;
            return self.take_outcome(
                outcome.unwrap_or_else(|error| Err(StoreError::Read(error.to_string()))),
            );
        }
        match self.paused_until {
            Some(until) if !self.notes.is_empty() => {
                tokio::time::sleep_until(until).await;
                self.paused_until = None;
            }
            _ => std::future::pending().await,
        }
        None
    }

    fn take_outcome(&mut self, outcome: Result<Step, StoreError>) -> Option<Step> {
        match outcome {
            Ok(_) if self.written.len() > limits::object::REMOVAL_WRITTEN => {
                self.resume = None;
                self.paused_until = Some(Instant::now() + limits::object::REMOVAL_PAUSE);
                None
            }
            Ok(mut step) => {
                self.resume = step.resume.take();
                step.dead.retain(|key| !self.written.contains(key));
                Some(step)
            }
            Err(error) => {
                tracing::debug!(%error, "a deleted range could not be read, and is later");
                self.paused_until = Some(Instant::now() + limits::object::REMOVAL_PAUSE);
                None
            }
        }
    }

    /// Ends the step that reads; what it would have done is done at the next start.
    pub(super) fn stop(&mut self) {
        if let Some(reading) = self.reading.take() {
            reading.abort();
        }
    }
}

async fn read_step(view: Arc<View>, notes: Vec<(NoteId, Note)>) -> Result<Step, StoreError> {
    let mut step = Step::default();
    let (mut keys, mut bytes) = (0, 0);
    for (id, note) in notes {
        let mut rows = view.rows(&note.range, limits::object::READ_AHEAD_BYTES).await?;
        while let Some(row) = rows.next().await.map_err(|error| super::read_failed(&error))? {
            keys += 1;
            bytes += row.key.len() + row.value.len();
            // Keeping the key must not keep the block that it came with.
            let key = Bytes::copy_from_slice(&row.key);
            if keys > limits::object::REMOVAL_KEYS || bytes > limits::object::REMOVAL_BYTES {
                if row.seq < note.seq {
                    step.dead.push(key.clone());
                }
                step.resume = Some((id, successor(&key)));
                return Ok(step);
            }
            if row.seq < note.seq {
                step.dead.push(key);
            }
        }
        step.finished.push(id);
    }
    Ok(step)
}

/// The first key behind `key`.
fn successor(key: &Bytes) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}
