//! Errors of the journal's operation families.
//!
//! Leaves out: decode and verify errors, which stand beside their code.
//!
//! Invariants:
//! - `Corrupt`, `Full`, `TooNew` and `Closed` are distinct wherever they can occur;
//! - after [`AppendError::Poisoned`] nothing was promised and nothing more is accepted until the
//!   journal is opened again.

use std::io;
use std::path::PathBuf;

use crate::codec::{DecodeError, EncodeError};
use crate::id::DriveId;
use crate::op::OpError;
use crate::signed::VerifyError;

/// An I/O failure with the path and what was being done to it.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {path}")]
pub struct PathError {
    /// The file or directory.
    pub path: PathBuf,
    /// What was being done.
    pub verb: &'static str,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl PathError {
    pub(crate) fn new(path: impl Into<PathBuf>, verb: &'static str, source: io::Error) -> Self {
        Self { path: path.into(), verb, source }
    }

    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// The materialised state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A record that does not decode; the state must be rebuilt from the log.
    #[error("the journal's state has a damaged record in table {table:?}")]
    Corrupt {
        /// First byte of the record's key.
        table: char,
    },
    /// No room for the state.
    #[error("no room for the journal's state")]
    Full,
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
    /// The database failed.
    #[error("the journal's state database failed")]
    Database(#[source] Box<heed::Error>),
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] PathError),
}

impl From<heed::Error> for StateError {
    fn from(error: heed::Error) -> Self {
        match error {
            heed::Error::Mdb(heed::MdbError::MapFull) => StateError::Full,
            heed::Error::Io(ref io) if io.kind() == io::ErrorKind::StorageFull => StateError::Full,
            other => StateError::Database(Box::new(other)),
        }
    }
}

/// A journal cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// There is one already.
    #[error("{path} already holds a journal")]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// The genesis breaks a limit.
    #[error("the drive cannot be described")]
    Spec(#[from] OpError),
    /// The genesis cannot be encoded.
    #[error("the genesis cannot be encoded")]
    Encode(#[from] EncodeError),
    /// The genesis received is not one.
    #[error("the genesis does not verify")]
    Genesis(#[from] VerifyError),
    /// Writing it failed.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// Opening what was made failed.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// A journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none.
    #[error("{path} holds no journal")]
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// Written by newer code.
    #[error("log format {found} is newer than {supported}")]
    TooNew {
        /// The file's format.
        found: u16,
        /// The newest format known here.
        supported: u16,
    },
    /// The log's first entry is no genesis, or a segment is of another drive.
    #[error("{path} is damaged")]
    Corrupt {
        /// The file.
        path: PathBuf,
    },
    /// A segment of another drive lies among the others.
    #[error("{path} belongs to drive {found}, not {expected}")]
    OtherDrive {
        /// The file.
        path: PathBuf,
        /// The drive it names.
        found: DriveId,
        /// The journal's drive.
        expected: DriveId,
    },
    /// No room.
    #[error("the disk is full")]
    Full,
    /// The state failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] PathError),
}

/// Entries cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The author is no member, or no longer.
    #[error("this device is not a member of the drive")]
    NotMember,
    /// The author's role does not allow an operation.
    #[error("operation {index} needs another role")]
    Role {
        /// Its index.
        index: usize,
    },
    /// An operation breaks a limit.
    #[error("operation {index} is not allowed")]
    Op {
        /// Its index.
        index: usize,
        /// What is wrong with it.
        #[source]
        source: OpError,
    },
    /// An operation names a directory id or a placement that its own history does not give.
    #[error("operation {index} does not fit the history it names")]
    Unfit {
        /// Its index.
        index: usize,
    },
    /// Operations that belong together do not fit one entry.
    #[error("operations that belong together are larger than one entry")]
    TooLarge,
    /// Logical time has run out.
    #[error("logical time has run out")]
    Clock,
    /// Another call that shared the write failed; nothing was written, try again.
    #[error("a write made together with another failed")]
    Together,
    /// A sync failed before; open the journal again.
    #[error("the journal's log failed earlier and takes nothing more until it is opened again")]
    Poisoned,
    /// The disk is full.
    #[error("the disk is full")]
    Full,
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
    /// An entry cannot be encoded.
    #[error("an entry cannot be encoded")]
    Encode(#[from] EncodeError),
    /// The state failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The log failed.
    #[error(transparent)]
    Io(#[from] PathError),
}

/// Why a received entry was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefuseReason {
    /// Its bytes are no entry of its author.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// It is of another drive.
    #[error("the entry belongs to drive {found}")]
    OtherDrive {
        /// The drive it names.
        found: DriveId,
    },
    /// Its author was never admitted.
    #[error("its author was never admitted")]
    NotMember,
    /// Its number does not follow its previous entry's, or that is another device's.
    #[error("the entry does not continue its author's chain")]
    Chain,
    /// Its logical time is not after everything it has seen.
    #[error("the entry's logical time is not after what it has seen")]
    Clock,
    /// It waits for an entry that was refused.
    #[error("the entry builds on one that was refused")]
    Parent,
    /// It was pushed out of the bounded buffer of waiting entries.
    #[error("too many entries wait for others")]
    Crowded,
    /// It had waited for others and is not valid after them. Who brought the others has no part in that.
    #[error("it is not valid after the entries it waited for")]
    GivenUp,
}

/// Why an invite does not admit.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    /// No such invite.
    #[error("this invite is not known here")]
    Unknown,
    /// Its time is over.
    #[error("this invite has expired")]
    Expired,
    /// All its uses are taken.
    #[error("this invite has been used")]
    Used,
    /// Its issuer may not invite, or no longer.
    #[error("this invite is void")]
    Void,
    /// The state failed.
    #[error(transparent)]
    State(#[from] StateError),
}

impl From<DecodeError> for RefuseReason {
    fn from(error: DecodeError) -> Self {
        RefuseReason::Verify(VerifyError::Decode(error))
    }
}
