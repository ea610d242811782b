//! What the composition holds of a running network: commands in, status and events out.
//!
//! Leaves out: the event loop (`driver`).
//!
//! Invariants:
//! - no call waits for a peer longer than the time its caller gave;
//! - [`Handle::journal_changed`] costs no lock that a peer could hold and no timer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cas::{ChunkId, Content, ContentId};
use journal::Frontier;
use journal::id::DeviceId;
use libp2p::Multiaddr;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::driver::Command;
use crate::error::FetchError;
use crate::fetch::Priority;
use crate::limits;
use crate::locks::Scope;
use crate::node::{Node, Seen};
use crate::sync::reached;
use crate::transfer::Input;

mod locks;

/// How often addresses that are about to be known are looked at.
const LISTEN_LOOK: Duration = Duration::from_millis(10);

/// News for the host: none is lost as long as the [`EventStream`] lives, and they come in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// We can be reached there.
    Listening(Multiaddr),
    /// A member is connected and has greeted.
    PeerUp(DeviceId),
    /// It is not any more.
    PeerDown(DeviceId),
    /// A member speaks another version of the protocol.
    PeerIncompatible(DeviceId),
    /// A member runs in two places at once.
    PeerTwice(DeviceId),
    /// A member says that we do.
    RunsTwice,
    /// A member takes us for no member.
    PeerRefuses(DeviceId),
    /// A member broke the protocol; three times cuts it off for a while.
    PeerMisbehaved(DeviceId),
    /// An invitation was used here.
    Joined(DeviceId),
    /// A wanted content is here as a whole, durably.
    ContentArrived(Content),
    /// Every member that is connected has said that it lacks some of this wanted content.
    ContentOutOfReach(Content),
    /// That may have changed, because a member has come or has news. Said only after the other.
    ContentWithinReach(Content),
    /// Fetching pauses: the disk is full.
    StoreFull,
    /// Locks or presences of others came, went or changed there.
    LocksChanged(Vec<Scope>),
    /// An own lock is lost: somebody who holds the same was first, or this machine slept too long.
    LockLost(Scope),
}

/// Takes the events of one node.
pub type EventStream = mpsc::UnboundedReceiver<Event>;

/// Unbounded, because the host would for ever believe the contrary of what was dropped, and waiting for it would let
/// it stop the network. What may wait is bounded by what is said of: at most
/// [`crate::limits::WANTED_CONTENTS_MAX`] contents, each once for every time a member comes or has news, and members.
pub(crate) fn event_channel() -> (mpsc::UnboundedSender<Event>, EventStream) {
    mpsc::unbounded_channel()
}

/// A member as the network sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// Who.
    pub device: DeviceId,
    /// A session stands.
    pub connected: bool,
    /// Where it was reached last.
    pub addr: Option<Multiaddr>,
    /// Round trip of the last ping.
    pub rtt: Option<Duration>,
    /// Entries are equal, and both ends hold all content.
    pub in_sync: bool,
    /// We hold every entry that it said it holds.
    pub caught_up: bool,
    /// It holds every content that we know of.
    pub holds_everything: bool,
    /// When it last said something, milliseconds since 1970.
    pub last_seen_ms: Option<u64>,
    /// Payload bytes from it since the start.
    pub received: u64,
    /// Payload bytes to it since the start.
    pub sent: u64,
}

/// What is still to travel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that connected members still want, of which the largest counts: one save is sent to each,
    /// but whoever looks wants to know how much is left.
    pub to_send: u64,
    /// Bytes wanted here.
    pub to_receive: u64,
}

/// How [`Handle::sync_barrier`] ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Synced {
    /// Members that have all that existed at the call, content too, as we have theirs.
    pub reached: Vec<DeviceId>,
    /// Members connected at the call for which that is not so within the time.
    pub behind: Vec<DeviceId>,
}

impl Synced {
    /// Nobody who was connected is behind.
    pub fn is_complete(&self) -> bool {
        self.behind.is_empty()
    }
}

pub(crate) struct Inner {
    pub(crate) node: Arc<Node>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) fetch: mpsc::Sender<Input>,
    pub(crate) members: Arc<Notify>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) driver: Mutex<Option<JoinHandle<()>>>,
}

/// A running network. Clones are the same one; it ends with [`Handle::shutdown`].
#[derive(Clone)]
pub struct Handle {
    pub(crate) inner: Arc<Inner>,
}

