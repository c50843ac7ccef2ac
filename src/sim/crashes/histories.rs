//! What happens before a crash: histories of fixed kinds, with amounts that a number draws.

use crate::sim::{Random, Scenario};
use std::fmt::Write;

/// A history, and its story as text.
#[derive(Debug)]
pub struct History {
    /// Which one of [`histories`] it is.
    pub number: u64,
    /// What it is about.
    pub kind: &'static str,
    pub text: String,
    pub story: Scenario,
}

type Kind = (&'static str, fn(&mut Script));

const ALL: [Kind; 25] = [
    ("a server alone", alone),
    ("a server alone goes back to a backup", alone_restored),
    ("an ensemble of one", ensemble_of_one),
    ("a follower takes writes", |script| takes_writes(script, "A")),
    ("a leader takes writes", |script| takes_writes(script, "L")),
    ("an observer takes writes", observer),
    ("first start", first_start),
    ("all lose power, and start", all_start_again),
    ("DIFF from memory", |script| absent(script, "500", false)),
    ("DIFF from the log", |script| absent(script, "3", false)),
    ("SNAP over older files", |script| absent(script, "2", true)),
    ("SNAP to a new disk", new_disk),
    ("SNAP, and its leader dies", snap_without_end),
    ("TRUNC of a tail", |script| deposed(script, false)),
    ("SNAP over a tail, which is kept", |script| deposed(script, true)),
    ("a follower sees its leader change", leader_changes),
    ("a leader comes back as a follower", leader_comes_back),
    ("a configuration comes and goes", reconfigured),
    ("an observer becomes a voter", promoted),
    ("a debt of the newest log", |script| {
        harmed(script, "log", &["zeros", "stale", "misdirected", "unreadable", "lost", "flipped"])
    }),
    ("a damaged snapshot", |script| harmed(script, "snapshot", &["zeros", "lost", "flipped", "unreadable"])),
    ("an epoch file that is empty", harmed_epochs),
    ("a tree that differs", spoilt),
    ("an ensemble goes back to a backup", all_restored),
    ("damage before good records", |script| harmed(script, "log", &["first-record"])),
];
/// How many kinds there are: that many histories in a row are of different ones.
pub const KINDS: u64 = ALL.len() as u64;

/// All histories, without an end.
pub fn histories() -> impl Iterator<Item = History> {
    (0..).map(history)
}

/// One of them.
pub fn history(number: u64) -> History {
    let (kind, write) = ALL[(number % KINDS) as usize];
    let mut script = Script { text: String::new(), random: Random::new(number), paths: Vec::new(), made: 0 };
    write(&mut script);
    let text = script.text;
    let story = Scenario::parse(&text).expect("it is written here");
    History { number, kind, text, story }
}

struct Script {
    text: String,
    random: Random,
    /// Znodes that are there, and no ephemerals.
    paths: Vec<String>,
    made: u64,
}

impl Script {
    fn say(&mut self, line: &str) {
        let _ = writeln!(self.text, "{line}");
    }

    fn lines(&mut self, lines: &[&str]) {
        lines.iter().for_each(|line| self.say(line));
    }

    /// How often there are snapshots.
    fn snap_count(&mut self, from: &[u64]) {
        let count = *self.random.pick(from);
        self.say(&format!("snap-count {count}"));
    }

    fn new_path(&mut self) -> String {
        self.made += 1;
        format!("/n{}", self.made)
    }

    fn data(&mut self) -> String {
        // Some go over the end of a sector, a few over several.
        let len = *self.random.pick(&[1, 10, 100, 400, 900]);
        "d".repeat(self.random.between(1, len) as usize)
    }

    /// One write of this client.
    fn write(&mut self, client: usize) {
        let data = self.data();
        let old = if self.paths.is_empty() { None } else { Some(self.random.pick(&self.paths).clone()) };
        let line = match (self.random.below(8), old) {
            (0..2, Some(path)) => format!("sets {path} {data}"),
            (2, Some(path)) => format!("creates-and-sets {} {path}", self.new_path()),
            (3, Some(path)) => {
                self.paths.retain(|other| *other != path);
                format!("deletes {path}")
            }
            (4, _) => format!("creates-ephemeral {}", self.new_path()),
            _ => {
                let path = self.new_path();
                self.paths.push(path.clone());
                format!("creates {path} {data}")
            }
        };
        self.say(&format!("client {client} {line}"));
    }

    fn writes(&mut self, client: usize, low: u64, high: u64) {
        for _ in 0..self.random.between(low, high) {
            self.write(client);
        }
    }

    /// Three voters, with a leader and two followers.
    fn three(&mut self) {
        self.lines(&["await all", "await leader L", "follower A", "follower B"]);
    }

    fn end(&mut self, server: &str) {
        let how = *self.random.pick(&["kill", "power-off"]);
        self.say(&format!("{how} {server}"));
    }
}

/// Writes, snapshots, sessions that come and go, old files that go, and a restart.
fn serves_and_starts_again(script: &mut Script) {
    script.lines(&["victim 1", "await all", "client 0 at 1"]);
    script.writes(0, 4, 9);
    script.lines(&["client 1 at 1", "client 1 creates-ephemeral /mine"]);
    script.writes(1, 0, 2);
    let keep = script.random.between(1, 3);
    script.lines(&[&format!("purge 1 {keep}"), "client 1 closes", "client 1 leaves"]);
    script.writes(0, 1, 4);
    script.end("1");
    script.lines(&["start 1", "await all", "client 0 at 1"]);
    script.writes(0, 1, 4);
    script.say("purge 1 1");
    script.writes(0, 1, 2);
}

fn alone(script: &mut Script) {
    script.lines(&["voters 1", "alone"]);
    script.snap_count(&[3, 6, 1000]);
    serves_and_starts_again(script);
}

fn ensemble_of_one(script: &mut Script) {
    script.say("voters 1");
    script.snap_count(&[3, 6, 1000]);
    serves_and_starts_again(script);
}

fn alone_restored(script: &mut Script) {
    script.lines(&["voters 1", "alone"]);
    script.snap_count(&[4, 1000]);
    script.lines(&["await all", "client 0 at 1"]);
    script.writes(0, 4, 8);
    script.lines(&[
        "victim 1",
        "backs-up 1",
        "kill 1",
        "restores 1",
        "start 1",
        "await all",
        "client 0 at 1",
    ]);
    script.writes(0, 3, 6);
}

fn takes_writes(script: &mut Script, victim: &str) {
    script.snap_count(&[3, 6, 1000]);
    script.three();
    let home = *script.random.pick(&["L", "A", "B"]);
    script.lines(&[&format!("victim {victim}"), &format!("client 0 at {home}")]);
    script.writes(0, 4, 8);
    script.lines(&[&format!("purge {victim} 1"), "client 1 at L", "client 1 creates-ephemeral /mine"]);
    script.writes(1, 1, 3);
    script.say("client 1 closes");
    script.writes(0, 1, 3);
}

fn observer(script: &mut Script) {
    script.say("observers 1");
    script.snap_count(&[3, 1000]);
    script.lines(&["await all", "victim 4", "client 0 at 4"]);
    script.writes(0, 5, 9);
    script.end("4");
    script.lines(&["client 1 at 1"]);
    script.writes(1, 3, 6);
    script.lines(&["start 4", "await 4 serves", "client 0 at 4"]);
    script.writes(0, 2, 4);
}

fn first_start(script: &mut Script) {
    script.snap_count(&[3, 1000]);
    let victim = script.random.between(1, 3);
    script.lines(&[&format!("victim {victim}"), "await all", "client 0 at 1"]);
    script.writes(0, 2, 6);
}

fn all_start_again(script: &mut Script) {
    script.snap_count(&[3, 1000]);
    script.three();
    script.say("client 0 at L");
    script.writes(0, 3, 6);
    let victim = *script.random.pick(&["L", "A"]);
    script.say(&format!("victim {victim}"));
    for _ in 0..2 {
        for server in ["A", "L", "B"] {
            script.end(server);
        }
        script.lines(&["start L", "start B", "start A", "await all", "client 0 at A"]);
        script.writes(0, 1, 3);
    }
}

/// A follower misses some writes.
fn absent(script: &mut Script, remembers: &str, needs_snapshot: bool) {
    script.say(&format!("remembers {remembers}"));
    if needs_snapshot {
        script.lines(&["no-log-sync", "snap-count 4"]);
    } else {
        script.snap_count(&[5, 1000]);
    }
    script.three();
    script.say("client 0 at L");
    script.writes(0, 2, 4);
    script.say("victim A");
    script.end("A");
    script.writes(0, 6, 10);
    script.lines(&["start A", "await A serves"]);
    script.writes(0, 2, 4);
}

fn new_disk(script: &mut Script) {
    script.lines(&["remembers 2", "no-log-sync"]);
    script.snap_count(&[4, 1000]);
    script.three();
    script.say("client 0 at L");
    script.writes(0, 4, 8);
    script.lines(&["victim A", "new-disk A"]);
    script.writes(0, 4, 6);
    script.lines(&["start A", "await A serves", "A came-by SNAP"]);
    script.writes(0, 2, 4);
}

/// The leader dies while it sends its history.
fn snap_without_end(script: &mut Script) {
    script.lines(&["remembers 2", "no-log-sync", "snap-count 4"]);
    script.three();
    script.say("client 0 at L");
    script.writes(0, 3, 5);
    script.lines(&["kill A"]);
    script.writes(0, 5, 8);
    script.lines(&["victim A", "start A"]);
    let millis = script.random.between(20, 260);
    script.say(&format!("run {millis}"));
    script.end("L");
    script.lines(&["await A serves", "client 0 at A"]);
    script.writes(0, 1, 3);
    script.lines(&["start L", "await all", "client 0 at A"]);
    script.writes(0, 1, 2);
}

/// A leader that is cut off logs writes that nobody else has.
fn deposed(script: &mut Script, is_far: bool) {
    if is_far {
        script.lines(&["remembers 2", "no-log-sync", "snap-count 4"]);
    } else {
        script.snap_count(&[3, 1000]);
    }
    script.three();
    script.lines(&["client 0 at L", "client 0 creates /a one"]);
    script.writes(0, 1, 3);
    script.lines(&["victim L", "isolate L"]);
    for _ in 0..script.random.between(1, 4) {
        script.say("client 0 asks sets /a lost");
    }
    script.lines(&["run 100", "await L looks", "await A serves", "client 1 at A"]);
    if is_far {
        script.writes(1, 6, 8);
    }
    script.lines(&["client 1 sets /a two", "heal", "await all"]);
    if !is_far {
        script.say("L came-by TRUNC");
    }
    script.say("client 1 at A");
    script.writes(1, 2, 4);
}

fn leader_changes(script: &mut Script) {
    script.snap_count(&[4, 1000]);
    script.three();
    script.say("client 0 at L");
    script.writes(0, 2, 4);
    script.say("victim A");
    script.end("L");
    script.lines(&["run 400", "await A serves", "client 0 at A"]);
    script.writes(0, 2, 4);
    script.lines(&["start L", "await all", "await leader M"]);
    script.end("M");
    script.lines(&["run 400", "start M", "await all", "client 1 at A"]);
    script.writes(1, 1, 3);
}

fn leader_comes_back(script: &mut Script) {
    script.snap_count(&[4, 1000]);
    script.three();
    script.say("client 0 at L");
    script.writes(0, 2, 4);
    script.say("victim L");
    script.end("L");
    script.lines(&["run 400", "await A serves", "client 0 at A"]);
    script.writes(0, 1, 4);
    script.lines(&["start L", "await all", "client 1 at L"]);
    script.writes(1, 2, 4);
}

fn reconfigured(script: &mut Script) {
    script.lines(&["voters 4", "reconfig"]);
    script.snap_count(&[4, 1000]);
    script.three();
    script.say("client 0 at L");
    script.writes(0, 1, 3);
    let victim = *script.random.pick(&["A", "L"]);
    script.lines(&[&format!("victim {victim}"), "client 0 reconfigures without B"]);
    script.writes(0, 1, 3);
    let role = *script.random.pick(&["participant", "observer"]);
    script.say(&format!("client 0 reconfigures with B {role}"));
    script.writes(0, 1, 3);
    script.end(victim);
    script.lines(&[&format!("start {victim}"), "await all", "client 1 at A"]);
    script.writes(1, 1, 2);
}

fn promoted(script: &mut Script) {
    script.lines(&["observers 1", "reconfig"]);
    script.snap_count(&[4, 1000]);
    script.lines(&["await all", "client 0 at 1"]);
    script.writes(0, 1, 3);
    script.lines(&[
        "victim 4",
        "client 0 reconfigures with 4 participant",
        "await 4 serves",
        "client 1 at 4",
    ]);
    script.writes(1, 2, 4);
    script.end("4");
    script.lines(&["run 100", "start 4", "await all", "client 1 at 4"]);
    script.writes(1, 1, 3);
}

/// A file of a follower is damaged: it owes something, or begins again, and the others give it what it had.
fn harmed(script: &mut Script, file: &str, hows: &[&str]) {
    let how = *script.random.pick(hows);
    script.snap_count(&[4, 1000]);
    script.three();
    script.say("client 0 at L");
    script.writes(0, 5, 8);
    script.end("A");
    script.lines(&["victim A", &format!("harm A {file} {how}")]);
    script.writes(0, 0, 3);
    script.lines(&["start A", "await A serves"]);
    script.writes(0, 2, 4);
}

fn harmed_epochs(script: &mut Script) {
    script.three();
    script.say("client 0 at L");
    script.writes(0, 2, 4);
    script.end("A");
    let file = *script.random.pick(&["acceptedEpoch", "currentEpoch"]);
    script.lines(&["victim A", &format!("harm A {file} emptied"), "start A", "await A serves"]);
    script.writes(0, 2, 4);
    script.end("L");
    script.lines(&["run 400", "await A serves", "client 0 at A"]);
    script.writes(0, 1, 2);
}

/// The next transaction's digest tells.
fn spoilt(script: &mut Script) {
    script.snap_count(&[4, 1000]);
    script.three();
    script.lines(&["client 0 at B", "client 0 creates /z one"]);
    script.writes(0, 1, 4);
    let victim = *script.random.pick(&["A", "L"]);
    script.lines(&[&format!("victim {victim}"), &format!("spoil {victim}"), "client 1 at B"]);
    script.lines(&["client 1 asks sets /z two", "run 1500", "await all", "client 0 at B"]);
    script.writes(0, 2, 4);
}

/// One server has a backup, the others nothing.
fn all_restored(script: &mut Script) {
    script.lines(&["snap-count 1000", "empty-wait-ms 2000"]);
    script.three();
    script.say("client 0 at L");
    script.writes(0, 3, 6);
    script.lines(&["client 0 closes", "victim A", "run 500", "backs-up A", "kill L", "kill B", "kill A"]);
    script.lines(&["restores A", "new-disk L", "new-disk B", "start A", "start L", "start B", "await all"]);
    script.say("client 1 at A");
    script.writes(1, 2, 4);
}
