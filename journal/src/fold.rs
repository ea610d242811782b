//! The fold: takes entries in causal order and keeps the materialised state true.
//!
//! Leaves out: whether an entry may be taken at all ([`crate::replica`]); the fold is total.
//!
//! Invariants:
//! - the state after a set of entries is one function of the set, whatever their (causal) sequence;
//! - the work of an entry is proportional to its operations: a register is derived again only when
//!   something it depends on changed, and mostly its new head just replaces the old;
//! - what an operation means never depends on entries outside its own past: versions and directories
//!   it had not seen are as if it had not named them.

use std::collections::{BTreeMap, BTreeSet};

use crate::canary::{self, Canary};
use crate::chain;
use crate::error::StateError;
use crate::id::{DirId, DriveId, VersionId};
use crate::kv::{Kv, first_with};
use crate::member::Members;
use crate::name::Register;
use crate::op::Op;
use crate::records::{
    DirRec, EntryRec, LogPos, Meta, RegKey, RegRec, STATE_FORMAT, Shown, ShownKind, VersionRec,
    corrupt, key, load_dir, load_entry, load_meta, load_register, load_version, op_key, store,
    table, version_at_end,
};
use crate::retention::day_of;
use crate::signed::VerifiedEntry;

mod late;
mod locks;
mod record;

pub(crate) use late::{chosen_attr, first_naming, namings, put_inside};

/// One transaction's worth of folding.
pub(crate) struct Fold<'a> {
    pub(crate) kv: &'a mut dyn Kv,
    pub(crate) meta: Meta,
    pub(crate) members: Members,
    /// Registers to derive again.
    pub(crate) dirty: BTreeSet<RegKey>,
    /// Directories whose share of the tree hash may have changed.
    pub(crate) dirty_dirs: BTreeSet<DirId>,
    /// Registers whose operations on checkouts are to be replayed, and from where.
    locks: BTreeMap<RegKey, Vec<u8>>,
    /// Short names of copies to settle.
    pub(crate) names: BTreeSet<RegKey>,
    /// Registers that show something else than before.
    pub(crate) changed: BTreeMap<RegKey, Register>,
    /// Directories read or changed by the entry at hand.
    dirs: BTreeMap<DirId, (DirRec, bool)>,
    /// Bases in other registers, looked at when all operations of the entry are in place.
    foreign: Vec<VersionId>,
}

impl<'a> Fold<'a> {
    /// Goes on with the state in `kv`; none when it holds none of this format.
    pub(crate) fn resume(kv: &'a mut dyn Kv) -> Result<Option<Self>, StateError> {
        let Some(meta) = load_meta(kv)?.filter(|meta| meta.format == STATE_FORMAT) else {
            return Ok(None);
        };
        let members = Members::load(kv)?;
        Ok(Some(Self::with(kv, meta, members)))
    }

    /// Begins a state with `genesis`; none when that is not one.
    pub(crate) fn begin(
        kv: &'a mut dyn Kv,
        genesis: &VerifiedEntry,
        at: LogPos,
    ) -> Result<Option<Self>, StateError> {
        let Some(Op::Genesis { id_key, posix_owners, .. }) = genesis.entry().ops.first() else {
            return Ok(None);
        };
        let meta = Meta {
            format: STATE_FORMAT,
            drive: DriveId::from(genesis.id()),
            genesis: genesis.id(),
            id_key: *id_key,
            posix_owners: *posix_owners,
            tree_hash: [0; 32],
            entries: 0,
            files: 0,
            dirs: 0,
            copies: 0,
            skipped: 0,
            lanes: 0,
            breaks: 0,
            watermark: LogPos::default(),
            gaps: 0,
        };
        let mut fold = Self::with(kv, meta, Members::default());
        fold.apply(genesis, at)?;
        Ok(Some(fold))
    }

    fn with(kv: &'a mut dyn Kv, meta: Meta, members: Members) -> Self {
        Self {
            kv,
            meta,
            members,
            dirty: BTreeSet::new(),
            dirty_dirs: BTreeSet::new(),
            locks: BTreeMap::new(),
            names: BTreeSet::new(),
            changed: BTreeMap::new(),
            dirs: BTreeMap::new(),
            foreign: Vec::new(),
        }
    }

