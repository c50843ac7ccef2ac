//! What many clients do that do next to nothing, and what becomes of their sessions.

use super::{Event, World};
use crate::sim::crowd::TURNS;
use crate::sim::history::Asked;
use crate::sim::network::{Chunk, Host, Port};
use crate::sim::node::Incoming;
use bytes::Bytes;

/// Milliseconds, beside its timeout, in which a session ends of whose client nothing was heard. What the client asked last may wait
/// at the door for a while, and counts as heard when it is let in.
const EXPIRY_MS: u64 = 6000;
/// Sessions of other clients.
const FEW: usize = 10;

impl World {
    /// They come, and stay until [`Self::crowd_falls_silent`].
    pub(super) fn begin_crowd(&mut self) {
        if !self.crowd.is_empty() && !self.crowd.is_awake {
            self.crowd.is_awake = true;
            self.say(|| format!("{} clients come that only ping", self.crowd.members.len()));
            self.after(1, Event::Crowd);
        }
    }

    /// None of them says anything any more. Some connections end, others only seem to be there.
    pub(super) fn crowd_falls_silent(&mut self) {
        if !std::mem::take(&mut self.crowd.is_awake) {
            return;
        }
        self.say(|| "they fall silent".into());
        let leave = self.chance.permille(500);
        for index in 0..self.crowd.members.len() {
            let Some(key) = self.crowd.members[index].conn else { continue };
            if leave {
                self.crowd.members[index].disconnected();
                let host = Host::Crowd(index);
                let due = self.network.send(self.now, key, host, Chunk::End, &mut self.chance);
                self.due(due);
            }
        }
    }

    pub(super) fn crowd_acts(&mut self) {
        if !self.crowd.is_awake {
            return;
        }
        let turn = self.crowd.turn;
        self.crowd.turn = (turn + 1) % TURNS;
        for index in (turn..self.crowd.members.len()).step_by(TURNS) {
            self.one_acts(index);
        }
        // Each pings a little more often than it has to.
        let pause = self.options.session_ms as u64 * 1000 / 4 / TURNS as u64;
        self.after(pause, Event::Crowd);
    }

    fn one_acts(&mut self, index: usize) {
        let member = &mut self.crowd.members[index];
        if member.conn.is_none() {
            return self.one_connects(index);
        }
        if member.gives_up(self.now) {
            let key = member.conn;
            member.disconnected();
            if let Some(key) = key {
                let due = self.network.send(self.now, key, Host::Crowd(index), Chunk::End, &mut self.chance);
                self.due(due);
            }
            return;
        }
        let bytes = if member.is_open() && !member.has_asked() {
            let path = format!("/crowd{index}");
            let asked = Asked::Create { path, data: Vec::new(), sequential: false, ephemeral: true };
            member.ask(self.now, asked, &mut self.history)
        } else {
            member.ping(self.now)
        };
        if let Some(bytes) = bytes {
            self.one_sends(index, bytes);
        }
    }

    fn one_connects(&mut self, index: usize) {
        let to = self.chance.below(self.nodes.len() as u64) as usize;
        if self.nodes[to].process.is_none() {
            return;
        }
        let key = self.network.open(Port::Client, Host::Crowd(index), Host::Server(to));
        let life = self.nodes[to].life;
        self.bring(to, life, Incoming::Accepted(Port::Client, key));
        let hello = self.crowd.members[index].connected(self.now, key, &mut self.history);
        self.one_sends(index, hello);
    }

    fn one_sends(&mut self, index: usize, bytes: Bytes) {
        let Some(key) = self.crowd.members[index].conn else { return };
        let due = self.network.send(self.now, key, Host::Crowd(index), Chunk::Bytes(bytes), &mut self.chance);
        self.due(due);
    }

    pub(super) fn crowd_hears(&mut self, index: usize, key: u64, chunk: Chunk) -> Result<(), String> {
        let member = &mut self.crowd.members[index];
        if member.conn != Some(key) {
            return Ok(());
        }
        match chunk {
            Chunk::Bytes(bytes) => {
                member
                    .receive(self.now, &bytes, &mut self.history)
                    .map_err(|what| format!("one of many {index}: {what}"))?;
                self.crowd.opened(index);
            }
            Chunk::End | Chunk::Reset => member.disconnected(),
        }
        Ok(())
    }

    /// Their sessions end soon after their timeouts and `more_ms`, on every server, and their ephemerals with them.
    pub(super) fn await_expiry(&mut self, more_ms: u64) -> Result<(), String> {
        if self.crowd.is_empty() {
            return Ok(());
        }
        let live_on = |world: &Self| {
            let count = |index: usize| {
                let Some(process) = &world.nodes[index].process else { return 0 };
                let db = process.core.db.read();
                // Where there are many, some are of the crowd.
                if db.sessions.len() > 4 * FEW {
                    return db.sessions.len();
                }
                db.sessions.keys().filter(|session| world.crowd.of(session.0).is_some()).count()
            };
            world.members().into_iter().map(count).max().unwrap_or(0)
        };
        // Each end is some ten inputs of the leader.
        let work_ms = self.crowd.members.len() as u64 * self.options.amounts.cost.input_ns / 100_000;
        let patience_ms = self.options.session_ms as u64 + EXPIRY_MS + work_ms + more_ms;
        if !self.comes_to(patience_ms, |world| live_on(world) == 0)? {
            return Err(format!(
                "expiry: {} sessions live on {patience_ms} ms after their clients fell silent",
                live_on(self)
            ));
        }
        self.say(|| "their sessions have ended".into());
        Ok(())
    }
}
