//! From a sample's key to the offset at which clients read it.

use super::*;
use crate::dataset::{FindError, FoundKeys, Match, Wanted};

impl Broker {
    pub(super) async fn find(&self, topic: &str, wanted: Wanted) -> Result<FoundKeys, FindError> {
        self.kafka.datasets.find(&*self.topic(topic).await, wanted).await
    }
}

fn wanted(key: &str, epoch: u32) -> Wanted {
    Wanted { key: key.to_owned(), epoch, ..Wanted::default() }
}

/// What a client reads that seeks to an offset.
async fn read_at(client: &mut Client, topic: &str, found: &Match) -> Record {
    let offset = found.offset.expect("an offset");
    let asked = FetchPartition::default()
        .with_partition(found.partition)
        .with_fetch_offset(offset)
        .with_current_leader_epoch(-1)
        .with_partition_max_bytes(1);
    let topics =
        FetchTopic::default().with_topic(TopicName(text(topic))).with_partitions(vec![asked]);
    let request = FetchRequest::default()
        .with_max_wait_ms(500)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_topics(vec![topics]);
    let answer = client.call(12, &request).await.responses[0].partitions[0].clone();
    assert_eq!(answer.error_code, 0);
    let batches = robustmq_common::record::split_batches(answer.records.unwrap(), usize::MAX);
    let batch = batches.expect("batches").remove(0);
    let record = RecordBatch::records(&batch, 1 << 24).expect("readable").next();
    let record = record.expect("a record").expect("a good one");
    assert_eq!(record.offset, Offset(offset));
    record
}

