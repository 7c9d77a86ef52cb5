//! Files that lie, are cut off, or were changed: what comes is good rows or damage, and no more memory than limits allow.

use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use parquet::basic::Compression;
use parquet::file::metadata::{
    ColumnChunkMetaDataBuilder, ParquetMetaData, ParquetMetaDataReader, ParquetMetaDataWriter,
};
use parquet::file::properties::WriterProperties;
use proptest::prelude::{any, proptest};
use robustmq_common::limits::dataset as limits;

use super::{as_arrow, as_json, batch, groups_of, numbers, read, texts, written};

/// Some small columns in three row groups.
fn small(codec: Compression) -> Vec<u8> {
    let lists = (0..30).map(|row| Some((0..row % 4).map(Some).collect::<Vec<Option<i64>>>()));
    let lists =
        arrow_array::ListArray::from_iter_primitive::<arrow_array::types::Int64Type, _, _>(lists);
    let words =
        StringArray::from_iter((0..30).map(|row| (row % 3 > 0).then(|| format!("w{}", row % 5))));
    let all = batch(&[("n", numbers(30)), ("w", Arc::new(words)), ("l", Arc::new(lists))]);
    let builder = WriterProperties::builder().set_compression(codec);
    written(&all, builder.set_max_row_group_row_count(Some(12)).build())
}

#[tokio::test]
async fn a_file_that_is_cut_off_anywhere_is_damage() {
    let file = small(Compression::SNAPPY);
    for end in 0..file.len() {
        let seen = read(file[..end].to_vec(), as_json(&[])).await;
        assert_eq!(seen.records.len(), 0);
        assert!(seen.damage().contains("PAR1"), "{end}: {}", seen.damage());
    }
}

#[tokio::test]
async fn every_byte_may_be_another() {
    let file = small(Compression::ZSTD(parquet::basic::ZstdLevel::default()));
    for at in 0..file.len() {
        // Another change for each, so that it does not take a minute.
        let other = [0, 0xff, file[at] ^ 1, file[at] ^ 0x80][at % 4];
        let mut file = file.clone();
        file[at] = other;
        let seen = read(file, as_json(&[])).await;
        assert!(seen.records.len() <= 30, "{at} {other}");
    }
}

proptest! {
    #[test]
    fn any_bytes_may_be_any_others(changes: Vec<(u16, u8)>, is_plain: bool, arrow: bool, ends in any::<[u8; 8]>()) {
        let mut file = small(if is_plain { Compression::UNCOMPRESSED } else { Compression::SNAPPY });
        for (at, byte) in changes.iter().take(8) {
            let at = usize::from(*at) % file.len();
            file[at] = *byte;
        }
        if ends[0] < 64 {
            let from = file.len() - 8;
            file[from..from + 4].copy_from_slice(&u32::from(u16::from_le_bytes([ends[1], ends[2]])).to_le_bytes());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let rows_as = if arrow { as_arrow(&[]) } else { as_json(&[]) };
        runtime.block_on(read(file, rows_as));
    }
}

/// The file with another footer.
fn with_footer(file: &[u8], change: impl FnOnce(ParquetMetaData) -> ParquetMetaData) -> Vec<u8> {
    let bytes = bytes::Bytes::copy_from_slice(file);
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&bytes).unwrap();
    let length = u32::from_le_bytes(file[file.len() - 8..][..4].try_into().unwrap());
    let mut lying = file[..file.len() - 8 - length as usize].to_vec();
    ParquetMetaDataWriter::new(&mut lying, &change(metadata)).finish().unwrap();
    lying
}

/// The file with another chunk of its first column in its first row group.
fn with_chunk(
    file: &[u8],
    change: impl FnOnce(ColumnChunkMetaDataBuilder) -> ColumnChunkMetaDataBuilder,
) -> Vec<u8> {
    with_footer(file, |metadata| {
        let mut builder = metadata.into_builder();
        let mut groups = builder.take_row_groups();
        let mut group = groups.remove(0).into_builder();
        let mut chunks = group.take_columns();
        chunks[0] = change(chunks[0].clone().into_builder()).build().unwrap();
        groups.insert(0, group.set_column_metadata(chunks).build().unwrap());
        builder.set_row_groups(groups).build()
    })
}

async fn check(file: Vec<u8>, records: usize, said: &str) {
    let seen = read(file, as_json(&[])).await;
    assert!(seen.damage().contains(said), "{}", seen.damage());
    assert_eq!(seen.records.len(), records, "{}", seen.damage());
}

