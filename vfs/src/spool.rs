//! What is closed or synced but not published, kept so that no crash loses it.
//!
//! Leaves out: which changes these are ([`crate::drafts`]) and taking them up again ([`recover`]).
//!
//! Invariants:
//! - changes stand in the log in the order they were made; what is cut off at the end is the newest;
//! - a change is in the log (not yet durable) before the call that made it is answered, and durable before an fsync is;
//! - an overlay file the log may still need stays until the log does not need it any more, durably;
//! - after a failed write or sync nothing more is written to this log, but for a write that found no room: it is made
//!   again, at the same place, before anything else is taken;
//! - the file reaches beyond what is written, in zeros or in frames of an older turn, so that a sync has only data to
//!   write and no new length.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::{FsError, at};
use crate::overlay::Overlay;

mod format;
pub(crate) mod recover;

use format::Turn;
pub(crate) use format::{Change, DirtyFile, FileAttrs, Part};
pub(crate) use recover::Unfinished;

/// Name of the log in the spool directory.
const LOG_NAME: &str = "log";
/// Name under which a shorter log is made before it takes the log's place.
const NEW_LOG_NAME: &str = "log.new";
/// A log longer than this is written anew when most of it is history, bytes.
const LOG_LEN_KEPT: u64 = 16 << 20;
/// Step in which the log's file grows ahead of what is written, bytes.
const GROW_BYTES: u64 = 256 << 10;

/// The log and the overlay files beside it.
pub(crate) struct Spool {
    dir: PathBuf,
    // Lock order: syncing, written, queue. The drive's state lock may be held when `queue` is taken, and is taken inside
    // `written` only by `restart`, so nothing may take `written` while holding the state.
    written: Mutex<Written>,
    queue: Mutex<Queue>,
    queued: AtomicU64,
    /// Everything up to this count of queued bytes is durable.
    synced: AtomicU64,
    /// Held by the one who syncs; taken before `written`.
    syncing: Mutex<()>,
    /// Count of queued bytes at which the log was last emptied.
    emptied_at: AtomicU64,
    retired: Mutex<Vec<PathBuf>>,
    failed: AtomicBool,
    /// Whether what is queued found no room on the disk.
    no_room: AtomicBool,
}

/// Frames to be written, and the turn of the log they will stand in.
struct Queue {
    frames: Vec<u8>,
    turn: Turn,
}

struct Written {
    file: std::sync::Arc<File>,
    /// Where the next frame goes.
    len: u64,
    /// Where the file ends.
    file_len: u64,
    /// Everything up to this count of queued bytes is in the file.
    upto: u64,
}

impl Spool {
    /// Begins a new log with these changes, in place of any old one, durably.
    pub(crate) fn begin(dir: &Path, changes: &[Change]) -> Result<Self, FsError> {
        let turn = Turn::FIRST;
        Ok(Self {
            dir: dir.to_path_buf(),
            written: Mutex::new(write_new(dir, turn, changes)?),
            queue: Mutex::new(Queue { frames: Vec::new(), turn }),
            queued: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            syncing: Mutex::new(()),
            emptied_at: AtomicU64::new(0),
            retired: Mutex::new(Vec::new()),
            failed: AtomicBool::new(false),
            no_room: AtomicBool::new(false),
        })
    }

    /// Whether an earlier failure ended writing.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Whether changes made before wait for room on the disk: then none may be added before they are written.
    pub(crate) fn waits_for_room(&self) -> bool {
        self.no_room.load(Ordering::Acquire)
    }

    /// Puts changes in their place in the order. Called with the drive's state locked; touches no disk.
    pub(crate) fn push(&self, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        let mut queue = self.queue.lock();
        let (before, turn) = (queue.frames.len(), queue.turn);
        format::encode_frame(turn, changes, &mut queue.frames);
        self.queued.fetch_add((queue.frames.len() - before) as u64, Ordering::AcqRel);
    }

    fn check(&self) -> Result<(), FsError> {
        if self.has_failed() { Err(FsError::Poisoned) } else { Ok(()) }
    }

    /// Hands what was pushed to the operating system.
    pub(crate) fn write_out(&self) -> Result<(), FsError> {
        self.check()?;
        let target = self.queued.load(Ordering::Acquire);
        let mut written = self.written.lock();
        if written.upto >= target {
            return Ok(());
        }
        self.drain(&mut written)
    }

    fn drain(&self, written: &mut Written) -> Result<(), FsError> {
        let (mut bytes, upto) = {
            let mut queue = self.queue.lock();
            let upto = self.queued.load(Ordering::Acquire);
            (std::mem::take(&mut queue.frames), upto)
        };
        written.grow(bytes.len() as u64);
        match written.file.write_all_at(&bytes, written.len) {
            Ok(()) => {
                written.upto = upto;
                written.len += bytes.len() as u64;
                self.no_room.store(false, Ordering::Release);
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                // What came of it in the file is behind the end of the log and is written over.
                let mut queue = self.queue.lock();
                bytes.extend_from_slice(&queue.frames);
                queue.frames = bytes;
                self.no_room.store(true, Ordering::Release);
                Err(FsError::Spool(at("write", &self.dir.join(LOG_NAME))(error)))
            }
            Err(error) => Err(self.fail("write", error)),
        }
    }

