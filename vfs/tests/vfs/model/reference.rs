//! A POSIX tree in memory, and what a crash may leave of it.
//!
//! Deliberately naive: bytes are vectors, names are maps, nothing is shared. Beside what programs see it keeps what a kill
//! must leave ([`Reference::kept`]): closed files and names as they are, a file that is being written as it was last closed,
//! or, when it was synced since, bytes that were there then or later.
//!
//! Leaves out: publishing, which programs cannot see.

use std::collections::BTreeMap;
use std::sync::Arc;

use journal::op::{Timestamp, Xattrs};
use rustix::io::Errno;
use vfs::fs::{RenameMode, XattrMode};

/// A node's number.
pub type Id = usize;
pub const ROOT: Id = 0;

/// What stands at a path.
#[derive(Clone, PartialEq)]
pub enum Value {
    File { bytes: Arc<Vec<u8>>, mode: u32, xattrs: Xattrs },
    Link(Vec<u8>),
    Dir { mode: u32, xattrs: Xattrs },
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File { bytes, mode, xattrs } => {
                let sum = crc32c::crc32c(bytes);
                write!(f, "file of {} bytes {sum:08x} {mode:o} {xattrs:?}", bytes.len())
            }
            Self::Link(target) => write!(f, "link of {}", target.len()),
            Self::Dir { mode, xattrs } => write!(f, "dir {mode:o} {xattrs:?}"),
        }
    }
}

/// What a kill leaves at a path.
#[derive(Clone, Debug, PartialEq)]
pub enum Kept {
    Exactly(Value),
    /// A synced file: every byte as it was then, or later.
    Synced(Vec<Arc<Vec<u8>>>),
}

impl Kept {
    /// Whether `found` is what was to be kept.
    pub fn allows(&self, found: &Value) -> bool {
        match (self, found) {
            (Self::Exactly(value), found) => value == found,
            (Self::Synced(states), Value::File { bytes, .. }) => {
                states.iter().any(|state| state.len() == bytes.len())
                    && bytes
                        .iter()
                        .enumerate()
                        .all(|(at, byte)| states.iter().any(|state| state.get(at) == Some(byte)))
            }
            (Self::Synced(_), _) => false,
        }
    }
}

/// Paths, their names in the form names are compared by, and what stands there.
pub type Paths<T> = BTreeMap<String, T>;

#[derive(Clone, Debug)]
pub struct File {
    pub bytes: Vec<u8>,
    pub mode: u32,
    pub xattrs: Xattrs,
    pub mtime: Timestamp,
    /// As it was last closed.
    closed: Option<Arc<Vec<u8>>>,
    pub dirty: bool,
    /// None once it was removed or replaced.
    pub place: Option<(Id, String)>,
    pub writers: usize,
    /// States since it was synced, the synced one first; none when it was closed since.
    synced: Vec<Arc<Vec<u8>>>,
}

#[derive(Clone, Debug)]
pub struct Dir {
    pub names: BTreeMap<String, Id>,
    at: Option<(Id, String)>,
    mode: u32,
    xattrs: Xattrs,
}

#[derive(Clone, Debug)]
pub enum Node {
    File(File),
    Link(Vec<u8>),
    Dir(Dir),
}

/// The tree.
#[derive(Clone, Debug)]
pub struct Reference {
    pub nodes: BTreeMap<Id, Node>,
    /// What a kill leaves, but for files that were synced while open.
    logged: Paths<Value>,
    next: Id,
    /// Whether a sync of an open file publishes it.
    pub sync_publishes: bool,
    pub now: Timestamp,
}

type Result<T> = std::result::Result<T, Errno>;

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

fn below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

impl Reference {
    pub fn new(sync_publishes: bool) -> Self {
        let root = Dir { names: BTreeMap::new(), at: None, mode: 0o755, xattrs: Xattrs::new() };
        Self {
            nodes: BTreeMap::from([(ROOT, Node::Dir(root))]),
            logged: Paths::new(),
            next: ROOT + 1,
            sync_publishes,
            now: Timestamp::default(),
        }
    }

    pub fn file(&self, id: Id) -> &File {
        match &self.nodes[&id] {
            Node::File(file) => file,
            other => panic!("not a file: {other:?}"),
        }
    }

