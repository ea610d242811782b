//! A published tree in memory, a clock that moves when told, and a file system over both.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cas::{ChunkId, ChunkSource, IdKey, ReadError, Store, Unavailable};
use journal::id::{DeviceId, DirId, DriveId, EntryId, VersionId};
use journal::name::{EntryName, Register};
use journal::op::{Arrival, Content, DirAttr, Op, Timestamp, Value};
use journal::view::{DirNode, Standing, ViewKind, ViewNode};
use vfs::attr::Caller;
use vfs::fs::Wait;
use vfs::{Clock, Config, Fs, SealError, Sealer, StateError, Submit, Tree};

// The example includes this file by its path, too.
#[path = "drive/locks.rs"]
pub mod locks;
#[path = "drive/past.rs"]
mod past;

pub const ROOT: u64 = vfs::fs::ROOT_INO;
pub const ME: Caller = Caller { uid: 0, gid: 0, tid: 1 };

/// This device, and another one.
const HERE: DeviceId = DeviceId::from_bytes([1; 32]);
const THERE: DeviceId = DeviceId::from_bytes([2; 32]);

#[derive(Clone, Debug, PartialEq)]
pub enum Head {
    Value(Value),
    Dir(DirId),
}

#[derive(Clone, Debug)]
struct Version {
    id: VersionId,
    name: EntryName,
    head: Head,
    author: DeviceId,
    bases: Vec<VersionId>,
    /// Versions by which a directory moved away, in this one's past.
    away: Vec<VersionId>,
}

impl Version {
    fn is_live(&self) -> bool {
        !matches!(self.head, Head::Value(Value::Gone { .. }))
    }
}

#[derive(Default)]
struct Published {
    registers: BTreeMap<(DirId, String), Vec<Version>>,
    versions: HashMap<VersionId, Version>,
    dirs: HashMap<DirId, (DirId, EntryName, VersionId)>,
    attrs: HashMap<DirId, DirAttr>,
    entries: u64,
    batches: Vec<Vec<Op>>,
    /// When each batch was published.
    times: Vec<u64>,
    now_ms: u64,
    /// Name, number of the last entry, time.
    snapshots: Vec<(String, u64, u64)>,
    arriving: Option<String>,
    /// What the root showed after each batch.
    roots: Vec<BTreeMap<String, Head>>,
    failing: bool,
    ops_max: Option<usize>,
    /// Whether what is published now comes from another device.
    by_another: bool,
    /// Who else works here; nobody.
    others: Option<locks::Others>,
}

/// The published tree and the place to publish.
#[derive(Default)]
pub struct Drive(Mutex<Published>);

fn fold(dir: DirId, name: &EntryName) -> (DirId, String) {
    (dir, name.folded().into_owned())
}

fn entry_id(number: u64) -> EntryId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    EntryId::from_bytes(bytes)
}

impl Published {
    fn put(
        &mut self,
        dir: DirId,
        name: &EntryName,
        head: Head,
        bases: &[VersionId],
        id: VersionId,
    ) {
        let mut away = self.away(bases);
        if matches!(&head, Head::Value(Value::Gone { moved_to: Some(_) })) {
            away.push(id);
        }
        let (author, past) = (self.author(), bases.to_vec());
        let version = Version { id, name: name.clone(), head, author, bases: past, away };
        self.versions.insert(id, version.clone());
        let heads = self.registers.entry(fold(dir, name)).or_default();
        // What replaces the official one is official.
        let at = heads.iter().position(|version| bases.contains(&version.id));
        heads.retain(|version| !bases.contains(&version.id));
        heads.insert(at.unwrap_or(heads.len()).min(heads.len()), version);
    }

    fn author(&self) -> DeviceId {
        if self.by_another { THERE } else { HERE }
    }

    fn away(&self, bases: &[VersionId]) -> Vec<VersionId> {
        let bases = bases.iter().filter_map(|base| self.versions.get(base));
        let mut away: Vec<_> = bases.flat_map(|version| version.away.clone()).collect();
        away.sort();
        away.dedup();
        away
    }

    /// Whether the journal would take an operation.
    fn fits(&self, op: &Op) -> bool {
        match op {
            Op::MkDir { parent, name, dir, bases, .. } => {
                let away = self.away(bases);
                DirId::derive(&DriveId::from_bytes([9; 32]), parent, name, &away) == *dir
            }
            Op::Put { name, .. } => name.as_str() != "refused",
            _ => true,
        }
    }

