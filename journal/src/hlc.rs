//! Hybrid logical clock: 48 bits of milliseconds, 16 bits of counter.
//!
//! Leaves out: reading any clock; wall time comes in as an argument.
//!
//! Invariants:
//! - [`Hlc::next`] is greater than everything it is given;
//! - wall time raises it only as far as the caller's reading, which [`ClockBound`] keeps within the
//!   lower of the own clock and the members' median: one wrong clock cannot drag a drive along;
//! - beyond [`WALL_LAST_MS`] time grows by one a step, so that nobody can use it up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::DeviceId;

/// Bits of the counter below the milliseconds.
const COUNTER_BITS: u32 = 16;
/// Most members whose clocks are remembered; more add nothing to a median.
const CLOCKS_MAX: usize = 64;

/// The last millisecond of the year 9999: as far as anybody's wall clock counts.
pub const WALL_LAST_MS: u64 = 253_402_300_799_999;

/// A point of logical time.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Hlc(u64);

impl Hlc {
    /// The raw 64 bits.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// From the raw 64 bits.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The first point of a millisecond.
    pub const fn from_ms(ms: u64) -> Self {
        Self((ms & ((1 << 48) - 1)) << COUNTER_BITS)
    }

    /// The millisecond.
    pub const fn ms(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// The least point that is after `causes` and not before `wall_ms`, as far as that counts; none when time has run out.
    pub fn next(causes: Hlc, wall_ms: u64) -> Option<Hlc> {
        Some(Self(causes.0.checked_add(1)?).max(Self::from_ms(wall_ms.min(WALL_LAST_MS))))
    }

    /// Whether an entry whose latest parent is at `causes` may be here: after that, and where no wall clock counts any
    /// more only just after it. Else one entry at the very end would leave no time to any other.
    pub fn may_follow(self, causes: Hlc) -> bool {
        let by_wall = self <= Self::from_ms(WALL_LAST_MS);
        self > causes && (by_wall || causes.0.checked_add(1) == Some(self.0))
    }
}

/// How far wall time may be believed: what other members' clocks were seen to say.
#[derive(Clone, Debug, Default)]
pub struct ClockBound {
    /// Other clocks minus the own one, milliseconds, from the last look at each.
    offsets: BTreeMap<DeviceId, i64>,
}

impl ClockBound {
    /// A member's clock showed `theirs_ms` when the own one showed `own_ms`.
    pub fn observe(&mut self, device: DeviceId, theirs_ms: u64, own_ms: u64) {
        let offset = i128::from(theirs_ms) - i128::from(own_ms);
        let offset = offset.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
        if self.offsets.len() < CLOCKS_MAX || self.offsets.contains_key(&device) {
            self.offsets.insert(device, offset as i64);
        }
    }

    /// How far the others' clocks are ahead of the own one, by their median, of two middle ones the nearer; none when
    /// no other was seen in this run.
    pub fn others_ahead_ms(&self) -> Option<i64> {
        let mut offsets: Vec<i64> = self.offsets.values().copied().collect();
        offsets.sort_unstable();
        let middle = |at: usize| offsets.get(at).copied();
        let (low, high) = (middle(offsets.len().checked_sub(1)? / 2)?, middle(offsets.len() / 2)?);
        Some(if low.unsigned_abs() <= high.unsigned_abs() { low } else { high })
    }

    /// The lower of the own clock and the median of all clocks seen in this run, the own included;
    /// of two middle ones the lower.
    pub fn believed_ms(&self, own_ms: u64) -> u64 {
        let mut offsets: Vec<i64> = self.offsets.values().copied().chain([0]).collect();
        offsets.sort_unstable();
        let median = offsets.get((offsets.len() - 1) / 2).copied().unwrap_or(0);
        own_ms.saturating_add_signed(median.min(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(n: u8) -> DeviceId {
        DeviceId::from_bytes([n; 32])
    }

    #[test]
    fn next_is_after_its_causes_and_not_before_the_wall() {
        let cause = Hlc::from_ms(100);
        assert_eq!(Hlc::next(cause, 50), Some(Hlc::from_raw(cause.get() + 1)));
        assert_eq!(Hlc::next(cause, 200), Some(Hlc::from_ms(200)));
        assert_eq!(Hlc::next(cause, 100), Some(Hlc::from_raw(cause.get() + 1)));
        assert_eq!(Hlc::next(Hlc::from_raw(u64::MAX), 0), None);
    }

    #[test]
    fn where_no_wall_clock_counts_time_grows_by_one_a_step() {
        let last = Hlc::from_ms(WALL_LAST_MS);
        assert_eq!(Hlc::next(Hlc::from_ms(5), u64::MAX), Some(last));
        assert!(last.may_follow(Hlc::default()) && !last.may_follow(last));
        let beyond = Hlc::next(last, u64::MAX).unwrap();
        assert!(beyond.may_follow(last) && !beyond.may_follow(Hlc::from_ms(5)));
        assert!(!Hlc::from_raw(u64::MAX).may_follow(beyond));
        assert_eq!(Hlc::next(beyond, 0).map(|next| next.may_follow(beyond)), Some(true));
    }

    #[test]
    fn of_two_clocks_the_lower_is_believed() {
        let mut bound = ClockBound::default();
        assert_eq!(bound.believed_ms(1000), 1000);
        bound.observe(device(1), 5000, 1000);
        assert_eq!(bound.believed_ms(1000), 1000);
        bound.observe(device(1), 400, 1000);
        assert_eq!(bound.believed_ms(2000), 1400);
    }

    #[test]
    fn the_others_say_how_far_the_own_clock_is_off() {
        let mut bound = ClockBound::default();
        assert_eq!(bound.others_ahead_ms(), None);
        bound.observe(device(1), 5_000, 1_000);
        assert_eq!(bound.others_ahead_ms(), Some(4_000));
        bound.observe(device(2), 1_000, 1_000);
        assert_eq!(bound.others_ahead_ms(), Some(0), "one of them agrees with the own clock");
        bound.observe(device(3), 4_000, 1_000);
        assert_eq!(bound.others_ahead_ms(), Some(3_000));
    }

    #[test]
    fn one_wrong_clock_among_three_changes_nothing() {
        let mut bound = ClockBound::default();
        bound.observe(device(1), 1_000, 1_000);
        bound.observe(device(2), 0, 1_000);
        assert_eq!(bound.believed_ms(1_000), 1_000);
        bound.observe(device(2), 900_000, 1_000);
        assert_eq!(bound.believed_ms(1_000), 1_000);
        let mut ahead = ClockBound::default();
        ahead.observe(device(1), 1_000, 901_000);
        ahead.observe(device(2), 1_000, 901_000);
        assert_eq!(ahead.believed_ms(901_000), 1_000);
    }
}
