//! Listings of servers that do not end them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::RawQuery;

use super::*;

/// A page: keys, and the continuation token after it.
type Page = (Vec<String>, Option<String>);

/// A bucket whose pages are made as they are asked for: by how many were before.
async fn bucket(page: impl Fn(u64) -> Page + Clone + Send + Sync + 'static) -> Paged {
    let asked = Arc::new(AtomicU64::new(0));
    crate::objects::bucket::bucket(async move |RawQuery(query): RawQuery| {
        assert!(query.is_some_and(|query| query.contains("prefix=data%2F")), "another listing");
        let (keys, token) = page(asked.fetch_add(1, Ordering::Relaxed));
        let objects: Vec<_> = keys.into_iter().map(|key| (key, "&quot;e&quot;")).collect();
        crate::objects::bucket::page(&objects, token.as_deref())
    })
    .await
}

async fn listed(bucket: &Paged) -> std::result::Result<Vec<String>, String> {
    let prefix = Path::from("data");
    let listing = bucket.list(Some(&prefix)).map_ok(|meta| meta.location.to_string());
    let listed = tokio::time::timeout(Duration::from_secs(60), listing.try_collect()).await;
    listed.expect("it ends").map_err(|error| error.to_string())
}

fn key(number: u64) -> String {
    format!("data/{number:09}")
}

#[tokio::test]
async fn a_listing_has_what_all_of_its_pages_have() {
    let page = |number| match number {
        // A page may be empty: S3 says nothing of why.
        3 => (Vec::new(), Some("4".to_owned())),
        9 => (vec![key(9)], None),
        _ => (vec![key(number), format!("{}-b", key(number))], Some(format!("{}", number + 1))),
    };
    let found = listed(&bucket(page).await).await.expect("it ends");
    assert_eq!(found.len(), 17);
    assert!(found.is_sorted(), "{found:?}");
}

/// A listing that came round went on until the topic had ten million objects, or for ever where none of them was taken.
#[tokio::test]
async fn a_listing_that_comes_round_is_an_error_that_says_so() {
    let check = async |page: fn(u64) -> Page, said: &str| {
        let error = listed(&bucket(page).await).await.expect_err("there is no end");
        assert!(error.contains("the server lists without end: "), "{error}");
        assert!(error.contains(said), "{error}");
    };
    let same = |number| (vec![key(number)], Some("token".to_owned()));
    check(same, "page 2 has the continuation token of page 1 again").await;
    let empty = |_| (Vec::new(), Some("token".to_owned()));
    check(empty, "page 2 has the continuation token of page 1 again").await;
    // It begins with what comes once, and goes round among five.
    let round = |number: u64| (vec![key(number)], Some(format!("{}", number.min(3 + number % 5))));
    check(round, "has the continuation token of page ").await;
    let new_tokens = |number: u64| (vec![key(number % 3)], Some(number.to_string()));
    check(new_tokens, "begins with data/000000").await;
    let long = |number| (vec![key(number)], Some("t".repeat(limits::TOKEN_BYTES + 1)));
    check(long, "page 1 has a continuation token of 8193 bytes").await;
}

#[test]
fn a_listing_has_an_end_though_each_page_is_new() {
    let meta = |number: u64| ObjectMeta {
        location: Path::from(key(number)),
        last_modified: Default::default(),
        size: 1,
        e_tag: None,
        version: None,
    };
    let mut seen = Seen { objects: limits::LISTED_OBJECTS - 1, ..Seen::default() };
    assert_eq!(seen.note("a", &[meta(1)]), Ok(()));
    let refused = seen.note("b", &[meta(2)]).expect_err("one too many");
    assert_eq!(refused, "100000001 objects have come, and there are more");
    let mut seen = Seen::default();
    let refused = (0..).find_map(|page: u64| seen.note(&page.to_string(), &[]).err());
    assert_eq!(refused.expect("it ends"), "10001 pages in a row have no objects");
}
