//! What a server has to do: answers to clients, packets, work for the disk, and what people should know.

use crate::election::LinkOutput;
use crate::ensemble::PeerAddress;
use crate::model::{ConnId, Epoch, ErrorCode, ServerId, SessionId, Zxid};
use crate::request::write_reply;
use crate::tree::Database;
use crate::zab::{self, CloseWhy, Doubt, Foreign, LostWhy};
use bytes::BytesMut;

/// What a [`ClientOutput`] means to the connection; its bytes are framed already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientMessage {
    /// The session is there; reading goes on.
    Established {
        /// The new session, or the one that was resumed.
        session: SessionId,
        /// Its timeout, as negotiated.
        timeout_ms: i32,
    },
    /// The answer to one request that was handed in.
    Reply,
    /// The same, and the connection ends behind it: its session is closed.
    LastReply,
    /// A watch event.
    Event,
    /// Send the bytes, if there are any, and end the connection.
    Close(CloseReason),
}

/// Why a client's connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// There is no such session.
    InvalidSession,
    /// The password is not the session's.
    WrongPassword,
    /// The client has seen a later zxid than this server has.
    ClientIsAhead,
    /// The session hangs on another connection of this server now.
    SessionTakenOver,
    /// The session is closed, or has expired.
    SessionEnded,
    /// Its requests come through another server now.
    SessionMoved,
    /// This server has no leader, or is not up to date.
    NotServing,
    /// The disk has no room for what it asked for.
    NoRoom,
}

/// A message for a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientOutput {
    /// The connection.
    pub conn: ConnId,
    /// What it means.
    pub message: ClientMessage,
    /// How many of [`Outputs::bytes`] belong to it: they stand in order.
    pub len: usize,
}

/// Where to listen for other servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Host and port of the election port.
    pub election: Vec<(String, u16)>,
    /// None while another server leads: people look for the leader by its open quorum port.
    pub quorum: Option<Vec<(String, u16)>>,
    /// Who may connect, and the hosts that each is at.
    pub members: Vec<(ServerId, Vec<String>)>,
}

/// Something that people should read in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// This server looks for a leader.
    Looking {
        /// The round of the election.
        round: i64,
        /// The last zxid of its log.
        zxid: Zxid,
        /// The epoch of its history.
        epoch: Epoch,
    },
    /// This server has nothing, and that one knows of something.
    History {
        /// The server that told of it.
        from: ServerId,
    },
    /// A round has ended.
    Elected {
        /// Who is to lead.
        leader: ServerId,
        /// The round.
        round: i64,
    },
    /// This server leads this epoch, and serves clients.
    Leads(Epoch),
    /// This server is up to date with a leader, and serves clients.
    Learns {
        /// The leader.
        leader: ServerId,
        /// Its epoch.
        epoch: Epoch,
        /// Whether this server has no vote.
        observer: bool,
    },
    /// The term is over.
    Lost {
        /// The reason.
        why: LostWhy,
    },
    /// Leading: a learner is up to date.
    Joined {
        /// The learner.
        learner: ServerId,
        /// Whether it observes.
        observer: bool,
    },
    /// Leading: a learner that had joined is gone.
    Left {
        /// The learner.
        learner: ServerId,
        /// Without a reason its connection ended.
        why: Option<CloseWhy>,
    },
    /// This server did nothing for some time.
    StoodStill {
        /// Milliseconds.
        ms: u64,
    },
    /// There has been no leader for a while.
    ReadOnly,
    /// The configurations changed.
    Reconfigured {
        /// The version of the newest one.
        version: i64,
        /// Whether it is proposed and not committed.
        pending: bool,
        /// The configuration, as `/zookeeper/config` has it.
        text: String,
    },
    /// Nothing was heard of these sessions' clients in time.
    Expired {
        /// The first few.
        first: Vec<SessionId>,
        /// How many they are.
        count: usize,
    },
    /// The tree is another one than the leader's.
    DigestMismatch {
        /// The transaction after which they differ.
        zxid: Zxid,
        /// What this server does about it.
        doubt: Doubt,
    },
    /// A write of this session was refused, for its transaction would take more than `limit` bytes; with it, `count` were
    /// since this was told last.
    TooLarge {
        /// The session.
        session: SessionId,
        /// The limit in bytes.
        limit: usize,
        /// How many were refused.
        count: u64,
    },
}

/// What the driver has to carry out, in order. Reused from batch to batch.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Messages to clients, in order.
    pub client: Vec<ClientOutput>,
    /// The bytes of those messages.
    pub bytes: BytesMut,
    /// The disk's work, packets and what happens to the quorum port's links.
    pub zab: zab::Outputs,
    /// What happens on the election port.
    pub election: Vec<LinkOutput>,
    /// Connect to the leader, at one of these.
    pub dial: Option<(ServerId, Vec<PeerAddress>)>,
    /// Changes where to listen.
    pub listen: Option<Listen>,
    /// What people should read in the log.
    pub told: Vec<Told>,
    /// This server must not go on: what it has would be lost. The process ends, with this reason.
    pub refusal: Option<Refusal>,
    /// A database that was replaced: dropping it takes time, and should happen outside of every lock.
    pub replaced: Vec<Database>,
    /// What happened, for the figures.
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
    /// The leader.
    pub leader: ServerId,
    /// What shows it.
    pub what: Foreign,
}

/// What happened, for the figures.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Sessions that have expired.
    pub expired_sessions: u64,
    /// Sessions that another connection resumed, or that a client tried to resume.
    pub revalidated_sessions: u64,
    /// Transactions that were applied.
    pub commits: u64,
    /// Transactions that this server proposed.
    pub proposals: u64,
    /// Transactions after which the tree has another digest than the leader says.
    pub digest_mismatches: u64,
    /// Elections that began.
    pub elections: u64,
    /// Watch events that were sent, by their type's number less one.
    pub watch_events: [u64; 4],
    /// The bytes of those events.
    pub watch_bytes: u64,
}

/// Sessions that are named when several expire at once.
const EXPIRED_NAMED: usize = 5;

/// A buffer that a burst has made larger than this is given back.
const KEPT: usize = 1 << 20;

impl Outputs {
    /// Once all is carried out: the next batch is hardly ever as large as the largest.
    pub fn give_back(&mut self) {
        for buffer in [&mut self.bytes, &mut self.zab.packets] {
            if buffer.is_empty() && buffer.capacity() > KEPT {
                *buffer = BytesMut::new();
            }
        }
    }

    /// These sessions have expired.
    pub(super) fn expired(&mut self, sessions: &[SessionId]) {
        self.tally.expired_sessions += sessions.len() as u64;
        if !sessions.is_empty() {
            let first = sessions.iter().take(EXPIRED_NAMED).copied().collect();
            self.told.push(Told::Expired { first, count: sessions.len() });
        }
    }

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
