//! The event loop: the only place that touches the swarm.
//!
//! It dials who is due, keeps one journal session per member, hands streams to the tasks that speak on
//! them, and cuts off who is no member.
//!
//! Of two members the one with the smaller device id opens the journal stream, on the connection it
//! prefers; the other takes the latest stream it is given. So both always speak on the same one, however
//! many connections crossing dials have made; the others idle out.
//!
//! Leaves out: what is said (`session`, `transfer`, `serve`,
//! [`crate::join`]), when to dial ([`crate::peers`]), who is let in (`behaviour::gate`).
//!
//! Invariants:
//! - at most one session per member; its end ends its chunk lanes;
//! - a device that is not a member when members were last looked at has no connection, unless it is a
//!   stranger within its time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use futures::{FutureExt as _, StreamExt as _};
use journal::Frontier;
use journal::id::DeviceId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, Stream, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, mdns};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};

use crate::behaviour::gate::{Dialled, Gate, Strangers};
use crate::behaviour::streams::{self, OpenFailure, Token};
use crate::behaviour::{Behaviour, BehaviourEvent};
use crate::handle::Event;
use crate::limits;
use crate::node::{Node, Seen, device_of, peer_of};
use crate::peers::{AddressBook, Dial, LinkKind, Scores, Source, Verdict};
use crate::session::{self, Control, Hint, Reports};
use crate::transfer::{Input, Opener};
use crate::twins::Twins;
use crate::wire::addr::Via;
use crate::wire::{Addr, PROTOCOL_CHUNKS, PROTOCOL_JOIN, PROTOCOL_JOURNAL, PROTOCOL_LOCK};
use crate::{join, serve, transfer, warden};

mod dialling;
mod given;
mod locks;
mod members;
mod talks;
use given::Given;
use locks::LockLine;

/// What handles and tasks ask of the driver.
pub(crate) enum Command {
    Dial(Multiaddr),
    Probe { device: DeviceId, answer: oneshot::Sender<Frontier> },
    OpenChunks { device: DeviceId, session: u64, answer: oneshot::Sender<Option<Stream>> },
    Shutdown,
}

/// What the driver starts with.
pub(crate) struct Parts {
    pub(crate) swarm: Swarm<Behaviour>,
    pub(crate) node: Arc<Node>,
    pub(crate) book: AddressBook,
    pub(crate) book_path: Option<PathBuf>,
    pub(crate) given: Vec<Multiaddr>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) command_sender: mpsc::Sender<Command>,
    pub(crate) fetch: mpsc::Sender<Input>,
    pub(crate) fetch_inputs: mpsc::Receiver<Input>,
    pub(crate) members: Arc<Notify>,
}

#[derive(Debug)]
struct Connection {
    peer: PeerId,
    device: DeviceId,
    dialled: Dialled,
    addr: Option<Addr>,
    kind: LinkKind,
    since: Instant,
}

#[derive(Debug)]
struct Talk {
    id: u64,
    connection: ConnectionId,
    control: mpsc::Sender<Control>,
    task: AbortHandle,
}

enum Opening {
    Journal {
        device: DeviceId,
        connection: ConnectionId,
    },
    Locks {
        device: DeviceId,
        connection: ConnectionId,
    },
    Chunks(oneshot::Sender<Option<Stream>>),
    /// A member that speaks no journal with us: is it that it takes us for a stranger?
    Refusal {
        device: DeviceId,
        connection: ConnectionId,
    },
}

enum Ended {
    Session { device: DeviceId, id: u64, end: session::End },
    Served { device: DeviceId, end: serve::End },
    Locks { device: DeviceId, id: u64, end: warden::End },
    Join { admitted: bool },
}

/// Controls waiting for a session, count; beyond it a control is refused.
const CONTROL_QUEUE_MAX: usize = 64;

