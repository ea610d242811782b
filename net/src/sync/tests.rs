//! Sessions against each other, under a scheduler that delays and interleaves everything it may, and
//! cuts the link at any moment.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;
use crate::host::JournalHost as _;
use crate::testing::Rng;
use crate::testing::journal::{FakeJournal, id_of};
use journal::chain::Tip;

fn device(n: u8) -> DeviceId {
    DeviceId::from_bytes([n; 32])
}

/// One end of a link.
struct End {
    journal: usize,
    peer: DeviceId,
    session: Session,
    changes: VecDeque<Effect>,
    reads: VecDeque<Effect>,
    out: VecDeque<Message>,
    prepared: bool,
    sent: BTreeSet<EntryId>,
}

impl End {
    fn new(world: &[FakeJournal], journal: usize, peer: DeviceId) -> Self {
        let frontier = world[journal].frontier();
        let hello = Hello { frontier, addrs: vec![], wall_ms: 0 };
        Self {
            journal,
            peer,
            session: Session::new(hello),
            changes: VecDeque::new(),
            reads: VecDeque::new(),
            out: VecDeque::new(),
            prepared: false,
            sent: BTreeSet::new(),
        }
    }

    /// Effects to their queues; checks rule 4.2 on what is about to leave.
    fn sort_effects(&mut self, unacknowledged: &BTreeSet<EntryId>) {
        while let Some(effect) = self.session.poll_effect() {
            match effect {
                Effect::Send(message) => {
                    if let Message::Entries(entries) = &message {
                        for entry in &entries.entries {
                            let id = id_of(entry);
                            assert!(
                                self.prepared || !unacknowledged.contains(&id),
                                "an unacknowledged entry left before the other's offer was in"
                            );
                            assert!(self.sent.insert(id), "sent twice in a session");
                        }
                    }
                    // The codec is part of the path.
                    let frame = message.encode();
                    self.out.push_back(Message::decode(&frame[4..]).unwrap());
                }
                Effect::Receive { .. } | Effect::Acknowledged(_) | Effect::Prepare => {
                    self.changes.push_back(effect);
                }
                Effect::Collect { .. } | Effect::Lookup(_) | Effect::Probe(_) => {
                    self.reads.push_back(effect);
                }
                _ => {}
            }
        }
    }

    /// Carries out the oldest effect of one order; true if the journal changed.
    fn run(&mut self, world: &[FakeJournal], effect: Effect) -> bool {
        let journal = &world[self.journal];
        match effect {
            Effect::Receive { batch, entries } => {
                let received = journal.receive(self.peer, &entries).unwrap();
                let applied = !received.applied.is_empty();
                self.session.handle_received(batch, &received, journal.frontier()).unwrap();
                applied
            }
            Effect::Acknowledged(frontier) => {
                journal.acknowledged(self.peer, &frontier);
                false
            }
            Effect::Prepare => {
                journal.before_first_push().unwrap();
                self.prepared = true;
                self.session.handle_prepared();
                true
            }
            Effect::Collect { theirs, bytes_max, hold_back } => {
                let unacknowledged = match hold_back {
                    HoldBack::Unacknowledged => journal.unacknowledged().into_iter().collect(),
                    HoldBack::Nothing => BTreeSet::new(),
                };
                let entries = journal.lacking(&theirs, bytes_max);
                let len: usize = entries.iter().map(|e| e.len()).sum();
                let cut = len + limits::ENTRY_LEN_MAX >= bytes_max;
                let truncated = if cut { Truncated::Yes } else { Truncated::No };
                let entries = entries.into_iter().map(|e| (id_of(&e), e)).collect();
                let frontier = journal.frontier();
                let collected =
                    Collected { entries, truncated, unacknowledged, damaged: Vec::new(), frontier };
                self.session.handle_collected(collected).unwrap();
                false
            }
            Effect::Lookup(ids) => {
                let found = ids.iter().filter_map(|id| journal.entry(id)).collect();
                self.session.handle_found(found, journal.frontier());
                false
            }
            Effect::Probe(token) => {
                self.session.handle_probe_answer(token, journal.frontier());
                false
            }
            _ => false,
        }
    }
}

/// Devices and the links between them.
struct World {
    journals: Vec<FakeJournal>,
    links: BTreeMap<(usize, usize), [End; 2]>,
    rng: Rng,
}

