//! One device's lock table: what it holds and wants, what it has granted, who announces what.
//!
//! Everything comes in through `handle_*` and the calls of the host, with the time; what is to be done comes out of
//! [`Table::poll_effect`]. A shell must call [`Table::handle_time`] at least every
//! [`limits::LOCK_TICK_MS`], or a pause counts as a sleep.
//!
//! Leaves out: the rules for others' claims (`answering`), own ones (`claiming`) and leases (`time`).
//!
//! Invariants:
//! - of all claims that are own or granted from here no two of different devices overlap;
//! - a grant from here ends by its holder's word, by the lease, by a new run of the holder, or with its membership, and
//!   in no other way;
//! - nothing is granted to or claimed from a peer before both have told what they hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use journal::id::{DeviceId, VersionId};
use journal::name::Register;

use super::book::{self, Book, Entry, Key, Standing, Told};
use super::budget::Budget;
use super::{Foreign, LockClaim, LockInfo, LockKind, LockOutcome, Rule, Scope, Spot, folded};
use crate::limits;
use crate::wire::locks::{Claim, Denial, LockMessage, Stage};

mod answering;
mod beliefs;
mod claiming;
mod time;

pub use beliefs::Belief;

/// The time of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// By a clock that runs on while the machine sleeps.
    pub boot_ms: u64,
    /// Milliseconds since 1970; for display only.
    pub wall_ms: u64,
}

/// What the shell must do.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    /// Send it, in this order.
    Send {
        /// To whom; it is connected.
        to: DeviceId,
        /// What.
        message: LockMessage,
    },
    /// Ask the host whether something here replaces these; answer with [`Table::handle_judged`].
    Judge {
        /// Whose claim it is.
        to: DeviceId,
        /// Its number.
        id: u64,
        /// Of what they are versions.
        register: Register,
        /// What its writer has in front of it.
        bases: Vec<VersionId>,
    },
    /// A claim of [`Began::Waiting`] is decided.
    Decided {
        /// Its number.
        id: u64,
        /// For what it was.
        scope: Scope,
        /// How.
        outcome: LockOutcome,
    },
    /// An own lock is lost.
    Lost(Scope),
    /// Somebody else's lock or presence came, went or changed.
    Changed(Scope),
}

/// How a claim began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Began {
    /// It is decided already.
    Decided(LockOutcome),
    /// [`Effect::Decided`] will come with this number.
    Waiting(u64),
}

