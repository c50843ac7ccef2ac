//! A transaction as the log and PROPOSAL packets carry it: header, body by type, optional digest
//! (`server/util/SerializeUtils`).

use crate::jute::records::{
    CheckVersionTxn, CloseSessionTxn, CreateContainerTxn, CreateSessionTxn, CreateTtlTxn, CreateTxn,
    CreateTxnV0, DeleteTxn, ErrorTxn, MultiTxn, SetAclTxn, SetDataTxn, TxnDigest, TxnHeader,
};
use crate::jute::{DecodeError, SharedReader, Source, put_len};
use crate::model::Op;
use bytes::{BufMut, Bytes, BytesMut};

/// The digest version that Java 3.6 and newer write and compare.
pub const DIGEST_VERSION: i32 = 2;

/// Bytes of a multi before its parts.
pub const MULTI_HEAD: usize = 4;
/// Bytes of a multi before each part: its type and its length.
pub const PART_HEAD: usize = 8;

/// A transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Txn {
    /// Its session, cxid, zxid, time (milliseconds since 1970) and type.
    pub header: TxnHeader,
    /// What it changes.
    pub body: TxnBody,
    /// The tree's digest after this transaction.
    pub digest: Option<TxnDigest>,
}

/// The change itself. The header's type is derived from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxnBody {
    /// create, whose reply is the path alone.
    Create(CreateTxn<Bytes>),
    /// create2, whose reply has a stat, too.
    Create2(CreateTxn<Bytes>),
    /// createContainer.
    CreateContainer(CreateContainerTxn<Bytes>),
    /// createTTL.
    CreateTtl(CreateTtlTxn<Bytes>),
    /// delete.
    Delete(DeleteTxn<Bytes>),
    /// deleteContainer, which a leader proposes by itself.
    DeleteContainer(DeleteTxn<Bytes>),
    /// setData.
    SetData(SetDataTxn<Bytes>),
    /// reconfig: setData of `/zookeeper/config`.
    Reconfig(SetDataTxn<Bytes>),
    /// setACL.
    SetAcl(SetAclTxn<Bytes>),
    /// check, in a multi.
    Check(CheckVersionTxn<Bytes>),
    /// createSession.
    CreateSession(CreateSessionTxn),
    /// Without a list in logs of 3.5 and older, and where Java's `closeSessionTxn.enabled` is false.
    CloseSession(Option<CloseSessionTxn<Bytes>>),
    /// A request that was refused: it takes a zxid, and changes nothing.
    Error(ErrorTxn),
    /// multi: all parts, or an error for each.
    Multi(Vec<TxnBody>),
}

impl TxnBody {
    /// The type, as the header has it.
    pub fn op(&self) -> Op {
        match self {
            Self::Create(_) => Op::Create,
            Self::Create2(_) => Op::Create2,
            Self::CreateContainer(_) => Op::CreateContainer,
            Self::CreateTtl(_) => Op::CreateTtl,
            Self::Delete(_) => Op::Delete,
            Self::DeleteContainer(_) => Op::DeleteContainer,
            Self::SetData(_) => Op::SetData,
            Self::Reconfig(_) => Op::Reconfig,
            Self::SetAcl(_) => Op::SetAcl,
            Self::Check(_) => Op::Check,
            Self::CreateSession(_) => Op::CreateSession,
            Self::CloseSession(_) => Op::CloseSession,
            Self::Error(_) => Op::Error,
            Self::Multi(_) => Op::Multi,
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Create(txn) | Self::Create2(txn) => txn.encode(out),
            Self::CreateContainer(txn) => txn.encode(out),
            Self::CreateTtl(txn) => txn.encode(out),
            Self::Delete(txn) | Self::DeleteContainer(txn) => txn.encode(out),
            Self::SetData(txn) | Self::Reconfig(txn) => txn.encode(out),
            Self::SetAcl(txn) => txn.encode(out),
            Self::Check(txn) => txn.encode(out),
            Self::CreateSession(txn) => txn.encode(out),
            Self::CloseSession(Some(txn)) => txn.encode(out),
            Self::CloseSession(None) => {}
            Self::Error(txn) => txn.encode(out),
            // As `MultiTxn` has them.
            Self::Multi(parts) => {
                put_len(out, parts.len());
                for part in parts {
                    out.put_i32(part.op().code());
                    put_len(out, part.encoded_len());
                    part.encode(out);
                }
            }
        }
    }

