//! The configuration: a stock `zoo.cfg` with its dynamic files and `myid`, and the `-D` flags that Java deployments pass
//! beside it. Nothing here has effects; whoever starts a server reads it and hands it on.

mod address;
mod dynamic;
mod jaas;
mod keys;
mod sasl;
#[cfg(test)]
mod tests;
mod tls;
mod value;

pub use address::is_any;
pub use dynamic::{dynamic_file, dynamic_text, point_to};
pub use sasl::Sasl;
pub use tls::{CipherSuites, ClientAuth, Store, StoreFormat, Tls, TlsVersion};

use self::keys::{Effect, Key, Source};
use self::value::{At, words};
use crate::ensemble::{ClientAddress, Ensemble, Lines, ParseError, Role, properties};
use crate::model::{DigestAlgorithm, ServerId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", file.display())]
    Unreadable { file: PathBuf, source: std::io::Error },
    #[error("{place}: {}={value:?}: {wanted}", key.escape_debug())]
    Value { place: String, key: String, value: String, wanted: String },
    #[error("{}: {key} is missing: {why}", file.display())]
    Missing { file: PathBuf, key: &'static str, why: &'static str },
    #[error("{place}: {source}")]
    Ensemble { place: String, source: ParseError },
    #[error("{}: {what}", file.display())]
    Wrong { file: PathBuf, what: String },
}

/// Something in the file that has no effect, or not the one that its writer may expect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub place: String,
    pub text: String,
    /// The row of the table of keys that it is about.
    key: Option<&'static str>,
}

/// All settings, with Java's defaults. Times in milliseconds unless a name says otherwise.
#[derive(Debug, Clone)]
pub struct Config {
    pub file: PathBuf,
    pub data_dir: PathBuf,
    pub data_log_dir: Option<PathBuf>,
    pub client_port: Option<u16>,
    pub client_port_address: Option<String>,
    pub tick_time_ms: u64,
    pub max_client_cnxns: usize,
    pub max_cnxns: usize,
    pub client_port_listen_backlog: i32,
    pub min_session_timeout_ms: Option<i32>,
    pub max_session_timeout_ms: Option<i32>,
    pub autopurge_snap_retain_count: usize,
    /// 0: off.
    pub autopurge_purge_interval_hours: u64,
    pub snap_count: u64,
    pub pre_alloc_size_kb: u64,
    pub snap_size_limit_kb: i64,
    pub txn_log_size_limit_kb: i64,
    pub global_outstanding_limit: usize,
    pub force_sync: bool,
    pub skip_acl: bool,
    pub datadir_autocreate: bool,
    pub extended_types: bool,
    pub emulate_353_ttl: bool,
    pub digest_enabled: bool,
    pub enforce_quota: bool,
    /// The hash of the `digest` scheme; `None`: the scheme is off.
    pub digest_auth: Option<DigestAlgorithm>,
    pub super_digest: Option<String>,
    /// The scheme `ensemble` is on, and the names that it takes.
    ensemble_auth: bool,
    ensemble_auth_names: Vec<String>,
    pub enforce_auth: bool,
    pub enforce_auth_schemes: Vec<String>,
    pub require_sasl: bool,
    pub sasl: Sasl,
    pub tls: Tls,
    /// The scheme `key`, an example of ZooKeeper's.
    pub key_auth: bool,
    pub four_letter_words: Vec<String>,
    pub max_buffer: usize,
    pub max_buffer_extra: Option<usize>,
    pub container_check_interval_ms: u64,
    pub container_max_per_minute: u64,
    pub container_max_never_used_ms: i64,
    pub sessionless_timeout_ms: u64,
    pub reconfig_enabled: bool,
    pub standalone_enabled: bool,
    /// In ticks. 0: not set.
    pub init_limit: u64,
    pub sync_limit: u64,
    /// In ticks; 0: `init_limit`.
    pub connect_to_learner_master_limit: u64,
    pub cnx_timeout_ms: u64,
    pub quorum_listen_on_all_ips: bool,
    /// 0: for ever.
    pub election_port_bind_retry: u64,
    pub leader_serves: bool,
    pub commit_log_count: usize,
    pub min_notification_ms: u64,
    /// How long a server without data waits to hear every voter before it helps to elect (`emptyServerWaitMs`; ours).
    pub empty_server_wait_ms: u64,
    /// Whether a member has to connect from an address of its line (`peers.checkAddress`; ours).
    pub peers_check_address: bool,
    pub max_notification_ms: u64,
    pub snapshot_size_factor: f64,
    pub force_snapshot_sync: bool,
    pub db_autocreate: bool,
    pub tcp_keep_alive: bool,
    pub multi_address: bool,
    /// Servers in no configuration that may learn all the same; none: those that a reconfiguration may add.
    pub learners_allow: Option<LearnersAllow>,
    pub dynamic_config_file: Option<PathBuf>,
    /// The servers that the file names itself.
    servers: Lines,
    /// The ensemble's configuration, and one that was proposed later, where there is an ensemble.
    pub ensemble: Option<Ensemble>,
    pub proposed: Option<Ensemble>,
    /// What `myid` says.
    pub my_id: Option<ServerId>,
    pub warnings: Vec<Warning>,
    /// Keys that have no effect here, which nobody misses.
    pub notes: Vec<Warning>,
    /// `admin.enableServer=false`.
    without_admin: bool,
    /// `peerType`.
    peer_type: Option<Role>,
    /// Protection that is asked for and not there, to be refused where clients come by TLS.
    unmet: Vec<Unmet>,
    /// What `digest_auth` hashes with where it is on, in whichever order the two are set.
    digest_algorithm: DigestAlgorithm,
    pub read_only_mode: bool,
    /// Where each key stands that Apache reads there.
    places: BTreeMap<String, String>,
    /// Which of them stand in the file.
    in_file: BTreeSet<String>,
}

