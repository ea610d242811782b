//! Runs one journal session: [`crate::courier`] between a stream and the host.
//!
//! Leaves out: the rules (sync), what is called in which order (courier), opening streams and
//! reconnection (`driver`).
//!
//! Invariants:
//! - host calls run on blocking threads;
//! - membership is asked for every message; a removed device meets [`Farewell`] in the journal's place, and is
//!   nobody's peer to anybody else;
//! - the session reads no further while its queues are full.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures::AsyncReadExt as _;
use futures::io::WriteHalf;
use journal::{DeviceId, Frontier};
use libp2p::swarm::Stream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::courier::{Changed, Courier, Done, Fault, Job, News, Order, Told, run_job};
use crate::farewell::Farewell;
use crate::frames::{self, Inbox, ReadError};
use crate::host::JournalHost;
use crate::limits;
use crate::node::Node;
use crate::sync::Violation;
use crate::wire::{Addr, Hello};

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
    #[error("the journal cannot be written")]
    Journal,
    #[error("shut down")]
    Shutdown,
}

/// With whom a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    /// A member.
    Member(DeviceId),
    /// A device that was removed.
    Leaving(DeviceId),
}

/// The call of one order that is under way.
#[derive(Default)]
struct Running(Option<JoinHandle<Done>>);

impl Running {
    fn start(&mut self, journal: &Arc<dyn JournalHost>, peer: DeviceId, job: Job) {
        let journal = journal.clone();
        self.0 = Some(tokio::task::spawn_blocking(move || run_job(&*journal, peer, job)));
    }

    /// Pending for ever when nothing runs. A host call that panicked counts as failed.
    async fn done(&mut self) -> Option<Done> {
        match &mut self.0 {
            Some(handle) => {
                let done = handle.await.ok();
                self.0 = None;
                done
            }
            None => std::future::pending().await,
        }
    }
}

/// The wall clock, for the greeting.
fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// A running session.
struct Runner {
    node: Arc<Node>,
    journal: Arc<dyn JournalHost>,
    whom: Whom,
    device: DeviceId,
    id: u64,
    courier: Courier,
    changes: Running,
    reads: Running,
    probes: BTreeMap<u64, oneshot::Sender<Frontier>>,
    next_probe: u64,
    reports: Reports,
}

