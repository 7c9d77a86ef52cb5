//! A topic's configuration: validated entries, and the values that the broker uses.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use robustmq_common::limits;

use super::config_keys::TABLE;
use super::source::{SourceConfig, check_stored_only};
use crate::entries::{ConfigChange, ConfigEntry, ConfigError};
use crate::log::{AppendRules, CompactionRules, Retention, StorageMode, TierRules};

/// The values that the broker uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// `max.message.bytes`.
    pub max_message_bytes: usize,
    /// `message.timestamp.type` is `LogAppendTime`.
    pub log_append_time: bool,
    /// What is kept; nothing is deleted where `cleanup.policy` is only `compact`.
    pub retention: Retention,
    /// How it is compacted; `None` where `cleanup.policy` does not name `compact`.
    pub compaction: Option<CompactionRules>,
    /// `robustmq.storage.mode`, with `robustmq.flush.ms` or `retention.bytes` where it has a use for them.
    pub storage_mode: StorageMode,
    /// What is archived; `None` unless the mode is `tiered`.
    pub tier: Option<TierRules>,
    /// `robustmq.mqtt.topic`.
    pub mqtt_topic: Option<String>,
    /// Of a dataset topic.
    pub source: Option<Arc<SourceConfig>>,
}

impl TopicConfig {
    /// Checks the entries that a topic sets, and reads the values.
    ///
    /// # Errors
    /// [`ConfigError`] names the first entry that is wrong.
    pub fn parse(overrides: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        /// Of most topics: a million of them are not worth a million readings.
        static DEFAULTS: OnceLock<TopicConfig> = OnceLock::new();
        if !overrides.is_empty() {
            return Self::read(overrides);
        }
        if let Some(defaults) = DEFAULTS.get() {
            return Ok(defaults.clone());
        }
        let defaults = Self::read(overrides)?;
        Ok(DEFAULTS.get_or_init(|| defaults).clone())
    }

    fn read(overrides: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        TABLE.check_all(overrides)?;
        let value = |name: &str| TABLE.value(overrides, name);
        // Checked above, and defaults are checked by a test, so these parse.
        let number = |name: &str| value(name).trim().parse::<i64>().unwrap_or_default();
        let unless_negative = |number: i64| u64::try_from(number).ok();
        let policy = |name| value("cleanup.policy").split(',').any(|policy| policy.trim() == name);
        let source = SourceConfig::read(overrides, value)?.map(Arc::new);
        // What a source holds is not ours to delete.
        let delete = policy("delete") && source.is_none();
        let (min_lag_ms, max_lag_ms) =
            (number("min.compaction.lag.ms"), number("max.compaction.lag.ms"));
        if min_lag_ms > max_lag_ms {
            return Err(ConfigError::Invalid {
                name: "min.compaction.lag.ms".to_owned(),
                value: min_lag_ms.to_string(),
                expected: format!("it is at most max.compaction.lag.ms, {max_lag_ms}"),
            });
        }
        let compaction = CompactionRules {
            min_dirty_millionths: millionths(value("min.cleanable.dirty.ratio")),
            min_lag_ms,
            max_lag_ms,
            delete_retention_ms: number("delete.retention.ms"),
        };
        let retention = Retention {
            age: unless_negative(number("retention.ms")).map(Duration::from_millis),
            bytes: unless_negative(number("retention.bytes")),
        };
        let not_compacted = match value("robustmq.storage.mode").trim() {
            "memory" => Some("memory, which keeps the newest records only"),
            "tiered" => Some("tiered, whose archived records are not rewritten"),
            _ => None,
        };
        if let Some(mode) = not_compacted.filter(|_| policy("compact")) {
            return Err(ConfigError::Invalid {
                name: "cleanup.policy".to_owned(),
                value: value("cleanup.policy").to_owned(),
                expected: format!("it is delete with robustmq.storage.mode={mode}"),
            });
        }
        let storage_mode = match value("robustmq.storage.mode").trim() {
            "memory" => StorageMode::Memory { ring_bytes: retention.bytes },
            "hybrid" => StorageMode::Hybrid {
                write_behind: unless_negative(number("robustmq.flush.ms"))
                    .map_or(limits::WRITE_BEHIND, Duration::from_millis),
            },
            "tiered" => StorageMode::Tiered,
            _ => StorageMode::Persistent,
        };
        Ok(Self {
            max_message_bytes: usize::try_from(number("max.message.bytes")).unwrap_or_default(),
            log_append_time: value("message.timestamp.type") == "LogAppendTime",
            retention: if delete { retention } else { Retention::default() },
            compaction: policy("compact").then_some(compaction),
            storage_mode,
            tier: (storage_mode == StorageMode::Tiered).then(|| TierRules {
                local_ms: number("robustmq.tier.local.ms"),
                // -2 means as much as is retained, which is Kafka's way to say that size does not matter.
                local_bytes: unless_negative(number("local.retention.bytes")),
                hot_bytes: unless_negative(number("robustmq.tier.hot.bytes")).unwrap_or(0),
            }),
            mqtt_topic: overrides.get("robustmq.mqtt.topic").cloned(),
            source,
        })
    }

    /// What the log asks of a batch.
    #[must_use]
    pub fn append_rules(&self) -> AppendRules {
        AppendRules {
            max_batch_bytes: self.max_message_bytes,
            log_append_time: self.log_append_time,
            storage: self.storage_mode,
        }
    }
}

/// A fraction from 0 to 1 in millionths: no float is kept, so that configurations can be compared.
fn millionths(fraction: &str) -> u32 {
    let fraction: f64 = fraction.trim().parse().unwrap_or_default();
    format!("{:.0}", fraction * 1e6).parse().unwrap_or_default()
}

/// Every configuration entry with its value for a topic that sets `overrides`.
pub fn describe(overrides: &BTreeMap<String, String>) -> impl Iterator<Item = ConfigEntry<'_>> {
    TABLE.describe(overrides)
}

/// The entries that a topic sets after `changes`, validated.
///
/// # Errors
/// [`ConfigError`] names the first entry that is wrong.
pub fn apply_changes(
    overrides: &BTreeMap<String, String>,
    changes: &[ConfigChange],
) -> Result<BTreeMap<String, String>, ConfigError> {
    let changed = TABLE.apply(overrides, changes)?;
    TopicConfig::parse(&changed)?;
    check_set(overrides, &changed)?;
    Ok(changed)
}

/// Sizes and ages of which one is a part of the other, as Apache Kafka has it.
const PARTS: [(&str, &str); 2] =
    [("local.retention.bytes", "retention.bytes"), ("local.retention.ms", "retention.ms")];

/// Checks what a topic is to set from now on beyond what [`TopicConfig::parse`] does. What it set `before` stays as it is: a store may have it
/// from a release that took it.
///
/// # Errors
/// [`ConfigError`] names the first entry that is wrong.
pub(super) fn check_set(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Result<(), ConfigError> {
    check_stored_only(before, after)?;
    for (part, whole) in PARTS {
        if [part, whole].iter().all(|name| before.get(*name) == after.get(*name)) {
            continue;
        }
        // Checked by `parse`, so these are numbers.
        let number = |name| TABLE.value(after, name).trim().parse::<i64>().unwrap_or(-1);
        let (local, all) = (number(part), number(whole));
        // -2 is as much as `whole`.
        if all >= 0 && local != -2 && (local == -1 || local > all) {
            return Err(ConfigError::Invalid {
                name: part.to_owned(),
                value: local.to_string(),
                expected: format!("it is at most {whole}, {all}, or -2 for as much"),
            });
        }
    }
    Ok(())
}
