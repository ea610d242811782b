//! Local changes that are not published yet, and when they may be.
//!
//! Leaves out: the clock, the disk ([`crate::spool`]) and publishing itself ([`crate::fs`]): times come in as
//! arguments, batches go out as values.
//!
//! Invariants:
//! - a name has at most one draft: the net effect of everything done to it since it was last published, with the
//!   bases it had when the first of these changes was made;
//! - a name that vanished or whose file was cut to nothing, and everything tied to it by a rename, waits until the
//!   name or its bytes are back or [`VANISHED_WAIT_MS`] have passed, so no batch ever shows a gap that a save leaves for
//!   a moment;
//! - a batch is a union of whole groups in the order of their changes, with every new directory a member lies in;
//! - a file whose first content is not finished is in no batch, nor is a change the journal refused, until it is
//!   changed again.

use std::collections::{BTreeSet, HashMap, HashSet};

use journal::id::{DirId, VersionId};
use journal::name::EntryName;
use journal::op::{Content, DirAttr, FileValue, Op, SymlinkValue, Value};
use serde::{Deserialize, Serialize};

mod batch;
mod key;
mod temp;

pub use batch::{Batch, BatchName, Limits, Refused};
pub use key::Key;
pub use temp::{looks_like_backup, looks_temporary};

/// How long a vanished name waits for its return, milliseconds.
pub const VANISHED_WAIT_MS: u64 = 2_000;
/// How long what is called like a temporary one waits for its rename, milliseconds.
pub const TEMPORARY_WAIT_MS: u64 = 2_000;
/// After this long nothing but an unfinished file holds a group back, milliseconds.
pub const GROUP_AGE_MAX_MS: u64 = 6_000;

/// What a name is changed to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum DraftValue {
    /// A new file whose first content is still being written.
    Unfinished,
    /// A file.
    File {
        /// What it becomes.
        value: FileValue,
        /// The published content it was made from, if any: chunks of that one may be elsewhere.
        rests_on: Option<Content>,
    },
    /// A symbolic link.
    Symlink(SymlinkValue),
    /// A directory made here.
    NewDir {
        /// Its identity.
        dir: DirId,
        /// Its attributes.
        attr: DirAttr,
    },
    /// Nothing.
    Gone {
        /// Where a file went, for history.
        moved_to: Option<(DirId, EntryName)>,
        /// The directory that was removed here.
        was_dir: Option<DirId>,
    },
}

impl DraftValue {
    /// Nothing, and nothing to say about it.
    pub const GONE: Self = Self::Gone { moved_to: None, was_dir: None };

    fn is_gone(&self) -> bool {
        matches!(self, Self::Gone { .. })
    }

    /// A file that was cut to nothing: some programs do that first, close it, and write it then.
    fn is_emptied(&self) -> bool {
        let Self::File { value, rests_on } = self else { return false };
        value.content.len == 0 && rests_on.is_some_and(|content| content.len > 0)
    }
}

/// A conflict copy that a change resolves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resolves {
    /// Directory of the register the copy belongs to.
    pub dir: DirId,
    /// Name of that register.
    pub name: EntryName,
    /// All ids of the copy.
    pub drop: Vec<VersionId>,
}

/// What is published under a name when its first draft is made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Below {
    /// The name as it is stored, when something is there.
    pub name: Option<EntryName>,
    /// The versions a change replaces.
    pub bases: Vec<VersionId>,
    /// Whether these show something.
    pub live: bool,
    /// The conflict copy shown under this name.
    pub resolves: Option<Box<Resolves>>,
}

/// One end of a rename.
#[derive(Debug)]
pub struct Side<'a> {
    /// Which name.
    pub key: &'a Key,
    /// As the program wrote it.
    pub name: &'a EntryName,
    /// What is published there; looked at only when the name has no draft.
    pub below: Below,
}

/// One name's unpublished change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    /// The name as it will be stored.
    pub name: EntryName,
    /// What it becomes.
    pub value: DraftValue,
    /// What it replaces.
    pub bases: Vec<VersionId>,
    /// Whether something is published under the name.
    pub live_below: bool,
    /// The conflict copy that goes with the change.
    pub resolves: Option<Resolves>,
    /// Directories that stood here and were removed: what is removed inside them goes no later.
    pub removed_dirs: Vec<DirId>,
    /// Order of the last change.
    pub seq: u64,
    /// Names tied by renames share a group.
    pub group: u64,
    #[serde(skip)]
    changed_ms: u64,
    #[serde(skip)]
    vanished_ms: Option<u64>,
    #[serde(skip)]
    flight: Flight,
    /// The journal refused it.
    #[serde(skip)]
    aside: bool,
}

