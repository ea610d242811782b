//! Golden bytes of every lock message, round trips, refusals.

use data_encoding::HEXLOWER;
use journal::id::EntryId;
use journal::name::EntryName;

use super::*;
use crate::testing::Rng;
use crate::wire::FRAME_HEAD_LEN;

fn register() -> Register {
    Register::new(DirId::from_bytes([2; 32]), EntryName::new("a").unwrap())
}

fn claim() -> Claim {
    Claim {
        id: 300,
        scope: Scope::Name(register()),
        above: vec![DirId::from_bytes([2; 32])],
        priority: 5,
        bases: vec![VersionId::new(EntryId::from_bytes([3; 32]), 0)],
        stage: Stage::Asked,
        age_ms: 0,
        unreachable: 1,
    }
}

/// Every message with its bytes after the length field. A change here is a new protocol version.
fn golden() -> Vec<(LockMessage, String)> {
    let (dir, entry, device) = ("02".repeat(32), "03".repeat(32), "04".repeat(32));
    let denial = Denial {
        id: 300,
        holder: DeviceId::from_bytes([4; 32]),
        priority: 4,
        stage: Stage::Held,
        age_ms: 1,
        unreachable: 2,
    };
    let below = Claim { scope: Scope::Below(DirId::from_bytes([2; 32])), bases: vec![], ..claim() };
    vec![
        (LockMessage::Hello(300), "01ac02".into()),
        (LockMessage::Ready, "02".into()),
        (
            LockMessage::Claims(vec![claim()]),
            format!("0301ac0200{dir}016101{dir}0501{entry}00000001"),
        ),
        (LockMessage::Claims(vec![below]), format!("0301ac0201{dir}01{dir}0500000001")),
        (LockMessage::Grants(vec![(300, true)]), "0401ac0201".into()),
        (LockMessage::Deny(denial), format!("05ac02{device}04010102")),
        (LockMessage::Unknown(vec![1]), "060101".into()),
        (LockMessage::Release(vec![1, 300]), "070201ac02".into()),
        (LockMessage::Renew(7, vec![(300, 1)]), "080701ac0201".into()),
        (LockMessage::Renewed(7), "0907".into()),
        (LockMessage::Present(vec![register()]), format!("0a01{dir}0161")),
        (LockMessage::Absent(vec![register()]), format!("0b01{dir}0161")),
    ]
}

fn body(frame: &[u8]) -> &[u8] {
    &frame[FRAME_HEAD_LEN..]
}

#[test]
fn bytes_are_those_of_the_page() {
    for (message, hex) in golden() {
        let frame = message.encode();
        assert_eq!(HEXLOWER.encode(body(&frame)), hex, "{message:?}");
        let len = u32::from_le_bytes(*frame.first_chunk().unwrap()) as usize;
        assert_eq!(len, frame.len() - FRAME_HEAD_LEN);
        assert_eq!(LockMessage::decode(body(&frame)), Ok(message));
    }
}

#[test]
fn counts_beyond_their_bounds_and_empty_lists_are_refused() {
    let long = Claim { above: vec![DirId::ROOT; limits::LOCK_ABOVE_MAX + 1], ..claim() };
    let based = Claim { bases: vec![claim().bases[0]; limits::LOCK_BASES_MAX + 1], ..claim() };
    for message in [
        LockMessage::Claims(vec![claim(); limits::LOCK_CLAIMS_MAX + 1]),
        LockMessage::Claims(vec![long]),
        LockMessage::Claims(vec![based]),
        LockMessage::Grants(vec![(1, false); limits::LOCK_CLAIMS_MAX + 1]),
        LockMessage::Unknown(vec![1; limits::LOCK_CLAIMS_MAX + 1]),
        LockMessage::Release(vec![1; limits::LOCKS_OF_PEER_MAX + 1]),
        LockMessage::Renew(1, vec![(1, 1); limits::LOCKS_OF_PEER_MAX + 1]),
        LockMessage::Present(vec![register(); limits::LOCK_NAMES_MAX + 1]),
        LockMessage::Absent(vec![register(); limits::LOCK_NAMES_MAX + 1]),
    ] {
        let refused = LockMessage::decode(body(&message.encode()));
        assert!(matches!(refused, Err(DecodeError::TooLong { .. })), "{refused:?}");
    }
    for message in [
        LockMessage::Claims(vec![]),
        LockMessage::Grants(vec![]),
        LockMessage::Unknown(vec![]),
        LockMessage::Release(vec![]),
        LockMessage::Present(vec![]),
    ] {
        assert_eq!(LockMessage::decode(body(&message.encode())), Err(DecodeError::Malformed));
    }
    assert_eq!(LockMessage::decode(&[0x0c]), Err(DecodeError::UnknownKind(12)));
    assert_eq!(LockMessage::decode(&[0x02, 0]), Err(DecodeError::Malformed));
    assert_eq!(LockMessage::decode(&[]), Err(DecodeError::Malformed));
}

#[test]
fn the_largest_of_each_fits_a_frame() {
    let name = EntryName::new(&"x".repeat(255)).unwrap();
    let register = Register::new(DirId::ROOT, name);
    let version = VersionId::new(EntryId::from_bytes([255; 32]), u32::MAX);
    let claim = Claim {
        id: u64::MAX,
        scope: Scope::Name(register.clone()),
        above: vec![DirId::ROOT; limits::LOCK_ABOVE_MAX],
        priority: u64::MAX,
        bases: vec![version; limits::LOCK_BASES_MAX],
        stage: Stage::Held,
        age_ms: u64::MAX,
        unreachable: u32::MAX,
    };
    for message in [
        LockMessage::Claims(vec![claim; limits::LOCK_CLAIMS_MAX]),
        LockMessage::Release(vec![u64::MAX; limits::LOCKS_OF_PEER_MAX]),
        LockMessage::Renew(u64::MAX, vec![(u64::MAX, u32::MAX); limits::LOCKS_OF_PEER_MAX]),
        LockMessage::Present(vec![register; limits::LOCK_NAMES_MAX]),
    ] {
        let frame = message.encode();
        assert!(body(&frame).len() <= limits::LOCK_FRAME_LEN_MAX, "{}", frame.len());
        assert_eq!(LockMessage::decode(body(&frame)), Ok(message));
    }
}

#[test]
fn damaged_messages_never_panic_and_what_decodes_encodes_again() {
    let mut rng = Rng::new(11);
    let seeds: Vec<Vec<u8>> =
        golden().iter().map(|(message, _)| body(&message.encode()).to_vec()).collect();
    for _ in 0..20_000 {
        let mut bytes = seeds[rng.below(seeds.len())].clone();
        for _ in 0..=rng.below(4) {
            let at = rng.below(bytes.len());
            bytes[at] = rng.next() as u8;
        }
        if let Ok(message) = LockMessage::decode(&bytes) {
            assert_eq!(LockMessage::decode(body(&message.encode())), Ok(message));
        }
    }
}
