//! Attributes as the mount shows and takes them.
//!
//! Leaves out: how a kernel encodes them ([`crate::fuse`]).
//!
//! Invariant: set-user-id and set-group-id are shown only where the drive keeps owners, whom they speak of; they have no
//! effect, as every mount is `nosuid`.

use std::path::Path;

use journal::op::Timestamp;

/// Mode bits a file keeps in a drive without owners.
pub const FILE_MODE_BITS: u32 = 0o777;
/// Mode bits a directory keeps in a drive without owners: the sticky bit too.
pub const DIR_MODE_BITS: u32 = 0o1777;
/// Mode bits in a drive that keeps owners.
pub const ALL_MODE_BITS: u32 = journal::op::MODE_MASK;
/// Set-user-id.
pub const SET_USER_ID: u32 = 0o4000;
/// Set-group-id; on a directory: what is made in it has its group.
pub const SET_GROUP_ID: u32 = 0o2000;
/// The group's right to execute, without which set-group-id means something else and stays.
const GROUP_EXECUTE: u32 = 0o010;
/// Block size told to programs, bytes: what one request to the daemon carries well.
pub const BLOCK_BYTES: u32 = 128 << 10;

/// The mode of a file that someone without the right to set ids has changed.
pub fn without_set_id(mode: u32) -> u32 {
    let set_group_id = if mode & GROUP_EXECUTE != 0 { SET_GROUP_ID } else { 0 };
    mode & !(SET_USER_ID | set_group_id)
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
}

/// Everything `stat` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: u64,
    /// What it is.
    pub kind: Kind,
    /// Length, bytes.
    pub len: u64,
    /// Permission bits.
    pub mode: u32,
    /// Names that point here.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last read; kept locally and coarsely.
    pub atime: Timestamp,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of anything.
    pub ctime: Timestamp,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The present.
    Now,
    /// This time.
    At(Timestamp),
}

/// Attributes to change; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length, bytes.
    pub len: Option<u64>,
    /// Last read.
    pub atime: Option<SetTime>,
    /// Last change of content.
    pub mtime: Option<SetTime>,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Thread id; 0 when the kernel acts for nobody in particular.
    pub tid: u32,
}

impl Caller {
    /// Whether a thread belongs to another process. A thread that is gone counts as another's; one that is not known
    /// (0) never does.
    pub(crate) fn is_other_process(&self, tid: u32) -> bool {
        let known = self.tid != 0 && tid != 0;
        let same = || Path::new("/proc").join(format!("{}/task/{tid}", self.tid)).exists();
        known && self.tid != tid && !same()
    }
}
