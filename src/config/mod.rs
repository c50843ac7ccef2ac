//! The configuration: a stock `zoo.cfg` with its dynamic files and `myid`, and the `-D` flags that Java deployments pass
//! beside it. Nothing here has effects; whoever starts a server reads it and hands it on.

mod dynamic;
mod jaas;
mod sasl;
#[cfg(test)]
mod tests;
mod tls;
mod value;

pub use dynamic::{dynamic_file, dynamic_text, point_to};
pub use sasl::Sasl;
pub use tls::{ClientAuth, Store, StoreFormat, Tls, TlsVersion};

use self::value::{At, words};
use crate::ensemble::{ClientAddress, Ensemble, Lines, Role, properties};
use crate::model::{DigestAlgorithm, ServerId};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", file.display())]
    Unreadable { file: PathBuf, source: std::io::Error },
    #[error("{place}: {key}={value:?}: {wanted}")]
    Value { place: String, key: String, value: String, wanted: String },
    #[error("{}: {key} is missing: {why}", file.display())]
    Missing { file: PathBuf, key: &'static str, why: &'static str },
    #[error("{}: {what}", file.display())]
    Wrong { file: PathBuf, what: String },
}

/// Something in the file that has no effect, or not the one that its writer may expect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub place: String,
    pub text: String,
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
    /// Keys that are known and kept, but that no part of the server reads yet.
    pub kept: BTreeMap<String, String>,
    pub warnings: Vec<Warning>,
    /// What `digest_auth` hashes with where it is on, in whichever order the two are set.
    digest_algorithm: DigestAlgorithm,
    pub read_only_mode: bool,
    /// The keys that the file sets, with their lines.
    lines: BTreeMap<String, usize>,
}

/// `learners.allow`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LearnersAllow {
    All,
    Ids(Vec<ServerId>),
}

