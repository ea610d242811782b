//! Where directories stand: the log of moves, replayed in order-key order.
//!
//! Leaves out: whether a directory still exists ([`crate::register`]); a removed one keeps its place,
//! so that the check for cycles never depends on removals.
//!
//! Invariants:
//! - a directory stands at its home (what its id is derived from) until a move applies;
//! - a move applies only if `from` is still the directory's placement and no cycle closes; otherwise
//!   it is skipped whole, kept, and judged anew when an earlier move arrives;
//! - a late move undoes and redoes only the moves after it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use crate::canary::{self, Canary};
use crate::error::StateError;
use crate::fold::Fold;
use crate::id::{DirId, EntryId, VersionId};
use crate::kv::{KvRead, prefix_end};
use crate::name::Register;
use crate::order::OrderKey;
use crate::records::{
    MovePart, MoveRow, RegKey, What, decode, key, load_entry, load_version, op_key, store, table,
};

/// The version whose key in the order `key` is; its second side has the same key.
fn version_of(key: &[u8]) -> Option<VersionId> {
    let tail = key.get(OrderKey::LEN - 32..)?;
    let (entry, index) = tail.split_first_chunk::<32>()?;
    let index = u32::from_be_bytes(index.try_into().ok()?);
    Some(VersionId::new(EntryId::from_bytes(*entry), index))
}

/// Where one directory stands, and the key of the move that put it there.
#[derive(Clone, Default)]
pub(crate) struct Stand {
    pub(crate) place: Option<Vec<u8>>,
    pub(crate) at: Option<Register>,
}

/// Where all directories stand at one point of a replay.
pub(crate) trait Places {
    /// What the rules may know.
    fn facts(&self) -> &dyn KvRead;

    fn stand(&mut self, dir: &DirId) -> Result<Stand, StateError>;

    fn set_stand(&mut self, dir: &DirId, stand: Stand) -> Result<(), StateError>;
}

fn undo(places: &mut impl Places, row: &MoveRow) -> Result<(), StateError> {
    if !row.applied || canary::is(Canary::UndoForgotten) {
        return Ok(());
    }
    for (part, (place, at)) in row.parts.iter().zip(&row.undo).rev() {
        places.set_stand(&part.dir, Stand { place: place.clone(), at: at.clone() })?;
    }
    Ok(())
}

/// Lets one move take effect, if it may.
pub(crate) fn redo(
    places: &mut impl Places,
    at: &[u8],
    row: &mut MoveRow,
) -> Result<(), StateError> {
    row.applied = false;
    row.undo.clear();
    for part in &row.parts {
        if !is_current(places, part, at)? {
            return Ok(());
        }
    }
    for part in &row.parts {
        let before = places.stand(&part.dir)?;
        row.undo.push((before.place, before.at));
        let now = Stand { place: Some(at.to_vec()), at: Some(part.to.clone()) };
        places.set_stand(&part.dir, now)?;
    }
    row.applied = true;
    for part in &row.parts {
        if is_below_itself(places, part)? {
            undo(places, row)?;
            row.applied = false;
            row.undo.clear();
            return Ok(());
        }
    }
    Ok(())
}

/// Whether `part.from` is the placement its directory has at this point of the replay.
///
/// A directory that was removed and made again where it stands has several makings there; any
/// of them since it came to stand there is its placement.
fn is_current(places: &mut impl Places, part: &MovePart, at: &[u8]) -> Result<bool, StateError> {
    let Some(entry) = load_entry(places.facts(), &part.from.entry)? else { return Ok(false) };
    let Some(from) = load_version(places.facts(), &part.from)? else { return Ok(false) };
    let from_key = op_key(&entry.order(part.from.entry), part.from.index);
    let stand = places.stand(&part.dir)?;
    let here = stand.at.as_ref().is_some_and(|at| RegKey::of(at) == RegKey::of(&part.source));
    if canary::is(Canary::MoveFromAnywhere) {
        return Ok(true);
    }
    if !here || from_key.as_slice() >= at {
        return Ok(false);
    }
    let made = matches!(from.what, What::Dir { made: Some(_), .. });
    Ok(match &stand.place {
        None => made,
        Some(place) => {
            let same = version_of(place).is_some_and(|last| {
                last.entry == part.from.entry && last.index == part.from.index & !VersionId::SECOND
            });
            same || (made && from_key > *place)
        }
    })
}

fn is_below_itself(places: &mut impl Places, part: &MovePart) -> Result<bool, StateError> {
    if canary::is(Canary::CycleAllowed) {
        return Ok(false);
    }
    let (mut at, mut passed) = (part.to.dir, BTreeSet::new());
    while at != DirId::ROOT {
        if at == part.dir || !passed.insert(at) {
            return Ok(true);
        }
        match places.stand(&at)?.at {
            Some(register) => at = register.dir,
            None => break,
        }
    }
    Ok(false)
}

