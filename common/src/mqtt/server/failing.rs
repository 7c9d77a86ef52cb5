//! While nothing can be made durable, for want of space on the disk perhaps: who needs that is told so at once, and everybody
//! else goes on.
//!
//! **Invariant:** no kept session comes into being, so that what waits for the disk does not grow with those who knock.

use super::Server;
use super::api::{ConnId, Millis};
use super::session::Connection;
use crate::mqtt::packet::{Packet, ReasonCode};

impl Server {
    /// The driver cannot make changes durable for now (`true`), or can again. Those whose CONNECT waits for that are refused, as
    /// are those who come meanwhile for a session that is kept; they may try again. What has been answered stands, and changes
    /// that were handed out or wait are still to be made durable.
    pub fn set_failing(&mut self, now: Millis, failing: bool) {
        self.failing = failing;
        if failing {
            let waiting: Vec<ConnId> = self.holding.iter().copied().collect();
            waiting.into_iter().for_each(|conn| self.turn_away(now, conn));
        }
    }

    /// Refuses a CONNECT that was accepted and not yet answered.
    fn turn_away(&mut self, now: Millis, conn: ConnId) {
        let Some(connection) = self.conns.get_mut(&conn) else { return };
        let Some(session_present) = unanswered_connect(connection) else { return };
        connection.held.clear();
        let (version, id) = (connection.version, connection.session.take());
        self.refuse(now, conn, version, ReasonCode::ServerUnavailable);
        let Some(session) = id.and_then(|id| self.sessions.get_mut(&id)) else { return };
        let id = session.id;
        session.conn = None;
        // It came with the CONNECT, which has failed.
        session.will = None;
        if session_present {
            self.session_left(now, id);
        } else {
            // Its client has never heard of it.
            self.end_session(now, id);
        }
    }
}

/// What the CONNACK that waits says of the session; `None` if none does.
fn unanswered_connect(connection: &Connection) -> Option<bool> {
    connection.held.iter().find_map(|held| match &held.packet {
        Packet::ConnAck(answer) => Some(answer.session_present),
        _ => None,
    })
}
