//! The backend on a real directory.
//!
//! Leaves out: locking out other processes (the daemon holds the store's lock).
//!
//! Invariants: files are created for their owner only; one append is one system call unless the kernel takes less.

use std::fs::{self, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Backend, File};

/// Mode of created files.
const FILE_MODE: u32 = 0o600;
/// Bytes written at once when a file is written again.
const WRITE_AGAIN_LEN: usize = 1 << 20;

/// A directory on disk.
pub struct FsBackend {
    dir: PathBuf,
}

impl FsBackend {
    /// The directory `dir`, created with its parents when missing.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }
}

impl Backend for FsBackend {
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(self.dir.join(name))?;
        Ok(Arc::new(FsFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(true).open(self.dir.join(name))?;
        Ok(Arc::new(FsFile(file)))
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if let (true, Ok(name)) = (meta.is_file(), entry.file_name().into_string()) {
                files.push((name, meta.len()));
            }
        }
        Ok(files)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        sync_dir(&self.dir)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Makes creations and removals in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

struct FsFile(fs::File);

impl File for FsFile {
    fn append(&self, at: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let total: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let mut done = match rustix::io::pwritev(&self.0, parts, at) {
            Ok(written) => written as u64,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        if done == total {
            return Ok(());
        }
        // A short write is rare (a signal, a full disk): what is left goes part by part.
        let mut start = 0u64;
        for part in parts {
            let end = start.saturating_add(part.len() as u64);
            if done < end {
                let from = usize::try_from(done.saturating_sub(start)).unwrap_or(usize::MAX);
                let rest = part.get(from..).unwrap_or_default();
                self.0.write_all_at(rest, at.saturating_add(done))?;
                done = end;
            }
            start = end;
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    /// Without clearing memory that is written over at once.
    fn read_vec(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = offset.saturating_add(bytes.len() as u64);
            match rustix::io::pread(&self.0, rustix::buffer::spare_capacity(&mut bytes), at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // There may be room for more than was asked for.
        bytes.truncate(len);
        Ok(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn write_again(&self) -> io::Result<()> {
        let (mut at, end) = (0, self.len()?);
        while at < end {
            let part = usize::try_from(end - at).unwrap_or(usize::MAX).min(WRITE_AGAIN_LEN);
            let bytes = self.read_vec(at, part)?;
            self.0.write_all_at(&bytes, at)?;
            at += part as u64;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
