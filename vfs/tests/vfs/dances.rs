//! Saves as applications do them: others see one version each and never a gap.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use journal::id::VersionId;
use journal::op::{Op, Timestamp, Value};
use rustix::fs::OFlags;
use vfs::attr::{Caller, SetAttr, SetTime};
use vfs::fs::{Wait, XattrMode};

use crate::dance::{Dance, Folder, How, Stage, Step, content, version_of};
use crate::drive::{Head, ME, ROOT, World};

/// Recorded and described saves, one a file.
const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/dances");
/// Saves of one document after another.
const SAVES: u32 = 4;
/// Longer than the wait of anything that waits.
const SETTLED_MS: u64 = 8_000;

/// How long the pauses are.
#[derive(Clone, Copy, Debug)]
enum Pace {
    /// None at all.
    Breathless,
    /// As recorded, each rounded up to what the clock can show.
    Recorded,
    /// The same before every call.
    Even(Duration),
}

/// A file system below its kernel as a place to dance.
struct Floor<'a> {
    world: &'a World,
    pace: Pace,
}

impl Floor<'_> {
    fn ino(&self, name: &str) -> io::Result<u64> {
        self.world.ino(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn set(&self, ino: u64, set: SetAttr) -> io::Result<()> {
        self.world.fs().setattr(ME, ino, None, set).map(drop).map_err(io::Error::other)
    }
}

impl Stage for Floor<'_> {
    type File = (u64, u64);

    fn pause(&self, step: &Step) {
        let pause = match self.pace {
            Pace::Breathless => Duration::ZERO,
            Pace::Recorded => step.pause,
            Pace::Even(pause) => pause,
        };
        self.world.pass(pause.as_nanos().div_ceil(1_000_000) as u64);
    }

    fn open(&self, name: &str, how: How) -> io::Result<(u64, u64)> {
        let world = self.world;
        let handle = match how {
            How::Read => world.open(name, OFlags::RDONLY),
            How::Write => world.open(name, OFlags::RDWR),
            How::Truncate => world.open(name, OFlags::WRONLY | OFlags::TRUNC),
            How::Create(mode) => world.create_with(name, mode, OFlags::TRUNC),
            How::CreateNew(mode) => world.create_with(name, mode, OFlags::EXCL),
        };
        Ok((handle, self.ino(name)?))
    }

    fn read(&self, file: &(u64, u64)) -> io::Result<Vec<u8>> {
        Ok(self.world.read_handle(file.0))
    }

    fn write(&self, file: &(u64, u64), offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.world.write(file.0, offset, bytes);
        Ok(())
    }

    fn set_len(&self, file: &(u64, u64), len: u64) -> io::Result<()> {
        self.set(file.1, SetAttr { len: Some(len), ..SetAttr::default() })
    }

    fn set_len_of(&self, name: &str, len: u64) -> io::Result<()> {
        self.set(self.ino(name)?, SetAttr { len: Some(len), ..SetAttr::default() })
    }

    fn sync(&self, file: &(u64, u64)) -> io::Result<()> {
        self.world.fs().fsync(file.0).map_err(io::Error::other)
    }

    fn set_file_mode(&self, file: &(u64, u64), mode: u32) -> io::Result<()> {
        self.set(file.1, SetAttr { mode: Some(mode), ..SetAttr::default() })
    }

    fn close(&self, file: (u64, u64)) -> io::Result<()> {
        self.world.close(file.0);
        Ok(())
    }

    fn set_mode(&self, name: &str, mode: u32) -> io::Result<()> {
        self.set(self.ino(name)?, SetAttr { mode: Some(mode), ..SetAttr::default() })
    }

    fn set_time(&self, name: &str, time: SystemTime) -> io::Result<()> {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?;
        let time = Timestamp { secs: since.as_secs() as i64, nanos: since.subsec_nanos() };
        let mtime = Some(SetTime::At(time));
        self.set(self.ino(name)?, SetAttr { mtime, ..SetAttr::default() })
    }

    fn set_attribute(&self, name: &str, key: &str, value: &[u8]) -> io::Result<()> {
        let set = self.world.fs().setxattr(self.ino(name)?, key.as_bytes(), value, XattrMode::Any);
        set.map_err(io::Error::other)
    }

    fn exists(&self, name: &str) -> bool {
        self.world.ino(name).is_some()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.world.rename(from, to);
        Ok(())
    }

    fn exchange(&self, a: &str, b: &str) -> io::Result<()> {
        Err(io::Error::other(format!("{a} and {b} cannot change places here")))
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.world.unlink(name);
        Ok(())
    }

    fn make_dir(&self, name: &str) -> io::Result<()> {
        self.world.mkdir(name);
        Ok(())
    }

    fn remove_dir(&self, name: &str) -> io::Result<()> {
        self.world.rmdir(name).map_err(io::Error::other)
    }
}

