//! Members on real devices: removed and taken back, locked out of nothing, admitted once too often, back from a lost
//! disk, back from a backup, with a wrong clock.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::harness::clock::Offset;
use tests::harness::device::{Device, agree};
use tests::harness::netns::Net;
use tests::harness::program::{self, Ran};
use tests::harness::site::Site;
use tests::harness::skip::Need;
use tests::needs;

const BOUND: Duration = Duration::from_secs(60);

fn refused(ran: &Ran, word: &str) -> Result<()> {
    let said = format!("{}{}", ran.out, ran.err);
    ensure!(ran.code == 4 && said.contains(word), "ended with {}: {said}", ran.code);
    Ok(())
}

fn members(device: &Device) -> Result<Vec<Value>> {
    let answer = device.json("members")?;
    Ok(answer.as_array().context("no list of members")?.clone())
}

/// A mounted drive of Ann with Bob in it, on this machine.
fn pair(site: &Site) -> Result<(Device, Device)> {
    let mut ann = Device::local(site, "Ann")?;
    ann.mount()?;
    let mut bob = Device::local(site, "Bob")?;
    bob.join_drive_of(&ann)?;
    agree(&[&ann, &bob])?;
    Ok((ann, bob))
}

#[test]
fn work_that_a_removal_had_not_seen_is_kept_aside_and_can_be_taken_back() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("ip"));
    let site = Site::new()?;
    let net = Net::new()?;
    let hosts = [net.host()?, net.host()?, net.host()?];
    let mut ann = Device::on(&site, "Ann", &hosts[0])?;
    let mut bob = Device::on(&site, "Bob", &hosts[1])?;
    let mut cat = Device::on(&site, "Cat", &hosts[2])?;
    ann.mount()?;
    bob.join_drive_of(&ann)?;
    cat.join_drive_of(&ann)?;
    fs::write(bob.path("before.txt"), b"seen by the removal")?;
    agree(&[&ann, &bob, &cat])?;

    net.cut(&hosts[0])?;
    ann.wait_online(0)?;
    bob.wait_online(1)?;
    ann.cli(&["members", "remove", "Bob"])?;
    fs::write(bob.path("after.txt"), b"not seen by the removal")?;
    cat.wait_bytes("after.txt", b"not seen by the removal")?;
    net.heal(&hosts[0])?;
    agree(&[&ann, &cat])?;
    for device in [&ann, &cat] {
        device.wait_bytes("before.txt", b"seen by the removal")?;
        ensure!(!device.path("after.txt").exists(), "{} shows it", device.name());
    }
    let told = ann.wait_notice(&["Bob was removed", "1 change", "take-back"], BOUND)?;
    ensure!(!told.contains("1970"), "{told}");
    ensure!(!cat.notices()?.iter().any(|n| n.contains("take-back")), "only owners can");
    let versions = ann.history("after.txt")?;
    ensure!(versions[0]["aside"] == true && versions[0]["official"] == false, "{versions:?}");

    refused(&cat.try_cli(&["members", "take-back", "Bob"])?, "owner")?;
    let shown: Value =
        serde_json::from_str(&ann.cli(&["members", "take-back", "Bob", "--dry-run", "--json"])?)?;
    ensure!(shown[0]["path"] == "after.txt" && shown[0]["kind"] == "file", "{shown}");
    ensure!(shown[0]["size"] == 23 && shown.as_array().map(Vec::len) == Some(1), "{shown}");
    ensure!(!ann.path("after.txt").exists(), "a dry run took it back");
    let done = ann.cli(&["members", "take-back", "Bob"])?;
    ensure!(done.contains("after.txt"), "{done}");
    agree(&[&ann, &cat])?;
    for device in [&ann, &cat] {
        device.wait_bytes("after.txt", b"not seen by the removal")?;
        ensure!(members(device)?.iter().all(|m| m["name"] != "Bob"), "it is a member again");
    }
    ensure!(!ann.notices()?.iter().any(|n| n.contains("kept aside")), "{:?}", ann.notices()?);
    let again = ann.cli(&["members", "take-back", "Bob"])?;
    ensure!(again.contains("nothing is kept aside"), "{again}");
    let nobody = ann.try_cli(&["members", "take-back", "Cat"])?;
    ensure!(nobody.code == 1 && nobody.err.contains("no member Cat was removed"), "{}", nobody.err);
    Ok(())
}

