//! The rules once more, naively: sets of entries in, the whole tree out. Slow, obvious, written from
//! the design and not from the engine, which is compared with it.
//!
//! Leaves out: extended attributes and owners, and copies whose short names collide by hash.
//!
//! The journal's own tests include this file as well.

use std::collections::{BTreeMap, BTreeSet};

use journal::op::{Arrival, Content, Value};
use journal::order::OrderKey;
use journal::signed::VerifiedEntry;
use journal::{DeviceId, DirId, DriveId, EntryId, EntryName, Op, VersionId};

use super::roster::Roster;

#[path = "checkouts.rs"]
mod checkouts;
#[path = "heads.rs"]
mod heads;
#[path = "shown.rs"]
mod shown;

use checkouts::Checkouts;

pub use shown::{checkouts_differ, nodes_of, walk};
use shown::{first_bytes, stem_and_ending};

type Reg = (DirId, String);
type Key = (OrderKey, u32);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Thing {
    File(Content),
    Link(Vec<u8>),
    Dir(DirId),
    Nothing,
}

struct Version {
    key: Key,
    entry: EntryId,
    /// None for a Resolve.
    reg: Option<Reg>,
    thing: Thing,
    mode: u32,
    bases: Vec<VersionId>,
    /// The bases, but for those that a break keeps it from replacing.
    replaces: Vec<VersionId>,
    /// The directory a move took away from here.
    left: Option<DirId>,
    made: bool,
    skipped: bool,
    /// The name as its author spelled it.
    spelled: String,
    author: DeviceId,
    /// Attributes set for a directory, which may not be what stands in `reg`.
    attr_of: Option<DirId>,
}

struct MoveOp {
    key: Key,
    version: VersionId,
    parts: Vec<(DirId, VersionId, Reg, Reg, VersionId)>,
}

/// One shown node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Node {
    pub reg: Reg,
    pub copy: bool,
    pub version: VersionId,
    pub merged: Vec<VersionId>,
    pub thing: Thing,
    pub mode: u32,
    /// The name it is shown under.
    pub shown: String,
}

pub type Past = BTreeMap<EntryId, BTreeSet<EntryId>>;

pub struct Oracle {
    drive: DriveId,
    past: Past,
    versions: BTreeMap<VersionId, Version>,
    /// What names a version as a base.
    supersede: BTreeMap<VersionId, Vec<VersionId>>,
    /// Versions of each register, in order.
    registers: BTreeMap<Reg, Vec<VersionId>>,
    place: BTreeMap<DirId, Reg>,
    pub roster: Roster,
    pub checkouts: Checkouts,
    pub skipped: BTreeSet<VersionId>,
}

fn reg(dir: DirId, name: &EntryName) -> Reg {
    (dir, name.folded().into_owned())
}

/// What each entry has seen, itself included.
pub fn pasts(order: &[&VerifiedEntry]) -> Past {
    let mut past = Past::new();
    for e in order {
        let mut set = BTreeSet::from([e.id()]);
        e.entry().parents().for_each(|p| set.extend(&past[&p]));
        past.insert(e.id(), set);
    }
    past
}

/// Every entry's place in the order: its own logical time, or that of the first own entry that names it late and may.
fn order_keys(
    order: &[&VerifiedEntry],
    may: impl Fn(&VerifiedEntry, &EntryId) -> bool,
) -> BTreeMap<EntryId, OrderKey> {
    let by_id: BTreeMap<EntryId, &VerifiedEntry> = order.iter().map(|e| (e.id(), *e)).collect();
    let mut late = BTreeMap::new();
    for f in order {
        for start in &f.entry().late {
            let (mut chain, mut at) = (vec![], f.entry().prev);
            while let Some(id) = at {
                chain.push(id);
                if id == *start {
                    for id in chain.iter().filter(|id| may(f, id)) {
                        let first = late.entry(*id).or_insert(f.entry().hlc);
                        *first = f.entry().hlc.min(*first);
                    }
                    break;
                }
                at = by_id[&id].entry().prev;
            }
        }
    }
    let key = |e: &&VerifiedEntry| {
        let published = late.get(&e.id()).copied().unwrap_or(e.entry().hlc);
        let (hlc, device, entry) = (e.entry().hlc, e.entry().device, e.id());
        (entry, OrderKey { published, hlc, device, entry })
    };
    order.iter().map(key).collect()
}

