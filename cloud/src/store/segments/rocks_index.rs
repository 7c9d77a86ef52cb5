//! The index in RocksDB, without its own log: the segments are the log.
//!
//! **Invariant:** there is one column family. Its memory tables are flushed in order, so what survives a crash is a prefix of what was
//! applied, as [`Index`] asks.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use bytes::Bytes;
use rocksdb::{DB, ErrorKind, FlushOptions, ReadOptions, ReadTier, WriteOptions};

use super::index::Index;
use crate::store::rocks::{RocksOptions, crc_support, explained, for_index};
use crate::store::{StoreError, WriteOp};

pub(super) struct RocksIndex {
    db: DB,
    hardware_crc32c: Arc<AtomicU8>,
}

fn read_failed(error: rocksdb::Error) -> StoreError {
    StoreError::Read(error.into_string())
}

impl RocksIndex {
    pub(super) fn open(path: &Path, settings: &RocksOptions) -> Result<Self, StoreError> {
        let hardware_crc32c = Arc::new(AtomicU8::new(0));
        let db = DB::open(&for_index(settings, &hardware_crc32c), path).map_err(|error| {
            StoreError::Open {
                path: path.display().to_string(),
                reason: explained(error.into_string()),
            }
        })?;
        Ok(Self { db, hardware_crc32c })
    }

    pub(super) fn hardware_crc32c(&self) -> Option<bool> {
        crc_support(&self.hardware_crc32c)
    }
}

impl Index for RocksIndex {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.db.get(key).map(|entry| entry.map(Bytes::from)).map_err(read_failed)
    }

    fn get_in_memory(&self, key: &[u8]) -> Result<Option<Option<Bytes>>, StoreError> {
        let mut in_memory = ReadOptions::default();
        in_memory.set_read_tier(ReadTier::BlockCache);
        match self.db.get_opt(key, &in_memory) {
            Ok(entry) => Ok(Some(entry.map(Bytes::from))),
            Err(error) if error.kind() == ErrorKind::Incomplete => Ok(None),
            Err(error) => Err(read_failed(error)),
        }
    }

    fn walk(
        &self,
        range: &Range<Bytes>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        if range.start >= range.end {
            return Ok(());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(range.end.to_vec());
        let mut cursor = self.db.raw_iterator_opt(options);
        cursor.seek(&range.start);
        while let Some((key, entry)) = cursor.item() {
            if !visit(key, entry) {
                return Ok(());
            }
            cursor.next();
        }
        cursor.status().map_err(read_failed)
    }

    fn apply(&self, changes: &[WriteOp]) -> Result<(), StoreError> {
        let mut batch = rocksdb::WriteBatch::default();
        for change in changes {
            match change {
                WriteOp::Put(key, value) => batch.put(key, value),
                WriteOp::Delete(key) => batch.delete(key),
                WriteOp::DeleteRange(range) if range.start < range.end => {
                    batch.delete_range(&range.start, &range.end);
                }
                WriteOp::DeleteRange(_) => {}
            }
        }
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true);
        self.db
            .write_opt(batch, &unlogged)
            .map_err(|error| StoreError::Poisoned(error.into_string()))
    }

    fn flush(&self) -> Result<(), StoreError> {
        let mut wait = FlushOptions::default();
        wait.set_wait(true);
        self.db.flush_opt(&wait).map_err(|error| StoreError::Poisoned(error.into_string()))
    }

    fn disk_bytes(&self) -> u64 {
        let tables = self.db.property_int_value("rocksdb.total-sst-files-size");
        tables.ok().flatten().unwrap_or_default()
    }
}
