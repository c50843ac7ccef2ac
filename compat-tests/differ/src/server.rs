//! Starts the two servers as processes on free loopback ports, each with a directory of its own.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a server may take until it serves.
const START: Duration = Duration::from_secs(60);
/// There is no event to await across processes but the next try.
pub const BETWEEN_TRIES: Duration = Duration::from_millis(5);

static NEXT_DIR: AtomicU32 = AtomicU32::new(0);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Java,
    Zabra,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Java => "java",
            Self::Zabra => "zabra",
        }
    }
}

/// How both servers are configured.
#[derive(Debug)]
pub struct World {
    pub name: &'static str,
    pub settings: &'static [(&'static str, &'static str)],
    /// `-D` flags, for what no file of Java's can say.
    pub flags: &'static [(&'static str, &'static str)],
    /// Containers and TTL znodes go by themselves.
    pub removals: bool,
    /// The `digest` scheme is on.
    pub digest: bool,
}

/// `super:test`.
const SUPER: (&str, &str) =
    ("DigestAuthenticationProvider.superDigest", "super:D/InIHSb7yEEbrWz8b9l71RjZJU=");
const NEVER: (&str, &str) = ("znode.container.checkIntervalMs", "3600000");

/// What all worlds have: short ticks, so that a session that is to expire does so soon, and long timeouts for the rest.
const COMMON: [(&str, &str); 6] = [
    ("tickTime", "250"),
    ("maxSessionTimeout", "120000"),
    ("maxClientCnxns", "0"),
    ("admin.enableServer", "false"),
    ("forceSync", "no"),
    ("4lw.commands.whitelist", "srvr"),
];

pub const WORLDS: [World; 4] = [
    World {
        name: "full",
        settings: &[("extendedTypesEnabled", "true"), ("enforceQuota", "true"), SUPER],
        flags: &[NEVER],
        removals: false,
        digest: true,
    },
    World {
        name: "plain",
        settings: &[("reconfigEnabled", "true"), SUPER],
        flags: &[NEVER],
        removals: false,
        digest: true,
    },
    World {
        name: "open",
        settings: &[("extendedTypesEnabled", "true"), ("skipACL", "yes"), ("digest.enabled", "false")],
        flags: &[NEVER, ("zookeeper.DigestAuthenticationProvider.enabled", "false")],
        removals: false,
        digest: false,
    },
    World {
        name: "clock",
        settings: &[("extendedTypesEnabled", "true"), SUPER],
        // Longer than a removal takes on a busy machine: the next check would propose it once more.
        flags: &[("znode.container.checkIntervalMs", "500")],
        removals: true,
        digest: true,
    },
];

/// A running server. It is killed, and its directory removed, when this goes.
#[derive(Debug)]
pub struct Server {
    child: Child,
    dir: PathBuf,
    pub kind: Kind,
    pub address: SocketAddr,
}

impl Server {
    /// Starts one, and returns before it serves.
    pub fn spawn(kind: Kind, world: &World) -> io::Result<Server> {
        let number = NEXT_DIR.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("differ-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let address = free_address()?;
        let config = dir.join("zoo.cfg");
        let mut text = format!("dataDir={}\nclientPort={}\n", dir.join("data").display(), address.port());
        for (key, value) in COMMON.iter().chain(world.settings) {
            text.push_str(&format!("{key}={value}\n"));
        }
        std::fs::write(&config, text)?;
        let mut command = match kind {
            Kind::Java => java(&dir, &config, world)?,
            Kind::Zabra => zabra(&config, world),
        };
        let log = std::fs::File::create(dir.join("server.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{:?}: {error}", command.get_program())))?;
        Ok(Server { child, dir, kind, address })
    }

    /// Asks until it is answered. A server that ended is an error at once.
    pub fn wait_until_serving(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!(
                    "{} ended: {status}\n{}",
                    self.kind.name(),
                    self.log()
                )));
            }
            if self.asks_srvr().is_ok_and(|answer| answer.contains("Mode:")) {
                return Ok(());
            }
            std::thread::sleep(BETWEEN_TRIES);
        }
        Err(io::Error::other(format!("{} does not serve\n{}", self.kind.name(), self.log())))
    }

    fn asks_srvr(&self) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"srvr")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of what it wrote.
    pub fn log(&self) -> String {
        let text = std::fs::read(self.dir.join("server.log")).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(4000)..]).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing of it is needed any more. If it has ended already, both calls only say so.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn compat_tests() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it stands in compat-tests")
}

/// A command that dies with this process, however that ends: `Drop` does not see a signal.
fn leashed(program: &OsStr) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

fn zabra(config: &Path, world: &World) -> Command {
    let binary = std::env::var_os("ZABRA_BIN")
        .map_or_else(|| compat_tests().join("../target/release/zabra"), PathBuf::from);
    let flags: Vec<String> = world.flags.iter().map(|(key, value)| format!("-D{key}={value}")).collect();
    let mut command = leashed(binary.as_os_str());
    command.arg("serve").arg(config).env("SERVER_JVMFLAGS", flags.join(" ")).env("ZABRA_LOG", "warn");
    command
}

fn java(dir: &Path, config: &Path, world: &World) -> io::Result<Command> {
    let logback = dir.join("logback.xml");
    std::fs::write(&logback, "<configuration><root level=\"OFF\"/></configuration>\n")?;
    let mut command = leashed(OsStr::new("java"));
    command.args(["-Xmx1g", "-XX:+UseSerialGC"]);
    command.arg(format!("-Dlogback.configurationFile={}", logback.display()));
    command.args(world.flags.iter().map(|(key, value)| format!("-D{key}={value}")));
    command.arg("-cp").arg(compat_tests().join("java/target/lib/*"));
    command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(config);
    Ok(command)
}
