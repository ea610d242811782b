//! The journal of one drive on one device: log and state behind one locked door.
//!
//! Leaves out: connections, files, clocks; time comes in with each call.
//!
//! Invariants:
//! - an entry is in the log and synced before it is seen in the state or anybody is told of it;
//! - calls that write at the same time share one sync and one commit;
//! - after a failed write nothing of it is left; after a failed sync nothing more is taken until the
//!   journal is opened again;
//! - no call holds a read transaction after it returned.

mod acks;
mod checkouts;
mod commit;
mod farewell;
mod look;
mod open;
mod quarantine;
mod retain;
mod split;

pub use open::Opened;
pub use quarantine::{AsideCount, SET_ASIDE_MAX, SetAside};
pub use retain::{Arrivals, Place, Reach, Retention};

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use cas::id::IdKey;
use parking_lot::Mutex;

use crate::error::RefuseReason;
use crate::hlc::ClockBound;
use crate::id::{DeviceId, DriveId, EntryId, VersionId};
use crate::log::Log;
use crate::log::storage::Storage;
use crate::name::Register;
use crate::replica::Waiting;
use crate::state::State;

/// The present moment, as the caller's clock shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Milliseconds since 1970.
    pub wall_ms: u64,
}

/// What a new drive is made with.
#[derive(Clone, Debug)]
pub struct GenesisSpec {
    /// The drive's name.
    pub drive_name: String,
    /// The first device's name.
    pub device_name: String,
    /// Key of the chunk ids, random.
    pub id_key: IdKey,
    /// Whether numeric owners replicate.
    pub posix_owners: bool,
}

/// What a drive is.
#[derive(Clone, Debug)]
pub struct DriveInfo {
    /// Its id.
    pub id: DriveId,
    /// Its name.
    pub name: String,
    /// Key of the chunk ids.
    pub id_key: IdKey,
    /// Whether numeric owners replicate.
    pub posix_owners: bool,
    /// Its genesis entry.
    pub genesis: Arc<[u8]>,
}

/// What a call to write wrote.
#[derive(Clone, Debug)]
pub struct Authored {
    /// The last entry written.
    pub id: EntryId,
    /// Its bytes.
    pub bytes: Arc<[u8]>,
    /// Every entry written, in order; more than one when the operations did not fit one.
    pub ids: Vec<EntryId>,
    /// The version of each operation, in the order they were given.
    pub versions: Vec<VersionId>,
    /// Registers that show something else now, or have another checkout.
    pub changed: Vec<Register>,
}

/// An entry that was not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The entry; none when its bytes are no entry.
    pub id: Option<EntryId>,
    /// Why.
    pub why: RefuseReason,
}

/// What became of received entries.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Applied now, those that had waited included, in order.
    pub applied: Vec<EntryId>,
    /// Registers that show something else now, or have another checkout.
    pub changed: Vec<Register>,
    /// Entries that others wait for, and those that lie here damaged.
    pub wants: Vec<EntryId>,
    /// Entries that lay here damaged and were written anew.
    pub mended: Vec<EntryId>,
    /// Entries that were not taken.
    pub refused: Vec<Refusal>,
}

/// Numbers for `status`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Entries applied.
    pub entries: u64,
    /// Files and symlinks shown, copies included.
    pub files: u64,
    /// Directories, the root not counted.
    pub dirs: u64,
    /// Conflict copies shown.
    pub conflicts: u64,
}

/// A named moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotInfo {
    /// Its name.
    pub name: String,
    /// The entry whose past it is.
    pub entry: EntryId,
    /// When, by its author's clock.
    pub saved_at_ms: u64,
}

/// What re-reading the log found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VerifyReport {
    /// Entries whose signature and links hold.
    pub entries: u64,
    /// Entries that are damaged, unsigned, missing from the log, or wait for such.
    pub bad: u64,
    /// Stretches that are no frame, whatever lay there: torn off by a loss of power before anybody was told of it, or
    /// damaged. An entry that is missed for one is counted as bad.
    pub holes: u64,
}

/// The journal of one drive. Safe to use from any thread.
pub struct Journal {
    dir: Option<PathBuf>,
    storage: Arc<dyn Storage>,
    state: State,
    genesis: Arc<[u8]>,
    /// Calls that wait to write.
    queue: Mutex<VecDeque<Arc<commit::Ticket>>>,
    writer: Mutex<Writer>,
    clock: Mutex<ClockBound>,
    acks: Mutex<acks::Unsaved>,
    /// Devices that belong by entries of the own log that waited for damaged ones when it was opened.
    behind_gaps: BTreeSet<DeviceId>,
    /// Applied entries whose frames could not be read: peers are asked for them.
    damaged: Mutex<BTreeSet<EntryId>>,
    closed: AtomicBool,
}

/// What only the one that writes touches.
pub(crate) struct Writer {
    log: Log,
    waiting: Waiting,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("dir", &self.dir).finish_non_exhaustive()
    }
}
