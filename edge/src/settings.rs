//! `edge.toml` as types: every key, its default and what is legal.
//!
//! **Invariant:** `Settings::validate` names the key of whatever it refuses, and nothing that passed it can fail to
//! make sense later; only the files that it names (`gateway::check`) and the machine (a port, a directory) can still refuse.

mod uplink_url;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use robustmq_common::config::{self, Invalid};
use robustmq_common::ids::{EdgeId, KafkaTopic, LaneId};
use robustmq_common::limits;
use robustmq_common::mqtt::packet::TopicFilter;
use robustmq_common::net::{Exposure, check_exposure, listen_address};
use robustmq_common::telemetry::LogSettings;
use serde::{Deserialize, Serialize};

use crate::queue::{FullPolicy, QueueSettings};

/// All of `edge.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The gateway's name at its cloud. Empty: the machine's host name.
    pub edge_id: String,
    /// Where the queue and the state are kept.
    pub data_dir: PathBuf,
    /// Lets listeners without authentication bind to more than loopback.
    pub insecure: bool,
    /// What devices connect to.
    pub mqtt: MqttSettings,
    /// Store-and-forward.
    pub queue: QueueSection,
    /// The way to the cloud.
    pub uplink: UplinkSettings,
    /// Status and metrics.
    pub admin: AdminSettings,
    /// Logs.
    pub log: LogSettings,
    /// Where records go, first match first. What matches none goes up with the defaults of [`RouteSettings`].
    #[serde(rename = "route")]
    pub routes: Vec<RouteSettings>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            edge_id: String::new(),
            data_dir: PathBuf::from("robustmq-edge-data"),
            insecure: false,
            mqtt: MqttSettings::default(),
            queue: QueueSection::default(),
            uplink: UplinkSettings::default(),
            admin: AdminSettings::default(),
            log: LogSettings::default(),
            routes: Vec::new(),
        }
    }
}

/// `[mqtt]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MqttSettings {
    /// Address and port; port 0 takes a free one.
    #[serde(deserialize_with = "listen_address")]
    pub listen: SocketAddr,
    /// Connections at once.
    pub max_connections: usize,
    /// The largest packet taken.
    pub max_packet_bytes: usize,
    /// PEM file with the server's certificate chain: the listener then speaks TLS only.
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the certificate's private key.
    pub tls_key: Option<PathBuf>,
    /// Lines of `NAME:HASH`, as `robustmq-edge hash-password` prints them: clients then have to be one of these users.
    pub users_file: Option<PathBuf>,
    /// How often `$SYS/broker/...` is brought up to date; 0 leaves it out.
    pub sys_interval_s: u32,
}

impl Default for MqttSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 1883)),
            max_connections: limits::EDGE_MQTT_CONNECTIONS,
            max_packet_bytes: limits::MQTT_PACKET_BYTES,
            tls_cert: None,
            tls_key: None,
            users_file: None,
            sys_interval_s: limits::EDGE_SYS_INTERVAL_SECONDS,
        }
    }
}

/// `[queue]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueSection {
    /// What the queue may take on disk.
    pub max_bytes: u64,
    /// What a full queue does.
    pub policy: QueuePolicy,
    /// Size of one segment file; space is given back in these steps.
    pub segment_bytes: u64,
}

impl Default for QueueSection {
    fn default() -> Self {
        Self {
            max_bytes: limits::QUEUE_MAX_BYTES,
            policy: QueuePolicy::Reject,
            segment_bytes: limits::QUEUE_SEGMENT_BYTES,
        }
    }
}

/// `[queue] policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueuePolicy {
    /// Refuse new records: the device hears of it.
    Reject,
    /// Drop the oldest records of the least important priority.
    DropOldest,
}

