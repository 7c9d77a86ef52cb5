//! The MQTT server core: a state machine for all sessions of one broker, driven by one task.
mod api;
mod changes;

pub use api::{
    Action, AllowAll, ClientId, CloseReason, ConnId, Counters, Gauges, LocalPublish, LocalTicket,
    Millis, PeerInfo, PersistTicket, Policy, PublishRecord, RecordSource, Routing, ServerSettings,
    StoreRefusal, StoreTicket,
};
pub use changes::{Message, Outgoing, OutgoingPhase, SessionState, StateChange, Subscription};