impl Oracle {
    /// The whole tree of `entries`.
    pub fn fold(entries: &[VerifiedEntry]) -> Vec<Node> {
        Self::of(entries).nodes()
    }

    /// Everything the rules say of `entries`, which are closed under what they have seen.
    pub fn of(entries: &[VerifiedEntry]) -> Self {
        let mut o = Self::read(entries);
        o.replay_checkouts();
        o.cut_bases();
        o.index();
        o.replay_moves(entries);
        o
    }

    fn read(entries: &[VerifiedEntry]) -> Self {
        let by_id: BTreeMap<EntryId, &VerifiedEntry> =
            entries.iter().map(|e| (e.id(), e)).collect();
        let mut order: Vec<&VerifiedEntry> = by_id.values().copied().collect();
        order.sort_by_key(|e| (e.entry().hlc, e.id()));
        let past = pasts(&order);
        let genesis = order.iter().find(|e| e.entry().is_genesis()).unwrap();
        let drive = genesis.id().into();
        // Words about members stand where they were said, whatever is named late.
        let mut roster = Roster::fold(drive, &order, &order_keys(&order, |_, _| false), &past);
        let keys = order_keys(&order, |by, id| roster.may_date(by, id, &past));
        roster.places.clone_from(&keys);
        let mut o = Self {
            drive,
            past,
            versions: BTreeMap::new(),
            supersede: BTreeMap::new(),
            registers: BTreeMap::new(),
            place: BTreeMap::new(),
            roster,
            checkouts: Checkouts::default(),
            skipped: BTreeSet::new(),
        };
        for e in &order {
            let key = keys[&e.id()];
            for (index, op) in e.entry().ops.iter().enumerate() {
                let id = VersionId::new(e.id(), index as u32);
                o.read_op(id, key, op);
                o.read_lock(id, key, op);
            }
        }
        o
    }

    fn index(&mut self) {
        for (id, v) in &self.versions {
            for base in &v.replaces {
                self.supersede.entry(*base).or_default().push(*id);
            }
            if let Some(at) = &v.reg {
                self.registers.entry(at.clone()).or_default().push(*id);
            }
        }
        for all in self.registers.values_mut() {
            all.sort_by_key(|id| self.versions[id].key);
        }
    }

    /// Whether the rules know `version`: it fits the past of its entry.
    pub fn has(&self, version: &VersionId) -> bool {
        self.versions.contains_key(version)
    }

    /// How often some kinds of conflict came about.
    pub fn tallies(&self) -> Vec<(&'static str, u64)> {
        let count = |found: &dyn Fn(&VersionId, &Version) -> bool| {
            self.versions.iter().filter(|(id, v)| found(id, v)).count() as u64
        };
        let made = |id: &VersionId, v: &Version| {
            let twin =
                |(other, o): (&VersionId, &Version)| other != id && o.made && o.thing == v.thing;
            v.made && self.versions.iter().any(twin)
        };
        let back = self.place.iter().filter(|(dir, at)| {
            let (heads, void) = self.standing(**dir, at);
            heads.is_empty() && void
        });
        let beats = |id: &VersionId, v: &Version| {
            self.leaf(id)
                && self.is_head(id)
                && v.reg.as_ref().is_some_and(|at| {
                    let all = self.register(at);
                    all.iter().any(|o| self.is_head(o) && self.versions[o].thing == Thing::Nothing)
                })
        };
        let attrs = |id: &VersionId, v: &Version| {
            matches!(v.thing, Thing::File(_))
                && self.is_head(id)
                && v.bases.iter().any(|b| self.versions[b].thing == v.thing)
                && v.bases.iter().any(|b| self.superseders(b).len() > 1)
        };
        vec![
            ("conflict: directory made twice", count(&made)),
            ("conflict: directory back after its removal", back.count() as u64),
            ("conflict: edit beats removal", count(&beats)),
            ("conflict: heads of attributes only merged", count(&attrs)),
            ("checkout: broken", self.checkouts.breaks() as u64),
            ("conflict: base cut by a break", self.cuts() as u64),
            ("conflict: copy resolved", count(&|_, v| v.reg.is_none() && !v.bases.is_empty())),
        ]
    }

