//! `[uplink] url`: what it may be, and what is said of anything else.
//!
//! **Invariant:** what may be a password or a token is not repeated: messages go to terminals and logs.

use axum::http::Uri;
use robustmq_common::limits;

/// Checks that it is `http://HOST:PORT` or `https://HOST:PORT`, and nothing more: what stood behind that was silently left
/// out of every request.
///
/// Without a port there are two answers, and each surprises somebody: that of URLs (80 and 443, where a proxy may stand before
/// the cloud) and that of the cloud itself (9440). So the port has to be written.
pub(super) fn check(url: &str) -> Result<(), String> {
    let Some((scheme, rest)) = url.split_once("://") else {
        let hint =
            format!("write \"http://{url}\", or \"https://{url}\" if the cloud has a certificate");
        return Err(if url.contains(['@', '/', '?']) || url.is_empty() {
            "it must be http://HOST:PORT or https://HOST:PORT".to_owned()
        } else {
            format!("{url:?} has no scheme; {hint}")
        });
    };
    if rest.contains('@') {
        return Err("it must not have a user or a password; the cloud takes a token (token_file)"
            .to_owned());
    }
    let (authority, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(format!(
            "its scheme must be http or https, not {scheme:?}: the uplink is HTTP also where devices speak MQTT; \
             write http://HOST:9440, or https://HOST:9440 if the cloud has a certificate"
        ));
    }
    if !matches!(behind, "" | "/") {
        let what = match behind.chars().find(|letter| matches!(letter, '?' | '#')) {
            Some('?') => "a query",
            Some(_) => "a fragment",
            None => "a path",
        };
        return Err(format!("it must not have {what}; write \"{scheme}://{authority}\""));
    }
    let parsed: Uri = format!("{scheme}://{authority}")
        .parse()
        .map_err(|error| format!("{url:?} is no URL: {error}"))?;
    let host = parsed.host().unwrap_or_default();
    if host.is_empty() {
        return Err(format!("{url:?} has no host; it must be {scheme}://HOST:PORT"));
    }
    match authority.strip_prefix(host).unwrap_or_default().strip_prefix(':') {
        None => Err(format!(
            "{url:?} has no port; the cloud listens on {port} unless its [uplink] listen says otherwise: write \
             \"{scheme}://{authority}:{port}\", or the port of the proxy in front of it",
            port = limits::UPLINK_PORT
        )),
        Some(port) => match port.parse::<u16>() {
            Ok(1..) => Ok(()),
            Ok(0) | Err(_) => {
                Err(format!("{url:?} has the port {port:?}, which is not between 1 and 65535"))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn host_and_port_are_taken() {
        for url in [
            "http://127.0.0.1:9440",
            "https://cloud.example.com:9440",
            "HTTP://cloud:9440",
            "http://[::1]:9440",
            "http://cloud:9440/",
            "https://cloud:443",
            "http://cloud_1:9440",
        ] {
            assert_eq!(check(url), Ok(()), "{url}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_to_write() {
        let refused = |url: &str, parts: &[&str]| {
            let reason = check(url).expect_err(url);
            for part in parts {
                assert!(reason.contains(part), "{url}: {reason:?} does not say {part:?}");
            }
            reason
        };
        refused("cloud:9440", &["no scheme", "\"http://cloud:9440\"", "\"https://cloud:9440\""]);
        refused("10.0.0.1", &["no scheme", "http://10.0.0.1"]);
        refused("", &["http://HOST:PORT"]);
        refused("mqtt://cloud:1883", &["http or https", "\"mqtt\"", "http://HOST:9440"]);
        refused("ws://cloud:9440/mqtt", &["http or https", "http://HOST:9440"]);
        refused("http://cloud:9440/v1", &["a path", "write \"http://cloud:9440\""]);
        refused("https://cloud:9440/?", &["a query", "write \"https://cloud:9440\""]);
        refused("https://cloud:9440#x", &["a fragment"]);
        refused("http://", &["no URL"]);
        refused("http://:9440", &["no"]);
        refused("http://clo ud:9440", &["no URL"]);
        refused("http://::1:9440", &["no URL"]);
        refused("http://cloud", &["no port", "9440", "write \"http://cloud:9440\""]);
        refused("https://cloud/", &["no port", "write \"https://cloud:9440\"", "proxy"]);
        refused("http://[::1]", &["no port", "write \"http://[::1]:9440\""]);
        refused("http://cloud:0", &["1 and 65535"]);
        refused("http://cloud:99440", &["1 and 65535"]);
        refused("http://cloud:", &["1 and 65535"]);
        for secret in [
            "http://gw:s3cret@cloud:9440",
            "https://gw:s3/cret@cloud:9440",
            "http://cloud:9440?token=s3cret",
            "gw:s3cret@cloud:9440",
        ] {
            let reason = refused(secret, &[]);
            assert!(!reason.contains("cret"), "{reason}");
        }
    }
}
