//! The four-letter words (`server/command/FourLetterCommands`): text questions on the client port.

use super::{ClientPort, ConnInfo};
use crate::model::Op;
use crate::replica::{Mode, Status};
use crate::tree::Database;
use std::fmt::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What the words tell and no other part of the server knows.
pub struct Facts {
    pub started: Instant,
    pub allowed: Box<dyn Fn(&str) -> bool + Send + Sync>,
    /// The text of `conf`.
    pub configuration: String,
    pub data_dir: PathBuf,
    pub log_dir: PathBuf,
    pub trace_mask: AtomicI64,
}

/// The version that clients and scripts parse: the release whose behaviour is ours.
pub const VERSION: &str =
    concat!("3.9.5-zabra-", env!("CARGO_PKG_VERSION"), ", built on 2026-11-24 00:00 UTC");

/// Bytes of one answer: it is made under the database's lock.
const MAX_ANSWER: usize = 16 << 20;

/// An answer. What would go beyond its bound is left out, and the last line says so.
#[derive(Default)]
struct Text {
    text: String,
    is_cut: bool,
}

impl Text {
    fn push_str(&mut self, more: &str) {
        self.is_cut |= self.text.len() + more.len() > MAX_ANSWER;
        if !self.is_cut {
            self.text.push_str(more);
        }
    }

    fn finish(mut self) -> String {
        if self.is_cut {
            let _ = writeln!(self.text, "\nThe rest is left out: an answer has {MAX_ANSWER} bytes at most");
        }
        self.text
    }
}

impl Write for Text {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        self.push_str(more);
        // Who writes a list ends it here.
        if self.is_cut { Err(fmt::Error) } else { Ok(()) }
    }
}

/// `None`: more bytes are needed.
pub(super) fn answer(word: &[u8; 4], behind: &[u8], port: &ClientPort, db: &Database) -> Option<String> {
    let Ok(word) = std::str::from_utf8(word) else { return Some(String::new()) };
    if !(port.facts.allowed)(word) {
        return Some(format!("{word} is not executed because it is not in the whitelist.\n"));
    }
    let mut out = Text::default();
    let (mode, is_serving) = port.core.with_status(|status| (status.mode, status.serves_clients));
    match word {
        "ruok" => out.push_str("imok"),
        "isro" => out.push_str(match mode {
            _ if !is_serving => "null",
            Mode::ReadOnly => "ro",
            _ => "rw",
        }),
        "srvr" | "stat" | "mntr" | "cons" | "crst" | "srst" | "dirs" | "dump" | "wchs" | "wchc" | "wchp"
        | "hash"
            if !is_serving =>
        {
            out.push_str("This ZooKeeper instance is not currently serving requests\n");
        }
        "srvr" => server(port, db, false, &mut out),
        "stat" => server(port, db, true, &mut out),
        "mntr" => monitor(port, db, &mut out),
        "conf" => out.push_str(&port.facts.configuration),
        "cons" => {
            port.each_connection(|_, info| connection(info, true, &mut out));
            out.push_str("\n");
        }
        "crst" => {
            port.each_connection(|_, info| info.reset());
            out.push_str("Connection stats reset.\n");
        }
        "srst" => {
            port.core.figures.reset_traffic();
            out.push_str("Server stats reset.\n");
        }
        "dirs" => {
            let size = |dir: &PathBuf, prefix: &str| -> u64 {
                let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
                let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
                ours.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
            };
            let (data, log) = (size(&port.facts.data_dir, "snapshot."), size(&port.facts.log_dir, "log."));
            let _ = writeln!(out, "datadir_size: {data}\nlogdir_size: {log}");
        }
        "dump" => dump(port, db, &mut out),
        "envi" => environment(&mut out),
        "gtmk" => out.push_str(&port.facts.trace_mask.load(Ordering::Relaxed).to_string()),
        "stmk" => {
            let mask = i64::from_be_bytes(*behind.first_chunk()?);
            port.facts.trace_mask.store(mask, Ordering::Relaxed);
            out.push_str(&mask.to_string());
        }
        "wchs" => {
            let watches = db.watches.lock();
            let (connections, paths, total) = (watches.connections(), watches.paths(), watches.count());
            let _ = writeln!(out, "{connections} connections watching {paths} paths\nTotal watches:{total}");
        }
        "wchc" => {
            for (conn, paths) in db.watches.lock().by_connection() {
                let _ = writeln!(out, "{}", port.session_of(conn));
                if list(&mut out, paths).is_err() {
                    break;
                }
            }
            out.push_str("\n");
        }
        "wchp" => {
            for (path, conns) in db.watches.lock().by_path() {
                let _ = writeln!(out, "{}", crate::model::path::display(path));
                if conns
                    .into_iter()
                    .try_for_each(|conn| writeln!(out, "\t{}", port.session_of(conn)))
                    .is_err()
                {
                    break;
                }
            }
            out.push_str("\n");
        }
        "hash" => {
            let _ = writeln!(out, "{:x}: {}", db.last_zxid.0, db.tree.digest());
        }
        _ => {}
    }
    Some(out.finish())
}

