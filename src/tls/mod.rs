//! TLS on the client ports: keys and trusted certificates out of the stores that a Java deployment has, and who a client is
//! by its certificate. rustls speaks the protocol.

mod jks;
mod name;
mod store;
#[cfg(test)]
mod tests;
mod trust;

pub use name::subject_of;

use crate::config::{ClientAuth, Tls, TlsVersion};
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{ClientHello, NoClientAuth, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedProtocolVersion};
use std::path::PathBuf;
use std::sync::Arc;
use trust::Trust;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("TLS: {key} is missing: {why}")]
    Missing { key: &'static str, why: &'static str },
    #[error("TLS: cannot read {}: {source}", file.display())]
    Unreadable { file: PathBuf, source: std::io::Error },
    #[error("TLS: {}: {what}", file.display())]
    Store { file: PathBuf, what: String },
    #[error("TLS: ssl.ciphersuites: none of {0} is there: {1}")]
    CipherSuites(String, String),
    #[error("TLS: {0}")]
    Library(#[from] rustls::Error),
}

/// What new connections begin with.
pub fn server_config(tls: &Tls) -> Result<Arc<ServerConfig>, TlsError> {
    let versions = versions(tls);
    let provider = Arc::new(provider(tls, &versions)?);
    let why = "it is the file of the server's key and certificates";
    let key_file = tls.key_store.file.clone();
    let key_file = key_file.ok_or(TlsError::Missing { key: "ssl.keyStore.location", why })?;
    let (chain, key) = store::key(&tls.key_store, &key_file)?;
    let wrong_key = |error: rustls::Error| TlsError::Store { file: key_file, what: error.to_string() };
    let key = provider.key_provider.load_private_key(key).map_err(wrong_key)?;

    let begun = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&versions)?;
    let begun = match tls.client_auth {
        ClientAuth::None => begun.with_client_cert_verifier(Arc::new(NoClientAuth)),
        asks => {
            let why =
                "it is the file of those who vouch for clients; with ssl.clientAuth=none none are asked";
            let file = tls.trust_store.file.clone();
            let file = file.ok_or(TlsError::Missing { key: "ssl.trustStore.location", why })?;
            let certificates = store::trusted(&tls.trust_store, &file)?;
            let trust = Trust::new(certificates, asks == ClientAuth::Need, &provider);
            begun.with_client_cert_verifier(Arc::new(trust.map_err(|what| TlsError::Store { file, what })?))
        }
    };
    // Not compared with its key here: the library reads no version 1 certificates.
    let identity = Identity(Arc::new(CertifiedKey::new(chain, key)));
    let mut config = begun.with_cert_resolver(Arc::new(identity));
    if tls.client_auth != ClientAuth::None {
        // Whoever takes up an earlier session is not asked for its certificate again, which may have expired since.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(Arc::new(config))
}

fn versions(tls: &Tls) -> Vec<&'static SupportedProtocolVersion> {
    if tls.versions.is_empty() {
        return rustls::ALL_VERSIONS.to_vec();
    }
    let version = |version: &TlsVersion| match version {
        TlsVersion::V1_2 => &rustls::version::TLS12,
        TlsVersion::V1_3 => &rustls::version::TLS13,
    };
    tls.versions.iter().map(version).collect()
}

fn provider(tls: &Tls, versions: &[&'static SupportedProtocolVersion]) -> Result<CryptoProvider, TlsError> {
    let mut provider = ring::default_provider();
    if let Some(names) = &tls.cipher_suites {
        let there: Vec<String> = provider.cipher_suites.iter().map(|suite| standard_name(*suite)).collect();
        provider.cipher_suites.retain(|suite| names.contains(&standard_name(*suite)));
        if provider.cipher_suites.is_empty() {
            return Err(TlsError::CipherSuites(names.join(", "), there.join(", ")));
        }
        let absent: Vec<&str> =
            names.iter().filter(|name| !there.contains(name)).map(String::as_str).collect();
        if !absent.is_empty() {
            let (absent, there) = (absent.join(", "), there.join(", "));
            tracing::warn!("ssl.ciphersuites: {absent} has no effect; there are {there}");
        }
        for version in versions {
            if !provider.cipher_suites.iter().any(|suite| suite.version() == *version) {
                tracing::warn!(
                    "ssl.ciphersuites: none of them is for {:?}: who speaks that alone is refused",
                    version.version
                );
            }
        }
    }
    Ok(provider)
}

/// As the standard and Java call it: the library has its own names for those of TLS 1.3.
fn standard_name(suite: rustls::SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replace("TLS13_", "TLS_")
}

/// The one certificate of this server, whatever name a client wants.
#[derive(Debug)]
struct Identity(Arc<CertifiedKey>);

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}
