//! What a file operation can answer instead of a result.
//!
//! Leaves out: the numbers a kernel wants ([`crate::errno`]).
//!
//! Invariant: every variant says what went wrong for the caller; the ones that come from below keep their cause.

use std::path::{Path, PathBuf};

use cas::{PathError, ReadError, WriteError};
use thiserror::Error;

use crate::traits::{SealError, StateError};

/// Gives an I/O error its place and verb.
pub(crate) fn at<'a>(
    verb: &'static str,
    path: &'a Path,
) -> impl FnOnce(std::io::Error) -> PathError + 'a {
    move |source| PathError::new(path, verb, source)
}

/// Why a file operation was refused or failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FsError {
    /// No such name.
    #[error("no such file or directory")]
    NotFound,
    /// The name is taken.
    #[error("file exists")]
    Exists,
    /// A directory was needed.
    #[error("not a directory")]
    NotDir,
    /// A file was needed.
    #[error("is a directory")]
    IsDir,
    /// The directory holds something.
    #[error("directory not empty")]
    NotEmpty,
    /// The name is longer than a drive can hold.
    #[error("name too long")]
    NameTooLong,
    /// The name is not UTF-8.
    #[error("name is not utf-8")]
    NameEncoding,
    /// The kind of file is not kept by a drive (hard links, devices, sockets).
    #[error("operation not permitted")]
    NotPermitted,
    /// The mode bits or the member's role say no.
    #[error("permission denied")]
    Access,
    /// Somebody else holds the name.
    #[error("locked by {0}")]
    Locked(String),
    /// The drive takes no writes.
    #[error("read-only drive")]
    ReadOnly,
    /// The disk is full up to the reserve.
    #[error("no space left on the disk of the store")]
    Full,
    /// An argument makes no sense.
    #[error("invalid argument")]
    Invalid,
    /// This drive does not do that.
    #[error("operation not supported")]
    NotSupported,
    /// No such attribute, or no data after the offset.
    #[error("no such attribute")]
    NoAttribute,
    /// No data or hole after the offset.
    #[error("no data after the offset")]
    NoOffset,
    /// The caller's buffer is too small.
    #[error("result too large for the buffer")]
    Range,
    /// A value is larger than a drive keeps.
    #[error("value too large")]
    TooBig,
    /// The file would be larger than a drive keeps.
    #[error("file too large")]
    FileTooBig,
    /// No such handle.
    #[error("bad file handle")]
    BadHandle,
    /// The inode is not known any more.
    #[error("stale inode")]
    Stale,
    /// Moving a directory into itself.
    #[error("directory would be its own ancestor")]
    Cycle,
    /// Too much is open.
    #[error("too many open files")]
    TooMany,
    /// The operation has to wait; asked again with [`crate::fs::Wait::Allowed`] it will.
    #[error("operation has to wait")]
    WouldWait,
    /// An earlier failure of the disk stopped all writing.
    #[error("writing stopped after a failed sync")]
    Poisoned,
    /// Reading content failed.
    #[error("cannot read content")]
    Read(#[from] ReadError),
    /// Writing content failed.
    #[error("cannot write content")]
    Write(#[from] WriteError),
    /// The drive's state cannot be read.
    #[error("cannot read the drive's state")]
    State(#[from] StateError),
    /// Publishing failed.
    #[error("cannot publish")]
    Seal(#[from] SealError),
    /// One of our own files failed.
    #[error("spool failed")]
    Spool(#[from] PathError),
}

/// Why a file system could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A spool file or directory failed.
    #[error("cannot open the spool")]
    Io(#[from] PathError),
    /// The spool was written by a newer version.
    #[error("spool of format {found}, newest known is {supported}")]
    TooNew {
        /// The format found.
        found: u16,
        /// The newest format this version reads.
        supported: u16,
    },
    /// The spool's head is not a spool's.
    #[error("{} is not a spool log", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
    },
    /// The drive's state cannot be read.
    #[error("cannot read the drive's state")]
    State(#[from] StateError),
    /// What was recovered could not be made durable.
    #[error("cannot write what was recovered")]
    Write(#[source] WriteError),
    /// The new log could not be begun.
    #[error("cannot begin the spool log")]
    Spool(#[source] Box<FsError>),
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}
