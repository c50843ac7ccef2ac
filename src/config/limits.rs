//! How large a request may be, and how many may wait.

use super::ConfigError;
use super::value::{At, INT};

#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a request.
    pub max_buffer: usize,
    max_buffer_extra: Option<usize>,
    /// Requests that wait, in Java's count.
    pub outstanding: usize,
    /// Bytes that may wait for clients that take none, and bytes of requests that are read and not worked off, over all connections
    /// (`maxUnreadBytes`; ours). `None`: as many as memory allows.
    pub unread: Option<usize>,
    /// Bytes that all watches may take (`maxWatchBytes`; ours). `None`: the same.
    pub watched: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_buffer: 0xf_ffff, max_buffer_extra: None, outstanding: 1000, unread: None, watched: None }
    }
}

impl Limits {
    /// Takes one setting; false: it belongs elsewhere.
    pub(super) fn set(&mut self, at: &At<'_>) -> Result<bool, ConfigError> {
        match at.key {
            "jute.maxbuffer" => self.max_buffer = at.number(0..=INT)?,
            "jute.maxbuffer.extrasize" => self.max_buffer_extra = Some(at.number(0..=INT)?),
            // As in Java one request is always taken.
            "globalOutstandingLimit" => self.outstanding = at.number_or_zero::<usize>(INT)?.max(1),
            "maxUnreadBytes" => self.unread = Some(at.number(1..=1 << 40)?),
            "maxWatchBytes" => self.watched = Some(at.number(1..=1 << 40)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Bytes of one record in a log or snapshot that a Java peer with the same settings can read.
    pub fn max_record(&self) -> usize {
        let sum = self.max_buffer + self.max_buffer_extra.unwrap_or(self.max_buffer).max(1024);
        sum.min(i32::MAX as usize)
    }
}
