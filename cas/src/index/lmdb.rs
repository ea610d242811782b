//! The index's table in LMDB.
//!
//! Opened without syncing: the kernel may write its pages in any order, so after a loss of power the file means
//! nothing. The store notices that by the boot id in its marker and throws the file away.
//!
//! Leaves out: when to trust the file.
//!
//! Invariants: keys are [`super::PREFIX_LEN`] bytes of an id; values are whole locations; of an unknown format nothing
//! is used.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RwTxn, WithoutTls};

use super::{Batch, Location, PackInfo, Prefix, insert, prefix};
use crate::error::PathError;
use crate::format::Input;
use crate::id::ChunkId;

/// Version of keys and values. Another one is thrown away, not migrated.
const FORMAT: u8 = 1;
/// Address space for the file, tried from the largest down, bytes. 3 GB hold the index of 1 TB.
const MAP_SIZES: [usize; 5] = [256 << 30, 64 << 30, 16 << 30, 4 << 30, 1 << 30];
/// Threads that may read at once.
const READERS_MAX: u32 = 510;
/// How long to wait for an index of the same process to be let go of.
const CLOSE_WAIT: Duration = Duration::from_secs(10);
const LOCATION_LEN: usize = 12;

type Db = Database<'static, Bytes, Bytes>;

/// An open LMDB environment.
pub(crate) struct Lmdb {
    env: Env<WithoutTls>,
    chunks: Db,
    packs: Db,
    dir: PathBuf,
}

impl Lmdb {
    /// Opens or creates the table in `dir`. An error of kind `InvalidData` means that the file is of no use.
    pub(crate) fn open(dir: &Path) -> Result<Self, PathError> {
        let at = |verb| move |error: io::Error| PathError::new(dir, verb, error);
        fs::create_dir_all(dir).map_err(at("create"))?;
        // An index that this process has just let go of may still be closing.
        if let Ok(canonical) = fs::canonicalize(dir)
            && let Some(closing) = heed::env_closing_event(canonical)
            && !closing.wait_timeout(CLOSE_WAIT)
        {
            return Err(PathError::new(dir, "open", io::ErrorKind::ResourceBusy.into()));
        }
        let env = open_env(dir).map_err(|error| at("open")(io_error(error)))?;
        Self::prepare(env, dir).map_err(|error| at("open")(io_error(error)))
    }

    fn prepare(env: Env<WithoutTls>, dir: &Path) -> heed::Result<Self> {
        let pages = env.info().last_page_number as u64 + 1;
        let page_len = u64::from(env.unnamed_database_stat().page_size);
        // Reading a page that the file has lost would end the process.
        if env.info().last_txn_id > 0 && env.real_disk_size()? < pages.saturating_mul(page_len) {
            return Err(invalid("the file is cut off"));
        }
        env.clear_stale_readers()?;
        let txn = env.write_txn()?;
        let opened = env.create_databases_and_commit(txn, |opener, txn| -> heed::Result<_> {
            let meta = opener.create_database::<Bytes, Bytes>(txn, Some("meta"))?;
            let known = match meta.get(txn, b"format")? {
                Some(format) => format == [FORMAT],
                None => {
                    meta.put(txn, b"format", &[FORMAT])?;
                    true
                }
            };
            let chunks = opener.create_database::<Bytes, Bytes>(txn, Some("chunks"))?;
            let packs = opener.create_database::<Bytes, Bytes>(txn, Some("packs"))?;
            Ok(if known {
                CommitOrAbort::Commit((chunks, packs))
            } else {
                CommitOrAbort::Abort(())
            })
        })?;
        let (chunks, packs) = opened.commit().ok_or_else(|| invalid("another format"))?;
        Ok(Self { env, chunks, packs, dir: dir.to_owned() })
    }

    fn at<T>(&self, verb: &'static str, result: heed::Result<T>) -> Result<T, PathError> {
        result.map_err(|error| PathError::new(&self.dir, verb, io_error(error)))
    }

    pub(super) fn get(&self, key: &Prefix) -> Result<Vec<Location>, PathError> {
        let get = || {
            let txn = self.env.read_txn()?;
            Ok(decode(self.chunks.get(&txn, key)?.unwrap_or_default()))
        };
        self.at("look into", get())
    }

    pub(super) fn packs(&self) -> Result<BTreeMap<u32, PackInfo>, PathError> {
        let read = || {
            let txn = self.env.read_txn()?;
            let mut packs = BTreeMap::new();
            for item in self.packs.iter(&txn)? {
                let (key, value) = item?;
                let number = <[u8; 4]>::try_from(key).map_err(|_| invalid("a pack's key"))?;
                let info = decode_info(value).ok_or_else(|| invalid("a pack's value"))?;
                packs.insert(u32::from_be_bytes(number), info);
            }
            Ok(packs)
        };
        self.at("look into", read())
    }

    pub(super) fn write(&self, batch: &Batch) -> Result<(), PathError> {
        let write = || {
            let mut txn = self.env.write_txn()?;
            self.write_chunks(&mut txn, batch)?;
            for (pack, info) in &batch.packs {
                self.packs.put(&mut txn, &pack.to_be_bytes(), &encode_info(info))?;
            }
            txn.commit()
        };
        self.at("write", write())
    }

    fn write_chunks(&self, txn: &mut RwTxn<'_>, batch: &Batch) -> heed::Result<()> {
        for (key, location) in batch.sorted() {
            match self.chunks.get(txn, &key)?.map(decode) {
                None => self.chunks.put(txn, &key, &encode(&[location]))?,
                Some(mut list) => {
                    insert(&mut list, location);
                    self.chunks.put(txn, &key, &encode(&list))?;
                }
            }
        }
        Ok(())
    }

