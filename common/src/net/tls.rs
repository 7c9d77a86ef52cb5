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
