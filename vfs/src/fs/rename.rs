//! Moving and exchanging names.
//!
//! Leaves out: what a batch makes of it ([`crate::drafts`]).
//!
//! Invariants:
//! - a file's rename is a draft, so a save by rename is one version;
//! - a directory's rename and an exchange are published at once, after everything they depend on: the place of a
//!   directory is never a draft but for new and removed ones.

use std::collections::HashSet;
use std::sync::Arc;

use journal::id::{DirId, VersionId};
use journal::name::EntryName;
use journal::op::{Arrival, ExchangeSide, Op, Value};
use journal::view::{ViewKind, ViewNode};

use super::locking::Intent;
use super::lookup::{Found, below_of_draft};
use super::{Core, State, Subdir, Wait};
use crate::attr::Caller;
use crate::drafts::{Below, DraftValue, Key, Side};
use crate::error::FsError;
use crate::file::FileNode;
use crate::inode::{NodeKind, Place};
use crate::process::Process;
use crate::spool::Change;

/// How a name is moved onto another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// What is there is replaced.
    Replace,
    /// Nothing may be there.
    NoReplace,
    /// Both change places.
    Exchange,
}

/// Both ends of a rename.
struct Ends {
    from: (DirId, EntryName),
    to: (DirId, EntryName),
}

/// The directories above a place.
#[derive(Default)]
struct Chain {
    dirs: HashSet<DirId>,
    /// The names of those that are not published yet.
    unpublished: Vec<Key>,
}

impl Core {
    /// Renames. With [`Wait::Never`] a rename that has to be published at once is refused with
    /// [`FsError::WouldWait`] and nothing is done.
    pub fn rename(
        &self,
        caller: Caller,
        from: (u64, &[u8]),
        to: (u64, &[u8]),
        mode: RenameMode,
        wait: Wait,
    ) -> Result<(), FsError> {
        let (from_name, to_name) = (self.name_there(from.1)?, self.name(to.1)?);
        if mode == RenameMode::Replace
            && let Some(file) = self.drafted_file(to.0, &to_name)
            && self.save_of_another(caller, &file).is_some()
        {
            if wait == Wait::Never {
                return Err(FsError::WouldWait);
            }
            self.keep_save_of_another(caller, &file)?;
        }
        let (gone, comes) = match mode {
            RenameMode::Exchange => (Intent::Replace, Intent::Replace),
            _ => (Intent::Remove, Intent::Replace),
        };
        self.claim_name(caller, (from.0, &from_name), gone, wait)?;
        self.claim_name(caller, (to.0, &to_name), comes, wait)?;
        if mode != RenameMode::Exchange {
            let to_dir = self.state().dir_of(to.0)?;
            self.claim_document(caller, to_dir, &to_name, wait)?;
        }
        let by = self.work.process(caller);
        let published = self.change(|state| {
            let from_dir = self.writable_dir(state, caller, from.0, &from_name)?;
            let to_dir = self.writable_dir(state, caller, to.0, &to_name)?;
            let source = self.find(state, from_dir, &from_name)?.ok_or(FsError::NotFound)?;
            let target = self.find(state, to_dir, &to_name)?;
            let ends = Ends { from: (from_dir, from_name.clone()), to: (to_dir, to_name.clone()) };
            match (mode, &target) {
                (RenameMode::NoReplace, Some(_)) => return Err(FsError::Exists),
                (RenameMode::Exchange, None) => return Err(FsError::NotFound),
                _ => {}
            }
            if mode != RenameMode::Exchange
                && let Some(target) = &target
            {
                if target.ino == source.ino {
                    // Two spellings of one name: nothing to do, and the stored spelling stays.
                    return Ok(None);
                }
                match (&source.kind, &target.kind) {
                    (NodeKind::Dir(_), NodeKind::Dir(dir)) if !self.is_empty(state, *dir)? => {
                        return Err(FsError::NotEmpty);
                    }
                    (NodeKind::Dir(_), NodeKind::Dir(_)) => {}
                    (NodeKind::Dir(_), _) => return Err(FsError::NotDir),
                    (_, NodeKind::Dir(_)) => return Err(FsError::IsDir),
                    _ => {}
                }
            }
            if mode == RenameMode::Exchange || matches!(source.kind, NodeKind::Dir(_)) {
                return Ok(Some((ends, source, target)));
            }
            self.move_file(state, by, &ends, &source, target.as_ref()).map(|()| None)
        })?;
        let Some((ends, source, target)) = published else { return Ok(()) };
        if wait == Wait::Never {
            return Err(FsError::WouldWait);
        }
        match (mode, source.kind, target) {
            (RenameMode::Exchange, _, Some(target)) => {
                self.exchange(by, &ends, source.ino, target.ino)
            }
            (_, NodeKind::Dir(dir), target) => self.move_dir(&ends, dir, target),
            _ => Err(FsError::Invalid),
        }
    }

