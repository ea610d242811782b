//! The active pack: where new records go.
//!
//! Leaves out: making them durable ([`super::commit`]).
//!
//! Invariants:
//! - records go to the packs in one total order, under one lock, with one write call a group;
//! - a pack whose write or sync has failed gets nothing more;
//! - the index hears of a record after it can be read.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{File, Inner, Usage, packs};
use crate::error::{PathError, WriteError, is_full};
use crate::format::{
    FooterEntry, PACK_HEADER_LEN, PACK_LEN_MAX, PACK_RECORDS_MAX, RecordHeader, encode_pack_header,
    footer_len,
};
use crate::id::ChunkId;
use crate::index::{Location, PackInfo};
use crate::stored::Compressor;

/// Records in one write call; the kernel takes at most 1,024 parts, two a record.
const GROUP_MAX: usize = 500;
/// Chunks the index holds in memory before it writes them to its table.
const FLUSH_CHUNKS: usize = 16_384;
/// Chunks in memory beyond which a put waits for the table; reached only when the table cannot be written.
const PENDING_MAX: usize = FLUSH_CHUNKS * 16;
/// Full packs that wait for their footer before appends wait for them.
const UNSEALED_MAX: usize = 16;
/// Packs one after another that may fail to take the same records before the store gives up writing.
const WRITE_FAILURES_MAX: u32 = 2;
/// How long an append waits for a footer.
const SEAL_WAIT: Duration = Duration::from_secs(10);

/// What of the disk a write may use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// All but the reserve: nobody has been told yet that this data is accepted.
    Checked,
    /// The reserve too: this finishes what was accepted.
    Accepted,
}

/// A record ready to be written.
pub(crate) struct Encoded<'a> {
    pub(crate) header: RecordHeader,
    pub(crate) data: Cow<'a, [u8]>,
}

thread_local! {
    static COMPRESSOR: RefCell<Compressor> = RefCell::new(Compressor::new());
}

/// Makes the record of a chunk.
pub(crate) fn encode(id: ChunkId, raw: &[u8]) -> Encoded<'_> {
    let (flags, data) = COMPRESSOR.with_borrow_mut(|compressor| compressor.store(raw));
    let raw_len = u32::try_from(raw.len()).unwrap_or(u32::MAX);
    Encoded { header: RecordHeader::for_data(id, flags, raw_len, &data), data }
}

/// The state behind the append lock.
#[derive(Default)]
pub(crate) struct Appender {
    /// Records were found damaged or gone when the store was opened: who relies on a chunk must look again.
    pub(super) lost_records: bool,
    pub(super) active: Option<Active>,
    /// Numbers the next pack.
    pub(super) next: u32,
    /// Packs with bytes that no sync has confirmed.
    pub(super) unsynced: BTreeMap<u32, Unsynced>,
    /// Full packs without a footer.
    pub(super) full: BTreeMap<u32, Arc<Vec<FooterEntry>>>,
    /// Whether a file was created that no directory sync has confirmed.
    pub(super) dir_dirty: bool,
    /// Counts groups appended.
    pub(super) sequence: u64,
    /// Counts packs left with unsynced records: a sync that was under way meanwhile proves nothing.
    pub(super) rescues: u64,
    /// Whether records of a failed pack are being moved: another failure then ends all writing.
    pub(super) rescuing: bool,
    /// All packs.
    pub(super) packs: BTreeMap<u32, PackInfo>,
}

/// The pack that is appended to.
pub(crate) struct Active {
    pub(super) number: u32,
    pub(super) file: Arc<dyn File>,
    pub(super) end: u64,
    pub(super) entries: Vec<FooterEntry>,
}

/// How far a pack is durable.
#[derive(Clone)]
pub(crate) struct Unsynced {
    pub(super) file: Arc<dyn File>,
    pub(super) synced: u64,
    pub(super) end: u64,
}

/// What is to be done after the append lock has been let go of.
#[derive(Default)]
pub(super) struct Chores {
    pub(super) seal: Vec<u32>,
    pub(super) flush: bool,
}

