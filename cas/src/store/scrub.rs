//! Verifying everything that is stored.
//!
//! Leaves out: repairing; the daemon fetches what is quarantined.
//!
//! Invariants: a chunk is reported bad only when no sound record of it is left; memory is bounded by one pack's list.

use super::Inner;
use crate::error::ReadError;
use crate::id::ChunkId;

/// Where a scrub is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScrubStep {
    /// Records verified so far.
    pub chunks_done: u64,
    /// Records there are; may grow while the scrub runs.
    pub chunks_total: u64,
    /// The chunk just looked at.
    pub chunk: ChunkId,
    /// Whether it was damaged.
    pub bad: bool,
}

/// What a scrub found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ScrubReport {
    /// Records verified.
    pub chunks: u64,
    /// Chunks without a sound record; they are quarantined.
    pub bad: Vec<ChunkId>,
}

impl Inner {
    pub(super) fn scrub(&self, step: &mut dyn FnMut(ScrubStep)) -> Result<ScrubReport, ReadError> {
        let (packs, chunks_total) = {
            let appender = self.appender.lock();
            (appender.packs.keys().copied().collect::<Vec<u32>>(), appender.usage().chunks)
        };
        let mut report = ScrubReport { bad: self.quarantine.list(), ..ScrubReport::default() };
        for number in packs {
            // Until it is through with the pack nothing of it is collected, which would look like damage.
            let _upkeep = self.upkeep.lock();
            if self.files.is_gone(number) {
                continue;
            }
            let mut entries = self.entries(number)?;
            // In the order of the disk.
            entries.sort_unstable_by_key(|entry| entry.offset);
            for entry in entries {
                let bad = match self.find(&entry.id) {
                    Ok(_) => false,
                    Err(ReadError::Corrupt { .. } | ReadError::Missing { .. }) => true,
                    Err(error) => return Err(error),
                };
                report.chunks += 1;
                if bad && !report.bad.contains(&entry.id) {
                    self.quarantine.add(self.backend.as_ref(), &entry.id);
                    report.bad.push(entry.id);
                }
                step(ScrubStep {
                    chunks_done: report.chunks,
                    chunks_total: chunks_total.max(report.chunks),
                    chunk: entry.id,
                    bad,
                });
            }
        }
        Ok(report)
    }
}
