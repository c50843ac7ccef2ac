//! What stands behind the `=` of a line.

use super::{ConfigError, LearnersAllow};
use crate::ensemble::Role;
use crate::model::ServerId;
use std::path::PathBuf;

pub(super) fn words(value: &str) -> Vec<String> {
    value.split(',').map(|word| word.trim().to_string()).filter(|word| !word.is_empty()).collect()
}

/// One setting and where it stands.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub place: &'a str,
    pub key: &'a str,
    pub value: &'a str,
}

impl At<'_> {
    pub fn wrong(&self, wanted: &str) -> ConfigError {
        let (place, key, value) = (self.place.into(), self.key.into(), self.value.into());
        ConfigError::Value { place, key, value, wanted: wanted.into() }
    }

    pub fn number(&self, range: std::ops::RangeInclusive<i64>) -> Result<i64, ConfigError> {
        // Java reads its properties with Long.decode: 0x… is a number too.
        let parsed = match self.value.strip_prefix("0x") {
            Some(hex) => i64::from_str_radix(hex, 16),
            None => self.value.parse(),
        };
        match parsed {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(self.wrong(&format!(
                "a whole number from {} to {} is needed",
                range.start(),
                range.end()
            ))),
        }
    }

    /// What is below 0 counts as 0: no limit, never, off.
    pub fn number_or_none(&self, most: i64) -> Result<u64, ConfigError> {
        Ok(self.number(i64::from(i32::MIN)..=most)?.max(0) as u64)
    }

    /// A host. None named is this machine alone (`InetAddress.getByName`).
    pub fn address(&self) -> String {
        let host = self.value.trim();
        if host.is_empty() { "127.0.0.1".into() } else { host.into() }
    }

    /// −1 stands for the default.
    pub fn timeout(&self) -> Result<Option<i32>, ConfigError> {
        let number = self.number(-1..=i64::from(i32::MAX))?;
        Ok((number >= 0).then_some(number as i32))
    }

    pub fn path(&self) -> Result<PathBuf, ConfigError> {
        if self.value.is_empty() { Err(self.wrong("a directory is needed")) } else { Ok(self.value.into()) }
    }

    pub fn learners(&self) -> Result<LearnersAllow, ConfigError> {
        if self.value == "*" {
            return Ok(LearnersAllow::All);
        }
        let ids = words(self.value).iter().map(|id| id.parse().map(ServerId)).collect::<Result<_, _>>();
        ids.map(LearnersAllow::Ids).map_err(|_| self.wrong("server ids with commas, or *, are needed"))
    }

    pub fn role(&self) -> Result<Role, ConfigError> {
        match self.value.to_ascii_lowercase().as_str() {
            "participant" => Ok(Role::Participant),
            "observer" => Ok(Role::Observer),
            _ => Err(self.wrong("participant or observer is needed")),
        }
    }

    /// As Java reads a system property: all but `true` is false.
    pub fn flag(&self) -> bool {
        self.value.eq_ignore_ascii_case("true")
    }

    /// As Java's parser reads the keys that it knows.
    pub fn strict_flag(&self) -> Result<bool, ConfigError> {
        match self.value.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.wrong("true or false is needed")),
        }
    }
}
