//! Opening a store: what the packs hold, whether the index knows it, and what an unclean stop has left.
//!
//! Leaves out: healing damaged chunks; they are found on read or by a scrub and fetched again.
//!
//! Invariants:
//! - opening is idempotent and may be cut short anywhere: it only cuts off bytes that are no record, adds footers, and
//!   writes bytes where they are already;
//! - no sync is believed about bytes of a process that ended without closing: its own sync of them may have failed, and
//!   the kernel calls them clean since;
//! - nothing is changed before the newest pack's version is known to be ours;
//! - after it, the index covers every sound record, and every record it covers is durable.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8};

use parking_lot::{Condvar, Mutex};

use super::append::{Active, Appender};
use super::marker::{Marker, Stopped, boot_id, look};
use super::packs::{Files, read_footer, scan};
use super::pins::Pins;
use super::pool::Pool;
use super::quarantine::Quarantine;
use super::space::Space;
use super::{Config, Inner, OPEN, Store, Usage, packs};
use crate::backend::fs::{FsBackend, sync_dir};
use crate::backend::{Backend, File};
use crate::chunker::Gear;
use crate::error::{OpenError, PathError, ReadError};
use crate::format::{
    FooterEntry, HeaderError, PACK_HEADER_LEN, PACK_LEN_MAX, PACK_RECORDS_MAX, PACK_VERSION,
    decode_pack_header, encode_footer, footer_len,
};
use crate::id::IdKey;
use crate::index::lmdb::{Lmdb, wipe};
use crate::index::{Index, Location, PackInfo};

/// Chunks found in packs between two writes of the index.
const REBUILD_BATCH: usize = 65_536;
/// Name of the packs' directory in the store's.
const PACKS_DIR: &str = "packs";
/// Name of the index's directory in the store's.
const INDEX_DIR: &str = "index";

/// Opens a store in a directory.
pub(super) fn open(config: Config) -> Result<Store, OpenError> {
    let dir = config.dir.as_path();
    let at = |path: &Path, verb, error: io::Error| PathError::new(path, verb, error);
    let packs_dir = dir.join(PACKS_DIR);
    let backend = FsBackend::open(&packs_dir).map_err(|error| at(&packs_dir, "create", error))?;
    let found = list(&backend)?;
    check_versions(&backend, &found)?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync_dir(parent).map_err(|error| at(parent, "sync", error))?;
    }

    let boot = boot_id();
    let stopped = look(dir, boot.as_deref());
    let index_dir = dir.join(INDEX_DIR);
    if stopped == Stopped::PowerLoss {
        wipe(&index_dir)?;
    }
    let marker = Marker::set(dir, boot.as_deref())?;
    let index = match open_index(&index_dir) {
        Err(error) if error.source.kind() == io::ErrorKind::InvalidData => {
            tracing::warn!(error = %error.source, "the index is damaged and made anew");
            wipe(&index_dir)?;
            open_index(&index_dir)?
        }
        opened => opened?,
    };
    if stopped != Stopped::Cleanly {
        tracing::info!(?stopped, "the store was not closed; looking at what is there");
    }
    let workers = config.workers.max(1);
    let pool = Pool::start(workers).map_err(|error| at(dir, "start threads for", error))?;
    let backend = Arc::new(backend);
    let space = Space::new(config.reserve_bytes);
    let store = assemble(backend, index, config.id_key, space, pool, Some(marker), stopped)?;
    store
        .0
        .pool
        .start_keeper(Arc::downgrade(&store.0))
        .map_err(|error| at(dir, "start threads for", error))?;
    Ok(store)
}

/// Opens a store on a backend, without threads.
pub(super) fn open_on(
    backend: Arc<dyn Backend>,
    index: Index,
    key: IdKey,
) -> Result<Store, OpenError> {
    let found = list(backend.as_ref())?;
    check_versions(backend.as_ref(), &found)?;
    // There is no marker, so nobody knows.
    let stopped = Stopped::ProcessEnd;
    assemble(backend, index, key, Space::new(0), Pool::default(), None, stopped)
}

fn open_index(dir: &Path) -> Result<Index, PathError> {
    let index = Index::on_disk(Lmdb::open(dir)?);
    // Read once, so that a table that cannot be read is found now.
    index.packs()?;
    Ok(index)
}

fn assemble(
    backend: Arc<dyn Backend>,
    index: Index,
    key: IdKey,
    space: Space,
    pool: Pool,
    marker: Option<Marker>,
    stopped: Stopped,
) -> Result<Store, OpenError> {
    let appender = recover(backend.as_ref(), &index, stopped)?;
    let quarantine = Quarantine::load(backend.as_ref());
    Ok(Store(Arc::new(Inner {
        key,
        gear: Gear::new(&key),
        backend,
        files: Files::default(),
        index,
        appender: Mutex::new(appender),
        commits: Mutex::new(0),
        sealing: Mutex::new(()),
        upkeep: Mutex::new(()),
        pins: Pins::default(),
        sealed: Condvar::new(),
        quarantine,
        space,
        pool,
        flush_queued: AtomicBool::new(false),
        state: AtomicU8::new(OPEN),
        failed: Mutex::default(),
        marker,
    })))
}

