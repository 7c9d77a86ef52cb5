//! CONNECT (sections 3.1 and 3.2): who may connect, and with which session.

use std::num::{NonZeroU16, NonZeroU32};

use super::Server;
use super::api::{Action, ClientId, ConnId, Millis, PeerInfo, SessionId};
use super::changes::StateChange;
use super::journal::Existed;
use super::session::{Connection, Session};
use super::timers::TimerKey;
use crate::mqtt::codec::DecodeError;
use crate::mqtt::packet::{
    ConnAck, ConnAckProperties, Connect, ConnectReturnCode, Packet, ProtocolVersion, ReasonCode,
};

impl Server {
    /// A network connection was accepted. Its CONNECT has to follow within the connect timeout.
    pub fn connected(&mut self, now: Millis, conn: ConnId, peer: PeerInfo) {
        self.counters.connections_opened += 1;
        let connection = Connection::new(now, peer);
        let deadline = connection.deadline(&self.settings);
        self.conns.insert(conn, connection);
        self.timers.set(TimerKey::Connection(conn), deadline);
    }

    pub(super) fn recv_connect(&mut self, now: Millis, conn: ConnId, connect: Connect) {
        let Some(connection) = self.conns.get_mut(&conn) else { return };
        if connection.session.is_some() {
            // [MQTT-3.1.0-2]
            return self.protocol_error(now, conn, ReasonCode::ProtocolError);
        }
        connection.version = connect.version;
        let client = match self.check_connect(conn, &connect) {
            Ok(client) => client,
            Err(reason) => return self.refuse(now, conn, connect.version, reason),
        };
        let expiry = self.expiry_for(&connect);
        if self.failing && expiry > 0 {
            return self.refuse(now, conn, connect.version, ReasonCode::ServerUnavailable);
        }
        self.leave_predecessor(now, &client, connect.clean_start);
        let existing = self.by_client.get(&client.id).copied();
        if existing.is_none() && self.sessions.len() >= self.settings.max_sessions {
            return self.refuse(now, conn, connect.version, ReasonCode::QuotaExceeded);
        }
        let id = existing.unwrap_or_else(|| self.create_session(now, &client.id, connect.version));
        self.attach(now, conn, id, &connect, expiry);
        let acknowledgement = self.connack(&connect, &client, existing.is_some(), expiry);
        let persistent = self.sessions.get(&id).is_some_and(|session| session.persistent);
        // A session that the client has been told of has to be there after a crash.
        let until = if persistent { self.journal.barrier() } else { None };
        self.send(conn, acknowledgement, until);
        self.pump(now, id);
    }

    /// What could not be decoded: the client is told why, and the connection ends.
    pub fn malformed(&mut self, now: Millis, conn: ConnId, error: &DecodeError) {
        let Some(connection) = self.conns.get_mut(&conn) else { return };
        self.counters.malformed_packets += 1;
        if connection.session.is_some() {
            return self.close(now, conn, error.reason());
        }
        let answer_in = match *error {
            DecodeError::UnsupportedVersion { answer_in, .. } => answer_in,
            DecodeError::ConnectV5 { .. } => ProtocolVersion::V5,
            // Which version the client speaks is not known, or it has no words for this: nothing can be sent.
            DecodeError::Malformed { .. }
            | DecodeError::Protocol { .. }
            | DecodeError::Topic { .. }
            | DecodeError::TooLarge { .. } => return self.close(now, conn, error.reason()),
        };
        connection.version = answer_in;
        self.refuse(now, conn, answer_in, error.reason());
    }

    fn check_connect(&mut self, conn: ConnId, connect: &Connect) -> Result<Client, ReasonCode> {
        if connect.properties.authentication_method.is_some() {
            return Err(ReasonCode::BadAuthenticationMethod); // [MQTT-4.12.0-1]
        }
        if connect.client_id.len() > self.settings.max_client_id_bytes {
            return Err(ReasonCode::ClientIdentifierNotValid);
        }
        let kept = connect.version == ProtocolVersion::V311 && !connect.clean_start;
        if connect.client_id.is_empty() && kept {
            return Err(ReasonCode::ClientIdentifierNotValid); // [MQTT-3.1.3-8 of 3.1.1]
        }
        let Some(connection) = self.conns.get(&conn) else {
            return Err(ReasonCode::UnspecifiedError);
        };
        self.policy.authenticate(connect, &connection.peer)?;
        let assigned = connect.client_id.is_empty();
        let id = if assigned { self.assign_id() } else { ClientId(connect.client_id.clone()) };
        if let Some(will) = &connect.will
            && !self.may_publish(&id, &will.topic)
        {
            return Err(ReasonCode::NotAuthorized);
        }
        Ok(Client { id, assigned })
    }

    /// A client identifier that no session has [MQTT-3.1.3-7]. Session numbers are never used twice.
    fn assign_id(&self) -> ClientId {
        let prefix = &self.settings.assigned_id_prefix;
        let mut number = self.last_session.saturating_add(1);
        loop {
            let id = ClientId::from(format!("{prefix}{number:x}").as_str());
            if !self.by_client.contains_key(&id) {
                return id;
            }
            number = number.saturating_add(1);
        }
    }

    /// Ends what the client had before: an open connection [MQTT-3.1.4-3], and with Clean Start the session
    /// [MQTT-3.1.2-4].
    fn leave_predecessor(&mut self, now: Millis, client: &Client, clean_start: bool) {
        let Some(&id) = self.by_client.get(&client.id) else { return };
        if let Some(former) = self.sessions.get(&id).and_then(|session| session.conn) {
            self.counters.takeovers += 1;
            self.close(now, former, ReasonCode::SessionTakenOver);
        }
        let Some(session) = self.sessions.get(&id) else { return };
        let expired = session.expires_at.is_some_and(|at| at <= now);
        if clean_start || expired {
            self.end_session(now, id);
        }
    }

