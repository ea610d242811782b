//! Locks, joined: checkouts of the journal and session locks of the network, as the file system asks for them.
//!
//! Leaves out: their rules (`journal`, `net::locks`), which call needs one (`vfs`), commands ([`super::checkouts`]).
//!
//! Invariants:
//! - a checkout, whoever has it, comes before a session lock, another's session lock before an own one, that before presence;
//! - a session lock is given back when what was saved under it is in the journal, before its entry leaves: whoever claims
//!   the name then is told that there is a newer version, and waits for that ([`NEWER_MAX`]). The other way round a
//!   program that has just been shown the new version would find it still locked;
//! - what the drive's policy makes advisory refuses nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use journal::lock::LockPolicy;
use journal::op::Op;
use journal::{DeviceId, EntryName, Register, StateError, VersionId};
use net::locks::{Foreign, LockClaim, LockOutcome};
use parking_lot::{Condvar, Mutex};
use vfs::{CheckoutError, Happening, Hold, Holder, Locks, Scope, Spot};

use super::Drive;
use super::tree::unreadable;

/// How long a version that somebody has already is waited for when its file is about to be written.
const NEWER_MAX: Duration = Duration::from_millis(1_500);
/// How long a lock that is not used any more waits for what was saved under it to be published.
const UNPUBLISHED_MAX: Duration = Duration::from_secs(5);
/// How often locks that wait so are looked at, besides when their name is published.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longest wait for such locks.
const IDLE_LOOK: Duration = Duration::from_millis(500);
/// Names somebody waits for.
const REFUSED_MAX: usize = 256;

/// This device's part in locks.
pub(super) struct Locking {
    /// Whether there is no other member.
    pub(super) alone: AtomicBool,
    /// Locks that are not used any more, and since when, until what was saved under them is published.
    ended: Mutex<BTreeMap<Scope, Instant>>,
    ends: Condvar,
    given: Condvar,
    /// Counts what came from others, and wakes who waits for a version.
    heard: Mutex<u64>,
    hears: Condvar,
    /// Names that programs here were refused, and may wait for.
    refused: Mutex<BTreeSet<Register>>,
    /// Own checkouts that hold.
    pub(super) checkouts: Mutex<BTreeMap<Register, VersionId>>,
}

impl Locking {
    pub(super) fn new() -> Self {
        Self {
            alone: AtomicBool::new(true),
            ended: Mutex::default(),
            ends: Condvar::new(),
            given: Condvar::new(),
            heard: Mutex::default(),
            hears: Condvar::new(),
            refused: Mutex::default(),
            checkouts: Mutex::default(),
        }
    }

    /// Entries of others were applied.
    pub(super) fn heard(&self) {
        *self.heard.lock() += 1;
        self.hears.notify_all();
    }
}

fn net_scope(scope: &Scope) -> net::locks::Scope {
    match scope {
        Scope::Name(register) => net::locks::Scope::Name(register.clone()),
        Scope::Below(dir) => net::locks::Scope::Below(*dir),
    }
}

fn vfs_scope(scope: &net::locks::Scope) -> Scope {
    match scope {
        net::locks::Scope::Name(register) => Scope::Name(register.clone()),
        net::locks::Scope::Below(dir) => Scope::Below(*dir),
    }
}

/// The name an operation writes, in the form locks compare.
fn register_of(op: &Op) -> Option<Register> {
    let Op::Put { dir, name, .. } = op else { return None };
    let name = EntryName::new(&name.folded()).ok()?;
    Some(Register::new(*dir, name))
}

pub(super) fn net_spot(spot: &Spot) -> net::locks::Spot {
    net::locks::Spot { register: spot.register.clone(), above: spot.above.clone() }
}

impl Locks for Drive {
    fn alone(&self) -> bool {
        self.locking.alone.load(Ordering::Relaxed)
    }

