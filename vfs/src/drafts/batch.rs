//! Taking drafts out to publish them, and what follows when they are, or are not.
//!
//! Leaves out: publishing.
//!
//! Invariants: at most one batch is out at a time; a draft that is out stays visible in [`Drafts`] until the batch
//! comes back; a change made meanwhile is based on the version the batch makes.

use std::collections::{HashMap, HashSet, VecDeque};

use journal::id::{DirId, VersionId};
use journal::op::Op;

use super::{Draft, DraftValue, Drafts, Flight, Group, Key, Ticket, Touched, ops_of};

/// How long what depends on a refused change waits between two looks, milliseconds.
const ASIDE_LOOK_MS: u64 = 5_000;

/// How much goes into one batch; a single group may exceed it, since groups are never split.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Operations.
    pub ops_max: usize,
    /// Estimated encoded size, bytes.
    pub bytes_max: usize,
}

/// Changes to be published as one.
#[derive(Debug, Default)]
pub struct Batch {
    /// The operations, parents before what lies in them.
    pub ops: Vec<Op>,
    /// What they stand for.
    pub names: Vec<BatchName>,
    attrs: Vec<DirId>,
    groups: Vec<(u64, Group)>,
    /// How many parts it has that could go without each other.
    parts: usize,
}

/// What was done about a batch the journal refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its parts shall be tried one by one: this many.
    Parted(usize),
    /// What was tied by renames is tied no longer.
    Untied,
    /// The last change of it is set aside.
    SetAside,
}

/// One name in a batch.
#[derive(Clone, Debug)]
pub struct BatchName {
    /// Which name.
    pub key: Key,
    /// What was published for it.
    pub value: DraftValue,
    /// Which operation made its version; none when only a conflict copy was resolved.
    pub op: Option<usize>,
}

impl Drafts {
    /// Takes what is due, oldest first.
    pub fn take_due(&mut self, now_ms: u64, limits: Limits) -> Option<Batch> {
        let due: Vec<Ticket> = self
            .due
            .iter()
            .take_while(|(due, _)| *due <= now_ms)
            .map(|(_, ticket)| *ticket)
            .collect();
        let mut picked = Picked::default();
        for ticket in due {
            if picked.ops >= limits.ops_max || picked.bytes >= limits.bytes_max {
                break;
            }
            match ticket {
                Ticket::Attr(dir) => picked.attr(self, dir),
                Ticket::Group(group) => {
                    let wanted = self.closure([group]);
                    match self.held_until(&wanted, now_ms) {
                        None => picked.groups(self, wanted),
                        Some(until) => self.postpone(
                            group,
                            until.max(now_ms.saturating_add(self.timing.quiet_ms)),
                        ),
                    }
                }
            }
        }
        self.send_off(picked)
    }

    /// Takes everything that is finished, whatever it waits for.
    pub fn take_all(&mut self, limits: Limits) -> Option<Batch> {
        self.take_where(limits, |_, _| true)
    }

    /// Takes everything that waits for nothing but quiet.
    pub fn take_settled(&mut self, now_ms: u64, limits: Limits) -> Option<Batch> {
        self.take_where(limits, |drafts, groups| drafts.held_until(groups, now_ms).is_none())
    }

    fn take_where(
        &mut self,
        limits: Limits,
        wants: impl Fn(&Self, &HashSet<u64>) -> bool,
    ) -> Option<Batch> {
        let mut picked = Picked::default();
        let mut oldest: Vec<(u64, u64)> = self
            .groups
            .iter()
            .filter_map(|(id, group)| {
                let seqs = group.members.iter().filter_map(|key| self.get(key).map(|d| d.seq));
                seqs.min().map(|seq| (seq, *id))
            })
            .collect();
        oldest.sort_unstable();
        for (_, group) in oldest {
            if picked.ops >= limits.ops_max || picked.bytes >= limits.bytes_max {
                break;
            }
            let wanted = self.closure([group]);
            if !self.is_aside(&wanted) && wants(self, &wanted) {
                picked.groups(self, wanted);
            }
        }
        if picked.ops < limits.ops_max {
            let attrs: Vec<DirId> = self.attrs.keys().copied().collect();
            for dir in attrs {
                if picked.ops >= limits.ops_max {
                    break;
                }
                picked.attr(self, dir);
            }
        }
        self.send_off(picked)
    }

