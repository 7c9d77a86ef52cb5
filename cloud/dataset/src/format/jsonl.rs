//! JSON lines (jsonlines.org, NDJSON): each line that is not empty is a record, and has to be valid JSON.

use memchr::memchr;
use serde::de::IgnoredAny;

use super::{Given, Input, Limits, Parsed, Parser};
use crate::layout::{RecordLayout, Span};

/// [`super::Format::Jsonl`].
pub(super) struct Jsonl;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// Carried while the end of a line that is too long is looked for.
const IN_LONG_LINE: &[u8] = b"line";

impl Parser for Jsonl {
    fn parse(&self, input: Input<'_>, limits: Limits) -> Parsed {
        let given = input.given();
        if !input.carry.is_empty() {
            return rest_of_long_line(given);
        }
        let mut parsed = Parsed::default();
        let has_mark = input.is_first && given.bytes.starts_with(BYTE_ORDER_MARK);
        let mut at = if has_mark { BYTE_ORDER_MARK.len() } else { 0 };
        while at < given.bytes.len() && parsed.found() < limits.records {
            let rest = &given.bytes[at..];
            let line = match memchr(b'\n', rest) {
                Some(end) => &rest[..end],
                None if given.is_last => rest,
                // One more than the limit may still be the first half of CR LF.
                None if rest.len() > limits.record_bytes.saturating_add(1) => {
                    parsed.damaged(at, too_long(limits));
                    parsed.skipped(at, given.bytes.len() as u64, given);
                    parsed.carry = IN_LONG_LINE.to_vec();
                    return parsed;
                }
                None => break,
            };
            let next = (at + line.len() + 1).min(given.bytes.len());
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            match check(line, limits) {
                Ok(true) => {
                    let value = Span::new(at, line.len());
                    parsed.layout.records.push(RecordLayout::plain(None, value));
                }
                Ok(false) => {}
                Err(reason) => parsed.damaged(at, reason),
            }
            at = next;
        }
        parsed.consumed = at;
        parsed
    }
}

/// Whether the line is a record.
fn check(line: &[u8], limits: Limits) -> Result<bool, String> {
    if line.len() > limits.record_bytes {
        return Err(too_long(limits));
    }
    // What is skipped of a value is not checked by serde_json for being UTF-8, but JSON is.
    let text = std::str::from_utf8(line).map_err(|error| {
        format!("the line is not UTF-8 from its byte {} on", error.valid_up_to())
    })?;
    if text.trim_ascii().is_empty() {
        return Ok(false);
    }
    serde_json::from_str::<IgnoredAny>(text)
        .map_err(|error| format!("the line is not JSON: {error}"))?;
    Ok(true)
}

fn too_long(limits: Limits) -> String {
    format!("the line is larger than {} bytes", limits.record_bytes)
}

fn rest_of_long_line(given: Given<'_>) -> Parsed {
    let mut parsed = Parsed::default();
    let end = memchr(b'\n', given.bytes);
    let bytes = end.map_or(given.bytes.len(), |end| end + 1);
    parsed.skipped(0, bytes as u64, given);
    if end.is_none() {
        parsed.carry = IN_LONG_LINE.to_vec();
    }
    parsed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop_oneof, proptest};

    use super::Jsonl;
    use crate::format::testing::{check_splits, limits, mutated, read, read_waiting, tampering};

    /// Records and damage of a file with lines of at most 20 bytes.
    fn check(content: &[u8], records: &[&str], damage: &[(u64, &str)]) {
        let seen = read(&Jsonl, content, &[], limits(20));
        let values: Vec<_> =
            seen.records.iter().map(|record| String::from_utf8_lossy(&record.value)).collect();
        assert_eq!(values, records, "{}", content.escape_ascii());
        let found: Vec<_> = seen.damage.iter().map(|(at, reason)| (*at, reason.as_str())).collect();
        assert_eq!(found.len(), damage.len(), "{found:?}");
        for ((at, reason), (expected_at, part)) in found.iter().zip(damage) {
            assert!(at == expected_at && reason.contains(part), "{found:?} {damage:?}");
        }
        check_splits(&Jsonl, content, &[1], limits(20));
    }

    #[test]
    fn lines_are_records() {
        check(b"", &[], &[]);
        check(b"\xef\xbb\xbf", &[], &[]);
        check(b"\xef\xbb\xbf{\"a\":1}\n{}", &["{\"a\":1}", "{}"], &[]);
        check(b"1\r\n\r\n \t\n\n[2]\r\n", &["1", "[2]"], &[]);
        check(b"{\n1\n{}{}\n2", &["1", "2"], &[(0, "not JSON"), (4, "not JSON")]);
        check(b"\"\xff\"\n1", &["1"], &[(0, "not UTF-8 from its byte 1 on")]);
        check(b"1\n\xef\xbb\xbf2\n3", &["1", "3"], &[(2, "not JSON")]);
        check(b"{\"a\":", &[], &[(0, "not JSON")]);
    }

    #[test]
    fn long_lines_are_damage_and_what_follows_is_read() {
        let (fits, long) = (format!("\"{}\"", "x".repeat(18)), "7".repeat(21));
        check(format!("{fits}\r\n{fits}").as_bytes(), &[&fits, &fits], &[]);
        check(format!("{long}\n8").as_bytes(), &["8"], &[(0, "larger than 20 bytes")]);
        check(format!("{long}\r\n8\n").as_bytes(), &["8"], &[(0, "larger than 20 bytes")]);
        check(format!("1\n{}", long.repeat(9)).as_bytes(), &["1"], &[(2, "larger than")]);
        check(format!("{}\n{long}\n8", long.repeat(9)).as_bytes(), &["8"], &[(0, "l"), (190, "l")]);
        let (seen, most) = read_waiting(&Jsonl, &[b'7'; 10_000], &[1], limits(20));
        assert_eq!((seen.damage.len(), most), (1, 21));
    }

    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            "[0-9]{1,30}",
            "\\{\"[a-z]{0,8}\": ?\"[a-z\u{e4}\u{4e2d}]{0,8}\"\\}",
            "[ \\t\\r]{0,3}",
            ".{0,40}",
        ]
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(lines in proptest::collection::vec(line(), 0..20), steps in proptest::collection::vec(1..50_usize, 1..6),
                                    tampering in tampering(), mark in any::<bool>()) {
            let content = format!("{}{}", if mark { "\u{feff}" } else { "" }, lines.join("\n"));
            check_splits(&Jsonl, content.as_bytes(), &steps, limits(20));
            check_splits(&Jsonl, &mutated(content.as_bytes(), &tampering), &steps, limits(20));
        }

        #[test]
        fn numbers_come_back(numbers: Vec<u64>) {
            let content: String = numbers.iter().map(|number| format!("{number}\n")).collect();
            let seen = read(&Jsonl, content.as_bytes(), &[], limits(20));
            let values: Vec<u64> = seen.records.iter().map(|record| serde_json::from_slice(&record.value).unwrap()).collect();
            assert_eq!(values, numbers);
        }
    }
}
