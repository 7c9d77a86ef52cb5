//! What each type is written as, whatever encoding and codec it is stored in.

use std::sync::Arc;

use arrow_array::builder::{
    FixedSizeBinaryBuilder, Int32Builder, ListBuilder, MapBuilder, StringBuilder,
    StringDictionaryBuilder,
};
use arrow_array::types::{Float64Type, Int32Type, Int64Type};
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float16Array, Float32Array,
    Float64Array, Int8Array, Int64Array, LargeStringArray, ListArray, NullArray, RecordBatch,
    StringArray, StructArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    TimestampNanosecondArray, UInt64Array,
};
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;

use super::{as_arrow, as_json, batch, groups_of, numbers, read, texts, written};

async fn check(column: ArrayRef, expected: &[&str]) {
    let kind = column.data_type().clone();
    let all = batch(&[("c", column)]);
    let seen = read(written(&all, groups_of(100)), as_json(&[])).await;
    assert_eq!(seen.damage(), "", "{kind}");
    let expected: Vec<String> = expected.iter().map(|value| format!("{{\"c\":{value}}}")).collect();
    assert_eq!(seen.lines(), expected, "{kind}");
    let frames = read(written(&all, groups_of(100)), as_arrow(&[])).await;
    assert_eq!((frames.damage(), frames.records.len()), (String::new(), 1), "{kind}");
}

fn listed<T: arrow_array::types::ArrowPrimitiveType>(
    rows: Vec<Option<Vec<Option<T::Native>>>>,
) -> ArrayRef {
    Arc::new(ListArray::from_iter_primitive::<T, _, _>(rows))
}

#[tokio::test]
async fn numbers_are_numbers_and_what_is_none_is_null() {
    check(Arc::new(Int8Array::from(vec![Some(-128), None, Some(127)])), &["-128", "null", "127"])
        .await;
    check(Arc::new(UInt64Array::from(vec![u64::MAX])), &["18446744073709551615"]).await;
    check(Arc::new(Int64Array::from(vec![i64::MIN])), &["-9223372036854775808"]).await;
    check(
        Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        &["true", "null", "false"],
    )
    .await;
    let floats = vec![1.5, 1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.1];
    check(
        Arc::new(Float64Array::from(floats)),
        &["1.5", "1.0e300", "null", "null", "null", "-0.0", "0.1"],
    )
    .await;
    check(Arc::new(Float32Array::from(vec![0.1, 16_777_216.0])), &["0.1", "16777216.0"]).await;
    let half = half::f16::from_f32(0.5);
    check(Arc::new(Float16Array::from(vec![half])), &["0.5"]).await;
    let decimals = Decimal128Array::from(vec![Some(-12_345), None, Some(5)]);
    let decimals = decimals.with_precision_and_scale(20, 3).unwrap();
    check(Arc::new(decimals), &["-12.345", "null", "0.005"]).await;
    check(Arc::new(NullArray::new(2)), &["null", "null"]).await;
}

#[tokio::test]
async fn text_is_text_and_bytes_are_base64() {
    let quoted = "a\"\n\u{4e2d}\u{0}";
    let json = "\"a\\\"\\n\u{4e2d}\\u0000\"";
    check(Arc::new(StringArray::from(vec![Some(quoted), None, Some("")])), &[json, "null", "\"\""])
        .await;
    check(Arc::new(LargeStringArray::from(vec![quoted])), &[json]).await;
    let mut dictionary = StringDictionaryBuilder::<Int32Type>::new();
    for text in ["a", "b", "a"] {
        dictionary.append(text).unwrap();
    }
    check(Arc::new(dictionary.finish()), &["\"a\"", "\"b\"", "\"a\""]).await;
    let bytes: Vec<Option<&[u8]>> = vec![Some(b"\xff\xfe\xfd\xfc"), None, Some(b"")];
    check(Arc::new(BinaryArray::from(bytes)), &["\"//79/A==\"", "null", "\"\""]).await;
    let mut fixed = FixedSizeBinaryBuilder::new(3);
    fixed.append_value(b"abc").unwrap();
    fixed.append_null();
    check(Arc::new(fixed.finish()), &["\"YWJj\"", "null"]).await;
}

#[tokio::test]
async fn times_are_as_rfc_3339_has_them_in_utc() {
    check(Arc::new(Date32Array::from(vec![0, 19_000])), &["\"1970-01-01\"", "\"2022-01-08\""])
        .await;
    let moment = vec![1_641_600_000_123_456];
    let local = TimestampMicrosecondArray::from(moment.clone());
    check(Arc::new(local), &["\"2022-01-08T00:00:00.123456\""]).await;
    for zone in ["UTC", "Europe/Berlin", "+02:00"] {
        let zoned = TimestampMicrosecondArray::from(moment.clone()).with_timezone(zone);
        check(Arc::new(zoned), &["\"2022-01-08T00:00:00.123456Z\""]).await;
    }
    let nanos = TimestampNanosecondArray::from(vec![1]);
    check(Arc::new(nanos), &["\"1970-01-01T00:00:00.000000001\""]).await;
    check(Arc::new(Time64MicrosecondArray::from(vec![1])), &["\"00:00:00.000001\""]).await;
}