/// A key whose value asks for protection that is not there.
#[derive(Debug, Clone)]
struct Unmet {
    place: String,
    key: String,
    value: String,
    why: &'static str,
}

/// `learners.allow`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LearnersAllow {
    All,
    Ids(Vec<ServerId>),
}

impl Config {
    /// What `zabra serve` runs without a file.
    pub fn standalone_default() -> Self {
        Self {
            file: PathBuf::from("(defaults)"),
            data_dir: PathBuf::from("./zabra-data"),
            data_log_dir: None,
            client_port: Some(2181),
            client_port_address: None,
            tick_time_ms: 2000,
            max_client_cnxns: 60,
            max_cnxns: 0,
            client_port_listen_backlog: -1,
            min_session_timeout_ms: None,
            max_session_timeout_ms: None,
            autopurge_snap_retain_count: 3,
            autopurge_purge_interval_hours: 0,
            snap_count: 100_000,
            pre_alloc_size_kb: 65_536,
            snap_size_limit_kb: 4_194_304,
            txn_log_size_limit_kb: -1,
            global_outstanding_limit: 1000,
            force_sync: true,
            skip_acl: false,
            datadir_autocreate: true,
            extended_types: false,
            emulate_353_ttl: false,
            digest_enabled: true,
            enforce_quota: false,
            digest_auth: Some(DigestAlgorithm::Sha1),
            digest_algorithm: DigestAlgorithm::Sha1,
            read_only_mode: false,
            super_digest: None,
            ensemble_auth: false,
            ensemble_auth_names: Vec::new(),
            enforce_auth: false,
            enforce_auth_schemes: Vec::new(),
            require_sasl: false,
            sasl: Sasl::default(),
            tls: Tls::default(),
            key_auth: false,
            four_letter_words: vec!["srvr".into()],
            max_buffer: 0xf_ffff,
            max_buffer_extra: None,
            container_check_interval_ms: 60_000,
            container_max_per_minute: 10_000,
            container_max_never_used_ms: 0,
            sessionless_timeout_ms: 10_000,
            reconfig_enabled: false,
            standalone_enabled: true,
            init_limit: 0,
            sync_limit: 0,
            connect_to_learner_master_limit: 0,
            cnx_timeout_ms: 5000,
            quorum_listen_on_all_ips: false,
            election_port_bind_retry: 3,
            leader_serves: true,
            commit_log_count: 500,
            min_notification_ms: 200,
            empty_server_wait_ms: 30_000,
            peers_check_address: true,
            max_notification_ms: 1000,
            snapshot_size_factor: 0.33,
            force_snapshot_sync: false,
            db_autocreate: true,
            tcp_keep_alive: false,
            multi_address: false,
            learners_allow: None,
            dynamic_config_file: None,
            servers: Lines::default(),
            ensemble: None,
            proposed: None,
            my_id: None,
            warnings: Vec::new(),
            notes: Vec::new(),
            without_admin: false,
            peer_type: None,
            unmet: Vec::new(),
            places: BTreeMap::new(),
            in_file: BTreeSet::new(),
        }
    }

