//! Parquet: rows as JSON or in Arrow's format, row group by row group, of the columns that are asked for.
//!
//! A file's **content** is what its rows are written as, one row group after the other: lines of JSON, or batches of rows (`frames`). Extents
//! are cut between records, and have rows of one row group each, so that reading one again takes the chunks of that row group.
//!
//! Files: `thrift` and `footer` (numbers are looked at before anything is allocated by them), `table` (columns and their types), `group` (a row
//! group's columns, in memory), `pages`, `codec` and `delta` (pages, within bounds), `render`, `sizes` and `json` (rows to content), `content`
//! (all of that in order), `held` (row groups whose extents are read again).
//!
//! **Invariant:** what the `parquet` crate is given was looked through: the footer's lists and depth, the sizes of pages, what they become, and
//! what delta encodings say of themselves. It allocates by these.
//! **Invariant:** decoding happens on threads of its own, a few at a time, and a panic in it is damage.
//! **Invariant:** what rows become does not change, or [`RENDERING`] does: cached extents and what was counted are told apart by it.
//!
//! Deliberately absent: page indexes (a row group is read as a whole), encryption, statistics, LZO.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

mod codec;
mod content;
mod delta;
mod footer;
pub(super) mod frames;
mod group;
mod held;
mod json;
mod pages;
mod render;
mod sizes;
mod table;
#[cfg(test)]
mod tests;
mod thrift;

pub(crate) use content::{fetch, index};
pub use held::Held;

/// How rows are written, as a part of what names cached extents. An upgrade of Arrow that changes a byte of it has to change this.
pub const RENDERING: &str = "1";

/// `robustmq.source.rows`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rows {
    /// Each row is an object in JSON.
    #[default]
    Json,
    /// Some rows together are a stream in Arrow's IPC format.
    Arrow,
}

/// What is made of a table's rows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct RowsAs {
    /// The form.
    pub rows: Rows,
    /// Names of the top-level columns that are read; all, if there are none.
    pub columns: Vec<String>,
}

const PANICKED: &str = "its decoder failed: the file is damaged, or has what it does not know";

/// Decoders that work at the same time.
static DECODERS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    Arc::new(Semaphore::new(cores))
});

/// Does what takes time, on a thread that may take it. A panic is an error in words.
async fn decode<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let turn = Arc::clone(&DECODERS).acquire_owned().await;
    let caught = move || {
        // Who does not wait any more does not end it.
        let _turn = turn;
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(PANICKED.into()))
    };
    tokio::task::spawn_blocking(caught).await.unwrap_or_else(|_| Err(PANICKED.into()))
}