    /// How many things it changes, one at least: a measure of what it takes to apply it.
    pub fn steps(&self) -> usize {
        match self {
            Self::CloseSession(Some(txn)) => 1 + txn.paths_to_delete.len(),
            Self::Multi(parts) => parts.len().max(1),
            Self::Create(_)
            | Self::Create2(_)
            | Self::CreateContainer(_)
            | Self::CreateTtl(_)
            | Self::Delete(_)
            | Self::DeleteContainer(_)
            | Self::SetData(_)
            | Self::Reconfig(_)
            | Self::SetAcl(_)
            | Self::Check(_)
            | Self::CreateSession(_)
            | Self::CloseSession(None)
            | Self::Error(_) => 1,
        }
    }

    /// How many bytes the record takes.
    pub fn encoded_len(&self) -> usize {
        match self {
            Self::Create(txn) | Self::Create2(txn) => txn.encoded_len(),
            Self::CreateContainer(txn) => txn.encoded_len(),
            Self::CreateTtl(txn) => txn.encoded_len(),
            Self::Delete(txn) | Self::DeleteContainer(txn) => txn.encoded_len(),
            Self::SetData(txn) | Self::Reconfig(txn) => txn.encoded_len(),
            Self::SetAcl(txn) => txn.encoded_len(),
            Self::Check(txn) => txn.encoded_len(),
            Self::CreateSession(txn) => txn.encoded_len(),
            Self::CloseSession(Some(txn)) => txn.encoded_len(),
            Self::CloseSession(None) => 0,
            Self::Error(txn) => txn.encoded_len(),
            Self::Multi(parts) => {
                MULTI_HEAD + parts.iter().map(|part| PART_HEAD + part.encoded_len()).sum::<usize>()
            }
        }
    }

    /// `nested` inside a multi, where only some types are allowed.
    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "whatever operations there are, these alone are transactions"
    )]
    fn decode(op: i32, from: &mut SharedReader, nested: bool) -> Result<Self, DecodeError> {
        let op = Op::from_code(op).ok_or(DecodeError::BadValue("unknown transaction type"))?;
        Ok(match op {
            Op::Create => Self::Create(create(from)?),
            Op::Create2 => Self::Create2(create(from)?),
            Op::CreateContainer => Self::CreateContainer(CreateContainerTxn::decode(from)?),
            Op::CreateTtl => Self::CreateTtl(CreateTtlTxn::decode(from)?),
            Op::Delete => Self::Delete(DeleteTxn::decode(from)?),
            Op::DeleteContainer => Self::DeleteContainer(DeleteTxn::decode(from)?),
            Op::SetData => Self::SetData(SetDataTxn::decode(from)?),
            Op::Check => Self::Check(CheckVersionTxn::decode(from)?),
            Op::Error => Self::Error(ErrorTxn::decode(from)?),
            _ if nested => return Err(DecodeError::BadValue("a transaction type that no multi holds")),
            Op::Reconfig => Self::Reconfig(SetDataTxn::decode(from)?),
            Op::SetAcl => Self::SetAcl(SetAclTxn::decode(from)?),
            Op::CreateSession => Self::CreateSession(CreateSessionTxn::decode(from)?),
            Op::CloseSession if lists_nothing(from) => Self::CloseSession(None),
            Op::CloseSession => Self::CloseSession(Some(CloseSessionTxn::decode(from)?)),
            Op::Multi => {
                let parts = MultiTxn::decode(from)?.txns.into_iter().map(|part| {
                    let data = part.data.ok_or(DecodeError::UnexpectedNull)?;
                    Self::decode(part.op, &mut SharedReader::new(data), true)
                });
                Self::Multi(parts.collect::<Result<_, _>>()?)
            }
            _ => return Err(DecodeError::BadValue("an operation that is no transaction")),
        })
    }
}

/// Whether a closeSession ends without a list, with a digest or without one. The digest's version and value would be a list of
/// two paths without a letter, which no znode has.
fn lists_nothing(from: &SharedReader) -> bool {
    match from.remaining() {
        0 => true,
        TxnDigest::MIN_LEN => {
            TxnDigest::decode(&mut from.clone()).is_ok_and(|digest| digest.version == DIGEST_VERSION)
        }
        _ => false,
    }
}