    /// Reads the file, the dynamic files that belong to it, and `myid`.
    pub fn from_file(file: &Path) -> Result<Self, ConfigError> {
        Self::from_files(file, &|file| std::fs::read(file))
    }

    /// The same, with files out of `read`.
    pub fn from_files(file: &Path, read: &ReadFile<'_>) -> Result<Self, ConfigError> {
        let mut config = Self::parse_static(file, &read_text(read, file)?)?;
        config.read_dynamic(read)?;
        config.read_my_id(read)?;
        config.finish()?;
        Ok(config)
    }

    fn read_dynamic(&mut self, read: &ReadFile<'_>) -> Result<(), ConfigError> {
        let wrong = |file: &Path, what: String| ConfigError::Wrong { file: file.to_path_buf(), what };
        if let Some(file) = self.dynamic_config_file.clone() {
            if !self.servers.is_empty() {
                let what =
                    format!("server.N stands here, and dynamicConfigFile names {} too", file.display());
                return Err(wrong(&self.file, what));
            }
            let ensemble =
                Ensemble::parse(&read_text(read, &file)?).map_err(|what| wrong(&file, what.to_string()))?;
            if ensemble.version() != 0 {
                return Err(wrong(&file, "a dynamic file has its version in its name, not in a line".into()));
            }
            let version = dynamic::version_in_name(&file).unwrap_or(0);
            self.ensemble = Some(ensemble.with_version(version));
        }
        let next = dynamic_file(&self.file, None);
        if let Some(text) = read_if_there(read, &next)? {
            self.proposed = Some(Ensemble::parse(&text).map_err(|what| wrong(&next, what.to_string()))?);
        }
        Ok(())
    }

    fn read_my_id(&mut self, read: &ReadFile<'_>) -> Result<(), ConfigError> {
        let file = self.data_dir.join("myid");
        let Some(text) = read_if_there(read, &file)? else { return Ok(()) };
        let line = text.lines().next().unwrap_or_default().trim();
        match line.parse::<i64>() {
            // It is the top byte of session ids.
            Ok(id) if (0..=255).contains(&id) => self.my_id = Some(ServerId(id)),
            // A server that is alone has no use for it, and Java takes any number there.
            Ok(_) if self.servers.is_empty() && self.ensemble.is_none() => {}
            _ => return Err(ConfigError::Wrong { file, what: format!("{line:?} is no id from 0 to 255") }),
        }
        Ok(())
    }

