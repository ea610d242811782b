//! What removed devices wrote outside their removals' frontiers: looking at it, and taking it back in.
//!
//! Leaves out: why it does not count ([`crate::member`]).
//!
//! Invariants:
//! - taking back changes nothing about what counts already, and leaves the device removed: what arrives of it later is
//!   quarantined as before;
//! - only what is known here is taken back.

use super::Journal;
use crate::chain::{entry_at, lanes_of, load_lane};
use crate::error::StateError;
use crate::id::{DeviceId, EntryId, VersionId};
use crate::kv::KvRead;
use crate::member::Members;
use crate::op::{Op, Value};
use crate::records::{EntryRec, load_entry, load_version};

/// Most entries of one device looked at; beyond them the oldest are not told of one by one.
const LOOKED_AT_MAX: usize = 65_536;

/// One version that does not count because its author was removed.
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

/// A device's chains: the last entries that count, and what follows them.
struct Halves {
    counts: Vec<EntryId>,
    tips: Vec<EntryId>,
    /// Newest first within a chain.
    aside: Vec<(EntryId, EntryRec)>,
}

impl Journal {
    /// What `device` wrote that does not count because it was removed, oldest first.
    pub fn set_aside(&self, device: DeviceId) -> Result<Vec<SetAside>, StateError> {
        self.look(|kv| {
            let mut aside = halves(kv, &device)?.aside;
            aside.sort_by_key(|(id, rec)| rec.order(*id));
            let mut out = Vec::new();
            for (entry, rec) in aside {
                for index in 0..rec.ops {
                    let version = VersionId::new(entry, index);
                    let Some(found) = load_version(kv, &version)? else { continue };
                    let value = found.value();
                    let Some(register) = found.register else { continue };
                    let saved_at_ms = found.saved_at_ms;
                    out.push(SetAside { version, register, value, saved_at_ms });
                }
            }
            Ok(out)
        })
    }

    /// The operations that let count what `device` wrote before it was removed and the removal had not seen, as far as
    /// it is known here. None when there is nothing of the kind.
    pub fn take_back(&self, device: DeviceId) -> Result<Vec<Op>, StateError> {
        self.look(|kv| {
            let members = Members::load(kv)?;
            let Some(member) = members.get(&device).filter(|m| m.role().is_none()) else {
                return Ok(Vec::new());
            };
            let Halves { counts, tips, aside } = halves(kv, &device)?;
            if aside.is_empty() {
                return Ok(Vec::new());
            }
            let role = member.last_role();
            Ok(vec![
                Op::SetRole { device, role, frontier: counts },
                Op::Remove { device, frontier: tips },
            ])
        })
    }
}

fn halves(kv: &dyn KvRead, device: &DeviceId) -> Result<Halves, StateError> {
    let mut halves = Halves { counts: Vec::new(), tips: Vec::new(), aside: Vec::new() };
    for lane in lanes_of(kv, device)? {
        let Some(rec) = load_lane(kv, lane)? else { continue };
        halves.tips.push(rec.tip);
        // A removal cuts the end off a chain. What an older one had cut off before the device was let in again is not
        // looked for.
        for pos in (0..rec.len).rev() {
            let Some(id) = entry_at(kv, lane, pos)? else { break };
            let Some(entry) = load_entry(kv, &id)? else { break };
            if entry.standing.is_some() {
                halves.counts.push(id);
                break;
            }
            if halves.aside.len() < LOOKED_AT_MAX {
                halves.aside.push((id, entry));
            }
        }
    }
    Ok(halves)
}
