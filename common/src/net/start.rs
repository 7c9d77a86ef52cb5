//! Why a process could not start, and the exit code that says so.

use std::net::SocketAddr;
use std::process::ExitCode;

use crate::config::ConfigError;

/// Why a binary did not start. Displays as one clear line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong: source, key and reason.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration is understood and asks for what is refused, or names a file that is not usable.
    #[error("{key}: {reason}")]
    Refused {
        /// Where in the configuration, for example `[kafka] listen`.
        key: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// An address cannot be listened on.
    #[error("{key}: cannot listen on {address}: {source}")]
    Listen {
        /// Where in the configuration the address stands.
        key: String,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// Anything else that went wrong before the process was ready: a locked directory, a store that does not open.
    #[error("{0}")]
    Failed(String),
}

impl StartError {
    /// 2 for a bad configuration, 1 for a failure at start.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Config(_) | Self::Refused { .. } => 2,
            Self::Listen { .. } | Self::Failed(_) => 1,
        })
    }
}
