//! Who is given what, and when it goes to another.

use super::*;

#[tokio::test]
async fn members_share_a_partition_and_tools_see_real_offsets() {
    let (broker, mut client) = broker_with(8).await;
    let mut first = Member::join(&broker).await;
    assert_eq!(first.cursor().sequence, FIRST);
    assert_eq!(first.fetch().await, numbers(0..8));
    fill(&mut client, 8, 12).await;
    let mut second = Member::join(&broker).await;
    assert_ne!(first.cursor().token, second.cursor().token);
    assert_eq!(second.fetch().await, numbers(8..12));
    assert_eq!(committed(&mut client).await, 0, "whoever is no member learns real offsets");
    let position = second.position;
    assert_eq!(second.commit(position).await, 0);
    assert_eq!(committed(&mut client).await, 0, "the first eight are still open");
    let position = first.position;
    assert_eq!(first.commit(position - 3).await, 0);
    assert_eq!(committed(&mut client).await, 5);
    assert_eq!(first.commit(position).await, 0);
    assert_eq!(committed(&mut client).await, 12);
    assert_eq!((first.fetch().await, second.fetch().await), (vec![], vec![]));
}

/// Where the group is, and what is noted with it: of one partition, and of all that there are.
async fn noted(client: &mut Client) -> (i64, String) {
    let topic =
        OffsetFetchRequestTopics::default().with_name(name("t")).with_partition_indexes(vec![0]);
    let mut found = Vec::new();
    for topics in [Some(vec![topic]), None] {
        let asked = OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(topics);
        let request = OffsetFetchRequest::default().with_groups(vec![asked]);
        let answer = client.call(8, &request).await;
        let partition = answer.groups[0].topics[0].partitions[0].clone();
        let note = partition.metadata.expect("a text").to_string();
        found.push((partition.committed_offset, note));
    }
    assert_eq!(found[0], found[1]);
    found.remove(0)
}

/// A lag counted from the first record that is not acknowledged had everything in it that other members had done behind it.
#[tokio::test]
async fn what_is_acknowledged_out_of_order_is_no_lag() {
    let (broker, mut client) = broker_with(8).await;
    let mut first = Member::join(&broker).await;
    assert_eq!(first.fetch().await, numbers(0..8));
    fill(&mut client, 8, 12).await;
    let mut second = Member::join(&broker).await;
    assert_eq!(second.fetch().await, numbers(8..12));
    assert_eq!((noted(&mut client).await, lag(&broker, GROUP).await), ((0, String::new()), 12));
    let position = second.position;
    assert_eq!(second.commit(position - 1).await, 0);
    let note = "acknowledged-ahead=3".to_owned();
    assert_eq!((noted(&mut client).await, lag(&broker, GROUP).await), ((0, note.clone()), 9));
    // What is stored says the same when nobody is there any more.
    first.leave().await;
    second.leave().await;
    assert_eq!((noted(&mut client).await, lag(&broker, GROUP).await), ((0, note), 9));
}

#[tokio::test]
async fn a_fetch_at_a_place_that_was_delivered_gives_the_same_records() {
    let (broker, _client) = broker_with(8).await;
    let mut member = Member::join(&broker).await;
    let start = member.position;
    assert_eq!(member.fetch().await, numbers(0..8));
    for (back, expected) in [(start, 0..8), (start + 3, 3..8), (start + 7, 7..8)] {
        member.position = back;
        assert_eq!(member.fetch().await, numbers(expected));
    }
    let position = member.position;
    assert_eq!(member.commit(position).await, 0);
    member.position = start + 5;
    assert_eq!(member.fetch().await, numbers(5..8), "also when it is acknowledged");
}

#[tokio::test]
async fn batches_carry_no_leader_epoch_and_the_end_is_in_the_cursors_space() {
    let (broker, _client) = broker_with(8).await;
    let mut member = Member::join(&broker).await;
    let position = member.position;
    let data = member.fetch_at(position, 100).await;
    let batches = batches(data.records.clone().expect("records"));
    assert!(batches.iter().all(|batch| batch.header().partition_leader_epoch.0 == -1));
    assert_eq!((data.high_watermark, data.last_stable_offset), (position + 8, position + 8));
    let end = member.fetch_at(position + 8, 0).await;
    assert_eq!((end.high_watermark, end.error_code), (position + 8, 0));
    fill(&mut broker.client().await, 8, 12).await;
    let mut other = Member::join(&broker).await;
    let position = other.position;
    let end = other.fetch_at(position, 0).await;
    assert_eq!(end.high_watermark, position + 4, "what is left for the group");
}

#[tokio::test]
async fn what_a_member_leaves_behind_wakes_another_that_waits() {
    let (broker, _client) = broker_with(8).await;
    let mut member = Member::join(&broker).await;
    assert_eq!(member.fetch().await, numbers(0..8));
    let acknowledged = member.position - 2;
    assert_eq!(member.commit(acknowledged).await, 0);
    let mut other = Member::join(&broker).await;
    let id = other.fetcher.send(12, &fetch_request(other.position, 30_000)).await;
    member.leave().await;
    let answer = other.fetcher.receive::<FetchRequest>(12, id).await;
    let data = answer.responses[0].partitions[0].clone();
    assert_eq!(other.take(data), numbers(6..8));
}

