//! Which chunk is asked of whom: a scheduler over all connected peers, as a state machine.
//!
//! Leaves out: sockets and disks (`transfer` carries the effects out), what should be wanted
//! (the host), and time: `now_ms` is an argument.
//!
//! A wanted content is examined (what does the store lack of it, manifests first), its chunks are
//! asked for in bulk, and when they are in it is examined again, until nothing is missing. So a cut
//! transfer resumes with what is lacking then, and ten thousand small files cost as many ids, not as
//! many round trips.
//!
//! Invariants:
//! - answers on a lane come in the order of its requests; an answer to nothing is a violation;
//! - a chunk is asked of one peer at a time, but a foreground chunk may be asked of a second one: when
//!   it is late, or when it was only waiting in somebody's background lane;
//! - foreground requests never stand behind background ones;
//! - a peer that said "missing" is not asked again for that chunk until it has news, or a bounded wait
//!   is over;
//! - a chunk that waits in a queue waits for a peer that is connected and has not said "missing", or for
//!   anybody to connect; what everybody lacks is parked and told as out of reach;
//! - tracked chunks and wanted contents are bounded by [`crate::limits`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cas::{ChunkId, Content, ContentId};
use journal::id::DeviceId;

use crate::error::FetchError;
use crate::limits;

mod contents;
mod lanes;
use contents::Wanted;
use lanes::{Both, Peer};

/// How urgent something is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Priority {
    /// Somebody waits for it.
    Foreground,
    /// It should be here some day.
    Background,
}

/// What the runner must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Ask `peer` for these, in this order.
    Request {
        /// Whom.
        peer: DeviceId,
        /// On which of its streams.
        lane: Priority,
        /// Which.
        ids: Vec<ChunkId>,
    },
    /// Find out what these lack, at most [`limits::EXAMINE_IDS_MAX`] ids together.
    Examine(Vec<Content>),
    /// Nothing of it is missing any more.
    Complete(Content),
    /// Everybody who is connected has said that something of it is missing.
    OutOfReach(Content),
    /// That may have changed: somebody has come or has news.
    WithinReach(Content),
    /// `peer` sent something that is not what it was asked for.
    Strike(DeviceId),
    /// The store has no room; fetching pauses.
    Full,
    /// The end of a [`Scheduler::fetch`].
    Answer {
        /// As returned.
        ticket: u64,
        /// How it went.
        result: Result<(), FetchError>,
    },
}

/// What became of one requested chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the store; so many raw bytes.
    Stored(u32),
    /// The peer does not have it.
    Missing,
    /// What the peer sent is not it.
    Corrupt,
    /// No room for it.
    Full,
    /// The store failed.
    Failed,
}

#[derive(Debug, Default)]
struct Chunk {
    /// Slots of peers that said they do not have it.
    refused: u64,
    /// Slots of peers that were asked and have not answered, by lane.
    asked: Both<u64>,
    /// Slots of peers that had news since they were asked: that they do not have it may be said from before.
    doubted: u64,
    /// In which queue it stands, if in any.
    queued: Both<bool>,
    /// Nobody who is connected has it.
    parked: bool,
    foreground: bool,
    needed_by: BTreeSet<ContentId>,
    tickets: BTreeSet<u64>,
}

#[derive(Debug)]
struct Ticket {
    left: usize,
}

/// See the module's words.
#[derive(Debug, Default)]
pub struct Scheduler {
    peers: BTreeMap<DeviceId, Peer>,
    chunks: BTreeMap<ChunkId, Chunk>,
    queues: Both<VecDeque<ChunkId>>,
    wanted: BTreeMap<ContentId, Wanted>,
    to_examine: Both<VecDeque<ContentId>>,
    examining: bool,
    /// Came in while an examination ran, which may have found them missing still.
    meanwhile: BTreeSet<ChunkId>,
    /// Contents whose turn comes again at a time.
    later: BTreeSet<(u64, ContentId)>,
    /// Contents of which every tracked chunk may be parked, until the next step.
    idle: Vec<ContentId>,
    /// Contents that the host was told nobody has.
    out_of_reach: BTreeSet<ContentId>,
    full_until_ms: u64,
    tickets: BTreeMap<u64, Ticket>,
    next_ticket: u64,
    effects: VecDeque<Effect>,
}

