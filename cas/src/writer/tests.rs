//! One content, however it is written.

use proptest::prelude::*;

use super::*;
use crate::id::IdKey;
use crate::store::Store;

const KEY: IdKey = IdKey::from_bytes([5; 32]);
const CLASSES: [Class; 4] = [Class::Cdc16K, Class::Cdc64K, Class::Cdc256K, Class::Fixed64K];

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn write_in(store: &Store, class: Class, data: &[u8], step: usize) -> Content {
    let mut writer = store.writer_as(class);
    for part in data.chunks(step.max(1)) {
        writer.write(part).unwrap();
    }
    writer.finish().unwrap()
}

fn read_all(store: &Store, content: Content) -> Vec<u8> {
    let reader = store.read(content).unwrap();
    let mut out = vec![1; content.len as usize + 10];
    let len = reader.read_at(0, &mut out).unwrap();
    assert_eq!(len as u64, content.len);
    out.truncate(len);
    out
}

#[test]
fn what_is_written_is_read_at_every_length() {
    let store = Store::in_memory(KEY);
    for class in CLASSES {
        for len in [0, 1, 4095, 4096, 16_383, 65_536, 65_537, 300_000, 3 << 20] {
            let data = noise(len, len as u64);
            let content = write_in(&store, class, &data, 100_000);
            assert_eq!(content.len, len as u64);
            assert!(read_all(&store, content) == data, "{class:?} {len}");
        }
    }
}

#[test]
fn the_empty_content_can_be_read() {
    let store = Store::in_memory(KEY);
    let empty = store.writer(None).finish().unwrap();
    assert_eq!(read_all(&store, empty), b"");
    assert!(store.has(&empty.id.root()));
}

#[test]
fn the_split_over_calls_does_not_matter() {
    let store = Store::in_memory(KEY);
    let data = noise(700_000, 1);
    for class in CLASSES {
        let whole = write_in(&store, class, &data, data.len());
        for step in [1000, 4096, 65_537] {
            assert_eq!(write_in(&store, class, &data, step), whole);
        }
    }
}

#[test]
fn zeros_written_and_zeros_skipped_are_one_content() {
    let store = Store::in_memory(KEY);
    for class in CLASSES {
        for zeros in [0u64, 1, 70_000, 262_144, 262_145, 9_000_001] {
            let mut written = store.writer_as(class);
            let mut skipped = store.writer_as(class);
            for writer in [&mut written, &mut skipped] {
                writer.write(&noise(100_001, 3)).unwrap();
            }
            written.write(&vec![0; zeros as usize]).unwrap();
            skipped.skip(zeros / 3).unwrap();
            skipped.skip(zeros - zeros / 3).unwrap();
            for writer in [&mut written, &mut skipped] {
                writer.write(&noise(50_000, 4)).unwrap();
            }
            assert_eq!(written.finish().unwrap(), skipped.finish().unwrap(), "{class:?} {zeros}");
        }
    }
}

#[test]
fn zeros_are_cut_alike_at_every_border_of_their_chunks() {
    // Under one key in thousands a run of zeros is cut at or near the shortest length, not at the longest.
    for (number, step) in [(0, 65_536), (15_308u64, 4_096), (15_289, 4_127)] {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        let store = Store::in_memory(IdKey::from_bytes(key));
        assert_eq!(store.0.gear().zero_chunk_len(Class::Cdc16K), step);
        for zeros in [step, 2 * step, 3 * step].into_iter().flat_map(|len| len - 2..len + 3) {
            for end in [&b""[..], b"x", b"xy"] {
                let written = [&vec![0; zeros], end].concat();
                let mut skipped = store.writer_as(Class::Cdc16K);
                skipped.skip(zeros as u64).unwrap();
                skipped.write(end).unwrap();
                let content = skipped.finish().unwrap();
                assert_eq!(content, write_in(&store, Class::Cdc16K, &written, 5_000), "{zeros}");
                assert_eq!(content.len, written.len() as u64);
            }
        }
    }
}

#[test]
fn a_sparse_content_stores_next_to_nothing() {
    let store = Store::in_memory(KEY);
    let mut writer = store.writer(None);
    writer.write(b"begin").unwrap();
    writer.skip(1 << 40).unwrap();
    writer.write(b"end").unwrap();
    assert_eq!(writer.len(), (1 << 40) + 8);
    let content = writer.finish().unwrap();
    assert!(store.usage().stored_bytes < 10_000);
    let reader = store.read(content).unwrap();
    let mut end = [1; 8];
    assert_eq!(reader.read_at(1 << 40, &mut end).unwrap(), 8);
    assert_eq!(&end, b"\0\0\0\0\0end");
    let hole = reader.next_hole(0).unwrap();
    assert!(hole < 100_000, "{hole}");
    let data = reader.next_data(hole).unwrap().unwrap();
    assert!((1 << 40) + 8 - data < 100_000);
    assert_eq!(reader.next_hole(data).unwrap(), content.len);
    assert_eq!(reader.next_data(content.len).unwrap(), None);
}

#[test]
fn compressible_data_is_stored_smaller() {
    let store = Store::in_memory(KEY);
    let text = b"the same words over and over ".repeat(40_000);
    let content = write_in(&store, Class::Cdc16K, &text, 4096);
    assert!(store.usage().stored_bytes < text.len() as u64 / 10);
    assert!(read_all(&store, content) == text);
}

