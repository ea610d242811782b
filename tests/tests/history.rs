//! The past in the mount and on the command line: versions, snapshots, times, restoring.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use serde_json::Value;
use tests::harness::device::{Device, agree, text};
use tests::harness::netns::Net;
use tests::harness::program::{self, Ran};
use tests::harness::site::Site;
use tests::harness::skip::Need;
use tests::harness::tree::{self, Tree};
use tests::harness::{blender, wait};
use tests::needs;

const BOUND: Duration = Duration::from_secs(60);

/// Names in a directory, sorted.
fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    let mut out = Vec::new();
    for entry in entries {
        out.push(entry?.file_name().to_string_lossy().into_owned());
    }
    out.sort();
    Ok(out)
}

/// The time of a version, as the command line takes it.
fn time_of(version: &Value) -> Result<String> {
    Ok(version["time"].as_str().context("a version has a time")?.to_owned())
}

/// Waits until the clock shows another second, so that a later change is later in every name.
fn next_second() -> Result<()> {
    let second = || -> Result<u64> {
        Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs())
    };
    let from = second()?;
    wait::until("the clock's next second", BOUND, || Ok((second()? > from).then_some(())))
}

/// The present second in UTC, as a name.
fn now() -> Result<String> {
    let secs = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let at = format!("@{secs}");
    let mut date = program::command("date", ["-u", "-d", &at, "+%Y-%m-%dT%H:%M:%SZ"]);
    Ok(program::ok(&mut date)?.trim().to_owned())
}

fn restore(device: &Device, file: &str, args: &[&str]) -> Result<Ran> {
    let path = device.path(file);
    device.try_raw(&[&["restore", text(&path)?], args].concat())
}

fn must(ran: Ran) -> Result<String> {
    ensure!(ran.code == 0, "ended with {}\n{}{}", ran.code, ran.out, ran.err);
    Ok(ran.out)
}

fn errno(result: std::io::Result<impl Sized>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

const EROFS: Option<i32> = Some(30);

/// Insists that what is below `shown` is `expected`.
fn is_like(shown: &Path, expected: &Tree) -> Result<()> {
    let differences = Tree::read(shown)?.differences(expected);
    ensure!(differences.is_empty(), "{}: {differences}", shown.display());
    Ok(())
}

/// Bytes in the files of the device's packs.
fn stored(device: &Device) -> Result<u64> {
    let (mut bytes, mut open) = (0, vec![device.store_dir()?.join("cas/packs")]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => open.push(entry.path()),
                false => bytes += entry.metadata()?.len(),
            }
        }
    }
    Ok(bytes)
}

fn pair(site: &Site) -> Result<(Device, Device)> {
    let mut anna = Device::local(site, "anna")?;
    anna.mount()?;
    let mut bert = Device::local(site, "bert")?;
    bert.join_drive_of(&anna)?;
    anna.wait_online(1)?;
    bert.wait_online(1)?;
    Ok((anna, bert))
}

#[test]
fn a_restore_by_way_of_the_history_leaves_the_history_in_its_place() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let mut anna = Device::local(&site, "anna")?;
    anna.mount()?;
    fs::create_dir(anna.path("d"))?;
    for content in ["one", "two"] {
        fs::write(anna.path("d/f"), content)?;
        anna.sync()?;
    }
    let versions = anna.history("d/f")?;
    let first = versions[1]["version"].as_str().context("an id")?.to_owned();
    let folder = ".history/d/f";
    let shown = names(&anna.path(folder))?;
    let of_one = format!("{folder}/{}", shown.first().context("no versions")?);
    must(restore(&anna, &of_one, &["--version", &first])?)?;
    ensure!(fs::read(anna.path("d/f"))? == b"one");
    fs::write(anna.path("d/f"), "three")?;
    must(restore(&anna, folder, &["--version", &first])?)?;
    ensure!(fs::read(anna.path("d/f"))? == b"one");
    let kept = anna.path("kept");
    must(restore(&anna, folder, &["--version", &first, "--to", text(&kept)?])?)?;
    for dest in [".history", ".history/x", ".snapshots", ".snapshots/x"] {
        let dest = anna.path(dest);
        let ran = restore(&anna, "d/f", &["--version", &first, "--to", text(&dest)?])?;
        ensure!(ran.code == 1 && ran.err.contains("show the past"), "{}", ran.err);
    }
    let outside = restore(&anna, "d/f", &["--version", &first, "--to", "/tmp/not-in-a-drive"])?;
    ensure!(outside.code == 1 && outside.err.contains("cannot restore to"), "{}", outside.err);
    let top = restore(&anna, "", &["--version", &first])?;
    ensure!(top.code == 1 && top.err.contains("the drive is a folder"), "{}", top.err);
    ensure!(names(&anna.path(folder))?.len() > 2, "the history is hidden");
    ensure!(names(&anna.mount_dir())? == ["d", "kept"], "{:?}", names(&anna.mount_dir())?);
    Ok(())
}

