//! Keeps the lock table of one node: its clock, its streams, and whoever waits for a claim.
//!
//! There is no task in the middle: whoever has something for the table (a call of the host, a message, the timer) takes
//! its mutex, and carries out what follows on the spot. A claim is on its way to everybody before the call that made it
//! waits.
//!
//! Leaves out: the rules ([`crate::locks`]), opening streams (`driver::locks`).
//!
//! Invariants:
//! - the mutex is never held across a wait or a call of the host;
//! - what is said to one peer is said in the order in which the table decided it, and waits behind nothing else;
//! - a peer that does not read loses its stream when its queue is full.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::AsyncReadExt as _;
use futures::io::WriteHalf;
use journal::id::DeviceId;
use libp2p::swarm::Stream;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::frames::{self, Inbox, ReadError};
use crate::handle::Event;
use crate::host::LockHost;
use crate::limits;
use crate::locks::{Began, Effect, LockClaim, LockOutcome, Now, Scope, Table, Violation};
use crate::node::{Node, Traffic};
use crate::wire::locks::LockMessage;

/// Bytes read from a lock stream at once.
const READ_LEN: usize = 16 * 1024;
/// Bytes of frames that wait, written in one go.
const WRITE_LEN: usize = 64 * 1024;
/// Looks at the clock between two looks at who was seen lately.
const TICKS_PER_LOOK: u64 = 30;

/// Why a lock stream ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("the peer is no member any more")]
    NotMember,
    #[error("the stream ended")]
    Read(#[from] ReadError),
    #[error("the peer breaks the protocol")]
    Violation(#[from] Violation),
    #[error("the peer does not read")]
    Write,
    #[error("another stream took its place")]
    Replaced,
}

struct Line {
    id: u64,
    queue: mpsc::Sender<Vec<u8>>,
}

struct State {
    table: Table,
    lines: BTreeMap<DeviceId, Line>,
    next_line: u64,
    waiting: BTreeMap<u64, Vec<oneshot::Sender<LockOutcome>>>,
    closed: bool,
    #[cfg(test)]
    silent: bool,
    #[cfg(test)]
    said: u64,
}

/// See the module's words.
pub(crate) struct Warden {
    state: Mutex<State>,
    host: Arc<dyn LockHost>,
    events: mpsc::UnboundedSender<Event>,
    /// Something is due sooner than the timer knows.
    sooner: Notify,
    /// Streams whose task still runs.
    running: AtomicU64,
    stopped: Notify,
    clock: Clock,
}

impl Warden {
    pub(crate) fn new(
        me: DeviceId,
        host: Arc<dyn LockHost>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        let clock = Clock::default();
        let state = State {
            table: Table::new(me, incarnation(), clock.now()),
            lines: BTreeMap::new(),
            next_line: 0,
            waiting: BTreeMap::new(),
            closed: false,
            #[cfg(test)]
            silent: false,
            #[cfg(test)]
            said: 0,
        };
        Self {
            state: Mutex::new(state),
            host,
            events,
            sooner: Notify::new(),
            running: AtomicU64::new(0),
            stopped: Notify::new(),
            clock,
        }
    }

    /// Asks the table, or tells it something, and carries out what follows.
    pub(crate) fn with<R>(self: &Arc<Self>, call: impl FnOnce(&mut Table, Now) -> R) -> R {
        let mut state = self.state.lock();
        let result = call(&mut state.table, self.clock.now());
        self.carry_out(&mut state);
        result
    }

    /// Looks at the table.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&Table, Now) -> R) -> R {
        look(&self.state.lock().table, self.clock.now())
    }

    /// Begins a claim; what it comes to is here already, or will be there.
    pub(crate) fn lock(
        self: &Arc<Self>,
        claim: LockClaim,
        patience_ms: u64,
    ) -> Result<LockOutcome, oneshot::Receiver<LockOutcome>> {
        let mut state = self.state.lock();
        if state.closed {
            return Ok(LockOutcome::Closed);
        }
        let began = state.table.claim(self.clock.now(), claim, patience_ms);
        let result = match began {
            Began::Decided(outcome) => Ok(outcome),
            Began::Waiting(id) => {
                let (waiter, outcome) = oneshot::channel();
                state.waiting.entry(id).or_default().push(waiter);
                Err(outcome)
            }
        };
        self.carry_out(&mut state);
        drop(state);
        self.sooner.notify_one();
        result
    }

    fn carry_out(self: &Arc<Self>, state: &mut State) {
        let mut changed = BTreeSet::new();
        while let Some(effect) = state.table.poll_effect() {
            match effect {
                #[cfg(test)]
                Effect::Send { .. } if state.silent => {}
                Effect::Send { to, message } => {
                    #[cfg(test)]
                    {
                        state.said += 1;
                    }
                    let Some(line) = state.lines.get(&to) else { continue };
                    if line.queue.try_send(message.encode()).is_err() {
                        // It does not read: without its queue the stream ends.
                        state.lines.remove(&to);
                    }
                }
                Effect::Judge { to, id, register, bases } => {
                    let warden = self.clone();
                    let judge = move || {
                        let newer = warden.host.is_newer(&register, &bases);
                        warden.with(|table, now| table.handle_judged(now, to, id, newer));
                    };
                    match tokio::runtime::Handle::try_current() {
                        Ok(runtime) => drop(runtime.spawn_blocking(judge)),
                        // A call of the host, which may block.
                        Err(_) => drop(std::thread::spawn(judge)),
                    }
                }
                Effect::Decided { id, scope, outcome } => {
                    let waiting = state.waiting.remove(&id).unwrap_or_default().into_iter();
                    let heard =
                        waiting.map(|waiter| waiter.send(outcome)).filter(Result::is_ok).count();
                    // Whoever asked did not wait: it believes that it has it.
                    if heard == 0 && matches!(outcome, LockOutcome::Denied(_)) {
                        self.tell(Event::LockLost(scope));
                    }
                }
                Effect::Lost(scope) => self.tell(Event::LockLost(scope)),
                Effect::Changed(scope) => drop(changed.insert(scope)),
            }
        }
        if !changed.is_empty() {
            let changed: Vec<Scope> = changed.into_iter().collect();
            self.tell(Event::LocksChanged(changed));
        }
    }

    fn tell(&self, event: Event) {
        // Fails only when nobody takes the events any more.
        let _ = self.events.send(event);
    }

    /// Gives everything back, tells so, and waits until that has left.
    pub(crate) async fn close(self: &Arc<Self>, time: Duration) {
        {
            let mut state = self.state.lock();
            state.closed = true;
            state.waiting.clear();
            state.table.release_all(self.clock.now());
            self.carry_out(&mut state);
            // Each stream ends when its queue is written.
            state.lines.clear();
        }
        let stopped = async {
            loop {
                let stopped = self.stopped.notified();
                if self.running.load(Ordering::Acquire) == 0 {
                    break;
                }
                stopped.await;
            }
        };
        // A peer that does not read is not waited for.
        let _ = tokio::time::timeout(time, stopped).await;
    }

    fn connect(self: &Arc<Self>, device: DeviceId, queue: mpsc::Sender<Vec<u8>>) -> Open {
        let mut state = self.state.lock();
        state.next_line += 1;
        let id = state.next_line;
        self.running.fetch_add(1, Ordering::AcqRel);
        if !state.closed {
            let now = self.clock.now();
            // What the table says at the end of the stream before must not go out on this one.
            state.lines.remove(&device);
            state.table.handle_disconnected(now, device);
            self.carry_out(&mut state);
            state.lines.insert(device, Line { id, queue });
            state.table.handle_connected(now, device);
            self.carry_out(&mut state);
        }
        Open { warden: self.clone(), device, id }
    }
}

