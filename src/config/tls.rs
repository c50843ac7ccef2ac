//! What is set about TLS on the client ports: `secureClientPort`, `ssl.*`. Keys and certificates are in files, which the
//! server reads when it starts.

use super::ConfigError;
use super::value::{At, words};
use std::path::PathBuf;

/// A file of keys and certificates.
#[derive(Clone, Default)]
pub struct Store {
    pub file: Option<PathBuf>,
    pub password: Option<String>,
    /// Counts before `password`.
    pub password_file: Option<PathBuf>,
    /// What the file's name ends with, unless it is said.
    pub format: Option<StoreFormat>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFormat {
    Jks,
    Pem,
    Pkcs12,
}

/// Whether a client shows a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuth {
    None,
    Want,
    #[default]
    Need,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

/// `ssl.ciphersuites`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CipherSuites {
    pub place: String,
    /// As the standard calls them.
    pub names: Vec<String>,
}

#[derive(Debug, Clone, Default)]
pub struct Tls {
    pub port: Option<u16>,
    pub address: Option<String>,
    /// The other port takes TLS too (`client.portUnification`).
    pub on_client_port: bool,
    pub key_store: Store,
    pub trust_store: Store,
    pub client_auth: ClientAuth,
    /// Empty: both.
    pub versions: Vec<TlsVersion>,
    /// `None`: all that exist.
    pub cipher_suites: Option<CipherSuites>,
    /// The subject that may do everything (`X509AuthenticationProvider.superUser`).
    pub super_user: Option<String>,
}

impl Tls {
    pub fn is_on(&self) -> bool {
        self.port.is_some() || self.on_client_port
    }

    /// Takes one setting; false: it belongs elsewhere.
    pub(super) fn set(&mut self, at: &At<'_>) -> Result<bool, ConfigError> {
        let value = at.value.trim();
        match at.key {
            "secureClientPort" => self.port = Some(at.number(0..=65_535)?),
            "secureClientPortAddress" => self.address = Some(at.address()),
            "client.portUnification" => self.on_client_port = at.flag(),
            "ssl.clientAuth" => {
                self.client_auth = match value.to_ascii_lowercase().as_str() {
                    "none" => ClientAuth::None,
                    "want" => ClientAuth::Want,
                    "need" | "" => ClientAuth::Need,
                    _ => return Err(at.expected("none, want or need")),
                }
            }
            "ssl.protocol" | "ssl.enabledProtocols" => {
                // The list counts before the one.
                if at.key == "ssl.enabledProtocols" || self.versions.is_empty() {
                    self.versions = versions(at)?;
                }
            }
            "ssl.ciphersuites" => {
                self.cipher_suites = Some(CipherSuites { place: at.place.into(), names: words(value) })
            }
            "X509AuthenticationProvider.superUser" => self.super_user = Some(value.into()),
            key => {
                let store = match key.strip_prefix("ssl.keyStore.") {
                    Some(what) => Some((&mut self.key_store, what)),
                    None => key.strip_prefix("ssl.trustStore.").map(|what| (&mut self.trust_store, what)),
                };
                let Some((store, what)) = store else { return Ok(false) };
                match what {
                    "location" => store.file = Some(value.into()).filter(|_| !value.is_empty()),
                    "password" => store.password = Some(at.value.into()),
                    "passwordPath" => store.password_file = Some(value.into()).filter(|_| !value.is_empty()),
                    "type" => store.format = format(at)?,
                    _ => return Ok(false),
                }
            }
        }
        Ok(true)
    }
}

fn versions(at: &At<'_>) -> Result<Vec<TlsVersion>, ConfigError> {
    let mut versions = Vec::new();
    for name in words(at.value) {
        match name.as_str() {
            "TLSv1.3" => versions.push(TlsVersion::V1_3),
            "TLSv1.2" => versions.push(TlsVersion::V1_2),
            // What came before is broken: those who allow it beside a newer one get the newer one.
            "TLSv1" | "TLSv1.1" | "SSLv3" => {}
            _ => return Err(at.expected("TLSv1.2, TLSv1.3 or both")),
        }
    }
    if versions.is_empty() { Err(at.expected("TLSv1.2, TLSv1.3 or both")) } else { Ok(versions) }
}

fn format(at: &At<'_>) -> Result<Option<StoreFormat>, ConfigError> {
    match at.value.trim().to_ascii_uppercase().as_str() {
        "" => Ok(None),
        "JKS" => Ok(Some(StoreFormat::Jks)),
        "PEM" => Ok(Some(StoreFormat::Pem)),
        "PKCS12" => Ok(Some(StoreFormat::Pkcs12)),
        _ => Err(at.expected("JKS, PKCS12 or PEM")),
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("file", &self.file)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}
