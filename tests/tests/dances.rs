//! Saves as applications do them, danced in a real mount while another device reads as fast as it can.
//!
//! What the kernel makes of the calls is tested here; every pace and every moment of a crash is tested below it, in
//! `vfs`, with the same recordings.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::XattrFlags;
use std::cell::Cell;
use std::os::unix::fs::PermissionsExt;
use tests::harness::dance::{Dance, Folder, Step, content, version_of};
use tests::harness::device::{AGREE_BOUND, Device, agree};
use tests::harness::site::Site;
use tests::harness::skip::Need;
use tests::harness::tree::Tree;
use tests::harness::wait;
use tests::needs;

/// Saves of every document at least.
const SAVES: u32 = 3;
/// And at most, when the machine is so busy that the program was kept from running in the middle of each.
const SAVES_MAX: u32 = 9;
/// Longer between two calls, for whatever reason, and a save may rightly be two versions: the drive waits for 50 ms.
const STEADY: Duration = Duration::from_millis(40);

fn recordings() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dances")
}

/// Saves a version in `dir`; whether it went on without being held up.
fn save(dance: &Dance, dir: &Path, version: u32) -> Result<bool> {
    let steady = Cell::new(true);
    let last: Cell<Option<Instant>> = Cell::new(None);
    let pause = |step: &Step| {
        let late = last.get().is_some_and(|last| last.elapsed() > STEADY);
        steady.set(steady.get() && !late);
        wait::breathe(step.pause);
        last.set((!step.waits_for_disk()).then(Instant::now));
    };
    dance.save(&Folder::new(dir, pause), version)?;
    Ok(steady.get())
}

/// A document of version 0 in a directory of its own.
fn plant(dance: &Dance, dir: &Path) -> Result<()> {
    fs::create_dir(dir)?;
    let path = dir.join(&dance.document);
    fs::write(&path, content(0))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640))?;
    Ok(rustix::fs::setxattr(&path, "user.note", b"x", XattrFlags::empty())?)
}

fn document(dance: &Dance) -> String {
    format!("{}/{}", dance.name, dance.document)
}

/// Reads every document on a device again and again; fails when one is missing, a part, or older than before.
fn watch(device: &Device, dances: &[Dance], done: &AtomicBool) -> Result<u64> {
    let mut newest: BTreeMap<&str, u32> = BTreeMap::new();
    let mut reads = 0;
    while !done.load(Ordering::Relaxed) {
        for dance in dances {
            let path = device.path(&document(dance));
            let bytes = fs::read(&path).with_context(|| format!("{}: missing", dance.name))?;
            let Some(version) = version_of(&bytes) else {
                bail!("{}: {} bytes that are no version", dance.name, bytes.len());
            };
            let before = newest.insert(&dance.name, version).unwrap_or(0);
            ensure!(before <= version, "{}: version {version} after {before}", dance.name);
            reads += 1;
        }
    }
    Ok(reads)
}

/// Saves every document until each was saved without being held up; gives the last versions.
fn save_all<'a>(
    device: &Device,
    dances: &'a [Dance],
    twin: &Path,
) -> Result<BTreeMap<&'a str, u32>> {
    let mut saved: BTreeMap<&str, u32> = BTreeMap::new();
    let mut counted: BTreeMap<&str, bool> = BTreeMap::new();
    for version in 1..=SAVES_MAX {
        let mut steadily: Vec<(&Dance, bool, usize)> = Vec::new();
        for dance in dances {
            let name = dance.name.as_str();
            if version > SAVES && counted.get(name) == Some(&true) {
                continue;
            }
            let before = device.history(&document(dance))?.len();
            let steady = save(dance, &device.path(name), version)?;
            dance.save(&Folder::new(&twin.join(name), |_| {}), version)?;
            saved.insert(name, version);
            steadily.push((dance, steady, before));
        }
        wait::until("everything saved is published", AGREE_BOUND, || {
            Ok((device.status()?["drafts"] == 0).then_some(()))
        })?;
        for (dance, steady, before) in steadily {
            let made = device.history(&document(dance))?.len().saturating_sub(before);
            ensure!(
                made == 1 || (!steady && made > 1),
                "{}: save {version} made {made} versions of the document",
                dance.name
            );
            *counted.entry(&dance.name).or_insert(false) |= steady;
        }
        if version >= SAVES && counted.values().all(|counted| *counted) {
            return Ok(saved);
        }
    }
    let never: Vec<_> = counted.iter().filter(|(_, counted)| !**counted).collect();
    bail!("this machine is too busy to count the versions of {never:?}")
}

#[test]
fn every_recorded_save_is_one_version_and_another_device_never_lacks_the_document() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let mut ann = Device::local(&site, "Ann")?;
    let mut bob = Device::local(&site, "Bob")?;
    ann.mount()?;
    bob.join_drive_of(&ann)?;
    let twin = site.dir("twin")?;
    let dances = Dance::load_all(&recordings())?;
    for dance in &dances {
        plant(dance, &ann.path(&dance.name))?;
        plant(dance, &twin.join(&dance.name))?;
    }
    agree(&[&ann, &bob])?;

    let done = AtomicBool::new(false);
    let saved = std::thread::scope(|scope| -> Result<_> {
        let watcher = scope.spawn(|| watch(&bob, &dances, &done));
        let saved = save_all(&ann, &dances, &twin).and_then(|saved| {
            for dance in &dances {
                let version = saved.get(dance.name.as_str()).context("never saved")?;
                bob.wait_bytes(&document(dance), &content(*version))?;
            }
            Ok(saved)
        });
        done.store(true, Ordering::Relaxed);
        let reads = watcher.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))?;
        let reads = reads.context("on the other device");
        let saved = saved?;
        let reads = reads?;
        let few = dances.len() as u64 * 100;
        ensure!(reads > few, "the watcher looked only {reads} times: it tests nothing");
        Ok(saved)
    })?;
    agree(&[&ann, &bob])?;
    let wanted = Tree::read(&twin)?.without_times();
    for device in [&ann, &bob] {
        let differences = wanted.differences(&Tree::read(&device.mount_dir())?.without_times());
        ensure!(differences.is_empty(), "{} and a plain directory: {differences}", device.name());
        ensure!(device.status()?["conflicts"] == 0, "saving made conflicts");
    }
    for dance in &dances {
        let versions = bob.history(&document(dance))?;
        let saves = *saved.get(dance.name.as_str()).context("never saved")? as usize;
        ensure!(versions.len() > saves, "{}: {} versions", dance.name, versions.len());
        ensure!(versions.iter().all(|version| version["author"] == "Ann"));
    }
    Ok(())
}
