//! What an object holds: its extents with their records, found by reading it once.

use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use robustmq_common::limits::dataset as limits;
use serde::{Deserialize, Serialize};

use crate::cache::{ExtentId, Taken, Working};
use crate::fetch::{FetchError, Object, Source};
use crate::format::decode::{Begin, DecodeError, Decoder};
use crate::format::parquet::{self, RowsAs};
use crate::format::{Coding, Damage, Format, Input, Limits, Parser, parser};
use crate::layout::Extent;

mod again;
mod buffer;
mod chunks;
mod coded;
mod found;
mod opened;
mod pieces;
pub mod sidecar;
mod sound;
#[cfg(test)]
pub(crate) mod testing;

pub use self::again::{Between, fetch};
use self::chunks::Chunking;
pub use self::chunks::{Chunk, Chunked, Large};
pub use self::coded::{Reread, Streams};
pub use self::found::Found;
pub(crate) use self::found::stopped;
use self::found::wanted;
pub(crate) use self::opened::layout_of;
pub use self::opened::open;
pub use self::pieces::Pace;
use self::pieces::{Piece, Pieces};
pub use self::sound::Lost;

/// How an object is read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reading {
    /// What it holds.
    pub format: Format,
    /// How it is compressed.
    pub coding: Coding,
    /// What is made of Parquet's rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_as: Option<RowsAs>,
    /// What becomes of records that are too large.
    #[serde(default, skip_serializing_if = "Large::is_default")]
    pub large: Large,
}

impl Reading {
    /// Of any format but Parquet.
    #[must_use]
    pub fn plain(format: Format, coding: Coding) -> Self {
        Self { format, coding, rows_as: None, large: Large::default() }
    }

    /// Whether an extent cannot be fetched without much of the others.
    #[must_use]
    pub fn is_together(&self) -> bool {
        self.format == Format::Parquet || self.coding != Coding::Plain
    }

    /// What its parser may rely on.
    fn limits(&self) -> Limits {
        // What is compressed may end before a record does of which some is published already.
        let has_chunks = self.large.has_chunks && self.coding == Coding::Plain;
        Limits {
            record_bytes: self.large.record_bytes(),
            records: limits::EXTENT_RECORDS,
            has_chunks,
        }
    }

    fn parser(&self) -> &'static dyn Parser {
        parser(self.format, self.rows_as.as_ref().map(|rows_as| rows_as.rows).unwrap_or_default())
    }
}

/// A stretch of an object's content, and its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtentIndex {
    /// Where it begins in the content.
    pub start: u64,
    /// Bytes of content.
    pub bytes: u32,
    /// The number of its first record.
    pub first_record: u64,
    /// Its records.
    pub records: u32,
    /// CRC32C of its content; `None` where it was never read.
    pub crc: Option<u32>,
}

/// What an object holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectIndex {
    /// How it was read.
    pub reading: Reading,
    /// In the order of the content.
    pub extents: Vec<ExtentIndex>,
    /// What the parser needs of its beginning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prelude: Vec<u8>,
    /// Of Parquet, where each extent begins: the row group, and the row in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<(u32, u64)>,
    /// Records that are in chunks, by their numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chunked: Vec<Chunked>,
    /// Records from this number on have offsets, and their content is damaged: they are lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
    /// Of what is compressed, where a decoder can begin, beside the beginning: some places, in the order of the content.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub begins: Vec<Begin>,
    /// It is still read, and there may be more.
    #[serde(skip)]
    pub is_growing: bool,
    /// Samples that cannot be read.
    #[serde(default)]
    pub damaged: u64,
    /// The first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damage: Vec<Damage>,
}

impl ObjectIndex {
    fn new(reading: Reading) -> Self {
        Self {
            reading,
            extents: Vec::new(),
            prelude: Vec::new(),
            rows: Vec::new(),
            chunked: Vec::new(),
            begins: Vec::new(),
            lost: None,
            is_growing: false,
            damaged: 0,
            damage: Vec::new(),
        }
    }

