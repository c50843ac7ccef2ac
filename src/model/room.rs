//! How much room the disk has for the log.

/// What the log can still take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Room {
    /// All that comes.
    #[default]
    Enough,
    /// What is under way, and sessions that begin and end: no more than that should come.
    Low,
    /// Not even what was asked for: that waits for room.
    Out,
}

impl Room {
    /// As `mntr` shows it.
    pub fn number(self) -> u64 {
        match self {
            Self::Enough => 0,
            Self::Low => 1,
            Self::Out => 2,
        }
    }
}
