//! What programs have open.
//!
//! Leaves out: the meaning of the calls on a handle ([`crate::fs`]).
//!
//! Invariants: a number is never given twice; at most [`HANDLES_MAX`] are open.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use journal::id::DirId;
use parking_lot::{Mutex, RwLock};

use crate::attr::Kind;
use crate::error::FsError;
use crate::file::FileNode;
use crate::past::PastId;
use crate::process::Process;

/// Most handles open at one time.
pub(crate) const HANDLES_MAX: usize = 1 << 20;

/// An open file.
pub(crate) struct FileHandle {
    pub(crate) node: Arc<FileNode>,
    pub(crate) reads: bool,
    pub(crate) writes: bool,
    /// Who opened it: writes cannot be attributed, opens can.
    pub(crate) by: Option<Process>,
    /// What its process may come to have in front of it by this handle.
    pub(crate) loading: Loading,
    /// Where the last read ended and how far was read ahead.
    pub(crate) ahead: Mutex<Ahead>,
}

/// What reading through a handle shows.
#[derive(Debug, Default)]
pub(crate) struct Loading {
    /// Its process had another one in front of it: only what is read through this handle shows that it looked again.
    pub(crate) doubts: bool,
    /// Bytes read through it.
    pub(crate) read_bytes: AtomicU64,
}

/// How a handle is read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ahead {
    pub(crate) next: u64,
    pub(crate) asked_to: u64,
    /// Reads in order so far.
    pub(crate) run: u32,
}

/// An entry of an open directory's listing.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) name: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) ino: u64,
}

/// What an open directory lists.
#[derive(Clone, Debug)]
pub(crate) enum Listable {
    /// A directory of the drive.
    Dir(DirId),
    /// A directory of the past.
    Past(PastId),
}

/// An open directory.
pub(crate) struct DirHandle {
    pub(crate) ino: u64,
    pub(crate) what: Listable,
    /// The listing as it was when reading began; made on the first read and anew after a rewind.
    pub(crate) listing: Mutex<Option<Arc<Vec<Listed>>>>,
}

/// All handles.
pub(crate) struct Handles {
    files: RwLock<HashMap<u64, Arc<FileHandle>>>,
    dirs: RwLock<HashMap<u64, Arc<DirHandle>>>,
    next: AtomicU64,
}

impl Handles {
    pub(crate) fn new() -> Self {
        Self { files: RwLock::default(), dirs: RwLock::default(), next: AtomicU64::new(1) }
    }

    /// Whether any file is open for writing.
    pub(crate) fn is_written(&self) -> bool {
        self.files.read().values().any(|handle| handle.writes)
    }

    /// Files that are open for writing, and by whom.
    pub(crate) fn written(&self) -> Vec<(Arc<FileNode>, Option<Process>)> {
        let files = self.files.read();
        let written = files.values().filter(|handle| handle.writes);
        written.map(|handle| (handle.node.clone(), handle.by)).collect()
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn add_file(&self, handle: FileHandle) -> Result<u64, FsError> {
        let mut files = self.files.write();
        if files.len() >= HANDLES_MAX {
            return Err(FsError::TooMany);
        }
        let number = self.number();
        files.insert(number, Arc::new(handle));
        Ok(number)
    }

    pub(crate) fn file(&self, number: u64) -> Result<Arc<FileHandle>, FsError> {
        self.files.read().get(&number).cloned().ok_or(FsError::BadHandle)
    }

    pub(crate) fn remove_file(&self, number: u64) -> Option<Arc<FileHandle>> {
        self.files.write().remove(&number)
    }

    /// The files that are open, each once for every handle.
    pub(crate) fn open_nodes(&self) -> Vec<Arc<FileNode>> {
        self.files.read().values().map(|handle| handle.node.clone()).collect()
    }

    pub(crate) fn files(&self) -> usize {
        self.files.read().len()
    }

    pub(crate) fn add_dir(&self, ino: u64, what: Listable) -> Result<u64, FsError> {
        let mut dirs = self.dirs.write();
        if dirs.len() >= HANDLES_MAX {
            return Err(FsError::TooMany);
        }
        let number = self.number();
        dirs.insert(number, Arc::new(DirHandle { ino, what, listing: Mutex::new(None) }));
        Ok(number)
    }

    pub(crate) fn dir(&self, number: u64) -> Result<Arc<DirHandle>, FsError> {
        self.dirs.read().get(&number).cloned().ok_or(FsError::BadHandle)
    }

    pub(crate) fn remove_dir(&self, number: u64) {
        self.dirs.write().remove(&number);
    }
}
