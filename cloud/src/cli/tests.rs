//! Commands against a broker over a store in memory: what they do, and what they say when they do not.

use std::sync::Arc;

use clap::Parser as _;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteRecordsRequest, GroupId, JoinGroupRequest, LeaveGroupRequest,
    ProduceRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use robustmq_common::record::{BatchBuilder, Compression, NewRecord};
use robustmq_common::telemetry::{LogSettings, subscriber};
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::{Cli, CommandError, execute};
use crate::broker::{Broker, start};
use crate::settings::Settings;
use crate::store::MemoryStore;

/// A broker that ends with the test's runtime.
struct Site {
    broker: Broker,
    _shutdown: CancellationToken,
}

impl Site {
    async fn open() -> Self {
        let mut settings = Settings::default();
        settings.kafka.listen.set_port(0);
        settings.uplink.listen.set_port(0);
        settings.admin.listen.set_port(0);
        settings.groups.initial_rebalance_delay_ms = 0;
        let (_subscriber, level) =
            subscriber(&LogSettings::default(), false, std::io::sink).expect("the default level");
        let shutdown = CancellationToken::new();
        let store = Arc::new(MemoryStore::new());
        let broker = start(&settings, store, level, shutdown.clone()).await.expect("free ports");
        Self { broker, _shutdown: shutdown }
    }

    async fn client(&self) -> Client {
        let host = self.broker.kafka.ip().to_string();
        Client::connect(&host, self.broker.kafka.port()).await.expect("a broker")
    }

    /// Runs a command of the Kafka side; says what it failed with.
    async fn kafka(&self, command: &str) -> Result<(), String> {
        let bootstrap = self.broker.kafka.to_string();
        run(&format!("{command} --bootstrap {bootstrap}")).await.map_err(|error| error.to_string())
    }

    /// Runs a command of the admin side; says what it failed with.
    async fn admin(&self, command: &str) -> Result<(), String> {
        let admin = self.broker.admin.to_string();
        run(&format!("{command} --admin {admin}")).await.map_err(|error| error.to_string())
    }
}

async fn run(command: &str) -> Result<(), CommandError> {
    let words = std::iter::once("robustmq-cloud").chain(command.split_whitespace());
    let parsed = Cli::try_parse_from(words).expect("a command line");
    execute(parsed.command).await
}

/// It said `the broker answers 404 Not Found: `.
#[tokio::test]
async fn removing_an_edge_twice_says_that_there_is_none() {
    let site = Site::open().await;
    site.admin("edge add plant-1").await.expect("registered");
    site.admin("edge list").await.expect("listed");
    site.admin("edge remove plant-1").await.expect("removed");
    let again = site.admin("edge remove plant-1").await.expect_err("it is gone");
    assert!(again.starts_with("there is no edge plant-1"), "{again}");
}

/// `--bootstrap nonsense` was taken for a broker that is down.
#[tokio::test]
async fn a_bootstrap_is_a_host_name_or_address_with_a_port() {
    let site = Site::open().await;
    let port = site.broker.kafka.port();
    run(&format!("topic list --bootstrap localhost:{port}")).await.expect("a host name");
    for wrong in ["nonsense", "nonsense:", ":9092", "host:port"] {
        let refused = run(&format!("topic list --bootstrap {wrong}")).await;
        assert!(
            matches!(&refused, Err(CommandError::Usage(said)) if said.contains(wrong)),
            "{refused:?}"
        );
    }
}

