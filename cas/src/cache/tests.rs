//! The bound and the order of leaving.

use super::*;
use crate::id::IdKey;
use crate::store::Store;

fn id(byte: u8) -> ChunkId {
    ChunkId::from_bytes([byte; 32])
}

#[test]
fn the_least_recently_used_chunk_leaves_first_and_the_bound_holds() {
    let cache = ChunkCache::new(30);
    for byte in 1..=3 {
        cache.insert(id(byte), vec![byte; 10].into());
    }
    assert!(cache.get(&id(1)).is_some());
    cache.insert(id(4), vec![4; 10].into());
    assert_eq!(cache.bytes(), 30);
    assert!(cache.get(&id(2)).is_none());
    assert!(cache.get(&id(1)).is_some() && cache.get(&id(3)).is_some());
    cache.insert(id(1), vec![9; 20].into());
    assert_eq!(cache.bytes(), 30);
    cache.insert(id(5), vec![0; 31].into());
    assert!(cache.get(&id(5)).is_none());
}

#[test]
fn a_cached_chunk_is_not_asked_for_twice() {
    struct Counting(Store, Mutex<u32>);
    impl ChunkSource for Counting {
        fn chunk(&self, id: &ChunkId) -> Result<Bytes, ReadError> {
            *self.1.lock() += 1;
            self.0.chunk(id)
        }
    }
    let store = Store::in_memory(IdKey::from_bytes([1; 32]));
    let chunk = store.put(b"once").unwrap();
    let counting = Arc::new(Counting(store, Mutex::new(0)));
    let cached = CachedSource::new(Arc::new(ChunkCache::new(1 << 20)), counting.clone());
    for _ in 0..3 {
        assert_eq!(&cached.chunk(&chunk).unwrap()[..], b"once");
    }
    assert_eq!(*counting.1.lock(), 1);
}
