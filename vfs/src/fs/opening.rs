//! Opening files: whether it is allowed, what happens to their bytes at once, what they are based on then.
//!
//! Leaves out: reading and writing ([`super::io`]), whom others' locks refuse ([`super::locking`]).
//!
//! Invariants: a file is not forgotten between the look at it and its being open; what another process saved and nobody
//! published is published before it is replaced.

use std::sync::Arc;

use super::io::{access_of, appends, truncates};
use super::locking::Intent;
use super::{Core, Wait};
use crate::attr::Caller;
use crate::drafts::Key;
use crate::error::FsError;
use crate::file::FileNode;
use crate::handles::{Ahead, FileHandle, Loading};
use crate::inode::NodeKind;
use crate::process::Process;
use crate::traits::{Scope, SealError};

/// A file was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The handle's number.
    pub handle: u64,
    /// Whether what the kernel has of the file may answer for it. Else it must ask, so that it is seen what is read.
    pub keep_cache: bool,
}

impl Core {
    /// Opens a file.
    ///
    /// With [`Wait::Never`] it is [`FsError::WouldWait`], and nothing done, when others have to be asked first.
    pub fn open(
        &self,
        caller: Caller,
        ino: u64,
        flags: i32,
        wait: Wait,
    ) -> Result<Opened, FsError> {
        if let Some(past) = self.past(ino) {
            return self.open_past(caller, &past, flags);
        }
        if access_of(flags).1 || truncates(flags) {
            self.check_role()?;
        }
        let file = {
            let state = self.state();
            match state.table.get(ino).map(|node| &node.kind) {
                Some(NodeKind::File(file)) => {
                    let mut meta = file.meta.lock();
                    let (reads, writes) = access_of(flags);
                    let changes = writes || truncates(flags);
                    let want = if reads { 4 } else { 0 } | if changes { 2 } else { 0 };
                    self.may(caller, meta.mode, want)?;
                    // Held from here on, so that it is not forgotten before it is open.
                    meta.opens += 1;
                    file.clone()
                }
                Some(NodeKind::Dir(_)) => return Err(FsError::IsDir),
                Some(NodeKind::Symlink(_) | NodeKind::Past(_)) => return Err(FsError::Invalid),
                None => return Err(FsError::Stale),
            }
        };
        let opened = self.claim_to_open(caller, &file, flags, wait).and_then(|lock| {
            let shown = lock.as_ref().map_or(Ok(()), |_| self.still_shown(&file));
            let opened = shown.and_then(|()| self.open_node(caller, &file, flags));
            self.claimed(lock.as_ref());
            opened
        });
        file.meta.lock().opens -= 1;
        opened
    }

    fn claim_to_open(
        &self,
        caller: Caller,
        file: &FileNode,
        flags: i32,
        wait: Wait,
    ) -> Result<Option<Scope>, FsError> {
        if access_of(flags).1 || truncates(flags) {
            self.claim_file(caller, file, wait)
        } else {
            Ok(None)
        }
    }

    /// A file that has a name is about to be written.
    pub(crate) fn claim_file(
        &self,
        caller: Caller,
        file: &FileNode,
        wait: Wait,
    ) -> Result<Option<Scope>, FsError> {
        let key = file.meta.lock().place.as_ref().map(|place| place.key.clone());
        key.map_or(Ok(None), |key| self.claim(caller, &key, Intent::Write, wait))
    }