/// Paths, one a line, as long as there is room.
fn list<P: AsRef<[u8]>>(out: &mut Text, paths: impl IntoIterator<Item = P>) -> fmt::Result {
    paths.into_iter().try_for_each(|path| writeln!(out, "\t{}", crate::model::path::display(path.as_ref())))
}

fn server(port: &ClientPort, db: &Database, with_clients: bool, out: &mut Text) {
    let _ = writeln!(out, "Zookeeper version: {VERSION}");
    if with_clients {
        out.push_str("Clients:\n");
        port.each_connection(|_, info| connection(info, false, out));
        out.push_str("\n");
    }
    let traffic = port.core.figures.traffic();
    let avg = (traffic.avg_ms * 10_000.0).round() / 10_000.0;
    let _ = writeln!(out, "Latency min/avg/max: {}/{avg:?}/{}", traffic.min_ms, traffic.max_ms);
    let _ = writeln!(out, "Received: {}", traffic.received);
    let _ = writeln!(out, "Sent: {}", traffic.sent);
    let _ = writeln!(out, "Connections: {}", connections(port));
    let _ = writeln!(out, "Outstanding: {}", port.core.outstanding());
    let _ = writeln!(out, "Zxid: {}", db.last_zxid);
    let status = port.core.status();
    let _ = writeln!(out, "Mode: {}", status.mode.name());
    let _ = writeln!(out, "Node count: {}", db.tree.znode_count());
    if status.mode == Mode::Leader {
        let sizes = port.core.figures.proposal_sizes();
        let _ = writeln!(out, "Proposal sizes last/min/max: {}/{}/{}", sizes.last, sizes.min, sizes.max);
    }
}

fn connections(port: &ClientPort) -> usize {
    let mut count = 0;
    port.each_connection(|_, _| count += 1);
    count
}

fn connection(info: &ConnInfo, full: bool, out: &mut Text) {
    let number = |value: &std::sync::atomic::AtomicU64| value.load(Ordering::Relaxed);
    let (queued, received, sent) = (number(&info.outstanding), number(&info.received), number(&info.sent));
    let session = info.session.load(Ordering::Relaxed);
    let _ = write!(
        out,
        " /{}[{}](queued={queued},recved={received},sent={sent}",
        info.peer,
        u8::from(session != 0)
    );
    if full && session != 0 {
        let since = info.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let op = i32::try_from(info.last_op.load(Ordering::Relaxed)).ok().and_then(Op::from_code);
        let op = op.map_or("NA", short_name);
        let _ = write!(out, ",sid=0x{session:x},lop={op},est={since},to={}", number(&info.timeout_ms));
        let cxid = info.last_cxid.load(Ordering::Relaxed);
        if cxid >= 0 {
            let _ = write!(out, ",lcxid=0x{cxid:x}");
        }
        let latency = &info.latency;
        let _ = write!(
            out,
            ",lzxid=0x{:x},lresp={},llat={},minlat={},avglat={},maxlat={}",
            info.last_zxid.load(Ordering::Relaxed),
            number(&info.last_response),
            number(&latency.last),
            number(&latency.min),
            number(&latency.total) / number(&latency.count).max(1),
            number(&latency.max),
        );
    }
    out.push_str(")\n");
}

/// The abbreviations of `Request.op2String` in the `cons` output.
fn short_name(op: Op) -> &'static str {
    match op {
        Op::Create => "CREA",
        Op::Delete => "DELE",
        Op::Exists => "EXIS",
        Op::GetData => "GETD",
        Op::SetData => "SETD",
        Op::GetAcl => "GETA",
        Op::SetAcl => "SETA",
        Op::GetChildren | Op::GetChildren2 => "GETC",
        Op::Ping => "PING",
        Op::CreateSession => "SESS",
        Op::CloseSession => "CLOS",
        Op::SetWatches => "SETW",
        Op::SetWatches2 => "STW2",
        Op::Sync => "SYNC",
        Op::Multi => "MULT",
        Op::MultiRead => "MLTR",
        _ => op.name(),
    }
}

fn monitor(port: &ClientPort, db: &Database, out: &mut Text) {
    let mut line = |key: &str, value: String| {
        let _ = writeln!(out, "zk_{key}\t{value}");
    };
    let figures = &port.core.figures;
    let traffic = figures.traffic();
    let status = port.core.status();
    line("version", VERSION.into());
    line("server_state", status.mode.name().into());
    line("avg_latency", format!("{:?}", (traffic.avg_ms * 10_000.0).round() / 10_000.0));
    line("max_latency", traffic.max_ms.to_string());
    line("min_latency", traffic.min_ms.to_string());
    line("packets_received", traffic.received.to_string());
    line("packets_sent", traffic.sent.to_string());
    line("num_alive_connections", connections(port).to_string());
    line("outstanding_requests", port.core.outstanding().to_string());
    ensemble_lines(port, &status, &mut line);
    line("uptime", port.facts.started.elapsed().as_millis().to_string());
    line("znode_count", db.tree.znode_count().to_string());
    line("watch_count", db.watches.lock().total().to_string());
    line("ephemerals_count", db.tree.ephemeral_count().to_string());
    line("approximate_data_size", db.tree.approximate_data_size().to_string());
    line("global_sessions", db.sessions.len().to_string());
    let local = port.core.look(|replica| replica.local_sessions());
    line("local_sessions", local.unwrap_or(0).to_string());
    let (open, max) = descriptors();
    line("open_file_descriptor_count", open.to_string());
    line("max_file_descriptor_count", max.to_string());
    line("connection_drop_probability", "0.0".into());
    line("outstanding_tls_handshake", "0".into());
    line("auth_failed_count", figures.auth_failures().to_string());
    line("non_mtls_remote_conn_count", "0".into());
    line("non_mtls_local_conn_count", "0".into());
    let mut lines = String::new();
    figures.lines(&mut lines);
    port.core.account.lines(&mut lines);
    let _ = writeln!(lines, "zk_zabra_watches_bytes\t{}", db.watches.lock().bytes());
    out.push_str(&lines);
}

