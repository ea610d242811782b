//! Small files of ours: read with a bound and a version check, written whole or not at all.
//!
//! Leaves out what they say. Every such file is JSON whose `format` is looked at before anything
//! else, so that a file of a newer version is refused and not half understood.
//!
//! Invariants: after a crash the file is the old or the new one; what [`write`] wrote is durable
//! when it returns.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::report::Failure;

/// Largest file read here, bytes.
pub const FILE_LEN_MAX: u64 = 4 << 20;

#[derive(Deserialize)]
struct Head {
    format: u64,
}

/// Reads a whole small file; `None` if there is none.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let failed = |e: io::Error| Failure::io("read", path, &e);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_LEN_MAX.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_LEN_MAX {
        return Err(Failure::corrupt(path, "it is far too large"));
    }
    Ok(Some(bytes))
}

/// Reads a JSON file of ours of at most the version `supported`; `None` if there is none.
pub fn load<T: DeserializeOwned>(path: &Path, supported: u64) -> Result<Option<T>, Failure> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    let damaged = |e: serde_json::Error| Failure::corrupt(path, e);
    let head: Head = serde_json::from_slice(&bytes).map_err(damaged)?;
    if head.format > supported {
        return Err(Failure::too_new(path.display(), head.format, supported));
    }
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

/// Writes a JSON file of ours.
pub fn save<T: Serialize>(path: &Path, value: &T) -> Result<(), Failure> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(Failure::internal)?;
    bytes.push(b'\n');
    write(path, &bytes)
}

/// Puts `bytes` in the place of `path`, readable by its owner only.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    try_write(path, bytes).map_err(|e| Failure::io("write", path, &e))
}

fn try_write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let aside = dir.join(format!(".{}-{}", name.to_string_lossy(), random_suffix()?));
    let written = File::options()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&aside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&aside, path));
    if let Err(e) = written {
        let _ = fs::remove_file(&aside);
        return Err(e);
    }
    sync_dir(dir)
}

/// Makes the names in `dir` durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Eight random bytes in hex, for names that must not collide.
pub fn random_suffix() -> io::Result<String> {
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;
    use crate::report::Code;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_is_its_owners() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        assert_eq!(load::<serde_json::Value>(&path, 1).unwrap(), None);
        save(&path, &json!({"format": 1, "x": 1})).unwrap();
        save(&path, &json!({"format": 1, "x": 2})).unwrap();
        assert_eq!(load::<serde_json::Value>(&path, 1).unwrap().unwrap()["x"], 2);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left aside");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        // A directory in the way of the rename: the write fails at its last step.
        let path = dir.path().join("a.json");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), "x").unwrap();
        assert!(write(&path, b"{}").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(path.join("inside").exists());
    }

    #[test]
    fn a_newer_format_is_refused_with_both_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        // What a newer version says besides its number is not looked at.
        fs::write(&path, r#"{"x": [1], "format": 7}"#).unwrap();
        let failure = load::<Head>(&path, 1).err().unwrap();
        assert_eq!(failure.code, Code::TooNew);
        assert!(failure.cause.contains("format 7") && failure.cause.contains("up to 1"));
    }

    #[test]
    fn garbage_is_damage_and_not_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        for garbage in [&b""[..], b"{", b"[]", b"\xff\xfe", b"{\"format\":-1}", b"{\"x\":1}"] {
            fs::write(&path, garbage).unwrap();
            assert_eq!(load::<Head>(&path, 1).err().unwrap().code, Code::Corrupt);
        }
        fs::write(&path, vec![b' '; FILE_LEN_MAX as usize + 1]).unwrap();
        assert_eq!(load::<Head>(&path, 1).err().unwrap().code, Code::Corrupt);
    }
}
