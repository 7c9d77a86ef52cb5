//! What is taken of a listing, and what is refused.

use std::sync::Arc;

use super::{
    Entry, Location, ObjectStoreUrl, check_links, check_once, list, refused, without_folders,
};
use crate::dataset::sidecars::Sidecar;
use crate::objects::bucket::{bucket, page};
use crate::topics::TopicConfig;

fn entry(name: &str, size: u64) -> Entry {
    Entry { name: name.to_owned(), etag: None, size, modified_ms: 0, index: None }
}

/// A folder that was made in a browser became a record without a value.
#[test]
fn an_empty_object_that_is_a_folder_of_others_is_left_out() {
    let check = |entries: &[(&str, u64)], expected: &[&str]| {
        let entries = entries.iter().map(|(name, size)| entry(name, *size)).collect();
        let left = without_folders(entries);
        assert_eq!(left.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), expected);
    };
    check(&[("a", 0), ("a/b", 0), ("a/b/c", 1), ("a-", 0)], &["a/b/c", "a-"]);
    check(&[("a", 1), ("a/b", 1), ("b", 0)], &["a", "a/b", "b"]);
    check(&[("a/b/c", 0), ("a/b", 0)], &["a/b/c"]);
}

#[test]
fn what_is_listed_twice_is_refused_by_name() {
    let check =
        |names: &[&str]| check_once(&names.iter().map(|name| entry(name, 1)).collect::<Vec<_>>());
    assert_eq!(check(&["a", "b", "c"]), Ok(()));
    let refused = check(&["a", "b", "b", "c"]).expect_err("b is there twice").0;
    assert!(refused.starts_with("b is listed twice"), "{refused}");
}

/// Listings in S3 fail with errors of no kind, and people were told only that it cannot be listed.
#[test]
fn whoever_creates_a_topic_is_told_what_to_look_at() {
    let url: ObjectStoreUrl = "s3://data/train".parse().expect("a URL");
    let check = |text: &str, said: &str| {
        let error = object_store::Error::Generic { store: "S3", source: text.into() };
        let refused = refused(&url, &error).0;
        assert!(refused.starts_with(&format!("s3://data/train: {said}")), "{refused}");
        assert!(refused.contains(text), "{refused}");
    };
    let answer = "Server returned non-2xx status code: ";
    check(&format!("{answer}404 Not Found: NoSuchBucket"), "there is no such bucket");
    check(&format!("{answer}403 Forbidden: InvalidAccessKeyId"), "it may not be listed: check");
    check(&format!("{answer}500 Internal Server Error"), "it cannot be listed (");
}

/// A link below a directory that was allowed served whatever it led to.
#[test]
fn links_out_of_what_is_allowed_are_refused_by_name() {
    let outside = tempfile::tempdir().expect("a directory");
    let inside = tempfile::tempdir().expect("a directory");
    std::fs::write(outside.path().join("secret"), "").expect("a disk");
    std::fs::write(inside.path().join("data"), "").expect("a disk");
    let link = |to: &std::path::Path, name: &str| {
        std::os::unix::fs::symlink(to, inside.path().join(name)).expect("a disk");
    };
    link(&inside.path().join("data"), "within");
    link(&outside.path().join("secret"), "out");
    let check = |names: &[&str]| {
        let entries = names.iter().map(|name| entry(name, 0)).collect();
        check_links(inside.path(), &[inside.path().to_owned()], entries)
    };
    assert_eq!(check(&["data", "within"]).map(|entries| entries.len()), Ok(2));
    let refused = check(&["data", "out"]).expect_err("it leads out");
    assert!(refused.0.starts_with("out is a link"), "{refused}");
    // Nor is what lies beside an object.
    let beside = Sidecar { name: "out".into(), etag: None, size: 0, modified_ms: 0 };
    let data = Entry { index: Some(beside), ..entry("data", 0) };
    assert!(check_links(inside.path(), &[inside.path().to_owned()], vec![data]).is_err());
}

/// What is listed of a bucket that answers always the same.
async fn listed(answer: String) -> Result<usize, String> {
    let objects = Arc::new(bucket(async move || answer).await);
    let location = Location { objects, path: "data".to_owned() };
    let entries = [("robustmq.source".to_owned(), "s3://bucket/data".to_owned())];
    let config = TopicConfig::parse(&entries.into()).expect("legal").source.expect("a source");
    let listed = list(&location, &config, None).await;
    listed.map(|entries| entries.len()).map_err(|error| error.0)
}

/// The client of S3 panicked when the first of its bytes were read.
#[tokio::test]
async fn what_no_request_could_ask_for_is_refused_by_name() {
    let objects =
        |etag| [("data/a.tar".to_owned(), "&quot;a&quot;"), ("data/b.tar".to_owned(), etag)];
    assert_eq!(listed(page(&objects("&quot;b&quot;"), None)).await, Ok(2));
    let refused = listed(page(&objects("&quot;b&#13;&#10;X: y&quot;"), None)).await;
    let said = "b.tar at s3://bucket/data cannot be read: the server gives it an ETag with a control \
                character, \"\\\"b\\r\\nX: y\\\"\"";
    assert_eq!(refused, Err(said.to_owned()));
}

/// It was listed until the topic had ten million objects.
#[tokio::test]
async fn a_listing_without_an_end_is_told_as_one() {
    let endless = page(&[("data/a.tar".to_owned(), "a")], Some("token"));
    let refused = listed(endless).await.expect_err("it has no end");
    assert!(refused.starts_with("s3://bucket/data: it cannot be listed"), "{refused}");
    let said = "the server lists without end: page 2 has the continuation token of page 1 again";
    assert!(refused.contains(said), "{refused}");
}
