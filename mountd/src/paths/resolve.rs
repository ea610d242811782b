//! The real path of a path, found without touching certain places.
//!
//! The system's own `realpath` asks every directory on the way, also a dead mount, which may hang.
//! This one stops asking at the places it is told are mounts: below them the path is taken as it is
//! written. Leaves out whether the end exists; a missing part is taken as it is written too.
//!
//! Invariant: at most [`LINKS_MAX`] symbolic links are followed.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Symbolic links followed on one way, as the kernel's limit.
const LINKS_MAX: usize = 40;

/// The real path of `absolute`; what is at or below a path for which `is_mount` holds is not looked
/// at.
pub fn real(absolute: &Path, is_mount: &dyn Fn(&Path) -> bool) -> io::Result<PathBuf> {
    let mut left: VecDeque<OsString> = parts(absolute).collect();
    let mut done = PathBuf::from("/");
    let mut links = 0_usize;
    while let Some(part) = left.pop_front() {
        if part == ".." {
            done.pop();
            continue;
        }
        done.push(&part);
        if done.ancestors().any(is_mount) {
            continue;
        }
        let target = match fs::symlink_metadata(&done) {
            Ok(meta) if meta.is_symlink() => fs::read_link(&done)?,
            _ => continue,
        };
        links = links.saturating_add(1);
        if links > LINKS_MAX {
            return Err(io::Error::other("too many symbolic links"));
        }
        done.pop();
        if target.is_absolute() {
            done = PathBuf::from("/");
        }
        for part in parts(&target).rev() {
            left.push_front(part);
        }
    }
    Ok(done)
}

fn parts(path: &Path) -> impl DoubleEndedIterator<Item = OsString> + '_ {
    path.components().filter_map(|c| match c {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn nowhere(_: &Path) -> bool {
        false
    }

    #[test]
    fn links_dots_and_missing_ends_are_resolved_like_the_system_does() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        symlink("a/b", root.join("rel")).unwrap();
        symlink(root.join("a"), root.join("abs")).unwrap();
        symlink("../rel", root.join("a/up")).unwrap();
        for (given, expected) in [
            ("rel/x", "a/b/x"),
            ("abs/b/../c", "a/c"),
            ("abs/up/y/z", "a/b/y/z"),
            // `..` after a link leaves the link's target, not the link.
            ("rel/..", "a"),
            ("nothing/there", "nothing/there"),
            ("./a//b/.", "a/b"),
        ] {
            assert_eq!(real(&root.join(given), &nowhere).unwrap(), root.join(expected), "{given}");
        }
        assert_eq!(real(Path::new("/../.."), &nowhere).unwrap(), Path::new("/"));
    }

    #[test]
    fn a_loop_of_links_ends() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        assert!(real(&dir.path().join("a/x"), &nowhere).is_err());
    }

    #[test]
    fn below_a_mount_nothing_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let mount = root.join("mnt");
        fs::create_dir(&mount).unwrap();
        // Were it looked at, this link would lead away.
        symlink("/etc", mount.join("inside")).unwrap();
        symlink("mnt", root.join("to")).unwrap();
        let is_mount = |p: &Path| p == mount;
        assert_eq!(real(&root.join("to/inside/x"), &is_mount).unwrap(), mount.join("inside/x"));
        assert_eq!(real(&root.join("mnt/../to/y"), &is_mount).unwrap(), mount.join("y"));
    }
}
