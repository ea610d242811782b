//! Devices that were removed, or made readers, while they were away or at work: what they are told, what becomes of what
//! they saved, how they come back.

use std::fs;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::harness::device::{Device, agree};
use tests::harness::netns::Net;
use tests::harness::program::{self, Ran};
use tests::harness::site::Site;
use tests::harness::skip::Need;
use tests::harness::wait;
use tests::needs;

const BOUND: Duration = Duration::from_secs(60);
const TURNS_BOUND: Duration = Duration::from_secs(300);

fn ended(ran: &Ran, code: i32, words: &[&str]) -> Result<()> {
    let said = format!("{}{}", ran.out, ran.err);
    let is = ran.code == code && words.iter().all(|word| said.contains(word));
    ensure!(is, "ended with {}: {said}", ran.code);
    Ok(())
}

#[test]
fn a_device_removed_while_it_was_away_hears_of_it_and_leaves_what_it_did() -> Result<()> {
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
    let saved = vec![7; 3 << 20];
    fs::write(bob.path("shot"), &saved)?;
    fs::write(bob.path("new"), b"another")?;
    bob.cli(&["sync", "--timeout", "1s"])?;
    // Nobody is there to take it, and it says so.
    let status = bob.status()?;
    ensure!(status["in_sync"] == false && status["safe_to_close"] == false, "{status}");
    ensure!(status["to_send_bytes"].as_u64() >= Some(3 << 20), "{status}");

    ann.cli(&["members", "remove", "Bob"])?;
    fs::write(ann.path("secret"), b"not for Bob")?;
    fs::write(ann.path("shot"), b"Ann goes on")?;
    ann.cli(&["sync", "--timeout", "1s"])?;
    // With a ticket about, Bob would be let in as a stranger.
    ann.invite(&[])?;
    net.heal(&hosts[1])?;
    let told = bob.wait_notice(&["this device was removed", "--data-dir"], BOUND)?;
    ensure!(!told.contains("version"), "{told}");
    bob.wait_notice(&["does not count", "removed", "2 changes", "take-back"], BOUND)?;
    ensure!(bob.status()?["in_sync"] == false, "{}", bob.status()?);
    ended(&bob.try_cli(&["sync", "--timeout", "1s"])?, 4, &["removed"])?;
    ensure!(fs::write(bob.path("later"), b"no").is_err(), "it writes on");
    let path = bob.path("secret");
    let asked = bob.try_raw(&["history", path.to_str().context("a path")?])?;
    ensure!(asked.code != 0 && !path.exists(), "it was given what is not its: {}", asked.out);

    ann.wait_notice(&["Bob was removed", "2 changes", "take-back"], BOUND)?;
    ann.cli(&["members", "take-back", "Bob"])?;
    ann.wait_bytes("new", b"another")?;
    // What both wrote stands beside each other; Bob's was written first.
    ann.wait_bytes("shot", &saved)?;
    let conflicts = ann.json("conflicts")?;
    let copy = conflicts[0]["copies"][0]["path"].as_str().context("no copy")?.to_owned();
    ann.wait_bytes(&copy, b"Ann goes on")?;
    let all = bob.notices()?;
    ensure!(all.iter().all(|n| !n.contains("version of Atelier")), "{all:?}");
    ensure!(!bob.path("secret").exists());

    // Its store is a removed device's for good.
    bob.unmount()?;
    let ran = bob.start_refused(&["join", &ann.invite(&[])?])?;
    ended(&ran, 1, &["already a member", "--data-dir"])
}

#[test]
fn what_a_removed_device_can_never_publish_is_kept_and_no_promise_is_made() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let mut ann = Device::local(&site, "Ann")?;
    ann.mount()?;
    let mut bob = Device::local(&site, "Bob")?;
    bob.join_drive_of(&ann)?;
    fs::write(ann.path("f"), b"base")?;
    agree(&[&ann, &bob])?;
    let mut open = fs::OpenOptions::new().write(true).open(bob.path("f"))?;
    open.write_all(b"BOB1")?;
    ann.cli(&["members", "remove", "Bob"])?;
    bob.wait_notice(&["this device was removed"], BOUND)?;
    drop(open);
    for _ in 0..2 {
        let ran = bob.try_cli(&["unmount"])?;
        ended(&ran, 3, &["never published", "removed", "kept", "copy what you saved"])?;
        ensure!(!ran.err.contains("tried again"), "{}", ran.err);
        ensure!(bob.wait_end().is_err(), "the daemon ended as if nothing were");
        bob.mount()?;
        ensure!(fs::read(bob.path("f"))? == b"BOB1", "it is not there to be copied");
    }
    Ok(())
}

