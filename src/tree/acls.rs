//! Interns ACL lists: a million znodes with the same list share one copy (`ReferenceCountedACLCache`).

use super::node::AclId;
use crate::jute::records::Acl;
use crate::model::perms;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub type AclList = Arc<[Acl<Bytes>]>;

#[derive(Debug)]
pub(super) struct AclTable {
    open: AclList,
    by_id: BTreeMap<AclId, (AclList, u64)>,
    by_list: HashMap<AclList, AclId>,
    next: u32,
}

impl AclTable {
    pub fn new() -> Self {
        let open = vec![open_entry()].into();
        Self { open, by_id: BTreeMap::new(), by_list: HashMap::new(), next: 1 }
    }

    /// The id of `list`, with one more use.
    pub fn acquire(&mut self, list: &[Acl<Bytes>]) -> AclId {
        if list == &self.open[..] {
            return AclId::OPEN;
        }
        if let Some(id) = self.by_list.get(list) {
            self.by_id.get_mut(id).expect("both maps hold the same lists").1 += 1;
            return *id;
        }
        let id = AclId(self.next);
        self.next += 1;
        let list: AclList = list.iter().map(unshared).collect();
        self.by_id.insert(id, (list.clone(), 1));
        self.by_list.insert(list, id);
        id
    }

    /// One more use of a list that is interned.
    pub fn share(&mut self, id: AclId) {
        if id != AclId::OPEN {
            self.by_id.get_mut(&id).expect("a shared list is interned").1 += 1;
        }
    }

    pub fn release(&mut self, id: AclId) {
        if id == AclId::OPEN {
            return;
        }
        let entry = self.by_id.get_mut(&id).expect("a znode's ACL is interned");
        entry.1 -= 1;
        if entry.1 == 0 {
            let (list, _) = self.by_id.remove(&id).expect("looked up above");
            self.by_list.remove(&list);
        }
    }

    #[inline]
    pub fn list(&self, id: AclId) -> &AclList {
        if id == AclId::OPEN { &self.open } else { &self.by_id[&id].0 }
    }

    pub fn entries(&self) -> impl ExactSizeIterator<Item = (AclId, &AclList)> {
        self.by_id.iter().map(|(id, (list, _))| (*id, list))
    }
}

/// A copy that does not keep the request's whole frame alive.
fn unshared(acl: &Acl<Bytes>) -> Acl<Bytes> {
    let mut copy = acl.clone();
    copy.id.scheme = Bytes::copy_from_slice(&copy.id.scheme);
    copy.id.id = Bytes::copy_from_slice(&copy.id.id);
    copy
}

/// `world:anyone` with all permissions (`ZooDefs.Ids.OPEN_ACL_UNSAFE`).
pub fn open_entry() -> Acl<Bytes> {
    entry(perms::ALL, b"world", b"anyone")
}

pub fn entry(perms: i32, scheme: &'static [u8], id: &'static [u8]) -> Acl<Bytes> {
    Acl {
        perms,
        id: crate::jute::records::Id { scheme: Bytes::from_static(scheme), id: Bytes::from_static(id) },
    }
}
