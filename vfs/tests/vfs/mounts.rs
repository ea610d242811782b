//! Real mounts: the kernel between programs and the file system.
//!
//! Skipped, and said so, where this process may not mount.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use journal::id::DirId;
use rustix::fs::{FallocateFlags, RenameFlags, XattrFlags};
use vfs::mount::{MountOptions, Unmounted, is_mounted, mount};
use vfs::{Config, Fs, MountError, Mounted};

use crate::drive::World;

/// A clock that goes by itself.
struct Wall(Instant);

impl vfs::Clock for Wall {
    fn wall(&self) -> journal::op::Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        journal::op::Timestamp { secs: since.as_secs() as i64, nanos: since.subsec_nanos() }
    }

    fn monotonic_ms(&self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }
}

struct Mount {
    // Dropped in this order: nothing may be taken from under a mount.
    mounted: Mounted,
    fs: Arc<Fs>,
    point: tempfile::TempDir,
    world: World,
}

impl Mount {
    fn path(&self, name: &str) -> PathBuf {
        self.point.path().join(name)
    }

    /// Waits until others see what `seen` asks for.
    fn until(&self, seen: impl Fn(&World) -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !seen(&self.world) {
            assert!(Instant::now() < end, "not published in time");
            std::thread::yield_now();
        }
    }
}

/// A mounted drive, or nothing where that is not possible.
fn mounted() -> Option<Mount> {
    mounted_with(|_| {})
}

fn mounted_with(change: impl FnOnce(&mut Config)) -> Option<Mount> {
    let needs = vfs::mount::Requirements::look();
    if !(needs.device && needs.privileged) {
        eprintln!("SKIPPED: this process may not mount: {needs:?}");
        return None;
    }
    let mut world = World::new();
    drop(world.fs.take());
    let mut config = Config::new(world.spool().to_path_buf(), 0, 0);
    config.reserve_bytes = 0;
    change(&mut config);
    let clock = Arc::new(Wall(Instant::now()));
    let (drive, store, source) =
        (world.drive.clone(), world.store.clone(), world.elsewhere.clone());
    let fs = Arc::new(
        Fs::open(config, drive.clone(), drive.clone(), store, source, clock, drive).unwrap(),
    );
    let point = tempfile::tempdir().unwrap();
    let mounted = mount(fs.clone(), point.path(), &MountOptions::default()).unwrap();
    Some(Mount { world, fs, point, mounted })
}

fn entries(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn programs_find_an_ordinary_directory_tree() {
    let Some(m) = mounted() else { return };
    let file = m.path("a.txt");
    fs::write(&file, b"hello").unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"hello");
    OpenOptions::new().append(true).open(&file).unwrap().write_all(b" world").unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"hello world");
    File::options().write(true).open(&file).unwrap().set_len(4).unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"hell");
    fs::create_dir_all(m.path("d/e/f")).unwrap();
    fs::rename(&file, m.path("d/e/f/b.txt")).unwrap();
    fs::rename(m.path("d/e"), m.path("g")).unwrap();
    assert_eq!(fs::read(m.path("g/f/b.txt")).unwrap(), b"hell");
    symlink("g/f/b.txt", m.path("link")).unwrap();
    assert_eq!(fs::read(m.path("link")).unwrap(), b"hell");
    assert_eq!(fs::read_link(m.path("link")).unwrap(), Path::new("g/f/b.txt"));
    fs::set_permissions(m.path("g/f/b.txt"), fs::Permissions::from_mode(0o751)).unwrap();
    assert_eq!(fs::metadata(m.path("g/f/b.txt")).unwrap().mode() & 0o7777, 0o751);
    assert!(fs::remove_dir(m.path("g")).is_err());
    let linked = fs::hard_link(m.path("g/f/b.txt"), m.path("hard")).unwrap_err();
    assert_eq!(linked.raw_os_error(), Some(rustix::io::Errno::PERM.raw_os_error()));
    assert_eq!(entries(m.point.path()), ["d", "g", "link"]);
    m.until(|world| world.published("g/f/b.txt").is_some_and(|data| data == b"hell"));
    fs::remove_dir_all(m.path("g")).unwrap();
    fs::remove_file(m.path("link")).unwrap();
    fs::remove_dir(m.path("d")).unwrap();
    assert!(entries(m.point.path()).is_empty());
    m.until(|world| world.drive.names(DirId::ROOT).is_empty());
}

