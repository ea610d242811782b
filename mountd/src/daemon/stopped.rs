//! How the drive was last stopped: in order, by a crash of the process, or by a loss of power.
//!
//! Leaves out what each means: journal and store decide what they rebuild.
//!
//! Invariants:
//! - the marker is on disk before journal, store or spool are opened, and goes when all are closed;
//! - a marker of another boot means that unsynced writes may be lost; one of this boot that only the
//!   process died, so that everything written is still there;
//! - when in doubt, power was lost.

use std::io::Write;
use std::path::{Path, PathBuf};

use journal::Opened;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The marker's name. It stays when something could not be published.
pub(crate) const RUNNING_NAME: &str = "running";

/// The marker of a running drive.
pub(super) struct Marker {
    path: PathBuf,
    /// How the drive was stopped before this start.
    pub(super) opened: Opened,
}

impl Marker {
    /// Reads how the drive was stopped and marks it as running.
    pub(super) fn place(store_dir: &Path) -> std::io::Result<Self> {
        let path = store_dir.join(RUNNING_NAME);
        let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
        let opened = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Opened::Clean,
            Ok(before) if !boot.is_empty() && before == boot => Opened::ProcessCrash,
            _ => Opened::PowerLoss,
        };
        let mut file = std::fs::File::create(&path)?;
        file.write_all(boot.as_bytes())?;
        file.sync_all()?;
        std::fs::File::open(store_dir)?.sync_all()?;
        Ok(Self { path, opened })
    }

    /// Everything is closed and durable.
    pub(super) fn remove(self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, "marker stays: the next start will take this for a crash");
        }
    }
}
