//! Two and three hosts with networks of their own: everything arrives whole, whoever was away catches up, and what
//! two people changed at once stands beside each other on every device.
//!
//! The devices run with the defaults a user gets: they listen where they like and find each other by mDNS.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::harness::clock::Offset;
use tests::harness::device::{AGREE_BOUND, Device, agree, agree_within};
use tests::harness::netns::{Host, Net};
use tests::harness::program::{self, command};
use tests::harness::site::Site;
use tests::harness::skip::Need;
use tests::harness::tree::{self, Tree};
use tests::harness::wait;
use tests::needs;

fn same_trees(devices: &[&Device]) -> Result<()> {
    let Some((first, others)) = devices.split_first() else { return Ok(()) };
    let tree = Tree::read(&first.mount_dir())?;
    for other in others {
        let differences = tree.differences(&Tree::read(&other.mount_dir())?);
        ensure!(differences.is_empty(), "{} against {}: {differences}", first.name(), other.name());
    }
    Ok(())
}

#[test]
fn two_hosts_find_each_other_by_mdns_and_an_awkward_tree_arrives_identical() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("ip"));
    const LARGE_LEN: u64 = 200 << 20;
    let site = Site::new()?;
    let net = Net::new()?;
    let mut ann = Device::on(&site, "Ann", &net.host()?)?;
    let mut bob = Device::on(&site, "Bob", &net.host()?)?;
    ann.mount()?;
    bob.join_drive_of(&ann)?;
    // Both start anew: neither is told an address, and ports are others than before.
    ann.unmount()?;
    bob.unmount()?;
    for device in [&ann, &bob] {
        forget_addresses(device)?;
    }
    ann.mount()?;
    bob.mount()?;
    ann.wait_online(1).context("mDNS found nobody")?;
    bob.wait_online(1)?;

    let source = site.dir("source")?;
    tree::plant_awkward(&source, LARGE_LEN)?;
    program::ok_within(
        command("cp", ["-a"]).arg(source.join(".")).arg(ann.mount_dir()),
        Duration::from_secs(120),
    )?;
    agree_within(&[&ann, &bob], Duration::from_secs(150))?;
    let differences = Tree::read(&source)?.differences(&Tree::read(&bob.mount_dir())?);
    ensure!(differences.is_empty(), "what Ann copied against what Bob has: {differences}");
    let status = ann.status()?;
    ensure!(status["in_sync"] == true && status["safe_to_close"] == true, "Ann's status: {status}");

    // And the other way round: changes, a move and a removal on Bob's side.
    fs::rename(bob.path("シーン"), bob.path("renamed directory"))?;
    fs::remove_dir_all(bob.path("odd names"))?;
    fs::write(bob.path("empty"), b"no more")?;
    agree(&[&bob, &ann])?;
    same_trees(&[&ann, &bob])?;
    ensure!(ann.path("renamed directory").is_dir() && !ann.path("odd names").exists());
    ensure!(fs::read(ann.path("empty"))? == b"no more");
    Ok(())
}

