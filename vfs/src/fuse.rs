//! Linux's kernel: translates its requests to [`crate::fs`] and the answers back, nothing else.
//!
//! Leaves out: mounting ([`crate::mount`]); every rule.
//!
//! Invariants:
//! - a request that may wait for other devices, for the disk's sync or for publishing is answered from the pool, never
//!   from the kernel's own threads;
//! - a panic in a request answers EIO and ends neither a thread nor the mount.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::OFlags;

use crate::attr::{Caller, SetAttr};
use crate::error::FsError;
use crate::fs::{Entry, Fs, Near, Opened, RenameMode, Wait, XattrMode, is_virtual};

mod ahead;
mod changer;
mod convert;
mod pool;
mod reply;

use ahead::read_ahead;
use changer::Changer;
use convert::{file_attr, file_type, set_time};
use pool::Pool;
use reply::error_of;

/// How long the kernel may remember names and attributes. Everything others change is told to it, so this only bounds
/// the harm of a message that was lost.
const TTL: Duration = Duration::from_secs(30);
/// Requests the kernel may have under way that nobody waits for, such as read-ahead.
const BACKGROUND_MAX: u16 = 64;
/// Largest write in one request, bytes; the kernel's own limit is lower or the same.
const WRITE_MAX: u32 = 1 << 20;
/// Longest name, bytes.
const NAME_LEN_MAX: u32 = 255;

/// The adapter.
pub(crate) struct Fuse {
    fs: Arc<Fs>,
    pool: Pool,
    /// For reads that wait for other devices: however long those take, a sync of a local file does not wait for them.
    fetching: Pool,
    /// For calls that ask the other devices for a lock first.
    asking: Pool,
}

fn guarded(body: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(body)).is_err() {
        tracing::error!("a request panicked and was answered with an error");
    }
}

fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), tid: request.pid() }
}

impl Fuse {
    /// An adapter with its pool.
    pub(crate) fn new(fs: Arc<Fs>) -> std::io::Result<Self> {
        let pool = Pool::new("vfs-work")?;
        Ok(Self { fs, pool, fetching: Pool::new("vfs-fetch")?, asking: Pool::new("vfs-ask")? })
    }

    /// Answers when the others have answered.
    fn asking(&self, job: impl FnOnce(&Fs) + Send + 'static) {
        let fs = self.fs.clone();
        self.asking.run(Box::new(move || guarded(|| job(&fs))));
    }

    /// Answers from the pool.
    fn elsewhere(&self, job: impl FnOnce(&Fs) + Send + 'static) {
        let fs = self.fs.clone();
        self.pool.run(Box::new(move || guarded(|| job(&fs))));
    }

    /// Answers a read that has to wait for other devices.
    fn read_waiting(&self, fh: u64, offset: u64, size: usize, reply: ReplyData) {
        let pool = self.fetching.handle();
        let fs = self.fs.clone();
        self.fetching.run(Box::new(move || {
            guarded(|| match fs.read(fh, offset, size, Wait::Allowed) {
                Ok(data) => {
                    reply.data(&data);
                    let try_run = |job| pool.try_run(job);
                    read_ahead(&fs, try_run, fh, (offset, data.len()), Near::Peers);
                }
                Err(error) => reply.error(error_of(&error)),
            });
        }));
    }
}

