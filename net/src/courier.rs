//! Carries out what a session asks for: frames in their order, calls of the host in two orders of their own.
//!
//! Leaves out: streams, threads and clocks. A shell reads and writes the frames and makes the calls, in the product on
//! blocking threads ([`mod@crate::session`]), in the simulator at the virtual time it likes.
//!
//! Invariants:
//! - what changes the journal (entries, acknowledgements, the late entry) is called in the order the peer sent it, one
//!   call at a time; what reads it waits in an order of its own, so that a slow disk write does not delay a push;
//! - nothing more is read from the peer while a queue is full;
//! - of several acknowledgements in a row only the last counts.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use journal::canary::{self, Canary};
use journal::{AppendError, DeviceId, EntryId, Frontier, Received};

use crate::host::JournalHost;
use crate::limits;
use crate::sync::{Collected, Effect, HoldBack, Session, Truncated, Violation};
use crate::wire::{Addr, DecodeError, Hello, Message};

/// One of the two orders in which calls of the host are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// What changes the journal.
    Changes,
    /// What only reads it.
    Reads,
}

/// One call of the host.
#[derive(Debug)]
pub enum Job {
    /// Take entries in.
    Receive {
        /// The peer's number of the batch.
        batch: u64,
        /// As they came.
        entries: Vec<Arc<[u8]>>,
    },
    /// The peer holds this.
    Acknowledged(Frontier),
    /// Write the late entry, if one is due.
    Prepare,
    /// The peer's wall clock.
    Clock(u64),
    /// The peer holds all content under this.
    TheyHold(Frontier),
    /// What the peer lacks.
    Collect {
        /// What it holds.
        theirs: Frontier,
        /// About how much to collect.
        bytes_max: usize,
        /// Whether own unacknowledged entries must be named.
        hold_back: HoldBack,
    },
    /// Look entries up.
    Lookup(Vec<EntryId>),
    /// What the journal holds, for the peer.
    Probe(u64),
    /// Under which frontier all content is here.
    Holds,
}

/// What a call gave.
#[derive(Debug)]
pub enum Done {
    /// See [`Job::Receive`].
    Received {
        /// The peer's number of the batch.
        batch: u64,
        /// What became of its entries.
        received: Result<Received, AppendError>,
        /// What the journal holds after it.
        frontier: Frontier,
    },
    /// See [`Job::Prepare`].
    Prepared(Result<(), AppendError>),
    /// See [`Job::Collect`].
    Collected(Collected),
    /// See [`Job::Lookup`].
    Found {
        /// Those that are here, as many as fit a batch.
        found: Vec<Arc<[u8]>>,
        /// Entries that lie here damaged.
        damaged: Vec<EntryId>,
        /// What the journal holds.
        frontier: Frontier,
    },
    /// See [`Job::Probe`].
    ProbeAnswer {
        /// As the peer gave it.
        token: u64,
        /// What the journal holds.
        frontier: Frontier,
    },
    /// See [`Job::Holds`].
    Holds(Option<Frontier>),
    /// Calls without an answer.
    Nothing,
}

/// What the shell should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Where the peer listens.
    TheyListen(Vec<Addr>),
    /// Where others listen, by the peer's word.
    OthersListen(Vec<(DeviceId, Vec<Addr>)>),
    /// The peer answered a probe.
    Probed {
        /// As given to [`Session::probe`].
        token: u64,
        /// What it held then.
        frontier: Frontier,
    },
}

/// Whether other sessions must look at the journal again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// It holds something new.
    Yes,
    /// It does not.
    No,
}

