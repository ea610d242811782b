//! Seeded runs of the scheduler in virtual time: peers that are slow, silent, lying, leaving; wants that change.
//!
//! Leaves out: streams. What the shell around the scheduler does (a silent lane is given up, a peer that breaks the
//! protocol three times is let go) is done here the same way.
//!
//! Checked at every step: requests go to who is connected and within the window; a chunk is asked of two peers at once
//! only with a reason; nothing that somebody waits for stands in a queue while some peer could be asked; memory is
//! bounded; a content is complete only when it is. And once the faults stop: what a connected honest peer holds comes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use cas::MissingChunks;

use super::super::*;
use crate::testing::Rng;

const SEEDS: u64 = 200;
/// Chaos lasts that long, and what can come must have come this long after it.
const CHAOS_MS: u64 = 120_000;
const CALM_MS: u64 = 400_000;
const CONTENTS: u32 = 40;
const CHUNKS: usize = 700;

fn device(n: usize) -> DeviceId {
    DeviceId::from_bytes([n as u8 + 1; 32])
}

fn chunk(n: usize) -> ChunkId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(n as u64).to_be_bytes());
    ChunkId::from_bytes(id)
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Nature {
    Honest,
    Slow,
    /// Stops answering now and then.
    Silent,
    /// Sends wrong bytes, or says "missing" of what it has.
    Liar,
    /// Answers what it was not asked.
    Babbler,
}

struct Them {
    nature: Nature,
    holds: BTreeSet<ChunkId>,
    up: bool,
    /// Counts its connections.
    epoch: u64,
    owed: Both<VecDeque<Question>>,
    /// An answer of this lane is on its way.
    answering: Both<bool>,
    strikes: u32,
    let_go: bool,
}

#[derive(Clone, Copy)]
struct Question {
    id: ChunkId,
    asked_ms: u64,
    /// Since when it waits, seen from the peer's last sign of life.
    since_ms: u64,
    /// Came from elsewhere meanwhile.
    moot: bool,
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Event {
    Answer { peer: usize, epoch: u64, lane: Priority },
    Silence { peer: usize, epoch: u64, lane: Priority },
    Examined { asked: Vec<ContentId> },
    Return { peer: usize },
    Trouble,
}

struct Run {
    seed: u64,
    rng: Rng,
    scheduler: Scheduler,
    now_ms: u64,
    turn: u64,
    due: BinaryHeap<Reverse<(u64, u64, Event)>>,
    peers: Vec<Them>,
    parts: BTreeMap<ContentId, Vec<ChunkId>>,
    here: BTreeSet<ChunkId>,
    wanted: BTreeSet<ContentId>,
    /// When somebody last began to wait for a chunk.
    raised: BTreeMap<ChunkId, u64>,
    /// Chunks that were waited for too long.
    late: BTreeSet<ChunkId>,
    tickets: BTreeSet<u64>,
    calm: bool,
    counts: Counts,
}

/// What came about, over all seeds: a run that meets nothing shows nothing.
#[derive(Default, Debug)]
struct Counts {
    hedged: usize,
    corrupt: usize,
    lied: usize,
    let_go: usize,
    silent: usize,
    left: usize,
    full: usize,
    out_of_reach: usize,
    complete: usize,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let natures = [Nature::Slow, Nature::Silent, Nature::Liar, Nature::Babbler];
        let peers = (0..2 + rng.below(7)).map(|n| {
            // One at least is honest.
            let nature = match n == 0 || rng.below(3) == 0 {
                true => Nature::Honest,
                false => natures[rng.below(natures.len())],
            };
            let share = 1 + rng.below(10);
            let holds = (0..CHUNKS).filter(|_| rng.below(10) < share).map(chunk).collect();
            let (owed, answering) = (Both::<VecDeque<_>>::default(), Both::default());
            let (up, epoch, strikes, let_go) = (false, 0, 0, false);
            Them { nature, holds, up, epoch, owed, answering, strikes, let_go }
        });
        let peers = peers.collect();
        let mut parts = BTreeMap::new();
        for n in 0..CONTENTS {
            // Some share chunks, one is larger than a whole examination's first request.
            let (first, count) = (rng.below(CHUNKS), 1 + rng.below(if n == 0 { 600 } else { 40 }));
            let ids = (first..first + count).map(|n| chunk(n % CHUNKS)).collect();
            let id = ContentId::chunk(chunk(1_000_000 + n as usize));
            parts.insert(id, ids);
        }
        let (scheduler, due) = (Scheduler::default(), BinaryHeap::new());
        let (here, wanted, raised, late) = Default::default();
        let (now_ms, turn, calm, tickets) = (1, 0, false, BTreeSet::new());
        let counts = Counts::default();
        Self {
            seed,
            rng,
            scheduler,
            now_ms,
            turn,
            due,
            peers,
            parts,
            here,
            wanted,
            raised,
            late,
            tickets,
            calm,
            counts,
        }
    }

