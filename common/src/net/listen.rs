//! Listening: addresses, the loopback rule and the `ready` line.

use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};

use serde::{Deserialize, Deserializer};
use tokio::net::TcpListener;

use super::StartError;
use crate::config::Invalid;

/// What decides whether a listener may be reached from other machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exposure {
    /// Whether clients of this listener have to prove who they are.
    pub authenticated: bool,
    /// Whether the configuration says `insecure = true`.
    pub insecure: bool,
}

impl Exposure {
    /// The loopback rule: without authentication an address beyond loopback is refused unless `insecure` says so.
    fn check(self, address: SocketAddr) -> Result<(), String> {
        let reachable = !is_loopback(&address);
        if reachable && !self.authenticated && !self.insecure {
            return Err(format!(
                "{address} can be reached from other machines and no authentication is configured; \
                 listen on 127.0.0.1, configure authentication, or set insecure = true"
            ));
        }
        Ok(())
    }
}

fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// The loopback rule, for the validation of settings. `key` is dotted (`kafka.listen`).
///
/// # Errors
/// [`Invalid`], which says what to do.
pub fn check_exposure(key: &str, address: SocketAddr, exposure: Exposure) -> Result<(), Invalid> {
    exposure.check(address).map_err(|reason| Invalid::new(key, reason))
}

/// For `#[serde(deserialize_with)]`: an address to listen on, `IP:PORT`, or `NAME:PORT` for a name that means this machine
/// only, such as `localhost`. What any other name means is for somebody else to say, and may be another address tomorrow.
///
/// # Errors
/// What is wrong, and what would be right.
pub fn listen_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_listen_address(&text).map_err(serde::de::Error::custom)
}

fn parse_listen_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let form = || format!("{text:?} is no address to listen on: write IP:PORT or localhost:PORT");
    let (name, port) = text.rsplit_once(':').ok_or_else(form)?;
    let port: u16 = port.parse().map_err(|_| form())?;
    // Digits, dots and colons are a mistyped address, which no resolver should be asked about.
    if !name.contains(|character: char| character.is_ascii_alphabetic()) || name.contains(':') {
        return Err(form());
    }
    let found = (name, port).to_socket_addrs();
    let found: Vec<SocketAddr> =
        found.map_err(|error| format!("{text:?}: {name} cannot be resolved: {error}"))?.collect();
    if let Some(other) = found.iter().find(|address| !is_loopback(address)) {
        let other = other.ip();
        return Err(format!("{text:?}: {name} means {other}, beyond this machine: write the IP"));
    }
    // As 127.0.0.1, which is the default everywhere, where both are there.
    let preferred = found.iter().find(|address| address.is_ipv4()).or(found.first());
    preferred.copied().ok_or_else(|| format!("{text:?}: {name} has no address"))
}

/// Listens on `address` after the loopback rule. `key` is as it stands in the file (`[kafka] listen`). Port 0 picks a free
/// port.
///
/// # Errors
/// [`StartError::Refused`] for the loopback rule, [`StartError::Listen`] when the system refuses (port taken).
pub async fn bind(
    key: &str,
    address: SocketAddr,
    exposure: Exposure,
) -> Result<TcpListener, StartError> {
    exposure
        .check(address)
        .map_err(|reason| StartError::Refused { key: key.to_owned(), reason })?;
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

    use super::{Exposure, bind, check_exposure, parse_listen_address, write_ready};
    use crate::net::StartError;

    #[test]
    fn beyond_loopback_needs_authentication_or_insecure() {
        let check = |address: &str, authenticated, insecure, allowed: bool| {
            let address: SocketAddr = address.parse().expect("a socket address");
            let exposure = Exposure { authenticated, insecure };
            let result = check_exposure("kafka.listen", address, exposure);
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

    #[test]
    fn an_address_is_an_ip_or_a_name_that_means_this_machine() {
        let check = |text: &str, expected: Result<&str, &str>| match parse_listen_address(text) {
            Ok(address) => assert_eq!(Ok(address.to_string().as_str()), expected, "{text}"),
            Err(error) => {
                let part = expected.expect_err(text);
                assert!(error.contains(part) && error.contains(text), "{error}");
            }
        };
        check("127.0.0.1:1883", Ok("127.0.0.1:1883"));
        check("0.0.0.0:0", Ok("0.0.0.0:0"));
        check("[::1]:1883", Ok("[::1]:1883"));
        check("localhost:1883", Ok("127.0.0.1:1883"));
        check("localhost:0", Ok("127.0.0.1:0"));
        for wrong in ["localhost", "localhost:", "localhost:99999", ":1883", "1883", "", "::1:1"] {
            check(wrong, Err("IP:PORT"));
        }
        check("300.0.0.1:1883", Err("IP:PORT"));
        check("no-such-name.invalid:1883", Err("cannot be resolved"));
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
