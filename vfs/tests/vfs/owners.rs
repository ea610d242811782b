//! Drives that keep owners: whose things are, set-id bits, how many links a directory has, and times of change.

use journal::id::{DirId, DriveId};
use journal::name::{EntryName, Register};
use journal::op::{DirAttr, Op, Timestamp};
use journal::view::ViewKind;
use rustix::fs::OFlags;
use vfs::FsError;
use vfs::attr::{Attr, Caller, SetAttr, SetTime};
use vfs::fs::Wait;

use crate::drive::{ME, ROOT, World};

const ANN: Caller = Caller { uid: 1000, gid: 1001, tid: 5 };

fn with_owners() -> World {
    World::with(|config| config.posix_owners = true)
}

fn chmod(world: &World, ino: u64, mode: u32) -> Attr {
    let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
    world.fs().setattr(ME, ino, None, set).unwrap()
}

fn chown(world: &World, ino: u64, uid: Option<u32>, gid: Option<u32>) -> Attr {
    world.fs().setattr(ME, ino, None, SetAttr { uid, gid, ..SetAttr::default() }).unwrap()
}

#[test]
fn what_is_made_belongs_to_its_maker_and_others_learn_whose_it_is() {
    let world = with_owners();
    let flags = OFlags::RDWR.bits() as i32;
    let (file, opened) = world.fs().create(ANN, ROOT, b"f", 0o644, flags, Wait::Allowed).unwrap();
    world.close(opened.handle);
    let dir = world.fs().mkdir(ANN, ROOT, b"d", 0o755).unwrap();
    let link = world.fs().symlink(ANN, ROOT, b"l", b"f").unwrap();
    for entry in [&file, &dir, &link] {
        assert_eq!((entry.attr.uid, entry.attr.gid), (1000, 1001), "{:?}", entry.attr.kind);
    }
    world.pass(3_000);
    let owner = |name: &str| match world.drive.at(name).unwrap().kind {
        ViewKind::File(value) => value.owner,
        ViewKind::Dir { attr, .. } => attr.owner,
        ViewKind::Symlink(link) => link.owner,
    };
    for (name, ino) in [("f", file.attr.ino), ("d", dir.attr.ino), ("l", link.attr.ino)] {
        assert_eq!(owner(name), Some((1000, 1001)), "{name}");
        let attr = chown(&world, ino, Some(7), None);
        assert_eq!((attr.uid, attr.gid), (7, 1001), "{name}");
        let attr = chown(&world, ino, None, Some(8));
        assert_eq!((attr.uid, attr.gid), (7, 8), "{name}");
    }
    world.pass(3_000);
    for name in ["f", "d", "l"] {
        assert_eq!(owner(name), Some((7, 8)), "{name}");
    }
    // Nobody gives away what is not theirs, also where the kernel does not look first.
    let set = SetAttr { uid: Some(1000), ..SetAttr::default() };
    assert!(matches!(
        world.fs().setattr(ANN, file.attr.ino, None, set),
        Err(FsError::NotPermitted)
    ));
}

#[test]
fn a_directory_with_set_group_id_gives_its_group_to_what_is_made_in_it() {
    let world = with_owners();
    let dir = world.mkdir("d");
    chown(&world, dir, Some(1), Some(50));
    assert_eq!(chmod(&world, dir, 0o2775).mode, 0o2775);
    let below = world.fs().mkdir(ANN, dir, b"below", 0o755).unwrap().attr;
    assert_eq!((below.uid, below.gid, below.mode), (1000, 50, 0o2755));
    let flags = OFlags::RDWR.bits() as i32;
    let (file, opened) = world.fs().create(ANN, dir, b"f", 0o644, flags, Wait::Allowed).unwrap();
    world.close(opened.handle);
    assert_eq!((file.attr.uid, file.attr.gid, file.attr.mode), (1000, 50, 0o644));
    let plain = World::new();
    let dir = plain.mkdir("d");
    assert_eq!(chmod(&plain, dir, 0o2775).mode, 0o775, "a drive without owners knows no groups");
}

#[test]
fn set_id_bits_stay_until_someone_else_changes_the_file() {
    let world = with_owners();
    world.save("f", b"content");
    let ino = world.ino("f").unwrap();
    let cut = |caller| {
        let set = SetAttr { len: Some(3), ..SetAttr::default() };
        world.fs().setattr(caller, ino, None, set).unwrap().mode
    };
    assert_eq!(chmod(&world, ino, 0o6755).mode, 0o6755);
    world.pass(3_000);
    let ViewKind::File(value) = world.drive.at("f").unwrap().kind else { panic!() };
    assert_eq!(value.mode, 0o6755, "others see them too");
    assert_eq!(cut(ME), 0o6755, "root may");
    chmod(&world, ino, 0o6777);
    world.save("f", b"content");
    assert_eq!(world.fs().getattr(ino).unwrap().mode, 0o6777);
    assert_eq!(cut(ANN), 0o777, "a cut by someone else");
    assert_eq!(chmod(&world, ino, 0o6777).mode, 0o6777);
    assert_eq!(chown(&world, ino, Some(3), None).mode, 0o777, "a change of owner, by whomever");
    chmod(&world, ino, 0o6777);
    let truncate = (OFlags::WRONLY | OFlags::TRUNC).bits() as i32;
    let (made, opened) =
        world.fs().create(ANN, ROOT, b"made", 0o4755, truncate, Wait::Allowed).unwrap();
    world.close(opened.handle);
    assert_eq!(made.attr.mode, 0o4755);
    assert_eq!(world.fs().getattr(made.attr.ino).unwrap().mode, 0o4755, "to make is no change");
    let opened = world.fs().open(ANN, ino, truncate, Wait::Allowed).unwrap();
    assert_eq!(world.fs().getattr(ino).unwrap().mode, 0o777, "opened to be written anew");
    chmod(&world, ino, 0o6767);
    world.write(opened.handle, 0, b"x");
    world.fs().drop_set_id(opened.handle).unwrap();
    let mode = world.fs().getattr(ino).unwrap().mode;
    assert_eq!(mode, 0o2767, "set-group-id without execution is no privilege");
    world.close(opened.handle);
}