/// Whether a batch with this draft is being published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Flight {
    #[default]
    Grounded,
    /// As it stands.
    Away,
    /// An older state of it; the bases are set when the batch comes back.
    Overtaken,
}

#[derive(Debug, Default)]
struct Group {
    members: HashSet<Key>,
    first_ms: u64,
    due_ms: Option<u64>,
}

/// A directory's attributes, waiting.
#[derive(Clone, Debug, PartialEq)]
struct AttrDraft {
    attr: DirAttr,
    seq: u64,
    due_ms: u64,
    flight: Flight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ticket {
    Group(u64),
    Attr(DirId),
}

/// When drafts are published.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A group is published when nothing changed in it for this long, milliseconds.
    pub quiet_ms: u64,
    /// Or when its first change is this old, milliseconds.
    pub seal_max_ms: u64,
}

/// All unpublished changes of a drive on this device.
#[derive(Debug)]
pub struct Drafts {
    timing: Timing,
    names: HashMap<DirId, HashMap<Key, Draft>>,
    count: usize,
    /// Invariant: exactly the drafts whose value is `NewDir`.
    new_dirs: HashMap<DirId, Key>,
    attrs: HashMap<DirId, AttrDraft>,
    groups: HashMap<u64, Group>,
    due: BTreeSet<(u64, Ticket)>,
    next_group: u64,
    next_seq: u64,
    touched: Vec<Touched>,
}

/// What a change has to leave in the spool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Touched {
    /// A name's draft changed or is no more.
    Name(Key),
    /// A directory's attributes changed or are published.
    Attr(DirId),
}

impl Drafts {
    /// No drafts.
    pub fn new(timing: Timing) -> Self {
        Self {
            timing,
            names: HashMap::new(),
            count: 0,
            new_dirs: HashMap::new(),
            attrs: HashMap::new(),
            groups: HashMap::new(),
            due: BTreeSet::new(),
            next_group: 1,
            next_seq: 1,
            touched: Vec::new(),
        }
    }

    /// How many changes wait.
    pub fn len(&self) -> usize {
        self.count + self.attrs.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The draft of a name.
    pub fn get(&self, key: &Key) -> Option<&Draft> {
        self.names.get(&key.dir())?.get(key)
    }

    /// The drafts of a directory's names.
    pub fn in_dir(&self, dir: DirId) -> impl Iterator<Item = (&Key, &Draft)> {
        self.names.get(&dir).into_iter().flatten()
    }

    /// Whether a name's draft changes nothing but attributes of what is published.
    pub fn is_of_attributes(&self, key: &Key) -> bool {
        self.get(key).is_some_and(|draft| match &draft.value {
            DraftValue::File { value, rests_on } => {
                let settled = draft.flight == Flight::Grounded && !draft.aside;
                settled && draft.live_below && *rests_on == Some(value.content)
            }
            _ => false,
        })
    }

    /// Whether a name's draft is a file that is being published.
    pub fn is_on_its_way(&self, key: &Key) -> bool {
        self.get(key).is_some_and(|draft| {
            draft.flight != Flight::Grounded && matches!(draft.value, DraftValue::File { .. })
        })
    }

    /// Whether a name's draft is a whole save: a file, and nothing it goes with is missing or unfinished at the moment. A
    /// name it was moved away from is not waited for where its bytes are nowhere else.
    pub fn is_whole_save(&self, key: &Key) -> bool {
        let Some(draft) = self.get(key) else { return false };
        let Some(group) = self.groups.get(&draft.group) else { return false };
        let DraftValue::File { value, rests_on } = &draft.value else { return false };
        let is_new = *rests_on != Some(value.content);
        let settled = |draft: &Draft| {
            draft.value != DraftValue::Unfinished
                && (draft.vanished_ms.is_none() || (is_new && draft.value.is_gone()))
                && draft.flight == Flight::Grounded
                && !draft.aside
        };
        group.members.iter().all(|key| self.get(key).is_some_and(settled))
    }

    /// All drafts of names.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Draft)> {
        self.names.values().flatten()
    }

    /// The draft that makes this directory, if it is not published.
    pub fn new_dir(&self, dir: DirId) -> Option<(&Key, &Draft)> {
        let key = self.new_dirs.get(&dir)?;
        self.get(key).map(|draft| (key, draft))
    }

    /// The attributes a directory will have, if they are changed.
    pub fn dir_attr(&self, dir: DirId) -> Option<&DirAttr> {
        self.attrs.get(&dir).map(|draft| &draft.attr)
    }

