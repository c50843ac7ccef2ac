//! The auth packet: which ids it adds to a connection (`server/auth/*AuthenticationProvider`).

use super::Rules;
use crate::jute::records::Id;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use sha1::{Digest, Sha1};
use std::net::IpAddr;

/// The id that every connection starts with.
pub fn ip_id(address: IpAddr) -> Id<Bytes> {
    Id { scheme: Bytes::from_static(b"ip"), id: address.to_canonical().to_string().into_bytes().into() }
}

/// The ids that `scheme` with `data` proves; `None`: refused.
pub fn ids_for(scheme: &[u8], data: &[u8], address: IpAddr, rules: &Rules) -> Option<Vec<Id<Bytes>>> {
    match scheme {
        b"ip" => Some(vec![ip_id(address)]),
        b"digest" if rules.digest_auth => {
            let digest = digest_id(data);
            let mut ids = Vec::new();
            if rules.super_digest.as_deref() == Some(&digest[..]) {
                ids.push(Id { scheme: Bytes::from_static(b"super"), id: Bytes::new() });
            }
            ids.push(Id { scheme: Bytes::from_static(b"digest"), id: digest.into() });
            Some(ids)
        }
        _ => None,
    }
}

/// `user:password` → `user:base64(SHA-1(user:password))`.
pub fn digest_id(user_and_password: &[u8]) -> Vec<u8> {
    let user = user_and_password.split(|b| *b == b':').next().unwrap_or_default();
    let hash = STANDARD.encode(Sha1::digest(user_and_password));
    [user, b":", hash.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_ids_are_javas() {
        assert_eq!(digest_id(b"u:p"), b"u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=");
    }
}
