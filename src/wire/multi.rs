//! multi and multiRead: a sequence of headed requests, and its answer (`MultiOperationRecord`, `MultiResponse`).

use crate::jute::records::{
    AskedAtVersion, AskedCreate, AskedCreateTtl, AskedSetData, GetChildrenRequest, GetDataRequest,
    MultiHeader,
};
use crate::jute::{DecodeError, Source};
use crate::model::{CreateMode, Op};
use bytes::BytesMut;

/// One request inside a multi.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part<B> {
    /// create, create2 or createContainer: by `op`.
    Create {
        /// Which of the three.
        op: Op,
        /// Its record.
        request: AskedCreate<B>,
    },
    /// createTTL.
    CreateTtl(AskedCreateTtl<B>),
    /// delete.
    Delete(AskedAtVersion<B>),
    /// setData.
    SetData(AskedSetData<B>),
    /// check.
    Check(AskedAtVersion<B>),
    /// getData, in a multiRead.
    GetData(GetDataRequest<B>),
    /// getChildren, in a multiRead.
    GetChildren(GetChildrenRequest<B>),
}

impl<B: AsRef<[u8]>> Part<B> {
    /// Whether it belongs into a multiRead.
    pub fn is_read(&self) -> bool {
        matches!(self, Self::GetData(_) | Self::GetChildren(_))
    }

    /// The path, unchecked. None: the record has null there.
    pub fn path(&self) -> Option<&B> {
        match self {
            Self::Create { request, .. } => request.path.as_ref(),
            Self::CreateTtl(request) => request.path.as_ref(),
            Self::Delete(request) | Self::Check(request) => request.path.as_ref(),
            Self::SetData(request) => request.path.as_ref(),
            Self::GetData(request) => request.path.as_ref(),
            Self::GetChildren(request) => request.path.as_ref(),
        }
    }
}

/// Decodes all parts. Reads and writes may not be mixed; the flags of a create select its type again, as in Java.
pub fn decode<S: Source>(from: &mut S) -> Result<Vec<Part<S::Slice>>, DecodeError> {
    let mut parts: Vec<Part<S::Slice>> = Vec::new();
    loop {
        let header = MultiHeader::decode(from)?;
        if header.done {
            return Ok(parts);
        }
        let part = decode_part(header.op, from)?;
        if parts.first().is_some_and(|first| first.is_read() != part.is_read()) {
            return Err(DecodeError::BadValue("a multi that mixes reads and writes"));
        }
        parts.push(part);
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "whatever operations there are, a multi holds these alone")]
fn decode_part<S: Source>(op: i32, from: &mut S) -> Result<Part<S::Slice>, DecodeError> {
    let op = Op::from_code(op).ok_or(DecodeError::BadValue("an unknown operation in a multi"))?;
    Ok(match op {
        Op::Create | Op::Create2 | Op::CreateContainer => {
            let request = AskedCreate::decode(from)?;
            let mode = CreateMode::from_flags(request.flags).ok_or(DecodeError::BadValue("create flags"))?;
            if mode.is_ttl() {
                return Err(DecodeError::BadValue("a TTL mode without a TTL"));
            }
            if request.acl.is_none() {
                return Err(DecodeError::UnexpectedNull);
            }
            plain_create(op, request)
        }
        Op::CreateTtl => {
            let request = AskedCreateTtl::decode(from)?;
            if CreateMode::from_flags(request.flags).is_some_and(CreateMode::is_ttl) {
                return Ok(Part::CreateTtl(request));
            }
            // Without a TTL mode it is a plain create. Flags that are none stay for prep to refuse.
            let AskedCreateTtl { path, data, acl, flags, .. } = request;
            plain_create(Op::Create, AskedCreate { path, data, acl, flags })
        }
        Op::Delete => Part::Delete(AskedAtVersion::decode(from)?),
        Op::SetData => Part::SetData(AskedSetData::decode(from)?),
        Op::Check => Part::Check(AskedAtVersion::decode(from)?),
        Op::GetData => Part::GetData(GetDataRequest::decode(from)?),
        Op::GetChildren => Part::GetChildren(GetChildrenRequest::decode(from)?),
        _ => return Err(DecodeError::BadValue("an operation that no multi holds")),
    })
}

