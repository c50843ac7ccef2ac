//! The port of clients without TLS, how many connections it takes, and the four-letter words.

use super::ConfigError;
use super::value::{At, INT, words};

#[derive(Debug, Clone)]
pub struct Ports {
    pub client: Option<u16>,
    /// `None`: all addresses of the machine.
    pub address: Option<String>,
    /// −1: the system's.
    pub backlog: i32,
    /// Connections of one address; 0: any number.
    pub per_address: usize,
    /// All connections; 0: any number.
    pub connections: usize,
    /// How long a connection may be without a session.
    pub sessionless_timeout_ms: u64,
    words: Vec<String>,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            client: None,
            address: None,
            backlog: -1,
            per_address: 60,
            connections: 0,
            sessionless_timeout_ms: 10_000,
            words: vec!["srvr".into()],
        }
    }
}

impl Ports {
    /// Takes one setting; false: it belongs elsewhere.
    pub(super) fn set(&mut self, at: &At<'_>) -> Result<bool, ConfigError> {
        match at.key {
            "clientPort" => self.client = Some(at.number(0..=65_535)?),
            "clientPortAddress" => self.address = Some(at.address()),
            "clientPortListenBacklog" => self.backlog = at.number(-1..=65_535)?,
            "maxClientCnxns" => self.per_address = at.number_or_zero(INT)?,
            "maxCnxns" => self.connections = at.number_or_zero(INT)?,
            "nio.sessionlessCnxnTimeout" => self.sessionless_timeout_ms = at.number(1..=1 << 40)?,
            "4lw.commands.whitelist" => self.words = words(at.value),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// `srvr` always, for scripts ask it; `isro` where clients look for a server that writes.
    pub fn allows_word(&self, word: &str, read_only_mode: bool) -> bool {
        word == "srvr"
            || (word == "isro" && read_only_mode)
            || self.words.iter().any(|allowed| allowed == "*" || allowed == word)
    }
}
