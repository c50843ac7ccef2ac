//! Crashes at every step of a disk. A history happens once, and the steps of one server's disk are counted. Then it happens
//! again for each of them: the process is killed there (before the step, and in the middle of what it writes), or the machine
//! loses power; the server starts again, and may crash once more meanwhile. It has to come back by itself each time, with all that
//! it promised.

mod histories;

pub use histories::{History, histories, history};

use super::node::Process;
use super::world::{Crash, Promised, Tells, World, Wreck};
use super::{Options, Outcome, Random, SimDisk};
use crate::config::ConfigError;
use crate::core::Clock;
use crate::figures::Figures;
use crate::model::Debt;
use crate::replica::Now;
use crate::sim::disk::Strike;
use crate::sim::node::BootError;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Losses of power of which each leaves another part of what was not synced, for each step.
const LOSSES: u64 = 2;
/// Of the steps after a start, how many may still be the second crash in a run with the other servers.
const AFTER_START: u64 = 12;

/// What was done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    pub histories: u64,
    /// Steps of disks, each of which was one that a server did not come to.
    pub steps: u64,
    /// Crashes at these: killed before, in the middle, or without power.
    pub crashes: u64,
    /// Crashes while a server started after one of them.
    pub second: u64,
    /// Runs of all servers, from the beginning to after the crash.
    pub runs: u64,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.histories += other.histories;
        self.steps += other.steps;
        self.crashes += other.crashes;
        self.second += other.second;
        self.runs += other.runs;
    }
}

/// One of a history's crashes, as a person names it: `STEP`, and `k` (killed before it), `t` (killed in the middle of it) or `p`
/// (power lost before it).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    pub step: u64,
    pub way: Way,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Killed,
    Torn,
    PowerLost,
}

impl At {
    fn crash(self) -> Crash {
        Crash { step: self.step, torn: self.way == Way::Torn, power: self.way == Way::PowerLost }
    }

    /// The crashes of this run: in every second one the start is cut short, too.
    fn crashes(self, history: u64) -> Vec<Crash> {
        let mut random = Random::new(history << 32 ^ self.step << 2 ^ self.way as u64);
        let mut crashes = vec![self.crash()];
        if random.permille(500) {
            let (step, power) = (random.between(1, AFTER_START), random.permille(500));
            crashes.push(Crash { step, torn: !power && random.permille(500), power });
        }
        crashes
    }
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let way = match self.way {
            Way::Killed => 'k',
            Way::Torn => 't',
            Way::PowerLost => 'p',
        };
        write!(f, "{}{way}", self.step)
    }
}

impl std::str::FromStr for At {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wanted = "a step and how, as 17k, 17t or 17p";
        let way = match text.chars().last() {
            Some('k') => Way::Killed,
            Some('t') => Way::Torn,
            Some('p') => Way::PowerLost,
            _ => return Err(wanted),
        };
        let step = text[..text.len() - 1].parse().map_err(|_| wanted)?;
        Ok(Self { step, way })
    }
}

/// Something that must not be, and where.
#[derive(Debug)]
pub struct Found {
    pub history: u64,
    /// None: the history does not come out as told, without any crash.
    pub at: Option<At>,
    pub what: String,
}

/// Tells a history once, with a crash or without one, so that a person can read it.
pub fn replay(history: &History, at: Option<At>, figures: &Arc<Figures>, tells: Tells) -> Outcome {
    let crashes = at.map_or(Vec::new(), |at| at.crashes(history.number));
    let (mut outcome, world) = history.story.tell(history.number, figures, tells, &crashes);
    if outcome.violation.is_none()
        && let Some(wreck) = &world.watched.wreck
    {
        let restart = Restart { wreck, history, digests: &BTreeMap::new(), figures };
        outcome.violation = restart.again_and_again(&mut Count::default()).err();
    }
    outcome
}

/// All crashes of one history.
pub fn enumerate(history: &History, figures: &Arc<Figures>) -> Result<Count, Found> {
    let found = |at, what| Found { history: history.number, at, what };
    let world = tell(history, &[], figures).map_err(|what| found(None, what))?;
    let digests = world.digests();
    let writes = world.watched.writes.clone();
    let mut count = Count { histories: 1, steps: writes.len() as u64, runs: 1, ..Count::default() };
    for (at, writes) in writes.into_iter().enumerate() {
        for way in [Way::Killed, Way::Torn, Way::PowerLost] {
            // There is no middle of other steps.
            if way == Way::Torn && !writes {
                continue;
            }
            let at = At { step: at as u64 + 1, way };
            one(history, at, &digests, figures, &mut count).map_err(|what| found(Some(at), what))?;
        }
    }
    Ok(count)
}

/// To its end. A panic is a violation, too.
fn tell(history: &History, crashes: &[Crash], figures: &Arc<Figures>) -> Result<World, String> {
    let run = || history.story.tell(history.number, figures, Tells::Nothing, crashes);
    let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    let (outcome, world) = run.map_err(|_| "panic: see above")?;
    outcome.violation.map_or(Ok(world), Err)
}