    /// Makes everything pushed before this call durable. Concurrent calls share one sync.
    pub(crate) fn sync(&self) -> Result<(), FsError> {
        self.write_out()?;
        let target = self.queued.load(Ordering::Acquire);
        let _syncing = self.syncing.lock();
        if self.synced.load(Ordering::Acquire) >= target {
            return Ok(());
        }
        self.check()?;
        let (file, upto) = {
            let written = self.written.lock();
            (written.file.clone(), written.upto)
        };
        if let Err(error) = file.sync_data() {
            return Err(self.fail("sync", error));
        }
        self.synced.fetch_max(upto, Ordering::AcqRel);
        Ok(())
    }

    /// What the kernel dropped cannot be told: nothing written to this log counts any more.
    fn fail(&self, verb: &'static str, error: std::io::Error) -> FsError {
        self.failed.store(true, Ordering::Release);
        FsError::Spool(at(verb, &self.dir.join(LOG_NAME))(error))
    }

    /// Whether a shorter log would be worth writing; `live` says whether any change still counts.
    pub(crate) fn wants_restart(&self, live: usize) -> bool {
        let len = self.written.lock().len;
        let pending = !self.retired.lock().is_empty();
        if live == 0 {
            return len > format::HEAD_LEN as u64 || pending;
        }
        len > LOG_LEN_KEPT && len / 1024 > live as u64
    }

    /// Writes the log anew with what still counts. `snapshot` locks the drive's state, calls what it is given while no
    /// other change can be pushed, and makes durable what its changes name.
    pub(crate) fn restart(
        &self,
        snapshot: impl FnOnce(&mut dyn FnMut()) -> Result<Vec<Change>, FsError>,
    ) -> Result<(), FsError> {
        self.check()?;
        let mut written = self.written.lock();
        let retired = std::mem::take(&mut *self.retired.lock());
        let (mut upto, mut turn) = (written.upto, Turn::FIRST);
        // What is queued is part of the snapshot; what comes from here on stands in the next turn.
        let mut clear = || {
            let mut queue = self.queue.lock();
            upto = self.queued.load(Ordering::Acquire);
            queue.frames.clear();
            queue.turn = queue.turn.next();
            turn = queue.turn;
        };
        // What was queued is in neither log when this fails.
        let changes =
            snapshot(&mut clear).inspect_err(|_| self.failed.store(true, Ordering::Release))?;
        written.upto = upto;
        if changes.is_empty() {
            self.empty(&mut written, turn, !retired.is_empty())?;
        } else {
            let new = write_new(&self.dir, turn, &changes).inspect_err(|_| {
                self.failed.store(true, Ordering::Release);
            })?;
            *written = Written { upto, ..new };
        }
        drop(written);
        for path in retired {
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove an overlay");
            }
        }
        Ok(())
    }

    /// Begins a new turn: no frame written before counts.
    fn empty(&self, written: &mut Written, turn: Turn, durably: bool) -> Result<(), FsError> {
        let head = format::head(turn);
        written.file.write_all_at(&head, 0).map_err(|error| self.fail("write", error))?;
        written.len = head.len() as u64;
        if written.file_len > LOG_LEN_KEPT {
            written.file.set_len(GROW_BYTES).map_err(|error| self.fail("truncate", error))?;
            written.file_len = GROW_BYTES;
        }
        // Old changes on disk would come back after a power cut, and what they say was published long ago.
        let reached_disk = self.synced.load(Ordering::Acquire)
            > self.emptied_at.swap(written.upto, Ordering::AcqRel);
        if durably || reached_disk {
            written.file.sync_data().map_err(|error| self.fail("sync", error))?;
        }
        Ok(())
    }

    /// An overlay that was made into a content: its file goes when no crash can ask for it.
    pub(crate) fn retire(&self, overlay: Overlay) {
        if overlay.is_logged() {
            self.retired.lock().push(overlay.path().to_path_buf());
        } else {
            crate::body::discard(overlay);
        }
    }
}

impl Written {
    /// Lets the file reach `more` bytes further than what is written. Without it a sync takes longer, no more.
    fn grow(&mut self, more: u64) {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let end = self.len.saturating_add(more);
        if end <= self.file_len {
            return;
        }
        let target = end.saturating_add(GROW_BYTES);
        // The frames to come are written over the first of these zeros.
        while self.file_len < target {
            let step = (target - self.file_len).min(ZEROS.len() as u64);
            let zeros = ZEROS.get(..step as usize).unwrap_or(&ZEROS);
            if let Err(error) = self.file.write_all_at(zeros, self.file_len) {
                tracing::debug!(%error, "the spool log does not grow ahead");
                return;
            }
            self.file_len += step;
        }
    }
}

/// Writes a log beside the old one, durably, and lets it take its place.
fn write_new(dir: &Path, turn: Turn, changes: &[Change]) -> Result<Written, FsError> {
    let (new, path) = (dir.join(NEW_LOG_NAME), dir.join(LOG_NAME));
    let mut bytes = format::head(turn);
    for some in changes.chunks(format::FRAME_CHANGES) {
        format::encode_frame(turn, some, &mut bytes);
    }
    let mut file = File::create(&new).map_err(at("create", &new))?;
    file.write_all(&bytes).map_err(at("write", &new))?;
    file.sync_all().map_err(at("sync", &new))?;
    let len = bytes.len() as u64;
    std::fs::rename(&new, &path).map_err(at("rename", &new))?;
    let dir_file = File::open(dir).map_err(at("open", dir))?;
    dir_file.sync_all().map_err(at("sync", dir))?;
    Ok(Written { file: std::sync::Arc::new(file), len, file_len: len, upto: 0 })
}
