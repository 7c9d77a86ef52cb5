//! Asked over HTTP, as the broker's client asks.

use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::{Response, StatusCode, header};

use super::{FakeS3, Faults};
use crate::eventually;
use crate::servers::http;

const MEBIBYTE: usize = 1 << 20;

async fn ask(s3: &FakeS3, method: &str, key: &str, headers: &[(&str, &str)]) -> Response {
    let method = method.parse().unwrap();
    let mut request = http().request(method, format!("{}/bucket/{key}", s3.endpoint()));
    let signed = [("authorization", "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/x")];
    for (name, value) in signed.iter().chain(headers) {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

fn header(response: &Response, name: header::HeaderName) -> &str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_replaced_object_is_refused_to_who_names_the_old_one() {
    let s3 = FakeS3::start(1).await.unwrap();
    let old = s3.put("bucket", "shard", Bytes::from_static(b"the first"));
    let answer = ask(&s3, "GET", "shard", &[("if-match", &old), ("range", "bytes=4-5")]).await;
    assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(header(&answer, header::CONTENT_RANGE), "bytes 4-5/9");
    assert_eq!(header(&answer, header::ETAG), old);
    assert!(header(&answer, header::LAST_MODIFIED).ends_with(" GMT"), "{answer:?}");
    assert_eq!(answer.bytes().await.unwrap(), "fi");
    let new = s3.put("bucket", "shard", Bytes::from_static(b"another"));
    assert_ne!(old, new);
    for method in ["GET", "HEAD"] {
        let answer = ask(&s3, method, "shard", &[("if-match", &old)]).await;
        assert_eq!(answer.status(), StatusCode::PRECONDITION_FAILED, "{method}");
        for right in [new.as_str(), "*", new.trim_matches('"')] {
            let answer = ask(&s3, method, "shard", &[("if-match", right)]).await;
            assert_eq!(answer.status(), StatusCode::OK, "{method} {right}");
            assert_eq!(header(&answer, header::CONTENT_LENGTH), "7", "{method}");
        }
    }
    s3.delete("bucket", "shard");
    let answer = ask(&s3, "GET", "shard", &[("if-match", &new)]).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_server_that_ignores_conditions_answers_all_of_whatever_is_there() {
    let s3 = FakeS3::start(1).await.unwrap();
    s3.put("bucket", "shard", Bytes::from_static(b"0123456789"));
    s3.set_faults(Faults { ignores_conditions: true, ..Faults::default() });
    let asked = [("if-match", "\"no such\""), ("range", "bytes=2-3")];
    let answer = ask(&s3, "GET", "shard", &asked).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(header(&answer, header::CONTENT_RANGE), "");
    assert_eq!(answer.bytes().await.unwrap(), "0123456789");
}

#[tokio::test]
async fn what_was_asked_and_given_is_on_record() {
    let s3 = FakeS3::start(1).await.unwrap();
    s3.put("bucket", "a shard", vec![7; 1000].into());
    for (method, headers) in [("GET", [("range", "bytes=10-19")]), ("HEAD", [("accept", "*/*")])] {
        ask(&s3, method, "a%20shard", &headers).await.bytes().await.unwrap();
    }
    ask(&s3, "GET", "none", &[]).await;
    let shown = |request: super::Request| {
        let super::Request { method, key, range, status, bytes, .. } = request;
        (method, key, range, status, bytes)
    };
    let seen: Vec<_> = s3.requests().into_iter().map(shown).collect();
    let expected = [
        ("GET", "a shard", Some(10..20), 206, 10),
        ("HEAD", "a shard", None, 200, 0),
        ("GET", "none", None, 404, 0),
    ];
    assert_eq!(
        seen,
        expected.map(|(method, key, range, status, bytes)| {
            (method.to_owned(), key.to_owned(), range, status, bytes)
        })
    );
    assert_eq!(s3.given_bytes(), 10);
    s3.clear_requests();
    assert!(s3.requests().is_empty());
}

#[tokio::test]
async fn bodies_share_a_link_and_are_whole() {
    let s3 = FakeS3::start(1).await.unwrap();
    let bytes: Vec<u8> = (0..=250).cycle().take(MEBIBYTE).collect();
    s3.put("bucket", "shard", bytes.clone().into());
    s3.set_faults(Faults { bytes_a_second: 20 << 20, ..Faults::default() });
    let began = Instant::now();
    let each = || async { ask(&s3, "GET", "shard", &[]).await.bytes().await.unwrap() };
    let (one, two, three, four) = tokio::join!(each(), each(), each(), each());
    assert!([one, two, three, four].iter().all(|body| *body == bytes));
    // 4 MB at 20 MB a second take a fifth of a second, however many ask; more on a busy machine.
    assert!(began.elapsed() >= Duration::from_millis(170), "{:?}", began.elapsed());
    assert_eq!(s3.given_bytes(), 4 * MEBIBYTE as u64);
}

#[tokio::test]
async fn a_body_that_is_cut_off_announces_all_and_counts_what_was_given() {
    let s3 = FakeS3::start(1).await.unwrap();
    s3.put("bucket", "shard", vec![7; MEBIBYTE].into());
    s3.set_faults(Faults { truncated: 1000, ..Faults::default() });
    let answer = ask(&s3, "GET", "shard", &[]).await;
    assert_eq!(header(&answer, header::CONTENT_LENGTH), MEBIBYTE.to_string());
    answer.bytes().await.unwrap_err();
    let seen = s3.requests();
    assert_eq!((seen[0].status, seen[0].bytes), (200, MEBIBYTE as u64 / 2));
}

#[tokio::test]
async fn more_at_once_than_the_server_likes_is_answered_slow_down() {
    let s3 = FakeS3::start(1).await.unwrap();
    s3.put("bucket", "shard", vec![7; MEBIBYTE].into());
    let slow = Faults { most_at_once: 2, bytes_a_second: 4 << 20, ..Faults::default() };
    s3.set_faults(slow);
    // Two bodies are on their way: their answers have begun, and are read no further.
    let begun = [ask(&s3, "GET", "shard", &[]).await, ask(&s3, "GET", "shard", &[]).await];
    let third = ask(&s3, "GET", "shard", &[]).await;
    assert_eq!(third.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(third.text().await.unwrap().contains("SlowDown"));
    for answer in begun {
        assert_eq!(answer.bytes().await.unwrap().len(), MEBIBYTE);
    }
    // The server lets go of an answer only after the client has read it.
    eventually("the bodies are off the link", Duration::from_secs(10), async || {
        let answer = ask(&s3, "HEAD", "shard", &[]).await;
        Ok((answer.status() == StatusCode::OK).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_bucket_may_be_elsewhere_missing_or_closed() {
    let s3 = FakeS3::start(1).await.unwrap();
    let check = async |faults: Faults, status: u16, code: &str| {
        s3.set_faults(faults);
        let answer = ask(&s3, "GET", "?list-type=2", &[]).await;
        assert_eq!(answer.status().as_u16(), status, "{code}");
        assert!(answer.text().await.unwrap().contains(code), "{code}");
    };
    let fine = Faults::default();
    check(Faults { is_elsewhere: true, ..fine }, 301, "PermanentRedirect").await;
    check(Faults { has_no_bucket: true, ..fine }, 404, "NoSuchBucket").await;
    check(Faults { is_forbidden: true, ..fine }, 403, "InvalidAccessKeyId").await;
    check(fine, 404, "NoSuchBucket").await;
    s3.create_bucket("bucket");
    check(fine, 200, "ListBucketResult").await;
}
