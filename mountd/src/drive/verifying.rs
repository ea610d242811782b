//! `atelier verify`: every chunk against its name, every link of the journal.
//!
//! Leaves out how each is checked (`cas`, `journal`).
//!
//! Invariants: a damaged chunk is counted as repaired only when its bytes are on this disk again and
//! hash to its name.

use std::collections::BTreeSet;
use std::time::Duration;

use cas::{ChunkId, Content};

use super::Drive;
use crate::ipc::{Progress, Unit, VerifyReport};
use crate::report::Failure;

/// Contents looked at per step.
const WALK_STEP: usize = 1_024;
/// Lost chunks counted at most; the rest are found by the next run.
const LOST_MAX: usize = 1 << 20;
/// Chunks asked for at a time while repairing.
const REPAIR_STEP: usize = 256;
/// How long one step of a repair may take.
const REPAIR_WAIT: Duration = Duration::from_secs(60);

impl Drive {
    /// Checks everything; with `repair` also fetches what is damaged from the others.
    pub fn verify(
        &self,
        repair: bool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<VerifyReport, Failure> {
        let total = Some(self.store.usage().chunks);
        let mut tell = |stage: &str, done, total| {
            progress(Progress { stage: stage.into(), done, total, unit: Unit::Items });
        };
        let mut bad: BTreeSet<ChunkId> = self.store.quarantined().into_iter().collect();
        let scrubbed =
            self.store.scrub(&mut |step| tell("checking chunks", step.chunks_done, total));
        let scrubbed = scrubbed.map_err(|e| Failure::of(&e))?;
        bad.extend(scrubbed.bad);
        bad.extend(self.lost_chunks()?);
        let bad: Vec<ChunkId> = bad.into_iter().collect();
        let entries = Some(self.journal.counts().entries);
        let checked = self.journal.verify(&mut |done| tell("checking the journal", done, entries));
        let checked = checked.map_err(|e| Failure::of(&e))?;
        if let (true, Some(net)) = (checked.bad > 0, self.net()) {
            // Peers are asked for what is missed.
            net.journal_changed();
        }
        let repaired = if repair { self.repair(&bad) } else { 0 };
        if repaired < bad.len() as u64 {
            self.damage_found();
        }
        Ok(VerifyReport {
            chunks: scrubbed.chunks,
            bad: bad.len() as u64,
            repaired,
            journal_entries: checked.entries,
            journal_bad: checked.bad,
        })
    }

    /// Chunks of contents that were complete here once and are not any more.
    fn lost_chunks(&self) -> Result<Vec<ChunkId>, Failure> {
        let mut lost = Vec::new();
        if !self.fetching.keeps_all() {
            return Ok(lost);
        }
        let (mut cursor, mut rules) = (None, None);
        loop {
            let (contents, next) = self.journal.contents(cursor.as_ref(), WALK_STEP);
            for named in contents {
                let content = Content { id: named.content.id, len: named.content.len };
                // What has never been here is on its way, not lost.
                let damaged = self.store.lost_records() || self.fetching.was_damaged();
                if self.fetching.is_pending(&content.id) && !damaged {
                    continue;
                }
                let missing = cas::missing_chunks(content, &self.store, LOST_MAX);
                let missing = missing.map_err(|e| Failure::of(&e))?;
                // What the policy has let go of is not lost.
                if !missing.complete && self.is_owed(named.version, &mut rules) {
                    lost.extend(missing.ids);
                }
            }
            cursor = next;
            if cursor.is_none() || lost.len() >= LOST_MAX {
                return Ok(lost);
            }
        }
    }

    /// Fetches the damaged chunks; says how many are good again.
    fn repair(&self, bad: &[ChunkId]) -> u64 {
        let Some(net) = self.net() else { return 0 };
        for step in bad.chunks(REPAIR_STEP) {
            if let Err(error) = net.fetch_now_blocking(step.to_vec(), REPAIR_WAIT) {
                tracing::warn!(%error, "some damaged chunks could not be fetched");
            }
        }
        let synced = self.store.sync();
        if let Err(error) = synced {
            tracing::error!(%error, "repaired chunks could not be made durable");
            return 0;
        }
        bad.iter().filter(|id| self.store.get(id).is_ok()).count() as u64
    }
}
