//! An S3 server in memory that fails as real ones do: 503, slow answers with a long tail, a narrow link, bodies cut off, credentials that
//! are refused, conditions that are ignored.
//!
//! What the broker's object store client asks for, and no more: PUT (with `If-None-Match: *`), GET and HEAD with a range and `If-Match`,
//! DELETE, DeleteObjects, ListObjectsV2, CreateBucket and multipart uploads, path style. Signatures are not checked; that there is one, of the
//! right key, is. A test compares its answers with those of [`moto`]'s server.

mod answer;
mod date;
mod faults;
mod link;
pub mod moto;
mod objects;
mod requests;
#[cfg(test)]
mod tests;
mod xml;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use link::Link;
use objects::Objects;
use requests::Requests;

pub use faults::{Faults, Latency};
pub use requests::Request;

/// A running server. It ends when it is dropped.
pub struct FakeS3 {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    /// Bytes of objects that were given out.
    given_bytes: AtomicU64,
    /// Requests in work, up to the last byte of their answers.
    in_work: AtomicUsize,
    objects: Mutex<Objects>,
    faults: Mutex<Faults>,
    rng: Mutex<SmallRng>,
    link: Link,
    requests: Requests,
}

/// A query's.
type Parameters = HashMap<String, String>;

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
            in_work: AtomicUsize::new(0),
            objects: Mutex::default(),
            faults: Mutex::default(),
            rng: Mutex::new(SmallRng::seed_from_u64(seed)),
            link: Link::default(),
            requests: Requests::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(answer::answer).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { drop(axum::serve(listener, router).await) });
        Ok(Self { address, shared, task })
    }

    /// Where it listens, as a URL without a path.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The environment of a program that uses it.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let endpoint = self.endpoint();
        [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "us-east-1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// Makes a bucket, for whoever puts objects there by requests.
    pub fn create_bucket(&self, bucket: &str) {
        lock(&self.shared.objects).create_bucket(bucket);
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

    /// Puts an object, or another in its place, and says its ETag. The bucket is made if there is none. No request is made, and nothing is
    /// copied.
    pub fn put(&self, bucket: &str, key: &str, bytes: Bytes) -> String {
        lock(&self.shared.objects).put(bucket, key, bytes)
    }

    /// Takes an object away.
    pub fn delete(&self, bucket: &str, key: &str) {
        lock(&self.shared.objects).delete(bucket, key);
    }

    /// What was asked since the start, or since they were cleared; at most the last million.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.all()
    }

    /// Forgets what was asked.
    pub fn clear_requests(&self) {
        self.shared.requests.clear();
    }
}

impl Shared {
    fn faults(&self) -> Faults {
        *lock(&self.faults)
    }

    fn draw(&self, of_thousand: u32) -> bool {
        of_thousand > 0 && lock(&self.rng).random_range(0..1000) < of_thousand
    }

    /// How long the next answer takes.
    fn delay(&self, faults: &Faults) -> Duration {
        let mut rng = lock(&self.rng);
        let even = faults.delay.mul_f64(rng.random_range(0.0..=1.0));
        faults.least_delay + even + faults.latency.draw(&mut rng)
    }
}
