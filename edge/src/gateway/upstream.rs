//! Sets the uplink up: the queue on one side, the cloud on the other.

use std::path::Path;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use robustmq_common::config::Invalid;
use robustmq_common::ids::{EdgeId, LaneId};
use robustmq_common::limits;
use robustmq_common::sync::SessionId;

use crate::admin::{self, UplinkReport};
use crate::queue::Queue;
use crate::settings::Settings;
use crate::uplink::{
    DeadLetterFile, HttpSettings, HttpTransport, Uplink, UplinkMetrics, UplinkParts, UplinkSettings,
};

/// What every token begins with. It is told apart from a certificate, a password or a note by that, before a cloud refuses it.
const TOKEN_PREFIX: &str = "rmq_";

/// How the cloud at `[uplink] url` is reached; `None` without one. Nothing is connected yet.
///
/// # Errors
/// [`Invalid`] names the setting, and the file where one is not usable.
pub(super) fn transport(
    settings: &Settings,
    edge: &EdgeId,
    lanes: impl IntoIterator<Item = LaneId>,
) -> Result<Option<HttpTransport>, Invalid> {
    // Also without a URL, which may be for the command line to say.
    let token = settings.uplink.token_file.as_deref().map(read_token).transpose()?;
    let Some(url) = &settings.uplink.url else { return Ok(None) };
    let http = HttpSettings {
        url: url.clone(),
        edge: edge.clone(),
        token,
        insecure: settings.insecure,
        timeout: limits::UPLINK_TIMEOUT,
    };
    let transport = HttpTransport::new(&http, settings.uplink.ca_file.as_deref(), lanes);
    transport.map(Some).map_err(|error| Invalid::new(error.key(), error.to_string()))
}

/// The uplink, not running yet, and where what the cloud rejects is kept.
pub(super) struct Upstream {
    pub uplink: Uplink,
    dead_letters: DeadLetterFile,
}

impl Upstream {
    pub(super) fn new(
        settings: &Settings,
        transport: HttpTransport,
        queue: &Queue,
        registry: &mut Registry,
    ) -> Self {
        let dead_letters = DeadLetterFile::in_dir(&settings.data_dir);
        let uplink = Uplink::new(UplinkParts {
            backlog: Arc::new(queue.clone()),
            transport: Arc::new(transport),
            dead_letters: Arc::new(dead_letters.clone()),
            settings: UplinkSettings {
                batch_bytes: settings.uplink.batch_bytes,
                linger: settings.linger(),
                bytes_per_second: settings.uplink.max_bytes_per_second,
                ..UplinkSettings::default()
            },
            session: SessionId(rand::random()),
            jitter: Arc::new(rand::random::<f64>),
            metrics: UplinkMetrics::register(registry),
        });
        Self { uplink, dead_letters }
    }

    /// Where status and metrics read how the uplink stands.
    pub(super) fn view(&self, settings: &Settings) -> admin::ReadUplink {
        let (uplink, dead_letters) = (self.uplink.clone(), self.dead_letters.clone());
        let url = settings.uplink.url.clone().unwrap_or_default();
        Arc::new(move || {
            let status = uplink.status();
            UplinkReport {
                connected: status.connected,
                seconds: status.seconds,
                url: url.clone(),
                last_error: status.last_error,
                incarnation: status.incarnation.0,
                dead_letters: dead_letters.report(),
            }
        })
    }
}

fn read_token(file: &Path) -> Result<String, Invalid> {
    let refused =
        |reason: String| Invalid::new("uplink.token_file", format!("{}: {reason}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| refused(error.to_string()))?;
    let token = text.trim();
    let expected = "it has to hold one token, as `robustmq-cloud edge add` printed it";
    let problem = match token {
        "" => "it is empty",
        _ if !token.starts_with(TOKEN_PREFIX) => "what it holds is no token",
        _ if token.contains(char::is_whitespace) => "it holds more than a token",
        _ => return Ok(token.to_owned()),
    };
    Err(refused(format!("{problem}; {expected} ({TOKEN_PREFIX}...)")))
}
