//! What this crate asks of the rest: the tree to show, a place to publish changes, the time.
//!
//! Leaves out: any implementation; the daemon has the real ones, tests have fakes.

use journal::id::{DirId, VersionId};
use journal::name::EntryName;
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
    #[error("this device may only read the drive (role {role})")]
    ReadOnly {
        /// The role it has.
        role: String,
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
