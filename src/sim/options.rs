//! What a seed draws before anything happens: the ensemble, its settings, and which faults come how often. Each seed has
//! a mixture of its own, so that rare ones meet.

use super::amounts::Amounts;
use super::random::Random;

/// Of a thousand runs, how many have large values.
const LARGE: u64 = 40;
/// Of a thousand runs, how many begin with nothing broken, and how many have strangers.
const CALM: u64 = 250;
const STRANGERS: u64 = 100;
/// Splits off the source, and of a thousand runs, in how many clients set their watches again.
const REWATCHES: (u64, u64) = (77, 300);
/// Sessions whose ends go through any window in time.
const SMALL_CROWD: usize = 50;

/// Faults in the whole ensemble, in thousandths of a second's chance each.
#[derive(Debug, Clone, Default)]
pub struct Rates {
    pub kill: u64,
    pub power: u64,
    /// Everybody loses power at once.
    pub blackout: u64,
    pub pause: u64,
    pub partition: u64,
    pub one_way: u64,
    pub cut: u64,
    pub wipe: u64,
    /// A file is damaged.
    pub flip: u64,
    /// The process ends at some operation of the disk.
    pub stop_at_op: u64,
    pub sync_error: u64,
    /// The disk does nothing for a while.
    pub hang: u64,
    pub disk_full: u64,
    pub reconfig: u64,
    pub cut_client: u64,
    pub lies: Lies,
}

/// Disks that say of what was synced that it is there. Drawn from a source of their own.
#[derive(Debug, Clone, Default)]
pub struct Lies {
    /// About the log, and about everything.
    pub log: u64,
    pub all: u64,
    /// How often power is lost where a disk lies.
    pub end: u64,
    /// A file that was removed is there again after a crash.
    pub again: u64,
    /// Old snapshots and logs go.
    pub purge: u64,
}

impl Lies {
    /// Of a thousand runs, how many have them.
    const OFTEN: u64 = 200;

    /// `seeded` is a number that only the seed decides.
    fn draw(seeded: u64) -> Self {
        let mut random = Random::new(seeded ^ 0x11e5);
        if !random.permille(Self::OFTEN) {
            return Self::default();
        }
        let end = random.between(1000, 10_000);
        let mut rate =
            |often: u64, up_to: u64| if random.permille(often) { random.between(1, up_to) } else { 0 };
        Self {
            log: rate(500, 5000),
            all: rate(400, 5000),
            end,
            again: rate(400, 5000),
            purge: rate(500, 5000),
        }
    }
}

/// What servers find at the start that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// The ensemble is new.
    Nothing,
    /// They were stopped.
    Whole,
    /// So were they, and a majority has new disks.
    Wiped,
    /// One has a backup's snapshot, the others nothing.
    Restored,
    /// One was alone, and is to be one of several.
    Alone,
}

impl Before {
    fn loses(self) -> bool {
        match self {
            Self::Nothing | Self::Whole => false,
            Self::Wiped | Self::Restored | Self::Alone => true,
        }
    }
}

/// A run that begins with nothing broken: all servers are started together, and have to serve.
#[derive(Debug, Clone)]
pub struct Opening {
    pub before: Before,
    /// They start within this many microseconds.
    pub spread_us: u64,
    /// Those with data come this many milliseconds later.
    pub late_ms: u64,
    /// One voter does not come at all.
    pub absent: bool,
    /// Clients ask for things meanwhile.
    pub busy: bool,
    /// Afterwards the tree of one comes to differ.
    pub spoils: bool,
}

