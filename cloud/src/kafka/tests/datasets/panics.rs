//! A source whose reading panics.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use object_store::local::LocalFileSystem;
use robustmq_dataset::fetch::{FetchError, Object, ObjectSource, Source};

use super::unread::status_when;
use super::*;
use crate::dataset::Status;
use crate::topics::TopicConfig;

struct Panics {
    source: ObjectSource,
    /// So many times from now on.
    times: AtomicU32,
}

#[async_trait::async_trait]
impl Source for Panics {
    async fn get(&self, object: &Object, range: Range<u64>) -> Result<Bytes, FetchError> {
        let (relaxed, one_less) = (Ordering::Relaxed, |times: u32| times.checked_sub(1));
        let panics = self.times.fetch_update(relaxed, relaxed, one_less).is_ok();
        assert!(!panics, "request must be valid");
        self.source.get(object, range).await
    }
}

/// The task that counted was gone, and readers waited for ever for what it would have counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_while_objects_are_read_is_told_and_what_was_being_done_is_tried_again() {
    let directory = tempfile::tempdir().expect("a directory");
    shards(directory.path(), 1);
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let source = format!("file://{}", directory.path().display());
    let entries = [("robustmq.source".to_owned(), source.clone())];
    let config = TopicConfig::parse(&entries.into()).expect("legal").source.expect("a source");
    let files = LocalFileSystem::new_with_prefix(directory.path()).expect("a directory");
    let panics = Panics { source: ObjectSource::of_files(files), times: AtomicU32::new(1) };
    let _held = broker.kafka.datasets.read_from(&config, Arc::new(panics));
    create(&mut client, "images", 1, &[("robustmq.source", &source)]).await;
    let told = status_when(&broker, "images", |status| !status.trouble.is_empty()).await;
    let said = "partition 0 ends at offset 0: reading the source ended in a panic, see the log: \
                request must be valid";
    assert_eq!(told.trouble, [said]);
    let is_over = |status: &Status| status.is_index_complete && status.trouble.is_empty();
    status_when(&broker, "images", is_over).await;
    assert_eq!(read_all(&mut client, "images", 0, 0).await.len(), 10);
}
