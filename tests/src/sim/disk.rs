//! A disk that forgets, tears, fills up and fails, under the product's own log and packs.
//!
//! Leaves out: reads that fail (damage is found by checksum instead), and what the bytes mean, except where a log frame
//! or a pack record lies, so that a checker can ask whether it is durable.
//!
//! Invariants:
//! - what was synced (for packs: the directory too) survives a loss of power, byte for byte;
//! - of what was not synced any part may survive, in any order of sectors, or nothing, the file's name included;
//! - bytes whose sync failed stay readable and never become durable, as kernels do it; only writing them again
//!   helps;
//! - once dead, every call fails until the disk is revived.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use cas::backend::{Backend, File};
use journal::error::PathError;
use journal::log::storage::Storage;
use parking_lot::Mutex;

use super::rng::Rng;

/// Bytes that reach a disk whole or not at all.
const SECTOR_LEN: usize = 64;
/// Bytes of a log frame before its entry.
const FRAME_HEAD_LEN: usize = 12;

/// Names what lies on the disk: the beginning of the hash of a log frame's entry, or of a chunk's id.
pub(crate) type Mark = [u8; 16];

/// The mark of an entry with these bytes.
pub(crate) fn entry_mark(bytes: &[u8]) -> Mark {
    *blake3::hash(bytes).as_bytes().first_chunk().expect("a hash is longer")
}

#[derive(Clone, Default)]
struct Held {
    bytes: Vec<u8>,
    durable_len: usize,
    /// The directory durably names the file.
    named: bool,
    /// Bytes that a failed sync gave up.
    doomed: Option<Range<usize>>,
    /// Durable bytes that a truncation took away and no sync has confirmed.
    cut: Vec<u8>,
    records: Vec<(Mark, Range<usize>)>,
}

/// What goes wrong from now on.
#[derive(Clone, Default, Debug)]
pub(crate) struct Trouble {
    /// Bytes the disk holds; none: no limit.
    pub(crate) room: Option<usize>,
    /// The next this many syncs fail.
    pub(crate) syncs: u32,
    /// The next this many appends write a part and fail.
    pub(crate) appends: u32,
    /// Writing calls after which the device dies in the middle of one.
    pub(crate) dies_in: Option<u64>,
}

#[derive(Clone, Default)]
struct Inner {
    files: BTreeMap<String, Held>,
    trouble: Trouble,
    dead: bool,
    /// Chance for what a call that dies or fails leaves behind.
    dice: u64,
    /// Since somebody asked: syncs and appends that failed, appends that found the disk full.
    failures: ((u64, u64), u64),
    /// A loss of power left part of what was not synced.
    torn: bool,
    /// One ever did: holes may lie within the files.
    holed: bool,
}

/// One device's disk. Clones are the same disk.
#[derive(Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<Inner>>);

fn failed(what: &str) -> io::Error {
    io::Error::other(what.to_owned())
}

impl Inner {
    fn dice(&mut self) -> u64 {
        let mut rng = Rng::new(self.dice);
        self.dice = rng.next();
        rng.next()
    }

    /// Counts a writing call; whether it is the one in which the device dies.
    fn writes(&mut self) -> io::Result<bool> {
        if self.dead {
            return Err(failed("the device is dead"));
        }
        match &mut self.trouble.dies_in {
            Some(0) => {
                self.dead = true;
                Ok(true)
            }
            Some(left) => {
                *left -= 1;
                Ok(false)
            }
            None => Ok(false),
        }
    }

    fn alive(&self) -> io::Result<()> {
        if self.dead { Err(failed("the device is dead")) } else { Ok(()) }
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let dies = self.writes()?;
        let used: usize = self.files.values().map(|f| f.bytes.len()).sum();
        let free = self.trouble.room.map_or(usize::MAX, |room| room.saturating_sub(used));
        let part = |dice: u64| (dice % (bytes.len() as u64 + 1)) as usize;
        let (taken, error) = if dies {
            (part(self.dice()), Some(failed("the device died while it wrote")))
        } else if self.trouble.appends > 0 {
            self.trouble.appends -= 1;
            self.failures.0.1 += 1;
            (part(self.dice()), Some(failed("the write failed")))
        } else if free < bytes.len() {
            self.failures.1 += 1;
            (free, Some(ErrorKind::StorageFull.into()))
        } else {
            (bytes.len(), None)
        };
        let file = self.files.entry(name.to_owned()).or_default();
        let at = file.bytes.len();
        file.bytes.extend_from_slice(&bytes[..taken]);
        if taken == bytes.len() {
            file.note(at, bytes);
        }
        error.map_or(Ok(()), Err)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        if self.writes()? {
            return Err(failed("the device died while it synced"));
        }
        let fails = self.trouble.syncs > 0;
        self.trouble.syncs = self.trouble.syncs.saturating_sub(1);
        let file = self.files.get_mut(name).ok_or(ErrorKind::NotFound)?;
        if fails {
            let from = file.doomed.as_ref().map_or(file.durable_len, |d| d.start);
            file.doomed = Some(from..file.bytes.len());
            file.durable_len = file.bytes.len();
            self.failures.0.0 += 1;
            return Err(failed("the sync failed"));
        }
        file.durable_len = file.bytes.len();
        file.cut.clear();
        Ok(())
    }

