//! Patterns of objects' names: globs, with ranges of numbers as shards are named, `shard-{000000..000099}.tar`.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// The most numbers of one range. Each is one name that a glob may match.
const RANGE: u64 = 10_000;
/// What all patterns of a list may have with all of their numbers written out.
const WRITTEN_BYTES: usize = 256 * 1024;

/// Reads a list of patterns.
///
/// # Errors
/// Why one of them is none.
pub(super) fn read(value: &str) -> Result<GlobSet, String> {
    let (mut globs, mut left) = (GlobSetBuilder::new(), WRITTEN_BYTES);
    for pattern in list(value) {
        let pattern = without_ranges(pattern, left)?;
        left = left.saturating_sub(pattern.len());
        let glob = GlobBuilder::new(&pattern).literal_separator(true).build();
        globs.add(glob.map_err(|error| error.to_string())?);
    }
    globs.build().map_err(|error| error.to_string())
}

/// The parts of a list with commas, of which those within braces and brackets, and behind a backslash, separate nothing.
fn list(value: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_u32, 0);
    let mut letters = value.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => drop(letters.next()),
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&value[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&value[start..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

/// The same pattern with a name for each number of its ranges, of at most so many bytes.
fn without_ranges(pattern: &str, most: usize) -> Result<String, String> {
    let (mut written, mut rest) = (String::new(), pattern);
    while let Some(open) = rest.find(['{', '\\']) {
        let (before, inner) = rest.split_at(open);
        written += before;
        // What is behind a backslash is itself.
        let escaped = inner.strip_prefix('\\').map(|after| after.chars().next());
        if let Some(escaped) = escaped {
            let bytes = 1 + escaped.map_or(0, char::len_utf8);
            written += &inner[..bytes];
            rest = &inner[bytes..];
            continue;
        }
        let close = inner.find('}').map_or(inner.len(), |close| close + 1);
        let (braces, after) = inner.split_at(close);
        match range(braces, most.saturating_sub(written.len()))? {
            Some(names) => written += &names,
            None => written += braces,
        }
        rest = after;
    }
    written += rest;
    match written.len() > most {
        true => Err(too_long()),
        false => Ok(written),
    }
}

fn too_long() -> String {
    format!(
        "the patterns have more than {WRITTEN_BYTES} bytes with all numbers of their ranges written out"
    )
}

/// What `{A..B}` stands for, in at most so many bytes; `None` if it is something else. With as many digits as the longer of both has, where
/// one begins with a zero.
fn range(braces: &str, most: usize) -> Result<Option<String>, String> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let inner = braces.strip_prefix('{').and_then(|inner| inner.strip_suffix('}'));
    let ends = inner.and_then(|inner| inner.split_once(".."));
    let Some((first, last)) = ends.filter(|(first, last)| is_number(first) && is_number(last))
    else {
        return match inner.and_then(|inner| inner.split_once('{')) {
            Some(_) => Err(format!("{braces}: braces within braces")),
            None => Ok(None),
        };
    };
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{braces}: {error}"));
    let (from, to) = (number(first)?, number(last)?);
    if from > to || to - from >= RANGE {
        return Err(format!(
            "{braces} goes from a smaller number to a larger one, over at most {RANGE}"
        ));
    }
    let is_padded = |text: &str| text.len() > 1 && text.starts_with('0');
    let digits = if is_padded(first) || is_padded(last) { first.len().max(last.len()) } else { 0 };
    let count = usize::try_from(to - from + 1).unwrap_or(usize::MAX);
    if count.saturating_mul(digits.max(1) + 1) > most {
        return Err(too_long());
    }
    let names: Vec<String> = (from..=to).map(|number| format!("{number:0digits$}")).collect();
    Ok(Some(format!("{{{}}}", names.join(","))))
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn names_are_matched_by_patterns_and_ranges() {
        for (patterns, name, expected) in [
            ("*.tar", "a.tar", true),
            ("*.tar", "dir/a.tar", false),
            ("**/*.tar", "dir/a.tar", true),
            ("*.{tar,jpg}, *.json", "a.jpg", true),
            ("*.{tar,jpg}, *.json", "a.json", true),
            ("*.{tar,jpg}, *.json", "a.png", false),
            ("[a,b].tar", ",.tar", true),
            ("s-{000..003}.tar", "s-000.tar", true),
            ("s-{000..003}.tar", "s-003.tar", true),
            ("s-{000..003}.tar", "s-004.tar", false),
            ("s-{000..003}.tar", "s-3.tar", false),
            ("s-{8..12}.tar", "s-9.tar", true),
            ("s-{8..12}.tar", "s-09.tar", false),
            ("s-{8..12}.tar", "s-12.tar", true),
            ("s-{08..12}.tar", "s-08.tar", true),
            ("{0..1}/s-{000000..009999}.tar", "1/s-009999.tar", true),
            ("{0..1}/s-{000000..009999}.tar", "2/s-009999.tar", false),
            ("class-{cat,dog}/**", "class-dog/a/b.jpg", true),
            (r"a\{0..1\}, b\,c", "a{0..1}", true),
            (r"a\{0..1\}, b\,c", "b,c", true),
            ("", "anything", false),
        ] {
            let found = read(patterns).expect(patterns).is_match(name);
            assert_eq!(found, expected, "{patterns} {name}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_the_reason() {
        for (patterns, said) in [
            ("[a", "unclosed"),
            ("{a", "unclosed"),
            ("s-{3..1}", "smaller"),
            ("s-{0..10000}", "10000"),
            ("s-{0..99999999999999999999}", "number too large"),
            ("{a,{0..3}}", "braces within braces"),
            (&format!("s-{{{:0>1000}..9999}}", 0), "more than 262144 bytes"),
            (&"{0000..9999}".repeat(2000), "more than 262144 bytes"),
            (&vec!["{0000..9999}"; 2000].join(","), "more than 262144 bytes"),
        ] {
            let why = read(patterns).expect_err(said);
            assert!(why.contains(said), "{patterns}: {why}");
        }
    }
}
