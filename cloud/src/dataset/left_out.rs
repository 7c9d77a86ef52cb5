//! Objects that are gone, or were replaced, before they were counted to their ends. With `robustmq.source.on.corrupt = skip` the log goes on
//! behind them: what has offsets is lost, and the rest is left out.
//!
//! That is for good: an object that is put back afterwards has no records. What was counted before keeps its offsets, and is null as long as it is
//! gone; but readers do not come back for that. So both is done only as long as objects next to it can be read: where a folder is not mounted, a
//! bucket is not there or all of it was uploaded again, the log waits.

use robustmq_common::limits::dataset as limits;
use robustmq_dataset::epochs::Place;
use robustmq_dataset::fetch::{FetchError, Object};
use robustmq_dataset::index::{ObjectIndex, Reading};

use super::partition::{DatasetPartition, PartitionError};
use crate::topics::OnCorrupt;

/// Whether the object that was listed is not there.
pub(super) fn is_gone(error: &FetchError) -> bool {
    match error {
        FetchError::Gone(_) | FetchError::Changed { .. } => true,
        FetchError::Forbidden { .. }
        | FetchError::Unavailable { .. }
        | FetchError::Damaged { .. }
        | FetchError::Lost { .. } => false,
    }
}

/// What is to be done where a log ends at an object that is gone.
pub(super) fn what_to_do(on_corrupt: OnCorrupt) -> &'static str {
    match on_corrupt {
        OnCorrupt::Skip => {
            "; the log cannot go on behind it: it was not counted to its end, and is not left out, since none of the objects next to it can \
             be read either: put them back as they were (is the source mounted?), or create another topic"
        }
        OnCorrupt::Stop => {
            "; the log cannot go on behind it: it was not counted to its end: put it back as it was, leave it out with \
             robustmq.source.on.corrupt=skip, or create another topic"
        }
    }
}

impl DatasetPartition {
    /// What an object holds that could not be read to its end, if the log may go on behind it. Of its records, so many have offsets.
    ///
    /// # Errors
    /// The log ends there: for what was wrong with it, or is by now.
    pub(super) async fn without(
        &self,
        number: u64,
        object: &Object,
        reading: Reading,
        promised: u64,
        error: FetchError,
    ) -> Result<ObjectIndex, PartitionError> {
        let dataset = &self.dataset;
        let is_left_out = is_gone(&error)
            && dataset.live().on_corrupt == OnCorrupt::Skip
            && self.has_readable_neighbour(self.ordinal(number)).await?;
        if !is_left_out {
            return Err(error.into());
        }
        // Its folder may have been mounted in between.
        let error = match dataset.group.source.get(object, 0..object.size.min(1)).await {
            Err(still) if is_gone(&still) => still,
            Err(another) => return Err(another.into()),
            Ok(_) => {
                let reason = "it was not there a moment ago".to_owned();
                let object = object.path.to_string();
                return Err(FetchError::Unavailable { object, reason }.into());
            }
        };
        let reason = match error {
            FetchError::Changed { reason, .. } => {
                format!("it was changed before it was counted to its end: {reason}")
            }
            _ => "it is gone: it was deleted before it was counted to its end".to_owned(),
        };
        let known = self.state().grown(number).cloned();
        Ok(ObjectIndex::left_out(reading, known.as_deref(), promised, reason))
    }

    /// Records that were published are lost where their object is gone, but not where those next to it are too.
    ///
    /// # Errors
    /// [`FetchError::Unavailable`].
    pub(super) async fn check_neighbours(
        &self,
        error: &FetchError,
        place: &Place,
    ) -> Result<(), PartitionError> {
        if !is_gone(error) || self.has_readable_neighbour(self.ordinal(place.object)).await? {
            return Ok(());
        }
        let (object, _) = self.object(place.object).await?;
        let reason = format!(
            "{error}; and none of the objects next to it can be read either: is the source mounted?"
        );
        Err(FetchError::Unavailable { object: object.path.to_string(), reason }.into())
    }

    /// Whether one of the objects next to one in the manifest is there, as it was listed.
    async fn has_readable_neighbour(&self, ordinal: u64) -> Result<bool, PartitionError> {
        let (dataset, most) = (&self.dataset, limits::NEIGHBOURS as u64);
        let objects = dataset.manifest.listed().objects;
        let near = (1..=most).flat_map(|distance| {
            let after = ordinal.checked_add(distance).filter(|after| *after < objects);
            [ordinal.checked_sub(distance), after].into_iter().flatten()
        });
        for neighbour in near.take(limits::NEIGHBOURS) {
            let object = dataset.manifest.object(neighbour).await?;
            // Nothing is asked for what is empty.
            if object.size > 0 && dataset.group.source.get(&object, 0..1).await.is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
