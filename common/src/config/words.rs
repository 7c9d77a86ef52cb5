//! What serde says of a value ("invalid type: string, expected u64") in the words of whoever wrote it.

use std::fmt::Write;

use serde::de::{Expected, Unexpected};

/// Characters of a value that a message repeats.
const SHOWN_CHARS: usize = 60;

/// `must be ..., not ...`.
pub(super) fn must_be(found: &Unexpected<'_>, expected: &dyn Expected) -> String {
    let expected = expected.to_string();
    let allowed = allowed(&expected);
    let quoted = matches!(found, Unexpected::Str(text) if is_bare(text, &expected));
    let hint = if quoted { ": write it without quotes" } else { "" };
    format!("must be {allowed}, not {}{hint}", shown(found))
}

/// `must be "a", "b" or "c", not ...`.
pub(super) fn must_be_one_of(found: &Unexpected<'_>, names: &[&str]) -> String {
    let mut text = String::from("must be ");
    for (index, name) in names.iter().enumerate() {
        let before = match index {
            0 => "",
            _ if index + 1 == names.len() => " or ",
            _ => ", ",
        };
        // Writing to a string cannot fail.
        let _ = write!(text, "{before}\"{name}\"");
    }
    let _ = write!(text, ", not {}", shown(found));
    text
}

/// A value as it stands in a file.
pub(super) fn shown(found: &Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(flag) => flag.to_string(),
        Unexpected::Unsigned(number) => number.to_string(),
        Unexpected::Signed(number) => number.to_string(),
        Unexpected::Float(number) => number.to_string(),
        Unexpected::Str("") => "empty".to_owned(),
        Unexpected::Str(text) => match text.char_indices().nth(SHOWN_CHARS) {
            Some((end, _)) => format!("{:?}...", &text[..end]),
            None => format!("{text:?}"),
        },
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a section".to_owned(),
        other => other.to_string(),
    }
}

/// Serde's names of types in words, with the values that they take.
fn allowed(expected: &str) -> String {
    let range = |least: i64, most: i64| format!("a whole number from {least} to {most}");
    let words = match expected.strip_prefix("a nonzero ").unwrap_or(expected) {
        "u8" => range(0, u8::MAX.into()),
        "u16" => range(0, u16::MAX.into()),
        "u32" => range(0, u32::MAX.into()),
        "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        "i8" => range(i8::MIN.into(), i8::MAX.into()),
        "i16" => range(i16::MIN.into(), i16::MAX.into()),
        "i32" => range(i32::MIN.into(), i32::MAX.into()),
        "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" | "bool" => "true or false".to_owned(),
        "a string" | "a borrowed string" | "path string" => "text in quotes".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a section".to_owned(),
        name if name.starts_with("struct ") => "a section".to_owned(),
        other => other.to_owned(),
    };
    if expected.starts_with("a nonzero ") { format!("{words}, and not 0") } else { words }
}

/// Whether text would be right if it had no quotes around it.
fn is_bare(text: &str, expected: &str) -> bool {
    match expected {
        "a boolean" => text.parse::<bool>().is_ok(),
        "f32" | "f64" => text.parse::<f64>().is_ok(),
        name if name.starts_with(['u', 'i']) => text.parse::<i64>().is_ok(),
        _ => false,
    }
}

/// One line of what the TOML parser says, with the line that it says it of.
pub(super) fn syntax(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().trim().replace('\n', ", ");
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
        return message;
    };
    let number = before.matches('\n').count();
    let line = text.lines().nth(number).unwrap_or_default().trim();
    let line = shown(&Unexpected::Str(line));
    format!("line {}, {line}: {message}", number + 1)
}
