use std::io::Read as _;
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::RowAccessor as _;

use super::account::{Account, Catalogue, Place, Record};
use super::{Coding, Dataset, Kind, Shape, hash, tar, tfrecord};
use crate::s3::FakeS3;

const SHAPE: Shape = Shape { seed: 5, files: 3, samples: 7, sample_bytes: 1000 };

fn values(kind: Kind, file: &[u8]) -> Vec<Vec<u8>> {
    match kind {
        Kind::WebDataset => tar::members(file)
            .filter(|(name, _)| name.ends_with(".jpg"))
            .map(|(_, data)| data.to_vec())
            .collect(),
        Kind::JsonLines(coding) => {
            let mut text = String::new();
            match coding {
                Coding::Plain => text = String::from_utf8(file.to_vec()).unwrap(),
                Coding::Gzip => {
                    MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
                }
                Coding::Zstd => {
                    let bytes = zstd::decode_all(file).unwrap();
                    text = String::from_utf8(bytes).unwrap();
                }
            }
            assert!(text.ends_with('\n'));
            text.lines().map(|line| line.as_bytes().to_vec()).collect()
        }
        Kind::Parquet => {
            let reader = SerializedFileReader::new(Bytes::copy_from_slice(file)).unwrap();
            assert_eq!(reader.metadata().num_row_groups(), 2);
            let rows = reader.get_row_iter(None).unwrap().map(|row| {
                let row = row.unwrap();
                let (file, number) = (row.get_long(0).unwrap(), row.get_long(1).unwrap());
                let text = row.get_string(2).unwrap();
                format!(r#"{{"file":{file},"number":{number},"text":"{text}"}}"#).into_bytes()
            });
            rows.collect()
        }
        Kind::TfRecord => {
            let (mut rest, mut found) = (file, Vec::new());
            while let Some((length, after)) = rest.split_first_chunk::<8>() {
                let (crc, after) = after.split_first_chunk::<4>().unwrap();
                assert_eq!(u32::from_le_bytes(*crc), tfrecord::masked_crc(length));
                let bytes = usize::try_from(u64::from_le_bytes(*length)).unwrap();
                let (data, after) = after.split_at(bytes);
                let (crc, after) = after.split_first_chunk::<4>().unwrap();
                assert_eq!(u32::from_le_bytes(*crc), tfrecord::masked_crc(data));
                found.push(data.to_vec());
                rest = after;
            }
            found
        }
        Kind::Objects => vec![file.to_vec()],
    }
}

const KINDS: [Kind; 7] = [
    Kind::WebDataset,
    Kind::JsonLines(Coding::Plain),
    Kind::JsonLines(Coding::Gzip),
    Kind::JsonLines(Coding::Zstd),
    Kind::Parquet,
    Kind::TfRecord,
    Kind::Objects,
];

#[test]
fn files_hold_the_samples_that_are_listed_and_are_the_same_again() {
    for kind in KINDS {
        let dataset = Dataset::make(kind, &SHAPE);
        let found: Vec<u64> = dataset
            .files
            .iter()
            .flat_map(|file| values(kind, &file.bytes))
            .map(|value| hash(&value))
            .collect();
        let listed: Vec<u64> = dataset.samples.iter().map(|sample| sample.hash).collect();
        assert_eq!(found, listed, "{kind:?}");
        assert_eq!(listed.len(), if kind == Kind::Objects { 3 } else { 21 }, "{kind:?}");
        // The same again, and more files leave these as they are; another seed gives others.
        let more = Dataset::make(kind, &Shape { files: 4, ..SHAPE });
        assert_eq!(more.samples[..listed.len()], dataset.samples, "{kind:?}");
        assert_eq!(more.files[2].bytes, dataset.files[2].bytes, "{kind:?}");
        let other = Dataset::make(kind, &Shape { seed: 6, ..SHAPE });
        assert_ne!(other.samples[0].hash, dataset.samples[0].hash, "{kind:?}");
    }
}

#[test]
fn a_tar_is_one_that_tar_reads() {
    let dataset = Dataset::make(Kind::WebDataset, &SHAPE);
    let directory = tempfile::tempdir().unwrap();
    dataset.write(directory.path()).unwrap();
    let shard = directory.path().join(&dataset.files[0].name);
    let listed = std::process::Command::new("tar").arg("tf").arg(&shard).output().unwrap();
    assert!(listed.status.success() && listed.stderr.is_empty(), "{listed:?}");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let names: Vec<&str> = tar::members(&dataset.files[0].bytes).map(|(name, _)| name).collect();
    assert_eq!(listed.lines().collect::<Vec<_>>(), names);
    assert_eq!(names[..3], ["000000-000000.cls", "000000-000000.jpg", "000000-000001.cls"]);
}

#[test]
fn a_masked_checksum_is_tensorflows() {
    // The checksum of the bytes 0 to 31 is in RFC 3720, B.4.
    let bytes: Vec<u8> = (0..32).collect();
    assert_eq!(crc32c::crc32c(&bytes), 0x46dd_794e);
    // Turned right by 15 bits, and 0xa282ead8 added.
    assert_eq!(tfrecord::masked_crc(&bytes), 0x951f_7892);
}

#[tokio::test]
async fn files_are_put_below_a_prefix() {
    let s3 = FakeS3::start(1).await.unwrap();
    let dataset = Dataset::make(Kind::WebDataset, &SHAPE);
    dataset.put(&s3, "bucket", "train/");
    let keys: Vec<_> = (0..3).map(|file| format!("train/shard-{file:06}.tar")).collect();
    assert_eq!(s3.keys("bucket", "train/"), keys);
    assert_eq!(s3.object("bucket", &keys[1]).unwrap(), dataset.files[1].bytes);
    assert!(dataset.bytes() > 21_000);
}

#[test]
fn an_account_finds_what_is_missing_doubled_or_other() {
    let dataset = Arc::new(Dataset::make(Kind::WebDataset, &SHAPE));
    let catalogue = Catalogue::of(Arc::clone(&dataset)).unwrap();
    let members: Vec<_> = tar::members(&dataset.files[1].bytes).collect();
    let [(_, class), (_, image)] = members[..2] else { panic!("two members") };
    let check = |key: &str, value: &[u8], headers: &[(&str, &[u8])], wrong: &str| {
        let record = Record { key: Some(key.as_bytes()), value, headers };
        match catalogue.place(&record) {
            Ok(place) => assert_eq!((place, wrong), (Place { epoch: 1, sample: 7 }, "")),
            Err(error) => {
                let error = format!("{error:#}");
                assert!(!wrong.is_empty() && error.contains(wrong), "{error}");
            }
        }
    };
    let object: (&str, &[u8]) = ("robustmq.object", b"train/shard-000001.tar");
    let class: (&str, &[u8]) = ("cls", class);
    let epoch: (&str, &[u8]) = ("robustmq.epoch", b"1");
    let key = "000001-000000";
    check(key, image, &[epoch, object, class], "");
    check("000001-000001", image, &[epoch, object, class], "with the key");
    check(key, &image[1..], &[epoch, object, class], "no sample's");
    check(key, image, &[epoch, object], "no cls");
    check(key, image, &[epoch, object, ("cls", b"9")], "other bytes");
    check(key, image, &[epoch, ("robustmq.object", b"shard-000002.tar"), class], "came as of");
    check(key, image, &[("robustmq.epoch", b"one"), object, class], "epoch");

    let mut account = Account::default();
    let enter =
        |account: &mut Account, epoch, sample| account.enter(&catalogue, Place { epoch, sample });
    for sample in 0..20 {
        enter(&mut account, 1, sample).unwrap();
    }
    assert!(enter(&mut account, 1, 3).unwrap_err().to_string().contains("twice"));
    let missing = account.check_complete(1).unwrap_err().to_string();
    assert!(missing.contains("1 samples are missing in epoch 1, as [20]"), "{missing}");
    let mut other = Account::default();
    enter(&mut other, 1, 20).unwrap();
    account.add(&catalogue, &other).unwrap();
    assert!(account.add(&catalogue, &other).is_err());
    account.check_complete(1).unwrap();
    assert!(account.check_complete(2).unwrap_err().to_string().contains("of 2"));
    enter(&mut account, 3, 0).unwrap();
    assert!(account.check_complete(2).unwrap_err().to_string().contains("[1, 3]"));
}