#[test]
fn versions_of_a_file_are_reached_when_a_folder_has_had_its_name() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let mut anna = Device::local(&site, "anna")?;
    anna.mount()?;
    fs::write(anna.path("z"), "file")?;
    anna.sync()?;
    fs::remove_file(anna.path("z"))?;
    anna.sync()?;
    fs::create_dir(anna.path("z"))?;
    fs::write(anna.path("z/in"), "in")?;
    anna.sync()?;
    let versions = anna.history("z")?;
    let id = versions[0]["version"].as_str().context("an id")?.to_owned();
    let now = restore(&anna, "z", &["--version", &id])?;
    ensure!(now.code == 1 && now.err.contains("is a folder now"), "{}", now.err);
    let none = restore(&anna, "z", &["--version", "ffffffffffff"])?;
    ensure!(none.code == 1 && none.err.contains("folders have no versions"), "{}", none.err);
    let z2 = anna.path("z2");
    must(restore(&anna, "z", &["--version", &id, "--to", text(&z2)?])?)?;
    ensure!(fs::read(&z2)? == b"file" && fs::read(anna.path("z/in"))? == b"in");
    fs::remove_dir_all(anna.path("z"))?;
    anna.sync()?;
    must(restore(&anna, "z", &["--version", &id])?)?;
    ensure!(fs::read(anna.path("z"))? == b"file");
    Ok(())
}

#[test]
fn a_name_that_is_not_listed_is_found_before_and_after_a_listing() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("ip"));
    let site = Site::new()?;
    let net = Net::new()?;
    let hosts = [net.host()?, net.host()?];
    let mut anna = Device::on(&site, "anna", &hosts[0])?;
    let mut bert = Device::on(&site, "bert", &hosts[1])?;
    anna.mount()?;
    bert.join_drive_of(&anna)?;
    agree(&[&anna, &bert])?;
    net.cut(&hosts[1])?;
    bert.wait_online(0)?;
    // Which of the two is the copy is the clocks' to say, for both names alike.
    for (one, other, name) in [(&anna, &bert, "n"), (&bert, &anna, "m")] {
        fs::write(one.path(name), "a file")?;
        fs::create_dir(other.path(name))?;
        fs::write(other.path(&format!("{name}/kid")), "kid")?;
    }
    for device in [&anna, &bert] {
        device.cli(&["sync", "--timeout", "1s"])?;
    }
    net.heal(&hosts[1])?;
    anna.wait_online(1)?;
    agree(&[&anna, &bert])?;
    let all = names(&anna.mount_dir())?;
    let copy = all.iter().find(|n| n.contains("conflict") && anna.path(n).is_dir());
    let copy = copy.with_context(|| format!("no copy of a folder in {all:?}"))?;
    let past = anna.path(&format!(".history/{copy}"));
    ensure!(past.is_dir(), "not found before a listing");
    names(&anna.path(".history"))?;
    ensure!(past.is_dir(), "not found after a listing");
    fs::remove_dir_all(anna.path(copy))?;
    anna.sync()?;
    let versions = anna.history(&format!("{copy}/kid"))?;
    ensure!(versions.len() == 1, "{versions:?}");
    Ok(())
}

#[test]
fn snapshots_whose_names_are_found_alike_are_one() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let mut anna = Device::local(&site, "anna")?;
    anna.mount()?;
    anna.cli(&["snapshot", "e\u{301}"])?;
    let ran = anna.try_cli(&["snapshot", "\u{e9}"])?;
    ensure!(ran.code == 1 && ran.err.contains("already"), "{}", ran.err);
    Ok(())
}

