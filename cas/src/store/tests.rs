//! What a store promises, on every backend, and what is left after every way of dying.

use super::*;
use crate::backend::mem::MemBackend;
use crate::error::Unavailable;

mod contract;
mod crash;
mod disk;
mod gc;

const KEY: IdKey = IdKey::from_bytes([5; 32]);

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn on(disk: &MemBackend) -> Store {
    Store::on_backend(Arc::new(disk.clone()), KEY).unwrap()
}

fn config(dir: &std::path::Path) -> Config {
    Config { dir: dir.to_owned(), id_key: KEY, reserve_bytes: 0, workers: 2 }
}

#[test]
fn errors_say_what_they_mean() {
    let id = ChunkId::from_bytes([0xab; 32]);
    let error = ReadError::Unavailable { id, reason: Unavailable::TimedOut };
    assert!(error.to_string().starts_with("chunk abab"));
    assert!(error.to_string().ends_with("it did not arrive in time"));
    let full = PathError::new("x", "write", std::io::ErrorKind::StorageFull.into());
    assert!(matches!(WriteError::from(full), WriteError::Full));
}
