//! Locks and presence, as the host asks for them.
//!
//! Leaves out: the rules ([`crate::locks`]); what is journalled (checkouts).
//!
//! Invariants:
//! - questions are answered from the own table, without a wait;
//! - a claim waits for [`limits::LOCK_WAIT_MAX_MS`] at most.

use journal::id::DeviceId;
use journal::name::Register;

use super::Handle;
use crate::locks::{Foreign, LockClaim, LockInfo, LockOutcome, Scope, Spot};

impl Handle {
    /// Somebody else's lock that covers this name, as far as it is known here.
    pub fn lock_known(&self, at: &Spot) -> Option<Foreign> {
        self.inner.node.warden.look(|table, now| table.known(now, at))
    }

    /// Whether an own lock covers this name; how many members have not granted it.
    pub fn lock_held(&self, at: &Spot) -> Option<u32> {
        self.inner.node.warden.look(|table, now| table.held(now, at))
    }

    /// Claims a lock from everybody who is connected. What is held already, or known to be somebody else's, is said at
    /// once. May be dropped; the claim goes on then, and what comes of it must be given back.
    pub fn lock(&self, claim: LockClaim) -> impl Future<Output = LockOutcome> + Send + use<> {
        // Sent before anybody waits, also if this is called from a thread outside the runtime.
        let began = {
            let _in_runtime = self.inner.runtime.enter();
            self.inner.node.warden.lock(claim, self.inner.node.lock_patience_ms())
        };
        async move {
            match began {
                Ok(outcome) => outcome,
                Err(waiting) => waiting.await.unwrap_or(LockOutcome::Closed),
            }
        }
    }

    /// Waits for what came of [`Self::lock`], on a thread outside any runtime.
    pub fn wait_for_lock(&self, begun: impl Future<Output = LockOutcome>) -> LockOutcome {
        self.inner.runtime.block_on(begun)
    }

    /// Gives a lock back, or withdraws its claim.
    pub fn unlock(&self, scope: &Scope) {
        let _in_runtime = self.inner.runtime.enter();
        self.inner.node.warden.with(|table, now| table.release(now, scope));
    }

    /// Somebody has opened it for reading here.
    pub fn present(&self, register: &Register) {
        let _in_runtime = self.inner.runtime.enter();
        self.inner.node.warden.with(|table, now| table.present(now, register));
    }

    /// Nobody has it open here any more.
    pub fn absent(&self, register: &Register) {
        let _in_runtime = self.inner.runtime.enter();
        self.inner.node.warden.with(|table, now| table.absent(now, register));
    }

    /// Since when an own lock covers this name, milliseconds since 1970.
    pub fn lock_held_since_ms(&self, at: &Spot) -> Option<u64> {
        self.inner.node.warden.look(|table, _| table.held_since_ms(at))
    }

    /// Which other devices have it open for reading, and since when, milliseconds since 1970.
    pub fn who_has_open(&self, register: &Register) -> Vec<(DeviceId, u64)> {
        self.inner.node.warden.look(|table, _| table.who_has_open(register))
    }

    /// Every lock and presence that is known, own and others'.
    pub fn locks(&self) -> Vec<LockInfo> {
        self.inner.node.warden.look(|table, now| table.all(now))
    }
}
