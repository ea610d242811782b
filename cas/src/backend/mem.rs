//! A backend in memory that forgets like a disk does.
//!
//! Used for stores that need no disk and by tests, which let it lose power, fill up and fail.
//!
//! Leaves out: reordering of writes within one file's unsynced tail; a crash keeps a prefix of it.
//!
//! Invariants: after [`MemBackend::crash`] there is what was synced, and of each unsynced tail no more than asked for;
//! bytes whose sync failed are zeros then; once dead, every call fails.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Backend, File};

/// A directory in memory. Clones are the same directory.
#[derive(Clone, Default)]
pub struct MemBackend(Arc<Mutex<Disk>>);

#[derive(Default)]
struct Disk {
    files: BTreeMap<String, Arc<Mutex<Data>>>,
    // Invariant: the names a crash keeps.
    durable: BTreeMap<String, Arc<Mutex<Data>>>,
    faults: Faults,
    used: u64,
}

#[derive(Default)]
struct Data {
    bytes: Vec<u8>,
    durable_len: usize,
    /// Bytes that a failed sync gave up: readable, called clean, and gone with the power.
    given_up: Option<Range<usize>>,
    /// Durable bytes that a truncation took away and no sync has confirmed.
    cut: Option<Vec<u8>>,
}

/// What goes wrong, and when.
#[derive(Clone, Default, Debug)]
pub struct Faults {
    /// Bytes the disk holds; none: no limit.
    pub capacity: Option<u64>,
    /// Syncs (of files and of the directory) that still succeed before the machine dies; none: it lives.
    pub syncs_left: Option<u64>,
    /// The next this many file syncs fail with an I/O error and lose the file's unsynced bytes.
    pub sync_errors: u32,
    /// The next this many file syncs fail but the bytes stay readable and are called clean, as page caches do.
    pub sync_errors_kept: u32,
    /// The next this many appends write half and fail with an I/O error.
    pub append_errors: u32,
    /// No further call succeeds.
    pub dead: bool,
    /// Syncs seen so far.
    pub syncs: u64,
}

impl MemBackend {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes what goes wrong.
    pub fn faults<T>(&self, change: impl FnOnce(&mut Faults) -> T) -> T {
        change(&mut self.0.lock().faults)
    }

    /// The directory after a loss of power in which each file kept at most `tail_kept` bytes of what was not synced.
    pub fn crash(&self, tail_kept: usize) -> MemBackend {
        let disk = self.0.lock();
        let mut after = Disk::default();
        for (name, data) in &disk.durable {
            let data = data.lock();
            let mut bytes = data.bytes.clone();
            match &data.cut {
                Some(cut) => {
                    bytes.truncate(data.durable_len);
                    bytes.extend_from_slice(cut);
                }
                None => bytes.truncate(data.durable_len.saturating_add(tail_kept)),
            }
            let given_up = data.given_up.clone().unwrap_or_default();
            let given_up = given_up.start.min(bytes.len())..given_up.end.min(bytes.len());
            bytes.get_mut(given_up).unwrap_or_default().fill(0);
            after.used += bytes.len() as u64;
            let durable_len = bytes.len();
            let data = Data { bytes, durable_len, ..Data::default() };
            let data = Arc::new(Mutex::new(data));
            after.files.insert(name.clone(), data.clone());
            after.durable.insert(name.clone(), data);
        }
        MemBackend(Arc::new(Mutex::new(after)))
    }

    /// Flips the lowest bit of a byte, as a rotting disk would.
    pub fn flip(&self, name: &str, offset: usize) -> bool {
        let disk = self.0.lock();
        let Some(data) = disk.files.get(name) else { return false };
        let mut data = data.lock();
        let Some(byte) = data.bytes.get_mut(offset) else { return false };
        *byte ^= 1;
        true
    }

    fn file(&self, data: &Arc<Mutex<Data>>) -> Arc<dyn File> {
        Arc::new(MemFile { disk: self.0.clone(), data: data.clone() })
    }
}

impl Disk {
    fn alive(&self) -> io::Result<()> {
        if self.faults.dead { Err(io::Error::other("the machine is dead")) } else { Ok(()) }
    }