struct Driver {
    swarm: Swarm<Behaviour>,
    node: Arc<Node>,
    gate: Arc<Gate>,
    book: AddressBook,
    book_path: Option<PathBuf>,
    book_saved: Instant,
    book_saving: Option<JoinHandle<()>>,
    scores: Scores,
    twins: Twins,
    given: Given,
    connections: BTreeMap<ConnectionId, Connection>,
    dialling: BTreeMap<ConnectionId, DeviceId>,
    second: BTreeMap<DeviceId, (Instant, Vec<Addr>)>,
    talks: BTreeMap<DeviceId, Talk>,
    lock_lines: BTreeMap<DeviceId, LockLine>,
    serving: BTreeMap<DeviceId, usize>,
    opening: BTreeMap<Token, Opening>,
    next_token: Token,
    next_session: u64,
    tasks: JoinSet<Ended>,
    joins: VecDeque<Instant>,
    members_seen: Instant,
    members_stale: bool,
    reports: Reports,
    command_sender: mpsc::Sender<Command>,
    fetch: mpsc::Sender<Input>,
    /// Inputs that found the fetching task's queue full; kept in order.
    fetch_waiting: VecDeque<Input>,
}

/// Runs until it is told to shut down.
pub(crate) async fn run(parts: Parts) {
    let Parts {
        swarm,
        node,
        book,
        book_path,
        given,
        mut commands,
        command_sender,
        fetch,
        fetch_inputs,
        members,
    } = parts;
    let (strikes, mut strikes_in) = mpsc::unbounded_channel();
    let (greeted, mut greeted_in) = mpsc::unbounded_channel();
    let (hints, mut hints_in) = mpsc::channel(limits::HINT_QUEUE_MAX);
    let mut changed = node.changed.subscribe();
    let fetching = tokio::spawn(transfer::run(node.clone(), fetch_inputs, fetch.clone(), strikes));
    let watching = tokio::spawn(warden::keep_time(node.clone()));
    let mut driver = Driver {
        gate: node.gate.clone(),
        given: Given::new(given),
        swarm,
        book,
        book_path,
        book_saved: Instant::now(),
        book_saving: None,
        scores: Scores::default(),
        twins: Twins::default(),
        connections: BTreeMap::new(),
        dialling: BTreeMap::new(),
        second: BTreeMap::new(),
        talks: BTreeMap::new(),
        lock_lines: BTreeMap::new(),
        serving: BTreeMap::new(),
        opening: BTreeMap::new(),
        next_token: 0,
        next_session: 0,
        tasks: JoinSet::new(),
        joins: VecDeque::new(),
        members_seen: Instant::now(),
        members_stale: false,
        reports: Reports { greeted, hints },
        command_sender,
        fetch,
        fetch_waiting: VecDeque::new(),
        node,
    };
    driver.look_at_members().await;
    loop {
        let wake = driver.work_due();
        let fetch = driver.fetch.clone();
        tokio::select! {
            event = driver.swarm.select_next_some() => driver.handle_event(event),
            command = commands.recv() => match command {
                Some(Command::Shutdown) | None => break,
                Some(command) => driver.handle_command(command),
            },
            Some(ended) = driver.tasks.join_next(), if !driver.tasks.is_empty() => {
                if let Ok(ended) = ended {
                    driver.handle_ended(ended);
                }
            }
            Some((device, session)) = greeted_in.recv() => driver.handle_greeted(device, session),
            Some(hint) = hints_in.recv() => driver.handle_hint(hint),
            Some(device) = strikes_in.recv() => driver.strike(device),
            () = members.notified() => driver.look_at_members().await,
            _ = changed.changed() => driver.members_stale = true,
            permit = fetch.reserve(), if !driver.fetch_waiting.is_empty() => {
                if let (Ok(permit), Some(input)) = (permit, driver.fetch_waiting.pop_front()) {
                    permit.send(input);
                }
            }
            () = tokio::time::sleep_until(wake.into()) => {
                if driver.members_stale
                    && driver.members_seen.elapsed() >= limits::MEMBERS_INTERVAL
                {
                    driver.look_at_members().await;
                }
            }
        }
    }
    fetching.abort();
    watching.abort();
    driver.shut_down().await;
}