    fn truncate(&mut self, name: &str, len: usize) -> io::Result<()> {
        if self.writes()? {
            return Err(failed("the device died while it cut"));
        }
        let file = self.files.get_mut(name).ok_or(ErrorKind::NotFound)?;
        if len > file.bytes.len() {
            return Err(ErrorKind::InvalidInput.into());
        }
        if len < file.durable_len {
            let mut cut = file.bytes[len..file.durable_len].to_vec();
            cut.append(&mut file.cut);
            file.cut = cut;
            file.durable_len = len;
        }
        file.bytes.truncate(len);
        file.records.retain(|(_, at)| at.end <= len);
        file.doomed = file.doomed.take().map(|d| d.start..d.end.min(len)).filter(|d| !d.is_empty());
        Ok(())
    }
}

impl Held {
    /// Bytes that a failed sync gave up are dirty again: the next sync is about them.
    fn write_again(&mut self) {
        if let Some(doomed) = self.doomed.take() {
            self.durable_len = self.durable_len.min(doomed.start);
        }
    }

    /// Notes where entries and chunks lie in what was appended at `at`.
    fn note(&mut self, at: usize, bytes: &[u8]) {
        if bytes.starts_with(b"ATJF") {
            let mark = entry_mark(&bytes[FRAME_HEAD_LEN.min(bytes.len())..]);
            self.records.push((mark, at..at + bytes.len()));
            return;
        }
        let (mut from, mut rest) = (at, bytes);
        while let Some(header) = cas::format::RecordHeader::decode(rest) {
            let len = header.record_len() as usize;
            if len > rest.len() {
                break;
            }
            let mark = *header.id.as_bytes().first_chunk().expect("an id is longer");
            self.records.push((mark, from..from + len));
            from += len;
            rest = &rest[len..];
        }
    }

    fn survives(&self, at: &Range<usize>) -> bool {
        let whole = self.doomed.as_ref().is_none_or(|d| at.end <= d.start || d.end <= at.start);
        self.named && at.end <= self.durable_len && whole
    }

    /// What is left of the file when the power goes. Whether that is part of what was not synced.
    fn lose_power(&mut self, rng: &mut Rng) -> bool {
        let mut broken = self.doomed.take().into_iter().collect::<Vec<_>>();
        let (tail, mut kept) = (self.bytes.len() - self.durable_len, 0);
        if tail > 0 {
            kept = match rng.below(3) {
                0 => 0,
                1 => tail,
                _ => rng.below(tail + 1),
            };
            self.bytes.truncate(self.durable_len + kept);
            if rng.chance(50) {
                let sectors = (self.durable_len / SECTOR_LEN)..=(self.bytes.len() / SECTOR_LEN);
                for sector in sectors {
                    let start = (sector * SECTOR_LEN).max(self.durable_len);
                    let end = ((sector + 1) * SECTOR_LEN).min(self.bytes.len());
                    if start < end && rng.chance(40) {
                        broken.push(start..end);
                    }
                }
            }
        } else if !self.cut.is_empty() && rng.chance(50) {
            self.bytes.extend_from_slice(&self.cut);
        }
        self.cut.clear();
        let len = self.bytes.len();
        broken.retain_mut(|range| {
            *range = range.start.min(len)..range.end.min(len);
            // Who has lost nothing but zeros has lost nothing.
            self.bytes[range.clone()].iter().any(|byte| *byte != 0)
        });
        for range in &broken {
            self.bytes[range.clone()].fill(0);
        }
        self.records.retain(|(_, at)| {
            at.end <= len && broken.iter().all(|b| at.end <= b.start || b.end <= at.start)
        });
        (self.durable_len, self.named) = (len, true);
        (tail > 0 && kept > 0) || !broken.is_empty()
    }
}

