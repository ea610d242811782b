//! The command line's contract: exit codes, keys of `--json`, and an error of its own for every bad input, none of
//! which costs data.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::harness::device::{Device, program_path, text};
use tests::harness::program::{self, Ran, command};
use tests::harness::site::Site;
use tests::harness::skip::Need;
use tests::harness::{process, rot, tree, wait};
use tests::needs;

const BOUND: Duration = Duration::from_secs(60);

/// A failure as the contract wants it: the code, one line of cause, one line of what to do, and the words that tell
/// it from every other failure.
#[track_caller]
fn fails(ran: &Ran, code: i32, words: &[&str]) -> Result<()> {
    let said = ran.err.trim_end();
    let caller = std::panic::Location::caller();
    ensure!(
        ran.code == code,
        "{caller}: ended with {} instead of {code}\n{}{said}",
        ran.code,
        ran.out
    );
    for word in words {
        ensure!(
            said.to_lowercase().contains(word),
            "{caller}: the error does not say {word:?}:\n{said}"
        );
    }
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let cause = lines.iter().filter(|line| line.starts_with("error: ")).count();
    ensure!(cause == 1, "{caller}: not one line of cause:\n{said}");
    ensure!(lines.len() >= 2, "{caller}: no line of what to do:\n{said}");
    ensure!(!said.contains("panicked"), "{caller}: {said}");
    Ok(())
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default()
}

#[track_caller]
fn has_keys(value: &Value, wanted: &str) -> Result<()> {
    let found = keys(value);
    let missing: Vec<&str> = wanted.split(' ').filter(|key| !found.contains(key)).collect();
    ensure!(missing.is_empty(), "{missing:?} missing in {value}");
    Ok(())
}

fn mounted(site: &Site) -> Result<Device> {
    let mut device = Device::local(site, "Ann")?;
    device.mount()?;
    Ok(device)
}

#[test]
fn json_answers_have_the_keys_scripts_rely_on() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let ann = mounted(&site)?;
    let mut bob = Device::local(&site, "Bob")?;
    bob.join_drive_of(&ann)?;
    fs::write(ann.path("file.txt"), b"one")?;
    ann.sync()?;
    fs::write(ann.path("file.txt"), b"second")?;
    ann.sync()?;

    let status = ann.status()?;
    has_keys(
        &status,
        "drive path device members in_sync safe_to_close to_send_bytes to_receive_bytes drafts arriving locks \
         conflicts tree_hash listen notices",
    )?;
    has_keys(&status["drive"], "name id")?;
    has_keys(&status["device"], "name id")?;
    has_keys(&status["members"][0], "name id role online in_sync last_seen")?;
    ensure!(status["members"].as_array().map(Vec::len) == Some(2));
    ensure!(status["path"].as_str() == Some(text(&ann.mount_dir())?), "{}", status["path"]);
    ensure!(
        status["conflicts"] == 0 && status["drafts"] == 0 && status["in_sync"] == true,
        "{status}"
    );
    let hex = |value: &Value| {
        value.as_str().is_some_and(|id| {
            !id.is_empty() && id.bytes().all(|b| b"0123456789abcdef".contains(&b))
        })
    };
    ensure!(
        hex(&status["tree_hash"]) && hex(&status["drive"]["id"]) && hex(&status["device"]["id"]),
        "{status}"
    );

    let versions = ann.history("file.txt")?;
    ensure!(versions.len() == 2, "{versions:?}");
    has_keys(&versions[0], "version time author device size official")?;
    ensure!(versions[0]["size"] == 6 && versions[1]["size"] == 3, "not newest first: {versions:?}");
    ensure!(versions[0]["official"] == true && versions[1]["official"] == false, "{versions:?}");
    let time = versions[0]["time"].as_str().unwrap_or_default();
    ensure!(
        time.ends_with('Z') && time.as_bytes().get(10) == Some(&b'T'),
        "{time} is not RFC 3339 in UTC"
    );

    let members = ann.json("members")?;
    has_keys(&members[0], "name id role online in_sync last_seen")?;
    let roles: Vec<_> =
        members.as_array().context("no list")?.iter().map(|m| m["role"].clone()).collect();
    ensure!(roles.contains(&"owner".into()) && roles.contains(&"editor".into()), "{roles:?}");
    ensure!(ann.json("conflicts")? == Value::Array(vec![]));
    let verified = ann.json("verify")?;
    has_keys(&verified, "chunks bad repaired journal_entries journal_bad")?;
    ensure!(
        verified["bad"] == 0 && verified["journal_bad"] == 0 && verified["journal_entries"] != 0
    );
    // Any path below the mount point stands for the drive.
    let below = ann.path("file.txt");
    let ran = ann.try_raw(&["status", text(&below)?, "--json"])?;
    ensure!(ran.code == 0, "{}", ran.err);
    Ok(())
}