/// The commands said `UnknownMemberId` and `NonEmptyGroup`, and left it at that.
#[tokio::test]
async fn a_group_with_members_is_left_alone_and_what_to_do_is_said() {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let site = Site::open().await;
    site.kafka("topic create t --partitions 2").await.expect("created");
    let mut client = site.client().await;
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
    let join = JoinGroupRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_session_timeout_ms(60_000)
        .with_rebalance_timeout_ms(60_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    // From version 4 on the first answer only tells the member's id.
    let joined = client.call(3, &join).await.expect("an answer");
    assert_eq!(joined.error_code, 0);
    for command in ["group reset g --topic t --to earliest", "group delete g"] {
        let refused = site.kafka(command).await.expect_err(command);
        let said = "group g has members: stop its consumers first";
        assert!(refused.starts_with(said), "{command}: {refused}");
    }
    let leave = LeaveGroupRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_member_id(joined.member_id);
    assert_eq!(client.call(2, &leave).await.expect("an answer").error_code, 0);
    site.kafka("group reset g --topic t --to 99").await.expect("moved to the end");
    site.kafka("group delete g").await.expect("deleted");
    assert_eq!(site.kafka("group delete g").await, Err("there is no group g".to_owned()));
}

/// There was no command for either, and only a Kafka client could do it.
#[tokio::test]
async fn partitions_are_added_and_groups_configured() {
    let site = Site::open().await;
    site.kafka("topic create t --storage-mode hybrid").await.expect("created");
    site.kafka("topic alter t --partitions 3 --config retention.ms=5").await.expect("altered");
    let mut client = site.client().await;
    let found = super::topic::metadata(&mut client, Some(vec!["t"])).await.expect("an answer");
    assert_eq!(found[0].partitions.len(), 3);
    let fewer = site.kafka("topic alter t --partitions 2").await.expect_err("fewer");
    assert!(fewer.contains("it has 3, and partitions can only be added"), "{fewer}");
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("a.txt"), "a").expect("a disk");
    let source = format!("file://{}", directory.path().display());
    site.kafka(&format!("topic create d --source {source}")).await.expect("created");
    let refused = site.kafka("topic alter d --partitions 2").await.expect_err("a source");
    assert!(refused.contains("which partition an object belongs to"), "{refused}");
    let alter = "group alter $shared/g --config robustmq.shared.strategy";
    site.kafka(&format!("{alter}=adaptive")).await.expect("altered");
    site.kafka(&format!("{alter}=")).await.expect("back to the default");
    let refused = site.kafka(&format!("{alter}=fair")).await.expect_err("no strategy");
    assert!(refused.contains("it is one of batch, round-robin, adaptive"), "{refused}");
}

/// `topic create --help` named no storage mode, and nothing listed the configuration.
#[tokio::test]
async fn what_can_be_set_is_listed() {
    let help = |words: &str| Cli::try_parse_from(words.split(' ')).err().expect("help").to_string();
    let create = help("robustmq-cloud topic create --help");
    assert!(create.contains("memory, hybrid, persistent, tiered"), "{create}");
    let wrong = help("robustmq-cloud topic create t --storage-mode disk");
    assert!(wrong.contains("persistent"), "{wrong}");
    help("robustmq-cloud topic alter t");
    for command in ["topic configs", "topic configs source --json", "group configs $shared/g"] {
        run(command).await.expect(command);
    }
    let none = run("topic configs no.such").await.expect_err("no such entry").to_string();
    assert!(none.contains("no.such"), "{none}");
}

/// An unknown group had an empty list, a topic 404 and nothing more, and a name that was taken did not say what to do.
#[tokio::test]
async fn what_is_not_there_is_said() {
    let site = Site::open().await;
    let refused = async |command: &str, said: &str| {
        let refused = site.admin(command).await.expect_err(command);
        assert!(refused.contains(said), "{command}: {refused}");
    };
    refused("group snapshot list nobody", "there is no group nobody").await;
    refused("dataset status nothing", "there is no topic nothing").await;
    refused("dataset refresh nothing", "there is no topic nothing").await;
    site.kafka("topic create t").await.expect("created");
    refused("dataset refresh t", "topic t has no source").await;
    site.kafka("group reset $shared/g --topic t --to earliest").await.expect("it begins there");
    site.admin("group snapshot list $shared/g").await.expect("it has none");
    site.admin("group snapshot take $shared/g one").await.expect("taken");
    refused("group snapshot take $shared/g one", "--replace").await;
    site.admin("group snapshot take $shared/g one --replace").await.expect("replaced");
    site.admin("group snapshot list $shared/g").await.expect("it has one");
    site.kafka("group reset ord --topic t --to earliest").await.expect("it begins there");
    for command in ["take ord one", "rewind ord one"] {
        let said = "422 Unprocessable Entity: group ord shares no records";
        refused(&format!("group snapshot {command}"), said).await;
    }
}

