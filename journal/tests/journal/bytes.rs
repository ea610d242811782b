//! Entries as bytes: what is refused, and the bytes that every later version must still read.

use std::sync::Arc;

use cas::id::IdKey;
use journal::codec::{self, DecodeError};
use journal::entry::{ENTRY_LEN_MAX, Entry};
use journal::hlc::Hlc;
use journal::op::{Arrival, DirAttr, ExchangeSide, Named};
use journal::signed::{VerifiedEntry, VerifyError, genesis_drive};
use journal::{DirId, DriveId, EntryId, LockPolicy, Op, Role, VersionId};
use proptest::prelude::*;

use crate::forge::{Forge, file, gone, link, name, put, put_in, signer_of, v};

/// One entry with every operation there is.
fn every_op() -> VerifiedEntry {
    let entry = EntryId::from_bytes([3; 32]);
    let base = VersionId::new(entry, 1);
    let (dir, device) = (DirId::from_bytes([4; 32]), signer_of('B').device());
    let side = |at: &str, comes| ExchangeSide { dir, name: name(at), comes, bases: vec![base] };
    let ops = vec![
        put("a", "text", &[base]),
        put_in(dir, "l", link("target"), &[]),
        gone("g", &[base, base.second()]),
        crate::forge::moved("m", "n", &[]),
        Op::MkDir { parent: dir, name: name("d"), dir, attr: DirAttr::default(), bases: vec![] },
        Op::Move { dir, from: base, to: (DirId::ROOT, name("t")), bases: vec![] },
        Op::SetDir { dir, attr: DirAttr { mode: 0o700, ..DirAttr::default() } },
        Op::Exchange {
            a: side("x", Arrival::Value(file("y"))),
            b: side("y", Arrival::Dir { dir, from: base }),
        },
        Op::Resolve { dir, name: name("r"), drop: vec![base] },
        Op::Invite { key: [5; 32], role: Role::Reader, expires: 6, uses: 7 },
        Op::Admit { invite: [5; 32], device, name: "B".into(), proof: [8; 64] },
        Op::Remove { device, frontier: vec![entry] },
        Op::SetRole { device, role: Role::Owner, frontier: vec![] },
        Op::Rename { what: Named::Drive, name: "drive".into() },
        Op::Rename { what: Named::Device(device), name: "b".into() },
        Op::Snapshot { name: "s".into() },
    ];
    let signer = signer_of('A');
    let entry = Entry {
        drive: DriveId::from_bytes([1; 32]),
        device: signer.device(),
        seq: 2,
        prev: Some(entry),
        seen: vec![EntryId::from_bytes([9; 32])],
        late: vec![entry],
        hlc: Hlc::from_ms(1_700_000_000_000),
        saved_at_ms: 1_700_000_000_001,
        ops,
    };
    VerifiedEntry::sign(entry, &signer).unwrap()
}

