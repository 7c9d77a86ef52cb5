//! Opening a segment store over RocksDB.

use std::path::Path;
use std::sync::Arc;

use robustmq_common::disk::RealDisk;

use super::rocks_index::RocksIndex;
use super::{OpenIndex, SegmentSettings, SegmentStore};
use crate::store::StoreError;
use crate::store::rocks::RocksOptions;

impl SegmentStore {
    /// Opens the store in `dir`, and creates it if there is none. Blocks while it replays what the index had not kept.
    ///
    /// # Errors
    /// [`StoreError::Open`].
    pub fn open(dir: &Path, settings: &SegmentSettings) -> Result<Self, StoreError> {
        Self::open_with(Arc::new(RealDisk), dir, settings, || {
            let index = RocksIndex::open(&dir.join("index"), &RocksOptions::default())?;
            let hardware_crc32c = index.hardware_crc32c();
            Ok(OpenIndex { index: Arc::new(index), hardware_crc32c })
        })
    }
}
