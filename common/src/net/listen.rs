//! Listening: the loopback rule and the `ready` line.

use std::io::Write;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::StartError;

/// What decides whether a listener may be reached from other machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exposure {
    /// Whether clients of this listener have to prove who they are.
    pub authenticated: bool,
    /// Whether the configuration says `insecure = true`.
    pub insecure: bool,
}

/// The loopback rule: without authentication an address beyond loopback is refused unless `insecure` says so.
///
/// # Errors
/// [`StartError::Refused`], which names `key` (for example `[kafka] listen`) and says what to do.
pub fn check_exposure(
    key: &str,
    address: SocketAddr,
    exposure: Exposure,
) -> Result<(), StartError> {
    let reachable = !address.ip().to_canonical().is_loopback();
    if reachable && !exposure.authenticated && !exposure.insecure {
        return Err(StartError::Refused {
            key: key.to_owned(),
            reason: format!(
                "{address} can be reached from other machines and no authentication is configured; \
                 listen on 127.0.0.1, configure authentication, or set insecure = true"
            ),
        });
    }
    Ok(())
}

/// Listens on `address` after [`check_exposure`]. Port 0 picks a free port.
///
/// # Errors
/// [`StartError::Refused`] for the loopback rule, [`StartError::Listen`] when the system refuses (port taken).
pub async fn bind(
    key: &str,
    address: SocketAddr,
    exposure: Exposure,
) -> Result<TcpListener, StartError> {
    check_exposure(key, address, exposure)?;
    TcpListener::bind(address).await.map_err(|source| StartError::Listen {
        key: key.to_owned(),
        address,
        source,
    })
}

/// Writes `ready kafka=ADDR mqtt=ADDR ...` to standard output, as one line, when every listener is up. A reader that
/// went away is no reason to end.
pub fn announce_ready(listeners: &[(&str, SocketAddr)]) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = write_ready(&mut out, listeners) {
        tracing::warn!(%error, "standard output does not take the ready line");
    }
}

fn write_ready(out: &mut impl Write, listeners: &[(&str, SocketAddr)]) -> std::io::Result<()> {
    let mut line = String::from("ready");
    for (name, address) in listeners {
        line.push_str(&format!(" {name}={address}"));
    }
    line.push('\n');
    out.write_all(line.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::{Exposure, bind, check_exposure, write_ready};
    use crate::net::StartError;

    #[test]
    fn beyond_loopback_needs_authentication_or_insecure() {
        let check = |address: &str, authenticated, insecure, allowed: bool| {
            let address: SocketAddr = address.parse().expect("a socket address");
            let exposure = Exposure { authenticated, insecure };
            let result = check_exposure("[kafka] listen", address, exposure);
            assert_eq!(result.is_ok(), allowed, "{address} {exposure:?}");
        };
        check("127.0.0.1:9092", false, false, true);
        check("127.1.2.3:9092", false, false, true);
        check("[::1]:9092", false, false, true);
        check("[::ffff:127.0.0.1]:9092", false, false, true);
        check("0.0.0.0:9092", false, false, false);
        check("[::]:9092", false, false, false);
        check("192.0.2.1:9092", false, false, false);
        check("0.0.0.0:9092", true, false, true);
        check("0.0.0.0:9092", false, true, true);
    }

    #[tokio::test]
    async fn a_taken_port_is_a_failure_that_names_key_and_address() {
        let exposure = Exposure { authenticated: false, insecure: false };
        let free = "127.0.0.1:0".parse().expect("a socket address");
        let first = bind("[kafka] listen", free, exposure).await.expect("a free port");
        let taken = first.local_addr().expect("a bound socket");
        let error = bind("[mqtt] listen", taken, exposure).await.expect_err("the port is taken");
        assert!(matches!(error, StartError::Listen { .. }), "{error}");
        let text = error.to_string();
        assert!(text.starts_with(&format!("[mqtt] listen: cannot listen on {taken}: ")), "{text}");
    }

    #[test]
    fn the_ready_line_names_every_listener() {
        let mut out = Vec::new();
        let kafka = "127.0.0.1:9092".parse().expect("a socket address");
        let mqtt = "[::1]:1883".parse().expect("a socket address");
        write_ready(&mut out, &[("kafka", kafka), ("mqtt", mqtt)]).expect("a Vec takes all");
        assert_eq!(out, b"ready kafka=127.0.0.1:9092 mqtt=[::1]:1883\n");
    }
}
