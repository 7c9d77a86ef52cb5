//! Commands against a broker over a store in memory: what they do, and what they say when they do not.

use std::sync::Arc;

use clap::Parser as _;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::{GroupId, JoinGroupRequest, LeaveGroupRequest};
use kafka_protocol::protocol::StrBytes;
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
    let host = site.broker.kafka.ip().to_string();
    let mut client = Client::connect(&host, site.broker.kafka.port()).await.expect("a broker");
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
