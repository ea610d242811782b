//! Runs one journal session: [`crate::sync`] between a stream and the host.
//!
//! Leaves out: the rules (sync), opening streams and reconnection (`driver`).
//!
//! Invariants:
//! - host calls run on blocking threads, in two orders of their own: what changes the journal
//!   (receive, acknowledgements, the late entry) and what reads it; a slow disk write does not delay
//!   a push;
//! - membership is asked for every message;
//! - the session reads no further while its queues are full.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures::AsyncReadExt as _;
use futures::io::WriteHalf;
use journal::Frontier;
use journal::{AppendError, DeviceId, EntryId, Received};
use libp2p::swarm::Stream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::frames::{self, Inbox, ReadError};
use crate::host::JournalHost;
use crate::limits;
use crate::node::Node;
use crate::sync::{Collected, Effect, HoldBack, Session, Truncated, Violation};
use crate::wire::{Addr, Hello, Message};

/// Bytes read from a journal stream at once.
const READ_LEN: usize = 64 * 1024;

/// What the driver asks of a running session.
#[derive(Debug)]
pub(crate) enum Control {
    /// Ask the peer what it holds now.
    Probe(oneshot::Sender<Frontier>),
    /// Tell the peer where other members are.
    TellAddresses(Vec<(DeviceId, Vec<Addr>)>),
}

/// What a session learns for others.
#[derive(Debug)]
pub(crate) enum Hint {
    /// Where a member listens.
    Addresses { about: DeviceId, addrs: Vec<Addr>, by: DeviceId },
    /// The peer says that it holds more content.
    Holds { device: DeviceId },
}

/// The ways back to the driver.
#[derive(Debug, Clone)]
pub(crate) struct Reports {
    /// The peer of this session greeted: it can be asked for chunks. Once a session.
    pub(crate) greeted: mpsc::UnboundedSender<(DeviceId, u64)>,
    /// Bounded; what does not fit is dropped.
    pub(crate) hints: mpsc::Sender<Hint>,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("the peer is no member any more")]
    NotMember,
    #[error("the stream ended")]
    Read(#[from] ReadError),
    #[error("the peer breaks the protocol")]
    Violation(#[from] Violation),
    #[error("the peer takes nothing")]
    Write,
    #[error("no greeting in time")]
    Silent,
    #[error("the journal takes nothing in")]
    Journal,
    #[error("shut down")]
    Shutdown,
}

/// Host calls, by what they are ordered with.
#[derive(Debug)]
enum Job {
    Receive { batch: u64, entries: Vec<Arc<[u8]>> },
    Acknowledged(Frontier),
    Prepare,
    Clock(u64),
    TheyHold(Frontier),
    Collect { theirs: Frontier, bytes_max: usize, hold_back: HoldBack },
    Lookup(Vec<EntryId>),
    Probe(u64),
    Holds,
}

#[derive(Debug)]
enum Done {
    Received { batch: u64, received: Result<Received, AppendError>, frontier: Frontier },
    Prepared,
    Collected(Collected),
    Found { found: Vec<Arc<[u8]>>, frontier: Frontier },
    ProbeAnswer { token: u64, frontier: Frontier },
    Holds(Option<Frontier>),
    Nothing,
}

/// One order of host calls: the next starts when the last has returned.
#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    running: Option<JoinHandle<Done>>,
}

impl Jobs {
    fn start(&mut self, node: &Arc<Node>, peer: DeviceId) {
        if self.running.is_none()
            && let Some(job) = self.waiting.pop_front()
        {
            let node = node.clone();
            self.running =
                Some(tokio::task::spawn_blocking(move || run_job(&*node.journal, peer, job)));
        }
    }

    /// Pending for ever when nothing runs. A host call that panicked counts as failed.
    async fn done(&mut self) -> Option<Done> {
        match &mut self.running {
            Some(handle) => {
                let done = handle.await.ok();
                self.running = None;
                done
            }
            None => std::future::pending().await,
        }
    }
}

