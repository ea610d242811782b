//! Losses of power, failing syncs and writes, full disks and rot, on the disk in memory.

use super::*;
use crate::format::PACK_HEADER_LEN;

/// A little life of a store; gives the chunks that a returned sync has promised.
fn live(store: &Store) -> Vec<(ChunkId, Vec<u8>)> {
    let mut promised = Vec::new();
    let mut waiting = Vec::new();
    for seed in 0..24u64 {
        let raw = if seed % 3 == 0 { vec![seed as u8; 900] } else { noise(700, seed) };
        match store.put(&raw) {
            Ok(id) => waiting.push((id, raw)),
            Err(_) => return promised,
        }
        if seed % 4 == 3 {
            match store.sync() {
                Ok(()) => promised.append(&mut waiting),
                Err(_) => return promised,
            }
        }
    }
    promised
}

fn keeps(store: &Store, promised: &[(ChunkId, Vec<u8>)]) {
    for (id, raw) in promised {
        assert!(store.has(id), "{id} was promised");
        assert!(store.get(id).unwrap() == *raw);
    }
}

#[test]
fn what_was_synced_survives_death_at_every_sync_and_every_torn_tail() {
    let whole = MemBackend::new();
    live(&on(&whole));
    let syncs = whole.faults(|faults| faults.syncs);
    assert!(syncs >= 7);
    for sync in 0..=syncs {
        let disk = MemBackend::new();
        disk.faults(|faults| faults.syncs_left = Some(sync));
        let promised = live(&on(&disk));
        for tail in (0..4000).step_by(if sync % 3 == 0 { 1 } else { 97 }) {
            let after = disk.crash(tail);
            let store = on(&after);
            keeps(&store, &promised);
            let bytes: u64 = after.list().unwrap().iter().map(|(_, len)| len).sum();
            assert_eq!(bytes, store.usage().stored_bytes, "what is no record is cut off");
            // Everything the store says it has, it has.
            let report = store.scrub(&mut |_| {}).unwrap();
            assert_eq!(report.bad, []);
            // It goes on, and recovering twice is the same.
            let id = store.put(b"afterwards").unwrap();
            store.sync().unwrap();
            let again = on(&after.crash(0));
            keeps(&again, &promised);
            assert!(again.has(&id));
        }
    }
}

#[test]
fn dying_while_recovering_loses_nothing() {
    let disk = MemBackend::new();
    let store = on(&disk);
    let promised = live(&store);
    store.put(&noise(1000, 99)).unwrap();
    for syncs in 0..4 {
        let after = disk.crash(333);
        after.faults(|faults| faults.syncs_left = Some(syncs));
        let _ = Store::on_backend(Arc::new(after.clone()), KEY);
        keeps(&on(&after.crash(0)), &promised);
    }
}

#[test]
fn a_failed_sync_with_readable_bytes_is_made_good_elsewhere() {
    let disk = MemBackend::new();
    let store = on(&disk);
    let first = (store.put(b"first").unwrap(), b"first".to_vec());
    store.sync().unwrap();
    let second = (store.put(b"second").unwrap(), b"second".to_vec());
    disk.faults(|faults| faults.sync_errors_kept = 1);
    store.sync().unwrap();
    assert_eq!(store.usage().packs, 2, "nothing more goes to the pack that failed");
    keeps(&store, &[first.clone(), second.clone()]);
    keeps(&on(&disk.crash(0)), &[first.clone(), second.clone()]);
    let third = (store.put(b"third").unwrap(), b"third".to_vec());
    store.sync().unwrap();
    keeps(&on(&disk.crash(0)), &[first, second, third]);
}

