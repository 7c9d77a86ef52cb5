//! What the command lines of both binaries do alike: print, complain, load a configuration to serve or to check, set the log up.
//!
//! **Invariant:** results go to standard output, everything else to standard error.

use std::fmt::Display;
use std::io::Write;

use serde::Serialize;

use crate::config::{self, Invalid, Settings, Sources};
use crate::net::StartError;
use crate::telemetry::{self, LogLevel, LogSettings};

/// To standard output. A reader that went away is no reason to complain.
pub fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// To standard output, as JSON for people and programs.
///
/// # Errors
/// [`StartError::Failed`] for what JSON cannot express: a mistake in the value's type.
pub fn print_json(value: &impl Serialize) -> Result<(), StartError> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| StartError::Failed(format!("cannot be written as JSON: {error}")))?;
    print(&format!("{text}\n"));
    Ok(())
}

/// Says on standard error why `program` failed. With nobody listening there, the exit code has to do.
pub fn complain(program: &str, error: &impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{program}: {error}");
}

/// What `serve` was asked to do besides, or instead of, serving.
#[derive(Debug, Clone, Copy)]
pub struct ServeWish {
    /// Check the configuration and leave.
    pub check_config: bool,
    /// Print the configuration in force and leave.
    pub print_config: bool,
}

/// Says on standard error which environment variables set nothing, and were probably meant to.
pub fn warn_of_variables<S: Settings>(program: &str, sources: &Sources<'_>) {
    for warning in config::warnings::<S>(sources) {
        complain(program, &format!("warning: {warning}"));
    }
}

/// The settings to serve with; `None` if looking at them was all that was asked for. `check` is [`config::load_with`]'s.
///
/// # Errors
/// [`StartError::Config`].
pub fn load_to_serve<S: Settings + Serialize>(
    sources: &Sources<'_>,
    check: impl FnOnce(&S) -> Result<(), Invalid>,
    wish: ServeWish,
) -> Result<Option<S>, StartError> {
    let settings: S = config::load_with(sources, check)?;
    if wish.print_config {
        print(&config::print_config(&settings)?);
    }
    let serve = !wish.check_config && !wish.print_config;
    Ok(serve.then_some(settings))
}

/// `check-config`: says that a configuration is good, or prints it.
///
/// # Errors
/// [`StartError::Config`].
pub fn check_config<S: Settings + Serialize>(
    sources: &Sources<'_>,
    check: impl FnOnce(&S) -> Result<(), Invalid>,
    print_config: bool,
) -> Result<(), StartError> {
    let wish = ServeWish { check_config: true, print_config };
    load_to_serve(sources, check, wish)?;
    if !print_config {
        print("the configuration is good\n");
    }
    Ok(())
}

/// Sets the process's log up.
///
/// # Errors
/// [`StartError::Refused`] for a level that is none.
pub fn start_log(settings: &LogSettings) -> Result<LogLevel, StartError> {
    telemetry::init(settings).map_err(|error| StartError::Refused {
        key: "[log] level".to_owned(),
        reason: error.to_string(),
    })
}
