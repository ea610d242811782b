//! `atelier gc`: the room of old versions comes back, and nothing that is needed goes, whatever happens meanwhile.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::harness::clock::Offset;
use tests::harness::device::{Device, agree, text};
use tests::harness::site::Site;
use tests::harness::skip::Need;
use tests::harness::tree::{self, Tree};
use tests::harness::wait;
use tests::needs;

const MIB: u64 = 1 << 20;
/// Keep nothing that was replaced.
const NOTHING: [&str; 4] = ["--keep-all", "0s", "--keep-daily", "0s"];

fn gc(device: &Device, args: &[&str]) -> Result<Value> {
    let out = device.cli(&[&["gc", "--json"], args].concat())?;
    serde_json::from_str(&out).with_context(|| format!("gc --json printed {out:?}"))
}

fn number(value: &Value, key: &str) -> Result<u64> {
    value[key].as_u64().with_context(|| format!("no number {key} in {value}"))
}

/// Bytes of all packs.
fn packs(device: &Device) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(device.store_dir()?.join("cas/packs"))? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

/// Saves a file of `len` random bytes again and again, each version on its own.
fn save_versions(
    device: &Device,
    name: &str,
    len: usize,
    seeds: std::ops::Range<u64>,
) -> Result<()> {
    for seed in seeds {
        fs::write(device.path(name), tree::random_bytes(len, seed))?;
        device.sync()?;
    }
    Ok(())
}

fn sound(device: &Device) -> Result<()> {
    let verified = device.json("verify")?;
    ensure!(verified["bad"] == 0 && verified["journal_bad"] == 0, "verify: {verified}");
    Ok(())
}

fn two(site: &Site) -> Result<(Device, Device)> {
    let mut ann = Device::local(site, "Ann")?;
    let mut bob = Device::local(site, "Bob")?;
    ann.mount()?;
    bob.join_drive_of(&ann)?;
    Ok((ann, bob))
}

#[test]
fn old_versions_go_on_both_devices_and_a_joiner_is_in_sync_without_them() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let (ann, bob) = two(&site)?;
    save_versions(&ann, "scene", 3 << 20, 0..6)?;
    fs::write(ann.path("other"), tree::random_bytes(1 << 20, 99))?;
    fs::write(ann.path("removed"), tree::random_bytes(2 << 20, 98))?;
    agree(&[&ann, &bob])?;
    fs::remove_file(ann.path("removed"))?;
    agree(&[&ann, &bob])?;
    let before = Tree::read(&ann.mount_dir())?;

    // The default keeps all of it.
    let kept = gc(&ann, &[])?;
    ensure!(number(&kept, "versions_let_go")? == 0, "{kept}");
    ensure!(packs(&ann)? > 20 * MIB);
    // Five old versions of one file and what was removed.
    let old = number(&kept, "history_bytes")?;
    ensure!((17 * MIB..18 * MIB).contains(&old), "{kept}");
    ensure!(number(&ann.status()?["history"], "bytes")? == old, "{}", ann.status()?);

    // Bob may collect, but not say how long versions are kept.
    let refused = bob.try_cli(&[&["gc"], &NOTHING[..]].concat())?;
    ensure!(refused.code == 4, "an editor set the policy: {} {}", refused.code, refused.err);

    let counted = gc(&ann, &[&["--dry-run"], &NOTHING[..]].concat())?;
    ensure!(number(&counted, "freed_bytes")? > 14 * MIB, "{counted}");
    ensure!(packs(&ann)? > 20 * MIB, "a dry run removed something");
    let status = ann.status()?;
    ensure!(status["policy"]["keep_all_s"] == 30 * 86_400, "a dry run set the policy: {status}");
    ensure!(status["last_gc"].is_object() && number(&status, "store_bytes")? > 20 * MIB);

    let collected = gc(&ann, &NOTHING)?;
    let left = packs(&ann)?;
    ensure!(left < 5 * MIB, "{left} bytes are left: {collected}");
    ensure!(number(&collected, "freed_bytes")? > 14 * MIB && collected["stopped"].is_null());
    ensure!(number(&ann.status()?["history"], "bytes")? < MIB, "{}", ann.status()?);
    wait::until("the policy reaches Bob", Duration::from_secs(30), || {
        Ok((bob.status()?["policy"]["keep_all_s"] == 0).then_some(()))
    })?;
    gc(&bob, &[])?;
    ensure!(packs(&bob)? < 5 * MIB, "Bob has {} bytes", packs(&bob)?);

    for device in [&ann, &bob] {
        let differences = before.differences(&Tree::read(&device.mount_dir())?);
        ensure!(differences.is_empty(), "{}: {differences}", device.name());
        sound(device)?;
        let status = device.status()?;
        ensure!(status["in_sync"] == true && status["safe_to_close"] == true, "{status}");
        let versions = device.history("scene")?;
        let gone: Vec<bool> = versions.iter().map(|v| v["gone"] == true).collect();
        ensure!(gone == [false, true, true, true, true, true], "{gone:?}");
    }

    // Nobody has the old versions any more, and a joiner does not wait for them.
    let mut cat = Device::local(&site, "Cat")?;
    cat.join_drive_of(&ann)?;
    agree(&[&ann, &bob, &cat])?;
    let differences = before.differences(&Tree::read(&cat.mount_dir())?);
    ensure!(differences.is_empty(), "Cat: {differences}");
    wait::until("Cat is in sync", Duration::from_secs(60), || {
        let status = cat.status()?;
        Ok((status["in_sync"] == true && status["arriving"] == 0).then_some(()))
    })
    .with_context(|| format!("{:?}", cat.status()))?;
    sound(&cat)?;
    // Also after a start that looks at everything again.
    cat.kill()?;
    cat.mount()?;
    agree(&[&ann, &cat])?;
    ensure!(cat.status()?["arriving"] == 0);
    Ok(())
}

