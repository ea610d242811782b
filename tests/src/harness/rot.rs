//! Damage on disk: bits flipped where they hurt.
//!
//! Leaves out formats: a place is found by the bytes that stand there, so that a change of layout cannot turn a
//! flip into one that hits nothing.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// All files below `dir` that are not empty, sorted.
pub fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                dirs.push(entry.path());
            } else if meta.is_file() && meta.len() > 0 {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Flips one bit of the byte at `offset`.
pub fn flip_bit(file: &Path, offset: u64) -> Result<()> {
    let handle = OpenOptions::new().read(true).write(true).open(file)?;
    let mut byte = [0_u8];
    handle.read_exact_at(&mut byte, offset)?;
    handle.write_all_at(&[byte[0] ^ 0x10], offset)?;
    handle.sync_all()?;
    Ok(())
}

/// Flips a bit in every place below `dir` where `bytes` stand, and gives the files that were hit.
pub fn flip_where(dir: &Path, bytes: &[u8]) -> Result<Vec<PathBuf>> {
    let mut hit = Vec::new();
    for file in files_below(dir)? {
        let content = fs::read(&file)?;
        for offset in positions(&content, bytes) {
            flip_bit(&file, (offset + bytes.len() / 2) as u64)?;
            hit.push(file.clone());
        }
    }
    if hit.is_empty() {
        bail!("the bytes stand nowhere below {}", dir.display());
    }
    Ok(hit)
}

fn positions(content: &[u8], bytes: &[u8]) -> Vec<usize> {
    let Some(first) = bytes.first() else { return Vec::new() };
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(rest) = content.get(from..) {
        let Some(at) = rest.iter().position(|byte| byte == first).map(|at| from + at) else {
            break;
        };
        if content.get(at..).is_some_and(|rest| rest.starts_with(bytes)) {
            found.push(at);
        }
        from = at + 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flip_hits_the_bytes_and_nothing_else() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("pack");
        fs::write(&file, b"before NEEDLE after")?;
        fs::write(dir.path().join("other"), b"untouched")?;
        assert_eq!(flip_where(dir.path(), b"NEEDLE")?, vec![file.clone()]);
        assert_eq!(fs::read(&file)?, b"before NEE\x54LE after");
        assert!(flip_where(dir.path(), b"NEEDLE").is_err());
        Ok(())
    }
}