/// Removes every address the device remembers, so that only discovery can help it.
fn forget_addresses(device: &Device) -> Result<()> {
    let store = device.store_dir()?;
    for name in ["peers", "peers.json"] {
        let path = store.join(name);
        if path.is_file() {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Three devices on one switch that have agreed once.
fn three(site: &Site, net: &Net, clocks: [Option<Offset>; 3]) -> Result<([Device; 3], [Host; 3])> {
    let hosts = [net.host()?, net.host()?, net.host()?];
    let [a, b, c] = &hosts;
    let with_clock = |device: Device, clock: Option<Offset>| match clock {
        Some(offset) => device.clock(offset),
        None => device,
    };
    let mut ann = with_clock(Device::on(site, "Ann", a)?, clocks[0]);
    let mut bob = with_clock(Device::on(site, "Bob", b)?, clocks[1]);
    let mut cat = with_clock(Device::on(site, "Cat", c)?, clocks[2]);
    ann.mount()?;
    bob.join_drive_of(&ann)?;
    cat.join_drive_of(&ann)?;
    agree(&[&ann, &bob, &cat])?;
    Ok(([ann, bob, cat], hosts))
}

#[test]
fn a_host_that_was_away_catches_up() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("ip"));
    let site = Site::new()?;
    let net = Net::new()?;
    let ([ann, bob, mut cat], hosts) = three(&site, &net, [None; 3])?;

    // Away by a pulled cable.
    net.cut(&hosts[1])?;
    ann.wait_online(1)?;
    fs::create_dir_all(ann.path("while bob was away"))?;
    for number in 0..200 {
        fs::write(
            ann.path(&format!("while bob was away/{number}")),
            tree::random_bytes(5_000, number),
        )?;
    }
    agree(&[&ann, &cat])?;
    ensure!(!bob.path("while bob was away").exists());
    net.heal(&hosts[1])?;
    agree(&[&ann, &bob, &cat])?;
    same_trees(&[&ann, &bob, &cat])?;

    // Away because it was switched off; it comes back while the author is gone, so another member must give it.
    cat.unmount()?;
    tree::write_random(&ann.path("large"), 30 << 20, 5)?;
    agree(&[&ann, &bob])?;
    net.cut(&hosts[0])?;
    cat.mount()?;
    cat.wait_online(1)?;
    // Until Bob has noticed that Ann is gone, his barrier waits for her.
    bob.wait_online(1)?;
    agree(&[&cat, &bob])?;
    same_trees(&[&bob, &cat])?;
    net.heal(&hosts[0])?;
    agree(&[&ann, &bob, &cat])?;
    same_trees(&[&ann, &bob, &cat])
}

/// Bob and the team (Ann, whose work Cat acknowledges) change the same file while Bob is cut off.
fn offline_edits_stand_beside_each_other(bobs_clock: Option<Offset>) -> Result<()> {
    let site = Site::new()?;
    let net = Net::new()?;
    let ([ann, bob, cat], hosts) = three(&site, &net, [None, bobs_clock, None])?;
    fs::write(ann.path("scene.txt"), b"first")?;
    fs::write(ann.path("other.txt"), b"untouched by both")?;
    agree(&[&ann, &bob, &cat])?;

    net.cut(&hosts[1])?;
    ann.wait_online(1)?;
    bob.wait_online(0)?;
    // Bob is the earlier one by the clock on the wall; the team is the first to publish.
    fs::write(bob.path("scene.txt"), b"bob, on the train")?;
    fs::write(bob.path("only bob.txt"), b"new at bob's")?;
    bob.fsync("scene.txt")?;
    fs::write(ann.path("scene.txt"), b"ann, in the studio")?;
    fs::write(ann.path("only ann.txt"), b"new at ann's")?;
    agree(&[&ann, &cat])?;
    cat.wait_bytes("scene.txt", b"ann, in the studio")?;
    ensure!(fs::read(bob.path("scene.txt"))? == b"bob, on the train");

    net.heal(&hosts[1])?;
    agree(&[&ann, &bob, &cat])?;
    for device in [&ann, &bob, &cat] {
        let at = device.name();
        device.wait_bytes("scene.txt", b"ann, in the studio")?;
        let copies = conflict_copies(&device.mount_dir(), "scene (conflict Bob ", ").txt")?;
        ensure!(copies.len() == 1, "{at} shows {copies:?} as conflict copies");
        let copy = copies.first().context("no copy")?;
        device.wait_bytes(copy, b"bob, on the train")?;
        device.wait_bytes("only bob.txt", b"new at bob's")?;
        device.wait_bytes("only ann.txt", b"new at ann's")?;
        ensure!(
            device.status()?["conflicts"] == 1,
            "{at} counts {}",
            device.status()?["conflicts"]
        );
        let conflicts = device.json("conflicts")?;
        let listed = conflicts.as_array().or_else(|| conflicts["conflicts"].as_array());
        let first = listed.and_then(|list| list.first()).context("conflicts lists nothing")?;
        ensure!(
            first["path"].as_str().is_some_and(|path| path.ends_with("scene.txt")),
            "{conflicts}"
        );
        ensure!(first["copies"].as_array().map(Vec::len) == Some(1), "{conflicts}");
    }
    same_trees(&[&ann, &bob, &cat])?;

    // Saving on over the official file leaves the copy where it is; removing the copy resolves it everywhere.
    fs::write(cat.path("scene.txt"), b"cat goes on")?;
    agree(&[&cat, &ann, &bob])?;
    let copies = conflict_copies(&bob.mount_dir(), "scene (conflict Bob ", ").txt")?;
    let copy = copies.first().context("the copy vanished")?;
    fs::remove_file(bob.path(copy))?;
    agree(&[&bob, &ann, &cat])?;
    for device in [&ann, &bob, &cat] {
        device.wait_bytes("scene.txt", b"cat goes on")?;
        ensure!(device.status()?["conflicts"] == 0);
        ensure!(conflict_copies(&device.mount_dir(), "scene (conflict", "")?.is_empty());
    }
    same_trees(&[&ann, &bob, &cat])
}

fn conflict_copies(dir: &Path, prefix: &str, suffix: &str) -> Result<Vec<String>> {
    let names =
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: Vec<String> = names.collect::<Result<_>>()?;
    Ok(names
        .into_iter()
        .filter(|name| name.starts_with(prefix) && name.ends_with(suffix))
        .collect())
}

#[test]
fn offline_edits_keep_the_first_to_arrive_official_and_the_other_as_a_copy() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("ip"));
    offline_edits_stand_beside_each_other(None)
}