    /// A file's text alone, without the files beside it. `file` is named in messages only.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut config = Self::parse_static(file, text)?;
        config.finish()?;
        Ok(config)
    }

    fn parse_static(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut config = Self {
            file: file.to_path_buf(),
            client_port: None,
            tick_time_ms: 3000,
            ..Self::standalone_default()
        };
        let properties = properties::parse(text);
        // Of several lines with one key the last counts.
        let last: BTreeMap<&str, usize> =
            properties.iter().map(|property| (&property.key[..], property.line)).collect();
        for property in &properties {
            let place = format!("{}:{}", file.display(), property.line);
            let line = last[&property.key[..]];
            if line == property.line {
                config.take_line(&place, &property.key, &property.value)?;
            } else {
                let key = property.key.escape_debug();
                config.warn(&place, format!("{key} stands in line {line} too, and that one counts"));
            }
        }
        if !config.places.contains_key("dataDir") {
            let why = "it says where snapshots and logs are kept";
            return Err(ConfigError::Missing { file: config.file, key: "dataDir", why });
        }
        Ok(config)
    }

    /// Puts together what several places say, and checks it.
    fn finish(&mut self) -> Result<(), ConfigError> {
        if self.ensemble.is_none() && !self.servers.is_empty() {
            let wrong =
                |what: ParseError| ConfigError::Wrong { file: self.file.clone(), what: what.to_string() };
            self.ensemble = Some(self.servers.ensemble().map_err(wrong)?);
        }
        self.take_client_port_of_server_line()?;
        self.compare_peer_type();
        self.check()
    }

    /// The member that this server is: the only one where there is but one.
    fn own_id(&self) -> Option<ServerId> {
        let ensemble = self.ensemble.as_ref()?;
        let mut members = ensemble.members();
        let only = members.next().map(|member| member.id).filter(|_| members.next().is_none());
        self.my_id.or(only)
    }

    /// The client port may stand in the server's own line: `server.1=host:2888:3888;2181`. Where it stands in both
    /// places they have to agree.
    fn take_client_port_of_server_line(&mut self) -> Result<(), ConfigError> {
        let Some(id) = self.own_id() else { return Ok(()) };
        let from_file = self.client_port.map(|port| ClientAddress {
            host: self.client_port_address.clone().unwrap_or_else(|| "0.0.0.0".into()),
            port,
        });
        let file = self.file.clone();
        let Some(member) = self.ensemble.as_mut().and_then(|ensemble| ensemble.member_mut(id)) else {
            return Ok(());
        };
        let Some(own) = member.client.clone() else {
            member.client_is_static = from_file.is_some();
            member.client = from_file;
            return Ok(());
        };
        if let Some(other) = from_file {
            // As Java compares them: all addresses of the machine agree with any.
            let agree =
                address::is_any(&other.host) || address::is_same(&other.host, &own.host, &address::resolve);
            if other.port != own.port || !agree {
                let what = format!("clientPort says {other}, and the line of server.{id} says {own}");
                return Err(ConfigError::Wrong { file, what });
            }
        }
        self.client_port = Some(own.port);
        self.client_port_address = Some(own.host).filter(|host| !address::is_any(host));
        Ok(())
    }

    /// As in Java the lines of the servers count.
    fn compare_peer_type(&mut self) {
        let role = self.own_id().and_then(|id| Some((id, self.ensemble.as_ref()?.member(id)?.role)));
        if let (Some((id, role)), Some(said)) = (role, self.peer_type)
            && role != said
        {
            let place = self.places.get("peerType").cloned().unwrap_or_default();
            self.warn(&place, format!("the line of server.{id} says another role, and it counts"));
        }
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

    /// What can be checked, and read, once the file and the flags have said all.
    pub fn conclude(&mut self) -> Result<(), ConfigError> {
        for unmet in std::mem::take(&mut self.unmet) {
            let Unmet { place, key, value, why } = unmet;
            if self.tls.is_on() {
                return Err(ConfigError::Value { place, key, value, wanted: why.into() });
            }
            let text = format!("{key} has no effect: no client port has TLS");
            self.notes.push(Warning { place, text, key: None });
        }
        if self.without_admin {
            // Whoever turned the admin server off does not miss its port.
            let is_missed = |told: &Warning| told.key.is_none_or(|key| !key.starts_with("admin."));
            self.warnings.retain(is_missed);
            self.notes.retain(is_missed);
        }
        self.read_logins()?;
        self.check_enforced()?;
        self.tell_dangers();
        Ok(())
    }

    /// What a client has to prove must be something that it can prove (`AuthenticationHelper`).
    fn check_enforced(&self) -> Result<(), ConfigError> {
        let wrong = |key: &str, value: &str, wanted: String| {
            let place = self.places.get(key).cloned().unwrap_or_default();
            Err(ConfigError::Value { place, key: key.into(), value: value.into(), wanted })
        };
        let schemes = self.enforced_schemes();
        let unknown = schemes.iter().find(|scheme| !self.has_scheme(scheme));
        match unknown {
            _ if self.enforce_auth && schemes.is_empty() => {
                let wanted = "enforce.auth.schemes has to name the schemes of which a client proves one";
                wrong("enforce.auth.enabled", "true", wanted.into())
            }
            Some(_) if self.require_sasl => {
                let wanted = "SASL is off: authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider is needed";
                wrong("sessionRequireClientSASLAuth", "true", wanted.into())
            }
            Some(scheme) => {
                let wanted = format!(
                    "the scheme {scheme:?} is not there: digest and ip are, x509 with TLS, sasl, ensemble and key with their authProvider.N"
                );
                wrong("enforce.auth.schemes", &self.enforce_auth_schemes.join(","), wanted)
            }
            None => Ok(()),
        }
    }

    fn has_scheme(&self, scheme: &str) -> bool {
        match scheme {
            "digest" => self.digest_auth.is_some(),
            "ip" => true,
            "sasl" => self.sasl.provider,
            "x509" => self.tls.proves(),
            "ensemble" => self.ensemble_auth,
            "key" => self.key_auth,
            _ => false,
        }
    }

    /// What works, and should be known to whoever starts the server.
    fn tell_dangers(&mut self) {
        let place = |key: &str| self.places.get(key).cloned().unwrap_or_default();
        let mut told = Vec::new();
        if self.skip_acl {
            told.push((place("skipACL"), "skipACL=yes: no ACL is checked, every client may do everything"));
        }
        if !self.force_sync {
            told.push((
                place("forceSync"),
                "forceSync=no: nothing is synced, and what is acknowledged can be lost with the machine",
            ));
        }
        if self.require_sasl && self.sasl.accounts.is_none() {
            let text = "sessionRequireClientSASLAuth: nobody can log in, as -Djava.security.auth.login.config names no accounts";
            told.push((place("sessionRequireClientSASLAuth"), text));
        }
        for (place, text) in told {
            self.warn(&place, text.into());
        }
    }

    /// Reads who may log in by SASL.
    fn read_logins(&mut self) -> Result<(), ConfigError> {
        let Some(file) = self.sasl.login_file.clone() else { return Ok(()) };
        let text = read_text(&|file| std::fs::read(file), &file)?;
        let wrong = |(line, what)| ConfigError::Wrong { file, what: format!("line {line}: {what}") };
        self.sasl.take_logins(&text).map_err(wrong)
    }

    fn check(&self) -> Result<(), ConfigError> {
        // First of all: whom a reconfiguration left out may have lost its client port with its line.
        self.check_ensemble()?;
        if self.client_port.is_none() && self.tls.port.is_none() {
            let why = "it is the port that clients connect to";
            return Err(ConfigError::Missing { file: self.file.clone(), key: "clientPort", why });
        }
        if self.min_session_timeout() > self.max_session_timeout() {
            return Err(ConfigError::Value {
                place: self.file.display().to_string(),
                key: "minSessionTimeout".into(),
                value: self.min_session_timeout().to_string(),
                wanted: format!("at most maxSessionTimeout, {}, is needed", self.max_session_timeout()),
            });
        }
        Ok(())
    }

    /// Whether this server is one of several, or is to become one. Java runs a single `server.N` line alone.
    pub fn is_distributed(&self) -> bool {
        let voters = self.ensemble.as_ref().map_or(0, |ensemble| ensemble.voters().count());
        voters > 1 || (voters == 1 && !self.standalone_enabled)
    }

    fn check_ensemble(&self) -> Result<(), ConfigError> {
        let Some(ensemble) = &self.ensemble else { return Ok(()) };
        let wrong = |what: String| Err(ConfigError::Wrong { file: self.file.clone(), what });
        let missing = |key, why| Err(ConfigError::Missing { file: self.file.clone(), key, why });
        let observers = ensemble.members().any(|member| member.role == Role::Observer);
        match ensemble.voters().count() {
            0 if observers => return wrong("observers without a participant can't be served".into()),
            1 if observers && self.standalone_enabled => {
                return wrong(
                    "one participant runs alone, and its observers could never join: standaloneEnabled=false makes it an ensemble of one"
                        .into(),
                );
            }
            _ => {}
        }
        if ensemble.members().any(|member| member.addresses.len() > 1) && !self.multi_address {
            return wrong("a server has several addresses, and multiAddress.enabled is not true".into());
        }
        if !self.is_distributed() {
            return Ok(());
        }
        if self.init_limit == 0 {
            return missing("initLimit", "it says how many ticks a learner has to connect and synchronize");
        }
        if self.sync_limit == 0 {
            return missing("syncLimit", "it says for how many ticks a learner may be silent");
        }
        let myid = self.data_dir.join("myid");
        match self.my_id {
            None => wrong(format!("{} is missing: it says which of the servers this one is", myid.display())),
            Some(id) if ensemble.member(id).is_none() => {
                wrong(format!("{} says {id}, and there is no line server.{id}", myid.display()))
            }
            Some(_) => Ok(()),
        }
    }

    fn warn(&mut self, place: &str, text: String) {
        self.warnings.push(Warning { place: place.into(), text, key: None });
    }

    /// Takes a line of the file. One that Apache does not read may have stood there for years: it has no effect here either.
    fn take_line(&mut self, place: &str, key: &str, value: &str) -> Result<(), ConfigError> {
        const FLAGS: &str = "in SERVER_JVMFLAGS";
        let dead = match keys::find(key) {
            Some(Key { source: Source::Flag, .. }) => format!("the flag -D{key}=… has it ({FLAGS})"),
            Some(known) => {
                self.in_file.insert(key.into());
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
    fn take_flag(&mut self, from: &str, flag: &str, value: &str) -> Result<(), ConfigError> {
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
                return Err(At { place: from, key: flag, value }.wrong(why));
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
        if self.in_file.contains(at.key) { Ok(()) } else { self.take(at, known) }
    }

    /// Takes a key where Apache reads it.
    fn take(&mut self, at: &At<'_>, known: Key) -> Result<(), ConfigError> {
        self.places.insert(at.key.into(), at.place.into());
        if known.name == "admin.enableServer" {
            self.without_admin = at.value.eq_ignore_ascii_case("false");
        }
        let has_no_effect = |why: &str| Warning {
            place: at.place.into(),
            text: format!("{} has no effect: {why}", at.key.escape_debug()),
            key: Some(known.name),
        };
        match known.effect {
            Effect::Works => self.set(at)?,
            Effect::Protects(asks, why) if asks.for_something(at.value) => return Err(at.wrong(why)),
            Effect::ProtectsTls(asks, why) if asks.for_something(at.value) => self.unmet.push(Unmet {
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

    fn set(&mut self, at: &At<'_>) -> Result<(), ConfigError> {
        let At { place, key, value } = *at;
        match key {
            "dataDir" => self.data_dir = at.path()?,
            "dataLogDir" => self.data_log_dir = Some(at.path()?),
            "clientPort" => self.client_port = Some(at.number(0..=65_535)? as u16),
            "clientPortAddress" => self.client_port_address = Some(at.address()),
            "tickTime" => self.tick_time_ms = at.number(1..=i64::from(i32::MAX))? as u64,
            // Below 0 as 0: any number.
            "maxClientCnxns" => self.max_client_cnxns = at.number_or_none(i64::from(i32::MAX))? as usize,
            "maxCnxns" => self.max_cnxns = at.number_or_none(i64::from(i32::MAX))? as usize,
            "clientPortListenBacklog" => self.client_port_listen_backlog = at.number(-1..=65_535)? as i32,
            "minSessionTimeout" => self.min_session_timeout_ms = at.timeout()?,
            "maxSessionTimeout" => self.max_session_timeout_ms = at.timeout()?,
            "autopurge.snapRetainCount" => {
                let count = at.number(0..=i64::from(i32::MAX))? as usize;
                if count < 3 {
                    self.warn(place, format!("{key}={count}: at least 3 snapshots are kept"));
                }
                self.autopurge_snap_retain_count = count.max(3);
            }
            "autopurge.purgeInterval" => {
                self.autopurge_purge_interval_hours = at.number_or_none(1_000_000)?
            }
            "snapCount" => self.snap_count = (at.number(0..=i64::from(i32::MAX))? as u64).max(2),
            "preAllocSize" => self.pre_alloc_size_kb = at.number_or_none(1 << 30)?,
            "snapSizeLimitInKb" => self.snap_size_limit_kb = at.number(i64::MIN..=1 << 40)?,
            "txnLogSizeLimitInKb" => self.txn_log_size_limit_kb = at.number(i64::MIN..=1 << 40)?,
            "globalOutstandingLimit" => {
                // As in Java one request is always taken.
                self.global_outstanding_limit = at.number_or_none(i64::from(i32::MAX))?.max(1) as usize
            }
            "forceSync" => self.force_sync = value != "no",
            "skipACL" => self.skip_acl = value == "yes",
            "datadir.autocreate" => self.datadir_autocreate = at.flag(),
            "extendedTypesEnabled" => self.extended_types = at.flag(),
            "emulate353TTLNodes" => self.emulate_353_ttl = at.flag(),
            "digest.enabled" => self.digest_enabled = at.flag(),
            "enforceQuota" => self.enforce_quota = at.flag(),
            "DigestAuthenticationProvider.enabled" => {
                self.digest_auth = at.flag().then_some(self.digest_algorithm);
            }
            "DigestAuthenticationProvider.superDigest" => self.super_digest = Some(value.into()),
            "DigestAuthenticationProvider.digestAlg" => {
                let wanted = "SHA1, SHA-256, SHA-512 or another of the SHA-2 and SHA3 families is needed";
                self.digest_algorithm = DigestAlgorithm::from_name(value).ok_or_else(|| at.wrong(wanted))?;
                self.digest_auth = self.digest_auth.map(|_| self.digest_algorithm);
            }
            "ensembleAuthName" => {
                self.ensemble_auth_names = value.split(',').map(|name| name.trim().into()).collect()
            }
            "enforce.auth.enabled" => self.enforce_auth = at.flag(),
            "enforce.auth.schemes" => self.enforce_auth_schemes = words(value),
            "sessionRequireClientSASLAuth" => self.require_sasl = at.flag(),
            "java.security.auth.login.config" => self.sasl.login_file = Some(at.path()?),
            "sasl.serverconfig" => self.sasl.section = Some(value.into()),
            "SASLAuthenticationProvider.superPassword" => self.sasl.super_password = Some(value.into()),
            "letAnySaslUserDoX" => self.sasl.any_user = Some(value.into()),
            "allowSaslFailedClients" => self.sasl.keeps_failed = at.flag(),
            "4lw.commands.whitelist" => self.four_letter_words = words(value),
            "jute.maxbuffer" => self.max_buffer = at.number(0..=i64::from(i32::MAX))? as usize,
            "jute.maxbuffer.extrasize" => {
                self.max_buffer_extra = Some(at.number(0..=i64::from(i32::MAX))? as usize)
            }
            "znode.container.checkIntervalMs" => {
                self.container_check_interval_ms = at.number(1..=1 << 40)? as u64
            }
            "znode.container.maxPerMinute" => self.container_max_per_minute = at.number(1..=1 << 40)? as u64,
            "znode.container.maxNeverUsedIntervalMs" => {
                self.container_max_never_used_ms = at.number(0..=1 << 40)?
            }
            "nio.sessionlessCnxnTimeout" => self.sessionless_timeout_ms = at.number(1..=1 << 40)? as u64,
            "reconfigEnabled" => self.reconfig_enabled = at.strict_flag()?,
            "standaloneEnabled" => self.standalone_enabled = at.strict_flag()?,
            "initLimit" => self.init_limit = at.number(1..=i64::from(i32::MAX))? as u64,
            "syncLimit" => self.sync_limit = at.number(1..=i64::from(i32::MAX))? as u64,
            "connectToLearnerMasterLimit" => {
                self.connect_to_learner_master_limit = at.number(0..=i64::from(i32::MAX))? as u64;
            }
            "cnxTimeout" => self.cnx_timeout_ms = at.number(1..=i64::from(i32::MAX))? as u64,
            "quorumListenOnAllIPs" => self.quorum_listen_on_all_ips = at.strict_flag()?,
            "electionPortBindRetry" => {
                self.election_port_bind_retry = at.number(0..=i64::from(i32::MAX))? as u64;
            }
            "leaderServes" => self.leader_serves = value != "no",
            "commitLogCount" => self.commit_log_count = at.number(0..=1 << 30)? as usize,
            "peers.checkAddress" => self.peers_check_address = at.strict_flag()?,
            "emptyServerWaitMs" => self.empty_server_wait_ms = at.number(0..=86_400_000)? as u64,
            "fastleader.minNotificationInterval" => {
                self.min_notification_ms = at.number(1..=i64::from(i32::MAX))? as u64;
            }
            "fastleader.maxNotificationInterval" => {
                self.max_notification_ms = at.number(1..=i64::from(i32::MAX))? as u64;
            }
            "snapshotSizeFactor" => {
                let wrong = |_| at.wrong("a number is needed; a negative one turns it off");
                self.snapshot_size_factor = value.parse().map_err(wrong)?;
            }
            "forceSnapshotSync" => self.force_snapshot_sync = at.flag(),
            "db.autocreate" => self.db_autocreate = at.flag(),
            "tcpKeepAlive" => self.tcp_keep_alive = at.flag(),
            "multiAddress.enabled" => self.multi_address = at.strict_flag()?,
            "learners.allow" => self.learners_allow = Some(at.learners()?),
            "dynamicConfigFile" => self.dynamic_config_file = Some(at.path()?),
            "electionAlg" if value != "3" => return Err(at.wrong("3 is the only one there is")),
            "electionAlg" => {}
            "readonlymode.enabled" => self.read_only_mode = at.flag(),
            "peerType" => self.peer_type = Some(at.role()?),
            _ if ["server.", "group.", "weight."].iter().any(|start| key.starts_with(start)) => {
                let wrong = |source| ConfigError::Ensemble { place: place.into(), source };
                self.servers.take(key, value).map_err(wrong)?;
            }
            _ if key == "superUser" || key.starts_with("superUser.") => {
                self.sasl.super_users.push(value.into());
            }
            _ if key.starts_with("authProvider.") => self.take_auth_provider(place, value.trim()),
            _ => {
                let is_taken = self.tls.set(at)?;
                assert!(is_taken, "{key} works by the table of keys, and is not read");
            }
        }
        Ok(())
    }

    /// Java loads any class that is named here.
    fn take_auth_provider(&mut self, place: &str, class: &str) {
        match class.strip_prefix("org.apache.zookeeper.server.auth.") {
            Some("EnsembleAuthenticationProvider") => self.ensemble_auth = true,
            Some("SASLAuthenticationProvider") => self.sasl.provider = true,
            Some("KeyAuthenticationProvider") => self.key_auth = true,
            Some("X509AuthenticationProvider") => self.tls.provider = true,
            // Always there.
            Some("IPAuthenticationProvider" | "DigestAuthenticationProvider") => {}
            _ => self.warn(place, format!("{class} is not loaded: its scheme proves nothing here")),
        }
    }

    /// What the scheme `ensemble` compares with, none standing for any; `None`: the scheme is off.
    pub fn ensemble_names(&self) -> Option<Vec<String>> {
        self.ensemble_auth.then(|| self.ensemble_auth_names.clone())
    }

    pub fn min_session_timeout(&self) -> i32 {
        self.min_session_timeout_ms.unwrap_or((self.tick_time_ms * 2).min(i32::MAX as u64) as i32)
    }

    pub fn max_session_timeout(&self) -> i32 {
        self.max_session_timeout_ms.unwrap_or((self.tick_time_ms * 20).min(i32::MAX as u64) as i32)
    }

    pub fn log_dir(&self) -> &Path {
        self.data_log_dir.as_deref().unwrap_or(&self.data_dir)
    }

    /// Bytes of one record in a log or snapshot that a Java peer with the same settings can read.
    pub fn max_record(&self) -> usize {
        let sum = self.max_buffer + self.max_buffer_extra.unwrap_or(self.max_buffer).max(1024);
        sum.min(i32::MAX as usize)
    }

    /// The schemes of which a client must have proved one; empty: it need not. As in Java `sessionRequireClientSASLAuth`
    /// takes the place of a list.
    pub fn enforced_schemes(&self) -> Vec<String> {
        if self.require_sasl {
            return vec!["sasl".into()];
        }
        if self.enforce_auth { self.enforce_auth_schemes.clone() } else { Vec::new() }
    }

    /// `srvr` always, for scripts ask it; `isro` where clients look for a server that writes.
    pub fn word_is_allowed(&self, word: &str) -> bool {
        word == "srvr"
            || (word == "isro" && self.read_only_mode)
            || self.four_letter_words.iter().any(|allowed| allowed == "*" || allowed == word)
    }

    /// The text of the word `conf`.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |key: &str, value: String| {
            let _ = writeln!(out, "{key}={value}");
        };
        let version = |dir: &Path| dir.join("version-2").display().to_string();
        line("clientPort", self.client_port.map_or(-1, i32::from).to_string());
        line("secureClientPort", self.tls.port.map_or(-1, i32::from).to_string());
        line("dataDir", version(&self.data_dir));
        line("dataLogDir", version(self.log_dir()));
        line("tickTime", self.tick_time_ms.to_string());
        line("maxClientCnxns", self.max_client_cnxns.to_string());
        line("minSessionTimeout", self.min_session_timeout().to_string());
        line("maxSessionTimeout", self.max_session_timeout().to_string());
        line("clientPortListenBacklog", self.client_port_listen_backlog.to_string());
        line("serverId", self.my_id.map_or(0, |id| id.0).to_string());
        if let (true, Some(ensemble), Some(id)) = (self.is_distributed(), &self.ensemble, self.my_id) {
            line("initLimit", self.init_limit.to_string());
            line("syncLimit", self.sync_limit.to_string());
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

/// Reads a file as a whole.
pub type ReadFile<'a> = dyn Fn(&Path) -> std::io::Result<Vec<u8>> + 'a;

fn read_text(read: &ReadFile<'_>, file: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { file: file.to_path_buf(), source };
    let bytes = read(file).map_err(unreadable)?;
    // Editors of Windows put a mark before the text. Java takes it for a part of the first key.
    let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
    Ok(String::from_utf8_lossy(text).into_owned())
}

fn read_if_there(read: &ReadFile<'_>, file: &Path) -> Result<Option<String>, ConfigError> {
    match read_text(read, file) {
        Err(ConfigError::Unreadable { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(None)
        }
        other => other.map(Some),
    }
}
