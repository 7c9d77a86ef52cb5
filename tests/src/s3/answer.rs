//! Requests and their answers.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header, request};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;

use super::faults::Faults;
use super::link::PIECE_BYTES;
use super::objects::{self, Object, Objects};
use super::requests::Given;
use super::{Parameters, Shared, date, lock, requests, xml};

/// The largest body of a request.
const BODY_BYTES: usize = 1 << 30;
/// In the header of whoever uses the key of `FakeS3::environment`.
const CREDENTIAL: &str = "Credential=key/";

enum Answer {
    Object(Found),
    Other(Response),
}

/// An object, and the part of it that is asked for.
struct Found {
    object: Object,
    range: Option<Range<usize>>,
}

/// A request in work; until the answer's last byte is sent or given up.
struct InWork(Arc<Shared>);

impl InWork {
    /// The request, and how many there are with it.
    fn begin(shared: &Arc<Shared>) -> (Self, usize) {
        let others = shared.in_work.fetch_add(1, Ordering::Relaxed);
        (Self(Arc::clone(shared)), others + 1)
    }
}

impl Drop for InWork {
    fn drop(&mut self) {
        self.0.in_work.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) async fn answer(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<Parameters>,
    request: Request,
) -> Response {
    let at = shared.requests.now();
    let faults = shared.faults();
    let (in_work, count) = InWork::begin(&shared);
    let (parts, body) = request.into_parts();
    let path = percent_decoded(parts.uri.path().trim_start_matches('/'));
    let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
    let answer = match faults.most_at_once > 0 && count > faults.most_at_once {
        true => Answer::Other(slow_down()),
        false => serve(&shared, &faults, &parts, (bucket, key), &query, body).await,
    };
    let mut seen = requests::Request {
        at,
        method: parts.method.to_string(),
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        range: None,
        status: 0,
        bytes: 0,
    };
    match answer {
        Answer::Other(response) => {
            seen.status = response.status().as_u16();
            shared.requests.add(seen);
            response
        }
        Answer::Object(found) => {
            seen.status = found.status().as_u16();
            seen.range = found.range.as_ref().map(|range| range.start as u64..range.end as u64);
            let given = shared.requests.add(seen);
            let body = match parts.method == Method::HEAD {
                true => Body::empty(),
                false => {
                    let is_cut = shared.draw(faults.truncated);
                    stream_body(&found, is_cut, faults.bytes_a_second > 0, given, in_work)
                }
            };
            found.response(body)
        }
    }
}

async fn serve(
    shared: &Shared,
    faults: &Faults,
    parts: &request::Parts,
    place: (&str, &str),
    query: &Parameters,
    body: Body,
) -> Answer {
    let wait = shared.delay(faults);
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    let Ok(body) = axum::body::to_bytes(body, BODY_BYTES).await else {
        return Answer::Other(StatusCode::BAD_REQUEST.into_response());
    };
    if let Some(refused) = refusal(faults, &parts.headers) {
        return Answer::Other(refused);
    }
    let fails = shared.draw(faults.failing);
    if faults.is_down || (fails && shared.draw(500)) {
        return Answer::Other(slow_down());
    }
    let done = {
        let mut objects = lock(&shared.objects);
        let makes_bucket = parts.method == Method::PUT && place.1.is_empty();
        match parts.method {
            _ if !makes_bucket && !objects.has_bucket(place.0) => Answer::Other(no_such_bucket()),
            Method::GET | Method::HEAD if !place.1.is_empty() => {
                find(&objects, place, &parts.headers, faults.ignores_conditions)
            }
            _ => Answer::Other(change(&mut objects, parts, place, query, body)),
        }
    };
    if fails { Answer::Other(slow_down()) } else { done }
}

/// What is said to a client that has no business here.
fn refusal(faults: &Faults, headers: &HeaderMap) -> Option<Response> {
    if faults.is_elsewhere {
        let region = [("x-amz-bucket-region", "eu-west-1")];
        let error = xml::error("PermanentRedirect");
        return Some((StatusCode::MOVED_PERMANENTLY, region, error).into_response());
    }
    let Some(authorization) = headers.get(header::AUTHORIZATION) else {
        return Some(failure(StatusCode::FORBIDDEN, "AccessDenied"));
    };
    let is_known = authorization.to_str().is_ok_and(|text| text.contains(CREDENTIAL));
    if faults.is_forbidden || !is_known {
        return Some(failure(StatusCode::FORBIDDEN, "InvalidAccessKeyId"));
    }
    faults.has_no_bucket.then(no_such_bucket)
}

fn no_such_bucket() -> Response {
    failure(StatusCode::NOT_FOUND, "NoSuchBucket")
}

fn find(
    objects: &Objects,
    (bucket, key): (&str, &str),
    headers: &HeaderMap,
    ignores_conditions: bool,
) -> Answer {
    let Some(object) = objects.get(bucket, key) else {
        return Answer::Other(failure(StatusCode::NOT_FOUND, "NoSuchKey"));
    };
    if ignores_conditions {
        return Answer::Object(Found { object, range: None });
    }
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let tag = |etag: &str| etag.trim().trim_matches('"').to_owned();
    let is_meant = |wanted: &str| {
        wanted.trim() == "*" || wanted.split(',').any(|one| tag(one) == tag(&object.etag))
    };
    if !header(header::IF_MATCH).is_none_or(is_meant) {
        return Answer::Other(failure(StatusCode::PRECONDITION_FAILED, "PreconditionFailed"));
    }
    match objects::part(object.bytes.len(), header(header::RANGE)) {
        Some(range) => Answer::Object(Found { object, range }),
        None => Answer::Other(failure(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange")),
    }
}

fn change(
    objects: &mut Objects,
    parts: &request::Parts,
    (bucket, key): (&str, &str),
    query: &Parameters,
    body: Bytes,
) -> Response {
    let no_upload = || failure(StatusCode::NOT_FOUND, "NoSuchUpload");
    let tagged = |etag: String| ([(header::ETAG, etag)], "").into_response();
    let upload = query.get("uploadId").map(String::as_str);
    match parts.method {
        Method::GET if key.is_empty() => xml::listing(&objects.list(bucket, query)).into_response(),
        Method::HEAD => StatusCode::OK.into_response(),
        Method::PUT if key.is_empty() => {
            objects.create_bucket(bucket);
            StatusCode::OK.into_response()
        }
        Method::PUT => match (upload, query.get("partNumber")) {
            (Some(upload), Some(number)) => objects
                .put_part(upload, number.parse().unwrap_or(0), body)
                .map_or_else(no_upload, tagged),
            _ if parts.headers.contains_key(header::IF_NONE_MATCH)
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
            None => no_upload(),
        },
        Method::DELETE => {
            match upload {
                Some(upload) => objects.abort(upload),
                None => objects.delete(bucket, key),
            }
            StatusCode::NO_CONTENT.into_response()
        }
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

fn failure(status: StatusCode, code: &str) -> Response {
    (status, xml::error(code)).into_response()
}

fn slow_down() -> Response {
    failure(StatusCode::SERVICE_UNAVAILABLE, "SlowDown")
}

impl Found {
    fn status(&self) -> StatusCode {
        if self.range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK }
    }

    fn bytes(&self) -> Bytes {
        match &self.range {
            Some(range) => self.object.bytes.slice(range.clone()),
            None => self.object.bytes.clone(),
        }
    }

    fn response(&self, body: Body) -> Response {
        let Object { bytes, etag, modified } = &self.object;
        let mut response = Response::builder()
            .status(self.status())
            .header(header::ETAG, etag)
            .header(header::LAST_MODIFIED, date::http(*modified))
            .header(header::ACCEPT_RANGES, "bytes");
        let mut length = bytes.len();
        if let Some(Range { start, end }) = self.range.clone() {
            let range = format!("bytes {start}-{}/{length}", end - 1);
            response = response.header(header::CONTENT_RANGE, range);
            length = end - start;
        }
        response
            .header(header::CONTENT_LENGTH, length)
            .body(body)
            .unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
    }
}

/// A body that is on its way.
struct Sending {
    rest: Bytes,
    /// It announces all of it, and ends in the middle.
    is_cut: bool,
    given: Given,
    in_work: InWork,
}

/// In pieces, as the link lets them through; at once where nothing is in the way.
fn stream_body(
    found: &Found,
    is_cut: bool,
    is_capped: bool,
    given: Given,
    in_work: InWork,
) -> Body {
    let mut rest = found.bytes();
    if is_cut {
        rest.truncate(rest.len() / 2);
    }
    let sending = Sending { rest, is_cut, given, in_work };
    if !is_cut && !is_capped {
        sending.count(sending.rest.len());
        return Body::from(sending.rest);
    }
    Body::from_stream(stream::unfold(sending, |mut sending| async move {
        let piece = sending.piece().await?;
        Some((piece, sending))
    }))
}

impl Sending {
    fn count(&self, bytes: usize) {
        self.given.add(bytes);
        self.in_work.0.given_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    async fn piece(&mut self) -> Option<io::Result<Bytes>> {
        if self.rest.is_empty() {
            let lost = || Err(io::Error::new(io::ErrorKind::ConnectionReset, "cut off"));
            return std::mem::take(&mut self.is_cut).then(lost);
        }
        let piece = self.rest.split_to(PIECE_BYTES.min(self.rest.len()));
        let shared = &self.in_work.0;
        let bytes_a_second = shared.faults().bytes_a_second;
        if bytes_a_second > 0 {
            shared.link.pass(piece.len(), bytes_a_second).await;
        }
        self.count(piece.len());
        Some(Ok(piece))
    }
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
