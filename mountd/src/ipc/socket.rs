//! The control socket's address, however deep the store lies.
//!
//! Leaves out the conversation on it. A Unix socket's path may have 107 bytes, and data directories
//! lie deeper than that; so the store is opened and the socket is named through its descriptor.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::SOCKET_NAME;

/// Longest path that fits into a Unix socket's address, bytes.
const SOCKET_PATH_MAX: usize = 107;

/// A name for the socket that fits, and what must stay open while it is used.
fn address(store_dir: &Path) -> io::Result<(PathBuf, Option<File>)> {
    let path = store_dir.join(SOCKET_NAME);
    if path.as_os_str().len() <= SOCKET_PATH_MAX {
        return Ok((path, None));
    }
    let dir = File::open(store_dir)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET_NAME}", dir.as_raw_fd()));
    Ok((short, Some(dir)))
}

/// Listens; a socket left by a dead daemon makes room. The caller holds the store's lock.
pub(super) fn bind(store_dir: &Path) -> io::Result<UnixListener> {
    let (path, _dir) = address(store_dir)?;
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Connects to whoever listens in this store.
pub(super) fn connect(store_dir: &Path) -> io::Result<UnixStream> {
    let (path, _dir) = address(store_dir)?;
    UnixStream::connect(path)
}
