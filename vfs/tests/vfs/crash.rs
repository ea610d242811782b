//! What a crash leaves.

use std::collections::BTreeMap;

use journal::id::DirId;
use journal::name::Register;
use journal::op::{Content, FileValue, Op, Timestamp, Value};
use proptest::prelude::*;
use rustix::fs::OFlags;
use vfs::OpenError;

use crate::drive::{World, far_file};

/// Another device saves a file in place of what is official.
fn publish(world: &World, name: &str, content: Content) {
    let value = FileValue {
        content,
        mode: 0o644,
        mtime: Timestamp::default(),
        xattrs: Default::default(),
        owner: None,
    };
    let name: journal::name::EntryName = name.parse().unwrap();
    let bases = world.drive.at(name.as_str()).map(|node| node.version).into_iter().collect();
    let put = Op::Put { dir: DirId::ROOT, name: name.clone(), value: Value::File(value), bases };
    world.drive.publish(vec![put]);
    world.fs().remote_changed(&[Register::new(DirId::ROOT, name)]);
}

fn log(world: &World) -> std::path::PathBuf {
    world.spool().join("log")
}

#[test]
fn what_was_closed_or_synced_is_there_after_a_crash_and_is_published() {
    let mut world = World::new();
    world.save("published", b"0123456789");
    world.pass(100);
    world.mkdir("d");
    world.save("d/closed", b"closed");
    let grown = world.create("d/synced");
    world.write(grown, 0, b"synced");
    world.fs().fsync(grown).unwrap();
    world.write(grown, 6, b" and not synced");
    let edited = world.open("published", OFlags::RDWR);
    world.write(edited, 3, b"###");
    world.fs().fsync(edited).unwrap();
    world.create("d/never");
    world.crash();
    assert_eq!(world.read("d/closed").unwrap(), b"closed");
    assert_eq!(world.read("d/synced").unwrap(), b"synced");
    assert_eq!(world.read("published").unwrap(), b"012###6789");
    assert_eq!(world.list("d"), ["closed", "synced"], "a file that was never whole appeared");
    world.crash();
    assert_eq!(world.read("published").unwrap(), b"012###6789", "a second crash lost it");
    world.pass(3_000);
    assert_eq!(world.published("d/synced").unwrap(), b"synced");
    assert_eq!(world.published("published").unwrap(), b"012###6789");
    assert_eq!(
        world.drive.names(journal::id::DirId::ROOT),
        ["d", "published"],
        "a conflict was made"
    );
    world.crash();
    assert_eq!(world.fs().drafts(), 0, "what is published was drafted again");
    let files: Vec<_> =
        std::fs::read_dir(world.spool()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(files, ["log"]);
}

#[test]
fn a_synced_file_is_found_under_the_name_it_was_given_last() {
    let mut world = World::new();
    world.save("doc", b"old");
    world.pass(100);
    let handle = world.create("doc.tmp");
    world.write(handle, 0, b"new");
    world.fs().fsync(handle).unwrap();
    world.rename("doc.tmp", "doc");
    world.crash();
    assert_eq!(world.read("doc").unwrap(), b"new");
    assert_eq!(world.list(""), ["doc"]);
    let handle = world.open("doc", OFlags::RDWR);
    world.write(handle, 0, b"N");
    world.fs().fsync(handle).unwrap();
    world.unlink("doc");
    world.crash();
    assert!(world.list("").is_empty(), "a removed file came back");
}

#[test]
fn a_crash_while_a_batch_is_out_publishes_it_once() {
    let mut world = World::new();
    world.save("f", b"1");
    let before = std::fs::read(log(&world)).unwrap();
    world.pass(100);
    // The journal had it, the spool log did not learn of it.
    std::fs::write(log(&world), before).unwrap();
    world.crash();
    assert_eq!(world.fs().drafts(), 0);
    world.pass(3_000);
    assert_eq!(world.drive.batches().len(), 1);
}

/// A log cut anywhere gives a state that was there at some moment, and later cuts give later states.
#[test]
fn a_log_cut_at_any_byte_gives_a_state_that_once_was() {
    let mut world = World::new();
    world.save("doc", b"v0");
    world.pass(100);
    type State = BTreeMap<String, Vec<u8>>;
    let state = |world: &World| -> State {
        world.list("").into_iter().map(|name| (name.clone(), world.read(&name).unwrap())).collect()
    };
    let mut states = vec![state(&world)];
    for save in 1..=2 {
        world.save("doc@", format!("v{save}").as_bytes());
        states.push(state(&world));
        if world.ino("doc1").is_some() {
            world.unlink("doc1");
            states.push(state(&world));
        }
        world.rename("doc", "doc1");
        states.push(state(&world));
        world.rename("doc@", "doc");
        states.push(state(&world));
    }
    let whole = std::fs::read(log(&world)).unwrap();
    // The rest is room for what is to come.
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap() + 8;
    let mut last = 0;
    for cut in 16..=end {
        std::fs::write(log(&world), &whole[..cut]).unwrap();
        world.crash();
        let now = state(&world);
        let at = states.iter().skip(last).position(|state| *state == now);
        last += at.unwrap_or_else(|| panic!("cut at {cut}: {now:?} never was, or earlier"));
    }
    assert_eq!(last, states.len() - 1);
}

#[test]
fn a_draft_whose_bytes_were_lost_ends_the_replay() {
    let mut world = World::new();
    world.save("a", b"kept");
    world.save("b", b"lost");
    world.save("c", b"after");
    drop(world.fs.take());
    // The power went before the pack with b's bytes was written: another store, with a's bytes only.
    let store = cas::Store::in_memory(cas::IdKey::from_bytes([7; 32]));
    store.put(b"kept").unwrap();
    world.store = store.clone();
    world.elsewhere =
        std::sync::Arc::new(crate::drive::Elsewhere { store, others: std::sync::Mutex::default() });
    world.crash();
    assert_eq!(world.list(""), ["a"]);
    assert_eq!(world.read("a").unwrap(), b"kept");
}

#[test]
fn foreign_and_newer_logs_are_refused_and_left_alone() {
    for (bytes, newer) in [(&b"ATLSPOOL\x09\0\0\0\0\0\0\0"[..], true), (&[7; 64][..], false)] {
        let world = World::new();
        std::fs::write(log(&world), bytes).unwrap();
        let config = vfs::Config::new(world.spool().to_path_buf(), 0, 0);
        let opened = vfs::Fs::open(
            config,
            world.drive.clone(),
            world.drive.clone(),
            world.store.clone(),
            world.elsewhere.clone(),
            world.clock.clone(),
            world.drive.clone(),
        );
        match opened {
            Err(OpenError::TooNew { found: 9, supported: 2 }) => assert!(newer),
            Err(OpenError::Corrupt { .. }) => assert!(!newer),
            other => panic!("{:?}", other.err()),
        }
        assert_eq!(std::fs::read(log(&world)).unwrap(), bytes);
    }
}

#[test]
fn the_log_is_emptied_when_nothing_waits() {
    let world = World::new();
    for i in 0..50 {
        world.save(&format!("f{i}"), b"x");
    }
    let head = |world: &World| std::fs::read(log(world)).unwrap()[..16].to_vec();
    let before = head(&world);
    world.pass(3_000);
    // Frames count only under the head they were written under.
    assert_ne!(head(&world), before);
    assert_eq!(world.fs().drafts(), 0);
}

/// C1: what fsync answered for does not rest on the overlay's file, which was never synced.
#[test]
fn little_that_was_synced_survives_the_loss_of_the_file_it_was_written_to() {
    let mut world = World::new();
    world.save("old", &[b'.'; 300_000]);
    world.pass(100);
    let edited = world.open("old", OFlags::RDWR);
    let grown = world.create("log");
    for turn in 0..5u8 {
        world.write(edited, u64::from(turn) * 50_000, &[b'a' + turn; 100]);
        world.fs().fsync(edited).unwrap();
        world.write(grown, u64::from(turn) * 10, &[b'0' + turn; 10]);
        world.fs().fsync(grown).unwrap();
    }
    // Written over what was synced, and not synced again.
    world.write(edited, 0, b"never");
    lose_overlays(&world);
    world.crash();
    let mut want = vec![b'.'; 300_000];
    for turn in 0..5u8 {
        want[usize::from(turn) * 50_000..][..100].fill(b'a' + turn);
    }
    assert!(world.read("old").unwrap() == want);
    let want: Vec<u8> = (0..5u8).flat_map(|turn| [b'0' + turn; 10]).collect();
    assert_eq!(world.read("log").unwrap(), want);
}

/// What a power cut leaves of files that were never synced.
fn lose_overlays(world: &World) {
    for entry in std::fs::read_dir(world.spool()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("overlay") {
            std::fs::remove_file(path).unwrap();
        }
    }
}

/// What is synced in the overlay's file is newer than what the log has of the same place.
#[test]
fn what_was_synced_later_in_another_way_is_not_undone() {
    let mut world = World::new();
    let handle = world.create("f");
    world.write(handle, 0, &[1; 1_000]);
    world.fs().fsync(handle).unwrap();
    world.write(handle, 500, &vec![2; 400_000]);
    world.fs().fsync(handle).unwrap();
    world.write(handle, 400_000, &[3; 10]);
    world.fs().fsync(handle).unwrap();
    world.crash();
    let mut want = vec![2; 400_500];
    want[..500].fill(1);
    want[400_000..400_010].fill(3);
    assert!(world.read("f").unwrap() == want);
}

/// The log written anew, while a file is open, still holds what only the log has.
#[test]
fn a_log_written_anew_keeps_what_was_synced() {
    let mut world = World::new();
    let handle = world.create("f");
    world.write(handle, 0, b"synced");
    world.fs().fsync(handle).unwrap();
    let head = |world: &World| std::fs::read(log(world)).unwrap()[..16].to_vec();
    let before = head(&world);
    world.save("other", b"");
    let other = world.ino("other").unwrap();
    // Far more than a log keeps of what is long published.
    for turn in 0.. {
        assert!(turn < 1_000, "the log is never written anew");
        let value = vec![turn as u8; 50_000];
        world.fs().setxattr(other, b"user.x", &value, vfs::fs::XattrMode::Any).unwrap();
        world.pass(3_000);
        if head(&world) != before {
            break;
        }
    }
    world.write(handle, 3, b"###");
    world.fs().fsync(handle).unwrap();
    lose_overlays(&world);
    world.crash();
    assert_eq!(world.read("f").unwrap(), b"syn###");
}

#[test]
fn a_program_that_syncs_every_line_does_not_fill_the_store() {
    let world = World::new();
    let handle = world.create("log");
    let before = world.store.usage().stored_bytes;
    for line in 0..200u64 {
        world.write(handle, line * 100, &noise(line));
        world.fs().fsync(handle).unwrap();
    }
    let written = world.store.usage().stored_bytes - before;
    assert_eq!(written, 0, "each fsync wrote the end of the file anew");
    world.close(handle);
    let written = world.store.usage().stored_bytes - before;
    assert!((20_000..40_000).contains(&written), "{written} bytes for 20,000");
}

/// Bytes that cannot be compressed.
fn noise(seed: u64) -> [u8; 100] {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::array::from_fn(|_| {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
}

#[test]
fn what_could_not_be_completed_at_a_start_never_replaces_later_work() {
    for at_a_start in [true, false] {
        let mut world = World::new();
        let base = far_file(&world, &[b'.'; 100_000]);
        publish(&world, "doc", base);
        let handle = world.open("doc", OFlags::RDWR);
        world.write(handle, 50_000, b"before the crash");
        world.fs().fsync(handle).unwrap();
        // Nobody who has the other bytes is online at the start.
        let others = std::mem::take(&mut *world.elsewhere.others.lock().unwrap());
        world.crash();
        assert_eq!(world.fs().drafts(), 1, "what waits to be completed counts as unpublished");
        assert_eq!(world.fs().notices().len(), 1);
        world.save("doc", b"done anew");
        world.pass(3_000);
        if at_a_start {
            *world.elsewhere.others.lock().unwrap() = others;
            world.crash();
        } else {
            world.crash();
            *world.elsewhere.others.lock().unwrap() = others;
            assert_eq!(world.fs().complete_left(), 0);
        }
        world.pass(3_000);
        assert_eq!(world.published("doc").unwrap(), b"done anew");
        let copy = world.read("doc (conflict 1)").expect("the synced bytes");
        assert_eq!(&copy[50_000..50_016], b"before the crash");
        assert_eq!((world.fs().drafts(), world.fs().notices().len()), (0, 0));
        world.crash();
        assert_eq!(world.fs().drafts(), 0);
        assert_eq!(world.list(""), ["doc", "doc (conflict 1)"]);
    }
}

#[test]
fn a_file_published_while_open_is_continued_after_a_crash_not_copied() {
    let mut world = World::new();
    world.save("doc", b"0123456789");
    world.pass(100);
    let handle = world.open("doc", OFlags::RDWR);
    world.write(handle, 0, b"a");
    world.fs().fsync(handle).unwrap();
    for round in 0..3_u64 {
        world.clock.pass(40_000);
        world.write(handle, 1 + round, b"b");
        world.fs().fsync(handle).unwrap();
        world.pass(100);
    }
    assert_eq!(world.published("doc").unwrap(), b"abbb456789");
    world.write(handle, 9, b"c");
    world.fs().fsync(handle).unwrap();
    world.crash();
    world.pass(3_000);
    assert_eq!(world.drive.names(journal::id::DirId::ROOT), ["doc"], "a conflict was made");
    assert_eq!(world.published("doc").unwrap(), b"abbb45678c");
}

#[test]
fn cutting_a_file_does_not_spoil_what_was_synced() {
    for whole in [true, false] {
        let mut world = World::new();
        world.save("f", &[1; 200_000]);
        world.pass(100);
        let handle = world.open("f", OFlags::RDWR);
        world.write(handle, 0, &[2; 100_000]);
        world.fs().fsync(handle).unwrap();
        if whole {
            world.open("f", OFlags::RDWR | OFlags::TRUNC);
        } else {
            let set = vfs::attr::SetAttr { len: Some(10), ..Default::default() };
            let ino = world.ino("f").unwrap();
            world.fs().setattr(crate::drive::ME, ino, Some(handle), set).unwrap();
        }
        world.crash();
        let now = world.read("f").unwrap();
        let synced = [[2; 100_000], [1; 100_000]].concat();
        assert!(now == synced, "{} bytes, the first {:?}", now.len(), now.first());
    }
}

#[test]
fn a_file_whose_name_was_taken_is_in_the_spool_until_it_is_published() {
    for synced in [true, false] {
        let mut world = World::new();
        world.save("f", b"base");
        world.pass(100);
        let theirs = far_file(&world, b"theirs");
        let handle = world.open("f", OFlags::RDWR);
        publish(&world, "f", theirs);
        assert_eq!(world.read("f").unwrap(), b"theirs");
        world.write(handle, 0, b"B");
        if synced {
            world.fs().fsync(handle).unwrap();
        }
        world.drive.fail(true);
        world.fs().flush(handle).expect_err("the journal takes nothing");
        world.crash();
        world.drive.fail(false);
        world.pass(3_000);
        assert_eq!(world.read("f").unwrap(), b"theirs");
        assert_eq!(world.published("f (conflict 1)").unwrap(), b"Base");
    }
}

#[test]
fn what_was_published_after_the_last_fsync_is_not_taken_back() {
    let mut world = World::new();
    world.save("doc", b"0123456789");
    world.pass(100);
    let handle = world.open("doc", OFlags::RDWR);
    world.write(handle, 0, b"a");
    world.fs().fsync(handle).unwrap();
    for round in 1..4 {
        world.write(handle, round, b"b");
        world.fs().seal_all().unwrap();
    }
    world.crash();
    world.pass(3_000);
    assert_eq!(world.drive.names(DirId::ROOT), ["doc"], "a conflict was made");
    assert_eq!(world.published("doc").unwrap(), b"abbb456789");
}

/// The frames of a log, each payload of its own: turn, then length, checksum and payload one after the other.
fn frames(log: &[u8]) -> ([u8; 4], Vec<Vec<u8>>) {
    let turn = *log[..16].last_chunk().unwrap();
    let (mut rest, mut frames) = (&log[16..], Vec::new());
    while let Some(len) = rest.first_chunk::<4>().map(|len| u32::from_le_bytes(*len) as usize) {
        if len == 0 {
            break;
        }
        frames.push(rest[8..8 + len].to_vec());
        rest = &rest[8 + len..];
    }
    (turn, frames)
}

fn with_frames(log: &[u8], turn: [u8; 4], frames: &[Vec<u8>]) -> Vec<u8> {
    let mut out = log[..16].to_vec();
    for payload in frames {
        let len = (payload.len() as u32).to_le_bytes();
        let crc =
            crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&turn), &len), payload);
        out.extend(len.into_iter().chain(crc.to_le_bytes()).chain(payload.iter().copied()));
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Damage that no checksum finds: the log opens, and one can work on. (The journal may refuse what it says now.)
    #[test]
    fn whatever_the_frames_of_a_log_say_it_opens_and_takes_work(
        edits in prop::collection::vec((any::<u16>(), any::<u16>(), any::<u8>(), 0u8..4), 1..6),
    ) {
        let mut world = World::new();
        world.save("doc", b"v0");
        world.pass(5_000);
        world.mkdir("dir");
        world.save("dir/a", b"1");
        world.rename("doc", "dir/doc");
        let open = world.create("open");
        world.write(open, 0, b"unfinished");
        world.fs().fsync(open).unwrap();
        drop(world.fs.take());
        let whole = std::fs::read(log(&world)).unwrap();
        let (turn, mut all) = frames(&whole);
        for (frame, at, to, how) in edits {
            let count = all.len();
            let Some(payload) = all.get_mut(usize::from(frame) % count.max(1)) else { break };
            let at = usize::from(at) % payload.len().max(1);
            match how {
                0 => payload[at] = to,
                1 => payload[at] ^= 1 << (to % 8),
                2 => payload.insert(at, to),
                _ if payload.len() > 1 => drop(payload.remove(at)),
                _ => {}
            }
        }
        std::fs::write(log(&world), with_frames(&whole, turn, &all)).unwrap();
        world.crash();
        for name in world.list("") {
            let _ = world.ino(&name);
        }
        world.save("later", b"works");
        world.struggle(5_000);
        prop_assert_eq!(world.read("later").unwrap(), b"works");
    }
}
