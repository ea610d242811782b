//! What a collection must leave: files that are open, being written, or not published yet.

use cas::{Content, Sweep};
use rustix::fs::OFlags;

use crate::drive::World;

/// Removes everything but what is in use.
fn collect(world: &World) {
    let mut collector = world.store.collect().unwrap();
    for content in world.fs().contents_in_use() {
        collector.keep(content).unwrap();
    }
    let swept =
        collector.sweep(Sweep::Remove, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
    assert_eq!(swept.stopped, None);
}

fn bytes(seed: u8, len: usize) -> Vec<u8> {
    let mut state = u64::from(seed) << 32 | 0x9e37_79b9;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

fn content(world: &World, name: &str) -> Content {
    let content = world.drive.content(name).unwrap();
    Content { id: content.id, len: content.len }
}

fn is_whole(world: &World, content: Content) -> bool {
    world.store.pin(content).is_ok()
}

#[test]
fn an_open_file_stays_until_it_is_closed() {
    let world = World::new();
    let old = bytes(1, 300_000);
    world.save("f", &old);
    world.pass(3_000);
    let was = content(&world, "f");
    let handle = world.open("f", OFlags::RDONLY);
    world.save("g", &bytes(2, 1_000));
    world.rename("g", "f");
    world.pass(3_000);
    assert_ne!(content(&world, "f"), was);
    collect(&world);
    assert!(is_whole(&world, was));
    assert!(world.read_handle(handle) == old);
    world.close(handle);
    collect(&world);
    assert!(!is_whole(&world, was), "nobody has it open");
}

#[test]
fn a_file_opened_while_a_collection_runs_stays() {
    let world = World::new();
    let old = bytes(1, 300_000);
    world.save("f", &old);
    world.pass(3_000);
    let collector = world.store.collect().unwrap();
    let handle = world.open("f", OFlags::RDONLY);
    collector.sweep(Sweep::Remove, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
    assert!(world.read_handle(handle) == old);
}

#[test]
fn what_is_not_published_stays() {
    let world = World::new();
    let new = bytes(1, 300_000);
    world.save("f", &new);
    collect(&world);
    world.pass(3_000);
    assert!(is_whole(&world, content(&world, "f")));
    assert!(world.published("f").unwrap() == new);
}

#[test]
fn a_stream_that_repeats_what_is_here_stays() {
    let world = World::new();
    let old = bytes(1, 3_000_000);
    world.save("f", &old);
    world.pass(3_000);
    let handle = world.create("g");
    for (number, piece) in old.chunks(100_000).enumerate() {
        world.write(handle, number as u64 * 100_000, piece);
    }
    world.unlink("f");
    world.pass(6_000);
    collect(&world);
    world.close(handle);
    world.pass(3_000);
    assert!(world.published("g").unwrap() == old);
}

#[test]
fn what_a_change_in_place_rests_on_stays() {
    let world = World::new();
    let mut file = bytes(1, 3_000_000);
    world.save("f", &file);
    world.pass(3_000);
    let handle = world.open("f", OFlags::RDWR);
    world.write(handle, 1_500_000, b"changed");
    file[1_500_000..1_500_007].copy_from_slice(b"changed");
    collect(&world);
    assert!(world.read_handle(handle) == file);
    world.close(handle);
    collect(&world);
    world.pass(3_000);
    assert!(world.published("f").unwrap() == file);
}

#[test]
fn what_an_fsync_promised_survives_a_collection_and_a_crash() {
    let mut world = World::new();
    let old = bytes(1, 1_000_000);
    world.save("f", &old);
    world.pass(3_000);
    let handle = world.create("g");
    for (number, piece) in old.chunks(100_000).enumerate() {
        world.write(handle, number as u64 * 100_000, piece);
    }
    world.fs().fsync(handle).unwrap();
    world.unlink("f");
    world.pass(6_000);
    collect(&world);
    world.crash();
    world.pass(6_000);
    assert!(world.read("g").unwrap() == old);
}
