//! A journal's disk in memory.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::path::PathBuf;

use journal::error::PathError;
use journal::log::storage::Storage;
use parking_lot::Mutex;

/// Files by name.
#[derive(Default)]
pub(super) struct Memory(pub(super) Mutex<BTreeMap<String, Vec<u8>>>);

fn missing(name: &str) -> PathError {
    let source = Error::from(ErrorKind::NotFound);
    PathError { path: PathBuf::from(name), verb: "open", source }
}

impl Storage for Memory {
    fn names(&self) -> Result<Vec<String>, PathError> {
        Ok(self.0.lock().keys().cloned().collect())
    }

    fn len(&self, name: &str) -> Result<u64, PathError> {
        self.0.lock().get(name).map(|file| file.len() as u64).ok_or_else(|| missing(name))
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> Result<usize, PathError> {
        let files = self.0.lock();
        let file = files.get(name).ok_or_else(|| missing(name))?;
        let rest = file.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn append(&self, name: &str, bytes: &[u8]) -> Result<(), PathError> {
        self.0.lock().entry(name.to_owned()).or_default().extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&self, _name: &str) -> Result<(), PathError> {
        Ok(())
    }

    fn truncate(&self, name: &str, len: u64) -> Result<(), PathError> {
        self.0.lock().get_mut(name).ok_or_else(|| missing(name))?.truncate(len as usize);
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(name)
    }
}
