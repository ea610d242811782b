//! Packs with nothing needed in them go; what is needed of packs with little left moves to the active pack.
//!
//! Leaves out: what is needed ([`super::Collector`]).
//!
//! Invariants:
//! - a pack goes after the copies of everything needed in it are durable;
//! - a pack is given up in one step, in which nobody can be told of its chunks: none of those it is given up with is
//!   marked; from then on its chunks are not found;
//! - the index forgets a pack before its file goes, so it never leads to a file that is not there; where the disk is too
//!   full for that, a crash in between costs making the index anew;
//! - the cost is reading the packs' lists, and reading and writing what is moved.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::super::append::{Chores, Encoded};
use super::super::{Inner, Room};
use super::{Collector, GcError, Stopped, Sweep, SweepStep, Swept};
use crate::error::{PathError, WriteError};
use crate::format::{FooterEntry, RecordHeader};
use crate::id::ChunkId;
use crate::index::Location;

/// A pack is rewritten when at least one part in this many of it is not needed.
const REWRITE_DIVISOR: u64 = 4;
/// Bytes copied in one step.
const COPY_LEN: u64 = 8 << 20;
/// Records copied in one step.
const COPY_RECORDS: usize = 500;

/// A pack with something in it that is not needed.
struct Partly {
    number: u32,
    needed_bytes: u64,
    len: u64,
}

/// What became of a pack.
enum Fate {
    Gone,
    /// A chunk in it that is needed is damaged.
    Damaged,
}

pub(super) fn unneeded_bytes(collector: &mut Collector) -> Result<u64, GcError> {
    let mut bytes = 0u64;
    for number in collector.old_packs() {
        collector.mark_asked()?;
        bytes += collector.look(number)?.unneeded_bytes();
    }
    Ok(bytes)
}

pub(super) fn run(
    collector: &mut Collector,
    how: Sweep,
    step: &mut dyn FnMut(SweepStep) -> ControlFlow<()>,
) -> Result<Swept, GcError> {
    let mut swept = Swept::default();
    if how == Sweep::Remove {
        collector.inner().sync()?;
    }
    let old = collector.old_packs();
    let mut at = SweepStep { packs_done: 0, packs_total: old.len() as u64 };
    let mut partly = Vec::new();
    for number in old {
        collector.mark_asked()?;
        let looked = collector.look(number)?;
        let unneeded = looked.unneeded_bytes();
        swept.unneeded_bytes += unneeded;
        let worth = unneeded > 0 && unneeded.saturating_mul(REWRITE_DIVISOR) >= looked.len;
        if worth && looked.needed_bytes > 0 {
            partly.push(looked);
        } else if worth && !collector.give_up_if_room(number, how, looked.len, &mut swept)? {
            // Only beginning another pack takes room; the next ones make some.
            partly.push(looked);
        }
        at.packs_done += 1;
        if step(at).is_break() {
            swept.stopped = Some(Stopped::Asked);
            return collector.end(how, swept);
        }
    }
    // Those with the least left first: the most room for the fewest copies.
    partly.sort_unstable_by_key(|pack| (pack.needed_bytes, pack.number));
    at.packs_total += partly.len() as u64;
    for pack in partly {
        if !collector.give_up_if_room(pack.number, how, pack.len, &mut swept)? {
            swept.stopped = Some(Stopped::Full);
            break;
        }
        at.packs_done += 1;
        if step(at).is_break() {
            swept.stopped = Some(Stopped::Asked);
            break;
        }
    }
    collector.end(how, swept)
}

impl Partly {
    fn unneeded_bytes(&self) -> u64 {
        self.len.saturating_sub(self.needed_bytes)
    }
}

impl Collector {
    /// The packs that were there when the collection began.
    fn old_packs(&self) -> Vec<u32> {
        let appender = self.inner().appender.lock();
        appender.packs.range(..self.boundary).map(|(number, _)| *number).collect()
    }