    /// All waiting attributes of directories.
    pub fn dir_attrs(&self) -> impl Iterator<Item = (DirId, &DirAttr)> {
        self.attrs.iter().map(|(dir, draft)| (*dir, &draft.attr))
    }

    /// What changed since the last call, for the spool.
    pub fn take_touched(&mut self) -> Vec<Touched> {
        std::mem::take(&mut self.touched)
    }

    /// Changes a name. `below` is asked only when the name has no draft yet.
    pub fn put<E>(
        &mut self,
        now_ms: u64,
        key: &Key,
        name: &EntryName,
        value: DraftValue,
        below: impl FnOnce() -> Result<Below, E>,
    ) -> Result<(), E> {
        if self.get(key).is_none() {
            let below = below()?;
            self.insert_fresh(now_ms, key, name, below);
        }
        self.change(now_ms, key, value);
        Ok(())
    }

    /// Moves what `from` stands for to `to`, which takes `value`; both are in one batch from now on.
    pub fn rename(&mut self, now_ms: u64, from: Side<'_>, to: Side<'_>, value: DraftValue) {
        let Side { key: from_key, name: from_name, below: from_below } = from;
        let Side { key: to_key, name: to_name, below: to_below } = to;
        if self.get(from_key).is_none() {
            self.insert_fresh(now_ms, from_key, from_name, from_below);
        }
        if self.get(to_key).is_none() {
            self.insert_fresh(now_ms, to_key, to_name, to_below);
        }
        self.tie(from_key, to_key);
        let moved_to = Some((to_key.dir(), to_name.clone()));
        self.change(now_ms, to_key, value);
        self.change(now_ms, from_key, DraftValue::Gone { moved_to, was_dir: None });
    }

    /// Changes a directory's attributes.
    pub fn set_dir_attr(&mut self, now_ms: u64, dir: DirId, attr: DirAttr) {
        if let Some(key) = self.new_dirs.get(&dir).cloned()
            && let Some(draft) = self.get(&key)
            && draft.flight == Flight::Grounded
        {
            // Part of making it: the order of the making stays, children may already follow it.
            if let Some(draft) =
                self.names.get_mut(&key.dir()).and_then(|names| names.get_mut(&key))
            {
                draft.value = DraftValue::NewDir { dir, attr };
                draft.changed_ms = now_ms;
            }
            self.touched.push(Touched::Name(key.clone()));
            self.schedule_key(&key);
            return;
        }
        let seq = self.seq();
        let due_ms = now_ms.saturating_add(self.timing.quiet_ms);
        let flight = match self.attrs.get(&dir) {
            Some(old) => {
                self.due.remove(&(old.due_ms, Ticket::Attr(dir)));
                if old.flight == Flight::Grounded { Flight::Grounded } else { Flight::Overtaken }
            }
            None => Flight::Grounded,
        };
        self.attrs.insert(dir, AttrDraft { attr, seq, due_ms, flight });
        if flight == Flight::Grounded {
            self.due.insert((due_ms, Ticket::Attr(dir)));
        }
        self.touched.push(Touched::Attr(dir));
    }

    /// Drops a directory's waiting attributes: it is no more.
    pub fn forget_dir_attr(&mut self, dir: DirId) {
        if let Some(old) = self.attrs.remove(&dir) {
            self.due.remove(&(old.due_ms, Ticket::Attr(dir)));
            self.touched.push(Touched::Attr(dir));
        }
    }

    /// Takes a draft back in as the spool kept it.
    pub fn restore(&mut self, now_ms: u64, key: Key, mut draft: Draft) {
        draft.changed_ms = now_ms;
        let vanished = draft.value.is_gone() || draft.value.is_emptied();
        draft.vanished_ms = (vanished && draft.live_below).then_some(now_ms);
        self.next_seq = self.next_seq.max(draft.seq.saturating_add(1));
        self.next_group = self.next_group.max(draft.group.saturating_add(1));
        let group = self.groups.entry(draft.group).or_default();
        group.first_ms = now_ms;
        group.members.insert(key.clone());
        if let DraftValue::NewDir { dir, .. } = &draft.value {
            self.new_dirs.insert(*dir, key.clone());
        }
        if self.names.entry(key.dir()).or_default().insert(key.clone(), draft).is_none() {
            self.count += 1;
        }
        self.schedule_key(&key);
    }

