//! What the ports and the log carry, above single records: transactions, multi, connect, frames.

pub mod connect;
pub mod multi;
pub mod txn;
