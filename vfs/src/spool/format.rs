//! The bytes of the spool log: a head, then framed records.
//!
//! Leaves out: files and locks.
//!
//! Invariants:
//! - a frame is taken whole or not at all; the first one that is not whole ends the log;
//! - a frame counts only under the head it was written under: a log is emptied by a new head, and what stands behind
//!   it is no frame any more;
//! - a log of a newer version is refused, never guessed at.

use cas::Content;
use journal::id::DirId;
use journal::name::EntryName;
use journal::op::{DirAttr, Timestamp, Xattrs};
use serde::{Deserialize, Serialize};

use crate::drafts::{Below, Draft, Key};

/// First bytes of a spool log.
const MAGIC: [u8; 8] = *b"ATLSPOOL";
/// Newest version of the format, and the one written.
pub(crate) const VERSION: u16 = 2;
/// Length of the head, bytes: magic, version, two zero bytes, turn.
pub(crate) const HEAD_LEN: usize = 16;
/// Length of a frame's head, bytes: payload length and CRC-32C of the turn, that length and the payload.
const FRAME_HEAD_LEN: usize = 8;
/// Longest payload of a frame, bytes.
const PAYLOAD_LEN_MAX: usize = 256 << 20;
/// Changes put in one frame when they need not stand or fall together.
pub(crate) const FRAME_CHANGES: usize = 256;

/// One change, absolute: later ones about the same thing replace earlier ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Change {
    /// A name's draft, or that it has none.
    Name { dir: DirId, folded: String, draft: Option<Draft> },
    /// A directory's waiting attributes, or that none wait.
    Attr { dir: DirId, attr: Option<DirAttr> },
    /// An unfinished file as an fsync left it.
    Dirty(DirtyFile),
    /// Where an unfinished file stands now.
    Place { file: u64, place: Option<(DirId, EntryName)> },
    /// An unfinished file is finished or gone.
    Clean { file: u64 },
    /// Bytes of an unfinished file's overlay that its overlay file may not hold.
    Inline { file: u64, parts: Vec<Part> },
    /// An unfinished file's overlay file holds, durably, all that was inline before.
    Overlaid { file: u64 },
}

/// Bytes at a place of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
}

/// Attributes of an unfinished file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FileAttrs {
    pub(crate) mode: u32,
    pub(crate) mtime: Timestamp,
    pub(crate) xattrs: Xattrs,
    pub(crate) owner: Option<(u32, u32)>,
}

/// An unfinished file: its content so far, and what an overlay file has over it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DirtyFile {
    /// Number within this log.
    pub(crate) file: u64,
    pub(crate) place: Option<(DirId, EntryName)>,
    pub(crate) base: Option<Content>,
    pub(crate) base_valid: u64,
    pub(crate) overlay: Option<(u64, Vec<(u64, u64)>)>,
    pub(crate) len: u64,
    pub(crate) attrs: FileAttrs,
    /// What its content will replace.
    pub(crate) below: Below,
}

impl DirtyFile {
    /// Number of its overlay, if it has one.
    pub(crate) fn overlay_number(&self) -> Option<u64> {
        self.overlay.as_ref().map(|(number, _)| *number)
    }
}

impl Change {
    pub(crate) fn name(key: &Key, draft: Option<&Draft>) -> Self {
        Self::Name { dir: key.dir(), folded: key.folded().to_owned(), draft: draft.cloned() }
    }
}

/// How many times a log was emptied, modulo 2^32: frames of another turn do not count. Logs of version 1 have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn(Option<u32>);

impl Turn {
    /// A new log's.
    pub(crate) const FIRST: Self = Self(Some(1));

    /// The one after the log is emptied.
    pub(crate) fn next(self) -> Self {
        Self(Some(self.0.unwrap_or_default().wrapping_add(1)))
    }
}

/// The head of a log.
pub(crate) fn head(turn: Turn) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_LEN);
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&[0; 2]);
    head.extend_from_slice(&turn.0.unwrap_or_default().to_le_bytes());
    head
}

/// Why a head is not one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// Too short, as a crash during the very first write leaves it.
    Short,
    /// Something else.
    Foreign,
    /// Of a newer version.
    TooNew(u16),
}

pub(crate) fn check_head(bytes: &[u8]) -> Result<Turn, HeadError> {
    let Some(head) = bytes.get(..HEAD_LEN) else { return Err(HeadError::Short) };
    let Some((magic, rest)) = head.split_first_chunk::<8>() else { return Err(HeadError::Short) };
    let Some((version, rest)) = rest.split_first_chunk::<2>() else { return Err(HeadError::Short) };
    let Some(turn) = rest.last_chunk::<4>() else { return Err(HeadError::Short) };
    let version = u16::from_le_bytes(*version);
    match (*magic == MAGIC, version) {
        (false, _) | (_, 0) => Err(HeadError::Foreign),
        (true, 1) => Ok(Turn(None)),
        (true, VERSION) => Ok(Turn(Some(u32::from_le_bytes(*turn)))),
        (true, newer) => Err(HeadError::TooNew(newer)),
    }
}

