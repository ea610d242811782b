//! The other member's work, and what must become of it here.
//!
//! What the journal makes of two members' work is the journal's to say, and its own model tests it. Here its answer is
//! taken over where it is seen, after these questions: is everything seen somebody's work, and is everything closed here
//! or saved there still to be seen, or in history, or replaced by somebody who had seen it (T5, T7)?

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use journal::op::{Content, DirAttr, FileValue, Op, Timestamp, Value as Published, Xattrs};
use journal::view::{ViewKind, ViewNode};
use journal::{DirId, EntryName, Journal, Register, VersionId};

use super::check::{self, Found};
use super::machine::Machine;
use super::operation::{Place, Theirs};
use super::reference::{Paths, Value};

type Bytes = Arc<Vec<u8>>;

/// What the other member did.
#[derive(Default)]
pub struct Work {
    count: usize,
    /// Contents saved there, and not replaced there since.
    owed: HashSet<Bytes>,
    /// Contents, of whomever, that the other member replaced or removed, having seen them.
    replaced: HashSet<Bytes>,
    /// Contents that were seen here.
    seen: HashSet<Bytes>,
    /// Contents that were renamed here: a rename that loses to a change is not shown as a copy.
    moved: HashSet<Bytes>,
    /// Closed here in a directory that the other member removed meanwhile: back when it is published.
    hidden: HashSet<Bytes>,
    /// Paths at which others had a hand.
    hands: BTreeSet<String>,
    /// Whether anything of theirs has come here.
    pub arrived: bool,
}

impl Work {
    /// Whether the other member had its hands on a path, so that what stands there is decided by the journal.
    pub fn owns(&self, path: &str) -> bool {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        path.contains(" (conflict ")
            || ends.into_iter().any(|end| self.hands.contains(&path[..end]))
    }

    /// Programs here have this in front of them.
    pub fn sees(&mut self, found: &Paths<Found>) {
        self.seen.extend(contents(found.values().map(|found| &found.value)));
    }

    pub fn moved(&mut self, bytes: Vec<u8>) {
        self.moved.insert(Arc::new(bytes));
    }
}

fn dir_at(journal: &Journal, path: &str) -> Option<DirId> {
    path.split('/').filter(|part| !part.is_empty()).try_fold(DirId::ROOT, |dir, part| match journal
        .lookup(dir, &part.parse().unwrap())
        .unwrap()?
        .kind
    {
        ViewKind::Dir { dir, .. } => Some(dir),
        _ => None,
    })
}

/// A name as the other member sees it.
struct Seen {
    dir: DirId,
    name: EntryName,
    node: Option<ViewNode>,
    bases: Vec<VersionId>,
}

fn look(journal: &Journal, at: Place) -> Option<Seen> {
    let dir = dir_at(journal, at.dir)?;
    let name: EntryName = at.name.parse().unwrap();
    let node = journal.lookup(dir, &name).unwrap();
    let name = node.as_ref().map_or(name, |node| node.register.name.clone());
    let mut bases = node.as_ref().map(|node| node.merged.clone()).unwrap_or_default();
    bases.extend(journal.gone_heads(dir, &name).unwrap());
    bases.sort_unstable();
    bases.dedup();
    Some(Seen { dir, name, node, bases })
}

impl Seen {
    fn file(&self) -> Option<&FileValue> {
        match self.node.as_ref().map(|node| &node.kind) {
            Some(ViewKind::File(file)) => Some(file),
            _ => None,
        }
    }

    fn dir_there(&self) -> Option<DirId> {
        match self.node.as_ref().map(|node| &node.kind) {
            Some(ViewKind::Dir { dir, .. }) => Some(*dir),
            _ => None,
        }
    }

    fn put(&self, value: Published) -> Op {
        Op::Put { dir: self.dir, name: self.name.clone(), value, bases: self.bases.clone() }
    }
}

/// The other member does something, knowing what it has heard.
pub fn act(machine: &mut Machine, theirs: Theirs) {
    let ops = match theirs {
        Theirs::Save(at) => save(machine, at),
        Theirs::Chmod(at) => chmod(machine, at),
        Theirs::Remove(at) => remove(machine, at),
        Theirs::Rename(from, to) => rename(machine, from, to),
        Theirs::Mkdir(at) => mkdir(machine, at),
    };
    if let Some(ops) = ops {
        machine.pair.publish_there(ops);
    }
}

