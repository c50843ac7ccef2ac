//! The replies to what reads do not answer: to a write, from its transaction and what applying it gave
//! (`FinalRequestProcessor`), to `sync`, and to closeSession.

use super::{ClientMessage, CloseReason, Outputs};
use crate::jute::records::{
    Create2Response, CreateResponse, GetDataResponse, ReplyHeader, StatResponse, SyncRequest, SyncResponse,
};
use crate::jute::{SharedReader, close_frame};
use crate::model::{ConnId, ErrorCode, Op, Zxid, text};
use crate::request::write_reply;
use crate::tree::Applied;
use crate::wire::multi;
use crate::wire::txn::TxnBody;
use crate::zab::Entry;
use bytes::{BufMut, Bytes, BytesMut};

/// Whether a write was refused because its session is at home elsewhere by now.
pub(super) fn has_moved(applied: &Applied) -> bool {
    let moved = ErrorCode::SessionMoved.code();
    applied.err == moved || applied.parts.iter().any(|part| part.err == moved)
}

/// A write's reply, or the end of a connection whose session is at home elsewhere by now: Java answers that with
/// nothing.
pub(super) fn answer(out: &mut Outputs, conn: ConnId, cxid: i32, entry: &Entry, applied: &Applied) {
    if has_moved(applied) {
        return out.close(conn, CloseReason::SessionMoved);
    }
    out.client(conn, ClientMessage::Reply, |bytes| {
        write(bytes, cxid, entry.zxid, &entry.txn.body, applied);
    });
}

/// The path of a `sync`: it is echoed unchecked.
pub(super) fn sync_path(body: &Bytes) -> Result<Option<Bytes>, ErrorCode> {
    let sync = SyncRequest::decode(&mut SharedReader::new(body.clone()));
    sync.map(|sync| sync.path).map_err(|_| ErrorCode::MarshallingError)
}

/// The answer to `sync`: the path as it came.
pub(super) fn write_sync(
    out: &mut Outputs,
    conn: ConnId,
    xid: i32,
    zxid: Zxid,
    path: Result<Option<Bytes>, ErrorCode>,
) {
    match path {
        Err(code) => out.fail(conn, xid, zxid, code),
        Ok(path) => out.client(conn, ClientMessage::Reply, |bytes| {
            let body = |bytes: &mut BytesMut| {
                SyncResponse { path: path.as_deref().map(text::as_java_reads) }.encode(bytes);
            };
            write_reply(bytes, xid, zxid.0, Ok(body));
        }),
    }
}

/// The answer to closeSession; the connection ends behind it.
pub(super) fn last_reply(out: &mut Outputs, conn: ConnId, cxid: i32, zxid: Zxid) {
    out.client(conn, ClientMessage::LastReply, |bytes| {
        write_reply(bytes, cxid, zxid.0, Ok(|_: &mut BytesMut| ()));
    });
}

/// Appends the framed reply.
fn write(out: &mut BytesMut, cxid: i32, zxid: Zxid, body: &TxnBody, applied: &Applied) {
    let start = out.len();
    out.put_i32(0);
    // A failed multi says so inside.
    let err = if matches!(body, TxnBody::Multi(_)) { 0 } else { applied.err };
    ReplyHeader { xid: cxid, zxid: zxid.0, err }.encode(out);
    if err == 0 {
        write_body(out, body, applied);
    }
    close_frame(out, start);
}

fn write_body(out: &mut BytesMut, body: &TxnBody, applied: &Applied) {
    let stat = || applied.stat.expect("a change that went through has a stat");
    match body {
        TxnBody::Create(txn) => CreateResponse { path: &txn.path }.encode(out),
        TxnBody::Create2(txn) => Create2Response { path: &txn.path, stat: stat() }.encode(out),
        TxnBody::CreateContainer(txn) => Create2Response { path: &txn.path, stat: stat() }.encode(out),
        TxnBody::CreateTtl(txn) => Create2Response { path: &txn.path, stat: stat() }.encode(out),
        TxnBody::SetData(_) | TxnBody::SetAcl(_) => StatResponse { stat: stat() }.encode(out),
        TxnBody::Reconfig(txn) => {
            let data = txn.data.as_ref();
            GetDataResponse { data, stat: stat() }.encode(out);
        }
        TxnBody::Multi(parts) => {
            for (part, result) in parts.iter().zip(&applied.parts) {
                if applied.err != 0 {
                    multi::write_error(result.err, out);
                    continue;
                }
                multi::write_result_header(result_op(part).code(), 0, out);
                write_body(out, part, result);
            }
            multi::write_end(out);
        }
        TxnBody::Delete(_)
        | TxnBody::DeleteContainer(_)
        | TxnBody::Check(_)
        | TxnBody::CreateSession(_)
        | TxnBody::CloseSession(_)
        | TxnBody::Error(_) => {}
    }
}

/// Every kind of create but the first one answers as create2.
fn result_op(part: &TxnBody) -> Op {
    let is_create = matches!(part, TxnBody::CreateContainer(_) | TxnBody::CreateTtl(_));
    if is_create { Op::Create2 } else { part.op() }
}
