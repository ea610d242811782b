//! Records of the materialised state and the keys they lie under.
//!
//! Leaves out: what keeps them true ([`crate::fold`]).
//!
//! Invariants:
//! - a record's first key byte is its table; within a table keys sort as their parts do;
//! - a register's key ends in NUL, which no name holds, so no register's rows lie among another's;
//! - lanes and apply numbers are this device's own and enter no hash.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::canary::{self, Canary};
use crate::error::StateError;
use crate::hlc::Hlc;
use crate::id::{DeviceId, DirId, DriveId, EntryId, VersionId};
use crate::kv::{Kv, KvRead};
use crate::lock::{Broke, Held, LockAct};
use crate::name::{EntryName, Register};
use crate::op::{Content, DirAttr, FileValue, Op, Role, SymlinkValue, Value, Xattrs};
use crate::order::OrderKey;

/// Version of the state's layout; another one on disk is rebuilt.
pub(crate) const STATE_FORMAT: u32 = 7;

/// Tables, by the first byte of their keys.
pub(crate) mod table {
    pub(crate) const META: u8 = b'G';
    pub(crate) const MEMBERS: u8 = b'm';
    /// entry -> [`super::EntryRec`]
    pub(crate) const ENTRY: u8 = b'E';
    /// lane, position -> entry
    pub(crate) const CHAIN: u8 = b'L';
    /// lane -> [`super::LaneRec`]
    pub(crate) const LANE: u8 = b'l';
    /// device, lane
    pub(crate) const DEVICE: u8 = b'd';
    /// lane, position -> what an entry there has seen, by lane
    pub(crate) const CLOCK: u8 = b'C';
    /// entries nothing builds on
    pub(crate) const HEAD: u8 = b'H';
    /// version -> [`super::VersionRec`]
    pub(crate) const VERSION: u8 = b'V';
    /// base, version that names it
    pub(crate) const SUPERSEDE: u8 = b'S';
    /// register -> [`super::RegRec`]
    pub(crate) const REGISTER: u8 = b'R';
    /// register, version
    pub(crate) const REG_VERSION: u8 = b'r';
    /// registers with an official head
    pub(crate) const SHOWN: u8 = b'O';
    /// directory -> [`super::DirRec`]
    pub(crate) const DIR: u8 = b'D';
    /// register, directory placed there
    pub(crate) const PLACED: u8 = b'h';
    /// directory, version that sets its attributes
    pub(crate) const DIR_ATTR: u8 = b'a';
    /// order key, index -> [`super::MoveRow`]
    pub(crate) const MOVE: u8 = b'P';
    /// version -> its key in the move log
    pub(crate) const MOVE_AT: u8 = b'p';
    /// version -> the move as it was written
    pub(crate) const MOVE_KEPT: u8 = b'q';
    /// versions of moves that were skipped
    pub(crate) const SKIPPED: u8 = b'X';
    /// registers with copies
    pub(crate) const CONFLICT: u8 = b'K';
    /// shown name of a copy -> register, version
    pub(crate) const COPY: u8 = b'N';
    /// short name, version that would like it -> register
    pub(crate) const CLAIM: u8 = b'n';
    /// versions that are membership operations
    pub(crate) const MEMBER_OP: u8 = b'M';
    /// device, entry with a valid proof that admits it
    pub(crate) const ADMITTED: u8 = b'A';
    /// device -> [`super::ForkRec`]
    pub(crate) const FORK: u8 = b'F';
    /// devices that wrote operations that do not fit their own past
    pub(crate) const UNFIT: u8 = b'i';
    /// device -> number of its entries with operations its role does not allow
    pub(crate) const BEYOND: u8 = b'b';
    /// contents with the entries that name them, newest first
    pub(crate) const CONTENT: u8 = b'c';
    /// days (UTC, from 1970) with an entry
    pub(crate) const DAY: u8 = b'y';
    /// named snapshots
    pub(crate) const SNAPSHOT: u8 = b'Z';
    /// device, hlc, place of an entry that names others late -> [`super::LateRun`]s
    pub(crate) const LATE: u8 = b't';
    /// lane -> last position another device is known to hold
    pub(crate) const ACK: u8 = b'k';
    /// register, order key, index of an operation on its checkout -> [`super::LockRow`]
    pub(crate) const LOCK_OP: u8 = b'U';
    /// version -> its order key and index in that log
    pub(crate) const LOCK_AT: u8 = b'u';
    /// device, register with such operations of it
    pub(crate) const LOCK_OF: u8 = b'W';
    /// register -> [`super::Held`], what its last operation left held
    pub(crate) const HELD: u8 = b'w';
    /// registers with a break among those operations, whether it took effect or not
    pub(crate) const BREAK: u8 = b'B';
    /// register -> [`super::Broke`]s, those that took effect
    pub(crate) const BROKEN: u8 = b'x';
}

