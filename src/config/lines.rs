//! How each key is taken: as a line of `zoo.cfg` or as a flag, by what the table of keys says of it. The last line with a
//! key counts, and a line counts before a flag.

use super::keys::{self, Effect, Key, Source};
use super::value::At;
use super::{Config, ConfigError, Expected, Warning};
use crate::ensemble::properties;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What was met while keys were taken.
#[derive(Debug, Clone, Default)]
pub(super) struct Met {
    /// The file and line of each key that Apache reads there.
    places: BTreeMap<String, String>,
    /// Which of them are in the file, and not flags.
    in_file: BTreeSet<String>,
    /// Protection that is asked for and does not exist, to be refused where clients come by TLS.
    pub unmet: Vec<Unmet>,
    /// `admin.enableServer=false`.
    pub without_admin: bool,
}

/// A key whose value asks for protection that does not exist here.
#[derive(Debug, Clone)]
pub(super) struct Unmet {
    pub place: String,
    pub key: String,
    pub value: String,
    pub why: &'static str,
}

impl Met {
    /// The file and line of a key; empty if it has none.
    pub fn place(&self, key: &str) -> String {
        self.places.get(key).cloned().unwrap_or_default()
    }
}

impl Config {
    pub(super) fn take_lines(&mut self, file: &Path, text: &str) -> Result<(), ConfigError> {
        let properties = properties::parse(text);
        let last: BTreeMap<&str, usize> =
            properties.iter().map(|property| (&property.key[..], property.line)).collect();
        for property in &properties {
            let place = format!("{}:{}", file.display(), property.line);
            let line = last[&property.key[..]];
            if line == property.line {
                self.take_line(&place, &property.key, &property.value)?;
            } else {
                let key = property.key.escape_debug();
                self.warn(&place, format!("{key} is set in line {line} again, and that line counts"));
            }
        }
        if !self.met.places.contains_key("dataDir") {
            let why = "it says where snapshots and logs are kept";
            return Err(ConfigError::Missing { file: file.into(), key: "dataDir", why });
        }
        Ok(())
    }

    /// Takes `-Dkey=value` flags as Java deployments pass them (SERVER_JVMFLAGS). What the file sets wins, as in Java;
    /// flags of the JVM itself are not for this server.
    pub fn apply_jvm_flags(&mut self, from: &str, flags: &str) -> Result<(), ConfigError> {
        let flags = flags.split_whitespace().filter_map(|flag| flag.strip_prefix("-D")?.split_once('='));
        // Of several flags with one key the last counts.
        let flags: BTreeMap<&str, &str> = flags.collect();
        for (key, value) in flags {
            self.take_flag(from, key, value)?;
        }
        Ok(())
    }

    /// Takes a line of the file. One that Apache does not read may have stood there for years: it has no effect here either.
    pub(super) fn take_line(&mut self, place: &str, key: &str, value: &str) -> Result<(), ConfigError> {
        const FLAGS: &str = "in SERVER_JVMFLAGS";
        let dead = match keys::find(key) {
            Some(Key { source: Source::Flag, .. }) => format!("the flag -D{key}=… has it ({FLAGS})"),
            Some(known) => {
                self.met.in_file.insert(key.into());
                return self.take(&At { place, key, value }, known);
            }
            None => match key.strip_prefix("zookeeper.").map(|bare| (bare, keys::find(bare))) {
                Some((bare, Some(known))) => match known.source {
                    Source::File => format!("the line {bare}=… has it"),
                    Source::Property => format!("the line {bare}=… has it, or the flag -D{key}=… ({FLAGS})"),
                    Source::Flag => format!("the flag -D{bare}=… has it ({FLAGS})"),
                },
                _ => {
                    self.warn(place, format!("{} is not known and has no effect", key.escape_debug()));
                    return Ok(());
                }
            },
        };
        let key = key.escape_debug();
        self.warn(place, format!("{key} has no effect in this file, as in Apache: {dead}"));
        Ok(())
    }

    /// Takes a flag, where Apache reads it.
    pub(super) fn take_flag(&mut self, from: &str, flag: &str, value: &str) -> Result<(), ConfigError> {
        let bare = flag.strip_prefix("zookeeper.");
        let key = bare.unwrap_or(flag);
        let right = match (keys::find(key), bare) {
            (Some(known), Some(_)) if known.source == Source::Property => {
                return self.take_unless_in_file(&At { place: from, key, value }, known);
            }
            (Some(known), None) if known.source == Source::Flag => {
                return self.take_unless_in_file(&At { place: from, key, value }, known);
            }
            (Some(Key { source: Source::File, effect: Effect::Protects(asks, why), .. }), Some(_))
                if asks.for_something(value) =>
            {
                return Err(At { place: from, key: flag, value }.wrong(Expected::Less(why)));
            }
            (Some(Key { source: Source::File, .. }), Some(_)) => {
                format!("the line {key}=… of the file has it")
            }
            (Some(Key { source: Source::Property, .. }), None) => {
                format!("the flag -Dzookeeper.{key}=… has it")
            }
            (Some(Key { source: Source::Flag, .. }), Some(_)) => format!("the flag -D{key}=… has it"),
            (None, Some(_)) => {
                self.warn(from, format!("{} is not known and has no effect", flag.escape_debug()));
                return Ok(());
            }
            // The JVM's own.
            _ => return Ok(()),
        };
        self.warn(from, format!("-D{} has no effect, as in Apache: {right}", flag.escape_debug()));
        Ok(())
    }

    fn take_unless_in_file(&mut self, at: &At<'_>, known: Key) -> Result<(), ConfigError> {
        if self.met.in_file.contains(at.key) { Ok(()) } else { self.take(at, known) }
    }

    /// Takes a key where Apache reads it.
    fn take(&mut self, at: &At<'_>, known: Key) -> Result<(), ConfigError> {
        self.met.places.insert(at.key.into(), at.place.into());
        if known.name == "admin.enableServer" {
            self.met.without_admin = at.value.eq_ignore_ascii_case("false");
        }
        let has_no_effect = |why: &str| Warning {
            place: at.place.into(),
            text: format!("{} has no effect: {why}", at.key.escape_debug()),
            key: Some(known.name),
        };
        match known.effect {
            Effect::Works => {
                let is_taken = self.set(at)?;
                assert!(is_taken, "{} works by the table of keys, and is not read", at.key);
            }
            Effect::Protects(asks, why) if asks.for_something(at.value) => {
                return Err(at.wrong(Expected::Less(why)));
            }
            Effect::ProtectsTls(asks, why) if asks.for_something(at.value) => self.met.unmet.push(Unmet {
                place: at.place.into(),
                key: at.key.into(),
                value: at.value.into(),
                why,
            }),
            Effect::Adds(asks, why) if asks.for_something(at.value) => self.warnings.push(has_no_effect(why)),
            Effect::Harmless(why) => self.notes.push(has_no_effect(why)),
            Effect::Protects(..) | Effect::ProtectsTls(..) | Effect::Adds(..) => {}
        }
        Ok(())
    }

    /// Each concern knows its own keys.
    fn set(&mut self, at: &At<'_>) -> Result<bool, ConfigError> {
        Ok(self.ports.set(at)?
            || self.sessions.set(at)?
            || self.limits.set(at)?
            || self.storage.set(at)?
            || self.znodes.set(at)?
            || self.quorum.set(at)?
            || self.auth.set(at)?
            || self.sasl.set(at)?
            || self.tls.set(at)?)
    }
}
