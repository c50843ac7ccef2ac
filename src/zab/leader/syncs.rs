//! Pings, and `sync`, which a leader answers once it has heard from a quorum that it still leads.

use super::links::Link;
use super::{Leader, Question, Stage};
use crate::model::{LinkId, ServerId, Zxid};
use crate::wire::quorum::FromLeader;
use crate::zab::{Event, Outputs, Server};

/// Who asked for a `sync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asker {
    Myself,
    Link(LinkId),
}

/// A `sync` is answered behind all that was proposed before it, and once a quorum has answered a ping sent after it: a
/// leader that was deposed without noticing must not answer.
#[derive(Debug)]
pub(super) struct Sync {
    asker: Asker,
    after: Zxid,
    /// Who has answered a ping of this round, or of a later one, follows still.
    round: u64,
    confirmed: bool,
}

impl Leader {
    /// A learner's `sync`.
    pub fn sync_for(&mut self, now: u64, link: LinkId, server: &Server, out: &mut Outputs) {
        self.sync(now, Asker::Link(link), server, out);
    }

    /// This server's own; answered by [`Event::SyncReady`].
    pub fn sync_for_myself(&mut self, now: u64, server: &Server, out: &mut Outputs) {
        self.sync(now, Asker::Myself, server, out);
    }

    fn sync(&mut self, now: u64, asker: Asker, server: &Server, out: &mut Outputs) {
        let after = self.last_proposed();
        self.ping(now, |_, link| link.stage == Stage::Live, out);
        self.syncs.push_back(Sync { asker, after, round: self.round, confirmed: false });
        self.confirm_syncs(server, out);
    }

    pub(super) fn ping(&mut self, now: u64, whom: impl Fn(LinkId, &Link) -> bool, out: &mut Outputs) {
        self.round += 1;
        let pinged = self.links.ping(Question { round: self.round, at: now }, whom);
        out.tell_learners(pinged.into_iter(), &FromLeader::Ping(self.broadcast.last_proposed()));
    }

    pub(super) fn confirm_syncs(&mut self, server: &Server, out: &mut Outputs) {
        let links = &self.links;
        for sync in &mut self.syncs {
            // A later one's pongs confirm this one too, but not the other way round: stop at the first that waits.
            if !sync.confirmed {
                let answered = |id: ServerId| id == server.me() || links.has_answered(id, sync.round);
                sync.confirmed = server.view.has_quorum(answered);
            }
            if !sync.confirmed {
                break;
            }
        }
        while let Some(sync) = self.syncs.pop_front_if(|sync| sync.confirmed && sync.after <= self.committed)
        {
            match sync.asker {
                Asker::Myself => out.events.push_back(Event::SyncReady),
                Asker::Link(id) => match self.links.get_mut(id) {
                    // What was committed before is still to be sent to it.
                    Some(Link { behind: Some(behind), .. }) => behind.syncs += 1,
                    Some(_) => {
                        out.tell_learner(id, &FromLeader::Sync);
                    }
                    None => {}
                },
            }
        }
    }
}
