//! What a table believes, for whoever checks that no two tables believe what excludes each other.
//!
//! Leaves out: what a host needs ([`Table::held`], [`Table::known`]).

use journal::id::DirId;

use super::*;

/// An own lock, as its holder sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Belief {
    /// The claim's number.
    pub id: u64,
    /// For what.
    pub scope: Scope,
    /// The directories above.
    pub chain: Vec<DirId>,
    /// Whose grants count now.
    pub granted: BTreeSet<DeviceId>,
    /// How many members have not granted it.
    pub unreachable: u32,
}

impl Belief {
    /// Whether both cannot be had.
    pub fn overlaps(&self, other: &Belief) -> bool {
        let within = |a: &Belief, b: &Belief| match a.scope {
            Scope::Below(dir) => b.chain.contains(&dir),
            Scope::Name(_) => a.scope == b.scope,
        };
        within(self, other) || within(other, self)
    }
}

impl Table {
    /// All own locks.
    pub fn beliefs(&self, now: Now) -> Vec<Belief> {
        let slept = now.boot_ms.saturating_sub(self.now_ms) >= limits::LOCK_COUNTED_MS;
        if slept && self.keeps(Rule::SleepLosesAll) {
            return Vec::new();
        }
        let own = self.book.of(self.me).filter(|(_, entry)| entry.standing == Standing::Own);
        let belief = |(key, entry): (&Key, &Entry)| {
            let counts = |device: &&DeviceId| {
                self.peers.get(device).is_some_and(|peer| peer.counts(now.boot_ms, self))
            };
            let granted = self.mine.get(&key.1).map(|mine| &mine.granted);
            Belief {
                id: key.1,
                scope: entry.scope.clone(),
                chain: entry.chain.clone(),
                granted: granted.into_iter().flatten().filter(counts).copied().collect(),
                unreachable: self.unreachable(now.boot_ms, key.1),
            }
        };
        own.map(belief).collect()
    }

    /// Whether a claim waits that should have been decided.
    pub fn is_overdue(&self) -> bool {
        self.undecided.first().is_some_and(|(at_ms, _)| *at_ms <= self.now_ms)
    }

    /// Whether nothing waits to be decided.
    pub fn is_decided(&self) -> bool {
        self.undecided.is_empty()
    }

    /// Whether it grants nothing yet.
    pub fn is_in_grace(&self) -> bool {
        self.grace
    }

    /// Which run of `device` is known here.
    pub fn incarnation_of(&self, device: &DeviceId) -> Option<u64> {
        self.peers.get(device).and_then(|peer| peer.incarnation)
    }
}
