//! Strangers: whoever reaches the peer ports and is no server of the ensemble. They claim members' ids, and say what decodes:
//! numbers at the ends of their ranges, or a little beyond what is true; packets before their time; configurations of
//! their own. They do not do what a member does from end to end: who proves nothing can't be told from a member then.

use super::{Event, World};
use crate::model::{Epoch, ServerId, SessionId, Zxid};
use crate::sim::client::Client;
use crate::sim::network::{Chunk, Host, Port};
use crate::sim::node::{DATA_DIR, Incoming};
use crate::wire::election::{InitialMessage, Notification, PeerState};
use crate::wire::quorum::{Forwarded, FromLearner, PROTOCOL, Plea};
use bytes::{Bytes, BytesMut};
use std::path::Path;

/// Microseconds between two packets of a stranger, at the most.
const PACE_US: u64 = 5_000;
/// Versions of configurations that they make up.
const FORGED: [&str; 3] = ["7ffffffffffffff0", "ffffffff", "200000ffe"];
/// Connections that they keep.
const CONNS: usize = 12;
/// Milliseconds for which they have to themselves an ensemble in which nothing else goes wrong.
const ATTACK_MS: u64 = 400;
/// Milliseconds after which they have gone, and what they did may still show: sessions end.
const AFTERMATH_MS: u64 = 300;
/// Milliseconds in which clients begin to write.
const HISTORY_MS: u64 = 30_000;

#[derive(Debug, Clone, Copy)]
pub(super) struct StrangerConn {
    of: usize,
    key: u64,
    port: Port,
}

impl World {
    pub(super) fn begin_strangers(&mut self) {
        self.strangers_are_on = true;
        for index in 0..self.options.strangers {
            self.after(1, Event::Stranger(index));
        }
    }

    pub(super) fn stranger_acts(&mut self, index: usize) {
        if !self.strangers_are_on {
            return;
        }
        let delay = self.random.between(500, PACE_US);
        self.after(delay, Event::Stranger(index));
        if self.strangers.is_empty() || self.random.permille(500) {
            self.stranger_connects(index);
        }
        if self.strangers.is_empty() {
            return;
        }
        let at = self.random.below(self.strangers.len() as u64) as usize;
        let StrangerConn { of, key, port } = self.strangers[at];
        let mut bytes = BytesMut::new();
        for _ in 0..self.random.between(1, 3) {
            match port {
                Port::Election => self.vote(&mut bytes),
                Port::Quorum | Port::Client => self.packet().encode(&mut bytes),
            }
        }
        self.stranger_sends(of, key, bytes);
    }

    fn stranger_sends(&mut self, index: usize, key: u64, bytes: BytesMut) {
        let (host, chunk) = (Host::Stranger(index), Chunk::Bytes(bytes.freeze()));
        let due = self.network.send(self.now, key, host, chunk, &mut self.random);
        self.due(due);
    }

    /// To any server that takes connections, and says who it claims to be.
    fn stranger_connects(&mut self, index: usize) {
        let to = self.random.below(self.nodes.len() as u64) as usize;
        let port = if self.random.permille(500) { Port::Election } else { Port::Quorum };
        if !self.nodes[to].takes(port, self.now) {
            return;
        }
        if self.strangers.len() >= CONNS {
            self.stranger_leaves();
        }
        let key = self.network.open(port, Host::Stranger(index), Host::Server(to));
        let life = self.nodes[to].life;
        self.bring(to, life, Incoming::Accepted(port, key));
        self.strangers.push(StrangerConn { of: index, key, port });
        let mut bytes = BytesMut::new();
        match port {
            Port::Election => {
                let from = self.claimed();
                InitialMessage { from, addresses: vec![("nowhere".into(), 1)] }.encode(&mut bytes);
            }
            Port::Quorum | Port::Client if self.random.permille(600) => {
                self.introduction().encode(&mut bytes)
            }
            // A packet before its time.
            Port::Quorum | Port::Client => {}
        }
        self.stranger_sends(index, key, bytes);
    }

