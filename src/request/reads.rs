//! Serves the requests that change nothing: from the tree straight into the connection's output
//! (`FinalRequestProcessor`). Watches are registered under the same lock as the read.

use super::reading::{Count, Names, Progress, Reading, Stop, WatchList, Watching};
use super::{Rules, TOO_LARGE, acl};
use crate::jute::records::{
    AddWatchRequest, ClientInfo, ErrorResponse, ExistsRequest, GetAclRequest, GetAclResponse,
    GetAllChildrenNumberRequest, GetAllChildrenNumberResponse, GetChildrenRequest, GetDataRequest,
    GetDataResponse, GetEphemeralsRequest, Id, ReplyHeader, SetWatches, SetWatches2, StatResponse,
    WatcherEvent, WatchesRequest, WhoAmIResponse,
};
use crate::jute::{
    self, DecodeError, FRAME_HEAD, Reader as Frame, SharedReader, close_frame, put_bytes, put_len,
};
use crate::model::{Budget, ConnId, ErrorCode, Op, SessionId, perms, text};
use crate::tree::{Database, EventKind, NodeId, WatchKind, WatchMode};
use crate::wire::multi::{self, Part};
use bytes::{BufMut, Bytes, BytesMut};
use std::borrow::Cow;
use std::sync::Arc;

/// On whose behalf a read runs.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    pub conn: ConnId,
    pub session: SessionId,
    pub auth: &'a Arc<[Id<Bytes>]>,
    pub rules: &'a Rules,
    /// What may be done under this hold of the lock.
    pub work: &'a Budget,
}

/// Whether [`serve`] answers this operation.
#[inline]
pub fn is_read(op: Op) -> bool {
    matches!(
        op,
        Op::GetData
            | Op::Exists
            | Op::GetChildren
            | Op::GetChildren2
            | Op::Ping
            | Op::GetAcl
            | Op::CheckWatches
            | Op::RemoveWatches
            | Op::AddWatch
            | Op::SetWatches
            | Op::SetWatches2
            | Op::GetEphemerals
            | Op::GetAllChildrenNumber
            | Op::MultiRead
            | Op::WhoAmI
    )
}

/// Appends the framed reply (and, for setWatches, the events that precede it) to `out`. False: there is more to do than one
/// hold has room for; the same request is to be given again with what is in `reading`, before any other.
pub fn serve(
    db: &Database,
    reader: Reader<'_>,
    xid: i32,
    op: Op,
    body: &[u8],
    reading: &mut Option<Box<Reading>>,
    out: &mut BytesMut,
) -> bool {
    if !may_be_long(op) {
        serve_at_once(db, reader, xid, op, body, out);
        return true;
    }
    let (mut answer, progress) = match reading.take() {
        Some(reading) => (reading.answer, Some(reading.progress)),
        None => (BytesMut::new(), None),
    };
    let is_new = progress.is_none();
    let done = if matches!(op, Op::SetWatches | Op::SetWatches2) {
        // Events that setWatches finds go out before its reply.
        set_watches(db, reader, xid, op, body, progress, out)
    } else if is_new {
        let start = out.len();
        out.put_i32(0);
        ReplyHeader { xid, zxid: 0, err: 0 }.encode(out);
        let done = write_answer(db, reader, op, body, None, out, start);
        if done.is_err() {
            answer = out.split_off(start);
        }
        done
    } else {
        let done = write_answer(db, reader, op, body, progress, &mut answer, 0);
        if done.is_ok() && out.is_empty() {
            *out = std::mem::take(&mut answer);
        } else if done.is_ok() {
            out.extend_from_slice(&answer);
        }
        done
    };
    match done {
        Ok(()) => true,
        Err(progress) => {
            *reading = Some(Box::new(Reading { answer, progress }));
            false
        }
    }
}

/// Whether an answer may take more work than one hold has room for.
fn may_be_long(op: Op) -> bool {
    matches!(
        op,
        Op::GetChildren
            | Op::GetChildren2
            | Op::GetEphemerals
            | Op::GetAllChildrenNumber
            | Op::SetWatches
            | Op::SetWatches2
    )
}

fn serve_at_once(db: &Database, reader: Reader<'_>, xid: i32, op: Op, body: &[u8], out: &mut BytesMut) {
    let start = out.len();
    out.put_i32(0);
    ReplyHeader { xid, zxid: db.last_zxid.0, err: 0 }.encode(out);
    let body_at = out.len();
    let mut answered = answer_at_once(db, reader, op, body, out);
    if !jute::fits(out.len() - start - FRAME_HEAD) {
        // No frame has more bytes.
        answered = Err(TOO_LARGE);
    }
    if let Err(code) = answered {
        // A multiRead that fails half-way sends what it has, as Java's does.
        if op != Op::MultiRead || code == TOO_LARGE {
            out.truncate(body_at);
        }
        out[body_at - 4..body_at].copy_from_slice(&code.code().to_be_bytes());
    }
    close_frame(out, start);
}

