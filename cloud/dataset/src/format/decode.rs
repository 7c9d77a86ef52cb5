//! Objects that are compressed: their bytes to content, piece by piece.
//!
//! **Invariant:** no more content is made than there is room for, and no more than [`EXPANSION`] times what it is made of.
//! **Invariant:** content is whole when [`Decoder::finish`] says so: what is cut off, or followed by something else, is an error. Zeros may
//! follow, with which tapes and some uploads are filled up.

mod gzip;
mod zstd;

use robustmq_common::limits::dataset::{EXPANSION, EXTENT_BYTES};

use serde::{Deserialize, Serialize};

use self::gzip::Gzip;
use self::zstd::Zstd;
use super::Coding;

/// What deflate's window and tables take.
const GZIP_BYTES: usize = 48 * 1024;

/// Output is made in pieces of at most this.
const PIECE_BYTES: usize = 64 * 1024;

/// Why an object has no content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is not what its name or its first bytes say.
    #[error("the {coding} data is damaged: {reason}")]
    Damaged {
        /// Its coding.
        coding: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// It ends too early.
    #[error("the {coding} data is cut off after {taken} bytes")]
    Truncated {
        /// Its coding.
        coding: &'static str,
        /// What there was.
        taken: u64,
    },
    /// It goes on too long.
    #[error("the {coding} data ends after {taken} bytes, but something else follows")]
    Trailing {
        /// Its coding.
        coding: &'static str,
        /// Up to where it is good.
        taken: u64,
    },
    /// It would fill whatever there is.
    #[error(
        "{taken} bytes of {coding} data make {given} bytes, more than {EXPANSION} times as many: this is taken for a bomb"
    )]
    Bomb {
        /// Its coding.
        coding: &'static str,
        /// What it was made of.
        taken: u64,
        /// What was made of it.
        given: u64,
    },
}

/// How far a piece got: bytes taken, and bytes made of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Moved {
    taken: usize,
    given: usize,
}

/// Where a part of an object begins that can be decompressed without what is before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// In the object.
    pub raw: u64,
    /// In its content.
    pub content: u64,
}

/// What a piece may fail with.
enum Fault {
    Damaged(String),
    Trailing,
}

#[derive(Debug)]
enum Kind {
    Plain,
    Gzip(Box<Gzip>),
    Zstd(Box<Zstd>),
}

/// Decompresses one object.
#[derive(Debug)]
pub struct Decoder {
    kind: Kind,
    taken: u64,
    given: u64,
    /// Whether it may turn out to be a bomb.
    is_judged: bool,
}

impl Decoder {
    /// At the object's beginning.
    ///
    /// # Errors
    /// The library has no memory.
    pub fn new(coding: Coding) -> Result<Self, DecodeError> {
        let kind = match coding {
            Coding::Plain => Kind::Plain,
            Coding::Gzip => Kind::Gzip(Box::default()),
            Coding::Zstd => Kind::Zstd(Box::new(Zstd::new().map_err(|error| {
                DecodeError::Damaged { coding: "zstd", reason: error.to_string() }
            })?)),
        };
        let is_judged = coding != Coding::Plain;
        Ok(Self { kind, taken: 0, given: 0, is_judged })
    }

    /// The same; `None` where the bytes are the content.
    ///
    /// # Errors
    /// As [`Decoder::new`].
    pub fn of(coding: Coding) -> Result<Option<Self>, DecodeError> {
        match coding {
            Coding::Plain => Ok(None),
            Coding::Gzip | Coding::Zstd => Self::new(coding).map(Some),
        }
    }

    /// For content that was indexed, as far as it is read: it was judged then. How much was taken for it depends on the pieces that it comes in,
    /// which are others now, and what was published is not to become a bomb by that.
    #[must_use]
    pub fn of_indexed(self) -> Self {
        Self { is_judged: false, ..self }
    }

