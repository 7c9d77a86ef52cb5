//! `[shared]`: defaults of `$shared/` groups.

use std::collections::BTreeMap;

use robustmq_common::config::Invalid;
use robustmq_common::limits;
use serde::{Deserialize, Serialize};

use crate::entries::ConfigError;
use crate::group::shared::config::GroupConfig;

/// `[shared]`: each entry is the default of the group configuration `robustmq.shared.*` of that name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SharedSection {
    /// `earliest` or `latest`.
    pub start: String,
    /// `batch`, `round-robin` or `adaptive`.
    pub strategy: String,
    /// `robustmq.shared.max.inflight.records`.
    pub max_inflight_records: u32,
    /// `robustmq.shared.max.inflight.bytes`; -1: no limit.
    pub max_inflight_bytes: i64,
    /// `robustmq.shared.ack.timeout.ms`; -1: none.
    pub ack_timeout_ms: i64,
    /// `robustmq.shared.delivery.limit`; 0: none.
    pub delivery_limit: u32,
    /// `robustmq.shared.dead.letter.topic`.
    pub dead_letter_topic: Option<String>,
}

impl Default for SharedSection {
    fn default() -> Self {
        Self {
            start: "earliest".to_owned(),
            strategy: "batch".to_owned(),
            max_inflight_records: limits::shared::MAX_IN_FLIGHT,
            max_inflight_bytes: -1,
            ack_timeout_ms: -1,
            delivery_limit: 0,
            dead_letter_topic: None,
        }
    }
}

impl SharedSection {
    /// Every key here, the group's entry, and its value.
    fn all(&self) -> [(&'static str, &'static str, Option<String>); 7] {
        [
            ("shared.start", "robustmq.shared.start", Some(self.start.clone())),
            ("shared.strategy", "robustmq.shared.strategy", Some(self.strategy.clone())),
            (
                "shared.max_inflight_records",
                "robustmq.shared.max.inflight.records",
                Some(self.max_inflight_records.to_string()),
            ),
            (
                "shared.max_inflight_bytes",
                "robustmq.shared.max.inflight.bytes",
                Some(self.max_inflight_bytes.to_string()),
            ),
            (
                "shared.ack_timeout_ms",
                "robustmq.shared.ack.timeout.ms",
                Some(self.ack_timeout_ms.to_string()),
            ),
            (
                "shared.delivery_limit",
                "robustmq.shared.delivery.limit",
                Some(self.delivery_limit.to_string()),
            ),
            (
                "shared.dead_letter_topic",
                "robustmq.shared.dead.letter.topic",
                self.dead_letter_topic.clone(),
            ),
        ]
    }

    /// What is not as it is without the section, under the names of group configuration.
    #[must_use]
    pub fn entries(&self) -> BTreeMap<String, String> {
        let usual = Self::default().all();
        let set = self.all().into_iter().zip(usual).filter(|(set, usual)| set.2 != usual.2);
        set.filter_map(|((_, name, value), _)| Some((name.to_owned(), value?))).collect()
    }

    pub(super) fn validate(&self) -> Result<(), Invalid> {
        let Err(error) = GroupConfig::parse(&self.entries()) else { return Ok(()) };
        let (name, why) = match &error {
            ConfigError::Invalid { name, value, expected } => {
                (name, format!("{value:?} is not allowed: {expected}"))
            }
            ConfigError::Unknown { name, .. }
            | ConfigError::NotAList { name }
            | ConfigError::Twice { name } => (name, error.to_string()),
        };
        let known = self.all();
        let key =
            known.iter().find(|(_, entry, _)| entry == name).map_or("shared", |(key, ..)| key);
        Err(Invalid::new(key, why))
    }
}
