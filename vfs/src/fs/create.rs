//! Making and removing names.
//!
//! Leaves out: renames ([`super::rename`]).
//!
//! Invariant: a new file is visible here at once and published when it is first finished.

use std::sync::Arc;

use journal::id::DirId;
use journal::name::EntryName;
use journal::op::{DirAttr, SYMLINK_LEN_MAX, SymlinkValue};
use parking_lot::Mutex;

use super::locking::Intent;
use super::lookup::below_of_draft;
use super::{Core, Entry, Opened, State, Subdir, Wait};
use crate::attr::{Caller, SET_GROUP_ID};
use crate::body::Body;
use crate::drafts::{Below, DraftValue, Key, looks_temporary};
use crate::error::FsError;
use crate::file::{FileNode, Meta};
use crate::inode::{NodeKind, Place, Table};
use crate::past::{PastId, PastKind};
use crate::spool::Change;

/// How many published names are looked at in one go when a directory must be empty.
const EMPTY_CHECK_PAGE: usize = 256;

impl Core {
    /// The directory of an inode, if `name` may be made or removed in it.
    pub(crate) fn writable_dir(
        &self,
        state: &mut State,
        caller: Caller,
        ino: u64,
        name: &EntryName,
    ) -> Result<DirId, FsError> {
        self.check_role()?;
        let dir = state.dir_of(ino)?;
        if PastId::at_top(dir, name).is_some() && self.find(state, dir, name)?.is_none() {
            return Err(FsError::ReadOnly);
        }
        if !self.dir_lives(state, dir)? {
            return Err(FsError::NotFound);
        }
        if caller.uid != 0 && !self.config.kernel_checks() {
            self.may(caller, self.dir_attr(state, dir)?.mode, 0o3)?;
        }
        Ok(dir)
    }

    /// Whose it is, what a caller makes in a directory.
    fn new_owner(
        &self,
        state: &State,
        caller: Caller,
        dir: DirId,
    ) -> Result<Option<(u32, u32)>, FsError> {
        if !self.config.posix_owners {
            return Ok(None);
        }
        let attr = self.dir_attr(state, dir)?;
        let of_dir = attr.mode & SET_GROUP_ID != 0;
        let gid = if of_dir { self.owner(attr.owner).1 } else { caller.gid };
        Ok(Some((caller.uid, gid)))
    }

    /// Makes a file and opens it; opens the one that is there unless it must be new.
    pub fn create(
        &self,
        caller: Caller,
        parent: u64,
        name: &[u8],
        mode: u32,
        flags: i32,
        wait: Wait,
    ) -> Result<(Entry, Opened), FsError> {
        let name = self.name(name)?;
        let dir = self.state().dir_of(parent)?;
        self.claim_document(caller, dir, &name, wait)?;
        self.refuse_new(dir, &name)?;
        let made = self.change(|state| {
            let dir = self.writable_dir(state, caller, parent, &name)?;
            if let Some(found) = self.find(state, dir, &name)? {
                return Ok(Err(found));
            }
            let owner = self.new_owner(state, caller, dir)?;
            let file = self.make_file(state, (dir, &name), mode, owner)?;
            let kind = NodeKind::File(file.clone());
            let entry = super::lookup::Found { ino: file.ino, kind, lasting: true };
            let entry = self.entry(state, &entry)?;
            self.told(state, file.ino);
            Ok(Ok((entry, file)))
        })?;
        match made {
            Ok((entry, file)) => {
                // It is empty, and to cut it would take the set-id bits off it.
                let flags = flags & !(rustix::fs::OFlags::TRUNC.bits() as i32);
                let opened = self.open_node(caller, &file, flags)?;
                Ok((entry, opened))
            }
            Err(found) => {
                if rustix::fs::OFlags::from_bits_retain(flags as u32)
                    .contains(rustix::fs::OFlags::EXCL)
                {
                    return Err(FsError::Exists);
                }
                let opened = self.open(caller, found.ino, flags, wait)?;
                let mut state = self.state();
                let entry = self.entry(&state, &found)?;
                self.told(&mut state, found.ino);
                Ok((entry, opened))
            }
        }
    }

    /// Makes an empty file without opening it.
    pub fn mknod(
        &self,
        caller: Caller,
        parent: u64,
        name: &[u8],
        mode: u32,
    ) -> Result<Entry, FsError> {
        self.refuse_past(parent)?;
        let file_type = rustix::fs::FileType::from_raw_mode(mode);
        if file_type != rustix::fs::FileType::RegularFile {
            return Err(FsError::NotPermitted);
        }
        let excl = (rustix::fs::OFlags::EXCL | rustix::fs::OFlags::WRONLY).bits() as i32;
        let (entry, opened) = self.create(caller, parent, name, mode, excl, Wait::Allowed)?;
        self.flush(opened.handle)?;
        self.release(opened.handle)?;
        Ok(entry)
    }

