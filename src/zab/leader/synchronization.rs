//! How a learner gets what this leader has: out of memory, out of the log, or by a snapshot.

use super::window::{Behind, Window};
use super::{Leader, Phase, Question, Stage};
use crate::model::{LinkId, Place, Zxid};
use crate::wire::quorum::FromLeader;
use crate::zab::{CloseWhy, Feed, Located, Outputs, Reader, Server};

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
        let Some(link) = self.links.get_mut(id) else { return };
        let (sid, wants_snapshot) = (link.sid, link.wants_snapshot);
        link.target = server.history.end();
        self.broadcast.forget(sid);
        for old in self.links.others_of(id, sid) {
            self.links.drop(old, CloseWhy::Reconnected(sid), out);
        }
        let mark = server.history.mark(last);
        if server.settings.force_snapshot_sync || last == Zxid::NO_DATA || wants_snapshot {
            return self.feed(now, id, Feed::Snapshot { mark }, server, out);
        }
        // Where the log can't be read, all that is in memory goes at once.
        let is_too_much = |after: Zxid| {
            self.log_fails && server.history.bytes_after(after) as u64 > server.settings.window_bytes
        };
        match server.history.place(last) {
            Place::Within if is_too_much(last) => self.feed(now, id, Feed::Snapshot { mark }, server, out),
            Place::Within => {
                out.tell_learner(id, &FromLeader::Diff(server.history.end(), mark));
                self.catch_up(now, id, last, server, out);
            }
            Place::Behind(before) if may_truncate(last, before) && !is_too_much(before) => {
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
                self.feed(now, id, Feed::Log { after: last, upto, to: Reader::Newcomer }, server, out);
            }
            Place::Behind(before) if !is_far && may_truncate(last, before) => {
                out.tell_learner(id, &FromLeader::Trunc(before, mark));
                self.feed(now, id, Feed::Log { after: before, upto, to: Reader::Newcomer }, server, out);
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
        match self.stage_of(id) {
            Some(Stage::Feeding { .. }) => self.catch_up(now, id, upto, server, out),
            Some(_) => self.on_fed_behind(now, id, upto, server, out),
            None => {}
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
            Some(_)
                if self.links.get(id).is_some_and(|link| link.behind.is_some_and(|behind| behind.fed)) =>
            {
                self.log_fails = true;
                self.drop_link(id, CloseWhy::FeedFailed, out);
            }
            _ => {}
        }
    }

    /// The learner has everything up to `position`. What is in memory follows at once, and then it takes part: no
    /// transaction can come between, as nothing else happens meanwhile. An established leader need not wait until it is so near,
    /// which it may never be while much is written: with all that may have been committed by its help it takes part, and is sent
    /// the rest as any learner is that is behind.
    fn catch_up(&mut self, now: u64, id: LinkId, position: Zxid, server: &Server, out: &mut Outputs) {
        let history = &server.history;
        let limit = server.settings.window_bytes;
        let Some(link) = self.links.get_mut(id) else { return };
        let knows_members = position.0 >= server.view.committed.version();
        let may_enter = self.phase == Phase::Broadcast && position >= link.target && knows_members;
        let is_much = |bytes: usize| bytes as u64 > limit && !self.log_fails;
        if !may_enter && (history.place(position) == Place::Older || is_much(history.bytes_after(position))) {
            let upto = server.history.end();
            return self.feed(
                now,
                id,
                Feed::Log { after: position, upto, to: Reader::Newcomer },
                server,
                out,
            );
        }
        link.window = Window::default();
        link.behind = Some(Behind::at(position));
        self.send_on(now, id, if may_enter { limit } else { u64::MAX }, server, out);
        // The learner takes it for committed at UPTODATE. That is so of all that this leader began with, as UPTODATE
        // comes behind the NEWLEADER quorum; what is proposed since then has its own commit.
        let view = &server.view;
        let config = if self.phase == Phase::Broadcast { &view.committed } else { &view.last_seen };
        let zxid = Zxid::new(self.epoch, 0);
        let Some(link) = self.links.get_mut(id) else { return };
        link.tell(id, &FromLeader::NewLeader { zxid, config: Some(config.to_string().into()) }, out);
        link.window.ask();
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