#[tokio::test]
async fn a_chunk_is_where_and_as_large_as_the_footer_says_or_damage() {
    let file = small(Compression::UNCOMPRESSED);
    let size = i64::try_from(file.len()).unwrap();
    for bytes in [-1, size, 1 << 62, 1 << 40] {
        let lying = with_chunk(&file, |chunk| chunk.set_total_compressed_size(bytes));
        check(lying, 18, "row group 0: the chunk of column \"n\" lies outside").await;
    }
    for bytes in [0, 1, 10] {
        let lying = with_chunk(&file, |chunk| chunk.set_total_compressed_size(bytes));
        check(lying, 18, "row group 0: ").await;
    }
    for offset in [-1, i64::MAX, i64::MIN] {
        let lying = with_chunk(&file, |chunk| {
            chunk.set_dictionary_page_offset(None).set_data_page_offset(offset)
        });
        check(lying, 18, "lies outside").await;
    }
    let lying = with_chunk(&file, |chunk| chunk.set_compression(Compression::LZO));
    check(lying, 18, "compressed with LZO").await;
    let lying = with_chunk(&file, |chunk| chunk.set_compression(Compression::SNAPPY));
    check(lying, 18, "cannot be decompressed").await;
}

#[tokio::test]
async fn a_row_group_has_as_many_rows_as_it_says_or_is_damage() {
    let file = small(Compression::UNCOMPRESSED);
    for rows in [-1, 0, 11, 13, 1 << 40, 1 << 62] {
        let lying = with_footer(&file, |metadata| {
            let mut builder = metadata.into_builder();
            let mut groups = builder.take_row_groups();
            let group = groups.remove(1).into_builder().set_num_rows(rows).build().unwrap();
            groups.insert(1, group);
            builder.set_row_groups(groups).build()
        });
        check(lying, 18, if rows == 0 { "" } else { "row group 1: " }).await;
    }
}

#[tokio::test]
async fn row_groups_at_one_place_are_not_read_without_end() {
    let file = small(Compression::UNCOMPRESSED);
    let lying = with_footer(&file, |metadata| {
        let mut builder = metadata.into_builder();
        let group = builder.take_row_groups().remove(0);
        builder.set_row_groups(vec![group; 1000]).build()
    });
    let seen = read(lying, as_json(&[])).await;
    assert!(seen.damage().contains("more bytes together than it has"), "{}", seen.damage());
    let bytes: u64 = seen.asked.iter().map(|range| range.end - range.start).sum();
    assert!(bytes < 1_000_000, "{bytes}");
}

#[tokio::test]
async fn encrypted_files_are_told() {
    let mut file = small(Compression::UNCOMPRESSED);
    let magic = file.len() - 4;
    file[magic..].copy_from_slice(b"PARE");
    check(file, 0, "it is encrypted").await;
    // Field 8 of the footer, an empty struct.
    check(footer(&[0x8c, 0x00, 0x00]), 0, "it is encrypted").await;
}

fn footer(metadata: &[u8]) -> Vec<u8> {
    let length = u32::try_from(metadata.len()).unwrap().to_le_bytes();
    [b"PAR1", metadata, &length, b"PAR1"].concat()
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
    bytes
}

#[tokio::test]
async fn footers_take_no_memory_and_no_stack_by_their_numbers() {
    let list = |count: u64| [&[0x29, 0xfc][..], &varint(count)].concat();
    // Elements that are not there.
    check(footer(&list(1 << 31)), 0, "more elements than there are bytes").await;
    check(footer(&list(u64::MAX)), 0, "more elements than there are bytes").await;
    // A schema of groups with a child each: name "g", repetition 0, children 1.
    let deep = |levels: u64| {
        let element = [0x35, 0x00, 0x18, 0x01, b'g', 0x15, 0x02, 0x00];
        let leaf = [0x15, 0x02, 0x25, 0x00, 0x18, 0x01, b'g', 0x00];
        let all = element.repeat(usize::try_from(levels).unwrap());
        footer(&[list(levels + 1), all, leaf.to_vec(), vec![0x00]].concat())
    };
    check(deep(10_000), 0, "nested deeper").await;
    check(deep(60_000), 0, "more than 16384").await;
    // A group that is to have two thousand million children.
    let many = [0x48, 0x01, b'g', 0x15, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0x00, 0x00];
    check(footer(&[list(1), many.to_vec()].concat()), 0, "is to have 2147483647 columns").await;
    // Structs within structs.
    let nested = [0x1c_u8].repeat(100_000);
    check(footer(&nested), 0, "nested too deep").await;
    // Row groups with more chunks together than a file may have: lists of empty structs.
    let group = [&[0x19, 0xfc][..], &varint(60_000), &[0; 60_000], &[0]].concat();
    let groups = [&[0x49, 0x5c][..], &group.repeat(5), &[0]].concat();
    check(footer(&groups), 0, "more than 262144 column chunks").await;
    // A footer that is longer than its file.
    let mut long = footer(&[0]);
    long[5..9].copy_from_slice(&u32::MAX.to_le_bytes());
    check(long, 0, "4294967295 bytes").await;
}

