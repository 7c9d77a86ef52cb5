//! A topic's configuration: validated entries, and the values that the broker uses.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use robustmq_common::limits;

use super::config_keys::{ConfigKey, ConfigType, KEYS, Rule, find};
use crate::log::{AppendRules, CompactionRules, Retention, StorageMode, TierRules};

/// Why a configuration entry was refused. Kafka: INVALID_CONFIG.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is no such entry.
    #[error("unknown topic configuration {name}")]
    Unknown {
        /// Its name.
        name: String,
    },
    /// The value is not legal.
    #[error("topic configuration {name} cannot be {value:?}: {expected}")]
    Invalid {
        /// Its name.
        name: String,
        /// The value given.
        value: String,
        /// What is legal.
        expected: String,
    },
    /// Append and Subtract are for lists only.
    #[error("topic configuration {name} is not a list")]
    NotAList {
        /// Its name.
        name: String,
    },
    /// The entry was changed twice in one request.
    #[error("topic configuration {name} is given twice")]
    Twice {
        /// Its name.
        name: String,
    },
}

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
        for (name, value) in overrides {
            check(name, value)?;
        }
        let value = |name: &str| {
            let default = || find(name).and_then(|key| key.default);
            overrides.get(name).map(String::as_str).or_else(default).unwrap_or_default()
        };
        // Checked above, and defaults are checked by a test, so these parse.
        let number = |name: &str| value(name).trim().parse::<i64>().unwrap_or_default();
        let unless_negative = |number: i64| u64::try_from(number).ok();
        let policy = |name| value("cleanup.policy").split(',').any(|policy| policy.trim() == name);
        let delete = policy("delete");
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

fn check(name: &str, value: &str) -> Result<(), ConfigError> {
    let key = find(name).ok_or_else(|| ConfigError::Unknown { name: name.to_owned() })?;
    let invalid = |expected: String| ConfigError::Invalid {
        name: name.to_owned(),
        value: value.chars().take(100).collect(),
        expected,
    };
    if value.len() > limits::TOPIC_CONFIG_VALUE_BYTES {
        return Err(invalid(format!("it is longer than {}", limits::TOPIC_CONFIG_VALUE_BYTES)));
    }
    let text = value.trim();
    match key.rule {
        Rule::Boolean if text == "true" || text == "false" => Ok(()),
        Rule::Boolean => Err(invalid("it is true or false".to_owned())),
        Rule::Number(from, to) => match text.parse::<i64>() {
            Ok(number) if (from..=to).contains(&number) => Ok(()),
            _ => Err(invalid(format!("it is a whole number from {from} to {to}"))),
        },
        Rule::Fraction(from, to) => match text.parse::<f64>() {
            Ok(number) if (from..=to).contains(&number) => Ok(()),
            _ => Err(invalid(format!("it is a number from {from} to {to}"))),
        },
        Rule::OneOf(legal) if legal.contains(&text) => Ok(()),
        Rule::OneOf(legal) => Err(invalid(format!("it is one of {}", legal.join(", ")))),
        Rule::AnyOf(legal) if text.split(',').all(|item| legal.contains(&item.trim())) => Ok(()),
        Rule::AnyOf(legal) => Err(invalid(format!("it is a list of {}", legal.join(", ")))),
        Rule::Only(legal, _) if legal.contains(&text) => Ok(()),
        Rule::Only(_, reason) => Err(invalid(reason.to_owned())),
        Rule::Text => Ok(()),
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigSource {
    /// The topic sets it (`DYNAMIC_TOPIC_CONFIG`).
    Topic,
    /// Nobody sets it (`DEFAULT_CONFIG`).
    Default,
}

/// One line of DescribeConfigs.
#[derive(Debug, Clone, Copy)]
pub struct ConfigEntry<'a> {
    /// Name, type, default and documentation.
    pub key: &'static ConfigKey,
    /// The value in effect.
    pub value: Option<&'a str>,
    /// Where it comes from.
    pub source: ConfigSource,
}

/// Every configuration entry with its value for a topic that sets `overrides`.
pub fn describe(overrides: &BTreeMap<String, String>) -> impl Iterator<Item = ConfigEntry<'_>> {
    KEYS.iter().map(|key| match overrides.get(key.name) {
        Some(value) => ConfigEntry { key, value: Some(value), source: ConfigSource::Topic },
        None => ConfigEntry { key, value: key.default, source: ConfigSource::Default },
    })
}

/// What to do with one entry (IncrementalAlterConfigs, KIP-339).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigOp {
    /// Sets it.
    Set(String),
    /// Back to the default.
    Delete,
    /// Adds to a list.
    Append(String),
    /// Takes from a list.
    Subtract(String),
}

/// One change of a topic's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    /// The entry's name.
    pub name: String,
    /// What to do.
    pub op: ConfigOp,
}

/// The entries that a topic sets after `changes`, validated.
///
/// # Errors
/// [`ConfigError`] names the first entry that is wrong.
pub fn apply_changes(
    overrides: &BTreeMap<String, String>,
    changes: &[ConfigChange],
) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut changed = overrides.clone();
    for (index, ConfigChange { name, op }) in changes.iter().enumerate() {
        let key = find(name).ok_or_else(|| ConfigError::Unknown { name: name.clone() })?;
        if changes.iter().take(index).any(|earlier| earlier.name == *name) {
            return Err(ConfigError::Twice { name: name.clone() });
        }
        match op {
            ConfigOp::Set(value) => {
                changed.insert(name.clone(), value.clone());
            }
            ConfigOp::Delete => {
                changed.remove(name);
            }
            ConfigOp::Append(items) | ConfigOp::Subtract(items) => {
                if key.kind != ConfigType::List {
                    return Err(ConfigError::NotAList { name: name.clone() });
                }
                let current = changed.get(name).map(String::as_str).or(key.default);
                let add = matches!(op, ConfigOp::Append(_));
                let list = change_list(current.unwrap_or_default(), items, add);
                changed.insert(name.clone(), list);
            }
        }
    }
    TopicConfig::parse(&changed)?;
    Ok(changed)
}

fn change_list(current: &str, items: &str, add: bool) -> String {
    let split = |list: &str| -> Vec<String> {
        list.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
    };
    let mut list = split(current);
    for item in split(items) {
        let there = list.contains(&item);
        match (add, there) {
            (true, false) => list.push(item),
            (false, true) => list.retain(|kept| *kept != item),
            _ => {}
        }
    }
    list.join(",")
}
