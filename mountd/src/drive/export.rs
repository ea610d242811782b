//! A plain copy of the drive's tree, readable without Atelier.
//!
//! Leaves out history (only what is shown now, conflict copies included) and owners.
//!
//! Invariants:
//! - the destination is missing or empty, and nothing outside it is written: names come from the
//!   journal, hold no `/`, and every file is made new;
//! - set-user-id and set-group-id are left out: the copy may lie where they would have an effect;
//! - a file that cannot be read whole ends the export with an error that names it.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cas::reader::{ChunkSource, Reader};
use journal::op::{DirAttr, FileValue, Timestamp, Xattrs};
use journal::view::{ViewKind, ViewNode};
use journal::{DirId, StateError};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags};
use vfs::attr::{DIR_MODE_BITS, FILE_MODE_BITS};

use super::Drive;

/// Names taken from the journal at a time.
const PAGE: usize = 1_024;
/// Bytes copied at a time.
const BUFFER_LEN: usize = 1 << 20;

/// What has been copied.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exported {
    /// Files and symlinks.
    pub files: u64,
    /// Directories, the top one not counted.
    pub dirs: u64,
    /// Bytes of file contents.
    pub bytes: u64,
}

/// The copy could not be made whole.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The destination holds something already.
    #[error("{} is not an empty directory", .0.display())]
    NotEmpty(PathBuf),
    /// The destination is there and no folder.
    #[error("{} is no directory", .0.display())]
    NotFolder(PathBuf),
    /// A file system call failed at the destination.
    #[error("cannot {verb} {}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What was tried.
        verb: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The bytes of a file cannot be had.
    #[error("cannot read {} from the drive", path.display())]
    Read {
        /// The destination of the file.
        path: PathBuf,
        /// Why.
        source: cas::error::ReadError,
    },
    /// The drive's state cannot be read.
    #[error("the drive's state cannot be read")]
    State(#[from] StateError),
}

fn io(path: &Path, verb: &'static str) -> impl FnOnce(std::io::Error) -> ExportError {
    let path = path.to_owned();
    move |source| ExportError::Io { path, verb, source }
}

impl Drive {
    /// Copies everything the drive shows to `dest`, telling `progress` after each file.
    pub fn export(
        self: &Arc<Self>,
        dest: &Path,
        progress: &mut dyn FnMut(Exported),
    ) -> Result<Exported, ExportError> {
        if let Ok(mut entries) = std::fs::read_dir(dest)
            && entries.next().is_some()
        {
            return Err(ExportError::NotEmpty(dest.to_owned()));
        }
        if std::fs::symlink_metadata(dest).is_ok() && !dest.is_dir() {
            return Err(ExportError::NotFolder(dest.to_owned()));
        }
        std::fs::create_dir_all(dest).map_err(io(dest, "create"))?;
        let mut done = Exported::default();
        // Directories get their attributes last, children first: a read-only one would refuse its
        // own contents, and every new file would move its time.
        let mut attrs: Vec<(PathBuf, DirAttr)> = Vec::new();
        let mut todo = vec![(DirId::ROOT, dest.to_owned())];
        while let Some((dir, at)) = todo.pop() {
            let mut after = None;
            loop {
                let page = self.journal.list(dir, after.as_ref(), PAGE)?;
                let Some(last) = page.last() else { break };
                after = Some(last.shown.clone());
                for node in page {
                    let path = at.join(node.shown.as_str());
                    if let ViewKind::Dir { dir, attr } = &node.kind {
                        std::fs::create_dir(&path).map_err(io(&path, "create"))?;
                        attrs.push((path.clone(), attr.clone()));
                        todo.push((*dir, path));
                        done.dirs += 1;
                    } else {
                        self.export_leaf(&node, &path, &mut done)?;
                        progress(done);
                    }
                }
            }
        }
        for (path, attr) in attrs.into_iter().rev() {
            set_xattrs(&path, &attr.xattrs)?;
            let mode = Permissions::from_mode(attr.mode & DIR_MODE_BITS);
            std::fs::set_permissions(&path, mode).map_err(io(&path, "set the mode of"))?;
            if let Some(mtime) = attr.mtime {
                set_mtime(&path, mtime)?;
            }
        }
        Ok(done)
    }

    fn export_leaf(
        self: &Arc<Self>,
        node: &ViewNode,
        path: &Path,
        done: &mut Exported,
    ) -> Result<(), ExportError> {
        match &node.kind {
            ViewKind::Symlink(link) => {
                use std::os::unix::ffi::OsStrExt;
                let target = std::ffi::OsStr::from_bytes(&link.target);
                std::os::unix::fs::symlink(target, path).map_err(io(path, "create"))?;
                set_mtime(path, link.mtime)?;
            }
            ViewKind::File(file) => {
                self.export_file(file, path)?;
                done.bytes += file.content.len;
            }
            ViewKind::Dir { .. } => {}
        }
        done.files += 1;
        Ok(())
    }

    fn export_file(self: &Arc<Self>, value: &FileValue, path: &Path) -> Result<(), ExportError> {
        let unreadable = |source| ExportError::Read { path: path.to_owned(), source };
        let source: Arc<dyn ChunkSource> = self.clone();
        let content = cas::Content { id: value.content.id, len: value.content.len };
        let _hold = self.store.hold(content);
        let reader = Reader::open(content, source).map_err(unreadable)?;
        let mut options = OpenOptions::new();
        let mut file: File = options
            .write(true)
            .create_new(true)
            .mode(value.mode & FILE_MODE_BITS)
            .open(path)
            .map_err(io(path, "create"))?;
        let mut buffer = vec![0; BUFFER_LEN];
        let mut offset = 0;
        while offset < reader.len() {
            let got = reader.read_at(offset, &mut buffer).map_err(unreadable)?;
            let bytes = buffer.get(..got).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            file.write_all(bytes).map_err(io(path, "write"))?;
            offset += got as u64;
        }
        set_xattrs(path, &value.xattrs)?;
        let mode = Permissions::from_mode(value.mode & FILE_MODE_BITS);
        file.set_permissions(mode).map_err(io(path, "set the mode of"))?;
        file.sync_all().map_err(io(path, "make durable"))?;
        drop(file);
        set_mtime(path, value.mtime)
    }
}

/// A destination that keeps no extended attributes gets the files without them.
fn set_xattrs(path: &Path, xattrs: &Xattrs) -> Result<(), ExportError> {
    for (name, value) in xattrs {
        let set = rustix::fs::setxattr(path, name.as_slice(), value, XattrFlags::empty());
        match set {
            Err(rustix::io::Errno::OPNOTSUPP) => {
                tracing::warn!(path = %path.display(), "the destination keeps no extended attributes");
                return Ok(());
            }
            set => set.map_err(|e| io(path, "set an attribute of")(e.into()))?,
        }
    }
    Ok(())
}

fn set_mtime(path: &Path, mtime: Timestamp) -> Result<(), ExportError> {
    let time = Timespec { tv_sec: mtime.secs, tv_nsec: i64::from(mtime.nanos) };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| io(path, "set the time of")(e.into()))
}
