//! Drafts to the journal.
//!
//! Leaves out: which drafts may go ([`crate::drafts`]).
//!
//! Invariants: one batch is out at a time; a batch that fails changes nothing, is tried again after a bounded wait, and
//! the user is told.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use journal::id::VersionId;
use journal::name::Register;
use journal::op::Op;

use super::{Core, State};
use crate::drafts::{Batch, Below, DraftValue, Drafts, Key, Limits, Refused};
use crate::error::FsError;
use crate::file::FileNode;
use crate::inode::NodeKind;
use crate::spool::{Change, Unfinished};
use crate::traits::SealError;

/// What goes into one entry of the journal, with room for what is estimated wrongly.
const LIMITS: Limits = Limits { ops_max: 4_000, bytes_max: 192 << 10 };
/// One part of what waits.
const ONE: Limits = Limits { ops_max: 1, bytes_max: 1 };
/// First wait after a batch failed, milliseconds.
const BACKOFF_MIN_MS: u64 = 250;
/// Longest wait after a batch failed, milliseconds.
const BACKOFF_MAX_MS: u64 = 30_000;
/// Longest sleep of the publishing thread, milliseconds: then it looks for files nobody finished.
const IDLE_MS: u64 = 5_000;
/// Between two tries to complete what a crash left, milliseconds.
const LEFT_RETRY_MS: u64 = 5_000;
/// How often a thread that has nothing else to wait for looks whether it shall stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How a notice about failing batches begins.
const UNPUBLISHED: &str = "changes cannot be published";

impl Core {
    /// Publishes what is due; how many operations that were.
    pub fn seal_due(&self) -> Result<usize, SealError> {
        let _sealing = self.sealing.lock();
        let batch = {
            let mut state = self.state();
            let now = self.now_ms();
            if now < state.retry_at_ms {
                return Ok(0);
            }
            let limits = state.limits();
            let batch = state.drafts.take_due(now, limits);
            self.log_touched(&mut state);
            batch
        };
        batch.map_or(Ok(0), |batch| self.publish(batch))
    }

    /// Publishes everything there is, files that are open for writing as they are now. What can be published is, also
    /// when something else fails.
    pub fn seal_all(&self) -> Result<(), SealError> {
        let files = self.publish_open_files();
        self.seal_batches(Drafts::take_all)?;
        files?;
        match self.state().drafts.refused() {
            0 => Ok(()),
            refused => Err(SealError::Refused(format!("changes set aside: {refused}").into())),
        }
    }

    /// Publishes what waits for nothing but quiet, so that a question is answered with the last save. A file that is
    /// being written and a save that is under way stay as they are: asking makes no version of a part.
    pub fn seal_settled(&self) -> Result<(), SealError> {
        let now_ms = self.now_ms();
        self.seal_batches(|drafts, limits| drafts.take_settled(now_ms, limits))
    }

    /// Publishes what `take` gives until it gives no more.
    fn seal_batches(
        &self,
        mut take: impl FnMut(&mut Drafts, Limits) -> Option<Batch>,
    ) -> Result<(), SealError> {
        let _sealing = self.sealing.lock();
        loop {
            let batch = {
                let mut state = self.state();
                let limits = state.limits();
                let batch = take(&mut state.drafts, limits);
                self.log_touched(&mut state);
                batch
            };
            match batch.map(|batch| self.publish(batch)) {
                // Parted or set aside: the rest goes on.
                Some(Ok(_) | Err(SealError::Refused(_))) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            }
        }
    }

    /// Gives the first failure, and goes on.
    fn publish_open_files(&self) -> Result<(), SealError> {
        let dirty: Vec<Arc<FileNode>> = self.dirty.lock().values().cloned().collect();
        let mut outcome = Ok(());
        for file in dirty {
            let open = file.meta.lock().writers > 0;
            let done = if open { self.publish_open(&file) } else { self.finish(&file) };
            let done = done.map_err(|error| match error {
                FsError::Seal(error) => error,
                FsError::Full | FsError::Write(cas::WriteError::Full) => SealError::Full,
                other => SealError::Failed(Box::new(other)),
            });
            outcome = outcome.and(done);
        }
        outcome
    }

    /// Publishes the drafts of these names and all they depend on.
    pub(crate) fn seal_names(&self, keys: &[Key]) -> Result<(), FsError> {
        let batch = {
            let mut state = self.state();
            let batch = state.drafts.take_names(keys);
            self.log_touched(&mut state);
            batch
        };
        if let Some(batch) = batch {
            self.publish(batch)?;
        }
        Ok(())
    }

    /// Publishes operations that are not drafts.
    pub(crate) fn seal_ops(&self, ops: Vec<Op>) -> Result<Vec<VersionId>, FsError> {
        let _sealing = self.sealing.lock();
        Ok(self.submit(ops)?)
    }

