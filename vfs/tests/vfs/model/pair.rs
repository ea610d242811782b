//! The journals of this device and of another member, as the file system and the other one see them.
//!
//! Both are real ones, over files that cost nothing to sync; they meet when told. Contents of the other member are in the
//! store of this device, as if fetched.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};

use cas::{IdKey, Store};
use journal::kv::mem::MemKv;
use journal::log::storage::DirStorage;
use journal::member::admit_proof;
use journal::op::Op;
use journal::state::State;
use journal::view::{DirNode, HistoryVersion, OnceNode, ViewNode};
use journal::{
    AppendError, DirId, EntryName, GenesisSpec, Journal, Moment, Now, Register, Role, Signer,
    VersionId,
};
use vfs::{Locks, Past, SealError, Snapshot, StateError, Submit, Told, Tree};

/// Key of the chunk ids.
pub fn id_key() -> IdKey {
    IdKey::from_bytes([7; 32])
}

const INVITE: [u8; 32] = [42; 32];
const EPOCH_MS: u64 = 1_800_000_000_000;

/// A device's journal.
pub struct Replica {
    pub journal: Journal,
    pub signer: Signer,
}

/// The journals of two devices, the first of which is this one.
pub struct Pair {
    pub here: Replica,
    pub there: Replica,
    pub store: Mutex<Store>,
    wall_ms: AtomicU64,
    /// What this device published and nobody looked at yet.
    sealed: Mutex<Vec<Op>>,
    /// Length of the spool log at the last publication; by then it is durable.
    log: PathBuf,
    log_len: AtomicU64,
    gate: Mutex<Option<Gate>>,
}

/// Stops a publication in its middle.
pub struct Gate {
    pub when: When,
    pub arrived: Sender<Reached>,
    pub go_on: Receiver<()>,
}

/// How far a publication has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    Gate,
    End,
}

/// Where a publication is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The journal has nothing of it yet.
    Before,
    /// The journal shows it, the file system has not been told.
    After,
}

fn journal(dir: &Path, genesis: &journal::signed::VerifiedEntry) -> Journal {
    let storage = Arc::new(DirStorage::open(dir).unwrap());
    Journal::begin_with(storage, State::Memory(MemKv::default()), genesis, None).unwrap()
}

impl Pair {
    /// Two members of a new drive, their logs in `dir`.
    pub fn new(dir: &Path, store: Store) -> Self {
        let [here, there] = [1, 2].map(|n| Signer::derive(&[n; 32], &[7; 32]));
        let now = Now { wall_ms: EPOCH_MS };
        let spec = GenesisSpec {
            drive_name: "drive".into(),
            device_name: "here".into(),
            id_key: id_key(),
            posix_owners: false,
        };
        let genesis = Journal::genesis(&here, spec, now).unwrap();
        let key = Signer::invite_public(&INVITE);
        let admit = Op::Admit {
            invite: key,
            device: there.device(),
            name: "there".into(),
            proof: admit_proof(&INVITE, &genesis.id().into(), &there.device()),
        };
        let invite = Op::Invite { key, role: Role::Owner, expires: u64::MAX >> 16, uses: 1 };
        let pair = Self {
            here: Replica { journal: journal(&dir.join("here"), &genesis), signer: here },
            there: Replica { journal: journal(&dir.join("there"), &genesis), signer: there },
            store: Mutex::new(store),
            wall_ms: AtomicU64::new(EPOCH_MS),
            sealed: Mutex::default(),
            log: dir.join("spool/log"),
            log_len: AtomicU64::new(0),
            gate: Mutex::default(),
        };
        pair.here.journal.author(&pair.here.signer, vec![invite, admit], now).unwrap();
        pair.meet();
        pair
    }

    pub fn pass(&self, ms: u64) {
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
    }

    fn now(&self) -> Now {
        // No two entries at one moment: who was first is then a matter of who was first.
        Now { wall_ms: self.wall_ms.fetch_add(1, Ordering::SeqCst) }
    }

    /// Both learn of all the other has; gives what shows something else here now.
    pub fn meet(&self) -> Vec<Register> {
        let carry = |from: &Replica, to: &Replica| {
            let entries = from.journal.lacking(&to.journal.frontier(), usize::MAX);
            let received = to.journal.receive(&entries, self.now()).unwrap();
            assert!(received.refused.is_empty(), "an entry was refused: {:?}", received.refused);
            received.changed
        };
        carry(&self.here, &self.there);
        carry(&self.there, &self.here)
    }

    /// The other member publishes.
    pub fn publish_there(&self, ops: Vec<Op>) -> Vec<VersionId> {
        self.there.journal.author(&self.there.signer, ops, self.now()).unwrap().versions
    }

    /// The next publication stops at this gate; none: no gate.
    pub fn set_gate(&self, gate: Option<Gate>) {
        *self.gate.lock().unwrap() = gate;
    }

    /// How long the spool log was when it was last durable for a publication.
    pub fn log_len(&self) -> u64 {
        self.log_len.load(Ordering::SeqCst)
    }

    fn stop(&self, when: When) {
        // The lock is given back before the stop.
        let gate = self.gate.lock().unwrap().take_if(|gate| gate.when == when);
        if let Some(gate) = gate {
            gate.arrived.send(Reached::Gate).unwrap();
            // Nobody there any more: the run has failed elsewhere.
            let _ = gate.go_on.recv();
        }
    }

