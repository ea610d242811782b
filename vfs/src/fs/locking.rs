//! Who may change a name now, and what a whole save replaces: locks and stale saves (DESIGN 5.3 and 7).
//!
//! Leaves out: asking others and what they answer ([`crate::traits::Locks`]); while what is used ([`crate::uses`]).
//!
//! Invariants:
//! - nothing waits for others but [`Core::claim`] with [`Wait::Allowed`], and that holds no lock of ours;
//! - a call that is refused has changed nothing;
//! - whatever the locks say, a save over a version its program has not seen stands beside that version.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use journal::id::{DirId, VersionId};
use journal::name::{EntryName, Register};
use journal::view::ViewKind;
use parking_lot::Mutex;

use super::{Core, State, Wait};
use crate::attr::Caller;
use crate::documents::{document_of, is_document};
use crate::drafts::{BatchName, Below, DraftValue, Key, Resolves};
use crate::error::FsError;
use crate::file::{FileNode, Meta};
use crate::handles::FileHandle;
use crate::inode::NodeKind;
use crate::loaded::Loaded;
use crate::process::{self, Process, Processes, Program, Watch};
use crate::traits::{ABOVE_MAX, Happening, Hold, Holder, Locks, Scope, Spot};
use crate::uses::{About, Change, Uses};

/// How often it is looked whether processes still use their locks, besides when one ends.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The same while there are none.
const IDLE_LOOK: Duration = Duration::from_secs(5);
/// How long a call waits for the end of somebody else's burst of work in the directory.
const BELOW_WAIT: Duration = Duration::from_millis(1_000);
/// How often it looks.
const BELOW_LOOK: Duration = Duration::from_millis(20);
/// Up to this length a file may be in the kernel's cache without our having been asked for all of it, bytes: opening it
/// to read is loading it.
const SMALL_LEN: u64 = 256 << 10;

/// What this device's processes do.
pub(super) struct Work {
    pub(super) locks: Arc<dyn Locks>,
    processes: Processes,
    loaded: Mutex<Loaded>,
    uses: Mutex<Uses>,
    /// Tells when a process has ended; rung when a lock comes into use.
    watch: Watch,
}

impl Work {
    pub(super) fn new(locks: Arc<dyn Locks>, spool_dir: &Path) -> std::io::Result<Self> {
        Ok(Self {
            locks,
            processes: Processes::default(),
            loaded: Mutex::new(Loaded::restored(spool_dir)),
            uses: Mutex::default(),
            watch: Watch::new()?,
        })
    }

    /// The process that makes a call, while the call waits for us.
    pub(super) fn process(&self, caller: Caller) -> Option<Process> {
        self.processes.of(caller.tid)
    }

    /// Lets the thread that looks at uses end.
    pub(super) fn wake(&self) {
        self.watch.ring();
    }
}

/// What a program is about to do with a name. Bytes are written only after the others have answered; names go and are
/// replaced while they are asked, unless somebody is known to have them open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Intent {
    /// Write its bytes through a handle that is about to be opened, until [`Core::claimed`].
    Write,
    /// Put another file in its place.
    Replace,
    /// Take it away.
    Remove,
}

/// A name in the form locks and comparisons use.
pub(super) fn register_of(key: &Key) -> Option<Register> {
    EntryName::new(key.folded()).ok().map(|name| Register::new(key.dir(), name))
}

impl Core {
    fn spot(&self, state: &State, key: &Key) -> Result<Option<Spot>, FsError> {
        let Some(register) = register_of(key) else { return Ok(None) };
        let mut above = vec![key.dir()];
        let mut at = key.dir();
        while at != DirId::ROOT && above.len() < ABOVE_MAX {
            at = match state.drafts.new_dir(at) {
                Some((key, _)) => key.dir(),
                None => match self.tree.dir(at)? {
                    Some(dir) => dir.parent,
                    None => break,
                },
            };
            above.push(at);
        }
        Ok(Some(Spot { register, above }))
    }

