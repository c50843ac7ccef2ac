//! Clients: their connections, and what they ask for.

use super::{Event, World};
use crate::sim::history::{Answer, Asked};
use crate::sim::network::{Chunk, Host, Port};
use crate::sim::node::Incoming;
use bytes::Bytes;

const CLIENT_STEP: u64 = 20_000;

impl World {
    pub(super) fn client_hears(&mut self, index: usize, key: u64, chunk: Chunk) -> Result<(), String> {
        let client = &mut self.clients[index];
        if client.conn != Some(key) {
            return Ok(());
        }
        match chunk {
            Chunk::Bytes(bytes) => {
                client
                    .receive(self.now, &bytes, &mut self.history)
                    .map_err(|what| format!("client {index}: {what}"))?;
                for request in client.watches_again(self.now, &mut self.history) {
                    self.client_sends(index, request);
                }
            }
            Chunk::End | Chunk::Reset => client.disconnected(),
        }
        Ok(())
    }

    fn client_sends(&mut self, index: usize, bytes: Bytes) {
        let Some(key) = self.clients[index].conn else { return };
        let host = Host::Client(index);
        let due = self.network.send(self.now, key, host, Chunk::Bytes(bytes), &mut self.random);
        self.due(due);
    }

    pub(in crate::sim) fn client_leaves(&mut self, index: usize) {
        let Some(key) = self.clients[index].conn else { return };
        self.clients[index].disconnected();
        let due = self.network.send(self.now, key, Host::Client(index), Chunk::End, &mut self.random);
        self.due(due);
    }

    pub(super) fn client_acts(&mut self, index: usize) {
        let mut delay = self.random.between(self.options.think_us.0, self.options.think_us.1);
        if self.clients[index].conn.is_none() {
            delay += self.random.below(30_000);
            if !self.clients[index].is_quiet {
                self.client_connects(index);
            }
        } else if self.clients[index].is_open()
            && !self.clients[index].is_quiet
            && self.clients[index].outstanding() < self.options.pipeline.max(self.flood())
        {
            if self.flood() > 0 {
                delay = self.client_floods(index);
            }
            if self.options.hasty > 0 && self.random.permille(self.options.hasty) {
                self.client_hurries(index);
            } else {
                self.client_chooses(index);
            }
        }
        self.after(delay + 50, Event::Client(index));
    }

    pub(super) fn client_chooses(&mut self, index: usize) {
        let reconfig = self.faults.wanted_reconfig.take();
        let asked = self.clients[index].choose(reconfig, &mut self.random);
        let asked = self.enlarge(asked);
        if self.amounts_are_on
            && self.chance.permille(self.options.amounts.often / 4)
            && self.clients[index].is_open()
        {
            let who = self.clients[index].authenticate(self.now);
            self.client_sends(index, who);
        }
        if let Some(bytes) = self.clients[index].ask(self.now, asked, &mut self.history) {
            self.client_sends(index, bytes);
        }
    }

    /// Asks for much at once, and goes without waiting for an answer; or asks for what no client may, and is sent away.
    fn client_hurries(&mut self, index: usize) {
        for _ in 0..self.random.between(1, 5) {
            self.client_chooses(index);
        }
        if self.random.permille(500) {
            self.client_leaves(index);
        } else {
            let nonsense = self.clients[index].talk_nonsense(self.now);
            self.client_sends(index, nonsense);
        }
    }

    fn client_connects(&mut self, index: usize) {
        let to = self.random.below(self.nodes.len() as u64) as usize;
        if self.nodes[to].process.is_some() {
            self.client_connects_to(index, to);
        }
    }

    /// For a story: to this server, away from another one.
    pub(in crate::sim) fn client_moves(&mut self, index: usize, to: usize) {
        self.client_leaves(index);
        self.client_connects_to(index, to);
    }

    /// For a story: the request's number in the history.
    pub(in crate::sim) fn client_asks(&mut self, index: usize, asked: Asked) -> Result<usize, String> {
        let message = self.clients[index].ask(self.now, asked, &mut self.history);
        self.client_sends(index, message.ok_or("it has no connection")?);
        Ok(self.history.requests.len() - 1)
    }

    pub(in crate::sim) fn answer(&self, request: usize) -> Option<Answer> {
        self.history.requests[request].ended.as_ref().map(|(_, answer)| answer.clone())
    }

    fn client_connects_to(&mut self, index: usize, to: usize) {
        let key = self.network.open(Port::Client, Host::Client(index), Host::Server(to));
        let life = self.nodes[to].life;
        self.bring(to, life, Incoming::Accepted(Port::Client, key));
        let hello = self.clients[index].connected(self.now, key, &mut self.history);
        self.client_sends(index, hello);
    }

    pub(super) fn client_ticks(&mut self, index: usize) {
        if self.clients[index].gives_up(self.now) {
            self.client_leaves(index);
        } else if let Some(ping) = self.clients[index].ping(self.now) {
            self.client_sends(index, ping);
        }
        self.after(CLIENT_STEP, Event::ClientTick(index));
    }
}
