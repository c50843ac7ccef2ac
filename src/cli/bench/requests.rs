//! The requests of a load, encoded ahead: only xid and data change from one to the next.

use crate::jute::close_frame;
use crate::jute::records::{
    Acl, CreateRequest, DeleteRequest, GetDataRequest, Id, MultiHeader, RequestHeader, SetDataRequest,
};
use crate::model::{Op, perms};
use bytes::{BufMut, BytesMut};
use std::str::FromStr;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Get,
    Set,
    Create,
    Exists,
    Children,
    /// Percent of reads.
    Mix(u32),
    Multi(usize),
    Load,
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no workload; see zabra bench --help");
        Ok(match text.split_once(':') {
            None => match text {
                "get" => Kind::Get,
                "set" => Kind::Set,
                "create" => Kind::Create,
                "exists" => Kind::Exists,
                "children" => Kind::Children,
                "load" => Kind::Load,
                _ => return Err(wrong()),
            },
            Some(("mix", shares)) => {
                let (reads, writes) = shares.split_once('/').ok_or_else(wrong)?;
                let (reads, writes): (u32, u32) =
                    (reads.parse().map_err(|_| wrong())?, writes.parse().map_err(|_| wrong())?);
                if reads + writes == 0 {
                    return Err(wrong());
                }
                Kind::Mix(reads * 100 / (reads + writes))
            }
            Some(("multi", count)) => Kind::Multi(count.parse().map_err(|_| wrong())?),
            Some(_) => return Err(wrong()),
        })
    }
}

/// Which requests a load sends.
pub(super) struct Workload {
    kind: Kind,
    root: String,
    nodes: usize,
    data: Vec<u8>,
    reads: Vec<BytesMut>,
    writes: Vec<BytesMut>,
}

/// Children of one parent when a server is filled.
const FANOUT: usize = 1000;

impl Workload {
    pub fn new(kind: Kind, root: &str, nodes: usize, data_bytes: usize) -> Self {
        let data = vec![b'x'; data_bytes];
        let mut made = Self { kind, root: root.into(), nodes, data, reads: Vec::new(), writes: Vec::new() };
        if kind == Kind::Load {
            return made;
        }
        for node in 0..nodes {
            let path = made.path(node);
            let read = match kind {
                Kind::Exists => frame(Op::Exists, |out| {
                    GetDataRequest { path: Some(path.as_bytes()), watch: false }.encode(out)
                }),
                Kind::Children => frame(Op::GetChildren, |out| {
                    GetDataRequest { path: Some(made.root.as_bytes()), watch: false }.encode(out);
                }),
                _ => frame(Op::GetData, |out| {
                    GetDataRequest { path: Some(path.as_bytes()), watch: false }.encode(out)
                }),
            };
            let set = SetDataRequest { path: path.as_bytes(), data: Some(&made.data[..]), version: -1 };
            let write = match kind {
                Kind::Multi(count) => frame(Op::Multi, |out| {
                    for _ in 0..count {
                        MultiHeader { op: Op::SetData.code(), done: false, err: -1 }.encode(out);
                        set.encode(out);
                    }
                    MultiHeader { op: -1, done: true, err: -1 }.encode(out);
                }),
                _ => frame(Op::SetData, |out| set.encode(out)),
            };
            made.reads.push(read);
            made.writes.push(write);
        }
        made
    }

    fn path(&self, node: usize) -> String {
        format!("{}/n{node:07}", self.root)
    }

    pub fn nodes(&self) -> usize {
        self.nodes + 1
    }

    /// Appends the `at`-th request.
    #[inline]
    pub fn request(&self, at: u64, xid: i32, out: &mut BytesMut) {
        // A step that shares no factor with usual sizes spreads the load over all znodes.
        let node = (at.wrapping_mul(7919) % self.nodes as u64) as usize;
        let template = match self.kind {
            Kind::Get | Kind::Exists | Kind::Children => &self.reads[node],
            Kind::Set | Kind::Multi(_) => &self.writes[node],
            Kind::Mix(reads)
                if at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33 < u64::from(reads) * (1 << 31) / 100 =>
            {
                &self.reads[node]
            }
            Kind::Mix(_) => &self.writes[node],
            Kind::Create | Kind::Load => {
                let path = format!("{}/c{at:09}", self.root);
                let mut made = self.create(path.as_bytes());
                made[4..8].copy_from_slice(&xid.to_be_bytes());
                return out.extend_from_slice(&made);
            }
        };
        let start = out.len();
        out.extend_from_slice(template);
        out[start + 4..start + 8].copy_from_slice(&xid.to_be_bytes());
    }

    pub fn creates(&self) -> bool {
        self.kind == Kind::Create
    }

    fn create(&self, path: &[u8]) -> BytesMut {
        let open = Acl { perms: perms::ALL, id: Id { scheme: &b"world"[..], id: b"anyone" } };
        frame(Op::Create, |out| {
            CreateRequest { path, data: Some(&self.data[..]), acl: vec![open], flags: 0 }.encode(out);
        })
    }

    fn delete(&self, path: &[u8]) -> BytesMut {
        frame(Op::Delete, |out| DeleteRequest { path, version: -1 }.encode(out))
    }

    pub fn preparation(&self) -> impl Iterator<Item = BytesMut> {
        let root = self.create(self.root.as_bytes());
        std::iter::once(root).chain((0..self.nodes).map(|node| self.create(self.path(node).as_bytes())))
    }

    pub fn removal(&self, created: u64) -> impl Iterator<Item = BytesMut> {
        let made = (0..created).map(|at| self.delete(format!("{}/c{at:09}", self.root).as_bytes()));
        let nodes = (0..self.nodes).map(|node| self.delete(self.path(node).as_bytes()));
        made.chain(nodes).chain(std::iter::once_with(|| self.delete(self.root.as_bytes())))
    }

    pub fn load_len(&self) -> u64 {
        (1 + self.nodes.div_ceil(FANOUT) + self.nodes) as u64
    }

    /// The root, then parents each followed by their children.
    pub fn filling(&self) -> impl Iterator<Item = BytesMut> {
        let parent = |at: usize| format!("{}/p{at:05}", self.root);
        let nodes = (0..self.nodes).flat_map(move |node| {
            let above = parent(node / FANOUT);
            let first = (node % FANOUT == 0).then(|| self.create(above.as_bytes()));
            let node = self.create(format!("{above}/n{node:07}").as_bytes());
            first.into_iter().chain(std::iter::once(node))
        });
        std::iter::once(self.create(self.root.as_bytes())).chain(nodes)
    }
}

/// A framed request with xid 0.
fn frame(op: Op, body: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_i32(0);
    RequestHeader { xid: 0, op: op.code() }.encode(&mut out);
    body(&mut out);
    close_frame(&mut out, 0);
    out
}