#[test]
fn work_of_one_who_was_made_a_reader_meanwhile_is_told_of_and_can_be_taken_back() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("ip"));
    let site = Site::new()?;
    let net = Net::new()?;
    let hosts = [net.host()?, net.host()?];
    let mut ann = Device::on(&site, "Ann", &hosts[0])?;
    let mut bob = Device::on(&site, "Bob", &hosts[1])?;
    ann.mount()?;
    bob.join_drive_of(&ann)?;
    fs::write(bob.path("shot"), b"before")?;
    agree(&[&ann, &bob])?;
    net.cut(&hosts[1])?;
    bob.wait_online(0)?;
    ann.wait_online(0)?;
    fs::write(bob.path("shot"), b"a day's work")?;
    fs::write(bob.path("new"), b"another's")?;
    bob.cli(&["sync", "--timeout", "1s"])?;
    ann.cli(&["members", "role", "Bob", "reader"])?;
    net.heal(&hosts[1])?;
    agree(&[&ann, &bob])?;
    for device in [&ann, &bob] {
        device.wait_bytes("shot", b"before")?;
        ensure!(!device.path("new").exists(), "{} shows it", device.name());
    }
    ann.wait_notice(&["what Bob wrote", "made a reader", "2 changes", "take-back"], BOUND)?;
    bob.wait_notice(&["does not count", "made a reader", "2 changes", "take-back"], BOUND)?;
    ensure!(ann.notices()?.iter().all(|n| !n.contains("role does not allow")), "told twice");
    let shown = ann.cli(&["members", "take-back", "Bob", "--dry-run"])?;
    ensure!(shown.contains("shot") && shown.contains("new"), "{shown}");
    ann.cli(&["members", "take-back", "Bob"])?;
    agree(&[&ann, &bob])?;
    for device in [&ann, &bob] {
        device.wait_bytes("shot", b"a day's work")?;
        device.wait_bytes("new", b"another's")?;
        ensure!(device.notices()?.is_empty(), "{}: {:?}", device.name(), device.notices()?);
        let bobs = members(device)?.into_iter().find(|m| m["name"] == "Bob").context("no Bob")?;
        ensure!(bobs["role"] == "reader", "{bobs}");
    }
    let again = ann.cli(&["members", "take-back", "Bob"])?;
    ensure!(again.contains("nothing is kept aside"), "{again}");
    Ok(())
}

#[test]
fn of_two_devices_of_one_name_that_is_taken_back_of_which_something_is_aside() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("ip"));
    let (site, elsewhere) = (Site::new()?, Site::new()?);
    let net = Net::new()?;
    let hosts = [net.host()?, net.host()?, net.host()?];
    let mut ann = Device::on(&site, "Ann", &hosts[0])?;
    let mut before = Device::on(&site, "Bob", &hosts[1])?;
    let mut after = Device::on(&elsewhere, "Bob", &hosts[2])?;
    let id = |device: &Device| -> Result<String> {
        Ok(device.status()?["device"]["id"].as_str().context("no id")?.to_owned())
    };
    ann.mount()?;
    before.join_drive_of(&ann)?;
    agree(&[&ann, &before])?;
    let first = id(&before)?;
    net.cut(&hosts[1])?;
    ann.wait_online(0)?;
    before.wait_online(0)?;
    fs::write(before.path("one"), b"of the one")?;
    before.cli(&["sync", "--timeout", "1s"])?;
    ann.cli(&["members", "remove", "Bob"])?;
    net.heal(&hosts[1])?;
    ann.wait_notice(&["Bob was removed", "1 change"], BOUND)?;
    before.unmount()?;
    after.join_drive_of(&ann)?;
    agree(&[&ann, &after])?;
    let second = id(&after)?;
    net.cut(&hosts[2])?;
    ann.wait_online(0)?;
    after.wait_online(0)?;
    fs::write(after.path("other"), b"of the other")?;
    after.cli(&["sync", "--timeout", "1s"])?;
    ann.cli(&["members", "role", "Bob", "reader"])?;
    net.heal(&hosts[2])?;
    agree(&[&ann, &after])?;
    ann.wait_notice(&["what Bob wrote", "made a reader", "1 change"], BOUND)?;
    let both = ann.try_cli(&["members", "take-back", "Bob"])?;
    ensure!(
        both.code == 1 && both.err.contains(&first) && both.err.contains(&second),
        "{}",
        both.err
    );
    ann.cli(&["members", "take-back", &first])?;
    ann.wait_bytes("one", b"of the one")?;
    // The removed one has nothing aside any more.
    let done = ann.cli(&["members", "take-back", "Bob"])?;
    ensure!(done.contains("other"), "{done}");
    ann.wait_bytes("other", b"of the other")
}

