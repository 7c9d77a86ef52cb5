//! `robustmq-cloud group reset`.

use std::time::UNIX_EPOCH;

use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{OffsetCommitRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use robustmq_common::cli::complain;

use super::client::check;
use super::group::{check_group, group_id};
use super::topic::{EARLIEST, LATEST, metadata, offsets};
use super::units::counted;
use super::{Bootstrap, CommandError, print};

/// Where a group's offsets are moved to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Earliest,
    Latest,
    Offset(i64),
    /// Milliseconds since 1970.
    Time(i64),
}

impl Target {
    fn parse(to: &str) -> Result<Self, CommandError> {
        let midnight = midnight(to);
        let to = midnight.as_deref().unwrap_or(to);
        let offset = || to.parse().ok().filter(|offset| *offset >= 0);
        let time = || match to.strip_prefix('@') {
            Some(millis) => millis.parse().ok().filter(|millis| *millis >= 0),
            None => {
                let since = humantime::parse_rfc3339(to).ok()?.duration_since(UNIX_EPOCH).ok()?;
                i64::try_from(since.as_millis()).ok()
            }
        };
        match to {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            _ => offset().map(Self::Offset).or_else(|| time().map(Self::Time)).ok_or_else(|| {
                CommandError::Usage(format!(
                    "--to {to}: it is not earliest, latest, an offset, or a time like 2026-11-26, 2026-11-26T20:00:00Z or @1795723200000"
                ))
            }),
        }
    }

    /// The offset in a partition that has those from `start` to before `end`, and how it was moved to get there. As with Kafka's own
    /// tool: a consumer could not begin anywhere else.
    ///
    /// `timed` is what the broker says of a time; -1 if no record is as young.
    fn within(self, start: i64, end: i64, timed: i64) -> (i64, Option<Moved>) {
        match self {
            Self::Earliest => (start, None),
            Self::Time(_) if timed >= 0 => (timed, None),
            Self::Latest | Self::Time(_) => (end, None),
            Self::Offset(wanted) if wanted > end => (end, Some(Moved::ToEnd)),
            Self::Offset(wanted) if wanted < start => (start, Some(Moved::ToStart)),
            Self::Offset(wanted) => (wanted, None),
        }
    }
}

/// Where an offset was moved that a partition does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moved {
    ToStart,
    ToEnd,
}

/// A date without a time begins at midnight UTC.
fn midnight(to: &str) -> Option<String> {
    let is_date = to.len() == 10 && humantime::parse_rfc3339(&format!("{to}T00:00:00Z")).is_ok();
    is_date.then(|| format!("{to}T00:00:00Z"))
}

/// What was done to how many partitions, of which some may not have the offset.
fn outcome(to: &str, partitions: usize, moved: &[Moved]) -> String {
    let count = |wanted| moved.iter().filter(|moved| **moved == wanted).count();
    match (count(Moved::ToEnd), count(Moved::ToStart)) {
        (0, 0) => format!("to {}", midnight(to).as_deref().unwrap_or(to)),
        (end, 0) if end == partitions => format!("to the end, as {to} is past it"),
        (0, start) if start == partitions => format!("to the start, as {to} is before it"),
        (end, 0) => format!("to {to}, but to the end on {end} that end before it"),
        (0, start) => format!("to {to}, but to the start on {start} that begin after it"),
        (end, start) => format!(
            "to {to}, but to the end on {end} that end before it, and to the start on {start} that begin after it"
        ),
    }
}