/// What a member of an ensemble tells beside the rest, under Java's names.
fn ensemble_lines(port: &ClientPort, status: &Status, line: &mut impl FnMut(&str, String)) {
    if status.mode == Mode::Standalone {
        return;
    }
    line("peer_state", status.standing.peer_state());
    line("quorum_size", status.quorum_size.to_string());
    line("current_epoch", status.epoch.to_string());
    if status.mode != Mode::Leader {
        if let Some(leader) = status.leader {
            line("leader_id", leader.to_string());
        }
        return;
    }
    let sizes = port.core.figures.proposal_sizes();
    let since = status.leading_since.unwrap_or(0);
    let standing = &status.standing;
    line("learners", standing.learners.to_string());
    line("synced_followers", standing.synced_followers.to_string());
    line("synced_non_voting_followers", standing.synced_non_voters.to_string());
    line("synced_observers", standing.synced_observers.to_string());
    line("pending_syncs", standing.pending_syncs.to_string());
    line("leader_uptime", port.core.now().mono_ms.saturating_sub(since).to_string());
    line("last_proposal_size", sizes.last.to_string());
    line("max_proposal_size", sizes.max.to_string());
    line("min_proposal_size", sizes.min.to_string());
}

/// Open descriptors of this process, and how many it may have.
fn descriptors() -> (usize, u64) {
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1));
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let max = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok());
    (open, max.unwrap_or(0))
}

fn dump(port: &ClientPort, db: &Database, out: &mut Text) {
    out.push_str("SessionTracker dump:\n");
    let looked = port.core.look(|replica| {
        // A learner leaves expiry to its leader.
        let sessions = replica.sessions()?;
        let buckets: Vec<_> = sessions.buckets().collect();
        let _ = writeln!(out, "Session Sets ({})/({}):", buckets.len(), sessions.len());
        for (at, sessions) in buckets {
            let _ = writeln!(out, "{} expire at {at}:", sessions.len());
            for session in sessions {
                let _ = writeln!(out, "\t{session}");
            }
        }
        Some(())
    });
    if looked.flatten().is_none() {
        // A learner, or the core is at work: without the times of expiry.
        let _ = writeln!(out, "Global Sessions({}):", db.sessions.len());
        for (session, timeout) in &db.sessions {
            let _ = writeln!(out, "{session}\t{timeout}ms");
        }
    }
    out.push_str("ephemeral nodes dump:\n");
    let owners: Vec<_> = db.tree.sessions_with_ephemerals().collect();
    let _ = writeln!(out, "Sessions with Ephemerals ({}):", owners.len());
    for owner in owners {
        let _ = writeln!(out, "{owner}:");
        if list(out, db.tree.ephemerals_of(owner)).is_err() {
            break;
        }
    }
    out.push_str("Connections dump:\n");
    let _ = writeln!(out, "Connections Sets ({})/({}):", 1, connections(port));
    port.each_connection(|_, info| {
        let _ = writeln!(out, "\tip: /{} sessionId: 0x{:x}", info.peer, info.session.load(Ordering::Relaxed));
    });
}

fn environment(out: &mut Text) {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let _ = writeln!(out, "Environment:\nzookeeper.version={VERSION}\nhost.name={}", host.trim());
    let _ = writeln!(
        out,
        "os.name={}\nos.arch={}\nos.version={}",
        std::env::consts::OS,
        std::env::consts::ARCH,
        release.trim()
    );
    // What Java writes for a property that it has not.
    for key in ["version", "vendor", "home", "class.path", "library.path", "io.tmpdir", "compiler"] {
        let _ = writeln!(out, "java.{key}=<NA>");
    }
    let _ = writeln!(out, "time.millis={now}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_at_its_bound_and_says_so() {
        let mut out = Text::default();
        let path = [b'x'; 1 << 10];
        let mut looked = 0;
        let endless = std::iter::repeat_with(|| {
            looked += 1;
            path
        });
        assert!(list(&mut out, endless).is_err());
        assert_eq!(looked, MAX_ANSWER / ((1 << 10) + 2) + 1, "nobody looks any further");
        let text = out.finish();
        assert!(text.len() < MAX_ANSWER + 100 && text.ends_with("16777216 bytes at most\n"));
    }
}
