//! Kinds of znodes, their quotas and digests, and how containers go.

use super::ConfigError;
use super::value::At;

#[derive(Debug, Clone)]
pub struct Znodes {
    /// There are znodes with a time to live.
    pub extended_types: bool,
    pub emulate_353_ttl: bool,
    /// Transactions and snapshots carry a digest of the tree.
    pub txn_digests: bool,
    pub enforce_quota: bool,
    pub container_check_ms: u64,
    pub container_max_per_minute: u64,
    pub container_max_never_used_ms: i64,
}

impl Default for Znodes {
    fn default() -> Self {
        Self {
            extended_types: false,
            emulate_353_ttl: false,
            txn_digests: true,
            enforce_quota: false,
            container_check_ms: 60_000,
            container_max_per_minute: 10_000,
            container_max_never_used_ms: 0,
        }
    }
}

impl Znodes {
    /// Takes one setting; false: it belongs elsewhere.
    pub(super) fn set(&mut self, at: &At<'_>) -> Result<bool, ConfigError> {
        const MOST: i64 = 1 << 40;
        match at.key {
            "extendedTypesEnabled" => self.extended_types = at.flag(),
            "emulate353TTLNodes" => self.emulate_353_ttl = at.flag(),
            "digest.enabled" => self.txn_digests = at.flag(),
            "enforceQuota" => self.enforce_quota = at.flag(),
            "znode.container.checkIntervalMs" => self.container_check_ms = at.number(1..=MOST)?,
            "znode.container.maxPerMinute" => self.container_max_per_minute = at.number(1..=MOST)?,
            "znode.container.maxNeverUsedIntervalMs" => {
                self.container_max_never_used_ms = at.number(0..=MOST)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}
