//! The real chunk store in memory, and one that lies.

use std::sync::atomic::{AtomicUsize, Ordering};

use cas::{ChunkId, Content, IdKey, MissingChunks, Store, StoredChunk, WriteError};
use parking_lot::Mutex;

use crate::host::{ChunkHost, PutError};

/// How a store answers its peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manner {
    Honest,
    /// Sends other bytes than were asked for.
    WrongBytes,
}

/// See the module's words.
pub(crate) struct FakeStore {
    pub(crate) store: Store,
    pub(crate) manner: Mutex<Manner>,
    pub(crate) given: AtomicUsize,
    pub(crate) put: AtomicUsize,
}

pub(crate) const KEY: [u8; 32] = [9; 32];

impl FakeStore {
    pub(crate) fn new() -> Self {
        Self {
            store: Store::in_memory(IdKey::from_bytes(KEY)),
            manner: Mutex::new(Manner::Honest),
            given: AtomicUsize::new(0),
            put: AtomicUsize::new(0),
        }
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> Content {
        let mut writer = self.store.writer(Some(bytes.len() as u64));
        writer.write(bytes).unwrap();
        let content = writer.finish().unwrap();
        self.store.sync().unwrap();
        content
    }

    pub(crate) fn read(&self, content: Content) -> Vec<u8> {
        let reader = self.store.read(content).unwrap();
        let mut out = vec![0; content.len as usize];
        let mut at = 0;
        while at < out.len() {
            let n = reader.read_at(at as u64, &mut out[at..]).unwrap();
            assert!(n > 0, "content ends early");
            at += n;
        }
        out
    }

    pub(crate) fn is_complete(&self, content: &Content) -> bool {
        cas::missing_chunks(*content, &self.store, 1).is_ok_and(|m| m.complete)
    }
}

impl ChunkHost for FakeStore {
    fn get_stored(&self, id: &ChunkId) -> Option<StoredChunk> {
        self.given.fetch_add(1, Ordering::Relaxed);
        let mut chunk = self.store.get_stored(id).ok()?;
        if *self.manner.lock() == Manner::WrongBytes {
            chunk.data = vec![0x55; chunk.data.len()].into();
        }
        Some(chunk)
    }

    fn put_stored(&self, id: ChunkId, chunk: StoredChunk) -> Result<(), PutError> {
        self.put.fetch_add(1, Ordering::Relaxed);
        self.store.put_stored(id, &chunk).map_err(|error| match error {
            WriteError::Corrupt { .. } => PutError::Corrupt,
            WriteError::Full => PutError::Full,
            _ => PutError::Failed,
        })
    }

    fn has(&self, id: &ChunkId) -> bool {
        self.store.has(id)
    }

    fn missing(&self, content: Content, limit: usize) -> Option<MissingChunks> {
        cas::missing_chunks(content, &self.store, limit).ok()
    }

    fn sync(&self) -> bool {
        self.store.sync().is_ok()
    }
}
