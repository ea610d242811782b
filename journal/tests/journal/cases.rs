//! The directed cases that shaped the rules, each a few entries made by hand.

use journal::op::{Arrival, ExchangeSide};
use journal::{DirId, Op, ViewKind};

use crate::forge::{
    Forge, file_with, gone, gone_in, list, move_dir, moved, name, names, put, put_in, v,
};

const ROOT: DirId = DirId::ROOT;

fn shown(forge: &Forge, texts: &[&str]) -> Vec<(String, String)> {
    names(&forge.journal(), ROOT, texts)
}

fn expect(forge: &Forge, texts: &[&str], expected: &[(&str, &str)]) {
    let expected: Vec<(String, String)> =
        expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    assert_eq!(shown(forge, texts), expected);
}

/// A wrote x; Ann and Bob saved over it without knowing of each other.
fn two_saves(forge: &mut Forge) -> [journal::signed::VerifiedEntry; 3] {
    let a = forge.e('A', 1, vec![put("x", "v0", &[])], &[]);
    let b = forge.e('B', 2, vec![put("x", "ann", &[v(&a, 0)])], &[&a]);
    let c = forge.e('C', 3, vec![put("x", "bob", &[v(&a, 0)])], &[&a]);
    [a, b, c]
}

#[test]
fn case_1_a_save_over_the_official_file_stays_official_beside_a_copy() {
    let mut f = Forge::new();
    let [_, b, c] = two_saves(&mut f);
    f.e('B', 4, vec![put("x", "ann2", &[v(&b, 0)])], &[&c]);
    expect(&f, &["ann2", "bob"], &[("x", "ann2"), ("x (conflict C #)", "bob")]);
}

#[test]
fn case_2_removing_the_official_file_leaves_the_copy_a_copy() {
    let mut f = Forge::new();
    let [_, b, c] = two_saves(&mut f);
    f.e('B', 4, vec![gone("x", &[v(&b, 0)])], &[&c]);
    expect(&f, &["bob"], &[("x (conflict C #)", "bob")]);
}

#[test]
fn case_3_a_save_on_a_half_open_link_does_not_displace_the_team() {
    let mut f = Forge::new();
    let a = f.e('A', 1, vec![put("x", "v0", &[])], &[]);
    let d = f.e('D', 10, vec![put("x", "dead", &[v(&a, 0)])], &[&a]);
    let t = f.e('A', 20, vec![put("x", "team", &[v(&a, 0)])], &[]);
    f.late('D', 900, &[&t], &d);
    expect(&f, &["team", "dead"], &[("x", "team"), ("x (conflict D #)", "dead")]);
}

#[test]
fn case_4_the_teams_move_stands_against_the_returning_laptops() {
    let mut f = Forge::new();
    let dirs = ["scenes", "old", "proj"].map(|at| f.mkdir(ROOT, at, &[])).to_vec();
    let [s, o, p] = ["scenes", "old", "proj"].map(|at| f.dir_id(ROOT, at, &[]));
    let a = f.e('A', 1, dirs, &[]);
    f.e('A', 2, vec![put_in(s, "f", crate::forge::file("f"), &[])], &[]);
    let d = f.e('D', 5, vec![move_dir(s, v(&a, 0), (o, "scenes"), &[])], &[&a]);
    let t = f.e('A', 9, vec![move_dir(s, v(&a, 0), (p, "scenes"), &[])], &[]);
    f.late('D', 900, &[&t], &d);
    let journal = f.journal();
    assert_eq!(journal.dir(s).unwrap().unwrap().parent, p);
    expect(&f, &[], &[("old", "/"), ("proj", "/")]);
    assert_eq!(list(&journal, o).len(), 0);
    let conflicts = journal.conflicts().unwrap();
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0].skipped[0].version, v(&d, 0));
}

