//! Which versions a drive keeps the bytes of, and for how long: a pure function of what is known of a version, the
//! policies the owners set, and time.
//!
//! ```text
//! made ────────────── replaced ── keep_all ──────── keep_daily ─────────►  (drive time)
//!   current: kept       kept         if a midnight lies    not kept
//!                                    in made..replaced
//! ```
//!
//! A version's age counts from the moment it was replaced, so that what a name showed at any time within the last
//! `keep_all` is still there; a version that was in force at a midnight (UTC) is the last of its day.
//!
//! Two answers are given. *Owed* is what every device must have, and waits for: it follows from the entries and the time
//! alone, never comes back once it is over, and so no device waits for what the others were free to remove. *Kept* is
//! what a device must not remove: everything owed, and more where it is in doubt.
//!
//! Leaves out: gathering the facts ([`crate::journal`]), and what exists on no other device (`mountd`).
//!
//! Invariants:
//! - a version that nobody replaced, or that a named snapshot shows, is kept;
//! - what is owed is kept;
//! - as time passes, and as entries come in, a version that is not owed does not become so again;
//! - a clock that jumps ages nothing by more than [`IDLE_MAX_MS`].

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 3_600 * 1_000;
/// Time that passes at most while nobody writes an entry, milliseconds. A clock that is years ahead is believed no
/// more than this.
pub const IDLE_MAX_MS: u64 = 7 * DAY_MS;

/// How long versions are kept after they were replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Policy {
    /// All of them, seconds.
    pub keep_all_s: u64,
    /// The last of each UTC day, seconds.
    pub keep_daily_s: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { keep_all_s: 30 * 24 * 3_600, keep_daily_s: 365 * 24 * 3_600 }
    }
}

/// A policy and since when it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reign {
    /// Milliseconds since 1970.
    pub from_ms: u64,
    /// What holds from then on.
    pub policy: Policy,
}

/// The time of a drive: wall time, but that it stands still when nobody has written for [`IDLE_MAX_MS`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DriveTime {
    /// Begin of each day (UTC) with an entry, and the drive's time then; ascending.
    days: Vec<(u64, u64)>,
}

impl DriveTime {
    /// The time of a drive with entries on these days, counted from 1970.
    pub fn new(days: &BTreeSet<u32>) -> Self {
        let mut all: Vec<(u64, u64)> = Vec::with_capacity(days.len());
        for day in days {
            let start = u64::from(*day).saturating_mul(DAY_MS);
            let time = all.last().map_or(0, |(last, time): &(u64, u64)| {
                time.saturating_add(start.saturating_sub(*last).min(IDLE_MAX_MS))
            });
            all.push((start, time));
        }
        Self { days: all }
    }

    /// How much time passed between two moments, milliseconds.
    pub fn between(&self, from_ms: u64, to_ms: u64) -> u64 {
        self.at(to_ms).saturating_sub(self.at(from_ms))
    }

    fn at(&self, ms: u64) -> u64 {
        let after = self.days.partition_point(|(start, _)| *start <= ms);
        let Some((start, time)) = after.checked_sub(1).and_then(|last| self.days.get(last)) else {
            return 0;
        };
        time.saturating_add(ms.saturating_sub(*start).min(IDLE_MAX_MS))
    }
}

/// The day (UTC) of a moment, counted from 1970.
pub fn day_of(ms: u64) -> u32 {
    u32::try_from(ms / DAY_MS).unwrap_or(u32::MAX)
}

/// What is known of one version.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// When it was published, by its entry, milliseconds since 1970.
    pub made_ms: u64,
    /// None: nobody has replaced it, or it is shown all the same.
    pub replaced: Option<Replaced>,
    /// When the named snapshots that show it were made.
    pub snapshots_ms: Vec<u64>,
}

/// When a version was replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replaced {
    /// By what the entries say; of several the first.
    pub first_ms: u64,
    /// As far as this device can vouch for: not before the last of them, nor before entries that were here when that
    /// came. An author may date an entry back; it cannot make it come earlier.
    pub known_ms: u64,
}

/// What decides about all versions at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    /// In the drive's order; the first holds from the beginning.
    reigns: Vec<Reign>,
    time: DriveTime,
    now_ms: u64,
}

impl Rules {
    /// The rules of a drive whose owners set these policies, one after the other, at the moment `now_ms`.
    pub fn new(set: &[Reign], time: DriveTime, now_ms: u64) -> Self {
        let default = Reign { from_ms: 0, policy: Policy::default() };
        // What is dated ahead holds from now on: it is known.
        let known = |reign: &Reign| Reign { from_ms: reign.from_ms.min(now_ms), ..*reign };
        let reigns = [default].into_iter().chain(set.iter().map(known)).collect();
        Self { reigns, time, now_ms }
    }

    /// The policy that holds now.
    pub fn policy(&self) -> Policy {
        self.reigns.last().map(|reign| reign.policy).unwrap_or_default()
    }

    /// The same rules under another policy from now on.
    pub fn with(mut self, policy: Policy) -> Self {
        self.reigns.push(Reign { from_ms: self.now_ms, policy });
        self
    }

    /// Whether a device must not remove the version's bytes.
    pub fn kept(&self, facts: &Facts) -> bool {
        let Some(replaced) = facts.replaced else { return true };
        !facts.snapshots_ms.is_empty()
            || self.by(self.policy(), facts.made_ms, replaced.known_ms, self.now_ms)
            || self.owed(facts)
    }

    /// Whether every device must have the version's bytes.
    pub fn owed(&self, facts: &Facts) -> bool {
        self.owed_at(facts, self.now_ms)
    }

    /// [`Self::owed`] at another moment.
    pub fn owed_at(&self, facts: &Facts, at_ms: u64) -> bool {
        let Some(replaced) = facts.replaced else { return true };
        // A snapshot of what was owed when it was made keeps that; of what was not, it may come too late.
        let mut moments = facts.snapshots_ms.iter().copied().chain([at_ms]);
        moments.any(|at| self.outlasts(facts.made_ms, replaced.first_ms, at))
    }

    /// Whether no policy so far let go of a version by the moment `at_ms`.
    fn outlasts(&self, made_ms: u64, replaced_ms: u64, at_ms: u64) -> bool {
        let ends = self.reigns.iter().skip(1).map(|reign| reign.from_ms).chain([u64::MAX]);
        self.reigns.iter().zip(ends).all(|(reign, end)| {
            let reigned = reign.from_ms < end && reign.from_ms <= at_ms;
            !reigned || self.by(reign.policy, made_ms, replaced_ms, end.min(at_ms))
        })
    }

    /// Whether a policy keeps a version at the moment `at_ms`.
    fn by(&self, policy: Policy, made_ms: u64, replaced_ms: u64, at_ms: u64) -> bool {
        if at_ms < replaced_ms {
            return true;
        }
        let age = self.time.between(replaced_ms, at_ms);
        let all = policy.keep_all_s.saturating_mul(1_000);
        let daily = policy.keep_daily_s.saturating_mul(1_000);
        age < all || (age < daily && day_of(made_ms) < day_of(replaced_ms))
    }
}

#[cfg(test)]
mod tests;
