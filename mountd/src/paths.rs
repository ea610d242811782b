//! Where things are on this device: the data directory, its drives, their stores and mounts.
//!
//! ```text
//! DATA/seed | seed.enc | keystore.json     the device's secret (crate::keys)
//! DATA/lock                                held for the moment of a change to mounts.json or drives/
//! DATA/mounts.json                         mount point -> drive, kept for ever
//! DATA/drives/<drive id>/                  one store: lock, drive.json, cas/, journal/, spool/,
//!                                          control.sock, peers, daemon.log
//! DATA/drives/.new-<random>/               a store that is being made
//! ```
//!
//! Leaves out what is in a store (the other crates') and mounting.
//!
//! Invariants:
//! - a store appears under its id only when it is whole (made aside, then renamed);
//! - who has a store open holds its `lock`;
//! - a mount point is never forgotten: without that, a lost data directory would look like a first
//!   start, and the user's drive like an empty one;
//! - looking for the drive of a path never asks a mounted file system anything: a dead mount would
//!   hang the very command that is to end it.

pub mod atomic;
pub mod mounts;
pub mod resolve;
pub mod store;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use etcetera::BaseStrategy;
use journal::id::DriveId;
use rustix::fs::{FlockOperation, flock};

use crate::report::Failure;
pub use mounts::Mounts;
pub use store::{Description, Store};

/// Stores looked at in a data directory; more are not made by hand.
const DRIVES_MAX: usize = 4_096;
/// How long a change in the data directory waits for another process's.
const GUARD_WAIT: Duration = Duration::from_secs(10);
/// Between two looks at the guard.
const GUARD_POLL: Duration = Duration::from_millis(10);
/// A store that was being made this long ago and is held by nobody was given up.
const ABANDONED_AFTER: Duration = Duration::from_secs(600);

/// One data directory: everything of Atelier that a device keeps.
#[derive(Clone, Debug)]
pub struct DataDir {
    root: PathBuf,
}

/// Held while something in the data directory itself changes.
#[derive(Debug)]
pub struct Guard {
    _file: File,
}

impl DataDir {
    /// The given directory, or the platform's; nothing is made yet.
    pub fn locate(given: Option<&Path>) -> Result<Self, Failure> {
        let root = match given {
            Some(path) => std::path::absolute(path).map_err(|e| Failure::bad_path(path, e))?,
            None => etcetera::choose_base_strategy()
                .map_err(|_| Failure::no_data_dir())?
                .data_dir()
                .join("atelier"),
        };
        // Its real name, so that it can be compared with mount points; it may not exist yet.
        let root = resolve::real(&root, &|_| false).unwrap_or(root);
        Ok(Self { root })
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn drives_dir(&self) -> PathBuf {
        self.root.join("drives")
    }

    /// Where the store of `drive` is, or would be.
    pub fn store_dir(&self, drive: &DriveId) -> PathBuf {
        self.drives_dir().join(drive.to_string())
    }

    /// Makes what is missing, and sees to it that nobody else can look in.
    pub fn prepare(&self) -> Result<(), Failure> {
        let failed = |e| Failure::io("use the data directory", &self.root, &e);
        make_private(&self.root).map_err(failed)?;
        let meta = fs::metadata(&self.root).map_err(failed)?;
        if !meta.is_dir() {
            return Err(Failure::bad_path(&self.root, "it is not a folder"));
        }
        if meta.uid() != rustix::process::geteuid().as_raw() {
            return Err(Failure::data_dir_foreign(&self.root));
        }
        // A directory full of other things keeps its permissions: somebody may have named /tmp.
        let ours = self.drives_dir().is_dir() || is_empty(&self.root).map_err(failed)?;
        if ours && meta.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(&self.root, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        }
        let drives = self.drives_dir();
        let failed = |e| Failure::io("use", &drives, &e);
        make_private(&drives).map_err(failed)?;
        fs::set_permissions(&drives, fs::Permissions::from_mode(0o700)).map_err(failed)
    }

    /// Waits (bounded) until no other process changes the data directory.
    pub fn guard(&self) -> Result<Guard, Failure> {
        let path = self.root.join("lock");
        let file = open_lock(&path)?;
        let start = Instant::now();
        while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            if start.elapsed() > GUARD_WAIT {
                return Err(Failure::store_in_use(&self.root));
            }
            std::thread::sleep(GUARD_POLL);
        }
        Ok(Guard { _file: file })
    }

