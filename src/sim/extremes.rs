//! Packets that decode and that no server of the ensemble would send: numbers at the ends of their ranges, at any time, over any
//! link. A server that is about to end hears some: it must not panic, and who has proved nothing moves nothing of what lasts.

use super::random::Random;
use crate::model::{Epoch, LinkId, ServerId, SessionId, TxnMark, Zxid};
use crate::replica::{Input, QuorumInput};
use crate::wire::quorum::{Forwarded, FromLeader, FromLearner, OBSERVE, PROTOCOL, Plea};
use bytes::Bytes;

/// Draws what is extreme, beside what a server has at present.
pub struct Extremes<'a> {
    pub random: &'a mut Random,
    /// The last zxid of the server that hears it.
    pub last: Zxid,
    pub sessions: Vec<SessionId>,
    /// The body of some transaction.
    pub body: Bytes,
}

impl Extremes<'_> {
    pub fn number(&mut self) -> i64 {
        const EPOCHS: i64 = i32::MAX as i64;
        let ends = [
            i64::MIN,
            i64::MIN + 1,
            -1,
            0,
            1,
            i64::MAX,
            i64::MAX - 1,
            EPOCHS - 1,
            EPOCHS,
            EPOCHS + 1,
            EPOCHS << 32,
            (EPOCHS << 32) | 0xffff_fffe,
            (EPOCHS << 32) | 0xffff_ffff,
            0xffff_fffe,
            0xffff_ffff,
            1 << 32,
            1 << 62,
        ];
        *self.random.pick(&ends)
    }

    /// Also one that is near to what the server has.
    fn zxid(&mut self) -> Zxid {
        if self.random.permille(500) {
            return Zxid(self.number());
        }
        let near = self.random.between(0, 6) as i64 - 3;
        let epoch = if self.random.permille(200) { self.last.0.wrapping_add(1 << 32) } else { self.last.0 };
        Zxid(epoch.wrapping_add(near))
    }

    fn epoch(&mut self) -> Epoch {
        let near = self.last.epoch().0 + self.random.between(0, 3) as i64 - 1;
        Epoch(if self.random.permille(500) { self.number() } else { near })
    }

    fn server(&mut self) -> ServerId {
        let number = self.number();
        ServerId(if self.random.permille(700) { self.random.between(1, 7) as i64 } else { number })
    }

    fn session(&mut self) -> SessionId {
        if self.sessions.is_empty() || self.random.permille(300) {
            return SessionId(self.number());
        }
        *self.random.pick(&self.sessions)
    }

    fn mark(&mut self) -> Option<TxnMark> {
        self.random.permille(500).then(|| TxnMark(self.random.draw() as u32))
    }

    /// Of a transaction, whole or cut, or none.
    fn body(&mut self) -> Bytes {
        let len = self.random.below(self.body.len() as u64 + 1) as usize;
        if self.random.permille(500) { self.body.clone() } else { self.body.slice(..len) }
    }

    /// A proposal's zxid and transaction: mostly the same zxid is in it.
    fn proposal(&mut self) -> (Zxid, Bytes) {
        let (zxid, body) = (self.zxid(), self.body());
        if body.len() < 20 || self.random.permille(300) {
            return (zxid, body);
        }
        // Behind the session and the cxid.
        let mut body = body.to_vec();
        body[12..20].copy_from_slice(&zxid.0.to_be_bytes());
        (zxid, body.into())
    }

    fn learners_packet(&mut self) -> FromLearner {
        match self.random.below(9) {
            0 => FromLearner::Info {
                observer: self.random.permille(300),
                accepted: self.epoch(),
                id: self.server(),
                protocol: if self.random.permille(800) { PROTOCOL } else { self.number() as i32 },
                config_version: if self.random.permille(600) { 0 } else { self.number() },
            },
            1 => {
                let plea = Plea {
                    forgetful: self.random.permille(300),
                    snapshot: self.random.permille(300),
                    remembers: self.random.permille(300),
                };
                let current = if self.random.permille(800) { Some(self.epoch()) } else { None };
                FromLearner::AckEpoch { current, last: self.zxid(), plea }
            }
            2 | 3 => FromLearner::Ack(self.zxid()),
            4 => FromLearner::Differs { zxid: self.zxid(), digest: self.number() },
            5 => {
                let count = self.random.below(4);
                let touched = (0..count).map(|_| (self.session(), self.number() as i32)).collect();
                FromLearner::Ping { zxid: self.zxid(), touched }
            }
            6 => FromLearner::Revalidate { session: self.session(), timeout_ms: self.number() as i32 },
            7 => FromLearner::Request(Forwarded {
                session: self.session(),
                cxid: self.number() as i32,
                op: *self.random.pick(&[-11, -10, 1, 2, 5, 7, 9, 14, 15, 16, 19, 20, 21, i32::MIN, i32::MAX]),
                body: self.body(),
                auth: Vec::new(),
            }),
            _ => FromLearner::Unknown(self.number() as i32),
        }
    }

    fn leaders_packet(&mut self) -> FromLeader {
        match self.random.below(16) {
            0 => {
                let protocol = *self.random.pick(&[PROTOCOL, PROTOCOL, OBSERVE, 0, -1]);
                FromLeader::LeaderInfo { epoch: self.epoch(), protocol, hears_pleas: true }
            }
            1 => FromLeader::Diff(self.zxid(), self.mark()),
            2 => FromLeader::Trunc(self.zxid(), self.mark()),
            3 => FromLeader::Snap(self.zxid(), self.mark()),
            4 | 5 => {
                let (zxid, body) = self.proposal();
                FromLeader::Proposal { zxid, body }
            }
            6 | 7 => FromLeader::Commit(self.zxid()),
            8 => FromLeader::CommitAndActivate { zxid: self.zxid(), leader: self.server() },
            9 => {
                let (zxid, body) = self.proposal();
                FromLeader::Inform { zxid, body }
            }
            10 => {
                FromLeader::InformAndActivate { zxid: self.zxid(), leader: self.server(), body: self.body() }
            }
            11 => {
                let config = self.random.permille(500).then(|| self.body());
                FromLeader::NewLeader { zxid: self.zxid(), config }
            }
            12 => FromLeader::UpToDate,
            13 => FromLeader::Ping(self.zxid()),
            14 => FromLeader::Revalidate { session: self.session(), valid: self.random.permille(500) },
            _ => self.random.pick(&[FromLeader::Sync, FromLeader::Unknown(i32::MIN)]).clone(),
        }
    }

    /// As the driver of a link makes it of what came over that.
    pub fn input(&mut self, link: LinkId) -> Input {
        Input::Quorum(match self.random.below(12) {
            0..5 => QuorumInput::FromLearner { link, packet: self.learners_packet() },
            5..10 => QuorumInput::FromLeader { link, packet: self.leaders_packet() },
            10 => QuorumInput::Accepted(link),
            _ => QuorumInput::Closed(link),
        })
    }
}
