//! What an operation on a checkout costs after very many.

use std::cell::Cell;

use cas::id::IdKey;

use crate::entry::Entry;
use crate::error::StateError;
use crate::fold::Fold;
use crate::hlc::Hlc;
use crate::id::{DirId, DriveId, EntryId, VersionId};
use crate::journal::{GenesisSpec, Journal, Now};
use crate::kv::mem::{MemKv, MemTxn};
use crate::kv::{Kv, KvRead, Visit};
use crate::name::{EntryName, Register};
use crate::op::Op;
use crate::records::{LogPos, RegKey};
use crate::signed::{Signer, VerifiedEntry};

/// Counts what is read and written.
struct Counting {
    below: MemTxn,
    touched: Cell<usize>,
}

impl KvRead for Counting {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.touched.set(self.touched.get() + 1);
        self.below.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StateError> {
        self.below.scan(from, to, &mut |key, value| {
            self.touched.set(self.touched.get() + 1);
            visit(key, value)
        })
    }
}

impl Kv for Counting {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        self.touched.set(self.touched.get() + 1);
        self.below.put(key, value)
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StateError> {
        self.touched.set(self.touched.get() + 1);
        self.below.delete(key)
    }
}

struct Writer {
    signer: Signer,
    drive: DriveId,
    prev: EntryId,
    seq: u64,
}

impl Writer {
    fn entry(&mut self, hlc_ms: u64, op: Op) -> VerifiedEntry {
        self.seq += 1;
        let entry = Entry {
            drive: self.drive,
            device: self.signer.device(),
            seq: self.seq,
            prev: Some(self.prev),
            seen: Vec::new(),
            late: Vec::new(),
            hlc: Hlc::from_ms(hlc_ms),
            saved_at_ms: 1,
            ops: vec![op],
        };
        let entry = VerifiedEntry::sign(entry, &self.signer).unwrap();
        self.prev = entry.id();
        entry
    }
}

#[test]
fn a_checkout_costs_the_same_after_thousands_and_a_late_one_what_follows_it() {
    let signer = Signer::derive(&[1; 32], &[1; 32]);
    let spec = GenesisSpec {
        drive_name: "drive".into(),
        device_name: "A".into(),
        id_key: IdKey::from_bytes([1; 32]),
        posix_owners: false,
    };
    let genesis = Journal::genesis(&signer, spec, Now { wall_ms: 1 }).unwrap();
    let mut kv = Counting { below: MemKv::default().write(), touched: Cell::new(0) };
    let (at, name) = (LogPos::default(), EntryName::new("x").unwrap());
    let begun = Fold::begin(&mut kv, &genesis, at).unwrap().unwrap();
    begun.finish().unwrap();
    let mut writer =
        Writer { signer, drive: DriveId::from(genesis.id()), prev: genesis.id(), seq: 0 };
    let reg = RegKey::of(&Register::new(DirId::ROOT, name.clone()));
    let dir = DirId::ROOT;
    let mut costs = Vec::new();
    for turn in 0..3_000 {
        let taken = writer.entry(10 + turn, Op::Checkout { dir, name: name.clone() });
        let checkout = VersionId::new(taken.id(), 0);
        let given = writer.entry(10 + turn, Op::GiveBack { dir, name: name.clone(), checkout });
        let before = kv.touched.get();
        let mut fold = Fold::resume(&mut kv).unwrap().unwrap();
        fold.apply(&taken, at).unwrap();
        fold.apply(&given, at).unwrap();
        fold.finish().unwrap();
        costs.push(kv.touched.get() - before);
    }
    assert!(costs[2_999] <= costs[10] + 2, "{} and then {}", costs[10], costs[2_999]);
    // From the last ten on.
    let rows = |fold: &Fold<'_>| fold.lock_rows(&reg, &[]).unwrap();
    let mut fold = Fold::resume(&mut kv).unwrap().unwrap();
    let all = rows(&fold);
    fold.replay_locks_from(reg.clone(), all[all.len() - 10].0.clone());
    fold.settle_locks().unwrap();
    assert_eq!(rows(&fold), all);
    drop(fold);
    let before = kv.touched.get();
    let mut fold = Fold::resume(&mut kv).unwrap().unwrap();
    fold.replay_locks_from(reg.clone(), all[all.len() - 10].0.clone());
    fold.settle_locks().unwrap();
    assert!(kv.touched.get() - before < 100, "{}", kv.touched.get() - before);
}
