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
//! - tracked chunks and wanted contents are bounded by [`crate::limits`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cas::{ChunkId, Content, ContentId, MissingChunks};
use journal::id::DeviceId;

use crate::error::FetchError;
use crate::limits;

mod lanes;
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
    /// In which queue it stands, if in any.
    queued: Both<bool>,
    foreground: bool,
    needed_by: BTreeSet<ContentId>,
    tickets: BTreeSet<u64>,
}

#[derive(Debug)]
struct Wanted {
    content: Content,
    priority: Priority,
    outstanding: usize,
    /// Chunks named by the last examination.
    found: usize,
    /// Chunks that came in since.
    stored: usize,
    examining: bool,
    remaining: u64,
    fruitless: u32,
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
    /// Chunks that no connected peer has.
    parked: BTreeSet<ChunkId>,
    retry_ms: u64,
    retries: u32,
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
        let retry = (!self.parked.is_empty()).then_some(self.retry_ms);
        let full = (self.full_until_ms > 0).then_some(self.full_until_ms);
        [hedge, later, retry, full].into_iter().flatten().min()
    }

    /// These should be here.
    pub fn want(&mut self, contents: &[Content], priority: Priority, now_ms: u64) {
        for content in contents {
            if let Some(wanted) = self.wanted.get_mut(&content.id) {
                if priority < wanted.priority {
                    wanted.priority = priority;
                    self.to_examine[priority].push_back(content.id);
                }
                continue;
            }
            if self.wanted.len() >= limits::WANTED_CONTENTS_MAX {
                break;
            }
            self.wanted.insert(
                content.id,
                Wanted {
                    content: *content,
                    priority,
                    outstanding: 0,
                    found: 0,
                    stored: 0,
                    examining: false,
                    remaining: content.len,
                    fruitless: 0,
                },
            );
            self.to_examine[priority].push_back(content.id);
        }
        self.step(now_ms);
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
            let chunk = self.chunks.entry(id).or_default();
            chunk.tickets.insert(ticket);
            chunk.foreground = true;
            // Whoever waits deserves a fresh question to everybody.
            chunk.refused = 0;
            self.parked.remove(&id);
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
        for chunk in self.chunks.values_mut() {
            chunk.refused &= !bit;
        }
        self.peers.insert(peer, Peer::new(bit, distance));
        self.unpark();
        self.step(now_ms);
    }

    /// `peer` may hold what it did not hold before.
    pub fn peer_news(&mut self, peer: &DeviceId, now_ms: u64) {
        let Some(bit) = self.peers.get(peer).map(|p| p.bit) else { return };
        let parked: Vec<ChunkId> = self.parked.iter().copied().collect();
        for id in parked {
            if let Some(chunk) = self.chunks.get_mut(&id)
                && chunk.refused & bit != 0
            {
                chunk.refused &= !bit;
                self.parked.remove(&id);
                self.enqueue_again(id);
            }
        }
        self.step(now_ms);
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
        match outcome {
            Outcome::Stored(raw_len) => {
                self.retries = 0;
                self.stored(id, u64::from(raw_len));
            }
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
        let Some(chunk) = self.chunks.remove(&id) else { return };
        self.parked.remove(&id);
        if self.examining {
            self.meanwhile.insert(id);
        }
        for content in chunk.needed_by {
            if let Some(wanted) = self.wanted.get_mut(&content) {
                wanted.outstanding = wanted.outstanding.saturating_sub(1);
                wanted.stored += 1;
                wanted.fruitless = 0;
                // Something is left to fetch until an examination has found nothing missing.
                wanted.remaining = wanted.remaining.saturating_sub(raw_len).max(1);
                // Early enough that the pipe does not run dry between two examinations.
                let low = wanted.outstanding <= wanted.found / 4;
                if low && (wanted.outstanding == 0 || wanted.found >= limits::REQUEST_IDS_MAX) {
                    let priority = wanted.priority;
                    wanted.found = 0;
                    self.to_examine[priority].push_back(content);
                }
            }
        }
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

    /// Asks somebody else, unless somebody is being asked or nobody is left.
    fn enqueue_again(&mut self, id: ChunkId) {
        let everybody = self.peers.values().fold(0, |all, p| all | p.bit);
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
        } else {
            self.parked.insert(id);
        }
        let error = match self.peers.is_empty() {
            true => FetchError::NobodyConnected,
            false => FetchError::NobodyHasIt,
        };
        for ticket in tickets {
            self.answer(ticket, Err(error));
        }
    }

    fn unpark(&mut self) {
        for id in std::mem::take(&mut self.parked) {
            self.enqueue_again(id);
        }
    }

    /// Answer to [`Effect::Examine`]: contents not among `results` were not reached.
    pub fn handle_examined(
        &mut self,
        asked: &[Content],
        results: Vec<(ContentId, Option<MissingChunks>)>,
        now_ms: u64,
    ) {
        self.examining = false;
        let reached: BTreeSet<ContentId> = results.iter().map(|(id, _)| *id).collect();
        for content in asked.iter().rev() {
            if let Some(wanted) = self.wanted.get_mut(&content.id) {
                wanted.examining = false;
                if !reached.contains(&content.id) {
                    self.to_examine[wanted.priority].push_front(content.id);
                }
            }
        }
        for (id, missing) in results {
            match missing {
                Some(missing) if missing.complete => {
                    if let Some(wanted) = self.wanted.remove(&id) {
                        self.effects.push_back(Effect::Complete(wanted.content));
                    }
                }
                Some(missing) if !missing.ids.is_empty() => self.track(id, missing.ids, now_ms),
                _ => self.postpone(id, now_ms),
            }
        }
        self.step(now_ms);
    }

    fn track(&mut self, content: ContentId, ids: Vec<ChunkId>, now_ms: u64) {
        let Some(wanted) = self.wanted.get_mut(&content) else { return };
        if wanted.fruitless > 0 && wanted.stored == 0 && wanted.outstanding == 0 {
            // The store forgot what it had kept: not something to repeat at full speed.
            self.postpone(content, now_ms);
            return;
        }
        wanted.fruitless += 1;
        wanted.stored = 0;
        wanted.found = ids.len();
        let priority = wanted.priority;
        let mut fresh = Vec::new();
        for id in ids {
            if self.meanwhile.contains(&id) {
                continue;
            }
            let chunk = self.chunks.entry(id).or_default();
            let first = chunk.needed_by.insert(content);
            wanted.outstanding += usize::from(first);
            let raised = priority == Priority::Foreground && !chunk.foreground;
            chunk.foreground |= raised;
            let asked = chunk.asked[priority] != 0
                || (priority == Priority::Background && chunk.asked != Both::default());
            if (first || raised) && !asked && !self.parked.contains(&id) {
                fresh.push(id);
            }
        }
        if wanted.outstanding == 0 {
            // Everything found missing has come in since.
            wanted.stored = 1;
            self.to_examine[priority].push_back(content);
        }
        for id in fresh {
            self.enqueue(id, priority);
        }
    }

    fn postpone(&mut self, content: ContentId, now_ms: u64) {
        if let Some(wanted) = self.wanted.get_mut(&content) {
            let wait = backoff_ms(wanted.fruitless);
            wanted.fruitless += 1;
            wanted.stored = 1;
            self.later.insert((now_ms + wait, content));
        }
    }

    /// Time has passed.
    pub fn handle_time(&mut self, now_ms: u64) {
        while let Some((at, content)) = self.later.first().copied()
            && at <= now_ms
        {
            self.later.pop_first();
            if let Some(wanted) = self.wanted.get(&content) {
                self.to_examine[wanted.priority].push_back(content);
            }
        }
        if !self.parked.is_empty() && self.retry_ms <= now_ms {
            self.retries = self.retries.saturating_add(1);
            self.retry_ms = now_ms + backoff_ms(self.retries);
            for id in std::mem::take(&mut self.parked) {
                if let Some(chunk) = self.chunks.get_mut(&id) {
                    chunk.refused = 0;
                }
                self.enqueue_again(id);
            }
        }
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
        self.examine();
        let mut order: Vec<(u64, u64, DeviceId)> =
            self.peers.iter().map(|(id, peer)| (peer.load(), peer.distance, *id)).collect();
        order.sort_unstable();
        for lane in [Priority::Foreground, Priority::Background] {
            for (_, _, peer) in &order {
                while self.ask(*peer, lane, now_ms) {}
            }
        }
        if !self.parked.is_empty() && self.retry_ms <= now_ms {
            self.retry_ms = now_ms + backoff_ms(self.retries);
        }
    }

    fn examine(&mut self) {
        if self.examining {
            return;
        }
        // Somebody waits for the foreground; it may go over the bound by one examination.
        let room = self.chunks.len() < limits::TRACKED_CHUNKS_MAX;
        let Both { foreground, background } = &mut self.to_examine;
        let queues = [Some(foreground), room.then_some(background)];
        let mut contents = Vec::new();
        for queue in queues.into_iter().flatten() {
            while contents.len() < limits::EXAMINE_CONTENTS_MAX
                && let Some(id) = queue.pop_front()
            {
                if let Some(wanted) = self.wanted.get_mut(&id)
                    && !wanted.examining
                {
                    wanted.examining = true;
                    contents.push(wanted.content);
                }
            }
        }
        if !contents.is_empty() {
            self.examining = true;
            self.meanwhile.clear();
            self.effects.push_back(Effect::Examine(contents));
        }
    }

    /// Sends one request to `peer` if its window has room; true if it did.
    fn ask(&mut self, peer: DeviceId, lane: Priority, now_ms: u64) -> bool {
        let Some(known) = self.peers.get_mut(&peer) else { return false };
        let bit = known.bit;
        let room = known.lane(lane).room();
        if room == 0 {
            return false;
        }
        let queue = &mut self.queues[lane];
        let mut ids = Vec::new();
        let mut passed = Vec::new();
        while ids.len() < room
            && passed.len() < SCAN_MAX
            && let Some(id) = queue.pop_front()
        {
            let Some(chunk) = self.chunks.get_mut(&id) else { continue };
            let asked = chunk.asked.foreground | chunk.asked.background;
            // Background: one peer at a time. Foreground: not twice of one peer's foreground lane.
            let busy = match lane {
                Priority::Background => asked != 0,
                Priority::Foreground => false,
            };
            if busy {
                chunk.queued[lane] = false;
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
