//! The scheduler against simulated peers and a simulated store.

use std::collections::{BTreeMap, BTreeSet};

use cas::MissingChunks;

use super::*;
use crate::testing::Rng;

mod chaos;

fn device(n: u8) -> DeviceId {
    DeviceId::from_bytes([n; 32])
}

fn chunk(n: u32) -> ChunkId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&n.to_be_bytes());
    ChunkId::from_bytes(id)
}

fn content(n: u32, len: u64) -> Content {
    Content { id: ContentId::chunk(chunk(n)), len }
}

/// A store, the contents it knows of, and peers that hold some chunks.
#[derive(Default)]
struct World {
    scheduler: Scheduler,
    now_ms: u64,
    parts: BTreeMap<ContentId, Vec<ChunkId>>,
    here: BTreeSet<ChunkId>,
    holders: BTreeMap<DeviceId, BTreeSet<ChunkId>>,
    owed: BTreeMap<(DeviceId, Priority), VecDeque<ChunkId>>,
    requests: usize,
    asked: usize,
    complete: BTreeSet<ContentId>,
    answers: BTreeMap<u64, Result<(), FetchError>>,
    out_of_reach: BTreeSet<ContentId>,
    strikes: usize,
    full: usize,
}

impl World {
    fn add(&mut self, n: u32, parts: std::ops::Range<u32>) -> Content {
        let content = content(n, 1000);
        self.parts.insert(content.id, parts.map(chunk).collect());
        content
    }

    fn peer(&mut self, n: u8, holds: impl IntoIterator<Item = u32>) {
        self.holders.insert(device(n), holds.into_iter().map(chunk).collect());
        self.scheduler.peer_up(device(n), u64::from(n), self.now_ms);
    }

    fn missing(&self, content: &Content, limit: usize) -> MissingChunks {
        let lack = self.parts[&content.id].iter().filter(|id| !self.here.contains(id));
        let ids: Vec<ChunkId> = lack.take(limit).copied().collect();
        MissingChunks { complete: ids.is_empty(), ids }
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.scheduler.poll_effect() {
            match effect {
                Effect::Request { peer, lane, ids } => {
                    assert!(ids.len() <= limits::REQUEST_IDS_MAX);
                    assert!(!ids.is_empty());
                    self.requests += 1;
                    self.asked += ids.len();
                    let owed = self.owed.entry((peer, lane)).or_default();
                    owed.extend(ids);
                    assert!(owed.len() <= limits::WINDOW_IDS_MAX);
                }
                Effect::Examine(contents) => {
                    let mut left = limits::EXAMINE_IDS_MAX;
                    let mut results = Vec::new();
                    for content in contents.iter().take_while(|_| true) {
                        if left == 0 {
                            break;
                        }
                        let missing = self.missing(content, left);
                        left -= missing.ids.len();
                        results.push((content.id, Some(missing)));
                    }
                    self.scheduler.handle_examined(&contents, results, self.now_ms);
                }
                Effect::Complete(content) => {
                    assert!(self.missing(&content, 1).complete);
                    assert!(self.complete.insert(content.id), "complete twice");
                    self.out_of_reach.remove(&content.id);
                }
                Effect::OutOfReach(content) => {
                    assert!(self.out_of_reach.insert(content.id), "out of reach twice");
                }
                Effect::WithinReach(content) => {
                    assert!(self.out_of_reach.remove(&content.id), "was not out of reach");
                }
                Effect::Strike(_) => self.strikes += 1,
                Effect::Full => self.full += 1,
                Effect::Answer { ticket, result } => {
                    assert!(self.answers.insert(ticket, result).is_none());
                }
            }
        }
    }

    /// `peer` answers the oldest question of a lane.
    fn answer(&mut self, peer: u8, lane: Priority) -> bool {
        let key = (device(peer), lane);
        let Some(id) = self.owed.get_mut(&key).and_then(VecDeque::pop_front) else { return false };
        let outcome = if self.holders[&key.0].contains(&id) {
            self.here.insert(id);
            Outcome::Stored(100)
        } else {
            Outcome::Missing
        };
        self.tell(peer, lane, id, outcome);
        true
    }

    fn tell(&mut self, peer: u8, lane: Priority, id: ChunkId, outcome: Outcome) {
        let outcomes = [(id, outcome)];
        assert!(self.scheduler.handle_outcomes(&device(peer), lane, &outcomes, self.now_ms));
        self.carry_out();
    }

