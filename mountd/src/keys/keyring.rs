//! The system's keyring as a place for the seed.
//!
//! Leaves out the choice of the place ([`super`]).
//!
//! Invariants:
//! - "it has no such item" and "it does not answer" are never mixed up: only the first may, in an
//!   empty data directory, lead to a new seed;
//! - a keyring that waits for a person at a prompt is given up after [`ANSWER_MAX`].

use std::fmt;
use std::sync::mpsc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::Seed;
use crate::report::Failure;

/// How long the keyring may take. A prompt to unlock it may be on the screen meanwhile.
pub const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Under which name the keyring shows our items.
const SERVICE: &str = "atelier";
/// An item that is never set, to see whether the keyring answers.
const PROBE: &str = "probe";

/// Why the keyring is of no use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VaultError {
    /// There is none, or it is locked and nobody unlocks it.
    Unavailable(String),
    /// It did not answer in time.
    Silent,
    /// It does not give back what it was given.
    Forgetful,
    /// It holds something else under our name.
    Garbage,
}

impl fmt::Display for VaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(why) => f.write_str(why),
            Self::Silent => write!(f, "no answer in {} s", ANSWER_MAX.as_secs()),
            Self::Forgetful => f.write_str("it does not keep what it is given"),
            Self::Garbage => f.write_str("its item is not a device key"),
        }
    }
}

impl VaultError {
    pub(super) fn into_failure(self) -> Failure {
        Failure::key_store_unavailable(self)
    }
}

/// A place that keeps secrets by name.
pub trait Vault {
    /// The secret of this name; `None` when the vault answers and has none.
    fn get(&self, item: &str) -> Result<Option<Seed>, VaultError>;
    /// Keeps a secret.
    fn set(&self, item: &str, seed: &Seed) -> Result<(), VaultError>;
}

/// The keyring of the desktop or of the system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemVault;

impl SystemVault {
    /// Whether it answers at all.
    pub fn probe(self) -> Result<(), VaultError> {
        self.get(PROBE).map(|_| ())
    }
}

impl Vault for SystemVault {
    fn get(&self, item: &str) -> Result<Option<Seed>, VaultError> {
        let item = item.to_owned();
        in_time(move || {
            let entry = keyring::Entry::new(SERVICE, &item).map_err(|e| unavailable(&e))?;
            match entry.get_password() {
                Ok(text) => decode(&Zeroizing::new(text)).map(Some),
                Err(keyring::Error::NoEntry) => Ok(None),
                Err(e) => Err(unavailable(&e)),
            }
        })
    }

    fn set(&self, item: &str, seed: &Seed) -> Result<(), VaultError> {
        let item = item.to_owned();
        // Hex, because some keyrings keep text only.
        let text = Zeroizing::new(data_encoding::HEXLOWER.encode(seed.as_bytes()));
        in_time(move || {
            let entry = keyring::Entry::new(SERVICE, &item).map_err(|e| unavailable(&e))?;
            entry.set_password(&text).map_err(|e| unavailable(&e))
        })
    }
}

fn decode(text: &str) -> Result<Seed, VaultError> {
    let bytes = data_encoding::HEXLOWER.decode(text.trim().as_bytes()).ok().map(Zeroizing::new);
    bytes.and_then(|b| Seed::from_slice(&b)).ok_or(VaultError::Garbage)
}

fn unavailable(error: &keyring::Error) -> VaultError {
    VaultError::Unavailable(match error {
        keyring::Error::NoDefaultStore => "none is running".to_owned(),
        keyring::Error::NoStorageAccess(_) => "it is locked or has no storage".to_owned(),
        other => crate::report::chain(other),
    })
}

/// Asks on a thread of its own: the call may wait for a person for ever, we do not. The thread is
/// left behind then; it holds nothing but its own question.
fn in_time<T: Send + 'static>(
    ask: impl FnOnce() -> Result<T, VaultError> + Send + 'static,
) -> Result<T, VaultError> {
    let (tell, hear) = mpsc::sync_channel(1);
    let spawned = std::thread::Builder::new().name("keyring".into()).spawn(move || {
        let _ = tell.send(ask());
    });
    spawned.map_err(|e| VaultError::Unavailable(e.to_string()))?;
    hear.recv_timeout(ANSWER_MAX).unwrap_or(Err(VaultError::Silent))
}
