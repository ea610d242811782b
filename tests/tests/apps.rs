//! Applications an artist or a developer uses, in a real mount, and what another device then has of their work.
//!
//! Each does on one device what it does anywhere; then both devices must show the same tree, and the same application
//! must be content with it on the other one. Whether a system call does what it should is [`super::posix`]'s matter.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::harness::device::{AGREE_BOUND, Device, agree, text};
use tests::harness::program::{self, command, shell};
use tests::harness::site::Site;
use tests::harness::skip::Need;
use tests::harness::tree::{self, Tree};
use tests::harness::{blender, wait};
use tests::needs;

/// Two devices of one drive, both mounted.
fn pair(site: &Site) -> Result<(Device, Device)> {
    let mut ann = Device::local(site, "Ann")?;
    let mut bob = Device::local(site, "Bob")?;
    ann.mount()?;
    bob.join_drive_of(&ann)?;
    Ok((ann, bob))
}

/// Both show the same names, kinds, modes, times, bytes and attributes, and nothing is in conflict. Gives the tree.
fn same_tree(ann: &Device, bob: &Device) -> Result<Tree> {
    agree(&[ann, bob])?;
    let tree = Tree::read(&ann.mount_dir())?;
    let differences = tree.differences(&Tree::read(&bob.mount_dir())?);
    ensure!(differences.is_empty(), "{} and {}: {differences}", ann.name(), bob.name());
    ensure!(ann.status()?["conflicts"] == 0, "one device alone made conflicts");
    Ok(tree)
}

/// A program that works until it is killed.
struct Worker(Child);

