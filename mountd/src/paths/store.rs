//! A drive's store: its lock, what is written down about it, and how a new one comes to be.
//!
//! Leaves out the journal, the chunks and the spool inside (their crates').
//!
//! Invariants:
//! - a [`Store`] holds the store's lock; two processes never have one;
//! - a store being made is under another name until [`Store::complete`], and gone if it is dropped
//!   before;
//! - `drive.json` holds the join nonce: without it the device's key in this drive is lost, so it is
//!   durable before anybody hears of the device.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use journal::id::{DeviceId, DriveId};
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use serde::{Deserialize, Serialize};

use super::{DataDir, atomic, open_lock};
use crate::ipc::{DeviceRow, DriveRow};
use crate::report::Failure;

/// What the name of a store begins with while it is made.
pub(super) const NEW_PREFIX: &str = ".new-";
/// The lock's name.
pub(super) const LOCK_NAME: &str = "lock";
/// The name of the log of a drive that runs in the background.
pub const LOG_NAME: &str = "daemon.log";
/// The name of what is written down about a drive.
const DESCRIPTION_NAME: &str = "drive.json";
/// Version of `drive.json` and of the store's layout.
const FORMAT: u64 = 1;
/// How long a held lock is tried again.
const LOCK_WAIT: Duration = Duration::from_millis(300);
/// Between two tries.
const LOCK_POLL: Duration = Duration::from_millis(10);
/// Length of a join nonce, bytes.
pub const NONCE_LEN: usize = 32;

/// `drive.json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Description {
    format: u64,
    /// The drive's id and the name it was made with.
    pub drive: DriveRow,
    /// This device's public key in the drive and the name it was admitted under.
    pub device: DeviceRow,
    /// The random number that makes this device's key in this drive its own, hex.
    join_nonce: String,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Addresses to listen at; empty means the usual ones.
    #[serde(default)]
    pub listen: Vec<String>,
    /// Addresses of others, given by hand.
    #[serde(default)]
    pub peers: Vec<String>,
}

impl Description {
    /// Describes a drive that is new on this device.
    pub fn new(
        drive: (DriveId, &str),
        device: (DeviceId, &str),
        join_nonce: &[u8; NONCE_LEN],
        mount: &Path,
    ) -> Self {
        Self {
            format: FORMAT,
            drive: DriveRow { id: drive.0.to_string(), name: drive.1.to_owned() },
            device: DeviceRow { id: device.0.to_string(), name: device.1.to_owned() },
            join_nonce: data_encoding::HEXLOWER.encode(join_nonce),
            mount: mount.to_owned(),
            listen: Vec::new(),
            peers: Vec::new(),
        }
    }

    /// Reads `drive.json` of the store in `dir`.
    pub fn load(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join(DESCRIPTION_NAME);
        let found: Option<Self> = atomic::load(&path, FORMAT)?;
        let found = found.ok_or_else(|| Failure::corrupt(&path, "it is missing"))?;
        found.id().map_err(|_| Failure::corrupt(&path, "the drive's id is no id"))?;
        found.join_nonce()?;
        Ok(found)
    }

    fn save(&self, dir: &Path) -> Result<(), Failure> {
        atomic::save(&dir.join(DESCRIPTION_NAME), self)
    }

    /// The drive's id.
    pub fn id(&self) -> Result<DriveId, Failure> {
        self.drive.id.parse().map_err(Failure::internal)
    }

    /// The number that goes into this device's key.
    pub fn join_nonce(&self) -> Result<[u8; NONCE_LEN], Failure> {
        let bytes = data_encoding::HEXLOWER.decode(self.join_nonce.as_bytes()).ok();
        bytes
            .and_then(|b| <[u8; NONCE_LEN]>::try_from(b).ok())
            .ok_or_else(|| Failure::corrupt(Path::new(DESCRIPTION_NAME), "the nonce is no nonce"))
    }
}

/// A store this process has to itself.
#[derive(Debug)]
pub struct Store {
    data: DataDir,
    dir: PathBuf,
    /// None while it is being made.
    description: Option<Description>,
    _lock: File,
}

