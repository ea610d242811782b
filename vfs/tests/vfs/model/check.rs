//! What is seen, compared with what is expected.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use journal::op::{Content, Op, Timestamp, Value as Published};
use journal::view::ViewKind;
use journal::{DirId, EntryName, Journal};
use vfs::attr::Kind;
use vfs::fs::Wait;

use super::machine::{Machine, folded};
use super::operation::Operation;
use super::reference::{Id, Kept, Node, Paths, ROOT, Value};
use crate::drive::ME;

/// What is found at a path.
#[derive(Clone, Debug)]
pub struct Found {
    pub value: Value,
    pub mtime: Timestamp,
    pub ino: u64,
}

/// The names a directory lists, as they are compared, in order.
pub fn list(machine: &Machine, ino: u64) -> Vec<String> {
    let fs = machine.fs();
    let handle = fs.opendir(ME, ino).unwrap();
    let mut names = Vec::new();
    fs.readdir(handle, 0, |entry| {
        names.push(entry.name.to_string());
        true
    })
    .unwrap();
    fs.releasedir(handle);
    names.retain(|name| name != "." && name != "..");
    let mut names: Vec<String> = names.iter().map(|name| folded(name)).collect();
    names.sort();
    names
}

fn read_whole(machine: &Machine, ino: u64) -> Vec<u8> {
    let fs = machine.fs();
    let handle = fs.open(ME, ino, 0, Wait::Allowed).unwrap().handle;
    let bytes = fs.read(handle, 0, 1 << 24, Wait::Allowed).unwrap();
    fs.release(handle).unwrap();
    bytes
}

fn xattrs(machine: &Machine, ino: u64) -> journal::op::Xattrs {
    let fs = machine.fs();
    let names = fs.listxattr(ino).unwrap();
    names.into_iter().map(|name| (name.clone(), fs.getxattr(ino, &name).unwrap())).collect()
}

/// Everything there is.
pub fn walk(machine: &mut Machine) -> Paths<Found> {
    let mut found = Paths::new();
    let mut todo = vec![(String::new(), crate::drive::ROOT)];
    while let Some((dir, dir_ino)) = todo.pop() {
        for name in list(machine, dir_ino) {
            let attr = machine.fs().lookup(dir_ino, name.as_bytes()).unwrap().attr;
            let (ino, mode) = (machine.told(attr.ino), attr.mode);
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            let value = match attr.kind {
                Kind::Dir => {
                    todo.push((path.clone(), ino));
                    Value::Dir { mode, xattrs: xattrs(machine, ino) }
                }
                Kind::Symlink => Value::Link(machine.fs().readlink(ino).unwrap()),
                Kind::File => {
                    let bytes = Arc::new(read_whole(machine, ino));
                    Value::File { bytes, mode, xattrs: xattrs(machine, ino) }
                }
            };
            found.insert(path, Found { value, mtime: attr.mtime, ino });
        }
    }
    found
}

/// All that programs see is as in the reference; `whole` reads files nobody has open, too.
pub fn visible(machine: &mut Machine, whole: bool) {
    let mut todo = vec![ROOT];
    while let Some(dir) = todo.pop() {
        let dir_ino = machine.inos[&dir];
        let names = machine.reference.dir(dir).names.clone();
        let listed = list(machine, dir_ino);
        assert!(listed.iter().eq(names.keys()), "listed {listed:?} instead of {names:?}");
        for (name, id) in names {
            let attr = machine.fs().lookup(dir_ino, name.as_bytes()).unwrap().attr;
            let ino = machine.told(attr.ino);
            let known = *machine.inos.entry(id).or_insert(ino);
            assert_eq!(known, ino, "{name:?} has become another inode");
            if matches!(machine.reference.nodes[&id], Node::Dir(_)) {
                todo.push(id);
            }
            node(machine, id, whole);
        }
    }
    let slots: Vec<_> = machine.slots.values().copied().collect();
    for slot in slots {
        node(machine, slot.file, false);
        if slot.reads {
            let read = machine.fs().read(slot.handle, 0, 1 << 24, Wait::Allowed).unwrap();
            same_bytes(&read, &machine.reference.file(slot.file).bytes);
        }
    }
}

