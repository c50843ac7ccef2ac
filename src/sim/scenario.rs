//! Stories of the protocol as text: which servers there are, then what happens, line by line. A seed draws the delays, so
//! one story is many runs. `compat-tests/sim/scenarios/README.md` lists the words.

use super::amounts::Amounts;
use super::disk::BadSector;
use super::faults::Harm;
use super::history::{Answer, Asked};
use super::options::{Options, Rates};
use super::world::{Crash, Tells, World};
use super::{Outcome, Random};
use crate::figures::Figures;
use crate::replica::Mode;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Milliseconds that a story waits for anything.
const PATIENCE_MS: u64 = 15_000;

/// A story that was read.
#[derive(Debug, Clone)]
pub struct Scenario {
    options: Options,
    /// Line numbers and words.
    steps: Vec<(usize, Vec<String>)>,
}

impl Scenario {
    /// An error names the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut options = calm();
        let mut steps = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<String> = line.split_whitespace().map(str::to_string).collect();
            let Some(first) = words.first() else { continue };
            let number = || {
                let number = words.get(1).and_then(|word| word.parse().ok());
                number.ok_or(format!("line {}: {first} wants a number", at + 1))
            };
            match &first[..] {
                "voters" => options.voters = number()?,
                "observers" => options.observers = number()?,
                "spares" => options.spares = number()?,
                "clients" => options.clients = number()?,
                "remembers" => (options.history_entries, options.history_bytes) = (number()?, 0),
                "snap-count" => options.snap_count = number()? as u64,
                "alone" => options.alone = true,
                "empty-wait-ms" => options.empty_wait_ms = number()? as u64,
                "session-ms" => options.session_ms = number()? as i32,
                "reconfig" => options.reconfig = true,
                "no-log-sync" => options.disk_sync = false,
                _ => steps.push((at + 1, words)),
            }
        }
        Ok(Self { options, steps })
    }

    /// Tells it once, with the delays of `seed`.
    pub fn run(&self, seed: u64, figures: &Arc<Figures>, tells: Tells) -> Outcome {
        self.tell(seed, figures, tells, &[]).0
    }

    /// The same, and the server that is watched crashes like this. With the first crash the story is at its end: everything is
    /// mended and looked through.
    pub(super) fn tell(
        &self,
        seed: u64,
        figures: &Arc<Figures>,
        tells: Tells,
        crashes: &[Crash],
    ) -> (Outcome, World) {
        let mut world = World::new(seed, self.options.clone(), Random::new(seed), figures.clone(), tells);
        world.plan_crashes(crashes);
        let violation = Story { names: BTreeMap::new(), asked: BTreeMap::new() }.tell(self, &mut world).err();
        (Outcome { seed, report: world.report(), violation }, world)
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }
}

/// Nothing goes wrong by itself.
fn calm() -> Options {
    Options {
        voters: 3,
        alone: false,
        observers: 0,
        spares: 0,
        groups: false,
        clients: 2,
        // A story tells what happens, and takes as long as that does.
        unsafe_ms: 0,
        tick_ms: 100,
        init_limit: 8,
        sync_limit: 4,
        latency: (50, 2000),
        disk_latency: (20, 1000),
        spike: 0,
        pipeline: 8,
        think_us: (0, 40_000),
        snap_count: 1000,
        history_entries: 500,
        history_bytes: 1 << 20,
        force_snapshot_sync: false,
        disk_sync: true,
        reconfig: false,
        drift: 0,
        session_ms: 10_000,
        counts_anew: false,
        batch: 1,
        max_unlogged: 500,
        window: 1 << 20,
        admitted: 1 << 20,
        padding: 0,
        feed_ahead: 1 << 18,
        feed_piece: 1000,
        slice: 1,
        rates: Rates::default(),
        opening: None,
        pace: (20, 20, 160),
        empty_wait_ms: 500,
        refuses_us: 0,
        resets: 0,
        handover_crash: 0,
        strangers: 0,
        cuts: 0,
        hasty: 0,
        lingers: false,
        rewatches: false,
        amounts: Amounts::default(),
    }
}

struct Story {
    /// The names that it gave to servers.
    names: BTreeMap<String, usize>,
    /// What each client asked last without waiting for the answer: its number in the history.
    asked: BTreeMap<usize, usize>,
}