#[test]
fn what_a_process_could_not_sync_is_written_again_by_the_next() {
    for failed_opens in 0..3 {
        let disk = MemBackend::new();
        let store = on(&disk);
        let first = (store.put(b"first").unwrap(), b"first".to_vec());
        store.sync().unwrap();
        let second = (store.put(b"second").unwrap(), b"second".to_vec());
        // There is no room for another pack, so the record stays where its sync has failed.
        let used: u64 = disk.list().unwrap().iter().map(|(_, len)| len).sum();
        disk.faults(|faults| {
            faults.sync_errors_kept = 1;
            faults.capacity = Some(used);
        });
        assert!(matches!(store.sync(), Err(WriteError::ReadOnly { .. })));
        drop(store);
        disk.faults(|faults| faults.sync_errors_kept = failed_opens);
        for _ in 0..failed_opens {
            let refused = Store::on_backend(Arc::new(disk.clone()), KEY).err();
            assert!(matches!(refused, Some(OpenError::Io(_))), "{refused:?}");
        }
        let store = on(&disk);
        store.sync().unwrap();
        keeps(&store, &[first.clone(), second.clone()]);
        keeps(&on(&disk.crash(0)), &[first, second]);
    }
}

#[test]
fn what_a_process_left_unsealed_is_named_durably_by_the_next() {
    let disk = MemBackend::new();
    let store = on(&disk);
    let first = (store.put(b"first").unwrap(), b"first".to_vec());
    drop(store);
    // The next pack was created and got no header: it goes, and the one before becomes the newest only then.
    disk.create(&packs::name(1)).unwrap();
    let store = on(&disk);
    store.sync().unwrap();
    keeps(&store, std::slice::from_ref(&first));
    keeps(&on(&disk.crash(0)), &[first]);
}

#[test]
fn a_failed_sync_that_lost_bytes_is_never_called_a_success() {
    let disk = MemBackend::new();
    let store = on(&disk);
    let first = (store.put(b"first").unwrap(), b"first".to_vec());
    store.sync().unwrap();
    let second = store.put(b"second").unwrap();
    disk.faults(|faults| faults.sync_errors = 1);
    assert!(matches!(store.sync(), Err(WriteError::ReadOnly { .. })));
    assert!(matches!(store.sync(), Err(WriteError::ReadOnly { .. })), "and not later either");
    assert!(matches!(store.put(b"third"), Err(WriteError::ReadOnly { .. })));
    assert!(!store.has(&second));
    keeps(&store, std::slice::from_ref(&first));
    assert!(store.close().is_err());
    keeps(&on(&disk.crash(0)), &[first]);
}

#[test]
fn a_failed_write_goes_to_another_pack_with_what_was_not_synced() {
    let disk = MemBackend::new();
    let store = on(&disk);
    let first = (store.put(b"first").unwrap(), b"first".to_vec());
    disk.faults(|faults| faults.append_errors = 1);
    let second = (store.put(b"second").unwrap(), b"second".to_vec());
    assert_eq!(store.usage().packs, 2);
    keeps(&store, &[first.clone(), second.clone()]);
    store.sync().unwrap();
    keeps(&on(&disk.crash(0)), &[first, second]);
}

#[test]
fn a_failed_write_behind_synced_records_leaves_them_where_they_are() {
    let disk = MemBackend::new();
    let store = on(&disk);
    let first = (store.put(b"first").unwrap(), b"first".to_vec());
    store.sync().unwrap();
    let len = disk.list().unwrap()[0].1;
    disk.faults(|faults| faults.append_errors = 1);
    let second = (store.put(b"second").unwrap(), b"second".to_vec());
    let files = disk.list().unwrap();
    assert_eq!(files.len(), 2);
    assert_eq!(files[0], ("00000000.pack".to_owned(), len), "the torn record is cut off");
    store.sync().unwrap();
    keeps(&on(&disk.crash(0)), &[first, second]);
}

