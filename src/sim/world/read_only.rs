//! One server is left of an ensemble: in read-only mode, it shows what it has to those who take that, and changes nothing.

use super::World;
use crate::replica::Mode;
use crate::sim::client::Client;
use crate::sim::history::{Asked, NOT_READ_ONLY};

/// Of a thousand runs, in how many there is one server left at the end.
const OFTEN: u64 = 40;
const ALONE_MS: u64 = 10_000;
const ANSWER_MS: u64 = 2_000;
const BACK_MS: u64 = 15_000;

impl World {
    pub(super) fn read_alone(&mut self) -> Result<(), String> {
        let members = self.members();
        // A server that is a quorum of its own is not alone.
        if !self.chance.permille(OFTEN) || members.len() < 3 || self.options.voters < 2 || self.options.groups
        {
            return Ok(());
        }
        let left = *self.chance.pick(&members);
        if self.configuration().has_quorum(|id| id.0 as usize == left + 1) {
            return Ok(());
        }
        let others: Vec<usize> = (0..self.nodes.len()).filter(|index| *index != left).collect();
        for index in &others {
            self.end(*index, false);
        }
        self.say(|| format!("only server {} is left", left + 1));
        if !self.comes_to(ALONE_MS, |world| world.mode_of(left) == Mode::ReadOnly)? {
            return Err(format!("read-only: server {} is in {:?}", left + 1, self.mode_of(left)));
        }
        self.visit(left)?;
        for index in others {
            let delay = self.chance.below(50_000);
            self.boot_after(index, delay);
        }
        let visitor = self.clients.len() - 1;
        let serve =
            |world: &Self| world.all_serve(&world.configuration()) && world.clients[visitor].conn.is_none();
        if !self.comes_to(BACK_MS, serve)? {
            let has = self.clients[visitor].conn;
            return Err(format!(
                "read-only: not all serve again: {:?}, the visitor has {has:?}",
                self.modes()
            ));
        }
        Ok(())
    }

    /// Two clients come, and only one of them takes what is read-only.
    fn visit(&mut self, left: usize) -> Result<(), String> {
        for takes in [false, true] {
            let index = self.clients.len();
            let mut client = Client::new(index, self.options.session_ms, false, 0);
            (client.is_quiet, client.takes_read_only) = (true, takes);
            self.clients.push(client);
            self.client_moves(index, left);
            let is_told =
                |world: &Self| world.clients[index].is_open() || world.clients[index].conn.is_none();
            if !self.comes_to(ANSWER_MS, is_told)? || self.clients[index].is_open() != takes {
                return Err(format!(
                    "read-only: a client that takes it ({takes}) has {:?}",
                    self.clients[index]
                ));
            }
        }
        let index = self.clients.len() - 1;
        if !self.clients[index].is_read_only {
            return Err("read-only: a session that does not say so".into());
        }
        let mut asked = Vec::new();
        for path in ["/", "/a", "/b", "/c", "/a/x", "/none"].map(String::from) {
            asked.push(Asked::Exists { path: path.clone(), watch: true });
            asked.push(Asked::Children { path: path.clone(), watch: false });
            asked.push(Asked::Set { path, data: Vec::new(), version: -1 });
        }
        asked.push(Asked::Sync);
        for asked in asked {
            let is_read = asked.reads().is_some();
            let request = self.client_asks(index, asked)?;
            if !self.comes_to(ANSWER_MS, |world| world.answer(request).is_some())? {
                return Err("read-only: no answer".into());
            }
            let answer = self.answer(request).expect("just seen");
            if (answer.err == NOT_READ_ONLY) == is_read {
                return Err(format!("read-only: {:?}", self.history.requests[request]));
            }
        }
        Ok(())
    }
}
