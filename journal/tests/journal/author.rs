//! What a device writes: its own entries, their time, what it says is late.

use std::sync::Arc;

use journal::op::{DirAttr, Xattrs};
use journal::signed::VerifiedEntry;
use journal::view::HistoryStanding;
use journal::{AppendError, DirId, Frontier, Journal, Op, Signer, Standing, Value};

use crate::forge::{
    Forge, content, feed, file, gone, list, moved, name, names, now, put, put_in, signer_of, v,
};

const ROOT: DirId = DirId::ROOT;

/// Two journals of one drive, of A and of B, that hold the same.
fn pair() -> (Journal, Signer, Journal, Signer) {
    let forge = Forge::new();
    (forge.journal(), signer_of('A'), forge.journal(), signer_of('B'))
}

fn pull(to: &Journal, from: &Journal) {
    let got = to.receive(&from.lacking(&to.frontier(), usize::MAX), now(0)).unwrap();
    assert_eq!((got.refused, got.wants), (vec![], vec![]));
}

fn read(bytes: &Arc<[u8]>) -> VerifiedEntry {
    VerifiedEntry::verify(Arc::clone(bytes)).unwrap()
}

#[test]
fn each_operation_gets_its_version_and_shows_at_once() {
    let (a, signer, ..) = pair();
    let done = a.author(&signer, vec![put("x", "x", &[]), put("y", "y", &[])], now(5)).unwrap();
    assert_eq!(done.versions.len(), 2);
    assert_eq!(a.lookup(ROOT, &name("y")).unwrap().unwrap().version, done.versions[1]);
    let changed: Vec<_> = done.changed.iter().map(|r| r.name.as_str().to_owned()).collect();
    assert_eq!(changed, ["x", "y"]);
    assert_eq!(a.entry(&done.id), Some(done.bytes));
}

#[test]
fn a_large_batch_becomes_several_entries_that_link_up() {
    let (a, signer, b, _) = pair();
    let count = 9000;
    let ops: Vec<Op> = (0..count).map(|n| put(&format!("f{n}"), &n.to_string(), &[])).collect();
    let done = a.author(&signer, ops, now(5)).unwrap();
    assert!(done.ids.len() > 1);
    assert_eq!(done.versions.len(), count);
    for n in [0, 4095, 4096, count - 1] {
        let node = a.lookup(ROOT, &name(&format!("f{n}"))).unwrap().unwrap();
        assert_eq!(node.version, done.versions[n]);
    }
    pull(&b, &a);
    assert_eq!(b.tree_hash(), a.tree_hash());
    assert_eq!(b.counts().files, count as u64);
}

#[test]
fn operations_that_cannot_have_an_effect_are_refused_whole() {
    let (a, signer, ..) = pair();
    let hash = a.tree_hash();
    let dir = DirId::from_bytes([1; 32]);
    let (parent, attr) = (ROOT, DirAttr::default());
    let wrong = Op::MkDir { parent, name: name("d"), dir, attr, bases: vec![] };
    let refused = a.author(&signer, vec![put("x", "x", &[]), wrong], now(0));
    assert!(matches!(refused, Err(AppendError::Unfit { index: 1 })));
    let mut xattrs = Xattrs::new();
    xattrs.insert(b"user.big".to_vec(), vec![0; 70_000]);
    let Value::File(mut value) = file("x") else { unreachable!() };
    value.xattrs = xattrs;
    let refused = a.author(&signer, vec![put_in(ROOT, "x", Value::File(value), &[])], now(0));
    assert!(matches!(refused, Err(AppendError::Op { index: 0, .. })));
    let stranger = a.author(&signer_of('S'), vec![], now(0));
    assert!(matches!(stranger, Err(AppendError::NotMember)));
    assert_eq!(a.tree_hash(), hash);
    a.author(&signer, vec![put("x", "x", &[])], now(0)).unwrap();
}

#[test]
fn time_goes_on_from_what_was_seen_and_follows_no_fast_clock() {
    let (a, sa, b, sb) = pair();
    let far = 10_000_000;
    let ahead = a.author(&sa, vec![put("x", "x", &[])], now(far)).unwrap();
    pull(&b, &a);
    let next = b.author(&sb, vec![put("y", "y", &[])], now(5)).unwrap();
    assert!(read(&next.bytes).entry().hlc > read(&ahead.bytes).entry().hlc);
    assert_eq!(read(&next.bytes).entry().saved_at_ms, 5);
    // A device whose clock is ahead of the other's believes the other's.
    b.observe_clock(sa.device(), far + 50, now(far + 900));
    let held = b.author(&sb, vec![put("z", "z", &[])], now(far + 900)).unwrap();
    assert_eq!(read(&held.bytes).entry().hlc.ms(), far + 50);
}

