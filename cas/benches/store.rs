//! How fast contents are written, read, cut and rewritten, on a disk and in memory. One line a case.
//!
//! `cargo bench -p cas`; `CAS_BENCH_DIR` chooses the disk, `CAS_BENCH_MIB` the size of the content.
#![allow(
    missing_docs,
    clippy::single_range_in_vec_init,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing
)]

use std::ops::Range;
use std::time::Instant;

use cas::{Class, Config, Content, Edits, IdKey, Store};

/// Bytes handed to the writer at once: what a kernel hands to a file system.
const WRITE_LEN: usize = 128 << 10;

struct Edit(Vec<Range<u64>>);

impl Edits for Edit {
    fn ranges(&self) -> &[Range<u64>] {
        &self.0
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        random(offset, buf);
        Ok(())
    }
}

/// Bytes that no compressor shortens.
fn random(seed: u64, buf: &mut [u8]) {
    let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
    for word in buf.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let bytes = state.to_le_bytes();
        word.copy_from_slice(&bytes[..word.len()]);
    }
}

fn report(what: &str, bytes: u64, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!("{what:<44} {seconds:>8.3} s {:>8.0} MB/s", bytes as f64 / seconds / 1e6);
}

fn write(store: &Store, data: &[u8], class: Class) -> Content {
    let mut writer = store.writer_as(class);
    for part in data.chunks(WRITE_LEN) {
        writer.write(part).unwrap();
    }
    writer.finish().unwrap()
}

fn main() {
    let mib: usize = std::env::var("CAS_BENCH_MIB").map_or(512, |text| text.parse().unwrap());
    let dir = match std::env::var_os("CAS_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    let mut data = vec![0; mib << 20];
    random(1, &mut data);
    let len = data.len() as u64;
    for class in [Class::Cdc16K, Class::Cdc64K, Class::Cdc256K, Class::Fixed64K] {
        let config = Config {
            dir: dir.path().join(format!("{class:?}")),
            id_key: IdKey::from_bytes([7; 32]),
            reserve_bytes: 0,
            workers: 2,
        };
        let store = Store::open(config.clone()).unwrap();
        let start = Instant::now();
        let content = write(&store, &data, class);
        report(&format!("{class:?}: write, random"), len, start);
        let start = Instant::now();
        store.sync().unwrap();
        report(&format!("{class:?}: then sync"), len, start);
        let start = Instant::now();
        assert_eq!(write(&store, &data, class), content);
        report(&format!("{class:?}: write again, all known"), len, start);
        let start = Instant::now();
        let reader = store.read(content).unwrap();
        let mut buf = vec![0; WRITE_LEN];
        let mut at = 0;
        while at < len {
            at += reader.read_at(at, &mut buf).unwrap() as u64;
        }
        report(&format!("{class:?}: read, verified"), len, start);
        let start = Instant::now();
        let edit = Edit(vec![len / 2..len / 2 + 4096]);
        cas::rewrite(&store, Some(&reader), &edit, len).unwrap();
        report(&format!("{class:?}: rewrite after a 4 KiB edit"), 4096, start);
        let start = Instant::now();
        store.close().unwrap();
        report(&format!("{class:?}: close"), len, start);
        let start = Instant::now();
        let store = Store::open(config).unwrap();
        report(&format!("{class:?}: open"), len, start);
        let start = Instant::now();
        store.rebuild_index().unwrap();
        report(&format!("{class:?}: rebuild the index"), len, start);
        store.close().unwrap();
    }
    let store = Store::in_memory(IdKey::from_bytes([7; 32]));
    let text: Vec<u8> =
        (0..len / 4).flat_map(|i| format!("{:03} ", i % 997).into_bytes()).collect();
    let start = Instant::now();
    write(&store, &text[..data.len().min(text.len())], Class::Cdc16K);
    report("memory: write, compressible, one thread", len, start);
    let start = Instant::now();
    let count: u32 = 20_000;
    for number in 0..count {
        let mut small = [0; 4096];
        random(u64::from(number) + 2, &mut small);
        let mut writer = store.writer(Some(4096));
        writer.write(&small).unwrap();
        writer.finish().unwrap();
    }
    report("memory: 20,000 contents of 4 KiB", u64::from(count) * 4096, start);
}
