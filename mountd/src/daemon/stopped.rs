//! How the drive was last stopped: in order, by a crash of the process, or by a loss of power.
//!
//! Leaves out what each means: journal and store decide what they rebuild.
//!
//! Invariants:
//! - the marker is on disk before journal, store or spool are opened, and goes when all are closed;
//! - a marker of another boot means that unsynced writes may be lost; one of this boot that only the
//!   process died, so that everything written is still there;
//! - when in doubt, power was lost;
//! - a marker stays behind an orderly end only when something could not be published, and says whether it ever can be.

use std::io::Write;
use std::path::{Path, PathBuf};

use journal::Opened;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The marker's name. It stays when something could not be published.
const RUNNING_NAME: &str = "running";

/// In a marker that stayed: what was not published never can be, because this device is no member any more.
const FOR_GOOD: &str = "for good";

/// What an ended daemon left unpublished.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Left {
    /// Nothing.
    Nothing,
    /// Something that is tried again at the next start.
    ForNow,
    /// Something that can never be published.
    ForGood,
}

/// What the daemon that had this store left, once it has ended.
pub(crate) fn left_in(store_dir: &Path) -> Left {
    match std::fs::read_to_string(store_dir.join(RUNNING_NAME)) {
        Ok(marker) if marker.lines().any(|line| line == FOR_GOOD) => Left::ForGood,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Left::Nothing,
        _ => Left::ForNow,
    }
}

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
            // More lines may follow.
            Ok(before) if !boot.is_empty() && before.starts_with(&boot) => Opened::ProcessCrash,
            _ => Opened::PowerLoss,
        };
        let mut file = std::fs::File::create(&path)?;
        file.write_all(boot.as_bytes())?;
        file.sync_all()?;
        std::fs::File::open(store_dir)?.sync_all()?;
        Ok(Self { path, opened })
    }

    /// Everything is closed and durable but what can never be published: the marker stays and says so.
    pub(super) fn stay_for_good(self) {
        let opened = std::fs::OpenOptions::new().append(true).open(&self.path);
        let said = opened.and_then(|mut file| writeln!(file, "{FOR_GOOD}"));
        if let Err(error) = said {
            tracing::warn!(%error, "that something can never be published is not written down");
        }
    }

    /// Everything is closed and durable.
    pub(super) fn remove(self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, "marker stays: the next start will take this for a crash");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_ended_daemon_left_is_told_and_is_no_loss_of_power() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(left_in(dir.path()), Left::Nothing);
        let marker = Marker::place(dir.path()).unwrap();
        assert_eq!(marker.opened, Opened::Clean);
        assert_eq!(left_in(dir.path()), Left::ForNow);
        marker.stay_for_good();
        assert_eq!(left_in(dir.path()), Left::ForGood);
        let again = Marker::place(dir.path()).unwrap();
        assert_eq!(again.opened, Opened::ProcessCrash);
        assert_eq!(left_in(dir.path()), Left::ForNow);
        again.remove();
        assert_eq!(left_in(dir.path()), Left::Nothing);
    }
}
