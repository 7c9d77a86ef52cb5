//! `cloud.toml` as types: every key, its default and what is legal.
//!
//! **Invariant:** `Settings::validate` names the key of whatever it refuses.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use robustmq_common::config::{self, Invalid};
use robustmq_common::limits;
use robustmq_common::telemetry::{LogFormat, LogSettings};
use serde::{Deserialize, Serialize};

use crate::group::machine::Timing;

/// All of `cloud.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where the store is kept.
    pub data_dir: PathBuf,
    /// Lets listeners without authentication bind to more than loopback.
    pub insecure: bool,
    /// What Kafka clients connect to.
    pub kafka: KafkaSection,
    /// Consumer groups.
    pub groups: GroupSection,
    /// What edges connect to.
    pub uplink: UplinkSection,
    /// Status and metrics.
    pub admin: AdminSection,
    /// Logs: both what the broker says, and the log of records.
    pub log: LogSection,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("robustmq-cloud-data"),
            insecure: false,
            kafka: KafkaSection::default(),
            groups: GroupSection::default(),
            uplink: UplinkSection::default(),
            admin: AdminSection::default(),
            log: LogSection::default(),
        }
    }
}

/// `[kafka]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaSection {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// `HOST:PORT` that clients are told to connect to; by default the address listened on.
    pub advertise: Option<String>,
    /// Asking for a topic creates it (`auto.create.topics.enable`).
    pub auto_create_topics: bool,
    /// Partitions of a topic that is created without a count (`num.partitions`).
    pub default_partitions: i32,
    /// The largest request (`socket.request.max.bytes`).
    pub max_frame_bytes: usize,
    /// Connections at once.
    pub max_connections: usize,
    /// A connection without a request for this long is closed (`connections.max.idle.ms`).
    pub idle_timeout_ms: u64,
    /// What requests being read and worked on may take of memory, all connections together.
    pub request_memory_bytes: usize,
    /// What Fetch answers being built and sent may take of memory, all connections together.
    pub answer_memory_bytes: usize,
}

impl Default for KafkaSection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9092)),
            advertise: None,
            auto_create_topics: true,
            default_partitions: 1,
            max_frame_bytes: limits::KAFKA_FRAME_BYTES,
            max_connections: limits::KAFKA_CONNECTIONS,
            idle_timeout_ms: millis(limits::KAFKA_IDLE),
            request_memory_bytes: limits::KAFKA_REQUEST_MEMORY_BYTES,
            answer_memory_bytes: limits::KAFKA_RESPONSE_MEMORY_BYTES,
        }
    }
}

/// `[groups]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupSection {
    /// How long a new group waits for company (`group.initial.rebalance.delay.ms`).
    pub initial_rebalance_delay_ms: u64,
    /// The shortest session timeout accepted (`group.min.session.timeout.ms`).
    pub min_session_timeout_ms: u64,
    /// The longest session timeout accepted (`group.max.session.timeout.ms`).
    pub max_session_timeout_ms: u64,
    /// How long offsets of a group without members are kept (`offsets.retention.minutes`).
    pub offset_retention_ms: u64,
}

impl Default for GroupSection {
    fn default() -> Self {
        Self {
            initial_rebalance_delay_ms: millis(limits::GROUP_INITIAL_DELAY),
            min_session_timeout_ms: millis(limits::GROUP_SESSION_MIN),
            max_session_timeout_ms: millis(limits::GROUP_SESSION_MAX),
            offset_retention_ms: millis(limits::GROUP_OFFSET_RETENTION),
        }
    }
}

/// `[uplink]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UplinkSection {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// PEM file with the server's certificate chain: the listener then speaks TLS only.
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the certificate's private key.
    pub tls_key: Option<PathBuf>,
    /// Nobody is let in without a token, not even from loopback while no edge is registered.
    pub require_token: bool,
}

impl Default for UplinkSection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9440)),
            tls_cert: None,
            tls_key: None,
            require_token: false,
        }
    }
}

/// `[admin]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSection {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
}

