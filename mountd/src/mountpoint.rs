//! Whether a place can be mounted at, and what is mounted where.
//!
//! Leaves out the mounting (`vfs::mount`). Looks at the kernel's table before it looks at the place
//! itself, since a dead mount may hang whoever asks it.
//!
//! Invariant: a question to a place that may hang is asked on a thread of its own and given up after
//! [`ANSWER_MAX`].

use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};

use crate::report::Failure;

/// How long a mount point may take to say what it is.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// The kernel's FUSE device.
pub const FUSE_DEVICE: &str = "/dev/fuse";
/// What unprivileged users mount with.
const FUSERMOUNT: &str = "fusermount3";

/// What is at a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// Nothing, but the folder it would be in.
    Missing,
    /// An empty directory.
    Empty,
    /// A FUSE mount whose process has gone; the next mount cleans it.
    DeadMount,
}

/// Looks whether `path` (absolute, real) can be mounted at.
pub fn look(path: &Path) -> Result<Found, Failure> {
    let mounted = mounted_at(path);
    let fuse = mounted.as_deref().is_some_and(|kind| kind.starts_with("fuse"));
    let owned = path.to_owned();
    let answer = in_time(move || look_closely(&owned));
    let not_connected = Some(rustix::io::Errno::NOTCONN.raw_os_error());
    match answer {
        None => Err(Failure::mount_point_hangs(path)),
        // "Transport endpoint is not connected": the process behind the mount is dead.
        Some(Err(e)) if fuse && e.raw_os_error() == not_connected => Ok(Found::DeadMount),
        // Whatever it is: to be mounted over is not what its owner expects.
        Some(_) if mounted.is_some() => Err(Failure::already_mounted(path)),
        Some(Ok(Closely::Missing)) if !path.parent().is_some_and(Path::is_dir) => {
            Err(Failure::mount_parent_missing(path))
        }
        Some(Ok(Closely::Missing)) => Ok(Found::Missing),
        Some(Ok(Closely::Empty)) => Ok(Found::Empty),
        Some(Ok(Closely::Full)) => Err(Failure::mount_not_empty(path)),
        Some(Ok(Closely::NotDirectory)) => Err(Failure::mount_not_directory(path)),
        Some(Err(e)) => Err(Failure::io("look at", path, &e)),
    }
}

enum Closely {
    Missing,
    Empty,
    Full,
    NotDirectory,
}

fn look_closely(path: &Path) -> io::Result<Closely> {
    match fs::metadata(path) {
        Ok(meta) if !meta.is_dir() => Ok(Closely::NotDirectory),
        Ok(_) if fs::read_dir(path)?.next().is_none() => Ok(Closely::Empty),
        Ok(_) => Ok(Closely::Full),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Closely::Missing),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => Ok(Closely::Missing),
        Err(e) => Err(e),
    }
}

/// Whether what is mounted at `path` answers.
pub fn answers(path: &Path) -> bool {
    let path = path.to_owned();
    in_time(move || fs::metadata(path).is_ok()) == Some(true)
}

fn in_time<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (tell, hear) = mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("look".into())
        .spawn(move || {
            let _ = tell.send(ask());
        })
        .ok()?;
    hear.recv_timeout(ANSWER_MAX).ok()
}

/// The type of the file system mounted exactly at `path`, by the kernel's table.
pub fn mounted_at(path: &Path) -> Option<String> {
    let table = fs::read("/proc/self/mountinfo").ok()?;
    find_mount(&table, path)
}

/// The topmost mount at `path` in the text of a `mountinfo`.
fn find_mount(table: &[u8], path: &Path) -> Option<String> {
    let mut found = None;
    for line in table.split(|&b| b == b'\n') {
        let mut fields = line.split(|&b| b == b' ');
        let Some(at) = fields.nth(4) else { continue };
        if unescape(at) != path {
            continue;
        }
        // The optional fields end with a dash; the type follows.
        let kind = fields.skip_while(|f| *f != b"-").nth(1);
        found = kind.map(|k| String::from_utf8_lossy(k).into_owned());
    }
    found
}

