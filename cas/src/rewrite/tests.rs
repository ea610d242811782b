//! Rewriting gives what writing gives, and touches little.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::id::{ChunkId, IdKey};
use crate::reader::ChunkSource;

const KEY: IdKey = IdKey::from_bytes([5; 32]);

struct Patch {
    ranges: Vec<Range<u64>>,
    bytes: Vec<u8>,
}

impl Edits for Patch {
    fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset + buf.len() as u64;
        assert!(
            self.ranges.iter().any(|range| range.start <= offset && end <= range.end),
            "{offset}..{end} is not within one range"
        );
        buf.copy_from_slice(&self.bytes[offset as usize..end as usize]);
        Ok(())
    }
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn write(store: &Store, class: Class, bytes: &[u8]) -> Content {
    let mut writer = store.writer_as(class);
    writer.write(bytes).unwrap();
    writer.finish().unwrap()
}

/// What the edits make of the base, byte by byte.
fn model(base: &[u8], patch: &Patch, new_len: usize) -> Vec<u8> {
    let mut bytes = base.to_vec();
    bytes.resize(new_len, 0);
    for range in &patch.ranges {
        let range = range.start as usize..(range.end as usize).min(new_len);
        if !range.is_empty() {
            bytes[range.clone()].copy_from_slice(&patch.bytes[range]);
        }
    }
    bytes
}

fn check(class: Class, base: &[u8], patch: &Patch, new_len: usize) {
    let store = Store::in_memory(KEY);
    let content = write(&store, class, base);
    let reader = store.read(content).unwrap();
    let rewritten = rewrite_as(&store, Some(&reader), patch, new_len as u64, class).unwrap();
    let bytes = model(base, patch, new_len);
    assert_eq!(rewritten.len, new_len as u64);
    let mut read = vec![1; new_len];
    store.read(rewritten).unwrap().read_at(0, &mut read).unwrap();
    assert!(read == bytes, "other bytes");
    assert_eq!(rewritten, write(&store, class, &bytes), "another content");
}

fn patch(ranges: Vec<Range<u64>>, seed: u64) -> Patch {
    let len = ranges.last().map_or(0, |range| range.end) as usize;
    Patch { ranges, bytes: noise(len, seed) }
}

#[test]
fn a_change_of_the_byte_after_a_cut_is_seen() {
    let data = noise(400_000, 1);
    let store = Store::in_memory(KEY);
    let reader = store.read(write(&store, Class::Cdc16K, &data)).unwrap();
    let mut cut = 0;
    while let Some(piece) = reader.piece_at(cut).unwrap() {
        cut = piece.end();
        for at in [cut.saturating_sub(1), cut, cut + 1] {
            if at < data.len() as u64 {
                for seed in 0..4 {
                    check(Class::Cdc16K, &data, &patch(vec![at..at + 1], seed), data.len());
                }
            }
        }
    }
}

#[test]
fn truncation_just_behind_any_cut_is_canonical() {
    let data = noise(400_000, 6);
    let store = Store::in_memory(KEY);
    let reader = store.read(write(&store, Class::Cdc16K, &data)).unwrap();
    let mut cut = 0;
    while let Some(piece) = reader.piece_at(cut).unwrap() {
        cut = piece.end();
        for new_len in [cut - 1, cut, cut + 1, cut + 2] {
            check(Class::Cdc16K, &data, &patch(vec![], 0), new_len as usize);
            check(
                Class::Cdc16K,
                &data[..new_len.min(400_000) as usize],
                &patch(vec![], 0),
                400_000,
            );
        }
    }
}

#[test]
fn growth_truncation_and_holes_are_canonical() {
    let mut data = noise(300_000, 2);
    data.extend(vec![0; 1_000_000]);
    data.extend(noise(200_000, 3));
    for class in [Class::Cdc16K, Class::Cdc64K, Class::Fixed64K] {
        for new_len in [0, 1, 299_999, 500_000, 1_400_000, data.len(), data.len() + 1, 4_000_000] {
            check(class, &data, &patch(vec![], 0), new_len);
            check(class, &data, &patch(vec![350_000..350_001, 900_000..1_000_000], 1), new_len);
        }
        check(class, &data, &patch(vec![2_000_000..2_000_100], 1), 3_000_000);
        let zeros = Patch { ranges: vec![0..300_000], bytes: vec![0; 300_000] };
        check(class, &data, &zeros, data.len());
    }
    check(Class::Cdc16K, b"", &patch(vec![0..100_000], 1), 100_000);
    check(Class::Cdc16K, b"short", &patch(vec![2..3], 1), 5);
}

