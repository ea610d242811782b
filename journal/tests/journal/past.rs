//! The tree of a moment is the tree of a journal that holds exactly the moment's entries.

use std::collections::{BTreeMap, BTreeSet};

use journal::signed::VerifiedEntry;
use journal::{DirId, EntryId, Journal, Moment, Once, Op, Past, ViewKind, ViewNode};

use crate::cluster::Cluster;
use crate::forge::{
    Forge, feed, file, gone, journal_of, list, name, now, put, put_in, signer_of, v,
};

const STEPS: usize = 60;

/// Everything shown, from the root down, by `look`.
fn walk(look: impl Fn(DirId) -> Vec<ViewNode>) -> Vec<(DirId, ViewNode)> {
    let (mut out, mut queue) = (Vec::new(), vec![DirId::ROOT]);
    while let Some(dir) = queue.pop() {
        for node in look(dir) {
            if let ViewKind::Dir { dir, .. } = node.kind {
                queue.push(dir);
            }
            out.push((dir, node));
        }
    }
    out
}

/// The causal past of `of`, themselves included.
pub fn closure(by_id: &BTreeMap<EntryId, VerifiedEntry>, of: &[EntryId]) -> Vec<VerifiedEntry> {
    let (mut passed, mut queue) = (BTreeSet::new(), of.to_vec());
    while let Some(id) = queue.pop() {
        if passed.insert(id) {
            queue.extend(by_id[&id].entry().parents());
        }
    }
    passed.iter().map(|id| by_id[id].clone()).collect()
}

/// Entries by the millisecond in which they count as published, from the design's words.
pub fn published_ms(by_id: &BTreeMap<EntryId, VerifiedEntry>) -> BTreeMap<EntryId, u64> {
    let mut ms: BTreeMap<EntryId, u64> =
        by_id.iter().map(|(id, e)| (*id, e.entry().hlc.ms())).collect();
    let mut late: BTreeMap<EntryId, u64> = BTreeMap::new();
    for by in by_id.values() {
        for start in &by.entry().late {
            let (mut chain, mut at) = (vec![], by.entry().prev);
            while let Some(id) = at {
                chain.push(id);
                if id == *start {
                    for id in &chain {
                        let first = late.entry(*id).or_insert(u64::MAX);
                        *first = by.entry().hlc.ms().min(*first);
                    }
                    break;
                }
                at = by_id[&id].entry().prev;
            }
        }
    }
    ms.extend(late);
    ms
}

fn compare(journal: &Journal, past: &Past, then: &Journal, what: &str) {
    let expected = walk(|dir| list(then, dir));
    let shown = walk(|dir| past.list(journal, dir).unwrap());
    assert_eq!(shown, expected, "{what}");
    for (dir, node) in &expected {
        let found = past.lookup(journal, *dir, &node.shown).unwrap();
        assert_eq!(found.as_ref(), Some(node), "{what}: a listed name is found");
    }
}

fn check(seed: u64, forks: bool, removals: bool) {
    let mut cluster = Cluster::new(seed, forks);
    cluster.removals = removals;
    cluster.run(STEPS);
    let entries = cluster.entries();
    let by_id: BTreeMap<EntryId, VerifiedEntry> =
        entries.iter().map(|e| (e.id(), e.clone())).collect();
    let (journal, _) = journal_of(&cluster.genesis);
    cluster.deliver(&entries, &journal);
    for _ in 0..6 {
        let at = cluster.rng.pick(&entries).unwrap().id();
        let (then, _) = journal_of(&cluster.genesis);
        cluster.deliver(&closure(&by_id, &[at]), &then);
        let past = Past::new(Moment::Snapshot(at));
        compare(&journal, &past, &then, &format!("seed {seed}, snapshot {at}"));
    }
    if forks {
        // A device whose disk came back may call one entry late twice; then only closedness is
        // promised.
        return;
    }
    let published = published_ms(&by_id);
    let (first, last) = (2000, published.values().max().copied().unwrap());
    for _ in 0..6 {
        let ms = first + cluster.rng.below((last - first + 2) as usize) as u64;
        let within: Vec<EntryId> =
            published.iter().filter(|(_, at)| **at <= ms).map(|(id, _)| *id).collect();
        let (then, _) = journal_of(&cluster.genesis);
        cluster.deliver(&closure(&by_id, &within), &then);
        let past = Past::new(Moment::At { ms });
        compare(&journal, &past, &then, &format!("seed {seed}, {ms} ms"));
    }
}