#[test]
fn what_is_on_no_other_device_stays_and_a_lone_device_goes_by_the_policy() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let mut ann = Device::local(&site, "Ann")?;
    ann.mount()?;
    save_versions(&ann, "lone", 2 << 20, 0..4)?;
    gc(&ann, &NOTHING)?;
    ensure!(packs(&ann)? < 3 * MIB, "alone, the policy decides");

    let mut bob = Device::local(&site, "Bob")?;
    gc(&ann, &["--keep-all", "30d", "--keep-daily", "30d"])?;
    bob.join_drive_of(&ann)?;
    agree(&[&ann, &bob])?;
    bob.unmount()?;
    // What Bob has never had.
    save_versions(&ann, "apart", 2 << 20, 10..14)?;
    let kept = gc(&ann, &NOTHING)?;
    ensure!(number(&kept, "versions_alone")? == 3, "{kept}");
    ensure!(packs(&ann)? > 9 * MIB, "what nobody else has is gone: {kept}");
    sound(&ann)
}

#[test]
fn an_open_old_version_reads_on_and_ends_with_its_last_reader() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let (ann, bob) = two(&site)?;
    let old = tree::random_bytes(6 << 20, 1);
    fs::write(ann.path("scene"), &old)?;
    agree(&[&ann, &bob])?;
    let mut reader = File::open(bob.path("scene"))?;
    // A part only, so that the rest is not in the kernel's cache.
    let mut begin = vec![0; 4096];
    reader.read_exact(&mut begin)?;
    fs::write(ann.path("scene.new"), tree::random_bytes(1 << 20, 2))?;
    fs::rename(ann.path("scene.new"), ann.path("scene"))?;
    agree(&[&ann, &bob])?;
    gc(&ann, &NOTHING)?;
    agree(&[&ann, &bob])?;
    let during = gc(&bob, &[])?;
    ensure!(packs(&bob)? > 6 * MIB, "{during}");
    ensure!(packs(&ann)? < 3 * MIB, "Ann has it no more");
    reader.seek(SeekFrom::Start(0))?;
    let mut all = Vec::new();
    reader.read_to_end(&mut all)?;
    ensure!(all == old, "the open file reads otherwise");
    drop(reader);
    wait::until("the last reader is gone", Duration::from_secs(30), || {
        gc(&bob, &[])?;
        Ok((packs(&bob)? < 3 * MIB).then_some(()))
    })?;
    sound(&bob)
}

#[test]
fn a_collection_killed_again_and_again_loses_nothing() -> Result<()> {
    needs!(Need::Fuse);
    const KILLS: u64 = 12;
    let site = Site::new()?;
    let mut ann = Device::local(&site, "Ann")?;
    ann.mount()?;
    gc(&ann, &NOTHING)?;
    fs::create_dir(ann.path("kept"))?;
    for seed in 0..40 {
        fs::write(ann.path(&format!("kept/{seed}")), tree::random_bytes(120_000, seed))?;
    }
    ann.sync()?;
    let kept = Tree::read(&ann.path("kept"))?;
    for round in 0..KILLS {
        // Something to collect, between what is kept and what is being written.
        fs::write(ann.path("scene"), tree::random_bytes(4 << 20, 1_000 + round))?;
        fs::write(ann.path(&format!("new {round}")), tree::random_bytes(90_000, 2_000 + round))?;
        ann.sync()?;
        std::thread::scope(|scope| -> Result<()> {
            let mut command = ann.command()?;
            command.arg("gc").arg(ann.mount_dir());
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            let mut child = command.spawn()?;
            wait::breathe(Duration::from_micros(round * 7_919 % 60_000));
            ann.kill()?;
            let _ = scope;
            wait::exit_of(&mut child, Duration::from_secs(60))?.context("gc hangs")?;
            Ok(())
        })?;
        ann.mount().with_context(|| format!("mount after kill {round}"))?;
        let differences = kept.differences(&Tree::read(&ann.path("kept"))?);
        ensure!(differences.is_empty(), "after kill {round}: {differences}");
        ensure!(fs::read(ann.path("scene"))? == tree::random_bytes(4 << 20, 1_000 + round));
        for written in 0..=round {
            let found = fs::read(ann.path(&format!("new {written}")))?;
            ensure!(found == tree::random_bytes(90_000, 2_000 + written), "new {written}");
        }
        sound(&ann).with_context(|| format!("after kill {round}"))?;
    }
    gc(&ann, &[])?;
    ensure!(packs(&ann)? < 14 * MIB, "{} bytes are left", packs(&ann)?);
    sound(&ann)
}

