//! How long versions are kept: who says so, and what is known of each.

use journal::retention::Policy;
use journal::signed::VerifiedEntry;
use journal::{Arrivals, Journal, Now, Op, VersionId};

use crate::cluster::Rng;
use crate::forge::{Forge, feed, gone, journal_of, moved, now, put, v};

const DAY: u64 = 24 * 3_600 * 1_000;
/// Noon of a day.
const START: u64 = 20_000 * DAY + DAY / 2;

fn policy(days: u64) -> Policy {
    Policy { keep_all_s: days * 86_400, keep_daily_s: days * 86_400 }
}

trait At {
    /// An entry of so many hours after the start.
    fn at(
        &mut self,
        device: char,
        hours: u64,
        ops: Vec<Op>,
        see: &[&VerifiedEntry],
    ) -> VerifiedEntry;
}

impl At for Forge {
    fn at(
        &mut self,
        device: char,
        hours: u64,
        ops: Vec<Op>,
        see: &[&VerifiedEntry],
    ) -> VerifiedEntry {
        self.entry(device, (START + hours * DAY / 24) << 16, ops, see, &[])
    }
}

fn hours(hours: u64) -> Now {
    now(START + hours * DAY / 24)
}

/// Whether a version is kept and owed.
fn stands(journal: &Journal, at: Now, version: VersionId) -> (bool, bool) {
    let retention = journal.retention(Arrivals::Known, at).unwrap();
    let (facts, _) = journal.facts(&retention, version).unwrap().unwrap();
    (retention.rules.kept(&facts), retention.rules.owed(&facts))
}

const STAYS: (bool, bool) = (true, true);
const GOES: (bool, bool) = (false, false);

#[test]
fn the_last_owner_who_says_so_decides_in_whatever_order_it_comes() {
    let mut f = Forge::new();
    assert_eq!(f.journal().policy(), Policy::default());
    let first = f.at('A', 1, vec![Op::Retain(policy(5))], &[]);
    // An editor's word counts for nothing.
    f.at('B', 2, vec![Op::Retain(policy(1))], &[&first]);
    f.at('A', 3, vec![Op::Retain(policy(9))], &[]);
    f.at('C', 4, vec![put("x", "x", &[])], &[]);
    assert_eq!(f.journal().policy(), policy(9));
    let hash = f.journal().tree_hash();
    let mut rng = Rng(7);
    for _ in 0..30 {
        let mut all = f.all.clone();
        rng.shuffle(&mut all);
        let (journal, _) = journal_of(&f.genesis);
        feed(&journal, std::slice::from_ref(&f.admin));
        feed(&journal, &all);
        feed(&journal, &all);
        assert_eq!(journal.policy(), policy(9));
        assert_eq!(journal.tree_hash(), hash);
    }
}

#[test]
fn what_is_shown_stays_and_what_was_replaced_goes() {
    let mut f = Forge::new();
    f.at('A', 0, vec![Op::Retain(policy(0))], &[]);
    let one = f.at('A', 1, vec![put("f", "one", &[])], &[]);
    let two = f.at('A', 2, vec![put("f", "two", &[v(&one, 0)])], &[]);
    let other = f.at('B', 3, vec![put("f", "other", &[v(&one, 0)])], &[&one]);
    let away = f.at('A', 4, vec![put("g", "gone", &[])], &[]);
    let over = f.at('A', 5, vec![gone("g", &[v(&away, 0)])], &[]);
    let journal = f.journal();
    let now = hours(9);
    assert_eq!(stands(&journal, now, v(&one, 0)), GOES);
    assert_eq!(stands(&journal, now, v(&two, 0)), STAYS, "official");
    assert_eq!(stands(&journal, now, v(&other, 0)), STAYS, "a conflict copy");
    assert_eq!(stands(&journal, now, v(&away, 0)), GOES, "of a removed file");
    assert_eq!(stands(&journal, now, v(&over, 0)), STAYS);
    // The copy is dealt with.
    let drop = Op::Resolve {
        dir: journal::DirId::ROOT,
        name: crate::forge::name("f"),
        drop: vec![v(&other, 0)],
    };
    f.at('A', 6, vec![drop], &[&other]);
    assert_eq!(stands(&f.journal(), now, v(&other, 0)), GOES);
}

#[test]
fn a_renamed_file_keeps_its_bytes_through_its_new_name() {
    let mut f = Forge::new();
    f.at('A', 0, vec![Op::Retain(policy(0))], &[]);
    let one = f.at('A', 1, vec![put("f", "one", &[])], &[]);
    let to =
        f.at('A', 2, vec![moved("f", "g", &[v(&one, 0)]), put("g", "one", &[v(&one, 0)])], &[]);
    let journal = f.journal();
    assert_eq!(stands(&journal, hours(9), v(&one, 0)), GOES);
    assert_eq!(stands(&journal, hours(9), v(&to, 1)), STAYS);
    let (named, _) = journal.contents(None, 10);
    assert_eq!(named.len(), 2);
    assert_eq!(named[0].content, named[1].content);
    assert_eq!([named[0].version, named[1].version], [v(&to, 1), v(&one, 0)]);
}

