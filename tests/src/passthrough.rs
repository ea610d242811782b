//! A plain FUSE file system over a directory: what FUSE itself costs, to compare a mount with.
//!
//! It is honest work and no more: descriptors instead of paths, several threads with a kernel queue each, attribute
//! and name caching for one second, data kept in the page cache between opens, directory listings with attributes.
//! It leaves out what only a privileged daemon over whole files could do (the kernel's own pass-through) and what
//! Atelier does not use either (write-back caching).
//!
//! Invariants
//! * An inode number stands for one open descriptor as long as the kernel remembers it.
//! * A request answers exactly once, with the error number of the call it stands for.

mod translate;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{
    self, AtFlags, CWD, FileType as UnixType, Mode, OFlags, RenameFlags, Timestamps, XattrFlags,
};

use translate::{attributes, by_descriptor, errno, kind, time};

const TTL: Duration = Duration::from_secs(1);
const BACKGROUND_MAX: u16 = 64;
const THREADS: usize = 2;

/// Serves `source` at `at` until somebody unmounts it.
pub fn serve(source: &Path, at: &Path) -> io::Result<()> {
    let mut config = Config::default();
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    config.mount_options = vec![
        MountOption::FSName("passthrough".to_owned()),
        MountOption::NoDev,
        MountOption::NoSuid,
    ];
    fuser::mount(Passthrough::new(source)?, at, &config)
}

struct Node {
    descriptor: Arc<OwnedFd>,
    lookups: u64,
    key: (u64, u64),
}

#[derive(Default)]
struct Nodes {
    by_number: HashMap<u64, Node>,
    by_key: HashMap<(u64, u64), u64>,
    last: u64,
}

enum Handle {
    File(File),
    Dir(Vec<(FileType, Vec<u8>)>),
}

struct Passthrough {
    nodes: Mutex<Nodes>,
    handles: Mutex<HashMap<u64, Arc<Handle>>>,
    next_handle: AtomicU64,
}

type Answer<T> = Result<T, Errno>;

impl Passthrough {
    fn new(source: &Path) -> io::Result<Passthrough> {
        let descriptor = fs::openat(
            CWD,
            source,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let stat = fs::fstat(&descriptor)?;
        let key = (stat.st_dev, stat.st_ino);
        let root = Node { descriptor: Arc::new(descriptor), lookups: 1, key };
        let nodes = Nodes {
            by_number: HashMap::from([(INodeNo::ROOT.0, root)]),
            by_key: HashMap::from([(key, INodeNo::ROOT.0)]),
            last: INodeNo::ROOT.0,
        };
        Ok(Passthrough {
            nodes: Mutex::new(nodes),
            handles: Mutex::default(),
            next_handle: AtomicU64::new(1),
        })
    }

    fn nodes(&self) -> Answer<std::sync::MutexGuard<'_, Nodes>> {
        self.nodes.lock().map_err(|_| Errno::EIO)
    }

    fn node(&self, ino: INodeNo) -> Answer<Arc<OwnedFd>> {
        Ok(self.nodes()?.by_number.get(&ino.0).ok_or(Errno::ENOENT)?.descriptor.clone())
    }

    fn find(&self, parent: INodeNo, name: &OsStr) -> Answer<FileAttr> {
        let parent = self.node(parent)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor = fs::openat(&parent, name, flags, Mode::empty()).map_err(errno)?;
        let stat = fs::fstat(&descriptor).map_err(errno)?;
        let key = (stat.st_dev, stat.st_ino);
        let mut nodes = self.nodes()?;
        let number = match nodes.by_key.get(&key) {
            Some(number) => *number,
            None => {
                nodes.last += 1;
                let number = nodes.last;
                nodes.by_key.insert(key, number);
                nodes
                    .by_number
                    .insert(number, Node { descriptor: Arc::new(descriptor), lookups: 0, key });
                number
            }
        };
        if let Some(node) = nodes.by_number.get_mut(&number) {
            node.lookups += 1;
        }
        Ok(attributes(number, &stat))
    }

