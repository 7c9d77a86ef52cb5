//! Logs: one `tracing` subscriber on standard error, whose level can be changed while running. And how metrics are registered.
//!
//! **Invariant:** nothing of this room writes to standard output, which belongs to the `ready` line and to commands.

mod metrics;

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::{EnvFilter, Layer, reload};

use crate::config::Invalid;
use crate::limits;

pub use metrics::registered;

/// The `[log]` section of both binaries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`), or directives such as `info,robustmq_cloud::kafka=debug`.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

impl LogSettings {
    /// What types cannot say, for the validation of settings.
    ///
    /// # Errors
    /// The key that is wrong, and why.
    pub fn validate(&self) -> Result<(), Invalid> {
        parse(&self.level).map(drop).map_err(|error| Invalid::new("log.level", error.to_string()))
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people; in colour on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why the log could not be set up, or its level not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The directives are not understood, or longer than [`limits::LOG_FILTER_BYTES`].
    #[error(
        "{filter:?} is no log level: {reason}; use error, warn, info, debug or trace, or directives such as info,target=debug"
    )]
    Filter {
        /// What was given (its beginning).
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The process has a subscriber already.
    #[error("the log is set up already")]
    AlreadySet,
}

/// Changes what the running process logs. A clone changes the same log.
#[derive(Clone, Debug)]
pub struct LogLevel {
    handle: reload::Handle<EnvFilter, Registry>,
    filter: Arc<Mutex<String>>,
}

impl LogLevel {
    /// The directives in force.
    #[must_use]
    pub fn get(&self) -> String {
        self.filter.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts other directives in force, for example `debug`.
    ///
    /// # Errors
    /// [`LogError::Filter`]; the old directives stay.
    pub fn set(&self, filter: &str) -> Result<(), LogError> {
        let filter = filter.trim();
        let parsed = parse(filter)?;
        let mut current = self.filter.lock().unwrap_or_else(PoisonError::into_inner);
        self.handle.reload(parsed).map_err(|error| refused(filter, &error))?;
        filter.clone_into(&mut current);
        Ok(())
    }
}

/// Sets the process's log up, on standard error.
///
/// # Errors
/// [`LogError::Filter`] for a level that is none, [`LogError::AlreadySet`] when called twice.
pub fn init(settings: &LogSettings) -> Result<LogLevel, LogError> {
    let colour = std::io::stderr().is_terminal();
    let (subscriber, level) = subscriber(settings, colour, std::io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::AlreadySet)?;
    Ok(level)
}

/// The subscriber that [`init`] installs, over any writer.
///
/// # Errors
/// [`LogError::Filter`].
pub fn subscriber<W>(
    settings: &LogSettings,
    colour: bool,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync + 'static, LogLevel), LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse(&settings.level)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colour);
    let lines = match settings.format {
        LogFormat::Text => lines.compact().boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let level = LogLevel { handle, filter: Arc::new(Mutex::new(settings.level.clone())) };
    Ok((Registry::default().with(filter).with(lines), level))
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    if filter.is_empty() {
        return Err(refused(filter, &"it is empty"));
    }
    if filter.len() > limits::LOG_FILTER_BYTES {
        return Err(refused(
            filter,
            &format!("it is longer than {} bytes", limits::LOG_FILTER_BYTES),
        ));
    }
    // The parser takes any word for a target, so `warning` would silence everything else.
    let is_level = |word: &&str| word.trim().parse::<LevelFilter>().is_ok();
    let mut words = filter.split(',').filter(|directive| !directive.contains(['=', '[', ':']));
    if let Some(word) = words.find(|word| !word.trim().is_empty() && !is_level(word)) {
        return Err(refused(filter, &format!("{:?} is no level", word.trim())));
    }
    let directives = format!("{QUIET},{filter}");
    EnvFilter::builder().parse(directives).map_err(|error| refused(filter, &error))
}

/// What would tell each attempt of its own at INFO; those who use it say what comes of them. Directives for it still count.
const QUIET: &str = "object_store=warn";

fn refused(filter: &str, reason: &impl ToString) -> LogError {
    const SHOWN_CHARS: usize = 60;
    LogError::Filter {
        filter: filter.chars().take(SHOWN_CHARS).collect(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::{LogFormat, LogSettings, subscriber};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no test panics while it writes").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn text(&self) -> String {
            let bytes = self.0.lock().expect("no test panics while it writes").clone();
            String::from_utf8(bytes).expect("logs are UTF-8")
        }
    }

    #[test]
    fn the_level_changes_while_running_and_a_bad_one_changes_nothing() {
        let sink = Sink::default();
        let writer = {
            let sink = sink.clone();
            move || sink.clone()
        };
        let (subscriber, level) =
            subscriber(&LogSettings::default(), false, writer).expect("info is a level");
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("unseen");
            level.set("debug").expect("debug is a level");
            tracing::debug!("seen");
            level.set("robustmq=loud").expect_err("there is no such level");
            assert_eq!(level.get(), "debug");
            tracing::debug!("still seen");
        });
        let text = sink.text();
        assert!(!text.contains("unseen"), "{text}");
        assert!(text.contains("DEBUG") && text.contains("still seen"), "{text}");
        assert!(!text.contains('\u{1b}'), "colour without a terminal: {text}");
    }

    #[test]
    fn json_lines_parse() {
        let sink = Sink::default();
        let writer = {
            let sink = sink.clone();
            move || sink.clone()
        };
        let settings = LogSettings { format: LogFormat::Json, ..LogSettings::default() };
        let (subscriber, _level) = subscriber(&settings, false, writer).expect("info is a level");
        tracing::subscriber::with_default(subscriber, || tracing::info!(topic = "t", "created"));
        let line: serde_json::Value = serde_json::from_str(&sink.text()).expect("one JSON object");
        assert_eq!(line["fields"]["topic"], "t");
    }

    #[test]
    fn filters_are_checked() {
        let check = |level: &str, legal: bool| {
            let settings = LogSettings { level: level.to_owned(), ..LogSettings::default() };
            let result = subscriber(&settings, false, std::io::sink);
            assert_eq!(result.is_ok(), legal, "{level:?}");
        };
        check("info", true);
        check("warn,robustmq_cloud=debug", true);
        check("WARN", true);
        check("off", true);
        check("info,robustmq_cloud::kafka=trace", true);
        check("", false);
        check("warning", false);
        check("inof,robustmq_cloud=debug", false);
        check("a=b=c", false);
        check(&"x,".repeat(5000), false);
    }
}
