//! The checks that the fuzz targets run, each a plain function over bytes, and the seeds they start from.
//!
//! Each check has to hold for any bytes: it panics where a promise is broken, and the fuzzer looks for bytes that do that. Memory is a promise too: see [`memory::bounded`].

#[cfg(feature = "cloud")]
pub mod kafka;
pub mod memory;
pub mod mqtt;
#[cfg(feature = "edge")]
pub mod queue;
pub mod record;
pub mod seeds;
pub mod sync;