/// Completes the frame that begins at `start` with its header. An error: it is not complete.
fn write_answer(
    db: &Database,
    reader: Reader<'_>,
    op: Op,
    body: &[u8],
    progress: Option<Progress>,
    out: &mut BytesMut,
    start: usize,
) -> Result<(), Progress> {
    let body_at = start + FRAME_HEAD + ReplyHeader::MIN_LEN;
    let err = match answer(db, reader, op, body, progress, out, body_at) {
        Ok(()) => 0,
        Err(Stop::Unfinished(progress)) => return Err(progress),
        Err(Stop::Refused(code)) => {
            out.truncate(body_at);
            code.code()
        }
    };
    out[body_at - 12..body_at - 4].copy_from_slice(&db.last_zxid.0.to_be_bytes());
    out[body_at - 4..body_at].copy_from_slice(&err.to_be_bytes());
    close_frame(out, start);
    Ok(())
}

/// Appends a framed reply: header alone on an error, header and body otherwise.
pub fn write_reply(
    out: &mut BytesMut,
    xid: i32,
    zxid: i64,
    body: Result<impl FnOnce(&mut BytesMut), ErrorCode>,
) {
    let err = body.as_ref().err().map_or(0, |code| code.code());
    write_frame(out, ReplyHeader { xid, zxid, err }, |out| {
        if let Ok(body) = body {
            body(out);
        }
    });
}

/// Appends a framed reply whose body does not depend on its error.
pub fn write_frame(out: &mut BytesMut, header: ReplyHeader, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_i32(0);
    header.encode(out);
    body(out);
    close_frame(out, start);
}

/// Appends a framed notification. `zxid` is the transaction's, or −1 for one that setWatches found.
pub fn write_event(out: &mut BytesMut, zxid: i64, kind: EventKind, path: &[u8]) {
    const SYNC_CONNECTED: i32 = 3;
    let event = WatcherEvent { kind: kind as i32, state: SYNC_CONNECTED, path };
    put_len(out, ReplyHeader::MIN_LEN + event.encoded_len());
    ReplyHeader { xid: -1, zxid, err: 0 }.encode(out);
    event.encode(out);
}

fn answer(
    db: &Database,
    reader: Reader<'_>,
    op: Op,
    body: &[u8],
    progress: Option<Progress>,
    out: &mut BytesMut,
    body_at: usize,
) -> Result<(), Stop> {
    let from = &mut Frame::new(body);
    match op {
        Op::GetChildren | Op::GetChildren2 => {
            let GetChildrenRequest { path, watch } = GetChildrenRequest::decode(from).map_err(malformed)?;
            let path = path.ok_or(ErrorCode::MarshallingError)?;
            let id = get_children(db, reader, path, progress, out, body_at)?;
            if op == Op::GetChildren2 {
                db.tree.stat(id).encode(out);
            }
            if watch {
                let (kind, mode) = (WatchKind::Child, WatchMode::Standard);
                db.watches.lock().add(reader.conn, reader.auth, path, kind, mode);
            }
            Ok(())
        }
        Op::GetEphemerals => {
            let request = GetEphemeralsRequest::decode(from).map_err(malformed)?;
            get_ephemerals(db, reader, request.prefix.unwrap_or_default(), progress, out, body_at)
        }
        Op::GetAllChildrenNumber => {
            let request = GetAllChildrenNumberRequest::decode(from).map_err(malformed)?;
            let total = all_children(db, reader, request.path, progress)?;
            GetAllChildrenNumberResponse { total: i32::try_from(total).unwrap_or(i32::MAX) }.encode(out);
            Ok(())
        }
        _ => Err(ErrorCode::Unimplemented.into()),
    }
}

