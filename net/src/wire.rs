//! What travels: protocol names, frames, messages and their bytes. The page for readers is docs/WIRE.md.
//!
//! Leaves out: when something is sent ([`crate::sync`], [`crate::fetch`], [`mod@crate::join`]) and the
//! meaning of entries and chunks.
//!
//! Invariants:
//! - decoding is total: any bytes give a message or a [`DecodeError`], never a panic, and never an
//!   allocation larger than the frame they came in;
//! - a decoded message has no trailing bytes and every count and length in it is within
//!   [`crate::limits`]; whoever handles it need not check again;
//! - a layout changes only together with the protocol's name.

use std::sync::Arc;

use bytes::Bytes;
use cas::id::{ChunkId, HASH_LEN};
use journal::chain::{Frontier, TIPS_MAX};
use journal::id::{DeviceId, EntryId};
use libp2p::swarm::StreamProtocol;
use serde::{Deserialize, Serialize};

use crate::limits;

pub mod addr;
pub mod chunks;
pub mod locks;
pub use addr::Addr;

/// Journal exchange between members.
pub const PROTOCOL_JOURNAL: StreamProtocol = StreamProtocol::new("/atelier/journal/1");
/// Chunk transfer between members.
pub const PROTOCOL_CHUNKS: StreamProtocol = StreamProtocol::new("/atelier/chunks/1");
/// Session locks and presence between members.
pub const PROTOCOL_LOCK: StreamProtocol = StreamProtocol::new("/atelier/lock/1");
/// Proof of an invitation.
pub const PROTOCOL_JOIN: StreamProtocol = StreamProtocol::new("/atelier/join/1");

/// Length of a frame's length field, bytes (little endian, counts what follows it).
pub const FRAME_HEAD_LEN: usize = 4;

/// Bytes that are not a message of this protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message ends early or says something impossible.
    #[error("malformed message")]
    Malformed,
    /// No message of this kind exists in this version.
    #[error("unknown message kind {0}")]
    UnknownKind(u8),
    /// A length or count exceeds its bound.
    #[error("{what} of {found} exceeds {bound}")]
    TooLong {
        /// Which length or count.
        what: &'static str,
        /// As the peer wrote it.
        found: usize,
        /// The bound of [`crate::limits`].
        bound: usize,
    },
}

/// First message of both ends of a journal stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Everything the sender holds, durably.
    pub frontier: Frontier,
    /// Where the sender listens.
    pub addrs: Vec<Addr>,
    /// The sender's wall clock, for the median of DESIGN 4.2 and display; milliseconds since 1970.
    pub wall_ms: u64,
}

/// Entries in causal order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entries {
    /// Counts up from 1 in each direction of a session; acknowledged by [`Have::upto`].
    pub batch: u64,
    /// Everything the sender holds, these included: what need not be sent back.
    pub frontier: Frontier,
    /// The signed bytes of each entry.
    pub entries: Vec<Arc<[u8]>>,
}

/// Acknowledgement: what the frontier covers is durable at the sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    /// Every batch up to this one was taken in (or refused, or waits for a missing entry).
    pub upto: u64,
    /// Everything the sender holds.
    pub frontier: Frontier,
}

/// The messages of `/atelier/journal/1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Opens the session.
    Hello(Hello),
    /// Entries the other end lacks.
    Entries(Entries),
    /// Acknowledges batches.
    Have(Have),
    /// Names entries that are missing below those received.
    Want(Vec<EntryId>),
    /// All that may be sent before the other end's offer is taken in has been sent (DESIGN 4.2).
    Offered,
    /// The sender holds every content named by entries under this frontier.
    Holds(Frontier),
    /// Where other members were reached.
    Addresses(Vec<(DeviceId, Vec<Addr>)>),
    /// Asks for the sender's frontier as it is now.
    Probe(u64),
    /// Answers [`Message::Probe`].
    Probed(u64, Frontier),
    /// How many content bytes the sender still wants, for the other end's display.
    Lacks(u64),
}

const KIND_HELLO: u8 = 1;
const KIND_ENTRIES: u8 = 2;
const KIND_HAVE: u8 = 3;
const KIND_WANT: u8 = 4;
const KIND_OFFERED: u8 = 5;
const KIND_HOLDS: u8 = 6;
const KIND_ADDRESSES: u8 = 7;
const KIND_PROBE: u8 = 8;
const KIND_PROBED: u8 = 9;
const KIND_LACKS: u8 = 10;

