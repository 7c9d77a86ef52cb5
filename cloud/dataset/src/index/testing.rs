//! Somebody who has an object indexed, for tests.

use std::sync::Arc;

use super::{Found, ObjectIndex};
use crate::layout::Extent;

/// Wants all of it, and keeps the extents.
#[derive(Default)]
pub(crate) struct Kept(pub Vec<Arc<Extent>>);

impl Found for Kept {
    fn extent(&mut self, index: &ObjectIndex, extent: Arc<Extent>) {
        self.0.push(extent);
        assert_eq!(self.0.len(), index.extents.len());
    }

    async fn publish(&mut self, _: &ObjectIndex) -> bool {
        true
    }

    fn promised(&self) -> u64 {
        0
    }

    fn wants(&self, _: u64) -> bool {
        true
    }

    async fn wanted(&mut self) -> bool {
        true
    }
}
