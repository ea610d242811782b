//! The identity of a name: its directory and the name in the form names are compared by.
//!
//! Leaves out: how the name was written, which drafts and inodes keep beside it.

use std::sync::Arc;

use journal::id::DirId;
use journal::name::EntryName;

/// A directory and a folded name. Two spellings of one name have one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    dir: DirId,
    folded: Arc<str>,
}

impl Key {
    /// The key of a name in a directory.
    pub fn new(dir: DirId, name: &EntryName) -> Self {
        Self { dir, folded: Arc::from(&*name.folded()) }
    }

    /// A key as the spool kept it.
    pub(crate) fn from_parts(dir: DirId, folded: &str) -> Self {
        Self { dir, folded: Arc::from(folded) }
    }

    /// The directory.
    pub fn dir(&self) -> DirId {
        self.dir
    }

    /// The name in the form it is compared by.
    pub fn folded(&self) -> &str {
        &self.folded
    }
}
