//! The quorum port: packets from and to learners, or from and to the leader; feeds out of files; the leader's snapshot.

use super::ends::{FeedEnd, PipeEnd};
use super::socket::{connect, prepare};
use super::{Peers, pipe::Pipe};
use crate::core::{Core, Fed, Feeder, Files, ReceiveError, Receiver};
use crate::ensemble::PeerAddress;
use crate::link::{Link, Step};
use crate::model::{LinkId, ServerId, Zxid};
use crate::replica::{Feed, Input, QuorumInput};
use crate::wire::quorum::{self, FromLeader};
use bytes::BytesMut;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// Bytes read before what they hold is handed in.
const READ: usize = 256 << 10;
/// Memory is taken in pieces of this size, and another when so little is left of one.
const PIECE: usize = 64 << 10;
const MIN_ROOM: usize = 8 << 10;
/// How long the log is waited for when it is behind what others have committed.
const LOG_POLL: Duration = Duration::from_millis(20);
/// How often the log says how far a snapshot is.
const TOLD_EVERY: Duration = Duration::from_secs(1);

pub(super) fn accepted(peers: &Arc<Peers>, socket: TcpStream, address: IpAddr) {
    let pipe = open(peers, socket);
    peers.strangers.lock().arrive(pipe.id.0, address, pipe.ended.clone());
    let link = Link::accepted(pipe.id, peers.settings.max_packet);
    let mut reading =
        Reading { peers: peers.clone(), pipe, link, bytes: BytesMut::new(), inputs: Vec::new() };
    tokio::spawn(async move {
        let peers = reading.peers.clone();
        let patience = peers.settings.introduction;
        let introduced = tokio::time::timeout(patience, reading.introduce(address)).await;
        peers.strangers.lock().leave(reading.pipe.id.0);
        let why = match introduced {
            Ok(Ok(())) => reading.read_on().await,
            Ok(Err(why)) => why,
            Err(_) => PipeEnd::SaysNothing(patience),
        };
        reading.end(why);
    });
}

pub(super) async fn dial_leader(peers: Arc<Peers>, leader: ServerId, addresses: Vec<PeerAddress>) {
    let addresses: Vec<_> =
        addresses.into_iter().map(|address| (address.host, address.quorum_port)).collect();
    match connect(&peers, &addresses).await {
        Ok(socket) => {
            prepare(&peers, &socket);
            let pipe = open(&peers, socket);
            let (link, dialed) = Link::dialed(pipe.id, peers.settings.max_packet);
            let mut reading = Reading { peers, pipe, link, bytes: BytesMut::new(), inputs: vec![dialed] };
            let why = reading.read_on().await;
            reading.end(why);
        }
        Err(error) => {
            tracing::debug!("server {leader} can't be reached as leader: {error}");
            submit(peers.core(), QuorumInput::DialFailed);
        }
    }
}

fn open(peers: &Arc<Peers>, socket: TcpStream) -> Arc<Pipe> {
    let id = LinkId(peers.new_id());
    let pipe = Arc::new(Pipe::new(id, socket, &peers.stop));
    peers.pipes.lock().insert(id, pipe.clone());
    let pumped = pipe.clone();
    tokio::spawn(async move { pumped.pump().await });
    pipe
}

fn submit(core: &Arc<Core>, input: QuorumInput) {
    core.submit(&mut vec![Input::Quorum(input)], None);
}

/// What reads a connection: the link as a value, its bytes, and the inputs that the core has not been given yet.
struct Reading {
    peers: Arc<Peers>,
    pipe: Arc<Pipe>,
    link: Link,
    bytes: BytesMut,
    inputs: Vec<Input>,
}

impl Reading {
    /// Reads until the other side has said who it is, and may be that. The core hears nothing of the connection before.
    async fn introduce(&mut self, address: IpAddr) -> Result<(), PipeEnd> {
        let Step::Claims(id) = self.next().await? else { unreachable!("a stranger can do nothing else") };
        if !self.peers.may_be(id, address).await {
            return Err(PipeEnd::WrongAddress { id, address });
        }
        self.link.admit(&mut self.inputs);
        Ok(())
    }

