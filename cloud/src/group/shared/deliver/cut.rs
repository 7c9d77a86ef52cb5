//! Cutting what was read to what may be given.

use std::ops::Range;

use bytes::Bytes;
use robustmq_common::ids::Offset;
use robustmq_common::record::RecordBatch;

use super::DeliverError;
use crate::log::slice;

/// What was read, cut to what is leased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::group::shared) struct Cut {
    /// Whole batches, or what is left of them.
    pub batches: Vec<RecordBatch>,
    /// What they hold that was offered.
    pub offsets: Range<i64>,
    /// Nothing is there: it was compacted away, or lost by a volatile mode.
    pub hole: Option<Range<i64>>,
}

/// The header of a record in a batch that had to be encoded anew: its offset in the log.
pub(in crate::group::shared) const OFFSET_HEADER: &str = "robustmq.offset";

/// What batches are cut for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::group::shared) enum Wanted {
    /// A member, which is given whole batches but for the first.
    WholeBatches,
    /// A member, which is given as many records as it may have.
    Records,
    /// Not a member: records stay as they are.
    Everything,
}

/// Takes of `batches`, which were read from the start of `offered` on, what lies within it: at most `most` offsets, but a batch with records
/// that cannot be read is given whole.
///
/// # Errors
/// [`DeliverError::Batch`]: the first batch cannot be read, and not be given whole either, since it ends behind `offered`.
pub(in crate::group::shared) async fn cut(
    batches: Vec<Bytes>,
    offered: &Range<i64>,
    most: i64,
    wanted: Wanted,
) -> Result<Cut, DeliverError> {
    let mut cut = Cut { batches: Vec::new(), offsets: offered.start..offered.start, hole: None };
    let mut limit = offered.end.min(offered.start.saturating_add(most));
    for bytes in batches {
        let batch = RecordBatch::from_store(bytes)?;
        let (base, next) = (batch.base_offset().0, batch.next_offset().0);
        if base >= offered.end {
            break;
        }
        if cut.batches.is_empty() && base > offered.start {
            cut.hole = Some(offered.start..base);
            cut.offsets = base..base;
            limit = offered.end.min(base.saturating_add(most));
        } else if base > cut.offsets.end {
            break;
        }
        if base >= limit {
            break;
        }
        // A member drops what comes before its position; nobody else does.
        let begins_before = base < cut.offsets.end && wanted == Wanted::Everything;
        if next <= limit && !begins_before {
            cut.offsets.end = next;
            cut.batches.push(batch);
            continue;
        }
        let to = limit.min(next);
        // It ends after what may be given. What the offer itself ends with has to be cut now or later.
        let is_needed =
            cut.batches.is_empty() || limit == offered.end || wanted != Wanted::WholeBatches;
        if is_needed {
            let from = cut.offsets.end.max(base);
            let header = (wanted != Wanted::Everything).then_some(OFFSET_HEADER);
            match slice(&batch, Offset(from), Offset(to), header).await {
                Ok(part) => {
                    cut.batches.extend(part);
                    cut.offsets.end = to;
                }
                // No client can read its records either: it stays in one piece.
                Err(_) if wanted == Wanted::Everything => {
                    cut.batches.push(batch);
                    cut.offsets.end = to;
                }
                Err(_) if !cut.batches.is_empty() => {}
                Err(_) if next <= offered.end => {
                    cut.batches.push(batch);
                    cut.offsets.end = next;
                }
                Err(error) => return Err(error.into()),
            }
        }
        break;
    }
    if cut.batches.is_empty() {
        // Nothing is there: it has been compacted away, or was lost by a volatile mode. All that is offered is below the high
        // watermark, so nothing will ever be there. What was cut out of a batch may end earlier.
        let end = if cut.offsets.end > cut.offsets.start { cut.offsets.end } else { offered.end };
        cut.hole = Some(offered.start..end);
        cut.offsets = end..end;
    }
    Ok(cut)
}
