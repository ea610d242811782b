//! Names of things the journal speaks of: drive, device, entry, directory, version.
//!
//! Leaves out: how they are derived ([`crate::signed`] for entries, [`DirId::derive`] alone lives here
//! because every crate that makes a directory needs it).
//!
//! Invariants:
//! - ids are plain values: `Copy`, ordered by their bytes, shown as lower-case hex;
//! - the root directory is [`DirId::ROOT`], all zero, and nothing hashes to it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::EntryName;

/// Bytes of every hash and key here.
pub const ID_LEN: usize = 32;

/// A text that is not an id in hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id: expected {expected} lower-case hex digits, found {found} characters")]
pub struct ParseIdError {
    /// Digits an id of this kind has.
    pub expected: usize,
    /// Characters that were given.
    pub found: usize,
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    let error = ParseIdError { expected: N * 2, found: text.chars().count() };
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    if text.len() != N * 2 {
        return Err(error);
    }
    let mut out = [0u8; N];
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = pair else { return Err(error) };
        *byte = digit(*high).ok_or(error)? << 4 | digit(*low).ok_or(error)?;
    }
    Ok(out)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name([u8; ID_LEN]);

        impl $name {
            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; ID_LEN]) -> Self {
                Self(bytes)
            }

            /// The id's bytes.
            pub const fn as_bytes(&self) -> &[u8; ID_LEN] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let [a, b, c, d, ..] = self.0;
                write_hex(f, &[a, b, c, d])
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }
    };
}

id!(
    /// The shared thing: BLAKE3 of its genesis entry.
    DriveId
);
id!(
    /// One installation's identity in one drive: its Ed25519 public key.
    DeviceId
);
id!(
    /// One signed batch of operations: BLAKE3 of its signed bytes.
    EntryId
);
id!(
    /// A directory, wherever it stands and whatever it is called.
    DirId
);

impl DriveId {
    /// What the genesis carries in place of the id it defines.
    pub const ZERO: Self = Self([0; ID_LEN]);
}

impl From<EntryId> for DriveId {
    fn from(genesis: EntryId) -> Self {
        Self(*genesis.as_bytes())
    }
}

impl DirId {
    /// The top of the drive.
    pub const ROOT: Self = Self([0; ID_LEN]);

    /// The directory that `name` in `parent` means, given every version with which a directory was
    /// moved away from that name in the history the maker had seen (sorted, without repeats).
    ///
    /// Two devices that make one name, or make it again after a removal, mean one directory.
    pub fn derive(drive: &DriveId, parent: &DirId, name: &EntryName, away: &[VersionId]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("atelier 2026-11 directory id");
        hasher.update(drive.as_bytes());
        hasher.update(parent.as_bytes());
        let folded = name.folded();
        hasher.update(&(folded.len() as u64).to_le_bytes());
        hasher.update(folded.as_bytes());
        for version in away {
            hasher.update(&version.to_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }
}

/// One value written to a register: an entry and the place of the operation in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VersionId {
    /// The entry that wrote it.
    pub entry: EntryId,
    /// The operation's index; [`VersionId::SECOND`] marks the second register of a two-sided one.
    pub index: u32,
}

impl VersionId {
    /// Bytes of a version id as a key or in hex.
    pub const LEN: usize = ID_LEN + 4;
    /// Set in `index` for the second register an operation writes: the name a `Move` leaves, side
    /// `b` of an `Exchange`.
    pub const SECOND: u32 = 1 << 31;

    /// The version `index` of `entry`.
    pub const fn new(entry: EntryId, index: u32) -> Self {
        Self { entry, index }
    }

    /// The same operation's version in its second register.
    pub const fn second(self) -> Self {
        Self { entry: self.entry, index: self.index | Self::SECOND }
    }

    /// Entry id, then the index in big-endian order: sorts as the value does.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        let (id, index) = out.split_at_mut(ID_LEN);
        id.copy_from_slice(self.entry.as_bytes());
        index.copy_from_slice(&self.index.to_be_bytes());
        out
    }

    /// The inverse of [`VersionId::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (id, index) = bytes.split_at_checked(ID_LEN)?;
        let index = u32::from_be_bytes(index.try_into().ok()?);
        Some(Self { entry: EntryId(id.try_into().ok()?), index })
    }
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.to_bytes())
    }
}

impl fmt::Debug for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let second = if self.index & Self::SECOND == 0 { "" } else { "'" };
        write!(f, "{:?}.{}{second}", self.entry, self.index & !Self::SECOND)
    }
}

impl FromStr for VersionId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let bytes: [u8; Self::LEN] = parse_hex(text)?;
        Self::from_bytes(&bytes)
            .ok_or(ParseIdError { expected: Self::LEN * 2, found: text.chars().count() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_their_text() {
        let entry = EntryId::from_bytes(std::array::from_fn(|i| i as u8 * 7));
        assert_eq!(entry.to_string().parse(), Ok(entry));
        let version = VersionId::new(entry, 5).second();
        assert_eq!(version.to_string().parse(), Ok(version));
        assert_eq!(VersionId::from_bytes(&version.to_bytes()), Some(version));
    }

    #[test]
    fn texts_that_are_no_ids_are_refused() {
        for text in ["", "00", &"0".repeat(63), &"0".repeat(65), &"G".repeat(64), &"é".repeat(32)]
        {
            assert!(text.parse::<EntryId>().is_err(), "{text}");
        }
        assert!("A".repeat(64).parse::<EntryId>().is_err(), "upper case");
    }

    #[test]
    fn a_directory_id_depends_on_all_it_is_made_of() {
        let (drive, name) = (DriveId::from_bytes([1; 32]), EntryName::new("a").unwrap());
        let away = [VersionId::new(EntryId::from_bytes([2; 32]), 0)];
        let id = DirId::derive(&drive, &DirId::ROOT, &name, &[]);
        assert_eq!(id, DirId::derive(&drive, &DirId::ROOT, &name, &[]));
        assert_ne!(id, DirId::derive(&drive, &DirId::ROOT, &name, &away));
        assert_ne!(id, DirId::derive(&drive, &id, &name, &[]));
        assert_ne!(id, DirId::derive(&DriveId::ZERO, &DirId::ROOT, &name, &[]));
        assert_ne!(id, DirId::derive(&drive, &DirId::ROOT, &EntryName::new("b").unwrap(), &[]));
    }
}
