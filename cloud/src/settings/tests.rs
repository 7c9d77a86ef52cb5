use std::path::Path;

use robustmq_common::config::{Sources, load, warnings};
#[cfg(target_os = "linux")]
use robustmq_common::net::StartError;

use super::{Settings, parse_host_port};

fn from(toml: &str) -> Result<Settings, String> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("cloud.toml");
    std::fs::write(&file, toml).expect("a writable file");
    let sources = Sources { file: Some(&file), ..Sources::default() };
    load(&sources).map_err(|error| error.to_string())
}

/// The line names the file and a key that stands in it, and says these things.
fn refused(toml: &str, key: &str, said: &[&str]) {
    let line = from(toml).expect_err(toml);
    assert!(line.contains("cloud.toml: "), "{toml}: no file in {line:?}");
    let behind = line.split_once("cloud.toml: ").map_or("", |(_, behind)| behind);
    assert!(behind.contains(key), "{toml}: {line}");
    assert!(behind.starts_with(key) || behind.starts_with("unknown key"), "{toml}: {line}");
    let (section, name) = key.rsplit_once(' ').unwrap_or(("", key));
    assert!(toml.contains(section) && toml.contains(name), "{key} does not stand in {toml:?}");
    for part in said {
        assert!(line.contains(part), "{line:?} does not say {part:?}");
    }
    assert_eq!(line.lines().count(), 1, "{line}");
}

#[test]
fn the_sample_says_the_defaults() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/cloud/cloud.toml");
    let sources = Sources { file: Some(&sample), ..Sources::default() };
    let settings: Settings = load(&sources).expect("the sample is valid");
    assert_eq!(settings, Settings::default());
}

#[test]
fn what_makes_no_sense_is_refused_by_its_key() {
    let check = |toml: &str, key: &str| refused(toml, key, &[]);
    check("data_dir = ''", "data_dir");
    check("[kafka]\nidle_timeout_ms = 0", "[kafka] idle_timeout_ms");
    check("[groups]\noffset_retention_ms = 0", "[groups] offset_retention_ms");
    check("[groups]\nmax_session_timeout_ms = 1", "[groups] max_session_timeout_ms");
    check("[shared]\nstart = 'middle'", "[shared] start");
    check("[shared]\nstrategy = 'fair'", "[shared] strategy");
    check("[shared]\nmax_inflight_records = 0", "[shared] max_inflight_records");
    check("[shared]\nack_timeout_ms = -2", "[shared] ack_timeout_ms");
    check("[shared]\ndead_letter_topic = 'no/such'", "[shared] dead_letter_topic");
    check("[kafka]\nadvertise = 'host'", "[kafka] advertise");
    check("[kafka]\nadvertise = ':9092'", "[kafka] advertise");
    check("[kafka]\nadvertise = 'host:0'", "[kafka] advertise");
    check("[kafka]\ndefault_partitions = 0", "[kafka] default_partitions");
    check("[kafka]\nmax_frame_bytes = 10", "[kafka] max_frame_bytes");
    check("[kafka]\nrequest_memory_bytes = 10", "[kafka] request_memory_bytes");
    check("[storage]\nmemory_bytes = 10", "[storage] memory_bytes");
    check("[storage]\nupkeep_interval_ms = 1", "[storage] upkeep_interval_ms");
    check("[storage]\nsegment_bytes = 10", "[storage] segment_bytes");
    check("[storage]\nsegment_bytes = 9999999999", "[storage] segment_bytes");
    check("[cache]\nmemory_bytes = 10", "[cache] memory_bytes");
    check("[tier]\nobject_store = 'ftp://x'", "[tier] object_store");
    check("[dataset]\nfile_roots = ['datasets']", "[dataset] file_roots");
    check("[dataset]\nfile_roots = ['/srv', '']", "[dataset] file_roots");
    check("[kafka]\nmax_connections = 0", "[kafka] max_connections");
    check("[groups]\nmin_session_timeout_ms = 9999999", "[groups] min_session_timeout_ms");
    check("[uplink]\ntls_cert = 'a.pem'", "[uplink] tls_cert");
    check("[uplink]\ntls_key = 'a.key'", "[uplink] tls_key");
    check("[admin]\nmetrics_topics = 1001", "[admin] metrics_topics");
    check("[kafka]\nlisten_on = 1", "listen_on");
    let wide = "[kafka]\nlisten = '0.0.0.0:9092'\nadvertise = 'broker.example:9092'";
    check(wide, "[kafka] listen");
    check("[uplink]\nlisten = '0.0.0.0:9440'", "[uplink] listen");
    check("[admin]\nlisten = '0.0.0.0:8090'", "[admin] listen");
    check("[admin]\nlisten = 'here'", "[admin] listen");
    check("[log]\nlevel = 'loud'", "[log] level");
    check("[cluster]\nobject_store = 'bucket/prefix'", "[cluster] object_store");
    check("[cluster]\nobject_store = 'file://relative'", "[cluster] object_store");
    check("[cluster]\nflush_interval_ms = 60000", "[cluster] flush_interval_ms");
}

#[test]
fn the_advertised_address_is_the_one_named_or_listened_on() {
    let listening = "127.0.0.1:4242".parse().expect("an address");
    let named = from("[kafka]\nadvertise = 'broker.example:9092'").expect("valid");
    assert_eq!(named.advertised(listening), ("broker.example".to_owned(), 9092));
    assert_eq!(Settings::default().advertised(listening), ("127.0.0.1".to_owned(), 4242));
    assert_eq!(parse_host_port("[::1]:1"), Ok(("::1".to_owned(), 1)));
    // They were looked up as names of hosts.
    let said = "\"http://127.0.0.1:9092\" is not HOST:PORT: leave http:// out";
    assert_eq!(parse_host_port("http://127.0.0.1:9092"), Err(said.to_owned()));
    for wrong in ["a:1,b:2", "a/b:1", "a b:1"] {
        assert_eq!(parse_host_port(wrong), Err(format!("{wrong:?} is not HOST:PORT")));
    }
}

