//! The table alone: what the search does not reach (bounds, floods, spellings).

use std::collections::BTreeSet;

use journal::hlc::Hlc;
use journal::id::{DeviceId, DirId};
use journal::name::{EntryName, Register};

use super::*;
use crate::limits;
use crate::wire::locks::{Claim, Denial, LockMessage, Stage};

mod model;

const ME: DeviceId = device(1);
const PEER: DeviceId = device(2);
const OTHER: DeviceId = device(3);

const fn device(n: u8) -> DeviceId {
    DeviceId::from_bytes([n; 32])
}

fn at(ms: u64) -> Now {
    Now { boot_ms: ms, wall_ms: 1_000_000_000_000 + ms }
}

fn register(name: &str) -> Register {
    Register::new(DirId::ROOT, EntryName::new(name).unwrap())
}

fn spot(name: &str) -> Spot {
    Spot { register: register(name), above: vec![DirId::ROOT] }
}

fn wanted(name: &str) -> LockClaim {
    LockClaim {
        scope: Scope::Name(register(name)),
        above: vec![DirId::ROOT],
        bases: vec![],
        priority: Hlc::from_ms(5).get(),
    }
}

fn claim(id: u64, name: &str) -> Claim {
    Claim {
        id,
        scope: Scope::Name(register(name)),
        above: vec![DirId::ROOT],
        priority: Hlc::from_ms(5).get(),
        bases: vec![],
        stage: Stage::Asked,
        age_ms: 0,
        unreachable: 0,
    }
}

/// A table past its grace that has exchanged tables with two members, at 20 s.
fn table() -> Table {
    let mut table = Table::new(ME, 1, at(0));
    let others: BTreeSet<DeviceId> = [PEER, OTHER].into();
    table.handle_members(at(0), others.clone(), others);
    for ms in 1..=20 {
        table.handle_time(at(ms * 1000));
    }
    for peer in [PEER, OTHER] {
        meet(&mut table, peer);
    }
    effects(&mut table);
    table
}

fn meet(table: &mut Table, peer: DeviceId) {
    table.handle_connected(at(20_000), peer);
    for message in [LockMessage::Hello(7), LockMessage::Ready] {
        table.handle_message(at(20_000), peer, message).unwrap();
    }
}

fn effects(table: &mut Table) -> Vec<Effect> {
    std::iter::from_fn(|| table.poll_effect()).collect()
}

/// What is sent to a peer.
fn said(table: &mut Table, peer: DeviceId) -> Vec<LockMessage> {
    let sent = effects(table).into_iter().filter_map(|effect| match effect {
        Effect::Send { to, message } if to == peer => Some(message),
        _ => None,
    });
    sent.collect()
}

fn hear(table: &mut Table, ms: u64, peer: DeviceId, message: LockMessage) {
    table.handle_message(at(ms), peer, message).unwrap();
}

#[test]
fn a_claim_is_two_messages_to_each_and_back_and_held_when_the_last_has_come() {
    let mut table = table();
    let began = table.claim(at(20_100), wanted("a"), 300);
    assert_eq!(began, Began::Waiting(1));
    let sent = effects(&mut table);
    assert_eq!(sent.len(), 2, "{sent:?}");
    hear(&mut table, 20_110, PEER, LockMessage::Grants(vec![(1, false)]));
    assert_eq!(effects(&mut table), []);
    hear(&mut table, 20_120, OTHER, LockMessage::Grants(vec![(1, true)]));
    let outcome = LockOutcome::Held { unreachable: 0, newer: true };
    let scope = wanted("a").scope;
    assert_eq!(effects(&mut table), [Effect::Decided { id: 1, scope, outcome }]);
    assert_eq!(table.held(at(20_120), &spot("a")), Some(0));
    // Asked again: at once, and without a word.
    let again = table.claim(at(20_130), wanted("a"), 300);
    let held = LockOutcome::Held { unreachable: 0, newer: false };
    assert_eq!((again, effects(&mut table)), (Began::Decided(held), vec![]));
    table.release(at(20_140), &Scope::Name(register("a")));
    assert_eq!(said(&mut table, PEER), [LockMessage::Release(vec![1])]);
}