    /// Whether what `entry` does to the tree counts.
    fn accepted(&self, entry: &EntryId) -> bool {
        self.roster.accepted(entry)
    }

    fn knows(&self, entry: EntryId, id: &VersionId) -> bool {
        self.past[&entry].contains(&id.entry) && self.versions.contains_key(id)
    }

    fn knows_dir(&self, entry: EntryId, dir: DirId) -> bool {
        dir == DirId::ROOT
            || self.versions.values().any(|v| {
                v.made && v.thing == Thing::Dir(dir) && self.past[&entry].contains(&v.entry)
            })
    }

    fn away(&self, reg: &Reg, bases: &[VersionId]) -> BTreeSet<VersionId> {
        let (mut out, mut passed, mut queue) = (BTreeSet::new(), BTreeSet::new(), bases.to_vec());
        while let Some(id) = queue.pop() {
            let Some(v) = self.versions.get(&id) else { continue };
            if v.reg.as_ref() != Some(reg) || !passed.insert(id) {
                continue;
            }
            if v.left.is_some() {
                out.insert(id);
            }
            queue.extend(&v.bases);
        }
        out
    }

    fn add(
        &mut self,
        id: VersionId,
        order: OrderKey,
        at: Option<Reg>,
        thing: Thing,
        bases: &[VersionId],
    ) {
        let bases: BTreeSet<VersionId> =
            bases.iter().filter(|b| self.knows(id.entry, b)).copied().collect();
        let (key, entry, bases) = ((order, id.index), id.entry, bases.into_iter().collect());
        let (mode, left, made, skipped, attr_of) = (0, None, false, false, None);
        let (author, spelled, replaces) = (order.device, String::new(), Vec::new());
        self.versions.insert(
            id,
            Version {
                key,
                entry,
                reg: at,
                thing,
                mode,
                bases,
                replaces,
                left,
                made,
                skipped,
                spelled,
                author,
                attr_of,
            },
        );
    }

    fn add_value(
        &mut self,
        id: VersionId,
        order: OrderKey,
        at: Reg,
        value: &Value,
        bases: &[VersionId],
    ) {
        let (thing, mode) = match value {
            Value::File(file) => (Thing::File(file.content), file.mode),
            Value::Symlink(link) => (Thing::Link(link.target.clone()), 0),
            Value::Gone { .. } => (Thing::Nothing, 0),
        };
        self.add(id, order, Some(at), thing, bases);
        self.versions.get_mut(&id).unwrap().mode = mode;
    }