/// Answers what takes little work, or has a bound of its own.
fn answer_at_once(
    db: &Database,
    reader: Reader<'_>,
    op: Op,
    body: &[u8],
    out: &mut BytesMut,
) -> Result<(), ErrorCode> {
    let from = &mut Frame::new(body);
    match op {
        Op::GetData => {
            let GetDataRequest { path, watch } = GetDataRequest::decode(from).map_err(malformed)?;
            get_data(db, reader, path.ok_or(ErrorCode::MarshallingError)?, watch, out)
        }
        Op::Exists => {
            let request = ExistsRequest::decode(from).map_err(malformed)?;
            exists(db, reader, request.path, request.watch, out)
        }
        Op::Ping => Ok(()),
        Op::GetAcl => {
            let request = GetAclRequest::decode(from).map_err(malformed)?;
            get_acl(db, reader, request.path, out)
        }
        Op::CheckWatches | Op::RemoveWatches => {
            let request = WatchesRequest::decode(from).map_err(malformed)?;
            let path = watch_key(request.path);
            named_watches(db, reader, &path, request.kind, op == Op::RemoveWatches)
        }
        Op::AddWatch => {
            let request = AddWatchRequest::decode(from).map_err(malformed)?;
            let recursive = match request.mode {
                0 => false,
                1 => true,
                _ => return Err(ErrorCode::MarshallingError),
            };
            let path = watch_key(request.path);
            db.watches.lock().add_persistent(reader.conn, reader.auth, &path, recursive);
            ErrorResponse { err: 0 }.encode(out);
            Ok(())
        }
        Op::MultiRead => multi_read(db, reader, from, out),
        Op::WhoAmI => {
            who_am_i(reader.auth, out);
            Ok(())
        }
        _ => Err(ErrorCode::Unimplemented),
    }
}

/// The znode, if it is there and the connection may read it.
#[inline]
fn readable(db: &Database, reader: Reader<'_>, path: &[u8]) -> Result<NodeId, ErrorCode> {
    // A path is found by going up from its end.
    reader.work.spend(1 + path.len() / 64);
    let id = db.tree.find(path).ok_or(ErrorCode::NoNode)?;
    if db.tree.is_open(id)
        || acl::permits(reader.rules, db.tree.acl(id), perms::READ, reader.auth, reader.work)
    {
        Ok(id)
    } else {
        Err(ErrorCode::NoAuth)
    }
}

fn get_data(
    db: &Database,
    reader: Reader<'_>,
    path: &[u8],
    watch: bool,
    out: &mut BytesMut,
) -> Result<(), ErrorCode> {
    let id = readable(db, reader, path)?;
    let data = db.tree.data(id);
    reader.work.copied(data.map_or(0, <[u8]>::len));
    GetDataResponse { data, stat: db.tree.stat(id) }.encode(out);
    if watch {
        db.watches.lock().add(reader.conn, reader.auth, path, WatchKind::Data, WatchMode::Standard);
    }
    Ok(())
}

/// The watch is set even where the znode is missing.
fn exists(
    db: &Database,
    reader: Reader<'_>,
    path: &[u8],
    watch: bool,
    out: &mut BytesMut,
) -> Result<(), ErrorCode> {
    if path.contains(&0) {
        return Err(ErrorCode::BadArguments);
    }
    let found = readable(db, reader, path);
    if found == Err(ErrorCode::NoAuth) {
        return Err(ErrorCode::NoAuth);
    }
    if watch {
        let path = watch_key(Some(path));
        db.watches.lock().add(reader.conn, reader.auth, &path, WatchKind::Data, WatchMode::Standard);
    }
    StatResponse { stat: db.tree.stat(found?) }.encode(out);
    Ok(())
}

fn get_children(
    db: &Database,
    reader: Reader<'_>,
    path: &[u8],
    progress: Option<Progress>,
    out: &mut BytesMut,
    body_at: usize,
) -> Result<NodeId, Stop> {
    let id = readable(db, reader, path)?;
    let name = |child, out: &mut BytesMut| {
        put_bytes(out, db.tree.name(child));
        true
    };
    let rest = |at| db.tree.children_after(id, at);
    Names::write(db.children_version(id), progress, rest, name, reader.work, out, body_at)?;
    Ok(id)
}

fn get_acl(db: &Database, reader: Reader<'_>, path: &[u8], out: &mut BytesMut) -> Result<(), ErrorCode> {
    let id = db.tree.find(path).ok_or(ErrorCode::NoNode)?;
    let list = db.tree.acl(id);
    if !acl::permits(reader.rules, list, perms::READ | perms::ADMIN, reader.auth, reader.work) {
        return Err(ErrorCode::NoAuth);
    }
    let shown = acl::masked(reader.rules, list, reader.auth, reader.work);
    GetAclResponse { acl: shown, stat: db.tree.stat(id) }.encode(out);
    Ok(())
}

