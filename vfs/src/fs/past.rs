//! Answering for virtual names: snapshots as trees, versions of files as files.
//!
//! Leaves out: how they are called ([`crate::past`]) and what was shown when ([`crate::traits`]).
//!
//! Invariants:
//! - the state is not locked while the past is worked out;
//! - an old version's bytes come the way all bytes come: a version that is not here is fetched, and
//!   fails within the same bound;
//! - what is remembered of listings is bounded, and of no use once something was published.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use journal::id::DirId;
use journal::name::EntryName;
use journal::op::DirAttr;
use journal::past::Moment;
use journal::view::{HistoryStanding, Once, ViewKind, ViewNode};
use journal::{HistoryVersion, Value};
use parking_lot::Mutex;
use rustix::fs::OFlags;

use super::io::access_of;
use super::locking::lock_text;
use super::lookup::Found;
use super::{Core, DirEntry, Entry, Opened, State};
use crate::attr::{Attr, Caller, DIR_MODE_BITS, Kind};
use crate::drafts::{Below, Key};
use crate::error::FsError;
use crate::file::FileNode;
use crate::handles::Listed;
use crate::inode::{NodeKind, Place, ROOT_INO, Table};
use crate::past::{DirMeta, PastEntry, PastId, PastKind, PastNode, Seen, names, time};
use crate::traits::Hold;

/// How long a listing answers for lookups when nothing was published meanwhile, monotonic milliseconds:
/// points in time come without a publication.
const FRESH_MS: u64 = 10_000;
/// Listings remembered, and names in all of them together.
const LISTINGS_MAX: usize = 16;
const LISTED_MAX: usize = 200_000;

/// A virtual directory's names by their folded form.
type Listing = Arc<BTreeMap<Key, PastEntry>>;

/// Listings made lately, oldest first, with when they were made and of which generation they are.
#[derive(Default)]
pub(super) struct Listings(Mutex<VecDeque<(Made, PastId, Listing)>>);

#[derive(Clone, Copy)]
struct Made {
    at_ms: u64,
    generation: u64,
}

impl Listings {
    fn get(&self, now: Made, id: &PastId) -> Option<Listing> {
        let mut all = self.0.lock();
        all.retain(|(made, ..)| {
            made.generation == now.generation && now.at_ms.saturating_sub(made.at_ms) < FRESH_MS
        });
        all.iter().find(|(_, other, _)| other == id).map(|(.., listing)| listing.clone())
    }

    fn keep(&self, made: Made, id: &PastId, listing: &Listing) {
        let mut all = self.0.lock();
        all.retain(|(_, other, _)| other != id);
        all.push_back((made, id.clone(), listing.clone()));
        let mut listed: usize = all.iter().map(|(.., listing)| listing.len()).sum();
        while all.len() > LISTINGS_MAX || (listed > LISTED_MAX && all.len() > 1) {
            listed -= all.pop_front().map_or(0, |(.., listing)| listing.len());
        }
    }
}

/// All names of a virtual directory are keyed as if they stood in one.
fn key(name: &EntryName) -> Key {
    Key::new(DirId::ROOT, name)
}

impl Core {
    /// Whether an inode is of the past. Calls on such may take longer than others.
    pub fn is_past(&self, ino: u64) -> bool {
        self.past(ino).is_some()
    }

    pub(super) fn past(&self, ino: u64) -> Option<Arc<PastNode>> {
        self.state().past_of(ino)
    }

    /// The virtual directory found under a name in the top directory that nothing real has.
    pub(super) fn find_top(
        &self,
        state: &mut State,
        dir: DirId,
        name: &EntryName,
    ) -> Option<Found> {
        let id = PastId::at_top(dir, name)?;
        let seen = Seen::Dir(DirMeta::VIRTUAL);
        let node = self.admit_past(state, ROOT_INO, &PastEntry { name: name.clone(), id, seen });
        // Something real may take the name at any time.
        Some(Found { ino: node.ino, kind: NodeKind::Past(node), lasting: false })
    }

