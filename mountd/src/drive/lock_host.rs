//! What the locks of `net` ask of the drive's journal.
//!
//! Leaves out: who needs a lock for what.
//!
//! Invariant: a journal that cannot be read makes nothing newer: a lock must not become impossible by that.

use std::collections::{BTreeSet, VecDeque};

use journal::hlc::Hlc;
use journal::{Register, Standing, VersionId};
use net::LockHost;

use super::Drive;

/// Versions looked at on the way down; a file saved oftener since then is newer all the same, and is not said to be.
const STEPS_MAX: usize = 1000;

impl LockHost for Drive {
    fn is_newer(&self, register: &Register, bases: &[VersionId]) -> bool {
        // The official one is shown under the plain name; nothing there is no newer version of anything.
        let Ok(Some(node)) = self.journal.lookup(register.dir, &register.name) else {
            return false;
        };
        let official = node.standing == Standing::Official;
        official && !is_one(&node.merged, bases) && self.replaces(node.merged, bases)
    }
}

impl Drive {
    /// Of two claims that meet the one begun earlier has it, as far as clocks can be believed.
    pub(super) fn lock_priority(&self) -> u64 {
        Hlc::from_ms(self.journal.believed_ms(self.clock.now())).get()
    }

    /// Whether one of `bases` lies below these versions.
    fn replaces(&self, versions: Vec<VersionId>, bases: &[VersionId]) -> bool {
        let mut seen: BTreeSet<VersionId> = versions.iter().copied().collect();
        let mut todo = VecDeque::from(versions);
        while let Some(version) = todo.pop_front() {
            for below in self.journal.bases(version).unwrap_or_default() {
                if bases.contains(&below) {
                    return true;
                }
                if seen.len() < STEPS_MAX && seen.insert(below) {
                    todo.push_back(below);
                }
            }
        }
        false
    }
}

fn is_one(merged: &[VersionId], bases: &[VersionId]) -> bool {
    merged.iter().any(|version| bases.contains(version))
}
