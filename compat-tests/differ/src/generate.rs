//! Makes scripts from seeds: mostly sensible requests on few paths, so that they meet, and among them all that is odd.
//!
//! A script keeps away from what Java itself answers now so and now so, depending on how far its pipeline is: see
//! [`Made::last`] and the places that set it.

use crate::connection::hello;
use crate::jute::Writer;
use crate::op;
use crate::random::Random;
use crate::request::is_poison;
use crate::script::{Password, Seen, Step};
use crate::server::World;
use crate::side::{LONG_TIMEOUT, SLOTS};

/// The slot that has READ everywhere, and takes up watches: what setWatches tells is filtered by ACLs only here.
const SUPER: usize = 3;
/// The largest burst.
const BURST: usize = 64;

const PATHS: [&str; 13] =
    ["/t", "/t/a", "/t/a/b", "/t/b", "/t/b/c", "/u", "/u/v", "/e", "/e/f", "/s", "/s/x", "/sq", "/sq/r"];
/// Below a hard quota. Java compares with what was applied, so these are written by one request at a time.
const HARD_QUOTA: [&str; 6] = [
    "/q",
    "/q/r",
    "/zookeeper/quota/q",
    "/zookeeper/quota/q/zookeeper_limits",
    "/zookeeper/quota/q/zookeeper_stats",
    "/zookeeper/quota/q/r",
];
const SOFT_QUOTA: [&str; 3] =
    ["/zookeeper/quota/sq", "/zookeeper/quota/sq/zookeeper_limits", "/zookeeper/quota/sq/zookeeper_stats"];
const ODD_PATHS: [&[u8]; 34] = [
    b"",
    b"/",
    b"a",
    b"a/b",
    b"/t/",
    b"//",
    b"/t//a",
    b"/t/.",
    b"/t/..",
    b"/t/...",
    b"/missing/x",
    b"/missing",
    b"/t/\x01",
    b"/t/\x7f",
    "/t/\u{fc}".as_bytes(),
    "/t/\u{a0}".as_bytes(),
    b"/t/x\0y",
    b"\0",
    b" ",
    b" / ",
    b"/t/\xff\xfe",
    b"/t/\xed\xa0\xbd\xed\xb8\x80",
    b"/t/\xe2\x82",
    b"/t/\xf0\x9f\x98",
    "/t/\u{1f600}".as_bytes(),
    "/t/\u{fff0}".as_bytes(),
    "/t/\u{f8ff}".as_bytes(),
    "/t/\u{20ac}".as_bytes(),
    b"/zookeeper",
    b"/zookeeper/",
    b"/zookeeper/config",
    b"/zookeeper/quota",
    b"/zookeeper/quota/x",
    b"/zookeeper/x",
];
/// Text that Java can parse: at any other its server stops.
const HARD_LIMITS: [&str; 7] = [
    "count=3,bytes=10",
    "count=-1,bytes=-1=;byteHardLimit=12;countHardLimit=3",
    "count=2,bytes=5=;countHardLimit=2",
    "bytes=-1=;byteHardLimit=9,count=7",
    "count=1,bytes=2=;byteHardLimit=-1",
    "unknown=7;countHardLimit=4,count==5,a=-3",
    "count=0,bytes=0",
];
const SOFT_LIMITS: [&str; 5] =
    ["count=3,bytes=10", "count=1,bytes=0", "bytes=5;count=2", "count=-1,bytes=-1", "z=1;bytes=4=,b=5"];
const DATA: [Option<&[u8]>; 6] =
    [None, Some(b""), Some(b"x"), Some(b"data"), Some(b"0123456789"), Some(&[b'y'; 40])];
/// More than one read of a socket gives.
const LARGE: &[u8] = &[b'z'; 100_000];

