//! Putting the file system under a directory, and taking it away.
//!
//! Leaves out: what the file system does; when to mount.
//!
//! Invariants:
//! - the descriptor is ours and the adapter library never mounts or unmounts: it would unmount whatever lies on the path
//!   by then;
//! - unmounting touches only the mount made here, told by its device number;
//! - whoever unmounts, [`Mounted::wait`] returns and every thread of the mount ends.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fuser::{Config, INodeNo, Notifier, Session, SessionACL};
use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;
use thiserror::Error;

use crate::fs::{Fs, Stale};
use crate::fuse::Fuse;

mod device;
mod table;

pub use device::Requirements;
pub use table::is_mounted;

/// How long a busy mount is asked again before it is detached.
const BUSY_WAIT: Duration = Duration::from_secs(2);
/// Time between two attempts.
const BUSY_STEP: Duration = Duration::from_millis(50);
/// How long the invalidating thread sleeps before it looks whether the mount is still there.
const NOTIFY_STEP: Duration = Duration::from_millis(500);
/// Most threads that take requests from the kernel.
const THREADS_MAX: usize = 16;

/// How to mount.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Lets other users in.
    pub allow_other: bool,
    /// What `df` and `mount` show as the source.
    pub fs_name: String,
    /// Threads that take requests from the kernel.
    pub threads: usize,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self { allow_other: false, fs_name: "atelier".into(), threads: 4 }
    }
}

/// Why a mount failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MountError {
    /// The kernel has no FUSE, or this process may not use it.
    #[error("cannot open /dev/fuse")]
    NoDevice(#[source] io::Error),
    /// The program that mounts for users is missing.
    #[error("fusermount3 is not installed")]
    NoHelper,
    /// The program that mounts for users refused.
    #[error("fusermount3 failed: {message}")]
    Helper {
        /// What it said.
        message: String,
    },
    /// The mount point does not exist.
    #[error("{} does not exist", at.display())]
    Missing {
        /// The mount point.
        at: PathBuf,
    },
    /// The mount point is not a directory.
    #[error("{} is not a directory", at.display())]
    NotDirectory {
        /// The mount point.
        at: PathBuf,
    },
    /// The mount point holds something.
    #[error("{} is not empty", at.display())]
    NotEmpty {
        /// The mount point.
        at: PathBuf,
    },
    /// Something is mounted there.
    #[error("something is already mounted on {}", at.display())]
    AlreadyMounted {
        /// The mount point.
        at: PathBuf,
    },
    /// A mount whose program died lies there.
    #[error("a dead mount lies on {}", at.display())]
    Dead {
        /// The mount point.
        at: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {verb} {}", at.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On what.
        at: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The conversation with the kernel could not be begun.
    #[error("the kernel did not take up the file system")]
    Handshake(#[source] io::Error),
}

impl MountError {
    fn io(verb: &'static str, at: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { verb, at: at.to_path_buf(), source }
    }
}

/// How an unmount went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// Nothing is mounted there any more.
    Clean,
    /// Programs still use files of it: the path is free, and the mount ends when they close them.
    Detached,
}

/// A mounted file system. Dropping it unmounts.
pub struct Mounted {
    at: PathBuf,
    device: String,
    ended: Arc<Ended>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Ended {
    yes: Mutex<bool>,
    bell: Condvar,
}

impl Ended {
    fn set(&self) {
        *self.yes.lock() = true;
        self.bell.notify_all();
    }

    fn is_set(&self) -> bool {
        *self.yes.lock()
    }
}

/// Who gets in, and whether the kernel checks modes and owners.
fn access_options(options: &MountOptions, fs: &Fs) -> &'static str {
    match (options.allow_other, fs.kernel_checks()) {
        (true, true) => ",allow_other,default_permissions",
        (true, false) => ",allow_other",
        (false, true) => ",default_permissions",
        (false, false) => "",
    }
}

/// Mounts on an empty directory.
pub fn mount(fs: Arc<Fs>, at: &Path, options: &MountOptions) -> Result<Mounted, MountError> {
    let at = check_point(at)?;
    let fd = device::mount(&at, options, access_options(options, &fs))?;
    let device = table::device_of(&at).unwrap_or_default();
    match serve(fs, fd, options) {
        Ok((ended, threads)) => Ok(Mounted { at, device, ended, threads: Mutex::new(threads) }),
        Err(error) => {
            let _ = device::unmount(&at, device::How::Detach);
            Err(error)
        }
    }
}

/// Checks a mount point and gives its full path.
fn check_point(at: &Path) -> Result<PathBuf, MountError> {
    let owned = || at.to_path_buf();
    let meta = match std::fs::metadata(at) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(MountError::Missing { at: owned() });
        }
        Err(e) if is_dead(&e) => return Err(MountError::Dead { at: owned() }),
        Err(e) => return Err(MountError::io("look at", at)(e)),
    };
    if !meta.is_dir() {
        return Err(MountError::NotDirectory { at: owned() });
    }
    let full = std::fs::canonicalize(at).map_err(MountError::io("find", at))?;
    if is_mounted(&full) {
        return Err(MountError::AlreadyMounted { at: full });
    }
    let mut entries = std::fs::read_dir(&full).map_err(MountError::io("list", &full))?;
    if entries.next().is_some() {
        return Err(MountError::NotEmpty { at: full });
    }
    Ok(full)
}

/// Whether an error is a dead mount's.
fn is_dead(error: &io::Error) -> bool {
    let dead = [Errno::NOTCONN, Errno::CONNABORTED];
    error.raw_os_error().is_some_and(|raw| dead.contains(&Errno::from_raw_os_error(raw)))
}

