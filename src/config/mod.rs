//! The configuration: a stock `zoo.cfg` with its dynamic files and `myid`, and the `-D` flags that Java deployments pass
//! beside it. Nothing here has effects: what the machine knows is asked of a [`Machine`]. Each concern is a struct that reads
//! its own keys; whoever starts a server hands them on.

mod address;
mod auth;
mod dynamic;
mod error;
mod jaas;
mod keys;
mod limits;
mod lines;
mod ports;
mod quorum;
mod sasl;
mod sessions;
mod storage;
#[cfg(test)]
mod tests;
mod tls;
mod value;
mod znodes;

pub use address::is_any;
pub use auth::{Auth, Provider};
pub use dynamic::{dynamic_file, dynamic_text, point_to};
pub use error::{ConfigError, Expected};
pub use jaas::JaasError;
pub use limits::Limits;
pub use ports::Ports;
pub use quorum::{LearnersAllow, Quorum};
pub use sasl::Sasl;
pub use sessions::Sessions;
pub use storage::Storage;
pub use tls::{CipherSuites, ClientAuth, Store, StoreFormat, Tls, TlsVersion};
pub use znodes::Znodes;

use self::lines::{Met, Unmet};
use crate::ensemble::{ClientAddress, Role};
use std::fmt::Write;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Something in the file that has no effect, or not the one that its writer may expect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub place: String,
    pub text: String,
    /// The row of the table of keys that it is about.
    key: Option<&'static str>,
}

/// The same, of a concern: it knows its keys and not their places.
struct Remark {
    key: String,
    text: String,
}

impl Remark {
    fn new(key: impl Into<String>, text: impl Into<String>) -> Self {
        Self { key: key.into(), text: text.into() }
    }
}

/// All settings, with Java's defaults. Times in milliseconds unless a name says otherwise.
#[derive(Debug, Clone)]
pub struct Config {
    pub file: PathBuf,
    pub ports: Ports,
    pub sessions: Sessions,
    pub limits: Limits,
    pub storage: Storage,
    pub znodes: Znodes,
    pub quorum: Quorum,
    pub auth: Auth,
    pub sasl: Sasl,
    pub tls: Tls,
    pub warnings: Vec<Warning>,
    /// Keys that have no effect here, which nobody misses.
    pub notes: Vec<Warning>,
    met: Met,
}

/// What a configuration asks of the machine that it is for.
pub struct Machine<'a> {
    /// Reads a file as a whole.
    pub read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
    /// The addresses of a host; none of a name that is not known.
    pub resolve: &'a dyn Fn(&str) -> Vec<IpAddr>,
}

impl Machine<'_> {
    fn text(&self, file: &Path) -> Result<String, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { file: file.to_path_buf(), source };
        let bytes = (self.read)(file).map_err(unreadable)?;
        // Editors of Windows put a mark before the text. Java takes it for a part of the first key.
        let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    fn text_if_there(&self, file: &Path) -> Result<Option<String>, ConfigError> {
        match self.text(file) {
            Err(ConfigError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            other => other.map(Some),
        }
    }
}

impl Config {
    fn new(file: &Path) -> Self {
        Self {
            file: file.to_path_buf(),
            ports: Ports::default(),
            sessions: Sessions::default(),
            limits: Limits::default(),
            storage: Storage::default(),
            znodes: Znodes::default(),
            quorum: Quorum::default(),
            auth: Auth::default(),
            sasl: Sasl::default(),
            tls: Tls::default(),
            warnings: Vec::new(),
            notes: Vec::new(),
            met: Met::default(),
        }
    }

    /// What `zabra serve` runs without a file.
    pub fn standalone_default() -> Self {
        let mut config = Self::new(Path::new("(defaults)"));
        config.storage.dir = PathBuf::from("./zabra-data");
        config.ports.client = Some(2181);
        config.sessions.tick_ms = 2000;
        config
    }

    /// Reads the file, the dynamic files that belong to it, and `myid`.
    pub fn from_file(file: &Path, machine: &Machine<'_>) -> Result<Self, ConfigError> {
        let mut config = Self::new(file);
        config.take_lines(file, &machine.text(file)?)?;
        config.quorum.read_servers(file, machine)?;
        config.read_my_id(machine)?;
        config.take_client_port_of_server_line(machine)?;
        if let Some(text) = config.quorum.other_role() {
            config.warn(&config.met.place("peerType"), text);
        }
        config.check()?;
        Ok(config)
    }

    fn my_id_file(&self) -> PathBuf {
        self.storage.dir.join("myid")
    }

