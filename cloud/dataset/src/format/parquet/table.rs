//! What is read of a Parquet file: which columns, as which Arrow types.

use std::ops::Range;
use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use parquet::arrow::{
    FieldLevels, ProjectionMask, parquet_to_arrow_field_levels, parquet_to_arrow_schema,
};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use robustmq_common::limits::dataset as limits;

use super::{Rows, RowsAs, footer};

/// Names of columns that a message lists.
const LISTED_COLUMNS: usize = 50;
/// UTC, as it is written where no other time zones are known.
const UTC: &str = "+00:00";

/// A Parquet file that can be read.
#[derive(Debug)]
pub(super) struct Table {
    pub metadata: Arc<ParquetMetaData>,
    pub rows: Rows,
    pub levels: FieldLevels,
    /// What records in Arrow's format have: the columns without what they were read as.
    pub schema: SchemaRef,
    /// Of the columns that are read, in the order of the file.
    leaves: Vec<usize>,
    /// The largest record.
    pub record_bytes: usize,
    /// Memory that the footer takes.
    pub bytes: usize,
}

/// A column chunk that is read.
pub(super) struct Placed<'a> {
    /// The number of its column.
    pub leaf: usize,
    pub chunk: &'a ColumnChunkMetaData,
    /// Where it lies in the file.
    pub range: Range<u64>,
}

impl Table {
    /// By the file's footer, its length and the last magic number left out.
    pub fn open(footer: &[u8], rows_as: &RowsAs, record_bytes: usize) -> Result<Self, String> {
        let metadata = footer::read(footer)?;
        let failed = |error| format!("its schema is not readable: {error}");
        let description = metadata.file_metadata().schema_descr();
        let names: Vec<&str> =
            description.root_schema().get_fields().iter().map(|field| field.name()).collect();
        let roots = roots(&names, &rows_as.columns)?;
        if roots.is_empty() {
            return Err("it has no columns".into());
        }
        let mask = ProjectionMask::roots(description, roots.iter().copied());
        // What the writer says of Arrow's types is a hint, which may be wrong.
        let written = metadata.file_metadata().key_value_metadata();
        let schema = parquet_to_arrow_schema(description, written)
            .or_else(|_| parquet_to_arrow_schema(description, None))
            .map_err(failed)?;
        let read = fields(schema.fields(), &|kind| read_as(kind, rows_as.rows));
        let levels = parquet_to_arrow_field_levels(description, mask.clone(), Some(&read));
        let levels = levels.map_err(failed)?;
        let leaves = (0..description.num_columns()).filter(|leaf| mask.leaf_included(*leaf));
        let leaves = leaves.collect();
        let given = fields(schema.fields(), &given_as);
        let given = roots.iter().filter_map(|root| given.get(*root).cloned());
        let bytes = metadata.memory_size();
        let schema = Arc::new(Schema::new(given.collect::<Vec<_>>()));
        let rows = rows_as.rows;
        Ok(Self { metadata, rows, levels, schema, leaves, record_bytes, bytes })
    }

    pub fn groups(&self) -> usize {
        self.metadata.num_row_groups()
    }

    /// Bytes of a row group's columns that are read; 0 if it cannot be.
    pub fn group_bytes(&self, number: usize, file_bytes: u64) -> u64 {
        let chunks = self.chunks(number, file_bytes).unwrap_or_default();
        chunks.iter().map(|placed| placed.range.end - placed.range.start).sum()
    }

    /// A row group, and how many rows it is to have.
    pub fn group(&self, number: usize) -> Result<(&RowGroupMetaData, u64), String> {
        let group = self.metadata.row_groups().get(number).ok_or("it is not there")?;
        let rows = u64::try_from(group.num_rows());
        Ok((group, rows.map_err(|_| format!("it is to have {} rows", group.num_rows()))?))
    }

