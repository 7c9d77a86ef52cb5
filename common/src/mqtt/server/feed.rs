//! Retained messages for new subscriptions (section 3.3.1.3), a few at a time: a search through all of them for many filters
//! would keep everybody else waiting.
//!
//! **Invariant:** no call looks at more than `limits::MQTT_RETAINED_STEPS` retained messages for a session.

use std::collections::{HashSet, VecDeque};

use super::Server;
use super::api::{Millis, SessionId};
use super::outbound::new_delivery;
use super::retained::Search;
use super::sys::is_own;

/// Retained messages are queued only while fewer messages than this wait for the session.
const RETAINED_AHEAD_MESSAGES: usize = 32;

/// Sessions whose search goes on, in turn.
#[derive(Default)]
pub(super) struct Searching {
    order: VecDeque<SessionId>,
    known: HashSet<SessionId>,
}

impl Searching {
    fn push(&mut self, id: SessionId) {
        if self.known.insert(id) {
            self.order.push_back(id);
        }
    }

    fn pop(&mut self) -> Option<SessionId> {
        let id = self.order.pop_front()?;
        self.known.remove(&id);
        Some(id)
    }
}

impl Server {
    /// Whether there is something to do that was put off so that others come first: call [`Server::work`].
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.searching.order.is_empty()
    }

    /// Does a bounded part of what was put off.
    pub fn work(&mut self, now: Millis) {
        if let Some(id) = self.searching.pop() {
            self.pump(now, id);
        }
    }

    /// Queues retained messages for a session's new subscriptions, as long as there are `steps` left.
    pub(super) fn feed_retained(&mut self, now: Millis, id: SessionId, steps: &mut usize) {
        if self.searching.known.contains(&id) {
            return;
        }
        loop {
            let Some(session) = self.sessions.get_mut(&id) else { return };
            let Some(mut cursor) = session.retained.first_entry() else { return };
            if session.conn.is_none() || session.out.queued().len() >= RETAINED_AHEAD_MESSAGES {
                return;
            }
            if *steps == 0 {
                return self.searching.push(id);
            }
            let (filter, after) = (cursor.key().as_str(), cursor.get().after.as_ref());
            let kept = if is_own(filter) { &self.sys } else { &self.retained };
            let message = match kept.next_match(filter, after, now, steps) {
                Search::Found(message) => message,
                Search::GoOn(after) => {
                    cursor.get_mut().after = after;
                    continue;
                }
                Search::Nothing => {
                    cursor.remove();
                    continue;
                }
            };
            let cursor = cursor.get_mut();
            cursor.after = Some(message.topic.clone());
            let (options, identifier) = (cursor.options, cursor.identifier);
            let mut delivery = new_delivery(&message, options.maximum_qos);
            delivery.retain = true;
            delivery.identifiers.extend(identifier);
            self.enqueue(id, delivery);
        }
    }
}
