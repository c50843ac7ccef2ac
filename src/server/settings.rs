//! What each part of a server is told of the configuration.

use super::Tuning;
use crate::client_port::{Facts, PortLimits};
use crate::config::{Config, LearnersAllow};
use crate::conversation::{Limits, Logins};
use crate::core::{Descriptors, Files, Opening, RollRules, Setup};
use crate::election::Pace;
use crate::model::ServerId;
use crate::model::owner::OwnerRules;
use crate::peer;
use crate::replica::{Settings, Strangers};
use crate::request::{Rules, SaslScheme, X509Scheme};
use crate::storage::{Dirs, Disk, LogOptions};
use crate::zab;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

/// Java's standalone server gives its sessions the id 1.
const ALONE: ServerId = ServerId(1);
/// How many requests this server holds where a Java server would hold one: they are short-lived here and cost less.
const OUTSTANDING_FACTOR: usize = 16;

pub(super) fn owners(config: &Config) -> OwnerRules {
    OwnerRules { extended_types: config.extended_types, emulate_353: config.emulate_353_ttl }
}

pub(super) fn opening(config: &Config, tuning: &Tuning) -> Opening {
    Opening {
        distributed: config.is_distributed(),
        owners: owners(config),
        history_bytes: if config.is_distributed() { tuning.history_bytes } else { 0 },
        autocreate: config.db_autocreate,
    }
}

fn me(config: &Config) -> ServerId {
    config.my_id.filter(|_| config.is_distributed()).unwrap_or(ALONE)
}

pub(super) fn replica(config: &Config, tuning: &Tuning) -> Settings {
    let me = me(config);
    let member = config.ensemble.as_ref().and_then(|ensemble| ensemble.member(me));
    let addresses = member.map(|member| &member.addresses[..]).unwrap_or_default();
    Settings {
        server: me,
        tick_ms: config.tick_time_ms,
        min_session_timeout_ms: config.min_session_timeout(),
        max_session_timeout_ms: config.max_session_timeout(),
        container_check_ms: config.container_check_interval_ms,
        container_max_per_minute: config.container_max_per_minute,
        container_max_never_used_ms: config.container_max_never_used_ms,
        leader_serves: config.leader_serves,
        read_only_mode: config.read_only_mode,
        standalone_enabled: config.standalone_enabled,
        rules: Rules {
            extended_types: config.extended_types,
            skip_acl: config.skip_acl,
            enforce_quota: config.enforce_quota,
            reconfig: config.reconfig_enabled,
            digest_auth: config.digest_auth,
            sasl: config.sasl.provider.then(|| SaslScheme { any_user: config.sasl.any_user.clone() }),
            x509: config.tls.proves().then(|| X509Scheme { super_user: config.tls.super_user.clone() }),
            key_auth: config.key_auth,
            ensemble_names: config.ensemble_names(),
            super_digest: config.super_digest.as_ref().map(|id| id.as_bytes().to_vec()),
            txn_digests: config.digest_enabled,
            max_txn_bytes: config.max_record(),
        },
        zab: zab(config, me, tuning),
        pace: Pace {
            min_interval_ms: config.min_notification_ms,
            max_interval_ms: config.max_notification_ms.max(config.min_notification_ms),
            finalize_ms: tuning.finalize_ms,
            empty_wait_ms: config.empty_server_wait_ms,
        },
        election_addresses: addresses
            .iter()
            .map(|address| (address.host.clone(), address.election_port))
            .collect(),
        handshake_ms: config.sync_limit.max(1) * config.tick_time_ms,
    }
}

