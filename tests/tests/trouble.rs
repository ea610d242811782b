//! Bad input and bad moments: names at their limits, others who rename and remove what is open here, full disks,
//! signals, absent peers, daemons that end while files are open.
//!
//! In every case: a clear error or the right result, within a bounded time, and no byte lost that was accepted. A byte
//! is accepted when the call that handed it over answered well, and survives a kill when an `fsync` did.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use tests::harness::device::{AGREE_BOUND, Device, agree, text};
use tests::harness::netns::Net;
use tests::harness::program::{self, command};
use tests::harness::site::Site;
use tests::harness::skip::Need;
use tests::harness::tree::{self, Tree};
use tests::harness::{process, wait};
use tests::needs;

const BOUND: Duration = Duration::from_secs(60);
/// A read that has to wait for other devices ends within 20 s; some more for a busy machine.
const EIO_BOUND: Duration = Duration::from_secs(40);

fn one(site: &Site) -> Result<Device> {
    let mut device = Device::local(site, "Ann")?;
    device.mount()?;
    Ok(device)
}

fn two(site: &Site) -> Result<(Device, Device)> {
    let ann = one(site)?;
    let mut bob = Device::local(site, "Bob")?;
    bob.join_drive_of(&ann)?;
    agree(&[&ann, &bob])?;
    Ok((ann, bob))
}

fn open_rw(path: &Path) -> Result<File> {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    opened.with_context(|| format!("open {}", path.display()))
}

#[test]
fn paths_longer_than_a_path_may_be_are_reached_step_by_step() -> Result<()> {
    needs!(Need::Fuse);
    const DEPTH: usize = 20;
    let site = Site::new()?;
    let mut ann = one(&site)?;
    let name = |level: usize| format!("{level:02}{}", "n".repeat(253));
    let dir_flags = OFlags::DIRECTORY | OFlags::RDONLY;
    let descend = |top: &str| -> Result<File> {
        let mut at = File::open(ann.mount_dir())?;
        for level in 0..DEPTH {
            let name = if level == 0 { top.to_owned() } else { name(level) };
            at = File::from(rustix::fs::openat(&at, &*name, dir_flags, Mode::empty())?);
        }
        Ok(at)
    };
    let mut at = File::open(ann.mount_dir())?;
    for level in 0..DEPTH {
        rustix::fs::mkdirat(&at, &*name(level), Mode::from_raw_mode(0o755))?;
        at = File::from(rustix::fs::openat(&at, &*name(level), dir_flags, Mode::empty())?);
    }
    let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
    let made = rustix::fs::openat(&at, "deep", create, Mode::from_raw_mode(0o644))?;
    File::from(made).write_all(b"down here")?;
    // As long as a path can be, and one byte longer.
    let inside = ann.mount_dir();
    let mut path = PathBuf::new();
    for level in 0..15 {
        path.push(name(level));
    }
    let left = 4095 - inside.as_os_str().len() - 1 - path.as_os_str().len() - 1;
    ensure!((1..=255).contains(&left), "{left} bytes left: the test's own path has an odd length");
    fs::write(inside.join(path.join("l".repeat(left))), b"4095")?;
    let too_long = File::open(inside.join(path.join("l".repeat(left + 1))));
    ensure!(
        too_long
            .is_err_and(|error| error.raw_os_error() == Some(Errno::NAMETOOLONG.raw_os_error()))
    );
    drop(at);

    fs::rename(ann.path(&name(0)), ann.path("top"))?;
    let read_deep = |dir: &File| -> Result<String> {
        let file = rustix::fs::openat(dir, "deep", OFlags::RDONLY, Mode::empty())?;
        Ok(std::io::read_to_string(File::from(file))?)
    };
    ensure!(read_deep(&descend("top")?)? == "down here");
    ann.unmount()?;
    ann.mount()?;
    let descend = |top: &str| -> Result<File> {
        let mut at = File::open(ann.mount_dir())?;
        for level in 0..DEPTH {
            let name = if level == 0 { top.to_owned() } else { name(level) };
            at = File::from(rustix::fs::openat(&at, &*name, dir_flags, Mode::empty())?);
        }
        Ok(at)
    };
    ensure!(read_deep(&descend("top")?)? == "down here");
    let mut long = PathBuf::from("top");
    for level in 1..15 {
        long.push(name(level));
    }
    ensure!(fs::read(inside.join(long.join("l".repeat(left))))? == b"4095");
    Ok(())
}