#[test]
fn a_moment_shows_what_its_entries_alone_fold_to() {
    for seed in 5000..5060 {
        check(seed, false, false);
    }
}

#[test]
fn so_it_does_with_forked_chains() {
    for seed in 6000..6040 {
        check(seed, true, false);
    }
}

#[test]
fn so_it_does_with_removals_and_changed_roles() {
    for seed in 7000..7040 {
        check(seed, false, true);
    }
}

#[test]
fn what_is_late_counts_from_when_it_was_said_and_a_snapshot_before_that_has_it() {
    let mut f = Forge::new();
    let base = f.e('A', 100 << 16, vec![put("x", "v0", &[])], &[]);
    let work = vec![put("x", "offline", &[v(&base, 0)]), Op::Snapshot { name: "mine".into() }];
    let offline = f.e('B', 200 << 16, work, &[&base]);
    let team = f.e('A', 300 << 16, vec![put("x", "team", &[v(&base, 0)])], &[]);
    f.late('B', 400 << 16, &[&team], &offline);
    let journal = f.journal();
    let shown = |moment: Moment| {
        let all = Past::new(moment).list(&journal, DirId::ROOT).unwrap();
        all.into_iter().map(|node| node.version).collect::<Vec<_>>()
    };
    assert_eq!(shown(Moment::At { ms: 250 }), [v(&base, 0)], "nobody had it then");
    assert_eq!(shown(Moment::At { ms: 350 }), [v(&team, 0)]);
    assert_eq!(shown(Moment::At { ms: 450 }).len(), 2, "published as a copy");
    assert_eq!(shown(Moment::Snapshot(offline.id())), [v(&offline, 0)], "its author saw its work");
}

#[test]
fn a_moment_follows_what_arrives_afterwards() {
    let mut f = Forge::new();
    let one = f.e('A', 100 << 16, vec![put("x", "v0", &[])], &[]);
    let journal = f.journal();
    let past = Past::new(Moment::At { ms: 500 });
    assert_eq!(past.list(&journal, DirId::ROOT).unwrap().len(), 1);
    let other = f.e('B', 200 << 16, vec![put("y", "v0", &[])], &[]);
    feed(&journal, std::slice::from_ref(&other));
    assert_eq!(past.list(&journal, DirId::ROOT).unwrap().len(), 2, "published before that moment");
    let later = f.e('A', 600 << 16, vec![gone("x", &[v(&one, 0)])], &[]);
    feed(&journal, std::slice::from_ref(&later));
    assert_eq!(past.list(&journal, DirId::ROOT).unwrap().len(), 2, "removed after that moment");
    assert_eq!(list(&journal, DirId::ROOT).len(), 1);
}

#[test]
fn before_the_drive_began_there_is_nothing_not_even_a_root() {
    let signer = signer_of('A');
    let genesis = Journal::genesis(&signer, crate::forge::spec(), now(1000)).unwrap();
    let (journal, _) = journal_of(&genesis);
    let before = Moment::At { ms: 999 };
    assert!(!journal.existed(before).unwrap());
    assert_eq!(Past::new(before).list(&journal, DirId::ROOT).unwrap(), vec![]);
    assert!(journal.existed(Moment::At { ms: 1000 }).unwrap());
    assert!(!journal.existed(Moment::Snapshot(EntryId::from_bytes([1; 32]))).unwrap());
    assert!(journal.differ(Moment::At { ms: 999 }, Moment::At { ms: 1000 }).unwrap());
    assert!(!journal.differ(Moment::At { ms: 1000 }, Moment::At { ms: 2000 }).unwrap());
}

