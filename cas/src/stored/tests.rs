//! Compression both ways, and hostile stored chunks.

use super::*;

fn store(raw: &[u8]) -> StoredChunk {
    let mut compressor = Compressor::new();
    let (flags, data) = compressor.store(raw);
    StoredChunk { flags, raw_len: raw.len() as u32, data: Bytes::copy_from_slice(&data) }
}

fn noise(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut out);
    out
}

#[test]
fn every_length_comes_back() {
    for len in [0, 1, 63, 64, 4096, 8192, 8193, 65_534, 65_535, 65_536, CHUNK_LEN_MAX] {
        for raw in [noise(len), vec![7; len]] {
            assert_eq!(store(&raw).raw_unverified().unwrap(), raw, "{len}");
        }
    }
}

#[test]
fn only_what_shrinks_is_compressed() {
    assert_eq!(store(&vec![7; 16 << 10]).flags, FLAG_LZ4);
    let raw = noise(16 << 10);
    let stored = store(&raw);
    assert_eq!((stored.flags, stored.data.len()), (0, raw.len()));
    // Below the probe's length it is the whole that counts: 15/16 of this is noise.
    let mut raw = noise(4096);
    raw[..128].fill(0);
    assert_eq!(store(&raw).flags, 0);
}

#[test]
fn a_long_chunk_with_an_incompressible_begin_is_not_tried() {
    let mut raw = noise(64 << 10);
    raw[PROBE_LEN..].fill(0);
    assert_eq!(store(&raw).flags, 0);
}

#[test]
fn chunks_that_lie_are_refused() {
    let sound = store(&vec![7; 16 << 10]);
    let lies = [
        StoredChunk { raw_len: sound.raw_len + 1, ..sound.clone() },
        StoredChunk { raw_len: sound.raw_len - 1, ..sound.clone() },
        StoredChunk { raw_len: u32::MAX, ..sound.clone() },
        StoredChunk { flags: 0, ..sound.clone() },
        StoredChunk { flags: 3, ..sound.clone() },
        StoredChunk { data: sound.data.slice(..sound.data.len() - 1), ..sound.clone() },
        StoredChunk {
            flags: 0,
            raw_len: (CHUNK_LEN_MAX + 1) as u32,
            data: vec![0; CHUNK_LEN_MAX + 1].into(),
        },
    ];
    for lie in lies {
        assert_eq!(lie.raw_unverified(), None);
    }
    let key = IdKey::from_bytes([1; 32]);
    let id = ChunkId::of(&key, &[7; 16 << 10]);
    assert!(sound.raw(&key, &id).is_some());
    assert!(sound.raw(&IdKey::from_bytes([2; 32]), &id).is_none());
}
