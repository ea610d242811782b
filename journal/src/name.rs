//! Names in directories, and the register they stand for.
//!
//! Leaves out: conflict copies' derived names ([`crate::conflict`]), names only some systems refuse.
//!
//! Invariants:
//! - an [`EntryName`] is 1 to 255 bytes of UTF-8, neither `.` nor `..`, without `/` and NUL; there is
//!   no other way to make one, from text or from bytes off the wire;
//! - it is stored as given; two names mean one register when their NFC forms are equal.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::id::DirId;

/// Longest name, bytes of UTF-8.
pub const NAME_LEN_MAX: usize = 255;

/// Why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No characters at all.
    #[error("a name cannot be empty")]
    Empty,
    /// More than [`NAME_LEN_MAX`] bytes.
    #[error("a name cannot be longer than {NAME_LEN_MAX} bytes, this has {len}")]
    TooLong {
        /// Bytes it has.
        len: usize,
    },
    /// `.` or `..`.
    #[error("a name cannot be `.` or `..`")]
    Dots,
    /// `/` or NUL in it.
    #[error("a name cannot contain `/` or NUL")]
    Separator,
    /// Bytes that are not UTF-8.
    #[error("a name must be UTF-8")]
    NotUtf8,
}

/// One name in a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryName(Arc<str>);

impl EntryName {
    /// Checks `text`.
    pub fn new(text: &str) -> Result<Self, NameError> {
        match text {
            "" => Err(NameError::Empty),
            "." | ".." => Err(NameError::Dots),
            _ if text.len() > NAME_LEN_MAX => Err(NameError::TooLong { len: text.len() }),
            _ if text.bytes().any(|b| b == b'/' || b == 0) => Err(NameError::Separator),
            _ => Ok(Self(text.into())),
        }
    }

    /// Checks bytes as the kernel gives them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NameError> {
        Self::new(std::str::from_utf8(bytes).map_err(|_| NameError::NotUtf8)?)
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The form that decides identity: NFC.
    pub fn folded(&self) -> Cow<'_, str> {
        match is_nfc_quick(self.0.chars()) {
            IsNormalized::Yes => Cow::Borrowed(&self.0),
            _ => Cow::Owned(self.0.nfc().collect()),
        }
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl TryFrom<&str> for EntryName {
    type Error = NameError;

    fn try_from(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl std::str::FromStr for EntryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl AsRef<str> for EntryName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Serialize for EntryName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for EntryName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        Self::new(text).map_err(serde::de::Error::custom)
    }
}

/// One name in one directory: what versions are versions of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Register {
    /// The directory.
    pub dir: DirId,
    /// The name in it.
    pub name: EntryName,
}

impl Register {
    /// The register `name` in `dir`.
    pub fn new(dir: DirId, name: EntryName) -> Self {
        Self { dir, name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_file_system_takes_are_refused() {
        assert_eq!(EntryName::new(""), Err(NameError::Empty));
        assert_eq!(EntryName::new("."), Err(NameError::Dots));
        assert_eq!(EntryName::new(".."), Err(NameError::Dots));
        assert_eq!(EntryName::new("a/b"), Err(NameError::Separator));
        assert_eq!(EntryName::new("a\0"), Err(NameError::Separator));
        assert_eq!(EntryName::new(&"x".repeat(256)), Err(NameError::TooLong { len: 256 }));
        assert_eq!(EntryName::from_bytes(&[0xff]), Err(NameError::NotUtf8));
        assert!(EntryName::new(&"x".repeat(255)).is_ok());
        assert!(EntryName::new("...").is_ok());
    }

    #[test]
    fn bytes_off_the_wire_obey_the_same_rules() {
        let bad = postcard::to_allocvec("a/b").unwrap();
        assert!(postcard::from_bytes::<EntryName>(&bad).is_err());
        let good = postcard::to_allocvec(&EntryName::new("a").unwrap()).unwrap();
        assert_eq!(postcard::from_bytes::<EntryName>(&good).unwrap().as_str(), "a");
    }

    #[test]
    fn composed_and_decomposed_spellings_fold_alike_and_stay_as_given() {
        let (composed, decomposed) = ("\u{e9}", "e\u{301}");
        let (a, b) = (EntryName::new(composed).unwrap(), EntryName::new(decomposed).unwrap());
        assert_ne!(a, b);
        assert_eq!(a.folded(), b.folded());
        assert_eq!(b.as_str(), decomposed);
    }
}