#[test]
fn removed_directories_nested_deeper_than_a_stack_are_judged_all_the_same() {
    const DEPTH: usize = 20_000;
    let mut f = Forge::new();
    let (mut parent, mut makings, mut all) = (DirId::ROOT, Vec::new(), Vec::new());
    for _ in 0..DEPTH {
        let op = f.mkdir(parent, "d", &[]);
        let Op::MkDir { dir, .. } = op else { unreachable!() };
        makings.push((parent, dir));
        all.push(op);
        parent = dir;
    }
    let mut last = 1;
    let mut versions = Vec::new();
    for ops in all.chunks(1000) {
        let entry = f.e('A', last, ops.to_vec(), &[]);
        versions.extend((0..ops.len()).map(|n| v(&entry, n as u32)));
        last += 1;
    }
    let gones: Vec<Op> = makings
        .iter()
        .zip(&versions)
        .rev()
        .map(|((parent, _), made)| crate::forge::gone_in(*parent, "d", &[*made]))
        .collect();
    for ops in gones.chunks(1000) {
        f.e('A', last, ops.to_vec(), &[]);
        last += 1;
    }
    let journal = f.journal();
    let past = Past::new(Moment::At { ms: 5000 });
    assert_eq!(past.list(&journal, DirId::ROOT).unwrap(), vec![]);
}

#[test]
fn what_once_stood_at_a_name_is_found_there() {
    let mut f = Forge::new();
    let dir = f.dir_id(DirId::ROOT, "dir", &[]);
    let ops = vec![put("x", "v0", &[]), f.mkdir(DirId::ROOT, "dir", &[]), put("y", "v0", &[])];
    let one = f.e('A', 1, ops, &[]);
    let ops = vec![put_in(dir, "z", file("z"), &[])];
    let two = f.e('A', 2, ops, &[]);
    let removed = vec![
        crate::forge::gone_in(dir, "z", &[v(&two, 0)]),
        gone("dir", &[v(&one, 1)]),
        gone("x", &[v(&one, 0)]),
    ];
    f.e('A', 3, removed, &[]);
    let journal = f.journal();
    let once: Vec<(String, Once)> = journal
        .once(DirId::ROOT)
        .unwrap()
        .into_iter()
        .map(|node| (node.name.as_str().to_owned(), node.what))
        .collect();
    let expected = [("dir", Once::Dir(dir)), ("x", Once::Leaf), ("y", Once::Leaf)];
    assert_eq!(once, expected.map(|(name, what)| (name.to_owned(), what)));
    let found = journal.once_at(dir, &name("z")).unwrap().map(|node| node.what);
    assert_eq!(found, Some(Once::Leaf));
    assert_eq!(journal.once_at(dir, &name("nothing")).unwrap(), None);
    assert_eq!(journal.history(dir, &name("z")).unwrap().len(), 2);
}

#[test]
fn a_removed_directory_that_was_a_copy_is_found_under_the_name_it_had() {
    let mut f = Forge::new();
    f.e('A', 1, vec![put("n.d", "file", &[])], &[]);
    let made = f.e('B', 2, vec![f.mkdir(DirId::ROOT, "n.d", &[])], &[]);
    let dir = f.dir_id(DirId::ROOT, "n.d", &[]);
    let kid = f.e('B', 3, vec![put_in(dir, "kid", file("kid"), &[])], &[]);
    let journal = f.journal();
    let mut copy = crate::forge::list(&journal, DirId::ROOT).into_iter().map(|node| node.shown);
    let copy = copy.find(|shown| shown.as_str().contains("conflict")).unwrap();
    let ops = vec![crate::forge::gone_in(dir, "kid", &[v(&kid, 0)]), gone("n.d", &[v(&made, 0)])];
    f.e('B', 4, ops, &[]);
    let journal = f.journal();
    assert_eq!(journal.lookup(DirId::ROOT, &copy).unwrap(), None);
    let found = journal.once_at(DirId::ROOT, &copy).unwrap().map(|node| node.what);
    assert_eq!(found, Some(Once::Dir(dir)));
    assert_eq!(journal.history(dir, &name("kid")).unwrap().len(), 2);
    for other in ["n (conflict B 000000).d", "n (conflict ).d", " (conflict B", "x (conflict B)"] {
        assert_eq!(journal.once_at(DirId::ROOT, &name(other)).unwrap(), None, "{other}");
    }
}