#[test]
fn writes_that_fail_again_and_again_end_in_a_store_that_reads() {
    let disk = MemBackend::new();
    let store = on(&disk);
    let first = (store.put(b"first").unwrap(), b"first".to_vec());
    store.sync().unwrap();
    disk.faults(|faults| faults.append_errors = 1000);
    assert!(matches!(store.put(b"second"), Err(WriteError::ReadOnly { .. })));
    assert!(disk.faults(|faults| faults.append_errors) > 900, "it does not try for ever");
    keeps(&store, &[first]);
}

#[test]
fn a_write_that_fails_while_saving_another_packs_records_ends_the_writing() {
    let disk = MemBackend::new();
    let store = on(&disk);
    let first = (store.put(b"first").unwrap(), b"first".to_vec());
    store.sync().unwrap();
    for seed in 0..5 {
        store.put(&noise(500, seed)).unwrap();
    }
    disk.faults(|faults| {
        faults.sync_errors_kept = 1;
        // The new pack's header and its first record.
        faults.append_errors = 2;
    });
    assert!(matches!(store.sync(), Err(WriteError::ReadOnly { .. })));
    assert!(matches!(store.put(b"more"), Err(WriteError::ReadOnly { .. })));
    keeps(&store, std::slice::from_ref(&first));
    keeps(&on(&disk.crash(0)), &[first]);
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let disk = MemBackend::new();
    let store = on(&disk);
    let first = (store.put(&noise(1000, 1)).unwrap(), noise(1000, 1));
    disk.faults(|faults| faults.capacity = Some(2500));
    // The store looked at the disk when it had room, so it is the write that fails, half done.
    assert!(matches!(store.put(&noise(2000, 2)), Err(WriteError::Full)));
    // From now on it asks before.
    assert!(matches!(store.put(&noise(2000, 2)), Err(WriteError::Full)));
    assert!(matches!(store.writer(None).write(&noise(2000, 2)), Err(WriteError::Full)));
    let second = (store.put(&noise(500, 3)).unwrap(), noise(500, 3));
    disk.faults(|faults| faults.capacity = None);
    let third = (store.put(&noise(2000, 2)).unwrap(), noise(2000, 2));
    store.sync().unwrap();
    assert_eq!(store.usage().packs, 1);
    keeps(&store, &[first.clone(), second.clone(), third.clone()]);
    keeps(&on(&disk.crash(0)), &[first, second, third]);
}

#[test]
fn every_flipped_byte_is_found_and_only_its_chunk_suffers() {
    let disk = MemBackend::new();
    let store = on(&disk);
    let mut chunks = Vec::new();
    for seed in 0..3 {
        let raw = noise(200, seed);
        chunks.push((store.put(&raw).unwrap(), raw));
    }
    store.sync().unwrap();
    let len = disk.list().unwrap()[0].1 as usize;
    for at in PACK_HEADER_LEN..len {
        let rotten = disk.crash(0);
        let store = on(&rotten);
        assert!(rotten.flip("00000000.pack", at));
        let report = store.scrub(&mut |_| {}).unwrap();
        assert_eq!(report.bad.len(), 1, "byte {at}");
        let bad = report.bad[0];
        assert_eq!(store.quarantined(), [bad]);
        for (id, raw) in &chunks {
            if *id != bad {
                assert!(store.get(id).unwrap() == *raw);
                continue;
            }
            assert!(!store.has(id));
            assert!(store.get(id).is_err());
            // Still known to be bad after a restart, and good again once it has come anew.
            let store = on(&rotten);
            assert!(!store.has(id), "byte {at}");
            assert_eq!(store.put(raw).unwrap(), *id);
            assert!(store.get(id).unwrap() == *raw);
            assert_eq!(store.quarantined(), []);
            store.sync().unwrap();
            let store = on(&rotten);
            assert!(store.get(id).unwrap() == *raw, "the newer record is found first");
            assert_eq!(store.scrub(&mut |_| {}).unwrap().bad, []);
        }
    }
}

