//! Dataset topics: what lies under a prefix of an object store, as records with offsets.
//!
//! Roles: `listing` (of a source), `manifest` (which objects there are, in which order), `changes` (of a topic's configuration), `group` (what is known of objects, shared by topics with one source),
//! `partition` (offsets, as far as they are counted), `counting` (finds out what objects hold, a little ahead of readers), `growing` (takes over what is found), `left_out` (objects that are gone before they were counted), `reading` (offsets to
//! record batches), `find` (keys to offsets), `fit` (whether the cache holds what is needed at once), `ahead` (fetches what readers will want next), `readers` (who reads where), `batch` (records as
//! Kafka has them), `lost` (those that are not there any more), `troubles` (why one does not go on), `refreshing` (listing a source again). How objects
//! are read, cached and ordered is in the crate `robustmq-dataset`; that a partition's records come from here is known to the log only by
//! the seam [`Source`].
//!
//! **Invariant:** creating a topic lists its source once and moves no data. An object's ordinal, and so its partition, never changes.
//! **Invariant:** an offset stands for the same record for ever; an object that was changed is an error that names it.
//! **Invariant:** an object is downloaded once for all topics and readers that go through it together: who indexes it puts what it reads
//! into the cache, and others wait for their turn.
//!
//! Deliberately absent: writes. What a topic's source holds is never changed, nor deleted with the topic.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use object_store::local::LocalFileSystem;
use robustmq_common::ids::{Offset, PartitionIndex, TopicId};
use robustmq_common::limits::dataset as limits;
use robustmq_dataset::cache::{Cache, Tier};
use robustmq_dataset::fetch::{Object, ObjectSource, Source as ByteSource};
use robustmq_dataset::format::detect::detect;
use robustmq_dataset::format::{Coding, Format};
use robustmq_dataset::index::{Between, Reading, extent_id};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::active::Active;
use self::group::Group;
use self::manifest::Manifest;
use self::partition::{Dataset, DatasetPartition, PartitionError};
use self::troubles::Troubles;
use crate::log::{Source, Sources};
use crate::objects::{Location, ObjectStoreUrl, locate_source};
use crate::store::keys::dataset::{
    FAMILIES_OF_GROUPS, of_group, parse_dataset_key, ranges_of_topic,
};
use crate::store::keys::{Family, damaged};
use crate::store::{self, ScanLimit, Store, StoreError, WriteBatch};
use crate::topics::{Catalogue, SourceConfig};

mod active;
mod ahead;
mod batch;
mod caches;
mod changes;
mod counting;
mod find;
mod fit;
mod group;
mod growing;
mod left_out;
mod listing;
mod lost;
mod manifest;
mod metrics;
mod partition;
mod readers;
mod reading;
mod refreshing;
mod sidecars;
mod status;
mod troubles;
mod warm;

pub use caches::{Caches, NewCaches, NoBudget, ShownCaches};
pub use find::{Cursor, FindError, FoundKeys, Match, Wanted};
pub use listing::ListError;
pub use manifest::{Listed, Refreshed};
pub use metrics::{CacheMetrics, TroubleMetrics};
pub use partition::Warming;
pub use refreshing::Refreshing;
pub use status::{Damaged, Status, StatusError};

/// All dataset topics.
pub struct Datasets {
    store: Arc<dyn Store>,
    topics: Weak<Catalogue>,
    cache: Arc<Cache>,
    between: Between,
    /// Directories whose files may become topics; `None` for all.
    file_roots: Option<Vec<PathBuf>>,
    cancel: CancellationToken,
    active: Arc<Active>,
    troubles: Arc<Troubles>,
    /// Turns to search for a key.
    searches: Semaphore,
    /// Changes of topics are followed one after the other.
    following: tokio::sync::Mutex<()>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Topics that have a manifest.
    topics: HashSet<TopicId>,
    datasets: HashMap<TopicId, Weak<Dataset>>,
    partitions: HashMap<(TopicId, PartitionIndex), Weak<DatasetPartition>>,
    groups: HashMap<u128, Weak<Group>>,
    /// Partitions of topics that are counted though nobody reads them.
    kept: HashMap<TopicId, Vec<Arc<DatasetPartition>>>,
    /// How far topics are brought into the cache, where that was asked for since the start.
    warming: HashMap<TopicId, Arc<Mutex<Warming>>>,
    /// The last listing of each source, where there was one since the start.
    refreshing: HashMap<TopicId, Refreshing>,
}

/// A partition as the log knows it.
struct Attached(Arc<DatasetPartition>);

