//! What others change while it is used here.

use std::time::Duration;

use journal::id::{DirId, VersionId};
use journal::name::Register;
use journal::op::{Content, FileValue, Op, Timestamp, Value};
use rustix::fs::OFlags;
use vfs::fs::Stale;

use crate::drive::{ROOT, World};

fn content(world: &World, data: &[u8]) -> Content {
    let mut writer = world.store.writer(None);
    writer.write(data).unwrap();
    let content = writer.finish().unwrap();
    Content { id: content.id, len: content.len }
}

/// Another device saves a file.
pub fn other_saves(world: &World, name: &str, data: &[u8], bases: Vec<VersionId>) -> VersionId {
    let value = FileValue {
        content: content(world, data),
        mode: 0o644,
        mtime: Timestamp::default(),
        xattrs: Default::default(),
        owner: None,
    };
    let put =
        Op::Put { dir: DirId::ROOT, name: name.parse().unwrap(), value: Value::File(value), bases };
    let version = world.drive.publish(vec![put])[0];
    world.fs().remote_changed(&[Register::new(DirId::ROOT, name.parse().unwrap())]);
    version
}

pub fn version(world: &World, name: &str) -> VersionId {
    world.drive.at(name).unwrap().version
}

#[test]
fn a_save_of_another_is_a_new_inode_and_open_handles_keep_the_old_bytes() {
    let world = World::new();
    world.save("f", b"old");
    world.pass(100);
    let handle = world.open("f", OFlags::RDONLY);
    let ino = world.ino("f").unwrap();
    other_saves(&world, "f", b"new!", vec![version(&world, "f")]);
    let stale = world.fs().next_stale(Duration::ZERO).unwrap();
    assert_eq!(stale, [Stale::Name { parent: ROOT, name: "f".into() }]);
    assert_ne!(world.ino("f").unwrap(), ino);
    assert_eq!(world.read("f").unwrap(), b"new!");
    assert_eq!(world.read_handle(handle), b"old");
}

#[test]
fn a_save_of_our_own_keeps_the_inode() {
    let world = World::new();
    world.save("f", b"1");
    let ino = world.ino("f").unwrap();
    world.pass(100);
    assert_eq!(world.ino("f").unwrap(), ino);
    let handle = world.open("f", OFlags::RDWR);
    world.write(handle, 1, b"2");
    world.close(handle);
    world.pass(100);
    assert_eq!(world.ino("f").unwrap(), ino);
    assert!(world.fs().next_stale(Duration::ZERO).unwrap().is_empty());
}

#[test]
fn a_save_of_another_beside_an_unpublished_one_is_not_overwritten() {
    let world = World::new();
    world.save("f", b"base");
    world.pass(100);
    let base = version(&world, "f");
    world.save("f", b"ours");
    other_saves(&world, "f", b"theirs", vec![base]);
    assert_eq!(world.read("f").unwrap(), b"ours", "what is drafted here is shown here");
    world.pass(100);
    assert_eq!(world.drive.names(DirId::ROOT), ["f", "f (conflict 1)"]);
    let mut both = [world.published("f").unwrap(), world.published("f (conflict 1)").unwrap()];
    both.sort();
    assert_eq!(both, [b"ours".to_vec(), b"theirs".to_vec()]);
    assert_eq!(world.read("f").unwrap(), b"theirs", "the first published is official");
}

#[test]
fn a_change_in_place_is_based_on_what_was_opened() {
    let world = World::new();
    world.save("f", b"base");
    world.pass(100);
    let base = version(&world, "f");
    let handle = world.open("f", OFlags::RDWR);
    other_saves(&world, "f", b"theirs", vec![base]);
    world.write(handle, 0, b"B");
    assert_eq!(world.read_handle(handle), b"Base");
    world.close(handle);
    world.pass(100);
    let put = world.drive.batches().concat().pop().unwrap();
    assert!(matches!(&put, Op::Put { bases, .. } if *bases == [base]), "{put:?}");
    assert_eq!(world.drive.names(DirId::ROOT), ["f", "f (conflict 1)"]);
}

#[test]
fn a_file_others_replaced_can_be_written_on_without_harm_to_theirs() {
    let world = World::new();
    world.save("f", b"base");
    world.pass(100);
    let base = version(&world, "f");
    let handle = world.open("f", OFlags::RDWR);
    other_saves(&world, "f", b"theirs", vec![base]);
    assert_eq!(world.read("f").unwrap(), b"theirs");
    let theirs = world.ino("f").unwrap();
    world.write(handle, 4, b"+");
    world.close(handle);
    assert_eq!(world.ino("f").unwrap(), theirs);
    assert_eq!(world.published("f").unwrap(), b"theirs");
    assert_eq!(world.published("f (conflict 1)").unwrap(), b"base+");
}

#[test]
fn replacing_the_whole_file_replaces_what_everybody_sees() {
    let world = World::new();
    let base = other_saves(&world, "f", b"base", vec![]);
    let theirs = other_saves(&world, "f", b"theirs", vec![base]);
    world.save("f", b"ours");
    world.pass(100);
    let put = world.drive.batches().concat().pop().unwrap();
    assert!(matches!(&put, Op::Put { bases, .. } if *bases == [theirs]), "{put:?}");
    assert_eq!(world.drive.names(DirId::ROOT), ["f"]);
}

