//! What is kept: the policies, the facts about versions, how far others are known to hold.
//!
//! Leaves out: the rule itself ([`crate::retention`]).
//!
//! Invariants:
//! - what is asked about one version is a handful of reads, whatever the size of the drive;
//! - memory: one number for each day with an entry, the clocks of the named snapshots, and, where arrivals are asked
//!   for, eight bytes an entry.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;

use super::{Journal, Now};
use crate::chain::{Frontier, clock_of};
use crate::error::StateError;
use crate::id::VersionId;
use crate::kv::{KvRead, keys_with, prefix_end};
use crate::lock::Cuts;
use crate::member::Members;
use crate::records::{
    EntryRec, RegKey, corrupt, decode, key, load_entry, load_register, load_version, table,
    version_at_end,
};
use crate::retention::{DriveTime, Facts, Policy, Replaced, Rules};

/// Whether it is looked up when entries came here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrivals {
    /// No: enough for what is owed.
    Unknown,
    /// Yes: for what may be removed. Reads the record of every entry once.
    Known,
}

/// Everything that decides about versions, as it was when it was gathered.
#[derive(Clone, Debug)]
pub struct Retention {
    /// The rules.
    pub rules: Rules,
    snapshots: Vec<Snapshot>,
    /// For each entry by its number here: the greatest logical time, in milliseconds, of entries up to it.
    arrivals: Vec<u64>,
}

#[derive(Clone, Debug)]
struct Snapshot {
    made_ms: u64,
    past: Reach,
}

/// A set of entries: for each lane how far.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reach(BTreeMap<u32, u32>);

/// Where an entry stands, on this device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place {
    lane: u32,
    pos: u32,
}

impl Reach {
    /// Whether the entry there belongs to the set.
    pub fn has(&self, place: Place) -> bool {
        self.0.get(&place.lane).is_some_and(|pos| place.pos <= *pos)
    }
}

impl From<&EntryRec> for Place {
    fn from(rec: &EntryRec) -> Self {
        Self { lane: rec.lane, pos: rec.pos }
    }
}

impl Retention {
    fn arrived_ms(&self, rec: &EntryRec) -> u64 {
        let at = usize::try_from(rec.number).unwrap_or(usize::MAX);
        self.arrivals.get(at).copied().unwrap_or(0)
    }
}

impl Journal {
    /// The policy the owners set last, or the default.
    pub fn policy(&self) -> Policy {
        let members = self.look_or(Members::default(), |kv| Members::load(kv));
        members.reigns.last().map(|reign| reign.policy).unwrap_or_default()
    }

    /// The time that may be believed: never more than the own clock says, nor than the members' median.
    pub fn believed_ms(&self, now: Now) -> u64 {
        self.clock.lock().believed_ms(now.wall_ms)
    }

    /// What decides about versions now.
    pub fn retention(&self, arrivals: Arrivals, now: Now) -> Result<Retention, StateError> {
        let now_ms = self.believed_ms(now);
        self.look(|kv| {
            let reigns = Members::load(kv)?.reigns;
            let rules = Rules::new(&reigns, DriveTime::new(&days(kv)?), now_ms);
            let arrivals = match arrivals {
                Arrivals::Unknown => Vec::new(),
                Arrivals::Known => arrivals_by_number(kv, now_ms)?,
            };
            Ok(Retention { rules, snapshots: snapshots(kv)?, arrivals })
        })
    }

    /// What is known of a version, and where its entry stands; none when there is no such version.
    pub fn facts(
        &self,
        retention: &Retention,
        version: VersionId,
    ) -> Result<Option<(Facts, Place)>, StateError> {
        self.look(|kv| facts(kv, retention, version))
    }

    /// The entries behind a frontier, as far as they are here.
    pub fn reach(&self, frontier: &Frontier) -> Result<Reach, StateError> {
        self.look(|kv| reach(kv, frontier))
    }