/// What both do at once is the point of some tests; elsewhere it is refused.
fn locks_refuse_nobody(owner: &Device) -> Result<()> {
    owner.cli(&["ls-locks", "--policy", "advisory"]).map(drop)
}

#[test]
fn a_conflict_beside_the_longest_name_has_a_name_that_works() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let (ann, bob) = two(&site)?;
    locks_refuse_nobody(&ann)?;
    for name in
        ["x".repeat(255), format!("{}.blend", "é".repeat(124)), format!(".{}", "y".repeat(254))]
    {
        fs::write(ann.path(&name), b"base")?;
        agree(&[&ann, &bob])?;
        // Bob's handle stays with what he opened; what Ann saves meanwhile is not his to replace.
        let open = open_rw(&bob.path(&name))?;
        fs::write(ann.path(&name), b"Ann's")?;
        agree(&[&ann, &bob])?;
        bob.wait_bytes(&name, b"Ann's")?;
        open.write_all_at(b"Bob's", 0)?;
        drop(open);
        agree(&[&ann, &bob])?;
        let copies: Vec<String> = fs::read_dir(ann.mount_dir())?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|shown| shown.contains("(conflict Bob "))
            .collect();
        let [copy] = copies.as_slice() else { anyhow::bail!("copies: {copies:?}") };
        ensure!(copy.len() <= 255, "{} bytes: {copy}", copy.len());
        for device in [&ann, &bob] {
            ensure!(fs::read(device.path(copy))? == b"Bob's");
            ensure!(fs::read(device.path(&name))? == b"Ann's");
        }
        fs::write(bob.path(copy), b"edited")?;
        agree(&[&ann, &bob])?;
        ensure!(fs::read(ann.path(copy))? == b"edited");
        fs::remove_file(ann.path(copy))?;
        fs::remove_file(ann.path(&name))?;
        agree(&[&ann, &bob])?;
        ensure!(fs::read_dir(bob.mount_dir())?.count() == 0);
    }
    Ok(())
}

#[test]
fn names_that_are_not_utf8_do_not_exist_and_cannot_be_made() -> Result<()> {
    needs!(Need::Fuse);
    use std::os::unix::ffi::OsStrExt;
    let site = Site::new()?;
    let ann = one(&site)?;
    fs::write(ann.path("file"), b"x")?;
    let odd = ann.mount_dir().join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    let raw = |result: std::io::Result<()>| result.err().and_then(|error| error.raw_os_error());
    let (absent, refused) = (Some(Errno::NOENT.raw_os_error()), Some(Errno::ILSEQ.raw_os_error()));
    ensure!(raw(fs::metadata(&odd).map(drop)) == absent, "it cannot exist, so it does not");
    ensure!(raw(File::open(&odd).map(drop)) == absent);
    ensure!(raw(fs::remove_file(&odd)) == absent && raw(fs::remove_dir(&odd)) == absent);
    ensure!(raw(fs::rename(&odd, ann.path("other"))) == absent);
    ensure!(raw(fs::write(&odd, b"x")) == refused, "it cannot be made");
    ensure!(raw(fs::create_dir(&odd)) == refused);
    ensure!(raw(std::os::unix::fs::symlink("file", &odd)) == refused);
    ensure!(raw(fs::rename(ann.path("file"), &odd)) == refused);
    ensure!(fs::read(ann.path("file"))? == b"x", "a refused rename took the file away");
    // A link may point anywhere: its target is bytes.
    std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(b"\xff"), ann.path("link"))?;
    ensure!(fs::read_link(ann.path("link"))?.as_os_str().as_bytes() == b"\xff");
    Ok(())
}

