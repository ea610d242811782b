//! Checkouts: which device has a name to itself, and what a break does to work that had not seen it.
//!
//! A register's operations are replayed in the drive's order. A checkout holds if none does; it ends when its device gives
//! it back, when an owner breaks it, and when its device loses the right to write.
//!
//! A break takes nothing from anybody. What the former holder writes after it without having seen it is *unseeing*: of the
//! versions under the name it replaces only such as are unseeing, too. So it stands beside what stood there, as a conflict
//! copy, and so does what builds on it, until somebody names both as bases or says that it is dealt with.
//!
//! Leaves out: session locks, of which no entry tells (`net`); keeping the outcome up to date ([`crate::fold`]).
//!
//! Invariants:
//! - who holds, and which bases are cut, follows from the set of entries, whatever their sequence of arrival;
//! - a checkout hides nothing and refuses nobody by itself: entries of others count as they always do.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::canary::{self, Canary};
use crate::chain::sees;
use crate::error::StateError;
use crate::id::{DeviceId, VersionId};
use crate::kv::{KvRead, first_with, keys_with, prefix_end};
use crate::member::Members;
use crate::name::Register;
use crate::op::Role;
use crate::order::OrderKey;
use crate::records::{
    EntryRec, LockRow, RegKey, What, corrupt, decode, key, load, load_broken, load_entry,
    load_held, load_version, table, version_at_end,
};

/// Most checkouts listed at once.
pub const CHECKOUTS_MAX: usize = 4096;

/// What locks mean in a drive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum LockPolicy {
    /// Who does not hold a lock is refused to write.
    #[default]
    Enforced,
    /// Locks are told and refuse nobody.
    Advisory,
}

/// A name that one device has to itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkout {
    /// The name, spelled as its holder did.
    pub register: Register,
    /// The checkout: what a `GiveBack` or a `Break` names.
    pub id: VersionId,
    /// Who has it.
    pub device: DeviceId,
    /// Since when, by the holder's wall clock, milliseconds since 1970; for display only.
    pub since_ms: u64,
}

/// What became of a checkout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckoutFate {
    /// It holds.
    Held,
    /// Its device gave it back.
    GivenBack,
    /// An owner ended it.
    Broken {
        /// The owner.
        by: DeviceId,
    },
    /// Its device was removed, or may only read.
    Removed,
    /// It never held.
    Void {
        /// Who had the name then; none when its device had no right to write.
        holder: Option<DeviceId>,
    },
}

/// Place of an operation in the drive's order.
type Place = (OrderKey, u32);

/// What an operation does to a register's checkout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum LockAct {
    Checkout,
    GiveBack(VersionId),
    Break(VersionId),
}

/// A checkout that holds, or did until its device lost its standing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) checkout: VersionId,
    pub(crate) device: DeviceId,
    /// Place of the operation with which its device lost the right to write.
    pub(crate) until: Option<Place>,
}

/// A break that took effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Broke {
    pub(crate) by: VersionId,
    pub(crate) at: Place,
    /// The device whose checkout it ended.
    pub(crate) whom: DeviceId,
}

impl LockAct {
    /// The checkout it ends.
    pub(crate) fn ends(&self) -> Option<VersionId> {
        match self {
            LockAct::Checkout => None,
            LockAct::GiveBack(checkout) | LockAct::Break(checkout) => Some(*checkout),
        }
    }
}

/// One operation, with what decides about it.
pub(crate) struct Step {
    pub(crate) version: VersionId,
    pub(crate) register: Register,
    at: Place,
    entry: EntryRec,
    act: LockAct,
}

impl Step {
    /// The operation `version`, when it is known and one on a checkout.
    pub(crate) fn load(kv: &dyn KvRead, version: VersionId) -> Result<Option<Self>, StateError> {
        let (Some(entry), Some(rec)) =
            (load_entry(kv, &version.entry)?, load_version(kv, &version)?)
        else {
            return Ok(None);
        };
        let What::Lock { register, act } = rec.what else { return Ok(None) };
        let at = (entry.order(version.entry), version.index);
        Ok(Some(Self { version, register, at, entry, act }))
    }

    pub(crate) fn is_break(&self) -> bool {
        matches!(self.act, LockAct::Break(_))
    }

