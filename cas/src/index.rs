//! Where each chunk's record is: a cache of what the packs say.
//!
//! New chunks are in memory only and are written to LMDB in batches, off the way of whoever waits for a sync.
//!
//! Leaves out: looking into packs. A location found under an id's prefix is a *candidate*: the full id stands in the
//! record, and who uses a candidate compares it.
//!
//! Invariants:
//! - a batch holds everything appended to the packs up to the lengths it names, so what LMDB covers of each pack is a
//!   prefix of it, and what lies beyond can be found by scanning;
//! - of several records of one id, the one appended last is found first;
//! - no LMDB transaction outlives a call.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::error::PathError;
use crate::id::{ChunkId, HASH_LEN};

pub(crate) mod lmdb;

use lmdb::Lmdb;

/// Bytes of an id that LMDB keys are made of.
pub(crate) const PREFIX_LEN: usize = 16;
/// Most candidates kept for one prefix; more than one is a re-written chunk or an attack on 128 bits.
const CANDIDATES_MAX: usize = 16;

/// The first bytes of an id.
pub(crate) type Prefix = [u8; PREFIX_LEN];

/// A record in a pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Location {
    pub(crate) pack: u32,
    pub(crate) offset: u32,
    /// Length of the whole record.
    pub(crate) len: u32,
}

/// What is known of a pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PackInfo {
    /// Where its records end.
    pub(crate) end: u64,
    /// How many there are.
    pub(crate) records: u32,
    /// Whether a footer follows them.
    pub(crate) sealed: bool,
}

impl PackInfo {
    /// How long the file should be.
    pub(crate) fn file_len(&self) -> u64 {
        let footer = if self.sealed { crate::format::footer_len(self.records as usize) } else { 0 };
        self.end.saturating_add(footer)
    }
}

/// Chunks and pack lengths that belong together.
#[derive(Clone, Default, Debug)]
pub(crate) struct Batch {
    pub(crate) chunks: HashMap<ChunkId, Location, BuildHasherDefault<IdHasher>>,
    pub(crate) packs: BTreeMap<u32, PackInfo>,
}

impl Batch {
    /// The chunks in key order, so that a page is touched once and not once a chunk; those with one prefix in the order
    /// they were appended.
    fn sorted(&self) -> Vec<(Prefix, Location)> {
        let mut chunks: Vec<_> =
            self.chunks.iter().map(|(id, location)| (prefix(id), *location)).collect();
        chunks.sort_unstable_by_key(|(key, location)| (*key, location.pack, location.offset));
        chunks
    }
}

/// Ids are hashes under a secret key already; eight of their bytes need no second hash.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // The length prefix of the array comes through here too and must not hide the id.
        if bytes.len() == HASH_LEN
            && let Some(head) = bytes.first_chunk::<8>()
        {
            self.0 ^= u64::from_le_bytes(*head);
        }
    }

    fn write_usize(&mut self, _: usize) {}
}

/// Where batches go to stay.
enum Table {
    Lmdb(Lmdb),
    Memory { chunks: BTreeMap<Prefix, Vec<Location>>, packs: BTreeMap<u32, PackInfo> },
}

/// The index of one store.
pub(crate) struct Index {
    pending: RwLock<Pending>,
    // None once closed.
    table: RwLock<Option<Table>>,
    // Held for the whole of a flush: batches must reach the table in order.
    flushing: Mutex<()>,
}

#[derive(Default)]
struct Pending {
    fresh: Batch,
    flushing: Arc<Batch>,
}

impl Index {
    pub(crate) fn in_memory() -> Self {
        Self::with(Table::Memory { chunks: BTreeMap::new(), packs: BTreeMap::new() })
    }

    pub(crate) fn on_disk(lmdb: Lmdb) -> Self {
        Self::with(Table::Lmdb(lmdb))
    }

    fn with(table: Table) -> Self {
        Self {
            pending: RwLock::default(),
            table: RwLock::new(Some(table)),
            flushing: Mutex::default(),
        }
    }

    /// The packs as far as the index covers them.
    pub(crate) fn packs(&self) -> Result<BTreeMap<u32, PackInfo>, PathError> {
        match &*self.table.read() {
            Some(Table::Lmdb(lmdb)) => lmdb.packs(),
            Some(Table::Memory { packs, .. }) => Ok(packs.clone()),
            None => Ok(BTreeMap::new()),
        }
    }

    /// The record of a chunk appended lately: certain, not a candidate.
    pub(crate) fn recent(&self, id: &ChunkId) -> Option<Location> {
        let pending = self.pending.read();
        pending.fresh.chunks.get(id).or_else(|| pending.flushing.chunks.get(id)).copied()
    }