#[test]
fn work_nobody_had_is_late_and_comes_after_what_the_team_did() {
    let (a, sa, b, sb) = pair();
    let base = a.author(&sa, vec![put("x", "v0", &[])], now(100)).unwrap().versions[0];
    pull(&b, &a);
    // B works offline, A later with the team.
    let mine = b.author(&sb, vec![put("x", "offline", &[base])], now(200)).unwrap().versions[0];
    let team = a.author(&sa, vec![put("x", "team", &[base])], now(300)).unwrap().versions[0];
    pull(&b, &a);
    let late = b.author_late(&sb, now(400)).unwrap().unwrap();
    assert_eq!(read(&late.bytes).entry().late, [mine.entry]);
    assert_eq!(b.author_late(&sb, now(401)).unwrap().map(|l| l.id), None, "it is said once");
    pull(&a, &b);
    for journal in [&a, &b] {
        let official = journal.lookup(ROOT, &name("x")).unwrap().unwrap();
        assert_eq!((official.version, official.standing), (team, Standing::Official));
        assert_eq!(list(journal, ROOT).len(), 2);
    }
    assert_eq!(a.tree_hash(), b.tree_hash());
}

#[test]
fn work_that_is_acknowledged_is_not_late() {
    let (a, sa, b, sb) = pair();
    // By what the other writes ...
    b.author(&sb, vec![put("x", "x", &[])], now(1)).unwrap();
    pull(&a, &b);
    a.author(&sa, vec![put("y", "y", &[])], now(2)).unwrap();
    pull(&b, &a);
    assert!(b.author_late(&sb, now(3)).unwrap().is_none());
    // ... or by what it says it holds.
    b.author(&sb, vec![put("z", "z", &[])], now(4)).unwrap();
    pull(&a, &b);
    b.acknowledged(sb.device(), &b.frontier());
    b.acknowledged(sa.device(), &Frontier::default());
    let other = Forge::new().journal();
    other.acknowledged(sa.device(), &a.frontier());
    b.acknowledged(sa.device(), &a.frontier());
    assert!(b.author_late(&sb, now(5)).unwrap().is_none());
    // What comes after that is.
    b.author(&sb, vec![put("w", "w", &[])], now(6)).unwrap();
    assert!(b.author_late(&sb, now(7)).unwrap().is_some());
}

#[test]
fn own_work_that_came_back_from_others_is_not_late() {
    let mut forge = Forge::new();
    forge.e('B', 1, vec![put("x", "x", &[])], &[]);
    let restored = forge.journal();
    let signer = signer_of('B');
    assert!(restored.author_late(&signer, now(5)).unwrap().is_none());
    restored.author(&signer, vec![put("y", "y", &[])], now(6)).unwrap();
    let late = restored.author_late(&signer, now(7)).unwrap().unwrap();
    assert_ne!(read(&late.bytes).entry().late, [forge.all.last().unwrap().id()]);
}

#[test]
fn of_a_forked_chain_each_end_says_what_of_it_is_late() {
    let mut forge = Forge::new();
    let base = forge.e('B', 1, vec![put("x", "x", &[])], &[]);
    forge.e('B', 2, vec![put("one", "1", &[])], &[]);
    forge.e('B', 3, vec![put("one", "2", &[])], &[]);
    let journal = forge.journal();
    let signer = signer_of('B');
    // Written by the same device on a disk that came back; this journal alone has it.
    let (twin, _) = crate::forge::journal_of(&forge.genesis);
    feed(&twin, &[forge.admin.clone(), base]);
    let branch = twin.author(&signer, vec![put("two", "x", &[])], now(4)).unwrap();
    feed(&twin, &forge.all);
    assert_eq!(twin.frontier().tips.iter().filter(|t| t.device == signer.device()).count(), 2);
    let late = twin.author_late(&signer, now(9)).unwrap().unwrap();
    let entry = read(&late.bytes);
    assert_eq!(entry.entry().late, [branch.id], "the shorter end, and nothing of the other");
    assert_eq!(entry.entry().prev, Some(branch.id));
    assert_eq!(journal.author_late(&signer, now(9)).unwrap().map(|l| l.id), None);
}

