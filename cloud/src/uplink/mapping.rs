//! An edge record as a Kafka record: which topic, which partition, which headers.
//!
//! The headers are listed in `common/docs/headers.md`.

use robustmq_common::ids::{EdgeSeq, KafkaTopic, PartitionIndex};
use robustmq_common::mqtt::topic_map::kafka_topic;
use robustmq_common::sync::{EdgeRecord, RejectReason};

use crate::log::OriginKey;

/// The Kafka topic that a record asks for: its route's, or that of its MQTT topic.
pub(super) fn topic_of(record: &EdgeRecord<'_>) -> Result<KafkaTopic, RejectReason> {
    match record.routed_topic() {
        Ok(Some(topic)) => Ok(topic),
        Ok(None) => kafka_topic(record.mqtt_topic).ok_or(RejectReason::IllegalTopic),
        Err(_) => Err(RejectReason::IllegalTopic),
    }
}

/// The partition of a record: by its key as Kafka's clients do it; without a key, spread by its sequence (and so the same one on a retry).
pub(super) fn partition_of(
    record: &EdgeRecord<'_>,
    seq: EdgeSeq,
    partitions: i32,
) -> PartitionIndex {
    let count = u64::try_from(partitions.max(1)).unwrap_or(1);
    let position = match record.kafka_key() {
        Some(key) => u64::from(murmur2(key) & 0x7fff_ffff),
        None => seq.0,
    };
    PartitionIndex(i32::try_from(position % count).unwrap_or(0))
}

/// The hash of Kafka's default partitioner (`org.apache.kafka.common.utils.Utils.murmur2`).
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = 0x9747_b28c ^ length;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let bytes: [u8; 4] = word.try_into().unwrap_or_default();
        let mut k = u32::from_le_bytes(bytes).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let tail = words.remainder();
    for (index, byte) in tail.iter().enumerate().rev() {
        hash ^= u32::from(*byte) << (8 * index);
    }
    if !tail.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The headers of one record, owned where they have to be made.
pub(super) struct Headers<'a> {
    names: Vec<String>,
    values: Vec<&'a [u8]>,
    fixed: Vec<(&'static str, &'a [u8])>,
    sequence: String,
    edge: &'a str,
    time_is_the_clouds: bool,
}

impl<'a> Headers<'a> {
    pub fn of(record: &EdgeRecord<'a>, seq: EdgeSeq, origin: &'a OriginKey, timed: bool) -> Self {
        let qos: &[u8] = match record.qos {
            0 => b"0",
            1 => b"1",
            _ => b"2",
        };
        let flag = |on: bool| -> &'static [u8] { if on { b"1" } else { b"0" } };
        let mut fixed: Vec<(&'static str, &'a [u8])> = vec![
            ("mqtt.topic", record.mqtt_topic.as_bytes()),
            ("mqtt.qos", qos),
            ("mqtt.retain", flag(record.retain)),
        ];
        let optional = [
            ("mqtt.content-type", record.content_type.map(str::as_bytes)),
            ("mqtt.response-topic", record.response_topic.map(str::as_bytes)),
            ("mqtt.correlation-data", record.correlation_data),
            ("mqtt.payload-format", record.payload_utf8.then_some(b"1".as_slice())),
        ];
        fixed.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
        let properties = &record.user_properties;
        Self {
            names: properties.iter().map(|(name, _)| format!("mqtt.user.{name}")).collect(),
            values: properties.iter().map(|(_, value)| value.as_bytes()).collect(),
            fixed,
            sequence: format!("{}:{}:{seq}", origin.incarnation, origin.lane),
            edge: origin.edge.as_str(),
            time_is_the_clouds: !timed,
        }
    }

    /// As the record builder takes them.
    pub fn list(&self) -> Vec<(&str, Option<&[u8]>)> {
        let mut list: Vec<(&str, Option<&[u8]>)> =
            self.fixed.iter().map(|(name, value)| (*name, Some(*value))).collect();
        let user = self.names.iter().zip(&self.values);
        list.extend(user.map(|(name, value)| (name.as_str(), Some(*value))));
        list.push(("robustmq.edge", Some(self.edge.as_bytes())));
        list.push(("robustmq.edge.seq", Some(self.sequence.as_bytes())));
        if self.time_is_the_clouds {
            list.push(("robustmq.time", Some(b"cloud")));
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::murmur2;

    #[test]
    fn keys_hash_as_in_kafkas_own_clients() {
        // org.apache.kafka.common.utils.UtilsTest.testMurmur2
        let check = |key: &str, expected: i32| {
            assert_eq!(
                murmur2(key.as_bytes()),
                u32::from_be_bytes(expected.to_be_bytes()),
                "{key}"
            );
        };
        check("21", -973_932_308);
        check("foobar", -790_332_482);
        check("a-little-bit-long-string", -985_981_536);
        check("a-little-bit-longer-string", -1_486_304_829);
        check("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971);
        check("abc", 479_470_107);
    }
}