#[test]
fn wrong_usage_ends_with_2_and_changes_nothing() -> Result<()> {
    let site = Site::new()?;
    let device = Device::local(&site, "Ann")?;
    for args in [
        &["frobnicate"][..],
        &["mount"],
        &["join", "x"],
        &["status", "--nonsense"],
        &["invite"],
        &[],
    ] {
        let mut atelier = device.command()?;
        let ran = program::run(atelier.args(args), BOUND)?;
        ensure!(ran.code == 2, "{args:?} ended with {}", ran.code);
    }
    ensure!(!device.data_dir().exists(), "wrong usage made a data directory");
    for args in [&["--help"][..], &["--version"], &["mount", "--help"]] {
        program::ok(Command::new(program_path()?).args(args))?;
    }
    Ok(())
}

#[test]
fn a_mount_in_the_background_answers_at_once_and_ends_with_the_unmount() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let device = Device::local(&site, "Ann")?;
    let mount = device.mount_dir();
    let start = |verb: &str| -> Result<Ran> {
        let mut atelier = device.command()?;
        atelier.arg(verb).arg(&mount).args(["--key-store", "file", "--no-mdns"]);
        program::run(atelier.args(["--listen", "/ip4/127.0.0.1/tcp/0"]), BOUND)
    };
    let ran = start("mount")?;
    ensure!(ran.code == 0, "mount ended with {}\n{}{}", ran.code, ran.out, ran.err);
    ensure!(
        format!("{}{}", ran.out, ran.err).to_lowercase().contains("created"),
        "a new drive is not announced"
    );
    // It returned, so the mount answers: no waiting here.
    fs::write(mount.join("file"), b"x")?;
    device.status()?;
    fails(&start("mount")?, 1, &["mounted already"])?;
    device.cli(&["unmount"])?;
    ensure!(!process::is_mounted(&mount), "still mounted after `unmount` returned");
    fails(&device.try_cli(&["status"])?, 1, &["not mounted"])?;

    // Every usual way to unmount ends the daemon, and nothing is lost.
    for way in ["umount", "fusermount3 -u", "SIGTERM"] {
        ensure!(start("mount")?.code == 0);
        ensure!(fs::read(mount.join("file"))? == b"x");
        fs::write(mount.join(way), way)?;
        let pids = process::of_dir(&device.data_dir());
        ensure!(!pids.is_empty(), "no daemon runs");
        match way {
            "SIGTERM" => pids.iter().try_for_each(|pid| process::terminate(*pid))?,
            _ => drop(program::ok(
                Command::new("sh").arg("-c").arg(format!("{way} {}", text(&mount)?)),
            )?),
        }
        wait::until(format!("the daemon ends after {way}"), BOUND, || {
            Ok((process::of_dir(&device.data_dir()).is_empty() && !process::is_mounted(&mount))
                .then_some(()))
        })?;
    }
    ensure!(start("mount")?.code == 0);
    for way in ["umount", "fusermount3 -u", "SIGTERM"] {
        ensure!(
            fs::read(mount.join(way))? == way.as_bytes(),
            "what was written before {way} is lost"
        );
    }
    device.cli(&["unmount"])?;
    Ok(())
}

