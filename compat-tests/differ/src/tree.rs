//! The whole tree of a server, as its administrator sees it: to compare it, and to empty it.

use crate::connection::{Heard, Reply, request};
use crate::jute::{Reader, Writer};
use crate::op;
use crate::reply::{describe, named};
use crate::side::Side;

/// Znodes that every server has.
const LASTING: [&[u8]; 4] = [b"/", b"/zookeeper", b"/zookeeper/quota", b"/zookeeper/config"];

/// Every znode with its data, stat and ACL, with names, in the order of paths.
pub fn walk(side: &mut Side) -> Result<Vec<String>, Heard> {
    let paths = paths(side)?;
    let mut told = Vec::with_capacity(paths.len());
    let questions: Vec<_> = paths.iter().flat_map(|path| [get(path), get_acl(path)]).collect();
    let answers = side.ask(&questions)?;
    for (path, answers) in paths.iter().zip(answers.chunks(2)) {
        let data = shown(side, op::GET_DATA, &answers[0]);
        let acl = shown(side, op::GET_ACL, &answers[1]);
        told.push(format!("{} {data} {acl}", path.escape_ascii()));
    }
    Ok(told)
}

fn shown(side: &mut Side, op: i32, reply: &Reply) -> String {
    format!("({} {})", reply.err, describe(op, &named(op, &reply.body, &mut side.names)))
}

/// Removes everything that a script can have made, children first, and sets the rest to what it was, but for versions.
pub fn clear(side: &mut Side) -> Result<(), Heard> {
    let mut paths = paths(side)?;
    paths.retain(|path| !LASTING.contains(&&path[..]));
    paths.sort_by(|one, other| other.cmp(one));
    let mut orders: Vec<_> =
        paths.iter().map(|path| request(1, op::DELETE, &Writer::new().text(path).int(-1).0)).collect();
    for path in LASTING {
        let perms = if path == b"/zookeeper/config" { 1 } else { 31 };
        let acl = Writer::new().text(path).int(1).int(perms).text(b"world").text(b"anyone").int(-1).0;
        orders.push(request(1, op::SET_ACL, &acl));
        orders.push(request(1, op::SET_DATA, &Writer::new().text(path).text(b"").int(-1).0));
    }
    side.ask(&orders)?;
    Ok(())
}

fn paths(side: &mut Side) -> Result<Vec<Vec<u8>>, Heard> {
    let mut found = vec![b"/".to_vec()];
    let mut level = found.clone();
    while !level.is_empty() {
        let questions: Vec<_> = level
            .iter()
            .map(|path| request(1, op::GET_CHILDREN, &Writer::new().text(path).byte(0).0))
            .collect();
        let mut next = Vec::new();
        for (path, reply) in level.iter().zip(side.ask(&questions)?) {
            let mut from = Reader::new(&reply.body);
            for _ in 0..from.count().unwrap_or(0) {
                let Some(Some(name)) = from.bytes() else { return Err(Heard::Odd(reply.body.clone())) };
                let top: &[u8] = if path == b"/" { b"" } else { path };
                next.push([top, b"/", name].concat());
            }
        }
        found.extend_from_slice(&next);
        level = next;
    }
    found.sort_unstable();
    Ok(found)
}

fn get(path: &[u8]) -> Vec<u8> {
    request(1, op::GET_DATA, &Writer::new().text(path).byte(0).0)
}

fn get_acl(path: &[u8]) -> Vec<u8> {
    request(1, op::GET_ACL, &Writer::new().text(path).0)
}