    /// Writes what is kept for the whole transaction; gives the registers that changed.
    pub(crate) fn finish(self) -> Result<Vec<Register>, StateError> {
        store(self.kv, &[table::META], &self.meta)?;
        Ok(self.changed.into_values().collect())
    }

    /// Takes one entry whose parents are applied. Taking one twice does nothing.
    pub(crate) fn apply(&mut self, entry: &VerifiedEntry, at: LogPos) -> Result<(), StateError> {
        let id = entry.id();
        let known = self.kv.get(&key(table::ENTRY, &[id.as_bytes()]))?.is_some();
        if known && !canary::is(Canary::AppliedTwice) {
            return Ok(());
        }
        let body = entry.entry();
        let mut rec = chain::link(self.kv, &mut self.meta, id, body, at)?;
        self.put_entry(&rec, entry)?;
        self.kv.put(&key(table::DAY, &[&day_of(body.hlc.ms()).to_be_bytes()]), &[])?;
        let mut moved = BTreeSet::new();
        if self.record_member_ops(entry, &rec)? {
            self.refold_members(&mut moved)?;
            rec = load_entry(self.kv, &id)?.ok_or_else(|| corrupt(&[table::ENTRY]))?;
        }
        for start in &body.late {
            moved.extend(self.make_late(start, &rec)?);
        }
        // When a policy of keeping began to hold is a matter of when it was published.
        let mut dated = false;
        for late in &moved {
            dated = dated || self.has_member_ops(late)?;
        }
        if dated {
            self.refold_members(&mut moved)?;
        }
        let standing = self.members.standing(self.kv, &rec)?;
        self.stand(&mut rec, standing)?;
        self.put_entry(&rec, entry)?;
        self.touch_entries(&moved)?;
        self.settle_locks()?;
        self.record_ops(entry, &rec)?;
        self.settle_locks()?;
        self.look_at_foreign()?;
        self.settle()
    }

    fn put_entry(&mut self, rec: &EntryRec, entry: &VerifiedEntry) -> Result<(), StateError> {
        store(self.kv, &key(table::ENTRY, &[entry.id().as_bytes()]), rec)
    }

    /// The directory `id` as it is now.
    pub(crate) fn dir(&mut self, id: &DirId) -> Result<&DirRec, StateError> {
        Ok(&self.cached_dir(id)?.0)
    }

    /// The directory `id`, to be changed.
    pub(crate) fn dir_mut(&mut self, id: &DirId) -> Result<&mut DirRec, StateError> {
        let cached = self.cached_dir(id)?;
        cached.1 = true;
        Ok(&mut cached.0)
    }

    fn cached_dir(&mut self, id: &DirId) -> Result<&mut (DirRec, bool), StateError> {
        match self.dirs.entry(*id) {
            std::collections::btree_map::Entry::Occupied(found) => Ok(found.into_mut()),
            std::collections::btree_map::Entry::Vacant(free) => {
                let rec = load_dir(self.kv, id)?.unwrap_or_default();
                Ok(free.insert((rec, false)))
            }
        }
    }

    /// Marks what depends on `rec` counting or not for another look.
    pub(crate) fn touch_version(&mut self, rec: &VersionRec) -> Result<(), StateError> {
        if let Some(register) = &rec.register {
            self.dirty.insert(RegKey::of(register));
        }
        rec.bases.iter().try_for_each(|base| self.touch_ancestors(base))
    }

    /// Marks the register of `base` and, as long as the versions in between do not count, those of
    /// what it builds on: through such versions a replacement reaches further.
    pub(crate) fn touch_ancestors(&mut self, base: &VersionId) -> Result<(), StateError> {
        let (mut queue, mut passed) = (vec![*base], BTreeSet::new());
        while let Some(id) = queue.pop() {
            let Some(entry) = load_entry(self.kv, &id.entry)? else { continue };
            let Some(rec) = load_version(self.kv, &id)? else { continue };
            if let Some(register) = &rec.register {
                self.dirty.insert(RegKey::of(register));
            }
            if !entry.accepted() {
                queue.extend(rec.bases.into_iter().filter(|base| passed.insert(*base)));
            }
        }
        Ok(())
    }

