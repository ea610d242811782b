//! Names: making, moving, exchanging, removing, listing.

use journal::id::DirId;
use journal::op::{Op, Timestamp, Value};
use rustix::fs::OFlags;
use vfs::FsError;
use vfs::attr::{Caller, Kind, SetAttr, SetTime};
use vfs::fs::{RenameMode, Wait, XattrMode};

use crate::drive::{ME, ROOT, World};

#[test]
fn a_tree_made_at_once_is_published_parents_first() {
    let world = World::new();
    world.mkdir("a");
    world.mkdir("a/b");
    world.save("a/b/f", b"1");
    world.save("a/g", b"2");
    world.fs().symlink(ME, world.ino("a").unwrap(), b"l", b"b/f").unwrap();
    assert_eq!(world.list("a"), ["b", "g", "l"]);
    world.pass(100);
    assert_eq!(world.drive.batches().len(), 1);
    assert_eq!(world.published("a/b/f").unwrap(), b"1");
    assert_eq!(world.list("a"), ["b", "g", "l"]);
    assert_eq!(world.fs().readlink(world.ino("a/l").unwrap()).unwrap(), b"b/f");
    let mut made = std::collections::HashSet::from([DirId::ROOT]);
    for op in world.drive.batches().concat() {
        match op {
            Op::MkDir { parent, dir, .. } => {
                assert!(made.contains(&parent));
                made.insert(dir);
            }
            Op::Put { dir, .. } => assert!(made.contains(&dir)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_file_in_a_directory_whose_making_waits_is_not_published_without_it() {
    let world = World::new();
    world.save("x", b"1");
    world.pass(100);
    // The name is taken away and becomes a directory: it waits as a name that vanished does not, since it is back.
    world.unlink("x");
    world.mkdir("x");
    world.save("x/f", b"2");
    world.pass(100);
    assert_eq!(world.published("x/f").unwrap(), b"2");
}

#[test]
fn directories_move_with_all_that_is_in_them() {
    let world = World::new();
    world.mkdir("a");
    world.mkdir("a/b");
    world.save("a/b/f", b"1");
    let handle = world.open("a/b/f", OFlags::RDWR);
    let ino = world.ino("a/b").unwrap();
    world.mkdir("c");
    world.rename("a/b", "c/d");
    assert_eq!(world.ino("c/d").unwrap(), ino);
    assert!(world.ino("a/b").is_none());
    assert_eq!(world.read("c/d/f").unwrap(), b"1");
    world.write(handle, 1, b"2");
    world.close(handle);
    world.pass(100);
    assert_eq!(world.published("c/d/f").unwrap(), b"12");
    assert!(world.drive.at("a/b").is_none());
    // The name is free again for another directory.
    world.mkdir("a/b");
    assert!(world.list("a/b").is_empty());
    assert_ne!(world.ino("a/b").unwrap(), ino);
    world.pass(100);
    assert_eq!(world.list("c/d"), ["f"]);
}

#[test]
fn a_directory_cannot_go_into_itself() {
    let world = World::new();
    world.mkdir("a");
    world.mkdir("a/b");
    let (from, to) = ((ROOT, &b"a"[..]), (world.ino("a/b").unwrap(), &b"c"[..]));
    let result = world.fs().rename(ME, from, to, RenameMode::Replace, Wait::Allowed);
    assert!(matches!(result, Err(FsError::Cycle)), "{result:?}");
}

#[test]
fn a_directory_replaces_only_an_empty_one() {
    let world = World::new();
    world.mkdir("a");
    world.save("a/f", b"1");
    world.mkdir("b");
    world.save("b/g", b"2");
    let (from, to) = ((ROOT, &b"a"[..]), (ROOT, &b"b"[..]));
    let full = world.fs().rename(ME, from, to, RenameMode::Replace, Wait::Allowed);
    assert!(matches!(full, Err(FsError::NotEmpty)));
    world.pass(100);
    world.unlink("b/g");
    world.rename("a", "b");
    assert_eq!(world.list(""), ["b"]);
    assert_eq!(world.list("b"), ["f"]);
    world.pass(3_000);
    assert_eq!(world.drive.names(DirId::ROOT), ["b"]);
    assert_eq!(world.published("b/f").unwrap(), b"1");
}

#[test]
fn a_directory_made_anew_is_empty_and_another_inode() {
    let world = World::new();
    let old = world.mkdir("d");
    world.save("d/f", b"1");
    world.pass(100);
    assert!(matches!(world.rmdir("d"), Err(FsError::NotEmpty)));
    world.unlink("d/f");
    world.rmdir("d").unwrap();
    let new = world.mkdir("d");
    assert_ne!(old, new);
    assert!(world.list("d").is_empty());
    world.save("d/g", b"2");
    world.pass(5_000);
    assert_eq!(world.list("d"), ["g"]);
    assert_eq!(world.published("d/g").unwrap(), b"2");
    assert!(world.drive.at("d/f").is_none());
}

#[test]
fn a_removed_directory_takes_nothing_in() {
    let world = World::new();
    let ino = world.mkdir("d");
    world.pass(100);
    world.rmdir("d").unwrap();
    assert!(matches!(world.fs().mkdir(ME, ino, b"x", 0o755), Err(FsError::NotFound)));
    world.pass(3_000);
    assert!(world.drive.at("d").is_none());
}

#[test]
fn names_change_places() {
    let world = World::new();
    world.save("a", b"1");
    world.mkdir("b");
    world.save("b/f", b"2");
    let a = world.ino("a").unwrap();
    let (from, to) = ((ROOT, &b"a"[..]), (ROOT, &b"b"[..]));
    assert!(matches!(
        world.fs().rename(ME, from, to, RenameMode::Exchange, Wait::Never),
        Err(FsError::WouldWait)
    ));
    world.fs().rename(ME, from, to, RenameMode::Exchange, Wait::Allowed).unwrap();
    assert_eq!(world.ino("b").unwrap(), a);
    assert_eq!(world.read("b").unwrap(), b"1");
    assert_eq!(world.read("a/f").unwrap(), b"2");
    assert_eq!(world.published("b").unwrap(), b"1");
    world.pass(100);
    assert_eq!(world.published("a/f").unwrap(), b"2");
    world.save("b", b"3");
    world.pass(100);
    assert_eq!(world.published("b").unwrap(), b"3");
    assert_eq!(world.drive.names(DirId::ROOT), ["a", "b"], "a conflict was made");
}

#[test]
fn a_rename_that_must_not_replace_does_not() {
    let world = World::new();
    world.save("a", b"1");
    world.save("b", b"2");
    let (from, to) = ((ROOT, &b"a"[..]), (ROOT, &b"b"[..]));
    let result = world.fs().rename(ME, from, to, RenameMode::NoReplace, Wait::Allowed);
    assert!(matches!(result, Err(FsError::Exists)));
    assert_eq!(
        (world.read("a").unwrap(), world.read("b").unwrap()),
        (b"1".to_vec(), b"2".to_vec())
    );
}

#[test]
fn a_replaced_file_that_is_open_keeps_its_bytes() {
    let world = World::new();
    world.save("a", b"old");
    let handle = world.open("a", OFlags::RDONLY);
    world.save("b", b"new");
    world.rename("b", "a");
    assert_eq!(world.read_handle(handle), b"old");
    assert_eq!(world.read("a").unwrap(), b"new");
    world.close(handle);
}

#[test]
fn a_file_renamed_while_written_is_published_under_its_new_name() {
    let world = World::new();
    let handle = world.create("part");
    world.write(handle, 0, b"abc");
    world.rename("part", "whole");
    world.write(handle, 3, b"def");
    world.pass(3_000);
    assert!(world.drive.batches().is_empty());
    world.close(handle);
    world.pass(3_000);
    assert_eq!(world.published("whole").unwrap(), b"abcdef");
    assert_eq!(world.drive.names(DirId::ROOT), ["whole"]);
}

#[test]
fn spellings_of_one_name_are_one_file() {
    let world = World::new();
    world.save("caf\u{e9}", b"1");
    assert_eq!(world.read("cafe\u{301}").unwrap(), b"1");
    world.save("cafe\u{301}", b"2");
    world.pass(100);
    assert_eq!(world.list(""), ["caf\u{e9}"]);
    assert_eq!(world.drive.names(DirId::ROOT), ["caf\u{e9}"]);
    assert_eq!(world.published("caf\u{e9}").unwrap(), b"2");
}

#[test]
fn names_a_drive_cannot_hold_are_refused_as_such() {
    let world = World::new();
    let long = vec![b'x'; 256];
    let flags = OFlags::RDWR.bits() as i32;
    assert!(matches!(
        world.fs().create(ME, ROOT, &long, 0o644, flags, Wait::Allowed),
        Err(FsError::NameTooLong)
    ));
    assert!(matches!(
        world.fs().create(ME, ROOT, b"\xff", 0o644, flags, Wait::Allowed),
        Err(FsError::NameEncoding)
    ));
    assert!(
        matches!(world.fs().lookup(ROOT, b"\xff"), Err(FsError::NotFound)),
        "it cannot be there"
    );
    assert!(matches!(world.fs().unlink(ME, ROOT, b"\xff", Wait::Allowed), Err(FsError::NotFound)));
    assert!(matches!(world.fs().rmdir(ME, ROOT, b"\xff"), Err(FsError::NotFound)));
    world.save("there", b"1");
    let rename = |from: &[u8], to: &[u8]| {
        let mode = vfs::fs::RenameMode::Replace;
        world.fs().rename(ME, (ROOT, from), (ROOT, to), mode, vfs::fs::Wait::Allowed)
    };
    assert!(matches!(rename(b"\xff", b"x"), Err(FsError::NotFound)));
    assert!(matches!(rename(b"there", b"\xff"), Err(FsError::NameEncoding)));
    assert!(matches!(rename(b"there", &long), Err(FsError::NameTooLong)));
    assert_eq!(world.read("there").unwrap(), b"1");
    assert!(matches!(world.fs().mknod(ME, ROOT, b"fifo", 0o010644), Err(FsError::NotPermitted)));
    assert!(world.fs().mknod(ME, ROOT, b"file", 0o100644).is_ok());
    assert!(matches!(world.fs().symlink(ME, ROOT, b"l", b""), Err(FsError::Invalid)));
}

#[test]
fn attributes_replicate_and_bits_that_may_not_are_left_out() {
    let world = World::new();
    let dir = world.mkdir("d");
    world.save("d/f", b"1");
    world.pass(100);
    let time = Timestamp { secs: 1_000, nanos: 5 };
    let set = SetAttr { mode: Some(0o7770), mtime: Some(SetTime::At(time)), ..SetAttr::default() };
    let attr = world.fs().setattr(ME, dir, None, set).unwrap();
    assert_eq!((attr.mode, attr.mtime), (0o1770, time));
    let file = world.ino("d/f").unwrap();
    world.fs().setxattr(file, b"user.note", b"hello", XattrMode::Create).unwrap();
    assert!(matches!(
        world.fs().setxattr(file, b"user.note", b"x", XattrMode::Create),
        Err(FsError::Exists)
    ));
    assert!(matches!(
        world.fs().setxattr(file, b"system.posix_acl_access", b"x", XattrMode::Any),
        Err(FsError::NotSupported)
    ));
    assert!(matches!(
        world.fs().setxattr(file, b"user.atelier.state", b"x", XattrMode::Any),
        Err(FsError::ReadOnly)
    ));
    assert!(matches!(
        world.fs().setxattr(file, b"user.big", &[0; 70_000], XattrMode::Any),
        Err(FsError::TooBig)
    ));
    assert_eq!(world.fs().getxattr(file, b"user.atelier.state").unwrap(), b"draft");
    world.pass(100);
    assert_eq!(world.fs().getxattr(file, b"user.atelier.state").unwrap(), b"official");
    assert_eq!(world.fs().listxattr(file).unwrap(), [b"user.note".to_vec()]);
    let node = world.drive.at("d/f").unwrap();
    let version = node.version.to_string().into_bytes();
    assert_eq!(world.fs().getxattr(file, b"user.atelier.version").unwrap(), version);
    let journal::view::ViewKind::File(value) = node.kind else { panic!() };
    assert_eq!(value.xattrs.get(&b"user.note"[..]).unwrap(), b"hello");
    let journal::view::ViewKind::Dir { attr, .. } = world.drive.at("d").unwrap().kind else {
        panic!()
    };
    assert_eq!((attr.mode, attr.mtime), (0o1770, Some(time)));
    let chown = SetAttr { uid: Some(77), ..SetAttr::default() };
    let me = Caller { uid: 1000, gid: 1000, tid: 5 };
    assert!(matches!(world.fs().setattr(me, file, None, chown), Err(FsError::NotPermitted)));
    assert_eq!(
        world.fs().setattr(ME, file, None, chown).unwrap().uid,
        0,
        "owners are the mounting user's"
    );
}

#[test]
fn a_file_its_owner_may_not_write_is_refused_but_its_maker_may() {
    let world = World::with(|config| (config.uid, config.gid) = (1000, 1000));
    let me = Caller { uid: 1000, gid: 1000, tid: 5 };
    let flags = OFlags::WRONLY.bits() as i32;
    let (entry, opened) = world.fs().create(me, ROOT, b"ro", 0o444, flags, Wait::Allowed).unwrap();
    world.write(opened.handle, 0, b"x");
    world.close(opened.handle);
    assert!(matches!(
        world.fs().open(me, entry.attr.ino, flags, Wait::Allowed),
        Err(FsError::Access)
    ));
    assert!(world.fs().open(me, entry.attr.ino, 0, Wait::Allowed).is_ok());
    assert!(matches!(world.fs().access(me, entry.attr.ino, 2), Err(FsError::Access)));
    assert_eq!(entry.attr.uid, 1000);
}

#[test]
fn a_long_listing_has_every_name_once_although_it_changes() {
    let world = World::new();
    world.mkdir("d");
    for i in 0..3000 {
        world.save(&format!("d/{i:05}"), b"");
    }
    world.fs().seal_all().unwrap();
    for i in 3000..3500 {
        world.save(&format!("d/{i:05}"), b"");
    }
    let handle = world.fs().opendir(ME, world.ino("d").unwrap()).unwrap();
    let (mut names, mut offset) = (Vec::new(), 0);
    loop {
        let mut taken = 0;
        world
            .fs()
            .readdirplus(handle, offset, |entry, answer| {
                if taken == 100 {
                    return false;
                }
                taken += 1;
                offset = entry.next;
                if entry.name.starts_with('.') {
                    assert_eq!(answer.attr.kind, Kind::Dir);
                } else {
                    names.push(entry.name.to_string());
                }
                true
            })
            .unwrap();
        if taken == 0 {
            break;
        }
        world.save(&format!("d/later{offset}"), b"");
    }
    names.sort();
    assert_eq!(names, (0..3500).map(|i| format!("{i:05}")).collect::<Vec<_>>());
}

#[test]
fn inodes_nobody_holds_are_forgotten_and_keep_their_number() {
    let world = World::new();
    for i in 0..100 {
        world.save(&format!("f{i}"), b"x");
    }
    world.pass(100);
    let numbers: Vec<u64> = (0..100).map(|i| world.ino(&format!("f{i}")).unwrap()).collect();
    assert_eq!(world.fs().inodes(), 101);
    for ino in &numbers {
        world.fs().forget(*ino, 1000);
    }
    assert_eq!(world.fs().inodes(), 1);
    let again: Vec<u64> = (0..100).map(|i| world.ino(&format!("f{i}")).unwrap()).collect();
    assert_eq!(numbers, again);
}

#[test]
fn a_directory_removed_and_made_again_is_not_the_one_that_was_moved_away() {
    let mut world = World::new();
    world.mkdir("build");
    world.save("build/old", b"old");
    world.pass(3_000);
    world.rename("build", "build.old");
    world.mkdir("build");
    world.pass(3_000);
    world.rmdir("build").unwrap();
    world.mkdir("build");
    world.save("build/new", b"new");
    assert_ne!(world.ino("build"), world.ino("build.old"));
    assert_eq!(
        (world.list("build"), world.list("build.old")),
        (vec!["new".into()], vec!["old".into()])
    );
    world.pass(3_000);
    assert_eq!(world.fs().drafts(), 0);
    assert_eq!(world.published("build/new").unwrap(), b"new");
    assert_eq!(world.published("build.old/old").unwrap(), b"old");
    world.crash();
    assert_eq!(
        (world.list("build"), world.list("build.old")),
        (vec!["new".into()], vec!["old".into()])
    );
}

#[test]
fn a_file_where_a_directory_was_moved_away_makes_room_for_another_one() {
    let world = World::new();
    world.mkdir("x");
    world.pass(3_000);
    world.rename("x", "y");
    world.save("x", b"a file");
    world.pass(3_000);
    world.unlink("x");
    world.mkdir("x");
    assert_ne!(world.ino("x"), world.ino("y"));
    world.pass(3_000);
    assert_eq!(world.drive.names(journal::id::DirId::ROOT), ["x", "y"]);
}

#[test]
fn a_change_the_journal_refuses_holds_nothing_else_back() {
    let world = World::new();
    for name in ["a", "refused", "b"] {
        world.save(name, b"1");
    }
    world.mkdir("d");
    world.save("d/in", b"2");
    world.struggle(1_000);
    assert_eq!(world.drive.names(journal::id::DirId::ROOT), ["a", "b", "d"]);
    assert_eq!(world.published("d/in").unwrap(), b"2");
    assert_eq!((world.fs().drafts(), world.fs().notices().len()), (1, 1));
    world.save("later", b"3");
    world.fs().seal_all().expect_err("something is not published");
    assert_eq!(world.published("later").unwrap(), b"3");
    world.rename("refused", "taken");
    world.struggle(3_000);
    assert_eq!(world.published("taken").unwrap(), b"1");
    assert_eq!(world.fs().drafts(), 0);
}

#[test]
fn a_chain_of_renames_too_long_for_one_entry_is_published_in_parts() {
    let world = World::new();
    for frame in 0..40 {
        world.save(&format!("frame{frame:03}"), format!("{frame}").as_bytes());
    }
    world.pass(3_000);
    world.drive.limit(10);
    for frame in (0..40).rev() {
        world.rename(&format!("frame{frame:03}"), &format!("frame{:03}", frame + 1));
    }
    world.struggle(6_000);
    assert_eq!(world.fs().drafts(), 0);
    for frame in 0..40 {
        let shifted = world.published(&format!("frame{:03}", frame + 1)).unwrap();
        assert_eq!(shifted, format!("{frame}").as_bytes());
    }
    assert!(world.published("frame000").is_none());
}

#[test]
fn what_takes_the_name_of_a_directory_goes_no_earlier_than_the_end_of_its_contents() {
    for again in [false, true] {
        let world = World::new();
        world.mkdir("made");
        world.save("made/f", b"1");
        world.pass(3_000);
        world.rename("made", "d");
        let before = world.drive.batches().len();
        world.unlink("d/f");
        world.rmdir("d").unwrap();
        if again {
            // Another directory, which is removed as well.
            world.mkdir("d");
            world.rmdir("d").unwrap();
        }
        world.save("d", b"a file now");
        world.pass(3_000);
        let batches = world.drive.batches();
        let first = |wanted: &dyn Fn(&str, &Value) -> bool| {
            let is =
                |op: &Op| matches!(op, Op::Put { name, value, .. } if wanted(name.as_str(), value));
            batches[before..].iter().position(|batch| batch.iter().any(is)).unwrap()
        };
        let gone = first(&|name, value| name == "f" && matches!(value, Value::Gone { .. }));
        let put = first(&|name, value| name == "d" && matches!(value, Value::File(_)));
        assert!(gone <= put, "the file came while the directory was still full");
    }
}

#[test]
fn a_listing_gives_the_numbers_that_a_look_at_the_names_gives() {
    let mut world = World::new();
    world.mkdir("d");
    world.save("f", b"1");
    world.fs().symlink(ME, ROOT, b"l", b"f").unwrap();
    world.pass(5_000);
    // Nothing is known by the new one.
    world.crash();
    let handle = world.fs().opendir(ME, ROOT).unwrap();
    let mut listed = Vec::new();
    world
        .fs()
        .readdir(handle, 0, |entry| {
            listed.push((entry.name.to_string(), entry.ino));
            true
        })
        .unwrap();
    let names: Vec<&str> = listed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, [".", "..", "d", "f", "l"]);
    for (name, ino) in listed.into_iter().skip(2) {
        assert_eq!(world.ino(&name), Some(ino), "{name}");
    }
}
