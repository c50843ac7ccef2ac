//! What the ports and the log carry, above single records: transactions, multi, connect, packets, notifications.

pub mod connect;
pub mod election;
pub mod multi;
pub mod quorum;
pub mod txn;
