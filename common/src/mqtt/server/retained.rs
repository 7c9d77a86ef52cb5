//! Retained messages (section 3.3.1.3), in the order of their topics.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::api::Millis;
use super::changes::Message;
use crate::limits::MQTT_RETAINED_SWEEP;
use crate::mqtt::packet::{TopicName, topic_matches_filter};

/// The retained message of each topic that has one.
#[derive(Default)]
pub(super) struct Retained {
    messages: BTreeMap<TopicName, Arc<Message>>,
    bytes: usize,
    swept_at: Option<Millis>,
}

fn bytes_of(message: &Message) -> usize {
    message.topic.as_str().len() + message.payload.len()
}

/// What became of a message that was to be retained.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It is the topic's first.
    New,
    /// It replaced another.
    Replaced,
    /// There are too many.
    Full,
}

/// What a search came upon.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Search {
    Found(Arc<Message>),
    /// There is no further match.
    Nothing,
    /// Nothing yet; it goes on after this topic.
    GoOn(Option<TopicName>),
}

impl Retained {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn get(&self, topic: &TopicName) -> Option<&Arc<Message>> {
        self.messages.get(topic)
    }

    /// Keeps a message, unless `messages` or `bytes` would be passed.
    pub(super) fn insert(&mut self, message: Arc<Message>, messages: usize, bytes: usize) -> Kept {
        let former = self.messages.get(&message.topic);
        let freed = former.map_or(0, |former| bytes_of(former));
        let total = self.bytes - freed + bytes_of(&message);
        let full = former.is_none() && self.messages.len() >= messages;
        if full || total > bytes {
            return Kept::Full;
        }
        self.bytes = total;
        match self.messages.insert(message.topic.clone(), message) {
            None => Kept::New,
            Some(_) => Kept::Replaced,
        }
    }

    /// Removes a topic's message. `true` if there was one.
    pub(super) fn remove(&mut self, topic: &TopicName) -> bool {
        let Some(message) = self.messages.remove(topic) else { return false };
        self.bytes -= bytes_of(&message);
        true
    }

    /// The first message after topic `after` whose topic matches and which has not expired. Each message that is looked at
    /// takes one of `steps`; where they run out, the search says from where to go on.
    pub(super) fn next_match(
        &self,
        filter: &str,
        after: Option<&TopicName>,
        now: Millis,
        steps: &mut usize,
    ) -> Search {
        let live = |message: &Message| message.expires_at.is_none_or(|at| at > now);
        if !filter.contains(['+', '#']) {
            *steps = steps.saturating_sub(1);
            let found = self.messages.get(filter).filter(|found| after.is_none() && live(found));
            return found.map_or(Search::Nothing, |found| Search::Found(found.clone()));
        }
        // All topics that match start with what stands before the first wildcard; `a/#` matches `a` too.
        let prefix = filter.split(['+', '#']).next().unwrap_or_default();
        let prefix = if filter.ends_with("/#") && prefix.len() + 1 == filter.len() {
            prefix.trim_end_matches('/')
        } else {
            prefix
        };
        let start = match after {
            Some(topic) => Bound::Excluded(topic.as_str()),
            None => Bound::Included(prefix),
        };
        let candidates = self
            .messages
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(topic, _)| topic.as_str().starts_with(prefix));
        let mut last = after;
        for (topic, message) in candidates {
            let Some(left) = steps.checked_sub(1) else { return Search::GoOn(last.cloned()) };
            *steps = left;
            if topic_matches_filter(topic.as_str(), filter) && live(message) {
                return Search::Found(message.clone());
            }
            last = Some(topic);
        }
        // A filter that finds nothing takes a step too: there may be many of them.
        *steps = steps.saturating_sub(1);
        Search::Nothing
    }

    /// Removes what has expired and names it. Looks through all messages, so it does so only now and then.
    pub(super) fn sweep(&mut self, now: Millis) -> Vec<TopicName> {
        if self.swept_at.is_some_and(|at| now < at.after(MQTT_RETAINED_SWEEP)) {
            return Vec::new();
        }
        self.swept_at = Some(now);
        let expired: Vec<TopicName> = self
            .messages
            .values()
            .filter(|message| message.expires_at.is_some_and(|at| at <= now))
            .map(|message| message.topic.clone())
            .collect();
        for topic in &expired {
            self.remove(topic);
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::{Kept, Retained, Search};
    use crate::mqtt::packet::{MessageProperties, QoS, TopicName};
    use crate::mqtt::server::{Message, Millis};

    fn message(topic: &str, expires_at: Option<u64>) -> Arc<Message> {
        Arc::new(Message {
            topic: TopicName::new(topic).expect("valid"),
            payload: Bytes::from_static(b"x"),
            qos: QoS::AtMostOnce,
            properties: MessageProperties::default(),
            expires_at: expires_at.map(Millis),
        })
    }

    #[test]
    fn a_filter_walks_over_the_topics_that_it_matches() {
        let mut retained = Retained::default();
        for topic in ["a", "a/b", "a/b/c", "a-b", "aa", "b/x", "$SYS/x", "/a"] {
            assert_eq!(retained.insert(message(topic, None), 100, 1000), Kept::New);
        }
        let check = |filter: &str, expected: &[&str]| {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                // So few steps that most searches have to go on.
                match retained.next_match(filter, after.as_ref(), Millis(0), &mut 2) {
                    Search::Found(next) => {
                        found.push(next.topic.as_str().to_owned());
                        after = Some(next.topic.clone());
                    }
                    Search::GoOn(topic) => after = topic,
                    Search::Nothing => break,
                }
            }
            assert_eq!(found, expected, "{filter}");
        };
        check("a", &["a"]);
        check("a/#", &["a", "a/b", "a/b/c"]);
        check("a/+", &["a/b"]);
        check("+/x", &["b/x"]);
        check("$SYS/#", &["$SYS/x"]);
        check("#", &["/a", "a", "a-b", "a/b", "a/b/c", "aa", "b/x"]);
        check("/+", &["/a"]);
        check("/#", &["/a"]);
        check("nothing", &[]);
    }

    #[test]
    fn an_expired_message_is_not_found_and_is_swept() {
        let mut retained = Retained::default();
        retained.insert(message("a", Some(10)), 1, 100);
        let found = |now| retained.next_match("a", None, Millis(now), &mut 9) != Search::Nothing;
        assert!(found(9));
        assert!(!found(10));
        assert_eq!(retained.sweep(Millis(9)), []);
        assert_eq!(retained.sweep(Millis(10)), [], "it was swept just now");
        assert_eq!(retained.sweep(Millis(10_009)).len(), 1);
        assert_eq!(retained.len(), 0);
    }

    #[test]
    fn messages_and_bytes_are_bounded() {
        let mut retained = Retained::default();
        assert_eq!(retained.insert(message("a", None), 1, 100), Kept::New);
        assert_eq!(retained.insert(message("b", None), 1, 100), Kept::Full);
        assert_eq!(retained.insert(message("a", None), 1, 100), Kept::Replaced);
        assert_eq!(retained.insert(message("b", None), 9, 3), Kept::Full);
        assert_eq!(retained.insert(message("b", None), 9, 4), Kept::New);
        let topic = TopicName::new("a").expect("valid");
        assert!(retained.remove(&topic));
        assert!(!retained.remove(&topic));
        assert_eq!(retained.insert(message("c", None), 9, 4), Kept::New);
    }
}
