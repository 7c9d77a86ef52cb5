//! A row group whose columns are in memory, and the rows of it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use parquet::arrow::arrow_reader::{
    ParquetRecordBatchReader, RowGroups, RowSelection, RowSelector,
};
use parquet::column::page::{PageIterator, PageReader};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use robustmq_common::limits::dataset as limits;
use tokio::time::Instant;

use super::codec::Codec;
use super::held::Room;
use super::pages::{Chunk, Pages};
use super::table::{Placed, Table};
use crate::fetch::{FetchError, Object, Source};

/// A row group in memory.
#[derive(Debug)]
pub(super) struct Group {
    pub table: Arc<Table>,
    pub number: usize,
    /// Its rows.
    pub rows: u64,
    /// How many of them are decoded in one step.
    pub step_rows: usize,
    pub chunks: Vec<(usize, Arc<Chunk>)>,
    /// While others wait for room, it is kept for whoever reads it for so long: about as long as it took to fetch.
    pub patience: Duration,
    pub came: Instant,
    /// Its room among those that are held.
    pub _room: Arc<Room>,
}

/// A row group whose bytes have come.
pub(super) struct Fetched {
    ranges: Vec<(Range<u64>, Bytes)>,
    took: Duration,
}

/// The ranges, those that lie next to each other as one. They may overlap in what is no good file.
fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// GETs a row group's columns.
///
/// # Errors
/// [`FetchError`]; inside it what is wrong with the row group.
pub(super) async fn fetch(
    source: &dyn Source,
    object: &Object,
    table: &Table,
    number: usize,
    gets: usize,
) -> Result<Result<Fetched, String>, FetchError> {
    let ranges = match table.chunks(number, object.size) {
        Ok(chunks) => joined(chunks.into_iter().map(|placed| placed.range).collect()),
        Err(fault) => return Ok(Err(fault)),
    };
    let (step, began) = (limits::EXTENT_BYTES as u64, Instant::now());
    let mut fetched = Vec::with_capacity(ranges.len());
    for range in ranges {
        let Range { start, end } = range;
        let pieces = (0..(end - start).div_ceil(step))
            .map(|piece| start + piece * step..(start + (piece + 1) * step).min(end));
        let mut pieces = stream::iter(pieces).map(|piece| source.get(object, piece)).buffered(gets);
        let mut whole = BytesMut::new();
        while let Some(piece) = pieces.try_next().await? {
            if whole.is_empty() {
                whole.reserve(usize::try_from(end - start).unwrap_or(0));
            }
            whole.extend_from_slice(&piece);
        }
        fetched.push((start..end, whole.freeze()));
    }
    Ok(Ok(Fetched { ranges: fetched, took: began.elapsed() }))
}

impl Fetched {
    fn slice(&self, range: &Range<u64>) -> Option<Bytes> {
        let at = self.ranges.partition_point(|(fetched, _)| fetched.start <= range.start);
        let (fetched, bytes) = self.ranges.get(at.checked_sub(1)?)?;
        let start = usize::try_from(range.start - fetched.start).ok()?;
        let end = usize::try_from(range.end.checked_sub(fetched.start)?).ok()?;
        (end <= bytes.len()).then(|| bytes.slice(start..end))
    }

