//! The value of one line, read as what its key expects.

use super::{ConfigError, Expected};
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// The largest number of Java's `int`.
pub(super) const INT: i64 = i32::MAX as i64;

pub(super) fn words(value: &str) -> Vec<String> {
    value.split(',').map(|word| word.trim().to_string()).filter(|word| !word.is_empty()).collect()
}

/// One setting and its place in the file.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub place: &'a str,
    pub key: &'a str,
    pub value: &'a str,
}

impl At<'_> {
    pub fn wrong(&self, expected: Expected) -> ConfigError {
        let (place, key, value) = (self.place.into(), self.key.into(), self.value.into());
        ConfigError::Value { place, key, value, expected }
    }

    /// `what` finishes the sentence "expected …".
    pub fn expected(&self, what: &'static str) -> ConfigError {
        self.wrong(Expected::OneOf(what))
    }

    pub fn number<T: TryFrom<i64>>(&self, range: RangeInclusive<i64>) -> Result<T, ConfigError> {
        // Java reads its properties with Long.decode: 0x… is a number too.
        let parsed = match self.value.strip_prefix("0x") {
            Some(hex) => i64::from_str_radix(hex, 16),
            None => self.value.parse(),
        };
        let in_range = parsed.ok().filter(|number| range.contains(number));
        let wrong = || self.wrong(Expected::Number { from: *range.start(), to: *range.end() });
        in_range.and_then(|number| T::try_from(number).ok()).ok_or_else(wrong)
    }

    /// A number below 0 counts as 0: no limit, never, off.
    pub fn number_or_zero<T: TryFrom<i64>>(&self, most: i64) -> Result<T, ConfigError> {
        let wrong = || self.wrong(Expected::Number { from: 0, to: most });
        let number: i64 = self.number(i64::from(i32::MIN)..=most).map_err(|_| wrong())?;
        T::try_from(number.max(0)).map_err(|_| wrong())
    }

    /// A host. None named is this machine alone (`InetAddress.getByName`).
    pub fn address(&self) -> String {
        let host = self.value.trim();
        if host.is_empty() { "127.0.0.1".into() } else { host.into() }
    }

    pub fn path(&self) -> Result<PathBuf, ConfigError> {
        if self.value.is_empty() { Err(self.expected("a path")) } else { Ok(self.value.into()) }
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
            _ => Err(self.expected("true or false")),
        }
    }
}