#[test]
fn no_owner_is_locked_out_and_no_drive_left_without_one() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let (ann, bob) = pair(&site)?;
    refused(&ann.try_cli(&["members", "role", "Ann", "editor"])?, "without an owner")?;
    refused(&ann.try_cli(&["members", "remove", "Ann"])?, "without an owner")?;
    ann.cli(&["members", "role", "Bob", "owner"])?;
    agree(&[&ann, &bob])?;
    refused(&bob.try_cli(&["members", "remove", "Ann"])?, "admitted before")?;
    refused(&bob.try_cli(&["members", "role", "Ann", "reader"])?, "admitted before")?;
    fs::write(ann.path("file"), b"still an owner")?;
    bob.wait_bytes("file", b"still an owner")?;
    // The earlier one may do it to the later one, and each to itself.
    ann.cli(&["members", "role", "Bob", "editor"])?;
    agree(&[&ann, &bob])?;
    let roles: Vec<Value> = members(&bob)?.iter().map(|m| m["role"].clone()).collect();
    ensure!(roles == ["owner", "editor"], "{roles:?}");
    ensure!(ann.notices()?.iter().all(|n| !n.contains("role does not allow")));
    Ok(())
}

#[test]
fn a_ticket_that_admitted_two_in_a_partition_is_flagged_to_the_owner() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("ip"));
    let site = Site::new()?;
    let net = Net::new()?;
    let hosts = [net.host()?, net.host()?, net.host()?, net.host()?];
    let mut ann = Device::on(&site, "Ann", &hosts[0])?;
    let mut bob = Device::on(&site, "Bob", &hosts[1])?;
    ann.mount()?;
    bob.join_drive_of(&ann)?;
    let ticket = ann.invite(&["--uses", "1"])?;
    agree(&[&ann, &bob])?;
    // Each is admitted by one who cannot know of the other.
    net.cut(&hosts[0])?;
    bob.wait_online(0)?;
    let at_bob = bob.status()?["listen"].clone();
    let at_bob = at_bob.as_array().context("listen")?.iter().filter_map(Value::as_str);
    let reachable: Vec<&str> = at_bob.filter(|a| !a.contains("127.0.0.1")).collect();
    let mut fay = Device::on(&site, "Fay", &hosts[2])?;
    for address in reachable {
        fay = fay.option("--peer").option(address);
    }
    fay.join(&ticket)?;
    fay.wait_online(1)?;
    net.cut(&hosts[1])?;
    net.cut(&hosts[2])?;
    net.heal(&hosts[0])?;
    let mut eve = Device::on(&site, "Eve", &hosts[3])?;
    eve.join(&ticket)?;
    eve.wait_online(1)?;
    net.heal(&hosts[1])?;
    net.heal(&hosts[2])?;
    ann.wait_online(3)?;
    let told =
        ann.wait_notice(&["ticket that had been used already", "members PATH remove"], BOUND)?;
    ensure!(told.contains("Eve") != told.contains("Fay"), "one of them is flagged: {told}");
    ensure!(!bob.notices()?.iter().any(|n| n.contains("used already")), "only owners can act");
    let late = if told.contains("Eve") { "Eve" } else { "Fay" };
    ann.cli(&["members", "remove", late])?;
    ann.wait_online(2)?;
    ensure!(!ann.notices()?.iter().any(|n| n.contains("used already")), "it was dealt with");
    Ok(())
}

#[test]
fn a_device_that_lost_its_store_joins_anew() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let (ann, mut bob) = pair(&site)?;
    fs::write(bob.path("bobs"), b"from before")?;
    agree(&[&ann, &bob])?;
    let old = bob.status()?["device"]["id"].as_str().context("an id")?.to_owned();
    bob.unmount()?;
    fs::remove_dir_all(bob.store_dir()?)?;
    // Without a store there is nothing to mount, and it says so rather than make an empty drive.
    let ran = bob.start_refused(&["mount"])?;
    ensure!(ran.code == 1, "the mount ended with {}", ran.code);
    bob.join_drive_of(&ann)?;
    bob.wait_bytes("bobs", b"from before")?;
    fs::write(bob.path("bobs"), b"and after")?;
    ann.wait_bytes("bobs", b"and after")?;
    let new = bob.status()?["device"]["id"].as_str().context("an id")?.to_owned();
    ensure!(old != new, "two stays in one drive share a key");
    ensure!(ann.notices()?.iter().all(|n| !n.contains("two histories")), "that is no fork");
    ann.cli(&["members", "remove", &old])?;
    agree(&[&ann, &bob])?;
    let left = members(&ann)?;
    ensure!(left.len() == 2 && left.iter().any(|m| m["id"] == new.as_str()), "{left:?}");
    bob.wait_bytes("bobs", b"and after")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    program::ok(program::command("cp", ["-a"]).arg(from).arg(to)).map(drop)
}