    /// Of an object that is one record, or its chunks: nothing has to be read to know that.
    #[must_use]
    pub fn whole(object: &Object, large: Large) -> Self {
        let reading = Reading { large, ..Reading::plain(Format::Object, Coding::Plain) };
        let mut index = Self::new(reading);
        let most = large.record_bytes();
        let whole = u32::try_from(object.size).ok().filter(|size| *size as usize <= most);
        match whole {
            Some(bytes) => index.extents.push(ExtentIndex {
                start: 0,
                bytes,
                first_record: 0,
                records: 1,
                crc: None,
            }),
            None if large.has_chunks => index.add_chunks(object),
            None => {
                let reason =
                    format!("{} bytes are more than a record may have ({most})", object.size);
                index.note(Damage { at: 0, reason });
            }
        }
        index
    }

    /// Its records.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.extents.last().map_or(0, |last| last.first_record + u64::from(last.records))
    }

    /// Bytes of its content that are in extents.
    #[must_use]
    pub fn content_bytes(&self) -> u64 {
        self.extents.iter().map(|extent| u64::from(extent.bytes)).sum()
    }

    /// A decoder can begin here: noted if it is `far` enough from the last such place.
    fn note_begin(&mut self, begin: Begin, far: usize) {
        let last = self.begins.last().map_or(0, |last| last.content);
        if begin.content >= last + far as u64 {
            self.begins.push(begin);
        }
    }

    /// Where a decoder begins that is to come to the content at `start`.
    fn begin_before(&self, start: u64) -> Begin {
        let before = self.begins.partition_point(|begin| begin.content <= start);
        before.checked_sub(1).and_then(|at| self.begins.get(at)).copied().unwrap_or_default()
    }

    /// The extent that holds a record, by its number.
    #[must_use]
    pub fn extent_of(&self, record: u64) -> Option<(usize, ExtentIndex)> {
        let at = self.extents.partition_point(|extent| extent.first_record <= record);
        let at = at.checked_sub(1)?;
        let extent = self.extents.get(at)?;
        (record < extent.first_record + u64::from(extent.records)).then_some((at, *extent))
    }

    pub(crate) fn note(&mut self, damage: Damage) {
        self.damaged += 1;
        if self.damage.len() < limits::LISTED_DAMAGES {
            self.damage.push(damage);
        }
    }

    /// Memory that it takes, about.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.extents.capacity() * size_of::<ExtentIndex>()
            + self.prelude.capacity()
            + self.rows.capacity() * size_of::<(u32, u64)>()
            + self.chunked.iter().map(Chunked::memory_bytes).sum::<usize>()
            + self.begins.capacity() * size_of::<Begin>()
            + self.damage.iter().map(|damage| damage.reason.len() + 32).sum::<usize>()
    }
}

/// What makes extents of content as it comes.
struct Cutter<'a> {
    object: &'a Object,
    index: ObjectIndex,
    /// Where `buffer` begins in the content.
    at: u64,
    buffer: BytesMut,
    /// Memory of the whole of it, with what was cut off its front.
    allocated: usize,
    /// Bytes that are of no record.
    skip: u64,
    is_end: bool,
    /// What `buffer` takes, if that is much.
    room: Option<Taken>,
    /// What decompressing takes.
    working: Working,
    /// So many extents may be read.
    published: usize,
    /// What the parser's next call has to know of its last.
    carry: Vec<u8>,
    /// Content of the next extent, about, and of later ones.
    extent_bytes: usize,
    most_bytes: usize,
    /// Less than that is not worth looking at.
    enough: usize,
    /// What comes next, behind what is skipped, is of a record that is too large.
    chunking: Option<Chunking>,
}

