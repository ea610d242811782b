//! What can go wrong, by what the caller was doing: opening, writing, reading.
//!
//! Leaves out: how an error is shown or mapped to an errno (vfs, mountd).
//!
//! Invariants: `Corrupt`, `Full`, `TooNew` and `Closed` are distinct wherever they can occur; every I/O error
//! carries its path and verb; errors are `Clone`, because one failed batch fails every caller that waits for it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::id::ChunkId;

/// An I/O error with what was attempted on which path.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot {verb} {}", path.display())]
pub struct PathError {
    /// The file or directory.
    pub path: PathBuf,
    /// What was attempted, as a bare verb: "open", "sync".
    pub verb: &'static str,
    /// The system's answer; shared because [`io::Error`] cannot be cloned.
    #[source]
    pub source: Arc<io::Error>,
}

impl PathError {
    /// Puts the path and the verb to an I/O error.
    pub fn new(path: impl Into<PathBuf>, verb: &'static str, source: io::Error) -> Self {
        Self { path: path.into(), verb, source: Arc::new(source) }
    }

    /// Whether the disk (or the user's quota on it) is full.
    pub(crate) fn is_full(&self) -> bool {
        is_full(&self.source)
    }
}

/// Whether an I/O error means that there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Why a store does not open.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// A pack was written by a newer version; nothing has been touched.
    #[error("{} has format version {found}, this program knows up to {supported}", path.display())]
    TooNew {
        /// The pack.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version known here.
        supported: u32,
    },
    /// No room even for what opening needs.
    #[error("no room on the disk to open the store")]
    Full,
    /// Any other I/O error.
    #[error(transparent)]
    Io(PathError),
}

impl From<PathError> for OpenError {
    fn from(error: PathError) -> Self {
        if error.is_full() { Self::Full } else { Self::Io(error) }
    }
}

/// Why something could not be written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// The disk is full, or only the reserve is left.
    #[error("no room left in the store")]
    Full,
    /// The store or the writer has been closed.
    #[error("the store is closed")]
    Closed,
    /// A chunk from elsewhere does not hash to its id or does not decompress.
    #[error("chunk {id} is not what its name says")]
    Corrupt {
        /// The id it was offered under.
        id: ChunkId,
    },
    /// An earlier write or sync failed and its data could not be saved elsewhere; the store only reads now.
    #[error("the store is read-only since writing {} failed", path.display())]
    ReadOnly {
        /// The pack that failed.
        path: PathBuf,
    },
    /// More bytes than a content can have.
    #[error("the content is too long")]
    TooLong,
    /// The bytes a new content is made from could not be read.
    #[error("the content that is being changed cannot be read")]
    Base(#[from] ReadError),
    /// Any other I/O error.
    #[error(transparent)]
    Io(PathError),
}

impl From<PathError> for WriteError {
    fn from(error: PathError) -> Self {
        if error.is_full() { Self::Full } else { Self::Io(error) }
    }
}

/// Why bytes could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// What is stored under this id does not hash to it, or is not the manifest it should be.
    #[error("chunk {id} is damaged")]
    Corrupt {
        /// The damaged chunk.
        id: ChunkId,
    },
    /// A manifest of a newer version.
    #[error("manifest {id} has version {found}, this program knows up to {supported}")]
    TooNew {
        /// The manifest's chunk.
        id: ChunkId,
        /// Its version.
        found: u32,
        /// The newest version known here.
        supported: u32,
    },
    /// The chunk is not in this store.
    #[error("chunk {id} is not in the store")]
    Missing {
        /// The absent chunk.
        id: ChunkId,
    },
    /// A source that fetches could not get the chunk.
    #[error("chunk {id} could not be fetched: {reason}")]
    Unavailable {
        /// The absent chunk.
        id: ChunkId,
        /// What stood in the way.
        reason: Unavailable,
    },
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
    /// Any other I/O error.
    #[error(transparent)]
    Io(#[from] PathError),
}

/// Why a chunk that is not local could not be fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unavailable {
    /// No member that has it is connected.
    Nobody,
    /// It did not arrive within the caller's bound.
    TimedOut,
    /// Fetching is shutting down.
    Stopping,
}

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nobody => "no connected device has it",
            Self::TimedOut => "it did not arrive in time",
            Self::Stopping => "the drive is being unmounted",
        })
    }
}
