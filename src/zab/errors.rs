//! Why links close and terms end: who broke the protocol, and how; which leader nobody follows; whose history is foreign.

use super::{leader, learner};
use crate::ensemble::ParseError;
use crate::jute::DecodeError;
use crate::model::{Epoch, ServerId, Zxid};

/// A leader broke the protocol. The learner gives it up and looks for another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaderMisbehaved {
    /// The packet does not belong to what this learner is about with it.
    #[error("it sent {packet} to a learner in stage {stage:?}")]
    PacketOutOfStage {
        /// The packet's name.
        packet: &'static str,
        /// What the learner is about.
        stage: learner::Stage,
    },
    /// LEADERINFO offers an epoch before the one that this server promised to follow.
    #[error("it offers epoch {offered}, and this server has accepted {accepted}")]
    StaleEpoch {
        /// The promised one.
        accepted: Epoch,
        /// That of LEADERINFO.
        offered: Epoch,
    },
    /// NEWLEADER opens another epoch than LEADERINFO offered.
    #[error("it opens its epoch with {zxid}, and offered epoch {offered}")]
    AnotherEpoch {
        /// That of LEADERINFO.
        offered: Epoch,
        /// That of NEWLEADER.
        zxid: Zxid,
    },
    /// TRUNC or SNAP name a zxid that none has.
    #[error("its history ends at {0}, which is negative")]
    NegativeZxid(Zxid),
    /// TRUNC to a place that this server's log does not reach.
    #[error("it sent TRUNC to {to}, and this server's log ends at {log_end}")]
    TruncBeyondLog {
        /// The place to cut behind.
        to: Zxid,
        /// The last transaction of this server's log.
        log_end: Zxid,
    },
    /// A proposal's transaction does not decode.
    #[error("it proposed what is no transaction: {0}")]
    Transaction(#[from] DecodeError),
    /// A proposal's packet and its transaction have different zxids.
    #[error("its proposal {zxid} holds transaction {holds}")]
    AnotherTransaction {
        /// The packet's.
        zxid: Zxid,
        /// The transaction's.
        holds: Zxid,
    },
    /// A proposal does not follow the last one: what lies between was not sent.
    #[error("its proposal {got} does not follow {last}")]
    GapInProposals {
        /// The last transaction of this server's log.
        last: Zxid,
        /// The proposal's zxid.
        got: Zxid,
    },
    /// COMMIT of another transaction than the oldest that is not committed.
    #[error("it committed {zxid}, and the oldest proposal is {}", or_none(*.oldest))]
    CommitOutOfOrder {
        /// The one that COMMIT names.
        zxid: Zxid,
        /// The oldest proposal that is not committed.
        oldest: Option<Zxid>,
    },
    /// COMMITANDACTIVATE or INFORMANDACTIVATE of a transaction that is no reconfiguration.
    #[error("it activated {0}, which is no reconfiguration")]
    ActivatesNothing(Zxid),
    /// A reconfiguration or NEWLEADER has a text that is no configuration.
    #[error("it sent what is no configuration: {0}")]
    Configuration(#[from] ParseError),
    /// The same, and not even UTF-8.
    #[error("it sent what is no configuration: {0}")]
    ConfigurationText(#[from] std::str::Utf8Error),
}

fn or_none(zxid: Option<Zxid>) -> String {
    zxid.map_or("none".into(), |zxid| zxid.to_string())
}

/// A learner broke the protocol, or must not follow this leader: its link is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LearnerMisbehaved {
    /// The packet does not belong to what this leader is about with it.
    #[error("it sent {packet} in stage {stage:?}")]
    PacketOutOfStage {
        /// The packet's name.
        packet: &'static str,
        /// What this leader is about with it.
        stage: leader::Stage,
    },
    /// It sent a packet of a type that nobody knows before FOLLOWERINFO or OBSERVERINFO.
    #[error("it sent a packet of type {0} before it said who it is")]
    NotIntroduced(i32),
    /// No configuration has its id, and people did not allow it.
    #[error("server {0} is in no configuration; learners.allow may name it")]
    NotAdmitted(ServerId),
    /// It speaks a protocol from before ZooKeeper 3.4.
    #[error("server {id} speaks protocol {protocol:#x}, older than ZAB 1.0")]
    OldProtocol {
        /// Who it says it is.
        id: ServerId,
        /// The protocol's number, 0x10000 for ZAB 1.0.
        protocol: i32,
    },
    /// It claims an accepted epoch that no leader can have offered.
    #[error("server {id} says that it accepted epoch {accepted}")]
    EpochOutOfRange {
        /// Who it says it is.
        id: ServerId,
        /// The epoch that it claims.
        accepted: Epoch,
    },
    /// It knows a later configuration: this leader may be no member any more.
    #[error("server {id} has configuration {has:x}, later than this leader's {committed:x}")]
    LaterConfiguration {
        /// Who it says it is.
        id: ServerId,
        /// The version of its configuration.
        has: i64,
        /// The version of this leader's.
        committed: i64,
    },
    /// ACKEPOCH names a last zxid that none has.
    #[error("it sent ACKEPOCH with zxid {0}")]
    NegativeZxid(Zxid),
    /// It has more than this leader. In a leader's place it would lose that.
    #[error("server {id} is ahead: epoch {epoch}, zxid {last}; this leader has epoch {}, zxid {}", leads_with.0, leads_with.1)]
    Ahead {
        /// The server.
        id: ServerId,
        /// The epoch of its history.
        epoch: Epoch,
        /// Its last zxid.
        last: Zxid,
        /// The same two of this leader, as the term began.
        leads_with: (Epoch, Zxid),
    },
    /// It acknowledged what was not proposed.
    #[error("it acknowledged {zxid}, and the last proposal is {last}")]
    AckOfNothing {
        /// What it acknowledged.
        zxid: Zxid,
        /// The last proposal.
        last: Zxid,
    },
}

/// Why this server closes a link of the quorum port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseWhy {
    /// A learner connected, and this server does not lead.
    #[error("this server does not lead")]
    NotLeading,
    /// This server connected to a leader that it does not follow any more.
    #[error("this server has no use for it any more")]
    NotFollowing,
    /// The term is over, and its links with it.
    #[error("the term is over")]
    TermOver,
    /// The learner broke the protocol.
    #[error("{0}")]
    Misbehaved(#[from] LearnerMisbehaved),
    /// The learner says that it is a server whose own link has just answered.
    #[error("server {0} is connected already, and answers")]
    IdTaken(ServerId),
    /// More learners say that they are this server than may wait.
    #[error("too many say that they are server {0}")]
    TooManyClaims(ServerId),
    /// The server has connected again, and this link of it did not answer.
    #[error("server {0} has connected again, and does not answer here")]
    Replaced(ServerId),
    /// The server has connected again, and is synchronized over that link.
    #[error("server {0} has connected again")]
    Reconnected(ServerId),
    /// What it was to be sent could not be read or sent: it has a part of it.
    #[error("its feed failed")]
    FeedFailed,
    /// A reconfiguration was committed while it was behind: it learns of the configuration when it connects again.
    #[error("it is behind, and has missed the reconfiguration {0}: it connects again")]
    MissedReconfiguration(Zxid),
    /// It did not send what this leader waits for in time.
    #[error("server {id} is late in stage {stage:?}")]
    Late {
        /// Who it says it is.
        id: ServerId,
        /// What this leader is about with it.
        stage: leader::Stage,
    },
    /// It sent nothing, not even an answer to a ping.
    #[error("server {0} is silent")]
    Silent(ServerId),
    /// It answers, and does not acknowledge a proposal.
    #[error("server {id} does not acknowledge {zxid}")]
    NoAck {
        /// The server.
        id: ServerId,
        /// The proposal.
        zxid: Zxid,
    },
}

/// Why a term was lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LostWhy {
    // As leader.
    /// Fewer servers answer than a quorum needs.
    #[error("lost quorum: {}", answering(.0))]
    NoQuorum(Vec<ServerId>),
    /// The disk hangs, and everybody waits for this server's log or keeps what that has not taken.
    #[error(
        "this leader's own log has not had {zxid} on disk for {ms} ms, longer than syncLimit: another server is to lead. Look at the \
         disk of dataLogDir"
    )]
    OwnLogHangs {
        /// What is not on disk.
        zxid: Zxid,
        /// Milliseconds since it was handed to the log.
        ms: u64,
    },
    /// The disk is full, or almost.
    #[error(
        "the disk of this leader has no room for its log, and the others are enough: one of them is to lead"
    )]
    NoRoomToLead,
    /// Fewer servers came than a quorum needs, or they did not get through this phase.
    #[error("no quorum for epoch {epoch} in time: {phase}")]
    NoQuorumInTime {
        /// The epoch that was to be opened.
        epoch: Epoch,
        /// How far it came.
        phase: &'static str,
    },
    /// This leader has nothing, and a voter has transactions.
    #[error("server {id} has a history, up to {last}, and this leader has none")]
    HistoryElsewhere {
        /// The voter.
        id: ServerId,
        /// Its last zxid.
        last: Zxid,
    },
    /// The trees of a quorum agree with each other, and not with this leader's.
    #[error("a quorum has another tree than this leader after {0}")]
    OutvotedTree(Zxid),
    /// This leader's tree is not the one whose digest it proposed.
    #[error("this server's tree is not what it proposed, after {0}")]
    OwnTree(Zxid),
    /// All zxids of the epoch are given.
    #[error("epoch {0} has no more zxids")]
    EpochUsedUp(Epoch),
    /// A reconfiguration made another server the leader.
    #[error("reconfiguration {zxid} gave the lead to server {leader}")]
    LeadGiven {
        /// The reconfiguration.
        zxid: Zxid,
        /// The next leader.
        leader: ServerId,
    },
    /// The configuration that the epoch began with makes another server the leader.
    #[error("the configuration gives the lead to server {0}")]
    LeadElsewhere(ServerId),
    // As learner.
    /// The leader closed the connection, or it broke.
    #[error("server {0} closed the connection to its learner")]
    LeaderClosed(ServerId),
    /// The leader broke the protocol.
    #[error("server {leader} misbehaves as leader: {how}")]
    LeaderMisbehaved {
        /// The leader.
        leader: ServerId,
        /// What it did.
        how: LeaderMisbehaved,
    },
    /// The leader does not take a connection.
    #[error("server {0} cannot be reached as leader")]
    Unreachable(ServerId),
    /// The leader sent nothing for too long.
    #[error("server {0} is silent as leader")]
    LeaderSilent(ServerId),
    /// The disk is full, and what the leader sends does not end.
    #[error(
        "the disk of this server has no room for what the leader sends; it takes part again once there is"
    )]
    NoRoomToLearn,
    /// The leader's tree differs, and it leads on: this server takes its snapshot.
    #[error("this server's tree differs from that of server {0} and must be replaced")]
    TreeDiffers(ServerId),
    /// The log cannot be cut where the leader wants: this server has thrown it away, and takes everything again.
    #[error("the log cannot be cut there; this server takes everything again")]
    Unmendable,
    /// A reconfiguration changed the leader or this server's role.
    #[error("reconfiguration {0} changed the leader or this server's role")]
    Reconfigured(Zxid),
    /// The configuration of NEWLEADER changed the leader or this server's role.
    #[error("the leader's configuration changed the leader or this server's role")]
    ConfigurationDiffers,
    // Before it was established, by what the others vote.
    /// Another server leads a quorum.
    #[error("server {0} leads a quorum")]
    AnotherLeads(ServerId),
    /// The server that was elected votes for another one, or in another round.
    #[error("server {0}, which was elected, looks for a leader")]
    LeaderLooks(ServerId),
    /// Fewer voters still vote for this server than a quorum needs.
    #[error("no quorum is left that elected this server")]
    TooFewVotes,
}

fn answering(followers: &[ServerId]) -> String {
    match followers {
        [] => "no follower answers any more".into(),
        some => format!("only servers {} answer", ids(some)),
    }
}

fn ids(of: &[ServerId]) -> String {
    of.iter().map(ServerId::to_string).collect::<Vec<_>>().join(", ")
}

/// What shows that the leader's history shares nothing with this server's: it is not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// Both have a transaction of this zxid, and they are not the same. A zxid is given once in an ensemble.
    #[error("transaction {0} is another one there")]
    Transaction(Zxid),
    /// It begins after the last transaction that this server knows to be committed.
    #[error("it begins with {first}, behind this server's {committed}")]
    BeginsLater {
        /// The first transaction that it sends.
        first: Zxid,
        /// What this server knows to be committed.
        committed: Zxid,
    },
    /// It has no transaction.
    #[error("it is empty, and this server has transactions up to {committed}")]
    Empty {
        /// What this server knows to be committed.
        committed: Zxid,
    },
    /// The leader's snapshot of this zxid has none of this server's znodes.
    #[error("none of its znodes is in the leader's snapshot of {0}")]
    Snapshot(Zxid),
}
