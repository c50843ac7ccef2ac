//! Takes the records of replies apart: to put names where the servers must differ, and to print them.

use crate::jute::{Reader, Writer};
use crate::names::Names;
use crate::op;

/// The body of a reply with names in it and free orders sorted, in the layout that it came in. What is no such
/// record stays as it is.
pub fn named(op: i32, body: &[u8], names: &mut Names) -> Vec<u8> {
    let mut reader = Reader::new(body);
    match record(op, &mut reader, Writer::new(), names) {
        Some(named) => named.raw(reader.rest()).0,
        None => body.to_vec(),
    }
}

fn record(op: i32, from: &mut Reader<'_>, to: Writer, names: &mut Names) -> Option<Writer> {
    Some(match op {
        op::CREATE | op::SYNC => to.bytes(from.bytes()?),
        op::CREATE2 | op::CREATE_CONTAINER | op::CREATE_TTL | op::GET_DATA | op::RECONFIG => {
            let to = to.bytes(from.bytes()?);
            stat(from, to, names)?
        }
        op::EXISTS | op::SET_DATA | op::SET_ACL => stat(from, to, names)?,
        op::GET_ACL => {
            let to = acl(from, to)?;
            stat(from, to, names)?
        }
        op::GET_CHILDREN | op::GET_EPHEMERALS => texts(from, to)?,
        op::GET_CHILDREN2 => {
            let to = texts(from, to)?;
            stat(from, to, names)?
        }
        op::WHO_AM_I => pairs(from, to)?,
        op::MULTI | op::MULTI_READ => results(from, to, names)?,
        _ => to,
    })
}

fn stat(from: &mut Reader<'_>, to: Writer, names: &mut Names) -> Option<Writer> {
    let (czxid, mzxid, ctime, mtime) = (from.long()?, from.long()?, from.long()?, from.long()?);
    let to = to.long(names.zxid(czxid)).long(names.zxid(mzxid));
    let to = to.long(names.time(czxid, ctime)).long(names.time(mzxid, mtime));
    let to = to.raw(from.take(12)?).long(names.session(from.long()?)).raw(from.take(8)?);
    Some(to.long(names.zxid(from.long()?)))
}

/// The order of children is free.
fn texts(from: &mut Reader<'_>, to: Writer) -> Option<Writer> {
    let count = from.int()?;
    let mut texts = Vec::new();
    for _ in 0..count {
        texts.push(from.bytes()?);
    }
    texts.sort_unstable();
    Some(texts.into_iter().fold(to.int(count), Writer::bytes))
}

/// Nor is that of a connection's ids fixed.
fn pairs(from: &mut Reader<'_>, to: Writer) -> Option<Writer> {
    let count = from.int()?;
    let mut pairs = Vec::new();
    for _ in 0..count {
        pairs.push((from.bytes()?, from.bytes()?));
    }
    pairs.sort_unstable();
    Some(pairs.into_iter().fold(to.int(count), |to, (first, second)| to.bytes(first).bytes(second)))
}

/// An entry for `auth` becomes one for each of the connection's ids, in free order: neighbours of one scheme and of
/// the same permissions.
fn acl(from: &mut Reader<'_>, to: Writer) -> Option<Writer> {
    let count = from.int()?;
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push((from.int()?, from.bytes()?, from.bytes()?));
    }
    for run in entries.chunk_by_mut(|a, b| (a.0, a.1) == (b.0, b.1)) {
        run.sort_unstable();
    }
    let write = |to: Writer, (perms, scheme, id)| to.int(perms).bytes(scheme).bytes(id);
    Some(entries.into_iter().fold(to.int(count), write))
}

fn results(from: &mut Reader<'_>, mut to: Writer, names: &mut Names) -> Option<Writer> {
    loop {
        let (kind, done, err) = (from.int()?, from.byte()?, from.int()?);
        to = to.int(kind).byte(done).int(err);
        if done != 0 {
            return Some(to);
        }
        to = if kind == -1 { to.int(from.int()?) } else { record(kind, from, to, names)? };
    }
}

/// The body of a reply for people.
pub fn describe(op: i32, body: &[u8]) -> String {
    let mut reader = Reader::new(body);
    let mut text = String::new();
    if told(op, &mut reader, &mut text).is_none() {
        return format!("not the record of {}: {}", op::name(op), crate::script::hex(body));
    }
    if !reader.rest().is_empty() {
        text.push_str(&format!(" and behind it {}", crate::script::hex(reader.rest())));
    }
    text
}

