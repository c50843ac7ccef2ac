//! `zabra snapshot FILE`: sessions and znodes, one a line.

use crate::cli::history::{point_of, state_of, visit_file, visit_tree};
use crate::cli::log::filter::is_below;
use crate::cli::log::show::{acl_json, acl_text, data_json, data_text};
use crate::cli::outcome::{Found, ToolError};
use crate::cli::source::snapshot_file;
use crate::jute::records::NodeEntry;
use crate::model::{Zxid, path};
use crate::tree::SnapshotEntry;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::PathBuf;

/// The list that no snapshot writes down: anyone may do anything.
const OPEN: i64 = -1;

#[derive(Debug, clap::Args)]
pub struct DumpArgs {
    /// A snapshot (`snapshot.<zxid>`, also `.gz` and `.snappy`, or a backup) or a directory.
    #[arg(required = true)]
    path: Option<PathBuf>,
    /// The directory of the logs, if it is another one.
    #[arg(long)]
    log_dir: Option<PathBuf>,
    /// Only this znode and what is below it; no sessions.
    #[arg(long)]
    prefix: Option<String>,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
    /// Print data as escaped text, not just its length.
    #[arg(long)]
    data: bool,
}

pub fn run(args: &DumpArgs, out: &mut impl Write) -> Result<Found, ToolError> {
    let path = args.path.as_deref().expect("the command line requires it");
    let open = [crate::tree::open_entry()];
    let acls = HashMap::from([(OPEN, (acl_text(&open), acl_json(&open)))]);
    let mut dump = Dump { args, acls, znodes: 0, sessions: 0, failed: None, out };
    if path.is_dir() {
        let mut state = state_of(path, args.log_dir.as_deref(), None, &mut |_| ())?;
        for note in state.notes() {
            eprintln!("zabra: {note}");
        }
        visit_tree(&mut state.db, &mut |entry| dump.take(entry));
        dump.end(state.point())
    } else {
        let path = snapshot_file(path)?;
        let seal = visit_file(&path, &mut |entry| dump.take(entry))?;
        dump.end(point_of(&path, &seal)?)
    }
}

struct Dump<'a, W> {
    args: &'a DumpArgs,
    /// The lists by their numbers, as they are shown.
    acls: HashMap<i64, (String, Value)>,
    znodes: u64,
    sessions: u64,
    failed: Option<io::Error>,
    out: &'a mut W,
}

impl<W: Write> Dump<'_, W> {
    fn take(&mut self, entry: SnapshotEntry<'_>) {
        if self.failed.is_some() {
            return;
        }
        let done = match entry {
            SnapshotEntry::Session(_) if self.args.prefix.is_some() => Ok(()),
            SnapshotEntry::Session(entry) => {
                self.sessions += 1;
                let (session, timeout) = (entry.session_id, entry.timeout);
                match self.args.json {
                    true => {
                        writeln!(
                            self.out,
                            "{}",
                            json!({"session": format!("{session:#x}"), "timeout": timeout})
                        )
                    }
                    false => writeln!(self.out, "session={session:#x} timeout={timeout}ms"),
                }
            }
            SnapshotEntry::Acl(entry) => {
                self.acls.insert(entry.id, (acl_text(&entry.acl), acl_json(&entry.acl)));
                Ok(())
            }
            SnapshotEntry::Znode(znode) => self.znode(&znode),
        };
        self.failed = done.err();
    }

    fn znode(&mut self, znode: &NodeEntry<&[u8]>) -> io::Result<()> {
        let at: &[u8] = if znode.path.is_empty() { b"/" } else { znode.path };
        if self.args.prefix.as_ref().is_some_and(|top| !is_below(at, top.as_bytes())) {
            return Ok(());
        }
        self.znodes += 1;
        let stat = &znode.stat;
        let data = self.args.data;
        // A Java server's snapshot may lack a list.
        let acl = self.acls.get(&znode.acl_id);
        if self.args.json {
            let znode = json!({
                "path": String::from_utf8_lossy(at), "data": data_json(znode.data, data), "acl": acl.map(|(_, json)| json),
                "czxid": hex(stat.czxid), "mzxid": hex(stat.mzxid), "pzxid": hex(stat.pzxid),
                "ctime": stat.ctime, "mtime": stat.mtime, "version": stat.version, "cversion": stat.cversion,
                "aversion": stat.aversion, "ephemeralOwner": hex(stat.ephemeral_owner),
            });
            return writeln!(self.out, "{znode}");
        }
        let owner = match stat.ephemeral_owner {
            0 => String::new(),
            owner => format!(" owner={owner:#x}"),
        };
        writeln!(
            self.out,
            "{} data={} version={} cversion={} aversion={} czxid={:#x} mzxid={:#x} pzxid={:#x} ctime={} mtime={}{owner} acl={}",
            path::display(at),
            data_text(znode.data, data),
            stat.version,
            stat.cversion,
            stat.aversion,
            stat.czxid,
            stat.mzxid,
            stat.pzxid,
            stat.ctime,
            stat.mtime,
            acl.map_or("unknown", |(text, _)| text),
        )
    }

    fn end(self, zxid: Zxid) -> Result<Found, ToolError> {
        if let Some(error) = self.failed {
            return Err(error.into());
        }
        let (znodes, sessions) = (self.znodes, self.sessions);
        match self.args.json {
            true => writeln!(
                self.out,
                "{}",
                json!({"zxid": zxid.to_string(), "znodes": znodes, "sessions": sessions})
            )?,
            false => writeln!(self.out, "zxid={zxid} znodes={znodes} sessions={sessions}")?,
        }
        Ok(Found::Clean)
    }
}

fn hex(number: i64) -> String {
    format!("{number:#x}")
}
