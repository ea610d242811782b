//! The device's secret: one seed a data directory, from which the key of each drive is derived.
//!
//! Where it is kept is chosen once (`--key-store`) and remembered in `keystore.json`: the system's
//! keyring ([`keyring`]), a file sealed with a passphrase ([`sealed`]) or a plain file that only its
//! owner reads ([`plain`]). Leaves out the derivation (`journal::Signer`).
//!
//! Invariants:
//! - a seed is made only where no seed was made before and no drive exists; a seed that cannot be
//!   found again is an error, never a reason for a new one;
//! - what was stored is read back before it is used;
//! - a seed never appears in `Debug`, in a log or in a message, and memory of it is wiped.

pub mod keyring;
pub mod plain;
pub mod prompt;
pub mod sealed;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::paths::{DataDir, atomic};
use crate::report::Failure;
pub use keyring::{SystemVault, Vault};

/// Length of a seed, bytes.
pub const SEED_LEN: usize = 32;
/// Version of `keystore.json`.
const FORMAT: u64 = 1;
/// Its name.
const RECORD_NAME: &str = "keystore.json";
/// Context of the check value of a seed.
const CHECK_CONTEXT: &str = "atelier 2026-11 device seed check";
/// Length of the check value, bytes: enough to tell seeds apart.
const CHECK_LEN: usize = 8;

/// The secret of this data directory.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed(Zeroizing<[u8; SEED_LEN]>);

impl Seed {
    /// Takes the bytes of a seed.
    pub fn from_bytes(bytes: [u8; SEED_LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Takes a seed from memory that something else owns.
    fn from_slice(bytes: &[u8]) -> Option<Self> {
        <[u8; SEED_LEN]>::try_from(bytes).ok().map(Self::from_bytes)
    }

    fn random() -> Result<Self, Failure> {
        let mut bytes = Zeroizing::new([0_u8; SEED_LEN]);
        getrandom::fill(bytes.as_mut()).map_err(Failure::internal)?;
        Ok(Self(bytes))
    }

    /// The secret itself.
    pub fn as_bytes(&self) -> &[u8; SEED_LEN] {
        &self.0
    }

    /// A public value by which a seed is recognised.
    fn check(&self) -> String {
        let hash = Zeroizing::new(blake3::derive_key(CHECK_CONTEXT, self.as_bytes()));
        data_encoding::HEXLOWER.encode(hash.get(..CHECK_LEN).unwrap_or_default())
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// What the user asks for with `--key-store`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Choice {
    /// The system's keyring when one answers, else a file.
    #[default]
    Auto,
    /// The system's keyring.
    Keyring,
    /// A file sealed with a passphrase.
    Passphrase,
    /// A file only its owner reads.
    File,
}

/// Where the seed is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The system's keyring.
    Keyring,
    /// `seed.enc`.
    Passphrase,
    /// `seed`.
    File,
}

impl Choice {
    /// The one place that is asked for, if it is one.
    const fn place(self) -> Option<Place> {
        match self {
            Self::Auto => None,
            Self::Keyring => Some(Place::Keyring),
            Self::Passphrase => Some(Place::Passphrase),
            Self::File => Some(Place::File),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keyring => "the system's keyring",
            Self::Passphrase => "a file sealed with a passphrase",
            Self::File => "a plain file",
        })
    }
}

/// `keystore.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    format: u64,
    place: Place,
    /// Name of the keyring's item; two data directories do not share one.
    item: String,
    /// [`Seed::check`] of the seed.
    check: String,
}

/// An opened key store.
#[derive(Debug)]
pub struct Opened {
    /// The seed.
    pub seed: Seed,
    /// Where it is kept.
    pub place: Place,
    /// One line the user should read, when the choice was not theirs.
    pub notice: Option<String>,
}

/// The key store of one data directory.
pub struct KeyStore<'a> {
    root: PathBuf,
    vault: &'a dyn Vault,
    asker: &'a dyn prompt::Ask,
    cost: sealed::Cost,
}

impl<'a> KeyStore<'a> {
    /// The key store of `data`, with this keyring and this way of asking for a passphrase.
    pub fn new(data: &DataDir, vault: &'a dyn Vault, asker: &'a dyn prompt::Ask) -> Self {
        Self { root: data.root().to_owned(), vault, asker, cost: sealed::Cost::DEFAULT }
    }

    fn record_path(&self) -> PathBuf {
        self.root.join(RECORD_NAME)
    }

    fn plain_path(&self) -> PathBuf {
        self.root.join("seed")
    }

    fn sealed_path(&self) -> PathBuf {
        self.root.join("seed.enc")
    }

    fn record(&self) -> Result<Option<Record>, Failure> {
        atomic::load(&self.record_path(), FORMAT)
    }

