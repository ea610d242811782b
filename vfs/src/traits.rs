//! What this crate asks of the rest: the tree to show, a place to publish changes, the time.
//!
//! Leaves out: any implementation; the daemon has the real ones, tests have fakes.

use journal::id::{DirId, VersionId};
use journal::name::EntryName;
use journal::op::{Op, Timestamp};
use journal::view::{DirNode, ViewNode};
use thiserror::Error;

/// The drive's state cannot be read.
#[derive(Debug, Error)]
#[error("the drive's state cannot be read")]
pub struct StateError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// The published tree. Every call is a short read; none waits for the network.
pub trait Tree: Send + Sync + 'static {
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