fn get_ephemerals(
    db: &Database,
    reader: Reader<'_>,
    prefix: &[u8],
    progress: Option<Progress>,
    out: &mut BytesMut,
    body_at: usize,
) -> Result<(), Stop> {
    // Java's `trim` takes everything up to the blank for one.
    let is_blank = |byte: &u8| *byte <= b' ';
    let from = prefix.iter().position(|byte| !is_blank(byte)).unwrap_or(prefix.len());
    let to = prefix.iter().rposition(|byte| !is_blank(byte)).map_or(from, |at| at + 1);
    let all = matches!(&prefix[from..to], b"" | b"/");
    // Bytes that are no text become a character that no path has.
    let prefix = text::as_java_reads(prefix);
    let name = |id, out: &mut BytesMut| {
        let path = db.tree.path(id);
        reader.work.spend(path.len() / 64);
        let is_asked = all || path.starts_with(&prefix);
        if is_asked {
            put_bytes(out, &path);
        }
        is_asked
    };
    let rest = |at| db.tree.ephemerals_after(reader.session, at);
    Names::write(db.ephemerals_version(reader.session), progress, rest, name, reader.work, out, body_at)
}

/// Java counts by the beginnings of paths: below the empty one it finds the root's other name too.
fn all_children(
    db: &Database,
    reader: Reader<'_>,
    path: &[u8],
    progress: Option<Progress>,
) -> Result<usize, Stop> {
    let id = readable(db, reader, path)?;
    if let Some(total) = db.tree.all_below_root(id) {
        return Ok(total + usize::from(path.is_empty()));
    }
    Count::below(db, id, progress, reader.work)
}

fn who_am_i(auth: &[Id<Bytes>], out: &mut BytesMut) {
    let info = |id: &Id<Bytes>| {
        let user = match &id.scheme[..] {
            b"digest" => id.id.slice(..id.id.iter().position(|b| *b == b':').unwrap_or(id.id.len())),
            _ => id.id.clone(),
        };
        ClientInfo { auth_scheme: id.scheme.clone(), user }
    };
    WhoAmIResponse { client_info: auth.iter().map(info).collect() }.encode(out);
}

/// All parts are read at one moment. As each may ask for the same large znode, the answer has a bound of its own.
fn multi_read(
    db: &Database,
    reader: Reader<'_>,
    from: &mut Frame<'_>,
    out: &mut BytesMut,
) -> Result<(), ErrorCode> {
    let parts = multi::decode(from).map_err(malformed)?;
    let end = out.len() + reader.rules.max_multi_read();
    let done = parts.into_iter().try_for_each(|part| {
        let (op, path) = match part {
            Part::GetData(request) => (Op::GetData, request.path),
            Part::GetChildren(request) => (Op::GetChildren, request.path),
            // A write, or a null path: the request fails here, after the results so far.
            _ => return Err(ErrorCode::MarshallingError),
        };
        match readable(db, reader, path.ok_or(ErrorCode::MarshallingError)?) {
            Ok(id) => {
                multi::write_result_header(op.code(), 0, out);
                if op == Op::GetChildren {
                    return write_children(db, id, end, reader.work, out);
                }
                if out.len() + db.tree.data_len(id) > end {
                    return Err(TOO_LARGE);
                }
                reader.work.copied(db.tree.data_len(id));
                GetDataResponse { data: db.tree.data(id), stat: db.tree.stat(id) }.encode(out);
            }
            Err(code) => multi::write_error(code.code(), out),
        }
        if out.len() > end { Err(TOO_LARGE) } else { Ok(()) }
    });
    multi::write_end(out);
    done
}

/// The names of all children, as long as they end before `end`.
fn write_children(
    db: &Database,
    id: NodeId,
    end: usize,
    work: &Budget,
    out: &mut BytesMut,
) -> Result<(), ErrorCode> {
    out.put_i32(i32::try_from(db.tree.child_count(id)).map_err(|_| TOO_LARGE)?);
    for name in db.tree.children(id) {
        if out.len() + name.len() > end {
            return Err(TOO_LARGE);
        }
        work.spend(1);
        put_bytes(out, name);
    }
    Ok(())
}

const STANDARD: u8 = WatchMode::Standard as u8;
const PERSISTENT: u8 = WatchMode::Persistent as u8;
const RECURSIVE: u8 = WatchMode::Recursive as u8;

