//! The reply to a write, from its transaction and what applying it gave (`FinalRequestProcessor`).

use crate::jute::close_frame;
use crate::jute::records::{Create2Response, CreateResponse, ReplyHeader, StatResponse};
use crate::model::{Op, Zxid};
use crate::tree::Applied;
use crate::wire::multi;
use crate::wire::txn::TxnBody;
use bytes::{BufMut, BytesMut};

/// Appends the framed reply.
pub(super) fn write(out: &mut BytesMut, cxid: i32, zxid: Zxid, body: &TxnBody, applied: &Applied) {
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
            crate::jute::records::GetDataResponse { data, stat: stat() }.encode(out);
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
    match part {
        TxnBody::CreateContainer(_) | TxnBody::CreateTtl(_) => Op::Create2,
        _ => part.op(),
    }
}
