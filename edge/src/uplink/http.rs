//! The product's transport: HTTP/2 through reqwest, a connection of its own for each lane.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Url};
use robustmq_common::ids::{EdgeId, LaneId};
use robustmq_common::limits;
use robustmq_common::net::client_tls;

use super::transport::{Call, Transport, TransportError};

/// How the cloud is reached.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub url: String,
    /// The edge's id.
    pub edge: EdgeId,
    /// The token that `robustmq-cloud edge add` printed.
    pub token: Option<String>,
    /// A token may go over plain HTTP to another machine (`insecure = true`: inside a trusted network).
    pub insecure: bool,
    /// How long to wait for an answer.
    pub timeout: Duration,
}

/// Why the transport cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum HttpSetupError {
    /// The URL is none, or none of this kind.
    #[error("{url:?} must be http://HOST:PORT or https://HOST:PORT")]
    Url {
        /// What was given.
        url: String,
    },
    /// The token would be readable on its way.
    #[error(
        "a token is not sent over plain http to {host}; use https, or insecure = true inside a trusted network"
    )]
    TokenInTheClear {
        /// The cloud's host.
        host: String,
    },
    /// The token has characters that no token has.
    #[error("the token has characters that a token cannot have")]
    Token,
    /// TLS or the client cannot be set up.
    #[error("{0}")]
    Client(String),
}

impl HttpSetupError {
    /// The setting that is at fault.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::Url { .. } | Self::TokenInTheClear { .. } => "uplink.url",
            Self::Token => "uplink.token_file",
            Self::Client(_) => "uplink.ca_file",
        }
    }
}

/// Carries requests over HTTP.
pub struct HttpTransport {
    base: Url,
    authorization: Option<HeaderValue>,
    /// Hellos and heartbeats have a connection of their own: a long batch must not delay them.
    control: Client,
    lanes: BTreeMap<LaneId, Client>,
}

impl HttpTransport {
    /// A transport for these lanes. Nothing is connected yet. `ca` names the certificates to trust instead of the system's.
    ///
    /// # Errors
    /// [`HttpSetupError`] names the setting.
    pub fn new(
        settings: &HttpSettings,
        ca: Option<&Path>,
        lanes: impl IntoIterator<Item = LaneId>,
    ) -> Result<Self, HttpSetupError> {
        let wrong = || HttpSetupError::Url { url: settings.url.clone() };
        let url = Url::parse(&settings.url).map_err(|_| wrong())?;
        let host = url.host_str().ok_or_else(wrong)?.to_owned();
        let plain = match url.scheme() {
            "http" => true,
            "https" => false,
            _ => return Err(wrong()),
        };
        if plain && settings.token.is_some() && !settings.insecure && !is_loopback(&host) {
            return Err(HttpSetupError::TokenInTheClear { host });
        }
        let base = url.join(&format!("/v1/edges/{}/", settings.edge)).map_err(|_| wrong())?;
        let authorization = settings.token.as_deref().map(bearer).transpose()?;
        let tls = if plain { no_tls()? } else { tls(ca)? };
        let client = || client(settings, plain, &tls);
        let lanes = lanes.into_iter().map(|lane| Ok((lane, client()?)));
        Ok(Self {
            base,
            authorization,
            control: client()?,
            lanes: lanes.collect::<Result<_, _>>()?,
        })
    }

    fn route(&self, call: Call) -> (&Client, String) {
        match call {
            Call::Hello => (&self.control, "hello".to_owned()),
            Call::Heartbeat => (&self.control, "heartbeat".to_owned()),
            Call::Batch(lane) => {
                let client = self.lanes.get(&lane).unwrap_or(&self.control);
                (client, format!("lanes/{lane}/batches"))
            }
        }
    }
}

fn bearer(token: &str) -> Result<HeaderValue, HttpSetupError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
        .map_err(|_| HttpSetupError::Token)?;
    value.set_sensitive(true);
    Ok(value)
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn tls(ca: Option<&Path>) -> Result<rustls::ClientConfig, HttpSetupError> {
    let config = client_tls(ca, &[b"h2", b"http/1.1"])
        .map_err(|error| HttpSetupError::Client(error.to_string()))?;
    Ok(config.as_ref().clone())
}

