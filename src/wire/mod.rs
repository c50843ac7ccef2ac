//! What the ports and the log carry, above single records: transactions, multi, connect, packets, notifications.

pub mod connect;
pub mod election;
#[cfg(test)]
mod golden;
pub mod multi;
pub mod quorum;
pub mod txn;