#[test]
fn a_clock_that_is_years_behind_does_not_make_late_work_official() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("ip"), Need::Program("cc"));
    offline_edits_stand_beside_each_other(Some(Offset::BehindDays(3650)))
}

#[test]
fn a_clock_that_is_years_ahead_changes_nothing_either() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("ip"), Need::Program("cc"));
    offline_edits_stand_beside_each_other(Some(Offset::AheadDays(3650)))
}

#[test]
fn two_hosts_that_both_worked_offline_converge() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("ip"));
    let site = Site::new()?;
    let net = Net::new()?;
    let host = net.host()?;
    let mut ann = Device::on(&site, "Ann", &net.host()?)?;
    let mut bob = Device::on(&site, "Bob", &host)?;
    ann.mount()?;
    bob.join_drive_of(&ann)?;
    for name in ["both.txt", "edited by ann, removed by bob.txt", "removed by both.txt"] {
        fs::write(ann.path(name), b"before")?;
    }
    fs::create_dir_all(ann.path("dir/sub"))?;
    fs::write(ann.path("dir/sub/file"), b"inside")?;
    agree(&[&ann, &bob])?;

    net.cut(&host)?;
    ann.wait_online(0)?;
    bob.wait_online(0)?;
    for device in [&ann, &bob] {
        fs::write(device.path("both.txt"), device.name())?;
        fs::remove_file(device.path("removed by both.txt"))?;
        fs::create_dir(device.path("made by both"))?;
        fs::write(device.path(&format!("made by both/{}", device.name())), b"x")?;
        fs::write(device.path("same content"), b"equal bytes on both sides")?;
        device.fsync("both.txt")?;
    }
    fs::write(ann.path("edited by ann, removed by bob.txt"), b"edited")?;
    fs::remove_file(bob.path("edited by ann, removed by bob.txt"))?;
    fs::rename(ann.path("dir"), ann.path("dir moved by ann"))?;
    fs::write(bob.path("dir/sub/new from bob"), b"below a moved directory")?;

    net.heal(&host)?;
    agree(&[&ann, &bob])?;
    same_trees(&[&ann, &bob])?;
    let official = fs::read_to_string(ann.path("both.txt"))?;
    let other = if official == "Ann" { "Bob" } else { "Ann" };
    let copies = conflict_copies(&ann.mount_dir(), &format!("both (conflict {other} "), ").txt")?;
    ensure!(copies.len() == 1, "{official} is official, the copies are {copies:?}");
    ensure!(fs::read_to_string(ann.path(copies.first().context("no copy")?))? == other);
    ensure!(!ann.path("removed by both.txt").exists());
    ensure!(
        fs::read(ann.path("edited by ann, removed by bob.txt"))? == b"edited",
        "an edit lost to a removal"
    );
    ensure!(
        fs::read_dir(ann.path("made by both"))?.count() == 2,
        "one directory made twice is not one directory"
    );
    ensure!(
        conflict_copies(&ann.mount_dir(), "same content (", "")?.is_empty(),
        "equal bytes made a conflict"
    );
    let followed = fs::read(ann.path("dir moved by ann/sub/new from bob"))?;
    ensure!(followed == b"below a moved directory", "a file did not follow its moved directory");
    Ok(())
}

#[test]
fn a_save_travels_along_a_line_of_hosts() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("ip"));
    let site = Site::new()?;
    let net = Net::new()?;
    let ([ann, bob, mut cat], hosts) = three(&site, &net, [None; 3])?;
    // Ann and Cat reach Bob, and not each other.
    cat.unmount()?;
    net.isolate(&hosts[0])?;
    net.isolate(&hosts[2])?;
    cat.mount()?;
    cat.wait_online(1)?;
    ann.wait_online(1)?;

    let bytes = tree::random_bytes(3 << 20, 11);
    fs::write(ann.path("along the line"), &bytes)?;
    cat.wait_bytes("along the line", &bytes)?;
    fs::write(cat.path("back again"), b"and back")?;
    ann.wait_bytes("back again", b"and back")?;
    agree(&[&ann, &bob, &cat])?;
    same_trees(&[&ann, &bob, &cat])
}

