//! Tickets: round trip, golden text, everything a person or a clipboard can do to one.

use super::*;
use crate::testing::Rng;

fn ticket() -> Ticket {
    Ticket {
        drive: DriveId::from_bytes([1; 32]),
        secret: [2; 32],
        role: Role::Editor,
        expires: 1_800_000_000_000,
        inviter: DeviceId::from_bytes([3; 32]),
        addrs: vec!["/ip4/10.0.0.7/tcp/4001".parse().unwrap()],
    }
}

#[test]
fn a_ticket_is_one_word_and_reads_back() {
    let text = ticket().to_string();
    assert_eq!(text, GOLDEN);
    assert!(text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()));
    assert_eq!(text.parse(), Ok(ticket()));
    assert_eq!(format!("  {text}\n").parse(), Ok(ticket()));
}

const GOLDEN: &str = include_str!("golden_ticket.txt");

#[test]
fn any_changed_letter_is_noticed() {
    let text = ticket().to_string();
    for at in 0..text.len() {
        let mut changed = text.clone().into_bytes();
        changed[at] = if changed[at] == b'a' { b'b' } else { b'a' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(changed.parse::<Ticket>().is_err(), "position {at}");
    }
}

#[test]
fn every_cut_is_noticed() {
    let text = ticket().to_string();
    for len in 0..text.len() {
        assert!(text[..len].parse::<Ticket>().is_err(), "length {len}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    assert_eq!("hello".parse::<Ticket>(), Err(ParseError::NotATicket));
    assert_eq!("".parse::<Ticket>(), Err(ParseError::NotATicket));
    assert_eq!("atelier".parse::<Ticket>(), Err(ParseError::NotATicket));
    let newer = ticket().to_string().replacen('1', "3", 1);
    assert_eq!(newer.parse::<Ticket>(), Err(ParseError::TooNew { found: 3, supported: 1 }));
    let spoiled = format!("{}!{}", &GOLDEN[..20], &GOLDEN[21..]);
    assert_eq!(spoiled.parse::<Ticket>(), Err(ParseError::Character { at: 21 }));
    let long = format!("atelier1{}", "a".repeat(limits::TICKET_LEN_MAX));
    assert_eq!(long.parse::<Ticket>(), Err(ParseError::Malformed));
    assert_eq!("atelier1ä".parse::<Ticket>(), Err(ParseError::Character { at: 9 }));
}

#[test]
fn a_checksum_over_nonsense_is_still_nonsense() {
    let mut rng = Rng::new(3);
    for _ in 0..2000 {
        let len = rng.below(120);
        let mut bytes = rng.bytes(len);
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        let text = format!("atelier1{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase());
        assert_eq!(text.parse::<Ticket>(), Err(ParseError::Malformed));
    }
}

#[test]
fn the_secret_is_not_shown_by_debug() {
    let debug = format!("{:?}", ticket());
    assert!(!debug.contains("secret") && !debug.contains("2, 2, 2"), "{debug}");
}

#[test]
fn an_answer_holds_for_its_drive_nonce_and_both_ends_only() {
    let t = ticket();
    let (host, joiner) = (DeviceId::from_bytes([7; 32]), DeviceId::from_bytes([8; 32]));
    let nonce = [9; 32];
    let answer = t.answer(&nonce, &host, &joiner);
    let good = challenge_bytes(&t.drive, &nonce, &host, &joiner);
    assert!(verify_answer(&t.invite_key(), &good, &answer));
    let other = DeviceId::from_bytes([10; 32]);
    for bad in [
        challenge_bytes(&DriveId::from_bytes([9; 32]), &nonce, &host, &joiner),
        challenge_bytes(&t.drive, &[0; 32], &host, &joiner),
        challenge_bytes(&t.drive, &nonce, &other, &joiner),
        challenge_bytes(&t.drive, &nonce, &host, &other),
        challenge_bytes(&t.drive, &nonce, &joiner, &host),
    ] {
        assert!(!verify_answer(&t.invite_key(), &bad, &answer));
    }
    assert!(!verify_answer(&[0; 32], &good, &answer));
    assert!(!verify_answer(&t.invite_key(), &good, &[0; 64]));
    // The journal's proof is no answer and an answer no proof.
    let proof = t.admit_proof(&joiner);
    assert!(!verify_answer(&t.invite_key(), &good, &proof));
    assert!(journal::member::verify_admit(&t.invite_key(), &t.drive, &joiner, &proof));
    assert!(!journal::member::verify_admit(&t.invite_key(), &t.drive, &joiner, &answer));
}