/// Each key of each epoch is found, and read where it is said to be.
async fn check_all(broker: &Broker, topic: &str, epochs: [u32; 3], shards: u32) {
    let mut client = broker.client().await;
    for (epoch, shard) in epochs.iter().flat_map(|it| (0..shards).map(|shard| (*it, shard))) {
        for sample in [0, 9] {
            let name = format!("{shard:03}-{sample:02}");
            let found = broker.find(topic, wanted(&name, epoch)).await.expect("it is searched");
            let [only] = &found.matches[..] else { panic!("{found:?}") };
            let record = read_at(&mut client, topic, only).await;
            assert_eq!(key(&record), name);
            assert_eq!(header(&record, "robustmq.epoch"), epoch.to_string());
            assert_eq!(record.value.as_ref().expect("a value")[..], image(shard, sample));
            let object = format!("train-{shard:03}.tar");
            let hinted = Wanted { object: Some(object.clone()), ..wanted(&name, epoch) };
            let hinted = broker.find(topic, hinted).await.expect("it is searched");
            assert_eq!((&hinted.matches, &only.object), (&found.matches, &object));
            assert_eq!(found.next.is_none(), shard == shards - 1);
            if found.next.is_some() {
                let past = Wanted { after: found.next, ..wanted(&name, epoch) };
                let rest = broker.find(topic, past).await.expect("it is searched");
                assert_eq!((rest.matches, rest.next), (vec![], None), "there is one only");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_leads_to_the_offset_that_has_it_in_every_order_and_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    shards(directory.path(), 5);
    let memory = Arc::new(MemoryStore::new());
    let source = format!("file://{}", directory.path().display());
    let shuffles = ["none", "shards", "window:16"];
    let name = |shuffle: &str| shuffle.replace(':', "-");
    let broker = broker_on(&memory).await;
    let mut client = broker.client().await;
    for shuffle in shuffles {
        let configs = [
            ("robustmq.source", &source[..]),
            ("robustmq.source.epochs", "6"),
            ("robustmq.source.shuffle", shuffle),
        ];
        assert_eq!(create(&mut client, &name(shuffle), 2, &configs).await, (0, String::new()));
        for partition in 0..2 {
            read_all(&mut client, &name(shuffle), partition, 0).await;
        }
        check_all(&broker, &name(shuffle), [0, 1, 5], 5).await;
    }
    broker.shutdown.cancel();
    let broker = broker_on(&memory).await;
    for shuffle in shuffles {
        check_all(&broker, &name(shuffle), [0, 1, 5], 5).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_are_samples_are_found_by_their_names_though_nobody_has_read() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(directory.path().join("b")).expect("a disk");
    for name in ["a.bin", "b/1.bin", "b/2.bin", "c.bin"] {
        std::fs::write(directory.path().join(name), name).expect("a disk");
    }
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let source = format!("file://{}", directory.path().display());
    let configs = [("robustmq.source", &source[..]), ("robustmq.source.epochs", "4")];
    let object = [configs[0], configs[1], ("robustmq.source.format", "object")];
    assert_eq!(create(&mut client, "auto", 3, &configs).await, (0, String::new()));
    assert_eq!(create(&mut client, "object", 3, &object).await, (0, String::new()));
    // It comes behind the others, whatever its name.
    std::fs::write(directory.path().join("b/0.bin"), "b/0.bin").expect("a disk");
    for topic in ["auto", "object"] {
        let topic = broker.topic(topic).await;
        broker.kafka.datasets.refresh(&topic, 7).await.expect("it is listed");
    }
    for (topic, name) in ["auto", "object"].iter().flat_map(|it| {
        ["a.bin", "b/1.bin", "b/2.bin", "c.bin"].iter().map(move |name| (*it, *name))
    }) {
        let found = broker.find(topic, wanted(name, 0)).await.expect("it is searched");
        assert_eq!((found.matches.len(), found.searched_bytes), (1, 0), "{found:?}");
        let record = read_at(&mut client, topic, &found.matches[0]).await;
        assert_eq!(
            (key(&record), record.value.as_deref()),
            (name.to_owned(), Some(name.as_bytes()))
        );
        let not_begun = broker.find(topic, wanted(name, 3)).await.expect("it is searched");
        let [only] = &not_begun.matches[..] else { panic!("{not_begun:?}") };
        assert_eq!((only.offset, only.note), (None, Some("the epoch has not begun")));
    }
    // What was appended is found as well; the epoch may have begun without it.
    for topic in ["auto", "object"] {
        let found = broker.find(topic, wanted("b/0.bin", 0)).await.expect("it is searched");
        let [only] = &found.matches[..] else { panic!("{found:?}") };
        match only.offset {
            Some(_) => assert_eq!(key(&read_at(&mut client, topic, only).await), "b/0.bin"),
            None => assert_eq!(only.note, Some("the epoch began without it")),
        }
        let none = broker.find(topic, wanted("nowhere", 0)).await.expect("it is searched");
        assert_eq!((none.matches, none.next, none.searched_objects), (vec![], None, 5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_ends_where_a_key_is_and_goes_on_and_says_what_it_passed_over() {
    let directory = tempfile::tempdir().expect("a directory");
    shards(directory.path(), 2);
    let twice = |name: &str| (format!("{name}.txt"), name.as_bytes().to_vec());
    let write = |name: &str, files: &[(String, Vec<u8>)]| {
        std::fs::write(directory.path().join(name), tar(files)).expect("a disk");
    };
    write("u.tar", &[twice("same"), twice("other"), twice("same")]);
    write("v.tar", &[twice("lost")]);
    write("w.tar", &[twice("same")]);
    std::fs::write(directory.path().join("lines.jsonl"), "{}\n").expect("a disk");
    let memory = Arc::new(MemoryStore::new());
    let broker = broker_on(&memory).await;
    let mut client = broker.client().await;
    let source = format!("file://{}", directory.path().display());
    let configs = [("robustmq.source", &source[..]), ("robustmq.source.epochs", "4")];
    assert_eq!(create(&mut client, "images", 1, &configs).await, (0, String::new()));
    let records = read_all(&mut client, "images", 0, 0).await;
    let count = records.len() / 4;
    let mut offsets = Vec::new();
    let mut asked = wanted("same", 1);
    let mut last = loop {
        let found = broker.find("images", asked.clone()).await.expect("it is searched");
        offsets.push(found.matches.iter().map(|it| it.offset.unwrap()).collect::<Vec<_>>());
        asked.after = found.next;
        if found.next.is_none() {
            break found;
        }
    };
    let is_same = |record: &&Record| record.key.as_deref() == Some(b"same");
    let expected: Vec<i64> =
        records[count..2 * count].iter().filter(is_same).map(|it| it.offset.0).collect();
    assert_eq!(offsets, [expected[..2].to_vec(), expected[2..].to_vec()]);
    assert_eq!((last.objects, last.keyless_objects), (6, 0));
    last = broker.find("images", wanted("none", 0)).await.expect("it is searched");
    assert_eq!((last.keyless_objects, last.searched_objects, last.uncounted_objects), (1, 5, 0));
    assert_eq!((last.matches, last.next), (vec![], None));
    broker.shutdown.cancel();
    // With an empty cache, and something gone meanwhile.
    std::fs::remove_file(directory.path().join("v.tar")).expect("a disk");
    let broker = broker_on(&memory).await;
    let found = broker.find("images", wanted("lost", 0)).await.expect("it is searched");
    assert_eq!((found.matches.len(), found.next), (0, None));
    assert!(found.unreadable.len() == 1 && found.unreadable[0].contains("v.tar"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_searched_is_refused_and_what_has_no_offsets_is_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    shards(directory.path(), 3);
    std::fs::write(directory.path().join("lines.jsonl"), "{}\n").expect("a disk");
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let source = format!("file://{}", directory.path().display());
    let with = |more| [("robustmq.source", &source[..]), ("robustmq.source.epochs", "4"), more];
    let seed = with(("robustmq.source.seed", "1"));
    let lines = with(("robustmq.source.format", "jsonl"));
    assert_eq!(create(&mut client, "images", 1, &seed).await, (0, String::new()));
    assert_eq!(create(&mut client, "lines", 1, &lines).await, (0, String::new()));
    assert_eq!(create(&mut client, "plain", 1, &[]).await, (0, String::new()));
    let refused = async |topic: &str, wanted: Wanted, said: &str| {
        let error = broker.find(topic, wanted).await.expect_err(said).to_string();
        assert!(error.contains(said), "{error}");
    };
    refused("plain", wanted("k", 0), "has no source").await;
    refused("images", wanted("k", 4), "the topic has 4").await;
    refused("lines", wanted("k", 0), "records of jsonl have no keys").await;
    let hint = |name: &str| Wanted { object: Some(name.to_owned()), ..wanted("k", 0) };
    refused("images", hint("lines.jsonl"), "records of lines.jsonl have no keys").await;
    refused("images", hint("train-009.tar"), "has no object \"train-009.tar\"").await;
    let found = broker.find("images", wanted("000-00", 3)).await.expect("it is searched");
    assert_eq!((found.matches, found.uncounted_objects, found.next), (vec![], 3, None));
}