#[test]
fn a_corrupt_chunk_is_reported_once_and_then_missing() {
    let disk = MemBackend::new();
    let store = on(&disk);
    let id = store.put(&noise(100, 1)).unwrap();
    assert!(disk.flip("00000000.pack", 100));
    assert!(matches!(store.get_stored(&id), Err(ReadError::Corrupt { id: bad }) if bad == id));
    assert!(matches!(store.get(&id), Err(ReadError::Missing { .. })));
    let content = crate::Content { id: crate::ContentId::chunk(id), len: 100 };
    assert_eq!(crate::missing_chunks(content, &store, 10).unwrap().ids, [id]);
}

#[test]
fn damage_in_the_middle_costs_no_record_behind_it() {
    let disk = MemBackend::new();
    let store = on(&disk);
    let ids: Vec<_> = (0..10).map(|seed| store.put(&noise(5000, seed)).unwrap()).collect();
    store.sync().unwrap();
    let len = disk.list().unwrap()[0].1;
    // The magic of the third record: a scan has to find the fourth by itself.
    assert!(disk.flip("00000000.pack", PACK_HEADER_LEN + 2 * 5052));
    let store = on(&disk);
    let here: Vec<_> = ids.iter().map(|id| store.has(id)).collect();
    assert_eq!(here.iter().filter(|has| **has).count(), 9);
    assert!(!here[2]);
    assert!(disk.list().unwrap()[0].1 >= len, "something was cut off");
}

#[test]
fn a_newer_pack_is_refused_and_not_touched() {
    let disk = MemBackend::new();
    let store = on(&disk);
    store.put(b"bytes").unwrap();
    store.close().unwrap();
    let file = disk.create("00000001.pack").unwrap();
    let mut header = crate::format::encode_pack_header(1);
    header[4] = 2;
    file.append(0, &[std::io::IoSlice::new(&header)]).unwrap();
    let before = disk.list().unwrap();
    let refused = Store::on_backend(Arc::new(disk.clone()), KEY).err().unwrap();
    assert!(matches!(refused, OpenError::TooNew { found: 2, supported: 1, .. }), "{refused}");
    assert_eq!(disk.list().unwrap(), before);
}

#[test]
fn files_that_are_no_packs_are_left_alone() {
    let disk = MemBackend::new();
    for name in ["notes.txt", "1.pack", "00000003.pack.old"] {
        disk.create(name).unwrap();
    }
    // A pack's name over nothing sensible, as a crash can leave it: no records, and no harm.
    let file = disk.create("00000000.pack").unwrap();
    file.append(0, &[std::io::IoSlice::new(&[0; 5000])]).unwrap();
    let store = on(&disk);
    let id = store.put(b"bytes").unwrap();
    store.sync().unwrap();
    disk.sync_dir().unwrap();
    assert!(on(&disk.crash(0)).has(&id));
    assert_eq!(disk.list().unwrap().len(), 5);
}

#[test]
fn the_quarantine_list_is_frozen_and_a_torn_end_is_cut_off() {
    const GOLDEN: &[u8] = include_bytes!("../../../golden/quarantine/v1/quarantine");
    let disk = MemBackend::new();
    let (a, b) = (ChunkId::from_bytes([0xaa; 32]), ChunkId::from_bytes([0xbb; 32]));
    let list = quarantine::Quarantine::load(&disk);
    list.add(&disk, &a);
    list.add(&disk, &b);
    list.clear(&disk, &a);
    let file = disk.open(quarantine::NAME).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    assert_eq!(bytes, GOLDEN);
    assert_eq!(quarantine::Quarantine::load(&disk).list(), [b]);
    file.append(GOLDEN.len() as u64, &[std::io::IoSlice::new(&GOLDEN[8..40])]).unwrap();
    let list = quarantine::Quarantine::load(&disk);
    assert_eq!(list.list(), [b]);
    list.clear(&disk, &b);
    assert_eq!(quarantine::Quarantine::load(&disk).list(), []);
    assert!(disk.open(quarantine::NAME).is_err(), "an empty list needs no file");
}