    /// The column chunks of a row group that are read.
    pub fn chunks(&self, number: usize, file_bytes: u64) -> Result<Vec<Placed<'_>>, String> {
        let (group, _) = self.group(number)?;
        let mut total = 0_u64;
        let mut chunks = Vec::with_capacity(self.leaves.len());
        for leaf in &self.leaves {
            let chunk = group.columns().get(*leaf).ok_or("it has no chunk of a column")?;
            let start = match chunk.dictionary_page_offset() {
                // Some writers say 0 where there is none.
                Some(offset) if offset > 0 => offset.min(chunk.data_page_offset()),
                _ => chunk.data_page_offset(),
            };
            let (start, bytes) = (u64::try_from(start).ok(), chunk.compressed_size());
            let bytes = u64::try_from(bytes).ok();
            let end = start.zip(bytes).and_then(|(start, bytes)| start.checked_add(bytes));
            let range = start.zip(end).filter(|(_, end)| *end <= file_bytes);
            let (start, end) = range.ok_or_else(|| {
                let name = chunk.column_path().string();
                format!("the chunk of column \"{}\" lies outside of the file", name.escape_debug())
            })?;
            total = total.saturating_add(end - start);
            if total > limits::PARQUET_GROUP_BYTES {
                let most = limits::PARQUET_GROUP_BYTES;
                return Err(format!(
                    "its columns have more than {most} bytes together: read fewer \
                     (robustmq.source.columns), or write smaller row groups"
                ));
            }
            chunks.push(Placed { leaf: *leaf, chunk, range: start..end });
        }
        Ok(chunks)
    }
}

/// The numbers of the top-level columns that are asked for, in the order of the file; of all, if there are none.
fn roots(names: &[&str], asked: &[String]) -> Result<Vec<usize>, String> {
    if let Some(unknown) = asked.iter().find(|asked| !names.contains(&asked.as_str())) {
        let dots = if names.len() > LISTED_COLUMNS { ", ..." } else { "" };
        let names: Vec<String> = names
            .iter()
            .take(LISTED_COLUMNS)
            .map(|name| name.chars().take(100).collect::<String>().escape_debug().to_string())
            .collect();
        return Err(format!(
            "it has no column \"{}\" (robustmq.source.columns); it has {}{dots}",
            unknown.escape_debug(),
            names.join(", ")
        ));
    }
    let is_asked = |name: &str| asked.is_empty() || asked.iter().any(|asked| asked == name);
    let all = names.iter().enumerate();
    Ok(all.filter(|(_, name)| is_asked(name)).map(|(number, _)| number).collect())
}

fn fields(all: &Fields, change: &dyn Fn(&DataType) -> DataType) -> Fields {
    all.iter().map(|one| field(one, change)).collect()
}

fn field(field: &FieldRef, change: &dyn Fn(&DataType) -> DataType) -> FieldRef {
    Arc::new(Field::new(field.name(), change(field.data_type()), field.is_nullable()))
}

/// What a type is read as. Views share the memory of pages, so that a dictionary's values are not there once for each row; what a file says
/// of dictionaries and of lists' sizes is not taken over, as it would take memory by numbers that nobody has checked.
fn read_as(kind: &DataType, rows: Rows) -> DataType {
    let again = |kind: &DataType| read_as(kind, rows);
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
        // JSON has moments, not time zones.
        DataType::Timestamp(unit, Some(_)) if rows == Rows::Json => {
            DataType::Timestamp(*unit, Some(UTC.into()))
        }
        kind => plain(kind, &again),
    }
}

/// What a type is in a record in Arrow's format: what every reader of it knows.
fn given_as(kind: &DataType) -> DataType {
    match kind {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        kind => plain(kind, &given_as),
    }
}

fn plain(kind: &DataType, again: &dyn Fn(&DataType) -> DataType) -> DataType {
    match kind {
        DataType::Dictionary(_, value) => again(value),
        DataType::RunEndEncoded(_, value) => again(value.data_type()),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => DataType::List(field(item, again)),
        DataType::Struct(parts) => DataType::Struct(fields(parts, again)),
        DataType::Map(entries, is_sorted) => DataType::Map(field(entries, again), *is_sorted),
        kind => kind.clone(),
    }
}