    /// Hands operations to the journal. What the spool log says of the names must not come back after a power cut older
    /// than what is published of them, so the log is durable first. When it cannot be, the journal is the better place
    /// for the work. The caller holds `sealing`.
    pub(crate) fn submit(&self, ops: Vec<Op>) -> Result<Vec<VersionId>, SealError> {
        if self.spool.sync().is_err() {
            self.spool_failed();
        }
        self.submit.seal(ops)
    }

    /// Publishes a batch. The caller holds `sealing`.
    fn publish(&self, mut batch: Batch) -> Result<usize, SealError> {
        let ops = std::mem::take(&mut batch.ops);
        let count = ops.len();
        let outcome = self.submit(ops).and_then(|versions| {
            if versions.len() == count {
                Ok(versions)
            } else {
                let what = format!("{} versions for {count} operations", versions.len());
                Err(SealError::Failed(what.into()))
            }
        });
        match outcome {
            Ok(versions) => {
                self.published(&batch, &versions);
                Ok(count)
            }
            Err(error) => {
                self.returned(batch, &error);
                Err(error)
            }
        }
    }

    fn published(&self, batch: &Batch, versions: &[VersionId]) {
        let mut told = Vec::new();
        let looked_at_again = {
            let mut state = self.state();
            state.drafts.published(batch, versions);
            state.backoff_ms = 0;
            let mut again: Vec<Register> = Vec::new();
            let mut logged: Vec<Change> = Vec::new();
            for name in &batch.names {
                let version = name.op.and_then(|op| versions.get(op)).copied();
                told.extend(self.save_published(&mut state, name, version));
                if let Some((_, node)) = state.table.at(&name.key) {
                    logged.extend(now_based_on(&node.kind, &name.key, &name.value, version));
                }
            }
            state.also.append(&mut logged);
            if !state.overtaken.is_empty() {
                let published: HashSet<&Key> = batch.names.iter().map(|name| &name.key).collect();
                let mut rest = HashSet::new();
                for register in std::mem::take(&mut state.overtaken) {
                    if published.contains(&Key::new(register.dir, &register.name)) {
                        again.push(register);
                    } else {
                        rest.insert(register);
                    }
                }
                state.overtaken = rest;
            }
            self.log_touched(&mut state);
            again
        };
        self.drop_notices(UNPUBLISHED);
        if self.spool.write_out().is_err() {
            self.spool_failed();
        }
        self.remote_changed(&looked_at_again);
        self.work.locks.published();
        told.into_iter().for_each(|happening| self.work.locks.happened(happening));
        self.shorten_spool();
    }

    fn returned(&self, batch: Batch, error: &SealError) {
        let mut state = self.state();
        if matches!(error, SealError::Refused(_)) {
            let done = state.drafts.refuse(batch, self.now_ms());
            if let Refused::Parted(parts) = done {
                state.one_by_one = state.one_by_one.saturating_add(parts);
            }
            self.log_touched(&mut state);
            drop(state);
            tracing::error!(error = error as &dyn std::error::Error, ?done, "a batch was refused");
            if done == Refused::SetAside {
                self.notice(
                    "a change cannot be published".into(),
                    "change the file or folder again, or rename it; a copy outside the drive is safe",
                );
            }
            return;
        }
        state.backoff_ms = (state.backoff_ms * 2).clamp(BACKOFF_MIN_MS, BACKOFF_MAX_MS);
        let retry_ms = self.now_ms().saturating_add(state.backoff_ms);
        state.retry_at_ms = retry_ms;
        state.drafts.returned(batch, retry_ms);
        self.log_touched(&mut state);
        drop(state);
        tracing::warn!(%error, "a batch was not published");
        let remedy = match error {
            SealError::Full => "free some space on the disk of the data directory",
            SealError::ReadOnly { removed: false } => {
                "ask an owner of the drive for the editor role, or copy it to a place outside"
            }
            SealError::ReadOnly { removed: true } => "copy it to a place outside the drive",
            SealError::Closed | SealError::Refused(_) | SealError::Failed(_) => {
                "nothing is lost; it is tried again, see the log"
            }
        };
        self.notice(format!("{UNPUBLISHED}: {error}"), remedy);
    }

    /// Drops what the spool log need not hold any more, when that is worth it.
    fn shorten_spool(&self) {
        let live = self.state().drafts.len() + self.dirty.lock().len() + self.left.lock().len();
        if !self.spool.wants_restart(live) {
            return;
        }
        let done = self.spool.restart(|clear| {
            let changes = {
                let state = self.state();
                clear();
                self.still_counts(&state)
            };
            // What the new log names must be as durable as the log; overlays it does not name are let go of.
            if !changes.is_empty() {
                self.contents.store.sync()?;
            }
            Ok(changes)
        });
        if let Err(error) = done {
            tracing::error!(%error, "the spool log cannot be shortened");
            self.spool_failed();
        }
    }