    fn after(&mut self, delay_ms: u64, event: Event) {
        self.turn += 1;
        self.due.push(Reverse((self.now_ms + delay_ms, self.turn, event)));
    }

    fn content(&self, id: ContentId) -> Content {
        Content { id, len: 100 * self.parts[&id].len() as u64 }
    }

    fn is_complete(&self, id: &ContentId) -> bool {
        self.parts[id].iter().all(|id| self.here.contains(id))
    }

    fn connect(&mut self, peer: usize) {
        self.disconnect(peer);
        if self.peers[peer].let_go && !self.calm {
            return;
        }
        self.peers[peer].up = true;
        self.peers[peer].epoch += 1;
        let distance = self.rng.below(1000) as u64;
        self.scheduler.peer_up(device(peer), distance, self.now_ms);
        self.carry_out();
    }

    fn disconnect(&mut self, peer: usize) {
        let them = &mut self.peers[peer];
        them.up = false;
        them.epoch += 1;
        (them.owed, them.answering) = (Both::default(), Both::default());
        self.scheduler.peer_down(&device(peer), self.now_ms);
        self.carry_out();
    }

    fn strike(&mut self, peer: usize) {
        self.peers[peer].strikes += 1;
        if self.peers[peer].strikes.is_multiple_of(limits::STRIKES_MAX) {
            self.counts.let_go += 1;
            self.peers[peer].let_go = true;
            self.disconnect(peer);
            let doubled = self.peers[peer].strikes / limits::STRIKES_MAX;
            self.after(10_000 << doubled.min(6), Event::Return { peer });
        }
    }

    fn carry_out(&mut self) {
        let mut struck = Vec::new();
        while let Some(effect) = self.scheduler.poll_effect() {
            match effect {
                Effect::Request { peer, lane, ids } => self.requested(peer, lane, ids),
                Effect::Examine(contents) => {
                    assert!(contents.len() <= 2 * limits::EXAMINE_CONTENTS_MAX);
                    let asked = contents.iter().map(|content| content.id).collect();
                    let delay = self.rng.below(50) as u64;
                    self.after(delay, Event::Examined { asked });
                }
                Effect::Complete(content) => {
                    assert!(self.is_complete(&content.id), "seed {}: not complete", self.seed);
                    assert!(self.wanted.remove(&content.id), "seed {}: complete twice", self.seed);
                    self.counts.complete += 1;
                }
                Effect::OutOfReach(_) => self.counts.out_of_reach += 1,
                Effect::WithinReach(_) => {}
                Effect::Strike(peer) => struck.push(usize::from(peer.as_bytes()[0]) - 1),
                Effect::Full => self.counts.full += 1,
                Effect::Answer { ticket, .. } => {
                    assert!(self.tickets.remove(&ticket), "seed {}: answered twice", self.seed);
                }
            }
        }
        self.check();
        struck.into_iter().for_each(|peer| self.strike(peer));
    }

