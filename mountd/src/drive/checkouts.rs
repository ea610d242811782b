//! Checkouts and breaks as commands and attributes ask for them, and all locks as a table.
//!
//! Leaves out: session locks ([`super::locking`]), what a checkout means (`journal`).
//!
//! Invariants:
//! - a checkout is taken only after everybody who is connected has agreed, so that of two who ask at once one is told;
//! - a break never removes anybody's work: what its holder saves later stands beside (011).

use journal::lock::{CheckoutFate, LockPolicy};
use journal::op::{Op, Role};
use journal::{Register, Standing, StateError, VersionId};
use net::locks::LockKind;
use vfs::{CheckoutError, Hold, Holder, Locks, Scope, Spot};

use super::Drive;
use super::locking::net_spot;
use super::paths::{Found, PathError};
use crate::ipc::{LockRow, rfc3339};
use crate::report::Failure;

/// What whoever has lost a lock can do.
const BROKEN_REMEDY: &str =
    "what you still save there becomes a conflict copy; open the file again first";

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> CheckoutError {
    CheckoutError::Failed(Box::new(error))
}

impl Drive {
    /// A name in the form locks compare, with the directories it lies in.
    pub(super) fn spot_of(&self, register: &Register) -> Result<Spot, StateError> {
        let mut above = vec![register.dir];
        let mut at = register.dir;
        while at != journal::DirId::ROOT && above.len() < vfs::traits::ABOVE_MAX {
            let Some(node) = self.journal.dir(at)? else { break };
            at = node.parent;
            above.push(at);
        }
        let name = journal::EntryName::new(&register.name.folded());
        let name = name.unwrap_or_else(|_| register.name.clone());
        Ok(Spot { register: Register::new(register.dir, name), above })
    }

    pub(super) fn take_checkout(&self, register: &Register) -> Result<(), CheckoutError> {
        let taken = self.try_checkout(register);
        if let Err(CheckoutError::Held(_)) = &taken
            && let Ok(spot) = self.spot_of(register)
        {
            self.note_refused(&spot.register);
        }
        taken
    }

    fn try_checkout(&self, register: &Register) -> Result<(), CheckoutError> {
        if !matches!(self.own_role(), Some(Role::Owner | Role::Editor)) {
            return Err(CheckoutError::ReadOnly);
        }
        let spot = self.spot_of(register).map_err(failed)?;
        match self.holder(&spot) {
            Some(holder) if holder.own && holder.hold == Hold::Checkout => return Ok(()),
            Some(holder) if !holder.own && holder.hold != Hold::Presence => {
                return Err(CheckoutError::Held(holder));
            }
            _ => {}
        }
        let scope = Scope::Name(spot.register.clone());
        self.take(&scope, &spot, &[]).map_err(CheckoutError::Held)?;
        let Register { dir, name } = register.clone();
        let authored = self.author(vec![Op::Checkout { dir, name }]);
        // After the checkout is in the journal: nobody needs another lock then. While programs here use it it stays.
        self.give_back(&scope);
        authored.map_err(failed)?;
        let checkout = self.journal.checkout(register).map_err(failed)?;
        match checkout {
            Some(checkout) if checkout.device == self.signer.device() => Ok(()),
            Some(c) => {
                Err(CheckoutError::Held(self.holder_row(c.device, Hold::Checkout, c.since_ms, 0)))
            }
            None => Err(CheckoutError::ReadOnly),
        }
    }

    pub(super) fn give_checkout_back(&self, register: &Register) -> Result<(), CheckoutError> {
        let Some(checkout) = self.journal.checkout(register).map_err(failed)? else {
            return Err(CheckoutError::NotHeld);
        };
        if checkout.device != self.signer.device() {
            let (device, since_ms) = (checkout.device, checkout.since_ms);
            return Err(CheckoutError::Held(self.holder_row(device, Hold::Checkout, since_ms, 0)));
        }
        // Whoever takes it next has what was saved under it in front of them.
        self.seal_saves().map_err(failed)?;
        let Register { dir, name } = checkout.register;
        // Its end is no news to whoever wants it.
        self.locking.checkouts.lock().remove(register);
        self.author(vec![Op::GiveBack { dir, name, checkout: checkout.id }]).map_err(failed)
    }

