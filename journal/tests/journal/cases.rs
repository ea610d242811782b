//! Cases in which versions and ids matter, which no tree shows. What trees show is in [`crate::scenarios`].

use journal::{DirId, Op, ViewKind};

use crate::forge::{Forge, file_with, gone, move_dir, name, names, put, put_in, v};

const ROOT: DirId = DirId::ROOT;

fn shown(forge: &Forge, texts: &[&str]) -> Vec<(String, String)> {
    names(&forge.journal(), ROOT, texts)
}

fn expect(forge: &Forge, texts: &[&str], expected: &[(&str, &str)]) {
    let expected: Vec<(String, String)> =
        expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    assert_eq!(shown(forge, texts), expected);
}

#[test]
fn a_change_of_mode_and_a_save_are_one_head_of_two_versions() {
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