impl Message {
    /// The frame, length field included.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello(hello) => frame(KIND_HELLO, hello),
            Self::Entries(entries) => entries.encode(),
            Self::Have(have) => frame(KIND_HAVE, have),
            Self::Want(ids) => frame(KIND_WANT, ids),
            Self::Offered => frame(KIND_OFFERED, &()),
            Self::Holds(frontier) => frame(KIND_HOLDS, frontier),
            Self::Addresses(list) => frame(KIND_ADDRESSES, list),
            Self::Probe(token) => frame(KIND_PROBE, token),
            Self::Probed(token, frontier) => frame(KIND_PROBED, &(token, frontier)),
            Self::Lacks(bytes) => frame(KIND_LACKS, bytes),
        }
    }

    /// Reads what stands in one frame after its length field.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let (kind, rest) = body.split_first().ok_or(DecodeError::Malformed)?;
        match *kind {
            KIND_HELLO => {
                let hello: Hello = exact(rest)?;
                bounded("addresses", hello.addrs.len(), limits::ADDRS_PER_DEVICE_MAX)?;
                bounded_frontier(&hello.frontier)?;
                Ok(Self::Hello(hello))
            }
            KIND_ENTRIES => Entries::decode(rest).map(Self::Entries),
            KIND_HAVE => {
                let have: Have = exact(rest)?;
                bounded_frontier(&have.frontier)?;
                Ok(Self::Have(have))
            }
            KIND_WANT => {
                let ids: Vec<EntryId> = exact(rest)?;
                bounded("wanted entries", ids.len(), limits::WANT_IDS_MAX)?;
                Ok(Self::Want(ids))
            }
            KIND_OFFERED => exact(rest).map(|()| Self::Offered),
            KIND_HOLDS => {
                let frontier = exact(rest)?;
                bounded_frontier(&frontier)?;
                Ok(Self::Holds(frontier))
            }
            KIND_ADDRESSES => {
                let list: Vec<(DeviceId, Vec<Addr>)> = exact(rest)?;
                bounded("devices", list.len(), limits::ADDRS_DEVICES_MAX)?;
                for (_, addrs) in &list {
                    bounded("addresses", addrs.len(), limits::ADDRS_PER_DEVICE_MAX)?;
                }
                Ok(Self::Addresses(list))
            }
            KIND_PROBE => exact(rest).map(Self::Probe),
            KIND_PROBED => {
                let (token, frontier) = exact(rest)?;
                bounded_frontier(&frontier)?;
                Ok(Self::Probed(token, frontier))
            }
            KIND_LACKS => exact(rest).map(Self::Lacks),
            other => Err(DecodeError::UnknownKind(other)),
        }
    }
}

impl Entries {
    /// Raw, not postcard: entries are copied once, in a piece.
    fn encode(&self) -> Vec<u8> {
        let frontier = postcard::to_allocvec(&self.frontier).unwrap_or_default();
        let len: usize = self.entries.iter().map(|e| 4 + e.len()).sum();
        let len = 1 + 8 + 4 + frontier.len() + len;
        let mut out = Vec::with_capacity(FRAME_HEAD_LEN + len);
        out.extend_from_slice(&(len as u32).to_le_bytes());
        out.push(KIND_ENTRIES);
        out.extend_from_slice(&self.batch.to_le_bytes());
        out.extend_from_slice(&(frontier.len() as u32).to_le_bytes());
        out.extend_from_slice(&frontier);
        for entry in &self.entries {
            out.extend_from_slice(&(entry.len() as u32).to_le_bytes());
            out.extend_from_slice(entry);
        }
        out
    }

    fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let (batch, rest) = body.split_first_chunk::<8>().ok_or(DecodeError::Malformed)?;
        let (len, rest) = rest.split_first_chunk::<4>().ok_or(DecodeError::Malformed)?;
        let len = u32::from_le_bytes(*len) as usize;
        let (frontier, mut rest) = rest.split_at_checked(len).ok_or(DecodeError::Malformed)?;
        let frontier = exact(frontier)?;
        bounded_frontier(&frontier)?;
        let mut entries = Vec::new();
        while let Some((len, tail)) = rest.split_first_chunk::<4>() {
            let len = u32::from_le_bytes(*len) as usize;
            bounded("entry", len, limits::ENTRY_LEN_MAX)?;
            bounded("entries", entries.len() + 1, limits::BATCH_ENTRIES_MAX)?;
            let (entry, tail) = tail.split_at_checked(len).ok_or(DecodeError::Malformed)?;
            entries.push(Arc::from(entry));
            rest = tail;
        }
        if rest.is_empty() && !entries.is_empty() {
            Ok(Self { batch: u64::from_le_bytes(*batch), frontier, entries })
        } else {
            Err(DecodeError::Malformed)
        }
    }
}

/// Signatures and proofs; postcard would take a 64-byte array only through a helper.
pub type Signature = [u8; 64];

/// The messages of `/atelier/join/1`, in the order in which they are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinMessage {
    /// Host: sign this.
    Challenge([u8; 32]),
    /// Joiner: here.
    Proof(Box<JoinProof>),
    /// Host: the drive's first entry and where members are.
    Admitted(Admitted),
    /// Host: no.
    Refused(JoinRefusal),
}

/// What shows that the sender holds an invitation's secret key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinProof {
    /// The invitation's public key.
    pub invite_key: [u8; 32],
    /// The sender's device key, which is also its connection's.
    pub device: DeviceId,
    /// How the device wants to be called.
    pub name: String,
    /// By the invitation key over the challenge and both ends: [`crate::invite::challenge_bytes`].
    pub answer: Signature,
    /// By the invitation key over drive and device: what the journal keeps in its `Admit`.
    pub admit: Signature,
}

