//! Why partitions do not go on: where their logs end, or cannot be read, and what has to be looked at. It outlives the partition, which is
//! closed when nobody uses it: a consumer that seems to hang is looked into when it has been stopped, too.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use robustmq_common::ids::{PartitionIndex, TopicId};
use robustmq_common::limits::dataset as limits;
use tokio::time::Instant;

use super::partition::PartitionError;

/// Of all dataset topics. One entry for each partition that has some.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    partitions: Mutex<HashMap<(TopicId, PartitionIndex), Partition>>,
    /// Places that were found to be damaged since the start, and left out.
    left_out: AtomicU64,
    /// Records that readers have come upon since the start, and that are not there any more.
    lost_records: AtomicU64,
}

/// What does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// The log ends there.
    Counting,
    /// A reader could not be given what is there.
    Reading,
}

#[derive(Debug, Default)]
struct Partition {
    counting: Option<Trouble>,
    reading: Option<Trouble>,
}

#[derive(Debug)]
struct Trouble {
    offset: i64,
    reason: String,
    /// It does not pass by itself.
    is_final: bool,
    /// When it was met last.
    met: Instant,
}

impl Trouble {
    fn new(offset: i64, reason: String, error: &PartitionError) -> Self {
        Self { offset, reason, is_final: error.is_final(), met: Instant::now() }
    }

    /// What may have passed, and was not met again for long, is not told any more.
    fn is_told(&self) -> bool {
        self.is_final || self.met.elapsed() < limits::TROUBLE_TOLD
    }
}

/// Puts one in the place of another. Whether it is another.
fn replace(place: &mut Option<Trouble>, trouble: Trouble) -> bool {
    let is_new = place.as_ref().is_none_or(|before| before.reason != trouble.reason);
    *place = Some(trouble);
    is_new
}

impl Troubles {
    fn lock(&self) -> MutexGuard<'_, HashMap<(TopicId, PartitionIndex), Partition>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counting or reading does not go on at `offset`; `reason` is the error as people are told it. Whether that is new.
    pub fn meets(
        &self,
        id: (TopicId, PartitionIndex),
        doing: Doing,
        offset: i64,
        reason: String,
        error: &PartitionError,
    ) -> bool {
        let trouble = Trouble::new(offset, reason, error);
        let mut all = self.lock();
        let partition = all.entry(id).or_default();
        let place = match doing {
            Doing::Counting => &mut partition.counting,
            Doing::Reading => &mut partition.reading,
        };
        replace(place, trouble)
    }

    /// Partitions whose logs end, or cannot be read, as far as somebody has tried.
    pub fn partitions(&self) -> usize {
        let is_told = |trouble: &Option<Trouble>| trouble.as_ref().is_some_and(Trouble::is_told);
        let all = self.lock();
        let troubled =
            |partition: &&Partition| is_told(&partition.counting) || is_told(&partition.reading);
        all.values().filter(troubled).count()
    }

    /// So many places of an object were found to be damaged.
    pub fn note_left_out(&self, places: u64) {
        self.left_out.fetch_add(places, Ordering::Relaxed);
    }

    /// How many, since the start.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// A reader has come upon so many records that are not there any more.
    pub fn note_lost(&self, records: u64) {
        self.lost_records.fetch_add(records, Ordering::Relaxed);
    }

    /// How many, since the start.
    pub fn lost_records(&self) -> u64 {
        self.lost_records.load(Ordering::Relaxed)
    }

    /// Whether a partition's log ends at or before `end` and does not go on.
    pub fn has_ended(&self, id: (TopicId, PartitionIndex), end: i64) -> bool {
        let all = self.lock();
        let counting = all.get(&id).and_then(|partition| partition.counting.as_ref());
        counting.is_some_and(|trouble| trouble.offset <= end)
    }

    /// Why a partition's log ends, if that does not pass by itself and was met since then.
    pub fn end_for_good(&self, id: (TopicId, PartitionIndex), since: Instant) -> Option<String> {
        let all = self.lock();
        let counting = all.get(&id)?.counting.as_ref();
        let counting = counting.filter(|trouble| trouble.is_final && trouble.met >= since)?;
        Some(format!("partition {} ends at offset {}: {}", id.1, counting.offset, counting.reason))
    }