type Acl = &'static [(i32, Option<&'static [u8]>, Option<&'static [u8]>)];
const OPEN: Acl = &[(31, Some(b"world"), Some(b"anyone"))];
const ACLS: [Option<Acl>; 44] = [
    None,
    Some(&[]),
    Some(&[(1, Some(b"world"), Some(b"anyone"))]),
    Some(&[(31, Some(b"auth"), Some(b""))]),
    Some(&[(31, Some(b"digest"), Some(b"u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ="))]),
    Some(&[(31, Some(b"world"), Some(b"me"))]),
    Some(&[(31, Some(b"world"), Some(b""))]),
    Some(&[(31, Some(b"ip"), Some(b"127.0.0.1"))]),
    Some(&[(31, Some(b"ip"), Some(b"127.0.0.0/8"))]),
    Some(&[(31, Some(b"ip"), Some(b"127.255.3.4/9"))]),
    Some(&[(31, Some(b"ip"), Some(b"10.0.0.1"))]),
    Some(&[(31, Some(b"ip"), Some(b"0.0.0.0/0"))]),
    Some(&[(31, Some(b"ip"), Some(b"::1"))]),
    Some(&[(31, Some(b"ip"), Some(b"::/0"))]),
    Some(&[(31, Some(b"ip"), Some(b"fe80::/10"))]),
    Some(&[(31, Some(b"ip"), Some(b"1:2:3:4:5:6:7:8"))]),
    Some(&[(31, Some(b"ip"), Some(b"1:2:3:4:5:6:7::"))]),
    Some(&[(31, Some(b"ip"), Some(b"::ffff:127.0.0.1"))]),
    Some(&[(31, Some(b"ip"), Some(b"1.2.3.4/33"))]),
    Some(&[(31, Some(b"ip"), Some(b"127.00.0.01"))]),
    Some(&[(31, Some(b"ip"), Some(b"+127.0.0.1/+8"))]),
    Some(&[(31, Some(b"ip"), Some(b"127.0.0.1/"))]),
    Some(&[(31, Some(b"ip"), Some(b"x"))]),
    Some(&[(0, Some(b"world"), Some(b"anyone"))]),
    Some(&[(255, Some(b"world"), Some(b"anyone"))]),
    Some(&[(31, Some(b"world"), Some(b"anyone")), (31, Some(b"world"), Some(b"anyone"))]),
    Some(&[(1, Some(b"world"), Some(b"anyone")), (30, Some(b"auth"), Some(b""))]),
    Some(&[(31, Some(b"digest"), Some(b"x"))]),
    Some(&[(31, Some(b"digest"), Some(b"a:b:c"))]),
    Some(&[(31, Some(b"digest"), Some(b"a:b:"))]),
    Some(&[(31, Some(b"digest"), Some("\u{e4}:\u{1f600}".as_bytes()))]),
    Some(&[(31, Some(b"digest"), Some(b"a:\xff\xed\xa0\xbd"))]),
    Some(&[(31, Some(b"super"), Some(b"x"))]),
    Some(&[(31, Some(b"none"), Some(b"x"))]),
    Some(&[(31, Some(b""), Some(b""))]),
    Some(&[(31, Some(b"auth"), Some(b"x")), (1, Some(b"ip"), Some(b"127.0.0.1"))]),
    Some(&[(31, Some(b"x509"), Some(b"CN=a"))]),
    Some(&[(31, Some(b"sasl"), Some(b"a"))]),
    Some(&[(31, None, Some(b"x"))]),
    Some(&[(31, Some(b"world"), None)]),
    Some(&[(31, Some(b"auth"), None)]),
    Some(&[(31, Some(b"digest"), None)]),
    Some(&[(31, Some(b"ip"), None)]),
    Some(&[(31, Some(b"none"), None)]),
];
/// Which of them could not be used if they were alone in a znode's list, and so refuse no one.
const REFUSED_ACLS: [usize; 8] = [0, 1, 5, 6, 18, 22, 27, 33];

const OPS: [i32; 60] = [
    1, 1, 1, 1, 1, 1, 1, 1, 15, 15, 15, 15, 15, 19, 21, 21, 2, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 5,
    6, 7, 7, 8, 8, 9, 11, 12, 12, 14, 14, 14, 14, 14, 22, 22, 17, 18, 18, 106, 106, 106, 103, 104, 107, 101,
    105, 16,
];
const UNKNOWN_OPS: [i32; 9] = [op::CHECK, 0, 10, 23, 99, 108, -1, -12, 12345];
const ODD_XIDS: [i32; 6] = [0, -2, -5, -8, i32::MAX, i32::MIN];
const ODD_INTS: [i32; 7] = [-1, -2, 0, 1, 5, i32::MAX, i32::MIN];
const AUTHS: [(&[u8], Option<&[u8]>); 9] = [
    (b"digest", Some(b"u:p")),
    (b"digest", Some(b"u:p")),
    (b"digest", Some(b"v:w")),
    (b"digest", Some(b"super:test")),
    (b"digest", Some(b"nocolon")),
    (b"digest", Some(b"")),
    (b"digest", Some(b"a:\xff\xed\xa0\xbd\xed\xb8\x80")),
    (b"ip", Some(b"")),
    (b"ip", None),
];
type Auth = (Option<&'static [u8]>, Option<&'static [u8]>);
const BAD_AUTHS: [Auth; 6] = [
    (Some(b"none"), Some(b"x")),
    (Some(b"world"), Some(b"anyone")),
    (Some(b"auth"), Some(b"")),
    (Some(b"super"), Some(b"x")),
    (Some(b"digest"), None),
    (None, Some(b"x")),
];

