//! What people and their programs do to a drive, as the operations the file system would seal.
//!
//! Leaves out: system calls and drafts; an act sees the tree as it is when it begins and is sealed a little later.

use std::collections::BTreeMap;

use cas::{ChunkId, ContentId, IdKey};
use journal::op::{
    Arrival, Content, DirAttr, ExchangeSide, FileValue, SymlinkValue, Timestamp, Xattrs,
};
use journal::{
    DeviceId, DirId, EntryName, Journal, Op, Register, Standing, Value, VersionId, ViewKind,
    ViewNode,
};

use super::rng::Rng;

/// What must be true when an act was sealed and nothing came in between.
#[derive(Clone, Debug)]
pub(crate) enum Expect {
    /// Nothing in particular.
    Nothing,
    /// All that was official under this name is among these, on which the new one builds: that is official now.
    Replaces { dir: DirId, name: EntryName, bases: Vec<VersionId> },
    /// Based on something older than what is official: that stays.
    Beside { dir: DirId, name: EntryName, bases: Vec<VersionId> },
    /// The name is free now.
    Free { dir: DirId, name: EntryName, before: VersionId },
    /// The directory stands there now.
    Stands { dir: DirId, parent: DirId, name: EntryName, before: VersionId },
}

/// One act, ready to be sealed.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) ops: Vec<Op>,
    pub(crate) what: String,
    pub(crate) expect: Expect,
}

/// Versions a program has in memory, by the name it will save them under.
pub(crate) type Loaded = BTreeMap<(DirId, String), Vec<VersionId>>;

/// One person at one device.
pub(crate) struct User<'a> {
    pub(crate) journal: &'a Journal,
    pub(crate) rng: Rng,
    pub(crate) key: IdKey,
    pub(crate) loaded: &'a mut Loaded,
    /// Its device, where people check out names.
    pub(crate) locks: Option<DeviceId>,
    /// Bytes that were written, for the store.
    pub(crate) bytes: Vec<Vec<u8>>,
}

type Nodes = Vec<(DirId, ViewNode)>;

fn entry_name(text: &str) -> EntryName {
    EntryName::new(text).expect("a name")
}

fn gone(dir: DirId, name: &EntryName, bases: Vec<VersionId>) -> Op {
    put(dir, name, Value::Gone { moved_to: None }, bases)
}

fn put(dir: DirId, name: &EntryName, value: Value, bases: Vec<VersionId>) -> Op {
    Op::Put { dir, name: name.clone(), value, bases }
}

fn value_of(node: &ViewNode) -> Option<Value> {
    match &node.kind {
        ViewKind::File(file) => Some(Value::File(file.clone())),
        ViewKind::Symlink(link) => Some(Value::Symlink(link.clone())),
        ViewKind::Dir { .. } => None,
    }
}

fn resolve(dir: DirId, node: &ViewNode) -> Op {
    Op::Resolve { dir, name: node.register.name.clone(), drop: node.merged.clone() }
}

fn short(node: &ViewNode) -> String {
    format!("{} ({:?})", node.shown, node.version)
}