/// What ends a session from within.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The peer sent bytes that are no message.
    #[error("the peer breaks the protocol")]
    Decode(#[from] DecodeError),
    /// The peer sent what it must not.
    #[error("the peer breaks the protocol")]
    Violation(#[from] Violation),
    /// The journal cannot be written now.
    #[error("the journal cannot be written")]
    Journal(#[source] AppendError),
}

/// Makes one call. May block on a disk.
pub fn run_job(journal: &dyn JournalHost, peer: DeviceId, job: Job) -> Done {
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
        Job::Prepare => Done::Prepared(journal.before_first_push()),
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
            Done::Found { found, damaged: journal.damaged(), frontier: journal.frontier() }
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
    let (damaged, frontier) = (journal.damaged(), journal.frontier());
    Collected { entries, truncated, unacknowledged, damaged, frontier }
}

/// Calls of one order; the next begins when the last has returned.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Job>,
    running: bool,
}

/// One session with its queues.
#[derive(Debug)]
pub struct Courier {
    session: Session,
    frames: VecDeque<Vec<u8>>,
    changes: Queue,
    reads: Queue,
    holds_stale: bool,
}

impl Courier {
    /// Begins with our greeting.
    pub fn new(hello: Hello) -> Self {
        Self {
            session: Session::new(hello),
            frames: VecDeque::new(),
            changes: Queue::default(),
            reads: Queue::default(),
            holds_stale: false,
        }
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The session, to be told or asked something.
    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Brings effects to where they belong, as far as queues have room; gives what the shell should know. To be called
    /// until there is none, after every other call.
    pub fn poll_news(&mut self) -> Option<News> {
        while self.frames.len() < limits::SEND_QUEUE_MAX {
            let Some(effect) = self.session.poll_effect() else { break };
            match effect {
                Effect::Send(message) => self.frames.push_back(message.encode()),
                Effect::Receive { batch, entries } => {
                    self.changes.waiting.push_back(Job::Receive { batch, entries });
                }
                Effect::Acknowledged(frontier) => self.acknowledge(frontier),
                Effect::Prepare if canary::is(Canary::PreparedTooEarly) => {
                    self.changes.waiting.push_front(Job::Prepare);
                }
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
                Effect::TheyListen(addrs) => return Some(News::TheyListen(addrs)),
                Effect::OthersListen(list) => return Some(News::OthersListen(list)),
                Effect::Probed { token, frontier } => {
                    return Some(News::Probed { token, frontier });
                }
            }
        }
        if self.holds_stale && self.session.is_greeted() && self.reads.waiting.is_empty() {
            self.holds_stale = false;
            self.reads.waiting.push_back(Job::Holds);
        }
        None
    }

    /// Of several acknowledgements in a row only the last counts.
    fn acknowledge(&mut self, frontier: Frontier) {
        match self.changes.waiting.back_mut() {
            Some(Job::Acknowledged(last)) => *last = frontier,
            _ => self.changes.waiting.push_back(Job::Acknowledged(frontier)),
        }
    }

    /// Whether more may be read from the peer.
    pub fn may_read(&self) -> bool {
        self.session.receiving() < limits::RECEIVE_QUEUE_MAX
            && self.frames.len() < limits::SEND_QUEUE_MAX
            && self.changes.waiting.len() < limits::SEND_QUEUE_MAX
    }

    /// Whether a frame waits to be written.
    pub fn has_frame(&self) -> bool {
        !self.frames.is_empty()
    }

    /// The next frame to write.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        self.frames.pop_front()
    }

    fn queue(&mut self, order: Order) -> &mut Queue {
        match order {
            Order::Changes => &mut self.changes,
            Order::Reads => &mut self.reads,
        }
    }

    /// The next call of `order`, when the last one has returned.
    pub fn next_job(&mut self, order: Order) -> Option<Job> {
        let queue = self.queue(order);
        if queue.running {
            return None;
        }
        let job = queue.waiting.pop_front();
        queue.running = job.is_some();
        job
    }

    /// A frame came, without its length field. That its sender is a member the shell has checked.
    pub fn handle_frame(&mut self, frame: &[u8]) -> Result<Told, Fault> {
        let message = Message::decode(frame)?;
        let told = match &message {
            Message::Hello(_) => Told::Greeting,
            Message::Holds(held) if !held.tips.is_empty() => Told::Holds,
            Message::Entries(_) | Message::Have(_) | Message::Holds(_) | Message::Lacks(_) => {
                Told::Standing
            }
            _ => Told::Nothing,
        };
        self.session.handle_message(message)?;
        if told == Told::Greeting {
            self.holds_stale = true;
        }
        Ok(told)
    }

    /// A call of `order` returned. Whether other sessions must look again holds whatever becomes of this one.
    pub fn handle_done(&mut self, order: Order, done: Done) -> (Changed, Result<(), Fault>) {
        self.queue(order).running = false;
        match done {
            Done::Received { received: Err(error), .. } => {
                (Changed::No, Err(Fault::Journal(error)))
            }
            Done::Received { batch, received: Ok(received), frontier } => {
                // To the others: this is how news crosses devices that do not know each other.
                let news = !received.applied.is_empty() || !received.mended.is_empty();
                let changed = if news { Changed::Yes } else { Changed::No };
                let taken = self.session.handle_received(batch, &received, frontier);
                (changed, taken.map_err(Fault::Violation))
            }
            Done::Prepared(Err(error)) => (Changed::No, Err(Fault::Journal(error))),
            Done::Prepared(Ok(())) => {
                self.session.handle_prepared();
                // The late entry, if one was written, concerns every session.
                (Changed::Yes, Ok(()))
            }
            Done::Collected(collected) => {
                let changed = self.ask_for_damaged(&collected.damaged);
                let sent = self.session.handle_collected(collected);
                (changed, sent.map_err(Fault::Violation))
            }
            Done::Found { found, damaged, frontier } => {
                let changed = self.ask_for_damaged(&damaged);
                self.session.handle_found(found, frontier);
                (changed, Ok(()))
            }
            Done::ProbeAnswer { token, frontier } => {
                self.session.handle_probe_answer(token, frontier);
                (Changed::No, Ok(()))
            }
            Done::Holds(holds) => {
                self.session.handle_holds(holds);
                (Changed::No, Ok(()))
            }
            Done::Nothing => (Changed::No, Ok(())),
        }
    }

    /// Other sessions look again when this one asks: their peers may have what this one's lacks.
    fn ask_for_damaged(&mut self, damaged: &[EntryId]) -> Changed {
        match self.session.handle_damaged(damaged) {
            true => Changed::Yes,
            false => Changed::No,
        }
    }

    /// The journal holds something new, or more content is here.
    pub fn handle_changed(&mut self) {
        self.session.handle_journal_changed();
        self.holds_stale = true;
    }
}

/// What a frame told of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It greeted.
    Greeting,
    /// It holds more content.
    Holds,
    /// What it holds, has taken in or lacks.
    Standing,
    /// Nothing that lasts.
    Nothing,
}
