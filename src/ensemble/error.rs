//! Why a text is not the configuration of an ensemble.

use crate::model::ServerId;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("{key}: expected server.<id>, group.<id>, weight.<id> or version")]
    UnknownKey { key: String },
    /// The part of a key after the dot is not a number. `kind` is the part before it.
    #[error("{key}: expected {kind}.<id> with a number, e.g. {kind}.1")]
    KeyNumber { key: String, kind: &'static str },
    #[error("{key}={value:?}: {wrong}")]
    Value { key: String, value: String, wrong: ValueError },
    #[error("server {0} is in no group")]
    InNoGroup(ServerId),
}

/// What is wrong with the value of one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    #[error("expected host:quorumPort:electionPort[:role][;[address:]clientPort]")]
    Server,
    #[error("expected [address:]clientPort after the ';'")]
    Client,
    #[error("expected ports from 0 to 65535, not {0}")]
    Port(i32),
    #[error("expected participant or observer, not {0:?}")]
    Role(String),
    #[error("expected the same role at each address of a server")]
    RolesDiffer,
    #[error("expected different ports for quorum and election")]
    SamePorts,
    #[error("expected server ids with colons between, e.g. 1:2:3")]
    Group,
    #[error("server {0} is in more than one group")]
    InTwoGroups(ServerId),
    #[error("expected a number")]
    Number,
    #[error("expected a weight from 0 to {}", i32::MAX)]
    Weight,
    #[error("expected a hexadecimal number")]
    Version,
}
