//! Zabra: ZooKeeper on the wire and on disk. The floor plan is in `ARCHITECTURE.md`.

pub mod cli;
pub mod client_port;
pub mod config;
pub mod conversation;
pub mod core;
pub mod election;
pub mod ensemble;
pub mod figures;
pub mod jute;
pub mod link;
pub mod model;
pub mod peer;
pub mod replica;
pub mod request;
pub mod sasl;
pub mod server;
pub mod session;
pub mod sim;
pub mod storage;
pub mod tls;
pub mod tree;
pub mod wire;
pub mod zab;

#[cfg(test)]
mod floor_plan;
