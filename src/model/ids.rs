//! Newtypes of the protocol's numbers.

use std::fmt;

/// A transaction id: the epoch in the high 32 bits, a counter in the low 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Zxid(pub i64);

impl Zxid {
    pub const ZERO: Zxid = Zxid(0);
    /// "My data is missing": in a vote, and in ACKEPOCH. Such a voter counts for nobody, such a learner gets everything.
    pub const NO_DATA: Zxid = Zxid(-1);

    pub fn new(epoch: Epoch, counter: u32) -> Self {
        Zxid((epoch.0 << 32) | i64::from(counter))
    }

    pub fn epoch(self) -> Epoch {
        Epoch(self.0 >> 32)
    }

    pub fn counter(self) -> u32 {
        self.0 as u32
    }

    /// The zxid of the next transaction of the same epoch, or `None` where the counter would reach its last value:
    /// there Java's leader steps down, so that a new epoch starts.
    pub fn next(self) -> Option<Zxid> {
        (self.counter() < u32::MAX - 1).then(|| Zxid(self.0 + 1))
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

/// A session's id: the creating server's id in the top byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub i64);

impl SessionId {
    /// No session: what a connect request carries that asks for a new one.
    pub const NONE: SessionId = SessionId(0);
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

/// A server's id (`myid`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub i64);

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The term of one leader: the high half of its zxids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub i64);

impl Epoch {
    /// Behind it a zxid would be negative.
    pub const LAST: Epoch = Epoch(i32::MAX as i64);

    /// The next one, if there is one.
    pub fn next(self) -> Option<Epoch> {
        (self < Self::LAST).then(|| Epoch(self.0 + 1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A connection of this server. The client port packs reactor, place and a generation into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A TCP connection of the quorum port, at either end; numbered by the driver, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);
