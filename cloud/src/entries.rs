//! Configuration entries that clients set on topics and groups: tables of what there is, which values are legal, changes.

use std::collections::BTreeMap;

use robustmq_common::limits;

/// The types that DescribeConfigs tells (KIP-569).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigType {
    /// `true` or `false`.
    Boolean,
    /// Any text.
    String,
    /// A 32-bit number.
    Int,
    /// A 64-bit number.
    Long,
    /// A number with a fraction.
    Double,
    /// Values with commas between them.
    List,
}

/// Which values are legal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Rule {
    Boolean,
    /// A whole number from..=to.
    Number(i64, i64),
    Fraction(f64, f64),
    OneOf(&'static [&'static str]),
    /// A list of these, not empty.
    AnyOf(&'static [&'static str]),
    /// Known, legal in Kafka, and refused here: only these values, for this reason.
    Only(&'static [&'static str], &'static str),
    /// `replica:broker` pairs in Kafka: any text.
    Text,
}

/// One configuration entry that a topic or a group may have.
#[derive(Debug, Clone, Copy)]
pub struct ConfigKey {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: ConfigType,
    /// Its value where none is set; `None` is null.
    pub default: Option<&'static str>,
    /// What it does, in a sentence.
    pub doc: &'static str,
    pub(crate) rule: Rule,
}

impl ConfigKey {
    /// Which values are legal, in words.
    #[must_use]
    pub fn allowed(&self) -> String {
        match self.rule {
            Rule::Boolean => "true or false".to_owned(),
            Rule::Number(from, i64::MAX) => format!("a whole number, {from} or more"),
            Rule::Number(from, to) => format!("a whole number from {from} to {to}"),
            Rule::Fraction(from, to) => format!("a number from {from} to {to}"),
            Rule::OneOf(legal) => format!("one of {}", legal.join(", ")),
            Rule::AnyOf(legal) => format!("a list of {}", legal.join(", ")),
            Rule::Only(legal, _) => format!("only {}", legal.join(", ")),
            Rule::Text if self.kind == ConfigType::List => "a list".to_owned(),
            Rule::Text => "text".to_owned(),
        }
    }
}

/// An entry with a default.
pub(crate) const fn key(
    name: &'static str,
    kind: ConfigType,
    default: &'static str,
    rule: Rule,
    doc: &'static str,
) -> ConfigKey {
    ConfigKey { name, kind, default: Some(default), doc, rule }
}

/// An entry without.
pub(crate) const fn unset(
    name: &'static str,
    kind: ConfigType,
    rule: Rule,
    doc: &'static str,
) -> ConfigKey {
    ConfigKey { name, kind, default: None, doc, rule }
}

/// Why a configuration entry was refused. Kafka: INVALID_CONFIG.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is no such entry.
    #[error("unknown configuration entry {name}{}", hint(*nearest))]
    Unknown {
        /// Its name.
        name: String,
        /// The one that was perhaps meant.
        nearest: Option<&'static str>,
    },
    /// The value is not legal.
    #[error("configuration entry {name} cannot be {value:?}: {expected}")]
    Invalid {
        /// Its name.
        name: String,
        /// The value given.
        value: String,
        /// What is legal.
        expected: String,
    },
    /// Append and Subtract are for lists only.
    #[error("configuration entry {name} is not a list")]
    NotAList {
        /// Its name.
        name: String,
    },
    /// The entry was changed twice in one request.
    #[error("configuration entry {name} is given twice")]
    Twice {
        /// Its name.
        name: String,
    },
}

