//! Storage modes: what an acknowledgement promises.

use std::time::Duration;

use robustmq_common::limits;

/// Where a topic's records are kept, and when they are acknowledged (`robustmq.storage.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StorageMode {
    /// Acknowledged when it is in memory, and never written. A crash, and a stop, lose it.
    Memory {
        /// The most bytes that a partition keeps (`retention.bytes`).
        ring_bytes: Option<u64>,
    },
    /// Acknowledged when it is in memory, and written later. A crash loses what was appended since the last write.
    Hybrid {
        /// How long after an append that is (`robustmq.flush.ms`).
        write_behind: Duration,
    },
    /// Acknowledged when the store has synced it.
    #[default]
    Persistent,
    /// As `Persistent`; closed ranges move to object storage by age and size.
    Tiered,
}

impl StorageMode {
    /// `hybrid` with the default interval.
    pub const HYBRID: Self = Self::Hybrid { write_behind: limits::WRITE_BEHIND };
    /// `memory` bounded by the broker's budget alone.
    pub const MEMORY: Self = Self::Memory { ring_bytes: None };

    /// Offsets are given, acknowledged and read before the store has the records.
    #[must_use]
    pub fn is_volatile(self) -> bool {
        match self {
            Self::Memory { .. } | Self::Hybrid { .. } => true,
            Self::Persistent | Self::Tiered => false,
        }
    }

    /// How much an acknowledgement promises: more is more.
    #[must_use]
    pub fn durability(self) -> u8 {
        match self {
            Self::Memory { .. } => 0,
            Self::Hybrid { .. } => 1,
            Self::Persistent | Self::Tiered => 2,
        }
    }
}
