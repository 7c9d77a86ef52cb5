//! What a source holds: its objects, in the order in which they were listed.
//!
//! **Invariant:** an object's ordinal never changes. A refresh appends.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use object_store::path::Path;
use robustmq_common::ids::{KafkaTopic, TopicId};
use robustmq_common::limits::dataset as limits;
use robustmq_dataset::cache::ExtentId;
use robustmq_dataset::fetch::{FetchError, Object, same_time};
use robustmq_dataset::format::parquet::{RENDERING, RowsAs};
use robustmq_dataset::index::{Large, Reading};
use serde::{Deserialize, Serialize};

use super::listing::{ListError, check_format, list};
use super::sidecars::Sidecar;
use crate::objects::{Location, ObjectStoreUrl};
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
pub(super) struct Entry {
    /// Its name below the source's prefix.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    pub size: u64,
    pub modified_ms: i64,
    /// The index file beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Sidecar>,
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
    roots: Option<&[PathBuf]>,
    now_ms: i64,
) -> Result<Listed, ListError> {
    let entries = list(location, config, roots).await?;
    check_format(config, &entries)?;
    let objects = entries.len() as u64;
    let bytes = entries.iter().map(|entry| entry.size).sum();
    let listed = Listed { objects, bytes, listed_ms: now_ms };
    let written = write(store, topic, &listed, 0, &entries).await;
    written.map_err(|error| ListError(format!("the manifest cannot be written: {error}")))?;
    Ok(listed)
}

/// Writes the parts from `first` on, and then how much there is: what lies behind that does not count. The head of a topic that is about to
/// be created comes first, so that it can be found should it never be.
async fn write(
    store: &dyn Store,
    topic: TopicId,
    listed: &Listed,
    first: u32,
    entries: &[Entry],
) -> Result<(), StoreError> {
    let mut write = WriteBatch::new();
    let head = serde_json::to_vec(listed).expect("numbers");
    if first == 0 && store.get(&dataset_key(topic)).await?.is_none() {
        write.put(dataset_key(topic), head.clone());
    }
    for (number, chunk) in (first..).zip(entries.chunks(limits::MANIFEST_CHUNK)) {
        write.put(manifest_key(topic, number), encode(chunk));
        if write.bytes() > limits::MANIFEST_WRITE_BYTES {
            store::write(store, std::mem::take(&mut write)).await?;
        }
    }
    write.put(dataset_key(topic), head);
    store::write(store, write).await
}

/// What a refresh has found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Refreshed {
    /// Objects of the topic now.
    pub objects: u64,
    /// Those that are new.
    pub added_objects: u64,
    /// Their bytes.
    pub added_bytes: u64,
    /// Objects that were listed before and are not there any more.
    pub missing_objects: u64,
    /// The first of their names.
    pub missing: Vec<String>,
    /// Those of these names whose records were never counted: they are left out, or the topic does not go on behind them.
    pub uncounted: Vec<String>,
}

impl Refreshed {
    /// Says what was found, and which objects are not there any more.
    pub(super) fn log(&self, topic: &KafkaTopic) {
        let Self { objects, added_objects, missing_objects, missing, uncounted, .. } = self;
        let topic = topic.as_str();
        tracing::info!(topic, objects, added_objects, missing_objects, "a source was listed again");
        if *missing_objects > 0 {
            let missing = missing.join(", ");
            tracing::warn!(
                topic,
                missing_objects,
                missing,
                uncounted = uncounted.join(", "),
                "objects that were listed before are gone"
            );
        }
    }

    /// Whether it is among those that are named.
    fn note_missing(&mut self, name: &str) -> bool {
        self.missing_objects += 1;
        let is_named = self.missing.len() < limits::LISTED_DAMAGES;
        if is_named {
            self.missing.push(name.to_owned());
        }
        is_named
    }
}