impl World {
    fn new(devices: u8, seed: u64) -> Self {
        let members: Vec<DeviceId> = (0..devices).map(device).collect();
        let journals = members.iter().map(|me| FakeJournal::new(*me, &members, 1)).collect();
        Self { journals, links: BTreeMap::new(), rng: Rng::new(seed) }
    }

    fn connect(&mut self, a: usize, b: usize) {
        let ends = [
            End::new(&self.journals, a, device(b as u8)),
            End::new(&self.journals, b, device(a as u8)),
        ];
        self.links.insert((a, b), ends);
    }

    fn cut(&mut self, a: usize, b: usize) {
        self.links.remove(&(a, b));
    }

    fn author(&mut self, at: usize, text: &str) {
        self.journals[at].author(text, &[]);
        self.changed(at);
    }

    fn changed(&mut self, at: usize) {
        for end in self.links.values_mut().flatten().filter(|end| end.journal == at) {
            end.session.handle_journal_changed();
        }
    }

    /// One random step of one random link; false if nothing can move any more.
    fn step(&mut self) -> bool {
        let mut moves = Vec::new();
        for (key, ends) in &mut self.links {
            for (side, end) in ends.iter_mut().enumerate() {
                let unacknowledged =
                    self.journals[end.journal].unacknowledged().into_iter().collect();
                end.sort_effects(&unacknowledged);
                moves.extend((!end.changes.is_empty()).then_some((*key, side, 0)));
                moves.extend((!end.reads.is_empty()).then_some((*key, side, 1)));
                moves.extend((!end.out.is_empty()).then_some((*key, side, 2)));
            }
        }
        if moves.is_empty() {
            return false;
        }
        let (key, side, what) = moves[self.rng.below(moves.len())];
        let ends = self.links.get_mut(&key).unwrap();
        let end = &mut ends[side];
        let changed = match what {
            0 => {
                let effect = end.changes.pop_front().unwrap();
                end.run(&self.journals, effect).then_some(end.journal)
            }
            1 => {
                let effect = end.reads.pop_front().unwrap();
                end.run(&self.journals, effect).then_some(end.journal)
            }
            _ => {
                let message = end.out.pop_front().unwrap();
                ends[1 - side].session.handle_message(message).unwrap();
                None
            }
        };
        if let Some(at) = changed {
            self.changed(at);
        }
        true
    }

    fn settle(&mut self) {
        let mut steps = 0;
        while self.step() {
            steps += 1;
            assert!(steps < 200_000, "the sessions never come to rest");
        }
    }

    fn assert_equal(&self) {
        let first = self.journals[0].entries();
        for journal in &self.journals {
            assert_eq!(journal.entries(), first);
        }
        for end in self.links.values().flatten() {
            assert!(end.session.is_pushing(), "a session is stuck before its push");
            assert_eq!(end.session.in_flight_len(), 0);
        }
    }
}

#[test]
fn two_lonely_devices_exchange_everything_and_neither_waits_for_the_other() {
    for seed in 1..200 {
        let mut world = World::new(2, seed);
        for n in 0..5 {
            world.author(0, &format!("a{n}"));
            world.author(1, &format!("b{n}"));
        }
        world.connect(0, 1);
        world.settle();
        world.assert_equal();
        assert!(world.journals[0].texts().contains("late"), "seed {seed}");
    }
}

#[test]
fn who_has_nothing_unacknowledged_writes_no_late_entry() {
    for seed in 1..50 {
        let mut world = World::new(3, seed);
        // 0 and 1 are the team: all of theirs is acknowledged. 2 returns.
        world.connect(0, 1);
        world.author(0, "team");
        world.settle();
        let before = world.journals[0].entries();
        world.author(2, "returning");
        world.connect(0, 2);
        world.settle();
        world.assert_equal();
        let late: Vec<_> = world.journals[0]
            .entries()
            .difference(&before)
            .filter_map(|id| world.journals[0].get(id))
            .filter(|e| e.late.is_some())
            .collect();
        assert_eq!(late.len(), 1, "seed {seed}");
        assert_eq!(late[0].device, device(2));
        // It had seen the team's work when it wrote: so it sorts after it.
        assert!(!late[0].seen.is_empty(), "seed {seed}");
    }
}

