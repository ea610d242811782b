//! Who may do what, and what becomes of the work of those who may not.

use journal::error::InviteError;
use journal::member::admit_proof;
use journal::op::Named;
use journal::{AppendError, DirId, EntryId, Journal, Op, RefuseReason, Role, SET_ASIDE_MAX};

use crate::forge::{
    Forge, INVITE_SECRET, admit, feed, file, gone, invite_key, journal_of, name, names, now, put,
    put_in, signer_of, v,
};

const ROOT: DirId = DirId::ROOT;

fn shown(forge: &Forge) -> Vec<String> {
    names(&forge.journal(), ROOT, &[]).into_iter().map(|(name, _)| name).collect()
}

fn remove(device: char, frontier: &[EntryId]) -> Op {
    Op::Remove { device: signer_of(device).device(), frontier: frontier.to_vec() }
}

fn set_role(device: char, role: Role, frontier: &[EntryId]) -> Op {
    Op::SetRole { device: signer_of(device).device(), role, frontier: frontier.to_vec() }
}

fn role(journal: &Journal, device: char) -> Option<Role> {
    let member = journal.member(signer_of(device).device())?;
    (!member.removed).then_some(member.role)
}

#[test]
fn a_stranger_is_refused_until_it_has_seen_its_admission() {
    let mut f = Forge::new();
    let (journal, _) = journal_of(&f.genesis);
    let admin = f.admin.clone();
    feed(&journal, &[admin]);
    let x = f.e('X', 1, vec![put("x", "x", &[])], &[]);
    let got = feed(&journal, std::slice::from_ref(&x));
    assert_eq!(got.refused[0].why, RefuseReason::NotMember);
    let a = f.e('A', 2, vec![admit(&f.drive, 'X')], &[]);
    let got = feed(&journal, &[a.clone(), x]);
    assert_eq!((got.applied.len(), &got.refused[0].why), (1, &RefuseReason::NotMember));
    let x = f.after('X', None, 20, vec![put("x", "x", &[])], &[&a], &[]);
    assert_eq!(feed(&journal, &[x]).applied.len(), 1);
}

#[test]
fn a_removed_device_is_told_everything_up_to_its_removal_and_nothing_after_it() {
    let mut f = Forge::new();
    let before = f.e('C', 1, vec![put("before", "c", &[])], &[]);
    let unseen = f.e('C', 2, vec![put("unseen", "c", &[])], &[]);
    let own = f.e('B', 3, vec![put("own", "b", &[])], &[&before]);
    let removal = f.e('A', 4, vec![remove('B', &[])], &[&before]);
    let again = f.e('A', 5, vec![remove('B', &[own.id()])], &[&own]);
    let after = f.e('A', 6, vec![put("secret", "a", &[])], &[]);
    let journal = f.journal();
    let b = signer_of('B').device();
    let told = journal.farewell_lacking(b, &journal::Frontier::default(), usize::MAX);
    let told: Vec<EntryId> = told
        .into_iter()
        .map(|bytes| journal::signed::VerifiedEntry::verify(bytes).unwrap().id())
        .collect();
    for entry in [&f.admin, &before, &own, &removal] {
        assert!(told.contains(&entry.id()));
        assert!(journal.farewell_entry(b, &entry.id()).is_some());
    }
    for entry in [&unseen, &again, &after] {
        assert!(!told.contains(&entry.id()));
        assert_eq!(journal.farewell_entry(b, &entry.id()), None);
    }
    let frontier = journal.farewell_frontier(b).unwrap();
    let mut tips: Vec<EntryId> = frontier.tips.iter().map(|tip| tip.entry).collect();
    tips.sort_unstable();
    let mut expected = vec![before.id(), own.id(), removal.id()];
    expected.sort_unstable();
    assert_eq!(tips, expected);
    assert_eq!(journal.farewell_lacking(b, &frontier, usize::MAX).len(), 0);
    let c = signer_of('C').device();
    assert_eq!(journal.farewell_frontier(c), None);
    assert!(journal.farewell_lacking(c, &frontier, usize::MAX).is_empty());
}