    fn gone(&mut self, peer: u8) {
        self.owed.retain(|(device_, _), _| *device_ != device(peer));
        self.scheduler.peer_down(&device(peer), self.now_ms);
        self.carry_out();
    }

    fn run(&mut self) {
        self.carry_out();
        loop {
            let ready: Vec<(DeviceId, Priority)> =
                self.owed.iter().filter(|(_, q)| !q.is_empty()).map(|(k, _)| *k).collect();
            let Some((peer, lane)) = ready.first().copied() else { break };
            self.answer(peer.as_bytes()[0], lane);
        }
    }
}

use Priority::{Background, Foreground};

#[test]
fn small_files_are_asked_for_in_bulk() {
    let mut world = World::default();
    let contents: Vec<Content> = (0..10_000).map(|n| world.add(n, n..n + 1)).collect();
    world.peer(1, 0..10_000);
    world.scheduler.want(&contents, Background, 0);
    world.run();
    assert_eq!(world.complete.len(), 10_000);
    assert_eq!(world.asked, 10_000, "no chunk is asked for twice");
    assert!(world.requests <= 150, "{} requests", world.requests);
    assert_eq!(world.scheduler.remaining(), 0);
    assert_eq!(world.scheduler.wanted(), 0);
    assert!(world.scheduler.chunks.is_empty());
}

#[test]
fn several_requests_are_under_way_before_the_first_is_answered() {
    let mut world = World::default();
    let large = world.add(1, 0..5000);
    world.peer(1, 0..5000);
    world.scheduler.want(&[large], Background, 0);
    world.carry_out();
    assert!(world.requests >= 3, "{} requests", world.requests);
    world.run();
    assert_eq!(world.asked, 5000);
    assert!(world.complete.contains(&large.id));
}

#[test]
fn a_large_content_is_examined_again_before_its_pipe_runs_dry() {
    let mut world = World::default();
    let parts = limits::EXAMINE_IDS_MAX as u32 * 3;
    let large = world.add(1, 0..parts);
    world.peer(1, 0..parts);
    world.scheduler.want(&[large], Background, 0);
    world.carry_out();
    while !world.complete.contains(&large.id) {
        assert!(world.answer(1, Background), "the pipe ran dry");
    }
    assert_eq!(world.asked, parts as usize);
}

#[test]
fn what_comes_in_while_an_examination_runs_is_not_asked_for_again() {
    let mut world = World::default();
    let wanted = world.add(1, 0..4);
    world.peer(1, 0..4);
    world.scheduler.want(&[wanted], Background, 0);
    world.carry_out();
    // Wanted more urgently: examined again, and found as it was, just before all of it comes in.
    world.scheduler.want(&[wanted], Foreground, 0);
    assert_eq!(world.scheduler.poll_effect(), Some(Effect::Examine(vec![wanted])));
    let stale = world.missing(&wanted, 100);
    while world.answer(1, Background) {}
    world.scheduler.handle_examined(&[wanted], vec![(wanted.id, Some(stale))], 0);
    world.run();
    assert_eq!(world.asked, 4);
    assert!(world.complete.contains(&wanted.id));
}

#[test]
fn several_peers_share_the_work() {
    let mut world = World::default();
    let large = world.add(1, 0..4000);
    world.peer(1, 0..4000);
    world.peer(2, 0..4000);
    world.scheduler.want(&[large], Background, 0);
    world.carry_out();
    let owed = |world: &World, n: u8| world.owed[&(device(n), Background)].len();
    assert!(owed(&world, 1) > 200 && owed(&world, 2) > 200);
    world.run();
    assert_eq!(world.asked, 4000, "no chunk is asked of both");
}

#[test]
fn what_one_peer_lacks_is_asked_of_the_other() {
    let mut world = World::default();
    let large = world.add(1, 0..1000);
    world.peer(1, (0..1000).filter(|n| n % 3 == 0));
    world.peer(2, (0..1000).filter(|n| n % 3 != 0));
    world.scheduler.want(&[large], Background, 0);
    world.run();
    assert!(world.complete.contains(&large.id));
}