    fn apply(&mut self, op: &Op, id: VersionId) {
        match op {
            Op::Put { dir, name, value, bases } => {
                if matches!(value, Value::Gone { .. }) {
                    for base in bases {
                        self.dirs.retain(|_, (_, _, placement)| placement != base);
                    }
                }
                self.put(*dir, name, Head::Value(value.clone()), bases, id);
            }
            Op::MkDir { parent, name, dir, attr, bases } => {
                self.put(*parent, name, Head::Dir(*dir), bases, id);
                self.dirs.insert(*dir, (*parent, name.clone(), id));
                self.attrs.insert(*dir, attr.clone());
            }
            Op::Move { dir, from, to, bases } => {
                let Some((parent, name, placement)) = self.dirs.get(dir).cloned() else { return };
                if placement != *from {
                    return;
                }
                let gone = Head::Value(Value::Gone { moved_to: Some(to.clone()) });
                self.put(parent, &name, gone, &[*from], id.second());
                self.put(to.0, &to.1, Head::Dir(*dir), bases, id);
                self.dirs.insert(*dir, (to.0, to.1.clone(), id));
            }
            Op::SetDir { dir, attr } => {
                self.attrs.insert(*dir, attr.clone());
            }
            Op::Exchange { a, b } => {
                for (side, id) in [(a, id), (b, id.second())] {
                    match &side.comes {
                        Arrival::Value(value) => {
                            self.put(
                                side.dir,
                                &side.name,
                                Head::Value(value.clone()),
                                &side.bases,
                                id,
                            );
                        }
                        Arrival::Dir { dir, .. } => {
                            self.put(side.dir, &side.name, Head::Dir(*dir), &side.bases, id);
                            self.dirs.insert(*dir, (side.dir, side.name.clone(), id));
                        }
                    }
                }
            }
            Op::Resolve { dir, name, drop } => {
                self.registers
                    .entry(fold(*dir, name))
                    .or_default()
                    .retain(|v| !drop.contains(&v.id));
            }
            other => panic!("not an operation of a file system: {other:?}"),
        }
    }

    fn view(&self, dir: DirId) -> Vec<ViewNode> {
        let registers = self.registers.range((dir, String::new())..);
        let registers = registers.take_while(|((d, _), _)| *d == dir);
        let mut nodes: Vec<_> = registers.flat_map(|(_, heads)| self.nodes(dir, heads)).collect();
        nodes.sort_by(|a, b| a.shown.cmp(&b.shown));
        nodes
    }

    /// What a register shows.
    fn nodes(&self, dir: DirId, heads: &[Version]) -> Vec<ViewNode> {
        let mut nodes = Vec::new();
        for (index, version) in heads.iter().filter(|v| v.is_live()).enumerate() {
            let shown = match index {
                0 => version.name.clone(),
                n => EntryName::new(&format!("{} (conflict {n})", version.name)).unwrap(),
            };
            let kind = match &version.head {
                Head::Value(Value::File(file)) => ViewKind::File(file.clone()),
                Head::Value(Value::Symlink(link)) => ViewKind::Symlink(link.clone()),
                Head::Value(Value::Gone { .. }) => continue,
                Head::Dir(dir) => ViewKind::Dir {
                    dir: *dir,
                    attr: self.attrs.get(dir).cloned().unwrap_or_default(),
                },
            };
            nodes.push(ViewNode {
                shown,
                register: Register::new(dir, version.name.clone()),
                version: version.id,
                merged: vec![version.id],
                standing: if index == 0 { Standing::Official } else { Standing::Copy },
                author: version.author,
                saved_at_ms: 0,
                kind,
            });
        }
        nodes
    }

    fn lookup(&self, dir: DirId, shown: &EntryName) -> Option<ViewNode> {
        let register = shown.as_str().split(" (conflict").next().unwrap();
        let keys = [fold(dir, shown), fold(dir, &EntryName::new(register).unwrap())];
        let heads = keys.iter().filter_map(|key| self.registers.get(key));
        let mut nodes = heads.flat_map(|heads| self.nodes(dir, heads));
        nodes.find(|node| node.shown.folded() == shown.folded())
    }