#[test]
fn mapped_pages_are_read_and_written_back() {
    let Some(m) = mounted() else { return };
    let path = m.path("mapped");
    fs::write(&path, vec![b'a'; 100_000]).unwrap();
    // No mapping from here without unsafe code, so a program that maps is asked: dd does not, python does.
    let script = "import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),0)\nassert m[99999]==97\nm[5000:5003]=b'xyz'\nm.close()\nf.close()\n";
    let ran = std::process::Command::new("python3").arg("-c").arg(script).arg(&path).status();
    match ran {
        Ok(status) => assert!(status.success()),
        Err(error) => {
            eprintln!("SKIPPED: no python3 to map with: {error}");
            return;
        }
    }
    let mut want = vec![b'a'; 100_000];
    want[5000..5003].copy_from_slice(b"xyz");
    assert!(fs::read(&path).unwrap() == want);
    m.until(|world| world.published("mapped").is_some_and(|data| data == want));
}

#[test]
fn large_files_come_back_as_written() {
    let Some(m) = mounted() else { return };
    let data: Vec<u8> =
        (0..12_000_000u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u8).collect();
    let path = m.path("big");
    let mut file = OpenOptions::new().create_new(true).read(true).write(true).open(&path).unwrap();
    file.write_all(&data).unwrap();
    file.sync_all().unwrap();
    file.write_all_at(b"patched", 6_000_000).unwrap();
    drop(file);
    let mut want = data;
    want[6_000_000..6_000_007].copy_from_slice(b"patched");
    let read_back = |path: &Path| {
        let mut file = OpenOptions::new().read(true).open(path).unwrap();
        let mut data = Vec::new();
        file.read_to_end(&mut data).unwrap();
        data
    };
    assert!(read_back(&path) == want);
    // Without the kernel's cache.
    let direct = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::DIRECT.bits() as i32)
        .open(&path);
    let mut file = direct.unwrap();
    let mut buf = vec![0; 4096];
    file.seek(SeekFrom::Start(5_996_544)).unwrap();
    file.read_exact(&mut buf).unwrap();
    assert!(buf == want[5_996_544..6_000_640]);
    m.until(|world| world.published("big").is_some_and(|data| data == want));
}

#[test]
fn the_rarer_calls_work_too() {
    let Some(m) = mounted() else { return };
    fs::write(m.path("a"), b"A").unwrap();
    fs::write(m.path("b"), b"B").unwrap();
    let dir = File::open(m.point.path()).unwrap();
    let rename =
        |from: &str, to: &str, flags| rustix::fs::renameat_with(&dir, from, &dir, to, flags);
    assert_eq!(rename("a", "b", RenameFlags::NOREPLACE), Err(rustix::io::Errno::EXIST));
    rename("a", "b", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(
        (fs::read(m.path("a")).unwrap(), fs::read(m.path("b")).unwrap()),
        (b"B".to_vec(), b"A".to_vec())
    );
    let mut open = OpenOptions::new().read(true).write(true).open(m.path("a")).unwrap();
    fs::remove_file(m.path("a")).unwrap();
    open.write_all(b"still here").unwrap();
    assert_eq!(open.metadata().unwrap().nlink(), 0);
    open.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still here");
    let b = m.path("b");
    rustix::fs::setxattr(&b, "user.note", b"hi", XattrFlags::empty()).unwrap();
    let mut buf = [0u8; 16];
    assert_eq!(rustix::fs::getxattr(&b, "user.note", &mut buf), Ok(2));
    assert_eq!(
        rustix::fs::setxattr(&b, "trusted.note", b"x", XattrFlags::empty()),
        Err(rustix::io::Errno::OPNOTSUPP)
    );
    assert_eq!(rustix::fs::listxattr(&b, &mut buf), Ok(10));
    let file = OpenOptions::new().read(true).write(true).open(&b).unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 10_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 10_000);
    rustix::fs::fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, 1)
        .unwrap();
    assert_eq!(fs::read(&b).unwrap()[0], 0);
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let other = File::open(&b).unwrap();
    assert!(
        rustix::fs::flock(&other, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err()
    );
    let time = std::time::SystemTime::UNIX_EPOCH - Duration::from_millis(1_500);
    file.set_times(fs::FileTimes::new().set_modified(time).set_accessed(time)).unwrap();
    assert_eq!(fs::metadata(&b).unwrap().modified().unwrap(), time);
    let stat = rustix::fs::statvfs(m.point.path()).unwrap();
    assert!(stat.f_blocks > 0 && stat.f_bavail <= stat.f_blocks);
    let long = fs::write(m.path(&"x".repeat(256)), b"").unwrap_err();
    assert_eq!(long.raw_os_error(), Some(rustix::io::Errno::NAMETOOLONG.raw_os_error()));
    fs::File::open(m.point.path()).unwrap().sync_all().unwrap();
}