fn zab(config: &Config, me: ServerId, tuning: &Tuning) -> zab::Settings {
    let connect_limit = match config.connect_to_learner_master_limit {
        0 => config.init_limit,
        limit => limit,
    };
    zab::Settings {
        me,
        tick_ms: config.tick_time_ms,
        init_limit: config.init_limit,
        sync_limit: config.sync_limit,
        connect_limit,
        reconfig_enabled: config.reconfig_enabled,
        strangers: match &config.learners_allow {
            // A server that a reconfiguration is to add has to follow first.
            None if config.reconfig_enabled => Strangers::Allowed,
            None => Strangers::Refused,
            Some(LearnersAllow::All) => Strangers::Allowed,
            Some(LearnersAllow::Ids(ids)) => Strangers::Named(ids.iter().copied().collect()),
        },
        force_snapshot_sync: config.force_snapshot_sync,
        disk_sync: config.snapshot_size_factor >= 0.0,
        history_entries: config.commit_log_count,
        history_bytes: tuning.history_bytes,
        max_catch_up_bytes: tuning.max_queued_bytes / 4,
        max_unlogged_bytes: tuning.max_unlogged_bytes,
    }
}

pub(super) fn limits(config: &Config) -> Limits {
    Limits {
        max_frame: config.max_buffer,
        outstanding: config.global_outstanding_limit.saturating_mul(OUTSTANDING_FACTOR),
        enforced_schemes: config.enforced_schemes(),
    }
}

pub(super) fn port_limits(config: &Config) -> PortLimits {
    PortLimits {
        per_address: config.max_client_cnxns,
        connections: config.max_cnxns,
        sessionless: Duration::from_millis(config.sessionless_timeout_ms),
    }
}

pub(super) fn logins(config: &Config) -> Option<Logins> {
    Some(Logins {
        accounts: config.sasl.accounts.clone()?,
        super_users: config.sasl.super_users.clone(),
        keeps_failed: config.sasl.keeps_failed,
    })
}

pub(super) fn facts(config: &Config, dirs: &Dirs, started: Instant) -> Facts {
    let allowed = config.clone();
    Facts {
        started,
        allowed: Box::new(move |word| allowed.word_is_allowed(word)),
        configuration: config.text(),
        data_dir: dirs.data.clone(),
        log_dir: dirs.log.clone(),
        trace_mask: AtomicI64::new(306),
    }
}

pub(super) fn journal(config: &Config, disk: &Arc<dyn Disk>, dirs: &Dirs) -> Setup {
    let kilobytes = |limit: i64| u64::try_from(limit).unwrap_or(0) << 10;
    Setup {
        disk: disk.clone(),
        dirs: dirs.clone(),
        log: LogOptions { prealloc_bytes: config.pre_alloc_size_kb << 10, force_sync: config.force_sync },
        roll: RollRules {
            snap_count: config.snap_count,
            snap_bytes: kilobytes(config.snap_size_limit_kb),
            segment_bytes: kilobytes(config.txn_log_size_limit_kb),
        },
        owners: owners(config),
        me: me(config),
        config_file: (config.is_distributed() && config.reconfig_enabled).then(|| config.file.clone()),
    }
}

pub(super) fn files(config: &Config, disk: &Arc<dyn Disk>, dirs: &Dirs, tuning: &Tuning) -> Files {
    Files {
        disk: disk.clone(),
        dirs: dirs.clone(),
        owners: owners(config),
        size_factor: config.snapshot_size_factor,
        piece: tuning.feed_piece,
    }
}

pub(super) fn peers(config: &Config, tuning: &Tuning, descriptors: &Arc<Descriptors>) -> peer::Settings {
    peer::Settings {
        on_all_ips: config.quorum_listen_on_all_ips,
        bind_retries: config.election_port_bind_retry,
        connect_timeout: Duration::from_millis(config.cnx_timeout_ms),
        check_address: config.peers_check_address,
        introduction: Duration::from_millis(
            config.cnx_timeout_ms.min(config.init_limit.max(1) * config.tick_time_ms),
        ),
        stall_timeout: Duration::from_millis(config.init_limit.max(1) * config.tick_time_ms),
        keep_alive: config.tcp_keep_alive,
        max_packet: config.max_record().max(1 << 20),
        max_queued: tuning.max_queued_bytes,
        descriptors: descriptors.clone(),
    }
}