impl Default for AdminSection {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8090)) }
    }
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSection {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`), or directives such as `info,robustmq_cloud::kafka=debug`.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
    /// What the newest batches of all partitions may take of memory: all of `memory` topics, what `hybrid` has not written.
    pub memory_bytes: usize,
}

impl Default for LogSection {
    fn default() -> Self {
        let LogSettings { level, format } = LogSettings::default();
        Self { level, format, memory_bytes: limits::LOG_MEMORY_BYTES }
    }
}

impl config::Settings for Settings {
    fn validate(&self) -> Result<(), Invalid> {
        let Self { kafka, groups, uplink, log, .. } = self;
        if log.memory_bytes < limits::LOG_MEMORY_BYTES_MIN {
            let least = limits::LOG_MEMORY_BYTES_MIN;
            let why = format!("{} is less than {least}", log.memory_bytes);
            return Err(Invalid::new("log.memory_bytes", why));
        }
        if let Some(advertise) = &kafka.advertise {
            parse_advertise(advertise).map_err(|why| Invalid::new("kafka.advertise", why))?;
        } else if kafka.listen.ip().is_unspecified() {
            return Err(Invalid::new(
                "kafka.advertise",
                format!("{} is no address that clients can connect to: name one", kafka.listen),
            ));
        }
        let partitions = 1..=limits::PARTITIONS_PER_TOPIC;
        if !partitions.contains(&kafka.default_partitions) {
            let most = limits::PARTITIONS_PER_TOPIC;
            let why = format!("{} is not within 1 to {most}", kafka.default_partitions);
            return Err(Invalid::new("kafka.default_partitions", why));
        }
        let least_frame = limits::MAX_MESSAGE_BYTES;
        if kafka.max_frame_bytes < least_frame || i32::try_from(kafka.max_frame_bytes).is_err() {
            let why = format!(
                "{} is not within {least_frame} (one record batch) and {}",
                kafka.max_frame_bytes,
                i32::MAX
            );
            return Err(Invalid::new("kafka.max_frame_bytes", why));
        }
        for (key, bytes) in [
            ("kafka.request_memory_bytes", kafka.request_memory_bytes),
            ("kafka.answer_memory_bytes", kafka.answer_memory_bytes),
        ] {
            if bytes < kafka.max_frame_bytes {
                let why = format!("{bytes} is less than kafka.max_frame_bytes");
                return Err(Invalid::new(key, why));
            }
        }
        if kafka.max_connections == 0 {
            return Err(Invalid::new("kafka.max_connections", "0 lets nobody in"));
        }
        if groups.min_session_timeout_ms > groups.max_session_timeout_ms {
            let why = "it is above groups.max_session_timeout_ms";
            return Err(Invalid::new("groups.min_session_timeout_ms", why));
        }
        if uplink.tls_cert.is_some() != uplink.tls_key.is_some() {
            let why = "tls_cert and tls_key are needed together";
            return Err(Invalid::new("uplink.tls_key", why));
        }
        Ok(())
    }
}

impl Settings {
    /// What groups need to know.
    #[must_use]
    pub fn timing(&self) -> Timing {
        Timing {
            initial_delay: Duration::from_millis(self.groups.initial_rebalance_delay_ms),
            session_min: Duration::from_millis(self.groups.min_session_timeout_ms),
            session_max: Duration::from_millis(self.groups.max_session_timeout_ms),
        }
    }

    /// What the broker says, and how.
    #[must_use]
    pub fn telemetry(&self) -> LogSettings {
        LogSettings { level: self.log.level.clone(), format: self.log.format }
    }

    /// Host and port that clients are told, given the address that is really listened on.
    #[must_use]
    pub fn advertised(&self, listening: SocketAddr) -> (String, u16) {
        let named = self.kafka.advertise.as_deref().and_then(|text| parse_advertise(text).ok());
        named.unwrap_or_else(|| (host(listening.ip()), listening.port()))
    }
}

fn host(ip: IpAddr) -> String {
    ip.to_string()
}

fn parse_advertise(text: &str) -> Result<(String, u16), String> {
    let why = || format!("{text:?} is not HOST:PORT");
    let (host, port) = text.rsplit_once(':').ok_or_else(why)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().map_err(|_| why())?;
    if host.is_empty() || port == 0 { Err(why()) } else { Ok((host.to_owned(), port)) }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use robustmq_common::config::{Sources, load};

    use super::{Settings, parse_advertise};

    fn from(toml: &str) -> Result<Settings, String> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), toml).expect("a writable file");
        let sources = Sources { file: Some(file.path()), ..Sources::default() };
        load(&sources).map_err(|error| error.to_string())
    }

    #[test]
    fn the_sample_says_the_defaults() {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/cloud/cloud.toml");
        let sources = Sources { file: Some(&sample), ..Sources::default() };
        let settings: Settings = load(&sources).expect("the sample is valid");
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_key() {
        let check = |toml: &str, key: &str| {
            let error = from(toml).expect_err(toml);
            assert!(error.contains(key), "{toml}: {error}");
        };
        check("[kafka]\nlisten = '0.0.0.0:9092'", "[kafka] advertise");
        check("[kafka]\nadvertise = 'host'", "[kafka] advertise");
        check("[kafka]\nadvertise = ':9092'", "[kafka] advertise");
        check("[kafka]\nadvertise = 'host:0'", "[kafka] advertise");
        check("[kafka]\ndefault_partitions = 0", "[kafka] default_partitions");
        check("[kafka]\nmax_frame_bytes = 10", "[kafka] max_frame_bytes");
        check("[kafka]\nrequest_memory_bytes = 10", "[kafka] request_memory_bytes");
        check("[kafka]\nmax_connections = 0", "[kafka] max_connections");
        check("[groups]\nmin_session_timeout_ms = 9999999", "[groups] min_session_timeout_ms");
        check("[log]\nmemory_bytes = 10", "[log] memory_bytes");
        check("[uplink]\ntls_cert = 'a.pem'", "[uplink] tls_key");
        check("[kafka]\nlisten_on = 1", "listen_on");
    }

    #[test]
    fn the_advertised_address_is_the_one_named_or_listened_on() {
        let listening = "127.0.0.1:4242".parse().expect("an address");
        let named = from("[kafka]\nadvertise = 'broker.example:9092'").expect("valid");
        assert_eq!(named.advertised(listening), ("broker.example".to_owned(), 9092));
        assert_eq!(Settings::default().advertised(listening), ("127.0.0.1".to_owned(), 4242));
        assert_eq!(parse_advertise("[::1]:1"), Ok(("::1".to_owned(), 1)));
    }
}
