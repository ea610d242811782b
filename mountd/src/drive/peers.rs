//! The drive as `net` asks for it: entries, chunks, members.
//!
//! Leaves out everything of connections and streams.
//!
//! Invariants:
//! - `receive` returns after the entries are durable, applied and shown;
//! - a chunk from a peer is verified before it is written (by the store).

use std::sync::Arc;

use cas::{ChunkId, Content, MissingChunks, StoredChunk};
use journal::op::Op;
use journal::{AppendError, DeviceId, DriveId, EntryId, Frontier, InviteError, Now, Received};
use net::{AdmitError, ChunkHost, JournalHost, PutError};

use super::Drive;

/// Who may connect: every member that is not removed, oneself included.
pub type Members = Vec<DeviceId>;

impl Drive {
    /// Whether any other member is connected now.
    pub(super) fn somebody_online(&self) -> bool {
        !self.online.lock().is_empty()
    }

    fn is_current(&self, device: DeviceId) -> bool {
        self.journal.member(device).is_some_and(|m| !m.removed)
    }
}

impl JournalHost for Drive {
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
        journal::signed::entry_id_unchecked(entry).unwrap_or(EntryId::from_bytes([0; 32]))
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

    fn is_under(&self, target: &Frontier, held: &Frontier) -> bool {
        self.journal.is_under(target, held)
    }

    fn unacknowledged(&self) -> Vec<EntryId> {
        self.journal.unacknowledged(self.signer.device())
    }

    fn receive(&self, from: DeviceId, entries: &[Arc<[u8]>]) -> Result<Received, AppendError> {
        let received = self.receive_and_note(|| self.journal.receive(entries, self.clock.now()))?;
        for refusal in &received.refused {
            tracing::warn!(%from, entry = ?refusal.id, why = %refusal.why, "entry refused");
        }
        self.look_up_role();
        self.applied(&received.changed);
        self.locking.heard();
        if !received.applied.is_empty() {
            self.announce();
            if let Some(net) = self.net() {
                net.members_changed();
            }
        }
        Ok(received)
    }

    fn acknowledged(&self, by: DeviceId, frontier: &Frontier) {
        self.journal.acknowledged(by, frontier);
    }

    fn before_first_push(&self) -> Result<(), AppendError> {
        match self.journal.author_late(&self.signer, self.clock.now()) {
            Ok(Some(authored)) => {
                tracing::info!("own work is marked as late");
                self.applied(&authored.changed);
                Ok(())
            }
            // A removed device's work counts nowhere, late or not.
            Ok(None) | Err(AppendError::NotMember) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn members(&self) -> Members {
        let own = self.signer.device();
        let mut members: Members =
            self.journal.members().into_iter().filter(|m| !m.removed).map(|m| m.device).collect();
        // A new member's journal does not know it yet, nor the one that let it in.
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

    fn removed(&self) -> Vec<DeviceId> {
        let own = self.signer.device();
        let members = self.journal.members().into_iter();
        members.filter(|m| m.removed && m.device != own).map(|m| m.device).collect()
    }

    fn farewell_frontier(&self, device: DeviceId) -> Frontier {
        self.journal.farewell_frontier(device).unwrap_or_default()
    }

    fn farewell_lacking(
        &self,
        device: DeviceId,
        theirs: &Frontier,
        bytes_max: usize,
    ) -> Vec<Arc<[u8]>> {
        self.journal.farewell_lacking(device, theirs, bytes_max)
    }

    fn farewell_entry(&self, device: DeviceId, id: &EntryId) -> Option<Arc<[u8]>> {
        self.journal.farewell_entry(device, id)
    }

    fn invites_open(&self) -> bool {
        self.journal.has_recent_invite(self.clock.now())
    }

    fn admit(
        &self,
        invite_key: [u8; 32],
        device: DeviceId,
        name: String,
        proof: [u8; 64],
    ) -> Result<(), AdmitError> {
        let now: Now = self.clock.now();
        self.journal.check_invite(&invite_key, now).map_err(|error| match error {
            InviteError::Unknown => AdmitError::Unknown,
            InviteError::Expired => AdmitError::Expired,
            InviteError::Used => AdmitError::Used,
            InviteError::Void => AdmitError::Void,
            _ => AdmitError::Unable,
        })?;
        let op = Op::Admit { invite: invite_key, device, name, proof };
        self.author(vec![op]).map_err(|error| {
            tracing::error!(%error, "a joining device could not be admitted");
            AdmitError::Unable
        })?;
        if !self.is_current(device) {
            return Err(AdmitError::Unknown);
        }
        if let Some(net) = self.net() {
            net.members_changed();
        }
        Ok(())
    }

    fn holds(&self) -> Option<Frontier> {
        self.held()
    }

    fn they_hold(&self, by: DeviceId, frontier: &Frontier) {
        self.elsewhere.told(by, frontier, self.clock.wall_ms());
    }

    fn observe_clock(&self, device: DeviceId, wall_ms: u64) {
        self.journal.observe_clock(device, wall_ms, self.clock.now());
    }
}

impl ChunkHost for Drive {
    fn get_stored(&self, id: &ChunkId) -> Option<StoredChunk> {
        match self.store.get_stored(id) {
            Ok(chunk) => Some(chunk),
            Err(cas::ReadError::Missing { .. }) => None,
            Err(cas::ReadError::Corrupt { .. }) => {
                self.tell_damage(id);
                self.damage_found();
                None
            }
            Err(error) => {
                tracing::error!(%error, chunk = %id, "chunk cannot be given to a peer");
                None
            }
        }
    }

    fn put_stored(&self, id: ChunkId, chunk: StoredChunk) -> Result<(), PutError> {
        self.store.put_stored(id, &chunk).map_err(|error| match error {
            cas::WriteError::Corrupt { .. } => PutError::Corrupt,
            cas::WriteError::Full => {
                self.notice(
                    "the disk of this device is full: files are no longer fetched".into(),
                    "free space on the disk that holds the store".into(),
                );
                PutError::Full
            }
            error => {
                tracing::error!(%error, "chunk from a peer could not be stored");
                PutError::Failed
            }
        })
    }

    fn has(&self, id: &ChunkId) -> bool {
        self.store.has(id)
    }

    fn missing(&self, content: Content, limit: usize) -> Option<MissingChunks> {
        match cas::missing_chunks(content, &self.store, limit) {
            Ok(missing) => Some(missing),
            Err(error) => {
                tracing::warn!(%error, content = %content.id, "content cannot be looked at");
                None
            }
        }
    }

    fn sync(&self) -> bool {
        let synced = self.store.sync();
        if let Err(error) = &synced {
            tracing::error!(%error, "arrived chunks could not be made durable");
        }
        synced.is_ok()
    }
}
