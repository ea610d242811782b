//! Taking up what a crash left.
//!
//! Leaves out: reading the log ([`crate::spool::recover`]).
//!
//! Invariants:
//! - what is published already is not drafted again;
//! - a file that was open is completed to what its last fsync saw, as a draft;
//! - the old log stands until the new one, which holds all of it, is durable: a crash in between changes nothing.

use std::sync::Arc;

use journal::id::{DirId, VersionId};
use journal::name::{EntryName, Register};
use journal::op::{FileValue, Op, Timestamp, Value};
use journal::view::{ViewKind, ViewNode};
use parking_lot::Mutex;

use super::{Config, Core, State, Wake};
use crate::body::{Body, Checkpoint};
use crate::contents::Contents;
use crate::drafts::{Below, DraftValue, Key};
use crate::error::{FsError, OpenError};
use crate::file::journal_content;
use crate::handles::Handles;
use crate::spool::recover::{self, Recovered};
use crate::spool::{Change, DirtyFile, Spool, Unfinished};
use crate::traits::{Clock, Locks, Submit, Tree};

/// Numbers of files that could not be completed at a start begin here, above those of all inodes.
const LEFT_FIRST: u64 = u64::MAX - (1 << 32);
/// How a notice about such a file begins.
const LEFT: &str = "this file was open when the daemon was killed, and cannot be completed:";

/// What the file system is put on.
type Around = (Arc<dyn Tree>, Arc<dyn Submit>, Arc<dyn Clock>, Arc<dyn Locks>);

/// Puts the file system together with what was recovered.
pub(super) fn recovered(
    config: Config,
    (tree, submit, clock, locks): Around,
    contents: Contents,
    mut state: State,
    recovered: Recovered,
) -> Result<Core, OpenError> {
    let now_ms = clock.monotonic_ms();
    for (key, draft) in recovered.drafts {
        let shown = tree.lookup(key.dir(), &draft.name)?;
        note_overtaken(&mut state, key.dir(), &draft.name, &draft.bases, shown.as_ref());
        if !is_published(&draft.value, draft.live_below, shown.as_ref()) {
            state.drafts.restore(now_ms, key, draft);
        }
    }
    for (dir, attr) in recovered.attrs {
        let published = tree.dir(dir)?.is_some_and(|node| node.attr == attr);
        if !published {
            state.drafts.set_dir_attr(now_ms, dir, attr);
        }
    }
    let mut left = Vec::new();
    for unfinished in recovered.dirty {
        let file = unfinished.file.clone();
        match complete(&config, &contents, &unfinished) {
            Ok(value) => {
                let below = based_on_now(&config, tree.as_ref(), &file)?;
                if let Some((dir, name)) = &file.place {
                    let shown = tree.lookup(*dir, name)?;
                    note_overtaken(&mut state, *dir, name, &below.bases, shown.as_ref());
                }
                draft_completed(&mut state, now_ms, DirtyFile { below, ..file }, value);
            }
            Err(error) => {
                let file = DirtyFile { file: LEFT_FIRST + left.len() as u64, ..file };
                let file = Unfinished { file, inline: unfinished.inline };
                // Kept as it is, log and overlay, for another start: a full disk or an absent chunk may pass.
                tracing::error!(%error, "a file that was open at the crash cannot be completed");
                left.push(file);
            }
        }
    }
    // The contents just made must not be lost while the log already says they are there.
    contents.store.sync().map_err(OpenError::Write)?;
    state.drafts.take_touched();
    let mut drafts: Vec<_> = state.drafts.iter().collect();
    drafts.sort_by_key(|(_, draft)| draft.seq);
    let mut changes: Vec<Change> =
        drafts.into_iter().map(|(key, draft)| Change::name(key, Some(draft))).collect();
    changes.extend(
        state.drafts.dir_attrs().map(|(dir, attr)| Change::Attr { dir, attr: Some(attr.clone()) }),
    );
    changes.extend(left.iter().flat_map(Unfinished::changes));
    let spool = Spool::begin(&config.spool_dir, &changes).map_err(|error| match error {
        FsError::Spool(error) => OpenError::Io(error),
        other => OpenError::Spool(Box::new(other)),
    })?;
    let opened: Timestamp = clock.wall();
    let work = super::locking::Work::new(locks, &config.spool_dir).map_err(OpenError::Thread)?;
    let core = Core {
        config,
        tree,
        submit,
        clock,
        contents,
        handles: Handles::new(),
        spool,
        state: Mutex::new(state),
        dirty: Mutex::default(),
        sealing: Mutex::new(()),
        wake: Wake::new(),
        stale: super::remote::StaleQueue::default(),
        notices: Mutex::default(),
        stopping: false.into(),
        opened,
        left: Mutex::new(left),
        listings: super::past::Listings::default(),
        work,
    };
    if recovered.cut {
        tracing::warn!(
            "the end of the spool log names contents that are not here and was left out"
        );
    }
    for file in core.left.lock().iter() {
        core.notice(
            left_notice(&file.file),
            "what was synced is kept and completed when its other parts can be had; check the disk of the data directory",
        );
    }
    Ok(core)
}

