//! Tests of the data directory, its stores and its mount points.

use std::os::unix::fs::symlink;

use journal::id::DeviceId;

use super::*;
use crate::report::Code;

fn id(n: u8) -> DriveId {
    DriveId::from_bytes([n; 32])
}

fn describe(n: u8, name: &str, mount: &Path) -> Description {
    let device = (DeviceId::from_bytes([9; 32]), "anna");
    Description::new((id(n), name), device, &[5; store::NONCE_LEN], mount)
}

struct World {
    _dir: tempfile::TempDir,
    root: PathBuf,
    data: DataDir,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let data = DataDir::locate(Some(&root.join("data"))).unwrap();
    World { _dir: dir, root, data }
}

impl World {
    fn make(&self, n: u8, name: &str, mount: &str) -> Store {
        let mut store = Store::begin(&self.data).unwrap();
        store.complete(describe(n, name, &self.root.join(mount))).unwrap();
        store
    }

    fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.data.root().join(path)).unwrap().permissions().mode() & 0o777
    }

    fn names(&self) -> Vec<String> {
        let dir = self.data.drives_dir();
        let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
        names.map(|n| n.into_string().unwrap()).collect()
    }
}

#[test]
fn a_store_has_its_name_only_when_it_is_whole() {
    let world = world();
    let mut store = Store::begin(&world.data).unwrap();
    fs::write(store.dir().join("journal"), "x").unwrap();
    assert_eq!(world.data.drive_ids().unwrap(), [], "nobody sees a store being made");
    assert!(store.description().is_none());
    store.complete(describe(1, "film", &world.root.join("mnt"))).unwrap();
    assert_eq!(store.dir(), world.data.store_dir(&id(1)));
    assert!(store.dir().join("journal").exists());
    assert_eq!(world.data.drive_ids().unwrap(), [id(1)]);
    assert_eq!(world.data.mounts().unwrap().get(&world.root.join("mnt")), Some(id(1)));
    let found = world.data.drive(&id(1)).unwrap().unwrap();
    assert_eq!((found.drive.name.as_str(), found.join_nonce().unwrap()), ("film", [5; 32]));
}

#[test]
fn a_store_given_up_leaves_nothing() {
    let world = world();
    let store = Store::begin(&world.data).unwrap();
    assert_eq!(world.names().len(), 1);
    drop(store);
    assert_eq!(world.names(), Vec::<String>::new());
}

#[test]
fn a_crash_while_a_store_is_made_leaves_no_half_drive() {
    let world = world();
    let store = Store::begin(&world.data).unwrap();
    let left = store.dir().to_owned();
    // What a killed process leaves: the files, not the lock.
    std::mem::forget(store);
    assert_eq!(world.data.drive_ids().unwrap(), []);
    // Still held (by us): nobody takes it away, however old it is.
    let old = std::time::SystemTime::now() - ABANDONED_AFTER * 2;
    File::open(&left).unwrap().set_modified(old).unwrap();
    drop(Store::begin(&world.data).unwrap());
    assert!(left.exists());
    // A dead one's goes with the next beginning, once it is old enough.
    let dead = world.data.drives_dir().join(".new-dead");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("half"), "x").unwrap();
    drop(Store::begin(&world.data).unwrap());
    assert!(dead.exists(), "it may be just being made");
    open_lock(&dead.join(store::LOCK_NAME)).unwrap();
    File::open(&dead).unwrap().set_modified(old).unwrap();
    drop(Store::begin(&world.data).unwrap());
    assert!(!dead.exists());
}

#[test]
fn the_same_drive_twice_is_refused_and_the_first_is_untouched() {
    let world = world();
    let first = world.make(1, "film", "mnt");
    fs::write(first.dir().join("precious"), "x").unwrap();
    let mut second = Store::begin(&world.data).unwrap();
    let failure = second.complete(describe(1, "film", &world.root.join("other"))).unwrap_err();
    assert_eq!(failure.code, Code::AlreadyMember);
    drop(second);
    assert!(first.dir().join("precious").exists());
    assert_eq!(world.names().len(), 1);
    assert_eq!(world.data.mounts().unwrap().get(&world.root.join("other")), None);
}