/// The kernel writes space, tab, newline and backslash as `\040` and the like.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        if let (b'\\', Some((digits, beyond))) = (first, after.split_first_chunk::<3>())
            && let Some(byte) = octal(digits)
        {
            bytes.push(byte);
            rest = beyond;
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

fn octal(digits: &[u8; 3]) -> Option<u8> {
    std::str::from_utf8(digits).ok().and_then(|d| u8::from_str_radix(d, 8).ok())
}

/// Detaches whatever is mounted at `path`, now, busy or not.
pub fn detach(path: &Path) -> Result<(), Failure> {
    if unmount(path, UnmountFlags::DETACH).is_ok() {
        return Ok(());
    }
    let helper = find_fusermount().ok_or_else(Failure::no_fusermount)?;
    let output = Command::new(helper)
        .args(["-u", "-z", "--"])
        .arg(path)
        .output()
        .map_err(|e| Failure::mount_failed(path, e))?;
    if output.status.success() {
        Ok(())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Failure::new(
            crate::report::Code::MountFailed,
            format!("cannot unmount {}: {}", path.display(), said.trim()),
            "close what still uses it, and try again",
        ))
    }
}

/// Where `fusermount3` is.
pub fn find_fusermount() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(FUSERMOUNT)).find(|p| p.is_file())
}

/// Whether this process may mount without help.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether the machine lets this process mount: the device, and the helper for those who need it.
pub fn can_mount() -> Result<(), Failure> {
    can_mount_with(Path::new(FUSE_DEVICE), is_root(), find_fusermount().as_deref())
}

fn can_mount_with(device: &Path, is_root: bool, helper: Option<&Path>) -> Result<(), Failure> {
    match fs::metadata(device) {
        Ok(meta) if meta.file_type().is_char_device() => {}
        Ok(_) => return Err(Failure::no_fuse_device("it is not a device")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::no_fuse_device("there is none"));
        }
        Err(e) => return Err(Failure::no_fuse_device(e)),
    }
    if is_root {
        // The helper opens it with its own rights; we with ours.
        let opened = fs::File::options().read(true).write(true).open(device);
        return opened.map(|_| ()).map_err(Failure::no_fuse_device);
    }
    if helper.is_none() { Err(Failure::no_fusermount()) } else { Ok(()) }
}

/// Makes the mount point if it is missing.
pub fn make(path: &Path) -> Result<(), Failure> {
    match fs::create_dir(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(Failure::io("make", path, &e)),
    }
}

/// A mount point's name as text: it is written down, and shown to others as the drive's name.
pub fn as_text(path: &Path) -> Result<&str, Failure> {
    std::str::from_utf8(path.as_os_str().as_bytes())
        .map_err(|_| Failure::bad_path(path, "it is not valid UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Code;

    #[test]
    fn the_kernels_table_is_read_with_its_escapes() {
        let table = b"22 1 8:1 / / rw - ext4 /dev/sda rw\n\
            40 22 0:50 / /mnt/my\\040drive\\134 rw,nosuid shared:3 master:1 - fuse.atelier a rw\n\
            41 22 0:51 / /mnt/top rw - tmpfs t rw\n\
            42 22 0:52 / /mnt/top rw - fuse f rw\n\
            short line\n";
        let at = |p: &str| find_mount(table, Path::new(p));
        assert_eq!(at("/mnt/my drive\\").as_deref(), Some("fuse.atelier"));
        assert_eq!(at("/mnt/top").as_deref(), Some("fuse"), "the later one is on top");
        assert_eq!(at("/").as_deref(), Some("ext4"));
        assert_eq!(at("/mnt"), None);
    }

    #[test]
    fn each_unusable_place_has_its_own_error() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("full/x")).unwrap();
        fs::create_dir(root.join("empty")).unwrap();
        fs::write(root.join("file"), "x").unwrap();
        let code = |p: &str| look(&root.join(p)).map_err(|f| f.code);
        assert_eq!(code("empty"), Ok(Found::Empty));
        assert_eq!(code("new"), Ok(Found::Missing));
        assert_eq!(code("no/new"), Err(Code::MountParentMissing));
        assert_eq!(code("file/new"), Err(Code::MountParentMissing));
        assert_eq!(code("full"), Err(Code::MountNotEmpty));
        assert_eq!(code("file"), Err(Code::MountNotDirectory));
    }

    #[test]
    fn a_machine_without_fuse_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("fuse");
        let missing = can_mount_with(&file, true, None).unwrap_err();
        assert_eq!(missing.code, Code::NoFuseDevice);
        fs::write(&file, "x").unwrap();
        assert_eq!(can_mount_with(&file, true, None).unwrap_err().code, Code::NoFuseDevice);
        // Some character device that every machine has.
        let device = Path::new("/dev/null");
        assert_eq!(can_mount_with(device, false, None).unwrap_err().code, Code::NoFusermount);
        assert_eq!(can_mount_with(device, false, Some(Path::new("/x"))), Ok(()));
        assert_eq!(can_mount_with(device, true, None), Ok(()));
    }
}