    /// All that is not published, in the order it was done.
    fn still_counts(&self, state: &State) -> Vec<Change> {
        let finished =
            state.drafts.iter().filter(|(_, draft)| draft.value != DraftValue::Unfinished);
        let mut drafts: Vec<_> = finished.collect();
        drafts.sort_by_key(|(_, draft)| draft.seq);
        let mut changes: Vec<Change> =
            drafts.into_iter().map(|(key, draft)| Change::name(key, Some(draft))).collect();
        let attrs = state.drafts.dir_attrs();
        changes.extend(attrs.map(|(dir, attr)| Change::Attr { dir, attr: Some(attr.clone()) }));
        changes.extend(self.left.lock().iter().flat_map(Unfinished::changes));
        let dirty: Vec<Arc<FileNode>> = self.dirty.lock().values().cloned().collect();
        for file in dirty {
            changes.extend(file.meta.lock().logged.iter().flat_map(|logged| logged.changes()));
        }
        changes
    }

    /// The publishing thread.
    pub(crate) fn seal_loop(&self) {
        let mut last_look_ms = self.now_ms();
        while !self.stopping.load(Ordering::Acquire) {
            let due_ms = {
                let state = self.state();
                let due = state.drafts.next_due_ms().map(|due| due.max(state.retry_at_ms));
                self.wake.until_ms.store(due.unwrap_or(u64::MAX), Ordering::Release);
                due
            };
            let now = self.now_ms();
            let sleep_ms = due_ms.map_or(IDLE_MS, |due| due.saturating_sub(now).min(IDLE_MS));
            if sleep_ms > 0 {
                self.nap(sleep_ms);
            } else {
                // Its failure is told by a notice and tried again.
                let _ = self.seal_due();
                // What comes within a quiet time goes together, so a stream of files is not an entry each.
                self.nap_at_least(self.config.quiet_ms);
            }
            if self.now_ms().saturating_sub(last_look_ms) >= IDLE_MS {
                last_look_ms = self.now_ms();
                self.finish_abandoned();
            }
        }
    }

    /// The thread that completes what a crash left, until nothing is left.
    pub(crate) fn left_loop(&self) {
        let mut rest_ms = 0;
        while !self.stopping.load(Ordering::Acquire) {
            std::thread::sleep(LOOK_EVERY);
            rest_ms += LOOK_EVERY.as_millis() as u64;
            if rest_ms >= LEFT_RETRY_MS {
                rest_ms = 0;
                if self.complete_left() == 0 {
                    return;
                }
            }
        }
    }

    fn nap(&self, ms: u64) {
        let mut rung = self.wake.rung.lock();
        if !*rung {
            self.wake.bell.wait_for(&mut rung, Duration::from_millis(ms));
        }
        *rung = false;
    }

    /// Sleeps although the bell may ring, but for the end.
    fn nap_at_least(&self, ms: u64) {
        let mut rung = self.wake.rung.lock();
        self.wake.until_ms.store(0, Ordering::Release);
        if !self.stopping.load(Ordering::Acquire) {
            self.wake.bell.wait_for(&mut rung, Duration::from_millis(ms));
        }
    }

    /// Files nobody has open whose finishing failed, on a full disk for instance.
    fn finish_abandoned(&self) {
        let files: Vec<Arc<FileNode>> = self.dirty.lock().values().cloned().collect();
        for file in files {
            let abandoned = {
                let meta = file.meta.lock();
                meta.dirty && meta.opens == 0
            };
            if !abandoned {
                continue;
            }
            let done = self.finish(&file);
            self.state().table.drop_unused(file.ino);
            if let Err(error) = done {
                tracing::warn!(%error, "a closed file still cannot be finished");
                self.notice(
                    "a closed file could not be completed and is kept in the spool".into(),
                    "check the free space of the disk of the data directory",
                );
            }
        }
    }
}

impl State {
    /// How much the next batch may hold.
    fn limits(&mut self) -> Limits {
        if self.one_by_one == 0 {
            return LIMITS;
        }
        self.one_by_one -= 1;
        ONE
    }
}

/// A node's next change replaces the version just made. Gives what the spool log has to learn of it.
fn now_based_on(
    kind: &NodeKind,
    key: &Key,
    value: &DraftValue,
    version: Option<VersionId>,
) -> Option<Change> {
    let bases: Vec<VersionId> = version.into_iter().collect();
    let live = !matches!(value, DraftValue::Gone { .. });
    match (kind, value) {
        (NodeKind::File(file), DraftValue::File { value, .. }) => {
            let mut meta = file.meta.lock();
            if meta.place.as_ref().is_some_and(|place| place.key == *key) {
                let name = meta.below.name.clone();
                meta.below = Below { name, bases, live, resolves: None };
                meta.rests_on = Some(value.content);
                let below = meta.below.clone();
                let logged = meta.logged.as_mut()?;
                logged.file.below = below;
                return Some(Change::Dirty(logged.file.clone()));
            }
        }
        (NodeKind::Symlink(link), DraftValue::Symlink(_)) => {
            let mut below = link.below.lock();
            *below = Below { name: below.name.clone(), bases, live, resolves: None };
        }
        _ => {}
    }
    None
}