    /// The oldest of their connections ends.
    fn stranger_leaves(&mut self) {
        let StrangerConn { of, key, .. } = self.strangers.remove(0);
        let due = self.network.send(self.now, key, Host::Stranger(of), Chunk::End, &mut self.random);
        self.due(due);
    }

    pub(super) fn end_strangers(&mut self) {
        self.strangers_are_on = false;
        while !self.strangers.is_empty() {
            self.stranger_leaves();
        }
    }

    /// Mostly a member's id. Who claims to be a majority of the voters is believed: nothing proves who is who. So it is always
    /// the same minority.
    fn claimed(&mut self) -> ServerId {
        let voters = self.options.voters as u64;
        if self.random.permille(900) {
            let claim = self.random.below((voters - 1) / 2);
            ServerId(((self.seed + claim) % voters) as i64 + 1)
        } else {
            self.nobody()
        }
    }

    /// Their votes are no claims.
    fn anybody(&mut self) -> ServerId {
        if self.random.permille(900) {
            ServerId(self.random.between(1, self.nodes.len() as u64) as i64)
        } else {
            self.nobody()
        }
    }

    fn nobody(&mut self) -> ServerId {
        ServerId(*self.random.pick(&[0, 99, 255, -1, i64::MAX, i64::MIN]))
    }

    /// Of all numbers, those that break things.
    fn extreme(&mut self) -> i64 {
        const EPOCHS: i64 = 0x7fff_fffe;
        let ends = [
            i64::MIN,
            i64::MIN + 1,
            -1,
            0,
            1,
            i64::MAX,
            i64::MAX - 1,
            i64::MAX - 0xf,
            EPOCHS,
            EPOCHS + 1,
            EPOCHS << 32,
            (EPOCHS + 1) << 32,
            1 << 40,
            1 << 62,
            (1 << 62) - 1,
        ];
        *self.random.pick(&ends)
    }

    /// An epoch a little later than the present one, or one of those.
    fn epoch(&mut self) -> Epoch {
        if self.random.permille(400) {
            return Epoch(self.extreme());
        }
        let processes = self.nodes.iter().filter_map(|node| node.process.as_ref());
        let newest = processes.map(|process| process.core.with_status(|status| status.epoch.0)).max();
        Epoch(newest.unwrap_or(0) + self.random.between(0, 300) as i64)
    }

    fn introduction(&mut self) -> FromLearner {
        let version = if self.random.permille(900) { 0 } else { self.extreme() };
        FromLearner::Info {
            observer: self.random.permille(200),
            accepted: self.epoch(),
            id: self.claimed(),
            protocol: if self.random.permille(950) { PROTOCOL } else { self.extreme() as i32 },
            config_version: version,
        }
    }

    /// Of the sessions that clients have, as znodes tell them to everybody.
    fn session(&mut self) -> SessionId {
        let client = self.random.below(self.clients.len() as u64) as usize;
        match self.clients[client].session {
            0 => SessionId(self.extreme()),
            session => SessionId(session),
        }
    }

    fn packet(&mut self) -> FromLearner {
        match self.random.below(9) {
            0 => self.introduction(),
            // It accepted this epoch before, or it is ahead.
            1 => FromLearner::AckEpoch { current: None, last: Zxid(self.extreme()), plea: Plea::default() },
            2 => FromLearner::AckEpoch {
                current: Some(Epoch(0x7fff_fffe)),
                last: Zxid(self.extreme()),
                plea: Plea::default(),
            },
            // None of these opens an epoch that there is.
            3 => FromLearner::Ack(Zxid(self.extreme())),
            4 | 5 => {
                let timeout = self.extreme() as i32;
                let touched = vec![(self.session(), timeout), (SessionId(self.extreme()), timeout)];
                FromLearner::Ping { zxid: Zxid(self.extreme()), touched }
            }
            6 => FromLearner::Revalidate { session: self.session(), timeout_ms: self.extreme() as i32 },
            7 => FromLearner::Request(Forwarded {
                session: self.session(),
                cxid: self.extreme() as i32,
                op: *self.random.pick(&[-11, -10, 1, 14, 16, i32::MIN, i32::MAX]),
                body: Bytes::new(),
                auth: Vec::new(),
            }),
            _ => FromLearner::Unknown(self.extreme() as i32),
        }
    }