#[test]
fn every_version_of_a_file_is_a_file_in_its_history_folder() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let (anna, bert) = pair(&site)?;
    let texts = ["first", "second, longer", "third"];
    fs::create_dir(anna.path("shots"))?;
    for content in texts {
        fs::write(anna.path("shots/scene.txt"), content)?;
        fs::set_permissions(anna.path("shots/scene.txt"), fs::Permissions::from_mode(0o640))?;
        anna.sync()?;
        next_second()?;
    }
    agree(&[&anna, &bert])?;
    for device in [&anna, &bert] {
        let folder = device.path(".history/shots/scene.txt");
        let all = names(&folder)?;
        let read: Vec<String> =
            all.iter().map(|n| Ok(fs::read_to_string(folder.join(n))?)).collect::<Result<_>>()?;
        for content in texts {
            ensure!(read.iter().any(|r| r == content), "{content:?} is not in {all:?}: {read:?}");
        }
        let history = device.history("shots/scene.txt")?;
        ensure!(all.len() == history.len(), "{all:?}: {history:?}");
        for name in &all {
            let path = folder.join(name);
            let mut value = [0; 128];
            let state = rustix::fs::getxattr(&path, "user.atelier.state", &mut value)?;
            ensure!(&value[..state] == b"past");
            let id = rustix::fs::getxattr(&path, "user.atelier.version", &mut value)?;
            let id = String::from_utf8(value[..id].to_vec())?;
            let version = history.iter().find(|version| version["version"] == id.as_str());
            let version = version.with_context(|| format!("{name} is {id}, not in history"))?;
            let second = time_of(version)?.get(..19).context("a time")?.replace(':', ".");
            ensure!(name.starts_with(&second), "{name} is not from {second}");
            ensure!(name.ends_with("scene.txt"), "{name}");
            let meta = fs::metadata(&path)?;
            ensure!(version["size"] == meta.len(), "{name} has {} bytes", meta.len());
            ensure!(meta.mtime() > 0);
            let newest = version == &history[0];
            ensure!(!newest || meta.mode() & 0o777 == 0o640);
        }
    }
    // A removed file's versions are still there, under the name it had, and so are a removed folder's.
    fs::remove_dir_all(bert.path("shots"))?;
    agree(&[&anna, &bert])?;
    ensure!(!anna.path("shots").exists());
    let folder = anna.path(".history/shots/scene.txt");
    ensure!(names(&folder)?.len() >= texts.len());
    ensure!(names(&anna.path(".history"))? == ["shots"], "what is removed is listed there");
    let listed = anna.history(".history/shots/scene.txt")?;
    ensure!(listed.len() == anna.history("shots/scene.txt")?.len());
    Ok(())
}

#[test]
fn a_snapshot_is_the_whole_tree_as_it_was_on_every_device() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let (anna, bert) = pair(&site)?;
    fs::create_dir_all(anna.path("a/b"))?;
    fs::write(anna.path("a/run.sh"), "#!/bin/sh\n")?;
    fs::set_permissions(anna.path("a/run.sh"), fs::Permissions::from_mode(0o755))?;
    fs::write(anna.path("a/b/data.bin"), vec![7; 300_000])?;
    fs::write(anna.path("gone soon"), "x")?;
    symlink("a/run.sh", anna.path("link"))?;
    agree(&[&anna, &bert])?;
    // What is closed but not published yet belongs to it.
    fs::write(bert.path("draft.txt"), "just written")?;
    let expected = Tree::read(&bert.mount_dir())?;
    bert.cli(&["snapshot", "first cut"])?;
    let at = now()?;
    next_second()?;
    fs::write(bert.path("a/b/data.bin"), "other")?;
    fs::rename(bert.path("a"), bert.path("renamed"))?;
    fs::remove_file(bert.path("gone soon"))?;
    fs::write(bert.path("later"), "later")?;
    agree(&[&anna, &bert])?;
    for device in [&anna, &bert] {
        is_like(&device.path(".snapshots/first cut"), &expected)?;
        ensure!(names(&device.path(".snapshots"))?.contains(&"first cut".to_owned()));
    }
    // So is any time, typed in any of its spellings.
    for name in [at.clone(), at.replace(':', "."), at.trim_end_matches('Z').to_owned()] {
        is_like(&anna.path(".snapshots").join(&name), &expected)?;
    }
    let listed: Value = serde_json::from_str(&anna.cli(&["snapshots", "--json"])?)?;
    ensure!(listed[0]["name"] == "first cut" && listed.as_array().is_some_and(|l| l.len() == 1));
    ensure!(listed[0]["time"].as_str().is_some_and(|time| time.ends_with('Z')));
    for name in ["2999-01-01", "2026-02-30", "rubbish", "2026-11-23T25:00", "1999-12-31", "..."] {
        ensure!(errno(fs::metadata(anna.path(".snapshots").join(name))) == Some(2), "{name}");
    }
    for name in ["first cut", "2026-11-23", "a/b", "..", ""] {
        ensure!(anna.try_cli(&["snapshot", name])?.code == 1, "a snapshot called {name:?}");
    }
    Ok(())
}

