//! ZooKeeper's state as a simple model, and its transactions read by a reader of its own: nothing here shares code with
//! the server, so that what is wrong there can't be wrong here in the same way.

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// A transaction, as far as the model needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Txn {
    pub session: i64,
    pub cxid: i32,
    pub zxid: i64,
    pub change: Change,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// `owner`: of a container or a znode with a time to live, as the stat has it.
    Create {
        path: String,
        data: Vec<u8>,
        ephemeral: bool,
        owner: i64,
        parent_cversion: i32,
    },
    Delete {
        path: String,
    },
    /// A container that is empty, or a znode whose time has come.
    Remove {
        path: String,
    },
    SetData {
        path: String,
        data: Vec<u8>,
        version: i32,
    },
    SetAcl {
        path: String,
    },
    Check {
        path: String,
    },
    CreateSession {
        timeout: i32,
    },
    CloseSession {
        paths: Vec<String>,
    },
    Error {
        code: i32,
    },
    Multi(Vec<Change>),
    Reconfig,
}

impl Change {
    /// Whether it changes what the digest counts.
    pub fn is_success(&self) -> bool {
        match self {
            Self::Error { .. } | Self::Reconfig => false,
            Self::Multi(parts) => parts.iter().all(Self::is_success),
            Self::Create { .. }
            | Self::Delete { .. }
            | Self::Remove { .. }
            | Self::SetData { .. }
            | Self::SetAcl { .. }
            | Self::Check { .. }
            | Self::CreateSession { .. }
            | Self::CloseSession { .. } => true,
        }
    }
}

/// In place of an owner's id, with the time to live behind it.
const TTL: i64 = 0xff << 56;

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take(&mut self, len: usize) -> Result<&[u8], String> {
        if self.0.len() < len {
            return Err(format!("{len} bytes wanted, {} left", self.0.len()));
        }
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        Ok(taken)
    }

    fn int(&mut self) -> Result<i32, String> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into().map_err(|_| "4 bytes")?))
    }

    fn long(&mut self) -> Result<i64, String> {
        Ok(i64::from_be_bytes(self.take(8)?.try_into().map_err(|_| "8 bytes")?))
    }

    fn bytes(&mut self) -> Result<Vec<u8>, String> {
        let len = self.int()?;
        if len < 0 { Ok(Vec::new()) } else { Ok(self.take(len as usize)?.to_vec()) }
    }

    fn text(&mut self) -> Result<String, String> {
        String::from_utf8(self.bytes()?).map_err(|error| error.to_string())
    }

    fn acl(&mut self) -> Result<(), String> {
        for _ in 0..self.int()? {
            self.int()?;
            self.bytes()?;
            self.bytes()?;
        }
        Ok(())
    }

    fn change(&mut self, kind: i32) -> Result<Change, String> {
        Ok(match kind {
            1 | 15 => {
                let (path, data) = (self.text()?, self.bytes()?);
                self.acl()?;
                let ephemeral = self.take(1)?[0] != 0;
                Change::Create { path, data, ephemeral, owner: 0, parent_cversion: self.int()? }
            }
            19 | 21 => {
                let (path, data) = (self.text()?, self.bytes()?);
                self.acl()?;
                let parent_cversion = self.int()?;
                let owner = if kind == 19 { i64::MIN } else { self.long()? | TTL };
                Change::Create { path, data, ephemeral: false, owner, parent_cversion }
            }
            20 => Change::Remove { path: self.text()? },
            2 => Change::Delete { path: self.text()? },
            5 => Change::SetData { path: self.text()?, data: self.bytes()?, version: self.int()? },
            7 => {
                let path = self.text()?;
                self.acl()?;
                self.int()?;
                Change::SetAcl { path }
            }
            13 => {
                let path = self.text()?;
                self.int()?;
                Change::Check { path }
            }
            14 => {
                let count = self.int()?;
                let mut parts = Vec::new();
                for _ in 0..count {
                    let kind = self.int()?;
                    let data = self.bytes()?;
                    parts.push(Cursor(&data).change(kind)?);
                }
                Change::Multi(parts)
            }
            16 => {
                self.text()?;
                self.bytes()?;
                self.int()?;
                Change::Reconfig
            }
            -1 => Change::Error { code: self.int()? },
            -10 => Change::CreateSession { timeout: self.int()? },
            -11 => {
                let count = self.int()?;
                let mut paths = Vec::new();
                for _ in 0..count {
                    paths.push(self.text()?);
                }
                Change::CloseSession { paths }
            }
            other => return Err(format!("a transaction of type {other}")),
        })
    }
}