/// Reads an object and says what it holds. What is fetched for that has its room in the cache's memory, and is given up for others while
/// nobody wants more of this object.
///
/// # Errors
/// [`FetchError`]: nothing is known of it then.
pub async fn index(
    source: &dyn Source,
    object: &Object,
    reading: Reading,
    pace: Pace,
    between: &Between,
    found: &mut impl Found,
) -> Result<ObjectIndex, FetchError> {
    let mut index = read(source, object, reading, pace, between, found).await?;
    index.keep_promised(found.promised());
    Ok(index)
}

async fn read(
    source: &dyn Source,
    object: &Object,
    reading: Reading,
    pace: Pace,
    between: &Between,
    found: &mut impl Found,
) -> Result<ObjectIndex, FetchError> {
    let cache = &between.cache;
    let coding = reading.coding;
    if reading.format == Format::Parquet {
        let index = ObjectIndex::new(reading);
        return parquet::index(source, object, index, pace, &between.groups, found).await;
    }
    let mut cutter = Cutter {
        object,
        index: ObjectIndex::new(reading),
        at: 0,
        buffer: BytesMut::new(),
        allocated: 0,
        skip: 0,
        is_end: false,
        room: None,
        working: cache.work(),
        published: 0,
        carry: Vec::new(),
        extent_bytes: pace.first_bytes,
        most_bytes: pace.extent_bytes,
        enough: pace.first_bytes,
        chunking: None,
    };
    let mut decoder = match Decoder::of(coding) {
        Ok(decoder) => decoder,
        Err(error) => {
            cutter.broken(&error.to_string());
            return Ok(cutter.index);
        }
    };
    let mut pieces = Pieces::new(source, object, coding, pace, cache);
    while !cutter.is_end {
        let let_go = || cutter.let_go();
        let Some(piece) = pieces.next(|bytes| found.wants(bytes), let_go).await else { break };
        let Piece { content, room } = piece?;
        match &mut decoder {
            None => {
                let before = cutter.at;
                cutter.take(&content);
                drop(content);
                cutter.cut(false, found);
                cutter.publish(found).await?;
                drop(room);
                cutter.keep(cache, cutter.at > before);
            }
            Some(decoder) => {
                drop(room);
                let decoded = cutter.decode(decoder, content, &mut pieces, found).await;
                if let Err(error) = decoded? {
                    cutter.fails(&error, decoder.sound(), found);
                }
            }
        }
        let is_last = cutter.is_end || pieces.is_over();
        if !is_last && !wanted(&mut pieces, &mut cutter, found).await {
            return Err(stopped(object));
        }
    }
    if let Some(decoder) = decoder.take()
        && !cutter.is_end
        && let Err(error) = decoder.finish()
    {
        cutter.broken(&error.to_string());
    }
    cutter.cut(true, found);
    Ok(cutter.index)
}

