//! Snapshots and versions under their virtual names, below every kernel.

use journal::DirId;
use journal::op::{FileValue, Op, Timestamp, Value};
use rustix::fs::OFlags;
use vfs::FsError;
use vfs::attr::SetAttr;
use vfs::fs::{RenameMode, Wait, XattrMode};

use crate::drive::{ME, ROOT, World, far_file};

/// 2027-01-15T08:00:05Z, in milliseconds; the clock begins five seconds before.
const T: u64 = 1_800_000_005_000;

/// A file with three versions, two of them in one second, and a directory beside it.
fn world() -> World {
    let world = World::new();
    world.drive.set_time(T);
    world.mkdir("dir");
    world.save("dir/scene.blend", b"one");
    world.pass(3_000);
    world.drive.set_time(T + 500);
    world.save("dir/scene.blend", b"two!");
    world.pass(3_000);
    world.drive.snapshot("first cut");
    world.drive.set_time(T + 60_000);
    world.clock.pass(117_000);
    world.save("dir/scene.blend", b"three");
    world.save("dir/later", b"later");
    world.pass(3_000);
    world
}

const VERSIONS: [&str; 3] = [
    "2027-01-15T08.00.05Z scene.blend",
    "2027-01-15T08.00.05Z-2 scene.blend",
    "2027-01-15T08.01.05Z scene.blend",
];

#[test]
fn the_versions_of_a_file_are_files_in_a_folder_of_its_name() {
    let world = world();
    assert_eq!(world.list(".history"), ["dir"]);
    assert_eq!(world.list(".history/dir"), ["later", "scene.blend"]);
    let folder = ".history/dir/scene.blend";
    assert_eq!(world.list(folder), VERSIONS);
    for (name, bytes) in VERSIONS.iter().zip([&b"one"[..], b"two!", b"three"]) {
        let path = format!("{folder}/{name}");
        let attr = world.fs().getattr(world.ino(&path).unwrap()).unwrap();
        assert_eq!((attr.len, attr.mode, attr.nlink), (bytes.len() as u64, 0o644, 1));
        assert_eq!(world.read(&path).unwrap(), bytes);
        assert_eq!(world.read(&path).unwrap(), bytes, "it can be opened again");
    }
    assert_eq!(world.ino(&format!("{folder}/2027-01-15T08.00.06Z scene.blend")), None);
    assert_eq!(world.ino(".history/nothing"), None);
    // A new version is there as soon as it is published, and renames none.
    world.drive.set_time(T + 60_001);
    world.save("dir/scene.blend", b"four");
    world.pass(3_000);
    assert_eq!(world.list(folder).len(), 4);
    assert_eq!(world.read(&format!("{folder}/{}", VERSIONS[2])).unwrap(), b"three");
}

#[test]
fn what_was_removed_keeps_its_folder() {
    let world = world();
    world.unlink("dir/scene.blend");
    world.unlink("dir/later");
    world.pass(3_000);
    world.rmdir("dir").unwrap();
    world.pass(3_000);
    assert_eq!(world.list(""), Vec::<String>::new());
    assert_eq!(world.list(".history/dir/scene.blend"), VERSIONS);
}

#[test]
fn a_snapshot_and_every_way_to_write_a_time_lead_to_a_whole_tree() {
    let world = world();
    let names = ["first cut", "2027-01-15T08:00:05Z", "2027-01-15T08.00.59", "2027-01-15T08:01Z"];
    for name in names {
        let top = format!(".snapshots/{name}");
        assert_eq!(world.list(&top), ["dir"], "{name}");
        assert_eq!(world.list(&format!("{top}/dir")), ["scene.blend"], "{name}");
        assert_eq!(world.read(&format!("{top}/dir/scene.blend")).unwrap(), b"two!", "{name}");
    }
    let now = ".snapshots/2027-01-15T08:02:05";
    assert_eq!(world.list(&format!("{now}/dir")), ["later", "scene.blend"]);
    for name in ["2027-01-15T08:02:10Z", "2028-01-01", "2027-01-15T08:00:04Z", "x", "2026-02-30"] {
        assert_eq!(world.ino(&format!(".snapshots/{name}")), None, "{name}");
    }
    assert_eq!(world.list(".snapshots"), ["first cut"], "no hour has passed");
    world.clock.pass(2 * 86_400_000);
    let points = ["2027-01-16T00.00Z", "first cut"];
    assert_eq!(world.list(".snapshots"), points, "a point after which nothing came is not listed");
}

