//! The composition root: puts store, log, catalogue, groups and listeners together. The store's engine comes from outside.
//!
//! **Invariant:** `serve` and `check-config` both go through [`check`], so that neither takes what the other refuses.
//! **Invariant:** nothing listens before the store has been read; the `ready` line comes after every listener is up.
//! **Invariant:** at shutdown the listeners drain first, then the groups; then the log writes what it holds in memory, and the store
//! is closed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use rand::RngExt as _;
use robustmq_common::admin::Readiness;
use robustmq_common::config::Invalid;
use robustmq_common::ids::CloudGeneration;
use robustmq_common::limits;
use robustmq_common::net::{Exposure, StartError, bind, server_tls};
use robustmq_common::telemetry::LogLevel;
use robustmq_dataset::cache::{Cache, CacheSettings, SsdSettings};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::dataset::{CacheMetrics, Caches, Datasets};
use crate::group::coordinator::Coordinator;
use crate::group::shared::coordinator::SharedGroups;
use crate::kafka::memory::Budget;
use crate::kafka::{self, Kafka, KafkaSettings};
use crate::log::{Log, PartitionQueue, ProducerIds};
use crate::metrics::{Metrics, ProcessMetrics, StoreMetrics, TierMetrics};
use crate::objects::{ObjectStoreUrl, check_environment};
use crate::settings::Settings;
use crate::store::keys::system::StoreIdentity;
use crate::store::{Store, StoreError};
use crate::topics::Catalogue;
use crate::traffic::{Busiest, Sharing, Traffic};
use crate::uplink::{self, Admission, Ingest, IngestSettings, Tokens, UplinkMetrics};

mod archive_reads;
mod archiver;
mod archiving;
mod cleaner;
mod dead_letters;
mod housekeeping;
mod ingest_log;
#[cfg(test)]
pub(crate) mod kept_log;
mod names;
mod upkeep;

use archive_reads::ArchiveReads;
use archiver::Archiver;
use archiving::Archiving;
use cleaner::Cleaner;
use dead_letters::LetterTopics;
use upkeep::Upkeeper;

/// A running broker.
pub struct Broker {
    /// Where Kafka clients connect to.
    pub kafka: SocketAddr,
    /// Where edges connect to.
    pub uplink: SocketAddr,
    /// Where status and metrics are.
    pub admin: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
    groups: Coordinator,
    log: Arc<Log>,
    /// Outlives the listeners: who waits for a write-behind is answered.
    write_behind: JoinHandle<()>,
    cache: Arc<Cache>,
    store: Arc<dyn Store>,
}

struct Listeners {
    kafka: (TcpListener, SocketAddr),
    uplink: (TcpListener, SocketAddr),
    admin: (TcpListener, SocketAddr),
}

fn failed(what: &str) -> impl Fn(StoreError) -> StartError + '_ {
    move |error| StartError::Failed(format!("{what}: {error}"))
}

/// Opens the store: on the object store that is named, or in the data directory. Creates it at the first start.
///
/// # Errors
/// [`StartError::Failed`]: another process has it open, it is damaged, the directory cannot be written, or the object store does
/// not answer.
pub async fn open_store(settings: &Settings) -> Result<Arc<dyn Store>, StartError> {
    match &settings.cluster.object_store {
        Some(url) => open_object_store(settings, url).await,
        None => open_local_store(settings).await,
    }
}

/// Where under `[cluster] object_store` the store lies; the archive of `tiered` topics is beside it.
#[cfg(feature = "slatedb")]
const STORE_PATH: &str = "store";

