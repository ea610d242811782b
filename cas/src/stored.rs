//! The stored form of a chunk: raw or LZ4, and the way between.
//!
//! Leaves out: where stored chunks are kept ([`crate::store`]) and how they travel (net).
//!
//! Invariants:
//! - a chunk is stored compressed only when that saves more than 1/16 of it;
//! - decompression yields exactly the declared length or fails; nothing is allocated before that length has been
//!   checked against [`CHUNK_LEN_MAX`].

use std::borrow::Cow;

use bytes::Bytes;
use lz4_flex::block::{
    CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size,
};

use crate::chunker::CHUNK_LEN_MAX;
use crate::id::{ChunkId, IdKey};

/// Flag: the data is an LZ4 block.
pub const FLAG_LZ4: u8 = 1;
/// All flags this version knows; others make a chunk unreadable, not misread.
pub const FLAGS_KNOWN: u8 = FLAG_LZ4;
/// What compression must save: more than one part in this many.
const SAVING_DIVISOR: usize = 16;
/// Bytes of a chunk that are compressed to see whether the rest is worth it.
const PROBE_LEN: usize = 4 << 10;
/// Chunks shorter than this are not worth an attempt, bytes.
const COMPRESS_LEN_MIN: usize = 64;

/// A chunk as it is stored and sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredChunk {
    /// Bit 0: LZ4.
    pub flags: u8,
    /// Length of the raw bytes.
    pub raw_len: u32,
    /// The stored bytes.
    pub data: Bytes,
}

impl StoredChunk {
    /// The raw bytes, if `data` is what flags and length declare. Says nothing about their hash.
    pub fn raw_unverified(&self) -> Option<Bytes> {
        let raw_len = self.raw_len as usize;
        if raw_len > CHUNK_LEN_MAX
            || self.data.len() > CHUNK_LEN_MAX
            || self.flags & !FLAGS_KNOWN != 0
        {
            return None;
        }
        if self.flags & FLAG_LZ4 == 0 {
            return (self.data.len() == raw_len).then(|| self.data.clone());
        }
        let mut raw = vec![0; raw_len];
        let written = decompress_into(&self.data, &mut raw).ok()?;
        (written == raw_len).then(|| raw.into())
    }

    /// The raw bytes, if they hash to `id`.
    pub fn raw(&self, key: &IdKey, id: &ChunkId) -> Option<Bytes> {
        self.raw_unverified().filter(|raw| ChunkId::of(key, raw) == *id)
    }
}

/// Compresses chunks, keeping its tables and buffers between them.
pub(crate) struct Compressor {
    small: CompressTable,
    large: CompressTable,
    out: Vec<u8>,
}

impl Compressor {
    pub(crate) fn new() -> Self {
        Self { small: CompressTable::small(), large: CompressTable::large(), out: Vec::new() }
    }

    /// The stored form of `raw`: flags and bytes.
    pub(crate) fn store<'a>(&mut self, raw: &'a [u8]) -> (u8, Cow<'a, [u8]>) {
        match self.compress(raw) {
            Some(data) => (FLAG_LZ4, Cow::Owned(data)),
            None => (0, Cow::Borrowed(raw)),
        }
    }

    fn compress(&mut self, raw: &[u8]) -> Option<Vec<u8>> {
        if raw.len() < COMPRESS_LEN_MIN {
            return None;
        }
        if raw.len() > PROBE_LEN * 2 {
            let probe = raw.get(..PROBE_LEN)?;
            self.shorter(probe)?;
        }
        self.shorter(raw).map(<[u8]>::to_vec)
    }

    /// The LZ4 block of `raw`, if it saves enough.
    fn shorter(&mut self, raw: &[u8]) -> Option<&[u8]> {
        let room = get_maximum_output_size(raw.len());
        if self.out.len() < room {
            self.out.resize(room, 0);
        }
        // Tables of 16-bit positions are faster to clear and serve inputs below 64 KiB only.
        let table =
            if raw.len() < usize::from(u16::MAX) { &mut self.small } else { &mut self.large };
        let len = compress_into_with_table(raw, &mut self.out, table).ok()?;
        let saves = len < raw.len() - raw.len() / SAVING_DIVISOR;
        saves.then(|| self.out.get(..len)).flatten()
    }
}

#[cfg(test)]
mod tests;
