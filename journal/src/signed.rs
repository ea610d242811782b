//! Who vouches for an entry: signing keys, and the step from bytes to something believed.
//!
//! Leaves out: whether the author is a member ([`crate::member`]).
//!
//! Invariants:
//! - a [`VerifiedEntry`] exists only for bytes whose signature by the author they name was checked
//!   strictly (no small-order keys, no second encoding of a signature);
//! - [`EntryId`] is the BLAKE3 hash of exactly what is signed: domain tag, header, body;
//! - secret keys are wiped when dropped and never printed.

use std::fmt;
use std::sync::Arc;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use crate::codec::{self, DecodeError, EncodeError, SIGNATURE_LEN};
use crate::entry::Entry;
use crate::id::{DeviceId, DriveId, EntryId};

/// What every signed entry begins with, so that no other signature passes for one.
const ENTRY_TAG: &[u8] = b"atelier entry v1\0";
/// Context of the device key derivation.
const DEVICE_KEY_CONTEXT: &str = "atelier 2026-11 device key";

/// Why bytes are not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// They are no entry.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The device id is no key.
    #[error("device {device} is not a usable key")]
    Key {
        /// The device named as author.
        device: DeviceId,
    },
    /// The signature is not the author's.
    #[error("the signature of an entry of device {device} does not verify")]
    Signature {
        /// The device named as author.
        device: DeviceId,
    },
}

/// A device's signing key in one drive.
#[derive(Clone)]
pub struct Signer {
    key: Arc<SigningKey>,
}

impl Signer {
    /// The key of one stay in one drive: derived from the device's seed and the random nonce kept
    /// in the drive's store.
    pub fn derive(seed: &[u8; 32], join_nonce: &[u8; 32]) -> Self {
        let mut material = Zeroizing::new([0u8; 64]);
        let (head, tail) = material.split_at_mut(32);
        head.copy_from_slice(seed);
        tail.copy_from_slice(join_nonce);
        let secret = Zeroizing::new(blake3::derive_key(DEVICE_KEY_CONTEXT, material.as_slice()));
        Self { key: Arc::new(SigningKey::from_bytes(&secret)) }
    }

    /// The device this key is.
    pub fn device(&self) -> DeviceId {
        DeviceId::from_bytes(self.key.verifying_key().to_bytes())
    }

    /// The secret key, for the connection's identity, which is the same key.
    pub fn secret_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes())
    }

    /// The public key of an invite's secret key.
    pub fn invite_public(secret: &[u8; 32]) -> [u8; 32] {
        SigningKey::from_bytes(secret).verifying_key().to_bytes()
    }

    /// Signs `message` as it stands; the caller brings its own domain tag.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.key.sign(message).to_bytes()
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({:?})", self.device())
    }
}

/// Whether `signature` over `message` is by the Ed25519 key `key`.
pub fn verify(key: &[u8; 32], message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
    VerifyingKey::from_bytes(key)
        .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
}

fn signed_message(signed: &[u8]) -> Vec<u8> {
    [ENTRY_TAG, signed].concat()
}

/// An entry whose author is known to have written it.
#[derive(Clone, Debug)]
pub struct VerifiedEntry {
    // Invariant: `id` is the hash of `bytes`' signed part and `entry` what that part decodes to.
    id: EntryId,
    entry: Arc<Entry>,
    bytes: Arc<[u8]>,
}

impl VerifiedEntry {
    /// Checks `bytes` as received.
    pub fn verify(bytes: Arc<[u8]>) -> Result<Self, VerifyError> {
        let parts = codec::decode(&bytes)?;
        let device = parts.entry.device;
        let message = signed_message(parts.signed);
        if VerifyingKey::from_bytes(device.as_bytes()).is_err() {
            return Err(VerifyError::Key { device });
        }
        if !verify(device.as_bytes(), &message, parts.signature) {
            return Err(VerifyError::Signature { device });
        }
        let id = EntryId::from_bytes(*blake3::hash(&message).as_bytes());
        let entry = Arc::new(parts.entry);
        Ok(Self { id, entry, bytes })
    }

    /// Takes bytes that were verified before they were written to this device's log. Only for
    /// bytes a frame checksum has just vouched for; anything from elsewhere goes through `verify`.
    pub(crate) fn trust_unchecked(bytes: Arc<[u8]>) -> Result<Self, DecodeError> {
        let parts = codec::decode(&bytes)?;
        let id = EntryId::from_bytes(*blake3::hash(&signed_message(parts.signed)).as_bytes());
        let entry = Arc::new(parts.entry);
        Ok(Self { id, entry, bytes })
    }

    /// Signs `entry`, whose device must be the signer's.
    pub fn sign(entry: Entry, signer: &Signer) -> Result<Self, EncodeError> {
        debug_assert_eq!(entry.device, signer.device(), "a device signs only its own entries");
        let mut bytes = codec::encode_unsigned(&entry)?;
        let message = signed_message(&bytes);
        let id = EntryId::from_bytes(*blake3::hash(&message).as_bytes());
        bytes.extend_from_slice(&signer.sign(&message));
        Ok(Self { id, entry: Arc::new(entry), bytes: bytes.into() })
    }

    /// Its id.
    pub fn id(&self) -> EntryId {
        self.id
    }

    /// What it says.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Its bytes as they came.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }
}

/// The id of an entry from its bytes, signature unchecked: for asking whether an entry is known, never
/// for taking it in.
pub fn entry_id_unchecked(bytes: &[u8]) -> Option<EntryId> {
    let parts = codec::decode(bytes).ok()?;
    Some(EntryId::from_bytes(*blake3::hash(&signed_message(parts.signed)).as_bytes()))
}

/// The drive that genesis `bytes` define, when they are a genesis and its signature holds.
pub fn genesis_drive(bytes: &[u8]) -> Result<DriveId, VerifyError> {
    let verified = VerifiedEntry::verify(bytes.into())?;
    if !verified.entry().is_genesis() {
        return Err(DecodeError::Rule(crate::entry::EntryError::Genesis).into());
    }
    Ok(verified.id().into())
}