#[test]
fn grants_count_until_they_are_not_renewed_any_more() {
    let mut table = table();
    table.claim(at(20_000), wanted("a"), 300);
    for peer in [PEER, OTHER] {
        hear(&mut table, 20_010, peer, LockMessage::Grants(vec![(1, false)]));
    }
    effects(&mut table);
    let mut answered = 0;
    for ms in (21_000..=60_000).step_by(1000) {
        table.handle_time(at(ms));
        for effect in effects(&mut table) {
            // One of the two falls silent at 40 s.
            if let Effect::Send { to, message: LockMessage::Renew(number, doubts) } = effect
                && (to == PEER || ms < 40_000)
            {
                assert_eq!(doubts.is_empty(), table.held(at(ms), &spot("a")) == Some(0));
                hear(&mut table, ms, to, LockMessage::Renewed(number));
                answered += 1;
            }
        }
        let unreachable = if ms < 35_000 + limits::LOCK_COUNTED_MS { 0 } else { 1 };
        assert_eq!(table.held(at(ms), &spot("a")), Some(unreachable), "{ms}");
    }
    assert!(answered > 8, "{answered}");
}

/// Of two clocks that are years apart each sees the other's claim as absurd: if that counted, both would win.
#[test]
fn two_that_meet_agree_who_is_better_however_far_apart_their_clocks_are() {
    let day = |days: u64| Hlc::from_ms(4_000_000_000_000 - days * 24 * 3600 * 1000).get();
    for (ours, theirs) in [(day(0), day(1)), (day(0), day(3_000)), (day(3_000), day(0)), (1, 0)] {
        let mut table = table();
        table.claim(at(20_100), LockClaim { priority: ours, ..wanted("a") }, 300);
        effects(&mut table);
        let asked = Claim { priority: theirs, ..claim(9, "a") };
        hear(&mut table, 20_110, PEER, LockMessage::Claims(vec![asked]));
        let granted = said(&mut table, PEER).contains(&LockMessage::Grants(vec![(9, false)]));
        assert_eq!(granted, theirs < ours, "{ours} {theirs}");
    }
}

#[test]
fn who_left_one_claim_without_an_answer_makes_no_other_wait() {
    let mut table = table();
    table.claim(at(20_100), wanted("a"), 300);
    hear(&mut table, 20_110, PEER, LockMessage::Grants(vec![(1, false)]));
    table.handle_time(at(20_400));
    let held = |unreachable| LockOutcome::Held { unreachable, newer: false };
    effects(&mut table);
    // The other one's answer is all that is waited for.
    assert_eq!(table.claim(at(20_500), wanted("b"), 300), Began::Waiting(2));
    hear(&mut table, 20_510, PEER, LockMessage::Grants(vec![(2, false)]));
    let decided = Effect::Decided { id: 2, scope: wanted("b").scope, outcome: held(1) };
    assert!(effects(&mut table).contains(&decided));
    // It speaks again, and is waited for again.
    hear(&mut table, 20_600, OTHER, LockMessage::Grants(vec![(1, false), (2, false)]));
    assert_eq!(table.claim(at(20_700), wanted("c"), 300), Began::Waiting(3));
    hear(&mut table, 20_710, PEER, LockMessage::Grants(vec![(3, false)]));
    assert!(!effects(&mut table).iter().any(|effect| matches!(effect, Effect::Decided { .. })));
}

#[test]
fn a_name_can_be_held_beside_everything_above_it() {
    let mut table = table();
    let above = LockClaim { scope: Scope::Below(DirId::ROOT), above: vec![], ..wanted("a") };
    for (id, claim) in [(1, above.clone()), (2, wanted("a"))] {
        assert_eq!(table.claim(at(20_100), claim, 300), Began::Waiting(id));
        for peer in [PEER, OTHER] {
            hear(&mut table, 20_110, peer, LockMessage::Grants(vec![(id, false)]));
        }
    }
    table.release(at(20_200), &above.scope);
    assert_eq!(table.held(at(20_210), &spot("a")), Some(0));
    assert_eq!(table.held(at(20_210), &spot("b")), None);
}

