//! An ordinary mount, used by ordinary programs that do not know what it is.
//!
//! One device, no peers: what must hold here is what any local file system holds. Every test ends by mounting again
//! and looking once more, so that nothing stands only in a cache.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, FallocateFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;
use tests::harness::device::{Device, text};
use tests::harness::program::{self, command, shell};
use tests::harness::site::Site;
use tests::harness::skip::Need;
use tests::harness::tree::{self, Tree};
use tests::needs;

fn one_mount() -> Result<(Site, Device)> {
    let site = Site::new()?;
    let mut device = Device::local(&site, "Ann")?;
    device.mount()?;
    Ok((site, device))
}

/// Unmounts, mounts, and insists that everything is as it was.
fn same_after_remount(device: &mut Device) -> Result<()> {
    let before = Tree::read(&device.mount_dir())?;
    device.unmount()?;
    device.mount()?;
    let differences = before.differences(&Tree::read(&device.mount_dir())?);
    ensure!(differences.is_empty(), "before and after a new mount: {differences}");
    Ok(())
}

#[test]
fn cp_rsync_and_tar_make_identical_trees() -> Result<()> {
    needs!(Need::Fuse, Need::Program("rsync"), Need::Program("tar"));
    let (site, mut device) = one_mount()?;
    let source = site.dir("source")?;
    tree::plant_awkward(&source, 20 << 20)?;
    let wanted = Tree::read(&source)?;
    for (name, program) in [
        ("cp", "mkdir \"$2/cp\"; cp -a \"$1/.\" \"$2/cp\""),
        ("rsync", "rsync -aX \"$1/\" \"$2/rsync/\""),
        (
            "tar",
            "mkdir \"$2/tar\"; tar -C \"$1\" --xattrs -cf - . | tar -C \"$2/tar\" --xattrs -xpf -",
        ),
    ] {
        let mount = device.mount_dir();
        let mut bash = command("bash", ["-euo", "pipefail", "-c", program, "bash", text(&source)?]);
        program::ok_within(bash.arg(&mount), Duration::from_secs(180))?;
        let differences = wanted.differences(&Tree::read(&device.path(name))?);
        ensure!(differences.is_empty(), "copied by {name}: {differences}");
    }
    same_after_remount(&mut device)?;
    let mut again = command("rsync", ["-aic", "--no-o", "--no-g", "--omit-dir-times"]);
    let changes =
        program::ok(again.arg(format!("{}/", source.display())).arg(device.path("rsync")))?;
    ensure!(changes.is_empty(), "a second rsync found work to do:\n{changes}");
    shell(&device.mount_dir(), "rm -rf cp rsync tar; [ -z \"$(ls -A)\" ]")?;
    same_after_remount(&mut device)
}

#[test]
fn git_commits_packs_and_checks() -> Result<()> {
    needs!(Need::Fuse, Need::Program("git"));
    let (_site, mut device) = one_mount()?;
    let script = r#"
        export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
        git init -q work && cd work
        for d in 1 2 3 4 5; do mkdir d$d; for f in $(seq 40); do echo "$d $f" > d$d/f$f; done; done
        git add . && git commit -qm one
        for f in $(seq 40); do echo more >> d1/f$f; done
        git commit -qam two && git mv d2 d9 && git commit -qm three
        git gc -q --aggressive --prune=now && git fsck --strict --full
        git clone -q . ../copy && cd ../copy && git fsck --strict && [ -z "$(git status --porcelain)" ]
        git log --oneline | wc -l
    "#;
    let out = shell(&device.mount_dir(), script)?;
    ensure!(out.trim().ends_with('3'), "the clone has other commits: {out}");
    same_after_remount(&mut device)?;
    shell(
        &device.path("work"),
        "git fsck --strict --full && [ -z \"$(git status --porcelain)\" ]",
    )?;
    Ok(())
}

