//! The vocabulary of operations an entry may hold, and the values they write.
//!
//! Leaves out: what they mean together ([`crate::fold`]) and who may write them ([`crate::member`]).
//!
//! Invariants:
//! - values are data only; [`Op::check`] holds every limit that does not depend on other entries, and
//!   neither an author nor a decoder lets an operation pass that breaks one;
//! - operations tied together (a move, an exchange) are one operation, so no entry can hold half.

use std::collections::BTreeMap;

use cas::id::{ContentId, IdKey};
use serde::{Deserialize, Serialize};

use crate::id::{DeviceId, DirId, EntryId, VersionId};
use crate::lock::LockPolicy;
use crate::name::EntryName;
use crate::retention::Policy;

/// Longest symlink target, bytes.
pub const SYMLINK_LEN_MAX: usize = 4095;
/// Most bytes of extended attributes (names and values) of one file or directory.
pub const XATTRS_LEN_MAX: usize = 64 << 10;
/// Most versions one operation may name as bases or as dropped.
pub const BASES_MAX: usize = 1024;
/// Longest device, drive or snapshot name, bytes of UTF-8.
pub const LABEL_LEN_MAX: usize = 128;
/// Most entry ids in a removal's frontier.
pub const FRONTIER_MAX: usize = 1024;
/// Mode bits a file or directory may carry. Set-user-id and set-group-id are kept in drives made to keep owners, and
/// have no effect there: every mount is `nosuid`.
pub const MODE_MASK: u32 = 0o7777;

/// Extended attributes by name.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// A moment as file systems keep it; for display only, order never depends on it.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Timestamp {
    /// Seconds since 1970, may be negative.
    pub secs: i64,
    /// Nanoseconds within the second, below 10^9.
    pub nanos: u32,
}

/// The bytes of a file version: their name and their number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Content {
    /// What the bytes hash to.
    pub id: ContentId,
    /// How many there are.
    pub len: u64,
}

/// A regular file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileValue {
    /// Its bytes.
    pub content: Content,
    /// Permission bits, within [`MODE_MASK`].
    pub mode: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// Extended attributes, at most [`XATTRS_LEN_MAX`] bytes.
    pub xattrs: Xattrs,
    /// Numeric owner and group, only in drives made to keep them.
    pub owner: Option<(u32, u32)>,
}

/// A symbolic link; its target is opaque bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SymlinkValue {
    /// Where it points, 1 to [`SYMLINK_LEN_MAX`] bytes, no NUL.
    pub target: Vec<u8>,
    /// Modification time.
    pub mtime: Timestamp,
    /// Numeric owner and group, only in drives made to keep them.
    pub owner: Option<(u32, u32)>,
}

/// What a `Put` writes into a register.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Value {
    /// A regular file.
    File(FileValue),
    /// A symbolic link.
    Symlink(SymlinkValue),
    /// Nothing any more.
    Gone {
        /// Where it went, a hint for history.
        moved_to: Option<(DirId, EntryName)>,
    },
}

/// Attributes of a directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DirAttr {
    /// Permission bits, within [`MODE_MASK`].
    pub mode: u32,
    /// Modification time, when someone set it.
    pub mtime: Option<Timestamp>,
    /// Extended attributes, at most [`XATTRS_LEN_MAX`] bytes.
    pub xattrs: Xattrs,
    /// Numeric owner and group, only in drives made to keep them.
    pub owner: Option<(u32, u32)>,
}

impl Default for DirAttr {
    fn default() -> Self {
        Self { mode: 0o755, mtime: None, xattrs: Xattrs::new(), owner: None }
    }
}

/// What a device may do in a drive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Role {
    /// Reads.
    Reader,
    /// Reads and writes the tree.
    Editor,
    /// Also invites, removes and sets roles.
    Owner,
}

/// What comes to stand in a register through an exchange.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Arrival {
    /// A file or symlink, as it was on the other side.
    Value(Value),
    /// A directory that moves here from the other side.
    Dir {
        /// The directory.
        dir: DirId,
        /// Its placement version on the other side.
        from: VersionId,
    },
}

