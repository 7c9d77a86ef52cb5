//! Bytes to packets and back: strict, so that nothing the specification forbids gets any further.
mod error;

pub use error::{DecodeError, EncodeError};