    fn read_op(&mut self, id: VersionId, order: OrderKey, op: &Op) {
        match op {
            Op::Put { dir, name, value, bases } if self.knows_dir(id.entry, *dir) => {
                self.add_value(id, order, reg(*dir, name), value, bases);
                self.spell(id, name);
            }
            Op::SetDir { dir, attr } if *dir != DirId::ROOT && self.knows_dir(id.entry, *dir) => {
                self.add(id, order, None, Thing::Nothing, &[]);
                let version = self.versions.get_mut(&id).unwrap();
                (version.mode, version.attr_of) = (attr.mode, Some(*dir));
            }
            Op::MkDir { parent, name, dir, attr, bases } if self.knows_dir(id.entry, *parent) => {
                let at = reg(*parent, name);
                let known: Vec<VersionId> =
                    bases.iter().filter(|b| self.knows(id.entry, b)).copied().collect();
                let away: Vec<VersionId> = self.away(&at, &known).into_iter().collect();
                if DirId::derive(&self.drive, parent, name, &away) == *dir {
                    self.add(id, order, Some(at.clone()), Thing::Dir(*dir), bases);
                    self.spell(id, name);
                    let version = self.versions.get_mut(&id).unwrap();
                    (version.made, version.mode) = (true, attr.mode);
                    version.attr_of = Some(*dir);
                    self.place.insert(*dir, at);
                }
            }
            Op::Move { dir, from, to, bases } => {
                let Some(source) = self.placed(id.entry, from, *dir) else { return };
                let (to, name) = (reg(to.0, &to.1), &to.1);
                if !self.knows_dir(id.entry, to.0) {
                    return;
                }
                if source == to {
                    // It stands there with a suffix and is given the plain name.
                    let bases = [bases.as_slice(), &[*from]].concat();
                    self.add(id, order, Some(to), Thing::Dir(*dir), &bases);
                    self.spell(id, name);
                    return;
                }
                self.add(id, order, Some(to), Thing::Dir(*dir), bases);
                self.spell(id, name);
                self.add(id.second(), order, Some(source), Thing::Nothing, &[*from]);
                self.versions.get_mut(&id.second()).unwrap().left = Some(*dir);
            }
            Op::Exchange { a, b } => {
                let (ra, rb) = (reg(a.dir, &a.name), reg(b.dir, &b.name));
                let fits = |side: &journal::op::ExchangeSide, source: &Reg| match &side.comes {
                    Arrival::Value(_) => true,
                    Arrival::Dir { dir, from } => {
                        self.placed(id.entry, from, *dir).as_ref() == Some(source)
                    }
                };
                let known = |dir| self.knows_dir(id.entry, dir);
                if ra == rb || !known(a.dir) || !known(b.dir) || !fits(a, &rb) || !fits(b, &ra) {
                    return;
                }
                for (side, other, at, id) in [(a, b, ra, id), (b, a, rb, id.second())] {
                    let mut bases = side.bases.clone();
                    if let Arrival::Dir { from, .. } = &other.comes {
                        bases.push(*from);
                    }
                    match &side.comes {
                        Arrival::Value(value) => self.add_value(id, order, at, value, &bases),
                        Arrival::Dir { dir, .. } => {
                            self.add(id, order, Some(at), Thing::Dir(*dir), &bases);
                        }
                    }
                    self.spell(id, &side.name);
                    if let Arrival::Dir { dir, .. } = &other.comes {
                        self.versions.get_mut(&id).unwrap().left = Some(*dir);
                    }
                }
            }
            Op::Resolve { drop, .. } => self.add(id, order, None, Thing::Nothing, drop),
            _ => {}
        }
    }

    fn spell(&mut self, id: VersionId, name: &EntryName) {
        self.versions.get_mut(&id).unwrap().spelled = name.as_str().to_owned();
    }

    fn placed(&self, entry: EntryId, from: &VersionId, dir: DirId) -> Option<Reg> {
        let known = self.knows(entry, from) && self.knows_dir(entry, dir);
        let version = self.versions.get(from).filter(|_| known)?;
        version.reg.clone().filter(|_| version.thing == Thing::Dir(dir))
    }

    /// Every move in order; each applies if it moves what it says from where it says.
    fn replay_moves(&mut self, entries: &[VerifiedEntry]) {
        let mut moves = Vec::new();
        for e in entries.iter().filter(|e| self.accepted(&e.id())) {
            for (index, op) in e.entry().ops.iter().enumerate() {
                let version = VersionId::new(e.id(), index as u32);
                let mut parts = Vec::new();
                let mut part = |dir: &DirId, from: &VersionId, id: VersionId| {
                    let (Some(to), Some(source)) =
                        (self.versions.get(&id), self.versions.get(from))
                    else {
                        return;
                    };
                    let (source, to) = (source.reg.clone().unwrap(), to.reg.clone().unwrap());
                    parts.push((*dir, *from, source, to, id));
                };
                match op {
                    Op::Move { dir, from, .. } => part(dir, from, version),
                    Op::Exchange { a, b } => {
                        for (side, id) in [(a, version), (b, version.second())] {
                            if let Arrival::Dir { dir, from } = &side.comes {
                                part(dir, from, id);
                            }
                        }
                    }
                    _ => {}
                }
                if let Some(first) = parts.first() {
                    let key = (self.versions[&first.4].key.0, version.index);
                    moves.push(MoveOp { key, version, parts });
                }
            }
        }
        moves.sort_by_key(|m| m.key);
        let mut last: BTreeMap<DirId, (VersionId, Key)> = BTreeMap::new();
        for m in moves {
            let current = |(dir, from, source, ..): &(DirId, VersionId, Reg, Reg, VersionId)| {
                let v = &self.versions[from];
                if v.key >= m.key || self.place.get(dir) != Some(source) {
                    return false;
                }
                match last.get(dir) {
                    None => v.made,
                    Some((id, key)) => from == id || (v.made && v.key > *key),
                }
            };
            let mut place = self.place.clone();
            place.extend(m.parts.iter().map(|p| (p.0, p.3.clone())));
            let cycle = m.parts.iter().any(|p| {
                let (mut at, mut steps) = (p.3.0, 0);
                while at != DirId::ROOT && at != p.0 && steps < 1000 {
                    at = place[&at].0;
                    steps += 1;
                }
                at != DirId::ROOT
            });
            if m.parts.iter().all(current) && !cycle {
                self.place = place;
                last.extend(m.parts.iter().map(|p| (p.0, (p.4, m.key))));
            } else {
                self.skipped.insert(m.version);
                for id in [m.version, m.version.second()] {
                    if let Some(v) = self.versions.get_mut(&id) {
                        v.skipped = true;
                    }
                }
            }
        }
    }