/// Where an entry's frame lies in the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct LogPos {
    /// The segment's number.
    pub segment: u32,
    /// First byte of the entry in it.
    pub offset: u64,
    /// Bytes of the entry.
    pub len: u32,
}

/// What the state knows of the drive as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) format: u32,
    pub(crate) drive: DriveId,
    pub(crate) genesis: EntryId,
    pub(crate) id_key: cas::id::IdKey,
    pub(crate) posix_owners: bool,
    pub(crate) tree_hash: [u8; 32],
    pub(crate) entries: u64,
    pub(crate) files: u64,
    pub(crate) dirs: u64,
    pub(crate) copies: u64,
    pub(crate) skipped: u64,
    pub(crate) lanes: u32,
    /// Breaks, whether they took effect or not.
    pub(crate) breaks: u64,
    /// End of the last log frame that is applied.
    pub(crate) watermark: LogPos,
    /// Entries in the log that wait for others; the watermark says nothing about them.
    pub(crate) gaps: u64,
}

/// One applied entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct EntryRec {
    pub(crate) device: DeviceId,
    pub(crate) seq: u64,
    pub(crate) prev: Option<EntryId>,
    pub(crate) lane: u32,
    pub(crate) pos: u32,
    /// Position in the lane of the clock row that stands for this entry.
    pub(crate) clock_pos: u32,
    pub(crate) hlc: Hlc,
    /// Hlc of the first own entry that names it late and may.
    pub(crate) late: Option<Hlc>,
    /// Whether any own entry names it late.
    pub(crate) named: bool,
    pub(crate) saved_at_ms: u64,
    /// Entries applied before it on this device.
    pub(crate) number: u64,
    pub(crate) at: LogPos,
    pub(crate) ops: u32,
    /// The highest role that any of its operations needs.
    pub(crate) needs: Option<Role>,
    /// What its author may do in it; none when quarantined.
    pub(crate) standing: Option<Role>,
}

impl EntryRec {
    pub(crate) fn order(&self, entry: EntryId) -> OrderKey {
        let late = self.late.filter(|_| !canary::is(Canary::LateByOwnClock));
        let mut device = self.device;
        if canary::is(Canary::TieBreakTurned) {
            device = DeviceId::from_bytes(device.as_bytes().map(|byte| !byte));
        }
        OrderKey { published: late.unwrap_or(self.hlc), hlc: self.hlc, device, entry }
    }

    /// Whether a member wrote something in it that its role does not allow.
    pub(crate) fn is_beyond(&self) -> bool {
        self.standing.is_some() && self.needs > self.standing
    }

    /// Whether its tree operations count.
    pub(crate) fn accepted(&self) -> bool {
        let counts = self.standing.is_some_and(|role| role >= Role::Editor);
        counts || canary::is(Canary::RemovedStillCounts)
    }
}

/// One unforked run of a device's chain.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct LaneRec {
    pub(crate) device: DeviceId,
    pub(crate) first_seq: u64,
    pub(crate) len: u32,
    pub(crate) tip: EntryId,
}

/// A fork: two entries that continue one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct ForkRec {
    /// Their number in the chain.
    pub(crate) seq: u64,
    /// What they continue.
    pub(crate) prev: Option<EntryId>,
    pub(crate) one: EntryId,
    pub(crate) other: EntryId,
}

/// What a version is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum What {
    File(FileValue),
    Symlink(SymlinkValue),
    Gone {
        moved_to: Option<(DirId, EntryName)>,
    },
    /// A directory stands here, made or moved.
    Dir {
        dir: DirId,
        made: Option<DirAttr>,
    },
    /// A directory was moved away from here.
    Left {
        dir: DirId,
        to: Register,
    },
    Resolve,
    SetDir {
        dir: DirId,
        attr: DirAttr,
    },
    Member(Box<Op>),
    Snapshot(String),
    /// An operation on a checkout. It is no version of the register.
    Lock {
        register: Register,
        act: LockAct,
    },
}

/// What two versions must share to be equal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Same<'a> {
    File(Content),
    Symlink(&'a [u8]),
    Dir(DirId),
    Gone,
}

