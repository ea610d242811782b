//! What this device still lacks: contents named by entries whose chunks are not here yet.
//!
//! Leaves out how chunks travel ([`net`]) and how they are stored ([`cas`]).
//!
//! Invariants:
//! - a content that a version must keep is pending from before the entry that names it is shown until every chunk is
//!   here, or until the policy has let go of all versions that name it and nobody who is connected has it;
//! - `held` never names an entry one of whose contents must be here and is missing or not durable; where damage is found or
//!   the last stop was not in order, nothing is held until every content has been looked at again;
//! - a read that waits for a peer ends within [`FETCH_WAIT`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use cas::store::Store;
use cas::{ChunkId, ChunkSource, Content, ContentId, ReadError, Unavailable};
use journal::op::{Op, Value};
use journal::{Arrivals, EntryId, Frontier, Opened, Register, Retention, StateError, VersionId};
use parking_lot::Mutex;

use super::Drive;
use crate::launch::Keep;

/// The longest a read waits for a chunk from a peer before it fails with EIO.
pub const FETCH_WAIT: Duration = Duration::from_secs(20);

/// Contents looked at per step of the walk after a start that cannot trust what was held.
const WALK_STEP: usize = 1_024;

/// Missing chunks asked of the store when only "complete or not" matters.
const PROBE_LIMIT: usize = 1;

/// Between two looks for what need not be waited for any more, milliseconds.
const LET_GO_EVERY_MS: u64 = 2_000;

/// What is missing and what is held.
pub struct Fetching {
    pending: Mutex<Pending>,
    /// Held while entries are received and their contents noted, so that `held` is never ahead.
    receiving: Mutex<()>,
    pending_bytes: AtomicU64,
    /// When it was looked last for what need not be waited for any more, monotonic milliseconds.
    let_go_ms: AtomicU64,
    file: std::path::PathBuf,
    keep: Keep,
    /// Wakes whoever walks the contents.
    walker: OnceLock<SyncSender<()>>,
}

#[derive(Default)]
struct Pending {
    contents: BTreeMap<ContentId, Waiting>,
    /// Everything under this frontier is here and durable.
    held: Frontier,
    /// Walks through the contents that are due or under way: after the start, and whenever damage is found.
    walks: usize,
    /// Chunks have arrived since the store was last made durable.
    unsynced: bool,
    /// Something pending was complete here before, and has been damaged since.
    damaged: bool,
}

/// Who has a content that is not here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reach {
    /// Nobody who is connected.
    Nobody,
    /// Somebody who is connected, perhaps.
    Somebody,
}

struct Waiting {
    len: u64,
    registers: Vec<Register>,
    /// Versions that name it and had to have it when it was noted; more may.
    versions: Vec<VersionId>,
    /// All connected members have said that they do not have it.
    nobody: bool,
}

impl Fetching {
    /// Reads what was held when the drive was last closed; nothing when the file is missing or odd, or when chunks may
    /// have been lost since.
    pub fn load(dir: &Path, keep: Keep, opened: Opened, store: &Store) -> Self {
        let file = dir.join("held");
        let lost =
            opened == Opened::PowerLoss || store.lost_records() || !store.quarantined().is_empty();
        let held = match lost {
            true => Frontier::default(),
            false => std::fs::read(&file)
                .ok()
                .and_then(|bytes| postcard::from_bytes(&bytes).ok())
                .unwrap_or_default(),
        };
        let pending = Pending { held, walks: 1, ..Pending::default() };
        Self {
            pending: Mutex::new(pending),
            receiving: Mutex::new(()),
            pending_bytes: AtomicU64::new(0),
            let_go_ms: AtomicU64::new(0),
            file,
            keep,
            walker: OnceLock::new(),
        }
    }

    /// Bytes of contents that are not complete here.
    pub fn pending_bytes(&self) -> u64 {
        self.pending_bytes.load(Ordering::Relaxed)
    }

    /// Whether contents are fetched before anybody opens them.
    pub(super) fn keeps_all(&self) -> bool {
        self.keep == Keep::All
    }

    /// The store's directory, where this and others keep small files.
    pub(super) fn dir(&self) -> &Path {
        self.file.parent().unwrap_or(&self.file)
    }

    /// Contents that are not complete here.
    pub(super) fn pending_contents(&self) -> Vec<Content> {
        let pending = self.pending.lock();
        pending.contents.iter().map(|(id, w)| Content { id: *id, len: w.len }).collect()
    }

    /// How many contents are not complete here.
    pub fn pending_count(&self) -> usize {
        self.pending.lock().contents.len()
    }

