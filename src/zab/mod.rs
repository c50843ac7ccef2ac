//! Atomic broadcast: proposals in zxid order, acks, commits. Values in, values out; no I/O.
//!
//! Today it leads an ensemble of one: the quorum is this server's own log. Election, discovery and
//! synchronization come beside [`broadcast`], without a second write path.

mod broadcast;

pub use broadcast::{Broadcast, Proposal, Quorum};
