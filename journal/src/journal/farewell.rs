//! What a removed device is still told: everything up to its removal, so that it learns of that, and nothing after it.
//!
//! Leaves out: who is let in to hear it, how often and for how long (`net`).
//!
//! Invariants:
//! - an entry that its (first) removal had not seen is not given to it, unless it wrote that itself;
//! - a member, and who never was one, is given nothing here.

use std::sync::Arc;

use super::Journal;
use crate::chain::{self, Frontier, LaneRun, clock_of};
use crate::error::StateError;
use crate::id::{DeviceId, EntryId};
use crate::kv::KvRead;
use crate::member::Members;
use crate::records::load_entry;

impl Journal {
    /// The tips of what `device` is told; none unless it is removed.
    pub fn farewell_frontier(&self, device: DeviceId) -> Option<Frontier> {
        self.look_or(None, |kv| Ok(runs_for(kv, device)?.map(|runs| chain::tips_of(&runs))))
    }

    /// What of that a holder of `theirs` lacks, as [`Journal::lacking`].
    pub fn farewell_lacking(
        &self,
        device: DeviceId,
        theirs: &Frontier,
        bytes_max: usize,
    ) -> Vec<Arc<[u8]>> {
        let lacking = self.look_or(Vec::new(), |kv| match runs_for(kv, device)? {
            Some(runs) => chain::lacking_of(kv, &runs, theirs, bytes_max),
            None => Ok(Vec::new()),
        });
        lacking.into_iter().map_while(|(id, at)| self.bytes_at(&id, at)).collect()
    }

    /// One entry of that.
    pub fn farewell_entry(&self, device: DeviceId, id: &EntryId) -> Option<Arc<[u8]>> {
        let at = self.look_or(None, |kv| {
            let (Some(rec), Some(runs)) = (load_entry(kv, id)?, runs_for(kv, device)?) else {
                return Ok(None);
            };
            let run = runs.iter().find(|(lane, _)| *lane == rec.lane);
            Ok(run.filter(|(_, run)| rec.pos < run.len).map(|_| rec.at))
        })?;
        self.bytes_at(id, at)
    }
}

/// Every chain as far as `device` is told of it.
fn runs_for(kv: &dyn KvRead, device: DeviceId) -> Result<Option<Vec<LaneRun>>, StateError> {
    let members = Members::load(kv)?;
    let Some(member) = members.get(&device).filter(|m| m.role().is_none()) else {
        return Ok(None);
    };
    let Some(removal) = member.changes.iter().find(|change| change.role.is_none()) else {
        return Ok(None);
    };
    let Some(rec) = load_entry(kv, &removal.by.entry)? else { return Ok(None) };
    let seen = clock_of(kv, &rec)?;
    let mut runs = Vec::new();
    for (lane, mut run) in chain::lanes(kv)? {
        if run.device != device {
            let Some(last) = seen.get(&lane) else { continue };
            let Some(tip) = chain::entry_at(kv, lane, *last)? else { continue };
            (run.len, run.tip) = (last.saturating_add(1).min(run.len), tip);
        }
        runs.push((lane, run));
    }
    Ok(Some(runs))
}
