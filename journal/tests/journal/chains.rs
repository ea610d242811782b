//! Chains that part, entries that come from nowhere: what is taken in must not depend on who came first.

use std::sync::Arc;

use journal::chain::TIPS_MAX;
use journal::entry::Entry;
use journal::error::RefuseReason;
use journal::hlc::Hlc;
use journal::signed::VerifiedEntry;
use journal::{EntryId, Journal};

use crate::forge::{Forge, feed, journal_of, now, put, signer_of};

/// Both send what the other lacks, by what its frontier says, and answer what is asked for, until nothing moves.
fn exchange(a: &Journal, b: &Journal) {
    for _ in 0..200 {
        let mut moved = false;
        for (to, from) in [(a, b), (b, a)] {
            let lacking = from.lacking(&to.frontier(), usize::MAX);
            let mut got = to.receive(&lacking, now(0)).unwrap();
            while !got.applied.is_empty() || !got.wants.is_empty() {
                moved = moved || !got.applied.is_empty();
                let wanted: Vec<Arc<[u8]>> =
                    got.wants.iter().filter_map(|id| from.entry(id)).collect();
                if wanted.is_empty() {
                    break;
                }
                got = to.receive(&wanted, now(0)).unwrap();
            }
        }
        if !moved {
            return;
        }
    }
}

/// Two journals, each with one branch of B's chain after `common` entries, of `one` and `other` entries.
fn parted(common: u64, one: u64, other: u64) -> (Journal, Journal) {
    let mut forge = Forge::new();
    let mut last = None;
    for n in 0..common {
        last = Some(forge.e('B', n, vec![put("x", &format!("{n}"), &[])], &[]));
    }
    let shared = forge.all.clone();
    let branch = |forge: &mut Forge, name: &str, len: u64| {
        let mut prev = last.clone();
        let mut entries = Vec::new();
        for n in 0..len {
            let ops = vec![put(name, &format!("{name}{n}"), &[])];
            let entry = forge.after('B', prev, 1000 + n, ops, &[], &[]);
            prev = Some(entry.clone());
            entries.push(entry);
        }
        entries
    };
    let (first, second) = (branch(&mut forge, "one", one), branch(&mut forge, "other", other));
    let (a, _) = journal_of(&forge.genesis);
    let (b, _) = journal_of(&forge.genesis);
    for (journal, branch) in [(&a, first), (&b, second)] {
        feed(journal, &shared);
        assert_eq!(feed(journal, &branch).refused, vec![]);
    }
    (a, b)
}

#[test]
fn branches_of_one_chain_find_each_other() {
    for (common, one, other) in [(0, 1, 1), (3, 1, 1), (3, 5, 5), (3, 1, 4), (3, 4, 1), (5, 90, 70)]
    {
        let (a, b) = parted(common, one, other);
        exchange(&a, &b);
        assert_eq!(a.frontier(), b.frontier(), "after {common}: {one} and {other}");
        assert_eq!(a.tree_hash(), b.tree_hash());
        assert_eq!(a.counts().entries, 2 + common + one + other);
    }
}

#[test]
fn a_device_with_more_branches_than_can_be_named_takes_no_room_of_others() {
    let mut forge = Forge::new();
    for device in ['A', 'B', 'C', 'D'] {
        forge.e(device, 1, vec![put(&device.to_string(), "x", &[])], &[]);
    }
    let first = forge.e('B', 2, vec![put("first", "x", &[])], &[]);
    for n in 0..TIPS_MAX as u64 + 50 {
        forge.after('B', Some(first.clone()), 100 + n, vec![], &[], &[]);
    }
    let journal = forge.journal();
    let tips = journal.frontier().tips;
    assert_eq!(tips.len(), TIPS_MAX);
    assert!(tips.is_sorted());
    for device in ['A', 'B', 'C', 'D'] {
        let device = signer_of(device).device();
        assert!(tips.iter().any(|tip| tip.device == device), "one is left out");
    }
    // What the named have seen is not sent; of the branches only those that are not named are.
    let (other, _) = journal_of(&forge.genesis);
    feed(&other, &forge.all);
    let sent = journal.lacking(&other.frontier(), usize::MAX).len();
    assert!(sent <= 60, "{sent} entries are sent that are there");
}

#[test]
fn who_is_ahead_on_one_chain_is_sent_nothing() {
    let mut forge = Forge::new();
    for n in 0..50 {
        forge.e('B', n, vec![put("x", &format!("{n}"), &[])], &[]);
    }
    let ahead = forge.journal();
    let (behind, _) = journal_of(&forge.genesis);
    feed(&behind, &forge.all[..20]);
    assert_eq!(behind.lacking(&ahead.frontier(), usize::MAX).len(), 0);
    assert_eq!(ahead.lacking(&behind.frontier(), usize::MAX).len(), forge.all.len() - 20);
}

/// An entry of B that has seen the genesis and not its own admission.
fn from_before(forge: &Forge) -> VerifiedEntry {
    let signer = signer_of('B');
    let entry = Entry {
        drive: forge.drive,
        device: signer.device(),
        seq: 0,
        prev: None,
        seen: vec![forge.genesis.id()],
        late: vec![],
        hlc: Hlc::from_ms(5000),
        saved_at_ms: 5000,
        ops: vec![put("x", "too early", &[])],
    };
    VerifiedEntry::sign(entry, &signer).unwrap()
}

#[test]
fn an_entry_that_has_not_seen_its_authors_admission_is_taken_by_nobody() {
    let forge = Forge::new();
    let early = from_before(&forge);
    let (before, _) = journal_of(&forge.genesis);
    let after = forge.journal();
    for journal in [&before, &after] {
        let refused = feed(journal, std::slice::from_ref(&early)).refused;
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].why, RefuseReason::NotMember);
    }
}

#[test]
fn who_brings_what_a_bad_entry_waited_for_is_not_blamed_for_it() {
    let mut forge = Forge::new();
    let a = forge.e('B', 50, vec![put("x", "a", &[])], &[]);
    // Not after what it has seen.
    let signer = signer_of('C');
    let bad = Entry {
        drive: forge.drive,
        device: signer.device(),
        seq: 0,
        prev: None,
        seen: sorted(vec![forge.admin.id(), a.id()]),
        late: vec![],
        hlc: a.entry().hlc,
        saved_at_ms: 0,
        ops: vec![],
    };
    let bad = VerifiedEntry::sign(bad, &signer).unwrap();
    let (journal, _) = journal_of(&forge.genesis);
    assert_eq!(feed(&journal, &[forge.admin.clone(), bad.clone()]).refused, vec![]);
    let got = feed(&journal, std::slice::from_ref(&a));
    assert_eq!(got.applied, vec![a.id()]);
    assert_eq!(got.refused.len(), 1);
    assert_eq!(got.refused[0].why, RefuseReason::GivenUp);
    let again = feed(&journal, &[bad]).refused;
    assert_eq!(again[0].why, RefuseReason::Clock);
}

fn sorted(mut ids: Vec<EntryId>) -> Vec<EntryId> {
    ids.sort_unstable();
    ids
}