impl Driver {
    // Time ---------------------------------------------------------------------------------------

    /// Does what is due and tells when to look again.
    fn work_due(&mut self) -> Instant {
        let now = Instant::now();
        let now_ms = self.node.now_ms();
        for id in self.gate.overdue(now) {
            self.gate.closed(&id);
            self.swarm.close_connection(id);
        }
        let room = (limits::PENDING_OUTGOING_MAX as usize / 2).saturating_sub(self.dialling.len());
        for dial in self.book.take_due(now_ms, room) {
            self.dial(dial, now);
        }
        let due: Vec<DeviceId> =
            self.second.iter().filter(|(_, (at, _))| *at <= now).map(|(d, _)| *d).collect();
        for device in due {
            self.dial_second(device);
        }
        for addr in self.given.take_due(now_ms) {
            self.dial_given(addr);
        }
        self.save_book(now);
        self.next_due(now, now_ms)
    }

    fn next_due(&self, now: Instant, now_ms: u64) -> Instant {
        let in_ms =
            |at_ms: u64| now + std::time::Duration::from_millis(at_ms.saturating_sub(now_ms));
        let mut next = now + std::time::Duration::from_secs(1);
        if self.dialling.len() < limits::PENDING_OUTGOING_MAX as usize / 2
            && let Some(at_ms) = self.book.next_due_ms()
        {
            next = next.min(in_ms(at_ms));
        }
        if let Some(at_ms) = self.given.next_due_ms() {
            next = next.min(in_ms(at_ms));
        }
        if let Some(at) = self.second.values().map(|(at, _)| *at).min() {
            next = next.min(at);
        }
        if self.members_stale {
            next = next.min(self.members_seen + limits::MEMBERS_INTERVAL);
        }
        next
    }