#[test]
fn a_directory_has_two_links_and_one_for_each_directory_in_it() {
    let world = with_owners();
    let links = |ino| world.fs().getattr(ino).unwrap().nlink;
    assert_eq!(links(ROOT), 2);
    let (a, b) = (world.mkdir("a"), world.mkdir("b"));
    world.save("a/file", b"1");
    assert_eq!((links(ROOT), links(a), links(b)), (4, 2, 2));
    let inner = world.mkdir("a/inner");
    assert_eq!((links(ROOT), links(a)), (4, 3));
    world.pass(3_000);
    assert_eq!((links(ROOT), links(a), links(b)), (4, 3, 2), "published or not");
    world.rename("a/inner", "b/inner");
    assert_eq!((links(a), links(b), links(inner)), (2, 3, 2));
    world.mkdir("a/inner");
    world.rename("a/inner", "b/inner");
    assert_eq!((links(a), links(b)), (2, 3), "one took the place of another");
    world.rmdir("b/inner").unwrap();
    assert_eq!((links(b), links(inner)), (2, 0), "a removed directory has none");
    world.pass(3_000);
    assert_eq!(links(b), 2);

    let name: EntryName = "theirs".parse().unwrap();
    let dir = DirId::derive(&DriveId::from_bytes([9; 32]), &DirId::ROOT, &name, &[]);
    let (attr, bases) = (DirAttr::default(), vec![]);
    let made = Op::MkDir { parent: DirId::ROOT, name: name.clone(), dir, attr, bases };
    world.drive.publish(vec![made]);
    world.fs().remote_changed(&[Register::new(DirId::ROOT, name)]);
    assert_eq!(links(ROOT), 5, "others make directories too");
    let plain = World::new();
    plain.mkdir("a");
    assert_eq!(plain.fs().getattr(ROOT).unwrap().nlink, 1, "nobody counts there");
}

#[test]
fn every_change_of_an_inode_sets_its_time_of_change_and_nothing_else_does() {
    let world = with_owners();
    world.save("f", b"1");
    let dir = world.mkdir("d");
    let link = world.fs().symlink(ME, ROOT, b"l", b"f").unwrap().attr.ino;
    let file = world.ino("f").unwrap();
    world.pass(3_000);
    let time = Timestamp { secs: 1_000, nanos: 5 };
    let set = |set: SetAttr| {
        move |world: &World, ino| {
            world.fs().setattr(ME, ino, None, set).unwrap();
        }
    };
    let atime = set(SetAttr { atime: Some(SetTime::At(time)), ..SetAttr::default() });
    let mtime = set(SetAttr { mtime: Some(SetTime::At(time)), ..SetAttr::default() });
    let owner = set(SetAttr { uid: Some(9), ..SetAttr::default() });
    let mode = set(SetAttr { mode: Some(0o700), ..SetAttr::default() });
    type Change<'a> = &'a dyn Fn(&World, u64);
    let changes: [(&str, Change<'_>); 4] =
        [("atime", &atime), ("mtime", &mtime), ("owner", &owner), ("mode", &mode)];
    for (kind, ino) in [("file", file), ("dir", dir), ("link", link)] {
        for (what, change) in changes {
            let before = world.fs().getattr(ino).unwrap();
            world.clock.pass(10);
            assert_eq!(world.fs().getattr(ino).unwrap(), before);
            change(&world, ino);
            let after = world.fs().getattr(ino).unwrap();
            assert!(after.ctime > before.ctime, "{what} of a {kind}");
        }
        let attr = world.fs().getattr(ino).unwrap();
        assert_eq!((attr.atime, attr.mtime), (time, time), "{kind}");
    }
    for (from, to, ino) in [("f", "f2", file), ("d", "d2", dir), ("l", "l2", link)] {
        let before = world.fs().getattr(ino).unwrap();
        world.clock.pass(10);
        world.rename(from, to);
        let after = world.fs().getattr(ino).unwrap();
        assert!(after.ctime > before.ctime, "{from} renamed");
        assert_eq!((after.atime, after.mtime), (before.atime, before.mtime), "{from} renamed");
    }
    // What is made or removed in a directory changes it, its mode does not change its listing's time.
    let before = world.fs().getattr(dir).unwrap();
    world.clock.pass(10);
    world.save("d2/inside", b"");
    let after = world.fs().getattr(dir).unwrap();
    assert!(after.mtime > before.mtime && after.ctime > before.ctime);
    let link_before = world.fs().getattr(link).unwrap();
    assert_eq!(link_before.nlink, 1);
    world.unlink("l2");
    assert_eq!(world.fs().getattr(link).unwrap().nlink, 0, "a removed link that is still held");
    let handle = world.open("f2", OFlags::WRONLY);
    assert_eq!(world.fs().write(handle, 0, b"x", Wait::Allowed).unwrap(), 1);
    let attr = world.fs().getattr(file).unwrap();
    assert_eq!((attr.atime, attr.mtime), (time, attr.ctime), "a write is no read");
    world.close(handle);
}