impl Story {
    fn tell(&mut self, scenario: &Scenario, world: &mut World) -> Result<(), String> {
        world.begin();
        world.clients.iter_mut().for_each(|client| client.is_quiet = true);
        for (line, words) in &scenario.steps {
            world.say(|| format!("line {line}: {}", words.join(" ")));
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let done = self.step(&words, world);
            if world.has_crashed() {
                break;
            }
            done.map_err(|what| format!("line {line}: {what}"))?;
        }
        world.count_steps();
        world.clients.iter_mut().for_each(|client| client.is_quiet = false);
        world.finish()
    }

    fn server(&self, name: &str, world: &World) -> Result<usize, String> {
        let known = self.names.get(name).copied();
        let number = || name.parse::<usize>().ok().map(|id| id - 1);
        let index = known.or_else(number).filter(|index| *index < world.nodes.len());
        index.ok_or(format!("there is no server {name:?}"))
    }

    fn step(&mut self, words: &[&str], world: &mut World) -> Result<(), String> {
        match *words {
            ["await", "all"] => until(world, "not all serve", |world| {
                world.members().iter().all(|index| world.mode_of(*index).has_leader())
            }),
            ["await", "leader", name] => {
                until(world, "nobody leads", |world| leader(world).is_some())?;
                self.names.insert(name.into(), leader(world).expect("just seen"));
                Ok(())
            }
            ["await", name, "serves"] => {
                let server = self.server(name, world)?;
                until(world, "it does not serve", |world| world.mode_of(server).has_leader())
            }
            ["await", name, "reads"] => {
                let server = self.server(name, world)?;
                until(world, "it does not become read-only", |world| world.mode_of(server) == Mode::ReadOnly)
            }
            ["await", name, "looks"] => {
                let server = self.server(name, world)?;
                until(world, "it still serves", |world| !world.mode_of(server).has_leader())
            }
            ["nobody", "leads"] => match leader(world) {
                None => Ok(()),
                Some(index) => Err(format!("server {} leads", index + 1)),
            },
            ["follower", name] => {
                let taken = |index: &usize| self.names.values().any(|other| other == index);
                let mut free = (0..world.nodes.len()).filter(|index| !taken(index));
                let found = free.find(|index| world.mode_of(*index) == Mode::Follower);
                self.names.insert(name.into(), found.ok_or("there is no other follower")?);
                Ok(())
            }
            ["run", millis] => {
                let end = world.now + 1000 * millis.parse::<u64>().map_err(|_| "a number of milliseconds")?;
                while world.now < end && !world.has_crashed() {
                    world.step()?;
                }
                Ok(())
            }
            ["kill", name] => self.with(name, world, |world, server| world.end(server, false)),
            ["power-off", name] => self.with(name, world, |world, server| world.end(server, true)),
            ["new-disk", name] => self.with(name, world, |world, server| {
                world.end(server, true);
                world.wipe(server);
            }),
            ["start", name] => self.with(name, world, |world, server| world.boot_after(server, 100)),
            ["victim", name] => self.with(name, world, World::watch),
            ["purge", name, keep] => {
                let server = self.server(name, world)?;
                world.purge(server, keep.parse().map_err(|_| "a number of snapshots")?)
            }
            ["backs-up", name] => {
                let server = self.server(name, world)?;
                until(world, "its disk is in use", |world| !world.uses_disk(server))?;
                world.back_up(server)
            }
            ["restores", name] => self.with(name, world, |world, server| world.restore_backup(server)),
            ["spoil", name] => {
                let server = self.server(name, world)?;
                world.spoil_tree(server)
            }
            ["harm", name, file, how] => {
                let server = self.server(name, world)?;
                harm(server, file, how, world)
            }
            ["pause", name] => self.with(name, world, |world, server| world.nodes[server].paused = true),
            ["resume", name] => self.with(name, world, World::resume),
            ["isolate", name] => self.with(name, world, |world, server| {
                for other in (0..world.nodes.len()).filter(|other| *other != server) {
                    world.network.block(server, other);
                    world.network.block(other, server);
                }
            }),
            ["heal"] => {
                world.heal();
                Ok(())
            }
            [name, "came-by", way] => {
                let server = self.server(name, world)?;
                match world.ways.get(&server) {
                    Some(came) if *came == way => Ok(()),
                    other => Err(format!("it came by {other:?}")),
                }
            }
            ["client", client, ref asks @ ..] => {
                let client = client.parse::<usize>().ok().filter(|at| *at < world.clients.len());
                self.client(client.ok_or("there is no such client")?, asks, world)
            }
            _ => Err("what does this say?".into()),
        }
    }

