//! `[cache]` and `[dataset]`.

use std::path::{Path, PathBuf};

use robustmq_common::config::Invalid;
use robustmq_common::disk::size_bytes;
use robustmq_common::limits;
use robustmq_common::machine::memory;
use serde::{Deserialize, Serialize};

/// `[cache]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheSection {
    /// What of archived objects and datasets may be in memory, all together.
    pub memory_bytes: usize,
    /// What of datasets may be on SSD beside it; 0 for nothing.
    pub ssd_bytes: u64,
    /// Where; by default `cache` in the data directory.
    pub ssd_dir: Option<PathBuf>,
}

impl Default for CacheSection {
    fn default() -> Self {
        Self { memory_bytes: limits::tier::CACHE_BYTES, ssd_bytes: 0, ssd_dir: None }
    }
}

/// What blocks of archived records may have of so much memory. Extents of datasets have what these do not take.
#[must_use]
pub fn archived_bytes(memory_bytes: usize) -> usize {
    memory_bytes / 4 * 3
}

impl CacheSection {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        if self.memory_bytes < limits::tier::CACHE_BYTES_MIN {
            let (bytes, least) = (self.memory_bytes, limits::tier::CACHE_BYTES_MIN);
            return Err(Invalid::new("cache.memory_bytes", format!("{bytes} is below {least}")));
        }
        let least = limits::dataset::SSD_BYTES_MIN;
        if self.ssd_bytes != 0 && self.ssd_bytes < least {
            let why = format!("{} is below {least}; 0 uses no SSD", self.ssd_bytes);
            return Err(Invalid::new("cache.ssd_bytes", why));
        }
        Ok(())
    }

    /// Whether the machine has what caches may take.
    ///
    /// # Errors
    /// [`Invalid`] says how much it has.
    pub(crate) fn check_machine(&self, data_dir: &Path) -> Result<(), Invalid> {
        let bytes = self.memory_bytes as u64;
        if let Some(memory) = memory().filter(|memory| memory.bytes < bytes) {
            let why = format!(
                "{bytes} is too much: {memory}. It has to be less, since the broker needs some beside it"
            );
            return Err(Invalid::new("cache.memory_bytes", why));
        }
        let Some((dir, bytes)) = self.ssd(data_dir) else { return Ok(()) };
        match size_bytes(&dir).filter(|size| *size < bytes) {
            Some(size) => {
                let why = format!(
                    "{bytes} is too much: the file system of {} has {size} bytes",
                    dir.display()
                );
                Err(Invalid::new("cache.ssd_bytes", why).or("cache.ssd_dir"))
            }
            None => Ok(()),
        }
    }

    /// What archived blocks may take, if there is an archive, and datasets at the start.
    #[must_use]
    pub fn shares(&self, has_archive: bool) -> (usize, usize) {
        let blocks = if has_archive { archived_bytes(self.memory_bytes) } else { 0 };
        let extents = self.memory_bytes - blocks;
        (blocks, extents.max(limits::dataset::CACHE_BYTES_MIN))
    }

    /// Where extents are kept beside memory, if that is configured.
    #[must_use]
    pub fn ssd(&self, data_dir: &Path) -> Option<(PathBuf, u64)> {
        let dir = self.ssd_dir.clone().unwrap_or_else(|| data_dir.join("cache"));
        (self.ssd_bytes > 0).then_some((dir, self.ssd_bytes))
    }
}

/// `[dataset]`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatasetSection {
    /// Directories of this machine whose files may become topics (`robustmq.source = file:///...`). Whoever may create a topic can read
    /// all of their files. By default everything the broker can read, as long as Kafka clients can only be on this machine, else
    /// nothing.
    pub file_roots: Option<Vec<PathBuf>>,
}

impl DatasetSection {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        let relative = self.file_roots.iter().flatten().find(|root| !root.is_absolute());
        match relative {
            Some(root) => {
                let why = format!(
                    "{root:?} is not absolute: what it leads to would depend on where the broker is started"
                );
                Err(Invalid::new("dataset.file_roots", why))
            }
            None => Ok(()),
        }
    }

    /// What is legal, and probably not meant: directories that are not there, perhaps not yet.
    pub(super) fn warnings(&self) -> Vec<String> {
        let missing = self.file_roots.iter().flatten().filter(|root| !root.is_dir());
        let told = |root: &PathBuf| {
            format!(
                "[dataset] file_roots: {root:?} is no directory now, and no topic can be created below it before it is"
            )
        };
        missing.map(told).collect()
    }
}