    /// What this device published since the last call.
    pub fn take_sealed(&self) -> Vec<Op> {
        std::mem::take(&mut *self.sealed.lock().unwrap())
    }
}

/// Where the last whole frame of a spool log ends; its file reaches further. See docs/FORMAT.md.
pub fn log_end(path: &Path) -> u64 {
    let file = std::fs::File::open(path).unwrap();
    let mut head = [0; 16];
    if file.read_exact_at(&mut head, 0).is_err() {
        return 0;
    }
    let mut end = 16;
    let mut frame = [0; 8];
    while file.read_exact_at(&mut frame, end).is_ok() {
        let (len, crc) = frame.split_at(4);
        let mut payload = vec![0; u32::from_le_bytes(len.try_into().unwrap()) as usize];
        if payload.is_empty() || file.read_exact_at(&mut payload, end + 8).is_err() {
            break;
        }
        let sealed = [&head[12..], len, &payload[..]].concat();
        if crc32c::crc32c(&sealed).to_le_bytes() != *crc {
            break;
        }
        end += 8 + payload.len() as u64;
    }
    end
}

fn unreadable(error: journal::StateError) -> StateError {
    StateError(Box::new(error))
}

impl Past for Pair {
    fn generation(&self) -> u64 {
        self.here.journal.counts().entries
    }

    fn snapshots(&self) -> Result<Vec<Snapshot>, StateError> {
        Ok(Vec::new())
    }

    fn existed(&self, moment: Moment) -> Result<bool, StateError> {
        self.here.journal.existed(moment).map_err(unreadable)
    }

    fn differ(&self, one: Moment, other: Moment) -> Result<bool, StateError> {
        self.here.journal.differ(one, other).map_err(unreadable)
    }

    fn lookup_then(
        &self,
        moment: Moment,
        dir: DirId,
        shown: &EntryName,
    ) -> Result<Option<ViewNode>, StateError> {
        let past = journal::Past::new(moment);
        past.lookup(&self.here.journal, dir, shown).map_err(unreadable)
    }

    fn list_then(&self, moment: Moment, dir: DirId) -> Result<Vec<ViewNode>, StateError> {
        journal::Past::new(moment).list(&self.here.journal, dir).map_err(unreadable)
    }

    fn once(&self, dir: DirId) -> Result<Vec<OnceNode>, StateError> {
        self.here.journal.once(dir).map_err(unreadable)
    }

    fn once_at(&self, dir: DirId, name: &EntryName) -> Result<Option<OnceNode>, StateError> {
        self.here.journal.once_at(dir, name).map_err(unreadable)
    }

    fn history(&self, dir: DirId, name: &EntryName) -> Result<Vec<HistoryVersion>, StateError> {
        self.here.journal.history(dir, name).map_err(unreadable)
    }

    fn told(&self, dir: DirId, shown: &EntryName) -> Result<Option<Told>, StateError> {
        let node = self.here.journal.lookup(dir, shown).map_err(unreadable)?;
        Ok(node.map(|node| Told { node, arriving: false, author: String::new() }))
    }
}

impl Tree for Pair {
    fn lookup(&self, dir: DirId, shown: &EntryName) -> Result<Option<ViewNode>, StateError> {
        self.here.journal.lookup(dir, shown).map_err(unreadable)
    }

    fn list(
        &self,
        dir: DirId,
        after: Option<&EntryName>,
        limit: usize,
    ) -> Result<Vec<ViewNode>, StateError> {
        self.here.journal.list(dir, after, limit).map_err(unreadable)
    }

    fn gone_heads(&self, dir: DirId, name: &EntryName) -> Result<Vec<VersionId>, StateError> {
        self.here.journal.gone_heads(dir, name).map_err(unreadable)
    }

    fn new_dir_id(
        &self,
        parent: DirId,
        name: &EntryName,
        bases: &[VersionId],
    ) -> Result<DirId, StateError> {
        self.here.journal.new_dir_id(parent, name, bases).map_err(unreadable)
    }

    fn bases(&self, version: VersionId) -> Result<Vec<VersionId>, StateError> {
        self.here.journal.bases(version).map_err(unreadable)
    }

    fn dir(&self, dir: DirId) -> Result<Option<DirNode>, StateError> {
        self.here.journal.dir(dir).map_err(unreadable)
    }
}

impl Locks for Pair {}

impl Submit for Pair {
    fn seal(&self, ops: Vec<Op>) -> Result<Vec<VersionId>, SealError> {
        self.log_len.store(log_end(&self.log), Ordering::SeqCst);
        self.stop(When::Before);
        self.store.lock().unwrap().sync().map_err(|error| SealError::Failed(Box::new(error)))?;
        let authored = self.here.journal.author(&self.here.signer, ops.clone(), self.now());
        let authored = authored.map_err(|error| match error {
            error
            @ (AppendError::Op { .. } | AppendError::Unfit { .. } | AppendError::TooLarge) => {
                SealError::Refused(Box::new(error))
            }
            error => SealError::Failed(Box::new(error)),
        })?;
        self.sealed.lock().unwrap().extend(ops);
        self.stop(When::After);
        Ok(authored.versions)
    }
}
