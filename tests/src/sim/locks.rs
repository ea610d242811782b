//! Session locks in a run: the product's lock table at every device, over streams that end with their connections.
//!
//! Leaves out: presence; a lock stream that breaks while its connection lives; what must hold ([`check`]).
//!
//! Invariants:
//! - a table is told the time when it is due while anybody holds or wants a lock; else it may as well sleep;
//! - who is refused does not write.

use std::collections::{BTreeMap, BTreeSet};

use journal::hlc::Hlc;
use journal::{DeviceId, DirId, Op, Register, Standing, VersionId};
use net::JournalHost as _;
use net::limits;
use net::locks::{Began, Effect, LockClaim, LockOutcome, Now, Scope, Table};

use super::fail::{Broken, ensure};
use super::ledger::Who;
use super::rng::Rng;
use super::user::Work;
use super::world::{Event, World};

mod check;

/// Where the clocks that leases go by begin, milliseconds.
const BOOT_MS: u64 = 10_000_000;
/// Longest time a lock is kept, virtual milliseconds.
const KEPT_MS: u64 = 20_000;
/// How long after the last claim tables are told the time: no lock outlives that.
const BUSY_MS: u64 = KEPT_MS + 2 * limits::LOCK_LEASE_MS;
/// Work that claims everything below its directory, percent.
const BELOW: u64 = 15;

/// One running device's part.
pub(crate) struct Seat {
    table: Table,
    incarnation: u64,
    /// What waits for its lock, by the claim's number.
    waiting: BTreeMap<u64, Vec<(Scope, Work)>>,
    /// Members whose grants make a lock whole.
    expected: BTreeSet<DeviceId>,
    /// When others were connected last.
    seen: BTreeMap<DeviceId, u64>,
    /// When something of another arrived last.
    heard: BTreeMap<Who, u64>,
    tick_at: Option<u64>,
    /// Since when it sleeps, and what it held then.
    asleep: Option<(u64, Vec<u64>)>,
    /// What it held in a sleep longer than the lease.
    slept_on: Vec<u64>,
}

/// What is known of all seats.
#[derive(Default)]
pub(crate) struct Locks {
    /// Until when tables are told the time.
    busy_until: u64,
    /// Members came or went: until then a grant may count that its grantor has forgotten.
    excused_until: u64,
    /// Some table was asked or told something.
    touched: bool,
}

/// The name an act changes first.
fn register_of(ops: &[Op]) -> Option<Register> {
    let put = |op: &Op| match op {
        Op::Put { dir, name, .. } => Some(Register::new(*dir, name.clone())),
        _ => None,
    };
    ops.iter().find_map(put)
}

fn bases_of(ops: &[Op], register: &Register) -> Vec<VersionId> {
    let put = |op: &Op| match op {
        Op::Put { dir, name, bases, .. } if (dir, name) == (&register.dir, &register.name) => {
            Some(bases.clone())
        }
        _ => None,
    };
    ops.iter().find_map(put).unwrap_or_default()
}

impl World {
    /// The time by the clock of `who` that leases go by: up to 1 % wrong, and never moved.
    fn lock_now(&self, who: Who) -> Now {
        let boot_ms = match who % 3 {
            0 => self.now + self.now / 100,
            1 => self.now - self.now / 100,
            _ => self.now,
        };
        Now { boot_ms: BOOT_MS + boot_ms, wall_ms: self.wall(who) }
    }

    /// A device has started.
    pub(crate) fn seat_up(&mut self, who: Who) {
        if !self.plan.session_locks {
            return;
        }
        let incarnation = (who as u64) << 32 | self.devices[who].epoch;
        let table = Table::new(self.devices[who].id, incarnation, self.lock_now(who));
        #[cfg(debug_assertions)]
        let table = table.breaking(self.plan.broken_rule);
        self.devices[who].seat = Some(Seat {
            table,
            incarnation,
            waiting: BTreeMap::new(),
            expected: BTreeSet::new(),
            seen: BTreeMap::new(),
            heard: BTreeMap::new(),
            tick_at: None,
            asleep: None,
            slept_on: Vec::new(),
        });
        self.tell_lock_members(who);
    }

    /// A device has stopped, and said nothing.
    pub(crate) fn seat_down(&mut self, who: Who) {
        self.devices[who].seat = None;
        self.devices[who].stopped_at = self.now;
        self.locks.touched = true;
    }

    /// A device falls asleep.
    pub(crate) fn seat_sleeps(&mut self, who: Who) {
        let now = self.lock_now(who);
        let at = self.now;
        if let Some(seat) = &mut self.devices[who].seat {
            let held = seat.table.beliefs(now).iter().map(|belief| belief.id).collect();
            seat.asleep = Some((at, held));
        }
    }

