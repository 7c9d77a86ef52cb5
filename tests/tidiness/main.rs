//! What the compiler does not check: sizes, front doors, and which way dependencies point. See ARCHITECTURE.md.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file without its tests.
const FILE_LINES: usize = 500;
/// Lines of tests within a file; longer ones go to `foo/tests.rs`.
const INLINE_TEST_LINES: usize = 100;

/// Files that may be longer, each with its reason.
const LONGER: &[(&str, &str)] =
    &[("common/src/limits.rs", "one list of constants, which people search and do not read")];

/// In files under the first path, none of these may be named outside tests. Why stands in ARCHITECTURE.md.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("common/src", &["robustmq_edge", "robustmq_cloud"]),
    ("edge/src", &["robustmq_cloud"]),
    ("cloud/src", &["robustmq_edge"]),
    (
        "cloud/src/store",
        &[
            "crate::log",
            "crate::topics",
            "crate::group",
            "crate::kafka",
            "crate::uplink",
            "crate::admin",
            "crate::broker",
            "kafka_protocol",
        ],
    ),
    ("cloud/src/objects", &["crate::store", "crate::tier", "crate::log", "crate::kafka"]),
    (
        "cloud/src/tier",
        &["crate::log", "crate::topics", "crate::group", "crate::kafka", "crate::broker"],
    ),
    (
        "cloud/src/log",
        &["crate::group", "crate::kafka", "crate::uplink", "crate::admin", "crate::broker"],
    ),
    (
        "cloud/src/dataset",
        &["crate::group", "crate::kafka", "crate::uplink", "crate::admin", "crate::broker"],
    ),
    // What reads objects as records knows no broker.
    ("cloud/dataset/src", &["robustmq_cloud", "kafka_protocol"]),
    ("cloud/src/topics", &["crate::kafka", "crate::uplink", "crate::admin", "crate::broker"]),
    (
        "cloud/src/group",
        &["crate::kafka", "crate::uplink", "crate::admin", "crate::broker", "tokio::net"],
    ),
    (
        "cloud/src/traffic",
        &["crate::kafka", "crate::uplink", "crate::admin", "crate::broker", "kafka_protocol"],
    ),
    (
        "cloud/src/kafka",
        &["crate::broker", "crate::uplink", "rocksdb", "store::rocks", "store::memory"],
    ),
    (
        "cloud/src/uplink",
        &["crate::broker", "crate::kafka", "rocksdb", "store::rocks", "store::memory"],
    ),
    ("cloud/src/admin", &["crate::broker"]),
    ("edge/src/queue", &["crate::uplink", "crate::gateway", "crate::admin", "crate::state"]),
    ("edge/src/state", &["crate::uplink", "crate::gateway", "crate::admin"]),
    ("edge/src/uplink", &["crate::gateway", "crate::admin", "crate::state"]),
    // Sans-IO: time and bytes come in as arguments.
    ("common/src/mqtt", &["tokio", "std::net", "std::fs", "Instant::now", "SystemTime::now"]),
    ("common/src/record", &["tokio", "std::net", "std::fs", "Instant::now", "SystemTime::now"]),
    ("common/src/sync", &["tokio", "std::net", "std::fs", "Instant::now", "SystemTime::now"]),
];