#[test]
fn a_stale_mount_after_a_crash_is_cleaned_by_the_next_mount() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let mut ann = mounted(&site)?;
    fs::write(ann.path("file"), b"x")?;
    ann.kill()?;
    ensure!(
        process::is_mounted(&ann.mount_dir()),
        "a killed daemon leaves its mount behind: the test tests nothing"
    );
    ann.mount()?;
    ensure!(fs::read(ann.path("file"))? == b"x");
    let mounts = process::mounts_below(&ann.mount_dir());
    ensure!(mounts.len() == 1, "{} mounts stand over each other", mounts.len());
    // Unmounting a dead one works too.
    ann.kill()?;
    let ran = ann.try_cli(&["unmount"])?;
    ensure!(
        ran.code == 0 && !process::is_mounted(&ann.mount_dir()),
        "unmount of a dead mount: {}",
        ran.err
    );
    Ok(())
}

#[test]
fn unusable_mount_points_are_refused() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let device = Device::local(&site, "Ann")?;
    let mount = |path: &Path| -> Result<Ran> {
        let mut atelier = device.command()?;
        atelier.arg("mount").arg(path).args(["--foreground", "--key-store", "file", "--no-mdns"]);
        program::run(&mut atelier, BOUND)
    };
    fails(&mount(&site.path().join("no/such/parent"))?, 1, &["no folder"])?;
    let full = site.dir("full")?;
    fs::write(full.join("something"), b"mine")?;
    fails(&mount(&full)?, 1, &["not empty"])?;
    ensure!(fs::read(full.join("something"))? == b"mine");
    let file = site.path().join("file");
    fs::write(&file, b"mine")?;
    fails(&mount(&file)?, 1, &["not a folder"])?;
    ensure!(fs::read(&file)? == b"mine");
    // What other programs mounted.
    if rustix::process::geteuid().is_root() {
        let taken = site.dir("taken")?;
        program::ok(command("mount", ["-t", "tmpfs", "none"]).arg(&taken))?;
        let ran = mount(&taken)?;
        program::ok(command("umount", []).arg(&taken))?;
        fails(&ran, 1, &["mounted already"])?;
    }
    let left = fs::read_dir(device.data_dir().join("drives")).map_or(0, Iterator::count);
    ensure!(left == 0, "a refused mount left a drive behind");
    Ok(())
}

#[test]
fn a_mount_whose_store_is_gone_does_not_become_a_new_empty_drive() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let mut ann = mounted(&site)?;
    fs::write(ann.path("file"), b"x")?;
    ann.unmount()?;
    let store = ann.store_dir()?;
    fs::rename(&store, site.path().join("taken away"))?;
    fails(&ann.start_refused(&["mount"])?, 1, &["gone"])?;
    fs::rename(site.path().join("taken away"), &store)?;
    ann.mount()?;
    ensure!(fs::read(ann.path("file"))? == b"x");
    Ok(())
}

#[test]
fn a_missing_or_foreign_key_is_an_error_and_never_a_new_identity() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let mut ann = mounted(&site)?;
    let device = ann.status()?["device"]["id"].clone();
    fs::write(ann.path("file"), b"x")?;
    ann.unmount()?;
    let seed = ann.data_dir().join("seed");
    let kept = fs::read(&seed).context("the key is kept in DATA/seed")?;
    let mode = fs::metadata(&seed)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "the key file has mode {mode:o}");
    fs::remove_file(&seed)?;
    fails(&ann.start_refused(&["mount"])?, 1, &["key", "missing"])?;
    ensure!(!seed.exists(), "a new key was made");
    let mut other = Device::local(&site, "Other")?;
    other.mount()?;
    other.unmount()?;
    fs::copy(other.data_dir().join("seed"), &seed)?;
    fails(&ann.start_refused(&["mount"])?, 1, &["key"])?;
    fs::write(&seed, kept)?;
    ann.mount()?;
    ensure!(ann.status()?["device"]["id"] == device, "another identity");
    ensure!(fs::read(ann.path("file"))? == b"x");
    Ok(())
}

