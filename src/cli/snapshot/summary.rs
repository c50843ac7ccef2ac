//! `zabra snapshot summary`: znodes and bytes by subtree.

use crate::cli::history::{point_of, state_of, visit_file, visit_tree};
use crate::cli::outcome::{Found, ToolError};
use crate::cli::source::snapshot_file;
use crate::jute::records::NodeEntry;
use crate::model::{Zxid, path};
use crate::tree::SnapshotEntry;
use hashbrown::HashMap;
use serde_json::json;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::Write;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example: zabra snapshot summary /var/lib/zookeeper --depth 2 --top 10
Exit codes: 0 done, 1 damaged, 2 it could not be done.")]
pub struct SummaryArgs {
    /// A snapshot or a directory.
    path: PathBuf,
    /// The directory of the logs, if it is another one.
    #[arg(long)]
    log_dir: Option<PathBuf>,
    /// Names in a subtree's path: 1 sums up /app, 2 /app/config.
    #[arg(long, default_value_t = 1)]
    depth: usize,
    /// How many subtrees, and how many of the largest znodes, are listed.
    #[arg(long, default_value_t = 20)]
    top: usize,
    /// Subtrees with most of this come first.
    #[arg(long, value_enum, default_value_t = By::Bytes)]
    by: By,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum By {
    Bytes,
    Znodes,
}

/// What znodes have together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    znodes: u64,
    /// Of data.
    bytes: u64,
    ephemerals: u64,
}

impl Sum {
    fn add(&mut self, bytes: u64, is_ephemeral: bool) {
        self.znodes += 1;
        self.bytes += bytes;
        self.ephemerals += u64::from(is_ephemeral);
    }
}

struct Summary {
    depth: usize,
    top: usize,
    sessions: u64,
    all: Sum,
    subtrees: HashMap<Box<[u8]>, Sum>,
    /// The smallest of the largest is first to go.
    largest: BinaryHeap<Reverse<(u64, Box<[u8]>)>>,
}

pub fn run(args: &SummaryArgs, out: &mut impl Write) -> Result<Found, ToolError> {
    let mut summary = Summary {
        depth: args.depth,
        top: args.top,
        sessions: 0,
        all: Sum::default(),
        subtrees: HashMap::new(),
        largest: BinaryHeap::new(),
    };
    let zxid = if args.path.is_dir() {
        let mut state = state_of(&args.path, args.log_dir.as_deref(), None, &mut |_| ())?;
        for note in state.notes() {
            eprintln!("zabra: {note}");
        }
        visit_tree(&mut state.db, &mut |entry| summary.take(entry));
        state.point()
    } else {
        let path = snapshot_file(&args.path)?;
        let seal = visit_file(&path, &mut |entry| summary.take(entry))?;
        point_of(&path, &seal)?
    };
    summary.print(args, zxid, out)
}

impl Summary {
    fn take(&mut self, entry: SnapshotEntry<'_>) {
        match entry {
            SnapshotEntry::Session(_) => self.sessions += 1,
            SnapshotEntry::Acl(_) => {}
            SnapshotEntry::Znode(znode) => self.znode(&znode),
        }
    }

    fn znode(&mut self, znode: &NodeEntry<&[u8]>) {
        let bytes = znode.data.map_or(0, |data| data.len() as u64);
        let is_ephemeral = znode.stat.ephemeral_owner > 0;
        self.all.add(bytes, is_ephemeral);
        let top = top_of(znode.path, self.depth);
        self.subtrees.entry_ref(top).or_default().add(bytes, is_ephemeral);
        let is_large = self.largest.len() < self.top
            || self.largest.peek().is_some_and(|Reverse((least, _))| bytes > *least);
        if is_large && bytes > 0 {
            self.largest.push(Reverse((bytes, znode.path.into())));
            if self.largest.len() > self.top {
                self.largest.pop();
            }
        }
    }

    fn print(self, args: &SummaryArgs, zxid: Zxid, out: &mut impl Write) -> Result<Found, ToolError> {
        let mut subtrees: Vec<_> = self.subtrees.into_iter().collect();
        subtrees.sort_unstable_by(|(a_path, a), (b_path, b)| {
            let key = |sum: &Sum| match args.by {
                By::Bytes => (sum.bytes, sum.znodes),
                By::Znodes => (sum.znodes, sum.bytes),
            };
            key(b).cmp(&key(a)).then_with(|| a_path.cmp(b_path))
        });
        let count = subtrees.len();
        subtrees.truncate(self.top);
        let largest: Vec<_> = self
            .largest
            .into_sorted_vec()
            .into_iter()
            .map(|Reverse((bytes, path))| (bytes, shown(&path)))
            .collect();
        let Sum { znodes, bytes, ephemerals } = self.all;
        if args.json {
            let subtrees: Vec<_> = subtrees.iter().map(|(path, sum)| json!({
                "path": shown(path), "znodes": sum.znodes, "bytes": sum.bytes, "ephemerals": sum.ephemerals,
            })).collect();
            let largest: Vec<_> =
                largest.iter().map(|(bytes, path)| json!({"path": path, "bytes": bytes})).collect();
            let all = json!({
                "zxid": zxid.to_string(), "znodes": znodes, "bytes": bytes, "ephemerals": ephemerals,
                "sessions": self.sessions, "subtree_count": count, "subtrees": subtrees, "largest": largest,
            });
            writeln!(out, "{all}")?;
            return Ok(Found::Clean);
        }
        writeln!(
            out,
            "zxid={zxid} znodes={znodes} bytes={bytes} ephemerals={ephemerals} sessions={}",
            self.sessions
        )?;
        writeln!(
            out,
            "\n{:>12} {:>14} {:>11}  subtree ({} of {count})",
            "znodes",
            "bytes",
            "ephemerals",
            subtrees.len()
        )?;
        for (path, sum) in &subtrees {
            writeln!(out, "{:>12} {:>14} {:>11}  {}", sum.znodes, sum.bytes, sum.ephemerals, shown(path))?;
        }
        writeln!(out, "\n{:>27}  largest znodes", "bytes")?;
        for (bytes, path) in &largest {
            writeln!(out, "{bytes:>27}  {path}")?;
        }
        Ok(Found::Clean)
    }
}

/// The first names of a path. The root, and with a depth of 0 everything, is in the subtree `/`.
fn top_of(path: &[u8], depth: usize) -> &[u8] {
    let mut ends = path.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    match depth.checked_sub(1) {
        None => &[],
        Some(before) => &path[..ends.nth(before).unwrap_or(path.len())],
    }
}

fn shown(path: &[u8]) -> String {
    if path.is_empty() { "/".into() } else { path::display(path) }
}
