//! A journal that keeps chains, causality, members and invitations, in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cas::Content;
use journal::hlc::Hlc;
use journal::op::Op;
use journal::signed::{Signer, VerifiedEntry};
use journal::{
    AppendError, DeviceId, DriveId, EntryId, Received, Refusal, RefuseReason, Register, VersionId,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::host::{AdmitError, JournalHost, LockHost};
use journal::chain::{Frontier, Tip};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FakeEntry {
    pub(crate) device: DeviceId,
    pub(crate) seq: u64,
    pub(crate) prev: Option<EntryId>,
    pub(crate) seen: Vec<EntryId>,
    pub(crate) late: Option<EntryId>,
    pub(crate) contents: Vec<(cas::ContentId, u64)>,
    pub(crate) text: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Invite {
    pub(crate) uses: u32,
    pub(crate) expired: bool,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<EntryId, (FakeEntry, Arc<[u8]>)>,
    order: Vec<EntryId>,
    waiting: BTreeMap<EntryId, (FakeEntry, Arc<[u8]>)>,
    acknowledged: BTreeSet<EntryId>,
    heads: BTreeSet<EntryId>,
    members: BTreeSet<DeviceId>,
    invites: BTreeMap<[u8; 32], Invite>,
    holds: Option<Frontier>,
    received_batches: usize,
    officials: BTreeMap<Register, VersionId>,
}

/// See the module's words.
pub(crate) struct FakeJournal {
    pub(crate) me: DeviceId,
    genesis: Arc<[u8]>,
    drive: DriveId,
    state: Mutex<State>,
}

/// The signer whose secret a test node runs with.
pub(crate) fn signer(n: u8) -> Signer {
    Signer::derive(&[n; 32], &[n; 32])
}

/// A real genesis: joiners check its signature.
pub(crate) fn genesis(n: u8) -> (DriveId, Arc<[u8]>) {
    let signer = signer(n);
    let op = Op::Genesis {
        drive_name: "drive".into(),
        device_name: "first".into(),
        id_key: cas::IdKey::from_bytes([9; 32]),
        posix_owners: false,
    };
    let entry = journal::entry::Entry {
        drive: DriveId::ZERO,
        device: signer.device(),
        seq: 0,
        prev: None,
        seen: Vec::new(),
        late: Vec::new(),
        hlc: Hlc::from_ms(1),
        saved_at_ms: 1,
        ops: vec![op],
    };
    let signed = VerifiedEntry::sign(entry, &signer).unwrap();
    (signed.id().into(), signed.bytes().clone())
}

pub(crate) fn id_of(bytes: &[u8]) -> EntryId {
    EntryId::from_bytes(*blake3::hash(bytes).as_bytes())
}

impl FakeJournal {
    pub(crate) fn new(me: DeviceId, members: &[DeviceId], genesis_of: u8) -> Self {
        let (drive, genesis) = genesis(genesis_of);
        let state = State { members: members.iter().copied().collect(), ..State::default() };
        Self { me, genesis, drive, state: Mutex::new(state) }
    }

    /// Writes an own entry.
    pub(crate) fn author(&self, text: &str, contents: &[Content]) -> EntryId {
        self.author_with(text, contents, None)
    }

    fn author_with(&self, text: &str, contents: &[Content], late: Option<EntryId>) -> EntryId {
        let mut state = self.state.lock();
        let prev = state
            .entries
            .iter()
            .filter(|(_, (e, _))| e.device == self.me)
            .max_by_key(|(_, (e, _))| e.seq)
            .map(|(id, (e, _))| (*id, e.seq));
        let entry = FakeEntry {
            device: self.me,
            seq: prev.map_or(0, |(_, seq)| seq + 1),
            prev: prev.map(|(id, _)| id),
            seen: state.heads.iter().copied().filter(|id| Some(*id) != prev.map(|p| p.0)).collect(),
            late,
            contents: contents.iter().map(|c| (c.id, c.len)).collect(),
            text: text.into(),
        };
        let bytes: Arc<[u8]> = postcard::to_allocvec(&entry).unwrap().into();
        let id = id_of(&bytes);
        state.apply(id, entry, bytes);
        id
    }

    pub(crate) fn texts(&self) -> BTreeSet<String> {
        self.state.lock().entries.values().map(|(e, _)| e.text.clone()).collect()
    }

    pub(crate) fn entries(&self) -> BTreeSet<EntryId> {
        self.state.lock().entries.keys().copied().collect()
    }

    pub(crate) fn get(&self, id: &EntryId) -> Option<FakeEntry> {
        self.state.lock().entries.get(id).map(|(e, _)| e.clone())
    }

    pub(crate) fn contents(&self) -> Vec<Content> {
        let state = self.state.lock();
        let all = state.entries.values().flat_map(|(e, _)| e.contents.iter());
        all.map(|(id, len)| Content { id: *id, len: *len }).collect()
    }

    pub(crate) fn set_member(&self, device: DeviceId, member: bool) {
        let mut state = self.state.lock();
        if member {
            state.members.insert(device);
        } else {
            state.members.remove(&device);
        }
    }

    pub(crate) fn set_holds(&self, holds: Option<Frontier>) {
        self.state.lock().holds = holds;
    }

    pub(crate) fn add_invite(&self, key: [u8; 32], invite: Invite) {
        self.state.lock().invites.insert(key, invite);
    }

    /// What is official here, for the locks: newer than everything else.
    pub(crate) fn set_official(&self, register: Register, version: VersionId) {
        self.state.lock().officials.insert(register, version);
    }

    pub(crate) fn received_batches(&self) -> usize {
        self.state.lock().received_batches
    }
}

impl State {
    fn apply(&mut self, id: EntryId, entry: FakeEntry, bytes: Arc<[u8]>) {
        for parent in entry.prev.iter().chain(&entry.seen) {
            self.heads.remove(parent);
        }
        self.heads.insert(id);
        self.order.push(id);
        self.entries.insert(id, (entry, bytes));
    }

    fn below(&self, frontier: &Frontier) -> BTreeSet<EntryId> {
        let mut below = BTreeSet::new();
        let mut todo = Vec::new();
        for tip in &frontier.tips {
            if self.entries.contains_key(&tip.entry) {
                todo.push(tip.entry);
            } else {
                let known = self
                    .entries
                    .iter()
                    .filter(|(_, (e, _))| e.device == tip.device && e.seq <= tip.seq);
                below.extend(known.map(|(id, _)| *id));
            }
        }
        while let Some(id) = todo.pop() {
            if below.insert(id)
                && let Some((e, _)) = self.entries.get(&id)
            {
                todo.extend(e.prev.iter().chain(&e.seen));
            }
        }
        below
    }

    fn frontier(&self) -> Frontier {
        let mut tips: BTreeMap<DeviceId, Tip> = BTreeMap::new();
        for (id, (e, _)) in &self.entries {
            let tip = Tip { device: e.device, seq: e.seq, entry: *id };
            let best = tips.entry(e.device).or_insert(tip);
            if tip.seq > best.seq {
                *best = tip;
            }
        }
        Frontier { tips: tips.into_values().collect() }
    }
}

impl JournalHost for FakeJournal {
    fn drive_id(&self) -> DriveId {
        self.drive
    }

    fn genesis(&self) -> Arc<[u8]> {
        self.genesis.clone()
    }

    fn frontier(&self) -> Frontier {
        self.state.lock().frontier()
    }

    fn lacking(&self, theirs: &Frontier, bytes_max: usize) -> Vec<Arc<[u8]>> {
        let state = self.state.lock();
        let below = state.below(theirs);
        let mut out = Vec::new();
        let mut len = 0;
        for id in state.order.iter().filter(|id| !below.contains(id)) {
            let (_, bytes) = &state.entries[id];
            len += bytes.len();
            if len > bytes_max && !out.is_empty() {
                break;
            }
            out.push(bytes.clone());
        }
        out
    }

    fn entry_id(&self, entry: &[u8]) -> EntryId {
        id_of(entry)
    }

    fn entry(&self, id: &EntryId) -> Option<Arc<[u8]>> {
        self.state.lock().entries.get(id).map(|(_, bytes)| bytes.clone())
    }

    fn damaged(&self) -> Vec<EntryId> {
        Vec::new()
    }

    fn covers(&self, theirs: &Frontier) -> bool {
        let state = self.state.lock();
        theirs.tips.iter().all(|tip| state.entries.contains_key(&tip.entry))
    }

    fn unacknowledged(&self) -> Vec<EntryId> {
        let state = self.state.lock();
        let own = state.entries.iter().filter(|(_, (e, _))| e.device == self.me);
        own.map(|(id, _)| *id).filter(|id| !state.acknowledged.contains(id)).collect()
    }

    fn receive(&self, _: DeviceId, entries: &[Arc<[u8]>]) -> Result<Received, AppendError> {
        let mut state = self.state.lock();
        state.received_batches += 1;
        let mut received = Received::default();
        for bytes in entries {
            let id = id_of(bytes);
            match postcard::from_bytes::<FakeEntry>(bytes) {
                Ok(_) if state.entries.contains_key(&id) => {}
                Ok(entry) => {
                    state.waiting.insert(id, (entry, bytes.clone()));
                }
                Err(_) => received.refused.push(Refusal { id: Some(id), why: RefuseReason::Clock }),
            }
        }
        loop {
            let ready = state.waiting.iter().find(|(_, (e, _))| {
                e.prev.iter().chain(&e.seen).all(|p| state.entries.contains_key(p))
            });
            let Some(id) = ready.map(|(id, _)| *id) else { break };
            let (entry, bytes) = state.waiting.remove(&id).unwrap();
            state.apply(id, entry, bytes);
            received.applied.push(id);
        }
        let wants: BTreeSet<EntryId> = state
            .waiting
            .values()
            .flat_map(|(e, _)| e.prev.iter().chain(&e.seen))
            .filter(|id| !state.entries.contains_key(id) && !state.waiting.contains_key(id))
            .copied()
            .collect();
        received.wants = wants.into_iter().collect();
        Ok(received)
    }

    fn acknowledged(&self, _: DeviceId, frontier: &Frontier) {
        let mut state = self.state.lock();
        let below = state.below(frontier);
        state.acknowledged.extend(below);
    }

    fn before_first_push(&self) -> Result<(), AppendError> {
        let own = self.unacknowledged();
        let first = {
            let state = self.state.lock();
            own.iter().min_by_key(|id| state.entries[id].0.seq).copied()
        };
        if first.is_some() {
            self.author_with("late", &[], first);
        }
        Ok(())
    }

    fn members(&self) -> Vec<DeviceId> {
        self.state.lock().members.iter().copied().collect()
    }

    fn is_member(&self, device: DeviceId) -> bool {
        self.state.lock().members.contains(&device)
    }

    fn invites_open(&self) -> bool {
        !self.state.lock().invites.is_empty()
    }

    fn admit(
        &self,
        invite_key: [u8; 32],
        device: DeviceId,
        _: String,
        proof: [u8; 64],
    ) -> Result<(), AdmitError> {
        let mut state = self.state.lock();
        if !journal::member::verify_admit(&invite_key, &self.drive, &device, &proof) {
            return Err(AdmitError::Unknown);
        }
        let invite = state.invites.get_mut(&invite_key).ok_or(AdmitError::Unknown)?;
        if invite.expired {
            return Err(AdmitError::Expired);
        }
        if invite.uses == 0 {
            return Err(AdmitError::Used);
        }
        invite.uses -= 1;
        state.members.insert(device);
        Ok(())
    }

    fn holds(&self) -> Option<Frontier> {
        self.state.lock().holds.clone()
    }

    fn they_hold(&self, _: DeviceId, _: &Frontier) {}

    fn observe_clock(&self, _: DeviceId, _: u64) {}
}

impl LockHost for FakeJournal {
    fn is_newer(&self, register: &Register, bases: &[VersionId]) -> bool {
        let state = self.state.lock();
        state.officials.get(register).is_some_and(|official| !bases.contains(official))
    }
}
