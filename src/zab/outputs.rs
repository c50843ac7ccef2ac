//! What the protocol asks of those around it: packets, the disk's work, and the replica's.

use super::{CloseWhy, Entry, Foreign, LogEntry, LostWhy};
use crate::ensemble::Ensemble;
use crate::model::{Debt, Epoch, LinkId, Place, ServerId, SessionId, TxnMark, Zxid};
use crate::wire::quorum::{Forwarded, FromLeader, FromLearner};
use bytes::BytesMut;
use std::collections::VecDeque;
use std::sync::Arc;

/// Work for the disk. It is done in the order in which it was asked for, and reported as [`DiskDone`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskOp {
    /// Append this to the log.
    Append(LogEntry),
    /// Replace `acceptedEpoch`.
    SaveAccepted(Epoch),
    /// Replace `currentEpoch`.
    SaveCurrent(Epoch),
    /// Replace the debt, or take it away.
    SaveDebt(Debt),
    /// Everything newer than `to` goes from log and snapshots. `reload`: the database has some of it, and must be
    /// read again.
    Truncate {
        /// The last transaction that stays.
        to: Zxid,
        /// Whether the database must be read again.
        reload: bool,
    },
    /// The snapshot that has just been received over `link` is what appends come behind from now on; everything else
    /// stays, too.
    Stage {
        /// Where the snapshot came from.
        link: LinkId,
        /// The point that it shows.
        zxid: Zxid,
    },
    /// That snapshot, and what was appended behind it, take the place of everything else.
    Install {
        /// The leader has all of it: it need not be kept aside.
        contained: bool,
    },
    /// They go, and all is as before: the log ends at `to`.
    Unstage {
        /// Where the log ends.
        to: Zxid,
    },
    /// Log and snapshots go: what is there can't be mended. The debt comes first.
    Wipe {
        /// The debt that is written before.
        debt: Debt,
    },
    /// Write a configuration beside `zoo.cfg`.
    SaveConfig(ConfigFile),
}

/// A configuration to be kept beside `zoo.cfg`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigFile {
    /// Proposed: `zoo.cfg.dynamic.next`.
    Next(Arc<Ensemble>),
    /// What was proposed is not going to be committed: there is no `zoo.cfg.dynamic.next`.
    NoNext,
    /// Committed: `zoo.cfg.dynamic.<version>`, named by `zoo.cfg`.
    Active(Arc<Ensemble>),
}

/// What the disk has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskDone {
    /// Everything up to here is on disk.
    Logged(Zxid),
    /// `acceptedEpoch` is this.
    AcceptedSaved(Epoch),
    /// `currentEpoch` is this.
    CurrentSaved(Epoch),
    /// The debt is written.
    DebtSaved,
    /// Log and snapshots end here.
    Truncated(Zxid),
    /// There is no snapshot from which the log could be cut at the place asked for.
    Unmendable,
    /// The received snapshot of this point is beside the old files.
    Staged(Zxid),
    /// It has taken their place.
    Installed,
    /// It is gone, and the log ends here.
    Unstaged(Zxid),
    /// There is no log, and an empty snapshot.
    Wiped,
    /// The configuration is written, or it was logged why not.
    ConfigSaved,
}

/// What a learner is to be sent out of files, packet by packet as it takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// Nothing yet: report where this zxid is in the log.
    Locate(Zxid),
    /// The log's transactions behind `after`.
    Log {
        /// What the learner has.
        after: Zxid,
        /// The last one to send.
        upto: Zxid,
        /// Who reads them.
        to: Reader,
    },
    /// SNAP with the newest snapshot file.
    Snapshot {
        /// Of the learner's last transaction, where this server has that one.
        mark: Option<TxnMark>,
    },
}

/// Who is sent the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// A learner that does not take part yet: each transaction as PROPOSAL and COMMIT.
    Newcomer,
    /// A follower that is behind: the same, and it is sent what was committed meanwhile, too.
    Follower,
    /// An observer that is behind: likewise, as INFORM.
    Observer,
}

impl Feed {
    /// Whether a feed that went up to `upto` brought nothing.
    pub fn is_empty(self, upto: Zxid) -> bool {
        matches!(self, Self::Log { after, .. } if upto <= after)
    }
}

/// The answer to [`Feed::Locate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Located {
    /// Where the zxid is in the log on disk.
    pub place: Place,
    /// The mark of the transaction that was sought, or of the one before its place; none where the log has neither.
    pub mark: Option<TxnMark>,
    /// What comes after it in the log is so much that a snapshot is the shorter way.
    pub is_far: bool,
}

