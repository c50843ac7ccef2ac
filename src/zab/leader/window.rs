//! What is under way to a learner. A learner that takes less than is proposed has a window in bytes: once that is full,
//! nothing is sent to it as it happens. It is sent on out of the history in memory, or out of the log, as it takes that, and
//! takes part again when it has everything. Nobody is cut off for being slow, and no amount waits for anybody.

use super::Leader;
use super::links::Link;
use crate::model::{Epoch, LinkId, Place, Zxid};
use crate::wire::quorum::FromLeader;
use crate::zab::{CloseWhy, Feed, Outputs, Reader, Server};
use std::collections::VecDeque;

/// So often in a window a learner is asked how far it has come.
const PINGS: u64 = 4;

/// The bytes that are under way to a learner. It answers a ping once it has read all that was sent before: that is so of
/// every learner, and tells more than what the socket has taken.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Bytes that were sent.
    sent: u64,
    /// Those of them that the learner has read for sure.
    read: u64,
    /// What had been sent at each question that it has not answered yet.
    asked: VecDeque<u64>,
}

impl Window {
    pub(super) fn send(&mut self, len: usize) {
        self.sent += len as u64;
    }

    /// A packet goes out that the learner answers.
    pub(super) fn ask(&mut self) {
        self.asked.push_back(self.sent);
    }

    pub(super) fn on_answer(&mut self) {
        self.read = self.asked.pop_front().unwrap_or(self.read);
    }

    pub(super) fn under_way(&self) -> u64 {
        self.sent - self.read
    }

    fn is_full(&self, limit: u64) -> bool {
        self.under_way() > limit
    }

    /// Whether so much was sent since it was last asked that it is to be asked again.
    pub(super) fn wants_ping(&self, limit: u64) -> bool {
        self.sent - self.asked.back().copied().unwrap_or(self.read) > limit / PINGS
    }
}

/// How far a learner has come that is not told what happens as it happens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Behind {
    /// It was sent everything up to here, as a proposal at the least.
    pub sent: Zxid,
    /// It was told that everything up to here is committed.
    pub committed: Zxid,
    /// It is being sent the log: the history in memory begins later.
    pub fed: bool,
    /// Answers to its `sync`s. They come after all that was committed before them.
    pub syncs: usize,
}

impl Behind {
    pub(super) fn at(zxid: Zxid) -> Self {
        Self { sent: zxid, committed: zxid, fed: false, syncs: 0 }
    }
}

impl Link {
    pub(super) fn tell(&mut self, id: LinkId, packet: &FromLeader, out: &mut Outputs) {
        let len = out.tell_learner(id, packet);
        self.window.send(len);
    }
}

impl Leader {
    /// Sends a packet to all observers, or to all others, unless they are behind.
    pub(super) fn tell_all(&mut self, observers: bool, packet: &FromLeader, out: &mut Outputs) {
        let len = out.tell_learners(self.links.forwarding(observers), packet);
        self.links.count(observers, len);
    }

    /// Who has a full window is not sent any more from here on.
    pub(super) fn close_windows(&mut self, server: &Server, out: &mut Outputs) {
        let limit = server.settings.window_bytes;
        let (proposed, committed) = (self.broadcast.last_proposed(), self.committed);
        let mut asked = false;
        for link in self.links.told() {
            if link.window.is_full(limit) {
                let sent = if link.observer { committed } else { proposed };
                link.behind = Some(Behind { sent, committed, fed: false, syncs: 0 });
            }
            asked |= link.wants_ping(limit);
        }
        if asked {
            self.ping(self.seen_at, |_, link| link.wants_ping(limit), out);
        }
    }

    /// A learner has read more, or can be asked now.
    pub(super) fn open_window(&mut self, now: u64, id: LinkId, server: &Server, out: &mut Outputs) {
        let limit = server.settings.window_bytes;
        let waits = |link: &&Link| link.behind.is_some_and(|behind| !behind.fed);
        let Some(link) = self.links.get(id).filter(waits) else { return };
        if link.window.under_way() <= limit / 2 {
            self.send_on(now, id, limit, server, out);
        }
        // Its answer says that there is room again.
        if self.links.get(id).filter(waits).is_some_and(|link| link.window.asked.is_empty()) {
            self.ping_one(id, out);
        }
    }