impl Txn {
    pub fn read(body: &[u8]) -> Result<Self, String> {
        let mut from = Cursor(body);
        let (session, cxid, zxid, _) = (from.long()?, from.int()?, from.long()?, from.long()?);
        let kind = from.int()?;
        Ok(Self { session, cxid, zxid, change: from.change(kind)? })
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    pub data: Vec<u8>,
    pub version: i32,
    /// How often its ACL list was set.
    pub lists: i32,
    /// Creates of children so far.
    pub created: i32,
    pub owner: i64,
    pub czxid: i64,
    pub mzxid: i64,
    pub pzxid: i64,
    pub children: BTreeSet<String>,
}

/// What happened to which znode: for watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Happened {
    Created,
    Deleted,
    Changed,
    Children,
}

#[derive(Debug, Clone)]
pub struct Model {
    pub nodes: BTreeMap<String, Node>,
    pub sessions: BTreeMap<i64, i32>,
    pub zxid: i64,
    /// For each path: zxids and what happened, in order.
    pub events: BTreeMap<String, Vec<(i64, Happened)>>,
    /// Names that were given to sequential znodes, by parent: none may come twice.
    pub suffixes: BTreeMap<String, i32>,
}

fn parent_of(path: &str) -> Option<&str> {
    let at = path.rfind('/')?;
    Some(if at == 0 { "/" } else { &path[..at] })
}

impl Default for Model {
    fn default() -> Self {
        let mut model = Self {
            nodes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            zxid: 0,
            events: BTreeMap::new(),
            suffixes: BTreeMap::new(),
        };
        for path in ["/", "/zookeeper", QUOTA] {
            model.nodes.insert(path.into(), Node::default());
        }
        model
    }
}

/// Below it are the quotas. The rest of `/zookeeper` is not the clients'.
const QUOTA: &str = "/zookeeper/quota";
/// What follows the path of a znode with a quota there.
const LIMITS: &str = "/zookeeper_limits";
const USAGE: &str = "/zookeeper_stats";
const QUOTA_EXCEEDED: i32 = -125;

impl Model {
    /// The znodes that are the clients'.
    pub fn own(&self) -> usize {
        self.nodes.keys().filter(|path| !path.starts_with("/zookeeper")).count()
    }

