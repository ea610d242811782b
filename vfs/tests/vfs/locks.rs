//! Locks and stale saves, below the kernel and without a network: who is refused, who is asked, what a save replaces.

use std::process::{Child, Command};

use journal::id::DirId;
use journal::name::Register;
use journal::op::Op;
use rustix::fs::OFlags;
use vfs::attr::{Caller, SetAttr};
use vfs::fs::{RenameMode, Wait, XattrMode};
use vfs::{FsError, Happening, Hold, Scope};

use crate::drive::locks::{Asked, ada};
use crate::drive::{ME, ROOT, World};
use crate::remote::{other_saves, version};

/// A process that lives until it is dropped.
struct Program(Child);

impl Program {
    fn start() -> Self {
        Self(Command::new("sleep").arg("600").spawn().unwrap())
    }

    /// One that is known as an editor.
    fn editor() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blender");
        std::os::unix::fs::symlink("/bin/sleep", &path).unwrap();
        Self(Command::new(path).arg("600").spawn().unwrap())
    }

    fn caller(&self) -> Caller {
        Caller { uid: 0, gid: 0, tid: self.0.id() }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn at(name: &str) -> Register {
    Register::new(DirId::ROOT, name.parse().unwrap())
}

fn name(of: &str) -> Scope {
    Scope::Name(at(of))
}

/// A drive with others in it, and a published file.
fn world(file: &str) -> World {
    let world = World::new();
    world.save(file, b"one");
    world.pass(100);
    world.drive.in_company();
    world
}

fn locked(result: Result<impl Sized, FsError>) -> bool {
    matches!(result, Err(FsError::Locked(by)) if by == "Ada")
}

/// Reads a file whole as a program.
fn load(world: &World, by: Caller, file: &str) {
    let handle = world.fs().open(by, world.ino(file).unwrap(), 0, Wait::Allowed).unwrap().handle;
    world.fs().read(handle, 0, 1 << 20, Wait::Allowed).unwrap();
    world.fs().release(handle).unwrap();
}

/// Writes a file anew in its place.
fn overwrite(world: &World, by: Caller, file: &str, data: &[u8]) {
    let flags = (OFlags::WRONLY | OFlags::TRUNC).bits() as i32;
    let ino = world.ino(file).unwrap();
    let handle = world.fs().open(by, ino, flags, Wait::Allowed).unwrap().handle;
    world.write(handle, 0, data);
    world.close(handle);
}

/// Writes beside a file and renames over it, as most editors do.
fn replace(world: &World, by: Caller, file: &str, data: &[u8]) {
    let flags = OFlags::WRONLY.bits() as i32;
    let temp = format!("{file}.tmp");
    let made = world.fs().create(by, ROOT, temp.as_bytes(), 0o644, flags, Wait::Allowed).unwrap();
    world.write(made.1.handle, 0, data);
    world.close(made.1.handle);
    let (from, to) = ((ROOT, temp.as_bytes()), (ROOT, file.as_bytes()));
    world.fs().rename(by, from, to, RenameMode::Replace, Wait::Allowed).unwrap();
}

fn bases(world: &World, file: &str) -> Vec<Vec<journal::id::VersionId>> {
    let log = world.drive.log().into_iter();
    let puts = log.filter_map(|(op, _)| match op {
        Op::Put { name, bases, .. } if name.as_str() == file => Some(bases),
        _ => None,
    });
    puts.collect()
}

#[test]
fn what_another_holds_is_refused_at_once_in_every_way_and_read_without_hindrance() {
    let world = world("x.blend");
    let fs = world.fs();
    let ino = world.ino("x.blend").unwrap();
    let before = fs.getattr(ino).unwrap();
    world.drive.others(|others| others.holds.insert(at("x.blend"), ada(Hold::Session)));
    for flags in [OFlags::WRONLY, OFlags::RDWR, OFlags::RDONLY | OFlags::TRUNC] {
        assert!(locked(fs.open(ME, ino, flags.bits() as i32, Wait::Never)), "{flags:?}");
    }
    assert!(locked(fs.access(ME, ino, 2)));
    fs.access(ME, ino, 4).unwrap();
    assert!(locked(fs.setattr(ME, ino, None, SetAttr { len: Some(0), ..SetAttr::default() })));
    assert!(locked(fs.unlink(ME, ROOT, b"x.blend", Wait::Never)));
    for temp in ["x.blend@", "~$x.blend", ".~lock.x.blend#"] {
        let flags = OFlags::WRONLY.bits() as i32;
        let made = fs.create(ME, ROOT, temp.as_bytes(), 0o644, flags, Wait::Never);
        assert!(locked(made.map(|_| ())), "{temp}");
        assert_eq!(world.ino(temp), None);
    }
    world.save("other", b"2");
    let rename = |from: &str, to: &str, mode| {
        fs.rename(ME, (ROOT, from.as_bytes()), (ROOT, to.as_bytes()), mode, Wait::Never)
    };
    assert!(locked(rename("other", "x.blend", RenameMode::Replace)));
    assert!(locked(rename("x.blend", "y.blend", RenameMode::Replace)));
    assert!(locked(rename("other", "x.blend", RenameMode::Exchange)));
    // Nothing has changed, mode bits least of all, and reading goes on.
    assert_eq!(fs.getattr(ino).unwrap(), before);
    assert_eq!(world.read("x.blend").unwrap(), b"one");
    assert_eq!(world.list(""), ["other", "x.blend"]);
    let told = world.drive.others(|others| others.told.clone());
    assert!(
        told.iter().all(|what| matches!(what, Happening::Refused(of, _) if *of == at("x.blend")))
    );
    // Nobody was asked: it was known.
    assert!(world.drive.others(|others| others.asked.is_empty()));
}

#[test]
fn an_advisory_lock_and_one_of_our_own_refuse_nobody() {
    let world = world("x");
    let advisory = vfs::Holder { refuses: false, ..ada(Hold::Checkout) };
    world.drive.others(|others| others.holds.insert(at("x"), advisory));
    overwrite(&world, ME, "x", b"two");
    let own = vfs::Holder { own: true, ..ada(Hold::Checkout) };
    world.drive.others(|others| others.holds.insert(at("x"), own));
    overwrite(&world, ME, "x", b"three");
    world.pass(100);
    assert_eq!(world.published("x").unwrap(), b"three");
    assert_eq!(world.drive.names(DirId::ROOT), ["x"]);
}

#[test]
fn others_are_asked_before_a_byte_is_written_and_once() {
    let world = world("x");
    let (fs, ino) = (world.fs(), world.ino("x").unwrap());
    let flags = OFlags::RDWR.bits() as i32;
    assert!(matches!(fs.open(ME, ino, flags, Wait::Never), Err(FsError::WouldWait)));
    assert!(world.drive.others(|others| others.asked.is_empty()));
    let handle = fs.open(ME, ino, flags, Wait::Allowed).unwrap().handle;
    world.write(handle, 0, b"two");
    // Held: no more questions.
    let again = fs.open(ME, ino, flags, Wait::Never).unwrap().handle;
    world.close(handle);
    world.close(again);
    replace(&world, ME, "x", b"three");
    assert_eq!(world.drive.others(|others| others.asked.clone()), [(name("x"), Asked::First)]);
    // New files need no lock; reading none either.
    world.save("new", b"1");
    world.read("x");
    assert_eq!(world.drive.others(|others| others.asked.len()), 1);
}

#[test]
fn whoever_is_told_no_by_the_others_has_changed_nothing() {
    let world = world("x");
    world.drive.others(|others| others.refused.insert(name("x"), ada(Hold::Session)));
    let (fs, ino) = (world.fs(), world.ino("x").unwrap());
    for flags in [OFlags::RDWR, OFlags::WRONLY | OFlags::TRUNC] {
        assert!(locked(fs.open(ME, ino, flags.bits() as i32, Wait::Allowed)));
    }
    assert!(locked(fs.setattr(ME, ino, None, SetAttr { len: Some(1), ..SetAttr::default() })));
    world.pass(5_000);
    assert_eq!(world.published("x").unwrap(), b"one");
    assert_eq!(world.drive.batches().len(), 1);
    // Nothing is held, so nothing is given back.
    fs.look_at_uses();
    assert!(world.drive.others(|others| others.given_back.is_empty()));
}

#[test]
fn a_name_that_goes_is_asked_for_meanwhile_unless_an_editor_has_it_open() {
    let world = world("x");
    world.fs().unlink(ME, ROOT, b"x", Wait::Never).unwrap();
    assert_eq!(world.drive.others(|others| others.asked.clone()), [(name("x"), Asked::Meanwhile)]);
    let world = self::world("y");
    world.drive.others(|others| others.holds.insert(at("y"), ada(Hold::Presence)));
    assert!(matches!(world.fs().unlink(ME, ROOT, b"y", Wait::Never), Err(FsError::WouldWait)));
    world.fs().unlink(ME, ROOT, b"y", Wait::Allowed).unwrap();
    assert_eq!(world.drive.others(|others| others.asked.clone()), [(name("y"), Asked::First)]);
}

#[test]
fn a_document_that_an_editor_has_saved_is_held_while_the_editor_lives() {
    let world = world("x.blend");
    let program = Program::editor();
    replace(&world, program.caller(), "x.blend", b"two");
    world.fs().look_at_uses();
    assert!(world.drive.others(|others| others.given_back.is_empty()), "it may save again");
    drop(program);
    world.fs().look_at_uses();
    assert_eq!(world.drive.others(|others| others.given_back.clone()), [name("x.blend")]);
}

#[test]
fn a_lock_is_held_while_a_handle_is_open_whoever_has_it_and_no_longer() {
    let world = world("x");
    let program = Program::start();
    overwrite(&world, program.caller(), "x", b"two");
    world.fs().look_at_uses();
    assert_eq!(world.drive.others(|others| others.given_back.clone()), [name("x")]);
    // A descriptor that was passed on keeps it.
    let program = Program::start();
    let flags = OFlags::RDWR.bits() as i32;
    let ino = world.ino("x").unwrap();
    let handle = world.fs().open(program.caller(), ino, flags, Wait::Allowed).unwrap().handle;
    drop(program);
    world.fs().look_at_uses();
    assert_eq!(world.drive.others(|others| others.given_back.len()), 1);
    world.write(handle, 0, b"passed on");
    world.close(handle);
    world.fs().look_at_uses();
    assert_eq!(world.drive.others(|others| others.given_back.len()), 2);
}

#[test]
fn a_burst_of_changes_asks_for_the_folder_and_names_again_where_that_is_refused() {
    let world = World::new();
    let files: Vec<String> = (0..40).map(|n| format!("f{n}")).collect();
    files.iter().for_each(|file| world.save(file, b"1"));
    world.pass(3_000);
    world.drive.in_company();
    files.iter().for_each(|file| overwrite(&world, ME, file, b"2"));
    let asked = world.drive.others(|others| others.asked.clone());
    assert_eq!(asked.len(), 9);
    assert_eq!(asked.last().unwrap().0, Scope::Below(DirId::ROOT));
    // It is not kept for longer than the burst lasts.
    world.clock.pass(3_000);
    world.fs().look_at_uses();
    assert!(world.drive.others(|others| others.given_back.contains(&Scope::Below(DirId::ROOT))));
    // Somebody works in there.
    world.drive.in_company();
    let below = Scope::Below(DirId::ROOT);
    world.drive.others(|others| others.refused.insert(below.clone(), ada(Hold::Session)));
    for file in files.iter().skip(8) {
        replace(&world, ME, file, b"3");
        overwrite(&world, ME, file, b"4");
    }
    let asked = world.drive.others(|others| others.asked.clone());
    assert_eq!(asked.iter().filter(|(scope, _)| *scope == below).count(), 1);
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
    world.save("big", &big);
    world.pass(3_000);
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
fn what_is_saved_under_a_lock_that_was_taken_away_stands_beside() {
    let world = world("x");
    let program = Program::start();
    let flags = OFlags::RDWR.bits() as i32;
    let ino = world.ino("x").unwrap();
    let handle = world.fs().open(program.caller(), ino, flags, Wait::Allowed).unwrap().handle;
    world.write(handle, 0, b"mine");
    world.fs().lock_broken(&at("x"));
    world.close(handle);
    world.pass(3_000);
    assert_eq!(world.published("x").unwrap(), b"one");
    assert_eq!(world.published("x (conflict 1)").unwrap(), b"mine");
    // Suspended meanwhile: somebody else has the lock when it writes.
    let world = self::world("y");
    let ino = world.ino("y").unwrap();
    let handle = world.fs().open(program.caller(), ino, flags, Wait::Allowed).unwrap().handle;
    world.drive.others(|others| others.holds.insert(at("y"), ada(Hold::Session)));
    for data in [b"mine", b"more"] {
        world.write(handle, 0, data);
        world.fs().flush(handle).unwrap();
        world.pass(3_000);
    }
    assert_eq!(world.published("y").unwrap(), b"one");
    assert_eq!(world.published("y (conflict 1)").unwrap(), b"more");
    assert_eq!(world.drive.names(DirId::ROOT), ["y", "y (conflict 1)"]);
}

#[test]
fn who_holds_a_file_is_read_beside_it_and_in_its_attribute() {
    let world = world("x.blend");
    let ino = world.ino("x.blend").unwrap();
    let lock = b"user.atelier.lock";
    assert_eq!(world.read(".x.blend.lock"), None);
    assert!(matches!(world.fs().getxattr(ino, lock), Err(FsError::NoAttribute)));
    let holder = vfs::Holder { unreachable: 2, ..ada(Hold::Checkout) };
    world.drive.others(|others| others.holds.insert(at("x.blend"), holder));
    let text = String::from_utf8(world.read(".x.blend.lock").unwrap()).unwrap();
    let wanted = [
        "holder: Ada\n",
        "kind: checked out\n",
        "since: 1970-01-01T00:00:00Z\n",
        "sure: 2 members could not be asked\n",
    ];
    assert!(wanted.iter().all(|line| text.contains(line)), "{text}");
    assert_eq!(world.fs().getxattr(ino, lock).unwrap(), text.as_bytes());
    assert_eq!(world.list(""), ["x.blend"], "never listed");
    // Another text is another file, so that nothing old is read from a cache.
    let before = world.ino(".x.blend.lock").unwrap();
    world.drive.others(|others| others.holds.insert(at("x.blend"), ada(Hold::Session)));
    assert_ne!(world.ino(".x.blend.lock").unwrap(), before);
    let flags = OFlags::WRONLY.bits() as i32;
    let ino = world.ino(".x.blend.lock").unwrap();
    assert!(matches!(world.fs().open(ME, ino, flags, Wait::Allowed), Err(FsError::ReadOnly)));
    // A real file of such a name wins.
    world.save(".x.blend.lock", b"mine");
    assert_eq!(world.read(".x.blend.lock").unwrap(), b"mine");
}

#[test]
fn the_attribute_takes_a_checkout_and_gives_it_back_and_nothing_else() {
    let world = world("x");
    let (fs, ino, lock) = (world.fs(), world.ino("x").unwrap(), b"user.atelier.lock");
    let set = |value: &[u8]| fs.setxattr(ino, lock, value, XattrMode::Any);
    for rubbish in [&b""[..], b"HELD", b"held\n", b"yes", &[0xff; 4096]] {
        assert!(matches!(set(rubbish), Err(FsError::Invalid)));
    }
    assert!(matches!(fs.removexattr(ino, lock), Err(FsError::NoAttribute)));
    set(b"held").unwrap();
    assert!(world.drive.others(|others| others.holds.contains_key(&at("x"))));
    fs.removexattr(ino, lock).unwrap();
    assert!(world.drive.others(|others| others.holds.is_empty()));
    world.drive.others(|others| others.holds.insert(at("x"), ada(Hold::Checkout)));
    assert!(locked(set(b"held")));
    assert!(locked(fs.removexattr(ino, lock)), "given back by somebody else");
    world.mkdir("d");
    let dir = world.ino("d").unwrap();
    assert!(matches!(fs.setxattr(dir, lock, b"held", XattrMode::Any), Err(FsError::NotSupported)));
    assert!(matches!(
        fs.setxattr(ino, b"user.atelier.state", b"x", XattrMode::Any),
        Err(FsError::ReadOnly)
    ));
}
