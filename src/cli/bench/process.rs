//! CPU time and memory of processes, from `/proc`.

use std::fs;

/// One or several, measured together.
pub(super) struct Processes {
    pids: Vec<u32>,
}

impl Processes {
    pub fn new(pids: Vec<u32>) -> Self {
        Self { pids }
    }

    pub fn own() -> Self {
        Self { pids: vec![std::process::id()] }
    }

    /// Seconds of CPU that all their threads used so far.
    pub fn cpu_s(&self) -> f64 {
        self.pids.iter().map(|pid| cpu_s(*pid)).sum()
    }

    pub fn resident_kb(&self) -> u64 {
        self.pids.iter().map(|pid| resident_kb(*pid)).sum()
    }
}

fn cpu_s(pid: u32) -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may hold blanks; it ends with the last ')'.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

fn resident_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The process that listens on a TCP port of this machine.
pub(super) fn listening_on(port: u16) -> Option<u32> {
    const LISTEN: &str = "0A";
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|file| fs::read_to_string(file).unwrap_or_default());
    let inode = tables.iter().flat_map(|table| table.lines()).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = fields.get(1)?.rsplit(':').next()?;
        let wanted = fields.get(3) == Some(&LISTEN) && u16::from_str_radix(local, 16) == Ok(port);
        wanted.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
    })?;
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let fds = fs::read_dir(entry.path().join("fd")).ok()?;
        let holds = fds
            .flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link.as_os_str() == inode.as_str()));
        holds.then_some(pid)
    })
}