    /// A program is about to change what stands under a name. With [`Wait::Never`] it is [`FsError::WouldWait`] when the
    /// others have to be asked first. Gives the lock that covers the change, if one is needed.
    pub(super) fn claim(
        &self,
        caller: Caller,
        key: &Key,
        intent: Intent,
        wait: Wait,
    ) -> Result<Option<Scope>, FsError> {
        let locks = &self.work.locks;
        if locks.alone() {
            return Ok(None);
        }
        let Ok(name) = EntryName::new(key.folded()) else { return Ok(None) };
        // What nobody has published, nobody else can have in front of them.
        let view = match self.tree.lookup(key.dir(), &name)? {
            Some(view) if !matches!(view.kind, ViewKind::Dir { .. }) => view,
            _ => return Ok(None),
        };
        let Some(spot) = self.spot(&self.state(), key)? else { return Ok(None) };
        let holder = self.patient_holder(&spot, wait)?;
        if let Some(holder) = &holder
            && holder.refuses
        {
            return Err(self.refused(&spot.register, holder.clone()));
        }
        let by = self.work.process(caller);
        let about = if is_document(&name) { About::Document } else { About::Other };
        // An editor keeps a document for longer than a burst.
        let itself = by.is_some_and(|by| by.program == Program::Editor) && is_document(&name);
        let change = match intent {
            Intent::Write => Change::Opens(about),
            Intent::Replace => Change::Renamed(about),
            Intent::Remove => Change::Other,
        };
        let now_ms = self.now_ms();
        let scope = {
            let mut uses = self.work.uses.lock();
            let covering = if itself { uses.own_of(&spot) } else { uses.covering(&spot) };
            if let Some(scope) = covering {
                if uses.touch(now_ms, &scope, by, change) {
                    self.work.watch.ring();
                }
                return Ok(Some(scope));
            }
            if uses.is_full() {
                return Ok(None);
            }
            let first = intent == Intent::Write || holder.is_some();
            if first && wait == Wait::Never {
                return Err(FsError::WouldWait);
            }
            let scope = match itself {
                true => Scope::Name(spot.register.clone()),
                false => uses.wanted(now_ms, &spot),
            };
            uses.asks(&scope);
            if !first {
                uses.touch(now_ms, &scope, by, change);
                drop(uses);
                locks.take_later(&scope, &spot, &view.merged);
                self.asked(&scope);
                return Ok(Some(scope));
            }
            scope
        };
        let take = |scope: &Scope| {
            let answer = locks.take(scope, &spot, &view.merged);
            if answer.is_ok() {
                self.work.uses.lock().touch(self.now_ms(), scope, by, change);
            }
            self.asked(scope);
            answer
        };
        let mut taken = scope;
        let mut answer = take(&taken);
        if let (Err(_), Scope::Below(dir)) = (&answer, &taken) {
            let name = Scope::Name(spot.register.clone());
            {
                let mut uses = self.work.uses.lock();
                uses.refused_below(now_ms, *dir);
                uses.asks(&name);
            }
            taken = name;
            answer = take(&taken);
        }
        match answer {
            Ok(()) => Ok(Some(taken)),
            Err(holder) => Err(self.refused(&spot.register, holder)),
        }
    }

    /// Who else holds a name. What is held below a directory is held for a burst of work only: its end is waited for.
    fn patient_holder(&self, spot: &Spot, wait: Wait) -> Result<Option<Holder>, FsError> {
        let until = Instant::now() + BELOW_WAIT;
        loop {
            let holder = self.work.locks.holder(spot).filter(|holder| !holder.own);
            match &holder {
                Some(other) if other.refuses && other.below => {}
                _ => return Ok(holder),
            }
            if wait == Wait::Never {
                return Err(FsError::WouldWait);
            }
            if Instant::now() >= until {
                return Ok(holder);
            }
            std::thread::sleep(BELOW_LOOK);
        }
    }

    /// A file is about to be made under a name where nothing stands: somebody may have checked the name out.
    pub(super) fn refuse_new(&self, dir: DirId, name: &EntryName) -> Result<(), FsError> {
        if self.work.locks.alone() {
            return Ok(());
        }
        let key = Key::new(dir, name);
        let holder = self.holder_at(&key)?;
        match (holder, register_of(&key)) {
            (Some(holder), Some(register))
                if !holder.own && holder.refuses && holder.hold == Hold::Checkout =>
            {
                Err(self.refused(&register, holder))
            }
            _ => Ok(()),
        }
    }