/// One version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct VersionRec {
    /// Its register, spelled as its author did; none for what writes no register.
    pub(crate) register: Option<Register>,
    pub(crate) what: What,
    /// The bases it names that its entry had seen.
    pub(crate) bases: Vec<VersionId>,
    pub(crate) author: DeviceId,
    pub(crate) saved_at_ms: u64,
    /// Part of a move that did not apply.
    pub(crate) skipped: bool,
    /// Versions in its register's history (itself included) with which a directory moved away.
    pub(crate) away: Vec<VersionId>,
}

impl VersionRec {
    pub(crate) fn same(&self) -> Same<'_> {
        match &self.what {
            What::File(file) => Same::File(file.content),
            What::Symlink(link) => Same::Symlink(&link.target),
            What::Dir { dir, .. } => Same::Dir(*dir),
            _ => Same::Gone,
        }
    }

    pub(crate) fn is_leaf(&self) -> bool {
        matches!(self.what, What::File(_) | What::Symlink(_))
    }

    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.what, What::Gone { .. } | What::Left { .. })
    }

    /// The public value, for what a `Put` can hold.
    pub(crate) fn value(&self) -> Option<Value> {
        match &self.what {
            What::File(file) => Some(Value::File(file.clone())),
            What::Symlink(link) => Some(Value::Symlink(link.clone())),
            What::Gone { moved_to } => Some(Value::Gone { moved_to: moved_to.clone() }),
            _ => None,
        }
    }
}

/// Attributes merged into a head from versions that changed nothing else.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Attrs {
    pub(crate) mode: u32,
    pub(crate) xattrs: Xattrs,
    pub(crate) owner: Option<(u32, u32)>,
}

/// What kind of thing a shown head is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum ShownKind {
    File,
    Symlink,
    Dir(DirId),
}

/// One head as it is shown.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub(crate) version: VersionId,
    pub(crate) merged: Vec<VersionId>,
    pub(crate) kind: ShownKind,
    pub(crate) attrs: Option<Attrs>,
    /// The name it is shown under; for a copy the derived one.
    pub(crate) shown: EntryName,
}

/// What one register shows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RegRec {
    pub(crate) official: Option<Shown>,
    pub(crate) copies: Vec<Shown>,
    /// Heads that say there is nothing.
    pub(crate) gone: Vec<VersionId>,
    /// Set when the register has one head, which the replay ends on: a newer version that builds
    /// on it replaces it without a replay.
    pub(crate) simple: Option<(VersionId, OrderKey)>,
    pub(crate) hashed: Option<[u8; 32]>,
}

/// One directory.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct DirRec {
    /// Where it was made; its id is derived from this.
    pub(crate) home: Option<Register>,
    /// Makings no other making had seen.
    pub(crate) made: Vec<VersionId>,
    /// Key of the last move that applied.
    pub(crate) place: Option<Vec<u8>>,
    /// Where it stands: `home`, or the target of `place`.
    pub(crate) at: Option<Register>,
    pub(crate) attr: DirAttr,
    pub(crate) attr_by: Option<VersionId>,
    /// Last position per lane of entries that put something inside.
    pub(crate) inside: Vec<(u32, u32)>,
    /// Registers in it that show something.
    pub(crate) kids: u64,
    pub(crate) live: bool,
    pub(crate) hashed: Option<[u8; 32]>,
}

/// Entries of one lane that some later entry of their device names late.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct LateRun {
    pub(crate) lane: u32,
    pub(crate) first: u32,
    pub(crate) last: u32,
}

/// One directory moved by a move operation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct MovePart {
    pub(crate) dir: DirId,
    pub(crate) from: VersionId,
    pub(crate) source: Register,
    pub(crate) to: Register,
    /// The placement this part is.
    pub(crate) version: VersionId,
}

/// One row of the move log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct MoveRow {
    pub(crate) version: VersionId,
    pub(crate) parts: Vec<MovePart>,
    pub(crate) applied: bool,
    /// Last move and place of each part's directory before it applied.
    pub(crate) undo: Vec<(Option<Vec<u8>>, Option<Register>)>,
}

/// One operation on a register's checkout, in the order of the drive.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LockRow {
    /// What was held before it, as the operations before it left it; none when that has yet to be worked out.
    pub(crate) before: Option<Option<Held>>,
    /// It has another place by now, and only says what was held before it.
    pub(crate) moved: bool,
}

/// The key of a register: directory, folded name, NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct RegKey(Vec<u8>);

/// Longest folded name kept whole in a key; database keys end at 511 bytes.
const FOLDED_LEN_MAX: usize = 320;

