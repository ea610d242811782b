//! A bounded cache of raw chunks before any source.
//!
//! Leaves out: caching across processes; deciding what to read ahead.
//!
//! Invariants: the bytes held never exceed the limit; what is given was verified by the source it came from.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::error::ReadError;
use crate::id::ChunkId;
use crate::reader::ChunkSource;

/// Chunks by id, the least recently used leaving first.
pub struct ChunkCache {
    bytes_max: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    chunks: HashMap<ChunkId, (u64, Bytes)>,
    // Invariant: exactly the chunks above, by the tick of their last use.
    by_use: BTreeMap<u64, ChunkId>,
    tick: u64,
    bytes: usize,
}

impl ChunkCache {
    /// A cache of at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, held: Mutex::default() }
    }

    /// The chunk, if it is held.
    pub fn get(&self, id: &ChunkId) -> Option<Bytes> {
        let mut held = self.held.lock();
        let held = &mut *held;
        let (used, bytes) = held.chunks.get_mut(id)?;
        held.by_use.remove(used);
        held.tick += 1;
        *used = held.tick;
        held.by_use.insert(held.tick, *id);
        Some(bytes.clone())
    }

    /// Holds a verified chunk. One longer than the whole cache is not held.
    pub fn insert(&self, id: ChunkId, chunk: Bytes) {
        if chunk.len() > self.bytes_max {
            return;
        }
        let mut held = self.held.lock();
        held.remove(&id);
        while held.bytes.saturating_add(chunk.len()) > self.bytes_max {
            let Some((_, oldest)) = held.by_use.pop_first() else { break };
            held.remove(&oldest);
        }
        held.tick += 1;
        let tick = held.tick;
        held.bytes = held.bytes.saturating_add(chunk.len());
        held.by_use.insert(tick, id);
        held.chunks.insert(id, (tick, chunk));
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        self.held.lock().bytes
    }
}

impl Held {
    fn remove(&mut self, id: &ChunkId) {
        if let Some((used, bytes)) = self.chunks.remove(id) {
            self.by_use.remove(&used);
            self.bytes = self.bytes.saturating_sub(bytes.len());
        }
    }
}

/// A source with a cache before it.
pub struct CachedSource {
    cache: Arc<ChunkCache>,
    source: Arc<dyn ChunkSource>,
}

impl CachedSource {
    /// Puts `cache`, which others may share, before `source`.
    pub fn new(cache: Arc<ChunkCache>, source: Arc<dyn ChunkSource>) -> Self {
        Self { cache, source }
    }
}

impl ChunkSource for CachedSource {
    fn chunk(&self, id: &ChunkId) -> Result<Bytes, ReadError> {
        if let Some(chunk) = self.cache.get(id) {
            return Ok(chunk);
        }
        let chunk = self.source.chunk(id)?;
        self.cache.insert(*id, chunk.clone());
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests;