/// What happens to a link of the quorum port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkAction {
    /// Bytes of [`Outputs::packets`] from `start` on. Several links may be sent the same.
    Send {
        /// Where they begin.
        start: usize,
        /// How many they are.
        len: usize,
    },
    /// Send what is in files, piece by piece.
    Feed(Feed),
    /// Stop reading from it, or continue.
    Hold(bool),
    /// Once what was sent has left.
    Close(CloseWhy),
}

/// Who leads next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Whoever is elected.
    Election,
    /// A reconfiguration designated it: no election is needed.
    Designated {
        /// The next leader.
        leader: ServerId,
        /// The reconfiguration that designated it.
        zxid: Zxid,
    },
}

/// What the replica has to do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// This transaction is committed.
    Deliver(Entry),
    /// The database is to be that of the snapshot received.
    Install(Zxid),
    /// The database is to be that of the files, if they were read again; an empty one at 0.
    Reload(Zxid),
    /// This server leads: clients are served from now on.
    Leads(Epoch),
    /// This server is up to date with its leader: clients are served from now on.
    Learns(Epoch),
    /// The term is over.
    Lost {
        /// The reason.
        why: LostWhy,
        /// What comes next.
        next: Next,
    },
    /// The leader's history shares nothing with this server's, which keeps its own and ends.
    Refused {
        /// The leader.
        leader: ServerId,
        /// What shows it.
        what: Foreign,
    },
    /// The configurations changed.
    Reconfigured,
    /// Leading: a learner hands something on.
    Forwarded {
        /// The learner's link.
        link: LinkId,
        /// What its client asks for.
        request: Forwarded,
    },
    /// Leading: learners heard from these sessions. Their timeouts are in milliseconds.
    Touched(Vec<(SessionId, i32)>),
    /// Leading: a client reattaches at a learner.
    Revalidate {
        /// The learner's link.
        link: LinkId,
        /// The session.
        session: SessionId,
        /// The timeout that the client was promised, in milliseconds.
        timeout_ms: i32,
    },
    /// Leading: a link ended.
    LinkGone(LinkId),
    /// Leading: this learner is up to date.
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
    /// Leading: this server's own `sync` may be answered, once everything before it is applied.
    SyncReady,
    /// Learning: the leader asks which sessions were active.
    Pinged(Zxid),
    /// Learning: the leader says whether a session is alive.
    Revalidated {
        /// The session.
        session: SessionId,
        /// Whether it is.
        valid: bool,
    },
    /// Learning: the oldest `sync` may be answered.
    Synced,
}

/// What the protocol asks for, in order. Reused from input to input.
#[derive(Debug, Default)]
pub struct Outputs {
    /// The disk's work.
    pub disk: Vec<DiskOp>,
    /// The bytes of all packets, that [`LinkAction::Send`] points into.
    pub packets: BytesMut,
    /// What happens to each link.
    pub links: Vec<(LinkId, LinkAction)>,
    /// Connect to this server's quorum port.
    pub dial: Option<ServerId>,
    /// What the replica has to do.
    pub events: VecDeque<Event>,
}

impl Outputs {
    /// Returns how many bytes that are.
    pub(super) fn tell_learner(&mut self, link: LinkId, packet: &FromLeader) -> usize {
        self.tell_learners(std::iter::once(link), packet)
    }

    /// The same bytes to many. Returns how many each is sent; 0 where there is nobody.
    pub(super) fn tell_learners(
        &mut self,
        links: impl Iterator<Item = LinkId>,
        packet: &FromLeader,
    ) -> usize {
        let mut links = links.peekable();
        if links.peek().is_none() {
            return 0;
        }
        let start = self.packets.len();
        packet.encode(&mut self.packets);
        let len = self.packets.len() - start;
        self.links.extend(links.map(|link| (link, LinkAction::Send { start, len })));
        len
    }

    pub(super) fn tell_leader(&mut self, link: LinkId, packet: &FromLearner) {
        let start = self.packets.len();
        packet.encode(&mut self.packets);
        self.links.push((link, LinkAction::Send { start, len: self.packets.len() - start }));
    }

    pub(super) fn close(&mut self, link: LinkId, why: CloseWhy) {
        self.links.push((link, LinkAction::Close(why)));
    }

    pub(super) fn feed(&mut self, link: LinkId, feed: Feed) {
        self.links.push((link, LinkAction::Feed(feed)));
    }
}