/// Puts the copy of a store in the place of the store.
fn bring_back(device: &Device, backup: &Path) -> Result<()> {
    let store = device.store_dir()?;
    fs::remove_dir_all(&store)?;
    copy(backup, &store)
}

#[test]
fn a_restored_backup_takes_in_its_own_newer_work_before_it_writes() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let (ann, mut bob) = pair(&site)?;
    fs::write(bob.path("kept"), b"in the backup")?;
    agree(&[&ann, &bob])?;
    bob.unmount()?;
    let backup = site.path().join("backup");
    copy(&bob.store_dir()?, &backup)?;
    bob.mount()?;
    bob.wait_online(1)?;
    fs::write(bob.path("kept"), b"newer than the backup")?;
    fs::write(bob.path("new"), b"not in the backup")?;
    agree(&[&ann, &bob])?;
    bob.unmount()?;
    bring_back(&bob, &backup)?;
    bob.mount()?;
    bob.wait_bytes("kept", b"newer than the backup")?;
    bob.wait_bytes("new", b"not in the backup")?;
    fs::write(bob.path("kept"), b"and on")?;
    ann.wait_bytes("kept", b"and on")?;
    agree(&[&ann, &bob])?;
    for device in [&ann, &bob] {
        ensure!(device.notices()?.iter().all(|n| !n.contains("two histories")), "a fork");
        ensure!(device.status()?["conflicts"] == 0);
    }
    Ok(())
}

#[test]
fn a_restored_backup_that_works_alone_forks_once_and_loses_nothing() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let (mut ann, mut bob) = pair(&site)?;
    fs::write(bob.path("both"), b"in the backup")?;
    agree(&[&ann, &bob])?;
    bob.unmount()?;
    let backup = site.path().join("backup");
    copy(&bob.store_dir()?, &backup)?;
    bob.mount()?;
    bob.wait_online(1)?;
    fs::write(bob.path("both"), b"newer than the backup")?;
    fs::write(bob.path("before"), b"not in the backup")?;
    agree(&[&ann, &bob])?;
    bob.unmount()?;
    ann.unmount()?;
    bring_back(&bob, &backup)?;
    bob.mount()?;
    fs::write(bob.path("both"), b"after the restore")?;
    fs::write(bob.path("after"), b"after the restore")?;
    bob.cli(&["sync", "--timeout", "1s"])?;
    ann.mount()?;
    bob.wait_online(1)?;
    agree(&[&ann, &bob])?;
    for device in [&ann, &bob] {
        device.wait_bytes("before", b"not in the backup")?;
        device.wait_bytes("after", b"after the restore")?;
        device.wait_bytes("both", b"newer than the backup")?;
        let conflicts = device.json("conflicts")?;
        let copy = conflicts[0]["copies"][0]["path"].as_str().context("no copy")?.to_owned();
        device.wait_bytes(&copy, b"after the restore")?;
    }
    let told = ann.wait_notice(&["Bob has written two histories", "both are kept"], BOUND)?;
    ensure!(!told.contains("1970"), "{told}");
    ensure!(
        bob.wait_notice(&["two histories"], BOUND)? == told,
        "the proof is the same everywhere"
    );
    // It goes on from one end: no more conflicts come of it, and the proof stays what it is.
    for round in 0..3 {
        let text = format!("round {round}");
        fs::write(bob.path("both"), &text)?;
        fs::write(bob.path("after"), &text)?;
        agree(&[&ann, &bob])?;
        ann.wait_bytes("both", text.as_bytes())?;
        ensure!(ann.status()?["conflicts"] == 1, "{}", ann.json("conflicts")?);
    }
    bob.unmount()?;
    bob.mount()?;
    bob.wait_online(1)?;
    ensure!(bob.wait_notice(&["two histories"], BOUND)? == told);
    agree(&[&ann, &bob])
}