/// Logs of 3.3 have creates without the parent's cversion: told by the bytes that are left.
fn create(from: &mut SharedReader) -> Result<CreateTxn<Bytes>, DecodeError> {
    let mut ahead = from.clone();
    match CreateTxn::decode(&mut ahead) {
        Ok(txn) => {
            *from = ahead;
            Ok(txn)
        }
        Err(DecodeError::Truncated { .. }) => {
            let old = CreateTxnV0::decode(from)?;
            Ok(CreateTxn {
                path: old.path,
                data: old.data,
                acl: old.acl,
                ephemeral: old.ephemeral,
                parent_cversion: -1,
            })
        }
        Err(other) => Err(other),
    }
}

impl Txn {
    /// Appends the transaction.
    pub fn encode(&self, out: &mut BytesMut) {
        debug_assert_eq!(self.header.op, self.body.op().code());
        self.header.encode(out);
        self.body.encode(out);
        if let Some(digest) = self.digest {
            digest.encode(out);
        }
    }

    /// How many bytes [`Self::encode`] appends.
    pub fn encoded_len(&self) -> usize {
        TxnHeader::MIN_LEN + self.body.encoded_len() + self.digest.map_or(0, |_| TxnDigest::MIN_LEN)
    }

    /// Takes a whole body of log or PROPOSAL. An error if it is no transaction.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut from = SharedReader::new(bytes);
        let header = TxnHeader::decode(&mut from)?;
        let body = TxnBody::decode(header.op, &mut from, false)?;
        let digest = if from.remaining() > 0 { Some(TxnDigest::decode(&mut from)?) } else { None };
        Ok(Self { header, body, digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(op: Op, body: &[u8]) -> Bytes {
        let mut bytes = BytesMut::new();
        TxnHeader { client_id: 7, cxid: 1, zxid: 9, time: 5, op: op.code() }.encode(&mut bytes);
        bytes.put_slice(body);
        bytes.freeze()
    }

    fn paths_of(body: &[u8]) -> (Option<Vec<Bytes>>, Option<u64>) {
        let bytes = transaction(Op::CloseSession, body);
        let txn = Txn::decode(bytes.clone()).unwrap();
        let mut again = BytesMut::new();
        txn.encode(&mut again);
        assert_eq!(again, bytes);
        let TxnBody::CloseSession(listed) = txn.body else { panic!("{:?}", txn.body) };
        (listed.map(|listed| listed.paths_to_delete), txn.digest.map(|digest| digest.tree_digest as u64))
    }

    #[test]
    fn a_closed_session_is_read_with_and_without_a_list_and_a_digest() {
        let digest = [0, 0, 0, 2, 0, 0, 0, 3, 0xa1, 0xb2, 0xc3, 0xd4];
        let value = 0x3_a1b2_c3d4;
        let one = [&[0, 0, 0, 1, 0, 0, 0, 4][..], b"/abc"].concat();
        let none = [0; 4];
        assert_eq!(paths_of(&[]), (None, None));
        assert_eq!(paths_of(&digest), (None, Some(value)));
        assert_eq!(paths_of(&none), (Some(vec![]), None));
        assert_eq!(paths_of(&[&none[..], &digest].concat()), (Some(vec![]), Some(value)));
        // As long as a digest alone.
        assert_eq!(one.len(), digest.len());
        assert_eq!(paths_of(&one), (Some(vec![Bytes::from_static(b"/abc")]), None));
        assert_eq!(
            paths_of(&[&one[..], &digest].concat()),
            (Some(vec![Bytes::from_static(b"/abc")]), Some(value))
        );
    }

    #[test]
    fn a_create_without_the_parents_version_counts_one_more() {
        let mut body = BytesMut::new();
        CreateTxnV0 { path: &b"/a"[..], data: Some(&b"x"[..]), acl: vec![], ephemeral: true }
            .encode(&mut body);
        let TxnBody::Create(txn) = Txn::decode(transaction(Op::Create, &body)).unwrap().body else {
            panic!()
        };
        assert_eq!((&txn.path[..], txn.ephemeral, txn.parent_cversion), (&b"/a"[..], true, -1));
    }
}
