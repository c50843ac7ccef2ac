//! The listening sockets of both ports. The quorum port is open while this server may be chosen to lead.

use super::socket::{bind_all, prepare};
use super::{Peers, election, quorum};
use crate::replica::Listen;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

const RETRY: Duration = Duration::from_secs(1);
/// How long accepting rests when the system has no descriptor left.
const REST: Duration = Duration::from_millis(100);

/// Binds now, so that a port that is taken is an error before anything else happens.
pub(super) fn bind_blocking(
    addresses: &[(String, u16)],
    on_all_ips: bool,
    retries: u64,
) -> io::Result<Vec<TcpListener>> {
    let mut tries = 0;
    loop {
        tries += 1;
        match bind_all(addresses, on_all_ips) {
            Err(error) if retries == 0 || tries < retries => {
                tracing::warn!("{error}; trying again in a second");
                std::thread::sleep(RETRY);
            }
            other => return other,
        }
    }
}

type Addresses = Vec<(String, u16)>;

/// What is listened on at the moment.
pub(super) struct Ports {
    peers: Arc<Peers>,
    election: Option<(Addresses, Vec<JoinHandle<()>>)>,
    quorum: Option<(Addresses, JoinHandle<()>)>,
}

impl Ports {
    pub fn new(peers: Arc<Peers>, listeners: Vec<TcpListener>) -> Self {
        let accepting = listeners.into_iter().map(|listener| accept_elections(&peers, listener)).collect();
        Self { peers, election: Some((Vec::new(), accepting)), quorum: None }
    }

    pub fn change(&mut self, listen: Listen) {
        match &mut self.election {
            // The first addresses are those that were bound at the start.
            Some((known, _)) if known.is_empty() => *known = listen.election,
            Some((known, _)) if *known == listen.election => {}
            old => {
                if let Some((_, tasks)) = old.take() {
                    tasks.iter().for_each(JoinHandle::abort);
                }
                let (peers, addresses) = (self.peers.clone(), listen.election.clone());
                let rebind = tokio::spawn(async move {
                    let listeners = bind_patiently(&peers, &addresses).await;
                    let tasks = listeners.into_iter().map(|listener| accept_elections(&peers, listener));
                    for task in tasks.collect::<Vec<_>>() {
                        let _ = task.await;
                    }
                });
                self.election = Some((listen.election, vec![rebind]));
            }
        }
        let is_same = match (&self.quorum, &listen.quorum) {
            (Some((known, _)), Some(wanted)) => known == wanted,
            (None, None) => true,
            _ => false,
        };
        if is_same {
            return;
        }
        if let Some((_, task)) = self.quorum.take() {
            task.abort();
        }
        if let Some(addresses) = listen.quorum {
            let (peers, to_bind) = (self.peers.clone(), addresses.clone());
            let task = tokio::spawn(async move {
                let listeners = bind_patiently(&peers, &to_bind).await;
                let mut accepting = tokio::task::JoinSet::new();
                for listener in listeners {
                    accepting.spawn(accept_learners(peers.clone(), listener));
                }
                // Dropping the set, when this task is aborted, closes the port.
                while accepting.join_next().await.is_some() {}
            });
            self.quorum = Some((addresses, task));
        }
    }
}

/// Binds as soon as it is possible: a name may not resolve yet, an old socket may still be there.
async fn bind_patiently(peers: &Arc<Peers>, addresses: &[(String, u16)]) -> Vec<TcpListener> {
    loop {
        let (wanted, on_all_ips) = (addresses.to_vec(), peers.settings.on_all_ips);
        let bound = tokio::task::spawn_blocking(move || bind_all(&wanted, on_all_ips)).await;
        match bound {
            Ok(Ok(listeners)) => return listeners,
            Ok(Err(error)) => tracing::warn!("{error}; trying again in a second"),
            Err(_) => return Vec::new(),
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn accept_elections(peers: &Arc<Peers>, listener: TcpListener) -> JoinHandle<()> {
    let peers = peers.clone();
    tokio::spawn(async move {
        let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
        loop {
            match accept(&peers, &listener).await {
                Some((socket, address)) => election::accepted(&peers, socket, address),
                None => tokio::time::sleep(REST).await,
            }
        }
    })
}

async fn accept_learners(peers: Arc<Peers>, listener: TcpListener) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        match accept(&peers, &listener).await {
            Some((socket, address)) => quorum::accepted(&peers, socket, address),
            None => tokio::time::sleep(REST).await,
        }
    }
}

async fn accept(
    peers: &Arc<Peers>,
    listener: &tokio::net::TcpListener,
) -> Option<(tokio::net::TcpStream, IpAddr)> {
    match listener.accept().await {
        Ok((socket, from)) => {
            prepare(peers, &socket);
            Some((socket, from.ip().to_canonical()))
        }
        Err(error) => {
            tracing::warn!("cannot accept a server's connection: {error}");
            None
        }
    }
}
