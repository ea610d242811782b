//! Stale saves, below the kernel and without a network: what a program has in front of it, and what its save replaces.

use journal::id::DirId;
use rustix::fs::OFlags;
use vfs::attr::{Caller, SetAttr};
use vfs::fs::{RenameMode, Wait, XattrMode};
use vfs::{FsError, Happening};

use crate::drive::{ME, ROOT, World};
use crate::locks::{Program, at, bases, load, overwrite, replace, world};
use crate::remote::{other_saves, version};

#[test]
fn attributes_set_before_a_save_do_not_make_it_one_that_has_seen_more() {
    for save in [overwrite, replace] {
        let world = world("x");
        let program = Program::start();
        load(&world, program.caller(), "x");
        other_saves(&world, "x", b"theirs", vec![version(&world, "x")]);
        let mode = SetAttr { mode: Some(0o600), ..SetAttr::default() };
        world.fs().setattr(program.caller(), world.ino("x").unwrap(), None, mode).unwrap();
        save(&world, program.caller(), "x", b"mine");
        world.pass(3_000);
        assert_eq!(world.published("x").unwrap(), b"theirs");
        assert_eq!(world.published("x (conflict 1)").unwrap(), b"mine");
    }
}

#[test]
fn cutting_without_writing_and_exchanging_replace_nothing_unseen() {
    let world = world("x");
    let program = Program::start();
    load(&world, program.caller(), "x");
    other_saves(&world, "x", b"theirs", vec![version(&world, "x")]);
    world.save("tmp", b"mine");
    world.pass(3_000);
    let (from, to) = ((ROOT, &b"tmp"[..]), (ROOT, &b"x"[..]));
    let mode = RenameMode::Exchange;
    let swapped = world.fs().rename(program.caller(), from, to, mode, Wait::Allowed);
    assert!(matches!(swapped, Err(FsError::Stale)));
    let flags = (OFlags::RDONLY | OFlags::TRUNC).bits() as i32;
    let ino = world.ino("x").unwrap();
    let handle = world.fs().open(program.caller(), ino, flags, Wait::Allowed).unwrap().handle;
    world.close(handle);
    world.pass(3_000);
    assert_eq!(world.published("x").unwrap(), b"theirs");
}

#[test]
fn of_what_a_program_had_loaded_only_reading_it_again_is_news() {
    let size = 1 << 20;
    for editor in [false, true] {
        let world = world("x.blend");
        let big = |byte| vec![byte; size];
        other_saves(&world, "x.blend", &big(1), vec![version(&world, "x.blend")]);
        let program = if editor { Program::editor() } else { Program::start() };
        let open = || {
            let ino = world.ino("x.blend").unwrap();
            world.fs().open(program.caller(), ino, 0, Wait::Allowed).unwrap()
        };
        // An editor may need but a part; of others the whole counts.
        let first = open();
        assert!(first.keep_cache);
        let part = if editor { 1 << 10 } else { size };
        world.fs().read(first.handle, 0, part, Wait::Allowed).unwrap();
        world.fs().release(first.handle).unwrap();
        other_saves(&world, "x.blend", &big(2), vec![version(&world, "x.blend")]);
        // Somebody else has read all of it, and the program has a look: its reads are seen.
        load(&world, ME, "x.blend");
        let look = open();
        assert!(!look.keep_cache);
        world.fs().read(look.handle, 0, size / 8, Wait::Allowed).unwrap();
        world.fs().release(look.handle).unwrap();
        overwrite(&world, program.caller(), "x.blend", b"mine");
        world.pass(3_000);
        assert_eq!(world.published("x.blend").unwrap(), big(2));
        assert_eq!(world.published("x.blend (conflict 1)").unwrap(), b"mine");
        let again = open();
        world.fs().read(again.handle, 0, size, Wait::Allowed).unwrap();
        world.fs().release(again.handle).unwrap();
        overwrite(&world, program.caller(), "x.blend", b"both");
        world.pass(3_000);
        assert_eq!(world.published("x.blend").unwrap(), b"both");
    }
}

