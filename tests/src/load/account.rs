//! What a Kafka client found, held against what the devices published.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::Context;

use super::device::{DeviceReport, Quality};
use crate::clients::kcat::Record;

/// The header in which the cloud names the record of the edge for good: `INCARNATION:LANE:SEQUENCE`.
pub const SEQUENCE_HEADER: &str = "robustmq.edge.seq";

/// One device's messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceAccount {
    pub client_id: String,
    pub sent: u64,
    /// Records in the log, repeated ones included.
    pub received: u64,
    /// Numbers that were acknowledged and are not in the log.
    pub missing: u64,
    /// Records beyond the first with the same number.
    pub repeated: u64,
    /// Numbers whose first record comes after that of a higher number.
    pub out_of_order: u64,
    /// Numbers in the log that the device never used, and records that are not of the device at all.
    pub foreign: u64,
}

/// All devices, and the edge sequences.
#[derive(Clone, Debug, Default)]
pub struct Account {
    pub devices: Vec<DeviceAccount>,
    /// Records whose edge sequence is in the log before.
    pub sequences_repeated: u64,
    /// Edge sequences below the highest of their lane that are in no record. Means something if all topics were read.
    pub sequences_missing: u64,
    /// Records that name no edge sequence.
    pub sequences_absent: u64,
}

impl DeviceAccount {
    /// Holds `records`, in log order, against what the device reported.
    #[must_use]
    pub fn of(report: &DeviceReport, records: &[Record]) -> Self {
        let mut account =
            Self { client_id: report.client_id.clone(), sent: report.published, ..Self::default() };
        let mut seen = BTreeSet::new();
        let mut highest = None;
        for record in records {
            account.received += 1;
            let number = number_of(&record.value).filter(|number| *number < report.published);
            let Some(number) = number.filter(|_| record.key == report.client_id.as_bytes()) else {
                account.foreign += 1;
                continue;
            };
            if !seen.insert(number) {
                account.repeated += 1;
            } else if highest.is_some_and(|highest| number < highest) {
                account.out_of_order += 1;
            }
            highest = highest.max(Some(number));
        }
        account.missing = report.published - seen.len() as u64;
        account
    }

    /// Nothing missing, nothing out of order, nothing foreign; and with QoS 2 nothing repeated.
    #[must_use]
    pub fn holds(&self, quality: Quality) -> bool {
        let exact = quality == Quality::AtLeastOnce || self.repeated == 0;
        self.missing == 0 && self.out_of_order == 0 && self.foreign == 0 && exact
    }
}

/// The number that a payload starts with: `17 ...` or `{"n":17,...`.
fn number_of(payload: &[u8]) -> Option<u64> {
    let payload = payload.strip_prefix(b"{\"n\":").unwrap_or(payload);
    let digits = payload.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&payload[..digits]).ok()?.parse().ok()
}

impl Account {
    /// Holds the log of each device's topic against its report.
    ///
    /// # Errors
    /// When a device's topic was not read.
    pub fn of(
        reports: &[DeviceReport],
        logs: &BTreeMap<String, Vec<Record>>,
    ) -> anyhow::Result<Self> {
        let mut account = Self::default();
        for report in reports {
            let log =
                logs.get(&report.topic).with_context(|| format!("no log of {}", report.topic))?;
            account.devices.push(DeviceAccount::of(report, log));
        }
        account.count_sequences(logs.values().flatten());
        Ok(account)
    }

    fn count_sequences<'a>(&mut self, records: impl Iterator<Item = &'a Record>) {
        let mut lanes: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for record in records {
            let named = record.header(SEQUENCE_HEADER).and_then(|name| name.rsplit_once(':'));
            let Some((lane, Ok(sequence))) = named.map(|(lane, last)| (lane, last.parse())) else {
                self.sequences_absent += 1;
                continue;
            };
            let edge = record.header("robustmq.edge").unwrap_or_default();
            if !lanes.entry(format!("{edge}:{lane}")).or_default().insert(sequence) {
                self.sequences_repeated += 1;
            }
        }
        for sequences in lanes.values() {
            let highest = sequences.last().copied().unwrap_or_default();
            self.sequences_missing += highest.saturating_sub(sequences.len() as u64);
        }
    }

    /// Every edge sequence is there once.
    #[must_use]
    pub fn sequences_hold(&self) -> bool {
        (self.sequences_repeated, self.sequences_missing, self.sequences_absent) == (0, 0, 0)
    }

    /// The devices of which the promise does not hold.
    #[must_use]
    pub fn broken(&self, quality_of: impl Fn(&str) -> Quality) -> Vec<&DeviceAccount> {
        self.devices.iter().filter(|device| !device.holds(quality_of(&device.client_id))).collect()
    }
}

impl fmt::Display for DeviceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: sent {}, received {}, missing {}, repeated {}, out of order {}, foreign {}",
            self.client_id,
            self.sent,
            self.received,
            self.missing,
            self.repeated,
            self.out_of_order,
            self.foreign
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(published: u64, log: &[(&str, &str)]) -> DeviceAccount {
        let report = DeviceReport { client_id: "d".into(), published, ..DeviceReport::default() };
        let records: Vec<Record> =
            log.iter().map(|(key, value)| Record::of(key.as_bytes(), value.as_bytes())).collect();
        DeviceAccount::of(&report, &records)
    }

    #[test]
    fn each_fault_is_counted_as_what_it_is() {
        let clean = account(3, &[("d", "0 a"), ("d", "1 a"), ("d", "2 a")]);
        assert!(clean.holds(Quality::ExactlyOnce), "{clean}");

        let missing = account(3, &[("d", "0 a"), ("d", "2 a")]);
        assert_eq!((missing.missing, missing.out_of_order), (1, 0));
        assert!(!missing.holds(Quality::AtLeastOnce));

        let repeated = account(2, &[("d", "0 a"), ("d", "1 a"), ("d", "0 a")]);
        assert_eq!((repeated.repeated, repeated.out_of_order), (1, 0));
        assert!(repeated.holds(Quality::AtLeastOnce) && !repeated.holds(Quality::ExactlyOnce));

        let swapped = account(2, &[("d", "1 a"), ("d", "0 a")]);
        assert_eq!(swapped.out_of_order, 1);
        assert!(!swapped.holds(Quality::AtLeastOnce));

        let foreign = account(1, &[("d", "0 a"), ("d", "7 a"), ("e", "0 a"), ("d", "x")]);
        assert_eq!((foreign.foreign, foreign.missing), (3, 0));

        let json = account(1, &[("d", "{\"n\":0,\"value\":1}")]);
        assert!(json.holds(Quality::ExactlyOnce), "{json}");
    }

    #[test]
    fn edge_sequences_are_counted_by_lane() {
        let record = |name: &str| Record {
            headers: vec![(SEQUENCE_HEADER.to_owned(), name.to_owned())],
            ..Record::default()
        };
        let check = |names: &[&str], expected: (u64, u64, u64)| {
            let records: Vec<Record> = names.iter().map(|name| record(name)).collect();
            let mut account = Account::default();
            account.count_sequences(records.iter());
            let found =
                (account.sequences_repeated, account.sequences_missing, account.sequences_absent);
            assert_eq!(found, expected, "{names:?}");
        };
        check(&["1:0:1", "1:0:2", "1:1:1", "2:0:1"], (0, 0, 0));
        check(&["1:0:1", "1:0:1"], (1, 0, 0));
        check(&["1:0:3", "1:0:1"], (0, 1, 0));
        check(&["", "1:0:x", "7"], (0, 0, 3));
    }
}
