//! What clients asked, what they were told and when; and whether that could have been, given the transactions that the
//! ensemble committed.

use super::model::{Change, Happened, Model, Txn};
use super::rewatch::{Asking, SetAgain};
use std::collections::{BTreeMap, BTreeSet};

/// A read whose answer would be larger than any may be.
const TOO_LARGE: i32 = -8;
/// A write that is not executed, as a disk has no room.
const NO_ROOM: i32 = -1;
/// The same, as there is no leader.
pub const NOT_READ_ONLY: i32 = -119;
const CONFIG: &str = "/zookeeper/config";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Create {
        path: String,
        data: Vec<u8>,
        sequential: bool,
        ephemeral: bool,
    },
    Container {
        path: String,
    },
    /// A quota on this znode and all below it, with hard limits.
    Quota {
        path: String,
        count: u64,
        bytes: u64,
    },
    /// A znode that goes when nothing happened to it for `ms` milliseconds.
    Ttl {
        path: String,
        ms: i64,
    },
    Delete {
        path: String,
        version: i32,
    },
    Set {
        path: String,
        data: Vec<u8>,
        version: i32,
    },
    /// A create and a set that only go together.
    Multi {
        path: String,
        other: String,
    },
    /// Many sets of the same znode.
    Wide {
        path: String,
        parts: usize,
    },
    SetAcl {
        path: String,
        entries: usize,
    },
    Get {
        path: String,
        watch: bool,
    },
    /// Many reads of the same znode.
    ReadMany {
        path: String,
        parts: usize,
    },
    Exists {
        path: String,
        watch: bool,
    },
    Children {
        path: String,
        watch: bool,
    },
    /// A watch that stays; of all that is below the path, if it is recursive.
    AddWatch {
        path: String,
        recursive: bool,
    },
    Sync,
    Close,
    /// Servers as `joiningServers` and `leavingServers` have them.
    Reconfig {
        joining: String,
        leaving: String,
    },
}

impl Asked {
    pub fn is_write(&self) -> bool {
        !matches!(self, Self::Sync | Self::AddWatch { .. }) && self.reads().is_none()
    }

    /// The znode that is read, if it is.
    pub fn reads(&self) -> Option<&String> {
        match self {
            Self::Get { path, .. }
            | Self::Exists { path, .. }
            | Self::Children { path, .. }
            | Self::ReadMany { path, .. } => Some(path),
            _ => None,
        }
    }
}

/// What a reply said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    pub zxid: i64,
    pub err: i32,
    pub path: Option<String>,
    /// Data, version and mzxid.
    pub node: Option<(Vec<u8>, i32, i64)>,
    pub version: Option<i32>,
    pub children: Option<Vec<String>>,
    pub parts: Vec<i32>,
}

#[derive(Debug, Clone)]
pub struct Request {
    pub session: i64,
    pub cxid: i32,
    pub asked: Asked,
    pub begun: u64,
    pub ended: Option<(u64, Answer)>,
}

/// What came over one connection, in its order.
#[derive(Debug, Clone)]
pub enum Came {
    /// The answer to this request.
    Reply(usize),
    Event {
        kind: i32,
        path: String,
        zxid: i64,
    },
    /// Here it asked for watches that it had had on another connection.
    AsksWatches(SetAgain),
    /// They are set.
    HasWatches {
        zxid: i64,
    },
}

#[derive(Debug, Default)]
pub struct History {
    pub requests: Vec<Request>,
    pub came: BTreeMap<u64, Vec<Came>>,
    /// The connections of each session, in order.
    pub conns: BTreeMap<i64, Vec<u64>>,
}

/// Checks everything that can be checked once the committed transactions are known. `committed` in the order of zxids.
pub fn check(history: &History, committed: &BTreeMap<i64, Vec<u8>>) -> Result<Model, String> {
    let mut txns = BTreeMap::new();
    for (zxid, body) in committed {
        let txn = Txn::read(body).map_err(|error| format!("transaction {zxid:#x} does not read: {error}"))?;
        txns.insert(*zxid, txn);
    }
    let model = replay(history, &txns)?;
    check_writes(history, &txns)?;
    check_real_time(history)?;
    check_sessions(history)?;
    check_watches(history, &model)?;
    Ok(model)
}

/// Applies all transactions, and looks at every read when its zxid has come.
fn replay(history: &History, txns: &BTreeMap<i64, Txn>) -> Result<Model, String> {
    let mut reads: BTreeMap<i64, Vec<&Request>> = BTreeMap::new();
    for request in &history.requests {
        if let Some((_, answer)) = &request.ended
            && request.asked.reads().is_some()
        {
            reads.entry(answer.zxid).or_default().push(request);
        }
    }
    let mut model = Model::default();
    let mut left = reads.into_iter().peekable();
    for (zxid, txn) in txns {
        while let Some((_, requests)) = left.next_if(|(at, _)| at < zxid) {
            requests.iter().try_for_each(|request| check_read(&model, request))?;
        }
        model.apply(txn)?;
    }
    for (_, requests) in left {
        requests.iter().try_for_each(|request| check_read(&model, request))?;
    }
    Ok(model)
}

