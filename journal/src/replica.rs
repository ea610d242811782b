//! Which entries may be taken, and those that wait for others.
//!
//! Leaves out: signatures (checked before), the log, what entries do to the tree.
//!
//! Invariants:
//! - an entry is taken only after all its parents: delivery is causal;
//! - whether an entry is valid depends on itself and its past only: an author's admission counts when the entry has
//!   seen it, whatever else has arrived here. So all devices take the same entries, in whatever order they come;
//! - what waits is bounded in number and bytes, the oldest gives way; entries that already lie in the
//!   own log wait without a bound, they cost a few words each.

use std::collections::{BTreeMap, BTreeSet};

use crate::canary::{self, Canary};
use crate::chain::{entry_at, sees};
use crate::entry::Entry;
use crate::error::{RefuseReason, StateError};
use crate::id::EntryId;
use crate::kv::{KvRead, keys_with};
use crate::records::{LogPos, Meta, corrupt, key, load_entry, table};
use crate::signed::VerifiedEntry;

/// Most entries that wait for others.
const WAITING_MAX: usize = 8192;
/// Most bytes of them.
const WAITING_LEN_MAX: usize = 64 << 20;

/// What is to be done with an entry.
#[derive(Debug)]
pub(crate) enum Verdict {
    Known,
    Ready,
    Waits(BTreeSet<EntryId>),
    Refused(RefuseReason),
}

/// Judges an entry against what is applied.
pub(crate) fn judge(
    kv: &(impl KvRead + ?Sized),
    meta: &Meta,
    entry: &VerifiedEntry,
) -> Result<Verdict, StateError> {
    let has = |table: u8, id: &[u8]| Ok::<_, StateError>(kv.get(&key(table, &[id]))?.is_some());
    if has(table::ENTRY, entry.id().as_bytes())? && !canary::is(Canary::AppliedTwice) {
        return Ok(Verdict::Known);
    }
    let body = entry.entry();
    if body.drive != meta.drive {
        return Ok(Verdict::Refused(RefuseReason::OtherDrive { found: body.drive }));
    }
    let mut missing = BTreeSet::new();
    let mut after = None;
    for id in body.parents() {
        match load_entry(kv, &id)? {
            None => {
                missing.insert(id);
            }
            Some(parent) => {
                let follows =
                    parent.device == body.device && parent.seq.checked_add(1) == Some(body.seq);
                let branches = canary::is(Canary::ForkDropped)
                    && body.prev == Some(id)
                    && entry_at(kv, parent.lane, parent.pos + 1)?.is_some();
                if body.prev == Some(id) && (!follows || branches) {
                    return Ok(Verdict::Refused(RefuseReason::Chain));
                }
                after = after.max(Some(parent.hlc));
            }
        }
    }
    if after.is_some_and(|after| body.hlc <= after) {
        return Ok(Verdict::Refused(RefuseReason::Clock));
    }
    if !missing.is_empty() {
        return Ok(Verdict::Waits(missing));
    }
    if !body.hlc.may_follow(after.unwrap_or_default()) {
        return Ok(Verdict::Refused(RefuseReason::Clock));
    }
    match body.prev.is_some() || has_seen_its_admission(kv, body)? {
        true => Ok(Verdict::Ready),
        false => Ok(Verdict::Refused(RefuseReason::NotMember)),
    }
}