#[test]
fn a_passphrase_guards_the_key() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let device = Device::local(&site, "Ann")?;
    let start = |passphrase: Option<&str>| -> Result<Ran> {
        let mut atelier = device.command()?;
        atelier.arg("mount").arg(device.mount_dir()).args([
            "--key-store",
            "passphrase",
            "--no-mdns",
        ]);
        match passphrase {
            Some(passphrase) => atelier.env("ATELIER_PASSPHRASE", passphrase),
            None => atelier.env_remove("ATELIER_PASSPHRASE"),
        };
        program::run(&mut atelier, BOUND)
    };
    let ran = start(Some("correct horse"))?;
    ensure!(ran.code == 0, "{}", ran.err);
    fs::write(device.path("file"), b"x")?;
    device.cli(&["unmount"])?;
    fails(&start(Some("battery staple"))?, 1, &["passphrase"])?;
    fails(&start(None)?, 1, &["passphrase"])?;
    let ran = start(Some("correct horse"))?;
    ensure!(ran.code == 0 && fs::read(device.path("file"))? == b"x", "{}", ran.err);
    device.cli(&["unmount"])?;
    Ok(())
}

#[test]
fn a_store_in_use_or_of_a_newer_format_is_refused_untouched() -> Result<()> {
    needs!(Need::Fuse, Need::Program("flock"));
    let site = Site::new()?;
    let mut ann = mounted(&site)?;
    fs::write(ann.path("file"), b"x")?;
    // The same drive at another place while it is mounted.
    let elsewhere = site.path().join("elsewhere");
    let name = ann.status()?["drive"]["name"].as_str().context("a name")?.to_owned();
    let mut second = ann.command()?;
    second.arg("mount").arg(&elsewhere).args([
        "--drive",
        &name,
        "--key-store",
        "file",
        "--foreground",
    ]);
    let ran = program::run(&mut second, BOUND)?;
    fails(&ran, 1, &["mounted"])?;
    ann.unmount()?;

    let store = ann.store_dir()?;
    let mut holder = Command::new("flock");
    holder.arg(store.join("lock")).arg(program_path()?).arg("--data-dir").arg(ann.data_dir());
    holder.arg("mount").arg(ann.mount_dir()).args(["--key-store", "file", "--foreground"]);
    fails(&program::run(&mut holder, BOUND)?, 1, &["in use"])?;

    let description = store.join("drive.json");
    let kept = fs::read_to_string(&description)?;
    let mut newer: Value = serde_json::from_str(&kept)?;
    newer["format"] = 999.into();
    fs::write(&description, serde_json::to_vec(&newer)?)?;
    fails(&ann.start_refused(&["mount"])?, 1, &["999"])?;
    ensure!(
        serde_json::from_slice::<Value>(&fs::read(&description)?)? == newer,
        "a newer format was touched"
    );
    fs::write(&description, kept)?;
    ann.mount()?;
    ensure!(fs::read(ann.path("file"))? == b"x");
    Ok(())
}

