//! Zabra: ZooKeeper on the wire and on disk. The floor plan is in `ARCHITECTURE.md`.

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
#[allow(clippy::disallowed_methods, clippy::iter_over_hash_type, reason = "it stands for drivers")]
pub mod sim;
#[allow(clippy::disallowed_methods, reason = "its tests look at files and clocks")]
pub mod storage;
pub mod tls;
pub mod tree;
pub mod wire;
pub mod zab;

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "it reads the sources")]
mod floor_plan;