impl Filesystem for Fuse {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Set-id bits are taken off by ourselves, so the kernel need not ask for them at each write (KILLPRIV_V2).
        let wanted = [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            InitFlags::FUSE_CACHE_SYMLINKS,
            // A program that maps a file it is watched reading can do so (Linux 6.6).
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
        ];
        // The kernel drops the pages of a running program before it notices that it runs, if an open may cut. Where
        // programs of several users run, cutting is a request of its own, which saves pay for with a round trip.
        let cutting = (!self.fs.kernel_checks()).then_some(InitFlags::FUSE_ATOMIC_O_TRUNC);
        for flag in wanted.into_iter().chain(cutting) {
            if config.add_capabilities(flag).is_err() {
                tracing::debug!(?flag, "the kernel does not offer");
            }
        }
        let _ = config.set_max_background(BACKGROUND_MAX);
        let _ = config.set_max_write(WRITE_MAX);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let answer = |reply: ReplyEntry, result: Result<Entry, FsError>| match result {
            Err(FsError::NotFound) => reply.error(Errno::ENOENT),
            result => reply::entry(reply, result),
        };
        guarded(|| match self.fs.is_past(parent.0) {
            false => answer(reply, self.fs.lookup(parent.0, name.as_bytes())),
            true => {
                let name = name.as_bytes().to_vec();
                self.elsewhere(move |fs| answer(reply, fs.lookup(parent.0, &name)));
            }
        });
    }

    fn forget(&self, _request: &Request, ino: INodeNo, nlookup: u64) {
        guarded(|| self.fs.forget(ino.0, nlookup));
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        guarded(|| reply::attr(reply, self.fs.getattr(ino.0)));
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        guarded(|| {
            let (atime, mtime) = (atime.map(set_time), mtime.map(set_time));
            let set = SetAttr { mode, uid, gid, len: size, atime, mtime };
            let (caller, handle) = (caller(request), fh.map(|fh| fh.0));
            if size.is_some() {
                self.elsewhere(move |fs| {
                    reply::attr(reply, fs.setattr(caller, ino.0, handle, set))
                });
            } else {
                reply::attr(reply, self.fs.setattr(caller, ino.0, handle, set));
            }
        });
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        guarded(|| match self.fs.readlink(ino.0) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(error_of(&error)),
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        guarded(|| {
            let (caller, name) = (caller(request), name.as_bytes().to_vec());
            self.elsewhere(move |fs| reply::entry(reply, fs.mknod(caller, parent.0, &name, mode)));
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        guarded(|| {
            reply::entry(reply, self.fs.mkdir(caller(request), parent.0, name.as_bytes(), mode))
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded(|| {
            let caller = caller(request);
            match self.fs.unlink(caller, parent.0, name.as_bytes(), Wait::Never) {
                Err(FsError::WouldWait) => {
                    let name = name.as_bytes().to_vec();
                    self.asking(move |fs| {
                        reply::empty(reply, fs.unlink(caller, parent.0, &name, Wait::Allowed));
                    });
                }
                result => reply::empty(reply, result),
            }
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded(|| reply::empty(reply, self.fs.rmdir(caller(request), parent.0, name.as_bytes())));
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        guarded(|| {
            let target = target.as_os_str().as_bytes();
            reply::entry(
                reply,
                self.fs.symlink(caller(request), parent.0, link_name.as_bytes(), target),
            );
        });
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        guarded(|| {
            let mode = match flags {
                f if f.is_empty() => RenameMode::Replace,
                RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
                RenameFlags::RENAME_EXCHANGE => RenameMode::Exchange,
                _ => return reply.error(Errno::EINVAL),
            };
            let caller = caller(request);
            let (from, to) = ((parent.0, name.as_bytes()), (newparent.0, newname.as_bytes()));
            match self.fs.rename(caller, from, to, mode, Wait::Never) {
                Err(FsError::WouldWait) => {
                    let (from_name, to_name) = (from.1.to_vec(), to.1.to_vec());
                    self.asking(move |fs| {
                        let (from, to) = ((parent.0, &*from_name), (newparent.0, &*to_name));
                        reply::empty(reply, fs.rename(caller, from, to, mode, Wait::Allowed));
                    });
                }
                result => reply::empty(reply, result),
            }
        });
    }

    fn link(
        &self,
        _request: &Request,
        _ino: INodeNo,
        newparent: INodeNo,
        _newname: &OsStr,
        reply: ReplyEntry,
    ) {
        guarded(|| reply::entry(reply, self.fs.link(newparent.0)));
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        guarded(|| {
            let caller = caller(request);
            let open = move |fs: &Fs, wait| fs.open(caller, ino.0, flags.0, wait);
            if OFlags::from_bits_retain(flags.0 as u32).contains(OFlags::TRUNC) {
                self.asking(move |fs| reply::open(reply, open(fs, Wait::Allowed)));
                return;
            }
            match open(&self.fs, Wait::Never) {
                Err(FsError::WouldWait) => {
                    self.asking(move |fs| reply::open(reply, open(fs, Wait::Allowed)));
                }
                result => reply::open(reply, result),
            }
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        guarded(|| {
            let caller = caller(request);
            let answer = |reply: ReplyCreate, made: Result<(Entry, Opened), FsError>| match made {
                Ok((entry, opened)) => reply.created(
                    &TTL,
                    &file_attr(&entry.attr),
                    Generation(0),
                    FileHandle(opened.handle),
                    reply::cache_of(&opened),
                ),
                Err(error) => reply.error(error_of(&error)),
            };
            match self.fs.create(caller, parent.0, name.as_bytes(), mode, flags, Wait::Never) {
                Err(FsError::WouldWait) => {
                    let name = name.as_bytes().to_vec();
                    self.asking(move |fs| {
                        let wait = Wait::Allowed;
                        answer(reply, fs.create(caller, parent.0, &name, mode, flags, wait));
                    });
                }
                made => answer(reply, made),
            }
        });
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        guarded(|| match self.fs.read(fh.0, offset, size as usize, Wait::Never) {
            Ok(data) => {
                reply.data(&data);
                let try_run = |job| self.pool.try_run(job);
                read_ahead(&self.fs, try_run, fh.0, (offset, data.len()), Near::Disk);
            }
            Err(FsError::WouldWait) => self.read_waiting(fh.0, offset, size as usize, reply),
            Err(error) => reply.error(error_of(&error)),
        });
    }

    fn write(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let changer = match write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID) {
            true => Changer::WithoutSetId,
            false => Changer::Trusted,
        };
        guarded(|| match self.fs.write(fh.0, offset, data, Wait::Never) {
            Err(FsError::WouldWait) => {
                let data = data.to_vec();
                self.elsewhere(move |fs| {
                    let written = fs.write(fh.0, offset, &data, Wait::Allowed);
                    reply::written(reply, changer.done(fs, fh, written));
                });
            }
            result => reply::written(reply, changer.done(&self.fs, fh, result)),
        });
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let changer = Changer::of(request);
        guarded(|| {
            self.elsewhere(move |fs| {
                let copied = fs.copy_range((fh_in.0, offset_in), (fh_out.0, offset_out), len);
                let copied = copied.map(|copied| copied as usize);
                reply::written(reply, changer.done(fs, fh_out, copied));
            });
        });
    }

    fn flush(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        guarded(|| {
            if self.fs.finishes_quickly(fh.0) {
                reply::empty(reply, self.fs.flush(fh.0));
            } else {
                self.elsewhere(move |fs| reply::empty(reply, fs.flush(fh.0)));
            }
        });
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        guarded(|| {
            if self.fs.finishes_quickly(fh.0) {
                reply::empty(reply, self.fs.release(fh.0));
            } else {
                self.elsewhere(move |fs| reply::empty(reply, fs.release(fh.0)));
            }
        });
    }

    fn fsync(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        guarded(|| self.elsewhere(move |fs| reply::empty(reply, fs.fsync(fh.0))));
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        guarded(|| match self.fs.opendir(caller(request), ino.0) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(error) => reply.error(error_of(&error)),
        });
    }

    fn readdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let answer = move |fs: &Fs| {
            let result = fs.readdir(fh.0, offset, |entry| {
                !reply.add(INodeNo(entry.ino), entry.next, file_type(entry.kind), &*entry.name)
            });
            match result {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(error_of(&error)),
            }
        };
        guarded(|| match self.fs.is_past(ino.0) {
            false => answer(&self.fs),
            true => self.elsewhere(answer),
        });
    }

    fn readdirplus(
        &self,
        _request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let answer = move |fs: &Fs| {
            let result = fs.readdirplus(fh.0, offset, |entry, answer| {
                let ttl = if answer.lasting { TTL } else { Duration::ZERO };
                let attr = file_attr(&answer.attr);
                !reply.add(INodeNo(entry.ino), entry.next, &*entry.name, &ttl, &attr, Generation(0))
            });
            match result {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(error_of(&error)),
            }
        };
        guarded(|| match self.fs.is_past(ino.0) {
            false => answer(&self.fs),
            true => self.elsewhere(answer),
        });
    }

    fn releasedir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        guarded(|| {
            self.fs.releasedir(fh.0);
            reply.ok();
        });
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        guarded(|| self.elsewhere(move |fs| reply::empty(reply, fs.fsyncdir())));
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        guarded(|| match self.fs.statfs() {
            Ok(u) => {
                let block = u32::try_from(u.block_bytes).unwrap_or(u32::MAX);
                reply.statfs(
                    u.blocks,
                    u.free,
                    u.available,
                    u.files,
                    u.files_free,
                    block,
                    NAME_LEN_MAX,
                    block,
                );
            }
            Err(error) => reply.error(error_of(&error)),
        });
    }

    fn setxattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        use rustix::fs::XattrFlags;
        guarded(|| {
            let flags = XattrFlags::from_bits_retain(flags as u32);
            let mode =
                match (flags.contains(XattrFlags::CREATE), flags.contains(XattrFlags::REPLACE)) {
                    (false, false) => XattrMode::Any,
                    (true, false) => XattrMode::Create,
                    (false, true) => XattrMode::Replace,
                    (true, true) => return reply.error(Errno::EINVAL),
                };
            let name = name.as_bytes();
            if is_virtual(name) {
                let (name, value) = (name.to_vec(), value.to_vec());
                self.elsewhere(move |fs| {
                    reply::empty(reply, fs.setxattr(ino.0, &name, &value, mode));
                });
            } else {
                reply::empty(reply, self.fs.setxattr(ino.0, name, value, mode));
            }
        });
    }

    fn getxattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        guarded(|| reply::xattr(reply, size, self.fs.getxattr(ino.0, name.as_bytes())));
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        guarded(|| {
            let names = self.fs.listxattr(ino.0).map(|names| {
                names.into_iter().fold(Vec::new(), |mut list, name| {
                    list.extend_from_slice(&name);
                    list.push(0);
                    list
                })
            });
            reply::xattr(reply, size, names);
        });
    }

    fn removexattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded(|| {
            let name = name.as_bytes();
            if is_virtual(name) {
                let name = name.to_vec();
                self.elsewhere(move |fs| reply::empty(reply, fs.removexattr(ino.0, &name)));
            } else {
                reply::empty(reply, self.fs.removexattr(ino.0, name));
            }
        });
    }

    fn access(&self, request: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        guarded(|| reply::empty(reply, self.fs.access(caller(request), ino.0, mask.bits() as u32)));
    }

    fn fallocate(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let changer = Changer::of(request);
        guarded(|| {
            self.elsewhere(move |fs| {
                let done = fs.fallocate(fh.0, mode as u32, offset, length);
                reply::empty(reply, changer.done(fs, fh, done));
            });
        });
    }

    fn lseek(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        const SEEK_DATA: i32 = 3;
        const SEEK_HOLE: i32 = 4;
        guarded(|| {
            let (Ok(offset), SEEK_DATA | SEEK_HOLE) = (u64::try_from(offset), whence) else {
                return reply.error(Errno::EINVAL);
            };
            self.elsewhere(move |fs| match fs.lseek(fh.0, offset, whence == SEEK_DATA) {
                Ok(offset) => reply.offset(i64::try_from(offset).unwrap_or(i64::MAX)),
                Err(error) => reply.error(error_of(&error)),
            });
        });
    }
}
