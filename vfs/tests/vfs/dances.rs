//! Saves as applications do them: others see one version each and never a gap.

use journal::op::{Op, Value};

use crate::drive::{Head, ROOT, World};

/// After every published batch the document is there and whole.
fn never_a_gap(world: &World, name: &str) {
    for (index, root) in world.drive.roots().iter().enumerate() {
        let Some(Head::Value(Value::File(file))) = root.get(name) else {
            panic!("after batch {index} {name} is missing: {:?}", root.keys());
        };
        assert!(world.bytes_of(file.content).ends_with(b"end"), "a part of {name} was published");
    }
}

fn versions_of(world: &World, name: &str) -> usize {
    let ops = world.drive.batches().into_iter().flatten();
    ops.filter(
        |op| matches!(op, Op::Put { name: n, value: Value::File(_), .. } if n.as_str() == name),
    )
    .count()
}

fn with_document(name: &str) -> World {
    let world = World::new();
    world.save(name, b"version 0 end");
    world.pass(3_000);
    assert_eq!(world.published(name).unwrap(), b"version 0 end");
    world
}

fn gaps() -> [u64; 4] {
    [0, 5, 100, 400]
}

#[test]
fn blender_saves_are_one_version_each_and_the_backup_follows() {
    for gap in gaps() {
        let world = with_document("s.blend");
        let before = versions_of(&world, "s.blend");
        for save in 1..=5 {
            let handle = world.create("s.blend@");
            for part in [&b"version "[..], save.to_string().as_bytes(), b" end"] {
                let offset = world.fs().getattr(world.ino("s.blend@").unwrap()).unwrap().len;
                world.write(handle, offset, part);
                world.pass(gap);
            }
            world.close(handle);
            world.pass(gap);
            if world.ino("s.blend1").is_some() {
                world.unlink("s.blend1");
                world.pass(gap);
            }
            world.rename("s.blend", "s.blend1");
            world.pass(gap);
            world.rename("s.blend@", "s.blend");
            world.pass(5_000);
            assert_eq!(
                world.published("s.blend").unwrap(),
                format!("version {save} end").as_bytes()
            );
            assert_eq!(
                world.published("s.blend1").unwrap(),
                format!("version {} end", save - 1).as_bytes()
            );
        }
        never_a_gap(&world, "s.blend");
        assert_eq!(versions_of(&world, "s.blend") - before, 5, "with {gap} ms between the steps");
        assert_eq!(versions_of(&world, "s.blend@"), 0, "a temporary file was published");
        assert_eq!(world.drive.names(journal::id::DirId::ROOT), ["s.blend", "s.blend1"]);
    }
}

#[test]
fn office_saves_leave_no_gap() {
    for gap in gaps() {
        let world = with_document("r.docx");
        for save in 1..=3 {
            world.save("~WRD0001.tmp", format!("version {save} end").as_bytes());
            world.pass(gap);
            world.unlink("r.docx");
            world.pass(gap);
            world.rename("~WRD0001.tmp", "r.docx");
            world.pass(4_000);
        }
        never_a_gap(&world, "r.docx");
        assert_eq!(versions_of(&world, "r.docx"), 4);
        assert_eq!(world.published("r.docx").unwrap(), b"version 3 end");
    }
}

#[test]
fn office_saves_with_a_backup_leave_no_gap() {
    for gap in gaps() {
        let world = with_document("r.docx");
        for save in 1..=3 {
            world.save("~WRD0001.tmp", format!("version {save} end").as_bytes());
            world.pass(gap);
            world.rename("r.docx", "~WRL0002.tmp");
            world.pass(gap);
            world.rename("~WRD0001.tmp", "r.docx");
            world.pass(gap);
            world.unlink("~WRL0002.tmp");
            world.pass(4_000);
        }
        never_a_gap(&world, "r.docx");
        assert_eq!(versions_of(&world, "r.docx"), 4);
        assert_eq!(world.drive.names(journal::id::DirId::ROOT), ["r.docx"]);
    }
}

