//! Devices' chains: lanes, what each entry has seen, tips, forks.
//!
//! Leaves out: which entries are valid ([`crate::replica`]).
//!
//! Invariants:
//! - a lane is an unforked run of one device's chain; a second entry on one predecessor opens a new
//!   lane and is the proof of a fork; nothing is dropped for it;
//! - "has seen" is answered from clocks kept per lane, in time that does not grow with the journal;
//! - a frontier names the tip of every lane: who holds an entry holds all it has seen.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::canary::{self, Canary};
use crate::entry::Entry;
use crate::error::StateError;
use crate::id::{DeviceId, EntryId};
use crate::kv::{Kv, KvRead, keys_with, prefix_end};
use crate::op::{Op, Role};
use crate::records::{
    EntryRec, ForkRec, LaneRec, LogPos, Meta, corrupt, decode, key, lane_pos, load, load_entry,
    store, table,
};

/// Most tips one frontier names; more chains than this no drive has.
pub const TIPS_MAX: usize = 4096;

/// The last entry of one unforked run of a chain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Tip {
    /// Whose chain.
    pub device: DeviceId,
    /// The entry's number in it.
    pub seq: u64,
    /// The entry.
    pub entry: EntryId,
}

/// What a device holds, as the tips of all chains: everything those entries have seen, too.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Frontier {
    /// The tips, sorted, at most [`TIPS_MAX`].
    pub tips: Vec<Tip>,
}

/// Last position seen, by lane, sorted.
pub(crate) type Clock = Vec<(u32, u32)>;

pub(crate) fn clock_row(
    kv: &(impl KvRead + ?Sized),
    lane: u32,
    pos: u32,
) -> Result<Clock, StateError> {
    Ok(load(kv, &key(table::CLOCK, &[&lane_pos(lane, pos)]))?.unwrap_or_default())
}

/// Last position of `lane` in `clock`.
pub(crate) fn clock_get(clock: &[(u32, u32)], lane: u32) -> Option<u32> {
    let at = clock.binary_search_by_key(&lane, |(lane, _)| *lane).ok()?;
    clock.get(at).map(|(_, pos)| *pos)
}

/// Everything `rec` has seen, itself included.
pub(crate) fn clock_of(
    kv: &(impl KvRead + ?Sized),
    rec: &EntryRec,
) -> Result<BTreeMap<u32, u32>, StateError> {
    let mut clock: BTreeMap<u32, u32> =
        clock_row(kv, rec.lane, rec.clock_pos)?.into_iter().collect();
    clock.insert(rec.lane, rec.pos);
    Ok(clock)
}

/// Whether `later` is `earlier` or has seen it.
pub(crate) fn sees(
    kv: &(impl KvRead + ?Sized),
    later: &EntryRec,
    earlier: &EntryRec,
) -> Result<bool, StateError> {
    if later.lane == earlier.lane {
        return Ok(earlier.pos <= later.pos);
    }
    let row = clock_row(kv, later.lane, later.clock_pos)?;
    Ok(clock_get(&row, earlier.lane).is_some_and(|pos| earlier.pos <= pos))
}

fn join(into: &mut BTreeMap<u32, u32>, from: BTreeMap<u32, u32>) {
    for (lane, pos) in from {
        let seen = into.entry(lane).or_insert(pos);
        *seen = pos.max(*seen);
    }
}

pub(crate) fn load_lane(
    kv: &(impl KvRead + ?Sized),
    lane: u32,
) -> Result<Option<LaneRec>, StateError> {
    load(kv, &key(table::LANE, &[&lane.to_be_bytes()]))
}

pub(crate) fn entry_at(
    kv: &(impl KvRead + ?Sized),
    lane: u32,
    pos: u32,
) -> Result<Option<EntryId>, StateError> {
    load(kv, &key(table::CHAIN, &[&lane_pos(lane, pos)]))
}

/// The lanes of `device`.
pub(crate) fn lanes_of(
    kv: &(impl KvRead + ?Sized),
    device: &DeviceId,
) -> Result<Vec<u32>, StateError> {
    let keys = keys_with(kv, &key(table::DEVICE, &[device.as_bytes()]))?;
    keys.iter()
        .map(|k| k.last_chunk::<4>().map(|b| u32::from_be_bytes(*b)).ok_or_else(|| corrupt(k)))
        .collect()
}

