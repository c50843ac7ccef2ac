//! The ensemble: who belongs to it, how its servers find, elect and follow each other.

use super::value::{At, INT, words};
use super::{ConfigError, Machine, address, dynamic};
use crate::ensemble::{ClientAddress, Ensemble, Lines, Role};
use crate::model::ServerId;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone)]
pub struct Quorum {
    /// In ticks. 0: not set.
    pub init_limit: u64,
    pub sync_limit: u64,
    /// In ticks; 0: `init_limit`.
    connect_limit: u64,
    pub connect_timeout_ms: u64,
    pub listens_on_all_ips: bool,
    /// 0: for ever.
    pub bind_retries: u64,
    pub tcp_keep_alive: bool,
    pub leader_serves: bool,
    pub read_only_mode: bool,
    pub reconfig: bool,
    pub standalone_enabled: bool,
    multi_address: bool,
    pub min_notification_ms: u64,
    pub max_notification_ms: u64,
    /// How long a server without data waits to hear every voter before it helps to elect (`emptyServerWaitMs`; ours).
    pub empty_server_wait_ms: u64,
    /// Whether a member has to connect from an address of its line (`peers.checkAddress`; ours).
    pub checks_address: bool,
    /// Servers in no configuration that may learn all the same; none: those that a reconfiguration may add.
    pub learners_allow: Option<LearnersAllow>,
    /// Transactions that a leader keeps for learners that were away.
    pub commit_log_count: usize,
    /// Of a snapshot's size: how much of the log a learner is sent instead. Below 0: none.
    pub snapshot_size_factor: f64,
    pub force_snapshot_sync: bool,
    peer_type: Option<Role>,
    pub dynamic_file: Option<PathBuf>,
    /// The servers that `zoo.cfg` names itself.
    servers: Lines,
    /// The ensemble's configuration, and one that was proposed later, where there is an ensemble.
    pub ensemble: Option<Ensemble>,
    pub proposed: Option<Ensemble>,
    /// What `myid` says.
    pub my_id: Option<ServerId>,
}

/// `learners.allow`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LearnersAllow {
    All,
    Ids(Vec<ServerId>),
}

impl Default for Quorum {
    fn default() -> Self {
        Self {
            init_limit: 0,
            sync_limit: 0,
            connect_limit: 0,
            connect_timeout_ms: 5000,
            listens_on_all_ips: false,
            bind_retries: 3,
            tcp_keep_alive: false,
            leader_serves: true,
            read_only_mode: false,
            reconfig: false,
            standalone_enabled: true,
            multi_address: false,
            min_notification_ms: 200,
            max_notification_ms: 1000,
            empty_server_wait_ms: 30_000,
            checks_address: true,
            learners_allow: None,
            commit_log_count: 500,
            snapshot_size_factor: 0.33,
            force_snapshot_sync: false,
            peer_type: None,
            dynamic_file: None,
            servers: Lines::default(),
            ensemble: None,
            proposed: None,
            my_id: None,
        }
    }
}