    /// Counts a sync; the machine may die in it.
    fn note_sync(&mut self) -> io::Result<()> {
        self.alive()?;
        self.faults.syncs += 1;
        match &mut self.faults.syncs_left {
            Some(0) => {
                self.faults.dead = true;
                self.alive()
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Backend for MemBackend {
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut disk = self.0.lock();
        disk.alive()?;
        if disk.files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let data = Arc::<Mutex<Data>>::default();
        disk.files.insert(name.to_owned(), data.clone());
        Ok(self.file(&data))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let disk = self.0.lock();
        disk.alive()?;
        Ok(self.file(disk.files.get(name).ok_or(io::ErrorKind::NotFound)?))
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let disk = self.0.lock();
        disk.alive()?;
        Ok(disk
            .files
            .iter()
            .map(|(name, data)| (name.clone(), data.lock().bytes.len() as u64))
            .collect())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.alive()?;
        let data = disk.files.remove(name).ok_or(io::ErrorKind::NotFound)?;
        disk.used = disk.used.saturating_sub(data.lock().bytes.len() as u64);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.note_sync()?;
        disk.durable = disk.files.clone();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let disk = self.0.lock();
        disk.alive()?;
        Ok(disk.faults.capacity.map_or(u64::MAX / 2, |all| all.saturating_sub(disk.used)))
    }

    fn path_of(&self, name: &str) -> PathBuf {
        PathBuf::from("memory").join(name)
    }
}

struct MemFile {
    disk: Arc<Mutex<Disk>>,
    data: Arc<Mutex<Data>>,
}

impl File for MemFile {
    fn append(&self, at: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.alive()?;
        let mut data = self.data.lock();
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        if at != data.bytes.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not at the end"));
        }
        let len: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let free = disk.faults.capacity.map_or(u64::MAX, |all| all.saturating_sub(disk.used));
        let (room, fault) = if disk.faults.append_errors > 0 {
            disk.faults.append_errors -= 1;
            (len / 2, Some(io::Error::other("the write failed")))
        } else if len > free {
            (free, Some(io::ErrorKind::StorageFull.into()))
        } else {
            (len, None)
        };
        let mut room = usize::try_from(room).unwrap_or(usize::MAX);
        for part in parts {
            let taken = part.get(..room.min(part.len())).unwrap_or_default();
            data.bytes.extend_from_slice(taken);
            disk.used += taken.len() as u64;
            room -= taken.len();
        }
        fault.map_or(Ok(()), Err)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.lock().alive()?;
        let data = self.data.lock();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let part = from.checked_add(buf.len()).and_then(|to| data.bytes.get(from..to));
        buf.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.lock().alive()?;
        Ok(self.data.lock().bytes.len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.alive()?;
        let mut data = self.data.lock();
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > data.bytes.len() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "files only grow by appending",
            ));
        }
        disk.used = disk.used.saturating_sub((data.bytes.len() - len) as u64);
        if len < data.durable_len {
            let mut cut = data.bytes.get(len..data.durable_len).unwrap_or_default().to_vec();
            cut.extend_from_slice(data.cut.as_deref().unwrap_or_default());
            data.cut = Some(cut);
            data.durable_len = len;
        }
        data.bytes.truncate(len);
        let given_up = data.given_up.take();
        let left = given_up.map(|range| range.start..range.end.min(len));
        data.given_up = left.filter(|range| !range.is_empty());
        Ok(())
    }

    fn write_again(&self) -> io::Result<()> {
        self.disk.lock().alive()?;
        let mut data = self.data.lock();
        if let Some(given_up) = data.given_up.take() {
            data.durable_len = data.durable_len.min(given_up.start);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.note_sync()?;
        let mut data = self.data.lock();
        if disk.faults.sync_errors > 0 {
            disk.faults.sync_errors -= 1;
            let keep = data.durable_len;
            data.bytes.truncate(keep);
            return Err(io::Error::other("the sync failed"));
        }
        if disk.faults.sync_errors_kept > 0 {
            disk.faults.sync_errors_kept -= 1;
            let from = data.given_up.as_ref().map_or(data.durable_len, |range| range.start);
            data.given_up = Some(from..data.bytes.len());
            data.durable_len = data.bytes.len();
            return Err(io::Error::other("the sync failed"));
        }
        data.durable_len = data.bytes.len();
        data.cut = None;
        Ok(())
    }
}
