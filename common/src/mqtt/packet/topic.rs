//! Topic names and filters (section 4.7): validated once, then trusted.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::limits::MQTT_TOPIC_LEVELS;

/// Why a topic name or filter is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopic {
    /// [MQTT-4.7.3-1]
    #[error("a topic must have at least one character")]
    Empty,
    /// [MQTT-4.7.3-3]
    #[error("a topic of {0} bytes; at most 65535 are allowed")]
    TooLong(usize),
    /// [MQTT-4.7.3-2]
    #[error("a topic must not contain U+0000")]
    Null,
    /// [MQTT-3.3.2-2]
    #[error("a topic name must not contain '+' or '#'")]
    Wildcard,
    /// [MQTT-4.7.1-1]
    #[error("'#' must be the whole last level of a filter")]
    MultiLevel,
    /// [MQTT-4.7.1-2]
    #[error("'+' must be a whole level of a filter")]
    SingleLevel,
    /// [MQTT-4.8.2-1], [MQTT-4.8.2-2]
    #[error("a shared filter must be $share/NAME/FILTER, NAME without '+', '#' and not empty")]
    Share,
    /// A limit of this server, so that matching takes bounded time.
    #[error("a topic of {0} levels; at most {MQTT_TOPIC_LEVELS} are taken")]
    TooManyLevels(usize),
}

fn check_text(text: &str) -> Result<(), InvalidTopic> {
    if text.is_empty() {
        return Err(InvalidTopic::Empty);
    }
    if text.len() > usize::from(u16::MAX) {
        return Err(InvalidTopic::TooLong(text.len()));
    }
    if text.contains('\0') {
        return Err(InvalidTopic::Null);
    }
    let levels = text.split('/').count();
    if levels > MQTT_TOPIC_LEVELS {
        return Err(InvalidTopic::TooManyLevels(levels));
    }
    Ok(())
}

fn check_filter(filter: &str) -> Result<(), InvalidTopic> {
    check_text(filter)?;
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Err(InvalidTopic::MultiLevel);
        }
        if level.contains('+') && level != "+" {
            return Err(InvalidTopic::SingleLevel);
        }
    }
    Ok(())
}

macro_rules! text_newtype {
    ($name:ident) => {
        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

/// A topic name: not empty, without wildcards and U+0000, at most 65,535 bytes of UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);
text_newtype!(TopicName);

impl TopicName {
    /// Checks and wraps a name.
    ///
    /// # Errors
    /// [`InvalidTopic`] says which rule it breaks.
    pub fn new(name: &str) -> Result<Self, InvalidTopic> {
        check_text(name)?;
        if name.contains(['+', '#']) {
            return Err(InvalidTopic::Wildcard);
        }
        Ok(Self(name.into()))
    }
}

/// A topic filter, shared (`$share/NAME/FILTER`) or not.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter(Arc<str>);
text_newtype!(TopicFilter);

/// The two parts of a shared subscription's filter (section 4.8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedFilter<'a> {
    /// ShareName.
    pub group: &'a str,
    /// The filter that is matched.
    pub filter: &'a str,
}

const SHARE_PREFIX: &str = "$share/";

impl TopicFilter {
    /// Checks and wraps a filter.
    ///
    /// # Errors
    /// [`InvalidTopic`] says which rule it breaks.
    pub fn new(filter: &str) -> Result<Self, InvalidTopic> {
        check_filter(filter)?;
        if let Some(rest) = filter.strip_prefix(SHARE_PREFIX) {
            let (group, inner) = rest.split_once('/').ok_or(InvalidTopic::Share)?;
            if group.is_empty() || group.contains(['+', '#']) || inner.is_empty() {
                return Err(InvalidTopic::Share);
            }
        }
        Ok(Self(filter.into()))
    }

    /// Group and inner filter of a shared subscription; `None` for a plain one.
    #[must_use]
    pub fn shared(&self) -> Option<SharedFilter<'_>> {
        let (group, filter) = self.0.strip_prefix(SHARE_PREFIX)?.split_once('/')?;
        Some(SharedFilter { group, filter })
    }

    /// The filter that topics are matched with: without `$share/NAME/`.
    #[must_use]
    pub fn matched(&self) -> &str {
        self.shared().map_or(self.as_str(), |shared| shared.filter)
    }

    /// Whether a topic name matches (section 4.7).
    #[must_use]
    pub fn matches(&self, topic: &TopicName) -> bool {
        topic_matches_filter(topic.as_str(), self.matched())
    }
}

