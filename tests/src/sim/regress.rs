//! Seeds that once failed, by what was wrong.
//!
//! Leaves out: why; the commit that mended it says so.

use super::plan::Plan;

/// One seed that must not fail again.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What went wrong.
    pub what: &'static str,
    /// Its seed.
    pub seed: u64,
    /// Acts in its plan.
    pub steps: usize,
    /// Whether programs ask for session locks; the first cases are from before they did.
    pub locks: bool,
}

impl Case {
    /// Its plan.
    pub fn plan(&self) -> Plan {
        Plan { session_locks: self.locks, ..Plan::of(self.seed, self.steps) }
    }
}

/// All of them.
pub const CASES: &[Case] = &[
    Case {
        what: "a failed sync, a restart, and the entry is sent",
        seed: 2,
        steps: 250,
        locks: false,
    },
    Case { what: "the same where the log has a gap", seed: 61, steps: 150, locks: false },
    Case {
        what: "late work leaves unnamed when the disk is full",
        seed: 4,
        steps: 250,
        locks: false,
    },
    Case { what: "an entry from before its author's admission", seed: 7, steps: 250, locks: false },
    Case { what: "two branches of one chain never meet", seed: 12, steps: 250, locks: false },
    Case {
        what: "what a removed device saved under a copy's name is in no history",
        seed: 250,
        steps: 150,
        locks: false,
    },
    Case {
        what: "a change of mode passes for having seen the save it was merged with",
        seed: 1278,
        steps: 150,
        locks: false,
    },
    Case {
        what: "what a loss of power tore out of the unsynced end passes for damage",
        seed: 1281,
        steps: 150,
        locks: false,
    },
    Case {
        what: "a save over two changes of mode is a copy of nothing",
        seed: 1520,
        steps: 150,
        locks: false,
    },
    Case { what: "the same, where the save is another's", seed: 2376, steps: 150, locks: false },
    Case {
        what: "who misses an admission is let in by nobody",
        seed: 1242,
        steps: 150,
        locks: false,
    },
    Case { what: "the same, below an admission", seed: 1980, steps: 150, locks: false },
    Case {
        what: "an honest device is blamed for another's entry",
        seed: 56,
        steps: 250,
        locks: false,
    },
    Case {
        what: "a failed sync, a restart, and a content is said to be held",
        seed: 123,
        steps: 150,
        locks: false,
    },
    Case {
        what: "each of two holders is the better one by its own clock",
        seed: 70,
        steps: 150,
        locks: true,
    },
    Case {
        what: "a move back over another's save leaves nothing official",
        seed: 178,
        steps: 150,
        locks: true,
    },
];
