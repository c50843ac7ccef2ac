//! Turns a write request into a transaction, or into the error transaction that takes its place
//! (`PrepRequestProcessor`). Checks come in Java's order: a client can tell them apart.

use super::outstanding::{Change, Outstanding};
use super::{Rules, TOO_LARGE, acl};
use crate::ensemble::Ensemble;
use crate::jute::records::{
    Acl, AskedAcl, AskedAtVersion, AskedCreate, AskedCreateTtl, AskedSetAcl, AskedSetData, CheckVersionTxn,
    CloseSessionTxn, CreateContainerTxn, CreateSessionTxn, CreateTtlTxn, CreateTxn, DeleteRequest, DeleteTxn,
    ErrorTxn, Id, ReconfigRequest, SetAclTxn, SetDataTxn, StatPersisted, TxnDigest, TxnHeader,
};
use crate::jute::{DecodeError, SharedReader};
use crate::model::owner::{MAX_TTL_MS, Owner};
use crate::model::{Budget, CreateMode, ErrorCode, Op, SessionId, Zxid, path, perms};
use crate::tree::{AclList, CONFIG, Tree, content_crc, is_counted, node_digest};
use crate::wire::multi::{self, Part};
use crate::wire::quorum::ACTIVATE_HEAD;
use crate::wire::txn::{DIGEST_VERSION, MULTI_HEAD, PART_HEAD, Txn, TxnBody};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A write as it came from a client (or, for closeSession and deleteContainer, from the server itself).
#[derive(Debug, Clone)]
pub struct Request {
    pub session: SessionId,
    pub cxid: i32,
    pub op: Op,
    /// The request record.
    pub body: Bytes,
    /// The ids of the connection at the time of the request.
    pub auth: Arc<[Id<Bytes>]>,
}

/// Prepares requests in zxid order against "the tree plus all outstanding changes".
#[derive(Debug)]
pub struct Preparer {
    rules: Rules,
    pub(super) outstanding: Outstanding,
    /// What the tree's digest will be when all outstanding changes are applied.
    digest: u64,
    /// The namespaces whose quota refused a request: the first names of the paths.
    quota_exceeded: Vec<String>,
    /// A request was refused for the size of its transaction.
    too_large: bool,
}

/// Where and when a transaction happens, and how large it may be.
#[derive(Debug, Clone, Copy)]
struct At {
    zxid: Zxid,
    time: i64,
    session: SessionId,
    /// Bytes that its record may have.
    room: usize,
}

