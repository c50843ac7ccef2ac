//! The auth packet: which ids it adds to a connection (`server/auth/*AuthenticationProvider`).

use super::Rules;
use crate::jute::records::Id;
use crate::model::text;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use sha1::{Digest, Sha1};
use std::net::IpAddr;

/// The id that every connection starts with.
pub fn ip_id(address: IpAddr) -> Id<Bytes> {
    // Java writes an IPv6 address with all its groups.
    let text = match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => address.segments().map(|group| format!("{group:x}")).join(":"),
    };
    Id { scheme: Bytes::from_static(b"ip"), id: text.into_bytes().into() }
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

/// `user:password` → `user:base64(SHA-1(user:password))`, of the bytes that Java's string of them has.
pub fn digest_id(user_and_password: &[u8]) -> Vec<u8> {
    let user = user_and_password.split(|b| *b == b':').next().unwrap_or_default();
    let hash = STANDARD.encode(Sha1::digest(text::as_java_holds(user_and_password)));
    [&text::as_java_reads(user), &b":"[..], hash.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_ids_are_javas() {
        assert_eq!(digest_id(b"u:p"), b"u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=");
        assert_eq!(digest_id(b"u\xff:p"), digest_id("u\u{fffd}:p".as_bytes()), "a string holds no bad bytes");
    }

    #[test]
    fn ip_ids_are_javas() {
        let id = |text: &str| ip_id(text.parse().unwrap()).id;
        assert_eq!(id("::ffff:10.0.0.1"), "10.0.0.1");
        assert_eq!(id("fe80::1:a"), "fe80:0:0:0:0:0:1:a");
    }
}