    /// Sends a learner that is behind what comes next, until it has everything or its window is full.
    pub(super) fn send_on(&mut self, now: u64, id: LinkId, limit: u64, server: &Server, out: &mut Outputs) {
        let (epoch, committed) = (self.epoch, self.committed);
        let Some(link) = self.links.get_mut(id) else { return };
        let Some(mut behind) = link.behind else { return };
        let informs = link.observer && link.is_forwarding();
        // What it has as a proposal alone.
        for zxid in commits(epoch, behind.committed, behind.sent.min(committed)) {
            link.tell(id, &FromLeader::Commit(zxid), out);
            behind.committed = zxid;
        }
        let history = &server.history;
        if history.place(behind.sent) == Place::Older {
            if !link.is_forwarding() {
                link.behind = Some(behind);
                return;
            }
            behind.fed = true;
            link.behind = Some(behind);
            link.deadline = now + server.settings.init_ms();
            let to = if informs { Reader::Observer } else { Reader::Follower };
            return out.feed(id, Feed::Log { after: behind.sent, upto: history.end(), to });
        }
        for entry in history.after(behind.sent) {
            if link.window.is_full(limit) {
                break;
            }
            let (zxid, body) = (entry.zxid, entry.body.clone());
            if informs {
                link.tell(id, &FromLeader::Inform { zxid, body }, out);
            } else {
                link.tell(id, &FromLeader::Proposal { zxid, body }, out);
                link.tell(id, &FromLeader::Commit(zxid), out);
            }
            (behind.sent, behind.committed) = (zxid, zxid);
        }
        let mut has_all = behind.sent >= history.end();
        if has_all && !link.observer {
            for entry in self.broadcast.outstanding_after(behind.sent) {
                if link.window.is_full(limit) {
                    has_all = false;
                    break;
                }
                let (zxid, body) = (entry.zxid, entry.body.clone());
                link.tell(id, &FromLeader::Proposal { zxid, body }, out);
                behind.sent = zxid;
            }
        }
        if has_all {
            link.behind = None;
            for _ in 0..behind.syncs {
                link.tell(id, &FromLeader::Sync, out);
            }
        } else {
            link.behind = Some(behind);
        }
        if link.wants_ping(limit) {
            self.ping_one(id, out);
        }
    }

    /// The log was sent to a learner that takes part and is behind.
    pub(super) fn on_fed_behind(
        &mut self,
        now: u64,
        id: LinkId,
        upto: Zxid,
        server: &Server,
        out: &mut Outputs,
    ) {
        let Some(behind) = self.links.get_mut(id).and_then(|link| link.behind.as_mut()).filter(|it| it.fed)
        else {
            return;
        };
        behind.fed = false;
        (behind.sent, behind.committed) = (behind.sent.max(upto), behind.committed.max(upto));
        self.open_window(now, id, server, out);
    }

    /// A reconfiguration is committed. A learner that is behind can't learn that in its place, as the history does not say which
    /// leader it designates. It learns the configuration from NEWLEADER when it connects again.
    pub(super) fn drop_behind(&mut self, zxid: Zxid, out: &mut Outputs) {
        for id in self.links.behind() {
            self.links.drop(id, CloseWhy::MissedReconfiguration(zxid), out);
        }
    }

    fn ping_one(&mut self, id: LinkId, out: &mut Outputs) {
        self.ping(self.seen_at, |other, _| other == id, out);
    }
}

/// The transactions of `epoch` after `told`, up to `upto`: an epoch's zxids have no gaps. What opens it is none, though it is
/// committed first.
fn commits(epoch: Epoch, told: Zxid, upto: Zxid) -> impl Iterator<Item = Zxid> {
    let first = told.max(Zxid::new(epoch, 0)).0.saturating_add(1);
    (first..=upto.0).map(Zxid)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The simulator's seed 763947: the only voter's disk hung, and a follower with a full window was told that the first
    /// transaction of the epoch was committed.
    #[test]
    fn what_opens_an_epoch_commits_no_transaction() {
        let of = |epoch, counter| Zxid::new(Epoch(epoch), counter);
        let due =
            |told, upto| -> Vec<u32> { commits(Epoch(2), told, upto).map(|zxid| zxid.counter()).collect() };
        assert!(due(of(1, 18), of(2, 0)).is_empty());
        assert!(due(of(2, 0), of(2, 0)).is_empty());
        assert_eq!(due(of(1, 18), of(2, 2)), [1, 2]);
        assert_eq!(due(of(2, 1), of(2, 3)), [2, 3]);
        assert!(due(of(2, 3), of(2, 3)).is_empty());
    }
}