#[test]
fn what_is_set_aside_is_counted_and_named_within_bounds_the_newest_first() {
    let mut f = Forge::new();
    let before = f.e('B', 1, vec![put("before", "b", &[])], &[]);
    for at in [20, 30, 40] {
        let puts = ["x", "y"].map(|name| put(&format!("{name}{at}"), "b", &[]));
        f.e('B', at, puts.to_vec(), &[]);
    }
    f.e('A', 2, vec![remove('B', &[before.id()])], &[&before]);
    let journal = f.journal();
    let b = signer_of('B').device();
    let counted = |at_most| {
        let aside = journal.set_aside_count(b, at_most).unwrap().unwrap();
        (aside.count, aside.more, aside.since_ms)
    };
    assert_eq!(counted(100), (6, false, 30));
    assert_eq!(counted(6), (6, false, 30));
    assert_eq!(counted(5), (5, true, 30));
    assert_eq!(counted(2), (2, true, 50));
    assert_eq!(counted(1), (1, true, 50));
    assert_eq!(journal.set_aside_count(signer_of('C').device(), 1).unwrap(), None);
    assert_eq!(journal.set_aside(b).unwrap().len(), 6);

    let mut last = before;
    for entry in 0..3 {
        let name = |i: u64| format!("{:05}", entry * 4_000 + i);
        let ops = (0..4_000).map(|i| gone(&name(i), &[])).collect();
        last = f.e('B', 50 + entry, ops, &[]);
    }
    let journal = f.journal();
    let aside = journal.set_aside_count(b, SET_ASIDE_MAX).unwrap().unwrap();
    assert_eq!((aside.count, aside.more), (SET_ASIDE_MAX, true));
    let named = journal.set_aside(b).unwrap();
    assert_eq!(named.len(), SET_ASIDE_MAX);
    assert_eq!(named.first().unwrap().register.name.as_str(), "02000");
    assert_eq!(named.last().unwrap().register.name.as_str(), "11999");
    // All of it is taken back.
    let ops = journal.take_back(b).unwrap();
    f.e('A', 60, ops, &[&last]);
    assert_eq!(f.journal().set_aside_count(b, 1).unwrap(), None);
}

#[test]
fn an_admission_needs_the_invites_own_signature_for_that_device_and_drive() {
    let mut f = Forge::new();
    let id = signer_of('X').device();
    let other = signer_of('Y').device();
    let proofs = [
        ("another key's", admit_proof(&[1; 32], &f.drive, &id)),
        ("for another device", admit_proof(&INVITE_SECRET, &f.drive, &other)),
        ("for another drive", admit_proof(&INVITE_SECRET, &journal::DriveId::ZERO, &id)),
    ];
    for (at, (what, proof)) in proofs.into_iter().enumerate() {
        let admit = Op::Admit { invite: invite_key(), device: id, name: "X".into(), proof };
        f.e('A', 1 + at as u64, vec![admit], &[]);
        assert_eq!(role(&f.journal(), 'X'), None, "{what}");
    }
    assert!(f.journal().member(signer_of('A').device()).unwrap().flags.ignored_operations);
}

#[test]
fn only_owners_invite_and_an_invite_ends() {
    let mut f = Forge::new();
    let invite = |key: u8, expires| Op::Invite {
        key: journal::Signer::invite_public(&[key; 32]),
        role: Role::Editor,
        expires,
        uses: 1,
    };
    let admit_by = |f: &Forge, key: u8, device: char| {
        let id = signer_of(device).device();
        Op::Admit {
            invite: journal::Signer::invite_public(&[key; 32]),
            device: id,
            name: device.to_string(),
            proof: admit_proof(&[key; 32], &f.drive, &id),
        }
    };
    // An editor's invite admits nobody.
    f.e('B', 1, vec![invite(1, u64::MAX >> 16)], &[]);
    let op = admit_by(&f, 1, 'X');
    f.e('B', 2, vec![op], &[]);
    assert_eq!(role(&f.journal(), 'X'), None);
    let key = journal::Signer::invite_public(&[1; 32]);
    assert!(matches!(f.journal().check_invite(&key, now(0)), Err(InviteError::Unknown)));
    // An owner's does, once; a second use is flagged.
    f.e('A', 3, vec![invite(2, u64::MAX >> 16)], &[]);
    let key = journal::Signer::invite_public(&[2; 32]);
    assert_eq!(f.journal().check_invite(&key, now(0)).unwrap().role, Role::Editor);
    assert!(f.journal().has_recent_invite(now(0)));
    let op = admit_by(&f, 2, 'X');
    let x = f.e('A', 4, vec![op], &[]);
    assert!(matches!(f.journal().check_invite(&key, now(0)), Err(InviteError::Used)));
    let op = admit_by(&f, 2, 'Y');
    f.e('B', 5, vec![op], &[&x]);
    let members = f.journal().members();
    let flags =
        |d: char| members.iter().find(|m| m.device == signer_of(d).device()).unwrap().flags.clone();
    assert!(!flags('X').overused_invite && flags('Y').overused_invite);
    // One whose time is over does not; hlc counts, in whole milliseconds.
    f.e('A', 6, vec![invite(3, 0)], &[]);
    let key = journal::Signer::invite_public(&[3; 32]);
    assert!(matches!(f.journal().check_invite(&key, now(1)), Err(InviteError::Expired)));
    let op = admit_by(&f, 3, 'Z');
    f.e('A', 1 << 17, vec![op], &[]);
    assert_eq!(role(&f.journal(), 'Z'), None);
}

