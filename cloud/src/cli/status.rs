//! `dataset status` as a person reads it, of what `GET /v1/datasets/{topic}` says.

use serde_json::Value;

use super::snapshots::number;
use super::table::table;
use super::units::{bytes, counted, grouped, percent, time};

/// Lines `name  value` under headings.
#[derive(Default)]
struct Page {
    sections: Vec<(&'static str, Vec<(&'static str, String)>)>,
}

impl Page {
    fn section(&mut self, heading: &'static str) {
        self.sections.push((heading, Vec::new()));
    }

    fn line(&mut self, name: &'static str, value: String) {
        if let Some((_, lines)) = self.sections.last_mut() {
            lines.push((name, value));
        }
    }

    fn text(&self) -> String {
        let lines = self.sections.iter().flat_map(|(_, lines)| lines);
        let width = lines.map(|(name, _)| name.len()).max().unwrap_or_default();
        let mut out = String::new();
        for (heading, lines) in &self.sections {
            out.push_str(&format!("\n{heading}\n"));
            for (name, value) in lines {
                out.push_str(&format!("  {name:<width$}  {value}\n"));
            }
        }
        out
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn is(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or_default()
}

fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// All of it.
pub(super) fn shown(status: &Value) -> String {
    let mut page = Page::default();
    source(status, &mut page);
    index(status, &mut page);
    cache(status, &mut page);
    reads(status, &mut page);
    let heading = format!("{}: {}\n", text(status, "topic"), text(status, "source"));
    heading + &page.text() + &problems(status)
}

fn source(status: &Value, page: &mut Page) {
    let (objects, partitions) = (number(status, "objects"), number(status, "partitions"));
    page.section("SOURCE");
    page.line("objects", format!("{}, {}", grouped(objects), bytes(number(status, "bytes"))));
    let now = if is(status, "is_refreshing") { "; it is being listed again" } else { "" };
    page.line("listed", time(number(status, "listed_ms")) + now);
    let new = number(status, "new_objects");
    if new > 0 {
        page.line(
            "new",
            format!("{}: in the epochs that begin from now on", counted(new, "object")),
        );
    }
    let empty = partitions.saturating_sub(objects);
    let note = match empty {
        0 => String::new(),
        _ => {
            format!(", {} of them empty: an object is in one partition as a whole", grouped(empty))
        }
    };
    page.line("partitions", grouped(partitions) + &note);
}

fn index(status: &Value, page: &mut Page) {
    let (objects, indexed) = (number(status, "objects"), number(status, "indexed_objects"));
    let is_complete = is(status, "is_index_complete");
    page.section("INDEX");
    let mut counted_objects = format!(
        "{} of {} counted, {}",
        grouped(indexed),
        grouped(objects),
        percent(indexed, objects)
    );
    if is_complete && indexed < objects {
        counted_objects.push_str("; complete but for the new ones");
    }
    page.line("objects", counted_objects);
    page.line(
        "records",
        match status.get("records").and_then(Value::as_u64) {
            Some(records) => match number(status, "records_epoch") {
                0 => format!("{} in an epoch", grouped(records)),
                newest => {
                    format!("{} in epoch {newest}, the newest that is counted", grouped(records))
                }
            },
            None => "known when all objects are counted, which goes on a little ahead of readers"
                .to_owned(),
        },
    );
    let begun = number(status, "published_epochs");
    page.line(
        "epochs",
        format!("{} of {} begun", grouped(begun), grouped(number(status, "epochs"))),
    );
    let order = status.get("permutation").and_then(Value::as_str);
    page.line("order", order.map_or("as listed".to_owned(), |name| format!("shuffled, {name}")));
    let damaged = number(status, "damaged");
    let what_of_it = if damaged > 0 { ", with one sample or many in each" } else { "" };
    page.line("left out", format!("{} that cannot be read{what_of_it}", counted(damaged, "place")));
    let lost = number(status, "lost_records");
    if lost > 0 {
        page.line("lost", format!("{} that readers came upon: null now", counted(lost, "record")));
    }
}

fn cache(status: &Value, page: &mut Page) {
    let nothing = Value::Null;
    let own = status.get("cache").unwrap_or(&nothing);
    let (held, budget) = (number(own, "memory_bytes"), number(own, "budget_bytes"));
    page.section("CACHE");
    let resident = bytes(number(own, "resident_bytes"));
    let of_all = format!("{} of {} in use by all topics", bytes(held), bytes(budget));
    page.line("memory", format!("{resident} of this topic stay; {of_all}"));
    page.line(
        "SSD",
        match is(own, "reads_ssd") || is(own, "writes_ssd") {
            true => format!("{} of this topic", bytes(number(own, "ssd_bytes"))),
            false => "none".to_owned(),
        },
    );
    let warming = status.get("warming").unwrap_or(&nothing);
    let done = number(warming, "done_bytes");
    if is(warming, "is_running") {
        let all = number(status, "bytes");
        page.line("warming", format!("{} of {}, {}", bytes(done), bytes(all), percent(done, all)));
    } else if done > 0 {
        page.line("warming", format!("over: {} gone through", bytes(done)));
    }
}

/// Reads are what readers waited for; what was downloaded is more, since counting and reading ahead download too.
fn reads(status: &Value, page: &mut Page) {
    let nothing = Value::Null;
    let own = status.get("cache").unwrap_or(&nothing);
    let tiers = ["memory_reads", "ssd_reads", "source_reads"].map(|key| number(own, key));
    let all = tiers.iter().sum();
    page.section("READS (of 1 to 8 MB each, since the broker was started)");
    for (name, reads, how) in [
        ("from memory", tiers[0], ", read ahead or kept"),
        ("from SSD", tiers[1], ""),
        ("from the source", tiers[2], ", which readers waited for"),
    ] {
        page.line(name, format!("{}, {}{how}", grouped(reads), percent(reads, all)));
    }
    let downloaded = bytes(number(own, "source_bytes"));
    page.line("fetched", format!("{downloaded} of content, by counting and reading ahead too"));
    let (waits, micros) = (number(own, "waited"), number(own, "waited_micros"));
    page.line(
        "waits",
        format!("{}, {} ms in all", counted(waits, "Fetch wait"), grouped(micros / 1000)),
    );
    let failed = number(own, "failed_loads");
    if failed > 0 {
        page.line("failed", counted(failed, "download"));
    }
}

/// What a person has to look at; nothing where all is well.
fn problems(status: &Value) -> String {
    let mut out = String::new();
    let lists = [("TROUBLE", "trouble"), ("WARNINGS", "warnings"), ("LOST OBJECTS", "lost")];
    for (heading, key) in lists {
        let lines: Vec<&str> = items(status, key).iter().filter_map(Value::as_str).collect();
        if !lines.is_empty() {
            out.push_str(&format!("\n{heading}\n  {}\n", lines.join("\n  ")));
        }
    }
    let damaged = items(status, "damaged_samples");
    if !damaged.is_empty() {
        let row = |sample: &Value| {
            let figures = ["partition", "at"].map(|key| number(sample, key).to_string());
            let [partition, at] = figures;
            vec![
                partition,
                text(sample, "object").to_owned(),
                at,
                text(sample, "reason").to_owned(),
            ]
        };
        let rows: Vec<_> = damaged.iter().map(row).collect();
        let all = number(status, "damaged");
        let shown = match u64::try_from(rows.len()).unwrap_or(u64::MAX) < all {
            true => format!(", the first {}", rows.len()),
            false => String::new(),
        };
        let places = counted(all, "place");
        out.push_str(&format!("\nLEFT OUT ({places}, with one sample or many in each{shown})\n"));
        out.push_str(&table(&["PARTITION", "OBJECT", "BYTE", "REASON"], &rows));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::shown;

    #[test]
    fn a_status_has_sections_units_and_what_is_to_be_looked_at() {
        let status = json!({
            "topic": "images", "source": "s3://bucket/train/", "objects": 3, "bytes": 15_230_000, "listed_ms": 1_795_723_200_000_u64,
            "new_objects": 1, "partitions": 4, "indexed_objects": 2, "records": 20, "is_index_complete": true, "epochs": 90,
            "published_epochs": 2, "permutation": "feistel-1", "damaged": 2, "lost_records": 0, "lost": [],
            "damaged_samples": [{"partition": 1, "object": "b.tar", "at": 512, "reason": "truncated"}],
            "trouble": ["partition 0 ends at offset 10: a.tar is gone"],
            "warnings": ["windows of 1000 records do not fit"],
            "warming": {"is_running": true, "done_bytes": 7_615_000},
            "cache": {"memory_reads": 9, "ssd_reads": 0, "source_reads": 1, "source_bytes": 15_230_000, "budget_bytes": 4_000_000_000_u64},
        });
        let text = shown(&status);
        for line in [
            "images: s3://bucket/train/",
            "  objects          3, 15.2 MB",
            "  listed           2026-11-26T20:00:00Z",
            "  new              1 object: in the epochs that begin from now on",
            "  partitions       4, 1 of them empty: an object is in one partition as a whole",
            "  objects          2 of 3 counted, 66.6 %; complete but for the new ones",
            "  records          20 in an epoch",
            "  epochs           2 of 90 begun",
            "  left out         2 places that cannot be read, with one sample or many in each",
            "  warming          7.6 MB of 15.2 MB, 50.0 %",
            "  from memory      9, 90.0 %, read ahead or kept",
            "  from the source  1, 10.0 %, which readers waited for",
            "  fetched          15.2 MB of content, by counting and reading ahead too",
            "TROUBLE",
            "  partition 0 ends at offset 10: a.tar is gone",
            "WARNINGS",
            "  windows of 1000 records do not fit",
            "LEFT OUT (2 places, with one sample or many in each, the first 1)",
            "1          b.tar   512   truncated",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
        }
        assert!(!text.contains("LOST"), "{text}");
        let refreshed = json!({"records": 100, "records_epoch": 2});
        let said = "100 in epoch 2, the newest that is counted";
        assert!(shown(&refreshed).contains(said), "a refresh has later epochs have more");
    }
}
