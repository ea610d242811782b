//! The drive's tree as the file system asks for it: the journal's view, less what nobody can read.
//!
//! Leaves out drafts (those are `vfs`'s) and every rule of names and conflicts (the journal's).
//!
//! Invariants:
//! - a name whose official content is out of reach shows its newest version that can be read, with
//!   that version's id, so that a save over it becomes a conflict copy and not an overwrite;
//! - with no such version the official one stays: a read then fails, the name never disappears.

use journal::name::EntryName;
use journal::op::FileValue;
use journal::view::{DirNode, ViewKind, ViewNode};
use journal::{DirId, Value, VersionId};
use vfs::{StateError, Tree};

use super::Drive;

pub(super) fn content_of(file: &FileValue) -> cas::Content {
    cas::Content { id: file.content.id, len: file.content.len }
}

pub(super) fn unreadable(error: journal::StateError) -> StateError {
    StateError(Box::new(error))
}

impl Tree for Drive {
    fn lookup(&self, dir: DirId, shown: &EntryName) -> Result<Option<ViewNode>, StateError> {
        let node = self.journal.lookup(dir, shown).map_err(unreadable)?;
        node.map(|node| self.within_reach(node)).transpose()
    }

    fn list(
        &self,
        dir: DirId,
        after: Option<&EntryName>,
        limit: usize,
    ) -> Result<Vec<ViewNode>, StateError> {
        let nodes = self.journal.list(dir, after, limit).map_err(unreadable)?;
        nodes.into_iter().map(|node| self.within_reach(node)).collect()
    }

    fn gone_heads(&self, dir: DirId, name: &EntryName) -> Result<Vec<VersionId>, StateError> {
        self.journal.gone_heads(dir, name).map_err(unreadable)
    }

    fn new_dir_id(
        &self,
        parent: DirId,
        name: &EntryName,
        bases: &[VersionId],
    ) -> Result<DirId, StateError> {
        self.journal.new_dir_id(parent, name, bases).map_err(unreadable)
    }

    fn bases(&self, version: VersionId) -> Result<Vec<VersionId>, StateError> {
        self.journal.bases(version).map_err(unreadable)
    }

    fn dir(&self, dir: DirId) -> Result<Option<DirNode>, StateError> {
        self.journal.dir(dir).map_err(unreadable)
    }
}

impl Drive {
    /// Whether the node's bytes are neither here nor with a member that is online.
    pub(super) fn is_arriving(&self, node: &ViewNode) -> bool {
        let ViewKind::File(file) = &node.kind else { return false };
        let id = &file.content.id;
        self.fetching.is_out_of_reach(id)
            || (self.fetching.is_pending(id) && !self.somebody_online())
    }

    fn within_reach(&self, node: ViewNode) -> Result<ViewNode, StateError> {
        if let ViewKind::File(file) = &node.kind {
            self.fetching.looked_at(&file.content.id, &node.register);
        }
        if !self.is_arriving(&node) {
            return Ok(node);
        }
        let history =
            self.journal.history(node.register.dir, &node.register.name).map_err(unreadable)?;
        let older = history.into_iter().find_map(|version| match version.value {
            // Neither on its way nor collected.
            Value::File(file) if self.is_complete(content_of(&file)) => {
                Some((version.version, version.author, version.saved_at_ms, file))
            }
            _ => None,
        });
        Ok(match older {
            Some((version, author, saved_at_ms, file)) => ViewNode {
                version,
                merged: vec![version],
                author,
                saved_at_ms,
                kind: ViewKind::File(file),
                ..node
            },
            None => node,
        })
    }
}
