//! Stores and archives that belong together, and those that do not.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use robustmq_common::ids::{Offset, PartitionIndex, TopicId};
use uuid::Uuid;

use super::{Owner, OwnerError, check_without_archive};
use crate::metrics::TierMetrics;
use crate::objects::Location;
use crate::objects::faulty::FaultyStore;
use crate::store::keys::archive::Archived;
use crate::store::keys::partition::PartitionKeys;
use crate::store::{MemoryStore, Store, StoreError, WriteBatch, write};
use crate::tier::{Archive, TierSettings};

const MARKER: &str = "tier/archive.json";

fn owner(store: &Arc<MemoryStore>, objects: &Arc<FaultyStore>, url: &str) -> Owner {
    let location = Location { objects: objects.clone(), path: "tier".to_owned() };
    let archive = Archive::new(location, TierSettings::default(), TierMetrics::default());
    Owner::new(Arc::clone(store) as Arc<dyn Store>, Arc::new(archive), url.to_owned())
}

/// Whether the store and what is at `url` belong together, at a start of its own.
async fn confirm(
    store: &Arc<MemoryStore>,
    objects: &Arc<FaultyStore>,
    url: &str,
) -> Result<(), OwnerError> {
    owner(store, objects, url).confirm().await
}

async fn marker(objects: &FaultyStore) -> Option<String> {
    let found = objects.get(&Path::from(MARKER)).await.ok()?;
    Some(String::from_utf8(found.bytes().await.expect("it is up").to_vec()).expect("text"))
}

async fn put(objects: &FaultyStore, path: &str, text: &str) {
    objects.put(&Path::from(path), text.to_owned().into()).await.expect("it is up");
}

/// Notes an archived object, and returns its path.
async fn archive_something(store: &MemoryStore) -> String {
    let keys = PartitionKeys { topic: TopicId(Uuid::from_u128(1)), partition: PartitionIndex(2) };
    let object = Uuid::from_u128(3);
    let archived = Archived {
        base_offset: Offset(0),
        last_offset: Offset(9),
        object,
        data_bytes: 10,
        footer_bytes: 10,
    };
    let mut batch = WriteBatch::new();
    batch.put(archived.key(&keys), archived.encode());
    write(store, batch).await.expect("written");
    format!("tier/{}/2/{:020}-{}", keys.topic.0, 0, object.simple())
}

