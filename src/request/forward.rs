//! What a learner refuses itself instead of handing it to its leader.
//!
//! A Java leader gives a request that does not decode the last zxid once more, which can never be committed: the whole
//! ensemble would hang. And a transaction that it makes of createTTL without a TTL mode stops every Java server.

use crate::jute::records::{
    AskedCreate, AskedCreateTtl, AskedSetAcl, AskedSetData, DeleteRequest, ReconfigRequest,
};
use crate::jute::{DecodeError, Reader};
use crate::model::{CreateMode, ErrorCode, Op};
use crate::wire::multi;

/// Whether a client's write may be forwarded, or the error to answer it with.
pub fn may_forward(op: Op, body: &[u8]) -> Result<(), ErrorCode> {
    let from = &mut Reader::new(body);
    let decoded = |result: Result<(), DecodeError>| result.map_err(|_| ErrorCode::MarshallingError);
    match op {
        Op::Create | Op::Create2 | Op::CreateContainer => decoded(AskedCreate::decode(from).map(drop)),
        Op::CreateTtl => {
            let request = AskedCreateTtl::decode(from).map_err(|_| ErrorCode::MarshallingError)?;
            match CreateMode::from_flags(request.flags) {
                Some(mode) if !mode.is_ttl() && request.ttl == -1 => Err(ErrorCode::BadArguments),
                _ => Ok(()),
            }
        }
        Op::Delete => decoded(DeleteRequest::decode(from).map(drop)),
        Op::SetData => decoded(AskedSetData::decode(from).map(drop)),
        Op::SetAcl => decoded(AskedSetAcl::decode(from).map(drop)),
        Op::Reconfig => decoded(ReconfigRequest::decode(from).map(drop)),
        Op::Multi => {
            let parts = multi::decode(from).map_err(|_| ErrorCode::MarshallingError)?;
            // Java looks at all paths before it prepares the first part.
            let stumbles = parts.iter().any(|part| part.is_read() || part.path().is_none());
            if stumbles { Err(ErrorCode::MarshallingError) } else { Ok(()) }
        }
        _ => Err(ErrorCode::Unimplemented),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jute::records::CreateTtlRequest;
    use bytes::BytesMut;

    #[test]
    fn what_would_stop_a_java_leader_is_not_handed_on() {
        let mut body = BytesMut::new();
        let request = CreateTtlRequest { path: b"/a", data: None, acl: Vec::new(), flags: 0, ttl: -1 };
        request.encode(&mut body);
        assert_eq!(may_forward(Op::CreateTtl, &body), Err(ErrorCode::BadArguments));
        assert_eq!(may_forward(Op::CreateTtl, &body[..body.len() - 1]), Err(ErrorCode::MarshallingError));
        let mut body = BytesMut::new();
        CreateTtlRequest { flags: 5, ..request }.encode(&mut body);
        assert_eq!(may_forward(Op::CreateTtl, &body), Ok(()));
        assert_eq!(may_forward(Op::Multi, &[0, 0, 0, 1]), Err(ErrorCode::MarshallingError));
        assert_eq!(may_forward(Op::DeleteContainer, b""), Err(ErrorCode::Unimplemented));
    }
}