#[tokio::test]
async fn a_source_is_listed_again_and_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let object = |name: &str| std::fs::write(directory.path().join(name), name).expect("a disk");
    object("a.txt");
    let site = Site::open().await;
    let source = format!("file://{}", directory.path().display());
    site.kafka(&format!("topic create d --source {source} --partitions 2")).await.expect("created");
    site.admin("dataset status d").await.expect("shown");
    object("b.txt");
    site.admin("dataset refresh d").await.expect("listed");
    std::fs::write(directory.path().join("a.txt"), "another").expect("a disk");
    let changed = site.admin("dataset refresh d").await.expect_err("it was changed");
    assert!(changed.contains("a.txt was changed"), "{changed}");
    let url = format!("http://{}/v1/datasets/d/refresh", site.broker.admin);
    let last = reqwest::get(url).await.expect("an answer");
    assert_eq!(last.status(), reqwest::StatusCode::CONFLICT, "it tells what came of the last one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_is_found_by_its_key_or_it_is_said_where_it_was_looked_for() {
    let directory = tempfile::tempdir().expect("a directory");
    for name in ["a b.bin", "c.bin"] {
        std::fs::write(directory.path().join(name), name).expect("a disk");
    }
    std::fs::write(directory.path().join("lines.jsonl"), "{}").expect("a disk");
    let site = Site::open().await;
    let source = directory.path().display();
    site.kafka(&format!("topic create t --source file://{source}")).await.expect("created");
    for options in ["", "--json", "--all", "--epoch 0 --object c.bin"] {
        site.admin(&format!("dataset find t --key c.bin {options}")).await.expect("found");
    }
    let check = async |options: &str, said: &str| {
        let error = site.admin(&format!("dataset find {options}")).await.expect_err(said);
        assert!(error.contains(said), "{error}");
    };
    check(
        "t --key x",
        "no sample \"x\" in 2 objects of t, epoch 0; records of 1 objects have no keys",
    )
    .await;
    check("t --key x --object a%20b.bin", "404 Not Found: the topic has no object").await;
    check("t --key c.bin --epoch 1", "422 Unprocessable Entity: there is no epoch 1").await;
    check("t --key c.bin --after here", "400 Bad Request").await;
    check("nothing --key c.bin", "there is no topic nothing").await;
}

/// What was meant was done to another group, or to nothing, or could not be found out afterwards.
#[tokio::test]
async fn a_command_that_cannot_be_meant_is_refused_and_what_is_set_is_shown() {
    let site = Site::open().await;
    let refused = async |command: &str, said: &str| {
        let refused = site.kafka(command).await.expect_err(command);
        assert!(refused.contains(said), "{command}: {refused}");
    };
    refused(
        "topic create t --storage-mode memory --config robustmq.storage.mode=hybrid",
        "contradict",
    )
    .await;
    refused("topic create t --partitions -1", "--partitions -1: a topic has at least one").await;
    refused("topic create t --config retention.msec=1", "is it retention.ms that is meant?").await;
    refused("topic create t --config nonsense=1", "`robustmq-cloud topic configs` lists all").await;
    site.kafka("topic create t --storage-mode hybrid --config robustmq.storage.mode=hybrid")
        .await
        .expect("the same");
    refused("topic alter t --partitions 1", "topic t has 1 partitions already").await;
    refused("topic describe nope", "there is no topic nope").await;
    refused("group reset g --topic nope --to earliest", "there is no topic nope").await;
    refused("group alter /g --config robustmq.shared.strategy=batch", "quote it: '$shared/g'")
        .await;
    refused("group alter g --config robustmq.shared.strategy=batch", "as in '$shared/g'").await;
    refused("group describe /g", "quote it: '$shared/g'").await;
    refused("group describe $shared/g", "there is no group $shared/g").await;
    site.kafka("group alter $shared/g --config robustmq.shared.strategy=adaptive")
        .await
        .expect("set");
    site.kafka("group describe $shared/g").await.expect("it is configured");
    let mut client = site.client().await;
    let set = super::configs::set(&mut client, super::configs::GROUP, "$shared/g").await;
    let set = set.expect("an answer");
    let strategy = set.get("robustmq.shared.strategy");
    assert_eq!((set.len(), strategy), (1, Some(&Some("adaptive".to_owned()))));
    let http = format!("topic list --bootstrap {}", site.broker.admin);
    let http = run(&http).await.expect_err("not a Kafka listener").to_string();
    assert!(http.contains("it answers in HTTP"), "{http}");
    site.kafka("topic create u").await.expect("created");
    refused("topic delete t nope u", "there is no topic nope").await;
    let left = super::topic::metadata(&mut client, None).await.expect("an answer");
    assert!(left.is_empty(), "{left:?}");
}

