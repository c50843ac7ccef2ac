//! Reads stores of keys and certificates: JKS, PKCS#12, PEM.

use super::{TlsError, jks};
use crate::config::{Store, StoreFormat};
use p12_keystore::{KeyStore, KeyStoreEntry, Pkcs12ImportPolicy};
use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::path::Path;

type Key = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The first key, with its certificates from its own on.
pub(super) fn key(store: &Store, file: &Path) -> Result<Key, TlsError> {
    read_store(store, file, |format, bytes, password| {
        let (chain, key) = match format {
            StoreFormat::Jks => key_of_jks(bytes, password),
            StoreFormat::Pkcs12 => key_of_pkcs12(bytes, password),
            StoreFormat::Pem => key_of_pem(bytes, password),
        }?;
        if chain.is_empty() {
            return Err("there is a key and no certificate for it".into());
        }
        Ok((chain, key))
    })
}

/// All certificates that vouch for others.
pub(super) fn trusted(store: &Store, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    read_store(store, file, |format, bytes, password| {
        let found = match format {
            StoreFormat::Jks => trusted_of_jks(bytes, password),
            StoreFormat::Pkcs12 => trusted_of_pkcs12(bytes, password),
            StoreFormat::Pem => certificates_of_pem(bytes),
        }?;
        if found.is_empty() { Err("there is no trusted certificate in it".into()) } else { Ok(found) }
    })
}

/// What `parse` makes of the store's format, bytes and password; its errors get the file's name.
fn read_store<T>(
    store: &Store,
    file: &Path,
    parse: impl FnOnce(StoreFormat, &[u8], &str) -> Result<T, String>,
) -> Result<T, TlsError> {
    let bytes = read(file)?;
    let password = password(store)?;
    let parsed = parse(format(store, file, &bytes)?, &bytes, &password);
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
fn format(store: &Store, file: &Path, bytes: &[u8]) -> Result<StoreFormat, TlsError> {
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
        None => {
            let what = "its name does not end in .jks, .p12 or .pem: say which it is (ssl.keyStore.type, ssl.trustStore.type)";
            Err(TlsError::Store { file: file.to_path_buf(), what: what.into() })
        }
    }
}

fn owned(certificate: &[u8]) -> CertificateDer<'static> {
    CertificateDer::from(certificate.to_vec())
}

fn pkcs8(key: Vec<u8>) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key))
}

const NO_KEY: &str = "there is no key in it";

fn key_of_jks(bytes: &[u8], password: &str) -> Result<Key, String> {
    for entry in jks::entries(bytes, password)? {
        if let jks::Entry::Key { hidden, chain } = entry {
            let chain = chain.into_iter().map(owned).collect();
            return Ok((chain, pkcs8(jks::reveal(hidden, password)?)));
        }
    }
    Err(NO_KEY.into())
}

fn trusted_of_jks(bytes: &[u8], password: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let trusted = |entry| match entry {
        jks::Entry::Trusted(certificate) => Some(owned(certificate)),
        jks::Entry::Key { .. } => None,
    };
    Ok(jks::entries(bytes, password)?.into_iter().filter_map(trusted).collect())
}

fn pkcs12(bytes: &[u8], password: &str) -> Result<KeyStore, String> {
    let read = KeyStore::from_pkcs12(bytes, password, Pkcs12ImportPolicy::Relaxed);
    read.map_err(|error| format!("the password is wrong, or this is no PKCS#12 file: {error}"))
}

fn key_of_pkcs12(bytes: &[u8], password: &str) -> Result<Key, String> {
    for (_, entry) in pkcs12(bytes, password)?.entries() {
        if let KeyStoreEntry::PrivateKeyChain(found) = entry {
            let chain = found.certs().iter().map(|certificate| owned(certificate.as_der())).collect();
            return Ok((chain, pkcs8(found.key().as_der().to_vec())));
        }
    }
    Err(NO_KEY.into())
}

fn trusted_of_pkcs12(bytes: &[u8], password: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let store = pkcs12(bytes, password)?;
    let mut found = Vec::new();
    for (_, entry) in store.entries() {
        if let KeyStoreEntry::Certificate(certificate) = entry {
            found.push(owned(certificate.as_der()));
        }
    }
    Ok(found)
}

fn certificates_of_pem(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(bytes).collect::<Result<_, _>>().map_err(|error| error.to_string())
}

fn key_of_pem(bytes: &[u8], password: &str) -> Result<Key, String> {
    let chain = certificates_of_pem(bytes)?;
    if let Ok(key) = PrivateKeyDer::from_pem_slice(bytes) {
        return Ok((chain, key));
    }
    let text = String::from_utf8_lossy(bytes);
    let (begin, end) = ("-----BEGIN ENCRYPTED PRIVATE KEY-----", "-----END ENCRYPTED PRIVATE KEY-----");
    let from = text.find(begin).ok_or(NO_KEY)?;
    let to = text[from..].find(end).ok_or("the key has no end")? + from + end.len();
    let (_, sealed) = pkcs8::SecretDocument::from_pem(&text[from..to]).map_err(|error| error.to_string())?;
    let sealed =
        EncryptedPrivateKeyInfoRef::try_from(sealed.as_bytes()).map_err(|error| error.to_string())?;
    let key = sealed.decrypt(password).map_err(|error| format!("the key can't be opened: {error}"))?;
    Ok((chain, pkcs8(key.as_bytes().to_vec())))
}
