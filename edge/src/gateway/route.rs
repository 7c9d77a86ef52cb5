//! Which lane, Kafka topic, key and time to live a topic's messages get: the first route that matches.

use std::time::Duration;

use robustmq_common::ids::LaneId;
use robustmq_common::mqtt::packet::{InvalidTopic, TopicFilter, TopicName};
use robustmq_common::mqtt::topic_map::RouteTable;

use crate::settings::{RouteKey, RoutePriority, RouteSettings};

/// What is decided for one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// The lane, from the priority.
    pub lane: LaneId,
    /// The Kafka topic, where a route names one.
    pub kafka_topic: Option<String>,
    /// The Kafka key.
    pub key: RouteKey,
    /// How long the record is worth sending.
    pub ttl: Option<Duration>,
    /// It stays on this gateway.
    pub local: bool,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            lane: RoutePriority::default().lane(),
            kafka_topic: None,
            key: RouteKey::default(),
            ttl: None,
            local: false,
        }
    }
}

/// All routes, in the order of the configuration.
#[derive(Debug, Clone, Default)]
pub(super) struct Routes {
    routes: RouteTable<Route>,
    default: Route,
}

impl Routes {
    /// Takes over what the configuration says. `upstream`: there is a cloud; without one everything stays local.
    pub(super) fn new(settings: &[RouteSettings], upstream: bool) -> Result<Self, InvalidTopic> {
        let route = |settings: &RouteSettings| -> Result<_, InvalidTopic> {
            let route = Route {
                lane: settings.priority.lane(),
                kafka_topic: settings.topic.clone(),
                key: settings.key,
                ttl: settings.ttl_secs.map(|secs| Duration::from_secs(secs.into())),
                local: settings.local || !upstream,
            };
            Ok((TopicFilter::new(&settings.filter)?, route))
        };
        let routes = settings.iter().map(route).collect::<Result<_, _>>()?;
        Ok(Self { routes, default: Route { local: !upstream, ..Route::default() } })
    }

    /// The first route whose filter matches, else the default one.
    pub(super) fn find(&self, topic: &TopicName) -> &Route {
        self.routes.find(topic).unwrap_or(&self.default)
    }
}

#[cfg(test)]
mod tests {
    use robustmq_common::ids::LaneId;
    use robustmq_common::mqtt::packet::TopicName;

    use super::Routes;
    use crate::settings::Settings;

    const ROUTES: &str = r##"
        [[route]]
        filter = "alarm/#"
        priority = "high"
        topic = "alarms"

        [[route]]
        filter = "+/debug/#"
        local = true

        [[route]]
        filter = "video/#"
        priority = "low"
        ttl_secs = 60
        key = "mqtt_topic"
    "##;

    #[test]
    fn the_first_matching_route_decides() {
        let settings: Settings = toml::from_str(ROUTES).unwrap();
        let routes = Routes::new(&settings.routes, true).unwrap();
        let check = |topic: &str, lane: u8, kafka_topic: Option<&str>, local: bool| {
            let route = routes.find(&TopicName::new(topic).unwrap());
            let found = (route.lane, route.kafka_topic.as_deref(), route.local);
            assert_eq!(found, (LaneId(lane), kafka_topic, local), "{topic}");
        };
        check("alarm/fire", 0, Some("alarms"), false);
        check("alarm/debug/x", 0, Some("alarms"), false);
        check("press/debug/x", 1, None, true);
        check("video/1", 2, None, false);
        check("press/temperature", 1, None, false);
    }

    #[test]
    fn without_a_cloud_everything_stays_local() {
        let settings: Settings = toml::from_str(ROUTES).unwrap();
        let routes = Routes::new(&settings.routes, false).unwrap();
        for topic in ["alarm/fire", "video/1", "press/temperature"] {
            assert!(routes.find(&TopicName::new(topic).unwrap()).local, "{topic}");
        }
    }
}
