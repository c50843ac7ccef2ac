//! Why connections of the quorum port end, and why a learner could not be fed.

use crate::core::{FeedError, ReceiveError};
use crate::link::LinkEnd;
use crate::model::ServerId;
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use tokio::task::JoinError;

/// Why a connection of the quorum port is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum PipeEnd {
    /// What came is no conversation.
    #[error(transparent)]
    Link(#[from] LinkEnd),
    /// The other side closed it.
    #[error("closed by the other side")]
    ClosedThere,
    /// This server closed it, for a reason that is logged then, or it stops.
    #[error("closed from here")]
    ClosedHere,
    /// The system says that it broke.
    #[error("reading failed: {0}")]
    Read(io::Error),
    /// The same, noticed while writing.
    #[error("writing failed: {0}")]
    Write(io::Error),
    /// A stranger did not introduce itself.
    #[error("it did not say who it is within {0:?}")]
    SaysNothing(Duration),
    /// A stranger claims to be a server whose line has other addresses.
    #[error("server {id} is not at {address}")]
    WrongAddress { id: ServerId, address: IpAddr },
    /// The leader's snapshot is damaged, or there is no room for it.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// The leader began with a snapshot, and sends nothing more.
    #[error("nothing more of the leader's snapshot came for {0:?}")]
    SnapshotStands(Duration),
    /// The thread that worked for it panicked, or the server stops.
    #[error(transparent)]
    Thread(#[from] JoinError),
}

/// Why a feed is over before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum FeedEnd {
    /// The files do not give it.
    #[error(transparent)]
    Files(#[from] FeedError),
    /// The connection is over.
    #[error("the connection is over")]
    Closed,
    /// The learner took nothing for so long.
    #[error("it took nothing of what it is sent for {0:?}")]
    TakesNothing(Duration),
    /// The server stops.
    #[error("the server stops")]
    Stopping,
    /// The thread that worked for it panicked, or the server stops.
    #[error(transparent)]
    Thread(#[from] JoinError),
}