/// What a joiner gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    /// The first entry; its hash is the drive's id.
    pub genesis: Vec<u8>,
    /// Where members were reached.
    pub addrs: Vec<(DeviceId, Vec<Addr>)>,
}

/// Why not. Only [`JoinRefusal::Invalid`] is ever said before the proof was found to be good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinRefusal {
    /// The proof does not hold, for whatever reason: another drive, another key, a bad signature.
    Invalid,
    /// The invitation has expired.
    Expired,
    /// It was used as often as it allows.
    Used,
    /// Its issuer is no member any more, or it was withdrawn.
    Void,
    /// This device cannot admit anybody now; another may.
    Unable,
    /// Too many attempts; later.
    Busy,
}

const KIND_CHALLENGE: u8 = 1;
const KIND_PROOF: u8 = 2;
const KIND_ADMITTED: u8 = 3;
const KIND_REFUSED: u8 = 4;

impl JoinMessage {
    /// The frame, length field included.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Challenge(nonce) => frame(KIND_CHALLENGE, nonce),
            Self::Proof(proof) => {
                let (answer, admit) = (halves(&proof.answer), halves(&proof.admit));
                frame(KIND_PROOF, &(proof.invite_key, proof.device, &proof.name, answer, admit))
            }
            Self::Admitted(admitted) => frame(KIND_ADMITTED, admitted),
            Self::Refused(refusal) => frame(KIND_REFUSED, refusal),
        }
    }

    /// Reads what stands in one frame after its length field.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let (kind, rest) = body.split_first().ok_or(DecodeError::Malformed)?;
        match *kind {
            KIND_CHALLENGE => exact(rest).map(Self::Challenge),
            KIND_PROOF => {
                let (invite_key, device, name, answer, admit): (_, _, String, Halves, Halves) =
                    exact(rest)?;
                bounded("name", name.len(), limits::NAME_LEN_MAX)?;
                Ok(Self::Proof(Box::new(JoinProof {
                    invite_key,
                    device,
                    name,
                    answer: whole(&answer),
                    admit: whole(&admit),
                })))
            }
            KIND_ADMITTED => {
                let admitted: Admitted = exact(rest)?;
                bounded("genesis", admitted.genesis.len(), limits::GENESIS_LEN_MAX)?;
                bounded("devices", admitted.addrs.len(), limits::ADDRS_DEVICES_MAX)?;
                for (_, addrs) in &admitted.addrs {
                    bounded("addresses", addrs.len(), limits::ADDRS_PER_DEVICE_MAX)?;
                }
                Ok(Self::Admitted(admitted))
            }
            KIND_REFUSED => exact(rest).map(Self::Refused),
            other => Err(DecodeError::UnknownKind(other)),
        }
    }
}

type Halves = ([u8; 32], [u8; 32]);

fn halves(signature: &Signature) -> Halves {
    let mut out = ([0; 32], [0; 32]);
    out.0.copy_from_slice(signature.first_chunk::<32>().unwrap_or(&[0; 32]));
    out.1.copy_from_slice(signature.last_chunk::<32>().unwrap_or(&[0; 32]));
    out
}

fn whole((first, second): &Halves) -> Signature {
    let mut out = [0; 64];
    for (to, from) in out.iter_mut().zip(first.iter().chain(second)) {
        *to = *from;
    }
    out
}

/// A frame of postcard bytes. Serialisation of our own types into memory cannot fail.
fn frame(kind: u8, body: &impl Serialize) -> Vec<u8> {
    let head = vec![0, 0, 0, 0, kind];
    let mut out = postcard::to_extend(body, head).unwrap_or_default();
    let len = out.len().saturating_sub(FRAME_HEAD_LEN) as u32;
    for (to, from) in out.iter_mut().zip(len.to_le_bytes()) {
        *to = from;
    }
    out
}

fn exact<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(DecodeError::Malformed),
    }
}

fn bounded(what: &'static str, found: usize, bound: usize) -> Result<(), DecodeError> {
    if found <= bound { Ok(()) } else { Err(DecodeError::TooLong { what, found, bound }) }
}

fn bounded_frontier(frontier: &Frontier) -> Result<(), DecodeError> {
    bounded("frontier", frontier.tips.len(), TIPS_MAX)
}

/// Checks a frame's length field before anything is read or allocated for it.
pub fn frame_len(head: [u8; FRAME_HEAD_LEN], bound: usize) -> Result<usize, DecodeError> {
    let len = u32::from_le_bytes(head) as usize;
    bounded("frame", len, bound)?;
    if len == 0 { Err(DecodeError::Malformed) } else { Ok(len) }
}

/// Ids back to back, as they stand in a request.
fn ids_of(bytes: &Bytes) -> Result<Vec<ChunkId>, DecodeError> {
    let (ids, rest) = bytes.as_chunks::<HASH_LEN>();
    if !rest.is_empty() || ids.is_empty() {
        return Err(DecodeError::Malformed);
    }
    bounded("requested chunks", ids.len(), limits::REQUEST_IDS_MAX)?;
    Ok(ids.iter().map(|id| ChunkId::from_bytes(*id)).collect())
}

#[cfg(test)]
mod tests;
