//! What comes to a server: from clients, from other servers, from its disk, and with time.

use crate::election::ElectionConn;
use crate::model::{ConnId, LinkId, Room, ServerId, SessionId, Zxid};
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

/// What comes to a server.
#[derive(Debug)]
pub enum Input {
    /// The first frame of a client's connection.
    Connect {
        /// The connection.
        conn: ConnId,
        /// What the client asks for.
        connect: Connect,
    },
    /// A request that reads do not answer: writes, sync, closeSession.
    Request {
        /// The connection.
        conn: ConnId,
        /// The request.
        request: Request,
    },
    /// A client's connection is gone. [`SessionId::NONE`]: its session was not there yet.
    Disconnected {
        /// The connection.
        conn: ConnId,
        /// The session that it was for.
        session: SessionId,
    },
    /// These sessions were heard from just now.
    Touched(Vec<SessionId>),
    /// The disk has done this. A truncated log may need the database read again: here it is.
    Disk(DiskDone, Option<Box<Database>>),
    /// The disk has more room or less than before.
    Room(Room),
    /// From the election port.
    Election(ElectionInput),
    /// From the quorum port.
    Quorum(QuorumInput),
    /// Time has passed.
    Tick,
}

impl Input {
    /// The bytes that it brings, for who has to share out the work.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Request { request, .. } => request.body.len(),
            Self::Quorum(QuorumInput::FromLearner { packet: FromLearner::Request(request), .. }) => {
                request.body.len()
            }
            Self::Quorum(QuorumInput::FromLeader {
                packet: FromLeader::Proposal { body, .. } | FromLeader::Inform { body, .. },
                ..
            }) => body.len(),
            Self::Connect { .. }
            | Self::Disconnected { .. }
            | Self::Touched(_)
            | Self::Disk(..)
            | Self::Room(_)
            | Self::Election(_)
            | Self::Quorum(_)
            | Self::Tick => 0,
        }
    }
}

/// What happened on the election port.
#[derive(Debug)]
pub enum ElectionInput {
    /// Another server connected.
    Accepted(ElectionConn),
    /// A connection that was asked for came through.
    Dialed {
        /// The other server.
        to: ServerId,
        /// The connection.
        conn: ElectionConn,
    },
    /// One that was asked for did not.
    DialFailed(ServerId),
    /// Bytes came, as the system cut them.
    Bytes {
        /// The connection.
        conn: ElectionConn,
        /// The bytes.
        bytes: Bytes,
    },
    /// The other side closed it, or it broke.
    Closed(ElectionConn),
}

/// What happened on the quorum port, and on the connection to the leader.
#[derive(Debug)]
pub enum QuorumInput {
    /// A learner connected.
    Accepted(LinkId),
    /// A learner sent a packet.
    FromLearner {
        /// Its link.
        link: LinkId,
        /// The packet.
        packet: FromLearner,
    },
    /// The connection to the leader came through.
    Dialed(LinkId),
    /// It did not.
    DialFailed,
    /// The leader sent a packet.
    FromLeader {
        /// Its link.
        link: LinkId,
        /// The packet.
        packet: FromLeader,
    },
    /// The snapshot behind a SNAP is here, as a whole and on disk.
    Snapshot {
        /// The leader's link.
        link: LinkId,
        /// The point that it shows.
        zxid: Zxid,
        /// The database that it gives.
        db: Box<Database>,
    },
    /// The other side closed a link, or it broke.
    Closed(LinkId),
    /// A feed has looked where a learner's last zxid is in the log.
    Located {
        /// The learner's link.
        link: LinkId,
        /// What it found.
        found: Located,
    },
    /// A feed is through up to this zxid.
    Fed {
        /// The learner's link.
        link: LinkId,
        /// The last zxid that the learner has now.
        upto: Zxid,
    },
    /// A feed could not read its files, or its learner does not take them.
    FeedFailed {
        /// The learner's link.
        link: LinkId,
    },
}
