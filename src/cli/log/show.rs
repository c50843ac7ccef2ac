//! A transaction for people (one line) and for programs (one JSON object).

use crate::cli::arguments::show_time;
use crate::jute::records::Acl;
use crate::model::{ErrorCode, Op, path};
use crate::storage::LogRecord;
use crate::wire::txn::{Txn, TxnBody};
use bytes::Bytes;
use serde_json::{Value, json};

/// How transactions are shown.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct Style {
    /// Print one JSON object per line.
    #[arg(long)]
    pub json: bool,
    /// Print data as escaped text, not just its length.
    #[arg(long)]
    pub data: bool,
}

impl Style {
    pub fn txn(self, record: &LogRecord, txn: &Txn) -> String {
        if self.json { as_json(record, txn, self.data).to_string() } else { as_line(txn, self.data) }
    }
}

fn as_line(txn: &Txn, data: bool) -> String {
    let header = &txn.header;
    let digest = txn.digest.map_or(String::new(), |digest| format!(" digest={:#x}", digest.tree_digest));
    format!(
        "{} session={:#x} cxid={:#x} zxid={:#x} {}{digest}",
        show_time(header.time),
        header.client_id,
        header.cxid,
        header.zxid,
        change(&txn.body, data)
    )
}

/// The entries of an ACL list, with their permission bits.
pub fn acl_text<B: AsRef<[u8]>>(acl: &[Acl<B>]) -> String {
    let text = |bytes: &B| path::display(bytes.as_ref());
    let entries =
        acl.iter().map(|acl| format!("{}:{}:{}", text(&acl.id.scheme), text(&acl.id.id), acl.perms));
    entries.collect::<Vec<_>>().join(",")
}

/// The same for programs.
pub fn acl_json<B: AsRef<[u8]>>(acl: &[Acl<B>]) -> Value {
    let text = |bytes: &B| String::from_utf8_lossy(bytes.as_ref()).into_owned();
    acl.iter()
        .map(|acl| json!({"perms": acl.perms, "scheme": text(&acl.id.scheme), "id": text(&acl.id.id)}))
        .collect()
}

/// Data as text, or its length.
pub fn data_text(data: Option<&[u8]>, show: bool) -> String {
    match data {
        None => "null".into(),
        Some(bytes) if show => format!("{:?}", String::from_utf8_lossy(bytes)),
        Some(bytes) => format!("{} bytes", bytes.len()),
    }
}

/// The same for programs.
pub fn data_json(data: Option<&[u8]>, show: bool) -> Value {
    match data {
        None => Value::Null,
        Some(bytes) if show => json!(String::from_utf8_lossy(bytes)),
        Some(bytes) => json!(bytes.len()),
    }
}

fn change(body: &TxnBody, show: bool) -> String {
    let op = body.op().name();
    let text = |bytes: &[u8]| path::display(bytes);
    let data = |data: &Option<Bytes>| data_text(data.as_deref(), show);
    match body {
        TxnBody::Create(txn) | TxnBody::Create2(txn) => {
            let kind = if txn.ephemeral { " ephemeral" } else { "" };
            format!(
                "{op} {}{kind} data={} parentCVersion={}",
                text(&txn.path),
                data(&txn.data),
                txn.parent_cversion
            )
        }
        TxnBody::CreateContainer(txn) => format!("{op} {} data={}", text(&txn.path), data(&txn.data)),
        TxnBody::CreateTtl(txn) => {
            format!("{op} {} data={} ttl={}ms", text(&txn.path), data(&txn.data), txn.ttl)
        }
        TxnBody::Delete(txn) | TxnBody::DeleteContainer(txn) => format!("{op} {}", text(&txn.path)),
        TxnBody::SetData(txn) | TxnBody::Reconfig(txn) => {
            format!("{op} {} data={} version={}", text(&txn.path), data(&txn.data), txn.version)
        }
        TxnBody::SetAcl(txn) => {
            format!("{op} {} acl={} aversion={}", text(&txn.path), acl_text(&txn.acl), txn.version)
        }
        TxnBody::Check(txn) => format!("{op} {}", text(&txn.path)),
        TxnBody::CreateSession(txn) => format!("{op} timeout={}ms", txn.timeout),
        TxnBody::CloseSession(txn) => {
            let paths = txn.iter().flat_map(|txn| &txn.paths_to_delete).map(|path| text(path));
            format!("{op} deletes=[{}]", paths.collect::<Vec<_>>().join(","))
        }
        TxnBody::Error(txn) => {
            let name = ErrorCode::from_code(txn.err).map_or("unknown", |code| code.name());
            format!("{op} {name} ({})", txn.err)
        }
        TxnBody::Multi(parts) => {
            let parts: Vec<_> = parts.iter().map(|part| change(part, show)).collect();
            format!("{op} [{}]", parts.join("; "))
        }
    }
}

fn as_json(record: &LogRecord, txn: &Txn, data: bool) -> Value {
    let header = &txn.header;
    json!({
        "offset": record.offset,
        "zxid": format!("{:#x}", header.zxid),
        "session": format!("{:#x}", header.client_id),
        "cxid": header.cxid,
        "time": header.time,
        "type": Op::from_code(header.op).map_or("unknown", Op::name),
        "change": body_json(&txn.body, data),
        "digest": txn.digest.map(|digest| format!("{:#x}", digest.tree_digest)),
    })
}

fn body_json(body: &TxnBody, show: bool) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let data = |data: &Option<Bytes>| data_json(data.as_deref(), show);
    let kind = body.op().name();
    match body {
        TxnBody::Create(txn) | TxnBody::Create2(txn) => json!({
            "type": kind, "path": text(&txn.path), "data": data(&txn.data),
            "ephemeral": txn.ephemeral, "parentCVersion": txn.parent_cversion,
        }),
        TxnBody::CreateContainer(txn) => {
            json!({"type": kind, "path": text(&txn.path), "data": data(&txn.data)})
        }
        TxnBody::CreateTtl(txn) => {
            json!({"type": kind, "path": text(&txn.path), "data": data(&txn.data), "ttl": txn.ttl})
        }
        TxnBody::Delete(txn) | TxnBody::DeleteContainer(txn) => {
            json!({"type": kind, "path": text(&txn.path)})
        }
        TxnBody::SetData(txn) | TxnBody::Reconfig(txn) => {
            json!({"type": kind, "path": text(&txn.path), "data": data(&txn.data), "version": txn.version})
        }
        TxnBody::SetAcl(txn) => {
            json!({"type": kind, "path": text(&txn.path), "acl": acl_json(&txn.acl), "aversion": txn.version})
        }
        TxnBody::Check(txn) => json!({"type": kind, "path": text(&txn.path), "version": txn.version}),
        TxnBody::CreateSession(txn) => json!({"type": kind, "timeout": txn.timeout}),
        TxnBody::CloseSession(txn) => {
            let paths = txn.iter().flat_map(|txn| &txn.paths_to_delete).map(|path| text(path));
            json!({"type": kind, "deletes": paths.collect::<Vec<_>>()})
        }
        TxnBody::Error(txn) => json!({"type": kind, "err": txn.err}),
        TxnBody::Multi(parts) => {
            json!({"type": kind, "parts": parts.iter().map(|part| body_json(part, show)).collect::<Vec<_>>()})
        }
    }
}