    /// The usage that each quota has to state: where it is stated, and the text.
    pub fn usages(&self) -> impl Iterator<Item = (&str, String)> {
        self.nodes.keys().filter_map(|stated| {
            let of = stated.strip_prefix(QUOTA)?.strip_suffix(USAGE)?;
            let is_below = |path: &str| {
                path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            let nodes = || self.nodes.iter().filter(|(path, _)| is_below(path)).map(|(_, node)| node);
            let bytes: usize = nodes().map(|node| node.data.len()).sum();
            Some((&stated[..], format!("count={},bytes={bytes}", nodes().count())))
        })
    }

    /// Applies the next transaction. Everything that is not as it should be is an error.
    pub fn apply(&mut self, txn: &Txn) -> Result<(), String> {
        let at = format!("transaction {:#x}", txn.zxid);
        if txn.zxid <= self.zxid {
            return Err(format!("{at} comes behind {:#x}", self.zxid));
        }
        let (old, new) = (self.zxid, txn.zxid);
        if !(new == old + 1 || (new >> 32 > old >> 32 && new as u32 == 1)) {
            return Err(format!("{at} follows {old:#x}: there is a gap"));
        }
        self.zxid = txn.zxid;
        self.change(txn, &txn.change).map_err(|what| format!("{at}: {what}"))
    }

    fn change(&mut self, txn: &Txn, change: &Change) -> Result<(), String> {
        match change {
            Change::Create { path, data, ephemeral, owner, parent_cversion } => {
                let owner = if *ephemeral { txn.session } else { *owner };
                self.create(txn, path, data, owner, *parent_cversion)
            }
            Change::Remove { path } => match self.nodes.get(path) {
                Some(node) if node.owner < 0 => self.delete(txn.zxid, path),
                other => Err(format!("removes {path}, which is {other:?}")),
            },
            Change::Delete { path } => self.delete(txn.zxid, path),
            Change::SetData { path, data, version } => {
                let node = self.nodes.get_mut(path).ok_or(format!("sets {path}, which is not there"))?;
                if *version != node.version + 1 {
                    return Err(format!("sets {path} to version {version} from {}", node.version));
                }
                node.data = data.clone();
                node.version = *version;
                node.mzxid = txn.zxid;
                self.event(txn.zxid, path, Happened::Changed);
                Ok(())
            }
            Change::SetAcl { path } => {
                let node =
                    self.nodes.get_mut(path).ok_or(format!("sets the list of {path}, which is not there"))?;
                node.lists += 1;
                Ok(())
            }
            Change::Check { path } if self.nodes.contains_key(path) => Ok(()),
            Change::Check { path } => Err(format!("checks {path}, which is not there")),
            Change::CreateSession { timeout } => match self.sessions.insert(txn.session, *timeout) {
                None => Ok(()),
                Some(_) => Err(format!("creates session {:#x} again", txn.session)),
            },
            Change::CloseSession { paths } => self.close(txn, paths),
            Change::Error { code: QUOTA_EXCEEDED }
                if !self.nodes.keys().any(|path| path.ends_with(LIMITS)) =>
            {
                Err("a quota refuses, and there is none".into())
            }
            Change::Error { .. } | Change::Reconfig => Ok(()),
            Change::Multi(parts) => {
                if parts.iter().any(|part| matches!(part, Change::Error { .. })) {
                    return Ok(());
                }
                parts.iter().try_for_each(|part| self.change(txn, part))
            }
        }
    }

    fn create(
        &mut self,
        txn: &Txn,
        path: &str,
        data: &[u8],
        owner: i64,
        parent_cversion: i32,
    ) -> Result<(), String> {
        let parent_path = parent_of(path).ok_or("a path without /")?.to_string();
        if self.nodes.contains_key(path) {
            return Err(format!("creates {path}, which is there"));
        }
        if owner > 0 && !self.sessions.contains_key(&txn.session) {
            return Err(format!("creates {path} for session {:#x}, which is not alive", txn.session));
        }
        let parent = self.nodes.get_mut(&parent_path).ok_or(format!("creates {path} without a parent"))?;
        if parent.owner > 0 {
            return Err(format!("creates {path} below an ephemeral"));
        }
        // What was there before the first client may have counted otherwise.
        if parent.created.checked_add(1) != Some(parent_cversion) && txn.session != 0 {
            return Err(format!("creates {path} with counter {parent_cversion} behind {}", parent.created));
        }
        parent.created = parent_cversion;
        parent.pzxid = txn.zxid;
        let name = path[path.rfind('/').unwrap_or(0) + 1..].to_string();
        if let Some(suffix) = name.len().checked_sub(10).and_then(|at| name[at..].parse::<i32>().ok()) {
            let last = self.suffixes.insert(parent_path.clone(), suffix);
            if last.is_some_and(|last| last >= suffix) {
                return Err(format!("creates {path} behind suffix {last:?}"));
            }
        }
        parent.children.insert(name);
        let node = Node {
            data: data.to_vec(),
            owner,
            czxid: txn.zxid,
            mzxid: txn.zxid,
            pzxid: txn.zxid,
            ..Node::default()
        };
        self.nodes.insert(path.to_string(), node);
        self.event(txn.zxid, path, Happened::Created);
        self.event(txn.zxid, &parent_path, Happened::Children);
        Ok(())
    }

    fn delete(&mut self, zxid: i64, path: &str) -> Result<(), String> {
        match self.nodes.get(path) {
            None => return Err(format!("deletes {path}, which is not there")),
            Some(node) if !node.children.is_empty() => {
                return Err(format!("deletes {path}, which has children"));
            }
            Some(_) => {}
        }
        self.nodes.remove(path);
        // A parent that is created again counts from zero.
        self.suffixes.remove(path);
        let parent_path = parent_of(path).ok_or("a path without /")?.to_string();
        if let Some(parent) = self.nodes.get_mut(&parent_path) {
            parent.children.remove(&path[path.rfind('/').unwrap_or(0) + 1..]);
            parent.pzxid = zxid;
        }
        self.event(zxid, path, Happened::Deleted);
        self.event(zxid, &parent_path, Happened::Children);
        Ok(())
    }

    fn close(&mut self, txn: &Txn, paths: &[String]) -> Result<(), String> {
        let mut listed: Vec<&String> = paths.iter().collect();
        listed.sort();
        let owned: Vec<&String> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.owner == txn.session && txn.session != 0)
            .map(|(path, _)| path)
            .collect();
        if listed != owned {
            return Err(format!("closes session {:#x} with {listed:?}, which owns {owned:?}", txn.session));
        }
        for path in paths {
            self.delete(txn.zxid, path)?;
        }
        // A session may be closed by its client and by the clock at once.
        self.sessions.remove(&txn.session);
        Ok(())
    }