/// `[kafka] listen = "0.0.0.0:9092"` was first refused for `advertise`, which nobody had written, without the file's name; and when that
/// was there, for `insecure`.
#[test]
fn a_wide_listener_is_told_all_that_it_needs_at_once() {
    let wide = "[kafka]\nlisten = '0.0.0.0:9092'";
    refused(wide, "[kafka] listen", &["insecure = true", "[kafka] advertise = \"HOST:PORT\""]);
    let one_left = format!("insecure = true\n{wide}");
    refused(&one_left, "[kafka] listen", &["[kafka] advertise = \"HOST:PORT\""]);
    from(&format!("{one_left}\nadvertise = 'broker.example:9092'")).expect("all is said");
    let uplink = "[uplink]\nlisten = '0.0.0.0:9440'\nrequire_token = true";
    refused(uplink, "[uplink] listen", &["TLS", "tls_cert and tls_key"]);
}

/// The default was blamed: `[kafka] request_memory_bytes` was refused in a file that had only `max_frame_bytes`.
#[test]
fn of_two_values_that_exclude_each_other_the_one_that_was_written_is_named() {
    let both = ["max_frame_bytes, 1000000000,", "request_memory_bytes, 536870912"];
    refused("[kafka]\nmax_frame_bytes = 1000000000", "[kafka] max_frame_bytes", &both);
    refused("[kafka]\nrequest_memory_bytes = 2000000", "[kafka] request_memory_bytes", &[]);
}

/// `check-config` said good, and `serve` failed with `address in use`.
#[test]
fn one_address_for_two_listeners_is_refused() {
    let both = ["[kafka] listen, 127.0.0.1:8090,", "[admin] listen, 127.0.0.1:8090"];
    refused("[kafka]\nlisten = '127.0.0.1:8090'", "[kafka] listen", &both);
    refused("[uplink]\nlisten = '127.0.0.1:9092'", "[uplink] listen", &[]);
    let wide = "insecure = true\n[admin]\nlisten = '0.0.0.0:9440'";
    refused(wide, "[admin] listen", &["[uplink] listen, 127.0.0.1:9440"]);
    let wide = "insecure = true\n[admin]\nlisten = '[::]:9440'";
    refused(wide, "[admin] listen", &["[uplink] listen, 127.0.0.1:9440"]);
    let free = "[kafka]\nlisten = '127.0.0.1:0'\n[admin]\nlisten = '127.0.0.1:0'";
    from(free).expect("each gets its own port");
    from("[kafka]\nlisten = '127.0.0.2:8090'").expect("another address");
}

/// `check-config` said nothing of them, and creating a topic failed.
#[test]
fn directories_that_are_not_there_are_warned_about() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (there, missing) = (dir.path().join("there"), dir.path().join("missing"));
    std::fs::create_dir(&there).expect("a disk");
    let settings = from(&format!("[dataset]\nfile_roots = [{there:?}, {missing:?}]"));
    let warnings = settings.expect("legal").warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains(&format!("{missing:?} is no directory now")), "{warnings:?}");
}

/// A budget of an exabyte was taken, and the broker went on until it was killed.
#[cfg(target_os = "linux")]
#[test]
fn caches_that_the_machine_has_no_room_for_are_refused_with_what_it_has() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let check = |toml: &str, expected: Option<[&str; 2]>| {
        let settings = from(&format!("[cache]\n{toml}")).expect("legal elsewhere");
        let checked = settings.cache.check_machine(dir.path()).map_err(StartError::from);
        let checked = checked.map_err(|error| error.to_string());
        match (checked, expected) {
            (Ok(()), None) => {}
            (Err(line), Some(said)) => {
                said.iter().for_each(|said| assert!(line.contains(said), "{line}"))
            }
            (checked, _) => panic!("{toml}: {checked:?}"),
        }
    };
    check("memory_bytes = 134217728\nssd_bytes = 67108864", None);
    let memory = ["[cache] memory_bytes: 1000000000000000000 is too much: ", " bytes of memory"];
    check("memory_bytes = 1000000000000000000", Some(memory));
    let ssd =
        ["[cache] ssd_bytes: 1000000000000000000 is too much: the file system of ", "/cache has "];
    check("ssd_bytes = 1000000000000000000", Some(ssd));
}

/// They were passed over in silence.
#[test]
fn variables_with_an_underscore_too_few_are_warned_of_by_their_right_names() {
    let variables = [
        ("ROBUSTMQ_KAFKA_LISTEN", Some("ROBUSTMQ_KAFKA__LISTEN")),
        ("ROBUSTMQ_CACHE_MEMORY_BYTES", Some("ROBUSTMQ_CACHE__MEMORY_BYTES")),
        ("ROBUSTMQ_CLUSTER_OBJECT_STORE", Some("ROBUSTMQ_CLUSTER__OBJECT_STORE")),
        ("ROBUSTMQ_DATA_DIR", None),
        ("ROBUSTMQ_SERVICE_PORT_KAFKA", None),
    ];
    for (name, meant) in variables {
        let environment = vec![(name.to_owned(), String::new())];
        let warned = warnings::<Settings>(&Sources { environment, ..Sources::default() });
        let is_named = meant.is_some_and(|meant| warned.iter().any(|said| said.ends_with(meant)));
        assert_eq!((warned.len(), is_named), (usize::from(meant.is_some()), meant.is_some()));
    }
}
