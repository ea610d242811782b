//! The seed in a file sealed with a passphrase.
//!
//! ```text
//! magic "ATELSEED" | format u32 | memory KiB u32 | passes u32 | lanes u32   little-endian
//! salt 16 | nonce 24                                                        random
//! XChaCha20-Poly1305(key = Argon2id(passphrase, salt), nonce, seed), the 64 bytes above as its
//! associated data: 48 bytes
//! ```
//!
//! Leaves out where the passphrase comes from ([`super::prompt`]).
//!
//! Invariants: the work a file asks for is bounded before it is done; a wrong passphrase and a
//! changed file cannot be told apart, and neither gives a seed.

use std::path::Path;

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::{SEED_LEN, Seed};
use crate::report::Failure;

const MAGIC: &[u8; 8] = b"ATELSEED";
const FORMAT: u32 = 1;
const SALT_LEN: usize = 16;
const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;
const HEAD_LEN: usize = 8 + 4 * 4 + SALT_LEN + NONCE_LEN;
/// Length of the whole file, bytes.
pub const FILE_LEN: usize = HEAD_LEN + SEED_LEN + TAG_LEN;

/// Most memory a file may ask for, KiB.
const MEMORY_KIB_MAX: u32 = 1 << 20;
/// Most passes a file may ask for.
const PASSES_MAX: u32 = 32;
/// Most lanes a file may ask for.
const LANES_MAX: u32 = 16;

/// How dear a guess at the passphrase is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    /// Memory, KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Cost {
    /// A quarter of a second on a common machine.
    pub const DEFAULT: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 1 };

    const fn is_bearable(self) -> bool {
        self.memory_kib <= MEMORY_KIB_MAX && self.passes <= PASSES_MAX && self.lanes <= LANES_MAX
    }
}

/// Seals the seed; every call gives other bytes.
pub fn seal(seed: &Seed, passphrase: &str, cost: Cost) -> Result<Vec<u8>, Failure> {
    let mut salt = [0_u8; SALT_LEN];
    let mut nonce = [0_u8; NONCE_LEN];
    getrandom::fill(&mut salt)
        .and_then(|()| getrandom::fill(&mut nonce))
        .map_err(Failure::internal)?;
    seal_with(seed, passphrase, cost, &salt, &nonce)
}

fn seal_with(
    seed: &Seed,
    passphrase: &str,
    cost: Cost,
    salt: &[u8; SALT_LEN],
    nonce: &[u8; NONCE_LEN],
) -> Result<Vec<u8>, Failure> {
    let mut file = Vec::with_capacity(FILE_LEN);
    file.extend_from_slice(MAGIC);
    for number in [FORMAT, cost.memory_kib, cost.passes, cost.lanes] {
        file.extend_from_slice(&number.to_le_bytes());
    }
    file.extend_from_slice(salt);
    file.extend_from_slice(nonce);
    let payload = Payload { msg: seed.as_bytes(), aad: &file };
    let sealed = cipher(passphrase, cost, salt)?
        .encrypt(&XNonce::from(*nonce), payload)
        .map_err(|_| Failure::internal("the device key could not be sealed"))?;
    file.extend_from_slice(&sealed);
    Ok(file)
}

/// Opens what [`seal`] made; `path` is named in errors.
pub fn open(file: &[u8], passphrase: &str, path: &Path) -> Result<Seed, Failure> {
    let damaged = || Failure::corrupt(path, "it is not a sealed device key");
    let (head, sealed) = file.split_first_chunk::<HEAD_LEN>().ok_or_else(damaged)?;
    let rest = head.strip_prefix(MAGIC).ok_or_else(damaged)?;
    let (format, rest) = take_u32(rest).ok_or_else(damaged)?;
    if format > FORMAT {
        return Err(Failure::too_new(path.display(), format.into(), FORMAT.into()));
    }
    let (memory_kib, rest) = take_u32(rest).ok_or_else(damaged)?;
    let (passes, rest) = take_u32(rest).ok_or_else(damaged)?;
    let (lanes, rest) = take_u32(rest).ok_or_else(damaged)?;
    let (salt, rest) = rest.split_first_chunk::<SALT_LEN>().ok_or_else(damaged)?;
    let nonce = <[u8; NONCE_LEN]>::try_from(rest).map_err(|_| damaged())?;
    let cost = Cost { memory_kib, passes, lanes };
    if format != FORMAT || sealed.len() != SEED_LEN + TAG_LEN || !cost.is_bearable() {
        return Err(damaged());
    }
    let payload = Payload { msg: sealed, aad: head };
    let opened = cipher(passphrase, cost, salt)
        .map_err(|_| damaged())?
        .decrypt(&XNonce::from(nonce), payload)
        .map(Zeroizing::new)
        .map_err(|_| Failure::passphrase_wrong())?;
    Seed::from_slice(&opened).ok_or_else(damaged)
}

