//! What the threads of this process are at, as the system knows it.

use std::fs;
use std::path::Path;

/// A line for each thread: its name, whether it runs or waits, in which call of the system, and the CPU time that it has had.
pub fn lines() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let mut lines: Vec<String> = tasks.filter_map(|task| line(&task.path())).collect();
    lines.sort();
    lines
}

fn line(task: &Path) -> Option<String> {
    let stat = fs::read_to_string(task.join("stat")).ok()?;
    let call = fs::read_to_string(task.join("syscall")).unwrap_or_default();
    describe(&stat, &call)
}

/// `stat` and `syscall` as in proc(5). The name is in brackets, and may hold anything.
fn describe(stat: &str, call: &str) -> Option<String> {
    let (before, after) = stat.rsplit_once(") ")?;
    let (id, name) = before.split_once(" (")?;
    let fields: Vec<&str> = after.split(' ').collect();
    let state = match *fields.first()? {
        "R" => "runs",
        "S" => "waits",
        "D" => "waits for the disk",
        "T" | "t" => "is stopped",
        other => other,
    };
    let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
    // The 14th and the 15th field, in hundredths of a second.
    let cpu_ms = (ticks(11) + ticks(12)) * 10;
    let at = match call.split(' ').next().and_then(|number| number.parse().ok()) {
        Some(number) => format!(" at={}", name_of(number)),
        None => String::new(),
    };
    Some(format!("thread={name:?} id={id} state={state:?}{at} cpu_ms={cpu_ms}"))
}

/// The calls that a server waits in.
fn name_of(number: libc::c_long) -> String {
    let known = [
        (libc::SYS_futex, "futex"),
        (libc::SYS_epoll_pwait, "epoll_wait"),
        (libc::SYS_fsync, "fsync"),
        (libc::SYS_fdatasync, "fdatasync"),
        (libc::SYS_msync, "msync"),
        (libc::SYS_fallocate, "fallocate"),
        (libc::SYS_ftruncate, "ftruncate"),
        (libc::SYS_read, "read"),
        (libc::SYS_pread64, "pread"),
        (libc::SYS_write, "write"),
        (libc::SYS_pwrite64, "pwrite"),
        (libc::SYS_writev, "writev"),
        (libc::SYS_sendto, "send"),
        (libc::SYS_recvfrom, "receive"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_epoll_wait, "epoll_wait"),
    ];
    let found = known.into_iter().find(|(known, _)| *known == number);
    found.map_or_else(|| number.to_string(), |(_, name)| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let stat = "17 (a) S (b) D 1 17 17 0 -1 4194368 100 0 0 0 7 5 0 0 20 0 3 0 99";
        let call = format!("{} 0x5 0x0 0x0 0x0 0x0 0x0 0x7ffc 0x7f00", libc::SYS_fdatasync);
        let line = describe(stat, &call).unwrap();
        assert_eq!(line, r#"thread="a) S (b" id=17 state="waits for the disk" at=fdatasync cpu_ms=120"#);
        assert_eq!(
            describe("1 (core) R 1", "running\n").unwrap(),
            r#"thread="core" id=1 state="runs" cpu_ms=0"#
        );
        assert_eq!(describe("nonsense", ""), None);
    }

    #[test]
    fn every_thread_has_a_line() {
        let (begun, wait) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let run = move || {
            begun.send(()).unwrap();
            let _ = ended.recv();
        };
        let thread = std::thread::Builder::new().name("waits-here".into()).spawn(run).unwrap();
        wait.recv().unwrap();
        assert!(lines().iter().any(|line| line.starts_with(r#"thread="waits-here" id="#)), "{:?}", lines());
        drop(end);
        thread.join().unwrap();
    }
}
