//! What the server keeps of a session and of a connection.

use std::collections::{BTreeMap, VecDeque};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::api::{ClientId, ConnId, Millis, PeerInfo, PersistTicket, ServerSettings, SessionId};
use super::changes::{Message, Outgoing, OutgoingPhase, SessionState, Subscription};
use crate::mqtt::packet::{
    MessageProperties, Packet, PacketId, ProtocolVersion, QoS, SubscriptionOptions, TopicFilter,
    TopicName, Will,
};

/// A session (section 4.1).
pub(super) struct Session {
    pub id: SessionId,
    pub client: ClientId,
    pub version: ProtocolVersion,
    /// Seconds that it outlives its connection; 0: it ends with it; `u32::MAX`: it does not expire.
    pub expiry_interval_secs: u32,
    /// Its state is durable. Not so where it ends with its connection.
    pub persistent: bool,
    pub conn: Option<ConnId>,
    pub expires_at: Option<Millis>,
    pub will: Option<Box<Will>>,
    pub will_at: Option<Millis>,
    /// A will that is published and not yet applied. Part of the durable state, so that a crash does not lose it.
    pub publishing_will: Option<Box<Will>>,
    pub subscriptions: BTreeMap<TopicFilter, (SubscriptionOptions, Option<NonZeroU32>)>,
    /// Packet ids of QoS 2 publishes from the client that are not yet released.
    pub received: BTreeMap<PacketId, Received>,
    /// Publishes from this session that are not yet applied.
    pub pending: usize,
    pub out: Outbound,
    /// Retained messages that are still to be sent.
    pub retained: BTreeMap<TopicFilter, RetainedCursor>,
}

/// How far a QoS 2 publish from the client has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// It is on its way to the store; no PUBREC yet. The connection is that of the latest PUBLISH with this packet id.
    Storing(ConnId),
    /// It has been stored and PUBREC sent.
    Stored,
}

/// Where sending a subscription's retained messages stands.
pub(super) struct RetainedCursor {
    pub options: SubscriptionOptions,
    pub identifier: Option<NonZeroU32>,
    pub after: Option<TopicName>,
}

impl Session {
    pub(super) fn new(
        id: SessionId,
        client: ClientId,
        version: ProtocolVersion,
        all: AllQueuedBytes,
    ) -> Self {
        Self {
            id,
            client,
            version,
            expiry_interval_secs: 0,
            persistent: false,
            conn: None,
            expires_at: None,
            will: None,
            will_at: None,
            publishing_will: None,
            subscriptions: BTreeMap::new(),
            received: BTreeMap::new(),
            pending: 0,
            out: Outbound::new(all),
            retained: BTreeMap::new(),
        }
    }

    pub(super) fn state(&self) -> SessionState {
        SessionState {
            id: self.id,
            version: self.version,
            expiry_interval_secs: self.expiry_interval_secs,
            expires_at: self.expires_at,
            will: self.will.as_deref().or(self.publishing_will.as_deref()).cloned(),
            will_at: self.will_at,
        }
    }

    pub(super) fn subscription(&self, filter: &TopicFilter) -> Option<Subscription> {
        let &(options, identifier) = self.subscriptions.get(filter)?;
        Some(Subscription { filter: filter.clone(), options, identifier })
    }
}

/// One message on its way to a client.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    /// Orders a session's messages.
    pub number: u64,
    pub message: Arc<Message>,
    pub qos: QoS,
    pub retain: bool,
    pub identifiers: Vec<NonZeroU32>,
    pub shared: Option<TopicFilter>,
    pub phase: OutgoingPhase,
}

impl Delivery {
    /// What it takes in memory, roughly, in bytes.
    pub(super) fn bytes(&self) -> usize {
        const OVERHEAD: usize = 128;
        OVERHEAD + self.message.payload.len() + self.message.topic.as_str().len()
    }

    pub(super) fn packet_id(&self) -> Option<PacketId> {
        match self.phase {
            OutgoingPhase::Queued => None,
            OutgoingPhase::Published(id) | OutgoingPhase::Released(id) => Some(id),
        }
    }

