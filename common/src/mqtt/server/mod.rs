//! The MQTT server core: a state machine for all sessions of one broker, driven by one task.
//!
//! The driver calls, the server answers with actions:
//!
//! ```text
//! Server::new(ServerSettings, Arc<dyn Policy>)
//! start-up      restore(now, StateChange) for each row; replay(now, PublishRecord) for each queue record after the
//!               position that the rows reflect; restored(now) once
//! connections   connected(now, ConnId, PeerInfo) / recv(now, ConnId, Packet) / malformed(now, ConnId, &DecodeError) /
//!               written(now, ConnId, bytes) / closed(now, ConnId, CloseReason)
//! answers       stored(now, StoreTicket, Result<(), StoreRefusal>) / persisted(now, PersistTicket)
//! time          timer(now); next_deadline() -> Option<Millis>
//! its own       publish_local(now, LocalPublish) -> LocalTicket / disconnect(now, &ClientId, ReasonCode) /
//!               shutdown(now)
//! afterwards    poll() -> Option<Action> until None; counters(), gauges()
//! ```
mod api;
mod changes;

pub use api::{
    Action, AllowAll, ClientId, CloseReason, ConnId, Counters, Gauges, LocalPublish, LocalTicket,
    Millis, PeerInfo, PersistTicket, Policy, PublishRecord, RecordSource, Routing, ServerSettings,
    StoreRefusal, StoreTicket,
};
pub use changes::{Message, Outgoing, OutgoingPhase, SessionState, StateChange, Subscription};
