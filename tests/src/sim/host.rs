//! A running device: the product's journal and store, as the network sees them.
//!
//! Leaves out: sessions ([`super::world`]); the file system, whose finished saves come in as operations.
//!
//! Invariants:
//! - every call goes to the product; nothing is decided here that the daemon does not decide the same way;
//! - what a call did to the journal is told to the world before anything else happens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cas::{IdKey, Store};
use journal::hlc::ClockBound;
use journal::kv::mem::MemKv;
use journal::op::Content;
use journal::signed::{VerifiedEntry, VerifyError};
use journal::state::State;
use journal::{
    AppendError, Authored, DeviceId, DriveId, EntryId, Frontier, InviteError, Journal, Now, Op,
    OpenError, Received, Refusal, Signer, VerifyReport,
};
use net::{AdmitError, JournalHost};
use parking_lot::Mutex;

use super::disk::Disk;

/// Entries whose signature was checked once in this run: equal bytes give an equal answer.
#[derive(Default)]
pub(crate) struct Verified(Mutex<BTreeMap<[u8; 32], Result<VerifiedEntry, VerifyError>>>);

impl Verified {
    pub(crate) fn verify(&self, bytes: &Arc<[u8]>) -> Result<VerifiedEntry, VerifyError> {
        let mut known = self.0.lock();
        let entry = known.entry(*blake3::hash(bytes).as_bytes());
        entry.or_insert_with(|| VerifiedEntry::verify(Arc::clone(bytes))).clone()
    }
}

/// What a call did to a device's journal.
#[derive(Debug)]
pub(crate) enum Told {
    /// Entries were taken in, from a peer.
    Applied(Received),
    /// Own entries were written.
    Wrote(Authored),
    /// The last own entry names late work.
    Late,
    /// A call failed.
    Failed,
}

/// How signatures are checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Signatures {
    /// On every device, as the product does.
    Everywhere,
    /// Once for each entry of a run.
    Once,
}

/// See the module's words.
pub(crate) struct Host {
    pub(crate) journal: Journal,
    pub(crate) store: Option<Store>,
    pub(crate) signer: Signer,
    /// Who let it in, until its own journal knows.
    pub(crate) through: Option<DeviceId>,
    pub(crate) signatures: Signatures,
    pub(crate) verified: Arc<Verified>,
    wall_ms: AtomicU64,
    /// What the checker believes the clock may be believed, from the same looks at other clocks.
    pub(crate) bound: Mutex<ClockBound>,
    told: Mutex<Vec<Told>>,
    /// Contents that entries here name and the store lacks.
    pub(crate) wanted: Mutex<Vec<Content>>,
}

/// What opening a device's journal and store gives.
pub(crate) struct Parts {
    pub(crate) journal: Journal,
    pub(crate) store: Option<Store>,
}

/// Opens what is on the disk; `state` is what the process before left of its state.
pub(crate) fn open(disk: &Disk, state: MemKv) -> Result<Journal, OpenError> {
    Journal::open_with(Arc::new(disk.log()), State::Memory(state), None)
}

/// Opens the chunks on the disk.
pub(crate) fn open_store(disk: &Disk, key: IdKey) -> Result<Store, cas::OpenError> {
    Store::on_backend(Arc::new(disk.packs()), key)
}

impl Host {
    pub(crate) fn new(
        parts: Parts,
        signer: Signer,
        through: Option<DeviceId>,
        signatures: Signatures,
        verified: Arc<Verified>,
    ) -> Self {
        Self {
            journal: parts.journal,
            store: parts.store,
            signer,
            through,
            signatures,
            verified,
            wall_ms: AtomicU64::new(0),
            bound: Mutex::default(),
            told: Mutex::default(),
            wanted: Mutex::default(),
        }
    }

    pub(crate) fn device(&self) -> DeviceId {
        self.signer.device()
    }