#[cfg(feature = "slatedb")]
async fn open_object_store(
    settings: &Settings,
    url: &ObjectStoreUrl,
) -> Result<Arc<dyn Store>, StartError> {
    use crate::objects::Location;
    use crate::store::slate::{SlateSettings, SlateStore};

    let failed = |error: StoreError| StartError::Failed(format!("[cluster] object_store: {error}"));
    let unusable = |reason| failed(StoreError::Open { path: url.to_string(), reason });
    let Location { objects, path } =
        crate::objects::locate(url, STORE_PATH, limits::object::READ).map_err(unusable)?;
    let flush_interval = Duration::from_millis(settings.cluster.flush_interval_ms);
    let slate = SlateSettings { flush_interval, ..SlateSettings::default() };
    let store = SlateStore::open(objects, &path, &url.to_string(), &slate).await;
    Ok(Arc::new(store.map_err(failed)?))
}

#[cfg(not(feature = "slatedb"))]
async fn open_object_store(_: &Settings, _: &ObjectStoreUrl) -> Result<Arc<dyn Store>, StartError> {
    Err(StartError::Failed(format!("[cluster] object_store: {WITHOUT_SLATEDB}")))
}

#[cfg(not(feature = "slatedb"))]
const WITHOUT_SLATEDB: &str = "this binary was built without the slatedb feature";

#[cfg(feature = "rocksdb")]
async fn open_local_store(settings: &Settings) -> Result<Arc<dyn Store>, StartError> {
    use crate::store::{SegmentSettings, SegmentStore};

    let directory = settings.store_dir();
    let segments = SegmentSettings {
        segment_bytes: settings.storage.segment_bytes,
        dead_bytes: settings.storage.dead_bytes,
        ..SegmentSettings::default()
    };
    // Opening replays what was written last, and blocks meanwhile.
    let open = move || SegmentStore::open(&directory, &segments);
    let opened = tokio::task::spawn_blocking(open).await;
    let opened = opened.map_err(|error| StartError::Failed(error.to_string()))?;
    let store = opened.map_err(|error| not_opened(settings, &error))?;
    match store.stats().hardware_crc32c {
        Some(true) => tracing::info!("the store computes checksums in hardware"),
        Some(false) => tracing::warn!(
            "the store computes checksums in software, which costs much CPU: build for a CPU with SSE4.2 and PCLMULQDQ \
             (arm64: CRC and AES)"
        ),
        None => tracing::warn!("the store did not say whether it computes checksums in hardware"),
    }
    Ok(Arc::new(store))
}

#[cfg(not(feature = "rocksdb"))]
async fn open_local_store(settings: &Settings) -> Result<Arc<dyn Store>, StartError> {
    Err(not_opened(
        settings,
        &"this binary was built without the rocksdb feature; [cluster] object_store works without it",
    ))
}

/// Names the key that a person has to look at.
fn not_opened(settings: &Settings, reason: &dyn std::fmt::Display) -> StartError {
    StartError::Failed(format!("data_dir {:?}: {reason}", settings.data_dir))
}

/// Whether a broker with these settings would start, as far as they, the files that they name, the environment and this machine tell.
///
/// # Errors
/// [`Invalid`] names the setting, and the file that is not usable.
pub fn check(settings: &Settings) -> Result<(), Invalid> {
    if let Some(url) = &settings.cluster.object_store {
        check_object_store(url).map_err(|why| Invalid::new("cluster.object_store", why))?;
    }
    if let Some(url) = &settings.tier.object_store {
        check_environment(url).map_err(|why| Invalid::new("tier.object_store", why))?;
    }
    settings.cache.check_machine(&settings.data_dir)?;
    uplink_tls(settings).map(drop)
}

#[cfg(feature = "slatedb")]
fn check_object_store(url: &ObjectStoreUrl) -> Result<(), String> {
    check_environment(url)
}

#[cfg(not(feature = "slatedb"))]
fn check_object_store(_: &ObjectStoreUrl) -> Result<(), String> {
    Err(WITHOUT_SLATEDB.to_owned())
}

