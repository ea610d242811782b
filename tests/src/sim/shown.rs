//! What a journal shows, in the oracle's words, and how the names of copies are put together.
//!
//! Leaves out: what ought to be shown ([`super`]).

use std::collections::{BTreeMap, BTreeSet};

use journal::view::{ViewKind, ViewNode};
use journal::{DirId, Journal, Register, Standing, VersionId};

use super::{Node, Oracle, Thing};

/// As many whole characters as fit.
pub(super) fn first_bytes(text: &str, len_max: usize) -> &str {
    let mut fits =
        text.char_indices().map(|(at, c)| at + c.len_utf8()).filter(|end| *end <= len_max);
    &text[..fits.next_back().unwrap_or(0)]
}

/// What goes before a copy's tag and what after: `.tar.gz` and its like stay whole, and what is too long or has a space
/// in it is no ending.
pub(super) fn stem_and_ending(name: &str) -> (&str, &str) {
    let parts: Vec<&str> = name.split('.').collect();
    let packed = ["gz", "bz2", "xz", "zst", "lz4", "lzma", "lz", "br", "Z"];
    let ending = match parts.as_slice() {
        [.., before, tar, last]
            if packed.contains(last)
                && tar.eq_ignore_ascii_case("tar")
                && (parts.len() > 3 || !before.is_empty()) =>
        {
            tar.len() + last.len() + 2
        }
        [_, .., last] if name.len() > last.len() + 1 => last.len() + 1,
        _ => 0,
    };
    let (stem, ending) = name.split_at(name.len() - ending);
    match (2..=17).contains(&ending.len()) && !ending.contains(' ') {
        true => (stem, ending),
        false => (name, ""),
    }
}

/// The same nodes as the journal shows them, from the root down.
pub fn walk(journal: &Journal) -> Vec<Node> {
    nodes_of(|dir| {
        let nodes = journal.list(dir, None, usize::MAX).unwrap();
        for node in &nodes {
            let found = journal.lookup(dir, &node.shown).unwrap();
            assert_eq!(found.as_ref(), Some(node), "a listed name must be found");
            if let ViewKind::Dir { dir: id, .. } = &node.kind {
                let standing = journal.dir(*id).unwrap().expect("a shown directory exists");
                assert_eq!((standing.parent, &standing.shown), (dir, &node.shown));
            }
        }
        nodes
    })
}

/// What a journal says of checkouts, where it is not what the rules say.
pub fn checkouts_differ(journal: &Journal, rules: &Oracle) -> Option<String> {
    let all = journal.checkouts().unwrap();
    let held = all.iter().map(|checkout| {
        let Register { dir, name } = &checkout.register;
        ((*dir, name.folded().into_owned()), (checkout.id, checkout.device))
    });
    let (held, expected) = (held.collect::<BTreeMap<_, _>>(), &rules.checkouts.held);
    if held != *expected {
        return Some(format!("held are {held:#?} where the rules say {expected:#?}"));
    }
    let told = |of: &VersionId| journal.checkout_fate(*of).unwrap();
    let mut wrong = rules.checkouts.fates.iter().filter(|(of, fate)| told(of) != Some(**fate));
    wrong.next().map(|(of, fate)| format!("{of} is {:?} where the rules say {fate:?}", told(of)))
}

/// The nodes that `look` shows, from the root down.
pub fn nodes_of(look: impl Fn(DirId) -> Vec<ViewNode>) -> Vec<Node> {
    let (mut out, mut queue) = (Vec::new(), vec![DirId::ROOT]);
    let mut passed = BTreeSet::from([DirId::ROOT]);
    while let Some(dir) = queue.pop() {
        let nodes = look(dir);
        let shown: BTreeSet<_> = nodes.iter().map(|n| n.shown.folded().into_owned()).collect();
        assert_eq!(shown.len(), nodes.len(), "two nodes have one name");
        for node in nodes {
            let (thing, mode) = match &node.kind {
                ViewKind::File(file) => (Thing::File(file.content), file.mode),
                ViewKind::Symlink(link) => (Thing::Link(link.target.clone()), 0),
                ViewKind::Dir { dir: id, attr } => {
                    assert!(passed.insert(*id), "a directory stands in two places");
                    queue.push(*id);
                    (Thing::Dir(*id), attr.mode)
                }
            };
            out.push(Node {
                reg: (dir, node.register.name.folded().into_owned()),
                copy: node.standing == Standing::Copy,
                version: node.version,
                merged: node.merged,
                thing,
                mode,
                shown: node.shown.as_str().to_owned(),
            });
        }
    }
    out.sort();
    out
}
