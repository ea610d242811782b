//! Listings of directories.
//!
//! Leaves out: lookups.
//!
//! Invariant: one reading of a directory goes over one listing, so nothing is listed twice or left out because
//! something else changed meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use journal::id::DirId;
use journal::name::EntryName;
use journal::view::ViewKind;

use super::{Core, Entry, State};
use crate::attr::{Caller, Kind};
use crate::drafts::{DraftValue, Key};
use crate::error::FsError;
use crate::file::FileNode;
use crate::handles::{Listable, Listed};
use crate::inode::{Place, Table};
use crate::past::{HISTORY, SNAPSHOTS};

/// Published names asked for in one go.
const LIST_PAGE: usize = 1024;

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name.
    pub name: Arc<str>,
    /// What it is.
    pub kind: Kind,
    /// Its inode number, as it is or as it would be.
    pub ino: u64,
    /// Where to go on after it.
    pub next: u64,
}

impl Core {
    /// Opens a directory.
    pub fn opendir(&self, caller: Caller, ino: u64) -> Result<u64, FsError> {
        let what = {
            let state = self.state();
            if let Some(past) = state.past_of(ino) {
                Listable::Past(past.id.clone())
            } else {
                let dir = state.dir_of(ino)?;
                if caller.uid != 0 && !self.config.kernel_checks() {
                    self.may(caller, self.dir_attr(&state, dir)?.mode, 0o4)?;
                }
                Listable::Dir(dir)
            }
        };
        self.handles.add_dir(ino, what)
    }

    /// Closes a directory.
    pub fn releasedir(&self, handle: u64) {
        self.handles.remove_dir(handle);
    }

