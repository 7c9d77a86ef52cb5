//! An S3 server in memory that fails as real ones do: 503, slow answers, bodies cut off, credentials that are refused.
//!
//! What the broker's object store client asks for, and no more: PUT (with `If-None-Match: *`), GET with a range, HEAD, DELETE, DeleteObjects,
//! ListObjectsV2 and multipart uploads, path style. Signatures are not checked; that there is one is.

mod objects;
mod xml;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use objects::Objects;

/// What goes wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Everything is answered 503.
    pub is_down: bool,
    /// The credentials are refused.
    pub is_forbidden: bool,
    /// Of a thousand requests so many are answered 503, half of them after having been carried out.
    pub failing: u32,
    /// Of a thousand bodies so many end in the middle.
    pub truncated: u32,
    /// Answers wait for at least this long.
    pub least_delay: Duration,
    /// And for up to so much more.
    pub delay: Duration,
}

/// A running server. It ends when it is dropped.
pub struct FakeS3 {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    /// Bytes of objects that were given out.
    given_bytes: AtomicU64,
    objects: Mutex<Objects>,
    faults: Mutex<Faults>,
    rng: Mutex<SmallRng>,
}

impl Drop for FakeS3 {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeS3 {
    /// A server without objects, on a free port.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(seed: u64) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            given_bytes: AtomicU64::new(0),
            objects: Mutex::default(),
            faults: Mutex::default(),
            rng: Mutex::new(SmallRng::seed_from_u64(seed)),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { drop(axum::serve(listener, router).await) });
        Ok(Self { address, shared, task })
    }

    /// The environment of a program that uses it.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let endpoint = format!("http://{}", self.address);
        [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "us-east-1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        *lock(&self.shared.faults) = faults;
    }

    /// The keys of a bucket's objects that begin with `prefix`.
    #[must_use]
    pub fn keys(&self, bucket: &str, prefix: &str) -> Vec<String> {
        lock(&self.shared.objects).keys(bucket, prefix)
    }

    /// Bytes of objects that were given out.
    #[must_use]
    pub fn given_bytes(&self) -> u64 {
        self.shared.given_bytes.load(Ordering::Relaxed)
    }

    /// An object's bytes.
    #[must_use]
    pub fn object(&self, bucket: &str, key: &str) -> Option<Bytes> {
        lock(&self.shared.objects).get(bucket, key).map(|object| object.bytes)
    }
}

impl Shared {
    fn draw(&self, of_thousand: u32) -> bool {
        of_thousand > 0 && lock(&self.rng).random_range(0..1000) < of_thousand
    }
}

type Parameters = HashMap<String, String>;

async fn answer(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<Parameters>,
    request: Request,
) -> Response {
    let faults = *lock(&shared.faults);
    let wait = faults.least_delay + faults.delay.mul_f64(lock(&shared.rng).random_range(0.0..=1.0));
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, 1 << 30).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    if faults.is_forbidden || !parts.headers.contains_key(header::AUTHORIZATION) {
        return failure(StatusCode::FORBIDDEN, "InvalidAccessKeyId");
    }
    let fails = shared.draw(faults.failing);
    let unavailable = || failure(StatusCode::SERVICE_UNAVAILABLE, "SlowDown");
    if faults.is_down || (fails && shared.draw(500)) {
        return unavailable();
    }
    let path = percent_decoded(parts.uri.path().trim_start_matches('/'));
    let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
    let done = {
        let mut objects = lock(&shared.objects);
        carry_out(&mut objects, &parts.method, (bucket, key), &query, &parts.headers, body)
    };
    match done {
        _ if fails => unavailable(),
        Answer::Object { bytes, range, etag } if shared.draw(faults.truncated) => {
            cut_off(&bytes, range, &etag)
        }
        Answer::Object { bytes, range, etag } => {
            shared.given_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            object(bytes, range, &etag)
        }
        Answer::Other(response) => response,
    }
}

enum Answer {
    Object { bytes: Bytes, range: Option<String>, etag: String },
    Other(Response),
}

fn carry_out(
    objects: &mut Objects,
    method: &Method,
    (bucket, key): (&str, &str),
    query: &Parameters,
    headers: &HeaderMap,
    body: Bytes,
) -> Answer {
    let missing = || failure(StatusCode::NOT_FOUND, "NoSuchKey");
    let tagged = |etag: String| ([(header::ETAG, etag)], "").into_response();
    let upload = query.get("uploadId").map(String::as_str);
    let response = match *method {
        Method::GET if key.is_empty() => xml::listing(&objects.list(bucket, query)).into_response(),
        Method::GET | Method::HEAD => {
            let Some(found) = objects.get(bucket, key) else { return Answer::Other(missing()) };
            let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
            let Some((bytes, range)) = objects::part(&found.bytes, range) else {
                return Answer::Other(failure(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange"));
            };
            return Answer::Object { bytes, range, etag: found.etag };
        }
        Method::PUT => match (upload, query.get("partNumber")) {
            (Some(upload), Some(number)) => objects
                .put_part(upload, number.parse().unwrap_or(0), body)
                .map_or_else(missing, tagged),
            _ if headers.contains_key(header::IF_NONE_MATCH)
                && objects.get(bucket, key).is_some() =>
            {
                failure(StatusCode::PRECONDITION_FAILED, "PreconditionFailed")
            }
            _ => tagged(objects.put(bucket, key, body)),
        },
        Method::POST if query.contains_key("delete") => {
            let keys = xml::keys(&String::from_utf8_lossy(&body));
            keys.iter().for_each(|key| objects.delete(bucket, key));
            xml::deleted(&keys).into_response()
        }
        Method::POST if query.contains_key("uploads") => {
            xml::upload(bucket, key, &objects.begin_upload()).into_response()
        }
        Method::POST => match upload.and_then(|upload| objects.complete(upload, bucket, key)) {
            Some(etag) => xml::completed(bucket, key, &etag).into_response(),
            None => failure(StatusCode::NOT_FOUND, "NoSuchUpload"),
        },
        Method::DELETE => {
            match upload {
                Some(upload) => objects.abort(upload),
                None => objects.delete(bucket, key),
            }
            StatusCode::NO_CONTENT.into_response()
        }
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    };
    Answer::Other(response)
}

fn failure(status: StatusCode, code: &str) -> Response {
    (status, xml::error(code)).into_response()
}

fn object(bytes: Bytes, range: Option<String>, etag: &str) -> Response {
    respond(bytes.len(), Body::from(bytes), range, etag)
}

/// Announces all of it, and ends in the middle.
fn cut_off(bytes: &Bytes, range: Option<String>, etag: &str) -> Response {
    let half = bytes.slice(..bytes.len() / 2);
    let lost = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "cut off");
    let body = Body::from_stream(stream::iter([Ok(half), Err(lost)]));
    respond(bytes.len(), body, range, etag)
}

fn respond(length: usize, body: Body, range: Option<String>, etag: &str) -> Response {
    let mut response = Response::builder()
        .header(header::CONTENT_LENGTH, length)
        .header(header::ETAG, etag)
        .header(header::LAST_MODIFIED, "Thu, 01 Jan 2026 00:00:00 GMT");
    if let Some(range) = range {
        response =
            response.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, range);
    }
    response.body(body).unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let code = tail.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()).filter(|_| byte == b'%') {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &tail[2..];
            }
            None => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