#[test]
fn newer_formats_of_packs_and_journal_are_refused_untouched() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let mut ann = mounted(&site)?;
    fs::write(ann.path("file"), tree::random_bytes(100_000, 1))?;
    ann.unmount()?;
    let store = ann.store_dir()?;
    for (part, extension) in [("cas", "pack"), ("journal", "seg")] {
        let files = rot::files_below(&store.join(part))?;
        let file =
            files.iter().find(|file| file.extension().is_some_and(|found| found == extension));
        let file = file.with_context(|| format!("no .{extension} file below {part}"))?;
        let kept = fs::read(file)?;
        // The version stands right behind the magic.
        let version =
            kept.iter().skip(4).take(12).position(|byte| *byte == 1).context("no version 1")? + 4;
        let mut newer = kept.clone();
        if let Some(byte) = newer.get_mut(version) {
            *byte = 99;
        }
        fs::write(file, &newer)?;
        let ran = ann.start_refused(&["mount"])?;
        fails(&ran, 1, &["format", "99"]).with_context(|| format!("with a newer {part}"))?;
        ensure!(fs::read(file)? == newer, "a newer {part} was touched");
        fs::write(file, kept)?;
    }
    ann.mount()?;
    ensure!(fs::read(ann.path("file"))? == tree::random_bytes(100_000, 1));
    Ok(())
}

/// `atelier` as an ordinary user (nobody) in a mount namespace of its own, with the given script around it. `$A` is the
/// program with its data directory, `$M` the mount point, `$D` the data directory.
fn as_nobody(site: &Site, prepare: &str, script: &str) -> Result<Ran> {
    let home = site.dir("nobody")?;
    fs::set_permissions(site.path(), fs::Permissions::from_mode(0o755))?;
    std::os::unix::fs::chown(&home, Some(65534), Some(65534))?;
    // The program itself may stand where an ordinary user cannot look.
    let program = site.path().join("atelier");
    if !program.exists() {
        fs::copy(program_path()?, &program)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    }
    let home = text(&home)?.to_owned();
    let whole = format!(
        "set -eu\n{prepare}\nexec setpriv --reuid 65534 --regid 65534 --clear-groups env HOME={home} sh -euc '\n\
         D={home}/data M={home}/mount; A=\"{} --data-dir $D\"; cd /\n{script}'",
        text(&program)?
    );
    program::run(
        &mut command("unshare", ["--mount", "--propagation", "private", "sh", "-c", &whole]),
        BOUND,
    )
}

/// A `/dev` that holds what every program needs, and whatever `also` adds.
fn own_dev(also: &str) -> String {
    format!(
        "mount -t tmpfs none /mnt; for d in null zero urandom random tty; do cp -a /dev/$d /mnt/; done; \
         ln -s /proc/self/fd /mnt/fd; mkdir /mnt/shm; chmod 1777 /mnt/shm; {also} mount --move /mnt /dev"
    )
}

#[test]
fn without_dev_fuse_the_error_says_so() -> Result<()> {
    needs!(Need::Root, Need::Program("unshare"), Need::Program("setpriv"));
    let site = Site::new()?;
    let device = Device::local(&site, "Ann")?;
    let script = format!(
        "set -e; {}; exec {} --data-dir {} mount {} --key-store file --foreground",
        own_dev(""),
        text(&program_path()?)?,
        text(&device.data_dir())?,
        text(&device.mount_dir())?
    );
    let mut unshared =
        command("unshare", ["--mount", "--propagation", "private", "sh", "-c", &script]);
    fails(&program::run(&mut unshared, BOUND)?, 1, &["/dev/fuse"])?;
    Ok(())
}