impl Disk {
    pub(crate) fn new(dice: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner { dice, ..Inner::default() })))
    }

    /// A disk with the same bytes, as a backup program reads them.
    pub(crate) fn copy(&self) -> Self {
        let mut inner = self.0.lock().clone();
        (inner.trouble, inner.dead) = (Trouble::default(), false);
        for file in inner.files.values_mut() {
            (file.durable_len, file.named, file.doomed) = (file.bytes.len(), true, None);
            file.cut.clear();
        }
        Self(Arc::new(Mutex::new(inner)))
    }

    /// Changes what goes wrong.
    pub(crate) fn trouble<T>(&self, change: impl FnOnce(&mut Trouble) -> T) -> T {
        change(&mut self.0.lock().trouble)
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.0.lock().dead
    }

    /// The device is started again; the disk works. What is full stays full, and a death that is still to come comes.
    pub(crate) fn revive(&self) {
        let mut inner = self.0.lock();
        let Trouble { room, dies_in, .. } = inner.trouble;
        let dies_in = dies_in.filter(|_| !inner.dead);
        inner.trouble = Trouble { room, dies_in, ..Trouble::default() };
        inner.dead = false;
    }

    /// The power goes: only the disk's own memory stays.
    pub(crate) fn lose_power(&self, rng: &mut Rng) {
        let mut inner = self.0.lock();
        inner.files.retain(|_, file| file.named || rng.chance(50));
        let mut torn = false;
        for file in inner.files.values_mut() {
            torn |= file.lose_power(rng);
        }
        inner.torn = torn;
        inner.holed |= torn;
    }

    /// Whether a loss of power may have left holes within the files.
    pub(crate) fn may_have_holes(&self) -> bool {
        self.0.lock().holed
    }

    /// Whether a loss of power now would leave `mark` on the disk.
    pub(crate) fn is_durable(&self, mark: &Mark) -> bool {
        let inner = self.0.lock();
        let mut at = inner.files.values().flat_map(|f| f.records.iter().map(move |r| (f, r)));
        at.any(|(file, (found, range))| found == mark && file.survives(range))
    }

    /// Flips one bit within what `mark` names. Whether it was found.
    pub(crate) fn rot(&self, mark: &Mark, rng: &mut Rng) -> bool {
        let mut inner = self.0.lock();
        for file in inner.files.values_mut() {
            if let Some((_, at)) = file.records.iter().find(|(found, _)| found == mark).cloned() {
                file.bytes[at.start + rng.below(at.len())] ^= 1 << rng.below(8);
                return true;
            }
        }
        false
    }

    pub(crate) fn used(&self) -> usize {
        self.0.lock().files.values().map(|f| f.bytes.len()).sum()
    }

    /// Syncs and appends that failed, and appends that found the disk full, since the last time.
    pub(crate) fn take_failures(&self) -> ((u64, u64), u64) {
        std::mem::take(&mut self.0.lock().failures)
    }

    /// Whether the last loss of power left part of what was not synced.
    pub(crate) fn take_torn(&self) -> bool {
        std::mem::take(&mut self.0.lock().torn)
    }

    /// The directory of the log.
    pub(crate) fn log(&self) -> LogDir {
        LogDir(self.clone())
    }

    /// The directory of the packs.
    pub(crate) fn packs(&self) -> PackDir {
        PackDir(self.clone())
    }
}

fn in_log(name: &str) -> String {
    format!("log/{name}")
}

fn at(name: &str, verb: &'static str) -> impl FnOnce(io::Error) -> PathError {
    let path = PathBuf::from(in_log(name));
    move |source| PathError { path, verb, source }
}

/// The log's side of a disk.
pub(crate) struct LogDir(Disk);

impl Storage for LogDir {
    fn names(&self) -> Result<Vec<String>, PathError> {
        let inner = self.0.0.lock();
        inner.alive().map_err(at("", "list"))?;
        Ok(inner.files.keys().filter_map(|n| n.strip_prefix("log/").map(str::to_owned)).collect())
    }

