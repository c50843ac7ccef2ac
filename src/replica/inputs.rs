//! What a server is told: by clients, by other servers, by its disk, and by time.

use crate::election::ElectionConn;
use crate::model::{ConnId, LinkId, ServerId, SessionId, Zxid};
use crate::request::Request;
use crate::tree::Database;
use crate::wire::connect::Connect;
use crate::wire::quorum::{FromLeader, FromLearner};
use crate::zab::{DiskDone, Located};
use bytes::Bytes;

/// The time of an input.
#[derive(Debug, Clone, Copy, Default)]
pub struct Now {
    /// Monotonic milliseconds: for sessions, elections, deadlines.
    pub mono_ms: u64,
    /// Milliseconds since 1970: for transactions and TTLs.
    pub wall_ms: i64,
}

#[derive(Debug)]
pub enum Input {
    /// The first frame of a client's connection.
    Connect {
        conn: ConnId,
        connect: Connect,
    },
    /// A request that reads do not answer: writes, sync, closeSession.
    Request {
        conn: ConnId,
        request: Request,
    },
    /// A client's connection is gone. [`SessionId::NONE`]: its session was not there yet.
    Disconnected {
        conn: ConnId,
        session: SessionId,
    },
    /// These sessions were heard from just now.
    Touched(Vec<SessionId>),
    /// The disk has done this. A truncated log may need the database read anew: here it is.
    Disk(DiskDone, Option<Box<Database>>),
    Election(ElectionInput),
    Quorum(QuorumInput),
    /// Time has passed.
    Tick,
}

/// What happened on the election port.
#[derive(Debug)]
pub enum ElectionInput {
    Accepted(ElectionConn),
    Dialed { to: ServerId, conn: ElectionConn },
    DialFailed(ServerId),
    Bytes { conn: ElectionConn, bytes: Bytes },
    Closed(ElectionConn),
}

/// What happened on the quorum port, and on the connection to the leader.
#[derive(Debug)]
pub enum QuorumInput {
    Accepted(LinkId),
    FromLearner {
        link: LinkId,
        packet: FromLearner,
    },
    Dialed(LinkId),
    DialFailed,
    FromLeader {
        link: LinkId,
        packet: FromLeader,
    },
    /// The snapshot behind a SNAP is here, as a whole and on disk.
    Snapshot {
        link: LinkId,
        zxid: Zxid,
        db: Box<Database>,
    },
    Closed(LinkId),
    Located {
        link: LinkId,
        found: Located,
    },
    /// A feed is through up to this zxid.
    Fed {
        link: LinkId,
        upto: Zxid,
    },
    FeedFailed {
        link: LinkId,
    },
}