fn reason(outcome: Result<(), OwnerError>) -> String {
    match outcome {
        Err(OwnerError::Foreign(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

/// A broker that was started with another URL started as usual: readers of what was archived hung, and notes of deleted objects were worked
/// off where these had never been, so that they stayed for ever.
#[tokio::test]
async fn a_store_knows_its_archive_wherever_it_is_and_no_other() {
    let (store, first) = (Arc::new(MemoryStore::new()), FaultyStore::new(1));
    confirm(&store, &first, "s3://first").await.expect("nobody's");
    let made = marker(&first).await.expect("it was put");
    confirm(&store, &first, "s3://first").await.expect("its own");
    assert_eq!(first.puts.load(Ordering::Relaxed), 1, "a later start reads it only");
    archive_something(&store).await;
    check_without_archive(&*store).await.expect_err("its records are in it");
    let said = reason(check_without_archive(&*store).await);
    assert!(said.contains("last at s3://first"), "{said}");

    let elsewhere = FaultyStore::new(2);
    let said = reason(confirm(&store, &elsewhere, "s3://elsewhere").await);
    for part in ["s3://elsewhere", MARKER, "last at s3://first", &made] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(marker(&elsewhere).await, None, "nothing is written there");
    // A copy of the archive is the archive.
    put(&elsewhere, MARKER, &made).await;
    confirm(&store, &elsewhere, "s3://elsewhere").await.expect("a copy");

    // Another store gets it neither.
    let other = Arc::new(MemoryStore::new());
    let said = reason(confirm(&other, &first, "s3://first").await);
    assert!(said.contains("another store"), "{said}");
    assert_eq!(marker(&first).await, Some(made));
    check_without_archive(&*other).await.expect("it has nothing in one");
    put(&first, MARKER, "what?").await;
    let said = reason(confirm(&store, &first, "s3://first").await);
    assert!(said.contains("does not say"), "{said}");
}

#[tokio::test]
async fn who_has_nothing_in_an_archive_may_take_another_one() {
    let (store, first) = (Arc::new(MemoryStore::new()), FaultyStore::new(1));
    confirm(&store, &first, "s3://first").await.expect("nobody's");
    let next = FaultyStore::new(2);
    confirm(&store, &next, "s3://next").await.expect("nobody's");
    assert_eq!(marker(&first).await, marker(&next).await);
    check_without_archive(&*store).await.expect("nothing is missing");
}

/// The steps: the store notes the identity, the marker is put, the store notes that it was made.
#[tokio::test(start_paused = true)]
async fn a_crash_between_two_steps_is_made_good_by_the_next_start() {
    let (store, objects) = (Arc::new(MemoryStore::new()), FaultyStore::new(1));
    store.fail_next(StoreError::NoSpace("full".to_owned()));
    confirm(&store, &objects, "s3://a").await.expect_err("not noted");
    assert_eq!(marker(&objects).await, None);
    objects.set_down(true);
    let unavailable = confirm(&store, &objects, "s3://a").await;
    assert!(matches!(unavailable, Err(OwnerError::Archive(_))), "{unavailable:?}");
    let store = Arc::new(store.crash(0));
    objects.set_down(false);
    store.fail_next(StoreError::NoSpace("full".to_owned()));
    confirm(&store, &objects, "s3://a").await.expect_err("not noted as made");
    let made = marker(&objects).await;
    assert!(made.is_some());
    let store = Arc::new(store.crash(0));
    confirm(&store, &objects, "s3://a").await.expect("it is the store's own");
    archive_something(&store).await;
    confirm(&store, &objects, "s3://a").await.expect("for ever");
    assert_eq!(marker(&objects).await, made);
}

/// Whether it answers or not, and whether answers get lost: nothing is refused that is the store's own.
#[tokio::test]
async fn an_object_store_that_fails_now_and_then_is_asked_again() {
    for seed in 0..50 {
        let (store, objects) = (Arc::new(MemoryStore::new()), FaultyStore::new(seed));
        objects.fail_of_thousand(400);
        if seed % 2 == 0 {
            objects.refuse_conditions();
        }
        let mut starts = 0;
        while let Err(error) = confirm(&store, &objects, "s3://a").await {
            assert!(matches!(error, OwnerError::Archive(_)), "{error}");
            starts += 1;
            assert!(starts < 100, "{error}");
        }
        objects.fail_of_thousand(0);
        let other = Arc::new(MemoryStore::new());
        reason(confirm(&other, &objects, "s3://a").await);
        confirm(&store, &objects, "s3://a").await.expect("its own");
    }
}

#[tokio::test]
async fn a_store_of_before_adopts_its_archive_where_its_objects_are() {
    let (store, objects) = (Arc::new(MemoryStore::new()), FaultyStore::new(1));
    let path = archive_something(&store).await;
    let said = reason(confirm(&store, &objects, "s3://wrong").await);
    assert!(said.contains(&path), "{said}");
    assert_eq!(marker(&objects).await, None);
    reason(check_without_archive(&*store).await);

    let right = FaultyStore::new(2);
    put(&right, &path, "records").await;
    confirm(&store, &right, "s3://right").await.expect("they are there");
    reason(confirm(&store, &objects, "s3://wrong").await);
}

/// A backup may be older than the marker. That its objects are there says whose archive it is.
#[tokio::test]
async fn a_store_that_went_back_knows_its_archive_by_its_objects() {
    let (later, objects) = (Arc::new(MemoryStore::new()), FaultyStore::new(1));
    confirm(&later, &objects, "s3://a").await.expect("nobody's");
    let made = marker(&objects).await;
    let backup = Arc::new(MemoryStore::new());
    let path = archive_something(&backup).await;
    reason(confirm(&backup, &objects, "s3://a").await);
    put(&objects, &path, "records").await;
    for _ in 0..2 {
        confirm(&backup, &objects, "s3://a").await.expect("its records are there");
    }
    assert_eq!(marker(&objects).await, made);
}

/// The message says what to put where.
#[tokio::test]
async fn an_archive_that_is_lost_is_given_up_by_hand() {
    for is_marked in [false, true] {
        let (store, objects) = (Arc::new(MemoryStore::new()), FaultyStore::new(1));
        if is_marked {
            confirm(&store, &objects, "s3://a").await.expect("nobody's");
        }
        archive_something(&store).await;
        let empty = FaultyStore::new(2);
        let said = reason(confirm(&store, &empty, "s3://b").await);
        let (_, json) = said.split_once("put ").expect(&said);
        let (json, path) = json.split_once(" there as ").expect(&said);
        put(&empty, path.split(':').next().expect("a path"), json).await;
        confirm(&store, &empty, "s3://b").await.expect("a person said so");
    }
}

/// It was told as "PUT http://169.254.169.254/latest/api/token 403".
#[tokio::test]
async fn who_has_given_no_credentials_is_told_so() {
    let (store, objects) = (Arc::new(MemoryStore::new()), FaultyStore::new(1));
    objects.fail_with("Error performing PUT http://169.254.169.254/latest/api/token");
    let said = confirm(&store, &objects, "s3://a").await.expect_err("it is down").to_string();
    assert!(said.contains("no credentials") && said.contains("AWS_ACCESS_KEY_ID"), "{said}");
}