#[test]
fn an_entry_crosses_a_line_of_three() {
    for seed in 1..100 {
        let mut world = World::new(3, seed);
        world.connect(0, 1);
        world.connect(1, 2);
        world.settle();
        world.author(0, "from one end");
        for _ in 0..world.rng.below(30) {
            world.step();
        }
        world.author(2, "from the other");
        world.settle();
        world.assert_equal();
        assert!(world.journals[2].texts().contains("from one end"));
        assert!(world.journals[0].texts().contains("from the other"));
    }
}

#[test]
fn cut_and_healed_at_any_moment_all_converge() {
    for seed in 1..150 {
        let mut world = World::new(4, seed);
        let pairs = [(0, 1), (1, 2), (2, 3), (0, 3)];
        for round in 0..60 {
            match world.rng.below(4) {
                0 => {
                    let (a, b) = pairs[world.rng.below(4)];
                    world.cut(a, b);
                }
                1 => {
                    let (a, b) = pairs[world.rng.below(4)];
                    if !world.links.contains_key(&(a, b)) {
                        world.connect(a, b);
                    }
                }
                2 => {
                    let at = world.rng.below(4);
                    world.author(at, &format!("{round}"));
                }
                _ => {}
            }
            for _ in 0..world.rng.below(40) {
                world.step();
            }
        }
        for (a, b) in pairs {
            if !world.links.contains_key(&(a, b)) {
                world.connect(a, b);
            }
        }
        world.settle();
        world.assert_equal();
    }
}

#[test]
fn a_long_backlog_goes_over_within_the_window() {
    let mut world = World::new(2, 5);
    let text = "x".repeat(60_000);
    for _ in 0..150 {
        world.journals[0].author(&text, &[]);
    }
    world.connect(0, 1);
    let mut steps = 0;
    while world.step() {
        steps += 1;
        assert!(steps < 100_000);
        for end in world.links.values().flatten() {
            let bound = limits::IN_FLIGHT_LEN_MAX + limits::ENTRY_LEN_MAX;
            assert!(end.session.in_flight_len() <= bound);
        }
    }
    world.assert_equal();
}

#[test]
fn entries_in_sync_sessions_are_not_echoed() {
    let mut world = World::new(2, 6);
    world.connect(0, 1);
    world.settle();
    for n in 0..100 {
        world.author(0, &format!("{n}"));
        world.settle();
    }
    let [_, b] = &world.links[&(0, 1)];
    assert!(b.sent.is_empty(), "what came from the peer went back to it");
}

fn hello() -> Message {
    Message::Hello(Hello { frontier: Frontier::default(), addrs: vec![], wall_ms: 0 })
}

fn session() -> Session {
    Session::new(Hello { frontier: Frontier::default(), addrs: vec![], wall_ms: 0 })
}

fn greeted() -> Session {
    let mut session = session();
    session.handle_message(hello()).unwrap();
    session
}

#[test]
fn the_greeting_comes_first_and_once() {
    assert_eq!(session().handle_message(Message::Offered), Err(Violation::Greeting));
    assert_eq!(greeted().handle_message(hello()), Err(Violation::Greeting));
}

#[test]
fn acknowledgements_and_batches_out_of_order_are_violations() {
    let have = Message::Have(Have { upto: 1, frontier: Frontier::default() });
    assert_eq!(greeted().handle_message(have), Err(Violation::Acknowledgement));
    let entry: Arc<[u8]> = Arc::from(b"x".as_slice());
    let entries = Entries { batch: 2, frontier: Frontier::default(), entries: vec![entry] };
    assert_eq!(greeted().handle_message(Message::Entries(entries)), Err(Violation::Batch));
}

#[test]
fn a_flood_of_requests_is_a_violation() {
    for message in [Message::Probe(1), Message::Want(vec![EntryId::from_bytes([1; 32])])] {
        let mut session = greeted();
        let end = (0..100).find_map(|_| session.handle_message(message.clone()).err());
        assert_eq!(end, Some(Violation::Flood));
    }
}

#[test]
fn an_invalid_entry_ends_the_session() {
    let mut session = greeted();
    let refused =
        |why| Received { refused: vec![journal::Refusal { id: None, why }], ..Received::default() };
    let crowded = refused(RefuseReason::Crowded);
    assert_eq!(session.handle_received(1, &crowded, Frontier::default()), Ok(()));
    let forged = refused(RefuseReason::Clock);
    let result = session.handle_received(2, &forged, Frontier::default());
    assert_eq!(result, Err(Violation::InvalidEntry));
}

