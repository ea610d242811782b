//! What was already applied and comes to stand otherwise: late work, changed standing.
//!
//! Leaves out: when a device calls its work late ([`crate::journal`]).
//!
//! Invariants:
//! - an entry's place in the order is a function of the own entries that name it late and may ([`Members::may_date`]),
//!   whichever of them arrived first;
//! - only registers, moves and attributes that the affected entries wrote are looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use crate::chain::{entry_at, lanes_of, load_lane};
use crate::error::StateError;
use crate::fold::Fold;
use crate::hlc::Hlc;
use crate::id::{DeviceId, DirId, EntryId, VersionId};
use crate::kv::{KvRead, keys_with, prefix_end};
use crate::member::Members;
use crate::name::Register;
use crate::op::{DirAttr, Op, Role};
use crate::order::OrderKey;
use crate::records::{
    EntryRec, LateRun, MoveRow, RegKey, VersionRec, What, corrupt, decode, key, lane_pos, load,
    load_entry, load_register, load_version, op_key, store, table, version_at_end,
};

/// Most entries one late start reaches back; more a device never wrote without a soul hearing.
const LATE_REACH_MAX: usize = 1 << 20;

/// A version of an entry that is looked at again.
type Row = (VersionId, VersionRec);

impl Fold<'_> {
    /// Makes the own entries from `start` up to `by` late; gives those whose place changed.
    pub(super) fn make_late(
        &mut self,
        start: &EntryId,
        by: &EntryRec,
    ) -> Result<Vec<EntryId>, StateError> {
        let (mut chain, mut at) = (Vec::new(), by.prev);
        loop {
            let Some(id) = at.filter(|_| chain.len() < LATE_REACH_MAX) else {
                return Ok(Vec::new());
            };
            let Some(rec) = load_entry(self.kv, &id)? else { return Ok(Vec::new()) };
            at = rec.prev;
            chain.push((id, rec));
            if id == *start {
                break;
            }
        }
        self.note_late(&chain, by)?;
        let mut moved = Vec::new();
        for (id, mut rec) in chain {
            let moves = rec.late.is_none_or(|late| by.hlc < late)
                && self.members.may_date(self.kv, by, &rec)?;
            if moves {
                rec.late = Some(by.hlc);
                moved.push(id);
            }
            if moves || !rec.named {
                rec.named = true;
                store(self.kv, &key(table::ENTRY, &[id.as_bytes()]), &rec)?;
            }
        }
        Ok(moved)
    }

    /// Keeps which entries `by` names late, so that a moment before `by` can leave it out.
    fn note_late(
        &mut self,
        chain: &[(EntryId, EntryRec)],
        by: &EntryRec,
    ) -> Result<(), StateError> {
        let mut runs: Vec<LateRun> = Vec::new();
        for (_, rec) in chain {
            match runs.last_mut() {
                Some(run) if run.lane == rec.lane => run.first = rec.pos,
                _ => runs.push(LateRun { lane: rec.lane, first: rec.pos, last: rec.pos }),
            }
        }
        let hlc = by.hlc.get().to_be_bytes();
        let parts = [by.device.as_bytes().as_slice(), &hlc, &lane_pos(by.lane, by.pos)];
        store(self.kv, &key(table::LATE, &parts), &runs)
    }

    fn versions_of(&self, entry: &EntryId) -> Result<Vec<Row>, StateError> {
        let mut out = Vec::new();
        let from = key(table::VERSION, &[entry.as_bytes()]);
        self.kv.scan(&from, &prefix_end(&from), &mut |k, value| {
            out.push((version_at_end(k)?, decode(k, value)?));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(out)
    }

    /// Keeps a move as it was written, so that it can enter the log when its author is accepted.
    pub(super) fn keep_move(&mut self, row: &MoveRow) -> Result<(), StateError> {
        store(self.kv, &key(table::MOVE_KEPT, &[&row.version.to_bytes()]), row)
    }

    /// Looks again at all that entries wrote whose place in the order changed.
    pub(super) fn touch_entries(&mut self, moved: &BTreeSet<EntryId>) -> Result<(), StateError> {
        let (mut removed, mut inserted, mut first) = (Vec::new(), Vec::new(), None);
        for id in moved {
            let Some(rec) = load_entry(self.kv, id)? else { continue };
            // Nothing before the entry's own time can depend on where it stands.
            let earliest = OrderKey { published: rec.hlc, ..rec.order(*id) };
            for (version, row) in self.versions_of(id)? {
                if let Some(register) = &row.register {
                    self.dirty.insert(RegKey::of(register));
                }
                if let What::Dir { made: Some(_), .. } = row.what {
                    first = first.into_iter().chain([op_key(&earliest, 0)]).min();
                }
                self.touch_attr(&row)?;
                self.touch_cuts(&version, &row)?;
                match &row.what {
                    What::Lock { register, .. } => self.move_lock(&version, register, &rec)?,
                    What::Member(op) => {
                        if let Op::Remove { device, .. } | Op::SetRole { device, .. } = &**op {
                            self.replay_locks_of(device)?;
                        }
                    }
                    _ => {}
                }
                let at = key(table::MOVE_AT, &[&version.to_bytes()]);
                if let Some(old) = load::<Vec<u8>>(self.kv, &at)?
                    && let Some(kept) = self.kept_move(&version)?
                {
                    removed.push(old);
                    inserted.push((op_key(&rec.order(*id), version.index), kept));
                }
            }
        }
        self.replay_moves(&removed, inserted, first)
    }

    fn kept_move(&self, version: &VersionId) -> Result<Option<MoveRow>, StateError> {
        load(self.kv, &key(table::MOVE_KEPT, &[&version.to_bytes()]))
    }

    fn touch_attr(&mut self, rec: &VersionRec) -> Result<(), StateError> {
        match &rec.what {
            What::SetDir { dir, .. } | What::Dir { dir, made: Some(_) } => self.choose_attr(*dir),
            _ => Ok(()),
        }
    }

    /// Chooses a directory's attributes among all that were set.
    fn choose_attr(&mut self, dir: DirId) -> Result<(), StateError> {
        let (by, attr) = chosen_attr(self.kv, &dir)?.unzip();
        let rec = self.dir_mut(&dir)?;
        rec.attr_by = by;
        rec.attr = attr.unwrap_or_default();
        self.dirty_dirs.insert(dir);
        Ok(())
    }

    /// Folds the members anew and carries what that changes into the tree.
    ///
    /// Adds the entries whose place in the order changed.
    pub(super) fn refold_members(
        &mut self,
        moved: &mut BTreeSet<EntryId>,
    ) -> Result<(), StateError> {
        let new = Members::fold(self.kv)?;
        if new == self.members {
            return Ok(());
        }
        let users = |m: &Members| -> BTreeMap<DeviceId, String> {
            m.list.iter().map(|m| (m.device, m.user.clone())).collect()
        };
        let standings = |m: &Members| -> BTreeMap<DeviceId, _> {
            m.list.iter().map(|m| (m.device, (m.base, m.changes.clone()))).collect()
        };
        let (old_users, new_users) = (users(&self.members), users(&new));
        if old_users.iter().any(|(device, user)| new_users.get(device) != Some(user)) {
            self.forget_copies()?;
        }
        let (old, now) = (standings(&self.members), standings(&new));
        self.members = new;
        store(self.kv, &[table::MEMBERS], &self.members)?;
        let devices: BTreeSet<DeviceId> = old.keys().chain(now.keys()).copied().collect();
        let mut turned = Vec::new();
        for device in devices.iter().filter(|d| old.get(*d) != now.get(*d)) {
            self.restand(device, &mut turned, moved)?;
            self.replay_locks_of(device)?;
        }
        self.turn(&turned)
    }

    /// Takes the copies out of all registers that have some, to be named anew.
    fn forget_copies(&mut self) -> Result<(), StateError> {
        for row in keys_with(self.kv, &[table::CONFLICT])? {
            let reg = RegKey::from_slice(row.get(1..).unwrap_or_default());
            let Some(old) = load_register(self.kv, &reg)? else { continue };
            let mut bare = old.clone();
            bare.copies.clear();
            self.set_register(&reg, old, bare)?;
            self.dirty.insert(reg);
        }
        Ok(())
    }

    /// Judges all entries of `device` again; adds those whose tree operations turned, and those whose place changed.
    fn restand(
        &mut self,
        device: &DeviceId,
        turned: &mut Vec<EntryId>,
        moved: &mut BTreeSet<EntryId>,
    ) -> Result<(), StateError> {
        let namings = namings(self.kv, device)?;
        for lane in lanes_of(self.kv, device)? {
            let len = load_lane(self.kv, lane)?.map_or(0, |lane| lane.len);
            for pos in 0..len {
                let Some(id) = entry_at(self.kv, lane, pos)? else { continue };
                let Some(mut rec) = load_entry(self.kv, &id)? else { continue };
                let standing = self.members.standing(self.kv, &rec)?;
                let late = first_naming(self.kv, &self.members, &namings, &rec)?;
                if standing == rec.standing && late == rec.late {
                    continue;
                }
                if late != rec.late {
                    moved.insert(id);
                    rec.late = late;
                }
                let before = rec.accepted();
                self.stand(&mut rec, standing)?;
                store(self.kv, &key(table::ENTRY, &[id.as_bytes()]), &rec)?;
                if rec.accepted() != before {
                    turned.push(id);
                }
            }
        }
        Ok(())
    }

    /// Gives `rec` its standing and counts what its author had no right to.
    pub(super) fn stand(
        &mut self,
        rec: &mut EntryRec,
        standing: Option<Role>,
    ) -> Result<(), StateError> {
        let before = rec.is_beyond();
        rec.standing = standing;
        if rec.is_beyond() != before {
            let at = key(table::BEYOND, &[rec.device.as_bytes()]);
            let count: u64 = load(self.kv, &at)?.unwrap_or_default();
            let count = if before { count.saturating_sub(1) } else { count + 1 };
            store(self.kv, &at, &count)?;
        }
        Ok(())
    }

    /// Carries into the tree that the operations of `entries` count now, or no more.
    fn turn(&mut self, entries: &[EntryId]) -> Result<(), StateError> {
        let (mut removed, mut inserted, mut dirs) = (Vec::new(), Vec::new(), BTreeSet::new());
        for id in entries {
            let Some(rec) = load_entry(self.kv, id)? else { continue };
            for (version, row) in self.versions_of(id)? {
                self.touch_version(&row)?;
                self.touch_attr(&row)?;
                if let Some(Register { dir, .. }) = row.register {
                    dirs.insert(dir);
                }
                let at = load::<Vec<u8>>(self.kv, &key(table::MOVE_AT, &[&version.to_bytes()]))?;
                match (rec.accepted(), at, self.kept_move(&version)?) {
                    (true, None, Some(kept)) => {
                        inserted.push((op_key(&rec.order(*id), version.index), kept));
                    }
                    (false, Some(at), _) => removed.push(at),
                    _ => {}
                }
            }
        }
        for dir in dirs {
            self.recount_inside(&dir)?;
        }
        self.replay_moves(&removed, inserted, None)
    }

    /// Finds again which entries put something inside `dir`.
    fn recount_inside(&mut self, dir: &DirId) -> Result<(), StateError> {
        if *dir == DirId::ROOT {
            return Ok(());
        }
        let inside = put_inside(self.kv, dir)?;
        let rec = self.dir_mut(dir)?;
        rec.inside = inside;
        if let Some(at) = rec.at.clone() {
            self.dirty.insert(RegKey::of(&at));
        }
        Ok(())
    }
}

/// An entry that names others of its device late, and which.
pub(crate) struct Naming {
    pub(crate) by: EntryRec,
    pub(crate) runs: Vec<LateRun>,
}

/// What entries of `device` name late, by their logical time.
pub(crate) fn namings(
    kv: &(impl KvRead + ?Sized),
    device: &DeviceId,
) -> Result<Vec<Naming>, StateError> {
    let (prefix, mut rows) = (key(table::LATE, &[device.as_bytes()]), Vec::new());
    kv.scan(&prefix, &prefix_end(&prefix), &mut |row, value| {
        let place = row.last_chunk::<8>().ok_or_else(|| corrupt(row))?;
        let [lane, pos] = [&place[..4], &place[4..]]
            .map(|part| part.iter().fold(0, |n: u32, byte| (n << 8) | u32::from(*byte)));
        rows.push((lane, pos, decode::<Vec<LateRun>>(row, value)?));
        Ok(ControlFlow::Continue(()))
    })?;
    let mut out = Vec::new();
    for (lane, pos, runs) in rows {
        let Some(id) = entry_at(kv, lane, pos)? else { continue };
        if let Some(by) = load_entry(kv, &id)? {
            out.push(Naming { by, runs });
        }
    }
    Ok(out)
}

/// Hlc of the first of these that names `rec` late and may.
pub(crate) fn first_naming(
    kv: &(impl KvRead + ?Sized),
    members: &Members,
    namings: &[Naming],
    rec: &EntryRec,
) -> Result<Option<Hlc>, StateError> {
    if !rec.named {
        return Ok(None);
    }
    for Naming { by, runs } in namings {
        let names =
            |run: &LateRun| run.lane == rec.lane && (run.first..=run.last).contains(&rec.pos);
        if runs.iter().any(names) && members.may_date(kv, by, rec)? {
            return Ok(Some(by.hlc));
        }
    }
    Ok(None)
}

/// The attributes of `dir` among all that were set: the latest.
pub(crate) fn chosen_attr(
    kv: &(impl KvRead + ?Sized),
    dir: &DirId,
) -> Result<Option<(VersionId, DirAttr)>, StateError> {
    let mut best: Option<(Vec<u8>, VersionId, DirAttr)> = None;
    for row in keys_with(kv, &key(table::DIR_ATTR, &[dir.as_bytes()]))? {
        let version = version_at_end(&row)?;
        let Some(entry) = load_entry(kv, &version.entry)? else { continue };
        let Some(rec) = load_version(kv, &version)? else { continue };
        let (What::SetDir { attr, .. } | What::Dir { made: Some(attr), .. }) = rec.what else {
            continue;
        };
        let at = op_key(&entry.order(version.entry), version.index);
        if entry.accepted() && best.as_ref().is_none_or(|(last, ..)| *last < at) {
            best = Some((at, version, attr));
        }
    }
    Ok(best.map(|(_, by, attr)| (by, attr)))
}

/// Last position per lane of accepted entries that put something inside `dir`.
pub(crate) fn put_inside(
    kv: &(impl KvRead + ?Sized),
    dir: &DirId,
) -> Result<Vec<(u32, u32)>, StateError> {
    let mut inside: BTreeMap<u32, u32> = BTreeMap::new();
    for row in keys_with(kv, &key(table::REG_VERSION, &[dir.as_bytes()]))? {
        let version = version_at_end(&row)?;
        let Some(entry) = load_entry(kv, &version.entry)? else { continue };
        let gone = load_version(kv, &version)?.is_none_or(|rec| rec.is_gone());
        if entry.accepted() && !gone {
            let last = inside.entry(entry.lane).or_insert(entry.pos);
            *last = entry.pos.max(*last);
        }
    }
    Ok(inside.into_iter().collect())
}
