//! Zabra is a ZooKeeper server: stock clients, a stock `zoo.cfg`, Java's data directories and Java's ensembles work with it.
//!
//! The crate is the program `zabra` (`serve`, `bench`, `log`, `snapshot`, `backup`, `restore`) as a library, so that the simulator, the benches and the fuzz
//! targets can reach its parts. It promises no stable interface.
//!
//! # Where to begin
//!
//! Read one write from its frame to its answer; `ARCHITECTURE.md` has the same way with more words, and a glossary.
//!
//! 1. [`client_port`]: sockets. A frame becomes an [`replica::Input`].
//! 2. [`core`]: one lock around the replica, the log thread, the snapshots. It carries out what the replica decides.
//! 3. [`replica`]: one server's whole behaviour as a value: `handle(now, db, input)`, then outputs. No clock, no file, no thread.
//! 4. [`request`] checks a request and makes a transaction of it; [`zab`] gets a quorum for it; [`tree`] holds the znodes.
//! 5. [`election`] finds a leader; [`peer`] carries what servers send each other; [`storage`] is the data directory
//!    (`docs/data-directory.md` draws its files byte by byte).
//!
//! A room looks down, never up:
//!
//! ```text
//! cli                                      serve, bench, and the commands for files
//! server                                   puts a server together
//! client_port  peer  core  figures         drivers: sockets, threads, clocks
//! replica                                  one server as a value
//! zab  election  request  session  sasl  tree  storage  tls
//! wire  ensemble  config  jute  model      packets, members, settings, codec, ids
//! ```

// A room is a value, unless a line here says why it may look at a clock or start threads: see `.clippy.toml`.
#[allow(clippy::disallowed_methods, clippy::iter_over_hash_type, reason = "a door: it measures and waits")]
pub mod cli;
#[allow(
    clippy::disallowed_methods,
    clippy::iter_over_hash_type,
    reason = "a driver of sockets, with a clock"
)]
pub mod client_port;
pub mod config;
pub mod conversation;
#[allow(
    clippy::disallowed_methods,
    clippy::iter_over_hash_type,
    reason = "a driver of threads, with a clock"
)]
pub mod core;
pub mod election;
pub mod ensemble;
pub mod figures;
pub mod jute;
pub mod link;
pub mod model;
#[allow(
    clippy::disallowed_methods,
    clippy::iter_over_hash_type,
    reason = "a driver of sockets, with a clock"
)]
pub mod peer;
pub mod replica;
pub mod request;
pub mod sasl;
#[allow(
    clippy::disallowed_methods,
    clippy::iter_over_hash_type,
    reason = "it starts threads and looks at directories"
)]
pub mod server;
pub mod session;
#[allow(clippy::disallowed_methods, clippy::iter_over_hash_type, reason = "it is a driver")]
#[doc(hidden)]
pub mod sim;
#[allow(clippy::disallowed_methods, reason = "its tests look at files and clocks")]
pub mod storage;
pub mod tls;
pub mod tree;
pub mod wire;
pub mod zab;

#[cfg(test)]
mod english;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "it reads the sources")]
mod floor_plan;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "it reads the sources")]
mod limits;