#[test]
fn a_conflict_copy_is_resolved_by_editing_renaming_or_removing_it() {
    for act in ["edit", "rename", "remove"] {
        let world = World::new();
        world.save("f", b"official");
        world.pass(100);
        let copy = other_saves(&world, "f", b"copy", vec![]);
        let shown = "f (conflict 1)";
        assert_eq!(world.read(shown).unwrap(), b"copy");
        match act {
            "edit" => {
                let handle = world.open(shown, OFlags::RDWR);
                world.write(handle, 4, b" edited");
                world.close(handle);
            }
            "rename" => world.rename(shown, "kept"),
            _ => world.unlink(shown),
        }
        world.pass(3_000);
        let resolved = world.drive.batches().concat().into_iter().any(
            |op| matches!(op, Op::Resolve { name, drop, .. } if name.as_str() == "f" && drop == [copy]),
        );
        assert!(resolved, "{act}");
        assert_eq!(world.published("f").unwrap(), b"official");
        let (names, kept) = (world.drive.names(DirId::ROOT), world.published("kept"));
        match act {
            "edit" => assert_eq!(world.published(shown).unwrap(), b"copy edited"),
            "rename" => assert_eq!(
                (names, kept.unwrap()),
                (vec!["f".to_owned(), "kept".into()], b"copy".to_vec())
            ),
            _ => assert_eq!(names, ["f"]),
        }
    }
}

#[test]
fn what_others_remove_is_gone_here() {
    let world = World::new();
    world.save("f", b"1");
    world.pass(100);
    let gone = Op::Put {
        dir: DirId::ROOT,
        name: "f".parse().unwrap(),
        value: Value::Gone { moved_to: None },
        bases: vec![version(&world, "f")],
    };
    world.drive.publish(vec![gone]);
    world.fs().remote_changed(&[Register::new(DirId::ROOT, "f".parse().unwrap())]);
    assert!(world.ino("f").is_none());
    assert_eq!(world.fs().next_stale(Duration::ZERO).unwrap().len(), 1);
    world.save("f", b"2");
    world.pass(100);
    assert_eq!(world.published("f").unwrap(), b"2");
}

#[test]
fn a_file_others_removed_is_read_on_and_comes_back_with_what_is_written_to_it() {
    for synced in [false, true] {
        let mut world = World::new();
        world.save("f", b"old bytes");
        world.pass(100);
        let handle = world.open("f", OFlags::RDWR);
        let gone = Op::Put {
            dir: DirId::ROOT,
            name: "f".parse().unwrap(),
            value: Value::Gone { moved_to: None },
            bases: vec![version(&world, "f")],
        };
        world.drive.publish(vec![gone]);
        world.fs().remote_changed(&[Register::new(DirId::ROOT, "f".parse().unwrap())]);
        assert!(world.ino("f").is_none());
        assert_eq!(world.read_handle(handle), b"old bytes");
        world.write(handle, 0, b"NEW");
        if synced {
            // What an fsync saw is not lost by a crash either.
            world.fs().fsync(handle).unwrap();
            world.crash();
        } else {
            world.close(handle);
        }
        world.pass(3_000);
        assert_eq!(world.published("f").unwrap(), b"NEW bytes", "synced: {synced}");
    }
}

#[test]
fn more_changes_than_the_queue_holds_are_not_lost() {
    let world = World::new();
    for i in 0..50 {
        world.save(&format!("f{i}"), b"1");
    }
    world.pass(100);
    for _ in 0..1_500 {
        for i in 0..50 {
            let register = Register::new(DirId::ROOT, format!("f{i}").parse().unwrap());
            world.fs().remote_changed(&[register]);
        }
    }
    let stale = world.fs().next_stale(Duration::ZERO).unwrap();
    let names = stale.iter().filter(|stale| matches!(stale, Stale::Name { .. })).count();
    assert_eq!(names, 50);
}

#[test]
fn a_save_of_another_during_one_of_ours_is_shown_and_never_replaced_unseen() {
    for act in ["close", "replace", "rename", "unlink", "rename over"] {
        let world = World::new();
        world.save("f", b"base");
        world.save("g", b"other");
        world.pass(3_000);
        let base = version(&world, "f");
        let handle = world.open("f", OFlags::RDWR);
        world.write(handle, 0, b"B");
        other_saves(&world, "f", b"theirs", vec![base]);
        match act {
            "close" => {
                world.close(handle);
                world.pass(3_000);
                let stale = world.fs().next_stale(Duration::ZERO).unwrap();
                assert_eq!(stale, [Stale::Name { parent: ROOT, name: "f".into() }]);
            }
            "replace" => {
                let second = world.open("f", OFlags::WRONLY | OFlags::TRUNC);
                world.write(second, 0, b"anew");
                world.close(second);
                world.close(handle);
            }
            "rename" => {
                world.rename("f", "h");
                world.close(handle);
            }
            "unlink" => {
                world.unlink("f");
                world.close(handle);
            }
            _ => {
                world.rename("g", "f");
                world.close(handle);
            }
        }
        world.pass(6_000);
        let shown: Vec<Vec<u8>> = world.list("").iter().filter_map(|n| world.read(n)).collect();
        assert!(shown.contains(&b"theirs".to_vec()), "{act}: {:?}", world.list(""));
        assert_eq!(world.published("f").unwrap(), b"theirs", "{act}: {:?}", world.list(""));
    }
}