#[test]
fn directories_that_were_moved_into_each_other_are_found_in_one_place_each() {
    let mut f = Forge::new();
    let x = f.dir_id(DirId::ROOT, "x", &[]);
    let y = f.dir_id(x, "y", &[]);
    let one = f.e('A', 1, vec![f.mkdir(DirId::ROOT, "x", &[]), f.mkdir(x, "y", &[])], &[]);
    let out = vec![crate::forge::move_dir(y, v(&one, 1), (DirId::ROOT, "y"), &[])];
    f.e('A', 2, out, &[]);
    f.e('A', 3, vec![crate::forge::move_dir(x, v(&one, 0), (y, "x"), &[])], &[]);
    let journal = f.journal();
    let (mut open, mut found) = (vec![DirId::ROOT], Vec::new());
    while let Some(dir) = open.pop() {
        for node in journal.once(dir).unwrap() {
            if let Once::Dir(below) = node.what {
                found.push(below);
                open.push(below);
            }
        }
        assert!(found.len() < 10, "a circle");
    }
    assert_eq!(found, [y, x]);
}

/// Every entry's past, against a journal that holds just that.
fn check_all(f: &Forge, what: &str) {
    let journal = f.journal();
    let all = f.all.iter().chain([&f.genesis]);
    let by_id: BTreeMap<EntryId, VerifiedEntry> = all.map(|e| (e.id(), e.clone())).collect();
    for id in by_id.keys() {
        let (then, _) = journal_of(&f.genesis);
        feed(&then, &closure(&by_id, &[*id]));
        compare(&journal, &Past::new(Moment::Snapshot(*id)), &then, what);
    }
}

#[test]
fn before_it_was_said_late_work_had_its_own_place() {
    let mut f = Forge::new();
    let base = f.e('A', 100 << 16, vec![put("x", "v0", &[])], &[]);
    let offline = f.e('B', 200 << 16, vec![put("x", "offline", &[v(&base, 0)])], &[&base]);
    let team = f.e('A', 300 << 16, vec![put("x", "team", &[v(&base, 0)])], &[]);
    // B has seen the team's work and names the moment before it says what of its own is late.
    let named = f.e('B', 310 << 16, vec![Op::Snapshot { name: "mine".into() }], &[&team]);
    f.late('B', 400 << 16, &[], &offline);
    let journal = f.journal();
    let past = Past::new(Moment::Snapshot(named.id()));
    let then = past.lookup(&journal, DirId::ROOT, &name("x")).unwrap().unwrap();
    assert_eq!(then.version, v(&offline, 0));
    let now = journal.lookup(DirId::ROOT, &name("x")).unwrap().unwrap();
    assert_eq!(now.version, v(&team, 0));
    check_all(&f, "late work");
}

#[test]
fn a_move_that_was_skipped_later_stood_for_who_made_it() {
    let mut f = Forge::new();
    let d = f.dir_id(DirId::ROOT, "d", &[]);
    let made = f.e('A', 100 << 16, vec![f.mkdir(DirId::ROOT, "d", &[])], &[]);
    let to = |at| crate::forge::move_dir(d, v(&made, 0), (DirId::ROOT, at), &[]);
    let offline = f.e('B', 200 << 16, vec![to("mine")], &[&made]);
    let team = f.e('A', 300 << 16, vec![to("theirs")], &[]);
    f.late('B', 400 << 16, &[&team], &offline);
    let journal = f.journal();
    let past = Past::new(Moment::Snapshot(offline.id()));
    let then = past.list(&journal, DirId::ROOT).unwrap();
    assert_eq!(then.iter().map(|n| n.shown.as_str()).collect::<Vec<_>>(), ["mine"]);
    assert_eq!(list(&journal, DirId::ROOT)[0].shown.as_str(), "theirs");
    check_all(&f, "skipped moves");
}

#[test]
fn a_directory_that_was_removed_lived_while_it_showed_something() {
    let mut f = Forge::new();
    let d = f.dir_id(DirId::ROOT, "d", &[]);
    let below = f.dir_id(d, "below", &[]);
    let ops = vec![f.mkdir(DirId::ROOT, "d", &[]), f.mkdir(d, "below", &[])];
    let made = f.e('A', 1, ops, &[]);
    let file = f.e('A', 2, vec![put_in(below, "x", file("x"), &[])], &[]);
    // Nobody's file system removes what is not empty; a member may write it all the same.
    let removed =
        vec![crate::forge::gone_in(d, "below", &[v(&made, 1)]), gone("d", &[v(&made, 0)])];
    f.e('A', 3, removed, &[]);
    f.e('A', 4, vec![crate::forge::gone_in(below, "x", &[v(&file, 0)])], &[]);
    check_all(&f, "removed directories");
}
