//! `zabra snapshot compare`: in what two trees differ.

use crate::cli::history::{State, state_of};
use crate::cli::log::show::acl_text;
use crate::cli::outcome::{Found, ToolError};
use crate::model::path;
use crate::tree::{NodeId, Tree};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example: zabra snapshot compare /var/lib/zookeeper /backup/snapshot.100000017
Each line is a znode or a session: - it is in A alone, + in B alone, ~ in both and different.
Exit codes: 0 equal, 1 different or damaged, 2 it could not be done.")]
pub struct CompareArgs {
    /// A snapshot or a directory.
    a: PathBuf,
    /// Another one.
    b: PathBuf,
    /// The directory of A's logs, if it is another one.
    #[arg(long)]
    log_dir_a: Option<PathBuf>,
    /// The directory of B's logs, if it is another one.
    #[arg(long)]
    log_dir_b: Option<PathBuf>,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &CompareArgs, out: &mut impl Write) -> Result<Found, ToolError> {
    let a = state_of(&args.a, args.log_dir_a.as_deref(), None, &mut |_| ())?;
    let b = state_of(&args.b, args.log_dir_b.as_deref(), None, &mut |_| ())?;
    for note in a.notes().into_iter().chain(b.notes()) {
        eprintln!("zabra: {note}");
    }
    let mut compared = Compared { json: args.json, only_a: 0, only_b: 0, different: 0, out };
    compared.znodes(&a.db.tree, &b.db.tree)?;
    compared.sessions(&a, &b)?;
    compared.summary(&a, &b)
}

struct Compared<'a, W> {
    json: bool,
    only_a: u64,
    only_b: u64,
    different: u64,
    out: &'a mut W,
}

impl<W: Write> Compared<'_, W> {
    fn znodes(&mut self, a: &Tree, b: &Tree) -> Result<(), ToolError> {
        for (id, at) in all(a) {
            match b.find(&at) {
                None => {
                    self.only_a += 1;
                    self.line('-', &at, &[])?;
                }
                Some(other) => {
                    let differences = differences(a, id, b, other);
                    if !differences.is_empty() {
                        self.different += 1;
                        self.line('~', &at, &differences)?;
                    }
                }
            }
        }
        for (_, at) in all(b).filter(|(_, at)| a.find(at).is_none()) {
            self.only_b += 1;
            self.line('+', &at, &[])?;
        }
        Ok(())
    }

    fn sessions(&mut self, a: &State, b: &State) -> Result<(), ToolError> {
        let (a, b) = (&a.db.sessions, &b.db.sessions);
        for (session, timeout) in a {
            let name = format!("session {:#x}", session.0);
            match b.get(session) {
                None => {
                    self.only_a += 1;
                    self.line('-', name.as_bytes(), &[])?;
                }
                Some(other) if other != timeout => {
                    self.different += 1;
                    self.line('~', name.as_bytes(), &[("timeout", timeout.to_string(), other.to_string())])?;
                }
                Some(_) => {}
            }
        }
        for session in b.keys().filter(|session| !a.contains_key(session)) {
            self.only_b += 1;
            self.line('+', format!("session {:#x}", session.0).as_bytes(), &[])?;
        }
        Ok(())
    }

    fn line(
        &mut self,
        mark: char,
        at: &[u8],
        differences: &[(&str, String, String)],
    ) -> Result<(), ToolError> {
        let at = if at.is_empty() { b"/" } else { at };
        if self.json {
            let changed: serde_json::Map<String, Value> =
                differences.iter().map(|(what, a, b)| ((*what).to_owned(), json!([a, b]))).collect();
            let what =
                json!({"mark": mark.to_string(), "path": String::from_utf8_lossy(at), "changed": changed});
            writeln!(self.out, "{what}")?;
            return Ok(());
        }
        let changed: Vec<_> = differences.iter().map(|(what, a, b)| format!(" {what} {a} -> {b}")).collect();
        writeln!(self.out, "{mark} {}{}", path::display(at), changed.join(","))?;
        Ok(())
    }

    fn summary(self, a: &State, b: &State) -> Result<Found, ToolError> {
        let Self { only_a, only_b, different, .. } = self;
        let (a, b) = (a.point(), b.point());
        match self.json {
            true => {
                let all = json!({
                    "a": a.to_string(), "b": b.to_string(), "only_a": only_a, "only_b": only_b, "different": different,
                });
                writeln!(self.out, "{all}")?;
            }
            false => writeln!(
                self.out,
                "A at {a}, B at {b}: {only_a} only in A, {only_b} only in B, {different} different"
            )?,
        }
        Ok(Found::fault_if(only_a + only_b + different > 0))
    }
}

/// All znodes with their paths, parents first. The root's path is the empty one.
fn all(tree: &Tree) -> impl Iterator<Item = (NodeId, Vec<u8>)> {
    let root = tree.find(b"/").expect("every tree has a root");
    let ids = std::iter::successors(Some(root), move |id| tree.next_below(root, *id));
    ids.map(|id| (id, tree.path(id)))
}

/// What differs, as it is in A and in B.
fn differences(a: &Tree, id: NodeId, b: &Tree, other: NodeId) -> Vec<(&'static str, String, String)> {
    let mut found = Vec::new();
    if a.data(id) != b.data(other) {
        let size = |data: Option<&[u8]>| data.map_or("null".into(), |data| format!("{} bytes", data.len()));
        found.push(("data", size(a.data(id)), size(b.data(other))));
    }
    let (a_stat, b_stat) = (a.stat_persisted(id), b.stat_persisted(other));
    let hex = |number: i64| format!("{number:#x}");
    let fields = [
        ("version", a_stat.version.to_string(), b_stat.version.to_string()),
        ("cversion", a_stat.cversion.to_string(), b_stat.cversion.to_string()),
        ("aversion", a_stat.aversion.to_string(), b_stat.aversion.to_string()),
        ("czxid", hex(a_stat.czxid), hex(b_stat.czxid)),
        ("mzxid", hex(a_stat.mzxid), hex(b_stat.mzxid)),
        ("pzxid", hex(a_stat.pzxid), hex(b_stat.pzxid)),
        ("ctime", a_stat.ctime.to_string(), b_stat.ctime.to_string()),
        ("mtime", a_stat.mtime.to_string(), b_stat.mtime.to_string()),
        ("owner", hex(a_stat.ephemeral_owner), hex(b_stat.ephemeral_owner)),
    ];
    found.extend(fields.into_iter().filter(|(_, a, b)| a != b));
    let (a_acl, b_acl) = (acl_text(a.acl(id)), acl_text(b.acl(other)));
    if a_acl != b_acl {
        found.push(("acl", a_acl, b_acl));
    }
    found
}
