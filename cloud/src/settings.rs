//! `cloud.toml` as types: every key, its default and what is legal.
//!
//! **Invariant:** `Settings::validate` names the key of whatever it refuses.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use robustmq_common::config::{self, Invalid};
use robustmq_common::limits;
use robustmq_common::net::{Exposure, check_exposure, listen_address};
use robustmq_common::telemetry::LogSettings;
use serde::{Deserialize, Serialize};

use crate::group::machine::Timing;
use crate::log::Budgets;
use crate::objects::ObjectStoreUrl;

mod cache;
mod shared;
mod storage;

pub use self::cache::{CacheSection, DatasetSection, archived_bytes};
pub use self::shared::SharedSection;
pub use self::storage::StorageSection;

/// All of `cloud.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where the store is kept, unless it is on an object store.
    pub data_dir: PathBuf,
    /// Lets listeners without authentication bind to more than loopback.
    pub insecure: bool,
    /// What Kafka clients connect to.
    pub kafka: KafkaSection,
    /// Consumer groups.
    pub groups: GroupSection,
    /// What `$shared/` groups have that do not set it themselves.
    pub shared: SharedSection,
    /// What edges connect to.
    pub uplink: UplinkSection,
    /// Status and metrics.
    pub admin: AdminSection,
    /// What storage modes take of memory.
    pub storage: StorageSection,
    /// Where brokers keep what is theirs together.
    pub cluster: ClusterSection,
    /// Where `tiered` topics are archived.
    pub tier: TierSection,
    /// What is read from object storage is kept for a while.
    pub cache: CacheSection,
    /// `[dataset]`.
    pub dataset: DatasetSection,
    /// Logs.
    pub log: LogSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("robustmq-cloud-data"),
            insecure: false,
            kafka: KafkaSection::default(),
            groups: GroupSection::default(),
            shared: SharedSection::default(),
            uplink: UplinkSection::default(),
            admin: AdminSection::default(),
            storage: StorageSection::default(),
            cluster: ClusterSection::default(),
            tier: TierSection::default(),
            cache: CacheSection::default(),
            dataset: DatasetSection::default(),
            log: LogSettings::default(),
        }
    }
}

/// `[kafka]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaSection {
    /// Address and port; port 0 takes a free one.
    #[serde(deserialize_with = "listen_address")]
    pub listen: SocketAddr,
    /// `HOST:PORT` that clients are told to connect to; by default the address listened on.
    pub advertise: Option<String>,
    /// Asking for a topic creates it (`auto.create.topics.enable`). Dead-letter topics that a group names are created in any case.
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
    /// What large answers being built and sent may take of memory, all connections together.
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
    #[serde(deserialize_with = "listen_address")]
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
    #[serde(deserialize_with = "listen_address")]
    pub listen: SocketAddr,
    /// How many topics `/metrics` names: the busiest.
    pub metrics_topics: usize,
}

impl Default for AdminSection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8090)),
            metrics_topics: limits::METRICS_TOPICS,
        }
    }
}

/// `[tier]`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TierSection {
    /// `s3://BUCKET/PREFIX` or `file:///DIR`; by default `[cluster] object_store`. Without either no topic can be `tiered`.
    pub object_store: Option<ObjectStoreUrl>,
}

/// `[cluster]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterSection {
    /// `s3://BUCKET/PREFIX` or `file:///DIR`: the store is kept there, and nothing in the data directory.
    pub object_store: Option<ObjectStoreUrl>,
    /// The least time between two writes there: `1000 / flush_interval_ms` PUTs a second while clients write, at most.
    pub flush_interval_ms: u64,
}

impl Default for ClusterSection {
    fn default() -> Self {
        Self { object_store: None, flush_interval_ms: millis(limits::object::FLUSH_INTERVAL) }
    }
}

impl ClusterSection {
    fn validate(&self) -> Result<(), Invalid> {
        let most = millis(limits::object::FLUSH_INTERVAL_MOST);
        if self.flush_interval_ms > most {
            let why = format!(
                "{} is more than {most}: every write would wait that long",
                self.flush_interval_ms
            );
            return Err(Invalid::new("cluster.flush_interval_ms", why));
        }
        Ok(())
    }
}

