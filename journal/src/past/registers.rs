//! What names and directories showed at a moment.
//!
//! Leaves out: which entries count then ([`super::moment`]).
//!
//! Invariants:
//! - a directory's inside is looked at only where the rules ask for it: when nothing but that could
//!   keep it alive;
//! - however deep removed directories are nested, the stack does not grow with them.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{Entries, Facts};
use super::moment::Known;
use crate::conflict::{COPY_MARK, settled};
use crate::error::StateError;
use crate::fold::{chosen_attr, put_inside};
use crate::id::{DirId, VersionId};
use crate::kv::{KvRead, keys_with};
use crate::member::Members;
use crate::name::{EntryName, Register};
use crate::records::{
    RegKey, RegRec, Shown, What, corrupt, key, load_dir, load_entry, load_version, table,
    version_at_end,
};
use crate::register::{Rules, Within};
use crate::tree;
use crate::view::{Standing, ViewKind, ViewNode};

/// Directories remembered as showing something or not.
const SHOWS_MAX: usize = 100_000;

/// One look at a moment.
pub(super) struct Then<'a> {
    kv: &'a dyn KvRead,
    facts: Facts<'a>,
    moved: &'a BTreeMap<DirId, Register>,
    shows: &'a mut BTreeMap<DirId, bool>,
    members: &'a Members,
}

impl<'a> Then<'a> {
    pub(super) fn new(kv: &'a dyn KvRead, known: &'a mut Known) -> Self {
        let Known { cut, members, skipped, moved, shows, .. } = known;
        if shows.len() > SHOWS_MAX {
            shows.clear();
        }
        let facts = Facts { entries: Entries { kv, cut }, members, skipped };
        Self { kv, facts, moved, shows, members }
    }

    pub(super) fn lookup(
        &mut self,
        dir: DirId,
        shown: &EntryName,
    ) -> Result<Option<ViewNode>, StateError> {
        let reg = RegKey::new(&dir, shown);
        if let Some(official) = self.derive(&reg)?.official {
            return self.node(dir, &official, Standing::Official).map(Some);
        }
        // Names of copies are settled among all of a directory.
        if !shown.as_str().contains(COPY_MARK) {
            return Ok(None);
        }
        let all = self.list(dir)?;
        Ok(all.into_iter().find(|node| RegKey::new(&dir, &node.shown) == reg))
    }

    pub(super) fn list(&mut self, dir: DirId) -> Result<Vec<ViewNode>, StateError> {
        let mut nodes = BTreeMap::new();
        let mut copies: Vec<Shown> = Vec::new();
        for reg in self.registers(&dir)? {
            let rec = self.derive(&reg)?;
            if let Some(official) = &rec.official {
                nodes.insert(reg.clone(), self.node(dir, official, Standing::Official)?);
            }
            copies.extend(rec.copies);
        }
        let taken = |reg: &RegKey| nodes.contains_key(reg);
        let copies = settled(&self.facts, self.members, dir, copies, taken)?;
        for copy in copies {
            let node = self.node(dir, &copy, Standing::Copy)?;
            // A real name wins, as in the tree of today.
            nodes.entry(RegKey::new(&dir, &copy.shown)).or_insert(node);
        }
        Ok(nodes.into_values().collect())
    }

    fn node(&self, dir: DirId, shown: &Shown, standing: Standing) -> Result<ViewNode, StateError> {
        let mut node = tree::node(&self.facts, dir, shown, standing)?;
        if let ViewKind::Dir { dir, attr } = &mut node.kind {
            let chosen = chosen_attr(&self.facts, dir)?;
            *attr = chosen.map(|(_, attr)| attr).unwrap_or_default();
        }
        Ok(node)
    }

    /// The names of `dir` that anything was ever written to.
    fn registers(&self, dir: &DirId) -> Result<BTreeSet<RegKey>, StateError> {
        let mut out = BTreeSet::new();
        for row in keys_with(&self.facts, &key(table::REG_VERSION, &[dir.as_bytes()]))? {
            out.insert(register_in(&row)?);
        }
        Ok(out)
    }