    fn seq(&mut self) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        seq
    }

    fn new_group(&mut self, now_ms: u64, key: &Key) -> u64 {
        let group = self.next_group;
        self.next_group += 1;
        let members = HashSet::from([key.clone()]);
        self.groups.insert(group, Group { members, first_ms: now_ms, due_ms: None });
        group
    }

    fn insert_fresh(&mut self, now_ms: u64, key: &Key, name: &EntryName, below: Below) {
        let group = self.new_group(now_ms, key);
        let draft = Draft {
            name: below.name.unwrap_or_else(|| name.clone()),
            value: DraftValue::GONE,
            bases: below.bases,
            live_below: below.live,
            resolves: below.resolves.map(|resolves| *resolves),
            removed_dirs: Vec::new(),
            seq: 0,
            group,
            changed_ms: now_ms,
            vanished_ms: None,
            flight: Flight::Grounded,
            aside: false,
        };
        self.names.entry(key.dir()).or_default().insert(key.clone(), draft);
        self.count += 1;
    }

    /// Gives a drafted name another value.
    fn change(&mut self, now_ms: u64, key: &Key, value: DraftValue) {
        let seq = self.seq();
        let left_flight = self.get(key).is_some_and(|draft| draft.flight == Flight::Away);
        let group = if left_flight { Some(self.leave_flight(now_ms, key)) } else { None };
        let Some(draft) = self.names.get_mut(&key.dir()).and_then(|names| names.get_mut(key))
        else {
            return;
        };
        if let DraftValue::NewDir { dir, .. } = &draft.value {
            self.new_dirs.remove(dir);
        }
        if let DraftValue::NewDir { dir, .. } = &value {
            self.new_dirs.insert(*dir, key.clone());
        }
        if let Some(group) = group {
            draft.flight = Flight::Overtaken;
            draft.group = group;
        }
        let shows_something = draft.live_below || draft.flight == Flight::Overtaken;
        draft.vanished_ms = match draft.vanished_ms {
            _ if !value.is_gone() && !value.is_emptied() => None,
            None if shows_something => Some(now_ms),
            since => since,
        };
        match &value {
            DraftValue::Gone { was_dir: Some(dir), .. } if !draft.removed_dirs.contains(dir) => {
                draft.removed_dirs.push(*dir);
            }
            // The same directory again.
            DraftValue::NewDir { dir, .. } => draft.removed_dirs.retain(|removed| removed != dir),
            _ => {}
        }
        draft.value = value;
        draft.seq = seq;
        draft.changed_ms = now_ms;
        draft.aside = false;
        self.settle(key);
    }

    /// A draft whose older state is on its way gets a group of its own.
    fn leave_flight(&mut self, now_ms: u64, key: &Key) -> u64 {
        if let Some(group) = self.get(key).map(|draft| draft.group)
            && let Some(group) = self.groups.get_mut(&group)
        {
            group.members.remove(key);
        }
        self.new_group(now_ms, key)
    }

    /// Drops a draft that has no effect any more, or sets its group's time.
    fn settle(&mut self, key: &Key) {
        self.touched.push(Touched::Name(key.clone()));
        let void = self.get(key).is_some_and(|draft| {
            draft.value.is_gone()
                && !draft.live_below
                && draft.resolves.is_none()
                && draft.flight == Flight::Grounded
        });
        if void { self.remove(key) } else { self.schedule_key(key) }
    }

    fn remove(&mut self, key: &Key) {
        let Some(names) = self.names.get_mut(&key.dir()) else { return };
        let Some(draft) = names.remove(key) else { return };
        self.count -= 1;
        if names.is_empty() {
            self.names.remove(&key.dir());
        }
        if let DraftValue::NewDir { dir, .. } = &draft.value {
            self.new_dirs.remove(dir);
        }
        if let Some(group) = self.groups.get_mut(&draft.group) {
            group.members.remove(key);
        }
        self.schedule(draft.group);
    }

    /// Joins the groups of two drafted names.
    fn tie(&mut self, a: &Key, b: &Key) {
        for key in [a, b] {
            // What is away cannot wait for anything; a change to it begins a new group, which is then tied.
            if let Some(first_ms) =
                self.get(key).filter(|d| d.flight == Flight::Away).map(|d| d.changed_ms)
            {
                let group = self.leave_flight(first_ms, key);
                if let Some(draft) = self.names.get_mut(&key.dir()).and_then(|n| n.get_mut(key)) {
                    draft.group = group;
                    draft.flight = Flight::Overtaken;
                }
            }
        }
        let (Some(ga), Some(gb)) = (self.get(a).map(|d| d.group), self.get(b).map(|d| d.group))
        else {
            return;
        };
        self.merge(ga, gb);
    }

    /// Makes two groups one, and gives its number.
    fn merge(&mut self, a: u64, b: u64) -> u64 {
        if a == b {
            return a;
        }
        let size = |id| self.groups.get(&id).map_or(0, |g| g.members.len());
        let (from, into) = if size(a) <= size(b) { (a, b) } else { (b, a) };
        let Some(old) = self.groups.remove(&from) else { return into };
        if let Some(due) = old.due_ms {
            self.due.remove(&(due, Ticket::Group(from)));
        }
        for key in &old.members {
            if let Some(draft) = self.names.get_mut(&key.dir()).and_then(|n| n.get_mut(key)) {
                draft.group = into;
            }
            self.touched.push(Touched::Name(key.clone()));
        }
        if let Some(group) = self.groups.get_mut(&into) {
            group.first_ms = group.first_ms.min(old.first_ms);
            group.members.extend(old.members);
        }
        into
    }

    fn schedule_key(&mut self, key: &Key) {
        if let Some(group) = self.get(key).map(|draft| draft.group) {
            self.schedule(group);
        }
    }

    /// Works out anew when a group may be published.
    fn schedule(&mut self, id: u64) {
        let Some(group) = self.groups.get(&id) else { return };
        let old = group.due_ms;
        let empty = group.members.is_empty();
        let due_ms = self.due_of(group);
        if let Some(old) = old {
            self.due.remove(&(old, Ticket::Group(id)));
        }
        if empty {
            self.groups.remove(&id);
            return;
        }
        if let Some(due) = due_ms {
            self.due.insert((due, Ticket::Group(id)));
        }
        if let Some(group) = self.groups.get_mut(&id) {
            group.due_ms = due_ms;
        }
    }

    /// When the group may go; never while a member is unfinished or on its way.
    fn due_of(&self, group: &Group) -> Option<u64> {
        let mut changed_ms = 0;
        let mut held_ms = 0;
        for key in &group.members {
            let draft = self.get(key)?;
            let unfinished = draft.value == DraftValue::Unfinished;
            if draft.flight != Flight::Grounded || unfinished || draft.aside {
                return None;
            }
            changed_ms = changed_ms.max(draft.changed_ms);
            if let Some(since) = draft.vanished_ms {
                held_ms = held_ms.max(since.saturating_add(VANISHED_WAIT_MS));
            }
            // A backup that stays must not hold back the document it was tied to.
            let passing = looks_temporary(&draft.name)
                || (group.members.len() == 1 && looks_like_backup(&draft.name));
            let made = matches!(draft.value, DraftValue::File { .. } | DraftValue::NewDir { .. });
            if made && passing {
                held_ms = held_ms.max(draft.changed_ms.saturating_add(TEMPORARY_WAIT_MS));
            }
        }
        let quiet_ms = changed_ms.saturating_add(self.timing.quiet_ms);
        let latest_ms = group.first_ms.saturating_add(self.timing.seal_max_ms);
        let oldest_ms = group.first_ms.saturating_add(GROUP_AGE_MAX_MS);
        Some(quiet_ms.min(latest_ms).max(held_ms.min(oldest_ms)))
    }

    /// When the next group may be published.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.due.first().map(|(due, _)| *due)
    }
}

