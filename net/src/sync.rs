//! The journal exchange with one peer, as a state machine: messages and answers in, effects out.
//!
//! Leaves out: sockets, threads, time, and the journal itself; `session` carries the effects
//! out and brings their results back. What an entry means is the journal's business.
//!
//! The rule of DESIGN 4.2, between two ends that may both come back from a lonely week: after the
//! greeting each sends what it may (everything but its own entries that nobody acknowledged) and says
//! `Offered`. Whoever has taken in the other's offer lets the host write its late entry
//! ([`Effect::Prepare`]) and from then on pushes everything. Neither waits for the other's own entries,
//! so the two never block each other.
//!
//! Invariants:
//! - an own entry that nobody acknowledged leaves only after the other end's offer was taken in and
//!   `Prepare` returned;
//! - an acknowledgement leaves only after [`Session::handle_received`]: it says "durable";
//! - at most [`limits::IN_FLIGHT_LEN_MAX`] bytes of entries (and one entry) are unacknowledged;
//! - an entry the peer acknowledged without taking it in is not sent again unless it asks;
//! - whatever the peer sends, memory stays bounded and the machine never panics.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use journal::Frontier;
use journal::canary::{self, Canary};
use journal::chain::TIPS_MAX;
use journal::{DeviceId, EntryId, Received, RefuseReason};

use crate::limits;
use crate::wire::{Addr, Entries, Have, Hello, Message};

/// What the runner must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send it, in this order.
    Send(Message),
    /// Give the entries to the journal; answer with [`Session::handle_received`]. In order.
    Receive {
        /// The peer's number of the batch.
        batch: u64,
        /// As they came.
        entries: Vec<Arc<[u8]>>,
    },
    /// Tell the journal what the peer holds. In order with `Receive`.
    Acknowledged(Frontier),
    /// Call `before_first_push`; answer with [`Session::handle_prepared`]. In order with `Receive`.
    Prepare,
    /// Ask the journal what the peer lacks; answer with [`Session::handle_collected`].
    Collect {
        /// What the peer holds.
        theirs: Frontier,
        /// About how much to collect.
        bytes_max: usize,
        /// Whether own unacknowledged entries must be named in the answer.
        hold_back: HoldBack,
    },
    /// Look entries up; answer with [`Session::handle_found`].
    Lookup(Vec<EntryId>),
    /// Answer with [`Session::handle_probe_answer`] what the journal holds now.
    Probe(u64),
    /// The peer says where it listens.
    TheyListen(Vec<Addr>),
    /// The peer holds every content it must under this frontier, or takes that back. In order with `Receive`.
    TheyHold(Frontier),
    /// The peer's wall clock at its greeting, ms since 1970.
    TheirClock(u64),
    /// The peer says where others are.
    OthersListen(Vec<(DeviceId, Vec<Addr>)>),
    /// The peer answered a probe of ours.
    Probed {
        /// As given to [`Session::probe`].
        token: u64,
        /// What it held then.
        frontier: Frontier,
    },
}

/// Whether own entries that nobody acknowledged may leave yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldBack {
    /// They stay.
    Unacknowledged,
    /// Everything may go.
    Nothing,
}

/// Answer to [`Effect::Collect`].
#[derive(Debug, Clone)]
pub struct Collected {
    /// What the peer lacks, causal order, with ids.
    pub entries: Vec<(EntryId, Arc<[u8]>)>,
    /// More than this is lacking.
    pub truncated: Truncated,
    /// Own entries nobody acknowledged, if they were asked for.
    pub unacknowledged: BTreeSet<EntryId>,
    /// Entries that lie here damaged.
    pub damaged: Vec<EntryId>,
    /// What the journal holds, asked after the entries were collected.
    pub frontier: Frontier,
}

/// Whether an answer is all there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truncated {
    /// There is more.
    Yes,
    /// That is all.
    No,
}