#[test]
fn a_long_content_shares_manifest_nodes_and_is_canonical() {
    // Short fixed chunks do not exist; many equal ones make a long list cheaply.
    let block = noise(64 << 10, 7);
    let store = Store::in_memory(KEY);
    let write_blocks = |edited: Option<(usize, &[u8])>| {
        let mut writer = store.writer_as(Class::Fixed64K);
        for number in 0..9_000usize {
            let mut block = block.clone();
            block[..8].copy_from_slice(&(number % 3000).to_le_bytes());
            if let Some((_, bytes)) = edited.filter(|(at, _)| *at == number) {
                block[..bytes.len()].copy_from_slice(bytes);
            }
            writer.write(&block).unwrap();
        }
        writer.finish().unwrap()
    };
    let base = write_blocks(None);
    let before = store.usage().chunks;
    let counting = Arc::new(Counting { store: store.clone(), asked: Mutex::default() });
    let reader = Reader::open(base, counting.clone()).unwrap();
    let at = 5_000u64 << 16;
    let bytes = noise(4096, 8);
    struct At<'a>([Range<u64>; 1], &'a [u8]);
    impl Edits for At<'_> {
        fn ranges(&self) -> &[Range<u64>] {
            &self.0
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            let from = (offset - self.0[0].start) as usize;
            buf.copy_from_slice(&self.1[from..from + buf.len()]);
            Ok(())
        }
    }
    let edit = At([at..at + 4096], &bytes);
    let rewritten = rewrite(&store, Some(&reader), &edit, base.len).unwrap();
    let added = store.usage().chunks - before;
    assert!(added <= 4, "{added} chunks for one edit");
    assert!(counting.asked.lock().len() <= 12, "{} chunks read", counting.asked.lock().len());
    assert_eq!(rewritten, write_blocks(Some((5_000, &bytes))));
}

struct Counting {
    store: Store,
    asked: Mutex<Vec<ChunkId>>,
}

impl ChunkSource for Counting {
    fn chunk(&self, id: &ChunkId) -> Result<Bytes, ReadError> {
        self.asked.lock().push(*id);
        self.store.chunk(id)
    }
}

#[test]
fn only_what_is_near_an_edit_is_read() {
    let store = Store::in_memory(KEY);
    let data = noise(8 << 20, 4);
    let content = write(&store, Class::Cdc16K, &data);
    let counting = Arc::new(Counting { store: store.clone(), asked: Mutex::default() });
    let reader = Reader::open(content, counting.clone()).unwrap();
    let patch = patch(vec![4_000_000..4_000_100], 1);
    let before = store.usage().stored_bytes;
    rewrite(&store, Some(&reader), &patch, content.len).unwrap();
    let read = counting.asked.lock().len();
    assert!(read <= 20, "{read} chunks read");
    let written = store.usage().stored_bytes - before;
    assert!(written < 200_000, "{written} bytes written");
}

#[test]
fn chunks_come_through_the_readers_source() {
    let other = Store::in_memory(KEY);
    let data = noise(1 << 20, 4);
    let content = write(&other, Class::Cdc16K, &data);
    let reader = other.read(content).unwrap();
    let store = Store::in_memory(KEY);
    let patch = patch(vec![500_000..500_001], 1);
    let rewritten = rewrite(&store, Some(&reader), &patch, content.len).unwrap();
    assert_eq!(rewritten, write(&other, Class::Cdc16K, &model(&data, &patch, data.len())));
    let missing = crate::missing_chunks(rewritten, &store, 1000).unwrap();
    assert!(!missing.complete && missing.ids.len() > 30, "what was taken over is not here");
}