    fn coding(&self) -> &'static str {
        match self.kind {
            Kind::Plain => "plain",
            Kind::Gzip(_) => "gzip",
            Kind::Zstd(_) => "zstd",
        }
    }

    /// Adds content to `out`, at most `room` bytes, and says how many bytes of `raw` were taken for it: all of them, unless the room is
    /// full. A call that fills the room may have more to give without any more `raw`: call again.
    ///
    /// # Errors
    /// [`DecodeError`]; what was added to `out` by this call came before it, and nothing comes after it. Of what is not [`sound`](Decoder::sound)
    /// the checksum is not known.
    pub fn push(
        &mut self,
        raw: &[u8],
        out: &mut Vec<u8>,
        room: usize,
    ) -> Result<usize, DecodeError> {
        let end = out.len().saturating_add(room);
        let mut taken = 0;
        while out.len() < end {
            let start = out.len();
            out.resize(start + PIECE_BYTES.min(end - start), 0);
            let moved = self.piece(&raw[taken..], &mut out[start..]);
            out.truncate(start + moved.as_ref().map_or(0, |moved| moved.given));
            let moved = moved.map_err(|fault| self.error(fault))?;
            taken += moved.taken;
            self.taken += moved.taken as u64;
            self.given += moved.given as u64;
            if moved == Moved::default() {
                break;
            }
            let most = self.taken.saturating_mul(EXPANSION).max(EXTENT_BYTES as u64);
            if self.given > most && self.is_judged {
                let (coding, taken, given) = (self.coding(), self.taken, self.given);
                return Err(DecodeError::Bomb { coding, taken, given });
            }
        }
        Ok(taken)
    }

    fn piece(&mut self, raw: &[u8], out: &mut [u8]) -> Result<Moved, Fault> {
        match &mut self.kind {
            Kind::Plain => {
                let bytes = raw.len().min(out.len());
                out[..bytes].copy_from_slice(&raw[..bytes]);
                Ok(Moved { taken: bytes, given: bytes })
            }
            Kind::Gzip(gzip) => gzip.piece(raw, out),
            Kind::Zstd(zstd) => zstd.piece(raw, out),
        }
    }

    fn error(&self, fault: Fault) -> DecodeError {
        let (coding, taken) = (self.coding(), self.taken);
        match fault {
            Fault::Damaged(reason) => DecodeError::Damaged { coding, reason },
            Fault::Trailing => DecodeError::Trailing { coding, taken },
        }
    }

    /// So many of the bytes that were given are known to be right: a checksum comes after what it is of.
    #[must_use]
    pub fn sound(&self) -> u64 {
        match &self.kind {
            Kind::Plain => self.given,
            Kind::Gzip(gzip) => gzip.sound(),
            Kind::Zstd(zstd) => zstd.sound(),
        }
    }

    /// Where the last member of gzip or frame of zstd began.
    #[must_use]
    pub fn begin(&self) -> Begin {
        match &self.kind {
            Kind::Plain => Begin { raw: self.taken, content: self.given },
            Kind::Gzip(gzip) => gzip.begin(),
            Kind::Zstd(zstd) => zstd.begin(),
        }
    }

    /// Memory that it takes, about.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        match &self.kind {
            Kind::Plain => 0,
            Kind::Gzip(_) => GZIP_BYTES,
            Kind::Zstd(zstd) => zstd.memory_bytes(),
        }
    }

    /// After the object's last byte was taken, and no more was given for it.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn finish(self) -> Result<(), DecodeError> {
        let is_whole = match &self.kind {
            Kind::Plain => true,
            Kind::Gzip(gzip) => gzip.is_whole(),
            Kind::Zstd(zstd) => zstd.is_whole(),
        };
        if is_whole {
            Ok(())
        } else {
            Err(DecodeError::Truncated { coding: self.coding(), taken: self.taken })
        }
    }
}

/// Takes the zeros that may follow.
fn zeros(raw: &[u8]) -> Result<Moved, Fault> {
    if raw.iter().any(|byte| *byte != 0) {
        return Err(Fault::Trailing);
    }
    Ok(Moved { taken: raw.len(), given: 0 })
}

#[cfg(test)]
mod tests;
