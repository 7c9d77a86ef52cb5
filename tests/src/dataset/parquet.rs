//! Parquet: the samples of JSON lines as rows, in two row groups, as they are (nothing is compressed).

use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use super::{Shape, Writing};

const SCHEMA: &str =
    "message sample { required int64 file; required int64 number; required binary text (UTF8); }";

/// A file. Its records are what JSON the rows become.
pub(super) fn rows(writing: &mut Writing, shape: &Shape) -> Vec<u8> {
    let texts = (0..shape.samples).map(|number| {
        let text = writing.letters(shape.sample_bytes);
        let line = format!("{{\"file\":{},\"number\":{number},\"text\":\"{text}\"}}", writing.file);
        writing.sample(None, line.as_bytes(), Vec::new());
        ByteArray::from(text.into_bytes())
    });
    let texts: Vec<ByteArray> = texts.collect();
    let file = i64::try_from(writing.file).unwrap_or(i64::MAX);
    write(file, &texts).expect("writing to memory does not fail")
}

fn write(file: i64, texts: &[ByteArray]) -> Result<Vec<u8>, ParquetError> {
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let properties = WriterProperties::builder().set_dictionary_enabled(false).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
    let numbers: Vec<i64> = (0..).take(texts.len()).collect();
    let half = texts.len().div_ceil(2).max(1);
    for (numbers, texts) in numbers.chunks(half).zip(texts.chunks(half)) {
        let mut group = writer.next_row_group()?;
        column::<Int64Type>(&mut group, &vec![file; numbers.len()])?;
        column::<Int64Type>(&mut group, numbers)?;
        column::<ByteArrayType>(&mut group, texts)?;
        group.close()?;
    }
    writer.into_inner()
}

fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: &[T::T],
) -> Result<(), ParquetError> {
    let column = group.next_column()?;
    let mut column = column.ok_or_else(|| ParquetError::General("no such column".into()))?;
    column.typed::<T>().write_batch(values, None, None)?;
    column.close()
}
