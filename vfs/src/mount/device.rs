//! The FUSE descriptor: from the kernel when we may mount, else from the program that mounts for users.
//!
//! Leaves out: what is said over it.

use std::ffi::CString;
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::{MountError, MountOptions};

/// The kernel's device.
const DEVICE: &str = "/dev/fuse";
/// The program that mounts for users.
const HELPER: &str = "fusermount3";
/// Where it is looked for besides the search path.
const HELPER_DIRS: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];
/// The file system's type as `mount` shows it.
const FS_TYPE: &str = "fuse.atelier";
/// Longest message taken from the helper, bytes.
const HELPER_MESSAGE_MAX: u64 = 4096;

/// What mounting needs and whether it is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirements {
    /// The kernel's device can be opened by this process.
    pub device: bool,
    /// This process may mount by itself.
    pub privileged: bool,
    /// The helper is installed.
    pub helper: bool,
}

impl Requirements {
    /// Looks.
    pub fn look() -> Self {
        let device =
            rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).is_ok();
        Self {
            device,
            privileged: rustix::process::geteuid().is_root(),
            helper: helper().is_some(),
        }
    }
}

fn helper() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(HELPER_DIRS.iter().map(PathBuf::from));
    dirs.map(|dir| dir.join(HELPER)).find(|path| path.is_file())
}

/// Mounts and gives the descriptor; `access` is added to the options for kernel and helper.
pub(super) fn mount(
    at: &Path,
    options: &MountOptions,
    access: &str,
) -> Result<OwnedFd, MountError> {
    match mount_ourselves(at, options, access) {
        Err(MountError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
            mount_by_helper(at, options, access)
        }
        // Users may be kept from the device although the helper, which runs as root, is not.
        Err(MountError::NoDevice(source)) if source.kind() == io::ErrorKind::PermissionDenied => {
            mount_by_helper(at, options, access)
        }
        other => other,
    }
}

fn mount_ourselves(at: &Path, options: &MountOptions, access: &str) -> Result<OwnedFd, MountError> {
    let fd = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| MountError::NoDevice(e.into()))?;
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let mut data = format!("fd={},rootmode=40000,user_id={uid},group_id={gid}", fd.as_raw_fd());
    data.push_str(access);
    let data = CString::new(data).map_err(|e| MountError::io("mount", at)(e.into()))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let source = options.fs_name.replace('\0', "");
    rustix::mount::mount(source.as_str(), at, FS_TYPE, flags, Some(&*data))
        .map_err(|e| MountError::io("mount", at)(e.into()))?;
    Ok(fd)
}

fn mount_by_helper(at: &Path, options: &MountOptions, access: &str) -> Result<OwnedFd, MountError> {
    let helper = helper().ok_or(MountError::NoHelper)?;
    let (ours, theirs) = UnixStream::pair().map_err(MountError::io("mount", at))?;
    // In the list a comma would begin another option.
    let name = options.fs_name.replace([',', '\\', '\0'], "_");
    let mut list = format!("fsname={name},subtype=atelier,nosuid,nodev");
    list.push_str(access);
    // The helper sends the descriptor over the socket it finds as its standard input.
    let mut child = Command::new(helper)
        .args(["-o", &list, "--"])
        .arg(at)
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(MountError::io("run fusermount3 for", at))?;
    let received = receive(&ours);
    let mut message = String::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(HELPER_MESSAGE_MAX).read_to_string(&mut message);
    }
    let _ = child.wait();
    match received {
        Ok(Some(fd)) => Ok(fd),
        Ok(None) => Err(MountError::Helper { message: message.trim().to_owned() }),
        Err(error) => Err(MountError::io("mount", at)(error)),
    }
}

/// The descriptor sent over a socket; nothing when the other end closed it.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    loop {
        let mut parts = [IoSliceMut::new(&mut byte)];
        match rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => break,
        }
    }
    let fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    Ok(fds.flatten().next())
}

/// Whether to wait until nobody uses it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Only if nobody uses it.
    WhenFree,
    /// At once; it ends when the last user lets go.
    Detach,
}

/// Why an unmount failed.
pub(super) enum UnmountError {
    Busy,
    Other(MountError),
}

pub(super) fn unmount(at: &Path, how: How) -> Result<(), UnmountError> {
    let mut flags = UnmountFlags::NOFOLLOW;
    if how == How::Detach {
        flags |= UnmountFlags::DETACH;
    }
    match rustix::mount::unmount(at, flags) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(UnmountError::Busy),
        Err(Errno::PERM) => unmount_by_helper(at, how),
        Err(error) => Err(UnmountError::Other(MountError::io("unmount", at)(error.into()))),
    }
}

fn unmount_by_helper(at: &Path, how: How) -> Result<(), UnmountError> {
    let helper = helper().ok_or(UnmountError::Other(MountError::NoHelper))?;
    let mut command = Command::new(helper);
    command.arg("-u");
    if how == How::Detach {
        command.arg("-z");
    }
    let output = command
        .arg("--")
        .arg(at)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| UnmountError::Other(MountError::io("run fusermount3 for", at)(e)))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if message.contains("busy") {
        Err(UnmountError::Busy)
    } else {
        Err(UnmountError::Other(MountError::Helper { message }))
    }
}
