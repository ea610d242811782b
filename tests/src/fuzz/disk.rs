//! Damaged disks: whatever stands in the log or in packs, opening gives what is sound or says what is wrong.

use std::sync::Arc;

use cas::{IdKey, Store};
use journal::kv::mem::MemKv;
use journal::state::State;
use journal::{Frontier, Journal};

use super::fold;
use super::memory::Memory;

/// The first segment of a log.
pub(super) fn log(input: &[u8]) {
    let name = first_segment();
    let storage = Arc::new(Memory::default());
    storage.0.lock().insert(name, input.to_vec());
    let open = || Journal::open_with(storage.clone(), State::Memory(MemKv::default()), None);
    let Ok(journal) = open() else { return };
    let found = journal.lacking(&Frontier::default(), usize::MAX);
    // What was cut off is cut off: opening once more finds the same.
    let (hash, len) = (journal.tree_hash(), found.len());
    let report = journal.verify(&mut |_| {});
    assert!(report.is_ok(), "what was opened cannot be read");
    drop(journal);
    let again = open().unwrap_or_else(|error| panic!("the second time it does not open: {error}"));
    assert_eq!(again.tree_hash(), hash, "the second time it shows something else");
    assert_eq!(again.lacking(&Frontier::default(), usize::MAX).len(), len);
}

/// What a new log's only file is called.
fn first_segment() -> String {
    let (_, storage) = fold::stored_journal();
    let files = storage.0.lock();
    files.keys().next().cloned().unwrap_or_default()
}

pub(super) fn log_seeds() -> Vec<Vec<u8>> {
    let (_, storage) = fold::stored_journal();
    let files = storage.0.lock();
    files.values().cloned().collect()
}

const KEY: [u8; 32] = [1; 32];

/// Records of a pack, at most: what a store over it may show.
const CHUNKS: u64 = 3;

fn config(dir: &std::path::Path) -> cas::Config {
    let id_key = IdKey::from_bytes(KEY);
    cas::Config { dir: dir.to_path_buf(), id_key, reserve_bytes: 0, workers: 1 }
}

fn texts() -> Vec<Vec<u8>> {
    (0..CHUNKS).map(|n| format!("chunk {n} ").repeat(50 << n).into_bytes()).collect()
}

/// The only pack of a store.
pub(super) fn packs(input: &[u8]) {
    let Ok(dir) = tempfile::tempdir() else { return };
    let packs = dir.path().join("packs");
    std::fs::create_dir_all(&packs).unwrap_or_else(|error| panic!("{error}"));
    let file = packs.join(pack_name());
    std::fs::write(&file, input).unwrap_or_else(|error| panic!("{error}"));
    let Ok(store) = Store::open(config(dir.path())) else { return };
    let key = IdKey::from_bytes(KEY);
    for text in texts() {
        let id = cas::ChunkId::of(&key, &text);
        if let Ok(raw) = store.get(&id) {
            assert_eq!(raw, text, "a chunk that is not what its name says");
        }
    }
    let _ = store.scrub(&mut |_| {});
    let fresh = vec![7u8; 1_000];
    let mut writer = store.writer(None);
    let written = writer.write(&fresh).and_then(|()| writer.finish());
    let content = written.unwrap_or_else(|error| panic!("it takes nothing: {error}"));
    store.sync().unwrap_or_else(|error| panic!("it does not keep: {error}"));
    drop(store);
    let store = Store::open(config(dir.path())).unwrap_or_else(|error| panic!("{error}"));
    let raw = store.get(&content.id.root());
    assert!(raw.is_ok_and(|raw| raw == fresh), "what was written after damage is gone");
}

/// Packs as a store leaves them, open and sealed.
pub(super) fn pack_seeds() -> Vec<Vec<u8>> {
    let Ok(dir) = tempfile::tempdir() else { return Vec::new() };
    let mut seeds = Vec::new();
    let Ok(store) = Store::open(config(dir.path())) else { return seeds };
    for text in texts() {
        let mut writer = store.writer(None);
        if writer.write(&text).and_then(|()| writer.finish()).is_err() {
            return seeds;
        }
    }
    let pack = || std::fs::read(dir.path().join("packs").join(pack_name()));
    if store.sync().is_ok() {
        seeds.extend(pack().ok());
    }
    let _ = store.close();
    drop(store);
    seeds.extend(pack().ok());
    seeds
}

fn pack_name() -> String {
    format!("{:08}.pack", 0)
}