/// Compares with the golden bytes; `GOLDEN=write` makes them when a format is born.
fn golden(file: &str, bytes: &[u8]) {
    let path = format!("{}/golden/v1/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("GOLDEN").is_some_and(|v| v == "write") {
        std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    assert!(std::fs::read(&path).unwrap() == bytes, "{file} is not what it was");
}

#[test]
fn the_bytes_of_an_entry_are_what_they_were() {
    let entry = every_op();
    golden("entry", entry.bytes());
    let read = std::fs::read(format!("{}/golden/v1/entry", env!("CARGO_MANIFEST_DIR")));
    let read = VerifiedEntry::verify(read.unwrap().into()).unwrap();
    assert_eq!((read.id(), read.entry()), (entry.id(), entry.entry()));
}

#[test]
fn the_bytes_of_a_policy_are_what_they_were() {
    let policy = journal::Policy { keep_all_s: 2_592_000, keep_daily_s: 31_536_000 };
    let entry = Entry { ops: vec![Op::Retain(policy)], ..every_op().entry().clone() };
    let entry = VerifiedEntry::sign(entry, &signer_of('A')).unwrap();
    golden("entry-retain", entry.bytes());
}

#[test]
fn the_bytes_of_checkouts_are_what_they_were() {
    let (dir, checkout) = (DirId::from_bytes([4; 32]), VersionId::new(every_op().id(), 1));
    let ops = vec![
        Op::Checkout { dir, name: name("a") },
        Op::GiveBack { dir, name: name("a"), checkout },
        Op::Break { dir, name: name("a"), checkout },
        Op::Locks(LockPolicy::Enforced),
        Op::Locks(LockPolicy::Advisory),
    ];
    let entry = Entry { ops, ..every_op().entry().clone() };
    let entry = VerifiedEntry::sign(entry, &signer_of('A')).unwrap();
    golden("entry-checkouts", entry.bytes());
}

#[test]
fn the_bytes_of_a_log_are_what_they_were() {
    let forge = Forge::new();
    let (_, storage) = crate::forge::journal_of(&forge.genesis);
    let files = storage.files.lock();
    assert_eq!(files.len(), 1);
    golden("log-segment", &files["00000001.seg"]);
}

#[test]
fn no_flipped_bit_passes() {
    let entry = every_op();
    for bit in 0..entry.bytes().len() * 8 {
        let mut bytes = entry.bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(VerifiedEntry::verify(bytes.into()).is_err(), "bit {bit}");
    }
}

#[test]
fn no_cut_or_lengthened_entry_passes() {
    let entry = every_op();
    for len in 0..entry.bytes().len() {
        assert!(VerifiedEntry::verify(entry.bytes()[..len].into()).is_err(), "{len} bytes");
    }
    let longer = [entry.bytes(), &[0u8][..]].concat();
    assert!(VerifiedEntry::verify(longer.into()).is_err());
    let huge: Arc<[u8]> = vec![0; ENTRY_LEN_MAX + 1].into();
    let error = VerifiedEntry::verify(huge).unwrap_err();
    assert_eq!(error, VerifyError::Decode(DecodeError::TooLong { len: ENTRY_LEN_MAX + 1 }));
}

#[test]
fn a_newer_format_is_refused_with_both_numbers() {
    let mut bytes = every_op().bytes().to_vec();
    bytes[4] = 9;
    let error = codec::decode(&bytes).unwrap_err();
    assert_eq!(error, DecodeError::TooNew { found: 9, supported: codec::FORMAT });
}

#[test]
fn entries_that_break_a_rule_are_neither_signed_nor_read() {
    let good = every_op().entry().clone();
    let broken: Vec<(&str, Entry)> = vec![
        ("seen out of order", {
            let seen = vec![EntryId::from_bytes([9; 32]), EntryId::from_bytes([1; 32])];
            Entry { seen, ..good.clone() }
        }),
        ("seen twice", {
            let seen = vec![EntryId::from_bytes([9; 32]); 2];
            Entry { seen, ..good.clone() }
        }),
        ("a number without a chain", Entry { prev: None, late: vec![], ..good.clone() }),
        ("a chain without a number", Entry { seq: 0, ..good.clone() }),
        ("no drive and no genesis", Entry { drive: DriveId::ZERO, ..good.clone() }),
        ("a genesis in the middle", {
            let id_key = IdKey::from_bytes([0; 32]);
            let (drive_name, device_name) = ("d".into(), "a".into());
            let genesis = Op::Genesis { drive_name, device_name, id_key, posix_owners: false };
            Entry { ops: vec![genesis], ..good.clone() }
        }),
        ("too many operations", {
            let ops = vec![Op::Snapshot { name: "s".into() }; journal::entry::OPS_MAX + 1];
            Entry { ops, ..good.clone() }
        }),
        ("too large", {
            let big = || put_in(DirId::ROOT, "l", link(&"x".repeat(4000)), &[]);
            Entry { ops: (0..80).map(|_| big()).collect(), ..good.clone() }
        }),
        ("an odd name", {
            Entry { ops: vec![Op::Snapshot { name: "a/b".into() }], ..good.clone() }
        }),
        ("an empty link", {
            Entry { ops: vec![put_in(DirId::ROOT, "l", link(""), &[])], ..good.clone() }
        }),
        ("a mode with the kind of file in it", {
            let value = crate::forge::file_with("x", 0o100755);
            Entry { ops: vec![put_in(DirId::ROOT, "f", value, &[])], ..good.clone() }
        }),
    ];
    for (what, entry) in broken {
        assert!(VerifiedEntry::sign(entry.clone(), &signer_of('A')).is_err(), "{what}");
        // The same as bytes of somebody who does not keep to the rules.
        let body = postcard::to_allocvec(&entry).unwrap();
        let len = (body.len() as u32).to_le_bytes();
        let unsigned = [b"ATJE".as_slice(), &1u16.to_le_bytes(), &len, &body].concat();
        let message = [b"atelier entry v1\0".as_slice(), &unsigned].concat();
        let bytes = [unsigned.as_slice(), &signer_of('A').sign(&message)].concat();
        assert!(VerifiedEntry::verify(bytes.into()).is_err(), "{what}");
    }
}

#[test]
fn a_signature_for_something_else_passes_for_no_entry() {
    let entry = every_op();
    let (unsigned, _) = entry.bytes().split_at(entry.bytes().len() - 64);
    let bytes = [unsigned, &signer_of('A').sign(unsigned)].concat();
    let error = VerifiedEntry::verify(bytes.into()).unwrap_err();
    assert!(matches!(error, VerifyError::Signature { .. }));
}

#[test]
fn a_genesis_names_its_drive() {
    let mut forge = Forge::new();
    assert_eq!(genesis_drive(forge.genesis.bytes()).unwrap(), forge.drive);
    let other = forge.e('A', 1, vec![put("x", "x", &[])], &[]);
    assert!(genesis_drive(other.bytes()).is_err());
    let _ = v(&other, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_are_refused_and_nothing_panics(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
        framed in any::<bool>(),
    ) {
        if framed && bytes.len() > 74 {
            let len = (bytes.len() - 74) as u32;
            bytes[..4].copy_from_slice(b"ATJE");
            bytes[4..6].copy_from_slice(&1u16.to_le_bytes());
            bytes[6..10].copy_from_slice(&len.to_le_bytes());
        }
        prop_assert!(VerifiedEntry::verify(bytes.into()).is_err());
    }

    #[test]
    fn damaged_bodies_never_panic(at in 0usize..1500, with in any::<u8>()) {
        let mut bytes = every_op().bytes().to_vec();
        let len = bytes.len();
        bytes[10 + at % (len - 74)] = with;
        let _ = codec::decode(&bytes);
    }
}