/// How an object is read; `None` where it is one record as a whole.
fn reading_of(config: &SourceConfig, object: &Object) -> Option<Reading> {
    let detected = detect(object.path.as_ref(), &[]);
    let (format, coding) = match (config.format, detected) {
        (None, None) | (Some(Format::Object), _) => return None,
        (None, Some(detected)) => detected,
        // What compresses it is within.
        (Some(Format::Parquet), _) => (Format::Parquet, Coding::Plain),
        (Some(format), detected) => (format, detected.map_or(Coding::Plain, |(_, coding)| coding)),
    };
    let rows_as = (format == Format::Parquet).then(|| config.rows_as.clone());
    (format != Format::Object).then_some(Reading { format, coding, rows_as, large: config.large })
}

/// What topics with the same source have in common.
fn group_key(config: &SourceConfig) -> u128 {
    let text = format!("{}\0{:?}", config.url, config.format);
    xxhash_rust::xxh3::xxh3_128(text.as_bytes())
}

impl Datasets {
    /// The dataset topics of a store. Removes what topics have left that were deleted, or never came to be.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn start(
        store: Arc<dyn Store>,
        topics: &Arc<Catalogue>,
        cache: Arc<Cache>,
        file_roots: Option<Vec<PathBuf>>,
        cancel: CancellationToken,
    ) -> Result<Arc<Self>, StoreError> {
        let (mut found, mut groups, mut eager) = (HashSet::new(), HashSet::new(), Vec::new());
        let mut write = WriteBatch::new();
        let mut range = Family::Dataset.range();
        while !range.is_empty() {
            let page = store.scan(range.clone(), ScanLimit::items(1000)).await?;
            for (key, _) in &page.items {
                let id = parse_dataset_key(key).map_err(|error| damaged(key, error))?;
                let topic = topics.get_by_id(id).await?;
                match topic.as_ref().and_then(|topic| topic.config.source.as_ref()) {
                    Some(config) => {
                        changes::take_over_cache(&cache, id, config.live);
                        found.insert(id);
                        eager.extend(config.live.is_eager.then_some(id));
                        groups.insert(group_key(config));
                    }
                    None => {
                        for gone in ranges_of_topic(id) {
                            write.delete_range(gone);
                        }
                    }
                }
            }
            range.start = page.resume.unwrap_or_else(|| range.end.clone());
        }
        for family in FAMILIES_OF_GROUPS {
            remove_groups(&*store, family, &groups, &mut write).await?;
        }
        if !write.is_empty() {
            store::write(&*store, write).await?;
        }
        let inner = Mutex::new(Inner { topics: found, ..Inner::default() });
        let topics = Arc::downgrade(topics);
        let between = Between::new(&cache);
        let this = Arc::new(Self {
            store,
            topics,
            cache,
            between,
            file_roots,
            cancel,
            active: Arc::default(),
            troubles: Arc::default(),
            searches: Semaphore::new(limits::FIND_SEARCHES),
            following: tokio::sync::Mutex::default(),
            inner,
        });
        let counted = Arc::clone(&this);
        tokio::spawn(async move {
            for topic in eager {
                counted.follow(topic).await;
            }
        });
        Ok(this)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists the source of a topic that is about to be created.
    ///
    /// # Errors
    /// [`ListError`] for whoever creates it.
    pub async fn create(
        &self,
        topic: TopicId,
        config: &SourceConfig,
        now_ms: i64,
    ) -> Result<Listed, ListError> {
        if let ObjectStoreUrl::File { dir } = &config.url {
            self.check_root(dir)?;
        }
        let location = locate_source(&config.url)
            .map_err(|reason| ListError(format!("{}: {reason}", config.url)))?;
        let roots = self.file_roots.as_deref();
        let listed =
            manifest::create(&*self.store, topic, &location, config, roots, now_ms).await?;
        self.lock().topics.insert(topic);
        changes::take_over_cache(&self.cache, topic, config.live);
        Ok(listed)
    }

    fn check_root(&self, dir: &Path) -> Result<(), ListError> {
        let Some(roots) = &self.file_roots else { return Ok(()) };
        // Links are followed: what counts is where the files are.
        let real = dir.canonicalize();
        let real = real.map_err(|error| ListError(format!("file://{}: {error}", dir.display())))?;
        let is_below =
            |root: &PathBuf| root.canonicalize().is_ok_and(|root| real.starts_with(root));
        if roots.iter().any(is_below) {
            return Ok(());
        }
        Err(ListError(format!(
            "file://{} is in none of the directories that [dataset] file_roots allows",
            dir.display()
        )))
    }

    /// What the cache may take of memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.cache.memory_bytes()
    }

    /// What extents take of memory.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        usize::try_from(self.cache.held_bytes().0).unwrap_or(usize::MAX)
    }

    /// What decompressing and rendering take of memory: decoders and what they work on, row groups and footers of Parquet.
    #[must_use]
    pub fn decoding_bytes(&self) -> usize {
        self.between.groups.footers_bytes() + self.cache.working_bytes()
    }

    /// What of that takes no room from the cache's.
    fn decoding_bytes_beside(&self) -> usize {
        self.between.groups.footers_bytes() + self.cache.working_bytes_beside()
    }

    /// Returns when decompressing and rendering take much more than before. For one who waits.
    async fn is_decoding_much_more(&self) {
        self.cache.is_much_more_worked_in().await;
    }

    /// Row groups of Parquet may take a part of so much memory from now on.
    fn set_decoding_bytes(&self, bytes: usize) {
        self.between.groups.set_memory_bytes(bytes);
    }

    /// What the cache may take of memory from now on.
    pub fn set_memory_bytes(&self, bytes: usize) {
        self.cache.set_memory_bytes(bytes);
    }

    /// The topic was not created after all, or is deleted.
    ///
    /// # Errors
    /// [`StoreError`]: its manifest goes at the next start.
    pub async fn forget(&self, topic: TopicId) -> Result<(), StoreError> {
        let (_kept, open) = {
            let mut inner = self.lock();
            inner.topics.remove(&topic);
            inner.refreshing.remove(&topic);
            inner.warming.remove(&topic);
            // They end outside of the lock.
            (inner.kept.remove(&topic), inner.datasets.remove(&topic))
        };
        // What is being counted or brought into the cache is not gone on with.
        if let Some(open) = open.and_then(|open| open.upgrade()) {
            open.cancel.cancel();
        }
        self.cache.forget(changes::user(topic));
        self.troubles.forget(topic);
        let mut write = WriteBatch::new();
        for range in ranges_of_topic(topic) {
            write.delete_range(range);
        }
        store::write(&*self.store, write).await
    }

    /// Those that are open now.
    fn open_partition(&self, id: (TopicId, PartitionIndex)) -> Option<Arc<DatasetPartition>> {
        self.lock().partitions.get(&id).and_then(Weak::upgrade)
    }

    async fn partition(
        &self,
        topic: TopicId,
        partition: PartitionIndex,
    ) -> Result<Option<Arc<DatasetPartition>>, StoreError> {
        if let Some(open) = self.open_partition((topic, partition)) {
            return Ok(Some(open));
        }
        let Some(dataset) = self.dataset(topic).await? else { return Ok(None) };
        let opened = DatasetPartition::open(dataset, partition).await?;
        let mut inner = self.lock();
        inner.partitions.retain(|_, partition| partition.strong_count() > 0);
        // Who came first stays.
        if let Some(open) = inner.partitions.get(&(topic, partition)).and_then(Weak::upgrade) {
            return Ok(Some(open));
        }
        inner.partitions.insert((topic, partition), Arc::downgrade(&opened));
        Ok(Some(opened))
    }

    async fn dataset(&self, topic: TopicId) -> Result<Option<Arc<Dataset>>, StoreError> {
        {
            let inner = self.lock();
            if !inner.topics.contains(&topic) {
                return Ok(None);
            }
            if let Some(open) = inner.datasets.get(&topic).and_then(Weak::upgrade) {
                return Ok(Some(open));
            }
        }
        let Some(topics) = self.topics.upgrade() else { return Err(StoreError::Closed) };
        let Some(found) = topics.get_by_id(topic).await? else { return Ok(None) };
        let Some(config) = found.config.source.clone() else { return Ok(None) };
        let location = locate_source(&config.url)
            .map_err(|reason| StoreError::Read(format!("{}: {reason}", config.url)))?;
        let manifest = Manifest::open(self.store.clone(), topic, &location.path).await?;
        let Some(manifest) = manifest else { return Ok(None) };
        let mut inner = self.lock();
        if !inner.topics.contains(&topic) {
            // It was deleted meanwhile: nothing would end what begins now.
            return Ok(None);
        }
        inner.groups.retain(|_, group| group.strong_count() > 0);
        inner.datasets.retain(|_, dataset| dataset.strong_count() > 0);
        let key = group_key(&config);
        let group = inner.groups.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
            let group =
                Arc::new(Group::new(key, source(&config.url, &location), self.store.clone()));
            inner.groups.insert(key, Arc::downgrade(&group));
            group
        });
        if let Some(open) = inner.datasets.get(&topic).and_then(Weak::upgrade) {
            return Ok(Some(open));
        }
        let dataset = Arc::new(Dataset {
            topic,
            name: found.name.clone(),
            live: Mutex::new(config.live),
            config,
            partitions: u64::from(found.partitions.max(1).cast_unsigned()),
            manifest,
            group,
            cache: Arc::clone(&self.cache),
            between: self.between.clone(),
            store: Arc::clone(&self.store),
            cancel: self.cancel.child_token(),
            warming: inner.warming.get(&topic).map(Arc::clone).unwrap_or_default(),
            active: Arc::clone(&self.active),
            troubles: Arc::clone(&self.troubles),
        });
        inner.datasets.insert(topic, Arc::downgrade(&dataset));
        Ok(Some(dataset))
    }
}

