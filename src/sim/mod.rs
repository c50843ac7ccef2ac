//! The simulator: a whole ensemble with its clients in one thread, from a seed. Core, journal, tree, election and ZAB are
//! those of the server; network, disks, clocks and chance are the seed's. First a time in which anything may break, then
//! one in which everything is mended and the ensemble has to serve. What clients were told is checked against a model
//! that shares no code with the server.

mod client;
mod disk;
mod faults;
mod history;
mod model;
mod network;
mod node;
mod observed;
mod options;
mod random;
mod scenario;
pub mod trace;
mod world;

pub use disk::{DiskFaults, SimDisk};
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