impl Handle {
    /// The journal holds something new, or more content is held: tells everybody who lacks it.
    pub fn journal_changed(&self) {
        self.inner.node.bump_changed();
    }

    /// Members or invitations changed: removed ones are cut off at once.
    pub fn members_changed(&self) {
        self.inner.members.notify_one();
    }

    /// These contents should be here.
    pub fn want(&self, contents: Vec<Content>, priority: Priority) {
        self.send(Input::Want(contents, priority));
    }

    /// These contents need not come any more.
    pub fn unwant(&self, contents: Vec<ContentId>) {
        self.send(Input::Unwant(contents));
    }

    fn send(&self, input: Input) {
        let fetch = self.inner.fetch.clone();
        if let Err(mpsc::error::TrySendError::Full(input)) = fetch.try_send(input) {
            self.inner.runtime.spawn(async move { fetch.send(input).await.is_ok() });
        }
    }

    /// Fetches chunks ahead of everything else. They are in the store when this returns `Ok`.
    /// May be dropped.
    pub async fn fetch_now(&self, ids: Vec<ChunkId>, time: Duration) -> Result<(), FetchError> {
        let (answer, result) = oneshot::channel();
        let ask = async {
            let input = Input::Fetch(ids, answer);
            self.inner.fetch.send(input).await.map_err(|_| FetchError::Closed)?;
            result.await.map_err(|_| FetchError::Closed)?
        };
        tokio::time::timeout(time, ask).await.unwrap_or(Err(FetchError::TimedOut))
    }

    /// [`Self::fetch_now`] for a thread outside any runtime.
    pub fn fetch_now_blocking(&self, ids: Vec<ChunkId>, time: Duration) -> Result<(), FetchError> {
        self.inner.runtime.block_on(self.fetch_now(ids, time))
    }

    /// Every member but this device. Asks the journal: not for a thread that must not block.
    pub fn peers(&self) -> Vec<PeerStatus> {
        let node = &self.inner.node;
        let ours_held = self.holds_all_we_know();
        let seen = node.seen.lock().clone();
        let others = node.journal.members().into_iter().filter(|device| *device != node.me);
        others
            .map(|device| {
                let seen = seen.get(&device).cloned().unwrap_or_default();
                let holds = self.knows_of_us(seen.their_holds.as_ref());
                let caught_up = node.journal.covers(&seen.theirs);
                let same = caught_up && self.knows_of_us(Some(&seen.theirs));
                PeerStatus {
                    device,
                    connected: seen.connected,
                    addr: seen.addr.as_ref().map(|a| a.as_multiaddr().clone()),
                    rtt: seen.rtt_us.map(Duration::from_micros),
                    in_sync: seen.connected && same && holds && ours_held,
                    caught_up,
                    holds_everything: holds,
                    last_seen_ms: seen.last_seen_ms,
                    received: seen.traffic.received(),
                    sent: seen.traffic.sent(),
                }
            })
            .collect()
    }

    fn holds_all_we_know(&self) -> bool {
        let journal = &self.inner.node.journal;
        self.knows_of_us(journal.holds().as_ref())
    }

    /// Whether the frontier covers everything our journal holds.
    fn knows_of_us(&self, frontier: Option<&Frontier>) -> bool {
        frontier.is_some_and(|f| self.inner.node.journal.lacking(f, 1).is_empty())
    }

    /// Where this device can be reached.
    pub fn listen_addrs(&self) -> Vec<Multiaddr> {
        self.inner.node.listening.lock().iter().map(|a| a.as_multiaddr().clone()).collect()
    }

    /// The same once they are known, which just after a start takes a moment; waits `bound` at most. For a thread that
    /// may wait.
    pub fn wait_for_listen_addrs(&self, bound: Duration) -> Vec<Multiaddr> {
        let until = Instant::now() + bound;
        let mut before = Vec::new();
        loop {
            let now = self.listen_addrs();
            // They become known one by one.
            if (!now.is_empty() && now == before) || Instant::now() >= until {
                return now;
            }
            before = now;
            std::thread::sleep(LISTEN_LOOK);
        }
    }

    /// What is still to travel.
    pub fn progress(&self) -> Progress {
        let node = &self.inner.node;
        let seen = node.seen.lock();
        let connected = seen.values().filter(|s| s.connected);
        let to_send = connected.map(|s| s.their_lack.saturating_add(s.in_flight_len)).max();
        Progress { to_send: to_send.unwrap_or(0), to_receive: *node.lack.borrow() }
    }