fn same_bytes(found: &[u8], expected: &[u8]) {
    if found != expected {
        let first = found.iter().zip(expected).position(|(a, b)| a != b);
        let (len, want) = (found.len(), expected.len());
        panic!("bytes differ from {first:?} on; {len} bytes instead of {want}");
    }
}

/// An inode is as its node in the reference.
fn node(machine: &Machine, id: Id, whole: bool) {
    let ino = machine.inos[&id];
    let attr = machine.fs().getattr(ino).unwrap();
    match machine.reference.value(id) {
        Value::Dir { mode, xattrs: expected } => {
            assert_eq!((attr.kind, attr.mode), (Kind::Dir, mode));
            assert_eq!(xattrs(machine, ino), expected);
        }
        Value::Link(target) => {
            assert_eq!((attr.kind, attr.len), (Kind::Symlink, target.len() as u64));
            assert_eq!(machine.fs().readlink(ino).unwrap(), target);
        }
        Value::File { bytes, mode, xattrs: expected } => {
            let file = machine.reference.file(id);
            let want = (Kind::File, bytes.len() as u64, mode, file.mtime);
            assert_eq!((attr.kind, attr.len, attr.mode, attr.mtime), want, "attributes");
            assert_eq!(attr.nlink, u32::from(file.place.is_some()), "number of links");
            assert_eq!(xattrs(machine, ino), expected);
            if whole {
                same_bytes(&read_whole(machine, ino), &bytes);
            }
        }
    }
}

/// The bytes of a published content.
pub fn bytes_of(machine: &Machine, content: Content) -> Vec<u8> {
    let content = cas::Content { id: content.id, len: content.len };
    let reader = machine.store.read(content).unwrap();
    let mut bytes = vec![0; content.len as usize];
    assert_eq!(reader.read_at(0, &mut bytes).unwrap(), bytes.len());
    bytes
}

fn value_of(machine: &Machine, value: &Published) -> Option<Value> {
    match value {
        Published::File(file) => Some(Value::File {
            bytes: Arc::new(bytes_of(machine, file.content)),
            mode: file.mode,
            xattrs: file.xattrs.clone(),
        }),
        Published::Symlink(link) => Some(Value::Link(link.target.clone())),
        Published::Gone { .. } => None,
    }
}

/// The path of a published directory.
fn path_of(journal: &Journal, dir: DirId) -> Option<String> {
    if dir == DirId::ROOT {
        return Some(String::new());
    }
    let node = journal.dir(dir).unwrap()?;
    let (parent, name) = (path_of(journal, node.parent)?, node.shown.folded().into_owned());
    Some(if parent.is_empty() { name } else { format!("{parent}/{name}") })
}

/// The path of a name in a published directory.
pub fn path_in(journal: &Journal, dir: DirId, name: &EntryName) -> Option<String> {
    let (dir, name) = (path_of(journal, dir)?, name.folded().into_owned());
    Some(if dir.is_empty() { name } else { format!("{dir}/{name}") })
}

/// What the journal shows, by path.
pub fn tree_of(machine: &Machine, journal: &Journal) -> Paths<Value> {
    let mut tree = Paths::new();
    let mut todo = vec![(String::new(), DirId::ROOT)];
    while let Some((path, dir)) = todo.pop() {
        for view in journal.list(dir, None, usize::MAX).unwrap() {
            let name = view.shown.folded().into_owned();
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            let value = match view.kind {
                ViewKind::File(file) => value_of(machine, &Published::File(file)),
                ViewKind::Symlink(link) => value_of(machine, &Published::Symlink(link)),
                ViewKind::Dir { dir, attr } => {
                    todo.push((path.clone(), dir));
                    Some(Value::Dir { mode: attr.mode, xattrs: attr.xattrs })
                }
            };
            tree.extend(value.map(|value| (path, value)));
        }
    }
    tree
}