#[test]
fn case_5_two_offline_moves_end_at_the_second_place() {
    for k in 0..20 {
        let mut f = Forge::new();
        let m = f.dir_id(ROOT, "m", &[]);
        let text = format!("f{k}");
        let made = f.mkdir(ROOT, "m", &[]);
        let a = f.e('A', 1, vec![made], &[]);
        f.e('A', 2, vec![put_in(m, "f", crate::forge::file(&text), &[])], &[]);
        let d1 = f.e('D', 5, vec![move_dir(m, v(&a, 0), (ROOT, "one"), &[])], &[&a]);
        f.e('D', 6, vec![move_dir(m, v(&d1, 0), (ROOT, "two"), &[])], &[]);
        f.late('D', 900, &[], &d1);
        expect(&f, &[], &[("two", "/")]);
    }
}

#[test]
fn case_6_a_third_device_builds_on_held_work() {
    let mut f = Forge::new();
    let m = f.dir_id(ROOT, "m", &[]);
    let made = f.mkdir(ROOT, "m", &[]);
    let d = f.e('D', 5, vec![made], &[]);
    f.e('C', 50, vec![move_dir(m, v(&d, 0), (ROOT, "moved"), &[])], &[&d]);
    f.e('D', 60, vec![], &[]);
    expect(&f, &[], &[("moved", "/")]);
}

#[test]
fn case_7_an_equal_file_that_was_edited_elsewhere_does_not_come_back() {
    let mut f = Forge::new();
    let a = f.e('A', 1, vec![put("x", "same", &[])], &[]);
    f.e('B', 2, vec![put("x", "same", &[])], &[]);
    f.e('A', 3, vec![put("x", "next", &[v(&a, 0)])], &[]);
    expect(&f, &["next", "same"], &[("x", "next")]);
}

#[test]
fn case_8_a_change_of_mode_against_a_save_is_one_file_with_both() {
    let mut f = Forge::new();
    let a = f.e('A', 1, vec![put("x", "v0", &[])], &[]);
    let b = f.e('B', 2, vec![put("x", "work", &[v(&a, 0)])], &[&a]);
    let c = f.e('C', 3, vec![put_in(ROOT, "x", file_with("v0", 0o755), &[v(&a, 0)])], &[&a]);
    expect(&f, &["work", "v0"], &[("x", "work")]);
    let node = f.journal().lookup(ROOT, &name("x")).unwrap().unwrap();
    let ViewKind::File(file) = node.kind else { panic!("not a file") };
    assert_eq!(file.mode, 0o755);
    let mut ids = vec![v(&b, 0), v(&c, 0)];
    ids.sort();
    assert_eq!(node.merged, ids, "a replacement must end both");
}

#[test]
fn case_9_a_directory_made_again_is_the_same_directory() {
    let mut f = Forge::new();
    let out = f.dir_id(ROOT, "out", &[]);
    let made = f.mkdir(ROOT, "out", &[]);
    let a = f.e('A', 1, vec![made], &[]);
    let g = f.e('A', 2, vec![gone("out", &[v(&a, 0)])], &[]);
    let again = f.mkdir(ROOT, "out", &[v(&g, 0)]);
    f.e('A', 3, vec![again], &[]);
    f.e('C', 4, vec![put_in(out, "frame1", crate::forge::file("px"), &[])], &[&a]);
    expect(&f, &[], &[("out", "/")]);
    assert_eq!(names(&f.journal(), out, &["px"]), [("frame1".into(), "px".into())]);
}

#[test]
fn case_10_accepted_work_on_a_quarantined_version_replaces_what_that_had() {
    let mut f = Forge::new();
    let a = f.e('A', 1, vec![put("x", "v0", &[])], &[]);
    let r1 = f.e('R', 2, vec![put("y", "y", &[])], &[&a]);
    let r2 = f.e('R', 3, vec![put("x", "r", &[v(&a, 0)])], &[]);
    f.e('C', 4, vec![put("x", "bob on r", &[v(&r2, 0)])], &[&r2]);
    let device = crate::forge::signer_of('R').device();
    f.e('A', 5, vec![Op::Remove { device, frontier: vec![r1.id()] }], &[&r1]);
    expect(&f, &["bob on r", "y", "v0"], &[("x", "bob on r"), ("y", "y")]);
}

