//! What stands under a name: the draft, or what is published; and the inode for it.
//!
//! Leaves out: listings ([`super::dirs`]).
//!
//! Invariants: what has changes here keeps its inode; what someone else replaced gets a new one, and programs that
//! have the old one open keep the old bytes.

use std::sync::Arc;

use journal::id::DirId;
use journal::name::EntryName;
use journal::op::{DirAttr, FileValue, SymlinkValue};
use journal::view::{Standing, ViewKind, ViewNode};
use parking_lot::Mutex;

use super::{Core, DIR_TIMES_MAX, State};
use crate::attr::{Attr, Kind};
use crate::drafts::{Below, Draft, DraftValue, Key, Resolves};
use crate::error::FsError;
use crate::file::{FileNode, Meta};
use crate::inode::{LinkNode, LinkTimes, NodeKind, Place, Table};

/// Published names looked at in one go when directories are counted.
const COUNT_PAGE: usize = 1024;

/// What a lookup answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The attributes.
    pub attr: Attr,
    /// Whether a kernel may remember the name: not for one that can change without a word, such as a conflict copy's.
    pub lasting: bool,
}

/// A node found under a name.
pub(crate) struct Found {
    pub(crate) ino: u64,
    pub(crate) kind: NodeKind,
    pub(crate) lasting: bool,
}

impl Core {
    /// Finds a name; the kernel holds the inode once more from now on.
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Result<Entry, FsError> {
        let name = self.name_there(name)?;
        let mut state = self.state();
        if let Some(past) = state.past_of(parent) {
            drop(state);
            return self.lookup_past(&past, &name);
        }
        let dir = state.dir_of(parent)?;
        let found = match self.find(&mut state, dir, &name)? {
            Some(found) => found,
            None => match self.find_top(&mut state, dir, &name) {
                Some(found) => found,
                None => {
                    drop(state);
                    return self.find_lock(parent, dir, &name).ok_or(FsError::NotFound);
                }
            },
        };
        let entry = self.entry(&state, &found)?;
        self.told(&mut state, found.ino);
        Ok(entry)
    }

    /// The kernel let go of an inode.
    pub fn forget(&self, ino: u64, times: u64) {
        self.state().table.forget(ino, times);
    }

    /// The entry of a found node.
    pub(crate) fn entry(&self, state: &State, found: &Found) -> Result<Entry, FsError> {
        Ok(Entry { attr: self.attr_of(state, found.ino, &found.kind)?, lasting: found.lasting })
    }

    /// What stands under a name now, with its inode.
    pub(crate) fn find(
        &self,
        state: &mut State,
        dir: DirId,
        name: &EntryName,
    ) -> Result<Option<Found>, FsError> {
        let key = Key::new(dir, name);
        if let Some(draft) = state.drafts.get(&key) {
            let (value, spelled) = (draft.value.clone(), draft.name == *name);
            return self.find_drafted(state, &key, value, spelled);
        }
        if let Some((ino, node)) = state.table.at(&key)
            && let NodeKind::File(file) = &node.kind
            && file.meta.lock().dirty
        {
            return Ok(Some(Found { ino, kind: node.kind.clone(), lasting: true }));
        }
        let Some(view) = self.tree.lookup(dir, name)? else {
            state.table.detach(&key);
            return Ok(None);
        };
        self.node_for(state, key, name, &view).map(Some)
    }

