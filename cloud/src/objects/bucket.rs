//! A bucket of S3 that answers what a test says.

use axum::Router;
use axum::handler::Handler;
use object_store::aws::AmazonS3Builder;
use tokio::net::TcpListener;

use super::Paged;
use super::bounded::Bounded;

/// A bucket whose requests all come to `handler`.
pub(crate) async fn bucket<T: 'static>(handler: impl Handler<T, ()>) -> Paged {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
    let routes = Router::new().fallback(handler);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let _ = rustls::crypto::ring::default_provider().install_default();
    let bucket = AmazonS3Builder::new()
        .with_bucket_name("bucket")
        .with_endpoint(endpoint)
        .with_region("here")
        .with_allow_http(true)
        .with_skip_signature(true)
        .with_http_connector(Bounded)
        .build();
    Paged::new(bucket.expect("a bucket"))
}

/// One page of a listing: keys with ETags, and the continuation token after it.
pub(crate) fn page(objects: &[(String, &str)], token: Option<&str>) -> String {
    let content = |(key, etag): &(String, &str)| {
        format!(
            "<Contents><Key>{key}</Key><Size>1</Size><ETag>{etag}</ETag>\
             <LastModified>2026-11-28T00:00:00.000Z</LastModified></Contents>"
        )
    };
    let contents: String = objects.iter().map(content).collect();
    let next = token.map_or_else(String::new, |token| {
        format!("<NextContinuationToken>{token}</NextContinuationToken>")
    });
    let is_truncated = token.is_some();
    format!(
        "<ListBucketResult><IsTruncated>{is_truncated}</IsTruncated>{next}{contents}</ListBucketResult>"
    )
}
