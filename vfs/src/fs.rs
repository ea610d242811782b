//! All rules of the mounted drive, once, for every kernel.
//!
//! ```text
//! lookup  names to inodes, published tree and drafts as one     dirs     listings
//! create  new files, directories, links; removing               rename   moving, exchanging
//! opening opening, what is based on what then                   open     taking up what a crash left
//! io      read, write, finish, fsync                            attrs    attributes, xattrs, statfs
//! copy    ranges from file to file
//! seal    drafts to the journal; the thread that does it        remote   what others changed
//! past    virtual names
//! in_use  what must not be collected               locking  who may change what, stale saves
//! ```
//!
//! Leaves out: kernels ([`crate::fuse`]), the network, the journal's rules.
//!
//! Invariants:
//! - a name shows its draft if it has one, else what the published tree shows;
//! - locks are taken in the order file body, sealing, state, file meta, then the rest; the state is never locked across
//!   disk or network I/O of our own (the tree's short reads are the exception);
//! - an operation that changes a name is in the spool log, in order, before it is answered.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use cas::{ChunkSource, Store};
use journal::id::{DeviceId, DirId};
use journal::name::{EntryName, NameError, Register};
use journal::op::Timestamp;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::attr::{ALL_MODE_BITS, Caller, DIR_MODE_BITS, FILE_MODE_BITS};
use crate::contents::Contents;
pub use crate::contents::Wait;
use crate::drafts::{Drafts, Key, Timing, Touched};
use crate::error::{FsError, OpenError, at};
use crate::file::FileNode;
use crate::handles::Handles;
pub use crate::inode::ROOT_INO;
use crate::inode::{NodeKind, Table};
use crate::past::PastNode;
use crate::process::Process;
use crate::spool::{Change, Spool, Unfinished, recover};
use crate::traits::{Clock, Locks, Submit, Tree};

mod attrs;
mod copy;
mod create;
mod dirs;
mod in_use;
mod io;
mod locking;
mod lookup;
mod open;
mod opening;
mod past;
mod remote;
mod rename;
mod seal;

pub use attrs::XattrMode;
pub(crate) use attrs::is_virtual;
pub use dirs::DirEntry;
pub use io::Near;
pub use lookup::Entry;
pub use opening::Opened;
pub use remote::Stale;
pub use rename::RenameMode;

/// Directory times kept locally.
const DIR_TIMES_MAX: usize = 65_536;
/// How a notice about a disk without room begins.
const NO_ROOM: &str = "the disk of the data directory is full";
/// Notices kept.
const NOTICES_MAX: usize = 64;

/// How a file system behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where unpublished work is kept; made when missing. One file system at a time may use it.
    pub spool_dir: PathBuf,
    /// Owner shown for everything, unless the drive keeps owners.
    pub uid: u32,
    /// Group shown for everything, unless the drive keeps owners.
    pub gid: u32,
    /// Mode of the root while nobody set one.
    pub root_mode: u32,
    /// Whether names of virtual files are listed too.
    pub show_virtual: bool,
    /// Whether the drive keeps numeric owners.
    pub posix_owners: bool,
    /// Whether other users than the mounting one may come in.
    pub allow_other: bool,
    /// Drafts are published when nothing changed for this long, milliseconds.
    pub quiet_ms: u64,
    /// And at the latest this long after the first change, milliseconds, unless they wait for something.
    pub seal_max_ms: u64,
    /// A file kept open is published at fsync points at most this often, milliseconds.
    pub open_publish_ms: u64,
    /// Space on the disk that is never used, bytes.
    pub reserve_bytes: u64,
    /// Inodes the kernel may know before it is asked to forget files nobody uses; about 1.4 KB each.
    pub known_max: usize,
    /// Who publishes drafts that are due.
    pub sealer: Sealer,
    /// The device whose work this is, so that after a crash its own publications are told from others'.
    pub device: Option<DeviceId>,
    /// Where programs that know of drives can talk to this one's daemon.
    pub socket: Option<PathBuf>,
}

/// Who publishes drafts that are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealer {
    /// A thread of the file system.
    Thread,
    /// The caller, by [`Core::seal_due`].
    Caller,
}

impl Config {
    /// Whether the kernel checks modes and owners before it asks.
    pub fn kernel_checks(&self) -> bool {
        self.allow_other || self.posix_owners
    }