fn run_job(journal: &dyn JournalHost, peer: DeviceId, job: Job) -> Done {
    match job {
        Job::Receive { batch, entries } => {
            let received = journal.receive(peer, &entries);
            Done::Received { batch, received, frontier: journal.frontier() }
        }
        Job::Acknowledged(frontier) => {
            journal.acknowledged(peer, &frontier);
            Done::Nothing
        }
        Job::Clock(theirs_ms) => {
            journal.observe_clock(peer, theirs_ms);
            Done::Nothing
        }
        Job::TheyHold(frontier) => {
            journal.they_hold(peer, &frontier);
            Done::Nothing
        }
        Job::Prepare => {
            journal.before_first_push();
            Done::Prepared
        }
        Job::Collect { theirs, bytes_max, hold_back } => {
            Done::Collected(collect(journal, &theirs, bytes_max, hold_back))
        }
        Job::Lookup(ids) => {
            let mut len = 0;
            let mut found = Vec::new();
            for entry in ids.iter().filter_map(|id| journal.entry(id)) {
                len += entry.len();
                // The rest is asked for again: a request must not cost more than a batch.
                if len > limits::BATCH_LEN_MAX && !found.is_empty() {
                    break;
                }
                found.push(entry);
            }
            Done::Found { found, frontier: journal.frontier() }
        }
        Job::Probe(token) => Done::ProbeAnswer { token, frontier: journal.frontier() },
        Job::Holds => Done::Holds(journal.holds()),
    }
}

fn collect(
    journal: &dyn JournalHost,
    theirs: &Frontier,
    bytes_max: usize,
    hold_back: HoldBack,
) -> Collected {
    // Asked before the entries: one that is acknowledged in between is held back once, no harm.
    let unacknowledged: BTreeSet<EntryId> = match hold_back {
        HoldBack::Unacknowledged => journal.unacknowledged().into_iter().collect(),
        HoldBack::Nothing => BTreeSet::new(),
    };
    let entries = journal.lacking(theirs, bytes_max);
    let len: usize = entries.iter().map(|e| e.len()).sum();
    // A host stops before the entry that would exceed the bound; how long that one is only it knows.
    let cut = len + limits::ENTRY_LEN_MAX >= bytes_max;
    let truncated = if cut { Truncated::Yes } else { Truncated::No };
    let entries: Vec<_> =
        entries.into_iter().map(|bytes| (journal.entry_id(&bytes), bytes)).collect();
    Collected { entries, truncated, unacknowledged, frontier: journal.frontier() }
}

/// The wall clock, for the greeting.
fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// A running session.
struct Runner {
    node: Arc<Node>,
    device: DeviceId,
    id: u64,
    session: Session,
    out: VecDeque<Vec<u8>>,
    changes: Jobs,
    reads: Jobs,
    holds_stale: bool,
    probes: BTreeMap<u64, oneshot::Sender<Frontier>>,
    next_probe: u64,
    reports: Reports,
}