    fn keep(&self, handle: Handle) -> Answer<FileHandle> {
        let number = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.handles.lock().map_err(|_| Errno::EIO)?.insert(number, Arc::new(handle));
        Ok(FileHandle(number))
    }

    fn handle(&self, handle: FileHandle) -> Answer<Arc<Handle>> {
        let handles = self.handles.lock().map_err(|_| Errno::EIO)?;
        handles.get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    fn drop_handle(&self, handle: FileHandle) {
        if let Ok(mut handles) = self.handles.lock() {
            handles.remove(&handle.0);
        }
    }

    fn stat(&self, ino: INodeNo) -> Answer<FileAttr> {
        let stat = fs::fstat(&self.node(ino)?).map_err(errno)?;
        Ok(attributes(ino.0, &stat))
    }

    fn reopen(&self, ino: INodeNo, flags: OFlags) -> Answer<File> {
        let node = self.node(ino)?;
        let flags = (flags - OFlags::NOFOLLOW - OFlags::CREATE - OFlags::EXCL) | OFlags::CLOEXEC;
        fs::openat(CWD, by_descriptor(&node), flags, Mode::empty()).map(File::from).map_err(errno)
    }

    fn list(&self, ino: INodeNo) -> Answer<Vec<(FileType, Vec<u8>)>> {
        let dir = self.reopen(ino, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut entries = Vec::new();
        for entry in fs::Dir::read_from(&dir).map_err(errno)? {
            let entry = entry.map_err(errno)?;
            entries.push((kind(entry.file_type()), entry.file_name().to_bytes().to_vec()));
        }
        Ok(entries)
    }

    fn change(
        &self,
        ino: INodeNo,
        mode: Option<u32>,
        size: Option<u64>,
        times: (Option<TimeOrNow>, Option<TimeOrNow>),
    ) -> Answer<FileAttr> {
        let node = self.node(ino)?;
        let path = by_descriptor(&node);
        if let Some(mode) = mode {
            fs::chmodat(CWD, &path, Mode::from_raw_mode(mode), AtFlags::empty()).map_err(errno)?;
        }
        if let Some(size) = size {
            self.reopen(ino, OFlags::WRONLY)?.set_len(size).map_err(Errno::from)?;
        }
        if times.0.is_some() || times.1.is_some() {
            let times = Timestamps { last_access: time(times.0), last_modification: time(times.1) };
            fs::utimensat(CWD, &path, &times, AtFlags::empty()).map_err(errno)?;
        }
        self.stat(ino)
    }
}

/// Sends an outcome as the reply.
macro_rules! answer {
    ($reply:ident, $outcome:expr, |$reply2:ident, $value:pat_param| $send:expr) => {
        match $outcome {
            Ok($value) => {
                let $reply2 = $reply;
                $send
            }
            Err(error) => $reply.error(error),
        }
    };
}

#[allow(clippy::too_many_arguments, reason = "the trait's signatures")]
impl Filesystem for Passthrough {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        config.set_max_background(BACKGROUND_MAX).ok();
        config
            .add_capabilities(InitFlags::FUSE_DO_READDIRPLUS | InitFlags::FUSE_READDIRPLUS_AUTO)
            .ok();
        config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS).ok();
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer!(reply, self.find(parent, name), |reply, attr| reply.entry(
            &TTL,
            &attr,
            Generation(0)
        ));
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        let Ok(mut nodes) = self.nodes() else { return };
        let Some(node) = nodes.by_number.get_mut(&ino.0) else { return };
        node.lookups = node.lookups.saturating_sub(nlookup);
        if node.lookups == 0 && ino != INodeNo::ROOT {
            let key = node.key;
            nodes.by_number.remove(&ino.0);
            nodes.by_key.remove(&key);
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        answer!(reply, self.stat(ino), |reply, attr| reply.attr(&TTL, &attr));
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        answer!(reply, self.change(ino, mode, size, (atime, mtime)), |reply, attr| reply
            .attr(&TTL, &attr));
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let target = || fs::readlinkat(&self.node(ino)?, "", Vec::new()).map_err(errno);
        answer!(reply, target(), |reply, target| reply.data(target.as_bytes()));
    }

    fn mkdir(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let made = || {
            let mode = Mode::from_raw_mode(mode & !umask & 0o7777);
            fs::mkdirat(&self.node(parent)?, name, mode).map_err(errno)?;
            self.find(parent, name)
        };
        answer!(reply, made(), |reply, attr| reply.entry(&TTL, &attr, Generation(0)));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let gone = || fs::unlinkat(&self.node(parent)?, name, AtFlags::empty()).map_err(errno);
        answer!(reply, gone(), |reply, ()| reply.ok());
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let gone = || fs::unlinkat(&self.node(parent)?, name, AtFlags::REMOVEDIR).map_err(errno);
        answer!(reply, gone(), |reply, ()| reply.ok());
    }

    fn symlink(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let made = || {
            fs::symlinkat(target, &self.node(parent)?, name).map_err(errno)?;
            self.find(parent, name)
        };
        answer!(reply, made(), |reply, attr| reply.entry(&TTL, &attr, Generation(0)));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: fuser::RenameFlags,
        reply: ReplyEmpty,
    ) {
        let moved = || {
            let flags = RenameFlags::from_bits_retain(flags.bits());
            let (from, to) = (self.node(parent)?, self.node(newparent)?);
            fs::renameat_with(&from, name, &to, newname, flags).map_err(errno)
        };
        answer!(reply, moved(), |reply, ()| reply.ok());
    }

    fn link(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _parent: INodeNo,
        _name: &OsStr,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EPERM);
    }