fn told(op: i32, from: &mut Reader<'_>, text: &mut String) -> Option<()> {
    match op {
        op::CREATE | op::SYNC => text.push_str(&quoted(from.bytes()?)),
        op::CREATE2 | op::CREATE_CONTAINER | op::CREATE_TTL | op::GET_DATA | op::RECONFIG => {
            text.push_str(&quoted(from.bytes()?));
            told_stat(from, text)?;
        }
        op::EXISTS | op::SET_DATA | op::SET_ACL => told_stat(from, text)?,
        op::GET_ACL => {
            for _ in 0..from.count()? {
                text.push_str(&format!(
                    "{}:{}:{} ",
                    from.int()?,
                    quoted(from.bytes()?),
                    quoted(from.bytes()?)
                ));
            }
            told_stat(from, text)?;
        }
        op::GET_CHILDREN | op::GET_EPHEMERALS | op::GET_CHILDREN2 => {
            let count = from.int()?;
            text.push_str(&format!("{count} names"));
            for _ in 0..count {
                text.push_str(&format!(" {}", quoted(from.bytes()?)));
            }
            if op == op::GET_CHILDREN2 {
                told_stat(from, text)?;
            }
        }
        op::WHO_AM_I => {
            for _ in 0..from.count()? {
                text.push_str(&format!("{}:{} ", quoted(from.bytes()?), quoted(from.bytes()?)));
            }
        }
        op::MULTI | op::MULTI_READ => loop {
            let (kind, done, err) = (from.int()?, from.byte()?, from.int()?);
            if done != 0 {
                text.push_str(&format!("end({kind},{err})"));
                return Some(());
            }
            text.push_str(&format!("[{kind},{err}: "));
            match kind {
                -1 => text.push_str(&from.int()?.to_string()),
                _ => told(kind, from, text)?,
            }
            text.push_str("] ");
        },
        _ => {}
    }
    Some(())
}

fn told_stat(from: &mut Reader<'_>, text: &mut String) -> Option<()> {
    let (czxid, mzxid, ctime, mtime) = (from.long()?, from.long()?, from.long()?, from.long()?);
    let (version, cversion, aversion) = (from.int()?, from.int()?, from.int()?);
    let (owner, length, children, pzxid) = (from.long()?, from.int()?, from.int()?, from.long()?);
    text.push_str(&format!(
        " stat(czxid {czxid}, mzxid {mzxid}, pzxid {pzxid}, ctime {ctime}, mtime {mtime}, versions {version} {cversion} \
         {aversion}, owner {owner}, length {length}, children {children})"
    ));
    Some(())
}

/// Bytes as text, with what is not plain ASCII escaped.
pub fn quoted(bytes: Option<&[u8]>) -> String {
    match bytes {
        None => "null".into(),
        Some(bytes) if bytes.len() > 200 => format!("<{} bytes>", bytes.len()),
        Some(bytes) => format!("\"{}\"", bytes.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_stat(czxid: i64) -> Vec<u8> {
        let stat = Writer::new().long(czxid).long(czxid).long(0).long(0).raw(&[0; 12]).long(0).raw(&[0; 8]);
        stat.long(czxid).0
    }

    #[test]
    fn names_stand_where_the_zxids_stood_and_nothing_else_changes() {
        let mut names = Names::new(5);
        let body = Writer::new().text(b"data").raw(&a_stat(7)).raw(b"more").0;
        let named = named(op::GET_DATA, &body, &mut names);
        assert_eq!(named.len(), body.len());
        assert_eq!((&named[..8], &named[8..16]), (&body[..8], &2_i64.to_be_bytes()[..]));
        assert_eq!(&named[8 + 68..], b"more");
        assert_eq!(&named[16 + 24..named.len() - 12], &body[16 + 24..body.len() - 12]);
    }

    #[test]
    fn free_orders_are_sorted_and_others_are_not() {
        let mut names = Names::new(0);
        let list =
            |texts: [&[u8]; 2]| texts.into_iter().fold(Writer::new().int(2), |to, text| to.text(text)).0;
        let of = |op, body: &[u8], names: &mut Names| super::named(op, body, names);
        let (one, other) = (list([b"a", b"b"]), list([b"b", b"a"]));
        assert_eq!(of(op::GET_CHILDREN, &one, &mut names), of(op::GET_CHILDREN, &other, &mut names));
        let entries = |ids: [&[u8]; 2], scheme: &[u8]| {
            let entry = |to: Writer, id: &[u8]| to.int(31).text(scheme).text(id);
            ids.into_iter().fold(Writer::new().int(2), entry).raw(&a_stat(0)).0
        };
        let expanded = [entries([b"u", b"v"], b"digest"), entries([b"v", b"u"], b"digest")];
        assert_eq!(of(op::GET_ACL, &expanded[0], &mut names), of(op::GET_ACL, &expanded[1], &mut names));
    }

    #[test]
    fn what_is_no_record_stays_as_it_is() {
        let mut names = Names::new(0);
        assert_eq!(named(op::EXISTS, b"short", &mut names), b"short");
        assert!(describe(op::EXISTS, b"short").starts_with("not the record of exists"));
    }
}