/// The journal's value for a draft's; nothing for an unfinished file.
fn journal_value(value: &DraftValue) -> Option<Value> {
    match value {
        DraftValue::File { value, .. } => Some(Value::File(value.clone())),
        DraftValue::Symlink(link) => Some(Value::Symlink(link.clone())),
        DraftValue::Gone { moved_to, .. } => Some(Value::Gone { moved_to: moved_to.clone() }),
        DraftValue::Unfinished | DraftValue::NewDir { .. } => None,
    }
}

/// The operations that publish a draft; the last one makes the name's version.
fn ops_of(key: &Key, draft: &Draft) -> Vec<Op> {
    let mut ops = Vec::with_capacity(2);
    if let Some(resolves) = &draft.resolves {
        let Resolves { dir, name, drop } = resolves.clone();
        ops.push(Op::Resolve { dir, name, drop });
    }
    let (dir, name, bases) = (key.dir(), draft.name.clone(), draft.bases.clone());
    match &draft.value {
        DraftValue::NewDir { dir: new, attr } => {
            ops.push(Op::MkDir { parent: dir, name, dir: *new, attr: attr.clone(), bases });
        }
        DraftValue::Gone { .. } if !draft.live_below => {}
        value => {
            if let Some(value) = journal_value(value) {
                ops.push(Op::Put { dir, name, value, bases });
            }
        }
    }
    ops
}

#[cfg(test)]
mod tests;
