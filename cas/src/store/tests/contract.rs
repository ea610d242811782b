//! The same promises on a disk and in memory.

use super::*;

fn each(test: impl Fn(&Store)) {
    test(&Store::in_memory(KEY));
    let dir = tempfile::tempdir().unwrap();
    test(&Store::open(config(dir.path())).unwrap());
}

#[test]
fn a_chunk_is_there_at_once_and_once() {
    each(|store| {
        let raw = noise(5000, 1);
        let id = store.put(&raw).unwrap();
        assert_eq!(id, ChunkId::of(&KEY, &raw));
        assert!(store.has(&id));
        assert!(store.get(&id).unwrap() == raw);
        let usage = store.usage();
        assert_eq!((usage.chunks, usage.packs), (1, 1));
        assert_eq!(store.put(&raw).unwrap(), id);
        assert_eq!(store.usage(), usage);
        store.sync().unwrap();
        store.0.index.flush().unwrap();
        assert_eq!(store.put(&raw).unwrap(), id, "found through the table too");
        assert_eq!(store.usage(), usage);
        assert!(store.get(&id).unwrap() == raw);
    });
}

#[test]
fn an_absent_chunk_is_missing() {
    each(|store| {
        let id = ChunkId::from_bytes([3; 32]);
        assert!(!store.has(&id));
        assert!(matches!(store.get(&id), Err(ReadError::Missing { id: which }) if which == id));
        assert!(matches!(store.get_stored(&id), Err(ReadError::Missing { .. })));
    });
}

#[test]
fn stored_chunks_travel_and_are_verified() {
    each(|store| {
        let from = Store::in_memory(KEY);
        for raw in [noise(5000, 1), vec![9; 50_000], vec![]] {
            let id = from.put(&raw).unwrap();
            let chunk = from.get_stored(&id).unwrap();
            store.put_stored(id, &chunk).unwrap();
            store.put_stored(id, &chunk).unwrap();
            assert!(store.get(&id).unwrap() == raw);
            assert_eq!(store.get_stored(&id).unwrap(), chunk);
            let other = ChunkId::from_bytes([8; 32]);
            let refused = store.put_stored(other, &chunk);
            assert!(matches!(refused, Err(WriteError::Corrupt { id }) if id == other));
            assert!(!store.has(&other));
        }
        assert_eq!(store.usage().chunks, 3);
    });
}

#[test]
fn a_chunk_too_long_is_refused() {
    each(|store| {
        store.put(&noise(CHUNK_LEN_MAX, 1)).unwrap();
        let longer = store.put(&noise(CHUNK_LEN_MAX + 1, 1));
        assert!(matches!(longer, Err(WriteError::TooLong)));
    });
}

#[test]
fn after_closing_everything_says_so() {
    each(|store| {
        let id = store.put(b"bytes").unwrap();
        let clone = store.clone();
        store.close().unwrap();
        assert!(matches!(clone.put(b"more"), Err(WriteError::Closed)));
        assert!(matches!(clone.get(&id), Err(ReadError::Closed)));
        assert!(matches!(clone.sync(), Err(WriteError::Closed)));
        assert!(matches!(clone.close(), Err(WriteError::Closed)));
        assert!(matches!(clone.writer(None).write(b"x"), Err(WriteError::Closed)));
        assert!(!clone.has(&id));
    });
}

#[test]
fn two_ids_with_one_prefix_are_two_chunks() {
    each(|store| {
        let mut twin = *store.put(b"first").unwrap().as_bytes();
        let first = ChunkId::from_bytes(twin);
        store.0.index.flush().unwrap();
        twin[31] ^= 1;
        let twin = ChunkId::from_bytes(twin);
        assert!(!store.has(&twin), "only the prefix is known");
        assert!(matches!(store.get(&twin), Err(ReadError::Missing { .. })));
        // Nobody can make such bytes; a record with the id is enough to see that both are told apart.
        store.0.append(&[encode(twin, b"second")], Room::Accepted).unwrap();
        store.0.index.flush().unwrap();
        assert!(store.has(&twin) && store.has(&first));
        assert_eq!(&store.get(&first).unwrap()[..], b"first");
        assert_eq!(store.0.index.candidates(&first).unwrap().len(), 2);
    });
}

#[test]
fn packs_roll_over_and_are_sealed() {
    each(|store| {
        let ids: Vec<_> =
            (0..140).map(|seed| store.put(&noise(CHUNK_LEN_MAX, seed)).unwrap()).collect();
        assert_eq!(store.usage().packs, 3);
        store.sync().unwrap();
        for (seed, id) in ids.iter().enumerate() {
            assert!(store.get(id).unwrap() == noise(CHUNK_LEN_MAX, seed as u64));
        }
        // The keeper may be at it; sealing waits for its turn.
        store.0.seal(0);
        store.0.seal(1);
        let appender = store.0.appender.lock();
        let sealed: Vec<_> = appender.packs.values().map(|info| info.sealed).collect();
        assert_eq!(sealed, [true, true, false]);
        assert!(appender.packs.values().all(|info| info.file_len() <= crate::format::PACK_LEN_MAX));
    });
}

#[test]
fn the_index_can_be_rebuilt_at_any_time() {
    each(|store| {
        let ids: Vec<_> =
            (0..100).map(|seed| store.put(&noise(CHUNK_LEN_MAX, seed)).unwrap()).collect();
        let usage = store.rebuild_index().unwrap();
        assert_eq!(usage.chunks, 100);
        assert!(ids.iter().all(|id| store.has(id)));
        store.0.index.clear().unwrap();
        assert!(!ids.iter().any(|id| store.has(id)));
        store.rebuild_index().unwrap();
        assert!(ids.iter().all(|id| store.has(id)));
    });
}

#[test]
fn a_scrub_of_sound_chunks_finds_nothing() {
    each(|store| {
        for seed in 0..50 {
            store.put(&noise(10_000, seed)).unwrap();
        }
        let mut steps = 0;
        let report = store.scrub(&mut |step| {
            steps += 1;
            assert_eq!((step.chunks_done, step.chunks_total, step.bad), (steps, 50, false));
        });
        assert_eq!(report.unwrap(), ScrubReport { chunks: 50, bad: vec![] });
    });
}

#[test]
fn many_threads_put_and_sync_the_same_chunks() {
    each(|store| {
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                scope.spawn(move || {
                    for seed in 0..100 {
                        let raw = noise(3000, seed);
                        let id = store.put(&raw).unwrap();
                        if (seed + thread) % 10 == 0 {
                            store.sync().unwrap();
                        }
                        assert!(store.get(&id).unwrap() == raw);
                    }
                });
            }
        });
        assert_eq!(store.usage().chunks, 100, "no chunk is stored twice");
    });
}