    fn seal(&mut self, ops: Vec<Op>) -> Vec<VersionId> {
        self.entries += 1;
        let entry = entry_id(self.entries);
        let versions: Vec<_> = (0..ops.len()).map(|i| VersionId::new(entry, i as u32)).collect();
        for (op, id) in ops.iter().zip(&versions) {
            self.apply(op, *id);
        }
        self.batches.push(ops);
        self.times.push(self.now_ms);
        let root = self.view(DirId::ROOT).into_iter().map(|node| {
            let head = match node.kind {
                ViewKind::File(file) => Head::Value(Value::File(file)),
                ViewKind::Symlink(link) => Head::Value(Value::Symlink(link)),
                ViewKind::Dir { dir, .. } => Head::Dir(dir),
            };
            (node.shown.to_string(), head)
        });
        self.roots.push(root.collect());
        versions
    }
}

impl Drive {
    /// Publishes as another device would.
    pub fn publish(&self, ops: Vec<Op>) -> Vec<VersionId> {
        let mut published = self.0.lock().unwrap();
        published.by_another = true;
        let versions = published.seal(ops);
        published.by_another = false;
        versions
    }

    pub fn fail(&self, failing: bool) {
        self.0.lock().unwrap().failing = failing;
    }

    /// From now on a batch holds at most this many operations.
    pub fn limit(&self, ops_max: usize) {
        self.0.lock().unwrap().ops_max = Some(ops_max);
    }

    pub fn batches(&self) -> Vec<Vec<Op>> {
        self.0.lock().unwrap().batches.clone()
    }

    /// Every operation of every batch, with the version it made.
    pub fn log(&self) -> Vec<(Op, VersionId)> {
        let published = self.0.lock().unwrap();
        let batches = published.batches.iter().zip(1..);
        let ops = batches.flat_map(|(ops, entry)| {
            let entry = entry_id(entry);
            let ids = (0..).map(move |index| VersionId::new(entry, index));
            ops.iter().cloned().zip(ids)
        });
        ops.collect()
    }

    pub fn roots(&self) -> Vec<BTreeMap<String, Head>> {
        self.0.lock().unwrap().roots.clone()
    }

    /// Names a directory shows.
    pub fn names(&self, dir: DirId) -> Vec<String> {
        self.0.lock().unwrap().view(dir).into_iter().map(|node| node.shown.to_string()).collect()
    }

    pub fn at(&self, path: &str) -> Option<ViewNode> {
        let mut dir = DirId::ROOT;
        let mut found = None;
        for part in path.split('/') {
            let node = self.lookup(dir, &EntryName::new(part).unwrap()).unwrap()?;
            if let ViewKind::Dir { dir: below, .. } = node.kind {
                dir = below;
            }
            found = Some(node);
        }
        found
    }

    pub fn content(&self, path: &str) -> Option<Content> {
        match self.at(path)?.kind {
            ViewKind::File(file) => Some(file.content),
            _ => None,
        }
    }
}

impl Tree for Drive {
    fn lookup(&self, dir: DirId, shown: &EntryName) -> Result<Option<ViewNode>, StateError> {
        Ok(self.0.lock().unwrap().lookup(dir, shown))
    }

    fn list(
        &self,
        dir: DirId,
        after: Option<&EntryName>,
        limit: usize,
    ) -> Result<Vec<ViewNode>, StateError> {
        let view = self.0.lock().unwrap().view(dir);
        Ok(view
            .into_iter()
            .filter(|node| after.is_none_or(|after| node.shown > *after))
            .take(limit)
            .collect())
    }

    fn gone_heads(&self, dir: DirId, name: &EntryName) -> Result<Vec<VersionId>, StateError> {
        let published = self.0.lock().unwrap();
        let heads =
            published.registers.get(&fold(dir, name)).map(Vec::as_slice).unwrap_or_default();
        Ok(heads.iter().filter(|v| !v.is_live()).map(|v| v.id).collect())
    }

    fn new_dir_id(
        &self,
        parent: DirId,
        name: &EntryName,
        bases: &[VersionId],
    ) -> Result<DirId, StateError> {
        let away = self.0.lock().unwrap().away(bases);
        Ok(DirId::derive(&DriveId::from_bytes([9; 32]), &parent, name, &away))
    }

    fn bases(&self, version: VersionId) -> Result<Vec<VersionId>, StateError> {
        let published = self.0.lock().unwrap();
        Ok(published.versions.get(&version).map(|v| v.bases.clone()).unwrap_or_default())
    }

