//! Writing down what an entry's operations say.
//!
//! Leaves out: what follows from it, which the fold settles afterwards.
//!
//! Invariants:
//! - an operation that does not fit its own past (a directory it had not seen, an id that is not the
//!   derived one, a placement that is none) is kept in the log and has no effect anywhere.

use std::collections::BTreeSet;

use crate::canary::{self, Canary};
use crate::chain::sees;
use crate::error::StateError;
use crate::fold::Fold;
use crate::id::{DeviceId, DirId, VersionId};
use crate::kv::keys_with;
use crate::lock::{Cuts, LockAct};
use crate::member::verify_admit;
use crate::name::Register;
use crate::op::{Arrival, DirAttr, ExchangeSide, Op, Value};
use crate::records::{
    EntryRec, MovePart, MoveRow, RegKey, RegRec, Shown, ShownKind, VersionRec, What, key,
    load_entry, load_register, load_version, op_key, store, table,
};
use crate::signed::VerifiedEntry;
use crate::tree;

/// Most makings of one directory kept as minimal; more than this never were concurrent.
const MADE_MAX: usize = 64;

/// The entry whose operations are being written down.
pub(super) struct At<'e> {
    pub(super) rec: &'e EntryRec,
    pub(super) version: VersionId,
}

impl At<'_> {
    pub(super) fn key(&self) -> Vec<u8> {
        op_key(&self.rec.order(self.version.entry), self.version.index)
    }
}

fn what_of(value: &Value) -> What {
    match value.clone() {
        Value::File(file) => What::File(file),
        Value::Symlink(link) => What::Symlink(link),
        Value::Gone { moved_to } => What::Gone { moved_to },
    }
}