    pub fn file_mut(&mut self, id: Id) -> &mut File {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => file,
            other => panic!("not a file: {other:?}"),
        }
    }

    pub fn dir(&self, id: Id) -> &Dir {
        match &self.nodes[&id] {
            Node::Dir(dir) => dir,
            other => panic!("not a directory: {other:?}"),
        }
    }

    fn dir_mut(&mut self, id: Id) -> &mut Dir {
        match self.nodes.get_mut(&id) {
            Some(Node::Dir(dir)) => dir,
            other => panic!("not a directory: {other:?}"),
        }
    }

    pub fn child(&self, dir: Id, name: &str) -> Option<Id> {
        self.dir(dir).names.get(name).copied()
    }

    /// The directory at a path, if there is one.
    pub fn find_dir(&self, path: &str) -> Option<Id> {
        let mut at = ROOT;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            at = self.child(at, part)?;
            if !matches!(self.nodes[&at], Node::Dir(_)) {
                return None;
            }
        }
        Some(at)
    }

    /// Where a directory is; none when it was removed.
    pub fn path(&self, dir: Id) -> Option<String> {
        if dir == ROOT {
            return Some(String::new());
        }
        let (parent, name) = self.dir(dir).at.clone()?;
        Some(join(&self.path(parent)?, &name))
    }

    pub fn path_in(&self, dir: Id, name: &str) -> String {
        join(&self.path(dir).expect("a directory that is there"), name)
    }

    fn path_of_file(&self, id: Id) -> Option<String> {
        let (dir, name) = self.file(id).place.clone()?;
        (self.child(dir, &name) == Some(id)).then(|| self.path_in(dir, &name))
    }

    fn add(&mut self, node: Node) -> Id {
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, node);
        id
    }

    /// Makes a file, or finds the one that is there.
    pub fn create(&mut self, dir: Id, name: &str, mode: u32, exclusive: bool) -> Result<Id> {
        match self.child(dir, name).map(|id| (id, &self.nodes[&id])) {
            Some(_) if exclusive => Err(Errno::EXIST),
            Some((id, Node::File(_))) => Ok(id),
            Some((_, Node::Dir(_))) => Err(Errno::ISDIR),
            Some((_, Node::Link(_))) => Err(Errno::INVAL),
            None => {
                let file = File {
                    bytes: Vec::new(),
                    mode,
                    xattrs: Xattrs::new(),
                    mtime: self.now,
                    closed: None,
                    dirty: true,
                    place: Some((dir, name.to_owned())),
                    writers: 0,
                    synced: Vec::new(),
                };
                let id = self.add(Node::File(file));
                self.dir_mut(dir).names.insert(name.to_owned(), id);
                Ok(id)
            }
        }
    }

    pub fn open(&mut self, id: Id, writes: bool, anew: bool) {
        if anew {
            self.change_bytes(id, Vec::clear);
        }
        self.file_mut(id).writers += usize::from(writes);
    }

    pub fn change_bytes(&mut self, id: Id, change: impl FnOnce(&mut Vec<u8>)) {
        let now = self.now;
        let file = self.file_mut(id);
        change(&mut file.bytes);
        (file.mtime, file.dirty) = (now, true);
        if !file.synced.is_empty() {
            file.synced.push(Arc::new(file.bytes.clone()));
        }
    }

    pub fn write(&mut self, id: Id, at: u64, data: &[u8]) {
        self.change_bytes(id, |bytes| {
            let (at, end) = (at as usize, at as usize + data.len());
            bytes.resize(bytes.len().max(end), 0);
            bytes[at..end].copy_from_slice(data);
        });
    }

    pub fn set_len(&mut self, id: Id, len: u64) {
        // A change also where the length stays, as on other file systems.
        self.change_bytes(id, |bytes| bytes.resize(len as usize, 0));
        if self.file(id).writers == 0 {
            self.close_content(id);
        }
    }

    pub fn zero(&mut self, id: Id, at: u64, len: u64, keep: bool) {
        self.change_bytes(id, |bytes| {
            let (at, end) = (at as usize, (at + len) as usize);
            if !keep {
                bytes.resize(bytes.len().max(end), 0);
            }
            let end = end.min(bytes.len());
            if at < end {
                bytes[at..end].fill(0);
            }
        });
    }

    /// What is there becomes what a crash keeps.
    pub fn close_content(&mut self, id: Id) {
        let file = self.file(id);
        if !file.dirty || file.place.is_none() {
            return;
        }
        self.publish(id);
        self.file_mut(id).dirty = false;
    }

    /// The same while writing goes on.
    fn publish(&mut self, id: Id) {
        let file = self.file_mut(id);
        file.closed = Some(Arc::new(file.bytes.clone()));
        file.synced.clear();
        self.log(id);
    }

    fn log(&mut self, id: Id) {
        let Some(path) = self.path_of_file(id) else { return };
        let file = self.file(id);
        if let Some(bytes) = file.closed.clone() {
            let value = Value::File { bytes, mode: file.mode, xattrs: file.xattrs.clone() };
            self.logged.insert(path, value);
        }
    }

    /// Everything that is open for writing is published as it is.
    pub fn publish_all(&mut self) {
        let ids: Vec<Id> = self.nodes.keys().copied().collect();
        for id in ids {
            if let Node::File(file) = &self.nodes[&id]
                && file.dirty
                && file.place.is_some()
            {
                match file.writers {
                    0 => self.close_content(id),
                    _ => self.publish(id),
                }
            }
        }
    }

    pub fn sync(&mut self, id: Id) {
        let file = self.file(id);
        if file.dirty && file.place.is_some() {
            if self.sync_publishes {
                self.publish(id);
            }
            let file = self.file_mut(id);
            file.synced = vec![Arc::new(file.bytes.clone())];
        }
    }

    pub fn flush(&mut self, id: Id, writes: bool) {
        if writes {
            self.close_content(id);
        }
    }

    pub fn release(&mut self, id: Id, writes: bool) {
        let file = self.file_mut(id);
        file.writers -= usize::from(writes);
        if file.writers == 0 {
            self.close_content(id);
        }
    }

    pub fn chmod(&mut self, id: Id, new: u32) {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => file.mode = new,
            Some(Node::Dir(dir)) => dir.mode = new,
            _ => return,
        }
        self.attrs_changed(id);
    }

    pub fn set_time(&mut self, id: Id, time: Timestamp) {
        if let Some(Node::File(file)) = self.nodes.get_mut(&id) {
            file.mtime = time;
            self.attrs_changed(id);
        }
    }

    fn attrs_changed(&mut self, id: Id) {
        match &self.nodes[&id] {
            Node::File(file) if !file.dirty => self.log(id),
            Node::Dir(_) => {
                let Some(path) = self.path(id).filter(|path| !path.is_empty()) else { return };
                self.logged.insert(path, self.value(id));
            }
            _ => {}
        }
    }

    pub fn xattrs(&self, id: Id) -> Xattrs {
        match &self.nodes[&id] {
            Node::File(file) => file.xattrs.clone(),
            Node::Dir(dir) => dir.xattrs.clone(),
            Node::Link(_) => Xattrs::new(),
        }
    }

    fn change_xattrs(&mut self, id: Id, xattrs: Xattrs) -> Result<()> {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => file.xattrs = xattrs,
            Some(Node::Dir(dir)) => dir.xattrs = xattrs,
            _ => return Err(Errno::PERM),
        }
        self.attrs_changed(id);
        Ok(())
    }

    pub fn set_xattr(&mut self, id: Id, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        if matches!(self.nodes[&id], Node::Link(_)) {
            return Err(Errno::PERM);
        }
        let mut xattrs = self.xattrs(id);
        match (mode, xattrs.contains_key(name)) {
            (XattrMode::Create, true) => return Err(Errno::EXIST),
            (XattrMode::Replace, false) => return Err(Errno::NODATA),
            _ => {}
        }
        xattrs.insert(name.to_vec(), value.to_vec());
        self.change_xattrs(id, xattrs)
    }

    pub fn remove_xattr(&mut self, id: Id, name: &[u8]) -> Result<()> {
        if matches!(self.nodes[&id], Node::Link(_)) {
            return Err(Errno::PERM);
        }
        let mut xattrs = self.xattrs(id);
        xattrs.remove(name).ok_or(Errno::NODATA)?;
        self.change_xattrs(id, xattrs)
    }

    pub fn mkdir(&mut self, parent: Id, name: &str, mode: u32) -> Result<Id> {
        if self.child(parent, name).is_some() {
            return Err(Errno::EXIST);
        }
        let (at, xattrs) = (Some((parent, name.to_owned())), Xattrs::new());
        let id = self.add(Node::Dir(Dir { names: BTreeMap::new(), at, mode, xattrs }));
        self.dir_mut(parent).names.insert(name.to_owned(), id);
        self.logged.insert(self.path_in(parent, name), self.value(id));
        Ok(id)
    }

    pub fn symlink(&mut self, dir: Id, name: &str, target: &[u8]) -> Result<Id> {
        if self.child(dir, name).is_some() {
            return Err(Errno::EXIST);
        }
        let id = self.add(Node::Link(target.to_vec()));
        self.dir_mut(dir).names.insert(name.to_owned(), id);
        self.logged.insert(self.path_in(dir, name), self.value(id));
        Ok(id)
    }

    pub fn unlink(&mut self, dir: Id, name: &str) -> Result<()> {
        let id = self.child(dir, name).ok_or(Errno::NOENT)?;
        if matches!(self.nodes[&id], Node::Dir(_)) {
            return Err(Errno::ISDIR);
        }
        self.detach(dir, name);
        self.logged.remove(&self.path_in(dir, name));
        Ok(())
    }

    pub fn rmdir(&mut self, parent: Id, name: &str) -> Result<()> {
        let id = self.child(parent, name).ok_or(Errno::NOENT)?;
        match &self.nodes[&id] {
            Node::Dir(dir) if !dir.names.is_empty() => return Err(Errno::NOTEMPTY),
            Node::Dir(_) => {}
            _ => return Err(Errno::NOTDIR),
        }
        self.detach(parent, name);
        self.forget_logged(&self.path_in(parent, name));
        Ok(())
    }

    /// What stands at a name loses it.
    fn detach(&mut self, dir: Id, name: &str) {
        let Some(id) = self.dir_mut(dir).names.remove(name) else { return };
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => file.place = None,
            Some(Node::Dir(dir)) => dir.at = None,
            _ => {}
        }
    }

    fn attach(&mut self, dir: Id, name: &str, id: Id) {
        self.dir_mut(dir).names.insert(name.to_owned(), id);
        let at = Some((dir, name.to_owned()));
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => file.place = at,
            Some(Node::Dir(dir)) => dir.at = at,
            _ => {}
        }
    }

    fn forget_logged(&mut self, path: &str) {
        self.logged.retain(|at, _| at != path && !below(at, path));
    }

    fn take_logged(&mut self, path: &str) -> Paths<Value> {
        let taken = self.logged.iter().filter(|(at, _)| *at == path || below(at, path));
        let taken = taken.map(|(at, value)| (at[path.len()..].to_owned(), value.clone())).collect();
        self.forget_logged(path);
        taken
    }

    fn put_logged(&mut self, path: &str, values: Paths<Value>) {
        self.logged.extend(values.into_iter().map(|(at, value)| (format!("{path}{at}"), value)));
    }

    /// Whether `dir` is `above` or lies in it.
    fn lies_in(&self, dir: Id, above: Id) -> bool {
        dir == above
            || self.dir(dir).at.as_ref().is_some_and(|(parent, _)| self.lies_in(*parent, above))
    }

    pub fn rename(&mut self, from: (Id, &str), to: (Id, &str), mode: RenameMode) -> Result<()> {
        let source = self.child(from.0, from.1).ok_or(Errno::NOENT)?;
        let target = self.child(to.0, to.1);
        let is_dir = |id: Id| matches!(self.nodes[&id], Node::Dir(_));
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(Errno::EXIST),
            (RenameMode::Exchange, None) => return Err(Errno::NOENT),
            (_, Some(target)) if target == source => return Ok(()),
            (RenameMode::Exchange, Some(target)) => {
                let cycle = |id: Id, into: Id| is_dir(id) && self.lies_in(into, id);
                if cycle(source, to.0) || cycle(target, from.0) {
                    return Err(Errno::INVAL);
                }
                self.exchange((from, source), (to, target));
                return Ok(());
            }
            (_, Some(target)) => match (is_dir(source), is_dir(target)) {
                (true, true) if !self.dir(target).names.is_empty() => return Err(Errno::NOTEMPTY),
                (true, false) => return Err(Errno::NOTDIR),
                (false, true) => return Err(Errno::ISDIR),
                _ => {}
            },
            _ => {}
        }
        if is_dir(source) && self.lies_in(to.0, source) {
            return Err(Errno::INVAL);
        }
        let (old, new) = (self.path_in(from.0, from.1), self.path_in(to.0, to.1));
        self.detach(to.0, to.1);
        self.detach(from.0, from.1);
        self.attach(to.0, to.1, source);
        match &self.nodes[&source] {
            Node::Dir(_) => {
                self.forget_logged(&new);
                let moved = self.take_logged(&old);
                self.put_logged(&new, moved);
            }
            Node::Link(_) => {
                self.logged.remove(&old);
                self.logged.insert(new, self.value(source));
            }
            // A file never closed leaves what stood at its new name.
            Node::File(_) => {
                self.logged.remove(&old);
                self.log(source);
            }
        }
        Ok(())
    }

    fn exchange(&mut self, a: ((Id, &str), Id), b: ((Id, &str), Id)) {
        for (_, id) in [a, b] {
            if let Node::File(file) = &self.nodes[&id]
                && file.dirty
            {
                match file.closed {
                    None => self.publish(id),
                    Some(_) => self.close_content(id),
                }
            }
        }
        let paths = [a, b].map(|((dir, name), _)| self.path_in(dir, name));
        let [at_a, at_b] = paths.clone().map(|path| self.take_logged(&path));
        for ((dir, name), _) in [a, b] {
            self.detach(dir, name);
        }
        self.attach(b.0.0, b.0.1, a.1);
        self.attach(a.0.0, a.0.1, b.1);
        self.put_logged(&paths[1], at_a);
        self.put_logged(&paths[0], at_b);
    }

    /// A node as it is.
    pub fn value(&self, id: Id) -> Value {
        match &self.nodes[&id] {
            Node::File(file) => Value::File {
                bytes: Arc::new(file.bytes.clone()),
                mode: file.mode,
                xattrs: file.xattrs.clone(),
            },
            Node::Link(target) => Value::Link(target.clone()),
            Node::Dir(dir) => Value::Dir { mode: dir.mode, xattrs: dir.xattrs.clone() },
        }
    }

    /// Everything, by path.
    pub fn shown(&self) -> Paths<Value> {
        let mut shown = Paths::new();
        let mut todo = vec![(String::new(), ROOT)];
        while let Some((path, dir)) = todo.pop() {
            for (name, id) in &self.dir(dir).names {
                let path = join(&path, name);
                shown.insert(path.clone(), self.value(*id));
                if matches!(self.nodes[id], Node::Dir(_)) {
                    todo.push((path, *id));
                }
            }
        }
        shown
    }

    /// Every node that has a name.
    pub fn named(&self) -> Vec<Id> {
        let dirs = self.nodes.values().filter_map(|node| match node {
            Node::Dir(dir) => Some(dir),
            _ => None,
        });
        dirs.flat_map(|dir| dir.names.values().copied()).collect()
    }

    /// Whether every file is as a crash keeps it.
    pub fn is_closed(&self) -> bool {
        !self
            .nodes
            .values()
            .any(|node| matches!(node, Node::File(f) if f.dirty && f.place.is_some()))
    }

    /// What is closed, published or not.
    pub fn logged(&self) -> &Paths<Value> {
        &self.logged
    }

    /// What a kill leaves.
    pub fn kept(&self) -> Paths<Kept> {
        let exactly =
            |(path, value): (&String, &Value)| (path.clone(), Kept::Exactly(value.clone()));
        let mut kept: Paths<Kept> = self.logged.iter().map(exactly).collect();
        for (id, node) in &self.nodes {
            if let Node::File(file) = node
                && !file.synced.is_empty()
                && let Some(path) = self.path_of_file(*id)
            {
                kept.insert(path, Kept::Synced(file.synced.clone()));
            }
        }
        kept
    }

    /// Every content that programs have in front of them.
    pub fn contents(&self) -> impl Iterator<Item = Arc<Vec<u8>>> {
        let open = self.nodes.values().filter_map(|node| match node {
            Node::File(file) => Some(file),
            _ => None,
        });
        open.flat_map(|file| [Some(Arc::new(file.bytes.clone())), file.closed.clone()]).flatten()
    }

    /// Whether what stands at a path is being written.
    pub fn is_dirty_at(&self, path: &str) -> bool {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let id = self.find_dir(dir).and_then(|dir| self.child(dir, name));
        id.is_some_and(|id| matches!(&self.nodes[&id], Node::File(file) if file.dirty))
    }

    /// Whether an open file's name has become another's.
    pub fn is_overtaken(&self, id: Id) -> bool {
        self.file(id).place.is_some() && self.path_of_file(id).is_none()
    }

    /// Takes over what is seen since others changed the tree; `known` are the nodes that are still what they were.
    pub fn adopt(&mut self, found: &Paths<(Value, Timestamp)>, known: &Paths<Id>) -> Paths<Id> {
        let mut old = std::mem::take(&mut self.nodes);
        let logged = std::mem::take(&mut self.logged);
        self.nodes.insert(ROOT, Self::new(false).nodes.remove(&ROOT).expect("the root"));
        let mut ids = Paths::new();
        for (path, (value, mtime)) in found {
            let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
            let dir = self.find_dir(dir).expect("a directory before what lies in it");
            let at = Some((dir, name.to_owned()));
            let id = match known.get(path) {
                Some(id) => *id,
                None => {
                    self.next += 1;
                    self.next - 1
                }
            };
            let mut node = new_node(value.clone(), *mtime, at.clone());
            match (known.contains_key(path).then(|| old.remove(&id)).flatten(), &mut node) {
                (Some(Node::File(was)), Node::File(file)) if was.dirty => {
                    *file = File { place: at, ..was };
                    self.logged.extend(logged.get(path).map(|value| (path.clone(), value.clone())));
                }
                (Some(Node::File(was)), Node::File(file)) => {
                    (file.writers, file.synced) = (was.writers, was.synced);
                    self.logged.insert(path.clone(), value.clone());
                }
                _ => {
                    self.logged.insert(path.clone(), value.clone());
                }
            }
            self.nodes.insert(id, node);
            self.dir_mut(dir).names.insert(name.to_owned(), id);
            ids.insert(path.clone(), id);
        }
        // What is open stays, whatever has become of its name.
        for (id, mut node) in old.into_iter().filter(|(id, _)| *id != ROOT) {
            if let Node::Dir(dir) = &mut node {
                (dir.at, dir.names) = (None, BTreeMap::new());
            }
            self.nodes.entry(id).or_insert(node);
        }
        ids
    }

    /// Puts what a crash has left, or others have made, in place of everything.
    pub fn replace(&mut self, found: &Paths<(Value, Timestamp)>) -> Paths<Id> {
        *self = Self { now: self.now, next: self.next, ..Self::new(self.sync_publishes) };
        let mut ids = Paths::new();
        // A directory's path sorts before those in it.
        for (path, (value, mtime)) in found {
            let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
            let dir = self.find_dir(dir).expect("a directory before what lies in it");
            let at = Some((dir, name.to_owned()));
            let id = self.add(new_node(value.clone(), *mtime, at));
            self.dir_mut(dir).names.insert(name.to_owned(), id);
            self.logged.insert(path.clone(), value.clone());
            ids.insert(path.clone(), id);
        }
        ids
    }
}

fn new_node(value: Value, mtime: Timestamp, at: Option<(Id, String)>) -> Node {
    match value {
        Value::Link(target) => Node::Link(target),
        Value::Dir { mode, xattrs } => Node::Dir(Dir { names: BTreeMap::new(), at, mode, xattrs }),
        Value::File { bytes, mode, xattrs } => Node::File(File {
            bytes: (*bytes).clone(),
            mode,
            xattrs,
            mtime,
            closed: Some(bytes),
            dirty: false,
            place: at,
            writers: 0,
            synced: Vec::new(),
        }),
    }
}
