//! Nodes on loopback claim, hold, lose and see each other's locks.

use std::time::Duration;

use journal::id::{DirId, EntryId, VersionId};
use journal::name::{EntryName, Register};

use crate::handle::Event;
use crate::limits;
use crate::locks::{Foreign, LockClaim, LockKind, LockOutcome, Scope, Spot};
use crate::testing::node::{TestNode, WAIT, config, node, node_on, until};

const LEASE: Duration = Duration::from_millis(limits::LOCK_LEASE_MS);

fn register(name: &str) -> Register {
    Register::new(DirId::ROOT, EntryName::new(name).unwrap())
}

fn scope(name: &str) -> Scope {
    Scope::Name(register(name))
}

fn spot(name: &str) -> Spot {
    Spot { register: register(name), above: vec![DirId::ROOT] }
}

fn claim(name: &str, priority: u64) -> LockClaim {
    LockClaim { scope: scope(name), above: vec![DirId::ROOT], bases: vec![], priority }
}

fn version(n: u8) -> VersionId {
    VersionId::new(EntryId::from_bytes([n; 32]), 0)
}

fn holder(outcome: LockOutcome) -> Option<journal::DeviceId> {
    match outcome {
        LockOutcome::Denied(Foreign { device, .. }) => Some(device),
        _ => None,
    }
}

const WHOLE: LockOutcome = LockOutcome::Held { unreachable: 0, newer: false };

/// Nodes that have exchanged their tables and are past the time in which they grant nothing.
async fn team<const N: usize>() -> [TestNode; N] {
    let members: Vec<u8> = (1..=N as u8).collect();
    let mut nodes: Vec<TestNode> = Vec::new();
    for n in &members {
        let peers = nodes.iter().map(TestNode::addr).collect();
        nodes.push(node(*n, &members, peers).await);
    }
    met(&nodes.iter().collect::<Vec<_>>()).await;
    for node in &nodes {
        node.handle.inner.node.warden.pass(LEASE);
    }
    nodes.try_into().unwrap_or_else(|_| unreachable!("as many as asked for"))
}

