//! TLS configurations from PEM files (rustls with ring).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::StartError;

/// Where systems keep the certificates that they trust: Debian, Fedora, SUSE, Alpine.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Overrides [`SYSTEM_BUNDLES`], as in OpenSSL.
const BUNDLE_VARIABLE: &str = "SSL_CERT_FILE";

/// A server's configuration: TLS 1.2 and 1.3, no client certificates. `certificates` is the chain, leaf first; `key` is
/// PKCS #8, PKCS #1 or SEC 1. `alpn` names the protocols offered, preferred first (`b"h2"`, `b"http/1.1"`); none for
/// protocols that have no ALPN.
///
/// # Errors
/// [`StartError::Refused`] names the file that is not usable.
pub fn server_tls(
    certificates: &Path,
    key: &Path,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, StartError> {
    let chain = read_certificates(certificates)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| refused(key, &error))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| StartError::Failed(format!("TLS: {error}")))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| refused(certificates, &error))?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// A client's configuration: trusts the certificates in `ca`, or what the system trusts where there is none.
///
/// # Errors
/// As [`root_certificates`].
pub fn client_tls(ca: Option<&Path>, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, StartError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| StartError::Failed(format!("TLS: {error}")))?
        .with_root_certificates(root_certificates(ca)?)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// The certificates in the PEM file `ca`; without one, those that the system trusts (the file that `SSL_CERT_FILE`
/// names, or the distribution's bundle).
///
/// # Errors
/// [`StartError::Refused`] names the file that is not usable, or says where bundles were looked for.
pub fn root_certificates(ca: Option<&Path>) -> Result<RootCertStore, StartError> {
    let file = match ca {
        Some(file) => file.to_owned(),
        None => system_bundle()?,
    };
    let mut store = RootCertStore::empty();
    // A system's bundle may hold a certificate that rustls does not take; one that was named may not.
    let (_, refused_count) = store.add_parsable_certificates(read_certificates(&file)?);
    if store.is_empty() || (ca.is_some() && refused_count > 0) {
        return Err(refused(&file, &format!("{refused_count} certificates are not usable")));
    }
    Ok(store)
}

fn system_bundle() -> Result<PathBuf, StartError> {
    if let Some(file) = std::env::var_os(BUNDLE_VARIABLE) {
        return Ok(file.into());
    }
    let found = SYSTEM_BUNDLES.iter().map(Path::new).find(|file| file.is_file());
    found.map(Path::to_owned).ok_or_else(|| StartError::Refused {
        key: "trusted certificates".to_owned(),
        reason: format!(
            "none of {} exists; install the system's CA certificates, set {BUNDLE_VARIABLE}, or name a CA file",
            SYSTEM_BUNDLES.join(", ")
        ),
    })
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(file).and_then(|certificates| certificates.collect());
    let certificates = found.map_err(|error| refused(file, &error))?;
    if certificates.is_empty() {
        return Err(refused(file, &"it holds no certificate"));
    }
    Ok(certificates)
}

fn refused(file: &Path, reason: &impl ToString) -> StartError {
    StartError::Refused { key: file.display().to_string(), reason: reason.to_string() }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use rustls_pki_types::ServerName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::{client_tls, root_certificates, server_tls};
    use crate::net::StartError;

    fn file(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/net/testdata").join(name)
    }

    /// A handshake between both configurations; what the client and the server say about it, and the protocol chosen.
    async fn handshake(
        ca: &Path,
        server_alpn: &[&[u8]],
        client_alpn: &[&[u8]],
    ) -> Result<Option<Vec<u8>>, String> {
        let server = server_tls(&file("server.pem"), &file("server.key"), server_alpn)
            .expect("usable files");
        let client = client_tls(Some(ca), client_alpn).expect("a usable file");
        let (near, far) = tokio::io::duplex(64 * 1024);
        let accepted = tokio::spawn(async move {
            let mut stream = TlsAcceptor::from(server).accept(far).await?;
            stream.write_all(b"hello").await?;
            stream.shutdown().await
        });
        let name = ServerName::try_from("localhost").expect("a host name");
        let connected = TlsConnector::from(Arc::clone(&client)).connect(name, near).await;
        let mut stream = connected.map_err(|error| error.to_string())?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.map_err(|error| error.to_string())?;
        assert_eq!(text, "hello");
        accepted.await.expect("the server does not panic").map_err(|error| error.to_string())?;
        Ok(stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
    }

    #[tokio::test]
    async fn client_and_server_agree_on_a_protocol() {
        let chosen = handshake(&file("ca.pem"), &[b"h2", b"http/1.1"], &[b"http/1.1", b"h2"]).await;
        assert_eq!(chosen, Ok(Some(b"h2".to_vec())));
        assert_eq!(handshake(&file("ca.pem"), &[], &[]).await, Ok(None));
    }

    #[tokio::test]
    async fn a_server_that_another_authority_signed_is_refused() {
        // The server's own certificate is no authority for itself: it says CA:FALSE.
        let error = handshake(&file("server.pem"), &[], &[]).await.expect_err("not trusted");
        assert!(error.contains("invalid peer certificate"), "{error}");
    }

    #[test]
    fn files_that_are_not_usable_are_named() {
        let check = |what: &str, result: Result<(), StartError>, name: &str| {
            let error = result.expect_err(what);
            assert!(matches!(error, StartError::Refused { .. }), "{what}: {error}");
            assert!(error.to_string().contains(name), "{what}: {error}");
        };
        let server = |cert, key| server_tls(&file(cert), &file(key), &[]).map(drop);
        check("no such certificate", server("none.pem", "server.key"), "none.pem");
        check("no such key", server("server.pem", "none.key"), "none.key");
        check("a key is no certificate", server("server.key", "server.key"), "server.key");
        check("a certificate is no key", server("server.pem", "server.pem"), "server.pem");
        check("the key of another certificate", server("ca.pem", "server.key"), "ca.pem");
        check(
            "no certificate in it",
            root_certificates(Some(&file("generate"))).map(drop),
            "generate",
        );
    }
}
