//! The redb file: opened, read once at start, written in transactions.
//!
//! ```text
//! table "state":     key bytes -> value bytes          (layout: whoever submits the changes)
//! table "positions": lane (u8) -> sequence (u64)
//! table "meta":      "format" -> 1;  "server_ms", "wall_ms" -> the saved clock;
//!                    "queue_store" -> which queue directory the positions belong to
//! ```

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend,
    StorageError, TableDefinition,
};
use robustmq_common::ids::{EdgeSeq, LaneId};
use robustmq_common::limits;

use super::{Change, ChangeSet, Positions, SavedClock, State};

const STATE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("state");
const POSITIONS: TableDefinition<'_, u8, u64> = TableDefinition::new("positions");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT: u64 = 1;

/// Why the state could not be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file or its directory cannot be used.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database refused.
    #[error("{path}: {source}")]
    Database {
        /// The file.
        path: PathBuf,
        /// What the database said.
        source: Box<redb::Error>,
    },
    /// A newer version of the gateway wrote the file.
    #[error("{path}: written in format {found}; this version knows format {FORMAT} only")]
    Format {
        /// The file.
        path: PathBuf,
        /// The format found.
        found: u64,
    },
}

/// Opens the database; again after a failed write, since redb refuses all work from then on.
pub(super) type Opener = Arc<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// An opened state file, before its writer starts.
pub struct StateFile {
    path: PathBuf,
    database: Database,
    opener: Opener,
    /// Where a damaged predecessor was put.
    quarantined: Option<PathBuf>,
    fresh: bool,
}

impl StateFile {
    /// Opens or creates the file at `path`. A damaged one is renamed to `*.damaged-N` and a fresh one takes its place.
    ///
    /// # Errors
    /// [`OpenError`] when the directory or the file cannot be read or written, or is of a newer format.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let owned = path.to_owned();
        let opener: Opener = Arc::new(move || builder().create(&owned));
        let mut quarantined = None;
        let existed = path.try_exists().map_err(|source| io_error(path, source))?;
        let database = match opener() {
            Ok(database) => database,
            Err(error) if existed && is_damage(&error) => {
                tracing::error!(path = %path.display(), %error, "the state file is damaged; sessions and retained messages start empty");
                quarantined = Some(quarantine(path)?);
                opener().map_err(|error| database_error(path, error))?
            }
            Err(error) => return Err(database_error(path, error)),
        };
        Self::prepare(path, database, opener, quarantined)
    }

    /// Opens a database over any backend; `make` is called again after a failed write.
    ///
    /// # Errors
    /// As [`StateFile::open`].
    pub fn open_with<B, F>(name: &str, make: F) -> Result<Self, OpenError>
    where
        B: StorageBackend,
        F: Fn() -> io::Result<B> + Send + Sync + 'static,
    {
        let path = PathBuf::from(name);
        let opener: Opener = Arc::new(move || {
            let backend = make()?;
            builder().create_with_backend(backend)
        });
        let database = opener().map_err(|error| database_error(&path, error))?;
        Self::prepare(&path, database, opener, None)
    }

    fn prepare(
        path: &Path,
        database: Database,
        opener: Opener,
        quarantined: Option<PathBuf>,
    ) -> Result<Self, OpenError> {
        let wrap = |source: redb::Error| database_error(path, source);
        let found = create_tables(&database).map_err(wrap)?;
        let fresh = found.is_none();
        if let Some(found) = found
            && found != FORMAT
        {
            return Err(OpenError::Format { path: path.to_owned(), found });
        }
        if fresh && let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
            File::open(directory)
                .and_then(|directory| directory.sync_all())
                .map_err(|source| io_error(directory, source))?;
        }
        Ok(Self { path: path.to_owned(), database, opener, quarantined, fresh })
    }

    /// Where a damaged predecessor was put, if there was one.
    #[must_use]
    pub fn quarantined(&self) -> Option<&Path> {
        self.quarantined.as_deref()
    }

    /// Whether the file was created by this opening, so that it reflects no queue position yet.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Calls `visit` with every stored key and value, in key order.
    ///
    /// # Errors
    /// [`OpenError`] when the file cannot be read.
    pub fn for_each(&self, mut visit: impl FnMut(&[u8], &[u8])) -> Result<(), OpenError> {
        let mut read = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_read()?;
            for entry in transaction.open_table(STATE)?.iter()? {
                let (key, value) = entry?;
                visit(key.value(), value.value());
            }
            Ok(())
        };
        read().map_err(|source| database_error(&self.path, source))
    }

    /// The queue positions that the stored state reflects.
    ///
    /// # Errors
    /// [`OpenError`] when the file cannot be read.
    pub fn positions(&self) -> Result<Positions, OpenError> {
        let read = || -> Result<Positions, redb::Error> {
            let transaction = self.database.begin_read()?;
            let mut positions = Positions::new();
            for entry in transaction.open_table(POSITIONS)?.iter()? {
                let (lane, sequence) = entry?;
                positions.insert(LaneId(lane.value()), EdgeSeq(sequence.value()));
            }
            Ok(positions)
        };
        read().map_err(|source| database_error(&self.path, source))
    }

    /// The server's time as it was last saved.
    ///
    /// # Errors
    /// [`OpenError`] when the file cannot be read.
    pub fn clock(&self) -> Result<SavedClock, OpenError> {
        let read = || -> Result<SavedClock, redb::Error> {
            let meta = self.database.begin_read()?.open_table(META)?;
            let value = |name| meta.get(name).map(|found| found.map(|value| value.value()));
            let server_ms = value("server_ms")?.unwrap_or(0);
            let wall_ms = value("wall_ms")?.and_then(|wall| i64::try_from(wall).ok());
            Ok(SavedClock { server_ms, wall_ms })
        };
        read().map_err(|source| database_error(&self.path, source))
    }

    /// Which queue directory the positions belong to, if that was ever said.
    ///
    /// # Errors
    /// [`OpenError`] when the file cannot be read.
    pub fn queue_store(&self) -> Result<Option<u64>, OpenError> {
        let read = || -> Result<Option<u64>, redb::Error> {
            let meta = self.database.begin_read()?.open_table(META)?;
            Ok(meta.get("queue_store")?.map(|value| value.value()))
        };
        read().map_err(|source| database_error(&self.path, source))
    }

    /// Starts the writer.
    ///
    /// # Errors
    /// [`OpenError::Io`] when the system gives no thread.
    pub fn start(self) -> Result<State, OpenError> {
        let Self { path, database, opener, .. } = self;
        State::start(database, opener).map_err(|source| OpenError::Io { path, source })
    }
}

