//! The pages of a column chunk. They are found, checked and decompressed here and not by the `parquet` crate, which takes a page header's
//! sizes as they are, and whatever comes out of a decompressor.
//!
//! A column chunk is page headers (Thrift) and pages in turn, a dictionary first if there is one (parquet-format's README.md).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parquet::basic::{Encoding, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::ParquetError;
use robustmq_common::limits::dataset as limits;

use super::codec::Codec;
use super::delta;
use super::thrift::{Fields, Reader};

/// A column chunk, in memory.
#[derive(Debug)]
pub(super) struct Chunk {
    /// The column's name, for messages.
    pub name: String,
    pub bytes: Bytes,
    pub codec: Codec,
    pub kind: Type,
    /// Bytes of a value of fixed width.
    pub width: usize,
    /// The levels of lists, and of all that may be missing, above a value.
    pub max_repetition: i16,
    pub max_definition: i16,
    /// What was read of it in the current step.
    pub read: Step,
}

/// What one step has read of a column chunk.
#[derive(Debug, Default)]
pub(super) struct Step {
    bytes: AtomicU64,
    values: AtomicU64,
    /// It is not limited.
    is_free: AtomicBool,
}

/// What reading a chunk will take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Measure {
    /// Bytes of a row, where they are largest.
    pub row_bytes: u64,
    /// Bytes of what is held at once: a page and the dictionary.
    pub open_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    DataV2,
    Dictionary,
    /// No reader has a use for it.
    Other,
}

/// A page header, checked.
#[derive(Debug, Clone, Copy)]
struct Header {
    kind: Kind,
    /// Where the page begins in the chunk.
    start: usize,
    compressed: usize,
    uncompressed: usize,
    values: u32,
    encoding: Encoding,
    definition_encoding: Encoding,
    repetition_encoding: Encoding,
    /// Of the second version of data pages alone.
    rows: u32,
    nulls: u32,
    definition_bytes: u32,
    repetition_bytes: u32,
    is_compressed: bool,
}

fn encoding(number: i32) -> Result<Encoding, String> {
    Ok(match number {
        0 => Encoding::PLAIN,
        2 => Encoding::PLAIN_DICTIONARY,
        3 => Encoding::RLE,
        #[expect(deprecated, reason = "old files have levels in it")]
        4 => Encoding::BIT_PACKED,
        5 => Encoding::DELTA_BINARY_PACKED,
        6 => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        7 => Encoding::DELTA_BYTE_ARRAY,
        8 => Encoding::RLE_DICTIONARY,
        9 => Encoding::BYTE_STREAM_SPLIT,
        _ => return Err(format!("a page is in encoding {number}, which is not read")),
    })
}

impl Header {
    /// The header at `at`, of the page that follows it.
    fn read(chunk: &Chunk, at: usize) -> Result<Self, String> {
        let bytes = chunk.bytes.get(at..).unwrap_or_default();
        let most = bytes.len().min(limits::PARQUET_PAGE_HEADER_BYTES);
        let mut reader = Reader::new(bytes.get(..most).unwrap_or_default(), limits::PARQUET_LIST);
        let header = Self::parse(&mut reader, at);
        let header = header.map_err(|fault| format!("a page header is not readable: {fault}"))?;
        header.check(chunk)?;
        Ok(header)
    }

