//! Who has an object indexed.

use std::sync::Arc;

use super::pieces::Pieces;
use super::{Cutter, ObjectIndex};
use crate::fetch::{FetchError, Object};
use crate::layout::Extent;

/// Who has an object indexed.
pub trait Found: Send {
    /// One more extent: the index so far, which has it last, and what it holds. It is not to be read yet.
    fn extent(&mut self, index: &ObjectIndex, extent: Arc<Extent>);

    /// The records of so much of the index may be read, once this returns. Whether they may: the rest is not wanted otherwise.
    fn publish(&mut self, index: &ObjectIndex) -> impl Future<Output = bool> + Send;

    /// So many of its first records have offsets, which they keep: those that may be read by now, or by who read it before and did not come to
    /// its end.
    fn promised(&self) -> u64;

    /// Whether more is wanted than the bytes that are on their way already.
    fn wants(&self, on_their_way: u64) -> bool;

    /// Returns when more is wanted; `false` where the rest is not.
    fn wanted(&mut self) -> impl Future<Output = bool> + Send;
}

pub(crate) fn stopped(object: &Object) -> FetchError {
    let reason = "nobody wants the rest of it".to_owned();
    FetchError::Unavailable { object: object.path.to_string(), reason }
}

/// Waits until more is wanted, and gives up what was fetched if others need its room meanwhile. Whether more is.
pub(super) async fn wanted(
    pieces: &mut Pieces<'_>,
    cutter: &mut Cutter<'_>,
    found: &mut impl Found,
) -> bool {
    tokio::select! {
        biased;
        is_wanted = found.wanted() => return is_wanted,
        () = pieces.is_room_awaited() => {}
    }
    // What is left of what is decompressed cannot be had again, and has no room there.
    pieces.rewind(cutter.let_go());
    found.wanted().await
}
