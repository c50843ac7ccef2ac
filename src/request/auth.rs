//! The auth packet: which ids it adds to a connection (`server/auth/*AuthenticationProvider`).

use super::{Rules, X509Scheme};
use crate::jute::records::Id;
use crate::model::{DigestAlgorithm, text};
use crate::tree::Tree;
use crate::wire::quorum::{MAX_CLIENT_ID_BYTES, MAX_CLIENT_IDS, id_len};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use sha1::{Digest, Sha1};
use sha2::{Sha224, Sha256, Sha384, Sha512};
use sha3::{Sha3_224, Sha3_256, Sha3_384, Sha3_512};
use std::net::IpAddr;
use std::sync::Arc;

/// A connection would be known by more than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{count} identities of {bytes} bytes together, and a connection may have {MAX_CLIENT_IDS} of {MAX_CLIENT_ID_BYTES} bytes"
)]
pub struct TooManyIds {
    pub count: usize,
    /// As they are in a request that is forwarded.
    pub bytes: usize,
}

/// The ids of a connection that had `have` and has proved `more`; `None`: nothing is new.
pub fn with_ids(have: &[Id<Bytes>], more: Vec<Id<Bytes>>) -> Result<Option<Arc<[Id<Bytes>]>>, TooManyIds> {
    let new: Vec<_> = more.into_iter().filter(|id| !have.contains(id)).collect();
    if new.is_empty() {
        return Ok(None);
    }
    let count = have.len() + new.len();
    let bytes = have.iter().chain(&new).map(id_len).sum();
    if count > MAX_CLIENT_IDS || bytes > MAX_CLIENT_ID_BYTES {
        return Err(TooManyIds { count, bytes });
    }
    Ok(Some(have.iter().cloned().chain(new).collect()))
}

/// The id that every connection starts with.
pub fn ip_id(address: IpAddr) -> Id<Bytes> {
    // Java writes an IPv6 address with all its groups.
    let text = match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => address.segments().map(|group| format!("{group:x}")).join(":"),
    };
    Id { scheme: Bytes::from_static(b"ip"), id: text.into_bytes().into() }
}

/// Whether the auth packet's `scheme` is there.
pub fn knows(scheme: &[u8], rules: &Rules) -> bool {
    match scheme {
        b"ip" => true,
        b"digest" => rules.digest_auth.is_some(),
        b"key" => rules.key_auth,
        _ => false,
    }
}

/// The ids that `scheme` with `data` proves; `None`: refused.
pub fn ids_for(
    scheme: &[u8],
    data: &[u8],
    address: IpAddr,
    rules: &Rules,
    tree: &Tree,
) -> Option<Vec<Id<Bytes>>> {
    match scheme {
        b"ip" => Some(vec![ip_id(address)]),
        b"digest" => {
            let digest = digest_id(data, rules.digest_auth?);
            let mut ids = Vec::new();
            if rules.super_digest.as_deref() == Some(&digest[..]) {
                ids.push(Id { scheme: Bytes::from_static(b"super"), id: Bytes::new() });
            }
            ids.push(Id { scheme: Bytes::from_static(b"digest"), id: digest.into() });
            Some(ids)
        }
        b"key" if rules.key_auth => {
            let key = tree.find(b"/key").map(|key| tree.data(key).unwrap_or_default());
            is_multiple(data, key).then(|| vec![Id { scheme: Bytes::from_static(b"key"), id: Bytes::new() }])
        }
        _ => None,
    }
}

/// The example of a provider that ZooKeeper comes with (`KeyAuthenticationProvider`): as long as there is no key,
/// everyone may come and set one. Java calls its ids nothing too.
fn is_multiple(data: &[u8], key: Option<&[u8]>) -> bool {
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<i32>().ok();
    let Some(key) = key else { return true };
    match (number(key), number(data)) {
        (Some(key), Some(data)) => key == 0 || data.wrapping_rem(key) == 0,
        _ => false,
    }
}

/// The ids of a user who has logged in by SASL. The name that was proved counts, not another that the client asks to act
/// as, and not what Kerberos rules would make of it.
pub fn sasl_ids(user: &str, super_users: &[String]) -> Vec<Id<Bytes>> {
    let mut ids = vec![Id { scheme: Bytes::from_static(b"sasl"), id: user.to_string().into() }];
    if super_users.iter().any(|name| name == user) {
        ids.push(Id { scheme: Bytes::from_static(b"super"), id: Bytes::new() });
    }
    ids
}

/// The ids of a client that has shown a certificate of this subject. Who may do everything is `super` by its name, as with Java.
pub fn x509_ids(subject: String, scheme: &X509Scheme) -> Vec<Id<Bytes>> {
    let id = Bytes::from(subject);
    let mut ids = Vec::new();
    if scheme.super_user.as_deref().is_some_and(|name| id == name) {
        ids.push(Id { scheme: Bytes::from_static(b"super"), id: id.clone() });
    }
    ids.push(Id { scheme: Bytes::from_static(b"x509"), id });
    ids
}

/// What a client's word for the ensemble that it means comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnsembleCheck {
    /// One of the two says no name.
    Skipped,
    Ours,
    Another,
}