/// What ends a peer's stream by its own fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A greeting is the first message, and only the first.
    #[error("greeting out of place")]
    Greeting,
    /// Said before all that is held was told.
    #[error("message out of order")]
    Order,
    /// It says more than it may.
    #[error("too many messages")]
    Flood,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Link {
    Down,
    /// Connected; it has not greeted.
    Silent,
    /// It has greeted, and tells what it holds.
    Meeting,
    /// It has told all.
    Met,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Peer {
    link: Link,
    /// It has told, in this run, all that it holds, and knows of this run: it counts no grant of the one before.
    knows_us: bool,
    incarnation: Option<u64>,
    /// When something of it arrived last.
    heard_ms: u64,
    /// When that was sent which it answered last.
    confirmed_ms: u64,
    /// Some own claim counts a grant of it.
    counted: bool,
    /// A claim was decided without its answer, and nothing of it has arrived since: no claim waits for it.
    mute: bool,
    /// Grants are not counted before this renewal is answered: those under way answer what has lapsed.
    deaf: Option<u64>,
    renewals: BTreeMap<u64, u64>,
    renew_at_ms: u64,
    /// Its claims from before this connection, which it has not told again.
    unlisted: BTreeSet<u64>,
    /// Directories that its claims name.
    above: usize,
    presences: BTreeMap<Register, i64>,
    releases: Vec<u64>,
    absences: Vec<Register>,
    takes: Budget,
    sends: Budget,
}

impl Peer {
    fn new(now_ms: u64) -> Self {
        Self {
            link: Link::Down,
            knows_us: false,
            incarnation: None,
            heard_ms: now_ms,
            confirmed_ms: 0,
            counted: false,
            mute: false,
            deaf: None,
            renewals: BTreeMap::new(),
            renew_at_ms: 0,
            unlisted: BTreeSet::new(),
            above: 0,
            presences: BTreeMap::new(),
            releases: Vec::new(),
            absences: Vec::new(),
            takes: Budget::new(limits::LOCK_BURST_MAX, limits::LOCK_RATE_MAX, now_ms),
            sends: Budget::new(limits::LOCK_SEND_BURST_MAX, limits::LOCK_SEND_RATE_MAX, now_ms),
        }
    }

    /// It has answered what was sent then.
    fn confirm(&mut self, sent_ms: u64) {
        self.confirmed_ms = self.confirmed_ms.max(sent_ms);
    }

    fn is_leased(&self, now_ms: u64, table: &Table) -> bool {
        let ends = self.heard_ms.saturating_add(limits::LOCK_LEASE_MS);
        now_ms < ends || !table.keeps(Rule::LeaseEnds)
    }

    fn counts(&self, now_ms: u64, table: &Table) -> bool {
        let counted = match table.keeps(Rule::CountedShorterThanKept) {
            true => limits::LOCK_COUNTED_MS,
            false => 2 * limits::LOCK_LEASE_MS,
        };
        now_ms < self.confirmed_ms.saturating_add(counted)
    }
}

/// What one peer said to an own claim on this connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Answer {
    None,
    Granted,
    Denied(Foreign),
    Unknown,
    /// There was no room to ask it.
    Unasked,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Ask {
    sent_ms: u64,
    answer: Answer,
}

impl Ask {
    /// Whether the word that counts may still come.
    fn is_open(&self) -> bool {
        matches!(self.answer, Answer::None | Answer::Unknown)
    }
}

/// What is known of an own claim beside the book.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Mine {
    decide_at_ms: u64,
    asked: BTreeMap<DeviceId, Ask>,
    granted: BTreeSet<DeviceId>,
    newer: bool,
}

/// See the module's words.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Table {
    me: DeviceId,
    incarnation: u64,
    started_ms: u64,
    now_ms: u64,
    /// The wall clock less this one.
    wall_ahead_ms: i64,
    grace: bool,
    last_id: u64,
    last_renewal: u64,
    book: Book,
    mine: BTreeMap<u64, Mine>,
    undecided: BTreeSet<(u64, u64)>,
    peers: BTreeMap<DeviceId, Peer>,
    members: BTreeSet<DeviceId>,
    /// Members whose grants make a lock whole.
    expected: BTreeSet<DeviceId>,
    presences: BTreeMap<Register, i64>,
    effects: VecDeque<Effect>,
    #[cfg(any(test, debug_assertions))]
    broken: Option<Rule>,
}

impl Table {
    /// A table of nothing. `incarnation` is another one at each start.
    pub fn new(me: DeviceId, incarnation: u64, now: Now) -> Self {
        Self {
            me,
            incarnation,
            started_ms: now.boot_ms,
            now_ms: now.boot_ms,
            wall_ahead_ms: 0,
            grace: true,
            last_id: 0,
            last_renewal: 0,
            book: Book::default(),
            mine: BTreeMap::new(),
            undecided: BTreeSet::new(),
            peers: BTreeMap::new(),
            members: BTreeSet::new(),
            expected: BTreeSet::new(),
            presences: BTreeMap::new(),
            effects: VecDeque::new(),
            #[cfg(any(test, debug_assertions))]
            broken: None,
        }
    }

    /// A table that does not keep to `rule`, for tests.
    #[cfg(any(test, debug_assertions))]
    pub fn breaking(mut self, rule: Option<Rule>) -> Self {
        self.broken = rule;
        self
    }

    #[cfg(any(test, debug_assertions))]
    fn keeps(&self, rule: Rule) -> bool {
        self.broken != Some(rule)
    }

