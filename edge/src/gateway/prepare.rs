//! What the settings and the files that they name decide, before any directory or port is touched.
//!
//! **Invariant:** `serve` and `check-config` both come through here, so that neither takes what the other refuses.

use std::sync::Arc;

use robustmq_common::config::Invalid;
use robustmq_common::ids::EdgeId;
use robustmq_common::net;
use tokio_rustls::TlsAcceptor;

use super::route::Routes;
use super::upstream;
use super::users::Users;
use crate::settings::Settings;

/// What a gateway starts with.
pub(super) struct Prepared {
    pub edge_id: EdgeId,
    pub tls: Option<TlsAcceptor>,
    /// Absent: everybody may connect.
    pub users: Option<Arc<Users>>,
    pub routes: Arc<Routes>,
}

/// Whether a gateway with these settings would start, as far as they and the files that they name tell.
///
/// # Errors
/// [`Invalid`] names the setting, and the file where one is not usable.
pub fn check(settings: &Settings) -> Result<(), Invalid> {
    let prepared = Prepared::of(settings)?;
    upstream::transport(settings, &prepared.edge_id, []).map(drop)
}

impl Prepared {
    /// Reads the files, except those of the uplink.
    ///
    /// # Errors
    /// As [`check`].
    pub(super) fn of(settings: &Settings) -> Result<Self, Invalid> {
        let routes = Routes::new(&settings.routes, settings.uplink.url.is_some());
        let users = settings.mqtt.users_file.as_deref().map(Users::read).transpose()?;
        Ok(Self {
            edge_id: settings.resolve_edge_id()?,
            tls: mqtt_tls(settings)?,
            users: users.map(Arc::new),
            routes: Arc::new(
                routes.map_err(|error| Invalid::new("route.filter", error.to_string()))?,
            ),
        })
    }
}

fn mqtt_tls(settings: &Settings) -> Result<Option<TlsAcceptor>, Invalid> {
    let (Some(certificate), Some(key)) = (&settings.mqtt.tls_cert, &settings.mqtt.tls_key) else {
        return Ok(None);
    };
    // The reason names the file.
    let config = net::server_tls(certificate, key, &[]);
    let config = config.map_err(|error| Invalid::new("mqtt.tls_cert", error.to_string()))?;
    Ok(Some(TlsAcceptor::from(config)))
}
