use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{
    BatchBuilder, BatchError, BatchHeader, Compression, HEADER_BYTES, NewRecord, Producer, Record,
    RecordBatch, place, split_batches,
};
use crate::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

const MIB: usize = 1024 * 1024;
const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];
/// What `testdata/golden.py` packs by hand and gives a CRC32C of its own.
const PLAIN: &str = include_str!("testdata/plain.hex");

fn unhex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("hex digits are ASCII");
        u8::from_str_radix(pair, 16).expect("hex digits")
    };
    digits.chunks(2).map(byte).collect()
}

fn batch_of(codec: Compression, values: &[&str]) -> RecordBatch {
    let mut builder = BatchBuilder::new(codec);
    for (index, value) in (0i64..).zip(values) {
        let headers = [("h", Some(b"x".as_slice()))];
        let record = NewRecord {
            timestamp_ms: 1000 + index,
            key: None,
            value: Some(value.as_bytes()),
            headers: &headers,
        };
        builder.push(&record).expect("a small batch");
    }
    builder.build().expect("a batch with records")
}

fn records_of(batch: &RecordBatch) -> Vec<Record> {
    let records = batch.records(MIB).expect("readable records");
    records.collect::<Result<_, _>>().expect("well-formed records")
}

fn offsets_of(batch: &RecordBatch) -> Vec<i64> {
    records_of(batch).iter().map(|record| record.offset.0).collect()
}

/// The same bytes with one header field replaced and a true checksum.
fn patched<const N: usize>(batch: &RecordBatch, at: usize, field: [u8; N]) -> Bytes {
    let mut bytes = BytesMut::from(batch.as_bytes().as_ref());
    bytes[at..at + N].copy_from_slice(&field);
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.freeze()
}

#[test]
fn the_plain_golden_batch_reads_field_by_field() {
    let batch = RecordBatch::parse(unhex(PLAIN)).expect("the golden batch is valid");
    assert_eq!(batch.base_offset(), Offset(1_000_000));
    assert_eq!(batch.last_offset(), Offset(1_000_002));
    assert_eq!(batch.next_offset(), Offset(1_000_003));
    assert_eq!(batch.header().partition_leader_epoch, LeaderEpoch(5));
    assert_eq!(batch.records_count(), 3);
    assert_eq!(batch.max_timestamp(), 1_700_000_001_500);
    let producer = Producer { id: ProducerId(4711), epoch: ProducerEpoch(3), base_sequence: 42 };
    assert_eq!(batch.producer(), Some(producer));
    assert_eq!(batch.last_sequence(), Some(44));
    let records = records_of(&batch);
    assert_eq!(records[0].key.as_deref(), Some(b"key".as_slice()));
    assert_eq!(records[0].value.as_deref(), Some(b"value".as_slice()));
    assert_eq!(records[0].header("mqtt.topic").map(Bytes::as_ref), Some(b"plant/line".as_slice()));
    assert_eq!(records[0].headers[1].value, None);
    assert_eq!((&records[1].key, records[1].value.as_deref()), (&None, Some(b"".as_slice())));
    assert_eq!((records[2].key.as_deref(), &records[2].value), (Some(b"".as_slice()), &None));
    let timestamps: Vec<i64> = records.iter().map(|record| record.timestamp_ms).collect();
    assert_eq!(timestamps, [1_700_000_000_000, 1_700_000_001_500, 1_699_999_999_993]);
}

