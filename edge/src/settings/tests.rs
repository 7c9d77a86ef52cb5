use std::path::Path;

use robustmq_common::config::{self, Sources};

use super::Settings;

fn load(text: &str) -> Result<Settings, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("edge.toml");
    std::fs::write(&file, text).unwrap();
    let sources = Sources { file: Some(&file), ..Sources::default() };
    config::load(&sources).map_err(|error| error.to_string())
}

fn sample() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/edge/edge.toml");
    std::fs::read_to_string(path).unwrap()
}

/// The sample with every commented-out key and section put in force.
fn sample_in_full() -> String {
    let in_force = |line: &str| {
        let text = line.strip_prefix("# ")?;
        let is_key = text.split_once(" = ").is_some_and(|(key, _)| {
            key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        });
        (is_key || text == "[[route]]").then(|| text.to_owned())
    };
    sample().lines().map(|line| in_force(line).unwrap_or(line.to_owned()) + "\n").collect()
}

#[test]
fn the_sample_file_is_good_and_its_comments_tell_the_defaults() {
    let sample = load(&sample()).unwrap();
    let expected = Settings { data_dir: "/var/lib/robustmq-edge".into(), ..Settings::default() };
    assert_eq!(sample, expected);
    let full = load(&sample_in_full()).unwrap();
    assert_eq!(full.queue, expected.queue);
    assert_eq!(full.admin, expected.admin);
    assert_eq!(full.log, expected.log);
    assert_eq!(full.mqtt.max_connections, expected.mqtt.max_connections);
    assert_eq!(full.mqtt.max_packet_bytes, expected.mqtt.max_packet_bytes);
    assert_eq!(full.mqtt.sys_interval_s, expected.mqtt.sys_interval_s);
    assert_eq!(full.uplink.linger_ms, expected.uplink.linger_ms);
    assert_eq!(full.uplink.batch_bytes, expected.uplink.batch_bytes);
    assert_eq!(full.routes.len(), 2);
}

#[test]
fn the_sample_file_shows_every_key() {
    let full = toml::Value::try_from(load(&sample_in_full()).unwrap()).unwrap();
    let sample = sample_in_full();
    let check = |table: &toml::Value| {
        for key in table.as_table().unwrap().keys() {
            let shown =
                sample.contains(&format!("\n{key} = ")) || sample.contains(&format!("[{key}]"));
            assert!(shown, "deploy/edge/edge.toml does not show {key}");
        }
    };
    check(&full);
    for section in ["mqtt", "queue", "uplink", "admin", "log"] {
        check(&full[section]);
    }
    check(&full["route"][0]);
}

#[test]
fn what_cannot_work_is_refused_by_file_and_key() {
    let check = |text: &str, parts: &[&str]| {
        let error = load(text).unwrap_err();
        for part in parts.iter().chain(&["edge.toml"]) {
            assert!(error.contains(part), "{text:?}: {error:?} does not say {part:?}");
        }
        assert!(!error.contains('\n'), "{error:?} is more than one line");
    };
    check("edge_id = 'a b'", &["edge_id", "a b"]);
    check("edge = 'a'", &["edge", "unknown"]);
    check("[mqtt]\nlisten = 'here'", &["[mqtt] listen"]);
    check("[mqtt]\nlisten = '0.0.0.0:1883'", &["[mqtt] listen", "insecure"]);
    check("[admin]\nlisten = '0.0.0.0:8091'", &["[admin] listen", "insecure"]);
    check("[mqtt]\nusers_file = 'x'\n[admin]\nlisten = '0.0.0.0:8091'", &["[admin] listen"]);
    check("[log]\nlevel = 'loud'", &["[log] level"]);
    check("[mqtt]\nmax_connections = 0", &["[mqtt] max_connections"]);
    check("[mqtt]\nsys_interval_s = 100000", &["[mqtt] sys_interval_s", "between 0 and 86400"]);
    check("[mqtt]\ntls_cert = 'x'", &["[mqtt] tls_cert", "tls_key"]);
    check("[queue]\nmax_bytes = 10", &["[queue] max_bytes"]);
    check("[queue]\nmax_bytes = -1", &["[queue] max_bytes"]);
    check("[queue]\npolicy = 'keep'", &["[queue] policy", "reject", "drop-oldest"]);
    check("[uplink]\nurl = 'cloud:9440'", &["[uplink] url", "http"]);
    check("[uplink]\nmax_bytes_per_second = 0", &["[uplink] max_bytes_per_second"]);
    check("[uplink]\nbatch_bytes = 1000000000", &["[uplink] batch_bytes"]);
    check("[[route]]\nfilter = 'a/#/b'", &["filter"]);
    check("[[route]]\nfilter = 'a'\ntopic = 'a b'", &["topic"]);
    check("[[route]]\nfilter = 'a'\nlocal = true\nttl_secs = 5", &["local"]);
    check("[[route]]\ntopic = 'a'", &["[route] filter", "is missing", "[[route]] number 1"]);
    check("[route]\nfilter = 'a'", &["write [[route]]"]);
    check("[queue]\nmax_bytes = '1G'", &["[queue] max_bytes", "a whole number", "\"1G\""]);
    check("[queue]\npolicy = true", &["[queue] policy", "\"reject\" or \"drop-oldest\", not true"]);
    check("[mqtt]\nlisten = 1883", &["[mqtt] listen", "text in quotes", "1883"]);
    check("insecure = yes", &["line 1", "insecure = yes"]);
}

#[test]
fn the_printed_configuration_is_a_configuration() {
    let settings = load(&sample_in_full()).unwrap();
    let printed = config::print_config(&settings).unwrap();
    assert_eq!(load(&printed).unwrap(), settings);
}

#[test]
fn listeners_take_localhost_and_wide_ones_take_insecure_or_users() {
    let settings = load("[mqtt]\nlisten = 'localhost:1'\n[admin]\nlisten = 'localhost:2'").unwrap();
    assert_eq!(settings.mqtt.listen, "127.0.0.1:1".parse().unwrap());
    assert_eq!(settings.admin.listen, "127.0.0.1:2".parse().unwrap());
    load("insecure = true\n[mqtt]\nlisten = '0.0.0.0:1883'").unwrap();
    load("[mqtt]\nlisten = '0.0.0.0:1883'\nusers_file = 'users'").unwrap();
}