    /// Looks at versions that were replaced otherwise than by the next version of their register:
    /// a head that was needs a replay.
    fn look_at_foreign(&mut self) -> Result<(), StateError> {
        for base in std::mem::take(&mut self.foreign) {
            let Some(entry) = load_entry(self.kv, &base.entry)? else { continue };
            if !entry.accepted() {
                self.touch_ancestors(&base)?;
                continue;
            }
            let Some(rec) = load_version(self.kv, &base)? else { continue };
            let Some(register) = &rec.register else { continue };
            let reg = RegKey::of(register);
            let simple = load_register(self.kv, &reg)?.and_then(|rec| rec.simple);
            if simple.is_none_or(|(head, _)| head == base) {
                self.dirty.insert(reg);
            }
        }
        Ok(())
    }

    /// Derives every dirty register, and what depends on it, until nothing changes.
    fn settle(&mut self) -> Result<(), StateError> {
        while let Some(reg) = self.dirty.pop_first() {
            let rec = self.derive(&reg)?;
            let old = load_register(self.kv, &reg)?.unwrap_or_default();
            self.set_register(&reg, old, rec)?;
        }
        while let Some(short) = self.names.pop_first() {
            self.settle_names(&short)?;
        }
        while let Some(dir) = self.dirty_dirs.pop_first() {
            self.hash_dir(&dir)?;
        }
        for (id, (rec, changed)) in std::mem::take(&mut self.dirs) {
            if changed {
                store(self.kv, &key(table::DIR, &[id.as_bytes()]), &rec)?;
            }
        }
        Ok(())
    }

    /// Puts `new` in place of `old` and carries the difference to counts, names, hash and parent.
    fn set_register(
        &mut self,
        reg: &RegKey,
        old: RegRec,
        mut new: RegRec,
    ) -> Result<(), StateError> {
        let at = key(table::REGISTER, &[reg.as_slice()]);
        let register = match self.register_of(reg, &new)? {
            Some(register) => register,
            None => return Ok(()),
        };
        let same = |a: &RegRec, b: &RegRec| {
            let plain = |s: &Shown| (s.version, s.merged.clone(), s.kind, s.attrs.clone());
            a.official == b.official && a.copies.iter().map(plain).eq(b.copies.iter().map(plain))
        };
        if same(&old, &new) {
            for (copy, was) in new.copies.iter_mut().zip(&old.copies) {
                copy.shown.clone_from(&was.shown);
            }
            new.hashed = old.hashed;
            if new != old {
                store(self.kv, &at, &new)?;
            }
            return Ok(());
        }
        if !old.copies.is_empty() || !new.copies.is_empty() {
            self.rename_copies(&register, &old.copies, &mut new.copies)?;
            let row = key(table::CONFLICT, &[reg.as_slice()]);
            match new.copies.is_empty() {
                true => self.kv.delete(&row)?,
                false => store(self.kv, &row, &register)?,
            }
        }
        if old.official.is_some() != new.official.is_some() {
            let row = key(table::SHOWN, &[reg.as_slice()]);
            match new.official.is_some() {
                true => self.kv.put(&row, &[])?,
                false => self.kv.delete(&row)?,
            }
            self.names.insert(reg.clone());
        }
        let leaves = |rec: &RegRec| {
            let all = rec.official.iter().chain(&rec.copies);
            all.filter(|s| !matches!(s.kind, ShownKind::Dir(_))).count() as u64
        };
        self.meta.files = (self.meta.files + leaves(&new)).saturating_sub(leaves(&old));
        let copies = |rec: &RegRec| rec.copies.len() as u64;
        self.meta.copies = (self.meta.copies + copies(&new)).saturating_sub(copies(&old));
        self.count_kid(&register.dir, shows(&old), shows(&new))?;
        new.hashed = shows(&new).then(|| hash_register(reg, &new));
        exchange(&mut self.meta.tree_hash, old.hashed, new.hashed);
        store(self.kv, &at, &new)?;
        self.changed.insert(reg.clone(), register);
        Ok(())
    }