impl Preparer {
    /// `digest` is the tree's present one.
    pub fn new(rules: Rules, digest: u64) -> Self {
        Self {
            rules,
            outstanding: Outstanding::default(),
            digest,
            quota_exceeded: Vec::new(),
            too_large: false,
        }
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The namespaces whose quota refused a request since this was asked last, once for each refusal.
    pub fn take_quota_exceeded(&mut self) -> Vec<String> {
        std::mem::take(&mut self.quota_exceeded)
    }

    /// Whether a request was refused for the size of its transaction since this was asked last.
    pub fn take_too_large(&mut self) -> bool {
        std::mem::take(&mut self.too_large)
    }

    pub fn has_outstanding(&self) -> bool {
        !self.outstanding.is_empty()
    }

    /// The transaction of `request`. `session` is the outcome of the session check, which follows the decoding.
    pub fn prepare(
        &mut self,
        tree: &Tree,
        request: &Request,
        session: Result<(), ErrorCode>,
        zxid: Zxid,
        time: i64,
    ) -> Txn {
        let at = self.at(zxid, time, request.session);
        let body = self.body(tree, request, session, at).unwrap_or_else(error_txn);
        self.txn(request.cxid, at, body)
    }

    /// Deletes a container or TTL znode whose time has come: no session, no ACL. Fails if it is in use again.
    pub fn prepare_removal(&mut self, tree: &Tree, path: Bytes, zxid: Zxid, time: i64) -> Txn {
        let at = self.at(zxid, time, SessionId::NONE);
        let body = self.delete_container(tree, path, at).unwrap_or_else(error_txn);
        self.txn(0, at, body)
    }

    /// The ephemerals that a session will have owned when all outstanding changes are applied, each once. To look at the
    /// first ones costs no more than what is outstanding of this session.
    pub fn ephemerals<'a>(&'a self, tree: &'a Tree, session: SessionId) -> impl Iterator<Item = Bytes> + 'a {
        // What owns nothing, or a container, or a TTL znode has a number too: it is nobody's session, whoever says so.
        let is_its = move |change: &Change| {
            let owner = change.stat.map(|stat| Owner::decode(stat.ephemeral_owner, tree.owner_rules()));
            owner == Some(Owner::Session(session))
        };
        // The newest form of a path decides: it may be gone, or have become somebody else's, or be new.
        let touched: BTreeSet<&Bytes> = self.outstanding.ephemerals_of(session).collect();
        let is_untouched = touched.is_empty();
        let stay = tree
            .ephemerals_of(session)
            .map(Bytes::from)
            .filter(move |path| is_untouched || self.outstanding.change(path).is_none_or(is_its));
        let come = touched.into_iter().filter(move |path| {
            let was_its = tree.find(path).is_some_and(|id| tree.owner(id) == Owner::Session(session));
            !was_its && self.outstanding.change(path).is_some_and(is_its)
        });
        stay.chain(come.cloned())
    }

    /// closeSession with the ephemerals that go with it: all that there are, or what is left of them.
    pub fn prepare_close(
        &mut self,
        tree: &Tree,
        session: SessionId,
        ephemerals: Vec<Bytes>,
        cxid: i32,
        zxid: Zxid,
        time: i64,
    ) -> Txn {
        let at = self.at(zxid, time, session);
        self.remove_changes(tree, &ephemerals, at).expect("an ephemeral is there, and so is its parent");
        let listed = (!self.rules.unlisted_close).then_some(CloseSessionTxn { paths_to_delete: ephemerals });
        self.txn(cxid, at, TxnBody::CloseSession(listed))
    }

    /// Some of a session's ephemerals, in a multi of their own: for a closeSession that would be too large to log.
    pub fn prepare_ephemeral_removal(
        &mut self,
        tree: &Tree,
        session: SessionId,
        paths: Vec<Bytes>,
        zxid: Zxid,
        time: i64,
    ) -> Txn {
        let at = self.at(zxid, time, session);
        self.remove_changes(tree, &paths, at).expect("an ephemeral is there, and so is its parent");
        let parts = paths.into_iter().map(|path| TxnBody::Delete(DeleteTxn { path })).collect();
        self.txn(0, at, TxnBody::Multi(parts))
    }

    pub fn prepare_create_session(&mut self, session: SessionId, timeout: i32, zxid: Zxid, time: i64) -> Txn {
        let at = self.at(zxid, time, session);
        self.txn(0, at, TxnBody::CreateSession(CreateSessionTxn { timeout }))
    }

    /// A reconfiguration, as `plan` makes it of the request. The configuration's znode is in no digest.
    pub fn prepare_reconfig(
        &mut self,
        tree: &Tree,
        request: &Request,
        session: Result<(), ErrorCode>,
        plan: impl FnOnce(&ReconfigRequest<Bytes>) -> Result<Ensemble, ErrorCode>,
        zxid: Zxid,
        time: i64,
    ) -> Txn {
        let at = self.at(zxid, time, request.session);
        let body = self.reconfig(tree, request, session, plan, at).unwrap_or_else(error_txn);
        self.txn(request.cxid, at, body)
    }

    fn reconfig(
        &mut self,
        tree: &Tree,
        request: &Request,
        session: Result<(), ErrorCode>,
        plan: impl FnOnce(&ReconfigRequest<Bytes>) -> Result<Ensemble, ErrorCode>,
        at: At,
    ) -> Result<TxnBody, ErrorCode> {
        let record =
            ReconfigRequest::decode(&mut SharedReader::new(request.body.clone())).map_err(malformed)?;
        if !self.rules.reconfig {
            return Err(ErrorCode::ReconfigDisabled);
        }
        session?;
        let next = plan(&record)?;
        let path = Bytes::from_static(CONFIG);
        let mut node = self.outstanding.find(tree, &path)?;
        self.permit(&node, perms::WRITE, &request.auth)?;
        let data = Bytes::from(next.to_string());
        let data_len = data.len();
        // Observers learn of it by a packet that names the leader too.
        let at = At { room: at.room.saturating_sub(ACTIVATE_HEAD), ..at };
        let record = SetDataTxn { path: path.clone(), data: Some(data), version: -1 };
        let body = self.admit(TxnBody::Reconfig(record), at)?;
        let stat = node.stat.as_mut().expect("find() gives living znodes");
        stat.version = -1;
        stat.mzxid = at.zxid.0;
        stat.mtime = at.time;
        node.zxid = at.zxid;
        node.data_len = data_len;
        self.outstanding.put(path, node);
        Ok(body)
    }

    /// Everything up to `zxid` has been applied.
    pub fn applied(&mut self, zxid: Zxid) {
        self.outstanding.applied(zxid);
    }

    fn at(&self, zxid: Zxid, time: i64, session: SessionId) -> At {
        let digest = if self.rules.txn_digests { TxnDigest::MIN_LEN } else { 0 };
        let room = self.rules.max_txn_bytes.saturating_sub(TxnHeader::MIN_LEN + digest);
        At { zxid, time, session, room }
    }

    /// The record, if there is room for it. To be asked before anything changes.
    fn admit(&mut self, body: TxnBody, at: At) -> Result<TxnBody, ErrorCode> {
        if body.encoded_len() > at.room {
            self.too_large = true;
            return Err(TOO_LARGE);
        }
        Ok(body)
    }

    /// The list that is stored: it is not built any further than there is room for it.
    fn fix_up(
        &mut self,
        asked: &[AskedAcl<Bytes>],
        auth: &[Id<Bytes>],
        at: At,
    ) -> Result<Vec<Acl<Bytes>>, ErrorCode> {
        let fixed = acl::fix_up(&self.rules, asked, auth, at.room);
        self.too_large |= fixed == Err(TOO_LARGE);
        fixed
    }

    fn txn(&self, cxid: i32, at: At, body: TxnBody) -> Txn {
        let header =
            TxnHeader { client_id: at.session.0, cxid, zxid: at.zxid.0, time: at.time, op: body.op().code() };
        // Java puts no digest after an error.
        let with_digest = self.rules.txn_digests && !matches!(body, TxnBody::Error(_));
        let digest =
            with_digest.then_some(TxnDigest { version: DIGEST_VERSION, tree_digest: self.digest as i64 });
        Txn { header, body, digest }
    }

    fn body(
        &mut self,
        tree: &Tree,
        request: &Request,
        session: Result<(), ErrorCode>,
        at: At,
    ) -> Result<TxnBody, ErrorCode> {
        let from = &mut SharedReader::new(request.body.clone());
        let auth = &request.auth;
        match request.op {
            Op::Create | Op::Create2 | Op::CreateContainer => {
                let record = AskedCreate::decode(from).map_err(malformed)?;
                self.create(tree, request.op, record, session, auth, at)
            }
            Op::CreateTtl => {
                let record = AskedCreateTtl::decode(from).map_err(malformed)?;
                self.create_ttl(tree, record, session, auth, at)
            }
            Op::Delete => {
                let record = DeleteRequest::decode(from).map_err(malformed)?;
                session?;
                self.delete(tree, record, auth, at)
            }
            Op::SetData => {
                let record = AskedSetData::decode(from).map_err(malformed)?;
                session?;
                self.set_data(tree, record, auth, at)
            }
            Op::SetAcl => {
                let record = AskedSetAcl::decode(from).map_err(malformed)?;
                session?;
                self.set_acl(tree, record, auth, at)
            }
            Op::Multi => {
                let parts = multi::decode(from).map_err(malformed)?;
                // Java looks at all paths before it prepares the first part.
                if parts.iter().any(|part| part.is_read() || part.path().is_none()) {
                    return Err(ErrorCode::MarshallingError);
                }
                self.multi(tree, parts, session, auth, at)
            }
            Op::Reconfig => {
                ReconfigRequest::decode(from).map_err(malformed)?;
                if !self.rules.reconfig {
                    return Err(ErrorCode::ReconfigDisabled);
                }
                session?;
                // A server alone has no ensemble to change.
                Err(ErrorCode::Unimplemented)
            }
            _ => Err(ErrorCode::Unimplemented),
        }
    }

    fn multi(
        &mut self,
        tree: &Tree,
        parts: Vec<Part<Bytes>>,
        session: Result<(), ErrorCode>,
        auth: &[Id<Bytes>],
        at: At,
    ) -> Result<TxnBody, ErrorCode> {
        self.outstanding.begin();
        let digest_before = self.digest;
        let mut failed = None;
        let mut room = at.room.saturating_sub(MULTI_HEAD);
        let mut bodies = Vec::with_capacity(parts.len());
        for part in parts {
            if failed.is_some() {
                bodies.push(error_txn(ErrorCode::RuntimeInconsistency));
                continue;
            }
            room = room.saturating_sub(PART_HEAD);
            let body = self.part(tree, part, session, auth, At { room, ..at });
            failed = body.as_ref().err().copied();
            room -= body.as_ref().map_or(0, TxnBody::encoded_len);
            bodies.push(body.unwrap_or_else(error_txn));
        }
        if failed.is_some() {
            self.outstanding.roll_back();
            self.digest = digest_before;
            // Nobody looks into the parts before the one that failed: without them, what is logged is smaller than what
            // was asked.
            let undone = bodies.iter_mut().filter(|body| !matches!(body, TxnBody::Error(_)));
            undone.for_each(|body| *body = TxnBody::Error(ErrorTxn { err: 0 }));
        } else {
            self.outstanding.commit();
        }
        match failed {
            // A part that Java stumbles over fails the whole request.
            Some(ErrorCode::MarshallingError) => Err(ErrorCode::MarshallingError),
            _ => Ok(TxnBody::Multi(bodies)),
        }
    }

    fn part(
        &mut self,
        tree: &Tree,
        part: Part<Bytes>,
        session: Result<(), ErrorCode>,
        auth: &[Id<Bytes>],
        at: At,
    ) -> Result<TxnBody, ErrorCode> {
        let mut body = match part {
            Part::Create { op, request } => self.create(tree, op, request, session, auth, at),
            Part::CreateTtl(request) => self.create_ttl(tree, request, session, auth, at),
            Part::Delete(AskedAtVersion { path, version }) => {
                let path = path.ok_or(ErrorCode::MarshallingError)?;
                session.and_then(|()| self.delete(tree, DeleteRequest { path, version }, auth, at))
            }
            Part::SetData(request) => session.and_then(|()| self.set_data(tree, request, auth, at)),
            Part::Check(request) => session.and_then(|()| self.check(tree, request, auth)),
            Part::GetData(_) | Part::GetChildren(_) => Err(ErrorCode::MarshallingError),
        }?;
        if let TxnBody::Create(CreateTxn { acl, .. })
        | TxnBody::Create2(CreateTxn { acl, .. })
        | TxnBody::CreateContainer(CreateContainerTxn { acl, .. })
        | TxnBody::CreateTtl(CreateTtlTxn { acl, .. }) = &mut body
        {
            acl::read_again(acl);
        }
        // Read once more, a list may have grown.
        self.admit(body, at)
    }

    fn create(
        &mut self,
        tree: &Tree,
        op: Op,
        request: AskedCreate<Bytes>,
        session: Result<(), ErrorCode>,
        auth: &[Id<Bytes>],
        at: At,
    ) -> Result<TxnBody, ErrorCode> {
        let mode = CreateMode::from_flags(request.flags).ok_or(ErrorCode::BadArguments)?;
        if mode.is_ttl() {
            return Err(if self.rules.extended_types {
                ErrorCode::BadArguments
            } else {
                ErrorCode::Unimplemented
            });
        }
        session?;
        let acl = request.acl.unwrap_or_default();
        let (new, acl) = self.new_node(tree, request.path, mode, &acl, request.data.as_ref(), auth, at)?;
        // The operation decides the record; the flags only say ephemeral and sequential.
        let owner = match op {
            Op::CreateContainer => Owner::Container,
            _ if mode.is_ephemeral() => Owner::Session(at.session),
            _ => Owner::Persistent,
        };
        let list = AclList::from(&acl[..]);
        let (path, data, parent_cversion) = (new.path.clone(), request.data.clone(), new.parent_cversion);
        let body = if op == Op::CreateContainer {
            TxnBody::CreateContainer(CreateContainerTxn { path, data, acl, parent_cversion })
        } else {
            let txn = CreateTxn { path, data, acl, ephemeral: mode.is_ephemeral(), parent_cversion };
            if op == Op::Create2 { TxnBody::Create2(txn) } else { TxnBody::Create(txn) }
        };
        let body = self.admit(body, at)?;
        self.add_change(new, list, request.data.as_deref(), owner, at);
        Ok(body)
    }

    fn create_ttl(
        &mut self,
        tree: &Tree,
        request: AskedCreateTtl<Bytes>,
        session: Result<(), ErrorCode>,
        auth: &[Id<Bytes>],
        at: At,
    ) -> Result<TxnBody, ErrorCode> {
        let mode = CreateMode::from_flags(request.flags).ok_or(ErrorCode::BadArguments)?;
        if mode.is_ttl() && !self.rules.extended_types {
            return Err(ErrorCode::Unimplemented);
        }
        // A mode without a TTL passes Java's check when ttl is −1, and its transaction then stops every server
        // that applies it.
        if !mode.is_ttl() || request.ttl <= 0 || request.ttl > MAX_TTL_MS {
            return Err(ErrorCode::BadArguments);
        }
        session?;
        let acl = request.acl.unwrap_or_default();
        let (new, acl) = self.new_node(tree, request.path, mode, &acl, request.data.as_ref(), auth, at)?;
        let (list, ttl) = (AclList::from(&acl[..]), request.ttl);
        let (path, data, parent_cversion) = (new.path.clone(), request.data.clone(), new.parent_cversion);
        let body =
            self.admit(TxnBody::CreateTtl(CreateTtlTxn { path, data, acl, parent_cversion, ttl }), at)?;
        self.add_change(new, list, request.data.as_deref(), Owner::Ttl(ttl), at);
        Ok(body)
    }

    /// The checks that all creates share; the final name, and the list that is stored.
    #[allow(clippy::too_many_arguments)] // the fields of two request types that share no type
    fn new_node(
        &mut self,
        tree: &Tree,
        wanted: Option<Bytes>,
        mode: CreateMode,
        acl: &[AskedAcl<Bytes>],
        data: Option<&Bytes>,
        auth: &[Id<Bytes>],
        at: At,
    ) -> Result<(NewZnode, Vec<Acl<Bytes>>), ErrorCode> {
        // Java stumbles over a null path only here.
        let wanted = wanted.ok_or(ErrorCode::MarshallingError)?;
        if wanted.contains(&0) {
            return Err(ErrorCode::BadArguments);
        }
        let parent_len = path::parent(&wanted).ok_or(ErrorCode::BadArguments)?.len();
        let acl = self.fix_up(acl, auth, at)?;
        let parent = self.outstanding.find(tree, &wanted[..parent_len])?;
        self.permit(&parent, perms::CREATE, auth)?;
        let parent_stat = parent.stat.expect("find() gives living znodes");
        let path = if mode.is_sequential() {
            Bytes::from([&wanted[..], format!("{:010}", parent_stat.cversion).as_bytes()].concat())
        } else {
            wanted
        };
        if !path::is_valid(&path) {
            return Err(ErrorCode::BadArguments);
        }
        if self.outstanding.find(tree, &path).is_ok() {
            return Err(ErrorCode::NodeExists);
        }
        if let Owner::Session(_) = Owner::decode(parent_stat.ephemeral_owner, tree.owner_rules()) {
            return Err(ErrorCode::NoChildrenForEphemerals);
        }
        self.check_quota(tree, &path, data.map_or(0, Bytes::len) as i64, 1)?;
        // Beyond this the counter would turn negative, replicas would ignore it, and names would repeat.
        let parent_cversion = parent_stat.cversion.checked_add(1).ok_or(ErrorCode::SystemError)?;
        Ok((NewZnode { path, parent_len, parent, parent_cversion }, acl))
    }

    fn delete(
        &mut self,
        tree: &Tree,
        request: DeleteRequest<Bytes>,
        auth: &[Id<Bytes>],
        at: At,
    ) -> Result<TxnBody, ErrorCode> {
        let path = request.path;
        let parent = self.outstanding.find(tree, deletable_parent(&path)?)?;
        self.permit(&parent, perms::DELETE, auth)?;
        let node = self.outstanding.find(tree, &path)?;
        check_version(node.stat.expect("find() gives living znodes").version, request.version)?;
        if node.children > 0 {
            return Err(ErrorCode::NotEmpty);
        }
        let body = self.admit(TxnBody::Delete(DeleteTxn { path: path.clone() }), at)?;
        self.remove_changes(tree, std::slice::from_ref(&path), at)?;
        Ok(body)
    }

    fn delete_container(&mut self, tree: &Tree, path: Bytes, at: At) -> Result<TxnBody, ErrorCode> {
        deletable_parent(&path)?;
        let node = self.outstanding.find(tree, &path)?;
        if node.children > 0 {
            return Err(ErrorCode::NotEmpty);
        }
        let owner = node.stat.expect("find() gives living znodes").ephemeral_owner;
        match Owner::decode(owner, tree.owner_rules()) {
            // Since the check it was deleted and created again as something else.
            Owner::Session(_) | Owner::Persistent => return Err(ErrorCode::BadVersion),
            Owner::Container | Owner::Ttl(_) => {}
        }
        let body = self.admit(TxnBody::DeleteContainer(DeleteTxn { path: path.clone() }), at)?;
        self.remove_changes(tree, std::slice::from_ref(&path), at)?;
        Ok(body)
    }

    fn set_data(
        &mut self,
        tree: &Tree,
        request: AskedSetData<Bytes>,
        auth: &[Id<Bytes>],
        at: At,
    ) -> Result<TxnBody, ErrorCode> {
        let AskedSetData { path, data, version } = request;
        let path = path.filter(|path| path::is_valid(path)).ok_or(ErrorCode::BadArguments)?;
        let mut node = self.outstanding.find(tree, &path)?;
        self.permit(&node, perms::WRITE, auth)?;
        let new_len = data.as_ref().map_or(0, Bytes::len);
        self.check_quota(tree, &path, new_len as i64 - node.data_len as i64, 0)?;
        let mut stat = node.stat.expect("find() gives living znodes");
        let version = check_version(stat.version, version)?;
        let key: &[u8] = if path == "/" { b"" } else { &path };
        let before = digest_of(key, &node);
        stat.version = version;
        stat.mzxid = at.zxid.0;
        stat.mtime = at.time;
        node.zxid = at.zxid;
        node.stat = Some(stat);
        node.data_len = new_len;
        if is_counted(key) {
            node.content_crc = content_crc(key, data.as_deref());
        }
        let after = digest_of(key, &node);
        let body = self.admit(TxnBody::SetData(SetDataTxn { path: path.clone(), data, version }), at)?;
        self.move_digest(before, after);
        self.outstanding.put(path, node);
        Ok(body)
    }

    fn set_acl(
        &mut self,
        tree: &Tree,
        request: AskedSetAcl<Bytes>,
        auth: &[Id<Bytes>],
        at: At,
    ) -> Result<TxnBody, ErrorCode> {
        let AskedSetAcl { path, acl, version } = request;
        let path = path.filter(|path| path::is_valid(path)).ok_or(ErrorCode::BadArguments)?;
        let acl = self.fix_up(&acl.unwrap_or_default(), auth, at)?;
        let mut node = self.outstanding.find(tree, &path)?;
        self.permit(&node, perms::ADMIN, auth)?;
        let mut stat = node.stat.expect("find() gives living znodes");
        let version = check_version(stat.aversion, version)?;
        let key: &[u8] = if path == "/" { b"" } else { &path };
        let before = digest_of(key, &node);
        stat.aversion = version;
        node.zxid = at.zxid;
        node.stat = Some(stat);
        node.acl = AclList::from(&acl[..]);
        let after = digest_of(key, &node);
        let body = self.admit(TxnBody::SetAcl(SetAclTxn { path: path.clone(), acl, version }), at)?;
        self.move_digest(before, after);
        self.outstanding.put(path, node);
        Ok(body)
    }

    fn check(
        &self,
        tree: &Tree,
        request: AskedAtVersion<Bytes>,
        auth: &[Id<Bytes>],
    ) -> Result<TxnBody, ErrorCode> {
        let AskedAtVersion { path, version } = request;
        let path = path.filter(|path| path::is_valid(path)).ok_or(ErrorCode::BadArguments)?;
        let node = self.outstanding.find(tree, &path)?;
        self.permit(&node, perms::READ, auth)?;
        let version = check_version(node.stat.expect("find() gives living znodes").version, version)?;
        Ok(TxnBody::Check(CheckVersionTxn { path, version }))
    }

    fn permit(&self, node: &Change, perm: i32, auth: &[Id<Bytes>]) -> Result<(), ErrorCode> {
        let allowed = acl::permits(&self.rules, &node.acl, perm, auth, &Budget::default());
        if allowed { Ok(()) } else { Err(ErrorCode::NoAuth) }
    }

    /// Hard limits only: soft ones never refuse. Compared with the applied usage, as Java does.
    fn check_quota(&mut self, tree: &Tree, path: &[u8], bytes: i64, count: i64) -> Result<(), ErrorCode> {
        if !self.rules.enforce_quota {
            return Ok(());
        }
        let Some((_, limits, usage)) = tree.quota_for(path) else { return Ok(()) };
        let too_many =
            count != 0 && limits.count_hard() > -1 && usage.count.saturating_add(count) > limits.count_hard();
        let too_large =
            bytes != 0 && limits.bytes_hard() > -1 && usage.bytes.saturating_add(bytes) > limits.bytes_hard();
        if !too_many && !too_large {
            return Ok(());
        }
        self.quota_exceeded.push(path::display(path::namespace(path)));
        Err(ErrorCode::QuotaExceeded)
    }

    /// The outstanding changes of a create: the new znode, and its parent's counters.
    fn add_change(&mut self, new: NewZnode, acl: AclList, data: Option<&[u8]>, owner: Owner, at: At) {
        let parent_path = new.path.slice(..new.parent_len);
        let mut parent = new.parent;
        let before = digest_of(&parent_path, &parent);
        parent.zxid = at.zxid;
        parent.children += 1;
        let stat = parent.stat.as_mut().expect("find() gives living znodes");
        stat.cversion = new.parent_cversion;
        stat.pzxid = at.zxid.0;
        self.move_digest(before, digest_of(&parent_path, &parent));
        self.outstanding.put(parent_path, parent);

        let zxid = at.zxid.0;
        let stat = StatPersisted {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime: at.time,
            mtime: at.time,
            version: 0,
            cversion: 0,
            aversion: 0,
            ephemeral_owner: owner.encode(),
        };
        let node = Change {
            zxid: at.zxid,
            stat: Some(stat),
            children: 0,
            acl,
            content_crc: if is_counted(&new.path) { content_crc(&new.path, data) } else { 0 },
            data_len: data.map_or(0, <[u8]>::len),
        };
        self.move_digest(0, digest_of(&new.path, &node));
        if let Owner::Session(session) = owner {
            self.outstanding.note_ephemeral(at.zxid, session, new.path.clone());
        }
        self.outstanding.put(new.path, node);
    }

    /// The outstanding changes of deletes: the znodes gone, their parents some children less. None of them is another's
    /// parent. Siblings that follow each other cost their parent one change.
    fn remove_changes(&mut self, tree: &Tree, paths: &[Bytes], at: At) -> Result<(), ErrorCode> {
        let parent_of = |path: &[u8]| path::parent(path).map(<[u8]>::len).ok_or(ErrorCode::BadArguments);
        let mut rest = paths;
        while let Some(first) = rest.first() {
            let parent_path = first.slice(..parent_of(first)?);
            let are_siblings = |path: &Bytes| path::parent(path) == Some(&parent_path[..]);
            let (siblings, others) = rest.split_at(rest.iter().take_while(|path| are_siblings(path)).count());
            let mut parent = self.outstanding.find(tree, &parent_path)?;
            for path in siblings {
                self.remove_change(tree, path, at)?;
            }
            let before = digest_of(&parent_path, &parent);
            parent.zxid = at.zxid;
            parent.children -= siblings.len() as u32;
            parent.stat.as_mut().expect("find() gives living znodes").pzxid = at.zxid.0;
            self.move_digest(before, digest_of(&parent_path, &parent));
            self.outstanding.put(parent_path, parent);
            rest = others;
        }
        Ok(())
    }

    /// The znode alone, without its parent.
    fn remove_change(&mut self, tree: &Tree, path: &Bytes, at: At) -> Result<(), ErrorCode> {
        let mut node = self.outstanding.find(tree, path)?;
        self.move_digest(digest_of(path, &node), 0);
        let owner = node.stat.map_or(0, |stat| stat.ephemeral_owner);
        if let Owner::Session(session) = Owner::decode(owner, tree.owner_rules()) {
            self.outstanding.note_ephemeral(at.zxid, session, path.clone());
        }
        node.zxid = at.zxid;
        node.stat = None;
        node.children = 0;
        self.outstanding.put(path.clone(), node);
        Ok(())
    }

    fn move_digest(&mut self, before: u64, after: u64) {
        self.digest = self.digest.wrapping_sub(before).wrapping_add(after);
    }
}

/// A create that passed all checks.
struct NewZnode {
    path: Bytes,
    parent_len: usize,
    parent: Change,
    parent_cversion: i32,
}

fn digest_of(path: &[u8], change: &Change) -> u64 {
    match &change.stat {
        Some(stat) if is_counted(path) => u64::from(node_digest(change.content_crc, stat)),
        _ => 0,
    }
}

fn error_txn(code: ErrorCode) -> TxnBody {
    TxnBody::Error(ErrorTxn { err: code.code() })
}

fn malformed(_: DecodeError) -> ErrorCode {
    ErrorCode::MarshallingError
}

fn deletable_parent(path: &[u8]) -> Result<&[u8], ErrorCode> {
    let special = [&b"/"[..], b"/zookeeper", b"/zookeeper/quota", b"/zookeeper/config"];
    if path.contains(&0) || special.contains(&path) {
        return Err(ErrorCode::BadArguments);
    }
    path::parent(path).ok_or(ErrorCode::BadArguments)
}

/// The next version, where `expected` (−1: any) is the current one.
fn check_version(current: i32, expected: i32) -> Result<i32, ErrorCode> {
    if expected != -1 && expected != current {
        return Err(ErrorCode::BadVersion);
    }
    Ok(current.wrapping_add(1))
}
