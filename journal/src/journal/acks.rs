//! Evidence that others hold what this device wrote, and work that nobody had when it came back.
//!
//! Leaves out: how the evidence comes in (connections exchange frontiers).
//!
//! Invariants:
//! - what an entry of another device has seen, frontiers members reported, and what came from others are the
//!   evidence; a connection that seemed open is none;
//! - losing the file costs no work: entries then count as late that would not have had to.

use std::path::Path;

use crate::chain::{self, Frontier, clock_of, entry_at, lanes_of, load_lane};
use crate::error::{PathError, StateError};
use crate::id::{DeviceId, EntryId};
use crate::kv::{Kv, KvRead, keys_with};
use crate::op::Op;
use crate::records::{
    EntryRec, What, corrupt, key, load, load_entry, load_version, table, version_at_end,
};

/// Acknowledgements after which the file is written again.
const SAVE_EVERY: u32 = 64;
/// Name of the file, in the journal's directory.
const FILE: &str = "acks";
/// Largest file read.
const FILE_LEN_MAX: u64 = 1 << 20;

/// Acknowledgements since the file was last written.
#[derive(Debug, Default)]
pub(super) struct Unsaved {
    count: u32,
}

impl Unsaved {
    /// Counts one; whether it is time to write.
    pub(super) fn add(&mut self) -> bool {
        self.count += 1;
        let due = self.count >= SAVE_EVERY;
        if due {
            self.count = 0;
        }
        due
    }
}