/// A stream that stands; dropping it tells the table that it does not any more.
struct Open {
    warden: Arc<Warden>,
    device: DeviceId,
    id: u64,
}

impl Open {
    fn handle(&self, message: LockMessage) -> Result<(), End> {
        let mut state = self.warden.state.lock();
        if state.lines.get(&self.device).is_none_or(|line| line.id != self.id) {
            return Err(End::Replaced);
        }
        #[cfg(test)]
        if state.silent {
            return Ok(());
        }
        let now = self.warden.clock.now();
        let handled = state.table.handle_message(now, self.device, message);
        self.warden.carry_out(&mut state);
        Ok(handled?)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        {
            let mut state = self.warden.state.lock();
            let another = state.lines.get(&self.device).is_some_and(|line| line.id != self.id);
            if !another {
                state.lines.remove(&self.device);
                let now = self.warden.clock.now();
                state.table.handle_disconnected(now, self.device);
                self.warden.carry_out(&mut state);
            }
        }
        self.warden.running.fetch_sub(1, Ordering::AcqRel);
        self.warden.stopped.notify_waiters();
    }
}

/// Speaks with one peer until the stream ends. Dropping it ends it too.
pub(crate) async fn run(node: Arc<Node>, device: DeviceId, stream: Stream) -> End {
    let (reader, writer) = stream.split();
    let (frames, queue) = mpsc::channel(limits::LOCK_QUEUE_MAX);
    let open = node.warden.connect(device, frames);
    let traffic = node.traffic(&device);
    let mut inbox = Inbox::new(reader, READ_LEN);
    // In one task with the reading: an answer is written without a wake-up in between.
    let writing = write_frames(writer, queue, traffic.clone());
    tokio::pin!(writing);
    let mut read = 0;
    loop {
        let frame = tokio::select! {
            frame = inbox.next_frame(limits::LOCK_FRAME_LEN_MAX) => frame,
            () = &mut writing => return End::Write,
        };
        traffic.add_received(inbox.received() - read);
        read = inbox.received();
        let message = match frame.and_then(|frame| Ok(LockMessage::decode(&frame)?)) {
            Ok(message) => message,
            Err(error) => return error.into(),
        };
        if !node.is_member(&device) {
            return End::NotMember;
        }
        if let Err(end) = open.handle(message) {
            return end;
        }
    }
}