/// Moves a group's committed offsets.
pub(super) async fn run(
    bootstrap: &Bootstrap,
    name: &str,
    topic: &str,
    to: &str,
) -> Result<(), CommandError> {
    let target = Target::parse(to)?;
    let mut client = bootstrap.connect().await?;
    let found = metadata(&mut client, Some(vec![topic])).await?;
    for found in &found {
        check(topic, found.error_code, None)?;
    }
    let partitions = found.iter().flat_map(|topic| &topic.partitions);
    let indexes: Vec<i32> = partitions.map(|partition| partition.partition_index).collect();
    let starts = offsets(&mut client, topic, &indexes, EARLIEST).await?;
    let ends = offsets(&mut client, topic, &indexes, LATEST).await?;
    let timed = match target {
        Target::Time(at_ms) => offsets(&mut client, topic, &indexes, at_ms).await?,
        _ => indexes.iter().map(|index| (*index, -1)).collect(),
    };
    let mut targets = Vec::with_capacity(indexes.len());
    let mut elsewhere = Vec::new();
    for (((index, start), (_, end)), (_, timed)) in starts.into_iter().zip(ends).zip(timed) {
        let (offset, moved) = target.within(start, end, timed);
        if let Some(moved) = moved {
            elsewhere.push(moved);
            let (where_to, at) = match moved {
                Moved::ToEnd => ("is past the end; set to the end", end),
                Moved::ToStart => ("is before the start; set to the start", start),
            };
            complain("robustmq-cloud", &format!("warning: {topic} {index}: {to} {where_to}, {at}"));
        }
        targets.push((index, offset));
    }
    let partition = |(index, offset): (i32, i64)| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(StrBytes::new()))
    };
    let count = targets.len();
    let commit = OffsetCommitRequestTopic::default()
        .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_partitions(targets.into_iter().map(partition).collect());
    let request = OffsetCommitRequest::default()
        .with_group_id(group_id(name))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![commit]);
    let answer = client.call(8, &request).await?;
    for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
        let what = format!("{name} {topic} {}", partition.partition_index);
        check_group(name, &what, partition.error_code)?;
    }
    let partitions = counted(count as u64, "partition");
    let outcome = outcome(to, count, &elsewhere);
    print(&format!("reset {name} on {partitions} of {topic} {outcome}\n"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Moved, Target, outcome};

    /// `--to 99` of a partition that ends at 2 was committed: the lag was -97, and the consumer's first fetch out of range.
    #[test]
    fn an_offset_is_moved_into_what_the_partition_has() {
        let check = |to: &str, expected: i64, moved: bool| {
            let (offset, said) = Target::parse(to).expect("a target").within(10, 20, -1);
            assert_eq!((offset, said.is_some()), (expected, moved), "{to}: {said:?}");
        };
        check("earliest", 10, false);
        check("latest", 20, false);
        check("10", 10, false);
        check("20", 20, false);
        check("21", 20, true);
        check("9", 10, true);
        check("0", 10, true);
        check("2026-11-26T20:00:00Z", 20, false);
        for wrong in ["", "-1", "soon", "1.5", "@", "@-1", "1969-01-01T00:00:00Z", "2026-11-31"] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_is_where_the_broker_says() {
        let at = |to: &str| Target::parse(to).ok();
        assert_eq!(at("@1500"), Some(Target::Time(1500)));
        assert_eq!(at("1970-01-01T00:00:01.5Z"), Some(Target::Time(1500)));
        // A date alone was refused.
        assert_eq!(at("1970-01-02"), Some(Target::Time(86_400_000)));
        assert_eq!(Target::Time(1500).within(10, 20, 13), (13, None));
    }

    /// An offset past the end was said to be one that the partition does not have, and not where the group is now.
    #[test]
    fn what_was_done_is_said_where_an_offset_is_moved() {
        let (end, start) = (Moved::ToEnd, Moved::ToStart);
        for (to, partitions, moved, said) in [
            ("5", 2, vec![], "to 5"),
            ("2026-11-28", 2, vec![], "to 2026-11-28T00:00:00Z"),
            ("99", 1, vec![end], "to the end, as 99 is past it"),
            ("0", 2, vec![start, start], "to the start, as 0 is before it"),
            ("99", 3, vec![end], "to 99, but to the end on 1 that end before it"),
            ("9", 2, vec![start], "to 9, but to the start on 1 that begin after it"),
            (
                "9",
                3,
                vec![start, end, end],
                "to 9, but to the end on 2 that end before it, and to the start on 1 that begin after it",
            ),
        ] {
            assert_eq!(outcome(to, partitions, &moved), said);
        }
    }
}