#[test]
fn what_nobody_has_waits_for_news_or_a_growing_while() {
    let mut world = World::default();
    let wanted = world.add(1, 0..10);
    world.peer(1, []);
    world.scheduler.want(&[wanted], Background, 0);
    world.run();
    assert_eq!(world.asked, 10);
    world.scheduler.handle_time(world.now_ms);
    world.run();
    assert_eq!(world.asked, 10, "asked again without a reason");
    world.now_ms = world.scheduler.next_ms().unwrap();
    assert!(world.now_ms >= limits::RETRY_MIN.as_millis() as u64);
    world.scheduler.handle_time(world.now_ms);
    world.run();
    assert_eq!(world.asked, 20);
    let waited = world.scheduler.next_ms().unwrap() - world.now_ms;
    assert!(waited > limits::RETRY_MIN.as_millis() as u64, "the wait grows");
    world.holders.insert(device(1), (0..10).map(chunk).collect());
    world.scheduler.peer_news(&device(1), world.now_ms);
    world.run();
    assert!(world.complete.contains(&wanted.id));
}

#[test]
fn a_new_peer_is_asked_for_what_the_others_lack() {
    let mut world = World::default();
    let wanted = world.add(1, 0..10);
    world.peer(1, []);
    world.scheduler.want(&[wanted], Background, 0);
    world.run();
    world.peer(2, 0..10);
    world.run();
    assert!(world.complete.contains(&wanted.id));
}

#[test]
fn what_a_vanished_peer_owed_is_asked_of_others_and_nothing_twice() {
    let mut world = World::default();
    let large = world.add(1, 0..2000);
    world.peer(1, 0..2000);
    world.scheduler.want(&[large], Background, 0);
    world.carry_out();
    for _ in 0..300 {
        world.answer(1, Background);
    }
    world.gone(1);
    let had = world.here.len();
    let before = world.asked;
    world.peer(2, 0..2000);
    world.run();
    assert!(world.complete.contains(&large.id));
    assert_eq!(world.asked - before, 2000 - had);
}

#[test]
fn an_answer_from_before_the_news_is_asked_for_once_more() {
    let mut world = World::default();
    let wanted = world.add(1, 10..11);
    world.peer(1, []);
    world.scheduler.want(&[wanted], Background, 0);
    world.carry_out();
    // Its news overtakes its answer, which is on another stream.
    world.holders.insert(device(1), [chunk(10)].into());
    world.scheduler.peer_news(&device(1), 0);
    world.carry_out();
    world.owed.clear();
    world.tell(1, Background, chunk(10), Outcome::Missing);
    while world.answer(1, Background) {}
    assert!(world.complete.contains(&wanted.id), "it waits for a retry");
    assert_eq!(world.asked, 2);
    // One that says so again is believed.
    let other = world.add(2, 20..21);
    world.scheduler.want(&[other], Background, 0);
    world.carry_out();
    world.scheduler.peer_news(&device(1), 0);
    while world.answer(1, Background) {}
    assert_eq!((world.asked, world.out_of_reach.len()), (4, 1));
}

#[test]
fn what_only_waited_for_a_peer_that_leaves_is_asked_of_the_others() {
    let mut world = World::default();
    let large = world.add(1, 0..5000);
    world.peer(1, 0..5000);
    world.peer(2, []);
    world.scheduler.want(&[large], Background, 0);
    world.carry_out();
    // The second lacks everything it is asked for, so that most of it waits for the first alone.
    while world.answer(2, Background) {}
    for _ in 0..100 {
        world.answer(1, Background);
    }
    // The second has it by now and says so; only then the first leaves.
    world.holders.insert(device(2), (0..5000).map(chunk).collect());
    world.scheduler.peer_news(&device(2), 0);
    world.carry_out();
    world.gone(1);
    world.run();
    assert!(world.complete.contains(&large.id), "{} of 5000 are here", world.here.len());
}

#[test]
fn what_only_waited_for_a_peer_that_leaves_is_tried_again_without_news() {
    let mut world = World::default();
    let large = world.add(1, 0..5000);
    world.peer(1, 0..5000);
    world.peer(2, []);
    world.scheduler.want(&[large], Background, 0);
    let ticket = world.scheduler.fetch(&[chunk(4000)], 0);
    world.carry_out();
    while world.answer(2, Background) || world.answer(2, Foreground) {}
    world.gone(1);
    world.run();
    assert_eq!(world.answers[&ticket], Err(FetchError::NobodyHasIt));
    world.holders.insert(device(2), (0..5000).map(chunk).collect());
    world.now_ms = world.scheduler.next_ms().expect("nothing will ever be asked for again");
    world.scheduler.handle_time(world.now_ms);
    world.run();
    assert!(world.complete.contains(&large.id), "{} of 5000 are here", world.here.len());
}

