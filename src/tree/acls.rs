//! ACL lists: interned, as a million znodes with the same list share one copy (`ReferenceCountedACLCache`), and checked in a
//! time that does not grow with their length.

use super::node::AclId;
use crate::jute::records::{Acl, Id};
use crate::model::{Budget, Net, Width, perms};
use bytes::{Bytes, BytesMut};
use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, LazyLock, OnceLock};

/// Entries that a check looks at one by one; a longer list gets an index when it is first checked.
const SHORT: usize = 16;

/// A list, shared.
#[derive(Debug, Clone)]
pub struct AclList(Arc<Listed>);

#[derive(Debug)]
struct Listed {
    entries: Box<[Acl<Bytes>]>,
    index: OnceLock<Index>,
}

/// What the entries of a long list grant together.
#[derive(Debug, Default)]
struct Index {
    schemes: HashMap<Bytes, Scheme>,
    nets: HashMap<Net, i32>,
    /// How wide the nets are: as many looks as there are widths find all that an address is in.
    widths: BTreeSet<Width>,
}

#[derive(Debug, Default)]
struct Scheme {
    /// What all its entries grant.
    all: i32,
    by_name: HashMap<Bytes, i32>,
}

/// What an id of a connection is compared with.
#[derive(Debug, Clone, Copy)]
pub enum AclMatch<'a> {
    /// The entry of this scheme and id.
    Exactly(&'a [u8], &'a [u8]),
    /// Every entry of the scheme.
    Scheme(&'a [u8]),
    /// Entries of the scheme `ip` that this address is in.
    Address(&'a [u8]),
}

impl AclList {
    /// The permissions that all matching entries give together.
    pub fn granted(&self, to: AclMatch<'_>, work: &Budget) -> i32 {
        if self.len() <= SHORT {
            work.spend(self.len());
            let matching = self.iter().filter(|acl| is_match(&acl.id, to));
            return matching.fold(0, |granted, acl| granted | acl.perms);
        }
        let index = self.0.index.get_or_init(|| {
            work.spend(self.len());
            Index::of(self)
        });
        index.granted(to, work)
    }
}

fn is_match(id: &Id<Bytes>, to: AclMatch<'_>) -> bool {
    match to {
        AclMatch::Exactly(scheme, name) => id.scheme == scheme && id.id == name,
        AclMatch::Scheme(scheme) => id.scheme == scheme,
        AclMatch::Address(address) => {
            let nets = || Some((Net::parse(&id.id)?, Net::parse(address)?));
            id.scheme == "ip" && nets().is_some_and(|(net, address)| net.contains(&address))
        }
    }
}

impl Index {
    fn of(entries: &[Acl<Bytes>]) -> Self {
        let mut index = Self::default();
        for Acl { perms, id } in entries {
            let scheme = index.schemes.entry(id.scheme.clone()).or_default();
            scheme.all |= perms;
            *scheme.by_name.entry(id.id.clone()).or_default() |= perms;
            if id.scheme == "ip"
                && let Some(net) = Net::parse(&id.id)
            {
                *index.nets.entry(net).or_default() |= perms;
                index.widths.insert(net.width());
            }
        }
        index
    }

    fn granted(&self, to: AclMatch<'_>, work: &Budget) -> i32 {
        work.spend(1);
        match to {
            AclMatch::Exactly(scheme, name) => {
                self.schemes.get(scheme).and_then(|scheme| scheme.by_name.get(name)).copied().unwrap_or(0)
            }
            AclMatch::Scheme(scheme) => self.schemes.get(scheme).map_or(0, |scheme| scheme.all),
            AclMatch::Address(address) => {
                let Some(address) = Net::parse(address) else { return 0 };
                work.spend(self.widths.len());
                let nets = self.widths.iter().filter_map(|width| self.nets.get(&address.at(*width)?));
                nets.fold(0, |granted, perms| granted | perms)
            }
        }
    }
}

/// Nearly every list is the open one: all share it.
static OPEN: LazyLock<AclList> = LazyLock::new(|| vec![open_entry()].into());

impl From<&[Acl<Bytes>]> for AclList {
    fn from(entries: &[Acl<Bytes>]) -> Self {
        if *entries == OPEN[..] { OPEN.clone() } else { entries.to_vec().into() }
    }
}

impl From<Vec<Acl<Bytes>>> for AclList {
    fn from(entries: Vec<Acl<Bytes>>) -> Self {
        Self(Arc::new(Listed { entries: entries.into(), index: OnceLock::new() }))
    }
}

impl Deref for AclList {
    type Target = [Acl<Bytes>];
    fn deref(&self) -> &[Acl<Bytes>] {
        &self.0.entries
    }
}

impl Borrow<[Acl<Bytes>]> for AclList {
    fn borrow(&self) -> &[Acl<Bytes>] {
        self
    }
}

impl Hash for AclList {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl PartialEq for AclList {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for AclList {}

#[derive(Debug)]
pub(super) struct AclTable {
    open: AclList,
    /// Place n holds the list of id n + 1, as Java counts them, and how often it is used.
    lists: Vec<Option<(AclList, u64)>>,
    by_list: HashMap<AclList, AclId>,
    /// Ids that were in use.
    free: Vec<AclId>,
}

impl AclTable {
    pub fn new() -> Self {
        Self { open: OPEN.clone(), lists: Vec::new(), by_list: HashMap::new(), free: Vec::new() }
    }

    /// The id of `list`, with one more use.
    ///
    /// An id is used again once nobody uses its list, also while a snapshot is under way: a znode that is not written yet uses
    /// the list that it had when the walk began.
    pub fn acquire(&mut self, list: &[Acl<Bytes>]) -> AclId {
        if list == &self.open[..] {
            return AclId::OPEN;
        }
        if let Some(id) = self.by_list.get(list) {
            let id = *id;
            self.share(id);
            return id;
        }
        let list = unshared(list);
        let id = self.free.pop().unwrap_or_else(|| {
            self.lists.push(None);
            let id = u32::try_from(self.lists.len()).ok().map(AclId).filter(|id| *id != AclId::OPEN);
            id.expect("fewer lists are in use than there are znodes")
        });
        self.lists[place(id)] = Some((list.clone(), 1));
        self.by_list.insert(list, id);
        id
    }

    /// One more use of a list that is interned.
    pub fn share(&mut self, id: AclId) {
        if id != AclId::OPEN {
            self.lists[place(id)].as_mut().expect("a shared list is interned").1 += 1;
        }
    }

    pub fn release(&mut self, id: AclId) {
        if id == AclId::OPEN {
            return;
        }
        let entry = &mut self.lists[place(id)];
        let uses = &mut entry.as_mut().expect("a znode's ACL is interned").1;
        *uses -= 1;
        if *uses == 0 {
            let (list, _) = entry.take().expect("looked at above");
            self.by_list.remove(&list);
            self.free.push(id);
        }
    }

    #[inline]
    pub fn list(&self, id: AclId) -> &AclList {
        if id == AclId::OPEN {
            return &self.open;
        }
        &self.lists[place(id)].as_ref().expect("a znode's ACL is interned").0
    }

    /// All lists but the open one, by their ids.
    pub fn entries(&self) -> impl Iterator<Item = (AclId, &AclList)> {
        let lists = (1..).map(AclId).zip(&self.lists);
        lists.filter_map(|(id, entry)| entry.as_ref().map(|(list, _)| (id, list)))
    }
}

fn place(id: AclId) -> usize {
    id.0 as usize - 1
}

/// A copy that does not keep the request's whole frame alive.
fn unshared(list: &[Acl<Bytes>]) -> AclList {
    let mut bytes =
        BytesMut::with_capacity(list.iter().map(|acl| acl.id.scheme.len() + acl.id.id.len()).sum());
    for acl in list {
        bytes.extend_from_slice(&acl.id.scheme);
        bytes.extend_from_slice(&acl.id.id);
    }
    let mut bytes = bytes.freeze();
    let copy = |Acl { perms, id }: &Acl<Bytes>| {
        let (scheme, name) = (bytes.split_to(id.scheme.len()), bytes.split_to(id.id.len()));
        Acl { perms: *perms, id: Id { scheme, id: name } }
    };
    list.iter().map(copy).collect::<Vec<_>>().into()
}

/// `world:anyone` with all permissions (`ZooDefs.Ids.OPEN_ACL_UNSAFE`).
pub fn open_entry() -> Acl<Bytes> {
    entry(perms::ALL, b"world", b"anyone")
}

pub fn entry(perms: i32, scheme: &'static [u8], id: &'static [u8]) -> Acl<Bytes> {
    Acl { perms, id: Id { scheme: Bytes::from_static(scheme), id: Bytes::from_static(id) } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(name: usize) -> Vec<Acl<Bytes>> {
        vec![Acl {
            perms: 31,
            id: Id { scheme: Bytes::from_static(b"digest"), id: format!("u{name}:h").into() },
        }]
    }

    #[test]
    fn ids_never_run_out() {
        let mut table = AclTable::new();
        let kept = table.acquire(&list(0));
        for name in 1..100_000 {
            let id = table.acquire(&list(name));
            assert_eq!(table.acquire(&list(name)), id);
            assert!(id.0 <= 2 && id != kept, "{id:?} for one of two lists that are in use");
            table.release(id);
            table.release(id);
        }
        assert_eq!(table.entries().map(|(id, _)| id).collect::<Vec<_>>(), [kept]);
        assert_eq!((table.by_list.len(), &table.list(kept)[..]), (1, &list(0)[..]));
    }

    fn any_entries() -> impl Strategy<Value = Vec<Acl<Bytes>>> {
        let digest = (0..4_u8).prop_map(|name| ("digest", format!("u{name}:h")));
        let sasl = (0..4_u8).prop_map(|name| ("sasl", format!("u{name}")));
        let ip =
            (0..4_u8, 0..3_u8, 20..=32_u8).prop_map(|(c, d, bits)| ("ip", format!("10.0.{c}.{d}/{bits}")));
        let v6 = (0..4_u8, 100..=128_u8).prop_map(|(last, bits)| ("ip", format!("fe80::{last}/{bits}")));
        let id = prop_oneof![
            digest,
            sasl,
            ip,
            v6,
            Just(("ip", "no address".to_string())),
            Just(("world", "anyone".to_string()))
        ];
        let acl = (0..32_i32, id).prop_map(|(perms, (scheme, id))| Acl {
            perms,
            id: Id { scheme: Bytes::from_static(scheme.as_bytes()), id: id.into() },
        });
        prop::collection::vec(acl, 0..60)
    }

    proptest! {
        #[test]
        fn an_index_says_what_the_entries_say(entries in any_entries(), at in 0..4_u8, last in 0..4_u8) {
            let (index, work) = (Index::of(&entries), Budget::default());
            let list = AclList::from(entries);
            let (name, user) = (format!("u{at}:h"), format!("u{at}"));
            let (v4, v6) = (format!("10.0.{at}.{last}"), format!("fe80:0:0:0:0:0:0:{last}"));
            for to in [
                AclMatch::Exactly(b"digest", name.as_bytes()),
                AclMatch::Exactly(b"sasl", user.as_bytes()),
                AclMatch::Exactly(b"world", b"anyone"),
                AclMatch::Exactly(b"none", b""),
                AclMatch::Scheme(b"sasl"),
                AclMatch::Scheme(b"none"),
                AclMatch::Address(v4.as_bytes()),
                AclMatch::Address(v6.as_bytes()),
                AclMatch::Address(b"nowhere"),
            ] {
                let one_by_one = list.iter().filter(|acl| is_match(&acl.id, to)).fold(0, |all, acl| all | acl.perms);
                prop_assert_eq!(index.granted(to, &work), one_by_one, "{:?}", to);
                prop_assert_eq!(list.granted(to, &work), one_by_one, "{:?}", to);
            }
        }
    }

    /// The first check makes the index; each one after it takes the same steps whatever the length.
    #[test]
    fn a_check_takes_as_many_steps_in_a_long_list_as_in_a_short_one() {
        let steps = [400_usize, 4_000, 40_000].map(|count| {
            let ip = |at: usize| format!("10.{}.{}.{}/{}", at >> 16, at >> 8 & 255, at & 255, 20 + at % 13);
            let entries = (0..count)
                .map(|at| Acl { perms: 1, id: Id { scheme: Bytes::from_static(b"ip"), id: ip(at).into() } });
            let list = AclList::from(entries.collect::<Vec<_>>());
            let first = Budget::default();
            list.granted(AclMatch::Address(b"127.0.0.1"), &first);
            assert!(first.spent() < count + 100, "{} steps for an index of {count}", first.spent());
            let work = Budget::default();
            assert_eq!(list.granted(AclMatch::Address(b"127.0.0.1"), &work), 0);
            assert_eq!(list.granted(AclMatch::Address(b"10.0.0.7"), &work), 1);
            work.spent()
        });
        assert!(steps[0] < 40 && steps == [steps[0]; 3], "{steps:?}");
    }
}