    /// The file whose draft stands under a name.
    pub(super) fn drafted_file(&self, dir: u64, name: &EntryName) -> Option<Arc<FileNode>> {
        let state = self.state();
        let key = Key::new(state.dir_of(dir).ok()?, name);
        state.drafts.get(&key)?;
        match &state.table.at(&key)?.1.kind {
            NodeKind::File(file) => Some(file.clone()),
            _ => None,
        }
    }

    fn move_file(
        &self,
        state: &mut State,
        by: Option<Process>,
        ends: &Ends,
        source: &Found,
        target: Option<&Found>,
    ) -> Result<(), FsError> {
        let (from_key, to_key) =
            (Key::new(ends.from.0, &ends.from.1), Key::new(ends.to.0, &ends.to.1));
        let (from, to) = ((ends.from.0, &ends.from.1), (ends.to.0, &ends.to.1));
        let from_below = self.below_unless_drafted(state, by, &from_key, Some(source), from)?;
        let to_below = self.below_unless_drafted(state, by, &to_key, target, to)?;
        let value = self.draft_value(state, &from_key, &source.kind)?;
        let from = Side { key: &from_key, name: &ends.from.1, below: from_below };
        let to = Side { key: &to_key, name: &ends.to.1, below: to_below };
        state.drafts.rename(self.now_ms(), from, to, value);
        state.savers.remove(&from_key);
        match by {
            Some(by) => state.savers.insert(to_key.clone(), by),
            None => state.savers.remove(&to_key),
        };
        if let Some(target) = target {
            self.displace(state, &target.kind);
        }
        state.table.detach(&to_key);
        state.table.attach(source.ino, to_key.clone());
        self.replace_place(state, &source.kind, &to_key, &ends.to.1);
        let now = self.clock.wall();
        state.touch_dir(ends.from.0, now);
        state.touch_dir(ends.to.0, now);
        Ok(())
    }

    /// What a process replaces under a name that it replaces or removes. A draft knows what it replaces.
    pub(crate) fn below_unless_drafted(
        &self,
        state: &mut State,
        by: Option<Process>,
        key: &Key,
        found: Option<&Found>,
        (dir, name): (DirId, &EntryName),
    ) -> Result<Below, FsError> {
        if state.drafts.get(key).is_some() {
            return Ok(Below::default());
        }
        let below = match found {
            Some(found) => self.below_of(found, dir, name)?,
            None => self.below(dir, name)?,
        };
        self.replaced_whole(state, by, key, below)
    }

    /// A name is about to go or to be replaced.
    pub(super) fn claim_name(
        &self,
        caller: Caller,
        (parent, name): (u64, &EntryName),
        intent: Intent,
        wait: Wait,
    ) -> Result<(), FsError> {
        let dir = self.state().dir_of(parent)?;
        self.claim(caller, &Key::new(dir, name), intent, wait).map(drop)
    }

    /// What a node is as a draft. A file that is being written goes as it was last finished.
    fn draft_value(
        &self,
        state: &State,
        key: &Key,
        kind: &NodeKind,
    ) -> Result<DraftValue, FsError> {
        match kind {
            NodeKind::File(file) => {
                let meta = file.meta.lock();
                Ok(match meta.finished {
                    Some(content) => {
                        DraftValue::File { value: meta.value(content), rests_on: meta.rests_on }
                    }
                    None => DraftValue::Unfinished,
                })
            }
            NodeKind::Symlink(link) => Ok(DraftValue::Symlink(link.value.lock().clone())),
            NodeKind::Dir(_) => {
                let draft = state.drafts.get(key).map(|draft| draft.value.clone());
                draft.ok_or(FsError::IsDir)
            }
            NodeKind::Past(_) => Err(FsError::ReadOnly),
        }
    }