/// Offsets stand for what was listed: it has to be the same still.
fn check_unchanged(before: &Entry, now: &Entry) -> Result<(), ListError> {
    let is_same = match (&before.etag, &now.etag) {
        (Some(before), Some(now)) => before == now,
        // Of files there is none now, though manifests of earlier releases have one.
        _ => same_time(before.modified_ms, now.modified_ms),
    };
    if is_same && before.size == now.size {
        return Ok(());
    }
    let name = &before.name;
    Err(ListError(format!(
        "{name} was changed since it was listed; put it back, or create another topic"
    )))
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

/// The part of a manifest that an object is in.
fn chunk_of(ordinal: u64) -> u32 {
    u32::try_from(ordinal / limits::MANIFEST_CHUNK as u64).unwrap_or(u32::MAX)
}

/// A topic's manifest, of which some parts are in memory.
pub(super) struct Manifest {
    store: Arc<dyn Store>,
    topic: TopicId,
    prefix: String,
    listed: Mutex<Listed>,
    chunks: Mutex<Chunks>,
    /// One listing at a time.
    refreshing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Chunks {
    loaded: HashMap<u32, Arc<Vec<Entry>>>,
    order: VecDeque<u32>,
}

impl Chunks {
    /// A part was written again.
    fn forget(&mut self, number: u32) {
        self.loaded.remove(&number);
        self.order.retain(|loaded| *loaded != number);
    }
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
        Ok(Some(Self {
            store,
            topic,
            prefix: prefix.to_owned(),
            listed: Mutex::new(listed),
            chunks: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
        }))
    }

    /// How much it has.
    pub fn listed(&self) -> Listed {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lists the source again, and appends what is new in the order of names. What was listed before stays what it was: it is an error that
    /// names it if it was changed, and noted if it is gone; the ordinals of those that are named as missing are given as well.
    ///
    /// # Errors
    /// [`ListError`]: the manifest is as it was.
    pub async fn refresh(
        &self,
        location: &Location,
        config: &SourceConfig,
        roots: Option<&[PathBuf]>,
        now_ms: i64,
    ) -> Result<(Refreshed, Vec<u64>), ListError> {
        let _one_at_a_time = self.refreshing.lock().await;
        let failed = |error: StoreError| ListError(format!("the manifest: {error}"));
        let found = list(location, config, roots).await?;
        // What was an object for an earlier release may be known as an index file now.
        let indexes = found.iter().filter_map(|entry| Some(entry.index.as_ref()?.name.clone()));
        let indexes: HashSet<String> = indexes.collect();
        let mut new: BTreeMap<String, Entry> =
            found.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
        let before = self.listed();
        let chunk_objects = limits::MANIFEST_CHUNK as u64;
        let (mut refreshed, mut ordinals, mut last) =
            (Refreshed::default(), Vec::new(), Vec::new());
        for number in 0..before.objects.div_ceil(chunk_objects) {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            let chunk = self.chunk(number).await.map_err(failed)?;
            let left = before.objects - u64::from(number) * chunk_objects;
            let known = chunk.iter().take(usize::try_from(left).unwrap_or(usize::MAX));
            for (entry, ordinal) in known.clone().zip(u64::from(number) * chunk_objects..) {
                match new.remove(&entry.name) {
                    Some(found) => check_unchanged(entry, &found)?,
                    None if indexes.contains(&entry.name) => {}
                    None => ordinals.extend(refreshed.note_missing(&entry.name).then_some(ordinal)),
                }
            }
            last = known.cloned().collect();
        }
        refreshed.added_objects = new.len() as u64;
        refreshed.added_bytes = new.values().map(|entry| entry.size).sum();
        let listed = Listed {
            objects: before.objects + refreshed.added_objects,
            bytes: before.bytes + refreshed.added_bytes,
            listed_ms: now_ms,
        };
        if listed.objects > limits::OBJECTS as u64 {
            let most = limits::OBJECTS;
            return Err(ListError(format!("the topic would have more than {most} objects")));
        }
        // The last part, if it has room, is written again with what is appended.
        let full = before.objects / chunk_objects;
        let mut entries = if last.len() < limits::MANIFEST_CHUNK { last } else { Vec::new() };
        entries.extend(new.into_values());
        let first = u32::try_from(full).unwrap_or(u32::MAX);
        write(&*self.store, self.topic, &listed, first, &entries).await.map_err(failed)?;
        self.lock().forget(first);
        refreshed.objects = listed.objects;
        *self.listed.lock().unwrap_or_else(PoisonError::into_inner) = listed;
        Ok((refreshed, ordinals))
    }

    /// The object with that ordinal.
    ///
    /// # Errors
    /// [`StoreError`]; there has to be one.
    pub async fn object(&self, ordinal: u64) -> Result<Object, StoreError> {
        Ok(self.with_index(ordinal).await?.0)
    }

    /// The object with that ordinal, and the index file beside it, if it was listed with one.
    ///
    /// # Errors
    /// [`StoreError`]; there has to be such an object.
    pub async fn with_index(&self, ordinal: u64) -> Result<(Object, Option<Object>), StoreError> {
        let Entry { name, etag, size, modified_ms, index } = self.entry(ordinal).await?;
        let path = self.path(ordinal, &name)?;
        let object = Object { path, etag, size, modified_ms };
        let Some(Sidecar { name, etag, size, modified_ms }) = index else {
            return Ok((object, None));
        };
        let path = self.path(ordinal, &name)?;
        Ok((object, Some(Object { path, etag, size, modified_ms })))
    }

    async fn entry(&self, ordinal: u64) -> Result<Entry, StoreError> {
        let chunk = chunk_of(ordinal);
        let entries = self.chunk(chunk).await?;
        let at = usize::try_from(ordinal % limits::MANIFEST_CHUNK as u64).unwrap_or(usize::MAX);
        let missing = || damaged(&manifest_key(self.topic, chunk), "it is too short");
        entries.get(at).cloned().ok_or_else(missing)
    }

    /// Where what has that name below the prefix is.
    fn path(&self, ordinal: u64, name: &str) -> Result<Path, StoreError> {
        let parts = [self.prefix.as_str(), name];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let path = Path::parse(parts.join("/"));
        path.map_err(|error| damaged(&manifest_key(self.topic, chunk_of(ordinal)), error))
    }

    /// The ordinal of the object with that name, where the manifest is in the order of names: it is as it was listed first, and a refresh
    /// appends. `None` may mean that it is among what was appended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn named(&self, name: &str) -> Result<Option<u64>, StoreError> {
        let (mut from, mut to) = (0, self.listed().objects);
        while from < to {
            let middle = from + (to - from) / 2;
            let object = self.object(middle).await?;
            match self.name(&object).cmp(name) {
                Ordering::Less => from = middle + 1,
                Ordering::Equal => return Ok(Some(middle)),
                Ordering::Greater => to = middle,
            }
        }
        Ok(None)
    }

    /// The part of a path that is below the source's prefix.
    pub fn name<'a>(&self, object: &'a Object) -> &'a str {
        let path = object.path.as_ref();
        path.strip_prefix(&self.prefix).unwrap_or(path).trim_start_matches('/')
    }

    /// What is wrong with an object, which the error begins with, by its name.
    pub fn told(&self, error: &FetchError) -> String {
        let text = error.to_string();
        let below = text.strip_prefix(&self.prefix).and_then(|text| text.strip_prefix('/'));
        below.map_or_else(|| text.clone(), str::to_owned)
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

    fn lock(&self) -> MutexGuard<'_, Chunks> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What names a version of an object, however it is reached: two topics over one prefix share what is cached of it. What is made of Parquet's
/// rows, and of records that are too large, makes it another; and so does the index file by which it is counted.
pub(super) fn identity(config: &SourceConfig, object: &Object, index: Option<&Object>) -> u128 {
    let bucket = match &config.url {
        ObjectStoreUrl::S3 { bucket, .. } => format!("s3://{bucket}"),
        ObjectStoreUrl::File { dir } => dir.display().to_string(),
    };
    let reading = super::reading_of(config, object);
    let is_together = reading.as_ref().is_some_and(Reading::is_together);
    let rows_as = reading.and_then(|reading| reading.rows_as);
    let rows_as =
        rows_as.map(|RowsAs { rows, columns }| format!("\0{RENDERING}\0{rows:?}\0{columns:?}"));
    let Large { bytes, has_chunks } = config.large;
    let large = match config.large.is_default() {
        true => String::new(),
        false => format!("\0{bytes}\0{has_chunks}"),
    };
    let index = index.map_or_else(String::new, |index| {
        let Object { path, etag, size, modified_ms } = index;
        format!("\0{path}\0{}\0{size}\0{modified_ms}", etag.as_deref().unwrap_or(""))
    });
    let version = format!(
        "{bucket}\0{}\0{}\0{}\0{}\0{:?}{}{large}{index}",
        object.path,
        object.etag.as_deref().unwrap_or(""),
        object.size,
        object.modified_ms,
        config.format,
        rows_as.unwrap_or_default()
    );
    let id = xxhash_rust::xxh3::xxh3_128(version.as_bytes());
    if is_together { ExtentId::together(id) } else { id }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Entry, FetchError, Listed, Manifest, TopicId, check_unchanged, write};
    use crate::store::MemoryStore;

    /// They were named with it in S3, and without in files.
    #[tokio::test]
    async fn objects_are_named_by_what_they_are_below_the_prefix() {
        let (store, topic) = (Arc::new(MemoryStore::new()), TopicId::random());
        write(&*store, topic, &Listed::default(), 0, &[]).await.expect("a store");
        let manifest = Manifest::open(store, topic, "data/train").await.expect("a store");
        let manifest = manifest.expect("it was written");
        let check = |path: &str, name: &str| {
            let told = manifest.told(&FetchError::Gone(path.to_owned()));
            assert!(told.starts_with(&format!("{name} is gone")), "{told}");
        };
        check("data/train/a/b.tar", "a/b.tar");
        check("data/trainer/a.tar", "data/trainer/a.tar");
    }

    /// Files were listed with ETags that have their inodes, and are not any more.
    #[test]
    fn what_was_listed_with_an_etag_and_has_none_now_is_compared_by_size_and_time() {
        let entry = |etag: Option<&str>, size, modified_ms| Entry {
            name: "a.tar".to_owned(),
            etag: etag.map(str::to_owned),
            size,
            modified_ms,
            index: None,
        };
        let before = entry(Some("1-2-3"), 10, 5_250);
        assert!(check_unchanged(&before, &entry(None, 10, 5_250)).is_ok());
        assert!(check_unchanged(&before, &entry(None, 10, 5_000)).is_ok(), "whole seconds");
        assert!(check_unchanged(&before, &entry(None, 10, 5_251)).is_err());
        assert!(check_unchanged(&before, &entry(None, 11, 5_250)).is_err());
        assert!(check_unchanged(&before, &entry(Some("4"), 10, 5_250)).is_err());
    }
}