    /// The seed, made now if none was made before. The caller holds the data directory's guard and
    /// has seen whether there are drives.
    pub fn existing_or_new(&self, choice: Choice, has_drives: Drives) -> Result<Opened, Failure> {
        match (self.record()?, has_drives) {
            (Some(record), _) => self.fetch(&record, choice),
            (None, drives) => match (self.adopt(choice)?, drives) {
                (Some(opened), _) => Ok(opened),
                (None, Drives::Some) => Err(Failure::key_missing(self.record_path().display())),
                (None, Drives::None) => self.make(choice),
            },
        }
    }

    fn fetch(&self, record: &Record, choice: Choice) -> Result<Opened, Failure> {
        if let Some(asked) = choice.place()
            && asked != record.place
        {
            return Err(Failure::key_store_other(record.place, asked));
        }
        let seed = match record.place {
            Place::Keyring => self.vault.get(&record.item).map_err(|e| e.into_failure())?,
            Place::File => plain::load(&self.plain_path())?,
            Place::Passphrase => match atomic::read(&self.sealed_path())? {
                Some(bytes) => {
                    let passphrase = self.asker.ask(prompt::Purpose::Open)?;
                    Some(sealed::open(&bytes, &passphrase, &self.sealed_path())?)
                }
                None => None,
            },
        };
        let seed = seed.ok_or_else(|| Failure::key_missing(record.place))?;
        if seed.check() != record.check {
            return Err(Failure::key_wrong(self.root.display()));
        }
        Ok(Opened { seed, place: record.place, notice: None })
    }

    fn make(&self, choice: Choice) -> Result<Opened, Failure> {
        let seed = Seed::random()?;
        let item = format!("device-{}", atomic::random_suffix().map_err(Failure::internal)?);
        let (place, notice) = match choice.place() {
            Some(place) => (place, None),
            None => match self.try_keyring(&item, &seed) {
                Ok(()) => return self.finish(seed, Place::Keyring, item, None),
                Err(why) => (Place::File, Some(self.file_notice(&why))),
            },
        };
        match place {
            Place::Keyring => self.try_keyring(&item, &seed).map_err(|e| e.into_failure())?,
            Place::File => plain::save(&self.plain_path(), &seed)?,
            Place::Passphrase => {
                let passphrase = self.asker.ask(prompt::Purpose::Choose)?;
                let bytes = sealed::seal(&seed, &passphrase, self.cost)?;
                atomic::write(&self.sealed_path(), &bytes)?;
            }
        }
        self.finish(seed, place, item, notice)
    }

    /// Takes up a seed file without a record (a crash between the two, or a record that was
    /// deleted): the seed counts, to make another would be to lose it.
    fn adopt(&self, choice: Choice) -> Result<Option<Opened>, Failure> {
        let (seed, place) = if let Some(seed) = plain::load(&self.plain_path())? {
            (seed, Place::File)
        } else if let Some(bytes) = atomic::read(&self.sealed_path())? {
            let passphrase = self.asker.ask(prompt::Purpose::Open)?;
            (sealed::open(&bytes, &passphrase, &self.sealed_path())?, Place::Passphrase)
        } else {
            return Ok(None);
        };
        match choice.place() {
            Some(asked) if asked != place => Err(Failure::key_store_other(place, asked)),
            _ => self.finish(seed, place, String::new(), None).map(Some),
        }
    }

    /// The line that says a plain file is used, and why.
    fn file_notice(&self, why: &keyring::VaultError) -> String {
        format!(
            "no keyring answers ({why}); the device key is in {}, readable by you only",
            self.plain_path().display()
        )
    }

    fn try_keyring(&self, item: &str, seed: &Seed) -> Result<(), keyring::VaultError> {
        self.vault.set(item, seed)?;
        match self.vault.get(item)? {
            Some(back) if back == *seed => Ok(()),
            _ => Err(keyring::VaultError::Forgetful),
        }
    }

    fn finish(
        &self,
        seed: Seed,
        place: Place,
        item: String,
        notice: Option<String>,
    ) -> Result<Opened, Failure> {
        let record = Record { format: FORMAT, place, item, check: seed.check() };
        atomic::save(&self.record_path(), &record)?;
        Ok(Opened { seed, place, notice })
    }
}

/// Whether the data directory holds drives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drives {
    /// It holds none.
    None,
    /// It holds at least one.
    Some,
}

/// Where the data directory `root` keeps its seed, for a look without opening it.
pub fn place_in(root: &Path) -> Result<Option<Place>, Failure> {
    let record: Option<Record> = atomic::load(&root.join(RECORD_NAME), FORMAT)?;
    Ok(record.map(|r| r.place))
}

#[cfg(test)]
mod tests;
