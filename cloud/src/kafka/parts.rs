//! Bytes in several pieces, sent by vectored writes: record batches go from the store to the socket without being copied.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Pieces that are one text together.
#[derive(Debug, Clone, Default)]
pub(super) struct Parts {
    pieces: VecDeque<Bytes>,
    remaining: usize,
}

impl Parts {
    /// Adds a piece.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.remaining += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// Moves what `scratch` holds to the end.
    pub fn take(&mut self, scratch: &mut BytesMut) {
        self.push(scratch.split().freeze());
    }

    /// Puts a piece in front.
    pub fn prepend(&mut self, piece: Bytes) {
        self.remaining += piece.len();
        self.pieces.push_front(piece);
    }
}

impl From<Bytes> for Parts {
    fn from(piece: Bytes) -> Self {
        let mut parts = Self::default();
        parts.push(piece);
        parts
    }
}

impl Buf for Parts {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, count: usize) {
        let mut left = count.min(self.remaining);
        self.remaining -= left;
        while let Some(front) = self.pieces.front_mut() {
            if left < front.len() {
                front.advance(left);
                return;
            }
            left -= front.len();
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use bytes::{Buf as _, Bytes};

    use super::Parts;

    #[test]
    fn pieces_are_consumed_in_order_at_any_boundary() {
        for step in 1..8 {
            let mut parts = Parts::default();
            for piece in ["ab", "", "cde", "f"] {
                parts.push(Bytes::from_static(piece.as_bytes()));
            }
            parts.prepend(Bytes::from_static(b"<>"));
            let mut slices = [IoSlice::new(&[]); 8];
            assert_eq!(parts.chunks_vectored(&mut slices), 4);
            let mut out = Vec::new();
            while parts.has_remaining() {
                let taken = parts.chunk().len().min(step);
                out.extend_from_slice(&parts.chunk()[..taken]);
                parts.advance(taken);
            }
            assert_eq!(out, b"<>abcdef", "step {step}");
        }
    }

    #[test]
    fn advancing_over_several_pieces_at_once() {
        let mut parts = Parts::from(Bytes::from_static(b"abc"));
        parts.push(Bytes::from_static(b"def"));
        parts.advance(4);
        assert_eq!((parts.chunk(), parts.remaining()), (&b"ef"[..], 2));
        parts.advance(2);
        assert_eq!((parts.chunk(), parts.remaining()), (&b""[..], 0));
    }
}
