//! The names of `testcontainers` that the client's tests use. A "container" is a process of the server under test; the configuration
//! and the flags that the tests give go to it, and its port is one that is free.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::marker::PhantomData;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

pub mod clients {
    use super::core::{Container, RunnableImage};

    #[derive(Default)]
    pub struct Cli;

    impl Cli {
        pub fn run<I>(&self, image: impl Into<RunnableImage<I>>) -> Container<'_, I> {
            Container::start_new(image.into())
        }
    }
}

pub mod images {
    pub mod generic {
        use crate::core::{Healthcheck, WaitFor};
        use std::collections::HashMap;

        pub struct GenericImage {
            pub(crate) tag: String,
            pub(crate) environment: HashMap<String, String>,
        }

        impl GenericImage {
            pub fn new(_name: &str, tag: &str) -> Self {
                Self { tag: tag.into(), environment: HashMap::new() }
            }

            pub fn with_env_var(mut self, name: &str, value: impl Into<String>) -> Self {
                self.environment.insert(name.into(), value.into());
                self
            }

            pub fn with_healthcheck(self, _check: Healthcheck) -> Self {
                self
            }

            pub fn with_wait_for(self, _what: WaitFor) -> Self {
                self
            }
        }
    }
}

pub mod core {
    use super::*;
    use crate::images::generic::GenericImage;

    pub enum WaitFor {
        Healthcheck,
    }

    /// How to see that a server serves is known here.
    #[derive(Default)]
    pub struct Healthcheck;

    impl Healthcheck {
        pub fn with_cmd<'a>(self, _command: impl Iterator<Item = &'a &'a str>) -> Self {
            self
        }

        pub fn with_interval(self, _interval: Duration) -> Self {
            self
        }

        pub fn with_retries(self, _retries: u32) -> Self {
            self
        }
    }

    pub struct RunnableImage<I> {
        image: GenericImage,
        /// What is seen inside, by where it is outside.
        volumes: HashMap<String, String>,
        is_in_network: bool,
        kind: PhantomData<I>,
    }

    impl From<GenericImage> for RunnableImage<GenericImage> {
        fn from(image: GenericImage) -> Self {
            Self { image, volumes: HashMap::new(), is_in_network: false, kind: PhantomData }
        }
    }

    impl<I> RunnableImage<I> {
        pub fn with_volume(mut self, (outside, inside): (&str, &str)) -> Self {
            self.volumes.insert(inside.into(), outside.into());
            self
        }

        pub fn with_network(mut self, _name: &str) -> Self {
            self.is_in_network = true;
            self
        }
    }

    pub struct LogStream;

    impl LogStream {
        pub fn wait_for_message(&self, _message: &str) -> Result<(), String> {
            Err("a server's log is not read".into())
        }
    }

    pub struct Container<'d, I> {
        directory: PathBuf,
        port: u16,
        flags: Vec<String>,
        process: Mutex<Option<Child>>,
        of: PhantomData<(&'d (), I)>,
    }

    impl<I> Container<'_, I> {
        pub(crate) fn start_new(image: RunnableImage<I>) -> Self {
            assert!(!image.is_in_network, "needs an ensemble");
            assert_eq!(image.image.tag, "3.9.0", "needs an old server");
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            let name = format!("zookeeper-client-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let directory = std::env::temp_dir().join(name);
            fs::create_dir_all(&directory).unwrap();
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let given = image.volumes.get("/conf/zoo.cfg").map(|path| fs::read_to_string(path).unwrap());
            // As the image has it where a test gives none.
            let given = given.unwrap_or_else(|| "tickTime=2000\ninitLimit=5\nsyncLimit=2\nmaxClientCnxns=60\n".into());
            assert!(!given.lines().any(|line| line.starts_with("server.")), "needs an ensemble");
            let ours = ["dataDir=", "clientPort="];
            let mut lines: Vec<_> =
                given.lines().filter(|line| !ours.iter().any(|key| line.starts_with(key))).map(String::from).collect();
            lines.push(format!("dataDir={}", directory.join("data").display()));
            lines.push(format!("clientPort={port}"));
            lines.push("admin.enableServer=false\n".into());
            fs::write(directory.join("zoo.cfg"), lines.join("\n")).unwrap();
            let flags = image.image.environment.get("SERVER_JVMFLAGS").map(String::as_str).unwrap_or_default();
            let flags = flags.split_whitespace().map(String::from).collect();
            let container = Self { directory, port, flags, process: Mutex::new(None), of: PhantomData };
            container.start();
            container
        }

        pub fn start(&self) {
            let log = fs::File::options().create(true).append(true).open(self.directory.join("log")).unwrap();
            let serve = std::env::var_os("SERVE").expect("SERVE starts the server under test");
            let mut command = Command::new(serve);
            command.arg(self.directory.join("zoo.cfg")).args(&self.flags).stdin(Stdio::null());
            let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
            *self.process.lock().unwrap() = Some(child);
            let deadline = Instant::now() + PATIENCE;
            while !self.serves() {
                assert!(Instant::now() < deadline, "the server does not serve: see {}", self.directory.display());
                // There is nothing to await across processes but the next try.
                std::thread::sleep(Duration::from_millis(10));
            }
        }

        fn serves(&self) -> bool {
            let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
            let mut said = String::new();
            // A Java server that is still starting may neither answer nor close.
            stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            stream.write_all(b"srvr").is_ok() && stream.read_to_string(&mut said).is_ok() && said.contains("Mode:")
        }

        pub fn stop(&self) {
            let Some(mut child) = self.process.lock().unwrap().take() else { return };
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let deadline = Instant::now() + PATIENCE;
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }

        pub fn get_host_port(&self, _inside: u16) -> u16 {
            self.port
        }

        pub fn stdout(&self) -> LogStream {
            LogStream
        }
    }

    impl<I> Drop for Container<'_, I> {
        fn drop(&mut self) {
            self.stop();
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}
