//! Entries made by hand, with any logical time and any past, and journals over memory to feed them to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use cas::id::{ChunkId, ContentId, IdKey};
use journal::entry::Entry;
use journal::error::PathError;
use journal::hlc::Hlc;
use journal::kv::mem::MemKv;
use journal::log::storage::Storage;
use journal::member::admit_proof;
use journal::op::{Content, DirAttr, FileValue, SymlinkValue, Timestamp, Xattrs};
use journal::signed::VerifiedEntry;
use journal::state::State;
use journal::{
    DirId, DriveId, EntryId, EntryName, GenesisSpec, Journal, Now, Op, Received, Role, Signer,
    Value, VersionId, ViewKind, ViewNode,
};
use parking_lot::Mutex;

/// A log in memory that can be cut and can be told to fail.
#[derive(Clone, Default)]
pub struct MemStorage {
    pub files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    pub fail_syncs: Arc<Mutex<bool>>,
    /// Bytes after which the disk is full.
    pub room: Arc<Mutex<Option<usize>>>,
    pub syncs: Arc<Mutex<u64>>,
}

impl MemStorage {
    pub fn copy(&self) -> Self {
        let files = Arc::new(Mutex::new(self.files.lock().clone()));
        Self { files, ..Self::default() }
    }

    fn missing(name: &str) -> PathError {
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        PathError { path: PathBuf::from(name), verb: "open", source }
    }
}

impl Storage for MemStorage {
    fn names(&self) -> Result<Vec<String>, PathError> {
        Ok(self.files.lock().keys().cloned().collect())
    }

