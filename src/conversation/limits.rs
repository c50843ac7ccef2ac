//! What bounds a conversation, and who may log in.

use crate::model::Accounts;

/// What a client may ask for.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one request (`jute.maxbuffer`).
    pub max_frame: usize,
    /// Requests in flight in the whole server. Beyond that, a connection that has some is not read
    /// (`globalOutstandingLimit`, raised: a batch is cheap here).
    pub outstanding: usize,
    /// Bytes of requests that the core may have of one reactor's connections. Beyond that no write is taken from any of them: it
    /// stays in its socket, and its client waits.
    pub admitted_bytes: usize,
    /// Bytes on their way to the log beyond which the same is so for all reactors.
    pub unlogged_bytes: usize,
    /// Bytes of answers that may wait for a client that writes all before it reads.
    pub room: usize,
    /// A client has to have authenticated with one of these schemes. Empty: it need not.
    pub enforced_schemes: Vec<String>,
}

/// Who may log in by SASL.
#[derive(Debug, Clone)]
pub struct Logins {
    /// Names and passwords.
    pub accounts: Accounts,
    /// Names that may do everything.
    pub super_users: Vec<String>,
    /// A client that fails to log in stays connected, as nobody.
    pub keeps_failed: bool,
}