    /// Entries from `offset` on, until `take` says no.
    pub fn readdir(
        &self,
        handle: u64,
        offset: u64,
        mut take: impl FnMut(&DirEntry) -> bool,
    ) -> Result<(), FsError> {
        let handle = self.handles.dir(handle)?;
        let listing = {
            let mut listing = handle.listing.lock();
            match &*listing {
                Some(made) if offset > 0 => made.clone(),
                _ => {
                    let made = Arc::new(match &handle.what {
                        Listable::Dir(dir) => self.list(handle.ino, *dir)?,
                        Listable::Past(id) => self.list_past(handle.ino, id)?,
                    });
                    *listing = Some(made.clone());
                    made
                }
            }
        };
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, listed) in listing.iter().enumerate().skip(from) {
            let Listed { name, kind, ino } = listed.clone();
            if !take(&DirEntry { name, kind, ino, next: index as u64 + 1 }) {
                break;
            }
        }
        Ok(())
    }

    /// The same with attributes. Every entry that `take` accepts is held once more by the kernel, but for `.` and `..`.
    pub fn readdirplus(
        &self,
        handle: u64,
        offset: u64,
        mut take: impl FnMut(&DirEntry, &Entry) -> bool,
    ) -> Result<(), FsError> {
        let what = self.handles.dir(handle)?.what.clone();
        let mut failed = None;
        let mut take_one = |entry: &DirEntry| match &what {
            Listable::Dir(dir) => self.take_plus(*dir, entry, &mut take),
            Listable::Past(id) => self.take_past(id, entry, &mut take),
        };
        self.readdir(handle, offset, |entry| match take_one(entry) {
            Ok(more) => more,
            Err(error) => {
                failed = Some(error);
                false
            }
        })?;
        failed.map_or(Ok(()), Err)
    }

    fn take_plus(
        &self,
        dir: DirId,
        entry: &DirEntry,
        take: &mut impl FnMut(&DirEntry, &Entry) -> bool,
    ) -> Result<bool, FsError> {
        let mut state = self.state();
        if &*entry.name == "." || &*entry.name == ".." {
            let kind = match state.table.get(entry.ino) {
                Some(node) => node.kind.clone(),
                None => crate::inode::NodeKind::Dir(dir),
            };
            let attr = self.attr_of(&state, entry.ino, &kind)?;
            return Ok(take(entry, &Entry { attr, lasting: false }));
        }
        let Ok(name) = EntryName::new(&entry.name) else { return Ok(true) };
        // Gone since the listing was made.
        let real = self.find(&mut state, dir, &name)?;
        let Some(found) = real.or_else(|| self.find_top(&mut state, dir, &name)) else {
            return Ok(true);
        };
        let answer = self.entry(&state, &found)?;
        let more = take(&DirEntry { ino: found.ino, ..entry.clone() }, &answer);
        if more {
            self.told(&mut state, found.ino);
        } else {
            state.table.drop_unused(found.ino);
        }
        Ok(more)
    }

    /// Names of a directory that have no draft and stand for a file that is being written: they stay while it is, also
    /// when others have removed them.
    pub(crate) fn written_in(&self, state: &State, dir: DirId) -> Vec<Place> {
        let files: Vec<Arc<FileNode>> = self.dirty.lock().values().cloned().collect();
        let places =
            files.iter().filter_map(|file| Some((file.ino, file.meta.lock().place.clone()?)));
        places
            .filter(|(ino, place)| {
                place.key.dir() == dir
                    && state.drafts.get(&place.key).is_none()
                    && state.table.at(&place.key).is_some_and(|(at, _)| at == *ino)
            })
            .map(|(_, place)| place)
            .collect()
    }

    /// Everything a directory shows now.
    fn list(&self, ino: u64, dir: DirId) -> Result<Vec<Listed>, FsError> {
        // The drafts first: what is published between the two looks is then seen twice, not never.
        let (drafted, parent_ino) = {
            let state = self.state();
            let mut drafted: Vec<(Key, EntryName, Option<Thing>)> = state
                .drafts
                .in_dir(dir)
                .map(|(key, draft)| (key.clone(), draft.name.clone(), thing_of(&draft.value)))
                .collect();
            let written = self.written_in(&state, dir);
            drafted.extend(
                written.into_iter().map(|place| (place.key, place.name, Some(Thing::File))),
            );
            let parent = state.drafts.new_dir(dir).map(|(key, _)| key.dir());
            let parent = match parent {
                None if dir != DirId::ROOT => self.tree.dir(dir)?.map(|node| node.parent),
                other => other,
            };
            (drafted, parent.and_then(|parent| state.table.dir_ino(parent)).unwrap_or(ino))
        };
        let mut names: BTreeMap<Key, (EntryName, Option<Thing>)> = BTreeMap::new();
        let mut after: Option<EntryName> = None;
        loop {
            let page = self.tree.list(dir, after.as_ref(), LIST_PAGE)?;
            let full = page.len() >= LIST_PAGE;
            after = page.last().map(|view| view.shown.clone());
            for view in page {
                let kind = match view.kind {
                    ViewKind::File(_) => Thing::File,
                    ViewKind::Symlink(_) => Thing::Symlink,
                    ViewKind::Dir { dir, .. } => Thing::Dir(dir),
                };
                names.insert(Key::new(dir, &view.shown), (view.shown, Some(kind)));
            }
            if !full {
                break;
            }
        }
        for (key, name, kind) in drafted {
            names.insert(key, (name, kind));
        }
        if self.config.show_virtual && dir == DirId::ROOT {
            for name in
                [SNAPSHOTS, HISTORY].into_iter().filter_map(|name| EntryName::new(name).ok())
            {
                names.entry(Key::new(dir, &name)).or_insert((name, Some(Thing::Virtual)));
            }
        }
        let state = self.state();
        let dot = |name: &str, ino| Listed { name: name.into(), kind: Kind::Dir, ino };
        let mut listing = vec![dot(".", ino), dot("..", parent_ino)];
        listing.reserve(names.len());
        listing.extend(names.into_iter().filter_map(|(key, (name, kind))| {
            let (kind, hint) = match kind? {
                Thing::File => (Kind::File, Table::number_hint(&key)),
                Thing::Symlink => (Kind::Symlink, Table::number_hint(&key)),
                Thing::Virtual => (Kind::Dir, Table::number_hint(&key)),
                Thing::Dir(dir) => (Kind::Dir, Table::number_hint(dir)),
            };
            let ino = state.table.at(&key).map_or(hint, |(ino, _)| ino);
            Some(Listed { name: name.as_str().into(), kind, ino })
        }));
        Ok(listing)
    }
}

/// What a listed name stands for: what its inode number is made from.
enum Thing {
    File,
    Symlink,
    Dir(DirId),
    Virtual,
}

fn thing_of(value: &DraftValue) -> Option<Thing> {
    match value {
        DraftValue::Unfinished | DraftValue::File { .. } => Some(Thing::File),
        DraftValue::Symlink(_) => Some(Thing::Symlink),
        DraftValue::NewDir { dir, .. } => Some(Thing::Dir(*dir)),
        DraftValue::Gone { .. } => None,
    }
}