#[test]
fn what_an_absent_device_has_stops_nothing_and_fills_no_memory() {
    let mut world = World::default();
    let absent = limits::TRACKED_CHUNKS_MAX as u32 * 2;
    let contents: Vec<Content> = (0..absent).map(|n| world.add(n, n..n + 1)).collect();
    let here = world.add(absent, absent..absent + 10);
    world.peer(1, absent..absent + 10);
    world.scheduler.want(&contents, Background, 0);
    world.scheduler.want(&[here], Background, 0);
    world.run();
    assert!(world.complete.contains(&here.id));
    let tracked = world.scheduler.chunks.len();
    assert!(tracked < limits::TRACKED_CHUNKS_MAX, "{tracked} chunks are kept in memory");
    assert_eq!(world.asked, absent as usize + 10, "asked again without a reason");
    world.holders.insert(device(1), (0..absent).map(chunk).collect());
    world.scheduler.peer_news(&device(1), 0);
    world.run();
    assert_eq!(world.scheduler.wanted(), 0);
}

#[test]
fn what_everybody_connected_lacks_is_out_of_reach_until_somebody_comes_or_has_news() {
    let mut world = World::default();
    let (lost, had) = (world.add(1, 0..600), world.add(2, 1000..1010));
    let out = BTreeSet::from([lost.id]);
    world.scheduler.want(&[lost, had], Background, 0);
    world.run();
    assert!(world.out_of_reach.is_empty(), "nobody is connected who could have said so");
    // Each lacks another part, and nobody all of it: one chunk that nobody has is enough.
    world.peer(1, (1..600).filter(|n| n % 2 == 0).chain(1000..1010));
    world.carry_out();
    world.peer(2, (1..600).filter(|n| n % 2 == 1));
    while world.answer(1, Background) {}
    assert!(world.out_of_reach.is_empty(), "the second has not answered yet");
    world.run();
    assert_eq!(world.out_of_reach, out);
    assert_eq!(world.here.len(), 599 + 10);
    assert!(world.complete.contains(&had.id));

    // Asked again after a while, and still so: nothing new to tell.
    world.now_ms = world.scheduler.next_ms().unwrap();
    world.scheduler.handle_time(world.now_ms);
    assert_eq!(world.out_of_reach, out);
    world.run();
    assert_eq!(world.out_of_reach, out);

    world.peer(3, []);
    world.carry_out();
    assert!(world.out_of_reach.is_empty(), "the third has not been asked yet");
    world.run();
    assert_eq!(world.out_of_reach, out);

    world.scheduler.peer_news(&device(3), world.now_ms);
    world.carry_out();
    assert!(world.out_of_reach.is_empty(), "the third may have it now");
    world.run();
    assert_eq!(world.out_of_reach, out);

    // A member that never said a word of news has it all the same.
    world.holders.insert(device(2), (0..600).map(chunk).collect());
    world.now_ms = world.scheduler.next_ms().unwrap();
    world.scheduler.handle_time(world.now_ms);
    world.run();
    assert!(world.complete.contains(&lost.id));
    assert!(world.out_of_reach.is_empty());
}

#[test]
fn what_only_the_one_who_left_has_is_out_of_reach() {
    let mut world = World::default();
    let wanted = world.add(1, 0..3000);
    world.peer(1, 0..3000);
    world.peer(2, []);
    world.scheduler.want(&[wanted], Background, 0);
    world.carry_out();
    while world.answer(2, Background) {}
    world.gone(1);
    world.run();
    assert_eq!(world.out_of_reach, BTreeSet::from([wanted.id]));
    world.peer(1, 0..3000);
    world.run();
    assert!(world.complete.contains(&wanted.id) && world.out_of_reach.is_empty());
}

#[test]
fn foreground_has_its_own_lane_and_overtakes_what_only_waits() {
    let mut world = World::default();
    let large = world.add(1, 0..5000);
    world.peer(1, 0..5000);
    world.scheduler.want(&[large], Background, 0);
    world.carry_out();
    let ticket = world.scheduler.fetch(&[chunk(4999), chunk(3)], 0);
    world.carry_out();
    // One was not asked for yet, the other stands in the background lane: both are asked for at once.
    assert_eq!(world.owed[&(device(1), Foreground)].len(), 2);
    world.answer(1, Foreground);
    world.answer(1, Foreground);
    assert_eq!(world.answers[&ticket], Ok(()));
    world.run();
    assert!(world.complete.contains(&large.id));
}

