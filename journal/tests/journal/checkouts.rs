//! Checkouts by those who keep to no rule, what callers are told, and what a device made since it loaded something.

use journal::signed::VerifiedEntry;
use journal::{Arrivals, CheckoutFate, DeviceId, DirId, Journal, Op, Register, Signer, VersionId};

use crate::forge::{Forge, feed, file, gone, journal_of, name, now, put, put_in, signer_of, v};
use crate::oracle::{Oracle, checkouts_differ, walk};

const ROOT: DirId = DirId::ROOT;

fn checkout(at: &str) -> Op {
    Op::Checkout { dir: ROOT, name: name(at) }
}

fn give_back(at: &str, checkout: VersionId) -> Op {
    Op::GiveBack { dir: ROOT, name: name(at), checkout }
}

fn break_of(at: &str, checkout: VersionId) -> Op {
    Op::Break { dir: ROOT, name: name(at), checkout }
}

fn device(letter: char) -> DeviceId {
    signer_of(letter).device()
}

fn holder(journal: &Journal, at: &str) -> Option<DeviceId> {
    let register = Register::new(ROOT, name(at));
    journal.checkout(&register).unwrap().map(|checkout| checkout.device)
}

fn ignored(journal: &Journal, letter: char) -> bool {
    journal.member(device(letter)).unwrap().flags.ignored_operations
}

/// A journal of it all, which is what the rules say, in whatever order it comes.
fn played(forge: &Forge) -> Journal {
    let all = [std::slice::from_ref(&forge.genesis), &forge.all].concat();
    let rules = Oracle::of(&all);
    let (backwards, _) = journal_of(&forge.genesis);
    for entry in forge.all.iter().rev() {
        feed(&backwards, std::slice::from_ref(entry));
    }
    for journal in [&backwards, &forge.journal()] {
        assert_eq!(checkouts_differ(journal, &rules), None);
        assert_eq!(walk(journal), rules.nodes());
    }
    forge.journal()
}

#[test]
fn only_its_device_gives_a_checkout_back() {
    let mut f = Forge::new();
    let b = f.e('B', 1, vec![checkout("x")], &[]);
    f.e('C', 2, vec![give_back("x", v(&b, 0))], &[&b]);
    f.e('A', 3, vec![give_back("x", v(&b, 0))], &[&b]);
    let journal = played(&f);
    assert_eq!(holder(&journal, "x"), Some(device('B')));
    assert!(ignored(&journal, 'C') && ignored(&journal, 'A') && !ignored(&journal, 'B'));
}

#[test]
fn only_owners_break() {
    let mut f = Forge::new();
    let b = f.e('B', 1, vec![checkout("x"), put("x", "v0", &[])], &[]);
    let c = f.e('C', 2, vec![break_of("x", v(&b, 0))], &[&b]);
    f.e('B', 3, vec![put("x", "b1", &[v(&b, 1)])], &[]);
    let journal = played(&f);
    assert_eq!(holder(&journal, "x"), Some(device('B')));
    assert!(ignored(&journal, 'C'));
    assert!(
        journal.conflicts().unwrap().is_empty(),
        "a break without the right to it cut work off"
    );
    // What an editor did before it became an owner does not count afterwards either.
    let op =
        Op::SetRole { device: device('C'), role: journal::Role::Owner, frontier: vec![c.id()] };
    f.e('A', 4, vec![op], &[&c]);
    assert_eq!(holder(&played(&f), "x"), Some(device('B')));
}

#[test]
fn what_names_no_checkout_of_that_name_does_nothing() {
    let mut f = Forge::new();
    let a = f.e('A', 1, vec![put("x", "v0", &[]), checkout("y")], &[]);
    let b = f.e('B', 2, vec![checkout("x")], &[&a]);
    let nobody = VersionId::new(journal::EntryId::from_bytes([7; 32]), 0);
    let unseen = f.e('C', 3, vec![checkout("z")], &[&a]);
    let odd = [("x", v(&a, 0)), ("x", v(&a, 1)), ("x", nobody), ("z", v(&unseen, 0))];
    for (turn, (at, of)) in (4..).zip(odd) {
        f.e('A', turn, vec![break_of(at, of)], &[]);
    }
    f.e('A', 8, vec![break_of("x", v(&b, 0).second())], &[&b]);
    f.e('B', 9, vec![give_back("y", v(&b, 0))], &[]);
    let journal = played(&f);
    assert_eq!(holder(&journal, "x"), Some(device('B')));
    assert_eq!(holder(&journal, "y"), Some(device('A')));
    assert_eq!(holder(&journal, "z"), Some(device('C')));
    assert!(ignored(&journal, 'A') && ignored(&journal, 'B'));
}

