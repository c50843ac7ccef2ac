//! What each part of a server needs of the configuration.

use super::Tuning;
use crate::client_port::{Facts, PortLimits};
use crate::config::{Config, LearnersAllow, Provider};
use crate::conversation::{Limits, Logins};
use crate::core::{Descriptors, Files, LogPace, Opening, RollRules, Setup, SnapshotForm};
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
/// However many reactors share what is admitted, each may have this many bytes under way: a single client should be fast.
const LEAST_OF_REACTOR: usize = 1 << 20;

pub(super) fn owners(config: &Config) -> OwnerRules {
    OwnerRules { extended_types: config.znodes.extended_types, emulate_353: config.znodes.emulate_353_ttl }
}

pub(super) fn opening(config: &Config, tuning: &Tuning) -> Opening {
    Opening {
        distributed: config.quorum.is_distributed(),
        owners: owners(config),
        history_bytes: if config.quorum.is_distributed() { tuning.history_bytes } else { 0 },
        autocreate: config.storage.creates_data,
        checks_digests: config.znodes.txn_digests,
    }
}

pub(super) fn snapshots(config: &Config) -> SnapshotForm {
    SnapshotForm { packing: config.storage.packing, last_zxid: config.storage.last_zxid }
}

pub(super) fn log_pace(config: &Config) -> LogPace {
    let storage = &config.storage;
    LogPace {
        delay: Duration::from_millis(storage.flush_delay_ms),
        pause: Duration::from_millis(storage.poll_ms.unwrap_or(storage.flush_delay_ms / 3)),
        most: storage.max_batch,
        slow: Duration::from_millis(storage.slow_sync_ms),
    }
}

fn me(config: &Config) -> ServerId {
    config.quorum.my_id.filter(|_| config.quorum.is_distributed()).unwrap_or(ALONE)
}

pub(super) fn replica(config: &Config, tuning: &Tuning) -> Settings {
    let Config { sessions, limits, znodes, quorum, auth, sasl, tls, .. } = config;
    let me = me(config);
    let member = quorum.ensemble.as_ref().and_then(|ensemble| ensemble.member(me));
    let addresses = member.map(|member| &member.addresses[..]).unwrap_or_default();
    Settings {
        server: me,
        tick_ms: sessions.tick_ms,
        min_session_timeout_ms: sessions.min_timeout_ms(),
        max_session_timeout_ms: sessions.max_timeout_ms(),
        container_check_ms: znodes.container_check_ms,
        container_max_per_minute: znodes.container_max_per_minute,
        container_max_never_used_ms: znodes.container_max_never_used_ms,
        leader_serves: quorum.leader_serves,
        read_only_mode: quorum.read_only_mode,
        standalone_enabled: quorum.standalone_enabled,
        rules: Rules {
            extended_types: znodes.extended_types,
            skip_acl: auth.skip_acl,
            enforce_quota: znodes.enforce_quota,
            reconfig: quorum.reconfig,
            digest_auth: auth.digest(),
            sasl: auth.has(Provider::Sasl).then(|| SaslScheme { any_user: sasl.any_user.clone() }),
            x509: config.proves_by_certificate().then(|| X509Scheme { super_user: tls.super_user.clone() }),
            key_auth: auth.has(Provider::Key),
            ensemble_names: auth.ensemble_names(),
            super_digest: auth.super_digest.as_ref().map(|id| id.as_bytes().to_vec()),
            txn_digests: znodes.txn_digests,
            unlisted_close: !config.storage.lists_closed,
            max_txn_bytes: limits.max_record(),
        },
        zab: zab(config, me, tuning),
        pace: Pace {
            min_interval_ms: quorum.min_notification_ms,
            max_interval_ms: quorum.max_notification_ms.max(quorum.min_notification_ms),
            finalize_ms: tuning.finalize_ms,
            empty_wait_ms: quorum.empty_server_wait_ms,
        },
        election_addresses: addresses
            .iter()
            .map(|address| (address.host.clone(), address.election_port))
            .collect(),
        handshake_ms: quorum.sync_limit.max(1) * sessions.tick_ms,
    }
}

