//! The materialised state as the journal holds it: on disk, or in memory for the simulator.
//!
//! Leaves out: what it says ([`crate::records`]).
//!
//! Invariants:
//! - a write is seen whole or not at all, and not before its closure returned success.

use std::path::Path;

use crate::error::{PathError, StateError};
use crate::kv::lmdb::LmdbKv;
use crate::kv::mem::MemKv;
use crate::kv::{Kv, KvRead};

/// Where the state is.
#[derive(Clone)]
pub enum State {
    /// In an LMDB environment.
    Disk(LmdbKv),
    /// In memory; gone with the process.
    Memory(MemKv),
}

impl State {
    /// Opens the state in `dir`. One that cannot be opened is thrown away: it is a cache.
    pub(crate) fn open(dir: &Path) -> Result<Self, StateError> {
        match LmdbKv::open(dir) {
            Ok(kv) => Ok(State::Disk(kv)),
            Err(error) => {
                tracing::warn!(%error, "the journal's state cannot be opened and is rebuilt");
                Self::discard(dir)?;
                Ok(State::Disk(LmdbKv::open(dir)?))
            }
        }
    }

    /// Removes the state in `dir`, which must not be open.
    pub(crate) fn discard(dir: &Path) -> Result<(), PathError> {
        match std::fs::remove_dir_all(dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(PathError::new(dir, "remove", e))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn read<R>(
        &self,
        look: impl FnOnce(&dyn KvRead) -> Result<R, StateError>,
    ) -> Result<R, StateError> {
        match self {
            State::Disk(kv) => look(&kv.read()?),
            State::Memory(kv) => look(&kv.read()),
        }
    }

    pub(crate) fn write<R, E: From<StateError>>(
        &self,
        change: impl FnOnce(&mut dyn Kv) -> Result<R, E>,
    ) -> Result<R, E> {
        match self {
            State::Disk(kv) => {
                let mut txn = kv.write()?;
                let done = change(&mut txn)?;
                txn.commit()?;
                Ok(done)
            }
            State::Memory(kv) => {
                let mut txn = kv.write();
                let done = change(&mut txn)?;
                txn.commit();
                Ok(done)
            }
        }
    }

    /// Empties the state and writes it anew, as one change.
    pub(crate) fn rewrite<R, E: From<StateError>>(
        &self,
        change: impl FnOnce(&mut dyn Kv) -> Result<R, E>,
    ) -> Result<R, E> {
        match self {
            State::Disk(kv) => {
                let mut txn = kv.write()?;
                txn.clear()?;
                let done = change(&mut txn)?;
                txn.commit()?;
                Ok(done)
            }
            State::Memory(kv) => {
                let mut txn = kv.write_empty();
                let done = change(&mut txn)?;
                txn.commit();
                Ok(done)
            }
        }
    }

    pub(crate) fn sync(&self) -> Result<(), StateError> {
        match self {
            State::Disk(kv) => kv.sync(),
            State::Memory(_) => Ok(()),
        }
    }
}