/// Writes what comes until the queue or the stream ends; what waits goes out together.
async fn write_frames(
    mut stream: WriteHalf<Stream>,
    mut queue: mpsc::Receiver<Vec<u8>>,
    traffic: Arc<Traffic>,
) {
    while let Some(mut bytes) = queue.recv().await {
        while bytes.len() < WRITE_LEN
            && let Ok(more) = queue.try_recv()
        {
            bytes.extend_from_slice(&more);
        }
        if frames::write(&mut stream, &bytes, limits::WRITE_TIME).await.is_err() {
            return;
        }
        traffic.add_sent(bytes.len() as u64);
    }
}

/// Lets the table see the time, until it is dropped.
pub(crate) async fn keep_time(node: Arc<Node>) {
    let warden = &node.warden;
    let mut ticks: u64 = 0;
    loop {
        let (now_ms, due_ms) = warden.with(|table, now| {
            table.handle_time(now);
            (now.boot_ms, table.next_due_ms())
        });
        if ticks.is_multiple_of(TICKS_PER_LOOK) {
            node.look_at_lock_members();
        }
        // The first millisecond in which it is due has begun by then.
        let pause = Duration::from_millis(due_ms.saturating_sub(now_ms).max(1));
        tokio::select! {
            () = tokio::time::sleep(pause) => ticks = ticks.wrapping_add(1),
            () = warden.sooner.notified() => {}
        }
    }
}

impl Node {
    /// Tells the locks who is a member, and who was seen lately: a member that was not seen in this run counts.
    pub(crate) fn set_lock_members(&self, members: &[DeviceId]) {
        let others: BTreeSet<DeviceId> =
            members.iter().copied().filter(|device| *device != self.me).collect();
        let expected = {
            let (seen, now_ms) = (self.seen.lock(), wall_ms());
            let lately = |device: &&DeviceId| {
                let last_ms = seen.get(device).and_then(|seen| seen.last_seen_ms);
                let connected = seen.get(device).is_some_and(|seen| seen.connected);
                let age_ms = last_ms.map_or(0, |last_ms| now_ms.saturating_sub(last_ms));
                connected || age_ms < limits::LOCK_MEMBER_AGE_MS
            };
            others.iter().filter(lately).copied().collect()
        };
        self.warden.with(|table, now| table.handle_members(now, others, expected));
    }

    fn look_at_lock_members(&self) {
        let members = self.warden.look(|table, _| table.members());
        if !members.is_empty() {
            self.set_lock_members(&members);
        }
    }

    /// How long a claim waits for the silent.
    pub(crate) fn lock_patience_ms(&self) -> u64 {
        let seen = self.seen.lock();
        let rtts = seen.values().filter(|seen| seen.connected).filter_map(|seen| seen.rtt_us);
        let trips_ms = rtts.max().unwrap_or(0).saturating_mul(limits::LOCK_WAIT_TRIPS) / 1000;
        trips_ms.clamp(limits::LOCK_WAIT_MIN_MS, limits::LOCK_WAIT_MAX_MS)
    }
}

/// Another number at each start. Without randomness the time tells runs apart.
fn incarnation() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => wall_ms(),
    }
}

fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// A clock that runs on while the machine sleeps.
#[derive(Default)]
struct Clock {
    /// A test lets leases end without waiting for them.
    #[cfg(test)]
    ahead_ms: AtomicU64,
}

impl Clock {
    fn now(&self) -> Now {
        let time = rustix::time::clock_gettime(BOOT_CLOCK);
        let boot_ms = (time.tv_sec as u64) * 1000 + (time.tv_nsec as u64) / 1_000_000;
        #[cfg(test)]
        let boot_ms = boot_ms + self.ahead_ms.load(Ordering::Relaxed);
        Now { boot_ms, wall_ms: wall_ms() }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
const BOOT_CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
/// There it counts a sleep.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const BOOT_CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;

#[cfg(test)]
impl Warden {
    /// Says nothing more and hears nothing more, as a process that hangs.
    pub(crate) fn silence(&self) {
        self.state.lock().silent = true;
    }

    /// Messages said so far.
    pub(crate) fn said(&self) -> u64 {
        self.state.lock().said
    }

    /// Sends this many claims, whatever is allowed.
    pub(crate) fn flood(&self, to: DeviceId, count: usize) {
        use crate::wire::locks::{Claim, Stage};
        use journal::id::DirId;
        let state = self.state.lock();
        for id in 0..count as u64 {
            let mut dir = [0; 32];
            // Not the root: that would be everything.
            dir[..8].copy_from_slice(&(id + 1).to_be_bytes());
            let claim = Claim {
                id: 1 << 32 | id,
                scope: Scope::Below(DirId::from_bytes(dir)),
                above: vec![],
                priority: 1,
                bases: vec![],
                stage: Stage::Asked,
                age_ms: 0,
                unreachable: 0,
            };
            let frame = LockMessage::Claims(vec![claim]).encode();
            state.lines[&to].queue.try_send(frame).unwrap();
        }
    }

    /// Moves this node's clock.
    pub(crate) fn pass(self: &Arc<Self>, time: Duration) {
        self.clock.ahead_ms.fetch_add(time.as_millis() as u64, Ordering::Relaxed);
        self.with(|table, now| table.handle_time(now));
    }
}
