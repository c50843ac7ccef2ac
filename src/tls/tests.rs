//! Stores of Java's own format, whole and damaged. What clients see of TLS is in `compat-tests/client-port/test_tls.py`.

use super::jks::{Entry, JksError, entries, reveal};
use super::name::subject_of;
use crate::config::{CipherSuites, StoreFormat, Tls, TlsVersion};
use proptest::prelude::*;
use sha1::{Digest, Sha1};

const PASSWORD: &str = "pass";

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

fn block(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

/// A file of this content, with its digest.
fn sealed(content: &[u8]) -> Vec<u8> {
    let digest =
        Sha1::new().chain_update(utf16(PASSWORD)).chain_update(b"Mighty Aphrodite").chain_update(content);
    [content, &digest.finalize()[..]].concat()
}

/// One trusted certificate and one key with one certificate.
fn content() -> Vec<u8> {
    let head = |tag: u32| [&tag.to_be_bytes()[..], b"\0\x01a", &[0; 8]].concat();
    let certificate = |bytes: &[u8]| [&b"\0\x05X.509"[..], &block(bytes)].concat();
    let store = [0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0, 0, 0, 2];
    let key = [head(1), block(&hidden(b"the key")), vec![0, 0, 0, 1], certificate(b"own")].concat();
    [&store[..], &head(2), &certificate(b"trusted"), &key].concat()
}

/// A key as Java hides it: salt, key and stream, check.
fn hidden(key: &[u8]) -> Vec<u8> {
    let (salt, password) = ([7; 20], utf16(PASSWORD));
    let stream = Sha1::new().chain_update(&password).chain_update(salt).finalize();
    let masked: Vec<u8> = key.iter().zip(&stream).map(|(key, stream)| key ^ stream).collect();
    let check = Sha1::new().chain_update(&password).chain_update(key).finalize();
    let octets = [&salt[..], &masked, &check].concat();
    let algorithm =
        [0x30, 0x0e, 0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x2a, 0x02, 0x11, 0x01, 0x01, 5, 0];
    [&[0x30, 0x41][..], &algorithm, &[0x04, octets.len() as u8], &octets].concat()
}

#[test]
fn a_jks_file_gives_its_entries() {
    let file = sealed(&content());
    let found = entries(&file, PASSWORD).unwrap();
    let [Entry::Trusted(b"trusted"), Entry::Key { hidden, chain }] = &found[..] else { panic!("{found:?}") };
    assert_eq!(chain[..], [b"own"]);
    assert_eq!(reveal(hidden, PASSWORD).unwrap(), b"the key");
    assert_eq!(reveal(hidden, "another"), Err(JksError::KeyPassword));
    assert_eq!(entries(&file, "another"), Err(JksError::Password));
}

#[test]
fn a_jks_file_that_is_cut_short_is_an_error() {
    let whole = content();
    for len in 0..whole.len() {
        assert!(entries(&sealed(&whole[..len]), PASSWORD).is_err(), "{len}");
    }
    for len in 0..20 {
        assert!(entries(&whole[..len], PASSWORD).is_err(), "{len}");
    }
}

#[test]
fn a_store_that_is_not_there_is_named() {
    let mut tls = Tls::default();
    let said = |tls: &Tls| super::server_config(tls).unwrap_err().to_string();
    assert!(said(&tls).contains("ssl.keyStore.location is missing"));
    tls.key_store.file = Some("/no/such/keys.jks".into());
    assert!(said(&tls).contains("/no/such/keys.jks"));
    tls.key_store.format = Some(StoreFormat::Pem);
}

#[test]
fn each_protocol_that_is_asked_for_has_a_suite() {
    let suites = |names: &[&str], versions: &[TlsVersion]| {
        let names = names.iter().map(|name| (*name).into()).collect();
        let place = "zoo.cfg:3".into();
        let cipher_suites = Some(CipherSuites { place, names });
        let tls = Tls { cipher_suites, versions: versions.into(), ..Tls::default() };
        super::server_config(&tls).unwrap_err().to_string()
    };
    let (of_1_3, cbc) = ("TLS_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256");
    let both = [TlsVersion::V1_3, TlsVersion::V1_2];
    let served = "ssl.keyStore.location is missing";
    assert!(suites(&[of_1_3, cbc], &[]).contains(served), "nothing asks for TLS 1.2");
    assert!(suites(&[of_1_3], &both).contains(served), "no suite of TLS 1.2 is meant");
    let refused = suites(&[of_1_3, cbc], &both);
    let place =
        format!("zoo.cfg:3: ssl.ciphersuites=\"{of_1_3},{cbc}\": none of these suites is for TLSv1_2");
    assert!(
        refused.starts_with(&place) && refused.contains("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
        "{refused}"
    );
    assert!(suites(&[cbc], &[]).contains("none of these suites exists here"));
}

proptest! {
    #[test]
    fn no_bytes_are_too_wild(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0..300_usize, to: u8) {
        let _ = entries(&bytes, PASSWORD);
        let _ = entries(&sealed(&bytes), PASSWORD);
        let _ = reveal(&bytes, PASSWORD);
        let _ = subject_of(&bytes);
        bytes = content();
        let at = at % bytes.len();
        bytes[at] = to;
        if let Ok(found) = entries(&sealed(&bytes), PASSWORD) {
            for entry in found {
                if let Entry::Key { hidden, .. } = entry {
                    let _ = reveal(hidden, PASSWORD);
                }
            }
        }
    }
}