impl RegKey {
    pub(crate) fn new(dir: &DirId, name: &EntryName) -> Self {
        let folded = name.folded();
        let mut key = Vec::with_capacity(32 + folded.len() + 1);
        key.extend_from_slice(dir.as_bytes());
        match folded.as_bytes().split_at_checked(FOLDED_LEN_MAX) {
            Some((head, tail)) if !tail.is_empty() => {
                key.extend_from_slice(head);
                key.extend_from_slice(blake3::hash(tail).to_hex().as_bytes());
            }
            _ => key.extend_from_slice(folded.as_bytes()),
        }
        key.push(0);
        Self(key)
    }

    pub(crate) fn of(register: &Register) -> Self {
        Self::new(&register.dir, &register.name)
    }

    pub(crate) fn from_slice(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn dir(&self) -> DirId {
        let bytes = self.0.first_chunk::<32>().copied().unwrap_or_default();
        DirId::from_bytes(bytes)
    }
}

/// A key: table byte and parts.
pub(crate) fn key(table: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + parts.iter().map(|p| p.len()).sum::<usize>());
    out.push(table);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// A lane's position as a key part.
pub(crate) fn lane_pos(lane: u32, pos: u32) -> [u8; 8] {
    (u64::from(lane) << 32 | u64::from(pos)).to_be_bytes()
}

/// An operation's key in the order: order key, index.
pub(crate) fn op_key(order: &OrderKey, index: u32) -> Vec<u8> {
    [order.to_bytes().as_slice(), &index.to_be_bytes()].concat()
}

/// Reads one record.
pub(crate) fn load<T: DeserializeOwned>(
    kv: &(impl KvRead + ?Sized),
    key: &[u8],
) -> Result<Option<T>, StateError> {
    kv.get(key)?.map(|bytes| decode(key, &bytes)).transpose()
}

/// Decodes the record under `key`.
pub(crate) fn decode<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Result<T, StateError> {
    postcard::from_bytes(bytes).map_err(|_| corrupt(key))
}

/// The error for a record that is not what its table promises.
pub(crate) fn corrupt(key: &[u8]) -> StateError {
    StateError::Corrupt { table: key.first().map_or('?', |b| char::from(*b)) }
}

/// Writes one record.
pub(crate) fn store<T: Serialize>(
    kv: &mut (impl Kv + ?Sized),
    key: &[u8],
    value: &T,
) -> Result<(), StateError> {
    let bytes = postcard::to_allocvec(value).map_err(|_| corrupt(key))?;
    kv.put(key, &bytes)
}

pub(crate) fn load_entry(
    kv: &(impl KvRead + ?Sized),
    id: &EntryId,
) -> Result<Option<EntryRec>, StateError> {
    load(kv, &key(table::ENTRY, &[id.as_bytes()]))
}

pub(crate) fn load_version(
    kv: &(impl KvRead + ?Sized),
    id: &VersionId,
) -> Result<Option<VersionRec>, StateError> {
    load(kv, &key(table::VERSION, &[&id.to_bytes()]))
}

pub(crate) fn load_register(
    kv: &(impl KvRead + ?Sized),
    reg: &RegKey,
) -> Result<Option<RegRec>, StateError> {
    load(kv, &key(table::REGISTER, &[reg.as_slice()]))
}

pub(crate) fn load_dir(
    kv: &(impl KvRead + ?Sized),
    dir: &DirId,
) -> Result<Option<DirRec>, StateError> {
    load(kv, &key(table::DIR, &[dir.as_bytes()]))
}

/// What the last operation on the register's checkout left held; its device may have lost its standing since.
pub(crate) fn load_held(
    kv: &(impl KvRead + ?Sized),
    reg: &RegKey,
) -> Result<Option<Held>, StateError> {
    load(kv, &key(table::HELD, &[reg.as_slice()]))
}

/// The breaks of the register's checkouts that took effect.
pub(crate) fn load_broken(
    kv: &(impl KvRead + ?Sized),
    reg: &RegKey,
) -> Result<Vec<Broke>, StateError> {
    Ok(load(kv, &key(table::BROKEN, &[reg.as_slice()]))?.unwrap_or_default())
}

pub(crate) fn load_meta(kv: &(impl KvRead + ?Sized)) -> Result<Option<Meta>, StateError> {
    load(kv, &[table::META])
}

/// The last bytes of a key as a version id.
pub(crate) fn version_at_end(key: &[u8]) -> Result<VersionId, StateError> {
    let at = key.len().saturating_sub(VersionId::LEN);
    key.get(at..).and_then(VersionId::from_bytes).ok_or_else(|| corrupt(key))
}
