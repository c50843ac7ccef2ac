//! Serves the requests that change nothing: from the tree straight into the connection's output
//! (`FinalRequestProcessor`). Watches are registered under the same lock as the read.

use super::{Rules, acl};
use crate::jute::records::{
    AddWatchRequest, ClientInfo, ErrorResponse, ExistsRequest, GetAclRequest, GetAclResponse,
    GetAllChildrenNumberRequest, GetAllChildrenNumberResponse, GetChildrenRequest, GetDataRequest,
    GetDataResponse, GetEphemeralsRequest, Id, ReplyHeader, SetWatches, SetWatches2, StatResponse,
    WatcherEvent, WatchesRequest, WhoAmIResponse,
};
use crate::jute::{self, DecodeError, FRAME_HEAD, Reader as Frame, close_frame, put_bytes, put_len};
use crate::model::{ConnId, ErrorCode, Op, SessionId, perms, text};
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

/// Appends the framed reply (and, for setWatches, the events that precede it) to `out`.
pub fn serve(db: &Database, reader: Reader<'_>, xid: i32, op: Op, body: &[u8], out: &mut BytesMut) {
    // Events that setWatches finds go out before its reply.
    if matches!(op, Op::SetWatches | Op::SetWatches2) {
        let result = set_watches(db, reader, op, body, out);
        return write_reply(out, xid, db.last_zxid.0, result.map(|()| |_: &mut BytesMut| ()));
    }
    let start = out.len();
    out.put_i32(0);
    ReplyHeader { xid, zxid: db.last_zxid.0, err: 0 }.encode(out);
    let body_at = out.len();
    if let Err(code) = answer(db, reader, op, body, out) {
        // A multiRead that fails half-way sends what it has, as Java's does.
        if op != Op::MultiRead {
            out.truncate(body_at);
        }
        out[body_at - 4..body_at].copy_from_slice(&code.code().to_be_bytes());
    }
    if !jute::fits(out.len() - start - FRAME_HEAD) {
        // No frame tells of so much.
        out.truncate(start);
        return write_reply(
            out,
            xid,
            db.last_zxid.0,
            Err::<fn(&mut BytesMut), _>(ErrorCode::MarshallingError),
        );
    }
    close_frame(out, start);
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
        Op::GetChildren | Op::GetChildren2 => {
            let GetChildrenRequest { path, watch } = GetChildrenRequest::decode(from).map_err(malformed)?;
            let path = path.ok_or(ErrorCode::MarshallingError)?;
            get_children(db, reader, path, watch, op == Op::GetChildren2, out)
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
        Op::GetEphemerals => {
            let request = GetEphemeralsRequest::decode(from).map_err(malformed)?;
            get_ephemerals(db, reader.session, request.prefix.unwrap_or_default(), out);
            Ok(())
        }
        Op::GetAllChildrenNumber => {
            let request = GetAllChildrenNumberRequest::decode(from).map_err(malformed)?;
            let id = readable(db, reader, request.path)?;
            // Java counts by the beginnings of paths: below the empty one it finds the root's other name too.
            let total = db.tree.descendants(id) + usize::from(request.path.is_empty());
            GetAllChildrenNumberResponse { total: i32::try_from(total).unwrap_or(i32::MAX) }.encode(out);
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
    let id = db.tree.find(path).ok_or(ErrorCode::NoNode)?;
    if db.tree.is_open(id) || acl::permits(reader.rules, db.tree.acl(id), perms::READ, reader.auth) {
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
    GetDataResponse { data: db.tree.data(id), stat: db.tree.stat(id) }.encode(out);
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
    watch: bool,
    with_stat: bool,
    out: &mut BytesMut,
) -> Result<(), ErrorCode> {
    let id = readable(db, reader, path)?;
    write_children(db, id, out);
    if with_stat {
        db.tree.stat(id).encode(out);
    }
    if watch {
        db.watches.lock().add(reader.conn, reader.auth, path, WatchKind::Child, WatchMode::Standard);
    }
    Ok(())
}

fn write_children(db: &Database, id: NodeId, out: &mut BytesMut) {
    // With more than a length can tell, the whole answer is too large.
    out.put_i32(i32::try_from(db.tree.child_count(id)).unwrap_or(i32::MAX));
    for name in db.tree.children(id) {
        put_bytes(out, name);
    }
}

fn get_acl(db: &Database, reader: Reader<'_>, path: &[u8], out: &mut BytesMut) -> Result<(), ErrorCode> {
    let id = db.tree.find(path).ok_or(ErrorCode::NoNode)?;
    let list = db.tree.acl(id);
    if !acl::permits(reader.rules, list, perms::READ | perms::ADMIN, reader.auth) {
        return Err(ErrorCode::NoAuth);
    }
    let shown = acl::masked(reader.rules, list, reader.auth);
    GetAclResponse { acl: shown, stat: db.tree.stat(id) }.encode(out);
    Ok(())
}

fn get_ephemerals(db: &Database, session: SessionId, prefix: &[u8], out: &mut BytesMut) {
    // Java's `trim` takes everything up to the blank for one.
    let is_blank = |byte: &u8| *byte <= b' ';
    let from = prefix.iter().position(|byte| !is_blank(byte)).unwrap_or(prefix.len());
    let to = prefix.iter().rposition(|byte| !is_blank(byte)).map_or(from, |at| at + 1);
    let all = matches!(&prefix[from..to], b"" | b"/");
    // Bytes that are no text become a character that no path has.
    let prefix = text::as_java_reads(prefix);
    let own = db.tree.ephemerals_of(session).filter(|path| all || path.starts_with(&prefix));
    let own: Vec<_> = own.collect();
    crate::jute::records::GetEphemeralsResponse { ephemerals: own }.encode(out);
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

fn multi_read(
    db: &Database,
    reader: Reader<'_>,
    from: &mut Frame<'_>,
    out: &mut BytesMut,
) -> Result<(), ErrorCode> {
    let parts = multi::decode(from).map_err(malformed)?;
    let start = out.len();
    let done = parts.into_iter().try_for_each(|part| {
        if !jute::fits(out.len() - start) {
            return Err(ErrorCode::MarshallingError);
        }
        let (op, path) = match part {
            Part::GetData(request) => (Op::GetData, request.path),
            Part::GetChildren(request) => (Op::GetChildren, request.path),
            // A write, or a null path: the request fails here, after the results so far.
            _ => return Err(ErrorCode::MarshallingError),
        };
        match readable(db, reader, path.ok_or(ErrorCode::MarshallingError)?) {
            Ok(id) => {
                multi::write_result_header(op.code(), 0, out);
                if op == Op::GetData {
                    GetDataResponse { data: db.tree.data(id), stat: db.tree.stat(id) }.encode(out);
                } else {
                    write_children(db, id, out);
                }
            }
            Err(code) => multi::write_error(code.code(), out),
        }
        Ok(())
    });
    multi::write_end(out);
    done
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

/// Sets the watches of a reconnected client again and sends what it missed. Unlike Java, it sends that only for
/// znodes that it may read: there any client could learn of any path this way. The watch stays, as its events are
/// filtered when they fire. Java stumbles over a null only when it comes to it: what comes before has its effect.
fn set_watches(
    db: &Database,
    reader: Reader<'_>,
    op: Op,
    body: &[u8],
    out: &mut BytesMut,
) -> Result<(), ErrorCode> {
    let from = &mut Frame::new(body);
    let lists = if op == Op::SetWatches2 {
        SetWatches2::decode(from).map_err(malformed)?
    } else {
        let old = SetWatches::decode(from).map_err(malformed)?;
        SetWatches2 {
            relative_zxid: old.relative_zxid,
            data: old.data,
            exist: old.exist,
            child: old.child,
            persistent: Some(Vec::new()),
            persistent_recursive: Some(Vec::new()),
        }
    };
    const NULL: ErrorCode = ErrorCode::MarshallingError;
    let since = lists.relative_zxid;
    let mut watches = db.watches.lock();
    let mut add = |path: &[u8], kind| {
        let path = watch_key(Some(path));
        watches.add(reader.conn, reader.auth, &path, kind, WatchMode::Standard);
    };
    let mut tell = |kind, path| write_event(out, -1, kind, &text::as_java_reads(path));
    for path in lists.data.ok_or(NULL)? {
        let path = path.ok_or(NULL)?;
        match readable(db, reader, path) {
            Err(ErrorCode::NoAuth) => add(path, WatchKind::Data),
            Err(_) => tell(EventKind::Deleted, path),
            Ok(id) if db.tree.stat(id).mzxid > since => tell(EventKind::DataChanged, path),
            Ok(_) => add(path, WatchKind::Data),
        }
    }
    for path in lists.exist.ok_or(NULL)? {
        let path = path.ok_or(NULL)?;
        match readable(db, reader, path) {
            Err(_) => add(path, WatchKind::Data),
            Ok(_) => tell(EventKind::Created, path),
        }
    }
    for path in lists.child.ok_or(NULL)? {
        let path = path.ok_or(NULL)?;
        match readable(db, reader, path) {
            Err(ErrorCode::NoAuth) => add(path, WatchKind::Child),
            Err(_) => tell(EventKind::Deleted, path),
            Ok(id) if db.tree.stat(id).pzxid > since => tell(EventKind::ChildrenChanged, path),
            Ok(_) => add(path, WatchKind::Child),
        }
    }
    for path in lists.persistent.ok_or(NULL)? {
        watches.add_persistent(reader.conn, reader.auth, &watch_key(path), false);
    }
    for path in lists.persistent_recursive.ok_or(NULL)? {
        watches.add_persistent(reader.conn, reader.auth, &watch_key(path), true);
    }
    Ok(())
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