#[test]
fn case_11_a_cycle_of_empty_directories_closes_for_nobody() {
    let mut f = Forge::new();
    let [a, b] = ["a", "b"].map(|at| f.dir_id(ROOT, at, &[]));
    let made = ["a", "b"].map(|at| f.mkdir(ROOT, at, &[])).to_vec();
    let s = f.e('A', 1, made, &[]);
    f.e('A', 2, vec![move_dir(a, v(&s, 0), (b, "a"), &[])], &[]);
    f.e('B', 3, vec![move_dir(b, v(&s, 1), (a, "b"), &[])], &[&s]);
    expect(&f, &[], &[("b", "/")]);
    assert_eq!(names(&f.journal(), b, &[]), [("a".into(), "/".into())]);
}

#[test]
fn case_12_a_removed_directory_keeps_its_place_in_the_cycle_check() {
    let mut f = Forge::new();
    let [a, d] = ["a", "d"].map(|at| f.dir_id(ROOT, at, &[]));
    let made = ["a", "d"].map(|at| f.mkdir(ROOT, at, &[])).to_vec();
    let s = f.e('A', 1, made, &[]);
    let p = f.e('A', 2, vec![put_in(a, "f", crate::forge::file("f"), &[])], &[]);
    let m = f.e('A', 3, vec![move_dir(d, v(&s, 1), (a, "d"), &[])], &[]);
    f.e('A', 4, vec![gone_in(a, "d", &[v(&m, 0)])], &[]);
    f.e('B', 5, vec![move_dir(a, v(&s, 0), (d, "a"), &[])], &[&s, &p]);
    expect(&f, &[], &[("a", "/")]);
    let inside = names(&f.journal(), a, &["f"]);
    assert!(inside.contains(&("f".into(), "f".into())), "{inside:?}");
}

#[test]
fn case_13_a_copy_keeps_its_name_when_another_is_resolved() {
    let mut f = Forge::new();
    let a = f.e('A', 1, vec![put("x", "v0", &[])], &[]);
    f.e('B', 2, vec![put("x", "off", &[v(&a, 0)])], &[&a]);
    let c1 = f.e('C', 3, vec![put("x", "one", &[v(&a, 0)])], &[&a]);
    let c2 = f.e('C', 4, vec![put("x", "two", &[v(&a, 0)])], &[]);
    let name_of_two = |f: &Forge| {
        let all = list(&f.journal(), ROOT);
        all.iter().find(|n| n.version == v(&c2, 0)).unwrap().shown.clone()
    };
    let before = name_of_two(&f);
    assert_eq!(list(&f.journal(), ROOT).len(), 3);
    let drop = vec![v(&c1, 0)];
    f.e('A', 5, vec![Op::Resolve { dir: ROOT, name: name("x"), drop }], &[&c2]);
    assert_eq!(name_of_two(&f), before);
    expect(&f, &["off", "two"], &[("x", "off"), ("x (conflict C #)", "two")]);
}

#[test]
fn case_14_a_directory_that_comes_back_gives_way_to_a_file() {
    let mut f = Forge::new();
    let n = f.dir_id(ROOT, "n", &[]);
    let made = f.mkdir(ROOT, "n", &[]);
    let a = f.e('A', 1, vec![made], &[]);
    let g = f.e('A', 2, vec![gone("n", &[v(&a, 0)])], &[]);
    let x = f.e('A', 3, vec![put("n", "now a file", &[v(&g, 0)])], &[]);
    let b = f.e('B', 4, vec![put_in(n, "child", crate::forge::file("kid"), &[])], &[&a]);
    expect(&f, &["now a file"], &[("n", "now a file"), ("n (conflict A #)", "/")]);
    f.e('A', 5, vec![gone("n", &[v(&x, 0)])], &[&b]);
    expect(&f, &[], &[("n", "/")]);
}

