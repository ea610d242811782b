//! The ordered key-value seam the fold is written over.
//!
//! Leaves out: what is stored ([`crate::records`]).
//!
//! Invariants of every implementation:
//! - keys sort bytewise; a scan sees the transaction's own writes;
//! - nothing written through a transaction is seen by others before it is committed whole.

pub mod lmdb;
pub mod mem;

use std::ops::ControlFlow;

use crate::error::StateError;

/// Called for each pair of a scan, in key order.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StateError> + 'a;

/// Reading.
pub trait KvRead {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError>;

    /// Every pair with `from <= key < to`, in order, until `visit` breaks.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StateError>;
}

/// Reading and writing, inside one transaction.
pub trait Kv: KvRead {
    /// Sets `key`.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError>;

    /// Removes `key`, when it is there.
    fn delete(&mut self, key: &[u8]) -> Result<(), StateError>;
}

/// The least key after every key that starts with `prefix`.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end;
        }
    }
    vec![0xff; PREFIX_OVER_LEN]
}

/// Longer than any key, so that it is after all that begin with 0xff.
const PREFIX_OVER_LEN: usize = 512;

/// Every key that starts with `prefix`.
pub fn keys_with(kv: &(impl KvRead + ?Sized), prefix: &[u8]) -> Result<Vec<Vec<u8>>, StateError> {
    let mut out = Vec::new();
    kv.scan(prefix, &prefix_end(prefix), &mut |key, _| {
        out.push(key.to_vec());
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(out)
}

/// The first key that starts with `prefix`.
pub fn first_with(
    kv: &(impl KvRead + ?Sized),
    prefix: &[u8],
) -> Result<Option<Vec<u8>>, StateError> {
    let mut out = None;
    kv.scan(prefix, &prefix_end(prefix), &mut |key, _| {
        out = Some(key.to_vec());
        Ok(ControlFlow::Break(()))
    })?;
    Ok(out)
}
