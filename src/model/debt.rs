//! What a server owes the ensemble.

use super::{Epoch, Zxid};

/// What a server may have acknowledged and does not have any more. Kept on disk until it has that, or until a leader
/// that others established has given it everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Debt {
    /// It has all that it ever acknowledged.
    None,
    /// Nothing beyond this: it may vote for whoever has as much.
    AtLeast(Epoch, Zxid),
    /// Its disk is empty, or damaged at the end; and it has heard of a history.
    Unknown,
}

impl Debt {
    /// Both at once.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::None, debt) | (debt, Self::None) => debt,
            (Self::AtLeast(e1, z1), Self::AtLeast(e2, z2)) => {
                let (epoch, zxid) = (e1, z1).max((e2, z2));
                Self::AtLeast(epoch, zxid)
            }
        }
    }
}
