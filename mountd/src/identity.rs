//! Who this device is in a drive, and the ticket that lets it in: where the secret of [`crate::keys`]
//! and the words of the user become types of `journal` and `net`.
//!
//! Leaves out storing the secret, and joining itself (the daemon's).
//!
//! Invariant: a device key is derived from the seed and a nonce, never from the seed alone.

use journal::Signer;
use net::invite::{ParseError, Ticket};

pub use net::Multiaddr;

use crate::keys::Seed;
use crate::paths::Description;
use crate::paths::store::NONCE_LEN;
use crate::report::Failure;

/// The key of this device in the drive it entered with `nonce`.
pub fn signer(seed: &Seed, nonce: &[u8; NONCE_LEN]) -> Signer {
    Signer::derive(seed.as_bytes(), nonce)
}

/// The key of this device in an existing drive, checked against what the drive knows.
pub fn existing_signer(seed: &Seed, drive: &Description) -> Result<Signer, Failure> {
    let signer = signer(seed, &drive.join_nonce()?);
    if signer.device().to_string() == drive.device.id {
        Ok(signer)
    } else {
        Err(Failure::key_wrong(format!("the drive \"{}\"", drive.drive.name)))
    }
}

/// Reads a ticket. Whether it has expired is for the members to say: this device's clock may be wrong.
pub fn ticket(text: &str) -> Result<Ticket, Failure> {
    text.trim().parse().map_err(|e: ParseError| match e {
        ParseError::TooNew { found, supported } => {
            Failure::too_new("the ticket", found.into(), supported.into())
        }
        other => Failure::ticket_malformed(other),
    })
}

/// A new nonce, for a new drive or a new stay in one.
pub fn join_nonce() -> Result<[u8; NONCE_LEN], Failure> {
    let mut nonce = [0_u8; NONCE_LEN];
    getrandom::fill(&mut nonce).map_err(Failure::internal)?;
    Ok(nonce)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use journal::id::DriveId;

    use super::*;
    use crate::keys::SEED_LEN;
    use crate::report::Code;

    fn seed(n: u8) -> Seed {
        Seed::from_bytes([n; SEED_LEN])
    }

    #[test]
    fn a_key_belongs_to_a_seed_and_a_stay() {
        let device = |s: u8, n: u8| signer(&seed(s), &[n; NONCE_LEN]).device();
        assert_eq!(device(1, 1), device(1, 1));
        assert_ne!(device(1, 1), device(1, 2), "two drives never share a key");
        assert_ne!(device(1, 1), device(2, 1));
    }

    #[test]
    fn another_seed_is_not_taken_for_the_device_of_a_drive() {
        let nonce = [3; NONCE_LEN];
        let ours = signer(&seed(1), &nonce).device();
        let drive = (DriveId::from_bytes([1; 32]), "film");
        let known = Description::new(drive, (ours, "anna"), &nonce, Path::new("/mnt/film"));
        assert!(existing_signer(&seed(1), &known).is_ok());
        let failure = existing_signer(&seed(2), &known).err().unwrap();
        assert_eq!(failure.code, Code::KeyWrong);
        assert!(failure.cause.contains("film"));
    }

    fn good() -> Ticket {
        Ticket {
            drive: DriveId::from_bytes([1; 32]),
            secret: [2; 32],
            role: journal::Role::Editor,
            expires: 1_000,
            inviter: signer(&seed(1), &[0; NONCE_LEN]).device(),
            addrs: vec!["/ip4/10.0.0.1/tcp/7447".parse().unwrap()],
        }
    }

    #[test]
    fn a_good_ticket_is_read_with_whatever_stands_around_it() {
        let text = format!("  {}\n", good());
        assert_eq!(ticket(&text).unwrap(), good());
    }

    #[test]
    fn each_bad_ticket_has_its_own_error() {
        let text = good().to_string();
        let code = |text: &str| ticket(text).unwrap_err().code;
        assert_eq!(code(""), Code::TicketMalformed);
        assert_eq!(code("hello"), Code::TicketMalformed);
        assert_eq!(code(&text[..text.len() - 1]), Code::TicketMalformed);
        assert_eq!(code(&format!("{text}a")), Code::TicketMalformed);
        assert_eq!(code(&text.replacen("atelier1", "atelier2", 1)), Code::TooNew);
        let at = text.len() / 2;
        for letter in ["a", "b", "!", "\u{e4}"] {
            let typo = format!("{}{letter}{}", &text[..at], &text[at + 1..]);
            assert!(typo == text || code(&typo) == Code::TicketMalformed, "{letter}");
        }
    }
}
