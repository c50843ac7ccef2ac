//! Whether a leader's tree can be what became of this server's.

use crate::model::Zxid;
use crate::tree::Database;

const SYSTEM: &[u8] = b"zookeeper";

/// Whether `received` can be no later state of `own`, as far as that was committed up to `committed`. Where it is, one of the
/// znodes below the root is still there, or they were all deleted, and the root has counted more children than before.
pub(super) fn shares_nothing(own: &Database, received: &Database, committed: Zxid) -> bool {
    let (Some(own_root), Some(root)) = (own.tree.find(b"/"), received.tree.find(b"/")) else { return false };
    let mut count = 0;
    for name in own.tree.children(own_root).filter(|name| *name != SYSTEM) {
        let path = [b"/", name].concat();
        let Some(node) = own.tree.find(&path) else { continue };
        let stat = own.tree.stat(node);
        if stat.ephemeral_owner != 0 || stat.czxid > committed.0 {
            continue;
        }
        count += 1;
        let there = received.tree.find(&path).map(|node| received.tree.stat(node).czxid);
        if there == Some(stat.czxid) {
            return false;
        }
    }
    let created = match own.last_txn <= committed {
        true => own.tree.stat_persisted(own_root).cversion,
        false => count,
    };
    count > 0 && received.tree.stat_persisted(root).cversion < created
}
