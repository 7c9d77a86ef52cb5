//! Content of `robustmq.source.rows = arrow`: a length (u32, little-endian) and as many bytes of a stream in Arrow's IPC format (its schema and
//! one batch), again and again. The record's value is the stream.

use super::super::{Input, Limits, Parsed, Parser};
use crate::layout::{RecordLayout, Span};

/// What makes records of it. It reads whole extents alone, which were written by this crate.
pub(in super::super) struct Frames;

impl Parser for Frames {
    fn parse(&self, input: Input<'_>, limits: Limits) -> Parsed {
        let given = input.given();
        let mut parsed = Parsed::default();
        let mut at = 0;
        while at < given.bytes.len() && parsed.found() < limits.records {
            let rest = given.bytes.get(at..).unwrap_or_default();
            let bytes = rest.first_chunk().map(|bytes| u32::from_le_bytes(*bytes) as usize);
            if let Some(bytes) = bytes.filter(|bytes| *bytes > limits.record_bytes) {
                parsed.damaged(at, format!("the batch of {bytes} bytes is too large"));
                parsed.is_end = true;
                break;
            }
            let start = at + size_of::<u32>();
            let Some(bytes) = bytes.filter(|bytes| start + bytes <= given.bytes.len()) else {
                parsed.cut_off(at, given.is_last);
                break;
            };
            parsed.layout.records.push(RecordLayout::plain(None, Span::new(start, bytes)));
            at = start + bytes;
        }
        parsed.consumed = at;
        parsed
    }
}