    /// Whether one of the groups holds a change that the journal refused.
    fn is_aside(&self, groups: &HashSet<u64>) -> bool {
        let groups = groups.iter().filter_map(|id| self.groups.get(id));
        let mut members = groups.flat_map(|group| &group.members);
        members.any(|key| self.get(key).is_some_and(|draft| draft.aside))
    }

    /// How many changes the journal refused.
    pub fn refused(&self) -> usize {
        self.iter().filter(|(_, draft)| draft.aside).count()
    }

    /// Takes the groups of these names with all they depend on, whatever they wait for.
    pub fn take_names(&mut self, keys: &[Key]) -> Option<Batch> {
        let groups: Vec<u64> =
            keys.iter().filter_map(|key| self.get(key).map(|d| d.group)).collect();
        let wanted = self.closure(groups);
        let mut picked = Picked::default();
        picked.groups(self, wanted);
        self.send_off(picked)
    }

    /// The groups with every group they cannot go without: that of the directory a member lies in, those inside a
    /// directory that is removed.
    fn closure(&self, groups: impl IntoIterator<Item = u64>) -> HashSet<u64> {
        let mut wanted: HashSet<u64> = HashSet::new();
        let mut todo: VecDeque<u64> = groups.into_iter().collect();
        while let Some(id) = todo.pop_front() {
            if !wanted.insert(id) {
                continue;
            }
            let Some(group) = self.groups.get(&id) else { continue };
            for key in &group.members {
                todo.extend(self.new_dir(key.dir()).map(|(_, draft)| draft.group));
                let removed = self.get(key).map(|draft| draft.removed_dirs.as_slice());
                for dir in removed.unwrap_or_default() {
                    todo.extend(self.in_dir(*dir).map(|(_, draft)| draft.group));
                }
            }
        }
        wanted
    }

    /// Until when one of the groups has to wait: for a name's return or a rename, not merely for quiet.
    fn held_until(&self, groups: &HashSet<u64>, now_ms: u64) -> Option<u64> {
        let held = groups.iter().filter_map(|id| {
            let group = self.groups.get(id)?;
            match self.due_of(group) {
                None => Some(u64::MAX),
                Some(due) if due > now_ms.saturating_add(self.timing.quiet_ms) => Some(due),
                Some(_) => None,
            }
        });
        // An unfinished file gives no time to come back at; the caller looks again after a quiet time.
        let look_again_ms = if self.is_aside(groups) { now_ms + ASIDE_LOOK_MS } else { now_ms };
        held.map(|until| if until == u64::MAX { look_again_ms } else { until }).max()
    }

