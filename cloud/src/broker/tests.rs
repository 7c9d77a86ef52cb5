use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use robustmq_common::config::{Sources, load_with};
use robustmq_common::ids::{CloudGeneration, KafkaTopic};
use robustmq_common::telemetry::{LogLevel, LogSettings, subscriber};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::{Broker, check, open_store, start};
use crate::log::Log;
use crate::settings::Settings;
use crate::store::MemoryStore;
use crate::store::keys::system::StoreIdentity;
use crate::topics::{Catalogue, NewTopic};

mod archives;
mod edges;

fn log_level() -> LogLevel {
    let (_subscriber, level) =
        subscriber(&LogSettings::default(), false, std::io::sink).expect("the default level");
    level
}

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.kafka.listen.set_port(0);
    settings.uplink.listen.set_port(0);
    settings.admin.listen.set_port(0);
    settings
}

async fn running(shutdown: &CancellationToken) -> Broker {
    let store = Arc::new(MemoryStore::new());
    start(&settings(), store, log_level(), shutdown.clone()).await.expect("free ports")
}

async fn get(address: SocketAddr, path: &str) -> String {
    ask(address, "GET", path, "").await
}

async fn ask(address: SocketAddr, method: &str, path: &str, json: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a listening broker");
    let length = json.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{json}"
    );
    stream.write_all(request.as_bytes()).await.expect("an open connection");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer that is text");
    answer
}