    fn save_book(&mut self, now: Instant) {
        let Some(path) = self.book_path.clone() else { return };
        let saving = self.book_saving.as_ref().is_some_and(|task| !task.is_finished());
        if !self.book.is_dirty()
            || saving
            || now.duration_since(self.book_saved) < limits::BOOK_INTERVAL
        {
            return;
        }
        self.book_saved = now;
        let bytes = self.book.take_bytes();
        self.book_saving = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = crate::peers::write_whole(&path, &bytes) {
                tracing::warn!(%error, "addresses of members are not remembered");
            }
        }));
    }

    async fn shut_down(mut self) {
        self.give_locks_back().await;
        self.tasks.abort_all();
        if let Some(saving) = self.book_saving.take() {
            // A panic in it is not ours to report at the end.
            let _ = saving.await;
        }
        if let Some(path) = self.book_path.clone()
            && self.book.is_dirty()
            && let Err(error) = self.book.save(&path)
        {
            tracing::warn!(%error, "addresses of members are not remembered");
        }
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // Fails only when it is not connected any more.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let close = async {
            while self.swarm.network_info().num_peers() > 0 {
                self.swarm.select_next_some().await;
            }
        };
        let _ = tokio::time::timeout(limits::SHUTDOWN_TIME / 4, close).await;
    }

    // Swarm events -------------------------------------------------------------------------------

    fn handle_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                let addr = endpoint
                    .is_dialer()
                    .then(|| Addr::new(endpoint.get_remote_address().clone()))
                    .flatten();
                let dialled = if endpoint.is_dialer() { Dialled::ByUs } else { Dialled::ByThem };
                let local = Addr::new(endpoint.get_remote_address().clone())
                    .is_some_and(|a| a.is_loopback());
                let kind = if local { LinkKind::Local } else { LinkKind::Network };
                self.handle_connection(connection_id, peer_id, dialled, addr, kind);
            }
            SwarmEvent::ConnectionClosed { connection_id, num_established, .. } => {
                self.handle_closed(connection_id, num_established);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                tracing::debug!(%error, "not reached");
                let now_ms = self.node.now_ms();
                self.given.failed(&connection_id, now_ms, jitter());
                if let Some(device) = self.dialling.remove(&connection_id) {
                    self.dial_second(device);
                }
            }
            SwarmEvent::NewListenAddr { address, .. } => self.handle_listening(address),
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.node.listening.lock().retain(|a| *a.as_multiaddr() != address);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Streams(event)) => self.handle_stream(event),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping)) => match ping.result {
                Ok(rtt) => self.handle_rtt(&ping.peer, rtt.as_micros() as u64),
                // Unsupported cannot be: we speak it. Anything else: the link is dead.
                Err(error) => {
                    tracing::debug!(%error, "no answer to a ping");
                    self.swarm.close_connection(ping.connection);
                }
            },
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(list))) => {
                self.handle_discovered(list);
            }
            _ => {}
        }
    }

    fn handle_listening(&mut self, address: Multiaddr) {
        let Some(addr) = Addr::new(address.clone()) else { return };
        let new = {
            let mut listening = self.node.listening.lock();
            let new = !listening.contains(&addr) && !addr.is_unusable();
            if new && listening.len() < limits::ADDRS_PER_DEVICE_MAX {
                listening.push(addr.clone());
            }
            new
        };
        if new {
            self.node.tell(Event::Listening(address));
            // A new address of ours often means a new network: try everybody, tell everybody.
            self.book.hurry_all(self.node.now_ms());
            let all: Vec<DeviceId> = self.talks.keys().copied().collect();
            for device in all {
                let addrs = self.own_addrs(self.kind_of(&device));
                self.tell_addresses(&device, vec![(self.node.me, addrs)]);
            }
        }
    }

    fn handle_discovered(&mut self, list: Vec<(PeerId, Multiaddr)>) {
        let now_ms = self.node.now_ms();
        for (peer, addr) in list {
            // Nobody vouches for these packets: only members' are looked at, and only as a hint.
            if let (Some(device), Some(addr)) = (device_of(&peer), Addr::new(addr))
                && self.gate.is_member(&peer)
            {
                self.book.learn(&device, &[addr], Source::Told, now_ms);
                self.book.hurry(&device, now_ms);
            }
        }
    }

    fn handle_rtt(&mut self, peer: &PeerId, rtt_us: u64) {
        if let Some(device) = device_of(peer)
            && self.talks.contains_key(&device)
        {
            self.node.see(&device, |seen| seen.rtt_us = Some(rtt_us));
        }
    }

    // Connections --------------------------------------------------------------------------------

    fn handle_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        dialled: Dialled,
        addr: Option<Addr>,
        kind: LinkKind,
    ) {
        self.dialling.remove(&id);
        let Some(device) = device_of(&peer) else {
            self.swarm.close_connection(id);
            return;
        };
        self.given.reached(&id);
        self.second.remove(&device);
        let now = Instant::now();
        let connection = Connection { peer, device, dialled, addr: addr.clone(), kind, since: now };
        self.connections.insert(id, connection);
        if self.gate.is_pending(&id) {
            return;
        }
        self.book.connected(&device, addr.as_ref(), self.node.now_ms());
        if self.node.me < device {
            self.consider_talk(device, id, now);
        }
    }

    /// Opens the journal stream on a new connection, unless the one in use is as good.
    fn consider_talk(&mut self, device: DeviceId, new: ConnectionId, now: Instant) {
        let opening = self
            .opening
            .values()
            .any(|o| matches!(o, Opening::Journal { device: d, .. } if *d == device));
        let current = self.talks.get(&device).map(|talk| talk.connection);
        let old = current.and_then(|id| self.connections.get(&id));
        let by_them = self.connections.get(&new).is_some_and(|c| c.dialled == Dialled::ByThem);
        let keep = match old {
            // The peer dialled although we think that it is connected: it knows better.
            Some(old) => !by_them || now.duration_since(old.since) < limits::CROSSING_DIAL_TIME,
            None => opening,
        };
        if !keep {
            self.open_talk(device, new);
        }
    }

    fn open_talk(&mut self, device: DeviceId, connection: ConnectionId) {
        let token = self.token(Opening::Journal { device, connection });
        let peer = peer_of(&device);
        self.swarm.behaviour_mut().streams.open(peer, connection, PROTOCOL_JOURNAL, token);
    }

    fn token(&mut self, opening: Opening) -> Token {
        self.next_token += 1;
        self.opening.insert(self.next_token, opening);
        self.next_token
    }

    fn handle_closed(&mut self, id: ConnectionId, left: u32) {
        let Some(connection) = self.connections.remove(&id) else { return };
        let device = connection.device;
        self.opening.retain(|_, o| match o {
            Opening::Journal { connection, .. }
            | Opening::Locks { connection, .. }
            | Opening::Refusal { connection, .. } => *connection != id,
            Opening::Chunks(_) => true,
        });
        if self.talks.get(&device).is_some_and(|talk| talk.connection == id) {
            self.end_talk(device);
        }
        if left == 0 {
            self.book.disconnected(&device, self.node.now_ms(), jitter());
            return;
        }
        if self.node.me < device
            && !self.talks.contains_key(&device)
            && let Some(other) = self.newest_connection(&device)
        {
            self.consider_talk(device, other, Instant::now());
        }
    }

    fn newest_connection(&self, device: &DeviceId) -> Option<ConnectionId> {
        let of_device = self.connections.iter().filter(|(_, c)| c.device == *device);
        of_device.max_by_key(|(_, c)| c.since).map(|(id, _)| *id)
    }

    fn kind_of(&self, device: &DeviceId) -> LinkKind {
        let talk = self.talks.get(device).and_then(|t| self.connections.get(&t.connection));
        talk.map_or(LinkKind::Network, |c| c.kind)
    }

    // Tasks --------------------------------------------------------------------------------------

    fn handle_ended(&mut self, ended: Ended) {
        match ended {
            Ended::Session { device, id, end } => {
                tracing::debug!(%device, %end, "session ended");
                let Some(talk) = self.talks.get(&device).filter(|talk| talk.id == id) else {
                    return;
                };
                let connection = talk.connection;
                self.end_talk(device);
                // The way back is a new connection, after a wait that grows.
                self.swarm.close_connection(connection);
                match end {
                    session::End::Violation(_)
                    | session::End::Read(crate::frames::ReadError::Decode(_)) => {
                        self.strike(device);
                    }
                    _ => {}
                }
            }
            Ended::Served { device, end } => {
                tracing::debug!(%device, %end, "serving ended");
                if let Some(serving) = self.serving.get_mut(&device) {
                    *serving = serving.saturating_sub(1);
                    if *serving == 0 {
                        self.serving.remove(&device);
                    }
                }
                if let serve::End::Read(crate::frames::ReadError::Decode(_)) = end {
                    self.strike(device);
                }
            }
            Ended::Locks { device, id, end } => self.handle_locks_ended(device, id, &end),
            Ended::Join { admitted } => {
                if admitted {
                    self.node.bump_changed();
                    self.members_stale = true;
                    self.members_seen = Instant::now() - limits::MEMBERS_INTERVAL;
                }
            }
        }
    }

    fn handle_greeted(&mut self, device: DeviceId, session: u64) {
        let Some(talk) = self.talks.get(&device).filter(|talk| talk.id == session) else { return };
        let kind = self.connections.get(&talk.connection).map_or(LinkKind::Network, |c| c.kind);
        let distance = self.node.seen.lock().get(&device).and_then(|s| s.rtt_us).unwrap_or(1000);
        let (open, guest) = (self.opener(device, session), self.gate.is_leaving(&talk.connection));
        self.tell_fetch(Input::PeerUp { peer: device, session, distance, open });
        if guest {
            return;
        }
        self.node.tell(Event::PeerUp(device));
        self.tell_addresses(&device, self.book.to_share(&device, kind));
    }

    fn opener(&self, device: DeviceId, session: u64) -> Opener {
        let commands = self.command_sender.clone();
        Arc::new(move || {
            let commands = commands.clone();
            async move {
                let (answer, stream) = oneshot::channel();
                let command = Command::OpenChunks { device, session, answer };
                commands.send(command).await.ok()?;
                tokio::time::timeout(limits::GREETING_TIME, stream).await.ok()?.ok()?
            }
            .boxed()
        })
    }

    fn tell_fetch(&mut self, input: Input) {
        if self.fetch_waiting.is_empty() {
            // Closed: the node is ending.
            if let Err(mpsc::error::TrySendError::Full(input)) = self.fetch.try_send(input) {
                self.fetch_waiting.push_back(input);
            }
        } else {
            self.fetch_waiting.push_back(input);
        }
    }

    fn tell_addresses(&self, device: &DeviceId, list: Vec<(DeviceId, Vec<Addr>)>) {
        if let Some(talk) = self.talks.get(device)
            && !self.gate.is_leaving(&talk.connection)
        {
            // A session that does not keep up hears of addresses another time.
            let _ = talk.control.try_send(Control::TellAddresses(list));
        }
    }

    fn handle_hint(&mut self, hint: Hint) {
        match hint {
            Hint::Addresses { about, addrs, by } => {
                if about == self.node.me {
                    self.told_of_twin(by, &addrs);
                    return;
                }
                if about == by {
                    self.look_for_twin(by, &addrs);
                }
                let source = if about == by { Source::Announced } else { Source::Told };
                let news = self.book.learn(&about, &addrs, source, self.node.now_ms());
                if news && about == by {
                    let others: Vec<DeviceId> =
                        self.talks.keys().filter(|d| **d != by).copied().collect();
                    for other in others {
                        let kind = self.kind_of(&other);
                        let fit = |a: &&Addr| kind == LinkKind::Local || !a.is_loopback();
                        let addrs: Vec<Addr> = addrs.iter().filter(fit).cloned().collect();
                        if !addrs.is_empty() {
                            self.tell_addresses(&other, vec![(about, addrs)]);
                        }
                    }
                }
            }
            Hint::Holds { device } => self.tell_fetch(Input::PeerNews(device)),
        }
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Dial(addr) => self.given.add(addr, self.node.now_ms()),
            Command::Probe { device, answer } => {
                if let Some(talk) = self.talks.get(&device) {
                    // Dropping the answer tells the asker that there is none.
                    let _ = talk.control.try_send(Control::Probe(answer));
                }
            }
            Command::OpenChunks { device, session, answer } => {
                let talk = self.talks.get(&device).filter(|talk| talk.id == session);
                let open = talk.map(|t| t.connection).and_then(|id| {
                    self.connections.get(&id).map(|connection| (connection.peer, id))
                });
                match open {
                    Some((peer, id)) => {
                        let token = self.token(Opening::Chunks(answer));
                        self.swarm.behaviour_mut().streams.open(peer, id, PROTOCOL_CHUNKS, token);
                    }
                    None => drop(answer.send(None)),
                }
            }
            Command::Shutdown => {}
        }
        // Openings whose asker gave up, or whose connection went away unanswered.
        self.opening.retain(|_, o| !matches!(o, Opening::Chunks(answer) if answer.is_closed()));
    }
}

/// Spreads reconnections; 0.0..1.0. Without randomness everybody waits the full time.
fn jitter() -> f64 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    }
}
