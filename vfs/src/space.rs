//! Refuses bytes before they are accepted when the disk is full up to the reserve.
//!
//! Leaves out: the content store's own check; both look at the same disk.
//!
//! Invariant: between two looks at the disk no more is granted than half of what the last look found free, a quarter of
//! the reserve and [`GRANT_MAX_BYTES`], so that neither several writers nor other programs that fill the disk meanwhile
//! can lead to more being accepted than the reserve can finish.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};

/// Most that is granted on one look at the disk, bytes.
const GRANT_MAX_BYTES: u64 = 64 << 20;

/// The free space of the spool's disk.
#[derive(Debug)]
pub(crate) struct Space {
    dir: PathBuf,
    reserve_bytes: u64,
    granted_bytes: AtomicI64,
}

/// What a file system says about itself, in blocks of [`Usage::block_bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Block size, bytes.
    pub block_bytes: u64,
    /// All blocks.
    pub blocks: u64,
    /// Free blocks.
    pub free: u64,
    /// Free blocks that the mount may still use: the reserve is taken off.
    pub available: u64,
    /// All file slots.
    pub files: u64,
    /// Free file slots.
    pub files_free: u64,
}

impl Space {
    /// Watches the disk that holds `dir`.
    pub(crate) fn new(dir: &Path, reserve_bytes: u64) -> Self {
        Self { dir: dir.to_path_buf(), reserve_bytes, granted_bytes: AtomicI64::new(0) }
    }

    /// Whether `bytes` more may be accepted. A disk that cannot be asked refuses nothing: the write itself will tell.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        if self.granted_bytes.fetch_sub(bytes, Ordering::Relaxed) >= bytes {
            return true;
        }
        let Ok(stat) = rustix::fs::statvfs(&self.dir) else { return true };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize).saturating_sub(self.reserve_bytes);
        let grant = (free / 2).min(self.reserve_bytes / 4).min(GRANT_MAX_BYTES);
        let grant = i64::try_from(grant).unwrap_or(0);
        self.granted_bytes.store(grant, Ordering::Relaxed);
        u64::try_from(bytes).is_ok_and(|bytes| bytes <= free)
    }

    /// The state of the disk, the reserve counted as used.
    pub(crate) fn usage(&self) -> std::io::Result<Usage> {
        let stat = rustix::fs::statvfs(&self.dir)?;
        let block_bytes = stat.f_frsize.max(1);
        Ok(Usage {
            block_bytes,
            blocks: stat.f_blocks,
            free: stat.f_bfree,
            available: stat.f_bavail.saturating_sub(self.reserve_bytes.div_ceil(block_bytes)),
            files: stat.f_files,
            files_free: stat.f_ffree,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_larger_than_the_disk_refuses_everything() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!Space::new(dir.path(), u64::MAX).take(1));
        assert!(Space::new(dir.path(), 0).take(4096));
        assert!(!Space::new(dir.path(), 0).take(u64::MAX / 2));
        assert_eq!(Space::new(dir.path(), u64::MAX).usage().unwrap().available, 0);
    }
}
