//! Who may do what: the check of an ACL list against a connection's ids, and the fix-up of lists that clients give.

use super::{Rules, TOO_LARGE};
use crate::jute::records::{Acl, AskedAcl, AskedId, Id};
use crate::model::{Budget, ErrorCode, Net, distinguished_name, perms, text};
use crate::tree::{AclList, AclMatch};
use bytes::Bytes;
use std::borrow::Cow;
use std::collections::HashSet;

/// Whether one of `ids` has `perm` in `list` (`ZooKeeperServer.checkACL`). An empty list allows all.
pub fn permits(rules: &Rules, list: &AclList, perm: i32, ids: &[Id<Bytes>], work: &Budget) -> bool {
    if rules.skip_acl || list.is_empty() || ids.iter().any(|id| id.scheme == "super") {
        return true;
    }
    let granted = |to| list.granted(to, work) & perm != 0;
    granted(AclMatch::Exactly(b"world", b"anyone"))
        || ids.iter().any(|id| {
            let own = AclMatch::Exactly(&id.scheme, &id.id);
            match &id.scheme[..] {
                b"ip" => granted(AclMatch::Address(&id.id)),
                b"digest" => granted(own),
                b"sasl" => rules.sasl.as_ref().is_some_and(|scheme| match &scheme.any_user {
                    _ if id.id == "super" => granted(AclMatch::Scheme(b"sasl")),
                    Some(any) => granted(own) || granted(AclMatch::Exactly(b"sasl", any.as_bytes())),
                    None => granted(own),
                }),
                b"x509" => rules.x509.is_some() && granted(own),
                b"key" => rules.key_auth && granted(own),
                _ => false,
            }
        })
}

/// Makes a client's list the one that is stored: duplicates dropped, `auth` expanded to the connection's
/// authenticated ids, every id checked (`PrepRequestProcessor.fixupACL`). [`TOO_LARGE`]: it takes more than `room` bytes.
pub fn fix_up(
    rules: &Rules,
    list: &[AskedAcl<Bytes>],
    ids: &[Id<Bytes>],
    room: usize,
) -> Result<Vec<Acl<Bytes>>, ErrorCode> {
    let mut fixed = Fixed { list: Vec::with_capacity(list.len()), room };
    let mut seen = HashSet::new();
    for asked in list {
        let asked = AskedAcl { perms: asked.perms, id: readable(&asked.id) };
        if list.len() == 1 || seen.insert(asked.clone()) {
            expand(rules, &asked, ids, &mut fixed)?;
        }
    }
    if fixed.list.is_empty() { Err(ErrorCode::InvalidAcl) } else { Ok(fixed.list) }
}

/// A list that grows only as far as there is room: a few bytes of a request may become very many of the list.
struct Fixed {
    list: Vec<Acl<Bytes>>,
    room: usize,
}

impl Fixed {
    fn push(&mut self, acl: Acl<Bytes>) -> Result<(), ErrorCode> {
        self.room = self.room.checked_sub(acl.encoded_len()).ok_or(TOO_LARGE)?;
        self.list.push(acl);
        Ok(())
    }
}

/// Appends what one entry means. A missing id differs from a wrong one: Java stumbles over it.
fn expand(
    rules: &Rules,
    asked: &AskedAcl<Bytes>,
    ids: &[Id<Bytes>],
    out: &mut Fixed,
) -> Result<(), ErrorCode> {
    let scheme = asked.id.scheme.clone().ok_or(ErrorCode::InvalidAcl)?;
    let entry = |id: Id<Bytes>| Acl { perms: asked.perms, id };
    if scheme == "auth" {
        let mut own = ids.iter().filter(|id| proves_a_user(rules, &id.scheme)).cloned().map(entry).peekable();
        if own.peek().is_none() {
            return Err(ErrorCode::InvalidAcl);
        }
        return own.try_for_each(|acl| out.push(acl));
    }
    let is_valid: fn(&[u8]) -> bool = match &scheme[..] {
        b"world" => |id| id == b"anyone",
        b"digest" if rules.digest_auth.is_some() => is_digest_id,
        b"ip" => |id| Net::parse(id).is_some(),
        b"sasl" if rules.sasl.is_some() => is_principal,
        b"x509" if rules.x509.is_some() => |id| distinguished_name::is_valid(&String::from_utf8_lossy(id)),
        b"key" if rules.key_auth => |_| true,
        _ => return Err(ErrorCode::InvalidAcl),
    };
    let id = asked.id.id.clone().ok_or(ErrorCode::MarshallingError)?;
    if !is_valid(&id) {
        return Err(ErrorCode::InvalidAcl);
    }
    out.push(entry(Id { scheme, id }))
}

