//! What `check-config` lets pass, `serve` has to start with: both refuse the same, with one line, and leave with 2.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn edge(command: &str, file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_robustmq-edge"))
        .args([command, "--config"])
        .arg(file)
        .output()
        .expect("the binary runs")
}

fn written(dir: &Path, name: &str, text: &str) -> PathBuf {
    let file = dir.join(name);
    std::fs::write(&file, text).expect("a temporary file");
    file
}

/// `check-config` said that all was well of a listener that `serve` refused to open, and of a token file that was not there:
/// the gateway then did not come up after the restart for which the file had been checked.
#[test]
fn what_serve_refuses_check_config_refuses_with_the_same_line() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let empty = written(dir.path(), "empty", "");
    let rubbish = written(dir.path(), "rubbish", "no user");
    let spaced = written(dir.path(), "spaced", "rmq_a\u{1}b");
    let token = written(dir.path(), "token", "rmq_0123\n");
    let blank = written(dir.path(), "blank", " \n\n");
    let several = written(dir.path(), "several", "rmq_0123\nrmq_4567\n");
    let [empty, rubbish, spaced, token, blank, several] =
        [&empty, &rubbish, &spaced, &token, &blank, &several].map(|path| path.display());
    let cloud = "[uplink]\nurl = 'http://127.0.0.1:9440'";
    let cases = [
        ("[mqtt]\nlisten = '0.0.0.0:0'".to_owned(), "[mqtt] listen", "insecure"),
        ("[admin]\nlisten = '0.0.0.0:0'".to_owned(), "[admin] listen", "insecure"),
        ("[mqtt]\nusers_file = '/no/such'".to_owned(), "[mqtt] users_file", "/no/such"),
        (format!("[mqtt]\nusers_file = '{rubbish}'"), "[mqtt] users_file", "line 1"),
        (
            "[mqtt]\ntls_cert = '/no/cert'\ntls_key = '/no/key'".to_owned(),
            "[mqtt] tls_cert",
            "/no/cert",
        ),
        (format!("{cloud}\ntoken_file = '/no/such'"), "[uplink] token_file", "/no/such"),
        (format!("{cloud}\ntoken_file = '{empty}'"), "[uplink] token_file", "empty"),
        (format!("{cloud}\ntoken_file = '{spaced}'"), "[uplink] token_file", "characters"),
        (format!("{cloud}\ntoken_file = '{blank}'"), "[uplink] token_file", "it is empty"),
        (format!("{cloud}\ntoken_file = '{rubbish}'"), "[uplink] token_file", "is no token"),
        (format!("{cloud}\ntoken_file = '{several}'"), "[uplink] token_file", "more than a token"),
        (format!("[uplink]\ntoken_file = '{empty}'"), "[uplink] token_file", "edge add"),
        ("[uplink]\nurl = 'https://cloud'".to_owned(), "[uplink] url", "\"https://cloud:9440\""),
        ("[uplink]\nurl = 'http://cloud:9440/v1'".to_owned(), "[uplink] url", "a path"),
        ("[uplink]\nurl = 'http://cloud:9440?x=1'".to_owned(), "[uplink] url", "a query"),
        ("[uplink]\nurl = 'http://gw:x@cloud:9440'".to_owned(), "[uplink] url", "token_file"),
        ("[uplink]\nurl = 'mqtt://cloud:9440'".to_owned(), "[uplink] url", "http or https"),
        (
            format!("[uplink]\nurl = 'http://10.0.0.1:1'\ntoken_file = '{token}'"),
            "[uplink] url",
            "https",
        ),
        (
            "[uplink]\nurl = 'https://127.0.0.1:1'\nca_file = '/no/ca'".to_owned(),
            "[uplink] ca_file",
            "/no/ca",
        ),
        ("[log]\nlevel = 'loud'".to_owned(), "[log] level", "loud"),
    ];
    for (text, key, part) in cases {
        let data_dir = dir.path().join("data");
        let text = format!("edge_id = 'e'\ndata_dir = '{}'\n{text}\n", data_dir.display());
        let file = written(dir.path(), "edge.toml", &text);
        let checked = edge("check-config", &file);
        let served = edge("serve", &file);
        let line = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert_eq!(checked.status.code(), Some(2), "{text}{line}");
        assert_eq!(served.status.code(), Some(2), "{text}");
        assert_eq!(served.stderr, checked.stderr, "{text}");
        assert_eq!(line.lines().count(), 1, "{line}");
        for part in ["edge.toml", key, part] {
            assert!(line.contains(part), "{line:?} does not say {part:?}");
        }
        assert!(!data_dir.exists(), "nothing was touched");
    }
}

#[test]
fn a_good_configuration_passes() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let token = written(dir.path(), "token", "rmq_0123\n");
    let text = format!(
        "edge_id = 'e'\n[mqtt]\nlisten = 'localhost:1883'\n[uplink]\nurl = 'http://localhost:9440'\ntoken_file = '{}'\n",
        token.display()
    );
    let checked = edge("check-config", &written(dir.path(), "edge.toml", &text));
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// An empty `data_dir` (a variable that a script forgot to set, mostly) would have been the directory that the process
/// happened to run in.
#[test]
fn an_empty_data_dir_is_refused_wherever_it_comes_from() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = written(dir.path(), "edge.toml", "data_dir = ''\n");
    let program = || Command::new(env!("CARGO_BIN_EXE_robustmq-edge"));
    let refused = |command: &mut Command, source: &str| {
        let ended = command.current_dir(dir.path()).output().expect("the binary runs");
        let line = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(2), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
        for part in [source, "data_dir", "must name a directory"] {
            assert!(line.contains(part), "{line:?} does not say {part:?}");
        }
    };
    for command in ["check-config", "serve"] {
        refused(program().args([command, "--config"]).arg(&file), "edge.toml");
        refused(program().arg(command).env("ROBUSTMQ_DATA_DIR", ""), "ROBUSTMQ_DATA_DIR");
    }
    refused(program().args(["serve", "--data-dir", ""]), "command line");
    refused(program().args(["queue", "inspect", "--data-dir", ""]), "command line");
}
