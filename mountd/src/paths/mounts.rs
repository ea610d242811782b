//! `mounts.json`: which drive each mount point is, or was, the mount of.
//!
//! Leaves out whether anything is mounted there now. Nothing is ever taken out.
//!
//! Invariant: a mount point names one drive; a later drive at the same place takes its line over
//! only after the caller has made sure that this is meant.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use journal::id::DriveId;
use serde::{Deserialize, Serialize};

use super::atomic;
use crate::report::Failure;

/// Version of the file.
const FORMAT: u64 = 1;
/// Its name.
const NAME: &str = "mounts.json";

/// The mount points known on this device.
#[derive(Clone, Debug, Default)]
pub struct Mounts {
    by_path: BTreeMap<PathBuf, DriveId>,
}

#[derive(Serialize, Deserialize)]
struct File {
    format: u64,
    mounts: BTreeMap<PathBuf, String>,
}

impl Mounts {
    /// Reads the file of the data directory `root`; none means no mount points.
    pub fn load(root: &Path) -> Result<Self, Failure> {
        let path = root.join(NAME);
        let Some(file) = atomic::load::<File>(&path, FORMAT)? else { return Ok(Self::default()) };
        let mut by_path = BTreeMap::new();
        for (mount, drive) in file.mounts {
            let drive = drive.parse().map_err(|e| Failure::corrupt(&path, e))?;
            by_path.insert(mount, drive);
        }
        Ok(Self { by_path })
    }

    /// Writes the file. The caller holds the data directory's guard since it read it.
    pub fn save(&self, root: &Path) -> Result<(), Failure> {
        let mounts = self.by_path.iter().map(|(p, d)| (p.clone(), d.to_string())).collect();
        atomic::save(&root.join(NAME), &File { format: FORMAT, mounts })
    }

    /// The drive of exactly this mount point.
    pub fn get(&self, mount: &Path) -> Option<DriveId> {
        self.by_path.get(mount).copied()
    }

    /// The mount point that `path` is or lies in, the deepest if there are several.
    pub fn holding(&self, path: &Path) -> Option<(&Path, DriveId)> {
        path.ancestors().find_map(|p| self.by_path.get_key_value(p)).map(|(p, d)| (p.as_path(), *d))
    }

    /// Adds a mount point; says whether that changed anything.
    pub fn insert(&mut self, mount: &Path, drive: DriveId) -> bool {
        self.by_path.insert(mount.to_owned(), drive) != Some(drive)
    }
}