#[test]
fn the_builder_writes_the_plain_golden_batch_byte_for_byte() {
    let producer = Producer { id: ProducerId(4711), epoch: ProducerEpoch(3), base_sequence: 42 };
    let mut builder =
        BatchBuilder::new(Compression::None).base_offset(Offset(1_000_000)).producer(producer);
    let headers = [("mqtt.topic", Some(b"plant/line".as_slice())), ("null", None)];
    let records = [
        (0, Some(b"key".as_slice()), Some(b"value".as_slice()), headers.as_slice()),
        (1500, None, Some(b"".as_slice()), &[]),
        (-7, Some(b"".as_slice()), None, &[]),
    ];
    for (delta, key, value, headers) in records {
        let timestamp_ms = 1_700_000_000_000 + delta;
        builder.push(&NewRecord { timestamp_ms, key, value, headers }).expect("a small batch");
    }
    assert_eq!(builder.size(), unhex(PLAIN).len());
    let batch = builder.build().expect("a batch with records");
    let batch = batch.placed(Offset(1_000_000), LeaderEpoch(5));
    assert_eq!(batch.as_bytes(), &unhex(PLAIN));
}

#[test]
fn batches_that_kafka_python_compressed_decode() {
    let check = |codec: Compression, golden: &str| {
        let batch = RecordBatch::parse(unhex(golden)).expect("the golden batch is valid");
        assert_eq!(batch.compression(), codec);
        let records = records_of(&batch);
        assert_eq!(records.len(), 10, "{codec}");
        for (index, record) in records.iter().enumerate() {
            assert_eq!(record.key.as_deref(), Some(format!("key-{index}").as_bytes()), "{codec}");
            assert_eq!(record.value, Some(Bytes::from("0123456789".repeat(1000))), "{codec}");
            assert_eq!(record.header("index"), Some(&Bytes::from(index.to_string())), "{codec}");
        }
    };
    check(Compression::Gzip, include_str!("testdata/gzip.hex"));
    check(Compression::Snappy, include_str!("testdata/snappy.hex"));
    check(Compression::Lz4, include_str!("testdata/lz4.hex"));
    check(Compression::Zstd, include_str!("testdata/zstd.hex"));
}

#[test]
fn snappy_without_framing_decodes() {
    let plain = batch_of(Compression::None, &["one", "two"]);
    let raw = snap::raw::Encoder::new()
        .compress_vec(&plain.as_bytes()[HEADER_BYTES..])
        .expect("a small buffer");
    let mut bytes = BytesMut::from(&plain.as_bytes()[..HEADER_BYTES]);
    bytes.extend_from_slice(&raw);
    let length = i32::try_from(bytes.len() - 12).expect("a small batch");
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[22] = Compression::Snappy.code();
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    let batch = RecordBatch::parse(bytes.freeze()).expect("a valid batch");
    assert_eq!(records_of(&batch), records_of(&plain));
}

#[test]
fn headers_that_make_no_sense_are_refused() {
    let good = batch_of(Compression::None, &["a", "b", "c"]);
    let invalid = |at, field: [u8; 4]| {
        let result = RecordBatch::parse(patched(&good, at, field));
        assert!(matches!(result, Err(BatchError::Invalid { .. })), "{at}: {result:?}");
    };
    invalid(23, (-1i32).to_be_bytes());
    invalid(23, 1i32.to_be_bytes());
    invalid(57, (-1i32).to_be_bytes());
    invalid(57, 4i32.to_be_bytes());
    let overflowing = RecordBatch::parse(patched(&good, 0, (i64::MAX - 2).to_be_bytes()));
    assert!(matches!(overflowing, Err(BatchError::Invalid { .. })), "{overflowing:?}");
    let unknown = RecordBatch::parse(patched(&good, 21, 7i16.to_be_bytes()));
    assert_eq!(unknown, Err(BatchError::UnknownCompression { code: 7 }));
}

