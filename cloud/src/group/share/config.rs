//! What can be set of a share group, under Kafka's names (KIP-932, KIP-1240).

use std::collections::BTreeMap;
use std::time::Duration;

use robustmq_common::limits;

use crate::entries::ConfigType::{Int, Long, String as Text};
use crate::entries::{ConfigError, ConfigKey, Rule, Table, key};
use crate::group::shared::config::{DEAD_LETTER_KEY, GroupConfig, Start, dead_letter_topic};
use crate::group::shared::deliver::Strategy;
use crate::group::shared::is_shared;

const START: &str = "share.auto.offset.reset";
const LOCK: &str = "share.record.lock.duration.ms";
const HEARTBEAT: &str = "share.heartbeat.interval.ms";
const SESSION: &str = "share.session.timeout.ms";
const DELIVERIES: &str = "share.delivery.count.limit";
const HOUR_MS: i64 = 3_600_000;

/// Of every group that may have members of the share group protocol.
pub const HEARTBEAT_KEY: ConfigKey = key(
    HEARTBEAT,
    Int,
    "5000",
    Rule::Number(100, HOUR_MS),
    "How often members of the share group protocol send a heartbeat.",
);
/// See [`HEARTBEAT_KEY`].
pub const LOCK_KEY: ConfigKey = key(
    LOCK,
    Int,
    "30000",
    Rule::Number(1000, HOUR_MS),
    "A record that a member of the share group protocol has acquired and not acknowledged after this time goes to others.",
);
/// See [`HEARTBEAT_KEY`].
pub const SESSION_KEY: ConfigKey = key(
    SESSION,
    Int,
    "45000",
    Rule::Number(1000, HOUR_MS),
    "A member of the share group protocol of which nothing is heard for so long is no member any more.",
);

/// All entries, by name.
#[rustfmt::skip]
pub static KEYS: &[ConfigKey] = &[
    DEAD_LETTER_KEY,
    key(START, Text, "latest", Rule::Text,
        "Where the group begins on a partition that it has not read yet: `earliest`, `latest`, `by_duration:` and an ISO 8601 duration."),
    key(DELIVERIES, Long, "5", Rule::Number(1, 1_000_000),
        "A record that was delivered so often and never accepted is given up."),
    HEARTBEAT_KEY,
    key("share.isolation.level", Text, "read_uncommitted", Rule::OneOf(&["read_committed", "read_uncommitted"]),
        "Whether records of transactions that are not committed are given out: there are none yet."),
    LOCK_KEY,
    SESSION_KEY,
];

/// The same, to look things up in.
pub static TABLE: Table = Table(KEYS);

/// What a coordinator needs to know of a group's members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// `share.heartbeat.interval.ms`.
    pub heartbeat_interval: Duration,
    /// `share.session.timeout.ms`.
    pub session_timeout: Duration,
}

/// What may be set of a group with this id.
#[must_use]
pub fn table(group: &str) -> &'static Table {
    match is_shared(group) {
        true => &crate::group::shared::config::TABLE,
        false => &TABLE,
    }
}

/// How often members of a group are to be heard of.
#[must_use]
pub fn timing(group: &str, overrides: &BTreeMap<String, String>) -> Timing {
    let table = table(group);
    let interval = |name| millis(table, overrides, name);
    Timing { heartbeat_interval: interval(HEARTBEAT), session_timeout: interval(SESSION) }
}

/// `share.record.lock.duration.ms`.
#[must_use]
pub fn lock_duration(table: &Table, overrides: &BTreeMap<String, String>) -> Duration {
    millis(table, overrides, LOCK)
}

fn millis(table: &Table, overrides: &BTreeMap<String, String>, name: &str) -> Duration {
    // Entries were checked when they were set, and defaults are checked by a test, so these parse.
    Duration::from_millis(table.value(overrides, name).trim().parse().unwrap_or_default())
}

/// Checks the entries that a share group sets, and reads what its pools need.
///
/// # Errors
/// [`ConfigError`] names the first entry that is wrong.
pub fn parse(overrides: &BTreeMap<String, String>) -> Result<GroupConfig, ConfigError> {
    TABLE.check_all(overrides)?;
    let value = |name: &str| TABLE.value(overrides, name).trim();
    let start = start(value(START)).ok_or_else(|| ConfigError::Invalid {
        name: START.to_owned(),
        value: value(START).to_owned(),
        expected: "earliest, latest, or by_duration: and a duration like P1DT2H".to_owned(),
    })?;
    Ok(GroupConfig {
        start,
        strategy: Strategy::Batch,
        max_in_flight_records: limits::shared::MAX_IN_FLIGHT,
        max_in_flight_bytes: None,
        acknowledge_timeout: None,
        lock_duration: lock_duration(&TABLE, overrides),
        delivery_limit: value(DELIVERIES).parse().ok(),
        dead_letter_topic: dead_letter_topic(overrides)?,
    })
}