/// The packs there are, with their lengths.
fn list(backend: &dyn Backend) -> Result<BTreeMap<u32, u64>, PathError> {
    let files =
        backend.list().map_err(|error| PathError::new(backend.path_of(""), "list", error))?;
    Ok(files.into_iter().filter_map(|(name, len)| Some((packs::number(&name)?, len))).collect())
}

/// Refuses packs of a newer version. The newest pack is enough to tell: versions only grow.
fn check_versions(backend: &dyn Backend, found: &BTreeMap<u32, u64>) -> Result<(), OpenError> {
    let Some((number, len)) = found.last_key_value() else { return Ok(()) };
    let path = backend.path_of(&packs::name(*number));
    let file = backend
        .open(&packs::name(*number))
        .map_err(|error| PathError::new(&path, "open", error))?;
    check_header(backend, file.as_ref(), *number, *len).map(|_| ())
}

/// Whether a pack's header is sound; a newer version is an error, damage is not.
fn check_header(
    backend: &dyn Backend,
    file: &dyn File,
    number: u32,
    len: u64,
) -> Result<bool, OpenError> {
    if len < PACK_HEADER_LEN as u64 {
        return Ok(false);
    }
    let path = || backend.path_of(&packs::name(number));
    let mut header = [0; PACK_HEADER_LEN];
    file.read_at(0, &mut header).map_err(|error| PathError::new(path(), "read", error))?;
    match decode_pack_header(&header, number) {
        Ok(()) => Ok(true),
        Err(HeaderError::Invalid) => Ok(false),
        Err(HeaderError::TooNew(found)) => Err(OpenError::TooNew {
            path: path(),
            found: found.into(),
            supported: PACK_VERSION.into(),
        }),
    }
}

/// Brings packs and index together.
fn recover(backend: &dyn Backend, index: &Index, stopped: Stopped) -> Result<Appender, OpenError> {
    let found = list(backend)?;
    let mut covered = index.packs()?;
    let ahead = covered
        .iter()
        .any(|(number, info)| found.get(number).is_none_or(|len| *len < info.file_len()));
    if ahead {
        tracing::warn!("the index knows of records that are gone; it is made anew");
        index.clear()?;
        covered.clear();
    }
    let appender = merge(backend, index, &found, &covered, stopped, ahead)?;
    if ahead || !appender.lost_records || covered.is_empty() {
        return Ok(appender);
    }
    // The index may still lead to the damaged records. Their packs are sealed now, without them.
    index.clear()?;
    merge(backend, index, &list(backend)?, &BTreeMap::new(), stopped, true)
}

/// Reads what the index does not cover.
fn merge(
    backend: &dyn Backend,
    index: &Index,
    found: &BTreeMap<u32, u64>,
    covered: &BTreeMap<u32, PackInfo>,
    stopped: Stopped,
    lost_records: bool,
) -> Result<Appender, OpenError> {
    let newest = found.last_key_value().map(|(number, _)| *number);
    let next = newest.map_or(0, |n| n + 1);
    let mut appender = Appender { next, lost_records, ..Appender::default() };
    for (&number, &len) in found {
        match covered.get(&number) {
            Some(info) if info.sealed && info.file_len() == len => {
                appender.packs.insert(number, *info);
            }
            _ => {
                let covered = covered.get(&number).map_or(0, |info| info.end);
                let newest = newest == Some(number);
                let pack = Pack { backend, number, len, newest, covered, stopped };
                pack.recover(index, &mut appender)?;
            }
        }
    }
    if !found.is_empty() {
        // A file's name may be as little durable as its records were.
        backend.sync_dir().map_err(|error| PathError::new(backend.path_of(""), "sync", error))?;
    }
    flush(index);
    Ok(appender)
}

/// Writes the index; what cannot be written stays in memory and serves from there.
fn flush(index: &Index) {
    if let Err(error) = index.flush() {
        tracing::warn!(error = %error.source, "the index could not be written");
    }
}

/// One pack that the index does not know to its end.
struct Pack<'a> {
    backend: &'a dyn Backend,
    number: u32,
    len: u64,
    newest: bool,
    /// How far the index knows its records.
    covered: u64,
    stopped: Stopped,
}