/// Whatever this device published was there, closed: no half-written file, no gap of a rename (F3, C5).
/// Gives whether anything was.
pub fn published(machine: &mut Machine, before: &Paths<Value>, operation: Operation) -> bool {
    let sealed = machine.pair.take_sealed();
    let any = !sealed.is_empty();
    let after = machine.reference.logged().clone();
    let exchanging =
        matches!(operation, Operation::Rename { mode: vfs::fs::RenameMode::Exchange, .. });
    for op in sealed {
        let (dir, name, value) = match op {
            Op::Put { dir, name, value, .. } => (dir, name, Some(value)),
            Op::MkDir { parent, name, .. } => (parent, name, None),
            _ => continue,
        };
        let Some(path) = path_in(&machine.pair.here.journal, dir, &name) else { continue };
        let known = [before.get(&path), after.get(&path)];
        let fits = match value.as_ref().map(|value| value_of(machine, value)) {
            None => {
                known.iter().flatten().any(|known| super::machine::is_dir(known))
                    || machine.their.owns(&path)
            }
            Some(None) => known.contains(&None) || machine.their.owns(&path),
            Some(value) => {
                known.contains(&value.as_ref())
                    || (exchanging && after.values().any(|known| Some(known) == value.as_ref()))
                    || machine.their.owns(&path)
            }
        };
        assert!(fits, "published at {path:?}: {value:?}; known were {known:?}");
        machine.published(path);
    }
    any
}

fn same_tree(found: &Paths<Value>, expected: &Paths<Value>, whose: &str) {
    let all: BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
    for path in all {
        assert_eq!(found.get(path), expected.get(path), "{whose}, at {path:?}");
    }
}

/// Nothing is held back for ever.
pub fn settled(machine: &Machine) {
    if machine.reference.is_closed() {
        assert_eq!(machine.fs().drafts(), 0, "drafts that are never published");
        all_published(machine);
    }
}

/// The published tree is what programs see.
pub fn all_published(machine: &Machine) {
    // What is being written here is shown here, whoever is official.
    if machine.their.arrived && !machine.reference.is_closed() {
        return;
    }
    let tree = tree_of(machine, &machine.pair.here.journal);
    same_tree(&tree, &machine.reference.shown(), "published");
}

/// What a crash left is what it may leave: the last of `history` is what there was, the first what was synced (C1, C5).
pub fn kept(machine: &Machine, history: &[Paths<Kept>], found: &Paths<Found>) {
    let fits = |state: &Paths<Kept>| {
        let all: BTreeSet<&String> = found.keys().chain(state.keys()).collect();
        all.into_iter().filter(|path| !fits_at(state, found, path)).cloned().collect::<Vec<_>>()
    };
    let misfits: Vec<Vec<String>> = history.iter().map(fits).collect();
    if misfits.iter().any(Vec::is_empty) {
        return;
    }
    let all: BTreeSet<&String> =
        found.keys().chain(history.iter().flat_map(|state| state.keys())).collect();
    for path in all {
        let fits = history.iter().any(|state| fits_at(state, found, path));
        assert!(
            fits || machine.their.owns(path),
            "after a crash, at {path:?}: {:?}; expected {:?}",
            found.get(path).map(|found| &found.value),
            history.last().and_then(|state| state.get(path))
        );
    }
}

fn fits_at(state: &Paths<Kept>, found: &Paths<Found>, path: &str) -> bool {
    match (state.get(path), found.get(path)) {
        (Some(kept), Some(found)) => kept.allows(&found.value),
        (None, None) => true,
        _ => false,
    }
}

/// What others may have seen is not taken back.
pub fn no_older_than_published(
    machine: &Machine,
    history: &[Paths<Kept>],
    published_at: &BTreeMap<String, usize>,
    found: &Paths<Found>,
) {
    for (path, at) in published_at {
        let fits = history.iter().skip(*at).any(|state| fits_at(state, found, path));
        assert!(
            fits || machine.their.owns(path),
            "{path:?} is older than what was published: {:?}",
            found.get(path)
        );
    }
}
