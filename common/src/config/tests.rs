use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Invalid, Settings, Sources, load, print_config, warnings};

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Sample {
    edge_id: Option<String>,
    insecure: bool,
    kafka: Kafka,
    cluster: Cluster,
    route: Vec<Route>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Route {
    filter: String,
    #[serde(default)]
    local: bool,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Kafka {
    listen: SocketAddr,
    linger_ms: u32,
    ratio: f64,
    mode: Mode,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Cluster {
    etcd: Vec<String>,
    ports: Vec<u16>,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    RejectNew,
    DropOldest,
}

impl Default for Kafka {
    fn default() -> Self {
        let listen = ([127, 0, 0, 1], 9092).into();
        Self { listen, linger_ms: 5, ratio: 0.5, mode: Mode::RejectNew }
    }
}

impl Settings for Sample {
    fn validate(&self) -> Result<(), Invalid> {
        if self.kafka.linger_ms > 1000 {
            return Err(Invalid::new("kafka.linger_ms", "at most 1000"));
        }
        Ok(())
    }
}

type Flag = (&'static str, toml::Value);

fn load_from(toml: Option<&str>, env: &[(&str, &str)], flags: Vec<Flag>) -> Result<Sample, String> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("cloud.toml");
    if let Some(text) = toml {
        std::fs::write(&path, text).expect("the temporary directory is writable");
    }
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let sources = Sources {
        file: toml.map(|_| path.as_path()),
        environment: env.iter().map(own).collect(),
        flags,
    };
    let here = format!("{}/", dir.path().display());
    load(&sources).map_err(|error| error.to_string().replace(&here, ""))
}

#[test]
fn nothing_given_means_the_defaults() {
    assert_eq!(load_from(None, &[], vec![]), Ok(Sample::default()));
    assert_eq!(load_from(Some(""), &[], vec![]), Ok(Sample::default()));
}

#[test]
fn flags_override_the_environment_which_overrides_the_file_key_by_key() {
    let file = "edge_id = 'file'\n[kafka]\nlisten = '127.0.0.1:1'\nlinger_ms = 1\nratio = 1.0\n";
    let env = [("ROBUSTMQ_KAFKA__LINGER_MS", "2"), ("ROBUSTMQ_KAFKA__LISTEN", "127.0.0.1:2")];
    let loaded = load_from(Some(file), &env, vec![("kafka.listen", "127.0.0.1:3".into())]);
    let loaded = loaded.expect("a good configuration");
    assert_eq!(loaded.edge_id.as_deref(), Some("file"));
    assert_eq!(loaded.kafka.ratio, 1.0);
    assert_eq!(loaded.kafka.linger_ms, 2);
    assert_eq!(loaded.kafka.listen.port(), 3);
}

#[test]
fn a_variables_text_becomes_the_type_of_its_key() {
    let env = [
        ("ROBUSTMQ_EDGE_ID", "007"),
        ("ROBUSTMQ_INSECURE", "true"),
        ("ROBUSTMQ_KAFKA__RATIO", "0.25"),
        ("ROBUSTMQ_KAFKA__MODE", "drop_oldest"),
        ("ROBUSTMQ_CLUSTER__ETCD", "http://a:1, http://b:2"),
        ("ROBUSTMQ_CLUSTER__PORTS", "1,2"),
        ("ROBUSTMQ_CLUSTER__LABELS__ZONE", "a"),
    ];
    let loaded = load_from(None, &env, vec![]).expect("a good environment");
    assert_eq!(loaded.edge_id.as_deref(), Some("007"));
    assert!(loaded.insecure);
    assert_eq!(loaded.kafka.ratio, 0.25);
    assert_eq!(loaded.kafka.mode, Mode::DropOldest);
    assert_eq!(loaded.cluster.etcd, ["http://a:1", "http://b:2"]);
    assert_eq!(loaded.cluster.ports, [1, 2]);
    assert_eq!(loaded.cluster.labels["zone"], "a");
}

/// A variable with one underscore where there have to be two was passed over in silence.
#[test]
fn a_variable_that_sets_nothing_and_nearly_would_is_warned_of() {
    let check = |name: &str, expected: Option<&str>| {
        let environment = vec![(name.to_owned(), "x".to_owned())];
        let warned = warnings::<Sample>(&Sources { environment, ..Sources::default() });
        let expected =
            expected.map(|meant| format!("environment variable {name} sets nothing; {meant}"));
        assert_eq!(warned, Vec::from_iter(expected));
    };
    check("ROBUSTMQ_KAFKA_LISTEN", Some("[kafka] listen is ROBUSTMQ_KAFKA__LISTEN"));
    check("ROBUSTMQ_KAFKA_LINGER_MS", Some("[kafka] linger_ms is ROBUSTMQ_KAFKA__LINGER_MS"));
    check("ROBUSTMQ_CLUSTER_ETCD", Some("[cluster] etcd is ROBUSTMQ_CLUSTER__ETCD"));
    // What is right, what Kubernetes sets for a Service, and what is not ours.
    for name in [
        "ROBUSTMQ_EDGE_ID",
        "ROBUSTMQ_KAFKA__LISTEN",
        "ROBUSTMQ_KAFKA",
        "ROBUSTMQ_SERVICE_HOST",
        "ROBUSTMQ_PORT_9092_TCP_ADDR",
        "ROBUSTMQ_KAFKA_PORT",
        "ROBUSTMQ_BOOTSTRAP",
        "ROBUSTMQ_ADMIN",
        "ROBUSTMQ_",
        "KAFKA_LISTEN",
    ] {
        check(name, None);
    }
}

#[test]
fn errors_name_the_source_and_the_key() {
    let check = |file: Option<&str>, env: &[(&str, &str)], flags: Vec<Flag>, expected: &str| {
        let error = load_from(file, env, flags).expect_err(expected);
        assert_eq!(error, expected);
    };
    let file = |text, expected| check(Some(text), &[], vec![], expected);
    let variable = |name, value, expected| check(None, &[(name, value)], vec![], expected);
    file(
        "[kafka]\nlisten = '127.0.0.1:1'\nlisen = 'x'",
        "cloud.toml: unknown key [kafka] lisen; expected one of listen, linger_ms, ratio, mode",
    );
    file(
        "[kafak]\nlisten = 'x'",
        "cloud.toml: unknown key kafak; expected one of edge_id, insecure, kafka, cluster, route",
    );
    file("kafka = 3", "cloud.toml: kafka: must be a section with keys of its own, not 3");
    file("[kafka]\nlisten = 'x'", "cloud.toml: [kafka] listen: invalid socket address syntax");
    file(
        "[kafka]\nlinger_ms = '5'",
        "cloud.toml: [kafka] linger_ms: must be a whole number from 0 to 4294967295, not \"5\": write it without quotes",
    );
    file(
        "[kafka]\nlinger_ms = -1",
        "cloud.toml: [kafka] linger_ms: must be a whole number from 0 to 4294967295, not -1",
    );
    file(
        "[kafka]\nmode = 'x'",
        "cloud.toml: [kafka] mode: must be \"reject_new\" or \"drop_oldest\", not \"x\"",
    );
    file("[kafka]\nlinger_ms = 1001", "cloud.toml: [kafka] linger_ms: at most 1000");
    variable(
        "ROBUSTMQ_KAFKA__LISEN",
        "x",
        "environment variable ROBUSTMQ_KAFKA__LISEN: unknown key [kafka] lisen; \
         expected one of listen, linger_ms, ratio, mode",
    );
    variable(
        "ROBUSTMQ_KAFAK__LISTEN",
        "x",
        "environment variable ROBUSTMQ_KAFAK__LISTEN: unknown key kafak; \
         expected one of edge_id, insecure, kafka, cluster, route",
    );
    variable(
        "ROBUSTMQ_INSECURE",
        "maybe",
        "environment variable ROBUSTMQ_INSECURE: insecure: \
         must be true or false, not \"maybe\"",
    );
    variable(
        "ROBUSTMQ_CLUSTER__PORTS",
        "1,x",
        "environment variable ROBUSTMQ_CLUSTER__PORTS: [cluster] ports: \
         must be a whole number from 0 to 65535, not \"x\" (entry 2 of the list)",
    );
    variable(
        "ROBUSTMQ_KAFKA__LINGER_MS",
        "soon",
        "environment variable ROBUSTMQ_KAFKA__LINGER_MS: [kafka] linger_ms: \
         must be a whole number from 0 to 4294967295, not \"soon\"",
    );
    variable(
        "ROBUSTMQ_KAFKA__LINGER_MS",
        "1001",
        "environment variable ROBUSTMQ_KAFKA__LINGER_MS: [kafka] linger_ms: at most 1000",
    );
    check(
        None,
        &[],
        vec![("kafka.listen", "x".into())],
        "command line: [kafka] listen: invalid socket address syntax",
    );
}

/// Operators were told "invalid type: map, expected a sequence" and "missing field `filter`", with no word of which of ten.
#[test]
fn errors_say_what_is_wrong_in_words_of_the_file() {
    let check = |text: &str, expected: &str| {
        let error = load_from(Some(text), &[], vec![]).expect_err(expected);
        assert_eq!(error, format!("cloud.toml: {expected}"), "{text}");
    };
    check("insecure = 'yes'", "insecure: must be true or false, not \"yes\"");
    check(
        "insecure = 'true'",
        "insecure: must be true or false, not \"true\": write it without quotes",
    );
    check("insecure = 1", "insecure: must be true or false, not 1");
    check("edge_id = 7", "edge_id: must be text in quotes, not 7");
    check("edge_id = ['a']", "edge_id: must be text in quotes, not a list");
    check("[kafka]\nratio = true", "[kafka] ratio: must be a number, not true");
    check(
        "[kafka]\nlinger_ms = 1.5",
        "[kafka] linger_ms: must be a whole number from 0 to 4294967295, not 1.5",
    );
    check(
        "[kafka]\nlinger_ms = ''",
        "[kafka] linger_ms: must be a whole number from 0 to 4294967295, not empty",
    );
    check("[kafka]\nmode = 3", "[kafka] mode: must be \"reject_new\" or \"drop_oldest\", not 3");
    check("[cluster]\netcd = 'http://a:1'", "[cluster] etcd: must be a list, not \"http://a:1\"");
    check(
        "[cluster]\nports = [1, 70000]",
        "[cluster] ports: must be a whole number from 0 to 65535, not 70000 (entry 2 of the list)",
    );
    check("[[kafka]]\nlinger_ms = 1", "kafka: must be a section with keys of its own, not a list");
    check(
        "[route]\nfilter = 'a'",
        "route: must be a list of sections: write [[route]], not [route]",
    );
    check(
        "[[route]]\nfilter = 'a'\n[[route]]\nlocal = true",
        "[route] filter: is missing, and has no default (in [[route]] number 2)",
    );
    check(
        "[[route]]\nfilter = 'a'\nlocal = 0",
        "[route] local: must be true or false, not 0 (in [[route]] number 1)",
    );
    check(
        "[[route]]\nfilter = 'a'\nloca = 0",
        "unknown key [route] loca; expected one of filter, local (in [[route]] number 1)",
    );
    let long = "x".repeat(200);
    let cut = "x".repeat(60);
    check(
        &format!("[kafka]\nmode = '{long}'"),
        &format!("[kafka] mode: must be \"reject_new\" or \"drop_oldest\", not \"{cut}\"..."),
    );
}

#[test]
fn an_unreadable_file_is_named() {
    let path = std::path::Path::new("/nonexistent/cloud.toml");
    let sources = Sources { file: Some(path), ..Sources::default() };
    let error = load::<Sample>(&sources).expect_err("there is no such file").to_string();
    assert!(error.starts_with("/nonexistent/cloud.toml: cannot be read: "), "{error}");
}

#[test]
fn a_syntax_error_is_one_line_that_names_file_and_line() {
    let check = |text: &str, start: &str, part: &str| {
        let error = load_from(Some(text), &[], vec![]).expect_err(text);
        assert!(error.starts_with(start) && error.contains(part), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    };
    check("[kafka]\nlisten = \n", "cloud.toml: line 2, \"listen =\": ", "");
    check("[kafka]\nlisten = 127.0.0.1:1\n", "cloud.toml: line 2, \"listen = 127.0.0.1:1\": ", "");
    check("[kafka\nlisten = 'x'", "cloud.toml: line 1, \"[kafka\": ", "");
    check("insecure = true\ninsecure = false", "cloud.toml: line 2, ", "duplicate key");
}

#[test]
fn variables_that_are_somebody_elses_are_skipped() {
    let env = [
        ("ROBUSTMQ_SERVICE_HOST", "10.0.0.1"),
        ("ROBUSTMQ_CLOUD_PORT_9092_TCP", "tcp://10.0.0.1:9092"),
        // The name of a section is not a key of its own.
        ("ROBUSTMQ_KAFKA", "x"),
        ("OTHER_KAFKA__LISEN", "x"),
    ];
    assert_eq!(load_from(None, &env, vec![]), Ok(Sample::default()));
    let file = Some("[kafka]\nlinger_ms = 7\n");
    assert_eq!(load_from(file, &env, vec![]).map(|loaded| loaded.kafka.linger_ms), Ok(7));
    let both = [("ROBUSTMQ_KAFKA", "x"), ("ROBUSTMQ_KAFKA__LINGER_MS", "8")];
    for env in [both, [both[1], both[0]]] {
        assert_eq!(load_from(file, &env, vec![]).map(|loaded| loaded.kafka.linger_ms), Ok(8));
    }
}

#[test]
fn what_print_config_gives_loads_as_the_same_settings() {
    let env = [("ROBUSTMQ_CLUSTER__ETCD", "http://a:1"), ("ROBUSTMQ_EDGE_ID", "e")];
    let settings = load_from(None, &env, vec![]).expect("a good environment");
    let printed = print_config(&settings).expect("plain settings");
    assert_eq!(load_from(Some(&printed), &[], vec![]), Ok(settings));
}
