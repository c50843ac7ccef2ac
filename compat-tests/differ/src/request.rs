//! Tells what a request says, for people, and whether it may be sent to Java's server at all.

use crate::jute::Reader;
use crate::op;
use crate::reply::quoted;

/// The request for people.
pub fn describe(op: i32, body: &[u8]) -> String {
    let mut text = op::name(op).to_string();
    let mut reader = Reader::new(body);
    match told(op, &mut reader, &mut text) {
        None => text.push_str(" … (cut)"),
        Some(()) if reader.rest().is_empty() => {}
        Some(()) => text.push_str(&format!(" and {} bytes more", reader.rest().len())),
    }
    text
}

fn told(op: i32, from: &mut Reader<'_>, text: &mut String) -> Option<()> {
    let mut say = |part: String| {
        text.push(' ');
        text.push_str(&part);
    };
    match op {
        op::CREATE | op::CREATE2 | op::CREATE_CONTAINER | op::CREATE_TTL => {
            say(quoted(from.bytes()?));
            say(quoted(from.bytes()?));
            say(acl(from)?);
            say(format!("flags {}", from.int()?));
            if op == op::CREATE_TTL {
                say(format!("ttl {}", from.long()?));
            }
        }
        op::DELETE | op::CHECK | op::CHECK_WATCHES | op::REMOVE_WATCHES | op::ADD_WATCH => {
            say(quoted(from.bytes()?));
            say(from.int()?.to_string());
        }
        op::EXISTS | op::GET_DATA | op::GET_CHILDREN | op::GET_CHILDREN2 => {
            say(quoted(from.bytes()?));
            if from.byte()? != 0 {
                say("watch".into());
            }
        }
        op::SET_DATA => {
            say(quoted(from.bytes()?));
            say(quoted(from.bytes()?));
            say(from.int()?.to_string());
        }
        op::SET_ACL => {
            say(quoted(from.bytes()?));
            say(acl(from)?);
            say(from.int()?.to_string());
        }
        op::GET_ACL
        | op::SYNC
        | op::GET_EPHEMERALS
        | op::GET_ALL_CHILDREN_NUMBER
        | op::DELETE_CONTAINER
        | op::SASL => {
            say(quoted(from.bytes()?));
        }
        op::AUTH => {
            from.int()?;
            say(quoted(from.bytes()?));
            say(quoted(from.bytes()?));
        }
        op::RECONFIG => {
            for _ in 0..3 {
                say(quoted(from.bytes()?));
            }
            say(from.long()?.to_string());
        }
        op::SET_WATCHES | op::SET_WATCHES2 => {
            from.long()?;
            for _ in 0..if op == op::SET_WATCHES { 3 } else { 5 } {
                let mut list = "[".to_string();
                for _ in 0..from.count()? {
                    list.push_str(&quoted(from.bytes()?));
                }
                say(list + "]");
            }
        }
        op::MULTI | op::MULTI_READ => loop {
            let (kind, done, _) = (from.int()?, from.byte()?, from.int()?);
            if done != 0 {
                return Some(());
            }
            text.push_str(&format!(" [{}", op::name(kind)));
            told(kind, from, text)?;
            text.push(']');
        },
        _ => {}
    }
    Some(())
}

fn acl(from: &mut Reader<'_>) -> Option<String> {
    let count = from.int()?;
    let mut text = if count < 0 { "null".to_string() } else { "(".into() };
    for _ in 0..count {
        text.push_str(&format!("{}:{}:{} ", from.int()?, quoted(from.bytes()?), quoted(from.bytes()?)));
    }
    Some(if count < 0 { text } else { text.trim_end().to_string() + ")" })
}

/// A createTTL whose mode has no TTL, and whose ttl is negative, passes Java's checks, and then stops its server for
/// good. In a multi it is a plain create.
pub fn is_poison(op: i32, body: &[u8]) -> bool {
    if op != op::CREATE_TTL {
        return false;
    }
    let mut from = Reader::new(body);
    let read = || {
        let (_, _, _) = (from.bytes()?, from.bytes()?, acl(&mut from)?);
        Some((from.int()?, from.long()?))
    };
    let mut read = read;
    read().is_some_and(|(flags, ttl)| !matches!(flags, 5 | 6) && ttl < 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jute::Writer;

    #[test]
    fn the_poison_is_known_and_nothing_else_is() {
        let create = |flags, ttl| Writer::new().text(b"/a").text(b"").int(0).int(flags).long(ttl).0;
        assert!(is_poison(op::CREATE_TTL, &create(0, -1)));
        assert!(!is_poison(op::CREATE_TTL, &create(5, -1)));
        assert!(!is_poison(op::CREATE_TTL, &create(0, 1)));
        assert!(!is_poison(op::CREATE, &create(0, -1)));
        assert!(!is_poison(op::CREATE_TTL, &create(0, -1)[..20]));
    }

    #[test]
    fn requests_are_told_even_when_cut() {
        let body = Writer::new().text(b"/a\xff").int(-1).0;
        assert_eq!(describe(op::DELETE, &body), "delete \"/a\\xff\" -1");
        assert_eq!(describe(op::DELETE, &body[..9]), "delete \"/a\\xff\" … (cut)");
        assert_eq!(describe(99, b""), "?");
    }
}