#[test]
fn nothing_in_the_past_can_be_changed_and_nobody_falls_into_it() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let mut anna = Device::local(&site, "anna")?;
    anna.mount()?;
    fs::create_dir(anna.path("dir"))?;
    fs::write(anna.path("dir/file"), "content")?;
    anna.cli(&["snapshot", "s"])?;
    let folder = anna.path(".history/dir/file");
    let version = folder.join(names(&folder)?.first().context("a version")?);
    let old = anna.path(".snapshots/s/dir/file");
    for dir in [
        anna.path(".snapshots"),
        anna.path(".snapshots/s"),
        anna.path(".snapshots/s/dir"),
        anna.path(".history"),
        anna.path(".history/dir"),
        folder.clone(),
    ] {
        let shown = dir.display();
        let new = dir.join("new");
        ensure!(errno(fs::write(&new, "x")) == EROFS, "create in {shown}");
        ensure!(errno(fs::create_dir(&new)) == EROFS, "mkdir in {shown}");
        ensure!(errno(symlink("x", &new)) == EROFS, "symlink in {shown}");
        ensure!(errno(fs::rename(anna.path("dir/file"), &new)) == EROFS, "move into {shown}");
        ensure!(errno(fs::hard_link(anna.path("dir/file"), &new)) == EROFS, "link in {shown}");
        ensure!(errno(fs::remove_dir(&dir)) == EROFS, "rmdir {shown}");
        ensure!(errno(fs::rename(&dir, anna.path("taken"))) == EROFS, "rename {shown}");
        let mode = fs::Permissions::from_mode(0o777);
        ensure!(errno(fs::set_permissions(&dir, mode)) == EROFS, "chmod {shown}");
    }
    for file in [&version, &old] {
        let shown = file.display();
        ensure!(fs::read(file)? == b"content", "{shown}");
        ensure!(
            errno(fs::OpenOptions::new().append(true).open(file)) == EROFS,
            "append to {shown}"
        );
        ensure!(errno(fs::File::create(file)) == EROFS, "truncate {shown}");
        ensure!(errno(fs::remove_file(file)) == EROFS, "remove {shown}");
        ensure!(errno(fs::rename(file, anna.path("x"))) == EROFS, "move {shown} away");
        ensure!(errno(fs::rename(anna.path("dir/file"), file)) == EROFS, "move onto {shown}");
        let mode = fs::Permissions::from_mode(0o777);
        ensure!(errno(fs::set_permissions(file, mode)) == EROFS, "chmod {shown}");
        let writable = rustix::fs::access(file, rustix::fs::Access::WRITE_OK);
        ensure!(writable == Err(Errno::ROFS), "access of {shown}");
        let set = rustix::fs::setxattr(file, "user.x", b"x", XattrFlags::empty());
        ensure!(set == Err(Errno::ROFS), "setxattr of {shown}");
    }
    ensure!(errno(fs::create_dir(anna.path(".snapshots/2020-01-01"))) == EROFS);
    // Programs that go through everything go through what is there.
    ensure!(names(&anna.mount_dir())? == ["dir"]);
    let mount = anna.mount_dir();
    let find = program::run(Command::new("find").arg(&mount), BOUND)?;
    ensure!(find.code == 0 && find.out.lines().count() == 3, "{}", find.out);
    let copy = site.dir("copy")?;
    let rsync = Command::new("rsync").arg("-aX").arg(mount.join("")).arg(&copy).output();
    if let Ok(rsync) = rsync {
        ensure!(rsync.status.success(), "{}", String::from_utf8_lossy(&rsync.stderr));
        ensure!(names(&copy)? == ["dir"]);
    }
    let du = program::run(Command::new("du").arg("-a").arg(&mount), BOUND)?;
    ensure!(du.code == 0 && !du.out.contains(".snapshots") && !du.out.contains(".history"));
    let copied = site.dir("copied")?;
    let cp =
        program::run(Command::new("cp").arg("-a").arg(&old).arg(&version).arg(&copied), BOUND)?;
    ensure!(cp.code == 0, "{}", cp.err);
    ensure!(fs::read(copied.join("file"))? == b"content");
    anna.unmount()?;
    let mut anna = anna.option("--show-virtual");
    anna.mount()?;
    ensure!(names(&anna.mount_dir())? == [".history", ".snapshots", "dir"]);
    Ok(())
}