    /// It is awake again.
    pub(crate) fn seat_wakes(&mut self, who: Who) {
        let now = self.now;
        let Some(seat) = &mut self.devices[who].seat else { return };
        let Some((since, held)) = seat.asleep.take() else { return };
        // By the slowest clock.
        if (now - since) / 100 * 99 >= limits::LOCK_COUNTED_MS {
            seat.slept_on = held;
        }
        self.locks.touched = true;
    }

    /// A session of `who` with `peer` begins.
    pub(crate) fn locks_connected(&mut self, who: Who, peer: Who) {
        let (now, device) = (self.lock_now(who), self.devices[peer].id);
        if let Some(seat) = &mut self.devices[who].seat {
            seat.table.handle_connected(now, device);
            self.touched(who);
        }
    }

    /// It has ended, as far as `who` knows.
    pub(crate) fn locks_disconnected(&mut self, who: Who, peer: Who) {
        let (now, at, device) = (self.lock_now(who), self.now, self.devices[peer].id);
        if let Some(seat) = &mut self.devices[who].seat {
            seat.seen.insert(device, at);
            seat.table.handle_disconnected(now, device);
            self.touched(who);
        }
    }

    /// Tells a table who the members are.
    pub(crate) fn tell_lock_members(&mut self, who: Who) {
        let Some(host) = self.devices[who].host.clone() else { return };
        let (now, at, own) = (self.lock_now(who), self.now, self.devices[who].id);
        let connected: BTreeSet<DeviceId> =
            self.devices[who].sessions.keys().map(|peer| self.devices[*peer].id).collect();
        let Some(seat) = &mut self.devices[who].seat else { return };
        let members: BTreeSet<DeviceId> =
            host.members().into_iter().filter(|device| *device != own).collect();
        let lately = |device: &&DeviceId| {
            let seen = seat.seen.get(*device);
            connected.contains(*device)
                || seen.is_none_or(|seen| at - seen < limits::LOCK_MEMBER_AGE_MS)
        };
        let expected: BTreeSet<DeviceId> = members.iter().filter(lately).copied().collect();
        let before: BTreeSet<DeviceId> = seat.table.members().into_iter().collect();
        if before == members && seat.expected == expected {
            return;
        }
        seat.expected.clone_from(&expected);
        if !before.is_subset(&members) {
            let excused_until = at + 2 * limits::LOCK_LEASE_MS;
            self.locks.excused_until = self.locks.excused_until.max(excused_until);
        }
        seat.table.handle_members(now, members, expected);
        self.touched(who);
    }

