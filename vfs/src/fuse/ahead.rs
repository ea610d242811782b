//! Read-ahead: what a reader in order will want next is brought while the kernel waits for nothing.
//!
//! Leaves out: what that is ([`crate::fs`]).
//!
//! Invariant: a full pool has better things to do; then nothing is brought.

use std::sync::Arc;

use super::guarded;
use super::pool::Job;
use crate::error::FsError;
use crate::fs::{Fs, Near, Wait};

/// Lets the pool bring what a reader in order will want next.
pub(super) fn read_ahead(
    fs: &Arc<Fs>,
    try_run: impl Fn(Job) -> bool,
    fh: u64,
    (offset, read): (u64, usize),
    near: Near,
) {
    let wait = match near {
        Near::Disk => Wait::Never,
        Near::Peers => Wait::Allowed,
    };
    while let Some((from, to)) = fs.plan_ahead(fh, offset, read, near) {
        let fs = fs.clone();
        let bring = Box::new(move || {
            guarded(|| match fs.read_ahead(fh, from, to, wait) {
                Ok(()) | Err(FsError::WouldWait) => {}
                Err(error) => tracing::debug!(%error, "read-ahead failed"),
            });
        });
        // A full pool has better things to do.
        if !try_run(bring) {
            break;
        }
    }
}
