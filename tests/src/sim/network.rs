//! Links: streams that carry the product's frames in order until they break.
//!
//! Leaves out: the transport itself. A stream gives bytes in order or ends, so what can go wrong is that its end is cut
//! off at any byte, that one end does not notice, that a direction stands still, or that a newer one takes its place.
//!
//! Invariants:
//! - a frame that is cut anywhere is not delivered, nor is anything after it;
//! - of two members the one with the smaller id opens; the other takes the latest stream;
//! - what leaves a device is checked first: nothing is said to be held, and no own entry sent, that is not durable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use journal::DeviceId;
use net::JournalHost as _;
use net::courier::{Courier, News, Order, Told};
use net::limits;
use net::wire::Hello;

use super::fail::{Broken, ensure};
use super::ledger::Who;
use super::world::{Event, Link, World};

/// Kinds of frames, as the wire's page has them.
const KIND_ENTRIES: u8 = 2;
const KIND_OFFERED: u8 = 5;
/// A session that lasted this long was worth its dial.
const SETTLED_MS: u64 = 30_000;
/// Frames under way in one direction; more wait at the sender.
const PIPE_FRAMES_MAX: usize = 32;

#[derive(Default)]
struct Pipe {
    frames: VecDeque<Vec<u8>>,
    /// Deliveries that came due while they could not be made.
    owed: usize,
    clogged: bool,
    /// Nothing that is put in from now on arrives.
    cut: bool,
    /// When the last frame arrives.
    last: u64,
}

struct Conn {
    /// The opener first.
    ends: [Who; 2],
    open: [bool; 2],
    /// What each end has put in.
    pipes: [Pipe; 2],
    /// What each end has said of locks, on a stream beside.
    words: [Pipe; 2],
}

/// All links.
#[derive(Default)]
pub(crate) struct Net {
    conns: BTreeMap<u64, Conn>,
    next: u64,
    /// Directions in which nothing gets through.
    pub(crate) blocked: BTreeSet<(Who, Who)>,
    /// When pairs dial next, and how often in a row that came to nothing.
    dialling: BTreeMap<(Who, Who), u64>,
    failures: BTreeMap<(Who, Who), u32>,
}

impl Net {
    pub(crate) fn end(&self, conn: u64, end: usize) -> Option<Who> {
        self.conns.get(&conn).map(|conn| conn.ends[end])
    }

    /// Connections with an open end.
    pub(crate) fn live(&self) -> Vec<u64> {
        self.conns.keys().copied().collect()
    }
}

impl World {
    fn opener(&self, a: Who, b: Who) -> (Who, Who) {
        if self.devices[a].id < self.devices[b].id { (a, b) } else { (b, a) }
    }

    /// Lets two devices try to connect after a while.
    pub(crate) fn want(&mut self, a: Who, b: Who, delay_ms: u64) {
        if a == b || self.devices[a].id == self.devices[b].id {
            return;
        }
        let pair = self.opener(a, b);
        let at = self.now + delay_ms;
        if self.net.dialling.get(&pair).is_none_or(|planned| at < *planned) {
            self.net.dialling.insert(pair, at);
            self.after(delay_ms, Event::Dial(pair.0, pair.1));
        }
    }

    /// Lets `who` try everybody.
    pub(crate) fn redial(&mut self, who: Who) {
        for other in 0..self.devices.len() {
            self.net.failures.remove(&self.opener(who, other));
            let delay = self.rng.range(1, 300);
            self.want(who, other, delay);
        }
    }

    pub(crate) fn redial_all(&mut self) {
        (0..self.devices.len()).for_each(|who| self.redial(who));
    }

    fn is_blocked(&self, from: Who, to: Who) -> bool {
        self.net.blocked.contains(&(from, to))
    }

    pub(crate) fn dial(&mut self, a: Who, b: Who) {
        if self.net.dialling.get(&(a, b)).is_none_or(|planned| *planned > self.now) {
            return;
        }
        self.net.dialling.remove(&(a, b));
        let up = self.devices[a].runs() && self.devices[b].runs();
        let awake = [a, b].iter().all(|who| self.devices[*who].asleep_until <= self.now);
        // A start, an awakening or a healed partition dials again.
        if !up || !awake || self.is_blocked(a, b) || self.is_blocked(b, a) {
            return;
        }
        if self.devices[a].sessions.contains_key(&b) {
            return;
        }
        if !self.sees_member(a, b) || !self.sees_member(b, a) {
            self.marks.hit("members: refused at the door");
            let delay = self.backoff_ms(a, b);
            self.want(a, b, delay);
            return;
        }
        self.net.next += 1;
        let id = self.net.next;
        self.net.conns.insert(
            id,
            Conn {
                ends: [a, b],
                open: [true, false],
                pipes: Default::default(),
                words: Default::default(),
            },
        );
        self.whisper(|| format!("d{a} dials d{b} (connection {id})"));
        self.open_session(a, b, id);
        let delay = self.latency_ms();
        self.after(delay, Event::Accept(id));
    }