    fn live_dirs(&self) -> BTreeSet<DirId> {
        let mut live = BTreeSet::new();
        loop {
            let before = live.len();
            for (dir, at) in &self.place {
                let (heads, void) = self.standing(*dir, at);
                let file = self.versions.iter().any(|(id, v)| {
                    v.reg.as_ref().is_some_and(|r| r.0 == *dir) && self.leaf(id) && self.is_head(id)
                });
                let child = self.place.iter().any(|(d, at)| at.0 == *dir && live.contains(d));
                if !heads.is_empty() || void || file || child {
                    live.insert(*dir);
                }
            }
            if live.len() == before {
                return live;
            }
        }
    }

    /// The whole tree.
    pub fn nodes(&self) -> Vec<Node> {
        let live = self.live_dirs();
        let mut regs: BTreeSet<Reg> =
            self.versions.values().filter_map(|v| v.reg.clone()).collect();
        regs.extend(self.place.values().cloned());
        let mut out: Vec<Node> = regs.iter().flat_map(|at| self.show(at, &live)).collect();
        self.name_copies(&mut out);
        out.sort();
        out
    }

    /// The last move, else the first making.
    fn placement(&self, placed: &[VersionId]) -> Option<VersionId> {
        let moved = |id: &&VersionId| !self.versions[id].made;
        placed.iter().rfind(moved).or(placed.first()).copied()
    }

    /// `stem (conflict USER hhhhhh).ext`; many more digits where a real file has that name.
    fn name_copies(&self, nodes: &mut [Node]) {
        let taken: BTreeSet<Reg> =
            nodes.iter().filter(|n| !n.copy).map(|n| n.reg.clone()).collect();
        for node in nodes.iter_mut().filter(|n| n.copy) {
            let version = &self.versions[&node.version];
            let user = self.roster.user(&version.author);
            let hash = blake3::hash(&node.version.to_bytes()).to_hex();
            let name = |digits: usize| {
                let user = first_bytes(user, 64);
                let tag = format!(" (conflict {user} {})", &hash[..digits]);
                let (stem, ending) = stem_and_ending(&version.spelled);
                let stem = first_bytes(stem, 255 - (tag.len() + ending.len()).min(255));
                format!("{stem}{tag}{ending}")
            };
            node.shown = name(6);
            let folded = EntryName::new(&node.shown).unwrap().folded().into_owned();
            if taken.contains(&(node.reg.0, folded)) {
                node.shown = name(32);
            }
        }
    }