#[test]
fn what_was_written_here_is_in_the_kernels_cache_and_loaded_by_opening_it() {
    let world = world("x");
    overwrite(&world, ME, "x", &vec![7; 1 << 20]);
    world.pass(3_000);
    let program = Program::start();
    let ino = world.ino("x").unwrap();
    let handle = world.fs().open(program.caller(), ino, 0, Wait::Allowed).unwrap().handle;
    world.fs().release(handle).unwrap();
    other_saves(&world, "x", b"theirs", vec![version(&world, "x")]);
    overwrite(&world, program.caller(), "x", b"mine");
    world.pass(3_000);
    assert_eq!(world.published("x").unwrap(), b"theirs");
}

#[test]
fn a_save_over_what_the_program_has_not_seen_stands_beside_it() {
    for save in [overwrite, replace] {
        let world = world("x");
        let program = Program::start();
        load(&world, program.caller(), "x");
        let one = version(&world, "x");
        other_saves(&world, "x", b"theirs", vec![one]);
        save(&world, program.caller(), "x", b"mine");
        world.pass(3_000);
        assert_eq!(world.published("x").unwrap(), b"theirs");
        assert_eq!(world.published("x (conflict 1)").unwrap(), b"mine");
        assert_eq!(world.read("x").unwrap(), b"theirs", "shown here as everywhere");
        let copy = version(&world, "x (conflict 1)");
        let told = world.drive.others(|others| others.told.clone());
        assert_eq!(told, [Happening::StaleSave(at("x"), copy)]);
        // The next save of the same program goes on from its own.
        save(&world, program.caller(), "x", b"mine again");
        world.pass(3_000);
        assert_eq!(world.published("x").unwrap(), b"theirs");
        assert_eq!(world.published("x (conflict 1)").unwrap(), b"mine again");
        assert_eq!(world.drive.names(DirId::ROOT), ["x", "x (conflict 1)"]);
        // Once it has read what is there it may replace it.
        load(&world, program.caller(), "x");
        save(&world, program.caller(), "x", b"both");
        world.pass(3_000);
        assert_eq!(world.published("x").unwrap(), b"both");
    }
}

#[test]
fn an_editor_that_outlives_the_daemon_saves_over_nothing_it_has_not_seen() {
    for save in [overwrite, replace] {
        let mut world = world("x.blend");
        let editor = Program::editor();
        load(&world, editor.caller(), "x.blend");
        let one = version(&world, "x.blend");
        world.crash();
        other_saves(&world, "x.blend", b"theirs", vec![one]);
        world.crash();
        save(&world, editor.caller(), "x.blend", b"mine");
        world.pass(3_000);
        assert_eq!(world.published("x.blend").unwrap(), b"theirs");
        assert_eq!(world.published("x.blend (conflict 1)").unwrap(), b"mine");
        // What came of its own save it has seen, also when a daemon ended in between.
        world.crash();
        load(&world, editor.caller(), "x.blend");
        save(&world, editor.caller(), "x.blend", b"both");
        world.pass(100);
        world.crash();
        save(&world, editor.caller(), "x.blend", b"more");
        world.pass(3_000);
        assert_eq!(world.published("x.blend").unwrap(), b"more");
        assert_eq!(world.drive.names(DirId::ROOT), ["x.blend", "x.blend (conflict 1)"]);
    }
}

#[test]
fn removing_what_the_program_has_not_seen_removes_nothing() {
    let world = world("x");
    let program = Program::start();
    load(&world, program.caller(), "x");
    let one = version(&world, "x");
    other_saves(&world, "x", b"theirs", vec![one]);
    world.fs().unlink(program.caller(), ROOT, b"x", Wait::Allowed).unwrap();
    world.pass(5_000);
    assert_eq!(bases(&world, "x").last().unwrap(), &[one]);
    let told = world.drive.others(|others| others.told.clone());
    assert_eq!(told, [Happening::StaleRemoval(at("x"))]);
}