/// One request, and what it means for the burst that it is in.
struct Made {
    op: i32,
    back: Option<i64>,
    body: Vec<u8>,
    /// Nothing may follow it in its burst: Java's later answers would depend on whether it is applied already.
    last: bool,
}

#[derive(Default)]
struct Model {
    next_xid: i32,
    /// What it watches: data, exist, child, persistent, persistent recursive.
    watched: [Vec<Vec<u8>>; 5],
}

struct Generator<'w> {
    random: Random,
    world: &'w World,
    /// No list of this script keeps anybody from reading, so that any session may take up watches.
    all_may_read: bool,
    /// The requests that are made now share a burst.
    in_burst: bool,
    in_multi: bool,
    slots: Vec<Model>,
    steps: Vec<Step>,
    sent: usize,
    overtaking: i32,
}

/// The script of `seed`: at least so many requests.
pub fn script(seed: u64, world: &World, requests: usize) -> Vec<Step> {
    let mut random = Random::new(seed);
    let all_may_read = !world.digest || random.percent(40);
    let mut slots = Vec::new();
    slots.resize_with(SLOTS, Model::default);
    let mut generator = Generator {
        random,
        world,
        all_may_read,
        in_burst: false,
        in_multi: false,
        slots,
        steps: Vec::new(),
        sent: 0,
        overtaking: 0,
    };
    generator.begin();
    while generator.sent < requests {
        generator.act();
    }
    generator.steps
}

