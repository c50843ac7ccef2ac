//! The client port: mio reactors that own their connections, serve reads themselves, and bring writes to the core.

mod connection;
mod four_letter;
mod reactor;
mod refusals;
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
use refusals::{Kind, Refusals};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// What bounds the connections of the port.
#[derive(Debug, Clone)]
pub struct PortLimits {
    /// Connections from one address to one of the ports; 0: any number.
    pub per_address: usize,
    /// Connections in all; 0: any number.
    pub connections: usize,
    /// How long a connection may take to open its session.
    pub sessionless: Duration,
    /// Bytes that may wait, over all connections, for clients that take none, and as many that are read of them and not worked off
    /// (`maxUnreadBytes`).
    pub unread: usize,
    /// Bytes that all watches may take (`maxWatchBytes`).
    pub watched: usize,
}

/// What all reactors share.
pub struct ClientPort {
    pub core: Arc<Core>,
    pub rules: Rules,
    pub limits: Limits,
    pub port_limits: PortLimits,
    /// `None`: SASL login is off. Clients that try it get an empty answer and continue unauthenticated.
    pub logins: Option<Logins>,
    pub facts: Facts,
    descriptors: Arc<Descriptors>,
    connections: Mutex<Registry>,
    handover: Vec<Mutex<Vec<Arrival>>>,
    /// Conversations count their time from here.
    opened: Instant,
    refusals: Refusals,
}

/// A connection on its way to its reactor.
struct Arrival {
    socket: TcpStream,
    peer: SocketAddr,
    /// Which of the listeners has taken it.
    listener: usize,
    door: Door,
    descriptor: Descriptor,
}

#[derive(Default)]
struct Registry {
    by_id: BTreeMap<ConnId, Arc<ConnInfo>>,
    /// By listener and address: each port counts for itself.
    by_address: HashMap<(usize, IpAddr), usize>,
}

/// The code of no operation.
const NO_OP: i64 = i64::MIN;

/// What the words `cons` and `stat` tell about a connection. Its reactor alone writes it, but for the word `crst`.
struct ConnInfo {
    peer: SocketAddr,
    since: SystemTime,
    session: AtomicI64,
    timeout_ms: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    outstanding: AtomicU64,
    /// Negative: none was answered yet.
    last_cxid: AtomicI64,
    /// [`NO_OP`]: nothing was answered yet.
    last_op: AtomicI64,
    last_zxid: AtomicI64,
    /// When the last answer was given, in milliseconds since the port opened.
    last_response: AtomicU64,
    latency: Latency,
}

/// How long requests of a connection waited for their answers, in milliseconds.
#[derive(Default)]
struct Latency {
    last: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
    total: AtomicU64,
    count: AtomicU64,
}

impl Latency {
    fn record(&self, ms: u64, requests: u64) {
        let value = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let count = value(&self.count);
        let min = if count == 0 { ms } else { value(&self.min).min(ms) };
        self.last.store(ms, Ordering::Relaxed);
        self.min.store(min, Ordering::Relaxed);
        self.max.store(value(&self.max).max(ms), Ordering::Relaxed);
        self.total.store(value(&self.total) + ms * requests, Ordering::Relaxed);
        self.count.store(count + requests, Ordering::Relaxed);
    }

    fn reset(&self) {
        for value in [&self.last, &self.min, &self.max, &self.total, &self.count] {
            value.store(0, Ordering::Relaxed);
        }
    }
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
            last_cxid: AtomicI64::new(-1),
            last_op: AtomicI64::new(NO_OP),
            last_zxid: AtomicI64::new(-1),
            last_response: AtomicU64::new(0),
            latency: Latency::default(),
        }
    }

    fn reset(&self) {
        for count in [&self.received, &self.sent, &self.last_response] {
            count.store(0, Ordering::Relaxed);
        }
        self.last_op.store(NO_OP, Ordering::Relaxed);
        self.last_cxid.store(-1, Ordering::Relaxed);
        self.last_zxid.store(-1, Ordering::Relaxed);
        self.latency.reset();
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
            refusals: Refusals::default(),
        }
    }

    /// What bounds the conversations of a reactor now. `handed_in`: bytes of the requests that the core has of them.
    fn bounds(&self, handed_in: usize) -> Bounds<'_> {
        // What clients sent that have gone since is still in the core, and no reactor counts it.
        let most = 2 * self.limits.admitted_bytes * self.core.mailboxes.len();
        let is_full = self.core.outstanding_bytes() > most;
        Bounds {
            limits: &self.limits,
            outstanding: self.core.outstanding(),
            admitted_bytes: if is_full { usize::MAX } else { handed_in },
            unlogged_bytes: self.core.unlogged_bytes(),
            may_read: self.core.may_read(),
            refuses_writes: self.core.refuses_writes(),
        }
    }

    /// Counts a new connection in, unless a limit is reached.
    fn admit(&self, listener: usize, address: IpAddr) -> Result<(), (Kind, String)> {
        let PortLimits { per_address, connections, .. } = self.port_limits;
        let mut registry = self.connections.lock();
        let total: usize = registry.by_address.values().sum();
        if connections > 0 && total >= connections {
            return Err((Kind::Connections, format!("{total} are open, and maxCnxns allows {connections}")));
        }
        let count = registry.by_address.entry((listener, address)).or_default();
        if per_address > 0 && *count >= per_address {
            return Err((
                Kind::Address,
                format!("{count} from its address are open, and maxClientCnxns allows {per_address}"),
            ));
        }
        *count += 1;
        Ok(())
    }

    fn dismiss(&self, listener: usize, address: IpAddr) {
        let mut registry = self.connections.lock();
        let from = (listener, address);
        if let Some(count) = registry.by_address.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                registry.by_address.remove(&from);
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