#[test]
fn a_name_in_a_directory_nobody_made_is_nobodys() {
    let mut f = Forge::new();
    let dir = DirId::from_bytes([9; 32]);
    let b = f.e('B', 1, vec![Op::Checkout { dir, name: name("x") }], &[]);
    let journal = played(&f);
    assert_eq!(journal.checkouts().unwrap(), []);
    assert_eq!(journal.checkout_fate(v(&b, 0)).unwrap(), None);
    assert!(ignored(&journal, 'B'));
}

#[test]
fn a_checkout_by_a_stranger_is_void() {
    let mut f = Forge::new();
    let mut ops = vec![checkout("x")];
    ops.push(put("x", "v0", &[]));
    let b = f.e('B', 1, ops, &[]);
    f.e('A', 2, vec![Op::Remove { device: device('B'), frontier: vec![] }], &[&b]);
    let journal = played(&f);
    assert_eq!(holder(&journal, "x"), None);
    let fate = journal.checkout_fate(v(&b, 0)).unwrap();
    assert_eq!(fate, Some(CheckoutFate::Void { holder: None }));
}

#[test]
fn a_break_dated_back_is_held_against_what_had_not_seen_it() {
    let mut f = Forge::new();
    let b = f.e('B', 1, vec![checkout("x"), put("x", "v0", &[])], &[]);
    let b1 = f.e('B', 5, vec![put("x", "b1", &[v(&b, 1)])], &[]);
    let c = f.e('C', 6, vec![put("x", "c1", &[v(&b1, 0)])], &[&b1]);
    let d = f.e('D', 7, vec![put("y", "d1", &[v(&c, 0)]), gone("x", &[v(&c, 0)])], &[&c]);
    f.e('C', 8, vec![put("x", "c2", &[v(&d, 0), v(&d, 1)])], &[&d]);
    // Arrives last, and stands before all of it.
    f.e('A', 2, vec![break_of("x", v(&b, 0))], &[&b]);
    played(&f);
}

#[test]
fn a_break_reaches_what_was_built_on_unseeing_work_under_another_name() {
    let mut f = Forge::new();
    let c = f.e('C', 1, vec![put("y", "y1", &[])], &[]);
    let b = f.e('B', 2, vec![checkout("x")], &[&c]);
    let a = f.e('A', 3, vec![put("x", "x0", &[v(&c, 0)])], &[&c]);
    let b1 = f.e('B', 5, vec![put("x", "b1", &[v(&a, 0)])], &[&a]);
    f.e('C', 6, vec![put("y", "c2", &[v(&b1, 0)])], &[&b1]);
    f.e('D', 7, vec![put("y", "d1", &[v(&c, 0)])], &[&c]);
    let shows = |f: &Forge, text: &str| {
        let nodes = crate::forge::names(&played(f), ROOT, &["b1", "c2", "d1", "x0"]);
        nodes.contains(&("y".to_owned(), text.to_owned()))
    };
    assert!(shows(&f, "c2"));
    // Comes last: what made `c2` build on `y1` is cut, and another register has another official version.
    f.e('A', 4, vec![break_of("x", v(&b, 0))], &[&b]);
    assert!(shows(&f, "d1"));
}