fn save(machine: &mut Machine, at: Place) -> Option<Vec<Op>> {
    let seen = look(&machine.pair.there.journal, at)?;
    if seen.dir_there().is_some() {
        return None;
    }
    replaces(machine, &seen);
    machine.their.count += 1;
    let count = machine.their.count;
    let bytes = format!("theirs {count} ").into_bytes().repeat(1 + count % 3 * 700);
    let mut writer = machine.store.writer(None);
    writer.write(&bytes).unwrap();
    let content = writer.finish().unwrap();
    machine.store.sync().unwrap();
    machine.their.owed.insert(Arc::new(bytes));
    let value = FileValue {
        content: Content { id: content.id, len: content.len },
        mode: 0o644,
        mtime: Timestamp::default(),
        xattrs: Xattrs::new(),
        owner: None,
    };
    Some(vec![seen.put(Published::File(value))])
}

/// The other member replaces what it sees.
fn replaces(machine: &mut Machine, seen: &Seen) {
    if let Some(file) = seen.file() {
        let bytes = Arc::new(check::bytes_of(machine, file.content));
        machine.their.owed.remove(&bytes);
        machine.their.replaced.insert(bytes);
    }
}

fn chmod(machine: &mut Machine, at: Place) -> Option<Vec<Op>> {
    let seen = look(&machine.pair.there.journal, at)?;
    let file = FileValue { mode: 0o600, ..seen.file()?.clone() };
    Some(vec![seen.put(Published::File(file))])
}

fn remove(machine: &mut Machine, at: Place) -> Option<Vec<Op>> {
    let journal = &machine.pair.there.journal;
    let seen = look(journal, at)?;
    seen.node.as_ref()?;
    if let Some(dir) = seen.dir_there()
        && !journal.list(dir, None, 1).unwrap().is_empty()
    {
        return None;
    }
    replaces(machine, &seen);
    Some(vec![seen.put(Published::Gone { moved_to: None })])
}

fn rename(machine: &mut Machine, from: Place, to: Place) -> Option<Vec<Op>> {
    let journal = &machine.pair.there.journal;
    let (source, target) = (look(journal, from)?, look(journal, to)?);
    let placed = source.node.as_ref()?;
    let same = source.dir == target.dir && source.name.folded() == target.name.folded();
    if same || target.dir_there().is_some() {
        return None;
    }
    let moved_to = (target.dir, target.name.clone());
    if let Some(dir) = source.dir_there() {
        let mut above = target.dir;
        while above != DirId::ROOT {
            if above == dir {
                return None;
            }
            above = journal.dir(above).unwrap()?.parent;
        }
        if target.node.is_some() {
            return None;
        }
        let from = placed.version;
        return Some(vec![Op::Move { dir, from, to: moved_to, bases: target.bases }]);
    }
    let value = match placed.kind.clone() {
        ViewKind::File(file) => Published::File(file),
        ViewKind::Symlink(link) => Published::Symlink(link),
        ViewKind::Dir { .. } => return None,
    };
    replaces(machine, &target);
    Some(vec![target.put(value), source.put(Published::Gone { moved_to: Some(moved_to) })])
}

fn mkdir(machine: &mut Machine, at: Place) -> Option<Vec<Op>> {
    let journal = &machine.pair.there.journal;
    let Seen { dir: parent, name, node, bases } = look(journal, at)?;
    if node.is_some() {
        return None;
    }
    let dir = journal.new_dir_id(parent, &name, &bases).unwrap();
    Some(vec![Op::MkDir { parent, name, dir, attr: DirAttr::default(), bases }])
}

/// Both members hear of each other's work.
pub fn meet(machine: &mut Machine) {
    let changed: Vec<Register> = machine.pair.meet();
    let trees = [&machine.pair.here, &machine.pair.there].map(|side| side.journal.tree_hash());
    assert_eq!(trees[0], trees[1], "T1: trees differ");
    if changed.is_empty() {
        return;
    }
    machine.their.arrived = true;
    for register in &changed {
        let path = check::path_in(&machine.pair.here.journal, register.dir, &register.name);
        machine.their.hands.extend(path);
    }
    machine.fs().remote_changed(&changed);
    while machine.fs().next_stale(Duration::ZERO).is_some_and(|stale| !stale.is_empty()) {}
}