impl Places for Fold<'_> {
    fn facts(&self) -> &dyn KvRead {
        &*self.kv
    }

    fn stand(&mut self, dir: &DirId) -> Result<Stand, StateError> {
        let dir = self.dir(dir)?;
        Ok(Stand { place: dir.place.clone(), at: dir.at.clone() })
    }

    fn set_stand(&mut self, dir: &DirId, stand: Stand) -> Result<(), StateError> {
        let dir = self.dir_mut(dir)?;
        dir.place = stand.place;
        dir.at = stand.at;
        Ok(())
    }
}

impl Fold<'_> {
    /// Takes the rows under `removed` out of the log, puts `inserted` in, and replays what follows,
    /// from `first` on if that is earlier.
    pub(crate) fn replay_moves(
        &mut self,
        removed: &[Vec<u8>],
        inserted: Vec<(Vec<u8>, MoveRow)>,
        first: Option<Vec<u8>>,
    ) -> Result<(), StateError> {
        let keys = removed.iter().chain(inserted.iter().map(|(key, _)| key)).chain(&first);
        let Some(first) = keys.min() else { return Ok(()) };
        let mut rows = self.moves_from(first)?;
        let mut before: BTreeMap<DirId, Option<Register>> = BTreeMap::new();
        for row in rows.values().chain(inserted.iter().map(|(_, row)| row)) {
            for part in &row.parts {
                let at = self.dir(&part.dir)?.at.clone();
                before.insert(part.dir, at);
            }
        }
        for row in rows.values().rev() {
            undo(self, row)?;
        }
        let was: BTreeSet<VersionId> =
            rows.values().filter(|row| row.applied).map(|row| row.version).collect();
        let mut judged: BTreeSet<VersionId> = rows.values().map(|row| row.version).collect();
        for at in removed {
            if let Some(row) = rows.remove(at) {
                judged.remove(&row.version);
                self.kv.delete(&key(table::MOVE, &[at]))?;
                self.kv.delete(&key(table::MOVE_AT, &[&row.version.to_bytes()]))?;
                self.set_skipped(&row, false)?;
            }
        }
        for (at, row) in inserted {
            judged.remove(&row.version);
            store(self.kv, &key(table::MOVE_AT, &[&row.version.to_bytes()]), &at)?;
            rows.insert(at, row);
        }
        for (at, mut row) in rows {
            let fresh = !judged.contains(&row.version);
            redo(self, &at, &mut row)?;
            store(self.kv, &key(table::MOVE, &[&at]), &row)?;
            if fresh || row.applied != was.contains(&row.version) {
                self.set_skipped(&row, !row.applied)?;
            }
        }
        for (dir, old) in before {
            let now = self.dir(&dir)?.at.clone();
            if now != old {
                self.placed(&dir, old.as_ref(), now.as_ref())?;
            }
        }
        Ok(())
    }

    fn moves_from(&self, first: &[u8]) -> Result<BTreeMap<Vec<u8>, MoveRow>, StateError> {
        let mut rows = BTreeMap::new();
        let (from, to) = (key(table::MOVE, &[first]), prefix_end(&[table::MOVE]));
        self.kv.scan(&from, &to, &mut |at, value| {
            rows.insert(at.get(1..).unwrap_or_default().to_vec(), decode(at, value)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(rows)
    }

    /// Keeps the index of what stands where.
    pub(crate) fn placed(
        &mut self,
        dir: &DirId,
        old: Option<&Register>,
        now: Option<&Register>,
    ) -> Result<(), StateError> {
        if let Some(old) = old {
            let reg = RegKey::of(old);
            self.kv.delete(&key(table::PLACED, &[reg.as_slice(), dir.as_bytes()]))?;
            self.dirty.insert(reg);
        }
        if let Some(now) = now {
            let reg = RegKey::of(now);
            self.kv.put(&key(table::PLACED, &[reg.as_slice(), dir.as_bytes()]), &[])?;
            self.dirty.insert(reg);
        }
        self.dirty_dirs.insert(*dir);
        Ok(())
    }

    /// Marks a move's versions and everything they replaced for another look.
    fn set_skipped(&mut self, row: &MoveRow, skipped: bool) -> Result<(), StateError> {
        let at = key(table::SKIPPED, &[&row.version.to_bytes()]);
        let was = self.kv.get(&at)?.is_some();
        match (was, skipped) {
            (false, true) => {
                self.kv.put(&at, &[])?;
                self.meta.skipped += 1;
            }
            (true, false) => {
                self.kv.delete(&at)?;
                self.meta.skipped = self.meta.skipped.saturating_sub(1);
            }
            _ => {}
        }
        for version in [row.version, row.version.second()] {
            let Some(mut rec) = load_version(self.kv, &version)? else { continue };
            if rec.skipped != skipped {
                rec.skipped = skipped;
                store(self.kv, &key(table::VERSION, &[&version.to_bytes()]), &rec)?;
            }
            self.touch_version(&rec)?;
        }
        Ok(())
    }
}
