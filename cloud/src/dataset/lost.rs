//! Records whose bytes cannot be had any more: their object was deleted or changed after their offsets were published. What is at an offset
//! may not become another record, and a job is not to stand still for it: they are null, with a header that says why
//! (`robustmq.source.on.corrupt = skip`), or the reader is told (`stop`).

use std::collections::HashSet;

use robustmq_common::limits::dataset as limits;
use robustmq_dataset::cache::ExtentId;
use robustmq_dataset::fetch::FetchError;

/// What a partition has lost, as far as readers have come upon it since it was opened.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Records.
    pub records: u64,
    /// The first objects, and what has become of them.
    pub reasons: Vec<String>,
    extents: HashSet<ExtentId>,
}

impl Lost {
    /// Notes an extent of so many records. Whether its object is named for the first time.
    pub fn note(&mut self, extent: ExtentId, records: u32, reason: &FetchError) -> bool {
        let has_room = self.extents.len() < limits::LOST_EXTENTS;
        if !has_room || !self.extents.insert(extent) {
            return false;
        }
        self.records += u64::from(records);
        let reason = reason.to_string();
        let is_new = self.reasons.len() < limits::LISTED_DAMAGES && !self.reasons.contains(&reason);
        if is_new {
            self.reasons.push(reason);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::{ExtentId, FetchError, Lost};

    #[test]
    fn an_extent_counts_once_and_an_object_is_named_once() {
        let mut lost = Lost::default();
        let extent = |object, start| ExtentId { object, start, bytes: 1 };
        let gone = |name: &str| FetchError::Gone(name.to_owned());
        assert!(lost.note(extent(1, 0), 10, &gone("a")));
        assert!(!lost.note(extent(1, 0), 10, &gone("a")));
        assert!(!lost.note(extent(1, 5), 10, &gone("a")));
        assert!(lost.note(extent(2, 0), 1, &gone("b")));
        assert_eq!((lost.records, lost.reasons.len()), (21, 2));
    }
}