#[test]
fn krita_saves_write_over_the_document_only_when_it_is_whole() {
    let world = with_document("p.kra");
    world.save("p.kra~", b"version 0 end");
    let handle = world.create("p.kra");
    world.write(handle, 0, b"version 1");
    world.pass(3_000);
    assert_eq!(world.published("p.kra").unwrap(), b"version 0 end");
    world.write(handle, 9, b" end");
    world.close(handle);
    world.pass(100);
    never_a_gap(&world, "p.kra");
    assert_eq!(world.published("p.kra").unwrap(), b"version 1 end");
}

#[test]
fn vim_saves_leave_no_gap() {
    let world = with_document("a.txt");
    for save in 1..=3 {
        world.save("4913", b"");
        world.unlink("4913");
        world.rename("a.txt", "a.txt~");
        world.pass(60);
        let handle = world.create("a.txt");
        world.write(handle, 0, format!("version {save}").as_bytes());
        // Longer than any wait: an unfinished file is never published.
        world.pass(7_000);
        world.write(handle, 9, b" end");
        world.close(handle);
        world.unlink("a.txt~");
        world.pass(3_000);
    }
    never_a_gap(&world, "a.txt");
    assert_eq!(world.published("a.txt").unwrap(), b"version 3 end");
    assert_eq!(world.drive.names(journal::id::DirId::ROOT), ["a.txt"]);
}

#[test]
fn a_deleted_file_goes_after_its_wait_and_takes_its_base_along() {
    let world = with_document("x");
    let version = world.drive.at("x").unwrap().version;
    world.unlink("x");
    world.pass(1_900);
    assert!(world.drive.at("x").is_some(), "a name that just vanished may come back");
    world.pass(200);
    assert!(world.drive.at("x").is_none());
    let last = world.drive.batches().pop().unwrap();
    assert!(
        matches!(&last[..], [Op::Put { value: Value::Gone { .. }, bases, .. }] if *bases == [version])
    );
}

#[test]
fn a_file_made_and_removed_within_a_batch_was_never_there() {
    let world = World::new();
    world.save("x", b"1");
    world.rename("x", "y");
    world.unlink("y");
    assert_eq!(world.fs().drafts(), 0);
    world.pass(5_000);
    assert!(world.drive.batches().is_empty());
}

#[test]
fn an_fsync_publishes_nothing_and_a_file_kept_open_is_published_now_and_then() {
    let world = World::new();
    let handle = world.create("db");
    for step in 0..40u64 {
        world.write(handle, step * 4, b"page");
        world.fs().fsync(handle).unwrap();
        world.pass(100);
    }
    assert!(world.drive.batches().is_empty(), "an fsync published");
    world.pass(30_000);
    world.write(handle, 160, b"page");
    world.fs().fsync(handle).unwrap();
    world.pass(100);
    assert_eq!(world.published("db").unwrap(), b"page".repeat(41));
    world.write(handle, 164, b"page");
    world.fs().fsync(handle).unwrap();
    world.pass(100);
    assert_eq!(world.drive.batches().len(), 1);
    world.close(handle);
    world.pass(100);
    assert_eq!(world.published("db").unwrap(), b"page".repeat(42));
}

#[test]
fn a_failing_place_to_publish_loses_nothing_and_is_told() {
    let world = World::new();
    world.drive.fail(true);
    world.save("a", b"1");
    world.clock.pass(60);
    assert!(world.fs().seal_due().is_err());
    assert_eq!(world.fs().notices().len(), 1);
    world.save("a", b"2");
    world.mkdir("d");
    world.save("d/b", b"3");
    world.clock.pass(60);
    assert!(matches!(world.fs().seal_due(), Ok(0)), "it waits before it tries again");
    world.drive.fail(false);
    world.pass(1_000);
    assert_eq!(
        (world.published("a").unwrap(), world.published("d/b").unwrap()),
        (b"2".to_vec(), b"3".to_vec())
    );
    assert_eq!(world.fs().notices().len(), 0);
    assert_eq!(world.fs().drafts(), 0);
    assert!(world.fs().getattr(ROOT).is_ok());
}