#[test]
fn sqlite_keeps_its_database_whole_in_both_journal_modes() -> Result<()> {
    needs!(Need::Fuse, Need::Program("sqlite3"));
    let (_site, mut device) = one_mount()?;
    for mode in ["wal", "delete"] {
        let file = format!("{mode}.db");
        let create =
            format!("PRAGMA journal_mode={mode}; CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB);");
        let out = program::ok(
            command("sqlite3", ["-bail", &file, &create]).current_dir(device.mount_dir()),
        )?;
        ensure!(out.trim() == mode, "journal mode is {out}");
        // Two writers at once: locks and shared memory have to work.
        let insert = "for i in $(seq 30); do echo \"BEGIN IMMEDIATE; INSERT INTO t(b) SELECT randomblob(900) FROM \
                      generate_series(1,20); COMMIT;\"; done | sqlite3 -bail -cmd '.timeout 60000'";
        shell(&device.mount_dir(), &format!("{insert} {file} & {insert} {file}; wait $!"))?;
        let check = "PRAGMA integrity_check; SELECT count(*) FROM t;";
        let out = program::ok(
            command("sqlite3", ["-bail", &file, check]).current_dir(device.mount_dir()),
        )?;
        ensure!(out == "ok\n1200\n", "{mode}: {out}");
        let spoil = "UPDATE t SET b = randomblob(300) WHERE a % 3 = 0; DELETE FROM t WHERE a % 5 = 0; VACUUM;";
        program::ok(command("sqlite3", ["-bail", &file, spoil]).current_dir(device.mount_dir()))?;
    }
    device.unmount()?;
    device.mount()?;
    for mode in ["wal", "delete"] {
        let check = "PRAGMA integrity_check; SELECT count(*) FROM t;";
        let file = format!("{mode}.db");
        let out = program::ok(
            command("sqlite3", ["-bail", &file, check]).current_dir(device.mount_dir()),
        )?;
        ensure!(out == "ok\n960\n", "{mode} after a new mount: {out}");
    }
    Ok(())
}

/// A small generator of numbers that depends on its seed only.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }
}

#[test]
fn random_writes_reads_truncations_and_reopens_agree_with_a_plain_buffer() -> Result<()> {
    needs!(Need::Fuse);
    let (_site, mut device) = one_mount()?;
    const LEN_MAX: usize = 3 << 20;
    for seed in 1..=3_u64 {
        let mut numbers = Numbers(seed);
        let path = device.path(&format!("random {seed}"));
        let open =
            || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut model: Vec<u8> = Vec::new();
        let mut file = open()?;
        for step in 0..1200 {
            let at = numbers.below(LEN_MAX);
            let len = [1, 100, 4096, 70_000, 200_000][numbers.below(5)].min(LEN_MAX - at);
            match numbers.below(20) {
                0 => {
                    file.set_len(at as u64)?;
                    model.resize(at, 0);
                }
                1 => file.sync_all()?,
                2 => file = open()?,
                3..=9 => {
                    let mut found = vec![0; len];
                    let count = read_full(&file, &mut found, at)?;
                    let expected = model.get(at..(at + len).min(model.len())).unwrap_or_default();
                    ensure!(
                        found.get(..count) == Some(expected),
                        "seed {seed} step {step}: wrong bytes at {at}+{len}"
                    );
                }
                _ => {
                    let bytes = tree::random_bytes(len, seed * 10_000 + step);
                    file.write_all_at(&bytes, at as u64)?;
                    model.resize(model.len().max(at + len), 0);
                    if let Some(place) = model.get_mut(at..at + len) {
                        place.copy_from_slice(&bytes);
                    }
                }
            }
            ensure!(
                file.metadata()?.len() == model.len() as u64,
                "seed {seed} step {step}: wrong length"
            );
        }
        drop(file);
        ensure!(fs::read(&path)? == model, "seed {seed}: wrong bytes at the end");
        device.unmount()?;
        device.mount()?;
        ensure!(fs::read(&path)? == model, "seed {seed}: wrong bytes after a new mount");
    }
    Ok(())
}

fn read_full(file: &File, buf: &mut [u8], at: usize) -> Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, (at + done) as u64)? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done)
}

