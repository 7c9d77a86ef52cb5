//! Looking into batches: a few at a time, since each may take [`limits::DECOMPRESSED_BATCH_BYTES`] when decompressed.

use robustmq_common::ids::Offset;
use robustmq_common::limits;
use robustmq_common::record::{BatchError, Compression, RecordBatch, Records};
use tokio::sync::Semaphore;

use super::AppendError;
use crate::store::StoreError;

static DECOMPRESSING: Semaphore = Semaphore::const_new(limits::DECOMPRESSED_BATCHES_AT_ONCE);

/// Gives a batch's records to `look`. An uncompressed batch takes no memory, and waits for nobody.
///
/// # Errors
/// [`StoreError::Closed`] at the end of the program; the inner error is the batch's.
pub async fn look_into<T>(
    batch: &RecordBatch,
    look: impl FnOnce(Records) -> T,
) -> Result<Result<T, BatchError>, StoreError> {
    let _few = match batch.compression() {
        Compression::None => None,
        _ => Some(DECOMPRESSING.acquire().await.map_err(|_| StoreError::Closed)?),
    };
    Ok(batch.records(limits::DECOMPRESSED_BATCH_BYTES).map(look))
}

/// The records of a batch with `from <= offset < to`, as [`RecordBatch::slice_with`] gives them.
///
/// # Errors
/// [`BatchError`] for records that cannot be read.
pub async fn slice(
    batch: &RecordBatch,
    from: Offset,
    to: Offset,
    offset_header: Option<&str>,
) -> Result<Option<RecordBatch>, BatchError> {
    // The semaphore is never closed.
    let _few = DECOMPRESSING.acquire().await;
    batch.slice_with(limits::DECOMPRESSED_BATCH_BYTES, from, to, offset_header)
}

/// Whether each record of a batch has a key, as compacted topics need it.
///
/// # Errors
/// [`AppendError::NoKey`] for the first that has none; [`AppendError::Records`] for records that cannot be read.
pub async fn check_keys(batch: &RecordBatch) -> Result<(), AppendError> {
    let check = |records: Records| {
        for (record, index) in records.zip(0..) {
            if record.map_err(AppendError::Records)?.key.is_none() {
                return Err(AppendError::NoKey { index });
            }
        }
        Ok(())
    };
    look_into(batch, check).await?.map_err(AppendError::Records)?
}