/// `[uplink]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UplinkSettings {
    /// Where the cloud listens, `http(s)://HOST:9440`, with its port. Unset: the gateway serves local clients only and queues nothing.
    pub url: Option<String>,
    /// File with the token that `robustmq-cloud edge add` printed.
    pub token_file: Option<PathBuf>,
    /// PEM file with the certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// How long a batch that is not full waits for more records.
    pub linger_ms: u64,
    /// A batch is sent when it has reached this size.
    pub batch_bytes: usize,
    /// The most that is sent, of all priorities together. Unset: as much as the link takes.
    pub max_bytes_per_second: Option<u64>,
}

impl Default for UplinkSettings {
    fn default() -> Self {
        Self {
            url: None,
            token_file: None,
            ca_file: None,
            linger_ms: limits::UPLINK_LINGER_MS,
            batch_bytes: limits::UPLINK_BATCH_BYTES,
            max_bytes_per_second: None,
        }
    }
}

/// `[admin]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSettings {
    /// Address and port; port 0 takes a free one.
    #[serde(deserialize_with = "listen_address")]
    pub listen: SocketAddr,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8091)) }
    }
}

/// `[[route]]`: what happens to messages whose topic matches `filter`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSettings {
    /// An MQTT topic filter.
    pub filter: String,
    /// The Kafka topic. Unset: the topic map makes it from the MQTT topic.
    #[serde(default)]
    pub topic: Option<String>,
    /// The Kafka key.
    #[serde(default)]
    pub key: RouteKey,
    /// What goes first over a narrow link.
    #[serde(default)]
    pub priority: RoutePriority,
    /// Seconds after which a record need not be sent any more. Unset: it always is.
    #[serde(default)]
    pub ttl_secs: Option<u32>,
    /// Stays on this gateway: not queued, not sent.
    #[serde(default)]
    pub local: bool,
}

/// `[[route]] key`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteKey {
    /// The MQTT client id: order is kept for each device.
    #[default]
    ClientId,
    /// The MQTT topic: order is kept for each topic.
    MqttTopic,
    /// No key: records spread over all partitions.
    None,
}

/// `[[route]] priority`. Each is one lane of the queue, in order within itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoutePriority {
    /// First.
    High,
    /// Second.
    #[default]
    Normal,
    /// Last, and the first to be dropped.
    Low,
}

impl RoutePriority {
    /// The lane of the queue that carries it.
    #[must_use]
    pub fn lane(self) -> LaneId {
        match self {
            Self::High => LaneId(0),
            Self::Normal => LaneId(1),
            Self::Low => LaneId(2),
        }
    }
}

fn invalid(key: &str, problem: impl ToString) -> Invalid {
    Invalid::new(key, problem.to_string())
}

fn within<T: PartialOrd + std::fmt::Display>(
    key: &str,
    value: T,
    least: T,
    most: T,
) -> Result<(), Invalid> {
    if value < least || value > most {
        return Err(invalid(key, format!("{value} is not between {least} and {most}")));
    }
    Ok(())
}

impl config::Settings for Settings {
    fn validate(&self) -> Result<(), Invalid> {
        if !self.edge_id.is_empty() {
            EdgeId::new(&self.edge_id).map_err(|error| invalid("edge_id", error))?;
        }
        if self.data_dir.as_os_str().is_empty() {
            return Err(invalid("data_dir", "must name a directory"));
        }
        self.validate_mqtt()?;
        let exposure = Exposure { authenticated: false, insecure: self.insecure };
        check_exposure("admin.listen", self.admin.listen, exposure)?;
        within("queue.max_bytes", self.queue.max_bytes, limits::QUEUE_LEAST_MAX_BYTES, u64::MAX)?;
        within("queue.segment_bytes", self.queue.segment_bytes, 64 * 1024, 1024 * 1024 * 1024)?;
        self.validate_uplink()?;
        for (index, route) in self.routes.iter().enumerate() {
            route.validate(index)?;
        }
        self.log.validate()
    }
}