    fn find_drafted(
        &self,
        state: &mut State,
        key: &Key,
        value: DraftValue,
        lasting: bool,
    ) -> Result<Option<Found>, FsError> {
        let known = state.table.at(key).map(|(ino, node)| (ino, node.kind.clone()));
        let fits = match (&value, &known) {
            (DraftValue::Gone { .. }, _) => return Ok(None),
            (DraftValue::Unfinished | DraftValue::File { .. }, Some((_, NodeKind::File(_)))) => {
                true
            }
            (DraftValue::Symlink(_), Some((_, NodeKind::Symlink(_)))) => true,
            (DraftValue::NewDir { dir, .. }, Some((_, NodeKind::Dir(known)))) => known == dir,
            _ => false,
        };
        if let (true, Some((ino, kind))) = (fits, known) {
            return Ok(Some(Found { ino, kind, lasting }));
        }
        let Some(draft) = state.drafts.get(key).cloned() else { return Ok(None) };
        let place = Place { key: key.clone(), name: draft.name.clone() };
        let kind = match value {
            // Only an open file is unfinished, and an open file is known.
            DraftValue::Unfinished | DraftValue::Gone { .. } => return Ok(None),
            DraftValue::File { value, rests_on } => {
                let file = self.new_file(state, &value, below_of_draft(&draft), place);
                file.meta.lock().rests_on = rests_on;
                NodeKind::File(file)
            }
            DraftValue::Symlink(link) => {
                NodeKind::Symlink(self.new_link(state, link, below_of_draft(&draft), &place))
            }
            DraftValue::NewDir { dir, .. } => NodeKind::Dir(dir),
        };
        Ok(Some(self.insert(state, key.clone(), kind, lasting)))
    }

    /// The inode for what the tree shows, new if someone else changed it.
    fn node_for(
        &self,
        state: &mut State,
        key: Key,
        name: &EntryName,
        view: &ViewNode,
    ) -> Result<Found, FsError> {
        let lasting = view.standing == Standing::Official && view.shown == *name;
        if let Some((ino, node)) = state.table.at(&key) {
            let kind = node.kind.clone();
            if self.still(&kind, view)? {
                return Ok(Found { ino, kind, lasting });
            }
        }
        let below = self.below_of_view(view, name)?;
        let place =
            Place { key: key.clone(), name: below.name.clone().unwrap_or_else(|| name.clone()) };
        let kind = match &view.kind {
            ViewKind::File(value) => NodeKind::File(self.new_file(state, value, below, place)),
            ViewKind::Symlink(link) => {
                NodeKind::Symlink(self.new_link(state, link.clone(), below, &place))
            }
            ViewKind::Dir { dir, .. } => NodeKind::Dir(*dir),
        };
        Ok(self.insert(state, key, kind, lasting))
    }

