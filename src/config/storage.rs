//! Where data is kept, how it is written, and when old files go.

use super::value::{At, INT};
use super::{ConfigError, Remark};
use crate::model::Packing;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone)]
pub struct Storage {
    pub dir: PathBuf,
    log_dir: Option<PathBuf>,
    /// A data directory that does not exist is made.
    pub creates_dir: bool,
    /// A data directory without data counts as a new server's.
    pub creates_data: bool,
    pub force_sync: bool,
    pub prealloc_kb: u64,
    /// Transactions between snapshots.
    pub snap_count: u64,
    /// Below 1: no limit.
    pub snap_size_limit_kb: i64,
    /// Below 1: no limit.
    pub log_size_limit_kb: i64,
    /// How new snapshots are compressed. All are read.
    pub packing: Packing,
    /// What it was meant to be, if that is not known.
    unknown_packing: Option<String>,
    retain_count: usize,
    /// 0: off.
    pub purge_interval_hours: u64,
    /// With a snapshot's digest comes the last zxid (`serializeLastProcessedZxid.enabled`).
    pub last_zxid: bool,
    /// A closeSession lists the ephemerals that go with it (`closeSessionTxn.enabled`).
    pub lists_closed: bool,
    /// Milliseconds for which a write may wait for others to be synced with it (`flushDelay`).
    pub flush_delay_ms: u64,
    /// Milliseconds without another write after which it does not (`maxWriteQueuePollTime`). `None`: a third of that.
    pub poll_ms: Option<u64>,
    /// Transactions of one sync at the most (`maxBatchSize`); 0: no limit.
    pub max_batch: usize,
    /// Milliseconds after which a sync is slow (`fsync.warningthresholdms`).
    pub slow_sync_ms: u64,
    /// Milliseconds from the beginning of one scrub to that of the next (`scrub.intervalMs`; ours). 0: off.
    pub scrub_interval_ms: u64,
    /// Bytes a second that a scrub reads (`scrub.bytesPerSecond`; ours).
    pub scrub_bytes_per_second: u64,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            log_dir: None,
            creates_dir: true,
            creates_data: true,
            force_sync: true,
            prealloc_kb: 65_536,
            snap_count: 100_000,
            snap_size_limit_kb: 4_194_304,
            log_size_limit_kb: -1,
            packing: Packing::Plain,
            unknown_packing: None,
            retain_count: Self::MIN_RETAINED,
            purge_interval_hours: 0,
            last_zxid: true,
            lists_closed: true,
            flush_delay_ms: 0,
            poll_ms: None,
            max_batch: 0,
            slow_sync_ms: 1000,
            scrub_interval_ms: 86_400_000,
            scrub_bytes_per_second: 8 << 20,
        }
    }
}

impl Storage {
    const MIN_RETAINED: usize = 3;

    /// Takes one setting; false: it belongs elsewhere.
    pub(super) fn set(&mut self, at: &At<'_>) -> Result<bool, ConfigError> {
        match at.key {
            "dataDir" => self.dir = at.path()?,
            "dataLogDir" => self.log_dir = Some(at.path()?),
            "datadir.autocreate" => self.creates_dir = at.flag(),
            "db.autocreate" => self.creates_data = at.flag(),
            "forceSync" => self.force_sync = at.value != "no",
            "preAllocSize" => self.prealloc_kb = at.number_or_zero(1 << 30)?,
            "snapCount" => self.snap_count = at.number::<u64>(0..=INT)?.max(2),
            "snapSizeLimitInKb" => self.snap_size_limit_kb = at.number(i64::MIN..=1 << 40)?,
            "txnLogSizeLimitInKb" => self.log_size_limit_kb = at.number(i64::MIN..=1 << 40)?,
            "snapshot.compression.method" => self.set_packing(at.value.trim()),
            "serializeLastProcessedZxid.enabled" => self.last_zxid = at.flag(),
            "closeSessionTxn.enabled" => self.lists_closed = at.flag(),
            "flushDelay" => self.flush_delay_ms = at.number_or_zero(60_000)?,
            "maxWriteQueuePollTime" => self.poll_ms = Some(at.number_or_zero(60_000)?),
            "maxBatchSize" => self.max_batch = at.number_or_zero(INT)?,
            "fsync.warningthresholdms" => self.slow_sync_ms = at.number_or_zero(INT)?,
            "autopurge.snapRetainCount" => self.retain_count = at.number(0..=INT)?,
            "autopurge.purgeInterval" => self.purge_interval_hours = at.number_or_zero(1_000_000)?,
            "scrub.intervalMs" => self.scrub_interval_ms = at.number(0..=1 << 40)?,
            "scrub.bytesPerSecond" => self.scrub_bytes_per_second = at.number(1..=1 << 40)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What Java does not know, it does not use.
    fn set_packing(&mut self, name: &str) {
        let known = Packing::named(name);
        self.packing = known.unwrap_or_default();
        self.unknown_packing = if known.is_none() { Some(name.to_owned()) } else { None };
    }

    pub fn log_dir(&self) -> &Path {
        self.log_dir.as_deref().unwrap_or(&self.dir)
    }

    /// Snapshots that a purge leaves.
    pub fn retained(&self) -> usize {
        self.retain_count.max(Self::MIN_RETAINED)
    }

    /// What works, and should be known to whoever starts the server.
    pub(super) fn remarks(&self) -> Vec<Remark> {
        let mut remarks = Vec::new();
        if !self.force_sync {
            let text =
                "forceSync=no: nothing is synced, and what is acknowledged can be lost with the machine";
            remarks.push(Remark::new("forceSync", text));
        }
        if let Some(name) = &self.unknown_packing {
            let key = "snapshot.compression.method";
            let text = format!("{key}={name} is neither gz nor snappy: snapshots are written uncompressed");
            remarks.push(Remark::new(key, text));
        }
        if self.retain_count < Self::MIN_RETAINED {
            let key = "autopurge.snapRetainCount";
            let text =
                format!("{key}={}: at least {} snapshots are kept", self.retain_count, Self::MIN_RETAINED);
            remarks.push(Remark::new(key, text));
        }
        remarks
    }
}