fn uplink_tls(settings: &Settings) -> Result<Option<Arc<ServerConfig>>, Invalid> {
    let (Some(certificate), Some(key)) = (&settings.uplink.tls_cert, &settings.uplink.tls_key)
    else {
        return Ok(None);
    };
    let tls = server_tls(certificate, key, &[b"h2", b"http/1.1"]);
    tls.map(Some).map_err(|error| {
        let at_fault = match &error {
            StartError::Refused { key: file, .. } if *file == key.display().to_string() => {
                "uplink.tls_key"
            }
            _ => "uplink.tls_cert",
        };
        // The reason names the file.
        Invalid::new(at_fault, error.to_string())
    })
}

/// Starts a broker over an open store. It runs until `shutdown`; await [`Broker::stopped`] then.
///
/// # Errors
/// [`StartError`]: a certificate that is not usable, an address that cannot be listened on, a store that cannot be read.
pub async fn start(
    settings: &Settings,
    store: Arc<dyn Store>,
    log_level: LogLevel,
    shutdown: CancellationToken,
) -> Result<Broker, StartError> {
    let tls = uplink_tls(settings)?;
    let listeners = listen(settings).await?;
    let (kafka_address, uplink_address, admin_address) =
        (listeners.kafka.1, listeners.uplink.1, listeners.admin.1);
    let mut parts = Parts::build(settings, store, kafka_address, shutdown.clone()).await?;

    let (archive, datasets) =
        (parts.kafka.log.archive().cloned(), Arc::clone(&parts.kafka.datasets));
    let caches = Caches::new(settings.cache.memory_bytes, archive, datasets);
    let admin_state = admin::State {
        topics: parts.kafka.topics.clone(),
        groups: parts.kafka.groups.clone(),
        store: parts.store.clone(),
        log: parts.kafka.log.clone(),
        traffic: parts.kafka.traffic.clone(),
        datasets: parts.kafka.datasets.clone(),
        caches: caches.clone(),
    };
    let mut tasks = upkeep_tasks(settings, &mut parts, &shutdown);
    let (shared, shared_shutdown) = (parts.kafka.shared.clone(), shutdown.clone());
    tasks.push(tokio::spawn(async move { shared.run(shared_shutdown).await }));
    let readiness = Readiness::default();
    let store_ready = readiness.register("store");
    let admin_router = admin::router(admin_state, readiness, parts.registry, log_level)
        .merge(uplink::manage_router(parts.tokens.clone(), parts.ingest.clone()));
    let admission = Admission {
        tls: tls.is_some(),
        insecure: settings.insecure,
        require_token: settings.uplink.require_token,
    };
    let uplink_router = uplink::router(parts.ingest, parts.tokens, admission);
    store_ready.ready();
    let housekeeping = housekeeping::Housekeeping {
        store: parts.store.clone(),
        store_ready,
        topics: parts.kafka.topics.clone(),
        log: parts.kafka.log.clone(),
        caches,
        groups: parts.kafka.groups.clone(),
        metrics: parts.kafka.metrics.clone(),
        offset_retention: Duration::from_millis(settings.groups.offset_retention_ms),
    };
    let (log, groups) = (parts.kafka.log.clone(), parts.kafka.groups.clone());
    let write_behind = tokio::spawn({
        let log = log.clone();
        async move { log.write_behind().await }
    });
    let uplink =
        uplink::run(listeners.uplink.0, tls.map(Into::into), uplink_router, shutdown.clone());
    let admin = robustmq_common::admin::run(listeners.admin.0, admin_router, shutdown.clone());
    tasks.extend([
        tokio::spawn(kafka::serve(listeners.kafka.0, parts.kafka, shutdown.clone())),
        tokio::spawn(uplink),
        tokio::spawn(admin),
        tokio::spawn(housekeeping.run(shutdown.clone())),
        tokio::spawn(parts.busiest.run(shutdown)),
    ]);
    Ok(Broker {
        kafka: kafka_address,
        uplink: uplink_address,
        admin: admin_address,
        tasks,
        groups,
        log,
        write_behind,
        cache: parts.cache,
        store: parts.store,
    })
}