    #[cfg(not(any(test, debug_assertions)))]
    const fn keeps(&self, _: Rule) -> bool {
        true
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    // Peers --------------------------------------------------------------------------------------

    /// The members, and those of them whose grants make a lock whole; without this device.
    pub fn handle_members(
        &mut self,
        now: Now,
        members: BTreeSet<DeviceId>,
        expected: BTreeSet<DeviceId>,
    ) {
        self.advance(now);
        let gone: Vec<DeviceId> =
            self.peers.keys().filter(|device| !members.contains(device)).copied().collect();
        (self.members, self.expected) = (members, expected);
        for device in gone {
            self.disconnect(device);
            self.end_claims_of(device);
            self.peers.remove(&device);
            self.drop_grants_of(&device);
        }
    }

    /// A stream to `device` stands.
    pub fn handle_connected(&mut self, now: Now, device: DeviceId) {
        self.advance(now);
        self.disconnect(device);
        if !self.members.contains(&device) {
            return;
        }
        let unlisted = self.book.of(device).map(|((_, id), _)| *id).collect();
        let now_ms = self.now_ms;
        let peer = self.peers.entry(device).or_insert_with(|| Peer::new(now_ms));
        peer.link = Link::Silent;
        peer.unlisted = unlisted;
        peer.deaf = None;
        self.send(device, LockMessage::Hello(self.incarnation));
        self.tell_claims(device, Standing::Own);
        let registers: Vec<Register> = self.presences.keys().cloned().collect();
        for chunk in registers.chunks(limits::LOCK_NAMES_MAX) {
            self.send(device, LockMessage::Present(chunk.to_vec()));
        }
        self.send(device, LockMessage::Ready);
    }

    /// The stream to `device` is gone.
    pub fn handle_disconnected(&mut self, now: Now, device: DeviceId) {
        self.advance(now);
        self.disconnect(device);
        self.decide_all();
    }

    fn disconnect(&mut self, device: DeviceId) {
        let Some(peer) = self.peers.get_mut(&device).filter(|peer| peer.link != Link::Down) else {
            return;
        };
        peer.link = Link::Down;
        peer.renewals.clear();
        peer.releases.clear();
        peer.absences.clear();
        for register in std::mem::take(&mut peer.presences).into_keys() {
            self.effects.push_back(Effect::Changed(Scope::Name(register)));
        }
        // What it only asked for it asks for again.
        let asked: Vec<Key> = self
            .book
            .of(device)
            .filter(|(_, e)| e.standing == Standing::Waiting && e.told == Told::Asked)
            .map(|(key, _)| *key)
            .collect();
        for key in asked {
            self.forget(key);
        }
        for (id, mine) in &mut self.mine {
            mine.asked.remove(&device);
            // It is asked for again, and the other end forgets what it is not told of first.
            let asking = self.book.get(&(self.me, *id)).map(|e| e.standing);
            if asking == Some(Standing::Asking) {
                mine.granted.remove(&device);
            }
        }
    }

    /// A message came. An error ends the stream.
    pub fn handle_message(
        &mut self,
        now: Now,
        from: DeviceId,
        message: LockMessage,
    ) -> Result<(), Violation> {
        self.advance(now);
        let now_ms = self.now_ms;
        let Some(peer) = self.peers.get_mut(&from).filter(|peer| peer.link != Link::Down) else {
            return Ok(());
        };
        let fits = match is_answer(&message) {
            true => peer.takes.take_answer(now_ms),
            false => peer.takes.take(now_ms),
        };
        if !fits {
            return Err(Violation::Flood);
        }
        peer.heard_ms = now_ms;
        peer.mute = false;
        match (peer.link, &message) {
            (Link::Silent, LockMessage::Hello(_)) => {}
            (Link::Silent, _) | (_, LockMessage::Hello(_)) => return Err(Violation::Greeting),
            (Link::Met, LockMessage::Ready) => return Err(Violation::Order),
            (Link::Meeting, LockMessage::Ready | LockMessage::Present(_)) => {}
            (Link::Meeting, LockMessage::Claims(claims))
                if claims.iter().all(|claim| claim.stage == Stage::Held) => {}
            (Link::Meeting, _) => return Err(Violation::Order),
            _ => {}
        }
        match message {
            LockMessage::Hello(incarnation) => self.handle_hello(from, incarnation),
            LockMessage::Ready => self.handle_ready(from),
            LockMessage::Claims(claims) => self.handle_claims(from, claims),
            LockMessage::Grants(grants) => self.handle_grants(from, &grants),
            LockMessage::Deny(denial) => self.handle_deny(from, denial),
            LockMessage::Unknown(ids) => self.handle_unknown(from, &ids),
            LockMessage::Release(ids) => ids.iter().for_each(|id| self.forget((from, *id))),
            LockMessage::Renew(number, doubts) => self.handle_renew(from, number, &doubts),
            LockMessage::Renewed(number) => self.handle_renewed(from, number),
            LockMessage::Present(registers) => self.handle_present(from, registers),
            LockMessage::Absent(registers) => self.handle_absent(from, registers),
        }
        Ok(())
    }

    fn handle_hello(&mut self, from: DeviceId, incarnation: u64) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.link = Link::Meeting;
        let before = peer.incarnation.replace(incarnation);
        if before.is_some_and(|before| before != incarnation) {
            // It has forgotten what it held, and what it granted.
            self.end_claims_of(from);
            self.drop_grants_of(&from);
        }
    }

