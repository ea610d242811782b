//! Bits that flip on disk: reads heal from another device or fail, and never give wrong bytes.

use std::fs;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::io::Errno;
use tests::harness::device::{Device, agree};
use tests::harness::site::Site;
use tests::harness::skip::Need;
use tests::harness::{rot, tree};
use tests::needs;

const LEN: usize = 3 << 20;
/// How long a read may take that nobody can answer.
const EIO_BOUND: Duration = Duration::from_secs(60);

fn two(site: &Site) -> Result<(Device, Device)> {
    let mut ann = Device::local(site, "Ann")?;
    let mut bob = Device::local(site, "Bob")?;
    ann.mount()?;
    bob.join_drive_of(&ann)?;
    Ok((ann, bob))
}

/// Flips a bit in the stored bytes of `content` on the disk of an unmounted device, in several places of it.
fn spoil(device: &Device, content: &[u8]) -> Result<()> {
    let packs = device.store_dir()?.join("cas");
    for at in [content.len() / 5, content.len() / 2, content.len() - 3000] {
        // A chunk may end just there: then the bytes stand in two places, and others are taken.
        let needles = [0, 100, 200].map(|shift| content.get(at + shift..at + shift + 64));
        let hit =
            needles.into_iter().flatten().any(|needle| rot::flip_where(&packs, needle).is_ok());
        ensure!(hit, "the content's bytes stand nowhere below {}", packs.display());
    }
    Ok(())
}

#[test]
fn a_rotten_pack_heals_from_the_other_device() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let (mut ann, bob) = two(&site)?;
    let content = tree::random_bytes(LEN, 1);
    fs::write(ann.path("film"), &content)?;
    agree(&[&ann, &bob])?;
    ann.unmount()?;
    spoil(&ann, &content)?;
    ann.mount()?;
    ann.wait_online(1)?;
    ensure!(fs::read(ann.path("film"))? == content, "a read gave wrong bytes");
    // Healed on disk too: nobody else is needed any more.
    drop(bob);
    ann.unmount()?;
    ann.mount()?;
    ensure!(fs::read(ann.path("film"))? == content, "the healed bytes did not stay");
    Ok(())
}

#[test]
fn a_rotten_pack_that_nobody_can_heal_fails_the_read() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let mut ann = Device::local(&site, "Ann")?;
    ann.mount()?;
    let content = tree::random_bytes(LEN, 2);
    fs::write(ann.path("film"), &content)?;
    fs::write(ann.path("healthy"), tree::random_bytes(LEN, 3))?;
    ann.unmount()?;
    spoil(&ann, &content)?;
    ann.mount()?;
    let started = Instant::now();
    match fs::read(ann.path("film")) {
        Ok(bytes) if bytes == content => anyhow::bail!("the flipped bits hit nothing"),
        Ok(bytes) => anyhow::bail!("{} wrong bytes were read", bytes.len()),
        Err(error) => {
            ensure!(error.raw_os_error() == Some(Errno::IO.raw_os_error()), "failed with {error}");
            ensure!(error.kind() != ErrorKind::NotFound);
        }
    }
    ensure!(started.elapsed() < EIO_BOUND, "the read hung for {:?}", started.elapsed());
    ensure!(fs::read(ann.path("healthy"))? == tree::random_bytes(LEN, 3), "other files suffer too");
    let verified = ann.try_cli(&["verify", "--json"])?;
    ensure!(verified.code == 1, "verify ended with {} although chunks are bad", verified.code);
    let report: serde_json::Value = serde_json::from_str(&verified.out)?;
    ensure!(report["bad"].as_u64().is_some_and(|bad| bad > 0), "verify: {report}");
    Ok(())
}

#[test]
fn verify_repairs_what_another_device_has() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let (mut ann, mut bob) = two(&site)?;
    let content = tree::random_bytes(LEN, 4);
    fs::write(ann.path("film"), &content)?;
    agree(&[&ann, &bob])?;
    // Bob is away, so that nothing heals before it was counted.
    bob.unmount()?;
    ann.unmount()?;
    spoil(&ann, &content)?;
    ann.mount()?;
    let ran = ann.try_cli(&["verify", "--json"])?;
    ensure!(ran.code == 1, "verify of a damaged store ended with {}", ran.code);
    let report: serde_json::Value = serde_json::from_str(&ran.out)?;
    ensure!(report["bad"].as_u64().is_some_and(|bad| bad > 0), "verify: {report}");
    bob.mount()?;
    ann.wait_online(1)?;
    let out = ann.cli(&["verify", "--repair", "--json"])?;
    let report: serde_json::Value = serde_json::from_str(&out)?;
    ensure!(report["bad"] == report["repaired"], "verify --repair: {report}");
    bob.unmount()?;
    let again = ann.json("verify")?;
    ensure!(again["bad"] == 0, "verify after the repair: {again}");
    ensure!(fs::read(ann.path("film"))? == content);
    Ok(())
}

#[test]
fn a_flipped_journal_byte_is_refused_by_everyone() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let (mut ann, mut bob) = two(&site)?;
    for number in 0..30 {
        fs::write(ann.path(&format!("a file called {number:03}")), format!("content {number}"))?;
        ann.sync()?;
    }
    agree(&[&ann, &bob])?;
    let hash = bob.tree_hash()?;
    // Both away, so that the altered journal is what Ann starts with; it is altered in the middle, not at its end.
    bob.unmount()?;
    ann.unmount()?;
    let journal = ann.store_dir()?.join("journal/log");
    let hit = rot::flip_where(&journal, b"a file called 014")?;
    ensure!(!hit.is_empty());
    let refused = ann.mount().is_err();
    bob.mount()?;
    if !refused {
        // It may start with the healthy part and take the rest from Bob; the altered entry is not believed.
        ann.wait_online(1)?;
        agree(&[&ann, &bob])?;
        ensure!(ann.tree_hash()? == hash, "Ann believes an altered journal");
        ensure!(fs::read(ann.path("a file called 014"))? == b"content 14");
    }
    ensure!(bob.tree_hash()? == hash, "Bob took in an altered entry");
    for number in 0..30 {
        let name = format!("a file called {number:03}");
        ensure!(fs::read(bob.path(&name))? == format!("content {number}").into_bytes());
    }
    Ok(())
}