#[test]
fn a_snapshot_keeps_exactly_what_it_shows() {
    let mut f = Forge::new();
    f.at('A', 0, vec![Op::Retain(policy(1))], &[]);
    let one = f.at('A', 1, vec![put("f", "one", &[])], &[]);
    let two = f.at('A', 2, vec![put("f", "two", &[v(&one, 0)])], &[]);
    f.at('A', 3, vec![Op::Snapshot { name: "cut".into() }], &[]);
    let three = f.at('A', 4, vec![put("f", "three", &[v(&two, 0)])], &[]);
    f.at('A', 5, vec![put("f", "four", &[v(&three, 0)])], &[]);
    let later = f.at('A', 24 * 6, vec![put("x", "x", &[])], &[]);
    let journal = f.journal();
    let now = hours(24 * 6 + 1);
    assert_eq!(stands(&journal, now, v(&one, 0)), GOES);
    assert_eq!(stands(&journal, now, v(&two, 0)), STAYS);
    assert_eq!(stands(&journal, now, v(&three, 0)), GOES);
    // Of a device that was away, and has seen nothing since.
    f.at('B', 24 * 7, vec![Op::Snapshot { name: "late".into() }], &[&three]);
    let journal = f.journal();
    assert_eq!(stands(&journal, hours(24 * 8), v(&three, 0)), (true, false));
    assert_eq!(stands(&journal, hours(24 * 8), v(&later, 0)), STAYS);
}

#[test]
fn an_entry_that_was_dated_back_ages_nothing_here() {
    let mut f = Forge::new();
    let one = f.at('A', 1, vec![put("f", "one", &[])], &[]);
    for day in 1..100 {
        f.at('A', 24 * day, vec![put(&format!("{day}"), "x", &[])], &[]);
    }
    // Written now, says B, on the first day.
    f.at('B', 2, vec![put("f", "two", &[v(&one, 0)])], &[&one]);
    let journal = f.journal();
    assert_eq!(stands(&journal, hours(24 * 100), v(&one, 0)), (true, false));
    // Whoever does not ask when it came cannot know.
    let retention = journal.retention(Arrivals::Unknown, hours(24 * 100)).unwrap();
    let (facts, _) = journal.facts(&retention, v(&one, 0)).unwrap().unwrap();
    assert!(!retention.rules.kept(&facts));
}

#[test]
fn work_that_counts_for_nothing_replaces_nothing() {
    let mut f = Forge::new();
    f.at('A', 0, vec![Op::Retain(policy(0))], &[]);
    let one = f.at('A', 1, vec![put("f", "one", &[])], &[]);
    let two = f.at('B', 2, vec![put("f", "two", &[v(&one, 0)])], &[&one]);
    let device = crate::forge::signer_of('B').device();
    f.at('A', 3, vec![Op::Remove { device, frontier: vec![] }], &[&two]);
    assert_eq!(stands(&f.journal(), hours(9), v(&one, 0)), STAYS);
}

#[test]
fn a_frontier_reaches_what_it_has_seen() {
    let mut f = Forge::new();
    let one = f.at('A', 1, vec![put("f", "one", &[])], &[]);
    let behind = f.journal().frontier();
    let two = f.at('B', 2, vec![put("g", "two", &[])], &[&one]);
    let journal = f.journal();
    let retention = journal.retention(Arrivals::Unknown, hours(9)).unwrap();
    let place = |entry| journal.facts(&retention, v(entry, 0)).unwrap().unwrap().1;
    let reach = journal.reach(&behind).unwrap();
    assert!(reach.has(place(&one)) && !reach.has(place(&two)));
    let all = journal.reach(&journal.frontier()).unwrap();
    assert!(all.has(place(&one)) && all.has(place(&two)));
}

#[test]
fn of_a_forked_chain_what_was_an_end_once_is_under_what_follows_it() {
    let mut f = Forge::new();
    let base = f.at('B', 1, vec![put("f", "base", &[])], &[]);
    f.at('B', 2, vec![put("g", "one", &[])], &[]);
    let only_one = f.journal().frontier();
    let other = f.after('B', Some(base), (START + DAY) << 16, vec![put("h", "x", &[])], &[], &[]);
    let both = f.journal().frontier();
    f.after('B', Some(other), (START + 2 * DAY) << 16, vec![], &[], &[]);
    let journal = f.journal();
    let now = journal.frontier();
    assert!(journal.is_under(&both, &now) && journal.is_under(&only_one, &both));
    assert!(!journal.is_under(&both, &only_one) && !journal.is_under(&now, &both));
    let unknown = journal::Tip { entry: journal::EntryId::from_bytes([1; 32]), ..now.tips[0] };
    assert!(!journal.is_under(&journal::Frontier { tips: vec![unknown] }, &now));
}