    fn holder(&self, spot: &Spot) -> Option<Holder> {
        let own = self.signer.device();
        let checkout = self.journal.checkout(&spot.register).unwrap_or_else(|error| {
            tracing::warn!(%error, "checkouts cannot be read");
            None
        });
        let checkout = checkout.map(|c| self.holder_row(c.device, Hold::Checkout, c.since_ms, 0));
        if checkout.is_some() {
            return checkout;
        }
        let net = self.net()?;
        let at = net_spot(spot);
        if let Some(Foreign { device, since_ms, unreachable, below, .. }) = net.lock_known(&at) {
            let holder = self.holder_row(device, Hold::Session, since_ms, unreachable);
            return Some(Holder { below, ..holder });
        }
        if let Some(unreachable) = net.lock_held(&at) {
            let since_ms = net.lock_held_since_ms(&at).unwrap_or_default();
            return Some(self.holder_row(own, Hold::Session, since_ms, unreachable));
        }
        let mut readers = net.who_has_open(&spot.register).into_iter();
        let (reader, since_ms) = readers.find(|(device, _)| *device != own)?;
        Some(self.holder_row(reader, Hold::Presence, since_ms, 0))
    }

    fn take(&self, scope: &Scope, spot: &Spot, bases: &[VersionId]) -> Result<(), Holder> {
        let Some(net) = self.net() else { return Ok(()) };
        match net.wait_for_lock(self.begin(net, scope, spot, bases)) {
            LockOutcome::Held { newer, .. } => {
                if newer {
                    self.wait_for_newer(&spot.register, bases);
                }
                Ok(())
            }
            LockOutcome::Denied(foreign) => {
                let Foreign { device, since_ms, unreachable, below, .. } = foreign;
                let holder = self.holder_row(device, Hold::Session, since_ms, unreachable);
                let holder = Holder { below, ..holder };
                if holder.refuses { Err(holder) } else { Ok(()) }
            }
            LockOutcome::Closed => Ok(()),
        }
    }

    fn take_later(&self, scope: &Scope, spot: &Spot, bases: &[VersionId]) {
        if let Some(net) = self.net() {
            // The claim goes on by itself; that it is refused later is told as a loss.
            let begun = std::pin::pin!(self.begin(net, scope, spot, bases));
            let now = begun.poll(&mut Context::from_waker(Waker::noop()));
            if let Poll::Ready(LockOutcome::Denied(_)) = now
                && let Some(fs) = self.fs()
            {
                fs.lock_lost(scope);
            }
        }
    }

    fn give_back(&self, scope: &Scope) {
        let mut ended = self.locking.ended.lock();
        if self.fs().is_some_and(|fs| fs.is_lock_wanted(scope)) {
            return;
        }
        if self.fs().is_some_and(|fs| fs.is_unpublished(scope)) {
            ended.insert(scope.clone(), Instant::now());
            self.locking.ends.notify_all();
        } else if let Some(net) = self.net() {
            net.unlock(&net_scope(scope));
        }
    }

    fn published(&self) {
        self.give_back_what_is_published();
    }

    fn present(&self, register: &Register, there: bool) {
        match self.net() {
            Some(net) if there => net.present(register),
            Some(net) => net.absent(register),
            None => {}
        }
    }

    fn checkout(&self, register: &Register, taken: bool) -> Result<(), CheckoutError> {
        if taken { self.take_checkout(register) } else { self.give_checkout_back(register) }
    }

    fn made_here(
        &self,
        loaded: &[VersionId],
        official: &[VersionId],
    ) -> Result<bool, vfs::StateError> {
        self.journal.made_since(loaded, official, self.signer.device()).map_err(unreadable)
    }

    fn happened(&self, what: Happening) {
        self.tell_happening(what);
    }
}

impl Drive {
    pub(super) fn holder_row(
        &self,
        device: DeviceId,
        hold: Hold,
        since_ms: u64,
        unreachable: u32,
    ) -> Holder {
        let name = self.device_name(device);
        let enforced = self.journal.lock_policy() == LockPolicy::Enforced;
        let refuses = enforced && hold != Hold::Presence;
        let own = device == self.signer.device();
        Holder { device, name, hold, since_ms, unreachable, refuses, own, below: false }
    }