#[test]
fn what_was_written_can_be_read_before_the_end() {
    let store = Store::in_memory(KEY);
    let data = noise(6 << 20, 9);
    let mut writer = store.writer_as(Class::Cdc16K);
    let mut len = 0;
    for part in data.chunks(700_001) {
        writer.write(part).unwrap();
        len += part.len();
        for at in [0, len / 3, len.saturating_sub(50_000), len.saturating_sub(1), len] {
            let mut buf = vec![1; 100_000];
            let read = writer.read_at(at as u64, &mut buf).unwrap();
            assert_eq!(read, (len - at).min(buf.len()));
            assert!(buf[..read] == data[at..at + read], "{at} of {len}");
        }
    }
}

#[test]
fn a_snapshot_is_the_content_so_far_and_writing_goes_on() {
    let store = Store::in_memory(KEY);
    let data = noise(2 << 20, 11);
    let mut writer = store.writer_as(Class::Cdc16K);
    let mut len = 0;
    for part in data.chunks(333_333) {
        writer.write(part).unwrap();
        len += part.len();
        let so_far = writer.snapshot().unwrap();
        assert_eq!(so_far, write_in(&store, Class::Cdc16K, &data[..len], 4096));
    }
    assert_eq!(writer.finish().unwrap(), write_in(&store, Class::Cdc16K, &data, 4096));
}

#[test]
fn a_writer_on_threads_gives_the_same_and_is_readable_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        crate::Config { dir: dir.path().to_owned(), id_key: KEY, reserve_bytes: 0, workers: 2 };
    let store = Store::open(config).unwrap();
    let data = noise(20 << 20, 12);
    let expected = write_in(&Store::in_memory(KEY), Class::Cdc16K, &data, 1 << 20);
    let mut writer = store.writer_as(Class::Cdc16K);
    let mut len = 0;
    for part in data.chunks(1 << 20) {
        writer.write(part).unwrap();
        len += part.len();
        let mut buf = vec![1; len];
        assert_eq!(writer.read_at(0, &mut buf).unwrap(), len);
        assert!(buf == data[..len]);
    }
    let content = writer.finish().unwrap();
    assert_eq!(content, expected);
    assert!(read_all(&store, content) == data);
    store.close().unwrap();
}

#[test]
fn the_id_of_a_content_is_frozen() {
    let store = Store::in_memory(KEY);
    let data = noise(1 << 20, 20);
    let content = write_in(&store, Class::Cdc16K, &data, 4096);
    assert_eq!(content.id.to_string(), GOLDEN_CONTENT);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn writes_and_skips_in_any_mix_give_the_content_of_the_bytes(
        parts in prop::collection::vec((any::<bool>(), 0usize..150_000, any::<u64>()), 0..8),
        class in prop::sample::select(CLASSES.to_vec()),
    ) {
        let store = Store::in_memory(KEY);
        let mut mixed = store.writer_as(class);
        let mut bytes = Vec::new();
        for (zero, len, seed) in parts {
            if zero {
                mixed.skip(len as u64).unwrap();
                bytes.resize(bytes.len() + len, 0);
            } else {
                let part = noise(len, seed);
                mixed.write(&part).unwrap();
                bytes.extend_from_slice(&part);
            }
        }
        let content = mixed.finish().unwrap();
        prop_assert_eq!(content, write_in(&store, class, &bytes, 10_000));
        prop_assert!(read_all(&store, content) == bytes);
    }
}

const GOLDEN_CONTENT: &str = "m4f8606038e2063b1672423609628a14fe5e7eda33001c57bdfefb973309706fb";

#[test]
fn what_was_taken_before_the_disk_was_full_is_finished_when_there_is_room() {
    let data = noise(9 << 20, 13);
    for (before, capacity) in [(1, 4_000), (300_000, 4_000), (2 << 20, 1 << 20), (5 << 20, 3 << 20)]
    {
        let disk = crate::backend::mem::MemBackend::new();
        let store = Store::on_backend(Arc::new(disk.clone()), KEY).unwrap();
        let mut writer = store.writer_as(Class::Cdc16K);
        writer.write(&data[..before]).unwrap();
        disk.faults(|faults| faults.capacity = Some(capacity));
        let mut taken = before;
        for part in data[before..].chunks(100_000) {
            let len = writer.len();
            match writer.write(part) {
                Ok(()) => taken += part.len(),
                Err(WriteError::Full) => {
                    assert_eq!(writer.len(), len, "a refused write was taken in part");
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(taken < data.len(), "nothing was refused");
        assert!(matches!(writer.snapshot(), Err(WriteError::Full)), "{taken} bytes on a full disk");
        let mut read = vec![0; taken];
        assert_eq!(writer.read_at(0, &mut read).unwrap(), taken);
        assert!(read == data[..taken], "taken and not readable");
        disk.faults(|faults| faults.capacity = None);
        let content = writer.snapshot().unwrap();
        assert_eq!(content.len, taken as u64);
        assert!(read_all(&store, content) == data[..taken]);
        writer.write(&data[taken..]).unwrap();
        let expected = write_in(&Store::in_memory(KEY), Class::Cdc16K, &data, 1 << 20);
        assert_eq!(writer.finish().unwrap(), expected);
    }
}
