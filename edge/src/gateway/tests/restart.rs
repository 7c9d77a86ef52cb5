//! What survives the end of the process, and a crash between the queue's sync and the state's.

use robustmq_common::ids::EdgeSeq;
use robustmq_common::mqtt::packet::{Packet, ProtocolVersion, QoS};
use robustmq_common::mqtt::server::Millis;

use super::bench::Bench;
use super::client::{Client, clean, id, kept, publish};
use crate::gateway::record;
use crate::gateway::route::Route;
use crate::queue::Queue;
use crate::settings::RoutePriority;

const V5: ProtocolVersion = ProtocolVersion::V5;

#[tokio::test(flavor = "multi_thread")]
async fn sessions_and_their_messages_survive_a_restart() {
    let mut bench = Bench::start().await;
    let (mut sleeper, _) = Client::connect(bench.mqtt(), kept("sleeper", V5)).await;
    sleeper.subscribe("a/#", QoS::AtLeastOnce).await;
    drop(sleeper);
    let mut publisher = Client::v5(bench.mqtt(), "publisher").await;
    for number in 1..=20_u16 {
        publisher.publish(publish("a/b", &number.to_string(), QoS::AtLeastOnce, number)).await;
    }
    bench.restart().await;
    let (mut sleeper, answer) = Client::connect(bench.mqtt(), kept("sleeper", V5)).await;
    assert!(answer.session_present);
    let expected: Vec<String> = (1..=20).map(|number: u16| number.to_string()).collect();
    assert_eq!(sleeper.take(20).await, expected);
    sleeper.expect_silence().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qos_2_message_sent_again_after_a_restart_is_the_same_message() {
    let mut bench = Bench::start().await;
    let (mut sleeper, _) = Client::connect(bench.mqtt(), kept("sleeper", V5)).await;
    sleeper.subscribe("a", QoS::ExactlyOnce).await;
    drop(sleeper);
    let (mut publisher, _) = Client::connect(bench.mqtt(), kept("publisher", V5)).await;
    let mut message = publish("a", "once", QoS::ExactlyOnce, 9);
    publisher.send(Packet::Publish(Box::new(message.clone()))).await;
    assert!(matches!(publisher.recv().await, Packet::PubRec(_)));
    bench.restart().await;

    let (mut publisher, answer) = Client::connect(bench.mqtt(), kept("publisher", V5)).await;
    assert!(answer.session_present);
    message.dup = true;
    publisher.publish(message).await;
    // Released: the same packet id is another message now.
    publisher.publish(publish("a", "twice", QoS::ExactlyOnce, 9)).await;
    assert_eq!(bench.status().await.queue.records, 2);
    let (mut sleeper, _) = Client::connect(bench.mqtt(), kept("sleeper", V5)).await;
    assert_eq!(sleeper.take(2).await, ["once", "twice"]);
}

/// A crash can hit between the queue's sync and the state's commit: the record is there, the session knows nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_state_does_not_know_is_replayed_once() {
    let mut bench = Bench::start().await;
    let (mut sleeper, _) = Client::connect(bench.mqtt(), kept("sleeper", V5)).await;
    sleeper.subscribe("a", QoS::ExactlyOnce).await;
    drop(sleeper);
    let (mut publisher, _) = Client::connect(bench.mqtt(), kept("publisher", V5)).await;
    publisher.publish(publish("a", "known", QoS::ExactlyOnce, 1)).await;
    drop(publisher);
    bench.stop().await;
    append_behind_its_back(&bench, 2, "unknown").await;
    bench.go().await;

    let (mut publisher, answer) = Client::connect(bench.mqtt(), kept("publisher", V5)).await;
    assert!(answer.session_present);
    let mut again = publish("a", "unknown", QoS::ExactlyOnce, 2);
    again.dup = true;
    publisher.publish(again).await;
    assert_eq!(bench.status().await.queue.records, 2, "it was not stored again");
    let (mut sleeper, _) = Client::connect(bench.mqtt(), kept("sleeper", V5)).await;
    assert_eq!(sleeper.take(2).await, ["known", "unknown"]);
    sleeper.expect_silence().await;

    // What was replayed is reflected: a second start replays nothing.
    bench.restart().await;
    let (mut sleeper, _) = Client::connect(bench.mqtt(), kept("sleeper", V5)).await;
    sleeper.expect_silence().await;
}