    /// The register of the file at `path`.
    fn file_at(&self, path: &str) -> Result<Register, Failure> {
        self.seal_saves().map_err(|e| Failure::of(&e))?;
        match self.find(path) {
            Ok(Found::Node(node)) if node.standing == Standing::Copy => {
                Err(Failure::copies_are_not_locked(path))
            }
            Ok(Found::Node(node)) if !matches!(node.kind, journal::view::ViewKind::Dir { .. }) => {
                Ok(node.register)
            }
            Ok(Found::Node(_) | Found::Root) => Err(Failure::only_files_are_locked(path)),
            Ok(Found::Nothing(_)) | Err(PathError::NoDirectory(_) | PathError::BadName(_)) => {
                Err(Failure::no_such_file(path))
            }
            Err(error) => Err(Failure::of(&error)),
        }
    }

    /// Checks a file out.
    pub fn lock_file(&self, path: &str) -> Result<(), Failure> {
        let register = self.file_at(path)?;
        self.take_checkout(&register).map_err(|error| not_locked(path, &error))
    }

    /// The name of a checkout, by the path it has or would have.
    fn checked_out_at(&self, path: &str) -> Option<Register> {
        let path = path.trim_matches('/');
        let all = self.journal.checkouts().ok()?.into_iter().map(|checkout| checkout.register);
        all.into_iter().find(|r| self.path_of_register(r).is_ok_and(|known| known == path))
    }

    /// Gives a checkout back; `breaking` ends whoever's lock it is.
    pub fn unlock_file(&self, path: &str, breaking: bool) -> Result<(), Failure> {
        let register = match self.file_at(path) {
            Ok(register) => register,
            // The file may have been moved or removed; its name stays with whoever has checked it out.
            Err(failure) => self.checked_out_at(path).ok_or(failure)?,
        };
        match self.give_checkout_back(&register) {
            Err(CheckoutError::Held(holder)) if breaking => self.break_checkout(&register, &holder),
            Err(CheckoutError::NotHeld) => self.unlock_session(path, &register, breaking),
            done => done.map_err(|error| not_locked(path, &error)),
        }
    }

    fn break_checkout(&self, register: &Register, holder: &Holder) -> Result<(), Failure> {
        self.must_own_to_break(holder)?;
        let checkout = self.journal.checkout(register).map_err(|e| Failure::of(&e))?;
        let Some(checkout) = checkout else { return Ok(()) };
        let Register { dir, name } = checkout.register;
        let op = Op::Break { dir, name, checkout: checkout.id };
        self.author(vec![op]).map_err(|e| Failure::of(&e))
    }

    fn must_own_to_break(&self, holder: &Holder) -> Result<(), Failure> {
        match self.own_role() {
            Some(Role::Owner) => Ok(()),
            _ => Err(Failure::refused(format!(
                "{} has it, and only an owner of the drive may break a lock",
                holder.name
            ))),
        }
    }

    /// There is no checkout: a session lock ends with its program, or is broken.
    fn unlock_session(
        &self,
        path: &str,
        register: &Register,
        breaking: bool,
    ) -> Result<(), Failure> {
        let spot = self.spot_of(register).map_err(|e| Failure::of(&e))?;
        let holder = self.holder(&spot).filter(|holder| holder.hold == Hold::Session);
        let holder = holder.ok_or_else(|| Failure::not_locked(path))?;
        if holder.own {
            return Err(Failure::locked_by_a_program(path));
        }
        if !breaking {
            return Err(Failure::locked_by(path, &holder.name));
        }
        self.must_own_to_break(&holder)?;
        // A checkout comes before any session lock: its holder's device learns of it and lets go.
        let Register { dir, name } = register.clone();
        self.author(vec![Op::Checkout { dir, name }]).map_err(|e| Failure::of(&e))
    }

    /// Whatever programs here still save under a name stands beside, and no lock of this device covers it.
    fn give_way(&self, register: &Register) {
        if let Some(fs) = self.fs() {
            fs.lock_broken(register);
        }
        if let Some(net) = self.net() {
            net.unlock(&net::locks::Scope::Name(register.clone()));
        }
        // Perhaps it was held as part of everything below a directory.
        if let Some(fs) = self.fs() {
            fs.end_bursts();
        }
    }

