//! What one register shows: its heads, the official one among them, and the copies.
//!
//! Leaves out: names of copies ([`crate::conflict`]), where directories stand ([`crate::placement`]).
//!
//! Invariants:
//! - the result is a function of the register's versions, their order, what supersedes them and
//!   which directories stand here; nothing depends on the sequence of arrival;
//! - every live head is in the result: official, a copy, or merged into one of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::canary::{self, Canary};
use crate::chain::{clock_get, clock_row, sees};
use crate::error::StateError;
use crate::fold::Fold;
use crate::id::{DirId, VersionId};
use crate::kv::{KvRead, keys_with};
use crate::lock::Cuts;
use crate::order::OrderKey;
use crate::records::{
    Attrs, EntryRec, RegKey, RegRec, Same, Shown, ShownKind, VersionRec, What, corrupt, key,
    load_entry, load_version, table, version_at_end,
};

/// Most ancestors of one version looked at; beyond it a version counts as unrelated. The bound is
/// part of the rules: every device stops at the same one.
const ANCESTORS_MAX: usize = 65_536;

/// One version of the register with all that is judged of it.
struct Candidate {
    id: VersionId,
    key: (OrderKey, u32),
    rec: VersionRec,
    /// Its bases, but for those that a break keeps it from replacing.
    replaces: Vec<VersionId>,
    /// Accepted and applied.
    counts: bool,
    superseded: bool,
}

impl Candidate {
    fn is_head(&self) -> bool {
        self.counts && !self.superseded
    }
}

/// What is known of the inside of a directory that stands in a register.
#[derive(Default)]
pub(crate) struct Within {
    /// Whether anything in it is shown.
    pub(crate) shows: bool,
    /// Last position per lane of entries that put something inside.
    pub(crate) inside: Vec<(u32, u32)>,
}

/// Answers for the inside of a directory; asked only where the directory's own versions do not decide.
pub(crate) type Look<'a> = dyn FnMut(&DirId) -> Result<Within, StateError> + 'a;

/// What a register shows, and which of the directories that stand in it exist.
pub(crate) struct Derived {
    pub(crate) rec: RegRec,
    pub(crate) lives: Vec<(DirId, bool)>,
}

/// The rules of one register over some set of facts: all that are known, or what a moment knew.
pub(crate) struct Rules<'a> {
    kv: &'a dyn KvRead,
    cuts: Cuts<'a>,
}

/// Heads that are one: the same thing under several ids.
struct Group {
    /// Indices of the candidates, in order.
    heads: Vec<usize>,
    dir: Option<DirId>,
    /// Stands only because something was put inside after its removal was decided.
    resurrected: bool,
}

