//! The bytes of `/atelier/chunks/1`: requests of ids, answers in the order asked, without ids.
//!
//! Leaves out: what is asked of whom ([`crate::fetch`]).
//!
//! Invariants:
//! - answer k on a stream belongs to the k-th id asked for on it; whoever receives it verifies it
//!   against that id, so an id on the wire would add 32 bytes and no safety;
//! - a record's lengths are checked before its data is read.

use bytes::{Bytes, BytesMut};
use cas::StoredChunk;
use cas::id::ChunkId;

use super::{DecodeError, FRAME_HEAD_LEN, bounded, ids_of};
use crate::limits;

/// Length of an answer before its data: status, flags, raw length, stored length; bytes.
pub const ANSWER_HEAD_LEN: usize = 1 + 1 + 4 + 4;

const KIND_GET: u8 = 1;
const STATUS_MISSING: u8 = 0;
const STATUS_HERE: u8 = 1;

/// What one id was answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The responder does not have it (or no longer trusts its copy).
    Missing,
    /// Here it is.
    Here(StoredChunk),
}

/// A request's frame.
pub fn encode_request(ids: &[ChunkId]) -> Vec<u8> {
    let len = 1 + ids.len() * 32;
    let mut out = Vec::with_capacity(FRAME_HEAD_LEN + len);
    out.extend_from_slice(&(len as u32).to_le_bytes());
    out.push(KIND_GET);
    for id in ids {
        out.extend_from_slice(id.as_bytes());
    }
    out
}

/// Reads what stands in a request's frame after the length field.
pub fn decode_request(body: Bytes) -> Result<Vec<ChunkId>, DecodeError> {
    match body.first() {
        Some(&KIND_GET) => ids_of(&body.slice(1..)),
        Some(&other) => Err(DecodeError::UnknownKind(other)),
        None => Err(DecodeError::Malformed),
    }
}

/// Appends one answer.
pub fn encode_answer(answer: &Answer, out: &mut BytesMut) {
    match answer {
        Answer::Missing => out.extend_from_slice(&[STATUS_MISSING, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        Answer::Here(chunk) => {
            out.extend_from_slice(&[STATUS_HERE, chunk.flags]);
            out.extend_from_slice(&chunk.raw_len.to_le_bytes());
            out.extend_from_slice(&(chunk.data.len() as u32).to_le_bytes());
            out.extend_from_slice(&chunk.data);
        }
    }
}

/// An answer's fixed part, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerHead {
    here: bool,
    flags: u8,
    raw_len: u32,
    len: usize,
}

impl AnswerHead {
    /// Reads the head at the front of `bytes`; `None` when more bytes are needed.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, DecodeError> {
        let Some((head, _)) = bytes.split_first_chunk::<ANSWER_HEAD_LEN>() else {
            return Ok(None);
        };
        let [status, flags, a, b, c, d, e, f, g, h] = *head;
        let raw_len = u32::from_le_bytes([a, b, c, d]);
        let len = u32::from_le_bytes([e, f, g, h]) as usize;
        match status {
            STATUS_MISSING if flags == 0 && raw_len == 0 && len == 0 => {
                Ok(Some(Self { here: false, flags, raw_len, len }))
            }
            STATUS_MISSING => Err(DecodeError::Malformed),
            STATUS_HERE => {
                bounded("chunk", raw_len as usize, limits::CHUNK_STORED_LEN_MAX)?;
                bounded("stored chunk", len, limits::CHUNK_STORED_LEN_MAX)?;
                Ok(Some(Self { here: true, flags, raw_len, len }))
            }
            other => Err(DecodeError::UnknownKind(other)),
        }
    }

    /// Length of the whole answer, bytes.
    pub fn answer_len(&self) -> usize {
        ANSWER_HEAD_LEN + self.len
    }

    /// The answer, given its bytes from the head on; shares them.
    pub fn with_data(&self, bytes: &Bytes) -> Answer {
        if !self.here {
            return Answer::Missing;
        }
        let data = bytes.slice(ANSWER_HEAD_LEN.min(bytes.len())..);
        Answer::Here(StoredChunk { flags: self.flags, raw_len: self.raw_len, data })
    }
}
