//! The state's facts, seen as if only the entries of one set had arrived.
//!
//! Leaves out: which set ([`super::moment`]); everything derived, which is worked out anew.
//!
//! Invariants:
//! - of an entry outside the set nothing is seen: neither it, nor its versions, nor what they replace;
//! - an entry's lateness and standing, and whether a move was skipped, are what the set alone says;
//! - tables of derived records read as empty.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use crate::error::StateError;
use crate::fold::{first_naming, namings};
use crate::hlc::Hlc;
use crate::id::{EntryId, VersionId};
use crate::kv::{KvRead, Visit};
use crate::lock;
use crate::member::Members;
use crate::records::{
    EntryRec, RegKey, VersionRec, corrupt, decode, key, load_entry, table, version_at_end,
};

/// A set of entries closed under what they have seen: the last position in each lane.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Cut(pub(super) BTreeMap<u32, u32>);

impl Cut {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn holds(&self, lane: u32, pos: u32) -> bool {
        self.0.get(&lane).is_some_and(|last| pos <= *last)
    }
}

/// Facts of the entries in a cut, with everything but their authors' standing.
pub(super) struct Entries<'a> {
    pub(super) kv: &'a dyn KvRead,
    pub(super) cut: &'a Cut,
}

/// Facts of the entries in a cut.
pub(super) struct Facts<'a> {
    pub(super) entries: Entries<'a>,
    pub(super) members: &'a Members,
    /// Versions of moves that did not apply.
    pub(super) skipped: &'a BTreeSet<VersionId>,
}

impl Entries<'_> {
    /// The entry, as late as `members` let it be.
    fn entry(&self, id: &EntryId, members: &Members) -> Result<Option<EntryRec>, StateError> {
        let Some(mut rec) = load_entry(self.kv, id)? else { return Ok(None) };
        if !self.cut.holds(rec.lane, rec.pos) {
            return Ok(None);
        }
        if rec.named {
            rec.late = self.late(&rec, members)?;
        }
        Ok(Some(rec))
    }

    /// Hlc of the first entry of the set that names `rec` late and may.
    fn late(&self, rec: &EntryRec, members: &Members) -> Result<Option<Hlc>, StateError> {
        let mut namings = namings(self.kv, &rec.device)?;
        namings.retain(|naming| self.cut.holds(naming.by.lane, naming.by.pos));
        first_naming(self.kv, members, &namings, rec)
    }

    fn holds(&self, version: &VersionId) -> Result<bool, StateError> {
        let rec = load_entry(self.kv, &version.entry)?;
        Ok(rec.is_some_and(|rec| self.cut.holds(rec.lane, rec.pos)))
    }
}

fn encode<T: serde::Serialize>(key: &[u8], value: &T) -> Result<Vec<u8>, StateError> {
    postcard::to_allocvec(value).map_err(|_| corrupt(key))
}

fn entry_of(key: &[u8]) -> Option<EntryId> {
    key.get(1..)?.first_chunk::<32>().map(|id| EntryId::from_bytes(*id))
}

impl KvRead for Entries<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        match (key.first().copied(), entry_of(key)) {
            (Some(table::ENTRY), Some(id)) => {
                // Who the members are does not depend on what is late.
                let rec = self.entry(&id, &Members::default())?;
                rec.map(|rec| encode(key, &rec)).transpose()
            }
            (Some(table::VERSION), Some(_)) => match self.holds(&version_at_end(key)?)? {
                true => self.kv.get(key),
                false => Ok(None),
            },
            (Some(table::CLOCK | table::MOVE_KEPT), _) => self.kv.get(key),
            _ => Ok(None),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StateError> {
        let of_versions = [
            table::VERSION,
            table::REG_VERSION,
            table::SUPERSEDE,
            table::DIR_ATTR,
            table::MEMBER_OP,
            table::MOVE_KEPT,
            table::SNAPSHOT,
            table::LOCK_OP,
        ];
        // Which registers anything was ever broken in: more than a moment knew is only looked at in vain.
        if from.first() == Some(&table::BREAK) {
            return self.kv.scan(from, to, visit);
        }
        if !from.first().is_some_and(|table| of_versions.contains(table)) {
            return Ok(());
        }
        self.kv.scan(from, to, &mut |row, value| match self.holds(&version_at_end(row)?)? {
            true => visit(row, value),
            false => Ok(ControlFlow::Continue(())),
        })
    }
}

impl Facts<'_> {
    /// The breaks that took effect by what the set says.
    fn broken(&self, at: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let reg = RegKey::from_slice(at.get(1..).unwrap_or_default());
        if self.entries.kv.get(&key(table::BREAK, &[reg.as_slice()]))?.is_none() {
            return Ok(None);
        }
        encode(at, &lock::replay(self, self.members, &reg)?).map(Some)
    }
}

impl KvRead for Facts<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        match (key.first().copied(), entry_of(key)) {
            (Some(table::ENTRY), Some(id)) => {
                let Some(mut rec) = self.entries.entry(&id, self.members)? else { return Ok(None) };
                rec.standing = self.members.standing(&self.entries, &rec)?;
                encode(key, &rec).map(Some)
            }
            (Some(table::VERSION), Some(_)) => {
                let Some(bytes) = self.entries.get(key)? else { return Ok(None) };
                let mut rec: VersionRec = decode(key, &bytes)?;
                let skipped = self.skipped.contains(&version_at_end(key)?);
                if rec.skipped == skipped {
                    return Ok(Some(bytes));
                }
                rec.skipped = skipped;
                encode(key, &rec).map(Some)
            }
            (Some(table::BROKEN), _) => self.broken(key),
            _ => self.entries.get(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StateError> {
        self.entries.scan(from, to, visit)
    }
}
