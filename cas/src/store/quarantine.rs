//! Chunks known to be damaged, remembered across restarts.
//!
//! Leaves out: getting them again.
//!
//! Invariants: a listed chunk does not count as present; losing the list costs nothing but finding the damage again,
//! so failures to write it are logged and no more.

use std::collections::HashSet;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use crate::backend::Backend;
use crate::format::Input;
use crate::id::ChunkId;

/// Name of the list among the packs.
pub(super) const NAME: &str = "quarantine";
/// First bytes: magic, version u16, zero u16.
const HEADER: [u8; 8] = *b"AtQu\x01\0\0\0";
/// Length of a record: what happened u8, id, crc32c of both.
const RECORD_LEN: usize = 37;
/// Longest list that is read, bytes; damage beyond this is a broken disk, not a list.
const LIST_LEN_MAX: u64 = 64 << 20;
const ADDED: u8 = 1;
const CLEARED: u8 = 2;

/// The list.
pub(crate) struct Quarantine {
    ids: RwLock<HashSet<ChunkId>>,
    // Invariant: as many as there are ids; spares the common case the lock.
    count: AtomicUsize,
}

impl Quarantine {
    /// Reads the list up to the first record that is not whole, and cuts the rest off.
    pub(super) fn load(backend: &dyn Backend) -> Self {
        let ids = match read(backend) {
            Ok(ids) => ids,
            Err(error) if error.kind() == io::ErrorKind::NotFound => HashSet::new(),
            Err(error) => {
                tracing::warn!(%error, "the quarantine list cannot be read");
                HashSet::new()
            }
        };
        if ids.is_empty() {
            let _ = backend.remove(NAME);
        }
        Self { count: AtomicUsize::new(ids.len()), ids: RwLock::new(ids) }
    }

    pub(super) fn contains(&self, id: &ChunkId) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.ids.read().contains(id)
    }

    pub(super) fn list(&self) -> Vec<ChunkId> {
        let mut ids: Vec<_> = self.ids.read().iter().copied().collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn add(&self, backend: &dyn Backend, id: &ChunkId) {
        let mut ids = self.ids.write();
        if ids.insert(*id) {
            self.count.store(ids.len(), Ordering::Release);
            note(backend, ADDED, id);
        }
    }

    /// The chunk has been stored anew.
    pub(super) fn clear(&self, backend: &dyn Backend, id: &ChunkId) {
        if !self.contains(id) {
            return;
        }
        let mut ids = self.ids.write();
        if ids.remove(id) {
            self.count.store(ids.len(), Ordering::Release);
            note(backend, CLEARED, id);
        }
    }
}

fn read(backend: &dyn Backend) -> io::Result<HashSet<ChunkId>> {
    let file = backend.open(NAME)?;
    let len = file.len()?.min(LIST_LEN_MAX);
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    file.read_at(0, &mut bytes)?;
    let mut ids = HashSet::new();
    let Some(records) = bytes.strip_prefix(&HEADER) else { return Ok(ids) };
    let mut whole = HEADER.len();
    for record in records.as_chunks::<RECORD_LEN>().0 {
        let Some((what, id)) = decode(record) else { break };
        whole += RECORD_LEN;
        if what == ADDED {
            ids.insert(id)
        } else {
            ids.remove(&id)
        };
    }
    if whole < bytes.len() {
        file.truncate(whole as u64)?;
    }
    Ok(ids)
}

fn decode(record: &[u8; RECORD_LEN]) -> Option<(u8, ChunkId)> {
    let (fields, crc) = record.split_at_checked(RECORD_LEN - 4)?;
    if Input(crc).u32()? != crc32c::crc32c(fields) {
        return None;
    }
    let mut rest = Input(fields);
    let [what] = rest.take()?;
    Some((what, ChunkId::from_bytes(rest.take()?)))
}

fn note(backend: &dyn Backend, what: u8, id: &ChunkId) {
    let write = || -> io::Result<()> {
        let mut record = vec![what];
        record.extend_from_slice(id.as_bytes());
        let crc = crc32c::crc32c(&record);
        record.extend_from_slice(&crc.to_le_bytes());
        let (file, len) = match backend.open(NAME) {
            Ok(file) => {
                let len = file.len()?;
                (file, len)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (backend.create(NAME)?, 0),
            Err(error) => return Err(error),
        };
        match len {
            0 => file.append(0, &[IoSlice::new(&HEADER), IoSlice::new(&record)])?,
            len => file.append(len, &[IoSlice::new(&record)])?,
        }
        file.sync()
    };
    if let Err(error) = write() {
        tracing::warn!(%id, %error, "the quarantine list cannot be written");
    }
}