#[test]
fn a_wrong_clock_is_named_and_so_are_the_dates_it_made() -> Result<()> {
    needs!(Need::Fuse, Need::Program("cc"));
    let site = Site::new()?;
    let mut ann = Device::local(&site, "Ann")?;
    ann.mount()?;
    let mut bob = Device::local(&site, "Bob")?.clock(Offset::AheadDays(3_650));
    // By Bob's clock every ticket has expired; Ann's judges.
    bob.join_drive_of(&ann)?;
    fs::write(ann.path("anns"), b"dated well")?;
    fs::write(bob.path("bobs"), b"dated ten years ahead")?;
    agree(&[&ann, &bob])?;
    ann.wait_notice(&["the clock of Bob is", "years ahead"], BOUND)?;
    bob.wait_notice(&["this device's clock is", "ahead of the other members'"], BOUND)?;
    ensure!(ann.notices()?.iter().all(|n| !n.contains("of Ann")), "{:?}", ann.notices()?);
    let bobs = ann.history("bobs")?;
    let odd = bobs[0]["odd"].as_str().context("no reason")?;
    ensure!(odd.contains("years ahead"), "{odd}");
    ensure!(ann.history("anns")?[0]["odd"].is_null());
    let told = ann.try_raw(&["history", ann.path("bobs").to_str().context("a path")?])?;
    ensure!(told.out.contains("years ahead"), "{}", told.out);
    Ok(())
}

#[test]
fn owners_hear_of_a_removed_device_whose_work_is_dated_ahead_and_drags_all_along() -> Result<()> {
    needs!(Need::Fuse, Need::Program("cc"));
    let site = Site::new()?;
    let mut ann = Device::local(&site, "Ann")?;
    ann.mount()?;
    let mut bob = Device::local(&site, "Bob")?.clock(Offset::AheadDays(3_650));
    let mut cat = Device::local(&site, "Cat")?;
    cat.join_drive_of(&ann)?;
    bob.join_drive_of(&ann)?;
    agree(&[&ann, &bob, &cat])?;
    for device in [&mut bob, &mut cat, &mut ann] {
        device.unmount()?;
    }
    // Alone after a start it believes its own clock.
    bob.mount()?;
    fs::write(bob.path("bobs"), b"dated ten years ahead")?;
    bob.cli(&["sync", "--timeout", "1s"])?;
    bob.unmount()?;
    ann.mount()?;
    cat.mount()?;
    ann.cli(&["members", "remove", "Bob"])?;
    agree(&[&ann, &cat])?;
    bob.mount()?;
    ann.wait_notice(&["Bob, which was removed, dated its work", "years ahead of now"], BOUND)?;
    ensure!(cat.notices()?.iter().all(|n| !n.contains("dated its work")), "only owners can act");
    // It is true: what follows is dated ahead.
    fs::write(ann.path("anns"), b"dated by what was seen")?;
    agree(&[&ann, &cat])?;
    let odd = ann.history("anns")?[0]["odd"].clone();
    ensure!(odd.as_str().is_some(), "{odd}");
    Ok(())
}

#[test]
fn a_device_whose_clock_is_behind_is_told_so_and_blames_nobody() -> Result<()> {
    needs!(Need::Fuse, Need::Program("cc"));
    let site = Site::new()?;
    let mut ann = Device::local(&site, "Ann")?;
    ann.mount()?;
    let mut bob = Device::local(&site, "Bob")?.clock(Offset::BehindDays(40));
    let mut cat = Device::local(&site, "Cat")?;
    bob.join_drive_of(&ann)?;
    cat.join_drive_of(&ann)?;
    fs::write(ann.path("anns"), b"dated well")?;
    agree(&[&ann, &bob, &cat])?;
    fs::write(bob.path("bobs"), b"dated forty days ago")?;
    agree(&[&ann, &bob, &cat])?;
    bob.wait_notice(&["this device's clock is", "days behind the other members'"], BOUND)?;
    let told = bob.notices()?;
    ensure!(told.iter().all(|n| !n.contains("Ann") && !n.contains("dated its work")), "{told:?}");
    ann.wait_notice(&["Bob saves with a clock", "days behind what it has already seen"], BOUND)?;
    // Alone after a start it cannot know who is wrong, and does not say that it does.
    for device in [&mut bob, &mut cat, &mut ann] {
        device.unmount()?;
    }
    bob.mount()?;
    bob.wait_notice(&["dated its work", "ahead of this device's clock"], BOUND)?;
    ensure!(bob.notices()?.iter().all(|notice| !notice.contains("this device's clock is")));
    Ok(())
}