type Served = (Arc<Ended>, Vec<JoinHandle<()>>);

/// Takes up the conversation with the kernel.
fn serve(fs: Arc<Fs>, fd: OwnedFd, options: &MountOptions) -> Result<Served, MountError> {
    let mut config = Config::default();
    config.n_threads = Some(options.threads.clamp(1, THREADS_MAX));
    config.clone_fd = true;
    let adapter = Fuse::new(fs.clone()).map_err(MountError::Handshake)?;
    // The kernel lets in whom the mount options say; fuser's own filter would refuse the kernel's own requests.
    let session =
        Session::from_fd(adapter, fd, SessionACL::All, config).map_err(MountError::Handshake)?;
    let notifier = session.notifier();
    let ended = Arc::new(Ended::default());
    let telling = {
        let (fs, ended) = (fs.clone(), ended.clone());
        std::thread::Builder::new()
            .name("vfs-notify".into())
            .spawn(move || tell_kernel(&fs, &notifier, &ended))
    };
    let telling = telling.map_err(MountError::Handshake)?;
    let serving = {
        let ended = ended.clone();
        std::thread::Builder::new().name("vfs-fuse".into()).spawn(move || {
            if let Err(error) = session.run() {
                tracing::warn!(%error, "the kernel's connection ended badly");
            }
            ended.set();
            fs.nudge_stale();
        })
    };
    let serving = serving.map_err(MountError::Handshake)?;
    Ok((ended, vec![serving, telling]))
}

/// Tells the kernel what others changed. This thread holds no lock of the file system while it does: the kernel may
/// first want an answer to a request for the same directory.
fn tell_kernel(fs: &Fs, notifier: &Notifier, ended: &Ended) {
    while !ended.is_set() {
        let Some(stale) = fs.next_stale(NOTIFY_STEP) else { return };
        for stale in stale {
            let told = match &stale {
                Stale::Name { parent, name } => {
                    notifier.inval_entry(INodeNo(*parent), name.as_ref())
                }
                Stale::Attr { ino } => notifier.inval_inode(INodeNo(*ino), -1, 0),
            };
            if let Err(error) = told {
                tracing::debug!(?stale, %error, "the kernel took no notice");
            }
        }
    }
}

impl Mounted {
    /// Where it is mounted.
    pub fn at(&self) -> &Path {
        &self.at
    }

    /// Waits until it is unmounted, by whomever.
    pub fn wait(&self) {
        {
            let mut yes = self.ended.yes.lock();
            while !*yes {
                self.ended.bell.wait(&mut yes);
            }
        }
        self.join();
    }

    /// The same with a bound; whether it is unmounted.
    pub fn wait_for(&self, bound: Duration) -> bool {
        let until = Instant::now() + bound;
        let mut yes = self.ended.yes.lock();
        while !*yes {
            if self.ended.bell.wait_until(&mut yes, until).timed_out() {
                return *yes;
            }
        }
        drop(yes);
        self.join();
        true
    }

    fn join(&self) {
        let threads: Vec<_> = self.threads.lock().drain(..).collect();
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the mount panicked");
            }
        }
    }

    /// Whether this mount, not another one, lies on its path.
    fn is_ours(&self) -> bool {
        table::device_of(&self.at).is_some_and(|device| device == self.device)
    }

    /// Unmounts. A mount that stays busy is detached after a bounded time.
    pub fn unmount(&self) -> Result<Unmounted, MountError> {
        let until = Instant::now() + BUSY_WAIT;
        loop {
            if self.ended.is_set() || !self.is_ours() {
                // Detached before, it lasts as long as someone uses it.
                let over = self.wait_for(BUSY_WAIT);
                return Ok(if over { Unmounted::Clean } else { Unmounted::Detached });
            }
            match device::unmount(&self.at, device::How::WhenFree) {
                Ok(()) => {
                    self.wait();
                    return Ok(Unmounted::Clean);
                }
                Err(device::UnmountError::Busy) if Instant::now() < until => {
                    std::thread::sleep(BUSY_STEP)
                }
                Err(device::UnmountError::Busy) => break,
                Err(device::UnmountError::Other(error)) => return Err(error),
            }
        }
        match device::unmount(&self.at, device::How::Detach) {
            Ok(()) => {
                Ok(if self.wait_for(BUSY_STEP) { Unmounted::Clean } else { Unmounted::Detached })
            }
            Err(device::UnmountError::Busy) => Ok(Unmounted::Detached),
            Err(device::UnmountError::Other(error)) => Err(error),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.ended.is_set() {
            self.join();
            return;
        }
        match self.unmount() {
            Ok(Unmounted::Clean) => {}
            Ok(Unmounted::Detached) => {
                tracing::warn!(at = %self.at.display(), "the mount is still in use")
            }
            Err(error) => tracing::warn!(at = %self.at.display(), %error, "cannot unmount"),
        }
    }
}

/// Takes away a mount whose program died. Whether there was one.
pub fn clean_stale(at: &Path) -> Result<bool, MountError> {
    // Attributes may still be answered from the kernel's cache; this question goes to the program itself.
    match rustix::fs::statvfs(at).map_err(io::Error::from) {
        Err(e) if is_dead(&e) => {}
        _ => return Ok(false),
    }
    match device::unmount(at, device::How::Detach) {
        Ok(()) => Ok(true),
        Err(device::UnmountError::Busy) => Err(MountError::Dead { at: at.to_path_buf() }),
        Err(device::UnmountError::Other(error)) => Err(error),
    }
}