/// What is under every name: bytes, mode, extended attributes.
type Shown = BTreeMap<String, (Vec<u8>, u32, BTreeMap<String, Vec<u8>>)>;

fn shown_by(world: &World) -> Shown {
    let nodes = world.list("").into_iter().filter_map(|name| {
        let ino = world.ino(&name).unwrap();
        let names = world.fs().listxattr(ino).unwrap();
        let attributes = names.into_iter().map(|key| {
            let value = world.fs().getxattr(ino, &key).unwrap();
            (String::from_utf8(key).unwrap(), value)
        });
        let mode = world.fs().getattr(ino).unwrap().mode & 0o7777;
        let shown = (world.read(&name)?, mode, attributes.collect());
        Some((name, shown))
    });
    nodes.collect()
}

/// What differs, in words, but for the bytes themselves.
fn differences(here: &Shown, there: &Shown) -> Option<String> {
    let told = |shown: &Shown| -> Vec<String> {
        let files = shown.iter().map(|(name, (bytes, mode, attributes))| {
            let version = version_of(bytes);
            let keys: Vec<_> = attributes.keys().collect();
            format!("{name}: {} bytes, version {version:?}, mode {mode:o}, {keys:?}", bytes.len())
        });
        files.collect()
    };
    (here != there).then(|| format!("{:#?} instead of {:#?}", told(here), told(there)))
}

fn shown_in(dir: &Path) -> Shown {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let mut value = [0; 64];
        let note = rustix::fs::getxattr(&path, NOTE, &mut value[..]);
        let attributes = note.ok().map(|len| (NOTE.to_owned(), value[..len].to_vec()));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, (std::fs::read(&path).unwrap(), mode, attributes.into_iter().collect()))
    });
    entries.collect()
}

const NOTE: &str = "user.note";

/// A document of version 0 that was published long ago, in the world and in a plain directory.
fn with_document(dance: &Dance) -> (World, tempfile::TempDir) {
    let world = World::new();
    world.save(&dance.document, &content(0));
    let floor = Floor { world: &world, pace: Pace::Breathless };
    floor.set_mode(&dance.document, 0o640).unwrap();
    floor.set_attribute(&dance.document, NOTE, b"x").unwrap();
    world.pass(40_000);
    let twin = tempfile::tempdir().unwrap();
    std::fs::write(twin.path().join(&dance.document), content(0)).unwrap();
    let plain = Folder::new(twin.path(), |_| {});
    plain.set_mode(&dance.document, 0o640).unwrap();
    plain.set_attribute(&dance.document, NOTE, b"x").unwrap();
    (world, twin)
}

/// The versions of a name that were published, in order, and what each replaces.
fn versions_of(world: &World, name: &str) -> Vec<(VersionId, Vec<VersionId>)> {
    let log = world.drive.log();
    let puts = log.into_iter().filter_map(|(op, id)| match op {
        Op::Put { name: n, value: Value::File(_), bases, .. } if n.as_str() == name => {
            Some((id, bases))
        }
        _ => None,
    });
    puts.collect()
}

/// Which version of the document each batch showed; an error when it was missing or a part.
fn versions_shown(world: &World, dance: &Dance) -> Result<Vec<u32>, String> {
    let roots = world.drive.roots();
    let shown = roots.iter().enumerate().map(|(index, root)| {
        let Some(Head::Value(Value::File(file))) = root.get(&dance.document) else {
            return Err(format!("after batch {index} it is missing: {:?}", root.keys()));
        };
        let version = version_of(&world.bytes_of(file.content));
        version.ok_or_else(|| format!("batch {index} shows {} bytes of it", file.content.len))
    });
    shown.collect()
}