/// Runs until the stream, the peer or the host ends it. Dropping it ends it too.
pub(crate) async fn run(
    node: Arc<Node>,
    whom: Whom,
    id: u64,
    stream: Stream,
    addrs: Vec<Addr>,
    mut control: mpsc::Receiver<Control>,
    reports: Reports,
) -> End {
    let (device, journal): (DeviceId, Arc<dyn JournalHost>) = match whom {
        Whom::Member(device) => (device, node.journal.clone()),
        Whom::Leaving(device) => (device, Arc::new(Farewell::new(node.journal.clone(), device))),
    };
    let (reader, writer) = stream.split();
    let mut inbox = Inbox::new(reader, READ_LEN);
    let (frames, queue) = mpsc::channel(1);
    let traffic = node.traffic(&device);
    let mut writing = Writing(tokio::spawn(write_frames(writer, queue, traffic.clone())));
    let mut changed = node.changed.subscribe();
    let mut lack = node.lack.subscribe();
    changed.mark_unchanged();
    let greeting = {
        let journal = journal.clone();
        tokio::task::spawn_blocking(move || journal.frontier()).await
    };
    let Ok(frontier) = greeting else { return End::Journal };
    let hello = Hello { frontier, addrs, wall_ms: wall_ms() };
    let mut runner = Runner {
        journal,
        whom,
        device,
        id,
        courier: Courier::new(hello),
        changes: Running::default(),
        reads: Running::default(),
        probes: BTreeMap::new(),
        next_probe: 0,
        reports,
        node,
    };
    let greet_by = tokio::time::Instant::now() + limits::GREETING_TIME;
    let mut read = 0;
    loop {
        runner.carry_out();
        let greeted = runner.courier.session().is_greeted();
        let may_read = runner.courier.may_read();
        let step: Result<(), End> = tokio::select! {
            permit = frames.reserve(), if runner.courier.has_frame() => match permit {
                Ok(permit) => {
                    if let Some(frame) = runner.courier.next_frame() {
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
                    Ok(_) if runner.is_too_much(read) => Err(End::NotMember),
                    Ok(frame) => runner.handle_frame(&frame),
                    Err(error) => Err(error.into()),
                }
            }
            done = runner.changes.done() => runner.handle_done(Order::Changes, done),
            done = runner.reads.done() => runner.handle_done(Order::Reads, done),
            result = changed.changed() => match result {
                Ok(()) => {
                    runner.courier.handle_changed();
                    Ok(())
                }
                Err(_) => Err(End::Shutdown),
            },
            result = lack.changed(), if greeted => match result {
                Ok(()) => {
                    let bytes = *lack.borrow_and_update();
                    runner.courier.session_mut().handle_lack(bytes);
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

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Decode(error) => End::Read(error.into()),
            Fault::Violation(violation) => End::Violation(violation),
            Fault::Journal(error) => {
                tracing::warn!(%error, "the journal cannot be written: a session ends");
                End::Journal
            }
        }
    }
}

impl Runner {
    /// Effects to where they belong, and calls of the host under way.
    fn carry_out(&mut self) {
        while let Some(news) = self.courier.poll_news() {
            match news {
                // Nobody goes where a removed device sends.
                News::TheyListen(_) | News::OthersListen(_) if self.is_farewell() => {}
                News::TheyListen(addrs) => {
                    let (about, by) = (self.device, self.device);
                    self.hint(Hint::Addresses { about, addrs, by });
                }
                News::OthersListen(list) => {
                    for (about, addrs) in list {
                        self.hint(Hint::Addresses { about, addrs, by: self.device });
                    }
                }
                News::Probed { token, frontier } => {
                    if let Some(waiting) = self.probes.remove(&token) {
                        // Whoever asked may have given up.
                        let _ = waiting.send(frontier);
                    }
                }
            }
        }
        if let Some(job) = self.courier.next_job(Order::Changes) {
            self.changes.start(&self.journal, self.device, job);
        }
        if let Some(job) = self.courier.next_job(Order::Reads) {
            self.reads.start(&self.journal, self.device, job);
        }
    }

    fn hint(&self, hint: Hint) {
        // A peer that talks faster than the driver listens loses hints, not more.
        let _ = self.reports.hints.try_send(hint);
    }

    fn is_farewell(&self) -> bool {
        matches!(self.whom, Whom::Leaving(_))
    }

    /// Whether a removed device has sent more than it may.
    fn is_too_much(&self, read: u64) -> bool {
        self.is_farewell() && read > limits::LEAVING_LEN_MAX
    }

    fn handle_frame(&mut self, frame: &[u8]) -> Result<(), End> {
        if !self.is_farewell() && !self.node.is_member(&self.device) {
            return Err(End::NotMember);
        }
        let told = self.courier.handle_frame(frame)?;
        if told != Told::Nothing {
            self.publish();
        }
        match told {
            Told::Greeting => {
                let lack = *self.node.lack.borrow();
                self.courier.session_mut().handle_lack(lack);
                // Fails only when the driver is gone, and this session with it.
                let _ = self.reports.greeted.send((self.device, self.id));
            }
            Told::Holds => self.hint(Hint::Holds { device: self.device }),
            Told::Standing | Told::Nothing => {}
        }
        Ok(())
    }

    /// What the peer said, for [`crate::handle`].
    fn publish(&self) {
        if self.is_farewell() {
            return;
        }
        let session = self.courier.session();
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
                self.courier.session_mut().probe(self.next_probe);
            }
            Control::TellAddresses(list) => self.courier.session_mut().tell_addresses(list),
        }
    }

    fn handle_done(&mut self, order: Order, done: Option<Done>) -> Result<(), End> {
        let done = done.ok_or(End::Journal)?;
        let tells = matches!(done, Done::Prepared(_) | Done::Collected(_));
        let (changed, handled) = self.courier.handle_done(order, done);
        if changed == Changed::Yes {
            self.node.bump_changed();
        }
        handled?;
        if tells {
            self.publish();
        }
        Ok(())
    }
}
