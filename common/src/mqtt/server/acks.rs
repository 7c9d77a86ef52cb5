//! PUBACK, PUBREC, PUBREL, PUBCOMP (sections 3.4 to 3.7 and 4.3).

use super::Server;
use super::api::{ConnId, Millis, SessionId};
use super::changes::{OutgoingPhase, StateChange};
use super::journal::Existed;
use super::outbound::{record_outgoing, session_of};
use super::session::Received;
use crate::mqtt::packet::{Ack, Packet, PacketId, QoS, ReasonCode};

impl Server {
    /// The client has taken a QoS 1 message.
    pub(super) fn recv_puback(&mut self, now: Millis, conn: ConnId, ack: &Ack) {
        let Some((id, index)) = self.find_outgoing(conn, ack.packet_id) else { return };
        if self.outgoing_is(id, index, |qos, _| qos == QoS::AtLeastOnce) {
            self.finish_outgoing(now, id, index);
        } else {
            self.protocol_error(now, conn, ReasonCode::ProtocolError);
        }
    }

    /// The client has received a QoS 2 message. PUBREL leaves when the release is durable: were it sent before, then
    /// after a crash the message would be sent again to a client that has already forgotten its packet id.
    pub(super) fn recv_pubrec(&mut self, now: Millis, conn: ConnId, ack: &Ack) {
        let Some((id, index)) = self.find_outgoing(conn, ack.packet_id) else {
            // Section 4.3.3 wants an answer, so that the client can forget the packet id too.
            let unknown = Ack::new(ack.packet_id, ReasonCode::PacketIdentifierNotFound);
            return self.send(conn, Packet::PubRel(unknown), None);
        };
        if !self.outgoing_is(id, index, |qos, _| qos == QoS::ExactlyOnce) {
            return self.protocol_error(now, conn, ReasonCode::ProtocolError);
        }
        if ack.reason.is_error() {
            return self.finish_outgoing(now, id, index);
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let released = OutgoingPhase::Released(ack.packet_id);
        if session.out.inflight().get(index).is_some_and(|delivery| delivery.phase != released) {
            session.out.release(index, ack.packet_id);
            if session.persistent
                && let Some(delivery) = session.out.inflight().get(index)
            {
                record_outgoing(&mut self.journal, session, delivery);
            }
        }
        let until = if session.persistent { self.journal.barrier() } else { None };
        self.send(conn, Packet::PubRel(Ack::new(ack.packet_id, ReasonCode::Success)), until);
    }

    /// The client has forgotten the packet id of a QoS 2 message.
    pub(super) fn recv_pubcomp(&mut self, now: Millis, conn: ConnId, ack: &Ack) {
        let Some((id, index)) = self.find_outgoing(conn, ack.packet_id) else { return };
        let released = |_, phase| matches!(phase, OutgoingPhase::Released(_));
        if self.outgoing_is(id, index, released) {
            self.finish_outgoing(now, id, index);
        } else {
            self.protocol_error(now, conn, ReasonCode::ProtocolError);
        }
    }

    /// The client releases a QoS 2 message of its own. PUBCOMP leaves when the packet id is durably free: were it sent
    /// before, then after a crash a new message with the same packet id would be taken for a duplicate, and lost.
    pub(super) fn recv_pubrel(&mut self, now: Millis, conn: ConnId, ack: &Ack) {
        let Some(id) = session_of(self.conns.get(&conn)) else { return };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let mut reason = ReasonCode::Success;
        match session.received.get(&ack.packet_id) {
            // No PUBREC was sent yet.
            Some(Received::Storing(_)) => {
                return self.protocol_error(now, conn, ReasonCode::ProtocolError);
            }
            Some(Received::Stored) => {
                session.received.remove(&ack.packet_id);
                if session.persistent {
                    let change = StateChange::RemoveReceived(session.client.clone(), ack.packet_id);
                    self.journal.record(change, Existed::Maybe);
                    // Also where that cancels a row not yet written: the queue's record would bring it back.
                    self.journal.want_position();
                }
            }
            None => reason = ReasonCode::PacketIdentifierNotFound,
        }
        let until = if session.persistent { self.journal.barrier() } else { None };
        self.send(conn, Packet::PubComp(Ack::new(ack.packet_id, reason)), until);
        self.update_flow(conn);
    }

    fn find_outgoing(&self, conn: ConnId, packet_id: PacketId) -> Option<(SessionId, usize)> {
        let id = session_of(self.conns.get(&conn))?;
        let out = &self.sessions.get(&id)?.out;
        // What was not yet sent again on this connection is none that the client could acknowledge, but one that
        // acknowledges late, from the former connection, does no harm.
        out.find(packet_id).map(|index| (id, index))
    }

    fn outgoing_is(
        &self,
        id: SessionId,
        index: usize,
        test: impl Fn(QoS, OutgoingPhase) -> bool,
    ) -> bool {
        let delivery = self.sessions.get(&id).and_then(|session| session.out.inflight().get(index));
        delivery.is_some_and(|delivery| test(delivery.qos, delivery.phase))
    }

    fn finish_outgoing(&mut self, now: Millis, id: SessionId, index: usize) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(delivery) = session.out.remove_inflight(index) else { return };
        if session.persistent {
            let change = StateChange::RemoveOutgoing(session.client.clone(), delivery.number);
            self.journal.record(change, Existed::Maybe);
        }
        self.pump(now, id);
    }
}
