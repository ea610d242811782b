//! Making appended records durable: syncs, footers, and what to do when a sync fails.
//!
//! Leaves out: appending ([`super::append`]).
//!
//! Invariants:
//! - a sync covers every append that was finished when it was asked for; callers that wait share the next one;
//! - after a failed sync the kernel's word about that file is worth nothing: its unsynced records are read back,
//!   verified by hash and written to another pack, which is synced in turn; if one is lost, the store stops writing;
//! - a pack gets its footer only after its records are durable, so a footer proves them.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::append::{Appender, Chores, Encoded, Unsynced};
use super::{CLOSED, Inner, OPEN, packs};
use crate::error::{PathError, WriteError};
use crate::format::{FooterEntry, PACK_HEADER_LEN, RECORD_HEADER_LEN, RecordHeader, encode_footer};
use crate::index::PackInfo;
use crate::stored::StoredChunk;

/// Packs one after another that may fail to sync before the store gives up writing.
const ROUNDS_MAX: usize = 3;

/// What one round of syncing has to do.
struct Round {
    sequence: u64,
    rescues: u64,
    packs: Vec<(u32, Unsynced)>,
    dir: bool,
}

impl Inner {
    /// Makes everything appended so far durable.
    pub(super) fn sync(&self) -> Result<(), WriteError> {
        let wanted = self.appender.lock().sequence;
        let mut done = self.commits.lock();
        if *done >= wanted {
            return Ok(());
        }
        for _ in 0..ROUNDS_MAX {
            let round = {
                let mut appender = self.appender.lock();
                let packs = appender.unsynced.iter().map(|(n, pack)| (*n, pack.clone())).collect();
                let dir = std::mem::take(&mut appender.dir_dirty);
                Round { sequence: appender.sequence, rescues: appender.rescues, packs, dir }
            };
            if self.run(&round)? {
                *done = round.sequence;
                return Ok(());
            }
        }
        Err(self.fail(self.backend.path_of("")))
    }

    /// Syncs; false when data had to be moved to another pack, which needs a round of its own.
    fn run(&self, round: &Round) -> Result<bool, WriteError> {
        let mut failed = Vec::new();
        for (number, pack) in &round.packs {
            if let Err(error) = pack.file.sync() {
                failed.push((*number, self.pack_error(*number, "sync", error)));
            }
        }
        if round.dir
            && let Err(error) = self.backend.sync_dir()
        {
            tracing::error!(%error, "the pack directory could not be synced");
            return Err(self.fail(self.backend.path_of("")));
        }
        let mut chores = Chores::default();
        let (result, moved) = {
            let mut appender = self.appender.lock();
            for (number, synced) in &round.packs {
                if failed.iter().any(|(bad, _)| bad == number) {
                    continue;
                }
                if let Some(pack) = appender.unsynced.get_mut(number) {
                    pack.synced = synced.end;
                    if pack.end == synced.end {
                        appender.unsynced.remove(number);
                    }
                }
            }
            let result = failed.iter().try_for_each(|(number, error)| {
                let (path, error) = (error.path.display(), &error.source);
                tracing::error!(%path, %error, "a sync failed");
                self.rescue(&mut appender, *number, &mut chores)
            });
            (result, appender.rescues != round.rescues)
        };
        self.queue_chores(chores);
        result.map(|()| !moved)
    }

    /// Queues what a rescue left to do; sealing is left to the next open where there is no keeper, because the caller
    /// holds the commit lock that sealing needs.
    fn queue_chores(&self, chores: Chores) {
        if self.pool.has_keeper() {
            self.run_chores(chores);
        }
    }

    /// Leaves a pack that has failed: moves its unsynced records to a new active pack.
    pub(super) fn rescue(
        &self,
        appender: &mut Appender,
        number: u32,
        chores: &mut Chores,
    ) -> Result<(), WriteError> {
        let path = self.backend.path_of(&packs::name(number));
        appender.rescues += 1;
        let Some(pack) = appender.unsynced.remove(&number) else {
            // All of it is durable: what the failed write left is cut off, and it gets no more.
            if let Some(active) = appender.active.take_if(|active| active.number == number) {
                let _ = active.file.truncate(active.end);
            }
            return self.roll(appender, chores).map_err(|_| self.fail(path));
        };
        let entries = match appender.active.take_if(|active| active.number == number) {
            Some(active) => Arc::new(active.entries),
            None => appender.full.remove(&number).unwrap_or_default(),
        };
        self.sealed.notify_all();
        let durable = pack.synced.max(PACK_HEADER_LEN as u64);
        let (kept, moved): (Vec<FooterEntry>, Vec<FooterEntry>) =
            entries.iter().partition(|entry| u64::from(entry.offset) < durable);
        if appender.active.is_none() && self.roll(appender, chores).is_err() {
            return Err(self.fail(path));
        }
        appender.rescuing = true;
        let moved = self.move_records(appender, &pack, &moved, chores);
        appender.rescuing = false;
        let lost = moved.map_err(|_| self.fail(path.clone()))?;
        let info = PackInfo { end: durable, records: kept.len() as u32, sealed: false };
        appender.packs.insert(number, info);
        self.index.add(number, info, []);
        // What was moved must not be taken for durable at the next start.
        let _ = pack.file.truncate(durable);
        if lost { Err(self.fail(path)) } else { Ok(()) }
    }