    /// Session Expiry Interval that is used, in seconds.
    fn expiry_for(&self, connect: &Connect) -> u32 {
        let longest = u32::try_from(self.settings.max_session_expiry.as_secs()).unwrap_or(u32::MAX);
        let wanted = match connect.version {
            ProtocolVersion::V5 => connect.properties.session_expiry_interval_secs.unwrap_or(0),
            ProtocolVersion::V311 if connect.clean_start => 0,
            ProtocolVersion::V311 => u32::MAX,
        };
        wanted.min(longest)
    }

    fn create_session(
        &mut self,
        now: Millis,
        client: &ClientId,
        version: ProtocolVersion,
    ) -> SessionId {
        // Server time never goes back, so a number that was given before a restart is lower.
        self.last_session = self.last_session.saturating_add(1).max(now.0);
        let id = SessionId(self.last_session);
        let session = Session::new(id, client.clone(), version, self.all_queued.clone());
        self.sessions.insert(id, session);
        self.by_client.insert(client.clone(), id);
        id
    }

    /// Ties connection and session together.
    fn attach(&mut self, now: Millis, conn: ConnId, id: SessionId, connect: &Connect, expiry: u32) {
        let keep_alive_secs = self.keep_alive(connect);
        let (Some(session), Some(connection)) =
            (self.sessions.get_mut(&id), self.conns.get_mut(&conn))
        else {
            return;
        };
        let was_persistent = session.persistent;
        session.conn = Some(conn);
        session.version = connect.version;
        session.expiry_interval_secs = expiry;
        session.persistent = expiry > 0;
        session.expires_at = None;
        // [MQTT-3.1.3-9]: a new connection to the session within the delay keeps the will from being published.
        session.will_at = None;
        session.will = connect.will.clone().map(Box::new);
        session.out.unsent_from = 0;
        if session.persistent {
            let change = StateChange::PutSession(session.client.clone(), session.state());
            let existed = if was_persistent { Existed::Maybe } else { Existed::No };
            self.journal.record(change, existed);
        } else if was_persistent {
            // It now ends with its connection, so it need not survive a crash either.
            self.journal.record(StateChange::RemoveSession(session.client.clone()), Existed::Maybe);
        }

        let properties = &connect.properties;
        let receive_maximum = properties.receive_maximum.map_or(u16::MAX, NonZeroU16::get);
        connection.session = Some(id);
        connection.window = usize::from(receive_maximum.min(self.settings.max_inflight));
        connection.keep_alive_secs = keep_alive_secs;
        connection.last_received = now;
        connection.max_packet_bytes = properties
            .maximum_packet_size
            .and_then(|size| usize::try_from(size.get()).ok())
            .unwrap_or(usize::MAX);
        let deadline = connection.deadline(&self.settings);
        self.timers.set(TimerKey::Connection(conn), deadline);
        self.schedule_session(id);
    }

    /// Keep alive that is used, in seconds. Only a 5.0 client can be told that it is another one [MQTT-3.2.2-21].
    fn keep_alive(&self, connect: &Connect) -> u16 {
        let (asked, longest) = (connect.keep_alive_secs, self.settings.max_keep_alive_secs);
        let too_long = longest > 0 && (asked == 0 || asked > longest);
        if connect.version == ProtocolVersion::V5 && too_long { longest } else { asked }
    }

    fn connack(
        &self,
        connect: &Connect,
        client: &Client,
        session_present: bool,
        expiry: u32,
    ) -> Packet {
        let mut properties = ConnAckProperties::default();
        if connect.version == ProtocolVersion::V5 {
            let settings = &self.settings;
            let asked = connect.properties.session_expiry_interval_secs.unwrap_or(0);
            properties.session_expiry_interval_secs = (asked != expiry).then_some(expiry);
            properties.receive_maximum = NonZeroU16::new(settings.receive_maximum);
            properties.maximum_packet_size =
                u32::try_from(settings.max_packet_bytes).ok().and_then(NonZeroU32::new);
            properties.topic_alias_maximum =
                (settings.topic_alias_maximum > 0).then_some(settings.topic_alias_maximum);
            properties.assigned_client_identifier = client.assigned.then(|| client.id.0.clone());
            let keep_alive = self.keep_alive(connect);
            properties.server_keep_alive_secs =
                (keep_alive != connect.keep_alive_secs).then_some(keep_alive);
        }
        let reason = ReasonCode::Success;
        Packet::ConnAck(Box::new(ConnAck { session_present, reason, properties }))
    }

    pub(super) fn refuse(
        &mut self,
        now: Millis,
        conn: ConnId,
        version: ProtocolVersion,
        reason: ReasonCode,
    ) {
        self.counters.connects_refused += 1;
        let sayable =
            version == ProtocolVersion::V5 || ConnectReturnCode::for_reason(reason).is_some();
        if sayable {
            let refusal = ConnAck {
                session_present: false,
                reason,
                properties: ConnAckProperties::default(),
            };
            self.send(conn, Packet::ConnAck(Box::new(refusal)), None);
        }
        self.forget(now, conn);
        self.actions.push_back(Action::Close { conn, reason });
    }
}

/// Who connects.
struct Client {
    id: ClientId,
    /// The server made the id up.
    assigned: bool,
}
