//! What must hold of session locks, after every event that touched a table: L1 to L5, L8 and L9 of the list.
//!
//! Leaves out: L6 (contention, in the search through `net::locks`) and L7 (breaks, which are the journal's).
//!
//! Invariants: nothing is asked of devices that were cloned, or just after members came or went: a grant of a device
//! that has forgotten, by a removal or a backup, may count until its lease is over.

use std::collections::BTreeSet;

use net::limits;
use net::locks::{Belief, LockInfo, LockKind, Scope};

use super::super::fail::{Broken, ensure};
use super::super::ledger::Who;
use super::super::world::World;

/// By the slowest clock.
const LEASE_MS: u64 = limits::LOCK_LEASE_MS + limits::LOCK_LEASE_MS / 50;

impl World {
    fn seats(&self) -> impl Iterator<Item = (Who, &super::Seat)> {
        let seats = self.devices.iter().enumerate();
        seats.filter_map(|(who, device)| device.seat.as_ref().map(|seat| (who, seat)))
    }

    fn has_twins(&self) -> bool {
        let ids: BTreeSet<_> = self.devices.iter().map(|device| device.id).collect();
        ids.len() < self.devices.len()
    }

    /// After an event that touched a table.
    pub(crate) fn check_locks(&mut self) -> Result<(), Broken> {
        if !std::mem::take(&mut self.locks.touched) {
            return Ok(());
        }
        let mut beliefs: Vec<(Who, Belief)> = Vec::new();
        for (who, seat) in self.seats() {
            let own = seat.table.beliefs(self.lock_now(who));
            let awake = self.devices[who].asleep_until <= self.now;
            ensure("L5", !awake || !seat.table.is_overdue(), || {
                format!("a claim of device {who} waits beyond its time")
            })?;
            let slept_on = own.iter().find(|belief| seat.slept_on.contains(&belief.id));
            ensure("L3", slept_on.is_none(), || {
                format!("device {who} believes in a lock that it slept on: {slept_on:?}")
            })?;
            beliefs.extend(own.into_iter().map(|belief| (who, belief)));
        }
        if beliefs.len() < 2 || self.has_twins() || self.now < self.locks.excused_until {
            return Ok(());
        }
        for (n, (a, first)) in beliefs.iter().enumerate() {
            for (b, second) in beliefs.iter().skip(n + 1) {
                if a != b && first.overlaps(second) {
                    self.marks.hit("locks: two hold one, apart");
                    self.check_clash((*a, first), (*b, second))?;
                }
            }
        }
        Ok(())
    }

    /// Two hold what excludes the other: that may be only while they cannot know.
    fn check_clash(&self, first: (Who, &Belief), second: (Who, &Belief)) -> Result<(), Broken> {
        let ((a, first), (b, second)) = (first, second);
        let told = || format!("devices {a} and {b} hold {first:?} and {second:?}");
        let whole = first.unreachable == 0 && second.unreachable == 0;
        ensure("L1", !whole || !(self.expects(a, b) || self.expects(b, a)), told)?;
        let promised_twice = first.granted.intersection(&second.granted).find(|grantor| {
            let by = self.devices.iter().find(|device| device.id == **grantor);
            by.is_some_and(|device| !device.odd)
        });
        ensure("L1", promised_twice.is_none(), || {
            format!("{}: both by the grant of {promised_twice:?}", told())
        })?;
        let granted = |belief: &Belief, to: Who, by: Who| {
            let run = |who: Who| self.devices[who].seat.as_ref();
            let known = run(to).and_then(|s| s.table.incarnation_of(&self.devices[by].id));
            let same = known.is_some() && known == run(by).map(|seat| seat.incarnation);
            same && belief.granted.contains(&self.devices[by].id)
        };
        ensure("L1", !granted(first, a, b) && !granted(second, b, a), || {
            format!("{}: one by the other's grant", told())
        })?;
        ensure("L2", !self.have_said_all(a, b), told)
    }

    fn expects(&self, who: Who, other: Who) -> bool {
        let seat = self.devices[who].seat.as_ref();
        seat.is_some_and(|seat| seat.expected.contains(&self.devices[other].id))
    }

    /// Whether both are awake and connected, and nothing is under way between them.
    fn have_said_all(&self, a: Who, b: Who) -> bool {
        let met = |x: Who, y: Who| {
            let seat = self.devices[x].seat.as_ref();
            let awake = self.devices[x].asleep_until <= self.now;
            awake && seat.is_some_and(|seat| seat.table.met().contains(&self.devices[y].id))
        };
        met(a, b) && met(b, a) && self.words_have_arrived(a, b)
    }

    /// What a device held that stopped is free after the lease, counted from its last word.
    pub(super) fn check_the_dead(&self, who: Who) -> Result<(), Broken> {
        if self.has_twins() {
            return Ok(());
        }
        let Some(seat) = &self.devices[who].seat else { return Ok(()) };
        for lock in self.others_locks(who) {
            let dead = self.devices.iter().position(|device| device.id == lock.device);
            let Some(dead) = dead.filter(|dead| self.devices[*dead].seat.is_none()) else {
                continue;
            };
            let heard = seat.heard.get(&dead).copied().unwrap_or_default();
            let over = heard.max(self.devices[dead].stopped_at) + LEASE_MS;
            ensure("L4", self.now <= over, || {
                format!("device {who} still sees {:?}, held by {dead}, which stopped", lock.scope)
            })?;
        }
        Ok(())
    }

    fn others_locks(&self, who: Who) -> Vec<LockInfo> {
        let Some(seat) = &self.devices[who].seat else { return Vec::new() };
        let mut locks = seat.table.all(self.lock_now(who));
        locks.retain(|l| l.kind == LockKind::Session && l.device != self.devices[who].id);
        locks
    }

    /// At the end: whoever has heard all knows who holds what, and nobody who does not.
    pub(crate) fn check_locks_agree(&self) -> Result<(), Broken> {
        if self.has_twins() {
            return Ok(());
        }
        let beliefs = |who: Who| {
            let seat = self.devices[who].seat.as_ref();
            let held = seat.map(|seat| seat.table.beliefs(self.lock_now(who)));
            held.unwrap_or_default().into_iter().map(|belief| belief.scope)
        };
        for (who, seat) in self.seats() {
            for (other, their) in self.seats() {
                let decided = seat.table.is_decided() && their.table.is_decided();
                if who == other || !decided || !self.have_said_all(who, other) {
                    continue;
                }
                let held: BTreeSet<Scope> = beliefs(other).collect();
                let own = beliefs(who).count() > 0;
                let seen = self.others_locks(who);
                let theirs = seen.iter().filter(|lock| lock.device == self.devices[other].id);
                let seen: BTreeSet<Scope> = theirs.map(|lock| lock.scope.clone()).collect();
                ensure("L8", seen.is_subset(&held), || {
                    format!("device {who} sees that {other} holds {seen:?}; it holds {held:?}")
                })?;
                ensure("L8", own || held.is_subset(&seen), || {
                    format!("device {other} holds {held:?}, of which {who} sees {seen:?}")
                })?;
            }
        }
        Ok(())
    }
}
