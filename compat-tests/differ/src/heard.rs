//! Puts what a slot heard from the one server beside what it heard from the other.

use crate::connection::{Heard, Reply};
use crate::known::{Known, Rule};
use crate::names::Names;
use crate::op;
use crate::reply::{self, named};
use crate::script::hex;
use crate::side::Sent;
use std::collections::BTreeMap;

/// Where the two differ, if they do: Java's first.
pub fn compare(
    names: [&mut Names; 2],
    sends: &[Sent],
    heard: [Vec<Heard>; 2],
    known: &Known,
) -> Option<String> {
    let [first, second] = names;
    let [java, zabra] = heard;
    let (java, java_early) = arrange(first, sends, java);
    let (zabra, zabra_early) = arrange(second, sends, zabra);
    for at in 0..java.len().max(zabra.len()) {
        let (one, other) = (java.get(at), zabra.get(at));
        if let (Some(one), Some(other)) = (one, other) {
            malformed_write(first, second, one, other, known);
        }
        let shown = [one.map(|taken| Shown::of(first, taken)), other.map(|taken| Shown::of(second, taken))];
        if shown[0] != shown[1] {
            let from_here =
                [tell(first, &java[at.min(java.len())..]), tell(second, &zabra[at.min(zabra.len())..])];
            return Some(format!("java:{}\n  zabra:{}", from_here[0], from_here[1]));
        }
    }
    differ(&tell(first, &java_early), &tell(second, &zabra_early))
}

/// The first of them, each on a line of its own.
fn tell(names: &mut Names, taken: &[Taken]) -> String {
    taken.iter().take(3).map(|taken| format!("\n    {}", Shown::of(names, taken))).collect()
}

pub fn differ(java: &str, zabra: &str) -> Option<String> {
    (java != zabra).then(|| format!("java:  {java}\n  zabra: {zabra}"))
}

/// Something that a slot heard, with the request that it answers.
#[derive(Debug)]
struct Taken {
    heard: Heard,
    sent: Option<(i32, i32)>,
}

/// Puts replies to their requests, and apart what may overtake. Sorts the events of a session's end.
fn arrange(names: &Names, sends: &[Sent], heard: Vec<Heard>) -> (Vec<Taken>, Vec<Taken>) {
    let mut in_order = sends.iter().filter(|sent| !op::overtakes(sent.op));
    let mut early = sends.iter().filter(|sent| op::overtakes(sent.op)).peekable();
    let (mut main, mut overtaking) = (Vec::new(), Vec::new());
    for heard in heard {
        let xid = match &heard {
            Heard::Reply(reply) => Some(reply.xid),
            Heard::Odd(_) => Some(0),
            Heard::Event(_) | Heard::Closed | Heard::Silence => None,
        };
        if let Some(sent) = early.next_if(|sent| Some(sent.xid) == xid) {
            overtaking.push(Taken { heard, sent: Some((sent.xid, sent.op)) });
            continue;
        }
        let sent = xid.and_then(|_| in_order.next()).map(|sent| (sent.xid, sent.op));
        main.push(Taken { heard, sent });
    }
    let ended = |taken: &Taken| match &taken.heard {
        Heard::Event(event) if names.ended.contains(&event.zxid) => Some(event.zxid),
        _ => None,
    };
    for run in main.chunk_by_mut(|one, other| ended(one).is_some() && ended(one) == ended(other)) {
        if run.len() > 1 {
            run.sort_by(|one, other| body(&one.heard).cmp(body(&other.heard)));
        }
    }
    (main, overtaking)
}

fn body(heard: &Heard) -> &[u8] {
    match heard {
        Heard::Event(reply) | Heard::Reply(reply) => &reply.body,
        Heard::Odd(bytes) => bytes,
        Heard::Closed | Heard::Silence => &[],
    }
}

/// The rule [`Rule::MalformedWrite`]: both say −5, Java with the zxid of the transaction before, we with the next one.
/// That one then counts as the one before.
fn malformed_write(java: &mut Names, zabra: &mut Names, one: &Taken, other: &Taken, known: &Known) {
    let (Heard::Reply(java_reply), Heard::Reply(zabra_reply)) = (&one.heard, &other.heard) else { return };
    let is_write = one.sent.is_some_and(|(_, op)| op::is_write(op));
    if is_write
        && java_reply.err == -5
        && zabra_reply.err == -5
        && java_reply.zxid == java.compared
        && zabra_reply.zxid == zabra.compared + 1
        && known.explains(Rule::MalformedWrite)
    {
        zabra.skip(zabra_reply.zxid);
    }
    java.compared = java.compared.max(java_reply.zxid);
    zabra.compared = zabra.compared.max(zabra_reply.zxid);
}

