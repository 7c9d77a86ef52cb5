//! The configuration loader: defaults, then the TOML file, then the environment, then flags, into one typed `Settings`.
//!
//! A binary's settings are plain structs that derive `Serialize` and `Deserialize` with `#[serde(default)]`, so that
//! their `Default` is where defaults are written. Durations end in `_ms`, sizes in `_bytes`, both integers.
//!
//! **Invariant:** a key that no struct has is an error, whether or not the struct says `deny_unknown_fields`, and
//! whether it comes from the file, a variable of the form `ROBUSTMQ_SECTION__KEY` or a flag.
//! **Invariant:** every error is one line that names where the value came from (file, variable or command line) and the key, and
//! says what is wrong and what is allowed, in words that a reader of the file knows.

mod error;
mod tree;
mod words;

#[cfg(test)]
mod tests;

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use error::Origin;
pub use error::{ConfigError, Invalid};
use tree::Node;

/// What environment variables of both binaries begin with: `ROBUSTMQ_SECTION__KEY` overrides `[section] key`, and
/// `ROBUSTMQ_KEY` a key outside sections. One without `__` that names no such key is not ours and skipped: scripts have
/// such variables, and Kubernetes sets `ROBUSTMQ_SERVICE_HOST` and the like in every pod beside a Service called
/// `robustmq`.
pub const ENV_PREFIX: &str = "ROBUSTMQ_";
/// Those with it that tell commands where the broker is, and set nothing of its own.
const COMMAND_VARIABLES: [&str; 2] = ["ROBUSTMQ_BOOTSTRAP", "ROBUSTMQ_ADMIN"];

/// A binary's settings.
pub trait Settings: DeserializeOwned {
    /// What types cannot say: ranges, keys that exclude each other. Called once, by [`load`].
    ///
    /// # Errors
    /// The first key that is wrong, and why.
    fn validate(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

/// Where settings come from, besides their defaults. Later fields override earlier ones.
#[derive(Debug, Default)]
pub struct Sources<'a> {
    /// The TOML file, if one was named.
    pub file: Option<&'a Path>,
    /// The process's environment; variables without [`ENV_PREFIX`] are skipped.
    pub environment: Vec<(String, String)>,
    /// Flags as `(dotted.key, value)`, for example `("kafka.listen", "127.0.0.1:0".into())`. A string is taken for any
    /// type that it can be read as.
    pub flags: Vec<(&'static str, toml::Value)>,
}

impl<'a> Sources<'a> {
    /// The file and this process's environment, no flags.
    #[must_use]
    pub fn of_process(file: Option<&'a Path>) -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        };
        let environment = std::env::vars_os().filter_map(text).collect();
        Self { file, environment, flags: Vec::new() }
    }

    /// Adds the flag for `key` if it was given.
    pub fn flag(&mut self, key: &'static str, value: Option<impl Into<toml::Value>>) -> &mut Self {
        self.flags.extend(value.map(|value| (key, value.into())));
        self
    }
}

/// Reads, merges, types and validates.
///
/// # Errors
/// [`ConfigError`], one line that names source and key. The process should end with [`crate::net::StartError`]'s exit
/// code for it, 2.
pub fn load<S: Settings>(sources: &Sources<'_>) -> Result<S, ConfigError> {
    load_with(sources, |_| Ok(()))
}

/// As [`load`]; then `check` says what only the files that the settings name can tell.
///
/// # Errors
/// As [`load`]: what `check` refuses is as wrong as what [`Settings::validate`] does.
pub fn load_with<S: Settings>(
    sources: &Sources<'_>,
    check: impl FnOnce(&S) -> Result<(), Invalid>,
) -> Result<S, ConfigError> {
    let mut root = Node::table();
    if let Some(path) = sources.file {
        root.merge(read_file(path)?);
    }
    for (name, value) in &sources.environment {
        if let Some(key) = name.strip_prefix(ENV_PREFIX)
            && !COMMAND_VARIABLES.contains(&name.as_str())
        {
            let keys: Vec<String> = key.split("__").map(str::to_ascii_lowercase).collect();
            let origin = Origin::Variable(name.clone());
            root.set(&keys, Node::leaf(toml::Value::String(value.clone()), &origin));
        }
    }
    for (key, value) in &sources.flags {
        let keys: Vec<String> = key.split('.').map(str::to_owned).collect();
        root.set(&keys, Node::leaf(value.clone(), &Origin::CommandLine));
    }
    let settings = S::deserialize(root.clone())?;
    settings.validate().and_then(|()| check(&settings)).map_err(|invalid| {
        let invalid = invalid.blame(|key| root.origin_of(key).is_some());
        let origin = root.origin_of(invalid.key());
        ConfigError::from_invalid(invalid, origin)
    })?;
    Ok(settings)
}

/// What is legal and probably not meant: variables that set nothing, and would with another underscore. Others that set nothing are not ours.
#[must_use]
pub fn warnings<S: Settings>(sources: &Sources<'_>) -> Vec<String> {
    let plain = sources.environment.iter().filter_map(|(name, _)| {
        let key = name.strip_prefix(ENV_PREFIX)?;
        let is_plain = !key.contains("__") && !COMMAND_VARIABLES.contains(&name.as_str());
        is_plain.then(|| (name, key.to_ascii_lowercase()))
    });
    let misspelt = plain.filter(|(_, key)| !is_key::<S>(std::slice::from_ref(key)));
    let warnings = misspelt.filter_map(|(name, key)| {
        let splits = key
            .match_indices('_')
            .filter_map(|(at, _)| Some([key.get(..at)?.to_owned(), key.get(at + 1..)?.to_owned()]));
        let [section, rest] = splits.into_iter().find(|keys| is_key::<S>(keys))?;
        let meant = format!("{ENV_PREFIX}{section}__{rest}").to_ascii_uppercase();
        Some(format!("environment variable {name} sets nothing; [{section}] {rest} is {meant}"))
    });
    warnings.collect()
}

/// Whether the settings have a key, whatever values it takes.
fn is_key<S: Settings>(keys: &[String]) -> bool {
    let mut root = Node::table();
    root.set(keys, Node::leaf(toml::Value::String(String::new()), &Origin::CommandLine));
    S::deserialize(root).map_or_else(|error| !error.is_unknown_key(), |_| true)
}

/// The settings in force, as TOML, for `--print-config`.
///
/// # Errors
/// [`ConfigError`] for settings that TOML cannot express: a mistake in the settings' types.
pub fn print_config<S: Serialize>(settings: &S) -> Result<String, ConfigError> {
    toml::to_string(settings).map_err(|error| ConfigError::other(&error))
}

fn read_file(path: &Path) -> Result<Node, ConfigError> {
    let origin = Origin::File(path.to_owned());
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::source(&origin, &format!("cannot be read: {error}")))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        ConfigError::source(&origin, &words::syntax(&text, &error))
    })?;
    Ok(Node::leaf(toml::Value::Table(table), &origin))
}