#[test]
fn shared_mappings_are_coherent_with_reads_and_survive() -> Result<()> {
    needs!(Need::Fuse, Need::Program("python3"));
    let (_site, mut device) = one_mount()?;
    let script = r#"
import mmap, os
with open("mapped", "wb") as f: f.write(b"a" * 1_000_000)
f = open("mapped", "r+b")
m = mmap.mmap(f.fileno(), 0)
assert m[:4] == b"aaaa"
m[0:5] = b"first"; m[700_000:700_004] = b"late"
m.flush()
assert os.pread(f.fileno(), 5, 0) == b"first"
os.pwrite(f.fileno(), b"written", 300_000)
assert m[300_000:300_007] == b"written"
m[999_990:1_000_000] = b"tail......"
m.close(); f.close()
expected = bytearray(b"a" * 1_000_000)
expected[0:5] = b"first"; expected[700_000:700_004] = b"late"
expected[300_000:300_007] = b"written"; expected[999_990:] = b"tail......"
assert open("mapped", "rb").read() == expected
# A private mapping changes nothing.
with open("mapped", "r+b") as f:
    p = mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE); p[0:5] = b"XXXXX"; p.close()
assert open("mapped", "rb").read() == expected
"#;
    program::ok(command("python3", ["-c", script]).current_dir(device.mount_dir()))?;
    same_after_remount(&mut device)?;
    let bytes = fs::read(device.path("mapped"))?;
    ensure!(
        bytes.starts_with(b"firsta") && bytes.ends_with(b"tail......"),
        "mapped writes are lost"
    );
    Ok(())
}

#[test]
fn an_unlinked_open_file_lives_until_it_is_closed() -> Result<()> {
    needs!(Need::Fuse);
    let (_site, mut device) = one_mount()?;
    let path = device.path("going");
    fs::write(&path, b"still here")?;
    let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
    fs::remove_file(&path)?;
    ensure!(!path.exists());
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    ensure!(text == "still here");
    file.write_all(b" and growing")?;
    file.seek(SeekFrom::Start(0))?;
    text.clear();
    file.read_to_string(&mut text)?;
    ensure!(text == "still here and growing");
    ensure!(file.metadata()?.nlink() == 0, "an unlinked file still counts a link");
    fs::write(&path, b"another of the same name")?;
    drop(file);
    ensure!(fs::read(&path)? == b"another of the same name");
    // Replaced by a rename while open.
    let old = File::open(&path)?;
    fs::write(device.path("new"), b"replacement")?;
    fs::rename(device.path("new"), &path)?;
    let mut seen = [0; 7];
    old.read_exact_at(&mut seen, 0)?;
    ensure!(&seen == b"another" && fs::read(&path)? == b"replacement");
    drop(old);
    same_after_remount(&mut device)
}

#[test]
fn renames_replace_refuse_and_exchange() -> Result<()> {
    needs!(Need::Fuse);
    let (_site, mut device) = one_mount()?;
    let at = |name: &str| device.path(name);
    fs::write(at("a"), b"A")?;
    fs::write(at("b"), b"B")?;
    let no_replace = |from: &str, to: &str| {
        rustix::fs::renameat_with(CWD, at(from), CWD, at(to), RenameFlags::NOREPLACE)
    };
    ensure!(no_replace("a", "b") == Err(Errno::EXIST));
    ensure!(fs::read(at("a"))? == b"A" && fs::read(at("b"))? == b"B");
    no_replace("a", "c")?;
    ensure!(fs::read(at("c"))? == b"A" && !at("a").exists());
    rustix::fs::renameat_with(CWD, at("b"), CWD, at("c"), RenameFlags::EXCHANGE)?;
    ensure!(fs::read(at("b"))? == b"A" && fs::read(at("c"))? == b"B");
    fs::create_dir_all(at("dir/sub"))?;
    fs::write(at("dir/sub/file"), b"inside")?;
    rustix::fs::renameat_with(CWD, at("dir"), CWD, at("c"), RenameFlags::EXCHANGE)?;
    ensure!(fs::read(at("c/sub/file"))? == b"inside" && fs::read(at("dir"))? == b"B");
    fs::rename(at("c"), at("moved"))?;
    ensure!(fs::read(at("moved/sub/file"))? == b"inside");
    ensure!(
        kind_of(fs::rename(at("moved"), at("moved/sub/below"))) == Some(ErrorKind::InvalidInput)
    );
    fs::create_dir(at("empty"))?;
    fs::rename(at("moved"), at("empty")).context("a directory over an empty one")?;
    fs::create_dir(at("full"))?;
    fs::write(at("full/x"), b"x")?;
    ensure!(kind_of(fs::rename(at("empty"), at("full"))) == Some(ErrorKind::DirectoryNotEmpty));
    ensure!(kind_of(fs::rename(at("b"), at("full"))) == Some(ErrorKind::IsADirectory));
    ensure!(kind_of(fs::rename(at("full"), at("b"))) == Some(ErrorKind::NotADirectory));
    ensure!(kind_of(fs::rename(at("nothing"), at("b"))) == Some(ErrorKind::NotFound));
    fs::rename(at("b"), at("b"))?;
    ensure!(fs::read(at("b"))? == b"A");
    same_after_remount(&mut device)
}

