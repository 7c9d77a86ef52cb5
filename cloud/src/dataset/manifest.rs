//! What a source holds: its objects, in the order in which they were listed.
//!
//! **Invariant:** an object's ordinal never changes. A refresh appends.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt as _};
use robustmq_common::ids::{KafkaTopic, TopicId};
use robustmq_common::limits::dataset as limits;
use robustmq_dataset::fetch::Object;
use robustmq_dataset::format::detect::{detect, is_sidecar, may_be};
use robustmq_dataset::format::parquet::{RENDERING, RowsAs};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::objects::{Location, ObjectStoreUrl, told};
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
async fn list(
    location: &Location,
    config: &SourceConfig,
    roots: Option<&[PathBuf]>,
) -> Result<Vec<Entry>, ListError> {
    let url = &config.url;
    let prefix = (!location.path.is_empty()).then(|| Path::from(location.path.as_str()));
    let mut listing = location.objects.list(prefix.as_ref());
    let (mut entries, mut seen) = (Vec::new(), 0_u64);
    while let Some(meta) = listing.try_next().await.map_err(|error| refused(url, &error))? {
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
    if entries.is_empty() && seen == 0 {
        return Err(nothing_at(location, url).await);
    }
    if entries.is_empty() {
        return Err(ListError(format!(
            "none of the {seen} objects at {url} is taken: see robustmq.source.include and exclude"
        )));
    }
    let mut entries = without_folders(entries);
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    match (&config.url, roots) {
        (ObjectStoreUrl::File { dir }, Some(roots)) => {
            let (dir, roots) = (dir.clone(), roots.to_vec());
            let checked = spawn_blocking(move || check_links(&dir, &roots, entries)).await;
            checked.map_err(|error| ListError(format!("{url}: {error}")))?
        }
        _ => Ok(entries),
    }
}

/// Why nothing is there: it may be an object itself, which lies under no prefix.
async fn nothing_at(location: &Location, url: &ObjectStoreUrl) -> ListError {
    let (what, name) = match url {
        ObjectStoreUrl::File { dir } => {
            let is_file = tokio::fs::metadata(dir).await.is_ok_and(|found| found.is_file());
            let name = dir.file_name().map(|name| name.to_string_lossy().into_owned());
            ("a file: name the directory that it is in", name.filter(|_| is_file))
        }
        ObjectStoreUrl::S3 { prefix, .. } => {
            let is_object = location.objects.head(&Path::from(prefix.as_str())).await.is_ok();
            let name = prefix.rsplit('/').next().filter(|name| !name.is_empty() && is_object);
            ("an object: name the prefix before it", name.map(str::to_owned))
        }
    };
    ListError(match name {
        Some(name) => {
            format!("{url} is {what}, and robustmq.source.include={name} to take it alone")
        }
        None => format!("{url} has no objects"),
    })
}

/// A format that is set is to be that of some object at least, as far as names tell: otherwise all of them would be damaged.
fn check_format(config: &SourceConfig, entries: &[Entry]) -> Result<(), ListError> {
    let Some(format) = config.format else { return Ok(()) };
    if entries.iter().any(|entry| may_be(format, &entry.name)) {
        return Ok(());
    }
    let first = entries.first().map_or("", |entry| entry.name.as_str());
    let named = detect(first, &[]).map_or("something else", |(format, _)| format.name());
    Err(ListError(format!(
        "robustmq.source.format={} fits none of the {} objects at {}: by their names they are something else (the first, {first}, is \
         {named})",
        format.name(),
        entries.len(),
        config.url
    )))
}

/// Why a source cannot be listed, in words for people.
fn refused(url: &ObjectStoreUrl, error: &object_store::Error) -> ListError {
    use object_store::Error;
    let text = told(error);
    // `object_store` has no kinds of errors for listings in S3: the status stands in the text.
    let says = |status: &str| text.contains(&format!("status code: {status}"));
    let why = match error {
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => NOT_ALLOWED,
        _ if says("403") || says("401") => NOT_ALLOWED,
        Error::NotFound { .. } => NOT_THERE,
        _ if says("404") => NOT_THERE,
        _ => "it cannot be listed",
    };
    ListError(format!("{url}: {why} ({text})"))
}

const NOT_ALLOWED: &str = "it may not be listed: check the credentials, and that they grant s3:ListBucket and s3:GetObject";
const NOT_THERE: &str = "there is no such bucket or directory";

/// Leaves out what only makes a folder be seen: consoles and file browsers put an empty object for it, with a slash at the end of its key
/// that a listing does not show us.
fn without_folders(mut entries: Vec<Entry>) -> Vec<Entry> {
    let empty = entries.iter().filter(|entry| entry.size == 0).map(|entry| entry.name.clone());
    let empty: HashSet<String> = empty.collect();
    let above = |name: &str| {
        let folders = name.match_indices('/').filter_map(|(end, _)| name.get(..end));
        folders.filter_map(|folder| empty.get(folder)).cloned().collect::<Vec<_>>()
    };
    let folders: HashSet<String> = match empty.is_empty() {
        true => return entries,
        false => entries.iter().flat_map(|entry| above(&entry.name)).collect(),
    };
    entries.retain(|entry| !folders.contains(&entry.name));
    entries
}

/// Links are followed, but not out of the directories that may become topics.
fn check_links(
    dir: &std::path::Path,
    roots: &[PathBuf],
    entries: Vec<Entry>,
) -> Result<Vec<Entry>, ListError> {
    let roots: Vec<PathBuf> = roots.iter().filter_map(|root| root.canonicalize().ok()).collect();
    for Entry { name, .. } in &entries {
        let real = dir.join(name).canonicalize();
        let real = real.map_err(|error| ListError(format!("{name} cannot be read: {error}")))?;
        if !roots.iter().any(|root| real.starts_with(root)) {
            return Err(ListError(format!(
                "{name} is a link out of the directories that [dataset] file_roots allows"
            )));
        }
    }
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
}

impl Refreshed {
    /// Says what was found, and which objects are not there any more.
    pub(super) fn log(&self, topic: &KafkaTopic) {
        let Self { objects, added_objects, missing_objects, missing, .. } = self;
        let topic = topic.as_str();
        tracing::info!(topic, objects, added_objects, missing_objects, "a source was listed again");
        if *missing_objects > 0 {
            let missing = missing.join(", ");
            tracing::warn!(
                topic,
                missing_objects,
                missing,
                "objects that were listed before are gone"
            );
        }
    }

    fn note_missing(&mut self, name: &str) {
        self.missing_objects += 1;
        if self.missing.len() < limits::LISTED_DAMAGES {
            self.missing.push(name.to_owned());
        }
    }
}

/// Offsets stand for what was listed: it has to be the same still.
fn check_unchanged(before: &Entry, now: &Entry) -> Result<(), ListError> {
    let is_same = match (&before.etag, &now.etag) {
        (Some(before), Some(now)) => before == now,
        _ => before.modified_ms == now.modified_ms,
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
    /// names it if it was changed, and noted if it is gone.
    ///
    /// # Errors
    /// [`ListError`]: the manifest is as it was.
    pub async fn refresh(
        &self,
        location: &Location,
        config: &SourceConfig,
        roots: Option<&[PathBuf]>,
        now_ms: i64,
    ) -> Result<Refreshed, ListError> {
        let _one_at_a_time = self.refreshing.lock().await;
        let failed = |error: StoreError| ListError(format!("the manifest: {error}"));
        let found = list(location, config, roots).await?;
        let mut new: BTreeMap<String, Entry> =
            found.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
        let before = self.listed();
        let chunk_objects = limits::MANIFEST_CHUNK as u64;
        let (mut refreshed, mut last) = (Refreshed::default(), Vec::new());
        for number in 0..before.objects.div_ceil(chunk_objects) {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            let chunk = self.chunk(number).await.map_err(failed)?;
            let left = before.objects - u64::from(number) * chunk_objects;
            let known = chunk.iter().take(usize::try_from(left).unwrap_or(usize::MAX));
            for entry in known.clone() {
                match new.remove(&entry.name) {
                    Some(found) => check_unchanged(entry, &found)?,
                    None => refreshed.note_missing(&entry.name),
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
        Ok(refreshed)
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
/// rows makes it another.
pub(super) fn identity(config: &SourceConfig, object: &Object) -> u128 {
    let bucket = match &config.url {
        ObjectStoreUrl::S3 { bucket, .. } => format!("s3://{bucket}"),
        ObjectStoreUrl::File { dir } => dir.display().to_string(),
    };
    let reading = super::reading_of(config, object);
    let rows_as = reading.and_then(|reading| reading.rows_as);
    let rows_as =
        rows_as.map(|RowsAs { rows, columns }| format!("\0{RENDERING}\0{rows:?}\0{columns:?}"));
    let version = format!(
        "{bucket}\0{}\0{}\0{}\0{}\0{:?}{}",
        object.path,
        object.etag.as_deref().unwrap_or(""),
        object.size,
        object.modified_ms,
        config.format,
        rows_as.unwrap_or_default()
    );
    xxhash_rust::xxh3::xxh3_128(version.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::{Entry, ObjectStoreUrl, check_links, refused, without_folders};

    fn entry(name: &str, size: u64) -> Entry {
        Entry { name: name.to_owned(), etag: None, size, modified_ms: 0 }
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
    }
}
