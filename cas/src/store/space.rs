//! Room on the disk, without asking the system for every chunk.
//!
//! Leaves out: quotas the system does not report; those come as errors of the write.
//!
//! Invariants: unchecked writes never exceed what was free at the last look by more than [`LOOK_BYTES`], or a quarter of
//! the reserve, plus what others wrote meanwhile, which the reserve is there for.

use std::sync::atomic::{AtomicI64, Ordering};

use super::Room;
use crate::backend::Backend;
use crate::error::{PathError, WriteError};

/// Bytes written between two looks at the disk.
const LOOK_BYTES: u64 = 64 << 20;

/// What may be written before the next look.
pub(crate) struct Space {
    reserve: u64,
    budget: AtomicI64,
}

impl Space {
    pub(super) fn new(reserve: u64) -> Self {
        Self { reserve, budget: AtomicI64::new(0) }
    }

    /// Bytes free beside the reserve.
    pub(super) fn free(&self, backend: &dyn Backend) -> Result<u64, PathError> {
        let free = backend
            .free_bytes()
            .map_err(|error| PathError::new(backend.path_of(""), "ask for the room in", error))?;
        Ok(free.saturating_sub(self.reserve))
    }

    /// Whether `len` bytes would fit now.
    pub(super) fn check(&self, backend: &dyn Backend, len: u64) -> Result<(), WriteError> {
        let wanted = i64::try_from(len).unwrap_or(i64::MAX);
        if self.budget.load(Ordering::Relaxed) >= wanted {
            return Ok(());
        }
        let free = self.free(backend)?;
        if free < len {
            return Err(WriteError::Full);
        }
        // Without a reserve nothing is promised that could be broken.
        let part = if self.reserve == 0 { LOOK_BYTES } else { self.reserve / 4 };
        let budget = free.min(LOOK_BYTES).min(part);
        self.budget.store(i64::try_from(budget).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }

    /// Takes `len` bytes for a write.
    pub(super) fn take(
        &self,
        backend: &dyn Backend,
        len: u64,
        room: Room,
    ) -> Result<(), WriteError> {
        if room == Room::Checked {
            self.check(backend, len)?;
        }
        let taken = i64::try_from(len).unwrap_or(i64::MAX);
        self.budget.fetch_sub(taken, Ordering::Relaxed);
        Ok(())
    }

    /// The system said that there is no room: look again before the next write.
    pub(super) fn exhausted(&self) {
        self.budget.store(0, Ordering::Relaxed);
    }
}