    /// A name is removed: of an editor's file beside a document it says that the document is closed.
    pub(super) fn removed_beside(&self, by: Option<Process>, dir: DirId, name: &EntryName) {
        if let (Some(by), Some(document)) = (by, document_of(name))
            && let Some(register) = register_of(&Key::new(dir, &document))
        {
            self.work.uses.lock().done(&register, by.id);
            self.work.watch.ring();
        }
    }

    /// A call knows whether it has the lock it asked for.
    fn asked(&self, scope: &Scope) {
        self.work.uses.lock().asked(scope);
        self.work.watch.ring();
    }

    /// Whether anything here uses a lock, or asks for it now.
    pub fn is_lock_wanted(&self, scope: &Scope) -> bool {
        self.work.uses.lock().is_wanted(scope)
    }

    /// The name of a document is about to be written beside it: what is refused there is refused here.
    pub(super) fn claim_document(
        &self,
        caller: Caller,
        dir: DirId,
        name: &EntryName,
        wait: Wait,
    ) -> Result<(), FsError> {
        match document_of(name) {
            Some(document) => {
                let lock = self.claim(caller, &Key::new(dir, &document), Intent::Write, wait)?;
                self.claimed(lock.as_ref());
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn refused(&self, register: &Register, holder: Holder) -> FsError {
        let name = holder.name.clone();
        self.work.locks.happened(Happening::Refused(register.clone(), holder));
        FsError::Locked(name)
    }

    /// Whose lock keeps this device from changing a file.
    pub(super) fn refusing(&self, file: &FileNode) -> Result<Option<Holder>, FsError> {
        if self.work.locks.alone() {
            return Ok(None);
        }
        Ok(self.holder_of(file)?.filter(|holder| holder.refuses && !holder.own))
    }

    /// Who works on a file.
    pub(super) fn holder_of(&self, file: &FileNode) -> Result<Option<Holder>, FsError> {
        let Some(key) = file.meta.lock().place.as_ref().map(|place| place.key.clone()) else {
            return Ok(None);
        };
        self.holder_at(&key)
    }

    pub(super) fn holder_at(&self, key: &Key) -> Result<Option<Holder>, FsError> {
        let spot = self.spot(&self.state(), key)?;
        Ok(spot.and_then(|spot| self.work.locks.holder(&spot)))
    }

    /// A call that claimed to write is over: what it opened is open.
    pub(super) fn claimed(&self, scope: Option<&Scope>) {
        if let Some(scope) = scope {
            self.work.uses.lock().opened(self.now_ms(), scope);
            self.work.watch.ring();
        }
    }

    /// Whether there is work under a name, or for a directory anywhere, that is not published yet.
    pub fn is_unpublished(&self, scope: &Scope) -> bool {
        match scope {
            Scope::Name(register) => {
                let key = Key::new(register.dir, &register.name);
                let state = self.state();
                let written = state.table.at(&key).is_some_and(|(_, node)| match &node.kind {
                    NodeKind::File(file) => file.meta.lock().dirty,
                    _ => false,
                });
                written || state.drafts.get(&key).is_some()
            }
            Scope::Below(_) => self.drafts() > 0,
        }
    }

    /// A lock of this device has ended by itself, while this device slept or was cut off, or was not granted. While it is
    /// used it is asked for again.
    pub fn lock_lost(&self, scope: &Scope) {
        self.work.uses.lock().lost(scope);
        self.work.watch.ring();
    }

    /// After others were asked: whether a file is still what its name shows. If it is not, its program must look again,
    /// which the kernel does for it.
    pub(super) fn still_shown(&self, file: &FileNode) -> Result<(), FsError> {
        let Some(place) = file.meta.lock().place.clone() else { return Err(FsError::Stale) };
        let found = self.find(&mut self.state(), place.key.dir(), &place.name)?;
        match found {
            Some(found) if found.ino == file.ino => Ok(()),
            _ => Err(FsError::Stale),
        }
    }

    /// A lock of this device was taken away by an owner of the drive: what is still saved under it stands beside.
    pub fn lock_broken(&self, register: &Register) {
        let key = Key::new(register.dir, &register.name);
        if let Some(register) = register_of(&key) {
            self.work.uses.lock().break_it(&register);
        }
    }

    /// Gives back the locks nothing uses any more, and asks for those that are used and not ours.
    pub fn look_at_uses(&self) {
        let turn = self.work.uses.lock().turn();
        let written = if self.work.locks.alone() { Vec::new() } else { self.written_names() };
        let open: BTreeSet<Register> =
            written.iter().filter_map(|(key, _)| register_of(key)).collect();
        let now_ms = self.now_ms();
        let (ended, unheld) = {
            let mut uses = self.work.uses.lock();
            (uses.take_ended(now_ms, (turn, &open), process::is_alive), uses.unheld())
        };
        let kept =
            unheld.into_iter().map(|register| (Key::new(register.dir, &register.name), None));
        for (key, by) in written.into_iter().chain(kept) {
            if let Err(error) = self.ensure_held(&key, by) {
                tracing::warn!(%error, "a lock cannot be taken");
            }
        }
        for scope in &ended.scopes {
            self.work.locks.give_back(scope);
        }
        for register in &ended.closed {
            self.work.locks.present(register, false);
        }
    }

    /// The names of files that are open for writing, and by whom.
    fn written_names(&self) -> Vec<(Key, Option<Process>)> {
        let written = self.handles.written().into_iter();
        let named = |(file, by): (Arc<FileNode>, Option<Process>)| {
            let key = file.meta.lock().place.as_ref().map(|place| place.key.clone());
            key.map(|key| (key, by))
        };
        written.filter_map(named).collect()
    }

    /// Asks for the lock of a published name that is used here, unless it is ours or somebody else's.
    fn ensure_held(&self, key: &Key, by: Option<Process>) -> Result<(), FsError> {
        let Ok(name) = EntryName::new(key.folded()) else { return Ok(()) };
        let Some(spot) = self.spot(&self.state(), key)? else { return Ok(()) };
        let scope = Scope::Name(spot.register.clone());
        {
            let uses = self.work.uses.lock();
            let taken = uses.covering(&spot).is_some() || uses.is_wanted(&scope);
            // Whoever took it away wants to work there.
            if taken || uses.is_broken(&spot) || uses.is_full() {
                return Ok(());
            }
        }
        let view = match self.tree.lookup(key.dir(), &name)? {
            Some(view) if !matches!(view.kind, ViewKind::Dir { .. }) => view,
            _ => return Ok(()),
        };
        let foreign = self.work.locks.holder(&spot).filter(|holder| !holder.own);
        if foreign.is_some_and(|holder| holder.hold != Hold::Presence) {
            return Ok(());
        }
        let about = if is_document(&name) { About::Document } else { About::Other };
        {
            let mut uses = self.work.uses.lock();
            uses.asks(&scope);
            uses.touch(self.now_ms(), &scope, by, Change::HasOpen(about));
        }
        self.work.locks.take_later(&scope, &spot, &view.merged);
        self.work.uses.lock().asked(&scope);
        Ok(())
    }

    /// The same, and locks for whole directories do not wait for the end of a burst.
    pub fn end_bursts(&self) {
        self.work.uses.lock().end_bursts();
        self.look_at_uses();
    }

    /// The thread that looks whether locks are still used.
    pub(super) fn uses_loop(&self) {
        while !self.stopping.load(Ordering::Acquire) {
            let (processes, bound) = {
                let uses = self.work.uses.lock();
                let idle = uses.is_empty() && !self.handles.is_written();
                let bound = if idle { IDLE_LOOK } else { LOOK_EVERY };
                (uses.processes(), bound)
            };
            self.work.watch.wait(&processes, bound);
            self.look_at_uses();
        }
    }

    /// Why what is saved under a name must not replace what stands there: somebody else holds it, or took it away.
    fn beside(&self, state: &State, key: &Key) -> Result<bool, FsError> {
        if self.work.locks.alone() {
            return Ok(false);
        }
        let Some(spot) = self.spot(state, key)? else { return Ok(false) };
        let foreign = self.work.locks.holder(&spot);
        let foreign = foreign.is_some_and(|holder| holder.refuses && !holder.own && !holder.below);
        Ok(foreign || self.work.uses.lock().is_broken(&spot))
    }

    /// What the save of an open file replaces: what its handle opened, unless the name is not this device's any more.
    pub(super) fn replaced_in_place(
        &self,
        state: &mut State,
        key: &Key,
        below: Below,
    ) -> Result<Below, FsError> {
        if below.resolves.is_some() || !below.live || !self.beside(state, key)? {
            return Ok(below);
        }
        let bases = self.without_official(key, &below.bases)?;
        self.stands_beside(state, key);
        Ok(Below { bases, ..below })
    }

    /// Of some versions those that are not what everybody is shown under a name.
    fn without_official(
        &self,
        key: &Key,
        versions: &[VersionId],
    ) -> Result<Vec<VersionId>, FsError> {
        let Ok(name) = EntryName::new(key.folded()) else { return Ok(Vec::new()) };
        let official = self.tree.lookup(key.dir(), &name)?.map(|view| view.merged);
        let official = official.unwrap_or_default();
        Ok(versions.iter().filter(|version| !official.contains(version)).copied().collect())
    }

    /// What a process replaces that replaces or removes a name whole: the version it has loaded.
    pub(super) fn replaced_whole(
        &self,
        state: &mut State,
        by: Option<Process>,
        key: &Key,
        below: Below,
    ) -> Result<Below, FsError> {
        let loaded = by.and_then(|by| self.loaded_by(by, key));
        if let (Some(resolves), Some(loaded)) = (&below.resolves, &loaded)
            && self.has_not_seen(by, key, &resolves.drop)?
        {
            // Somebody saved the copy meanwhile: only what its program has seen is dealt with.
            self.stands_beside(state, key);
            let resolves = Resolves { drop: loaded.clone(), ..(**resolves).clone() };
            return Ok(Below { resolves: Some(Box::new(resolves)), ..below });
        }
        if below.resolves.is_some() || !below.live {
            return Ok(below);
        }
        if self.beside(state, key)? {
            let bases = self.without_official(key, loaded.as_ref().unwrap_or(&below.bases))?;
            self.stands_beside(state, key);
            return Ok(Below { bases, ..below });
        }
        match loaded {
            Some(loaded) if self.has_not_seen(by, key, &below.bases)? => {
                self.stands_beside(state, key);
                Ok(Below { bases: loaded, ..below })
            }
            _ => Ok(below),
        }
    }

    fn loaded_by(&self, by: Process, key: &Key) -> Option<Vec<VersionId>> {
        self.work.loaded.lock().get(by.id, key).map(<[VersionId]>::to_vec)
    }

    /// Whether a process has another version in front of it than these, which are not only this device's work since.
    pub(super) fn has_not_seen(
        &self,
        by: Option<Process>,
        key: &Key,
        official: &[VersionId],
    ) -> Result<bool, FsError> {
        let Some(loaded) = by.and_then(|by| self.loaded_by(by, key)) else { return Ok(false) };
        let knows = official.iter().all(|version| loaded.contains(version))
            || self.work.locks.made_here(&loaded, official)?;
        Ok(!knows)
    }

    /// What is saved under a name will be a conflict copy: what others see there is shown here too once it is published.
    fn stands_beside(&self, state: &mut State, key: &Key) {
        state.stale_saves.insert(key.clone());
        state.overtaken.extend(register_of(key));
    }

    /// A version came of a draft: who made it has that version in front of it.
    pub(super) fn save_published(
        &self,
        state: &mut State,
        name: &BatchName,
        version: Option<VersionId>,
    ) -> Option<Happening> {
        let saver = state.savers.remove(&name.key);
        let stale = state.stale_saves.remove(&name.key);
        let version = version?;
        let register = register_of(&name.key)?;
        let is_file = matches!(name.value, DraftValue::File { .. });
        if let Some(saver) = saver {
            self.note_loaded(saver, &name.key, &[version]);
            let document = EntryName::new(name.key.folded()).is_ok_and(|name| is_document(&name));
            if is_file && document && saver.program == Program::Editor && !self.work.locks.alone() {
                self.work.uses.lock().keep_for(self.now_ms(), &register, saver.id);
            }
        }
        if !self.work.locks.alone() {
            // What is open and published from now on is held from now on.
            self.work.watch.ring();
        }
        match (stale, is_file) {
            (true, true) => Some(Happening::StaleSave(register, version)),
            (true, false) => Some(Happening::StaleRemoval(register)),
            _ => None,
        }
    }

    /// A process has a file in front of it as it is now.
    fn loads(&self, by: Process, meta: &Meta) {
        let Some(place) = &meta.place else { return };
        match &meta.below.resolves {
            _ if meta.dirty => {}
            // A copy is what it shows; its name may become a file of its own.
            Some(resolves) => self.note_loaded(by, &place.key, &resolves.drop),
            None if meta.below.live => self.note_loaded(by, &place.key, &meta.below.bases),
            None => {}
        }
    }

    fn note_loaded(&self, by: Process, key: &Key, versions: &[VersionId]) {
        let mut loaded = self.work.loaded.lock();
        loaded.note(by, key, versions);
        loaded.keep(&self.config.spool_dir);
    }

    /// A process opens a file to read it. Whether only what it reads shows that it has it in front of it: it had another
    /// version before.
    pub(super) fn opened_to_read(&self, by: Option<Process>, file: &FileNode) -> bool {
        let Some(by) = by else { return false };
        let (doubts, register) = {
            let meta = file.meta.lock();
            let Some(place) = &meta.place else { return false };
            let document = by.program == Program::Editor && is_document(&place.name);
            let loaded = self.loaded_by(by, &place.key);
            // An editor may need less than all of a document: the first look counts.
            if loaded.is_none() && (document || meta.len <= SMALL_LEN || meta.is_cached_whole()) {
                self.loads(by, &meta);
            }
            let shown = meta.below.resolves.as_ref().map_or(&meta.below.bases, |copy| &copy.drop);
            let doubts =
                loaded.is_some_and(|known| !shown.iter().all(|version| known.contains(version)));
            (doubts, register_of(&place.key).filter(|_| document))
        };
        if let Some(register) = register.filter(|_| !self.work.locks.alone()) {
            let first = self.work.uses.lock().editor_opened(&register, by.id);
            self.work.watch.ring();
            if first {
                self.work.locks.present(&register, true);
            }
            let other = self.holder_of(file).ok().flatten().filter(|holder| !holder.own);
            if let Some(holder) = other {
                self.work.locks.happened(Happening::AlsoOpen(register, holder));
            }
        }
        doubts
    }

    /// Bytes of a file were read through a handle.
    pub(super) fn has_read(&self, handle: &FileHandle, bytes: u64) {
        let read = handle.loading.read_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let mut meta = handle.node.meta.lock();
        meta.cached_bytes = meta.cached_bytes.saturating_add(bytes);
        let Some(by) = handle.by.filter(|_| handle.reads) else { return };
        let whole = match handle.loading.doubts {
            // The kernel was told to ask for it.
            true => read >= meta.len / 2,
            false => meta.is_cached_whole() && self.is_first_load(by, &meta),
        };
        if whole {
            self.loads(by, &meta);
        }
    }

    fn is_first_load(&self, by: Process, meta: &Meta) -> bool {
        meta.place.as_ref().is_some_and(|place| self.loaded_by(by, &place.key).is_none())
    }

    /// A handle that only read is closed. The kernel may have answered for parts of it.
    pub(super) fn closed_to_read(&self, handle: &FileHandle) {
        let meta = handle.node.meta.lock();
        let Some(by) = handle.by.filter(|_| !handle.loading.doubts) else { return };
        if meta.is_cached_whole() && self.is_first_load(by, &meta) {
            self.loads(by, &meta);
        }
    }
}

/// What is said of a lock to people and programs.
pub(super) fn lock_text(holder: &Holder) -> String {
    let kind = match holder.hold {
        Hold::Session => "being written",
        Hold::Checkout => "checked out",
        Hold::Presence => "open",
    };
    let sure = match holder.unreachable {
        _ if holder.hold == Hold::Checkout => "as far as this device has heard".to_owned(),
        0 => "every member agrees".to_owned(),
        1 => "1 member could not be asked".to_owned(),
        n => format!("{n} members could not be asked"),
    };
    let since = crate::past::time::rfc3339(holder.since_ms);
    let (name, device) = (&holder.name, holder.device);
    format!("holder: {name}\ndevice: {device}\nkind: {kind}\nsince: {since}\nsure: {sure}\n")
}
