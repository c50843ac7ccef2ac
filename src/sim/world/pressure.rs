//! More than usual: requests that are large or many, and an ensemble in which nothing is broken that must stand them.

use super::World;
use crate::replica::Mode;
use crate::sim::client::Client;
use crate::sim::history::Asked;
use crate::sim::random::Random;

/// Milliseconds for which an ensemble in which nothing is broken is asked for more than it can do.
const PRESS_MS: u64 = 600;
/// Milliseconds after which everything is as it was before.
const RELIEF_MS: u64 = 2000;
/// Elections that it takes to have one leader after another, at the most.
const MOST_ELECTIONS: u64 = 3;
/// Milliseconds in which clients begin to write.
const HISTORY_MS: u64 = 30_000;
/// Microseconds between two looks of a client that asks for as much as it can.
const FLOOD_US: u64 = 500;
/// Requests that it then adds.
const FLOOD_STEP: u64 = 10;

/// Mostly much less than the most there may be.
fn size(most: usize, random: &mut Random) -> usize {
    (most >> random.below(5)).max(1)
}

/// The znodes that a client may set a quota on.
const QUOTAS: [&str; 2] = ["/a", "/b"];

impl World {
    /// Requests that a client keeps under way where it does not wait for what it asked before; 0: it does.
    pub(super) fn flood(&self) -> usize {
        if self.amounts_are_on && self.flood_left > 0 { self.options.amounts.flood } else { 0 }
    }

    /// Asks for some things at once; returns when it looks again.
    pub(super) fn client_floods(&mut self, index: usize) -> u64 {
        for _ in 0..FLOOD_STEP {
            if self.clients[index].outstanding() < self.flood() {
                self.flood_left -= 1;
                self.client_chooses(index);
            }
        }
        FLOOD_US
    }

    /// In place of some requests, larger ones.
    pub(super) fn enlarge(&mut self, asked: Asked) -> Asked {
        let often = self.options.amounts.often;
        if !self.amounts_are_on || often == 0 || !self.chance.permille(often) {
            return asked;
        }
        let (amounts, chance) = (&self.options.amounts, &mut self.chance);
        match (asked, chance.below(6)) {
            (Asked::Set { path, version, mut data }, _) => {
                data.resize(size(amounts.value, chance), b'.');
                Asked::Set { path, version, data }
            }
            // A child is what makes a container one that goes.
            (Asked::Create { data, .. }, 0) => {
                let path = format!("/c{}/x", chance.below(2));
                Asked::Create { path, data, sequential: false, ephemeral: true }
            }
            (Asked::Create { path, mut data, sequential, ephemeral }, _) => {
                data.resize(size(amounts.value, chance), b'.');
                Asked::Create { path, data, sequential, ephemeral }
            }
            (Asked::Get { path, .. }, _) => {
                // What it is answered is bounded, whatever is there.
                let parts = size(amounts.parts, chance);
                Asked::ReadMany { path, parts }
            }
            (Asked::Delete { path, .. } | Asked::Exists { path, .. }, 0) => {
                Asked::SetAcl { path, entries: size(amounts.entries, chance) }
            }
            (Asked::Delete { path, .. } | Asked::Exists { path, .. }, 1) => {
                Asked::Wide { path, parts: size(amounts.parts, chance) }
            }
            (Asked::Delete { .. } | Asked::Exists { .. }, 2) => {
                Asked::Container { path: format!("/c{}", chance.below(2)) }
            }
            (Asked::Delete { .. } | Asked::Exists { .. }, 3) => {
                let ms = chance.between(1, 400) as i64;
                Asked::Ttl { path: format!("/t{}", chance.below(2)), ms }
            }
            (Asked::Delete { .. } | Asked::Exists { .. }, 4) => {
                let path = chance.pick(&QUOTAS).to_string();
                let bytes = chance.between(20, 2 * amounts.value as u64);
                Asked::Quota { path, count: chance.between(2, 8), bytes }
            }
            (Asked::Children { .. } | Asked::Sync, _) => {
                let path = chance.pick(&["/", "/a", "/c0"]).to_string();
                Asked::AddWatch { path, recursive: chance.permille(500) }
            }
            (asked, _) => asked,
        }
    }

    /// All of a crowd fall silent, and the leader is killed: one of the others leads, and ends their sessions in time.
    fn lose_leader(&mut self) -> Result<(), String> {
        let leader = (0..self.nodes.len()).find(|index| self.mode_of(*index) == Mode::Leader);
        let Some(leader) = leader.filter(|_| !self.crowd.is_empty()) else { return Ok(()) };
        let before = self.observed.elections;
        self.crowd_falls_silent();
        self.say(|| format!("server {} is killed", leader + 1));
        self.end(leader, false);
        self.boot_after(leader, 100_000);
        self.await_expiry(self.options.init_ms())?;
        match self.observed.elections - before {
            0..=MOST_ELECTIONS => Ok(()),
            more => Err(format!("pressure: {more} elections after one leader was killed")),
        }
    }

    /// Nobody loses its leader because of work, no session ends, and afterwards all is as before.
    pub(super) fn press(&mut self) -> Result<(), String> {
        let amounts = &self.options.amounts;
        if amounts.flood == 0 && amounts.crowd == 0 && amounts.often == 0 {
            return Ok(());
        }
        let serve = |world: &Self| {
            world.all_serve(&world.configuration()) && world.clients.iter().all(Client::is_open)
        };
        if !self.comes_to(HISTORY_MS, serve)? {
            return Err("liveness: not all serve where nothing is broken".into());
        }
        self.say(|| "much is asked for".into());
        (self.is_calm, self.amounts_are_on) = (true, true);
        self.begin_crowd();
        let end = self.now + PRESS_MS * 1000;
        while self.now < end {
            self.step()?;
        }
        self.amounts_are_on = false;
        self.clients.iter_mut().for_each(|client| client.logged = 0);
        let write = |world: &Self| world.clients.iter().all(|client| client.logged > 0);
        if !self.comes_to(RELIEF_MS, write)? {
            return Err(format!("pressure: clients cannot write {RELIEF_MS} ms after it was over"));
        }
        self.is_calm = false;
        self.say(|| "all is as before".into());
        self.lose_leader()
    }
}