#[test]
fn case_15_a_swap_by_two_devices_keeps_a_third_ones_edit() {
    let mut f = Forge::new();
    let s = f.e('A', 1, vec![put("x", "X", &[]), put("y", "Y", &[])], &[]);
    let swap = || vec![put("x", "Y", &[v(&s, 0)]), put("y", "X", &[v(&s, 1)])];
    f.e('A', 2, swap(), &[]);
    f.e('B', 3, swap(), &[&s]);
    f.e('C', 4, vec![put("x", "X+edit", &[v(&s, 0)])], &[&s]);
    let expected = [("x", "Y"), ("x (conflict C #)", "X+edit"), ("y", "X")];
    expect(&f, &["X", "Y", "X+edit"], &expected);
}

#[test]
fn case_16_a_rename_against_edits_of_both_names_keeps_all() {
    let mut f = Forge::new();
    let s = f.e('A', 1, vec![put("x", "X", &[])], &[]);
    let m = f.e('A', 2, vec![moved("x", "y", &[v(&s, 0)]), put("y", "X", &[])], &[]);
    f.e('B', 3, vec![put("y", "X+bob", &[v(&m, 1)])], &[&m]);
    f.e('C', 4, vec![put("x", "X+carol", &[v(&s, 0)])], &[&s]);
    expect(&f, &["X+bob", "X+carol", "X"], &[("x", "X+carol"), ("y", "X+bob")]);
}

#[test]
fn case_17_between_groups_that_were_cut_off_time_decides() {
    let mut f = Forge::new();
    let s = f.e('A', 1, vec![put("x", "v0", &[])], &[]);
    f.e('A', 500, vec![put("x", "studio", &[v(&s, 0)])], &[]);
    f.e('C', 499, vec![put("x", "train", &[v(&s, 0)])], &[&s]);
    expect(&f, &["studio", "train"], &[("x", "train"), ("x (conflict A #)", "studio")]);
}

#[test]
fn case_18_copying_over_a_file_leaves_its_conflict_copy() {
    let mut f = Forge::new();
    let [_, b, c] = two_saves(&mut f);
    f.e('A', 5, vec![put("x", "cp", &[v(&b, 0)])], &[&b, &c]);
    expect(&f, &["cp", "bob"], &[("x", "cp"), ("x (conflict C #)", "bob")]);
}

#[test]
fn a_live_file_beats_a_concurrent_removal_in_either_order() {
    for (remove, save) in [(2, 3), (3, 2)] {
        let mut f = Forge::new();
        let a = f.e('A', 1, vec![put("x", "v0", &[])], &[]);
        f.e('B', remove, vec![gone("x", &[v(&a, 0)])], &[&a]);
        f.e('C', save, vec![put("x", "edit", &[v(&a, 0)])], &[&a]);
        expect(&f, &["edit"], &[("x", "edit")]);
    }
}

#[test]
fn two_backups_of_one_save_dance_are_not_shown_twice() {
    let mut f = Forge::new();
    let a = f.e('A', 1, vec![put("s.blend", "v0", &[])], &[]);
    let dance = |text: &str, old: &str, base: journal::VersionId, bak: &[journal::VersionId]| {
        vec![put("s.blend", text, &[base]), put("s.blend1", old, bak)]
    };
    let b1 = f.e('B', 2, dance("b1", "v0", v(&a, 0), &[]), &[&a]);
    f.e('B', 3, dance("b2", "b1", v(&b1, 0), &[v(&b1, 1)]), &[]);
    f.e('C', 4, dance("c1", "v0", v(&a, 0), &[]), &[&a]);
    let texts = ["b1", "b2", "c1", "v0"];
    let found = shown(&f, &texts);
    let backups: Vec<_> = found.iter().filter(|(shown, _)| shown.starts_with("s.blend1")).collect();
    assert_eq!(backups, [&("s.blend1".to_owned(), "b1".to_owned())]);
    assert!(found.contains(&("s.blend".into(), "b2".into())));
    assert!(found.contains(&("s (conflict C #).blend".into(), "c1".into())));
}