    pub(crate) fn set_wall(&self, wall_ms: u64) {
        self.wall_ms.store(wall_ms, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> Now {
        Now { wall_ms: self.wall_ms.load(Ordering::Relaxed) }
    }

    pub(crate) fn take_told(&self) -> Vec<Told> {
        std::mem::take(&mut self.told.lock())
    }

    fn tell(&self, told: Told) {
        self.told.lock().push(told);
    }

    /// The daemon's seal: chunks durable, then the entry.
    pub(crate) fn seal(&self, ops: Vec<Op>) -> Result<Authored, AppendError> {
        if let Some(store) = &self.store
            && !journal::canary::is(journal::canary::Canary::SealBeforeChunks)
            && let Err(error) = store.sync()
        {
            let why = match error {
                cas::WriteError::Full => AppendError::Full,
                _ => AppendError::Poisoned,
            };
            return Err(why);
        }
        self.author(ops)
    }

    /// Operations that need no chunk.
    pub(crate) fn author(&self, ops: Vec<Op>) -> Result<Authored, AppendError> {
        match self.journal.author(&self.signer, ops, self.now()) {
            Ok(authored) => {
                self.tell(Told::Wrote(authored.clone()));
                Ok(authored)
            }
            Err(error) => {
                if matches!(error, AppendError::Io(_) | AppendError::Poisoned | AppendError::Full) {
                    self.tell(Told::Failed);
                }
                Err(error)
            }
        }
    }

    fn take_in(&self, entries: &[Arc<[u8]>]) -> Result<Received, AppendError> {
        if self.signatures == Signatures::Everywhere {
            return self.journal.receive(entries, self.now());
        }
        let (mut verified, mut refused) = (Vec::new(), Vec::new());
        for bytes in entries {
            match self.verified.verify(bytes) {
                Ok(entry) => verified.push(entry),
                Err(error) => refused.push(Refusal { id: None, why: error.into() }),
            }
        }
        self.journal.receive_verified(verified, refused)
    }

    /// Reads the whole log again.
    pub(crate) fn verify(&self) -> Result<VerifyReport, OpenError> {
        let check = &mut |bytes: Arc<[u8]>| match self.signatures {
            Signatures::Everywhere => VerifiedEntry::verify(bytes),
            Signatures::Once => self.verified.verify(&bytes),
        };
        self.journal.verify_by(check, &mut |_| {})
    }

    fn is_current(&self, device: DeviceId) -> bool {
        self.journal.member(device).is_some_and(|m| !m.removed)
    }
}

impl JournalHost for Host {
    fn drive_id(&self) -> DriveId {
        self.journal.drive().id
    }

    fn genesis(&self) -> Arc<[u8]> {
        self.journal.drive().genesis
    }

    fn frontier(&self) -> Frontier {
        self.journal.frontier()
    }

    fn lacking(&self, theirs: &Frontier, bytes_max: usize) -> Vec<Arc<[u8]>> {
        self.journal.lacking(theirs, bytes_max)
    }

    fn entry_id(&self, entry: &[u8]) -> EntryId {
        match self.signatures {
            Signatures::Everywhere => journal::signed::entry_id_unchecked(entry),
            Signatures::Once => self.verified.verify(&entry.into()).ok().map(|entry| entry.id()),
        }
        .unwrap_or(EntryId::from_bytes([0; 32]))
    }

    fn entry(&self, id: &EntryId) -> Option<Arc<[u8]>> {
        self.journal.entry(id)
    }

    fn damaged(&self) -> Vec<EntryId> {
        self.journal.damaged()
    }

    fn covers(&self, theirs: &Frontier) -> bool {
        self.journal.covers(theirs)
    }

    fn unacknowledged(&self) -> Vec<EntryId> {
        self.journal.unacknowledged(self.device())
    }

    fn receive(&self, _from: DeviceId, entries: &[Arc<[u8]>]) -> Result<Received, AppendError> {
        let received = self.take_in(entries);
        match &received {
            Ok(received) => self.tell(Told::Applied(received.clone())),
            Err(_) => self.tell(Told::Failed),
        }
        received
    }

    fn acknowledged(&self, by: DeviceId, frontier: &Frontier) {
        self.journal.acknowledged(by, frontier);
    }

    fn before_first_push(&self) -> Result<(), AppendError> {
        match self.journal.author_late(&self.signer, self.now()) {
            Ok(Some(authored)) => {
                self.tell(Told::Wrote(authored));
                self.tell(Told::Late);
                Ok(())
            }
            Ok(None) | Err(AppendError::NotMember) => Ok(()),
            Err(error) => {
                self.tell(Told::Failed);
                Err(error)
            }
        }
    }

    fn members(&self) -> Vec<DeviceId> {
        let own = self.device();
        let mut members: Vec<DeviceId> =
            self.journal.members().into_iter().filter(|m| !m.removed).map(|m| m.device).collect();
        if !members.contains(&own) && self.journal.member(own).is_none() {
            members.extend(self.through);
            members.push(own);
        }
        members.extend(self.journal.members_behind_gaps());
        members
    }

    fn is_member(&self, device: DeviceId) -> bool {
        self.is_current(device) || self.members().contains(&device)
    }

    fn invites_open(&self) -> bool {
        self.journal.has_recent_invite(self.now())
    }

    fn admit(
        &self,
        invite_key: [u8; 32],
        device: DeviceId,
        name: String,
        proof: [u8; 64],
    ) -> Result<(), AdmitError> {
        self.journal.check_invite(&invite_key, self.now()).map_err(|error| match error {
            InviteError::Unknown => AdmitError::Unknown,
            InviteError::Expired => AdmitError::Expired,
            InviteError::Used => AdmitError::Used,
            InviteError::Void => AdmitError::Void,
            _ => AdmitError::Unable,
        })?;
        let op = Op::Admit { invite: invite_key, device, name, proof };
        self.author(vec![op]).map_err(|_| AdmitError::Unable)?;
        if self.is_current(device) { Ok(()) } else { Err(AdmitError::Unknown) }
    }

    fn holds(&self) -> Option<Frontier> {
        let store = self.store.as_ref()?;
        let frontier = self.journal.frontier();
        let complete = self.wanted.lock().is_empty();
        (complete && store.sync().is_ok()).then_some(frontier)
    }

    fn they_hold(&self, _by: DeviceId, _frontier: &Frontier) {}

    fn observe_clock(&self, device: DeviceId, wall_ms: u64) {
        self.bound.lock().observe(device, wall_ms, self.now().wall_ms);
        self.journal.observe_clock(device, wall_ms, self.now());
    }
}
