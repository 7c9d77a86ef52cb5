//! What a source holds: its objects, in the order in which they were listed.
//!
//! **Invariant:** an object's ordinal never changes. A refresh appends.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::ObjectMeta;
use object_store::path::Path;
use robustmq_common::chain::chain;
use robustmq_common::ids::TopicId;
use robustmq_common::limits::dataset as limits;
use robustmq_dataset::fetch::Object;
use robustmq_dataset::format::detect::is_sidecar;
use serde::{Deserialize, Serialize};

use crate::objects::Location;
use crate::store::keys::damaged;
use crate::store::keys::dataset::{dataset_key, manifest_key};
use crate::store::{self, Store, StoreError, WriteBatch};
use crate::topics::SourceConfig;

/// How much was listed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Listed {
    /// Objects of the topic.
    pub objects: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// When it was listed last, milliseconds since 1970.
    pub listed_ms: i64,
}

/// An object in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Its name below the source's prefix.
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    size: u64,
    modified_ms: i64,
}

/// Why a source could not be listed, in words for whoever creates the topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ListError(pub String);

/// Lists what `config` takes of what is at `location`, in the order of names.
async fn list(location: &Location, config: &SourceConfig) -> Result<Vec<Entry>, ListError> {
    let url = &config.url;
    let prefix = (!location.path.is_empty()).then(|| Path::from(location.path.as_str()));
    let mut listing = location.objects.list(prefix.as_ref());
    let (mut entries, mut seen) = (Vec::new(), 0_u64);
    let failed = |error: object_store::Error| {
        let why = match &error {
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => {
                "it may not be listed: check the credentials, and that they grant s3:ListBucket and s3:GetObject"
            }
            object_store::Error::NotFound { .. } => "there is no such bucket or directory",
            _ => "it cannot be listed",
        };
        ListError(format!("{url}: {why} ({})", chain(&error)))
    };
    while let Some(meta) = listing.try_next().await.map_err(failed)? {
        seen += 1;
        let Some(name) = name_below(&location.path, &meta) else { continue };
        let is_data = config.format.is_some() || !is_sidecar(&name);
        if !is_data || !config.takes(&name) {
            continue;
        }
        if entries.len() >= limits::OBJECTS {
            let most = limits::OBJECTS;
            return Err(ListError(format!("{url} has more than {most} objects: take fewer")));
        }
        let modified_ms = meta.last_modified.timestamp_millis();
        entries.push(Entry { name, etag: meta.e_tag, size: meta.size, modified_ms });
    }
    if entries.is_empty() {
        return Err(ListError(match seen {
            0 => format!("{url} has no objects"),
            _ => format!(
                "none of the {seen} objects at {url} is taken: see robustmq.source.include and exclude"
            ),
        }));
    }
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn name_below(prefix: &str, meta: &ObjectMeta) -> Option<String> {
    let path = meta.location.as_ref();
    let name = path.strip_prefix(prefix)?.trim_start_matches('/');
    (!name.is_empty()).then(|| name.to_owned())
}

/// Lists a source and writes the manifest of a topic that is about to be created.
///
/// # Errors
/// [`ListError`]; nothing is left but what [`super::Datasets`] removes at a start.
pub(super) async fn create(
    store: &dyn Store,
    topic: TopicId,
    location: &Location,
    config: &SourceConfig,
    now_ms: i64,
) -> Result<Listed, ListError> {
    let entries = list(location, config).await?;
    let objects = entries.len() as u64;
    let bytes = entries.iter().map(|entry| entry.size).sum();
    let listed = Listed { objects, bytes, listed_ms: now_ms };
    let written = write(store, topic, &listed, &entries).await;
    written.map_err(|error| ListError(format!("the manifest cannot be written: {error}")))?;
    Ok(listed)
}

async fn write(
    store: &dyn Store,
    topic: TopicId,
    listed: &Listed,
    entries: &[Entry],
) -> Result<(), StoreError> {
    let mut write = WriteBatch::new();
    let head = serde_json::to_vec(listed).expect("numbers");
    write.put(dataset_key(topic), head);
    for (number, chunk) in (0_u32..).zip(entries.chunks(limits::MANIFEST_CHUNK)) {
        write.put(manifest_key(topic, number), encode(chunk));
        if write.bytes() > limits::MANIFEST_WRITE_BYTES {
            store::write(store, std::mem::take(&mut write)).await?;
        }
    }
    store::write(store, write).await
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let json = serde_json::to_vec(entries).expect("text and numbers");
    zstd::bulk::compress(&json, 1).expect("compression of memory into memory")
}

fn decode(key: &[u8], value: &[u8]) -> Result<Vec<Entry>, StoreError> {
    let json = zstd::bulk::decompress(value, limits::MANIFEST_CHUNK_BYTES);
    let json = json.map_err(|error| damaged(key, error))?;
    serde_json::from_slice(&json).map_err(|error| damaged(key, error))
}

/// A topic's manifest, of which some parts are in memory.
pub(super) struct Manifest {
    store: Arc<dyn Store>,
    topic: TopicId,
    prefix: String,
    listed: Listed,
    chunks: Mutex<Chunks>,
}

#[derive(Default)]
struct Chunks {
    loaded: HashMap<u32, Arc<Vec<Entry>>>,
    order: VecDeque<u32>,
}

impl Manifest {
    /// That of a topic; `None` if it has none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(
        store: Arc<dyn Store>,
        topic: TopicId,
        prefix: &str,
    ) -> Result<Option<Self>, StoreError> {
        let key = dataset_key(topic);
        let Some(value) = store.get(&key).await? else { return Ok(None) };
        let listed = serde_json::from_slice(&value).map_err(|error| damaged(&key, error))?;
        let (prefix, chunks) = (prefix.to_owned(), Mutex::default());
        Ok(Some(Self { store, topic, prefix, listed, chunks }))
    }

    /// How much it has.
    pub fn listed(&self) -> &Listed {
        &self.listed
    }

    /// The object with that ordinal.
    ///
    /// # Errors
    /// [`StoreError`]; there has to be one.
    pub async fn object(&self, ordinal: u64) -> Result<Object, StoreError> {
        let size = limits::MANIFEST_CHUNK as u64;
        let chunk = u32::try_from(ordinal / size).unwrap_or(u32::MAX);
        let entries = self.chunk(chunk).await?;
        let at = usize::try_from(ordinal % size).unwrap_or(usize::MAX);
        let missing = || damaged(&manifest_key(self.topic, chunk), "it is too short");
        let entry = entries.get(at).ok_or_else(missing)?;
        let parts = [self.prefix.as_str(), entry.name.as_str()];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let path = Path::parse(parts.join("/"));
        let path = path.map_err(|error| damaged(&manifest_key(self.topic, chunk), error))?;
        let (etag, size, modified_ms) = (entry.etag.clone(), entry.size, entry.modified_ms);
        Ok(Object { path, etag, size, modified_ms })
    }

    /// The part of a path that is below the source's prefix.
    pub fn name<'a>(&self, object: &'a Object) -> &'a str {
        let path = object.path.as_ref();
        path.strip_prefix(&self.prefix).unwrap_or(path).trim_start_matches('/')
    }

    async fn chunk(&self, number: u32) -> Result<Arc<Vec<Entry>>, StoreError> {
        if let Some(entries) = self.lock().loaded.get(&number) {
            return Ok(Arc::clone(entries));
        }
        let key = manifest_key(self.topic, number);
        let value: Option<Bytes> = self.store.get(&key).await?;
        let value = value.ok_or_else(|| damaged(&key, "it is not there"))?;
        let entries = Arc::new(decode(&key, &value)?);
        let mut chunks = self.lock();
        if chunks.loaded.insert(number, Arc::clone(&entries)).is_none() {
            chunks.order.push_back(number);
        }
        if chunks.order.len() > limits::MANIFEST_CHUNKS
            && let Some(oldest) = chunks.order.pop_front()
        {
            chunks.loaded.remove(&oldest);
        }
        Ok(entries)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Chunks> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What names a version of an object, however it is reached: two topics over one prefix share what is cached of it.
pub(super) fn identity(config: &SourceConfig, object: &Object) -> u128 {
    let bucket = match &config.url {
        crate::objects::ObjectStoreUrl::S3 { bucket, .. } => format!("s3://{bucket}"),
        crate::objects::ObjectStoreUrl::File { dir } => dir.display().to_string(),
    };
    let version = format!(
        "{bucket}\0{}\0{}\0{}\0{}\0{:?}",
        object.path,
        object.etag.as_deref().unwrap_or(""),
        object.size,
        object.modified_ms,
        config.format
    );
    xxhash_rust::xxh3::xxh3_128(version.as_bytes())
}