    pub(crate) fn accept(&mut self, id: u64) -> Result<(), Broken> {
        let Some(conn) = self.net.conns.get_mut(&id) else { return Ok(()) };
        let [a, b] = conn.ends;
        if !self.devices[b].runs() || !self.sees_member(b, a) {
            self.drop_end(id, 1);
            return Ok(());
        }
        if let Some(conn) = self.net.conns.get_mut(&id) {
            conn.open[1] = true;
        }
        if self.devices[b].sessions.contains_key(&a) {
            self.marks.hit("exchange: session replaced by a newer one");
        }
        self.open_session(b, a, id);
        self.words_flow(id, 0);
        self.pump(a, b)?;
        self.pump(b, a)
    }

    /// A new session of `who` with `peer` in the place of any older one with that device.
    fn open_session(&mut self, who: Who, peer: Who, conn: u64) {
        let same: Vec<Who> = self.devices[who].sessions.keys().copied().collect();
        for other in same {
            if self.devices[other].id == self.devices[peer].id {
                self.end_session(who, other);
            }
        }
        let Some(host) = self.host(who) else { return };
        let hello =
            Hello { frontier: host.frontier(), addrs: Vec::new(), wall_ms: host.now().wall_ms };
        let since = self.now;
        let courier = Courier::new(hello);
        let link = Link { conn, courier, taken: 0, came: 0, offered: None, since };
        self.devices[who].sessions.insert(peer, link);
        self.locks_connected(who, peer);
    }

    /// An end is done with a connection; the other one finds out.
    pub(crate) fn end_session(&mut self, who: Who, peer: Who) {
        let Some(link) = self.devices[who].sessions.remove(&peer) else { return };
        let end = self.net.conns.get(&link.conn).map(|conn| usize::from(conn.ends[1] == who));
        if let Some(end) = end {
            self.drop_end(link.conn, end);
        }
        self.locks_disconnected(who, peer);
        let delay = match self.now - link.since < SETTLED_MS {
            true => self.backoff_ms(who, peer),
            false => self.rng.range(100, 2000),
        };
        self.want(who, peer, delay);
    }

    /// How long to wait after another failure, as the product does it but with no end to the doubling: hours may pass.
    fn backoff_ms(&mut self, a: Who, b: Who) -> u64 {
        let pair = self.opener(a, b);
        let most = if self.healing { 1 } else { 18 };
        let failures = self.net.failures.entry(pair).or_default();
        *failures = (*failures + 1).min(most);
        let longest = 500u64 << *failures;
        self.rng.range(longest / 4, longest)
    }

    fn drop_end(&mut self, id: u64, end: usize) {
        let Some(conn) = self.net.conns.get_mut(&id) else { return };
        conn.open[end] = false;
        conn.pipes[end].cut = true;
        conn.words[end].cut = true;
        let [a, b] = [conn.ends[end], conn.ends[1 - end]];
        let blocked = self.is_blocked(a, b);
        let delay = if blocked { self.rng.range(3000, 16_000) } else { self.latency_ms() };
        self.after(delay, Event::Notice { conn: id, end: 1 - end });
    }

    pub(crate) fn notice(&mut self, id: u64, end: usize) {
        let Some(conn) = self.net.conns.get_mut(&id) else { return };
        let (who, peer, open) = (conn.ends[end], conn.ends[1 - end], conn.open[end]);
        let done = !conn.open[1 - end];
        if open && self.devices[who].sessions.get(&peer).is_some_and(|link| link.conn == id) {
            self.whisper(|| format!("d{who} notices that its connection to d{peer} is gone"));
            self.end_session(who, peer);
        }
        if done {
            self.net.conns.remove(&id);
        }
    }

    /// The link between two devices breaks; frames under way may still arrive, and each end finds out in its own time.
    pub(crate) fn cut(&mut self, id: u64, notices_ms: [u64; 2]) {
        let mut rng = self.rng.clone();
        let Some(conn) = self.net.conns.get_mut(&id) else { return };
        for pipe in &mut conn.pipes {
            pipe.cut = true;
            let kept = rng.below(pipe.frames.len() + 1);
            pipe.frames.truncate(kept);
        }
        for words in &mut conn.words {
            words.cut = true;
            if !words.frames.is_empty() {
                let kept = rng.below(words.frames.len() + 1);
                words.frames.truncate(kept);
            }
        }
        self.rng = rng;
        for (end, delay) in notices_ms.into_iter().enumerate() {
            self.after(delay, Event::Notice { conn: id, end });
        }
    }

