//! How the store was stopped last: cleanly, by the end of its process, or by a loss of power.
//!
//! The marker names the boot of the system it was written in. It is there while the store is open.
//!
//! Leaves out: the daemon's own marker, which also covers journal and spool.
//!
//! Invariants: the marker is durable before anything is written that a loss of power could spoil; what cannot be
//! told counts as a loss of power.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::backend::fs::sync_dir;
use crate::error::PathError;

/// Name of the marker in the store's directory.
const NAME: &str = "in-use";
/// First line; the second is the boot id.
const TITLE: &str = "atelier cas 1";
/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// How the store was stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stopped {
    /// By closing it.
    Cleanly,
    /// The process ended; what it wrote is in the system's hands.
    ProcessEnd,
    /// The system ended.
    PowerLoss,
}

/// The marker of an open store.
#[derive(Debug)]
pub(crate) struct Marker {
    dir: PathBuf,
}

/// This boot, if the system tells.
pub(super) fn boot_id() -> Option<String> {
    let id = fs::read_to_string(BOOT_ID).ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

/// What the marker in `dir` says.
pub(super) fn look(dir: &Path, boot: Option<&str>) -> Stopped {
    match fs::read_to_string(dir.join(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Stopped::Cleanly,
        Ok(text) => {
            let mut lines = text.lines();
            let same = lines.next() == Some(TITLE) && boot.is_some() && lines.next() == boot;
            if same { Stopped::ProcessEnd } else { Stopped::PowerLoss }
        }
        Err(_) => Stopped::PowerLoss,
    }
}

impl Marker {
    /// Writes the marker, durably.
    pub(super) fn set(dir: &Path, boot: Option<&str>) -> Result<Self, PathError> {
        let path = dir.join(NAME);
        let write = || {
            let mut file = fs::File::create(&path)?;
            writeln!(file, "{TITLE}\n{}", boot.unwrap_or("unknown"))?;
            file.sync_all()?;
            sync_dir(dir)
        };
        write().map_err(|error| PathError::new(&path, "write", error))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Removes the marker, durably: the store was stopped cleanly.
    pub(super) fn clear(&self) -> Result<(), PathError> {
        let path = self.dir.join(NAME);
        let remove = || {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            sync_dir(&self.dir)
        };
        remove().map_err(|error| PathError::new(&path, "remove", error))
    }
}