/// Whether `frontier`, reported by `by`, proves more than is known.
pub(super) fn is_news(
    kv: &dyn KvRead,
    by: DeviceId,
    frontier: &Frontier,
) -> Result<bool, StateError> {
    for tip in &frontier.tips {
        let Some(rec) = load_entry(kv, &tip.entry)? else { continue };
        if tip.device == by {
            continue;
        }
        let known: Option<u32> = load(kv, &key(table::ACK, &[&rec.lane.to_be_bytes()]))?;
        if known.is_none_or(|known| known < rec.pos) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes in that `by` holds everything behind `frontier`.
pub(super) fn take(kv: &mut dyn Kv, by: DeviceId, frontier: &Frontier) -> Result<(), StateError> {
    for tip in frontier.tips.iter().filter(|tip| tip.device != by).take(chain::TIPS_MAX) {
        if let Some(rec) = load_entry(kv, &tip.entry)? {
            chain::acknowledge(kv, &rec)?;
        }
    }
    Ok(())
}

/// The last entries of each lane known to be held by others.
pub(super) fn all(kv: &dyn KvRead) -> Result<Vec<EntryId>, StateError> {
    let mut out = Vec::new();
    for row in keys_with(kv, &[table::ACK])? {
        let lane = row.last_chunk::<4>().map(|b| u32::from_be_bytes(*b));
        let lane = lane.ok_or_else(|| corrupt(&row))?;
        let pos: u32 = load(kv, &row)?.ok_or_else(|| corrupt(&row))?;
        out.extend(entry_at(kv, lane, pos)?);
    }
    Ok(out)
}

/// Writes the file. Not synced: it may be lost.
pub(super) fn save(dir: &Path, acked: &[EntryId]) -> Result<(), PathError> {
    let (path, new) = (dir.join(FILE), dir.join("acks.new"));
    let body: Vec<u8> = acked.iter().flat_map(|id| *id.as_bytes()).collect();
    let bytes = [crc32c::crc32c(&body).to_le_bytes().as_slice(), &body].concat();
    std::fs::write(&new, bytes).map_err(|e| PathError::new(&new, "write", e))?;
    std::fs::rename(&new, &path).map_err(|e| PathError::new(&path, "rename", e))
}

/// Reads the file; nothing when it is missing or damaged.
pub(super) fn load_saved(dir: &Path) -> Vec<EntryId> {
    let path = dir.join(FILE);
    if !std::fs::metadata(&path).is_ok_and(|m| m.len() <= FILE_LEN_MAX) {
        return Vec::new();
    }
    let bytes = std::fs::read(&path).unwrap_or_default();
    let Some((crc, body)) = bytes.split_first_chunk::<4>() else { return Vec::new() };
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Vec::new();
    }
    body.as_chunks::<32>().0.iter().map(|id| EntryId::from_bytes(*id)).collect()
}

/// An end of the device's chain under which there is work that nobody else is known to hold.
pub(super) struct Unheard {
    /// The end.
    pub(super) tip: EntryId,
    /// The first entry that has work in it, that nobody else is known to hold, and that no entry has named late.
    pub(super) start: EntryId,
}

/// The ends of `device`'s chain with work that nobody had; more than one only when the chain has forked.
pub(super) fn unheard(
    kv: &dyn KvRead,
    device: DeviceId,
    genesis: EntryId,
) -> Result<Vec<Unheard>, StateError> {
    let held = held_by_others(kv, device)?;
    let admissions = admissions(kv, device, genesis)?;
    let mut out = Vec::new();
    for lane in lanes_of(kv, &device)? {
        let Some(tip) = load_lane(kv, lane)?.map(|rec| rec.tip) else { continue };
        let (mut at, mut first) = (Some(tip), None);
        while let Some(id) = at {
            let Some(rec) = load_entry(kv, &id)? else { break };
            if held.iter().any(|(lane, pos)| *lane == rec.lane && rec.pos <= *pos) {
                break;
            }
            if rec.ops > 0 && rec.late.is_none() && !is_before_all(kv, &admissions, &rec)? {
                first = Some(id);
            }
            at = rec.prev;
        }
        out.extend(first.map(|start| Unheard { tip, start }));
    }
    Ok(out)
}

/// All entries of `device` that nobody else is known to hold, each branch of its chain in order.
pub(super) fn unacknowledged(
    kv: &dyn KvRead,
    device: DeviceId,
) -> Result<Vec<EntryId>, StateError> {
    let held = held_by_others(kv, device)?;
    let mut out = Vec::new();
    for lane in lanes_of(kv, &device)? {
        let len = load_lane(kv, lane)?.map_or(0, |lane| lane.len);
        let known = held.iter().find(|(of, _)| *of == lane).map(|(_, pos)| *pos);
        for pos in known.map_or(0, |pos| pos.saturating_add(1))..len {
            out.extend(entry_at(kv, lane, pos)?);
        }
    }
    Ok(out)
}

/// The end of the longest run of the device's chain.
pub(super) fn own_tip(kv: &dyn KvRead, device: DeviceId) -> Result<Option<EntryId>, StateError> {
    let mut best = None;
    for lane in lanes_of(kv, &device)? {
        if let Some(rec) = load_lane(kv, lane)? {
            best = best.max(Some((rec.first_seq + u64::from(rec.len), rec.tip)));
        }
    }
    Ok(best.map(|(_, tip)| tip))
}

fn held_by_others(kv: &dyn KvRead, device: DeviceId) -> Result<Vec<(u32, u32)>, StateError> {
    let own = lanes_of(kv, &device)?;
    let mut held: std::collections::BTreeMap<u32, u32> = Default::default();
    let mut raise = |lane: u32, pos: u32| {
        if own.contains(&lane) {
            let known = held.entry(lane).or_insert(pos);
            *known = pos.max(*known);
        }
    };
    for (_, lane) in chain::lanes(kv)?.into_iter().filter(|(_, lane)| lane.device != device) {
        if let Some(rec) = load_entry(kv, &lane.tip)? {
            clock_of(kv, &rec)?.into_iter().for_each(|(lane, pos)| raise(lane, pos));
        }
    }
    for lane in &own {
        if let Some(pos) = load::<u32>(kv, &key(table::ACK, &[&lane.to_be_bytes()]))? {
            raise(*lane, pos);
        }
    }
    Ok(held.into_iter().collect())
}

/// For the drive's first device: the entries that admitted others. What it wrote before all of
/// them it wrote alone, and nobody can have been overtaken by it. None for any other device.
fn admissions(
    kv: &dyn KvRead,
    device: DeviceId,
    genesis: EntryId,
) -> Result<Option<Vec<EntryRec>>, StateError> {
    if load_entry(kv, &genesis)?.is_none_or(|rec| rec.device != device) {
        return Ok(None);
    }
    let mut out = Vec::new();
    for row in keys_with(kv, &[table::MEMBER_OP])? {
        let version = version_at_end(&row)?;
        if let Some(rec) = load_version(kv, &version)?
            && matches!(&rec.what, What::Member(op) if matches!(**op, Op::Admit { .. }))
        {
            out.extend(load_entry(kv, &version.entry)?);
        }
    }
    Ok(Some(out))
}

fn is_before_all(
    kv: &dyn KvRead,
    admissions: &Option<Vec<EntryRec>>,
    rec: &EntryRec,
) -> Result<bool, StateError> {
    let Some(admissions) = admissions else { return Ok(false) };
    for admission in admissions {
        if !chain::sees(kv, admission, rec)? {
            return Ok(false);
        }
    }
    Ok(true)
}
