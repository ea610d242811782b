//! Whole nodes on loopback, with fake hosts, and waiting for what they do.

use std::sync::Arc;
use std::time::Duration;

use cas::Content;
use journal::id::DeviceId;
use libp2p::Multiaddr;

use super::journal::{FakeJournal, signer};
use super::store::FakeStore;
use crate::handle::{Event, EventStream, Handle};
use crate::host::JournalHost as _;
use crate::start::{Config, start};

/// Longest wait for anything; tests fail after it.
pub(crate) const WAIT: Duration = Duration::from_secs(30);

pub(crate) struct TestNode {
    pub(crate) device: DeviceId,
    pub(crate) journal: Arc<FakeJournal>,
    pub(crate) store: Arc<FakeStore>,
    pub(crate) handle: Handle,
    pub(crate) events: EventStream,
}

pub(crate) fn device(n: u8) -> DeviceId {
    signer(n).device()
}

pub(crate) fn loopback(protocol: &str) -> Multiaddr {
    match protocol {
        "quic" => "/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap(),
        _ => "/ip4/127.0.0.1/tcp/0".parse().unwrap(),
    }
}

pub(crate) fn config(n: u8, peers: Vec<Multiaddr>) -> Config {
    Config {
        identity: *signer(n).secret_bytes(),
        listen: vec![loopback("tcp")],
        peers,
        mdns: false,
        addresses_file: None,
    }
}

/// Starts node `n` of a drive founded by device 1.
pub(crate) async fn node(n: u8, members: &[u8], peers: Vec<Multiaddr>) -> TestNode {
    node_with(n, config(n, peers), members, Arc::new(FakeStore::new())).await
}

pub(crate) async fn node_with(
    n: u8,
    config: Config,
    members: &[u8],
    store: Arc<FakeStore>,
) -> TestNode {
    let members: Vec<DeviceId> = members.iter().map(|n| device(*n)).collect();
    let journal = Arc::new(FakeJournal::new(device(n), &members, 1));
    node_on(n, config, journal, store).await
}

pub(crate) async fn node_on(
    n: u8,
    config: Config,
    journal: Arc<FakeJournal>,
    store: Arc<FakeStore>,
) -> TestNode {
    let runtime = tokio::runtime::Handle::current();
    let (handle, events) =
        start(config, journal.clone(), store.clone(), journal.clone(), runtime).unwrap();
    let node = TestNode { device: device(n), journal, store, handle, events };
    until("listening", || !node.handle.listen_addrs().is_empty()).await;
    node
}

impl TestNode {
    pub(crate) fn addr(&self) -> Multiaddr {
        self.handle.listen_addrs()[0].clone()
    }

    /// Waits until this is told; other news before it is dropped.
    pub(crate) async fn expect_event(&mut self, event: Event) {
        let told = async { while self.events.recv().await.as_ref() != Some(&event) {} };
        let told = tokio::time::timeout(WAIT, told).await;
        assert!(told.is_ok(), "timed out waiting for: {event:?}");
    }

    pub(crate) fn is_connected(&self, device: &DeviceId) -> bool {
        self.handle.peers().iter().any(|p| p.device == *device && p.connected)
    }

    /// Saves a file: chunks, then the entry.
    pub(crate) fn save(&self, text: &str, bytes: &[u8]) -> Content {
        let content = self.store.write(bytes);
        self.journal.author(text, &[content]);
        self.handle.journal_changed();
        content
    }

    /// What a daemon answers to "what do you hold"; true when that is everything.
    pub(crate) fn update_holds(&self) -> bool {
        let complete = self.journal.contents().iter().all(|c| self.store.is_complete(c));
        if complete {
            self.journal.set_holds(Some(self.journal.frontier()));
            self.handle.journal_changed();
        }
        complete
    }
}

/// Waits for a condition, bounded.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + WAIT;
    let mut pause = Duration::from_micros(200);
    while !condition() {
        assert!(tokio::time::Instant::now() < end, "timed out waiting for: {what}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