    /// Removes a pack's row and its records, which are those of `ids`.
    pub(super) fn forget(&self, pack: u32, ids: &[ChunkId]) -> Result<(), PathError> {
        let forget = || {
            let mut txn = self.env.write_txn()?;
            for id in ids {
                let key = prefix(id);
                let Some(mut list) = self.chunks.get(&txn, &key)?.map(decode) else { continue };
                list.retain(|location| location.pack != pack);
                match list.is_empty() {
                    true => drop(self.chunks.delete(&mut txn, &key)?),
                    false => self.chunks.put(&mut txn, &key, &encode(&list))?,
                }
            }
            self.packs.delete(&mut txn, &pack.to_be_bytes())?;
            txn.commit()
        };
        self.at("write", forget())
    }

    pub(super) fn clear(&self) -> Result<(), PathError> {
        let clear = || {
            let mut txn = self.env.write_txn()?;
            self.chunks.clear(&mut txn)?;
            self.packs.clear(&mut txn)?;
            txn.commit()
        };
        self.at("clear", clear())
    }

    pub(super) fn close(self) -> Result<(), PathError> {
        self.at("sync", self.env.force_sync())?;
        let closing = self.env.prepare_for_closing();
        if closing.wait_timeout(CLOSE_WAIT) {
            Ok(())
        } else {
            Err(PathError::new(self.dir, "close", io::ErrorKind::ResourceBusy.into()))
        }
    }
}

/// Removes the table's files from `dir`, which need not exist.
pub(crate) fn wipe(dir: &Path) -> Result<(), PathError> {
    match fs::remove_dir_all(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(PathError::new(dir, "remove", error)),
    }
    let parent = dir.parent().unwrap_or(dir);
    crate::backend::fs::sync_dir(parent).map_err(|error| PathError::new(parent, "sync", error))
}

fn open_env(dir: &Path) -> heed::Result<Env<WithoutTls>> {
    let mut result = Err(invalid("no map size"));
    for size in MAP_SIZES {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(size).max_dbs(3).max_readers(READERS_MAX);
        result = open_mapped(&mut options, dir);
        match &result {
            // The address space is limited: a smaller map will do for long.
            Err(heed::Error::Io(error)) if error.kind() == io::ErrorKind::OutOfMemory => {}
            _ => break,
        }
    }
    result
}

// SAFETY: the file lies in the store's private directory, which the daemon locks against other processes, and only
// this module opens it; heed refuses to open it twice in one process. NO_SYNC can only corrupt it by a loss of power,
// after which the store removes it unread.
#[allow(unsafe_code)]
fn open_mapped(
    options: &mut EnvOpenOptions<WithoutTls>,
    dir: &Path,
) -> heed::Result<Env<WithoutTls>> {
    unsafe {
        options.flags(EnvFlags::NO_SYNC | EnvFlags::NO_READ_AHEAD);
        options.open(dir)
    }
}

fn invalid(what: &'static str) -> heed::Error {
    heed::Error::Io(io::Error::new(io::ErrorKind::InvalidData, what))
}

/// LMDB's own errors mean that the file cannot be used; the system's stay what they are.
fn io_error(error: heed::Error) -> io::Error {
    match error {
        heed::Error::Io(error) => error,
        heed::Error::Mdb(heed::MdbError::MapFull) => io::ErrorKind::StorageFull.into(),
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

fn encode(list: &[Location]) -> Vec<u8> {
    let mut out = Vec::with_capacity(list.len() * LOCATION_LEN);
    for location in list {
        out.extend_from_slice(&location.pack.to_le_bytes());
        out.extend_from_slice(&location.offset.to_le_bytes());
        out.extend_from_slice(&location.len.to_le_bytes());
    }
    out
}

fn decode(bytes: &[u8]) -> Vec<Location> {
    let (list, _) = bytes.as_chunks::<LOCATION_LEN>();
    list.iter()
        .filter_map(|bytes| {
            let mut rest = Input(bytes);
            Some(Location { pack: rest.u32()?, offset: rest.u32()?, len: rest.u32()? })
        })
        .collect()
}

fn encode_info(info: &PackInfo) -> [u8; 13] {
    let mut out = [0; 13];
    let (end, rest) = out.split_at_mut(8);
    let (records, sealed) = rest.split_at_mut(4);
    end.copy_from_slice(&info.end.to_le_bytes());
    records.copy_from_slice(&info.records.to_le_bytes());
    sealed.copy_from_slice(&[u8::from(info.sealed)]);
    out
}

fn decode_info(bytes: &[u8]) -> Option<PackInfo> {
    let mut rest = Input(bytes);
    let (end, records, [sealed]) = (rest.u64()?, rest.u32()?, rest.take::<1>()?);
    Some(PackInfo { end, records, sealed: sealed == 1 })
}

#[cfg(test)]
mod tests {
    //! The bytes of values.

    use super::*;

    #[test]
    fn value_bytes_are_frozen() {
        let list = [
            Location { pack: 1, offset: 0x0203, len: 0x0405_0607 },
            Location { pack: 9, offset: 8, len: 7 },
        ];
        let bytes = [
            1, 0, 0, 0, 3, 2, 0, 0, 7, 6, 5, 4, //
            9, 0, 0, 0, 8, 0, 0, 0, 7, 0, 0, 0,
        ];
        assert_eq!(encode(&list), bytes);
        assert_eq!(decode(&bytes), list);
        let info = PackInfo { end: 0x0102_0304, records: 5, sealed: true };
        assert_eq!(encode_info(&info), [4, 3, 2, 1, 0, 0, 0, 0, 5, 0, 0, 0, 1]);
        assert_eq!(decode_info(&encode_info(&info)), Some(info));
        assert_eq!(decode_info(&[1, 2, 3]), None);
    }
}
