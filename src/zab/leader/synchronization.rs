//! How a learner gets what this leader has: out of memory, out of the log, or by a snapshot.

use super::{Leader, Phase, Question, Stage};
use crate::model::{LinkId, Place, Zxid};
use crate::wire::quorum::FromLeader;
use crate::zab::{CloseWhy, Feed, Located, Outputs, Server};

impl Leader {
    /// Decides how the learner gets this leader's history, and begins.
    pub(super) fn synchronize(
        &mut self,
        now: u64,
        id: LinkId,
        last: Zxid,
        server: &Server,
        out: &mut Outputs,
    ) {
        // It may be told to cut off what it acknowledged on an earlier connection.
        let Some((sid, wants_snapshot)) = self.links.get(id).map(|link| (link.sid, link.wants_snapshot))
        else {
            return;
        };
        self.broadcast.forget(sid);
        for old in self.links.others_of(id, sid) {
            self.links.drop(old, CloseWhy::Reconnected(sid), out);
        }
        let mark = server.history.mark(last);
        if server.settings.force_snapshot_sync || last == Zxid::NO_DATA || wants_snapshot {
            return self.feed(now, id, Feed::Snapshot { mark }, server, out);
        }
        match server.history.place(last) {
            Place::Within => {
                out.tell_learner(id, &FromLeader::Diff(server.history.end(), mark));
                self.catch_up(now, id, last, server, out);
            }
            Place::Behind(before) if may_truncate(last, before) => {
                out.tell_learner(id, &FromLeader::Trunc(before, server.history.mark(before)));
                self.catch_up(now, id, before, server, out);
            }
            Place::Behind(_) => self.feed(now, id, Feed::Snapshot { mark: None }, server, out),
            Place::Older if server.settings.disk_sync && !self.log_fails => {
                self.feed(now, id, Feed::Locate(last), server, out)
            }
            Place::Older => self.feed(now, id, Feed::Snapshot { mark: None }, server, out),
        }
    }

    fn feed(&mut self, now: u64, id: LinkId, feed: Feed, server: &Server, out: &mut Outputs) {
        let Some(link) = self.links.get_mut(id) else { return };
        link.stage = match feed {
            Feed::Locate(last) => Stage::Locating { last },
            Feed::Log { .. } => Stage::Feeding { snapshot: false },
            Feed::Snapshot { .. } => Stage::Feeding { snapshot: true },
        };
        link.deadline = now + server.settings.init_ms();
        out.feed(id, feed);
    }

    /// What this leader is about with the learner, as long as it leads.
    fn stage_of(&self, id: LinkId) -> Option<Stage> {
        self.links.get(id).filter(|_| self.phase != Phase::Over).map(|link| link.stage)
    }

    pub(in crate::zab) fn on_located(
        &mut self,
        now: u64,
        id: LinkId,
        found: Located,
        server: &Server,
        out: &mut Outputs,
    ) {
        let Some(Stage::Locating { last }) = self.stage_of(id) else { return };
        let upto = server.history.end();
        let Located { place, mark, is_far } = found;
        match place {
            Place::Within if is_far => self.feed(now, id, Feed::Snapshot { mark }, server, out),
            Place::Within => {
                out.tell_learner(id, &FromLeader::Diff(upto, mark));
                self.feed(now, id, Feed::Log { after: last, upto }, server, out);
            }
            Place::Behind(before) if !is_far && may_truncate(last, before) => {
                out.tell_learner(id, &FromLeader::Trunc(before, mark));
                self.feed(now, id, Feed::Log { after: before, upto }, server, out);
            }
            Place::Behind(_) | Place::Older => self.feed(now, id, Feed::Snapshot { mark: None }, server, out),
        }
    }

    pub(in crate::zab) fn on_fed(
        &mut self,
        now: u64,
        id: LinkId,
        upto: Zxid,
        server: &Server,
        out: &mut Outputs,
    ) {
        if let Some(Stage::Feeding { .. }) = self.stage_of(id) {
            self.catch_up(now, id, upto, server, out);
        }
    }

    pub(in crate::zab) fn on_feed_failed(
        &mut self,
        now: u64,
        id: LinkId,
        server: &Server,
        out: &mut Outputs,
    ) {
        match self.stage_of(id) {
            Some(Stage::Locating { .. }) => self.feed(now, id, Feed::Snapshot { mark: None }, server, out),
            // It has a part of it: it starts again from there, or from the beginning.
            Some(Stage::Feeding { snapshot }) => {
                self.log_fails |= !snapshot;
                self.drop_link(id, CloseWhy::FeedFailed, out);
            }
            _ => {}
        }
    }

    /// The learner has everything up to `position`. What is in memory follows at once, and then it takes part: no
    /// transaction can come between, as nothing else happens meanwhile.
    fn catch_up(&mut self, now: u64, id: LinkId, position: Zxid, server: &Server, out: &mut Outputs) {
        let history = &server.history;
        let is_much = |bytes: usize| bytes > server.settings.max_catch_up_bytes && !self.log_fails;
        if history.place(position) == Place::Older || is_much(history.bytes_after(position)) {
            let upto = server.history.end();
            return self.feed(now, id, Feed::Log { after: position, upto }, server, out);
        }
        for entry in server.history.after(position) {
            let (zxid, body) = (entry.zxid, entry.body.clone());
            out.tell_learner(id, &FromLeader::Proposal { zxid, body });
            out.tell_learner(id, &FromLeader::Commit(zxid));
        }
        let Some(link) = self.links.get_mut(id) else { return };
        if !link.observer {
            for entry in self.broadcast.outstanding() {
                let (zxid, body) = (entry.zxid, entry.body.clone());
                out.tell_learner(id, &FromLeader::Proposal { zxid, body });
            }
        }
        // The learner takes it for committed at UPTODATE. That is so of all that this leader began with, as UPTODATE
        // comes behind the NEWLEADER quorum; what is proposed since then has its own commit.
        let view = &server.view;
        let config = if self.phase == Phase::Broadcast { &view.committed } else { &view.last_seen };
        let zxid = Zxid::new(self.epoch, 0);
        out.tell_learner(id, &FromLeader::NewLeader { zxid, config: Some(config.to_string().into()) });
        link.stage = Stage::Asked;
        link.ask(Question { round: self.round, at: now });
        link.deadline = now + server.settings.init_ms();
    }
}

/// A learner may be told to cut its log only behind a transaction that it has logged for sure: one of the same epoch as
/// its last. What opens an epoch is in no log.
fn may_truncate(last: Zxid, before: Zxid) -> bool {
    before.epoch() == last.epoch() && before.counter() != 0
}
