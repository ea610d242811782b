//! What the store needs of a disk: few calls on one flat directory.
//!
//! Leaves out: meaning; a backend knows neither packs nor chunks.
//!
//! Invariants every implementation keeps (the contract suite checks them on each):
//! - bytes appended are readable at once and durable after [`File::sync`] *and*, for a new file, [`Backend::sync_dir`];
//! - a failed append may have written a part; the caller cuts it off or abandons the file;
//! - bytes whose sync failed, in whatever process, may be readable and stay out of every later sync's reach, until
//!   they are cut off or [`File::write_again`] has been called;
//! - reads are exact: all bytes asked for or an error.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

pub mod fs;
pub mod mem;

/// One directory.
pub trait Backend: Send + Sync + 'static {
    /// Creates a file that must not exist.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Opens an existing file for reading and appending.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// All files with their lengths, in no order.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// Bytes that can still be written.
    fn free_bytes(&self) -> io::Result<u64>;
    /// The path to name in errors.
    fn path_of(&self, name: &str) -> PathBuf;
}

/// One open file.
pub trait File: Send + Sync + 'static {
    /// Writes all parts, one after the other, at `at`, which is the file's end.
    fn append(&self, at: u64, parts: &[IoSlice<'_>]) -> io::Result<()>;
    /// Fills `buf` from `offset`; `UnexpectedEof` when the file is too short.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// The `len` bytes from `offset`; `UnexpectedEof` when the file is too short.
    fn read_vec(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.read_at(offset, &mut bytes)?;
        Ok(bytes)
    }
    /// The file's length.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts the file.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Writes all bytes once more where they are, so that the next sync is about them whatever became of the syncs
    /// before. Cut short it harms nothing: each byte is what it was.
    fn write_again(&self) -> io::Result<()>;
    /// Makes the file's bytes and length durable.
    fn sync(&self) -> io::Result<()>;
}

#[cfg(test)]
mod tests;