    fn parse(reader: &mut Reader<'_>, at: usize) -> Result<Self, String> {
        let mut header = Self {
            kind: Kind::Other,
            start: 0,
            compressed: 0,
            uncompressed: 0,
            values: 0,
            encoding: Encoding::PLAIN,
            definition_encoding: Encoding::RLE,
            repetition_encoding: Encoding::RLE,
            rows: 0,
            nulls: 0,
            definition_bytes: 0,
            repetition_bytes: 0,
            is_compressed: true,
        };
        let mut fields = Fields::default();
        let mut seen = [false; 9];
        while let Some((field, kind)) = fields.next(reader)? {
            if let Some(seen) = usize::try_from(field).ok().and_then(|field| seen.get_mut(field))
                && std::mem::replace(seen, true)
            {
                return Err("it says something twice".into());
            }
            match field {
                1 => {
                    header.kind = match reader.int(kind)? {
                        0 => Kind::Data,
                        2 => Kind::Dictionary,
                        3 => Kind::DataV2,
                        _ => Kind::Other,
                    }
                }
                2 => header.uncompressed = reader.size(kind)?,
                3 => header.compressed = reader.size(kind)?,
                5 if header.kind == Kind::Data => header.data(reader, kind)?,
                7 if header.kind == Kind::Dictionary => header.dictionary(reader, kind)?,
                8 if header.kind == Kind::DataV2 => header.data_v2(reader, kind)?,
                _ => reader.skip(kind)?,
            }
        }
        let is_told = match header.kind {
            Kind::Data => seen[5],
            Kind::Dictionary => seen[7],
            Kind::DataV2 => seen[8],
            Kind::Other => true,
        };
        if !is_told {
            return Err("it does not say what the page has".into());
        }
        header.start = at + reader.at();
        Ok(header)
    }

    fn data(&mut self, reader: &mut Reader<'_>, kind: u8) -> Result<(), String> {
        each_field(reader, kind, |reader, field, kind| {
            match field {
                1 => self.values = count(reader, kind)?,
                2 => self.encoding = encoding(reader.int(kind)?)?,
                3 => self.definition_encoding = encoding(reader.int(kind)?)?,
                4 => self.repetition_encoding = encoding(reader.int(kind)?)?,
                _ => reader.skip(kind)?,
            }
            Ok(())
        })
    }

    fn data_v2(&mut self, reader: &mut Reader<'_>, kind: u8) -> Result<(), String> {
        each_field(reader, kind, |reader, field, kind| {
            match field {
                1 => self.values = count(reader, kind)?,
                2 => self.nulls = count(reader, kind)?,
                3 => self.rows = count(reader, kind)?,
                4 => self.encoding = encoding(reader.int(kind)?)?,
                5 => self.definition_bytes = count(reader, kind)?,
                6 => self.repetition_bytes = count(reader, kind)?,
                // Booleans are in the kind.
                7 => self.is_compressed = kind == 1,
                _ => reader.skip(kind)?,
            }
            Ok(())
        })
    }

    fn dictionary(&mut self, reader: &mut Reader<'_>, kind: u8) -> Result<(), String> {
        each_field(reader, kind, |reader, field, kind| {
            match field {
                1 => self.values = count(reader, kind)?,
                2 => self.encoding = encoding(reader.int(kind)?)?,
                _ => reader.skip(kind)?,
            }
            Ok(())
        })
    }

    fn end(&self) -> usize {
        self.start.saturating_add(self.compressed)
    }

    /// Whether the page may be read.
    fn check(&self, chunk: &Chunk) -> Result<(), String> {
        let (bytes, most) = (self.uncompressed, limits::PARQUET_PAGE_BYTES);
        if self.end() > chunk.bytes.len() {
            return Err(format!(
                "a page of {} bytes ends behind the column chunk of {}",
                self.compressed,
                chunk.bytes.len()
            ));
        }
        if bytes > most {
            return Err(format!("a page is to have {bytes} bytes decompressed, more than {most}"));
        }
        if chunk.codec == Codec::None && self.compressed > most {
            return Err(format!("a page has {} bytes, more than {most}", self.compressed));
        }
        match self.kind {
            Kind::Dictionary => {
                let least = match chunk.kind {
                    Type::BYTE_ARRAY => 4,
                    _ => chunk.width.max(1),
                };
                let values = self.values as usize;
                if values.saturating_mul(least) > bytes {
                    return Err(format!("{bytes} bytes are to be a dictionary of {values} values"));
                }
            }
            Kind::Data | Kind::DataV2 => {
                let (values, most) = (u64::from(self.values), limits::PARQUET_STEP_VALUES);
                if chunk.max_repetition > 0 && values > most {
                    return Err(format!("a page of a list has {values} values, more than {most}"));
                }
                let levels = u64::from(self.definition_bytes) + u64::from(self.repetition_bytes);
                if levels > bytes.min(self.compressed) as u64 {
                    return Err(format!("{bytes} bytes are to have {levels} bytes of levels"));
                }
            }
            Kind::Other => {}
        }
        Ok(())
    }