    /// Whether `content` is named by an entry but not complete here.
    pub fn is_pending(&self, content: &ContentId) -> bool {
        let pending = self.pending.lock();
        !pending.contents.is_empty() && pending.contents.contains_key(content)
    }

    /// Whether `content` is pending and every connected member has said it lacks it.
    pub fn is_out_of_reach(&self, content: &ContentId) -> bool {
        self.pending.lock().contents.get(content).is_some_and(|w| w.nobody)
    }

    /// Whether contents that were complete here are among those that are pending.
    pub(super) fn was_damaged(&self) -> bool {
        self.pending.lock().damaged
    }

    /// Somebody looks at `register` and finds `content` named there. A walk through the contents knows no names; the
    /// names that matter are those that were looked at.
    pub(super) fn looked_at(&self, content: &ContentId, register: &Register) {
        let mut pending = self.pending.lock();
        if let Some(waiting) = pending.contents.get_mut(content)
            && !waiting.registers.contains(register)
        {
            waiting.registers.push(register.clone());
        }
    }

    /// Writes down what is held, so that the next start need not look at every content.
    pub fn save(&self, drive: &Drive) {
        let Some(held) = drive.held() else { return };
        let Ok(bytes) = postcard::to_allocvec(&held) else { return };
        let new = self.file.with_extension("new");
        let written = std::fs::write(&new, bytes).and_then(|()| std::fs::rename(&new, &self.file));
        if let Err(error) = written {
            tracing::warn!(%error, "could not write down what is held; the next start looks again");
        }
    }

    /// The names of what is pending.
    pub(super) fn pending_registers(&self) -> Vec<Register> {
        let pending = self.pending.lock();
        pending.contents.values().flat_map(|waiting| waiting.registers.clone()).collect()
    }

    fn add(&self, content: Content, version: VersionId, register: Option<&Register>) -> bool {
        let mut pending = self.pending.lock();
        let mut new = false;
        let waiting = pending.contents.entry(content.id).or_insert_with(|| {
            new = true;
            Waiting { len: content.len, registers: Vec::new(), versions: Vec::new(), nobody: false }
        });
        if !waiting.versions.contains(&version) {
            waiting.versions.push(version);
        }
        if let Some(register) = register
            && !waiting.registers.contains(register)
        {
            waiting.registers.push(register.clone());
        }
        if new {
            self.pending_bytes.fetch_add(content.len, Ordering::Relaxed);
        }
        new
    }

    fn remove(&self, content: &ContentId) -> Vec<Register> {
        let mut pending = self.pending.lock();
        pending.unsynced = true;
        match pending.contents.remove(content) {
            Some(waiting) => {
                self.pending_bytes.fetch_sub(waiting.len, Ordering::Relaxed);
                waiting.registers
            }
            None => Vec::new(),
        }
    }
}

impl Drive {
    /// Runs `receive` and notes the contents of the entries it applied, as one step.
    pub(super) fn receive_and_note<E>(
        &self,
        receive: impl FnOnce() -> Result<journal::Received, E>,
    ) -> Result<journal::Received, E> {
        let step = self.fetching.receiving.lock();
        let received = receive()?;
        let wanted = self.note(&received.applied);
        drop(step);
        self.want(wanted);
        Ok(received)
    }

    /// Adds the contents the entries name and the store lacks; returns them.
    fn note(&self, entries: &[EntryId]) -> Vec<Content> {
        let mut wanted = Vec::new();
        let mut retention = None;
        for id in entries {
            let Some(contents) = self.entry_contents(id) else {
                tracing::error!(entry = %id, "entry just applied cannot be read back");
                continue;
            };
            for (version, register, content) in contents {
                // A collection may be under way, which does not know the entry.
                drop(self.store.hold(content));
                if self.fetching.keep == Keep::Opened {
                    continue;
                }
                if self.is_complete(content) {
                    // By writes of our own, perhaps, that are not durable yet.
                    self.fetching.pending.lock().unsynced = true;
                } else if self.is_owed(version, &mut retention)
                    && self.fetching.add(content, version, Some(&register))
                {
                    wanted.push(content);
                }
            }
        }
        wanted
    }

    /// The contents an entry names, each with the name it is under.
    fn entry_contents(&self, id: &EntryId) -> Option<Vec<(VersionId, Register, Content)>> {
        let bytes = self.journal.entry(id)?;
        let parts = journal::codec::decode(&bytes).ok()?;
        let named = parts.entry.ops.into_iter().zip(0..).filter_map(|(op, index)| match op {
            Op::Put { dir, name, value: Value::File(file), .. } => {
                let content = Content { id: file.content.id, len: file.content.len };
                Some((VersionId::new(*id, index), Register { dir, name }, content))
            }
            _ => None,
        });
        Some(named.collect())
    }