fn check_read(model: &Model, request: &Request) -> Result<(), String> {
    let Some((_, answer)) = &request.ended else { return Ok(()) };
    let wrong = |what: &str| {
        Err(format!(
            "{what}: {:?} was answered {answer:?}, where the model has {:?}",
            request.asked, model.nodes
        ))
    };
    let Some(path) = request.asked.reads() else { return Ok(()) };
    if matches!(request.asked, Asked::ReadMany { .. }) && answer.err == TOO_LARGE {
        return Ok(());
    }
    let are = |err: i32| answer.parts.iter().all(|part| *part == err);
    let err = if answer.parts.is_empty() || are(0) { answer.err } else { answer.parts[0] };
    if !answer.parts.is_empty() && !are(err) {
        return wrong("parts of one read that differ");
    }
    match (model.nodes.get(path), err) {
        (None, -101) => Ok(()),
        (Some(node), 0) => {
            if let Some((data, version, mzxid)) = &answer.node
                && (data, version, mzxid) != (&node.data, &node.version, &node.mzxid)
            {
                return wrong("a read of other data");
            }
            if let Some(version) = answer.version
                && version != node.version
            {
                return wrong("a stat of another version");
            }
            if let Some(children) = &answer.children {
                let mut sorted = children.clone();
                sorted.sort();
                let there: Vec<String> =
                    node.children.iter().filter(|name| *name != "zookeeper").cloned().collect();
                sorted.retain(|name| name != "zookeeper");
                if sorted != there {
                    return wrong("a read of other children");
                }
            }
            Ok(())
        }
        _ => wrong("a read of what is not so"),
    }
}

/// Every write that was answered is there, with that outcome.
fn check_writes(history: &History, txns: &BTreeMap<i64, Txn>) -> Result<(), String> {
    let mut answered = BTreeMap::new();
    let mut refused = Vec::new();
    for request in history.requests.iter().filter(|request| request.asked.is_write()) {
        let Some((_, answer)) = &request.ended else { continue };
        // A session that counts from the start again may have had an answer to another request under the same number, and may
        // since have been told of nothing newer.
        let is_outcome = |txn: &Txn| {
            let is_own = (txn.session, txn.cxid) == (request.session, request.cxid);
            is_own
                && matches!(txn.change, Change::Error { code: NO_ROOM })
                && !answered.contains_key(&answer.zxid)
        };
        if answer.err == NOT_READ_ONLY
            || answer.err == NO_ROOM && !txns.get(&answer.zxid).is_some_and(is_outcome)
        {
            refused.push(request);
            continue;
        }
        let lost =
            |what: &str| Err(format!("{what}: {request:?}, committed is {:?}", txns.get(&answer.zxid)));
        let Some(txn) = txns.get(&answer.zxid) else { return lost("an acknowledged write is lost") };
        if (txn.session, txn.cxid) != (request.session, request.cxid) {
            return lost("an acknowledged write is another one's");
        }
        if let Some(other) = answered.insert(answer.zxid, request) {
            return Err(format!("one transaction answers two writes: {other:?}, {request:?}"));
        }
        match (&request.asked, &txn.change) {
            (_, Change::Error { code }) if *code == answer.err => {}
            (
                Asked::Create { path, sequential, ephemeral, .. },
                Change::Create { path: made, ephemeral: is, .. },
            ) => {
                let as_asked = if *sequential { made.starts_with(path.as_str()) } else { made == path };
                if !as_asked || answer.path.as_ref() != Some(made) || is != ephemeral || answer.err != 0 {
                    return lost("a create came out otherwise");
                }
            }
            (Asked::Container { path } | Asked::Ttl { path, .. }, Change::Create { path: made, .. })
                if path == made && answer.err == 0 => {}
            (Asked::Delete { path, .. }, Change::Delete { path: gone })
                if path == gone && answer.err == 0 => {}
            (Asked::Set { path, version, .. }, Change::SetData { path: set, version: new, .. }) => {
                if path != set || answer.version != Some(*new) || (*version >= 0 && *version + 1 != *new) {
                    return lost("a set came out otherwise");
                }
            }
            (Asked::Multi { .. } | Asked::Wide { .. } | Asked::Quota { .. }, Change::Multi(parts)) => {
                let failed = parts.iter().any(|part| matches!(part, Change::Error { .. }));
                if failed != answer.parts.iter().any(|err| *err != 0) {
                    return lost("a multi came out otherwise");
                }
            }
            (Asked::SetAcl { path, .. }, Change::SetAcl { path: set }) if path == set && answer.err == 0 => {}
            (Asked::Close, Change::CloseSession { .. }) if answer.err == 0 => {}
            (Asked::Reconfig { .. }, Change::Reconfig) if answer.err == 0 => {}
            _ => return lost("a write came out otherwise"),
        }
    }
    refused.into_iter().try_for_each(|request| check_refused(request, history, txns))
}

