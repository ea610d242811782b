//! The ticket `atelier1...`: what somebody needs to join a drive, as one word to paste.
//!
//! Leaves out: whether the invitation still counts (the journal decides) and the conversation
//! ([`mod@crate::join`]).
//!
//! Invariants:
//! - a mistyped or cut ticket is recognised by its checksum before anything is dialled;
//! - the secret never appears in `Debug`;
//! - a signature of the invitation key is valid for one purpose, one drive and one device, and the
//!   answer to a challenge for one connection's ends only.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, DecodeKind};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use journal::id::{DeviceId, DriveId};
use journal::op::Role;
use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::limits;
use crate::wire::Addr;

/// What every ticket begins with, before its version.
const PREFIX: &str = "atelier";
/// The version that follows.
const VERSION: u32 = 1;
/// Length of the checksum at the end, bytes.
const CHECKSUM_LEN: usize = 4;
/// Domain of the checksum.
const CHECKSUM_CONTEXT: &str = "atelier 2026-11 ticket checksum";
/// Domain tag of the answer to a join challenge.
const CHALLENGE_TAG: &[u8] = b"atelier 2026-11 join challenge\0";

/// An invitation as it is handed to a person.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Which drive.
    pub drive: DriveId,
    /// The invitation's secret key (Ed25519 seed); its public half is in the journal.
    pub secret: [u8; 32],
    /// What the joiner will be. A hint for display: the journal's word counts.
    pub role: Role,
    /// Until when, milliseconds since 1970. A hint likewise.
    pub expires: u64,
    /// Who issued it.
    pub inviter: DeviceId,
    /// Where the inviter, and perhaps other members, were reachable.
    pub addrs: Vec<Multiaddr>,
}

/// Why a text is not a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not even the beginning.
    #[error("not a ticket: it must begin with {PREFIX}{VERSION}")]
    NotATicket,
    /// A ticket of a later version.
    #[error("the ticket is of version {found}, this program knows version {supported}")]
    TooNew {
        /// As written.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// A character that no ticket contains.
    #[error("the ticket has a wrong character at position {at}")]
    Character {
        /// Counted from the start of the text.
        at: usize,
    },
    /// Cut, or a letter changed.
    #[error("the ticket is incomplete or mistyped")]
    Checksum,
    /// The checksum holds, the contents do not.
    #[error("the ticket's contents are malformed")]
    Malformed,
}

#[derive(Serialize, Deserialize)]
struct Body {
    drive: DriveId,
    secret: [u8; 32],
    role: Role,
    expires: u64,
    inviter: DeviceId,
    addrs: Vec<Addr>,
}

impl Ticket {
    /// The invitation's public key, by which the journal knows it.
    pub fn invite_key(&self) -> [u8; 32] {
        SigningKey::from_bytes(&self.secret).verifying_key().to_bytes()
    }

    /// Answers a host's challenge.
    pub fn answer(&self, nonce: &[u8; 32], host: &DeviceId, joiner: &DeviceId) -> [u8; 64] {
        let bytes = challenge_bytes(&self.drive, nonce, host, joiner);
        SigningKey::from_bytes(&self.secret).sign(&bytes).to_bytes()
    }

    /// The journal's proof for the `Admit` of `device`.
    pub fn admit_proof(&self, device: &DeviceId) -> [u8; 64] {
        journal::member::admit_proof(&self.secret, &self.drive, device)
    }
}

/// What the invitation key signs to answer a challenge: bound to the drive, the host's random nonce
/// and the keys both ends of the connection have proved in its handshake.
pub fn challenge_bytes(
    drive: &DriveId,
    nonce: &[u8; 32],
    host: &DeviceId,
    joiner: &DeviceId,
) -> Vec<u8> {
    [CHALLENGE_TAG, drive.as_bytes(), nonce, host.as_bytes(), joiner.as_bytes()].concat()
}

/// Whether `answer` is `invite_key`'s over these bytes; weak keys and malleable forms do not count.
pub(crate) fn verify_answer(invite_key: &[u8; 32], bytes: &[u8], answer: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(invite_key)
        .is_ok_and(|key| key.verify_strict(bytes, &Signature::from_bytes(answer)).is_ok())
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_LEN] {
    let [a, b, c, d, ..] = blake3::derive_key(CHECKSUM_CONTEXT, body);
    [a, b, c, d]
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = Body {
            drive: self.drive,
            secret: self.secret,
            role: self.role,
            expires: self.expires,
            inviter: self.inviter,
            addrs: self
                .addrs
                .iter()
                .filter_map(|a| Addr::new(a.clone()))
                .take(limits::TICKET_ADDRS_MAX)
                .collect(),
        };
        let mut bytes = Zeroizing::new(postcard::to_allocvec(&body).map_err(|_| fmt::Error)?);
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        write!(f, "{PREFIX}{VERSION}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

impl FromStr for Ticket {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let text = text.trim();
        let rest = text.strip_prefix(PREFIX).ok_or(ParseError::NotATicket)?;
        if text.len() > limits::TICKET_LEN_MAX {
            return Err(ParseError::Malformed);
        }
        // Base32 has no 0, 1, 8 and 9: the digits up to the first other character are the version,
        // but 2 to 7 belong to the body, so it is read as the one character it is.
        let (version, body) = match rest.chars().next() {
            Some(v) if v.is_ascii_digit() => {
                (u32::from(v as u8 - b'0'), rest.get(1..).unwrap_or(""))
            }
            _ => return Err(ParseError::NotATicket),
        };
        if version != VERSION {
            return Err(ParseError::TooNew { found: version, supported: VERSION });
        }
        let upper = Zeroizing::new(body.to_ascii_uppercase());
        let bytes = BASE32_NOPAD.decode(upper.as_bytes()).map_err(|error| match error.kind {
            DecodeKind::Symbol => {
                ParseError::Character { at: PREFIX.len() + 1 + error.position + 1 }
            }
            _ => ParseError::Checksum,
        })?;
        let bytes = Zeroizing::new(bytes);
        let (body, sum) = bytes.split_last_chunk::<CHECKSUM_LEN>().ok_or(ParseError::Checksum)?;
        if checksum(body) != *sum {
            return Err(ParseError::Checksum);
        }
        let body: Body = match postcard::take_from_bytes(body) {
            Ok((body, [])) => body,
            _ => return Err(ParseError::Malformed),
        };
        if body.addrs.len() > limits::TICKET_ADDRS_MAX {
            return Err(ParseError::Malformed);
        }
        Ok(Self {
            drive: body.drive,
            secret: body.secret,
            role: body.role,
            expires: body.expires,
            inviter: body.inviter,
            addrs: body.addrs.into_iter().map(|a| a.as_multiaddr().clone()).collect(),
        })
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("drive", &self.drive)
            .field("role", &self.role)
            .field("expires", &self.expires)
            .field("inviter", &self.inviter)
            .field("addrs", &self.addrs)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