    fn want(&self, contents: Vec<Content>) {
        if let (false, Some(net)) = (contents.is_empty(), self.net()) {
            net.want(contents, net::Priority::Background);
        }
    }

    pub(super) fn is_complete(&self, content: Content) -> bool {
        match cas::missing_chunks(content, &self.store, PROBE_LIMIT) {
            Ok(missing) => missing.complete,
            Err(error) => {
                tracing::warn!(%error, %content.id, "content cannot be looked at; fetched again");
                false
            }
        }
    }

    /// Whether this device must have a version's bytes. What cannot be told counts as yes.
    pub(super) fn is_owed(&self, version: VersionId, rules: &mut Option<Retention>) -> bool {
        let mut judged = || -> Result<bool, StateError> {
            let rules = match rules {
                Some(rules) => rules,
                None => rules.insert(self.journal.retention(Arrivals::Unknown, self.clock.now())?),
            };
            let facts = self.journal.facts(rules, version)?;
            Ok(facts.is_none_or(|(facts, _)| rules.rules.owed(&facts)))
        };
        judged().unwrap_or_else(|error| {
            tracing::error!(%error, "it cannot be told whether a version is kept");
            true
        })
    }

    /// [`Self::let_go`], but not all the time: versions are let go of as time passes and entries come in.
    fn let_go_at_times(&self) {
        if self.fetching.pending_count() == 0 {
            return;
        }
        let now = vfs::Clock::monotonic_ms(&self.clock);
        let last = self.fetching.let_go_ms.load(Ordering::Relaxed);
        if last != 0 && now.saturating_sub(last) < LET_GO_EVERY_MS {
            return;
        }
        self.fetching.let_go_ms.store(now, Ordering::Relaxed);
        let changed = self.let_go();
        self.show(&changed);
    }

    /// Stops waiting for contents that nobody who is connected has and that no version must keep any more. Gives the
    /// names that read differently now.
    pub(super) fn let_go(&self) -> Vec<Register> {
        let alone = !self.somebody_online();
        let candidates: Vec<(ContentId, Vec<VersionId>)> = {
            let pending = self.fetching.pending.lock();
            let out = pending.contents.iter().filter(|(_, waiting)| alone || waiting.nobody);
            out.map(|(id, waiting)| (*id, waiting.versions.clone())).collect()
        };
        let (mut rules, mut changed, mut gone) = (None, Vec::new(), Vec::new());
        for (id, versions) in candidates {
            let step = self.fetching.receiving.lock();
            if !versions.iter().any(|version| self.is_owed(*version, &mut rules)) {
                changed.extend(self.fetching.remove(&id));
                gone.push(id);
            }
            drop(step);
        }
        if let (false, Some(net)) = (gone.is_empty(), self.net()) {
            tracing::info!(contents = gone.len(), "no longer waited for: no version keeps them");
            net.unwant(gone);
        }
        changed
    }

    /// Tells when the contents must be walked through once more. Asked for once, before the first walk.
    pub fn walks(&self) -> Receiver<()> {
        // One call stands for all that come before it is answered.
        let (walker, calls) = sync_channel(1);
        let _ = self.fetching.walker.set(walker);
        calls
    }

    /// A chunk that was here is not any more: what is held is unknown until every content was looked at, and what is
    /// missing then is fetched.
    pub(super) fn damage_found(&self) {
        {
            let mut pending = self.fetching.pending.lock();
            pending.held = Frontier::default();
            pending.walks += 1;
            pending.damaged = true;
        }
        // What was announced is taken back.
        self.announce();
        if let Some(walker) = self.fetching.walker.get() {
            // Full: the walker is called already. Closed: the drive is being closed.
            let _ = walker.try_send(());
        }
    }

    /// After a start, and after damage: asks for everything a version names and the store lacks. When what was held at
    /// the last clean stop is all there is, nothing is looked at.
    pub fn walk_contents(&self) {
        let (due, held) = {
            let pending = self.fetching.pending.lock();
            (pending.walks, pending.held.clone())
        };
        let complete = held == self.journal.frontier();
        let (mut cursor, mut retention) = (None, None);
        let mut looking = !complete && self.fetching.keeps_all();
        while looking {
            let (contents, next) = self.journal.contents(cursor.as_ref(), WALK_STEP);
            let lacking: Vec<Content> = contents
                .into_iter()
                .map(|n| (n.version, Content { id: n.content.id, len: n.content.len }))
                .filter(|(version, content)| {
                    !self.is_complete(*content)
                        && self.is_owed(*version, &mut retention)
                        && self.fetching.add(*content, *version, None)
                })
                .map(|(_, content)| content)
                .collect();
            self.want(lacking);
            cursor = next;
            looking = cursor.is_some();
        }
        {
            let mut pending = self.fetching.pending.lock();
            pending.walks = pending.walks.saturating_sub(due);
            // A crashed process may have left chunks that are here and not durable.
            pending.unsynced |= !complete;
        }
        self.announce();
    }

