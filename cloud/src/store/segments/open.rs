//! Opening a segment store over RocksDB.

use std::path::Path;
use std::sync::Arc;

use robustmq_common::disk::RealDisk;

use super::rocks_index::RocksIndex;
use super::{SegmentSettings, SegmentStore};
use crate::store::StoreError;
use crate::store::rocks::RocksOptions;

impl SegmentStore {
    /// Opens the store in `dir`, and creates it if there is none. Blocks while it replays what the index had not kept.
    ///
    /// # Errors
    /// [`StoreError::Open`].
    pub fn open(dir: &Path, settings: &SegmentSettings) -> Result<Self, StoreError> {
        let failed = |error: std::io::Error| StoreError::Open {
            path: dir.display().to_string(),
            reason: error.to_string(),
        };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let index = Arc::new(RocksIndex::open(&dir.join("index"), &RocksOptions::default())?);
        let hardware_crc32c = index.hardware_crc32c();
        Self::open_with(Arc::new(RealDisk), dir, index, hardware_crc32c, settings)
    }
}