    /// The virtual file `.NAME.lock` beside a file somebody works on.
    pub(super) fn find_lock(&self, parent: u64, dir: DirId, name: &EntryName) -> Option<Entry> {
        let of = name.as_str().strip_prefix('.')?.strip_suffix(".lock")?;
        let of = EntryName::new(of).ok()?;
        let holder = self.holder_at(&Key::new(dir, &of)).ok()??;
        // Programs that work on NAME may make such a file of their own.
        if holder.own && holder.hold == Hold::Session {
            return None;
        }
        let text: Arc<str> = lock_text(&holder).into();
        let id = PastId::Lock { dir, name: name.as_str().into(), text: text.clone() };
        let entry = PastEntry { name: name.clone(), id, seen: Seen::Text(text) };
        let mut state = self.state();
        let node = self.admit_past(&mut state, parent, &entry);
        self.told(&mut state, node.ino);
        Some(Entry { attr: self.past_attr(&node), lasting: false })
    }

    pub(super) fn lookup_past(
        &self,
        parent: &PastNode,
        name: &EntryName,
    ) -> Result<Entry, FsError> {
        if !matches!(parent.kind, PastKind::Dir(_)) {
            return Err(FsError::NotDir);
        }
        let found = self.find_past(&parent.id, name)?.ok_or(FsError::NotFound)?;
        let mut state = self.state();
        let node = self.admit_past(&mut state, parent.ino, &found);
        self.told(&mut state, node.ino);
        Ok(Entry { attr: self.past_attr(&node), lasting: found.name == *name })
    }

    /// The inode for something of the past.
    fn admit_past(&self, state: &mut State, parent: u64, entry: &PastEntry) -> Arc<PastNode> {
        if let Some(node) = state.table.past_at(&entry.id) {
            return node;
        }
        let ino = state.table.free_number(Table::number_hint(&entry.id));
        let kind = match &entry.seen {
            Seen::Dir(meta) => PastKind::Dir(*meta),
            Seen::Symlink(link) => PastKind::Symlink(link.clone()),
            Seen::File(value, version) => {
                // It has a place, so that it is not taken for a file that was removed while open.
                let place = Place { key: key(&entry.name), name: entry.name.clone() };
                let file = FileNode::sealed(ino, value, Below::default(), place);
                PastKind::File(Arc::new(file), *version)
            }
            Seen::Text(text) => {
                let place = Place { key: key(&entry.name), name: entry.name.clone() };
                let now = self.clock.wall();
                PastKind::Text(Arc::new(FileNode::text(ino, text, now, place)))
            }
        };
        let name = entry.name.clone();
        let node = Arc::new(PastNode { ino, id: entry.id.clone(), parent, name, kind });
        state.table.insert_past(node.clone());
        node
    }

    pub(super) fn past_attr(&self, node: &PastNode) -> Attr {
        let dir = |meta: &DirMeta| {
            let mtime = meta.mtime.unwrap_or(self.opened);
            let (uid, gid) = self.owner(meta.owner);
            Attr {
                ino: node.ino,
                kind: Kind::Dir,
                len: 4096,
                mode: meta.mode & DIR_MODE_BITS,
                nlink: 1,
                uid,
                gid,
                atime: mtime,
                mtime,
                ctime: mtime,
            }
        };
        match &node.kind {
            PastKind::Dir(meta) => dir(meta),
            PastKind::File(file, _) | PastKind::Text(file) => {
                self.file_attr(node.ino, &file.meta.lock())
            }
            PastKind::Symlink(link) => Attr {
                kind: Kind::Symlink,
                len: link.target.len() as u64,
                ..dir(&DirMeta { mode: 0o777, mtime: Some(link.mtime), owner: None })
            },
        }
    }

    pub(super) fn open_past(
        &self,
        caller: Caller,
        node: &PastNode,
        flags: i32,
    ) -> Result<Opened, FsError> {
        let truncates = OFlags::from_bits_retain(flags as u32).contains(OFlags::TRUNC);
        let (_, writes) = access_of(flags);
        match &node.kind {
            _ if writes || truncates => Err(FsError::ReadOnly),
            PastKind::Dir(_) => Err(FsError::IsDir),
            PastKind::Symlink(_) => Err(FsError::Invalid),
            PastKind::File(file, _) | PastKind::Text(file) => {
                self.may(caller, file.meta.lock().mode, 4)?;
                self.open_node(caller, file, flags)
            }
        }
    }