/// The cache of datasets: beside that of archived blocks, which takes of the same memory.
fn open_cache(settings: &Settings) -> Result<Arc<Cache>, StartError> {
    let ssd = settings.cache.ssd(&settings.data_dir);
    let ssd = ssd.map(|(dir, bytes)| SsdSettings { dir, bytes });
    let (_, memory_bytes) = settings.cache.shares(settings.archive_url().is_some());
    Cache::open(CacheSettings { memory_bytes, ssd })
        .map_err(|error| StartError::Failed(format!("[cache]: {error}")))
}

/// Retention, compaction, archiving, and removing what was deleted.
fn upkeep_tasks(
    settings: &Settings,
    parts: &mut Parts,
    shutdown: &CancellationToken,
) -> Vec<JoinHandle<()>> {
    let (topics, log) = (&parts.kafka.topics, &parts.kafka.log);
    let (dirty, cold) = (Arc::new(PartitionQueue::default()), Arc::new(PartitionQueue::default()));
    let metrics = parts.kafka.metrics.clone();
    let cleaner = Cleaner::new(topics.clone(), log.clone(), dirty.clone(), metrics);
    let interval = Duration::from_millis(settings.storage.upkeep_interval_ms);
    let upkeep = Upkeeper::new(topics.clone(), log.clone(), dirty, cold.clone(), interval);
    let (removal, removal_shutdown) = (topics.clone(), shutdown.clone());
    let mut tasks = vec![
        tokio::spawn(cleaner.run(housekeeping::wall_ms, shutdown.clone())),
        tokio::spawn(upkeep.run(housekeeping::wall_ms, shutdown.clone())),
        tokio::spawn(async move { removal.removal().run(removal_shutdown).await }),
    ];
    if let Some(archiving) = parts.archiving.take() {
        let archive = archiving.archive.clone();
        if let Some(failed) = archive.failed_reads() {
            let reads = ArchiveReads::new(topics.clone(), failed);
            tasks.push(tokio::spawn(reads.run(shutdown.clone())));
        }
        let archiver = Archiver::new(topics.clone(), log.clone(), archive, cold);
        tasks.push(tokio::spawn(archiving.run(archiver, parts.store.clone(), shutdown.clone())));
    }
    tasks
}

/// What the listeners work on.
struct Parts {
    store: Arc<dyn Store>,
    archiving: Option<Archiving>,
    registry: Registry,
    kafka: Arc<Kafka>,
    cache: Arc<Cache>,
    busiest: Busiest,
    ingest: Ingest,
    tokens: Tokens,
}