impl Quorum {
    /// Takes one setting; false: it belongs elsewhere.
    pub(super) fn set(&mut self, at: &At<'_>) -> Result<bool, ConfigError> {
        match at.key {
            "initLimit" => self.init_limit = at.number(1..=INT)?,
            "syncLimit" => self.sync_limit = at.number(1..=INT)?,
            "connectToLearnerMasterLimit" => self.connect_limit = at.number(0..=INT)?,
            "cnxTimeout" => self.connect_timeout_ms = at.number(1..=INT)?,
            "quorumListenOnAllIPs" => self.listens_on_all_ips = at.strict_flag()?,
            "electionPortBindRetry" => self.bind_retries = at.number(0..=INT)?,
            "tcpKeepAlive" => self.tcp_keep_alive = at.flag(),
            "leaderServes" => self.leader_serves = at.value != "no",
            "readonlymode.enabled" => self.read_only_mode = at.flag(),
            "reconfigEnabled" => self.reconfig = at.strict_flag()?,
            "standaloneEnabled" => self.standalone_enabled = at.strict_flag()?,
            "multiAddress.enabled" => self.multi_address = at.strict_flag()?,
            "fastleader.minNotificationInterval" => self.min_notification_ms = at.number(1..=INT)?,
            "fastleader.maxNotificationInterval" => self.max_notification_ms = at.number(1..=INT)?,
            "emptyServerWaitMs" => self.empty_server_wait_ms = at.number(0..=86_400_000)?,
            "peers.checkAddress" => self.checks_address = at.strict_flag()?,
            "learners.allow" => self.learners_allow = Some(learners(at)?),
            "commitLogCount" => self.commit_log_count = at.number(0..=1 << 30)?,
            "snapshotSizeFactor" => {
                let wrong = |_| at.expected("a number; a negative one turns it off");
                self.snapshot_size_factor = at.value.parse().map_err(wrong)?;
            }
            "forceSnapshotSync" => self.force_snapshot_sync = at.flag(),
            "electionAlg" if at.value != "3" => return Err(at.expected("3, the only one that exists")),
            "electionAlg" => {}
            "peerType" => self.peer_type = Some(role(at)?),
            "dynamicConfigFile" => self.dynamic_file = Some(at.path()?),
            key if ["server.", "group.", "weight."].iter().any(|start| key.starts_with(start)) => {
                let wrong = |source| ConfigError::Line { place: at.place.into(), source };
                self.servers.take(key, at.value).map_err(wrong)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// In ticks.
    pub fn connect_limit(&self) -> u64 {
        if self.connect_limit == 0 { self.init_limit } else { self.connect_limit }
    }

    /// Whether this server is one of several, or is to become one. Java runs a single `server.N` line alone.
    pub fn is_distributed(&self) -> bool {
        let voters = self.ensemble.as_ref().map_or(0, |ensemble| ensemble.voters().count());
        voters > 1 || (voters == 1 && !self.standalone_enabled)
    }

    /// Puts together what the lines and the dynamic files beside `file` say of the ensemble.
    pub(super) fn read_servers(&mut self, file: &Path, machine: &Machine<'_>) -> Result<(), ConfigError> {
        let file = file.to_path_buf();
        if let Some(dynamic) = self.dynamic_file.clone() {
            if !self.servers.is_empty() {
                return Err(ConfigError::ServersTwice { file, dynamic });
            }
            let text = machine.text(&dynamic)?;
            let wrong = |source| ConfigError::Ensemble { file: dynamic.clone(), source };
            let ensemble = Ensemble::parse(&text).map_err(wrong)?;
            if ensemble.version() != 0 {
                return Err(ConfigError::VersionInFile { file: dynamic });
            }
            let version = dynamic::version_in_name(&dynamic).unwrap_or(0);
            self.ensemble = Some(ensemble.with_version(version));
        }
        let next = dynamic::dynamic_file(&file, None);
        if let Some(text) = machine.text_if_there(&next)? {
            let wrong = |source| ConfigError::Ensemble { file: next, source };
            self.proposed = Some(Ensemble::parse(&text).map_err(wrong)?);
        }
        if self.ensemble.is_none() && !self.servers.is_empty() {
            let wrong = |source| ConfigError::Ensemble { file, source };
            self.ensemble = Some(self.servers.ensemble().map_err(wrong)?);
        }
        Ok(())
    }

    /// Takes what the file `myid` says.
    pub(super) fn take_my_id(&mut self, file: PathBuf, text: &str) -> Result<(), ConfigError> {
        let line = text.lines().next().unwrap_or_default().trim();
        match line.parse::<i64>() {
            // It is the top byte of session ids.
            Ok(id) if (0..=255).contains(&id) => self.my_id = Some(ServerId(id)),
            // A server that is alone has no use for it, and Java takes any number there.
            Ok(_) if self.ensemble.is_none() => {}
            _ => return Err(ConfigError::MyId { file, text: line.into() }),
        }
        Ok(())
    }

    /// The member that this server is: the only one where there is but one.
    fn own_id(&self) -> Option<ServerId> {
        let ensemble = self.ensemble.as_ref()?;
        let mut members = ensemble.members();
        let only = members.next().map(|member| member.id).filter(|_| members.next().is_none());
        self.my_id.or(only)
    }

    /// The client port may be part of the server's own line: `server.1=host:2888:3888;2181`. If it is set in both places,
    /// the two must agree. Returns the address of the line, if there is one.
    pub(super) fn agree_on_client(
        &mut self,
        said: Option<ClientAddress>,
        file: &Path,
        machine: &Machine<'_>,
    ) -> Result<Option<ClientAddress>, ConfigError> {
        let Some(id) = self.own_id() else { return Ok(None) };
        let Some(member) = self.ensemble.as_mut().and_then(|ensemble| ensemble.member_mut(id)) else {
            return Ok(None);
        };
        let Some(own) = member.client.clone() else {
            member.client_is_static = said.is_some();
            member.client = said;
            return Ok(None);
        };
        if let Some(said) = said {
            // As Java compares them: all addresses of the machine agree with any.
            let agree =
                address::is_any(&said.host) || address::is_same(&said.host, &own.host, machine.resolve);
            if said.port != own.port || !agree {
                return Err(ConfigError::ClientAddresses { file: file.into(), id, said, own });
            }
        }
        Ok(Some(own))
    }

    /// What the own line says against `peerType`. As in Java the line counts.
    pub(super) fn other_role(&self) -> Option<String> {
        let id = self.own_id()?;
        let role = self.ensemble.as_ref()?.member(id)?.role;
        (role != self.peer_type?).then(|| format!("the line of server.{id} says another role, and it counts"))
    }

    /// `my_id_file` is named in messages only.
    pub(super) fn check(&self, file: &Path, my_id_file: PathBuf) -> Result<(), ConfigError> {
        let file = || file.to_path_buf();
        let Some(ensemble) = &self.ensemble else { return Ok(()) };
        let observers = ensemble.members().any(|member| member.role == Role::Observer);
        match ensemble.voters().count() {
            0 if observers => return Err(ConfigError::NoParticipant { file: file() }),
            1 if observers && self.standalone_enabled => {
                return Err(ConfigError::ObserversOfOne { file: file() });
            }
            _ => {}
        }
        if ensemble.members().any(|member| member.addresses.len() > 1) && !self.multi_address {
            return Err(ConfigError::SeveralAddresses { file: file() });
        }
        if !self.is_distributed() {
            return Ok(());
        }
        let missing = |key, why| Err(ConfigError::Missing { file: file(), key, why });
        if self.init_limit == 0 {
            return missing("initLimit", "it says how many ticks a learner has to connect and synchronize");
        }
        if self.sync_limit == 0 {
            return missing("syncLimit", "it says for how many ticks a learner may be silent");
        }
        match self.my_id {
            None => Err(ConfigError::NoMyId { file: my_id_file }),
            Some(id) if ensemble.member(id).is_none() => {
                Err(ConfigError::NotOneOfThem { file: my_id_file, id })
            }
            Some(_) => Ok(()),
        }
    }
}

fn learners(at: &At<'_>) -> Result<LearnersAllow, ConfigError> {
    if at.value == "*" {
        return Ok(LearnersAllow::All);
    }
    let ids = words(at.value).iter().map(|id| id.parse().map(ServerId)).collect::<Result<_, _>>();
    ids.map(LearnersAllow::Ids).map_err(|_| at.expected("server ids with commas between, or *"))
}

fn role(at: &At<'_>) -> Result<Role, ConfigError> {
    match at.value.to_ascii_lowercase().as_str() {
        "participant" => Ok(Role::Participant),
        "observer" => Ok(Role::Observer),
        _ => Err(at.expected("participant or observer")),
    }
}
