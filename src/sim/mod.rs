//! The simulator: a whole ensemble with its clients in one thread, from a seed. Core, journal, tree, election and ZAB are
//! those of the server; network, disks, clocks and chance are the seed's. First a time in which anything may break, then
//! one in which everything is mended and the ensemble has to serve. What clients were told is checked against a model
//! that shares no code with the server.

mod amounts;
mod client;
pub mod crashes;
mod crowd;
mod disk;
mod edges;
mod extremes;
mod faults;
mod history;
mod model;
mod network;
mod node;
mod observed;
mod options;
mod random;
mod rewatch;
mod scenario;
pub mod trace;
mod world;

pub use disk::{BadSector, DiskFaults, SimDisk};
pub use options::Options;
pub use random::Random;
pub use scenario::Scenario;
pub use world::{Report, Tells, World};

use crate::figures::Figures;
use std::sync::Arc;

/// What a seed came to.
#[derive(Debug)]
pub struct Outcome {
    pub seed: u64,
    /// What happened, for those who add it up.
    pub report: Report,
    pub violation: Option<String>,
}

/// Runs one seed to its end.
pub fn run(seed: u64, figures: &Arc<Figures>, tells: Tells) -> Outcome {
    let mut random = Random::new(seed);
    let options = Options::draw(&mut random);
    let mut world = World::new(seed, options, random, figures.clone(), tells);
    let violation = world.run().err();
    Outcome { seed, report: world.report(), violation }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_the_same_run_every_time() {
        let run = |seed| {
            let outcome = run(seed, &Arc::new(Figures::new()), Tells::Nothing);
            assert_eq!(outcome.violation, None, "seed {seed}");
            outcome.report
        };
        for seed in 0..20 {
            assert_eq!(run(seed), run(seed), "seed {seed}");
        }
    }

    /// In both the last reconfiguration makes the leader hand over: the run goes on until the next one leads.
    #[test]
    fn a_run_ends_after_its_last_hand_over() {
        for seed in [77_008_916, 88_023_050] {
            let outcome = run(seed, &Arc::new(Figures::new()), Tells::Nothing);
            assert_eq!(outcome.violation, None, "seed {seed}");
            assert!(outcome.report.elections >= 1, "seed {seed}");
        }
    }

    /// Each of them found a fault once: servers that answered each other for ever, a leader whose damaged snapshot kept
    /// everybody out, one whose tree was wrong and whose followers elected it again; a follower that did not acknowledge what
    /// was committed while it joined, and was left out for that while nobody wrote; an observer that took the refusal of an old
    /// connection's request for the answer to a new one's; empty servers that elected for a second time, and waited for the
    /// votes of those that had no reason to speak; a wiped server that was sent a configuration of long ago; an empty leader
    /// that gave way once, and was elected again before the vote of the server that has the data came.
    #[test]
    fn seeds_that_found_faults_find_none() {
        for seed in [
            5_455, 15_554, 18_509, 35_246, 128_516, 158_179, 213_275, 307_754, 307_980, 457_306, 486_476,
            727_624, 763_947, 810_038,
        ] {
            let outcome = run(seed, &Arc::new(Figures::new()), Tells::Nothing);
            assert_eq!(outcome.violation, None, "seed {seed}");
        }
    }

    /// The texts that `compat-tests/sim/mutants` replaces are still there, once each.
    #[test]
    fn every_mutant_finds_its_place() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(root.join("compat-tests/sim/mutants.txt")).unwrap();
        let mut mutants = 0;
        for mutant in text.split("\n== ").skip(1) {
            let name = mutant.lines().next().unwrap();
            for edit in mutant.split("\nfile ").skip(1) {
                let (file, lines) = edit.split_once('\n').unwrap();
                let old: Vec<&str> = lines
                    .lines()
                    .filter(|line| line.starts_with('-'))
                    .map(|line| line.get(2..).unwrap_or(""))
                    .collect();
                let source = std::fs::read_to_string(root.join(file)).unwrap();
                let found = source.matches(&old.join("\n")).count();
                assert_eq!(found, 1, "{name}: its text in {file}");
            }
            mutants += 1;
        }
        assert!(mutants >= 25, "only {mutants} mutants");
    }
}
