//! Where a zxid is in a history.

use super::Zxid;

/// Where a server's last zxid is in another server's history, in memory or in the log on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It is part of it, or opens an epoch within it, which no transaction does.
    Within,
    /// It is not: the transaction before the place where it would be is this one.
    Behind(Zxid),
    /// The history does not reach back so far.
    Older,
}
