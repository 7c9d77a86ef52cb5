//! Sets the uplink up: the queue on one side, the cloud on the other.

use std::path::Path;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use robustmq_common::ids::EdgeId;
use robustmq_common::limits;
use robustmq_common::net::StartError;
use robustmq_common::sync::SessionId;

use crate::admin::{self, UplinkReport};
use crate::queue::Queue;
use crate::settings::Settings;
use crate::uplink::{
    DeadLetterFile, HttpSettings, HttpTransport, Uplink, UplinkMetrics, UplinkParts, UplinkSettings,
};

/// The uplink to the cloud at `[uplink] url`, not running yet; `None` without one.
pub(super) fn uplink(
    settings: &Settings,
    edge: EdgeId,
    queue: &Queue,
    registry: &mut Registry,
) -> Result<Option<Uplink>, StartError> {
    let Some(url) = &settings.uplink.url else { return Ok(None) };
    let refused = |reason: String| StartError::Refused { key: "[uplink]".to_owned(), reason };
    let token = settings.uplink.token_file.as_deref().map(read_token).transpose()?;
    let http = HttpSettings {
        url: url.clone(),
        edge,
        token,
        insecure: settings.insecure,
        timeout: limits::UPLINK_TIMEOUT,
    };
    let ca = settings.uplink.ca_file.as_deref();
    let transport =
        HttpTransport::new(&http, ca, queue.lanes()).map_err(|error| refused(error.to_string()))?;
    Ok(Some(Uplink::new(UplinkParts {
        backlog: Arc::new(queue.clone()),
        transport: Arc::new(transport),
        dead_letters: Arc::new(DeadLetterFile::in_dir(&settings.data_dir)),
        settings: UplinkSettings {
            batch_bytes: settings.uplink.batch_bytes,
            linger: settings.linger(),
            bytes_per_second: settings.uplink.max_bytes_per_second,
            ..UplinkSettings::default()
        },
        session: SessionId(rand::random()),
        jitter: Arc::new(rand::random::<f64>),
        metrics: UplinkMetrics::register(registry),
    })))
}

/// Where status and metrics read how the uplink stands.
pub(super) fn view(uplink: &Uplink, settings: &Settings) -> admin::ReadUplink {
    let uplink = uplink.clone();
    let url = settings.uplink.url.clone().unwrap_or_default();
    Arc::new(move || {
        let status = uplink.status();
        UplinkReport {
            connected: status.connected,
            seconds: status.seconds,
            url: url.clone(),
            last_error: status.last_error,
            incarnation: status.incarnation.0,
        }
    })
}

fn read_token(file: &Path) -> Result<String, StartError> {
    let refused = |reason: String| StartError::Refused {
        key: "[uplink] token_file".to_owned(),
        reason: format!("{}: {reason}", file.display()),
    };
    let text = std::fs::read_to_string(file).map_err(|error| refused(error.to_string()))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(refused("it is empty".to_owned()));
    }
    Ok(token.to_owned())
}
