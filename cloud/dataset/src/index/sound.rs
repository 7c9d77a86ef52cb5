//! Records of objects that are compressed are published when the checksum of their content was right, as far as there is room for what is
//! read ahead of that: a checksum comes after all that it is of.

use robustmq_common::limits::dataset as limits;
use serde::{Deserialize, Serialize};

use super::{Cutter, ExtentIndex, Found, ObjectIndex};
use crate::fetch::{FetchError, Object};
use crate::format::decode::DecodeError;

/// Records whose content is damaged, as was found after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// The number of the first.
    pub from: u64,
    /// Why.
    pub reason: String,
}

impl Cutter<'_> {
    /// All that was found may be read.
    pub(super) fn publish(&mut self, found: &mut impl Found) {
        if self.published < self.index.extents.len() {
            self.published = self.index.extents.len();
            found.publish(&self.index);
        }
    }

    /// What was found may be read as far as its content is `sound`, and all of it where it would be too much to wait with.
    pub(super) fn publish_sound(&mut self, sound: u64, found: &mut impl Found) {
        let extents = sound_extents(&self.index, sound);
        if extents > self.published {
            self.published = extents;
            let mut index = self.index.clone();
            index.extents.truncate(extents);
            found.publish(&index);
        }
        let waiting = self.index.extents.iter().skip(self.published);
        let waiting: u64 = waiting.map(|extent| u64::from(extent.bytes)).sum();
        if waiting > 0 && (waiting >= limits::UNSOUND_BYTES || !found.wants(waiting)) {
            self.publish(found);
        }
    }

    /// The content cannot be had any further. What is not `sound` is lost if it is damaged: it keeps its offsets, since how much of it was published
    /// already, by whoever began to read the object before, is not known.
    pub(super) fn fails(&mut self, error: &DecodeError, sound: u64) {
        if !matches!(error, DecodeError::Damaged { .. }) {
            return self.broken(&error.to_string());
        }
        let first_lost = self.index.extents.get(sound_extents(&self.index, sound));
        let first_lost = first_lost.map_or(self.index.records(), |first| first.first_record);
        let reason = format!("{error}; what it holds from about byte {sound} on is lost");
        self.broken(&reason);
        self.index.lost = Some(Lost { from: first_lost, reason });
    }
}

/// How many extents end within the first `sound` bytes.
fn sound_extents(index: &ObjectIndex, sound: u64) -> usize {
    index.extents.partition_point(|extent| extent.start + u64::from(extent.bytes) <= sound)
}

impl ObjectIndex {
    /// Whether a record has an offset, and no content that is whole.
    #[must_use]
    pub fn is_lost(&self, record: u64) -> bool {
        self.lost.as_ref().is_some_and(|lost| record >= lost.from)
    }

    /// Extents whose records can be read.
    pub fn readable(&self) -> impl Iterator<Item = &ExtentIndex> {
        self.extents.iter().take_while(|extent| !self.is_lost(extent.first_record))
    }

    /// Why a record cannot be read that was published.
    ///
    /// # Errors
    /// [`FetchError::Damaged`].
    pub fn check(&self, object: &Object, record: u64) -> Result<(), FetchError> {
        match &self.lost {
            Some(lost) if record >= lost.from => {
                let reason = lost.reason.clone();
                Err(FetchError::Damaged { object: object.path.to_string(), reason })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
