//! Names of bytes: chunk and content identifiers, and the key they are made with.
//!
//! Leaves out: where the bytes are ([`crate::store`]) and how a content is cut ([`crate::chunker`]).
//!
//! Invariants:
//! - a [`ChunkId`] is the BLAKE3 hash of the chunk's bytes, keyed with the drive's [`IdKey`]; nothing
//!   else is ever hashed under that key, so no other value can pass for a chunk;
//! - a [`ContentId`] says by its tag whether its hash names the bytes themselves or a manifest of them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Length of every hash in this product, bytes.
pub const HASH_LEN: usize = 32;

/// The drive's secret key for chunk ids. Random, made with the drive, known to its members only.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdKey([u8; HASH_LEN]);

impl IdKey {
    /// Takes the key's bytes as they stand in the genesis.
    pub const fn from_bytes(bytes: [u8; HASH_LEN]) -> Self {
        Self(bytes)
    }

    /// The key's bytes, for the genesis.
    pub const fn as_bytes(&self) -> &[u8; HASH_LEN] {
        &self.0
    }

    /// The seed of the chunker's gear table, derived so that the key itself never enters the table.
    pub fn chunker_seed(&self) -> u64 {
        let hash = blake3::derive_key("atelier 2026-11 chunker seed", &self.0);
        let [a, b, c, d, e, f, g, h, ..] = hash;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Debug for IdKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdKey(..)")
    }
}

/// The name of one chunk: keyed BLAKE3 of its raw (uncompressed) bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChunkId([u8; HASH_LEN]);

impl ChunkId {
    /// Names `bytes`.
    pub fn of(key: &IdKey, bytes: &[u8]) -> Self {
        Self(*blake3::keyed_hash(&key.0, bytes).as_bytes())
    }

    /// An id as read from disk or from a peer; it names whatever hashes to it, if anything does.
    pub const fn from_bytes(bytes: [u8; HASH_LEN]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the id.
    pub const fn as_bytes(&self) -> &[u8; HASH_LEN] {
        &self.0
    }
}

/// What the hash of a [`ContentId`] names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum ContentKind {
    /// One chunk that is the whole content (the empty content is the chunk of no bytes).
    Chunk,
    /// The root chunk of a [`crate::manifest`].
    Manifest,
}

/// The name of the bytes of one file version.
///
/// Equal ids mean equal bytes; equal bytes cut by another chunker class have another id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContentId {
    kind: ContentKind,
    hash: ChunkId,
}

impl ContentId {
    /// A content that is one chunk.
    pub const fn chunk(hash: ChunkId) -> Self {
        Self { kind: ContentKind::Chunk, hash }
    }

    /// A content described by the manifest whose root chunk is `hash`.
    pub const fn manifest(hash: ChunkId) -> Self {
        Self { kind: ContentKind::Manifest, hash }
    }

    /// Whether the hash names the bytes or a manifest.
    pub const fn kind(&self) -> ContentKind {
        self.kind
    }

    /// The chunk that stands for this content: its only chunk or its manifest's root.
    pub const fn root(&self) -> ChunkId {
        self.hash
    }
}

/// Writes bytes as lower-case hex.
pub(crate) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write_hex(f, &[a, b, c, d])
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            ContentKind::Chunk => "c",
            ContentKind::Manifest => "m",
        })?;
        write!(f, "{}", self.hash)
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{:?}", self.kind, self.hash)
    }
}