#[test]
fn a_move_that_lost_is_listed_until_somebody_says_that_it_is_dealt_with() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("ip"));
    let site = Site::new()?;
    let net = Net::new()?;
    let hosts = [net.host()?, net.host()?, net.host()?];
    let mut ann = Device::on(&site, "Ann", &hosts[0])?;
    let mut bob = Device::on(&site, "Bob", &hosts[1])?;
    let mut cat = Device::on(&site, "Cat", &hosts[2])?;
    ann.mount()?;
    bob.join_drive_of(&ann)?;
    cat.join_drive_of(&ann)?;
    fs::create_dir(ann.path("scenes"))?;
    fs::write(ann.path("scenes/a"), b"a")?;
    agree(&[&ann, &bob, &cat])?;
    net.cut(&hosts[1])?;
    bob.wait_online(0)?;
    ann.wait_online(1)?;
    fs::rename(bob.path("scenes"), bob.path("mine"))?;
    fs::rename(ann.path("scenes"), ann.path("theirs"))?;
    agree(&[&ann, &cat])?;
    net.heal(&hosts[1])?;
    agree(&[&ann, &bob, &cat])?;
    for device in [&ann, &bob, &cat] {
        device.wait_bytes("theirs/a", b"a")?;
        let listed = device.json("conflicts")?;
        let lost = &listed[0]["copies"][0];
        ensure!(listed[0]["path"] == "scenes" && lost["path"] == "mine", "{listed}");
        ensure!(lost["moved"] == false && lost["author"] == "Bob", "{listed}");
    }
    let told = ann.cli(&["conflicts"])?;
    ensure!(told.contains("another move was first"), "{told}");
    let wrong = cat.try_cli(&["conflicts", "settle", "theirs"])?;
    ensure!(wrong.code == 1 && wrong.err.contains("no move"), "{}", wrong.err);
    // As it is listed, or by a path to it.
    let path = cat.path("scenes");
    cat.cli(&["conflicts", "settle", path.to_str().context("a path")?])?;
    agree(&[&ann, &bob, &cat])?;
    for device in [&ann, &bob, &cat] {
        ensure!(device.json("conflicts")? == Value::Array(vec![]), "{}", device.name());
        device.wait_bytes("theirs/a", b"a")?;
    }
    Ok(())
}

#[test]
fn a_folder_beside_a_file_is_given_its_name_when_that_is_free() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("ip"));
    let site = Site::new()?;
    let net = Net::new()?;
    let hosts = [net.host()?, net.host()?];
    let mut ann = Device::on(&site, "Ann", &hosts[0])?;
    let mut bob = Device::on(&site, "Bob", &hosts[1])?;
    ann.mount()?;
    bob.join_drive_of(&ann)?;
    agree(&[&ann, &bob])?;
    net.cut(&hosts[1])?;
    bob.wait_online(0)?;
    ann.wait_online(0)?;
    fs::create_dir(bob.path("n"))?;
    fs::write(bob.path("n/kid"), b"kid")?;
    bob.cli(&["sync", "--timeout", "1s"])?;
    fs::write(ann.path("n"), b"a file")?;
    ann.cli(&["sync", "--timeout", "1s"])?;
    net.heal(&hosts[1])?;
    bob.wait_online(1)?;
    agree(&[&ann, &bob])?;
    let listed = ann.json("conflicts")?;
    let copy = listed[0]["copies"][0]["path"].as_str().context("no copy")?.to_owned();
    // Which of the two was first is the clocks' to say: what lost is put in the place of what won.
    let copy = copy.trim_end_matches('/');
    fs::rename(ann.path("n"), ann.path("m"))?;
    agree(&[&ann, &bob])?;
    fs::rename(ann.path(copy), ann.path("n"))?;
    agree(&[&ann, &bob])?;
    for device in [&ann, &bob] {
        let (n, m) = (device.path("n"), device.path("m"));
        ensure!(n.exists() && m.exists() && n.is_dir() != m.is_dir(), "{}", device.name());
        ensure!(device.json("conflicts")? == Value::Array(vec![]), "{}", device.json("conflicts")?);
        ensure!(fs::read_dir(device.mount_dir())?.count() == 2, "{} shows more", device.name());
    }
    Ok(())
}