type Digests = BTreeMap<i64, u64>;

fn one(
    history: &History,
    at: At,
    digests: &Digests,
    figures: &Arc<Figures>,
    count: &mut Count,
) -> Result<(), String> {
    let crashes = at.crashes(history.number);
    let world = tell(history, &crashes, figures)?;
    count.runs += 1;
    count.crashes += 1;
    count.second += (world.watched.happened as u64).saturating_sub(1);
    let wreck = world.watched.wreck.as_ref().ok_or("the crash did not happen")?;
    // Without power, what is there is a part of what a killed process leaves: that was looked at.
    if at.way == Way::PowerLost {
        return Ok(());
    }
    Restart { wreck, history, digests, figures }.again_and_again(count)
}

/// The starts of one server on what a crash left.
struct Restart<'a> {
    wreck: &'a Wreck,
    history: &'a History,
    digests: &'a Digests,
    figures: &'a Arc<Figures>,
}

impl Restart<'_> {
    /// Killed, and with losses of power that leave different parts of what was not synced; and once more at each step of the
    /// start on that.
    fn again_and_again(&self, count: &mut Count) -> Result<(), String> {
        for loss in 0..=LOSSES {
            let disk = self.wreck.disk.copy();
            if loss > 0 {
                disk.power_failure(&mut Random::new(loss));
            }
            let before = disk.steps();
            let whole = disk.copy();
            self.start(&whole).map_err(|what| format!("the disk after loss {loss}: {what}"))?;
            for (at, writes) in whole.writes_from(before).into_iter().enumerate() {
                for way in [Way::Killed, Way::Torn, Way::PowerLost] {
                    if way == Way::Torn && !writes {
                        continue;
                    }
                    let second = At { step: at as u64 + 1, way };
                    self.crash_again(&disk.copy(), second)
                        .map_err(|what| format!("the disk after loss {loss}, then {second}: {what}"))?;
                    count.second += 1;
                }
            }
        }
        Ok(())
    }

    fn crash_again(&self, disk: &SimDisk, at: At) -> Result<(), String> {
        let Crash { step, torn, power } = at.crash();
        disk.plan(Some(Strike { at: disk.steps() + step, torn }));
        let unfinished = self.boot(disk);
        if unfinished.is_ok() && !disk.has_stopped() {
            return Err("a start made other steps the second time".into());
        }
        disk.stop();
        drop(unfinished);
        disk.process_ended();
        if power {
            disk.power_failure(&mut Random::new(step));
        }
        self.start(disk)
    }

    /// One that nothing disturbs.
    fn start(&self, disk: &SimDisk) -> Result<(), String> {
        let process = match self.boot(disk) {
            Ok(process) => process,
            // A reconfiguration has left it out.
            Err(BootError::Config(ConfigError::NotOneOfThem { .. })) => return Ok(()),
            Err(error) => return Err(format!("it does not start: {error}")),
        };
        let (last, digest) = {
            let db = process.core.db.read();
            (db.last_txn, db.tree.digest())
        };
        let debt = process.core.look(|replica| replica.debt()).unwrap_or(Debt::Unknown);
        drop(process);
        let promised = self.wreck.promised;
        let has = Promised::read(disk, last, debt);
        if last.max(has.owed) < promised.last || has.owed < promised.owed {
            return Err(format!("it has {last} and owes {debt:?}, and had promised {promised:?}"));
        }
        if has.accepted < promised.accepted || has.current < promised.current {
            return Err(format!("it has {has:?}, and had promised {promised:?}"));
        }
        match self.digests.get(&last.0) {
            Some(known) if *known != digest && !self.wreck.is_spoilt => {
                Err(format!("at {last} its digest is {digest:#x}, and was {known:#x}"))
            }
            _ => Ok(()),
        }
    }

    fn boot(&self, disk: &SimDisk) -> Result<Process, BootError> {
        let options: &Options = self.history.story.options();
        let clock: Clock = Box::new(|| Now { mono_ms: 1000, wall_ms: 1_700_000_000_000 });
        Process::boot(disk, options, clock, self.figures, &mut Random::new(self.history.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A history of each kind, with a crash at some of its steps: all of them are the matter of `zabra-sim --crashes`.
    #[test]
    fn a_server_comes_back_from_wherever_it_crashes() {
        let figures = Arc::new(Figures::new());
        for history in histories().take(histories::KINDS as usize) {
            let (outcome, world) = history.story.tell(history.number, &figures, Tells::Nothing, &[]);
            assert_eq!(outcome.violation, None, "{}", history.text);
            let steps = world.watched.writes.len() as u64;
            assert!(steps > 10, "{steps} steps: {}", history.text);
            for way in [Way::Killed, Way::PowerLost] {
                let at = At { step: 1 + (history.number * 37 + way as u64) % steps, way };
                let done = one(&history, at, &world.digests(), &figures, &mut Count::default());
                assert_eq!(done, Ok(()), "history {} at {at}: {}", history.number, history.text);
            }
        }
    }
}
