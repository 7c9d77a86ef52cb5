use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use robustmq_common::ids::{PartitionIndex, TopicId};
use uuid::Uuid;

use super::{Assignment, Beat, MemberError, Members, SessionError};
use crate::group::shared::cursor::Token;
use crate::group::shared::members::ConnectionId;

const SESSION: Duration = Duration::from_secs(45);
const HERE: ConnectionId = ConnectionId(1);
const THERE: ConnectionId = ConnectionId(2);

fn topic(number: u128) -> TopicId {
    TopicId(Uuid::from_u128(number))
}

fn beat(member_id: &str, epoch: i32, topics: Option<&[&str]>) -> Beat {
    Beat {
        member_id: member_id.to_owned(),
        epoch,
        subscribed: topics.map(|topics| topics.iter().map(|&name| name.to_owned()).collect()),
        ..Beat::default()
    }
}

fn hear(members: &mut Members, beat: Beat) -> Result<usize, MemberError> {
    let heard = members.hear(Instant::now(), SESSION, beat, Some(Token::of(7)));
    heard.map(|wanted| wanted.len())
}

/// A group with the member `a` in epoch 1, which wants one topic of three partitions.
fn with_a() -> Members {
    let mut members = Members::default();
    assert_eq!(hear(&mut members, beat("a", 0, Some(&["t"]))), Ok(1));
    assert_eq!(members.assign("a", 0, Assignment::from([(topic(1), 3)])), Ok((1, true)));
    members
}

#[test]
fn a_member_is_told_when_something_changes_and_only_then() {
    let mut members = with_a();
    let same = Assignment::from([(topic(1), 3)]);
    assert_eq!(hear(&mut members, beat("a", 1, None)), Ok(1));
    assert_eq!(members.assign("a", 1, same.clone()), Ok((1, false)));
    // Another one comes: nothing changes for the first.
    assert_eq!(hear(&mut members, beat("b", 0, Some(&["t", "u"]))), Ok(2));
    assert_eq!(members.assign("b", 0, same.clone()), Ok((2, true)));
    assert_eq!(members.assign("a", 1, same), Ok((1, false)));
    // The topic gets another partition.
    let more = Assignment::from([(topic(1), 4)]);
    assert_eq!(members.assign("a", 1, more.clone()), Ok((3, true)));
    // The answer was lost: it says its old epoch, and is told again.
    assert_eq!(hear(&mut members, beat("a", 1, None)), Ok(1));
    assert_eq!(members.assign("a", 1, more.clone()), Ok((3, true)));
    // It joins again under its id.
    assert_eq!(hear(&mut members, beat("a", 0, Some(&["t"]))), Ok(1));
    assert_eq!(members.assign("a", 0, more), Ok((3, true)));
}

#[test]
fn whoever_says_what_cannot_be_is_refused() {
    let mut members = with_a();
    for (beat, expected) in [
        (beat("b", 1, None), MemberError::Unknown),
        (beat("b", 0, None), MemberError::NothingSubscribed),
        (beat("a", 2, None), MemberError::Fenced),
        (beat("", 0, Some(&["t"])), MemberError::InvalidId),
        (beat(&"a".repeat(2000), 0, Some(&["t"])), MemberError::InvalidId),
    ] {
        // Only whoever joins comes with a token.
        let token = (beat.epoch == 0).then(|| Token::of(8));
        let refused = members.hear(Instant::now(), SESSION, beat.clone(), token);
        assert_eq!(refused.map(drop), Err(expected), "{beat:?}");
    }
    let many: Vec<String> = (0..10_001).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(hear(&mut members, beat("c", 0, Some(&many))), Err(MemberError::TooManyTopics));
    assert_eq!(members.iter().count(), 1);
}

#[test]
fn a_share_session_goes_on_epoch_by_epoch_on_its_connection() {
    let mut members = with_a();
    let member = members.get_mut("a").expect("it has joined");
    let partition = |index| (topic(1), PartitionIndex(index));
    let none = BTreeSet::new();
    let mut advance = |epoch, connection, added: &[i32], forgotten: &[i32]| {
        let added: Vec<_> = added.iter().map(|index| partition(*index)).collect();
        let forgotten = forgotten.iter().map(|index| partition(*index)).collect();
        let held = member.advance_session(epoch, connection, added, &forgotten);
        held.map(|held| held.into_iter().map(|(_, index)| index.0).collect::<Vec<_>>())
    };
    assert_eq!(advance(1, HERE, &[], &[]), Err(SessionError::NotFound));
    assert_eq!(advance(0, HERE, &[0, 1], &[]), Ok(vec![0, 1]));
    assert_eq!(advance(1, HERE, &[2], &[0]), Ok(vec![1, 2]));
    assert_eq!(advance(1, HERE, &[], &[]), Err(SessionError::InvalidEpoch));
    assert_eq!(advance(2, THERE, &[], &[]), Err(SessionError::NotFound));
    assert_eq!(advance(2, HERE, &[], &[]), Ok(vec![1, 2]));
    // It begins anew elsewhere.
    assert_eq!(advance(0, THERE, &[2], &[]), Ok(vec![2]));
    assert_eq!(advance(3, HERE, &[], &[]), Err(SessionError::NotFound));
    // However many partitions are asked for, a session has so many.
    let many: Vec<i32> = (0..10_000).collect();
    assert_eq!(advance(1, THERE, &many, &[]).map(|held| held.len()), Ok(10_000));
    assert_eq!(advance(2, THERE, &[10_000], &[]), Err(SessionError::TooManyPartitions));
    assert_eq!(advance(2, THERE, &[], &many[1..]), Ok(vec![0]));
    let member = members.get_mut("a").expect("it has joined");
    assert!(member.has_session(THERE) && !member.has_session(HERE));
    member.end_session();
    assert_eq!(member.advance_session(1, THERE, [], &none).map(drop), Err(SessionError::NotFound));
}
