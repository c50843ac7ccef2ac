//! What a request comes to: reads are served from the tree, writes become transactions, auth adds ids.

use crate::model::ErrorCode;

pub mod acl;
pub mod auth;
mod forward;
mod outstanding;
mod prepare;
mod reading;
mod reads;
pub mod reconfig;
#[cfg(test)]
mod tests;

pub use forward::may_forward;
pub use prepare::{Preparer, Request};
pub use reading::Reading;
pub use reads::{Reader as ReadContext, is_read, serve as serve_read, write_event, write_frame, write_reply};

/// How entries of the scheme `sasl` match.
#[derive(Debug, Clone, Default)]
pub struct SaslScheme {
    /// An entry for this name means everyone who has logged in.
    pub any_user: Option<String>,
}

/// What certificates prove.
#[derive(Debug, Clone, Default)]
pub struct X509Scheme {
    /// The subject that may do everything.
    pub super_user: Option<String>,
}

/// The settings that decide about requests, out of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// TTL znodes (`zookeeper.extendedTypesEnabled`).
    pub extended_types: bool,
    /// No ACL check anywhere; lists are still validated (`skipACL=yes`).
    pub skip_acl: bool,
    /// Hard quotas refuse (`enforceQuota`).
    pub enforce_quota: bool,
    /// `reconfigEnabled`: even so a standalone server has nothing to reconfigure.
    pub reconfig: bool,
    /// The hash of the `digest` scheme; `None`: the scheme is off.
    pub digest_auth: Option<crate::model::DigestAlgorithm>,
    /// `user:hash` of the super user.
    pub super_digest: Option<Vec<u8>>,
    /// The scheme `sasl`; `None`: no ACL entry of it is valid or matches.
    pub sasl: Option<SaslScheme>,
    /// The scheme `x509`; `None`: no ACL entry of it is valid or matches.
    pub x509: Option<X509Scheme>,
    /// The scheme `key`, ZooKeeper's example of one: who knows a multiple of the number in `/key`.
    pub key_auth: bool,
    /// The names of this server's ensemble, for the scheme `ensemble`; `None`: the scheme is off.
    pub ensemble_names: Option<Vec<String>>,
    /// Digests go into the log and into snapshots (`zookeeper.digest.enabled`).
    pub txn_digests: bool,
    /// A closeSession does not list the ephemerals that go with it (`closeSessionTxn.enabled=false`).
    pub unlisted_close: bool,
    /// Bytes that one transaction may have, header and digest with it: what every peer reads from the wire and from its
    /// log (`jute.maxbuffer` and its extra size).
    pub max_txn_bytes: usize,
}

impl Rules {
    /// Bytes that the answer to a multiRead may have: four times what a client takes by default
    /// (`jute.maxbuffer`). All of it is copied under one hold of the lock, as its parts show one moment.
    pub fn max_multi_read(&self) -> usize {
        self.max_txn_bytes.saturating_mul(2).max(4 << 20)
    }
}

/// The answer to a write whose transaction would be larger than it may be, and to a read whose answer would. No client takes it
/// for something to try again.
pub const TOO_LARGE: ErrorCode = ErrorCode::BadArguments;