    /// Mode bits of files that are shown and kept.
    pub(crate) fn file_bits(&self) -> u32 {
        if self.posix_owners { ALL_MODE_BITS } else { FILE_MODE_BITS }
    }

    /// Mode bits of directories that are shown and kept.
    pub(crate) fn dir_bits(&self) -> u32 {
        if self.posix_owners { ALL_MODE_BITS } else { DIR_MODE_BITS }
    }

    /// The usual settings.
    pub fn new(spool_dir: PathBuf, uid: u32, gid: u32) -> Self {
        Self {
            spool_dir,
            uid,
            gid,
            root_mode: 0o755,
            show_virtual: false,
            posix_owners: false,
            allow_other: false,
            known_max: 200_000,
            quiet_ms: 50,
            seal_max_ms: 2_000,
            open_publish_ms: 30_000,
            reserve_bytes: 256 << 20,
            sealer: Sealer::Thread,
            device: None,
            socket: None,
        }
    }
}

/// Something the user should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What is wrong.
    pub what: String,
    /// Since when, wall time.
    pub since: Timestamp,
    /// What can be done.
    pub remedy: String,
}

/// A mounted drive's file system: [`Core`] and the threads that publish and complete.
pub struct Fs {
    core: Arc<Core>,
    threads: Vec<JoinHandle<()>>,
}

/// The file system without its thread. Every method may be called from any thread.
pub struct Core {
    pub(crate) config: Config,
    tree: Arc<dyn Tree>,
    submit: Arc<dyn Submit>,
    clock: Arc<dyn Clock>,
    contents: Contents,
    handles: Handles,
    spool: Spool,
    state: Mutex<State>,
    /// Files with bytes that no draft has, by inode.
    dirty: Mutex<HashMap<u64, Arc<FileNode>>>,
    /// Held while a batch is out.
    sealing: Mutex<()>,
    wake: Wake,
    stale: remote::StaleQueue,
    notices: Mutex<VecDeque<Notice>>,
    stopping: AtomicBool,
    /// Shown for directories whose time nobody knows.
    opened: Timestamp,
    /// Files that were open at a crash and could not be completed; the spool keeps them.
    left: Mutex<Vec<Unfinished>>,
    /// Virtual directories looked at lately.
    listings: past::Listings,
    work: locking::Work,
}

pub(crate) struct State {
    table: Table,
    drafts: Drafts,
    /// What happened to directories here, as far as their times tell.
    dir_times: HashMap<DirId, DirTimes>,
    /// How many directories a directory holds, where that was counted.
    subdirs: Mutex<HashMap<DirId, u32>>,
    /// Registers others changed while they were drafted here: looked at again when the draft is published.
    overtaken: HashSet<Register>,
    /// Which process made a draft.
    savers: HashMap<Key, Process>,
    /// Drafts that will stand beside the official version, because who made them had not seen it.
    stale_saves: HashSet<Key>,
    /// What else belongs into the next spool frame, after the drafts.
    also: Vec<Change>,
    /// Retry of a failed batch: not before, and the wait after another failure, milliseconds.
    retry_at_ms: u64,
    backoff_ms: u64,
    /// How many batches to come hold one part only, after the journal refused one of several.
    one_by_one: usize,
}

/// Times of a directory that are kept here only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DirTimes {
    /// When the listing last changed here; none if its owner set another time since.
    mtime: Option<Timestamp>,
    /// Last read, if someone set it.
    atime: Option<Timestamp>,
    ctime: Timestamp,
}

/// What happened to the directories in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subdir {
    Came,
    Left,
}

/// Wakes the publishing thread.
struct Wake {
    rung: Mutex<bool>,
    bell: Condvar,
    /// When the thread wakes by itself; a change that is due later need not wake it.
    until_ms: AtomicU64,
}

impl Wake {
    fn new() -> Self {
        Self { rung: Mutex::new(false), bell: Condvar::new(), until_ms: AtomicU64::new(0) }
    }

    fn ring(&self) {
        *self.rung.lock() = true;
        self.bell.notify_one();
    }
}

impl Deref for Fs {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

impl Drop for Fs {
    fn drop(&mut self) {
        self.core.stopping.store(true, Ordering::Release);
        self.core.wake.ring();
        self.core.work.wake();
        self.core.stale.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the file system panicked");
            }
        }
    }
}

