//! What a server has to do: answers to clients, packets, work for the disk, and what people should know.

use crate::election::ElectionConn;
use crate::ensemble::PeerAddress;
use crate::model::{ConnId, Epoch, ErrorCode, ServerId, SessionId, Zxid};
use crate::request::write_reply;
use crate::tree::Database;
use crate::zab::{self, Doubt, Foreign, LostWhy};
use bytes::{Bytes, BytesMut};

/// What a [`ClientOutput`] means to the connection; its bytes are framed already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientMessage {
    /// The session is there; reading goes on.
    Established { session: SessionId, timeout_ms: i32 },
    /// The answer to one request that was handed in.
    Reply,
    /// The same, and the connection ends behind it: its session is closed.
    LastReply,
    /// A watch event.
    Event,
    /// Send the bytes, if there are any, and end the connection.
    Close(CloseReason),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    InvalidSession,
    ClientIsAhead,
    SessionTakenOver,
    SessionEnded,
    /// Its requests come through another server now.
    SessionMoved,
    /// This server has no leader, or is not up to date.
    NotServing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientOutput {
    pub conn: ConnId,
    pub message: ClientMessage,
    /// How many of [`Outputs::bytes`] belong to it: they stand in order.
    pub len: usize,
}

/// What the driver has to do on the election port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElectionOutput {
    Dial {
        to: ServerId,
        addresses: Vec<(String, u16)>,
    },
    /// In one write.
    Write {
        conn: ElectionConn,
        bytes: Bytes,
    },
    /// Once what was written has left.
    Close {
        conn: ElectionConn,
        why: &'static str,
    },
}

/// Where to listen for other servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    pub election: Vec<(String, u16)>,
    /// None while another server leads: people look for the leader by its open quorum port.
    pub quorum: Option<Vec<(String, u16)>>,
    /// Who may connect, and the hosts that each is at.
    pub members: Vec<(ServerId, Vec<String>)>,
}

/// Something that people should read in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Looking {
        round: i64,
        zxid: Zxid,
        epoch: Epoch,
    },
    /// This server has nothing, and that one knows of something.
    History {
        from: ServerId,
    },
    Elected {
        leader: ServerId,
        round: i64,
    },
    Leads(Epoch),
    Learns {
        leader: ServerId,
        epoch: Epoch,
        observer: bool,
    },
    Lost {
        why: LostWhy,
    },
    /// There has been no leader for a while.
    ReadOnly,
    Reconfigured {
        version: i64,
        pending: bool,
        text: String,
    },
    /// The tree is another one than the leader's.
    DigestMismatch {
        zxid: Zxid,
        doubt: Doubt,
    },
    /// A write of this session was refused, for its transaction would take more than `limit` bytes; with it, `count` were
    /// since this was told last.
    TooLarge {
        session: SessionId,
        limit: usize,
        count: u64,
    },
}

/// What the driver has to carry out, in order. Reused from batch to batch.
#[derive(Debug, Default)]
pub struct Outputs {
    pub client: Vec<ClientOutput>,
    pub bytes: BytesMut,
    /// The disk's work, packets and what happens to the quorum port's links.
    pub zab: zab::Outputs,
    pub election: Vec<ElectionOutput>,
    /// Connect to the leader, at one of these.
    pub dial: Option<(ServerId, Vec<PeerAddress>)>,
    /// Changes where to listen.
    pub listen: Option<Listen>,
    pub told: Vec<Told>,
    /// This server must not go on: what it has would be lost. The process ends, with this reason.
    pub refusal: Option<Refusal>,
    /// A database that was replaced: dropping it takes time, and should happen outside of every lock.
    pub replaced: Vec<Database>,
    pub tally: Tally,
    /// The namespaces whose quota refused a request, once for each refusal.
    pub quota_exceeded: Vec<String>,
}

/// Why a process ends rather than give up its history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "server {leader} leads with a history that shares nothing with this server's ({what}): following it would take all that \
     this server has. Nothing was changed. To keep this server's history, stop all servers, move the directory version-2 of \
     the others aside, and start all. To give it up, move version-2 of this server aside, and start it"
)]
pub struct Refusal {
    pub leader: ServerId,
    pub what: Foreign,
}

/// What happened, for the figures.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub expired_sessions: u64,
    pub revalidated_sessions: u64,
    pub commits: u64,
    pub proposals: u64,
    pub digest_mismatches: u64,
    pub elections: u64,
    pub watch_events: [u64; 4],
    pub watch_bytes: u64,
}

impl Outputs {
    pub(super) fn client(&mut self, conn: ConnId, message: ClientMessage, write: impl FnOnce(&mut BytesMut)) {
        let before = self.bytes.len();
        write(&mut self.bytes);
        self.client.push(ClientOutput { conn, message, len: self.bytes.len() - before });
    }

    pub(super) fn close(&mut self, conn: ConnId, reason: CloseReason) {
        self.client(conn, ClientMessage::Close(reason), |_| {});
    }

    pub(super) fn fail(&mut self, conn: ConnId, xid: i32, zxid: Zxid, code: ErrorCode) {
        self.client(conn, ClientMessage::Reply, |bytes| {
            write_reply(bytes, xid, zxid.0, Err::<fn(&mut BytesMut), _>(code));
        });
    }
}