/// What ends a session by the peer's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The first message must be a greeting, and only the first.
    #[error("greeting out of place")]
    Greeting,
    /// It acknowledged what was never sent, or went back.
    #[error("acknowledgement out of order")]
    Acknowledgement,
    /// Batches must count up by one.
    #[error("batches out of order")]
    Batch,
    /// It asks for more than it may at once.
    #[error("too many requests at once")]
    Flood,
    /// It sent an entry that is not valid, whoever made it.
    #[error("invalid entry")]
    InvalidEntry,
    /// It does not take our entries in.
    #[error("it refuses the journal")]
    Untaken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing heard yet.
    Greeting,
    /// Own unacknowledged entries stay here.
    Offering,
    /// The other's offer is in; the host writes its late entry.
    Preparing,
    /// Everything goes out at once.
    Pushing,
}

#[derive(Debug)]
struct InFlight {
    batch: u64,
    len: usize,
    ids: Vec<EntryId>,
}

/// One session with one peer.
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    effects: VecDeque<Effect>,
    theirs: Frontier,
    their_holds: Option<Frontier>,
    our_holds: Frontier,
    their_lack: u64,
    our_lack: u64,
    // Sending.
    sent: u64,
    in_flight: VecDeque<InFlight>,
    in_flight_len: usize,
    in_flight_ids: BTreeSet<EntryId>,
    acknowledged_ids: BTreeSet<EntryId>,
    untaken: BTreeMap<EntryId, usize>,
    collecting: bool,
    stale: bool,
    reach: usize,
    offered: bool,
    // Receiving.
    last_batch: u64,
    receiving: usize,
    offer_seen: bool,
    asked: BTreeMap<EntryId, u8>,
    looking_up: usize,
    probing: usize,
}

/// Requests of the peer that wait at once.
const REQUESTS_MAX: usize = 8;
/// How far the offering looks past entries that must stay, bytes.
const OFFER_REACH_MAX: usize = 16 << 20;