#[test]
fn a_store_is_held_by_one_process_at_a_time() {
    let world = world();
    let store = world.make(1, "film", "mnt");
    assert!(store::is_locked(store.dir()));
    let failure = Store::open(&world.data, &id(1)).unwrap_err();
    assert_eq!(failure.code, Code::StoreInUse);
    let dir = store.dir().to_owned();
    drop(store);
    assert!(!store::is_locked(&dir));
    assert!(Store::open(&world.data, &id(1)).is_ok());
}

#[test]
fn nobody_else_can_look_in() {
    let world = world();
    let _store = world.make(1, "film", "mnt");
    let store = format!("drives/{}", id(1));
    assert_eq!((world.mode(""), world.mode("drives"), world.mode(&store)), (0o700, 0o700, 0o700));
    for file in ["mounts.json", "lock", &format!("{store}/drive.json"), &format!("{store}/lock")] {
        assert_eq!(world.mode(file), 0o600, "{file}");
    }
    // Opened up by somebody, closed again by the next start.
    fs::set_permissions(world.data.root(), fs::Permissions::from_mode(0o755)).unwrap();
    world.data.prepare().unwrap();
    assert_eq!(world.mode(""), 0o700);
}

#[test]
fn a_directory_full_of_other_things_keeps_its_permissions() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("holiday.jpg"), "x").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    DataDir::locate(Some(dir.path())).unwrap().prepare().unwrap();
    let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(dir.path()), 0o755);
    assert_eq!(mode(&dir.path().join("drives")), 0o700);
}

#[test]
fn unusable_data_directories_have_their_own_errors() {
    let world = world();
    fs::write(world.root.join("file"), "x").unwrap();
    let prepare = |p: &Path| DataDir::locate(Some(p)).unwrap().prepare().map_err(|f| f.code);
    assert_eq!(prepare(&world.root.join("file")), Err(Code::Unreadable));
    // Where nobody can make a directory, not even root.
    assert_eq!(prepare(Path::new("/proc/atelier")), Err(Code::Unreadable));
}

#[test]
fn a_newer_drive_or_list_of_mounts_is_refused_untouched() {
    let world = world();
    drop(world.make(1, "film", "mnt"));
    for path in
        [world.data.store_dir(&id(1)).join("drive.json"), world.data.root().join("mounts.json")]
    {
        let before = fs::read_to_string(&path).unwrap();
        let newer = before.replace("\"format\": 1", "\"format\": 2");
        assert_ne!(before, newer);
        fs::write(&path, &newer).unwrap();
        let failure = world.data.find_drive(&world.root.join("mnt")).unwrap_err();
        assert_eq!(failure.code, Code::TooNew, "{}", path.display());
        assert_eq!(fs::read_to_string(&path).unwrap(), newer);
        fs::write(&path, &before).unwrap();
    }
}

#[test]
fn damaged_files_are_named_and_do_not_panic() {
    let world = world();
    drop(world.make(1, "film", "mnt"));
    let path = world.data.store_dir(&id(1)).join("drive.json");
    let good = fs::read_to_string(&path).unwrap();
    for bad in [
        String::new(),
        good.replace(&id(1).to_string(), "0011"),
        good.replace(&"05".repeat(32), "05"),
        good.replace("\"mount\"", "\"mint\""),
    ] {
        assert_ne!(bad, good);
        fs::write(&path, bad).unwrap();
        let failure = Store::open(&world.data, &id(1)).unwrap_err();
        assert_eq!(failure.code, Code::Corrupt);
    }
}

