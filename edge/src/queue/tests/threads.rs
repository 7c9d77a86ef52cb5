//! With the writer thread, on a real disk.

use std::path::Path;
use std::time::Duration;

use robustmq_common::ids::{EdgeSeq, LaneId};

use super::super::{AppendError, OpenError, Queue, QueueSettings};
use super::{check_gapless, record};

const LANE: LaneId = LaneId(0);

fn open(dir: &Path) -> Queue {
    let settings = QueueSettings {
        cursor_delay: Duration::from_millis(1),
        segment_bytes: 64 * 1024,
        ..QueueSettings::default()
    };
    Queue::open(dir, settings).unwrap().0
}

#[tokio::test]
async fn appends_share_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path());
    let pending: Vec<_> =
        (0..2000).map(|n| queue.append(&record(0, format!("{n}"))).unwrap()).collect();
    for (index, append) in pending.into_iter().enumerate() {
        assert_eq!(append.await, Ok(EdgeSeq(index as u64 + 1)));
    }
    let status = queue.status().await.unwrap();
    assert_eq!((status[0].appended_records, status[0].depth_records), (2000, 2000));
    assert!(status[0].syncs < 1000, "{} syncs", status[0].syncs);
    assert!(status[0].oldest.is_some());
}

#[tokio::test]
async fn what_is_appended_before_the_last_handle_goes_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path());
    let pending = queue.append(&record(0, "a")).unwrap();
    drop(queue);
    assert_eq!(pending.await, Ok(EdgeSeq(1)));
    let queue = open(dir.path());
    assert_eq!(queue.read(LANE, EdgeSeq(1), 1000, 10).await.unwrap().entries.len(), 1);
    queue.close().await;
    assert!(matches!(queue.append(&record(0, "b")), Err(AppendError::Closed)));
}

#[tokio::test]
async fn a_directory_in_use_is_refused_across_handles() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path());
    let again = Queue::open(dir.path(), QueueSettings::default());
    assert!(matches!(again, Err(OpenError::Locked { .. })));
    queue.close().await;
    drop(queue);
    open(dir.path());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appending_draining_and_trimming_go_on_side_by_side() {
    const RECORDS: u64 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path());
    let producer = tokio::spawn({
        let queue = queue.clone();
        async move {
            let mut last = None;
            for n in 0..RECORDS {
                queue.room().await;
                last = Some(queue.append(&record(0, format!("{n:>100}"))).unwrap());
            }
            last.unwrap().await.unwrap()
        }
    });
    let mut synced = queue.synced(LANE).unwrap();
    let mut next = EdgeSeq(1);
    while next.0 <= RECORDS {
        let batch = queue.read(LANE, next, 16 * 1024, 500).await.unwrap();
        if batch.is_empty() {
            synced.changed().await.unwrap();
            continue;
        }
        check_gapless(&batch);
        assert_eq!(batch.skips, []);
        for entry in &batch.entries {
            let body = String::from_utf8_lossy(&entry.body);
            assert_eq!(body.trim().parse::<u64>().unwrap() + 1, entry.seq.0);
        }
        next = batch.next;
        queue.acknowledge(LANE, EdgeSeq(next.0 - 1)).unwrap();
    }
    assert_eq!(producer.await.unwrap(), EdgeSeq(RECORDS));
    queue.close().await;
    let status = queue.status().await.unwrap();
    assert!(status[0].segments <= 2, "{} segments left", status[0].segments);
    assert_eq!(queue.position(LANE).unwrap().acknowledged_through, EdgeSeq(RECORDS));
}

#[tokio::test]
async fn memory_for_appends_is_bounded_and_room_is_announced() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path());
    let big = record(0, vec![0u8; 1024 * 1024]);
    let mut waiting = Vec::new();
    let busy = loop {
        match queue.append(&big) {
            Ok(pending) => waiting.push(pending),
            Err(error) => break error,
        }
        assert!(waiting.len() < 900, "the limit of the disk comes later than that of memory");
    };
    assert!(matches!(busy, AppendError::Busy { .. } | AppendError::Full { .. }), "{busy}");
    queue.room().await;
    if let AppendError::Busy { .. } = busy {
        queue.append(&big).unwrap().await.unwrap();
    }
    for pending in waiting {
        pending.await.unwrap();
    }
}
