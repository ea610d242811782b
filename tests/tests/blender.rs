//! Real Blender on two devices: what one artist saves the other opens, edits and saves back.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::harness::device::{AGREE_BOUND, Device, agree};
use tests::harness::site::Site;
use tests::harness::skip::Need;
use tests::harness::{blender, wait};
use tests::needs;

const SCENE: &str = "shots/010/scene.blend";

fn two_artists(site: &Site) -> Result<(Device, Device)> {
    let mut ann = Device::local(site, "Ann")?;
    let mut bob = Device::local(site, "Bob")?;
    ann.mount()?;
    bob.join_drive_of(&ann)?;
    fs::create_dir_all(ann.path("shots/010"))?;
    Ok((ann, bob))
}

/// Waits until both devices read the same bytes of the scene, and gives them.
fn same_bytes(from: &Device, to: &Device) -> Result<Vec<u8>> {
    let bytes = fs::read(from.path(SCENE))?;
    to.wait_bytes(SCENE, &bytes)?;
    Ok(bytes)
}

/// Waits until the newest of exactly `count` versions is the one just saved.
fn wait_versions(device: &Device, count: usize) -> Result<()> {
    let what = format!("{} lists {count} versions of the scene", device.name());
    let mut last = 0;
    wait::until(what, AGREE_BOUND, || {
        last = device.history(SCENE)?.len();
        Ok((last == count).then_some(()))
    })
    .with_context(|| format!("it lists {last}"))
}

#[test]
fn a_scene_saved_on_one_device_is_opened_edited_and_saved_on_the_other() -> Result<()> {
    needs!(Need::Fuse, Need::Program("blender"));
    let site = Site::new()?;
    let (ann, bob) = two_artists(&site)?;

    let made = blender::make(&ann.path(SCENE), 200)?;
    same_bytes(&ann, &bob)?;
    ensure!(
        blender::list(&bob.path(SCENE))? == made,
        "Bob's Blender sees other objects than Ann saved"
    );
    wait_versions(&bob, 1)?;

    let edited = blender::edit(&bob.path(SCENE), "Fox")?;
    ensure!(edited.len() == made.len() + 1);
    same_bytes(&bob, &ann)?;
    ensure!(
        blender::list(&ann.path(SCENE))? == edited,
        "Ann's Blender sees other objects than Bob saved"
    );
    wait_versions(&ann, 2)?;

    let again = blender::edit(&ann.path(SCENE), "Hound")?;
    same_bytes(&ann, &bob)?;
    ensure!(blender::list(&bob.path(SCENE))? == again);
    agree(&[&ann, &bob])?;
    for device in [&ann, &bob] {
        wait_versions(device, 3)?;
        let versions = device.history(SCENE)?;
        let authors: Vec<_> =
            versions.iter().filter_map(|version| version["author"].as_str()).collect();
        ensure!(authors == ["Ann", "Bob", "Ann"], "saved by {authors:?}");
        ensure!(versions.iter().filter(|version| version["official"] == true).count() == 1);
        let status = device.status()?;
        ensure!(status["conflicts"] == 0, "saving in turns made {} conflicts", status["conflicts"]);
    }
    let backup = fs::read(ann.path(&format!("{SCENE}1")))?;
    ensure!(blender::is_whole(&backup), "Blender's own backup is not a whole scene");
    bob.wait_bytes(&format!("{SCENE}1"), &backup)
}

#[test]
fn while_one_saves_the_other_never_lacks_the_file_nor_reads_a_part_of_it() -> Result<()> {
    needs!(Need::Fuse, Need::Program("blender"), Need::Program("b2sum"));
    const SAVES: u32 = 40;
    let site = Site::new()?;
    let (ann, bob) = two_artists(&site)?;
    blender::make(&ann.path(SCENE), 120)?;
    same_bytes(&ann, &bob)?;
    let first = blender::hash_with_python(&bob.path(SCENE))?;

    let done = AtomicBool::new(false);
    let (saved, seen, rounds) = std::thread::scope(|scope| -> Result<_> {
        let watcher = scope.spawn(|| -> Result<(BTreeSet<Vec<u8>>, u32)> {
            let mut seen = BTreeSet::new();
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) {
                let bytes =
                    fs::read(bob.path(SCENE)).context("Bob lacks the file while Ann saves")?;
                ensure!(
                    blender::is_whole(&bytes),
                    "Bob reads {} bytes that are no whole scene",
                    bytes.len()
                );
                seen.insert(bytes);
                rounds += 1;
                wait::breathe(Duration::from_millis(2));
            }
            Ok((seen, rounds))
        });
        let saved = blender::save_repeatedly(&ann.path(SCENE), SAVES);
        let settled = same_bytes(&ann, &bob);
        done.store(true, Ordering::Relaxed);
        let (seen, rounds) =
            watcher.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))??;
        settled?;
        Ok((saved?, seen, rounds))
    })?;
    ensure!(rounds > SAVES, "the watcher looked only {rounds} times");
    ensure!(seen.len() > 2, "the watcher saw only {} states: it tests nothing", seen.len());
    let known: BTreeSet<String> = saved.into_iter().chain([first]).collect();
    let copy = site.path().join("seen");
    for bytes in seen {
        fs::write(&copy, bytes)?;
        let hash = blender::hash_with_python(&copy)?;
        ensure!(known.contains(&hash), "Bob read a state that Ann never saved");
    }
    agree(&[&ann, &bob])
}