/// Whether an id of the scheme says who somebody is, not only where.
fn proves_a_user(rules: &Rules, scheme: &[u8]) -> bool {
    match scheme {
        b"digest" => true,
        b"sasl" => rules.sasl.is_some(),
        b"x509" => rules.x509.is_some(),
        b"key" => rules.key_auth,
        _ => false,
    }
}

/// A Kerberos name, `service/host@REALM`, of which only the first part is required (`KerberosName`).
fn is_principal(id: &[u8]) -> bool {
    let Some(at) = id.iter().position(|byte| *byte == b'@') else { return true };
    let (name, realm) = (&id[..at], &id[at + 1..]);
    name.split(|byte| *byte == b'/').count() <= 2 && !realm.contains(&b'/') && !realm.contains(&b'@')
}

/// Two parts around a colon, as `String.split(":")` counts them: empty parts at the end do not count.
fn is_digest_id(id: &[u8]) -> bool {
    let mut parts: Vec<&[u8]> = id.split(|b| *b == b':').collect();
    while parts.last().is_some_and(|part| part.is_empty()) {
        parts.pop();
    }
    parts.len() == 2
}

/// The list as Java reads it back from what it wrote, which it does for a part of a multi before it applies it.
pub fn read_again(list: &mut [Acl<Bytes>]) {
    for acl in list {
        if let Cow::Owned(text) = text::as_java_reads(&acl.id.id) {
            acl.id.id = text.into();
        }
    }
}

/// The id as Java's strings hold it, and write it again.
fn readable(asked: &AskedId<Bytes>) -> AskedId<Bytes> {
    let read = |bytes: &Option<Bytes>| {
        bytes.as_ref().map(|bytes| match text::as_java_reads(bytes) {
            Cow::Borrowed(_) => bytes.clone(),
            Cow::Owned(text) => text.into(),
        })
    };
    AskedId { scheme: read(&asked.scheme), id: read(&asked.id) }
}

/// The list that a caller without ADMIN may see: what follows the first colon of a digest id becomes `x`.
pub fn masked(rules: &Rules, list: &AclList, ids: &[Id<Bytes>], work: &Budget) -> Vec<Acl<Bytes>> {
    let admin = permits(rules, list, perms::ADMIN, ids, work);
    let mask = |acl: &Acl<Bytes>| {
        if admin || acl.id.scheme != "digest" {
            return acl.clone();
        }
        let user = acl.id.id.split(|b| *b == b':').next().unwrap_or_default();
        let id = Id { scheme: acl.id.scheme.clone(), id: [user, b":x"].concat().into() };
        Acl { perms: acl.perms, id }
    };
    work.spend(list.len());
    list.iter().map(mask).collect()
}

#[cfg(test)]
mod tests {
    use super::super::SaslScheme;
    use super::*;
    use crate::model::DigestAlgorithm;

    const ROOM: usize = 1 << 20;

    fn id(scheme: &'static str, id: &'static str) -> Id<Bytes> {
        Id { scheme: Bytes::from_static(scheme.as_bytes()), id: Bytes::from_static(id.as_bytes()) }
    }

    fn acl(perms: i32, scheme: &'static str, name: &'static str) -> Acl<Bytes> {
        Acl { perms, id: id(scheme, name) }
    }

