//! A few devices that work, part, meet again, lose their disks: entries as they come about.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use journal::kv::mem::MemKv;
use journal::op::{Arrival, DirAttr, ExchangeSide, FileValue};
use journal::signed::VerifiedEntry;
use journal::state::State;
use journal::{
    AppendError, DirId, EntryId, EntryName, Frontier, Journal, Op, Register, Role, Signer,
    Standing, Value, VersionId, ViewKind, ViewNode,
};

use crate::forge::{
    MemStorage, admit, feed, file, file_with, gone_in, invite_key, journal_of, link, list, name,
    now, put_in, signer_of, spec,
};

/// SplitMix64: every run is its seed.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len()))
    }

    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for at in (1..all.len()).rev() {
            all.swap(at, self.below(at + 1));
        }
    }
}

pub struct Device {
    pub signer: Signer,
    pub journal: Journal,
    storage: MemStorage,
    backup: Option<MemStorage>,
    skew: u64,
    group: usize,
    loaded: BTreeMap<(DirId, String), Vec<VersionId>>,
}

pub struct Cluster {
    pub rng: Rng,
    pub devices: Vec<Device>,
    pub genesis: VerifiedEntry,
    pub written: BTreeMap<VersionId, Register>,
    wall: u64,
    texts: u64,
    forks: bool,
    pub removals: bool,
    /// Of a hundred acts how many are about checkouts beyond the usual.
    pub locks: u64,
}

impl Cluster {
    pub fn new(seed: u64, forks: bool) -> Self {
        let mut rng = Rng(seed);
        let count = 2 + rng.below(3);
        let a = signer_of('A');
        let genesis = Journal::genesis(&a, spec(), now(1000)).unwrap();
        let mut devices = Vec::new();
        for device in ['A', 'B', 'C', 'D'].into_iter().take(count) {
            let (journal, storage) = journal_of(&genesis);
            let skew = [0, 0, 0, 40, 80, 3][rng.below(6)];
            let (signer, loaded) = (signer_of(device), BTreeMap::new());
            devices.push(Device { signer, journal, storage, backup: None, skew, group: 0, loaded });
        }
        let mut ops = vec![Op::Invite {
            key: invite_key(),
            role: Role::Owner,
            expires: u64::MAX >> 16,
            uses: 9,
        }];
        let drive = genesis.id().into();
        ops.extend(['B', 'C', 'D'].into_iter().take(count - 1).map(|d| admit(&drive, d)));
        let admin = devices[0].journal.author(&a, ops, now(1000)).unwrap();
        for device in devices.iter().skip(1) {
            device.journal.receive(&[Arc::clone(&admin.bytes)], now(1000)).unwrap();
        }
        let written = BTreeMap::new();
        let (wall, texts, removals, locks) = (2000, 0, false, 0);
        Self { rng, devices, genesis, written, wall, texts, forks, removals, locks }
    }