    /// A notification.
    fn vote(&mut self, out: &mut BytesMut) {
        let states = [
            PeerState::Looking,
            PeerState::Looking,
            PeerState::Following,
            PeerState::Leading,
            PeerState::Observing,
        ];
        // A minority of the first voters may be the only one later, and is believed.
        let forgeries = if self.faults.has_reconfigured { 2 } else { 0 };
        let config = match self.random.between(forgeries, 3) {
            0 => Some(self.forged_configuration()),
            1 => Some("version=7ffffffffffffff0".into()),
            2 => None,
            _ => Some(self.servers_text.clone()),
        };
        let notification = Notification {
            state: *self.random.pick(&states),
            leader: self.anybody(),
            zxid: Zxid(if self.random.permille(500) { self.extreme() } else { 1 << 32 }),
            round: if self.random.permille(500) { self.extreme() } else { self.random.between(0, 9) as i64 },
            peer_epoch: self.epoch(),
            version: 2,
            config: config.map(Bytes::from),
        };
        notification.encode(out);
    }

    /// One server of this ensemble, and nobody else.
    fn forged_configuration(&mut self) -> String {
        let id = self.random.between(1, self.nodes.len() as u64);
        let version = *self.random.pick(&FORGED);
        format!("server.{id}=s{id}:1:2:participant\nserver.99=s99:1:2:participant\nversion={version}")
    }

    /// They have an ensemble to themselves that serves, and in which nothing else is wrong: nobody loses its leader, no
    /// client its session, and what they claim is on nobody's disk.
    pub(super) fn attack(&mut self) -> Result<(), String> {
        if self.options.strangers == 0 {
            return Ok(());
        }
        // A leader that has nothing gives way to whoever says that it has something.
        let is_busy =
            |world: &Self| !world.observed.committed.is_empty() && world.clients.iter().all(Client::is_open);
        if !self.comes_to(HISTORY_MS, is_busy)? {
            return Err("liveness: clients write nothing where nothing is broken".into());
        }
        let sessions: Vec<i64> = self.clients.iter().map(|client| client.session).collect();
        let (config, files) = (self.configuration(), self.proofs());
        self.is_calm = true;
        self.begin_strangers();
        self.say(|| "strangers come".into());
        let gone = self.now + ATTACK_MS * 1000;
        while self.now < gone + AFTERMATH_MS * 1000 {
            self.step()?;
            if self.now >= gone {
                self.end_strangers();
            }
            for (client, session) in self.clients.iter().zip(&sessions) {
                if *session != 0 && client.session != *session && !client.has_closed(*session) {
                    return Err(format!("strangers: client {} lost its session {session:#x}", client.index));
                }
            }
        }
        self.is_calm = false;
        if self.configuration() != config {
            return Err(format!("strangers: the configuration is {} now", self.configuration()));
        }
        let new = self.proofs();
        if new > files {
            return Err(format!("strangers: files have {new:?} now, they had {files:?}"));
        }
        self.say(|| "strangers moved nothing".into());
        Ok(())
    }

    /// What files hold that only what is proved may change while a leader leads: the last epoch that was accepted, and
    /// how many files have a forged configuration.
    fn proofs(&self) -> (i64, usize) {
        let (mut epoch, mut forgeries) = (0, 0);
        for node in &self.nodes {
            let accepted = node.disk.read(&Path::new(DATA_DIR).join("version-2/acceptedEpoch"));
            let accepted = String::from_utf8_lossy(&accepted.unwrap_or_default()).trim().parse();
            epoch = epoch.max(accepted.unwrap_or(0));
            let forged = |path: &&String| FORGED.iter().any(|version| path.ends_with(&format!(".{version}")));
            forgeries += node.disk.paths().iter().filter(forged).count();
        }
        (epoch, forgeries)
    }
}