#[test]
fn an_invite_lasts_as_long_where_logical_time_runs_ahead() {
    let mut f = Forge::new();
    let hlc = |ms: u64| ms << 16;
    let ahead = 1 << 40;
    let key = journal::Signer::invite_public(&[3; 32]);
    // The issuer's clock says 10,000 while the drive's time is decades further.
    let before = f.entry('A', hlc(ahead), vec![], &[], &[]);
    let op = Op::Invite { key, role: Role::Editor, expires: 60_000, uses: 5 };
    let mut entry = before.entry().clone();
    (entry.prev, entry.seq) = (Some(before.id()), entry.seq + 1);
    (entry.saved_at_ms, entry.ops) = (10_000, vec![op]);
    entry.hlc = journal::hlc::Hlc::from_ms(ahead + 1);
    let invite = journal::signed::VerifiedEntry::sign(entry, &signer_of('A')).unwrap();
    f.push('A', invite);
    let admit_by = |f: &Forge, device: char| {
        let id = signer_of(device).device();
        let proof = admit_proof(&[3; 32], &f.drive, &id);
        Op::Admit { invite: key, device: id, name: device.to_string(), proof }
    };
    let op = admit_by(&f, 'X');
    f.entry('A', hlc(ahead + 1 + 50_000), vec![op], &[], &[]);
    let op = admit_by(&f, 'Y');
    f.entry('A', hlc(ahead + 1 + 50_002), vec![op], &[], &[]);
    assert_eq!(role(&f.journal(), 'X'), Some(Role::Editor));
    assert_eq!(role(&f.journal(), 'Y'), None);
}

#[test]
fn an_invite_is_void_once_its_issuer_is_removed() {
    let mut f = Forge::new();
    let owner = f.e('A', 1, vec![set_role('B', Role::Owner, &[])], &[]);
    let key = journal::Signer::invite_public(&[9; 32]);
    let invite = Op::Invite { key, role: Role::Editor, expires: u64::MAX >> 16, uses: 5 };
    let b = f.e('B', 2, vec![invite], &[&owner]);
    assert!(f.journal().check_invite(&key, now(0)).is_ok());
    f.e('A', 3, vec![remove('B', &[b.id()])], &[&b]);
    assert!(matches!(f.journal().check_invite(&key, now(0)), Err(InviteError::Void)));
    let id = signer_of('X').device();
    let proof = admit_proof(&[9; 32], &f.drive, &id);
    f.e('A', 4, vec![Op::Admit { invite: key, device: id, name: "X".into(), proof }], &[]);
    assert_eq!(role(&f.journal(), 'X'), None);
}

#[test]
fn work_outside_a_removals_frontier_is_not_shown_and_can_be_taken_back() {
    let mut f = Forge::new();
    let r1 = f.e('R', 1, vec![put("before", "x", &[])], &[]);
    let r2 = f.e('R', 2, vec![put("after", "x", &[])], &[]);
    f.e('A', 3, vec![remove('R', &[r1.id()])], &[&r2]);
    f.e('R', 4, vec![put("later", "x", &[])], &[]);
    assert_eq!(shown(&f), ["before"]);
    assert_eq!(role(&f.journal(), 'R'), None);
    f.e('A', 5, vec![set_role('R', Role::Editor, &[])], &[]);
    assert_eq!(shown(&f), ["after", "before", "later"]);
    assert_eq!(role(&f.journal(), 'R'), Some(Role::Editor));
}