impl Fs {
    /// Opens the file system over a drive, and takes up what a crash left in the spool.
    pub fn open(
        config: Config,
        tree: Arc<dyn Tree>,
        submit: Arc<dyn Submit>,
        store: Store,
        source: Arc<dyn ChunkSource>,
        clock: Arc<dyn Clock>,
        locks: Arc<dyn Locks>,
    ) -> Result<Self, OpenError> {
        let dir = config.spool_dir.clone();
        std::fs::create_dir_all(&dir).map_err(at("create", &dir))?;
        let recovered = recover::read(&dir, &store)?;
        let (overlays, next_overlay) = recover::overlays(&dir)?;
        let contents = Contents::new(store, source, &dir, next_overlay, config.reserve_bytes);
        let timing = Timing { quiet_ms: config.quiet_ms, seal_max_ms: config.seal_max_ms };
        let state = State {
            table: Table::new(config.known_max),
            drafts: Drafts::new(timing),
            dir_times: HashMap::new(),
            subdirs: Mutex::default(),
            overtaken: HashSet::new(),
            savers: HashMap::new(),
            stale_saves: HashSet::new(),
            also: Vec::new(),
            retry_at_ms: 0,
            backoff_ms: 0,
            one_by_one: 0,
        };
        let core =
            open::recovered(config, (tree, submit, clock, locks), contents, state, recovered)?;
        let kept: HashSet<u64> =
            core.left.lock().iter().filter_map(|left| left.file.overlay_number()).collect();
        recover::sweep(&dir, overlays.iter().filter(|number| !kept.contains(number)));
        let core = Arc::new(core);
        let mut fs = Self { core, threads: Vec::new() };
        if fs.core.config.sealer == Sealer::Thread {
            fs.start("vfs-seal", Core::seal_loop)?;
            fs.start("vfs-uses", Core::uses_loop)?;
            if !fs.core.left.lock().is_empty() {
                fs.start("vfs-left", Core::left_loop)?;
            }
        }
        Ok(fs)
    }

    fn start(
        &mut self,
        name: &str,
        work: impl FnOnce(&Core) + Send + 'static,
    ) -> Result<(), OpenError> {
        let core = self.core.clone();
        let thread = std::thread::Builder::new().name(name.into());
        self.threads.push(thread.spawn(move || work(&core)).map_err(OpenError::Thread)?);
        Ok(())
    }
}

impl Core {
    /// How many changes wait to be published.
    pub fn drafts(&self) -> usize {
        let drafts = self.state.lock().drafts.len();
        drafts + self.left.lock().len()
    }

    /// Whether the kernel has to check modes and owners.
    pub fn kernel_checks(&self) -> bool {
        self.config.kernel_checks()
    }

    /// How many files are open.
    pub fn open_files(&self) -> usize {
        self.handles.files()
    }

    /// How many inodes are known.
    pub fn inodes(&self) -> usize {
        self.state.lock().table.len()
    }

    /// What the user should know.
    pub fn notices(&self) -> Vec<Notice> {
        self.notices.lock().iter().cloned().collect()
    }

    fn notice(&self, what: String, remedy: &str) {
        let mut notices = self.notices.lock();
        if notices.iter().any(|notice| notice.what == what) {
            return;
        }
        if notices.len() >= NOTICES_MAX {
            notices.pop_front();
        }
        notices.push_back(Notice { what, since: self.clock.wall(), remedy: remedy.to_owned() });
    }

    fn drop_notices(&self, about: &str) {
        self.notices.lock().retain(|notice| !notice.what.starts_with(about));
    }

    /// Locks the state for a change; what the change leaves in the drafts is pushed to the spool before the lock is
    /// given back, so the log has the order in which it happened.
    fn change<T>(&self, body: impl FnOnce(&mut State) -> Result<T, FsError>) -> Result<T, FsError> {
        if self.spool.has_failed() {
            return Err(FsError::Poisoned);
        }
        if self.spool.waits_for_room() {
            self.spool.write_out()?;
            self.drop_notices(NO_ROOM);
        }
        let (result, due_ms) = {
            let mut state = self.state.lock();
            let result = body(&mut state);
            self.log_touched(&mut state);
            (result, state.drafts.next_due_ms())
        };
        let result = result?;
        self.write_out_spool()?;
        if due_ms.is_some_and(|due| due < self.wake.until_ms.load(Ordering::Acquire)) {
            self.wake.ring();
        }
        Ok(result)
    }