    /// One direction stands still, or flows again.
    pub(crate) fn clog(&mut self, id: u64, from: usize) {
        if let Some(conn) = self.net.conns.get_mut(&id) {
            conn.pipes[from].clogged = true;
            conn.words[from].clogged = true;
        }
    }

    pub(crate) fn flow(&mut self, id: u64, from: usize) {
        if let Some(conn) = self.net.conns.get_mut(&id) {
            conn.pipes[from].clogged = false;
            let owed = std::mem::take(&mut conn.pipes[from].owed);
            (0..owed).for_each(|_| self.after(0, Event::Deliver { conn: id, from }));
        }
        self.words_flow(id, from);
    }

    pub(crate) fn flow_all(&mut self) {
        for id in self.net.live() {
            self.flow(id, 0);
            self.flow(id, 1);
        }
    }

    /// Puts bytes that are no frame of ours into a stream of `who`, to whomever it is connected.
    pub(crate) fn inject(&mut self, who: Who, peer: Who, frame: Vec<u8>) {
        let Some(id) = self.devices[who].sessions.get(&peer).map(|link| link.conn) else { return };
        let from = self.net.conns.get(&id).map(|conn| usize::from(conn.ends[1] == who));
        if let Some(from) = from {
            self.put(id, from, frame);
        }
    }

    fn put(&mut self, id: u64, from: usize, frame: Vec<u8>) {
        let latency = self.latency_ms();
        let now = self.now;
        let Some(conn) = self.net.conns.get_mut(&id) else { return };
        let pipe = &mut conn.pipes[from];
        if pipe.cut {
            return;
        }
        pipe.last = pipe.last.max(now + latency);
        let delay = pipe.last - now;
        pipe.frames.push_back(frame);
        self.after(delay, Event::Deliver { conn: id, from });
    }

    pub(crate) fn deliver(&mut self, id: u64, from: usize) -> Result<(), Broken> {
        let Some(conn) = self.net.conns.get(&id) else { return Ok(()) };
        let (peer, who) = (conn.ends[from], conn.ends[1 - from]);
        let still = conn.pipes[from].clogged || self.is_blocked(peer, who);
        let member = self.sees_member(who, peer);
        let link = self.devices[who].sessions.get_mut(&peer).filter(|link| link.conn == id);
        // Not accepted yet: the frames wait, as they do in a socket.
        let waits = match &link {
            Some(link) => still || !link.courier.may_read(),
            None => still || (from == 0 && !conn.open[1] && !conn.pipes[1].cut),
        };
        let Some(conn) = self.net.conns.get_mut(&id) else { return Ok(()) };
        if waits {
            conn.pipes[from].owed += 1;
            return Ok(());
        }
        let Some(frame) = conn.pipes[from].frames.pop_front() else { return Ok(()) };
        let Some(link) = link else { return Ok(()) };
        if !member {
            self.whisper(|| format!("d{who} shuts d{peer} out"));
            self.end_session(who, peer);
            return Ok(());
        }
        match frame.get(4) {
            Some(&KIND_ENTRIES) => link.came += 1,
            // Whoever says it again changes nothing.
            Some(&KIND_OFFERED) => link.offered = link.offered.or(Some(link.came)),
            _ => {}
        }
        let handled = link.courier.handle_frame(frame.get(4..).unwrap_or_default());
        match handled {
            Ok(told) => {
                if told == Told::Greeting {
                    self.whisper(|| format!("d{who} is greeted by d{peer}"));
                }
                self.pump(who, peer)?;
                self.pump(peer, who)
            }
            Err(fault) => {
                self.marks.hit("exchange: session ended by the other's fault");
                self.whisper(|| format!("d{who} ends the session with d{peer}: {fault:?}"));
                let honest = !self.devices[peer].evil && !self.devices[who].evil;
                ensure("N-fault", !honest, || {
                    format!("device {who} finds fault with {peer}, which is honest: {fault:?}")
                })?;
                self.end_session(who, peer);
                Ok(())
            }
        }
    }