#[test]
fn no_priority_wins_against_what_is_held() {
    let mut table = table();
    table.claim(at(20_100), wanted("a"), 300);
    for peer in [PEER, OTHER] {
        hear(&mut table, 20_110, peer, LockMessage::Grants(vec![(1, false)]));
    }
    effects(&mut table);
    for priority in [0, 1, u64::MAX] {
        let asked = Claim { priority, ..claim(priority, "a") };
        hear(&mut table, 20_120, PEER, LockMessage::Claims(vec![asked]));
        let denied = said(&mut table, PEER);
        assert!(
            matches!(
                denied[..],
                [LockMessage::Deny(Denial { holder: ME, stage: Stage::Held, .. })]
            ),
            "{denied:?}"
        );
    }
    assert_eq!(table.held(at(20_130), &spot("a")), Some(0));
}

#[test]
fn whoever_did_not_answer_is_told_that_it_is_held() {
    let mut table = table();
    table.claim(at(20_100), wanted("a"), 300);
    hear(&mut table, 20_110, PEER, LockMessage::Grants(vec![(1, false)]));
    effects(&mut table);
    table.handle_time(at(20_400));
    let said = effects(&mut table);
    let held = LockOutcome::Held { unreachable: 1, newer: false };
    let scope = wanted("a").scope;
    assert!(said.contains(&Effect::Decided { id: 1, scope, outcome: held }), "{said:?}");
    let told: Vec<DeviceId> = said
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send { to, message: LockMessage::Claims(claims) } => {
                assert_eq!((claims[0].id, claims[0].stage), (1, Stage::Held));
                Some(*to)
            }
            _ => None,
        })
        .collect();
    assert_eq!(told, [OTHER]);
    // It may be late, but it counts.
    hear(&mut table, 20_500, OTHER, LockMessage::Grants(vec![(1, false)]));
    assert_eq!(table.held(at(20_500), &spot("a")), Some(0));
}

#[test]
fn whoever_was_silent_for_a_lease_is_told_again_what_it_did_not_grant() {
    let mut table = table();
    table.claim(at(20_100), wanted("a"), 300);
    hear(&mut table, 20_110, PEER, LockMessage::Grants(vec![(1, false)]));
    hear(&mut table, 20_110, OTHER, LockMessage::Unknown(vec![1]));
    effects(&mut table);
    let mut told = Vec::new();
    for ms in (21_000..=60_000).step_by(1000) {
        table.handle_time(at(ms));
        for effect in effects(&mut table) {
            match effect {
                // It hears nothing between 30 s and 50 s.
                Effect::Send { to, message: LockMessage::Renew(number, _) }
                    if to == PEER || !(30_000..50_000).contains(&ms) =>
                {
                    hear(&mut table, ms, to, LockMessage::Renewed(number));
                }
                Effect::Send { to, message: LockMessage::Claims(_) } => told.push((to, ms)),
                _ => {}
            }
        }
    }
    assert!(matches!(told[..], [(OTHER, 50_000..)]), "{told:?}");
}

#[test]
fn a_flood_is_a_violation_and_what_came_before_it_is_bounded() {
    let mut table = table();
    let mut taken = 0;
    let violation = (0..10_000).find_map(|id| {
        let message = LockMessage::Claims(vec![claim(id, &format!("f{id}"))]);
        taken += 1;
        table.handle_message(at(20_000), PEER, message).err()
    });
    assert_eq!(violation, Some(Violation::Flood));
    assert!(taken <= limits::LOCK_BURST_MAX + 1, "{taken}");
    // Many in one message are no way around it.
    let mut table = self::table();
    for n in 0..200 {
        let claims = (0..32).map(|k| claim(n * 32 + k, &format!("f{n} {k}"))).collect();
        hear(&mut table, 20_000, PEER, LockMessage::Claims(claims));
        let names = (0..200).map(|k| register(&format!("p{n} {k}"))).collect();
        hear(&mut table, 20_000, PEER, LockMessage::Present(names));
    }
    let all = table.all(at(20_000));
    let count = |kind| all.iter().filter(|lock| lock.kind == kind).count();
    assert_eq!(count(LockKind::Session), limits::LOCKS_OF_PEER_MAX);
    assert_eq!(count(LockKind::Presence), limits::LOCKS_OF_PEER_MAX);
    let unknown = said(&mut table, PEER);
    assert!(unknown.iter().any(|message| matches!(message, LockMessage::Unknown(_))));
}