    /// Asks again for everything that is pending; used when net starts after the walk did.
    pub fn want_pending(&self) {
        self.want(self.fetching.pending_contents());
    }

    /// `net` says that every chunk of `content` is in the store. Gives the names that read differently now.
    pub(super) fn content_arrived(&self, content: &Content) -> Vec<Register> {
        self.fetching.remove(&content.id)
    }

    /// `net` says whether all who are connected lack `content`, so that its names show an older version. Gives the
    /// names that read differently now.
    pub(super) fn content_reach(&self, content: &Content, reach: Reach) -> Vec<Register> {
        let nobody = reach == Reach::Nobody;
        let mut pending = self.fetching.pending.lock();
        match pending.contents.get_mut(&content.id) {
            Some(waiting) if waiting.nobody != nobody => {
                waiting.nobody = nobody;
                waiting.registers.clone()
            }
            _ => Vec::new(),
        }
    }

    /// The frontier under which every content is here and durable, or none before anything is known.
    pub fn held(&self) -> Option<Frontier> {
        self.let_go_at_times();
        let step = self.fetching.receiving.lock();
        let (drained, unsynced) = {
            let mut pending = self.fetching.pending.lock();
            let all = self.fetching.keep == Keep::All;
            let drained = all && pending.walks == 0 && pending.contents.is_empty();
            (drained, drained && std::mem::take(&mut pending.unsynced))
        };
        if drained {
            let frontier = self.journal.frontier();
            if unsynced && let Err(error) = self.store.sync() {
                tracing::error!(%error, "arrived chunks could not be made durable");
                self.fetching.pending.lock().unsynced = true;
                return None;
            }
            let mut pending = self.fetching.pending.lock();
            // Unless damage was found meanwhile.
            if pending.walks == 0 {
                pending.held = frontier;
                pending.damaged = false;
            }
        }
        drop(step);
        let held = self.fetching.pending.lock().held.clone();
        (!held.tips.is_empty()).then_some(held)
    }

    /// How many contents are named but not complete here, and their bytes.
    pub fn arriving(&self) -> (usize, u64) {
        (self.fetching.pending_count(), self.fetching.pending_bytes())
    }
}

impl ChunkSource for Drive {
    fn chunk(&self, id: &ChunkId) -> Result<Bytes, ReadError> {
        let damaged = match self.store.get(id) {
            Err(ReadError::Missing { .. }) => false,
            Err(ReadError::Corrupt { .. }) => {
                self.tell_damage(id);
                true
            }
            other => return other,
        };
        let fetched = self.fetch(id);
        if damaged && fetched.is_err() {
            self.damage_found();
        }
        fetched
    }
}

impl Drive {
    /// Tells the user of a damaged chunk.
    pub(super) fn tell_damage(&self, id: &ChunkId) {
        tracing::error!(chunk = %id, "chunk on disk does not match its name; fetching it again");
        self.notice(
            format!("a chunk on this disk was damaged ({id:?})"),
            "it is fetched again from another device; check the disk".into(),
        );
    }

    /// Gets a chunk from whoever is connected, for somebody who waits.
    fn fetch(&self, id: &ChunkId) -> Result<Bytes, ReadError> {
        let unavailable = |reason| ReadError::Unavailable { id: *id, reason };
        let net = self.net().ok_or_else(|| unavailable(Unavailable::Nobody))?;
        match net.fetch_now_blocking(vec![*id], FETCH_WAIT) {
            Ok(()) => self.store.get(id),
            Err(error) => {
                tracing::warn!(%error, chunk = %id, "chunk is not here and could not be fetched");
                self.notice(
                    format!("bytes of a file are on no device that is online (chunk {id:?})"),
                    "bring a device online that has the file; `status` shows who is".into(),
                );
                Err(unavailable(match error {
                    net::FetchError::TimedOut => Unavailable::TimedOut,
                    net::FetchError::Closed => Unavailable::Stopping,
                    _ => Unavailable::Nobody,
                }))
            }
        }
    }
}

#[cfg(test)]
mod tests;
