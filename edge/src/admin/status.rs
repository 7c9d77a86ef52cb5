//! `GET /status`, and how `robustmq-edge status` shows it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::View;
use crate::uplink::DeadLetterReport;

/// The gateway at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its name at the cloud.
    pub edge_id: String,
    /// Of the program.
    pub version: String,
    /// Since the process started.
    pub uptime_secs: u64,
    /// Devices and local clients.
    pub mqtt: MqttReport,
    /// Store-and-forward.
    pub queue: QueueReport,
    /// The way to the cloud; absent when none is configured.
    pub uplink: Option<UplinkReport>,
    /// Why sessions and retained messages cannot be saved at the moment; absent when they can.
    pub state_failing: Option<String>,
}

/// Devices and local clients.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MqttReport {
    /// Connected clients.
    pub connections: usize,
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Subscriptions of all sessions.
    pub subscriptions: usize,
    /// Retained messages.
    pub retained: usize,
    /// Publishes received since the start, without duplicates.
    pub publishes_received: u64,
    /// Publishes sent since the start, without resends.
    pub publishes_sent: u64,
    /// Publishes refused since the start, as the queue was full or had failed.
    pub publishes_refused: u64,
    /// Messages dropped since the start for sessions with a full queue.
    pub dropped_for_slow_sessions: u64,
}

/// Store-and-forward: all lanes, and each.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueReport {
    /// Records that the cloud does not have yet.
    pub records: u64,
    /// What the queue takes on disk.
    pub bytes: u64,
    /// Age of the oldest record that the cloud does not have yet.
    pub oldest_secs: f64,
    /// Dropped since the queue was full, ever.
    pub dropped_records: u64,
    /// Not sent since their time to live had passed, ever.
    pub expired_records: u64,
    /// Unreadable, ever.
    pub quarantined_records: u64,
    /// Why the queue refuses everything; absent when it does not.
    pub failed: Option<String>,
    /// By priority: 0 goes first.
    pub lanes: Vec<LaneReport>,
}

/// One lane of the queue.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LaneReport {
    /// Its number.
    pub lane: u8,
    /// Records that the cloud does not have yet.
    pub records: u64,
    /// What it takes on disk.
    pub bytes: u64,
    /// Age of the oldest record that the cloud does not have yet.
    pub oldest_secs: f64,
}

/// The way to the cloud.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkReport {
    /// Whether the cloud answered the last time that something was asked of it.
    pub connected: bool,
    /// For how many seconds that has been so.
    pub seconds: u64,
    /// The cloud.
    pub url: String,
    /// What went wrong last and is not known to be over.
    pub last_error: Option<String>,
    /// What the cloud issued to this queue; 0 before the first contact.
    pub incarnation: u64,
    /// What the cloud rejected for good.
    #[serde(default)]
    pub dead_letters: DeadLetterReport,
}

impl View {
    /// The gateway now.
    #[must_use]
    pub async fn status(&self) -> Status {
        Status {
            edge_id: self.edge_id.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_secs: self.started.elapsed().as_secs(),
            mqtt: self.mqtt(),
            queue: self.queue_report().await,
            uplink: self.uplink.as_ref().map(|report| report()),
            state_failing: self.state.borrow().failing.clone(),
        }
    }

    fn mqtt(&self) -> MqttReport {
        let figures = *self.figures.borrow();
        let (counters, gauges) = (figures.counters, figures.gauges);
        MqttReport {
            connections: gauges.connections,
            sessions: gauges.sessions,
            subscriptions: gauges.subscriptions,
            retained: gauges.retained,
            publishes_received: counters.publishes_received.iter().sum(),
            publishes_sent: counters.publishes_sent.iter().sum(),
            publishes_refused: counters.store_refused,
            dropped_for_slow_sessions: counters.dropped_queue_full_qos0
                + counters.dropped_queue_full_qos12,
        }
    }