    /// Reads as long as there is something to be read.
    async fn read_on(&mut self) -> PipeEnd {
        loop {
            let taken = match self.next().await {
                Ok(Step::Snapshot(zxid)) => self.receive(zxid).await,
                Ok(_) => unreachable!("who is known claims nothing"),
                Err(why) => Err(why),
            };
            if let Err(why) = taken {
                return why;
            }
        }
    }

    /// Hands packets in until the link asks for more than bytes.
    async fn next(&mut self) -> Result<Step, PipeEnd> {
        loop {
            self.link.hold(self.pipe.is_held());
            let core = self.peers.core();
            let known = self.inputs.len();
            let step = self.link.take(&mut self.bytes, &|| core.collect_touches(), &mut self.inputs);
            self.inputs[known..].iter().for_each(tell_way);
            core.submit(&mut self.inputs, None);
            match step {
                Step::NeedMore => {
                    // The link has looked at what is there: more than may come is not announced.
                    let expected = quorum::announced_len(&self.bytes);
                    fill(&self.pipe, &mut self.bytes, expected).await?;
                }
                Step::Held => self.pipe.may_read().await?,
                Step::Claims(_) | Step::Snapshot(_) => return Ok(step),
                Step::Broken(why) => return Err(why.into()),
            }
        }
    }

    /// Takes the snapshot that follows SNAP, on a thread that may wait for the disk.
    async fn receive(&mut self, zxid: Zxid) -> Result<(), PipeEnd> {
        let Files { disk, dirs, owners, .. } = self.peers.files.clone();
        let id = self.pipe.id;
        tracing::info!("taking the leader's snapshot of {zxid}");
        let made = tokio::task::spawn_blocking(move || Receiver::new(disk, &dirs, owners, id, zxid)).await?;
        let mut receiver = made.map_err(ReceiveError::from)?;
        let mut told = Instant::now();
        loop {
            let mut bytes = std::mem::take(&mut self.bytes);
            let work = move || {
                let taken = receiver.take(&mut bytes);
                (receiver, bytes, taken)
            };
            let (back, rest, taken) = tokio::task::spawn_blocking(work).await?;
            (receiver, self.bytes) = (back, rest);
            if told.elapsed() >= TOLD_EVERY {
                told = Instant::now();
                tracing::info!("{} MB of the leader's snapshot taken", receiver.bytes() >> 20);
            }
            if let Some(db) = taken? {
                tracing::info!("took the leader's snapshot of {zxid}: {} bytes", receiver.bytes());
                self.link.on_snapshot(db, &mut self.inputs);
                return Ok(());
            }
            let patience = self.peers.settings.stall_timeout;
            match tokio::time::timeout(patience, fill(&self.pipe, &mut self.bytes, 0)).await {
                Ok(filled) => filled?,
                Err(_) => return Err(PipeEnd::SnapshotStands(patience)),
            }
            take_what_is_there(&self.pipe, &mut self.bytes);
        }
    }

    fn end(self, why: PipeEnd) {
        self.pipe.ended.cancel();
        self.peers.pipes.lock().remove(&self.pipe.id);
        let why = self.pipe.take_broken().unwrap_or(why);
        let with = self.pipe.with.map_or_else(|| "nobody".into(), |with| with.to_string());
        match why {
            PipeEnd::Link(_) | PipeEnd::Receive(_) | PipeEnd::SnapshotStands(_) => {
                tracing::warn!("quorum port: closing the connection with {with}: {why}");
            }
            PipeEnd::ClosedThere
            | PipeEnd::ClosedHere
            | PipeEnd::Read(_)
            | PipeEnd::Write(_)
            | PipeEnd::SaysNothing(_)
            | PipeEnd::WrongAddress { .. }
            | PipeEnd::Thread(_) => tracing::debug!("quorum port: the connection with {with} ended: {why}"),
        }
        self.peers.core().submit(&mut self.link.end().into_iter().collect(), None);
    }
}