#[test]
fn a_mount_point_is_never_forgotten() {
    let world = world();
    drop(world.make(1, "film", "mnt"));
    let mut store = Store::open(&world.data, &id(1)).unwrap();
    store.update(|d| d.mount = world.root.join("moved")).unwrap();
    let mounts = world.data.mounts().unwrap();
    assert_eq!(mounts.get(&world.root.join("mnt")), Some(id(1)));
    assert_eq!(mounts.get(&world.root.join("moved")), Some(id(1)));
    // The old place says where the drive is now.
    let failure = world.data.find_drive(&world.root.join("mnt/x")).unwrap_err();
    assert_eq!(failure.code, Code::AlreadyMounted);
    assert!(failure.cause.contains("moved"));
    // The store is lost: both places still know that they were a drive's.
    let dir = store.dir().to_owned();
    drop(store);
    fs::remove_dir_all(dir).unwrap();
    for place in ["mnt", "moved/deep/file"] {
        let failure = world.data.find_drive(&world.root.join(place)).unwrap_err();
        assert_eq!(failure.code, Code::StoreGone, "{place}");
    }
}

#[test]
fn a_lost_list_of_mounts_is_made_up_for_by_the_stores() {
    let world = world();
    drop(world.make(1, "film", "mnt"));
    fs::remove_file(world.data.root().join("mounts.json")).unwrap();
    assert_eq!(world.data.mounts().unwrap().get(&world.root.join("mnt")), Some(id(1)));
}

#[test]
fn the_drive_of_any_path_below_its_mount_is_found() {
    let world = world();
    drop(world.make(1, "film", "work/film"));
    drop(world.make(2, "inner", "work/film/inner"));
    drop(world.make(3, "umlaut", "Ä b"));
    let root = &world.root;
    fs::create_dir_all(root.join("work")).unwrap();
    symlink("work", root.join("short")).unwrap();
    symlink(root.join("work/film"), root.join("to film")).unwrap();
    for (given, name, rest) in [
        ("work/film", "film", ""),
        ("work/film/", "film", ""),
        ("work/film/a/b.blend", "film", "a/b.blend"),
        ("work/film/a/../b", "film", "b"),
        ("work//film/./x", "film", "x"),
        ("work/film/inner/x", "inner", "x"),
        ("work/film/inner/../x", "film", "x"),
        ("short/film/x", "film", "x"),
        ("to film/x", "film", "x"),
        ("Ä b/ö", "umlaut", "ö"),
    ] {
        let (drive, found) = world.data.find_drive(&root.join(given)).unwrap();
        assert_eq!((drive.drive.name.as_str(), found.to_str().unwrap()), (name, rest), "{given}");
    }
    for given in ["work", "work/filmy", "work/film/../other", "/", "nothing"] {
        let failure = world.data.find_drive(&root.join(given)).unwrap_err();
        assert_eq!(failure.code, Code::NotInDrive, "{given}");
    }
}

#[test]
fn changes_of_the_data_directory_take_turns() {
    let world = world();
    world.data.prepare().unwrap();
    let data = world.data.clone();
    let guard = data.guard().unwrap();
    let (tell, hear) = std::sync::mpsc::channel();
    let other = std::thread::spawn({
        let data = data.clone();
        let mount = world.root.join("b");
        move || {
            tell.send(()).unwrap();
            data.remember_mount(&mount, id(2)).unwrap();
        }
    });
    hear.recv_timeout(Duration::from_secs(20)).unwrap();
    // While we hold the guard the other waits; what we write is not lost to it.
    let mut mounts = Mounts::load(data.root()).unwrap();
    mounts.insert(&world.root.join("a"), id(1));
    mounts.save(data.root()).unwrap();
    drop(guard);
    other.join().unwrap();
    let mounts = data.mounts().unwrap();
    assert_eq!(mounts.get(&world.root.join("a")), Some(id(1)));
    assert_eq!(mounts.get(&world.root.join("b")), Some(id(2)));
}

#[test]
fn a_damaged_store_does_not_stand_in_the_way_of_the_others() {
    let world = world();
    drop(world.make(1, "film", "a"));
    drop(world.make(2, "song", "b"));
    fs::write(world.data.store_dir(&id(1)).join("drive.json"), "{").unwrap();
    let (drive, _) = world.data.find_drive(&world.root.join("b/x")).unwrap();
    assert_eq!(drive.drive.name, "song");
    let failure = world.data.find_drive(&world.root.join("a/x")).unwrap_err();
    assert_eq!(failure.code, Code::Corrupt, "and its own place is not taken for a free one");
}