    /// Somebody else has checked out what programs here hold: they let go, and what they still save stands beside.
    pub(super) fn yield_to_checkout(
        &self,
        register: &Register,
        by: &str,
    ) -> Result<(), StateError> {
        let spot = self.spot_of(register)?;
        let Some(net) = self.net() else { return Ok(()) };
        if net.lock_held(&net_spot(&spot)).is_none() {
            return Ok(());
        }
        self.give_way(&spot.register);
        let path = self.path_of_register(register)?;
        let text = format!("{by} has broken your lock of {path}");
        self.notice(text.clone(), BROKEN_REMEDY.into());
        self.tell("checkout_broken", &path, by, &text);
        Ok(())
    }

    /// What locks mean from now on.
    pub fn set_lock_policy(&self, policy: LockPolicy) -> Result<(), Failure> {
        if self.journal.lock_policy() == policy {
            return Ok(());
        }
        self.author(vec![Op::Locks(policy)]).map_err(|e| Failure::of(&e))
    }

    /// Everything that is known to be held or open, by path.
    pub fn lock_rows(&self) -> Result<Vec<LockRow>, StateError> {
        let mut rows = Vec::new();
        for checkout in self.journal.checkouts()? {
            let path = self.path_of_register(&checkout.register)?;
            rows.push(self.lock_row(path, checkout.device, "checkout", checkout.since_ms, 0));
        }
        for lock in self.net().map(net::Handle::locks).unwrap_or_default() {
            let kind = match lock.kind {
                LockKind::Session => "session",
                LockKind::Presence => "presence",
            };
            let path = match &lock.scope {
                net::locks::Scope::Name(register) => self.path_shown(register)?,
                net::locks::Scope::Below(dir) => self.path_of_dir(*dir)?.unwrap_or_default() + "/",
            };
            rows.push(self.lock_row(path, lock.device, kind, lock.since_ms, lock.unreachable));
        }
        rows.sort_by(|a, b| (&a.path, &a.kind, &a.device).cmp(&(&b.path, &b.kind, &b.device)));
        Ok(rows)
    }

    /// Where a name in the form locks compare is shown, as it is spelled there.
    fn path_shown(&self, register: &Register) -> Result<String, StateError> {
        match self.journal.lookup(register.dir, &register.name)? {
            Some(node) => self.path_of_register(&node.register),
            None => self.path_of_register(register),
        }
    }

    fn lock_row(
        &self,
        path: String,
        device: journal::DeviceId,
        kind: &str,
        since_ms: u64,
        unreachable: u32,
    ) -> LockRow {
        LockRow {
            path,
            holder: self.device_name(device),
            device: device.to_string(),
            since: rfc3339(since_ms),
            kind: kind.to_owned(),
            unreachable,
            mine: device == self.signer.device(),
        }
    }

    /// An own checkout does not hold any more.
    pub(super) fn checkout_ended(
        &self,
        register: &Register,
        id: VersionId,
    ) -> Result<(), StateError> {
        let path = self.path_of_register(register)?;
        let (text, remedy, who) = match self.journal.checkout_fate(id)? {
            Some(CheckoutFate::Broken { by }) => {
                let who = self.device_name(by);
                self.give_way(&self.spot_of(register)?.register);
                let text = format!("{who} has broken your checkout of {path}");
                (text, BROKEN_REMEDY, who)
            }
            Some(CheckoutFate::Void { holder: Some(holder) }) => {
                let who = self.device_name(holder);
                let text = format!("{who} had checked out {path} before you");
                (
                    text,
                    "what you have saved there is kept; wait for the other, or ask an owner",
                    who,
                )
            }
            _ => return Ok(()),
        };
        self.notice(text.clone(), remedy.into());
        self.tell("checkout_broken", &path, &who, &text);
        Ok(())
    }
}

fn not_locked(path: &str, error: &CheckoutError) -> Failure {
    match error {
        CheckoutError::Held(holder) => Failure::locked_by(path, &holder.name),
        CheckoutError::NotHeld => Failure::not_locked(path),
        CheckoutError::ReadOnly => {
            Failure::refused("only members who may change the drive may do that")
        }
        CheckoutError::Failed(error) => Failure::of(error.as_ref()),
    }
}