    fn rules() -> Rules {
        Rules { digest_auth: Some(DigestAlgorithm::Sha1), ..Rules::default() }
    }

    fn with_sasl(any_user: Option<&str>) -> Rules {
        Rules { sasl: Some(SaslScheme { any_user: any_user.map(String::from) }), ..rules() }
    }

    fn may(rules: &Rules, list: &[Acl<Bytes>], perm: i32, ids: &[Id<Bytes>]) -> bool {
        super::permits(rules, &list.to_vec().into(), perm, ids, &Budget::default())
    }

    fn permits(list: &[Acl<Bytes>], perm: i32, ids: &[Id<Bytes>]) -> bool {
        may(&rules(), list, perm, ids)
    }

    #[test]
    fn a_name_that_sasl_proved_matches_its_entries_where_the_scheme_is_on() {
        let list = [acl(perms::READ, "sasl", "bob"), acl(perms::WRITE, "sasl", "anyone")];
        let may = |rules: &Rules, perm, name| may(rules, &list, perm, &[id("sasl", name)]);
        let plain = with_sasl(None);
        assert!(may(&plain, perms::READ, "bob") && !may(&plain, perms::READ, "alice"));
        assert!(may(&plain, perms::READ, "super"), "of whom the scheme takes every entry");
        assert!(!may(&plain, perms::WRITE, "bob"));
        let open = with_sasl(Some("anyone"));
        assert!(may(&open, perms::WRITE, "bob") && !may(&open, perms::READ, "alice"));
        assert!(!may(&rules(), perms::READ, "bob"));
        let asked = |name| [AskedAcl::from(acl(31, "sasl", name))];
        for good in ["user", "service/host.name.com", "user@KERB.REALM", "service/host@KERB.REALM", "a/b/c"] {
            assert!(fix_up(&plain, &asked(good), &[], ROOM).is_ok(), "{good}");
        }
        for bad in ["user@KERB.REALM/server.com", "user@KERB.REALM1@KERB.REALM2", "a/b/c@d"] {
            assert_eq!(fix_up(&plain, &asked(bad), &[], ROOM), Err(ErrorCode::InvalidAcl), "{bad}");
        }
        assert_eq!(fix_up(&rules(), &asked("user"), &[], ROOM), Err(ErrorCode::InvalidAcl));
        let creator = [AskedAcl::from(acl(31, "auth", ""))];
        let own = [id("ip", "127.0.0.1"), id("sasl", "bob"), id("super", "")];
        assert_eq!(fix_up(&plain, &creator, &own, ROOM), Ok(vec![acl(31, "sasl", "bob")]));
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
        let asked = |list: &[Acl<Bytes>]| list.iter().cloned().map(AskedAcl::from).collect::<Vec<_>>();
        let ok = |list: &[Acl<Bytes>]| fix_up(&rules(), &asked(list), &own, ROOM);
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
        assert_eq!(ok(&twice), Ok(vec![acl(31, "digest", "u:hash")]));
        assert_eq!(
            fix_up(&rules(), &asked(&twice), &own[..1], ROOM),
            Err(ErrorCode::InvalidAcl),
            "ip does not count"
        );
    }

    #[test]
    fn a_null_in_an_entry_is_refused_where_java_looks_at_it() {
        let own = [id("digest", "u:hash")];
        let asked = |scheme: Option<&'static str>| {
            let scheme = scheme.map(|scheme| Bytes::from_static(scheme.as_bytes()));
            fix_up(&rules(), &[AskedAcl { perms: 31, id: AskedId { scheme, id: None } }], &own, ROOM)
        };
        assert_eq!(asked(None), Err(ErrorCode::InvalidAcl));
        assert_eq!(asked(Some("none")), Err(ErrorCode::InvalidAcl));
        assert_eq!(asked(Some("auth")), Ok(vec![acl(31, "digest", "u:hash")]));
        for scheme in ["world", "digest", "ip"] {
            assert_eq!(asked(Some(scheme)), Err(ErrorCode::MarshallingError), "{scheme}");
        }
    }
}