impl Settings {
    fn validate_mqtt(&self) -> Result<(), Invalid> {
        let mqtt = &self.mqtt;
        within("mqtt.max_connections", mqtt.max_connections, 1, limits::MQTT_CONNECTIONS)?;
        within("mqtt.max_packet_bytes", mqtt.max_packet_bytes, 128, limits::MQTT_PACKET_BYTES)?;
        within("mqtt.sys_interval_s", mqtt.sys_interval_s, 0, 24 * 60 * 60)?;
        check_exposure("mqtt.listen", mqtt.listen, self.mqtt_exposure())?;
        match (&mqtt.tls_cert, &mqtt.tls_key) {
            (Some(_), None) => Err(invalid("mqtt.tls_cert", "needs tls_key beside it")),
            (None, Some(_)) => Err(invalid("mqtt.tls_key", "needs tls_cert beside it")),
            _ => Ok(()),
        }
    }

    /// Whom the MQTT listener may be reached by.
    #[must_use]
    pub fn mqtt_exposure(&self) -> Exposure {
        Exposure { authenticated: self.mqtt.users_file.is_some(), insecure: self.insecure }
    }

    fn validate_uplink(&self) -> Result<(), Invalid> {
        let uplink = &self.uplink;
        within("uplink.linger_ms", uplink.linger_ms, 0, 60_000)?;
        within("uplink.batch_bytes", uplink.batch_bytes, 1024, limits::SYNC_BATCH_BYTES)?;
        if uplink.max_bytes_per_second == Some(0) {
            return Err(invalid("uplink.max_bytes_per_second", "0 would send nothing"));
        }
        if let Some(url) = &uplink.url {
            uplink_url::check(url).map_err(|reason| invalid("uplink.url", reason))?;
        }
        Ok(())
    }

    /// The gateway's name: `edge_id`, or the host name.
    ///
    /// # Errors
    /// [`Invalid`] when `edge_id` is not set and the host name is no legal name.
    pub fn resolve_edge_id(&self) -> Result<EdgeId, Invalid> {
        if !self.edge_id.is_empty() {
            return EdgeId::new(&self.edge_id).map_err(|error| invalid("edge_id", error));
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        EdgeId::new(host.trim()).map_err(|error| {
            invalid("edge_id", format!("not set, and the host name does not do: {error}"))
        })
    }

    /// The queue's own settings. What the gateway's state has not taken up yet is kept for start-up replay.
    #[must_use]
    pub fn queue_settings(&self) -> QueueSettings {
        QueueSettings {
            max_bytes: self.queue.max_bytes,
            policy: match self.queue.policy {
                QueuePolicy::Reject => FullPolicy::Reject,
                QueuePolicy::DropOldest => FullPolicy::DropOldest,
            },
            segment_bytes: self.queue.segment_bytes,
            keep_until_reflected: true,
            ..QueueSettings::default()
        }
    }

    /// Where the queue's files are.
    #[must_use]
    pub fn queue_dir(&self) -> PathBuf {
        self.data_dir.join("queue")
    }

    /// The file with sessions and retained messages.
    #[must_use]
    pub fn state_file(&self) -> PathBuf {
        self.data_dir.join("state.redb")
    }

    /// How long a batch that is not full waits for more records.
    #[must_use]
    pub fn linger(&self) -> Duration {
        Duration::from_millis(self.uplink.linger_ms)
    }
}

impl RouteSettings {
    fn validate(&self, index: usize) -> Result<(), Invalid> {
        let wrong = |name: &str, problem: &dyn std::fmt::Display| {
            invalid(
                &format!("route.{name}"),
                format!("{problem} (in [[route]] number {})", index + 1),
            )
        };
        TopicFilter::new(&self.filter).map_err(|error| wrong("filter", &error))?;
        if let Some(topic) = &self.topic {
            KafkaTopic::new(topic).map_err(|error| wrong("topic", &error))?;
        }
        if self.ttl_secs == Some(0) {
            return Err(wrong("ttl_secs", &"0 would send nothing; use local = true"));
        }
        if self.local && (self.topic.is_some() || self.ttl_secs.is_some()) {
            return Err(wrong("local", &"what stays local has neither topic nor ttl_secs"));
        }
        Ok(())
    }
}