    /// Waits until what exists now, here and on every connected member, is on all of them and here,
    /// content too. What is made later is not waited for. May be dropped.
    pub async fn sync_barrier(&self, time: Duration) -> Synced {
        let deadline = Instant::now() + time;
        let node = &self.inner.node;
        let mut seen_changed = node.seen_changed.subscribe();
        let mut changed = node.changed.subscribe();
        let mut devices: Vec<DeviceId> = {
            let seen = node.seen.lock();
            seen.iter().filter(|(_, s)| s.connected).map(|(device, _)| *device).collect()
        };
        let mut targets = vec![self.blocking(|node| node.journal.frontier()).await];
        let mut unknown = Vec::new();
        for device in &devices {
            match timeout_at(deadline, self.probe(*device)).await {
                Ok(Some(frontier)) => targets.push(frontier),
                _ => unknown.push(*device),
            }
        }
        let targets = Arc::new(targets);
        loop {
            let seen = node.seen.lock().clone();
            // Whoever has left meanwhile is not connected any more, and not waited for.
            let here = |device: &DeviceId| seen.get(device).is_some_and(|s| s.connected);
            devices.retain(here);
            unknown.retain(here);
            let (asked, all) = (devices.clone(), targets.clone());
            let (reached, mut behind) =
                self.blocking(move |node| judge(node, &asked, &seen, &all)).await;
            behind.extend(unknown.iter().filter(|d| reached.contains(d)));
            let reached = reached.into_iter().filter(|d| !unknown.contains(d)).collect();
            let synced = Synced { reached, behind };
            if synced.is_complete() {
                return synced;
            }
            let news = async {
                tokio::select! {
                    _ = seen_changed.changed() => {}
                    _ = changed.changed() => {}
                }
            };
            if timeout_at(deadline, news).await.is_err() {
                return synced;
            }
        }
    }

    /// [`Self::sync_barrier`] for a thread outside any runtime.
    pub fn sync_barrier_blocking(&self, time: Duration) -> Synced {
        self.inner.runtime.block_on(self.sync_barrier(time))
    }

    async fn blocking<T: Send + 'static + Default>(
        &self,
        ask: impl FnOnce(&Node) -> T + Send + 'static,
    ) -> T {
        let node = self.inner.node.clone();
        tokio::task::spawn_blocking(move || ask(&node)).await.unwrap_or_default()
    }

    /// What `device` holds at this moment, by its own word; `None` when it is gone.
    async fn probe(&self, device: DeviceId) -> Option<Frontier> {
        let (answer, frontier) = oneshot::channel();
        self.inner.commands.send(Command::Probe { device, answer }).await.ok()?;
        frontier.await.ok()
    }

    /// Dials an address once, and again until somebody of the drive answers there.
    pub fn dial(&self, addr: Multiaddr) {
        let commands = self.inner.commands.clone();
        self.inner.runtime.spawn(async move { commands.send(Command::Dial(addr)).await.is_ok() });
    }

    /// Ends every connection and task, within [`limits::SHUTDOWN_TIME`].
    pub async fn shutdown(&self) {
        // Fails only when the driver is gone already.
        let _ = self.inner.commands.send(Command::Shutdown).await;
        let driver = self.inner.driver.lock().take();
        if let Some(mut driver) = driver
            && tokio::time::timeout(limits::SHUTDOWN_TIME, &mut driver).await.is_err()
        {
            driver.abort();
        }
    }

    /// [`Self::shutdown`] for a thread outside any runtime.
    pub fn shutdown_blocking(&self) {
        self.inner.runtime.block_on(self.shutdown());
    }
}

/// Who of `devices` has all of `targets`, both ways.
fn judge(
    node: &Node,
    devices: &[DeviceId],
    seen: &BTreeMap<DeviceId, Seen>,
    targets: &[Frontier],
) -> (Vec<DeviceId>, Vec<DeviceId>) {
    let journal = &node.journal;
    let our_holds = journal.holds();
    let under = |target: &Frontier, held: Option<&Frontier>| {
        held.is_some_and(|held| reached(target, held) || journal.is_under(target, held))
    };
    let here =
        targets.iter().all(|target| journal.covers(target) && under(target, our_holds.as_ref()));
    devices.iter().partition(|device| {
        here && seen.get(device).is_some_and(|seen| {
            let holds = seen.their_holds.as_ref();
            seen.connected && targets.iter().all(|target| under(target, holds))
        })
    })
}