    /// Appends a failed pack's records anew; whether one was lost.
    fn move_records(
        &self,
        appender: &mut Appender,
        pack: &Unsynced,
        entries: &[FooterEntry],
        chores: &mut Chores,
    ) -> Result<bool, WriteError> {
        let mut lost = false;
        for entry in entries {
            match self.read_back(pack, entry) {
                Some(record) => self.append_all(appender, &[&record], chores)?,
                None => {
                    self.quarantine.add(self.backend.as_ref(), &entry.id);
                    lost = true;
                }
            }
        }
        Ok(lost)
    }

    /// A record of a failed pack, if what can still be read of it is right.
    fn read_back(&self, pack: &Unsynced, entry: &FooterEntry) -> Option<Encoded<'static>> {
        let mut bytes = vec![0; entry.len as usize];
        pack.file.read_at(entry.offset.into(), &mut bytes).ok()?;
        let header = RecordHeader::decode(&bytes).filter(|header| header.id == entry.id)?;
        let data = bytes.split_off(RECORD_HEADER_LEN);
        let stored = StoredChunk {
            flags: header.flags,
            raw_len: header.raw_len,
            data: bytes::Bytes::from(data.clone()),
        };
        stored.raw(&self.key, &entry.id)?;
        let header = RecordHeader::for_data(header.id, header.flags, header.raw_len, &data);
        Some(Encoded { header, data: data.into() })
    }

    /// Gives a full pack its footer.
    pub(super) fn seal(&self, number: u32) {
        let _turn = self.sealing.lock();
        if !self.appender.lock().full.contains_key(&number) || self.sync().is_err() {
            return;
        }
        let (entries, info) = {
            let appender = self.appender.lock();
            match (appender.full.get(&number), appender.packs.get(&number)) {
                (Some(entries), Some(info)) => (entries.clone(), *info),
                // Given up by a rescue.
                _ => return,
            }
        };
        let sealed = self.write_footer(number, info, &entries);
        let mut appender = self.appender.lock();
        appender.full.remove(&number);
        match sealed {
            Ok(()) => {
                let info = PackInfo { sealed: true, ..info };
                appender.packs.insert(number, info);
                self.index.add(number, info, []);
            }
            // The next start scans the pack instead.
            Err(error) => tracing::warn!(error = %error.source, "a pack could not be sealed"),
        }
        self.sealed.notify_all();
    }

    fn write_footer(
        &self,
        number: u32,
        info: PackInfo,
        entries: &[FooterEntry],
    ) -> Result<(), PathError> {
        let at = |verb| move |error| self.pack_error(number, verb, error);
        let file = self.files.get(self.backend.as_ref(), number).map_err(at("open"))?;
        let offset = u32::try_from(info.end).unwrap_or(u32::MAX);
        let footer = encode_footer(offset, entries);
        let written = file.append(info.end, &[IoSlice::new(&footer)]).map_err(at("write"));
        let synced = written.and_then(|()| file.sync().map_err(at("sync")));
        if synced.is_err() {
            let _ = file.truncate(info.end);
        }
        synced
    }

    /// Ends all use of the store.
    pub(super) fn close(&self) -> Result<(), WriteError> {
        match self.state.swap(CLOSED, Ordering::AcqRel) {
            CLOSED => return Err(WriteError::Closed),
            OPEN => {}
            // Only what was durable before the failure is; the marker stays, so the next start looks at everything.
            _ => {
                let _ = self.index.close();
                return Err(WriteError::ReadOnly { path: self.failed.lock().clone() });
            }
        }
        self.sync()?;
        let full: Vec<u32> = self.appender.lock().full.keys().copied().collect();
        full.into_iter().for_each(|number| self.seal(number));
        self.index.flush()?;
        self.index.close()?;
        match &self.marker {
            Some(marker) => Ok(marker.clear()?),
            None => Ok(()),
        }
    }
}
