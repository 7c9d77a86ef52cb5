//! SyncGroup (14), versions 0-5.
//!
//! Answered when the leader's assignment is durable; in a shared group at once. There the assignment is read, if it is a
//! consumer's, so that what a member no longer wants goes to others.

use bytes::{Buf as _, Bytes};
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use robustmq_common::ids::PartitionIndex;

use super::resolve::{self, TopicRef};
use super::{Kafka, Peer, owned, text};
use crate::group::machine::{Caller, Sync};
use crate::group::shared::coordinator::Assignment;
use crate::group::shared::is_shared;
use crate::kafka::errors::KafkaCode as _;

pub(super) async fn handle(
    kafka: &Kafka,
    peer: &Peer,
    version: i16,
    request: SyncGroupRequest,
) -> SyncGroupResponse {
    let sync = Sync {
        who: Caller {
            member_id: owned(&request.member_id),
            instance_id: request.group_instance_id.as_ref().map(owned),
            generation: request.generation_id,
        },
        protocol_type: request.protocol_type.as_ref().map(owned),
        protocol: request.protocol_name.as_ref().map(owned),
        assignments: request
            .assignments
            .iter()
            .map(|given| (owned(&given.member_id), Bytes::clone(&given.assignment)))
            .collect(),
    };
    let group = &request.group_id;
    let synced = match is_shared(group) {
        true => {
            let assigned = assigned(kafka, &sync).await;
            kafka.shared.sync(group, sync, assigned.as_ref(), peer.connection)
        }
        false => kafka.groups.sync(group, sync).await,
    };
    match synced {
        Ok(synced) => {
            let response = SyncGroupResponse::default().with_assignment(synced.assignment);
            if version < 5 {
                return response;
            }
            response
                .with_protocol_type(Some(text(synced.protocol_type)))
                .with_protocol_name(Some(text(synced.protocol)))
        }
        Err(error) => {
            tracing::debug!(group = request.group_id.as_str(), %error, "SyncGroup refused");
            SyncGroupResponse::default().with_error_code(error.code())
        }
    }
}

/// What a member of a shared group assigned itself: `None` if it did not, or in a way that only clients understand.
async fn assigned(kafka: &Kafka, sync: &Sync) -> Option<Assignment> {
    let (_, bytes) = sync.assignments.iter().find(|(id, _)| *id == sync.who.member_id)?;
    let mut assigned = Assignment::new();
    for (name, partitions) in read_assignment(bytes)? {
        let Ok(topic) = resolve::topic(kafka, TopicRef::Name(&name)).await else { continue };
        assigned.extend(partitions.into_iter().map(|index| (topic.id, PartitionIndex(index))));
    }
    Some(assigned)
}

/// Topics and partitions of a `ConsumerProtocolAssignment`: version, then an array of names and arrays of partitions; what later
/// versions add comes behind. Read by hand, since the frame check does not look into these bytes: nothing here believes a count.
fn read_assignment(mut bytes: &[u8]) -> Option<Vec<(String, Vec<i32>)>> {
    bytes.try_get_i16().ok().filter(|version| *version >= 0)?;
    let topics = bytes.try_get_i32().ok()?;
    let mut assignment = Vec::new();
    for _ in 0..topics {
        let length = usize::try_from(bytes.try_get_i16().ok()?).ok()?;
        let (name, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        let count = bytes.try_get_i32().ok()?;
        let mut partitions = Vec::new();
        for _ in 0..count {
            partitions.push(bytes.try_get_i32().ok()?);
        }
        assignment.push((String::from_utf8(name.to_vec()).ok()?, partitions));
    }
    Some(assignment)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition;
    use kafka_protocol::messages::{ConsumerProtocolAssignment, TopicName};
    use kafka_protocol::protocol::{Encodable as _, StrBytes};

    use super::read_assignment;

    #[test]
    fn an_assignment_is_read_and_lies_about_its_size_are_not_believed() {
        let topic = |name: &'static str, partitions| {
            let name = TopicName(StrBytes::from_static_str(name));
            TopicPartition::default().with_topic(name).with_partitions(partitions)
        };
        let assignment = ConsumerProtocolAssignment::default()
            .with_assigned_partitions(vec![topic("a", vec![0, 2]), topic("b", vec![])]);
        for version in 0..=3_i16 {
            let mut bytes = bytes::BytesMut::from(&version.to_be_bytes()[..]);
            assignment.encode(&mut bytes, version).expect("legal");
            let expected = vec![("a".to_owned(), vec![0, 2]), ("b".to_owned(), vec![])];
            assert_eq!(read_assignment(&bytes), Some(expected));
            // Two bytes of version, and what the topics take.
            for length in 0..bytes.len() - 4 {
                assert_eq!(read_assignment(&bytes[..length]), None, "{length} bytes");
            }
        }
        let lie = [&0_i16.to_be_bytes()[..], &i32::MAX.to_be_bytes()].concat();
        assert_eq!(read_assignment(&lie), None);
        assert_eq!(read_assignment(b"mine"), None);
    }
}