    /// A node stands under another name from now on.
    fn replace_place(&self, state: &mut State, kind: &NodeKind, key: &Key, name: &EntryName) {
        let below = match state.drafts.get(key) {
            Some(draft) => below_of_draft(draft),
            None => Below::default(),
        };
        let spelled = below.name.clone().unwrap_or_else(|| name.clone());
        match kind {
            NodeKind::File(file) => {
                let mut meta = file.meta.lock();
                meta.place = Some(Place { key: key.clone(), name: spelled.clone() });
                meta.below = below.clone();
                meta.ctime = self.clock.wall();
                if let Some(logged) = &mut meta.logged {
                    logged.file.place = Some((key.dir(), spelled));
                    logged.file.below = below;
                    state.also.push(Change::Dirty(logged.file.clone()));
                }
            }
            NodeKind::Symlink(link) => {
                *link.below.lock() = below;
                link.times.lock().ctime = self.clock.wall();
            }
            NodeKind::Dir(dir) => {
                state.dir_changed(*dir, self.clock.wall());
            }
            NodeKind::Past(_) => {}
        }
    }

    /// Moves a directory: everything the move depends on is published first, then the move.
    fn move_dir(&self, ends: &Ends, dir: DirId, target: Option<Found>) -> Result<(), FsError> {
        let (from_key, to_key) =
            (Key::new(ends.from.0, &ends.from.1), Key::new(ends.to.0, &ends.to.1));
        let _sealing = self.sealing.lock();
        let needed = {
            let state = self.state();
            let (source, goal) = (self.chain(&state, ends.from.0)?, self.chain(&state, ends.to.0)?);
            if goal.dirs.contains(&dir) {
                return Err(FsError::Cycle);
            }
            let mut keys = [source.unpublished, goal.unpublished].concat();
            keys.extend([from_key.clone(), to_key.clone()]);
            if let Some(NodeKind::Dir(replaced)) = target.as_ref().map(|found| &found.kind) {
                keys.extend(state.drafts.in_dir(*replaced).map(|(key, _)| key.clone()));
            }
            keys
        };
        self.seal_names(&needed)?;
        let placed = self.tree.dir(dir)?.ok_or(FsError::NotFound)?;
        // What stands at the name by now may be another's, whom the program has not seen: only what it replaces goes.
        let mut bases = self.tree.gone_heads(ends.to.0, &ends.to.1)?;
        if let Some(NodeKind::Dir(replaced)) = target.as_ref().map(|found| &found.kind) {
            bases.extend(self.tree.dir(*replaced)?.map(|node| node.placement));
        }
        let op = Op::Move { dir, from: placed.placement, to: ends.to.clone(), bases };
        self.submit(vec![op])?;
        let moved = self
            .tree
            .dir(dir)?
            .is_some_and(|node| node.parent == ends.to.0 && node.placement != placed.placement);
        if !moved {
            // Someone else moved it first; their move stands.
            return Err(FsError::Stale);
        }
        let mut state = self.state();
        state.table.detach(&to_key);
        if let Some(NodeKind::Dir(replaced)) = target.map(|found| found.kind) {
            state.table.bury_dir(replaced);
            state.count_subdir(ends.to.0, Subdir::Left);
        }
        state.count_subdir(ends.from.0, Subdir::Left);
        state.count_subdir(ends.to.0, Subdir::Came);
        if let Some(ino) = state.table.dir_ino(dir) {
            state.table.attach(ino, to_key);
        }
        let now = self.clock.wall();
        state.dir_changed(dir, now);
        state.touch_dir(ends.from.0, now);
        state.touch_dir(ends.to.0, now);
        Ok(())
    }

    /// The directories from `dir` up to the root.
    fn chain(&self, state: &State, dir: DirId) -> Result<Chain, FsError> {
        let mut chain = Chain::default();
        let mut at = dir;
        while at != DirId::ROOT && chain.dirs.insert(at) {
            match state.drafts.new_dir(at) {
                Some((key, _)) => {
                    chain.unpublished.push(key.clone());
                    at = key.dir();
                }
                None => at = self.tree.dir(at)?.ok_or(FsError::NotFound)?.parent,
            }
        }
        Ok(chain)
    }