    /// Whether everything under `target` is here and under `held`, as far as that is known here.
    pub fn is_under(&self, target: &Frontier, held: &Frontier) -> bool {
        self.look_or(false, |kv| {
            let held = reach(kv, held)?;
            for tip in &target.tips {
                if !load_entry(kv, &tip.entry)?.is_some_and(|rec| held.has(Place::from(&rec))) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }
}

fn reach(kv: &dyn KvRead, frontier: &Frontier) -> Result<Reach, StateError> {
    let mut reach = BTreeMap::new();
    for tip in &frontier.tips {
        if let Some(rec) = load_entry(kv, &tip.entry)? {
            join(&mut reach, clock_of(kv, &rec)?);
        }
    }
    Ok(Reach(reach))
}

fn join(into: &mut BTreeMap<u32, u32>, from: BTreeMap<u32, u32>) {
    for (lane, pos) in from {
        let seen = into.entry(lane).or_insert(pos);
        *seen = pos.max(*seen);
    }
}

/// The days with an entry.
fn days(kv: &dyn KvRead) -> Result<BTreeSet<u32>, StateError> {
    keys_with(kv, &[table::DAY])?
        .iter()
        .map(|k| k.last_chunk::<4>().map(|b| u32::from_be_bytes(*b)).ok_or_else(|| corrupt(k)))
        .collect()
}

fn snapshots(kv: &dyn KvRead) -> Result<Vec<Snapshot>, StateError> {
    let mut out = Vec::new();
    for row in keys_with(kv, &[table::SNAPSHOT])? {
        let version = version_at_end(&row)?;
        let Some(entry) = load_entry(kv, &version.entry)? else { continue };
        if entry.accepted() {
            let made_ms = entry.order(version.entry).published.ms();
            out.push(Snapshot { made_ms, past: Reach(clock_of(kv, &entry)?) });
        }
    }
    Ok(out)
}

/// What is dated after `now_ms` says nothing about when anything came.
fn arrivals_by_number(kv: &dyn KvRead, now_ms: u64) -> Result<Vec<u64>, StateError> {
    let mut out: Vec<u64> = Vec::new();
    let prefix = [table::ENTRY];
    kv.scan(&prefix, &prefix_end(&prefix), &mut |k, value| {
        let rec: EntryRec = decode(k, value)?;
        let at = usize::try_from(rec.number).map_err(|_| corrupt(k))?;
        if out.len() <= at {
            out.resize(at + 1, 0);
        }
        if let Some(ms) = out.get_mut(at) {
            *ms = Some(rec.hlc.ms()).filter(|ms| *ms <= now_ms).unwrap_or(0);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let mut latest = 0;
    for ms in &mut out {
        latest = latest.max(*ms);
        *ms = latest;
    }
    Ok(out)
}

fn facts(
    kv: &dyn KvRead,
    retention: &Retention,
    version: VersionId,
) -> Result<Option<(Facts, Place)>, StateError> {
    let Some(rec) = load_version(kv, &version)? else { return Ok(None) };
    let Some(entry) = load_entry(kv, &version.entry)? else { return Ok(None) };
    let made_ms = entry.order(version.entry).published.ms();
    let place = Place::from(&entry);
    let by = superseders(kv, version)?;
    let mut facts = Facts { made_ms, replaced: None, snapshots_ms: Vec::new() };
    let shown = match &rec.register {
        Some(register) => is_shown(kv, &RegKey::of(register), version)?,
        None => false,
    };
    if by.is_empty() || shown {
        return Ok(Some((facts, place)));
    }
    let published = by.iter().map(|(id, rec)| rec.order(id.entry).published.ms());
    let first_ms = published.clone().min().unwrap_or(0);
    let arrived = by.iter().map(|(_, rec)| retention.arrived_ms(rec));
    let known_ms = published.chain(arrived).max().unwrap_or(0);
    facts.replaced = Some(Replaced { first_ms, known_ms });
    for snapshot in &retention.snapshots {
        let shows = snapshot.past.has(place)
            && !by.iter().any(|(_, rec)| snapshot.past.has(Place::from(rec)));
        if shows {
            facts.snapshots_ms.push(snapshot.made_ms);
        }
    }
    Ok(Some((facts, place)))
}

/// What counts and replaced a version, itself or through versions that do not count.
fn superseders(
    kv: &dyn KvRead,
    version: VersionId,
) -> Result<Vec<(VersionId, EntryRec)>, StateError> {
    let (mut queue, mut passed) = (VecDeque::from([version]), BTreeSet::new());
    let (mut out, cuts) = (Vec::new(), Cuts::new(kv)?);
    while let Some(id) = queue.pop_front() {
        for row in keys_with(kv, &key(table::SUPERSEDE, &[&id.to_bytes()]))? {
            let by = version_at_end(&row)?;
            let rec = load_version(kv, &by)?.ok_or_else(|| corrupt(&row))?;
            let entry = load_entry(kv, &by.entry)?.ok_or_else(|| corrupt(&row))?;
            if cuts.is_cut(&by, &rec.author, &id)? {
                continue;
            }
            match (entry.accepted(), rec.skipped) {
                (true, false) => out.push((by, entry)),
                (false, _) if passed.insert(by) => queue.push_back(by),
                _ => {}
            }
        }
    }
    Ok(out)
}

/// Whether a register shows a version, under the plain name or as a copy, itself or as part of another.
fn is_shown(kv: &dyn KvRead, reg: &RegKey, version: VersionId) -> Result<bool, StateError> {
    let Some(rec) = load_register(kv, reg)? else { return Ok(false) };
    let mut heads = rec.official.iter().chain(&rec.copies);
    Ok(heads.any(|head| head.version == version || head.merged.contains(&version)))
}