/// A file of one column without levels whose pages are these bytes.
fn with_pages(pages: &[u8], rows: i64, codec: Compression) -> Vec<u8> {
    let column: ArrayRef = Arc::new(BinaryArray::from(vec![&b"x"[..]]));
    let all = RecordBatch::try_from_iter([("c", column)]).unwrap();
    let properties = WriterProperties::builder().set_dictionary_enabled(false).build();
    let good = written(&all, properties);
    let file = [b"PAR1", pages, &good[4..]].concat();
    with_footer(&good, |metadata| {
        let mut builder = metadata.into_builder();
        let mut groups = builder.take_row_groups();
        let mut group = groups.remove(0).into_builder().set_num_rows(rows);
        let chunk = group.take_columns().remove(0).into_builder();
        let chunk = chunk.set_data_page_offset(4).set_compression(codec);
        let bytes = i64::try_from(pages.len()).unwrap();
        let chunk = chunk.set_total_compressed_size(bytes).build().unwrap();
        let group = group.set_column_metadata(vec![chunk]).build().unwrap();
        builder.set_row_groups(vec![group]).build()
    })
    .split_off(good_data_bytes(&good))
    .into_iter()
    .fold(file[..4 + pages.len()].to_vec(), |mut file, byte| {
        file.push(byte);
        file
    })
}

/// Where the footer of a file begins.
fn good_data_bytes(file: &[u8]) -> usize {
    let length = u32::from_le_bytes(file[file.len() - 8..][..4].try_into().unwrap());
    file.len() - 8 - length as usize
}

fn zigzag(number: i32) -> Vec<u8> {
    varint(u64::from(((number << 1) ^ (number >> 31)).cast_unsigned()))
}

/// A data page of the first version, with sizes as they are said.
fn page(encoding: i32, values: i32, uncompressed: i32, compressed: i32, bytes: &[u8]) -> Vec<u8> {
    let inner = [
        &[0x15][..],
        &zigzag(values),
        &[0x15],
        &zigzag(encoding),
        &[0x15],
        &zigzag(3),
        &[0x15],
        &zigzag(3),
        &[0x00],
    ]
    .concat();
    [
        &[0x15, 0x00, 0x15][..],
        &zigzag(uncompressed),
        &[0x15],
        &zigzag(compressed),
        &[0x2c],
        &inner,
        &[0x00],
        bytes,
    ]
    .concat()
}

fn honest(encoding: i32, values: i32, bytes: &[u8]) -> Vec<u8> {
    let size = i32::try_from(bytes.len()).unwrap();
    page(encoding, values, size, size, bytes)
}

#[tokio::test]
async fn page_headers_are_believed_within_limits() {
    let plain = Compression::UNCOMPRESSED;
    let value = b"\x02\0\0\0hi";
    check(with_pages(&honest(0, 1, value), 1, plain), 1, "").await;
    let two = [honest(0, 1, value), honest(0, 1, value)].concat();
    check(with_pages(&two, 2, plain), 2, "").await;
    check(with_pages(&two, 3, plain), 0, "3 rows are to have 2 values").await;
    check(with_pages(&honest(0, 2, value), 2, plain), 0, "row group 0, rows from 0 on").await;
    check(with_pages(&page(0, 1, -1, 6, value), 1, plain), 0, "a size is -1").await;
    check(with_pages(&page(0, 1, 6, 7, value), 1, plain), 0, "ends behind").await;
    check(with_pages(&page(0, 1, i32::MAX, 6, value), 1, plain), 0, "2147483647 bytes").await;
    check(with_pages(&honest(10, 1, value), 1, plain), 0, "encoding 10").await;
    check(with_pages(&honest(8, 1, value), 1, plain), 0, "row 0: ").await;
    let snappy = Compression::SNAPPY;
    check(with_pages(&page(0, 1, 60_000_000, 6, value), 1, snappy), 0, "decompressed").await;
}

