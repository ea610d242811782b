//! Looking at checkouts, and at what a device made since it loaded a version.
//!
//! Leaves out: what checkouts mean ([`crate::lock`]); writing them, which is writing operations.
//!
//! Invariants:
//! - each call is one short read transaction and sees one committed state.

use std::collections::{BTreeSet, VecDeque};

use super::Journal;
use crate::error::StateError;
use crate::id::{DeviceId, VersionId};
use crate::kv::KvRead;
use crate::lock::{self, Checkout, CheckoutFate, LockPolicy};
use crate::member::Members;
use crate::name::Register;
use crate::records::{RegKey, VersionRec, What, load_version};

/// Most versions looked at between one that is official and those a program has loaded.
const MADE_SINCE_MAX: usize = 10_000;

impl Journal {
    /// The checkout of `register` that holds.
    pub fn checkout(&self, register: &Register) -> Result<Option<Checkout>, StateError> {
        self.look(|kv| lock::checkout(kv, &RegKey::of(register)))
    }

    /// All checkouts that hold, in the order of directories and names, at most [`lock::CHECKOUTS_MAX`].
    pub fn checkouts(&self) -> Result<Vec<Checkout>, StateError> {
        self.look(lock::checkouts)
    }

    /// What became of a checkout; none when it is not known here or is none.
    pub fn checkout_fate(&self, checkout: VersionId) -> Result<Option<CheckoutFate>, StateError> {
        self.look(|kv| lock::fate(kv, checkout))
    }

    /// What locks mean in this drive.
    pub fn lock_policy(&self) -> LockPolicy {
        self.look_or(LockPolicy::default(), |kv| Ok(Members::load(kv)?.locks))
    }

    /// Whether whoever has `loaded` in front of it has seen the bytes of all of `official`: what is between them was
    /// written by `device`, or changed attributes only, or says that there is nothing. False where there is more to look
    /// at than a bound.
    pub fn made_since(
        &self,
        loaded: &[VersionId],
        official: &[VersionId],
        device: DeviceId,
    ) -> Result<bool, StateError> {
        self.look(|kv| {
            let mut queue: VecDeque<VersionId> = official.iter().copied().collect();
            let mut passed: BTreeSet<VersionId> = official.iter().copied().collect();
            let mut looked_at = 0;
            while let Some(id) = queue.pop_front() {
                if loaded.contains(&id) {
                    continue;
                }
                if looked_at == MADE_SINCE_MAX {
                    return Ok(false);
                }
                looked_at += 1;
                let Some(rec) = load_version(kv, &id)? else { return Ok(false) };
                if matches!(rec.what, What::Gone { .. }) {
                    continue;
                }
                if rec.author != device && !is_of_attributes(kv, &rec)? {
                    return Ok(false);
                }
                queue.extend(rec.bases.into_iter().filter(|base| passed.insert(*base)));
            }
            Ok(true)
        })
    }
}

/// Whether it has the bytes of what it replaced.
fn is_of_attributes(kv: &dyn KvRead, rec: &VersionRec) -> Result<bool, StateError> {
    let What::File(file) = &rec.what else { return Ok(false) };
    for base in &rec.bases {
        if let Some(VersionRec { what: What::File(before), .. }) = load_version(kv, base)?
            && before.content == file.content
        {
            return Ok(true);
        }
    }
    Ok(false)
}