#[test]
fn a_directory_of_ten_thousand_is_listed_whole() {
    let Some(m) = mounted() else { return };
    fs::create_dir(m.path("many")).unwrap();
    for i in 0..10_000 {
        File::create(m.path(&format!("many/{i}"))).unwrap();
    }
    assert_eq!(entries(&m.path("many")).len(), 10_000);
    m.fs.seal_all().unwrap();
    assert_eq!(m.fs.drafts(), 0);
    assert_eq!(entries(&m.path("many")).len(), 10_000);
}

#[test]
fn what_others_change_is_seen_through_the_kernel() {
    let Some(m) = mounted() else { return };
    fs::write(m.path("f"), b"ours").unwrap();
    m.fs.seal_all().unwrap();
    assert_eq!(fs::read(m.path("f")).unwrap(), b"ours");
    let mut old = File::open(m.path("f")).unwrap();
    let node = m.world.drive.at("f").unwrap();
    let mut writer = m.world.store.writer(None);
    writer.write(b"theirs, longer").unwrap();
    let content = writer.finish().unwrap();
    let value = journal::op::FileValue {
        content: journal::op::Content { id: content.id, len: content.len },
        mode: 0o600,
        mtime: Default::default(),
        xattrs: Default::default(),
        owner: None,
    };
    let register = node.register.clone();
    m.world.drive.publish(vec![journal::op::Op::Put {
        dir: register.dir,
        name: register.name.clone(),
        value: journal::op::Value::File(value),
        bases: node.merged,
    }]);
    m.fs.remote_changed(&[register]);
    let end = Instant::now() + Duration::from_secs(10);
    while fs::read(m.path("f")).unwrap() != b"theirs, longer" {
        assert!(Instant::now() < end, "the kernel still shows the old file");
    }
    let mut text = String::new();
    old.read_to_string(&mut text).unwrap();
    assert_eq!(text, "ours");
}

#[test]
fn whoever_unmounts_ends_it() {
    let Some(m) = mounted() else { return };
    fs::write(m.path("f"), b"1").unwrap();
    assert!(is_mounted(m.point.path()));
    assert!(matches!(
        mount(m.fs.clone(), m.point.path(), &MountOptions::default()),
        Err(MountError::AlreadyMounted { .. })
    ));
    assert!(!vfs::mount::clean_stale(m.point.path()).unwrap());
    // As `umount` does.
    let end = Instant::now() + Duration::from_secs(10);
    while let Err(error) =
        rustix::mount::unmount(m.point.path(), rustix::mount::UnmountFlags::empty())
    {
        assert!(error == rustix::io::Errno::BUSY && Instant::now() < end, "{error}");
    }
    m.mounted.wait();
    assert!(!is_mounted(m.point.path()));
    assert_eq!(m.mounted.unmount().unwrap(), Unmounted::Clean);
    m.fs.seal_all().unwrap();
    assert_eq!(m.world.published("f").unwrap(), b"1");
    // And again on the same place.
    let again = mount(m.fs.clone(), m.point.path(), &MountOptions::default()).unwrap();
    assert_eq!(fs::read(m.path("f")).unwrap(), b"1");
    assert_eq!(again.unmount().unwrap(), Unmounted::Clean);
}

