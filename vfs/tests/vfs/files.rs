//! Bytes: whatever is written is read, before, between and after it is published.

use proptest::prelude::*;
use rustix::fs::{FallocateFlags, OFlags};
use vfs::FsError;
use vfs::attr::{SetAttr, SetTime};
use vfs::fs::Wait;

use crate::drive::{ME, ROOT, World, far_file};

#[derive(Clone, Debug)]
enum Step {
    Write { at: u64, len: usize, fill: u8 },
    Truncate(u64),
    Zero { at: u64, len: u64, keep: bool },
    Punch { at: u64, len: u64 },
    Flush,
    Fsync,
    Publish,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let at = prop_oneof![Just(0u64), 0..200_000u64];
    let len = prop_oneof![1..64usize, 1..70_000usize];
    prop_oneof![
        6 => (at.clone(), len, any::<u8>()).prop_map(|(at, len, fill)| Step::Write { at, len, fill }),
        2 => at.clone().prop_map(Step::Truncate),
        1 => (at.clone(), 1..50_000u64, any::<bool>()).prop_map(|(at, len, keep)| Step::Zero { at, len, keep }),
        1 => (at, 1..50_000u64).prop_map(|(at, len)| Step::Punch { at, len }),
        1 => Just(Step::Flush),
        1 => Just(Step::Fsync),
        1 => Just(Step::Publish),
        1 => Just(Step::Reopen),
    ]
}

/// Fills with something no chunk repeats.
pub fn pattern(fill: u8, at: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|i| (at + i).wrapping_mul(31).wrapping_add((at + i) >> 8) as u8 ^ fill)
        .collect()
}

