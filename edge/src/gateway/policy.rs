//! Who may do what on this gateway, and what goes upstream.

use std::sync::Arc;

use robustmq_common::mqtt::packet::{Connect, ReasonCode, TopicName};
use robustmq_common::mqtt::server::{ClientId, PeerInfo, Policy, Routing};

use super::route::Routes;
use super::users::Users;

/// The gateway's answers to the MQTT server core.
pub(super) struct EdgePolicy {
    pub routes: Arc<Routes>,
    /// Absent: everybody may connect.
    pub users: Option<Arc<Users>>,
}

impl Policy for EdgePolicy {
    /// The slow part was done by the connection, see [`Users::check`].
    fn authenticate(&self, connect: &Connect, _peer: &PeerInfo) -> Result<(), ReasonCode> {
        match &self.users {
            Some(users) if !users.is_proven(connect) => Err(ReasonCode::BadUserNameOrPassword),
            _ => Ok(()),
        }
    }

    /// Topics that begin with `$` belong to the server (section 4.7.2).
    fn may_publish(&self, _client: &ClientId, topic: &TopicName) -> bool {
        !topic.as_str().starts_with('$')
    }

    fn may_subscribe(&self, _client: &ClientId, _filter: &str) -> bool {
        true
    }

    fn route(&self, topic: &TopicName) -> Routing {
        Routing { upstream: !self.routes.find(topic).local }
    }
}
