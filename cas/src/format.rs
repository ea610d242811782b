//! The bytes of a pack: header, records, footer.
//!
//! Leaves out: reading and writing files, and when to trust what they hold ([`crate::store`]).
//!
//! Invariants:
//! - all integers are little-endian; every layout is written once, as the constants and functions here;
//! - decoding never panics and never allocates more than the bytes given justify;
//! - a record's CRC covers everything of it but the magic and the CRC itself; a footer's covers all its entries.

use crate::chunker::CHUNK_LEN_MAX;
use crate::id::{ChunkId, HASH_LEN};
use crate::stored::FLAGS_KNOWN;

/// Version of the pack layout.
pub const PACK_VERSION: u16 = 1;
/// Longest pack file, footer included, bytes.
pub const PACK_LEN_MAX: u64 = 64 << 20;
/// Most records in one pack; bounds the footer and the memory it is built in.
pub const PACK_RECORDS_MAX: usize = 65_536;
/// First bytes of a pack.
pub const PACK_MAGIC: [u8; 4] = *b"AtPk";
/// Length of the pack header: magic, version u16, zero u16, number u32, crc32c of these.
pub const PACK_HEADER_LEN: usize = 16;
/// First bytes of a record.
pub const RECORD_MAGIC: [u8; 4] = *b"AtCk";
/// Length of a record header: magic, id, flags u8, 3 zero bytes, raw length u32, stored length u32, crc32c.
pub const RECORD_HEADER_LEN: usize = 52;
/// Longest record, bytes: a chunk is stored raw when compression does not shorten it.
pub const RECORD_LEN_MAX: usize = RECORD_HEADER_LEN + CHUNK_LEN_MAX;
/// Last bytes of a sealed pack.
pub const FOOTER_MAGIC: [u8; 8] = *b"AtPkSeal";
/// Length of a footer entry: id, record offset u32, record length u32.
pub const FOOTER_ENTRY_LEN: usize = 40;
/// Length of the trailer: entries' offset u32, count u32, crc32c u32, version u16, zero u16, magic.
pub const FOOTER_TRAILER_LEN: usize = 24;

/// Why a pack header is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderError {
    /// Too short, wrong magic, wrong checksum or another pack's number.
    Invalid,
    /// A newer layout.
    TooNew(u16),
}

/// The first [`PACK_HEADER_LEN`] bytes of pack `number`.
pub fn encode_pack_header(number: u32) -> [u8; PACK_HEADER_LEN] {
    let mut out = Cursor::<PACK_HEADER_LEN>::new();
    out.put(&PACK_MAGIC);
    out.put(&PACK_VERSION.to_le_bytes());
    out.put(&[0; 2]);
    out.put(&number.to_le_bytes());
    let crc = crc32c::crc32c(out.written());
    out.put(&crc.to_le_bytes());
    out.bytes
}

/// Checks the header of pack `number`.
pub fn decode_pack_header(bytes: &[u8], number: u32) -> Result<(), HeaderError> {
    let mut rest = Input(bytes);
    let head = bytes.get(..PACK_HEADER_LEN - 4).ok_or(HeaderError::Invalid)?;
    if rest.take::<4>() != Some(PACK_MAGIC) {
        return Err(HeaderError::Invalid);
    }
    let version = u16::from_le_bytes(rest.take().ok_or(HeaderError::Invalid)?);
    if version > PACK_VERSION {
        return Err(HeaderError::TooNew(version));
    }
    let zero: [u8; 2] = rest.take().ok_or(HeaderError::Invalid)?;
    let found = rest.u32().ok_or(HeaderError::Invalid)?;
    let crc = rest.u32().ok_or(HeaderError::Invalid)?;
    if version == 0 || zero != [0; 2] || found != number || crc != crc32c::crc32c(head) {
        return Err(HeaderError::Invalid);
    }
    Ok(())
}

/// What stands before a record's data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    /// The chunk's full id.
    pub id: ChunkId,
    /// How the data is stored, see [`crate::stored`].
    pub flags: u8,
    /// Length of the chunk, bytes.
    pub raw_len: u32,
    /// Length of the data that follows, bytes.
    pub stored_len: u32,
    /// Checksum of the fields above and the data.
    pub crc: u32,
}

impl RecordHeader {
    /// The header for `data`, checksum included.
    pub fn for_data(id: ChunkId, flags: u8, raw_len: u32, data: &[u8]) -> Self {
        let stored_len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let mut header = Self { id, flags, raw_len, stored_len, crc: 0 };
        header.crc = header.checksum(data);
        header
    }

    /// The checksum over this header's fields and `data`.
    pub fn checksum(&self, data: &[u8]) -> u32 {
        let bytes = self.encode();
        let fields = bytes.get(4..RECORD_HEADER_LEN - 4).unwrap_or_default();
        crc32c::crc32c_append(crc32c::crc32c(fields), data)
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; RECORD_HEADER_LEN] {
        let mut out = Cursor::<RECORD_HEADER_LEN>::new();
        out.put(&RECORD_MAGIC);
        out.put(self.id.as_bytes());
        out.put(&[self.flags, 0, 0, 0]);
        out.put(&self.raw_len.to_le_bytes());
        out.put(&self.stored_len.to_le_bytes());
        out.put(&self.crc.to_le_bytes());
        out.bytes
    }

