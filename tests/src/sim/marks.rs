//! Coverage marks: how often each kind of conflict, fault and recovery came about.
//!
//! Leaves out: judging; whoever runs many seeds looks for marks that were never hit.

use std::collections::BTreeMap;

/// Every mark a long run must hit.
pub const EXPECTED: &[&str] = &[
    "conflict: copy shown",
    "conflict: copy of a directory or beside one",
    "conflict: copy resolved",
    "conflict: directory made twice",
    "conflict: directory back after its removal",
    "conflict: edit beats removal",
    "conflict: equal heads are one",
    "conflict: heads of attributes only merged",
    "conflict: move skipped",
    "conflict: stale save beside the official",
    "conflict: three or more heads",
    "exchange: held back until the offer is in",
    "exchange: late entry written",
    "exchange: missing entry asked for",
    "exchange: session ended by the other's fault",
    "exchange: session replaced by a newer one",
    "fault: append failed",
    "fault: backup restored",
    "fault: clock jumped",
    "fault: connection cut",
    "fault: direction clogged",
    "fault: disk cloned",
    "fault: disk full",
    "fault: entries delivered oddly",
    "fault: garbage on the wire",
    "fault: half-open connection",
    "fault: loss of power",
    "fault: loss of power within a write",
    "fault: malice: bad signature",
    "fault: malice: far future",
    "fault: malice: fork",
    "fault: malice: unknown references",
    "fault: malice: very many operations",
    "fault: malice: wrong bases",
    "fault: malice: wrong chain or clock",
    "fault: partition, asymmetric",
    "fault: process crash",
    "fault: process crash within a write",
    "fault: rot",
    "fault: suspended",
    "fault: sync failed",
    "locks: decided at once",
    "locks: held below a directory",
    "locks: held whole",
    "locks: held without some",
    "locks: lost",
    "locks: refused",
    "locks: told of a newer version",
    "locks: two hold one, apart",
    "members: invitation void at its use",
    "members: joined",
    "members: refused at the door",
    "members: removed",
    "members: role changed",
    "members: taken back in",
    "recovery: entries waited for missing ones",
    "recovery: joined again after a crash in the join",
    "recovery: damaged entry written anew",
    "recovery: restarted, state kept",
    "recovery: state made anew from the log",
    "recovery: torn end cut off",
];

/// Counters by name.
#[derive(Clone, Default, Debug)]
pub struct Marks(BTreeMap<&'static str, u64>);

impl Marks {
    /// Counts one.
    pub(crate) fn hit(&mut self, mark: &'static str) {
        self.add(mark, 1);
    }

    pub(crate) fn add(&mut self, mark: &'static str, count: u64) {
        if count > 0 {
            *self.0.entry(mark).or_default() += count;
        }
    }

    /// Takes another run's in.
    pub fn join(&mut self, other: &Marks) {
        other.0.iter().for_each(|(mark, count)| self.add(mark, *count));
    }

    /// All that were hit, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(mark, count)| (*mark, *count))
    }

    /// Expected ones that were hit less often than `least`.
    pub fn below(&self, least: u64) -> Vec<(&'static str, u64)> {
        let count = |mark: &&'static str| (*mark, self.0.get(mark).copied().unwrap_or_default());
        EXPECTED.iter().map(count).filter(|(_, count)| *count < least).collect()
    }
}