#[test]
fn a_readers_work_has_no_effect_and_is_flagged() {
    let mut f = Forge::new();
    let b = f.e('B', 1, vec![put("mine", "x", &[])], &[]);
    let a = f.e('A', 2, vec![set_role('B', Role::Reader, &[b.id()])], &[&b]);
    f.e('B', 3, vec![put("no", "x", &[])], &[&a]);
    assert_eq!(shown(&f), ["mine"]);
    let journal = f.journal();
    assert!(journal.member(signer_of('B').device()).unwrap().flags.ignored_operations);
    let refused = journal.author(&signer_of('B'), vec![put("no", "x", &[])], now(0));
    assert!(matches!(refused, Err(AppendError::Role { index: 0 })));
    let renamed = Op::Rename { what: Named::Device(signer_of('B').device()), name: "bee".into() };
    journal.author(&signer_of('B'), vec![renamed], now(0)).unwrap();
    assert_eq!(journal.member(signer_of('B').device()).unwrap().name, "bee");
}

#[test]
fn an_owner_falls_only_to_itself_or_to_one_before_it() {
    let mut f = Forge::new();
    let owners = ['B', 'C'].map(|d| set_role(d, Role::Owner, &[])).to_vec();
    let a = f.e('A', 1, owners, &[]);
    f.e('C', 2, vec![remove('B', &[]), remove('A', &[])], &[&a]);
    f.e('B', 3, vec![remove('A', &[])], &[&a]);
    let journal = f.journal();
    assert_eq!(['A', 'B', 'C'].map(|d| role(&journal, d)), [Some(Role::Owner); 3]);
    // B was admitted before C, and each may leave.
    let b = f.e('B', 4, vec![remove('C', &[])], &[]);
    f.e('B', 5, vec![remove('B', &[b.id()])], &[]);
    let journal = f.journal();
    assert_eq!(['A', 'B', 'C'].map(|d| role(&journal, d)), [Some(Role::Owner), None, None]);
}

/// The same whatever arrives first.
fn everywhere<T: PartialEq + std::fmt::Debug>(forge: &Forge, look: impl Fn(&Journal) -> T) -> T {
    let found = look(&forge.journal());
    let (backwards, _) = journal_of(&forge.genesis);
    let mut all = forge.all.clone();
    all.reverse();
    // A stranger's work is refused until its admission has come.
    all.iter().for_each(|_| drop(feed(&backwards, &all)));
    assert_eq!(backwards.frontier(), forge.journal().frontier());
    assert_eq!(look(&backwards), found, "in another order");
    found
}

#[test]
fn a_removed_device_dates_nothing_anew_that_counts() {
    let mut f = Forge::new();
    let a = f.e('A', 1, vec![set_role('B', Role::Owner, &[])], &[]);
    let b = f.e('B', 2, vec![admit(&f.drive, 'X'), put("f", "b", &[])], &[&a]);
    let c = f.e('C', 3, vec![put("f", "c", &[])], &[&a]);
    let x = f.after('X', None, 14, vec![put("x", "x", &[])], &[&b], &[]);
    let removal = f.e('A', 5, vec![remove('B', &[b.id()])], &[&b, &c, &x]);
    let tree = |journal: &Journal| names(journal, ROOT, &[]);
    let before = everywhere(&f, tree);
    assert!(before.iter().any(|(name, _)| name == "x"));
    // Having heard of its removal, and having not.
    for see in [&[][..], &[&removal][..]] {
        let mut f = f.clone();
        f.late('B', 9, see, &b);
        assert_eq!(everywhere(&f, tree), before);
        assert_eq!(role(&f.journal(), 'X'), Some(Role::Editor));
    }
    // What the removal had not seen is kept aside, as late as it says it is; the rest stays.
    let aside = f.e('B', 6, vec![put("g", "b", &[])], &[]);
    f.late('B', 9, &[], &aside);
    assert_eq!(everywhere(&f, tree), before);
}