#[test]
fn what_is_open_here_and_removed_elsewhere_is_read_on_and_its_writes_are_kept() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let (ann, bob) = two(&site)?;
    locks_refuse_nobody(&ann)?;
    fs::create_dir(ann.path("project"))?;
    for name in ["project/read", "project/written", "replaced"] {
        fs::write(ann.path(name), tree::random_bytes(300_000, 1))?;
    }
    agree(&[&ann, &bob])?;
    let (read, written, replaced) = (
        File::open(ann.path("project/read"))?,
        open_rw(&ann.path("project/written"))?,
        open_rw(&ann.path("replaced"))?,
    );
    fs::remove_dir_all(bob.path("project"))?;
    fs::write(bob.path("replaced"), b"by Bob")?;
    agree(&[&ann, &bob])?;
    ann.wait_bytes("replaced", b"by Bob")?;
    ensure!(!ann.path("project/read").exists(), "Bob removed it");
    let mut bytes = vec![0; 300_000];
    read.read_exact_at(&mut bytes, 0)?;
    ensure!(bytes == tree::random_bytes(300_000, 1), "an open file lost its bytes");
    for file in [&written, &replaced] {
        file.write_all_at(b"by Ann", 200_000)?;
        file.sync_all()?;
    }
    drop((read, written, replaced));
    agree(&[&ann, &bob])?;
    let mut wanted = bytes;
    wanted.splice(200_000..200_006, *b"by Ann");
    // An edit beats a removal that had not seen it: the file is back, and the directory with it.
    let [here, there] = [Tree::read(&ann.mount_dir())?, Tree::read(&bob.mount_dir())?];
    let differences = here.differences(&there);
    ensure!(differences.is_empty(), "{differences}");
    ensure!(
        fs::read(bob.path("project/written")).context("Ann's edit of a removed file")? == wanted
    );
    ensure!(!bob.path("project/read").exists(), "what nobody changed stays removed");
    ensure!(fs::read(bob.path("replaced"))? == b"by Bob");
    let copies = tree_files(&bob.mount_dir())?;
    let copy = copies.iter().find(|path| path.to_string_lossy().contains("replaced (conflict Ann"));
    ensure!(fs::read(copy.with_context(|| format!("no copy of Ann's: {copies:?}"))?)? == wanted);
    Ok(())
}

/// All files below a directory.
fn tree_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                dirs.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