    fn len(&self, name: &str) -> Result<u64, PathError> {
        self.files.lock().get(name).map(|f| f.len() as u64).ok_or_else(|| Self::missing(name))
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> Result<usize, PathError> {
        let files = self.files.lock();
        let file = files.get(name).ok_or_else(|| Self::missing(name))?;
        let rest = file.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn append(&self, name: &str, bytes: &[u8]) -> Result<(), PathError> {
        let used: usize = self.files.lock().values().map(Vec::len).sum();
        if let Some(left) = self.room.lock().map(|room| room.saturating_sub(used))
            && left < bytes.len()
        {
            let part = &bytes[..left];
            self.files.lock().entry(name.to_owned()).or_default().extend_from_slice(part);
            let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(PathError { path: PathBuf::from(name), verb: "write", source });
        }
        self.files.lock().entry(name.to_owned()).or_default().extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&self, name: &str) -> Result<(), PathError> {
        *self.syncs.lock() += 1;
        if *self.fail_syncs.lock() {
            let source = std::io::Error::other("simulated");
            return Err(PathError { path: PathBuf::from(name), verb: "sync", source });
        }
        Ok(())
    }

    fn truncate(&self, name: &str, len: u64) -> Result<(), PathError> {
        let mut files = self.files.lock();
        files.get_mut(name).ok_or_else(|| Self::missing(name))?.truncate(len as usize);
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(name)
    }
}

pub fn now(wall_ms: u64) -> Now {
    Now { wall_ms }
}

pub fn name(text: &str) -> EntryName {
    EntryName::new(text).unwrap()
}

pub fn signer(n: u8) -> Signer {
    Signer::derive(&[n; 32], &[7; 32])
}

pub fn content(text: &str) -> Content {
    let key = IdKey::from_bytes([1; 32]);
    let id = ContentId::chunk(ChunkId::of(&key, text.as_bytes()));
    Content { id, len: text.len() as u64 }
}

pub fn file_with(text: &str, mode: u32) -> Value {
    let mtime = Timestamp::default();
    Value::File(FileValue {
        content: content(text),
        mode,
        mtime,
        xattrs: Xattrs::new(),
        owner: None,
    })
}

pub fn file(text: &str) -> Value {
    file_with(text, 0o644)
}

pub fn link(target: &str) -> Value {
    let target = target.as_bytes().to_vec();
    Value::Symlink(SymlinkValue { target, mtime: Timestamp::default(), owner: None })
}

pub fn put_in(dir: DirId, at: &str, value: Value, bases: &[VersionId]) -> Op {
    Op::Put { dir, name: name(at), value, bases: bases.to_vec() }
}

pub fn put(at: &str, text: &str, bases: &[VersionId]) -> Op {
    put_in(DirId::ROOT, at, file(text), bases)
}

pub fn gone_in(dir: DirId, at: &str, bases: &[VersionId]) -> Op {
    put_in(dir, at, Value::Gone { moved_to: None }, bases)
}

pub fn gone(at: &str, bases: &[VersionId]) -> Op {
    gone_in(DirId::ROOT, at, bases)
}

pub fn moved(at: &str, to: &str, bases: &[VersionId]) -> Op {
    let moved_to = Some((DirId::ROOT, name(to)));
    put_in(DirId::ROOT, at, Value::Gone { moved_to }, bases)
}

pub fn move_dir(dir: DirId, from: VersionId, to: (DirId, &str), bases: &[VersionId]) -> Op {
    Op::Move { dir, from, to: (to.0, name(to.1)), bases: bases.to_vec() }
}

pub fn v(entry: &VerifiedEntry, index: u32) -> VersionId {
    VersionId::new(entry.id(), index)
}

/// A journal over memory that holds the genesis alone.
pub fn journal_of(genesis: &VerifiedEntry) -> (Journal, MemStorage) {
    let storage = MemStorage::default();
    let state = State::Memory(MemKv::default());
    let journal = Journal::begin_with(Arc::new(storage.clone()), state, genesis, None).unwrap();
    (journal, storage)
}

pub fn feed(journal: &Journal, entries: &[VerifiedEntry]) -> Received {
    let bytes: Vec<Arc<[u8]>> = entries.iter().map(|e| Arc::clone(e.bytes())).collect();
    journal.receive(&bytes, now(0)).unwrap()
}

pub fn spec() -> GenesisSpec {
    GenesisSpec {
        drive_name: "drive".into(),
        device_name: "A".into(),
        id_key: IdKey::from_bytes([1; 32]),
        posix_owners: false,
    }
}

pub const INVITE_SECRET: [u8; 32] = [42; 32];

pub fn invite_key() -> [u8; 32] {
    Signer::invite_public(&INVITE_SECRET)
}

/// Makes entries with any past and any logical time.
#[derive(Clone)]
pub struct Forge {
    pub genesis: VerifiedEntry,
    pub admin: VerifiedEntry,
    pub drive: DriveId,
    pub all: Vec<VerifiedEntry>,
    last: BTreeMap<char, VerifiedEntry>,
}

pub fn signer_of(device: char) -> Signer {
    signer(device as u8)
}

impl Forge {
    /// A drive of A, who admitted B, C, D as editors and R as one, too.
    pub fn new() -> Self {
        let a = signer_of('A');
        let genesis = Journal::genesis(&a, spec(), now(0)).unwrap();
        let drive = DriveId::from(genesis.id());
        let mut ops = vec![Op::Invite {
            key: invite_key(),
            role: Role::Editor,
            expires: u64::MAX >> 16,
            uses: 100,
        }];
        for device in ['B', 'C', 'D', 'R'] {
            ops.push(admit(&drive, device));
        }
        let mut forge =
            Self { admin: genesis.clone(), drive, all: vec![], last: BTreeMap::new(), genesis };
        forge.last.insert('A', forge.genesis.clone());
        let admin = forge.entry('A', 1, ops, &[], &[]);
        forge.admin = admin;
        forge
    }

    pub fn e(
        &mut self,
        device: char,
        at: u64,
        ops: Vec<Op>,
        see: &[&VerifiedEntry],
    ) -> VerifiedEntry {
        self.entry(device, 10 + at, ops, see, &[])
    }

    pub fn late(
        &mut self,
        device: char,
        at: u64,
        see: &[&VerifiedEntry],
        from: &VerifiedEntry,
    ) -> VerifiedEntry {
        self.entry(device, 10 + at, vec![], see, &[from.id()])
    }

    pub fn entry(
        &mut self,
        device: char,
        hlc: u64,
        ops: Vec<Op>,
        see: &[&VerifiedEntry],
        late: &[EntryId],
    ) -> VerifiedEntry {
        let prev = self.last.get(&device).cloned();
        self.after(device, prev, hlc, ops, see, late)
    }

    pub fn after(
        &mut self,
        device: char,
        prev: Option<VerifiedEntry>,
        hlc: u64,
        ops: Vec<Op>,
        see: &[&VerifiedEntry],
        late: &[EntryId],
    ) -> VerifiedEntry {
        let mut seen: BTreeSet<EntryId> = see.iter().map(|e| e.id()).collect();
        if prev.is_none() {
            seen.insert(self.admin.id());
        }
        let signer = signer_of(device);
        let entry = Entry {
            drive: self.drive,
            device: signer.device(),
            seq: prev.as_ref().map_or(0, |p| p.entry().seq + 1),
            prev: prev.map(|p| p.id()),
            seen: seen.into_iter().collect(),
            late: late.to_vec(),
            hlc: Hlc::from_raw(hlc + 1),
            saved_at_ms: hlc,
            ops,
        };
        let entry = VerifiedEntry::sign(entry, &signer).unwrap();
        self.last.insert(device, entry.clone());
        self.all.push(entry.clone());
        entry
    }

    /// Takes an entry made otherwise as `device`'s last.
    pub fn push(&mut self, device: char, entry: VerifiedEntry) {
        self.last.insert(device, entry.clone());
        self.all.push(entry);
    }

    pub fn dir_id(&self, parent: DirId, at: &str, away: &[VersionId]) -> DirId {
        DirId::derive(&self.drive, &parent, &name(at), away)
    }

    pub fn mkdir(&self, parent: DirId, at: &str, bases: &[VersionId]) -> Op {
        let dir = self.dir_id(parent, at, &[]);
        let attr = DirAttr::default();
        Op::MkDir { parent, name: name(at), dir, attr, bases: bases.to_vec() }
    }

    /// A fresh journal that holds everything made so far.
    pub fn journal(&self) -> Journal {
        let (journal, _) = journal_of(&self.genesis);
        let received = feed(&journal, &self.all);
        assert_eq!(received.refused, vec![]);
        assert_eq!(received.wants, vec![]);
        journal
    }
}

pub fn admit(drive: &DriveId, device: char) -> Op {
    let id = signer_of(device).device();
    Op::Admit {
        invite: invite_key(),
        device: id,
        name: device.to_string(),
        proof: admit_proof(&INVITE_SECRET, drive, &id),
    }
}

/// All nodes of a directory.
pub fn list(journal: &Journal, dir: DirId) -> Vec<ViewNode> {
    journal.list(dir, None, usize::MAX).unwrap()
}

/// Shown names and what stands there, with the digits of copies' names as `#`.
pub fn names(journal: &Journal, dir: DirId, texts: &[&str]) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for node in list(journal, dir) {
        let shown = node.shown.as_str().to_owned();
        let shown = match shown.split_once(" (conflict ") {
            Some((stem, rest)) => {
                let (tag, ending) = rest.split_once(')').unwrap();
                let (user, _) = tag.rsplit_once(' ').unwrap();
                format!("{stem} (conflict {user} #){ending}")
            }
            None => shown,
        };
        let what = match node.kind {
            ViewKind::File(file) => texts
                .iter()
                .find(|text| content(text) == file.content)
                .map_or("?".to_owned(), |text| (*text).to_owned()),
            ViewKind::Symlink(link) => String::from_utf8(link.target).unwrap(),
            ViewKind::Dir { .. } => "/".to_owned(),
        };
        out.push((shown, what));
    }
    out.sort();
    out
}
