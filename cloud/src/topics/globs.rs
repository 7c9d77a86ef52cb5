//! Patterns of objects' names: globs, with ranges of numbers as shards are named, `shard-{000000..000099}.tar`.

use globset::{GlobBuilder, GlobMatcher};

/// The most numbers of one range. Each is one name that a glob may match.
const RANGE: u64 = 10_000;

/// The parts of a list with commas, of which those within braces and brackets separate nothing.
fn list(value: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_u32, 0);
    for (at, letter) in value.char_indices() {
        match letter {
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

/// Reads a list of patterns.
///
/// # Errors
/// Why one of them is none.
pub(super) fn read(value: &str) -> Result<Vec<GlobMatcher>, String> {
    let glob = |pattern: &str| {
        let pattern = without_ranges(pattern)?;
        let built = GlobBuilder::new(&pattern).literal_separator(true).build();
        built.map(|glob| glob.compile_matcher()).map_err(|error| error.to_string())
    };
    list(value).into_iter().map(glob).collect()
}

/// The same pattern with a name for each number of its ranges.
fn without_ranges(pattern: &str) -> Result<String, String> {
    let (mut written, mut rest) = (String::new(), pattern);
    while let Some(open) = rest.find('{') {
        let (before, inner) = rest.split_at(open);
        written += before;
        let close = inner.find('}').map_or(inner.len(), |close| close + 1);
        let (braces, after) = inner.split_at(close);
        match range(braces)? {
            Some(names) => written += &names,
            None => written += braces,
        }
        rest = after;
    }
    written += rest;
    Ok(written)
}

/// What `{A..B}` stands for; `None` if it is something else. With as many digits as the longer of both has, where one begins with a zero.
fn range(braces: &str) -> Result<Option<String>, String> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let inner = braces.strip_prefix('{').and_then(|inner| inner.strip_suffix('}'));
    let ends = inner.and_then(|inner| inner.split_once(".."));
    let Some((first, last)) = ends.filter(|(first, last)| is_number(first) && is_number(last))
    else {
        return Ok(None);
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
        ] {
            let found = read(patterns).expect(patterns).iter().any(|glob| glob.is_match(name));
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
        ] {
            let why = read(patterns).expect_err(patterns);
            assert!(why.contains(said), "{patterns}: {why}");
        }
    }
}