/// The scheme `ensemble` proves nothing: a client says which ensemble it means to speak to
/// (`EnsembleAuthenticationProvider`).
pub fn check_ensemble(name: &[u8], names: &[String]) -> EnsembleCheck {
    if name.is_empty() || names.is_empty() {
        EnsembleCheck::Skipped
    } else if names.iter().any(|ours| ours.as_bytes() == name) {
        EnsembleCheck::Ours
    } else {
        EnsembleCheck::Another
    }
}

/// `user:password` → `user:base64(hash(user:password))`, of the bytes that Java's string of them has.
pub fn digest_id(user_and_password: &[u8], algorithm: DigestAlgorithm) -> Vec<u8> {
    let user = user_and_password.split(|b| *b == b':').next().unwrap_or_default();
    let hash = STANDARD.encode(hash(&text::as_java_holds(user_and_password), algorithm));
    [&text::as_java_reads(user), &b":"[..], hash.as_bytes()].concat()
}

fn hash(data: &[u8], algorithm: DigestAlgorithm) -> Vec<u8> {
    match algorithm {
        DigestAlgorithm::Sha1 => Sha1::digest(data).to_vec(),
        DigestAlgorithm::Sha224 => Sha224::digest(data).to_vec(),
        DigestAlgorithm::Sha256 => Sha256::digest(data).to_vec(),
        DigestAlgorithm::Sha384 => Sha384::digest(data).to_vec(),
        DigestAlgorithm::Sha512 => Sha512::digest(data).to_vec(),
        DigestAlgorithm::Sha3With224 => Sha3_224::digest(data).to_vec(),
        DigestAlgorithm::Sha3With256 => Sha3_256::digest(data).to_vec(),
        DigestAlgorithm::Sha3With384 => Sha3_384::digest(data).to_vec(),
        DigestAlgorithm::Sha3With512 => Sha3_512::digest(data).to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_ids_are_javas() {
        let id = |text: &[u8], algorithm| String::from_utf8(digest_id(text, algorithm)).unwrap();
        assert_eq!(id(b"u:p", DigestAlgorithm::Sha1), "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=");
        assert_eq!(id(b"u:p", DigestAlgorithm::Sha256), "u:/Y8xRBngpX5duYn15uUqIRaIaCviy5TEwSk419hCwuA=");
        assert_eq!(
            id(b"u:p", DigestAlgorithm::Sha3With256),
            "u:3+U94Pf1dSrKR/q5qu/huTFf1Fha6TtpdtpSdhWvIS0="
        );
        let both = [b"u\xff:p", "u\u{fffd}:p".as_bytes()].map(|text| id(text, DigestAlgorithm::Sha1));
        assert_eq!(both[0], both[1], "a string holds no bad bytes");
    }

    #[test]
    fn a_connection_is_known_by_so_much_and_no_more() {
        let digest = |user: &[u8]| Id {
            scheme: Bytes::from_static(b"digest"),
            id: digest_id(user, DigestAlgorithm::Sha1).into(),
        };
        let mut have: Arc<[Id<Bytes>]> = Arc::new([ip_id("10.0.0.1".parse().unwrap())]);
        for at in 1..MAX_CLIENT_IDS {
            have = with_ids(&have, vec![digest(format!("user-{at}:").as_bytes())]).unwrap().unwrap();
        }
        assert_eq!(with_ids(&have, vec![digest(b"user-7:"), have[0].clone()]), Ok(None), "it had them");
        let refused = with_ids(&have, vec![digest(b"one more:")]).unwrap_err();
        assert_eq!(refused.count, MAX_CLIENT_IDS + 1);

        // What is no text grows threefold before it is measured.
        let large = |len| with_ids(&have[..1], vec![digest(&vec![0xff; len])]);
        let ids = large(21_800).unwrap().unwrap();
        assert!(ids.iter().map(id_len).sum::<usize>() > 65_000);
        assert!(large(21_900).unwrap_err().bytes > MAX_CLIENT_ID_BYTES);
        assert_eq!(text::as_java_reads(&ids[1].id), &ids[1].id[..], "and not once more");
    }

    #[test]
    fn an_ensemble_is_compared_by_name_where_both_say_one() {
        let names = ["foo".to_string(), "bar".into()];
        assert_eq!(check_ensemble(b"bar", &names), EnsembleCheck::Ours);
        assert_eq!(check_ensemble(b"ba", &names), EnsembleCheck::Another);
        assert_eq!(check_ensemble(b"", &names), EnsembleCheck::Skipped);
        assert_eq!(check_ensemble(b"foo", &[]), EnsembleCheck::Skipped);
    }

    #[test]
    fn a_key_takes_its_multiples() {
        for (data, key, fits) in
            [("25", "5", true), ("26", "5", false), ("x", "5", false), ("25", "", false), ("7", "0", true)]
        {
            assert_eq!(is_multiple(data.as_bytes(), Some(key.as_bytes())), fits, "{data} {key}");
        }
        assert!(is_multiple(b"x", None), "no key yet");
        assert!(is_multiple(b"-2147483648", Some(b"-1")), "the one quotient that no number holds");
    }

    #[test]
    fn ip_ids_are_javas() {
        let id = |text: &str| ip_id(text.parse().unwrap()).id;
        assert_eq!(id("::ffff:10.0.0.1"), "10.0.0.1");
        assert_eq!(id("fe80::1:a"), "fe80:0:0:0:0:0:1:a");
    }
}