#[test]
fn deep_claims_are_bounded_together() {
    let mut table = table();
    for n in 0..100u64 {
        let above = (0..limits::LOCK_ABOVE_MAX as u64).map(|k| {
            let mut dir = [0; 32];
            dir[..8].copy_from_slice(&(n * 64 + k).to_be_bytes());
            DirId::from_bytes(dir)
        });
        let above: Vec<DirId> = above.collect();
        let claims = (0..32)
            .map(|k| Claim { above: above.clone(), ..claim(n * 32 + k, &format!("{n} {k}")) })
            .collect();
        hear(&mut table, 20_000, PEER, LockMessage::Claims(claims));
    }
    let named = table.all(at(20_000)).len() * limits::LOCK_ABOVE_MAX;
    assert!(named <= limits::LOCK_ABOVE_TOTAL_MAX, "{named}");
}

#[test]
fn whoever_claims_too_much_leaves_others_unasked_and_says_so() {
    let mut table = table();
    let mut unasked = 0;
    for n in 0..3_500 {
        let began = table.claim(at(20_100), wanted(&format!("f{n}")), 300);
        if matches!(began, Began::Decided(LockOutcome::Held { unreachable: 2, .. })) {
            unasked += 1;
        }
    }
    assert_eq!(unasked, 3_500 - limits::LOCK_SEND_BURST_MAX as usize);
    let sent = said(&mut table, PEER).len();
    assert_eq!(sent, limits::LOCK_SEND_BURST_MAX as usize);
    // What is given back is told as soon as there is room again, in few messages.
    for n in 0..3_500 {
        table.release(at(20_200), &Scope::Name(register(&format!("f{n}"))));
    }
    table.handle_time(at(21_000));
    let released: usize = said(&mut table, PEER)
        .iter()
        .map(|message| match message {
            LockMessage::Release(ids) => ids.len(),
            _ => 0,
        })
        .sum();
    assert_eq!(released, 3_500);
}

#[test]
fn two_spellings_of_a_name_are_one() {
    let mut table = table();
    let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
    hear(&mut table, 20_100, PEER, LockMessage::Claims(vec![claim(1, composed)]));
    assert_eq!(table.known(at(20_100), &spot(decomposed)).map(|f| f.device), Some(PEER));
    hear(&mut table, 20_100, PEER, LockMessage::Present(vec![register(decomposed)]));
    assert_eq!(table.who_has_open(&register(composed)).first().map(|row| row.0), Some(PEER));
}

#[test]
fn a_new_run_of_a_device_has_forgotten_what_it_held_and_granted() {
    let mut table = table();
    table.claim(at(20_100), wanted("ours"), 300);
    for peer in [PEER, OTHER] {
        hear(&mut table, 20_110, peer, LockMessage::Grants(vec![(1, false)]));
    }
    hear(&mut table, 20_110, PEER, LockMessage::Claims(vec![claim(5, "theirs")]));
    assert!(table.known(at(20_120), &spot("theirs")).is_some());
    table.handle_connected(at(20_200), PEER);
    assert_eq!(table.held(at(20_200), &spot("ours")), Some(0));
    assert!(table.known(at(20_200), &spot("theirs")).is_some(), "a broken stream ends nothing");
    hear(&mut table, 20_210, PEER, LockMessage::Hello(8));
    assert_eq!(table.held(at(20_210), &spot("ours")), Some(1));
    assert_eq!(table.known(at(20_210), &spot("theirs")), None);
}