impl config::Settings for Settings {
    fn validate(&self) -> Result<(), Invalid> {
        if self.data_dir.as_os_str().is_empty() {
            return Err(Invalid::new("data_dir", "it is empty: name a directory"));
        }
        self.kafka.validate()?;
        self.groups.validate()?;
        self.shared.validate()?;
        self.cluster.validate()?;
        let uplink = &self.uplink;
        if uplink.tls_cert.is_some() != uplink.tls_key.is_some() {
            let (there, missing) = match uplink.tls_cert {
                Some(_) => ("uplink.tls_cert", "tls_key"),
                None => ("uplink.tls_key", "tls_cert"),
            };
            let why = format!("[uplink] {missing} is missing: both are needed, or neither");
            return Err(Invalid::new(there, why));
        }
        if self.admin.metrics_topics > limits::METRICS_TOPICS_MAX {
            let (topics, most) = (self.admin.metrics_topics, limits::METRICS_TOPICS_MAX);
            return Err(Invalid::new("admin.metrics_topics", format!("{topics} is above {most}")));
        }
        self.cache.validate()?;
        self.dataset.validate()?;
        self.storage.validate()?;
        self.validate_exposure()?;
        self.validate_addresses()?;
        self.log.validate()
    }
}

impl KafkaSection {
    fn validate(&self) -> Result<(), Invalid> {
        if let Some(advertise) = &self.advertise {
            parse_host_port(advertise).map_err(|why| Invalid::new("kafka.advertise", why))?;
        }
        let most = limits::PARTITIONS_PER_TOPIC;
        if !(1..=most).contains(&self.default_partitions) {
            let why = format!("{} is not within 1 to {most}", self.default_partitions);
            return Err(Invalid::new("kafka.default_partitions", why));
        }
        let least_frame = limits::MAX_MESSAGE_BYTES;
        if self.max_frame_bytes < least_frame || i32::try_from(self.max_frame_bytes).is_err() {
            let why = format!(
                "{} is not within {least_frame} (one record batch) and {}",
                self.max_frame_bytes,
                i32::MAX
            );
            return Err(Invalid::new("kafka.max_frame_bytes", why));
        }
        for (key, bytes) in [
            ("request_memory_bytes", self.request_memory_bytes),
            ("answer_memory_bytes", self.answer_memory_bytes),
        ] {
            if bytes < self.max_frame_bytes {
                let why = format!(
                    "max_frame_bytes, {}, is more than {key}, {bytes}: one request has to fit",
                    self.max_frame_bytes
                );
                let invalid = Invalid::new(format!("kafka.{key}"), why);
                return Err(invalid.or("kafka.max_frame_bytes"));
            }
        }
        if self.max_connections == 0 {
            return Err(Invalid::new("kafka.max_connections", "0 lets nobody in"));
        }
        at_least("kafka.idle_timeout_ms", self.idle_timeout_ms, limits::KAFKA_IDLE_LEAST)
    }
}

impl GroupSection {
    fn validate(&self) -> Result<(), Invalid> {
        let (least, most) = (self.min_session_timeout_ms, self.max_session_timeout_ms);
        if least > most {
            let why =
                format!("min_session_timeout_ms, {least}, is above max_session_timeout_ms, {most}");
            let invalid = Invalid::new("groups.min_session_timeout_ms", why);
            return Err(invalid.or("groups.max_session_timeout_ms"));
        }
        let least = limits::GROUP_OFFSET_RETENTION_LEAST;
        at_least("groups.offset_retention_ms", self.offset_retention_ms, least)
    }
}

fn at_least(key: &str, value_ms: u64, least: Duration) -> Result<(), Invalid> {
    let least = millis(least);
    match value_ms >= least {
        true => Ok(()),
        false => Err(Invalid::new(key, format!("{value_ms} is less than {least}"))),
    }
}

/// Whether both cannot be listened on at once.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    let covers =
        |wide: IpAddr, ip: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || ip.is_ipv4());
    one.port() != 0 && one.port() == other.port() && (a == b || covers(a, b) || covers(b, a))
}