#[test]
fn a_mount_in_use_is_detached_and_ends_with_its_last_user() {
    let Some(m) = mounted() else { return };
    fs::write(m.path("f"), b"in use").unwrap();
    let mut open = File::open(m.path("f")).unwrap();
    assert_eq!(m.mounted.unmount().unwrap(), Unmounted::Detached);
    assert!(!is_mounted(m.point.path()));
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "in use");
    drop(open);
    assert!(m.mounted.wait_for(Duration::from_secs(10)));
}

#[test]
fn bad_mount_points_are_told_apart() {
    let world = World::new();
    let World { fs, .. } = world;
    let fs = Arc::new(fs.unwrap());
    let dir = tempfile::tempdir().unwrap();
    let try_at = |at: &Path| mount(fs.clone(), at, &MountOptions::default()).err();
    assert!(matches!(try_at(&dir.path().join("none")), Some(MountError::Missing { .. })));
    fs::write(dir.path().join("file"), b"").unwrap();
    assert!(matches!(try_at(&dir.path().join("file")), Some(MountError::NotDirectory { .. })));
    assert!(matches!(try_at(dir.path()), Some(MountError::NotEmpty { .. })));
    assert!(matches!(try_at(Path::new("/proc")), Some(MountError::AlreadyMounted { .. })));
}

/// Everything below a directory: path to bytes, or nothing for a directory.
fn tree(at: &Path, prefix: &str, into: &mut std::collections::BTreeMap<String, Option<Vec<u8>>>) {
    for name in entries(at) {
        let (path, shown) = (at.join(&name), format!("{prefix}{name}"));
        if path.is_dir() {
            into.insert(shown.clone(), None);
            tree(&path, &format!("{shown}/"), into);
        } else {
            into.insert(shown, Some(fs::read(&path).unwrap()));
        }
    }
}

#[test]
fn many_programs_at_once_leave_what_they_see() {
    let Some(m) = mounted() else { return };
    let root = m.point.path();
    std::thread::scope(|scope| {
        for program in 0..6u64 {
            scope.spawn(move || {
                let mut seed = program + 1;
                let mut random = |below: u64| {
                    seed = seed
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    (seed >> 33) % below
                };
                for step in 0..250u64 {
                    let (dir, other) = (
                        root.join(format!("d{}", random(4))),
                        root.join(format!("d{}", random(4))),
                    );
                    let file = dir.join(format!("f{}", random(6)));
                    // Others do the same at the same time, so any of it may fail; none of it may hang.
                    match random(10) {
                        0 => drop(fs::create_dir(&dir)),
                        1 => drop(fs::rename(&file, other.join(format!("f{}", random(6))))),
                        2 => drop(fs::remove_file(&file)),
                        3 => drop(fs::rename(&dir, &other)),
                        4 => drop(fs::remove_dir(&dir)),
                        5 => drop(fs::read(&file)),
                        6 => {
                            if let Ok(mut file) = OpenOptions::new().append(true).open(&file) {
                                let _ = file
                                    .write_all(&[step as u8; 3000])
                                    .and_then(|()| file.sync_all());
                            }
                        }
                        7 => drop(
                            OpenOptions::new()
                                .write(true)
                                .open(&file)
                                .and_then(|f| f.set_len(random(5000))),
                        ),
                        8 => drop(fs::read_dir(&dir).map(Iterator::count)),
                        _ => {
                            let _ = fs::create_dir(&dir);
                            let _ = fs::write(&file, vec![step as u8; random(20_000) as usize]);
                        }
                    }
                }
            });
        }
    });
    // The kernel lets go of closed files a little later.
    m.until(|_| m.fs.open_files() == 0);
    m.fs.seal_all().unwrap();
    assert_eq!(m.fs.drafts(), 0);
    let mut seen = std::collections::BTreeMap::new();
    tree(root, "", &mut seen);
    let published = seen.iter().map(|(path, bytes)| match bytes {
        Some(_) => (path.clone(), Some(m.world.published(path).unwrap())),
        None => (path.clone(), None),
    });
    assert!(
        published.collect::<std::collections::BTreeMap<_, _>>() == seen,
        "others see something else"
    );
    let conflicts = seen.keys().filter(|path| path.contains("conflict")).count();
    assert_eq!(conflicts, 0, "one device alone made a conflict");
}