fn source(url: &ObjectStoreUrl, location: &Location) -> Arc<dyn ByteSource> {
    let files = match url {
        ObjectStoreUrl::File { dir } => LocalFileSystem::new_with_prefix(dir).ok(),
        ObjectStoreUrl::S3 { .. } => None,
    };
    Arc::new(match files {
        Some(files) => ObjectSource::of_files(files),
        None => ObjectSource::new(Arc::clone(&location.objects)),
    })
}

/// Has all keys of a family deleted whose groups no topic belongs to.
async fn remove_groups(
    store: &dyn Store,
    family: Family,
    groups: &HashSet<u128>,
    write: &mut WriteBatch,
) -> Result<(), StoreError> {
    let mut range = family.range();
    loop {
        let page = store.scan(range.clone(), ScanLimit::items(1)).await?;
        let Some((key, _)) = page.items.first() else { return Ok(()) };
        let group =
            key.get(1..17).and_then(|bytes| Some(u128::from_be_bytes(bytes.try_into().ok()?)));
        let group = group.ok_or_else(|| damaged(key, "it is too short"))?;
        let all = of_group(family, group);
        range.start = all.end.clone();
        if !groups.contains(&group) {
            write.delete_range(all);
        }
    }
}

#[async_trait]
impl Sources for Datasets {
    async fn open(
        &self,
        topic: TopicId,
        partition: PartitionIndex,
    ) -> Result<Option<Arc<dyn Source>>, StoreError> {
        let opened = self.partition(topic, partition).await?;
        Ok(opened.map(|opened| Arc::new(Attached(opened)) as Arc<dyn Source>))
    }