/// Whether a topic name matches a filter, both valid. Wildcards at the first level do not match a name that starts with
/// `$` [MQTT-4.7.2-1].
#[must_use]
pub fn topic_matches_filter(topic: &str, filter: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut topic_levels = topic.split('/');
    let mut filter_levels = filter.split('/');
    loop {
        match (filter_levels.next(), topic_levels.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{InvalidTopic, SharedFilter, TopicFilter, TopicName, topic_matches_filter};

    #[test]
    fn topic_names_follow_section_4_7() {
        let check = |name: &str, expected: Result<(), InvalidTopic>| {
            assert_eq!(TopicName::new(name).map(|_| ()), expected, "{name:?}");
        };
        check("a", Ok(()));
        check("/", Ok(()));
        check("/finance", Ok(()));
        check("Accounts payable", Ok(()));
        check("größe/\u{1F600}", Ok(()));
        check("$SYS/x", Ok(()));
        check("", Err(InvalidTopic::Empty));
        check("a\0b", Err(InvalidTopic::Null));
        check("a/+", Err(InvalidTopic::Wildcard));
        check("a#", Err(InvalidTopic::Wildcard));
        check(&"x".repeat(65_535), Ok(()));
        check(&"x".repeat(65_536), Err(InvalidTopic::TooLong(65_536)));
        check(&"/".repeat(127), Ok(()));
        check(&"/".repeat(128), Err(InvalidTopic::TooManyLevels(129)));
    }

    #[test]
    fn topic_filters_follow_section_4_7_and_4_8() {
        let check = |filter: &str, expected: Result<(), InvalidTopic>| {
            assert_eq!(TopicFilter::new(filter).map(|_| ()), expected, "{filter:?}");
        };
        check("#", Ok(()));
        check("+", Ok(()));
        check("sport/tennis/#", Ok(()));
        check("+/tennis/#", Ok(()));
        check("sport/+/player1", Ok(()));
        check("/+", Ok(()));
        check("", Err(InvalidTopic::Empty));
        check("sport/tennis#", Err(InvalidTopic::MultiLevel));
        check("sport/tennis/#/ranking", Err(InvalidTopic::MultiLevel));
        check("sport+", Err(InvalidTopic::SingleLevel));
        check("a\0", Err(InvalidTopic::Null));
        check("$share/consumer1/sport/tennis/+", Ok(()));
        check("$share/consumer1//finance", Ok(()));
        check("$share", Ok(()));
        check("$share/", Err(InvalidTopic::Share));
        check("$share/g", Err(InvalidTopic::Share));
        check("$share/g/", Err(InvalidTopic::Share));
        check("$share//a", Err(InvalidTopic::Share));
        check("$share/+/a", Err(InvalidTopic::Share));
        check("$shared/g", Ok(()));
    }

    #[test]
    fn a_shared_filter_is_split_into_group_and_filter() {
        let filter = TopicFilter::new("$share/consumer1//finance").expect("valid");
        assert_eq!(filter.shared(), Some(SharedFilter { group: "consumer1", filter: "/finance" }));
        assert_eq!(filter.matched(), "/finance");
        assert_eq!(TopicFilter::new("a/b").expect("valid").shared(), None);
    }

    #[test]
    fn matching_follows_the_examples_of_section_4_7() {
        let check = |filter: &str, topic: &str, expected: bool| {
            assert_eq!(topic_matches_filter(topic, filter), expected, "{filter} {topic}");
        };
        check("sport/tennis/player1/#", "sport/tennis/player1", true);
        check("sport/tennis/player1/#", "sport/tennis/player1/ranking", true);
        check("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true);
        check("sport/tennis/player1/#", "sport/tennis/player10", false);
        check("sport/#", "sport", true);
        check("#", "anything/at/all", true);
        check("sport/tennis/+", "sport/tennis/player1", true);
        check("sport/tennis/+", "sport/tennis/player1/ranking", false);
        check("sport/+", "sport", false);
        check("sport/+", "sport/", true);
        check("+/+", "/finance", true);
        check("/+", "/finance", true);
        check("+", "/finance", false);
        check("#", "$SYS/x", false);
        check("+/monitor/Clients", "$SYS/monitor/Clients", false);
        check("$SYS/#", "$SYS/", true);
        check("$SYS/monitor/+", "$SYS/monitor/Clients", true);
        check("a/b", "a/b", true);
        check("a/b", "A/b", false);
        check("größe/+", "größe/x", true);
        check("+", "ü", true);
    }
}