fn kind_of<T>(result: std::io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn a_reader_never_misses_a_file_that_is_replaced() -> Result<()> {
    needs!(Need::Fuse);
    let (_site, mut device) = one_mount()?;
    let path = device.path("document");
    fs::write(&path, tree::random_bytes(100_000, 0))?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let reader = scope.spawn(|| -> Result<usize> {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) {
                let bytes = fs::read(&path).context("the file was missing")?;
                ensure!(bytes.len() == 100_000, "{} bytes instead of 100,000", bytes.len());
                rounds += 1;
            }
            Ok(rounds)
        });
        let written = (1..200).try_for_each(|round| -> Result<()> {
            let temp = device.path("document.tmp");
            fs::write(&temp, tree::random_bytes(100_000, round))?;
            Ok(fs::rename(&temp, &path)?)
        });
        done.store(true, Ordering::Relaxed);
        let rounds = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        written?;
        ensure!(rounds > 10, "the reader looked only {rounds} times");
        Ok(())
    })?;
    same_after_remount(&mut device)
}

#[test]
fn names_times_modes_and_links_are_kept() -> Result<()> {
    needs!(Need::Fuse);
    let (_site, mut device) = one_mount()?;
    let path = device.path("file");
    fs::write(&path, b"x")?;
    for mode in [0o600, 0o644, 0o755, 0o444, 0o000, 0o777] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        ensure!(fs::metadata(&path)?.mode() & 0o7777 == mode, "mode {mode:o} is not kept");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640))?;
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 987_654_321);
    OpenOptions::new().write(true).open(&path)?.set_modified(time)?;
    ensure!(fs::metadata(&path)?.modified()? == time, "the time is not kept");
    let before = SystemTime::now() - Duration::from_secs(5);
    OpenOptions::new().append(true).open(&path)?.write_all(b"y")?;
    ensure!(fs::metadata(&path)?.modified()? > before, "a write does not set the time");
    let target = "t".repeat(4000);
    symlink(&target, device.path("long link"))?;
    ensure!(fs::read_link(device.path("long link"))? == Path::new(&target));
    symlink("file", device.path("link"))?;
    ensure!(fs::read(device.path("link"))? == b"xy");
    ensure!(kind_of(symlink("file", device.path("link"))) == Some(ErrorKind::AlreadyExists));
    ensure!(kind_of(File::create_new(&path)) == Some(ErrorKind::AlreadyExists));
    ensure!(kind_of(fs::remove_dir(&path)) == Some(ErrorKind::NotADirectory));
    fs::create_dir(device.path("dir"))?;
    fs::write(device.path("dir/inside"), b"")?;
    ensure!(kind_of(fs::remove_dir(device.path("dir"))) == Some(ErrorKind::DirectoryNotEmpty));
    same_after_remount(&mut device)
}