impl Fold<'_> {
    /// Writes down the membership operations; whether there were any.
    pub(super) fn record_member_ops(
        &mut self,
        entry: &VerifiedEntry,
        rec: &EntryRec,
    ) -> Result<bool, StateError> {
        let mut any = false;
        for (index, op) in entry.entry().ops.iter().enumerate() {
            match op {
                Op::Genesis { .. } => {
                    self.note_admission(&rec.device, entry)?;
                }
                Op::Admit { invite, device, proof, .. } => {
                    if !verify_admit(invite, &self.meta.drive, device, proof) {
                        self.note_unfit(rec)?;
                        continue;
                    }
                    self.note_admission(device, entry)?;
                }
                Op::Invite { .. }
                | Op::Remove { .. }
                | Op::SetRole { .. }
                | Op::Rename { .. }
                | Op::Retain(_)
                | Op::Locks(_) => {}
                _ => continue,
            }
            any = true;
            let version = VersionId::new(entry.id(), index as u32);
            self.kv.put(&key(table::MEMBER_OP, &[&version.to_bytes()]), &[])?;
            let what = What::Member(Box::new(op.clone()));
            self.put_version(&At { rec, version }, version, None, what, Vec::new())?;
        }
        Ok(any)
    }

    fn note_admission(&mut self, device: &DeviceId, by: &VerifiedEntry) -> Result<(), StateError> {
        self.kv.put(&key(table::ADMITTED, &[device.as_bytes(), by.id().as_bytes()]), &[])
    }

    pub(super) fn has_member_ops(&self, entry: &crate::id::EntryId) -> Result<bool, StateError> {
        Ok(!keys_with(self.kv, &key(table::MEMBER_OP, &[entry.as_bytes()]))?.is_empty())
    }

    /// Writes down everything else.
    pub(super) fn record_ops(
        &mut self,
        entry: &VerifiedEntry,
        rec: &EntryRec,
    ) -> Result<(), StateError> {
        for (index, op) in entry.entry().ops.iter().enumerate() {
            let at = At { rec, version: VersionId::new(entry.id(), index as u32) };
            let fits = match op {
                Op::Put { dir, name, value, bases } => {
                    self.record_put(&at, Register::new(*dir, name.clone()), value, bases)?
                }
                Op::MkDir { parent, name, dir, attr, bases } => {
                    let register = Register::new(*parent, name.clone());
                    self.record_mkdir(&at, register, *dir, attr, bases)?
                }
                Op::Move { dir, from, to, bases } => {
                    let to = Register::new(to.0, to.1.clone());
                    self.record_move(&at, *dir, *from, to, bases)?
                }
                Op::Exchange { a, b } => self.record_exchange(&at, a, b)?,
                Op::SetDir { dir, attr } => self.record_attr(&at, *dir, attr)?,
                Op::Resolve { drop, .. } => {
                    let drop = match canary::is(Canary::ResolveForgotten) {
                        true => &[][..],
                        false => drop,
                    };
                    let bases = self.seen_bases(rec, drop)?;
                    self.foreign.extend(&bases);
                    self.put_version(&at, at.version, None, What::Resolve, bases)?;
                    true
                }
                Op::Snapshot { name } => {
                    let row = key(table::SNAPSHOT, &[&at.version.to_bytes()]);
                    self.kv.put(&row, &[])?;
                    let what = What::Snapshot(name.clone());
                    self.put_version(&at, at.version, None, what, Vec::new())?;
                    true
                }
                Op::Checkout { dir, name } => {
                    let register = Register::new(*dir, name.clone());
                    self.record_lock(&at, register, LockAct::Checkout)?
                }
                Op::GiveBack { dir, name, checkout } => {
                    let register = Register::new(*dir, name.clone());
                    self.record_lock(&at, register, LockAct::GiveBack(*checkout))?
                }
                Op::Break { dir, name, checkout } => {
                    let register = Register::new(*dir, name.clone());
                    self.record_lock(&at, register, LockAct::Break(*checkout))?
                }
                _ => true,
            };
            if !fits {
                self.note_unfit(rec)?;
            }
        }
        Ok(())
    }

    /// Flags the author: it wrote something that has no effect.
    fn note_unfit(&mut self, rec: &EntryRec) -> Result<(), StateError> {
        self.kv.put(&key(table::UNFIT, &[rec.device.as_bytes()]), &[])
    }

    /// Those of `named` that exist in `rec`'s past, sorted, once each.
    pub(super) fn seen_bases(
        &self,
        rec: &EntryRec,
        named: &[VersionId],
    ) -> Result<Vec<VersionId>, StateError> {
        let mut seen = BTreeSet::new();
        for id in named {
            if let Some(entry) = load_entry(self.kv, &id.entry)?
                && sees(self.kv, rec, &entry)?
                && self.kv.get(&key(table::VERSION, &[&id.to_bytes()]))?.is_some()
            {
                seen.insert(*id);
            }
        }
        Ok(seen.into_iter().collect())
    }

    /// Keeps one version: its record, its register's list, what it replaces.
    fn put_version(
        &mut self,
        at: &At<'_>,
        version: VersionId,
        register: Option<Register>,
        what: What,
        bases: Vec<VersionId>,
    ) -> Result<VersionRec, StateError> {
        let mut away = BTreeSet::new();
        if let Some(register) = &register {
            let reg = RegKey::of(register);
            away = tree::away(&*self.kv, &reg, &bases)?;
            self.kv.put(&key(table::REG_VERSION, &[reg.as_slice(), &version.to_bytes()]), &[])?;
        }
        if matches!(what, What::Left { .. }) {
            away.insert(version);
        }
        for base in &bases {
            let row = key(table::SUPERSEDE, &[&base.to_bytes(), &version.to_bytes()]);
            self.kv.put(&row, &[])?;
        }
        if let What::File(file) = &what {
            let newest_first = (u64::MAX - at.rec.number).to_be_bytes();
            let row = key(table::CONTENT, &[&newest_first, &version.index.to_be_bytes()]);
            store(self.kv, &row, &(file.content, version.entry))?;
        }
        let rec = VersionRec {
            register,
            what,
            bases,
            author: at.rec.device,
            saved_at_ms: at.rec.saved_at_ms,
            skipped: false,
            away: away.into_iter().collect(),
        };
        store(self.kv, &key(table::VERSION, &[&version.to_bytes()]), &rec)?;
        if let Some(register) = &rec.register
            && !rec.is_gone()
            && at.rec.accepted()
        {
            self.put_inside(&register.dir, at.rec)?;
        }
        Ok(rec)
    }

    fn put_inside(&mut self, dir: &DirId, rec: &EntryRec) -> Result<(), StateError> {
        if *dir == DirId::ROOT {
            return Ok(());
        }
        let (lane, pos) = (rec.lane, rec.pos);
        let inside = self.dir_mut(dir)?;
        match inside.inside.binary_search_by_key(&lane, |(lane, _)| *lane) {
            Ok(at) => {
                if let Some(last) = inside.inside.get_mut(at) {
                    last.1 = last.1.max(pos);
                }
            }
            Err(at) => inside.inside.insert(at, (lane, pos)),
        }
        if !inside.live
            && let Some(at) = inside.at.clone()
        {
            self.dirty.insert(RegKey::of(&at));
        }
        Ok(())
    }

    fn record_put(
        &mut self,
        at: &At<'_>,
        register: Register,
        value: &Value,
        bases: &[VersionId],
    ) -> Result<bool, StateError> {
        if !self.knows_dir(at.rec, &register.dir)? {
            return Ok(false);
        }
        let bases = self.seen_bases(at.rec, bases)?;
        let reg = RegKey::of(&register);
        let rec = self.put_version(at, at.version, Some(register), what_of(value), bases)?;
        let mut own = Vec::new();
        for base in &rec.bases {
            let Some(version) = load_version(self.kv, base)? else { continue };
            if version.register.as_ref().is_some_and(|r| RegKey::of(r) == reg) {
                own.push(*base);
            } else {
                self.foreign.push(*base);
            }
        }
        if !self.replace_simple(at, &reg, &rec, &own)? {
            self.dirty.insert(reg);
            self.foreign.extend(own);
        }
        Ok(true)
    }

    /// Puts a version that plainly follows its register's one head in that head's place.
    fn replace_simple(
        &mut self,
        at: &At<'_>,
        reg: &RegKey,
        rec: &VersionRec,
        own: &[VersionId],
    ) -> Result<bool, StateError> {
        if !at.rec.accepted() || self.dirty.contains(reg) {
            return Ok(false);
        }
        let order = at.rec.order(at.version.entry);
        let old = load_register(self.kv, reg)?;
        let follows = match &old {
            None => own.is_empty(),
            Some(old) => old.simple.is_some_and(|(head, last)| *own == [head] && order > last),
        };
        let (Some(register), true) = (&rec.register, follows) else { return Ok(false) };
        if self.meta.breaks > 0
            && Cuts::new(&*self.kv)?.uncut(&at.version, &rec.author, own)? != own
        {
            return Ok(false);
        }
        let mut new = RegRec { simple: Some((at.version, order)), ..RegRec::default() };
        let kind = match &rec.what {
            What::File(_) => Some(ShownKind::File),
            What::Symlink(_) => Some(ShownKind::Symlink),
            _ => None,
        };
        match kind {
            Some(kind) => {
                let (version, merged) = (at.version, vec![at.version]);
                let shown = register.name.clone();
                new.official = Some(Shown { version, merged, kind, attrs: None, shown });
            }
            None => new.gone.push(at.version),
        }
        self.set_register(reg, old.unwrap_or_default(), new)?;
        Ok(true)
    }

    fn record_mkdir(
        &mut self,
        at: &At<'_>,
        register: Register,
        dir: DirId,
        attr: &DirAttr,
        bases: &[VersionId],
    ) -> Result<bool, StateError> {
        if !self.knows_dir(at.rec, &register.dir)? {
            return Ok(false);
        }
        let bases = self.seen_bases(at.rec, bases)?;
        let reg = RegKey::of(&register);
        let away: Vec<VersionId> = tree::away(&*self.kv, &reg, &bases)?.into_iter().collect();
        if DirId::derive(&self.meta.drive, &register.dir, &register.name, &away) != dir {
            return Ok(false);
        }
        self.foreign.extend(&bases);
        let what = What::Dir { dir, made: Some(attr.clone()) };
        self.put_version(at, at.version, Some(register.clone()), what, bases)?;
        if !self.knows_dir(at.rec, &dir)? {
            let made = &mut self.dir_mut(&dir)?.made;
            if made.len() < MADE_MAX {
                made.push(at.version);
            }
        }
        let found = self.dir_mut(&dir)?;
        if found.home.is_none() {
            found.home = Some(register.clone());
            found.at = Some(register.clone());
            self.placed(&dir, None, Some(&register))?;
        }
        self.kv.put(&key(table::DIR_ATTR, &[dir.as_bytes(), &at.version.to_bytes()]), &[])?;
        self.take_attr(at, dir, attr)?;
        self.dirty.insert(reg);
        Ok(true)
    }

    fn record_attr(&mut self, at: &At<'_>, dir: DirId, attr: &DirAttr) -> Result<bool, StateError> {
        if dir == DirId::ROOT || !self.knows_dir(at.rec, &dir)? {
            return Ok(false);
        }
        let what = What::SetDir { dir, attr: attr.clone() };
        self.put_version(at, at.version, None, what, Vec::new())?;
        self.kv.put(&key(table::DIR_ATTR, &[dir.as_bytes(), &at.version.to_bytes()]), &[])?;
        self.take_attr(at, dir, attr)?;
        Ok(true)
    }

    /// Makes `attr` the directory's attributes when it is the latest.
    fn take_attr(&mut self, at: &At<'_>, dir: DirId, attr: &DirAttr) -> Result<(), StateError> {
        if !at.rec.accepted() {
            return Ok(());
        }
        let last = match self.dir(&dir)?.attr_by {
            Some(last) => self.key_of(&last)?,
            None => None,
        };
        let newer = |last: Vec<u8>| (last < at.key()) != canary::is(Canary::OldestAttributes);
        if last.is_none_or(newer) {
            let rec = self.dir_mut(&dir)?;
            rec.attr = attr.clone();
            rec.attr_by = Some(at.version);
            self.dirty_dirs.insert(dir);
        }
        Ok(())
    }

    /// The register that `from` placed `dir` in, when it is such a placement in `rec`'s past.
    fn placement(
        &self,
        rec: &EntryRec,
        from: VersionId,
        dir: DirId,
    ) -> Result<Option<Register>, StateError> {
        if self.seen_bases(rec, &[from])?.is_empty() {
            return Ok(None);
        }
        let Some(found) = load_version(self.kv, &from)? else { return Ok(None) };
        let placed = matches!(found.what, What::Dir { dir: other, .. } if other == dir);
        Ok(found.register.filter(|_| placed))
    }

    fn record_move(
        &mut self,
        at: &At<'_>,
        dir: DirId,
        from: VersionId,
        to: Register,
        bases: &[VersionId],
    ) -> Result<bool, StateError> {
        let Some(source) = self.placement(at.rec, from, dir)? else { return Ok(false) };
        if !self.knows_dir(at.rec, &dir)? || !self.knows_dir(at.rec, &to.dir)? {
            return Ok(false);
        }
        let mut named = bases.to_vec();
        let stays = RegKey::of(&source) == RegKey::of(&to);
        if stays {
            // A directory that carries a suffix is given its plain name: it leaves no name behind.
            named.push(from);
        }
        let bases = self.seen_bases(at.rec, &named)?;
        self.foreign.extend(&bases);
        let what = What::Dir { dir, made: None };
        self.put_version(at, at.version, Some(to.clone()), what, bases)?;
        if !stays {
            let what = What::Left { dir, to: to.clone() };
            self.put_version(at, at.version.second(), Some(source.clone()), what, vec![from])?;
        }
        let part = MovePart { dir, from, source, to, version: at.version };
        self.enter_move(at, vec![part])?;
        Ok(true)
    }

    fn enter_move(&mut self, at: &At<'_>, parts: Vec<MovePart>) -> Result<(), StateError> {
        let row = MoveRow { version: at.version, parts, applied: false, undo: Vec::new() };
        self.keep_move(&row)?;
        if at.rec.accepted() {
            self.replay_moves(&[], vec![(at.key(), row)], None)?;
        }
        Ok(())
    }

    fn record_exchange(
        &mut self,
        at: &At<'_>,
        a: &ExchangeSide,
        b: &ExchangeSide,
    ) -> Result<bool, StateError> {
        let here = Register::new(a.dir, a.name.clone());
        let there = Register::new(b.dir, b.name.clone());
        let distinct = RegKey::of(&here) != RegKey::of(&there);
        if !distinct || !self.knows_dir(at.rec, &a.dir)? || !self.knows_dir(at.rec, &b.dir)? {
            return Ok(false);
        }
        let sides = [(a, &here, &there, b, at.version), (b, &there, &here, a, at.version.second())];
        let mut parts = Vec::new();
        for (side, to, source, _, version) in sides {
            if let Arrival::Dir { dir, from } = side.comes {
                let found = self.placement(at.rec, from, dir)?;
                let fits = found.is_some_and(|r| RegKey::of(&r) == RegKey::of(source));
                if !fits || !self.knows_dir(at.rec, &dir)? {
                    return Ok(false);
                }
                let (source, to) = (source.clone(), to.clone());
                parts.push(MovePart { dir, from, source, to, version });
            }
        }
        for (side, to, _, other, version) in sides {
            let mut named = side.bases.clone();
            if let Arrival::Dir { from, .. } = other.comes {
                named.push(from);
            }
            let bases = self.seen_bases(at.rec, &named)?;
            self.foreign.extend(&bases);
            let what = match &side.comes {
                Arrival::Value(value) => what_of(value),
                Arrival::Dir { dir, .. } => What::Dir { dir: *dir, made: None },
            };
            let mut rec = self.put_version(at, version, Some(to.clone()), what, bases)?;
            if matches!(other.comes, Arrival::Dir { .. }) {
                rec.away.push(version);
                rec.away.sort_unstable();
                store(self.kv, &key(table::VERSION, &[&version.to_bytes()]), &rec)?;
            }
            self.dirty.insert(RegKey::of(to));
        }
        if !parts.is_empty() {
            self.enter_move(at, parts)?;
        }
        Ok(true)
    }
}