impl Generator<'_> {
    fn begin(&mut self) {
        for slot in 0..SLOTS {
            self.open(slot);
        }
        for path in ["/t", "/t/a", "/u", "/e", "/s", "/sq", "/q"] {
            let body = create(Some(path.as_bytes()), Some(b"d"), Some(OPEN), 0);
            self.send(0, Made { op: op::CREATE, back: None, body, last: false });
        }
        self.make_own_subtrees();
        if self.random.percent(50) {
            self.make_quota("q", &HARD_LIMITS);
        }
        if self.random.percent(50) {
            self.make_quota("sq", &SOFT_LIMITS);
        }
    }

    fn make_quota(&mut self, top: &str, limits: &[&str]) {
        let limits = self.random.pick(limits).as_bytes();
        let usage = if self.random.percent(50) { limits } else { b"count=0,bytes=0" };
        for (end, data) in [("", &b""[..]), ("/zookeeper_limits", limits), ("/zookeeper_stats", usage)] {
            let path = format!("/zookeeper/quota/{top}{end}");
            let body = create(Some(path.as_bytes()), Some(data), Some(OPEN), 0);
            self.send(0, Made { op: op::CREATE, back: None, body, last: false });
        }
        self.steps.push(Step::Await);
    }

    /// `/v0` … are each written by one slot alone, when several send at once.
    fn make_own_subtrees(&mut self) {
        for slot in 0..SLOTS {
            let body = create(Some(format!("/v{slot}").as_bytes()), Some(b""), Some(OPEN), 0);
            self.send(0, Made { op: op::CREATE2, back: None, body, last: false });
        }
        self.steps.push(Step::Await);
    }

    fn act(&mut self) {
        let slot = self.random.below(SLOTS);
        match self.random.below(1000) {
            0..845 => self.burst(slot),
            845..860 => self.fill_quota(slot),
            860..900 => self.together(),
            900..940 => self.reconnect(slot),
            940..955 => self.close(slot),
            955..965 => self.bad_auth(slot),
            965..975 => self.unknown_op(slot),
            975..980 => self.own_operation(slot),
            980..988 => self.garbage(slot),
            988..994 => self.probe(),
            994..996 => self.expire(),
            _ => self.removal(slot),
        }
    }

    // What is done.

    fn send(&mut self, slot: usize, made: Made) {
        let model = &mut self.slots[slot];
        model.next_xid += 1;
        let xid = match made.op {
            op::AUTH => -4,
            // Its own number, because it may overtake.
            op::SASL => {
                self.overtaking += 1;
                500_000 + self.overtaking
            }
            op::SET_WATCHES | op::SET_WATCHES2 => -8,
            op::PING if self.random.percent(90) => -2,
            _ if self.random.percent(1) => *self.random.pick(&ODD_XIDS),
            _ => model.next_xid,
        };
        self.sent += 1;
        self.steps.push(Step::Send { slot, xid, op: made.op, back: made.back, body: made.body });
    }

    fn send_alone(&mut self, slot: usize, op: i32, body: Vec<u8>) {
        self.send(slot, Made { op, back: None, body, last: true });
        self.steps.push(Step::Await);
    }

    fn open(&mut self, slot: usize) {
        let timeout = *self.random.pick(&[LONG_TIMEOUT, LONG_TIMEOUT, LONG_TIMEOUT + 1, i32::MAX]);
        let read_only = *self.random.pick(&[Some(0), Some(0), Some(1), Some(7), None]);
        self.steps.push(Step::Open { slot, timeout, read_only });
        self.slots[slot] = Model::default();
        self.become_super(slot);
    }

    fn become_super(&mut self, slot: usize) {
        if slot == SUPER && self.world.digest {
            self.send_alone(slot, op::AUTH, auth(Some(b"digest"), Some(b"super:test")));
        }
    }

    fn burst(&mut self, slot: usize) {
        let length = match self.random.below(100) {
            0..35 => 1,
            35..80 => 2 + self.random.below(8),
            _ => 2 + self.random.below(BURST - 1),
        };
        self.in_burst = length > 1;
        if self.world.digest && self.random.percent(2) {
            // At the front: how far the pipeline was would decide about its effect on events.
            let (scheme, data) = *self.random.pick(&AUTHS);
            self.send(slot, Made { op: op::AUTH, back: None, body: auth(Some(scheme), data), last: false });
        }
        for _ in 0..length {
            let made = self.made(slot);
            let last = made.last;
            self.send(slot, made);
            if last {
                break;
            }
        }
        self.in_burst = false;
        self.steps.push(Step::Await);
    }

    /// One by one below a hard quota, until it is full or far from it.
    fn fill_quota(&mut self, slot: usize) {
        for _ in 0..8 {
            let path = *self.random.pick(&["/q/a", "/q/b", "/q/b/c", "/q/s-"]);
            let path = Some(path.as_bytes());
            let data = *self.random.pick(&DATA);
            match self.random.below(6) {
                0 => self.send_alone(slot, op::DELETE, Writer::new().bytes(path).int(-1).0),
                1 | 2 => self.send_alone(slot, op::SET_DATA, Writer::new().bytes(path).bytes(data).int(-1).0),
                _ => {
                    let flags = *self.random.pick(&[0, 0, 1, 2]);
                    self.send_alone(slot, op::CREATE, create(path, data, Some(OPEN), flags));
                }
            }
        }
    }

    fn reconnect(&mut self, slot: usize) {
        if self.random.percent(75) {
            self.steps.push(Step::Cut { slot });
        }
        if self.random.percent(25) {
            let password = *self.random.pick(&[Password::Right, Password::Wrong, Password::Null]);
            let seen = if password == Password::Right { Seen::Future } else { Seen::Last };
            self.steps.push(Step::Resume { slot, timeout: LONG_TIMEOUT, password, seen });
        }
        self.resume(slot);
    }

    /// With the right password, and then perhaps the watches of before.
    fn resume(&mut self, slot: usize) {
        let timeout = *self.random.pick(&[LONG_TIMEOUT, LONG_TIMEOUT - 1000, i32::MAX]);
        let seen = *self.random.pick(&[Seen::Last, Seen::Last, Seen::Zero]);
        self.steps.push(Step::Resume { slot, timeout, password: Password::Right, seen });
        self.become_super(slot);
        let watched = std::mem::take(&mut self.slots[slot].watched);
        if self.may_set_watches(slot) && self.random.percent(70) {
            let old = watched[3].is_empty() && watched[4].is_empty() && self.random.percent(50);
            let mut body = Writer::new().long(0);
            for list in &watched[..if old { 3 } else { 5 }] {
                body = list.iter().fold(body.int(list.len() as i32), |body, path| body.text(path));
            }
            let op = if old { op::SET_WATCHES } else { op::SET_WATCHES2 };
            let back = Some(*self.random.pick(&[0, 0, 1, 3, 10]));
            self.send(slot, Made { op, back, body: body.0, last: false });
            self.steps.push(Step::Await);
            self.slots[slot].watched = watched;
        }
    }

    fn may_set_watches(&self, slot: usize) -> bool {
        self.all_may_read || slot == SUPER
    }

    fn close(&mut self, slot: usize) {
        self.in_burst = true;
        for _ in 0..self.random.below(4) {
            let made = self.made(slot);
            if !made.last {
                self.send(slot, made);
            }
        }
        self.in_burst = false;
        self.send_alone(slot, op::CLOSE_SESSION, Vec::new());
        if self.random.percent(30) {
            // It is gone.
            let gone =
                Step::Resume { slot, timeout: LONG_TIMEOUT, password: Password::Right, seen: Seen::Last };
            self.steps.push(gone);
        }
        self.open(slot);
    }

    fn bad_auth(&mut self, slot: usize) {
        let (scheme, data) = *self.random.pick(&BAD_AUTHS);
        self.send_alone(slot, op::AUTH, auth(scheme, data));
        self.resume(slot);
    }

    fn unknown_op(&mut self, slot: usize) {
        let op = *self.random.pick(&UNKNOWN_OPS);
        let body = Writer::new().text(b"/t").int(-1).0;
        self.send_alone(slot, op, body);
        self.resume(slot);
    }

    fn own_operation(&mut self, slot: usize) {
        if self.random.percent(50) {
            self.send_alone(slot, op::DELETE_CONTAINER, Writer::new().text(b"/no-such-znode").0);
        } else {
            self.send_alone(slot, op::CREATE_SESSION, Writer::new().int(LONG_TIMEOUT).0);
        }
        self.resume(slot);
    }

    fn garbage(&mut self, slot: usize) {
        let bytes: &[u8] = self.random.pick::<&[u8]>(&[
            b"\xff\xff\xff\xff",
            b"\x7f\xff\xff\xff",
            b"\x00\x10\x00\x00",
            b"\0\0\0\0",
            b"\0\0\0\x02\0\0",
            b"\0\0\0\x07\0\0\0\x01\0\0\0",
            b"GET / HTTP/1.1\r\n\r\n",
            b"ruok",
            b"\0\0\0\x0a\0\0\0\x01\0\0\0\x64\0\0",
            b"\0\0\0\x08\0\0\0\x01\0\0\0\x66",
            b"\0\0\0\x0c\0\0\0\x01\0\0\0\x66\xff\xff\xff\xff",
        ]);
        self.steps.push(Step::Raw { slot, bytes: bytes.to_vec() });
        self.resume(slot);
    }

    fn probe(&mut self) {
        let seen = *self.random.pick(&[0, 0, -1, i64::MIN, i64::MAX]);
        let timeout = *self.random.pick(&[0, -5, 500, 501, 6000, i32::MAX, i32::MIN]);
        let session = *self.random.pick(&[0, 0, 0, 1, -1, 0x0100_0000_0000_0000]);
        let password: Option<&[u8]> =
            *self.random.pick::<Option<&[u8]>>(&[Some(&[0; 16]), Some(b""), None, Some(&[9; 40])]);
        let read_only = *self.random.pick(&[Some(0), Some(1), Some(255), None]);
        let mut body = hello(seen, timeout, session, password, read_only);
        if self.random.percent(20) {
            body[0] = 7;
        }
        match self.random.below(10) {
            0 => body.truncate(self.random.below(body.len())),
            1 => body.extend_from_slice(b"more"),
            _ => {}
        }
        self.steps.push(Step::Probe { body });
    }

    /// A session of its own with the shortest timeout, which then falls silent.
    fn expire(&mut self) {
        if self.random.percent(75) {
            return;
        }
        let slot = self.random.below(SLOTS - 1);
        self.send_alone(slot, op::CLOSE_SESSION, Vec::new());
        self.steps.push(Step::Open { slot, timeout: 0, read_only: Some(0) });
        for path in ["/t/a/b", "/u/v", "/t/mortal-", "/e/f", "/v0/mortal"] {
            let flags = *self.random.pick(&[1, 1, 3]);
            let body = create(Some(path.as_bytes()), Some(b"m"), Some(OPEN), flags);
            self.send(slot, Made { op: op::CREATE, back: None, body, last: false });
        }
        self.steps.push(Step::Await);
        self.steps.push(Step::Expire { slot });
        self.open(slot);
    }

    /// A znode that goes by itself.
    fn removal(&mut self, slot: usize) {
        if !self.world.removals {
            return;
        }
        // Below a znode that nobody deletes.
        let path = b"/v0/goes";
        let watch = Writer::new().text(path).int(*self.random.pick(&[0, 1])).0;
        self.send(slot, Made { op: op::ADD_WATCH, back: None, body: watch, last: false });
        if self.random.percent(50) {
            let body = create(Some(path), Some(b""), Some(OPEN), 5);
            let ttl = *self.random.pick(&[1, 20]);
            self.send_alone(slot, op::CREATE_TTL, Writer::new().raw(&body).long(ttl).0);
        } else {
            // Only a container that had a child goes.
            let container = create(Some(path), Some(b""), Some(OPEN), 4);
            self.send(slot, Made { op: op::CREATE_CONTAINER, back: None, body: container, last: false });
            let child = create(Some(b"/v0/goes/c"), Some(b""), Some(OPEN), 0);
            self.send(slot, Made { op: op::CREATE, back: None, body: child, last: false });
            self.send_alone(slot, op::DELETE, Writer::new().text(b"/v0/goes/c").int(-1).0);
        }
        self.steps.push(Step::Removal { slot });
        self.send_alone(slot, op::EXISTS, Writer::new().text(path).byte(0).0);
    }

    /// Several sessions at once, each below its own znode.
    fn together(&mut self) {
        self.make_own_subtrees();
        for slot in 0..SLOTS {
            for _ in 0..1 + self.random.below(16) {
                let made = self.made_below_own(slot);
                self.send(slot, made);
            }
        }
        self.steps.push(Step::AwaitTogether);
    }

    fn made_below_own(&mut self, slot: usize) -> Made {
        let ops =
            [1, 1, 15, 15, 2, 2, 3, 4, 4, 5, 5, 5, 6, 8, 9, 11, 12, 14, 14, 17, 18, 22, 103, 104, 106, 107];
        let op = *self.random.pick(&ops);
        let body = self.body_below_own(slot, op);
        Made { op, back: None, body, last: false }
    }

    fn body_below_own(&mut self, slot: usize, op: i32) -> Vec<u8> {
        let child = *self.random.pick(&["a", "a/b", "c", "s-", "c/d"]);
        let path = format!("/v{slot}/{child}").into_bytes();
        let path = Some(&path[..]);
        let version = self.version();
        match op {
            op::CREATE | op::CREATE2 => {
                let flags = *self.random.pick(&[0, 0, 0, 1, 2, 3]);
                create(path, *self.random.pick(&DATA), Some(OPEN), flags)
            }
            op::DELETE | op::CHECK => Writer::new().bytes(path).int(version).0,
            op::SET_DATA => Writer::new().bytes(path).bytes(*self.random.pick(&DATA)).int(version).0,
            op::EXISTS | op::GET_DATA | op::GET_CHILDREN | op::GET_CHILDREN2 => {
                Writer::new().bytes(path).byte(u8::from(self.random.percent(40))).0
            }
            op::CHECK_WATCHES | op::REMOVE_WATCHES | op::ADD_WATCH => {
                Writer::new().bytes(path).int(self.random.below(4) as i32).0
            }
            op::MULTI => self.multi(&[1, 15, 2, 5, 13], |it, op| it.body_below_own(slot, op)),
            op::MULTI_READ => self.multi(&[4, 8], |it, op| it.body_below_own(slot, op)),
            op::WHO_AM_I | op::PING => Vec::new(),
            _ => Writer::new().bytes(path).0,
        }
    }

    // Single requests.

    fn made(&mut self, slot: usize) -> Made {
        let mut op = *self.random.pick(&OPS);
        if self.random.permille(5) {
            op = op::SASL;
        }
        while (matches!(op, op::SET_WATCHES | op::SET_WATCHES2) && !self.may_set_watches(slot))
            || (self.world.removals && matches!(op, op::CREATE_CONTAINER | op::CREATE_TTL))
        {
            op = *self.random.pick(&OPS);
        }
        let mut made = self.body(slot, op);
        self.bend(&mut made);
        made
    }

    /// Cuts, stretches and changes bytes, now and then.
    fn bend(&mut self, made: &mut Made) {
        let fixed = made.op == op::SASL || (self.world.removals && made.op == op::MULTI);
        if fixed || made.body.is_empty() {
            return;
        }
        let before = made.body.clone();
        let at = self.random.below(made.body.len());
        let has_list = matches!(made.op, 1 | 7 | 14 | 15 | 19 | 21);
        match self.random.below(1000) {
            0..30 => made.body.truncate(at),
            30..45 => made.body.extend_from_slice(b"trailing"),
            // Who may read is to stay as it is.
            _ if has_list && self.all_may_read && self.world.digest => return,
            45..60 => made.body[at] ^= 1 << self.random.below(8),
            60..75 if at + 4 <= made.body.len() => {
                made.body[at..at + 4].copy_from_slice(&self.random.pick(&ODD_INTS).to_be_bytes());
            }
            _ => return,
        }
        made.last = true;
        // Java's server would stop: at such a create, and at the text of a quota that it cannot parse.
        if is_poison(made.op, &made.body) || before.windows(10).any(|part| part == b"zookeeper_") {
            made.body = before;
        }
    }

    fn path(&mut self) -> Option<Vec<u8>> {
        let found: &[u8] = match self.random.below(1000) {
            0..820 => self.random.pick(&PATHS).as_bytes(),
            820..900 if !self.in_burst => self.random.pick(&HARD_QUOTA).as_bytes(),
            820..850 => self.random.pick(&SOFT_QUOTA).as_bytes(),
            850..900 => self.random.pick(&PATHS).as_bytes(),
            900..905 => return None,
            _ => self.random.pick::<&[u8]>(&ODD_PATHS),
        };
        Some(found.to_vec())
    }

    /// Also those which others write when several send at once.
    fn watched_path(&mut self) -> Option<Vec<u8>> {
        match self.random.below(10) {
            0 => Some(format!("/v{}", self.random.below(SLOTS)).into_bytes()),
            1 => Some(format!("/v{}/a", self.random.below(SLOTS)).into_bytes()),
            _ => self.path(),
        }
    }

    fn version(&mut self) -> i32 {
        *self.random.pick(&[-1, -1, -1, -1, -1, 0, 0, 1, 2, -2])
    }

    fn data(&mut self, path: Option<&[u8]>) -> Option<&'static [u8]> {
        let path = path.unwrap_or_default();
        if !path.ends_with(b"zookeeper_limits") && !path.ends_with(b"zookeeper_stats") {
            let large = !self.in_burst && !self.in_multi && self.random.permille(5);
            return if large { Some(LARGE) } else { *self.random.pick(&DATA) };
        }
        let hard = HARD_QUOTA.iter().any(|hard| hard.as_bytes() == path);
        Some(if hard { *self.random.pick(&HARD_LIMITS) } else { *self.random.pick(&SOFT_LIMITS) }.as_bytes())
    }

    fn acl(&mut self) -> Option<Acl> {
        if self.random.percent(80) {
            return Some(OPEN);
        }
        if self.all_may_read && self.world.digest {
            return ACLS[*self.random.pick(&REFUSED_ACLS)];
        }
        *self.random.pick(&ACLS)
    }

    fn body(&mut self, slot: usize, op: i32) -> Made {
        let mut last = false;
        let mut back = None;
        let path = self.path();
        let path = path.as_deref();
        let body = match op {
            op::CREATE | op::CREATE2 | op::CREATE_CONTAINER | op::CREATE_TTL => {
                let (body, ends) = self.creation(op, path);
                last = ends;
                body
            }
            op::DELETE | op::CHECK => Writer::new().bytes(path).int(self.version()).0,
            op::SET_DATA => {
                let data = self.data(path);
                Writer::new().bytes(path).bytes(data).int(self.version()).0
            }
            op::SET_ACL => {
                // Java goes by the list of before until this one is applied.
                last = true;
                acls(Writer::new().bytes(path), self.acl()).int(self.version()).0
            }
            op::EXISTS | op::GET_DATA | op::GET_CHILDREN | op::GET_CHILDREN2 => {
                let watch = self.random.percent(30);
                let watched = if watch { self.watched_path() } else { path.map(<[u8]>::to_vec) };
                if watch && let Some(path) = &watched {
                    let list = match op {
                        op::GET_DATA => 0,
                        op::EXISTS => 1,
                        _ => 2,
                    };
                    self.slots[slot].watched[list].push(path.clone());
                }
                Writer::new()
                    .bytes(watched.as_deref())
                    .byte(if watch { *self.random.pick(&[1, 1, 2, 255]) } else { 0 })
                    .0
            }
            op::GET_ACL | op::SYNC | op::GET_EPHEMERALS | op::GET_ALL_CHILDREN_NUMBER => {
                let short = op == op::GET_EPHEMERALS && self.random.percent(50);
                let prefix: &[u8] =
                    self.random.pick::<&[u8]>(&[b"", b"/", b"/t", b"/t/a", b" / ", b"\0", b"\t\r\n ", b"t"]);
                Writer::new().bytes(if short { Some(prefix) } else { path }).0
            }
            op::MULTI => {
                let odd = self.random.percent(5);
                let ops: &[i32] =
                    if odd { &[1, 15, 5, 7, 8, 4, 12, 14, -1] } else { &[1, 1, 15, 19, 21, 2, 5, 5, 13] };
                let ops: Vec<i32> =
                    ops.iter().copied().filter(|op| !self.world.removals || !matches!(op, 19 | 21)).collect();
                self.in_multi = true;
                let body = self.multi(&ops, |it, op| {
                    let made = it.body(slot, op);
                    last |= made.last;
                    made.body
                });
                self.in_multi = false;
                body
            }
            op::MULTI_READ => {
                let ops: &[i32] = if self.random.percent(10) { &[4, 8, 5, 3, 12, 2] } else { &[4, 8] };
                self.multi(ops, |it, op| it.body(slot, op).body)
            }
            op::RECONFIG => Writer::new().int(-1).int(-1).bytes(path).long(-1).0,
            op::CHECK_WATCHES | op::REMOVE_WATCHES => {
                let path = self.watched_path();
                Writer::new().bytes(path.as_deref()).int(*self.random.pick(&[1, 2, 3, 4, 5, 1, 2, 3, 0, 6])).0
            }
            op::ADD_WATCH => {
                let path = self.watched_path();
                let mode = *self.random.pick(&[0, 1, 0, 1, 0, 1, 2, -1]);
                if let (Some(path), 0 | 1) = (&path, mode) {
                    self.slots[slot].watched[3 + mode as usize].push(path.clone());
                }
                Writer::new().bytes(path.as_deref()).int(mode).0
            }
            op::SET_WATCHES | op::SET_WATCHES2 => {
                back = Some(*self.random.pick(&[0, 1, 5, 100]));
                self.lists(if op == op::SET_WATCHES { 3 } else { 5 })
            }
            op::SASL => Writer::new().bytes(*self.random.pick(&[Some(&b""[..]), Some(b"token")])).0,
            op::PING => self.random.pick::<&[u8]>(&[b"", b"", b"body"]).to_vec(),
            _ => Vec::new(),
        };
        Made { op, back, body, last }
    }

    fn lists(&mut self, count: usize) -> Vec<u8> {
        let mut body = Writer::new().long(0);
        for _ in 0..count {
            if self.random.percent(2) {
                body = body.int(*self.random.pick(&[-1, -2]));
                continue;
            }
            let length = *self.random.pick(&[0, 1, 2, 3]);
            body = body.int(length);
            for _ in 0..length {
                body = body.bytes(self.watched_path().as_deref());
            }
        }
        body.0
    }

    /// The body, and whether it is to be the last of its burst.
    fn creation(&mut self, op: i32, path: Option<&[u8]>) -> (Vec<u8>, bool) {
        let mut flags = *self.random.pick(&[0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 7, -1]);
        if flags == 4 && (self.world.removals || self.random.percent(70)) {
            flags = 0;
        }
        if path.is_some_and(|path| path.starts_with(b"/zookeeper/quota")) && matches!(flags, 1 | 3) {
            // In which order a session's ephemerals go is free, and a quota that went first would not count the rest.
            flags = 0;
        }
        let data = self.data(path);
        let acl = self.acl();
        // An id that is null makes Java fail half-way in a multi, and keep what it had prepared until that is applied.
        let half_way = self.in_multi && acl.is_some_and(|acl| acl.iter().any(|entry| entry.2.is_none()));
        if op == op::CREATE_TTL {
            flags = *self.random.pick(&[5, 5, 5, 5, 6, 6, 7, -1, 0, 1, 4]);
            let ttl = *self.random.pick(&[1_000_000, 1, 0, -1, (1 << 40) - 1, 1 << 40, i64::MIN]);
            let body = Writer::new().raw(&create(path, data, acl, flags)).long(ttl).0;
            if is_poison(op, &body) && !self.in_multi {
                return (Writer::new().raw(&create(path, data, acl, 5)).long(ttl).0, false);
            }
            return (body, half_way);
        }
        if op == op::CREATE_CONTAINER {
            // With other flags it is prepared as one kind of znode and applied as a container.
            flags = *self.random.pick(if self.in_multi { &[4, 4, 0, 7][..] } else { &[4, 4, 4, 0, 1, 3, 5] });
            return (create(path, data, acl, flags), half_way || flags != 4);
        }
        (create(path, data, acl, flags), half_way)
    }

    fn multi(&mut self, ops: &[i32], mut body: impl FnMut(&mut Self, i32) -> Vec<u8>) -> Vec<u8> {
        let mut out = Writer::new();
        for _ in 0..*self.random.pick(&[0, 1, 2, 2, 3, 4, 6]) {
            let op = *self.random.pick(ops);
            let part = body(self, op);
            out = out.int(op).byte(0).int(-1).raw(&part);
        }
        out.int(-1).byte(1).int(-1).0
    }
}

