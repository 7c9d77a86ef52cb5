//! Datasets in object storage, read as records. No Kafka, no topic and no store of ours is known here: `robustmq-cloud` puts offsets on it.
//!
//! Words: an **object** is one file under the source's prefix. Its **content** is what its format reads: the object's bytes, decompressed
//! where the format is (`.gz`, `.zst`). An **extent** is a stretch of content of some megabytes that begins and ends at a record's boundary: the
//! unit that is fetched, cached and checked. A **record** has a key, a value and headers, all of them stretches of one extent.
//!
//! Rooms: `format` (content to records), `layout` (where records lie in an extent), `order` (epochs and shuffles), `fetch` (verified,
//! resumed GETs), `cache` (memory, read-ahead, SSD).
//!
//! **Invariant:** the same bytes give the same records: what was counted when an object was indexed is found again in each extent.
//! **Invariant:** nothing is panicked on, and nothing is allocated by a number that an object says before it was checked against a limit.
//! **Invariant:** what is given to a reader was checked against the CRC32C that was taken when it was indexed, or is what is being indexed.

pub mod cache;
pub mod epochs;
pub mod fetch;
pub mod format;
pub mod index;
pub mod layout;
pub mod order;