    fn show(&self, at: &Reg, live: &BTreeSet<DirId>) -> Vec<Node> {
        let all = self.register(at);
        let mut heads: Vec<VersionId> =
            all.iter().filter(|id| self.leaf(id) && self.is_head(id)).copied().collect();
        let mut quiet = Vec::new();
        for h in heads.clone() {
            if heads.iter().any(|o| *o != h && self.quiet(&h, o)) {
                heads.retain(|o| *o != h);
                quiet.push(h);
            }
        }
        let here: Vec<DirId> =
            self.place.iter().filter(|(_, p)| *p == at).map(|(dir, _)| *dir).collect();
        let off = self.official(&all, &quiet, &here);
        // Heads that are equal are one; a directory is one however often it was made.
        let mut groups: Vec<(Thing, Vec<VersionId>, bool)> = Vec::new();
        for h in heads {
            let thing = self.versions[&h].thing.clone();
            match groups.iter_mut().find(|g| g.0 == thing) {
                Some(group) => group.1.push(h),
                None => groups.push((thing, vec![h], false)),
            }
        }
        for dir in here.iter().filter(|d| live.contains(d)) {
            let (mut heads, _) = self.standing(*dir, at);
            let back = heads.is_empty();
            if back {
                let is_dir = |id: &&VersionId| self.versions[id].thing == Thing::Dir(*dir);
                let counts = |id: &&VersionId| is_dir(id) && self.counts(id);
                let counted: Vec<VersionId> = all.iter().filter(counts).copied().collect();
                heads.extend(self.placement(&counted).or(all.iter().rfind(is_dir).copied()));
            }
            groups.push((Thing::Dir(*dir), heads, back));
        }
        let wanted = off.first().map(|o| &self.versions[o].thing).filter(|t| **t != Thing::Nothing);
        let mut official = wanted.and_then(|t| groups.iter().position(|g| g.0 == *t));
        official = official.or_else(|| groups.iter().position(|g| g.2));
        let is_leaf = |g: usize| !matches!(groups[g].0, Thing::Dir(_));
        let backups: Vec<usize> = (0..groups.len())
            .filter(|g| official.is_some_and(is_leaf) && Some(*g) != official && is_leaf(*g))
            .filter(|g| groups[*g].1.iter().all(|h| self.backup(h)))
            .collect();
        let mut out = Vec::new();
        for (n, (thing, heads, _)) in groups.iter().enumerate() {
            if backups.contains(&n) {
                continue;
            }
            let mut merged: BTreeSet<VersionId> = heads.iter().copied().collect();
            if is_leaf(n) && (Some(n) == official || (official.is_none() && n == 0)) {
                merged.extend(&quiet);
                backups.iter().for_each(|b| merged.extend(&groups[*b].1));
            }
            let lead = match thing {
                Thing::Dir(_) => self.placement(heads).unwrap(),
                _ => *heads.iter().find(|h| off.contains(h)).unwrap_or(&heads[0]),
            };
            let mode = self.mode(&lead, &merged);
            let (reg, copy, thing) = (at.clone(), Some(n) != official, thing.clone());
            let (version, merged) = (lead, merged.into_iter().collect());
            let shown = self.versions[&version].spelled.clone();
            out.push(Node { reg, copy, version, merged, thing, mode, shown });
        }
        out
    }

    fn mode(&self, lead: &VersionId, merged: &BTreeSet<VersionId>) -> u32 {
        let own = &self.versions[lead];
        if let Thing::Dir(dir) = own.thing {
            let set = self.versions.values().filter(|v| v.attr_of == Some(dir));
            let last = set.filter(|v| self.accepted(&v.entry)).max_by_key(|v| v.key);
            return last.map_or(0o755, |v| v.mode);
        }
        if !matches!(own.thing, Thing::File(_)) {
            return 0;
        }
        let seen = self.ancestors(lead);
        let mut others: Vec<&VersionId> = merged.iter().filter(|id| *id != lead).collect();
        others.sort_by_key(|id| self.versions[*id].key);
        let mut mode = own.mode;
        for id in others {
            let v = &self.versions[id];
            let same =
                |v: &Version| v.bases.iter().find(|b| self.versions[b].thing == v.thing).copied();
            let Some(mut base) = same(v) else { continue };
            while !seen.contains(&base)
                && let Some(older) = same(&self.versions[&base])
            {
                base = older;
            }
            let before = self.versions[&base].mode;
            if v.mode != before && (v.key > own.key || own.mode == before) {
                mode = v.mode;
            }
        }
        mode
    }
}
