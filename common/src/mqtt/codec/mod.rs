//! Bytes to packets and back: strict, so that nothing the specification forbids gets any further.
//!
//! ```text
//! decode(&mut BytesMut, Option<ProtocolVersion>, max_packet_bytes) -> Result<Option<Packet>, DecodeError>
//! encode(&Packet, ProtocolVersion, &mut BytesMut) -> Result<(), EncodeError>
//! encoded_len(&Packet, ProtocolVersion) -> Result<usize, EncodeError>
//! ```
mod error;

pub use error::{DecodeError, EncodeError};