    fn requested(&mut self, peer: DeviceId, lane: Priority, ids: Vec<ChunkId>) {
        let (seed, now_ms) = (self.seed, self.now_ms);
        let peer = usize::from(peer.as_bytes()[0]) - 1;
        assert!(self.peers[peer].up, "seed {seed}: asked of one who is gone");
        assert!(!ids.is_empty() && ids.len() <= limits::REQUEST_IDS_MAX);
        for id in &ids {
            let raised = self.raised.get(id).copied().unwrap_or_default();
            for (other, them) in self.peers.iter().enumerate() {
                let waits = |owed: &VecDeque<Question>| {
                    let question =
                        owed.iter().find(|question| question.id == *id && !question.moot);
                    question.map(|question| question.asked_ms)
                };
                let (fore, back) = (waits(&them.owed.foreground), waits(&them.owed.background));
                let reason = match lane {
                    Priority::Background => fore.is_none() && back.is_none(),
                    // Behind a background lane nobody waits; else it is late, or somebody else began to wait.
                    Priority::Foreground => fore.is_none_or(|asked_ms| {
                        other != peer && (self.late.contains(id) || raised >= asked_ms)
                    }),
                };
                assert!(reason, "seed {seed}: asked of {peer} while {other} is asked ({lane:?})");
                self.counts.hedged += usize::from(fore.is_some());
            }
        }
        let them = &mut self.peers[peer];
        let epoch = them.epoch;
        let (asked_ms, since_ms, moot) = (now_ms, now_ms, false);
        let questions = ids.into_iter().map(|id| Question { id, asked_ms, since_ms, moot });
        them.owed[lane].extend(questions);
        assert!(them.owed[lane].len() <= limits::WINDOW_IDS_MAX, "seed {seed}: over the window");
        if !them.answering[lane] {
            self.answer_later(peer, epoch, lane);
        }
    }

    fn answer_later(&mut self, peer: usize, epoch: u64, lane: Priority) {
        let nature = self.peers[peer].nature;
        let silent = nature == Nature::Silent && !self.calm && self.rng.below(20) == 0;
        self.peers[peer].answering[lane] = true;
        if silent {
            self.counts.silent += 1;
            let time = limits::CHUNK_SILENCE_TIME.as_millis() as u64;
            self.after(time, Event::Silence { peer, epoch, lane });
            return;
        }
        let most = if nature == Nature::Slow { 4000 } else { 40 };
        let delay = self.rng.below(most) as u64;
        self.after(delay, Event::Answer { peer, epoch, lane });
    }

    fn answer(&mut self, peer: usize, epoch: u64, lane: Priority) {
        if self.peers[peer].epoch != epoch {
            return;
        }
        self.peers[peer].answering[lane] = false;
        // Several answers come at once.
        let mut outcomes = Vec::new();
        for _ in 0..1 + self.rng.below(20) {
            let Some(question) = self.peers[peer].owed[lane].pop_front() else { break };
            let holds = self.peers[peer].holds.contains(&question.id);
            let outcome = match (self.peers[peer].nature, self.rng.below(10)) {
                (Nature::Liar, 0) => Outcome::Corrupt,
                (Nature::Liar, 1..4) if holds => {
                    self.counts.lied += 1;
                    Outcome::Missing
                }
                _ if !holds => Outcome::Missing,
                _ if !self.calm && self.rng.below(500) == 0 => Outcome::Full,
                _ => Outcome::Stored(100),
            };
            self.counts.corrupt += usize::from(outcome == Outcome::Corrupt);
            if matches!(outcome, Outcome::Stored(_)) {
                self.stored(question.id);
            }
            outcomes.push((question.id, outcome));
        }
        if let Some(next) = self.peers[peer].owed[lane].front_mut() {
            next.since_ms = self.now_ms;
        }
        let babbles = self.peers[peer].nature == Nature::Babbler && self.rng.below(20) == 0;
        if babbles {
            outcomes.push((chunk(5_000_000), Outcome::Stored(1)));
        }
        if !self.peers[peer].owed[lane].is_empty() {
            self.answer_later(peer, epoch, lane);
        }
        let in_order = self.scheduler.handle_outcomes(&device(peer), lane, &outcomes, self.now_ms);
        assert_eq!(in_order, !babbles, "seed {}", self.seed);
        self.carry_out();
        if !in_order && self.peers[peer].epoch == epoch {
            // The stream breaks, and that counts against it.
            self.give_lane_up(peer, lane);
            self.strike(peer);
        }
    }

    /// A chunk is here; whoever is asked for it still is asked in vain.
    fn stored(&mut self, id: ChunkId) {
        self.here.insert(id);
        self.late.remove(&id);
        for them in &mut self.peers {
            for lane in [Priority::Foreground, Priority::Background] {
                let same = them.owed[lane].iter_mut().filter(|question| question.id == id);
                same.for_each(|question| question.moot = true);
            }
        }
    }