impl Scheduler {
    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Content bytes still wanted, an estimate from above.
    pub fn remaining(&self) -> u64 {
        self.wanted.values().fold(0, |sum, w| sum.saturating_add(w.remaining))
    }

    /// Contents wanted.
    pub fn wanted(&self) -> usize {
        self.wanted.len()
    }

    /// When [`Self::handle_time`] should be called, if ever.
    pub fn next_ms(&self) -> Option<u64> {
        let hedge = self.peers.values().filter_map(Peer::oldest_foreground_ms).min();
        let hedge = hedge.map(|at| at + limits::HEDGE_TIME.as_millis() as u64);
        let later = self.later.first().map(|(at, _)| *at);
        let full = (self.full_until_ms > 0).then_some(self.full_until_ms);
        [hedge, later, full].into_iter().flatten().min()
    }

    /// Somebody waits for these chunks; the result comes as [`Effect::Answer`].
    pub fn fetch(&mut self, ids: &[ChunkId], now_ms: u64) -> u64 {
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        let ids: BTreeSet<ChunkId> = ids.iter().copied().collect();
        if ids.is_empty() {
            self.effects.push_back(Effect::Answer { ticket, result: Ok(()) });
            return ticket;
        }
        if self.peers.is_empty() {
            let result = Err(FetchError::NobodyConnected);
            self.effects.push_back(Effect::Answer { ticket, result });
            return ticket;
        }
        self.tickets.insert(ticket, Ticket { left: ids.len() });
        for id in ids {
            self.unpark(id);
            let chunk = self.chunks.entry(id).or_default();
            chunk.tickets.insert(ticket);
            chunk.foreground = true;
            // Whoever waits deserves a fresh question to everybody.
            chunk.refused = 0;
            self.enqueue(id, Priority::Foreground);
        }
        self.step(now_ms);
        ticket
    }

    /// Nobody waits for the ticket any more.
    pub fn forget(&mut self, ticket: u64) {
        self.tickets.remove(&ticket);
    }

    /// `peer` can be asked from now on; nearer peers (smaller `distance`) are asked first.
    pub fn peer_up(&mut self, peer: DeviceId, distance: u64, now_ms: u64) {
        self.peer_down(&peer, now_ms);
        let taken: u64 = self.peers.values().map(|p| p.bit).fold(0, |all, bit| all | bit);
        // Beyond 64 peers at once the others serve nothing; the journal still flows to all.
        let Some(slot) = (0..u64::BITS).find(|slot| taken & (1 << slot) == 0) else { return };
        let bit = 1u64 << slot;
        self.peers.insert(peer, Peer::new(bit, distance));
        self.may_have_more(bit);
        self.step(now_ms);
    }

    /// `peer` may hold what it did not hold before.
    pub fn peer_news(&mut self, peer: &DeviceId, now_ms: u64) {
        if let Some(bit) = self.peers.get(peer).map(|p| p.bit) {
            self.may_have_more(bit);
            self.step(now_ms);
        }
    }

    /// What the peer in this slot said is missing counts no more.
    fn may_have_more(&mut self, bit: u64) {
        let mut parked = Vec::new();
        for (id, chunk) in &mut self.chunks {
            chunk.refused &= !bit;
            chunk.doubted |= bit & (chunk.asked.foreground | chunk.asked.background);
            if chunk.parked {
                parked.push(*id);
            }
        }
        for id in parked {
            self.unpark(id);
            self.enqueue_again(id);
        }
        self.look_again();
    }

    /// `peer` is gone; what it owed is asked of others.
    pub fn peer_down(&mut self, peer: &DeviceId, now_ms: u64) {
        let Some(mut gone) = self.peers.remove(peer) else { return };
        for lane in [Priority::Foreground, Priority::Background] {
            for id in gone.lane(lane).take_all() {
                self.lost(id, gone.bit, lane);
            }
        }
        if self.peers.is_empty() {
            let tickets: Vec<u64> = self.tickets.keys().copied().collect();
            for ticket in tickets {
                self.answer(ticket, Err(FetchError::NobodyConnected));
            }
        }
        self.step(now_ms);
    }

    /// One of `peer`'s streams broke; its other may live on.
    pub fn lane_lost(&mut self, peer: &DeviceId, lane: Priority, now_ms: u64) {
        let Some((bit, ids)) = self.peers.get_mut(peer).map(|p| (p.bit, p.lane(lane).take_all()))
        else {
            return;
        };
        for id in ids {
            self.lost(id, bit, lane);
        }
        self.step(now_ms);
    }

