//! The client port: mio reactors that own their connections, serve reads themselves, and bring writes to the core.

mod connection;
mod four_letter;
mod reactor;
mod stream;

pub use four_letter::Facts;
pub use reactor::run as run_reactor;
pub use stream::Door;

use crate::conversation::{Bounds, Limits, Logins};
use crate::core::{Core, Descriptor, Descriptors};
use crate::model::{ConnId, SessionId};
use crate::request::Rules;
use mio::net::TcpStream;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// What bounds the connections of the port.
#[derive(Debug, Clone)]
pub struct PortLimits {
    /// Connections from one address; 0: any number.
    pub per_address: usize,
    /// Connections in all; 0: any number.
    pub connections: usize,
    /// How long a connection may take to open its session.
    pub sessionless: Duration,
}

/// What all reactors share.
pub struct ClientPort {
    pub core: Arc<Core>,
    pub rules: Rules,
    pub limits: Limits,
    pub port_limits: PortLimits,
    /// `None`: nobody can, and no client is told so: it goes on as nobody.
    pub logins: Option<Logins>,
    pub facts: Facts,
    descriptors: Arc<Descriptors>,
    connections: Mutex<Registry>,
    handover: Vec<Mutex<Vec<Arrival>>>,
    /// Conversations count their time from here.
    opened: Instant,
}

/// A connection on its way to its reactor.
struct Arrival {
    socket: TcpStream,
    peer: SocketAddr,
    door: Door,
    descriptor: Descriptor,
}

#[derive(Default)]
struct Registry {
    by_id: BTreeMap<ConnId, Arc<ConnInfo>>,
    by_address: HashMap<IpAddr, usize>,
}

/// What the words `cons` and `stat` tell about a connection.
pub struct ConnInfo {
    pub peer: SocketAddr,
    pub since: SystemTime,
    pub session: AtomicI64,
    pub timeout_ms: AtomicU64,
    pub received: AtomicU64,
    pub sent: AtomicU64,
    pub outstanding: AtomicU64,
    pub last_cxid: AtomicI64,
    pub last_op: AtomicI64,
    pub last_zxid: AtomicI64,
    /// Milliseconds since the port opened.
    pub last_heard: AtomicU64,
}

impl ConnInfo {
    fn new(peer: SocketAddr) -> Self {
        Self {
            peer,
            since: SystemTime::now(),
            session: AtomicI64::new(0),
            timeout_ms: AtomicU64::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            outstanding: AtomicU64::new(0),
            last_cxid: AtomicI64::new(0),
            last_op: AtomicI64::new(0),
            last_zxid: AtomicI64::new(0),
            last_heard: AtomicU64::new(0),
        }
    }

    fn reset(&self) {
        self.received.store(0, Ordering::Relaxed);
        self.sent.store(0, Ordering::Relaxed);
    }
}

impl ClientPort {
    pub fn new(
        core: Arc<Core>,
        rules: Rules,
        limits: Limits,
        port_limits: PortLimits,
        logins: Option<Logins>,
        facts: Facts,
        descriptors: Arc<Descriptors>,
    ) -> Self {
        let handover = core.mailboxes.iter().map(|_| Mutex::default()).collect();
        Self {
            core,
            rules,
            limits,
            port_limits,
            logins,
            facts,
            descriptors,
            connections: Mutex::default(),
            handover,
            opened: Instant::now(),
        }
    }

    /// What bounds conversations now.
    fn bounds(&self) -> Bounds<'_> {
        Bounds { limits: &self.limits, outstanding: self.core.outstanding(), may_read: self.core.may_read() }
    }

    /// Counts a new connection in, unless a limit is reached.
    fn admit(&self, address: IpAddr) -> bool {
        let mut registry = self.connections.lock();
        let total: usize = registry.by_address.values().sum();
        if self.port_limits.connections > 0 && total >= self.port_limits.connections {
            return false;
        }
        let count = registry.by_address.entry(address).or_default();
        if self.port_limits.per_address > 0 && *count >= self.port_limits.per_address {
            return false;
        }
        *count += 1;
        true
    }

    fn dismiss(&self, address: IpAddr) {
        let mut registry = self.connections.lock();
        if let Some(count) = registry.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                registry.by_address.remove(&address);
            }
        }
    }

    fn register(&self, id: ConnId, info: Arc<ConnInfo>) {
        self.connections.lock().by_id.insert(id, info);
    }

    fn unregister(&self, id: ConnId) {
        self.connections.lock().by_id.remove(&id);
    }

    fn each_connection(&self, mut f: impl FnMut(ConnId, &ConnInfo)) {
        for (id, info) in &self.connections.lock().by_id {
            f(*id, info);
        }
    }

    fn session_of(&self, id: ConnId) -> SessionId {
        let registry = self.connections.lock();
        SessionId(registry.by_id.get(&id).map_or(0, |info| info.session.load(Ordering::Relaxed)))
    }
}

/// A deadline that has passed.
fn is_over(since: Instant, limit: Duration, now: Instant) -> bool {
    now.saturating_duration_since(since) > limit
}
