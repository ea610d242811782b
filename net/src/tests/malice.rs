//! Peers that lie, flood, stall or are nobody: bounded, noticed, and without effect.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::identity::Keypair;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{Stream, StreamProtocol, SwarmEvent};
use libp2p::{Multiaddr, Swarm};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::behaviour::gate::{Gate, Strangers};
use crate::behaviour::streams::{self, OpenFailure};
use crate::behaviour::{self, Behaviour, BehaviourEvent, Discovery};
use crate::fetch::Priority;
use crate::frames::{self, Inbox};
use crate::handle::Event;
use crate::limits;
use crate::node::peer_of;
use crate::testing::Rng;
use crate::testing::journal::{Invite, signer};
use crate::testing::node::{TestNode, WAIT, config, device, node, node_with, until};
use crate::testing::store::{FakeStore, Manner};
use crate::wire::{Hello, Message, PROTOCOL_CHUNKS, PROTOCOL_JOIN, PROTOCOL_JOURNAL};
use journal::Frontier;

/// A peer that speaks as the test tells it to.
struct Puppet {
    swarm: Swarm<Behaviour>,
    peer: libp2p::PeerId,
    connection: libp2p::swarm::ConnectionId,
}

impl Puppet {
    /// Dials `to` with the key of device `n`.
    async fn connect(n: u8, to: &TestNode) -> Option<Self> {
        let keypair = Keypair::ed25519_from_bytes(*signer(n).secret_bytes()).unwrap();
        let gate = Arc::new(Gate::new(Strangers::WeJoin));
        gate.set_members(BTreeSet::from([peer_of(&to.device)]));
        let mut swarm = behaviour::swarm(&keypair, gate, Discovery::Off).unwrap();
        swarm.dial(DialOpts::unknown_peer_id().address(to.addr()).build()).unwrap();
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                    return Some(Self { swarm, peer: peer_id, connection: connection_id });
                }
                SwarmEvent::OutgoingConnectionError { .. } => return None,
                _ => {}
            }
        }
    }

    async fn open(&mut self, protocol: StreamProtocol) -> Result<Stream, Option<OpenFailure>> {
        self.swarm.behaviour_mut().streams.open(self.peer, self.connection, protocol, 1);
        loop {
            match self.swarm.select_next_some().await {
                SwarmEvent::Behaviour(BehaviourEvent::Streams(streams::Event::Opened {
                    stream,
                    ..
                })) => return Ok(stream),
                SwarmEvent::Behaviour(BehaviourEvent::Streams(streams::Event::OpenFailed {
                    failure,
                    ..
                })) => return Err(Some(failure)),
                SwarmEvent::ConnectionClosed { .. } => return Err(None),
                _ => {}
            }
        }
    }

    /// The next stream the other end opens.
    async fn accept(&mut self, wanted: StreamProtocol) -> Stream {
        loop {
            if let SwarmEvent::Behaviour(BehaviourEvent::Streams(streams::Event::Inbound {
                protocol,
                stream,
                ..
            })) = self.swarm.select_next_some().await
                && protocol == wanted
            {
                return stream;
            }
        }
    }

    /// Lives until the other end closes the connection; false if it does not within the time.
    async fn until_closed(&mut self) -> bool {
        let closed = async {
            loop {
                if let SwarmEvent::ConnectionClosed { .. } = self.swarm.select_next_some().await {
                    return;
                }
            }
        };
        tokio::time::timeout(WAIT, closed).await.is_ok()
    }

    /// Greets on a journal stream and keeps the connection going in the background.
    async fn greet(&mut self, stream: &mut Stream) {
        let hello = Hello { frontier: Frontier::default(), addrs: vec![], wall_ms: 0 };
        let bytes = Message::Hello(hello).encode();
        self.write(stream, &bytes).await;
    }

    async fn write(&mut self, stream: &mut Stream, bytes: &[u8]) {
        tokio::select! {
            result = frames::write(stream, bytes, WAIT) => drop(result),
            () = async { loop { self.swarm.select_next_some().await; } } => {}
        }
    }
}

