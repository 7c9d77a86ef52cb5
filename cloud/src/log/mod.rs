//! Partitions: offsets, idempotence, visibility and reads, over the store.