#[test]
fn whoever_left_or_stepped_down_is_not_back_by_its_own_word() {
    let mut f = Forge::new();
    let a = f.e('A', 1, vec![set_role('B', Role::Owner, &[])], &[]);
    let left = f.e('A', 5, vec![remove('A', &[a.id()])], &[]);
    // From a backup that does not know of it, and by a program that does.
    f.after('A', Some(a), 30, vec![set_role('A', Role::Owner, &[])], &[], &[]);
    f.after('A', Some(left), 40, vec![set_role('A', Role::Owner, &[])], &[], &[]);
    let b = f.e('B', 50, vec![set_role('B', Role::Editor, &[])], &[]);
    assert_eq!(everywhere(&f, |j| ['A', 'B'].map(|d| role(j, d))), [None, Some(Role::Owner)]);
    let c = f.e('B', 60, vec![set_role('C', Role::Owner, &[])], &[]);
    let b = f.e('B', 70, vec![set_role('B', Role::Editor, &[b.id(), c.id()])], &[&c]);
    f.e('B', 80, vec![set_role('B', Role::Owner, &[])], &[&b]);
    let roles = everywhere(&f, |j| ['B', 'C'].map(|d| role(j, d)));
    assert_eq!(roles, [Some(Role::Editor), Some(Role::Owner)]);
}

#[test]
fn a_drive_keeps_an_owner_whoever_leaves() {
    let mut f = Forge::new();
    let a = f.e('A', 1, vec![set_role('B', Role::Owner, &[])], &[]);
    // Neither knows of the other.
    f.e('A', 5, vec![remove('A', &[a.id()])], &[]);
    f.e('B', 6, vec![remove('B', &[])], &[&a]);
    assert_eq!(everywhere(&f, |j| ['A', 'B'].map(|d| role(j, d))), [None, Some(Role::Owner)]);
}

#[test]
fn a_removal_is_not_undone_by_who_did_not_know_of_it() {
    let mut f = Forge::new();
    let a = f.e('A', 1, vec![set_role('B', Role::Owner, &[])], &[]);
    let removal = f.e('A', 5, vec![remove('C', &[])], &[]);
    let unknowing = f.e('B', 6, vec![set_role('C', Role::Reader, &[])], &[&a]);
    assert_eq!(everywhere(&f, |j| role(j, 'C')), None);
    f.e('B', 7, vec![set_role('C', Role::Editor, &[])], &[&removal, &unknowing]);
    assert_eq!(everywhere(&f, |j| role(j, 'C')), Some(Role::Editor), "who knows of it may");
}

#[test]
fn a_removed_owner_cannot_remove_from_outside_its_frontier() {
    let mut f = Forge::new();
    let a = f.e('A', 1, vec![set_role('B', Role::Owner, &[])], &[]);
    // B backdates: it claims not to have seen its removal.
    f.e('B', 2, vec![remove('C', &[])], &[&a]);
    assert_eq!(role(&f.journal(), 'C'), None);
    f.e('A', 90, vec![remove('B', &[])], &[]);
    assert_eq!(role(&f.journal(), 'C'), Some(Role::Editor));
}

#[test]
fn a_forked_chain_counts_on_both_sides_and_is_flagged() {
    let mut f = Forge::new();
    let b = f.e('B', 1, vec![put("a", "x", &[])], &[]);
    f.e('B', 2, vec![put("one", "x", &[])], &[]);
    f.after('B', Some(b.clone()), 30, vec![put("two", "x", &[])], &[], &[]);
    assert_eq!(shown(&f), ["a", "one", "two"]);
    let journal = f.journal();
    let forked = journal.member(signer_of('B').device()).unwrap().flags.forked.unwrap();
    for id in [forked.one, forked.other] {
        let entry = journal.entry(&id).unwrap();
        let entry = journal::signed::VerifiedEntry::verify(entry).unwrap();
        assert_eq!(entry.entry().prev, Some(b.id()), "the proof is two entries on one");
    }
    assert_eq!(
        journal.frontier().tips.iter().filter(|t| t.device == signer_of('B').device()).count(),
        2
    );
    // The device itself goes on from one end and has seen the other.
    let done = journal.author(&signer_of('B'), vec![put("three", "x", &[])], now(0)).unwrap();
    let entry = journal::signed::VerifiedEntry::verify(done.bytes).unwrap();
    assert_eq!(entry.entry().seen.len(), 1);
}