    pub(super) fn to_outgoing(&self) -> Outgoing {
        Outgoing {
            message: self.message.clone(),
            qos: self.qos,
            retain: self.retain,
            subscription_identifiers: self.identifiers.clone(),
            shared: self.shared.clone(),
            phase: self.phase,
        }
    }
}

/// Bytes queued or in flight for all sessions together; each [`Outbound`] adds and subtracts its own.
#[derive(Clone, Default)]
pub(super) struct AllQueuedBytes(Arc<AtomicUsize>);

impl AllQueuedBytes {
    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Messages to a client: first those in flight, in the order in which they were first sent, then those that wait.
pub(super) struct Outbound {
    inflight: VecDeque<Delivery>,
    /// From this index on, `inflight` has not been sent on the present connection.
    pub unsent_from: usize,
    queued: VecDeque<Delivery>,
    queued_bytes: usize,
    queued_qos0: usize,
    /// Of both.
    bytes: usize,
    all: AllQueuedBytes,
    pub next_number: u64,
    last_packet_id: u16,
}

impl Outbound {
    fn new(all: AllQueuedBytes) -> Self {
        Self {
            inflight: VecDeque::new(),
            unsent_from: 0,
            queued: VecDeque::new(),
            queued_bytes: 0,
            queued_qos0: 0,
            bytes: 0,
            all,
            next_number: 0,
            last_packet_id: 0,
        }
    }