fn zero(model: &mut [u8], at: u64, len: u64) {
    let end = (at + len).min(model.len() as u64) as usize;
    if (at as usize) < end {
        model[at as usize..end].fill(0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_file_is_the_bytes_written_to_it(steps in prop::collection::vec(step(), 1..25)) {
        let world = World::new();
        let mut handle = world.create("f");
        let mut model: Vec<u8> = Vec::new();
        for step in &steps {
            match *step {
                Step::Write { at, len, fill } => {
                    let data = pattern(fill, at, len);
                    world.write(handle, at, &data);
                    let end = at as usize + len;
                    model.resize(model.len().max(end), 0);
                    model[at as usize..end].copy_from_slice(&data);
                }
                Step::Truncate(len) => {
                    let ino = world.ino("f").unwrap();
                    let set = SetAttr { len: Some(len), ..SetAttr::default() };
                    world.fs().setattr(ME, ino, Some(handle), set).unwrap();
                    model.resize(len as usize, 0);
                }
                Step::Zero { at, len, keep } => {
                    let mut mode = FallocateFlags::ZERO_RANGE;
                    mode.set(FallocateFlags::KEEP_SIZE, keep);
                    world.fs().fallocate(handle, mode.bits(), at, len).unwrap();
                    zero(&mut model, at, len);
                    if !keep {
                        model.resize(model.len().max((at + len) as usize), 0);
                    }
                }
                Step::Punch { at, len } => {
                    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                    world.fs().fallocate(handle, mode.bits(), at, len).unwrap();
                    zero(&mut model, at, len);
                }
                Step::Flush => world.fs().flush(handle).unwrap(),
                Step::Fsync => world.fs().fsync(handle).unwrap(),
                Step::Publish => {
                    world.fs().seal_all().unwrap();
                    prop_assert_eq!(world.published("f").unwrap() == model, true, "published bytes differ");
                }
                Step::Reopen => {
                    world.close(handle);
                    handle = world.open("f", OFlags::RDWR);
                }
            }
            prop_assert_eq!(world.fs().getattr(world.ino("f").unwrap()).unwrap().len, model.len() as u64);
            prop_assert_eq!(world.read_handle(handle) == model, true, "bytes differ after {:?}", step);
        }
        world.close(handle);
        prop_assert_eq!(world.read("f").unwrap() == model, true, "bytes differ after close");
        world.fs().seal_all().unwrap();
        prop_assert_eq!(world.published("f").unwrap() == model, true, "published bytes differ");
        let left = std::fs::read_dir(world.spool()).unwrap().filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("overlay")).count();
        prop_assert_eq!(left, 0, "overlay files are left");
    }
}

#[test]
fn two_handles_share_one_file() {
    let world = World::new();
    let a = world.create("f");
    let b = world.open("f", OFlags::RDWR);
    world.write(a, 0, b"hello");
    world.write(b, 5, b" world");
    assert_eq!(world.read_handle(a), b"hello world");
    world.close(a);
    world.write(b, 0, b"J");
    world.close(b);
    assert_eq!(world.read("f").unwrap(), b"Jello world");
}

#[test]
fn a_new_file_is_visible_and_grows_before_it_is_closed() {
    let world = World::new();
    let handle = world.create("f");
    assert_eq!(world.list(""), ["f"]);
    world.write(handle, 0, b"abc");
    assert_eq!(world.fs().getattr(world.ino("f").unwrap()).unwrap().len, 3);
    assert_eq!(world.read("f").unwrap(), b"abc");
    world.pass(60_000);
    assert!(world.drive.batches().is_empty());
}

#[test]
fn an_unlinked_file_works_on_and_is_never_published() {
    let world = World::new();
    let handle = world.create("f");
    world.write(handle, 0, b"abc");
    world.unlink("f");
    world.write(handle, 3, b"def");
    world.fs().fsync(handle).unwrap();
    assert_eq!(world.read_handle(handle), b"abcdef");
    assert!(world.list("").is_empty());
    world.fs().seal_all().unwrap();
    world.close(handle);
    world.fs().seal_all().unwrap();
    assert!(world.drive.batches().is_empty());
    assert_eq!(world.fs().open_files(), 0);
}

#[test]
fn a_path_can_be_cut_without_opening_it() {
    let world = World::new();
    world.save("f", b"0123456789");
    world.pass(100);
    let set = SetAttr { len: Some(4), ..SetAttr::default() };
    world.fs().setattr(ME, world.ino("f").unwrap(), None, set).unwrap();
    world.pass(100);
    assert_eq!(world.published("f").unwrap(), b"0123");
}

#[test]
fn a_file_opened_to_be_read_and_emptied_is_empty_for_everybody() {
    let world = World::new();
    world.save("f", b"content");
    world.pass(100);
    let handle = world.open("f", OFlags::RDONLY | OFlags::TRUNC);
    assert_eq!(world.read_handle(handle), b"");
    world.fs().release(handle).unwrap();
    // Its bytes may come back for a while.
    world.pass(3_000);
    assert_eq!(world.published("f").unwrap(), b"");
}

#[test]
fn times_set_after_the_writes_survive_the_close() {
    let world = World::new();
    let handle = world.create("f");
    world.write(handle, 0, b"abc");
    let time = journal::op::Timestamp { secs: -5, nanos: 700 };
    let set = SetAttr { mtime: Some(SetTime::At(time)), mode: Some(0o4755), ..SetAttr::default() };
    world.fs().setattr(ME, world.ino("f").unwrap(), Some(handle), set).unwrap();
    world.clock.pass(1_000);
    world.close(handle);
    let attr = world.fs().getattr(world.ino("f").unwrap()).unwrap();
    assert_eq!((attr.mtime, attr.mode), (time, 0o755));
    world.pass(100);
    match world.drive.at("f").unwrap().kind {
        journal::view::ViewKind::File(file) => assert_eq!((file.mtime, file.mode), (time, 0o755)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn content_of_others_is_read_when_waiting_is_allowed_and_edited_without_all_of_it() {
    let world = World::new();
    let data = pattern(3, 0, 400_000);
    let content = far_file(&world, &data);
    let value = journal::op::FileValue {
        content,
        mode: 0o644,
        mtime: journal::op::Timestamp::default(),
        xattrs: Default::default(),
        owner: None,
    };
    world.drive.publish(vec![journal::op::Op::Put {
        dir: journal::id::DirId::ROOT,
        name: "far".parse().unwrap(),
        value: journal::op::Value::File(value),
        bases: vec![],
    }]);
    let handle = world.open("far", OFlags::RDWR);
    assert!(matches!(world.fs().read(handle, 0, 100, Wait::Never), Err(FsError::WouldWait)));
    assert_eq!(world.fs().read(handle, 1000, 5000, Wait::Allowed).unwrap(), data[1000..6000]);
    world.write(handle, 200_000, b"edit");
    world.close(handle);
    let mut want = data.clone();
    want[200_000..200_004].copy_from_slice(b"edit");
    assert!(world.read("far").unwrap() == want);
    world.pass(100);
    assert_eq!(world.drive.batches().len(), 2);
}

#[test]
fn nobody_having_the_bytes_is_an_error_and_not_zeros() {
    let world = World::new();
    let content = far_file(&world, &pattern(5, 0, 3000));
    world.elsewhere.others.lock().unwrap().clear();
    let value = journal::op::FileValue {
        content,
        mode: 0o644,
        mtime: journal::op::Timestamp::default(),
        xattrs: Default::default(),
        owner: None,
    };
    world.drive.publish(vec![journal::op::Op::Put {
        dir: journal::id::DirId::ROOT,
        name: "far".parse().unwrap(),
        value: journal::op::Value::File(value),
        bases: vec![],
    }]);
    let handle = world.open("far", OFlags::RDONLY);
    assert!(matches!(world.fs().read(handle, 0, 100, Wait::Allowed), Err(FsError::Read(_))));
}

#[test]
fn a_full_disk_refuses_bytes_before_it_takes_them() {
    let world = World::with(|config| config.reserve_bytes = u64::MAX);
    let handle = world.create("f");
    assert!(matches!(world.fs().write(handle, 0, b"x", Wait::Allowed), Err(FsError::Full)));
    assert_eq!(world.fs().getattr(world.ino("f").unwrap()).unwrap().len, 0);
    assert!(world.fs().getattr(ROOT).is_ok());
}

#[test]
fn holes_are_found() {
    let world = World::new();
    let handle = world.create("f");
    world.write(handle, 8 << 20, b"end");
    world.close(handle);
    let handle = world.open("f", OFlags::RDONLY);
    assert_eq!(world.fs().lseek(handle, 0, false).unwrap(), 0);
    let data = world.fs().lseek(handle, 0, true).unwrap();
    assert!(data > 0 && data <= 8 << 20, "{data}");
    assert!(matches!(world.fs().lseek(handle, (8 << 20) + 3, true), Err(FsError::NoOffset)));
}