#[test]
fn a_late_foreground_chunk_is_asked_of_a_second_peer() {
    let mut world = World::default();
    world.peer(1, [7]);
    world.peer(2, [7]);
    let ticket = world.scheduler.fetch(&[chunk(7)], 0);
    world.carry_out();
    assert!(!world.owed.contains_key(&(device(2), Foreground)));
    world.now_ms = world.scheduler.next_ms().unwrap();
    world.scheduler.handle_time(world.now_ms);
    world.carry_out();
    world.answer(2, Foreground);
    assert_eq!(world.answers[&ticket], Ok(()));
    world.answer(1, Foreground);
    assert!(world.scheduler.chunks.is_empty());
}

#[test]
fn whoever_waits_learns_that_nobody_has_it_or_is_there() {
    let mut world = World::default();
    let alone = world.scheduler.fetch(&[chunk(1)], 0);
    world.carry_out();
    assert_eq!(world.answers[&alone], Err(FetchError::NobodyConnected));
    world.peer(1, []);
    world.peer(2, []);
    let ticket = world.scheduler.fetch(&[chunk(1)], 0);
    world.run();
    assert_eq!(world.answers[&ticket], Err(FetchError::NobodyHasIt));
    let ticket = world.scheduler.fetch(&[chunk(1)], 0);
    world.carry_out();
    world.gone(1);
    world.gone(2);
    assert_eq!(world.answers[&ticket], Err(FetchError::NobodyConnected));
    assert!(world.scheduler.chunks.is_empty(), "nothing is left of what nobody waits for");
}

#[test]
fn lies_are_struck_and_the_chunk_is_asked_of_another() {
    let mut world = World::default();
    let wanted = world.add(1, 0..1);
    world.peer(1, [0]);
    world.peer(2, [0]);
    world.scheduler.want(&[wanted], Background, 0);
    world.carry_out();
    world.owed.get_mut(&(device(1), Background)).unwrap().pop_front();
    world.tell(1, Background, chunk(0), Outcome::Corrupt);
    assert_eq!(world.strikes, 1);
    world.run();
    assert!(world.complete.contains(&wanted.id));
}

#[test]
fn an_answer_to_nothing_is_noticed() {
    let mut world = World::default();
    world.peer(1, [0]);
    let outcomes = [(chunk(5), Outcome::Missing)];
    assert!(!world.scheduler.handle_outcomes(&device(1), Background, &outcomes, 0));
}

#[test]
fn a_full_disk_pauses_everything_for_a_while() {
    let mut world = World::default();
    let wanted = world.add(1, 0..100);
    world.peer(1, 0..100);
    world.scheduler.want(&[wanted], Background, 0);
    let ticket = world.scheduler.fetch(&[chunk(500)], 0);
    world.carry_out();
    world.owed.get_mut(&(device(1), Foreground)).unwrap().pop_front();
    world.tell(1, Foreground, chunk(500), Outcome::Full);
    assert_eq!(world.answers[&ticket], Err(FetchError::Full));
    while let Some(id) = world.owed.get_mut(&(device(1), Background)).and_then(VecDeque::pop_front)
    {
        world.tell(1, Background, id, Outcome::Full);
    }
    assert_eq!(world.full, 1, "said once");
    let asked = world.asked;
    world.run();
    assert_eq!(world.asked, asked);
    world.now_ms = limits::FULL_RETRY.as_millis() as u64;
    world.scheduler.handle_time(world.now_ms);
    world.run();
    assert!(world.complete.contains(&wanted.id));
}

#[test]
fn a_content_the_store_cannot_tell_about_is_tried_again_later() {
    let mut world = World::default();
    let wanted = world.add(1, 0..1);
    world.scheduler.want(&[wanted], Background, 0);
    assert_eq!(world.scheduler.poll_effect(), Some(Effect::Examine(vec![wanted])));
    world.scheduler.handle_examined(&[wanted], vec![(wanted.id, None)], 0);
    assert_eq!(world.scheduler.poll_effect(), None);
    world.peer(1, [0]);
    world.now_ms = world.scheduler.next_ms().unwrap();
    assert!(world.now_ms >= limits::RETRY_MIN.as_millis() as u64);
    world.scheduler.handle_time(world.now_ms);
    world.run();
    assert!(world.complete.contains(&wanted.id));
}