/// What the client wants to have even if it never speaks TLS: one that trusts nobody.
fn no_tls() -> Result<rustls::ClientConfig, HttpSetupError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| HttpSetupError::Client(error.to_string()))?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Ok(config)
}

fn client(
    settings: &HttpSettings,
    plain: bool,
    tls: &rustls::ClientConfig,
) -> Result<Client, HttpSetupError> {
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .timeout(settings.timeout)
        .connect_timeout(limits::UPLINK_CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(1)
        .http2_initial_stream_window_size(limits::UPLINK_EDGE_WINDOW_BYTES)
        .http2_initial_connection_window_size(limits::UPLINK_EDGE_WINDOW_BYTES)
        .http2_keep_alive_interval(limits::HTTP_KEEP_ALIVE)
        .http2_keep_alive_timeout(limits::UPLINK_CONNECT_TIMEOUT)
        .tcp_nodelay(true);
    if plain {
        builder = builder.http2_prior_knowledge();
    }
    builder.build().map_err(|error| HttpSetupError::Client(error.to_string()))
}

#[async_trait]
impl Transport for HttpTransport {
    async fn call(&self, call: Call, frame: Bytes) -> Result<Bytes, TransportError> {
        let (client, path) = self.route(call);
        let url = self
            .base
            .join(&path)
            .map_err(|error| TransportError::Unreachable(error.to_string()))?;
        let mut request = client
            .post(url)
            .header(CONTENT_TYPE, "application/x-robustmq-sync")
            .body(reqwest::Body::from(frame));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let mut response = request.send().await.map_err(broken)?;
        let mut answer = BytesMut::new();
        while let Some(part) = response.chunk().await.map_err(broken)? {
            if answer.len().saturating_add(part.len()) > limits::SYNC_ANSWER_BYTES {
                let status = response.status();
                return Err(TransportError::NotTheCloud(format!("an endless answer, {status}")));
            }
            answer.extend_from_slice(&part);
        }
        Ok(answer.freeze())
    }
}

fn broken(error: reqwest::Error) -> TransportError {
    // Without a connection nothing was too slow: the cloud is not there.
    if error.is_timeout() && !error.is_connect() {
        return TransportError::Timeout;
    }
    // reqwest's own message names the URL only; what went wrong is in its sources.
    let error = error.without_url();
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(deeper) = source {
        reason = format!("{reason}: {deeper}");
        source = deeper.source();
    }
    TransportError::Unreachable(reason)
}

#[cfg(test)]
mod tests {
    use super::{EdgeId, HttpSettings, HttpSetupError, HttpTransport, LaneId};

    fn set_up(url: &str, token: Option<&str>, insecure: bool) -> Result<(), HttpSetupError> {
        let settings = HttpSettings {
            url: url.to_owned(),
            edge: EdgeId::new("gw").expect("a legal name"),
            token: token.map(str::to_owned),
            insecure,
            timeout: std::time::Duration::from_secs(1),
        };
        HttpTransport::new(&settings, None, [LaneId(0)]).map(drop)
    }

    #[test]
    fn a_token_goes_over_plain_http_to_loopback_only() {
        let check = |url: &str, token, insecure, expected| {
            assert_eq!(set_up(url, token, insecure).is_ok(), expected, "{url}");
        };
        let token = Some("rmq_0");
        check("http://127.0.0.1:9440", token, false, true);
        check("http://localhost:9440", token, false, true);
        check("http://[::1]:9440", token, false, true);
        check("http://cloud.example:9440", token, false, false);
        check("http://10.0.0.1:9440", token, false, false);
        check("http://10.0.0.1:9440", token, true, true);
        check("http://10.0.0.1:9440", None, false, true);
        check("ftp://127.0.0.1", token, false, false);
        check("cloud", token, false, false);
        check("http://127.0.0.1:9440", Some("a\nb"), false, false);
    }
}