#[test]
fn for_how_long_a_version_is_kept_does_not_count_from_what_did_not_replace_it() {
    let mut f = Forge::new();
    let ms = |ms: u64| ms << 16;
    let b = f.e('B', 1, vec![checkout("x"), put("x", "v0", &[])], &[]);
    f.e('A', 2, vec![break_of("x", v(&b, 0))], &[&b]);
    f.e('B', ms(3), vec![put("x", "b1", &[v(&b, 1)])], &[]);
    let replaced = |f: &Forge| {
        let journal = f.journal();
        let retention = journal.retention(Arrivals::Unknown, now(10)).unwrap();
        let (facts, _) = journal.facts(&retention, v(&b, 1)).unwrap().unwrap();
        facts.replaced.map(|replaced| replaced.first_ms)
    };
    assert_eq!(replaced(&f), None);
    f.e('C', ms(7), vec![put("x", "c1", &[v(&b, 1)])], &[&b]);
    assert_eq!(replaced(&f), Some(7));
}

#[test]
fn late_work_whose_place_moves_behind_the_break_is_cut_off_then() {
    let mut f = Forge::new();
    let b = f.e('B', 1, vec![checkout("x"), put("x", "v0", &[])], &[]);
    let b1 = f.e('B', 2, vec![put("x", "b1", &[v(&b, 1)])], &[]);
    let c = f.e('C', 3, vec![put("x", "c1", &[v(&b1, 0)])], &[&b1]);
    let a = f.e('A', 4, vec![break_of("x", v(&b, 0))], &[&b]);
    let names = |f: &Forge| crate::forge::names(&f.journal(), ROOT, &["v0", "b1", "c1", "c2"]);
    assert_eq!(names(&f), [("x".into(), "c1".into())]);
    f.late('B', 5, &[&a], &b1);
    played(&f);
    let expected = [("x".into(), "v0".into()), ("x (conflict C #)".into(), "c1".into())];
    assert_eq!(names(&f), expected);
    f.e('C', 6, vec![put("x", "c2", &[v(&c, 0), v(&b, 1)])], &[&a]);
    played(&f);
    assert_eq!(names(&f), [("x".into(), "c2".into())]);
}

#[test]
fn callers_hear_which_names_have_another_checkout() {
    let mut f = Forge::new();
    let (journal, _) = journal_of(&f.genesis);
    feed(&journal, std::slice::from_ref(&f.admin));
    let x = Register::new(ROOT, name("x"));
    let b = f.e('B', 1, vec![checkout("x")], &[]);
    let changed = |entry: &VerifiedEntry| feed(&journal, std::slice::from_ref(entry)).changed;
    assert_eq!(changed(&b), std::slice::from_ref(&x));
    // One that is void changes nothing.
    let c = f.e('C', 2, vec![checkout("x")], &[]);
    assert_eq!(changed(&c), []);
    let fate = journal.checkout_fate(v(&c, 0)).unwrap();
    assert_eq!(fate, Some(CheckoutFate::Void { holder: Some(device('B')) }));
    // One that was earlier does.
    let d = f.e('D', 0, vec![checkout("x")], &[]);
    assert_eq!(changed(&d), std::slice::from_ref(&x));
    assert_eq!(holder(&journal, "x"), Some(device('D')));
    let remove = Op::Remove { device: device('D'), frontier: vec![] };
    let signer: Signer = signer_of('A');
    let done = journal.author(&signer, vec![remove], now(3)).unwrap();
    assert_eq!(done.changed, [x]);
    assert_eq!(holder(&journal, "x"), Some(device('B')));
    let told = journal.checkouts().unwrap();
    let [told] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((told.id, told.device, told.since_ms), (v(&b, 0), device('B'), 11));
    assert_eq!(journal.checkout_fate(v(&f.admin, 0)).unwrap(), None);
}

#[test]
fn what_would_have_no_effect_is_refused_before_it_is_written() {
    let f = Forge::new();
    let journal = f.journal();
    let refused = |letter, op: Op| journal.author(&signer_of(letter), vec![op], now(5)).is_err();
    let taken = journal.author(&signer_of('B'), vec![checkout("x")], now(5)).unwrap();
    let id = taken.versions[0];
    assert!(refused('C', checkout("x")), "somebody else has it");
    assert!(refused('B', checkout("x")), "it has it");
    assert!(refused('C', give_back("x", id)) && refused('C', break_of("x", id)));
    assert!(refused('B', give_back("y", id)) && refused('A', break_of("y", id)));
    assert!(refused('B', break_of("x", id)), "it is no owner");
    assert!(!refused('B', give_back("x", id)));
    assert!(refused('B', give_back("x", id)) && refused('A', break_of("x", id)));
}

