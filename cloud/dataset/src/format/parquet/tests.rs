use std::ops::Range;
use std::sync::{Arc, Mutex};

use arrow_array::{ArrayRef, RecordBatch};
use async_trait::async_trait;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use super::{Rows, RowsAs};
use crate::cache::in_memory;
use crate::fetch::{FetchError, Object, Source};
use crate::format::{Coding, Format};
use crate::index::testing::Kept;
use crate::index::{self, Between, ObjectIndex, Pace, Reading, Reread};
use crate::layout::Extent;

mod hostile;
mod room;
mod types;

/// A file in memory, and what was read of it.
struct Memory {
    bytes: Bytes,
    asked: Mutex<Vec<Range<u64>>>,
}

#[async_trait]
impl Source for Memory {
    async fn get(&self, object: &Object, range: Range<u64>) -> Result<Bytes, FetchError> {
        assert!(range.start <= range.end && range.end <= object.size, "{range:?}");
        self.asked.lock().unwrap().push(range.clone());
        let at = |at| usize::try_from(at).unwrap();
        Ok(self.bytes.slice(at(range.start)..at(range.end)))
    }
}

/// What a file holds.
struct Seen {
    index: Arc<ObjectIndex>,
    records: Vec<Bytes>,
    /// Ranges that indexing read.
    asked: Vec<Range<u64>>,
    /// Ranges that were read to have all extents again.
    asked_again: Vec<Range<u64>>,
}

impl Seen {
    fn lines(&self) -> Vec<&str> {
        self.records.iter().map(|record| std::str::from_utf8(record).unwrap()).collect()
    }

    fn damage(&self) -> String {
        let reasons = self.index.damage.iter().map(|damage| damage.reason.as_str());
        reasons.collect::<Vec<_>>().join("; ")
    }
}

fn as_json(columns: &[&str]) -> RowsAs {
    let columns = columns.iter().map(|column| (*column).to_owned()).collect();
    RowsAs { rows: Rows::Json, columns }
}

fn as_arrow(columns: &[&str]) -> RowsAs {
    RowsAs { rows: Rows::Arrow, ..as_json(columns) }
}

fn values(extent: &Extent) -> impl Iterator<Item = Bytes> {
    extent.layout.records.iter().map(|record| record.value.slice(&extent.content))
}

/// Indexes a file, and reads each extent again, the last ones first: that has to give the same.
async fn read(file: impl Into<Bytes>, rows_as: RowsAs) -> Seen {
    let source = Arc::new(Memory { bytes: file.into(), asked: Mutex::default() });
    let size = source.bytes.len() as u64;
    let object = Object { path: "a.parquet".into(), etag: None, size, modified_ms: 0 };
    let reading =
        Reading { rows_as: Some(rows_as), ..Reading::plain(Format::Parquet, Coding::Plain) };
    let mut kept = Kept::default();
    let between = Between::new(&in_memory(64 << 20));
    let index = index::index(&*source, &object, reading, Pace::even(3), &between, &mut kept).await;
    let index = Arc::new(index.unwrap());
    let asked = std::mem::take(&mut *source.asked.lock().unwrap());
    assert_eq!(index.extents.len(), kept.0.len());
    let stored = serde_json::to_vec(&*index).unwrap();
    assert_eq!(serde_json::from_slice::<ObjectIndex>(&stored).unwrap(), *index);
    let mut start = 0;
    for (extent, found) in index.extents.iter().zip(&kept.0).rev() {
        let source: Arc<dyn Source> = Arc::clone(&source) as _;
        let reread = Reread { source, object: &object, id: 7, index: &index };
        let again = index::fetch(&reread, extent, &between, |_, _| {}).await.unwrap();
        let again = index::open(&object, &index, extent, again).unwrap();
        assert_eq!(again.content, found.content);
        assert_eq!(again.layout, found.layout);
    }
    for extent in &index.extents {
        assert_eq!(extent.start, start);
        start += u64::from(extent.bytes);
    }
    let records = kept.0.iter().flat_map(|extent| values(extent).collect::<Vec<_>>()).collect();
    let asked_again = std::mem::take(&mut *source.asked.lock().unwrap());
    Seen { index, records, asked, asked_again }
}

fn batch(columns: &[(&str, ArrayRef)]) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(
        columns.iter().map(|(name, column)| (*name, Arc::clone(column), true)),
    )
    .unwrap()
}

fn written(batch: &RecordBatch, properties: WriterProperties) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    file
}

fn groups_of(rows: usize) -> WriterProperties {
    WriterProperties::builder().set_max_row_group_row_count(Some(rows)).build()
}

fn numbers(count: i64) -> ArrayRef {
    Arc::new(arrow_array::Int64Array::from_iter_values(0..count))
}

fn texts(count: usize, bytes: usize) -> ArrayRef {
    let text = |row: usize| format!("{row:06}{}", "x".repeat(bytes.saturating_sub(6)));
    Arc::new(arrow_array::StringArray::from_iter_values((0..count).map(text)))
}

#[tokio::test]
async fn rows_are_records_row_group_by_row_group() {
    let all = batch(&[("n", numbers(25)), ("t", texts(25, 0))]);
    let file = written(&all, groups_of(10));
    let seen = read(file, as_json(&[])).await;
    assert_eq!(seen.damage(), "");
    let lines: Vec<String> =
        (0..25).map(|row| format!("{{\"n\":{row},\"t\":\"{row:06}\"}}")).collect();
    assert_eq!(seen.lines(), lines);
    assert_eq!(seen.index.rows, [(0, 0), (1, 0), (2, 0)]);
}