async fn met(nodes: &[&TestNode]) {
    let all_met = || {
        nodes.iter().all(|a| {
            let met = a.handle.inner.node.warden.look(|table, _| table.met());
            nodes.iter().all(|b| a.device == b.device || met.contains(&b.device))
        })
    };
    until("tables exchanged", all_met).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_holds_the_other_is_refused_at_once_until_it_is_given_back() {
    let [a, mut b, c] = team().await;
    assert_eq!(a.handle.lock(claim("scene", 7)).await, WHOLE);
    assert_eq!(a.handle.lock_held(&spot("scene")), Some(0));
    assert_eq!(a.handle.lock_known(&spot("scene")), None);
    for other in [&b, &c] {
        until("known", || other.handle.lock_known(&spot("scene")).is_some()).await;
        let known = other.handle.lock_known(&spot("scene")).unwrap();
        assert_eq!((known.device, known.whole, known.unreachable), (a.device, true, 0));
        assert!(known.since_ms > 1_500_000_000_000, "{known:?}");
        assert_eq!(holder(other.handle.lock(claim("scene", 1)).await), Some(a.device));
        assert_eq!(other.handle.lock_known(&spot("other")), None);
        assert_eq!(other.handle.lock_held(&spot("scene")), None);
    }
    b.expect_event(Event::LocksChanged(vec![scope("scene")])).await;
    a.handle.unlock(&scope("scene"));
    b.expect_event(Event::LocksChanged(vec![scope("scene")])).await;
    assert_eq!(b.handle.lock_known(&spot("scene")), None);
    until("free at c", || c.handle.lock_known(&spot("scene")).is_none()).await;
    assert_eq!(b.handle.lock(claim("scene", 9)).await, WHOLE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_at_once_never_both_and_never_neither() {
    let [a, b, c] = team().await;
    let mut won = [0, 0];
    for round in 0..200 {
        let name = format!("scene {}", round % 7);
        // Now the one asks first, now the other; and whoever does is not always the better.
        let turned = round % 2 == 1;
        let (first, second) = if turned { (&b, &a) } else { (&a, &b) };
        let one = first.handle.lock(claim(&name, 10 + round % 3));
        let two = second.handle.lock(claim(&name, 11));
        let outcomes = tokio::join!(one, two);
        let held =
            [outcomes.0, outcomes.1].map(|outcome| matches!(outcome, LockOutcome::Held { .. }));
        assert_eq!(held.iter().filter(|held| **held).count(), 1, "round {round}: {outcomes:?}");
        let (winner, loser) = if held[0] { (first, outcomes.1) } else { (second, outcomes.0) };
        assert_eq!(holder(loser), Some(winner.device), "round {round}");
        won[usize::from(winner.device == b.device)] += 1;
        winner.handle.unlock(&scope(&name));
        for node in [&a, &b, &c] {
            until("free", || node.handle.lock_known(&spot(&name)).is_none()).await;
        }
    }
    assert!(won.iter().all(|rounds| *rounds > 0), "{won:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uncontended_claim_is_one_message_to_each_and_one_back() {
    let [a, b, c] = team().await;
    let counts = || [&a, &b, &c].map(|n| n.handle.inner.node.warden.said());
    for n in 0..20 {
        let before = counts();
        assert_eq!(a.handle.lock(claim(&format!("scene {n}"), 1)).await, WHOLE);
        let after = counts();
        let sent = after.iter().zip(&before).map(|(after, before)| after - before).sum::<u64>();
        // Renewals fall between them now and then.
        if sent == 4 {
            return;
        }
    }
    panic!("never 2 (N - 1) messages");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_for_a_directory_covers_what_is_below_it() {
    let [a, b] = team().await;
    let dir = DirId::from_bytes([5; 32]);
    let below = LockClaim {
        scope: Scope::Below(dir),
        above: vec![DirId::ROOT],
        bases: vec![],
        priority: 1,
    };
    assert_eq!(a.handle.lock(below.clone()).await, WHOLE);
    let inside = Register::new(DirId::from_bytes([6; 32]), EntryName::new("x").unwrap());
    let at = Spot { register: inside, above: vec![DirId::from_bytes([6; 32]), dir, DirId::ROOT] };
    until("known", || b.handle.lock_known(&at).is_some()).await;
    assert_eq!(b.handle.lock_known(&spot("outside")), None);
    assert_eq!(a.handle.lock_held(&at), Some(0));
    // And the other way round: a name that is held refuses its directory.
    a.handle.unlock(&Scope::Below(dir));
    until("free", || b.handle.lock_known(&at).is_none()).await;
    let name = LockClaim {
        scope: Scope::Name(at.register.clone()),
        above: at.above.clone(),
        bases: vec![],
        priority: 2,
    };
    assert_eq!(b.handle.lock(name).await, WHOLE);
    assert_eq!(holder(a.handle.lock(below).await), Some(b.device));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grantor_says_that_it_has_a_newer_version() {
    let [a, b] = team().await;
    b.journal.set_official(register("scene"), version(2));
    let mut stale = claim("scene", 1);
    stale.bases = vec![version(1)];
    let outcome = a.handle.lock(stale.clone()).await;
    assert_eq!(outcome, LockOutcome::Held { unreachable: 0, newer: true });
    a.handle.unlock(&scope("scene"));
    stale.bases = vec![version(2)];
    assert_eq!(a.handle.lock(stale).await, WHOLE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alone_one_locks_at_once_and_is_told_who_was_not_asked() {
    let a = node(1, &[1, 2, 3], vec![]).await;
    let outcome = a.handle.lock(claim("scene", 1)).await;
    assert_eq!(outcome, LockOutcome::Held { unreachable: 2, newer: false });
    let alone = node(4, &[4], vec![]).await;
    assert_eq!(alone.handle.lock(claim("scene", 1)).await, WHOLE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_of_a_device_that_is_gone_ends_with_its_lease() {
    let [a, b, c] = team().await;
    assert_eq!(a.handle.lock(claim("scene", 1)).await, WHOLE);
    // Gone without a word.
    a.handle.inner.node.warden.silence();
    a.handle.shutdown().await;
    until("gone", || !b.is_connected(&a.device) && !c.is_connected(&a.device)).await;
    assert_eq!(holder(b.handle.lock(claim("scene", 2)).await), Some(a.device));
    for node in [&b, &c] {
        // In steps, or it would be a sleep.
        for _ in 0..3 {
            node.handle.inner.node.warden.pass(LEASE / 3);
        }
    }
    assert_eq!(
        b.handle.lock(claim("scene", 3)).await,
        LockOutcome::Held { unreachable: 1, newer: false }
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_stops_gives_everything_back_first() {
    let [a, b] = team().await;
    assert_eq!(a.handle.lock(claim("scene", 1)).await, WHOLE);
    until("known", || b.handle.lock_known(&spot("scene")).is_some()).await;
    a.handle.shutdown().await;
    until("free", || b.handle.lock_known(&spot("scene")).is_none()).await;
    assert_eq!(a.handle.lock(claim("other", 1)).await, LockOutcome::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_sleep_nothing_is_held_and_the_others_may() {
    let [mut a, b] = team().await;
    assert_eq!(a.handle.lock(claim("scene", 1)).await, WHOLE);
    a.handle.inner.node.warden.pass(LEASE);
    a.expect_event(Event::LockLost(scope("scene"))).await;
    assert_eq!(a.handle.lock_held(&spot("scene")), None);
    until("free", || b.handle.lock_known(&spot("scene")).is_none()).await;
    assert_eq!(b.handle.lock(claim("scene", 2)).await, WHOLE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_holders_that_meet_the_later_is_told_that_it_has_lost() {
    let a = node(1, &[1, 2], vec![]).await;
    let mut b = node(2, &[1, 2], vec![]).await;
    for (node, priority) in [(&a, 10), (&b, 20)] {
        let alone = LockOutcome::Held { unreachable: 1, newer: false };
        assert_eq!(node.handle.lock(claim("scene", priority)).await, alone);
        node.handle.inner.node.warden.pass(LEASE / 2);
        node.handle.inner.node.warden.pass(LEASE / 2);
    }
    b.handle.dial(a.addr());
    met(&[&a, &b]).await;
    b.expect_event(Event::LockLost(scope("scene"))).await;
    assert_eq!(b.handle.lock_held(&spot("scene")), None);
    assert_eq!(b.handle.lock_known(&spot("scene")).map(|known| known.device), Some(a.device));
    until("whole now", || a.handle.lock_held(&spot("scene")) == Some(0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_was_away_learns_of_locks_before_it_claims() {
    let a = node(1, &[1, 2], vec![]).await;
    assert!(matches!(a.handle.lock(claim("scene", 9)).await, LockOutcome::Held { .. }));
    a.handle.present(&register("open"));
    let b = node(2, &[1, 2], vec![a.addr()]).await;
    met(&[&a, &b]).await;
    // A better priority does not help against a lock.
    assert_eq!(holder(b.handle.lock(claim("scene", 1)).await), Some(a.device));
    assert_eq!(b.handle.who_has_open(&register("open")).first().map(|row| row.0), Some(a.device));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_device_grants_once_every_member_has_told_what_it_holds() {
    let [a, b] = team().await;
    b.handle.shutdown().await;
    until("gone", || !a.is_connected(&b.device)).await;
    let b = node_on(2, config(2, vec![a.addr()]), b.journal.clone(), b.store.clone()).await;
    let in_grace = || b.handle.inner.node.warden.look(|table, _| table.is_in_grace());
    until("it grants again", || !in_grace()).await;
    assert_eq!(a.handle.lock(claim("scene", 1)).await, WHOLE);
    assert!(b.handle.lock_known(&spot("scene")).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_opens_a_document_is_seen_until_it_closes_it_or_goes() {
    let [a, mut b] = team().await;
    a.handle.present(&register("scene"));
    b.expect_event(Event::LocksChanged(vec![scope("scene")])).await;
    assert_eq!(b.handle.who_has_open(&register("scene")).first().map(|row| row.0), Some(a.device));
    let kinds: Vec<LockKind> = b.handle.locks().iter().map(|lock| lock.kind).collect();
    assert_eq!(kinds, [LockKind::Presence]);
    // Reading hinders nobody.
    assert_eq!(b.handle.lock(claim("scene", 1)).await, WHOLE);
    a.handle.absent(&register("scene"));
    until("closed", || b.handle.who_has_open(&register("scene")).is_empty()).await;
    a.handle.present(&register("scene"));
    until("open", || !b.handle.who_has_open(&register("scene")).is_empty()).await;
    a.handle.shutdown().await;
    until("gone", || b.handle.who_has_open(&register("scene")).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_holds_nothing() {
    let [a, b] = team().await;
    assert_eq!(b.handle.lock(claim("scene", 1)).await, WHOLE);
    until("known", || a.handle.lock_known(&spot("scene")).is_some()).await;
    a.journal.set_member(b.device, false);
    a.handle.members_changed();
    until("free", || a.handle.lock_known(&spot("scene")).is_none()).await;
    assert_eq!(a.handle.lock(claim("scene", 2)).await, WHOLE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_floods_is_cut_off_and_another_is_not_hindered() {
    let [mut a, b, c] = team().await;
    let flood = limits::LOCK_BURST_MAX as usize + 1000;
    b.handle.inner.node.warden.flood(a.device, flood);
    a.expect_event(Event::PeerMisbehaved(b.device)).await;
    assert!(a.handle.locks().len() <= limits::LOCKS_OF_PEER_MAX);
    assert!(matches!(c.handle.lock(claim("scene", 1)).await, LockOutcome::Held { .. }));
    until("known", || a.handle.lock_known(&spot("scene")).is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_leaves_both_a_lock_and_says_so_and_one_after_it() {
    let b = node(2, &[1, 2, 3], vec![]).await;
    // The ends know nobody but the middle, and each other not at all.
    let a = node(1, &[1, 2], vec![b.addr()]).await;
    let c = node(3, &[2, 3], vec![b.addr()]).await;
    met(&[&a, &b]).await;
    met(&[&c, &b]).await;
    for node in [&a, &b, &c] {
        node.handle.inner.node.warden.pass(LEASE);
    }
    // What the one in the middle has granted to one end it does not grant to the other.
    assert_eq!(a.handle.lock(claim("scene", 5)).await, WHOLE);
    assert_eq!(holder(c.handle.lock(claim("scene", 1)).await), Some(a.device));
    a.handle.unlock(&scope("scene"));
    until("free", || b.handle.lock_known(&spot("scene")).is_none()).await;
    assert_eq!(c.handle.lock(claim("scene", 6)).await, WHOLE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_waits_for_the_silent_no_longer_than_its_patience() {
    let [a, b] = team().await;
    b.handle.inner.node.warden.silence();
    let outcome = tokio::time::timeout(WAIT, a.handle.lock(claim("scene", 1))).await.unwrap();
    assert_eq!(outcome, LockOutcome::Held { unreachable: 1, newer: false });
}
