//! What devices wrote before they heard that they were removed or made readers: looking at it, and taking it back in.
//!
//! Leaves out: why it does not count ([`crate::member`]).
//!
//! Invariants:
//! - taking back changes nothing about what counts already, and leaves the device as it is, removed or a reader: what
//!   arrives of it later is kept aside as before;
//! - only what is known here is taken back, and with an editor's rights: nobody becomes an owner by it;
//! - what is looked at costs what is kept aside, not how much the device ever wrote, and is bounded: newest first in each
//!   chain, so the oldest is what is left out. Taking back lets all of it count.

use std::collections::BTreeSet;

use super::Journal;
use crate::chain::{clock_of, entry_at, lanes_of, load_lane};
use crate::error::StateError;
use crate::id::{DeviceId, EntryId, VersionId};
use crate::kv::KvRead;
use crate::member::{MemberState, Members};
use crate::op::{Op, Role, Value};
use crate::records::{EntryRec, load_entry, load_version};

/// Most versions of one device that are named; beyond them the oldest are left out.
pub const SET_ASIDE_MAX: usize = 10_000;
/// Most entries looked at in each stretch of a chain.
const LOOKED_AT_MAX: usize = 65_536;

/// One version that does not count because its author was removed or made a reader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetAside {
    /// The version.
    pub version: VersionId,
    /// Where it was written.
    pub register: crate::name::Register,
    /// What it wrote; none for a directory, made or moved.
    pub value: Option<Value>,
    /// The author's wall clock, for display only.
    pub saved_at_ms: u64,
}

/// How much of a device's work does not count for that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AsideCount {
    /// The versions that were counted.
    pub count: usize,
    /// Whether there are more.
    pub more: bool,
    /// The earliest date of those that were counted, by their author's wall clock; the end of time when none was.
    pub since_ms: u64,
}

/// A device's chains: the last entries that count, what was kept aside after them, what follows that.
#[derive(Default)]
struct Parts {
    counts: Vec<EntryId>,
    /// Newest first within a chain, as far as there was room; of each chain with something aside the last.
    aside: Vec<(EntryId, EntryRec)>,
    /// How many more operations are looked at.
    room: usize,
    /// Whether something was left out for want of room.
    more: bool,
    /// The last entries up to which something is aside, or counts.
    ends: Vec<EntryId>,
    tips: Vec<EntryId>,
    /// The role in what follows the ends and counts, as in a device that was made an editor again.
    above: Option<Role>,
    /// The role in the last entries that count.
    before: Option<Role>,
}

impl Journal {
    /// What `device` wrote that does not count because it was removed or made a reader, oldest first, at most the last
    /// [`SET_ASIDE_MAX`]. Of chains in which that happened several times, the last time.
    pub fn set_aside(&self, device: DeviceId) -> Result<Vec<SetAside>, StateError> {
        self.look(|kv| {
            let mut out = Vec::new();
            let Some(parts) = parts_of(kv, &device, SET_ASIDE_MAX)? else { return Ok(out) };
            each_aside(kv, parts.aside, &mut |found| {
                out.push(found);
                out.len() < SET_ASIDE_MAX
            })?;
            out.reverse();
            Ok(out)
        })
    }

    /// How much that is, counted up to `at_most`; none when nothing is set aside.
    pub fn set_aside_count(
        &self,
        device: DeviceId,
        at_most: usize,
    ) -> Result<Option<AsideCount>, StateError> {
        self.look(|kv| {
            let room = at_most.saturating_add(1);
            let Some(parts) = parts_of(kv, &device, room)? else { return Ok(None) };
            let (mut count, mut more, mut since_ms) = (0, parts.more, u64::MAX);
            each_aside(kv, parts.aside, &mut |found| {
                let fits = count < at_most;
                if fits {
                    count += 1;
                    since_ms = since_ms.min(found.saved_at_ms);
                }
                more |= !fits;
                fits
            })?;
            Ok((count > 0 || more).then_some(AsideCount { count, more, since_ms }))
        })
    }

    /// The operations that let count what `device` wrote before it was removed or made a reader and whoever did that had
    /// not seen, as far as it is known here. None when there is nothing of the kind.
    pub fn take_back(&self, device: DeviceId) -> Result<Vec<Op>, StateError> {
        self.look(|kv| {
            let members = Members::load(kv)?;
            let (Some(member), Some(parts)) = (members.get(&device), parts_of(kv, &device, 1)?)
            else {
                return Ok(Vec::new());
            };
            if parts.aside.is_empty() {
                return Ok(Vec::new());
            }
            let Parts { counts, ends, tips, above, before, .. } = parts;
            // Never an owner's: an owner that was admitted earlier than whoever takes back would keep that role.
            let had = before.or_else(|| writing(member)).unwrap_or_else(|| member.last_role());
            let had = had.min(Role::Editor);
            let is_removed = member.role().is_none();
            let capped = |role: Role| if is_removed { role.min(Role::Editor) } else { role };
            let above = above.map(capped);
            let mut ops = vec![Op::SetRole { device, role: had, frontier: counts }];
            let mut role = Some(had);
            let mut then = |ops: &mut Vec<Op>, next: Option<Role>, frontier: Vec<EntryId>| {
                if next != role {
                    ops.push(match next {
                        Some(role) => Op::SetRole { device, role, frontier },
                        None => Op::Remove { device, frontier },
                    });
                    role = next;
                }
            };
            if above.is_some() {
                then(&mut ops, above, ends);
            }
            if is_removed {
                // The role that is shown for it stays the one it had.
                then(&mut ops, Some(capped(member.last_role())), tips.clone());
            }
            then(&mut ops, member.role(), tips);
            Ok(ops)
        })
    }
}

