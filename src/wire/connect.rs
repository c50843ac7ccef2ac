//! The first frame of a connection and its answer (`compat/ProtocolManager`).

use crate::jute::records::{ConnectRequest, ConnectResponse};
use crate::jute::{DecodeError, Reader, Source, put_len};
use crate::model::SessionId;
use bytes::{BufMut, BytesMut};

/// What a client asks for when it connects. The password is kept as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// The largest zxid that the client has seen.
    pub last_zxid_seen: i64,
    /// Milliseconds, before it is clamped.
    pub timeout: i32,
    /// The session to take up; [`SessionId::NONE`] for a new one.
    pub session: SessionId,
    /// The session's password.
    pub passwd: Vec<u8>,
    /// `None`: a client from before 3.4, whose answer must not carry the byte either.
    pub read_only: Option<bool>,
}

impl Connect {
    /// Takes the frame's body. An error if it is too short.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(body);
        let request = ConnectRequest::decode(&mut from)?;
        let read_only = if from.remaining() > 0 { Some(from.boolean()?) } else { None };
        Ok(Self {
            last_zxid_seen: request.last_zxid_seen,
            timeout: request.timeout,
            session: SessionId(request.session_id),
            passwd: request.passwd.unwrap_or_default().to_vec(),
            read_only,
        })
    }
}

/// Writes the framed answer. A refused session is expressed by zeros (`timeout` 0, session 0, 16 zero bytes).
pub fn write_response(
    session: SessionId,
    timeout: i32,
    passwd: &[u8; 16],
    read_only: Option<bool>,
    out: &mut BytesMut,
) {
    let response =
        ConnectResponse { protocol_version: 0, timeout, session_id: session.0, passwd: Some(&passwd[..]) };
    put_len(out, response.encoded_len() + usize::from(read_only.is_some()));
    response.encode(out);
    if let Some(read_only) = read_only {
        out.put_u8(u8::from(read_only));
    }
}