    /// Lets two names change places, whatever they are.
    fn exchange(&self, by: Option<Process>, ends: &Ends, a: u64, b: u64) -> Result<(), FsError> {
        let (a_key, b_key) = (Key::new(ends.from.0, &ends.from.1), Key::new(ends.to.0, &ends.to.1));
        if a == b {
            return Ok(());
        }
        self.above_exchanged(ends, a, b)?;
        for ino in [a, b] {
            let kind = self.state().table.get(ino).map(|node| node.kind.clone());
            if let Some(NodeKind::File(file)) = kind {
                let unfinished = file.meta.lock().finished.is_none();
                if unfinished { self.publish_open(&file)? } else { self.finish(&file)? }
            }
        }
        let _sealing = self.sealing.lock();
        let mut needed = self.above_exchanged(ends, a, b)?;
        needed.extend([a_key.clone(), b_key.clone()]);
        self.seal_names(&needed)?;
        let a_view = self.tree.lookup(ends.from.0, &ends.from.1)?.ok_or(FsError::NotFound)?;
        let b_view = self.tree.lookup(ends.to.0, &ends.to.1)?.ok_or(FsError::NotFound)?;
        // Another's work may have become official under one of the names: the program has not seen it.
        if !self.stands_for(a, &a_view) || !self.stands_for(b, &b_view) {
            return Err(FsError::Stale);
        }
        for (key, view) in [(&a_key, &a_view), (&b_key, &b_view)] {
            if self.has_not_seen(by, key, &view.merged)? {
                return Err(FsError::Stale);
            }
        }
        let op = Op::Exchange {
            a: self.side(&ends.from, &a_view, &b_view)?,
            b: self.side(&ends.to, &b_view, &a_view)?,
        };
        let versions = self.submit(vec![op])?;
        let first = versions.first().copied();
        let mut state = self.state();
        let kinds = [
            (a, &b_key, &ends.to.1, first.map(VersionId::second)),
            (b, &a_key, &ends.from.1, first),
        ];
        state.table.detach(&a_key);
        state.table.detach(&b_key);
        for (ino, key, name, version) in kinds {
            state.table.attach(ino, key.clone());
            let Some(kind) = state.table.get(ino).map(|node| node.kind.clone()) else { continue };
            self.replace_place(&mut state, &kind, key, name);
            let bases = version.into_iter().collect();
            let below = Below { name: Some(name.clone()), bases, live: true, resolves: None };
            match &kind {
                NodeKind::File(file) => file.meta.lock().below = below,
                NodeKind::Symlink(link) => *link.below.lock() = below,
                NodeKind::Dir(_) | NodeKind::Past(_) => {}
            }
        }
        let now = self.clock.wall();
        for dir in [ends.from.0, ends.to.0] {
            state.touch_dir(dir, now);
            state.subdirs.get_mut().remove(&dir);
        }
        self.log_touched(&mut state);
        Ok(())
    }

    /// The unpublished directories above both ends, unless one end would come to lie in itself.
    fn above_exchanged(&self, ends: &Ends, a: u64, b: u64) -> Result<Vec<Key>, FsError> {
        let state = self.state();
        let (above_a, above_b) = (self.chain(&state, ends.from.0)?, self.chain(&state, ends.to.0)?);
        for (ino, above) in [(a, &above_b), (b, &above_a)] {
            if let Some(NodeKind::Dir(dir)) = state.table.get(ino).map(|node| &node.kind)
                && above.dirs.contains(dir)
            {
                return Err(FsError::Cycle);
            }
        }
        Ok([above_a.unpublished, above_b.unpublished].concat())
    }

    /// Whether an inode is what the tree shows.
    fn stands_for(&self, ino: u64, view: &ViewNode) -> bool {
        let known = |below: &Below| view.merged.iter().any(|version| below.bases.contains(version));
        match (self.state().table.get(ino).map(|node| &node.kind), &view.kind) {
            (Some(NodeKind::File(file)), ViewKind::File(_)) => known(&file.meta.lock().below),
            (Some(NodeKind::Symlink(link)), ViewKind::Symlink(_)) => known(&link.below.lock()),
            (Some(NodeKind::Dir(known)), ViewKind::Dir { dir, .. }) => known == dir,
            _ => false,
        }
    }

    /// One side of an exchange: what stands at `place` and what comes there.
    fn side(
        &self,
        (dir, name): &(DirId, EntryName),
        stands: &ViewNode,
        comes: &ViewNode,
    ) -> Result<ExchangeSide, FsError> {
        let comes = match &comes.kind {
            ViewKind::File(value) => Arrival::Value(Value::File(value.clone())),
            ViewKind::Symlink(link) => Arrival::Value(Value::Symlink(link.clone())),
            ViewKind::Dir { dir, .. } => {
                let from = self.tree.dir(*dir)?.ok_or(FsError::NotFound)?.placement;
                Arrival::Dir { dir: *dir, from }
            }
        };
        let below = self.below_of_view(stands, name)?;
        let name = below.name.unwrap_or_else(|| name.clone());
        Ok(ExchangeSide { dir: *dir, name, comes, bases: below.bases })
    }
}