/// Packets that are kept (a history of many) share this memory: a new piece for each read would keep all of it for the
/// sake of a few bytes. A large one gets memory of its own, and no more than it takes. `expected`: how long the packet is that has
/// begun, if that is known.
fn make_room(input: &mut BytesMut, expected: usize) {
    if expected > PIECE && input.len() < expected {
        if input.capacity() < expected {
            let mut own = BytesMut::with_capacity(expected);
            own.extend_from_slice(input);
            *input = own;
        }
    } else if input.capacity() - input.len() < MIN_ROOM {
        input.reserve(PIECE);
    }
}

/// Reads once.
async fn fill(pipe: &Pipe, bytes: &mut BytesMut, expected: usize) -> Result<(), PipeEnd> {
    loop {
        pipe.may_read().await?;
        tokio::select! {
            () = pipe.ended.cancelled() => return Err(PipeEnd::ClosedHere),
            readable = pipe.socket.readable() => readable.map_err(PipeEnd::Read)?,
        }
        make_room(bytes, expected);
        match pipe.socket.try_read_buf(bytes) {
            Ok(0) => return Err(PipeEnd::ClosedThere),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(PipeEnd::Read(error)),
        }
    }
}

/// How this server is brought up to date.
fn tell_way(input: &Input) {
    let Input::Quorum(QuorumInput::FromLeader { packet, .. }) = input else { return };
    let way = if let FromLeader::Diff(zxid, _) = packet {
        ("DIFF", zxid)
    } else if let FromLeader::Trunc(zxid, _) = packet {
        ("TRUNC", zxid)
    } else if let FromLeader::Snap(zxid, _) = packet {
        ("SNAP", zxid)
    } else {
        return;
    };
    tracing::info!("the leader synchronizes this server by {} to {}", way.0, way.1);
}

/// Some more at once, so that the hand-over to another thread pays. It must not wait: this may have been the end.
fn take_what_is_there(pipe: &Pipe, input: &mut BytesMut) {
    let start = input.len();
    while input.len() - start < READ {
        make_room(input, 0);
        // The next read that waits returns the end of the stream and its errors.
        if !pipe.socket.try_read_buf(input).is_ok_and(|count| count > 0) {
            return;
        }
    }
}

/// Feeds a learner out of files, as fast as it takes them. One that takes nothing for so long as `patience` is cut off.
pub(super) async fn feed(core: Arc<Core>, pipe: Arc<Pipe>, files: Files, feed: Feed, patience: Duration) {
    let outcome = feed_all(&core, &pipe, files, feed, patience).await;
    let id = pipe.id;
    match outcome {
        Ok(Fed::Upto(upto)) => {
            let what = if matches!(feed, Feed::Snapshot { .. }) {
                "the newest snapshot"
            } else {
                "transactions of the log"
            };
            tracing::info!("sent a learner {what}, to {upto}");
            submit(&core, QuorumInput::Fed { link: id, upto });
        }
        Ok(Fed::Located(found)) => submit(&core, QuorumInput::Located { link: id, found }),
        Ok(Fed::More) => unreachable!("more comes in turns"),
        Err(why) => {
            tracing::warn!("could not feed a learner: {why}");
            if let FeedEnd::Files(_) = why {
                // What is on the disk may be damaged. The next learner takes a snapshot of what is in memory.
                core.snapshots.ask();
            }
            submit(&core, QuorumInput::FeedFailed { link: id });
        }
    }
}