#[test]
fn appends_truncations_holes_and_preallocation() -> Result<()> {
    needs!(Need::Fuse);
    let (_site, mut device) = one_mount()?;
    let path = device.path("log");
    let append = || OpenOptions::new().append(true).create(true).open(&path);
    let (mut one, mut two) = (append()?, append()?);
    for _ in 0..50 {
        one.write_all(b"1")?;
        two.write_all(b"2")?;
    }
    ensure!(fs::read(&path)? == b"12".repeat(50), "two appenders overwrite each other");
    File::create(&path)?.write_all(b"short")?;
    ensure!(fs::read(&path)? == b"short", "O_TRUNC leaves something behind");
    let sparse = device.path("sparse");
    let file = File::options().read(true).write(true).create_new(true).open(&sparse)?;
    file.write_all_at(b"end", 5 << 20)?;
    let zeros = fs::read(&sparse)?;
    ensure!(zeros.len() == (5 << 20) + 3 && zeros.iter().take(5 << 20).all(|byte| *byte == 0));
    file.set_len(1 << 20)?;
    file.set_len(2 << 20)?;
    ensure!(fs::read(&sparse)?.iter().all(|byte| *byte == 0), "truncated bytes come back");
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 3 << 20) {
        Ok(()) => ensure!(file.metadata()?.len() == 3 << 20),
        Err(Errno::NOTSUP) => {}
        Err(error) => return Err(error).context("fallocate"),
    }
    file.set_len(1 << 20)?;
    match rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)) {
        Ok(_) | Err(Errno::NXIO | Errno::INVAL) => {}
        Err(error) => return Err(error).context("look for data"),
    }
    drop((file, one, two));
    same_after_remount(&mut device)
}

#[test]
fn attributes_are_set_listed_and_removed() -> Result<()> {
    needs!(Need::Fuse);
    let (_site, mut device) = one_mount()?;
    let path = device.path("file");
    fs::write(&path, b"x")?;
    let none = XattrFlags::empty();
    rustix::fs::setxattr(&path, "user.one", b"1", none)?;
    rustix::fs::setxattr(&path, "user.two", &[7; 2000], none)?;
    ensure!(rustix::fs::setxattr(&path, "user.one", b"", XattrFlags::CREATE) == Err(Errno::EXIST));
    ensure!(
        rustix::fs::setxattr(&path, "user.none", b"", XattrFlags::REPLACE) == Err(Errno::NODATA)
    );
    let mut value = vec![0; 4096];
    ensure!(rustix::fs::getxattr(&path, "user.two", value.as_mut_slice())? == 2000);
    ensure!(rustix::fs::getxattr(&path, "user.two", &mut value[..10]) == Err(Errno::RANGE));
    rustix::fs::removexattr(&path, "user.one")?;
    ensure!(rustix::fs::removexattr(&path, "user.one") == Err(Errno::NODATA));
    let listed = rustix::fs::listxattr(&path, value.as_mut_slice())?;
    ensure!(
        value.get(..listed) == Some(b"user.two\0".as_slice()),
        "listed: {:?}",
        value.get(..listed)
    );
    let too_much = rustix::fs::setxattr(&path, "user.big", &[1; 65_000], none);
    ensure!(too_much.is_err(), "more than 64 KiB of attributes were taken");
    same_after_remount(&mut device)
}

#[test]
fn what_a_drive_cannot_hold_is_refused_with_its_own_error() -> Result<()> {
    needs!(Need::Fuse);
    use std::os::unix::ffi::OsStrExt;
    let (_site, mut device) = one_mount()?;
    fs::write(device.path("file"), b"x")?;
    let create = |name: &[u8]| {
        let made = File::create(device.mount_dir().join(std::ffi::OsStr::from_bytes(name)));
        made.err().and_then(|error| error.raw_os_error())
    };
    ensure!(create(b"not utf-8 \xff\xfe") == Some(Errno::ILSEQ.raw_os_error()));
    ensure!(create("n".repeat(256).as_bytes()) == Some(Errno::NAMETOOLONG.raw_os_error()));
    ensure!(create("n".repeat(255).as_bytes()).is_none());
    ensure!(create("é".repeat(127).as_bytes()).is_none(), "254 bytes of name");
    ensure!(create("é".repeat(128).as_bytes()) == Some(Errno::NAMETOOLONG.raw_os_error()));
    let link = fs::hard_link(device.path("file"), device.path("hard"));
    ensure!(link.err().and_then(|error| error.raw_os_error()) == Some(Errno::PERM.raw_os_error()));
    let fifo = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    ensure!(rustix::fs::mknodat(CWD, device.path("fifo"), fifo, mode, 0) == Err(Errno::PERM));
    let socket = std::os::unix::net::UnixListener::bind(device.path("s"));
    ensure!(
        socket.err().and_then(|error| error.raw_os_error()) == Some(Errno::PERM.raw_os_error())
    );
    same_after_remount(&mut device)?;
    ensure!(fs::read_dir(device.mount_dir())?.count() == 3, "a refused name left something behind");
    Ok(())
}

