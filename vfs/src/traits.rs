//! What this crate asks of the rest: the tree to show, a place to publish changes, the time.
//!
//! Leaves out: any implementation; the daemon has the real ones, tests have fakes.

use journal::id::{DeviceId, DirId, VersionId};
use journal::name::{EntryName, Register};
use journal::op::{Op, Timestamp};
use journal::past::Moment;
use journal::view::{DirNode, HistoryVersion, OnceNode, ViewNode};
use thiserror::Error;

/// The drive's state cannot be read.
#[derive(Debug, Error)]
#[error("the drive's state cannot be read")]
pub struct StateError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// A named snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// What it is of.
    pub moment: Moment,
    /// When it was taken, milliseconds since 1970.
    pub taken_ms: u64,
}

/// What is said of a name beside what it shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// The newest version published under it.
    pub node: ViewNode,
    /// Whether that version's bytes are out of reach, so that an older one is shown.
    pub arriving: bool,
    /// The name of the member who wrote it.
    pub author: String,
}

/// The drive's past. A call takes as long as the history of what it asks about is; none waits for the
/// network.
pub trait Past: Send + Sync + 'static {
    /// A number that changes with every entry that is taken: while it stands, so does every other answer.
    fn generation(&self) -> u64;
    /// The named snapshots, oldest first.
    fn snapshots(&self) -> Result<Vec<Snapshot>, StateError>;
    /// Whether there was a drive at a moment.
    fn existed(&self, moment: Moment) -> Result<bool, StateError>;
    /// Whether anything was published between two moments.
    fn differ(&self, one: Moment, other: Moment) -> Result<bool, StateError>;
    /// What was shown under a name.
    fn lookup_then(
        &self,
        moment: Moment,
        dir: DirId,
        shown: &EntryName,
    ) -> Result<Option<ViewNode>, StateError>;
    /// Everything a directory showed.
    fn list_then(&self, moment: Moment, dir: DirId) -> Result<Vec<ViewNode>, StateError>;
    /// What stands or once stood in a directory.
    fn once(&self, dir: DirId) -> Result<Vec<OnceNode>, StateError>;
    /// What stands or once stood under a name.
    fn once_at(&self, dir: DirId, name: &EntryName) -> Result<Option<OnceNode>, StateError>;
    /// The versions of a file, newest first, through its renames.
    fn history(&self, dir: DirId, name: &EntryName) -> Result<Vec<HistoryVersion>, StateError>;
    /// What is to be said of a name.
    fn told(&self, dir: DirId, shown: &EntryName) -> Result<Option<Told>, StateError>;
}

/// The published tree. Every call is a short read; none waits for the network.
pub trait Tree: Past {
    /// What is shown under a name.
    fn lookup(&self, dir: DirId, shown: &EntryName) -> Result<Option<ViewNode>, StateError>;
    /// What a directory shows, in the order of names, after `after`, at most `limit`.
    fn list(
        &self,
        dir: DirId,
        after: Option<&EntryName>,
        limit: usize,
    ) -> Result<Vec<ViewNode>, StateError>;
    /// The heads of a register that say "nothing is here".
    fn gone_heads(&self, dir: DirId, name: &EntryName) -> Result<Vec<VersionId>, StateError>;
    /// The identity of a directory made under this name in place of the versions `bases`.
    fn new_dir_id(
        &self,
        parent: DirId,
        name: &EntryName,
        bases: &[VersionId],
    ) -> Result<DirId, StateError>;
    /// The versions that `version` replaced.
    fn bases(&self, version: VersionId) -> Result<Vec<VersionId>, StateError>;
    /// Where a directory is and how it is attributed; nothing when it is not in the tree. The root is asked
    /// for its attributes only; nothing means the usual ones.
    fn dir(&self, dir: DirId) -> Result<Option<DirNode>, StateError>;
}

/// Why a batch was not published. Nothing of it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SealError {
    /// The disk is full.
    #[error("the disk of the store is full")]
    Full,
    /// This device's role may not write.
    #[error("{}", match removed {
        true => "this device was removed from the drive",
        false => "this device may only read the drive",
    })]
    ReadOnly {
        /// It is no member any more.
        removed: bool,
    },
    /// The journal cannot take an operation of this batch, now or later.
    #[error("the journal refuses a change")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The drive is closed or closing.
    #[error("the drive is closed")]
    Closed,
    /// Anything else.
    #[error("publishing failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Where sealed batches go.