    fn with(&self, name: &str, world: &mut World, act: impl Fn(&mut World, usize)) -> Result<(), String> {
        let server = self.server(name, world)?;
        act(world, server);
        Ok(())
    }

    fn ask(&mut self, client: usize, asked: Asked, world: &mut World) -> Result<(), String> {
        self.asked.insert(client, world.client_asks(client, asked)?);
        Ok(())
    }

    fn client(&mut self, client: usize, asks: &[&str], world: &mut World) -> Result<(), String> {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let create = |path: &str, data, ephemeral| Asked::Create {
            path: path.into(),
            data,
            sequential: false,
            ephemeral,
        };
        let set = |path: &str, data| Asked::Set { path: path.into(), data, version: -1 };
        match *asks {
            ["at", name] => {
                let server = self.server(name, world)?;
                world.client_moves(client, server);
                until(world, "it gets no session there", |world| world.clients[client].is_open())
            }
            ["tries", name, "for", ms] => {
                let server = self.server(name, world)?;
                let end = world.now + 1000 * ms.parse::<u64>().map_err(|_| "a number of milliseconds")?;
                world.client_moves(client, server);
                while world.now < end {
                    world.step()?;
                    if world.clients[client].is_open() {
                        return Err("it is served".into());
                    }
                }
                Ok(())
            }
            ["leaves"] => {
                world.client_leaves(client);
                Ok(())
            }
            ["creates", path, data] => ok(client, create(path, bytes(data), false), world).map(drop),
            ["creates-ephemeral", path] => ok(client, create(path, bytes(""), true), world).map(drop),
            ["sets", path, data] => ok(client, set(path, bytes(data)), world).map(drop),
            ["sets", path, data, "times", count] => {
                let count: usize = count.parse().map_err(|_| "a number of times")?;
                (0..count).try_for_each(|_| ok(client, set(path, bytes(data)), world).map(drop))
            }
            ["deletes", path] => {
                ok(client, Asked::Delete { path: path.into(), version: -1 }, world).map(drop)
            }
            ["creates-and-sets", path, other] => {
                ok(client, Asked::Multi { path: path.into(), other: other.into() }, world).map(drop)
            }
            ["closes"] => ok(client, Asked::Close, world).map(drop),
            ["syncs"] => ok(client, Asked::Sync, world).map(drop),
            ["reconfigures", "without", name] => {
                let leaving = (self.server(name, world)? + 1).to_string();
                ok(client, Asked::Reconfig { joining: String::new(), leaving }, world).map(drop)
            }
            ["reconfigures", "with", name, role] => {
                let id = self.server(name, world)? + 1;
                let joining = format!("server.{id}=s{id}:1:2:{role};1");
                ok(client, Asked::Reconfig { joining, leaving: String::new() }, world).map(drop)
            }
            // Without an answer, for now.
            ["asks", "sets", path, data] => self.ask(client, set(path, bytes(data)), world),
            ["asks", "syncs"] => self.ask(client, Asked::Sync, world),
            ["asks", "gets", path] => self.ask(client, Asked::Get { path: path.into(), watch: false }, world),
            ["is-not-answered"] => {
                let request = self.asked.get(&client).ok_or("it asked for nothing")?;
                world.answer(*request).map_or(Ok(()), |answer| Err(format!("it is answered: {answer:?}")))
            }
            ["sees", path, data] => {
                let answer = ok(client, Asked::Get { path: path.into(), watch: false }, world)?;
                let seen = answer.node.map(|(seen, ..)| String::from_utf8_lossy(&seen).into_owned());
                if seen.as_deref() == Some(data) { Ok(()) } else { Err(format!("it sees {seen:?}")) }
            }
            ["has", path] => ok(client, Asked::Exists { path: path.into(), watch: false }, world).map(drop),
            ["sees-no", path] => {
                let answer = answered(client, Asked::Get { path: path.into(), watch: false }, world)?;
                if answer.err == -101 { Ok(()) } else { Err(format!("it sees {answer:?}")) }
            }
            _ => Err("what does this client do?".into()),
        }
    }
}

