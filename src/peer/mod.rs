//! The connections to other servers: byte pumps for the quorum and the election port, on one tokio thread. What the
//! bytes mean is decided by the replica.

mod election;
mod ends;
mod listen;
mod origin;
mod pipe;
mod quorum;
mod socket;
mod strangers;

use crate::core::{Carrier, Core, Descriptors, Files};
use crate::election::LinkOutput;
use crate::ensemble::PeerAddress;
use crate::model::{LinkId, ServerId};
use crate::replica::{LinkAction, Listen, Outputs};
use parking_lot::Mutex;
pub use pipe::FEED_AHEAD;
use pipe::Pipe;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

/// What the connections need to know of the configuration.
#[derive(Clone)]
pub struct Settings {
    /// Listen on all addresses, not on the configured ones alone (`quorumListenOnAllIPs`).
    pub on_all_ips: bool,
    /// How often binding is tried, a second apart; 0: for ever (`electionPortBindRetry`).
    pub bind_retries: u64,
    /// For a dial (`cnxTimeout`).
    pub connect_timeout: Duration,
    /// Members have to come from an address of theirs (`peers.checkAddress`).
    pub check_address: bool,
    /// For somebody who connects to say who it is.
    pub introduction: Duration,
    /// For a learner that takes nothing of what it is fed, or a leader whose snapshot does not go on.
    pub stall_timeout: Duration,
    pub keep_alive: bool,
    /// Bytes of one packet.
    pub max_packet: usize,
    /// What connections may take; clients take of it too.
    pub descriptors: Arc<Descriptors>,
}

/// What the replica asks for that has to do with tasks.
enum Command {
    Election(LinkOutput),
    DialLeader(ServerId, Vec<PeerAddress>),
    Listen(Listen),
}

pub struct Peers {
    settings: Settings,
    files: Files,
    core: OnceLock<Arc<Core>>,
    commands: UnboundedSender<Command>,
    pipes: Mutex<HashMap<LinkId, Arc<Pipe>>>,
    elections: Mutex<election::Writers>,
    strangers: Mutex<strangers::Strangers>,
    origins: origin::Origins,
    next_id: AtomicU64,
    stop: CancellationToken,
    handle: tokio::runtime::Handle,
}

impl Peers {
    fn core(&self) -> &Arc<Core> {
        self.core.get().expect("set before the tasks run")
    }

    /// Whether somebody at this address may be that server.
    async fn may_be(&self, id: ServerId, from: IpAddr) -> bool {
        !self.settings.check_address || self.origins.admits(id, from).await
    }

    fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}

/// The peers' thread; it ends with [`Running::stop`].
pub struct Running {
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl Running {
    pub fn stop(self) {
        self.stop.cancel();
        // A thread that panicked has ended the process already.
        let _ = self.thread.join();
    }
}

/// Binds the election port, and starts to carry for `core`.
pub fn start(
    core: &Arc<Core>,
    settings: Settings,
    files: Files,
    election: &[(String, u16)],
) -> io::Result<Running> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listeners = listen::bind_blocking(election, settings.on_all_ips, settings.bind_retries)?;
    let (commands, inbox) = unbounded_channel();
    let stop = CancellationToken::new();
    let peers = Arc::new(Peers {
        settings,
        files,
        core: OnceLock::new(),
        commands,
        pipes: Mutex::new(HashMap::new()),
        elections: Mutex::default(),
        strangers: Mutex::default(),
        origins: origin::Origins::default(),
        next_id: AtomicU64::new(1),
        stop: stop.clone(),
        handle: runtime.handle().clone(),
    });
    assert!(peers.core.set(core.clone()).is_ok(), "it is new");
    core.set_carrier(peers.clone());
    let run = move || {
        runtime.block_on(direct(peers, inbox, listeners));
        runtime.shutdown_timeout(Duration::from_millis(200));
    };
    let thread = std::thread::Builder::new().name("peers".into()).spawn(run)?;
    Ok(Running { stop, thread })
}

/// Hands commands to the tasks that carry them out.
async fn direct(
    peers: Arc<Peers>,
    mut inbox: UnboundedReceiver<Command>,
    listeners: Vec<std::net::TcpListener>,
) {
    let stop = peers.stop.clone();
    let mut elections = election::Elections::new(peers.clone());
    let mut ports = listen::Ports::new(peers.clone(), listeners);
    loop {
        let command = tokio::select! {
            () = stop.cancelled() => return,
            command = inbox.recv() => command,
        };
        match command {
            None => return,
            Some(Command::Election(output)) => elections.carry(output),
            Some(Command::DialLeader(leader, addresses)) => {
                tokio::spawn(quorum::dial_leader(peers.clone(), leader, addresses));
            }
            Some(Command::Listen(mut listen)) => {
                peers.origins.change(std::mem::take(&mut listen.members));
                ports.change(listen);
            }
        }
    }
}

impl Carrier for Peers {
    fn carry(&self, outputs: &mut Outputs) {
        // A closed channel means that the server stops.
        for output in outputs.election.drain(..) {
            let _ = self.commands.send(Command::Election(output));
        }
        if let Some((leader, addresses)) = outputs.dial.take() {
            let _ = self.commands.send(Command::DialLeader(leader, addresses));
        }
        if let Some(listen) = outputs.listen.take() {
            let _ = self.commands.send(Command::Listen(listen));
        }
        if outputs.zab.links.is_empty() {
            return;
        }
        let mut touched: Vec<Arc<Pipe>> = Vec::new();
        for (id, action) in outputs.zab.links.drain(..) {
            let Some(pipe) = self.pipes.lock().get(&id).cloned() else { continue };
            match action {
                LinkAction::Send { start, len } => pipe.queue(&outputs.zab.packets[start..start + len]),
                LinkAction::Hold(on) => pipe.hold(on),
                LinkAction::Close(why) => pipe.close(&why),
                LinkAction::Feed(feed) => {
                    let patience = self.settings.stall_timeout;
                    self.handle.spawn(quorum::feed(
                        self.core().clone(),
                        pipe.clone(),
                        self.files.clone(),
                        feed,
                        patience,
                    ));
                }
            }
            if !touched.iter().any(|other| other.id == pipe.id) {
                touched.push(pipe);
            }
        }
        outputs.zab.packets.clear();
        for pipe in touched {
            pipe.flush();
        }
    }
}
