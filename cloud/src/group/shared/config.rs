//! A shared group's configuration (IncrementalAlterConfigs on the resource GROUP, KIP-848).

use std::collections::BTreeMap;
use std::time::Duration;

use robustmq_common::ids::KafkaTopic;
use robustmq_common::limits;

use super::deliver::Strategy;
use crate::entries::ConfigType::{Int, Long, String as Text};
use crate::entries::{ConfigError, ConfigKey, Rule, Table, key, unset};
use crate::group::share::config as share;

const I32: i64 = i32::MAX as i64;
const I64: i64 = i64::MAX;
/// Where records go that are given up.
pub const DEAD_LETTER_TOPIC: &str = "robustmq.shared.dead.letter.topic";

/// Of share groups too.
pub const DEAD_LETTER_KEY: ConfigKey = unset(
    DEAD_LETTER_TOPIC,
    Text,
    Rule::Text,
    "Where records go that are given up; without it they are only counted. It is created if it is not there, whatever `auto_create_topics` says. One that the group reads, that has a source or that is compacted is refused.",
);

/// All entries, by name.
#[rustfmt::skip]
pub static KEYS: &[ConfigKey] = &[
    key("robustmq.shared.ack.timeout.ms", Long, "-1", Rule::Number(-1, I64),
        "What a member was given and has not acknowledged after this time is given to others; -1: only when it is gone."),
    DEAD_LETTER_KEY,
    key("robustmq.shared.delivery.limit", Int, "0", Rule::Number(0, I32),
        "A record that was delivered so often and not acknowledged is given up; 0: never."),
    key("robustmq.shared.max.inflight.bytes", Long, "-1", Rule::Number(-1, I64),
        "Bytes that a member is given ahead of its acknowledgements on one partition, about, and at least one record; -1: no limit."),
    key("robustmq.shared.max.inflight.records", Int, "4000000", Rule::Number(1, I32),
        "Records that a member is given ahead of its acknowledgements on one partition, at most."),
    key("robustmq.shared.start", Text, "earliest", Rule::OneOf(&["earliest", "latest"]),
        "Where the group begins on a partition that it has not read yet."),
    key("robustmq.shared.strategy", Text, "batch", Rule::OneOf(&["batch", "round-robin", "adaptive"]),
        "`batch`: whole batches; `round-robin`: one record to each member that waits; `adaptive`: by what each member acknowledges."),
    share::HEARTBEAT_KEY,
    share::LOCK_KEY,
    share::SESSION_KEY,
];

/// The same, to look things up in.
pub static TABLE: Table = Table(KEYS);

/// Where a group begins that has no progress on a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the first record.
    Earliest,
    /// With the next record.
    Latest,
    /// With the first record that is younger than this.
    Ago(Duration),
}

/// The values that the broker uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// `robustmq.shared.start`.
    pub start: Start,
    /// `robustmq.shared.strategy`.
    pub strategy: Strategy,
    /// `robustmq.shared.max.inflight.records`.
    pub max_in_flight_records: u32,
    /// `robustmq.shared.max.inflight.bytes`.
    pub max_in_flight_bytes: Option<u64>,
    /// `robustmq.shared.ack.timeout.ms`.
    pub acknowledge_timeout: Option<Duration>,
    /// `share.record.lock.duration.ms`.
    pub lock_duration: Duration,
    /// `robustmq.shared.delivery.limit`.
    pub delivery_limit: Option<u32>,
    /// `robustmq.shared.dead.letter.topic`.
    pub dead_letter_topic: Option<KafkaTopic>,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            start: Start::Earliest,
            strategy: Strategy::Batch,
            max_in_flight_records: limits::shared::MAX_IN_FLIGHT,
            max_in_flight_bytes: None,
            acknowledge_timeout: None,
            lock_duration: limits::shared::LOCK,
            delivery_limit: None,
            dead_letter_topic: None,
        }
    }
}

