//! Crashes, damage, full stops: what was promised is there, what is damaged is known and comes back.

use std::sync::Arc;

use journal::kv::mem::MemKv;
use journal::log::storage::Storage;
use journal::signed::VerifiedEntry;
use journal::state::State;
use journal::{AppendError, Frontier, Journal, OpenError, Opened, Signer};

use crate::forge::{
    Forge, MemStorage, admit, feed, invite_key, journal_of, now, put, signer_of, spec,
};
use crate::oracle::walk;

fn reopen(storage: &MemStorage) -> Result<Journal, OpenError> {
    let state = State::Memory(MemKv::default());
    Journal::open_with(Arc::new(storage.clone()), state, None)
}

/// A drive with a few entries of its own.
fn written(count: u64) -> (Journal, MemStorage, Signer, Vec<VerifiedEntry>) {
    let signer = signer_of('A');
    let genesis = Journal::genesis(&signer, spec(), now(0)).unwrap();
    let (journal, storage) = journal_of(&genesis);
    let mut entries = vec![genesis];
    for n in 0..count {
        let done = journal.author(&signer, vec![put(&n.to_string(), "x", &[])], now(n)).unwrap();
        entries.push(VerifiedEntry::verify(done.bytes).unwrap());
    }
    (journal, storage, signer, entries)
}

#[test]
fn a_log_cut_at_any_byte_opens_with_the_entries_before_the_cut() {
    let (_, storage, signer, entries) = written(3);
    let whole = storage.files.lock()["00000001.seg"].clone();
    let mut ends = vec![48usize];
    for entry in &entries {
        ends.push(ends.last().unwrap() + 12 + entry.bytes().len());
    }
    assert_eq!(*ends.last().unwrap(), whole.len());
    for len in ends[1]..=whole.len() {
        let cut = MemStorage::default();
        cut.files.lock().insert("00000001.seg".into(), whole[..len].to_vec());
        let journal = reopen(&cut).unwrap();
        let expected = ends.iter().filter(|end| **end <= len).count() - 1;
        assert_eq!(journal.counts().entries, expected as u64, "cut at {len}");
        // It goes on from there, and once more.
        journal.author(&signer, vec![put("after", "y", &[])], now(100)).unwrap();
        let again = reopen(&cut).unwrap();
        assert_eq!(again.counts().entries, expected as u64 + 1, "cut at {len}");
        assert_eq!(again.tree_hash(), journal.tree_hash());
    }
}

#[test]
fn a_tail_of_rubbish_is_cut() {
    let (journal, storage, _, _) = written(3);
    for rubbish in [vec![0u8; 5000], b"ATJF".repeat(100), vec![0xff; 3]] {
        let torn = storage.copy();
        torn.append("00000001.seg", &rubbish).unwrap();
        let again = reopen(&torn).unwrap();
        assert_eq!(again.tree_hash(), journal.tree_hash());
        let len = storage.len("00000001.seg").unwrap();
        assert_eq!(torn.len("00000001.seg").unwrap(), len);
    }
}

#[test]
fn a_damaged_frame_is_missed_and_comes_back_from_a_peer() {
    let (journal, storage, signer, entries) = written(6);
    let mut at = 48;
    for damaged in &entries[..entries.len() - 1] {
        let hurt = storage.copy();
        let byte = at + 12 + damaged.bytes().len() / 2;
        hurt.files.lock().get_mut("00000001.seg").unwrap()[byte] ^= 0x10;
        at += 12 + damaged.bytes().len();
        if damaged.entry().is_genesis() {
            assert!(matches!(reopen(&hurt), Err(OpenError::Corrupt { .. })));
            continue;
        }
        let again = reopen(&hurt).unwrap();
        assert_eq!(again.counts().entries, damaged.entry().seq);
        let report = again.verify(&mut |_| {}).unwrap();
        assert!(report.bad > 0);
        assert_eq!(feed(&again, &[]).wants, [damaged.id()]);
        let got = feed(&again, std::slice::from_ref(damaged));
        assert_eq!(got.applied.len(), entries.len() - damaged.entry().seq as usize);
        assert_eq!(got.wants, []);
        assert_eq!(again.tree_hash(), journal.tree_hash());
        // The log now holds them out of order; that must not matter to the next opening.
        again.author(&signer, vec![put("more", "z", &[])], now(50)).unwrap();
        let third = reopen(&hurt).unwrap();
        assert_eq!(third.tree_hash(), again.tree_hash());
        assert_eq!(walk(&third), walk(&again));
    }
}

