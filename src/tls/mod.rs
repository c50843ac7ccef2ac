//! TLS on the client ports: keys and trusted certificates out of the stores that a Java deployment has, and who a client is
//! by its certificate. rustls speaks the protocol.

mod jks;
mod key;
mod name;
mod policies;
mod store;
#[cfg(test)]
mod tests;
mod trust;

pub use jks::JksError;
pub use key::KeyKind;
pub use name::subject_of;
pub use store::StoreError;

use self::store::Key;
use crate::config::{CipherSuites, ClientAuth, Tls, TlsVersion};
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{ClientHello, NoClientAuth, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ProtocolVersion, ServerConfig, SignatureScheme, SupportedProtocolVersion};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trust::Trust;
use x509_parser::prelude::{FromDer, X509Certificate};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("TLS: {key} is missing: {why}")]
    Missing { key: &'static str, why: &'static str },
    #[error("TLS: cannot read {}: {source}", file.display())]
    Unreadable { file: PathBuf, source: std::io::Error },
    #[error("TLS: {}: {what}", file.display())]
    Store { file: PathBuf, what: StoreError },
    /// What is configured would leave out clients that it lets in on Java.
    #[error("{place}: ssl.ciphersuites={names:?}: {}", missing_suites(version.as_ref(), there))]
    CipherSuites {
        place: String,
        names: String,
        /// The protocol that would have no suite; `None`: there would be none at all.
        version: Option<ProtocolVersion>,
        there: Vec<String>,
    },
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
    let identities = identities(store::keys(&tls.key_store, &key_file)?, &key_file, &provider)?;

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
            begun.with_client_cert_verifier(Arc::new(trust))
        }
    };
    let mut config = begun.with_cert_resolver(Arc::new(identities));
    if tls.client_auth != ClientAuth::None {
        // A client that resumes an earlier session is not asked for its certificate again, which may have expired since.
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
    let Some(CipherSuites { place, names }) = &tls.cipher_suites else { return Ok(provider) };
    let there: Vec<String> = provider.cipher_suites.iter().map(|suite| standard_name(*suite)).collect();
    provider.cipher_suites.retain(|suite| names.contains(&standard_name(*suite)));
    let refused = |version| {
        let (place, names, there) = (place.clone(), names.join(","), there.clone());
        Err(TlsError::CipherSuites { place, names, version, there })
    };
    if provider.cipher_suites.is_empty() {
        return refused(None);
    }
    let unknown: Vec<&String> = names.iter().filter(|name| !there.contains(name)).collect();
    for name in &unknown {
        tracing::warn!(
            "{place}: ssl.ciphersuites: {name} has no effect, it does not exist here; {} do",
            there.join(", ")
        );
    }
    for version in versions {
        if provider.cipher_suites.iter().any(|suite| suite.version() == *version) {
            continue;
        }
        if !unknown.is_empty() && !tls.versions.is_empty() {
            return refused(Some(version.version));
        }
        tracing::warn!(
            "{place}: ssl.ciphersuites names no suite of {:?}: clients that speak only that are refused",
            version.version
        );
    }
    Ok(provider)
}

fn missing_suites(version: Option<&ProtocolVersion>, there: &[String]) -> String {
    let there = there.join(", ");
    match version {
        None => format!("none of these suites exists here; expected some of {there}"),
        Some(version) => format!(
            "none of these suites is for {version:?}, which ssl.enabledProtocols turns on: clients that speak only that would \
             be refused. Take it out there, or name one of its suites: {there}"
        ),
    }
}

/// As the standard and Java call it: the library has its own names for those of TLS 1.3.
fn standard_name(suite: rustls::SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replace("TLS13_", "TLS_")
}

/// The keys that can be used, of those that the store has. At least one must be.
fn identities(keys: Vec<Key>, file: &Path, provider: &CryptoProvider) -> Result<Identities, TlsError> {
    let store = |what| TlsError::Store { file: file.into(), what };
    let mut usable = Vec::new();
    let mut unusable = Vec::new();
    for (chain, key) in keys {
        let kind = X509Certificate::from_der(&chain[0]).map(|(_, own)| KeyKind::of(own.public_key()));
        match provider.key_provider.load_private_key(key) {
            // Not compared with its certificate here: the library reads none of version 1.
            Ok(key) => usable.push(Arc::new(CertifiedKey::new(chain, key))),
            Err(error) => unusable.push(kind.map_or(StoreError::UnreadableKey(error), StoreError::Key)),
        }
    }
    if usable.is_empty() {
        return Err(store(unusable.swap_remove(0)));
    }
    for what in unusable {
        tracing::warn!("{}", store(what));
    }
    Ok(Identities(usable))
}

/// The certificates of this server, whatever name a client wants: the first one whose key the client can verify.
#[derive(Debug)]
struct Identities(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Identities {
    fn resolve(&self, client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let first = |schemes: &[SignatureScheme]| {
            self.0.iter().find(|one| one.key.choose_scheme(schemes).is_some()).cloned()
        };
        // TLS 1.3 has the old schemes of RSA for certificates alone, and the version is not decided yet.
        let all = client.signature_schemes();
        let newer: Vec<SignatureScheme> = all.iter().copied().filter(|scheme| !is_old(*scheme)).collect();
        // Where none fits the library says what the client lacks.
        first(&newer).or_else(|| first(all)).or_else(|| self.0.first().cloned())
    }
}

fn is_old(scheme: SignatureScheme) -> bool {
    use SignatureScheme as S;
    [S::RSA_PKCS1_SHA1, S::RSA_PKCS1_SHA256, S::RSA_PKCS1_SHA384, S::RSA_PKCS1_SHA512].contains(&scheme)
}

/// Why a connection ended, in words for the log.
pub fn why(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(refused)) => {
            format!("the client's certificate is refused: {refused}")
        }
        rustls::Error::InvalidCertificate(refused) => {
            format!("the client's certificate is refused: {refused}")
        }
        other => other.to_string(),
    }
}