#[test]
fn numbers_follow_from_what_they_are_of_and_go_when_they_are_forgotten() {
    let world = world();
    let paths = [
        ".snapshots",
        ".snapshots/first cut",
        ".snapshots/first cut/dir",
        ".snapshots/first cut/dir/scene.blend",
        ".snapshots/2027-01-15T08:00:05Z",
        ".snapshots/2027-01-15T08:00:05Z/dir",
        ".snapshots/2027-01-15T08:00:05Z/dir/scene.blend",
        ".history",
        ".history/dir",
        ".history/dir/scene.blend",
        ".history/dir/scene.blend/2027-01-15T08.00.05Z scene.blend",
        "dir",
        "dir/scene.blend",
        "dir/later",
    ];
    let inos: Vec<u64> = paths.iter().map(|path| world.ino(path).unwrap()).collect();
    let mut distinct = inos.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), paths.len(), "{inos:?}");
    let again: Vec<u64> = paths.iter().map(|path| world.ino(path).unwrap()).collect();
    assert_eq!(again, inos);
    for ino in &inos {
        world.fs().forget(*ino, 1 << 20);
    }
    assert_eq!(world.fs().inodes(), 1, "the root alone");
    let anew: Vec<u64> = paths.iter().map(|path| world.ino(path).unwrap()).collect();
    assert_eq!(anew, inos);
}

#[test]
fn an_open_old_version_outlives_its_being_forgotten() {
    let world = world();
    let path = format!(".history/dir/scene.blend/{}", VERSIONS[0]);
    let ino = world.ino(&path).unwrap();
    let handle = world.open(&path, OFlags::RDONLY);
    world.fs().forget(ino, 1 << 20);
    assert_eq!(world.read_handle(handle), b"one");
    world.fs().release(handle).unwrap();
    assert!(world.fs().getattr(ino).is_err());
}

#[test]
fn every_kind_of_change_is_refused_as_on_a_read_only_file_system() {
    let world = world();
    let fs = world.fs();
    let folder = ".history/dir/scene.blend";
    let dirs = [".snapshots", ".snapshots/first cut/dir", ".history", ".history/dir", folder];
    let file = world.ino(&format!("{folder}/{}", VERSIONS[0])).unwrap();
    let real = world.ino("dir").unwrap();
    macro_rules! refused {
        ($($call:expr),+ $(,)?) => {$(
            assert!(matches!($call, Err(FsError::ReadOnly)), "{}", stringify!($call));
        )+};
    }
    for dir in dirs {
        let dir = world.ino(dir).unwrap();
        refused!(
            fs.create(ME, dir, b"new", 0o644, 0, Wait::Allowed),
            fs.mkdir(ME, dir, b"new", 0o755),
            fs.mknod(ME, dir, b"new", 0o100_644),
            fs.mknod(ME, dir, b"new", 0o010_644),
            fs.symlink(ME, dir, b"new", b"x"),
            fs.link(dir),
            fs.unlink(ME, dir, b"scene.blend", Wait::Allowed),
            fs.rmdir(ME, dir, b"dir"),
            fs.rename(ME, (dir, b"x"), (real, b"y"), RenameMode::Replace, Wait::Allowed),
            fs.rename(ME, (real, b"later"), (dir, b"y"), RenameMode::Replace, Wait::Allowed),
            fs.setattr(ME, dir, None, SetAttr { mode: Some(0o777), ..SetAttr::default() }),
            fs.setxattr(dir, b"user.x", b"x", XattrMode::Any),
            fs.access(ME, dir, 2),
        );
    }
    refused!(
        fs.open(ME, file, OFlags::RDWR.bits() as i32, Wait::Allowed),
        fs.open(ME, file, (OFlags::RDONLY | OFlags::TRUNC).bits() as i32, Wait::Allowed),
        fs.setattr(ME, file, None, SetAttr { len: Some(0), ..SetAttr::default() }),
        fs.setxattr(file, b"user.x", b"x", XattrMode::Any),
        fs.removexattr(file, b"user.x"),
        fs.create(ME, ROOT, b".snapshots", 0o644, 0, Wait::Allowed),
        fs.mkdir(ME, ROOT, b".history", 0o755),
        fs.rmdir(ME, ROOT, b".history"),
        fs.unlink(ME, ROOT, b".snapshots", Wait::Allowed),
        fs.rename(ME, (real, b"later"), (ROOT, b".history"), RenameMode::Replace, Wait::Allowed),
        fs.rename(ME, (ROOT, b".history"), (real, b"x"), RenameMode::Replace, Wait::Allowed),
    );
    // Elsewhere these are names like others.
    world.save("dir/.history", b"mine");
    assert_eq!(world.read("dir/.history").unwrap(), b"mine");
}

#[test]
fn virtual_names_are_listed_only_when_asked_for() {
    let world = world();
    assert_eq!(world.list(""), ["dir"]);
    let open = World::with(|config| config.show_virtual = true);
    assert_eq!(open.list(""), [".history", ".snapshots"]);
    let handle = open.fs().opendir(ME, ROOT).unwrap();
    let mut names = Vec::new();
    let took = open.fs().readdirplus(handle, 2, |entry, answer| {
        names.push((entry.name.to_string(), answer.attr.kind));
        true
    });
    took.unwrap();
    let dir = vfs::attr::Kind::Dir;
    assert_eq!(names, [(".history".to_owned(), dir), (".snapshots".to_owned(), dir)]);
}

