//! What ShareFetch and ShareAcknowledge have in common: share sessions, and acknowledgements record by record.

use std::collections::BTreeMap;
use std::ops::Range;

use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;
use robustmq_common::ids::TopicId;
use uuid::Uuid;

use super::Kafka;
use super::resolve::{self, TopicRef};
use crate::group::shared::pool::Verdict;
use crate::kafka::errors::KafkaCode as _;

/// The epoch of a request that ends a share session.
pub(super) const LAST: i32 = -1;
/// The epoch of a request that begins one.
pub(super) const FIRST: i32 = 0;

/// First and last offset, and what is said of them: one for all, or one for each.
pub(super) type Batch = (i64, i64, Vec<i8>);

/// Acknowledgements of a request, by topic and partition.
pub(super) type Acknowledgements = BTreeMap<(TopicId, i32), Vec<Batch>>;

/// Who speaks; INVALID_REQUEST if it does not say.
pub(super) fn who(
    group: Option<&StrBytes>,
    member_id: Option<&StrBytes>,
) -> Result<(String, String), ResponseError> {
    match (group, member_id) {
        (Some(group), Some(member_id)) if !group.is_empty() && !member_id.is_empty() => {
            Ok((super::owned(group), super::owned(member_id)))
        }
        _ => Err(ResponseError::InvalidRequest),
    }
}

/// Does what a member says of records that it has acquired, partition by partition: all of a partition, or nothing. Returns the error
/// of each, or none.
pub(super) async fn acknowledge(
    kafka: &Kafka,
    (group, member_id): (&str, &str),
    acknowledgements: Acknowledgements,
) -> BTreeMap<(TopicId, i32), Option<ResponseError>> {
    // Begun together, so that they share a sync.
    let all = acknowledgements.into_iter().map(|(at, batches)| async move {
        let settled = settle(kafka, (group, member_id), at, &batches).await;
        (at, settled.err())
    });
    futures_util::future::join_all(all).await.into_iter().collect()
}

async fn settle(
    kafka: &Kafka,
    (group, member_id): (&str, &str),
    (topic, index): (TopicId, i32),
    batches: &[Batch],
) -> Result<(), ResponseError> {
    let verdicts = verdicts(batches).ok_or(ResponseError::InvalidRequest)?;
    let topic = resolve::topic(kafka, TopicRef::Id(topic.0)).await?;
    let partition = resolve::partition(kafka, &topic, index).await?;
    let share = kafka.shared.share();
    let settled = share.settle(group, member_id, &partition, &verdicts).await;
    settled.map_err(|error| {
        tracing::debug!(group, member = member_id, %error, "an acknowledgement is refused");
        error.kafka()
    })
}

/// What is said of which records: in order, and of each once. `None` if it is not so.
fn verdicts(batches: &[Batch]) -> Option<Vec<(Range<i64>, Verdict)>> {
    let mut verdicts: Vec<(Range<i64>, Verdict)> = Vec::new();
    let mut end = 0;
    for (first, last, types) in batches {
        let (first, next) = (*first, last.checked_add(1)?);
        if first < end || next <= first {
            return None;
        }
        end = next;
        if let [one] = types[..] {
            push(&mut verdicts, first..next, verdict(one)?);
            continue;
        }
        if i64::try_from(types.len()) != Ok(next - first) {
            return None;
        }
        for (offset, kind) in (first..next).zip(types) {
            push(&mut verdicts, offset..offset + 1, verdict(*kind)?);
        }
    }
    Some(verdicts)
}

/// Together with those before, where that is said of them too.
fn push(verdicts: &mut Vec<(Range<i64>, Verdict)>, offsets: Range<i64>, verdict: Verdict) {
    match verdicts.last_mut() {
        Some((last, said)) if last.end == offsets.start && *said == verdict => {
            last.end = offsets.end;
        }
        _ => verdicts.push((offsets, verdict)),
    }
}

/// The numbers of `AcknowledgeType` (KIP-932).
fn verdict(kind: i8) -> Option<Verdict> {
    match kind {
        0 => Some(Verdict::Gap),
        1 => Some(Verdict::Accept),
        2 => Some(Verdict::Release),
        3 => Some(Verdict::Reject),
        _ => None,
    }
}

/// Groups what concerns partitions by topic, for an answer.
pub(super) fn by_topic<T>(
    partitions: impl IntoIterator<Item = ((TopicId, i32), T)>,
) -> Vec<(Uuid, Vec<T>)> {
    let mut topics: Vec<(Uuid, Vec<T>)> = Vec::new();
    for ((topic, _), answer) in partitions {
        match topics.last_mut() {
            Some((last, answers)) if *last == topic.0 => answers.push(answer),
            _ => topics.push((topic.0, vec![answer])),
        }
    }
    topics
}

#[cfg(test)]
mod tests {
    use super::verdicts;
    use crate::group::shared::pool::Verdict::{Accept, Gap, Reject, Release};

    #[test]
    fn what_is_said_of_each_record_is_read_in_ranges() {
        let batches = [(3, 5, vec![1]), (6, 9, vec![1, 2, 2, 3]), (20, 20, vec![0])];
        let expected = vec![(3..7, Accept), (7..9, Release), (9..10, Reject), (20..21, Gap)];
        assert_eq!(verdicts(&batches), Some(expected));
        assert_eq!(verdicts(&[]), Some(Vec::new()));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for batch in [
            (5, 4, vec![1]),
            (-1, 4, vec![1]),
            (0, 4, vec![]),
            (0, 4, vec![1, 1]),
            (0, 4, vec![4]),
            (0, 4, vec![-1]),
            (0, i64::MAX, vec![1]),
        ] {
            assert_eq!(verdicts(std::slice::from_ref(&batch)), None, "{batch:?}");
        }
        assert_eq!(verdicts(&[(0, 4, vec![1]), (4, 5, vec![1])]), None, "one offset twice");
    }
}