#[test]
fn a_directory_of_thousands_is_listed_once_each_and_moved_whole() -> Result<()> {
    needs!(Need::Fuse);
    const COUNT: usize = 3000;
    let (_site, mut device) = one_mount()?;
    fs::create_dir(device.path("many"))?;
    for number in 0..COUNT {
        fs::write(device.path(&format!("many/{number:05}")), number.to_string())?;
    }
    let listed = |dir: &str| -> Result<Vec<String>> {
        let entries = fs::read_dir(device.path(dir))?;
        let mut names: Vec<String> = entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        names.sort();
        Ok(names)
    };
    let expected: Vec<String> = (0..COUNT).map(|number| format!("{number:05}")).collect();
    ensure!(listed("many")? == expected, "the listing lacks names or has them twice");
    fs::rename(device.path("many"), device.path("moved"))?;
    ensure!(listed("moved")? == expected);
    for name in fs::read_dir(device.path("moved"))? {
        let path = name?.path();
        if path.to_string_lossy().ends_with(['1', '3', '5', '7', '9']) {
            fs::remove_file(path)?;
        }
    }
    ensure!(listed("moved")?.len() == COUNT / 2, "removing while listing missed some");
    same_after_remount(&mut device)
}

#[test]
fn locks_exclude_another_process_on_this_machine() -> Result<()> {
    needs!(Need::Fuse, Need::Program("flock"), Need::Program("python3"));
    let (_site, device) = one_mount()?;
    let script = r#"
        exec 9>locked; flock -n 9
        if flock -n locked true; then echo "flock does not exclude"; exit 1; fi
        flock -u 9; flock -n locked true
        python3 - <<'PY'
import fcntl, os, sys
f = open("locked", "r+b"); fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 100, 50)
pid = os.fork()
if pid == 0:
    g = open("locked", "r+b")
    fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)
    try: fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 60)
    except OSError: os._exit(0)
    os._exit(1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
PY
    "#;
    shell(&device.mount_dir(), script)?;
    Ok(())
}

#[test]
fn df_tells_the_true_free_space() -> Result<()> {
    needs!(Need::Fuse);
    let (site, device) = one_mount()?;
    let free = |path: &Path| -> Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail * stat.f_frsize)
    };
    let (inside, outside) = (free(&device.mount_dir())?, free(site.path())?);
    // A reserve is kept back, and other programs write meanwhile.
    let slack = 2 << 30;
    ensure!(
        inside <= outside + slack && outside <= inside + slack,
        "{inside} free inside, {outside} outside"
    );
    program::ok(command("df", ["-h"]).arg(device.mount_dir()))?;
    Ok(())
}

#[test]
fn copying_within_the_mount_and_streaming_through_it() -> Result<()> {
    needs!(Need::Fuse);
    let (site, mut device) = one_mount()?;
    let source = site.path().join("movie");
    tree::write_random(&source, 60 << 20, 3)?;
    let mut dd = Command::new("dd");
    dd.args(["bs=917", "iflag=fullblock", "status=none", "conv=fsync", "count=30000"]);
    dd.arg(format!("if={}", source.display()))
        .arg(format!("of={}", device.path("odd blocks").display()));
    program::ok_within(&mut dd, Duration::from_secs(120))?;
    ensure!(fs::metadata(device.path("odd blocks"))?.len() == 917 * 30_000);
    fs::copy(&source, device.path("movie"))?;
    fs::copy(device.path("movie"), device.path("copy"))?;
    let wanted = tree::hash_of(&source)?;
    ensure!(tree::hash_of(&device.path("movie"))? == wanted);
    ensure!(tree::hash_of(&device.path("copy"))? == wanted);
    program::ok(command("cmp", ["-n", "27510000"]).arg(&source).arg(device.path("odd blocks")))?;
    same_after_remount(&mut device)
}