impl Appender {
    pub(super) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for info in self.packs.values() {
            usage.packs += 1;
            usage.chunks += u64::from(info.records);
            usage.stored_bytes += info.file_len();
        }
        usage
    }
}

impl Active {
    /// How many of the first of `batch` fit into this pack and one write call.
    fn fitting(&self, batch: &[&Encoded<'_>]) -> usize {
        let mut end = self.end;
        let mut count = 0;
        for record in batch.iter().take(GROUP_MAX) {
            end += u64::from(record.header.record_len());
            let records = self.entries.len() + count + 1;
            if records > PACK_RECORDS_MAX || end + footer_len(records) > PACK_LEN_MAX {
                break;
            }
            count += 1;
        }
        count
    }
}

impl Inner {
    /// Appends records, except those of chunks that came in meanwhile.
    pub(crate) fn append(&self, batch: &[Encoded<'_>], room: Room) -> Result<(), WriteError> {
        if batch.is_empty() {
            return Ok(());
        }
        let bytes = batch.iter().map(|record| u64::from(record.header.record_len())).sum();
        self.space.take(self.backend.as_ref(), bytes, room)?;
        let mut chores = Chores::default();
        let result = {
            let mut appender = self.appender.lock();
            if self.pool.has_keeper() && appender.full.len() >= UNSEALED_MAX {
                // The disk is slower than the writers: let it catch up, but never stop for a disk that hangs.
                let _ = self.sealed.wait_while_for(
                    &mut appender,
                    |appender| appender.full.len() >= UNSEALED_MAX,
                    SEAL_WAIT,
                );
            }
            self.writable()?;
            let mut seen = HashSet::new();
            let fresh: Vec<&Encoded<'_>> = batch
                .iter()
                .filter(|record| {
                    let id = &record.header.id;
                    seen.insert(*id) && (!self.appended_lately(id) || self.quarantine.contains(id))
                })
                .collect();
            self.append_all(&mut appender, &fresh, &mut chores)
        };
        self.run_chores(chores);
        if result.is_ok() {
            for record in batch {
                self.quarantine.clear(self.backend.as_ref(), &record.header.id);
            }
        }
        result
    }

    pub(super) fn append_all(
        &self,
        appender: &mut Appender,
        mut batch: &[&Encoded<'_>],
        chores: &mut Chores,
    ) -> Result<(), WriteError> {
        let mut failures = 0;
        while !batch.is_empty() {
            let fitting = match &appender.active {
                Some(active) => active.fitting(batch),
                None => 0,
            };
            if fitting == 0 {
                self.roll(appender, chores)?;
                continue;
            }
            let (group, rest) = batch.split_at(fitting);
            match self.write_group(appender, group, chores) {
                Ok(()) => batch = rest,
                Err(GroupError::Full) => return Err(WriteError::Full),
                Err(GroupError::Failed(error)) if failures == WRITE_FAILURES_MAX => {
                    return Err(self.fail(error.path));
                }
                Err(GroupError::Failed(error)) => {
                    failures += 1;
                    self.abandon_active(appender, &error, chores)?;
                }
            }
        }
        Ok(())
    }

    /// Writes records that fit to the active pack.
    fn write_group(
        &self,
        appender: &mut Appender,
        group: &[&Encoded<'_>],
        chores: &mut Chores,
    ) -> Result<(), GroupError> {
        let Some(active) = &mut appender.active else { return Ok(()) };
        let headers: Vec<_> = group.iter().map(|record| record.header.encode()).collect();
        let parts: Vec<IoSlice<'_>> = headers
            .iter()
            .zip(group)
            .flat_map(|(header, record)| [IoSlice::new(header), IoSlice::new(&record.data)])
            .collect();
        if let Err(error) = active.file.append(active.end, &parts) {
            // A full disk is no damage as long as the torn record can be cut off again.
            if is_full(&error) && active.file.truncate(active.end).is_ok() {
                self.space.exhausted();
                return Err(GroupError::Full);
            }
            return Err(GroupError::Failed(self.pack_error(active.number, "write", error)));
        }
        let start = active.end;
        let mut added = Vec::with_capacity(group.len());
        for record in group {
            let (offset, len) = (active.end as u32, record.header.record_len());
            active.entries.push(FooterEntry { id: record.header.id, offset, len });
            added.push((record.header.id, Location { pack: active.number, offset, len }));
            active.end += u64::from(len);
        }
        appender.sequence += 1;
        appender
            .unsynced
            .entry(active.number)
            .or_insert_with(|| Unsynced { file: active.file.clone(), synced: start, end: start })
            .end = active.end;
        let info =
            PackInfo { end: active.end, records: active.entries.len() as u32, sealed: false };
        appender.packs.insert(active.number, info);
        self.stored(group.iter().map(|record| &record.header.id));
        let pending = self.index.add(active.number, info, added);
        if pending >= FLUSH_CHUNKS {
            chores.flush = true;
        }
        if pending >= PENDING_MAX {
            self.index.flush().map_err(GroupError::Failed)?;
        }
        Ok(())
    }

    /// Ends the active pack, which is full, and begins another.
    pub(super) fn roll(
        &self,
        appender: &mut Appender,
        chores: &mut Chores,
    ) -> Result<(), WriteError> {
        if let Some(full) = appender.active.take() {
            appender.full.insert(full.number, Arc::new(full.entries));
            chores.seal.push(full.number);
        }
        let number = appender.next;
        let name = packs::name(number);
        let at = |verb| move |error| self.pack_error(number, verb, error);
        let file = self.backend.create(&name).map_err(at("create"))?;
        // From here on the number is used, also if the header cannot be written.
        appender.next += 1;
        appender.dir_dirty = true;
        let header = encode_pack_header(number);
        if let Err(error) = file.append(0, &[IoSlice::new(&header)]) {
            let _ = self.backend.remove(&name);
            return Err(at("write")(error).into());
        }
        self.files.insert(number, file.clone());
        let end = PACK_HEADER_LEN as u64;
        appender.unsynced.insert(number, Unsynced { file: file.clone(), synced: 0, end });
        appender.packs.insert(number, PackInfo { end, records: 0, sealed: false });
        appender.active = Some(Active { number, file, end, entries: Vec::new() });
        Ok(())
    }

    /// Leaves an active pack whose write has failed, saving what no sync has confirmed to a new one.
    fn abandon_active(
        &self,
        appender: &mut Appender,
        error: &PathError,
        chores: &mut Chores,
    ) -> Result<(), WriteError> {
        tracing::error!(path = %error.path.display(), error = %error.source, "writing a pack failed");
        let Some(number) = appender.active.as_ref().map(|active| active.number) else {
            return Ok(());
        };
        if appender.rescuing {
            return Err(self.fail(error.path.clone()));
        }
        self.rescue(appender, number, chores)
    }

    /// Does what appends have left to do: on the keeper's thread, or here when there is none.
    pub(super) fn run_chores(&self, chores: Chores) {
        for number in chores.seal {
            if !self.pool.keep(super::pool::Chore::Seal(number)) {
                self.seal(number);
            }
        }
        if chores.flush && !self.flush_queued.swap(true, Ordering::AcqRel) {
            let queued = self.pool.keep(super::pool::Chore::Flush);
            if !queued {
                self.flush_index();
            }
        }
    }

    /// Writes pending index entries to the table; failure costs memory, not data.
    pub(super) fn flush_index(&self) {
        self.flush_queued.store(false, Ordering::Release);
        if let Err(error) = self.index.flush() {
            tracing::warn!(error = %error.source, "the index could not be written");
        }
    }
}

/// Why a group was not written.
enum GroupError {
    /// No room; the pack is as before.
    Full,
    /// The pack's end is in doubt.
    Failed(PathError),
}