#[test]
fn an_ordinary_user_mounts_with_fusermount3_and_is_told_when_it_is_missing() -> Result<()> {
    needs!(
        Need::Root,
        Need::Fuse,
        Need::Program("unshare"),
        Need::Program("setpriv"),
        Need::Program("fusermount3")
    );
    let site = Site::new()?;
    let dev = own_dev("mknod -m 666 /mnt/fuse c 10 229;");
    let lacking = as_nobody(
        &site,
        &dev,
        "mkdir $HOME/bin; PATH=$HOME/bin exec $A mount $M --key-store file --no-mdns --foreground",
    )?;
    fails(&lacking, 1, &["fusermount3"])?;
    let script = "$A mount $M --key-store file --no-mdns --listen /ip4/127.0.0.1/tcp/0\n\
                  echo mine > $M/file; [ \"$(cat $M/file)\" = mine ]; $A status $M --json; $A unmount $M\n\
                  $A mount $M; [ \"$(cat $M/file)\" = mine ]; fusermount3 -u $M\n\
                  for i in 1 2 3; do $A mount $M && break; done; $A unmount $M; ls -ldn $D/drives/*/drive.json >&2";
    let ran = as_nobody(&site, &dev, script)?;
    ensure!(ran.code == 0, "ended with {}\n{}{}", ran.code, ran.out, ran.err);
    ensure!(ran.out.contains("tree_hash"), "no status: {}", ran.out);
    Ok(())
}

#[test]
fn an_unreadable_data_directory_is_refused() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("unshare"), Need::Program("setpriv"));
    let site = Site::new()?;
    let dev = own_dev("mknod -m 666 /mnt/fuse c 10 229;");
    let closed = site.dir("nobody")?.join("data");
    fs::create_dir(&closed)?;
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700))?;
    let ran = as_nobody(&site, &dev, "exec $A mount $M --key-store file --foreground")?;
    fails(&ran, 1, &["data"])?;
    // Or it is a file.
    let file = site.path().join("a file");
    fs::write(&file, b"mine")?;
    let mut atelier = Command::new(program_path()?);
    atelier.arg("--data-dir").arg(&file).arg("mount").arg(site.path().join("m"));
    fails(&program::run(atelier.args(["--key-store", "file"]), BOUND)?, 1, &["data directory"])?;
    ensure!(fs::read(&file)? == b"mine");
    Ok(())
}

/// A small file system of its own for the data directory.
struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    fn new(site: &Site, at: PathBuf, size: &str) -> Result<SmallDisk> {
        fs::create_dir_all(&at)?;
        let image = site.path().join("disk.img");
        program::ok(command("truncate", ["-s", size]).arg(&image))?;
        program::ok(command("mkfs.ext4", ["-q", "-F", "-m", "0"]).arg(&image))?;
        program::ok(command("mount", ["-o", "loop"]).arg(&image).arg(&at))?;
        Ok(SmallDisk { at })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        program::run(command("umount", ["-l"]).arg(&self.at), BOUND).ok();
    }
}

#[test]
fn a_full_disk_refuses_new_data_and_keeps_what_it_accepted() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("mkfs.ext4"));
    let site = Site::new()?;
    let mut ann = Device::local(&site, "Ann")?;
    let disk = SmallDisk::new(&site, ann.data_dir(), "600M")?;
    ann.mount()?;
    let mut kept = 0_u64;
    let refused = loop {
        let bytes = tree::random_bytes(8 << 20, kept);
        let path = ann.path(&format!("file {kept}"));
        let written = fs::write(&path, bytes).and_then(|()| fs::File::open(&path)?.sync_all());
        match written {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
        ensure!(kept < 100, "800 MB went onto a disk of 600 MB");
    };
    ensure!(refused.kind() == std::io::ErrorKind::StorageFull, "a full disk says {refused}");
    fs::remove_file(ann.path(&format!("file {kept}"))).ok();
    let whole = |ann: &Device| -> Result<()> {
        for number in 0..kept {
            let found = fs::read(ann.path(&format!("file {number}")))?;
            ensure!(
                found == tree::random_bytes(8 << 20, number),
                "file {number} is not what was accepted"
            );
        }
        Ok(())
    };
    whole(&ann)?;
    // Small things that need no new data still work, and so does a new start.
    fs::rename(ann.path("file 0"), ann.path("renamed"))?;
    fs::rename(ann.path("renamed"), ann.path("file 0"))?;
    ann.status()?;
    ann.unmount()?;
    ann.mount()?;
    whole(&ann)?;
    ann.unmount()?;
    drop(disk);
    Ok(())
}