fn left_notice(file: &DirtyFile) -> String {
    let name = file.place.as_ref().map_or("?", |(_, name)| name.as_str());
    format!("{LEFT} \"{name}\"")
}

impl Core {
    /// Tries again to complete files that were open at a crash, beside what stands at their names now. May wait for
    /// other devices. Gives how many are left.
    pub fn complete_left(&self) -> usize {
        let files = self.left.lock().clone();
        for unfinished in files {
            match self.complete_one(&unfinished) {
                Ok(()) => self.drop_notices(&left_notice(&unfinished.file)),
                Err(error) => {
                    tracing::debug!(%error, "a file that was open at a crash cannot be completed");
                }
            }
        }
        self.left.lock().len()
    }

    fn complete_one(&self, unfinished: &Unfinished) -> Result<(), FsError> {
        let value = complete(&self.config, &self.contents, unfinished)?;
        let file = &unfinished.file;
        if let Some((dir, name)) = &file.place {
            let (bases, value) = (file.below.bases.clone(), Value::File(value));
            self.seal_ops(vec![Op::Put { dir: *dir, name: name.clone(), value, bases }])?;
            self.remote_changed(&[Register::new(*dir, name.clone())]);
        }
        self.left.lock().retain(|left| left.file.file != file.file);
        self.change(|state| {
            state.also.push(Change::Clean { file: file.file });
            Ok(())
        })?;
        let overlay = file.overlay_number();
        recover::sweep(&self.config.spool_dir, overlay.as_slice().iter());
        Ok(())
    }
}

/// Whether the tree already shows what a draft would make.
fn is_published(value: &DraftValue, live_below: bool, shown: Option<&ViewNode>) -> bool {
    match (value, shown.map(|view| &view.kind)) {
        (DraftValue::File { value, .. }, Some(ViewKind::File(shown))) => value == shown,
        (DraftValue::Symlink(link), Some(ViewKind::Symlink(shown))) => link == shown,
        (DraftValue::NewDir { dir, .. }, Some(ViewKind::Dir { dir: shown, .. })) => dir == shown,
        (DraftValue::Gone { .. }, None) => live_below,
        _ => false,
    }
}

/// The value of a file as its last fsync saw it.
fn complete(
    config: &Config,
    contents: &Contents,
    unfinished: &Unfinished,
) -> Result<FileValue, FsError> {
    let file = &unfinished.file;
    let checkpoint = Checkpoint {
        base: file.base,
        base_valid: file.base_valid,
        overlay: file.overlay.clone(),
        len: file.len,
    };
    let mut body = Body::resume(contents, checkpoint, &unfinished.inline, &config.spool_dir)?;
    let (content, _overlay) = body.finish(contents)?;
    Ok(FileValue {
        content: journal_content(content),
        mode: file.attrs.mode,
        mtime: file.attrs.mtime,
        xattrs: file.attrs.xattrs.clone(),
        owner: file.attrs.owner,
    })
}

/// Others may have changed the name since: what is shown is looked at again when the change is published.
fn note_overtaken(
    state: &mut State,
    dir: DirId,
    name: &EntryName,
    bases: &[VersionId],
    shown: Option<&ViewNode>,
) {
    if shown.is_some_and(|shown| !bases.contains(&shown.version)) {
        state.overtaken.insert(Register::new(dir, name.clone()));
    }
}

/// What the completed file replaces. Between the publication of an older state of it and the note of that in the spool
/// log there is a moment: what this device published in place of what the file was based on is such a state.
fn based_on_now(config: &Config, tree: &dyn Tree, file: &DirtyFile) -> Result<Below, OpenError> {
    let mut below = file.below.clone();
    let Some((dir, name)) = &file.place else { return Ok(below) };
    // After a later start anything may have been saved in place of the same version.
    if file.file >= LEFT_FIRST {
        return Ok(below);
    }
    if let Some(shown) = tree.lookup(*dir, name)?
        && config.device == Some(shown.author)
        && matches!(shown.kind, ViewKind::File(_))
    {
        let mut replaced = tree.bases(shown.version)?;
        let mut known = below.bases.clone();
        replaced.sort_unstable();
        known.sort_unstable();
        if replaced == known {
            below.bases = shown.merged;
            below.live = true;
        }
    }
    Ok(below)
}

fn draft_completed(state: &mut State, now_ms: u64, file: DirtyFile, value: FileValue) {
    let Some((dir, name)) = file.place else { return };
    let key = Key::new(dir, &name);
    let rests_on = file.base.map(journal_content);
    let value = DraftValue::File { value, rests_on };
    let below = file.below;
    let put: Result<(), std::convert::Infallible> =
        state.drafts.put(now_ms, &key, &name, value, || Ok(below));
    match put {
        Ok(()) => {}
    }
}