#[test]
fn who_misses_what_an_admission_builds_on_still_knows_whom_to_ask() {
    let (journal, storage, signer, entries) = written(1);
    let bob = signer_of('B').device();
    let (key, role) = (invite_key(), journal::Role::Editor);
    let invite = journal::Op::Invite { key, role, expires: 1000, uses: 1 };
    journal.author(&signer, vec![invite, admit(&journal.drive().id, 'B')], now(5)).unwrap();
    let at = 48 + 12 + entries[0].bytes().len() + 40;
    storage.files.lock().get_mut("00000001.seg").unwrap()[at] ^= 1;
    let again = reopen(&storage).unwrap();
    assert!(again.member(bob).is_none() && again.member(signer.device()).is_some());
    assert_eq!(again.members_behind_gaps(), [bob]);
    feed(&again, &entries[1..]);
    assert!(again.member(bob).is_some());
    assert_eq!(again.members_behind_gaps(), []);
}

#[test]
fn a_frame_that_rots_while_the_journal_is_open_is_written_anew() {
    let (journal, storage, signer, entries) = written(6);
    let entry = &entries[3];
    let at = 48 + entries[..3].iter().map(|e| 12 + e.bytes().len()).sum::<usize>();
    let (hash, counts) = (journal.tree_hash(), journal.counts());
    storage.files.lock().get_mut("00000001.seg").unwrap()[at + 40] ^= 1;
    assert_eq!(journal.damaged(), [], "nobody has looked");
    assert_eq!(journal.lacking(&Default::default(), usize::MAX).len(), 3);
    assert_eq!(journal.damaged(), [entry.id()]);
    assert_eq!(journal.verify(&mut |_| {}).unwrap().bad, 1);
    // Another entry leaves it as it is.
    assert_eq!(feed(&journal, &entries[4..5]).wants, [entry.id()]);
    let got = feed(&journal, std::slice::from_ref(entry));
    assert_eq!((got.mended, got.applied, got.wants), (vec![entry.id()], vec![], vec![]));
    assert_eq!(journal.damaged(), []);
    let report = journal.verify(&mut |_| {}).unwrap();
    assert_eq!((report.bad, report.holes), (0, 1));
    assert_eq!(journal.lacking(&Default::default(), usize::MAX).len(), entries.len());
    assert_eq!((journal.tree_hash(), journal.counts()), (hash, counts));
    // What is not missed is not written twice.
    let len = storage.len("00000001.seg").unwrap();
    assert_eq!(feed(&journal, std::slice::from_ref(entry)).mended, []);
    assert_eq!(storage.len("00000001.seg").unwrap(), len);
    journal.author(&signer, vec![put("more", "z", &[])], now(50)).unwrap();
    assert_eq!(reopen(&storage).unwrap().tree_hash(), journal.tree_hash());
}

#[test]
fn what_a_loss_of_power_tore_out_of_the_unsynced_end_is_no_damage() {
    let (journal, storage, _, entries) = written(5);
    let lengths: Vec<usize> = entries.iter().map(|e| 12 + e.bytes().len()).collect();
    let at = 48 + lengths[..5].iter().sum::<usize>();
    // An end of two entries that nobody was told of: the first one's sectors did not reach the disk, and what came
    // after them, of no chain that is known, did.
    let torn = storage.copy();
    torn.files.lock().get_mut("00000001.seg").unwrap()[at..at + lengths[5]].fill(0);
    torn.append("00000001.seg", &storage.files.lock()["00000001.seg"][48..48 + lengths[0]])
        .unwrap();
    let again = reopen(&torn).unwrap();
    assert_eq!(again.counts().entries, 5);
    let report = again.verify(&mut |_| {}).unwrap();
    assert_eq!((report.bad, report.holes), (0, 1));
    assert_eq!(feed(&again, &entries[5..]).applied.len(), entries.len() - 5);
    assert_eq!(again.tree_hash(), journal.tree_hash());
    assert_eq!(again.verify(&mut |_| {}).unwrap().bad, 0);
}