/// A topic with a source held its partitions up for ever, and one that the group reads gave the group its letters again and again.
#[tokio::test]
async fn a_dead_letter_topic_that_cannot_be_one_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("a.txt"), "a").expect("a disk");
    let site = Site::open().await;
    let source = directory.path().display();
    site.kafka(&format!("topic create images --source file://{source}")).await.expect("created");
    site.kafka("topic create keyed --config cleanup.policy=compact").await.expect("created");
    site.kafka("topic create t").await.expect("created");
    for group in ["$shared/g", "sharers"] {
        let set = async |topic: &str| {
            let entry = format!("robustmq.shared.dead.letter.topic={topic}");
            site.kafka(&format!("group alter {group} --config {entry}")).await
        };
        for (topic, said) in [("images", "it has a source"), ("keyed", "it is compacted")] {
            let refused = set(topic).await.expect_err(topic);
            assert!(refused.contains(said) && refused.contains("dead.letter.topic"), "{refused}");
        }
        set("t").await.expect("it does not read it yet");
        set("").await.expect("back to none");
        site.kafka(&format!("group reset {group} --topic t --to earliest")).await.expect("begun");
        let refused = set("t").await.expect_err("it reads it");
        assert!(refused.contains("the group reads that topic itself"), "{refused}");
        set("lost").await.expect("it is created when it is needed");
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Puts records into partition 0 of a topic.
async fn produce(client: &mut Client, topic: &str, count: usize) {
    let mut batch = BatchBuilder::new(Compression::None);
    for _ in 0..count {
        batch.push(&NewRecord { value: Some(b"v"), ..NewRecord::default() }).expect("small");
    }
    let records = batch.build().expect("a batch").into_bytes();
    let data = PartitionProduceData::default().with_records(Some(records));
    let topic = TopicProduceData::default()
        .with_name(TopicName(text(topic)))
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic]);
    let answer = client.call(11, &request).await.expect("an answer");
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
}

/// What was gone already counted as not read by the command, and not by the admin listener.
#[tokio::test]
async fn a_groups_lag_is_what_there_is_to_read_everywhere() {
    let site = Site::open().await;
    site.kafka("topic create t").await.expect("created");
    let mut client = site.client().await;
    produce(&mut client, "t", 10).await;
    for group in ["g", "$shared/g"] {
        site.kafka(&format!("group reset {group} --topic t --to 2")).await.expect("begun");
    }
    let mut lags = async || {
        let mut lags = Vec::new();
        for (group, shares) in [("$shared/g", true), ("g", false)] {
            let committed = super::group::committed(&mut client, group, shares).await;
            lags.push(committed.expect("an answer")[0].lag);
        }
        let url = format!("http://{}/v1/topics/t", site.broker.admin);
        let http = super::edge::admin_client().expect("a client");
        let shown = http.get(url).send().await.expect("an answer").text().await.expect("text");
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        let listed = shown["groups"].as_array().expect("groups").iter();
        let shown: Vec<_> = listed.map(|group| group["lag"].as_i64().expect("a number")).collect();
        assert_eq!(lags, shown);
        lags
    };
    assert_eq!(lags().await, [8, 8]);
    let partition = DeleteRecordsPartition::default().with_offset(6);
    let topic = DeleteRecordsTopic::default()
        .with_name(TopicName(text("t")))
        .with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]);
    let mut other = site.client().await;
    assert_eq!(
        other.call(2, &request).await.expect("an answer").topics[0].partitions[0].error_code,
        0
    );
    assert_eq!(lags().await, [4, 4]);
}

/// The configuration was changed, and the command failed, when the partitions were refused.
#[tokio::test]
async fn a_topic_is_altered_as_a_whole_or_not_at_all() {
    let site = Site::open().await;
    site.kafka("topic create t --partitions 2").await.expect("created");
    let mut client = site.client().await;
    for (change, said) in [
        ("--partitions 1 --config retention.ms=70000", "partitions can only be added"),
        ("--partitions 3 --config retention.ms=soon", "retention.ms"),
        ("--partitions 1 --storage-mode hybrid", "partitions can only be added"),
    ] {
        let refused = site.kafka(&format!("topic alter t {change}")).await.expect_err(change);
        assert!(refused.contains(said), "{refused}");
        let found = super::topic::metadata(&mut client, Some(vec!["t"])).await.expect("an answer");
        let set = super::configs::set(&mut client, super::configs::TOPIC, "t").await;
        let set = set.expect("an answer");
        assert_eq!((found[0].partitions.len(), set.len()), (2, 0), "{change}");
    }
    site.kafka("topic alter t --storage-mode hybrid").await.expect("the mode alone");
    site.kafka("topic alter t --partitions 3 --config retention.ms=70000").await.expect("both");
    let set = super::configs::set(&mut client, super::configs::TOPIC, "t").await;
    assert_eq!(set.expect("an answer").len(), 2);
    let twice = "topic alter t --storage-mode memory --config robustmq.storage.mode=hybrid";
    let twice = site.kafka(twice).await.expect_err("which one?");
    assert!(twice.contains("contradict each other"), "{twice}");
}

