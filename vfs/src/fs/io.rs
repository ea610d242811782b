//! Open files: reading, writing, finishing, syncing.
//!
//! Leaves out: names and attributes.
//!
//! Invariants:
//! - a flush or release that answers well has the whole file in the drafts, and the drafts in the spool log;
//! - an fsync that answers well has them there durably, and publishes nothing by itself;
//! - what was removed while open is never published.

use std::sync::Arc;
use std::time::Duration;

use cas::Content;
use journal::op::Op;
use parking_lot::MutexGuard;
use rustix::fs::OFlags;

use super::{Core, State, Wait};
use crate::body::{Body, FILE_LEN_MAX};
use crate::drafts::{Below, DraftValue};
use crate::error::FsError;
use crate::file::{FileNode, Meta, journal_content};
use crate::handles::Ahead;
use crate::overlay::Log;
use crate::spool::{Change, DirtyFile, FileAttrs, Unfinished};
use crate::traits::Happening;

/// How long an operation that may not wait tries to get at a file somebody else works on.
const BUSY_WAIT: Duration = Duration::from_micros(200);
/// A file up to this length is finished where the call came in, bytes.
const QUICK_FINISH_LEN: u64 = 1 << 20;
/// With more ranges than this an fsync makes a content of what is there, so that log and overlay stay small.
const SYNC_RANGES_MAX: usize = 512;
/// How far a file read in order is fetched from other devices ahead of the reader, bytes.
const AHEAD_PEERS_BYTES: u64 = 16 << 20;
/// How far a file read in order is read from the disk and verified ahead of the reader, bytes: enough to keep disk and
/// processors busy at once, little of the chunk cache.
const AHEAD_DISK_BYTES: u64 = 4 << 20;
/// Reads in order after which a file counts as read in order.
const AHEAD_RUN_MIN: u32 = 2;
/// The kernel asks for several parts at once, and they come in any order: this far off still counts, bytes.
const AHEAD_SLACK: u64 = 512 << 10;
/// Piece in which it is fetched, bytes.
const AHEAD_PIECE: u64 = 1 << 20;

/// Where what is read comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Near {
    /// This device.
    Disk,
    /// Other devices.
    Peers,
}

impl Core {
    /// Changes the length. What the spool log knows of the file's overlay must not be cut off under it: it becomes a
    /// content first.
    pub(super) fn cut(
        &self,
        file: &Arc<FileNode>,
        body: &mut Body,
        len: u64,
    ) -> Result<(), FsError> {
        let logged = file.meta.lock().logged.is_some();
        if logged && len < body.len() && matches!(body, Body::Patched(_)) {
            let (_, overlay) = body.finish(&self.contents)?;
            self.checkpoint(file, body)?;
            if let Some(overlay) = overlay {
                self.spool.retire(overlay);
            }
        }
        body.truncate(&self.contents, len)
    }

    /// Bytes of the file have changed; its length is `len` now.
    pub(crate) fn dirtied(&self, file: &Arc<FileNode>, meta: &mut Meta, len: u64) {
        let now = self.clock.wall();
        (meta.len, meta.mtime, meta.ctime) = (len, now, now);
        meta.changes += 1;
        if !meta.dirty {
            meta.dirty = true;
            // It is kept open, half-written perhaps, from now on and not since its last save.
            meta.published_ms = self.now_ms();
            self.dirty.lock().insert(file.ino, file.clone());
        }
    }