/// One register of an exchange, and what it holds afterwards.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExchangeSide {
    /// The directory the name is in.
    pub dir: DirId,
    /// The name.
    pub name: EntryName,
    /// What stands there afterwards.
    pub comes: Arrival,
    /// The versions that stood there before.
    pub bases: Vec<VersionId>,
}

/// What a `Rename` gives a new name to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Named {
    /// The drive itself.
    Drive,
    /// One device.
    Device(DeviceId),
}

/// One operation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Op {
    /// The first operation of the first entry: makes the drive and its first owner.
    Genesis {
        /// The drive's first name.
        drive_name: String,
        /// The first device's name.
        device_name: String,
        /// Key of the chunk ids; random, so that no two drives are one.
        id_key: IdKey,
        /// Whether numeric owners replicate.
        posix_owners: bool,
    },
    /// Writes a value into a register.
    Put {
        /// The directory.
        dir: DirId,
        /// The name in it.
        name: EntryName,
        /// What it holds from now on.
        value: Value,
        /// The versions the writer had in front of it.
        bases: Vec<VersionId>,
    },
    /// Makes a directory.
    MkDir {
        /// The directory it is made in.
        parent: DirId,
        /// Its name there.
        name: EntryName,
        /// Its id, which must be what [`DirId::derive`] gives.
        dir: DirId,
        /// Its first attributes.
        attr: DirAttr,
        /// The Gones that stood at the name.
        bases: Vec<VersionId>,
    },
    /// Moves or renames a directory: takes it away where `from` put it and puts it at `to`.
    Move {
        /// The directory.
        dir: DirId,
        /// The placement version the mover had in front of it.
        from: VersionId,
        /// The new parent and name.
        to: (DirId, EntryName),
        /// The versions that stood at the new name.
        bases: Vec<VersionId>,
    },
    /// Sets a directory's attributes; the latest order key wins.
    SetDir {
        /// The directory.
        dir: DirId,
        /// Its attributes from now on.
        attr: DirAttr,
    },
    /// Exchanges what two names hold.
    Exchange {
        /// One register.
        a: ExchangeSide,
        /// The other.
        b: ExchangeSide,
    },
    /// Ends conflict copies (or skipped moves) that someone has dealt with.
    Resolve {
        /// The directory.
        dir: DirId,
        /// The name in it.
        name: EntryName,
        /// The versions that are dealt with.
        drop: Vec<VersionId>,
    },
    /// Lets holders of a key become members.
    Invite {
        /// The invite's Ed25519 public key.
        key: [u8; 32],
        /// The role they get.
        role: Role,
        /// Last moment, milliseconds since 1970, by the issuer's clock.
        expires: u64,
        /// How many devices may use it.
        uses: u32,
    },
    /// Admits the holder of an invite.
    Admit {
        /// The invite's public key.
        invite: [u8; 32],
        /// The new member.
        device: DeviceId,
        /// Its name, which conflict copies carry for ever.
        name: String,
        /// The invite key's signature, see [`crate::member::admit_message`].
        #[serde(with = "signature_bytes")]
        proof: [u8; 64],
    },
    /// Removes a device; its entries outside the past of `frontier` are quarantined.
    Remove {
        /// The device.
        device: DeviceId,
        /// The last of its entries that still count.
        frontier: Vec<EntryId>,
    },
    /// Changes a device's role for its entries outside the past of `frontier`.
    SetRole {
        /// The device.
        device: DeviceId,
        /// Its role from there on.
        role: Role,
        /// The last of its entries that count with the role it had.
        frontier: Vec<EntryId>,
    },
    /// Gives the drive or a device another name to show.
    Rename {
        /// What is renamed.
        what: Named,
        /// The new name.
        name: String,
    },
    /// Names this moment: the entry's own past is pinned for ever.
    Snapshot {
        /// The name.
        name: String,
    },
    /// Says how long versions are kept that were replaced; the latest order key holds.
    Retain(Policy),
    /// Takes a name for its device alone, until it is given back or broken; void while another checkout of it holds.
    Checkout {
        /// The directory.
        dir: DirId,
        /// The name in it.
        name: EntryName,
    },
    /// Ends a checkout of the author's own.
    GiveBack {
        /// The directory.
        dir: DirId,
        /// The name in it.
        name: EntryName,
        /// The checkout.
        checkout: VersionId,
    },
    /// Ends somebody's checkout; what its device then writes without having seen this replaces nothing under the name.
    Break {
        /// The directory.
        dir: DirId,
        /// The name in it.
        name: EntryName,
        /// The checkout.
        checkout: VersionId,
    },
    /// Says what locks mean in this drive; the latest order key holds.
    Locks(LockPolicy),
}

