//! Between the kernel's words for things and the system calls'.
//!
//! Leaves out every system call: only values are translated.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileType, INodeNo, TimeOrNow};
use rustix::fs::{self, FileType as UnixType, Stat, Timespec};

pub(super) fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from(io::Error::from(error))
}

pub(super) fn by_descriptor(descriptor: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}

pub(super) fn time(time: Option<TimeOrNow>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT },
        Some(TimeOrNow::Now) => Timespec { tv_sec: 0, tv_nsec: fs::UTIME_NOW },
        Some(TimeOrNow::SpecificTime(time)) => {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            Timespec { tv_sec: since.as_secs().cast_signed(), tv_nsec: since.subsec_nanos().into() }
        }
    }
}

pub(super) fn system_time(seconds: i64, nanos: u64) -> SystemTime {
    let nanos = Duration::from_nanos(nanos);
    let seconds_abs = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { UNIX_EPOCH - seconds_abs + nanos } else { UNIX_EPOCH + seconds_abs + nanos }
}

pub(super) fn kind(kind: UnixType) -> FileType {
    match kind {
        UnixType::Directory => FileType::Directory,
        UnixType::Symlink => FileType::Symlink,
        UnixType::Fifo => FileType::NamedPipe,
        UnixType::Socket => FileType::Socket,
        UnixType::CharacterDevice => FileType::CharDevice,
        UnixType::BlockDevice => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

pub(super) fn attributes(number: u64, stat: &Stat) -> FileAttr {
    let modified = system_time(stat.st_mtime, stat.st_mtime_nsec);
    FileAttr {
        ino: INodeNo(number),
        size: stat.st_size.cast_unsigned(),
        blocks: stat.st_blocks.cast_unsigned(),
        atime: system_time(stat.st_atime, stat.st_atime_nsec),
        mtime: modified,
        ctime: system_time(stat.st_ctime, stat.st_ctime_nsec),
        crtime: modified,
        kind: kind(UnixType::from_raw_mode(stat.st_mode)),
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}