    /// Frames on their way, calls under way: whatever a session has to do.
    pub(crate) fn pump(&mut self, who: Who, peer: Who) -> Result<(), Broken> {
        loop {
            let Some(link) = self.devices[who].sessions.get_mut(&peer) else { return Ok(()) };
            let id = link.conn;
            while let Some(news) = link.courier.poll_news() {
                if let News::Probed { .. } = news {
                    self.marks.hit("exchange: probe answered");
                }
            }
            let epoch = self.devices[who].epoch;
            for order in [Order::Changes, Order::Reads] {
                let link = self.devices[who].sessions.get_mut(&peer);
                if let Some(job) = link.and_then(|link| link.courier.next_job(order)) {
                    let delay = self.call_ms();
                    self.after(delay, Event::Run { who, epoch, peer, conn: id, order, job });
                }
            }
            let Some(conn) = self.net.conns.get(&id) else { return Ok(()) };
            let from = usize::from(conn.ends[1] == who);
            let room = conn.pipes[from].frames.len() < PIPE_FRAMES_MAX || conn.pipes[from].cut;
            self.take_owed(who, peer, id, 1 - from);
            let link = self.devices[who].sessions.get_mut(&peer).filter(|_| room);
            let Some(frame) = link.and_then(|link| link.courier.next_frame()) else {
                return Ok(());
            };
            self.check_sent(who, peer, &frame)?;
            self.put(id, from, frame);
        }
    }

    /// Reads on when it can again.
    fn take_owed(&mut self, who: Who, peer: Who, id: u64, from: usize) {
        let reads = self.devices[who].sessions.get(&peer).is_some_and(|l| l.courier.may_read());
        if !reads || self.is_blocked(peer, who) {
            return;
        }
        let Some(conn) = self.net.conns.get_mut(&id) else { return };
        if conn.pipes[from].clogged {
            return;
        }
        let owed = std::mem::take(&mut conn.pipes[from].owed);
        (0..owed).for_each(|_| self.after(0, Event::Deliver { conn: id, from }));
    }

    /// Says something of locks to a device that `who` is connected to.
    pub(crate) fn say_word(&mut self, who: Who, to: DeviceId, frame: Vec<u8>) {
        let mut links = self.devices[who].sessions.iter();
        let link = links.find(|(peer, _)| self.devices[**peer].id == to);
        let Some(id) = link.map(|(_, link)| link.conn) else { return };
        let latency = self.latency_ms();
        let now = self.now;
        let Some(conn) = self.net.conns.get_mut(&id) else { return };
        let from = usize::from(conn.ends[1] == who);
        let words = &mut conn.words[from];
        if words.cut {
            return;
        }
        words.last = words.last.max(now + latency);
        let delay = words.last - now;
        words.frames.push_back(frame);
        self.after(delay, Event::Word { conn: id, from });
    }

    pub(crate) fn deliver_word(&mut self, id: u64, from: usize) -> Result<(), Broken> {
        let Some(conn) = self.net.conns.get(&id) else { return Ok(()) };
        let (peer, who) = (conn.ends[from], conn.ends[1 - from]);
        let still = conn.words[from].clogged || self.is_blocked(peer, who);
        let link = self.devices[who].sessions.get(&peer).is_some_and(|link| link.conn == id);
        // Not accepted yet: it waits, as it does in a socket.
        let early = !link && from == 0 && !conn.open[1];
        let member = self.sees_member(who, peer);
        let Some(conn) = self.net.conns.get_mut(&id) else { return Ok(()) };
        if still || early {
            conn.words[from].owed += 1;
            return Ok(());
        }
        match conn.words[from].frames.pop_front() {
            Some(frame) if link && member => self.hear_word(who, peer, &frame),
            _ => Ok(()),
        }
    }

    /// What was said and could not be heard is heard.
    fn words_flow(&mut self, id: u64, from: usize) {
        let Some(conn) = self.net.conns.get_mut(&id) else { return };
        conn.words[from].clogged = false;
        let owed = std::mem::take(&mut conn.words[from].owed);
        (0..owed).for_each(|_| self.after(0, Event::Word { conn: id, from }));
    }

    /// Whether two have one connection that stands and all that was said on it has arrived.
    pub(crate) fn words_have_arrived(&self, a: Who, b: Who) -> bool {
        let conn_of = |x: Who, y: Who| self.devices[x].sessions.get(&y).map(|link| link.conn);
        let (Some(one), Some(other)) = (conn_of(a, b), conn_of(b, a)) else { return false };
        let conn = self.net.conns.get(&one).filter(|_| one == other);
        conn.is_some_and(|conn| {
            conn.words.iter().all(|words| !words.cut && words.frames.is_empty())
        })
    }

    /// What a session keeps in memory stays within its bounds.
    pub(crate) fn check_bounds(&self, who: Who) -> Result<(), Broken> {
        for (peer, link) in &self.devices[who].sessions {
            let session = link.courier.session();
            let len = session.in_flight_len();
            ensure("N-bounds", len <= limits::IN_FLIGHT_LEN_MAX + limits::ENTRY_LEN_MAX, || {
                format!("device {who} has {len} bytes under way to {peer}")
            })?;
            let batches = session.receiving();
            ensure("N-bounds", batches <= limits::RECEIVE_QUEUE_MAX, || {
                format!("device {who} has {batches} batches of {peer} not taken in")
            })?;
        }
        Ok(())
    }
}