/// Writes all sets in one synced transaction.
pub(super) fn commit(database: &Database, sets: &[ChangeSet]) -> Result<(), Box<redb::Error>> {
    let write = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        {
            let mut table = transaction.open_table(STATE)?;
            let mut positions = transaction.open_table(POSITIONS)?;
            for set in sets {
                for change in &set.changes {
                    apply(&mut table, change)?;
                }
                for (lane, sequence) in &set.reflects {
                    positions.insert(lane.0, sequence.0)?;
                }
            }
            if let Some(clock) = sets.iter().rev().find_map(|set| set.clock) {
                save_clock(&mut transaction.open_table(META)?, clock)?;
            }
            if let Some(store) = sets.iter().rev().find_map(|set| set.queue_store) {
                transaction.open_table(META)?.insert("queue_store", store)?;
            }
        }
        transaction.commit()?;
        Ok(())
    };
    write().map_err(Box::new)
}

fn save_clock(meta: &mut redb::Table<'_, &str, u64>, clock: SavedClock) -> Result<(), redb::Error> {
    meta.insert("server_ms", clock.server_ms)?;
    match clock.wall_ms.and_then(|wall| u64::try_from(wall).ok()) {
        Some(wall) => meta.insert("wall_ms", wall)?,
        None => meta.remove("wall_ms")?,
    };
    Ok(())
}

fn apply(table: &mut redb::Table<'_, &[u8], &[u8]>, change: &Change) -> Result<(), redb::Error> {
    match change {
        Change::Put { key, value } => {
            table.insert(key.as_ref(), value.as_ref())?;
        }
        Change::Delete { key } => {
            table.remove(key.as_ref())?;
        }
        Change::DeletePrefix { prefix } => match after_prefix(prefix) {
            Some(end) => {
                table.retain_in::<&[u8], _>(prefix.as_ref()..end.as_slice(), |_, _| false)?
            }
            None => table.retain_in::<&[u8], _>(prefix.as_ref().., |_, _| false)?,
        },
    }
    Ok(())
}

/// The first key after all that start with `prefix`; `None` when there is none.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

/// Creates the tables and the format mark where they are missing; answers with the format that was there before.
fn create_tables(database: &Database) -> Result<Option<u64>, redb::Error> {
    {
        let transaction = database.begin_read()?;
        match transaction.open_table(META) {
            Ok(meta) => {
                if let Some(format) = meta.get("format")? {
                    return Ok(Some(format.value()));
                }
            }
            Err(redb::TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let transaction = database.begin_write()?;
    transaction.open_table(STATE)?;
    transaction.open_table(POSITIONS)?;
    transaction.open_table(META)?.insert("format", FORMAT)?;
    transaction.commit()?;
    Ok(None)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(limits::STATE_CACHE_BYTES);
    builder.set_check_integrity_on_open(true);
    builder
}

/// Whether the file's content is at fault, rather than the disk or another process.
fn is_damage(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::Storage(StorageError::Corrupted(_)) => true,
        DatabaseError::Storage(StorageError::Io(error)) => {
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}

fn quarantine(path: &Path) -> Result<PathBuf, OpenError> {
    for number in 1..=limits::STATE_QUARANTINED_FILES {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{number}"));
        let target = PathBuf::from(name);
        let taken = target.try_exists().map_err(|source| io_error(&target, source))?;
        if !taken || number == limits::STATE_QUARANTINED_FILES {
            std::fs::rename(path, &target).map_err(|source| io_error(path, source))?;
            return Ok(target);
        }
    }
    Err(io_error(path, io::Error::other("no name is free for the damaged file")))
}

fn io_error(path: &Path, source: io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), source }
}

fn database_error(path: &Path, source: impl Into<redb::Error>) -> OpenError {
    OpenError::Database { path: path.to_owned(), source: Box::new(source.into()) }
}
