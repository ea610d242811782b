//! Virtual names: what the drive's past, and who works on what, looks like in the mount.
//!
//! ```text
//! .snapshots/MOMENT/...        a whole tree as it was
//! .history/PATH/VERSION        every version of one file
//! .NAME.lock                   beside a file somebody works on: who
//! ```
//!
//! Leaves out: answering calls about them ([`crate::fs`]); where the past is kept ([`crate::traits`]).
//!
//! Invariants:
//! - nothing here can be changed: every change is refused as on a read-only file system;
//! - an identity stands for one thing for ever, and an inode number follows from it;
//! - these names are found, never listed unless asked for, and a real file of such a name
//!   wins.

use std::sync::Arc;

use journal::id::{DirId, VersionId};
use journal::name::EntryName;
use journal::op::{FileValue, SymlinkValue, Timestamp};
use journal::past::Moment;

use crate::file::FileNode;

pub(crate) mod names;
pub mod time;

/// Where snapshots are found.
pub const SNAPSHOTS: &str = ".snapshots";
/// Where versions of files are found.
pub const HISTORY: &str = ".history";
/// Mode of directories that never stood in a drive.
const VIRTUAL_DIR_MODE: u32 = 0o555;

/// What a virtual inode is of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum PastId {
    /// The directory of moments.
    Snapshots,
    /// A directory as it was at a moment.
    Tree { moment: Moment, dir: DirId },
    /// A file or link as it was at a moment.
    Leaf { moment: Moment, dir: DirId, name: Arc<str>, version: VersionId },
    /// What stands or stood in a directory.
    Histories(DirId),
    /// The versions of one file.
    Versions { dir: DirId, name: Arc<str> },
    /// One of them.
    Version { dir: DirId, name: Arc<str>, version: VersionId },
    /// What is to be said of a lock, under `.NAME.lock`.
    Lock { dir: DirId, name: Arc<str>, text: Arc<str> },
}

/// Attributes of a virtual directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DirMeta {
    pub(crate) mode: u32,
    pub(crate) mtime: Option<Timestamp>,
    pub(crate) owner: Option<(u32, u32)>,
}

impl DirMeta {
    pub(crate) const VIRTUAL: Self = Self { mode: VIRTUAL_DIR_MODE, mtime: None, owner: None };
}

/// What a virtual name stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Seen {
    Dir(DirMeta),
    File(FileValue, VersionId),
    Symlink(SymlinkValue),
    Text(Arc<str>),
}

/// One name of a virtual directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PastEntry {
    pub(crate) name: EntryName,
    pub(crate) id: PastId,
    pub(crate) seen: Seen,
}

/// A virtual inode.
pub(crate) struct PastNode {
    pub(crate) ino: u64,
    pub(crate) id: PastId,
    /// The inode of the directory it was found in, and its name there.
    pub(crate) parent: u64,
    pub(crate) name: EntryName,
    pub(crate) kind: PastKind,
}

pub(crate) enum PastKind {
    Dir(DirMeta),
    File(Arc<FileNode>, VersionId),
    Symlink(SymlinkValue),
    Text(Arc<FileNode>),
}

impl PastId {
    /// The virtual directory that is found under `name` in the drive's top directory.
    pub(crate) fn at_top(dir: DirId, name: &EntryName) -> Option<Self> {
        match name.as_str() {
            SNAPSHOTS if dir == DirId::ROOT => Some(Self::Snapshots),
            HISTORY if dir == DirId::ROOT => Some(Self::Histories(DirId::ROOT)),
            _ => None,
        }
    }
}