#[test]
fn what_is_missing_is_asked_for_a_bounded_number_of_times() {
    let mut session = greeted();
    let wants = vec![EntryId::from_bytes([1; 32])];
    let received = Received { wants, ..Received::default() };
    let mut asked = 0;
    for batch in 1..20 {
        session.handle_received(batch, &received, Frontier::default()).unwrap();
        while let Some(effect) = session.poll_effect() {
            asked += usize::from(matches!(effect, Effect::Send(Message::Want(_))));
        }
    }
    assert_eq!(asked, usize::from(limits::WANT_ASKS_MAX));
}

#[test]
fn what_lies_here_damaged_is_asked_of_a_peer_once_and_mended_it_may_be_asked_again() {
    let mut session = greeted();
    let id = EntryId::from_bytes([1; 32]);
    let wanted = |session: &mut Session| {
        let effects = std::iter::from_fn(|| session.poll_effect());
        effects.filter(|e| *e == Effect::Send(Message::Want(vec![id]))).count()
    };
    assert!(session.handle_damaged(&[id]) && !session.handle_damaged(&[id]));
    assert_eq!(wanted(&mut session), 1);
    let mended = Received { mended: vec![id], ..Received::default() };
    session.handle_received(1, &mended, Frontier::default()).unwrap();
    assert!(session.handle_damaged(&[id]));
    assert_eq!(wanted(&mut session), 1);
}

#[test]
fn a_peer_that_takes_nothing_in_is_not_sent_the_same_for_ever() {
    let mut session = greeted();
    let entry: Arc<[u8]> = Arc::from(b"entry".as_slice());
    let mut sent = 0;
    for _ in 0..50 {
        session.handle_journal_changed();
        let effects: Vec<Effect> = std::iter::from_fn(|| session.poll_effect()).collect();
        for effect in effects {
            match effect {
                Effect::Collect { .. } => {
                    let entries = vec![(id_of(&entry), entry.clone())];
                    session
                        .handle_collected(Collected {
                            entries,
                            truncated: Truncated::No,
                            unacknowledged: BTreeSet::new(),
                            damaged: Vec::new(),
                            frontier: Frontier::default(),
                        })
                        .unwrap();
                }
                Effect::Send(Message::Entries(entries)) => {
                    sent += 1;
                    let frontier = Frontier::default();
                    let have = Have { upto: entries.batch, frontier };
                    session.handle_message(Message::Have(have)).unwrap();
                }
                _ => {}
            }
        }
    }
    assert_eq!(sent, 1);
}

#[test]
fn reached_says_yes_only_when_the_tips_prove_it() {
    let tip = |d: u8, seq: u64, e: u8| journal::chain::Tip {
        device: device(d),
        seq,
        entry: EntryId::from_bytes([e; 32]),
    };
    let frontier = |tips: &[journal::chain::Tip]| Frontier { tips: tips.to_vec() };
    let target = frontier(&[tip(1, 5, 5), tip(2, 1, 9)]);
    assert!(reached(&target, &target));
    assert!(reached(&target, &frontier(&[tip(1, 6, 6), tip(2, 1, 9), tip(3, 0, 1)])));
    assert!(!reached(&target, &frontier(&[tip(1, 4, 4), tip(2, 1, 9)])));
    assert!(!reached(&target, &frontier(&[tip(1, 6, 6)])));
    assert!(!reached(&target, &frontier(&[tip(1, 5, 7), tip(2, 1, 9)])), "another branch");
    let forked = frontier(&[tip(1, 6, 6), tip(1, 7, 7), tip(2, 1, 9)]);
    assert!(!reached(&target, &forked), "which branch is it on?");
    assert!(reached(&Frontier::default(), &Frontier::default()));
}

#[test]
fn what_was_said_to_be_held_can_be_taken_back() {
    let hello = || Hello { frontier: Frontier::default(), addrs: vec![], wall_ms: 0 };
    let mut session = Session::new(hello());
    let tip = Tip { device: device(1), seq: 3, entry: EntryId::from_bytes([4; 32]) };
    let held = Frontier { tips: vec![tip] };
    let mut said = Vec::new();
    for holds in [None, Some(held.clone()), Some(held.clone()), None, None] {
        session.handle_holds(holds);
        while let Some(effect) = session.poll_effect() {
            if let Effect::Send(Message::Holds(frontier)) = effect {
                said.push(frontier);
            }
        }
    }
    assert_eq!(said, [held, Frontier::default()]);
}