/// Something happens to a file of a server that is down.
fn harm(server: usize, file: &str, how: &str, world: &mut World) -> Result<(), String> {
    let harm = match how {
        "zeros" => Harm::Sector(BadSector::Zeros),
        "stale" => Harm::Sector(BadSector::Stale),
        "misdirected" => Harm::Sector(BadSector::Misdirected),
        "unreadable" => Harm::Sector(BadSector::Unreadable),
        "lost" => Harm::Lost,
        "emptied" => Harm::Emptied,
        "flipped" => Harm::Flipped,
        "first-record" => Harm::FirstRecord,
        _ => return Err("what happens to it?".into()),
    };
    let names = world.files_of(server);
    let mut numbered: Vec<(i64, &str)> = Vec::new();
    for (name, _) in &names {
        let number =
            name.strip_prefix(file).and_then(|rest| i64::from_str_radix(rest.strip_prefix('.')?, 16).ok());
        numbered.extend(number.map(|number| (number, &name[..])));
    }
    let newest = numbered.iter().max().map(|(_, name)| name.to_string());
    let found = newest.or_else(|| names.iter().find(|(name, _)| name == file).map(|(name, _)| name.clone()));
    world.harm(server, &found.ok_or("it has no such file")?, harm);
    Ok(())
}

fn leader(world: &World) -> Option<usize> {
    (0..world.nodes.len()).find(|index| world.mode_of(*index) == Mode::Leader)
}

fn until(world: &mut World, otherwise: &str, is: impl Fn(&World) -> bool) -> Result<(), String> {
    let deadline = world.now + PATIENCE_MS * 1000;
    while !is(world) {
        if world.has_crashed() {
            return Err("the server that was watched has crashed".into());
        }
        if world.now > deadline {
            return Err(format!("{otherwise}: {:?}", world.modes()));
        }
        world.step()?;
    }
    Ok(())
}

fn answered(client: usize, asked: Asked, world: &mut World) -> Result<Answer, String> {
    let request = world.client_asks(client, asked)?;
    until(world, "it is not answered", |world| world.answer(request).is_some())?;
    Ok(world.answer(request).expect("just seen"))
}

fn ok(client: usize, asked: Asked, world: &mut World) -> Result<Answer, String> {
    let answer = answered(client, asked, world)?;
    if answer.err == 0 { Ok(answer) } else { Err(format!("it is refused: {}", answer.err)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every story of `compat-tests/sim/scenarios`, with the delays of a few seeds.
    #[test]
    fn the_protocols_stories_come_out_as_told() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/compat-tests/sim/scenarios");
        let figures = Arc::new(Figures::new());
        let mut told = 0;
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "txt") {
                continue;
            }
            let scenario = Scenario::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
            for seed in 0..5 {
                let outcome = scenario.run(seed, &figures, Tells::Nothing);
                assert_eq!(outcome.violation, None, "{} with seed {seed}", path.display());
            }
            told += 1;
        }
        assert!(told >= 8, "only {told} stories in {dir}");
    }

    #[test]
    fn a_story_that_is_not_true_fails_by_its_line() {
        let run = |text: &str| {
            let scenario = Scenario::parse(text).unwrap();
            scenario.run(1, &Arc::new(Figures::new()), Tells::Nothing).violation.unwrap_or_default()
        };
        assert_eq!(run("await all\nclient 0 at 1\nclient 0 creates /a one\nclient 0 sees /a one"), "");
        let wrong = run("await all\nclient 0 at 1\nclient 0 creates /a one\nclient 0 sees /a two");
        assert!(wrong.starts_with("line 4: it sees Some(\"one\")"), "{wrong}");
        assert!(run("await all\nnobody leads").starts_with("line 2: server"), "somebody does");
        assert!(run("dance").starts_with("line 1: what does this say?"));
        assert_eq!(Scenario::parse("\nvoters some").unwrap_err(), "line 2: voters wants a number");
    }
}
