//! The words every room shares: ids, zxids, error codes, paths, ACL bits, owners.

mod accounts;
mod budget;
mod debt;
mod digest_algorithm;
pub mod distinguished_name;
mod error_code;
mod ids;
mod net;
mod op;
pub mod owner;
mod packing;
pub mod path;
mod place;
mod room;
pub mod text;
mod txn_mark;

pub use accounts::Accounts;
pub use budget::Budget;
pub use debt::Debt;
pub use digest_algorithm::DigestAlgorithm;
pub use error_code::ErrorCode;
pub use ids::{ConnId, Epoch, LinkId, ServerId, SessionId, Zxid};
pub use net::{Net, Width};
pub use op::Op;
pub use packing::Packing;
pub use place::Place;
pub use room::Room;
pub use txn_mark::TxnMark;

/// Permission bits of an ACL entry (`ZooDefs.Perms`). Unknown bits are stored and returned unchanged.
pub mod perms {
    pub const READ: i32 = 1;
    pub const WRITE: i32 = 2;
    pub const CREATE: i32 = 4;
    pub const DELETE: i32 = 8;
    pub const ADMIN: i32 = 16;
    pub const ALL: i32 = 31;
}

/// Create modes as the wire's flags carry them (`CreateMode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateMode {
    Persistent,
    Ephemeral,
    PersistentSequential,
    EphemeralSequential,
    Container,
    PersistentWithTtl,
    PersistentSequentialWithTtl,
}

impl CreateMode {
    pub fn from_flags(flags: i32) -> Option<Self> {
        Some(match flags {
            0 => Self::Persistent,
            1 => Self::Ephemeral,
            2 => Self::PersistentSequential,
            3 => Self::EphemeralSequential,
            4 => Self::Container,
            5 => Self::PersistentWithTtl,
            6 => Self::PersistentSequentialWithTtl,
            _ => return None,
        })
    }

    pub fn is_sequential(self) -> bool {
        matches!(
            self,
            Self::PersistentSequential | Self::EphemeralSequential | Self::PersistentSequentialWithTtl
        )
    }

    pub fn is_ephemeral(self) -> bool {
        matches!(self, Self::Ephemeral | Self::EphemeralSequential)
    }

    pub fn is_ttl(self) -> bool {
        matches!(self, Self::PersistentWithTtl | Self::PersistentSequentialWithTtl)
    }

    pub fn is_container(self) -> bool {
        self == Self::Container
    }
}
