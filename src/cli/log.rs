//! `zabra log`: the log dump. One line a transaction, or one JSON object a line.

use crate::model::{Op, path};
use crate::storage::{LogEnd, LogReader, LogRecord, RealDisk, StorageError};
use crate::wire::txn::{Txn, TxnBody};
use serde_json::{Value, json};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub struct LogArgs {
    /// Transaction logs: files `log.<zxid>` of Zabra or of a Java server.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
    /// Print data as escaped text, not just its length.
    #[arg(long)]
    data: bool,
}

pub fn run(args: &LogArgs) -> Result<(), String> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut damaged = false;
    for file in &args.files {
        match dump(file, args, &mut out) {
            Ok(good) => damaged |= !good,
            Err(Failed::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(Failed::Output(error)) => return Err(format!("cannot write: {error}")),
            // The advice in such an error is for a server.
            Err(Failed::Storage(StorageError::Damaged { offset: 0, .. })) => {
                return Err(format!("{} is not a transaction log (no ZKLG header)", file.display()));
            }
            Err(Failed::Storage(error)) => return Err(error.to_string()),
        }
    }
    out.flush().map_err(|error| format!("cannot write: {error}"))?;
    if damaged { Err("a log is damaged; see above".into()) } else { Ok(()) }
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("{0}")]
    Output(#[from] io::Error),
    #[error("{0}")]
    Storage(#[from] StorageError),
}

fn dump(file: &Path, args: &LogArgs, out: &mut impl Write) -> Result<bool, Failed> {
    let mut log = LogReader::open(&RealDisk, file)?;
    let mut count = 0_u64;
    while let Some(record) = log.next()? {
        count += 1;
        match Txn::decode(record.body.clone()) {
            Ok(txn) if args.json => writeln!(out, "{}", as_json(&record, &txn, args.data))?,
            Ok(txn) => writeln!(out, "{}", as_line(&txn, args.data))?,
            Err(error) => {
                writeln!(out, "{} offset {}: does not decode: {error}", record.zxid, record.offset)?
            }
        }
    }
    let (good, end) = match log.end().expect("next() came to the end") {
        LogEnd::Clean { offset } => (true, format!("clean end at offset {offset}")),
        LogEnd::Torn { offset, what, .. } => (true, format!("torn at offset {offset}: {what}")),
        LogEnd::Damaged { offset, what, good } => {
            (false, format!("DAMAGED at offset {offset}: {what}; the next good record is at {good}"))
        }
    };
    if args.json {
        let summary = json!({"file": file.display().to_string(), "transactions": count, "end": end});
        writeln!(out, "{summary}")?;
    } else {
        writeln!(out, "{}: {count} transactions, {end}", file.display())?;
    }
    Ok(good)
}

fn as_line(txn: &Txn, data: bool) -> String {
    let header = &txn.header;
    let digest = txn.digest.map_or(String::new(), |digest| format!(" digest={:#x}", digest.tree_digest));
    format!(
        "{} session={:#x} cxid={:#x} zxid={:#x} {}{digest}",
        time(header.time),
        header.client_id,
        header.cxid,
        header.zxid,
        change(&txn.body, data)
    )
}

fn change(body: &TxnBody, show: bool) -> String {
    let op = body.op().name();
    let text = |bytes: &[u8]| path::display(bytes);
    let data = |data: &Option<bytes::Bytes>| match data {
        None => "null".into(),
        Some(bytes) if show => format!("{:?}", String::from_utf8_lossy(bytes)),
        Some(bytes) => format!("{} bytes", bytes.len()),
    };
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
            let entries = txn.acl.iter();
            let acl: Vec<_> = entries
                .map(|acl| format!("{}:{}:{}", text(&acl.id.scheme), text(&acl.id.id), acl.perms))
                .collect();
            format!("{op} {} acl={} aversion={}", text(&txn.path), acl.join(","), txn.version)
        }
        TxnBody::Check(txn) => format!("{op} {}", text(&txn.path)),
        TxnBody::CreateSession(txn) => format!("{op} timeout={}ms", txn.timeout),
        TxnBody::CloseSession(txn) => {
            let paths = txn.iter().flat_map(|txn| &txn.paths_to_delete).map(|path| text(path));
            format!("{op} deletes=[{}]", paths.collect::<Vec<_>>().join(","))
        }
        TxnBody::Error(txn) => {
            let name = crate::model::ErrorCode::from_code(txn.err).map_or("unknown", |code| code.name());
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
    let data = |data: &Option<bytes::Bytes>| match data {
        None => Value::Null,
        Some(bytes) if show => json!(text(bytes)),
        Some(bytes) => json!(bytes.len()),
    };
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
            let acl = txn.acl.iter();
            let acl = acl.map(
                |acl| json!({"perms": acl.perms, "scheme": text(&acl.id.scheme), "id": text(&acl.id.id)}),
            );
            json!({"type": kind, "path": text(&txn.path), "acl": acl.collect::<Vec<_>>(), "aversion": txn.version})
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

/// Milliseconds since 1970 as a UTC time.
fn time(ms: i64) -> String {
    let (days, rest) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    // Civil date from days, by the proleptic Gregorian calendar: years of March to February in eras of 400.
    let era_days = days + 719_468;
    let era = era_days.div_euclid(146_097);
    let day_of_era = era_days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second, milli) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60, rest % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_utc() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(time(1_795_478_399_999), "2026-11-23T23:59:59.999Z");
    }
}
