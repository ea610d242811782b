//! Other members, as far as locks tell of them.

use std::collections::BTreeMap;

use journal::id::{DeviceId, VersionId};
use journal::name::Register;
use vfs::{CheckoutError, Happening, Hold, Holder, Locks, Scope, Spot, StateError};

use super::{Drive, HERE, THERE};

/// What others hold, and what they were asked and told.
#[derive(Default)]
pub struct Others {
    /// Who holds which name.
    pub holds: BTreeMap<Register, Holder>,
    /// Scopes that were asked for, and how.
    pub asked: Vec<(Scope, Asked)>,
    pub given_back: Vec<Scope>,
    pub present: Vec<(Register, bool)>,
    pub told: Vec<Happening>,
    /// Asked for these, they say no.
    pub refused: BTreeMap<Scope, Holder>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    First,
    Meanwhile,
}

/// Somebody else, who holds something.
pub fn ada(hold: Hold) -> Holder {
    let name = "Ada".into();
    let refuses = hold != Hold::Presence;
    let (own, below) = (false, false);
    Holder { device: THERE, name, hold, since_ms: 0, unreachable: 0, refuses, own, below }
}

impl Drive {
    /// From now on there are others.
    pub fn in_company(&self) {
        self.0.lock().unwrap().others = Some(Others::default());
    }

    pub fn others<T>(&self, with: impl FnOnce(&mut Others) -> T) -> T {
        with(self.0.lock().unwrap().others.as_mut().unwrap())
    }
}

impl Locks for Drive {
    fn alone(&self) -> bool {
        self.0.lock().unwrap().others.is_none()
    }

    fn holder(&self, spot: &Spot) -> Option<Holder> {
        self.others(|others| others.holds.get(&spot.register).cloned())
    }

    fn take(&self, scope: &Scope, _: &Spot, _: &[VersionId]) -> Result<(), Holder> {
        self.others(|others| {
            others.asked.push((scope.clone(), Asked::First));
            others.refused.get(scope).cloned().map_or(Ok(()), Err)
        })
    }

    fn take_later(&self, scope: &Scope, _: &Spot, _: &[VersionId]) {
        self.others(|others| others.asked.push((scope.clone(), Asked::Meanwhile)));
    }

    fn give_back(&self, scope: &Scope) {
        self.others(|others| others.given_back.push(scope.clone()));
    }

    fn present(&self, register: &Register, there: bool) {
        self.others(|others| others.present.push((register.clone(), there)));
    }

    fn checkout(&self, register: &Register, taken: bool) -> Result<(), CheckoutError> {
        self.others(|others| match (others.holds.get(register), taken) {
            (Some(holder), _) if !holder.own => Err(CheckoutError::Held(holder.clone())),
            (None, false) => Err(CheckoutError::NotHeld),
            (_, false) => {
                others.holds.remove(register);
                Ok(())
            }
            (_, true) => {
                let own =
                    Holder { own: true, name: "me".into(), device: HERE, ..ada(Hold::Checkout) };
                others.holds.insert(register.clone(), own);
                Ok(())
            }
        })
    }

    fn made_here(&self, loaded: &[VersionId], official: &[VersionId]) -> Result<bool, StateError> {
        let published = self.0.lock().unwrap();
        let by = |version: &VersionId| published.versions.get(version).map(|v| v.author);
        let here = |device: Option<DeviceId>| device == Some(HERE);
        let mut at = official.to_vec();
        while let Some(version) = at.pop() {
            if loaded.contains(&version) {
                continue;
            }
            if !here(by(&version)) {
                return Ok(false);
            }
            at.extend(published.versions.get(&version).into_iter().flat_map(|v| v.bases.clone()));
        }
        Ok(true)
    }

    fn happened(&self, what: Happening) {
        let mut published = self.0.lock().unwrap();
        if let Some(others) = &mut published.others {
            others.told.push(what);
        }
    }
}