#[test]
fn only_a_broker_may_write_compacted_control_or_unsequenced_batches() {
    let good = batch_of(Compression::None, &["a", "b", "c"]);
    let check = |what: &str, bytes: Bytes| {
        RecordBatch::parse(bytes.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
        let result = split_batches(bytes, MIB);
        assert!(matches!(result, Err(BatchError::Invalid { .. })), "{what}: {result:?}");
    };
    check("compacted", patched(&good, 23, 9i32.to_be_bytes()));
    check("control", patched(&good, 21, 0x20i16.to_be_bytes()));
    check("delete horizon", patched(&good, 21, 0x40i16.to_be_bytes()));
    check("transactional without producer", patched(&good, 21, 0x10i16.to_be_bytes()));
    check("producer without sequence", patched(&good, 43, 7i64.to_be_bytes()));
}

#[test]
fn a_producers_records_are_what_its_header_says() {
    let check = |what: &str, bytes: Bytes, valid: bool| {
        RecordBatch::parse(bytes.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
        let result = split_batches(bytes.clone(), MIB);
        assert_eq!(result.is_ok(), valid, "{what}: {result:?}");
        if !valid {
            let invalid =
                matches!(result, Err(BatchError::Record { .. } | BatchError::Invalid { .. }));
            assert!(invalid, "{what}: {result:?}");
        }
    };
    let counted = |batch: &RecordBatch, count: i32| {
        let more = patched(batch, 23, (count - 1).to_be_bytes());
        let more = RecordBatch::parse(more).expect("a checksum that was made true");
        patched(&more, 57, count.to_be_bytes())
    };
    let plain = batch_of(Compression::None, &["a", "b", "c"]);
    check("as built", plain.as_bytes().clone(), true);
    check("one record more than there is", counted(&plain, 4), false);
    check("as many as a number can say", counted(&plain, i32::MAX), false);
    // The first record: length, attributes, timestamp, offset, key (null), value length, value, headers.
    for (what, at, byte) in [
        ("length", 61, 0x7f),
        ("negative length", 61, 0x01),
        ("offset", 64, 0x02),
        ("key length", 65, 0x7f),
        ("value length", 66, 0x03),
        ("header count", 68, 0x01),
        ("header key", 69, 0x01),
    ] {
        check(what, patched(&plain, at, [byte]), false);
    }
    for codec in CODECS.into_iter().filter(|codec| *codec != Compression::None) {
        let batch = batch_of(codec, &["a", "b", "c"]);
        check("compressed", batch.as_bytes().clone(), true);
        check("compressed, and far too many", counted(&batch, i32::MAX), false);
    }
}

#[test]
fn a_payload_is_cut_into_its_batches() {
    let first = batch_of(Compression::None, &["a"]);
    let second = batch_of(Compression::Zstd, &["b", "c"]);
    let payload: Bytes = [first.as_bytes().as_ref(), second.as_bytes()].concat().into();
    assert_eq!(split_batches(payload.clone(), MIB), Ok(vec![first.clone(), second.clone()]));
    assert_eq!(split_batches(Bytes::new(), MIB), Ok(vec![]));
    let limit = second.size() - 1;
    let too_large = BatchError::TooLarge { bytes: second.size(), limit };
    assert_eq!(split_batches(payload.clone(), limit), Err(too_large));
    for cut in 1..payload.len() {
        let result = split_batches(payload.slice(..cut), MIB);
        if cut == first.size() {
            assert_eq!(result, Ok(vec![first.clone()]));
        } else {
            assert!(matches!(result, Err(BatchError::Length { .. })), "{cut}: {result:?}");
        }
    }
}

#[test]
fn old_and_future_formats_are_told_apart_from_corruption() {
    for magic in [0i8, 1, 3, -1] {
        let mut bytes = vec![0u8; 34];
        bytes[8..12].copy_from_slice(&22i32.to_be_bytes());
        bytes[16..17].copy_from_slice(&magic.to_be_bytes());
        assert_eq!(split_batches(bytes.into(), MIB), Err(BatchError::Magic { magic }));
    }
}

#[test]
fn lengths_that_cannot_be_are_refused() {
    let good = batch_of(Compression::None, &["a"]);
    for length in [i32::MIN, -13, -12, -1, 0, 48] {
        let result = BatchHeader::parse(&patched(&good, 8, length.to_be_bytes()));
        assert!(matches!(result, Err(BatchError::Length { .. })), "{length}: {result:?}");
    }
    let result = split_batches(patched(&good, 8, i32::MAX.to_be_bytes()), MIB);
    assert!(matches!(result, Err(BatchError::Length { .. })), "{result:?}");
    let mut longer = good.as_bytes().to_vec();
    longer.push(0);
    assert!(matches!(RecordBatch::parse(longer.into()), Err(BatchError::Length { .. })));
}

#[test]
fn placing_changes_offset_and_epoch_only_and_copies_only_shared_bytes() {
    let batch = batch_of(Compression::None, &["a", "b"]);
    let before = batch.clone();
    let copied = batch.placed(Offset(77), LeaderEpoch(9));
    assert_eq!(before.base_offset(), Offset(0));
    assert_eq!((copied.base_offset(), copied.next_offset()), (Offset(77), Offset(79)));
    assert_eq!(copied.header().partition_leader_epoch, LeaderEpoch(9));
    assert_eq!(RecordBatch::parse(copied.as_bytes().clone()).as_ref(), Ok(&copied));
    assert_ne!(copied.as_bytes().as_ptr(), before.as_bytes().as_ptr());

    let own = copied.as_bytes().as_ptr();
    let moved = copied.placed(Offset(100), LeaderEpoch(10));
    assert_eq!(moved.as_bytes().as_ptr(), own);
    assert_eq!(offsets_of(&moved), [100, 101]);

    let mut answer = before.as_bytes().to_vec();
    assert!(place(&mut answer, Offset(100), LeaderEpoch(10)));
    assert_eq!(&answer, moved.as_bytes());
    assert!(!place(&mut answer[..HEADER_BYTES - 1], Offset(0), LeaderEpoch(0)));
}

#[test]
fn log_append_time_stamps_every_record_and_keeps_the_checksum_true() {
    let batch = batch_of(Compression::Lz4, &["a", "b"]).with_log_append_time(5000);
    let again = RecordBatch::parse(batch.as_bytes().clone()).expect("the checksum is true");
    assert_eq!(again, batch);
    assert!(again.attributes().is_log_append_time());
    assert_eq!((again.max_timestamp(), again.compression()), (5000, Compression::Lz4));
    assert!(records_of(&again).iter().all(|record| record.timestamp_ms == 5000));
}

#[test]
fn slicing_keeps_offsets_and_moves_the_end() {
    for codec in CODECS {
        let batch = batch_of(codec, &["a", "b", "c", "d", "e"]);
        let batch = batch.placed(Offset(10), LeaderEpoch(1));
        let check = |from, to, offsets: &[i64], next| {
            let sliced = batch.slice(MIB, Offset(from), Offset(to)).expect("readable records");
            let found = sliced.as_ref().map(offsets_of).unwrap_or_default();
            assert_eq!(found, offsets, "{codec} {from}..{to}");
            if let Some(sliced) = sliced {
                assert_eq!((sliced.base_offset().0, sliced.next_offset().0), (10, next), "{codec}");
                assert_eq!(RecordBatch::parse(sliced.as_bytes().clone()), Ok(sliced));
            }
        };
        check(10, 15, &[10, 11, 12, 13, 14], 15);
        check(0, 99, &[10, 11, 12, 13, 14], 15);
        check(12, 15, &[12, 13, 14], 15);
        check(10, 12, &[10, 11], 12);
        check(11, 13, &[11, 12], 13);
        check(12, 12, &[], 0);
        check(15, 20, &[], 0);
        check(0, 10, &[], 0);
        check(i64::MIN, i64::MIN, &[], 0);
    }
}

#[test]
fn what_is_cut_out_may_say_its_offset_in_a_header() {
    for codec in CODECS {
        let mut batch = BatchBuilder::new(codec);
        let own = [("h", Some(b"x".as_slice())), ("null", None)];
        let long = [b'k'; 300];
        for headers in [&[][..], &own, &own] {
            let record = NewRecord { timestamp_ms: 7, key: Some(&long), value: None, headers };
            batch.push(&record).expect("small");
        }
        let batch = batch.build().expect("a batch").placed(Offset(1000), LeaderEpoch(1));
        let sliced = batch.slice_with(MIB, Offset(1000), Offset(1002), Some("offset"));
        let sliced = sliced.expect("readable records").expect("two of them");
        assert_eq!(RecordBatch::parse(sliced.as_bytes().clone()), Ok(sliced.clone()));
        for (record, before) in records_of(&sliced).iter().zip(records_of(&batch)) {
            let (last, first) = record.headers.split_last().expect("one more");
            assert_eq!(first, before.headers, "{codec}");
            assert_eq!(last.key, b"offset"[..], "{codec}");
            let offset = record.offset.0.to_string();
            assert_eq!(last.value.as_deref(), Some(offset.as_bytes()), "{codec}");
            let but_headers = Record { headers: before.headers.clone(), ..record.clone() };
            assert_eq!(but_headers, before, "{codec}");
        }
        assert_eq!(sliced.next_offset(), Offset(1002), "{codec}");
        let all = batch.slice_with(MIB, Offset(0), Offset(2000), Some("offset"));
        assert_eq!(all, Ok(Some(batch)), "{codec}: nothing is cut off");
    }
}

#[test]
fn decompression_stops_at_the_bound() {
    let zeros = "\0".repeat(MIB);
    for codec in CODECS.into_iter().filter(|codec| *codec != Compression::None) {
        let batch = batch_of(codec, &[&zeros]);
        let too_large = BatchError::DecompressedTooLarge { limit: MIB };
        assert_eq!(batch.validate_records(MIB), Err(too_large), "{codec}");
        assert_eq!(batch.validate_records(MIB + 100), Ok(()), "{codec}");
    }
}

/// Found by fuzzing: four bytes made the decoder allocate two blocks of 8 MiB.
#[test]
fn legacy_lz4_is_refused_before_its_blocks_are_allocated() {
    let legacy = Bytes::from_static(b"\x02\x21\x4c\x18\x04\x22\x4d\x18");
    let result = Compression::Lz4.decompress(legacy, MIB);
    assert!(matches!(result, Err(BatchError::Decompress { .. })), "{result:?}");
}

#[test]
fn records_that_disagree_with_their_header_are_refused() {
    let good = batch_of(Compression::None, &["a", "b", "c"]);
    let check = |what: &str, bytes: Bytes, index| {
        let batch = RecordBatch::parse(bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
        match batch.validate_records(MIB) {
            Err(BatchError::Record { index: found, .. }) => assert_eq!(found, index, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    };
    check("one record less", patched(&good, 57, 2i32.to_be_bytes()), 2);
    let more = patched(&good, 23, 3i32.to_be_bytes());
    let more = RecordBatch::parse(more).expect("a compacted batch");
    check("one record more", patched(&more, 57, 4i32.to_be_bytes()), 3);
    check("negative length", patched(&good, HEADER_BYTES, [0x01]), 0);
    check("length past the end", patched(&good, HEADER_BYTES, [0x7e]), 0);
    check("offsets not in order", patched(&good, HEADER_BYTES + 3, [0x02]), 0);
    check("key past the record", patched(&good, HEADER_BYTES + 4, [0x7e]), 0);
    check("key length below -1", patched(&good, HEADER_BYTES + 4, [0x03]), 0);
    check("negative header count", patched(&good, HEADER_BYTES + 7, [0x01]), 0);
    check("more headers than bytes", patched(&good, HEADER_BYTES + 7, [0x7e]), 0);
    check("bytes behind the headers", patched(&good, HEADER_BYTES + 7, [0x00]), 0);
}

#[test]
fn a_batch_without_records_is_not_built() {
    let empty = BatchBuilder::new(Compression::None);
    assert!(empty.is_empty());
    assert!(matches!(empty.build(), Err(BatchError::Invalid { .. })));
}

#[test]
fn sequences_wrap_to_zero() {
    let check =
        |sequence, count, after| assert_eq!(Producer::sequence_after(sequence, count), after);
    check(0, 5, 5);
    check(i32::MAX, 0, i32::MAX);
    check(i32::MAX, 1, 0);
    check(i32::MAX - 1, 3, 1);
}

#[derive(Debug, Clone)]
struct AnyRecord {
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn any_record() -> impl Strategy<Value = AnyRecord> {
    let field = || proptest::option::of(vec(any::<u8>(), 0..200));
    let timestamp = prop_oneof![any::<i64>(), Just(-1), 1_700_000_000_000..1_700_000_100_000i64];
    let headers = vec(("[a-zäß.]{0,12}", field()), 0..4);
    (timestamp, field(), field(), headers).prop_map(|(timestamp_ms, key, value, headers)| {
        AnyRecord { timestamp_ms, key, value, headers }
    })
}

fn any_codec() -> impl Strategy<Value = Compression> {
    proptest::sample::select(CODECS.to_vec())
}

fn build(codec: Compression, records: &[AnyRecord]) -> RecordBatch {
    let mut builder = BatchBuilder::new(codec);
    for record in records {
        let headers: Vec<(&str, Option<&[u8]>)> =
            record.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        let record = NewRecord {
            timestamp_ms: record.timestamp_ms,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        };
        builder.push(&record).expect("a small batch");
    }
    builder.build().expect("a batch with records")
}

proptest! {
    #[test]
    fn what_is_built_parses_and_reads_back(
        codec in any_codec(),
        base in 0..i64::MAX / 2,
        records in vec(any_record(), 1..40),
    ) {
        let built = build(codec, &records).placed(Offset(base), LeaderEpoch(3));
        let batch = split_batches(built.as_bytes().clone(), MIB).expect("a valid batch").remove(0);
        prop_assert_eq!(&batch, &built);
        let read = records_of(&batch);
        prop_assert_eq!(read.len(), records.len());
        for (offset, (read, written)) in (base..).zip(read.iter().zip(&records)) {
            prop_assert_eq!(read.offset, Offset(offset));
            prop_assert_eq!(read.timestamp_ms, written.timestamp_ms);
            prop_assert_eq!(read.key.as_deref(), written.key.as_deref());
            prop_assert_eq!(read.value.as_deref(), written.value.as_deref());
            prop_assert_eq!(read.headers.len(), written.headers.len());
            for (read, (key, value)) in read.headers.iter().zip(&written.headers) {
                prop_assert_eq!(read.key.as_ref(), key.as_bytes());
                prop_assert_eq!(read.value.as_deref(), value.as_deref());
            }
        }
        let largest = records.iter().map(|record| record.timestamp_ms).max();
        prop_assert_eq!(batch.max_timestamp(), largest.unwrap_or(-1).max(-1));
    }

    #[test]
    fn any_changed_byte_that_the_checksum_covers_is_noticed(
        codec in any_codec(),
        records in vec(any_record(), 1..5),
        at in any::<proptest::sample::Index>(),
        flip in 1u8..,
    ) {
        let mut bytes = build(codec, &records).as_bytes().to_vec();
        let at = 17 + at.index(bytes.len() - 17);
        bytes[at] ^= flip;
        let result = RecordBatch::parse(bytes.into());
        prop_assert!(matches!(result, Err(BatchError::Checksum { .. })), "{}: {:?}", at, result);
    }

    #[test]
    fn mutated_batches_with_a_true_checksum_never_panic(
        codec in any_codec(),
        records in vec(any_record(), 1..5),
        flips in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = build(codec, &records).as_bytes().to_vec();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        if let Ok(batch) = RecordBatch::parse(bytes.into()) {
            let valid = batch.validate_records(MIB).is_ok();
            let middle = Offset(batch.base_offset().0.saturating_add(1));
            let sliced = batch.slice(MIB, middle, batch.next_offset());
            prop_assert_eq!(valid, sliced.is_ok());
        }
    }

    #[test]
    fn garbage_never_panics(bytes in vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        let _ = split_batches(bytes.clone(), MIB);
        for codec in CODECS {
            let _ = codec.decompress(bytes.clone(), MIB);
        }
    }
}