    /// Something was said to `who`.
    pub(crate) fn hear_word(&mut self, who: Who, peer: Who, frame: &[u8]) -> Result<(), Broken> {
        let (now, at, device) = (self.lock_now(who), self.now, self.devices[peer].id);
        let message = net::wire::locks::LockMessage::decode(frame.get(4..).unwrap_or_default());
        if let Ok(message) = &message {
            self.whisper(|| format!("d{who} hears of d{peer}: {message:?}"));
        }
        let Some(seat) = &mut self.devices[who].seat else { return Ok(()) };
        let handled = match message {
            Ok(message) => {
                let handled = seat.table.handle_message(now, device, message);
                handled.map_err(|violation| violation.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        seat.heard.insert(peer, at);
        ensure("L-fault", handled.is_ok(), || {
            format!("device {who} finds fault with what {peer} says of locks: {handled:?}")
        })?;
        self.touched(who);
        Ok(())
    }

    /// A table is due.
    pub(crate) fn lock_tick(&mut self, who: Who) -> Result<(), Broken> {
        let now = self.lock_now(who);
        let Some(seat) = &mut self.devices[who].seat else { return Ok(()) };
        if seat.tick_at.is_none_or(|at| at > self.now) {
            return Ok(());
        }
        seat.tick_at = None;
        seat.table.handle_time(now);
        self.touched(who);
        self.tell_lock_members(who);
        self.check_the_dead(who)
    }

    /// Carries out what follows from a call of a table.
    fn touched(&mut self, who: Who) {
        self.locks.touched = true;
        let now = self.lock_now(who);
        while let Some(seat) = &mut self.devices[who].seat
            && let Some(effect) = seat.table.poll_effect()
        {
            match effect {
                Effect::Send { to, message } => self.say_word(who, to, message.encode()),
                Effect::Judge { to, id, register, bases } => {
                    let newer = self.has_newer(who, &register, &bases);
                    if let Some(seat) = &mut self.devices[who].seat {
                        seat.table.handle_judged(now, to, id, newer);
                    }
                }
                Effect::Decided { id, outcome, .. } => {
                    let epoch = self.devices[who].epoch;
                    for (scope, work) in self.take_waiting(who, id) {
                        let work = Box::new(work);
                        self.after(0, Event::Locked { who, epoch, scope, work, outcome });
                    }
                }
                Effect::Lost(scope) => {
                    self.marks.hit("locks: lost");
                    self.say(|| format!("d{who} loses its lock of {scope:?}"));
                }
                Effect::Changed(_) => {}
            }
        }
        self.arm(who);
    }

    fn take_waiting(&mut self, who: Who, id: u64) -> Vec<(Scope, Work)> {
        let seat = self.devices[who].seat.as_mut();
        seat.and_then(|seat| seat.waiting.remove(&id)).unwrap_or_default()
    }

    /// Lets a table be told the time when it is due.
    fn arm(&mut self, who: Who) {
        let (now, at) = (self.lock_now(who), self.now);
        let epoch = self.devices[who].epoch;
        let Some(seat) = &mut self.devices[who].seat else { return };
        let delay = seat.table.next_due_ms().saturating_sub(now.boot_ms).max(1);
        let sooner = seat.tick_at.is_none_or(|planned| planned > at + delay);
        if at < self.locks.busy_until && sooner {
            seat.tick_at = Some(at + delay);
            self.after(delay, Event::LockTick { who, epoch });
        }
    }

    /// Whether the journal of `who` shows something newer than these.
    fn has_newer(&self, who: Who, register: &Register, bases: &[VersionId]) -> bool {
        let Some(host) = &self.devices[who].host else { return false };
        let shown = host.journal.lookup(register.dir, &register.name).ok().flatten();
        shown.is_some_and(|node| {
            node.standing == Standing::Official && !node.merged.iter().any(|v| bases.contains(v))
        })
    }

    fn above(&self, who: Who, dir: DirId) -> Vec<DirId> {
        let mut above = vec![dir];
        let Some(host) = &self.devices[who].host else { return above };
        while let Some(at) = above.last().copied()
            && at != DirId::ROOT
            && above.len() < limits::LOCK_ABOVE_MAX
            && let Ok(Some(node)) = host.journal.dir(at)
        {
            above.push(node.parent);
        }
        above
    }

    /// Takes the lock that an act needs, if any: gives the work back when it may go on at once.
    pub(crate) fn lock_first(&mut self, who: Who, work: Work, rng: &mut Rng) -> Option<Work> {
        let Some(host) = self.host(who).filter(|_| self.plan.session_locks) else {
            return Some(work);
        };
        let Some(register) = register_of(&work.ops) else { return Some(work) };
        let above = self.above(who, register.dir);
        let bases = bases_of(&work.ops, &register);
        let (scope, above) = match rng.chance(BELOW) && register.dir != DirId::ROOT {
            true => (Scope::Below(register.dir), above.get(1..).unwrap_or_default().to_vec()),
            false => (Scope::Name(register), above),
        };
        let hlc = Hlc::from_ms(host.journal.believed_ms(host.now()));
        let claim = LockClaim { scope: scope.clone(), above, bases, priority: hlc.get() };
        let patience_ms = (limits::LOCK_WAIT_TRIPS * 2 * self.plan.latency_ms)
            .clamp(limits::LOCK_WAIT_MIN_MS, limits::LOCK_WAIT_MAX_MS);
        self.locks.busy_until = self.now + BUSY_MS;
        let now = self.lock_now(who);
        let seat = self.devices[who].seat.as_mut()?;
        let went_on = match seat.table.claim(now, claim, patience_ms) {
            Began::Decided(outcome) => {
                self.marks.hit("locks: decided at once");
                self.decided(who, scope, work, outcome)
            }
            Began::Waiting(id) => {
                seat.waiting.entry(id).or_default().push((scope, work));
                None
            }
        };
        self.touched(who);
        (0..self.devices.len()).for_each(|other| self.arm(other));
        went_on
    }

    /// A claim has come to something: gives the work back when it may go on.
    pub(crate) fn decided(
        &mut self,
        who: Who,
        scope: Scope,
        work: Work,
        outcome: LockOutcome,
    ) -> Option<Work> {
        let (unreachable, newer) = match outcome {
            LockOutcome::Held { unreachable, newer } => (unreachable, newer),
            LockOutcome::Denied(foreign) => {
                self.marks.hit("locks: refused");
                let (what, by) = (&work.what, foreign.device);
                self.say(|| format!("d{who} is refused by {by:?}: {what}"));
                return None;
            }
            LockOutcome::Closed => return None,
        };
        self.marks.hit(match unreachable {
            0 => "locks: held whole",
            _ => "locks: held without some",
        });
        if matches!(scope, Scope::Below(_)) {
            self.marks.hit("locks: held below a directory");
        }
        let (epoch, delay) = (self.devices[who].epoch, self.rng.range(0, KEPT_MS));
        self.after(delay, Event::Release { who, epoch, scope });
        if newer {
            // It looks again before it writes.
            self.marks.hit("locks: told of a newer version");
            return None;
        }
        Some(work)
    }

    /// A lock is given back.
    pub(crate) fn release(&mut self, who: Who, scope: &Scope) {
        let now = self.lock_now(who);
        if let Some(seat) = &mut self.devices[who].seat {
            seat.table.release(now, scope);
            self.touched(who);
        }
    }
}
