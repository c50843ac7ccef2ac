//! Reads stores of keys and certificates: JKS, PKCS#12, PEM.

use super::TlsError;
use super::jks::{self, JksError};
use super::key::{KeyKind, SIGNING};
use crate::config::{Store, StoreFormat};
use p12_keystore::{KeyStore, KeyStoreEntry, Pkcs12ImportPolicy};
use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::path::Path;

/// Certificates from the key's own on, and the key.
pub(super) type Key = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Why a store does not give what is wanted of it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Jks(#[from] JksError),
    #[error("the password is wrong, or this is no PKCS#12 file: {0}")]
    Pkcs12(#[from] p12_keystore::error::Error),
    #[error("this is no PEM file: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("the key is no PKCS#8 key: {0}")]
    Pkcs8(#[from] pkcs8::der::Error),
    #[error("the key can't be opened: {0}")]
    Sealed(#[from] pkcs8::Error),
    #[error("the key has no end")]
    KeyWithoutEnd,
    #[error("there is no key in it")]
    NoKey,
    #[error("there is a key and no certificate for it")]
    NoCertificate,
    #[error("there is no trusted certificate in it")]
    NoTrusted,
    #[error(
        "its name does not end in .jks, .p12 or .pem: say which it is (ssl.keyStore.type, ssl.trustStore.type)"
    )]
    UnknownFormat,
    #[error("the key can't be used: {0}; {SIGNING}")]
    Key(KeyKind),
    #[error("the key can't be used: {0}")]
    UnreadableKey(rustls::Error),
}

/// All keys. A file of PEM has one.
pub(super) fn keys(store: &Store, file: &Path) -> Result<Vec<Key>, TlsError> {
    read_store(store, file, |format, bytes, password| {
        let keys = match format {
            StoreFormat::Jks => keys_of_jks(bytes, password)?,
            StoreFormat::Pkcs12 => keys_of_pkcs12(bytes, password)?,
            StoreFormat::Pem => vec![key_of_pem(bytes, password)?],
        };
        if keys.is_empty() {
            return Err(StoreError::NoKey);
        }
        if keys.iter().any(|(chain, _)| chain.is_empty()) {
            return Err(StoreError::NoCertificate);
        }
        Ok(keys)
    })
}

/// All certificates that vouch for others.
pub(super) fn trusted(store: &Store, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    read_store(store, file, |format, bytes, password| {
        let found = match format {
            StoreFormat::Jks => trusted_of_jks(bytes, password)?,
            StoreFormat::Pkcs12 => trusted_of_pkcs12(bytes, password)?,
            StoreFormat::Pem => certificates_of_pem(bytes)?,
        };
        if found.is_empty() { Err(StoreError::NoTrusted) } else { Ok(found) }
    })
}

/// What `parse` makes of the store's format, bytes and password; its errors get the file's name.
fn read_store<T>(
    store: &Store,
    file: &Path,
    parse: impl FnOnce(StoreFormat, &[u8], &str) -> Result<T, StoreError>,
) -> Result<T, TlsError> {
    let bytes = read(file)?;
    let password = password(store)?;
    let parsed = format(store, file, &bytes).and_then(|format| parse(format, &bytes, &password));
    parsed.map_err(|what| TlsError::Store { file: file.to_path_buf(), what })
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(file).map_err(|source| TlsError::Unreadable { file: file.to_path_buf(), source })
}

fn password(store: &Store) -> Result<String, TlsError> {
    match &store.password_file {
        Some(file) => Ok(String::from_utf8_lossy(&read(file)?).trim_end_matches(['\r', '\n']).to_string()),
        None => Ok(store.password.clone().unwrap_or_default()),
    }
}

/// What is said, or what the file's name says. Java reads either of its two formats where one is named.
fn format(store: &Store, file: &Path, bytes: &[u8]) -> Result<StoreFormat, StoreError> {
    let by_name = || match file.extension()?.to_str()? {
        "jks" => Some(StoreFormat::Jks),
        "p12" => Some(StoreFormat::Pkcs12),
        "pem" => Some(StoreFormat::Pem),
        _ => None,
    };
    match store.format.or_else(by_name) {
        Some(StoreFormat::Pem) => Ok(StoreFormat::Pem),
        Some(_) if bytes.starts_with(&jks::MAGIC) => Ok(StoreFormat::Jks),
        Some(_) => Ok(StoreFormat::Pkcs12),
        None => Err(StoreError::UnknownFormat),
    }
}

fn owned(certificate: &[u8]) -> CertificateDer<'static> {
    CertificateDer::from(certificate.to_vec())
}

fn pkcs8(key: Vec<u8>) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key))
}

fn keys_of_jks(bytes: &[u8], password: &str) -> Result<Vec<Key>, StoreError> {
    let mut keys = Vec::new();
    for entry in jks::entries(bytes, password)? {
        if let jks::Entry::Key { hidden, chain } = entry {
            let chain = chain.into_iter().map(owned).collect();
            keys.push((chain, pkcs8(jks::reveal(hidden, password)?)));
        }
    }
    Ok(keys)
}

fn trusted_of_jks(bytes: &[u8], password: &str) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let trusted = |entry| match entry {
        jks::Entry::Trusted(certificate) => Some(owned(certificate)),
        jks::Entry::Key { .. } => None,
    };
    Ok(jks::entries(bytes, password)?.into_iter().filter_map(trusted).collect())
}

fn pkcs12(bytes: &[u8], password: &str) -> Result<KeyStore, StoreError> {
    Ok(KeyStore::from_pkcs12(bytes, password, Pkcs12ImportPolicy::Relaxed)?)
}

fn keys_of_pkcs12(bytes: &[u8], password: &str) -> Result<Vec<Key>, StoreError> {
    let mut keys = Vec::new();
    for (_, entry) in pkcs12(bytes, password)?.entries() {
        if let KeyStoreEntry::PrivateKeyChain(found) = entry {
            let chain = found.certs().iter().map(|certificate| owned(certificate.as_der())).collect();
            keys.push((chain, pkcs8(found.key().as_der().to_vec())));
        }
    }
    Ok(keys)
}

fn trusted_of_pkcs12(bytes: &[u8], password: &str) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let store = pkcs12(bytes, password)?;
    let mut found = Vec::new();
    for (_, entry) in store.entries() {
        if let KeyStoreEntry::Certificate(certificate) = entry {
            found.push(owned(certificate.as_der()));
        }
    }
    Ok(found)
}

fn certificates_of_pem(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    Ok(CertificateDer::pem_slice_iter(bytes).collect::<Result<_, _>>()?)
}

fn key_of_pem(bytes: &[u8], password: &str) -> Result<Key, StoreError> {
    let chain = certificates_of_pem(bytes)?;
    if let Ok(key) = PrivateKeyDer::from_pem_slice(bytes) {
        return Ok((chain, key));
    }
    let text = String::from_utf8_lossy(bytes);
    let (begin, end) = ("-----BEGIN ENCRYPTED PRIVATE KEY-----", "-----END ENCRYPTED PRIVATE KEY-----");
    let from = text.find(begin).ok_or(StoreError::NoKey)?;
    let to = text[from..].find(end).ok_or(StoreError::KeyWithoutEnd)? + from + end.len();
    let (_, sealed) = pkcs8::SecretDocument::from_pem(&text[from..to])?;
    let key = EncryptedPrivateKeyInfoRef::try_from(sealed.as_bytes())?.decrypt(password)?;
    Ok((chain, pkcs8(key.as_bytes().to_vec())))
}
