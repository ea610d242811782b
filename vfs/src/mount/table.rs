//! The kernel's table of mounts.
//!
//! Leaves out: changing it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

const TABLE: &str = "/proc/self/mountinfo";

/// A path that need not be alive: only its parent is looked at.
fn full_path(at: &Path) -> PathBuf {
    let parent = match at.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return at.to_path_buf(),
    };
    match (std::fs::canonicalize(parent), at.file_name()) {
        (Ok(parent), Some(name)) => parent.join(name),
        _ => at.to_path_buf(),
    }
}

/// Whether something is mounted on a path.
pub fn is_mounted(at: &Path) -> bool {
    device_of(at).is_some()
}

/// The device number of what is mounted on a path, the topmost if there are several.
pub(super) fn device_of(at: &Path) -> Option<String> {
    let at = full_path(at);
    let table = std::fs::read(TABLE).ok()?;
    table
        .split(|byte| *byte == b'\n')
        .filter_map(parse)
        .filter(|(_, point)| *point == at)
        .map(|(device, _)| device)
        .next_back()
}

/// Device and mount point of a line: `id parent major:minor root mount-point ...`.
fn parse(line: &[u8]) -> Option<(String, PathBuf)> {
    let mut fields = line.split(|byte| *byte == b' ').skip(2);
    let device = String::from_utf8(fields.next()?.to_vec()).ok()?;
    let point = unescape(fields.nth(1)?);
    Some((device, PathBuf::from(OsString::from_vec(point))))
}

/// Blanks, tabs, newlines and backslashes stand as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *byte == b'\\').and_then(|digits| {
            digits.iter().try_fold(0u8, |value, digit| {
                let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
                value.checked_mul(8)?.checked_add(digit)
            })
        });
        match code {
            Some(code) => {
                out.push(code);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*byte);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_table_are_understood() {
        let line = br"36 35 98:0 /mnt1 /mnt/a\040b\134c rw,noatime master:1 - ext3 /dev/root rw";
        let (device, point) = parse(line).unwrap();
        assert_eq!((device.as_str(), point.as_path()), ("98:0", Path::new("/mnt/a b\\c")));
        assert_eq!(parse(b""), None);
        assert_eq!(unescape(br"a\04"), br"a\04");
        assert_eq!(unescape(br"\999x"), br"\999x");
    }

    #[test]
    fn the_root_is_mounted_and_an_ordinary_directory_is_not() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_mounted(dir.path()));
        assert!(is_mounted(Path::new("/proc")));
    }
}