    fn drop_grants_of(&mut self, device: &DeviceId) {
        for mine in self.mine.values_mut() {
            mine.granted.remove(device);
        }
    }

    fn handle_ready(&mut self, from: DeviceId) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.link = Link::Met;
        // Given back while nobody could tell.
        for id in std::mem::take(&mut peer.unlisted) {
            self.forget((from, id));
        }
        self.tell_claims(from, Standing::Asking);
        if self.grace {
            // Its answer shows that our greeting has arrived.
            self.send_renewal(from);
        }
    }

    // Presence -----------------------------------------------------------------------------------

    /// Somebody has opened it here.
    pub fn present(&mut self, now: Now, register: &Register) {
        self.advance(now);
        let register = folded(register.clone());
        if self.presences.len() >= limits::LOCKS_OF_PEER_MAX
            || self.presences.insert(register.clone(), self.now_ms as i64).is_some()
        {
            return;
        }
        for device in self.connected() {
            if let Some(peer) = self.peers.get_mut(&device) {
                peer.absences.retain(|absent| *absent != register);
            }
            if self.may_send(device) {
                self.send(device, LockMessage::Present(vec![register.clone()]));
            }
        }
    }

    /// Nobody has it open here any more.
    pub fn absent(&mut self, now: Now, register: &Register) {
        self.advance(now);
        let register = folded(register.clone());
        if self.presences.remove(&register).is_none() {
            return;
        }
        for device in self.connected() {
            if let Some(peer) = self.peers.get_mut(&device)
                && peer.absences.len() < limits::LOCKS_OF_PEER_MAX
            {
                peer.absences.push(register.clone());
            }
        }
        self.tell_ends();
    }

    fn handle_present(&mut self, from: DeviceId, registers: Vec<Register>) {
        let now_ms = self.now_ms as i64;
        let Some(peer) = self.peers.get_mut(&from) else { return };
        for register in registers.into_iter().map(folded) {
            if peer.presences.len() < limits::LOCKS_OF_PEER_MAX
                && !peer.presences.contains_key(&register)
            {
                peer.presences.insert(register.clone(), now_ms);
                self.effects.push_back(Effect::Changed(Scope::Name(register)));
            }
        }
    }

    fn handle_absent(&mut self, from: DeviceId, registers: Vec<Register>) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        for register in registers.into_iter().map(folded) {
            if peer.presences.remove(&register).is_some() {
                self.effects.push_back(Effect::Changed(Scope::Name(register)));
            }
        }
    }

    /// With whom tables are exchanged.
    pub fn met(&self) -> Vec<DeviceId> {
        let met = self.peers.iter().filter(|(_, peer)| peer.link == Link::Met);
        met.map(|(device, _)| *device).collect()
    }

    /// Who are the members, as was said last.
    pub fn members(&self) -> Vec<DeviceId> {
        self.members.iter().copied().collect()
    }

    // Looking ------------------------------------------------------------------------------------

    /// Somebody else's lock that covers this name.
    pub fn known(&self, now: Now, at: &Spot) -> Option<Foreign> {
        let scope = Scope::Name(at.register.clone()).folded();
        let chain = book::chain(&scope, at.above.clone());
        let keys = self.book.covering(&scope, &chain).into_iter();
        let seen = keys.filter(|key| self.is_seen(now.boot_ms, key));
        let best = seen.min_by_key(|key| self.rank_of(key))?;
        self.foreign(&best)
    }

    /// Whether an own lock covers this name, and how many members have not granted it.
    pub fn held(&self, now: Now, at: &Spot) -> Option<u32> {
        let slept = now.boot_ms.saturating_sub(self.now_ms) >= limits::LOCK_COUNTED_MS;
        if slept && self.keeps(Rule::SleepLosesAll) {
            return None;
        }
        let scope = Scope::Name(at.register.clone()).folded();
        let chain = book::chain(&scope, at.above.clone());
        let keys = self.book.covering(&scope, &chain).into_iter().filter(|key| self.is_own(key));
        keys.map(|(_, id)| self.unreachable(now.boot_ms, id)).min()
    }

    /// Since when an own lock covers this name, milliseconds since 1970, for display.
    pub fn held_since_ms(&self, at: &Spot) -> Option<u64> {
        let scope = Scope::Name(at.register.clone()).folded();
        let chain = book::chain(&scope, at.above.clone());
        let keys = self.book.covering(&scope, &chain).into_iter().filter(|key| self.is_own(key));
        let since = keys.filter_map(|key| self.book.get(&key)).map(|entry| entry.since_ms).min()?;
        Some(self.wall_ms(since))
    }

    /// Who has it open for reading, and since when, milliseconds since 1970.
    pub fn who_has_open(&self, register: &Register) -> Vec<(DeviceId, u64)> {
        let register = folded(register.clone());
        let since = |(device, peer): (&DeviceId, &Peer)| {
            peer.presences.get(&register).map(|since_ms| (*device, self.wall_ms(*since_ms)))
        };
        self.peers.iter().filter_map(since).collect()
    }

    /// All that is known.
    pub fn all(&self, now: Now) -> Vec<LockInfo> {
        let seen =
            self.book.iter().filter(|(key, _)| self.is_own(key) || self.is_seen(now.boot_ms, key));
        let locks = seen.map(|(key, entry)| LockInfo {
            scope: entry.scope.clone(),
            device: key.0,
            since_ms: self.wall_ms(entry.since_ms),
            kind: LockKind::Session,
            unreachable: match self.is_own(key) {
                true => self.unreachable(now.boot_ms, key.1),
                false => entry.unreachable,
            },
        });
        let presence = |device: DeviceId, (register, since_ms): (&Register, &i64)| LockInfo {
            scope: Scope::Name(register.clone()),
            device,
            since_ms: self.wall_ms(*since_ms),
            kind: LockKind::Presence,
            unreachable: 0,
        };
        let own = self.presences.iter().map(|open| presence(self.me, open));
        let others = self.peers.iter();
        let others = others.flat_map(|(device, peer)| {
            peer.presences.iter().map(|open| presence(*device, open)).collect::<Vec<_>>()
        });
        locks.chain(own).chain(others).collect()
    }

    fn is_own(&self, key: &Key) -> bool {
        self.book.get(key).is_some_and(|entry| entry.standing == Standing::Own)
    }

    /// Whether it is a lock of somebody else's, as far as is known here.
    fn is_seen(&self, now_ms: u64, key: &Key) -> bool {
        let Some(entry) = self.book.get(key) else { return false };
        let foreign = key.0 != self.me;
        let lock = entry.standing == Standing::Promised || entry.told == Told::Held;
        foreign && lock && self.peers.get(&key.0).is_some_and(|peer| peer.is_leased(now_ms, self))
    }

    fn foreign(&self, key: &Key) -> Option<Foreign> {
        let entry = self.book.get(key)?;
        Some(Foreign {
            device: key.0,
            since_ms: self.wall_ms(entry.since_ms),
            whole: entry.unreachable == 0,
            unreachable: entry.unreachable,
            below: matches!(entry.scope, Scope::Below(_)),
        })
    }

    fn wall_ms(&self, since_ms: i64) -> u64 {
        u64::try_from(since_ms.saturating_add(self.wall_ahead_ms)).unwrap_or(0)
    }

    fn age_ms(&self, since_ms: i64) -> u64 {
        u64::try_from((self.now_ms as i64).saturating_sub(since_ms)).unwrap_or(0)
    }

    /// The lower wins. Nothing but the claim itself has a say: all who order two claims are sure of the same winner.
    fn rank_of(&self, key: &Key) -> (u64, DeviceId) {
        (self.book.get(key).map_or(u64::MAX, |entry| entry.priority), key.0)
    }

    // Sending ------------------------------------------------------------------------------------

    fn connected(&self) -> Vec<DeviceId> {
        let up = self.peers.iter().filter(|(_, peer)| peer.link != Link::Down);
        up.map(|(device, _)| *device).collect()
    }

    fn send(&mut self, to: DeviceId, message: LockMessage) {
        let link = self.peers.get(&to).map_or(Link::Down, |peer| peer.link);
        // Before it has greeted, its claims known here may be those of another run, with the same numbers. What it still
        // holds it tells, and is answered then.
        let void = link == Link::Silent && is_answer(&message);
        if link != Link::Down && !void {
            self.effects.push_back(Effect::Send { to, message });
        }
    }

    /// Takes the place of one message that nobody asked for.
    fn may_send(&mut self, to: DeviceId) -> bool {
        let now_ms = self.now_ms;
        self.peers.get_mut(&to).is_some_and(|peer| peer.sends.take(now_ms))
    }

    /// Releases and absences that wait, as far as the budgets allow.
    fn tell_ends(&mut self) {
        for device in self.connected() {
            let Some(peer) = self.peers.get_mut(&device) else { continue };
            let (releases, absences) =
                (std::mem::take(&mut peer.releases), std::mem::take(&mut peer.absences));
            if !releases.is_empty() {
                match self.may_send(device) {
                    true => self.send(device, LockMessage::Release(releases)),
                    false => self.put_back(device, releases, Vec::new()),
                }
            }
            let mut chunks = absences.chunks(limits::LOCK_NAMES_MAX);
            while let Some(chunk) = chunks.next() {
                if self.may_send(device) {
                    self.send(device, LockMessage::Absent(chunk.to_vec()));
                } else {
                    let rest = chunk.iter().chain(chunks.by_ref().flatten()).cloned().collect();
                    self.put_back(device, Vec::new(), rest);
                }
            }
        }
    }

    fn put_back(&mut self, device: DeviceId, releases: Vec<u64>, absences: Vec<Register>) {
        if let Some(peer) = self.peers.get_mut(&device) {
            peer.releases.extend(releases);
            peer.absences.extend(absences);
        }
    }
}

fn is_answer(message: &LockMessage) -> bool {
    matches!(
        message,
        LockMessage::Grants(_)
            | LockMessage::Deny(_)
            | LockMessage::Unknown(_)
            | LockMessage::Renewed(_)
    )
}