#[test]
fn two_runs_of_one_data_directory_are_told_of_each_other() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("ip"));
    let site = Site::new()?;
    let net = Net::new()?;
    let hosts = [net.host()?, net.host()?, net.host()?];
    let mut ann = Device::on(&site, "Ann", &hosts[0])?;
    let mut bob = Device::on(&site, "Bob", &hosts[1])?;
    ann.mount()?;
    bob.join_drive_of(&ann)?;
    agree(&[&ann, &bob])?;
    bob.unmount()?;
    let elsewhere = Site::new()?;
    let mut twin = Device::on(&elsewhere, "Bob", &hosts[2])?.option("--drive").option("mount");
    let mut copy = program::command("cp", ["-aT"]);
    program::ok(copy.arg(bob.data_dir()).arg(twin.data_dir()))?;
    bob.mount()?;
    bob.wait_online(1)?;
    twin.mount()?;
    // Where Ann chooses the connection they take turns of a quarter of a minute and more.
    ann.wait_notice(&["Bob runs in two places at once", "end one"], TURNS_BOUND)?;
    for device in [&bob, &twin] {
        let words = ["a copy of this device's data directory is in use elsewhere"];
        device.wait_notice(&words, TURNS_BOUND)?;
    }
    Ok(())
}

#[test]
fn what_a_reader_cannot_publish_stands_in_no_questions_way_and_is_said_at_the_end() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let mut ann = Device::local(&site, "Ann")?;
    ann.mount()?;
    let mut bob = Device::local(&site, "Bob")?;
    bob.join_drive_of(&ann)?;
    fs::write(ann.path("f"), b"base")?;
    agree(&[&ann, &bob])?;
    let mut open = fs::OpenOptions::new().write(true).open(bob.path("f"))?;
    open.write_all(b"BOB1")?;
    ann.cli(&["members", "role", "Bob", "reader"])?;
    wait::until("Bob hears of it", BOUND, || {
        let members = bob.json("members")?;
        let all = members.as_array().context("no members")?;
        Ok(all.iter().any(|m| m["name"] == "Bob" && m["role"] == "reader").then_some(()))
    })?;
    drop(open);
    bob.wait_notice(&["may only read", "editor role"], BOUND)?;
    let f = bob.path("f");
    let f = f.to_str().context("a path")?.to_owned();
    for question in [&["history", &f] as &[&str], &["conflicts", &f], &["verify", &f]] {
        ended(&bob.try_raw(question)?, 0, &[])?;
    }
    let dest = site.path().join("exported");
    bob.cli(&["export", dest.to_str().context("a path")?])?;
    ensure!(fs::read(dest.join("f"))? == b"base");
    ended(&bob.try_cli(&["sync", "--timeout", "1s"])?, 4, &["editor role"])?;
    ended(&bob.try_cli(&["unmount"])?, 3, &["could not be published", "kept"])?;
    ensure!(bob.wait_end().is_err(), "the daemon ended as if nothing were");
    bob.mount()?;
    ann.cli(&["members", "role", "Bob", "editor"])?;
    ann.wait_bytes("f", b"BOB1")?;
    agree(&[&ann, &bob])?;
    ensure!(bob.status()?["drafts"] == Value::from(0));
    bob.unmount()
}

#[test]
fn who_leaves_or_becomes_a_reader_by_its_own_word_leaves_no_save_behind() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let mut ann = Device::local(&site, "Ann")?;
    ann.mount()?;
    let mut bob = Device::local(&site, "Bob")?;
    bob.join_drive_of(&ann)?;
    let mut cat = Device::local(&site, "Cat")?;
    cat.join_drive_of(&ann)?;
    ann.cli(&["members", "role", "Bob", "owner"])?;
    ann.cli(&["members", "role", "Cat", "owner"])?;
    agree(&[&ann, &bob, &cat])?;
    for (device, leave) in [
        (&bob, &["members", "role", "Bob", "reader"] as &[&str]),
        (&cat, &["members", "remove", "Cat"]),
    ] {
        let (open, shut) = (format!("{}s open", device.name()), format!("{}s", device.name()));
        let mut still = fs::File::create(device.path(&open))?;
        still.write_all(b"as far as it is")?;
        fs::write(device.path(&shut), b"saved")?;
        device.cli(leave)?;
        ensure!(device.status()?["drafts"] == 0, "{}", device.status()?);
        ann.wait_bytes(&shut, b"saved")?;
        ann.wait_bytes(&open, b"as far as it is")?;
        ensure!(ann.notices()?.iter().all(|n| !n.contains("take-back")), "{:?}", ann.notices()?);
    }
    Ok(())
}