    /// Pushes what changed to the spool. Unfinished files have nothing to say there: until they are finished, what was
    /// logged under their name stands.
    fn log_touched(&self, state: &mut State) {
        let touched = state.drafts.take_touched();
        if touched.is_empty() && state.also.is_empty() {
            return;
        }
        let mut seen = HashSet::with_capacity(touched.len());
        let mut changes = Vec::with_capacity(touched.len());
        for touched in touched {
            if !seen.insert(touched.clone()) {
                continue;
            }
            match touched {
                Touched::Name(key) => {
                    let draft = state.drafts.get(&key);
                    if draft.is_none_or(|d| d.value != crate::drafts::DraftValue::Unfinished) {
                        changes.push(Change::name(&key, draft));
                    }
                }
                Touched::Attr(dir) => {
                    changes.push(Change::Attr { dir, attr: state.drafts.dir_attr(dir).cloned() });
                }
            }
        }
        changes.append(&mut state.also);
        self.spool.push(&changes);
    }

    /// Hands the spool log to the operating system, and tells the user when that fails.
    fn write_out_spool(&self) -> Result<(), FsError> {
        self.spool.write_out().inspect_err(|_| self.spool_failed())
    }

    fn spool_failed(&self) {
        if !self.spool.has_failed() {
            self.notice(format!("{NO_ROOM}; no change is taken"), "free some space there");
            return;
        }
        self.notice(
            "the spool cannot be written; the drive takes no more changes".into(),
            "check the disk of the data directory, then mount again",
        );
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn now_ms(&self) -> u64 {
        self.clock.monotonic_ms()
    }

    /// A name as a kernel gives it.
    fn name(&self, bytes: &[u8]) -> Result<EntryName, FsError> {
        EntryName::from_bytes(bytes).map_err(|error| match error {
            NameError::TooLong { .. } => FsError::NameTooLong,
            NameError::NotUtf8 => FsError::NameEncoding,
            NameError::Empty => FsError::NotFound,
            NameError::Dots | NameError::Separator => FsError::Invalid,
        })
    }

    /// A name that should be there already: one that cannot be is not.
    fn name_there(&self, bytes: &[u8]) -> Result<EntryName, FsError> {
        self.name(bytes).map_err(|error| match error {
            FsError::NameEncoding => FsError::NotFound,
            other => other,
        })
    }

    /// Whether the owner's bits allow `want` (4 read, 2 write, 1 execute), where the kernel has not checked.
    fn may(&self, caller: Caller, mode: u32, want: u32) -> Result<(), FsError> {
        if self.config.kernel_checks() || caller.uid == 0 || (mode >> 6) & want == want {
            Ok(())
        } else {
            Err(FsError::Access)
        }
    }
}

impl State {
    fn dir_of(&self, ino: u64) -> Result<DirId, FsError> {
        match self.table.get(ino).map(|node| &node.kind) {
            Some(NodeKind::Dir(dir)) => Ok(*dir),
            // Only what would change something asks for a directory of the past in this way.
            Some(NodeKind::Past(_)) => Err(FsError::ReadOnly),
            Some(_) => Err(FsError::NotDir),
            None => Err(FsError::Stale),
        }
    }

    /// The node of the past with this number.
    fn past_of(&self, ino: u64) -> Option<Arc<PastNode>> {
        match self.table.get(ino).map(|node| &node.kind) {
            Some(NodeKind::Past(past)) => Some(past.clone()),
            _ => None,
        }
    }

    /// A directory's listing changed here.
    fn touch_dir(&mut self, dir: DirId, now: Timestamp) {
        self.dir_changed(dir, now).mtime = Some(now);
    }

    /// Something of a directory changed here.
    fn dir_changed(&mut self, dir: DirId, now: Timestamp) -> &mut DirTimes {
        if self.dir_times.len() >= DIR_TIMES_MAX && !self.dir_times.contains_key(&dir) {
            self.dir_times.clear();
        }
        let new = DirTimes { mtime: None, atime: None, ctime: now };
        let times = self.dir_times.entry(dir).or_insert(new);
        times.ctime = now;
        times
    }

    /// A directory came into or left another one.
    fn count_subdir(&mut self, dir: DirId, change: Subdir) {
        if let Some(count) = self.subdirs.get_mut().get_mut(&dir) {
            *count = match change {
                Subdir::Came => count.saturating_add(1),
                Subdir::Left => count.saturating_sub(1),
            };
        }
    }
}