impl Worker {
    fn start(command: &mut Command) -> Result<Worker> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Worker(command.spawn().context("start a worker")?))
    }

    fn kill(mut self) -> Result<()> {
        self.0.kill()?;
        wait::exit_of(&mut self.0, program::COMMAND_BOUND)?.context("it does not end")?;
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

const GIT_NAMES: &str =
    "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
";

#[test]
fn a_git_clone_is_worked_in_collected_and_checked_on_both_devices() -> Result<()> {
    needs!(Need::Fuse, Need::Program("git"));
    let site = Site::new()?;
    let (ann, bob) = pair(&site)?;
    let origin = site.dir("origin")?;
    let plant = r#"
        git init -q -b main . && mkdir -p src/deep
        for n in $(seq 300); do echo "$n" > src/f$n; echo "$n" > src/deep/g$n; done
        git add . && git commit -qm one
        for n in $(seq 1 3 300); do echo more >> src/f$n; done
        git commit -qam two
    "#;
    shell(&origin, &format!("{GIT_NAMES}{plant}"))?;
    let work = r#"
        git clone -q "$ORIGIN" work && cd work
        git checkout -qb topic
        for n in $(seq 1 2 300); do echo topic >> src/deep/g$n; done
        git rm -q src/f7 && git mv src/f8 src/moved && git commit -qam topic
        git checkout -q main && git merge -q --no-edit topic
        git stash list && git gc -q --aggressive --prune=now && git fsck --strict --full
        [ -z "$(git status --porcelain)" ]
    "#;
    shell(&ann.mount_dir(), &format!("export ORIGIN={}\n{GIT_NAMES}{work}", text(&origin)?))?;
    same_tree(&ann, &bob)?;
    let there = r#"
        git fsck --strict --full && [ -z "$(git status --porcelain)" ]
        echo there > src/there && git add . && git commit -qm there && git gc -q && git fsck --strict
        [ -z "$(git status --porcelain)" ]
    "#;
    shell(&bob.path("work"), &format!("{GIT_NAMES}{there}"))?;
    same_tree(&bob, &ann)?;
    let count = shell(
        &ann.path("work"),
        "git fsck --strict --full && [ -z \"$(git status --porcelain)\" ] && git rev-list --count HEAD",
    )?;
    ensure!(count.trim() == "4", "{count} commits");
    Ok(())
}

/// Commits transactions of three rows until it is killed, and tells the number of each after its COMMIT returned.
const TRANSACTIONS: &str = r#"
import sqlite3, sys
path, mode, told = sys.argv[1:]
db = sqlite3.connect(path, isolation_level=None, timeout=60)
db.execute(f"PRAGMA journal_mode={mode}")
db.execute("PRAGMA synchronous=FULL")
db.execute("CREATE TABLE IF NOT EXISTS t(number INTEGER, part INTEGER, bytes BLOB, PRIMARY KEY(number, part))")
number = db.execute("SELECT coalesce(max(number), 0) FROM t").fetchone()[0]
with open(told, "ab", buffering=0) as told:
    while True:
        number += 1
        db.execute("BEGIN IMMEDIATE")
        for part in range(3):
            db.execute("INSERT INTO t VALUES (?, ?, randomblob(1500))", (number, part))
        if number > 40:
            db.execute("DELETE FROM t WHERE number = ?", (number - 40,))
        db.execute("COMMIT")
        told.write(b"%d\n" % number)
"#;
/// Transactions told before a kill.
const TOLD_MIN: usize = 30;

/// What must hold of a database whatever was killed: it is whole, and so is every transaction that was told.
fn check_database(path: &Path, told: &Path) -> Result<()> {
    let told = fs::read_to_string(told)?;
    let last: u64 = told.lines().last().context("nothing was told")?.parse()?;
    let query = "PRAGMA integrity_check; SELECT coalesce(max(number), 0) FROM t; \
                 SELECT count(*) FROM (SELECT number FROM t GROUP BY number HAVING count(*) <> 3); \
                 SELECT count(DISTINCT number) FROM t;";
    let out = program::ok(command("sqlite3", ["-bail", text(path)?, query]).env("HOME", "/"))?;
    let lines: Vec<&str> = out.lines().collect();
    let [whole, newest, torn, count] = lines[..] else { anyhow::bail!("sqlite3 said {out}") };
    ensure!(whole == "ok", "integrity_check: {out}");
    let newest: u64 = newest.parse()?;
    ensure!(newest >= last, "transaction {last} was committed, the newest is {newest}");
    ensure!(torn == "0" && count == newest.min(40).to_string(), "parts of transactions: {out}");
    Ok(())
}

fn work_on_database(site: &Site, device: &Device, mode: &str) -> Result<Worker> {
    let told = site.path().join(format!("told-{mode}"));
    let lines = || fs::read_to_string(&told).map_or(0, |told| told.lines().count());
    let before = lines();
    let file = device.path(&format!("{mode}.db"));
    let mut python = command("python3", ["-c", TRANSACTIONS, text(&file)?, mode, text(&told)?]);
    let worker = Worker::start(&mut python)?;
    wait::until(format!("{TOLD_MIN} transactions in mode {mode}"), AGREE_BOUND, || {
        Ok((lines() >= before + TOLD_MIN).then_some(()))
    })?;
    Ok(worker)
}

#[test]
fn sqlite_keeps_every_committed_transaction_when_it_or_the_drive_is_killed() -> Result<()> {
    needs!(Need::Fuse, Need::Program("sqlite3"), Need::Program("python3"));
    let site = Site::new()?;
    let (mut ann, bob) = pair(&site)?;
    for mode in ["wal", "delete"] {
        let check = |device: &Device| {
            let told = site.path().join(format!("told-{mode}"));
            check_database(&device.path(&format!("{mode}.db")), &told)
                .with_context(|| format!("mode {mode} on {}", device.name()))
        };
        for _ in 0..2 {
            work_on_database(&site, &ann, mode)?.kill()?;
            check(&ann).context("after the program was killed")?;
        }
        for _ in 0..2 {
            let worker = work_on_database(&site, &ann, mode)?;
            ann.kill()?;
            worker.kill()?;
            ann.mount()?;
            check(&ann).context("after the drive was killed")?;
        }
        same_tree(&ann, &bob)?;
        check(&bob)?;
    }
    Ok(())
}

#[test]
fn cargo_builds_tests_and_rebuilds_a_crate() -> Result<()> {
    needs!(Need::Fuse, Need::Program("cargo"));
    let site = Site::new()?;
    let (ann, bob) = pair(&site)?;
    let files = [
        (
            "Cargo.toml",
            "[package]\nname = \"small\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n",
        ),
        (
            "build.rs",
            "fn main() {\n    let out = std::env::var(\"OUT_DIR\").unwrap();\n    std::fs::write(format!(\"{out}/made.rs\"), \"pub const MADE: u32 = 41;\").unwrap();\n    println!(\"cargo::rerun-if-changed=build.rs\");\n}\n",
        ),
        (
            "src/lib.rs",
            "include!(concat!(env!(\"OUT_DIR\"), \"/made.rs\"));\npub fn answer() -> u32 {\n    MADE + 1\n}\n",
        ),
        ("src/main.rs", "fn main() {\n    println!(\"{}\", small::answer());\n}\n"),
        ("tests/answer.rs", "#[test]\nfn it_is() {\n    assert_eq!(small::answer(), 42);\n}\n"),
    ];
    for (name, content) in files {
        let path = ann.path(&format!("small/{name}"));
        fs::create_dir_all(path.parent().context("a parent")?)?;
        fs::write(path, content)?;
    }
    let cargo = |device: &Device, args: &[&str]| -> Result<String> {
        let mut cargo = Command::new("cargo");
        for name in
            ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"]
        {
            cargo.env_remove(name);
        }
        cargo
            .args(args)
            .args(["--quiet", "--offline", "--jobs", "1"])
            .current_dir(device.path("small"));
        program::ok_within(&mut cargo, Duration::from_secs(180))
    };
    ensure!(cargo(&ann, &["run"])?.trim() == "42");
    cargo(&ann, &["test"])?;
    let changed = "include!(concat!(env!(\"OUT_DIR\"), \"/made.rs\"));\npub fn answer() -> u32 {\n    MADE + 2\n}\n";
    fs::write(ann.path("small/src/lib.rs"), changed)?;
    ensure!(cargo(&ann, &["run"])?.trim() == "43", "an edit was not built");
    let tree = same_tree(&ann, &bob)?;
    ensure!(tree.get("small/target/debug/small").is_some(), "no program in the tree");
    let built = program::ok(&mut Command::new(bob.path("small/target/debug/small")))?;
    ensure!(built.trim() == "43", "the program runs differently on the other device: {built}");
    Ok(())
}

#[test]
fn an_archive_of_twenty_thousand_files_is_unpacked_alike() -> Result<()> {
    needs!(Need::Fuse, Need::Program("tar"));
    const DIRS: usize = 200;
    const FILES: usize = 100;
    let site = Site::new()?;
    let (ann, bob) = pair(&site)?;
    let source = site.dir("source")?;
    for dir in 0..DIRS {
        let dir_path = source.join(format!("package-{dir:03}/src"));
        fs::create_dir_all(&dir_path)?;
        for file in 0..FILES {
            let number = dir * FILES + file;
            let bytes = tree::random_bytes(number * 37 % 3_000, number as u64);
            fs::write(dir_path.join(format!("module_{file}.rs")), bytes)?;
        }
    }
    let archive = site.path().join("archive.tar");
    program::ok(
        command("tar", ["--format=pax", "-cf", text(&archive)?, "-C", text(&source)?, "."])
            .env("LC_ALL", "C"),
    )?;
    fs::create_dir(ann.path("unpacked"))?;
    let mut unpack = command("tar", ["-xpf", text(&archive)?, "-C", text(&ann.path("unpacked"))?]);
    program::ok_within(&mut unpack, Duration::from_secs(180))?;
    let differences = Tree::read(&source)?.differences(&Tree::read(&ann.path("unpacked"))?);
    ensure!(differences.is_empty(), "the archive and what was unpacked: {differences}");
    let tree = same_tree(&ann, &bob)?;
    ensure!(tree.len() == DIRS * (FILES + 2) + 1, "{} names", tree.len());
    Ok(())
}

#[test]
fn blender_links_by_relative_path_bakes_its_cache_and_renders_into_the_drive() -> Result<()> {
    needs!(Need::Fuse, Need::Program("blender"));
    let site = Site::new()?;
    let (ann, bob) = pair(&site)?;
    let made = blender::make_linked(&ann.mount_dir())?;
    ensure!(made.library == "//../../assets/lib.blend" && made.linked_vertices == 3, "{made:?}");
    let tree = same_tree(&ann, &bob)?;
    for frame in 1..=blender::FRAMES {
        let picture = format!("shots/010/render/frame_{frame:04}.png");
        ensure!(tree.get(&picture).is_some(), "{picture} was not written");
    }
    let seen = blender::look_at_linked(&bob.mount_dir())?;
    ensure!(seen == made, "Ann's Blender says {made:?}, Bob's {seen:?}");
    // The library is edited on the other device; the scene follows.
    blender::grow_library(&bob.mount_dir())?;
    same_tree(&bob, &ann)?;
    let after = blender::look_at_linked(&ann.mount_dir())?;
    ensure!(after.linked_vertices == 4, "the scene does not follow its library: {after:?}");
    ensure!(after.cloth_height == made.cloth_height, "the baked cache is lost: {after:?}");
    Ok(())
}

#[test]
fn libreoffice_converts_and_saves_over_its_own_document() -> Result<()> {
    needs!(Need::Fuse, Need::Program("soffice"));
    let site = Site::new()?;
    let (ann, bob) = pair(&site)?;
    let profile = format!("-env:UserInstallation=file://{}", text(&site.path().join("profile"))?);
    let convert = |device: &Device, to: &str, from: &str| -> Result<()> {
        let mut office =
            command("soffice", ["--headless", profile.as_str(), "--convert-to", to, "--outdir"]);
        office.arg(device.path("docs")).arg(device.path(from)).env("HOME", site.path());
        program::ok_within(&mut office, Duration::from_secs(120)).map(drop)
    };
    fs::create_dir(ann.path("docs"))?;
    for edition in ["first", "second"] {
        fs::write(ann.path("docs/story.txt"), format!("The {edition} edition.\n"))?;
        convert(&ann, "odt", "docs/story.txt")?;
        convert(&ann, "pdf", "docs/story.odt")?;
        let tree = same_tree(&ann, &bob)?;
        ensure!(tree.len() == 4, "a lock or a temporary file is left: {tree:?}");
        convert(&bob, "html", "docs/story.odt")?;
        let html = fs::read_to_string(bob.path("docs/story.html"))?;
        ensure!(html.contains(&format!("The {edition} edition.")), "on the other device: {html}");
        fs::remove_file(bob.path("docs/story.html"))?;
        same_tree(&bob, &ann)?;
    }
    let versions = ann.history("docs/story.odt")?;
    let live = versions.iter().filter(|version| version["size"].as_u64() > Some(1_000)).count();
    ensure!(versions.len() >= 2 && live == versions.len(), "its history is {versions:?}");
    Ok(())
}

/// Three processes write into one shared mapping, each its own pages; one is killed before it syncs or unmaps.
const MAPPERS: &str = r#"
import mmap, os, signal, sys
path, size, page = sys.argv[1], 6_000_000, 4096
with open(path, "wb") as file: file.truncate(size)
children = []
for number in range(3):
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        with open(path, "r+b") as file:
            mapped = mmap.mmap(file.fileno(), 0)
        for at in range(number * page, size, 3 * page):
            mapped[at:min(at + page, size)] = bytes([65 + number]) * (min(at + page, size) - at)
        os.write(done, b"x")
        if number == 2: signal.pause()
        mapped.flush(); mapped.close()
        os._exit(0)
    os.close(done)
    children.append((pid, ready))
for number, (pid, ready) in enumerate(children):
    assert os.read(ready, 1) == b"x"
    if number == 2: os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"#;

#[test]
fn processes_that_share_a_mapping_lose_nothing_when_one_is_killed() -> Result<()> {
    needs!(Need::Fuse, Need::Program("python3"));
    let site = Site::new()?;
    let (ann, bob) = pair(&site)?;
    let path = ann.path("mapped");
    program::ok(&mut command("python3", ["-c", MAPPERS, text(&path)?]))?;
    let expected: Vec<u8> = (0..6_000_000_usize).map(|at| b'A' + (at / 4096 % 3) as u8).collect();
    ensure!(fs::read(&path)? == expected, "a mapped page is lost on the device that wrote it");
    bob.wait_bytes("mapped", &expected)?;
    same_tree(&ann, &bob).map(drop)
}

/// Appends lines and keeps the file open until its input ends; every hundredth line is synced.
const APPENDER: &str = r#"
import os, sys
log = open(sys.argv[1], "ab", buffering=0)
for line in range(3_000):
    log.write(b"line %d of a program that goes on and on\n" % line)
    if line % 100 == 99: os.fsync(log.fileno())
open(sys.argv[2], "w").close()
import signal; signal.sigwait([signal.SIGTERM])
log.write(b"the end\n")
log.close()
"#;

#[test]
fn a_log_that_is_kept_open_makes_few_versions_and_arrives_whole() -> Result<()> {
    needs!(Need::Fuse, Need::Program("python3"));
    const OPEN_PUBLISH: Duration = Duration::from_secs(30);
    let site = Site::new()?;
    let (ann, bob) = pair(&site)?;
    fs::write(ann.path("log"), "the beginning\n")?;
    bob.wait_bytes("log", b"the beginning\n")?;
    let written = site.path().join("written");
    let started = Instant::now();
    let script = format!(
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n{APPENDER}"
    );
    let mut worker = Worker::start(&mut command(
        "python3",
        ["-c", &script, text(&ann.path("log"))?, text(&written)?],
    ))?;
    wait::until("the log is written", AGREE_BOUND, || Ok(written.exists().then_some(())))?;
    let open = ann.history("log")?.len();
    let bound = |since: Instant| 1 + (since.elapsed().as_secs() / OPEN_PUBLISH.as_secs()) as usize;
    ensure!(open <= bound(started), "{open} versions of a log that is still open");
    tests::harness::process::terminate(worker.0.id().try_into()?)?;
    wait::exit_of(&mut worker.0, program::COMMAND_BOUND)?.context("the appender does not end")?;
    let mut expected = String::from("the beginning\n");
    (0..3_000).for_each(|line| {
        expected.push_str(&format!("line {line} of a program that goes on and on\n"));
    });
    expected.push_str("the end\n");
    bob.wait_bytes("log", expected.as_bytes())?;
    same_tree(&ann, &bob)?;
    let closed = bob.history("log")?.len();
    ensure!(closed >= 2 && closed <= bound(started) + 1, "{closed} versions once it is closed");
    Ok(())
}

#[test]
fn what_a_program_saved_is_in_the_history_although_another_replaced_it_at_once() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let (ann, bob) = pair(&site)?;
    for script in ["printf first > x", "printf second > x", "printf third > y; mv y x"] {
        shell(&ann.mount_dir(), script)?;
    }
    bob.wait_bytes("x", b"third")?;
    same_tree(&ann, &bob)?;
    let versions = bob.history("x")?;
    let sizes: Vec<_> = versions.iter().filter_map(|version| version["size"].as_u64()).collect();
    ensure!(sizes == [5, 6, 5], "of three saves by three programs its history keeps {versions:?}");
    Ok(())
}