fn start(value: &str) -> Option<Start> {
    match value {
        "earliest" => Some(Start::Earliest),
        "latest" => Some(Start::Latest),
        _ => duration(value.strip_prefix("by_duration:")?).map(Start::Ago),
    }
}

/// An ISO 8601 duration as Java's `Duration.parse` takes it, if it is not negative: days, hours, minutes, and seconds with a fraction.
fn duration(text: &str) -> Option<Duration> {
    let text = text.to_ascii_uppercase();
    let (days, time) = match text.strip_prefix('P')?.split_once('T') {
        Some((days, time)) if !time.is_empty() => (days, time),
        Some(_) => return None,
        None => (text.strip_prefix('P')?, ""),
    };
    let mut seconds = 0.0;
    let mut parts = 0;
    for (part, units) in
        [(days, &[('D', 86_400.0)][..]), (time, &[('H', 3_600.0), ('M', 60.0), ('S', 1.0)])]
    {
        let mut rest = part;
        for (unit, factor) in units {
            let Some((number, after)) = rest.split_once(*unit) else { continue };
            let whole_only = *unit != 'S' && number.contains('.');
            if whole_only || !number.starts_with(|first: char| first.is_ascii_digit()) {
                return None;
            }
            seconds += number.parse::<f64>().ok()? * factor;
            rest = after;
            parts += 1;
        }
        if !rest.is_empty() {
            return None;
        }
    }
    Duration::try_from_secs_f64(seconds).ok().filter(|_| parts > 0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::{KEYS, TABLE, duration, parse, timing};
    use crate::entries::ConfigError;
    use crate::group::shared::config::{GroupConfig, Start};

    fn set(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn defaults_are_kafkas() {
        assert!(KEYS.windows(2).all(|pair| pair[0].name < pair[1].name), "sorted by name");
        for key in KEYS {
            let default = key.default.map(|default| set(&[(key.name, default)]));
            assert!(default.is_none_or(|set| TABLE.check_all(&set).is_ok()), "{}", key.name);
        }
        let config = parse(&BTreeMap::new()).expect("defaults are legal");
        assert_eq!((config.start, config.delivery_limit), (Start::Latest, Some(5)));
        assert_eq!(config.lock_duration, Duration::from_secs(30));
        for group in ["g", "$shared/g"] {
            let timing = timing(group, &BTreeMap::new());
            assert_eq!(timing.heartbeat_interval, Duration::from_secs(5));
            assert_eq!(timing.session_timeout, Duration::from_secs(45));
        }
    }

    #[test]
    fn what_is_set_is_read_and_nonsense_is_refused_with_its_name() {
        let config = parse(&set(&[
            ("share.auto.offset.reset", "by_duration:PT1H"),
            ("share.delivery.count.limit", "2"),
            ("share.record.lock.duration.ms", "1500"),
        ]))
        .expect("all are legal");
        assert_eq!(config.start, Start::Ago(Duration::from_secs(3600)));
        assert_eq!(config.delivery_limit, Some(2));
        assert_eq!(config.lock_duration, Duration::from_millis(1500));
        for (name, value) in [
            ("share.auto.offset.reset", "by_duration:soon"),
            ("share.delivery.count.limit", "0"),
            ("share.record.lock.duration.ms", "10"),
            ("share.isolation.level", "serializable"),
        ] {
            let refused = parse(&set(&[(name, value)]));
            let named = matches!(&refused, Err(ConfigError::Invalid { name: n, .. }) if n == name);
            assert!(named, "{name}: {refused:?}");
        }
        // `$shared/` groups have it under another name, which nothing told.
        let check = |unknown: Result<GroupConfig, ConfigError>, meant: &str| {
            let nearest = matches!(&unknown, Err(ConfigError::Unknown { nearest: Some(n), .. }) if *n == meant);
            assert!(nearest, "{unknown:?}");
        };
        check(parse(&set(&[("robustmq.shared.start", "latest")])), "share.auto.offset.reset");
        for (name, meant) in [
            ("share.auto.offset.reset", "robustmq.shared.start"),
            ("share.delivery.count.limit", "robustmq.shared.delivery.limit"),
        ] {
            check(GroupConfig::parse(&set(&[(name, "1")])), meant);
        }
    }

    #[test]
    fn durations_are_those_of_iso_8601() {
        let seconds = |text| duration(text).map(|duration| duration.as_secs_f64());
        for (text, expected) in [
            ("P2D", Some(172_800.0)),
            ("PT1H30M", Some(5_400.0)),
            ("P1DT0.5S", Some(86_400.5)),
            ("pt15m", Some(900.0)),
            ("P", None),
            ("PT", None),
            ("P1H", None),
            ("PT1.5H", None),
            ("PT-1S", None),
            ("PT1M1H", None),
            ("PT1e300S", None),
            ("PT1S ", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