/// Which limit an operation breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// Too many versions named.
    #[error("an operation names {found} versions, at most {BASES_MAX} are allowed")]
    TooManyBases {
        /// How many.
        found: usize,
    },
    /// A symlink target that is empty, too long or holds a NUL.
    #[error("a symlink target must be 1 to {SYMLINK_LEN_MAX} bytes without NUL")]
    Target,
    /// Extended attributes too large.
    #[error("extended attributes take {found} bytes, at most {XATTRS_LEN_MAX} are allowed")]
    Xattrs {
        /// How many bytes.
        found: usize,
    },
    /// Mode bits that no version may carry.
    #[error("mode {mode:o} has bits that are not kept")]
    Mode {
        /// The mode.
        mode: u32,
    },
    /// Nanoseconds of a whole second or more.
    #[error("a time has {nanos} nanoseconds")]
    Time {
        /// The nanoseconds.
        nanos: u32,
    },
    /// A device, drive or snapshot name that is empty, too long or has control characters.
    #[error("a label must be 1 to {LABEL_LEN_MAX} bytes without control characters or `/`")]
    Label,
    /// A frontier too large.
    #[error("a frontier names {found} entries, at most {FRONTIER_MAX} are allowed")]
    Frontier {
        /// How many.
        found: usize,
    },
    /// An exchange that puts nothing where something stood.
    #[error("an exchange cannot leave a name empty")]
    EmptyExchange,
    /// The root as the subject of an operation that moves or makes a directory.
    #[error("the root directory cannot be made or moved")]
    Root,
}

fn check_bases(bases: &[VersionId]) -> Result<(), OpError> {
    if bases.len() > BASES_MAX {
        return Err(OpError::TooManyBases { found: bases.len() });
    }
    Ok(())
}

fn check_xattrs(xattrs: &Xattrs) -> Result<(), OpError> {
    let found = xattrs.iter().map(|(k, v)| k.len().saturating_add(v.len())).sum::<usize>();
    if found > XATTRS_LEN_MAX { Err(OpError::Xattrs { found }) } else { Ok(()) }
}

fn check_time(time: &Timestamp) -> Result<(), OpError> {
    if time.nanos < 1_000_000_000 { Ok(()) } else { Err(OpError::Time { nanos: time.nanos }) }
}

/// Whether `label` may name a device, a drive or a snapshot.
pub fn check_label(label: &str) -> Result<(), OpError> {
    let fits = (1..=LABEL_LEN_MAX).contains(&label.len());
    if fits && !label.chars().any(|c| c.is_control() || c == '/') {
        Ok(())
    } else {
        Err(OpError::Label)
    }
}

fn check_frontier(frontier: &[EntryId]) -> Result<(), OpError> {
    if frontier.len() > FRONTIER_MAX {
        return Err(OpError::Frontier { found: frontier.len() });
    }
    Ok(())
}

impl Value {
    /// Holds the limits of one value.
    pub fn check(&self) -> Result<(), OpError> {
        match self {
            Value::File(file) => {
                check_time(&file.mtime)?;
                check_xattrs(&file.xattrs)?;
                if file.mode & !MODE_MASK != 0 {
                    return Err(OpError::Mode { mode: file.mode });
                }
                Ok(())
            }
            Value::Symlink(link) => {
                check_time(&link.mtime)?;
                let fits = (1..=SYMLINK_LEN_MAX).contains(&link.target.len());
                if fits && !link.target.contains(&0) { Ok(()) } else { Err(OpError::Target) }
            }
            Value::Gone { .. } => Ok(()),
        }
    }
}