    /// Outcomes of the oldest requests of a lane, in order. False when more were given than were asked.
    pub fn handle_outcomes(
        &mut self,
        peer: &DeviceId,
        lane: Priority,
        outcomes: &[(ChunkId, Outcome)],
        now_ms: u64,
    ) -> bool {
        let mut in_order = true;
        for (id, outcome) in outcomes {
            let Some(known) = self.peers.get_mut(peer) else { return true };
            if !known.lane(lane).answered(id, *outcome, now_ms) {
                in_order = false;
                break;
            }
            let bit = known.bit;
            self.handle_outcome(peer, bit, lane, *id, *outcome, now_ms);
        }
        self.step(now_ms);
        in_order
    }

    fn handle_outcome(
        &mut self,
        peer: &DeviceId,
        bit: u64,
        lane: Priority,
        id: ChunkId,
        outcome: Outcome,
        now_ms: u64,
    ) {
        let Some(chunk) = self.chunks.get_mut(&id) else { return };
        chunk.asked[lane] &= !bit;
        let doubted = chunk.doubted & bit != 0;
        chunk.doubted &= !bit;
        match outcome {
            Outcome::Stored(raw_len) => self.stored(id, u64::from(raw_len)),
            Outcome::Missing if doubted => self.enqueue_again(id),
            Outcome::Missing | Outcome::Corrupt => {
                chunk.refused |= bit;
                if outcome == Outcome::Corrupt {
                    self.effects.push_back(Effect::Strike(*peer));
                }
                self.enqueue_again(id);
            }
            Outcome::Full | Outcome::Failed => {
                if self.full_until_ms <= now_ms {
                    self.full_until_ms = now_ms + limits::FULL_RETRY.as_millis() as u64;
                    self.effects.push_back(Effect::Full);
                }
                let tickets = std::mem::take(&mut chunk.tickets);
                self.enqueue_again(id);
                for ticket in tickets {
                    self.answer(ticket, Err(FetchError::Full));
                }
            }
        }
    }

    /// The chunk is here: whoever needs it learns of it.
    fn stored(&mut self, id: ChunkId, raw_len: u64) {
        self.unpark(id);
        let Some(chunk) = self.chunks.remove(&id) else { return };
        if self.examining {
            self.meanwhile.insert(id);
        }
        self.came_in(id, raw_len, chunk.needed_by);
        for ticket in chunk.tickets {
            let done = self.tickets.get_mut(&ticket).is_some_and(|t| {
                t.left = t.left.saturating_sub(1);
                t.left == 0
            });
            if done {
                self.answer(ticket, Ok(()));
            }
        }
    }

    fn lost(&mut self, id: ChunkId, bit: u64, lane: Priority) {
        if let Some(chunk) = self.chunks.get_mut(&id) {
            chunk.asked[lane] &= !bit;
            chunk.doubted &= !bit;
            self.enqueue_again(id);
        }
    }

    fn answer(&mut self, ticket: u64, result: Result<(), FetchError>) {
        if self.tickets.remove(&ticket).is_some() {
            self.effects.push_back(Effect::Answer { ticket, result });
        }
    }

    fn enqueue(&mut self, id: ChunkId, priority: Priority) {
        if let Some(chunk) = self.chunks.get_mut(&id)
            && !chunk.queued[priority]
        {
            chunk.queued[priority] = true;
            self.queues[priority].push_back(id);
        }
    }

    /// The slots of all who are connected.
    fn everybody(&self) -> u64 {
        self.peers.values().fold(0, |all, p| all | p.bit)
    }

    /// Asks somebody else, unless somebody is being asked or nobody is left.
    fn enqueue_again(&mut self, id: ChunkId) {
        let everybody = self.everybody();
        let Some(chunk) = self.chunks.get_mut(&id) else { return };
        if chunk.asked != Both::default() {
            return;
        }
        if chunk.needed_by.is_empty() && chunk.tickets.is_empty() {
            self.chunks.remove(&id);
            return;
        }
        if everybody & !chunk.refused != 0 {
            let priority = match chunk.foreground {
                true => Priority::Foreground,
                false => Priority::Background,
            };
            self.enqueue(id, priority);
            return;
        }
        let tickets = std::mem::take(&mut chunk.tickets);
        // Foreground was for those who waited; they get their answer now.
        chunk.foreground = false;
        if chunk.needed_by.is_empty() {
            self.chunks.remove(&id);
        } else if everybody == 0 {
            self.enqueue(id, Priority::Background);
        } else {
            self.park(id);
        }
        let error = match self.peers.is_empty() {
            true => FetchError::NobodyConnected,
            false => FetchError::NobodyHasIt,
        };
        for ticket in tickets {
            self.answer(ticket, Err(error));
        }
    }