#[test]
fn a_store_that_forgets_is_not_filled_in_a_loop() {
    let mut world = World::default();
    let wanted = world.add(1, 0..1);
    world.peer(1, [0]);
    world.scheduler.want(&[wanted], Background, 0);
    for _ in 0..100 {
        world.carry_out();
        if !world.answer(1, Background) {
            break;
        }
        world.here.clear();
    }
    assert!(world.asked < 20, "asked {} times without a pause", world.asked);
}

#[test]
fn random_peers_that_come_go_lie_and_lack_end_with_everything_here() {
    for seed in 1..60 {
        let mut rng = Rng::new(seed);
        let mut world = World::default();
        let contents: Vec<Content> =
            (0..40u32).map(|n| world.add(n, n * 20..n * 20 + 1 + rng.below(40) as u32)).collect();
        for _ in 0..600 {
            let peer = 1 + rng.below(3) as u8;
            match rng.below(13) {
                12 => {
                    let id = contents[rng.below(40)].id;
                    world.scheduler.unwant(&[id], world.now_ms);
                    // Whoever wants it again may be told again.
                    world.out_of_reach.remove(&id);
                    world.carry_out();
                }
                0 => {
                    let holds: Vec<u32> = (0..900).filter(|_| rng.below(3) > 0).collect();
                    world.owed.retain(|(d, _), _| *d != device(peer));
                    world.peer(peer, holds);
                    world.carry_out();
                }
                1 => world.gone(peer),
                2 => {
                    let n = rng.below(40);
                    let lane = if rng.below(2) == 0 { Foreground } else { Background };
                    world.scheduler.want(&contents[n..=n], lane, world.now_ms);
                    world.carry_out();
                }
                3 => {
                    world.scheduler.fetch(&[chunk(rng.below(900) as u32)], world.now_ms);
                    world.carry_out();
                }
                4 => {
                    world.now_ms += rng.below(3000) as u64;
                    world.scheduler.handle_time(world.now_ms);
                    world.carry_out();
                }
                _ => {
                    let lane = if rng.below(2) == 0 { Foreground } else { Background };
                    for _ in 0..rng.below(30) {
                        world.answer(peer, lane);
                    }
                }
            }
            world.complete.clear();
            // Nothing is tracked that neither stands in a queue nor is asked for, or its content would never end.
            let idle = world.scheduler.chunks.values().filter(|chunk| {
                !chunk.parked && chunk.asked == Both::default() && chunk.queued == Both::default()
            });
            assert_eq!(idle.count(), 0, "seed {seed}");
        }
        world.scheduler.want(&contents, Background, world.now_ms);
        world.peer(9, 0..900);
        for _ in 0..60 {
            world.run();
            world.complete.clear();
            let Some(next) = world.scheduler.next_ms() else { break };
            world.now_ms = world.now_ms.max(next);
            world.scheduler.handle_time(world.now_ms);
        }
        assert_eq!(world.scheduler.wanted(), 0, "seed {seed}");
        assert!(contents.iter().all(|c| world.missing(c, 1).complete), "seed {seed}");
        assert!(world.scheduler.chunks.is_empty(), "seed {seed}");
    }
}

#[test]
fn what_is_not_wanted_any_more_is_neither_asked_for_nor_counted() {
    let mut world = World::default();
    let (lacking, other) = (world.add(1, 0..30), world.add(2, 30..60));
    world.peer(1, 30..60);
    world.scheduler.want(&[lacking, other], Background, world.now_ms);
    world.run();
    assert_eq!(world.scheduler.wanted(), 1, "nobody has the one");
    assert!(world.scheduler.remaining() > 0);
    world.scheduler.unwant(&[lacking.id], world.now_ms);
    assert_eq!((world.scheduler.wanted(), world.scheduler.remaining()), (0, 0));
    assert_eq!(world.scheduler.next_ms(), None, "it comes up again");
    // Whoever has it and comes now is not asked.
    world.peer(2, 0..60);
    world.run();
    assert!(!world.missing(&lacking, 1).complete);
    assert!(world.scheduler.chunks.is_empty());
}
