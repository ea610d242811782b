//! One link of a device's chain: a batch of operations and what its author had seen.
//!
//! Leaves out: bytes ([`crate::codec`]), signatures ([`crate::signed`]), rules that need other entries
//! ([`crate::replica`]).
//!
//! Invariants:
//! - [`Entry::check`] holds every rule one entry can be judged by alone; nothing that breaks one is
//!   signed, kept or folded.

use serde::{Deserialize, Serialize};

use crate::hlc::Hlc;
use crate::id::{DeviceId, DriveId, EntryId};
use crate::op::{Op, OpError};

/// Most operations of one entry.
pub const OPS_MAX: usize = 4096;
/// Most bytes of one entry as it travels, envelope and signature included.
pub const ENTRY_LEN_MAX: usize = 256 << 10;
/// Most foreign heads one entry names.
pub const SEEN_MAX: usize = 256;
/// Most start points of late work one entry names.
pub const LATE_MAX: usize = 8;

/// A batch of operations, one link of a chain.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The drive, [`DriveId::ZERO`] in the genesis.
    pub drive: DriveId,
    /// The author.
    pub device: DeviceId,
    /// Links before this one in the chain.
    pub seq: u64,
    /// The author's previous entry.
    pub prev: Option<EntryId>,
    /// Heads of other chains taken in since `prev`, sorted.
    pub seen: Vec<EntryId>,
    /// First own entries nobody had acknowledged: all own ones from there to here are late.
    pub late: Vec<EntryId>,
    /// Logical time, greater than that of `prev` and all of `seen`.
    pub hlc: Hlc,
    /// The author's wall clock, for display only.
    pub saved_at_ms: u64,
    /// What it does.
    pub ops: Vec<Op>,
}

/// Which rule an entry breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Too many operations.
    #[error("an entry has {found} operations, at most {OPS_MAX} are allowed")]
    TooManyOps {
        /// How many.
        found: usize,
    },
    /// Too many foreign heads, or not in order, or one twice.
    #[error("an entry's list of seen heads is too long or out of order")]
    Seen,
    /// Too many late starts, or some without a chain before them.
    #[error("an entry's list of late starts is too long or has no chain before it")]
    Late,
    /// First link and place in the chain disagree.
    #[error("an entry's number and its previous entry disagree")]
    Chain,
    /// A genesis that is not the first entry, or a first entry of no drive.
    #[error("an entry's drive and its place as genesis disagree")]
    Genesis,
    /// An operation breaks a limit.
    #[error("operation {index} is not allowed")]
    Op {
        /// Its index.
        index: usize,
        /// What is wrong with it.
        #[source]
        source: OpError,
    },
}

impl Entry {
    /// Whether this is a drive's first entry.
    pub fn is_genesis(&self) -> bool {
        self.drive == DriveId::ZERO
    }

    /// Entries that must be known before this one.
    pub fn parents(&self) -> impl Iterator<Item = EntryId> + '_ {
        self.prev.into_iter().chain(self.seen.iter().copied())
    }

    /// Holds every rule one entry can be judged by alone.
    pub fn check(&self) -> Result<(), EntryError> {
        if self.ops.len() > OPS_MAX {
            return Err(EntryError::TooManyOps { found: self.ops.len() });
        }
        let sorted = self.seen.iter().zip(self.seen.iter().skip(1)).all(|(a, b)| a < b);
        if self.seen.len() > SEEN_MAX || !sorted {
            return Err(EntryError::Seen);
        }
        if self.late.len() > LATE_MAX || (!self.late.is_empty() && self.prev.is_none()) {
            return Err(EntryError::Late);
        }
        if self.prev.is_none() != (self.seq == 0) {
            return Err(EntryError::Chain);
        }
        let first = self.prev.is_none() && self.seen.is_empty();
        let genesis_at = self.ops.iter().position(|op| matches!(op, Op::Genesis { .. }));
        let count = self.ops.iter().filter(|op| matches!(op, Op::Genesis { .. })).count();
        let says_genesis = genesis_at == Some(0) && count == 1;
        if self.is_genesis() != first || says_genesis != first || count > 1 {
            return Err(EntryError::Genesis);
        }
        for (index, op) in self.ops.iter().enumerate() {
            op.check().map_err(|source| EntryError::Op { index, source })?;
        }
        Ok(())
    }
}