#[test]
fn acknowledgements_outlive_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let mut forge = Forge::new();
    let journal = Journal::adopt(dir.path(), forge.genesis.bytes()).unwrap();
    feed(&journal, &forge.all);
    let sb = signer_of('B');
    let done = journal.author(&sb, vec![put("x", "x", &[])], now(1)).unwrap();
    let seen = forge.e('A', 1 << 20, vec![], &[&read(&done.bytes)]);
    let tip = journal::Tip { device: sb.device(), seq: 0, entry: done.id };
    journal.acknowledged(seen.entry().device, &Frontier { tips: vec![tip] });
    journal.close().unwrap();
    drop(journal);
    let journal = Journal::open(dir.path(), journal::Opened::PowerLoss).unwrap();
    assert!(journal.author_late(&sb, now(5)).unwrap().is_none());
}

#[test]
fn what_the_first_device_wrote_alone_is_not_late() {
    let signer = signer_of('A');
    let genesis = Journal::genesis(&signer, crate::forge::spec(), now(0)).unwrap();
    let (journal, _) = crate::forge::journal_of(&genesis);
    journal.author(&signer, vec![put("x", "x", &[])], now(1)).unwrap();
    let invite = Op::Invite {
        key: crate::forge::invite_key(),
        role: journal::Role::Editor,
        expires: 1 << 40,
        uses: 1,
    };
    journal.author(&signer, vec![invite], now(2)).unwrap();
    let drive = journal.drive().id;
    let op = crate::forge::admit(&drive, 'B');
    let done = journal.author(&signer, vec![op], now(3)).unwrap();
    // Only the admission itself may be news to somebody.
    let late = journal.author_late(&signer, now(4)).unwrap();
    let named = late.map(|late| read(&late.bytes).entry().late.clone());
    assert!(named.is_none_or(|late| late == [done.id]));
}

#[test]
fn a_peer_gets_what_it_lacks_in_order_and_no_more() {
    let (a, sa, b, _) = pair();
    assert_eq!(a.lacking(&b.frontier(), usize::MAX), Vec::<Arc<[u8]>>::new());
    for n in 0..30 {
        a.author(&sa, vec![put(&n.to_string(), "x", &[])], now(n)).unwrap();
    }
    assert!(!b.covers(&a.frontier()) && a.covers(&b.frontier()));
    let mut rounds = 0;
    while !b.covers(&a.frontier()) {
        let some = a.lacking(&b.frontier(), 1000);
        assert!(!some.is_empty() && some.len() < 30);
        let got = b.receive(&some, now(0)).unwrap();
        assert_eq!((got.applied.len(), got.wants.len()), (some.len(), 0));
        rounds += 1;
        assert!(rounds < 40);
    }
    // Somebody who holds more of this chain than is known here lacks nothing of it.
    let mut ahead = a.frontier();
    for tip in ahead.tips.iter_mut().filter(|tip| tip.device == sa.device()) {
        tip.seq += 5;
        tip.entry = journal::EntryId::from_bytes([1; 32]);
    }
    assert_eq!(a.lacking(&ahead, usize::MAX).len(), 0);
}

#[test]
fn a_history_follows_saves_and_renames_newest_first() {
    let (a, signer, ..) = pair();
    let v0 = a.author(&signer, vec![put("a", "v0", &[])], now(1)).unwrap().versions[0];
    let v1 = a.author(&signer, vec![put("a", "v1", &[v0])], now(2)).unwrap().versions[0];
    let ops = vec![moved("a", "b", &[v1]), put("b", "v1", &[v1])];
    let moved = a.author(&signer, ops, now(3)).unwrap().versions;
    let v2 = a.author(&signer, vec![put("b", "v2", &[moved[1]])], now(4)).unwrap().versions[0];
    let history = a.history(ROOT, &name("b")).unwrap();
    let ids: Vec<_> = history.iter().map(|h| h.version).collect();
    assert_eq!(ids, [v2, moved[1], v1, v0]);
    assert_eq!(history[0].standing, HistoryStanding::Official);
    assert!(history[1..].iter().all(|h| h.standing == HistoryStanding::Past));
    assert_eq!(history[3].register.name.as_str(), "a");
    let old = a.history(ROOT, &name("a")).unwrap();
    assert_eq!(old.iter().map(|h| h.version).collect::<Vec<_>>(), [moved[0], v1, v0]);
    a.author(&signer, vec![gone("b", &[v2])], now(5)).unwrap();
    assert_eq!(a.history(ROOT, &name("b")).unwrap().len(), 5);
}

