//! Records whose bytes cannot be had any more: their object was deleted or changed after their offsets were published. What is at an offset
//! may not become another record, and a job is not to stand still for it: they are null, with a header that says why
//! (`robustmq.source.on.corrupt = skip`), or the reader is told (`stop`).

use std::collections::HashSet;

use robustmq_common::limits::dataset as limits;
use robustmq_dataset::cache::ExtentId;

/// What a partition has lost, as far as readers have come upon it since it was opened.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Records.
    pub records: u64,
    /// The first objects, and what has become of them.
    pub reasons: Vec<String>,
    extents: HashSet<ExtentId>,
}

/// What is new of what was noted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Noted {
    /// Records that were not known to be lost.
    pub records: u64,
    /// Their object is named for the first time.
    pub is_new_object: bool,
}

impl Lost {
    /// Notes an extent of so many records.
    pub fn note(&mut self, extent: ExtentId, records: u32, reason: &str) -> Noted {
        let has_room = self.extents.len() < limits::LOST_EXTENTS;
        if !has_room || !self.extents.insert(extent) {
            return Noted::default();
        }
        let records = u64::from(records);
        self.records += records;
        let is_named = self.reasons.iter().any(|named| named == reason);
        let is_new_object = self.reasons.len() < limits::LISTED_DAMAGES && !is_named;
        if is_new_object {
            self.reasons.push(reason.to_owned());
        }
        Noted { records, is_new_object }
    }

    /// An extent of so many records was read: it may have been put back.
    pub fn found(&mut self, extent: ExtentId, records: u32) {
        if self.extents.remove(&extent) {
            self.records -= u64::from(records);
            if self.extents.is_empty() {
                self.reasons.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ExtentId, Lost, Noted};

    #[test]
    fn an_extent_counts_once_and_an_object_is_named_once() {
        let mut lost = Lost::default();
        let extent = |object, start| ExtentId { object, start, bytes: 1 };
        let noted = |records, is_new_object| Noted { records, is_new_object };
        assert_eq!(lost.note(extent(1, 0), 10, "a is gone"), noted(10, true));
        assert_eq!(lost.note(extent(1, 0), 10, "a is gone"), noted(0, false));
        assert_eq!(lost.note(extent(1, 5), 10, "a is gone"), noted(10, false));
        assert_eq!(lost.note(extent(2, 0), 1, "b is gone"), noted(1, true));
        assert_eq!((lost.records, lost.reasons.len()), (21, 2));
        // What is put back is not lost any more.
        lost.found(extent(2, 0), 1);
        lost.found(extent(3, 0), 1);
        assert_eq!((lost.records, lost.reasons.len()), (20, 2));
        lost.found(extent(1, 0), 10);
        lost.found(extent(1, 5), 10);
        assert_eq!((lost.records, lost.reasons.len()), (0, 0));
    }
}
