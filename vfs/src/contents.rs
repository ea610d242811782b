//! Where a file's bytes come from and go to: the store, the fetching source, the spool directory.
//!
//! Leaves out: what a file is made of at a given moment ([`crate::body`]).
//!
//! Invariant: a read that may not wait looks only at this device; the same read, allowed to wait, asks others too.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cas::cache::{CachedSource, ChunkCache};
use cas::{ChunkSource, Content, Hold, ReadError, Reader, Store};

use crate::error::FsError;
use crate::overlay::Overlay;
use crate::space::Space;

/// Decompressed chunks kept for readers, bytes.
const CACHE_BYTES_MAX: usize = 64 << 20;

/// Whether an operation may wait for other devices or for publishing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Answer [`FsError::WouldWait`] instead.
    Never,
    /// As long as its own bound says.
    Allowed,
}

/// The places bytes come from and go to.
pub(crate) struct Contents {
    pub(crate) store: Store,
    local: Arc<dyn ChunkSource>,
    anywhere: Arc<dyn ChunkSource>,
    spool_dir: PathBuf,
    next_overlay: AtomicU64,
    pub(crate) space: Space,
}

/// Two readers of one content, which is not collected as long as they live.
pub(crate) struct Pinned {
    local: Reader,
    pub(crate) anywhere: Reader,
    _hold: Hold,
}

impl Contents {
    pub(crate) fn new(
        store: Store,
        source: Arc<dyn ChunkSource>,
        spool_dir: &Path,
        first_overlay: u64,
        reserve_bytes: u64,
    ) -> Self {
        let cache = Arc::new(ChunkCache::new(CACHE_BYTES_MAX));
        Self {
            local: Arc::new(CachedSource::new(cache.clone(), Arc::new(store.clone()))),
            anywhere: Arc::new(CachedSource::new(cache, source)),
            store,
            spool_dir: spool_dir.to_path_buf(),
            next_overlay: AtomicU64::new(first_overlay),
            space: Space::new(spool_dir, reserve_bytes),
        }
    }

    /// Readers of a content; nothing is read yet.
    pub(crate) fn pin(&self, content: Content) -> Result<Pinned, FsError> {
        Ok(Pinned {
            local: Reader::open(content, self.local.clone())?,
            anywhere: Reader::open(content, self.anywhere.clone())?,
            _hold: self.store.hold(content),
        })
    }

    /// A new overlay file.
    pub(crate) fn overlay(&self) -> Result<Overlay, FsError> {
        let number = self.next_overlay.fetch_add(1, Ordering::Relaxed);
        Ok(Overlay::create(&self.spool_dir, number)?)
    }

    /// Refuses bytes the disk has no room for.
    pub(crate) fn make_room(&self, bytes: u64) -> Result<(), FsError> {
        if self.space.take(bytes) { Ok(()) } else { Err(FsError::Full) }
    }
}

impl Pinned {
    /// The content.
    pub(crate) fn content(&self) -> Content {
        self.anywhere.content()
    }

    /// Bytes from `offset`; fewer only at the end.
    pub(crate) fn read_at(
        &self,
        wait: Wait,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<usize, FsError> {
        self.ask(wait, |reader| reader.read_at(offset, buf))
    }

    /// Brings the bytes from `from` to `to` into the cache of chunks.
    pub(crate) fn warm(&self, wait: Wait, from: u64, to: u64) -> Result<(), FsError> {
        self.ask(wait, |reader| reader.warm(from, to.saturating_sub(from)))
    }

    fn ask<T>(
        &self,
        wait: Wait,
        what: impl FnOnce(&Reader) -> Result<T, ReadError>,
    ) -> Result<T, FsError> {
        match wait {
            Wait::Allowed => Ok(what(&self.anywhere)?),
            Wait::Never => match what(&self.local) {
                // A damaged chunk is fetched again by the source that can.
                Err(ReadError::Missing { .. } | ReadError::Corrupt { .. }) => {
                    Err(FsError::WouldWait)
                }
                other => Ok(other?),
            },
        }
    }
}
