//! The footer of a Parquet file: looked through for what would take memory or stack out of proportion, then given to the `parquet` crate.

use std::sync::Arc;

use parquet::file::metadata::{
    ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader, ParquetStatisticsPolicy,
};
use robustmq_common::limits::dataset as limits;

use super::thrift::{Fault, Fields, Reader, STRUCT};

/// Bytes at the very end: the footer's length and a magic number.
pub(super) const TAIL: usize = 8;
const MAGIC: &[u8] = b"PAR1";
const ENCRYPTED: &[u8] = b"PARE";

/// How long the footer is, its length and magic number left out, by the file's last bytes.
pub(super) fn length(tail: &[u8], file_bytes: u64) -> Result<u64, String> {
    let no_footer = || "it is no Parquet file: it does not end with PAR1".to_owned();
    let (_, tail) = tail.split_last_chunk::<TAIL>().ok_or_else(no_footer)?;
    let (length, magic) = tail.split_at(TAIL - MAGIC.len());
    if magic == ENCRYPTED {
        return Err("it is encrypted".into());
    }
    if magic != MAGIC {
        return Err(no_footer());
    }
    let length = length.iter().rev().fold(0, |length, byte| (length << 8) | u64::from(*byte));
    // Before it is the magic number that the file begins with.
    let most = file_bytes.saturating_sub((TAIL + MAGIC.len()) as u64);
    if length > most {
        return Err(format!("its footer is to have {length} bytes, and there are {most}"));
    }
    if length > limits::PARQUET_FOOTER_BYTES {
        let most = limits::PARQUET_FOOTER_BYTES;
        return Err(format!("its footer has {length} bytes, more than {most}"));
    }
    Ok(length)
}

/// What the footer says.
pub(super) fn read(footer: &[u8]) -> Result<Arc<ParquetMetaData>, String> {
    check(footer).map_err(|fault| match fault.as_str() {
        "it is encrypted" => fault,
        _ => format!("its footer is not readable: {fault}"),
    })?;
    let options = ParquetMetaDataOptions::new()
        .with_encoding_stats_as_mask(true)
        .with_encoding_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_column_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll);
    ParquetMetaDataReader::decode_metadata_with_options(footer, Some(&options))
        .map(Arc::new)
        .map_err(|error| format!("its footer is not readable: {error}"))
}

/// Goes through `FileMetaData` of parquet.thrift.
fn check(footer: &[u8]) -> Result<(), Fault> {
    let most = limits::PARQUET_LIST.max(limits::PARQUET_COLUMNS);
    let mut reader = Reader::new(footer, most);
    let mut fields = Fields::default();
    let mut chunks = 0;
    while let Some((field, kind)) = fields.next(&mut reader)? {
        match field {
            2 => check_schema(&mut reader, kind)?,
            4 => check_row_groups(&mut reader, kind, &mut chunks)?,
            // What encrypts columns under a footer that can be read.
            8 => return Err("it is encrypted".into()),
            _ => reader.skip(kind)?,
        }
    }
    Ok(())
}

/// The schema is a tree, written depth first: each element says how many children it has.
fn check_schema(reader: &mut Reader<'_>, kind: u8) -> Result<(), Fault> {
    let (count, kind) = reader.list(kind)?;
    if kind != STRUCT {
        return Err("its schema is no list of structs".into());
    }
    let most = limits::PARQUET_COLUMNS;
    if count > most {
        return Err(format!("its schema has {count} elements, more than {most}"));
    }
    // Children that are still to come, of each group that the next element is in.
    let mut open: Vec<usize> = Vec::new();
    for left in (0..count).rev() {
        let (children, width) = schema_element(reader)?;
        if children > left {
            return Err(format!("a group is to have {children} columns, and {left} follow"));
        }
        if width > limits::PARQUET_VALUE_WIDTH {
            let most = limits::PARQUET_VALUE_WIDTH;
            return Err(format!("values have {width} bytes each, more than {most}"));
        }
        if let Some(siblings) = open.last_mut() {
            *siblings = siblings.saturating_sub(1);
        }
        if children > 0 {
            open.push(children);
        }
        if open.len() > limits::PARQUET_DEPTH {
            let most = limits::PARQUET_DEPTH;
            return Err(format!("its columns are nested deeper than {most} levels"));
        }
        while open.last() == Some(&0) {
            open.pop();
        }
    }
    Ok(())
}

/// The number of an element's children, and its values' width where it is fixed.
fn schema_element(reader: &mut Reader<'_>) -> Result<(usize, usize), Fault> {
    let mut fields = Fields::default();
    let (mut children, mut width) = (0, 0);
    while let Some((field, kind)) = fields.next(reader)? {
        match field {
            // Where it means nothing some write -1.
            2 => width = usize::try_from(reader.int(kind)?).unwrap_or(0).max(width),
            5 => children = reader.size(kind)?.max(children),
            _ => reader.skip(kind)?,
        }
    }
    Ok((children, width))
}

fn check_row_groups(reader: &mut Reader<'_>, kind: u8, chunks: &mut usize) -> Result<(), Fault> {
    let (count, kind) = reader.list(kind)?;
    if kind != STRUCT {
        return Err("its row groups are no list of structs".into());
    }
    for _ in 0..count {
        let mut fields = Fields::default();
        while let Some((field, kind)) = fields.next(reader)? {
            if field != 1 {
                reader.skip(kind)?;
                continue;
            }
            // A copy looks at the number, and the original goes over all of it.
            *chunks += reader.clone().list(kind)?.0;
            let most = limits::PARQUET_CHUNKS;
            if *chunks > most {
                return Err(format!(
                    "it has more than {most} column chunks: columns times row groups"
                ));
            }
            reader.skip(kind)?;
        }
    }
    Ok(())
}