#[test]
fn what_nobody_uses_is_not_held() {
    let Some(m) = mounted() else { return };
    for round in 0..200 {
        let dir = m.path(&format!("d{}", round % 7));
        let _ = fs::create_dir(&dir);
        let file = dir.join(format!("f{round}"));
        fs::write(&file, vec![1; 10_000]).unwrap();
        let mut open = OpenOptions::new().read(true).write(true).open(&file).unwrap();
        open.write_all(b"in place").unwrap();
        match round % 5 {
            0 => fs::remove_file(&file).unwrap(),
            1 => fs::rename(&file, m.path(&format!("moved{round}"))).unwrap(),
            2 => fs::write(dir.join("f0"), b"another").unwrap(),
            3 => symlink("f0", dir.join(format!("l{round}"))).unwrap(),
            _ => fs::rename(&dir, m.path("away"))
                .and_then(|()| fs::rename(m.path("away"), &dir))
                .unwrap(),
        }
        open.sync_all().unwrap();
        assert!(entries(&dir).len() < 1000);
    }
    m.fs.seal_all().unwrap();
    // The kernel forgets what it may when a mount's options are set anew.
    let flags = rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV;
    if let Err(error) = rustix::mount::mount_remount(m.point.path(), flags, "") {
        eprintln!("SKIPPED: this process may not mount anew: {error}");
        return;
    }
    let overlays = || {
        let names = entries(m.world.spool());
        names.into_iter().filter(|name| name.starts_with("overlay")).collect::<Vec<_>>()
    };
    let end = Instant::now() + Duration::from_secs(20);
    while m.fs.inodes() > 1 || m.fs.open_files() > 0 || !overlays().is_empty() {
        assert!(
            Instant::now() < end,
            "{} inodes, {} open files, {:?}",
            m.fs.inodes(),
            m.fs.open_files(),
            overlays()
        );
        std::thread::yield_now();
    }
}

#[test]
fn the_kernel_is_asked_to_forget_what_it_has_known_longest() {
    const KNOWN_MAX: usize = 500;
    const FILES: usize = 3_000;
    let Some(m) = mounted_with(|config| config.known_max = KNOWN_MAX) else { return };
    let (dir, held, link) = (m.path("d"), m.path("d/held"), m.path("d/link"));
    fs::create_dir(&dir).unwrap();
    fs::write(&held, "still here").unwrap();
    symlink("held", &link).unwrap();
    let mut open = File::open(&held).unwrap();
    for number in 0..FILES {
        fs::write(dir.join(format!("f{number}")), number.to_string()).unwrap();
    }
    m.fs.seal_all().unwrap();
    // Whoever walks through makes the kernel learn them all once more.
    for number in 0..FILES {
        let text = fs::read_to_string(dir.join(format!("f{number}"))).unwrap();
        assert_eq!(text, number.to_string());
    }
    let end = Instant::now() + Duration::from_secs(20);
    // One more name learnt each time, so that what is in flight is not all there is.
    while m.fs.inodes() > KNOWN_MAX + KNOWN_MAX / 10 {
        assert!(Instant::now() < end, "{} inodes are known", m.fs.inodes());
        let _ = fs::metadata(dir.join(format!("f{}", end.elapsed().as_nanos() % 7)));
        assert_eq!(entries(&dir).len(), FILES + 2);
    }
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still here");
    assert_eq!(fs::read_to_string(&link).unwrap(), "still here");
    assert_eq!(fs::metadata(&held).unwrap().ino(), open.metadata().unwrap().ino());
}