    fn lock_body<'a>(
        &self,
        file: &'a FileNode,
        wait: Wait,
    ) -> Result<MutexGuard<'a, Body>, FsError> {
        match wait {
            Wait::Allowed => Ok(file.body.lock()),
            Wait::Never => file.body.try_lock_for(BUSY_WAIT).ok_or(FsError::WouldWait),
        }
    }

    /// Reads; fewer bytes than asked for only at the end.
    pub fn read(
        &self,
        handle: u64,
        offset: u64,
        size: usize,
        wait: Wait,
    ) -> Result<Vec<u8>, FsError> {
        let handle = self.handles.file(handle)?;
        if !handle.reads && !handle.writes {
            return Err(FsError::BadHandle);
        }
        let mut body = self.lock_body(&handle.node, wait)?;
        let left = usize::try_from(body.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut buf = vec![0; size.min(left)];
        let read = match body.pin(&self.contents)? {
            Some(pinned) => {
                drop(body);
                pinned.read_at(wait, offset, &mut buf)?
            }
            None => body.read_at(wait, offset, &mut buf)?,
        };
        buf.truncate(read);
        self.has_read(&handle, read as u64);
        handle.ahead.lock().note(offset, read as u64);
        Ok(buf)
    }

    /// After a read that was answered from `near`: what to bring next, if the file is read in order. The caller runs
    /// [`Core::read_ahead`] for it elsewhere.
    pub fn plan_ahead(
        &self,
        handle: u64,
        offset: u64,
        read: usize,
        near: Near,
    ) -> Option<(u64, u64)> {
        let handle = self.handles.file(handle).ok()?;
        let mut ahead = handle.ahead.lock();
        let end = offset.saturating_add(read as u64);
        let distance = match near {
            Near::Disk => AHEAD_DISK_BYTES,
            Near::Peers => AHEAD_PEERS_BYTES,
        };
        if ahead.run < AHEAD_RUN_MIN || ahead.asked_to >= end.saturating_add(distance / 2) {
            return None;
        }
        let len = handle.node.meta.lock().len;
        let from = ahead.asked_to.max(end);
        let to = from.saturating_add(AHEAD_PIECE).min(len);
        if from >= to {
            return None;
        }
        ahead.asked_to = to;
        Some((from, to))
    }

    /// Brings a part of a file into the cache of chunks.
    pub fn read_ahead(&self, handle: u64, from: u64, to: u64, wait: Wait) -> Result<(), FsError> {
        let handle = self.handles.file(handle)?;
        let pinned = handle.node.body.lock().pin(&self.contents)?;
        let Some(pinned) = pinned else { return Ok(()) };
        pinned.warm(wait, from, to.min(from.saturating_add(AHEAD_PIECE)))
    }

    /// Writes.
    pub fn write(
        &self,
        handle: u64,
        offset: u64,
        data: &[u8],
        wait: Wait,
    ) -> Result<usize, FsError> {
        let handle = self.handles.file(handle)?;
        // The kernel writes mapped pages back through any handle of the file, so the mode was checked there.
        if self.spool.has_failed() {
            return Err(FsError::Poisoned);
        }
        let file = &handle.node;
        let mut body = self.lock_body(file, wait)?;
        body.write_at(&self.contents, offset, data)?;
        let len = body.len();
        let mut meta = file.meta.lock();
        meta.cached_bytes = meta.cached_bytes.saturating_add(data.len() as u64);
        self.dirtied(file, &mut meta, len);
        Ok(data.len())
    }

    /// Cuts or extends an open file, or any known one.
    pub(crate) fn set_len(&self, file: &Arc<FileNode>, len: u64) -> Result<(), FsError> {
        if self.spool.has_failed() {
            return Err(FsError::Poisoned);
        }
        {
            let mut body = file.body.lock();
            self.cut(file, &mut body, len)?;
            let mut meta = file.meta.lock();
            self.dirtied(file, &mut meta, len);
            if meta.writers > 0 {
                return Ok(());
            }
        }
        // Nobody has it open for writing, so nobody will flush it.
        self.finish(file)
    }

    /// Reserves, zeroes or punches.
    pub fn fallocate(&self, handle: u64, mode: u32, offset: u64, len: u64) -> Result<(), FsError> {
        use rustix::fs::FallocateFlags as Flags;
        let handle = self.handles.file(handle)?;
        let end = offset
            .checked_add(len)
            .filter(|end| *end <= FILE_LEN_MAX)
            .ok_or(FsError::FileTooBig)?;
        let flags = Flags::from_bits_retain(mode);
        let keeps_len = flags.contains(Flags::KEEP_SIZE);
        let known = Flags::KEEP_SIZE | Flags::PUNCH_HOLE | Flags::ZERO_RANGE;
        if len == 0 || !handle.writes {
            return Err(if len == 0 { FsError::Invalid } else { FsError::BadHandle });
        }
        if !known.contains(flags) || (flags.contains(Flags::PUNCH_HOLE) && !keeps_len) {
            return Err(FsError::NotSupported);
        }
        let file = &handle.node;
        let mut body = file.body.lock();
        if flags.intersects(Flags::PUNCH_HOLE | Flags::ZERO_RANGE) {
            body.zero(&self.contents, offset..end)?;
        } else {
            self.contents.make_room(len)?;
        }
        if !keeps_len && end > body.len() {
            body.truncate(&self.contents, end)?;
        }
        if flags != Flags::KEEP_SIZE {
            let len = body.len();
            self.dirtied(file, &mut file.meta.lock(), len);
        }
        Ok(())
    }

    /// The next data or hole.
    pub fn lseek(&self, handle: u64, offset: u64, data: bool) -> Result<u64, FsError> {
        let handle = self.handles.file(handle)?;
        handle.node.body.lock().seek(&self.contents, offset, data)
    }

    /// Whether [`Core::flush`] and [`Core::release`] will be quick, so that they need no other thread.
    pub fn finishes_quickly(&self, handle: u64) -> bool {
        let Ok(handle) = self.handles.file(handle) else { return true };
        if !handle.node.meta.lock().dirty {
            return true;
        }
        match handle.node.body.try_lock() {
            Some(body) => match &*body {
                Body::Sealed { .. } | Body::Text(_) => true,
                Body::Stream(_) => body.len() <= QUICK_FINISH_LEN,
                Body::Patched(_) => false,
            },
            None => false,
        }
    }

    /// A descriptor was closed: if anything was written, it is a whole file now.
    pub fn flush(&self, handle: u64) -> Result<(), FsError> {
        let handle = self.handles.file(handle)?;
        if handle.writes { self.finish(&handle.node) } else { Ok(()) }
    }

    /// The last descriptor was closed and no mapping is left.
    pub fn release(&self, handle: u64) -> Result<(), FsError> {
        let Some(handle) = self.handles.remove_file(handle) else { return Err(FsError::BadHandle) };
        let file = &handle.node;
        if !handle.writes {
            self.closed_to_read(&handle);
        }
        let last = {
            let mut meta = file.meta.lock();
            meta.writers = meta.writers.saturating_sub(u32::from(handle.writes));
            meta.writers == 0
        };
        if handle.writes && !self.work.locks.alone() {
            self.work.wake();
        }
        let result = if last { self.finish(file) } else { Ok(()) };
        let orphan = {
            let mut state = self.state();
            let orphan = {
                let mut meta = file.meta.lock();
                meta.opens = meta.opens.saturating_sub(1);
                meta.opens == 0 && meta.place.is_none()
            };
            state.table.drop_unused(file.ino);
            orphan
        };
        if orphan {
            self.bury(file);
        } else if file.meta.lock().opens == 0 {
            file.body.lock().unpin();
        }
        result
    }

    /// Nobody can reach the file any more: what it left in the spool goes.
    fn bury(&self, file: &Arc<FileNode>) {
        self.dirty.lock().remove(&file.ino);
        let logged = file.meta.lock().logged.take().is_some();
        let empty = Body::stream(&self.contents);
        let body = std::mem::replace(&mut *file.body.lock(), empty);
        if logged {
            self.spool.push(&[Change::Clean { file: file.ino }]);
        }
        if let Some(overlay) = body.into_overlay() {
            self.spool.retire(overlay);
        }
    }

    /// Makes a content of what was written and puts it into the drafts.
    pub(crate) fn finish(&self, file: &Arc<FileNode>) -> Result<(), FsError> {
        let mut body = file.body.lock();
        {
            let meta = file.meta.lock();
            if !meta.dirty || meta.place.is_none() {
                return Ok(());
            }
        }
        let (content, overlay) = body.finish(&self.contents)?;
        let changed = self.change(|state| {
            let mut meta = file.meta.lock();
            let beside = self.put_draft(state, file.ino, &mut meta, content)?;
            if beside.is_none() {
                self.finished(state, file, &mut meta);
            }
            Ok(beside)
        });
        // No draft holds what is published beside another file: until it is, the spool log does.
        let kept = match &changed {
            Ok(Some(_)) => self.checkpoint(file, &mut body).and_then(|()| self.spool.write_out()),
            _ => Ok(()),
        };
        // Not before the change: until then the log may be written anew and name the overlay again.
        if let Some(overlay) = overlay
            && ((changed.is_ok() && kept.is_ok()) || !overlay.is_logged())
        {
            self.spool.retire(overlay);
        }
        kept?;
        let Some(op) = changed? else { return Ok(()) };
        self.publish_beside(file, op)?;
        self.change(|state| {
            self.finished(state, file, &mut file.meta.lock());
            Ok(())
        })
    }

    /// Every byte of the file is in the drafts or published.
    fn finished(&self, state: &mut State, file: &FileNode, meta: &mut Meta) {
        meta.dirty = false;
        self.dirty.lock().remove(&file.ino);
        if meta.logged.take().is_some() {
            state.also.push(Change::Clean { file: file.ino });
        }
    }

    /// Puts a file with this content into the drafts. When another file has its name by now, the operation that
    /// publishes it beside that one is given back instead.
    pub(crate) fn put_draft(
        &self,
        state: &mut State,
        ino: u64,
        meta: &mut Meta,
        content: Content,
    ) -> Result<Option<Op>, FsError> {
        let Some(place) = meta.place.clone() else { return Ok(None) };
        let content = journal_content(content);
        let value = meta.value(content);
        meta.finished = Some(content);
        meta.attr_dirty = false;
        meta.published_ms = self.now_ms();
        let mine = match state.table.at(&place.key) {
            Some((at, _)) => at == ino,
            None => state.drafts.get(&place.key).is_none(),
        };
        if !mine {
            let (dir, name, bases) = (place.key.dir(), place.name, meta.below.bases.clone());
            return Ok(Some(Op::Put { dir, name, value: journal::op::Value::File(value), bases }));
        }
        state.table.attach(ino, place.key.clone());
        let value = DraftValue::File { value, rests_on: meta.rests_on };
        let below = match state.drafts.get(&place.key) {
            Some(_) => Below::default(),
            // Attributes are merged into whatever bytes others make official.
            None if meta.rests_on == Some(content) => meta.below.clone(),
            None => self.replaced_in_place(state, &place.key, meta.below.clone())?,
        };
        if let Some(saver) = meta.saver {
            state.savers.insert(place.key.clone(), saver);
        }
        state
            .drafts
            .put(self.now_ms(), &place.key, &place.name, value, || Ok::<_, FsError>(below))?;
        Ok(None)
    }

    /// Publishes a file whose name stands for another one now; its versions become those of a conflict copy. When that
    /// fails the file is as it was, and the publishing thread tries again.
    pub(crate) fn publish_beside(&self, file: &Arc<FileNode>, op: Op) -> Result<(), FsError> {
        let versions = self.seal_ops(vec![op])?;
        let saved = versions.first().copied();
        let mut state = self.state();
        let mut meta = file.meta.lock();
        let register =
            meta.place.as_ref().and_then(|place| super::locking::register_of(&place.key));
        meta.below.bases = versions;
        let below = meta.below.clone();
        if let Some(logged) = &mut meta.logged {
            logged.file.below = below;
            state.also.push(Change::Dirty(logged.file.clone()));
        }
        drop(meta);
        self.log_touched(&mut state);
        drop(state);
        if let (Some(register), Some(version)) = (register, saved) {
            self.work.locks.happened(Happening::StaleSave(register, version));
        }
        Ok(())
    }

    /// Puts what an open file holds now into the drafts, while writing goes on.
    pub(crate) fn publish_open(&self, file: &Arc<FileNode>) -> Result<(), FsError> {
        let mut body = file.body.lock();
        self.publish_snapshot(file, &mut body)
    }

    fn publish_snapshot(&self, file: &Arc<FileNode>, body: &mut Body) -> Result<(), FsError> {
        // Closed since the caller looked. Its name may be another file's by now, even one of the same number.
        if !file.meta.lock().dirty {
            return Ok(());
        }
        let content = body.snapshot(&self.contents)?;
        let beside = self.change(|state| {
            let mut meta = file.meta.lock();
            let beside = self.put_draft(state, file.ino, &mut meta, content)?;
            // The draft holds all that the log says of the open file, and perhaps more.
            if beside.is_none() && meta.logged.take().is_some() {
                state.also.push(Change::Clean { file: file.ino });
            }
            Ok(beside)
        })?;
        beside.map_or(Ok(()), |op| self.publish_beside(file, op))
    }

    /// Makes an open file durable as it is, and everything done to names before.
    pub fn fsync(&self, handle: u64) -> Result<(), FsError> {
        let handle = self.handles.file(handle)?;
        let file = &handle.node;
        {
            let mut body = file.body.lock();
            let (unfinished, publish) = {
                let meta = file.meta.lock();
                let age_ms = self.now_ms().saturating_sub(meta.published_ms);
                (meta.dirty && meta.place.is_some(), age_ms >= self.config.open_publish_ms)
            };
            if unfinished {
                if publish {
                    self.publish_snapshot(file, &mut body)?;
                }
                self.checkpoint(file, &mut body)?;
                // What others closed meanwhile stands before it in the log, and must be whole for it to count.
                self.contents.store.sync()?;
                return self.sync_spool();
            }
        }
        self.contents.store.sync()?;
        self.sync_spool()
    }

    /// Describes an unfinished file in the spool log; durable with the next sync of the log.
    fn checkpoint(&self, file: &Arc<FileNode>, body: &mut Body) -> Result<(), FsError> {
        let replaced = match body.ranges() {
            0..=SYNC_RANGES_MAX => None,
            _ => body.finish(&self.contents)?.1,
        };
        let log = if file.meta.lock().logged.is_some() { Log::Holds } else { Log::Forgot };
        let (checkpoint, saved) = body.checkpoint(&self.contents, log)?;
        self.contents.store.sync()?;
        let mut state = self.state();
        let mut meta = file.meta.lock();
        let dirty = DirtyFile {
            file: file.ino,
            place: meta.place.as_ref().map(|place| (place.key.dir(), place.name.clone())),
            base: checkpoint.base,
            base_valid: checkpoint.base_valid,
            overlay: checkpoint.overlay,
            len: checkpoint.len,
            attrs: FileAttrs {
                mode: meta.mode,
                mtime: meta.mtime,
                xattrs: (*meta.xattrs).clone(),
                owner: meta.owner,
            },
            below: meta.below.clone(),
        };
        let known = meta.logged.take().map(|known| *known);
        let mut logged = Unfinished::after(known, dirty.clone());
        state.also.push(Change::Dirty(dirty));
        state.also.push(logged.save(saved));
        meta.logged = Some(Box::new(logged));
        drop(meta);
        self.log_touched(&mut state);
        drop(state);
        if let Some(overlay) = replaced {
            self.spool.retire(overlay);
        }
        Ok(())
    }

    fn sync_spool(&self) -> Result<(), FsError> {
        self.spool.sync().inspect_err(|_| self.spool_failed())
    }

    /// Makes every change of names and every closed file durable.
    pub fn fsyncdir(&self) -> Result<(), FsError> {
        self.contents.store.sync()?;
        self.sync_spool()
    }
}

impl Ahead {
    fn note(&mut self, offset: u64, read: u64) {
        let end = offset.saturating_add(read);
        if offset.abs_diff(self.next) <= AHEAD_SLACK {
            self.run = self.run.saturating_add(1);
            self.next = self.next.max(end);
        } else {
            *self = Self { next: end, asked_to: 0, run: 0 };
        }
    }
}

/// Whether open flags ask for an empty file.
pub(super) fn truncates(flags: i32) -> bool {
    OFlags::from_bits_retain(flags as u32).contains(OFlags::TRUNC)
}

/// Whether open flags let what is written follow what is there.
pub(super) fn appends(flags: i32) -> bool {
    OFlags::from_bits_retain(flags as u32).contains(OFlags::APPEND)
}

/// Whether open flags allow reading and writing.
pub(crate) fn access_of(flags: i32) -> (bool, bool) {
    match OFlags::from_bits_retain(flags as u32) & OFlags::RWMODE {
        OFlags::WRONLY => (false, true),
        OFlags::RDWR => (true, true),
        _ => (true, false),
    }
}
