//! How much memory this process may have: what the machine has, or less where a control group says so.

use super::Tuning;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Bytes, and who allows no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// `u64::MAX` where nothing is known.
    pub bytes: u64,
    pub by: Bound,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    Machine,
    /// The file that has the limit.
    Group(PathBuf),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine => write!(f, "the machine has no more"),
            Self::Group(file) => write!(f, "its control group sets that limit: {}", file.display()),
        }
    }
}

/// Reads a whole file.
pub type Read<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

impl Memory {
    /// Less than what lets a server have its usual budgets.
    pub fn is_scarce(&self) -> bool {
        Tuning::for_memory(self.bytes).window_bytes < Tuning::default().window_bytes
    }

    /// Of this process: its own group counts, and all groups around that.
    pub fn of_this_process(read: Read<'_>) -> Self {
        let text = |file: &Path| read(file).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let proc = |name: &str| text(Path::new(name)).unwrap_or_default();
        let machine = total(&proc("/proc/meminfo")).unwrap_or(u64::MAX);
        let files = limit_files(&proc("/proc/self/cgroup"), &proc("/proc/self/mountinfo"));
        // Without a limit the file has `max`, or a number beyond every machine's memory.
        let limits = files.into_iter().filter_map(|file| Some((text(&file)?.trim().parse().ok()?, file)));
        match limits.min_by_key(|(bytes, _)| *bytes) {
            Some((bytes, file)) if bytes < machine => Self { bytes, by: Bound::Group(file) },
            _ => Self { bytes: machine, by: Bound::Machine },
        }
    }
}

/// Bytes of the machine, as `/proc/meminfo` has them.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The files that may have a limit: of the process's group in each hierarchy that can limit memory, and of those above it.
fn limit_files(cgroup: &str, mountinfo: &str) -> Vec<PathBuf> {
    let mounts = || mountinfo.lines().filter_map(Mount::parse);
    let mut files = Vec::new();
    for line in cgroup.lines() {
        // hierarchy:controllers:path
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let found = match controllers {
            "" => mounts().find(|mount| mount.kind == "cgroup2").map(|mount| (mount, "memory.max")),
            _ if !is_among("memory", controllers) => None,
            _ => mounts()
                .find(|mount| mount.kind == "cgroup" && is_among("memory", mount.options))
                .map(|mount| (mount, "memory.limit_in_bytes")),
        };
        let Some((mount, name)) = found else { continue };
        // A container sees its own group as the root of the mount, or a group outside of it.
        let inside = Path::new(group).strip_prefix(mount.root).unwrap_or(Path::new(""));
        let own = mount.point.join(inside);
        files.extend(
            own.ancestors().take_while(|dir| dir.starts_with(&mount.point)).map(|dir| dir.join(name)),
        );
    }
    files
}

fn is_among(name: &str, list: &str) -> bool {
    list.split(',').any(|other| other == name)
}

/// One line of `/proc/self/mountinfo`.
struct Mount<'a> {
    root: &'a str,
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ').skip(3);
        let (root, point) = (front.next()?, front.next()?.into());
        let mut back = back.split(' ');
        Some(Self { root, point, kind: back.next()?, options: back.nth(1)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:       24683444 kB\nMemFree:        16777216 kB\n";
    const FIRST: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    const SECOND: &str = "25 30 0:23 / /sys rw - sysfs sysfs rw\n\
        34 25 0:29 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";

    fn memory(files: &[(&str, &str)]) -> Memory {
        let read = |file: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == file);
            found
                .map(|(_, text)| text.as_bytes().to_vec())
                .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        };
        Memory::of_this_process(&read)
    }

    fn allowed(cgroup: &str, mountinfo: &str, limits: &[(&str, &str)]) -> (u64, Option<String>) {
        let proc =
            [("/proc/meminfo", MEMINFO), ("/proc/self/cgroup", cgroup), ("/proc/self/mountinfo", mountinfo)];
        let Memory { bytes, by } = memory(&[&proc[..], limits].concat());
        let file = match by {
            Bound::Machine => None,
            Bound::Group(file) => Some(file.display().to_string()),
        };
        (bytes, file)
    }

    const MACHINE: u64 = 24_683_444 << 10;

    #[test]
    fn the_least_limit_of_the_own_group_and_those_above_it_counts() {
        let group = "0::/system.slice/zabra.service\n";
        let own = "/sys/fs/cgroup/system.slice/zabra.service/memory.max";
        let above = "/sys/fs/cgroup/system.slice/memory.max";
        let found = |limits: &[_]| allowed(group, SECOND, limits);
        assert_eq!(found(&[(own, "67108864\n"), (above, "max\n")]), (64 << 20, Some(own.into())));
        assert_eq!(found(&[(own, "67108864\n"), (above, "33554432\n")]), (32 << 20, Some(above.into())));
        assert_eq!(found(&[(own, "max\n"), (above, "max\n")]), (MACHINE, None));
        assert_eq!(found(&[(own, "999999999999999\n")]), (MACHINE, None), "the machine has less");
        assert_eq!(found(&[]), (MACHINE, None), "the root has no file");
    }

    #[test]
    fn the_first_version_has_a_hierarchy_of_its_own_for_memory() {
        let group = "5:cpu,cpuacct:/other\n4:memory:/a/b\n0::/\n";
        let own = "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes";
        let above = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
        let wrong = "/sys/fs/cgroup/cpu,cpuacct/other/memory.limit_in_bytes";
        let none = "9223372036854771712\n";
        let found = |limits: &[_]| allowed(group, FIRST, limits);
        let limits = [(own, "67108864\n"), (above, none), (wrong, "1\n")];
        assert_eq!(found(&limits), (64 << 20, Some(own.into())));
        assert_eq!(found(&[(own, none), (above, none)]), (MACHINE, None));
    }

    #[test]
    fn a_container_finds_its_group_at_the_mount() {
        // The first version names the group as the machine sees it, and mounts just that one.
        let mounts = FIRST.replace("0:32 /", "0:32 /docker/1f");
        let at = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
        assert_eq!(
            allowed("4:memory:/docker/1f\n", &mounts, &[(at, "67108864\n")]),
            (64 << 20, Some(at.into()))
        );
        let inner = "/sys/fs/cgroup/memory/inner/memory.limit_in_bytes";
        assert_eq!(allowed("4:memory:/docker/1f/inner\n", &mounts, &[(inner, "1\n")]).0, 1);
        // The second has a namespace, in which the group is the root, or outside of it.
        let at = "/sys/fs/cgroup/memory.max";
        for group in ["0::/\n", "0::/../other\n"] {
            assert_eq!(allowed(group, SECOND, &[(at, "67108864\n")]).0, 64 << 20, "{group}");
        }
    }

    #[test]
    fn what_can_not_be_read_limits_nothing() {
        assert_eq!(memory(&[]), Memory { bytes: u64::MAX, by: Bound::Machine });
        for text in ["", "MemTotal: much kB\n", "MemTotal:\n", "MemTotal: 99999999999999999999 kB\n"] {
            assert_eq!(memory(&[("/proc/meminfo", text)]).bytes, u64::MAX, "{text}");
        }
        for text in ["\n", "4:memory\n", "::\n", "4:memory:relative\n"] {
            assert_eq!(allowed(text, "no mount\n35 31 0:32 / - \n - \n", &[]), (MACHINE, None), "{text}");
        }
    }
}