    pub(crate) fn open_node(
        &self,
        caller: Caller,
        file: &Arc<FileNode>,
        flags: i32,
    ) -> Result<Opened, FsError> {
        let (reads, writes) = access_of(flags);
        let by = self.work.process(caller);
        if writes && self.spool.has_failed() {
            return Err(FsError::Poisoned);
        }
        if writes && !truncates(flags) && !appends(flags) && self.waits(caller, file) {
            // It may write over what another process has just saved.
            self.keep_save_of_another(caller, file)?;
        }
        if truncates(flags) {
            self.keep_save_of_another(caller, file)?;
            // What is only read is not flushed, so it is finished at once.
            if writes {
                self.replace_whole(file, by)?
            } else {
                self.based_on_loaded(file, by)?;
                self.set_len(file, 0)?
            }
            if caller.uid != 0 {
                self.drop_set_id_of(file)?;
            }
        }
        let doubts = reads && self.opened_to_read(by, file);
        let handle = FileHandle {
            node: file.clone(),
            reads,
            writes,
            by,
            loading: Loading { doubts, ..Loading::default() },
            ahead: parking_lot::Mutex::new(Ahead::default()),
        };
        let handle = self.handles.add_file(handle)?;
        // Its bytes stay, whatever becomes of the version. Who holds the lock makes others, which stay too.
        if let Some(mut body) = file.body.try_lock() {
            body.pin(&self.contents)?;
        }
        let mut meta = file.meta.lock();
        meta.opens += 1;
        if writes {
            meta.writers += 1;
            meta.writer_tid = caller.tid;
            meta.saver = by;
        }
        Ok(Opened { handle, keep_cache: !doubts })
    }

    /// The caller is about to replace this file whole: what another process saved as it becomes a version first, and so
    /// do attributes, which are based on what stands there and not on what the caller has seen. Within one process
    /// only the net effect counts, as it does in every save.
    pub(crate) fn keep_save_of_another(
        &self,
        caller: Caller,
        file: &FileNode,
    ) -> Result<(), FsError> {
        let Some(key) = self.save_of_another(caller, file) else { return Ok(()) };
        let _sealing = self.sealing.lock();
        {
            let drafts = &self.state().drafts;
            if !drafts.is_whole_save(&key) && !drafts.is_of_attributes(&key) {
                return Ok(());
            }
        }
        match self.seal_names(&[key]) {
            // Set aside, and told by a notice; it would stand in the way for ever.
            Err(FsError::Seal(SealError::Refused(_))) => Ok(()),
            other => other,
        }
    }

    /// The name of a finished save that waits to be published or is on its way, when another process than the caller's
    /// made it.
    pub(crate) fn save_of_another(&self, caller: Caller, file: &FileNode) -> Option<Key> {
        let (key, writer_tid) = {
            let meta = file.meta.lock();
            (meta.place.as_ref()?.key.clone(), meta.writer_tid)
        };
        let drafts = &self.state().drafts;
        let whole = drafts.is_whole_save(&key) || drafts.is_on_its_way(&key);
        let waits = whole && caller.is_other_process(writer_tid);
        (waits || drafts.is_of_attributes(&key)).then_some(key)
    }

    /// Whether a save of another process waits to be published, which only a change of its bytes needs to wait for.
    pub(crate) fn waits(&self, caller: Caller, file: &FileNode) -> bool {
        let save = self.save_of_another(caller, file);
        save.is_some_and(|key| !self.state().drafts.is_of_attributes(&key))
    }

    /// The caller is about to write the file anew. What it replaces is what it has loaded, else what this inode stands
    /// for, not what others may have put under the name meanwhile.
    pub(crate) fn replace_whole(
        &self,
        file: &Arc<FileNode>,
        by: Option<Process>,
    ) -> Result<(), FsError> {
        let mut body = file.body.lock();
        self.cut(file, &mut body, 0)?;
        self.based_on_loaded(file, by)?;
        self.dirtied(file, &mut file.meta.lock(), 0);
        Ok(())
    }

    /// A change of the whole file is based on what its process has loaded.
    pub(crate) fn based_on_loaded(
        &self,
        file: &FileNode,
        by: Option<Process>,
    ) -> Result<(), FsError> {
        let mut state = self.state();
        let mut meta = file.meta.lock();
        let Some(key) = meta.place.as_ref().map(|place| place.key.clone()) else { return Ok(()) };
        let ours = state.drafts.get(&key).is_some() || meta.dirty;
        if !ours {
            meta.below = self.replaced_whole(&mut state, by, &key, meta.below.clone())?;
        }
        Ok(())
    }
}
