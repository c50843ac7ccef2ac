//! The end of a run: everything is mended, has to serve again, and is looked through.

use super::{World, indices};
use crate::ensemble::Ensemble;
use crate::model::SessionId;
use crate::sim::client::Client;
use crate::sim::history::{self, Asked};
use crate::sim::model::{LogFile, Model};
use crate::sim::node::Process;
use std::collections::BTreeSet;
use std::path::Path;

/// Milliseconds that a mended ensemble has to serve again.
const LIVENESS_MS: u64 = 15_000;
const QUIET_MS: u64 = 5_000;
/// Leaders that begin to lead once everything is mended, at the most.
const MOST_ELECTIONS: u64 = 3;
/// Writes of every client that a mended ensemble has to take.
const LAST_WRITES: usize = 2;
/// Tenths of a session's timeout in which its closing is committed everywhere: it must be less than it would live without, and
/// its last ping may be a third old.
const GOODBYE_TENTHS: u64 = 6;
/// The same where work costs time, and what was said before waits for that.
const COSTLY_GOODBYE_TENTHS: u64 = 9;
const MIN_SESSION_MS: i32 = 1000;
/// What the leader's history takes the place of is kept.
const KEEPS: bool = true;

impl World {
    pub(super) fn mend(&mut self) {
        self.say(|| "everything is mended".into());
        self.faults.are_on = false;
        self.amounts_are_on = false;
        self.crowd_falls_silent();
        self.end_strangers();
        self.heal();
        self.network.spike = 0;
        for index in 0..self.nodes.len() {
            let disk = self.nodes[index].disk.clone();
            self.faults.clear_disk(&disk);
            disk.come_true();
            self.nodes[index].disk_hangs_until = 0;
            if self.nodes[index].paused {
                self.resume(index);
            }
            if self.nodes[index].process.is_none() {
                let delay = self.random.below(50_000);
                self.boot_after(index, delay);
            }
        }
        self.clients.iter_mut().for_each(|client| client.acked = 0);
    }

    pub(super) fn await_service(&mut self) -> Result<(), String> {
        let serve = |world: &Self| {
            world.all_serve(&world.configuration())
                && world.clients.iter().all(|client| client.acked >= LAST_WRITES)
        };
        let before = self.observed.elections;
        if !self.comes_to(LIVENESS_MS, serve)? {
            let modes = self.modes();
            let acked: Vec<usize> = self.clients.iter().map(|client| client.acked).collect();
            return Err(format!(
                "liveness: not all serve {LIVENESS_MS} ms after everything was mended: {modes:?}, writes {acked:?}"
            ));
        }
        self.say(|| "all members serve, and every client writes".into());
        match self.observed.elections - before {
            0..=MOST_ELECTIONS => Ok(()),
            // Where epochs are short, each ends with an election.
            _ if self.options.amounts.epoch_len.is_some() => Ok(()),
            more => Err(format!("liveness: {more} elections after everything was mended")),
        }
    }

    /// Nobody asks for anything any more: all servers come to stand at the same place.
    pub(super) fn await_silence(&mut self) -> Result<(), String> {
        self.clients.iter_mut().for_each(|client| client.is_quiet = true);
        let zxid = |world: &Self, index: usize| {
            world.nodes[index].process.as_ref().map(|process| process.core.db.read().last_zxid)
        };
        let are_even = |world: &Self| {
            let config = world.configuration();
            let members = indices(&config);
            let first = members.first().and_then(|index| zxid(world, *index));
            first.is_some()
                && world.clients.iter().all(Client::is_idle)
                && world.all_serve(&config)
                && members.iter().all(|index| zxid(world, *index) == first)
        };
        if !self.comes_to(QUIET_MS, are_even)? {
            let at: Vec<_> = self.members().into_iter().map(|index| zxid(self, index)).collect();
            return Err(format!("liveness: servers do not come even: {:?} at {at:?}", self.modes()));
        }
        Ok(())
    }

    /// Clients do nothing but ping, for as long as their sessions could live without it twice.
    pub(super) fn linger(&mut self) -> Result<(), String> {
        let before: Vec<_> = self
            .clients
            .iter()
            .map(|client| {
                // It may have asked for its end on an earlier connection, and that may be on its way.
                let stays = client.is_open() && client.session != 0 && !client.has_closed(client.session);
                client.conn.filter(|_| stays)
            })
            .collect();
        let end = self.now + 2 * 1000 * self.options.session_ms as u64;
        while self.now < end {
            self.step()?;
        }
        for (client, conn) in self.clients.iter().zip(before) {
            if conn.is_some() && client.conn != conn {
                return Err(format!(
                    "sessions: client {} lost the connection of session {:#x}, and did nothing but ping",
                    client.index, client.session
                ));
            }
        }
        Ok(())
    }