/// Runs until the stream, the peer or the host ends it. Dropping it ends it too.
pub(crate) async fn run(
    node: Arc<Node>,
    device: DeviceId,
    id: u64,
    stream: Stream,
    addrs: Vec<Addr>,
    mut control: mpsc::Receiver<Control>,
    reports: Reports,
) -> End {
    let (reader, writer) = stream.split();
    let mut inbox = Inbox::new(reader, READ_LEN);
    let (frames, queue) = mpsc::channel(1);
    let traffic = node.traffic(&device);
    let mut writing = Writing(tokio::spawn(write_frames(writer, queue, traffic.clone())));
    let mut changed = node.changed.subscribe();
    let mut lack = node.lack.subscribe();
    changed.mark_unchanged();
    let greeting = {
        let node = node.clone();
        tokio::task::spawn_blocking(move || node.journal.frontier()).await
    };
    let Ok(frontier) = greeting else { return End::Journal };
    let hello = Hello { frontier, addrs, wall_ms: wall_ms() };
    let mut runner = Runner {
        device,
        id,
        session: Session::new(hello),
        out: VecDeque::new(),
        changes: Jobs::default(),
        reads: Jobs::default(),
        holds_stale: false,
        probes: BTreeMap::new(),
        next_probe: 0,
        reports,
        node,
    };
    let greet_by = tokio::time::Instant::now() + limits::GREETING_TIME;
    let mut read = 0;
    loop {
        runner.carry_out();
        let greeted = runner.session.is_greeted();
        let may_read = runner.session.receiving() < limits::RECEIVE_QUEUE_MAX
            && runner.out.len() < limits::SEND_QUEUE_MAX
            && runner.changes.waiting.len() < limits::SEND_QUEUE_MAX;
        let step: Result<(), End> = tokio::select! {
            permit = frames.reserve(), if !runner.out.is_empty() => match permit {
                Ok(permit) => {
                    if let Some(frame) = runner.out.pop_front() {
                        permit.send(frame);
                    }
                    Ok(())
                }
                Err(_) => Err(End::Write),
            },
            frame = inbox.next_frame(limits::FRAME_LEN_MAX), if may_read => {
                traffic.add_received(inbox.received() - read);
                read = inbox.received();
                match frame {
                    Ok(frame) => runner.handle_frame(&frame),
                    Err(error) => Err(error.into()),
                }
            }
            done = runner.changes.done() => runner.handle_done(done),
            done = runner.reads.done() => runner.handle_done(done),
            result = changed.changed() => match result {
                Ok(()) => {
                    runner.session.handle_journal_changed();
                    runner.holds_stale = true;
                    Ok(())
                }
                Err(_) => Err(End::Shutdown),
            },
            result = lack.changed(), if greeted => match result {
                Ok(()) => {
                    let bytes = *lack.borrow_and_update();
                    runner.session.handle_lack(bytes);
                    Ok(())
                }
                Err(_) => Err(End::Shutdown),
            },
            message = control.recv() => match message {
                Some(message) => {
                    runner.handle_control(message);
                    Ok(())
                }
                None => Err(End::Shutdown),
            },
            _ = &mut writing.0 => Err(End::Write),
            () = tokio::time::sleep_until(greet_by), if !greeted => Err(End::Silent),
        };
        if let Err(end) = step {
            return end;
        }
    }
}

/// Ends the writer with the session.
struct Writing(JoinHandle<()>);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Writes what comes until it fails; whatever waits goes out in one flush.
async fn write_frames(
    mut stream: WriteHalf<Stream>,
    mut queue: mpsc::Receiver<Vec<u8>>,
    traffic: Arc<crate::node::Traffic>,
) {
    while let Some(frame) = queue.recv().await {
        if frames::write(&mut stream, &frame, limits::WRITE_TIME).await.is_err() {
            return;
        }
        traffic.add_sent(frame.len() as u64);
    }
}

impl Runner {
    /// Effects to where they belong, as far as queues have room.
    fn carry_out(&mut self) {
        while self.out.len() < limits::SEND_QUEUE_MAX {
            let Some(effect) = self.session.poll_effect() else { break };
            match effect {
                Effect::Send(message) => self.out.push_back(message.encode()),
                Effect::Receive { batch, entries } => {
                    self.changes.waiting.push_back(Job::Receive { batch, entries });
                }
                Effect::Acknowledged(frontier) => self.acknowledge(frontier),
                Effect::Prepare => self.changes.waiting.push_back(Job::Prepare),
                Effect::TheirClock(ms) => self.changes.waiting.push_back(Job::Clock(ms)),
                Effect::TheyHold(frontier) => {
                    self.changes.waiting.push_back(Job::TheyHold(frontier));
                }
                Effect::Collect { theirs, bytes_max, hold_back } => {
                    self.reads.waiting.push_back(Job::Collect { theirs, bytes_max, hold_back });
                }
                Effect::Lookup(ids) => self.reads.waiting.push_back(Job::Lookup(ids)),
                Effect::Probe(token) => self.reads.waiting.push_back(Job::Probe(token)),
                Effect::TheyListen(addrs) => {
                    let (about, by) = (self.device, self.device);
                    self.hint(Hint::Addresses { about, addrs, by });
                }
                Effect::OthersListen(list) => {
                    for (about, addrs) in list {
                        self.hint(Hint::Addresses { about, addrs, by: self.device });
                    }
                }
                Effect::Probed { token, frontier } => {
                    if let Some(waiting) = self.probes.remove(&token) {
                        // Whoever asked may have given up.
                        let _ = waiting.send(frontier);
                    }
                }
            }
        }
        if self.holds_stale && self.session.is_greeted() && self.reads.waiting.is_empty() {
            self.holds_stale = false;
            self.reads.waiting.push_back(Job::Holds);
        }
        self.changes.start(&self.node, self.device);
        self.reads.start(&self.node, self.device);
    }