#[test]
fn paths_that_race_with_another_devices_renames_lose_nothing() -> Result<()> {
    needs!(Need::Fuse);
    const FILES: u64 = 300;
    let site = Site::new()?;
    let (ann, bob) = two(&site)?;
    for dir in 0..4 {
        fs::create_dir(ann.path(&format!("dir {dir}")))?;
    }
    agree(&[&ann, &bob])?;
    let done = AtomicBool::new(false);
    let accepted = std::thread::scope(|scope| -> Result<BTreeSet<u64>> {
        let restless = scope.spawn(|| {
            // Renames directories under the writer, moves its files about, removes what is empty and its own.
            for round in 0_u64.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let (dir, other) =
                    (format!("dir {}", round % 4), format!("dir {}", (round / 4) % 5));
                fs::rename(bob.path(&dir), bob.path("dir 4")).ok();
                fs::rename(bob.path("dir 4"), bob.path(&dir)).ok();
                if let Some(Ok(entry)) =
                    fs::read_dir(bob.path(&dir)).ok().and_then(|mut all| all.next())
                {
                    let to = bob.path(&format!("{other}/moved {round}"));
                    fs::rename(entry.path(), to).ok();
                }
                fs::remove_dir(bob.path(&other)).ok();
                fs::create_dir(bob.path(&other)).ok();
                let own = bob.path(&format!("{dir}/bob"));
                if fs::write(&own, b"not Ann's").is_ok() {
                    fs::remove_file(&own).ok();
                }
            }
        });
        let mut accepted = BTreeSet::new();
        for number in 0..FILES {
            let path = ann.path(&format!("dir {}/file {number}", number % 5));
            // The name may vanish at any step: then it is an error and nothing was accepted.
            let saved = File::create(&path).and_then(|mut file| {
                file.write_all(&tree::random_bytes(2_000, number))?;
                file.sync_all()
            });
            match saved {
                Ok(()) => drop(accepted.insert(number)),
                Err(error) => {
                    let odd = !matches!(
                        error.raw_os_error().map(Errno::from_raw_os_error),
                        Some(Errno::NOENT | Errno::STALE | Errno::NOTDIR)
                    );
                    if odd {
                        done.store(true, Ordering::Relaxed);
                    }
                    ensure!(!odd, "{} failed with {error}", path.display());
                }
            }
        }
        done.store(true, Ordering::Relaxed);
        restless.join().map_err(|_| anyhow::anyhow!("Bob panicked"))?;
        Ok(accepted)
    })?;
    ensure!(
        accepted.len() > 20,
        "only {} files could be saved: the race is one-sided",
        accepted.len()
    );
    agree(&[&ann, &bob])?;
    let differences = Tree::read(&ann.mount_dir())?.differences(&Tree::read(&bob.mount_dir())?);
    ensure!(differences.is_empty(), "{differences}");
    let mut found = BTreeSet::new();
    for path in tree_files(&ann.mount_dir())? {
        found.insert(tree::hash_of(&path)?.to_hex().to_string());
    }
    for number in accepted {
        let hash = blake3_hex(&tree::random_bytes(2_000, number));
        ensure!(found.contains(&hash), "file {number} was accepted and is nowhere");
    }
    Ok(())
}

fn blake3_hex(bytes: &[u8]) -> String {
    tree::hash_bytes(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How a daemon may end.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Terminated,
    Unmounted,
    DetachedByRoot,
    DetachedByHelper,
    Killed,
}

#[test]
fn whatever_ends_the_daemon_while_files_are_open_loses_no_accepted_byte() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("fusermount3"));
    let site = Site::new()?;
    let mut ann = one(&site)?;
    let ways = [
        Ending::Terminated,
        Ending::Unmounted,
        Ending::DetachedByRoot,
        Ending::DetachedByHelper,
        Ending::Killed,
    ];
    for (round, way) in ways.into_iter().enumerate() {
        let name = |what: &str| format!("{what} {round}");
        let mut asking = None;
        let bytes = tree::random_bytes(400_000, round as u64);
        fs::write(ann.path(&name("in place")), &bytes)?;
        let open = [name("new"), name("synced")].map(|name| File::create(ann.path(&name)));
        let [new, synced] = open;
        let (mut new, mut synced) = (new?, synced?);
        let in_place = open_rw(&ann.path(&name("in place")))?;
        new.write_all(&bytes)?;
        synced.write_all(&bytes)?;
        in_place.write_all_at(b"patched", 100_000)?;
        synced.sync_all()?;
        in_place.sync_all()?;
        let refused = program::run(command("fusermount3", ["-u"]).arg(ann.mount_dir()), BOUND)?;
        ensure!(refused.code != 0, "a mount in use is unmounted without a word");
        let mount = ann.mount_dir();
        match way {
            Ending::Terminated => process::terminate(ann.pid()? as i32)?,
            Ending::Unmounted => {
                // It returns when the daemon has ended, which waits for whoever has files open.
                let mut asked = ann.command()?;
                asked.arg("unmount").arg(&mount).stdout(Stdio::null()).stderr(Stdio::null());
                asking = Some(asked.spawn()?);
            }
            Ending::DetachedByRoot => drop(program::ok(command("umount", ["-l"]).arg(&mount))?),
            Ending::DetachedByHelper => {
                program::ok(command("fusermount3", ["-u", "-z"]).arg(&mount))?;
            }
            Ending::Killed => ann.kill()?,
        }
        let mut wanted_new = bytes.clone();
        if !matches!(way, Ending::Killed) {
            // Out of sight at once, and whoever has a file open works on.
            wait::until(format!("the mount is gone after {way:?}"), BOUND, || {
                Ok((!process::is_mounted(&mount)).then_some(()))
            })?;
            ensure!(ann.is_running()?, "{way:?}: the daemon left its users alone");
            new.write_all(b"and more").with_context(|| format!("write on after {way:?}"))?;
            wanted_new.extend_from_slice(b"and more");
        }
        drop((new, synced, in_place));
        if !matches!(way, Ending::Killed) {
            ann.wait_end()?;
        }
        if let Some(mut asking) = asking {
            let status = wait::exit_of(&mut asking, BOUND)?.context("`unmount` does not return")?;
            ensure!(status.success(), "`unmount` ended with {status}");
        }
        ann.mount()?;
        let found = |what: &str| {
            fs::read(ann.path(&name(what))).with_context(|| format!("{what} after {way:?}"))
        };
        ensure!(found("synced")? == bytes, "{way:?}: synced bytes are lost");
        let mut patched = bytes.clone();
        patched.splice(100_000..100_007, *b"patched");
        ensure!(found("in place")? == patched, "{way:?}: a synced change is lost");
        if !matches!(way, Ending::Killed) {
            ensure!(found("new")? == wanted_new, "{way:?}: written bytes are lost");
        }
    }
    Ok(())
}

