//! Chunks in, chunks out: the store of one drive on one device.
//!
//! ```text
//! store ─► append: the active pack     commit: durable, sealed       recover: open, rebuild
//!          packs: files and scans      quarantine: known-bad chunks  scrub: verify all
//!          space: the reserve          pool: worker threads          marker: how it was stopped
//!          pins: what is in use        gc: giving back the rest
//! ```
//!
//! Leaves out: locking the directory against other processes (the daemon does).
//!
//! Invariants:
//! - what [`Store::get`] gives hashes to its id; what does not is quarantined and no longer counts as present;
//! - a [`Store::sync`] that returned without error has made every earlier put durable; after a failed sync nothing
//!   unsynced is believed: it is verified and written again elsewhere, or the store stops writing;
//! - no lock is held across a wait for the disk but the one that orders appends.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::backend::mem::MemBackend;
use crate::backend::{Backend, File};
use crate::chunker::{CHUNK_LEN_MAX, Class, Gear};
use crate::error::{OpenError, PathError, ReadError, WriteError};
use crate::format::{RECORD_HEADER_LEN, RecordHeader};
use crate::id::{ChunkId, IdKey};
use crate::index::{Index, Location};
use crate::reader::{ChunkSource, Content, Reader};
use crate::stored::StoredChunk;
use crate::writer::Writer;

mod append;
mod commit;
mod gc;
mod marker;
mod packs;
mod pins;
mod pool;
mod quarantine;
mod recover;
mod scrub;
mod space;

pub(crate) use append::{Encoded, Room, encode};
pub use gc::{Collector, GcError, Stopped, Sweep, SweepStep, Swept};
pub use pins::Hold;
pub(crate) use pins::{Relied, Unfinished};
pub use scrub::{ScrubReport, ScrubStep};

/// How and where a store is opened.
#[derive(Clone, Debug)]
pub struct Config {
    /// The store's directory, created when missing.
    pub dir: PathBuf,
    /// The drive's key.
    pub id_key: IdKey,
    /// Bytes kept free on the disk: writes give [`WriteError::Full`] before they are touched, so that what was
    /// accepted can always be finished.
    pub reserve_bytes: u64,
    /// Threads that hash, compress and append for writers; at least one.
    pub workers: usize,
}

/// What the store holds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Usage {
    /// Records in all packs.
    pub chunks: u64,
    /// Pack files.
    pub packs: u64,
    /// Bytes of all packs.
    pub stored_bytes: u64,
}

/// A store. Clones are the same store.
#[derive(Clone)]
pub struct Store(pub(crate) Arc<Inner>);

/// Everything the clones share.
pub(crate) struct Inner {
    key: IdKey,
    gear: Gear,
    backend: Arc<dyn Backend>,
    files: packs::Files,
    index: Index,
    appender: Mutex<append::Appender>,
    // The sequence number of the last append that is durable. Held during a commit.
    commits: Mutex<u64>,
    // Held while a footer is written.
    sealing: Mutex<()>,
    // Held by whoever relies on no pack going away: while a pack is removed, or read through as a whole.
    upkeep: Mutex<()>,
    pins: pins::Pins,
    // Signalled when a full pack has been sealed or given up; belongs to `appender`.
    sealed: Condvar,
    quarantine: quarantine::Quarantine,
    space: space::Space,
    pool: pool::Pool,
    flush_queued: AtomicBool,
    state: AtomicU8,
    failed: Mutex<PathBuf>,
    marker: Option<marker::Marker>,
}

const OPEN: u8 = 0;
const READ_ONLY: u8 = 1;
const CLOSED: u8 = 2;