    /// Whether a known inode is what the tree shows; takes attributes that alone are newer.
    fn still(&self, kind: &NodeKind, view: &ViewNode) -> Result<bool, FsError> {
        match (kind, &view.kind) {
            (NodeKind::Dir(known), ViewKind::Dir { dir, .. }) => Ok(known == dir),
            (NodeKind::Symlink(link), ViewKind::Symlink(value)) => {
                let same = *link.value.lock() == *value;
                if same {
                    // Equal, but perhaps another version: a change replaces that one.
                    *link.below.lock() = self.below_of_view(view, &view.shown)?;
                }
                Ok(same)
            }
            (NodeKind::File(file), ViewKind::File(value)) => {
                let mut meta = file.meta.lock();
                let known = view.merged.iter().all(|version| meta.below.bases.contains(version));
                if known && meta.finished == Some(value.content) {
                    return Ok(true);
                }
                if meta.finished != Some(value.content) || meta.attr_dirty {
                    return Ok(false);
                }
                meta.take_attrs(value);
                meta.below = self.below_of_view(view, &view.shown)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// A new inode under a name, or the directory's own.
    pub(crate) fn insert(
        &self,
        state: &mut State,
        key: Key,
        kind: NodeKind,
        lasting: bool,
    ) -> Found {
        let ino = match &kind {
            NodeKind::File(file) => file.ino,
            NodeKind::Symlink(link) => link.ino,
            NodeKind::Past(past) => return Found { ino: past.ino, kind, lasting },
            NodeKind::Dir(dir) => match state.table.dir_ino(*dir) {
                Some(ino) => {
                    state.table.attach(ino, key);
                    return Found { ino, kind, lasting };
                }
                None => state.table.free_number(Table::number_hint(dir)),
            },
        };
        state.table.insert(ino, key, kind.clone());
        Found { ino, kind, lasting }
    }

    pub(crate) fn new_file(
        &self,
        state: &mut State,
        value: &FileValue,
        below: Below,
        place: Place,
    ) -> Arc<FileNode> {
        let ino = state.table.free_number(Table::number_hint(&place.key));
        Arc::new(FileNode::sealed(ino, value, below, place))
    }

    pub(crate) fn new_link(
        &self,
        state: &mut State,
        value: SymlinkValue,
        below: Below,
        place: &Place,
    ) -> Arc<LinkNode> {
        let ino = state.table.free_number(Table::number_hint(&place.key));
        let times = LinkTimes { atime: value.mtime, ctime: value.mtime };
        Arc::new(LinkNode {
            ino,
            value: Mutex::new(value),
            below: Mutex::new(below),
            times: Mutex::new(times),
        })
    }

    /// What a change under this name replaces.
    pub(crate) fn below(&self, dir: DirId, name: &EntryName) -> Result<Below, FsError> {
        match self.tree.lookup(dir, name)? {
            Some(view) => self.below_of_view(&view, name),
            None => Ok(Below { bases: self.tree.gone_heads(dir, name)?, ..Below::default() }),
        }
    }

    /// What a change of a found node replaces: for a file or link what its inode stands for, which others may have
    /// replaced by now under the same name.
    pub(crate) fn below_of(
        &self,
        found: &Found,
        dir: DirId,
        name: &EntryName,
    ) -> Result<Below, FsError> {
        match &found.kind {
            NodeKind::File(file) => Ok(file.meta.lock().below.clone()),
            NodeKind::Symlink(link) => Ok(link.below.lock().clone()),
            NodeKind::Dir(_) => self.below(dir, name),
            NodeKind::Past(_) => Err(FsError::ReadOnly),
        }
    }

    /// A change replaces the official head and what says "nothing", never somebody's copy; a change of a copy resolves
    /// it and puts what it becomes under the copy's name.
    pub(crate) fn below_of_view(
        &self,
        view: &ViewNode,
        name: &EntryName,
    ) -> Result<Below, FsError> {
        let is_dir = matches!(view.kind, ViewKind::Dir { .. });
        if view.standing == Standing::Copy && !is_dir {
            let drop = view.merged.clone();
            let resolves =
                Resolves { dir: view.register.dir, name: view.register.name.clone(), drop };
            let bases = self.tree.gone_heads(view.register.dir, name)?;
            return Ok(Below {
                name: Some(view.shown.clone()),
                bases,
                live: false,
                resolves: Some(Box::new(resolves)),
            });
        }
        let mut bases = view.merged.clone();
        for gone in self.tree.gone_heads(view.register.dir, &view.register.name)? {
            if !bases.contains(&gone) {
                bases.push(gone);
            }
        }
        Ok(Below { name: Some(view.register.name.clone()), bases, live: true, resolves: None })
    }

    /// Whether a directory is there: made here, or in the tree and not removed here.
    pub(crate) fn dir_lives(&self, state: &State, dir: DirId) -> Result<bool, FsError> {
        if dir == DirId::ROOT || state.drafts.new_dir(dir).is_some() {
            return Ok(true);
        }
        // A removed directory has lost its number; only the kernel still knows it by an old one.
        if state.table.dir_ino(dir).is_none() {
            return Ok(false);
        }
        Ok(self.tree.dir(dir)?.is_some())
    }

    /// A directory's attributes as they will be.
    pub(crate) fn dir_attr(&self, state: &State, dir: DirId) -> Result<DirAttr, FsError> {
        if let Some(attr) = state.drafts.dir_attr(dir) {
            return Ok(attr.clone());
        }
        if let Some((_, Draft { value: DraftValue::NewDir { attr, .. }, .. })) =
            state.drafts.new_dir(dir)
        {
            return Ok(attr.clone());
        }
        match self.tree.dir(dir)? {
            Some(node) => Ok(node.attr),
            None if dir == DirId::ROOT => {
                Ok(DirAttr { mode: self.config.root_mode, ..DirAttr::default() })
            }
            None => Ok(DirAttr::default()),
        }
    }

    /// What `stat` says of an inode.
    pub(crate) fn attr_of(
        &self,
        state: &State,
        ino: u64,
        kind: &NodeKind,
    ) -> Result<Attr, FsError> {
        match kind {
            NodeKind::File(file) => Ok(self.file_attr(ino, &file.meta.lock())),
            NodeKind::Symlink(link) => {
                let value = link.value.lock();
                let times = *link.times.lock();
                let (uid, gid) = self.owner(value.owner);
                Ok(Attr {
                    ino,
                    kind: Kind::Symlink,
                    len: value.target.len() as u64,
                    mode: 0o777,
                    nlink: u32::from(state.table.key_of(ino).is_some()),
                    uid,
                    gid,
                    atime: times.atime,
                    mtime: value.mtime,
                    ctime: times.ctime,
                })
            }
            NodeKind::Past(past) => Ok(self.past_attr(past)),
            NodeKind::Dir(dir) => {
                let attr = self.dir_attr(state, *dir)?;
                let local = state.dir_times.get(dir).copied();
                let changed = local.and_then(|times| times.mtime);
                let mtime = changed.or(attr.mtime).unwrap_or(self.opened);
                let (uid, gid) = self.owner(attr.owner);
                Ok(Attr {
                    ino,
                    kind: Kind::Dir,
                    len: 4096,
                    mode: attr.mode & self.config.dir_bits(),
                    nlink: self.dir_links(state, ino, *dir)?,
                    uid,
                    gid,
                    atime: local.and_then(|times| times.atime).unwrap_or(mtime),
                    mtime,
                    ctime: local.map_or(mtime, |times| times.ctime),
                })
            }
        }
    }

    /// How many links a directory has: none once it was removed. Where the drive keeps owners it has what programs that
    /// count them expect, two and one for each directory in it; elsewhere one, which tells them not to count.
    fn dir_links(&self, state: &State, ino: u64, dir: DirId) -> Result<u32, FsError> {
        if ino != super::ROOT_INO && state.table.dir_ino(dir) != Some(ino) {
            return Ok(0);
        }
        if !self.config.posix_owners {
            return Ok(1);
        }
        let known = state.subdirs.lock().get(&dir).copied();
        let count = match known {
            Some(count) => count,
            None => {
                let count = self.count_subdirs(state, dir)?;
                let mut subdirs = state.subdirs.lock();
                if subdirs.len() >= DIR_TIMES_MAX {
                    subdirs.clear();
                }
                subdirs.insert(dir, count);
                count
            }
        };
        Ok(count.saturating_add(2))
    }

    fn count_subdirs(&self, state: &State, dir: DirId) -> Result<u32, FsError> {
        let drafted = state.drafts.in_dir(dir);
        let mut count =
            drafted.filter(|(_, draft)| matches!(draft.value, DraftValue::NewDir { .. })).count();
        let mut after: Option<EntryName> = None;
        loop {
            let page = self.tree.list(dir, after.as_ref(), COUNT_PAGE)?;
            let published = page.iter().filter(|view| matches!(view.kind, ViewKind::Dir { .. }));
            count += published
                .filter(|view| state.drafts.get(&Key::new(dir, &view.shown)).is_none())
                .count();
            match page.last() {
                Some(last) if page.len() >= COUNT_PAGE => after = Some(last.shown.clone()),
                _ => return Ok(u32::try_from(count).unwrap_or(u32::MAX)),
            }
        }
    }

    pub(crate) fn file_attr(&self, ino: u64, meta: &Meta) -> Attr {
        let (uid, gid) = self.owner(meta.owner);
        Attr {
            ino,
            kind: Kind::File,
            len: meta.len,
            mode: meta.mode & self.config.file_bits(),
            nlink: u32::from(meta.place.is_some()),
            uid,
            gid,
            atime: meta.atime,
            mtime: meta.mtime,
            ctime: meta.ctime,
        }
    }

    pub(crate) fn owner(&self, owner: Option<(u32, u32)>) -> (u32, u32) {
        match owner {
            Some(owner) if self.config.posix_owners => owner,
            _ => (self.config.uid, self.config.gid),
        }
    }
}

pub(super) fn below_of_draft(draft: &Draft) -> Below {
    Below {
        name: Some(draft.name.clone()),
        bases: draft.bases.clone(),
        live: draft.live_below,
        resolves: draft.resolves.clone().map(Box::new),
    }
}