#[test]
fn signals_leave_no_call_half_done() -> Result<()> {
    needs!(Need::Fuse, Need::Program("python3"));
    let site = Site::new()?;
    let ann = one(&site)?;
    // An interval timer strikes a thousand times a second; python asks again where a call says EINTR.
    let script = r#"
import fcntl, mmap, os, random, signal
strikes = 0
def strike(*_):
    global strikes
    strikes += 1
signal.signal(signal.SIGALRM, strike)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
rng = random.Random(7)
size = 2_000_000
model = bytearray(size)
fd = os.open("struck", os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, size)
held = os.open("locked", os.O_RDWR | os.O_CREAT)
for step in range(400):
    at = rng.randrange(size - 100_000); n = rng.randrange(1, 100_000)
    what = rng.randrange(8)
    if what < 4:
        data = rng.randbytes(n); done = 0
        while done < n:
            done += os.pwrite(fd, data[done:], at + done)
        model[at:at + n] = data
    elif what < 6:
        done = b""
        while len(done) < n:
            part = os.pread(fd, n - len(done), at + len(done))
            assert part, "a read ended early"
            done += part
        assert done == model[at:at + n], f"step {step}: other bytes"
    elif what == 6:
        os.fsync(fd)
    else:
        fcntl.flock(held, fcntl.LOCK_EX); fcntl.flock(held, fcntl.LOCK_UN)
        fcntl.lockf(held, fcntl.LOCK_EX, 10); fcntl.lockf(held, fcntl.LOCK_UN, 10)
# A lock another process holds for a while is waited for, and got.
pid = os.fork()
if pid == 0:
    signal.setitimer(signal.ITIMER_REAL, 0)
    mine = os.open("locked", os.O_RDWR)
    fcntl.lockf(mine, fcntl.LOCK_EX); os.write(mine, b"x")
    import time; time.sleep(0.3)
    os._exit(0)
while os.fstat(held).st_size == 0: pass
fcntl.lockf(held, fcntl.LOCK_EX)
assert os.waitpid(pid, 0)[1] == 0
signal.setitimer(signal.ITIMER_REAL, 0)
os.close(fd)
assert strikes > 50, f"only {strikes} signals"
assert open("struck", "rb").read() == model
"#;
    let mut python = command("python3", ["-c", script]);
    program::ok_within(python.current_dir(ann.mount_dir()), Duration::from_secs(300))?;
    Ok(())
}

