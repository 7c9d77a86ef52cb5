//! Starts with archives of all kinds.

use std::path::Path;
use std::sync::Arc;

use robustmq_common::ids::{CloudGeneration, Offset, PartitionIndex, TopicId};
use robustmq_common::net::StartError;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Broker, get, log_level, settings};
use crate::broker::kept_log::KeptLog;
use crate::broker::start;
use crate::settings::Settings;
use crate::store::keys::archive::Doomed;
use crate::store::keys::partition::PartitionKeys;
use crate::store::keys::system::StoreIdentity;
use crate::store::{MemoryStore, WriteBatch, write};

fn archived_in(dir: &Path) -> Settings {
    let url = format!("file://{}", dir.display()).parse().expect("a directory");
    let mut settings = settings();
    settings.tier.object_store = Some(url);
    settings
}

async fn run(settings: &Settings, store: &Arc<MemoryStore>) -> Result<Broker, StartError> {
    start(settings, store.clone(), log_level(), CancellationToken::new()).await
}

/// A store with an object that is to be removed.
async fn with_doomed() -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    let identity = StoreIdentity::load_or_create(&*store, CloudGeneration(1)).await;
    identity.expect("a fresh store");
    let keys = PartitionKeys { topic: TopicId(Uuid::nil()), partition: PartitionIndex(0) };
    let doomed = Doomed { keys, object: Uuid::nil(), base_offset: Offset(0) };
    let mut batch = WriteBatch::new();
    batch.put(doomed.key(), doomed.encode());
    write(&*store, batch).await.expect("written");
    store
}

#[tokio::test]
async fn a_start_with_another_archive_or_none_is_refused_by_the_key() {
    let store = with_doomed().await;
    let (first, other) = (tempfile::tempdir().expect("a place"), tempfile::tempdir().expect("one"));
    let broker = run(&archived_in(first.path()), &store).await.expect("it is adopted");
    assert!(first.path().join("tier/archive.json").exists());
    assert!(get(broker.admin, "/metrics").await.contains("robustmq_cloud_tier_unconfirmed 0"));
    for settings in [archived_in(other.path()), settings()] {
        let refused = run(&settings, &store).await.err().expect("its objects are elsewhere");
        let said = refused.to_string();
        let names_both = said.starts_with("[tier] object_store: ")
            && said.contains(&first.path().display().to_string());
        assert!(names_both, "{said}");
    }
    let fresh = Arc::new(MemoryStore::new());
    let refused = run(&archived_in(first.path()), &fresh).await.err().expect("it is another's");
    assert!(refused.to_string().contains("another store"), "{refused}");
}

/// That a bucket did not exist was found out hours later, by the first archiving.
#[tokio::test]
async fn an_archive_that_cannot_be_used_is_told_at_the_start_and_the_broker_is_ready() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let dir = tempfile::tempdir().expect("a place");
    // What is to be a directory there is none, so nothing can be put.
    std::fs::copy(file.path(), dir.path().join("tier")).expect("copied");
    let (log, _guard) = KeptLog::listen();
    let store = with_doomed().await;
    let broker = run(&archived_in(dir.path()), &store).await.expect("everything else works");
    let metrics = get(broker.admin, "/metrics").await;
    for line in ["robustmq_cloud_tier_unconfirmed 1", "robustmq_cloud_tier_failures_total 1"] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    assert!(get(broker.admin, "/ready").await.starts_with("HTTP/1.1 200"));
    assert_eq!(log.warnings("the archive of tiered topics cannot be used").len(), 1);
}