    /// Records that may be the chunk's, newest first.
    pub(crate) fn candidates(&self, id: &ChunkId) -> Result<Vec<Location>, PathError> {
        match &*self.table.read() {
            Some(Table::Lmdb(lmdb)) => lmdb.get(&prefix(id)),
            Some(Table::Memory { chunks, .. }) => {
                Ok(chunks.get(&prefix(id)).cloned().unwrap_or_default())
            }
            None => Ok(Vec::new()),
        }
    }

    /// Notes records appended to a pack, and how far it reaches now. Gives the number of chunks not flushed yet.
    pub(crate) fn add(
        &self,
        pack: u32,
        info: PackInfo,
        records: impl IntoIterator<Item = (ChunkId, Location)>,
    ) -> usize {
        let mut pending = self.pending.write();
        pending.fresh.packs.insert(pack, info);
        pending.fresh.chunks.extend(records);
        pending.fresh.chunks.len()
    }

    /// Writes all that is pending to the table.
    pub(crate) fn flush(&self) -> Result<(), PathError> {
        let _turn = self.flushing.lock();
        let batch = {
            let mut pending = self.pending.write();
            pending.flushing = Arc::new(std::mem::take(&mut pending.fresh));
            pending.flushing.clone()
        };
        let written = self.write(&batch);
        let mut pending = self.pending.write();
        pending.flushing = Arc::default();
        if written.is_err() {
            // Older than what has come since, which stays in front.
            for (id, location) in &batch.chunks {
                pending.fresh.chunks.entry(*id).or_insert(*location);
            }
            for (pack, info) in &batch.packs {
                pending.fresh.packs.entry(*pack).or_insert(*info);
            }
        }
        written
    }

    /// Writes a batch straight to the table, for rebuilding.
    pub(crate) fn write(&self, batch: &Batch) -> Result<(), PathError> {
        match &mut *self.table.write() {
            Some(Table::Memory { chunks, packs }) => {
                for (key, location) in batch.sorted() {
                    insert(chunks.entry(key).or_default(), location);
                }
                packs.extend(&batch.packs);
                return Ok(());
            }
            Some(Table::Lmdb(_)) => {}
            None => return Ok(()),
        }
        // LMDB's readers and its writer do not hinder each other, so neither may our lock.
        match &*self.table.read() {
            Some(Table::Lmdb(lmdb)) => lmdb.write(batch),
            _ => Ok(()),
        }
    }

    /// Forgets a pack and the records in it, which are those of `ids`. The pack is one that gets no more records.
    pub(crate) fn forget(&self, pack: u32, ids: &[ChunkId]) -> Result<(), PathError> {
        self.flush()?;
        let _turn = self.flushing.lock();
        {
            let mut pending = self.pending.write();
            pending.fresh.packs.remove(&pack);
            for id in ids {
                if pending.fresh.chunks.get(id).is_some_and(|location| location.pack == pack) {
                    pending.fresh.chunks.remove(id);
                }
            }
        }
        match &mut *self.table.write() {
            Some(Table::Lmdb(lmdb)) => lmdb.forget(pack, ids),
            Some(Table::Memory { chunks, packs }) => {
                packs.remove(&pack);
                for id in ids {
                    if let Some(list) = chunks.get_mut(&prefix(id)) {
                        list.retain(|location| location.pack != pack);
                        if list.is_empty() {
                            chunks.remove(&prefix(id));
                        }
                    }
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Forgets everything, for rebuilding.
    pub(crate) fn clear(&self) -> Result<(), PathError> {
        let _turn = self.flushing.lock();
        *self.pending.write() = Pending::default();
        match &mut *self.table.write() {
            Some(Table::Lmdb(lmdb)) => lmdb.clear(),
            Some(Table::Memory { chunks, packs }) => {
                chunks.clear();
                packs.clear();
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Makes the table durable and lets go of it.
    pub(crate) fn close(&self) -> Result<(), PathError> {
        let _turn = self.flushing.lock();
        match self.table.write().take() {
            Some(Table::Lmdb(lmdb)) => lmdb.close(),
            _ => Ok(()),
        }
    }
}

/// The part of an id that is the key.
pub(crate) fn prefix(id: &ChunkId) -> Prefix {
    id.as_bytes().first_chunk().copied().unwrap_or_default()
}

/// Puts a record before the older candidates: those in earlier packs, or before it in its own.
fn insert(list: &mut Vec<Location>, location: Location) {
    if !list.contains(&location) {
        let age = |location: &Location| (location.pack, location.offset);
        list.insert(list.partition_point(|other| age(other) > age(&location)), location);
        list.truncate(CANDIDATES_MAX);
    }
}

#[cfg(test)]
mod tests;