    /// Begins to ask for a lock. What ended before does not give it back: whoever does that looks, under the same mutex,
    /// whether anybody wants it again.
    fn begin(
        &self,
        net: &net::Handle,
        scope: &Scope,
        spot: &Spot,
        bases: &[VersionId],
    ) -> impl Future<Output = LockOutcome> + Send + use<> {
        let claim = self.claim(scope, spot, bases);
        let mut ended = self.locking.ended.lock();
        ended.remove(scope);
        net.lock(claim)
    }

    fn claim(&self, scope: &Scope, spot: &Spot, bases: &[VersionId]) -> LockClaim {
        let above = match scope {
            Scope::Name(_) => spot.above.clone(),
            // From the one that holds the directory on.
            Scope::Below(dir) => {
                spot.above.iter().skip_while(|above| *above != dir).skip(1).copied().collect()
            }
        };
        let bases = match scope {
            Scope::Name(_) => bases.to_vec(),
            Scope::Below(_) => Vec::new(),
        };
        LockClaim { scope: net_scope(scope), above, bases, priority: self.lock_priority() }
    }

    /// Somebody has a newer version than what is about to be written: it is on its way.
    fn wait_for_newer(&self, register: &Register, bases: &[VersionId]) {
        let until = Instant::now() + NEWER_MAX;
        let mut heard = self.locking.heard.lock();
        loop {
            let shown = self.journal.lookup(register.dir, &register.name);
            let Ok(Some(node)) = shown else { return };
            if node.merged != bases || self.locking.hears.wait_until(&mut heard, until).timed_out()
            {
                return;
            }
        }
    }

    /// Whether this device is the drive's only member, looked up again.
    pub(super) fn look_up_company(&self) {
        let own = self.signer.device();
        let other = |m: &journal::member::Member| !m.removed && m.device != own;
        let alone = self.through.is_none() && !self.journal.members().iter().any(other);
        self.locking.alone.store(alone, Ordering::Relaxed);
    }

    /// Locks that wait for these operations to be published.
    pub(super) fn ended_with(&self, ops: &[Op]) -> Vec<Scope> {
        let ended = self.locking.ended.lock();
        if ended.is_empty() {
            return Vec::new();
        }
        let published: BTreeSet<Register> = ops.iter().filter_map(register_of).collect();
        let waits = |scope: &&Scope| matches!(scope, Scope::Name(r) if published.contains(r));
        ended.keys().filter(waits).cloned().collect()
    }

    /// What these locks waited for is in the journal.
    pub(super) fn give_published_back(&self, scopes: &[Scope]) {
        let Some(net) = self.net() else { return };
        let mut ended = self.locking.ended.lock();
        for scope in scopes {
            let wanted = self.fs().is_some_and(|fs| fs.is_lock_wanted(scope));
            if ended.remove(scope).is_some() && !wanted {
                net.unlock(&net_scope(scope));
            }
        }
        self.locking.given.notify_all();
    }

    /// Gives back what waits for publications, or for one that does not come. Waits [`IDLE_LOOK`] at most; for a thread
    /// of its own, over and over.
    pub fn give_locks_back(&self) {
        {
            let mut ended = self.locking.ended.lock();
            if ended.is_empty() {
                self.locking.ends.wait_for(&mut ended, IDLE_LOOK);
                return;
            }
        }
        std::thread::sleep(LOOK_EVERY);
        self.give_back_what_is_published();
    }

    fn give_back_what_is_published(&self) {
        let (Some(fs), Some(net)) = (self.fs(), self.net()) else { return };
        let mut ended = self.locking.ended.lock();
        if ended.is_empty() {
            return;
        }
        ended.retain(|scope, since| {
            if fs.is_lock_wanted(scope) {
                return false;
            }
            let stays = since.elapsed() < UNPUBLISHED_MAX && fs.is_unpublished(scope);
            if !stays {
                net.unlock(&net_scope(scope));
            }
            stays
        });
        self.locking.given.notify_all();
    }

