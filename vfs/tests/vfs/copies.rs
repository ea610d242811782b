//! Copying ranges from file to file.

use proptest::prelude::*;
use rustix::fs::OFlags;
use vfs::FsError;

use crate::drive::World;

fn bytes(len: usize, seed: u64) -> Vec<u8> {
    (0..len as u64).map(|i| ((i + seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u8).collect()
}

/// Copies until nothing more comes, as programs do.
fn copy(world: &World, from: (u64, u64), to: (u64, u64), len: u64) -> u64 {
    let mut copied = 0;
    while copied < len {
        let (from, to) = ((from.0, from.1 + copied), (to.0, to.1 + copied));
        match world.fs().copy_range(from, to, len - copied).unwrap() {
            0 => break,
            some => copied += some,
        }
    }
    copied
}

#[test]
fn a_whole_file_is_copied_by_its_content() {
    let world = World::new();
    let data = bytes(40 << 20, 1);
    world.save("a", &data);
    world.pass(100);
    let (from, to) = (world.open("a", OFlags::RDONLY), world.create("b"));
    // In one step, although it is longer than what is copied at a time.
    assert_eq!(world.fs().copy_range((from, 0), (to, 0), 1 << 40).unwrap(), data.len() as u64);
    assert_eq!(world.fs().copy_range((from, data.len() as u64), (to, 0), 1 << 40).unwrap(), 0);
    assert!(world.read("b").unwrap() == data);
    world.close(to);
    world.pass(100);
    assert_eq!(world.drive.content("b"), world.drive.content("a"));
    // And is its own file from then on, also when it is synced before it is closed.
    let to = world.open("b", OFlags::RDWR);
    world.write(to, 5, b"changed");
    world.fs().fsync(to).unwrap();
    world.close(to);
    world.pass(100);
    assert!(world.published("a").unwrap() == data);
    assert_eq!(
        &world.published("b").unwrap()[..14],
        [&data[..5], b"changed", &data[12..14]].concat()
    );
    world.fs().release(from).unwrap();
}

#[test]
fn a_copy_that_was_synced_survives_a_crash_before_it_is_closed() {
    let mut world = World::new();
    let data = bytes(300_000, 2);
    world.save("a", &data);
    world.pass(100);
    let (from, to) = (world.open("a", OFlags::RDONLY), world.create("b"));
    assert_eq!(copy(&world, (from, 0), (to, 0), u64::MAX), data.len() as u64);
    world.write(to, 100, b"patch");
    world.fs().fsync(to).unwrap();
    world.crash();
    let mut want = data;
    want[100..105].copy_from_slice(b"patch");
    assert!(world.read("b").unwrap() == want);
}

#[test]
fn copies_that_make_no_sense_are_refused() {
    let world = World::new();
    world.save("a", &bytes(5000, 3));
    world.save("b", b"");
    let (a, b) = (world.open("a", OFlags::RDWR), world.open("b", OFlags::WRONLY));
    let read_only = world.open("b", OFlags::RDONLY);
    let copy = |from, to, len| world.fs().copy_range(from, to, len);
    assert!(matches!(copy((b, 0), (a, 0), 10), Err(FsError::BadHandle)), "not open for reading");
    assert!(matches!(copy((a, 0), (read_only, 0), 10), Err(FsError::BadHandle)));
    assert!(matches!(copy((a, 0), (999, 0), 10), Err(FsError::BadHandle)));
    assert!(matches!(copy((a, 0), (a, 9), 10), Err(FsError::Invalid)), "onto itself");
    assert_eq!(copy((a, 0), (a, 10), 10).unwrap(), 10);
    assert_eq!(copy((a, 5000), (b, 0), 10).unwrap(), 0, "behind the end is nothing");
    assert_eq!(copy((a, u64::MAX), (b, 0), 10).unwrap(), 0);
    assert!(matches!(copy((a, 0), (b, i64::MAX as u64), 10), Err(FsError::FileTooBig)));
    let other = world.open("a", OFlags::RDWR);
    assert!(matches!(copy((a, 0), (other, 9), 10), Err(FsError::Invalid)), "one file, two handles");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn copied_ranges_are_the_bytes_that_were_there(
        steps in prop::collection::vec(
            (0..2usize, 0..2usize, 0u64..200_000, 0u64..200_000, 1u64..150_000, 0..6u8), 1..12)
    ) {
        let world = World::new();
        let mut models = [bytes(120_000, 4), bytes(30_000, 5)];
        world.save("a", &models[0]);
        world.save("b", &models[1]);
        world.pass(100);
        let mut handles = [world.open("a", OFlags::RDWR), world.open("b", OFlags::RDWR)];
        for (from, to, at, onto, len, also) in steps {
            let same = from == to && at.abs_diff(onto) < len;
            if same {
                let refused = world.fs().copy_range((handles[from], at), (handles[to], onto), len);
                prop_assert!(matches!(refused, Err(FsError::Invalid)));
            } else {
                // One call is enough for so few bytes, and another would copy what this one added.
                let (source, target) = ((handles[from], at), (handles[to], onto));
                let copied = world.fs().copy_range(source, target, len).unwrap();
                let source = &models[from];
                let part = source.get(at as usize..).unwrap_or_default();
                let part = part[..part.len().min(len as usize)].to_vec();
                prop_assert_eq!(copied, part.len() as u64);
                if !part.is_empty() {
                    let end = onto as usize + part.len();
                    let model = &mut models[to];
                    model.resize(model.len().max(end), 0);
                    model[onto as usize..end].copy_from_slice(&part);
                }
            }
            match also {
                0 => {
                    world.close(handles[to]);
                    handles[to] = world.open(["a", "b"][to], OFlags::RDWR);
                }
                1 => world.pass(100),
                2 => {
                    world.close(handles[to]);
                    handles[to] = world.open(["a", "b"][to], OFlags::RDWR | OFlags::TRUNC);
                    models[to].clear();
                }
                _ => {}
            }
            for (handle, model) in handles.iter().zip(&models) {
                prop_assert!(world.read_handle(*handle) == *model);
            }
        }
        for handle in handles {
            world.close(handle);
        }
        // A file that was emptied waits for its bytes to come back.
        world.pass(3_000);
        prop_assert!(world.published("a").unwrap() == models[0]);
        prop_assert!(world.published("b").unwrap() == models[1]);
    }
}