    fn changed(self: Arc<Self>, topic: TopicId) {
        if self.lock().topics.contains(&topic) {
            tokio::spawn(async move { self.follow(topic).await });
        }
    }
}

impl DatasetPartition {
    /// Whether what a read from `offset` on begins with is in memory; `None` where nothing is there yet.
    fn is_at_hand(&self, offset: i64) -> Option<bool> {
        let place = self.state().find(offset)?;
        let opened = self.state().at_hand(place.object);
        let Some((id, index)) = opened else { return Some(false) };
        let (_, extent) = index.extent_of(place.record)?;
        // What is lost is not loaded.
        let is_lost = index.is_lost(place.record);
        Some(is_lost || self.dataset.cache.contains(extent_id(id, &extent)) == Some(Tier::Memory))
    }

    /// The first record whose object was changed at `timestamp_ms` or later; for the latest time the first of the object that was changed
    /// last.
    async fn offset_for_time(
        &self,
        timestamp_ms: i64,
    ) -> Result<Option<(Offset, i64)>, StoreError> {
        let mut best: Option<(Offset, i64)> = None;
        let mut at = 0;
        loop {
            let found = self.state().find(at);
            let Some(place) = found else { return Ok(best) };
            if place.epoch > 0 {
                return Ok(best);
            }
            let (object, _) = self.object(place.object).await?;
            if timestamp_ms == i64::MAX {
                if best.is_none_or(|(_, latest)| object.modified_ms > latest) {
                    best = Some((Offset(at), object.modified_ms));
                }
            } else if object.modified_ms >= timestamp_ms {
                return Ok(Some((Offset(at), object.modified_ms)));
            }
            at = at.saturating_add_unsigned(place.run);
        }
    }
}

impl From<PartitionError> for StoreError {
    fn from(error: PartitionError) -> Self {
        match error {
            PartitionError::Store(error) => error,
            error => Self::Read(error.to_string()),
        }
    }
}