/// Gives `entry` its place in its chain. Its parents must be applied.
pub(crate) fn link(
    kv: &mut dyn Kv,
    meta: &mut Meta,
    id: EntryId,
    entry: &Entry,
    at: LogPos,
) -> Result<EntryRec, StateError> {
    let prev = match &entry.prev {
        Some(prev) => load_entry(kv, prev)?,
        None => None,
    };
    let continued = match &prev {
        Some(prev) => load_lane(kv, prev.lane)?.filter(|lane| Some(lane.tip) == entry.prev),
        None => None,
    };
    let (lane, pos, lane_rec) = match (&prev, continued) {
        (Some(prev), Some(mut lane)) => {
            lane.len += 1;
            lane.tip = id;
            (prev.lane, prev.pos + 1, lane)
        }
        _ => {
            note_fork(kv, id, entry, prev.as_ref())?;
            let lane = meta.lanes;
            meta.lanes += 1;
            kv.put(&key(table::DEVICE, &[entry.device.as_bytes(), &lane.to_be_bytes()]), &[])?;
            (lane, 0, LaneRec { device: entry.device, first_seq: entry.seq, len: 1, tip: id })
        }
    };
    let clock_pos = match &prev {
        Some(prev) if pos > 0 && entry.seen.is_empty() => prev.clock_pos,
        _ => {
            let mut clock = BTreeMap::new();
            for parent in entry.parents() {
                if let Some(rec) = load_entry(kv, &parent)? {
                    join(&mut clock, clock_of(kv, &rec)?);
                }
            }
            clock.remove(&lane);
            let row: Clock = clock.into_iter().collect();
            store(kv, &key(table::CLOCK, &[&lane_pos(lane, pos)]), &row)?;
            pos
        }
    };
    store(kv, &key(table::LANE, &[&lane.to_be_bytes()]), &lane_rec)?;
    store(kv, &key(table::CHAIN, &[&lane_pos(lane, pos)]), &id)?;
    for parent in entry.parents() {
        kv.delete(&key(table::HEAD, &[parent.as_bytes()]))?;
    }
    kv.put(&key(table::HEAD, &[id.as_bytes()]), &[])?;
    let number = meta.entries;
    meta.entries += 1;
    Ok(EntryRec {
        device: entry.device,
        seq: entry.seq,
        prev: entry.prev,
        lane,
        pos,
        clock_pos,
        hlc: entry.hlc,
        late: None,
        named: false,
        saved_at_ms: entry.saved_at_ms,
        number,
        at,
        ops: entry.ops.len() as u32,
        needs: entry.ops.iter().map(|op| needed(entry.device, op)).max(),
        standing: None,
    })
}

/// The role `author` needs for `op`. Who gives up a right has it no more in that very entry, and had it when it wrote.
fn needed(author: DeviceId, op: &Op) -> Role {
    match op {
        Op::SetRole { device, role, .. } if *device == author && *role < Role::Owner => {
            Role::Reader
        }
        _ => op.needs(),
    }
}

/// Keeps the pair of entries that shows `entry`'s device continued one entry twice: of all such pairs the earliest in
/// the chain, and the two least ids, so that everybody who knows the same entries shows the same proof.
fn note_fork(
    kv: &mut dyn Kv,
    id: EntryId,
    entry: &Entry,
    prev: Option<&EntryRec>,
) -> Result<(), StateError> {
    let twin = match prev {
        Some(prev) => entry_at(kv, prev.lane, prev.pos + 1)?,
        None => match lanes_of(kv, &entry.device)?.first() {
            Some(lane) => entry_at(kv, *lane, 0)?,
            None => None,
        },
    };
    let Some(twin) = twin else { return Ok(()) };
    let at = key(table::FORK, &[entry.device.as_bytes()]);
    if canary::is(Canary::ForkUnproven) {
        return Ok(());
    }
    let mut branches = vec![twin, id];
    if let Some(known) = load::<ForkRec>(kv, &at)? {
        let (here, there) = ((entry.seq, entry.prev), (known.seq, known.prev));
        if there < here {
            return Ok(());
        }
        if there == here {
            branches.extend([known.one, known.other]);
        }
    }
    branches.sort_unstable();
    branches.dedup();
    let [one, other, ..] = branches.as_slice() else { return Ok(()) };
    let (seq, prev, one, other) = (entry.seq, entry.prev, *one, *other);
    store(kv, &at, &ForkRec { seq, prev, one, other })
}