    /// The page's bytes, decompressed.
    fn content(&self, chunk: &Chunk) -> Result<Bytes, String> {
        let raw = chunk.bytes.slice(self.start..self.end());
        if chunk.codec == Codec::None || (self.kind == Kind::DataV2 && !self.is_compressed) {
            return Ok(raw);
        }
        // Levels stay as they are in the second version.
        let levels = match self.kind {
            Kind::DataV2 => self.definition_bytes as usize + self.repetition_bytes as usize,
            _ => 0,
        };
        let (levels, rest) = raw.split_at_checked(levels).ok_or("a page has no room for levels")?;
        let mut content = Vec::with_capacity(self.uncompressed);
        content.extend_from_slice(levels);
        let bytes = self.uncompressed.saturating_sub(levels.len());
        let done = chunk.codec.decompress(rest, bytes, &mut content);
        done.map_err(|error| format!("a page cannot be decompressed: {error}"))?;
        Ok(content.into())
    }

    /// What its values take beyond the page: an error where they do not say the truth of themselves.
    fn hidden_bytes(&self, chunk: &Chunk, content: &[u8]) -> Result<u64, String> {
        let is_delta = matches!(
            self.encoding,
            Encoding::DELTA_BINARY_PACKED
                | Encoding::DELTA_LENGTH_BYTE_ARRAY
                | Encoding::DELTA_BYTE_ARRAY
        );
        if !is_delta {
            return Ok(0);
        }
        let mut values = content;
        if self.kind == Kind::DataV2 {
            let levels = self.definition_bytes as usize + self.repetition_bytes as usize;
            values = values.get(levels..).unwrap_or_default();
        } else {
            let levels = [
                (chunk.max_repetition, self.repetition_encoding),
                (chunk.max_definition, self.definition_encoding),
            ];
            for (_, encoding) in levels.into_iter().filter(|(most, _)| *most > 0) {
                if encoding != Encoding::RLE {
                    return Err("a page in a delta encoding has levels of another age".into());
                }
                let (bytes, rest) = values.split_first_chunk().ok_or("levels are cut off")?;
                let bytes = u32::from_le_bytes(*bytes) as usize;
                values = rest.get(bytes..).ok_or("levels are cut off")?;
            }
        }
        delta::check(self.encoding, values, u64::from(self.values))
    }
}

fn count(reader: &mut Reader<'_>, kind: u8) -> Result<u32, String> {
    Ok(u32::try_from(reader.size(kind)?).unwrap_or(u32::MAX))
}

/// Reads a struct that is a field.
fn each_field<'a>(
    reader: &mut Reader<'a>,
    kind: u8,
    mut take: impl FnMut(&mut Reader<'a>, i16, u8) -> Result<(), String>,
) -> Result<(), String> {
    if kind != super::thrift::STRUCT {
        return Err("a field is no struct".into());
    }
    let mut fields = Fields::default();
    while let Some((field, kind)) = fields.next(reader)? {
        take(reader, field, kind)?;
    }
    Ok(())
}

impl Chunk {
    /// Goes through all page headers. `rows` are those of the row group.
    pub fn measure(&self, rows: u64) -> Result<Measure, String> {
        let (mut at, mut values, mut claimed) = (0, 0_u64, 0_u64);
        let (mut dictionary, mut largest, mut densest) = (0, 0, 0);
        let mut has_dictionary = false;
        while at < self.bytes.len() {
            let header = Header::read(self, at)?;
            let bytes = header.uncompressed as u64;
            at = header.end();
            claimed += bytes;
            match header.kind {
                Kind::Other => {}
                Kind::Dictionary if has_dictionary || values > 0 => {
                    return Err("a dictionary does not come first".into());
                }
                Kind::Dictionary => (has_dictionary, dictionary) = (true, bytes),
                Kind::Data | Kind::DataV2 => {
                    values += u64::from(header.values);
                    largest = largest.max(bytes);
                    densest = densest.max(bytes.div_ceil(u64::from(header.values.max(1))));
                }
            }
        }
        let is_list = self.max_repetition > 0;
        if values < rows || (values > rows && !is_list) {
            return Err(format!("{rows} rows are to have {values} values"));
        }
        let compressed = self.bytes.len() as u64;
        if claimed > compressed.saturating_mul(limits::EXPANSION).max(limits::PARQUET_CONTENT_BYTES)
        {
            return Err(format!("{compressed} bytes are to become {claimed}"));
        }
        let width = self.width as u64;
        let row_bytes = match is_list {
            false => densest.saturating_add(width),
            // How many values a row has is not known before they are read: about as many as all have.
            true => densest.saturating_add(width).saturating_mul(values.div_ceil(rows.max(1))),
        };
        Ok(Measure { row_bytes, open_bytes: dictionary + largest })
    }
}