impl Opening {
    fn draw(voters: usize, random: &mut Random) -> Self {
        let before = match random.below(10) {
            0..2 => Before::Nothing,
            2..5 => Before::Whole,
            5..7 if voters > 2 => Before::Wiped,
            5..8 => Before::Restored,
            _ => Before::Alone,
        };
        let loses = before.loses();
        Self {
            before,
            spread_us: *random.pick(&[0, 0, 1000, 40_000]),
            late_ms: if loses && random.permille(300) { random.between(20, 2000) } else { 0 },
            absent: before == Before::Whole && voters > 2 && random.permille(300),
            busy: random.permille(500),
            spoils: voters > 2 && random.permille(200),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Options {
    pub voters: usize,
    /// The one server is no member of any ensemble.
    pub alone: bool,
    pub observers: usize,
    /// Servers that only a reconfiguration can bring in.
    pub spares: usize,
    /// Hierarchical groups of the voters.
    pub groups: bool,
    pub clients: usize,
    /// How long faults happen, in milliseconds.
    pub unsafe_ms: u64,
    pub tick_ms: u64,
    pub init_limit: u64,
    pub sync_limit: u64,
    /// Microseconds.
    pub latency: (u64, u64),
    pub disk_latency: (u64, u64),
    /// Now and then a packet or a sync takes this much longer.
    pub spike: u64,
    pub pipeline: usize,
    pub think_us: (u64, u64),
    pub snap_count: u64,
    pub history_entries: usize,
    pub history_bytes: usize,
    pub force_snapshot_sync: bool,
    pub disk_sync: bool,
    pub reconfig: bool,
    /// Per mille by which a clock may run fast or slow.
    pub drift: u64,
    pub session_ms: i32,
    /// Clients restart the count of their requests on each connection, as kazoo does.
    pub counts_anew: bool,
    /// Events that a server takes in one batch.
    pub batch: usize,
    pub max_unlogged: usize,
    /// Bytes that may be under way to a learner, and bytes of requests that a server takes from its clients at once.
    pub window: usize,
    pub admitted: usize,
    /// Bytes by which values are longer than they need be.
    pub padding: usize,
    /// Bytes that wait for a link beyond which it is not fed more.
    pub feed_ahead: usize,
    /// Bytes of a file that are sent to a learner at once, and znodes' places that a snapshot shows at once.
    pub feed_piece: usize,
    pub slice: usize,
    pub rates: Rates,
    pub opening: Option<Opening>,
    /// Milliseconds that a quorum waits for better votes, and between notifications, from and up to.
    pub pace: (u64, u64, u64),
    /// Milliseconds that a server without data waits to hear all others.
    pub empty_wait_ms: u64,
    /// Microseconds for which the ports of a process refuse when it starts, at the most.
    pub refuses_us: u64,
    /// So many in a thousand of a server's closes throw away what was not read.
    pub resets: u64,
    /// So many in a thousand leaders crash when a reconfiguration has removed them; then that is often asked for.
    pub handover_crash: u64,
    /// Who send what no server of the ensemble would.
    pub strangers: usize,
    /// So many in a thousand of what servers send each other arrive in two pieces, or with what was sent before.
    pub cuts: u64,
    /// So often in a thousand, a client asks for much at once and goes, or talks nonsense and is sent away.
    pub hasty: u64,
    /// At the end, clients do nothing but ping for some time: no session ends.
    pub lingers: bool,
    /// Clients set their watches again when their sessions go on over another connection.
    pub rewatches: bool,
    pub amounts: Amounts,
}

impl Options {
    pub fn draw(random: &mut Random) -> Self {
        // Of its own, so that what is drawn here changes no other seed.
        let mut more = random.clone().fork();
        let amounts = Amounts::draw(random.clone().draw());
        let lies = Lies::draw(random.clone().draw());
        let rewatches = Random::new(random.clone().draw() ^ REWATCHES.0).permille(REWATCHES.1);
        let mut options = Self::draw_usual(random);
        options.empty_wait_ms = *more.pick(&[100, 500, 1000, 3000]);
        options.refuses_us = *more.pick(&[0, 0, 2000, 10_000]);
        options.resets = *more.pick(&[0, 0, 300, 1000]);
        options.handover_crash = if options.reconfig { *more.pick(&[0, 500]) } else { 0 };
        // There must be a minority that they can claim to be.
        options.strangers =
            if options.voters > 2 && more.permille(STRANGERS) { more.between(1, 2) as usize } else { 0 };
        options.hasty = *more.pick(&[0, 0, 30, 200]);
        options.lingers = more.permille(100);
        if more.permille(CALM) {
            options.begin_calmly(&mut more);
        }
        options.cuts = *more.pick(&[0, 0, 100, 500]);
        options.rates.hang = if more.permille(200) { more.between(1, 3000) } else { 0 };
        options.rates.lies = lies;
        options.rewatches = rewatches;
        options.window = *more.pick(&[300, 3000, 1 << 20]);
        options.admitted = *more.pick(&[0, 1000, 1 << 20]);
        if more.permille(LARGE) {
            (options.window, options.admitted, options.padding) = (100_000, 50_000, 20_000);
        }
        // Strangers' claims use up epochs, and nobody may lose a leader to one that is used up. Who has lost everything begins
        // with epoch 1: it takes too many elections to come to that of a server that has not.
        let loses = options.opening.as_ref().is_some_and(|opening| opening.before.loses());
        options.amounts = Amounts {
            edge: amounts.edge.filter(|_| options.strangers == 0 && !loses),
            epoch_len: amounts.epoch_len.filter(|_| options.opening.is_none()),
            ..amounts
        };
        if options.amounts.crowd > SMALL_CROWD {
            // Through a narrow way their ends take as long as that is narrow.
            (options.window, options.max_unlogged, options.admitted) = (1 << 20, 1 << 20, 1 << 20);
        }
        options
    }

    /// Bytes that a link never has under way, however slow its other end is, unless it is fed. A window is looked at before a
    /// transaction is sent; all that is not committed may come at once; a snapshot's last piece is as large as its file.
    pub fn most_under_way(&self) -> usize {
        let size = self.padding + 500 + self.amounts.largest();
        let asked = self.clients * self.pipeline.max(self.amounts.flood) * size;
        // Ends and beginnings of many sessions at once.
        let crowd = 2000 * self.amounts.crowd;
        3 * self.window + asked + self.servers() * self.admitted + crowd + (1 << 20)
    }

    /// The machines are as good as most, and settings as they come: a start is to be quick on these.
    fn begin_calmly(&mut self, random: &mut Random) {
        self.groups = false;
        self.opening = Some(Opening::draw(self.voters, random));
        self.latency = (50, *random.pick(&[300, 2000]));
        self.disk_latency = (20, *random.pick(&[200, 2000]));
        self.spike = 0;
        self.init_limit = 30;
        self.pace = (200, 200, 1000);
        self.unsafe_ms = self.unsafe_ms.min(random.between(100, 1000));
    }

    fn draw_usual(random: &mut Random) -> Self {
        let voters = *random.pick(&[3, 3, 3, 3, 5, 5, 1, 2, 4, 7]);
        let reconfig = random.permille(300);
        let slow = random.permille(200);
        let max_queued = *random.pick(&[150_000, 1 << 20]);
        let mut rates = Rates::default();
        let rate = |often: u64, up_to: u64, random: &mut Random| {
            if random.permille(often) { random.between(1, up_to) } else { 0 }
        };
        rates.kill = rate(500, 5000, random);
        rates.power = rate(500, 5000, random);
        rates.blackout = rate(150, 1600, random);
        rates.pause = rate(300, 3000, random);
        rates.partition = rate(400, 3000, random);
        rates.one_way = rate(300, 3000, random);
        rates.cut = rate(400, 10_000, random);
        rates.wipe = rate(150, 800, random);
        rates.flip = rate(100, 800, random);
        rates.stop_at_op = rate(400, 6000, random);
        rates.sync_error = rate(150, 2000, random);
        rates.disk_full = rate(100, 1200, random);
        rates.cut_client = rate(300, 6000, random);
        rates.reconfig = if reconfig { random.between(400, 3000) } else { 0 };
        Self {
            voters,
            alone: false,
            observers: *random.pick(&[0, 0, 0, 1, 2]),
            spares: if reconfig { random.between(0, 3) as usize } else { 0 },
            groups: voters >= 3 && !reconfig && random.permille(100),
            clients: random.between(1, 4) as usize,
            unsafe_ms: if random.permille(100) {
                random.between(2000, 5000)
            } else {
                random.between(300, 1700)
            },
            tick_ms: 100,
            init_limit: random.between(5, 10),
            sync_limit: random.between(3, 6),
            latency: if slow { (500, 30_000) } else { (50, *random.pick(&[300, 2000, 8000])) },
            disk_latency: (20, *random.pick(&[200, 2000, 20_000])),
            spike: *random.pick(&[0, 0, 20_000, 150_000]),
            pipeline: *random.pick(&[1, 1, 3, 8]),
            think_us: (0, *random.pick(&[5000, 30_000, 120_000])),
            snap_count: *random.pick(&[3, 8, 30, 1000]),
            history_entries: *random.pick(&[1, 3, 20, 500]),
            history_bytes: *random.pick(&[0, 200, 2000, 1 << 20]),
            force_snapshot_sync: random.permille(80),
            disk_sync: random.permille(800),
            reconfig,
            drift: *random.pick(&[0, 0, 10, 50]),
            session_ms: *random.pick(&[400, 1000, 2000]),
            batch: *random.pick(&[1, 1, 4, 16]),
            max_unlogged: *random.pick(&[500, 5000, 1 << 20]),
            window: 1 << 20,
            admitted: 1 << 20,
            padding: 0,
            feed_ahead: max_queued / 4,
            feed_piece: *random.pick(&[100, 1000, max_queued / 8]),
            slice: *random.pick(&[1, 5, 1000]),
            rates,
            counts_anew: random.permille(300),
            opening: None,
            pace: (20, 20, 160),
            empty_wait_ms: 0,
            refuses_us: 0,
            resets: 0,
            handover_crash: 0,
            strangers: 0,
            cuts: 0,
            hasty: 0,
            lingers: false,
            rewatches: false,
            amounts: Amounts::default(),
        }
    }

    /// The ensemble that all servers begin with, as lines of `zoo.cfg`.
    pub fn servers_text(&self) -> String {
        let mut text = String::new();
        for id in 1..=self.voters + self.observers {
            let role = if id <= self.voters { "participant" } else { "observer" };
            text.push_str(&format!("server.{id}=s{id}:1:2:{role}\n"));
        }
        if self.groups {
            // Three groups, of unequal weight.
            let mut groups = vec![Vec::new(); 3];
            (1..=self.voters).for_each(|id| groups[id % 3].push(id.to_string()));
            for (group, ids) in groups.iter().enumerate() {
                text.push_str(&format!("group.{}={}\n", group + 1, ids.join(":")));
            }
            (1..=self.voters).for_each(|id| text.push_str(&format!("weight.{id}={}\n", 1 + id % 2)));
        }
        text
    }

    /// Servers of every kind.
    pub fn servers(&self) -> usize {
        self.voters + self.observers + self.spares
    }

    pub fn init_ms(&self) -> u64 {
        self.init_limit * self.tick_ms
    }
}