impl Pack<'_> {
    fn recover(&self, index: &Index, appender: &mut Appender) -> Result<(), OpenError> {
        let name = packs::name(self.number);
        let path = self.backend.path_of(&name);
        let at = |verb| {
            let path = path.clone();
            move |error| PathError::new(path, verb, error)
        };
        let file = self.backend.open(&name).map_err(at("open"))?;
        let header_sound = check_header(self.backend, file.as_ref(), self.number, self.len)?;
        if let Some((entries, end)) = read_footer(file.as_ref(), self.len).map_err(at("read"))? {
            let info = PackInfo { end, records: entries.len() as u32, sealed: true };
            self.note(index, appender, info, &entries);
            return Ok(());
        }
        let found = scan(file.as_ref(), self.len).map_err(at("read"))?;
        if found.entries.is_empty() && self.len < PACK_HEADER_LEN as u64 {
            // Created, and nothing more, when the power went.
            self.backend.remove(&name).map_err(at("remove"))?;
            return Ok(());
        }
        let damaged = found.skipped > 0 || found.end < self.covered;
        if damaged {
            tracing::warn!(path = %path.display(), bytes = found.skipped, "a pack is damaged");
            appender.lost_records = true;
        }
        let readable = header_sound || !found.entries.is_empty();
        if readable && found.end < self.len {
            file.truncate(found.end).map_err(at("truncate"))?;
        }
        if readable {
            // Its last records may be in the system's cache only, and will be relied on from here. Without a footer
            // nothing says which: that a sync finds nothing to write may mean that one has failed before.
            if self.stopped != Stopped::Cleanly {
                file.write_again().map_err(at("write"))?;
            }
            file.sync().map_err(at("sync"))?;
        }
        let end = if readable { found.end } else { self.len };
        let mut info = PackInfo { end, records: found.entries.len() as u32, sealed: false };
        let room = found.entries.len() < PACK_RECORDS_MAX
            && end + footer_len(found.entries.len()) < PACK_LEN_MAX;
        // A damaged pack takes no more: sealed, it is not scanned again.
        if self.newest && header_sound && room && !damaged {
            // The index has those before; a start costs what is new.
            let new = found.entries.partition_point(|e| u64::from(e.offset) < self.covered);
            self.note(index, appender, info, found.entries.get(new..).unwrap_or_default());
            let entries = found.entries;
            appender.active = Some(Active { number: self.number, file, end, entries });
            return Ok(());
        }
        if readable {
            info.sealed = self.seal(file.as_ref(), end, &found.entries);
        }
        self.note(index, appender, info, &found.entries);
        Ok(())
    }

    /// Adds a footer; without one the pack is scanned again next time, so failing is no harm.
    fn seal(&self, file: &dyn File, end: u64, entries: &[FooterEntry]) -> bool {
        let footer = encode_footer(u32::try_from(end).unwrap_or(u32::MAX), entries);
        let sealed = file.append(end, &[IoSlice::new(&footer)]).and_then(|()| file.sync()).is_ok();
        if !sealed {
            let _ = file.truncate(end);
        }
        sealed
    }

    fn note(
        &self,
        index: &Index,
        appender: &mut Appender,
        info: PackInfo,
        entries: &[FooterEntry],
    ) {
        appender.packs.insert(self.number, info);
        if index.add(self.number, info, locations(self.number, entries)) >= REBUILD_BATCH {
            flush(index);
        }
    }
}

/// A pack's entries as the index takes them.
fn locations(
    pack: u32,
    entries: &[FooterEntry],
) -> impl Iterator<Item = (crate::id::ChunkId, Location)> + '_ {
    entries
        .iter()
        .map(move |entry| (entry.id, Location { pack, offset: entry.offset, len: entry.len }))
}

impl Inner {
    /// The records of a pack, from memory, its footer or a scan.
    pub(super) fn entries(&self, number: u32) -> Result<Vec<FooterEntry>, PathError> {
        let info = {
            let appender = self.appender.lock();
            if let Some(active) = appender.active.as_ref().filter(|active| active.number == number)
            {
                return Ok(active.entries.clone());
            }
            if let Some(entries) = appender.full.get(&number) {
                return Ok(entries.to_vec());
            }
            appender.packs.get(&number).copied()
        };
        let Some(info) = info else { return Ok(Vec::new()) };
        let read = || {
            let file = self.files.get(self.backend.as_ref(), number)?;
            if let Some((entries, _)) = read_footer(file.as_ref(), file.len()?)? {
                return Ok(entries);
            }
            Ok(scan(file.as_ref(), info.end.min(file.len()?))?.entries)
        };
        read().map_err(|error| self.pack_error(number, "read", error))
    }

    /// Makes the index anew. Chunks may seem missing to others until it is done.
    pub(super) fn rebuild_index(&self) -> Result<Usage, ReadError> {
        self.writable().map_err(|_| ReadError::Closed)?;
        let _upkeep = self.upkeep.lock();
        let _turn = self.sealing.lock();
        let _commits = self.commits.lock();
        let numbers: Vec<u32> = self.appender.lock().packs.keys().copied().collect();
        self.index.clear()?;
        for number in numbers {
            let entries = self.entries(number)?;
            // Appends go on meanwhile: the pack's reach and its records must be of one moment.
            let appender = self.appender.lock();
            let Some(info) = appender.packs.get(&number).copied() else { continue };
            let entries = match &appender.active {
                Some(active) if active.number == number => &active.entries,
                _ => &entries,
            };
            let pending = self.index.add(number, info, locations(number, entries));
            drop(appender);
            if pending >= REBUILD_BATCH {
                self.index.flush()?;
            }
        }
        self.index.flush()?;
        Ok(self.appender.lock().usage())
    }
}
