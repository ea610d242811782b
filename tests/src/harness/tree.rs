//! What a directory tree holds, and how two trees differ.
//!
//! Compared are names (bytes), kinds, permission bits, modification times of files, contents (by hash), targets of
//! symbolic links and `user.` attributes. Left out are times of directories (they are each device's own), owners
//! (they are the mounting user's) and hard links (a drive has none).

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// One thing in a tree.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Node {
    /// A directory and its permission bits.
    Dir(u32),
    /// A symbolic link and its target.
    Link(PathBuf),
    /// A file.
    File {
        /// Permission bits.
        mode: u32,
        /// Modification time: seconds and nanoseconds.
        mtime: (i64, i64),
        /// Length in bytes.
        len: u64,
        /// Hash of the content.
        hash: blake3::Hash,
        /// `user.` attributes.
        attributes: BTreeMap<String, Vec<u8>>,
    },
}

/// Everything below one directory, by path relative to it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
}

impl Tree {
    /// Reads the whole tree below `root`.
    pub fn read(root: &Path) -> Result<Tree> {
        let mut tree = Tree::default();
        let mut dirs = vec![PathBuf::new()];
        while let Some(dir) = dirs.pop() {
            let at = root.join(&dir);
            for entry in fs::read_dir(&at).with_context(|| format!("list {}", at.display()))? {
                let path = dir.join(entry?.file_name());
                let node = read_node(&root.join(&path))?;
                if matches!(node, Node::Dir(_)) {
                    dirs.push(path.clone());
                }
                tree.nodes.insert(path, node);
            }
        }
        Ok(tree)
    }

    /// The same tree as if every file had been written at the same moment.
    pub fn without_times(mut self) -> Tree {
        for node in self.nodes.values_mut() {
            if let Node::File { mtime, .. } = node {
                *mtime = (0, 0);
            }
        }
        self
    }

    /// How many things it holds.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// What stands at a relative path.
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(Path::new(path))
    }

    /// Every difference to `other`, in words; empty when they are alike.
    pub fn differences(&self, other: &Tree) -> Differences {
        let mut lines = Vec::new();
        for (path, node) in &self.nodes {
            match other.nodes.get(path) {
                None => lines.push(format!("{} is only in the first", path.display())),
                Some(twin) if twin != node => {
                    lines.push(format!("{}: {node:?} against {twin:?}", path.display()));
                }
                Some(_) => {}
            }
        }
        let missing = other.nodes.keys().filter(|path| !self.nodes.contains_key(*path));
        lines.extend(missing.map(|path| format!("{} is only in the second", path.display())));
        Differences { lines }
    }
}

/// How two trees differ.
#[derive(Debug)]
pub struct Differences {
    lines: Vec<String>,
}

impl Differences {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_MAX: usize = 20;
        writeln!(f, "{} differences", self.lines.len())?;
        self.lines.iter().take(SHOWN_MAX).try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// The hash of one file's content.
pub fn hash_of(path: &Path) -> Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    hasher.update_reader(file).with_context(|| format!("read {}", path.display()))?;
    Ok(hasher.finalize())
}

fn read_node(path: &Path) -> Result<Node> {
    let meta = fs::symlink_metadata(path).with_context(|| format!("stat {}", path.display()))?;
    let mode = meta.mode() & 0o7777;
    if meta.is_dir() {
        return Ok(Node::Dir(mode));
    }
    if meta.is_symlink() {
        return Ok(Node::Link(fs::read_link(path)?));
    }
    let mtime = (meta.mtime(), meta.mtime_nsec());
    let attributes = attributes_of(path)?;
    Ok(Node::File { mode, mtime, len: meta.len(), hash: hash_of(path)?, attributes })
}

fn attributes_of(path: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    /// More than any file system takes in one value or one list.
    const ROOM: usize = 64 << 10;
    let mut names = vec![0_u8; ROOM];
    let len = match rustix::fs::listxattr(path, names.as_mut_slice()) {
        Ok(len) => len,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => return Err(error).with_context(|| format!("listxattr {}", path.display())),
    };
    names.truncate(len);
    let mut attributes = BTreeMap::new();
    for name in String::from_utf8_lossy(&names).split('\0').filter(|n| n.starts_with("user.")) {
        let mut value = vec![0_u8; ROOM];
        let len = rustix::fs::getxattr(path, name, value.as_mut_slice())
            .with_context(|| format!("getxattr {name} of {}", path.display()))?;
        value.truncate(len);
        attributes.insert(name.to_owned(), value);
    }
    Ok(attributes)
}

