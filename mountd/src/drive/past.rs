//! The drive's past as the file system asks for it.
//!
//! Leaves out how the past is worked out (`journal`) and how it is shown (`vfs`).
//!
//! Invariants:
//! - at most [`MOMENTS_MAX`] moments are remembered; what is dropped is worked out again.

use std::collections::VecDeque;
use std::sync::Arc;

use journal::name::EntryName;
use journal::view::{HistoryVersion, OnceNode, ViewNode};
use journal::{DirId, Moment};
use parking_lot::Mutex;
use vfs::{Past, Snapshot, StateError, Told};

use super::Drive;
use super::tree::unreadable;

/// Moments remembered.
const MOMENTS_MAX: usize = 8;

/// Moments that were looked at lately, the last one last.
#[derive(Default)]
pub(super) struct Moments(Mutex<VecDeque<(Moment, Arc<journal::Past>)>>);

impl Moments {
    /// The tree at `moment`.
    pub(super) fn at(&self, moment: Moment) -> Arc<journal::Past> {
        let mut all = self.0.lock();
        let known = all.iter().position(|(other, _)| *other == moment);
        let past = match known.and_then(|at| all.remove(at)) {
            Some((_, past)) => past,
            None => Arc::new(journal::Past::new(moment)),
        };
        while all.len() >= MOMENTS_MAX {
            all.pop_front();
        }
        all.push_back((moment, Arc::clone(&past)));
        past
    }
}

impl Past for Drive {
    fn generation(&self) -> u64 {
        self.journal.counts().entries
    }

    fn snapshots(&self) -> Result<Vec<Snapshot>, StateError> {
        let all = self.journal.snapshots().map_err(unreadable)?;
        let all = all.into_iter().map(|s| Snapshot {
            name: s.name,
            moment: Moment::Snapshot(s.entry),
            taken_ms: s.saved_at_ms,
        });
        Ok(all.collect())
    }

    fn existed(&self, moment: Moment) -> Result<bool, StateError> {
        self.journal.existed(moment).map_err(unreadable)
    }

    fn differ(&self, one: Moment, other: Moment) -> Result<bool, StateError> {
        self.journal.differ(one, other).map_err(unreadable)
    }

    fn lookup_then(
        &self,
        moment: Moment,
        dir: DirId,
        shown: &EntryName,
    ) -> Result<Option<ViewNode>, StateError> {
        self.moments.at(moment).lookup(&self.journal, dir, shown).map_err(unreadable)
    }

    fn list_then(&self, moment: Moment, dir: DirId) -> Result<Vec<ViewNode>, StateError> {
        self.moments.at(moment).list(&self.journal, dir).map_err(unreadable)
    }

    fn once(&self, dir: DirId) -> Result<Vec<OnceNode>, StateError> {
        self.journal.once(dir).map_err(unreadable)
    }

    fn once_at(&self, dir: DirId, name: &EntryName) -> Result<Option<OnceNode>, StateError> {
        self.journal.once_at(dir, name).map_err(unreadable)
    }

    fn history(&self, dir: DirId, name: &EntryName) -> Result<Vec<HistoryVersion>, StateError> {
        self.journal.history(dir, name).map_err(unreadable)
    }

    fn told(&self, dir: DirId, shown: &EntryName) -> Result<Option<Told>, StateError> {
        let node = self.journal.lookup(dir, shown).map_err(unreadable)?;
        Ok(node.map(|node| {
            let (arriving, author) = (self.is_arriving(&node), self.device_name(node.author));
            Told { node, arriving, author }
        }))
    }
}