    fn len(&self, name: &str) -> Result<u64, PathError> {
        let inner = self.0.0.lock();
        inner.alive().map_err(at(name, "stat"))?;
        let file = inner.files.get(&in_log(name)).ok_or(ErrorKind::NotFound);
        Ok(file.map_err(|e| at(name, "open")(e.into()))?.bytes.len() as u64)
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> Result<usize, PathError> {
        let inner = self.0.0.lock();
        inner.alive().map_err(at(name, "read"))?;
        let file = inner.files.get(&in_log(name)).ok_or(ErrorKind::NotFound);
        let file = file.map_err(|e| at(name, "open")(e.into()))?;
        let rest = file.bytes.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn append(&self, name: &str, bytes: &[u8]) -> Result<(), PathError> {
        self.0.0.lock().append(&in_log(name), bytes).map_err(at(name, "write"))
    }

    fn sync(&self, name: &str) -> Result<(), PathError> {
        let mut inner = self.0.0.lock();
        inner.sync(&in_log(name)).map_err(at(name, "sync"))?;
        if let Some(file) = inner.files.get_mut(&in_log(name)) {
            file.named = true;
        }
        Ok(())
    }

    fn truncate(&self, name: &str, len: u64) -> Result<(), PathError> {
        let mut inner = self.0.0.lock();
        inner.truncate(&in_log(name), len as usize).map_err(at(name, "cut"))?;
        if let Some(file) = inner.files.get_mut(&in_log(name)) {
            // The contract: a cut is durable at once, and everything before it.
            (file.durable_len, file.cut) = (file.bytes.len(), Vec::new());
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(in_log(name))
    }
}

fn in_packs(name: &str) -> String {
    format!("packs/{name}")
}

/// The packs' side of a disk.
pub(crate) struct PackDir(Disk);

impl Backend for PackDir {
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut inner = self.0.0.lock();
        if inner.writes()? {
            return Err(failed("the device died while it created a file"));
        }
        if inner.files.contains_key(&in_packs(name)) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        inner.files.insert(in_packs(name), Held::default());
        Ok(Arc::new(PackFile { disk: self.0.clone(), name: in_packs(name) }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let inner = self.0.0.lock();
        inner.alive()?;
        match inner.files.contains_key(&in_packs(name)) {
            true => Ok(Arc::new(PackFile { disk: self.0.clone(), name: in_packs(name) })),
            false => Err(ErrorKind::NotFound.into()),
        }
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let inner = self.0.0.lock();
        inner.alive()?;
        let all = inner.files.iter();
        Ok(all
            .filter_map(|(n, f)| Some((n.strip_prefix("packs/")?.to_owned(), f.bytes.len() as u64)))
            .collect())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.0.0.lock();
        if inner.writes()? {
            return Err(failed("the device died while it removed a file"));
        }
        inner.files.remove(&in_packs(name)).map(|_| ()).ok_or(ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut inner = self.0.0.lock();
        if inner.writes()? {
            return Err(failed("the device died while it synced the directory"));
        }
        for (_, file) in inner.files.iter_mut().filter(|(name, _)| name.starts_with("packs/")) {
            file.named = true;
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let inner = self.0.0.lock();
        inner.alive()?;
        let used: usize = inner.files.values().map(|f| f.bytes.len()).sum();
        Ok(inner.trouble.room.map_or(1 << 40, |room| room.saturating_sub(used) as u64))
    }

    fn path_of(&self, name: &str) -> PathBuf {
        PathBuf::from(in_packs(name))
    }
}

struct PackFile {
    disk: Disk,
    name: String,
}

impl File for PackFile {
    fn append(&self, at: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let mut inner = self.disk.0.lock();
        let len = inner.files.get(&self.name).ok_or(ErrorKind::NotFound)?.bytes.len();
        if at != len as u64 {
            return Err(ErrorKind::InvalidInput.into());
        }
        inner.append(&self.name, &bytes)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let inner = self.disk.0.lock();
        inner.alive()?;
        let file = inner.files.get(&self.name).ok_or(ErrorKind::NotFound)?;
        let from = offset as usize;
        let found = file.bytes.get(from..from + buf.len()).ok_or(ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(found);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let inner = self.disk.0.lock();
        inner.alive()?;
        Ok(inner.files.get(&self.name).ok_or(ErrorKind::NotFound)?.bytes.len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.disk.0.lock().truncate(&self.name, len as usize)
    }

    fn write_again(&self) -> io::Result<()> {
        let mut inner = self.disk.0.lock();
        if inner.writes()? {
            return Err(failed("the device died while it wrote again"));
        }
        inner.files.get_mut(&self.name).ok_or(ErrorKind::NotFound)?.write_again();
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.0.lock().sync(&self.name)
    }
}