#[test]
fn an_exchange_swaps_directories_and_files_as_one() {
    let mut f = Forge::new();
    let d = f.dir_id(ROOT, "d", &[]);
    let made = f.mkdir(ROOT, "d", &[]);
    let a = f.e('A', 1, vec![made, put("x", "X", &[])], &[]);
    let side = |at: &str, comes: Arrival, base| ExchangeSide {
        dir: ROOT,
        name: name(at),
        comes,
        bases: vec![base],
    };
    let swap = Op::Exchange {
        a: side("d", Arrival::Value(crate::forge::file("X")), v(&a, 0)),
        b: side("x", Arrival::Dir { dir: d, from: v(&a, 0) }, v(&a, 1)),
    };
    f.e('A', 2, vec![swap.clone()], &[]);
    expect(&f, &["X"], &[("d", "X"), ("x", "/")]);
    assert_eq!(f.journal().dir(d).unwrap().unwrap().shown.as_str(), "x");

    // Against a move that was first, nothing of it happens.
    let mut f = Forge::new();
    let made = f.mkdir(ROOT, "d", &[]);
    let a = f.e('A', 1, vec![made, put("x", "X", &[])], &[]);
    f.e('B', 2, vec![move_dir(d_of(&f), v(&a, 0), (ROOT, "e"), &[])], &[&a]);
    let swap = Op::Exchange {
        a: side("d", Arrival::Value(crate::forge::file("X")), v(&a, 0)),
        b: side("x", Arrival::Dir { dir: d_of(&f), from: v(&a, 0) }, v(&a, 1)),
    };
    f.e('C', 3, vec![swap], &[&a]);
    expect(&f, &["X"], &[("e", "/"), ("x", "X")]);
}

fn d_of(f: &Forge) -> DirId {
    f.dir_id(ROOT, "d", &[])
}

#[test]
fn a_name_that_a_directory_left_makes_another_directory() {
    let mut f = Forge::new();
    let a = f.dir_id(ROOT, "a", &[]);
    let made = f.mkdir(ROOT, "a", &[]);
    let e = f.e('A', 1, vec![made], &[]);
    let m = f.e('A', 2, vec![move_dir(a, v(&e, 0), (ROOT, "b"), &[])], &[]);
    let journal = f.journal();
    let left = v(&m, 0).second();
    let next = journal.new_dir_id(ROOT, &name("a"), &[left]).unwrap();
    assert_ne!(next, a);
    assert_eq!(journal.gone_heads(ROOT, &name("a")).unwrap(), [left]);
    let make = |dir, bases: &[journal::VersionId]| Op::MkDir {
        parent: ROOT,
        name: name("a"),
        dir,
        attr: Default::default(),
        bases: bases.to_vec(),
    };
    let n = f.e('A', 3, vec![make(next, &[left])], &[]);
    let g = f.e('A', 4, vec![gone("a", &[v(&n, 0)])], &[]);
    // Removed and made again it is that one, not the one that lives on as `b`.
    assert_eq!(f.journal().new_dir_id(ROOT, &name("a"), &[v(&g, 0)]).unwrap(), next);
    // In place of the one that stands there, too: a program removes and makes it in one go.
    assert_eq!(f.journal().new_dir_id(ROOT, &name("a"), &[v(&n, 0)]).unwrap(), next);
    f.e('A', 5, vec![make(next, &[v(&g, 0)])], &[]);
    expect(&f, &[], &[("a", "/"), ("b", "/")]);
}

#[test]
fn the_latest_attributes_of_a_directory_win() {
    let mut f = Forge::new();
    let d = d_of(&f);
    let made = f.mkdir(ROOT, "d", &[]);
    let a = f.e('A', 1, vec![made], &[]);
    let set =
        |mode| Op::SetDir { dir: d, attr: journal::op::DirAttr { mode, ..Default::default() } };
    f.e('B', 3, vec![set(0o700)], &[&a]);
    f.e('C', 2, vec![set(0o711)], &[&a]);
    assert_eq!(f.journal().dir(d).unwrap().unwrap().attr.mode, 0o700);
}
