//! Random access, holes, walks, and manifests that lie.

use proptest::prelude::*;

use super::*;
use crate::chunker::Class;
use crate::id::IdKey;
use crate::manifest::encode;
use crate::store::Store;

const KEY: IdKey = IdKey::from_bytes([5; 32]);

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn write(store: &Store, data: &[u8]) -> Content {
    let mut writer = store.writer(None);
    writer.write(data).unwrap();
    writer.finish().unwrap()
}

#[test]
fn opening_reads_nothing() {
    let store = Store::in_memory(KEY);
    let absent = Content { id: ContentId::manifest(ChunkId::from_bytes([1; 32])), len: 10 };
    let reader = store.read(absent).unwrap();
    assert_eq!(reader.len(), 10);
    assert!(matches!(reader.read_at(0, &mut [0; 1]), Err(ReadError::Missing { .. })));
    assert_eq!(reader.read_at(10, &mut [0; 1]).unwrap(), 0);
}

#[test]
fn chunk_ids_are_all_that_is_needed_to_read() {
    let store = Store::in_memory(KEY);
    let data = noise(3 << 20, 1);
    let content = write(&store, &data);
    let copy = Store::in_memory(KEY);
    for id in store.read(content).unwrap().chunk_ids() {
        let id = id.unwrap();
        copy.put_stored(id, &store.get_stored(&id).unwrap()).unwrap();
    }
    let mut read = vec![0; data.len()];
    copy.read(content).unwrap().read_at(0, &mut read).unwrap();
    assert!(read == data);
}

#[test]
fn missing_chunks_come_in_rounds_until_nothing_is_missing() {
    let store = Store::in_memory(KEY);
    let mut writer = store.writer_as(Class::Fixed64K);
    for number in 0..5_000u64 {
        writer.write(&noise(64, number)).unwrap();
        writer.skip(65_536 - 64).unwrap();
    }
    let content = writer.finish().unwrap();
    let copy = Store::in_memory(KEY);
    let mut rounds = 0;
    loop {
        let missing = crate::missing_chunks(content, &copy, 300).unwrap();
        assert_eq!(missing.complete, missing.ids.is_empty());
        assert!(missing.ids.len() <= 300);
        if missing.complete {
            break;
        }
        if rounds == 0 {
            assert_eq!(missing.ids, [content.id.root()]);
        }
        for id in missing.ids {
            assert!(!copy.has(&id));
            copy.put_stored(id, &store.get_stored(&id).unwrap()).unwrap();
        }
        rounds += 1;
        assert!(rounds < 40);
    }
    assert!(copy.read(content).unwrap().chunk_ids().all(|id| copy.has(&id.unwrap())));
    assert!(!crate::missing_chunks(content, &Store::in_memory(KEY), 0).unwrap().complete);
}

#[test]
fn a_manifest_that_lies_is_corrupt_and_nothing_worse() {
    let store = Store::in_memory(KEY);
    let chunk = store.put(&noise(100, 1)).unwrap();
    let record = |id, len| Record { id, len };
    let node =
        |level, class, records: &[Record]| store.put(&encode(level, class, records)).unwrap();
    let class = Class::Cdc16K;
    let leaf = node(0, class, &[record(chunk, 100)]);
    let lies = [
        // Longer than the chunk is, shorter, another total, another level, another class, itself no node.
        (node(0, class, &[record(chunk, 101)]), 101),
        (node(0, class, &[record(chunk, 99)]), 99),
        (leaf, 101),
        (node(2, class, &[record(leaf, 100)]), 100),
        (node(1, class, &[record(leaf, 101)]), 101),
        (node(1, Class::Cdc64K, &[record(leaf, 100)]), 100),
        (node(1, class, &[record(chunk, 100)]), 100),
        (chunk, 100),
    ];
    for (root, len) in lies {
        let content = Content { id: ContentId::manifest(root), len };
        let reader = store.read(content).unwrap();
        let result = reader.read_at(0, &mut [0; 200]);
        assert!(matches!(result, Err(ReadError::Corrupt { .. })), "{result:?}");
    }
    let wrong = [
        Content { id: ContentId::manifest(leaf), len: 0 },
        Content { id: ContentId::chunk(chunk), len: 2 << 20 },
    ];
    for content in wrong {
        assert!(matches!(store.read(content), Err(ReadError::Corrupt { .. })));
    }
    let mut newer = encode(0, class, &[record(chunk, 100)]);
    newer[4] = 9;
    let newer = store.put(&newer).unwrap();
    let reader = store.read(Content { id: ContentId::manifest(newer), len: 100 }).unwrap();
    let result = reader.read_at(0, &mut [0; 1]);
    assert!(matches!(result, Err(ReadError::TooNew { found: 9, supported: 1, .. })));
}

#[test]
fn one_reader_serves_many_threads() {
    let store = Store::in_memory(KEY);
    let data = noise(2 << 20, 3);
    let reader = store.read(write(&store, &data)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (reader, data) = (&reader, &data);
            scope.spawn(move || {
                for step in 0..200 {
                    let at = (thread * 7919 + step * 10_007) % data.len();
                    let mut buf = [0; 5000];
                    let len = reader.read_at(at as u64, &mut buf).unwrap();
                    assert!(buf[..len] == data[at..at + len]);
                }
            });
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_range_is_read_and_holes_are_found(
        parts in prop::collection::vec((any::<bool>(), 1usize..200_000), 1..6),
        offsets in prop::collection::vec((any::<prop::sample::Index>(), 0usize..300_000), 8),
    ) {
        let store = Store::in_memory(KEY);
        let mut data = Vec::new();
        for (index, (zero, len)) in parts.iter().enumerate() {
            data.extend(if *zero { vec![0; *len] } else { noise(*len, index as u64) });
        }
        let reader = store.read(write(&store, &data)).unwrap();
        for (at, len) in offsets {
            let at = at.index(data.len() + 1);
            let mut buf = vec![1; len];
            let read = reader.read_at(at as u64, &mut buf).unwrap();
            prop_assert_eq!(read, len.min(data.len() - at));
            prop_assert!(buf[..read] == data[at..at + read]);
            let hole = reader.next_hole(at as u64).unwrap() as usize;
            prop_assert!(hole >= at && hole <= data.len());
            let next = reader.next_data(at as u64).unwrap().map_or(data.len(), |next| next as usize);
            prop_assert!(next >= at && data[at..next].iter().all(|byte| *byte == 0));
        }
    }
}