#[test]
fn a_failed_sync_promises_nothing_and_stops_the_journal() {
    let (journal, storage, signer, entries) = written(2);
    let before = journal.tree_hash();
    *storage.fail_syncs.lock() = true;
    let failed = journal.author(&signer, vec![put("lost", "x", &[])], now(9));
    assert!(matches!(failed, Err(AppendError::Io(_))));
    assert_eq!(journal.tree_hash(), before, "what is not durable is not shown");
    *storage.fail_syncs.lock() = false;
    let after = journal.author(&signer, vec![put("later", "x", &[])], now(9));
    assert!(matches!(after, Err(AppendError::Poisoned)));
    assert!(matches!(journal.receive(&[], now(9)), Err(AppendError::Poisoned)));
    drop(journal);
    // Opened again, the frame that was appended may count: the disk has it.
    let again = reopen(&storage).unwrap();
    assert!(again.counts().entries >= entries.len() as u64);
    again.author(&signer, vec![put("later", "x", &[])], now(9)).unwrap();
}

#[test]
fn a_full_disk_refuses_whole_and_leaves_nothing_behind() {
    let (journal, storage, signer, entries) = written(2);
    let (before, len) = (journal.tree_hash(), storage.len("00000001.seg").unwrap());
    for room in [0, 1, 11, 12, 13, 100, 200, 700, 5000] {
        *storage.room.lock() = Some(len as usize + room);
        // More than one entry, so that the disk fills between them, too.
        let ops = (0..5000).map(|n| put(&format!("f{n}"), "x", &[])).collect();
        assert!(matches!(journal.author(&signer, ops, now(9)), Err(AppendError::Full)));
        assert_eq!(storage.len("00000001.seg").unwrap(), len);
        assert_eq!(journal.tree_hash(), before);
    }
    *storage.room.lock() = None;
    journal.author(&signer, vec![put("later", "x", &[])], now(9)).unwrap();
    let again = reopen(&storage).unwrap();
    assert_eq!(again.tree_hash(), journal.tree_hash());
    assert_eq!(again.counts().entries, entries.len() as u64 + 1);
}

#[test]
fn calls_at_the_same_time_share_syncs() {
    let (journal, storage, signer, _) = written(0);
    let before = *storage.syncs.lock();
    const THREADS: usize = 8;
    const EACH: usize = 50;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (journal, signer) = (&journal, &signer);
            scope.spawn(move || {
                for n in 0..EACH {
                    let at = format!("{thread}-{n}");
                    let done = journal.author(signer, vec![put(&at, "x", &[])], now(1)).unwrap();
                    let found = journal.entry(&done.id).unwrap();
                    assert_eq!(found, done.bytes, "it is there when the call returns");
                }
            });
        }
    });
    assert_eq!(journal.counts().files, (THREADS * EACH) as u64);
    let syncs = *storage.syncs.lock() - before;
    assert!(syncs <= (THREADS * EACH) as u64, "{syncs} syncs");
    let again = reopen(&storage).unwrap();
    assert_eq!(again.tree_hash(), journal.tree_hash());
}

