//! GETs of a store that does things wrong.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use robustmq_common::limits;
use tokio::time::Instant;

use super::faulty::{Fault, FaultyStore};
use super::{FetchError, Object, ObjectSource, Source as _};

const SIZE: u64 = 1_000_000;

fn content() -> Bytes {
    (0..SIZE).map(|at| u8::try_from(at * 31 % 251).expect("small")).collect::<Vec<_>>().into()
}

struct Case {
    store: Arc<FaultyStore>,
    source: ObjectSource,
    object: Object,
}

async fn case() -> Case {
    let store = Arc::new(FaultyStore::default());
    let path = Path::from("shard-0.tar");
    store.put(&path, content().into()).await.expect("in memory");
    let meta = store.head(&path).await.expect("it was put");
    store.asked();
    let object = Object {
        path,
        etag: meta.e_tag,
        size: meta.size,
        modified_ms: meta.last_modified.timestamp_millis(),
    };
    Case { source: ObjectSource::new(store.clone()), store, object }
}

impl Case {
    async fn get(&self, range: std::ops::Range<u64>) -> Result<Bytes, FetchError> {
        self.source.get(&self.object, range).await
    }

    fn counts(&self) -> [u64; 4] {
        let stats = self.source.stats();
        [&stats.bytes, &stats.gets, &stats.retries, &stats.slow_downs]
            .map(|count| count.load(Ordering::Relaxed))
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_is_resumed_where_it_broke() {
    let case = case().await;
    case.store.fail([
        Some(Fault::EndsAfter(5_000)),
        Some(Fault::BreaksAfter(7_000)),
        Some(Fault::HangsAfter(100_000)),
    ]);
    let got = case.get(100..900_000).await.expect("the fourth GET is whole");
    assert!(got == content().slice(100..900_000));
    let asked = case.store.asked();
    assert_eq!([100, 5_100, 12_100, 112_100], *asked.iter().map(|r| r.start).collect::<Vec<_>>());
    assert!(asked.iter().all(|range| range.end == 900_000));
    assert_eq!([899_900, 4, 3, 1], case.counts(), "no byte twice, and one silence");
}

#[tokio::test(start_paused = true)]
async fn attempts_that_bring_something_are_not_counted_and_those_that_bring_nothing_are() {
    let case = case().await;
    let progress = limits::dataset::GET_PROGRESS_BYTES;
    case.store.fail((0..3).map(|_| Some(Fault::BreaksAfter(progress))));
    let attempts = limits::dataset::GET_ATTEMPTS as usize;
    case.store.fail((0..attempts - 2).map(|_| Some(Fault::BreaksAfter(0))));
    assert_eq!(content(), case.get(0..SIZE).await.expect("there was progress"));

    case.store.asked();
    case.store.fail((0..attempts).map(|_| Some(Fault::BreaksAfter(10))));
    let error = case.get(0..SIZE).await.expect_err("no attempt is left");
    assert!(matches!(&error, FetchError::Unavailable { reason, .. } if reason.contains("reset")));
    assert_eq!(attempts, case.store.asked().len());
}

#[tokio::test(start_paused = true)]
async fn no_answer_is_given_up_in_time_and_counts_as_too_many() {
    let case = case().await;
    case.store.fail((0..limits::dataset::GET_ATTEMPTS).map(|_| Some(Fault::Hangs)));
    let began = Instant::now();
    let error = case.get(0..10).await.expect_err("nothing came");
    assert!(matches!(&error, FetchError::Unavailable { reason, .. } if reason.contains("20 s")));
    let most = (limits::dataset::GET_SILENCE + limits::dataset::GET_PAUSE_MOST)
        * limits::dataset::GET_ATTEMPTS;
    assert!(began.elapsed() < most);
    assert_eq!(limits::dataset::GETS_LEAST, case.source.parallelism());
}

/// One answer in a hundred of S3 takes ten times as long as the others, and whoever read in order waited for it.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_late_is_not_waited_for_and_only_now_and_then() {
    let case = case().await;
    let second_gets = || case.source.stats().second_gets.load(Ordering::Relaxed);
    for _ in 0..limits::dataset::GETS_FOR_A_SECOND {
        case.get(0..10).await.expect("it is there");
    }
    let began = Instant::now();
    case.store.fail([Some(Fault::Hangs)]);
    assert_eq!(content().slice(..10), case.get(0..10).await.expect("the second is answered"));
    assert_eq!((second_gets(), began.elapsed() < Duration::from_secs(1)), (1, true));
    // Where the second fails, it is the first that counts.
    for _ in 0..limits::dataset::GETS_FOR_A_SECOND {
        case.get(0..10).await.expect("it is there");
    }
    case.store.fail([Some(Fault::Hangs), Some(Fault::Forbidden), Some(Fault::Hangs)]);
    case.get(0..10).await.expect("the one after all is answered");
    assert_eq!(second_gets(), 2, "where all are slow, none helps");
    assert!(began.elapsed() > limits::dataset::GET_SILENCE);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_asked_for_too_much_is_asked_for_less() {
    let case = case().await;
    let text = "Server returned non-2xx status code: 503 Service Unavailable: SlowDown";
    case.store.fail([Some(Fault::Refused(text)), Some(Fault::Refused("dns error"))]);
    case.get(0..10).await.expect("the third is answered");
    assert_eq!([10, 3, 2, 1], case.counts());
    assert_eq!(limits::dataset::GETS_FIRST / 2, case.source.parallelism());
}

async fn check_final(fault: Fault, is_expected: impl Fn(&FetchError) -> bool) {
    let case = case().await;
    case.store.fail([Some(fault.clone())]);
    let error = case.get(0..10).await.expect_err("it is not what was listed");
    assert!(is_expected(&error), "{fault:?}: {error}");
    assert_eq!(1, case.store.asked().len(), "{fault:?} is not tried again");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_what_was_listed_is_refused_though_the_server_ignores_if_match() {
    let changed = |error: &FetchError| matches!(error, FetchError::Changed { .. });
    check_final(Fault::Etag(Some("\"other\"")), changed).await;
    check_final(Fault::Later(5), changed).await;
    check_final(Fault::Forbidden, |error| matches!(error, FetchError::Forbidden { .. })).await;
    let short = "Server returned non-2xx status code: 416 Range Not Satisfiable";
    check_final(Fault::Refused(short), changed).await;

    let case = case().await;
    case.store.fail([Some(Fault::Etag(None))]);
    case.get(0..10).await.expect("same size, same time, and the server tells no ETag");
}

#[tokio::test(start_paused = true)]
async fn a_replaced_or_deleted_object_is_told_from_one_that_cannot_be_read() {
    let case = case().await;
    case.store.put(&case.object.path, content().slice(1..).into()).await.expect("in memory");
    let error = case.get(0..10).await.expect_err("its ETag changed");
    assert!(matches!(error, FetchError::Changed { .. }), "{error}");
    let no_etag = Object { etag: None, ..case.object.clone() };
    let error = case.source.get(&no_etag, 0..10).await.expect_err("its size changed");
    assert!(error.to_string().contains("size was 1000000 and is 999999"), "{error}");
    case.store.delete(&case.object.path).await.expect("in memory");
    let error = case.get(0..10).await.expect_err("it is deleted");
    assert_eq!(FetchError::Gone("shard-0.tar".to_owned()), error);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_were_not_asked_for_are_never_given() {
    let case = case().await;
    case.store.fail([Some(Fault::Shifted(3)), Some(Fault::TooLong)]);
    assert_eq!(content().slice(50..5_000), case.get(50..5_000).await.expect("the third is right"));
    assert_eq!(3, case.store.asked().len());
    assert!(case.get(7..7).await.expect("nothing is there always").is_empty());
    let error = case.get(0..SIZE + 1).await.expect_err("beyond its end");
    assert!(matches!(error, FetchError::Damaged { .. }));
    assert_eq!(0, case.store.asked().len(), "none of these needs a GET");
}

/// What comes is looked at before it is kept: an answer takes no more memory than what was asked for and a piece.
#[tokio::test(start_paused = true)]
async fn a_body_without_an_end_is_cut_off() {
    let case = case().await;
    let attempts = limits::dataset::GET_ATTEMPTS;
    case.store.fail((0..attempts).map(|_| Some(Fault::Endless(64 << 10))));
    let error = case.get(50..5_000).await.expect_err("none of them is right").to_string();
    let said = "shard-0.tar cannot be read now: its body is longer than what was asked for";
    assert_eq!(said, error);
    assert_eq!(u64::from(attempts) * (4_950 + (64 << 10)), case.counts()[0], "and no more");
}

/// The client of S3 panics where it cannot make a header of an ETag, and with it went whoever waited.
#[tokio::test(start_paused = true)]
async fn an_etag_that_no_request_can_carry_is_refused_and_a_panic_is_a_failure() {
    let case = case().await;
    for etag in ["\"a\r\nb\"", "\n", "a\0"] {
        let object = Object { etag: Some(etag.to_owned()), ..case.object.clone() };
        let error = case.source.get(&object, 0..10).await.expect_err("no header has it");
        let error = error.to_string();
        assert!(error.starts_with("shard-0.tar may not be read: "), "{error}");
        assert!(error.contains(&format!("an ETag with a control character, {etag:?}")), "{error}");
    }
    assert_eq!(0, case.store.asked().len());
    case.store.fail([Some(Fault::Panics)]);
    assert_eq!(content().slice(0..10), case.get(0..10).await.expect("the second is answered"));
    case.store.fail((0..limits::dataset::GET_ATTEMPTS).map(|_| Some(Fault::Panics)));
    let error = case.get(0..10).await.expect_err("no attempt is left").to_string();
    assert!(error.contains("shard-0.tar cannot be read now: its GET ended in a panic"), "{error}");
}

/// A file that was cut off while it was read gave empty pieces without end; one that was written to gave bytes of both versions.
#[tokio::test]
async fn what_happens_to_a_file_while_it_is_read_is_noticed() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("a.bin");
    let bytes = 40 << 20;
    for change in ["cut", "written", "a folder", "gone"] {
        std::fs::write(&file, vec![7; bytes]).expect("written");
        let files = object_store::local::LocalFileSystem::new_with_prefix(dir.path());
        let files = files.expect("a folder");
        let meta = files.head(&Path::from("a.bin")).await.expect("it is there");
        let modified_ms = meta.last_modified.timestamp_millis();
        let object =
            Object { path: Path::from("a.bin"), etag: meta.e_tag, size: meta.size, modified_ms };
        let source = ObjectSource::of_files(files);
        assert_eq!(source.get(&object, 0..10).await, Ok(Bytes::from(vec![7; 10])), "{change}");
        let reading = source.get(&object, 0..bytes as u64);
        let changing = async {
            while source.stats().bytes.load(std::sync::atomic::Ordering::Relaxed) < 100_000 {
                tokio::task::yield_now().await;
            }
            match change {
                "cut" => {
                    let file = std::fs::File::options().write(true).open(&file).expect("a file");
                    file.set_len(50_000).expect("a disk");
                }
                "written" => {
                    use std::os::unix::fs::FileExt as _;
                    let file = std::fs::File::options().write(true).open(&file).expect("a file");
                    file.write_at(&[8; 100], bytes as u64 - 1000).expect("a disk");
                }
                _ => {
                    std::fs::remove_file(&file).expect("a disk");
                    if change == "a folder" {
                        std::fs::create_dir(&file).expect("a disk");
                    }
                }
            }
        };
        let both = async { tokio::join!(reading, changing).0 };
        let read =
            tokio::time::timeout(std::time::Duration::from_secs(60), both).await.expect("it ends");
        match (change, read) {
            ("gone", Err(FetchError::Gone(_))) | (_, Err(FetchError::Changed { .. })) => {}
            (_, read) => panic!("{change}: {:?}", read.map(|bytes| bytes.len())),
        }
        let _ = std::fs::remove_dir(&file);
    }
}

#[tokio::test]
async fn a_file_is_compared_by_size_and_time() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = object_store::local::LocalFileSystem::new_with_prefix(dir.path()).expect("is one");
    let path = Path::from("a.bin");
    store.put(&path, content().into()).await.expect("written");
    let meta = store.head(&path).await.expect("it is there");
    let modified_ms = meta.last_modified.timestamp_millis();
    let object = Object { path: path.clone(), etag: None, size: meta.size, modified_ms };
    let store = Arc::new(store);
    let source = ObjectSource::new(store.clone());
    let got = source.get(&object, 10..SIZE).await.expect("it is the same");
    assert_eq!(content().slice(10..), got);
    // Earlier releases listed files with their inodes.
    let files = object_store::local::LocalFileSystem::new_with_prefix(dir.path()).expect("is one");
    let moved = Object { etag: Some("1-2-3".to_owned()), ..object.clone() };
    assert_eq!(ObjectSource::of_files(files).get(&moved, 10..SIZE).await, Ok(got));
    let older = Object { modified_ms: modified_ms - 2_345, ..object };
    let error = source.get(&older, 0..1).await.expect_err("changed since");
    assert!(matches!(error, FetchError::Changed { .. }), "{error}");
}