impl Cutter<'_> {
    /// What a piece of an object that is compressed holds. It waits until more is wanted wherever enough has come of it.
    async fn decode<S: Found>(
        &mut self,
        decoder: &mut Decoder,
        mut raw: Bytes,
        pieces: &mut Pieces<'_>,
        found: &mut S,
    ) -> Result<Result<(), DecodeError>, FetchError> {
        let (mut content, piece_bytes) = (Vec::new(), raw.len());
        self.count(decoder, piece_bytes);
        while !raw.is_empty() {
            // Of what is damaged, how much is given before that is known depends on how it is cut: always in the same way.
            let step = raw.len().min(limits::CODED_STEP_BYTES);
            let pushed = decoder.push(&raw[..step], &mut content, usize::MAX);
            raw.advance(step);
            if content.len() < self.most_bytes && !raw.is_empty() && pushed.is_ok() {
                continue;
            }
            // What came before an error may be good.
            self.take(&content);
            content = Vec::new();
            self.index.note_begin(decoder.begin(), self.most_bytes);
            if let Err(error) = pushed {
                return Ok(Err(error));
            }
            if self.buffer.len() >= self.enough {
                self.cut_sound(decoder.sound(), found);
            }
            self.cut(false, found);
            self.publish_sound(decoder.sound(), found).await?;
            if self.is_end {
                break;
            }
            self.shrink();
            self.count(decoder, piece_bytes);
            if !raw.is_empty() && !wanted(pieces, self, found).await {
                return Err(stopped(self.object));
            }
        }
        self.count(decoder, 0);
        Ok(Ok(()))
    }

    /// Counts what is worked in while waiting.
    fn count(&mut self, decoder: &Decoder, piece_bytes: usize) {
        self.working.set(decoder.memory_bytes() + piece_bytes + self.buffer.capacity());
    }

    /// The rest cannot be had: what is there is read to its end.
    fn broken(&mut self, reason: &str) {
        self.index.note(Damage { at: self.at, reason: reason.to_owned() });
        self.is_end = true;
    }

    /// Cuts extents off the front of what is there, as long as there is enough of it.
    fn cut(&mut self, is_last: bool, found: &mut impl Found) {
        let parser = self.index.reading.parser();
        let most = self.index.reading.limits();
        while !self.buffer.is_empty() && (is_last || self.buffer.len() >= self.enough) {
            if self.chunking.is_some() {
                if self.cut_chunk(is_last, found) {
                    continue;
                }
                return;
            }
            let input = Input {
                bytes: &self.buffer,
                is_first: self.at == 0,
                is_last,
                prelude: &self.index.prelude,
                carry: &self.carry,
                object: self.object.path.as_ref(),
            };
            let parsed = parser.parse(input, most);
            self.carry = parsed.carry;
            for damage in parsed.damage {
                self.index.note(Damage { at: self.at + damage.at, reason: damage.reason });
            }
            if let Some(prelude) = parsed.prelude {
                self.index.prelude = prelude;
            }
            let consumed = parsed.consumed.min(self.buffer.len());
            let start = self.at;
            self.at += consumed as u64;
            if parsed.layout.records.is_empty() {
                self.buffer.advance(consumed);
            } else {
                let content = self.content(consumed);
                let mut extent = Extent { content, layout: parsed.layout };
                if add_extent(&mut self.index, start, &mut extent) {
                    found.extent(&self.index, Arc::new(extent));
                }
            }
            match parsed.large {
                Some(large) => self.begin_chunks(large, parsed.skip),
                None => self.pass(parsed.skip),
            }
            if parsed.is_end {
                self.is_end = true;
                self.buffer.clear();
            }
            let moved = self.at > start;
            // A record that is not all there yet: it is not looked at again with every byte.
            self.enough = match moved {
                true => {
                    self.extent_bytes = (self.extent_bytes * 2).min(self.most_bytes);
                    self.extent_bytes
                }
                false => self.buffer.len() + self.extent_bytes,
            };
            if self.chunking.is_some() {
                self.enough = 0;
            }
            if !moved {
                break;
            }
        }
        if is_last && !self.buffer.is_empty() {
            let bytes = self.buffer.len();
            self.index.note(Damage { at: self.at, reason: format!("{bytes} bytes are no record") });
        }
    }
}

/// Adds an extent, whose checksums are noted. Whether its size can be told.
pub(crate) fn add_extent(index: &mut ObjectIndex, start: u64, extent: &mut Extent) -> bool {
    let bytes = u32::try_from(extent.content.len());
    let records = u32::try_from(extent.layout.records.len());
    let (Ok(bytes), Ok(records)) = (bytes, records) else { return false };
    index.extents.push(ExtentIndex {
        start,
        bytes,
        first_record: index.records(),
        records,
        crc: Some(extent.layout.note_checksums(&extent.content)),
    });
    true
}

/// The id of an extent in the cache.
#[must_use]
pub fn extent_id(object: u128, extent: &ExtentIndex) -> ExtentId {
    ExtentId { object, start: extent.start, bytes: extent.bytes }
}