    fn added(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.all.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn removed(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.all.0.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn unqueued(&mut self, delivery: Delivery) -> Delivery {
        let bytes = delivery.bytes();
        self.queued_bytes -= bytes;
        self.queued_qos0 -= usize::from(delivery.qos == QoS::AtMostOnce);
        self.removed(bytes);
        delivery
    }

    pub(super) fn inflight(&self) -> &VecDeque<Delivery> {
        &self.inflight
    }

    pub(super) fn queued(&self) -> &VecDeque<Delivery> {
        &self.queued
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    pub(super) fn take_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    pub(super) fn push(&mut self, delivery: Delivery) {
        let bytes = delivery.bytes();
        self.queued_bytes += bytes;
        self.queued_qos0 += usize::from(delivery.qos == QoS::AtMostOnce);
        self.added(bytes);
        self.queued.push_back(delivery);
    }

    pub(super) fn pop(&mut self) -> Option<Delivery> {
        let delivery = self.queued.pop_front()?;
        Some(self.unqueued(delivery))
    }

    /// The oldest QoS 0 message that waits, or the oldest of all.
    pub(super) fn pop_least(&mut self) -> Option<Delivery> {
        if self.queued_qos0 == 0 {
            return self.pop();
        }
        let index = self.queued.iter().position(|delivery| delivery.qos == QoS::AtMostOnce)?;
        let delivery = self.queued.remove(index)?;
        Some(self.unqueued(delivery))
    }

    /// Drops the QoS 0 messages that wait, and says how many there were.
    pub(super) fn drop_qos0(&mut self) -> usize {
        let (dropped, kept): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.queued)
            .into_iter()
            .partition(|delivery| delivery.qos == QoS::AtMostOnce);
        self.queued = kept;
        let count = dropped.len();
        dropped.into_iter().for_each(|delivery| drop(self.unqueued(delivery)));
        count
    }

    /// A message is now in flight; `sent` says whether on the present connection.
    pub(super) fn push_inflight(&mut self, delivery: Delivery, sent: bool) {
        self.added(delivery.bytes());
        self.inflight.push_back(delivery);
        if sent {
            self.unsent_from = self.inflight.len();
        }
    }

    pub(super) fn find(&self, id: PacketId) -> Option<usize> {
        // Clients acknowledge in order, so it is found near the front.
        self.inflight.iter().position(|delivery| delivery.packet_id() == Some(id))
    }

    /// PUBREC was received: from now on only the packet id is needed, not the message.
    pub(super) fn release(&mut self, index: usize, id: PacketId) {
        let Some(delivery) = self.inflight.get_mut(index) else { return };
        let before = delivery.bytes();
        delivery.phase = OutgoingPhase::Released(id);
        delivery.message = Arc::new(Message {
            topic: delivery.message.topic.clone(),
            payload: Bytes::new(),
            qos: delivery.message.qos,
            properties: MessageProperties::default(),
            expires_at: None,
        });
        let freed = before - delivery.bytes();
        self.removed(freed);
    }

    pub(super) fn remove_inflight(&mut self, index: usize) -> Option<Delivery> {
        let delivery = self.inflight.remove(index)?;
        if index < self.unsent_from {
            self.unsent_from -= 1;
        }
        self.removed(delivery.bytes());
        Some(delivery)
    }

    /// Removes the message with this number, wherever it is.
    pub(super) fn remove(&mut self, number: u64) {
        if let Some(index) = self.inflight.iter().position(|d| d.number == number) {
            self.remove_inflight(index);
        } else if let Some(index) = self.queued.iter().position(|d| d.number == number)
            && let Some(delivery) = self.queued.remove(index)
        {
            self.unqueued(delivery);
        }
    }

    /// A packet id that is not in use [MQTT-2.2.1-3]; `None` if all are.
    pub(super) fn take_packet_id(&mut self) -> Option<PacketId> {
        for _ in 0..=u16::MAX {
            self.last_packet_id = self.last_packet_id.wrapping_add(1);
            let Some(id) = PacketId::new(self.last_packet_id) else { continue };
            if self.find(id).is_none() {
                return Some(id);
            }
        }
        None
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        self.removed(self.bytes);
    }
}

/// A network connection.
pub(super) struct Connection {
    pub peer: PeerInfo,
    /// `None` until its CONNECT is accepted.
    pub session: Option<SessionId>,
    pub version: ProtocolVersion,
    /// When it was last heard of: a packet came, or the server was not listening to it until then.
    pub last_received: Millis,
    pub keep_alive_secs: u16,
    /// QoS 1 and 2 messages that the client takes at once.
    pub window: usize,
    /// The largest packet that the client takes, in bytes.
    pub max_packet_bytes: usize,
    /// Topic aliases that the client has set.
    pub aliases: BTreeMap<NonZeroU16, TopicName>,
    /// Publishes from this connection that are not yet applied.
    pub pending: usize,
    /// Those of them with QoS 1.
    pub pending_qos1: usize,
    /// Bytes handed out and not yet written.
    pub unwritten_bytes: usize,
    /// Packets that wait for state to be durable, and those behind them.
    pub held: VecDeque<Held>,
    pub paused: bool,
    /// The driver does not read it for now.
    pub unread: bool,
    /// At some time since its deadline was set it was not read.
    pub was_unread: bool,
}

/// A packet in [`Connection::held`].
pub(super) struct Held {
    pub until: Option<PersistTicket>,
    pub packet: Packet,
    pub bytes: usize,
}

impl Connection {
    pub(super) fn new(now: Millis, peer: PeerInfo) -> Self {
        Self {
            peer,
            session: None,
            version: ProtocolVersion::V311,
            last_received: now,
            keep_alive_secs: 0,
            window: 0,
            max_packet_bytes: usize::MAX,
            aliases: BTreeMap::new(),
            pending: 0,
            pending_qos1: 0,
            unwritten_bytes: 0,
            held: VecDeque::new(),
            paused: false,
            unread: false,
            was_unread: false,
        }
    }

    /// When it is closed if nothing is received: connect timeout, or 1.5 times the keep alive [MQTT-3.1.2-22].
    pub(super) fn deadline(&self, settings: &ServerSettings) -> Option<Millis> {
        if self.session.is_none() {
            return Some(self.last_received.after(settings.connect_timeout));
        }
        let keep_alive = Duration::from_millis(u64::from(self.keep_alive_secs) * 1500);
        (!keep_alive.is_zero()).then(|| self.last_received.after(keep_alive))
    }
}
