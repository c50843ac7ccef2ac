//! The digest of one znode, version 2 (`server/DigestCalculator`): CRC-32 of path, data and stat.

use crate::jute::records::StatPersisted;

/// Znodes below `/zookeeper/` differ between servers (quota figures, config) and are left out; `/zookeeper` is not.
pub fn is_counted(path: &[u8]) -> bool {
    !path.starts_with(b"/zookeeper/")
}

/// The part of the digest that path and data give. The root's path is the empty one.
pub fn content_crc(path: &[u8], data: Option<&[u8]>) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(path);
    crc.update(data.unwrap_or_default());
    crc.finalize()
}

/// The znode's digest: the stat, in Java's order, on top of `content_crc`.
pub fn node_digest(content_crc: u32, stat: &StatPersisted) -> u32 {
    let mut bytes = [0; 60];
    let longs = [stat.czxid, stat.mzxid, stat.pzxid, stat.ctime, stat.mtime];
    for (chunk, value) in bytes.chunks_exact_mut(8).zip(longs) {
        chunk.copy_from_slice(&value.to_be_bytes());
    }
    bytes[40..44].copy_from_slice(&stat.version.to_be_bytes());
    bytes[44..48].copy_from_slice(&stat.cversion.to_be_bytes());
    bytes[48..52].copy_from_slice(&stat.aversion.to_be_bytes());
    bytes[52..].copy_from_slice(&stat.ephemeral_owner.to_be_bytes());
    let mut crc = crc32fast::Hasher::new_with_initial(content_crc);
    crc.update(&bytes);
    crc.finalize()
}