#[test]
fn bytes_nobody_has_are_an_error_in_time_and_their_reader_can_be_killed() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("ip"));
    let site = Site::new()?;
    let net = Net::new()?;
    let host = net.host()?;
    let mut ann = Device::on(&site, "Ann", &host)?;
    let mut bob = Device::on(&site, "Bob", &net.host()?)?.option("--keep").option("opened");
    ann.mount()?;
    bob.join_drive_of(&ann)?;
    let bytes = tree::random_bytes(3 << 20, 5);
    fs::write(ann.path("far"), &bytes)?;
    fs::write(ann.path("near"), b"small")?;
    ann.cli(&["sync", "--timeout", "5s"]).ok();
    wait::until("Bob sees the file", AGREE_BOUND, || {
        Ok((bob.path("far").exists() && bob.path("near").exists()).then_some(()))
    })?;
    ensure!(fs::read(bob.path("near"))? == b"small");

    // Silence: Bob cannot know yet that nobody answers, so his reader waits.
    net.mute(&host)?;
    let mut reader = Command::new("cat")
        .arg(bob.path("far"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    wait::breathe(Duration::from_millis(500));
    ensure!(reader.try_wait()?.is_none(), "the reader does not wait: nothing is shown here");
    let killed = Instant::now();
    reader.kill()?;
    let ended = wait::exit_of(&mut reader, Duration::from_secs(10))?;
    ensure!(ended.is_some(), "a blocked reader ignores SIGKILL for {:?}", killed.elapsed());

    let started = Instant::now();
    let error = fs::read(bob.path("far")).err().context("bytes from nowhere")?;
    ensure!(error.raw_os_error() == Some(Errno::IO.raw_os_error()), "failed with {error}");
    ensure!(started.elapsed() < EIO_BOUND, "the read hung for {:?}", started.elapsed());
    let status = bob.status()?;
    let told = status["notices"].as_array().context("no notices")?.iter().any(|notice| {
        notice["what"].as_str().is_some_and(|what| what.contains("no device that is online"))
    });
    ensure!(told, "the reason is not in status: {status}");
    ensure!(fs::read(bob.path("near"))? == b"small", "what is here cannot be read any more");
    fs::write(bob.path("own"), b"work goes on")?;

    net.unmute(&host)?;
    bob.wait_bytes("far", &bytes)?;
    wait::until("Ann has what Bob wrote", AGREE_BOUND, || {
        Ok(fs::read(ann.path("own")).is_ok_and(|own| own == b"work goes on").then_some(()))
    })
}

/// The data directory on a file system of its own that can be filled to the last block.
struct FullDisk {
    at: PathBuf,
}

impl FullDisk {
    fn under(at: PathBuf, size: &str) -> Result<FullDisk> {
        fs::create_dir_all(&at)?;
        let option = format!("size={size}");
        program::ok(command("mount", ["-t", "tmpfs", "-o", &option, "tmpfs"]).arg(&at))?;
        Ok(FullDisk { at })
    }

    fn free(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(&self.at)?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    /// Fills it until only `left` bytes are free.
    fn fill(&self, left: u64) -> Result<()> {
        let ballast = OpenOptions::new().append(true).create(true).open(self.at.join("ballast"))?;
        // In smaller and smaller pieces: one that does not fit is refused whole.
        let mut piece = self.free()?.saturating_sub(left);
        while piece >= 4096 && self.free()? > left {
            let have = ballast.metadata()?.len();
            let none = rustix::fs::FallocateFlags::empty();
            match rustix::fs::fallocate(&ballast, none, have, piece.min(self.free()? - left)) {
                Ok(()) => {}
                Err(Errno::NOSPC) => piece /= 2,
                Err(error) => return Err(error).context("fill the disk"),
            }
        }
        Ok(())
    }

    fn make_room(&self) -> Result<()> {
        Ok(fs::remove_file(self.at.join("ballast"))?)
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        program::run(command("umount", ["-l"]).arg(&self.at), BOUND).ok();
    }
}

fn is_full(result: std::io::Result<()>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::StorageFull)
}

#[test]
fn a_disk_that_fills_up_between_any_two_steps_of_a_write_costs_nothing_accepted() -> Result<()> {
    needs!(Need::Root, Need::Fuse);
    const SIZE: u64 = 256 << 20;
    let reserve = SIZE / 20;
    let site = Site::new()?;
    let mut ann = Device::local(&site, "Ann")?;
    let disk = FullDisk::under(ann.data_dir(), "256m")?;
    ann.mount()?;
    let bytes = |seed| tree::random_bytes(1 << 20, seed);
    for (name, seed) in [("old", 1), ("patched", 2), ("cut", 3)] {
        fs::write(ann.path(name), bytes(seed))?;
    }
    ann.cli(&["sync"])?;
    // Accepted in every stage: written, synced, changed in place, closed but not published.
    let mut written = File::create(ann.path("written"))?;
    written.write_all(&bytes(4))?;
    let mut synced = File::create(ann.path("synced"))?;
    synced.write_all(&bytes(5))?;
    synced.sync_all()?;
    let patched = open_rw(&ann.path("patched"))?;
    patched.write_all_at(b"accepted", 500_000)?;
    fs::write(ann.path("closed"), bytes(6))?;
    disk.fill(reserve)?;

    // A little is still granted from an earlier look at the disk: once that is used up, nothing.
    let refused = File::create(ann.path("refused"))?;
    let reserve_room = |len: u64| -> std::io::Result<()> {
        Ok(rustix::fs::fallocate(&refused, rustix::fs::FallocateFlags::empty(), 0, len)?)
    };
    let granted = (0..64).take_while(|_| !is_full(reserve_room(1 << 20))).count();
    ensure!(granted < 16, "room for {granted} MiB was promised on a full disk");
    ensure!(is_full(reserve_room(1 << 30)), "room was promised on a full disk");
    ensure!(is_full(refused.write_all_at(&bytes(7), 0)), "bytes were taken onto a full disk");
    ensure!(is_full(patched.write_all_at(&bytes(7), 0)), "a change was taken onto a full disk");
    ensure!(is_full(written.write_all(&bytes(7))), "more was taken onto a full disk");
    let copied = fs::copy(ann.path("old"), ann.path("copy"));
    ensure!(copied.is_ok(), "a copy of a whole file needs no room: {copied:?}");
    // All that was accepted is finished with the reserve, and what needs no room goes on.
    written.sync_all().context("sync what was accepted")?;
    patched.sync_all().context("sync a change that was accepted")?;
    drop((written, synced, patched, refused));
    fs::rename(ann.path("old"), ann.path("renamed"))?;
    fs::create_dir(ann.path("dir"))?;
    fs::rename(ann.path("closed"), ann.path("dir/closed"))?;
    fs::remove_file(ann.path("refused"))?;
    open_rw(&ann.path("cut"))?.set_len(100)?;
    rustix::fs::symlinkat("renamed", CWD, ann.path("link"))?;
    ann.cli(&["sync"]).context("publish what was accepted")?;
    let mut changed = bytes(2);
    changed.splice(500_000..500_008, *b"accepted");
    let whole = |ann: &Device| -> Result<()> {
        for (name, wanted) in [
            ("renamed", bytes(1)),
            ("copy", bytes(1)),
            ("patched", changed.clone()),
            ("cut", bytes(3)[..100].to_vec()),
            ("written", bytes(4)),
            ("synced", bytes(5)),
            ("dir/closed", bytes(6)),
        ] {
            let found = fs::read(ann.path(name)).with_context(|| format!("{name} is lost"))?;
            ensure!(
                found == wanted,
                "{name} has other bytes ({} of {})",
                found.len(),
                wanted.len()
            );
        }
        ensure!(ann.status()?["drafts"] == 0, "something waits: {}", ann.status()?);
        Ok(())
    };
    whole(&ann)?;
    ann.unmount().context("unmount on a full disk")?;
    ann.mount().context("mount on a full disk")?;
    whole(&ann)?;

    // Others may use up the reserve too. Nothing can be finished then, and nothing is lost for it.
    disk.make_room()?;
    let mut late = File::create(ann.path("late"))?;
    late.write_all(&bytes(8))?;
    late.sync_all()?;
    disk.fill(0)?;
    // What is written is taken as far as the last look at the disk allowed, and not one byte is synced.
    let mut no_room = File::create(ann.path("no room"))?;
    let taken = no_room.write_all(&bytes(9));
    ensure!(
        taken.is_ok() || is_full(taken),
        "a write onto no room at all fails otherwise\n{}",
        ann.log_tail()
    );
    let taken = no_room.metadata()?.len() as usize;
    let synced = no_room.sync_all().err().map(|error| error.kind());
    ensure!(synced == Some(ErrorKind::StorageFull), "synced on no room at all: {synced:?}");
    drop(no_room);
    drop(late);
    ann.status().context("status on a disk without any room")?;
    ensure!(fs::read(ann.path("renamed"))? == bytes(1), "a full disk cannot be read");
    disk.make_room()?;
    fs::write(ann.path("after"), bytes(10)).context("there is room again")?;
    let kept = fs::read(ann.path("no room")).context("what was taken without room")?;
    ensure!(
        kept == bytes(9)[..taken],
        "of {taken} bytes taken without room {} are left",
        kept.len()
    );
    ann.unmount()?;
    ann.mount()?;
    ensure!(fs::read(ann.path("late")).context("a synced file is lost")? == bytes(8));
    fs::remove_file(ann.path("late"))?;
    ann.cli(&["sync"])?;
    ensure!(fs::read(ann.path("after"))? == bytes(10));
    ensure!(fs::read(ann.path("no room"))? == bytes(9)[..taken], "it was not finished later");
    whole(&ann)?;
    ann.unmount()?;
    drop(disk);
    Ok(())
}

#[test]
fn programs_copy_within_the_mount_without_moving_the_bytes() -> Result<()> {
    needs!(Need::Fuse, Need::Program("cp"));
    let site = Site::new()?;
    let ann = one(&site)?;
    let bytes = tree::random_bytes(64 << 20, 1);
    fs::write(ann.path("film"), &bytes)?;
    ann.cli(&["sync"])?;
    // What the daemon reads, from the kernel too: bytes that pass through a copying program come back that way.
    let read_so_far = |ann: &Device| -> Result<u64> {
        let io = fs::read_to_string(format!("/proc/{}/io", ann.pid()?))?;
        let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
        Ok(line.context("no rchar in /proc/PID/io")?.parse()?)
    };
    let before = read_so_far(&ann)?;
    let (from, to) = (ann.path("film"), ann.path("copy"));
    program::ok(command("cp", [text(&from)?, text(&to)?]).env("LC_ALL", "C"))?;
    let read = read_so_far(&ann)? - before;
    ensure!(read < 8 << 20, "{read} bytes came through the program that copied");
    ensure!(fs::read(&to)? == bytes, "the copy has other bytes");
    ann.cli(&["sync"])?;
    // A copy is a file of its own.
    open_rw(&ann.path("copy"))?.write_all_at(b"changed", 1000)?;
    ensure!(fs::read(ann.path("film"))? == bytes, "the original changed with its copy");
    Ok(())
}