    /// The register `reg` is the key of, spelled as what it shows or as any version spells it.
    fn register_of(&self, reg: &RegKey, rec: &RegRec) -> Result<Option<Register>, StateError> {
        let dir = reg.dir();
        if let Some(official) = &rec.official {
            return Ok(Some(Register::new(dir, official.shown.clone())));
        }
        let row = first_with(self.kv, &key(table::REG_VERSION, &[reg.as_slice()]))?;
        let Some(row) = row else { return Ok(None) };
        Ok(load_version(self.kv, &version_at_end(&row)?)?.and_then(|rec| rec.register))
    }

    /// A directory that shows something lives, whatever was decided about it.
    fn count_kid(&mut self, dir: &DirId, old: bool, new: bool) -> Result<(), StateError> {
        if *dir == DirId::ROOT || old == new {
            return Ok(());
        }
        let rec = self.dir_mut(dir)?;
        let before = rec.kids;
        rec.kids = if new { before + 1 } else { before.saturating_sub(1) };
        let turned = (before == 0) != (rec.kids == 0);
        if turned && let Some(at) = rec.at.clone() {
            self.dirty.insert(RegKey::of(&at));
        }
        Ok(())
    }

    fn hash_dir(&mut self, id: &DirId) -> Result<(), StateError> {
        let rec = self.dir(id)?.clone();
        let hashed = rec.live.then(|| {
            let mut hasher = blake3::Hasher::new_derive_key("atelier 2026-11 tree directory");
            hasher.update(id.as_bytes());
            if let Some(at) = &rec.at {
                hasher.update(RegKey::of(at).as_slice());
            }
            if let Some(by) = &rec.attr_by {
                hasher.update(&by.to_bytes());
            }
            *hasher.finalize().as_bytes()
        });
        if hashed != rec.hashed {
            exchange(&mut self.meta.tree_hash, rec.hashed, hashed);
            self.dir_mut(id)?.hashed = hashed;
            if let Some(at) = rec.at {
                self.changed.insert(RegKey::of(&at), at);
            }
        }
        Ok(())
    }

    /// The key of `version` in the order.
    pub(crate) fn key_of(&self, version: &VersionId) -> Result<Option<Vec<u8>>, StateError> {
        let entry = load_entry(self.kv, &version.entry)?;
        Ok(entry.map(|rec| op_key(&rec.order(version.entry), version.index)))
    }
}

fn shows(rec: &RegRec) -> bool {
    rec.official.is_some() || !rec.copies.is_empty()
}

fn hash_register(reg: &RegKey, rec: &RegRec) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("atelier 2026-11 tree register");
    hasher.update(reg.as_slice());
    for (tag, shown) in
        rec.official.iter().map(|s| (b'o', s)).chain(rec.copies.iter().map(|s| (b'c', s)))
    {
        hasher.update(&[tag]);
        hasher.update(&shown.version.to_bytes());
        hasher.update(&(shown.merged.len() as u64).to_le_bytes());
        shown.merged.iter().for_each(|id| {
            hasher.update(&id.to_bytes());
        });
        if let Some(attrs) = &shown.attrs {
            hasher.update(&attrs.mode.to_le_bytes());
            let (uid, gid) = attrs.owner.unwrap_or((u32::MAX, u32::MAX));
            hasher.update(&uid.to_le_bytes()).update(&gid.to_le_bytes());
            for (name, value) in &attrs.xattrs {
                hasher.update(&(name.len() as u64).to_le_bytes()).update(name);
                hasher.update(&(value.len() as u64).to_le_bytes()).update(value);
            }
        }
    }
    *hasher.finalize().as_bytes()
}

/// Takes one share out of the sum and puts another in, as 256-bit numbers.
fn exchange(sum: &mut [u8; 32], out: Option<[u8; 32]>, put: Option<[u8; 32]>) {
    if let Some(out) = out {
        let mut borrow = 0i16;
        for (digit, less) in sum.iter_mut().zip(out) {
            let value = i16::from(*digit) - i16::from(less) - borrow;
            borrow = i16::from(value < 0);
            *digit = value.rem_euclid(256) as u8;
        }
    }
    if let Some(put) = put {
        let mut carry = 0u16;
        for (digit, more) in sum.iter_mut().zip(put) {
            let value = u16::from(*digit) + u16::from(more) + carry;
            carry = value >> 8;
            *digit = (value & 0xff) as u8;
        }
    }
}