    /// Its log ends at `end` now, and it is not known to end there. What does not pass by itself may just not have been met again: it is over when
    /// the log has come past it, or has come to its end (`is_complete`).
    pub fn goes_on(&self, id: (TopicId, PartitionIndex), end: i64, is_complete: bool) {
        self.change(id, |partition| {
            let is_over =
                |trouble: &mut Trouble| !trouble.is_final || is_complete || end > trouble.offset;
            partition.counting.take_if(is_over);
        });
    }

    /// A reader was given these.
    pub fn was_read(&self, id: (TopicId, PartitionIndex), offsets: &Range<i64>) {
        self.change(id, |partition| {
            partition.reading.take_if(|trouble| offsets.contains(&trouble.offset));
        });
    }

    fn change(&self, id: (TopicId, PartitionIndex), change: impl FnOnce(&mut Partition)) {
        let mut all = self.lock();
        let Some(partition) = all.get_mut(&id) else { return };
        change(partition);
        if partition.counting.is_none() && partition.reading.is_none() {
            all.remove(&id);
        }
    }

    /// What there is of a partition, in words.
    pub fn of(&self, id: (TopicId, PartitionIndex)) -> Vec<String> {
        let all = self.lock();
        let Some(Partition { counting, reading }) = all.get(&id) else { return Vec::new() };
        let told = |trouble: &Option<Trouble>, what: &str, more: &str| {
            let Trouble { offset, reason, .. } = trouble.as_ref().filter(|t| t.is_told())?;
            Some(format!("partition {} {what} at offset {offset}: {reason}{more}", id.1))
        };
        let readers =
            "; readers are told KAFKA_STORAGE_ERROR, which most clients try again without end";
        let told = [told(counting, "ends", ""), told(reading, "cannot be read", readers)];
        told.into_iter().flatten().collect()
    }

    /// A topic is deleted.
    pub fn forget(&self, topic: TopicId) {
        self.lock().retain(|(of, _), _| *of != topic);
    }
}

#[cfg(test)]
mod tests {
    use robustmq_dataset::fetch::FetchError;

    use super::{Doing, PartitionError, PartitionIndex, TopicId, Troubles, limits};

    #[tokio::test(start_paused = true)]
    async fn what_does_not_pass_by_itself_is_told_until_it_is_over() {
        let troubles = Troubles::default();
        let id = (TopicId::random(), PartitionIndex(3));
        let gone = PartitionError::Fetch(FetchError::Gone("a.tar".to_owned()));
        let busy = FetchError::Unavailable { object: "b.tar".to_owned(), reason: "503".to_owned() };
        let busy = PartitionError::from(busy);
        let unreadable = || troubles.meets(id, Doing::Reading, 7, gone.to_string(), &gone);
        let ends_at = |id, offset, error: &PartitionError| {
            troubles.meets(id, Doing::Counting, offset, error.to_string(), error)
        };
        let ends = |error: &PartitionError| ends_at(id, 10, error);
        assert!(unreadable() && !unreadable());
        assert!(ends(&busy));
        let other = (TopicId::random(), PartitionIndex(0));
        ends_at(other, 1, &busy);
        assert_eq!(troubles.partitions(), 2, "each counts once");
        let told = troubles.of(id);
        assert!(told[0].starts_with("partition 3 ends at offset 10: b.tar"), "{told:?}");
        assert!(
            told[1].starts_with("partition 3 cannot be read at offset 7: a.tar is gone"),
            "{told:?}"
        );
        tokio::time::advance(limits::TROUBLE_TOLD).await;
        assert_eq!(troubles.of(id), told[1..], "the other may be over");
        assert_eq!(troubles.partitions(), 1);
        troubles.forget(other.0);
        troubles.was_read(id, &(8..12));
        assert_eq!(troubles.of(id).len(), 1, "others' reads say nothing of it");
        troubles.was_read(id, &(5..8));
        assert!(troubles.of(id).is_empty());
        troubles.goes_on(id, 5, false);
        assert!(troubles.lock().is_empty(), "nothing is left");
        for (end, is_complete, left) in [(10, false, 1), (11, false, 0), (3, true, 0)] {
            ends(&gone);
            troubles.goes_on(id, end, is_complete);
            assert_eq!(troubles.of(id).len(), left, "{end} {is_complete}");
        }
        ends(&gone);
        troubles.forget(id.0);
        assert!(troubles.of(id).is_empty() && troubles.partitions() == 0);
    }
}
