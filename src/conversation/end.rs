//! Why a conversation is over.

use crate::model::SessionId;
use crate::request::auth::TooManyIds;
use crate::sasl;
use std::io;
use thiserror::Error;

/// How a conversation ends. The text completes the sentence "the connection was closed: …".
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum End {
    /// The client closed its session, or asked a four-letter word, and has its answer.
    #[error("it has its last answer")]
    Done,
    /// The client closed its side. All that it had said before was worked off.
    #[error("the client closed it")]
    ClientClosed,
    /// The socket brings no more bytes.
    #[error("reading failed: {0}")]
    ReadFailed(io::ErrorKind),
    /// The socket takes no more bytes.
    #[error("writing failed: {0}")]
    WriteFailed(io::ErrorKind),
    /// The TLS of the client is wrong.
    #[error("TLS: {0}")]
    Tls(String),
    /// Bytes wait for the client, and it has taken none for too long.
    #[error(
        "the client reads too slowly: {waiting} bytes wait for it, and it has taken none for {idle_ms} ms"
    )]
    TooSlow {
        /// Bytes that the client has not taken.
        waiting: usize,
        /// Milliseconds since it took some.
        idle_ms: u128,
    },
    /// A large request does not become whole, and others need the memory that is kept for it.
    #[error(
        "a large request has not come as a whole within {0} ms, and others need the memory that is kept for it \
         (maxUnreadBytes)"
    )]
    Unfinished(u128),
    /// All watches together take more than they may, and this client has many.
    #[error(
        "it has many watches, which take {bytes} bytes of memory, and all clients' take more than {limit} (maxWatchBytes)"
    )]
    TooManyWatches {
        /// What its own take.
        bytes: usize,
        /// What all may take.
        limit: usize,
    },
    /// No session was opened in time.
    #[error("no session was opened within {0} ms")]
    NoSession(u128),
    /// The client says nothing any more. Its session ends by the core's clock, or has moved.
    #[error("nothing was heard for {0} ms, two session timeouts")]
    Silent(u128),
    /// The server is stopping.
    #[error("the server stops")]
    ServerStops,
    /// The client announced a frame of a length that is not allowed.
    #[error("a frame of {len} bytes was announced, and 0 to {limit} are allowed (jute.maxbuffer){}", guess(*len, *first))]
    BadFrame {
        /// The length, as the client sent it.
        len: i32,
        /// The longest that is allowed.
        limit: usize,
        /// These were the first bytes of the connection.
        first: bool,
    },
    /// The first frame does not decode.
    #[error("the connect request does not decode")]
    BadConnect,
    /// A frame has no header.
    #[error("a request has no header")]
    BadRequest,
    /// An auth packet does not decode.
    #[error("an auth packet does not decode")]
    BadAuth,
    /// A SASL packet does not decode.
    #[error("a SASL packet does not decode")]
    BadSasl,
    /// The client asked for an operation that does not exist, or that only a server may ask for. Answered with -6.
    #[error("operation {0} is unknown, or no client may ask for it")]
    UnknownOperation(i32),
    /// The client asked for something before it had authenticated. Answered with -124.
    #[error("it has not authenticated with a scheme that enforce.auth.schemes names")]
    NotAuthenticated,
    /// The client authenticates with a scheme that is not there. Answered with -115.
    #[error("auth scheme {0:?} is unknown here, or is turned off")]
    UnknownScheme(String),
    /// The scheme refuses what the client showed. Answered with -115.
    #[error("auth scheme {0:?} refuses what the client has shown")]
    AuthRefused(String),
    /// The client has proved more than fits into a request.
    #[error("it has proved {0}; a client that needs more opens another connection")]
    TooManyIds(TooManyIds),
    /// A login by SASL failed.
    #[error("SASL: {0}")]
    LoginFailed(sasl::Refusal),
    /// The client means another ensemble. It gets no answer: an error would end a client that should try its next server.
    #[error("the client means an ensemble of another name")]
    AnotherEnsemble,
    /// The system has no random number for a SASL challenge.
    #[error("there is no random number for a SASL challenge")]
    NoRandom,
    /// The subject of the client's certificate can't be read.
    #[error("the subject of the client's certificate can't be read")]
    UnreadableCertificate,
    /// The client asked for a session that is not there.
    #[error("there is no session {0} any more: it has expired or was closed")]
    NoSuchSession(SessionId),
    /// The client asked for a session with another password.
    #[error("the password is not that of session {0}")]
    WrongPassword(SessionId),
    /// The client has seen more than this server has.
    #[error(
        "the client has seen zxid {seen:#x}, and this server is at {here:#x}: it should try another server"
    )]
    ClientIsAhead {
        /// The last zxid that the client has seen.
        seen: i64,
        /// The last one of this server.
        here: i64,
    },
    /// The session ended while the client was connected.
    #[error(
        "the session has expired, with a timeout of {timeout_ms} ms, or was closed on another connection"
    )]
    SessionEnded {
        /// What was negotiated.
        timeout_ms: i32,
    },
    /// The session continues over another connection.
    #[error("the session was resumed on another connection")]
    SessionTakenOver,
    /// The session continues at another server.
    #[error("the session has moved to another server")]
    SessionMoved,
    /// This server has no leader, is not up to date with it, or leaves clients to others.
    #[error("this server serves no clients now")]
    NotServing,
    /// What the client asked for waits for room on the disk: its outcome is not known.
    #[error("the disk has no room for what it asked for: whether that is done later is not known")]
    NoRoom,
}