    async fn queue_report(&self) -> QueueReport {
        let mut report = QueueReport {
            failed: self.queue.poisoned().map(|reason| reason.to_string()),
            ..QueueReport::default()
        };
        // A closed queue has no lanes to show.
        for lane in self.queue.status().await.unwrap_or_default() {
            let oldest_secs = lane.oldest.unwrap_or_default().as_secs_f64();
            report.records += lane.depth_records;
            report.bytes += lane.disk_bytes;
            report.oldest_secs = report.oldest_secs.max(oldest_secs);
            report.dropped_records += lane.drops.dropped_records;
            report.expired_records += lane.drops.expired_records;
            report.quarantined_records += lane.drops.quarantined_records;
            report.lanes.push(LaneReport {
                lane: lane.lane.0,
                records: lane.depth_records,
                bytes: lane.disk_bytes,
                oldest_secs,
            });
        }
        report
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mqtt, queue, .. } = self;
        let up = secs(self.uptime_secs);
        writeln!(f, "edge      {}, version {}, up {up}", self.edge_id, self.version)?;
        match &self.uplink {
            None => writeln!(f, "uplink    not configured: messages stay on this gateway")?,
            Some(uplink) => {
                let state = if uplink.connected { "connected" } else { "not connected" };
                write!(f, "uplink    {state} for {} ({})", secs(uplink.seconds), uplink.url)?;
                match &uplink.last_error {
                    Some(error) => writeln!(f, ": {error}")?,
                    None => writeln!(f)?,
                }
            }
        }
        let oldest = Secs(queue.oldest_secs);
        let size = Bytes(queue.bytes);
        writeln!(f, "queue     {} records, {size} on disk, oldest {oldest}", queue.records)?;
        if let Some(reason) = &queue.failed {
            writeln!(f, "          FAILED: {reason}")?;
        }
        for lane in queue.lanes.iter().filter(|lane| lane.records > 0) {
            let (size, oldest) = (Bytes(lane.bytes), Secs(lane.oldest_secs));
            writeln!(
                f,
                "          lane {}: {} records, {size}, oldest {oldest}",
                lane.lane, lane.records
            )?;
        }
        writeln!(
            f,
            "drops     {} as the queue was full, {} expired, {} unreadable",
            queue.dropped_records, queue.expired_records, queue.quarantined_records
        )?;
        if let Some(uplink) = &self.uplink {
            write_dead_letters(f, &uplink.dead_letters)?;
        }
        writeln!(
            f,
            "mqtt      {} connections, {} sessions, {} subscriptions, {} retained messages",
            mqtt.connections, mqtt.sessions, mqtt.subscriptions, mqtt.retained
        )?;
        write!(
            f,
            "          {} publishes received, {} sent, {} refused, {} dropped for slow sessions",
            mqtt.publishes_received,
            mqtt.publishes_sent,
            mqtt.publishes_refused,
            mqtt.dropped_for_slow_sessions
        )?;
        if let Some(reason) = &self.state_failing {
            write!(f, "\nstate     FAILING: {reason}")?;
        }
        Ok(())
    }
}

fn write_dead_letters(f: &mut fmt::Formatter<'_>, letters: &DeadLetterReport) -> fmt::Result {
    if letters.records == 0 {
        return writeln!(f, "rejected  0 dead letters");
    }
    let (records, file) = (letters.records, &letters.file);
    let noun = if records == 1 { "dead letter" } else { "dead letters" };
    writeln!(f, "rejected  {records} {noun} that the cloud refused for good, kept in {file}")?;
    for letter in &letters.newest {
        let topic = letter.mqtt_topic.as_deref().unwrap_or("of unknown topic");
        writeln!(
            f,
            "          {}: {topic} (lane {}, sequence {})",
            letter.reason, letter.lane.0, letter.seq.0
        )?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a person reads at most three digits")]
fn secs(whole: u64) -> Secs {
    Secs(whole as f64)
}

/// A number of seconds as a person reads it.
struct Secs(f64);

impl fmt::Display for Secs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            secs if secs < 60.0 => write!(f, "{secs:.0} s"),
            secs if secs < 3_600.0 => write!(f, "{:.0} min", secs / 60.0),
            secs if secs < 86_400.0 => write!(f, "{:.1} h", secs / 3_600.0),
            secs => write!(f, "{:.1} days", secs / 86_400.0),
        }
    }
}

/// A number of bytes as a person reads it.
struct Bytes(u64);

impl fmt::Display for Bytes {
    #[expect(clippy::cast_precision_loss, reason = "a person reads at most four digits")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0 as f64;
        match self.0 {
            0..1024 => write!(f, "{} B", self.0),
            1024..1_048_576 => write!(f, "{:.1} KiB", bytes / 1024.0),
            1_048_576..1_073_741_824 => write!(f, "{:.1} MiB", bytes / 1_048_576.0),
            _ => write!(f, "{:.1} GiB", bytes / 1_073_741_824.0),
        }
    }
}

