//! The seam in memory, for tests and the simulator.
//!
//! Leaves out: durability.
//!
//! Invariants:
//! - a [`MemTxn`] dropped without `commit` leaves no trace.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard};

use super::{Kv, KvRead, Visit};
use crate::error::StateError;

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store in memory.
#[derive(Clone, Debug, Default)]
pub struct MemKv {
    pairs: Arc<RwLock<Pairs>>,
}

/// A consistent look at a [`MemKv`].
#[derive(Debug)]
pub struct MemRead<'a> {
    pairs: RwLockReadGuard<'a, Pairs>,
}

/// A writing transaction: its own changes over the store.
#[derive(Debug)]
pub struct MemTxn {
    base: Arc<RwLock<Pairs>>,
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl MemKv {
    /// Begins to read; writers wait to commit until the guard is dropped.
    pub fn read(&self) -> MemRead<'_> {
        MemRead { pairs: self.pairs.read() }
    }

    /// Begins to write; there must be one writer at a time.
    pub fn write(&self) -> MemTxn {
        MemTxn { base: Arc::clone(&self.pairs), changes: BTreeMap::new() }
    }

    /// Begins to write with everything that was there removed.
    pub fn write_empty(&self) -> MemTxn {
        let changes = self.pairs.read().keys().map(|key| (key.clone(), None)).collect();
        MemTxn { base: Arc::clone(&self.pairs), changes }
    }
}

type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

fn range(from: &[u8], to: &[u8]) -> Option<Bounds> {
    (from < to).then(|| (Bound::Included(from.to_vec()), Bound::Excluded(to.to_vec())))
}

impl KvRead for MemRead<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self.pairs.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StateError> {
        let Some(range) = range(from, to) else { return Ok(()) };
        for (key, value) in self.pairs.range(range) {
            if visit(key, value)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl MemTxn {
    /// Makes the changes seen.
    pub fn commit(self) {
        let mut pairs = self.base.write();
        for (key, value) in self.changes {
            match value {
                Some(value) => pairs.insert(key, value),
                None => pairs.remove(&key),
            };
        }
    }
}

impl KvRead for MemTxn {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        match self.changes.get(key) {
            Some(change) => Ok(change.clone()),
            None => Ok(self.base.read().get(key).cloned()),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StateError> {
        let Some(range) = range(from, to) else { return Ok(()) };
        let base = self.base.read();
        let mut old = base.range(range.clone()).peekable();
        let mut new = self.changes.range(range).peekable();
        loop {
            let flow = match (old.peek(), new.peek()) {
                (None, None) => break,
                (Some((a, _)), Some((b, _))) if a == b => {
                    old.next();
                    ControlFlow::Continue(())
                }
                (Some((a, _)), Some((b, _))) if a > b => step_new(&mut new, visit)?,
                (None, Some(_)) => step_new(&mut new, visit)?,
                (Some((a, value)), _) => {
                    let flow = visit(a, value)?;
                    old.next();
                    flow
                }
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn step_new<'a>(
    new: &mut impl Iterator<Item = (&'a Vec<u8>, &'a Option<Vec<u8>>)>,
    visit: &mut Visit<'_>,
) -> Result<ControlFlow<()>, StateError> {
    match new.next() {
        Some((key, Some(value))) => visit(key, value),
        _ => Ok(ControlFlow::Continue(())),
    }
}

impl Kv for MemTxn {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        self.changes.insert(key.to_vec(), Some(value.to_vec()));
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StateError> {
        self.changes.insert(key.to_vec(), None);
        Ok(())
    }
}