impl End {
    /// Whether the client was told, or has ended it itself after its last answer: no figure counts that as dropped.
    pub fn is_answered(&self) -> bool {
        match self {
            Self::Done
            | Self::UnknownOperation(_)
            | Self::NotAuthenticated
            | Self::UnknownScheme(_)
            | Self::AuthRefused(_)
            | Self::TooManyIds(_)
            | Self::LoginFailed(_)
            | Self::NoSuchSession(_)
            | Self::WrongPassword(_)
            | Self::ClientIsAhead { .. }
            | Self::SessionEnded { .. }
            | Self::SessionTakenOver
            | Self::SessionMoved
            | Self::NotServing => true,
            Self::ClientClosed
            | Self::ReadFailed(_)
            | Self::WriteFailed(_)
            | Self::Tls(_)
            | Self::TooSlow { .. }
            | Self::Unfinished(_)
            | Self::TooManyWatches { .. }
            | Self::NoSession(_)
            | Self::Silent(_)
            | Self::ServerStops
            | Self::BadFrame { .. }
            | Self::BadConnect
            | Self::BadRequest
            | Self::BadAuth
            | Self::BadSasl
            | Self::AnotherEnsemble
            | Self::NoRandom
            | Self::UnreadableCertificate
            | Self::NoRoom => false,
        }
    }
}

/// How much an end matters to an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// It is as it should be, or is logged elsewhere.
    Usual,
    /// Clients may ask why.
    Notable,
    /// A client is wrong, or does not get on with the server's configuration.
    Wrong,
}

impl End {
    /// How much it matters.
    pub fn weight(&self) -> Weight {
        match self {
            Self::Done
            | Self::ClientClosed
            | Self::ReadFailed(_)
            | Self::WriteFailed(_)
            | Self::ServerStops
            | Self::SessionTakenOver
            | Self::SessionMoved
            | Self::NotServing => Weight::Usual,
            Self::NoSession(_)
            | Self::Silent(_)
            | Self::NoSuchSession(_)
            | Self::ClientIsAhead { .. }
            | Self::SessionEnded { .. }
            | Self::NoRoom => Weight::Notable,
            Self::Tls(_)
            | Self::TooSlow { .. }
            | Self::Unfinished(_)
            | Self::TooManyWatches { .. }
            | Self::BadFrame { .. }
            | Self::BadConnect
            | Self::BadRequest
            | Self::BadAuth
            | Self::BadSasl
            | Self::UnknownOperation(_)
            | Self::NotAuthenticated
            | Self::UnknownScheme(_)
            | Self::AuthRefused(_)
            | Self::TooManyIds(_)
            | Self::LoginFailed(_)
            | Self::AnotherEnsemble
            | Self::NoRandom
            | Self::UnreadableCertificate
            | Self::WrongPassword(_) => Weight::Wrong,
        }
    }
}

/// What the first bytes of a connection are, if not a length.
fn guess(len: i32, first: bool) -> &'static str {
    if !first {
        return "";
    }
    match len.to_be_bytes() {
        [0x16, 0x03, ..] => "; the client speaks TLS, and this port does not",
        [b'G', b'E', b'T', b' ']
        | [b'P', b'O', b'S', b'T']
        | [b'H', b'E', b'A', b'D']
        | [b'P', b'U', b'T', b' ']
        | [b'O', b'P', b'T', b'I']
        | [b'P', b'R', b'I', b' ']
        | [b'C', b'O', b'N', b'N'] => "; the client speaks HTTP, and this port does not",
        _ => "",
    }
}
