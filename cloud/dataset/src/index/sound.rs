//! Records of objects that are compressed are published when the checksum of their content was right, as far as there is room for what is
//! read ahead of that: a checksum comes after all that it is of.

use robustmq_common::limits::dataset as limits;

use super::{Cutter, Found, ObjectIndex};
use crate::fetch::{FetchError, Object};
use crate::format::Damage;
use crate::format::decode::DecodeError;

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

    /// The content cannot be had any further. What is not `sound` is left out if it is damaged, unless it was published: then it is lost.
    pub(super) fn fails(&mut self, error: &DecodeError, sound: u64) {
        if !matches!(error, DecodeError::Damaged { .. }) {
            return self.broken(&error.to_string());
        }
        let extents = sound_extents(&self.index, sound);
        if self.published > extents {
            self.index.lost_from = self.index.extents.get(extents).map(|first| first.first_record);
        }
        self.index.extents.truncate(self.published.max(extents));
        let reason = format!("{error}; what it holds from byte {sound} on is left out");
        self.index.note(Damage { at: sound, reason });
        self.buffer.clear();
        self.is_end = true;
    }
}

/// How many extents end within the first `sound` bytes.
fn sound_extents(index: &ObjectIndex, sound: u64) -> usize {
    index.extents.partition_point(|extent| extent.start + u64::from(extent.bytes) <= sound)
}

impl ObjectIndex {
    /// Why a record cannot be read that was published.
    ///
    /// # Errors
    /// [`FetchError::Damaged`].
    pub fn check(&self, object: &Object, record: u64) -> Result<(), FetchError> {
        match self.lost_from {
            Some(from) if record >= from => {
                let reason = self.damage.last().map(|damage| damage.reason.clone());
                let reason = reason.unwrap_or_else(|| "its content is damaged".to_owned());
                Err(FetchError::Damaged { object: object.path.to_string(), reason })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