#[test]
fn made_since_follows_bases_back_to_what_was_loaded() {
    let mut f = Forge::new();
    let e = f.e('C', 1, vec![put("x", "v0", &[])], &[]);
    let b1 = f.e('B', 2, vec![put("x", "b1", &[v(&e, 0)])], &[&e]);
    let b2 = f.e('B', 3, vec![put("x", "b2", &[v(&b1, 0)])], &[]);
    let c = f.e('C', 4, vec![put("x", "c", &[v(&b2, 0)])], &[&b2]);
    let b3 = f.e('B', 5, vec![put("x", "b3", &[v(&c, 0)])], &[&c]);
    let b4 = f.e('B', 6, vec![put("x", "b4", &[v(&b3, 0), v(&b2, 0)])], &[]);
    let journal = f.journal();
    let made = |loaded: &[VersionId], official, by| {
        journal.made_since(loaded, &[official], device(by)).unwrap()
    };
    assert!(made(&[v(&e, 0)], v(&e, 0), 'B'), "nothing came between");
    assert!(made(&[v(&e, 0)], v(&b2, 0), 'B'));
    assert!(!made(&[v(&e, 0)], v(&b2, 0), 'C'), "another device made it");
    assert!(!made(&[v(&e, 0)], v(&b3, 0), 'B'), "somebody saved between");
    assert!(made(&[v(&c, 0)], v(&b3, 0), 'B'));
    assert!(!made(&[v(&c, 0)], v(&b4, 0), 'B'), "by the other way it leads to what C made first");
    assert!(made(&[v(&c, 0), v(&e, 0)], v(&b4, 0), 'B'));
    assert!(!made(&[], v(&b2, 0), 'B'), "what it all began with is C's");
    assert!(!made(&[], VersionId::new(e.id(), 9), 'C'), "there is no such version");
}

#[test]
fn what_a_device_added_beside_another_ones_save_does_not_show_that_it_was_seen() {
    let mut f = Forge::new();
    let e = f.e('C', 1, vec![put("x", "v0", &[])], &[]);
    let save = f.e('C', 2, vec![put("x", "v1", &[v(&e, 0)])], &[]);
    // B knows of the first alone: it changes attributes, and removes it.
    let touched = f.e('B', 3, vec![put("x", "v0", &[v(&e, 0)])], &[&e]);
    let gone = f.e('B', 4, vec![gone("x", &[v(&e, 0)])], &[]);
    let theirs = f.e('A', 5, vec![put("x", "v0", &[v(&e, 0)])], &[&e]);
    let journal = f.journal();
    let [save, touched, gone, theirs] = [save, touched, gone, theirs].map(|entry| v(&entry, 0));
    let seen =
        |official: &[VersionId]| journal.made_since(&[v(&e, 0)], official, device('B')).unwrap();
    for official in [vec![save], vec![save, touched], vec![touched, save], vec![gone, save]] {
        assert!(!seen(&official), "{official:?}");
    }
    assert!(seen(&[touched, gone]) && seen(&[theirs]), "these are the same bytes, or none");
}

#[test]
fn made_since_looks_at_so_many_versions_and_no_more() {
    let mut f = Forge::new();
    let first = f.e('C', 1, vec![put("x", "v0", &[])], &[]);
    let mut last = f.e('B', 2, vec![put("x", "b", &[v(&first, 0)])], &[&first]);
    let mut official = Vec::new();
    for at in 0..10_000 {
        last =
            f.e('B', 3 + at, vec![put_in(ROOT, "x", file(&at.to_string()), &[v(&last, 0)])], &[]);
        official.push(v(&last, 0));
    }
    let journal = f.journal();
    // The first of these is B's second.
    let since = |of: usize, device| journal.made_since(&[v(&first, 0)], &official[of..=of], device);
    assert!(since(0, device('B')).unwrap());
    assert!(since(9_998, device('B')).unwrap());
    assert!(!since(9_999, device('B')).unwrap(), "what was not looked at may be anybody's");
    assert!(!since(0, device('C')).unwrap());
    assert!(!journal.made_since(&[], &official[..1], device('B')).unwrap(), "C's is below");
}
