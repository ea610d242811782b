//! The seed in a plain file that only its owner can read, as ssh keeps its keys.
//!
//! Leaves out when a plain file is good enough ([`super`]).
//!
//! Invariant: a file that others can read or write is refused, as by ssh: who could read it may have
//! it already.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::Seed;
use crate::paths::atomic;
use crate::report::{Code, Failure};

/// Writes the seed as a line of hex.
pub(super) fn save(path: &Path, seed: &Seed) -> Result<(), Failure> {
    let mut text = Zeroizing::new(data_encoding::HEXLOWER.encode(seed.as_bytes()));
    text.push('\n');
    atomic::write(path, text.as_bytes())
}

/// Reads the seed; `None` if there is no file.
pub(super) fn load(path: &Path) -> Result<Option<Seed>, Failure> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Failure::io("read", path, &e)),
    };
    if meta.mode() & 0o077 != 0 || !meta.is_file() {
        return Err(Failure::new(
            Code::Unreadable,
            format!("the device key {} can be read by others", path.display()),
            format!("if that was a mistake: chmod 600 {}", path.display()),
        ));
    }
    let Some(bytes) = atomic::read(path)?.map(Zeroizing::new) else { return Ok(None) };
    let text = std::str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
    let raw = data_encoding::HEXLOWER.decode(text.as_bytes()).ok().map(Zeroizing::new);
    match raw.and_then(|raw| Seed::from_slice(&raw)) {
        Some(seed) => Ok(Some(seed)),
        None => Err(Failure::corrupt(path, "it is not a device key")),
    }
}