#[tokio::test]
async fn a_started_broker_answers_on_its_listeners_and_stops_when_told() {
    let shutdown = CancellationToken::new();
    let broker = running(&shutdown).await;
    for (path, expected) in [
        ("/live", "live"),
        ("/ready", "ready"),
        ("/metrics", "robustmq_cloud_kafka_connections"),
        ("/metrics", "robustmq_cloud_topics_active 0"),
        ("/v1/topics", r#"{"topics":[],"next":null}"#),
        ("/v1/groups", "[]"),
        ("/v1/store", r#""engine":"memory""#),
        ("/v1/edges", "[]"),
    ] {
        let answer = get(broker.admin, path).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        assert!(answer.contains(expected), "{path}: {answer}");
    }
    for path in ["/v1/groups/none", "/v1/topics/none", "/v1/topics/not%20legal"] {
        let missing = get(broker.admin, path).await;
        assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
    }
    // ApiVersions 0 without a client id.
    let mut client = TcpStream::connect(broker.kafka).await.expect("a listening broker");
    let request = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
    client.write_all(&request).await.expect("an open connection");
    let mut answer = [0; 8];
    client.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(answer[4..], [0, 0, 0, 7]);
    assert!(get(broker.admin, "/metrics").await.contains(r#"requests_total{api="ApiVersions"} 1"#));
    TcpStream::connect(broker.uplink).await.expect("a listening broker");
    shutdown.cancel();
    let stopped = tokio::time::timeout(Duration::from_secs(20), broker.stopped());
    stopped.await.expect("the drain is bounded").expect("the store closes");
}

#[tokio::test]
async fn what_caches_may_take_is_changed_while_the_broker_runs() {
    let shutdown = CancellationToken::new();
    let broker = running(&shutdown).await;
    // (method, body) -> status, what the answer has
    let cases = [
        ("GET", "", 200, r#""memory_bytes":134217728,"archived_bytes":0,"decoding_bytes":0,"#),
        ("PUT", r#"{"memory_bytes": 268435456}"#, 200, r#""extents_budget_bytes":268435456"#),
        ("GET", "", 200, r#""memory_bytes":268435456"#),
        ("PUT", r#"{"memory_bytes": 1000}"#, 400, "memory_bytes is 1000, and at least 33554432"),
        (
            "PUT",
            r#"{"memory_bytes": 33554432}"#,
            200,
            r#""extents_bytes":0,"extents_budget_bytes":33554432"#,
        ),
        ("PUT", r#"{"memory": 268435456}"#, 422, "memory"),
        #[cfg(target_os = "linux")]
        (
            "PUT",
            r#"{"memory_bytes": 1000000000000000000}"#,
            400,
            " bytes of memory: it has to be less",
        ),
        ("GET", "", 200, r#""memory_bytes":33554432"#),
    ];
    for (method, json, status, expected) in cases {
        let answer = ask(broker.admin, method, "/v1/cache", json).await;
        let begins = answer.starts_with(&format!("HTTP/1.1 {status}"));
        assert!(begins && answer.contains(expected), "{method} {json}: {answer}");
    }
    shutdown.cancel();
    broker.stopped().await.expect("the store closes");
}

#[tokio::test]
async fn any_topic_is_shown_by_its_name() {
    let store = Arc::new(MemoryStore::new());
    let identity = StoreIdentity::load_or_create(&*store, CloudGeneration(1)).await;
    identity.expect("a fresh store");
    let topics = Arc::new(Catalogue::new(Arc::new(Log::new(store.clone()))));
    let name = KafkaTopic::new("plant.line-1").expect("a legal name");
    let new = NewTopic::new(name, 2, Default::default());
    topics.create(vec![new], false, 7).await.remove(0).expect("created");
    let shutdown = CancellationToken::new();
    let broker = start(&settings(), store, log_level(), shutdown.clone()).await;
    let broker = broker.expect("free ports");
    let answer = get(broker.admin, "/v1/topics/plant.line-1").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for expected in [
        r#""name":"plant.line-1""#,
        r#""created_ms":7"#,
        r#""active":false"#,
        r#""backlog":null"#,
        r#""log":[{"partition":0,"log_start_offset":0,"local_start_offset":0,"high_watermark":0,"leader_epoch":0,"bytes":0,"pushed_out_records":0},"#,
    ] {
        assert!(answer.contains(expected), "{expected}: {answer}");
    }
    shutdown.cancel();
    broker.stopped().await.expect("the store closes");
}

#[tokio::test]
async fn a_wider_address_without_authentication_is_refused() {
    let mut settings = settings();
    settings.kafka.listen = "0.0.0.0:0".parse().expect("an address");
    settings.kafka.advertise = Some("localhost:9092".to_owned());
    let store = Arc::new(MemoryStore::new());
    let refused = start(&settings, store.clone(), log_level(), CancellationToken::new()).await;
    let refused = refused.err().expect("the loopback rule");
    assert!(refused.to_string().contains("[kafka] listen"), "{refused}");
    settings.insecure = true;
    let shutdown = CancellationToken::new();
    let broker = start(&settings, store, log_level(), shutdown.clone()).await;
    let broker = broker.expect("insecure says so");
    shutdown.cancel();
    broker.stopped().await.expect("the store closes");
}

/// The line named a directory that stands in no configuration, `DIR/store`.
#[tokio::test]
async fn a_data_directory_that_cannot_be_used_is_named_by_its_key() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let settings = Settings { data_dir: file.path().to_owned(), ..settings() };
    let refused = open_store(&settings).await.err().expect("a file is no directory").to_string();
    assert!(refused.starts_with(&format!("data_dir {:?}: ", file.path())), "{refused}");
}

/// Nobody could know what the metrics count, or in which unit, without reading the code.
#[tokio::test]
async fn every_metric_is_explained_in_the_documentation() {
    let shutdown = CancellationToken::new();
    let broker = running(&shutdown).await;
    let page = include_str!("../../docs/admin.md");
    let metrics = get(broker.admin, "/metrics").await;
    let mut explained = 0;
    for line in metrics
        .lines()
        .filter(|line| line.starts_with("robustmq_cloud_") || line.starts_with("process_"))
    {
        let name = line.split([' ', '{']).next().unwrap_or_default();
        // A histogram is explained once.
        let of_histogram = ["_sum", "_count", "_bucket"]
            .iter()
            .find_map(|end| name.strip_suffix(end).filter(|whole| whole.ends_with("_seconds")));
        let name = of_histogram.unwrap_or(name);
        let row = ["`", "{"].iter().any(|end| page.contains(&format!("| `{name}{end}")));
        assert!(row, "cloud/docs/admin.md has no line for {name}");
        explained += 1;
    }
    assert!(explained > 10, "{metrics}");
    shutdown.cancel();
    broker.stopped().await.expect("the store closes");
}

/// `check-config` said that all was well of a certificate that was not there; `serve` then did not start, and its line named neither
/// the configuration nor the key.
#[tokio::test]
async fn what_a_start_refuses_the_check_refuses_by_file_and_key() {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../common/src/net/testdata");
    let (pem, key) = (testdata.join("server.pem"), testdata.join("server.key"));
    let (pem, key) = (pem.display().to_string(), key.display().to_string());
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let load = |certificate: &str, key: &str| {
        let text = format!("[uplink]\ntls_cert = '{certificate}'\ntls_key = '{key}'\n");
        std::fs::write(file.path(), text).expect("a writable file");
        let sources = Sources { file: Some(file.path()), ..Sources::default() };
        load_with::<Settings>(&sources, check).map_err(|error| error.to_string())
    };
    load(&pem, &key).expect("a certificate and its key");
    for (certificate, private, at_fault, named) in [
        ("/no/such.pem", &*key, "[uplink] tls_cert", "/no/such.pem"),
        (&pem, "/no/such.key", "[uplink] tls_key", "/no/such.key"),
        (&pem, &pem, "[uplink] tls_key", &pem),
        (&key, &pem, "[uplink] tls_cert", &key),
    ] {
        let line = load(certificate, private).expect_err(at_fault);
        let configuration = file.path().display().to_string();
        for part in [&*configuration, at_fault, named] {
            assert!(line.contains(part), "{line:?} does not say {part:?}");
        }
        assert_eq!(line.lines().count(), 1, "{line}");

        let mut settings = settings();
        settings.uplink.tls_cert = Some(certificate.into());
        settings.uplink.tls_key = Some(private.into());
        let store = Arc::new(MemoryStore::new());
        let refused = start(&settings, store, log_level(), CancellationToken::new()).await;
        let refused = refused.err().expect("it does not start").to_string();
        assert!(line.ends_with(&refused), "{line:?} and {refused:?}");
    }
}
