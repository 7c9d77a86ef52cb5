//! Opening: is the object store there, SlateDB's own start (which replays its log), the notes of deleted ranges, the writer.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use bytes::Bytes;
use object_store::ObjectStore;
use object_store::path::Path;
use robustmq_common::chain::chain;
use robustmq_common::limits;
use slatedb::config::{
    CompactionWorkerOptions, CompactorOptions, GarbageCollectorDirectoryOptions,
    GarbageCollectorOptions, Settings, SstBlockSize,
};
use slatedb::{Db, ErrorKind};
use tokio::sync::Semaphore;

use super::cache::BlockCache;
use super::queue::WriteQueue;
use super::ranges::{self, DeletedRanges, Note, NoteId};
use super::removal::Removal;
use super::writer::Writer;
use super::{OwnRuntime, Published, SlateSettings, SlateStore, View, read_failed};
use crate::objects::{Health, Watched, told};
use crate::store::StoreError;

/// How often it is looked whether the object store answers.
const LOOK: Duration = Duration::from_millis(500);

impl SlateStore {
    /// Opens the store at `path` of `objects`, and creates it at the first start. `name` is what people call it. Whoever has it open is
    /// fenced by this.
    ///
    /// # Errors
    /// [`StoreError::Open`]: the object store does not answer or refuses, or what is there cannot be read.
    pub async fn open(
        objects: Arc<dyn ObjectStore>,
        path: &str,
        name: &str,
        settings: &SlateSettings,
    ) -> Result<Self, StoreError> {
        let failed = |reason: String| StoreError::Open { path: name.to_owned(), reason };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("store")
            .enable_all()
            .build()
            .map_err(|error| failed(format!("its threads cannot be started: {error}")))?;
        let handle = runtime.handle().clone();
        let runtime = OwnRuntime(Some(runtime));
        let health = Arc::new(Health::new());
        let objects: Arc<dyn ObjectStore> = Arc::new(Watched::new(objects, Arc::clone(&health)));
        let opening = handle.spawn(open(objects, path.to_owned(), settings.clone()));
        let (db, notes) = while_it_answers(opening, &health).await.map_err(failed)?;

        let mut deleted = DeletedRanges::default();
        for (id, note) in &notes {
            deleted.insert(*id, note);
        }
        let deleted = Arc::new(deleted);
        let snapshot = db.snapshot().map_err(|error| failed(chain(&error)))?;
        let view = View { snapshot, deleted: Arc::clone(&deleted) };
        let published = Arc::new(Published(RwLock::new(Some(Arc::new(view)))));
        let queue = Arc::new(WriteQueue::new(name.to_owned(), health, settings.stall));
        let writer = Writer {
            db: db.clone(),
            name: name.to_owned(),
            queue: Arc::clone(&queue),
            published: Arc::clone(&published),
            deleted,
            removal: Removal::new(notes),
            flush_interval: settings.flush_interval,
        };
        Ok(Self {
            db,
            queue,
            published,
            reads: Semaphore::new(limits::STORE_CONCURRENT_READS),
            read_time: settings.read,
            writer: Mutex::new(Some(handle.spawn(writer.run()))),
            _runtime: runtime,
        })
    }
}

type Opened = (Db, BTreeMap<NoteId, Note>);

/// Waits for `opening` for as long as the object store answers something: what has to be replayed may be much.
async fn while_it_answers(
    opening: tokio::task::JoinHandle<Result<Opened, String>>,
    health: &Health,
) -> Result<Opened, String> {
    let mut opening = pin!(opening);
    loop {
        tokio::select! {
            opened = &mut opening => return opened.unwrap_or_else(|error| Err(error.to_string())),
            () = tokio::time::sleep(LOOK) => {}
        }
        if health.silent_for() > limits::object::OPEN_SILENCE {
            opening.abort();
            let seconds = limits::object::OPEN_SILENCE.as_secs();
            return Err(format!(
                "the object store gave no good answer for {seconds} s: {}",
                health.trouble()
            ));
        }
    }
}

async fn open(
    objects: Arc<dyn ObjectStore>,
    path: String,
    settings: SlateSettings,
) -> Result<Opened, String> {
    let root = Path::from(path.as_str());
    is_there(&*objects, &root).await?;
    let db = Db::builder(root, objects)
        .with_settings(slate_settings(&settings))
        .with_sst_block_size(SstBlockSize::Block16Kib)
        .with_db_cache(Arc::new(BlockCache::new(settings.cache_bytes)), 0)
        .build()
        .await
        .map_err(|error| open_failed(&error))?;
    let notes = read_notes(&db).await.map_err(|error| error.to_string())?;
    Ok((db, notes))
}

/// Whether the object store is there at all: SlateDB would try for ever, and say less.
async fn is_there(objects: &dyn ObjectStore, root: &Path) -> Result<(), String> {
    let mut attempts = 3;
    loop {
        attempts -= 1;
        match objects.list_with_delimiter(Some(root)).await {
            Ok(_) => return Ok(()),
            Err(error) if attempts == 0 => return Err(told(&error)),
            Err(_) => tokio::time::sleep(LOOK / 2).await,
        }
    }
}

fn open_failed(error: &slatedb::Error) -> String {
    match error.kind() {
        ErrorKind::Closed(slatedb::CloseReason::Fenced) => {
            "another broker opened it at the same time; run one broker on it".to_owned()
        }
        _ => chain(error),
    }
}

fn slate_settings(settings: &SlateSettings) -> Settings {
    Settings {
        // The writer says when: one flush for each group.
        flush_interval: None,
        l0_sst_size_bytes: settings.table_bytes,
        max_unflushed_bytes: settings.unflushed_bytes,
        l0_flush_parallelism: 2,
        compactor_options: Some(CompactorOptions {
            max_concurrent_compactions: 1,
            worker: Some(CompactionWorkerOptions {
                max_concurrent_compactions: 1,
                max_sst_size: limits::object::COMPACTED_TABLE_BYTES,
                max_fetch_tasks: 2,
                bytes_to_fetch: limits::object::READ_AHEAD_BYTES,
                max_subcompactions: 1,
                ..CompactionWorkerOptions::default()
            }),
            ..CompactorOptions::default()
        }),
        // Its defaults never remove a fence, which is what keeps an old writer out however late it comes.
        garbage_collector_options: Some(GarbageCollectorOptions {
            wal_options: Some(GarbageCollectorDirectoryOptions {
                interval: Some(limits::object::LOG_COLLECTION),
                min_age: limits::object::LOG_COLLECTION,
                ..GarbageCollectorDirectoryOptions::default()
            }),
            ..GarbageCollectorOptions::default()
        }),
        ..Settings::default()
    }
}

/// The ranges that were deleted and have something left in them.
async fn read_notes(db: &Db) -> Result<BTreeMap<NoteId, Note>, StoreError> {
    let failed = |error: slatedb::Error| read_failed(&error);
    let mut rows = db.scan(ranges::note_range()).await.map_err(failed)?;
    let mut notes = BTreeMap::new();
    while let Some(row) = rows.next().await.map_err(failed)? {
        let Some(id) = NoteId::of_key(&row.key) else { continue };
        let range = ranges::decode_note(&row.key, &Bytes::copy_from_slice(&row.value))?;
        notes.insert(id, Note { range, seq: row.seq });
    }
    Ok(notes)
}