impl User<'_> {
    fn text(&mut self) -> Vec<u8> {
        // Now and then two devices write the same bytes.
        match self.rng.chance(15) {
            true => format!("same {}", self.rng.below(3)),
            false => format!("text {:016x}", self.rng.next()),
        }
        .into_bytes()
    }

    fn file(&mut self) -> Value {
        let text = self.text();
        let id = ContentId::chunk(ChunkId::of(&self.key, &text));
        let content = Content { id, len: text.len() as u64 };
        self.bytes.push(text);
        let (mode, mtime, xattrs) = (0o644, Timestamp::default(), Xattrs::new());
        Value::File(FileValue { content, mode, mtime, xattrs, owner: None })
    }

    fn link(&mut self) -> Value {
        let target = format!("to {}", self.rng.below(4)).into_bytes();
        Value::Symlink(SymlinkValue { target, mtime: Timestamp::default(), owner: None })
    }

    fn name(&mut self, from: &[&str]) -> EntryName {
        entry_name(self.rng.pick(from).copied().unwrap_or("x"))
    }

    fn list(&self, dir: DirId) -> Vec<ViewNode> {
        self.journal.list(dir, None, usize::MAX).unwrap_or_default()
    }

    fn lookup(&self, dir: DirId, name: &EntryName) -> Option<ViewNode> {
        self.journal.lookup(dir, name).ok().flatten()
    }

    fn gone_heads(&self, dir: DirId, name: &EntryName) -> Vec<VersionId> {
        self.journal.gone_heads(dir, name).unwrap_or_default()
    }

    fn bases(&self, dir: DirId, name: &EntryName) -> Vec<VersionId> {
        let mut bases = self.gone_heads(dir, name);
        if let Some(node) = self.lookup(dir, name)
            && node.standing == Standing::Official
        {
            bases.extend(node.merged);
        }
        bases
    }

    /// Directories, the root among them, and what stands in them.
    fn look(&self) -> (Vec<DirId>, Nodes, Nodes) {
        let (mut dirs, mut files, mut subdirs) = (vec![DirId::ROOT], Vec::new(), Vec::new());
        let mut next = 0;
        while let Some(dir) = dirs.get(next).copied() {
            for node in self.list(dir) {
                match &node.kind {
                    ViewKind::Dir { dir: id, .. } if !dirs.contains(id) => {
                        dirs.push(*id);
                        subdirs.push((dir, node));
                    }
                    ViewKind::Dir { .. } => {}
                    _ => files.push((dir, node)),
                }
            }
            next += 1;
        }
        (dirs, files, subdirs)
    }

    /// Opens a file, to save it some time later.
    pub(crate) fn load(&mut self) -> Option<String> {
        let (_, files, _) = self.look();
        let (dir, node) = self.rng.pick(&files)?;
        let key = (*dir, node.shown.as_str().to_owned());
        self.loaded.insert(key, node.merged.clone());
        Some(format!("opens {}", short(node)))
    }

    /// Does something.
    pub(crate) fn act(&mut self) -> Option<Work> {
        let (dirs, files, subdirs) = self.look();
        let dir = *self.rng.pick(&dirs)?;
        let file = self.rng.pick(&files).cloned();
        let sub = self.rng.pick(&subdirs).cloned();
        if let Some(device) = self.locks
            && self.rng.chance(25)
        {
            return self.lock(dir, file, device);
        }
        match self.rng.below(100) {
            0..14 => self.create(dir),
            14..42 => self.save(file?),
            42..50 => self.remove(file?),
            50..60 => self.rename(dir, file?),
            60..71 => self.make_dir(dir),
            71..80 => self.move_dir(dir, sub?),
            80..86 => self.remove_dir(sub?),
            86..90 => self.change_mode(file?),
            90..94 => self.dance(file?),
            94..97 => self.swap(file?, &files, &subdirs),
            _ => self.set_dir(sub?),
        }
    }

    /// Takes a name for itself, gives it back, or ends somebody's hold of it.
    fn lock(
        &mut self,
        dir: DirId,
        file: Option<(DirId, ViewNode)>,
        device: DeviceId,
    ) -> Option<Work> {
        let (dir, name) = match file.filter(|_| self.rng.chance(90)) {
            Some((dir, node)) => (dir, node.register.name),
            None => (dir, self.name(&["x", "y", "p"])),
        };
        let found = self.journal.checkout(&Register::new(dir, name.clone())).ok()?;
        let what = format!("{name} in {dir:?}, which {found:?} has");
        let (what, op) = match found {
            None => (format!("takes {what}"), Op::Checkout { dir, name }),
            Some(found) if found.device == device => {
                (format!("gives back {what}"), Op::GiveBack { dir, name, checkout: found.id })
            }
            Some(found) => (format!("breaks {what}"), Op::Break { dir, name, checkout: found.id }),
        };
        Some(Work { ops: vec![op], what, expect: Expect::Nothing })
    }

    fn create(&mut self, dir: DirId) -> Option<Work> {
        let name = self.name(&["x", "y", "y.txt"]);
        if self.lookup(dir, &name).is_some() {
            return None;
        }
        let value = if self.rng.chance(15) { self.link() } else { self.file() };
        let bases = self.bases(dir, &name);
        let what = format!("creates {name} in {dir:?}");
        Some(Work { ops: vec![put(dir, &name, value, bases)], what, expect: Expect::Nothing })
    }

    fn save(&mut self, (dir, node): (DirId, ViewNode)) -> Option<Work> {
        let value = self.file();
        let loaded = self.loaded.remove(&(dir, node.shown.as_str().to_owned()));
        if node.standing == Standing::Copy {
            let bases = self.bases(dir, &node.shown);
            let ops = vec![resolve(dir, &node), put(dir, &node.shown, value, bases)];
            let what = format!("edits the copy {}", short(&node));
            return Some(Work { ops, what, expect: Expect::Nothing });
        }
        let name = node.shown.clone();
        let mut bases = self.gone_heads(dir, &name);
        let loaded = loaded.unwrap_or_else(|| node.merged.clone());
        let (has_official, has_any) =
            (loaded.contains(&node.version), node.merged.iter().any(|id| loaded.contains(id)));
        bases.extend(loaded);
        let (what, expect) = match (has_official, has_any) {
            (true, _) => (
                format!("saves {}", short(&node)),
                Expect::Replaces { dir, name: name.clone(), bases: bases.clone() },
            ),
            // It had in front of it only what gave the official one its attributes, or the same bytes.
            (false, true) => (format!("saves {} from a part of it", short(&node)), Expect::Nothing),
            (false, false) => (
                format!("saves {} from memory", short(&node)),
                Expect::Beside { dir, name: name.clone(), bases: bases.clone() },
            ),
        };
        Some(Work { ops: vec![put(dir, &name, value, bases)], what, expect })
    }

    fn remove(&mut self, (dir, node): (DirId, ViewNode)) -> Option<Work> {
        let what = format!("removes {}", short(&node));
        if node.standing == Standing::Copy {
            return Some(Work { ops: vec![resolve(dir, &node)], what, expect: Expect::Nothing });
        }
        let (name, before) = (node.shown, node.version);
        let ops = vec![gone(dir, &name, self.bases(dir, &name))];
        Some(Work { ops, what, expect: Expect::Free { dir, name, before } })
    }

    fn rename(&mut self, to: DirId, (dir, node): (DirId, ViewNode)) -> Option<Work> {
        let target = self.name(&["x", "y", "z", "y.txt"]);
        let found = self.lookup(to, &target);
        let onto_dir = found.is_some_and(|n| matches!(n.kind, ViewKind::Dir { .. }));
        if onto_dir || (to == dir && target == node.shown) {
            return None;
        }
        let mut bases = self.bases(to, &target);
        bases.extend(&node.merged);
        let away = match node.standing {
            Standing::Copy => resolve(dir, &node),
            Standing::Official => {
                let moved_to = Some((to, target.clone()));
                let bases = self.bases(dir, &node.shown);
                put(dir, &node.shown, Value::Gone { moved_to }, bases)
            }
        };
        let what = format!("renames {} to {target} in {to:?}", short(&node));
        let ops = vec![away, put(to, &target, value_of(&node)?, bases)];
        Some(Work { ops, what, expect: Expect::Nothing })
    }

    fn make_dir(&mut self, parent: DirId) -> Option<Work> {
        let name = self.name(&["p", "q", "x"]);
        if self.lookup(parent, &name).is_some() {
            return None;
        }
        let bases = self.gone_heads(parent, &name);
        let dir = self.journal.new_dir_id(parent, &name, &bases).ok()?;
        let what = format!("makes directory {name} in {parent:?}: {dir:?}");
        let op = Op::MkDir { parent, name, dir, attr: DirAttr::default(), bases };
        Some(Work { ops: vec![op], what, expect: Expect::Nothing })
    }

    fn is_within(&self, mut dir: DirId, top: DirId) -> bool {
        for _ in 0..1000 {
            if dir == DirId::ROOT {
                return false;
            }
            let up = self.journal.dir(dir).ok().flatten().map(|node| node.parent);
            match up {
                Some(up) if dir != top => dir = up,
                _ => return true,
            }
        }
        true
    }

    fn move_dir(&mut self, to: DirId, (_, node): (DirId, ViewNode)) -> Option<Work> {
        let ViewKind::Dir { dir, .. } = node.kind else { return None };
        let target = self.name(&["p", "q", "r"]);
        let same = (to, &target) == (node.register.dir, &node.register.name);
        if same || self.is_within(to, dir) || self.lookup(to, &target).is_some() {
            return None;
        }
        let (from, bases) = (node.version, self.gone_heads(to, &target));
        let what = format!("moves {} {dir:?} to {target} in {to:?}", short(&node));
        let op = Op::Move { dir, from, to: (to, target.clone()), bases };
        let expect = Expect::Stands { dir, parent: to, name: target, before: from };
        Some(Work { ops: vec![op], what, expect })
    }

    fn remove_dir(&mut self, (parent, node): (DirId, ViewNode)) -> Option<Work> {
        let ViewKind::Dir { dir, .. } = node.kind else { return None };
        if !self.list(dir).is_empty() {
            return None;
        }
        let what = format!("removes directory {} {dir:?}", short(&node));
        let op = match node.standing {
            Standing::Copy => resolve(parent, &node),
            Standing::Official => {
                let mut bases = self.gone_heads(parent, &node.shown);
                bases.extend(node.merged);
                gone(parent, &node.shown, bases)
            }
        };
        Some(Work { ops: vec![op], what, expect: Expect::Nothing })
    }

    fn change_mode(&mut self, (dir, node): (DirId, ViewNode)) -> Option<Work> {
        let ViewKind::File(file) = node.kind else { return None };
        if node.standing == Standing::Copy {
            return None;
        }
        let mode = [0o600, 0o644, 0o755][self.rng.below(3)];
        let what = format!("sets the mode of {} to {mode:o}", node.shown);
        let value = Value::File(FileValue { mode, ..file });
        let ops = vec![put(dir, &node.shown, value, node.merged)];
        Some(Work { ops, what, expect: Expect::Nothing })
    }

    /// A program's way to save: the old version to a backup name, the new one in its place.
    fn dance(&mut self, (dir, node): (DirId, ViewNode)) -> Option<Work> {
        let ViewKind::File(old) = &node.kind else { return None };
        if node.standing == Standing::Copy || !["x", "y"].contains(&node.shown.as_str()) {
            return None;
        }
        let backup = entry_name(&format!("{}1", node.shown));
        let bases = self.bases(dir, &backup);
        let mut own = self.gone_heads(dir, &node.shown);
        own.extend(&node.merged);
        let what = format!("saves {} and keeps {backup}", short(&node));
        let value = self.file();
        let name = node.shown.clone();
        let expect = Expect::Replaces { dir, name: name.clone(), bases: own.clone() };
        let ops =
            vec![put(dir, &name, value, own), put(dir, &backup, Value::File(old.clone()), bases)];
        Some(Work { ops, what, expect })
    }

    fn swap(&mut self, one: (DirId, ViewNode), files: &Nodes, subdirs: &Nodes) -> Option<Work> {
        let others = if self.rng.chance(50) { files } else { subdirs };
        let ((dir_a, a), (dir_b, b)) = (one, self.rng.pick(others).cloned()?);
        let copies = a.standing == Standing::Copy || b.standing == Standing::Copy;
        if copies || a.version == b.version {
            return None;
        }
        if let ViewKind::Dir { dir, .. } = b.kind
            && self.is_within(dir_a, dir)
        {
            return None;
        }
        let comes = |node: &ViewNode| match (&node.kind, value_of(node)) {
            (ViewKind::Dir { dir, .. }, _) => Some(Arrival::Dir { dir: *dir, from: node.version }),
            (_, value) => value.map(Arrival::Value),
        };
        let side = |dir, here: &ViewNode, there: &ViewNode| {
            let (name, bases) = (here.shown.clone(), here.merged.clone());
            Some(ExchangeSide { dir, name, comes: comes(there)?, bases })
        };
        let what = format!("exchanges {} and {}", short(&a), short(&b));
        let op = Op::Exchange { a: side(dir_a, &a, &b)?, b: side(dir_b, &b, &a)? };
        Some(Work { ops: vec![op], what, expect: Expect::Nothing })
    }

    fn set_dir(&mut self, (_, node): (DirId, ViewNode)) -> Option<Work> {
        let ViewKind::Dir { dir, attr } = node.kind else { return None };
        let mode = [0o700, 0o750, 0o755][self.rng.below(3)];
        let what = format!("sets the mode of {} to {mode:o}", node.shown);
        let op = Op::SetDir { dir, attr: DirAttr { mode, ..attr } };
        Some(Work { ops: vec![op], what, expect: Expect::Nothing })
    }
}
