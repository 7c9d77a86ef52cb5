//! Records of objects that are compressed are published when the checksum of their content was right, as far as there is room for what is
//! read ahead of that: a checksum comes after all that it is of.
//!
//! **Invariant:** a record that was published keeps its number, whatever is found out afterwards; what was not published and cannot be read
//! has none.

use robustmq_common::limits::dataset as limits;
use serde::{Deserialize, Serialize};

use super::{Cutter, ExtentIndex, Found, ObjectIndex, Reading, stopped};
use crate::fetch::{FetchError, Object};
use crate::format::Damage;
use crate::format::decode::DecodeError;

/// Records with offsets whose content is damaged, or gone, as was found after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// The number of the first.
    pub from: u64,
    /// Why.
    pub reason: String,
}

impl Cutter<'_> {
    /// All that was found may be read.
    pub(super) async fn publish(&mut self, found: &mut impl Found) -> Result<(), FetchError> {
        if self.published < self.index.extents.len() {
            self.published = self.index.extents.len();
            self.published(found.publish(&self.index).await)?;
        }
        Ok(())
    }

    fn published(&self, may_be_read: bool) -> Result<(), FetchError> {
        if may_be_read { Ok(()) } else { Err(stopped(self.object)) }
    }

    /// What was found may be read as far as its content is `sound`, and all of it where it would be too much to wait with.
    pub(super) async fn publish_sound(
        &mut self,
        sound: u64,
        found: &mut impl Found,
    ) -> Result<(), FetchError> {
        let extents = sound_extents(&self.index, sound);
        if extents > self.published {
            self.published = extents;
            let mut index = self.index.clone();
            index.extents.truncate(extents);
            self.published(found.publish(&index).await)?;
        }
        let waiting = self.index.extents.iter().skip(self.published);
        let waiting: u64 = waiting.map(|extent| u64::from(extent.bytes)).sum();
        if waiting > 0 && (waiting >= limits::UNSOUND_BYTES || !found.wants(waiting)) {
            self.publish(found).await?;
        }
        Ok(())
    }

    /// The content cannot be had any further. If it is damaged, what is not `sound` is left out; but what has offsets, by this reading of the
    /// object or by one before it, keeps them, and is lost.
    pub(super) fn fails(&mut self, error: &DecodeError, sound: u64, found: &mut impl Found) {
        if !matches!(error, DecodeError::Damaged { .. }) {
            return self.broken(&error.to_string());
        }
        self.cut_sound(sound, found);
        self.index.extents.truncate(sound_extents(&self.index, sound));
        self.buffer.clear();
        self.is_end = true;
        let reason = format!("{error}; what it holds from about byte {sound} on cannot be read");
        self.index.note(Damage { at: sound, reason: reason.clone() });
        self.index.lose(found.promised(), reason);
    }

    /// Cuts what is sound of what is there, and no record that goes beyond that: an extent that has both would go with what is not.
    pub(super) fn cut_sound(&mut self, sound: u64, found: &mut impl Found) {
        let bytes = usize::try_from(sound.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let rest = self.buffer.split_off(bytes.min(self.buffer.len()));
        let enough = std::mem::take(&mut self.enough);
        self.cut(false, found);
        self.enough = enough;
        if !self.is_end {
            self.buffer.unsplit(rest);
            let skip = std::mem::take(&mut self.skip);
            self.pass(skip);
        }
    }
}

/// How many extents end within the first `sound` bytes.
fn sound_extents(index: &ObjectIndex, sound: u64) -> usize {
    index.extents.partition_point(|extent| extent.start + u64::from(extent.bytes) <= sound)
}

impl ObjectIndex {
    /// Of an object that is not there any more and was not read to its end, of which `known` was found, and so many records have offsets: those
    /// keep them, and the rest is left out.
    #[must_use]
    pub fn left_out(reading: Reading, known: Option<&Self>, promised: u64, reason: String) -> Self {
        let mut index = known.cloned().unwrap_or_else(|| Self::new(reading));
        index.note(Damage { at: index.content_end(), reason: reason.clone() });
        index.lose(promised, reason);
        index.is_growing = false;
        index
    }

    /// What was promised is kept where fewer records are found than before.
    pub(super) fn keep_promised(&mut self, promised: u64) {
        let records = self.records();
        if records < promised {
            let reason = format!("{records} records of {promised} are found");
            self.note(Damage { at: self.content_end(), reason: reason.clone() });
            self.lose(promised, reason);
        }
    }

    /// Adds records up to so many, which are lost and of whose content nothing is known.
    fn lose(&mut self, records: u64, reason: String) {
        let first_lost = self.records();
        let mut start = self.content_end();
        while self.records() < records {
            let first_record = self.records();
            let more = u32::try_from(records - first_record).unwrap_or(u32::MAX);
            self.extents.push(ExtentIndex {
                start,
                bytes: 0,
                first_record,
                records: more,
                crc: None,
            });
            // Each is another one.
            start += 1;
        }
        if self.records() > first_lost && self.lost.is_none() {
            self.lost = Some(Lost { from: first_lost, reason });
        }
    }

    /// Where the last extent ends.
    pub(super) fn content_end(&self) -> u64 {
        self.extents.last().map_or(0, |last| last.start + u64::from(last.bytes))
    }

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
    /// [`FetchError::Lost`].
    pub fn check(&self, object: &Object, record: u64) -> Result<(), FetchError> {
        match &self.lost {
            Some(lost) if record >= lost.from => {
                let reason = lost.reason.clone();
                Err(FetchError::Lost { object: object.path.to_string(), reason })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