    pub fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.wall += [1, 1, 5, 30][self.rng.below(4)];
            if self.rng.chance(20) {
                self.regroup();
            }
            if self.rng.chance(60) {
                self.flow();
            }
            let at = self.rng.below(self.devices.len());
            self.act(at);
            if self.forks && self.rng.chance(2) {
                self.lose_disk(at);
            }
        }
        self.devices.iter_mut().for_each(|d| d.group = 0);
        for at in 0..self.devices.len() {
            self.meet(at);
        }
        for _ in 0..self.devices.len() {
            self.exchange(usize::MAX);
        }
    }

    fn regroup(&mut self) {
        for at in 0..self.devices.len() {
            let group = if self.rng.chance(50) { 0 } else { self.rng.below(3) };
            let old = std::mem::replace(&mut self.devices[at].group, group);
            if old != group {
                self.meet(at);
            }
        }
    }

    /// What a device does on a (re)connection: it pulls, then says what is late, then pushes.
    fn meet(&mut self, at: usize) {
        let others = self.mates(at);
        for other in &others {
            self.pull(at, *other, usize::MAX);
        }
        if !others.is_empty() {
            let device = &self.devices[at];
            let late = device.journal.author_late(&device.signer, now(self.wall + device.skew));
            assert!(late.is_ok() || self.removals);
        }
    }

    fn mates(&self, at: usize) -> Vec<usize> {
        let group = self.devices[at].group;
        (0..self.devices.len()).filter(|o| *o != at && self.devices[*o].group == group).collect()
    }

    fn pull(&mut self, to: usize, from: usize, bytes_max: usize) {
        let frontier: Frontier = self.devices[to].journal.frontier();
        let mut entries = self.devices[from].journal.lacking(&frontier, bytes_max);
        self.rng.shuffle(&mut entries);
        let mut got = self.devices[to].journal.receive(&entries, now(0)).unwrap();
        assert_eq!(got.refused, vec![]);
        while !got.wants.is_empty() {
            let wanted: Vec<Arc<[u8]>> =
                got.wants.iter().filter_map(|id| self.devices[from].journal.entry(id)).collect();
            if wanted.is_empty() {
                break;
            }
            got = self.devices[to].journal.receive(&wanted, now(0)).unwrap();
        }
        let by = self.devices[to].signer.device();
        let held = self.devices[to].journal.frontier();
        self.devices[from].journal.acknowledged(by, &held);
    }

    fn flow(&mut self) {
        let bytes_max = [500, 2000, usize::MAX][self.rng.below(3)];
        self.exchange(bytes_max);
    }

    fn exchange(&mut self, bytes_max: usize) {
        for to in 0..self.devices.len() {
            for from in self.mates(to) {
                self.pull(to, from, bytes_max);
            }
        }
    }

    /// The disk comes back from a backup: the chain goes on from an older entry.
    fn lose_disk(&mut self, at: usize) {
        match self.devices[at].backup.take() {
            None => self.devices[at].backup = Some(self.devices[at].storage.copy()),
            Some(backup) => {
                let state = State::Memory(MemKv::default());
                let storage = Arc::new(backup.clone());
                self.devices[at].journal = Journal::open_with(storage, state, None).unwrap();
                self.devices[at].storage = backup;
                self.devices[at].loaded.clear();
            }
        }
    }

    /// Writes `ops`; none when the device may no longer, which only removals bring about.
    fn emit(&mut self, at: usize, ops: Vec<Op>) -> Option<VersionId> {
        let device = &self.devices[at];
        let wall = now(self.wall + device.skew);
        let done = match device.journal.author(&device.signer, ops.clone(), wall) {
            Ok(done) => done,
            Err(AppendError::NotMember | AppendError::Role { .. }) if self.removals => return None,
            Err(error) => panic!("{error}: {ops:?}"),
        };
        for (op, id) in ops.iter().zip(&done.versions) {
            if let Op::Put { dir, name, value: Value::File(_), .. } = op {
                self.written.insert(*id, Register::new(*dir, name.clone()));
            }
        }
        done.versions.first().copied()
    }

    fn text(&mut self) -> String {
        self.texts += 1;
        // Now and then two devices write the same bytes.
        if self.rng.chance(15) {
            format!("same {}", self.rng.below(3))
        } else {
            format!("t{}", self.texts)
        }
    }

    fn act(&mut self, at: usize) {
        let mut dirs = vec![DirId::ROOT];
        let (mut files, mut subdirs) = (Vec::new(), Vec::new());
        let mut next = 0;
        while let Some(dir) = dirs.get(next).copied() {
            for node in list(&self.devices[at].journal, dir) {
                match &node.kind {
                    ViewKind::Dir { dir: id, .. } => {
                        dirs.push(*id);
                        subdirs.push((dir, node));
                    }
                    _ => files.push((dir, node)),
                }
            }
            next += 1;
        }
        let dir = *self.rng.pick(&dirs).unwrap();
        if self.locks > 0 && self.rng.chance(self.locks) {
            return self.lock(at, dir, &files);
        }
        if self.locks > 0 && self.rng.chance(40) {
            let own = self.devices[at].signer.device();
            files.retain(|(dir, node)| {
                let register = Register::new(*dir, node.register.name.clone());
                let found = self.devices[at].journal.checkout(&register).unwrap();
                found.is_some_and(|found| found.device == own)
            });
            return self.save(at, &files);
        }
        match self.rng.below(110) {
            0..15 => self.create(at, dir),
            15..20 => self.load(at, &files),
            20..44 => self.save(at, &files),
            44..52 => self.remove(at, &files),
            52..62 => self.rename(at, dir, &files),
            62..72 => self.make_dir(at, dir),
            72..82 => self.move_dir(at, dir, &subdirs),
            82..89 => self.remove_dir(at, &subdirs),
            89..92 => self.change_mode(at, &files),
            92..95 => self.dance(at, &files),
            95..97 => self.swap(at, &files, &subdirs),
            97..99 => self.set_dir(at, &subdirs),
            99 => self.remove_member(at),
            _ => self.lock(at, dir, &files),
        }
    }

    fn bases(&self, at: usize, dir: DirId, name: &EntryName) -> Vec<VersionId> {
        let journal = &self.devices[at].journal;
        let mut bases = journal.gone_heads(dir, name).unwrap();
        if let Some(node) = journal.lookup(dir, name).unwrap()
            && node.standing == Standing::Official
        {
            bases.extend(node.merged);
        }
        bases
    }

    fn name(&mut self, from: &str) -> EntryName {
        let all: Vec<String> = from.chars().map(|c| c.to_string()).collect();
        name(self.rng.pick(&all).unwrap())
    }

    fn is_free(&self, at: usize, dir: DirId, name: &EntryName) -> bool {
        self.devices[at].journal.lookup(dir, name).unwrap().is_none()
    }

    fn create(&mut self, at: usize, dir: DirId) {
        let name = self.name("xy");
        if self.is_free(at, dir, &name) {
            let text = self.text();
            let value = if self.rng.chance(15) { link(&text) } else { file(&text) };
            let bases = self.bases(at, dir, &name);
            self.emit(at, vec![put_in(dir, name.as_str(), value, &bases)]);
        }
    }

    fn load(&mut self, at: usize, files: &[(DirId, ViewNode)]) {
        if let Some((dir, node)) = self.rng.pick(files) {
            let key = (*dir, node.shown.as_str().to_owned());
            self.devices[at].loaded.insert(key, node.merged.clone());
        }
    }

    fn save(&mut self, at: usize, files: &[(DirId, ViewNode)]) {
        let Some((dir, node)) = self.rng.pick(files).cloned() else { return };
        let (text, shown) = (self.text(), node.shown.as_str());
        let loaded = self.devices[at].loaded.remove(&(dir, shown.to_owned()));
        if node.standing == Standing::Copy {
            let resolve = Op::Resolve { dir, name: node.register.name.clone(), drop: node.merged };
            let bases = self.bases(at, dir, &node.shown);
            self.emit(at, vec![resolve, put_in(dir, shown, file(&text), &bases)]);
            return;
        }
        let mut bases = self.devices[at].journal.gone_heads(dir, &node.shown).unwrap();
        let stale = loaded.is_some();
        bases.extend(loaded.unwrap_or(node.merged));
        let id = self.emit(at, vec![put_in(dir, shown, file(&text), &bases)]);
        if !stale && !self.forks && !self.removals {
            let now = self.devices[at].journal.lookup(dir, &node.shown).unwrap();
            let now = now.unwrap_or_else(|| {
                panic!("{shown} is gone: {:?}", self.devices[at].journal.history(dir, &node.shown))
            });
            assert!(
                now.merged.contains(&id.unwrap()),
                "a save over the official file stays official"
            );
            assert_eq!(now.standing, Standing::Official);
        }
    }

    fn remove(&mut self, at: usize, files: &[(DirId, ViewNode)]) {
        let Some((dir, node)) = self.rng.pick(files).cloned() else { return };
        if node.standing == Standing::Copy {
            let (name, drop) = (node.register.name, node.merged);
            self.emit(at, vec![Op::Resolve { dir, name, drop }]);
        } else {
            let bases = self.bases(at, dir, &node.shown);
            self.emit(at, vec![gone_in(dir, node.shown.as_str(), &bases)]);
        }
        let left = self.devices[at].journal.lookup(dir, &node.shown).unwrap();
        let still = left.is_some_and(|left| left.version == node.version);
        assert!(!still || self.removals, "what was removed is gone");
    }

    fn value(node: &ViewNode) -> Value {
        match &node.kind {
            ViewKind::File(file) => Value::File(file.clone()),
            ViewKind::Symlink(link) => Value::Symlink(link.clone()),
            ViewKind::Dir { .. } => unreachable!("only files are taken"),
        }
    }

    fn rename(&mut self, at: usize, to: DirId, files: &[(DirId, ViewNode)]) {
        let Some((dir, node)) = self.rng.pick(files).cloned() else { return };
        let target = self.name("xyz");
        let found = self.devices[at].journal.lookup(to, &target).unwrap();
        let onto_dir = found.is_some_and(|n| matches!(n.kind, ViewKind::Dir { .. }));
        if onto_dir || (to == dir && target == node.shown) {
            return;
        }
        let mut bases = self.bases(at, to, &target);
        bases.extend(&node.merged);
        let away = if node.standing == Standing::Copy {
            Op::Resolve { dir, name: node.register.name.clone(), drop: node.merged.clone() }
        } else {
            let moved_to = Some((to, target.clone()));
            let bases = self.bases(at, dir, &node.shown);
            put_in(dir, node.shown.as_str(), Value::Gone { moved_to }, &bases)
        };
        self.emit(at, vec![away, put_in(to, target.as_str(), Self::value(&node), &bases)]);
    }

    fn make_dir(&mut self, at: usize, parent: DirId) {
        let name = self.name("pqx");
        if self.is_free(at, parent, &name) {
            let journal = &self.devices[at].journal;
            let bases = journal.gone_heads(parent, &name).unwrap();
            let dir = journal.new_dir_id(parent, &name, &bases).unwrap();
            let attr = DirAttr::default();
            self.emit(at, vec![Op::MkDir { parent, name: name.clone(), dir, attr, bases }]);
        }
    }

    fn is_within(&self, at: usize, mut dir: DirId, top: DirId) -> bool {
        while dir != DirId::ROOT {
            if dir == top {
                return true;
            }
            dir = self.devices[at].journal.dir(dir).unwrap().unwrap().parent;
        }
        false
    }

    fn move_dir(&mut self, at: usize, to: DirId, subdirs: &[(DirId, ViewNode)]) {
        let Some((_, node)) = self.rng.pick(subdirs).cloned() else { return };
        let ViewKind::Dir { dir, .. } = node.kind else { return };
        let target = self.name("pqr");
        if self.is_within(at, to, dir) || !self.is_free(at, to, &target) {
            return;
        }
        let bases = self.devices[at].journal.gone_heads(to, &target).unwrap();
        let from = node.version;
        self.emit(at, vec![Op::Move { dir, from, to: (to, target.clone()), bases }]);
        if !self.forks && !self.removals {
            let now = self.devices[at].journal.dir(dir).unwrap().unwrap();
            assert_eq!((now.parent, now.shown), (to, target), "a move takes effect for its mover");
        }
    }

    fn remove_dir(&mut self, at: usize, subdirs: &[(DirId, ViewNode)]) {
        let Some((parent, node)) = self.rng.pick(subdirs).cloned() else { return };
        let ViewKind::Dir { dir, .. } = node.kind else { return };
        if !list(&self.devices[at].journal, dir).is_empty() {
            return;
        }
        if node.standing == Standing::Copy {
            let (name, drop) = (node.register.name, node.merged);
            self.emit(at, vec![Op::Resolve { dir: parent, name, drop }]);
        } else {
            let mut bases = self.devices[at].journal.gone_heads(parent, &node.shown).unwrap();
            bases.extend(node.merged);
            self.emit(at, vec![gone_in(parent, node.shown.as_str(), &bases)]);
        }
        if !self.removals {
            assert_eq!(
                self.devices[at].journal.dir(dir).unwrap(),
                None,
                "a removed directory is gone"
            );
        }
    }

    fn change_mode(&mut self, at: usize, files: &[(DirId, ViewNode)]) {
        let Some((dir, node)) = self.rng.pick(files).cloned() else { return };
        let ViewKind::File(file) = node.kind else { return };
        if node.standing == Standing::Official {
            let mode = [0o600, 0o644, 0o755][self.rng.below(3)];
            let value = Value::File(FileValue { mode, ..file });
            self.emit(at, vec![put_in(dir, node.shown.as_str(), value, &node.merged)]);
        }
    }

    /// A program's way to save: the old version to a backup name, the new one in its place.
    fn dance(&mut self, at: usize, files: &[(DirId, ViewNode)]) {
        let Some((dir, node)) = self.rng.pick(files).cloned() else { return };
        let ViewKind::File(old) = &node.kind else { return };
        if node.standing == Standing::Copy || !["x", "y"].contains(&node.shown.as_str()) {
            return;
        }
        let backup = name(&format!("{}1", node.shown));
        let (text, bases) = (self.text(), self.bases(at, dir, &backup));
        let mut own = self.devices[at].journal.gone_heads(dir, &node.shown).unwrap();
        own.extend(&node.merged);
        let ops = vec![
            put_in(dir, node.shown.as_str(), file_with(&text, 0o644), &own),
            put_in(dir, backup.as_str(), Value::File(old.clone()), &bases),
        ];
        self.emit(at, ops);
    }

    fn swap(&mut self, at: usize, files: &[(DirId, ViewNode)], subdirs: &[(DirId, ViewNode)]) {
        let one = self.rng.pick(files).cloned();
        let other = if self.rng.chance(50) { self.rng.pick(files) } else { self.rng.pick(subdirs) }
            .cloned();
        let (Some((dir_a, a)), Some((dir_b, b))) = (one, other) else { return };
        let copies = a.standing == Standing::Copy || b.standing == Standing::Copy;
        if copies || a.version == b.version {
            return;
        }
        let comes = |node: &ViewNode| match &node.kind {
            ViewKind::Dir { dir, .. } => Arrival::Dir { dir: *dir, from: node.version },
            _ => Arrival::Value(Self::value(node)),
        };
        if let ViewKind::Dir { dir, .. } = b.kind
            && self.is_within(at, dir_a, dir)
        {
            return;
        }
        let side = |dir, here: &ViewNode, there: &ViewNode| ExchangeSide {
            dir,
            name: here.shown.clone(),
            comes: comes(there),
            bases: here.merged.clone(),
        };
        self.emit(at, vec![Op::Exchange { a: side(dir_a, &a, &b), b: side(dir_b, &b, &a) }]);
    }

    fn set_dir(&mut self, at: usize, subdirs: &[(DirId, ViewNode)]) {
        let Some((_, node)) = self.rng.pick(subdirs).cloned() else { return };
        let ViewKind::Dir { dir, attr } = node.kind else { return };
        let mode = [0o700, 0o750, 0o755][self.rng.below(3)];
        self.emit(at, vec![Op::SetDir { dir, attr: DirAttr { mode, ..attr } }]);
    }

    /// Takes a name for itself, gives it back, or breaks somebody's hold of it.
    fn lock(&mut self, at: usize, dir: DirId, files: &[(DirId, ViewNode)]) {
        let register = match self.rng.pick(files).cloned() {
            Some((dir, node)) if !self.rng.chance(20) => Register::new(dir, node.register.name),
            _ => Register::new(dir, self.name("xyp")),
        };
        let found = self.devices[at].journal.checkout(&register).unwrap();
        let own = self.devices[at].signer.device();
        let Register { dir, name } = register;
        let op = match found {
            None => Op::Checkout { dir, name },
            Some(found) if found.device == own => Op::GiveBack { dir, name, checkout: found.id },
            Some(found) => Op::Break { dir, name, checkout: found.id },
        };
        self.emit(at, vec![op]);
    }

    /// The first device removes another, demotes it, or takes it back in.
    fn remove_member(&mut self, at: usize) {
        if !self.removals || at != 0 || self.devices.len() < 3 {
            return;
        }
        let other = 1 + self.rng.below(self.devices.len() - 1);
        let device = self.devices[other].signer.device();
        let journal = &self.devices[0].journal;
        let tips = journal.frontier().tips;
        let frontier: Vec<EntryId> =
            tips.iter().filter(|t| t.device == device).map(|t| t.entry).collect();
        let op = match self.rng.below(3) {
            0 => Op::Remove { device, frontier },
            1 => Op::SetRole { device, role: Role::Reader, frontier },
            _ => Op::SetRole { device, role: Role::Owner, frontier: vec![] },
        };
        self.emit(0, vec![op]);
    }

    /// Everything any device holds.
    pub fn entries(&self) -> Vec<VerifiedEntry> {
        let mut out: BTreeMap<EntryId, VerifiedEntry> = BTreeMap::new();
        let nothing = Frontier::default();
        for device in &self.devices {
            for bytes in device.journal.lacking(&nothing, usize::MAX) {
                let entry = VerifiedEntry::verify(bytes).unwrap();
                out.insert(entry.id(), entry);
            }
        }
        out.into_values().collect()
    }

    /// [`deliver`] with this run's dice.
    pub fn deliver(&mut self, entries: &[VerifiedEntry], into: &Journal) {
        deliver(&mut self.rng, entries, into);
    }
}

/// Gives `entries` to a journal in any order, some twice, in batches of any size.
pub fn deliver(rng: &mut Rng, entries: &[VerifiedEntry], into: &Journal) {
    let mut order: Vec<VerifiedEntry> = entries.to_vec();
    let twice: Vec<VerifiedEntry> = entries.iter().filter(|_| rng.chance(20)).cloned().collect();
    order.extend(twice);
    rng.shuffle(&mut order);
    let (mut at, mut refused) = (0, BTreeSet::new());
    while at < order.len() {
        let len = 1 + rng.below(20).min(order.len() - at - 1);
        let got = feed(into, &order[at..at + len]);
        refused.extend(got.refused.iter().filter_map(|r| r.id));
        at += len;
    }
    assert_eq!(refused, BTreeSet::new());
}