    fn event(&mut self, zxid: i64, path: &str, happened: Happened) {
        self.events.entry(path.to_string()).or_default().push((zxid, happened));
    }
}

/// A log file read by a reader of its own.
#[derive(Debug, Default)]
pub struct LogFile {
    /// Zxid and body, in the file's order.
    pub records: Vec<(i64, Vec<u8>)>,
    /// Some of its records can't be read.
    pub is_damaged: bool,
}

const HEADER: usize = 16;

impl LogFile {
    /// Everything up to the first frame that is not whole.
    pub fn read(bytes: &[u8]) -> Self {
        let (mut records, mut is_damaged) = (Vec::new(), false);
        let mut rest = bytes.get(HEADER..).unwrap_or_default();
        while rest.len() > 12 {
            let checksum = i64::from_be_bytes(rest[..8].try_into().unwrap_or_default());
            let len = i32::from_be_bytes(rest[8..12].try_into().unwrap_or_default()) as usize;
            if checksum == 0 {
                // A sector of zeros, and not the end.
                is_damaged |= rest.iter().any(|byte| *byte != 0);
                break;
            }
            if len < 20 || rest.len() < 12 + len + 1 || rest[12 + len] != b'B' {
                is_damaged = true;
                break;
            }
            let body = &rest[12..12 + len];
            if checksum == adler32(body) {
                let zxid = i64::from_be_bytes(body[12..20].try_into().unwrap_or_default());
                records.push((zxid, body.to_vec()));
            } else {
                is_damaged = true;
            }
            rest = &rest[12 + len + 1..];
        }
        Self { records, is_damaged }
    }

    /// A file of these bodies.
    pub fn write(bodies: &[Bytes]) -> Vec<u8> {
        let mut file = b"ZKLG\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00".to_vec();
        for body in bodies {
            file.extend(adler32(body).to_be_bytes());
            file.extend((body.len() as i32).to_be_bytes());
            file.extend_from_slice(body);
            file.push(b'B');
        }
        file
    }
}

fn adler32(bytes: &[u8]) -> i64 {
    let step = |(a, b): (i64, i64), byte: &u8| {
        let a = (a + i64::from(*byte)) % 65521;
        (a, (b + a) % 65521)
    };
    let (a, b) = bytes.iter().fold((1, 0), step);
    b << 16 | a
}