#[test]
fn a_data_directory_on_a_full_disk_is_refused_clearly() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("mkfs.ext4"));
    let site = Site::new()?;
    let ann = Device::local(&site, "Ann")?;
    let disk = SmallDisk::new(&site, ann.data_dir(), "16M")?;
    fs::write(disk.at.join("ballast"), vec![1; 20 << 20]).ok();
    let ran = ann.start_refused(&["mount"])?;
    fails(&ran, 1, &["space"])?;
    ensure!(!process::is_mounted(&ann.mount_dir()));
    Ok(())
}

#[test]
fn tickets_that_cannot_work_are_refused_before_anything_is_made() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let mut ann = mounted(&site)?;
    let ticket = ann.invite(&[])?;
    for bad in ["", "hello", "atelier1", "atelier1aaaa", &ticket.replace("atelier1", "atelier2")] {
        let eve = Device::local(&site, &format!("Eve{}", bad.len()))?;
        fails(&eve.start_refused(&["join", bad])?, 1, &["ticket"])?;
        ensure!(!process::is_mounted(&eve.mount_dir()));
    }
    // Joining twice from one data directory.
    let again = ann
        .command()?
        .arg("join")
        .arg(&ticket)
        .arg(site.path().join("again"))
        .args(["--key-store", "file"])
        .status_of()?;
    fails(&again, 1, &["already a member"])?;
    // Nobody there any more.
    ann.unmount()?;
    let late = Device::local(&site, "Late")?;
    fails(&late.start_refused(&["join", &ticket])?, 1, &["answered"])?;
    let left = fs::read_dir(late.data_dir().join("drives")).map_or(0, Iterator::count);
    ensure!(left == 0, "a failed join left a drive behind");
    Ok(())
}

/// Runs a command to its end within the ordinary bound.
trait StatusOf {
    fn status_of(&mut self) -> Result<Ran>;
}

impl StatusOf for Command {
    fn status_of(&mut self) -> Result<Ran> {
        program::run(self, BOUND)
    }
}

#[test]
fn questions_about_what_is_no_drive_are_refused() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let ann = mounted(&site)?;
    let outside = site.dir("outside")?;
    let outside = text(&outside)?;
    for args in [
        &["status", outside][..],
        &["sync", outside],
        &["invite", outside],
        &["conflicts", outside],
        &["members", outside],
        &["verify", outside],
        &["gc", outside],
        &["unmount", outside],
        &["history", outside],
    ] {
        fails(&ann.try_raw(args)?, 1, &["not in a drive"])?;
    }
    let never = ann.path("never existed");
    fails(&ann.try_raw(&["history", text(&never)?])?, 1, &["never existed"])?;
    fails(&ann.try_cli(&["members", "remove", "ffffffff"])?, 1, &["no member"])?;
    Ok(())
}

#[test]
fn roles_are_kept_to_and_a_removed_member_is_cut_off() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let ann = mounted(&site)?;
    let mut bob = Device::local(&site, "Bob")?;
    let ticket = ann.invite(&["--role", "reader"])?;
    bob.join(&ticket)?;
    fs::write(ann.path("file"), b"from ann")?;
    bob.wait_bytes("file", b"from ann")?;
    let hash = ann.tree_hash()?;
    let written = fs::write(bob.path("mine"), b"a reader's file").and_then(|()| {
        let file = fs::File::open(bob.path("mine"))?;
        file.sync_all()
    });
    ensure!(written.is_err(), "a reader could write");
    ensure!(fs::remove_file(bob.path("file")).is_err(), "a reader could remove");
    fails(&bob.try_cli(&["invite"])?, 4, &["owner"])?;
    fails(&bob.try_cli(&["members", "remove", "Ann"])?, 4, &["owner"])?;
    ensure!(ann.tree_hash()? == hash);

    ann.cli(&["members", "role", "Bob", "editor"])?;
    wait::until("Bob may write", BOUND, || {
        Ok(fs::write(bob.path("mine"), b"an editor's").is_ok().then_some(()))
    })?;
    ann.wait_bytes("mine", b"an editor's")?;
    ann.cli(&["members", "remove", "Bob"])?;
    ann.wait_online(0)?;
    fs::write(ann.path("after"), b"not for bob")?;
    fs::write(bob.path("too late"), b"x").ok();
    ann.sync()?;
    ensure!(!ann.path("too late").exists(), "a removed member's work arrives");
    ensure!(!bob.path("after").exists(), "a removed member still reads new work");
    ensure!(ann.path("mine").exists(), "what it wrote while it was a member stays");
    Ok(())
}