#[tokio::test]
async fn an_append_wakes_the_member_that_waits_longest() {
    let (broker, mut client) = broker_with(0).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut member = Member::join(&broker).await;
        let id = member.fetcher.send(12, &fetch_request(member.position, 30_000)).await;
        waiting.push((member, id));
        // Its place in the queue is taken before the next one's.
        while broker.kafka.shared.pools().standings(GROUP)[0].waiting < waiting.len() {
            tokio::task::yield_now().await;
        }
    }
    for (round, (mut member, id)) in waiting.into_iter().enumerate() {
        fill(&mut client, round * 4, round * 4 + 4).await;
        let answer = member.fetcher.receive::<FetchRequest>(12, id).await;
        let data = answer.responses[0].partitions[0].clone();
        assert_eq!(member.take(data), numbers(round * 4..round * 4 + 4));
    }
}

#[tokio::test]
async fn round_robin_gives_one_record_to_each_member_that_waits() {
    let (broker, mut client) = broker_with(0).await;
    configure(&mut client, "robustmq.shared.strategy", "round-robin").await;
    let mut members = Vec::new();
    let mut waiting = Vec::new();
    for _ in 0..4 {
        members.push(Member::join(&broker).await);
    }
    for (number, member) in members.iter_mut().enumerate() {
        waiting.push(member.fetcher.send(12, &fetch_request(member.position, 30_000)).await);
        while broker.kafka.shared.pools().standings(GROUP)[0].waiting <= number {
            tokio::task::yield_now().await;
        }
    }
    // Three rounds, each member asking again as soon as it has been given something, in the same order.
    fill(&mut client, 0, 12).await;
    let mut taken: Vec<Vec<String>> = vec![Vec::new(); 4];
    for round in 0..3 {
        for (number, member) in members.iter_mut().enumerate() {
            let id = waiting[number];
            let answer = member.fetcher.receive::<FetchRequest>(12, id).await;
            let data = answer.responses[0].partitions[0].clone();
            let values = member.take(data);
            assert_eq!(values.len(), 1);
            taken[number].extend(values);
            if round < 2 {
                let request = fetch_request(member.position, 30_000);
                waiting[number] = member.fetcher.send(12, &request).await;
            }
        }
    }
    let mut all: Vec<usize> =
        taken.iter().flatten().map(|n| n.parse().expect("a number")).collect();
    all.sort_unstable();
    assert_eq!(all, (0..12).collect::<Vec<_>>());
    let first: Vec<&str> = taken.iter().map(|values| values[0].as_str()).collect();
    assert_eq!(first, ["0", "1", "2", "3"], "one to each, in the order in which they wait");
}

/// Batches have four records: `batch` would give one of them, and the next to another member.
#[tokio::test]
async fn adaptive_gives_as_many_records_as_a_member_may_have_and_more_to_whom_acknowledges() {
    let (broker, mut client) = broker_with(16).await;
    configure(&mut client, "robustmq.shared.strategy", "adaptive").await;
    configure(&mut client, "robustmq.shared.max.inflight.records", "6").await;
    let (mut busy, mut stuck) = (Member::join(&broker).await, Member::join(&broker).await);
    assert_eq!(busy.fetch().await, numbers(0..6));
    assert_eq!(stuck.fetch().await, numbers(6..12));
    assert!(busy.fetch().await.is_empty(), "it has what it may have");
    let mut rest = Vec::new();
    for _ in 0..20 {
        let position = busy.position;
        assert_eq!(busy.commit(position).await, 0);
        rest.extend(busy.fetch().await);
        if rest.len() == 4 {
            break;
        }
        assert!(stuck.fetch().await.is_empty(), "it acknowledged nothing");
    }
    assert_eq!(rest, numbers(12..16));
    let standing = &broker.kafka.shared.pools().standings(GROUP)[0];
    assert_eq!((standing.ledger.delivered, standing.ledger.redelivered), (16, 0));
}

#[tokio::test]
async fn what_is_not_acknowledged_in_time_goes_to_another_that_waits() {
    let (broker, mut client) = broker_with(8).await;
    configure(&mut client, "robustmq.shared.ack.timeout.ms", "300").await;
    let mut slow = Member::join(&broker).await;
    assert_eq!(slow.fetch().await, numbers(0..8));
    let mut other = Member::join(&broker).await;
    let id = other.fetcher.send(12, &fetch_request(other.position, 30_000)).await;
    let answer = other.fetcher.receive::<FetchRequest>(12, id).await;
    let data = answer.responses[0].partitions[0].clone();
    assert_eq!(other.take(data), numbers(0..8));
    assert_eq!(slow.heartbeat().await, 0, "it is a member still");
    let position = slow.position;
    assert_eq!(slow.commit(position).await, 0);
    assert_eq!(committed(&mut client).await, 8, "the first acknowledgement counts");
}

#[tokio::test]
async fn records_that_nobody_acknowledges_are_given_up_after_so_many_deliveries() {
    let (broker, mut client) = broker_with(8).await;
    configure(&mut client, "robustmq.shared.delivery.limit", "2").await;
    for _ in 0..2 {
        let mut member = Member::join(&broker).await;
        assert_eq!(member.fetch().await, numbers(0..8));
        member.leave().await;
    }
    let mut member = Member::join(&broker).await;
    assert!(member.fetch().await.is_empty());
    assert_eq!(committed(&mut client).await, 8);
    let ledger = broker.kafka.shared.pools().standings(GROUP)[0].ledger;
    assert_eq!((ledger.rejected, ledger.acknowledged), (8, 0));
}