#[tokio::test]
async fn what_is_nested_is_nested() {
    check(
        listed::<Int64Type>(vec![Some(vec![Some(1), None]), None, Some(vec![])]),
        &["[1,null]", "null", "[]"],
    )
    .await;
    let vectors = arrow_array::FixedSizeListArray::from_iter_primitive::<Float64Type, _, _>(
        vec![Some(vec![Some(1.0), Some(2.0)]), None],
        2,
    );
    check(Arc::new(vectors), &["[1.0,2.0]", "null"]).await;
    let mut lists = ListBuilder::new(ListBuilder::new(StringBuilder::new()));
    lists.values().values().append_value("a");
    lists.values().append(true);
    lists.values().append(true);
    lists.append(true);
    check(Arc::new(lists.finish()), &["[[\"a\"],[]]"]).await;
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    map.keys().append_value("a\"");
    map.values().append_value(1);
    map.keys().append_value("b");
    map.values().append_null();
    map.append(true).unwrap();
    map.append(true).unwrap();
    check(Arc::new(map.finish()), &["{\"a\\\"\":1,\"b\":null}", "{}"]).await;
    let mut map = MapBuilder::new(None, Int32Builder::new(), Int32Builder::new());
    map.keys().append_value(7);
    map.values().append_value(1);
    map.append(true).unwrap();
    check(Arc::new(map.finish()), &["{\"7\":1}"]).await;
    // As datasets of images are written.
    let image = StructArray::try_from(vec![
        ("bytes", Arc::new(BinaryArray::from(vec![Some(&b"\x89PNG"[..]), None])) as ArrayRef),
        ("path", Arc::new(StringArray::from(vec![None, Some("a.png")])) as ArrayRef),
    ]);
    let expected =
        ["{\"bytes\":\"iVBORw==\",\"path\":null}", "{\"bytes\":null,\"path\":\"a.png\"}"];
    check(Arc::new(image.unwrap()), &expected).await;
}

/// Columns of which some compress well, and some do not.
fn mixed() -> RecordBatch {
    let words = (0..3000).map(|row| format!("word{}", row * row % 97));
    let bytes = (0..3000_u32).map(|row| row.wrapping_mul(2_654_435_761).to_le_bytes());
    let lists = (0..3000).map(|row| Some((0..row % 5).map(Some).collect::<Vec<_>>()));
    batch(&[
        ("n", numbers(3000)),
        ("w", Arc::new(StringArray::from_iter_values(words))),
        ("t", texts(3000, 20)),
        ("b", Arc::new(BinaryArray::from_iter_values(bytes))),
        ("l", listed::<Int64Type>(lists.collect())),
        ("f", Arc::new(Float64Array::from_iter_values((0..3000).map(|row| f64::from(row) / 8.0)))),
    ])
}

#[tokio::test]
async fn every_codec_and_encoding_gives_the_same_rows() {
    let all = mixed();
    let expected = read(written(&all, groups_of(1700)), as_json(&[])).await;
    assert_eq!((expected.records.len(), expected.damage()), (3000, String::new()));
    let codecs = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(parquet::basic::GzipLevel::default()),
        Compression::BROTLI(parquet::basic::BrotliLevel::default()),
        Compression::ZSTD(parquet::basic::ZstdLevel::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
    ];
    for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
        for codec in codecs {
            let builder = WriterProperties::builder();
            let builder = builder.set_writer_version(version).set_compression(codec);
            let properties = builder
                .set_max_row_group_row_count(Some(1700))
                .set_data_page_size_limit(3000)
                .build();
            let seen = read(written(&all, properties), as_json(&[])).await;
            assert_eq!(seen.damage(), "", "{codec}");
            assert!(seen.records == expected.records, "{codec}");
        }
        let builder = WriterProperties::builder().set_writer_version(version);
        let column = |name: &str| ColumnPath::from(name);
        let properties = builder
            .set_max_row_group_row_count(Some(1700))
            .set_dictionary_enabled(false)
            .set_data_page_size_limit(5000)
            .set_column_encoding(column("n"), Encoding::DELTA_BINARY_PACKED)
            .set_column_encoding(column("w"), Encoding::DELTA_LENGTH_BYTE_ARRAY)
            .set_column_encoding(column("t"), Encoding::DELTA_BYTE_ARRAY)
            .set_column_encoding(column("b"), Encoding::DELTA_BYTE_ARRAY)
            .set_column_encoding(column("f"), Encoding::BYTE_STREAM_SPLIT)
            .build();
        let seen = read(written(&all, properties), as_json(&[])).await;
        assert_eq!(seen.damage(), "");
        assert!(seen.records == expected.records);
    }
}

/// Cached extents and stored indexes hold checksums of these bytes: see [`super::super::RENDERING`].
#[tokio::test]
async fn what_rows_become_stays_the_same() {
    let seen = read(written(&mixed(), groups_of(5000)), as_json(&[])).await;
    assert_eq!(seen.index.extents[0].crc, Some(2_817_478_017));
    let seen = read(written(&mixed(), groups_of(5000)), as_arrow(&[])).await;
    assert_eq!(seen.index.extents[0].crc, Some(3_121_910_632));
}
