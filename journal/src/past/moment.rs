//! What a moment knew: its entries, its members, where its directories stood.
//!
//! Leaves out: names and what they showed ([`super::registers`]).
//!
//! Invariants:
//! - the set is closed: with an entry it holds everything the entry had seen;
//! - finding the set costs a few reads a chain; members and moves are gone through when it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::Moment;
use super::facts::{Cut, Entries, Facts};
use crate::chain::{clock_of, entry_at, lanes};
use crate::error::StateError;
use crate::hlc::Hlc;
use crate::id::{DirId, VersionId};
use crate::kv::{KvRead, prefix_end};
use crate::member::Members;
use crate::name::Register;
use crate::placement::{Places, Stand, redo};
use crate::records::{
    MoveRow, corrupt, decode, load_dir, load_entry, load_meta, op_key, table, version_at_end,
};

/// What was found out about a moment.
#[derive(Debug)]
pub(super) struct Known {
    /// Entries applied when the set was last looked for.
    entries: u64,
    pub(super) cut: Cut,
    pub(super) members: Members,
    pub(super) skipped: BTreeSet<VersionId>,
    /// Directories that were moved, and to where.
    pub(super) moved: BTreeMap<DirId, Register>,
    /// Whether a directory showed anything, of those that was asked of.
    pub(super) shows: BTreeMap<DirId, bool>,
}

/// Brings what is known of `moment` up to the state in `kv`; false when there was no drive then.
pub(super) fn bring(
    kv: &dyn KvRead,
    moment: Moment,
    known: &mut Option<Known>,
) -> Result<bool, StateError> {
    let meta = load_meta(kv)?.ok_or_else(|| corrupt(&[table::META]))?;
    if known.as_ref().is_some_and(|known| known.entries == meta.entries) {
        return Ok(true);
    }
    let cut = cut(kv, moment)?;
    if cut.is_empty() {
        *known = None;
        return Ok(false);
    }
    match known {
        Some(known) if known.cut == cut => known.entries = meta.entries,
        _ => *known = Some(find_out(kv, cut, meta.entries)?),
    }
    Ok(true)
}

/// The entries of a moment.
pub(super) fn cut(kv: &dyn KvRead, moment: Moment) -> Result<Cut, StateError> {
    let mut cut = BTreeMap::new();
    match moment {
        Moment::Snapshot(id) => {
            if let Some(rec) = load_entry(kv, &id)? {
                cut = clock_of(kv, &rec)?;
            }
        }
        Moment::At { ms } => {
            let end = Hlc::from_ms(ms.saturating_add(1));
            for (lane, rec) in lanes(kv)? {
                let Some(pos) = last_before(kv, lane, rec.len, end)? else { continue };
                let id = entry_at(kv, lane, pos)?.ok_or_else(|| corrupt(&[table::CHAIN]))?;
                let rec = load_entry(kv, &id)?.ok_or_else(|| corrupt(&[table::ENTRY]))?;
                for (lane, pos) in clock_of(kv, &rec)? {
                    let last = cut.entry(lane).or_insert(pos);
                    *last = pos.max(*last);
                }
            }
        }
    }
    Ok(Cut(cut))
}

/// The last position of `lane` that was published before `end`.
fn last_before(kv: &dyn KvRead, lane: u32, len: u32, end: Hlc) -> Result<Option<u32>, StateError> {
    let (mut from, mut to) = (0, len);
    while from < to {
        let middle = from + (to - from) / 2;
        let id = entry_at(kv, lane, middle)?.ok_or_else(|| corrupt(&[table::CHAIN]))?;
        let rec = load_entry(kv, &id)?.ok_or_else(|| corrupt(&[table::ENTRY]))?;
        match rec.order(id).published < end {
            true => from = middle + 1,
            false => to = middle,
        }
    }
    Ok(from.checked_sub(1))
}

fn find_out(kv: &dyn KvRead, cut: Cut, entries: u64) -> Result<Known, StateError> {
    let members = Members::fold(&Entries { kv, cut: &cut })?;
    let (skipped, moved) = {
        let none = BTreeSet::new();
        let facts = Facts { entries: Entries { kv, cut: &cut }, members: &members, skipped: &none };
        replay(kv, &facts)?
    };
    Ok(Known { entries, cut, members, skipped, moved, shows: BTreeMap::new() })
}

/// Where the directories of a replay stand.
struct Replay<'a> {
    kv: &'a dyn KvRead,
    facts: &'a Facts<'a>,
    moved: BTreeMap<DirId, Stand>,
}

impl Places for Replay<'_> {
    fn facts(&self) -> &dyn KvRead {
        self.facts
    }

    fn stand(&mut self, dir: &DirId) -> Result<Stand, StateError> {
        match self.moved.get(dir) {
            Some(stand) => Ok(stand.clone()),
            // A directory's home follows from its id; what names it in the set had seen its making.
            None => Ok(Stand { place: None, at: load_dir(self.kv, dir)?.and_then(|d| d.home) }),
        }
    }

    fn set_stand(&mut self, dir: &DirId, stand: Stand) -> Result<(), StateError> {
        self.moved.insert(*dir, stand);
        Ok(())
    }
}

type Moves = (BTreeSet<VersionId>, BTreeMap<DirId, Register>);

/// Replays the moves of the set; gives the versions of those that were skipped, and the places.
fn replay(kv: &dyn KvRead, facts: &Facts<'_>) -> Result<Moves, StateError> {
    let mut rows: BTreeMap<Vec<u8>, MoveRow> = BTreeMap::new();
    let from = [table::MOVE_KEPT];
    facts.scan(&from, &prefix_end(&from), &mut |at, value| {
        let version = version_at_end(at)?;
        if let Some(entry) = load_entry(facts, &version.entry)?
            && entry.accepted()
        {
            rows.insert(op_key(&entry.order(version.entry), version.index), decode(at, value)?);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let mut places = Replay { kv, facts, moved: BTreeMap::new() };
    let mut skipped = BTreeSet::new();
    for (at, mut row) in rows {
        redo(&mut places, &at, &mut row)?;
        if !row.applied {
            skipped.extend([row.version, row.version.second()]);
        }
    }
    let moved = places.moved.into_iter().filter_map(|(dir, stand)| Some((dir, stand.at?)));
    Ok((skipped, moved.collect()))
}