impl GroupConfig {
    /// Checks the entries that a group sets, and reads the values.
    ///
    /// # Errors
    /// [`ConfigError`] names the first entry that is wrong.
    pub fn parse(overrides: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        TABLE.check_all(overrides)?;
        let value = |name: &str| TABLE.value(overrides, name).trim();
        // Checked above, and defaults are checked by a test, so these parse.
        let number = |name: &str| value(name).parse::<i64>().unwrap_or_default();
        let positive = |name: &str| u64::try_from(number(name)).ok().filter(|number| *number > 0);
        let small = |name: &str| u32::try_from(number(name)).ok().filter(|number| *number > 0);
        Ok(Self {
            start: match value("robustmq.shared.start") {
                "latest" => Start::Latest,
                _ => Start::Earliest,
            },
            strategy: match value("robustmq.shared.strategy") {
                "round-robin" => Strategy::RoundRobin,
                "adaptive" => Strategy::Adaptive,
                _ => Strategy::Batch,
            },
            max_in_flight_records: small("robustmq.shared.max.inflight.records").unwrap_or(1),
            max_in_flight_bytes: positive("robustmq.shared.max.inflight.bytes"),
            acknowledge_timeout: positive("robustmq.shared.ack.timeout.ms")
                .map(Duration::from_millis),
            lock_duration: share::lock_duration(&TABLE, overrides),
            delivery_limit: small("robustmq.shared.delivery.limit"),
            dead_letter_topic: dead_letter_topic(overrides)?,
        })
    }
}

/// The dead-letter topic that is set.
///
/// # Errors
/// [`ConfigError`] if no topic can be called so.
pub fn dead_letter_topic(
    overrides: &BTreeMap<String, String>,
) -> Result<Option<KafkaTopic>, ConfigError> {
    let topic = overrides.get(DEAD_LETTER_TOPIC).map(|name| {
        KafkaTopic::new(name.trim()).map_err(|error| ConfigError::Invalid {
            name: DEAD_LETTER_TOPIC.to_owned(),
            value: name.clone(),
            expected: error.to_string(),
        })
    });
    topic.transpose()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use robustmq_common::ids::KafkaTopic;

    use super::{GroupConfig, KEYS, Start, TABLE};
    use crate::entries::ConfigError;
    use crate::group::shared::deliver::Strategy;

    fn set(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn defaults_are_legal_and_what_the_table_says() {
        assert_eq!(GroupConfig::parse(&BTreeMap::new()), Ok(GroupConfig::default()));
        assert!(KEYS.windows(2).all(|pair| pair[0].name < pair[1].name), "sorted by name");
        for key in KEYS {
            if let Some(default) = key.default {
                assert_eq!(TABLE.check_all(&set(&[(key.name, default)])), Ok(()), "{}", key.name);
            }
        }
    }

    #[test]
    fn what_is_set_is_read() {
        let config = GroupConfig::parse(&set(&[
            ("robustmq.shared.start", "latest"),
            ("robustmq.shared.strategy", "round-robin"),
            ("robustmq.shared.max.inflight.records", "10"),
            ("robustmq.shared.max.inflight.bytes", "1000"),
            ("robustmq.shared.ack.timeout.ms", "1500"),
            ("robustmq.shared.delivery.limit", "3"),
            ("robustmq.shared.dead.letter.topic", "lost"),
        ]));
        let expected = GroupConfig {
            start: Start::Latest,
            strategy: Strategy::RoundRobin,
            max_in_flight_records: 10,
            max_in_flight_bytes: Some(1000),
            acknowledge_timeout: Some(Duration::from_millis(1500)),
            lock_duration: Duration::from_secs(30),
            delivery_limit: Some(3),
            dead_letter_topic: Some(KafkaTopic::new("lost").expect("a legal name")),
        };
        assert_eq!(config, Ok(expected));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_name() {
        for (name, value) in [
            ("robustmq.shared.start", "middle"),
            ("robustmq.shared.strategy", "fair"),
            ("robustmq.shared.max.inflight.records", "0"),
            ("robustmq.shared.delivery.limit", "-1"),
            ("robustmq.shared.dead.letter.topic", "no/such"),
        ] {
            let refused = GroupConfig::parse(&set(&[(name, value)]));
            let named = matches!(&refused, Err(ConfigError::Invalid { name: n, .. }) if n == name);
            assert!(named, "{name}: {refused:?}");
        }
        let unknown = GroupConfig::parse(&set(&[("retention.ms", "1")]));
        assert!(matches!(unknown, Err(ConfigError::Unknown { .. })));
    }
}