#[test]
fn what_a_file_is_can_be_asked_and_not_set() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let mut anna = Device::local(&site, "anna")?;
    anna.mount()?;
    fs::write(anna.path("file"), "content")?;
    let ask = |file: &str, what: &str| -> Result<String> {
        let mut value = [0; 512];
        let name = format!("user.atelier.{what}");
        let len = rustix::fs::getxattr(anna.path(file), name.as_str(), &mut value)?;
        Ok(String::from_utf8(value[..len].to_vec())?)
    };
    anna.sync()?;
    ensure!(ask("file", "state")? == "official");
    let newest = anna.history("file")?.first().context("a version")?["version"].clone();
    ensure!(ask("file", "version")? == newest);
    ensure!(ask("file", "conflict").is_err(), "only copies have that");
    let set =
        rustix::fs::setxattr(anna.path("file"), "user.atelier.state", b"x", XattrFlags::empty());
    ensure!(set == Err(Errno::ROFS));
    let mut value = [0; 64];
    ensure!(rustix::fs::listxattr(anna.path("file"), &mut value)? == 0, "they are not listed");
    let copy = anna.path("copy");
    let cp = program::run(Command::new("cp").arg("-a").arg(anna.path("file")).arg(&copy), BOUND)?;
    ensure!(cp.code == 0 && cp.err.is_empty(), "{}", cp.err);
    Ok(())
}

#[test]
fn a_conflict_copy_says_of_what_and_by_whom() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let (mut anna, bert) = pair(&site)?;
    fs::write(anna.path("file.txt"), "base")?;
    agree(&[&anna, &bert])?;
    anna.unmount()?;
    fs::write(bert.path("file.txt"), "bert's")?;
    bert.cli(&["sync"])?;
    let bert = {
        let mut bert = bert;
        bert.unmount()?;
        bert
    };
    anna.mount()?;
    fs::write(anna.path("file.txt"), "anna's")?;
    anna.cli(&["status"])?;
    let mut bert = bert;
    bert.mount()?;
    anna.wait_online(1)?;
    bert.wait_online(1)?;
    agree(&[&anna, &bert])?;
    let copy = names(&anna.mount_dir())?.into_iter().find(|n| n.contains("(conflict "));
    let copy = copy.context("a conflict copy")?;
    let who = if copy.contains("(conflict anna ") { "anna" } else { "bert" };
    for device in [&anna, &bert] {
        let mut value = [0; 512];
        let path = device.path(&copy);
        let len = rustix::fs::getxattr(&path, "user.atelier.state", &mut value)?;
        ensure!(&value[..len] == b"conflict");
        let len = rustix::fs::getxattr(&path, "user.atelier.conflict", &mut value)?;
        ensure!(value[..len] == *format!("file.txt by {who}").as_bytes());
    }
    Ok(())
}