fn cipher(
    passphrase: &str,
    cost: Cost,
    salt: &[u8; SALT_LEN],
) -> Result<XChaCha20Poly1305, Failure> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(SEED_LEN))
        .map_err(Failure::internal)?;
    let mut key = Zeroizing::new([0_u8; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, key.as_mut())
        .map_err(Failure::internal)?;
    Ok(XChaCha20Poly1305::new(&Key::from(*key)))
}

fn take_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Code;

    const CHEAP: Cost = Cost { memory_kib: 16, passes: 1, lanes: 1 };

    fn seed() -> Seed {
        Seed::from_bytes(std::array::from_fn(|i| i as u8))
    }

    fn path() -> &'static Path {
        Path::new("seed.enc")
    }

    #[test]
    fn the_passphrase_opens_what_it_sealed_and_no_other_does() {
        let file = seal(&seed(), "correct horse", CHEAP).unwrap();
        assert_eq!(open(&file, "correct horse", path()).unwrap(), seed());
        assert_eq!(open(&file, "correct hors", path()).unwrap_err().code, Code::PassphraseWrong);
        assert_eq!(open(&file, "", path()).unwrap_err().code, Code::PassphraseWrong);
        assert_ne!(file, seal(&seed(), "correct horse", CHEAP).unwrap(), "salt and nonce are new");
    }

    #[test]
    fn every_changed_or_missing_byte_is_noticed() {
        let file = seal(&seed(), "p", CHEAP).unwrap();
        assert_eq!(file.len(), FILE_LEN);
        for at in 0..file.len() {
            let mut bad = file.clone();
            // The lowest bit: a cost changed by it stays small enough to try.
            bad[at] ^= 1;
            assert!(open(&bad, "p", path()).is_err(), "byte {at}");
            assert!(open(&file[..at], "p", path()).is_err(), "cut at {at}");
        }
        let longer = [file.as_slice(), b"x"].concat();
        assert!(open(&longer, "p", path()).is_err());
    }

    #[test]
    fn a_file_that_asks_for_unbearable_work_is_refused_at_once() {
        let mut file = seal(&seed(), "p", CHEAP).unwrap();
        file[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(open(&file, "p", path()).unwrap_err().code, Code::Corrupt);
    }

    #[test]
    fn a_newer_format_is_refused_with_both_numbers() {
        let mut file = seal(&seed(), "p", CHEAP).unwrap();
        file[8..12].copy_from_slice(&9_u32.to_le_bytes());
        let failure = open(&file, "p", path()).unwrap_err();
        assert_eq!(failure.code, Code::TooNew);
        assert!(failure.cause.contains("format 9"));
    }

    /// The bytes of version 1, for ever.
    #[test]
    fn golden_bytes_of_version_1() {
        let file = seal_with(&seed(), "passphrase", CHEAP, &[7; 16], &[9; 24]).unwrap();
        let hex = data_encoding::HEXLOWER.encode(&file);
        assert_eq!(hex, GOLDEN);
        assert_eq!(open(&file, "passphrase", path()).unwrap(), seed());
    }

    /// Magic; numbers; salt; nonce; sealed seed.
    const GOLDEN: &str = "4154454c53454544\
        01000000100000000100000001000000\
        07070707070707070707070707070707\
        090909090909090909090909090909090909090909090909\
        8bf96882d3051362b661c8a7a0e93078a037094cfa767bb5f0d87a3a2f2185c068a37423d94c8005a476c414602ed562";
}