#[test]
fn the_class_changes_only_when_much_of_the_content_does() {
    let store = Store::in_memory(KEY);
    let mut writer = store.writer_as(Class::Cdc16K);
    writer.write(&noise(100_000, 1)).unwrap();
    writer.skip(2 << 30).unwrap();
    let reader = store.read(writer.finish().unwrap()).unwrap();
    let class = |content: Content| store.read(content).unwrap().class();
    let small = rewrite(&store, Some(&reader), &patch(vec![5..6], 1), reader.len()).unwrap();
    assert_eq!(class(small), Class::Cdc16K);
    let grown = rewrite(&store, Some(&reader), &patch(vec![], 1), 3 << 30).unwrap();
    assert_eq!(class(grown), Class::Cdc64K);
}

/// The same patch, written here and there.
struct AtRandom(Patch);

impl Edits for AtRandom {
    fn ranges(&self) -> &[Range<u64>] {
        self.0.ranges()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buf)
    }

    fn written(&self) -> Written {
        Written::AtRandom
    }
}

#[test]
fn what_is_written_anew_at_random_is_cut_at_fixed_lengths() {
    let store = Store::in_memory(KEY);
    let class = |content: Content| store.read(content).unwrap().class();
    let data = noise(4 << 20, 1);
    let new = rewrite(&store, None, &AtRandom(patch(vec![0..4 << 20], 1)), 4 << 20).unwrap();
    assert_eq!(class(new), Class::Fixed64K);
    let reader = store.read(write(&store, Class::Cdc16K, &data)).unwrap();
    let little =
        rewrite(&store, Some(&reader), &AtRandom(patch(vec![5..900], 1)), 4 << 20).unwrap();
    assert_eq!(class(little), Class::Cdc16K, "cutting all anew is not worth a small change");
    let much = AtRandom(patch(vec![0..1 << 20, 2 << 20..3 << 20], 1));
    let much = rewrite(&store, Some(&reader), &much, 4 << 20).unwrap();
    assert_eq!(class(much), Class::Fixed64K);
    let reader = store.read(much).unwrap();
    let again = rewrite(&store, Some(&reader), &patch(vec![0..4 << 20], 1), 4 << 20).unwrap();
    assert_eq!(class(again), Class::Fixed64K, "a class once found fit stays");
}

#[test]
fn an_error_of_the_edits_is_told() {
    struct Broken([Range<u64>; 1]);
    impl Edits for Broken {
        fn ranges(&self) -> &[Range<u64>] {
            &self.0
        }
        fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
    let store = Store::in_memory(KEY);
    let range = 0..10;
    let result = rewrite(&store, None, &Broken([range]), 10);
    assert!(matches!(result, Err(WriteError::Io(_))), "{result:?}");
}

prop_compose! {
    /// Data with noise, text, and zeros of any length.
    fn arb_data()(
        parts in prop::collection::vec((0u8..3, 0usize..120_000, any::<u64>()), 0..6),
    ) -> Vec<u8> {
        let mut data = Vec::new();
        for (kind, len, seed) in parts {
            match kind {
                0 => data.extend(noise(len, seed)),
                1 => data.resize(data.len() + len, 0),
                _ => data.extend(b"abcdefg ".iter().cycle().take(len)),
            }
        }
        data
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn rewriting_equals_writing(
        base in arb_data(),
        cuts in prop::collection::vec(0u64..500_000, 0..8),
        new_len in 0usize..500_000,
        keep_len in any::<bool>(),
        zero_edit in any::<bool>(),
        seed in any::<u64>(),
        class in prop::sample::select(vec![Class::Cdc16K, Class::Cdc64K, Class::Fixed64K]),
    ) {
        let new_len = if keep_len { base.len() } else { new_len };
        let mut cuts = cuts;
        cuts.sort_unstable();
        let ranges: Vec<_> = cuts.chunks_exact(2).map(|pair| pair[0]..pair[1]).collect();
        let mut patch = patch(ranges, seed);
        if zero_edit {
            patch.bytes.fill(0);
        }
        check(class, &base, &patch, new_len);
    }

    #[test]
    fn small_edits_anywhere_equal_writing(
        base in arb_data(),
        at in any::<prop::sample::Index>(),
        len in 1u64..40,
        seed in any::<u64>(),
    ) {
        prop_assume!(!base.is_empty());
        let start = at.index(base.len()) as u64;
        let patch = patch(vec![start..start + len], seed);
        check(Class::Cdc16K, &base, &patch, base.len());
    }
}