    /// Reads a header; `None` when the bytes cannot be one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = Input(bytes);
        if rest.take::<4>()? != RECORD_MAGIC {
            return None;
        }
        let id = ChunkId::from_bytes(rest.take::<HASH_LEN>()?);
        let [flags, z1, z2, z3] = rest.take::<4>()?;
        let (raw_len, stored_len, crc) = (rest.u32()?, rest.u32()?, rest.u32()?);
        let in_bounds = raw_len as usize <= CHUNK_LEN_MAX && stored_len as usize <= CHUNK_LEN_MAX;
        if [z1, z2, z3] != [0; 3] || flags & !FLAGS_KNOWN != 0 || !in_bounds {
            return None;
        }
        Some(Self { id, flags, raw_len, stored_len, crc })
    }

    /// Length of the whole record, header included, bytes.
    pub fn record_len(&self) -> u32 {
        self.stored_len.saturating_add(RECORD_HEADER_LEN as u32)
    }
}

/// One line of a sealed pack's index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FooterEntry {
    /// The chunk's full id.
    pub id: ChunkId,
    /// Where its record begins in the pack.
    pub offset: u32,
    /// Length of the record, header included, bytes.
    pub len: u32,
}

/// Length of a footer of `count` entries, bytes.
pub fn footer_len(count: usize) -> u64 {
    (count as u64).saturating_mul(FOOTER_ENTRY_LEN as u64).saturating_add(FOOTER_TRAILER_LEN as u64)
}

/// The footer that seals a pack whose records end at `offset`. The entries are sorted here.
pub fn encode_footer(offset: u32, entries: &[FooterEntry]) -> Vec<u8> {
    let mut sorted = entries.to_vec();
    sorted.sort_unstable();
    let mut out = Vec::with_capacity(footer_len(sorted.len()) as usize);
    for entry in &sorted {
        out.extend_from_slice(entry.id.as_bytes());
        out.extend_from_slice(&entry.offset.to_le_bytes());
        out.extend_from_slice(&entry.len.to_le_bytes());
    }
    let mut fields = [0; 8];
    fields.split_at_mut(4).0.copy_from_slice(&offset.to_le_bytes());
    fields.split_at_mut(4).1.copy_from_slice(&(sorted.len() as u32).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out), &fields);
    out.extend_from_slice(&fields);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&PACK_VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&FOOTER_MAGIC);
    out
}

/// Where a pack of `pack_len` bytes that ends in `trailer` says its footer entries are: offset and count.
/// `None` when it is not sealed (or its trailer is damaged, which is the same to us: the records are read instead).
pub fn decode_trailer(trailer: &[u8], pack_len: u64) -> Option<(u32, usize)> {
    let mut rest = Input(trailer);
    let (offset, count, _crc) = (rest.u32()?, rest.u32()? as usize, rest.u32()?);
    let version = u16::from_le_bytes(rest.take()?);
    let zero: [u8; 2] = rest.take()?;
    let magic: [u8; 8] = rest.take()?;
    let fits = u64::from(offset) >= PACK_HEADER_LEN as u64
        && u64::from(offset).checked_add(footer_len(count)) == Some(pack_len);
    let known = version == PACK_VERSION && zero == [0; 2] && magic == FOOTER_MAGIC;
    (fits && known && count <= PACK_RECORDS_MAX).then_some((offset, count))
}

/// Reads a whole footer (entries and trailer); `None` when its checksum or an entry is wrong.
pub fn decode_footer(bytes: &[u8]) -> Option<Vec<FooterEntry>> {
    let split = bytes.len().checked_sub(FOOTER_TRAILER_LEN)?;
    let (entries, trailer) = bytes.split_at_checked(split)?;
    let mut rest = Input(trailer);
    let fields: [u8; 8] = rest.take()?;
    let crc = rest.u32()?;
    if crc != crc32c::crc32c_append(crc32c::crc32c(entries), &fields) {
        return None;
    }
    let end = u32::from_le_bytes(Input(&fields).take()?);
    let (list, odd) = entries.as_chunks::<FOOTER_ENTRY_LEN>();
    if !odd.is_empty() || list.len() > PACK_RECORDS_MAX {
        return None;
    }
    list.iter()
        .map(|bytes| {
            let mut rest = Input(bytes);
            let id = ChunkId::from_bytes(rest.take()?);
            let (offset, len) = (rest.u32()?, rest.u32()?);
            let long_enough = (RECORD_HEADER_LEN..=RECORD_LEN_MAX).contains(&(len as usize));
            let inside = offset.checked_add(len).is_some_and(|to| to <= end);
            (long_enough && inside).then_some(FooterEntry { id, offset, len })
        })
        .collect()
}

/// A byte slice that is read from the front.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl Input<'_> {
    /// The next `N` bytes.
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    /// The next integer.
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    /// The next integer.
    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

/// A fixed header that is filled from the front.
struct Cursor<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Cursor<N> {
    fn new() -> Self {
        Self { bytes: [0; N], at: 0 }
    }

    /// Appends; what does not fit is a programmer's error and shows in the golden bytes.
    fn put(&mut self, part: &[u8]) {
        if let Some(target) = self.bytes.get_mut(self.at..self.at + part.len()) {
            target.copy_from_slice(part);
        }
        debug_assert!(self.at + part.len() <= N, "a header must fit its constant length");
        self.at += part.len();
    }

    fn written(&self) -> &[u8] {
        self.bytes.get(..self.at).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