/// Appends what the gateway would have appended for `publisher`, as if it had crashed right after the sync.
async fn append_behind_its_back(bench: &Bench, packet_id: u16, payload: &str) {
    let (queue, _) =
        Queue::open(&bench.settings.queue_dir(), bench.settings.queue_settings()).unwrap();
    let lane = RoutePriority::Normal.lane();
    let known = queue.replay(lane, EdgeSeq(0)).last().unwrap().unwrap();
    let mut record = record::to_publish(&known, Millis(0)).unwrap();
    record.source = robustmq_common::mqtt::server::RecordSource::Publish(Some(id(packet_id)));
    record.payload = payload.to_owned().into();
    let append = record::to_append(&record, &Route::default()).unwrap();
    queue.append(&append).unwrap().await.unwrap();
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_queue_does_not_confuse_the_sessions() {
    let mut bench = Bench::start().await;
    let (mut publisher, _) = Client::connect(bench.mqtt(), kept("publisher", V5)).await;
    for packet_id in 1..=10 {
        publisher.publish(publish("a", "before", QoS::ExactlyOnce, packet_id)).await;
    }
    drop(publisher);
    bench.stop().await;
    std::fs::remove_dir_all(bench.settings.queue_dir()).unwrap();
    bench.go().await;
    let (mut publisher, answer) = Client::connect(bench.mqtt(), kept("publisher", V5)).await;
    assert!(answer.session_present);
    for packet_id in 1..=5 {
        publisher.publish(publish("a", "after", QoS::ExactlyOnce, packet_id)).await;
    }
    bench.restart().await;
    let (mut publisher, _) = Client::connect(bench.mqtt(), kept("publisher", V5)).await;
    publisher.publish(publish("a", "later", QoS::ExactlyOnce, 1)).await;
    assert_eq!(bench.status().await.queue.records, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_state_is_set_aside_and_the_queue_is_kept() {
    let mut bench = Bench::start().await;
    let mut publisher = Client::v5(bench.mqtt(), "publisher").await;
    publisher.publish(publish("a", "kept", QoS::AtLeastOnce, 1)).await;
    drop(publisher);
    bench.stop().await;
    std::fs::write(bench.settings.state_file(), vec![7; 4096]).unwrap();
    bench.go().await;
    assert_eq!(bench.status().await.queue.records, 1);
    assert!(bench.directory().join("data/state.redb.damaged-1").exists());
    let (mut publisher, _) = Client::connect(bench.mqtt(), clean("publisher", V5)).await;
    publisher.publish(publish("a", "more", QoS::AtLeastOnce, 1)).await;
    assert_eq!(bench.status().await.queue.records, 2);
}

/// The figure of the running process was 0 after a restart, as if the cloud had taken everything.
#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_earlier_runs_are_in_status_and_metrics() {
    let mut bench = Bench::start().await;
    assert_eq!(bench.status().await.uplink.unwrap().dead_letters.records, 0);
    bench.stop().await;
    let line =
        r#"{"incarnation":1,"lane":1,"seq":7,"reason":"no_key","mqtt_topic":"a/b","payload":"x"}"#;
    std::fs::write(bench.directory().join("data/dead-letter.jsonl"), format!("{line}\n")).unwrap();
    bench.go().await;
    let status = bench.status().await;
    let shown = status.to_string();
    assert!(shown.contains("rejected  1 dead letter that the cloud refused for good"), "{shown}");
    assert!(shown.contains("no_key: a/b (lane 1, sequence 7)"), "{shown}");
    let report = status.uplink.unwrap().dead_letters;
    assert_eq!((report.records, report.newest[0].reason.as_str()), (1, "no_key"));
    let metrics = bench.metrics().await;
    assert!(metrics.contains("\nrobustmq_edge_uplink_dead_letters_kept 1"), "{metrics}");
}

/// The first client without an id was `auto-1` after each start, on each gateway: their records had one Kafka key, and a client that had
/// kept its session under that id lost it to another.
#[tokio::test(flavor = "multi_thread")]
async fn clients_without_an_id_get_one_that_no_other_start_gives() {
    let mut bench = Bench::start().await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..3 {
        for _ in 0..2 {
            let (_client, answer) = Client::connect(bench.mqtt(), clean("", V5)).await;
            let id = answer.properties.assigned_client_identifier.unwrap();
            assert!(id.starts_with("auto-"), "{id}");
            assert!(seen.insert(id.clone()), "{id} came twice");
        }
        bench.restart().await;
    }
}