#[test]
fn a_real_file_of_such_a_name_wins() {
    let world = World::with(|config| config.show_virtual = true);
    assert!(world.fs().lookup(ROOT, b".history").is_ok_and(|entry| !entry.lasting));
    let value = Value::File(FileValue {
        content: far_file(&world, b"real"),
        mode: 0o644,
        mtime: Timestamp::default(),
        xattrs: Default::default(),
        owner: None,
    });
    let name = journal::EntryName::new(".history").unwrap();
    world.drive.publish(vec![Op::Put { dir: DirId::ROOT, name, value, bases: vec![] }]);
    assert_eq!(world.read(".history").unwrap(), b"real");
    assert_eq!(world.list(""), [".history", ".snapshots"]);
    world.unlink(".history");
    world.pass(3_000);
    assert_eq!(
        world.list(".history"),
        [".history"],
        "the virtual one is back, with the file's past"
    );
}

#[test]
fn an_old_version_that_is_elsewhere_is_fetched_and_one_that_is_nowhere_fails() {
    let world = World::new();
    world.drive.set_time(T);
    let content = far_file(&world, b"from far away");
    let put = |content, bases: Vec<_>| Op::Put {
        dir: DirId::ROOT,
        name: journal::EntryName::new("x").unwrap(),
        value: Value::File(FileValue {
            content,
            mode: 0o600,
            mtime: Timestamp { secs: 77, nanos: 5 },
            xattrs: [(b"user.note".to_vec(), b"hi".to_vec())].into(),
            owner: None,
        }),
        bases,
    };
    let first = world.drive.publish(vec![put(content, vec![])]);
    world.drive.set_time(T + 1_000);
    world.drive.publish(vec![put(far_file(&world, b"newer"), first.clone())]);
    let path = ".history/x/2027-01-15T08.00.05Z x";
    let ino = world.ino(path).unwrap();
    let attr = world.fs().getattr(ino).unwrap();
    assert_eq!((attr.mode, attr.mtime), (0o600, Timestamp { secs: 77, nanos: 5 }));
    assert_eq!(world.fs().getxattr(ino, b"user.note").unwrap(), b"hi");
    assert_eq!(world.fs().getxattr(ino, b"user.atelier.state").unwrap(), b"past");
    let version = first[0].to_string().into_bytes();
    assert_eq!(world.fs().getxattr(ino, b"user.atelier.version").unwrap(), version);
    assert_eq!(world.fs().listxattr(ino).unwrap(), [b"user.note".to_vec()]);
    let handle = world.open(path, OFlags::RDONLY);
    assert!(matches!(world.fs().read(handle, 0, 100, Wait::Never), Err(FsError::WouldWait)));
    assert_eq!(world.fs().read(handle, 0, 100, Wait::Allowed).unwrap(), b"from far away");
    world.elsewhere.others.lock().unwrap().clear();
    let newest = ".history/x/2027-01-15T08.00.06Z x";
    let handle = world.open(newest, OFlags::RDONLY);
    assert!(matches!(world.fs().read(handle, 0, 100, Wait::Allowed), Err(FsError::Read(_))));
}

#[test]
fn a_file_says_how_it_stands() {
    let world = world();
    let ask = |path: &str, what: &str| {
        let name = format!("user.atelier.{what}").into_bytes();
        let value = world.fs().getxattr(world.ino(path).unwrap(), &name);
        value.map(|value| String::from_utf8(value).unwrap()).ok()
    };
    assert_eq!(ask("dir/later", "state").unwrap(), "official");
    let node = world.drive.at("dir/later").unwrap();
    assert_eq!(ask("dir/later", "version").unwrap(), node.version.to_string());
    assert_eq!(ask("dir/later", "conflict"), None);
    assert_eq!(ask("dir", "state"), None, "directories have none");
    world.drive.arrive(Some("later"));
    assert_eq!(ask("dir/later", "state").unwrap(), "arriving");
    world.drive.arrive(None);
    let Op::Put { dir, name, value, .. } = world
        .drive
        .batches()
        .concat()
        .into_iter()
        .find(|op| matches!(op, Op::Put { name, .. } if name.as_str() == "later"))
        .unwrap()
    else {
        unreachable!()
    };
    let Value::File(file) = value else { unreachable!() };
    let value = Value::File(FileValue { content: far_file(&world, b"theirs"), ..file });
    world.drive.publish(vec![Op::Put { dir, name, value, bases: vec![] }]);
    assert_eq!(ask("dir/later (conflict 1)", "state").unwrap(), "conflict");
    assert_eq!(ask("dir/later (conflict 1)", "conflict").unwrap(), "later by somebody");
    world.save("dir/later", b"again");
    assert_eq!(ask("dir/later", "state").unwrap(), "draft");
}