    /// The ids of all stores here.
    pub fn drive_ids(&self) -> Result<Vec<DriveId>, Failure> {
        let dir = self.drives_dir();
        let failed = |e| Failure::io("read", &dir, &e);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed(e)),
        };
        let mut ids = Vec::new();
        for entry in entries.take(DRIVES_MAX) {
            let name = entry.map_err(failed)?.file_name();
            if let Some(id) = name.to_str().and_then(|n| n.parse::<DriveId>().ok()) {
                ids.push(id);
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// What is written down about each drive here that can be read, and why the others cannot: one
    /// damaged store does not stand in the way of the rest.
    pub fn drives(&self) -> Result<(Vec<Description>, Vec<Failure>), Failure> {
        let mut good = Vec::new();
        let mut bad = Vec::new();
        for id in self.drive_ids()? {
            match Description::load(&self.store_dir(&id)) {
                Ok(found) => good.push(found),
                Err(failure) => bad.push(failure),
            }
        }
        Ok((good, bad))
    }

    /// What is written down about one drive, if its store is here.
    pub fn drive(&self, id: &DriveId) -> Result<Option<Description>, Failure> {
        let dir = self.store_dir(id);
        if dir.is_dir() { Description::load(&dir).map(Some) } else { Ok(None) }
    }

    /// Every mount point this device has ever used and has a record of.
    ///
    /// The stores' own word is added to `mounts.json`: a crash between the two writes loses nothing.
    pub fn mounts(&self) -> Result<Mounts, Failure> {
        let mut mounts = Mounts::load(&self.root)?;
        for drive in self.drives()?.0 {
            mounts.insert(&drive.mount, drive.id()?);
        }
        Ok(mounts)
    }

    /// Remembers for ever that `mount` is (or was) the mount point of `drive`.
    pub fn remember_mount(&self, mount: &Path, drive: DriveId) -> Result<(), Failure> {
        let _guard = self.guard()?;
        let mut mounts = Mounts::load(&self.root)?;
        if mounts.insert(mount, drive) { mounts.save(&self.root) } else { Ok(()) }
    }

    /// The absolute, real path of `path`, without a question to any mount known here.
    pub fn real_path(&self, path: &Path) -> Result<PathBuf, Failure> {
        let mounts = self.mounts()?;
        let absolute = std::path::absolute(path).map_err(|e| Failure::bad_path(path, e))?;
        resolve::real(&absolute, &|p| mounts.get(p).is_some())
            .map_err(|e| Failure::io("follow", path, &e))
    }

    /// The drive whose mount `path` is or lies in, and the rest of the path below it.
    pub fn find_drive(&self, path: &Path) -> Result<(Description, PathBuf), Failure> {
        let real = self.real_path(path)?;
        let (drives, mut unreadable) = self.drives()?;
        let mut found: Option<(Description, PathBuf)> = None;
        for drive in drives {
            let Ok(rest) = real.strip_prefix(&drive.mount) else { continue };
            let longer = found
                .as_ref()
                .is_none_or(|(f, _)| f.mount.as_os_str().len() < drive.mount.as_os_str().len());
            if longer {
                found = Some((drive.clone(), rest.to_owned()));
            }
        }
        if let Some(found) = found {
            return Ok(found);
        }
        if let Some((mount, drive)) = self.mounts()?.holding(&real) {
            return Err(match self.drive(&drive)? {
                Some(moved) => Failure::mounted_elsewhere(&moved.drive.name, &moved.mount),
                None => Failure::store_gone(mount, drive),
            });
        }
        // It may be in one of these.
        Err(unreadable.pop().unwrap_or_else(|| Failure::not_in_drive(path)))
    }

    /// Takes away stores whose making was broken off long ago.
    fn sweep_abandoned(&self, _guard: &Guard) {
        let Ok(entries) = fs::read_dir(self.drives_dir()) else { return };
        for entry in entries.take(DRIVES_MAX).flatten() {
            if !entry.file_name().to_string_lossy().starts_with(store::NEW_PREFIX) {
                continue;
            }
            let age =
                entry.metadata().and_then(|m| m.modified()).ok().and_then(|m| m.elapsed().ok());
            let free = open_lock(&entry.path().join(store::LOCK_NAME))
                .is_ok_and(|f| flock(&f, FlockOperation::NonBlockingLockExclusive).is_ok());
            if free && age.is_some_and(|a| a > ABANDONED_AFTER) {
                tracing::info!(
                    "removing the remains of a broken start: {}",
                    entry.path().display()
                );
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// Makes `dir` and what is missing above it; what it makes is the user's alone.
fn make_private(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn is_empty(dir: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(dir)?.next().is_none())
}

fn open_lock(path: &Path) -> Result<File, Failure> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| Failure::io("open", path, &e))
}

#[cfg(test)]
mod tests;
