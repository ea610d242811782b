//! The directory a test lives in, and the sweeping of what earlier, killed runs left behind.
//!
//! Invariants
//! * The name of the directory holds the process id of its maker; only directories of processes that are gone are
//!   swept.
//! * With `ATELIER_TEST_KEEP` set the files stay, to be looked at; everything else is taken away all the same.
//! * Mounts below it are detached, and processes that have it in their arguments ended, before it is removed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{process, program};

const PREFIX: &str = "atelier-test-";

/// A directory of one test, removed with everything in it.
#[derive(Debug)]
pub struct Site {
    dir: TempDir,
}

impl Site {
    /// A new, empty site.
    pub fn new() -> Result<Site> {
        sweep();
        let dir = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .tempdir_in(root())
            .context("create the directory of the test")?;
        Ok(Site { dir })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A directory in it, created when missing.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        clear(self.dir.path());
        if std::env::var_os("ATELIER_TEST_KEEP").is_some() {
            // Under another name, or the next run would sweep it.
            let kept = self.dir.path().with_file_name(format!("kept-{}", std::process::id()));
            if std::fs::rename(self.dir.path(), &kept).is_ok() {
                eprintln!("kept: {}", kept.display());
            }
        }
    }
}

/// Ends the processes of a site and detaches its mounts; its files stay.
pub fn clear(dir: &Path) {
    for pid in process::of_dir(dir) {
        process::kill_9(pid);
    }
    for mount in process::mounts_below(dir) {
        detach(Path::new(&mount));
    }
}

/// Takes a mount out of the tree whatever state it is in.
pub fn detach(mount: &Path) {
    let mut by_root = Command::new("umount");
    by_root.arg("-l").arg(mount);
    if !matches!(program::run(&mut by_root, program::COMMAND_BOUND), Ok(ran) if ran.code == 0) {
        let mut by_helper = Command::new("fusermount3");
        by_helper.args(["-u", "-z"]).arg(mount);
        program::run(&mut by_helper, program::COMMAND_BOUND).ok();
    }
}

fn root() -> PathBuf {
    std::env::var_os("ATELIER_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

fn sweep() {
    let Ok(entries) = std::fs::read_dir(root()) else { return };
    for entry in entries.filter_map(|entry| entry.ok()) {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        let gone = maker
            .is_some_and(|pid| !pid.is_empty() && !Path::new(&format!("/proc/{pid}")).exists());
        if gone {
            clear(&entry.path());
            std::fs::remove_dir_all(entry.path()).ok();
        }
    }
}