/// Keys of a stock file that are accepted and have no effect yet, by their beginnings.
const KEPT: [&str; 27] = [
    "admin.",
    "metricsProvider.",
    "ssl.",
    "sslQuorum",
    "portUnification",
    "serverCnxnFactory",
    "quorum.",
    "audit.",
    "kerberos.",
    "security.",
    "commitProcessor.",
    "nio.",
    "netty.",
    "leader.",
    "learner.",
    "observer",
    "peerType",
    "electionAlg",
    "quorumCnxnTimeoutMs",
    "leaderConnectDelayDuringRetryMs",
    "syncEnabled",
    "localSessions",
    "multiAddress.",
    "fips-mode",
    "oraclePath",
    "watchManagerName",
    "follower.",
];

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
            kept: BTreeMap::new(),
            warnings: Vec::new(),
            lines: BTreeMap::new(),
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
            let ensemble = Ensemble::parse(&read_text(read, &file)?).map_err(|what| wrong(&file, what))?;
            if ensemble.version() != 0 {
                return Err(wrong(&file, "a dynamic file has its version in its name, not in a line".into()));
            }
            let version = dynamic::version_in_name(&file).unwrap_or(0);
            self.ensemble = Some(ensemble.with_version(version));
        }
        let next = dynamic_file(&self.file, None);
        if let Some(text) = read_if_there(read, &next)? {
            self.proposed = Some(Ensemble::parse(&text).map_err(|what| wrong(&next, what))?);
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
        for property in properties::parse(text) {
            let place = format!("{}:{}", file.display(), property.line);
            if let Some(before) = config.lines.insert(property.key.clone(), property.line) {
                config.warn(&place, format!("{} stands in line {before} too; this one counts", property.key));
            }
            config.set(&place, &property.key, &property.value)?;
        }
        if !config.lines.contains_key("dataDir") {
            let why = "it says where snapshots and logs are kept";
            return Err(ConfigError::Missing { file: config.file, key: "dataDir", why });
        }
        Ok(config)
    }

    /// Puts together what several places say, and checks it.
    fn finish(&mut self) -> Result<(), ConfigError> {
        if self.ensemble.is_none() && !self.servers.is_empty() {
            let wrong = |what| ConfigError::Wrong { file: self.file.clone(), what };
            self.ensemble = Some(self.servers.ensemble().map_err(wrong)?);
        }
        self.take_client_port_of_server_line()?;
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
        if let Some(other) = from_file
            && (other.port != own.port || (other.host != "0.0.0.0" && other.host != own.host))
        {
            let what = format!("clientPort says {other}, and the line of server.{id} says {own}");
            return Err(ConfigError::Wrong { file, what });
        }
        self.client_port = Some(own.port);
        self.client_port_address = Some(own.host).filter(|host| host != "0.0.0.0" && host != "::");
        Ok(())
    }

    /// Takes `-Dkey=value` flags as Java deployments pass them (SERVER_JVMFLAGS). What the file sets wins, as in Java;
    /// flags of the JVM itself are not for this server.
    pub fn apply_jvm_flags(&mut self, from: &str, flags: &str) -> Result<(), ConfigError> {
        for flag in flags.split_whitespace() {
            if let Some((key, value)) = flag.strip_prefix("-D").and_then(|flag| flag.split_once('=')) {
                let ours = key.strip_prefix("zookeeper.");
                let bare = ["jute.", "znode.container.", "readonlymode.", "java.security.auth.login.config"]
                    .iter()
                    .any(|known| key.starts_with(known));
                let Some(name) = ours.or(bare.then_some(key)) else { continue };
                if !self.lines.contains_key(name) {
                    self.set(from, name, value)?;
                }
            }
        }
        Ok(())
    }

    /// What can be checked, and read, once the file and the flags have said all.
    pub fn conclude(&mut self) -> Result<(), ConfigError> {
        self.tls.check()?;
        self.read_logins()
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
        if ensemble.voters().next().is_none() && observers {
            return wrong("observers without a participant can't be served".into());
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
        self.warnings.push(Warning { place: place.into(), text });
    }

    fn set(&mut self, place: &str, key: &str, value: &str) -> Result<(), ConfigError> {
        let at = At { place, key, value };
        match key {
            "dataDir" => self.data_dir = at.path()?,
            "dataLogDir" => self.data_log_dir = Some(at.path()?),
            "clientPort" => self.client_port = Some(at.number(0..=65_535)? as u16),
            "clientPortAddress" => self.client_port_address = Some(value.into()),
            "tickTime" => self.tick_time_ms = at.number(1..=i64::from(i32::MAX))? as u64,
            "maxClientCnxns" => self.max_client_cnxns = at.number(0..=i64::from(i32::MAX))? as usize,
            "maxCnxns" => self.max_cnxns = at.number(0..=i64::from(i32::MAX))? as usize,
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
                self.autopurge_purge_interval_hours = at.number(0..=1_000_000)? as u64
            }
            "snapCount" => self.snap_count = (at.number(0..=i64::from(i32::MAX))? as u64).max(2),
            "preAllocSize" => self.pre_alloc_size_kb = at.number(0..=1 << 30)? as u64,
            "snapSizeLimitInKb" => self.snap_size_limit_kb = at.number(i64::MIN..=1 << 40)?,
            "txnLogSizeLimitInKb" => self.txn_log_size_limit_kb = at.number(i64::MIN..=1 << 40)?,
            "globalOutstandingLimit" => {
                self.global_outstanding_limit = at.number(1..=i64::from(i32::MAX))? as usize
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
            "jute.maxbuffer" => self.max_buffer = at.number(1..=i64::from(i32::MAX))? as usize,
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
            "readonlymode.enabled" => self.read_only_mode = at.flag(),
            "closeSessionTxn.enabled"
            | "flushDelay"
            | "maxBatchSize"
            | "fsync.warningthresholdms"
            | "snapshot.trust.empty"
            | "serializeLastProcessedZxid.enabled"
            | "snapshot.compression.method" => {
                self.kept.insert(key.into(), value.into());
            }
            _ if ["server.", "group.", "weight."].iter().any(|start| key.starts_with(start)) => {
                self.servers.take(key, value).map_err(|wanted| at.wrong(&wanted))?;
            }
            _ if key == "superUser" || key.starts_with("superUser.") => {
                self.sasl.super_users.push(value.into());
            }
            _ if self.tls.set(&at)? => {}
            _ if key.starts_with("authProvider.") => self.take_auth_provider(place, value.trim()),
            _ if KEPT.iter().any(|known| key.starts_with(known)) => {
                self.kept.insert(key.into(), value.into());
            }
            _ => match key.strip_prefix("zookeeper.") {
                Some(bare) => {
                    self.warn(place, format!("Java ignores {key} in this file; taken as {bare}"));
                    self.set(place, bare, value)?;
                }
                None => self.warn(place, format!("{key} is not known and has no effect")),
            },
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

    /// The schemes of which a client must have proved one; empty: it need not.
    pub fn enforced_schemes(&self) -> Vec<String> {
        let mut schemes = if self.enforce_auth { self.enforce_auth_schemes.clone() } else { Vec::new() };
        if self.require_sasl {
            schemes.push("sasl".into());
        }
        schemes
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
    Ok(String::from_utf8_lossy(&read(file).map_err(unreadable)?).into_owned())
}

fn read_if_there(read: &ReadFile<'_>, file: &Path) -> Result<Option<String>, ConfigError> {
    match read_text(read, file) {
        Err(ConfigError::Unreadable { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(None)
        }
        other => other.map(Some),
    }
}
