//! What the ports and the log carry, above single records: transactions, multi, connect, packets, notifications.

#![cfg_attr(
    not(test),
    warn(
        missing_docs,
        unreachable_pub,
        clippy::allow_attributes_without_reason,
        clippy::cast_possible_truncation,
        clippy::wildcard_enum_match_arm
    )
)]

pub mod connect;
pub mod election;
#[cfg(test)]
mod golden;
pub mod multi;
pub mod quorum;
pub mod txn;
