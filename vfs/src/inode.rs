//! Inode numbers: which one stands for what, and how often the kernel holds it.
//!
//! Leaves out: what is in a file ([`crate::file`]) and what a directory shows ([`crate::fs`]).
//!
//! Invariants:
//! - a name stands for at most one inode, a directory has at most one;
//! - an inode stays while the kernel holds it or a program has it open, and its number is given to nothing else
//!   meanwhile;
//! - numbers are derived from names where they can be, so that they are the same after a new mount;
//! - beyond a bound the kernel is asked to forget the files it has known longest ([`Table::cold`]); directories, which it
//!   must be able to name while a program stands in them, and what is in use stay.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use journal::id::DirId;
use journal::name::EntryName;
use journal::op::{SymlinkValue, Timestamp};
use parking_lot::Mutex;

use crate::drafts::{Below, Key};
use crate::file::FileNode;
use crate::past::{PastId, PastKind, PastNode};

/// The root's number, fixed by the kernel.
pub const ROOT_INO: u64 = 1;
/// Bits of a derived number; few programs are ready for more.
const INO_BITS: u32 = 52;
/// How many names are looked at for each inode too many.
const COLD_STEP: usize = 4;

/// What an inode is.
#[derive(Clone)]
pub(crate) enum NodeKind {
    Dir(DirId),
    File(Arc<FileNode>),
    Symlink(Arc<LinkNode>),
    /// Something of the past, which nothing changes.
    Past(Arc<PastNode>),
}

/// A symbolic link.
pub(crate) struct LinkNode {
    pub(crate) ino: u64,
    pub(crate) value: Mutex<SymlinkValue>,
    pub(crate) below: Mutex<Below>,
    pub(crate) times: Mutex<LinkTimes>,
}

/// Times of a link that are kept here only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkTimes {
    pub(crate) atime: Timestamp,
    pub(crate) ctime: Timestamp,
}

/// A name an inode stands under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) key: Key,
    pub(crate) name: EntryName,
}

pub(crate) struct Node {
    pub(crate) kind: NodeKind,
    /// How often the kernel was told of it.
    lookups: u64,
    /// Where the table finds it; none once it was removed, replaced or moved elsewhere by someone else.
    key: Option<Key>,
    /// Which of the numbers waiting in [`Table::oldest`] is this inode's, not an earlier one's.
    turn: u64,
}

/// A name the kernel may forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cold {
    pub(crate) parent: u64,
    pub(crate) name: String,
}

/// All inodes in use.
pub(crate) struct Table {
    nodes: HashMap<u64, Node>,
    names: HashMap<Key, u64>,
    dirs: HashMap<DirId, u64>,
    past: HashMap<PastId, u64>,
    next: u64,
    /// Inodes in the order in which the kernel came to know them, some of them forgotten since.
    oldest: VecDeque<(u64, u64)>,
    turns: u64,
    known_max: usize,
}

impl Table {
    /// A table that asks the kernel to forget when it holds more than `known_max` inodes.
    pub(crate) fn new(known_max: usize) -> Self {
        let root = Node { kind: NodeKind::Dir(DirId::ROOT), lookups: 1, key: None, turn: 0 };
        Self {
            nodes: HashMap::from([(ROOT_INO, root)]),
            names: HashMap::new(),
            dirs: HashMap::from([(DirId::ROOT, ROOT_INO)]),
            past: HashMap::new(),
            next: ROOT_INO + 1,
            oldest: VecDeque::new(),
            turns: 0,
            known_max,
        }
    }

    /// The number a name would get.
    pub(crate) fn number_hint(of: impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        of.hash(&mut hasher);
        hasher.finish() >> (u64::BITS - INO_BITS)
    }

    /// A number nothing has.
    pub(crate) fn free_number(&mut self, hint: u64) -> u64 {
        if hint > ROOT_INO && !self.nodes.contains_key(&hint) {
            return hint;
        }
        // Above the derived ones, so that the next name's number is not taken.
        loop {
            self.next += 1;
            let number = (1 << INO_BITS) + self.next;
            if !self.nodes.contains_key(&number) {
                return number;
            }
        }
    }

    pub(crate) fn get(&self, ino: u64) -> Option<&Node> {
        self.nodes.get(&ino)
    }

    pub(crate) fn at(&self, key: &Key) -> Option<(u64, &Node)> {
        let ino = *self.names.get(key)?;
        self.nodes.get(&ino).map(|node| (ino, node))
    }

    /// The name an inode stands under.
    pub(crate) fn key_of(&self, ino: u64) -> Option<Key> {
        self.nodes.get(&ino)?.key.clone()
    }

    pub(crate) fn dir_ino(&self, dir: DirId) -> Option<u64> {
        self.dirs.get(&dir).copied()
    }

    /// Puts a new inode under a name; what stood there loses the name.
    pub(crate) fn insert(&mut self, ino: u64, key: Key, kind: NodeKind) {
        self.detach(&key);
        if let NodeKind::Dir(dir) = &kind {
            self.dirs.insert(*dir, ino);
        }
        self.names.insert(key.clone(), ino);
        self.nodes.insert(ino, Node { kind, lookups: 0, key: Some(key), turn: 0 });
    }

    /// The inode of something of the past, when it is in use.
    pub(crate) fn past_at(&self, id: &PastId) -> Option<Arc<PastNode>> {
        match &self.nodes.get(self.past.get(id)?)?.kind {
            NodeKind::Past(node) => Some(node.clone()),
            _ => None,
        }
    }

