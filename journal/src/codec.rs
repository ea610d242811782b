//! An entry as bytes: an envelope of magic, format version and length around a postcard body, then
//! the signature.
//!
//! Leaves out: what a signature is worth ([`crate::signed`]).
//!
//! Invariants:
//! - bytes are kept as they came; nothing is ever encoded a second time to be hashed or compared;
//! - decoding allocates nothing before the whole length is known to be within [`ENTRY_LEN_MAX`], and
//!   refuses every trailing byte, in the envelope and in the body;
//! - layout: `magic[4] format[2] body_len[4] body signature[64]`, numbers little-endian.

use crate::entry::{ENTRY_LEN_MAX, Entry, EntryError};

/// First bytes of an entry.
const MAGIC: [u8; 4] = *b"ATJE";
/// The entry format this code writes and the newest it reads.
pub const FORMAT: u16 = 1;
/// Bytes before the body.
const HEADER_LEN: usize = 4 + 2 + 4;
/// Bytes after the body.
pub const SIGNATURE_LEN: usize = 64;
/// Largest body.
const BODY_LEN_MAX: usize = ENTRY_LEN_MAX - HEADER_LEN - SIGNATURE_LEN;

/// Why bytes are no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Larger than any entry.
    #[error("an entry of {len} bytes is larger than {ENTRY_LEN_MAX}")]
    TooLong {
        /// Bytes given.
        len: usize,
    },
    /// Shorter or longer than its header says, or without a header.
    #[error("an entry's length does not match its header")]
    Length,
    /// Other first bytes.
    #[error("these bytes do not begin as an entry does")]
    Magic,
    /// A format this code does not know.
    #[error("entry format {found} is newer than {supported}")]
    TooNew {
        /// The entry's format.
        found: u16,
        /// The newest format known here.
        supported: u16,
    },
    /// A body that is no entry, or more than one.
    #[error("an entry's body cannot be read")]
    Body,
    /// A body that breaks a rule.
    #[error("an entry breaks a rule")]
    Rule(#[from] EntryError),
}

/// Why an entry cannot become bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Larger than an entry may be.
    #[error("an entry of {len} bytes is larger than {ENTRY_LEN_MAX}")]
    TooLong {
        /// Bytes it would have.
        len: usize,
    },
    /// It breaks a rule.
    #[error("an entry breaks a rule")]
    Rule(#[from] EntryError),
}

/// An entry's bytes, taken apart but not trusted.
#[derive(Debug)]
pub struct Parts<'a> {
    /// Header and body: what is hashed and signed.
    pub signed: &'a [u8],
    /// The signature.
    pub signature: &'a [u8; SIGNATURE_LEN],
    /// The entry the body says it is; its own rules hold.
    pub entry: Entry,
}

/// Encodes everything but the signature.
pub fn encode_unsigned(entry: &Entry) -> Result<Vec<u8>, EncodeError> {
    entry.check()?;
    let body =
        postcard::to_allocvec(entry).map_err(|_| EncodeError::TooLong { len: usize::MAX })?;
    if body.len() > BODY_LEN_MAX {
        return Err(EncodeError::TooLong { len: body.len() + HEADER_LEN + SIGNATURE_LEN });
    }
    let mut out = Vec::with_capacity(HEADER_LEN + body.len() + SIGNATURE_LEN);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&body);
    Ok(out)
}

/// Bytes `entry` takes in full.
pub fn encoded_len(entry: &Entry) -> usize {
    let body = postcard::experimental::serialized_size(entry).unwrap_or(usize::MAX / 2);
    HEADER_LEN + body + SIGNATURE_LEN
}

/// Takes an entry's bytes apart and holds its own rules.
pub fn decode(bytes: &[u8]) -> Result<Parts<'_>, DecodeError> {
    if bytes.len() > ENTRY_LEN_MAX {
        return Err(DecodeError::TooLong { len: bytes.len() });
    }
    let (magic, rest) = bytes.split_first_chunk::<4>().ok_or(DecodeError::Length)?;
    if *magic != MAGIC {
        return Err(DecodeError::Magic);
    }
    let (format, rest) = rest.split_first_chunk::<2>().ok_or(DecodeError::Length)?;
    let found = u16::from_le_bytes(*format);
    if found > FORMAT {
        return Err(DecodeError::TooNew { found, supported: FORMAT });
    }
    if found != FORMAT {
        return Err(DecodeError::Magic);
    }
    let (len, rest) = rest.split_first_chunk::<4>().ok_or(DecodeError::Length)?;
    let (body, signature) = rest.split_last_chunk::<64>().ok_or(DecodeError::Length)?;
    if usize::try_from(u32::from_le_bytes(*len)) != Ok(body.len()) {
        return Err(DecodeError::Length);
    }
    let (entry, left) = postcard::take_from_bytes::<Entry>(body).map_err(|_| DecodeError::Body)?;
    if !left.is_empty() {
        return Err(DecodeError::Body);
    }
    entry.check()?;
    let signed = bytes.get(..HEADER_LEN + body.len()).ok_or(DecodeError::Length)?;
    Ok(Parts { signed, signature, entry })
}