    /// Lets it take effect on what is held; gives the break, if it is one that does.
    pub(crate) fn take(
        &self,
        kv: &dyn KvRead,
        members: &Members,
        held: &mut Option<Held>,
    ) -> Result<Option<Broke>, StateError> {
        *held = held.filter(|held| held.until.is_none_or(|until| self.at < until));
        let (version, device) = (self.version, self.entry.device);
        let ends = match (&held, self.act.ends()) {
            (Some(held), Some(checkout)) if held.checkout == checkout => Some(held.device),
            _ => None,
        };
        match (self.act, ends) {
            (LockAct::Checkout, _) if held.is_none() => {
                let stands = self.stands(kv, members)?;
                *held = stands.map(|until| Held { checkout: version, device, until });
            }
            (LockAct::GiveBack(_), Some(whom)) if whom == device && self.entry.accepted() => {
                *held = None;
            }
            (LockAct::Break(_), Some(whom)) if self.entry.standing == Some(Role::Owner) => {
                *held = None;
                return Ok(Some(Broke { by: version, at: self.at, whom }));
            }
            _ => {}
        }
        Ok(None)
    }

    /// Until when a checkout's device has the right to it, if it has: until it is removed or may only read. What that had
    /// not seen never counts, not even when it is taken back in, or somebody would lose the name who took it meanwhile.
    fn stands(
        &self,
        kv: &dyn KvRead,
        members: &Members,
    ) -> Result<Option<Option<Place>>, StateError> {
        let mut until: Option<Place> = None;
        if !self.entry.accepted() {
            return Ok(None);
        }
        let changes = members.get(&self.entry.device).map(|m| m.changes.as_slice());
        for change in changes.unwrap_or_default().iter().filter(|c| c.role < Some(Role::Editor)) {
            let Some(entry) = load_entry(kv, &change.by.entry)? else { continue };
            let place = (entry.order(change.by.entry), change.by.index);
            if place > self.at && sees(kv, &entry, &self.entry)? {
                until = until.into_iter().chain([place]).min();
            } else if !sees(kv, &self.entry, &entry)? {
                return Ok(None);
            }
        }
        Ok(Some(until))
    }
}

/// The breaks of the register's checkouts that took effect, worked out from the facts alone.
pub(crate) fn replay(
    kv: &dyn KvRead,
    members: &Members,
    reg: &RegKey,
) -> Result<Vec<Broke>, StateError> {
    let mut steps = Vec::new();
    for row in keys_with(kv, &key(table::LOCK_OP, &[reg.as_slice()]))? {
        steps.extend(Step::load(kv, version_at_end(&row)?)?);
    }
    steps.sort_by_key(|step| step.at);
    let (mut held, mut broken) = (None, Vec::new());
    for step in steps {
        broken.extend(step.take(kv, members, &mut held)?);
    }
    Ok(broken)
}

/// Which bases of which versions are cut by breaks. What was found out is remembered as long as this lives.
pub(crate) struct Cuts<'a> {
    kv: &'a dyn KvRead,
    /// Whether there is any break in the drive.
    any: bool,
    broken: RefCell<BTreeMap<RegKey, Rc<[Broke]>>>,
}

impl<'a> Cuts<'a> {
    pub(crate) fn new(kv: &'a dyn KvRead) -> Result<Self, StateError> {
        let any = first_with(kv, &[table::BREAK])?.is_some();
        Ok(Self { kv, any, broken: RefCell::default() })
    }

    fn broken(&self, reg: &RegKey) -> Result<Rc<[Broke]>, StateError> {
        if let Some(found) = self.broken.borrow().get(reg) {
            return Ok(Rc::clone(found));
        }
        let found: Rc<[Broke]> = load_broken(self.kv, reg)?.into();
        self.broken.borrow_mut().insert(reg.clone(), Rc::clone(&found));
        Ok(found)
    }