    /// Time passes: what waits behind a peer that has given no sign of life for too long is late.
    fn time(&mut self) {
        let patience = limits::HEDGE_TIME.as_millis() as u64;
        for them in &mut self.peers {
            let lane = &mut them.owed.foreground;
            if lane.front().is_some_and(|first| first.since_ms + patience <= self.now_ms) {
                lane.iter_mut().for_each(|question| question.since_ms = self.now_ms);
                self.late.extend(lane.iter().map(|question| question.id));
            }
        }
        self.scheduler.handle_time(self.now_ms);
        self.carry_out();
    }

    fn give_lane_up(&mut self, peer: usize, lane: Priority) {
        self.peers[peer].owed[lane].clear();
        self.peers[peer].answering[lane] = false;
        // What was to come on it does not.
        let kept: Vec<_> = std::mem::take(&mut self.due).into_vec();
        self.due = kept
            .into_iter()
            .filter(|Reverse((_, _, event))| {
                !matches!(event,
                Event::Answer { peer: p, lane: l, .. } | Event::Silence { peer: p, lane: l, .. }
                    if *p == peer && *l == lane)
            })
            .collect();
        self.scheduler.lane_lost(&device(peer), lane, self.now_ms);
        self.carry_out();
    }

    fn examined(&mut self, asked: Vec<ContentId>) {
        let contents: Vec<Content> = asked.iter().map(|id| self.content(*id)).collect();
        let mut left = limits::EXAMINE_IDS_MAX;
        let mut results = Vec::new();
        for id in &asked {
            if left == 0 || (!self.calm && self.rng.below(50) == 0) {
                break;
            }
            if !self.calm && self.rng.below(50) == 0 {
                results.push((*id, None));
                continue;
            }
            let lacks = self.parts[id].iter().filter(|id| !self.here.contains(id));
            let ids: Vec<ChunkId> = lacks.take(left).copied().collect();
            left -= ids.len();
            results.push((*id, Some(MissingChunks { complete: ids.is_empty(), ids })));
        }
        self.scheduler.handle_examined(&contents, results, self.now_ms);
        self.carry_out();
    }

    fn trouble(&mut self) {
        let peer = self.rng.below(self.peers.len());
        let some: Vec<ContentId> = self.parts.keys().copied().collect();
        let content = some[self.rng.below(some.len())];
        match self.rng.below(12) {
            0 | 1 => {
                self.counts.left += usize::from(self.peers[peer].up);
                self.disconnect(peer);
            }
            2..5 => self.connect(peer),
            5 => {
                let more = chunk(self.rng.below(CHUNKS));
                self.peers[peer].holds.insert(more);
                self.scheduler.peer_news(&device(peer), self.now_ms);
            }
            6 | 7 => self.want(content, Priority::Background),
            8 => self.want(content, Priority::Foreground),
            9 => {
                self.wanted.remove(&content);
                self.scheduler.unwant(&[content], self.now_ms);
            }
            10 => {
                let lost: Vec<ChunkId> =
                    self.here.iter().filter(|_| self.rng.below(50) == 0).copied().collect();
                // The store has let go of some that are wanted by nothing.
                for id in lost {
                    let needed = self.wanted.iter().any(|c| self.parts[c].contains(&id));
                    if !needed {
                        self.here.remove(&id);
                    }
                }
            }
            _ => {
                let ids: Vec<ChunkId> =
                    (0..1 + self.rng.below(5)).map(|_| chunk(self.rng.below(CHUNKS))).collect();
                ids.iter().for_each(|id| _ = self.raised.insert(*id, self.now_ms));
                let ticket = self.scheduler.fetch(&ids, self.now_ms);
                self.tickets.insert(ticket);
            }
        }
        self.carry_out();
    }

    fn want(&mut self, content: ContentId, priority: Priority) {
        self.wanted.insert(content);
        let content = self.content(content);
        self.scheduler.want(&[content], priority, self.now_ms);
        self.carry_out();
    }