impl Step {
    /// The next step begins.
    pub fn begin(&self, is_free: bool) {
        self.is_free.store(is_free, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
        self.values.store(0, Ordering::Relaxed);
    }

    fn add(&self, bytes: u64, values: u64) -> Result<(), String> {
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let values = self.values.fetch_add(values, Ordering::Relaxed).saturating_add(values);
        if self.is_free.load(Ordering::Relaxed) {
            return Ok(());
        }
        if bytes > limits::PARQUET_STEP_BYTES {
            return Err("rows are larger than records may be".into());
        }
        if values > limits::PARQUET_STEP_VALUES {
            return Err(format!("rows have more than {} values", limits::PARQUET_STEP_VALUES));
        }
        Ok(())
    }
}

/// Reads the pages of a chunk in order.
pub(super) struct Pages {
    chunk: Arc<Chunk>,
    at: usize,
}

impl Pages {
    pub fn new(chunk: Arc<Chunk>) -> Self {
        Self { chunk, at: 0 }
    }

    fn fault(&self, fault: &str) -> ParquetError {
        ParquetError::General(format!("column \"{}\": {fault}", self.chunk.name.escape_debug()))
    }

    /// The next page that has a use.
    fn next_header(&mut self) -> Result<Option<Header>, ParquetError> {
        while self.at < self.chunk.bytes.len() {
            let header = Header::read(&self.chunk, self.at).map_err(|fault| self.fault(&fault))?;
            if header.kind != Kind::Other {
                return Ok(Some(header));
            }
            self.at = header.end();
        }
        Ok(None)
    }

    fn page(&self, header: &Header) -> Result<Page, String> {
        let buf = header.content(&self.chunk)?;
        let hidden = header.hidden_bytes(&self.chunk, &buf)?;
        let Header { values: num_values, encoding, .. } = *header;
        if header.kind == Kind::Dictionary {
            return Ok(Page::DictionaryPage { buf, num_values, encoding, is_sorted: false });
        }
        let values = if self.chunk.max_repetition > 0 { num_values } else { 0 };
        self.chunk.read.add(hidden.saturating_add(buf.len() as u64), u64::from(values))?;
        Ok(match header.kind {
            Kind::DataV2 => Page::DataPageV2 {
                buf,
                num_values,
                encoding,
                num_nulls: header.nulls,
                num_rows: header.rows,
                def_levels_byte_len: header.definition_bytes,
                rep_levels_byte_len: header.repetition_bytes,
                is_compressed: false,
                statistics: None,
            },
            _ => Page::DataPage {
                buf,
                num_values,
                encoding,
                def_level_encoding: header.definition_encoding,
                rep_level_encoding: header.repetition_encoding,
                statistics: None,
            },
        })
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        let Some(header) = self.next_header()? else { return Ok(None) };
        let page = self.page(&header).map_err(|fault| self.fault(&fault))?;
        self.at = header.end();
        Ok(Some(page))
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        let Some(header) = self.next_header()? else { return Ok(None) };
        let is_dict = header.kind == Kind::Dictionary;
        Ok(Some(PageMetadata {
            num_rows: (header.kind == Kind::DataV2).then_some(header.rows as usize),
            num_levels: (!is_dict).then_some(header.values as usize),
            is_dict,
        }))
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        if let Some(header) = self.next_header()? {
            self.at = header.end();
        }
        Ok(())
    }
}

impl Iterator for Pages {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}