fn checksum(turn: Turn, len: [u8; 4], payload: &[u8]) -> u32 {
    let turn = turn.0.map_or(0, |turn| crc32c::crc32c(&turn.to_le_bytes()));
    crc32c::crc32c_append(crc32c::crc32c_append(turn, &len), payload)
}

/// Appends one frame.
pub(crate) fn encode_frame(turn: Turn, changes: &[Change], out: &mut Vec<u8>) {
    // Plain data into memory cannot fail to encode; if it did, the frame would be missing and recovery would end here,
    // so it is left out whole and told.
    let payload = match postcard::to_allocvec(changes) {
        Ok(payload) if payload.len() <= PAYLOAD_LEN_MAX => payload,
        Ok(payload) => {
            tracing::error!(len = payload.len(), "a spool frame is too long and was left out");
            return;
        }
        Err(error) => {
            tracing::error!(%error, "a spool frame cannot be encoded and was left out");
            return;
        }
    };
    let len = (payload.len() as u32).to_le_bytes();
    out.extend_from_slice(&len);
    out.extend_from_slice(&checksum(turn, len, &payload).to_le_bytes());
    out.extend_from_slice(&payload);
}

/// Takes one frame off the front; nothing when none is whole.
pub(crate) fn decode_frame<'a>(turn: Turn, bytes: &mut &'a [u8]) -> Option<Vec<Change>> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let payload_len = u32::from_le_bytes(*len) as usize;
    if payload_len > PAYLOAD_LEN_MAX {
        return None;
    }
    let (payload, rest): (&'a [u8], &'a [u8]) = rest.split_at_checked(payload_len)?;
    if checksum(turn, *len, payload) != u32::from_le_bytes(*crc) {
        return None;
    }
    let changes = postcard::from_bytes(payload).ok()?;
    *bytes = rest;
    Some(changes)
}

const _: () = assert!(FRAME_HEAD_LEN == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_told_apart() {
        assert_eq!(check_head(&head(Turn::FIRST)), Ok(Turn::FIRST));
        assert_eq!(check_head(&head(Turn::FIRST.next())), Ok(Turn::FIRST.next()));
        assert_eq!(check_head(b"ATL"), Err(HeadError::Short));
        assert_eq!(check_head(&[0; 16]), Err(HeadError::Foreign));
        assert_eq!(check_head(b"ATLSPOOL\x01\0\0\0\0\0\0\0"), Ok(Turn(None)));
        let mut newer = head(Turn::FIRST);
        newer[8] = 9;
        assert_eq!(check_head(&newer), Err(HeadError::TooNew(9)));
    }

    #[test]
    fn the_layout_of_the_head_and_a_frame_is_fixed() {
        assert_eq!(head(Turn(Some(0x0403_0201))), b"ATLSPOOL\x02\0\0\0\x01\x02\x03\x04");
        let frame = |turn, sealed: &[u8]| {
            let mut bytes = Vec::new();
            encode_frame(turn, &[Change::Clean { file: 7 }], &mut bytes);
            let mut want = vec![3, 0, 0, 0];
            want.extend(crc32c::crc32c(sealed).to_le_bytes());
            want.extend([1, 4, 7]);
            assert_eq!(bytes, want);
        };
        frame(Turn(Some(9)), &[9, 0, 0, 0, 3, 0, 0, 0, 1, 4, 7]);
        frame(Turn(None), &[3, 0, 0, 0, 1, 4, 7]);
    }

    #[test]
    fn the_frames_of_another_turn_do_not_count() {
        let mut bytes = Vec::new();
        encode_frame(Turn::FIRST, &[Change::Clean { file: 1 }], &mut bytes);
        assert_eq!(decode_frame(Turn::FIRST.next(), &mut &bytes[..]), None);
        assert_eq!(decode_frame(Turn(None), &mut &bytes[..]), None);
        assert!(decode_frame(Turn::FIRST, &mut &bytes[..]).is_some());
    }

    #[test]
    fn a_log_ends_at_the_first_frame_that_is_not_whole() {
        let turn = Turn::FIRST;
        let mut bytes = Vec::new();
        for file in 0..5 {
            encode_frame(turn, &[Change::Clean { file }], &mut bytes);
        }
        let frame = bytes.len() / 5;
        for cut in 0..=bytes.len() {
            let mut rest = &bytes[..cut];
            let mut read = 0;
            while let Some(changes) = decode_frame(turn, &mut rest) {
                assert_eq!(changes, vec![Change::Clean { file: read }]);
                read += 1;
            }
            assert_eq!(read as usize, cut / frame);
        }
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            let mut rest = &flipped[..];
            let mut read = 0;
            while decode_frame(turn, &mut rest).is_some() {
                read += 1;
            }
            assert_eq!(read, at / frame, "flipped at {at}");
        }
    }
}