#[test]
fn entries_of_another_drive_or_out_of_line_are_refused() {
    let mut f = Forge::new();
    let journal = f.journal();
    let good = f.e('B', 1, vec![], &[]);
    let signer = signer_of('B');
    let next = |change: &dyn Fn(&mut journal::entry::Entry)| {
        let mut entry = f.all.last().unwrap().entry().clone();
        entry.prev = Some(good.id());
        entry.seq = 1;
        entry.seen = vec![];
        entry.hlc = journal::hlc::Hlc::from_raw(500);
        change(&mut entry);
        journal::signed::VerifiedEntry::sign(entry, &signer).unwrap()
    };
    feed(&journal, std::slice::from_ref(&good));
    let refused = |entry| feed(&journal, &[entry]).refused.first().map(|r| r.why.clone());
    let other = journal::DriveId::from_bytes([5; 32]);
    assert_eq!(
        refused(next(&|e| e.drive = other)),
        Some(RefuseReason::OtherDrive { found: other })
    );
    assert_eq!(refused(next(&|e| e.seq = 7)), Some(RefuseReason::Chain));
    let admin = f.admin.id();
    assert_eq!(refused(next(&|e| e.prev = Some(admin))), Some(RefuseReason::Chain));
    let early = journal::hlc::Hlc::from_raw(2);
    assert_eq!(refused(next(&|e| e.hlc = early)), Some(RefuseReason::Clock));
    assert_eq!(refused(next(&|_| ())), None);
}

#[test]
fn an_entry_at_the_end_of_logical_time_stops_nobody() {
    use journal::hlc::{Hlc, WALL_LAST_MS};
    let mut f = Forge::new();
    let journal = f.journal();
    let good = f.e('B', 1, vec![], &[]);
    feed(&journal, std::slice::from_ref(&good));
    let (bob, last) = (signer_of('B'), Hlc::from_ms(WALL_LAST_MS));
    let at = |hlc: Hlc, after: &journal::signed::VerifiedEntry| {
        let mut entry = good.entry().clone();
        (entry.prev, entry.seq, entry.seen) = (Some(after.id()), after.entry().seq + 1, vec![]);
        entry.hlc = hlc;
        journal::signed::VerifiedEntry::sign(entry, &bob).unwrap()
    };
    for hlc in [Hlc::from_raw(u64::MAX), Hlc::from_raw(last.get() + 1)] {
        let refused = feed(&journal, &[at(hlc, &good)]).refused;
        assert_eq!(refused.first().map(|r| r.why.clone()), Some(RefuseReason::Clock), "{hlc:?}");
    }
    let late = at(last, &good);
    assert_eq!(feed(&journal, std::slice::from_ref(&late)).applied, [late.id()]);
    // A clock gone mad does not leap either.
    for n in 1..4 {
        let wrote =
            journal.author(&signer_of('A'), vec![put("x", "x", &[])], now(u64::MAX)).unwrap();
        let wrote = journal::signed::VerifiedEntry::verify(wrote.bytes).unwrap();
        assert_eq!(wrote.entry().hlc, Hlc::from_raw(last.get() + n));
        assert_eq!(feed(&f.journal(), &[good.clone(), late.clone(), wrote]).refused, []);
    }
}

#[test]
fn operations_about_what_their_author_had_not_seen_have_no_effect() {
    let mut f = Forge::new();
    let made = f.mkdir(ROOT, "d", &[]);
    let d = f.dir_id(ROOT, "d", &[]);
    let a = f.e('A', 1, vec![made, put("x", "one", &[])], &[]);
    // B names all of it and has seen none: its file is nowhere, its removal removes nothing.
    f.e('B', 2, vec![put_in(d, "f", file("f"), &[])], &[]);
    f.e('C', 3, vec![put("x", "two", &[v(&a, 1)])], &[]);
    f.e('D', 4, vec![crate::forge::gone("d", &[v(&a, 0)])], &[]);
    let journal = f.journal();
    assert_eq!(names(&journal, d, &[]), []);
    let x: Vec<String> = names(&journal, ROOT, &["one", "two"]).into_iter().map(|n| n.0).collect();
    assert_eq!(x, ["d", "x", "x (conflict C #)"]);
    let _ = name("x");
}