    /// Time has passed.
    pub fn handle_time(&mut self, now_ms: u64) {
        self.take_due(now_ms);
        if self.full_until_ms > 0 && self.full_until_ms <= now_ms {
            self.full_until_ms = 0;
        }
        self.hedge(now_ms);
        self.step(now_ms);
    }

    /// Foreground chunks that are late may be asked of a second peer.
    fn hedge(&mut self, now_ms: u64) {
        let before = now_ms.saturating_sub(limits::HEDGE_TIME.as_millis() as u64);
        let late: Vec<ChunkId> =
            self.peers.values_mut().flat_map(|peer| peer.take_late(before, now_ms)).collect();
        for id in late {
            self.enqueue(id, Priority::Foreground);
        }
    }

    /// Examines and asks as far as bounds allow.
    fn step(&mut self, now_ms: u64) {
        if self.full_until_ms > now_ms {
            return;
        }
        let mut order: Vec<(u64, u64, DeviceId)> =
            self.peers.iter().map(|(id, peer)| (peer.load(), peer.distance, *id)).collect();
        order.sort_unstable();
        for lane in [Priority::Foreground, Priority::Background] {
            for (_, _, peer) in &order {
                while self.ask(*peer, lane, now_ms) {}
            }
        }
        self.set_idle_aside(now_ms);
        self.examine();
    }

    /// Sends one request to `peer` if its window has room; true if it did.
    fn ask(&mut self, peer: DeviceId, lane: Priority, now_ms: u64) -> bool {
        let Some(known) = self.peers.get_mut(&peer) else { return false };
        let bit = known.bit;
        let room = known.lane(lane).room();
        if room == 0 {
            return false;
        }
        let everybody = self.everybody();
        let queue = &mut self.queues[lane];
        let mut ids = Vec::new();
        let mut passed = Vec::new();
        let mut lacked = Vec::new();
        while ids.len() < room
            && passed.len() < SCAN_MAX
            && let Some(id) = queue.pop_front()
        {
            // It may have come and be wanted anew since it was put here: then it stands here twice and counts once.
            let Some(chunk) = self.chunks.get_mut(&id).filter(|chunk| chunk.queued[lane]) else {
                continue;
            };
            let asked = chunk.asked.foreground | chunk.asked.background;
            // Background: one peer at a time. Foreground: not twice of one peer's foreground lane.
            let busy = match lane {
                Priority::Background => asked != 0,
                Priority::Foreground => false,
            };
            if busy {
                chunk.queued[lane] = false;
            } else if asked == 0 && everybody & !chunk.refused == 0 {
                // It waited for somebody who has left.
                chunk.queued[lane] = false;
                lacked.push(id);
            } else if chunk.refused & bit != 0 || chunk.asked[lane] & bit != 0 {
                passed.push(id);
            } else {
                chunk.queued[lane] = false;
                chunk.asked[lane] |= bit;
                ids.push(id);
            }
        }
        for id in passed.into_iter().rev() {
            queue.push_front(id);
        }
        for id in lacked {
            self.enqueue_again(id);
        }
        if ids.is_empty() {
            return false;
        }
        if let Some(known) = self.peers.get_mut(&peer) {
            known.lane(lane).asked(&ids, now_ms);
        }
        self.effects.push_back(Effect::Request { peer, lane, ids });
        true
    }
}

/// Queued chunks looked at that a peer cannot be asked for, before it is given up for now.
const SCAN_MAX: usize = 2048;

fn backoff_ms(times: u32) -> u64 {
    limits::RETRY_MIN
        .saturating_mul(1u32.checked_shl(times.min(16)).unwrap_or(u32::MAX))
        .min(limits::RETRY_MAX)
        .as_millis() as u64
}

#[cfg(test)]
mod tests;