    /// What of a pack is needed.
    fn look(&self, number: u32) -> Result<Partly, GcError> {
        let inner = self.inner();
        let (mut needed_bytes, mut len) = (0u64, 0u64);
        for entry in inner.entries(number)? {
            len += u64::from(entry.len);
            if self.needs(number, &entry)? {
                needed_bytes += u64::from(entry.len);
            }
        }
        Ok(Partly { number, needed_bytes, len })
    }

    /// Whether a record is the one its chunk is read from, and the chunk is needed.
    fn needs(&self, pack: u32, entry: &FooterEntry) -> Result<bool, GcError> {
        if !self.run.marks.has(&entry.id) || self.inner().quarantine.contains(&entry.id) {
            return Ok(false);
        }
        let here = Location { pack, offset: entry.offset, len: entry.len };
        // A crash may have left several records of one chunk: the newest that is sound will do.
        Ok(self.inner().sound_record(&entry.id)?.is_none_or(|found| found == here))
    }

    /// [`Self::give_up`]; false when the disk is too full for it.
    fn give_up_if_room(
        &mut self,
        number: u32,
        how: Sweep,
        len: u64,
        swept: &mut Swept,
    ) -> Result<bool, GcError> {
        match self.give_up(number, how, len, swept) {
            Ok(()) => Ok(true),
            Err(GcError::Write(WriteError::Full)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Moves what is needed out of a pack and lets the pack go.
    fn give_up(
        &mut self,
        number: u32,
        how: Sweep,
        len: u64,
        swept: &mut Swept,
    ) -> Result<(), GcError> {
        if how == Sweep::Count {
            let looked = self.look(number)?;
            swept.removed_bytes += len;
            swept.moved_bytes += looked.needed_bytes;
            swept.packs_removed += 1;
            return Ok(());
        }
        self.store.0.retire(number)?;
        let entries = self.store.0.entries(number)?;
        let mut moved = 0u64;
        match self.empty(number, &entries, &mut moved)? {
            Fate::Damaged => swept.packs_damaged += 1,
            Fate::Gone => {
                self.store.0.remove_pack(number, &entries)?;
                swept.removed_bytes += len;
                swept.packs_removed += 1;
                swept.chunks_removed += entries.len() as u64;
            }
        }
        swept.moved_bytes += moved;
        Ok(())
    }

    /// Copies what is needed until nothing is left that is, and gives the pack up.
    fn empty(
        &mut self,
        number: u32,
        entries: &[FooterEntry],
        moved: &mut u64,
    ) -> Result<Fate, GcError> {
        // Invariant: nobody had asked for these when they were last looked at.
        let mut left: Vec<FooterEntry> = entries.to_vec();
        // In the order of the disk.
        left.sort_unstable_by_key(|entry| entry.offset);
        loop {
            self.mark_asked()?;
            let (marked, unmarked): (Vec<_>, Vec<_>) =
                left.into_iter().partition(|entry| self.run.marks.has(&entry.id));
            left = unmarked;
            let mut needed = Vec::new();
            for entry in marked {
                if self.needs(number, &entry)? {
                    needed.push(entry);
                }
            }
            if !self.store.0.copy(number, &needed, moved)? {
                return Ok(Fate::Damaged);
            }
            let _nobody_is_told = self.store.0.pins.run.write();
            let asked = !self.run.below.lock().is_empty();
            if !asked && !left.iter().any(|entry| self.run.marks.has(&entry.id)) {
                self.store.0.files.give_up(number);
                return Ok(Fate::Gone);
            }
        }
    }

    /// Makes removals durable, and forgets damage nobody needs repaired.
    fn end(&mut self, how: Sweep, swept: Swept) -> Result<Swept, GcError> {
        let inner = &self.store.0;
        if how == Sweep::Remove && swept.packs_removed > 0 {
            let synced = inner.backend.sync_dir();
            synced.map_err(|error| PathError::new(inner.backend.path_of(""), "sync", error))?;
        }
        if how == Sweep::Remove && swept.stopped.is_none() {
            for id in inner.quarantine.list() {
                if !self.run.marks.has(&id) {
                    inner.quarantine.clear(inner.backend.as_ref(), &id);
                }
            }
        }
        Ok(swept)
    }
}

impl Inner {
    /// Where the newest sound record of a chunk is, if there is one.
    fn sound_record(&self, id: &ChunkId) -> Result<Option<Location>, PathError> {
        let candidates = match self.index.recent(id) {
            Some(location) => vec![location],
            None => self.index.candidates(id)?,
        };
        // The usual case costs no look at the disk.
        if let [only] = candidates.as_slice() {
            return Ok(Some(*only));
        }
        for location in candidates {
            if let Some(Ok(_)) = self.read_record(id, location)? {
                return Ok(Some(location));
            }
        }
        Ok(None)
    }

    /// Ends a pack, so that nothing more is appended to it.
    fn retire(&self, number: u32) -> Result<(), WriteError> {
        let mut chores = Chores::default();
        let rolled = {
            let mut appender = self.appender.lock();
            match &appender.active {
                Some(active) if active.number == number => self.roll(&mut appender, &mut chores),
                _ => Ok(()),
            }
        };
        self.run_chores(chores);
        rolled?;
        // Waits for its turn; a pack that cannot be sealed can still be read.
        self.seal(number);
        Ok(())
    }

    /// Copies records to the active pack, durably. False when one is damaged.
    fn copy(&self, number: u32, entries: &[FooterEntry], moved: &mut u64) -> Result<bool, GcError> {
        let mut rest = entries;
        while !rest.is_empty() {
            let mut batch: Vec<Encoded<'static>> = Vec::new();
            let mut bytes = 0u64;
            while let Some((entry, later)) = rest.split_first()
                && batch.len() < COPY_RECORDS
                && bytes < COPY_LEN
            {
                let at = Location { pack: number, offset: entry.offset, len: entry.len };
                let Some(Ok((stored, _))) = self.read_record(&entry.id, at)? else {
                    self.quarantine_if_lost(&entry.id);
                    return Ok(false);
                };
                let data: Bytes = stored.data;
                let header = RecordHeader::for_data(entry.id, stored.flags, stored.raw_len, &data);
                bytes += u64::from(header.record_len());
                batch.push(Encoded { header, data: data.to_vec().into() });
                rest = later;
            }
            self.writable()?;
            // This makes room, so it may use what is kept free for such.
            self.space.take(self.backend.as_ref(), bytes, Room::Accepted)?;
            let mut chores = Chores::default();
            let appended = {
                let mut appender = self.appender.lock();
                let batch: Vec<&Encoded<'_>> = batch.iter().collect();
                self.append_all(&mut appender, &batch, &mut chores)
            };
            self.run_chores(chores);
            appended?;
            *moved += bytes;
        }
        if !entries.is_empty() {
            self.sync()?;
        }
        Ok(true)
    }

    /// Reads a chunk the usual way, which finds out what is left of it.
    fn quarantine_if_lost(&self, id: &ChunkId) {
        if let Err(error) = self.find(id) {
            tracing::error!(%id, %error, "a chunk that is needed is damaged; its pack stays");
        }
    }

    /// Removes a pack that was given up.
    fn remove_pack(&self, number: u32, entries: &[FooterEntry]) -> Result<(), GcError> {
        let _turn = self.upkeep.lock();
        self.writable().inspect_err(|_| self.files.take_back(number))?;
        let ids: Vec<ChunkId> = entries.iter().map(|entry| entry.id).collect();
        let forgotten = self.index.forget(number, &ids);
        match &forgotten {
            Ok(()) => {}
            // There will be room when the file is gone.
            Err(error) if error.is_full() => {}
            Err(error) => {
                self.files.take_back(number);
                return Err(error.clone().into());
            }
        }
        {
            let mut appender = self.appender.lock();
            appender.packs.remove(&number);
            appender.full.remove(&number);
        }
        self.files.forget(number);
        let removed = self.backend.remove(&super::super::packs::name(number));
        removed.map_err(|error| self.pack_error(number, "remove", error))?;
        if forgotten.is_err() {
            self.index.forget(number, &ids)?;
        }
        Ok(())
    }
}