#[test]
fn nothing_is_answered_to_a_run_that_has_not_greeted() {
    let mut table = table();
    table.claim(at(20_100), wanted("a"), 300);
    for peer in [PEER, OTHER] {
        hear(&mut table, 20_110, peer, LockMessage::Grants(vec![(1, false)]));
    }
    hear(&mut table, 20_120, OTHER, LockMessage::Claims(vec![claim(3, "b")]));
    // It waits for what another has.
    let held = Claim { stage: Stage::Held, priority: 1, ..claim(2, "b") };
    hear(&mut table, 20_130, PEER, LockMessage::Claims(vec![held]));
    table.handle_connected(at(20_200), PEER);
    effects(&mut table);
    hear(&mut table, 20_210, OTHER, LockMessage::Release(vec![3]));
    assert_eq!(table.known(at(20_210), &spot("b")).map(|f| f.device), Some(PEER));
    // Its next run may use the number 2 for something else.
    assert_eq!(said(&mut table, PEER), []);
}

#[test]
fn what_is_not_told_again_on_a_new_stream_was_given_back() {
    let mut table = table();
    hear(&mut table, 20_110, PEER, LockMessage::Claims(vec![claim(5, "a"), claim(6, "b")]));
    table.handle_connected(at(20_200), PEER);
    hear(&mut table, 20_210, PEER, LockMessage::Hello(7));
    let held = Claim { stage: Stage::Held, ..claim(6, "b") };
    hear(&mut table, 20_210, PEER, LockMessage::Claims(vec![held]));
    assert!(table.known(at(20_210), &spot("a")).is_some());
    hear(&mut table, 20_210, PEER, LockMessage::Ready);
    assert_eq!(table.known(at(20_210), &spot("a")), None);
    assert!(table.known(at(20_210), &spot("b")).is_some());
}

#[test]
fn messages_out_of_place_are_violations() {
    let fresh = || {
        let mut table = table();
        table.handle_connected(at(20_200), PEER);
        table
    };
    let now = at(20_210);
    let hello = || LockMessage::Hello(7);
    let asked = || LockMessage::Claims(vec![claim(1, "a")]);
    assert_eq!(fresh().handle_message(now, PEER, asked()), Err(Violation::Greeting));
    assert_eq!(table().handle_message(now, PEER, hello()), Err(Violation::Greeting));
    assert_eq!(table().handle_message(now, PEER, LockMessage::Ready), Err(Violation::Order));
    for early in [asked(), LockMessage::Renew(1, vec![]), LockMessage::Release(vec![1])] {
        let mut table = fresh();
        hear(&mut table, 20_205, PEER, hello());
        assert_eq!(table.handle_message(now, PEER, early), Err(Violation::Order));
    }
    // Whoever is no member is not listened to.
    let mut table = table();
    assert_eq!(table.handle_message(now, device(9), asked()), Ok(()));
    assert_eq!(table.all(now), []);
}

#[test]
fn answers_to_nothing_are_ignored() {
    let mut table = table();
    let denial = |holder, id| Denial {
        id,
        holder,
        priority: 0,
        stage: Stage::Held,
        age_ms: 0,
        unreachable: 0,
    };
    for message in [
        LockMessage::Grants(vec![(77, true)]),
        LockMessage::Unknown(vec![77]),
        LockMessage::Deny(denial(PEER, 77)),
        LockMessage::Renewed(77),
        LockMessage::Release(vec![77]),
        LockMessage::Absent(vec![register("a")]),
    ] {
        hear(&mut table, 20_100, PEER, message);
    }
    table.claim(at(20_100), wanted("a"), 300);
    effects(&mut table);
    // Nobody is told that what it claims is its own.
    hear(&mut table, 20_110, PEER, LockMessage::Deny(denial(ME, 1)));
    assert_eq!(effects(&mut table), []);
}
