//! A client of HTTP whose answers are no longer than what was asked for: the client of S3 keeps pages of listings, what errors say and most ranges
//! as a whole, however long they are.

use async_trait::async_trait;
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService, ReqwestConnector,
};
use object_store::{ClientOptions, Result};
use robustmq_common::limits::object as limits;

/// Makes such clients.
#[derive(Debug, Default)]
pub(super) struct Bounded;

#[derive(Debug)]
struct Client(HttpClient);

#[derive(Debug, thiserror::Error)]
#[error("the answer has more than {0} bytes, which is more than was asked for")]
struct TooLong(usize);

impl HttpConnector for Bounded {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Client(client)))
    }
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let asked = asked_bytes(&request);
        let answer = self.0.execute(request).await?;
        let most = match answer.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => asked,
            _ => Some(limits::SAID_BYTES),
        };
        let Some(most) = most else { return Ok(answer) };
        let (parts, body) = answer.into_parts();
        let body =
            Limited::new(body, most).map_err(move |error| match error.downcast::<HttpError>() {
                Ok(error) => *error,
                Err(_) => HttpError::new(HttpErrorKind::Decode, TooLong(most)),
            });
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}

/// What an answer to it may have; `None` for an object as a whole. Who reads a range looks at its length as well, and names the object: there is some
/// room beside it.
fn asked_bytes(request: &HttpRequest) -> Option<usize> {
    let range = request.headers().get(header::RANGE).and_then(|range| range.to_str().ok());
    if let Some(range) = range.and_then(|range| range.strip_prefix("bytes=")) {
        let (first, last) = range.split_once('-')?;
        let last: usize = last.parse().ok()?;
        // Without a first one, it is for so many of the last.
        let first = if first.is_empty() { 1 } else { first.parse().ok()? };
        // The client asks on from where a body broke, though that be behind what it wants.
        let bytes = last.saturating_add(1).saturating_sub(first);
        return Some(bytes.saturating_add(limits::SAID_BYTES));
    }
    let is_listing = request.uri().query().is_some_and(|query| query.contains("list-type="));
    (request.method() != Method::GET || is_listing).then_some(limits::PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::body::{Body, Bytes};
    use futures_util::{StreamExt as _, TryStreamExt as _, stream};
    use object_store::client::HttpRequestBody;
    use object_store::path::Path;
    use object_store::{ObjectStore as _, ObjectStoreExt as _};

    use super::{HttpRequest, Method, StatusCode, asked_bytes, header, limits};
    use crate::objects::bucket::bucket;

    #[test]
    fn an_answer_may_have_what_was_asked_for() {
        let check = |method: Method, uri: &str, range: Option<&str>, expected: Option<usize>| {
            let mut request = HttpRequest::new(HttpRequestBody::empty());
            *request.method_mut() = method;
            *request.uri_mut() = uri.parse().expect("a URI");
            if let Some(range) = range {
                request.headers_mut().insert(header::RANGE, range.parse().expect("a header"));
            }
            assert_eq!(asked_bytes(&request), expected, "{uri} {range:?}");
        };
        let ranges =
            [("bytes=10-19", 10), ("bytes=0-0", 1), ("bytes=-500", 500), ("bytes=900-9", 0)];
        for (range, bytes) in ranges {
            check(Method::GET, "/b/a", Some(range), Some(bytes + limits::SAID_BYTES));
        }
        check(Method::GET, "/b/a", None, None);
        check(Method::GET, "/b/a", Some("bytes=10-"), None);
        check(Method::GET, "/b?list-type=2&prefix=a", None, Some(limits::PAGE_BYTES));
        check(Method::POST, "/b?delete", None, Some(limits::PAGE_BYTES));
    }

    /// All of it was kept until there was no memory left.
    #[tokio::test]
    async fn an_answer_without_an_end_is_an_error() {
        let endless = || {
            let piece = Bytes::from(vec![b' '; 1 << 20]);
            Body::from_stream(stream::repeat_with(move || Ok::<_, Infallible>(piece.clone())))
        };
        let objects = bucket(async move |request: axum::extract::Request| {
            let answer = http::Response::builder();
            let answer = match request.uri().path() {
                "/bucket/a" => answer
                    .status(StatusCode::PARTIAL_CONTENT)
                    .header("etag", "e")
                    .header("content-length", "1000000000000")
                    .header("last-modified", "Sat, 28 Nov 2026 00:00:00 GMT")
                    .header("content-range", "bytes 0-9/10"),
                "/bucket/b" => answer.status(StatusCode::FORBIDDEN),
                _ => answer,
            };
            answer.body(endless()).expect("an answer")
        })
        .await;
        let listed = objects.list(None).map_ok(drop).try_collect::<Vec<()>>().await;
        let read = objects.get_range(&Path::from("a"), 0..10).await;
        let refused = objects.get_range(&Path::from("b"), 0..10).await;
        for (outcome, most) in [
            (listed.map(drop), limits::PAGE_BYTES),
            // What it asks for again is behind its end.
            (read.map(drop), limits::SAID_BYTES),
            (refused.map(drop), limits::SAID_BYTES),
        ] {
            let error = crate::objects::told(&outcome.expect_err("it has no end"));
            let said = format!("the answer has more than {most} bytes");
            assert!(error.contains(&said), "{error}");
        }
        let first = objects.list(None).next().await.expect("an answer");
        assert!(first.is_err(), "and it is told at once");
    }
}