/// Whether a device's first entry has seen that the device was admitted. What comes after it has, too.
fn has_seen_its_admission(kv: &(impl KvRead + ?Sized), first: &Entry) -> Result<bool, StateError> {
    for row in keys_with(kv, &key(table::ADMITTED, &[first.device.as_bytes()]))? {
        let by = row.last_chunk::<32>().map(|id| EntryId::from_bytes(*id));
        let by = load_entry(kv, &by.ok_or_else(|| corrupt(&row))?)?;
        for parent in first.parents() {
            if let (Some(by), Some(parent)) = (&by, load_entry(kv, &parent)?)
                && sees(kv, &parent, by)?
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// An entry that waits.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) id: EntryId,
    /// None when it lies in the own log.
    pub(crate) entry: Option<VerifiedEntry>,
    pub(crate) at: Option<LogPos>,
    missing: BTreeSet<EntryId>,
    arrived: u64,
}

/// The entries that wait for others.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    held: BTreeMap<EntryId, Held>,
    /// Which of them wait for an entry.
    for_entry: BTreeMap<EntryId, BTreeSet<EntryId>>,
    /// Those not in the log, oldest first.
    arrivals: BTreeMap<u64, EntryId>,
    next: u64,
    len: usize,
}

impl Waiting {
    /// Keeps an entry until `missing` are applied; gives those that had to go for it.
    pub(crate) fn hold(
        &mut self,
        entry: VerifiedEntry,
        at: Option<LogPos>,
        missing: BTreeSet<EntryId>,
    ) -> Vec<EntryId> {
        let id = entry.id();
        if self.held.contains_key(&id) {
            return Vec::new();
        }
        for on in &missing {
            self.for_entry.entry(*on).or_default().insert(id);
        }
        let arrived = self.next;
        self.next += 1;
        if at.is_none() {
            self.len += entry.bytes().len();
            self.arrivals.insert(arrived, id);
        }
        let entry = at.is_none().then_some(entry);
        self.held.insert(id, Held { id, entry, at, missing, arrived });
        let mut gone = Vec::new();
        while self.arrivals.len() > WAITING_MAX || self.len > WAITING_LEN_MAX {
            let Some((_, oldest)) = self.arrivals.pop_first() else { break };
            self.release(&oldest);
            gone.push(oldest);
        }
        gone
    }

    fn release(&mut self, id: &EntryId) -> Option<Held> {
        let held = self.held.remove(id)?;
        self.arrivals.remove(&held.arrived);
        self.len -= held.entry.as_ref().map_or(0, |entry| entry.bytes().len());
        for on in &held.missing {
            if let Some(waiting) = self.for_entry.get_mut(on) {
                waiting.remove(id);
                if waiting.is_empty() {
                    self.for_entry.remove(on);
                }
            }
        }
        Some(held)
    }

    /// `id` was applied: gives what waited for it alone.
    pub(crate) fn applied(&mut self, id: &EntryId) -> Vec<Held> {
        let waiting = self.for_entry.remove(id).unwrap_or_default();
        let mut ready = Vec::new();
        for other in waiting {
            if let Some(held) = self.held.get_mut(&other) {
                held.missing.remove(id);
                if held.missing.is_empty() {
                    ready.extend(self.release(&other));
                }
            }
        }
        ready
    }

    /// `id` was refused: gives up everything that builds on it.
    pub(crate) fn refused(&mut self, id: &EntryId) -> Vec<EntryId> {
        let (mut queue, mut gone) = (vec![*id], Vec::new());
        while let Some(id) = queue.pop() {
            for other in self.for_entry.get(&id).cloned().unwrap_or_default() {
                if self.held.get(&other).is_some_and(|held| held.at.is_none()) {
                    self.release(&other);
                    gone.push(other);
                    queue.push(other);
                }
            }
        }
        gone
    }

    /// What is waited for and does not itself wait here.
    pub(crate) fn wants(&self, limit: usize) -> Vec<EntryId> {
        let missing = self.for_entry.keys().filter(|id| !self.held.contains_key(id));
        missing.take(limit).copied().collect()
    }

    /// Where the entries of the own log that wait lie in it.
    pub(crate) fn places(&self) -> impl Iterator<Item = LogPos> + '_ {
        self.held.values().filter_map(|held| held.at)
    }

    /// How many entries of the own log wait.
    pub(crate) fn gaps(&self) -> u64 {
        self.places().count() as u64
    }
}