/// Fills a directory with what file systems stumble over: Unicode names in both normal forms, deep and long paths,
/// empty and one-byte files, a large file, symbolic links that dangle and that do not, permission bits, old, new and
/// sub-second times, and attributes.
pub fn plant_awkward(root: &Path, large_len: u64) -> Result<()> {
    let write = |name: &str, bytes: &[u8]| -> Result<PathBuf> {
        let path = root.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    };
    for name in ["szene-größe.blend", "シーン/最終版.txt", "سين/🦊 fox.md", "cafe\u{301} (NFD)/é"]
    {
        write(name, name.as_bytes())?;
    }
    for name in
        [" leading and trailing ", "-rf", "*?[]{}$'\"\\", "new\nline", "a:b|c<d>", "con.txt"]
    {
        write(&format!("odd names/{name}"), name.as_bytes())?;
    }
    write(&format!("long/{}", "n".repeat(255)), b"255 bytes of name")?;
    let deep: PathBuf = (0..40).map(|level| format!("level-{level:02}-of-a-deep-path")).collect();
    write(&deep.join("bottom").to_string_lossy(), b"deep")?;
    write("empty", b"")?;
    write("one byte", b"x")?;
    fs::create_dir_all(root.join("an empty directory"))?;
    write_random(&root.join("large.bin"), large_len, 7)?;
    links_modes_and_times(root)
}

fn links_modes_and_times(root: &Path) -> Result<()> {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::{Duration, SystemTime};
    symlink("empty", root.join("link to empty"))?;
    symlink("../nowhere/at all", root.join("dangling link"))?;
    symlink("シーン", root.join("link to a directory"))?;
    for mode in [0o755, 0o644, 0o600, 0o444, 0o711] {
        let path = root.join(format!("mode {mode:o}"));
        fs::write(&path, b"#!/bin/sh\n")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    let times = [0, 1, 86_400 * 365 * 20, 86_400 * 365 * 60];
    for (number, seconds) in times.into_iter().enumerate() {
        let path = root.join(format!("time {number}"));
        fs::write(&path, b"when")?;
        let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, 123_456_789);
        File::options().write(true).open(&path)?.set_modified(time)?;
    }
    let marked = root.join("with attributes");
    fs::write(&marked, b"marked")?;
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&marked, "user.note", b"from the studio", flags)?;
    rustix::fs::setxattr(&marked, "user.empty", b"", flags)?;
    Ok(())
}

/// Writes `len` bytes that do not compress and depend on nothing but `seed`.
pub fn write_random(path: &Path, len: u64, seed: u64) -> Result<()> {
    use std::io::{Read, Write};
    let mut key = [0_u8; 32];
    key.iter_mut().zip(seed.to_le_bytes()).for_each(|(to, from)| *to = from);
    let mut source = blake3::Hasher::new_keyed(&key).finalize_xof().take(len);
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut file = std::io::BufWriter::with_capacity(1 << 20, file);
    std::io::copy(&mut source, &mut file).with_context(|| format!("write {}", path.display()))?;
    file.flush()?;
    Ok(())
}

/// `len` bytes that do not compress and depend on nothing but `seed`.
pub fn random_bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut key = [0_u8; 32];
    key.iter_mut().zip(seed.to_le_bytes()).for_each(|(to, from)| *to = from);
    let mut bytes = vec![0; len];
    blake3::Hasher::new_keyed(&key).finalize_xof().fill(&mut bytes);
    bytes
}

/// The hash of bytes at hand, the same as [`hash_of`] a file that holds them.
pub fn hash_bytes(bytes: &[u8]) -> [u8; 32] {
    blake3::hash(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_plantings_are_alike_and_every_change_is_seen() -> Result<()> {
        let (a, b) = (tempfile::tempdir()?, tempfile::tempdir()?);
        plant_awkward(a.path(), 3_000_000)?;
        plant_awkward(b.path(), 3_000_000)?;
        let changed = "szene-größe.blend";
        let same_time = fs::metadata(a.path().join(changed))?.modified()?;
        let align = |root: &Path, name: &str| -> Result<()> {
            Ok(File::options().write(true).open(root.join(name))?.set_modified(same_time)?)
        };
        let tree = Tree::read(a.path())?;
        for (path, node) in &tree.nodes {
            if let (Node::File { .. }, Some(name)) = (node, path.to_str()) {
                let mode = fs::metadata(a.path().join(name))?.permissions();
                let open = fs::metadata(a.path().join(name)).map(|m| m.mode() & 0o200 != 0)?;
                if open && !name.starts_with("time") {
                    align(a.path(), name)?;
                    align(b.path(), name)?;
                } else {
                    let time = fs::metadata(a.path().join(name))?.modified()?;
                    let owner_may = std::os::unix::fs::PermissionsExt::from_mode(0o644);
                    fs::set_permissions(b.path().join(name), owner_may)?;
                    File::options().write(true).open(b.path().join(name))?.set_modified(time)?;
                    fs::set_permissions(b.path().join(name), mode)?;
                }
            }
        }
        let tree = Tree::read(a.path())?;
        let differences = tree.differences(&Tree::read(b.path())?);
        assert!(differences.is_empty(), "{differences}");
        fs::write(b.path().join(changed), b"other bytes")?;
        align(b.path(), changed)?;
        assert_eq!(tree.differences(&Tree::read(b.path())?).lines.len(), 1);
        Ok(())
    }
}