pub trait Submit: Send + Sync + 'static {
    /// Whether this device's role may write now. Asked at every operation that would change something, so that a
    /// reader's programs are refused at once instead of working on drafts that can never be published.
    fn may_write(&self) -> bool {
        true
    }

    /// One durable, applied, atomic batch: contents synced first, then the journal. `versions[i]` is the version of
    /// `ops[i]`. On return [`Tree`] shows it.
    fn seal(&self, ops: Vec<Op>) -> Result<Vec<VersionId>, SealError>;
}

/// The time, as the daemon knows it.
pub trait Clock: Send + Sync + 'static {
    /// Wall time, for attributes only.
    fn wall(&self) -> Timestamp;
    /// Milliseconds of a clock that never goes back.
    fn monotonic_ms(&self) -> u64;
}

/// What a session lock is for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scope {
    /// One name, in the form names are compared by.
    Name(Register),
    /// Every name in a directory and below it.
    Below(DirId),
}

/// A name and the directories it lies in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spot {
    /// The name, in the form names are compared by.
    pub register: Register,
    /// Its directory, and those above up to the root; at most [`ABOVE_MAX`].
    pub above: Vec<DirId>,
}

/// Directories of a [`Spot`]; a name that lies deeper is not covered by locks on the topmost.
pub const ABOVE_MAX: usize = 64;

/// How a name is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hold {
    /// While a program works on it.
    Session,
    /// For days, until it is given back.
    Checkout,
    /// Nobody writes, but an editor has it open.
    Presence,
}

/// Who works on a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// The device.
    pub device: DeviceId,
    /// What the drive calls it.
    pub name: String,
    /// How.
    pub hold: Hold,
    /// Since when, milliseconds since 1970.
    pub since_ms: u64,
    /// Members that could not be asked.
    pub unreachable: u32,
    /// Whether the drive's policy lets it keep others from writing.
    pub refuses: bool,
    /// Whether it is this device.
    pub own: bool,
    /// Whether it is part of everything below a directory, which nobody holds for longer than a burst of work.
    pub below: bool,
}

/// What the user should be told at once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Happening {
    /// A program may not change a name, because of the holder.
    Refused(Register, Holder),
    /// A program opened what an editor on another device has open.
    AlsoOpen(Register, Holder),
    /// A program saved over a version it had not seen; its save is this version, beside that one.
    StaleSave(Register, VersionId),
    /// A program removed a name where a version stood that it had not seen; that version stays.
    StaleRemoval(Register),
}

/// Why a checkout was not taken or given back.
#[derive(Debug, Error)]
pub enum CheckoutError {
    /// Somebody else has it.
    #[error("{} has it", .0.name)]
    Held(Holder),
    /// This device does not have it.
    #[error("this device has not checked it out")]
    NotHeld,
    /// This device's role may not.
    #[error("this device may only read the drive")]
    ReadOnly,
    /// The drive's state cannot be read or written.
    #[error("the journal cannot be written")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Who works on what, here and elsewhere.
///
/// What is not implemented answers as in a drive with no other members.
pub trait Locks: Send + Sync + 'static {
    /// Whether there is nobody else who could work on anything.
    fn alone(&self) -> bool {
        true
    }

    /// Who holds a name, others before this device. From memory: microseconds, and waits for nobody.
    fn holder(&self, _spot: &Spot) -> Option<Holder> {
        None
    }

    /// Asks the others for a session lock and waits for their answers, at most 2 s. Taken again when held already.
    fn take(&self, _scope: &Scope, _spot: &Spot, _bases: &[VersionId]) -> Result<(), Holder> {
        Ok(())
    }

    /// Asks without waiting; a refusal is told by `Fs::lock_lost`, at once or later.
    fn take_later(&self, _scope: &Scope, _spot: &Spot, _bases: &[VersionId]) {}

    /// Nothing here uses the lock any more. It is given back once what was saved has left.
    fn give_back(&self, _scope: &Scope) {}

    /// Something was published that locks may have waited for.
    fn published(&self) {}

    /// An editor has a document open, or not any more.
    fn present(&self, _register: &Register, _there: bool) {}

    /// Takes a checkout, or gives it back. May wait for the disk.
    fn checkout(&self, _register: &Register, _taken: bool) -> Result<(), CheckoutError> {
        Err(CheckoutError::NotHeld)
    }

    /// Whether every version from `official` back to one of `loaded` was made on this device.
    fn made_here(
        &self,
        _loaded: &[VersionId],
        _official: &[VersionId],
    ) -> Result<bool, StateError> {
        Ok(true)
    }

    /// Something happened that the user should be told. Waits for nobody.
    fn happened(&self, _what: Happening) {}
}
