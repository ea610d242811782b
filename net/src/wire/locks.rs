//! The messages of `/atelier/lock/1`.
//!
//! Leaves out: when something is said and what follows from it ([`crate::locks`]).
//!
//! Invariants: those of [`super`].

use journal::id::{DeviceId, DirId, VersionId};
use journal::name::Register;
use serde::{Deserialize, Serialize};

use super::{DecodeError, bounded, exact, frame};
use crate::limits;
use crate::locks::Scope;

/// Whether a claim is still to be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// The sender wants it.
    Asked,
    /// The sender holds it, with or without the receiver's grant.
    Held,
}

/// One claim.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// The sender's number for it; never given twice in a run.
    pub id: u64,
    /// For what.
    pub scope: Scope,
    /// The directories from its own up to the root.
    pub above: Vec<DirId>,
    /// The lower is the better; with the sender's device as the second part.
    pub priority: u64,
    /// What the writer has in front of it.
    pub bases: Vec<VersionId>,
    /// How far it is.
    pub stage: Stage,
    /// How long ago it was taken, milliseconds, for display.
    pub age_ms: u64,
    /// Members that have not granted it.
    pub unreachable: u32,
}

/// Why a claim is not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Denial {
    /// The receiver's number of the claim.
    pub id: u64,
    /// Whose claim stands against it; the sender's own, if it holds or wants the same itself.
    pub holder: DeviceId,
    /// The priority of that claim.
    pub priority: u64,
    /// How far it is, as the sender knows.
    pub stage: Stage,
    /// How long ago it was taken.
    pub age_ms: u64,
    /// Members that have not granted it.
    pub unreachable: u32,
}

/// What is said of locks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LockMessage {
    /// First, once: which run of the sender this is.
    Hello(u64),
    /// All that the sender holds and announces has been told.
    Ready,
    /// The sender wants or holds these.
    Claims(Vec<Claim>),
    /// Granted, and whether the sender has a version that replaces what the claim names.
    Grants(Vec<(u64, bool)>),
    /// Not granted.
    Deny(Denial),
    /// The sender has not run long enough to say.
    Unknown(Vec<u64>),
    /// The sender does not want these any more.
    Release(Vec<u64>),
    /// The sender still holds what it holds; those that some members have not granted, with how many.
    Renew(u64, Vec<(u64, u32)>),
    /// Answers [`LockMessage::Renew`].
    Renewed(u64),
    /// Somebody has these open at the sender's.
    Present(Vec<Register>),
    /// Not any more.
    Absent(Vec<Register>),
}

const KIND_HELLO: u8 = 1;
const KIND_READY: u8 = 2;
const KIND_CLAIMS: u8 = 3;
const KIND_GRANTS: u8 = 4;
const KIND_DENY: u8 = 5;
const KIND_UNKNOWN: u8 = 6;
const KIND_RELEASE: u8 = 7;
const KIND_RENEW: u8 = 8;
const KIND_RENEWED: u8 = 9;
const KIND_PRESENT: u8 = 10;
const KIND_ABSENT: u8 = 11;

impl LockMessage {
    /// The frame, length field included.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello(incarnation) => frame(KIND_HELLO, incarnation),
            Self::Ready => frame(KIND_READY, &()),
            Self::Claims(claims) => frame(KIND_CLAIMS, claims),
            Self::Grants(grants) => frame(KIND_GRANTS, grants),
            Self::Deny(denial) => frame(KIND_DENY, denial),
            Self::Unknown(ids) => frame(KIND_UNKNOWN, ids),
            Self::Release(ids) => frame(KIND_RELEASE, ids),
            Self::Renew(number, doubts) => frame(KIND_RENEW, &(number, doubts)),
            Self::Renewed(number) => frame(KIND_RENEWED, number),
            Self::Present(registers) => frame(KIND_PRESENT, registers),
            Self::Absent(registers) => frame(KIND_ABSENT, registers),
        }
    }

    /// Reads what stands in one frame after its length field.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let (kind, rest) = body.split_first().ok_or(DecodeError::Malformed)?;
        match *kind {
            KIND_HELLO => exact(rest).map(Self::Hello),
            KIND_READY => exact(rest).map(|()| Self::Ready),
            KIND_CLAIMS => {
                let claims: Vec<Claim> = exact(rest)?;
                some("claims", claims.len(), limits::LOCK_CLAIMS_MAX)?;
                for claim in &claims {
                    bounded("directories", claim.above.len(), limits::LOCK_ABOVE_MAX)?;
                    bounded("bases", claim.bases.len(), limits::LOCK_BASES_MAX)?;
                }
                Ok(Self::Claims(claims))
            }
            KIND_GRANTS => {
                let grants: Vec<(u64, bool)> = exact(rest)?;
                some("grants", grants.len(), limits::LOCK_CLAIMS_MAX)?;
                Ok(Self::Grants(grants))
            }
            KIND_DENY => exact(rest).map(Self::Deny),
            KIND_UNKNOWN => ids(rest, limits::LOCK_CLAIMS_MAX).map(Self::Unknown),
            KIND_RELEASE => ids(rest, limits::LOCKS_OF_PEER_MAX).map(Self::Release),
            KIND_RENEW => {
                let (number, doubts): (u64, Vec<(u64, u32)>) = exact(rest)?;
                bounded("doubts", doubts.len(), limits::LOCKS_OF_PEER_MAX)?;
                Ok(Self::Renew(number, doubts))
            }
            KIND_RENEWED => exact(rest).map(Self::Renewed),
            KIND_PRESENT => registers(rest).map(Self::Present),
            KIND_ABSENT => registers(rest).map(Self::Absent),
            other => Err(DecodeError::UnknownKind(other)),
        }
    }
}

fn ids(body: &[u8], bound: usize) -> Result<Vec<u64>, DecodeError> {
    let ids: Vec<u64> = exact(body)?;
    some("claims", ids.len(), bound)?;
    Ok(ids)
}

fn registers(body: &[u8]) -> Result<Vec<Register>, DecodeError> {
    let registers: Vec<Register> = exact(body)?;
    some("names", registers.len(), limits::LOCK_NAMES_MAX)?;
    Ok(registers)
}

/// An empty list says nothing and is not sent.
fn some(what: &'static str, found: usize, bound: usize) -> Result<(), DecodeError> {
    if found == 0 { Err(DecodeError::Malformed) } else { bounded(what, found, bound) }
}

#[cfg(test)]
mod tests;