/// Why a gateway's status could not be had.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// It does not answer.
    #[error("no gateway answers at {url}: {reason}")]
    NoAnswer {
        /// Where it was asked.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// Something else answers there.
    #[error("{url} is not the admin address of a robustmq-edge: {reason}")]
    NotAnEdge {
        /// Where it was asked.
        url: String,
        /// What is wrong with the answer.
        reason: String,
    },
}

/// Asks the gateway whose admin listener is at `admin` (`http://HOST:PORT`).
///
/// # Errors
/// [`StatusError`] when no gateway answers within some seconds.
pub async fn fetch(admin: &str) -> Result<Status, StatusError> {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let url = format!("{}/status", admin.trim_end_matches('/'));
    let no_answer = |error: reqwest::Error| {
        let mut reason = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            reason = inner.to_string();
            cause = inner.source();
        }
        StatusError::NoAnswer { url: url.clone(), reason }
    };
    // Fails when the process has one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client =
        reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build().map_err(no_answer)?;
    let answer = client.get(&url).send().await.map_err(no_answer)?;
    let not_an_edge = |reason: String| StatusError::NotAnEdge { url: url.clone(), reason };
    if !answer.status().is_success() {
        return Err(not_an_edge(format!("it answers {}", answer.status())));
    }
    answer.json().await.map_err(|error| not_an_edge(error.to_string()))
}

#[cfg(test)]
mod tests {
    use robustmq_common::ids::{EdgeSeq, LaneId};

    use super::{Bytes, LaneReport, QueueReport, Secs, Status, UplinkReport};
    use crate::uplink::NewestLetter;

    #[test]
    fn numbers_read_well() {
        let check = |secs: f64, expected: &str| assert_eq!(Secs(secs).to_string(), expected);
        check(0.4, "0 s");
        check(59.0, "59 s");
        check(90.0, "2 min");
        check(5_400.0, "1.5 h");
        check(200_000.0, "2.3 days");
        let check = |bytes: u64, expected: &str| assert_eq!(Bytes(bytes).to_string(), expected);
        check(1023, "1023 B");
        check(1536, "1.5 KiB");
        check(8 * 1024 * 1024, "8.0 MiB");
        check(3 * 1024 * 1024 * 1024, "3.0 GiB");
    }

    #[test]
    fn a_person_sees_uplink_depth_drops_and_sessions() {
        let status = Status {
            edge_id: "press-hall".to_owned(),
            version: "0.1.0".to_owned(),
            uptime_secs: 120,
            mqtt: super::MqttReport { connections: 3, sessions: 5, ..Default::default() },
            queue: QueueReport {
                records: 10,
                bytes: 2048,
                oldest_secs: 30.0,
                dropped_records: 4,
                lanes: vec![LaneReport { lane: 1, records: 10, bytes: 2048, oldest_secs: 30.0 }],
                ..QueueReport::default()
            },
            uplink: Some(UplinkReport {
                connected: false,
                seconds: 5400,
                url: "http://cloud:9440".to_owned(),
                last_error: Some("connection refused".to_owned()),
                incarnation: 1,
                dead_letters: super::DeadLetterReport {
                    records: 6,
                    file: "/data/dead-letter.jsonl".to_owned(),
                    newest: vec![NewestLetter {
                        lane: LaneId(1),
                        seq: EdgeSeq(17),
                        reason: "not_authorised".to_owned(),
                        mqtt_topic: Some("office/door".to_owned()),
                    }],
                },
            }),
            state_failing: None,
        };
        let expected = "\
edge      press-hall, version 0.1.0, up 2 min
uplink    not connected for 1.5 h (http://cloud:9440): connection refused
queue     10 records, 2.0 KiB on disk, oldest 30 s
          lane 1: 10 records, 2.0 KiB, oldest 30 s
drops     4 as the queue was full, 0 expired, 0 unreadable
rejected  6 dead letters that the cloud refused for good, kept in /data/dead-letter.jsonl
          not_authorised: office/door (lane 1, sequence 17)
mqtt      3 connections, 5 sessions, 0 subscriptions, 0 retained messages
          0 publishes received, 0 sent, 0 refused, 0 dropped for slow sessions";
        assert_eq!(status.to_string(), expected);
    }
}