    fn dir(&self, dir: DirId) -> Result<Option<DirNode>, StateError> {
        let published = self.0.lock().unwrap();
        Ok(published.dirs.get(&dir).map(|(parent, shown, placement)| DirNode {
            parent: *parent,
            shown: shown.clone(),
            placement: *placement,
            attr: published.attrs.get(&dir).cloned().unwrap_or_default(),
        }))
    }
}

impl Submit for Drive {
    fn seal(&self, ops: Vec<Op>) -> Result<Vec<VersionId>, SealError> {
        let mut published = self.0.lock().unwrap();
        if published.failing {
            return Err(SealError::Full);
        }
        let fits = ops.iter().all(|op| published.fits(op));
        if !fits || published.ops_max.is_some_and(|max| ops.len() > max) {
            return Err(SealError::Refused("it does not fit".into()));
        }
        Ok(published.seal(ops))
    }
}

/// A clock that moves when told.
#[derive(Default)]
pub struct Hand(AtomicU64);

impl Hand {
    pub fn pass(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn wall(&self) -> Timestamp {
        let ms = self.monotonic_ms();
        Timestamp {
            secs: 1_800_000_000 + (ms / 1000) as i64,
            nanos: (ms % 1000) as u32 * 1_000_000,
        }
    }

    fn monotonic_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// The store, and chunks only others have.
pub struct Elsewhere {
    pub store: Store,
    pub others: Mutex<HashMap<ChunkId, Bytes>>,
}

impl ChunkSource for Elsewhere {
    fn chunk(&self, id: &ChunkId) -> Result<Bytes, ReadError> {
        match self.store.get(id) {
            Err(ReadError::Missing { .. }) => {
                let others = self.others.lock().unwrap();
                others
                    .get(id)
                    .cloned()
                    .ok_or(ReadError::Unavailable { id: *id, reason: Unavailable::Nobody })
            }
            other => other,
        }
    }
}

/// A drive, its store, its clock, and a file system over them.
pub struct World {
    pub drive: Arc<Drive>,
    pub clock: Arc<Hand>,
    pub store: Store,
    pub elsewhere: Arc<Elsewhere>,
    pub dir: tempfile::TempDir,
    pub fs: Option<Fs>,
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(set: impl FnOnce(&mut Config)) -> Self {
        let store = Store::in_memory(IdKey::from_bytes([7; 32]));
        let elsewhere = Arc::new(Elsewhere { store: store.clone(), others: Mutex::default() });
        let dir = tempfile::tempdir().unwrap();
        let mut world =
            Self { drive: Arc::default(), clock: Arc::default(), store, elsewhere, dir, fs: None };
        world.start(set);
        world
    }

    fn start(&mut self, set: impl FnOnce(&mut Config)) {
        let mut config = Config::new(self.spool().to_path_buf(), 0, 0);
        config.sealer = Sealer::Caller;
        config.reserve_bytes = 0;
        config.device = Some(HERE);
        set(&mut config);
        let opened = Fs::open(
            config,
            self.drive.clone(),
            self.drive.clone(),
            self.store.clone(),
            self.elsewhere.clone(),
            self.clock.clone(),
            self.drive.clone(),
        );
        self.fs = Some(opened.unwrap());
    }

    pub fn spool(&self) -> &Path {
        self.dir.path()
    }

    /// Forgets the file system as a kill would, and opens it anew.
    pub fn crash(&mut self) {
        drop(self.fs.take());
        self.start(|_| {});
    }

    pub fn fs(&self) -> &Fs {
        self.fs.as_ref().unwrap()
    }

    /// Lets time pass, publishing what is due on the way.
    pub fn pass(&self, ms: u64) {
        for _ in 0..ms.div_ceil(10) {
            self.clock.pass(10);
            self.fs().seal_due().unwrap();
        }
    }

    /// Lets time pass although something cannot be published.
    pub fn struggle(&self, ms: u64) {
        for _ in 0..ms.div_ceil(10) {
            self.clock.pass(10);
            let _ = self.fs().seal_due();
        }
    }

    pub fn ino(&self, path: &str) -> Option<u64> {
        let mut ino = ROOT;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            ino = self.fs().lookup(ino, part.as_bytes()).ok()?.attr.ino;
        }
        Some(ino)
    }

    fn split<'a>(&self, path: &'a str) -> (u64, &'a [u8]) {
        match path.rsplit_once('/') {
            Some((parent, name)) => (self.ino(parent).unwrap(), name.as_bytes()),
            None => (ROOT, path.as_bytes()),
        }
    }