#[test]
fn a_file_is_restored_to_a_version_or_a_time_and_that_can_be_undone() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let (anna, bert) = pair(&site)?;
    let mut times = Vec::new();
    for content in ["one", "two", "three"] {
        fs::write(anna.path("file"), content)?;
        anna.sync()?;
        times.push(now()?);
        next_second()?;
    }
    let history = anna.history("file")?;
    let id = |at: usize| -> Result<String> {
        let version = history.get(at).context("a version")?;
        Ok(version["version"].as_str().context("an id")?.to_owned())
    };
    let before = stored(&anna)?;
    must(restore(&anna, "file", &["--version", &id(2)?[..12]])?)?;
    ensure!(fs::read(anna.path("file"))? == b"one");
    bert.wait_bytes("file", b"one")?;
    ensure!(stored(&anna)? == before, "no bytes are stored twice");
    let after = anna.history("file")?;
    ensure!(after.len() == 4 && after[0]["official"] == true, "a restore is a version: {after:?}");
    // Undone by what it was before, and to a time.
    must(restore(&anna, "file", &["--version", &id(0)?])?)?;
    ensure!(fs::read(anna.path("file"))? == b"three");
    must(restore(&anna, "file", &["--at", &times[1]])?)?;
    ensure!(fs::read(anna.path("file"))? == b"two");
    // Beside it, and back after it was removed, with what was written but not published.
    let dest = anna.path("new/place");
    must(restore(&anna, "file", &["--at", &times[0], "--to", text(&dest)?])?)?;
    ensure!(fs::read(&dest)? == b"one" && fs::read(anna.path("file"))? == b"two");
    let again = restore(&anna, "file", &["--at", &times[0], "--to", text(&dest)?])?;
    ensure!(again.code == 1 && again.err.contains("exists"), "{}", again.err);
    fs::write(anna.path("file"), "unsaved?")?;
    fs::remove_file(anna.path("file"))?;
    must(restore(&anna, "file", &["--at", &times[2]])?)?;
    ensure!(fs::read(anna.path("file"))? == b"three");
    for (args, code, says) in [
        (vec!["--version", "ffffffff"], 1, "no version"),
        (vec!["--at", "2001-01-01"], 1, "did not exist"),
        (vec!["--at", "yesterday"], 2, "no time"),
        (vec!["--version", "00", "--at", "2026-01-01"], 2, "cannot be used"),
        (vec![], 2, "required"),
    ] {
        let ran = restore(&anna, "file", &args)?;
        ensure!(ran.code == code && ran.err.contains(says), "{args:?}: {} {}", ran.code, ran.err);
    }
    ensure!(restore(&anna, "never", &["--version", "0"])?.code == 1);
    agree(&[&anna, &bert])?;
    ensure!(fs::read(bert.path("file"))? == b"three");
    Ok(())
}

#[test]
fn a_folder_is_made_what_it_was_and_a_removed_one_comes_back() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let (anna, bert) = pair(&site)?;
    fs::create_dir_all(anna.path("job/sub/deep"))?;
    fs::write(anna.path("job/kept"), "kept")?;
    fs::write(anna.path("job/changed"), "old")?;
    fs::write(anna.path("job/sub/removed"), "removed")?;
    fs::write(anna.path("job/sub/deep/file"), "deep")?;
    fs::set_permissions(anna.path("job/sub/deep/file"), fs::Permissions::from_mode(0o755))?;
    symlink("kept", anna.path("job/link"))?;
    agree(&[&anna, &bert])?;
    let was = Tree::read(&anna.path("job"))?;
    let then = now()?;
    next_second()?;
    fs::write(anna.path("job/changed"), "new")?;
    fs::remove_dir_all(anna.path("job/sub"))?;
    fs::remove_file(anna.path("job/link"))?;
    fs::create_dir_all(anna.path("job/link/now a folder"))?;
    fs::write(anna.path("job/later"), "later")?;
    agree(&[&anna, &bert])?;
    let changed = Tree::read(&anna.path("job"))?;
    let before = now()?;
    next_second()?;
    let entries = |device: &Device| -> Result<usize> { Ok(device.history("job/changed")?.len()) };
    let count = entries(&anna)?;
    must(restore(&anna, "job", &["--at", &then])?)?;
    is_like(&anna.path("job"), &was)?;
    ensure!(entries(&anna)? == count + 1);
    agree(&[&anna, &bert])?;
    is_like(&bert.path("job"), &was)?;
    let again = must(restore(&anna, "job", &["--at", &then])?)?;
    ensure!(again.contains("nothing to do"), "{again}");
    // Undone the same way.
    must(restore(&bert, "job", &["--at", &before])?)?;
    is_like(&bert.path("job"), &changed)?;
    fs::remove_dir_all(bert.path("job"))?;
    agree(&[&anna, &bert])?;
    ensure!(!anna.path("job").exists());
    must(restore(&anna, "job", &["--at", &then])?)?;
    is_like(&anna.path("job"), &was)?;
    let dest = anna.path("elsewhere");
    must(restore(&anna, "job/sub", &["--at", &then, "--to", text(&dest)?])?)?;
    ensure!(fs::read(dest.join("deep/file"))? == b"deep");
    let folder = restore(&anna, "job", &["--version", "00"])?;
    ensure!(folder.code == 1 && folder.err.contains("folder"), "{}", folder.err);
    agree(&[&anna, &bert])?;
    is_like(&bert.path("job"), &was)?;
    Ok(())
}

