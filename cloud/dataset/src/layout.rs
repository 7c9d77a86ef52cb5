//! Where the records of an extent lie.

use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use robustmq_common::limits::dataset as limits;
use robustmq_common::record::combined;

/// A stretch of an extent's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// From the extent's first byte on.
    pub start: u32,
    /// Length.
    pub bytes: u32,
}

impl Span {
    /// The bytes of `content`; empty if they are not there, which a layout made from the same content never asks for.
    #[must_use]
    pub fn of(self, content: &[u8]) -> &[u8] {
        let start = self.start as usize;
        content.get(start..start + self.bytes as usize).unwrap_or_default()
    }

    /// The same, sharing the memory of `content`.
    #[must_use]
    pub fn slice(self, content: &Bytes) -> Bytes {
        let start = self.start as usize;
        let end = start + self.bytes as usize;
        if end <= content.len() { content.slice(start..end) } else { Bytes::new() }
    }
}

/// A key or a header's name: mostly a stretch of the content, else (a tar name in two fields, an object's name) bytes of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// In the content.
    Span(Span),
    /// Not in the content as it is.
    Owned(Arc<[u8]>),
}

impl Text {
    /// Its bytes.
    #[must_use]
    pub fn of<'a>(&'a self, content: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Span(span) => span.of(content),
            Self::Owned(bytes) => bytes,
        }
    }
}

/// A part of a record that becomes a header: its name (for WebDataset the extension, for MDS the column) and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The header's name.
    pub name: Text,
    /// The header's value.
    pub data: Span,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordLayout {
    /// The sample's key (the basename, an object's name); `None` where the format has none.
    pub key: Option<Text>,
    /// The value. A record without any has an empty one.
    pub value: Span,
    /// What the value is, where the format names it: the extension or the column that became the value.
    pub value_name: Option<Text>,
    /// The other parts: indexes into [`Layout::members`].
    pub members: Range<u32>,
    /// CRC32C of the value, where that is large.
    pub value_crc: Option<NonZeroU32>,
}

/// All records of an extent, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    /// The records.
    pub records: Vec<RecordLayout>,
    /// The other parts of all of them.
    pub members: Vec<Member>,
}

impl Layout {
    /// The CRC32C of the content. Those of large values are kept on the way.
    pub(crate) fn note_checksums(&mut self, content: &[u8]) -> u32 {
        let (mut crc, mut at) = (0, 0);
        for record in &mut self.records {
            let start = record.value.start as usize;
            let value = record.value.of(content);
            if value.len() < limits::LENT_BYTES || start < at {
                continue;
            }
            let value_crc = crc32c::crc32c(value);
            record.value_crc = NonZeroU32::new(value_crc);
            crc = crc32c::crc32c_append(crc, content.get(at..start).unwrap_or_default());
            crc = combined(crc, value_crc, value.len());
            at = start + value.len();
        }
        crc32c::crc32c_append(crc, content.get(at..).unwrap_or_default())
    }

    /// The other parts of a record.
    #[must_use]
    pub fn members(&self, record: &RecordLayout) -> &[Member] {
        let range = record.members.start as usize..record.members.end as usize;
        self.members.get(range).unwrap_or_default()
    }

    /// Memory that it takes, about.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.records.capacity() * size_of::<RecordLayout>()
            + self.members.capacity() * size_of::<Member>()
    }
}

/// An extent as it is read: its content, and where its records lie.
#[derive(Debug, Clone)]
pub struct Extent {
    /// The content, from a record's boundary to another's.
    pub content: Bytes,
    /// Its records.
    pub layout: Layout,
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::proptest;

    use super::{Layout, RecordLayout, Span};

    proptest! {
        #[test]
        fn the_checksum_is_that_of_all_and_large_values_have_their_own(
            parts in vec((0..200_u32, 0..100_000_u32), 0..6),
        ) {
            let (mut layout, mut end) = (Layout::default(), 0);
            for (gap, bytes) in parts {
                let value = Span { start: end + gap, bytes };
                end = value.start + bytes;
                let value_crc = None;
                let members = 0..0;
                layout.records.push(RecordLayout { key: None, value, value_name: None, members, value_crc });
            }
            let content: Vec<u8> = (0..end + 10).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
            assert_eq!(layout.note_checksums(&content), crc32c::crc32c(&content));
            for record in &layout.records {
                let expected = crc32c::crc32c(record.value.of(&content));
                let found = record.value_crc.map(std::num::NonZeroU32::get);
                assert_eq!(found, (record.value.bytes >= 32 * 1024).then_some(expected));
            }
        }
    }
}
