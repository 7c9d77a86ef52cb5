//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;

use serde::de::{Expected, Unexpected};

use super::words;
use crate::net::StartError;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    File(PathBuf),
    Variable(String),
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

/// A value that [`super::Settings::validate`] refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    key: String,
    /// Keys that are as much to blame.
    others: Vec<String>,
    reason: String,
}

impl Invalid {
    /// `key` is dotted (`kafka.listen`); `reason` says what is wrong and what would be right.
    pub fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { key: key.into(), others: Vec::new(), reason: reason.into() }
    }

    /// Also blames another key: the two exclude each other. The error names the first of all that was set, since a default is
    /// nobody's mistake.
    #[must_use]
    pub fn or(mut self, key: impl Into<String>) -> Self {
        self.others.push(key.into());
        self
    }

    /// Puts the first key forward for which `is_set` holds.
    pub(super) fn blame(mut self, is_set: impl Fn(&str) -> bool) -> Self {
        if !is_set(&self.key)
            && let Some(set) = self.others.iter().find(|key| is_set(key))
        {
            self.key = set.clone();
        }
        self
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }
}

impl From<Invalid> for StartError {
    /// Where it is not known any more from which source the value came.
    fn from(invalid: Invalid) -> Self {
        let path: Vec<String> = invalid.key.split('.').map(str::to_owned).collect();
        Self::Refused { key: KeyPath(&path).to_string(), reason: invalid.reason }
    }
}

/// Why the configuration was refused. Displays as one line: source, key, reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    origin: Option<Origin>,
    /// The key's path, outermost first, and whether it is known.
    path: Vec<String>,
    /// Where in a list it stands.
    entry: Option<Box<Entry>>,
    reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Reason {
    UnknownKey {
        expected: Vec<&'static str>,
    },
    /// One section stands where there may be several: `[route]` for `[[route]]`.
    OneSection,
    Text(String),
}

/// An entry of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// From 1.
    number: usize,
    is_section: bool,
    /// The list's key, once it is known.
    list: Option<String>,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.list {
            Some(list) if self.is_section => write!(f, "in [[{list}]] number {}", self.number),
            Some(_) | None => write!(f, "entry {} of the list", self.number),
        }
    }
}

impl ConfigError {
    pub(super) fn unknown_key(
        key: &str,
        expected: &[&'static str],
        origin: Option<&Origin>,
    ) -> Self {
        let reason = Reason::UnknownKey { expected: expected.to_vec() };
        Self { origin: origin.cloned(), path: vec![key.to_owned()], ..Self::because(reason) }
    }

    pub(super) fn is_unknown_key(&self) -> bool {
        matches!(self.reason, Reason::UnknownKey { .. })
    }

    fn because(reason: Reason) -> Self {
        Self { origin: None, path: Vec::new(), entry: None, reason }
    }

    /// A source that cannot be read at all.
    pub(super) fn source(origin: &Origin, text: &str) -> Self {
        Self { origin: Some(origin.clone()), ..Self::other(&text) }
    }

    pub(super) fn from_invalid(invalid: Invalid, origin: Option<&Origin>) -> Self {
        let path = invalid.key.split('.').map(str::to_owned).collect();
        Self { origin: origin.cloned(), path, ..Self::other(&invalid.reason) }
    }

    pub(super) fn other(text: &impl fmt::Display) -> Self {
        Self::because(Reason::Text(text.to_string()))
    }

    /// A section where a list of them is expected.
    pub(super) fn one_section() -> Self {
        Self::because(Reason::OneSection)
    }

    /// The same error seen from the list in which the value stands, at `index`.
    pub(super) fn at_entry(mut self, index: usize, is_section: bool) -> Self {
        self.entry
            .get_or_insert_with(|| Box::new(Entry { number: index + 1, is_section, list: None }));
        self
    }

    /// The same error seen from one level further out.
    pub(super) fn within(mut self, key: &str, origin: Option<&Origin>) -> Self {
        self.path.insert(0, key.to_owned());
        if let Some(entry) = &mut self.entry {
            entry.list.get_or_insert_with(|| key.to_owned());
        }
        self.origin = self.origin.or_else(|| origin.cloned());
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        match &self.reason {
            Reason::UnknownKey { expected } => {
                write!(f, "unknown key {}; ", KeyPath(&self.path))?;
                match expected.as_slice() {
                    [] => f.write_str("no key is expected there"),
                    [only] => write!(f, "expected {only}"),
                    several => write!(f, "expected one of {}", several.join(", ")),
                }?;
            }
            Reason::OneSection => {
                let name = self.path.join(".");
                write!(f, "{name}: must be a list of sections: write [[{name}]], not [{name}]")?;
            }
            Reason::Text(text) if self.path.is_empty() => f.write_str(text)?,
            Reason::Text(text) => write!(f, "{}: {text}", KeyPath(&self.path))?,
        }
        match &self.entry {
            Some(entry) => write!(f, " ({entry})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}

impl serde::de::Error for ConfigError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::other(&message)
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::other(&words::must_be(&found, expected))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::other(&words::must_be(&found, expected))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::other(&words::must_be_one_of(&Unexpected::Str(variant), expected))
    }

    fn missing_field(field: &'static str) -> Self {
        Self { path: vec![field.to_owned()], ..Self::other(&"is missing, and has no default") }
    }
}

/// `[section] key`, as it stands in the file.
struct KeyPath<'a>(&'a [String]);

impl fmt::Display for KeyPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => Ok(()),
            [key] => f.write_str(key),
            [sections @ .., key] => write!(f, "[{}] {key}", sections.join(".")),
        }
    }
}