    /// Of several acknowledgements in a row only the last counts.
    fn acknowledge(&mut self, frontier: Frontier) {
        match self.changes.waiting.back_mut() {
            Some(Job::Acknowledged(last)) => *last = frontier,
            _ => self.changes.waiting.push_back(Job::Acknowledged(frontier)),
        }
    }

    fn hint(&self, hint: Hint) {
        // A peer that talks faster than the driver listens loses hints, not more.
        let _ = self.reports.hints.try_send(hint);
    }

    fn handle_frame(&mut self, frame: &[u8]) -> Result<(), End> {
        if !self.node.is_member(&self.device) {
            return Err(End::NotMember);
        }
        let message = Message::decode(frame).map_err(ReadError::from)?;
        let greeting = matches!(message, Message::Hello(_));
        let holds = matches!(&message, Message::Holds(held) if !held.tips.is_empty());
        let told = matches!(
            message,
            Message::Hello(_)
                | Message::Entries(_)
                | Message::Have(_)
                | Message::Holds(_)
                | Message::Lacks(_)
        );
        self.session.handle_message(message)?;
        if told {
            self.publish();
        }
        if greeting {
            self.holds_stale = true;
            self.session.handle_lack(*self.node.lack.borrow());
            // Fails only when the driver is gone, and this session with it.
            let _ = self.reports.greeted.send((self.device, self.id));
        }
        if holds {
            self.hint(Hint::Holds { device: self.device });
        }
        Ok(())
    }

    /// What the peer said, for [`crate::handle`].
    fn publish(&self) {
        let session = &self.session;
        self.node.see(&self.device, |seen| {
            seen.connected = session.is_greeted();
            seen.pushing = session.is_pushing();
            seen.theirs = session.theirs().clone();
            seen.their_holds = session.their_holds().cloned();
            seen.their_lack = session.their_lack();
            seen.in_flight_len = session.in_flight_len() as u64;
            seen.last_seen_ms = Some(wall_ms());
        });
    }

    fn handle_control(&mut self, control: Control) {
        match control {
            Control::Probe(answer) => {
                self.probes.retain(|_, waiting| !waiting.is_closed());
                self.next_probe += 1;
                self.probes.insert(self.next_probe, answer);
                self.session.probe(self.next_probe);
            }
            Control::TellAddresses(list) => self.session.tell_addresses(list),
        }
    }

    fn handle_done(&mut self, done: Option<Done>) -> Result<(), End> {
        match done.ok_or(End::Journal)? {
            Done::Received { batch, received, frontier } => {
                let received = received.map_err(|error| {
                    tracing::warn!(%error, "entries of a member are not taken in");
                    End::Journal
                })?;
                let applied = !received.applied.is_empty();
                let result = self.session.handle_received(batch, &received, frontier);
                if applied {
                    // To the others: this is how news crosses devices that do not know each other.
                    self.node.bump_changed();
                }
                result?;
            }
            Done::Prepared => {
                self.session.handle_prepared();
                self.publish();
                // The late entry, if one was written, concerns every session.
                self.node.bump_changed();
            }
            Done::Collected(collected) => {
                self.session.handle_collected(collected)?;
                self.publish();
            }
            Done::Found { found, frontier } => self.session.handle_found(found, frontier),
            Done::ProbeAnswer { token, frontier } => {
                self.session.handle_probe_answer(token, frontier);
            }
            Done::Holds(holds) => self.session.handle_holds(holds),
            Done::Nothing => {}
        }
        Ok(())
    }
}