#[test]
fn a_reader_takes_no_snapshot_and_restores_nothing() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let mut anna = Device::local(&site, "anna")?;
    anna.mount()?;
    fs::write(anna.path("file"), "one")?;
    anna.sync()?;
    next_second()?;
    fs::write(anna.path("file"), "two")?;
    anna.sync()?;
    let mut reader = Device::local(&site, "rita")?;
    reader.join(&anna.invite(&["--role", "reader"])?)?;
    reader.wait_bytes("file", b"two")?;
    ensure!(reader.try_cli(&["snapshot", "mine"])?.code == 4);
    let id = reader.history("file")?.get(1).context("a version")?["version"].clone();
    let id = id.as_str().context("an id")?;
    ensure!(restore(&reader, "file", &["--version", id])?.code == 4);
    // Looking is what readers may.
    let folder = reader.path(".history/file");
    ensure!(names(&folder)?.len() == 2);
    let first = folder.join(names(&folder)?.first().context("a version")?);
    ensure!(fs::read(first)? == b"one");
    Ok(())
}

#[test]
fn an_old_version_costs_what_it_changed() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let mut anna = Device::local(&site, "anna")?;
    anna.mount()?;
    const LEN: usize = 8 << 20;
    let mut bytes = tree::random_bytes(LEN, 1);
    fs::write(anna.path("big"), &bytes)?;
    anna.sync()?;
    let first = stored(&anna)?;
    ensure!(first >= LEN as u64);
    for n in 0..5 {
        let at = LEN / 7 * (n + 1);
        bytes[at..at + 100].fill(n as u8);
        fs::write(anna.path("big"), &bytes)?;
        anna.sync()?;
    }
    let grown = stored(&anna)? - first;
    ensure!(grown < 2 << 20, "five edits of 100 bytes took {grown} bytes");
    let folder = anna.path(".history/big");
    let all = names(&folder)?;
    // A process that is started meanwhile closes its copy of the descriptor, which may make one more.
    ensure!(all.len() >= 6, "{all:?}");
    let mut found = false;
    for name in &all {
        found = found || fs::read(folder.join(name))? == bytes;
    }
    ensure!(found, "the newest version is among them");
    Ok(())
}

#[test]
fn blender_opens_an_old_version() -> Result<()> {
    needs!(Need::Fuse, Need::Program("blender"));
    let site = Site::new()?;
    let (anna, bert) = pair(&site)?;
    let made = blender::make(&anna.path("scene.blend"), 60)?;
    anna.sync()?;
    next_second()?;
    let edited = blender::edit(&anna.path("scene.blend"), "Fox")?;
    ensure!(edited != made);
    anna.cli(&["snapshot", "with fox"])?;
    blender::edit(&anna.path("scene.blend"), "Hound")?;
    agree(&[&anna, &bert])?;
    let folder = bert.path(".history/scene.blend");
    let first = names(&folder)?.first().context("a version")?.clone();
    ensure!(blender::list(&folder.join(first))? == made);
    ensure!(blender::list(&bert.path(".snapshots/with fox/scene.blend"))? == edited);
    Ok(())
}