    fn find_past(&self, dir: &PastId, name: &EntryName) -> Result<Option<PastEntry>, FsError> {
        if let Some(listing) = self.listings.get(self.made(), dir) {
            let found = listing.get(&key(name)).cloned();
            // Times are found without being listed, as are the names of conflict copies.
            if found.is_some() || !matches!(dir, PastId::Snapshots | PastId::Histories(_)) {
                return Ok(found);
            }
        }
        match dir {
            PastId::Tree { moment, dir } => {
                let node = self.tree.lookup_then(*moment, *dir, name)?;
                Ok(node.map(|node| entry_then(*moment, *dir, node)))
            }
            PastId::Histories(dir) => {
                let once = self.tree.once_at(*dir, name)?;
                Ok(once.map(|once| entry_once(*dir, once.name, once.what)))
            }
            PastId::Snapshots => {
                let listed = self.named_snapshots()?;
                let named = listed.into_iter().find(|entry| key(&entry.name) == key(name));
                match named {
                    Some(named) => Ok(Some(named)),
                    None => self.typed(name),
                }
            }
            PastId::Versions { .. } => Ok(self.listing(dir)?.get(&key(name)).cloned()),
            PastId::Leaf { .. } | PastId::Version { .. } | PastId::Lock { .. } => {
                Err(FsError::NotDir)
            }
        }
    }

    fn made(&self) -> Made {
        Made { at_ms: self.now_ms(), generation: self.tree.generation() }
    }

    /// The tree at a time that is not to come.
    fn typed(&self, name: &EntryName) -> Result<Option<PastEntry>, FsError> {
        let Some(ms) = time::parse(name.as_str()) else { return Ok(None) };
        let second = |ms: u64| ms / 1_000;
        let moment = Moment::At { ms };
        if second(ms) > second(time::ms(self.clock.wall())) || !self.tree.existed(moment)? {
            return Ok(None);
        }
        Ok(Some(self.entry_tree(name.clone(), moment, ms)))
    }

    fn entry_tree(&self, name: EntryName, moment: Moment, ms: u64) -> PastEntry {
        let mtime = Some(time::stamp(ms));
        let meta = DirMeta { mode: self.config.root_mode, mtime, owner: None };
        let id = PastId::Tree { moment, dir: DirId::ROOT };
        PastEntry { name, id, seen: Seen::Dir(meta) }
    }

    fn named_snapshots(&self) -> Result<Vec<PastEntry>, FsError> {
        let all = self.tree.snapshots()?;
        let names = names::snapshots(all.iter().map(|snapshot| snapshot.name.as_str()));
        let named = names.into_iter().zip(all);
        Ok(named
            .filter_map(|(name, s)| Some(self.entry_tree(name?, s.moment, s.taken_ms)))
            .collect())
    }

    /// Hours and days after which the drive was another than at the one before.
    fn points(&self) -> Result<Vec<PastEntry>, FsError> {
        let mut out = Vec::new();
        let all = names::points(time::ms(self.clock.wall()));
        for (at, ms) in all.iter().enumerate() {
            let moment = |ms: u64| Moment::At { ms: ms.saturating_add(999) };
            if !self.tree.existed(moment(*ms))? {
                break;
            }
            let changed = match all.get(at + 1) {
                Some(before) => self.tree.differ(moment(*before), moment(*ms))?,
                None => true,
            };
            let Ok(name) = EntryName::new(&time::minute(*ms)) else { continue };
            if changed {
                out.push(self.entry_tree(name, moment(*ms), *ms));
            }
        }
        Ok(out)
    }

    /// Everything a virtual directory lists.
    fn listing(&self, dir: &PastId) -> Result<Listing, FsError> {
        let made = self.made();
        if let Some(known) = self.listings.get(made, dir) {
            return Ok(known);
        }
        let entries: Vec<PastEntry> = match dir {
            PastId::Tree { moment, dir } => {
                let nodes = self.tree.list_then(*moment, *dir)?;
                nodes.into_iter().map(|node| entry_then(*moment, *dir, node)).collect()
            }
            PastId::Histories(dir) => {
                let once = self.tree.once(*dir)?;
                once.into_iter().map(|once| entry_once(*dir, once.name, once.what)).collect()
            }
            PastId::Versions { dir, name } => self.versions(*dir, name)?,
            // A snapshot comes last: where a point has its name it wins.
            PastId::Snapshots => [self.points()?, self.named_snapshots()?].concat(),
            PastId::Leaf { .. } | PastId::Version { .. } | PastId::Lock { .. } => {
                return Err(FsError::NotDir);
            }
        };
        let listing: BTreeMap<Key, PastEntry> =
            entries.into_iter().map(|entry| (key(&entry.name), entry)).collect();
        let listing = Arc::new(listing);
        self.listings.keep(made, dir, &listing);
        Ok(listing)
    }