#[test]
fn writers_beside_collections_lose_nothing() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let (ann, bob) = two(&site)?;
    gc(&ann, &NOTHING)?;
    let done = AtomicBool::new(false);
    let saves = AtomicU64::new(0);
    let last = std::thread::scope(|scope| -> Result<Vec<u64>> {
        // As careful applications save, with contents that come and go and come again.
        let writers: Vec<_> = (0..2u64)
            .map(|writer| {
                let (ann, done, saves) = (&ann, &done, &saves);
                scope.spawn(move || -> Result<u64> {
                    let mut round = 0u64;
                    loop {
                        let seed = 10 + (round * 3 + writer) % 4;
                        let temp = ann.path(&format!("document {writer}.tmp"));
                        let mut file = File::create(&temp)?;
                        for piece in tree::random_bytes(700_000, seed).chunks(100_000) {
                            file.write_all(piece)?;
                        }
                        file.sync_all()?;
                        drop(file);
                        fs::rename(&temp, ann.path(&format!("document {writer}")))?;
                        saves.fetch_add(1, Ordering::Relaxed);
                        round += 1;
                        if done.load(Ordering::Acquire) {
                            return Ok(seed);
                        }
                    }
                })
            })
            .collect();
        let collections = || -> Result<()> {
            for _ in 0..15 {
                gc(&ann, &[])?;
                gc(&bob, &[])?;
            }
            Ok(())
        };
        let outcome = collections();
        done.store(true, Ordering::Release);
        let last: Result<Vec<u64>> = writers
            .into_iter()
            .map(|writer| writer.join().unwrap_or_else(|_| anyhow::bail!("a writer panicked")))
            .collect();
        outcome.and(last)
    })?;
    ensure!(saves.load(Ordering::Relaxed) > 10, "the writers did nothing");
    agree(&[&ann, &bob])?;
    for device in [&ann, &bob] {
        for (writer, seed) in last.iter().enumerate() {
            let found = fs::read(device.path(&format!("document {writer}")))?;
            ensure!(found == tree::random_bytes(700_000, *seed), "{} {writer}", device.name());
        }
        sound(device)?;
    }
    Ok(())
}

#[test]
fn a_clock_that_is_years_ahead_lets_go_of_nothing() -> Result<()> {
    needs!(Need::Fuse, Need::Program("cc"));
    let site = Site::new()?;
    let mut ann = Device::local(&site, "Ann")?;
    ann.mount()?;
    save_versions(&ann, "scene", 1 << 20, 0..3)?;
    ann.unmount()?;
    let mut ann = ann.clock(Offset::AheadDays(4_000));
    ann.mount()?;
    fs::write(ann.path("scene"), tree::random_bytes(1 << 20, 9))?;
    let kept = gc(&ann, &[])?;
    ensure!(number(&kept, "versions_let_go")? == 0, "{kept}");
    let path = ann.path("scene");
    let out = ann.try_raw(&["gc", text(&path)?, "--dry-run", "--keep-all", "10d"])?;
    ensure!(out.code == 0 && out.out.contains("0 of 4 versions"), "{}{}", out.out, out.err);
    ensure!(packs(&ann)? > 4 * MIB);
    sound(&ann)
}

#[test]
fn a_restore_brings_collected_bytes_from_who_still_has_them_or_changes_nothing() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let (ann, mut bob) = two(&site)?;
    save_versions(&ann, "scene", 1 << 20, 0..3)?;
    agree(&[&ann, &bob])?;
    let versions = ann.history("scene")?;
    let oldest = versions.last().and_then(|row| row["version"].as_str()).context("no version")?;
    gc(&ann, &NOTHING)?;
    ensure!(packs(&ann)? < 2 * MIB, "nothing was collected");
    let now = fs::read(ann.path("scene"))?;

    bob.unmount()?;
    let scene = ann.path("scene");
    let restore = ["restore", text(&scene)?, "--version", oldest];
    let refused = ann.try_raw(&restore)?;
    ensure!(refused.code == 1 && refused.err.contains("gone"), "{}: {}", refused.code, refused.err);
    ensure!(fs::read(&scene)? == now, "a refused restore changed the file");
    ensure!(ann.history("scene")?.len() == versions.len(), "a refused restore made a version");

    // Bob has collected nothing.
    bob.mount()?;
    ann.wait_online(1)?;
    let restored = ann.try_raw(&restore)?;
    ensure!(restored.code == 0, "{}{}", restored.out, restored.err);
    ensure!(fs::read(&scene)? == tree::random_bytes(1 << 20, 0), "another version was restored");
    gc(&ann, &[])?;
    ensure!(fs::read(&scene)? == tree::random_bytes(1 << 20, 0), "what was restored was collected");
    sound(&ann)
}
