//! Paths as a user types them, and the nodes and registers they name.
//!
//! Leaves out drafts: commands that ask about history see what has been published; the daemon seals
//! before it answers.
//!
//! Invariants: a path is walked by name, one directory at a time, and never leaves the drive.

use journal::name::EntryName;
use journal::view::{Once, OnceNode, ViewKind, ViewNode};
use journal::{DirId, Register, StateError};

use super::Drive;

/// Components a path may have.
pub(super) const DEPTH_MAX: usize = 1_024;

/// What a path names.
pub(super) enum Found {
    /// The drive's top directory.
    Root,
    /// Something that is there now.
    Node(Box<ViewNode>),
    /// Nothing now; the register a file of that name had or would have.
    Nothing(Register),
}

/// Why a path names nothing.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// A directory on the way does not exist.
    #[error("no such directory in the drive: {0}")]
    NoDirectory(String),
    /// A name no drive can hold.
    #[error("not a name a drive can hold: {0}")]
    BadName(String),
    /// More than [`DEPTH_MAX`] components.
    #[error("path has more than {DEPTH_MAX} components")]
    TooDeep,
    /// The state could not be read.
    #[error("the drive's state cannot be read")]
    State(#[from] StateError),
}

impl Drive {
    /// Finds what `path`, relative to the mount's top, names.
    pub(super) fn find(&self, path: &str) -> Result<Found, PathError> {
        let mut dir = DirId::ROOT;
        let mut found = Found::Root;
        let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
        for (depth, part) in parts.enumerate() {
            if depth >= DEPTH_MAX {
                return Err(PathError::TooDeep);
            }
            match &found {
                Found::Root => {}
                Found::Node(node) => match &node.kind {
                    ViewKind::Dir { dir: below, .. } => dir = *below,
                    _ => return Err(PathError::NoDirectory(node.shown.to_string())),
                },
                Found::Nothing(at) => return Err(PathError::NoDirectory(at.name.to_string())),
            }
            let name = EntryName::new(part).map_err(|_| PathError::BadName(part.to_owned()))?;
            found = match self.journal.lookup(dir, &name)? {
                Some(node) => Found::Node(Box::new(node)),
                None => Found::Nothing(Register { dir, name }),
            };
        }
        Ok(found)
    }

    /// The register of the file that `path` names, or named before it or a folder above it was removed. A
    /// path below `.history` is the file's whose versions are there.
    pub(super) fn find_once(&self, path: &str) -> Result<Option<Register>, PathError> {
        Ok(self.walk_once(path)?.1)
    }

    /// The same path without `.history` before it and without a version's name after it.
    pub(super) fn plain_path(&self, path: &str) -> Result<String, PathError> {
        let top = path.split('/').find(|part| !part.is_empty() && *part != ".");
        match top.map(EntryName::new) {
            Some(Ok(top)) if top.as_str() == vfs::past::HISTORY && self.is_virtual(&top)? => {
                Ok(self.walk_once(path)?.0.join("/"))
            }
            _ => Ok(path.to_owned()),
        }
    }

    /// Whether the name is one of the virtual directories' in the top folder, and nothing real has it.
    pub(super) fn is_virtual(&self, top: &EntryName) -> Result<bool, StateError> {
        let is = [vfs::past::HISTORY, vfs::past::SNAPSHOTS].contains(&top.as_str());
        Ok(is && self.journal.lookup(DirId::ROOT, top)?.is_none())
    }

    /// The names that lead there, without those of virtual things, and the register.
    fn walk_once(&self, path: &str) -> Result<(Vec<String>, Option<Register>), PathError> {
        let mut parts: Vec<&str> =
            path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        let in_history = match parts.first() {
            Some(first) => {
                let name =
                    EntryName::new(first).map_err(|_| PathError::BadName((*first).to_owned()))?;
                name.as_str() == vfs::past::HISTORY && self.is_virtual(&name)?
            }
            None => false,
        };
        if in_history {
            parts.remove(0);
        }
        if parts.len() > DEPTH_MAX {
            return Err(PathError::TooDeep);
        }
        let mut names: Vec<String> = Vec::new();
        let (mut dir, mut parts) = (DirId::ROOT, parts.into_iter().peekable());
        while let Some(part) = parts.next() {
            names.push(part.to_owned());
            let name = EntryName::new(part).map_err(|_| PathError::BadName(part.to_owned()))?;
            let node = self.journal.lookup(dir, &name)?;
            if parts.peek().is_none() {
                let at = node.map_or_else(|| Register { dir, name }, |node| node.register);
                return Ok((names, Some(at)));
            }
            dir = match (node.map(|node| node.kind), self.journal.once_at(dir, &name)?) {
                (Some(ViewKind::Dir { dir, .. }), _) => dir,
                (_, Some(OnceNode { what: Once::Dir(dir), .. })) => dir,
                // The folder of a file's versions, and one of them.
                (_, Some(OnceNode { name, .. })) if in_history => {
                    return Ok((names, Some(Register { dir, name })));
                }
                _ => return Err(PathError::NoDirectory(part.to_owned())),
            };
        }
        Ok((names, None))
    }

    /// The path a directory is shown at, from the drive's top, or none when it is not reachable.
    pub(super) fn path_of_dir(&self, dir: DirId) -> Result<Option<String>, StateError> {
        let mut names = Vec::new();
        let mut at = dir;
        while at != DirId::ROOT {
            let Some(node) = self.journal.dir(at)? else { return Ok(None) };
            names.push(node.shown.to_string());
            at = node.parent;
            if names.len() > DEPTH_MAX {
                return Ok(None);
            }
        }
        names.reverse();
        Ok(Some(names.join("/")))
    }
}
