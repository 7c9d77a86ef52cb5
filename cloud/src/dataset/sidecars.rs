//! Index files that lie beside objects: which object they are of, and counting by them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use object_store::ObjectMeta;
use robustmq_common::limits::dataset as limits;
use robustmq_dataset::fetch::{FetchError, Object, Paced, Source as _};
use robustmq_dataset::index::{ObjectIndex, Pace, Reading, sidecar};
use serde::{Deserialize, Serialize};

use super::manifest::Entry;
use super::partition::{DatasetPartition, PartitionError};
use crate::topics::SourceConfig;

/// An index file, as it was listed with its object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sidecar {
    /// Its name below the source's prefix.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    pub size: u64,
    pub modified_ms: i64,
}

/// How their names end.
const ENDING: &str = ".idx";

/// Index files that were listed, by name.
#[derive(Default)]
pub(super) struct Sidecars(HashMap<String, Sidecar>);

impl Sidecars {
    /// Notes what has the name of an index file.
    pub fn note(&mut self, name: &str, meta: &ObjectMeta) {
        if name.ends_with(ENDING) && self.0.len() < limits::OBJECTS {
            let modified_ms = meta.last_modified.timestamp_millis();
            let (name, etag, size) = (name.to_owned(), meta.e_tag.clone(), meta.size);
            self.0.insert(name.clone(), Sidecar { name, etag, size, modified_ms });
        }
    }

    /// Says with each object which file is its index, and leaves these out of what has records; where the format may have some, all that have
    /// such a name, so that none becomes an object when the one that it is of has gone.
    pub fn attach(self, config: &SourceConfig, mut entries: Vec<Entry>) -> Vec<Entry> {
        if self.0.is_empty() {
            return entries;
        }
        let may_be = config.format.is_some_and(sidecar::may_be);
        let mut used = HashSet::new();
        for entry in &mut entries {
            if !may_have(config, entry) {
                continue;
            }
            let names = sidecar::names(&entry.name);
            entry.index = names.iter().find_map(|name| self.0.get(name)).cloned();
            used.extend(entry.index.as_ref().map(|index| index.name.clone()));
        }
        let is_index = |name: &String| used.contains(name) || may_be && name.ends_with(ENDING);
        entries.retain(|entry| !is_index(&entry.name));
        entries
    }
}

fn may_have(config: &SourceConfig, entry: &Entry) -> bool {
    let path = object_store::path::Path::from(entry.name.as_str());
    let (etag, size, modified_ms) = (None, entry.size, entry.modified_ms);
    let object = Object { path, etag, size, modified_ms };
    super::reading_of(config, &object).is_some_and(|reading| sidecar::may_have(&reading))
}

impl DatasetPartition {
    /// What an object holds by the file beside it, in extents of that pace; readers read `distance_bytes` before it; `None` if there is none, or if it cannot be true: then the object has to be read.
    pub(super) async fn index_beside(
        &self,
        number: u64,
        object: &Object,
        reading: &Reading,
        (distance_bytes, pace): (u64, Pace),
    ) -> Result<Option<ObjectIndex>, PartitionError> {
        let dataset = &self.dataset;
        if !sidecar::may_have(reading) {
            return Ok(None);
        }
        let Some(beside) = dataset.manifest.with_index(self.ordinal(number)).await?.1 else {
            return Ok(None);
        };
        let ignored = |reason: &dyn std::fmt::Display| {
            let (topic, topic_id) = (dataset.name.as_str(), dataset.topic);
            tracing::warn!(topic, %topic_id, index = %beside.path, %reason, "an index file is not used: its object is read to count it");
        };
        // Of as many bytes as the object it saves nothing, and what is counted at once is bounded by the sizes of objects.
        if beside.size == 0 || beside.size > limits::SIDECAR_BYTES.min(object.size) {
            ignored(&format_args!("it has {} bytes", beside.size));
            return Ok(None);
        }
        // What readers need first comes first.
        let source = Paced::new(Arc::clone(&dataset.group.source), 0, distance_bytes);
        let text = match source.get(&beside, 0..beside.size).await {
            Ok(text) => text,
            // Whoever may not read it may well read the object.
            Err(error @ FetchError::Forbidden { .. }) => {
                ignored(&error);
                return Ok(None);
            }
            Err(error) if error.is_final() => {
                ignored(&error);
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        match sidecar::index(&text, reading.clone(), object.size, pace) {
            Ok(index) => Ok(Some(index)),
            Err(reason) => {
                ignored(&reason);
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests;