/// Saves a few times; an error tells what does not hold.
fn danced(dance: &Dance, pace: Pace) -> Result<(), String> {
    let (world, twin) = with_document(dance);
    let mut allowed: BTreeSet<String> = world.list("").into_iter().collect();
    allowed.extend(dance.backup.clone());
    for save in 1..=SAVES {
        let before = versions_of(&world, &dance.document);
        dance.save(&Floor { world: &world, pace }, save).unwrap();
        dance.save(&Folder::new(twin.path(), |_| {}), save).unwrap();
        let plain = shown_in(twin.path());
        if let Some(told) = differences(&shown_by(&world), &plain) {
            return Err(format!("save {save} shows {told}"));
        }
        world.pass(SETTLED_MS);
        if let Some(told) = differences(&shown_by(&world), &plain) {
            return Err(format!("save {save} shows, once it is published, {told}"));
        }
        assert_eq!(world.fs().drafts(), 0, "{}: something still waits", dance.name);
        let published: Vec<String> = world.drive.names(journal::id::DirId::ROOT);
        assert!(published.iter().eq(plain.keys()), "{}: published {published:?}", dance.name);
        let newest = world.published(&dance.document).and_then(|bytes| version_of(&bytes));
        assert_eq!(newest, Some(save), "{}", dance.name);
        let versions = versions_of(&world, &dance.document);
        let [(_, bases)] = versions.get(before.len()..).unwrap_or_default() else {
            let shown = versions_shown(&world, dance);
            return Err(format!("save {save} made {} versions: {shown:?}", versions.len()));
        };
        if *bases != [before.last().unwrap().0] {
            return Err(format!("the history of the document is cut at save {save}"));
        }
        allowed.extend(published);
    }
    let shown = versions_shown(&world, dance)?;
    if !shown.is_sorted() {
        return Err(format!("an older version came back: {shown:?}"));
    }
    let roots = world.drive.roots();
    let strange: BTreeSet<_> =
        roots.iter().flat_map(BTreeMap::keys).filter(|name| !allowed.contains(*name)).collect();
    if strange.is_empty() { Ok(()) } else { Err(format!("published on the way: {strange:?}")) }
}

