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
    let spaced = written(dir.path(), "spaced", "a\u{1}b");
    let (empty, rubbish, spaced) = (empty.display(), rubbish.display(), spaced.display());
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
        (
            format!("[uplink]\nurl = 'http://10.0.0.1:1'\ntoken_file = '{rubbish}'"),
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