/// Names the zxids that were given while several sessions sent, and looks whether any session saw them go back. The
/// zxid of a reply that is no write's then says no more: it is set to 0.
pub fn free_order(
    names: &mut Names,
    sends: &[(usize, Vec<Sent>)],
    heard: &mut [Vec<Heard>],
    from: i64,
) -> Option<String> {
    let mut owners = Vec::new();
    for ((slot, sent), heard) in sends.iter().zip(heard) {
        let mut sent = sent.iter();
        let mut last = 0;
        for heard in heard {
            let zxid = match heard {
                Heard::Reply(reply) if sent.next().is_some_and(|sent| op::is_write(sent.op)) => {
                    owners.push(reply.zxid);
                    reply.zxid
                }
                Heard::Reply(reply) => std::mem::take(&mut reply.zxid),
                Heard::Event(event) => event.zxid,
                Heard::Odd(_) | Heard::Closed | Heard::Silence => continue,
            };
            if zxid > 0 && zxid < last {
                return Some(format!("slot {slot} sees zxid {zxid} after {last}"));
            }
            last = last.max(zxid);
        }
    }
    if names.set_free(from, &owners) {
        return None;
    }
    Some(format!("after zxid {from} the writes have the zxids {owners:?}"))
}

/// What a slot heard of itself and of its own subtree, and the events of each other one.
pub fn by_subtree(slot: usize, heard: Vec<Heard>) -> (Vec<Heard>, BTreeMap<Vec<u8>, Vec<Heard>>) {
    let own_top = format!("v{slot}").into_bytes();
    let (mut own, mut others) = (Vec::new(), BTreeMap::<_, Vec<_>>::new());
    for heard in heard {
        match &heard {
            Heard::Event(event) => {
                let path = event.body.get(12..).unwrap_or_default();
                let top = path.split(|byte| *byte == b'/').nth(1).unwrap_or_default().to_vec();
                if top == own_top { own.push(heard) } else { others.entry(top).or_default().push(heard) }
            }
            _ => own.push(heard),
        }
    }
    (own, others)
}

/// What is compared: a thing heard, with names in it.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    what: &'static str,
    op: i32,
    /// xid, err.
    codes: (i32, i32),
    zxid: i64,
    body: Vec<u8>,
}

