//! The ordered list of a content's chunks, itself kept in chunks.
//!
//! A node is a header and records; the records of a level-0 node name data chunks and holes, those of a higher
//! node name nodes one level below. Leaves out: getting nodes ([`crate::reader`]) and putting them
//! ([`crate::writer`]).
//!
//! Invariants:
//! - a decoded node's lengths add up to its declared total, and its count was checked against the bytes given before
//!   anything was allocated;
//! - a content of one chunk, and the empty content, have no manifest;
//! - where a long list is cut into nodes depends on the record ids alone, so equal lists have equal nodes and a small
//!   edit changes few of them.

mod build;

use bytes::Bytes;

pub use build::Builder;

use crate::chunker::{CHUNK_LEN_MAX, Class};
use crate::error::ReadError;
use crate::format::Input;
use crate::id::{ChunkId, HASH_LEN};

/// Version of the manifest layout.
pub const VERSION: u8 = 1;
/// First bytes of a node.
pub const MAGIC: [u8; 4] = *b"AtMf";
/// Length of a node's header: magic, version u8, level u8, class u8, zero u8, total length u64, count u32, zero u32.
pub const HEADER_LEN: usize = 24;
/// Length of a record: id, length u64.
pub const RECORD_LEN: usize = 40;
/// Levels a manifest may have.
pub const LEVELS_MAX: usize = 3;
/// Fewest records of a node that is not its level's last.
pub const NODE_RECORDS_MIN: usize = 256;
/// Most records of a node.
pub const NODE_RECORDS_MAX: usize = 4_096;
/// After [`NODE_RECORDS_MIN`], a node ends with a record whose id's first two bytes, as a little-endian number, are
/// below this: one in 771, which makes 1,024 records on average.
const NODE_CUT_BELOW: u16 = 85;

/// The id that stands for a hole.
const HOLE: ChunkId = ChunkId::from_bytes([0; HASH_LEN]);

/// One line of a node: a chunk, a hole, or a node below, and how many bytes of the content it stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// The chunk or node; all zeros for a hole.
    pub id: ChunkId,
    /// Bytes of the content.
    pub len: u64,
}

impl Record {
    /// A run of zeros that is not stored.
    pub const fn hole(len: u64) -> Self {
        Self { id: HOLE, len }
    }

    /// Whether this is a hole.
    pub fn is_hole(&self) -> bool {
        self.id == HOLE
    }

    /// Whether a list of `count` records is cut after this one, which is its last.
    fn ends_node(&self, count: usize) -> bool {
        let [a, b, ..] = *self.id.as_bytes();
        let marked = !self.is_hole() && u16::from_le_bytes([a, b]) < NODE_CUT_BELOW;
        count >= NODE_RECORDS_MAX || (count >= NODE_RECORDS_MIN && marked)
    }
}

/// Writes a node.
pub fn encode(level: u8, class: Class, records: &[Record]) -> Vec<u8> {
    let total = records.iter().fold(0u64, |sum, record| sum.saturating_add(record.len));
    let mut out = Vec::with_capacity(HEADER_LEN + records.len() * RECORD_LEN);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, level, class.code(), 0]);
    out.extend_from_slice(&total.to_le_bytes());
    out.extend_from_slice(&u32::try_from(records.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for record in records {
        out.extend_from_slice(record.id.as_bytes());
        out.extend_from_slice(&record.len.to_le_bytes());
    }
    out
}

/// Why bytes are not a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// They are not what a writer makes.
    Invalid,
    /// A newer layout.
    TooNew(u8),
}

impl DecodeError {
    /// The same as an answer to whoever wanted to read chunk `id`.
    pub(crate) fn of(self, id: ChunkId) -> ReadError {
        match self {
            Self::Invalid => ReadError::Corrupt { id },
            Self::TooNew(found) => {
                ReadError::TooNew { id, found: found.into(), supported: VERSION.into() }
            }
        }
    }
}

/// A decoded node.
#[derive(Clone, Debug)]
pub struct Node {
    level: u8,
    class: Class,
    /// The records' bytes.
    records: Bytes,
    // Invariant: as many as there are records, ascending; the last is the node's total.
    ends: Vec<u64>,
}

impl Node {
    /// Reads a node and checks everything that can be checked without other nodes.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut rest = Input(bytes);
        let mut header = || {
            let (magic, kinds) = (rest.take::<4>()?, rest.take::<4>()?);
            Some((magic, kinds, rest.u64()?, rest.u32()?, rest.u32()?))
        };
        let (magic, [version, level, class, zero], total, count, zeros) =
            header().ok_or(DecodeError::Invalid)?;
        if magic != MAGIC {
            return Err(DecodeError::Invalid);
        }
        if version > VERSION {
            return Err(DecodeError::TooNew(version));
        }
        let count = count as usize;
        let class = Class::from_code(class).ok_or(DecodeError::Invalid)?;
        let shape = version == VERSION
            && usize::from(level) < LEVELS_MAX
            && (zero, zeros) == (0, 0)
            && (1..=NODE_RECORDS_MAX).contains(&count)
            && bytes.len() == HEADER_LEN + count * RECORD_LEN;
        if !shape {
            return Err(DecodeError::Invalid);
        }
        let mut node = Self {
            level,
            class,
            records: bytes.slice(HEADER_LEN..),
            ends: Vec::with_capacity(count),
        };
        let mut sum = 0u64;
        for index in 0..count {
            let record = node.raw_record(index).ok_or(DecodeError::Invalid)?;
            let len_max =
                if level == 0 && !record.is_hole() { CHUNK_LEN_MAX as u64 } else { u64::MAX };
            if record.len == 0 || record.len > len_max || (level > 0 && record.is_hole()) {
                return Err(DecodeError::Invalid);
            }
            sum = sum.checked_add(record.len).ok_or(DecodeError::Invalid)?;
            node.ends.push(sum);
        }
        (sum == total).then_some(node).ok_or(DecodeError::Invalid)
    }

    fn raw_record(&self, index: usize) -> Option<Record> {
        let from = index.checked_mul(RECORD_LEN)?;
        let mut rest = Input(self.records.get(from..from.checked_add(RECORD_LEN)?)?);
        Some(Record { id: ChunkId::from_bytes(rest.take()?), len: rest.u64()? })
    }

    /// Zero when the records are chunks and holes.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// How the content was cut.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Bytes of the content below this node.
    pub fn total_len(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// How many records there are.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// The record at `index` and where its bytes begin, counted from the node's first byte.
    pub fn record(&self, index: usize) -> Option<(Record, u64)> {
        let record = self.raw_record(index)?;
        Some((record, self.ends.get(index)?.saturating_sub(record.len)))
    }

    /// The index of the record that holds the byte at `offset`; the count when there is none.
    pub fn index_at(&self, offset: u64) -> usize {
        self.ends.partition_point(|end| *end <= offset)
    }

    /// All records, in order.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        (0..self.count()).filter_map(|index| self.raw_record(index))
    }
}

#[cfg(test)]
mod tests;