impl Parts {
    async fn build(
        settings: &Settings,
        store: Arc<dyn Store>,
        kafka_address: SocketAddr,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        let fresh = CloudGeneration(rand::rng().random());
        let identity = StoreIdentity::load_or_create(&*store, fresh).await;
        let generation = identity.map_err(failed("the store cannot be used"))?.generation;
        let mut registry = Registry::default();
        let tier_metrics = TierMetrics::register(&mut registry);
        let archiving = archiving::open(settings, &store, tier_metrics).await?;
        let archive = archiving.as_ref().map(|archiving| archiving.archive.clone());
        let cache = open_cache(settings)?;
        let log = Arc::new(Log::with_archive(store.clone(), settings.budgets(), archive));
        let topics = Arc::new(Catalogue::new(log.clone()));
        let (roots, ends) = (settings.file_roots(), shutdown.clone());
        let datasets = Datasets::start(store.clone(), &topics, cache.clone(), roots, ends).await;
        let datasets = datasets.map_err(failed("the store cannot be used"))?;
        log.set_sources(datasets.clone());

        let metrics = Arc::new(Metrics::register(&mut registry));
        let traffic = Arc::new(Traffic::default());
        let letters = LetterTopics::new(topics.clone(), log.clone(), traffic.clone());
        letters.check_default(settings.shared.dead_letter_topic.as_deref()).await;
        let shared = SharedGroups::new(log.clone(), settings.timing(), Some(Arc::new(letters)));
        shared.pools().set_defaults(settings.shared.entries());
        let groups = Coordinator::start(store.clone(), settings.timing(), shutdown.clone())
            .with_shared(shared.clone());
        let busiest = Busiest::new(
            traffic.clone(),
            topics.clone(),
            log.clone(),
            groups.clone(),
            settings.admin.metrics_topics,
        );
        registry.register_collector(Box::new(busiest.clone()));
        registry.register_collector(Box::new(Sharing::new(shared.clone())));
        registry.register_collector(Box::new(CacheMetrics::new(cache.clone())));
        registry.register_collector(Box::new(datasets.trouble_metrics()));
        registry.register_collector(Box::new(StoreMetrics::new(store.clone())));
        registry.register_collector(Box::new(ProcessMetrics));
        let ingest_log = ingest_log::StoredLog::new(
            topics.clone(),
            log.clone(),
            traffic.clone(),
            settings.kafka.default_partitions,
        );
        let ingest = Ingest::new(
            store.clone(),
            Arc::new(ingest_log),
            generation,
            IngestSettings::default(),
            UplinkMetrics::register(&mut registry),
        );
        let kafka = Kafka {
            topics,
            log,
            datasets,
            groups,
            shared,
            producer_ids: ProducerIds::new(store.clone()),
            settings: kafka_settings(settings, kafka_address, generation),
            metrics,
            traffic,
            request_memory: Budget::new(settings.kafka.request_memory_bytes),
            listings: Default::default(),
            patterns: Default::default(),
            answer_memory: Budget::new(settings.kafka.answer_memory_bytes),
            shutdown,
        };
        let tokens = Tokens::new(store.clone());
        let kafka = Arc::new(kafka);
        Ok(Self { store, archiving, registry, kafka, cache, busiest, ingest, tokens })
    }
}

impl Broker {
    /// Waits for the shutdown that was asked for: listeners drain, writes end, the store is closed.
    ///
    /// # Errors
    /// What the last writes failed with.
    pub async fn stopped(self) -> Result<(), StoreError> {
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a part of the broker failed");
            }
        }
        self.groups.stopped().await;
        let written = self.log.stop().await;
        if let Err(error) = &written {
            tracing::error!(%error, "records of hybrid topics that were acknowledged are not written");
        }
        self.write_behind.abort();
        self.cache.close().await;
        self.store.close().await.and(written)
    }
}

async fn listen(settings: &Settings) -> Result<Listeners, StartError> {
    let open = Exposure { authenticated: false, insecure: settings.insecure };
    let edges = settings.edges_exposure();
    let bound = async |key, address, exposure| {
        let listener = bind(key, address, exposure).await?;
        let address = listener.local_addr().map_err(|error| {
            StartError::Failed(format!("{key}: its address is not known: {error}"))
        })?;
        Ok::<_, StartError>((listener, address))
    };
    Ok(Listeners {
        kafka: bound("[kafka] listen", settings.kafka.listen, open).await?,
        uplink: bound("[uplink] listen", settings.uplink.listen, edges).await?,
        admin: bound("[admin] listen", settings.admin.listen, open).await?,
    })
}

fn kafka_settings(
    settings: &Settings,
    listening: SocketAddr,
    generation: CloudGeneration,
) -> KafkaSettings {
    let (advertised_host, advertised_port) = settings.advertised(listening);
    KafkaSettings {
        node_id: limits::KAFKA_NODE_ID,
        cluster_id: format!("robustmq-{:016x}", generation.0),
        advertised_host,
        advertised_port,
        auto_create_topics: settings.kafka.auto_create_topics,
        default_partitions: settings.kafka.default_partitions,
        log_dir: settings.data_dir.join("store").display().to_string(),
        frame_bytes: settings.kafka.max_frame_bytes,
        connections: settings.kafka.max_connections,
        idle: Duration::from_millis(settings.kafka.idle_timeout_ms),
    }
}

#[cfg(test)]
mod tests;
