//! Visible skips: what a test needs of the machine, and what is said when it is not there.
//!
//! Invariants
//! * A skipped test prints `SKIPPED: test: reason` and leaves the line in the file named by `ATELIER_SKIPS`, so
//!   that a runner which hides the output of passing tests can still show it at the end.
//! * With `CI` set, a lacking need is a failure: there the machine was prepared.

use std::io::Write;
use std::path::{Path, PathBuf};

/// Something a test needs of the machine it runs on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Need {
    /// The user is root: namespaces, mounts of other kinds, other users.
    Root,
    /// This user can mount through FUSE.
    Fuse,
    /// A program on the `PATH`.
    Program(&'static str),
}

impl Need {
    fn lacking(self) -> Option<String> {
        match self {
            Need::Root => (!rustix::process::geteuid().is_root()).then(|| "not root".to_owned()),
            Need::Fuse => fuse_lacking(),
            Need::Program(name) => {
                which(name).is_none().then(|| format!("no program `{name}` on the PATH"))
            }
        }
    }
}

/// The reason why a test with these needs cannot run here, already told; panics with it under `CI`.
#[track_caller]
pub fn reason(needs: &[Need]) -> Option<String> {
    let reason = needs.iter().find_map(|need| need.lacking())?;
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(
        std::env::var_os("CI").is_none_or(|value| value.is_empty()),
        "{name} cannot run, and under CI that is a failure: {reason}"
    );
    let line = format!("SKIPPED: {name}: {reason}\n");
    std::io::stderr().write_all(line.as_bytes()).ok();
    if let Some(path) = std::env::var_os("ATELIER_SKIPS") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).ok();
    }
    Some(reason)
}

/// Ends the calling test, visibly, when the machine lacks one of its needs.
#[macro_export]
macro_rules! needs {
    ($($need:expr),+ $(,)?) => {
        if $crate::harness::skip::reason(&[$($need),+]).is_some() {
            return Ok(());
        }
    };
}

/// Where a program is on the `PATH`.
pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

fn fuse_lacking() -> Option<String> {
    let device = Path::new("/dev/fuse");
    if let Err(error) = std::fs::OpenOptions::new().read(true).write(true).open(device) {
        return Some(format!("/dev/fuse cannot be opened: {error}"));
    }
    let privileged = rustix::process::geteuid().is_root();
    (!privileged && which("fusermount3").is_none())
        .then(|| "not root and no program `fusermount3`".to_owned())
}