#[test]
fn every_way_to_open_a_store_gives_the_same_drive() {
    let dir = tempfile::tempdir().unwrap();
    let signer = signer_of('A');
    let journal = Journal::create(dir.path(), &signer, spec(), now(0)).unwrap();
    for n in 0..20 {
        journal.author(&signer, vec![put(&n.to_string(), "x", &[])], now(n)).unwrap();
    }
    let (hash, shown) = (journal.tree_hash(), walk(&journal));
    assert!(matches!(
        Journal::create(dir.path(), &signer, spec(), now(0)),
        Err(journal::CreateError::Exists { .. })
    ));
    // As a killed process leaves it: nothing closed.
    drop(journal);
    for opened in [Opened::ProcessCrash, Opened::PowerLoss, Opened::Clean] {
        let journal = Journal::open(dir.path(), opened).unwrap();
        assert_eq!((journal.tree_hash(), walk(&journal)), (hash, shown.clone()), "{opened:?}");
        assert_eq!(journal.verify(&mut |_| {}).unwrap().bad, 0);
        journal.close().unwrap();
        assert!(matches!(
            journal.lookup(journal::DirId::ROOT, &crate::forge::name("1")),
            Err(journal::StateError::Closed)
        ));
        let closed = journal.author(&signer, vec![], now(0));
        assert!(matches!(closed, Err(AppendError::Closed)));
    }
    // A state that is rubbish, or gone, is made anew.
    std::fs::write(dir.path().join("state/data.mdb"), vec![7; 8192]).unwrap();
    assert_eq!(Journal::open(dir.path(), Opened::Clean).unwrap().tree_hash(), hash);
    std::fs::remove_dir_all(dir.path().join("state")).unwrap();
    assert_eq!(Journal::open(dir.path(), Opened::Clean).unwrap().tree_hash(), hash);
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(Journal::open(empty.path(), Opened::Clean), Err(OpenError::Missing { .. })));
}

#[test]
fn a_state_behind_its_log_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let signer = signer_of('A');
    let journal = Journal::create(dir.path(), &signer, spec(), now(0)).unwrap();
    journal.author(&signer, vec![put("a", "x", &[])], now(1)).unwrap();
    journal.close().unwrap();
    drop(journal);
    let saved = tempfile::tempdir().unwrap();
    let state = dir.path().join("state/data.mdb");
    std::fs::copy(&state, saved.path().join("data.mdb")).unwrap();
    let journal = Journal::open(dir.path(), Opened::Clean).unwrap();
    journal.author(&signer, vec![put("b", "y", &[])], now(2)).unwrap();
    let hash = journal.tree_hash();
    drop(journal);
    std::fs::copy(saved.path().join("data.mdb"), &state).unwrap();
    let journal = Journal::open(dir.path(), Opened::ProcessCrash).unwrap();
    assert_eq!(journal.tree_hash(), hash);
    // And one that is ahead of a log that lost its end is not believed.
    drop(journal);
    let segment = dir.path().join("log/00000001.seg");
    let len = std::fs::metadata(&segment).unwrap().len();
    std::fs::File::options().write(true).open(&segment).unwrap().set_len(len - 1).unwrap();
    let journal = Journal::open(dir.path(), Opened::ProcessCrash).unwrap();
    assert_eq!(journal.counts().files, 1);
}

#[test]
fn a_newer_log_is_refused_and_left_alone() {
    let (_, storage, _, _) = written(1);
    storage.files.lock().get_mut("00000001.seg").unwrap()[8] = 7;
    let before = storage.files.lock().clone();
    assert!(matches!(reopen(&storage), Err(OpenError::TooNew { found: 7, supported: 1 })));
    assert_eq!(*storage.files.lock(), before);
}

#[test]
fn entries_wait_for_what_they_build_on_in_any_order() {
    let mut forge = Forge::new();
    for n in 0..50 {
        forge.e('B', n, vec![put(&n.to_string(), "x", &[])], &[]);
    }
    let (journal, _) = journal_of(&forge.genesis);
    let (first, rest) = forge.all.split_first().unwrap();
    for entry in rest.iter().rev() {
        let got = feed(&journal, std::slice::from_ref(entry));
        assert_eq!(got.applied, []);
    }
    assert_eq!(feed(&journal, &[]).wants, [first.id()]);
    let got = feed(&journal, std::slice::from_ref(first));
    assert_eq!(got.applied.len(), forge.all.len());
    assert_eq!(journal.lacking(&Frontier::default(), usize::MAX).len(), forge.all.len() + 1);
}

#[test]
fn what_waits_is_bounded() {
    let mut forge = Forge::new();
    let missing = forge.e('B', 0, vec![], &[]);
    let mut refused = 0;
    let (journal, _) = journal_of(&forge.genesis);
    for n in 0..9000u64 {
        let entry = forge.after('B', Some(missing.clone()), 100 + n, vec![], &[], &[]);
        let got = feed(&journal, &[entry]);
        refused += got.refused.len();
        assert!(got.wants.len() <= 2);
    }
    assert_eq!(refused, 9000 - 8192, "the oldest give way");
}