#[test]
fn saves_of_one_device_are_never_stale_and_neither_is_a_program_that_has_read_nothing() {
    let world = world("x");
    let (one, two) = (Program::start(), Program::start());
    load(&world, one.caller(), "x");
    // Somebody on this device, in another program.
    load(&world, two.caller(), "x");
    overwrite(&world, two.caller(), "x", b"two");
    world.pass(100);
    overwrite(&world, one.caller(), "x", b"three");
    world.pass(100);
    assert_eq!(world.published("x").unwrap(), b"three");
    // Another device's, which a program that has nothing in front of it replaces: `cp`, `rsync`, a build.
    other_saves(&world, "x", b"theirs", vec![version(&world, "x")]);
    let three = Program::start();
    replace(&world, three.caller(), "x", b"four");
    world.pass(3_000);
    assert_eq!(world.published("x").unwrap(), b"four");
    // And one that cannot be told from others.
    load(&world, Caller { tid: 0, ..ME }, "x");
    other_saves(&world, "x", b"theirs too", vec![version(&world, "x")]);
    replace(&world, Caller { tid: 0, ..ME }, "x", b"five");
    world.pass(3_000);
    assert_eq!(world.drive.names(DirId::ROOT), ["x"]);
    assert_eq!(world.published("x").unwrap(), b"five");
}

#[test]
fn a_look_at_a_part_of_a_file_is_no_loading() {
    let world = World::new();
    let big = vec![7; 4 << 20];
    world.save("big", b"before");
    world.pass(3_000);
    // Another's, so that the kernel has nothing of it.
    other_saves(&world, "big", &big, vec![version(&world, "big")]);
    world.drive.in_company();
    let (looks, loads) = (Program::start(), Program::start());
    let open = |by: &Program| {
        world.fs().open(by.caller(), world.ino("big").unwrap(), 0, Wait::Allowed).unwrap().handle
    };
    let (preview, whole) = (open(&looks), open(&loads));
    world.fs().read(preview, 0, 64 << 10, Wait::Allowed).unwrap();
    world.fs().release(preview).unwrap();
    world.fs().read(whole, 0, 4 << 20, Wait::Allowed).unwrap();
    other_saves(&world, "big", b"theirs", vec![version(&world, "big")]);
    overwrite(&world, looks.caller(), "big", b"looked");
    world.pass(3_000);
    assert_eq!(world.published("big").unwrap(), b"looked");
    overwrite(&world, loads.caller(), "big", b"loaded");
    world.pass(3_000);
    assert_eq!(world.published("big").unwrap(), b"looked");
    assert_eq!(world.published("big (conflict 1)").unwrap(), b"loaded");
}

#[test]
fn what_the_kernel_may_have_in_its_cache_is_loaded_by_opening_it() {
    let world = World::new();
    world.save("big", &vec![7; 4 << 20]);
    world.pass(3_000);
    world.drive.in_company();
    load(&world, ME, "big");
    world.fs().read(world.open("big", OFlags::RDONLY), 0, 4 << 20, Wait::Allowed).unwrap();
    // The kernel answers this one's reads itself.
    let program = Program::start();
    let ino = world.ino("big").unwrap();
    world.fs().open(program.caller(), ino, 0, Wait::Allowed).unwrap();
    other_saves(&world, "big", b"theirs", vec![version(&world, "big")]);
    overwrite(&world, program.caller(), "big", b"mine");
    world.pass(3_000);
    assert_eq!(world.published("big").unwrap(), b"theirs");
}

#[test]
fn attributes_of_a_conflict_copy_do_not_change_alone() {
    let world = world("x");
    other_saves(&world, "x", b"theirs", vec![]);
    let (copy, fs) = (world.ino("x (conflict 1)").unwrap(), world.fs());
    let published = world.drive.log().len();
    let mtime = Some(vfs::attr::SetTime::Now);
    let sets = [
        SetAttr { mode: Some(0o600), ..SetAttr::default() },
        SetAttr { mtime, ..SetAttr::default() },
    ];
    for set in sets {
        let refused = fs.setattr(ME, copy, None, set).unwrap_err();
        assert!(matches!(refused, FsError::NotPermitted), "{refused}");
    }
    let refused = fs.setxattr(copy, b"user.k", b"v", XattrMode::Any).unwrap_err();
    assert!(matches!(refused, FsError::NotPermitted), "{refused}");
    fs.setattr(ME, copy, None, SetAttr { atime: mtime, ..SetAttr::default() }).unwrap();
    world.pass(3_000);
    assert_eq!(world.drive.log().len(), published, "the conflict was touched");
    // Of the file itself they do, and of a copy that is worked on.
    fs.setattr(ME, world.ino("x").unwrap(), None, sets[0]).unwrap();
    overwrite(&world, ME, "x (conflict 1)", b"worked on");
    fs.setattr(ME, copy, None, sets[0]).unwrap();
    world.pass(3_000);
    assert!(world.drive.log().len() > published);
}
