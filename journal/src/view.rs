//! What a reader of the drive sees: nodes under shown names.
//!
//! Leaves out: how heads become official or copies ([`crate::register`]) and how copies are named
//! ([`crate::conflict`]).
//!
//! Invariants:
//! - within one directory no two nodes have one shown name;
//! - every live head of every register is behind exactly one node.

use crate::id::{DeviceId, DirId, VersionId};
use crate::name::{EntryName, Register};
use crate::op::{DirAttr, FileValue, SymlinkValue, Value};

/// Whether a head has the plain name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Standing {
    /// The head everybody shows under the plain name.
    Official,
    /// A head beside the official one, under a derived name.
    Copy,
}

/// What a node is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ViewKind {
    /// A regular file.
    File(FileValue),
    /// A symbolic link.
    Symlink(SymlinkValue),
    /// A directory.
    Dir {
        /// Its id.
        dir: DirId,
        /// Its attributes.
        attr: DirAttr,
    },
}

/// One name as it is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ViewNode {
    /// The name it is shown under.
    pub shown: EntryName,
    /// The register it is a version of; for a copy its name differs from `shown`.
    pub register: Register,
    /// The version shown.
    pub version: VersionId,
    /// All ids of this head, `version` among them: the bases a replacement names.
    pub merged: Vec<VersionId>,
    /// Official or copy.
    pub standing: Standing,
    /// The device that wrote it.
    pub author: DeviceId,
    /// The author's wall clock when it was sealed, for display only.
    pub saved_at_ms: u64,
    /// What it is.
    pub kind: ViewKind,
}

/// A directory by its id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirNode {
    /// The directory it stands in.
    pub parent: DirId,
    /// The name it is shown under there.
    pub shown: EntryName,
    /// Its placement version.
    pub placement: VersionId,
    /// Its attributes.
    pub attr: DirAttr,
}

/// Where a version of a history stands today.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HistoryStanding {
    /// Shown under the plain name.
    Official,
    /// Shown as a conflict copy.
    Copy,
    /// Part of a shown head (an equal head, or one that changed attributes only).
    Merged,
    /// Replaced.
    Past,
    /// Written by a device whose work is not accepted.
    Quarantined,
}

/// One version of a file's history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistoryVersion {
    /// Its id.
    pub version: VersionId,
    /// The register it was written to; differs from the asked one before a rename.
    pub register: Register,
    /// What it holds.
    pub value: Value,
    /// The device that wrote it.
    pub author: DeviceId,
    /// The author's wall clock, for display only.
    pub saved_at_ms: u64,
    /// Position in the drive's order, comparable within one drive.
    pub order: crate::order::OrderKey,
    /// Where it stands today.
    pub standing: HistoryStanding,
}

/// What stands or once stood under a name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Once {
    /// A file or a symbolic link.
    Leaf,
    /// This directory.
    Dir(DirId),
}

/// A name with something behind it, now or in the past.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OnceNode {
    /// The name, as it was last spelled.
    pub name: EntryName,
    /// What stands there; when nothing does, what stood there.
    pub what: Once,
}

/// A directory move that lost to another one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SkippedMove {
    /// The move's version, which a `Resolve` may name.
    pub version: VersionId,
    /// The directory it would have moved.
    pub dir: DirId,
    /// Where it would have put it.
    pub to: Register,
    /// Who wrote it.
    pub author: DeviceId,
    /// The author's wall clock, for display only.
    pub saved_at_ms: u64,
}

/// A register that needs a human's eye.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// The register.
    pub register: Register,
    /// What is shown beside the official head.
    pub copies: Vec<ViewNode>,
    /// Moves away from this register that were skipped.
    pub skipped: Vec<SkippedMove>,
}
