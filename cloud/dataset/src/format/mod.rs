//! What objects hold: content to records.
//!
//! A [`Parser`] is a plain function of bytes: no IO, no clock. It is given content from a record's boundary on and says which whole records
//! are there; what calls it cuts extents at the boundaries that it says. The same parser reads an extent again later, with the same outcome.
//!
//! **Invariant:** parsing the concatenation of what was consumed before gives the same records as parsing it piece by piece.
//! **Invariant:** damage is found before a record is counted: a record that was given is whole.
//! **Invariant:** what was consumed, given again without what came after it and as the last, gives the same records.

pub mod decode;
pub mod detect;
mod jsonl;
mod mds;
mod object;
pub mod parquet;
mod tar;
#[cfg(test)]
pub(crate) mod testing;
mod tfrecord;
mod webdataset;

use serde::{Deserialize, Serialize};

pub(crate) use self::webdataset::split as split_sample_name;
use crate::layout::{Layout, RecordLayout, Span, Text};

/// `robustmq.source.format`, without `auto`, which becomes one of these by an object's name and first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Members of a tar with the same basename are one sample.
    WebDataset,
    /// Each member of a tar is a record.
    Tar,
    /// Each object is a record.
    Object,
    /// Rows are records.
    Parquet,
    /// Lines are records.
    Jsonl,
    /// Shards of MosaicML's streaming.
    Mds,
    /// TensorFlow's length-prefixed records.
    TfRecord,
}

impl Format {
    /// As `robustmq.source.format` has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WebDataset => "webdataset",
            Self::Tar => "tar",
            Self::Object => "object",
            Self::Parquet => "parquet",
            Self::Jsonl => "jsonl",
            Self::Mds => "mds",
            Self::TfRecord => "tfrecord",
        }
    }

    /// Whether its records have keys.
    #[must_use]
    pub fn has_keys(self) -> bool {
        match self {
            Self::WebDataset | Self::Tar | Self::Object => true,
            Self::Parquet | Self::Jsonl | Self::Mds | Self::TfRecord => false,
        }
    }
}

/// How an object's bytes become its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Coding {
    /// They are the content.
    Plain,
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 8878, any number of frames.
    Zstd,
}

/// What a parser may rely on.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest record, all its parts together.
    pub record_bytes: usize,
    /// The most records that one call returns.
    pub records: usize,
    /// Larger records are told as [`Parsed::large`], where a format can.
    pub has_chunks: bool,
}

/// What a parser is given.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Content from a record's boundary on.
    pub bytes: &'a [u8],
    /// It is the beginning of the content.
    pub is_first: bool,
    /// Nothing comes after it.
    pub is_last: bool,
    /// What an earlier call has given as [`Parsed::prelude`]; empty before.
    pub prelude: &'a [u8],
    /// What the call right before has given as [`Parsed::carry`]; empty where an extent is read again.
    pub carry: &'a [u8],
    /// The object's name within the source.
    pub object: &'a str,
}

/// Something that is no record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Where it begins, from the start of the input.
    pub at: u64,
    /// What is wrong, for a person; names of members are escaped.
    pub reason: String,
}

/// A record that is larger than one may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LargeRecord {
    /// Its key.
    pub key: Vec<u8>,
    /// Bytes between what was consumed and its value.
    pub lead: u64,
    /// Bytes of its value.
    pub bytes: u64,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parsed {
    /// The whole records of the first `consumed` bytes.
    pub layout: Layout,
    /// Up to the last boundary that is known: the next call begins here. 0 means that more bytes are needed, unless `is_last`.
    pub consumed: usize,
    /// So many bytes after those are of no record (a record that is too large): they need not be kept, nor given.
    pub skip: u64,
    /// What is skipped is one record, which is to come in chunks.
    pub large: Option<LargeRecord>,
    /// What is damaged in what was consumed or skipped.
    pub damage: Vec<Damage>,
    /// What follows cannot be read: the object ends here for us.
    pub is_end: bool,
    /// What later calls need of the beginning (an MDS shard's columns); at most [`robustmq_common::limits::dataset::PRELUDE_BYTES`].
    pub prelude: Option<Vec<u8>>,
    /// For the very next call alone, which begins inside of what is being skipped (a line whose end is not in sight). No extent begins
    /// there: with it nothing is consumed but what came before.
    pub carry: Vec<u8>,
}

impl Parsed {
    fn damaged(&mut self, at: usize, reason: String) {
        self.damage.push(Damage { at: at as u64, reason });
    }

    /// More bytes are needed for the record at `at`; without more it is damaged.
    fn cut_off(&mut self, at: usize, is_last: bool) {
        if is_last {
            self.damaged(at, "the record is cut off".into());
            self.is_end = true;
        }
    }

    /// Skips content from `start` to `end`, or to the content's end, which may come first.
    fn skipped(&mut self, start: usize, end: u64, given: Given<'_>) {
        let end = if given.is_last { end.min(given.bytes.len() as u64) } else { end };
        self.consumed = start;
        self.skip = end.saturating_sub(start as u64);
    }

    /// How many findings there are: damages count, so that an object of nothing else costs no more memory than records would.
    fn found(&self) -> usize {
        self.layout.records.len() + self.damage.len()
    }
}

/// What of an input can be addressed by a [`Span`].
#[derive(Debug, Clone, Copy)]
struct Given<'a> {
    bytes: &'a [u8],
    is_last: bool,
}

impl<'a> Input<'a> {
    fn given(&self) -> Given<'a> {
        let end = self.bytes.len().min(u32::MAX as usize);
        Given { bytes: &self.bytes[..end], is_last: self.is_last && end == self.bytes.len() }
    }
}

impl Span {
    fn new(start: usize, bytes: usize) -> Self {
        let narrow = |number| u32::try_from(number).expect("what is given ends below 4 GiB");
        Self { start: narrow(start), bytes: narrow(bytes) }
    }
}

impl RecordLayout {
    fn plain(key: Option<Text>, value: Span) -> Self {
        Self { key, value, value_name: None, members: 0..0, value_crc: None }
    }
}

/// A name that somebody else has chosen, as a message says it.
fn shown(name: &[u8]) -> String {
    const LONGEST: usize = 200;
    let dots = if name.len() > LONGEST { "..." } else { "" };
    format!("\"{}{dots}\"", name[..name.len().min(LONGEST)].escape_ascii())
}

/// Reads one format.
pub trait Parser: Send + Sync {
    /// The records at the beginning of `input`, at most `limits.records`.
    fn parse(&self, input: Input<'_>, limits: Limits) -> Parsed;
}

/// What reads a format's content; of Parquet, that is what its rows are written as.
#[must_use]
pub fn parser(format: Format, rows: parquet::Rows) -> &'static dyn Parser {
    match (format, rows) {
        (Format::WebDataset, _) => &webdataset::WebDataset,
        (Format::Tar, _) => &tar::Tar,
        (Format::Object, _) => &object::WholeObject,
        (Format::Jsonl, _) | (Format::Parquet, parquet::Rows::Json) => &jsonl::Jsonl,
        (Format::Mds, _) => &mds::Mds,
        (Format::TfRecord, _) => &tfrecord::TfRecord,
        (Format::Parquet, parquet::Rows::Arrow) => &parquet::frames::Frames,
    }
}
