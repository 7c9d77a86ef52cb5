//! Deletes what lies in deleted ranges, key by key and in small steps, and then the notes (see [`super::ranges`]).
//!
//! A step reads what readers see, beside the writer; the writer then writes the step's deletions like any other batch. Keys that
//! were written into the range meanwhile are left out, since the step saw their older values.
//!
//! **Invariant:** a note goes only in a batch behind which no row is left that it kills. A crash in between repeats a step.
//!
//! What SlateDB cannot do is to list keys without their values: a deleted range is read once from the object store. Retention deletes
//! from the same place again and again, each time a little further; so it is remembered what is empty, or all that was ever deleted there,
//! and not yet compacted, would be read each time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Range};
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
    /// Rows that live, by their keys: put into the range after, or in the batch that deleted it.
    alive: Vec<Bytes>,
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
    /// Keys written into deleted ranges since the last step began to read.
    written: BTreeSet<Bytes>,
    /// Those of the steps before, if the last one went on with a note; and keys that were found alive.
    alive: BTreeSet<Bytes>,
    /// Ranges that hold nothing, from start to end; they do not overlap.
    empty: BTreeMap<Bytes, Bytes>,
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

    /// Takes out a note of which nothing is left.
    pub(super) fn finish(&mut self, id: NoteId) -> Option<Note> {
        let note = self.take(id)?;
        let Range { start, end } = note.range.clone();
        let untouched = |keys: &BTreeSet<Bytes>| {
            keys.len() <= limits::object::REMOVAL_WRITTEN
                && keys.range(start.clone()..end.clone()).next().is_none()
        };
        if untouched(&self.written) && untouched(&self.alive) {
            self.remember_empty(start, end);
        }
        Some(note)
    }

    fn remember_empty(&mut self, start: Bytes, end: Bytes) {
        if let Some((first, _)) = self.empty_at(&start) {
            self.empty.remove(&first);
        }
        let within: Vec<Bytes> =
            self.empty.range(start.clone()..end.clone()).map(|(key, _)| key.clone()).collect();
        for key in within {
            self.empty.remove(&key);
        }
        self.empty.insert(start, end);
        if self.empty.len() > limits::object::REMOVAL_REMEMBERED {
            self.empty.pop_first();
        }
    }

    /// The range around `key` that holds nothing.
    fn empty_at(&self, key: &[u8]) -> Option<(Bytes, Bytes)> {
        let up_to = (Bound::Unbounded, Bound::Included(key));
        let (start, end) = self.empty.range::<[u8], _>(up_to).next_back()?;
        (key < end.as_ref()).then(|| (start.clone(), end.clone()))
    }

    /// Where there may be something of a note's range.
    fn first_key(&self, note: &Note) -> Bytes {
        match self.empty_at(&note.range.start) {
            Some((_, end)) => end.min(note.range.end.clone()),
            None => note.range.start.clone(),
        }
    }

    /// Takes out a note that a newer one covers.
    pub(super) fn take(&mut self, id: NoteId) -> Option<Note> {
        self.notes.remove(&id)
    }

    /// The notes of `ids` that lie within `range` as a whole.
    pub(super) fn within(
        &self,
        ids: impl Iterator<Item = NoteId>,
        range: &Range<Bytes>,
    ) -> Vec<NoteId> {
        let inside = |id: &NoteId| {
            self.notes
                .get(id)
                .is_some_and(|note| range.start <= note.range.start && note.range.end <= range.end)
        };
        ids.filter(inside).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Remembers that `key` was written: a step that reads may have seen what it had before, and nothing is empty around it.
    pub(super) fn note_write(&mut self, key: &Bytes, deleted: &DeletedRanges) {
        if let Some((start, _)) = self.empty_at(key) {
            self.empty.remove(&start);
        }
        let counts =
            !self.notes.is_empty() && self.written.len() <= limits::object::REMOVAL_WRITTEN;
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
        let resume = self.resume.take().filter(|(id, _)| self.notes.contains_key(id));
        let written = std::mem::take(&mut self.written);
        match &resume {
            Some(_) if self.alive.len() <= limits::object::REMOVAL_WRITTEN => {
                self.alive.extend(written);
            }
            Some(_) => {}
            None => self.alive.clear(),
        }
        let first = resume.as_ref().map_or(NoteId(0), |(id, _)| *id);
        let notes = self.notes.range(first..).take(limits::object::REMOVAL_RANGES);
        let mut notes: Vec<(NoteId, Note)> = notes.map(|(id, note)| (*id, note.clone())).collect();
        for (_, note) in &mut notes {
            note.range.start = self.first_key(note);
        }
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
                // More of them say no more than these.
                if self.alive.len() <= limits::object::REMOVAL_WRITTEN {
                    self.alive.extend(std::mem::take(&mut step.alive));
                }
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
        if note.range.start >= note.range.end {
            // SlateDB panics at an empty range, and this one may be read to its end or known to be empty.
            step.finished.push(id);
            continue;
        }
        let mut rows = view.rows(&note.range, limits::object::READ_AHEAD_BYTES).await?;
        while let Some(row) = rows.next().await.map_err(|error| super::read_failed(&error))? {
            keys += 1;
            bytes += row.key.len() + row.value.len();
            // Keeping the key must not keep the block that it came with.
            let key = Bytes::copy_from_slice(&row.key);
            let last = keys > limits::object::REMOVAL_KEYS || bytes > limits::object::REMOVAL_BYTES;
            if last {
                step.resume = Some((id, successor(&key)));
            }
            if row.seq < note.seq {
                step.dead.push(key);
            } else {
                step.alive.push(key);
            }
            if last {
                return Ok(step);
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

#[cfg(test)]
mod tests {
    use super::{Bytes, DeletedRanges, Note, NoteId, Removal};

    fn note(to: &'static str, seq: u64) -> Note {
        Note { range: Bytes::from_static(b"a")..Bytes::from_static(to.as_bytes()), seq }
    }

    fn with_one() -> (Removal, DeletedRanges) {
        let (mut removal, mut deleted) = (Removal::default(), DeletedRanges::default());
        removal.add(NoteId(0), note("m", 1));
        deleted.insert(NoteId(0), &note("m", 1));
        assert_eq!(removal.first_key(&note("m", 1)), "a");
        (removal, deleted)
    }

    /// Each retention of a partition read all that earlier ones had deleted and compaction had not reached.
    #[test]
    fn what_was_emptied_is_not_read_again_until_it_is_written() {
        let (mut removal, mut deleted) = with_one();
        let finished = removal.finish(NoteId(0)).expect("it was added");
        deleted.remove(NoteId(0), &finished.range);
        assert_eq!(removal.first_key(&note("p", 2)), "m");
        assert_eq!(removal.first_key(&note("c", 2)), "c");
        removal.note_write(&Bytes::from_static(b"z"), &deleted);
        assert_eq!(removal.first_key(&note("p", 2)), "m");
        removal.note_write(&Bytes::from_static(b"b"), &deleted);
        assert_eq!(removal.first_key(&note("p", 2)), "a");
    }

    #[test]
    fn a_range_that_was_written_while_it_was_emptied_is_not_taken_for_empty() {
        let (mut removal, deleted) = with_one();
        removal.note_write(&Bytes::from_static(b"b"), &deleted);
        removal.finish(NoteId(0));
        assert_eq!(removal.first_key(&note("p", 2)), "a");
    }
}
