//! Who may do what: the check of an ACL list against a connection's ids, and the fix-up of lists that clients give.

use crate::jute::records::{Acl, GivenAcl, GivenId, Id};
use crate::model::{ErrorCode, perms};
use bytes::Bytes;
use std::net::IpAddr;

/// Whether one of `ids` has `perm` in `list` (`ZooKeeperServer.checkACL`). An empty list allows all.
pub fn permits(list: &[Acl<Bytes>], perm: i32, ids: &[Id<Bytes>]) -> bool {
    if list.is_empty() || ids.iter().any(|id| id.scheme == "super") {
        return true;
    }
    list.iter().filter(|acl| acl.perms & perm != 0).any(|acl| {
        let wanted = &acl.id;
        (wanted.scheme == "world" && wanted.id == "anyone")
            || ids.iter().any(|id| id.scheme == wanted.scheme && matches(wanted, id))
    })
}

fn matches(wanted: &Id<Bytes>, given: &Id<Bytes>) -> bool {
    match &wanted.scheme[..] {
        b"ip" => ip_matches(&wanted.id, &given.id),
        b"digest" => wanted.id == given.id,
        _ => false,
    }
}

/// `address` or `address/bits` against a plain address.
fn ip_matches(wanted: &[u8], given: &[u8]) -> bool {
    let Some((net, bits)) = parse_net(wanted) else { return false };
    let Some((host, _)) = parse_net(given) else { return false };
    let common = |net: &[u8], host: &[u8]| {
        let whole = usize::from(bits / 8);
        let rest = bits % 8;
        net[..whole] == host[..whole] && (rest == 0 || (net[whole] ^ host[whole]) >> (8 - rest) == 0)
    };
    match (net, host) {
        (IpAddr::V4(net), IpAddr::V4(host)) => common(&net.octets(), &host.octets()),
        (IpAddr::V6(net), IpAddr::V6(host)) => common(&net.octets(), &host.octets()),
        _ => false,
    }
}

fn parse_net(text: &[u8]) -> Option<(IpAddr, u8)> {
    let text = std::str::from_utf8(text).ok()?;
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(width);
    (bits <= width).then_some((address, bits))
}

/// Makes a client's list the one that is stored: duplicates dropped, `auth` expanded to the connection's
/// authenticated ids, every id checked (`PrepRequestProcessor.fixupACL`). `digest` is false when that scheme is off.
pub fn fix_up(
    list: &[GivenAcl<Bytes>],
    ids: &[Id<Bytes>],
    digest: bool,
) -> Result<Vec<Acl<Bytes>>, ErrorCode> {
    let mut fixed: Vec<Acl<Bytes>> = Vec::with_capacity(list.len());
    let mut seen: Vec<&GivenAcl<Bytes>> = Vec::with_capacity(list.len());
    for given in list {
        if seen.contains(&given) {
            continue;
        }
        seen.push(given);
        let scheme = given.id.scheme.as_ref().ok_or(ErrorCode::InvalidAcl)?;
        match &scheme[..] {
            // Nobody looks at the id of this one: it may be null.
            b"auth" => {
                let before = fixed.len();
                let own = ids.iter().filter(|id| id.scheme == "digest");
                fixed.extend(own.map(|id| Acl { perms: given.perms, id: id.clone() }));
                if fixed.len() == before {
                    return Err(ErrorCode::InvalidAcl);
                }
            }
            b"world" | b"ip" => fixed.push(checked(given, scheme)?),
            b"digest" if digest => fixed.push(checked(given, scheme)?),
            _ => return Err(ErrorCode::InvalidAcl),
        }
    }
    if fixed.is_empty() { Err(ErrorCode::InvalidAcl) } else { Ok(fixed) }
}

/// The entry as it is stored, if its id is one of its scheme. Java stumbles over a null.
fn checked(given: &GivenAcl<Bytes>, scheme: &Bytes) -> Result<Acl<Bytes>, ErrorCode> {
    let id = given.id.id.as_ref().ok_or(ErrorCode::MarshallingError)?;
    let acl = Acl { perms: given.perms, id: Id { scheme: scheme.clone(), id: id.clone() } };
    match &scheme[..] {
        b"world" if id == "anyone" => Ok(acl),
        b"digest" if is_digest_id(id) => Ok(readable(&acl)),
        b"ip" if parse_net(id).is_some() => Ok(acl),
        _ => Err(ErrorCode::InvalidAcl),
    }
}

impl<B> From<Acl<B>> for GivenAcl<B> {
    fn from(acl: Acl<B>) -> Self {
        Self { perms: acl.perms, id: GivenId { scheme: Some(acl.id.scheme), id: Some(acl.id.id) } }
    }
}

/// Two parts around a colon, as `String.split(":")` counts them: empty parts at the end do not count.
fn is_digest_id(id: &[u8]) -> bool {
    let mut parts: Vec<&[u8]> = id.split(|b| *b == b':').collect();
    while parts.last().is_some_and(|part| part.is_empty()) {
        parts.pop();
    }
    parts.len() == 2
}

