//! multi and multiRead: a sequence of headed requests, and its answer (`MultiOperationRecord`, `MultiResponse`).

use crate::jute::records::{
    CheckVersionRequest, CreateRequest, CreateTtlRequest, DeleteRequest, GetChildrenRequest, GetDataRequest,
    MultiHeader, SetDataRequest,
};
use crate::jute::{DecodeError, Source};
use crate::model::{CreateMode, Op};
use bytes::BytesMut;

/// One request inside a multi.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part<B> {
    /// create, create2 or createContainer: by `op`.
    Create {
        op: Op,
        request: CreateRequest<B>,
    },
    CreateTtl(CreateTtlRequest<B>),
    Delete(DeleteRequest<B>),
    SetData(SetDataRequest<B>),
    Check(CheckVersionRequest<B>),
    GetData(GetDataRequest<B>),
    GetChildren(GetChildrenRequest<B>),
}

impl<B: AsRef<[u8]>> Part<B> {
    pub fn is_read(&self) -> bool {
        matches!(self, Self::GetData(_) | Self::GetChildren(_))
    }
}

/// Decodes all parts. Reads and writes may not be mixed; the flags of a create select its type anew, as Java does.
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

fn decode_part<S: Source>(op: i32, from: &mut S) -> Result<Part<S::Slice>, DecodeError> {
    let op = Op::from_code(op).ok_or(DecodeError::BadValue("an unknown operation in a multi"))?;
    Ok(match op {
        Op::Create | Op::Create2 | Op::CreateContainer => {
            let request = CreateRequest::decode(from)?;
            let mode = CreateMode::from_flags(request.flags).ok_or(DecodeError::BadValue("create flags"))?;
            if mode.is_ttl() {
                return Err(DecodeError::BadValue("a TTL mode without a TTL"));
            }
            let op = if mode.is_container() { Op::CreateContainer } else { op };
            Part::Create { op, request }
        }
        Op::CreateTtl => {
            let request = CreateTtlRequest::decode(from)?;
            CreateMode::from_flags(request.flags).ok_or(DecodeError::BadValue("create flags"))?;
            Part::CreateTtl(request)
        }
        Op::Delete => Part::Delete(DeleteRequest::decode(from)?),
        Op::SetData => Part::SetData(SetDataRequest::decode(from)?),
        Op::Check => Part::Check(CheckVersionRequest::decode(from)?),
        Op::GetData => Part::GetData(GetDataRequest::decode(from)?),
        Op::GetChildren => Part::GetChildren(GetChildrenRequest::decode(from)?),
        _ => return Err(DecodeError::BadValue("an operation that no multi holds")),
    })
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

pub fn write_end(out: &mut BytesMut) {
    MultiHeader { op: -1, done: true, err: -1 }.encode(out);
}