/// The journal is opened by the smaller id: one of (victim, puppet) such that the puppet opens.
fn puppet_opens() -> (u8, u8) {
    if device(1) < device(2) { (2, 1) } else { (1, 2) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_not_let_in() {
    let a = node(1, &[1, 2], vec![]).await;
    let b = node(3, &[1, 3], vec![a.addr()]).await;
    let mut puppet = match Puppet::connect(4, &a).await {
        Some(puppet) => puppet,
        None => return,
    };
    assert!(puppet.until_closed().await);
    assert!(!a.is_connected(&b.device) && !b.is_connected(&a.device));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_with_open_invitations_may_only_join_and_not_for_long() {
    let a = node(1, &[1, 2], vec![]).await;
    a.journal.add_invite([5; 32], Invite { uses: 1, expired: false });
    a.handle.members_changed();
    a.journal.author("secret", &[]);
    for protocol in [PROTOCOL_JOURNAL, PROTOCOL_CHUNKS] {
        let mut puppet = loop {
            if let Some(puppet) = Puppet::connect(4, &a).await {
                break puppet;
            }
        };
        match puppet.open(protocol).await {
            // Lazily negotiated: the refusal comes with the first read.
            Ok(mut stream) => {
                let mut byte = [0; 1];
                let read = async {
                    let _ = stream.flush().await;
                    stream.read(&mut byte).await
                };
                let read = tokio::select! {
                    read = read => read,
                    closed = puppet.until_closed() => { assert!(closed); Ok(0) }
                };
                assert!(!matches!(read, Ok(n) if n > 0), "a stranger was told something");
            }
            Err(failure) => assert!(failure.is_none_or(|f| f == OpenFailure::Unsupported)),
        }
    }
    let mut puppet = Puppet::connect(4, &a).await.unwrap();
    // Says nothing: is challenged, and out after its time.
    let _stream = puppet.open(PROTOCOL_JOIN).await;
    assert!(puppet.until_closed().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_is_cut_off_at_once() {
    let a = node(1, &[1, 2], vec![]).await;
    let b = node(2, &[1, 2], vec![a.addr()]).await;
    until("connected", || a.is_connected(&b.device) && b.is_connected(&a.device)).await;
    a.journal.set_member(b.device, false);
    a.handle.members_changed();
    until("cut off", || !b.is_connected(&a.device)).await;
    a.journal.author("after the removal", &[]);
    a.handle.journal_changed();
    let result = b.handle.fetch_now(vec![a.store.write(b"x").id.root()], WAIT).await;
    assert!(result.is_err());
    assert!(!b.journal.texts().contains("after the removal"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_bytes_are_refused_their_sender_excluded_and_another_asked() {
    let members = [1, 2, 3];
    let mut b = node(2, &members, vec![]).await;
    let liar = node(3, &members, vec![b.addr()]).await;
    *liar.store.manner.lock() = Manner::WrongBytes;
    until("connected to the liar", || b.is_connected(&liar.device)).await;
    let bytes = Rng::new(8).bytes(600_000);
    let content = liar.store.write(&bytes);
    b.handle.want(vec![content], Priority::Background);
    b.expect_event(Event::PeerMisbehaved(liar.device)).await;
    let honest = node(1, &members, vec![b.addr()]).await;
    honest.store.write(&bytes);
    until("the content", || b.store.is_complete(&content)).await;
    assert_eq!(b.store.read(content), bytes);
    // 600 kB are a few dozen chunks, each one a strike of its own, so it may have come to this early.
    let more: Vec<_> = (0..4u8).map(|n| liar.store.write(&[n; 100])).collect();
    b.handle.want(more, Priority::Background);
    until("excluded", || !b.is_connected(&liar.device)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_nobody_asked_for_end_the_stream() {
    let (victim, puppet) = puppet_opens();
    let mut a = node(victim, &[1, 2], vec![]).await;
    let mut puppet = Puppet::connect(puppet, &a).await.unwrap();
    let mut journal = puppet.open(PROTOCOL_JOURNAL).await.unwrap();
    puppet.greet(&mut journal).await;
    let wanted = FakeStore::new().write(b"something");
    a.handle.want(vec![wanted], Priority::Background);
    let mut stream = puppet.accept(PROTOCOL_CHUNKS).await;
    // "Missing" for what was asked, then records without end.
    puppet.write(&mut stream, &[0; 10]).await;
    let mut record = vec![1, 0];
    record.extend_from_slice(&4u32.to_le_bytes());
    record.extend_from_slice(&4u32.to_le_bytes());
    record.extend_from_slice(b"spam");
    let flood = record.repeat(10_000);
    let sending = tokio::spawn(async move {
        puppet.write(&mut stream, &flood).await;
        // Leaving now could take back what is not yet read.
        puppet.until_closed().await
    });
    a.expect_event(Event::PeerMisbehaved(signer(3 - victim).device())).await;
    assert_eq!(a.store.put.load(Ordering::Relaxed), 0);
    sending.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversized_frame_and_unknown_messages_end_the_session() {
    let (victim, puppet_n) = puppet_opens();
    for bytes in [
        (u32::MAX).to_le_bytes().to_vec(),
        [1u32.to_le_bytes().as_slice(), &[200]].concat(),
        0u32.to_le_bytes().to_vec(),
        Message::Offered.encode(),
    ] {
        let mut a = node(victim, &[1, 2], vec![]).await;
        let mut puppet = Puppet::connect(puppet_n, &a).await.unwrap();
        let mut journal = puppet.open(PROTOCOL_JOURNAL).await.unwrap();
        puppet.write(&mut journal, &bytes).await;
        assert!(puppet.until_closed().await);
        a.expect_event(Event::PeerMisbehaved(device(puppet_n))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_member_is_dropped_and_others_are_served_meanwhile() {
    let (victim, puppet_n) = puppet_opens();
    let a = node(victim, &[1, 2, 3], vec![]).await;
    let mut puppet = Puppet::connect(puppet_n, &a).await.unwrap();
    let mut journal = puppet.open(PROTOCOL_JOURNAL).await.unwrap();
    puppet.write(&mut journal, &[]).await;
    let c = node(3, &[1, 2, 3], vec![a.addr()]).await;
    a.journal.author("for the others", &[]);
    a.handle.journal_changed();
    until("the entry", || c.journal.texts().contains("for the others")).await;
    assert!(puppet.until_closed().await, "a peer that never greets is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_served_request_that_is_no_request_ends_the_stream() {
    let (victim, puppet_n) = puppet_opens();
    let mut a = node(victim, &[1, 2], vec![]).await;
    let mut puppet = Puppet::connect(puppet_n, &a).await.unwrap();
    let mut stream = puppet.open(PROTOCOL_CHUNKS).await.unwrap();
    puppet.write(&mut stream, &[3, 0, 0, 0, 1, 2, 3]).await;
    let (reader, _writer) = stream.split();
    let mut inbox = Inbox::new(reader, 64);
    let end = tokio::select! {
        end = inbox.next_frame(limits::FRAME_LEN_MAX) => end.is_err(),
        closed = puppet.until_closed() => closed,
    };
    assert!(end);
    a.expect_event(Event::PeerMisbehaved(device(puppet_n))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_bytes_on_the_port_change_nothing() {
    let a = node(1, &[1, 2], vec![]).await;
    let tcp = |addr: &Multiaddr| {
        addr.iter().find_map(|p| match p {
            libp2p::multiaddr::Protocol::Tcp(port) => Some(port),
            _ => None,
        })
    };
    let port = tcp(&a.addr()).unwrap();
    let mut rng = Rng::new(9);
    for round in 0..40 {
        let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let bytes = match round % 4 {
            0 => rng.bytes(64 * 1024),
            1 => [b"\x13/multistream/1.0.0\n".to_vec(), rng.bytes(4096)].concat(),
            2 => {
                let hello = b"\x13/multistream/1.0.0\n\x07/noise\n".to_vec();
                [hello, vec![0xff, 0xff], rng.bytes(70_000)].concat()
            }
            _ => vec![0x80; 1000],
        };
        // It may close on us at any byte.
        let _ = socket.write_all(&bytes).await;
        let mut sink = [0; 1024];
        let read = async { while matches!(socket.read(&mut sink).await, Ok(n) if n > 0) {} };
        let closed = tokio::time::timeout(limits::HANDSHAKE_TIME * 2, read).await;
        assert!(closed.is_ok(), "round {round} is kept open");
    }
    let b = node(2, &[1, 2], vec![a.addr()]).await;
    until("a member still gets in", || a.is_connected(&b.device)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_address_book_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("addresses");
    std::fs::write(&file, Rng::new(1).bytes(1000)).unwrap();
    let mut broken = config(1, vec![]);
    broken.addresses_file = Some(file);
    let a = node_with(1, broken, &[1, 2], Arc::new(FakeStore::new())).await;
    let b = node(2, &[1, 2], vec![a.addr()]).await;
    until("connected", || b.is_connected(&a.device)).await;
}
