//! Session locks and presence: who may write what, as pure rules (docs/design/011-locks.md).
//!
//! ```text
//! table ─► answering (others' claims), claiming (own ones), time (leases)
//!   └► book (which claims overlap), budget (floods)
//! rule: what holds, each of which a test can switch off
//! ```
//!
//! Leaves out: streams, threads and clocks (the shell, `warden`), messages as bytes ([`crate::wire::locks`]), checkouts
//! (the journal), which call needs a lock (the host).
//!
//! Invariants:
//! - a lock is a courtesy: nothing here decides which version is official;
//! - time is a number given with every call, in milliseconds of a clock that runs on while the machine sleeps;
//! - whatever a peer says, memory is bounded ([`crate::limits`]) and nothing panics.

use journal::id::{DeviceId, DirId, VersionId};
use journal::name::{EntryName, Register};
use serde::{Deserialize, Serialize};

mod book;
mod budget;
mod rule;
mod table;

#[cfg(test)]
mod tests;

pub use rule::Rule;
pub use table::{Began, Belief, Effect, Now, Table, Violation};

/// What a lock is for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Scope {
    /// One name.
    Name(Register),
    /// Everything below a directory.
    Below(DirId),
}

impl Scope {
    /// The same scope with its name as it is compared: two spellings of a name are one.
    pub fn folded(self) -> Self {
        match self {
            Scope::Name(register) => Scope::Name(folded(register)),
            below => below,
        }
    }
}

/// The register as it is compared.
pub(crate) fn folded(register: Register) -> Register {
    match EntryName::new(&register.name.folded()) {
        Ok(name) => Register { dir: register.dir, name },
        // A composed form longer than a name may be: then it has no other spelling that is one.
        Err(_) => register,
    }
}

/// A name and where it stands.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Spot {
    /// The name.
    pub register: Register,
    /// Its directory, that one's directory, and so on up to the root.
    pub above: Vec<DirId>,
}

/// What a host wants to hold.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LockClaim {
    /// For what.
    pub scope: Scope,
    /// The directories from the name's own, or the one that holds the directory, up to the root.
    pub above: Vec<DirId>,
    /// The versions in front of whoever is about to write; empty when that is nothing.
    pub bases: Vec<VersionId>,
    /// The host's logical time, as an order only: of two claims the lower wins.
    pub priority: u64,
}

/// Somebody else's lock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Foreign {
    /// Who holds it.
    pub device: DeviceId,
    /// Since when, milliseconds since 1970, for display.
    pub since_ms: u64,
    /// Whether every member seen within 30 days has granted it, as its holder says.
    pub whole: bool,
    /// How many of them have not.
    pub unreachable: u32,
    /// Whether it is for everything below a directory.
    pub below: bool,
}

/// What became of a claim.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LockOutcome {
    /// It is ours.
    Held {
        /// Members seen within 30 days that have not granted it.
        unreachable: u32,
        /// Somebody who granted it has a version that replaces what the claim names as bases.
        newer: bool,
    },
    /// It is somebody else's.
    Denied(Foreign),
    /// The network was shut down, or the claim was given back before it was decided.
    Closed,
}

/// What [`LockInfo`] tells of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LockKind {
    /// A session lock.
    Session,
    /// The device has it open for reading.
    Presence,
}

/// One lock or presence, own or somebody else's.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LockInfo {
    /// Of what.
    pub scope: Scope,
    /// Whose.
    pub device: DeviceId,
    /// Since when, milliseconds since 1970, for display.
    pub since_ms: u64,
    /// What it is.
    pub kind: LockKind,
    /// Members that have not granted it.
    pub unreachable: u32,
}