impl Store {
    /// Opens the store in a directory; creates it when missing; repairs what an unclean stop has left.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        recover::open(config)
    }

    /// A store that is gone with its last clone.
    pub fn in_memory(id_key: IdKey) -> Self {
        match recover::open_on(Arc::new(MemBackend::new()), Index::in_memory(), id_key) {
            Ok(store) => store,
            // An empty directory in memory has nothing that could fail.
            Err(error) => unreachable!("an empty store in memory opens: {error}"),
        }
    }

    /// Opens a store on any backend, with an index in memory that is made from the packs.
    pub fn on_backend(backend: Arc<dyn Backend>, id_key: IdKey) -> Result<Self, OpenError> {
        recover::open_on(backend, Index::in_memory(), id_key)
    }

    /// Stores a chunk. Readable at once, durable after [`Self::sync`].
    pub fn put(&self, raw: &[u8]) -> Result<ChunkId, WriteError> {
        self.0.put(raw, Room::Checked)
    }

    /// Stores a chunk as it came from a peer, after checking that it is what its id says.
    pub fn put_stored(&self, id: ChunkId, chunk: &StoredChunk) -> Result<(), WriteError> {
        self.0.writable()?;
        chunk.raw(&self.0.key, &id).ok_or(WriteError::Corrupt { id })?;
        if self.0.present(&id)? {
            return Ok(());
        }
        let header = RecordHeader::for_data(id, chunk.flags, chunk.raw_len, &chunk.data);
        self.0.append(&[Encoded { header, data: chunk.data.as_ref().into() }], Room::Checked)
    }

    /// The chunk's raw bytes, verified. A damaged chunk is quarantined and reported as corrupt once; from then on it
    /// is missing.
    pub fn get(&self, id: &ChunkId) -> Result<Bytes, ReadError> {
        self.0.find(id).map(|(_, raw)| raw)
    }

    /// The chunk in its stored form, verified like [`Self::get`].
    pub fn get_stored(&self, id: &ChunkId) -> Result<StoredChunk, ReadError> {
        self.0.find(id).map(|(stored, _)| stored)
    }

    /// Whether the chunk is here and not known to be damaged.
    pub fn has(&self, id: &ChunkId) -> bool {
        self.0.state.load(Ordering::Acquire) != CLOSED && self.0.present(id).unwrap_or(false)
    }

    /// Makes every put that returned before this call durable. Concurrent callers share the work.
    pub fn sync(&self) -> Result<(), WriteError> {
        self.0.writable()?;
        self.0.sync()
    }

    /// A writer of one new content. The hint, when it is right, chooses the best chunk size.
    pub fn writer(&self, len_hint: Option<u64>) -> Writer {
        self.writer_as(Class::for_len(len_hint.unwrap_or(0)))
    }

    /// A writer that cuts by a given class.
    pub fn writer_as(&self, class: Class) -> Writer {
        Writer::new(self.0.clone(), class)
    }

    /// A reader of a content whose chunks are in this store.
    pub fn read(&self, content: Content) -> Result<Reader, ReadError> {
        Reader::open(content, Arc::new(self.clone()))
    }

    /// What is stored now.
    pub fn usage(&self) -> Usage {
        self.0.appender.lock().usage()
    }

    /// Bytes that can be accepted before writes give [`WriteError::Full`].
    pub fn free_bytes(&self) -> Result<u64, ReadError> {
        Ok(self.0.space.free(self.0.backend.as_ref())?)
    }

    /// Whether records were found damaged or gone when the store was opened. Their chunks are missing now: whoever
    /// wrote down that it holds a content must look again.
    pub fn lost_records(&self) -> bool {
        self.0.appender.lock().lost_records
    }

    /// Chunks that were found damaged and have not been stored anew.
    pub fn quarantined(&self) -> Vec<ChunkId> {
        self.0.quarantine.list()
    }

    /// Reads and verifies every record; quarantines what is damaged. `step` is called after each record.
    pub fn scrub(&self, step: &mut dyn FnMut(ScrubStep)) -> Result<ScrubReport, ReadError> {
        self.0.scrub(step)
    }

    /// Throws the index away and makes it anew from the packs.
    pub fn rebuild_index(&self) -> Result<Usage, ReadError> {
        self.0.rebuild_index()
    }

    /// Makes everything durable and marks the store as cleanly stopped. Later calls give `Closed`.
    pub fn close(&self) -> Result<(), WriteError> {
        self.0.close()
    }
}

impl ChunkSource for Store {
    fn chunk(&self, id: &ChunkId) -> Result<Bytes, ReadError> {
        self.get(id)
    }
}

impl Inner {
    pub(crate) fn gear(&self) -> &Gear {
        &self.gear
    }

    pub(crate) fn key(&self) -> &IdKey {
        &self.key
    }

    pub(crate) fn pool(&self) -> &pool::Pool {
        &self.pool
    }

    /// Whether there is room for `len` more accepted bytes beside the reserve.
    pub(crate) fn room_for(&self, len: u64) -> Result<(), WriteError> {
        self.writable()?;
        self.space.check(self.backend.as_ref(), len)
    }

    pub(crate) fn put(&self, raw: &[u8], room: Room) -> Result<ChunkId, WriteError> {
        self.writable()?;
        if raw.len() > CHUNK_LEN_MAX {
            return Err(WriteError::TooLong);
        }
        let id = ChunkId::of(&self.key, raw);
        if !self.present(&id)? {
            self.append(&[encode(id, raw)], room)?;
        }
        Ok(id)
    }

    /// Whether the store takes writes.
    pub(crate) fn writable(&self) -> Result<(), WriteError> {
        match self.state.load(Ordering::Acquire) {
            OPEN => Ok(()),
            READ_ONLY => Err(WriteError::ReadOnly { path: self.failed.lock().clone() }),
            _ => Err(WriteError::Closed),
        }
    }