fn create(path: Option<&[u8]>, data: Option<&[u8]>, acl: Option<Acl>, flags: i32) -> Vec<u8> {
    acls(Writer::new().bytes(path).bytes(data), acl).int(flags).0
}

fn acls(to: Writer, acl: Option<Acl>) -> Writer {
    let Some(acl) = acl else { return to.int(-1) };
    acl.iter()
        .fold(to.int(acl.len() as i32), |to, (perms, scheme, id)| to.int(*perms).bytes(*scheme).bytes(*id))
}

fn auth(scheme: Option<&[u8]>, data: Option<&[u8]>) -> Vec<u8> {
    Writer::new().int(0).bytes(scheme).bytes(data).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::{parse, print};
    use crate::server::WORLDS;

    #[test]
    fn a_seed_makes_the_same_script_again() {
        for world in &WORLDS {
            let steps = script(7, world, 500);
            assert_eq!(steps, script(7, world, 500));
            assert_ne!(steps, script(8, world, 500));
            let requests = steps.iter().filter(|step| matches!(step, Step::Send { .. })).count();
            assert!(requests >= 500);
            assert_eq!(parse(&print(&steps, crate::request::describe)), Ok(steps));
        }
    }

    #[test]
    fn nothing_is_sent_that_stops_javas_server() {
        for seed in 0..200 {
            for step in script(seed, &WORLDS[0], 300) {
                if let Step::Send { op, body, .. } = step {
                    assert!(!is_poison(op, &body));
                }
            }
        }
    }
}
