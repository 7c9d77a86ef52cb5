use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::ObjectStore;

use super::{SlateSettings, SlateStore};
use crate::objects::faulty::FaultyStore;
use crate::store::{ScanLimit, Store, WriteBatch, contract};

mod deleted;
mod faults;
mod fencing;

/// Without a pause between groups, which only costs time here.
fn settings() -> SlateSettings {
    SlateSettings { flush_interval: Duration::ZERO, ..SlateSettings::default() }
}

async fn open_with(objects: &Arc<FaultyStore>, settings: &SlateSettings) -> SlateStore {
    let objects = Arc::clone(objects) as Arc<dyn ObjectStore>;
    SlateStore::open(objects, "store", "memory", settings).await.expect("opens")
}

async fn open(objects: &Arc<FaultyStore>) -> SlateStore {
    open_with(objects, &settings()).await
}

fn batch(puts: &[(&str, &str)]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for (key, value) in puts {
        batch.put(Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
    }
    batch
}

async fn keys(store: &SlateStore) -> Vec<String> {
    let all = Bytes::new()..Bytes::from_static(&[255]);
    let page = store.scan(all, ScanLimit::items(usize::MAX)).await.expect("readable");
    let text = |key: &Bytes| String::from_utf8(key.to_vec()).expect("text");
    page.items.iter().map(|(key, _)| text(key)).collect()
}

async fn eventually(condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), met).await.expect("it comes about");
}

mod in_memory {
    use super::{contract, open};
    use crate::objects::faulty::FaultyStore;
    contract::contract!(awaits async || ((), open(&FaultyStore::new(1)).await));
}

mod in_files {
    use super::{SlateStore, contract, settings};
    use crate::objects::{Location, locate};
    contract::contract!(awaits async || {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let url = format!("file://{}/objects", dir.path().display()).parse().expect("a URL");
        let located = locate(&url, "store", std::time::Duration::from_secs(30));
        let Location { objects, path } = located.expect("the directory is made");
        let store = SlateStore::open(objects, &path, &url.to_string(), &settings()).await;
        (dir, store.expect("opens"))
    });
}
