//! The real clock: the one place of the product that asks the system for the time.
//!
//! Leaves out: formatting of times (that is the report's), and leases (they will use
//! `CLOCK_BOOTTIME` directly, never the wall clock).
//!
//! Invariants:
//! - a wall clock before 1970 reads as 1970, so that no time in the product is negative by accident;
//! - the monotonic clock counts suspended time too, or a sleeping laptop would believe its waits
//!   have not run out.

use std::time::{SystemTime, UNIX_EPOCH};

use journal::Now;
use journal::op::Timestamp;

/// The system's clocks, as every crate of ours takes them.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// Milliseconds since 1970 by the wall clock.
    pub fn wall_ms(self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// The time as the journal takes it.
    pub fn now(self) -> Now {
        Now { wall_ms: self.wall_ms() }
    }
}

impl vfs::Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp {
            secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: since.subsec_nanos(),
        }
    }

    fn monotonic_ms(&self) -> u64 {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let ms = t.tv_sec.saturating_mul(1_000).saturating_add(t.tv_nsec / 1_000_000);
        u64::try_from(ms).unwrap_or(0)
    }
}