    fn read_my_id(&mut self, machine: &Machine<'_>) -> Result<(), ConfigError> {
        let file = self.my_id_file();
        match machine.text_if_there(&file) {
            Err(ConfigError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotADirectory => {
                let (place, dir) = (self.met.place("dataDir"), self.storage.dir.clone());
                Err(ConfigError::DataDirIsFile { place, dir })
            }
            Ok(Some(text)) => self.quorum.take_my_id(file, &text),
            other => other.map(|_| ()),
        }
    }

    fn take_client_port_of_server_line(&mut self, machine: &Machine<'_>) -> Result<(), ConfigError> {
        let said = self.ports.client.map(|port| ClientAddress {
            host: self.ports.address.clone().unwrap_or_else(|| "0.0.0.0".into()),
            port,
        });
        if let Some(own) = self.quorum.agree_on_client(said, &self.file, machine)? {
            self.ports.client = Some(own.port);
            self.ports.address = Some(own.host).filter(|host| !is_any(host));
        }
        Ok(())
    }

    fn check(&self) -> Result<(), ConfigError> {
        // First of all: a server that a reconfiguration left out may have lost its client port with its line.
        self.quorum.check(&self.file, self.my_id_file())?;
        if self.ports.client.is_none() && self.tls.port.is_none() {
            let why = "it is the port that clients connect to";
            return Err(ConfigError::Missing { file: self.file.clone(), key: "clientPort", why });
        }
        let (min, max) = (self.sessions.min_timeout_ms(), self.sessions.max_timeout_ms());
        if min > max {
            let place = self.file.display().to_string();
            return Err(ConfigError::TimeoutsCross { place, min, max });
        }
        Ok(())
    }

    /// What can be checked, and read, once the file and the flags have said all.
    pub fn conclude(&mut self, machine: &Machine<'_>) -> Result<(), ConfigError> {
        for unmet in std::mem::take(&mut self.met.unmet) {
            let Unmet { place, key, value, why } = unmet;
            if self.tls.is_on() {
                return Err(ConfigError::Value { place, key, value, expected: Expected::Less(why) });
            }
            let text = format!("{key} has no effect: no client port has TLS");
            self.notes.push(Warning { place, text, key: None });
        }
        if self.met.without_admin {
            // Whoever turned the admin server off does not miss its port.
            let is_missed = |told: &Warning| told.key.is_none_or(|key| !key.starts_with("admin."));
            self.warnings.retain(is_missed);
            self.notes.retain(is_missed);
        }
        self.sasl.read_logins(machine)?;
        self.check_enforced()?;
        let mut remarks = self.storage.remarks();
        remarks.extend(self.auth.remarks());
        if self.auth.require_sasl && self.sasl.accounts.is_none() {
            let key = "sessionRequireClientSASLAuth";
            let text =
                format!("{key}: nobody can log in, as -Djava.security.auth.login.config names no accounts");
            remarks.push(Remark::new(key, text));
        }
        for Remark { key, text } in remarks {
            self.warn(&self.met.place(&key), text);
        }
        Ok(())
    }

    /// What a client has to prove must be something that it can prove (`AuthenticationHelper`).
    fn check_enforced(&self) -> Result<(), ConfigError> {
        let schemes = self.auth.enforced_schemes();
        if self.auth.enforce && schemes.is_empty() {
            return Err(ConfigError::NothingEnforced { place: self.met.place("enforce.auth.enabled") });
        }
        let Some(scheme) = schemes.into_iter().find(|scheme| !self.has_scheme(scheme)) else { return Ok(()) };
        let (key, value) = match self.auth.require_sasl {
            true => ("sessionRequireClientSASLAuth", "true".into()),
            false => ("enforce.auth.schemes", self.auth.enforced.join(",")),
        };
        Err(ConfigError::NoSuchScheme { place: self.met.place(key), key, value, scheme })
    }

    fn has_scheme(&self, scheme: &str) -> bool {
        match scheme {
            "digest" => self.auth.digest().is_some(),
            "ip" => true,
            "sasl" => self.auth.has(Provider::Sasl),
            "x509" => self.proves_by_certificate(),
            "ensemble" => self.auth.has(Provider::Ensemble),
            "key" => self.auth.has(Provider::Key),
            _ => false,
        }
    }

    /// The scheme `x509` exists: always where clients may come by TLS.
    pub fn proves_by_certificate(&self) -> bool {
        self.auth.has(Provider::X509) || self.tls.is_on()
    }

    fn warn(&mut self, place: &str, text: String) {
        self.warnings.push(Warning { place: place.into(), text, key: None });
    }

    /// The text of the word `conf`.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |key: &str, value: String| {
            let _ = writeln!(out, "{key}={value}");
        };
        let version = |dir: &Path| dir.join("version-2").display().to_string();
        line("clientPort", self.ports.client.map_or(-1, i32::from).to_string());
        line("secureClientPort", self.tls.port.map_or(-1, i32::from).to_string());
        line("dataDir", version(&self.storage.dir));
        line("dataLogDir", version(self.storage.log_dir()));
        line("tickTime", self.sessions.tick_ms.to_string());
        line("maxClientCnxns", self.ports.per_address.to_string());
        line("minSessionTimeout", self.sessions.min_timeout_ms().to_string());
        line("maxSessionTimeout", self.sessions.max_timeout_ms().to_string());
        line("clientPortListenBacklog", self.ports.backlog.to_string());
        let quorum = &self.quorum;
        line("serverId", quorum.my_id.map_or(0, |id| id.0).to_string());
        if let (true, Some(ensemble), Some(id)) = (quorum.is_distributed(), &quorum.ensemble, quorum.my_id) {
            line("initLimit", quorum.init_limit.to_string());
            line("syncLimit", quorum.sync_limit.to_string());
            line("electionAlg", "3".into());
            if let Some(member) = ensemble.member(id) {
                line("electionPort", member.addresses[0].election_port.to_string());
                line("quorumPort", member.addresses[0].quorum_port.to_string());
                line("peerType", i32::from(member.role == Role::Observer).to_string());
            }
        }
        out
    }
}