    /// Gives back, within [`UNPUBLISHED_MAX`], every lock under which nothing is being written now.
    pub fn settle_locks(&self) {
        if let Some(fs) = self.fs() {
            fs.end_bursts();
        }
        let until = Instant::now() + UNPUBLISHED_MAX;
        let mut ended = self.locking.ended.lock();
        while !ended.is_empty() {
            if self.locking.given.wait_until(&mut ended, until).timed_out() {
                return;
            }
        }
    }

    /// Others' locks came or went: whoever was refused is told when a name is free.
    pub(super) fn locks_changed(&self, scopes: &[net::locks::Scope]) {
        let below = scopes.iter().any(|scope| matches!(scope, net::locks::Scope::Below(_)));
        let concerned = |register: &&Register| {
            below || scopes.contains(&net::locks::Scope::Name((*register).clone()))
        };
        let refused: Vec<Register> =
            self.locking.refused.lock().iter().filter(concerned).cloned().collect();
        for register in refused {
            let Ok(spot) = self.spot_of(&register) else { continue };
            if self.holder(&spot).is_some_and(|holder| !holder.own && holder.refuses) {
                continue;
            }
            self.locking.refused.lock().remove(&register);
            let path = self.path_of_register(&register).unwrap_or_default();
            self.tell("lock_free", &path, "", &format!("{path} can be written again"));
        }
    }

    /// A program was refused a name: when that is free it is told.
    pub(super) fn note_refused(&self, register: &Register) {
        let mut refused = self.locking.refused.lock();
        if refused.len() >= REFUSED_MAX {
            refused.pop_first();
        }
        refused.insert(register.clone());
    }

    /// An own session lock is lost: to somebody who was first, or because this machine slept.
    pub(super) fn lock_lost(&self, scope: &net::locks::Scope) {
        let path = match scope {
            net::locks::Scope::Name(register) => self.path_of_register(register),
            net::locks::Scope::Below(dir) => {
                self.path_of_dir(*dir).map(|path| path.unwrap_or_default() + "/")
            }
        };
        let path = path.unwrap_or_default();
        let spot = match scope {
            net::locks::Scope::Name(register) => self.spot_of(register).ok(),
            net::locks::Scope::Below(_) => None,
        };
        if let Some(fs) = self.fs() {
            fs.lock_lost(&vfs_scope(scope));
        }
        let by = spot.and_then(|spot| self.holder(&spot)).filter(|holder| !holder.own);
        self.tell_lock_lost(&path, by.as_ref());
    }

    /// Looks whether own checkouts still hold, after entries came that may have ended them.
    pub(super) fn look_at_checkouts(&self, changed: &[Register]) -> Result<(), StateError> {
        let own = self.signer.device();
        for register in changed {
            let checkout = self.journal.checkout(register)?;
            if let Some(other) = checkout.as_ref().filter(|c| c.device != own) {
                self.yield_to_checkout(register, &self.device_name(other.device))?;
            }
            let holds = checkout.filter(|c| c.device == own);
            let mut known = self.locking.checkouts.lock();
            match holds {
                Some(checkout) => {
                    known.insert(register.clone(), checkout.id);
                }
                None => {
                    let ended = known.remove(register);
                    drop(known);
                    if let Some(id) = ended {
                        self.checkout_ended(register, id)?;
                    }
                }
            }
        }
        let freed =
            changed.iter().map(|register| net::locks::Scope::Name(register.clone()).folded());
        self.locks_changed(&freed.collect::<Vec<_>>());
        Ok(())
    }

    /// The own checkouts, at the start.
    pub(super) fn load_checkouts(&self) {
        let own = self.signer.device();
        match self.journal.checkouts() {
            Ok(all) => {
                let own = all.into_iter().filter(|c| c.device == own);
                *self.locking.checkouts.lock() = own.map(|c| (c.register, c.id)).collect();
            }
            Err(error) => tracing::warn!(%error, "checkouts cannot be read"),
        }
    }
}