/// Takes over what is seen here since work of both has met.
pub fn take_over(machine: &mut Machine) {
    let found = check::walk(machine);
    let tree = check::tree_of(machine, &machine.pair.here.journal);
    let expected = machine.reference.shown();
    nothing_invented(machine, &found, &tree);
    let hidden = nothing_closed_lost(machine, &found, &tree);
    machine.their.hidden = hidden;
    nothing_saved_lost(machine, &found, &tree);
    for path in found.keys().chain(expected.keys()) {
        if found.get(path).map(|found| &found.value) != expected.get(path) {
            machine.their.hands.insert(path.clone());
        }
    }
    machine.their.sees(&found);
    machine.adopt(found);
}

fn contents<'a>(values: impl Iterator<Item = &'a Value>) -> HashSet<Bytes> {
    values
        .filter_map(|value| match value {
            Value::File { bytes, .. } => Some(bytes.clone()),
            _ => None,
        })
        .collect()
}

/// No file is a mixture (F3, C5).
fn nothing_invented(machine: &Machine, found: &Paths<Found>, tree: &Paths<Value>) {
    let mut known = contents(tree.values());
    known.extend(machine.reference.contents());
    for (path, found) in found {
        if let Value::File { bytes, .. } = &found.value {
            assert!(known.contains(bytes), "nobody wrote what is at {path:?}: {:?}", found.value);
        }
    }
}

/// What programs closed here is seen, or in history, or was replaced by one who had seen it (T5).
///
/// Gives what cannot be seen until it is published, because its directory was removed by the other member.
fn nothing_closed_lost(
    machine: &Machine,
    found: &Paths<Found>,
    tree: &Paths<Value>,
) -> HashSet<Bytes> {
    let work = &machine.their;
    let mut there = contents(found.values().map(|found| &found.value));
    there.extend(contents(tree.values()));
    let closed = machine.reference.logged().iter().filter_map(|(path, value)| match value {
        Value::File { bytes, .. } if !machine.reference.is_dirty_at(path) => {
            Some((path.as_str(), bytes))
        }
        _ => None,
    });
    let closed = closed.chain(work.hidden.iter().map(|bytes| ("", bytes)));
    let missing: Vec<(&str, &Bytes)> = closed
        .filter(|(_, bytes)| !there.contains(*bytes) && !work.replaced.contains(*bytes))
        .collect();
    let mut hidden = HashSet::new();
    if missing.is_empty() {
        return hidden;
    }
    let history = in_history(machine);
    for (path, bytes) in missing {
        let by_rename = !work.owed.contains(bytes) || work.moved.contains(bytes);
        if history.contains(bytes) && by_rename {
            continue;
        }
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
        let unreachable = path.is_empty() || !dir.is_empty() && !found.contains_key(dir);
        let waits = unreachable && machine.fs().drafts() > 0;
        assert!(waits, "T5: {} bytes closed at {path:?} are nowhere", bytes.len());
        hidden.insert(bytes.clone());
    }
    hidden
}

/// What the other member saved is seen until somebody who saw it replaces it (T7).
fn nothing_saved_lost(machine: &Machine, found: &Paths<Found>, tree: &Paths<Value>) {
    let mut there = contents(found.values().map(|found| &found.value));
    there.extend(contents(tree.values()));
    let there_tree = contents(check::tree_of(machine, &machine.pair.there.journal).values());
    for bytes in machine.their.owed.iter().filter(|bytes| !machine.their.seen.contains(*bytes)) {
        // Not heard of yet.
        let known = there.contains(bytes) || there_tree.contains(bytes);
        assert!(known, "T7: {:?}... was replaced unseen", String::from_utf8_lossy(&bytes[..9]));
    }
}

/// The contents of all versions of all names that are there.
fn in_history(machine: &Machine) -> HashSet<Bytes> {
    let journal = &machine.pair.here.journal;
    let mut all = HashSet::new();
    let mut dirs = vec![DirId::ROOT];
    while let Some(dir) = dirs.pop() {
        let views = journal.list(dir, None, usize::MAX).unwrap();
        let shown = views.iter().map(|view| view.register.name.clone());
        let names = super::operation::names().map(|name| name.parse::<EntryName>().unwrap());
        for name in shown.chain(names).collect::<BTreeSet<EntryName>>() {
            for version in journal.history(dir, &name).unwrap() {
                if let Published::File(file) = version.value {
                    all.insert(Arc::new(check::bytes_of(machine, file.content)));
                }
            }
        }
        dirs.extend(views.iter().filter_map(|view| match view.kind {
            ViewKind::Dir { dir, .. } => Some(dir),
            _ => None,
        }));
    }
    all
}
