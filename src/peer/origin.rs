//! Whether who says that it is a member comes from where the configuration has that member: as long as servers do not
//! prove who they are, its address is the one thing that a stranger elsewhere does not have.

use crate::model::ServerId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How often one server is logged.
const TOLD_EVERY: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Origins {
    /// The hosts of each member's addresses.
    members: Mutex<HashMap<ServerId, Vec<String>>>,
    told: Mutex<HashMap<ServerId, Instant>>,
}

impl Origins {
    pub fn change(&self, members: Vec<(ServerId, Vec<String>)>) {
        let mut all: HashMap<ServerId, Vec<String>> = HashMap::new();
        // While it changes, a member may be at its old or at its new address.
        members.into_iter().for_each(|(id, hosts)| all.entry(id).or_default().extend(hosts));
        *self.members.lock() = all;
    }

    /// Names are resolved again each time: a server may have moved. Who is in no configuration has no address that could be
    /// wrong; the replica decides about it.
    pub async fn admits(&self, id: ServerId, from: IpAddr) -> bool {
        let Some(hosts) = self.members.lock().get(&id).cloned() else { return true };
        for host in &hosts {
            let Ok(resolved) = tokio::net::lookup_host((host.as_str(), 0)).await else { continue };
            if resolved.into_iter().any(|address| is_same(address.ip(), from)) {
                return true;
            }
        }
        self.tell(id, from, &hosts);
        false
    }

    fn tell(&self, id: ServerId, from: IpAddr, hosts: &[String]) {
        let mut told = self.told.lock();
        if told.get(&id).is_none_or(|at| at.elapsed() >= TOLD_EVERY) {
            told.insert(id, Instant::now());
            tracing::warn!(
                "a connection from {from} says that it is server {id}, whose line has {hosts:?}: closed. Where servers come from \
                 other addresses than their lines have (NAT, several networks), set peers.checkAddress=false"
            );
        }
    }
}

/// This host has many addresses that are its own alone.
fn is_same(a: IpAddr, b: IpAddr) -> bool {
    let (a, b) = (a.to_canonical(), b.to_canonical());
    a == b || (a.is_loopback() && b.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_comes_from_one_of_its_addresses() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let origins = Origins::default();
        let hosts = ["10.0.0.7", "fd00::7", "no.such.host.invalid"].map(String::from).to_vec();
        origins.change(vec![(ServerId(3), hosts), (ServerId(4), vec!["localhost".into()])]);
        for (id, from, expected) in [
            (3, "10.0.0.7", true),
            (3, "fd00::7", true),
            (3, "::ffff:10.0.0.7", true),
            (3, "10.0.0.8", false),
            (3, "127.0.0.1", false),
            (4, "127.0.0.1", true),
            (4, "::1", true),
            (4, "10.0.0.7", false),
            (9, "10.0.0.8", true),
        ] {
            let admitted = runtime.block_on(origins.admits(ServerId(id), from.parse().unwrap()));
            assert_eq!(admitted, expected, "server {id} from {from}");
        }
    }
}
