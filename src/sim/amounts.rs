//! Amounts: what work costs in time, how large requests are, how many sessions there are. They are drawn from a source of their
//! own, so that nothing else of a seed depends on them.

use super::edges::Edge;
use super::random::Random;

/// Of a thousand runs, how many have amounts.
const OFTEN: u64 = 250;
/// Of a thousand of these, how many have such as take the simulator itself some tenths of a second.
const HUGE: u64 = 8;
/// Of a thousand of these, how many begin at the ends of what numbers can count.
const EDGES: u64 = 250;
/// Splits off the source. Those seeds that tests name have no amounts under this one.
const SPLIT: u64 = 125;

/// Nothing of all this by default.
#[derive(Debug, Clone, Default)]
pub struct Amounts {
    pub cost: Cost,
    /// Nanoseconds that a byte takes on its way, and on a disk.
    pub wire_ns: u64,
    pub disk_ns: u64,
    /// How many in a thousand of the clients' requests are larger than usual.
    pub often: u64,
    /// Bytes of the largest value.
    pub value: usize,
    /// Parts of the widest multi, and of the widest multiRead.
    pub parts: usize,
    /// Entries of the longest ACL list.
    pub entries: usize,
    /// Requests that a client keeps under way where it asks for more than there is time for; 0: none does.
    pub flood: usize,
    /// Sessions whose clients do nothing but ping.
    pub crowd: usize,
    /// Watches that each client has that sets its watches again, beside those of its requests.
    pub watches: usize,
    /// What the first history begins with.
    pub edge: Option<Edge>,
    /// Transactions after which an epoch is used up, if it is fewer than there can be.
    pub epoch_len: Option<u32>,
}

/// For how many nanoseconds a server does nothing else: for each input or transaction, byte that comes or goes, and step that is
/// counted under a hold of its database.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    pub input_ns: u64,
    pub byte_ns: u64,
    pub step_ns: u64,
}

/// What a server had to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    pub inputs: usize,
    pub bytes: usize,
    pub steps: usize,
}

impl Cost {
    pub fn micros(&self, work: Work) -> u64 {
        let Work { inputs, bytes, steps } = work;
        (self.input_ns * inputs as u64 + self.byte_ns * bytes as u64 + self.step_ns * steps as u64) / 1000
    }

    pub fn is_none(&self) -> bool {
        self.input_ns + self.byte_ns + self.step_ns == 0
    }
}

impl Amounts {
    /// `seeded` is a number that only the seed decides.
    pub fn draw(seeded: u64) -> Self {
        let mut random = Random::new(seeded ^ SPLIT);
        if !random.permille(OFTEN) {
            return Self::default();
        }
        if random.permille(EDGES) {
            return Self::draw_edge(&mut random);
        }
        let is_huge = random.permille(HUGE);
        let (values, widths, crowds) = match is_huge {
            true => ([100_000, 1_000_000], [300, 3000], [300, 3000]),
            false => ([300, 20_000], [5, 100], [5, 40]),
        };
        Self {
            cost: Cost {
                // On the slowest machines huge amounts are more than can be asked for.
                input_ns: *random.pick(if is_huge {
                    &[0, 2000, 2000, 5000]
                } else {
                    &[0, 2000, 10_000, 50_000]
                }),
                byte_ns: *random.pick(&[0, 1, 10]),
                step_ns: *random.pick(&[0, 100, 500]),
            },
            wire_ns: *random.pick(&[0, 8, 50]),
            disk_ns: *random.pick(&[0, 2, 20]),
            often: *random.pick(&[0, 20, 100]),
            value: *random.pick(&values),
            parts: *random.pick(&widths),
            entries: *random.pick(&widths),
            flood: *random.pick(&[0, 0, 20, 60]),
            crowd: *random.pick(&[0, 0, crowds[0], crowds[1]]),
            watches: *random.pick(if is_huge { &[0, 10_000, 100_000] } else { &[0, 50, 500] }),
            edge: None,
            epoch_len: None,
        }
    }

    fn draw_edge(random: &mut Random) -> Self {
        // Before the last epoch there have to be as many as a run needs.
        let epoch = *random.pick(&[1, (1 << 31) - 200, (1 << 24) - 1]);
        let created = *random.pick(&[2, i32::MAX - 1, i32::MAX - 30]);
        let edge = Some(Edge { epoch, created }).filter(|_| random.permille(700));
        let epoch_len = Some(*random.pick(&[10, 40, 200])).filter(|_| random.permille(500));
        Self { edge, epoch_len, ..Self::default() }
    }

    /// Bytes that a request has at the most.
    pub fn largest(&self) -> usize {
        if self.often == 0 { 0 } else { self.value + 100 * self.parts + 40 * self.entries }
    }
}