    /// Puts a new inode of the past in; no name but its own leads to it.
    pub(crate) fn insert_past(&mut self, node: Arc<PastNode>) {
        self.past.insert(node.id.clone(), node.ino);
        self.nodes
            .insert(node.ino, Node { kind: NodeKind::Past(node), lookups: 0, key: None, turn: 0 });
    }

    /// Takes the name from what stands under it.
    pub(crate) fn detach(&mut self, key: &Key) -> Option<u64> {
        let ino = self.names.remove(key)?;
        if let Some(node) = self.nodes.get_mut(&ino)
            && node.key.as_ref() == Some(key)
        {
            node.key = None;
        }
        self.drop_unused(ino);
        Some(ino)
    }

    /// A directory that was removed is made anew under another number: the kernel holds the old one for dead.
    pub(crate) fn bury_dir(&mut self, dir: DirId) {
        self.dirs.remove(&dir);
    }

    /// Lets an inode stand under a name, wherever it stood before.
    pub(crate) fn attach(&mut self, ino: u64, key: Key) {
        let Some(old) = self.nodes.get(&ino).map(|node| node.key.clone()) else { return };
        if let Some(old) = old
            && self.names.get(&old) == Some(&ino)
        {
            self.names.remove(&old);
        }
        if self.names.get(&key).is_some_and(|other| *other != ino) {
            self.detach(&key);
        }
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.key = Some(key.clone());
        }
        self.names.insert(key, ino);
    }

    /// The kernel was told of an inode once more.
    pub(crate) fn told(&mut self, ino: u64) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        node.lookups = node.lookups.saturating_add(1);
        if node.turn > 0 || matches!(node.kind, NodeKind::Dir(_)) {
            return;
        }
        self.turns += 1;
        node.turn = self.turns;
        self.oldest.push_back((ino, self.turns));
        // Half of it forgotten is the most that is carried along.
        if self.oldest.len() > 2 * self.nodes.len() + 1024 {
            let nodes = &self.nodes;
            self.oldest.retain(|(ino, turn)| nodes.get(ino).is_some_and(|n| n.turn == *turn));
        }
    }

    /// Whether the kernel knows more than it should.
    pub(crate) fn is_crowded(&self) -> bool {
        self.nodes.len() > self.known_max
    }

    /// Names the kernel should forget because it knows too many: those of the files it has known longest, a few at a
    /// time. It says when it has ([`Table::forget`]); what it does not let go of is looked at again when its turn comes.
    pub(crate) fn cold(&mut self) -> Vec<Cold> {
        let mut cold = Vec::new();
        for _ in 0..COLD_STEP.min(self.oldest.len()) {
            let Some((ino, turn)) = self.oldest.pop_front() else { break };
            let Some(node) = self.nodes.get(&ino).filter(|node| node.turn == turn) else {
                continue;
            };
            self.oldest.push_back((ino, turn));
            if let Some(name) = self.cold_name(node) {
                cold.push(name);
            }
        }
        cold
    }

    /// The name a file or link nobody uses is known by.
    fn cold_name(&self, node: &Node) -> Option<Cold> {
        let cold = |parent: u64, name: &str| Some(Cold { parent, name: name.to_owned() });
        match &node.kind {
            NodeKind::File(file) if !file.is_busy() => {
                let place = file.meta.lock().place.clone()?;
                cold(self.dir_ino(node.key.as_ref()?.dir())?, place.name.as_str())
            }
            NodeKind::Symlink(_) => {
                let key = node.key.as_ref()?;
                cold(self.dir_ino(key.dir())?, key.folded())
            }
            NodeKind::Past(past) => match &past.kind {
                PastKind::File(file, _) | PastKind::Text(file) if file.is_busy() => None,
                PastKind::File(..) | PastKind::Symlink(_) | PastKind::Text(_) => {
                    cold(past.parent, past.name.as_str())
                }
                PastKind::Dir(_) => None,
            },
            NodeKind::File(_) | NodeKind::Dir(_) => None,
        }
    }

    /// The kernel let go of an inode `times`.
    pub(crate) fn forget(&mut self, ino: u64, times: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups = node.lookups.saturating_sub(times);
        }
        self.drop_unused(ino);
    }

    /// Forgets an inode that nobody holds.
    pub(crate) fn drop_unused(&mut self, ino: u64) {
        let Some(node) = self.nodes.get(&ino) else { return };
        let busy = match &node.kind {
            NodeKind::File(file) => file.is_busy(),
            NodeKind::Past(past) => match &past.kind {
                PastKind::File(file, _) | PastKind::Text(file) => file.is_busy(),
                PastKind::Dir(_) | PastKind::Symlink(_) => false,
            },
            NodeKind::Dir(_) | NodeKind::Symlink(_) => false,
        };
        if node.lookups > 0 || busy || ino == ROOT_INO {
            return;
        }
        let Some(node) = self.nodes.remove(&ino) else { return };
        if let Some(key) = node.key
            && self.names.get(&key) == Some(&ino)
        {
            self.names.remove(&key);
        }
        match node.kind {
            NodeKind::Dir(dir) if self.dirs.get(&dir) == Some(&ino) => {
                self.dirs.remove(&dir);
            }
            NodeKind::Past(past) if self.past.get(&past.id) == Some(&ino) => {
                self.past.remove(&past.id);
            }
            _ => {}
        }
    }

    /// Every name an inode stands under, for an invalidation of everything.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&Key, u64)> {
        self.names.iter().map(|(key, ino)| (key, *ino))
    }

    /// How many inodes are in use.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }
}