impl Settings {
    /// The loopback rule, for each listener, and what to do about it.
    fn validate_exposure(&self) -> Result<(), Invalid> {
        let open = Exposure { authenticated: false, insecure: self.insecure };
        let exposed = |key: &str, listen: SocketAddr, exposure: Exposure, remedy: &str| {
            let reachable = || format!("{listen} can be reached from other machines; {remedy}");
            check_exposure(key, listen, exposure).map_err(|_| Invalid::new(key, reachable()))
        };
        let kafka = &self.kafka;
        let mut remedy =
            "Kafka clients do not have to prove who they are, so set insecure = true if the network can be trusted, or listen on \
             127.0.0.1"
                .to_owned();
        let nowhere = kafka.listen.ip().is_unspecified() && kafka.advertise.is_none();
        let advertise = format!(
            "clients cannot connect to {}: set [kafka] advertise = \"HOST:PORT\" to what they know this machine by",
            kafka.listen.ip()
        );
        if nowhere {
            remedy.push_str(&format!("; and {advertise}"));
        }
        exposed("kafka.listen", kafka.listen, open, &remedy)?;
        if nowhere {
            return Err(Invalid::new("kafka.listen", advertise));
        }
        let remedy = "the tokens of edges must not cross a network without TLS, so set tls_cert and tls_key, listen on 127.0.0.1, \
                      or set insecure = true if the network can be trusted";
        exposed("uplink.listen", self.uplink.listen, self.edges_exposure(), remedy)?;
        let remedy = "whoever reaches it may add edges, so listen on 127.0.0.1, or set insecure = true if the network can be trusted";
        exposed("admin.listen", self.admin.listen, open, remedy)
    }

    fn validate_addresses(&self) -> Result<(), Invalid> {
        let (kafka, uplink, admin) = (self.kafka.listen, self.uplink.listen, self.admin.listen);
        let pairs = [
            (("kafka", kafka), ("uplink", uplink)),
            (("kafka", kafka), ("admin", admin)),
            (("uplink", uplink), ("admin", admin)),
        ];
        for ((one, its), (other, others)) in pairs {
            if collide(its, others) {
                let why = format!(
                    "[{one}] listen, {its}, and [{other}] listen, {others}, cannot both be listened on: give one another port"
                );
                let invalid = Invalid::new(format!("{other}.listen"), why);
                return Err(invalid.or(format!("{one}.listen")));
            }
        }
        Ok(())
    }

    /// Edges prove who they are by their tokens, which may travel over TLS only.
    pub(crate) fn edges_exposure(&self) -> Exposure {
        Exposure { authenticated: self.uplink.tls_cert.is_some(), insecure: self.insecure }
    }

    /// What groups need to know.
    #[must_use]
    pub fn timing(&self) -> Timing {
        Timing {
            initial_delay: Duration::from_millis(self.groups.initial_rebalance_delay_ms),
            session_min: Duration::from_millis(self.groups.min_session_timeout_ms),
            session_max: Duration::from_millis(self.groups.max_session_timeout_ms),
        }
    }

    /// What is legal, and probably not meant, a line each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.dataset.warnings()
    }

    /// Directories whose files may become topics; `None` for all.
    #[must_use]
    pub fn file_roots(&self) -> Option<Vec<PathBuf>> {
        match &self.dataset.file_roots {
            Some(roots) => Some(roots.clone()),
            None if self.kafka.listen.ip().is_loopback() => None,
            None => Some(Vec::new()),
        }
    }

    /// Where `tiered` topics are archived.
    #[must_use]
    pub fn archive_url(&self) -> Option<&ObjectStoreUrl> {
        self.tier.object_store.as_ref().or(self.cluster.object_store.as_ref())
    }

    /// What the log may take of memory.
    #[must_use]
    pub fn budgets(&self) -> Budgets {
        Budgets { unstored_bytes: self.storage.memory_bytes, ..Budgets::default() }
    }

    /// Host and port that clients are told, given the address that is really listened on.
    #[must_use]
    pub fn advertised(&self, listening: SocketAddr) -> (String, u16) {
        let named = self.kafka.advertise.as_deref().and_then(|text| parse_host_port(text).ok());
        named.unwrap_or_else(|| (host(listening.ip()), listening.port()))
    }

    /// Where the store's files are.
    #[must_use]
    pub fn store_dir(&self) -> PathBuf {
        self.data_dir.join("store")
    }
}

fn host(ip: IpAddr) -> String {
    ip.to_string()
}

/// `HOST:PORT`, also with an IPv6 address in brackets.
pub(crate) fn parse_host_port(text: &str) -> Result<(String, u16), String> {
    let why = || match text.split_once("://") {
        Some((scheme, _)) => format!("{text:?} is not HOST:PORT: leave {scheme}:// out"),
        None => format!("{text:?} is not HOST:PORT"),
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(why)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().map_err(|_| why())?;
    let is_wrong = host.is_empty() || host.contains(['/', ',', ' ']) || port == 0;
    if is_wrong { Err(why()) } else { Ok((host.to_owned(), port)) }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