impl Session {
    /// Begins with our greeting.
    pub fn new(hello: Hello) -> Self {
        Self {
            phase: Phase::Greeting,
            theirs: Frontier::default(),
            effects: VecDeque::from([Effect::Send(Message::Hello(hello))]),
            their_holds: None,
            our_holds: Frontier::default(),
            their_lack: 0,
            our_lack: 0,
            sent: 0,
            in_flight: VecDeque::new(),
            in_flight_len: 0,
            in_flight_ids: BTreeSet::new(),
            acknowledged_ids: BTreeSet::new(),
            untaken: BTreeMap::new(),
            collecting: false,
            stale: true,
            reach: limits::BATCH_LEN_MAX,
            offered: false,
            last_batch: 0,
            receiving: 0,
            offer_seen: false,
            asked: BTreeMap::new(),
            looking_up: 0,
            probing: 0,
        }
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether the peer has greeted.
    pub fn is_greeted(&self) -> bool {
        self.phase != Phase::Greeting
    }

    /// Whether everything goes out at once.
    pub fn is_pushing(&self) -> bool {
        self.phase == Phase::Pushing
    }

    /// What the peer holds, as far as it said.
    pub fn theirs(&self) -> &Frontier {
        &self.theirs
    }

    /// Under which frontier the peer holds all content.
    pub fn their_holds(&self) -> Option<&Frontier> {
        self.their_holds.as_ref()
    }

    /// Content bytes the peer still wants, as it says.
    pub fn their_lack(&self) -> u64 {
        self.their_lack
    }

    /// Entry bytes sent and not acknowledged.
    pub fn in_flight_len(&self) -> usize {
        self.in_flight_len
    }

    /// Batches received and not yet taken in: the runner stops reading at
    /// [`limits::RECEIVE_QUEUE_MAX`].
    pub fn receiving(&self) -> usize {
        self.receiving
    }

    /// A message came.
    pub fn handle_message(&mut self, message: Message) -> Result<(), Violation> {
        if (self.phase == Phase::Greeting) != matches!(message, Message::Hello(_)) {
            return Err(Violation::Greeting);
        }
        match message {
            Message::Hello(hello) => {
                self.phase = Phase::Offering;
                self.theirs = hello.frontier.clone();
                self.effects.push_back(Effect::Acknowledged(hello.frontier));
                self.effects.push_back(Effect::TheirClock(hello.wall_ms));
                self.effects.push_back(Effect::TheyListen(hello.addrs));
                self.collect();
            }
            Message::Entries(Entries { batch, frontier, entries }) => {
                if batch != self.last_batch + 1 {
                    return Err(Violation::Batch);
                }
                self.last_batch = batch;
                self.receiving += 1;
                self.theirs = frontier;
                if canary::is(Canary::HaveTooEarly) {
                    let frontier = Frontier::default();
                    self.effects
                        .push_back(Effect::Send(Message::Have(Have { upto: batch, frontier })));
                }
                self.effects.push_back(Effect::Receive { batch, entries });
            }
            Message::Have(have) => self.handle_have(have)?,
            Message::Want(ids) => {
                self.looking_up += 1;
                if self.looking_up > REQUESTS_MAX {
                    return Err(Violation::Flood);
                }
                self.effects.push_back(Effect::Lookup(ids));
            }
            Message::Offered => {
                self.offer_seen = true;
                self.prepare_if_offer_is_in();
            }
            Message::Holds(frontier) => {
                self.effects.push_back(Effect::TheyHold(frontier.clone()));
                self.their_holds = Some(frontier);
            }
            Message::Addresses(list) => self.effects.push_back(Effect::OthersListen(list)),
            Message::Probe(token) => {
                self.probing += 1;
                if self.probing > REQUESTS_MAX {
                    return Err(Violation::Flood);
                }
                self.effects.push_back(Effect::Probe(token));
            }
            Message::Probed(token, frontier) => {
                self.effects.push_back(Effect::Probed { token, frontier });
            }
            Message::Lacks(bytes) => self.their_lack = bytes,
        }
        Ok(())
    }

    fn handle_have(&mut self, have: Have) -> Result<(), Violation> {
        if have.upto > self.sent {
            return Err(Violation::Acknowledgement);
        }
        while let Some(front) = self.in_flight.front()
            && front.batch <= have.upto
        {
            if let Some(done) = self.in_flight.pop_front() {
                self.in_flight_len -= done.len;
                for id in done.ids {
                    self.in_flight_ids.remove(&id);
                    self.acknowledged_ids.insert(id);
                }
            }
        }
        self.theirs = have.frontier.clone();
        self.effects.push_back(Effect::Acknowledged(have.frontier));
        self.stale = true;
        self.collect();
        Ok(())
    }

    /// The journal holds something new, by whomever.
    pub fn handle_journal_changed(&mut self) {
        self.stale = true;
        self.collect();
    }

    /// Answer to [`Effect::Receive`]; `frontier` is what the journal holds after it.
    pub fn handle_received(
        &mut self,
        batch: u64,
        received: &Received,
        frontier: Frontier,
    ) -> Result<(), Violation> {
        self.receiving = self.receiving.saturating_sub(1);
        if !canary::is(Canary::HaveTooEarly) {
            self.effects.push_back(Effect::Send(Message::Have(Have { upto: batch, frontier })));
        }
        for id in received.applied.iter().chain(&received.mended) {
            self.asked.remove(id);
        }
        self.ask(&received.wants, limits::WANT_ASKS_MAX);
        self.prepare_if_offer_is_in();
        match received.refused.iter().any(|refusal| is_fault(&refusal.why)) {
            true => Err(Violation::InvalidEntry),
            false => Ok(()),
        }
    }

    /// Asks for those of `ids` that were asked for less than `asks_max` times. Whether any was.
    fn ask(&mut self, ids: &[EntryId], asks_max: u8) -> bool {
        let mut ask = Vec::new();
        for id in ids {
            if ask.len() == limits::WANT_IDS_MAX {
                break;
            }
            if self.asked.len() >= limits::WANT_TRACKED_MAX && !self.asked.contains_key(id) {
                continue;
            }
            let times = self.asked.entry(*id).or_insert(0);
            if *times < asks_max {
                *times += 1;
                ask.push(*id);
            }
        }
        let any = !ask.is_empty();
        if any && !canary::is(Canary::WantForgotten) {
            self.effects.push_back(Effect::Send(Message::Want(ask)));
        }
        any
    }

    /// Entries lie here damaged: the peer is asked for them, once. Whether it was.
    pub fn handle_damaged(&mut self, ids: &[EntryId]) -> bool {
        self.ask(ids, 1)
    }

    fn prepare_if_offer_is_in(&mut self) {
        let early = canary::is(Canary::PreparedTooEarly);
        if self.phase == Phase::Offering && self.offer_seen && (self.receiving == 0 || early) {
            self.phase = Phase::Preparing;
            self.effects.push_back(Effect::Prepare);
        }
    }

    /// Answer to [`Effect::Prepare`].
    pub fn handle_prepared(&mut self) {
        if self.phase == Phase::Preparing {
            self.phase = Phase::Pushing;
            self.stale = true;
            self.collect();
        }
    }

    /// Answer to [`Effect::Lookup`]; those not found are left out.
    pub fn handle_found(&mut self, found: Vec<Arc<[u8]>>, frontier: Frontier) {
        self.looking_up = self.looking_up.saturating_sub(1);
        let entries: Vec<_> = found.into_iter().map(|bytes| (None, bytes)).collect();
        self.send_entries(entries, &frontier);
    }

    /// Answer to [`Effect::Probe`].
    pub fn handle_probe_answer(&mut self, token: u64, frontier: Frontier) {
        self.probing = self.probing.saturating_sub(1);
        self.effects.push_back(Effect::Send(Message::Probed(token, frontier)));
    }

    /// Asks the peer what it holds.
    pub fn probe(&mut self, token: u64) {
        self.effects.push_back(Effect::Send(Message::Probe(token)));
    }

    /// Tells the peer where others are.
    pub fn tell_addresses(&mut self, list: Vec<(DeviceId, Vec<Addr>)>) {
        if !list.is_empty() {
            self.effects.push_back(Effect::Send(Message::Addresses(list)));
        }
    }

    /// All content under `holds` is here; told only when it changed. Nothing takes back what was told.
    pub fn handle_holds(&mut self, holds: Option<Frontier>) {
        let holds = holds.unwrap_or_default();
        if self.our_holds != holds {
            self.our_holds = holds.clone();
            self.effects.push_back(Effect::Send(Message::Holds(holds)));
        }
    }

    /// Tells the peer how much content is still wanted here.
    pub fn handle_lack(&mut self, bytes: u64) {
        if bytes != self.our_lack {
            self.our_lack = bytes;
            self.effects.push_back(Effect::Send(Message::Lacks(bytes)));
        }
    }

    fn may_collect(&self) -> bool {
        match self.phase {
            Phase::Greeting | Phase::Preparing => false,
            Phase::Offering | Phase::Pushing => {
                !self.collecting && self.in_flight_len < limits::IN_FLIGHT_LEN_MAX
            }
        }
    }

    fn collect(&mut self) {
        if !self.stale || !self.may_collect() {
            return;
        }
        self.stale = false;
        self.collecting = true;
        let untaken: usize = self.untaken.values().sum();
        self.effects.push_back(Effect::Collect {
            theirs: self.theirs.clone(),
            bytes_max: self.in_flight_len + untaken + self.reach,
            hold_back: match self.phase {
                Phase::Pushing => HoldBack::Nothing,
                _ if canary::is(Canary::NothingHeldBack) => HoldBack::Nothing,
                _ => HoldBack::Unacknowledged,
            },
        });
    }

    /// Answer to [`Effect::Collect`].
    pub fn handle_collected(&mut self, collected: Collected) -> Result<(), Violation> {
        self.collecting = false;
        let Collected { entries, truncated, unacknowledged, damaged: _, frontier } = collected;
        for (id, bytes) in &entries {
            if self.acknowledged_ids.contains(id) {
                self.untaken.insert(*id, bytes.len());
            }
        }
        self.acknowledged_ids.clear();
        if truncated == Truncated::No {
            let lacking: BTreeSet<EntryId> = entries.iter().map(|(id, _)| *id).collect();
            self.untaken.retain(|id, _| lacking.contains(id));
        }
        // A full frontier does not name all that its holder has.
        let is_full = self.theirs.tips.len() >= TIPS_MAX;
        let max = if is_full { limits::UNNAMED_MAX } else { limits::UNTAKEN_MAX };
        if self.untaken.len() > max {
            return Err(Violation::Untaken);
        }
        let before = self.sent;
        let mut complete = truncated == Truncated::No;
        let mut fresh = Vec::new();
        let mut len = self.in_flight_len;
        for (id, bytes) in entries {
            if self.in_flight_ids.contains(&id)
                || self.untaken.contains_key(&id)
                || unacknowledged.contains(&id)
            {
                continue;
            }
            if len >= limits::IN_FLIGHT_LEN_MAX {
                complete = false;
                break;
            }
            len += bytes.len();
            fresh.push((Some(id), bytes));
        }
        self.send_entries(fresh, &frontier);
        if !complete {
            if self.sent > before {
                self.stale = true;
            } else if self.in_flight.is_empty() {
                // Nothing but entries that must stay within reach: look past them, up to a bound.
                if self.reach < OFFER_REACH_MAX {
                    self.reach *= 4;
                    self.stale = true;
                } else {
                    complete = true;
                }
            }
            // Else the next acknowledgement makes room and a new look.
        }
        if complete && !self.offered {
            self.offered = true;
            self.reach = limits::BATCH_LEN_MAX;
            self.effects.push_back(Effect::Send(Message::Offered));
        }
        self.collect();
        Ok(())
    }

    /// Cuts into batches; those with ids are tracked until they are acknowledged.
    fn send_entries(&mut self, entries: Vec<(Option<EntryId>, Arc<[u8]>)>, frontier: &Frontier) {
        let mut ids = Vec::new();
        let mut batch = Vec::new();
        let mut len = 0;
        for (id, bytes) in entries {
            let full = len + bytes.len() > limits::BATCH_LEN_MAX
                || batch.len() >= limits::BATCH_ENTRIES_MAX;
            if full && !batch.is_empty() {
                self.send_batch(
                    std::mem::take(&mut batch),
                    std::mem::take(&mut ids),
                    len,
                    frontier,
                );
                len = 0;
            }
            len += bytes.len();
            ids.extend(id);
            batch.push(bytes);
        }
        if !batch.is_empty() {
            self.send_batch(batch, ids, len, frontier);
        }
    }

    fn send_batch(
        &mut self,
        entries: Vec<Arc<[u8]>>,
        ids: Vec<EntryId>,
        len: usize,
        frontier: &Frontier,
    ) {
        self.sent += 1;
        self.in_flight_len += len;
        self.in_flight_ids.extend(ids.iter().copied());
        self.in_flight.push_back(InFlight { batch: self.sent, len, ids });
        self.effects.push_back(Effect::Send(Message::Entries(Entries {
            batch: self.sent,
            frontier: frontier.clone(),
            entries,
        })));
    }
}

/// Whether no honest member could have held the entry. Others are refused for what is known here so
/// far, or for want of room.
fn is_fault(why: &RefuseReason) -> bool {
    match why {
        RefuseReason::Verify(_)
        | RefuseReason::OtherDrive { .. }
        | RefuseReason::Chain
        | RefuseReason::Clock => true,
        RefuseReason::NotMember
        | RefuseReason::Parent
        | RefuseReason::Crowded
        | RefuseReason::GivenUp => false,
    }
}

/// Whether everything under `target` is under `held`, by what the tips alone say: a later entry of a
/// chain stands for the earlier ones. Of a chain that has forked only the very tips count, so the
/// answer may be a no too many, never a yes.
pub fn reached(target: &Frontier, held: &Frontier) -> bool {
    target.tips.iter().all(|tip| {
        let mut of_device = held.tips.iter().filter(|t| t.device == tip.device);
        let forked = of_device.clone().count() > 1
            || target.tips.iter().filter(|t| t.device == tip.device).count() > 1;
        of_device.any(|t| t.entry == tip.entry || (!forked && t.seq > tip.seq))
    })
}

#[cfg(test)]
mod tests;