/// One Rust file.
struct Source {
    path: String,
    text: String,
    /// Without its tests; empty for a file of tests.
    code: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Files that are compiled for tests only: under a tests folder, or declared as such by the module above them.
fn is_test_file(path: &str, declared: &[String]) -> bool {
    path.starts_with("tests/")
        || path.contains("/tests/")
        || path.contains("/benches/")
        || declared.iter().any(|module| {
            path.strip_prefix(module.as_str())
                .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        })
}

/// What `path` declares as `#[cfg(test)] mod name;`, as paths without `.rs`.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let folder = match path.rsplit_once('/') {
        Some((folder, "mod.rs" | "lib.rs" | "main.rs")) => folder,
        _ => path.trim_end_matches(".rs"),
    };
    let after_mark = text.split("#[cfg(test)]\n").skip(1);
    let names = after_mark.filter_map(|rest| {
        let line = rest.lines().next()?.trim();
        let (_, name) = line.strip_suffix(';')?.rsplit_once("mod ")?;
        Some(format!("{folder}/{name}"))
    });
    names.collect()
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for folder in ["common", "edge", "cloud", "tests"] {
        collect(&root().join(folder), folder, &mut found);
    }
    assert!(found.len() > 30, "the sources were not found from {}", root().display());
    let declared: Vec<String> =
        found.iter().flat_map(|source| test_modules(&source.path, &source.text)).collect();
    for source in &mut found {
        if !is_test_file(&source.path, &declared) {
            source.code = without_tests(&source.text);
        }
    }
    found
}

fn collect(folder: &Path, name: &str, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("its entry").path();
        let name = format!("{name}/{}", path.file_name().unwrap_or_default().to_string_lossy());
        if path.is_dir() && !name.ends_with("/target") {
            collect(&path, &name, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            found.push(Source { path: name, text, code: String::new() });
        }
    }
}

/// The text up to the inline test module, which stands last.
fn without_tests(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end].to_owned()
}

/// Lines without comments: prose may name anything.
fn code_lines(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn report(rule: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{rule}:\n  {}", faults.join("\n  "));
}

#[test]
fn files_stay_under_their_size() {
    let mut faults = Vec::new();
    for source in sources() {
        let lines = source.code.lines().count();
        let allowed = LONGER.iter().any(|(path, _)| *path == source.path);
        if lines > FILE_LINES && !allowed {
            faults.push(format!("{}: {lines} lines without tests", source.path));
        }
        let tests = source.text.lines().count() - lines;
        if tests > INLINE_TEST_LINES && !source.code.is_empty() {
            faults.push(format!("{}: {tests} lines of inline tests", source.path));
        }
    }
    report("Files have at most 500 lines without tests, and 100 of inline tests", &faults);
}

#[test]
fn every_room_has_a_front_door() {
    let mut faults = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//!")
            && source.path.contains("/src/")
            && source.path.ends_with("/mod.rs")
        {
            faults.push(format!("{}: does not begin with //!", source.path));
        }
        let room = source.path.ends_with("/mod.rs") && source.path.matches('/').count() == 3;
        if room && !source.path.starts_with("tests/") && !source.text.contains("**Invariant:**") {
            faults.push(format!("{}: names no invariant", source.path));
        }
    }
    report("A mod.rs begins with what the room is for, and a room's with its invariants", &faults);
}

#[test]
fn dependencies_point_one_way() {
    let mut faults = Vec::new();
    for source in sources() {
        for (folder, forbidden) in DIRECTIONS {
            if !source.path.starts_with(&format!("{folder}/")) {
                continue;
            }
            for (index, line) in code_lines(&source.code) {
                for name in forbidden.iter().filter(|name| names(line, name)) {
                    faults.push(format!("{}:{}: names {name}", source.path, index + 1));
                }
            }
        }
    }
    report("Dependencies point one way (ARCHITECTURE.md, Map)", &faults);
}

/// Whether `line` has `name` as whole words.
fn names(line: &str, name: &str) -> bool {
    let word = |character: Option<char>| character.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(name).any(|(start, _)| {
        !word(line[..start].chars().next_back()) && !word(line[start + name.len()..].chars().next())
    })
}

#[test]
fn nothing_is_left_for_later_or_switched_off() {
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["#[ig", "nore]"].concat()];
    let mut faults = Vec::new();
    for source in sources() {
        for (index, line) in source.text.lines().enumerate() {
            for mark in marks.iter().filter(|mark| line.contains(mark.as_str())) {
                faults.push(format!("{}:{}: {mark}", source.path, index + 1));
            }
        }
    }
    report("No reminders, and no ignored tests without a reason", &faults);
}
