//! Checkouts and breaks once more, naively.
//!
//! Leaves out: trees, but for which bases a version does not replace ([`super`]).

use std::collections::BTreeMap;

use journal::order::OrderKey;
use journal::{CheckoutFate, DeviceId, EntryId, EntryName, Op, VersionId};

use super::{Key, Oracle, Reg, reg};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Checkout,
    GiveBack(VersionId),
    Break(VersionId),
}

struct LockOp {
    reg: Reg,
    key: Key,
    author: DeviceId,
    kind: Kind,
}

struct Broke {
    reg: Reg,
    key: Key,
    by: EntryId,
    whom: DeviceId,
}

/// All operations on checkouts, and what came of them.
#[derive(Default)]
pub struct Checkouts {
    ops: BTreeMap<VersionId, LockOp>,
    broken: Vec<Broke>,
    /// Who holds which name.
    pub held: BTreeMap<Reg, (VersionId, DeviceId)>,
    /// What became of every checkout.
    pub fates: BTreeMap<VersionId, CheckoutFate>,
}

impl Checkouts {
    /// How many breaks took effect.
    pub fn breaks(&self) -> usize {
        self.broken.len()
    }
}

impl Oracle {
    pub(super) fn read_lock(&mut self, id: VersionId, order: OrderKey, op: &Op) {
        let (dir, name, kind): (_, &EntryName, _) = match op {
            Op::Checkout { dir, name } => (*dir, name, Kind::Checkout),
            Op::GiveBack { dir, name, checkout } => (*dir, name, Kind::GiveBack(*checkout)),
            Op::Break { dir, name, checkout } => (*dir, name, Kind::Break(*checkout)),
            _ => return,
        };
        let (reg, key, author) = (reg(dir, name), (order, id.index), order.device);
        let fits = match kind {
            Kind::Checkout => true,
            Kind::GiveBack(of) | Kind::Break(of) => {
                let named = self.checkouts.ops.get(&of).filter(|of| of.kind == Kind::Checkout);
                let known = self.past[&id.entry].contains(&of.entry);
                let own = named.is_some_and(|of| of.author == author);
                known
                    && named.is_some_and(|of| of.reg == reg)
                    && (own || matches!(kind, Kind::Break(_)))
            }
        };
        if fits && self.knows_dir(id.entry, dir) {
            self.checkouts.ops.insert(id, LockOp { reg, key, author, kind });
        }
    }

    pub(super) fn replay_checkouts(&mut self) {
        let mut all: Vec<(&VersionId, &LockOp)> = self.checkouts.ops.iter().collect();
        all.sort_by_key(|(_, op)| op.key);
        let mut held: BTreeMap<Reg, (VersionId, DeviceId)> = BTreeMap::new();
        let (mut fates, mut broken) = (BTreeMap::new(), Vec::new());
        for (id, op) in all {
            if let Some((of, _)) = held.get(&op.reg).copied()
                && self.falls(&of).iter().any(|fall| *fall < op.key)
            {
                held.remove(&op.reg);
                fates.insert(of, CheckoutFate::Removed);
            }
            let holds = held.get(&op.reg).copied();
            let accepted = self.accepted(&id.entry);
            let stands = accepted && !self.fell_unseen(id);
            let ends = |of: VersionId| holds.filter(|(held, _)| *held == of);
            match op.kind {
                Kind::Checkout if stands && holds.is_none() => {
                    held.insert(op.reg.clone(), (*id, op.author));
                    fates.insert(*id, CheckoutFate::Held);
                }
                Kind::Checkout => {
                    let holder = holds.map(|(_, device)| device).filter(|_| stands);
                    fates.insert(*id, CheckoutFate::Void { holder });
                }
                Kind::GiveBack(of) if accepted && ends(of).is_some() => {
                    held.remove(&op.reg);
                    fates.insert(of, CheckoutFate::GivenBack);
                }
                Kind::Break(of) if self.roster.by_owner(&id.entry) => {
                    let Some((_, whom)) = ends(of) else { continue };
                    held.remove(&op.reg);
                    fates.insert(of, CheckoutFate::Broken { by: op.author });
                    let (reg, key, by) = (op.reg.clone(), op.key, id.entry);
                    broken.push(Broke { reg, key, by, whom });
                }
                _ => {}
            }
        }
        held.retain(|_, (of, _)| {
            let fell = !self.falls(of).is_empty();
            if fell {
                fates.insert(*of, CheckoutFate::Removed);
            }
            !fell
        });
        self.checkouts.held = held;
        self.checkouts.fates = fates;
        self.checkouts.broken = broken;
    }

    /// Where in the order the checkout's device lost the right to write, having it seen.
    fn falls(&self, id: &VersionId) -> Vec<Key> {
        let op = &self.checkouts.ops[id];
        let mut falls = self.roster.falls(&op.author);
        falls.retain(|fall| *fall > op.key && self.past[&fall.0.entry].contains(&id.entry));
        falls
    }

    /// Whether the checkout's device lost the right to write by somebody who did not know of it, and it did not know either.
    fn fell_unseen(&self, id: &VersionId) -> bool {
        let known = |a: &EntryId, b: &EntryId| self.past[a].contains(b);
        let falls = self.roster.falls(&self.checkouts.ops[id].author);
        let mut falls = falls.iter().map(|fall| &fall.0.entry);
        falls.any(|fall| !known(fall, &id.entry) && !known(&id.entry, fall))
    }

    /// Whether `id` comes after the break, by the one whose checkout it broke and who had not seen it.
    fn unseeing(&self, id: &VersionId, broke: &Broke) -> bool {
        let version = &self.versions[id];
        version.author == broke.whom
            && version.key > broke.key
            && !self.past[&version.entry].contains(&broke.by)
    }

    /// How many bases breaks keep from being replaced.
    pub fn cuts(&self) -> usize {
        self.versions.values().map(|v| v.bases.len() - v.replaces.len()).sum()
    }

    /// What had not seen a break replaces under that name only what had not seen it either.
    pub(super) fn cut_bases(&mut self) {
        let cut = |id: &VersionId, base: &VersionId| {
            self.checkouts.broken.iter().any(|broke| {
                self.versions[base].reg.as_ref() == Some(&broke.reg)
                    && self.unseeing(id, broke)
                    && !self.unseeing(base, broke)
            })
        };
        let mut replaces: BTreeMap<VersionId, Vec<VersionId>> = BTreeMap::new();
        for (id, version) in &self.versions {
            let kept = version.bases.iter().filter(|base| !cut(id, base)).copied();
            replaces.insert(*id, kept.collect());
        }
        for (id, kept) in replaces {
            self.versions.get_mut(&id).unwrap().replaces = kept;
        }
    }
}
