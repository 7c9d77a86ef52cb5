//! How RocksDB is set up, and what its own log tells.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use robustmq_common::limits;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, InfoLogger,
    LogLevel, Options,
};

/// What of RocksDB may be set. The defaults are those of [`limits`].
#[derive(Debug, Clone)]
pub struct RocksOptions {
    /// The cache of blocks read from disk, with indexes and filters in it.
    pub block_cache_bytes: usize,
    /// Written data kept in memory before it goes to a table file.
    pub write_buffer_bytes: usize,
    /// Free bytes on the disk below which nothing is written.
    pub reserved_disk_bytes: u64,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self {
            block_cache_bytes: limits::STORE_BLOCK_CACHE_BYTES,
            write_buffer_bytes: limits::STORE_WRITE_BUFFER_BYTES,
            reserved_disk_bytes: limits::STORE_RESERVED_DISK_BYTES,
        }
    }
}

pub(super) const CRC_UNKNOWN: u8 = 0;
const CRC_SOFTWARE: u8 = 1;
const CRC_HARDWARE: u8 = 2;

/// Whether RocksDB computes CRC32C in hardware, if its log has said so.
pub(in crate::store) fn crc_support(support: &AtomicU8) -> Option<bool> {
    match support.load(Ordering::Relaxed) {
        CRC_HARDWARE => Some(true),
        CRC_SOFTWARE => Some(false),
        _ => None,
    }
}

impl RocksOptions {
    /// For a store of its own: synced log, large values in blob files.
    pub(super) fn for_store(&self, hardware_crc32c: &Arc<AtomicU8>) -> Options {
        let mut options = self.base(hardware_crc32c);
        // A torn last record of the log is what a crash leaves of a write that nobody was told of; what follows a damaged record
        // is not replayed.
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);

        // Record batches go to blob files once; compaction then moves keys only. Batches are compressed by their producers
        // already.
        options.set_enable_blob_files(true);
        options.set_min_blob_size(limits::STORE_MIN_BLOB_BYTES);
        options.set_blob_file_size(limits::STORE_BLOB_FILE_BYTES);
        options.set_blob_compression_type(DBCompressionType::None);
        options.set_enable_blob_gc(true);
        options.set_blob_gc_age_cutoff(0.25);
        options.set_blob_gc_force_threshold(0.5);
        // Deletions free blobs only when compaction meets them, so each file is compacted now and then.
        options.set_periodic_compaction_seconds(limits::STORE_COMPACTION_PERIOD.as_secs());
        options
    }

    fn base(&self, hardware_crc32c: &Arc<AtomicU8>) -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_info_logger(logger(Arc::clone(hardware_crc32c)));
        options.set_stats_dump_period_sec(0);
        options.set_max_open_files(limits::STORE_OPEN_FILES);
        options.set_max_background_jobs(2);
        options.set_write_buffer_size(self.write_buffer_bytes);
        options.set_max_write_buffer_number(3);
        options.set_bytes_per_sync(1024 * 1024);
        options.set_compression_type(DBCompressionType::Lz4);
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&Cache::new_lru_cache(self.block_cache_bytes));
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        blocks.set_bloom_filter(10.0, false);
        // In small parts: whole ones would be read and checked anew for every key once they are larger than a shard of the cache.
        blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        blocks.set_partition_filters(true);
        blocks.set_pin_top_level_index_and_filter(true);
        blocks.set_block_size(16 * 1024);
        options.set_block_based_table_factory(&blocks);
        options
    }
}

/// For an index beside a log that is not RocksDB's: small values, no log.
pub(in crate::store) fn for_index(
    settings: &RocksOptions,
    hardware_crc32c: &Arc<AtomicU8>,
) -> Options {
    let mut options = settings.base(hardware_crc32c);
    options.set_write_buffer_size(limits::STORE_INDEX_BUFFER_BYTES);
    options
}

/// Sends RocksDB's log to ours, and picks from it whether CRC32C is fast.
fn logger(hardware_crc32c: Arc<AtomicU8>) -> InfoLogger {
    InfoLogger::new_callback_logger(LogLevel::Info, move |level, message| {
        let message = message.trim_end();
        if let Some((_, support)) = message.split_once("Fast CRC32 supported: ") {
            let fast = support.starts_with("Supported");
            let known = if fast { CRC_HARDWARE } else { CRC_SOFTWARE };
            hardware_crc32c.store(known, Ordering::Relaxed);
        }
        match level {
            LogLevel::Error | LogLevel::Fatal => tracing::error!(target: "rocksdb", "{message}"),
            LogLevel::Warn => tracing::warn!(target: "rocksdb", "{message}"),
            LogLevel::Debug | LogLevel::Info | LogLevel::Header => {
                tracing::trace!(target: "rocksdb", "{message}");
            }
        }
    })
}