    /// Each client asks for something, closes its session, and goes without waiting for an answer. What it said counts.
    pub(super) fn say_goodbye(&mut self) -> Result<(), String> {
        // The closing of a shorter one may take longer than it would have lived.
        if self.options.session_ms < MIN_SESSION_MS {
            return Ok(());
        }
        let mut closed = Vec::new();
        for index in 0..self.clients.len() {
            if !self.clients[index].is_open() || self.clients[index].session == 0 {
                continue;
            }
            closed.push(SessionId(self.clients[index].session));
            let path = format!("/goodbye{index}");
            let create =
                Asked::Create { path: path.clone(), data: Vec::new(), sequential: false, ephemeral: true };
            for asked in [create, Asked::Get { path, watch: false }, Asked::Close] {
                self.client_asks(index, asked)?;
            }
            self.client_leaves(index);
        }
        let are_closed = |world: &Self| {
            world.members().into_iter().all(|index| {
                let process = world.nodes[index].process.as_ref();
                process.is_none_or(|process| {
                    let db = process.core.db.read();
                    closed.iter().all(|session| !db.sessions.contains_key(session))
                })
            })
        };
        let is_free = self.options.amounts.cost.is_none();
        let tenths = if is_free { GOODBYE_TENTHS } else { COSTLY_GOODBYE_TENTHS };
        let patience_ms = self.options.session_ms as u64 * tenths / 10;
        if !self.comes_to(patience_ms, are_closed)? {
            return Err("goodbye: clients closed their sessions and went, and the sessions live on".into());
        }
        Ok(())
    }

    /// Whether things come to be so in time. They are looked at every 10 ms.
    pub(super) fn comes_to(
        &mut self,
        patience_ms: u64,
        be_so: impl Fn(&Self) -> bool,
    ) -> Result<bool, String> {
        let deadline = self.now + patience_ms * 1000;
        let mut next_look = 0;
        loop {
            self.step()?;
            if self.now < next_look {
                continue;
            }
            next_look = self.now + 10_000;
            if be_so(self) {
                return Ok(true);
            }
            if self.now > deadline {
                return Ok(false);
            }
        }
    }

    pub(super) fn verify(&self) -> Result<(), String> {
        let model = history::check(&self.history, &self.observed.committed)?;
        for index in self.members() {
            let Some(process) = &self.nodes[index].process else { continue };
            compare(&model, process).map_err(|what| format!("server {}: {what}", index + 1))?;
        }
        if KEEPS { self.verify_kept() } else { Ok(()) }
    }

    /// What a server had on its disk is in the ensemble's history, or somewhere on that disk still.
    fn verify_kept(&self) -> Result<(), String> {
        for (index, node) in self.nodes.iter().enumerate() {
            let is_lost = |zxid: &&i64| !self.observed.committed.contains_key(*zxid);
            let mut missing: BTreeSet<i64> = node.held.iter().filter(is_lost).copied().collect();
            if missing.is_empty() {
                continue;
            }
            for path in node.disk.paths().iter().filter(|path| path.contains("/log.")) {
                let bytes = node.disk.read(Path::new(&path[..])).unwrap_or_default();
                let found: BTreeSet<i64> =
                    LogFile::read(&bytes).records.iter().map(|(zxid, _)| *zxid).collect();
                missing.retain(|zxid| !found.contains(zxid));
            }
            if let Some(zxid) = missing.first() {
                return Err(format!(
                    "kept: server {} had {zxid:#x} on its disk, and the leader did not: it is nowhere now",
                    index + 1
                ));
            }
        }
        Ok(())
    }

    /// Whether every member serves, under this very configuration. A follower that has not heard yet that its leader removed
    /// itself believes to serve: then a hand-over is still to come.
    pub(super) fn all_serve(&self, config: &Ensemble) -> bool {
        let text = config.to_string();
        let has_it = |index: usize| {
            let process = self.nodes[index].process.as_ref();
            process.is_some_and(|process| {
                process.core.with_status(|status| status.mode.has_leader() && status.config == text)
            })
        };
        indices(config).into_iter().all(has_it)
    }
}

/// The tree and the sessions of a server against the model's.
fn compare(model: &Model, process: &Process) -> Result<(), String> {
    let db = process.core.db.read();
    let mut seen = 1;
    let mut open = vec![("/".to_string(), db.tree.find(b"/").ok_or("there is no root")?)];
    while let Some((path, id)) = open.pop() {
        let node = model.nodes.get(&path).ok_or(format!("{path} is there, and not in the model"))?;
        let stat = db.tree.stat(id);
        let data = db.tree.data(id).unwrap_or_default();
        let is =
            (data, stat.version, stat.aversion, stat.mzxid, stat.czxid, stat.pzxid, stat.ephemeral_owner);
        let should =
            (&node.data[..], node.version, node.lists, node.mzxid, node.czxid, node.pzxid, node.owner.max(0));
        if is != should && path != "/" {
            return Err(format!("{path} is {is:?}, where the model has {should:?}"));
        }
        for name in db.tree.children(id) {
            let name = String::from_utf8_lossy(name).into_owned();
            if path == "/" && name == "zookeeper" {
                continue;
            }
            let child = if path == "/" { format!("/{name}") } else { format!("{path}/{name}") };
            let id = db.tree.find(child.as_bytes()).ok_or(format!("{child} is listed, and not there"))?;
            seen += 1;
            open.push((child, id));
        }
    }
    if seen != model.own() {
        return Err(format!("{seen} znodes, where the model has {}", model.own()));
    }
    for (path, usage) in model.usages() {
        let stated = db.tree.find(path.as_bytes()).and_then(|id| db.tree.data(id));
        if stated != Some(usage.as_bytes()) {
            let stated = stated.map(String::from_utf8_lossy);
            return Err(format!("quota: {path} states {stated:?}, where the model has {usage}"));
        }
    }
    let sessions: Vec<i64> = db.sessions.keys().map(|session| session.0).collect();
    if sessions.len() != model.sessions.len() || sessions.iter().any(|id| !model.sessions.contains_key(id)) {
        return Err(format!("sessions {sessions:x?}, where the model has {:x?}", model.sessions));
    }
    Ok(())
}