    /// Looks through all pages' headers.
    pub fn open(
        self,
        table: &Arc<Table>,
        number: usize,
        file_bytes: u64,
        room: Arc<Room>,
    ) -> Result<Group, String> {
        let (_, rows) = table.group(number)?;
        let mut chunks = Vec::new();
        let (mut row_bytes, mut open_bytes) = (0_u64, 0_u64);
        for Placed { leaf, chunk, range } in table.chunks(number, file_bytes)? {
            let name = chunk.column_path().string();
            let named = |fault: String| format!("column \"{}\": {fault}", name.escape_debug());
            let column = chunk.column_descr();
            let chunk = Chunk {
                bytes: self.slice(&range).ok_or_else(|| named("it did not come".into()))?,
                codec: Codec::try_from(chunk.compression()).map_err(named)?,
                kind: column.physical_type(),
                width: width(column),
                max_repetition: column.max_rep_level(),
                max_definition: column.max_def_level(),
                read: super::pages::Step::default(),
                name: name.clone(),
            };
            let measure = chunk.measure(rows).map_err(named)?;
            row_bytes = row_bytes.saturating_add(measure.row_bytes);
            open_bytes = open_bytes.saturating_add(measure.open_bytes);
            chunks.push((leaf, Arc::new(chunk)));
        }
        if open_bytes > limits::PARQUET_OPEN_BYTES {
            let most = limits::PARQUET_OPEN_BYTES;
            return Err(format!(
                "one page of each column takes {open_bytes} bytes together, more than {most}: read \
                 fewer columns (robustmq.source.columns)"
            ));
        }
        let step_rows = (limits::EXTENT_BYTES as u64 / row_bytes.max(1)).max(1);
        let step_rows = usize::try_from(step_rows).unwrap_or(usize::MAX);
        let step_rows = step_rows.min(limits::PARQUET_STEP_ROWS);
        let (least, most) = limits::PARQUET_PATIENCE.into_inner();
        let patience = self.took.clamp(least, most);
        let table = Arc::clone(table);
        let came = Instant::now();
        Ok(Group { table, number, rows, step_rows, chunks, patience, came, _room: room })
    }
}

/// Bytes of a value of a fixed width.
fn width(column: &parquet::schema::types::ColumnDescriptor) -> usize {
    use parquet::basic::Type;
    match column.physical_type() {
        Type::BOOLEAN => 1,
        Type::INT32 | Type::FLOAT => 4,
        Type::INT64 | Type::DOUBLE => 8,
        Type::INT96 => 12,
        Type::BYTE_ARRAY => 0,
        Type::FIXED_LEN_BYTE_ARRAY => usize::try_from(column.type_length()).unwrap_or(0),
    }
}

impl Group {
    /// Its rows from `first` on.
    pub fn read(&self, first: u64) -> Result<ParquetRecordBatchReader, ParquetError> {
        let count = |rows: u64| usize::try_from(rows).unwrap_or(usize::MAX);
        let selection = (first > 0).then(|| {
            let left = count(self.rows.saturating_sub(first));
            RowSelection::from(vec![RowSelector::skip(count(first)), RowSelector::select(left)])
        });
        let levels = &self.table.levels;
        ParquetRecordBatchReader::try_new_with_row_groups(levels, self, self.step_rows, selection)
    }

    /// The next step begins. One that goes over rows reads as much as there is before them.
    pub fn begin_step(&self, goes_over_rows: bool) {
        self.chunks.iter().for_each(|(_, chunk)| chunk.read.begin(goes_over_rows));
    }
}

/// The pages of a column chunk, which is one.
struct OneChunk(Option<Arc<Chunk>>);

impl Iterator for OneChunk {
    type Item = Result<Box<dyn PageReader>, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.take().map(|chunk| Ok(Box::new(Pages::new(chunk)) as Box<dyn PageReader>))
    }
}

impl PageIterator for OneChunk {}

impl RowGroups for Group {
    fn num_rows(&self) -> usize {
        usize::try_from(self.rows).unwrap_or(usize::MAX)
    }

    fn column_chunks(&self, leaf: usize) -> Result<Box<dyn PageIterator>, ParquetError> {
        let at = self.chunks.binary_search_by_key(&leaf, |(number, _)| *number);
        let found = at.ok().and_then(|at| self.chunks.get(at));
        let missing = || ParquetError::General(format!("column {leaf} is not read"));
        let (_, chunk) = found.ok_or_else(missing)?;
        Ok(Box::new(OneChunk(Some(Arc::clone(chunk)))))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(self.table.metadata.row_groups().get(self.number).into_iter())
    }

    fn metadata(&self) -> &ParquetMetaData {
        &self.table.metadata
    }
}
