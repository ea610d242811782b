//! What the tasks of one running node share: the host, the gate, and what is known of each peer.
//!
//! Leaves out: any decision; tasks read and write here, under short locks never held across a wait.
//!
//! Invariants:
//! - [`Node::bump_changed`] wakes every session, without a timer in between;
//! - each change of [`Seen`] is followed by a bump of `seen_changed`, so whoever waits misses none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use journal::Frontier;
use journal::id::DeviceId;
use libp2p::PeerId;
use libp2p::identity::{PublicKey, ed25519};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::behaviour::gate::Gate;
use crate::handle::Event;
use crate::host::{ChunkHost, JournalHost};
use crate::limits;
use crate::warden::Warden;
use crate::wire::Addr;

/// What is known of a member, connected or not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// A session stands and the peer has greeted.
    pub(crate) connected: bool,
    /// Everything goes out at once on it (DESIGN 4.2 is done with).
    pub(crate) pushing: bool,
    pub(crate) theirs: Frontier,
    pub(crate) their_holds: Option<Frontier>,
    pub(crate) their_lack: u64,
    pub(crate) in_flight_len: u64,
    pub(crate) addr: Option<Addr>,
    pub(crate) rtt_us: Option<u64>,
    pub(crate) last_seen_ms: Option<u64>,
    pub(crate) traffic: Arc<Traffic>,
}

/// Payload bytes exchanged with a peer since the start.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Traffic {
    pub(crate) fn add_received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// See the module's words.
pub(crate) struct Node {
    pub(crate) me: DeviceId,
    pub(crate) journal: Arc<dyn JournalHost>,
    pub(crate) chunks: Arc<dyn ChunkHost>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) warden: Arc<Warden>,
    /// Counts changes of the journal and of what is held.
    pub(crate) changed: watch::Sender<u64>,
    /// Content bytes still wanted here.
    pub(crate) lack: watch::Sender<u64>,
    pub(crate) seen_changed: watch::Sender<u64>,
    pub(crate) seen: Mutex<BTreeMap<DeviceId, Seen>>,
    /// Where we listen.
    pub(crate) listening: Mutex<Vec<Addr>>,
    pub(crate) storing: Arc<Semaphore>,
    events: mpsc::UnboundedSender<Event>,
    started: Instant,
}

impl Node {
    pub(crate) fn new(
        me: DeviceId,
        journal: Arc<dyn JournalHost>,
        chunks: Arc<dyn ChunkHost>,
        gate: Arc<Gate>,
        warden: Arc<Warden>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        Self {
            me,
            journal,
            chunks,
            gate,
            warden,
            changed: watch::Sender::new(0),
            lack: watch::Sender::new(0),
            seen_changed: watch::Sender::new(0),
            seen: Mutex::new(BTreeMap::new()),
            listening: Mutex::new(Vec::new()),
            storing: Arc::new(Semaphore::new(limits::STORE_PARALLEL_MAX)),
            events,
            started: Instant::now(),
        }
    }

    /// Monotonic milliseconds since the start.
    pub(crate) fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// The journal, or what is held of it, is no longer what it was.
    pub(crate) fn bump_changed(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Changes what is known of `device`.
    pub(crate) fn see(&self, device: &DeviceId, change: impl FnOnce(&mut Seen)) {
        change(self.seen.lock().entry(*device).or_default());
        self.seen_changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Counters of `device`.
    pub(crate) fn traffic(&self, device: &DeviceId) -> Arc<Traffic> {
        self.seen.lock().entry(*device).or_default().traffic.clone()
    }

    /// Whether `device` is a member at this moment, by the journal's word.
    pub(crate) fn is_member(&self, device: &DeviceId) -> bool {
        self.gate.is_member(&peer_of(device)) && self.journal.is_member(*device)
    }

    /// Tells the host, if it listens.
    pub(crate) fn tell(&self, event: Event) {
        // Fails only when nobody takes the events any more.
        let _ = self.events.send(event);
    }
}

/// The libp2p name of a device; a key that is no point on the curve has none that can connect.
pub(crate) fn peer_of(device: &DeviceId) -> PeerId {
    ed25519::PublicKey::try_from_bytes(device.as_bytes())
        .map(|key| PublicKey::from(key).to_peer_id())
        .unwrap_or_else(|_| unreachable_peer(device))
}

/// The identity multihash of the protobuf form, without checking the key.
fn unreachable_peer(device: &DeviceId) -> PeerId {
    let mut bytes = PEER_ID_HEAD.to_vec();
    bytes.extend_from_slice(device.as_bytes());
    PeerId::from_bytes(&bytes).unwrap_or_else(|_| PeerId::random())
}

/// identity multihash (0x00), 36 bytes, protobuf: key type Ed25519, 32 bytes of key.
const PEER_ID_HEAD: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// The device behind a libp2p name, if it is of our kind.
pub(crate) fn device_of(peer: &PeerId) -> Option<DeviceId> {
    let bytes = peer.to_bytes();
    let key = bytes.strip_prefix(&PEER_ID_HEAD)?;
    Some(DeviceId::from_bytes(*key.first_chunk::<32>().filter(|_| key.len() == 32)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour::gate::Strangers;
    use crate::testing::journal::FakeJournal;
    use crate::testing::store::FakeStore;
    use cas::{ChunkId, Content, ContentId};
    use libp2p::identity::Keypair;

    #[test]
    fn news_wait_for_a_host_that_is_slow_and_none_is_lost() {
        let me = DeviceId::from_bytes([1; 32]);
        let journal = Arc::new(FakeJournal::new(me, &[me], 1));
        let gate = Arc::new(Gate::new(Strangers::Refused));
        let (events, mut told) = crate::handle::event_channel();
        let warden = Arc::new(Warden::new(me, journal.clone(), events.clone()));
        let node = Node::new(me, journal, Arc::new(FakeStore::new()), gate, warden, events);
        let all: Vec<Event> = (0..50_000u32)
            .map(|n| {
                let mut id = [0; 32];
                id[..4].copy_from_slice(&n.to_be_bytes());
                let id = ContentId::chunk(ChunkId::from_bytes(id));
                Event::ContentArrived(Content { id, len: 1 })
            })
            .collect();
        all.iter().for_each(|event| node.tell(event.clone()));
        for event in all {
            assert_eq!(told.try_recv(), Ok(event));
        }
    }

    #[test]
    fn device_and_peer_are_the_same_key() {
        let keypair = Keypair::ed25519_from_bytes([7; 32]).unwrap();
        let peer = keypair.public().to_peer_id();
        let device = device_of(&peer).unwrap();
        let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key();
        assert_eq!(device.as_bytes(), key.as_bytes());
        assert_eq!(peer_of(&device), peer);
        assert_eq!(device_of(&PeerId::random()), None);
    }
}