#[test]
fn an_address_that_cannot_be_listened_on_leaves_no_drive_behind() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let ann = Device::local(&site, "Ann")?;
    let mut atelier = ann.command()?;
    atelier.arg("mount").arg(ann.mount_dir()).args(["--key-store", "file", "--no-mdns"]);
    // Of a block that is nobody's.
    let ran = program::run(atelier.args(["--listen", "/ip4/192.0.2.7/tcp/7447"]), BOUND)?;
    fails(&ran, 1, &["cannot listen", "192.0.2.7"])?;
    let left: Vec<_> = match fs::read_dir(ann.data_dir().join("drives")) {
        Ok(found) => found.flatten().map(|entry| entry.file_name()).collect(),
        Err(_) => Vec::new(),
    };
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

#[test]
fn export_writes_a_plain_copy() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let ann = mounted(&site)?;
    tree::plant_awkward(&ann.mount_dir(), 5 << 20)?;
    let target = site.path().join("export");
    ann.cli(&["export", text(&target)?])?;
    let differences = tree::Tree::read(&ann.mount_dir())?.differences(&tree::Tree::read(&target)?);
    ensure!(differences.is_empty(), "{differences}");
    let ran = ann.try_cli(&["export", text(&target)?])?;
    fails(&ran, 1, &["export", "not empty", "an empty or a new folder"])?;
    let file = site.path().join("a file");
    fs::write(&file, b"in the way")?;
    let ran = ann.try_cli(&["export", text(&file)?])?;
    fails(&ran, 1, &["no folder", "an empty or a new folder"])
}

#[test]
fn sync_that_cannot_be_finished_ends_with_3() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("ip"));
    let site = Site::new()?;
    let net = tests::harness::netns::Net::new()?;
    let host = net.host()?;
    let mut ann = Device::on(&site, "Ann", &net.host()?)?;
    let mut bob = Device::on(&site, "Bob", &host)?;
    ann.mount()?;
    bob.join_drive_of(&ann)?;
    ann.sync()?;
    net.mute(&host)?;
    fs::write(ann.path("file"), tree::random_bytes(1 << 20, 1))?;
    let ran = ann.try_cli(&["sync", "--timeout", "2s"])?;
    fails(&ran, 3, &["not done in time"])
}

#[test]
fn doctor_tells_what_this_machine_can_do() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let device = Device::local(&site, "Ann")?;
    let mut atelier = device.command()?;
    let out = program::ok(atelier.arg("doctor"))?;
    ensure!(out.contains("fuse") && out.lines().count() >= 5, "doctor says little:\n{out}");
    let script = format!("set -e; {}; exec {} doctor", own_dev(""), text(&program_path()?)?);
    if rustix::process::geteuid().is_root() {
        let mut unshared =
            command("unshare", ["--mount", "--propagation", "private", "sh", "-c", &script]);
        let ran = program::run(unshared.env("ATELIER_DATA_DIR", device.data_dir()), BOUND)?;
        ensure!(ran.code == 1, "without /dev/fuse the doctor ends with {}\n{}", ran.code, ran.out);
    }
    Ok(())
}
