//! Which transactions are wanted.

use crate::cli::arguments;
use crate::model::{Op, Zxid};
use crate::storage::LogRecord;
use crate::wire::txn::{Txn, TxnBody};

/// All of them must hold. Without one, everything is wanted.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Filter {
    /// Only transactions that name this znode. A multi counts if a part of it does.
    #[arg(long)]
    path: Option<String>,
    /// Only transactions that name this znode or one below it.
    #[arg(long)]
    prefix: Option<String>,
    /// Only those of this session, such as 0x1000a3f.
    #[arg(long, value_parser = arguments::session)]
    session: Option<i64>,
    /// Not before this time: 2026-11-28T12:00:00Z, or milliseconds since 1970. It is the leader's clock.
    #[arg(long, value_parser = arguments::time)]
    since: Option<i64>,
    /// Not after this time.
    #[arg(long, value_parser = arguments::time)]
    until: Option<i64>,
    /// From this transaction on.
    #[arg(long, value_parser = arguments::zxid)]
    from_zxid: Option<Zxid>,
    /// Up to this transaction.
    #[arg(long, value_parser = arguments::zxid)]
    to_zxid: Option<Zxid>,
    /// Only these types, as they are printed: create, setData, closeSession, … A multi counts if a part of it has one.
    #[arg(long = "type", value_delimiter = ',', value_parser = arguments::transaction_type)]
    types: Vec<Op>,
}

impl Filter {
    pub fn of_path(path: &str) -> Self {
        Self { path: Some(path.to_owned()), ..Self::default() }
    }

    pub fn first(&self) -> Zxid {
        self.from_zxid.unwrap_or(Zxid::ZERO)
    }

    /// Whether only later transactions follow than are wanted.
    pub fn is_past(&self, zxid: Zxid) -> bool {
        self.to_zxid.is_some_and(|to| zxid > to)
    }

    /// Whether a record may be wanted, by its header and its first path: most are left out here, before they are decoded.
    pub fn may_want(&self, record: &LogRecord) -> bool {
        let Some(header) = Header::of(&record.body) else { return true };
        let in_time = self.since.is_none_or(|since| header.time >= since)
            && self.until.is_none_or(|until| header.time <= until);
        let in_range = self.from_zxid.is_none_or(|from| record.zxid >= from) && !self.is_past(record.zxid);
        let of_session = self.session.is_none_or(|session| header.session == session);
        let is_multi = header.op == Op::Multi.code();
        let of_type = self.types.is_empty() || is_multi || self.types.iter().any(|op| op.code() == header.op);
        in_time && in_range && of_session && of_type && self.may_want_path(&header, &record.body)
    }

    fn may_want_path(&self, header: &Header, body: &[u8]) -> bool {
        let has_many = [Op::Multi, Op::CloseSession].iter().any(|op| op.code() == header.op);
        if has_many || (self.path.is_none() && self.prefix.is_none()) {
            return true;
        }
        let has_none = [Op::CreateSession, Op::Error].iter().any(|op| op.code() == header.op);
        !has_none && Header::path(body).is_none_or(|path| self.wants_path(path))
    }

    fn wants_path(&self, path: &[u8]) -> bool {
        self.path.as_ref().is_none_or(|wanted| path == wanted.as_bytes())
            && self.prefix.as_ref().is_none_or(|top| is_below(path, top.as_bytes()))
    }

    /// Whether a transaction is wanted whose record may be.
    pub fn wants(&self, txn: &Txn) -> bool {
        let of_type = self.types.is_empty()
            || self.types.contains(&txn.body.op())
            || matches!(&txn.body, TxnBody::Multi(parts) if parts.iter().any(|part| self.types.contains(&part.op())));
        let any_path = self.path.is_none() && self.prefix.is_none();
        of_type && (any_path || names(&txn.body, &mut |path| self.wants_path(path)))
    }
}

/// The fixed part of a transaction, as it is in its bytes.
struct Header {
    session: i64,
    time: i64,
    op: i32,
}

impl Header {
    const LEN: usize = 32;

    fn of(body: &[u8]) -> Option<Self> {
        let header: &[u8; Self::LEN] = body.first_chunk()?;
        let long = |at: usize| i64::from_be_bytes(header[at..at + 8].try_into().expect("8 bytes"));
        let op = i32::from_be_bytes(header[28..].try_into().expect("4 bytes"));
        Some(Self { session: long(0), time: long(20), op })
    }

    /// What follows the header first, in all types that have one path.
    fn path(body: &[u8]) -> Option<&[u8]> {
        let (len, rest) = body.get(Self::LEN..)?.split_first_chunk()?;
        rest.get(..usize::try_from(i32::from_be_bytes(*len)).ok()?)
    }
}

/// When a record was written, by the leader's clock, in milliseconds since 1970.
pub fn time_of(record: &LogRecord) -> Option<i64> {
    Header::of(&record.body).map(|header| header.time)
}

/// Whether a znode is `top` or below it.
pub fn is_below(path: &[u8], top: &[u8]) -> bool {
    let top = top.strip_suffix(b"/").unwrap_or(top);
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Whether one of the paths that it names is `wanted`.
pub fn names(body: &TxnBody, wanted: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    match body {
        TxnBody::Create(txn) | TxnBody::Create2(txn) => wanted(&txn.path),
        TxnBody::CreateContainer(txn) => wanted(&txn.path),
        TxnBody::CreateTtl(txn) => wanted(&txn.path),
        TxnBody::Delete(txn) | TxnBody::DeleteContainer(txn) => wanted(&txn.path),
        TxnBody::SetData(txn) | TxnBody::Reconfig(txn) => wanted(&txn.path),
        TxnBody::SetAcl(txn) => wanted(&txn.path),
        TxnBody::Check(txn) => wanted(&txn.path),
        TxnBody::CloseSession(Some(txn)) => txn.paths_to_delete.iter().any(|path| wanted(path)),
        TxnBody::CreateSession(_) | TxnBody::CloseSession(None) | TxnBody::Error(_) => false,
        TxnBody::Multi(parts) => parts.iter().any(|part| names(part, wanted)),
    }
}

/// Whether it changes the znode.
pub fn changes(body: &TxnBody, path: &[u8]) -> bool {
    match body {
        // Nothing of a multi counts if a part of it failed.
        TxnBody::Multi(parts) => {
            !parts.iter().any(|part| matches!(part, TxnBody::Error(_)))
                && parts.iter().any(|part| changes(part, path))
        }
        TxnBody::Check(_) => false,
        TxnBody::Create(_)
        | TxnBody::Create2(_)
        | TxnBody::CreateContainer(_)
        | TxnBody::CreateTtl(_)
        | TxnBody::Delete(_)
        | TxnBody::DeleteContainer(_)
        | TxnBody::SetData(_)
        | TxnBody::Reconfig(_)
        | TxnBody::SetAcl(_)
        | TxnBody::CreateSession(_)
        | TxnBody::CloseSession(_)
        | TxnBody::Error(_) => names(body, &mut |named| named == path),
    }
}