    fn postpone(&mut self, id: u64, until_ms: u64) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if let Some(old) = group.due_ms.replace(until_ms) {
            self.due.remove(&(old, Ticket::Group(id)));
        }
        self.due.insert((until_ms, Ticket::Group(id)));
    }

    /// Marks what was picked as out and makes its operations.
    fn send_off(&mut self, picked: Picked) -> Option<Batch> {
        enum Item {
            Name(Key),
            Attr(DirId),
        }
        let mut items: Vec<(u64, Item)> = Vec::new();
        let mut batch = Batch { parts: picked.parts, ..Batch::default() };
        for id in picked.groups {
            let Some(mut group) = self.groups.remove(&id) else { continue };
            if let Some(due) = group.due_ms.take() {
                self.due.remove(&(due, Ticket::Group(id)));
            }
            let mut left = HashSet::new();
            for key in group.members.drain().collect::<Vec<_>>() {
                let Some(draft) = self.names.get_mut(&key.dir()).and_then(|n| n.get_mut(&key))
                else {
                    continue;
                };
                if draft.value == DraftValue::Unfinished {
                    left.insert(key);
                } else {
                    draft.flight = Flight::Away;
                    items.push((draft.seq, Item::Name(key.clone())));
                    group.members.insert(key);
                }
            }
            if !left.is_empty() {
                self.keep_behind(&group, left);
            }
            batch.groups.push((id, group));
        }
        for dir in picked.attrs {
            let Some(draft) = self.attrs.get_mut(&dir) else { continue };
            self.due.remove(&(draft.due_ms, Ticket::Attr(dir)));
            draft.flight = Flight::Away;
            items.push((draft.seq, Item::Attr(dir)));
        }
        items.sort_by_key(|(seq, _)| *seq);
        for (_, item) in items {
            match item {
                Item::Name(key) => {
                    let Some(draft) = self.get(&key) else { continue };
                    let (value, resolves_only) = (
                        draft.value.clone(),
                        matches!(draft.value, DraftValue::Gone { .. }) && !draft.live_below,
                    );
                    batch.ops.extend(ops_of(&key, draft));
                    let op = (!resolves_only).then(|| batch.ops.len().saturating_sub(1));
                    batch.names.push(BatchName { key, value, op });
                }
                Item::Attr(dir) => {
                    let Some(draft) = self.attrs.get(&dir) else { continue };
                    batch.ops.push(Op::SetDir { dir, attr: draft.attr.clone() });
                    batch.attrs.push(dir);
                }
            }
        }
        (!batch.ops.is_empty()).then_some(batch)
    }

    /// Unfinished files of a group that goes without them form a group of their own.
    fn keep_behind(&mut self, from: &Group, keys: HashSet<Key>) {
        let id = self.next_group;
        self.next_group += 1;
        for key in &keys {
            if let Some(draft) = self.names.get_mut(&key.dir()).and_then(|n| n.get_mut(key)) {
                draft.group = id;
            }
        }
        self.groups.insert(id, Group { members: keys, first_ms: from.first_ms, due_ms: None });
        self.schedule(id);
    }

    /// The batch is published; `versions` are those of its operations.
    pub fn published(&mut self, batch: &Batch, versions: &[VersionId]) {
        for name in &batch.names {
            let version = name.op.and_then(|op| versions.get(op)).copied();
            let Some(draft) =
                self.names.get_mut(&name.key.dir()).and_then(|n| n.get_mut(&name.key))
            else {
                continue;
            };
            match draft.flight {
                Flight::Overtaken => {
                    draft.flight = Flight::Grounded;
                    draft.bases = version.into_iter().collect();
                    draft.live_below = !matches!(name.value, DraftValue::Gone { .. });
                    draft.resolves = None;
                    self.settle(&name.key);
                }
                Flight::Away | Flight::Grounded => {
                    self.touched.push(Touched::Name(name.key.clone()));
                    self.remove(&name.key);
                }
            }
        }
        for dir in &batch.attrs {
            let Some(draft) = self.attrs.get_mut(dir) else { continue };
            if draft.flight == Flight::Overtaken {
                draft.flight = Flight::Grounded;
                self.due.insert((draft.due_ms, Ticket::Attr(*dir)));
            } else {
                self.attrs.remove(dir);
            }
            self.touched.push(Touched::Attr(*dir));
        }
    }

    /// The batch was not published: everything stands as before, and may go no earlier than `retry_ms`.
    pub fn returned(&mut self, batch: Batch, retry_ms: u64) {
        let mut overtaken: HashMap<u64, Vec<Key>> = HashMap::new();
        let mut homes: HashMap<Key, u64> = HashMap::new();
        for (id, group) in batch.groups {
            homes.extend(group.members.iter().map(|key| (key.clone(), id)));
            self.groups.insert(id, group);
        }
        for name in &batch.names {
            let home = homes.get(&name.key).copied();
            let Some(draft) =
                self.names.get_mut(&name.key.dir()).and_then(|n| n.get_mut(&name.key))
            else {
                continue;
            };
            draft.flight = Flight::Grounded;
            if let Some(home) = home
                && home != draft.group
            {
                overtaken.entry(home).or_default().push(name.key.clone());
            }
        }
        // What was changed on the way is tied again to what it was tied to.
        for (home, keys) in overtaken {
            if let Some(group) = self.groups.get_mut(&home) {
                keys.iter().for_each(|key| {
                    group.members.remove(key);
                });
            }
            let mut tied = home;
            for key in keys {
                if let Some(now) = self.get(&key).map(|draft| draft.group) {
                    tied = self.merge(tied, now);
                }
            }
            self.schedule(tied);
        }
        for name in batch.names {
            self.settle(&name.key);
            if let Some(group) = self.get(&name.key).map(|d| d.group) {
                self.postpone_to_retry(group, retry_ms);
            }
        }
        for dir in batch.attrs {
            if let Some(draft) = self.attrs.get_mut(&dir) {
                draft.flight = Flight::Grounded;
                draft.due_ms = draft.due_ms.max(retry_ms);
                self.due.insert((draft.due_ms, Ticket::Attr(dir)));
            }
        }
    }

    /// The journal cannot take the batch. It is parted, or untied, or its last change is set aside, so that nothing
    /// else has to wait for what is wrong with it; what depends on that change waits with it.
    pub fn refuse(&mut self, batch: Batch, now_ms: u64) -> Refused {
        let parts = batch.parts;
        let mut names: Vec<Key> = batch.names.iter().map(|name| name.key.clone()).collect();
        let tied: Vec<u64> = batch
            .groups
            .iter()
            .filter(|(_, group)| group.members.len() > 1)
            .map(|(id, _)| *id)
            .collect();
        self.returned(batch, now_ms);
        if parts > 1 {
            return Refused::Parted(parts);
        }
        if !tied.is_empty() {
            tied.into_iter().for_each(|id| self.untie(id));
            return Refused::Untied;
        }
        names.sort_by_key(|key| self.get(key).map_or(0, |draft| draft.seq));
        if let Some(last) = names.pop()
            && let Some(draft) = self.names.get_mut(&last.dir()).and_then(|n| n.get_mut(&last))
        {
            draft.aside = true;
            self.schedule_key(&last);
        }
        Refused::SetAside
    }

    /// Gives every member of a group a group of its own.
    fn untie(&mut self, id: u64) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let first_ms = group.first_ms;
        let members: Vec<Key> = group.members.drain().collect();
        for key in members {
            let own = self.new_group(first_ms, &key);
            if let Some(draft) = self.names.get_mut(&key.dir()).and_then(|n| n.get_mut(&key)) {
                draft.group = own;
            }
            self.touched.push(Touched::Name(key));
            self.schedule(own);
        }
        self.schedule(id);
    }

    fn postpone_to_retry(&mut self, id: u64, retry_ms: u64) {
        if self.groups.get(&id).and_then(|g| g.due_ms).is_some_and(|due| due < retry_ms) {
            self.postpone(id, retry_ms);
        }
    }
}

