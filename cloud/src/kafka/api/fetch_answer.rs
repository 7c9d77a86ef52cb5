//! The Fetch answer on the wire, versions 4-16, with record batches as pieces of their own.
//!
//! The generated encoder would copy every batch into one buffer; this is the one answer where that counts. A test compares
//! it with the generated encoder in every version.

use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::TopicName;
use uuid::Uuid;

use crate::kafka::parts::Parts;

/// What was fetched of one topic.
pub(super) struct TopicAnswer {
    /// For versions up to 12.
    pub name: TopicName,
    /// For versions from 13 on.
    pub id: Uuid,
    pub partitions: Vec<PartitionAnswer>,
}

/// What was fetched of one partition.
pub(super) struct PartitionAnswer {
    pub index: i32,
    pub error_code: i16,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
    /// Answers a `read_committed` reader, who gets a list of aborted transactions: an empty one.
    pub read_committed: bool,
    /// Batches, each in one or more pieces.
    pub pieces: Vec<Bytes>,
}

impl PartitionAnswer {
    /// A partition that could not be read.
    pub fn failed(index: i32, error: ResponseError) -> Self {
        Self {
            index,
            error_code: error.code(),
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            read_committed: false,
            pieces: Vec::new(),
        }
    }
}

/// A number does not fit its field.
#[derive(Debug, thiserror::Error)]
#[error("{0} has more entries or bytes than its field can say")]
pub(super) struct TooLarge(&'static str);

struct Encoder {
    version: i16,
    head: BytesMut,
    parts: Parts,
}

/// Encodes the answer's body.
pub(super) fn encode(
    version: i16,
    error_code: i16,
    topics: &[TopicAnswer],
) -> Result<Parts, TooLarge> {
    let mut encoder = Encoder { version, head: BytesMut::new(), parts: Parts::default() };
    encoder.head.put_i32(0); // throttle time
    if version >= 7 {
        encoder.head.put_i16(error_code);
        encoder.head.put_i32(0); // no session
    }
    encoder.count("the answer", topics.len())?;
    for topic in topics {
        encoder.topic(topic)?;
    }
    encoder.no_tags();
    encoder.parts.take(&mut encoder.head);
    Ok(encoder.parts)
}

impl Encoder {
    fn is_flexible(&self) -> bool {
        self.version >= 12
    }

    fn no_tags(&mut self) {
        if self.is_flexible() {
            self.head.put_u8(0);
        }
    }

    /// The length of an array or of bytes: 32 bits, or one more as a varint.
    fn count(&mut self, what: &'static str, count: usize) -> Result<(), TooLarge> {
        let count = i32::try_from(count).map_err(|_| TooLarge(what))?;
        if !self.is_flexible() {
            self.head.put_i32(count);
            return Ok(());
        }
        let mut rest = count.cast_unsigned() + 1;
        loop {
            let [low, ..] = rest.to_le_bytes();
            rest >>= 7;
            if rest == 0 {
                self.head.put_u8(low);
                return Ok(());
            }
            self.head.put_u8(low | 0x80);
        }
    }

    fn topic(&mut self, topic: &TopicAnswer) -> Result<(), TooLarge> {
        if self.version >= 13 {
            self.head.put_slice(topic.id.as_bytes());
        } else {
            if self.is_flexible() {
                self.count("a topic's name", topic.name.len())?;
            } else {
                let length = i16::try_from(topic.name.len());
                self.head.put_i16(length.map_err(|_| TooLarge("a topic's name"))?);
            }
            self.head.put_slice(topic.name.as_bytes());
        }
        self.count("a topic", topic.partitions.len())?;
        for partition in &topic.partitions {
            self.partition(partition)?;
        }
        self.no_tags();
        Ok(())
    }

    fn partition(&mut self, partition: &PartitionAnswer) -> Result<(), TooLarge> {
        self.head.put_i32(partition.index);
        self.head.put_i16(partition.error_code);
        self.head.put_i64(partition.high_watermark);
        self.head.put_i64(partition.last_stable_offset);
        if self.version >= 5 {
            self.head.put_i64(partition.log_start_offset);
        }
        match (partition.read_committed, self.is_flexible()) {
            (true, _) => self.count("aborted transactions", 0)?,
            (false, true) => self.head.put_u8(0),
            (false, false) => self.head.put_i32(-1),
        }
        if self.version >= 11 {
            self.head.put_i32(-1); // no other replica to read from
        }
        self.count("a partition", partition.pieces.iter().map(Bytes::len).sum())?;
        if !partition.pieces.is_empty() {
            self.parts.take(&mut self.head);
            for piece in &partition.pieces {
                self.parts.push(piece.clone());
            }
        }
        self.no_tags();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Buf as _, Bytes, BytesMut};
    use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
    use kafka_protocol::messages::{FetchResponse, TopicName};
    use kafka_protocol::protocol::{Encodable as _, StrBytes};
    use uuid::Uuid;

    use super::{PartitionAnswer, TopicAnswer, encode};

    fn partition(index: i32, sizes: &[usize], read_committed: bool) -> PartitionAnswer {
        let pieces = sizes.iter().map(|size| Bytes::from(vec![7; *size])).collect();
        PartitionAnswer {
            index,
            error_code: 0,
            high_watermark: 10,
            last_stable_offset: 9,
            log_start_offset: 3,
            read_committed,
            pieces,
        }
    }

    fn generated(version: i16, error_code: i16, topics: &[TopicAnswer]) -> Bytes {
        let partition = |partition: &PartitionAnswer| {
            let answer = PartitionData::default()
                .with_partition_index(partition.index)
                .with_error_code(partition.error_code)
                .with_high_watermark(partition.high_watermark)
                .with_last_stable_offset(partition.last_stable_offset)
                .with_aborted_transactions(partition.read_committed.then(Vec::new))
                .with_records(Some(partition.pieces.concat().into()));
            match version >= 5 {
                true => answer.with_log_start_offset(partition.log_start_offset),
                false => answer,
            }
        };
        let topic = |topic: &TopicAnswer| {
            let partitions = topic.partitions.iter().map(partition).collect();
            let answer = FetchableTopicResponse::default().with_partitions(partitions);
            match version >= 13 {
                true => answer.with_topic_id(topic.id),
                false => answer.with_topic(topic.name.clone()),
            }
        };
        let mut response =
            FetchResponse::default().with_responses(topics.iter().map(topic).collect());
        if version >= 7 {
            response = response.with_error_code(error_code);
        }
        let mut out = BytesMut::new();
        response.encode(&mut out, version).expect("a legal answer");
        out.freeze()
    }

    #[test]
    fn it_says_what_the_generated_encoder_says_in_every_version() {
        let name = TopicName(StrBytes::from_static_str("topic"));
        let topics = [
            TopicAnswer {
                name: name.clone(),
                id: Uuid::from_u128(5),
                partitions: vec![partition(0, &[200, 1], false), partition(1, &[], true)],
            },
            TopicAnswer {
                name,
                id: Uuid::from_u128(6),
                partitions: vec![partition(2, &[20_000], true)],
            },
        ];
        for version in 4..=16 {
            for topics in [&topics[..], &[]] {
                let mut parts = encode(version, 70, topics).expect("a small answer");
                let own = parts.copy_to_bytes(parts.remaining());
                assert_eq!(own, generated(version, 70, topics), "version {version}");
            }
        }
    }
}
