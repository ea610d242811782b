//! Checkouts: each register's operations in order, and what follows when one comes to stand otherwise.
//!
//! Leaves out: what they mean together ([`crate::lock`]).
//!
//! Invariants:
//! - a row of the log says what was held before it, so one that comes last costs the same however long the log is, and a
//!   late one costs what comes after it;
//! - when a break takes effect, or does no more, everything is derived again that depends on work that had not seen it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::record::At;
use crate::chain::sees;
use crate::error::StateError;
use crate::fold::Fold;
use crate::id::{DeviceId, VersionId};
use crate::kv::{keys_with, prefix_end};
use crate::lock::{Broke, Held, LockAct, Step};
use crate::name::Register;
use crate::records::{
    EntryRec, LockRow, RegKey, VersionRec, What, decode, key, load, load_broken, load_entry,
    load_held, load_version, op_key, store, table, version_at_end,
};

type Row = (Vec<u8>, LockRow);

impl Fold<'_> {
    /// Writes down an operation on the checkout of `register`; whether it fits its own past.
    pub(super) fn record_lock(
        &mut self,
        at: &At<'_>,
        register: Register,
        act: LockAct,
    ) -> Result<bool, StateError> {
        if !self.knows_dir(at.rec, &register.dir)? {
            return Ok(false);
        }
        let reg = RegKey::of(&register);
        if let Some(checkout) = act.ends() {
            if self.seen_bases(at.rec, &[checkout])?.is_empty() {
                return Ok(false);
            }
            let found = load_version(self.kv, &checkout)?;
            let named = found.as_ref().is_some_and(|found| match &found.what {
                What::Lock { register, act } => {
                    *act == LockAct::Checkout && RegKey::of(register) == reg
                }
                _ => false,
            });
            let own = found.is_some_and(|found| found.author == at.rec.device);
            if !named || (matches!(act, LockAct::GiveBack(_)) && !own) {
                return Ok(false);
            }
        }
        let rec = VersionRec {
            register: None,
            what: What::Lock { register, act },
            bases: Vec::new(),
            author: at.rec.device,
            saved_at_ms: at.rec.saved_at_ms,
            skipped: false,
            away: Vec::new(),
        };
        store(self.kv, &key(table::VERSION, &[&at.version.to_bytes()]), &rec)?;
        self.kv.put(&key(table::LOCK_OF, &[at.rec.device.as_bytes(), reg.as_slice()]), &[])?;
        if matches!(act, LockAct::Break(_)) {
            self.kv.put(&key(table::BREAK, &[reg.as_slice()]), &[])?;
            self.meta.breaks += 1;
        }
        self.enter_lock(reg, at.key(), at.version)?;
        Ok(true)
    }

    fn enter_lock(
        &mut self,
        reg: RegKey,
        at: Vec<u8>,
        version: VersionId,
    ) -> Result<(), StateError> {
        store(self.kv, &key(table::LOCK_OP, &[reg.as_slice(), &at]), &LockRow::default())?;
        store(self.kv, &key(table::LOCK_AT, &[&version.to_bytes()]), &at)?;
        self.replay_locks_from(reg, at);
        Ok(())
    }

    /// Notes that the operations on `reg`'s checkout from `at` on are to be replayed.
    fn replay_locks_from(&mut self, reg: RegKey, at: Vec<u8>) {
        let from = self.locks.entry(reg).or_insert_with(|| at.clone());
        *from = at.min(std::mem::take(from));
    }

    /// The same for every register that `device` had to do with, from the beginning: what it may do has changed.
    pub(super) fn replay_locks_of(&mut self, device: &DeviceId) -> Result<(), StateError> {
        let prefix = key(table::LOCK_OF, &[device.as_bytes()]);
        for row in keys_with(self.kv, &prefix)? {
            let reg = RegKey::from_slice(row.get(prefix.len()..).unwrap_or_default());
            self.replay_locks_from(reg, Vec::new());
        }
        Ok(())
    }

    /// Gives an operation the place that its entry has by now.
    pub(super) fn move_lock(
        &mut self,
        version: &VersionId,
        register: &Register,
        rec: &EntryRec,
    ) -> Result<(), StateError> {
        let now = op_key(&rec.order(version.entry), version.index);
        let was: Option<Vec<u8>> = load(self.kv, &key(table::LOCK_AT, &[&version.to_bytes()]))?;
        let Some(was) = was.filter(|was| *was != now) else { return Ok(()) };
        let reg = RegKey::of(register);
        let row = key(table::LOCK_OP, &[reg.as_slice(), &was]);
        if let Some(old) = load::<LockRow>(self.kv, &row)? {
            store(self.kv, &row, &LockRow { moved: true, ..old })?;
        }
        self.replay_locks_from(reg.clone(), was);
        self.enter_lock(reg, now, *version)
    }

    /// Replays what was noted, and notes what depends on it.
    pub(super) fn settle_locks(&mut self) -> Result<(), StateError> {
        while let Some((reg, from)) = self.locks.pop_first() {
            self.replay_locks(&reg, &from)?;
        }
        Ok(())
    }

    fn replay_locks(&mut self, reg: &RegKey, from: &[u8]) -> Result<(), StateError> {
        let rows = self.lock_rows(reg, from)?;
        let was = load_held(self.kv, reg)?;
        // Rows before the first old one have not had any effect yet.
        let mut held = rows.iter().find_map(|(_, row)| row.before).unwrap_or(was);
        let fresh = |row: &LockRow| row.moved || row.before.is_none();
        let mut open = rows.iter().filter(|(_, row)| fresh(row)).count();
        let (mut broken, mut judged, mut name) = (Vec::new(), BTreeSet::new(), None);
        let mut same_from_here = false;
        for (at, row) in rows {
            // Only a change of somebody's standing is replayed from the beginning: it may matter anywhere.
            if open == 0 && !from.is_empty() && row.before == Some(held) {
                same_from_here = true;
                break;
            }
            open -= usize::from(fresh(&row));
            let row_key = key(table::LOCK_OP, &[reg.as_slice(), &at]);
            let version = version_at_end(&row_key)?;
            if row.moved {
                judged.insert(version);
                self.kv.delete(&row_key)?;
                continue;
            }
            let Some(step) = Step::load(&*self.kv, version)? else { continue };
            if row.before != Some(held) {
                store(self.kv, &row_key, &LockRow { before: Some(held), moved: false })?;
            }
            if step.is_break() {
                judged.insert(version);
            }
            broken.extend(step.take(&*self.kv, &self.members, &mut held)?);
            name = Some(step.register);
        }
        if !same_from_here {
            self.set_held(reg, name, was, held)?;
        }
        match judged.is_empty() {
            true => Ok(()),
            false => self.set_broken(reg, &judged, broken),
        }
    }

    fn lock_rows(&self, reg: &RegKey, from: &[u8]) -> Result<Vec<Row>, StateError> {
        let prefix = key(table::LOCK_OP, &[reg.as_slice()]);
        let mut rows = Vec::new();
        let from = [prefix.as_slice(), from].concat();
        self.kv.scan(&from, &prefix_end(&prefix), &mut |row, value| {
            let at = row.get(prefix.len()..).unwrap_or_default().to_vec();
            rows.push((at, decode(row, value)?));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(rows)
    }

    fn set_held(
        &mut self,
        reg: &RegKey,
        name: Option<Register>,
        was: Option<Held>,
        now: Option<Held>,
    ) -> Result<(), StateError> {
        if was == now {
            return Ok(());
        }
        let row = key(table::HELD, &[reg.as_slice()]);
        match &now {
            Some(held) => store(self.kv, &row, held)?,
            None => self.kv.delete(&row)?,
        }
        let holds =
            |held: Option<Held>| held.filter(|held| held.until.is_none()).map(|held| held.checkout);
        if holds(was) != holds(now)
            && let Some(name) = name
        {
            self.changed.insert(reg.clone(), name);
        }
        Ok(())
    }

    /// Of the breaks `judged` now just `broken` have an effect.
    fn set_broken(
        &mut self,
        reg: &RegKey,
        judged: &BTreeSet<VersionId>,
        broken: Vec<Broke>,
    ) -> Result<(), StateError> {
        let was = load_broken(self.kv, reg)?;
        let mut now: Vec<Broke> =
            was.iter().filter(|broke| !judged.contains(&broke.by)).copied().collect();
        now.extend(broken);
        now.sort_by_key(|broke| broke.at);
        if now == was {
            return Ok(());
        }
        let row = key(table::BROKEN, &[reg.as_slice()]);
        match now.is_empty() {
            true => self.kv.delete(&row)?,
            false => store(self.kv, &row, &now)?,
        }
        let turned: Vec<Broke> = (was.iter().filter(|broke| !now.contains(broke)))
            .chain(now.iter().filter(|broke| !was.contains(broke)))
            .copied()
            .collect();
        self.touch_unseeing(reg, &turned)
    }

    /// Marks all that depends on which versions of `reg` the work replaces that had not seen one of these breaks.
    fn touch_unseeing(&mut self, reg: &RegKey, breaks: &[Broke]) -> Result<(), StateError> {
        self.dirty.insert(reg.clone());
        let mut passed = BTreeSet::new();
        for row in keys_with(self.kv, &key(table::REG_VERSION, &[reg.as_slice()]))? {
            let base = version_at_end(&row)?;
            for by in self.named_by(&base)? {
                let Some(rec) = load_version(self.kv, &by)? else { continue };
                let Some(entry) = load_entry(self.kv, &by.entry)? else { continue };
                let mut unseen = false;
                for broke in breaks.iter().filter(|broke| broke.whom == rec.author) {
                    let Some(broke) = load_entry(self.kv, &broke.by.entry)? else { continue };
                    unseen = unseen || !sees(self.kv, &entry, &broke)?;
                }
                if unseen {
                    self.touch_replacing(&by, &base, &mut passed)?;
                }
            }
        }
        Ok(())
    }

    /// The same for the bases and the superseders of one version whose place in the order has changed.
    pub(super) fn touch_cuts(
        &mut self,
        version: &VersionId,
        rec: &VersionRec,
    ) -> Result<(), StateError> {
        if self.meta.breaks == 0 {
            return Ok(());
        }
        let mut passed = BTreeSet::new();
        for base in &rec.bases {
            let Some(below) = load_version(self.kv, base)? else { continue };
            if self.has_broken(&below.register, &rec.author)? {
                self.touch_replacing(version, base, &mut passed)?;
            }
        }
        if self.has_broken(&rec.register, &rec.author)? {
            for by in self.named_by(version)? {
                self.touch_replacing(&by, version, &mut passed)?;
            }
        }
        Ok(())
    }

    fn has_broken(&self, register: &Option<Register>, whom: &DeviceId) -> Result<bool, StateError> {
        let Some(register) = register else { return Ok(false) };
        let broken = load_broken(self.kv, &RegKey::of(register))?;
        Ok(broken.iter().any(|broke| broke.whom == *whom))
    }

    /// Versions that name `base` as a base.
    fn named_by(&self, base: &VersionId) -> Result<Vec<VersionId>, StateError> {
        let rows = keys_with(self.kv, &key(table::SUPERSEDE, &[&base.to_bytes()]))?;
        rows.iter().map(|row| version_at_end(row)).collect()
    }

    /// Marks what depends on whether `version` replaces `base`: the register of the base, and of all that builds on the
    /// version.
    fn touch_replacing(
        &mut self,
        version: &VersionId,
        base: &VersionId,
        passed: &mut BTreeSet<VersionId>,
    ) -> Result<(), StateError> {
        self.touch_ancestors(base)?;
        let mut queue = vec![*version];
        while let Some(id) = queue.pop() {
            if !passed.insert(id) {
                continue;
            }
            if let Some(register) = load_version(self.kv, &id)?.and_then(|rec| rec.register) {
                self.dirty.insert(RegKey::of(&register));
            }
            queue.extend(self.named_by(&id)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