/// The mode of a create makes it a createContainer, whatever operation it came as (`Op.create`).
fn plain_create<B>(op: Op, request: AskedCreate<B>) -> Part<B> {
    let is_container = CreateMode::from_flags(request.flags).is_some_and(CreateMode::is_container);
    Part::Create { op: if is_container { Op::CreateContainer } else { op }, request }
}

/// The header in front of one result.
pub fn write_result_header(op: i32, err: i32, out: &mut BytesMut) {
    MultiHeader { op, done: false, err }.encode(out);
}

/// A failed part: header and body both carry the code.
pub fn write_error(err: i32, out: &mut BytesMut) {
    write_result_header(Op::Error.code(), err, out);
    crate::jute::records::ErrorResponse { err }.encode(out);
}

/// Writes the header that ends an answer.
pub fn write_end(out: &mut BytesMut) {
    MultiHeader { op: -1, done: true, err: -1 }.encode(out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jute::Reader;

    fn decoded(op: Op, write: impl FnOnce(&mut BytesMut)) -> Result<Vec<Part<Vec<u8>>>, DecodeError> {
        let mut bytes = BytesMut::new();
        write_result_header(op.code(), -1, &mut bytes);
        write(&mut bytes);
        write_end(&mut bytes);
        let parts = decode(&mut Reader::new(&bytes))?;
        let owned = parts.into_iter().map(|part| match part {
            Part::Create { op, request } => {
                let (path, flags) = (request.path.map(<[u8]>::to_vec), request.flags);
                Part::Create { op, request: AskedCreate { path, data: None, acl: Some(vec![]), flags } }
            }
            Part::CreateTtl(request) => {
                let (path, flags, ttl) = (request.path.map(<[u8]>::to_vec), request.flags, request.ttl);
                Part::CreateTtl(AskedCreateTtl { path, data: None, acl: Some(vec![]), flags, ttl })
            }
            other => panic!("{other:?}"),
        });
        Ok(owned.collect())
    }

    #[test]
    fn the_mode_of_a_part_decides_what_it_is() {
        let path = || Some(b"/p".to_vec());
        let plain = |op, flags| Part::Create {
            op,
            request: AskedCreate { path: path(), data: None, acl: Some(vec![]), flags },
        };
        let with_ttl = |flags, ttl| {
            Part::CreateTtl(AskedCreateTtl { path: path(), data: None, acl: Some(vec![]), flags, ttl })
        };
        let create = |op, flags| {
            decoded(op, |out| {
                AskedCreate { path: path(), data: None, acl: Some(vec![]), flags }.encode(out);
            })
        };
        let create_ttl = |flags, ttl| {
            decoded(Op::CreateTtl, |out| {
                AskedCreateTtl { path: path(), data: None, acl: Some(vec![]), flags, ttl }.encode(out);
            })
        };
        assert_eq!(create(Op::Create2, 4), Ok(vec![plain(Op::CreateContainer, 4)]));
        assert_eq!(create(Op::Create, 5), Err(DecodeError::BadValue("a TTL mode without a TTL")));
        assert_eq!(create(Op::Create, 7), Err(DecodeError::BadValue("create flags")));
        assert_eq!(create_ttl(6, 9), Ok(vec![with_ttl(6, 9)]));
        assert_eq!(create_ttl(1, 9), Ok(vec![plain(Op::Create, 1)]));
        assert_eq!(create_ttl(4, -1), Ok(vec![plain(Op::CreateContainer, 4)]));
        assert_eq!(create_ttl(-1, 9), Ok(vec![plain(Op::Create, -1)]));
    }

    #[test]
    fn a_create_without_a_list_fails_the_whole_multi() {
        let asked = |op, acl| {
            decoded(op, |out| {
                AskedCreate { path: Some(&b"/p"[..]), data: None, acl, flags: 0 }.encode(out);
            })
        };
        assert_eq!(asked(Op::Create, None), Err(DecodeError::UnexpectedNull));
        assert!(asked(Op::Create, Some(vec![])).is_ok());
    }
}