#[tokio::test]
async fn decompressed_pages_are_no_larger_than_they_say() {
    use std::io::Write;
    let fast = flate2::Compression::fast();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), fast);
    encoder.write_all(&vec![0; 200_000_000]).unwrap();
    let bomb = encoder.finish().unwrap();
    let compressed = i32::try_from(bomb.len()).unwrap();
    let gzip = Compression::GZIP(parquet::basic::GzipLevel::default());
    let file = with_pages(&page(0, 1, 1000, compressed, &bomb), 1, gzip);
    check(file, 0, "larger than it says").await;
}

#[tokio::test]
async fn delta_encodings_are_believed_within_limits() {
    let plain = Compression::UNCOMPRESSED;
    let head = |values: u64| [&[0x80, 0x01, 0x04][..], &varint(values), &[0x00]].concat();
    for encoding in [5, 6, 7] {
        let file = with_pages(&honest(encoding, 4, &head(1 << 40)), 4, plain);
        check(file, 0, "to have 1099511627776 values of 4").await;
    }
    // Prefixes are good, and suffixes are not.
    let file = with_pages(&honest(7, 1, &[head(1), head(1 << 40)].concat()), 1, plain);
    check(file, 0, "to have 1099511627776 values of 1").await;
    // The first value has a megabyte, and each of the others all of the one before it.
    let megabyte = 1 << 20;
    let numbers = |first: i64, delta: i64, bits: u8, values: u32| {
        let zigzag = |number: i64| varint(((number << 1) ^ (number >> 63)).cast_unsigned());
        let head = [&[0x80, 0x01, 0x04][..], &varint(values.into()), &zigzag(first)].concat();
        // The first difference is in the block's least; further blocks have none.
        let blocks = (values - 1).div_ceil(128);
        let block = |number: u32| {
            let least = if number == 0 { delta } else { 0 };
            [zigzag(least), vec![bits; 4]].concat()
        };
        [head, (0..blocks).flat_map(block).collect()].concat()
    };
    let prefixes = numbers(0, megabyte, 0, 2);
    let suffixes = numbers(megabyte, -megabyte, 0, 2);
    let value = vec![b'x'; 1 << 20];
    let two = honest(7, 2, &[&prefixes[..], &suffixes, &value].concat());
    check(with_pages(&two, 2, plain), 2, "").await;
    let many = two.repeat(100);
    check(with_pages(&many, 200, plain), 200, "").await;
}

#[tokio::test]
async fn rows_that_are_too_large_are_left_out() {
    let large = "x".repeat(limits::RECORD_BYTES);
    let quoted = "\"".repeat(limits::RECORD_BYTES / 2);
    let texts = StringArray::from(vec!["a", &large, "b", &quoted, "c"]);
    let all = batch(&[("t", Arc::new(texts) as ArrayRef)]);
    let file = written(
        &all,
        WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_dictionary_enabled(false)
            .set_write_batch_size(1)
            .build(),
    );
    let seen = read(file.clone(), as_json(&[])).await;
    assert_eq!(
        seen.lines(),
        ["{\"t\":\"a\"}", "{\"t\":\"b\"}", "{\"t\":\"c\"}"],
        "{}",
        seen.damage()
    );
    assert_eq!(seen.index.damaged, 2);
    assert!(seen.damage().contains("row group 0, row 1: larger than"), "{}", seen.damage());
    assert!(seen.damage().contains("row group 0, row 3: larger than"), "{}", seen.damage());
    let seen = read(file, as_arrow(&[])).await;
    assert_eq!(seen.index.damaged, 1, "{}", seen.damage());
}

#[tokio::test]
async fn row_groups_after_a_damaged_one_are_read() {
    let all = batch(&[("t", texts(300, 100))]);
    let mut file = written(&all, groups_of(100));
    // In the middle of the second row group.
    let at = good_data_bytes(&file) / 2;
    file[at - 400..at + 400].fill(0xff);
    let seen = read(file, as_json(&[])).await;
    assert!(seen.damage().contains("row group 1"), "{}", seen.damage());
    let lines = seen.lines();
    assert!(lines.len() >= 200 && lines[lines.len() - 1].contains("000299"), "{}", lines.len());
}