/// What a batch is going to hold.
#[derive(Default)]
struct Picked {
    groups: HashSet<u64>,
    attrs: Vec<DirId>,
    parts: usize,
    ops: usize,
    bytes: usize,
}

impl Picked {
    fn groups(&mut self, drafts: &Drafts, ids: HashSet<u64>) {
        if ids.iter().any(|id| !self.groups.contains(id)) {
            self.parts += 1;
        }
        for id in ids {
            if !self.groups.insert(id) {
                continue;
            }
            let Some(group) = drafts.groups.get(&id) else { continue };
            for draft in group.members.iter().filter_map(|key| drafts.get(key)) {
                self.ops += 1 + usize::from(draft.resolves.is_some());
                self.bytes += size_of_draft(draft);
            }
        }
    }

    fn attr(&mut self, drafts: &Drafts, dir: DirId) {
        if let Some(draft) = drafts.attrs.get(&dir)
            && draft.flight == Flight::Grounded
        {
            self.ops += 1;
            self.parts += 1;
            self.bytes +=
                64 + draft.attr.xattrs.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
            self.attrs.push(dir);
        }
    }
}

/// About what a draft's operations take encoded.
fn size_of_draft(draft: &Draft) -> usize {
    let value = match &draft.value {
        DraftValue::File { value, .. } => {
            80 + value.xattrs.iter().map(|(k, v)| k.len() + v.len() + 4).sum::<usize>()
        }
        DraftValue::Symlink(link) => link.target.len() + 20,
        DraftValue::NewDir { attr, .. } => {
            80 + attr.xattrs.iter().map(|(k, v)| k.len() + v.len() + 4).sum::<usize>()
        }
        DraftValue::Gone { .. } => 80,
        DraftValue::Unfinished => 0,
    };
    let resolves =
        draft.resolves.as_ref().map_or(0, |r| 64 + r.name.as_str().len() + 40 * r.drop.len());
    48 + draft.name.as_str().len() + value + 40 * draft.bases.len() + resolves
}