    /// Whether `version` of `author` does not replace `base`, although it names it: a break that it had not seen came
    /// before it, and `base` is what stood there.
    pub(crate) fn is_cut(
        &self,
        version: &VersionId,
        author: &DeviceId,
        base: &VersionId,
    ) -> Result<bool, StateError> {
        if !self.any || canary::is(Canary::BreakForgotten) {
            return Ok(false);
        }
        let Some(below) = load_version(self.kv, base)? else { return Ok(false) };
        let Some(register) = &below.register else { return Ok(false) };
        for broke in self.broken(&RegKey::of(register))?.iter().filter(|b| b.whom == *author) {
            let own = below.author == *author;
            if self.is_unseeing(version, broke)? && !(own && self.is_unseeing(base, broke)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Of the bases that `version` names those that it replaces.
    pub(crate) fn uncut(
        &self,
        version: &VersionId,
        author: &DeviceId,
        bases: &[VersionId],
    ) -> Result<Vec<VersionId>, StateError> {
        let mut out = bases.to_vec();
        if self.any {
            out.clear();
            for base in bases {
                if !self.is_cut(version, author, base)? {
                    out.push(*base);
                }
            }
        }
        Ok(out)
    }

    /// Whether `version` comes after the break and had not seen it.
    fn is_unseeing(&self, version: &VersionId, broke: &Broke) -> Result<bool, StateError> {
        let (Some(entry), Some(by)) =
            (load_entry(self.kv, &version.entry)?, load_entry(self.kv, &broke.by.entry)?)
        else {
            return Ok(false);
        };
        let after = (entry.order(version.entry), version.index) > broke.at;
        Ok(after && !sees(self.kv, &entry, &by)?)
    }
}

/// The checkout of `reg` that holds.
pub(crate) fn holds(kv: &dyn KvRead, reg: &RegKey) -> Result<Option<Held>, StateError> {
    Ok(load_held(kv, reg)?.filter(|held| held.until.is_none()))
}

/// The same with all that is told of it.
pub(crate) fn checkout(kv: &dyn KvRead, reg: &RegKey) -> Result<Option<Checkout>, StateError> {
    holds(kv, reg)?.map(|held| told(kv, &held)).transpose()
}

fn told(kv: &dyn KvRead, held: &Held) -> Result<Checkout, StateError> {
    let Held { checkout: id, device, .. } = *held;
    let lost = || corrupt(&[table::HELD]);
    let rec = load_version(kv, &id)?.ok_or_else(lost)?;
    let What::Lock { register, .. } = rec.what else { return Err(lost()) };
    Ok(Checkout { register, id, device, since_ms: rec.saved_at_ms })
}

/// All checkouts that hold, in the order of directories and names, at most [`CHECKOUTS_MAX`].
pub(crate) fn checkouts(kv: &dyn KvRead) -> Result<Vec<Checkout>, StateError> {
    let mut held: Vec<Held> = Vec::new();
    let prefix = [table::HELD];
    kv.scan(&prefix, &prefix_end(&prefix), &mut |row, value| {
        held.extend(Some(decode::<Held>(row, value)?).filter(|held| held.until.is_none()));
        Ok(match held.len() < CHECKOUTS_MAX {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        })
    })?;
    held.iter().map(|held| told(kv, held)).collect()
}

/// What became of the checkout `id`; none when it is not known or none. Costs what was tried while it held.
pub(crate) fn fate(kv: &dyn KvRead, id: VersionId) -> Result<Option<CheckoutFate>, StateError> {
    let Some(own) = Step::load(kv, id)?.filter(|step| step.act == LockAct::Checkout) else {
        return Ok(None);
    };
    let reg = RegKey::of(&own.register);
    let at_key = key(table::LOCK_AT, &[&id.to_bytes()]);
    let at: Vec<u8> = load(kv, &at_key)?.ok_or_else(|| corrupt(&at_key))?;
    // The rows that find it held, and the last of them.
    let (mut first, mut last, mut ended) = (None, None, false);
    let end = prefix_end(&key(table::LOCK_OP, &[reg.as_slice()]));
    kv.scan(&key(table::LOCK_OP, &[reg.as_slice(), &at]), &end, &mut |row, value| {
        let before = decode::<LockRow>(row, value)?.before.flatten();
        match (first.is_none(), before) {
            (true, _) => first = Some(before),
            (false, Some(held)) if held.checkout == id => {
                last = Some((version_at_end(row)?, held));
            }
            _ => {
                ended = true;
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let before = first.flatten().filter(|held| held.until.is_none_or(|until| own.at < until));
    let stands = own.stands(kv, &Members::load(kv)?)?.is_some();
    if before.is_some() || !stands {
        let holder = before.map(|held| held.device).filter(|_| stands);
        return Ok(Some(CheckoutFate::Void { holder }));
    }
    if !ended && let Some(held) = load_held(kv, &reg)?.filter(|held| held.checkout == id) {
        let lasts = held.until.is_none();
        return Ok(Some(if lasts { CheckoutFate::Held } else { CheckoutFate::Removed }));
    }
    let Some((by, held)) = last else { return Err(corrupt(&at_key)) };
    let by = Step::load(kv, by)?.ok_or_else(|| corrupt(&at_key))?;
    Ok(Some(match by.act {
        _ if held.until.is_some_and(|until| until < by.at) => CheckoutFate::Removed,
        LockAct::Break(_) => CheckoutFate::Broken { by: by.entry.device },
        _ => CheckoutFate::GivenBack,
    }))
}