impl Shown {
    fn of(names: &mut Names, taken: &Taken) -> Shown {
        let shown = |what, op, reply: &Reply, zxid, body| Shown {
            what,
            op,
            codes: (reply.xid, reply.err),
            zxid,
            body,
        };
        let bare = |what, body| Shown { what, op: 0, codes: (0, 0), zxid: 0, body };
        match &taken.heard {
            Heard::Event(event) => shown("event", 0, event, names.zxid(event.zxid), event.body.clone()),
            Heard::Reply(reply) => {
                let op = taken.sent.map_or(0, |(_, op)| op);
                let body = named(op, &reply.body, names);
                // A write that did not decode may have no zxid of its own.
                let owns = op::is_write(op) && reply.err != -5;
                let zxid = if owns { names.zxid(reply.zxid) } else { names.state(reply.zxid) };
                shown("reply", op, reply, zxid, body)
            }
            Heard::Odd(bytes) => bare("odd frame", bytes.clone()),
            Heard::Closed => bare("closed", Vec::new()),
            Heard::Silence => bare("silence", Vec::new()),
        }
    }
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.what {
            "event" => {
                let kind = self.body.get(..4).map(hex).unwrap_or_default();
                let path = reply::quoted(self.body.get(12..));
                write!(f, "event {} zxid {} kind {kind} path {path}", self.codes.1, self.zxid)
            }
            "reply" => {
                let body = reply::describe(self.op, &self.body);
                let (xid, err) = self.codes;
                write!(f, "reply to {} xid {xid} zxid {} err {err} {body}", op::name(self.op), self.zxid)
            }
            what => write!(f, "{what} {}", hex(&self.body)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jute::Writer;

    const REASONS: &str = "malformed-write: a reason of some length\n";

    fn sent(op: i32) -> Sent {
        Sent { xid: 1, op, back: None, body: Vec::new() }
    }

    fn reply(zxid: i64, err: i32, body: &[u8]) -> Heard {
        Heard::Reply(Reply { xid: 1, zxid, err, body: body.to_vec() })
    }

    fn event(zxid: i64, path: &str) -> Heard {
        Heard::Event(Reply {
            xid: -1,
            zxid,
            err: 0,
            body: Writer::new().int(2).int(3).text(path.as_bytes()).0,
        })
    }

    fn stat(zxid: i64, version: i32) -> Vec<u8> {
        let stat = Writer::new().long(zxid).long(zxid).long(0).long(0).int(version).int(0).int(0);
        stat.long(0).int(0).int(0).long(zxid).0
    }

    /// Compares on servers that stand at zxid 100 and 200.
    fn compared(sends: &[Sent], java: Vec<Heard>, zabra: Vec<Heard>) -> Option<String> {
        let known = Known::parse(REASONS).unwrap();
        compare([&mut Names::new(100), &mut Names::new(200)], sends, [java, zabra], &known)
    }

    #[test]
    fn the_same_by_other_zxids_is_the_same() {
        let heard =
            |base: i64| vec![event(base + 1, "/a"), reply(base + 2, 0, &stat(base + 1, 3)), Heard::Closed];
        assert_eq!(compared(&[sent(op::EXISTS)], heard(100), heard(200)), None);
    }

    #[test]
    fn whatever_differs_is_seen() {
        let heard = |base: i64| vec![event(base + 1, "/a"), reply(base + 2, 0, &stat(base + 1, 3))];
        for (what, other) in [
            ("an error", vec![event(201, "/a"), reply(202, -101, &stat(201, 3))]),
            ("a zxid", vec![event(201, "/a"), reply(203, 0, &stat(201, 3))]),
            ("a zxid in a stat", vec![event(201, "/a"), reply(202, 0, &stat(202, 3))]),
            ("a version", vec![event(201, "/a"), reply(202, 0, &stat(201, 4))]),
            ("a byte more", vec![event(201, "/a"), reply(202, 0, &[&stat(201, 3)[..], &[0]].concat())]),
            ("no event", vec![reply(202, 0, &stat(201, 3))]),
            ("another event", vec![event(201, "/b"), reply(202, 0, &stat(201, 3))]),
            ("an event behind", vec![reply(202, 0, &stat(201, 3)), event(201, "/a")]),
            ("an end", vec![event(201, "/a"), reply(202, 0, &stat(201, 3)), Heard::Closed]),
            ("nothing", vec![event(201, "/a"), Heard::Silence]),
        ] {
            assert!(compared(&[sent(op::EXISTS)], heard(100), other).is_some(), "{what}");
        }
    }

    #[test]
    fn a_malformed_write_may_have_a_zxid_of_its_own_and_nothing_more() {
        let sends = [sent(op::CREATE), sent(op::CREATE)];
        let java = || vec![reply(100, -5, &[]), reply(101, 0, b"\0\0\0\0")];
        let zabra = |first, err| vec![reply(first, err, &[]), reply(202, 0, b"\0\0\0\0")];
        assert_eq!(compared(&sends, java(), zabra(201, -5)), None);
        assert!(compared(&sends, java(), zabra(201, -8)).is_some(), "another error");
        assert!(compared(&sends, java(), zabra(202, -5)).is_some(), "two zxids");
        let reads = [sent(op::EXISTS), sent(op::CREATE)];
        assert!(compared(&reads, java(), zabra(201, -5)).is_some(), "a read has none");
    }

    #[test]
    fn only_the_events_of_a_sessions_end_may_change_places() {
        let pair = |base: i64, paths: [&str; 2]| paths.map(|path| event(base + 1, path)).to_vec();
        let known = Known::parse(REASONS).unwrap();
        let (mut java, mut zabra) = (Names::new(100), Names::new(200));
        let swapped = |java: &mut Names, zabra: &mut Names| {
            let heard = [pair(100, ["/a", "/b"]), pair(200, ["/b", "/a"])];
            compare([java, zabra], &[], heard, &known)
        };
        assert!(swapped(&mut java, &mut zabra).is_some());
        java.ended.insert(101);
        zabra.ended.insert(201);
        assert_eq!(swapped(&mut java, &mut zabra), None);
    }

    #[test]
    fn what_overtakes_is_compared_by_itself() {
        let sends = [sent(op::EXISTS), Sent { xid: -4, ..sent(op::AUTH) }];
        let auth = |err| Heard::Reply(Reply { xid: -4, zxid: 0, err, body: Vec::new() });
        let read = |base: i64| reply(base + 1, -101, &[]);
        assert_eq!(compared(&sends, vec![auth(0), read(100)], vec![read(200), auth(0)]), None);
        assert!(compared(&sends, vec![auth(0), read(100)], vec![read(200), auth(-115)]).is_some());
    }

    #[test]
    fn sessions_that_send_at_once_see_zxids_go_forward() {
        let sends = vec![(0, vec![sent(op::CREATE), sent(op::EXISTS)]), (1, vec![sent(op::CREATE)])];
        let heard = |read| vec![vec![reply(12, 0, &[]), reply(read, 0, &[])], vec![reply(11, 0, &[])]];
        let mut right = heard(12);
        assert_eq!(free_order(&mut Names::new(10), &sends, &mut right, 10), None);
        assert_eq!(right[0][1], reply(0, 0, &[]), "the zxid of a read says no more");
        assert!(free_order(&mut Names::new(10), &sends, &mut heard(11), 10).is_some(), "back");
        assert!(free_order(&mut Names::new(9), &sends, &mut heard(12), 9).is_some(), "10 is nobody's");
    }
}