async fn feed_all(
    core: &Arc<Core>,
    pipe: &Arc<Pipe>,
    files: Files,
    feed: Feed,
    patience: Duration,
) -> Result<Fed, FeedEnd> {
    let mut feeder = Feeder::new(files, feed);
    let mut told = Instant::now();
    let mut sent = 0;
    loop {
        let mut piece = BytesMut::new();
        let work = move || {
            let fed = feeder.next(&mut piece);
            (feeder, piece, fed)
        };
        let (back, piece, fed) = tokio::task::spawn_blocking(work).await?;
        feeder = back;
        sent += piece.len();
        pipe.queue(&piece);
        pipe.flush();
        match fed? {
            Fed::More => {}
            Fed::Upto(upto) if Feed::is_empty(feed, upto) => {
                // What others have committed is not in this server's log yet.
                tokio::time::sleep(LOG_POLL).await;
                return if core.is_stopping() { Err(FeedEnd::Stopping) } else { Ok(Fed::Upto(upto)) };
            }
            done => return Ok(done),
        }
        if told.elapsed() >= TOLD_EVERY {
            told = Instant::now();
            tracing::info!("sent {} MB to a learner that is far behind", sent >> 20);
        }
        wait_for_room(pipe, patience).await?;
    }
}

/// A slow learner is fed on: only one that takes nothing at all is not.
async fn wait_for_room(pipe: &Pipe, patience: Duration) -> Result<(), FeedEnd> {
    let mut waiting = pipe.waiting();
    while tokio::time::timeout(patience, pipe.room()).await.is_err() {
        if pipe.waiting() >= waiting {
            return Err(FeedEnd::TakesNothing(patience));
        }
        waiting = pipe.waiting();
    }
    if pipe.is_broken() { Err(FeedEnd::Closed) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_that_are_kept_share_their_memory() {
        let mut input = BytesMut::new();
        let mut kept = Vec::new();
        for _ in 0..1000 {
            make_room(&mut input, 0);
            input.extend_from_slice(&[7; 100]);
            kept.push(input.split_to(100).freeze());
        }
        let is_next = |pair: &[bytes::Bytes]| pair[1].as_ptr() == pair[0].as_ptr().wrapping_add(100);
        let pieces = 1 + kept.windows(2).filter(|pair| !is_next(pair)).count();
        assert!(pieces <= 2, "{pieces} pieces for 100 KB");
    }

    #[test]
    fn a_large_packet_that_is_kept_has_memory_of_its_own() {
        const LEN: usize = 100_000;
        let (mut input, mut kept) = (BytesMut::new(), Vec::new());
        for _ in 0..20 {
            while input.len() < LEN {
                let expected = if input.is_empty() { 0 } else { LEN };
                make_room(&mut input, expected);
                input.resize(input.capacity(), 7);
            }
            kept.push(input.split_to(LEN).freeze());
        }
        drop(input);
        let memory =
            kept.into_iter().map(|packet| packet.try_into_mut().expect("nobody shares it").capacity());
        assert_eq!(memory.sum::<usize>(), 20 * LEN);
    }

    /// A leader that goes sends what it has to say, and its end may be noticed while writing first: a reconfiguration's
    /// COMMITANDACTIVATE was lost so.
    #[test]
    fn what_the_other_side_said_before_it_went_is_read() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (ours, theirs) =
                tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
            let (ours, theirs) = (ours.unwrap(), theirs.unwrap().0);
            let stop = tokio_util::sync::CancellationToken::new();
            let pipe = Pipe::new(LinkId(1), ours, &stop);
            pipe.queue(b"something that is never read");
            pipe.flush();
            theirs.readable().await.unwrap();
            theirs.try_write(b"last words").unwrap();
            // What it did not read makes a reset of the end.
            drop(theirs);
            for _ in 0..10_000 {
                pipe.queue(b"more");
                pipe.flush();
                if pipe.is_broken() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            assert!(pipe.is_broken());
            let mut input = BytesMut::new();
            fill(&pipe, &mut input, 0).await.unwrap();
            assert_eq!(input, &b"last words"[..]);
            let end = fill(&pipe, &mut input, 0).await;
            assert!(matches!(end, Err(PipeEnd::ClosedThere | PipeEnd::Read(_))), "{end:?}");
        });
    }
}