impl Fold<'_> {
    /// Works out what the register `reg` shows.
    pub(crate) fn derive(&mut self, reg: &RegKey) -> Result<RegRec, StateError> {
        let mut dirs = Vec::new();
        for row in keys_with(self.kv, &key(table::PLACED, &[reg.as_slice()]))? {
            let id = row.last_chunk::<32>().ok_or_else(|| corrupt(&row))?;
            dirs.push(DirId::from_bytes(*id));
        }
        let mut within = BTreeMap::new();
        for id in &dirs {
            let dir = self.dir(id)?;
            within.insert(*id, Within { shows: dir.kids > 0, inside: dir.inside.clone() });
        }
        let rules = Rules::new(&*self.kv)?;
        let look = &mut |id: &DirId| Ok(within.remove(id).unwrap_or_default());
        let Derived { rec, lives } = rules.derive(reg, &dirs, look)?;
        for (id, live) in lives {
            if self.dir(&id)?.live != live {
                self.dir_mut(&id)?.live = live;
                match live {
                    true => self.meta.dirs += 1,
                    false => self.meta.dirs = self.meta.dirs.saturating_sub(1),
                }
            }
            self.dirty_dirs.insert(id);
        }
        Ok(rec)
    }

    /// Whether the entry of one of the directory's makings is in `rec`'s past: what an operation
    /// needs to be about a directory at all.
    pub(crate) fn knows_dir(&mut self, rec: &EntryRec, dir: &DirId) -> Result<bool, StateError> {
        if *dir == DirId::ROOT {
            return Ok(true);
        }
        for made in self.dir(dir)?.made.clone() {
            if let Some(entry) = load_entry(self.kv, &made.entry)?
                && sees(self.kv, rec, &entry)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl<'a> Rules<'a> {
    /// The rules over the facts in `kv`.
    pub(crate) fn new(kv: &'a dyn KvRead) -> Result<Self, StateError> {
        Ok(Self { kv, cuts: Cuts::new(kv)? })
    }

    /// Works out what the register `reg` shows when the directories `dirs` stand in it.
    pub(crate) fn derive(
        &self,
        reg: &RegKey,
        dirs: &[DirId],
        look: &mut Look<'_>,
    ) -> Result<Derived, StateError> {
        let all = self.candidates(reg)?;
        let mut leaves: Vec<usize> = indices(&all, |c| c.is_head() && c.rec.is_leaf());
        let quiet = self.take_quiet(&all, &mut leaves)?;
        let off = self.replay(&all, dirs, &quiet)?;
        let mut groups: Vec<Group> = Vec::new();
        for at in leaves {
            let same = |g: &&mut Group| {
                let first = g.heads.first().and_then(|first| all.get(*first));
                all.get(at).is_some_and(|c| first.is_some_and(|f| f.rec.same() == c.rec.same()))
            };
            match groups.iter_mut().find(same).filter(|_| !canary::is(Canary::EqualHeadsApart)) {
                Some(group) => group.heads.push(at),
                None => groups.push(Group { heads: vec![at], dir: None, resurrected: false }),
            }
        }
        let mut lives = Vec::new();
        for dir in dirs {
            let group = self.judge_dir(&all, dir, look)?;
            lives.push((*dir, group.is_some()));
            groups.extend(group);
        }
        let official = self.official(&all, &off, &groups);
        let backups = self.backups(&all, &groups, official)?;
        let mut out = RegRec::default();
        for (at, group) in groups.iter().enumerate().filter(|(at, _)| !backups.contains(at)) {
            let leads = Some(at) == official || (official.is_none() && at == 0);
            let mut extra = Vec::new();
            if leads && group.dir.is_none() {
                extra.extend(backups.iter().filter_map(|b| groups.get(*b)).flat_map(|g| &g.heads));
                extra.extend(&quiet);
            }
            let Some(shown) = self.show(&all, group, &off, &extra)? else { continue };
            match Some(at) == official {
                true => out.official = Some(shown),
                false => out.copies.push(shown),
            }
        }
        out.copies.sort_by_key(|copy| copy.version);
        let gone = all.iter().filter(|c| c.is_head() && c.rec.is_gone());
        out.gone = gone.map(|c| c.id).collect();
        out.gone.sort_unstable();
        out.simple = simple(&all, dirs, &off);
        Ok(Derived { rec: out, lives })
    }

    fn candidates(&self, reg: &RegKey) -> Result<Vec<Candidate>, StateError> {
        let mut all = Vec::new();
        for row in keys_with(self.kv, &key(table::REG_VERSION, &[reg.as_slice()]))? {
            let id = version_at_end(&row)?;
            let rec = load_version(self.kv, &id)?.ok_or_else(|| corrupt(&row))?;
            let entry = load_entry(self.kv, &id.entry)?.ok_or_else(|| corrupt(&row))?;
            let counts = entry.accepted() && !rec.skipped;
            let superseded = self.superseded(&id)?;
            let key = (entry.order(id.entry), id.index);
            let replaces = self.cuts.uncut(&id, &rec.author, &rec.bases)?;
            all.push(Candidate { id, key, rec, replaces, counts, superseded });
        }
        all.sort_by_key(|c| c.key);
        Ok(all)
    }

    /// What names `id` as a base and is not cut off from it, with whether it is accepted and whether it was skipped.
    fn superseders(
        &self,
        id: &VersionId,
    ) -> Result<Vec<(VersionId, EntryRec, VersionRec)>, StateError> {
        let mut out = Vec::new();
        for row in keys_with(self.kv, &key(table::SUPERSEDE, &[&id.to_bytes()]))? {
            let by = version_at_end(&row)?;
            let rec = load_version(self.kv, &by)?.ok_or_else(|| corrupt(&row))?;
            if self.cuts.is_cut(&by, &rec.author, id)? {
                continue;
            }
            let entry = load_entry(self.kv, &by.entry)?.ok_or_else(|| corrupt(&row))?;
            out.push((by, entry, rec));
        }
        Ok(out)
    }

    /// Whether something that counts replaced `id`, itself or through quarantined versions.
    fn superseded(&self, id: &VersionId) -> Result<bool, StateError> {
        let (mut queue, mut passed) = (VecDeque::from([*id]), BTreeSet::new());
        while let Some(id) = queue.pop_front() {
            for (by, entry, rec) in self.superseders(&id)? {
                match (entry.accepted(), rec.skipped) {
                    (true, false) => return Ok(true),
                    (false, _) if passed.insert(by) => queue.push_back(by),
                    _ => {}
                }
            }
        }
        Ok(false)
    }

    /// Whether `ancestor` is among what `version` builds on, through bases of any register.
    fn builds_on(&self, version: &Candidate, ancestor: &VersionId) -> Result<bool, StateError> {
        if version.replaces.contains(ancestor) {
            return Ok(true);
        }
        let Some(oldest) = load_entry(self.kv, &ancestor.entry)? else { return Ok(false) };
        self.find_ancestor(version, Some(&oldest), |id, _| id == ancestor)
    }

    /// Whether some version that `version` builds on is `wanted`; with `oldest`, only those whose
    /// logical time is after that entry's are followed further.
    fn find_ancestor(
        &self,
        version: &Candidate,
        oldest: Option<&EntryRec>,
        wanted: impl Fn(&VersionId, &VersionRec) -> bool,
    ) -> Result<bool, StateError> {
        let mut queue: VecDeque<VersionId> = version.replaces.iter().copied().collect();
        let mut passed: BTreeSet<VersionId> = queue.iter().copied().collect();
        while let Some(id) = queue.pop_front() {
            let Some(rec) = load_version(self.kv, &id)? else { continue };
            if wanted(&id, &rec) {
                return Ok(true);
            }
            if let Some(oldest) = oldest
                && load_entry(self.kv, &id.entry)?.is_none_or(|entry| entry.hlc <= oldest.hlc)
            {
                continue;
            }
            for base in self.cuts.uncut(&id, &rec.author, &rec.bases)? {
                if passed.len() < ANCESTORS_MAX && passed.insert(base) {
                    queue.push_back(base);
                }
            }
        }
        Ok(false)
    }

    /// Takes out of `leaves` the heads that are never shown beside another: attributes only, and
    /// what another head already replaces under another id.
    fn take_quiet(
        &self,
        all: &[Candidate],
        leaves: &mut Vec<usize>,
    ) -> Result<Vec<usize>, StateError> {
        let mut quiet = Vec::new();
        if leaves.len() < 2 {
            return Ok(quiet);
        }
        for at in leaves.clone() {
            let Some(head) = all.get(at) else { continue };
            let mut beaten = false;
            for other in leaves.iter().filter(|o| **o != at).filter_map(|o| all.get(*o)) {
                beaten = beaten || self.only_attributes(head, other)?;
            }
            if beaten {
                leaves.retain(|o| *o != at);
                quiet.push(at);
            }
        }
        Ok(quiet)
    }

    /// Whether of two files the one only has other attributes than what the other, with bytes of its own, builds on.
    fn only_attributes(&self, one: &Candidate, other: &Candidate) -> Result<bool, StateError> {
        let files = one.rec.is_leaf() && other.rec.is_leaf() && one.rec.same() != other.rec.same();
        Ok(files && self.is_quiet(&one.rec, other)?)
    }

    /// Whether `other` already replaces what `head` says: the version that `head` changed attributes
    /// of, or one equal to it that was based on all it is based on. If `head` has replaced other bytes on the way, `other`
    /// must have seen these too: else it would bring back what was replaced.
    fn is_quiet(&self, head: &VersionRec, other: &Candidate) -> Result<bool, StateError> {
        let (mut kept, mut foreign) = (BTreeSet::new(), BTreeSet::new());
        let mut queue = vec![head.clone()];
        while let Some(rec) = queue.pop() {
            for id in &rec.bases {
                if kept.len() >= ANCESTORS_MAX {
                    break;
                }
                let Some(base) = load_version(self.kv, id)? else { continue };
                if base.same() != head.same() {
                    foreign.extend(base.is_leaf().then_some(*id));
                } else if kept.insert(*id) {
                    queue.push(base);
                }
            }
        }
        let replaced = self.find_ancestor(other, None, |id, past| {
            let equal = past.same() == head.same();
            equal && (kept.contains(id) || head.bases.iter().all(|base| past.bases.contains(base)))
        })?;
        if !replaced {
            return Ok(false);
        }
        for id in foreign {
            if id != other.id && !self.builds_on(other, &id)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn base_with_same(
        &self,
        head: &VersionRec,
    ) -> Result<Option<(VersionId, VersionRec)>, StateError> {
        for id in &head.bases {
            if let Some(base) = load_version(self.kv, id)?
                && base.same() == head.same()
            {
                return Ok(Some((*id, base)));
            }
        }
        Ok(None)
    }

    /// Replays the versions in order; gives the one that ends up official with its equals.
    fn replay(
        &self,
        all: &[Candidate],
        dirs: &[DirId],
        quiet: &[usize],
    ) -> Result<Vec<usize>, StateError> {
        let mut off: Vec<usize> = Vec::new();
        for (at, next) in all.iter().enumerate() {
            if !next.counts || quiet.contains(&at) {
                continue;
            }
            if let What::Dir { dir, .. } = &next.rec.what
                && !dirs.contains(dir)
                && !next.superseded
            {
                continue;
            }
            let Some(first) = off.first().and_then(|first| all.get(*first)) else {
                off.push(at);
                continue;
            };
            let mut takes = first.rec.is_gone() && !next.rec.is_gone();
            takes = takes && !canary::is(Canary::GoneBeatsEdit);
            takes = takes || canary::is(Canary::StaleBaseAccepted);
            if canary::is(Canary::OfficialIsSmallest) {
                takes = off.iter().filter_map(|o| all.get(*o)).all(|c| c.superseded);
            }
            for old in off.iter().filter_map(|o| all.get(*o)) {
                takes =
                    takes || self.builds_on(next, &old.id)? || self.only_attributes(old, next)?;
            }
            takes = takes || self.left_behind(all, &off)?;
            match (takes, first.rec.same() == next.rec.same()) {
                (true, _) => off = vec![at],
                (false, true) => off.push(at),
                (false, false) => {}
            }
        }
        Ok(off)
    }

    /// Whether the official one was replaced, and by nothing of this register.
    fn left_behind(&self, all: &[Candidate], off: &[usize]) -> Result<bool, StateError> {
        for candidate in off.iter().filter_map(|o| all.get(*o)) {
            if !candidate.superseded {
                return Ok(false);
            }
            let here = |c: &Candidate| c.counts && c.replaces.contains(&candidate.id);
            if all.iter().any(here) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the directory `id`, which stands here, exists, and as which heads.
    fn judge_dir(
        &self,
        all: &[Candidate],
        id: &DirId,
        look: &mut Look<'_>,
    ) -> Result<Option<Group>, StateError> {
        let here = |c: &Candidate| matches!(c.rec.what, What::Dir { dir, .. } if dir == *id);
        let direct = indices(all, |c| c.is_head() && here(c));
        if direct.is_empty() {
            let within = look(id)?;
            let placements: Vec<&Candidate> = all.iter().filter(|c| c.counts && here(c)).collect();
            if !within.shows && !self.outlives_removals(&placements, id, &within.inside)? {
                return Ok(None);
            }
        }
        let resurrected = direct.is_empty();
        let heads = match resurrected {
            false => direct,
            true => {
                let counted = indices(all, |c| c.counts && here(c));
                let found = placement(all, &counted).or_else(|| all.iter().rposition(here));
                found.into_iter().collect()
            }
        };
        Ok(Some(Group { heads, dir: Some(*id), resurrected }))
    }

    /// Whether one of a directory's placements, all of them replaced, still stands: nothing put the
    /// directory elsewhere, and every removal that knew of it is void, because it had not seen
    /// something that was put inside.
    fn outlives_removals(
        &self,
        placements: &[&Candidate],
        dir: &DirId,
        inside: &[(u32, u32)],
    ) -> Result<bool, StateError> {
        let (mut standing, mut removals) = (Vec::new(), Vec::new());
        for placement in placements {
            let mut replaced = false;
            for (by, entry, rec) in self.superseders(&placement.id)? {
                let acts = match entry.accepted() {
                    true => !rec.skipped,
                    false => self.superseded(&by)?,
                };
                match &rec.what {
                    _ if !acts => {}
                    What::Dir { dir: other, .. } | What::Left { dir: other, .. }
                        if other == dir =>
                    {
                        replaced = true;
                    }
                    _ if !self.is_void(&entry, inside)? => removals.push(entry),
                    _ => {}
                }
            }
            if !replaced {
                standing.push(placement);
            }
        }
        for placement in standing {
            let made = load_entry(self.kv, &placement.id.entry)?;
            let mut known = false;
            for removal in &removals {
                known = known
                    || made.as_ref().map_or(Ok(false), |made| sees(self.kv, removal, made))?;
            }
            if !known {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether something was put inside that `removal` had not seen.
    fn is_void(&self, removal: &EntryRec, inside: &[(u32, u32)]) -> Result<bool, StateError> {
        if canary::is(Canary::ResurrectionLost) {
            return Ok(false);
        }
        let clock = clock_row(self.kv, removal.lane, removal.clock_pos)?;
        Ok(inside.iter().any(|(lane, pos)| match *lane == removal.lane {
            true => *pos > removal.pos,
            false => clock_get(&clock, *lane).is_none_or(|seen| seen < *pos),
        }))
    }

    fn official(&self, all: &[Candidate], off: &[usize], groups: &[Group]) -> Option<usize> {
        let same_as = |group: &Group, c: &Candidate| match group.dir {
            Some(dir) => c.rec.same() == Same::Dir(dir),
            None => {
                group.heads.iter().filter_map(|h| all.get(*h)).any(|h| h.rec.same() == c.rec.same())
            }
        };
        let off = off.first().and_then(|o| all.get(*o)).filter(|c| !c.rec.is_gone());
        let found = off.and_then(|c| groups.iter().position(|group| same_as(group, c)));
        // A directory that is back where it was has the plain name as long as nothing else does.
        found.or_else(|| groups.iter().position(|group| group.resurrected))
    }

    /// Losing heads that only rename a version which their own entry replaces elsewhere: a program's
    /// backup of what it saved over, kept in that file's history.
    fn backups(
        &self,
        all: &[Candidate],
        groups: &[Group],
        official: Option<usize>,
    ) -> Result<Vec<usize>, StateError> {
        let mut out = Vec::new();
        if official.and_then(|o| groups.get(o)).is_none_or(|group| group.dir.is_some()) {
            return Ok(out);
        }
        for (at, group) in groups.iter().enumerate() {
            if Some(at) == official || group.dir.is_some() {
                continue;
            }
            let mut only = true;
            for head in group.heads.iter().filter_map(|h| all.get(*h)) {
                only = only && self.is_backup(head)?;
            }
            if only {
                out.push(at);
            }
        }
        Ok(out)
    }

    fn is_backup(&self, head: &Candidate) -> Result<bool, StateError> {
        for row in keys_with(self.kv, &key(table::VERSION, &[head.id.entry.as_bytes()]))? {
            let id = version_at_end(&row)?;
            let Some(other) = load_version(self.kv, &id)? else { continue };
            let elsewhere = match (&other.register, &head.rec.register) {
                (Some(a), Some(b)) => RegKey::of(a) != RegKey::of(b),
                _ => false,
            };
            let saves = elsewhere && other.is_leaf() && other.same() != head.rec.same();
            let backup = saves && self.replaces_same(&other, head.rec.same())?;
            // Each has taken the other's place: nothing was saved, and nothing is a backup of anything.
            if backup && !self.replaces_same(&head.rec, other.same())? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether `version` replaces something equal to `same` in its own register.
    fn replaces_same(&self, version: &VersionRec, same: Same<'_>) -> Result<bool, StateError> {
        let own = version.register.as_ref().map(RegKey::of);
        for base in &version.bases {
            if let Some(base) = load_version(self.kv, base)?
                && base.same() == same
                && base.register.as_ref().map(RegKey::of) == own
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn show(
        &self,
        all: &[Candidate],
        group: &Group,
        off: &[usize],
        extra: &[usize],
    ) -> Result<Option<Shown>, StateError> {
        let preferred = group.heads.iter().find(|h| off.contains(h));
        let lead = match group.dir {
            Some(_) => placement(all, &group.heads),
            None => preferred.or(group.heads.first()).copied(),
        };
        let Some(lead) = lead.and_then(|lead| all.get(lead)) else { return Ok(None) };
        let others: Vec<&Candidate> =
            group.heads.iter().chain(extra).filter_map(|h| all.get(*h)).collect();
        let merged: BTreeSet<VersionId> = others.iter().map(|c| c.id).chain([lead.id]).collect();
        let (kind, attrs) = match (&lead.rec.what, group.dir) {
            (_, Some(dir)) => (ShownKind::Dir(dir), None),
            (What::Symlink(_), None) => (ShownKind::Symlink, None),
            _ => (ShownKind::File, self.merge_attrs(lead, &others)?),
        };
        let Some(register) = &lead.rec.register else { return Ok(None) };
        let shown = register.name.clone();
        let merged = merged.into_iter().collect();
        Ok(Some(Shown { version: lead.id, merged, kind, attrs, shown }))
    }

    /// The attributes of `lead` with what the other ids of the head changed in theirs, each attribute by itself: one
    /// that only they changed is theirs, of one that both changed the latest is taken.
    fn merge_attrs(
        &self,
        lead: &Candidate,
        others: &[&Candidate],
    ) -> Result<Option<Attrs>, StateError> {
        let Some(own) = attrs(&lead.rec) else { return Ok(None) };
        let mut merged = own.clone();
        let mut sorted: Vec<&&Candidate> = others.iter().filter(|c| c.id != lead.id).collect();
        sorted.sort_by_key(|c| c.key);
        for other in sorted {
            let (Some(theirs), Some(base)) =
                (attrs(&other.rec), self.attrs_before(&other.rec, lead)?)
            else {
                continue;
            };
            let later = other.key > lead.key;
            if theirs.mode != base.mode && (later || own.mode == base.mode) {
                merged.mode = theirs.mode;
            }
            if theirs.owner != base.owner && (later || own.owner == base.owner) {
                merged.owner = theirs.owner;
            }
            let names: BTreeSet<&Vec<u8>> =
                theirs.xattrs.keys().chain(base.xattrs.keys()).collect();
            for name in names {
                let (new, old) = (theirs.xattrs.get(name), base.xattrs.get(name));
                if new == old || !(later || own.xattrs.get(name) == old) {
                    continue;
                }
                match new {
                    Some(value) => merged.xattrs.insert(name.clone(), value.clone()),
                    None => merged.xattrs.remove(name),
                };
            }
        }
        Ok((merged != own).then_some(merged))
    }

    /// The attributes under `version` before the run of attribute changes it ends, as far as `lead` has not seen it.
    fn attrs_before(
        &self,
        version: &VersionRec,
        lead: &Candidate,
    ) -> Result<Option<Attrs>, StateError> {
        let mut at = self.base_with_same(version)?;
        for _ in 0..ANCESTORS_MAX {
            let Some((id, rec)) = &at else { break };
            if self.builds_on(lead, id)? {
                break;
            }
            match self.base_with_same(rec)? {
                Some(older) => at = Some(older),
                None => break,
            }
        }
        Ok(at.and_then(|(_, rec)| attrs(&rec)))
    }
}

/// Of the versions that place a directory here the one it is moved from and named after: the last move, else the first
/// making. A making that arrives beside others so changes no name.
fn placement(all: &[Candidate], placed: &[usize]) -> Option<usize> {
    let is_move = |at: &&usize| {
        all.get(**at).is_some_and(|c| matches!(c.rec.what, What::Dir { made: None, .. }))
    };
    placed.iter().rev().find(is_move).or(placed.first()).copied()
}

fn attrs(rec: &VersionRec) -> Option<Attrs> {
    match &rec.what {
        What::File(file) => {
            Some(Attrs { mode: file.mode, xattrs: file.xattrs.clone(), owner: file.owner })
        }
        _ => None,
    }
}

fn indices(all: &[Candidate], keep: impl Fn(&Candidate) -> bool) -> Vec<usize> {
    all.iter().enumerate().filter(|(_, c)| keep(c)).map(|(at, _)| at).collect()
}

/// The register's one head and the last key in it, when a newer version that builds on that head
/// can simply replace it.
fn simple(all: &[Candidate], dirs: &[DirId], off: &[usize]) -> Option<(VersionId, OrderKey)> {
    let files = dirs.is_empty() && all.iter().all(|c| c.rec.is_leaf() || c.rec.is_gone());
    let mut heads = all.iter().enumerate().filter(|(_, c)| c.is_head());
    let (at, head) = heads.next()?;
    let alone = heads.next().is_none() && off == [at];
    let last = all.iter().map(|c| c.key.0).max()?;
    (files && alone).then_some((head.id, last))
}