#[test]
fn a_link_that_dies_without_a_word_hangs_nobody_and_heals() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("ip"));
    let site = Site::new()?;
    let net = Net::new()?;
    let host = net.host()?;
    let mut ann = Device::on(&site, "Ann", &net.host()?)?;
    let mut bob = Device::on(&site, "Bob", &host)?;
    ann.mount()?;
    bob.join_drive_of(&ann)?;
    fs::write(ann.path("before"), b"before")?;
    agree(&[&ann, &bob])?;

    net.mute(&host)?;
    let started = Instant::now();
    for number in 0..50 {
        fs::write(ann.path(&format!("ann {number}")), b"while the link is dead")?;
        fs::write(bob.path(&format!("bob {number}")), b"while the link is dead")?;
    }
    let took = started.elapsed();
    ensure!(took < Duration::from_secs(10), "100 small saves took {took:?} with a dead link");
    let code = ann.try_cli(&["sync", "--timeout", "3s"])?.code;
    ensure!(code == 3 || code == 0, "sync over a dead link ended with {code}");
    wait::until("both notice", AGREE_BOUND, || {
        Ok((ann.online()? + bob.online()? == 0).then_some(()))
    })?;
    net.unmute(&host)?;
    agree(&[&ann, &bob])?;
    same_trees(&[&ann, &bob])
}

#[test]
fn a_transfer_that_is_cut_goes_on_where_it_was() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("ip"), Need::Program("tc"));
    const LEN: u64 = 96 << 20;
    let site = Site::new()?;
    let net = Net::new()?;
    let (a, b) = (net.host()?, net.host()?);
    let mut ann = Device::on(&site, "Ann", &a)?;
    let mut bob = Device::on(&site, "Bob", &b)?;
    ann.mount()?;
    bob.join_drive_of(&ann)?;
    agree(&[&ann, &bob])?;
    // Slow enough to be caught in the middle: about 20 MB/s.
    let mut slow = a.command("tc");
    slow.args([
        "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "160mbit", "burst", "256kb",
        "latency", "50ms",
    ]);
    program::ok(&mut slow)?;
    tree::write_random(&ann.path("large"), LEN, 21)?;
    let start = b.wire()?;
    wait::until("a third has arrived", AGREE_BOUND, || {
        Ok((b.wire()?.since(start) > LEN / 3).then_some(()))
    })?;
    net.cut(&b)?;
    bob.wait_online(0)?;
    net.heal(&b)?;
    agree(&[&ann, &bob])?;
    ensure!(tree::hash_of(&bob.path("large"))? == tree::hash_of(&ann.path("large"))?);
    let total = b.wire()?.since(start);
    ensure!(
        total < LEN + LEN / 4,
        "{total} bytes went over the wire for a file of {LEN}: it began anew"
    );
    Ok(())
}

#[test]
fn while_the_only_holder_of_a_new_version_is_away_the_others_read_the_older_one() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("ip"), Need::Program("tc"));
    let site = Site::new()?;
    let net = Net::new()?;
    let ([ann, bob, cat], hosts) = three(&site, &net, [None; 3])?;
    let old = tree::random_bytes(100_000, 31);
    fs::write(ann.path("scene"), &old)?;
    agree(&[&ann, &bob, &cat])?;
    ensure!(fs::read(bob.path("scene"))? == old);

    // So slow that the entry arrives and the bytes do not: about 1 MB/s.
    let mut slow = hosts[0].command("tc");
    slow.args([
        "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "8mbit", "burst", "32kb", "latency",
        "400ms",
    ]);
    program::ok(&mut slow)?;
    let new = tree::random_bytes(24 << 20, 32);
    fs::write(ann.path("scene"), &new)?;
    for device in [&bob, &cat] {
        wait::until(format!("{} knows of the new version", device.name()), AGREE_BOUND, || {
            Ok((device.status()?["arriving"] == 1).then_some(()))
        })?;
    }
    net.cut(&hosts[0])?;
    for device in [&bob, &cat] {
        device.wait_online(1)?;
        ensure!(device.status()?["arriving"] == 1, "{} has it: too fast a link", device.name());
        device.wait_bytes("scene", &old)?;
    }

    let mut fast = hosts[0].command("tc");
    fast.args(["qdisc", "del", "dev", "eth0", "root"]);
    program::ok(&mut fast)?;
    net.heal(&hosts[0])?;
    agree(&[&ann, &bob, &cat])?;
    for device in [&ann, &bob, &cat] {
        device.wait_bytes("scene", &new)?;
    }
    same_trees(&[&ann, &bob, &cat])
}
