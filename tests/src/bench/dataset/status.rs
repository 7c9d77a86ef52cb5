//! What the broker says of a dataset topic: `GET /v1/datasets/{topic}`.

use std::fmt;

use serde::Deserialize;

use crate::servers::http;

/// A topic's page. What the broker does not say is absent.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Objects of the source.
    pub objects: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
    /// Those whose records are counted.
    pub indexed_objects: Option<u64>,
    /// Records of one epoch, as far as is known.
    pub records: Option<u64>,
    /// Whether all are counted.
    pub is_index_complete: Option<bool>,
    /// Epochs that readers can see.
    pub published_epochs: Option<u64>,
    /// Damaged samples.
    pub damaged: Option<u64>,
    /// The first of them.
    pub damaged_samples: Vec<Damaged>,
    /// Why it does not go on.
    pub trouble: Vec<String>,
    /// The cache, as this topic uses it.
    pub cache: Cache,
}

/// What is left out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Damaged {
    /// Below the prefix.
    pub object: String,
    /// Why.
    pub reason: String,
}

/// The cache, as one topic uses it.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub struct Cache {
    /// Held in memory.
    pub memory_bytes: Option<u64>,
    /// Held on SSD.
    pub ssd_bytes: Option<u64>,
    /// Reads from memory.
    #[serde(rename = "memory_reads")]
    pub reads_memory: Option<u64>,
    /// Reads from SSD.
    #[serde(rename = "ssd_reads")]
    pub reads_ssd: Option<u64>,
    /// Reads that went to the source.
    #[serde(rename = "source_reads")]
    pub reads_source: Option<u64>,
    /// Bytes that came from there.
    pub source_bytes: Option<u64>,
    /// Bytes that would have come from there at least, for the same reads.
    pub belady_bytes: Option<u64>,
    /// Loads that failed.
    pub failed_loads: Option<u64>,
    /// Reads that waited.
    #[serde(rename = "waited")]
    pub waited_reads: Option<u64>,
    /// How long they did.
    pub waited_micros: Option<u64>,
}

impl Status {
    /// Whether an object is left out for a reason that has this in it.
    #[must_use]
    pub fn leaves_out(&self, object: &str, said: &str) -> bool {
        let is_it = |it: &Damaged| it.object == object && it.reason.contains(said);
        self.damaged_samples.iter().any(is_it)
    }

    /// Asks a broker's admin listener, a URL without a path; `None` if it does not know such a page.
    ///
    /// # Errors
    /// When it does not answer, or with something else.
    pub async fn of(admin: &str, topic: &str) -> anyhow::Result<Option<Self>> {
        let answer = http().get(format!("{admin}/v1/datasets/{topic}")).send().await?;
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Ok(Some(answer.error_for_status()?.json().await?))
    }
}

impl Cache {
    /// Reads, from whatever tier.
    #[must_use]
    pub fn reads(&self) -> Option<u64> {
        let tiers = [self.reads_memory, self.reads_ssd, self.reads_source];
        tiers.iter().any(Option::is_some).then(|| tiers.into_iter().flatten().sum())
    }

    /// What was counted since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let more = |now: Option<u64>, then: Option<u64>| {
            now.map(|now| now.saturating_sub(then.unwrap_or_default()))
        };
        Self {
            memory_bytes: self.memory_bytes,
            ssd_bytes: self.ssd_bytes,
            reads_memory: more(self.reads_memory, before.reads_memory),
            reads_ssd: more(self.reads_ssd, before.reads_ssd),
            reads_source: more(self.reads_source, before.reads_source),
            source_bytes: more(self.source_bytes, before.source_bytes),
            belady_bytes: more(self.belady_bytes, before.belady_bytes),
            failed_loads: more(self.failed_loads, before.failed_loads),
            waited_reads: more(self.waited_reads, before.waited_reads),
            waited_micros: more(self.waited_micros, before.waited_micros),
        }
    }
}

impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
        write!(
            f,
            "reads: {} memory, {} SSD, {} source; {} of them waited, {} us; bytes: {} in memory, {} from the source, {} Belady",
            shown(self.reads_memory),
            shown(self.reads_ssd),
            shown(self.reads_source),
            shown(self.waited_reads),
            shown(self.waited_micros),
            shown(self.memory_bytes),
            shown(self.source_bytes),
            shown(self.belady_bytes),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Status;

    #[test]
    fn what_a_broker_does_not_say_is_absent() {
        let page = r#"{"topic": "t", "objects": 3, "another": [], "cache": {"ssd_reads": 4, "source_reads": 1}}"#;
        let status: Status = serde_json::from_str(page).unwrap();
        assert_eq!((status.objects, status.bytes), (Some(3), None));
        assert_eq!((status.cache.reads(), status.cache.waited_reads), (Some(5), None));
        let since = status.cache.since(&super::Cache { reads_ssd: Some(1), ..Default::default() });
        assert_eq!((since.reads(), since.source_bytes), (Some(4), None));
        let empty: Status = serde_json::from_str("{}").unwrap();
        assert_eq!(empty.cache.reads(), None);
    }
}
