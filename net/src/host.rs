//! What this crate needs of the journal and the store, as traits that the composition implements.
//!
//! Leaves out: any thread or socket. Every call may block (disk) and is made from threads that may.
//!
//! Invariants expected of an implementation:
//! - what [`JournalHost::receive`] reports as applied is durable when it returns;
//! - [`ChunkHost::put_stored`] verifies the bytes against the id before it keeps them.

use std::sync::Arc;

use cas::{ChunkId, Content, MissingChunks, StoredChunk};
use journal::{AppendError, DeviceId, DriveId, EntryId, Frontier, Received, Register, VersionId};

/// Why an invitation did not admit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// The journal knows no such invitation, or the proof is not its.
    #[error("unknown invitation")]
    Unknown,
    /// Its time is over.
    #[error("the invitation has expired")]
    Expired,
    /// It was used as often as it allows.
    #[error("the invitation is used up")]
    Used,
    /// Withdrawn, or its issuer is removed.
    #[error("the invitation is void")]
    Void,
    /// The journal cannot be written now.
    #[error("nobody can be admitted by this device now")]
    Unable,
}

/// The journal, as the network sees it.
pub trait JournalHost: Send + Sync + 'static {
    /// The drive this is about.
    fn drive_id(&self) -> DriveId;
    /// The first entry's bytes.
    fn genesis(&self) -> Arc<[u8]>;
    /// Everything held, durably.
    fn frontier(&self) -> Frontier;
    /// What `theirs` lacks of ours, in causal order, until the next entry would exceed `bytes_max`
    /// bytes; at least one entry if there is any.
    fn lacking(&self, theirs: &Frontier, bytes_max: usize) -> Vec<Arc<[u8]>>;
    /// The id of an entry, from its bytes; need not be valid.
    fn entry_id(&self, entry: &[u8]) -> EntryId;
    /// One entry.
    fn entry(&self, id: &EntryId) -> Option<Arc<[u8]>>;
    /// Entries that are held and lie here damaged: peers are asked for them. What comes of it goes to `receive`.
    fn damaged(&self) -> Vec<EntryId>;
    /// Whether all of `theirs` is held.
    fn covers(&self, theirs: &Frontier) -> bool;
    /// Whether everything under `target` is here and under `held`. A host that cannot tell says no: the numbers of the
    /// tips decide then, and of a forked chain they do not.
    fn is_under(&self, _target: &Frontier, _held: &Frontier) -> bool {
        false
    }
    /// Own entries that no member has acknowledged: they must not leave before the other end's
    /// entries are in (DESIGN 4.2).
    fn unacknowledged(&self) -> Vec<EntryId>;
    /// Takes entries in; everything that can be is verified, durable and applied on return. An error
    /// says that the journal takes nothing in now (disk full, damaged, closed).
    fn receive(&self, from: DeviceId, entries: &[Arc<[u8]>]) -> Result<Received, AppendError>;
    /// `by` holds these entries durably.
    fn acknowledged(&self, by: DeviceId, frontier: &Frontier);
    /// Called on every (re)connection after the peer's entries are in and before anything of ours that
    /// nobody acknowledged leaves: writes the entry that names the late ones, if there are any. An error ends the
    /// session: what could not be named late must not leave.
    fn before_first_push(&self) -> Result<(), AppendError>;
    /// The members, oneself included: who may connect.
    fn members(&self) -> Vec<DeviceId>;
    /// Whether `device` is a member now; asked again for every request.
    fn is_member(&self, device: DeviceId) -> bool;
    /// Devices that were removed. They are told so when they come back, and what they wrote before is taken in.
    fn removed(&self) -> Vec<DeviceId> {
        Vec::new()
    }
    /// As `frontier`, of what a removed device is told: everything up to its removal and nothing after it.
    fn farewell_frontier(&self, _device: DeviceId) -> Frontier {
        Frontier::default()
    }
    /// As `lacking`, of that.
    fn farewell_lacking(&self, _: DeviceId, _theirs: &Frontier, _: usize) -> Vec<Arc<[u8]>> {
        Vec::new()
    }
    /// As `entry`, of that.
    fn farewell_entry(&self, _: DeviceId, _id: &EntryId) -> Option<Arc<[u8]>> {
        None
    }
    /// Whether any invitation might still admit somebody: only then are strangers let in to prove one.
    fn invites_open(&self) -> bool;
    /// Checks the invitation and, if it counts, writes the admission durably.
    fn admit(
        &self,
        invite_key: [u8; 32],
        device: DeviceId,
        name: String,
        proof: [u8; 64],
    ) -> Result<(), AdmitError>;
    /// The largest frontier under which every content is held here; `None` if unknown or none.
    fn holds(&self) -> Option<Frontier>;
    /// `by` holds, durably, every content it must under this frontier; nothing, if the frontier is empty.
    fn they_hold(&self, by: DeviceId, frontier: &Frontier);
    /// `device`'s wall clock shows `wall_ms` now, milliseconds since 1970 (for the median of
    /// DESIGN 4.2).
    fn observe_clock(&self, device: DeviceId, wall_ms: u64);
}

/// Why a received chunk was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// It is not what its id names: the sender lies or is broken.
    #[error("the bytes are not what the id names")]
    Corrupt,
    /// No room.
    #[error("the disk is full")]
    Full,
    /// The store failed.
    #[error("the store failed")]
    Failed,
}

/// The chunk store, as the network sees it.
pub trait ChunkHost: Send + Sync + 'static {
    /// A chunk for a peer; verified, or `None`.
    fn get_stored(&self, id: &ChunkId) -> Option<StoredChunk>;
    /// Verifies and keeps a chunk of a peer.
    fn put_stored(&self, id: ChunkId, chunk: StoredChunk) -> Result<(), PutError>;
    /// Whether it is here.
    fn has(&self, id: &ChunkId) -> bool;
    /// What `content` lacks, at most `limit` ids of it, manifests first; `None` when the store cannot
    /// tell now.
    fn missing(&self, content: Content, limit: usize) -> Option<MissingChunks>;
    /// Makes everything put so far durable; false if that failed.
    fn sync(&self) -> bool;
}

/// What the locks ask of the journal.
pub trait LockHost: Send + Sync + 'static {
    /// Whether the official version here replaces what these name, and is none of them: whoever has those in front of it
    /// has not seen it.
    fn is_newer(&self, register: &Register, bases: &[VersionId]) -> bool;
}