    /// The directories that stand in a register.
    fn placed(&self, reg: &RegKey) -> Result<Vec<DirId>, StateError> {
        let mut dirs = BTreeSet::new();
        for row in keys_with(&self.facts, &key(table::REG_VERSION, &[reg.as_slice()]))? {
            let found = load_version(&self.facts, &version_at_end(&row)?)?;
            if let Some(What::Dir { dir, .. }) = found.map(|rec| rec.what)
                && self.at(&dir)?.is_some_and(|at| RegKey::of(&at) == *reg)
            {
                dirs.insert(dir);
            }
        }
        Ok(dirs.into_iter().collect())
    }

    /// Where a directory stands.
    fn at(&self, dir: &DirId) -> Result<Option<Register>, StateError> {
        let Some(rec) = load_dir(self.kv, dir)? else { return Ok(None) };
        let mut made = false;
        for making in &rec.made {
            made = made || load_entry(&self.facts, &making.entry)?.is_some();
        }
        Ok(self.moved.get(dir).cloned().or(rec.home).filter(|_| made))
    }

    fn derive(&mut self, reg: &RegKey) -> Result<RegRec, StateError> {
        let dirs = self.placed(reg)?;
        for dir in &dirs {
            if self.is_asked_of(dir, reg)? {
                self.settle_shows(*dir)?;
            }
        }
        self.derive_settled(reg, &dirs)
    }

    /// Whether the inside of a directory that stands in `reg` matters: none of its placements is a
    /// plain head.
    fn is_asked_of(&self, dir: &DirId, reg: &RegKey) -> Result<bool, StateError> {
        for row in keys_with(&self.facts, &key(table::REG_VERSION, &[reg.as_slice()]))? {
            let version = version_at_end(&row)?;
            let Some(rec) = load_version(&self.facts, &version)? else { continue };
            let Some(entry) = load_entry(&self.facts, &version.entry)? else { continue };
            let here = matches!(rec.what, What::Dir { dir: other, .. } if other == *dir);
            let replaced = || self.is_named(&version);
            if here && entry.accepted() && !rec.skipped && !replaced()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether any version names `version` as a base.
    fn is_named(&self, version: &VersionId) -> Result<bool, StateError> {
        let rows = keys_with(&self.facts, &key(table::SUPERSEDE, &[&version.to_bytes()]))?;
        Ok(!rows.is_empty())
    }

    fn derive_settled(&self, reg: &RegKey, dirs: &[DirId]) -> Result<RegRec, StateError> {
        let facts = &self.facts;
        let look = &mut |dir: &DirId| {
            let shows = self.shows.get(dir).copied().unwrap_or_default();
            Ok(Within { shows, inside: put_inside(facts, dir)? })
        };
        Ok(Rules::new(facts)?.derive(reg, dirs, look)?.rec)
    }

    /// Finds out whether `dir` shows anything, and before that the same of every directory in it
    /// whose own existence depends on it.
    fn settle_shows(&mut self, dir: DirId) -> Result<(), StateError> {
        let (mut stack, mut entered) = (vec![dir], BTreeSet::from([dir]));
        while let Some(dir) = stack.last().copied() {
            if self.shows.contains_key(&dir) {
                stack.pop();
                continue;
            }
            let registers = self.registers(&dir)?;
            let (mut open, mut shows) = (Vec::new(), false);
            for reg in &registers {
                let dirs = self.placed(reg)?;
                let mut unsettled = Vec::new();
                for below in &dirs {
                    if !self.shows.contains_key(below) && self.is_asked_of(below, reg)? {
                        unsettled.push(*below);
                    }
                }
                if unsettled.is_empty() {
                    let rec = self.derive_settled(reg, &dirs)?;
                    shows = shows || rec.official.is_some() || !rec.copies.is_empty();
                }
                open.append(&mut unsettled);
                if shows {
                    break;
                }
            }
            // One that shows anything lives whatever the others do. Places form a tree, so no directory
            // waits for itself.
            open.retain(|below| entered.insert(*below));
            if shows || open.is_empty() {
                self.shows.insert(dir, shows);
                stack.pop();
            } else {
                stack.append(&mut open);
            }
        }
        Ok(())
    }
}

/// The register of a row that lists its versions.
fn register_in(row: &[u8]) -> Result<RegKey, StateError> {
    let end = row.len().saturating_sub(VersionId::LEN);
    row.get(1..end).map(RegKey::from_slice).ok_or_else(|| corrupt(row))
}