/// checkWatches and removeWatches: which tables and modes a watcher type means (`WatcherType` of 3.9).
fn named_watches(
    db: &Database,
    reader: Reader<'_>,
    path: &[u8],
    kind: i32,
    remove: bool,
) -> Result<(), ErrorCode> {
    let (data, child) = match kind {
        1 => (0, STANDARD),
        2 => (STANDARD, 0),
        3 => (STANDARD | PERSISTENT | RECURSIVE, STANDARD | PERSISTENT),
        4 => (PERSISTENT, PERSISTENT),
        5 => (RECURSIVE, 0),
        _ => return Err(ErrorCode::MarshallingError),
    };
    let mut watches = db.watches.lock();
    let mut found = false;
    for (table, modes) in [(WatchKind::Data, data), (WatchKind::Child, child)] {
        found |= if remove {
            watches.remove(reader.conn, path, table, modes)
        } else {
            watches.has(reader.conn, path, table, modes)
        };
    }
    if found { Ok(()) } else { Err(ErrorCode::NoWatcher) }
}

/// Sets the watches of a reconnected client again and sends what it missed, then the reply. Unlike Java, it sends that only
/// for znodes that it may read: there any client could learn of any path this way. The watch stays, as its events are
/// filtered when they fire. Java stumbles over a null only when it comes to it: what comes before has its effect.
fn set_watches(
    db: &Database,
    reader: Reader<'_>,
    xid: i32,
    op: Op,
    body: &[u8],
    progress: Option<Progress>,
    out: &mut BytesMut,
) -> Result<(), Progress> {
    let watching = match progress {
        Some(Progress::Watches(watching)) => Ok(watching),
        _ => asked_watches(op, body).map(|asked| Box::new(Watching::new(asked))).map_err(malformed),
    };
    let result = match watching.and_then(|watching| set_each(db, reader, watching, out)) {
        Ok(Some(left)) => return Err(Progress::Watches(left)),
        Ok(None) => Ok(|_: &mut BytesMut| ()),
        Err(code) => Err(code),
    };
    write_reply(out, xid, db.last_zxid.0, result);
    Ok(())
}

fn asked_watches(op: Op, body: &[u8]) -> Result<SetWatches2<Bytes>, DecodeError> {
    let from = &mut SharedReader::new(Bytes::copy_from_slice(body));
    if op == Op::SetWatches2 {
        return SetWatches2::decode(from);
    }
    let old = SetWatches::decode(from)?;
    Ok(SetWatches2 {
        relative_zxid: old.relative_zxid,
        data: old.data,
        exist: old.exist,
        child: old.child,
        persistent: Some(Vec::new()),
        persistent_recursive: Some(Vec::new()),
    })
}

/// As many as there is room for under this hold. What is left comes back.
fn set_each(
    db: &Database,
    reader: Reader<'_>,
    mut watching: Box<Watching>,
    out: &mut BytesMut,
) -> Result<Option<Box<Watching>>, ErrorCode> {
    let since = watching.since;
    let mut watches = db.watches.lock();
    while !reader.work.is_spent() {
        let Some(next) = watching.next() else { return Ok(None) };
        let (list, path) = next?;
        reader.work.spend(2);
        let is_recursive = list == WatchList::Recursive;
        if is_recursive || list == WatchList::Persistent {
            let key = watch_key(path.as_deref());
            watches.add_persistent(reader.conn, reader.auth, &key, is_recursive);
            continue;
        }
        let path = path.as_deref().ok_or(ErrorCode::MarshallingError)?;
        let found = readable(db, reader, path);
        let missed = match (list, found) {
            (WatchList::Exist, found) => found.is_ok().then_some(EventKind::Created),
            (_, Err(ErrorCode::NoAuth)) => None,
            (_, Err(_)) => Some(EventKind::Deleted),
            (WatchList::Child, Ok(id)) => {
                (db.tree.stat(id).pzxid > since).then_some(EventKind::ChildrenChanged)
            }
            (_, Ok(id)) => (db.tree.stat(id).mzxid > since).then_some(EventKind::DataChanged),
        };
        match missed {
            Some(kind) => write_event(out, -1, kind, &text::as_java_reads(path)),
            None => {
                let kind = if list == WatchList::Child { WatchKind::Child } else { WatchKind::Data };
                let key = watch_key(Some(path));
                watches.add(reader.conn, reader.auth, &key, kind, WatchMode::Standard);
            }
        }
    }
    Ok(Some(watching))
}

/// The path that a watch is set on, which need not be one of a znode: Java's string of it. Null is a key too.
fn watch_key(path: Option<&[u8]>) -> Cow<'_, [u8]> {
    // No string has these bytes.
    const NULL: &[u8] = b"\xff";
    path.map_or(Cow::Borrowed(NULL), text::as_java_reads)
}

fn malformed(_: DecodeError) -> ErrorCode {
    ErrorCode::MarshallingError
}