    fn make_file(
        &self,
        state: &mut State,
        (dir, name): (DirId, &EntryName),
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> Result<Arc<FileNode>, FsError> {
        let key = Key::new(dir, name);
        let now = self.clock.wall();
        state
            .drafts
            .put(self.now_ms(), &key, name, DraftValue::Unfinished, || self.below(dir, name))?;
        let (spelled, below) = match state.drafts.get(&key) {
            Some(draft) => (draft.name.clone(), below_of_draft(draft)),
            None => (name.clone(), Below::default()),
        };
        let place = Place { key: key.clone(), name: spelled };
        let mode = mode & self.config.file_bits();
        let meta = Meta {
            owner,
            below,
            dirty: true,
            published_ms: self.now_ms(),
            ..Meta::new(place, mode, now)
        };
        let ino = state.table.free_number(Table::number_hint(&key));
        let body = Mutex::new(Body::stream(&self.contents));
        let file = Arc::new(FileNode { ino, body, meta: Mutex::new(meta) });
        state.table.insert(ino, key, NodeKind::File(file.clone()));
        state.touch_dir(dir, now);
        self.dirty.lock().insert(ino, file.clone());
        Ok(file)
    }

    /// Makes a directory.
    pub fn mkdir(
        &self,
        caller: Caller,
        parent: u64,
        name: &[u8],
        mode: u32,
    ) -> Result<Entry, FsError> {
        let name = self.name(name)?;
        self.change(|state| {
            let parent = self.writable_dir(state, caller, parent, &name)?;
            if self.find(state, parent, &name)?.is_some() {
                return Err(FsError::Exists);
            }
            let owner = self.new_owner(state, caller, parent)?;
            // In drives that keep owners a directory's set-group-id goes on to those made in it.
            let inherited = match owner {
                Some(_) => self.dir_attr(state, parent)?.mode & SET_GROUP_ID,
                None => 0,
            };
            let mode = (mode | inherited) & self.config.dir_bits();
            let attr = DirAttr { mode, owner, ..DirAttr::default() };
            let key = Key::new(parent, &name);
            // A directory's identity follows from what it replaces. That may still stand in the published tree, when
            // its removal is a draft.
            let below = match state.drafts.get(&key) {
                Some(draft) => Below { bases: draft.bases.clone(), ..Below::default() },
                None => self.below(parent, &name)?,
            };
            let dir = self.tree.new_dir_id(parent, &name, &below.bases)?;
            let value = DraftValue::NewDir { dir, attr };
            let put =
                state.drafts.put(self.now_ms(), &key, &name, value, || Ok::<_, FsError>(below));
            put?;
            let now = self.clock.wall();
            state.touch_dir(parent, now);
            state.touch_dir(dir, now);
            state.count_subdir(parent, Subdir::Came);
            let found = self.insert(state, key, NodeKind::Dir(dir), true);
            self.told(state, found.ino);
            self.entry(state, &found)
        })
    }

    /// Makes a symbolic link.
    pub fn symlink(
        &self,
        caller: Caller,
        parent: u64,
        name: &[u8],
        target: &[u8],
    ) -> Result<Entry, FsError> {
        let name = self.name(name)?;
        if target.is_empty() || target.contains(&0) {
            return Err(FsError::Invalid);
        }
        if target.len() > SYMLINK_LEN_MAX {
            return Err(FsError::NameTooLong);
        }
        self.change(|state| {
            let dir = self.writable_dir(state, caller, parent, &name)?;
            if self.find(state, dir, &name)?.is_some() {
                return Err(FsError::Exists);
            }
            let now = self.clock.wall();
            let owner = self.new_owner(state, caller, dir)?;
            let value = SymlinkValue { target: target.to_vec(), mtime: now, owner };
            let key = Key::new(dir, &name);
            let draft = DraftValue::Symlink(value);
            state.drafts.put(self.now_ms(), &key, &name, draft, || self.below(dir, &name))?;
            state.touch_dir(dir, now);
            let found = self.find(state, dir, &name)?.ok_or(FsError::NotFound)?;
            self.told(state, found.ino);
            self.entry(state, &found)
        })
    }

    /// Makes a hard link, which no drive keeps.
    pub fn link(&self, parent: u64) -> Result<Entry, FsError> {
        self.refuse_past(parent)?;
        Err(FsError::NotPermitted)
    }

    fn refuse_past(&self, parent: u64) -> Result<(), FsError> {
        if self.is_past(parent) { Err(FsError::ReadOnly) } else { Ok(()) }
    }

    /// Where a link points.
    pub fn readlink(&self, ino: u64) -> Result<Vec<u8>, FsError> {
        match self.state().table.get(ino).map(|node| &node.kind) {
            Some(NodeKind::Symlink(link)) => Ok(link.value.lock().target.clone()),
            Some(NodeKind::Past(past)) => match &past.kind {
                PastKind::Symlink(link) => Ok(link.target.clone()),
                PastKind::Dir(_) | PastKind::File(..) | PastKind::Text(_) => Err(FsError::Invalid),
            },
            Some(_) => Err(FsError::Invalid),
            None => Err(FsError::Stale),
        }
    }

    /// Removes a file or link.
    pub fn unlink(
        &self,
        caller: Caller,
        parent: u64,
        name: &[u8],
        wait: Wait,
    ) -> Result<(), FsError> {
        let name = self.name_there(name)?;
        self.claim_name(caller, (parent, &name), Intent::Remove, wait)?;
        // What another process has just saved is kept, unless it is what programs make to remove it.
        if !looks_temporary(&name)
            && let Some(file) = self.drafted_file(parent, &name)
            && self.waits(caller, &file)
        {
            if wait == Wait::Never {
                return Err(FsError::WouldWait);
            }
            self.keep_save_of_another(caller, &file)?;
        }
        let by = self.work.process(caller);
        self.change(|state| {
            let dir = self.writable_dir(state, caller, parent, &name)?;
            let found = self.find(state, dir, &name)?.ok_or(FsError::NotFound)?;
            if matches!(found.kind, NodeKind::Dir(_)) {
                return Err(FsError::IsDir);
            }
            let key = Key::new(dir, &name);
            let below = self.below_unless_drafted(state, by, &key, Some(&found), (dir, &name))?;
            let below = || Ok::<_, FsError>(below);
            state.drafts.put(self.now_ms(), &key, &name, DraftValue::GONE, below)?;
            self.displace(state, &found.kind);
            state.table.detach(&key);
            state.touch_dir(dir, self.clock.wall());
            Ok(dir)
        })
        .map(|dir| self.removed_beside(by, dir, &name))
    }

    /// A file loses its name: from now on nothing of it is published.
    pub(crate) fn displace(&self, state: &mut State, kind: &NodeKind) {
        let now = self.clock.wall();
        let file = match kind {
            NodeKind::File(file) => file,
            NodeKind::Symlink(link) => {
                link.times.lock().ctime = now;
                return;
            }
            NodeKind::Dir(_) | NodeKind::Past(_) => return,
        };
        let mut meta = file.meta.lock();
        meta.place = None;
        meta.ctime = now;
        if let Some(logged) = &mut meta.logged {
            logged.file.place = None;
            state.also.push(Change::Place { file: file.ino, place: None });
        }
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, caller: Caller, parent: u64, name: &[u8]) -> Result<(), FsError> {
        let name = self.name_there(name)?;
        self.change(|state| {
            let parent = self.writable_dir(state, caller, parent, &name)?;
            let found = self.find(state, parent, &name)?.ok_or(FsError::NotFound)?;
            let NodeKind::Dir(dir) = found.kind else { return Err(FsError::NotDir) };
            if !self.is_empty(state, dir)? {
                return Err(FsError::NotEmpty);
            }
            let key = Key::new(parent, &name);
            let value = DraftValue::Gone { moved_to: None, was_dir: Some(dir) };
            state.drafts.put(self.now_ms(), &key, &name, value, || self.below(parent, &name))?;
            state.drafts.forget_dir_attr(dir);
            state.dir_changed(dir, self.clock.wall());
            state.count_subdir(parent, Subdir::Left);
            state.table.detach(&key);
            state.table.bury_dir(dir);
            state.touch_dir(parent, self.clock.wall());
            Ok(())
        })
    }

    /// Whether a directory shows nothing.
    pub(crate) fn is_empty(&self, state: &State, dir: DirId) -> Result<bool, FsError> {
        if state
            .drafts
            .in_dir(dir)
            .any(|(_, draft)| !matches!(draft.value, DraftValue::Gone { .. }))
        {
            return Ok(false);
        }
        if !self.written_in(state, dir).is_empty() {
            return Ok(false);
        }
        let mut after: Option<EntryName> = None;
        loop {
            let page = self.tree.list(dir, after.as_ref(), EMPTY_CHECK_PAGE)?;
            if page.iter().any(|view| state.drafts.get(&Key::new(dir, &view.shown)).is_none()) {
                return Ok(false);
            }
            match page.last() {
                Some(last) if page.len() >= EMPTY_CHECK_PAGE => after = Some(last.shown.clone()),
                _ => return Ok(true),
            }
        }
    }
}