/// The last one was taken.
#[tokio::test]
async fn an_entry_that_is_given_twice_is_refused() {
    let site = Site::open().await;
    site.kafka("topic create t").await.expect("created");
    let twice = "--config retention.ms=70000 --config retention.ms=80000";
    for command in ["topic create u", "topic alter t", "group alter $shared/g"] {
        let refused = site.kafka(&format!("{command} {twice}")).await.expect_err(command);
        assert_eq!(refused, "--config retention.ms is given twice");
    }
    let entry = |value| {
        let entry = CreatableTopicConfig::default().with_name(text("retention.ms"));
        entry.with_value(Some(text(value)))
    };
    let topic = CreatableTopic::default()
        .with_name(TopicName(text("u")))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(vec![entry("70000"), entry("80000")]);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]);
    let answer = site.client().await.call(7, &request).await.expect("an answer");
    let said = answer.topics[0].error_message.as_ref().map(|said| said.to_string());
    assert_eq!(said.as_deref(), Some("configuration entry retention.ms is given twice"));
}

/// A list of all entries was offered to whoever named a bucket that is not there, and `-5` was taken for an option.
#[tokio::test]
async fn what_is_said_fits_what_is_wrong() {
    let site = Site::open().await;
    site.kafka("topic create t").await.expect("created");
    let refused = async |command: &str| site.kafka(command).await.expect_err(command);
    let directory = tempfile::tempdir().expect("a directory");
    let empty = directory.path().display();
    let said = refused(&format!("topic create d --source file://{empty}")).await;
    assert!(said.contains("has no objects") && !said.contains("lists all"), "{said}");
    let said = refused("topic alter t --config robustmq.storage.mode=tiered").await;
    assert!(said.contains("[tier] object_store") && !said.contains("lists all"), "{said}");
    let said = refused("topic alter t --config robustmq.storage.mode=disk").await;
    assert!(said.contains("`robustmq-cloud topic configs` lists all entries"), "{said}");
    let said = refused("group alter $shared/g --config share.auto.offset.reset=latest").await;
    assert!(said.contains("is it robustmq.shared.start that is meant?"), "{said}");
    let said = refused("group reset g --topic t --to -5").await;
    assert!(said.starts_with("--to -5: it is not earliest, latest, an offset"), "{said}");
}

/// It said `error sending request for url (...)`, or no more than `404 Not Found`.
#[tokio::test]
async fn a_wrong_address_of_the_admin_listener_is_said_to_be_one() {
    let site = Site::open().await;
    site.kafka("topic create t").await.expect("created");
    site.kafka("group reset $shared/g --topic t --to earliest").await.expect("it begins there");
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("a bound socket")
    };
    let group = format!("group describe $shared/g --bootstrap {}", site.broker.kafka);
    for command in ["edge list", "edge remove e", "dataset status t", group.as_str()] {
        for (at, said) in [
            (nobody, "Connection refused"),
            (site.broker.kafka, "is it the one for Kafka clients, of --bootstrap?"),
            (site.broker.uplink, "something else answers there in HTTP"),
        ] {
            let refused =
                run(&format!("{command} --admin {at}")).await.expect_err(said).to_string();
            let begins = format!("no broker's admin listener at {at}: ");
            assert!(refused.starts_with(&begins) && refused.contains(said), "{command}: {refused}");
        }
    }
}

/// Neither told how records are kept, unless a topic sets it.
#[tokio::test]
async fn topics_are_listed_with_their_modes_and_sources() {
    let site = Site::open().await;
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("a.txt"), "a").expect("a disk");
    let source = format!("file://{}", directory.path().display());
    site.kafka("topic create usual").await.expect("created");
    site.kafka("topic create quick --storage-mode memory").await.expect("created");
    site.kafka(&format!("topic create d --source {source}")).await.expect("created");
    let names = ["usual", "quick", "d", "gone"].map(str::to_owned);
    let mut client = site.client().await;
    let mut modes = super::topic::modes(&mut client, &names).await.expect("an answer");
    let mode = |mode: &str| (Some(mode.to_owned()), None);
    assert_eq!(modes("usual"), mode("persistent"));
    assert_eq!(modes("quick"), mode("memory"));
    assert_eq!(modes("d"), (None, Some(source)));
    assert_eq!(modes("gone"), (None, None));
    for command in ["topic list", "topic list --json", "topic describe usual", "topic describe d"] {
        site.kafka(command).await.expect(command);
    }
}
