//! What has to happen at a time: connect timeout and keep alive of a connection; will delay and expiry of a session.

use std::collections::{BTreeSet, HashMap};

use super::Server;
use super::api::{ConnId, Millis, SessionId};
use crate::mqtt::packet::ReasonCode;

/// Whose deadline it is. Each has one at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum TimerKey {
    Connection(ConnId),
    Session(SessionId),
}

/// Deadlines in order. Setting one replaces the former, so that there are never more than connections and sessions.
#[derive(Default)]
pub(super) struct Timers {
    order: BTreeSet<(Millis, TimerKey)>,
    deadlines: HashMap<TimerKey, Millis>,
}

impl Timers {
    /// Sets, moves or (`None`) clears a deadline.
    pub(super) fn set(&mut self, key: TimerKey, deadline: Option<Millis>) {
        let former = match deadline {
            Some(at) => self.deadlines.insert(key, at),
            None => self.deadlines.remove(&key),
        };
        if let Some(at) = former {
            self.order.remove(&(at, key));
        }
        if let Some(at) = deadline {
            self.order.insert((at, key));
        }
    }

    pub(super) fn next(&self) -> Option<Millis> {
        self.order.first().map(|&(at, _)| at)
    }

    fn pop_due(&mut self, now: Millis) -> Option<TimerKey> {
        let &(at, key) = self.order.first()?;
        if at > now {
            return None;
        }
        self.set(key, None);
        Some(key)
    }
}

impl Server {
    /// Does what is due, and says when to call again.
    pub fn timer(&mut self, now: Millis) -> Option<Millis> {
        // What is due is taken once: whatever sets a deadline that has already passed is for the next call.
        let due: Vec<TimerKey> = std::iter::from_fn(|| self.timers.pop_due(now)).collect();
        for key in due {
            match key {
                TimerKey::Connection(conn) => self.connection_due(now, conn),
                TimerKey::Session(session) => self.session_due(now, session),
            }
        }
        self.next_deadline()
    }

    /// The driver takes nothing from any connection for now (`false`), or does so again. Meanwhile no client is silent.
    pub fn set_listening(&mut self, now: Millis, listening: bool) {
        if listening && !self.listening {
            self.listening_since = now;
        }
        self.listening = listening;
    }

    /// The driver does not read this connection for now although it was not told to pause (`true`), or does so again.
    pub fn set_unread(&mut self, conn: ConnId, unread: bool) {
        let Some(connection) = self.conns.get_mut(&conn) else { return };
        connection.unread = unread;
        connection.was_unread = true;
    }

    /// When [`Server::timer`] has to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        self.timers.next()
    }

    fn connection_due(&mut self, now: Millis, conn: ConnId) {
        let Some(connection) = self.conns.get_mut(&conn) else { return };
        // Who takes nothing of what it is sent is not read either, and that is its own fault.
        let waits_for_store = connection.paused
            && connection.unwritten_bytes < self.settings.connection_backlog_bytes / 2;
        let unread = !self.listening || connection.unread || waits_for_store;
        if unread || std::mem::replace(&mut connection.was_unread, unread) {
            // What it sent meanwhile may lie unread still: that is not the client's silence.
            connection.last_received = now;
        }
        connection.last_received = connection.last_received.max(self.listening_since);
        let deadline = connection.deadline(&self.settings);
        if deadline.is_some_and(|at| at > now) {
            // Something was received since the deadline was set.
            self.timers.set(TimerKey::Connection(conn), deadline);
            return;
        }
        if connection.session.is_some() {
            // [MQTT-3.1.2-22]
            self.counters.keep_alive_timeouts += 1;
        }
        self.close(now, conn, ReasonCode::KeepAliveTimeout);
    }

    fn session_due(&mut self, now: Millis, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        if session.expires_at.is_some_and(|at| at <= now) {
            self.counters.sessions_expired += 1;
            self.end_session(now, id);
        } else if session.will_at.is_some_and(|at| at <= now) {
            self.publish_will(now, id);
        } else {
            self.schedule_session(id);
        }
    }

    /// Sets a session's timer to whichever of its deadlines comes first.
    pub(super) fn schedule_session(&mut self, id: SessionId) {
        let deadline = self
            .sessions
            .get(&id)
            .and_then(|session| [session.will_at, session.expires_at].into_iter().flatten().min());
        self.timers.set(TimerKey::Session(id), deadline);
    }
}

#[cfg(test)]
mod tests {
    use super::{TimerKey, Timers};
    use crate::mqtt::server::{ConnId, Millis};

    #[test]
    fn a_deadline_that_moves_fires_once_at_its_last_time() {
        let (mut timers, key) = (Timers::default(), TimerKey::Connection(ConnId(1)));
        timers.set(key, Some(Millis(10)));
        timers.set(key, Some(Millis(20)));
        assert_eq!(timers.next(), Some(Millis(20)));
        assert_eq!(timers.pop_due(Millis(19)), None);
        assert_eq!(timers.pop_due(Millis(20)), Some(key));
        assert_eq!(timers.pop_due(Millis(20)), None);
        timers.set(key, Some(Millis(30)));
        timers.set(key, None);
        assert_eq!(timers.next(), None);
    }
}
