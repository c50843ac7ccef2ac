//! The tick, and how long sessions may be silent.

use super::ConfigError;
use super::value::{At, INT};

#[derive(Debug, Clone)]
pub struct Sessions {
    pub tick_ms: u64,
    min_timeout_ms: Option<i32>,
    max_timeout_ms: Option<i32>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { tick_ms: 3000, min_timeout_ms: None, max_timeout_ms: None }
    }
}

impl Sessions {
    /// Takes one setting; false: it belongs elsewhere.
    pub(super) fn set(&mut self, at: &At<'_>) -> Result<bool, ConfigError> {
        match at.key {
            "tickTime" => self.tick_ms = at.number(1..=INT)?,
            "minSessionTimeout" => self.min_timeout_ms = timeout(at)?,
            "maxSessionTimeout" => self.max_timeout_ms = timeout(at)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub fn min_timeout_ms(&self) -> i32 {
        self.min_timeout_ms.unwrap_or(self.ticks(2))
    }

    pub fn max_timeout_ms(&self) -> i32 {
        self.max_timeout_ms.unwrap_or(self.ticks(20))
    }

    fn ticks(&self, count: u64) -> i32 {
        i32::try_from(self.tick_ms * count).unwrap_or(i32::MAX)
    }
}

/// −1 means the default.
fn timeout(at: &At<'_>) -> Result<Option<i32>, ConfigError> {
    at.number(-1..=INT).map(|number: i32| Some(number).filter(|number| *number >= 0))
}
