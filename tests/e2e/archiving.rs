//! When records move to object storage.

use std::time::Duration;

use anyhow::ensure;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use robustmq_tests::TestCloud;
use robustmq_tests::bench::Kafka;
use robustmq_tests::eventually;
use robustmq_tests::s3::FakeS3;

const BUCKET: &str = "archive";
const TOPICS: usize = 40;
/// A look each 100 ms, and records that may move when they are two seconds old: a slow machine needs more.
const WITHIN: Duration = Duration::from_secs(60);

/// Topics that were given another `robustmq.tier.local.ms` a moment after their first records kept these for five minutes: a look in between had
/// gone by the old one. And records that came after all others had been archived stayed until there was a megabyte of them.
#[tokio::test]
async fn few_records_are_archived_when_the_topic_says_so_and_those_after_them() -> anyhow::Result<()>
{
    let s3 = FakeS3::start(1).await?;
    s3.create_bucket(BUCKET);
    let toml = format!(
        "[storage]\nupkeep_interval_ms = 100\n[tier]\nobject_store = \"s3://{BUCKET}/here\"\n"
    );
    let cloud = TestCloud::start_in(&toml, s3.environment()).await?;
    let bootstrap = cloud.kafka()?;
    let kafka = Kafka {
        bootstrap: bootstrap.clone(),
        producer_settings: Vec::new(),
        consumer_settings: Vec::new(),
    };
    let client = || ClientConfig::new().set("bootstrap.servers", &bootstrap).clone();
    let (producer, admin): (FutureProducer, AdminClient<DefaultClientContext>) =
        (client().create()?, client().create()?);
    let topics: Vec<_> = (0..TOPICS).map(|number| format!("archived-{number}")).collect();
    let tiered = [("robustmq.storage.mode".to_owned(), "tiered".to_owned())];
    for topic in &topics {
        let created = kafka.create_topic(topic, 1, &tiered).await?;
        ensure!(created.is_ok(), "{topic}: {created:?}");
    }
    let send_to_all = async || -> anyhow::Result<()> {
        let sent = topics.iter().map(|topic| {
            producer.send(FutureRecord::<(), _>::to(topic).payload("a record"), WITHIN)
        });
        for sent in futures_util::future::join_all(sent).await {
            sent.map_err(|(error, _)| error)?;
        }
        Ok(())
    };
    let archived = async |objects: usize| {
        let what = format!("{objects} objects");
        eventually(&what, WITHIN, async || {
            let keys = s3.keys(BUCKET, "");
            // Beside them lies the archive's marker.
            let found = keys.iter().filter(|key| !key.ends_with(".json")).count();
            Ok((found >= objects).then_some(()))
        })
        .await
    };
    send_to_all().await?;
    for topic in &topics {
        let change = AlterConfig::new(ResourceSpecifier::Topic(topic))
            .set("robustmq.storage.mode", "tiered")
            .set("robustmq.tier.local.ms", "1000");
        for altered in admin.alter_configs([&change], &AdminOptions::new()).await? {
            altered.map_err(|(topic, code)| anyhow::anyhow!("{topic:?}: {code}"))?;
        }
    }
    archived(TOPICS).await?;
    send_to_all().await?;
    archived(2 * TOPICS).await
}