    fn versions(&self, dir: DirId, name: &Arc<str>) -> Result<Vec<PastEntry>, FsError> {
        let Ok(file) = EntryName::new(name) else { return Ok(Vec::new()) };
        let shown = |version: &HistoryVersion| {
            version.standing != HistoryStanding::Quarantined
                && !matches!(version.value, Value::Gone { .. })
        };
        let mut all = self.tree.history(dir, &file)?;
        all.retain(shown);
        all.reverse();
        let names = names::versions(&file, all.iter().map(|version| version.saved_at_ms));
        let entries = names.into_iter().zip(all).filter_map(|(shown, version)| {
            let id = PastId::Version { dir, name: name.clone(), version: version.version };
            let seen = match version.value {
                Value::File(file) => Seen::File(file, version.version),
                Value::Symlink(link) => Seen::Symlink(link),
                Value::Gone { .. } => return None,
            };
            Some(PastEntry { name: shown, id, seen })
        });
        Ok(entries.collect())
    }

    pub(super) fn list_past(&self, ino: u64, id: &PastId) -> Result<Vec<Listed>, FsError> {
        let listing = self.listing(id)?;
        let state = self.state();
        let dot = |name: &str, ino| Listed { name: name.into(), kind: Kind::Dir, ino };
        let above = match id {
            PastId::Snapshots | PastId::Histories(DirId::ROOT) => ROOT_INO,
            _ => ino,
        };
        let mut out = vec![dot(".", ino), dot("..", above)];
        out.extend(listing.values().map(|entry| {
            let known = state.table.past_at(&entry.id).map(|node| node.ino);
            Listed {
                name: entry.name.as_str().into(),
                kind: match entry.seen {
                    Seen::Dir(_) => Kind::Dir,
                    Seen::File(..) | Seen::Text(_) => Kind::File,
                    Seen::Symlink(_) => Kind::Symlink,
                },
                ino: known.unwrap_or_else(|| Table::number_hint(&entry.id)),
            }
        }));
        Ok(out)
    }

    pub(super) fn take_past(
        &self,
        dir: &PastId,
        entry: &DirEntry,
        take: &mut impl FnMut(&DirEntry, &Entry) -> bool,
    ) -> Result<bool, FsError> {
        if &*entry.name == "." || &*entry.name == ".." {
            let attr = self.getattr(entry.ino)?;
            return Ok(take(entry, &Entry { attr, lasting: false }));
        }
        let Ok(name) = EntryName::new(&entry.name) else { return Ok(true) };
        let Some(found) = self.find_past(dir, &name)? else { return Ok(true) };
        let mut state = self.state();
        let parent = state.table.past_at(dir).map_or(ROOT_INO, |dir| dir.ino);
        let node = self.admit_past(&mut state, parent, &found);
        let answer = Entry { attr: self.past_attr(&node), lasting: true };
        let more = take(&DirEntry { ino: node.ino, ..entry.clone() }, &answer);
        if more {
            self.told(&mut state, node.ino);
        } else {
            state.table.drop_unused(node.ino);
        }
        Ok(more)
    }
}

fn entry_then(moment: Moment, dir: DirId, node: ViewNode) -> PastEntry {
    let (name, version) = (node.shown, node.version);
    let leaf = || PastId::Leaf { moment, dir, name: name.as_str().into(), version };
    let (id, seen) = match node.kind {
        ViewKind::Dir { dir, attr } => {
            let DirAttr { mode, mtime, owner, .. } = attr;
            let mtime = mtime.or_else(|| Some(time::stamp(node.saved_at_ms)));
            (PastId::Tree { moment, dir }, Seen::Dir(DirMeta { mode, mtime, owner }))
        }
        ViewKind::File(file) => (leaf(), Seen::File(file, version)),
        ViewKind::Symlink(link) => (leaf(), Seen::Symlink(link)),
    };
    PastEntry { name, id, seen }
}

fn entry_once(dir: DirId, name: EntryName, what: Once) -> PastEntry {
    let id = match what {
        Once::Dir(below) => PastId::Histories(below),
        Once::Leaf => PastId::Versions { dir, name: name.as_str().into() },
    };
    PastEntry { name, id, seen: Seen::Dir(DirMeta::VIRTUAL) }
}
