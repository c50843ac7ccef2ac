//! Files that rot while their server serves: its scrub finds that, and no start needs them any more.

use super::World;
use crate::sim::model::LogFile;

use crate::sim::node::DATA_DIR;
use crate::storage::Disk;
use std::path::{Path, PathBuf};

/// Of a thousand runs, in how many a file rots.
const OFTEN: u64 = 60;
/// A snapshot may be written a znode at a time, each as slowly as the disk writes.
const WRITTEN_MS: u64 = 30_000;
const BACK_MS: u64 = 15_000;
const SETTLE_MS: u64 = 1_000;
/// Where the first record of a log has its body: after the file's header and the record's frame.
const FIRST_BODY: usize = 16 + 12;

impl World {
    pub(super) fn rot(&mut self) -> Result<(), String> {
        let members = self.members();
        if !self.chance.permille(OFTEN) || members.is_empty() {
            return Ok(());
        }
        let index = *self.chance.pick(&members);
        let disk = self.nodes[index].disk.clone();
        let Some((path, at)) = self.place_to_rot(index) else { return Ok(()) };
        disk.flip_at(&path, at);
        self.say(|| format!("{} of server {} rots at {at}", path.display(), index + 1));
        let Some(process) = &self.nodes[index].process else { return Ok(()) };
        let last = process.core.db.read().last_txn;
        if !process.scrub()?.iter().any(|error| error.place().contains(&*path.to_string_lossy())) {
            return Err(format!("scrub: server {} does not find {} damaged", index + 1, path.display()));
        }
        let is_written = |world: &Self| {
            let process = world.nodes[index].process.as_ref();
            process.is_none_or(|process| process.newest_good_snapshot() >= Some(last))
        };
        if !self.comes_to(WRITTEN_MS, is_written)? {
            return Err(format!("scrub: server {} writes no snapshot of {last}", index + 1));
        }
        let kept =
            |world: &Self| world.nodes[index].disk.paths().iter().filter(|at| at.contains("/kept.")).count();
        let before = kept(self);
        self.end(index, false);
        self.boot_after(index, 1000);
        while self.nodes[index].process.is_none() {
            self.step()?;
        }
        // Before its leader has sent it anything.
        if kept(self) > before {
            return Err(format!("scrub: server {} set its files aside, and had a good snapshot", index + 1));
        }
        let serve = |world: &Self| world.all_serve(&world.configuration());
        if !self.comes_to(BACK_MS, serve)? {
            return Err(format!("scrub: not all serve again: {:?}", self.modes()));
        }
        // Clients of who is no member may not know yet that they have lost it.
        let settled = self.now + SETTLE_MS * 1000;
        while self.now < settled {
            self.step()?;
        }
        Ok(())
    }

    /// A bit of a snapshot, or of the first transaction of a log that is not written any more.
    fn place_to_rot(&mut self, index: usize) -> Option<(PathBuf, usize)> {
        let disk = &self.nodes[index].disk;
        let dir = Path::new(DATA_DIR).join("version-2");
        let names: Vec<String> = disk.list(&dir).ok()?.into_iter().map(|(name, _)| name).collect();
        let first = |name: &String| i64::from_str_radix(name.strip_prefix("log.")?, 16).ok();
        let newest = names.iter().filter_map(first).max();
        let mut places = Vec::new();
        for name in names {
            let path = dir.join(&name);
            let bytes = disk.read(&path)?;
            let range = match first(&name) {
                Some(zxid) if Some(zxid) != newest => match LogFile::read(&bytes).records.first() {
                    Some((_, body)) => FIRST_BODY..FIRST_BODY + body.len(),
                    None => continue,
                },
                None if name.starts_with("snapshot.") => 0..bytes.len(),
                Some(_) | None => continue,
            };
            places.push((path, range));
        }
        if places.is_empty() {
            return None;
        }
        let (path, range) = self.chance.pick(&places).clone();
        let at = range.start + self.chance.below(range.len() as u64) as usize;
        Some((path, at))
    }
}
