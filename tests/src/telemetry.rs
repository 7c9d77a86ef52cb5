//! This machine's own telemetry, read from `/proc`: real input for an edge, with nothing to set up.
//!
//! Each kind of reading is a device of its own: own client id, own session, own numbers.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::load::{Device, Quality};

/// Reads one kind of value and adds its fields.
type Read = fn(&mut Map<String, Value>);

/// The devices: name and what reads it.
const SENSORS: [(&str, Read); 5] =
    [("cpu", cpu), ("memory", memory), ("load", load), ("network", network), ("disk", disk)];

/// One device for each sensor, QoS 2 with a kept session, a reading every `interval`.
#[must_use]
pub fn devices(interval: Duration) -> Vec<Device> {
    let device = |(name, read): (&str, Read)| Device {
        client_id: name.to_owned(),
        topic: format!("gateway/telemetry/{name}"),
        quality: Quality::ExactlyOnce,
        interval,
        window: 20,
        payload: Arc::new(move |number| reading(number, read)),
    };
    SENSORS.into_iter().map(device).collect()
}

fn reading(number: u64, read: Read) -> Vec<u8> {
    let mut fields = Map::new();
    read(&mut fields);
    // The number comes first, where the account looks for it, so the object is put together here.
    let fields = Value::Object(fields).to_string();
    let rest = fields.trim_start_matches('{');
    let comma = if rest == "}" { "" } else { "," };
    format!("{{\"n\":{number}{comma}{rest}").into_bytes()
}

/// A sensor that cannot be read gives no fields: the reading is still sent, and still counted.
fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn number(word: Option<&str>) -> Value {
    let parsed = word.and_then(|word| word.parse::<serde_json::Number>().ok());
    parsed.map_or(Value::Null, Value::Number)
}

fn cpu(fields: &mut Map<String, Value>) {
    let stat = text("/proc/stat");
    let mut words = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    for name in ["user_ticks", "nice_ticks", "system_ticks", "idle_ticks", "iowait_ticks"] {
        fields.insert(name.to_owned(), number(words.next()));
    }
}

fn memory(fields: &mut Map<String, Value>) {
    let info = text("/proc/meminfo");
    for (wanted, name) in
        [("MemTotal:", "total_kb"), ("MemAvailable:", "available_kb"), ("Dirty:", "dirty_kb")]
    {
        let line = info.lines().find_map(|line| line.strip_prefix(wanted)).unwrap_or_default();
        fields.insert(name.to_owned(), number(line.split_whitespace().next()));
    }
}

fn load(fields: &mut Map<String, Value>) {
    let averages = text("/proc/loadavg");
    let mut words = averages.split_whitespace();
    for name in ["load_1m", "load_5m", "load_15m"] {
        fields.insert(name.to_owned(), number(words.next()));
    }
}

fn network(fields: &mut Map<String, Value>) {
    let interfaces = text("/proc/net/dev");
    let columns: Vec<Vec<u64>> = interfaces
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(_, counters)| {
            counters.split_whitespace().filter_map(|word| word.parse().ok()).collect()
        })
        .collect();
    for (column, name) in
        [(0, "received_bytes"), (1, "received_packets"), (8, "sent_bytes"), (9, "sent_packets")]
    {
        fields.insert(name.to_owned(), json!(sum(&columns, column)));
    }
}

fn disk(fields: &mut Map<String, Value>) {
    let disks = text("/proc/diskstats");
    let columns: Vec<Vec<u64>> = disks
        .lines()
        .map(|line| line.split_whitespace().skip(3).filter_map(|word| word.parse().ok()).collect())
        .collect();
    for (column, name) in [(0, "reads"), (2, "sectors_read"), (4, "writes"), (6, "sectors_written")]
    {
        fields.insert(name.to_owned(), json!(sum(&columns, column)));
    }
}

fn sum(rows: &[Vec<u64>], column: usize) -> u64 {
    rows.iter().filter_map(|row| row.get(column)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reading_is_json_with_its_number_first_and_values_from_this_machine() {
        for device in devices(Duration::from_secs(1)) {
            let payload = String::from_utf8((device.payload)(42)).unwrap();
            assert!(payload.starts_with("{\"n\":42,"), "{payload}");
            let fields: Map<String, Value> = serde_json::from_str(&payload).unwrap();
            assert!(fields.len() >= 4, "{payload}");
            assert!(fields.values().all(Value::is_number), "{payload}");
        }
    }
}