    fn mknod(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let made = || {
            if UnixType::from_raw_mode(mode) != UnixType::RegularFile {
                return Err(Errno::EPERM);
            }
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(mode & !umask & 0o7777);
            fs::openat(&self.node(parent)?, name, flags, mode).map_err(errno)?;
            self.find(parent, name)
        };
        answer!(reply, made(), |reply, attr| reply.entry(&TTL, &attr, Generation(0)));
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let flags = OFlags::from_bits_retain(flags.0.cast_unsigned()) - OFlags::APPEND;
        let opened = || self.keep(Handle::File(self.reopen(ino, flags)?));
        answer!(reply, opened(), |reply, handle| reply
            .opened(handle, FopenFlags::FOPEN_KEEP_CACHE));
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let created = || {
            let flags = OFlags::from_bits_retain(flags.cast_unsigned()) - OFlags::APPEND;
            let flags = flags | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let mode = Mode::from_raw_mode(mode & !umask & 0o7777);
            let file = fs::openat(&self.node(parent)?, name, flags, mode).map_err(errno)?;
            Ok((self.find(parent, name)?, self.keep(Handle::File(File::from(file)))?))
        };
        answer!(reply, created(), |reply, (attr, handle)| {
            reply.created(&TTL, &attr, Generation(0), handle, FopenFlags::FOPEN_KEEP_CACHE);
        });
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = || {
            let Handle::File(file) = &*self.handle(fh)? else { return Err(Errno::EBADF) };
            let mut buf = vec![0; size as usize];
            let mut done = 0;
            while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
                match file.read_at(rest, offset + done as u64)? {
                    0 => break,
                    count => done += count,
                }
            }
            buf.truncate(done);
            Ok(buf)
        };
        answer!(reply, read(), |reply, bytes| reply.data(&bytes));
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = || {
            let Handle::File(file) = &*self.handle(fh)? else { return Err(Errno::EBADF) };
            file.write_all_at(data, offset)?;
            u32::try_from(data.len()).map_err(|_| Errno::EINVAL)
        };
        answer!(reply, written(), |reply, count| reply.written(count));
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.drop_handle(fh);
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        let synced = || {
            let Handle::File(file) = &*self.handle(fh)? else { return Err(Errno::EBADF) };
            if datasync { file.sync_data() } else { file.sync_all() }.map_err(Errno::from)
        };
        answer!(reply, synced(), |reply, ()| reply.ok());
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let opened = || self.keep(Handle::Dir(self.list(ino)?));
        answer!(reply, opened(), |reply, handle| reply.opened(handle, FopenFlags::empty()));
    }

    fn readdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let Ok(handle) = self.handle(fh) else { return reply.error(Errno::EBADF) };
        let Handle::Dir(entries) = &*handle else { return reply.error(Errno::EBADF) };
        for (number, (kind, name)) in entries.iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(u64::MAX), number as u64 + 1, *kind, OsStr::from_bytes(name)) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let Ok(handle) = self.handle(fh) else { return reply.error(Errno::EBADF) };
        let Handle::Dir(entries) = &*handle else { return reply.error(Errno::EBADF) };
        for (number, (kind, name)) in entries.iter().enumerate().skip(offset as usize) {
            let shown = OsStr::from_bytes(name);
            // The kernel counts no lookup for these two.
            let dots = name == b"." || name == b"..";
            let found = if dots {
                self.stat(ino).map(|attr| FileAttr { kind: *kind, ..attr })
            } else {
                self.find(ino, shown)
            };
            let Ok(attr) = found else { continue };
            if reply.add(attr.ino, number as u64 + 1, shown, &TTL, &attr, Generation(0)) {
                if !dots {
                    self.forget(req, attr.ino, 1);
                }
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.drop_handle(fh);
        reply.ok();
    }

    fn statfs(&self, _req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let stat = || fs::fstatvfs(&self.node(ino)?).map_err(errno);
        answer!(reply, stat(), |reply, stat| {
            let size = u32::try_from(stat.f_frsize).unwrap_or(4096);
            reply.statfs(
                stat.f_blocks,
                stat.f_bfree,
                stat.f_bavail,
                stat.f_files,
                stat.f_ffree,
                size,
                255,
                size,
            );
        });
    }

    fn setxattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let set = || {
            let flags = XattrFlags::from_bits_retain(flags.cast_unsigned());
            fs::setxattr(by_descriptor(&*self.node(ino)?), name, value, flags).map_err(errno)
        };
        answer!(reply, set(), |reply, ()| reply.ok());
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let mut value = vec![0_u8; size as usize];
        let mut got = || {
            fs::getxattr(by_descriptor(&*self.node(ino)?), name, value.as_mut_slice())
                .map_err(errno)
        };
        answer!(reply, got(), |reply, len| {
            if size == 0 {
                reply.size(u32::try_from(len).unwrap_or(u32::MAX));
            } else {
                reply.data(value.get(..len).unwrap_or_default());
            }
        });
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let mut names = vec![0_u8; size as usize];
        let mut got =
            || fs::listxattr(by_descriptor(&*self.node(ino)?), names.as_mut_slice()).map_err(errno);
        answer!(reply, got(), |reply, len| {
            if size == 0 {
                reply.size(u32::try_from(len).unwrap_or(u32::MAX));
            } else {
                reply.data(names.get(..len).unwrap_or_default());
            }
        });
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = || fs::removexattr(by_descriptor(&*self.node(ino)?), name).map_err(errno);
        answer!(reply, removed(), |reply, ()| reply.ok());
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let done = || {
            let Handle::File(file) = &*self.handle(fh)? else { return Err(Errno::EBADF) };
            let flags = fs::FallocateFlags::from_bits_retain(mode.cast_unsigned());
            fs::fallocate(file, flags, offset, length).map_err(errno)
        };
        answer!(reply, done(), |reply, ()| reply.ok());
    }

    fn lseek(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        /// The kernel's numbers for looking for data and for a hole.
        const SEEK_DATA: i32 = 3;
        const SEEK_HOLE: i32 = 4;
        let found = || {
            let Handle::File(file) = &*self.handle(fh)? else { return Err(Errno::EBADF) };
            let from = match whence {
                SEEK_DATA => fs::SeekFrom::Data(offset.cast_unsigned()),
                SEEK_HOLE => fs::SeekFrom::Hole(offset.cast_unsigned()),
                _ => return Err(Errno::EINVAL),
            };
            fs::seek(file, from).map_err(errno)
        };
        answer!(reply, found(), |reply, at| reply.offset(at.cast_signed()));
    }
}
