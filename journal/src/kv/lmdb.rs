//! The seam over LMDB: the materialised state on disk, a cache of the log.
//!
//! Leaves out: durability. Commits are not synced; a state that may have lived through a power loss
//! is rebuilt from the log, and a crash of the process alone leaves commits whole.
//!
//! Invariants:
//! - one writer at a time (LMDB's own lock), any number of short readers;
//! - no read transaction outlives the call that made it.

use std::ops::Bound;
use std::path::{Path, PathBuf};

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RoTxn, RwTxn, WithoutTls};

use super::{Kv, KvRead, Visit};
use crate::error::{PathError, StateError};

/// Virtual size of the map, bytes; costs address space only.
const MAP_SIZE: usize = 64 << 30;
/// Most concurrent readers; each view call is one for microseconds.
const READERS_MAX: u32 = 512;

type Db = Database<'static, Bytes, Bytes>;

/// An open state.
#[derive(Clone)]
pub struct LmdbKv {
    env: Env<WithoutTls>,
    db: Db,
    path: PathBuf,
}

/// A consistent look at the state.
pub struct LmdbRead<'a> {
    db: Db,
    txn: RoTxn<'a, WithoutTls>,
}

/// A writing transaction.
pub struct LmdbTxn<'a> {
    db: Db,
    txn: RwTxn<'a>,
}

impl LmdbKv {
    /// Opens the state in `path`, making it when it is missing.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        std::fs::create_dir_all(path).map_err(|e| PathError::new(path, "create", e))?;
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(MAP_SIZE).max_readers(READERS_MAX);
        // SAFETY: the directory belongs to one process, which holds the store's exclusive lock, and
        // nothing but LMDB touches its files while the environment is open. NO_SYNC gives up
        // durability only, which the log provides.
        #[allow(unsafe_code)]
        let env = unsafe { options.flags(EnvFlags::NO_SYNC).open(path) }?;
        let txn = env.write_txn()?;
        let db = env
            .create_databases_and_commit(txn, |opener, txn| {
                let db = opener.create_database::<Bytes, Bytes>(txn, None)?;
                Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(db))
            })?
            .commit();
        let db = db.ok_or(StateError::Corrupt { table: '?' })?;
        Ok(Self { env, db, path: path.to_owned() })
    }

    /// Begins to read.
    pub fn read(&self) -> Result<LmdbRead<'_>, StateError> {
        Ok(LmdbRead { db: self.db, txn: self.env.read_txn()? })
    }

    /// Begins to write.
    pub fn write(&self) -> Result<LmdbTxn<'_>, StateError> {
        Ok(LmdbTxn { db: self.db, txn: self.env.write_txn()? })
    }

    /// Writes what was committed to the disk, so that a clean stop needs no rebuild.
    pub fn sync(&self) -> Result<(), StateError> {
        Ok(self.env.force_sync()?)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn scan(
    db: Db,
    txn: &RoTxn<'_>,
    from: &[u8],
    to: &[u8],
    visit: &mut Visit<'_>,
) -> Result<(), StateError> {
    if from >= to {
        return Ok(());
    }
    let range = (Bound::Included(from), Bound::Excluded(to));
    for pair in db.range(txn, &range)? {
        let (key, value) = pair?;
        if visit(key, value)?.is_break() {
            break;
        }
    }
    Ok(())
}

impl KvRead for LmdbRead<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self.db.get(&self.txn, key)?.map(<[u8]>::to_vec))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StateError> {
        scan(self.db, &self.txn, from, to, visit)
    }
}

impl LmdbTxn<'_> {
    /// Makes the changes seen.
    pub fn commit(self) -> Result<(), StateError> {
        Ok(self.txn.commit()?)
    }

    /// Removes everything.
    pub fn clear(&mut self) -> Result<(), StateError> {
        Ok(self.db.clear(&mut self.txn)?)
    }
}

impl KvRead for LmdbTxn<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self.db.get(&self.txn, key)?.map(<[u8]>::to_vec))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StateError> {
        scan(self.db, &self.txn, from, to, visit)
    }
}

impl Kv for LmdbTxn<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        Ok(self.db.put(&mut self.txn, key, value)?)
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StateError> {
        self.db.delete(&mut self.txn, key)?;
        Ok(())
    }
}