/// Gives `take` the versions of these entries, newest first, until it wants no more.
fn each_aside(
    kv: &dyn KvRead,
    mut aside: Vec<(EntryId, EntryRec)>,
    take: &mut dyn FnMut(SetAside) -> bool,
) -> Result<(), StateError> {
    aside.sort_by_key(|(id, rec)| rec.order(*id));
    for (entry, rec) in aside.into_iter().rev() {
        for index in (0..rec.ops).rev() {
            let version = VersionId::new(entry, index);
            let Some(found) = load_version(kv, &version)? else { continue };
            let value = found.value();
            let Some(register) = found.register else { continue };
            let saved_at_ms = found.saved_at_ms;
            if !take(SetAside { version, register, value, saved_at_ms }) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The last role of `member` that let it write.
fn writing(member: &MemberState) -> Option<Role> {
    let all = member.changes.iter().rev().filter_map(|change| change.role);
    all.chain([member.base]).find(|role| *role >= Role::Editor)
}

/// Whether somebody took its author's right to write away before it was known.
fn is_aside(rec: &EntryRec) -> bool {
    rec.standing.is_none() || (rec.standing == Some(Role::Reader) && rec.is_beyond())
}

/// The chains of `device`, when it was ever removed or given another role; about `room` operations of what is aside.
fn parts_of(kv: &dyn KvRead, device: &DeviceId, room: usize) -> Result<Option<Parts>, StateError> {
    let members = Members::load(kv)?;
    let Some(member) = members.get(device).filter(|m| !m.changes.is_empty()) else {
        return Ok(None);
    };
    // Who never had a right to write lost none.
    if member.role().is_some() && writing(member).is_none() {
        return Ok(None);
    }
    let (mut parts, mut above) = (Parts { room, ..Parts::default() }, BTreeSet::new());
    for lane in lanes_of(kv, device)? {
        add_lane(kv, lane, member, &mut parts, &mut above)?;
    }
    parts.above = above.first().copied();
    // Two changes of role after it cannot be kept apart by one frontier: it is only in the history.
    Ok((above.len() <= 1).then_some(parts))
}

/// Where the author's role changes within `lane`: the first positions that each change had not seen.
fn steps(kv: &dyn KvRead, lane: u32, member: &MemberState) -> Result<BTreeSet<u32>, StateError> {
    let mut steps = BTreeSet::from([0]);
    for change in &member.changes {
        let mut first = 0;
        for id in &change.frontier {
            if let Some(last) = load_entry(kv, id)?
                && let Some(pos) = clock_of(kv, &last)?.get(&lane)
            {
                first = first.max(pos.saturating_add(1));
            }
        }
        steps.insert(first);
    }
    Ok(steps)
}

fn add_lane(
    kv: &dyn KvRead,
    lane: u32,
    member: &MemberState,
    parts: &mut Parts,
    above: &mut BTreeSet<Role>,
) -> Result<(), StateError> {
    let Some(rec) = load_lane(kv, lane)? else { return Ok(()) };
    let (mut aside, mut over, mut end) = (Vec::new(), BTreeSet::new(), None);
    let mut to = rec.len;
    // From the newest stretch of one role to the oldest.
    for from in steps(kv, lane, member)?.into_iter().rev().filter(|from| *from < rec.len) {
        let Some(last) = entry_at(kv, lane, to.saturating_sub(1))? else { break };
        let Some(found) = load_entry(kv, &last)? else { break };
        match found.standing.filter(|role| *role >= Role::Editor) {
            Some(role) if aside.is_empty() => {
                over.insert(role);
            }
            Some(role) => {
                parts.counts.push(last);
                parts.before = parts.before.max(Some(role));
                break;
            }
            None => {
                for pos in (from..to).rev().take(LOOKED_AT_MAX) {
                    let Some(id) = entry_at(kv, lane, pos)? else { break };
                    let Some(entry) = load_entry(kv, &id)? else { break };
                    if !is_aside(&entry) {
                        continue;
                    }
                    if parts.room == 0 && !aside.is_empty() {
                        parts.more = true;
                        break;
                    }
                    // An entry without operations has its price, too.
                    parts.room = parts.room.saturating_sub(entry.ops.max(1) as usize);
                    aside.push((id, entry));
                }
                // What follows a stretch with something aside begins after the whole of it.
                if end.is_none() && !aside.is_empty() {
                    end = Some(last);
                }
            }
        }
        to = from;
    }
    parts.tips.push(rec.tip);
    match end {
        Some(end) => {
            above.extend(over);
            parts.ends.push(end);
        }
        None => {
            parts.counts.push(rec.tip);
            parts.ends.push(rec.tip);
        }
    }
    parts.aside.append(&mut aside);
    Ok(())
}