impl Store {
    /// Takes the existing store of `drive`.
    pub fn open(data: &DataDir, drive: &DriveId) -> Result<Self, Failure> {
        let dir = data.store_dir(drive);
        let lock = lock_store(&dir)?;
        let description = Some(Description::load(&dir)?);
        Ok(Self { data: data.clone(), dir, description, _lock: lock })
    }

    /// Begins a new store, under a name nobody looks for.
    pub fn begin(data: &DataDir) -> Result<Self, Failure> {
        data.prepare()?;
        let guard = data.guard()?;
        data.sweep_abandoned(&guard);
        let suffix = atomic::random_suffix().map_err(Failure::internal)?;
        let dir = data.drives_dir().join(format!("{NEW_PREFIX}{suffix}"));
        DirBuilder::new().mode(0o700).create(&dir).map_err(|e| Failure::io("make", &dir, &e))?;
        let lock = lock_store(&dir)?;
        Ok(Self { data: data.clone(), dir, description: None, _lock: lock })
    }

    /// The store is whole: writes down what it is and puts it under its name.
    ///
    /// Open files in it stay good; paths into it change.
    pub fn complete(&mut self, description: Description) -> Result<(), Failure> {
        let id = description.id()?;
        let place = self.data.store_dir(&id);
        description.save(&self.dir)?;
        {
            let _guard = self.data.guard()?;
            renameat_with(CWD, &self.dir, CWD, &place, RenameFlags::NOREPLACE).map_err(|e| {
                if e == rustix::io::Errno::EXIST {
                    Failure::already_member(&description.drive.name, &description.mount)
                } else {
                    Failure::io("put the store at", &place, &e.into())
                }
            })?;
            self.dir = place;
            let mount = description.mount.clone();
            self.description = Some(description);
            atomic::sync_dir(&self.data.drives_dir())
                .map_err(|e| Failure::io("write", &self.data.drives_dir(), &e))?;
            let mut mounts = super::Mounts::load(self.data.root())?;
            mounts.insert(&mount, id);
            mounts.save(self.data.root())
        }
    }

    /// Changes what is written down about an existing drive: where it is mounted, its addresses.
    pub fn update(&mut self, change: impl FnOnce(&mut Description)) -> Result<(), Failure> {
        let Some(old) = &self.description else {
            return Err(Failure::internal("a store that is being made has no description yet"));
        };
        let mut new = old.clone();
        change(&mut new);
        if new == *old {
            return Ok(());
        }
        // The list of mounts first: a crash in between leaves a line too many, never one too few.
        self.data.remember_mount(&new.mount, new.id()?)?;
        new.save(&self.dir)?;
        self.description = Some(new);
        Ok(())
    }

    /// Where its files are. Changes once, in [`Store::complete`].
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is written down about it; none while it is being made.
    pub fn description(&self) -> Option<&Description> {
        self.description.as_ref()
    }

    /// The log of the drive's daemon.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join(LOG_NAME)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.description.is_none()
            && let Err(e) = fs::remove_dir_all(&self.dir)
        {
            tracing::warn!("cannot remove {}: {e}", self.dir.display());
        }
    }
}

/// Whether somebody has the store in `dir` open.
pub fn is_locked(dir: &Path) -> bool {
    let Ok(file) = File::open(dir.join(LOCK_NAME)) else { return false };
    flock(&file, FlockOperation::NonBlockingLockShared).is_err()
}

fn lock_store(dir: &Path) -> Result<File, Failure> {
    let file = open_lock(&dir.join(LOCK_NAME))?;
    let start = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            // Somebody may only be looking (`is_locked`), which takes it for a moment.
            Err(rustix::io::Errno::WOULDBLOCK) if start.elapsed() < LOCK_WAIT => {
                std::thread::sleep(LOCK_POLL);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Failure::store_in_use(dir)),
            Err(e) => return Err(Failure::io("lock", dir, &e.into())),
        }
    }
}