#[test]
fn every_recorded_save_is_one_version_without_gap_whatever_its_pace() {
    let dances = Dance::load_all(Path::new(RECORDED)).unwrap();
    assert!(dances.len() >= 20, "only {} dances", dances.len());
    let mut failed = Vec::new();
    for dance in &dances {
        for pace in [Pace::Breathless, Pace::Recorded, Pace::Even(dance.pause_max)] {
            if let Err(told) = danced(dance, pace) {
                failed.push(format!("{}, {pace:?}: {told}", dance.name));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn a_crash_in_the_middle_of_a_save_leaves_a_whole_version_in_sight() {
    let mut failed = BTreeSet::new();
    for dance in Dance::load_all(Path::new(RECORDED)).unwrap() {
        for stop in 0..=dance.len() {
            let (mut world, _twin) = with_document(&dance);
            let floor = Floor { world: &world, pace: Pace::Recorded };
            dance.save_up_to(&floor, 1, stop).unwrap();
            world.crash();
            world.pass(SETTLED_MS);
            let shown = shown_by(&world);
            // Of what is written in place there is what was synced or closed; the rest of it is in the history.
            let found = match dance.is_in_place() {
                true => shown.contains_key(&dance.document),
                false => shown.values().any(|(bytes, ..)| version_of(bytes).is_some()),
            };
            let part = |name: &String, bytes: &[u8]| {
                *name == dance.document && !dance.is_in_place() && version_of(bytes).is_none()
            };
            if !found || shown.iter().any(|(name, (bytes, ..))| part(name, bytes)) {
                failed.insert(format!("{}, stopped before call {stop}", dance.name));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn an_unfinished_file_is_never_published_however_long_it_takes() {
    let world = World::new();
    world.save("a.txt", b"version 0 end");
    world.pass(3_000);
    world.rename("a.txt", "a.txt~");
    let handle = world.create("a.txt");
    world.write(handle, 0, b"version 1");
    world.pass(7_000);
    assert_eq!(world.published("a.txt").unwrap(), b"version 0 end");
    world.write(handle, 9, b" end");
    world.close(handle);
    world.pass(3_000);
    assert_eq!(world.published("a.txt").unwrap(), b"version 1 end");
    assert_eq!(world.published("a.txt~").unwrap(), b"version 0 end");
}

#[test]
fn an_fsync_in_the_middle_of_a_save_publishes_no_part_of_it() {
    let world = World::new();
    world.save("a.txt", b"version 0 end");
    world.pass(100_000);
    let handle = world.open("a.txt", OFlags::WRONLY | OFlags::TRUNC);
    world.write(handle, 0, b"version 1");
    world.fs().fsync(handle).unwrap();
    world.pass(3_000);
    assert_eq!(world.published("a.txt").unwrap(), b"version 0 end");
    world.write(handle, 9, b" end");
    world.close(handle);
    world.pass(100);
    assert_eq!(world.published("a.txt").unwrap(), b"version 1 end");
}

#[test]
fn a_deleted_file_goes_after_its_wait_and_takes_its_base_along() {
    let world = World::new();
    world.save("x", b"1");
    world.pass(3_000);
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
fn a_log_kept_open_for_ten_minutes_is_published_every_half_minute() {
    let world = World::new();
    world.save("log", b"");
    world.pass(100_000);
    let handle = world.open("log", OFlags::WRONLY | OFlags::APPEND);
    let (mut written, mut batches) = (0, world.drive.batches().len());
    let before = batches;
    for second in 1..=600_u64 {
        world.write(handle, written, b"a line\n");
        written += 7;
        world.pass(1_000);
        if second % 5 == 0 {
            world.fs().fsync(handle).unwrap();
        }
        batches = world.drive.batches().len();
        let published = world.published("log").unwrap().len() as u64;
        assert!(published + 36 * 7 >= written, "{published} of {written} bytes are published");
    }
    assert!(batches - before <= 20, "{} versions of a log", batches - before);
    world.close(handle);
    world.pass(100);
    assert_eq!(world.published("log").unwrap(), b"a line\n".repeat(600));
    assert_eq!(world.drive.batches().len(), batches + 1);
}

/// The contents of a name's versions, oldest first.
fn contents_of(world: &World, name: &str) -> Vec<Vec<u8>> {
    let ops = world.drive.batches().into_iter().flatten();
    let files = ops.filter_map(|op| match op {
        Op::Put { name: n, value: Value::File(file), .. } if n.as_str() == name => {
            Some(world.bytes_of(file.content))
        }
        _ => None,
    });
    files.collect()
}

/// A process that is not [`ME`].
const ANOTHER: Caller = Caller { tid: u32::MAX - 1, ..ME };

#[test]
fn what_one_process_saved_is_a_version_before_another_replaces_it() {
    type Replace = fn(&World, Caller);
    let by_rename: Replace = |world, caller| {
        world.save("new", b"second");
        let (from, to) = ((ROOT, &b"new"[..]), (ROOT, &b"x"[..]));
        let mode = vfs::fs::RenameMode::Replace;
        let refused = world.fs().rename(caller, from, to, mode, Wait::Never);
        if refused.is_err() {
            world.fs().rename(caller, from, to, mode, Wait::Allowed).unwrap();
        }
    };
    let by_writing_anew: Replace = |world, caller| {
        let flags = (OFlags::WRONLY | OFlags::TRUNC).bits() as i32;
        let handle =
            world.fs().open(caller, world.ino("x").unwrap(), flags, Wait::Allowed).unwrap().handle;
        world.write(handle, 0, b"second");
        world.close(handle);
    };
    let by_cutting: Replace = |world, caller| {
        let cut = SetAttr { len: Some(0), ..SetAttr::default() };
        world.fs().setattr(caller, world.ino("x").unwrap(), None, cut).unwrap();
        let flags = OFlags::WRONLY.bits() as i32;
        let handle =
            world.fs().open(caller, world.ino("x").unwrap(), flags, Wait::Allowed).unwrap().handle;
        world.write(handle, 0, b"second");
        world.close(handle);
    };
    for (way, replace) in
        [("rename", by_rename), ("open", by_writing_anew), ("truncate", by_cutting)]
    {
        for (caller, kept) in [(ME, 1), (ANOTHER, 2)] {
            let world = World::new();
            world.save("x", b"first");
            replace(&world, caller);
            world.pass(5_000);
            let all = [b"first".to_vec(), b"second".to_vec()];
            assert_eq!(contents_of(&world, "x"), all[2 - kept..], "by {way}, {caller:?}");
        }
    }
}

#[test]
fn a_question_in_the_middle_of_a_save_makes_no_version_of_a_part() {
    let world = World::new();
    world.save("s.blend", b"old");
    world.save("open", b"old");
    world.pass(3_000);
    world.save("closed", b"closed");
    world.save("s.blend@", b"new");
    world.rename("s.blend", "s.blend1");
    let open = world.open("open", OFlags::WRONLY | OFlags::TRUNC);
    world.write(open, 0, b"a pa");
    world.fs().seal_settled().unwrap();
    assert_eq!(world.published("closed").unwrap(), b"closed", "a finished save is not told");
    assert_eq!(world.published("s.blend").unwrap(), b"old", "the moment of a rename is told");
    assert_eq!(world.published("open").unwrap(), b"old", "a part is told");
    world.write(open, 4, b"rt");
    world.close(open);
    world.rename("s.blend@", "s.blend");
    world.fs().seal_settled().unwrap();
    assert_eq!(world.published("s.blend").unwrap(), b"new");
    assert_eq!(world.published("s.blend1").unwrap(), b"old");
    assert_eq!(world.published("open").unwrap(), b"a part");
}

#[test]
fn what_another_process_replaces_in_the_middle_of_a_save_makes_no_gap() {
    let world = World::new();
    world.save("s.blend", b"old");
    world.pass(3_000);
    world.save("s.blend@", b"new");
    world.rename("s.blend", "s.blend1");
    // The document is missing at this moment, and a backup program writes over what it is tied to.
    let flags = (OFlags::WRONLY | OFlags::TRUNC).bits() as i32;
    let backup = world.ino("s.blend1").unwrap();
    let handle = world.fs().open(ANOTHER, backup, flags, Wait::Allowed).unwrap().handle;
    world.write(handle, 0, b"other");
    world.close(handle);
    world.rename("s.blend@", "s.blend");
    world.pass(5_000);
    assert!(world.drive.roots().iter().all(|root| root.contains_key("s.blend")), "a gap");
    assert_eq!(world.published("s.blend").unwrap(), b"new");
    assert_eq!(world.published("s.blend1").unwrap(), b"other");
}

#[test]
fn what_another_process_writes_over_moves_or_removes_before_it_is_published_is_kept() {
    let overwrite = |world: &World, name: &str| {
        let ino = world.ino(name).unwrap();
        let flags = OFlags::RDWR.bits() as i32;
        let handle = world.fs().open(ANOTHER, ino, flags, Wait::Allowed).unwrap().handle;
        world.write(handle, 0, b"SECOND");
        world.close(handle);
    };
    let cut = |world: &World, name: &str| {
        let ino = world.ino(name).unwrap();
        let flags = OFlags::RDWR.bits() as i32;
        let handle = world.fs().open(ANOTHER, ino, flags, Wait::Allowed).unwrap().handle;
        let len = SetAttr { len: Some(0), ..SetAttr::default() };
        world.fs().setattr(ANOTHER, ino, Some(handle), len).unwrap();
        world.write(handle, 0, b"SECOND");
        world.close(handle);
    };
    let remove = |world: &World, name: &str| {
        world.fs().unlink(ANOTHER, ROOT, name.as_bytes(), Wait::Allowed).unwrap();
    };
    let moved = |world: &World, name: &str| {
        world.rename(name, "there");
        let ino = world.ino("there").unwrap();
        let flags = (OFlags::WRONLY | OFlags::TRUNC).bits() as i32;
        let handle = world.fs().open(ANOTHER, ino, flags, Wait::Allowed).unwrap().handle;
        world.write(handle, 0, b"SECOND");
        world.close(handle);
    };
    type Way<'a> = (&'a str, &'a dyn Fn(&World, &str), &'a str);
    let ways: [Way<'_>; 4] = [
        ("in place", &overwrite, "x"),
        ("cut", &cut, "x"),
        ("removed", &remove, "x"),
        ("moved", &moved, "there"),
    ];
    for (way, change, name) in ways {
        for earlier in [None, Some(b"before")] {
            let world = World::new();
            if let Some(bytes) = earlier {
                world.save("x", bytes);
                world.pass(3_000);
            }
            world.save("x", b"first!");
            change(&world, "x");
            world.pass(5_000);
            let all = contents_of(&world, name);
            assert!(all.contains(&b"first!".to_vec()), "{way}, before {earlier:?}: {all:?}");
        }
    }
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