fn hint(nearest: Option<&'static str>) -> String {
    nearest.map(|name| format!("; is it {name} that is meant?")).unwrap_or_default()
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigSource {
    /// The topic or the group sets it.
    Resource,
    /// The broker's configuration has another default (`STATIC_BROKER_CONFIG`).
    Broker,
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

/// One change of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    /// The entry's name.
    pub name: String,
    /// What to do.
    pub op: ConfigOp,
}

/// What `$shared/` groups and share groups call differently.
const OF_GROUPS: [(&str, &str); 2] = [
    ("robustmq.shared.start", "share.auto.offset.reset"),
    ("robustmq.shared.delivery.limit", "share.delivery.count.limit"),
];

/// Every entry that a kind of resource may have.
#[derive(Debug, Clone, Copy)]
pub struct Table(pub &'static [ConfigKey]);

impl Table {
    /// The entry called `name`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&'static ConfigKey> {
        self.0.iter().find(|key| key.name == name)
    }

    /// Whether there is an entry called `name`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn unknown(&self, name: &str) -> ConfigError {
        /// Of 1 for equal names: with less, another one is hardly meant.
        const ALIKE: f64 = 0.85;
        let elsewhere = OF_GROUPS.iter().find_map(|(shared, share)| match name {
            _ if name == *share => Some(*shared),
            _ if name == *shared => Some(*share),
            _ => None,
        });
        if let Some(nearest) = elsewhere.filter(|nearest| self.has(nearest)) {
            return ConfigError::Unknown { name: name.to_owned(), nearest: Some(nearest) };
        }
        let likeness = |key: &ConfigKey| strsim::jaro(key.name, name);
        let nearest = self.0.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        let nearest = nearest.filter(|key| likeness(key) >= ALIKE).map(|key| key.name);
        ConfigError::Unknown { name: name.chars().take(100).collect(), nearest }
    }

    /// Checks all entries that are set.
    ///
    /// # Errors
    /// [`ConfigError`] names the first entry that is wrong.
    pub fn check_all(&self, overrides: &BTreeMap<String, String>) -> Result<(), ConfigError> {
        overrides.iter().try_for_each(|(name, value)| self.check(name, value))
    }

    /// The value in effect; empty where that is null.
    #[must_use]
    pub fn value<'a>(&self, overrides: &'a BTreeMap<String, String>, name: &str) -> &'a str {
        let default = || self.find(name).and_then(|key| key.default);
        overrides.get(name).map(String::as_str).or_else(default).unwrap_or_default()
    }

    /// Every entry with its value, where `overrides` are set.
    pub fn describe<'a>(
        &self,
        overrides: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = ConfigEntry<'a>> + use<'a> {
        self.0.iter().map(|key| match overrides.get(key.name) {
            Some(value) => ConfigEntry { key, value: Some(value), source: ConfigSource::Resource },
            None => ConfigEntry { key, value: key.default, source: ConfigSource::Default },
        })
    }

    /// The entries that are set after `changes`, each legal by itself.
    ///
    /// # Errors
    /// [`ConfigError`] names the first entry that is wrong.
    pub fn apply(
        &self,
        overrides: &BTreeMap<String, String>,
        changes: &[ConfigChange],
    ) -> Result<BTreeMap<String, String>, ConfigError> {
        let mut changed = overrides.clone();
        for (index, ConfigChange { name, op }) in changes.iter().enumerate() {
            let key = self.find(name).ok_or_else(|| self.unknown(name))?;
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
        self.check_all(&changed)?;
        Ok(changed)
    }

    fn check(&self, name: &str, value: &str) -> Result<(), ConfigError> {
        let key = self.find(name).ok_or_else(|| self.unknown(name))?;
        let invalid = |expected: String| ConfigError::Invalid {
            name: name.to_owned(),
            value: value.chars().take(100).collect(),
            expected,
        };
        if value.len() > limits::TOPIC_CONFIG_VALUE_BYTES {
            return Err(invalid(format!("it is longer than {}", limits::TOPIC_CONFIG_VALUE_BYTES)));
        }
        let text = value.trim();
        let within = |legal: bool| match (legal, key.rule) {
            (true, _) => Ok(()),
            (false, Rule::Only(_, reason)) => Err(invalid(reason.to_owned())),
            (false, _) => Err(invalid(format!("it is {}", key.allowed()))),
        };
        within(match key.rule {
            Rule::Boolean => text == "true" || text == "false",
            Rule::Number(from, to) => {
                text.parse().is_ok_and(|number: i64| from <= number && number <= to)
            }
            Rule::Fraction(from, to) => {
                text.parse().is_ok_and(|number: f64| (from..=to).contains(&number))
            }
            Rule::OneOf(legal) | Rule::Only(legal, _) => legal.contains(&text),
            Rule::AnyOf(legal) => text.split(',').all(|item| legal.contains(&item.trim())),
            Rule::Text => true,
        })
    }
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