    /// Stops all writing, for good.
    fn fail(&self, path: PathBuf) -> WriteError {
        *self.failed.lock() = path.clone();
        // A store that is being closed stays so.
        let _ = self.state.compare_exchange(OPEN, READ_ONLY, Ordering::AcqRel, Ordering::Acquire);
        tracing::error!(path = %path.display(), "the store is read-only from here on");
        WriteError::ReadOnly { path }
    }

    /// What is in use.
    pub(crate) fn pins(&self) -> &pins::Pins {
        &self.pins
    }

    /// Whether a chunk is here: its full id stands in a record, and it is not quarantined. See [`pins`] for who may
    /// ask.
    fn is_here(&self, id: &ChunkId) -> Result<bool, PathError> {
        if self.quarantine.contains(id) {
            return Ok(false);
        }
        let recent = || self.index.recent(id).is_some_and(|at| !self.files.is_gone(at.pack));
        if recent() {
            return Ok(true);
        }
        for candidate in self.index.candidates(id)? {
            if self.files.is_gone(candidate.pack) {
                continue;
            }
            let mut header = [0; RECORD_HEADER_LEN];
            let read = self
                .files
                .get(self.backend.as_ref(), candidate.pack)
                .and_then(|file| file.read_at(candidate.offset.into(), &mut header));
            match read {
                Ok(()) => {}
                Err(error) if damaged(&error) => continue,
                Err(error) => return Err(self.pack_error(candidate.pack, "read", error)),
            }
            let here = RecordHeader::decode(&header)
                .is_some_and(|header| header.id == *id && header.record_len() == candidate.len);
            if here {
                return Ok(true);
            }
        }
        // Written while the candidates were looked at.
        Ok(recent())
    }

    /// The chunk, verified, in both forms.
    fn find(&self, id: &ChunkId) -> Result<(StoredChunk, Bytes), ReadError> {
        if self.state.load(Ordering::Acquire) == CLOSED {
            return Err(ReadError::Closed);
        }
        if self.quarantine.contains(id) {
            return Err(ReadError::Missing { id: *id });
        }
        let mut found_bad = false;
        let mut tried = Vec::new();
        // Twice, because a flush, a rescue or a collection may move the chunk meanwhile.
        for _ in 0..2 {
            let candidates = match self.index.recent(id) {
                Some(location) => vec![location],
                None => self.index.candidates(id)?,
            };
            for location in candidates {
                if tried.contains(&location) {
                    continue;
                }
                tried.push(location);
                match self.read_record(id, location)? {
                    Some(Ok(found)) => return Ok(found),
                    Some(Err(())) => found_bad = true,
                    None => {}
                }
            }
        }
        if !found_bad {
            return Err(ReadError::Missing { id: *id });
        }
        tracing::warn!(%id, "a damaged chunk is quarantined");
        self.quarantine.add(self.backend.as_ref(), id);
        Err(ReadError::Corrupt { id: *id })
    }

    /// Reads one record: `None` when it is another chunk's, `Err(())` when it is this one's and damaged.
    #[allow(clippy::type_complexity)]
    fn read_record(
        &self,
        id: &ChunkId,
        location: Location,
    ) -> Result<Option<Result<(StoredChunk, Bytes), ()>>, PathError> {
        let file = self.files.get(self.backend.as_ref(), location.pack);
        let read =
            file.and_then(|file| file.read_vec(location.offset.into(), location.len as usize));
        let record = match read {
            Ok(record) => Bytes::from(record),
            // Collected since its place was looked up; what was needed of it is elsewhere.
            Err(_) if self.files.is_gone(location.pack) => return Ok(None),
            Err(error) if damaged(&error) => return Ok(Some(Err(()))),
            Err(error) => return Err(self.pack_error(location.pack, "read", error)),
        };
        let Some(header) = RecordHeader::decode(&record) else { return Ok(Some(Err(()))) };
        if header.id != *id {
            return Ok(None);
        }
        if header.record_len() != location.len {
            return Ok(Some(Err(())));
        }
        let data = record.slice(RECORD_HEADER_LEN..);
        let sound = header.checksum(&data) == header.crc;
        let stored = StoredChunk { flags: header.flags, raw_len: header.raw_len, data };
        let raw = stored.raw(&self.key, id).filter(|_| sound);
        Ok(Some(raw.map(|raw| (stored, raw)).ok_or(())))
    }

    fn pack_error(&self, pack: u32, verb: &'static str, error: std::io::Error) -> PathError {
        PathError::new(self.backend.path_of(&packs::name(pack)), verb, error)
    }
}

/// Whether a failed read means that the bytes are lost rather than that reading is impossible just now.
fn damaged(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotFound, UnexpectedEof};
    matches!(error.kind(), NotFound | UnexpectedEof)
        || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

#[cfg(test)]
mod tests;