    /// Whatever must hold between two calls.
    fn check(&mut self) {
        let (seed, scheduler) = (self.seed, &mut self.scheduler);
        let bound = limits::TRACKED_CHUNKS_MAX + 2 * limits::EXAMINE_IDS_MAX;
        assert!(scheduler.chunks.len() <= bound.min(CHUNKS), "seed {seed}: too many are tracked");
        assert!(scheduler.wanted.len() <= self.parts.len());
        if scheduler.full_until_ms > self.now_ms {
            return;
        }
        let waiting: Vec<ChunkId> = scheduler.queues.foreground.iter().copied().collect();
        for id in waiting {
            let Some(chunk) = scheduler.chunks.get(&id).filter(|chunk| chunk.queued.foreground)
            else {
                continue;
            };
            for peer in scheduler.peers.values_mut() {
                let taken = (chunk.refused | chunk.asked.foreground) & peer.bit != 0;
                let room = peer.lane(Priority::Foreground).room() > 0;
                assert!(taken || !room, "seed {seed}: somebody waits and could be helped");
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Answer { peer, epoch, lane } => self.answer(peer, epoch, lane),
            Event::Silence { peer, epoch, lane } => {
                if self.peers[peer].epoch == epoch {
                    self.give_lane_up(peer, lane);
                }
            }
            Event::Examined { asked } => self.examined(asked),
            Event::Return { peer } => {
                self.peers[peer].let_go = false;
                self.connect(peer);
            }
            Event::Trouble => {
                self.trouble();
                let pause = self.rng.below(400) as u64;
                if self.now_ms + pause < CHAOS_MS {
                    self.after(pause, Event::Trouble);
                }
            }
        }
    }

    fn until(&mut self, end_ms: u64) {
        loop {
            let event = self.due.peek().map(|Reverse((at, _, _))| *at);
            let timer = self.scheduler.next_ms().map(|at| at.max(self.now_ms));
            let next = [event, timer].into_iter().flatten().min().unwrap_or(u64::MAX);
            if next > end_ms {
                break;
            }
            self.now_ms = next.max(self.now_ms);
            if timer.is_some_and(|at| at <= next) && event.is_none_or(|at| at > next) {
                self.now_ms += 1;
                self.time();
            } else if let Some(Reverse((_, _, event))) = self.due.pop() {
                self.handle(event);
            }
        }
        self.now_ms = end_ms;
    }

    fn run(mut self) -> Counts {
        self.after(0, Event::Trouble);
        self.until(CHAOS_MS);
        self.calm = true;
        for peer in 0..self.peers.len() {
            self.connect(peer);
        }
        let all: Vec<ContentId> = self.parts.keys().copied().collect();
        all.iter().for_each(|content| self.want(*content, Priority::Background));
        self.until(CHAOS_MS + CALM_MS);
        let good = [Nature::Honest, Nature::Slow, Nature::Silent];
        let honest = self.peers.iter().filter(|them| good.contains(&them.nature));
        let reachable: BTreeSet<ChunkId> = honest.flat_map(|them| them.holds.clone()).collect();
        for content in &self.wanted {
            let lacks = |id: &&ChunkId| !self.here.contains(id) && reachable.contains(*id);
            let lacking = self.parts[content].iter().filter(lacks).count();
            assert_eq!(lacking, 0, "seed {}: an honest peer has what does not come", self.seed);
            assert!(!self.is_complete(content), "seed {}: nobody is told", self.seed);
        }
        assert!(self.tickets.is_empty(), "seed {}: somebody waits for ever", self.seed);
        self.counts
    }
}

#[test]
fn whatever_peers_do_what_an_honest_one_has_comes() {
    let mut sum = Counts::default();
    for seed in 1..=SEEDS {
        let Counts { hedged, corrupt, lied, let_go, silent, left, full, out_of_reach, complete } =
            Run::new(seed).run();
        sum.hedged += hedged;
        sum.corrupt += corrupt;
        sum.lied += lied;
        sum.let_go += let_go;
        sum.silent += silent;
        sum.left += left;
        sum.full += full;
        sum.out_of_reach += out_of_reach;
        sum.complete += complete;
    }
    println!("{sum:?}");
    let Counts { hedged, corrupt, lied, let_go, silent, left, full, out_of_reach, complete } = sum;
    for count in [hedged, corrupt, lied, let_go, silent, left, full, out_of_reach, complete] {
        assert!(count >= 100, "something hardly came about");
    }
}