fn zab(config: &Config, me: ServerId, tuning: &Tuning) -> zab::Settings {
    let quorum = &config.quorum;
    zab::Settings {
        me,
        tick_ms: config.sessions.tick_ms,
        init_limit: quorum.init_limit,
        sync_limit: quorum.sync_limit,
        connect_limit: quorum.connect_limit(),
        reconfig_enabled: quorum.reconfig,
        strangers: match &quorum.learners_allow {
            // A server that a reconfiguration is to add has to follow first.
            None if quorum.reconfig => Strangers::Allowed,
            None => Strangers::Refused,
            Some(LearnersAllow::All) => Strangers::Allowed,
            Some(LearnersAllow::Ids(ids)) => Strangers::Named(ids.iter().copied().collect()),
        },
        force_snapshot_sync: quorum.force_snapshot_sync,
        disk_sync: quorum.snapshot_size_factor >= 0.0,
        history_entries: quorum.commit_log_count,
        history_bytes: tuning.history_bytes,
        history_most: tuning.history_most,
        window_bytes: tuning.window_bytes as u64,
        max_unlogged_bytes: tuning.max_unlogged_bytes,
        epoch_len: tuning.epoch_len,
    }
}

pub(super) fn limits(config: &Config, tuning: &Tuning, reactors: usize) -> Limits {
    Limits {
        max_frame: config.limits.max_buffer,
        outstanding: config.limits.outstanding.saturating_mul(OUTSTANDING_FACTOR),
        admitted_bytes: (tuning.admitted_bytes / reactors.max(1))
            .max(LEAST_OF_REACTOR.min(tuning.admitted_bytes)),
        unlogged_bytes: tuning.max_unlogged_bytes,
        room: tuning.client_room,
        enforced_schemes: config.auth.enforced_schemes(),
    }
}

pub(super) fn port_limits(config: &Config, tuning: &Tuning) -> PortLimits {
    PortLimits {
        per_address: config.ports.per_address,
        connections: config.ports.connections,
        sessionless: Duration::from_millis(config.ports.sessionless_timeout_ms),
        unread: config.limits.unread.unwrap_or(tuning.unread_bytes),
        watched: config.limits.watched.unwrap_or(tuning.watch_bytes),
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
    let (ports, read_only_mode) = (config.ports.clone(), config.quorum.read_only_mode);
    Facts {
        started,
        allowed: Box::new(move |word| ports.allows_word(word, read_only_mode)),
        configuration: config.text(),
        data_dir: dirs.data.clone(),
        log_dir: dirs.log.clone(),
        trace_mask: AtomicI64::new(306),
    }
}

pub(super) fn journal(config: &Config, disk: &Arc<dyn Disk>, dirs: &Dirs) -> Setup {
    let storage = &config.storage;
    let kilobytes = |limit: i64| u64::try_from(limit).unwrap_or(0) << 10;
    Setup {
        disk: disk.clone(),
        dirs: dirs.clone(),
        log: LogOptions { prealloc_bytes: storage.prealloc_kb << 10, force_sync: storage.force_sync },
        roll: RollRules {
            snap_count: storage.snap_count,
            snap_bytes: kilobytes(storage.snap_size_limit_kb),
            segment_bytes: kilobytes(storage.log_size_limit_kb),
        },
        owners: owners(config),
        me: me(config),
        config_file: (config.quorum.is_distributed() && config.quorum.reconfig).then(|| config.file.clone()),
    }
}

pub(super) fn files(
    config: &Config,
    disk: &Arc<dyn Disk>,
    dirs: &Dirs,
    tuning: &Tuning,
    committed: Arc<AtomicI64>,
) -> Files {
    Files {
        disk: disk.clone(),
        dirs: dirs.clone(),
        owners: owners(config),
        size_factor: config.quorum.snapshot_size_factor,
        piece: tuning.feed_piece,
        committed,
        damaged: Arc::default(),
    }
}

pub(super) fn peers(config: &Config, descriptors: &Arc<Descriptors>) -> peer::Settings {
    let (quorum, tick_ms) = (&config.quorum, config.sessions.tick_ms);
    peer::Settings {
        on_all_ips: quorum.listens_on_all_ips,
        bind_retries: quorum.bind_retries,
        connect_timeout: Duration::from_millis(quorum.connect_timeout_ms),
        check_address: quorum.checks_address,
        introduction: Duration::from_millis(
            quorum.connect_timeout_ms.min(quorum.init_limit.max(1) * tick_ms),
        ),
        stall_timeout: Duration::from_millis(quorum.init_limit.max(1) * tick_ms),
        keep_alive: quorum.tcp_keep_alive,
        max_packet: config.limits.max_record().max(1 << 20),
        descriptors: descriptors.clone(),
    }
}