#[test]
fn listings_go_on_after_any_name_and_miss_nothing() {
    let mut f = Forge::new();
    let ops: Vec<Op> = (0..40).map(|n| put(&format!("f{n}"), "x", &[])).collect();
    let a = f.e('A', 1, ops, &[]);
    for device in ['B', 'C'] {
        let ops = (0..10).map(|n| put(&format!("f{n}"), &device.to_string(), &[v(&a, n)]));
        let ops: Vec<Op> = ops.collect();
        f.e(device, 2, ops, &[&a]);
    }
    let journal = f.journal();
    let all: Vec<_> = list(&journal, ROOT).into_iter().map(|n| n.shown).collect();
    assert_eq!(all.len(), 50);
    for limit in [1, 3, 7, 49] {
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = journal.list(ROOT, after.as_ref(), limit).unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            after = Some(last.shown.clone());
            paged.extend(page.into_iter().map(|n| n.shown));
        }
        assert_eq!(paged, all, "pages of {limit}");
    }
    let after_none = journal.list(ROOT, Some(&name("f5x")), 1).unwrap();
    assert!(after_none[0].shown > name("f5x"), "a name that is not there is a place all the same");
}

#[test]
fn a_copy_gives_way_to_a_real_file_of_its_name() {
    let mut f = Forge::new();
    let a = f.e('A', 1, vec![put("x", "v0", &[])], &[]);
    f.e('B', 2, vec![put("x", "b", &[v(&a, 0)])], &[&a]);
    f.e('C', 3, vec![put("x", "c", &[v(&a, 0)])], &[&a]);
    let copy = |f: &Forge| {
        list(&f.journal(), ROOT).into_iter().find(|n| n.standing == Standing::Copy).unwrap()
    };
    let short = copy(&f).shown;
    let real = f.e('A', 4, vec![put(short.as_str(), "real", &[])], &[]);
    let journal = f.journal();
    let there = journal.lookup(ROOT, &short).unwrap().unwrap();
    assert_eq!(there.version, v(&real, 0));
    let long = copy(&f).shown;
    assert!(long != short && long.as_str().len() > short.as_str().len());
    assert_eq!(names(&journal, ROOT, &["b", "c", "real"]).len(), 3);
    f.e('A', 5, vec![gone(short.as_str(), &[v(&real, 0)])], &[]);
    assert_eq!(copy(&f).shown, short);
}

#[test]
fn one_name_in_two_spellings_is_one_file() {
    let mut f = Forge::new();
    let a = f.e('A', 1, vec![put("e\u{301}", "one", &[])], &[]);
    f.e('B', 2, vec![put("\u{e9}", "two", &[v(&a, 0)])], &[&a]);
    let journal = f.journal();
    let all = list(&journal, ROOT);
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].shown.as_str(), "\u{e9}");
    assert!(journal.lookup(ROOT, &name("e\u{301}")).unwrap().is_some());
}

#[test]
fn contents_come_newest_first_and_in_pages() {
    let (a, signer, ..) = pair();
    for n in 0..10u64 {
        let text = n.to_string();
        a.author(&signer, vec![put(&text, &text, &[])], now(n)).unwrap();
    }
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let (page, next) = a.contents(after.as_ref(), 3);
        all.extend(page.into_iter().map(|named| named.content));
        after = next;
        if after.is_none() {
            break;
        }
    }
    let expected: Vec<_> = (0..10).rev().map(|n: u64| content(&n.to_string())).collect();
    assert_eq!(all, expected);
}

#[test]
fn snapshots_and_names_are_kept() {
    let (a, signer, ..) = pair();
    a.author(&signer, vec![Op::Snapshot { name: "first cut".into() }], now(9)).unwrap();
    let renamed = Op::Rename { what: journal::op::Named::Drive, name: "film".into() };
    a.author(&signer, vec![renamed], now(10)).unwrap();
    let all = a.snapshots().unwrap();
    assert_eq!((all.len(), all[0].name.as_str(), all[0].saved_at_ms), (1, "first cut", 9));
    assert_eq!(a.drive().name, "film");
}