    pub fn create(&self, path: &str) -> u64 {
        self.create_with(path, 0o644, rustix::fs::OFlags::TRUNC)
    }

    pub fn create_with(&self, path: &str, mode: u32, flags: rustix::fs::OFlags) -> u64 {
        let (parent, name) = self.split(path);
        let flags = (rustix::fs::OFlags::RDWR | flags).bits() as i32;
        self.fs().create(ME, parent, name, mode, flags, Wait::Allowed).unwrap().1.handle
    }

    pub fn open(&self, path: &str, flags: rustix::fs::OFlags) -> u64 {
        let ino = self.ino(path).unwrap();
        self.fs().open(ME, ino, flags.bits() as i32, Wait::Allowed).unwrap().handle
    }

    pub fn write(&self, handle: u64, offset: u64, data: &[u8]) {
        assert_eq!(self.fs().write(handle, offset, data, Wait::Allowed).unwrap(), data.len());
    }

    pub fn close(&self, handle: u64) {
        self.fs().flush(handle).unwrap();
        self.fs().release(handle).unwrap();
    }

    /// Writes a whole file.
    pub fn save(&self, path: &str, data: &[u8]) {
        let handle = self.create(path);
        self.write(handle, 0, data);
        self.close(handle);
    }

    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        let ino = self.ino(path)?;
        let handle = self.fs().open(ME, ino, 0, Wait::Allowed).ok()?.handle;
        let data = self.read_handle(handle);
        self.fs().release(handle).unwrap();
        Some(data)
    }

    pub fn read_handle(&self, handle: u64) -> Vec<u8> {
        self.fs().read(handle, 0, 1 << 26, Wait::Allowed).unwrap()
    }

    pub fn rename(&self, from: &str, to: &str) {
        let (from, to) = (self.split(from), self.split(to));
        self.fs().rename(ME, from, to, vfs::fs::RenameMode::Replace, Wait::Allowed).unwrap();
    }

    pub fn unlink(&self, path: &str) {
        let (parent, name) = self.split(path);
        self.fs().unlink(ME, parent, name, Wait::Allowed).unwrap();
    }

    pub fn mkdir(&self, path: &str) -> u64 {
        let (parent, name) = self.split(path);
        self.fs().mkdir(ME, parent, name, 0o755).unwrap().attr.ino
    }

    pub fn rmdir(&self, path: &str) -> Result<(), vfs::FsError> {
        let (parent, name) = self.split(path);
        self.fs().rmdir(ME, parent, name)
    }

    pub fn list(&self, path: &str) -> Vec<String> {
        let handle = self.fs().opendir(ME, self.ino(path).unwrap()).unwrap();
        let mut names = Vec::new();
        self.fs()
            .readdir(handle, 0, |entry| {
                names.push(entry.name.to_string());
                true
            })
            .unwrap();
        self.fs().releasedir(handle);
        names.retain(|name| name != "." && name != "..");
        names.sort();
        names
    }

    /// The bytes others read under a path.
    pub fn published(&self, path: &str) -> Option<Vec<u8>> {
        let content = self.drive.content(path)?;
        Some(self.bytes_of(content))
    }

    pub fn bytes_of(&self, content: Content) -> Vec<u8> {
        let reader = self.store.read(cas::Content { id: content.id, len: content.len }).unwrap();
        let mut data = vec![0; content.len as usize];
        assert_eq!(reader.read_at(0, &mut data).unwrap(), data.len());
        data
    }
}

/// A file another device writes: a chunk that is not here until it is fetched.
pub fn far_file(world: &World, data: &[u8]) -> Content {
    let other = Store::in_memory(IdKey::from_bytes([7; 32]));
    let mut writer = other.writer(None);
    writer.write(data).unwrap();
    let content = writer.finish().unwrap();
    let reader = other.read(content).unwrap();
    let mut others = world.elsewhere.others.lock().unwrap();
    for id in reader.chunk_ids() {
        let id = id.unwrap();
        others.insert(id, other.get(&id).unwrap());
    }
    Content { id: content.id, len: content.len }
}
