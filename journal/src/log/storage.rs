//! The six calls the log makes of a disk, and the real disk behind them.
//!
//! Leaves out: frames and segments ([`crate::log`]); tests put the log on a simulated disk here.
//!
//! Invariants of every implementation:
//! - what `append` wrote is durable after `sync` of that file returned, the file's name included;
//! - a failed `append` or `sync` promises nothing about the bytes since the last sync.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::PathError;

/// A directory of append-only files.
pub trait Storage: Send + Sync {
    /// The names of all files.
    fn names(&self) -> Result<Vec<String>, PathError>;
    /// Bytes in a file.
    fn len(&self, name: &str) -> Result<u64, PathError>;
    /// Reads from `offset`; fewer bytes than asked only at the end.
    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> Result<usize, PathError>;
    /// Adds bytes at the end, making the file when it is missing.
    fn append(&self, name: &str, bytes: &[u8]) -> Result<(), PathError>;
    /// Makes what was appended durable.
    fn sync(&self, name: &str) -> Result<(), PathError>;
    /// Cuts a file and makes that durable.
    fn truncate(&self, name: &str, len: u64) -> Result<(), PathError>;
    /// Where it is, for messages.
    fn path(&self, name: &str) -> PathBuf;
}

/// A directory of the file system.
#[derive(Debug)]
pub struct DirStorage {
    dir: PathBuf,
    files: Mutex<BTreeMap<String, Open>>,
}

#[derive(Debug, Clone)]
struct Open {
    file: Arc<File>,
    /// The directory does not yet durably name the file.
    fresh: bool,
}

impl DirStorage {
    /// The directory `dir`, made when it is missing.
    pub fn open(dir: &Path) -> Result<Self, PathError> {
        std::fs::create_dir_all(dir).map_err(|e| PathError::new(dir, "create", e))?;
        if let Some(parent) = dir.parent() {
            sync_dir(parent)?;
        }
        Ok(Self { dir: dir.to_owned(), files: Mutex::default() })
    }

    fn file(&self, name: &str, create: bool) -> Result<Open, PathError> {
        let mut files = self.files.lock();
        if let Some(open) = files.get(name) {
            return Ok(open.clone());
        }
        let path = self.dir.join(name);
        let fresh = !path.exists();
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(create)
            .open(&path)
            .map_err(|e| PathError::new(&path, "open", e))?;
        let open = Open { file: Arc::new(file), fresh };
        files.insert(name.to_owned(), open.clone());
        Ok(open)
    }
}

pub(crate) fn sync_dir(dir: &Path) -> Result<(), PathError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| PathError::new(dir, "sync", e))
}

impl Storage for DirStorage {
    fn names(&self) -> Result<Vec<String>, PathError> {
        let failed = |e| PathError::new(&self.dir, "list", e);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(failed)? {
            names.extend(entry.map_err(failed)?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn len(&self, name: &str) -> Result<u64, PathError> {
        let open = self.file(name, false)?;
        Ok(open.file.metadata().map_err(|e| PathError::new(self.path(name), "stat", e))?.len())
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> Result<usize, PathError> {
        let open = self.file(name, false)?;
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match open.file.read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(PathError::new(self.path(name), "read", e)),
            }
        }
        Ok(done)
    }

    fn append(&self, name: &str, bytes: &[u8]) -> Result<(), PathError> {
        let open = self.file(name, true)?;
        (&*open.file).write_all(bytes).map_err(|e| PathError::new(self.path(name), "write", e))
    }

    fn sync(&self, name: &str) -> Result<(), PathError> {
        let open = self.file(name, false)?;
        open.file.sync_data().map_err(|e| PathError::new(self.path(name), "sync", e))?;
        if open.fresh {
            sync_dir(&self.dir)?;
            if let Some(open) = self.files.lock().get_mut(name) {
                open.fresh = false;
            }
        }
        Ok(())
    }

    fn truncate(&self, name: &str, len: u64) -> Result<(), PathError> {
        let open = self.file(name, false)?;
        let cut = open.file.set_len(len).and_then(|()| open.file.sync_all());
        cut.map_err(|e| PathError::new(self.path(name), "cut", e))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}