impl DirAttr {
    /// Holds the limits of a directory's attributes.
    pub fn check(&self) -> Result<(), OpError> {
        check_xattrs(&self.xattrs)?;
        self.mtime.as_ref().map_or(Ok(()), check_time)?;
        if self.mode & !MODE_MASK != 0 {
            return Err(OpError::Mode { mode: self.mode });
        }
        Ok(())
    }
}

impl ExchangeSide {
    fn check(&self) -> Result<(), OpError> {
        check_bases(&self.bases)?;
        match &self.comes {
            Arrival::Value(Value::Gone { .. }) => Err(OpError::EmptyExchange),
            Arrival::Value(value) => value.check(),
            Arrival::Dir { dir: DirId::ROOT, .. } => Err(OpError::Root),
            Arrival::Dir { .. } => Ok(()),
        }
    }
}

impl Op {
    /// Holds every limit that does not depend on other entries.
    pub fn check(&self) -> Result<(), OpError> {
        match self {
            Op::Genesis { drive_name, device_name, .. } => {
                check_label(drive_name).and_then(|()| check_label(device_name))
            }
            Op::Put { value, bases, .. } => check_bases(bases).and_then(|()| value.check()),
            Op::MkDir { dir, attr, bases, .. } => {
                if *dir == DirId::ROOT {
                    return Err(OpError::Root);
                }
                check_bases(bases).and_then(|()| attr.check())
            }
            Op::Move { dir, bases, .. } => {
                if *dir == DirId::ROOT {
                    return Err(OpError::Root);
                }
                check_bases(bases)
            }
            Op::SetDir { attr, .. } => attr.check(),
            Op::Exchange { a, b } => a.check().and_then(|()| b.check()),
            Op::Resolve { drop, .. } => check_bases(drop),
            Op::Admit { name, .. } | Op::Rename { name, .. } | Op::Snapshot { name } => {
                check_label(name)
            }
            Op::Remove { frontier, .. } | Op::SetRole { frontier, .. } => check_frontier(frontier),
            Op::Invite { .. }
            | Op::Retain(_)
            | Op::Checkout { .. }
            | Op::GiveBack { .. }
            | Op::Break { .. }
            | Op::Locks(_) => Ok(()),
        }
    }

    /// The lowest role that may write this operation.
    pub fn needs(&self) -> Role {
        match self {
            Op::Admit { .. } | Op::Rename { what: Named::Device(_), .. } => Role::Reader,
            Op::Genesis { .. }
            | Op::Invite { .. }
            | Op::Remove { .. }
            | Op::SetRole { .. }
            | Op::Retain(_)
            | Op::Break { .. }
            | Op::Locks(_)
            | Op::Rename { what: Named::Drive, .. } => Role::Owner,
            _ => Role::Editor,
        }
    }
}

/// A 64-byte signature as a fixed run of bytes, which serde does not offer by itself.
mod signature_bytes {
    use serde::de::{Error, SeqAccess, Visitor};
    use serde::ser::SerializeTuple;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 64], s: S) -> Result<S::Ok, S::Error> {
        let mut tuple = s.serialize_tuple(bytes.len())?;
        for byte in bytes {
            tuple.serialize_element(byte)?;
        }
        tuple.end()
    }

    struct Bytes;

    impl<'de> Visitor<'de> for Bytes {
        type Value = [u8; 64];

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("64 bytes")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<[u8; 64], A::Error> {
            let mut out = [0; 64];
            for (at, byte) in out.iter_mut().enumerate() {
                *byte = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(at, &self))?;
            }
            Ok(out)
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<[u8; 64], D::Error> {
        d.deserialize_tuple(64, Bytes)
    }
}