/// What was refused was not done, unless the session counted from the start again and asked for something else under the same number.
fn check_refused(request: &Request, history: &History, txns: &BTreeMap<i64, Txn>) -> Result<(), String> {
    let ids = (request.session, request.cxid);
    let asked = history.requests.iter().filter(|other| (other.session, other.cxid) == ids).count();
    let is_done = |txn: &&Txn| (txn.session, txn.cxid) == ids && !matches!(txn.change, Change::Error { .. });
    match txns.values().find(is_done) {
        Some(txn) if asked == 1 => Err(format!("a write was refused, and done: {request:?}, {txn:?}")),
        Some(_) | None => Ok(()),
    }
}

fn is_refused(answer: &Answer) -> bool {
    answer.err == NO_ROOM || answer.err == NOT_READ_ONLY
}

/// What was over before something else began has the smaller zxid; and a `sync` brings all of it.
fn check_real_time(history: &History) -> Result<(), String> {
    let mut ends: Vec<(u64, i64)> = Vec::new();
    for request in history.requests.iter().filter(|request| request.asked.is_write()) {
        if let Some((at, answer)) = &request.ended
            && !is_refused(answer)
        {
            ends.push((*at, answer.zxid));
        }
    }
    ends.sort_unstable();
    let mut highest = Vec::with_capacity(ends.len());
    let mut max = 0;
    for (_, zxid) in &ends {
        max = max.max(*zxid);
        highest.push(max);
    }
    let before = |time: u64| {
        let count = ends.partition_point(|(at, _)| *at < time);
        if count == 0 { 0 } else { highest[count - 1] }
    };
    for request in &history.requests {
        let Some((_, answer)) = &request.ended else { continue };
        let must = before(request.begun);
        match request.asked {
            Asked::Sync if answer.err == 0 && answer.zxid < must => {
                return Err(format!(
                    "a sync at {:#x} misses {must:#x}, which was over before: {request:?}",
                    answer.zxid
                ));
            }
            _ if request.asked.is_write() && !is_refused(answer) && answer.zxid <= must => {
                return Err(format!("a write got {:#x} behind {must:#x}: {request:?}", answer.zxid));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Per session and connection: replies in the order of requests, zxids that never go back.
fn check_sessions(history: &History) -> Result<(), String> {
    for (session, conns) in &history.conns {
        let mut seen = 0;
        for conn in conns {
            let mut last_request = None;
            for came in history.came.get(conn).into_iter().flatten() {
                let zxid = match came {
                    Came::Reply(at) => {
                        if last_request.is_some_and(|last| last >= *at) {
                            return Err(format!(
                                "session {session:#x}: replies out of order on connection {conn}"
                            ));
                        }
                        last_request = Some(*at);
                        history.requests[*at].ended.as_ref().map_or(0, |(_, answer)| answer.zxid)
                    }
                    Came::Event { zxid, .. } | Came::HasWatches { zxid } => *zxid,
                    Came::AsksWatches(_) => 0,
                };
                if zxid > 0 && zxid < seen {
                    return Err(format!(
                        "session {session:#x} saw {seen:#x}, then {zxid:#x} on connection {conn}"
                    ));
                }
                seen = seen.max(zxid);
            }
        }
    }
    Ok(())
}

/// Every watch fires once, at the transaction that it waits for, and before anything newer is shown.
fn check_watches(history: &History, model: &Model) -> Result<(), String> {
    for (conn, came) in &history.came {
        // By table (data or children) and path: the zxid at which it was set.
        let mut set: BTreeMap<(bool, String), i64> = BTreeMap::new();
        let mut lasting = Lasting::new(model);
        let mut asking = Asking::default();
        let fires = |children: bool, path: &str, since: i64| {
            let events = model.events.get(path)?;
            let is_it = |happened: Happened| match happened {
                Happened::Deleted => true,
                Happened::Children => children,
                Happened::Created | Happened::Changed => !children,
            };
            events.iter().find(|(zxid, happened)| *zxid > since && is_it(*happened)).copied()
        };
        for came in came {
            match came {
                Came::AsksWatches(asked) => asking.begin(asked),
                Came::HasWatches { zxid } => {
                    let (asked, waiting) =
                        asking.end(*zxid, model).map_err(|what| format!("connection {conn}: {what}"))?;
                    for key in waiting {
                        set.entry(key).or_insert(*zxid);
                    }
                    for (paths, recursive) in [(asked.persistent, false), (asked.recursive, true)] {
                        paths.iter().for_each(|path| lasting.add(path, recursive, *zxid));
                    }
                }
                Came::Event { kind, path, zxid: -1 } => {
                    asking
                        .on_event(*kind, path)
                        .map_err(|what| format!("connection {conn}: {what}: {path}"))?;
                }
                Came::Event { kind, path, zxid } => {
                    let expected = match kind {
                        1 => Happened::Created,
                        2 => Happened::Deleted,
                        3 => Happened::Changed,
                        _ => Happened::Children,
                    };
                    let mut matched = false;
                    for children in [false, true] {
                        let key = (children, path.clone());
                        if let Some(since) = set.get(&key)
                            && fires(children, path, *since) == Some((*zxid, expected))
                        {
                            set.remove(&key);
                            matched = true;
                        }
                    }
                    matched |= lasting.on_event(path, *zxid, expected);
                    if !matched {
                        return Err(format!(
                            "connection {conn}: event {kind} of {path} at {zxid:#x}, for which no watch was set: {set:?}"
                        ));
                    }
                }
                Came::Reply(at) => {
                    let request = &history.requests[*at];
                    let Some((_, answer)) = &request.ended else { continue };
                    for ((children, path), since) in &set {
                        if let Some((due, _)) =
                            fires(*children, path, *since).filter(|(due, _)| *due <= answer.zxid)
                        {
                            return Err(format!(
                                "connection {conn}: the reply at {:#x} came before the event of {path} at {due:#x}",
                                answer.zxid
                            ));
                        }
                    }
                    lasting.on_reply(answer.zxid).map_err(|what| format!("connection {conn}: {what}"))?;
                    if let Asked::AddWatch { path, recursive } = &request.asked
                        && answer.err == 0
                    {
                        lasting.add(path, *recursive, answer.zxid);
                    }
                    let watch = match &request.asked {
                        Asked::Get { path, watch: true } if answer.err == 0 => Some((false, path)),
                        Asked::Exists { path, watch: true } => Some((false, path)),
                        Asked::Children { path, watch: true } if answer.err == 0 => Some((true, path)),
                        _ => None,
                    };
                    if let Some((children, path)) = watch {
                        set.entry((children, path.clone())).or_insert(answer.zxid);
                    }
                }
            }
        }
    }
    Ok(())
}

/// Watches of one connection that stay: each change comes once, before anything newer.
struct Lasting<'a> {
    model: &'a Model,
    /// Path, whether what is below counts as well, and the zxid at which it was set.
    watches: Vec<(String, bool, i64)>,
    told: BTreeSet<(i64, String, Happened)>,
    /// All before was told.
    upto: i64,
}

impl<'a> Lasting<'a> {
    fn new(model: &'a Model) -> Self {
        Self { model, watches: Vec::new(), told: BTreeSet::new(), upto: 0 }
    }

    fn add(&mut self, path: &str, recursive: bool, zxid: i64) {
        let is_new = !self.watches.iter().any(|(known, kind, _)| known == path && *kind == recursive);
        if is_new {
            self.watches.push((path.into(), recursive, zxid));
        }
    }

    fn covers(&self, path: &str, zxid: i64, happened: Happened) -> bool {
        self.watches.iter().any(|(root, recursive, since)| {
            let rest = path.strip_prefix(if root == "/" { "" } else { root });
            let is_below = || rest.is_some_and(|rest| rest.starts_with('/'));
            let sees = if *recursive {
                happened != Happened::Children && (path == root || is_below())
            } else {
                path == root
            };
            sees && zxid > *since
        })
    }

    /// Whether it was to be told this.
    fn on_event(&mut self, path: &str, zxid: i64, happened: Happened) -> bool {
        if !self.covers(path, zxid, happened) {
            return false;
        }
        if path == CONFIG {
            // The model has none.
            return true;
        }
        let events = self.model.events.get(path);
        let has_happened = events.is_some_and(|events| events.contains(&(zxid, happened)));
        self.told.insert((zxid, path.into(), happened));
        has_happened
    }

    fn on_reply(&mut self, zxid: i64) -> Result<(), String> {
        if self.watches.is_empty() {
            return Ok(());
        }
        for (path, events) in &self.model.events {
            let from = events.partition_point(|(at, _)| *at <= self.upto);
            for (at, happened) in events[from..].iter().take_while(|(at, _)| *at <= zxid) {
                if self.covers(path, *at, *happened) && !self.told.contains(&(*at, path.clone(), *happened)) {
                    return Err(format!(
                        "the reply at {zxid:#x} came before {happened:?} of {path} at {at:#x}"
                    ));
                }
            }
        }
        self.upto = self.upto.max(zxid);
        Ok(())
    }
}