/// Every lane with its record.
pub(crate) fn lanes(kv: &(impl KvRead + ?Sized)) -> Result<Vec<(u32, LaneRec)>, StateError> {
    let mut out = Vec::new();
    let from = [table::LANE];
    kv.scan(&from, &prefix_end(&from), &mut |k, value| {
        let lane = k.last_chunk::<4>().map(|b| u32::from_be_bytes(*b)).ok_or_else(|| corrupt(k))?;
        out.push((lane, decode(k, value)?));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(out)
}

/// A lane with its number.
pub(crate) type LaneRun = (u32, LaneRec);

/// The tips of every chain.
pub(crate) fn frontier(kv: &(impl KvRead + ?Sized)) -> Result<Frontier, StateError> {
    Ok(tips_of(&lanes(kv)?))
}

/// The tips of these lanes.
pub(crate) fn tips_of(lanes: &[LaneRun]) -> Frontier {
    let mut tips = Vec::new();
    for (_, lane) in lanes {
        let seq = lane.first_seq + u64::from(lane.len.saturating_sub(1));
        tips.push(Tip { device: lane.device, seq, entry: lane.tip });
    }
    Frontier { tips: fairly(tips) }
}

/// At most [`TIPS_MAX`] tips, sorted: the furthest of every device before the second of any. Else one device with many
/// branches would take the room of all others, who would be sent their whole chains again and again.
fn fairly(mut tips: Vec<Tip>) -> Vec<Tip> {
    if tips.len() > TIPS_MAX {
        tips.sort_unstable_by_key(|tip| (tip.device, Reverse(tip.seq), tip.entry));
        let (mut turn, mut last) = (0usize, None);
        let mut ranked: Vec<(usize, Tip)> = Vec::with_capacity(tips.len());
        for tip in tips {
            turn = if last == Some(tip.device) { turn + 1 } else { 0 };
            last = Some(tip.device);
            ranked.push((turn, tip));
        }
        ranked.sort_by_key(|(turn, _)| *turn);
        ranked.truncate(TIPS_MAX);
        tips = ranked.into_iter().map(|(_, tip)| tip).collect();
    }
    tips.sort_unstable();
    tips
}

/// Entries nothing builds on, sorted.
pub(crate) fn heads(kv: &(impl KvRead + ?Sized)) -> Result<Vec<EntryId>, StateError> {
    keys_with(kv, &[table::HEAD])?
        .iter()
        .map(|k| k.last_chunk::<32>().map(|b| EntryId::from_bytes(*b)).ok_or_else(|| corrupt(k)))
        .collect()
}

/// Whether everything behind `theirs` is held here.
pub(crate) fn covers(kv: &(impl KvRead + ?Sized), theirs: &Frontier) -> Result<bool, StateError> {
    for tip in &theirs.tips {
        if kv.get(&key(table::ENTRY, &[tip.entry.as_bytes()]))?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// How many entries before a tip on another branch are taken for unknown to its holder; where the branches part
/// earlier, it asks for the rest by id.
const BRANCH_LEN_GUESS: u64 = 8;

/// First position of each lane that a holder of `theirs` lacks.
///
/// A tip that is not known here says how far its device's chain was followed, if it continues the one run of that
/// chain that its holder is not known to have in whole. A tip that is *not* further than the run is on another
/// branch, or it would be known: what its holder has of the run is a guess, and mostly little is missing.
fn lacking_from(
    kv: &(impl KvRead + ?Sized),
    lanes: &[(u32, LaneRec)],
    theirs: &Frontier,
) -> Result<BTreeMap<u32, u32>, StateError> {
    let mut next: BTreeMap<u32, u32> = BTreeMap::new();
    let mut unknown = Vec::new();
    for tip in theirs.tips.iter().take(TIPS_MAX) {
        let Some(rec) = load_entry(kv, &tip.entry)? else {
            unknown.push(tip);
            continue;
        };
        for (lane, pos) in clock_of(kv, &rec)? {
            let at = next.entry(lane).or_insert(0);
            *at = pos.saturating_add(1).max(*at);
        }
    }
    let whole = |next: &BTreeMap<u32, u32>, lane: u32, rec: &LaneRec| {
        next.get(&lane).is_some_and(|held| *held >= rec.len)
    };
    let open: Vec<(u32, &LaneRec)> = lanes
        .iter()
        .filter(|(lane, rec)| !whole(&next, *lane, rec))
        .map(|(lane, rec)| (*lane, rec))
        .collect();
    for tip in unknown {
        let mut runs = open.iter().filter(|(_, rec)| rec.device == tip.device);
        let (Some((lane, rec)), None) = (runs.next(), runs.next()) else { continue };
        let last = rec.first_seq.saturating_add(u64::from(rec.len)).saturating_sub(1);
        let upto = match tip.seq > last {
            true => last.saturating_add(1),
            false => tip.seq.saturating_sub(BRANCH_LEN_GUESS),
        };
        let held = upto.saturating_sub(rec.first_seq).min(u64::from(rec.len)) as u32;
        let at = next.entry(*lane).or_insert(0);
        *at = held.max(*at);
    }
    Ok(next)
}

/// What a holder of `theirs` lacks, in causal order, as far as `bytes_max` reaches (at least one).
pub(crate) fn lacking(
    kv: &(impl KvRead + ?Sized),
    theirs: &Frontier,
    bytes_max: usize,
) -> Result<Vec<(EntryId, LogPos)>, StateError> {
    lacking_of(kv, &lanes(kv)?, theirs, bytes_max)
}

/// The same of these lanes, which must be closed under what their entries have seen, or hold what `theirs` has.
pub(crate) fn lacking_of(
    kv: &(impl KvRead + ?Sized),
    lanes: &[LaneRun],
    theirs: &Frontier,
    bytes_max: usize,
) -> Result<Vec<(EntryId, LogPos)>, StateError> {
    let next = lacking_from(kv, lanes, theirs)?;
    let lens: BTreeMap<u32, u32> = lanes.iter().map(|(lane, run)| (*lane, run.len)).collect();
    let mut heap = BinaryHeap::new();
    let push = |heap: &mut BinaryHeap<_>, lane: u32, pos: u32| -> Result<(), StateError> {
        let within = lens.get(&lane).is_some_and(|len| pos < *len);
        if within && let Some(id) = entry_at(kv, lane, pos)? {
            let rec = load_entry(kv, &id)?.ok_or_else(|| corrupt(&[table::ENTRY]))?;
            heap.push(Reverse((rec.number, lane, pos, id, rec.at)));
        }
        Ok(())
    };
    for (lane, rec) in lanes {
        let from = next.get(lane).copied().unwrap_or(0);
        if from < rec.len {
            push(&mut heap, *lane, from)?;
        }
    }
    let (mut out, mut bytes) = (Vec::new(), 0usize);
    while let Some(Reverse((_, lane, pos, id, at))) = heap.pop() {
        bytes = bytes.saturating_add(at.len as usize);
        if bytes > bytes_max && !out.is_empty() {
            break;
        }
        out.push((id, at));
        push(&mut heap, lane, pos + 1)?;
    }
    Ok(out)
}

/// Raises what other devices are known to hold to everything `rec` has seen.
pub(crate) fn acknowledge(kv: &mut dyn Kv, rec: &EntryRec) -> Result<bool, StateError> {
    let mut raised = false;
    for (lane, pos) in clock_of(kv, rec)? {
        let at = key(table::ACK, &[&lane.to_be_bytes()]);
        if load::<u32>(kv, &at)?.is_none_or(|known| known < pos) {
            store(kv, &at, &pos)?;
            raised = true;
        }
    }
    Ok(raised)
}