/// An id as Java's strings would hold and write it again: bad UTF-8 replaced, characters beyond the BMP as two
/// surrogates of three bytes each.
fn readable(acl: &Acl<Bytes>) -> Acl<Bytes> {
    if acl.id.id.is_ascii() {
        return acl.clone();
    }
    let text = String::from_utf8_lossy(&acl.id.id);
    let mut out = Vec::with_capacity(text.len());
    for c in text.chars() {
        let mut units = [0; 2];
        for unit in c.encode_utf16(&mut units) {
            match *unit {
                unit @ 0..0x80 => out.push(unit as u8),
                unit @ 0x80..0x800 => out.extend([0xc0 | (unit >> 6) as u8, 0x80 | (unit & 0x3f) as u8]),
                unit => out.extend([
                    0xe0 | (unit >> 12) as u8,
                    0x80 | (unit >> 6 & 0x3f) as u8,
                    0x80 | (unit & 0x3f) as u8,
                ]),
            }
        }
    }
    Acl { perms: acl.perms, id: Id { scheme: acl.id.scheme.clone(), id: out.into() } }
}

/// The list that a caller without ADMIN may see: what follows the first colon of a digest id becomes `x`.
pub fn masked(list: &[Acl<Bytes>], ids: &[Id<Bytes>]) -> Vec<Acl<Bytes>> {
    let admin = permits(list, perms::ADMIN, ids);
    let mask = |acl: &Acl<Bytes>| {
        if admin || acl.id.scheme != "digest" {
            return acl.clone();
        }
        let user = acl.id.id.split(|b| *b == b':').next().unwrap_or_default();
        let id = Id { scheme: acl.id.scheme.clone(), id: [user, b":x"].concat().into() };
        Acl { perms: acl.perms, id }
    };
    list.iter().map(mask).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(scheme: &'static str, id: &'static str) -> Id<Bytes> {
        Id { scheme: Bytes::from_static(scheme.as_bytes()), id: Bytes::from_static(id.as_bytes()) }
    }

    fn acl(perms: i32, scheme: &'static str, name: &'static str) -> Acl<Bytes> {
        Acl { perms, id: id(scheme, name) }
    }

    #[test]
    fn masks_of_ip_entries_are_compared_bit_by_bit() {
        let list = [acl(perms::READ, "ip", "10.1.2.0/23")];
        assert!(permits(&list, perms::READ, &[id("ip", "10.1.3.255")]));
        assert!(!permits(&list, perms::READ, &[id("ip", "10.1.4.0")]));
        assert!(!permits(&list, perms::WRITE, &[id("ip", "10.1.3.255")]));
        assert!(permits(&[acl(1, "ip", "fe80::/10")], 1, &[id("ip", "fe80::1")]));
        assert!(!permits(&[acl(1, "ip", "0.0.0.0/0")], 1, &[id("ip", "::1")]));
    }

    #[test]
    fn super_passes_everything() {
        assert!(permits(&[acl(0, "digest", "a:b")], perms::ADMIN, &[id("super", "")]));
    }

    #[test]
    fn fix_up_refuses_what_java_refuses() {
        let own = [id("ip", "127.0.0.1"), id("digest", "u:hash")];
        let ok = |list: &[GivenAcl<Bytes>]| fix_up(list, &own, true);
        let acl = |perms, scheme, name| GivenAcl::from(acl(perms, scheme, name));
        assert_eq!(ok(&[]), Err(ErrorCode::InvalidAcl));
        for bad in
            [("world", "me"), ("digest", "nocolon"), ("digest", "a:b:c"), ("ip", "300.1.1.1"), ("what", "x")]
        {
            assert_eq!(ok(&[acl(31, bad.0, bad.1)]), Err(ErrorCode::InvalidAcl), "{bad:?}");
        }
        for good in [("digest", ":b"), ("digest", "a:b:"), ("ip", "1.2.3.4/32"), ("ip", "::1/128")] {
            assert!(ok(&[acl(31, good.0, good.1)]).is_ok(), "{good:?}");
        }
        let twice = [acl(31, "auth", ""), acl(31, "auth", "")];
        assert_eq!(ok(&twice), Ok(vec![Acl { perms: 31, id: own[1].clone() }]));
        assert_eq!(fix_up(&twice, &own[..1], true), Err(ErrorCode::InvalidAcl), "ip does not count");
    }

    #[test]
    fn an_id_may_be_null_where_nobody_looks_at_it() {
        let own = [id("digest", "u:hash")];
        let given = |scheme: Option<&'static str>| GivenAcl {
            perms: 31,
            id: GivenId { scheme: scheme.map(|name| Bytes::from_static(name.as_bytes())), id: None },
        };
        let ok = |scheme| fix_up(&[given(scheme)], &own, true);
        assert_eq!(ok(Some("auth")), Ok(vec![acl(31, "digest", "u:hash")]));
        for (scheme, error) in [
            (Some("world"), ErrorCode::MarshallingError),
            (Some("digest"), ErrorCode::MarshallingError),
            (Some("ip"), ErrorCode::MarshallingError),
            (Some("what"), ErrorCode::InvalidAcl),
            (None, ErrorCode::InvalidAcl),
        ] {
            assert_eq!(ok(scheme), Err(error), "{scheme:?}");
        }
    }
}