#[tokio::test]
async fn only_the_columns_asked_for_are_read() {
    let all = batch(&[("n", numbers(1000)), ("large", texts(1000, 900)), ("m", numbers(1000))]);
    let file = written(&all, groups_of(500));
    let size = file.len() as u64;
    let seen = read(file.clone(), as_json(&["m", "n"])).await;
    assert_eq!(seen.lines()[999], "{\"n\":999,\"m\":999}");
    // The tail, and for each row group the columns on both sides of the large one.
    assert_eq!(seen.asked.len(), 5, "{:?}", seen.asked);
    let bytes: u64 = seen.asked[1..].iter().map(|range| range.end - range.start).sum();
    assert!(bytes < size / 10, "{bytes} of {size}");
    let seen = read(file, as_json(&["n", "k"])).await;
    assert_eq!(seen.records.len(), 0);
    assert!(seen.damage().contains("no column \"k\""), "{}", seen.damage());
    assert!(seen.damage().contains("it has n, large, m"), "{}", seen.damage());
}

#[tokio::test]
async fn extents_are_cut_within_row_groups_and_read_again_from_any_row() {
    let all = batch(&[("n", numbers(30_000)), ("t", texts(30_000, 1000))]);
    let file = written(&all, groups_of(20_000));
    for rows_as in [as_json(&[]), as_arrow(&[])] {
        let seen = read(file.clone(), rows_as.clone()).await;
        assert_eq!(seen.damage(), "");
        let groups: Vec<u32> = seen.index.rows.iter().map(|(group, _)| *group).collect();
        assert_eq!(groups, [0, 0, 0, 1, 1], "{:?}", seen.index.rows);
        let in_order = |asked: &[Range<u64>]| {
            let mut asked = asked.to_vec();
            asked.sort_by_key(|range| range.start);
            asked
        };
        let again = in_order(&seen.asked_again);
        assert_eq!(in_order(&seen.asked), again, "each row group is read once for its extents");
        if rows_as.rows == Rows::Json {
            assert_eq!(seen.records.len(), 30_000);
            assert!(seen.lines()[29_999].starts_with("{\"n\":29999,\"t\":\"029999xx"));
        }
    }
}

#[tokio::test]
async fn small_row_groups_are_read_in_order() {
    let all = batch(&[("n", numbers(100)), ("t", texts(100, 50))]);
    for rows in [1, 3, 30] {
        let seen = read(written(&all, groups_of(rows)), as_json(&["n"])).await;
        assert_eq!(seen.damage(), "");
        let lines: Vec<String> = (0..100).map(|row| format!("{{\"n\":{row}}}")).collect();
        assert_eq!(seen.lines(), lines);
        assert_eq!(seen.index.extents.len(), 100_usize.div_ceil(rows));
    }
}

#[tokio::test]
async fn rows_are_batches_in_arrows_format() {
    let all = batch(&[("n", numbers(2500)), ("t", texts(2500, 10)), ("m", numbers(2500))]);
    let file = written(&all, groups_of(2000));
    let seen = read(file, as_arrow(&["n", "t"])).await;
    let mut rows = Vec::new();
    for record in &seen.records {
        let reader = arrow_ipc::reader::StreamReader::try_new(&record[..], None).unwrap();
        assert_eq!(reader.schema().fields().len(), 2);
        let batches: Vec<RecordBatch> = reader.map(|batch| batch.unwrap()).collect();
        assert_eq!(batches.len(), 1);
        rows.push(batches[0].num_rows());
        assert_eq!(batches[0].schema().field(1).data_type(), &arrow_schema::DataType::Utf8);
    }
    assert_eq!(rows, [1024, 976, 500]);
    let large = batch(&[("t", texts(1000, 10_000))]);
    let seen = read(written(&large, groups_of(1000)), as_arrow(&[])).await;
    assert_eq!(seen.records.len(), 1000_usize.div_ceil(52));
}

#[tokio::test]
async fn files_without_rows_have_no_records() {
    let none = batch(&[("n", numbers(0))]);
    let seen = read(written(&none, groups_of(10)), as_json(&[])).await;
    assert_eq!((seen.records.len(), seen.damage()), (0, String::new()));
    for (file, said) in [(&b""[..], "does not end with PAR1"), (b"PAR1", "PAR1"), (b"x", "PAR1")] {
        let seen = read(Bytes::from_static(file), as_json(&[])).await;
        assert!(seen.damage().contains(said), "{}", seen.damage());
    }
}

/// As pyarrow 26 writes it: zstd, row groups of two rows, Arrow's schema in the footer, and types that are read as plainer ones.
#[tokio::test]
async fn a_file_of_pyarrow_is_read() {
    let file = Bytes::from_static(include_bytes!("tests/pyarrow.parquet"));
    let seen = read(file, as_json(&[])).await;
    assert_eq!(seen.damage(), "");
    let line = |id: u32, text: &str, kind: &str, price: &str, rest: &str| {
        let at = "2024-05-06T07:08:09.000010Z";
        format!(
            "{{\"id\":{id},\"text\":{text},\"kind\":\"{kind}\",\"price\":{price},\"at\":\"{at}\",{rest}}}"
        )
    };
    let image = r#""image":{"bytes":"iVBORw==","path":"1.png"},"scores":[1.5,null]"#;
    let empty = r#""image":{"bytes":"","path":null},"scores":null"#;
    let lines = [
        line(1, "\"a\"", "x", "1.50", image),
        line(2, "null", "y", "-0.05", r#""image":null,"scores":[]"#),
        line(3, "\"\u{fc}\"", "x", "null", empty),
    ];
    assert_eq!(seen.lines(), lines);
}
