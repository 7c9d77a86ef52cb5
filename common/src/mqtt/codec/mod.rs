//! Bytes to packets and back: strict, so that nothing the specification forbids gets any further.
//!
//! What needs more than one packet to judge (a second CONNECT, Receive Maximum, unknown packet ids, topic alias limits,
//! which side may send what) is the server core's part.
//!
//! **Invariant:** no bytes make [`decode`] panic, and nothing is allocated for a packet before all of it has arrived.
//! **Invariant:** what [`encode`] writes, [`decode`] reads back as the same packet.

mod decode;
mod encode;
mod error;
mod properties;
mod reader;
mod reasons;

#[cfg(test)]
pub(in crate::mqtt) mod arbitrary;
#[cfg(test)]
mod differential;
#[cfg(test)]
pub(in crate::mqtt) mod tests;

pub use decode::decode;
pub use encode::{encode, encoded_len};
pub use error::{DecodeError, EncodeError};
