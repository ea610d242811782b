//! Real Blenders with the add-on on two hosts: who has a scene is named on the other, it is free when its Blender ends,
//! and whatever twenty sessions do to one scene, every save of theirs is somewhere to be seen.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tests::harness::artist::{self, AddOn, Answer, Artist, Stands};
use tests::harness::blender;
use tests::harness::device::{AGREE_BOUND, Device, agree, agree_within};
use tests::harness::netns::{Host, Net};
use tests::harness::site::Site;
use tests::harness::skip::Need;
use tests::harness::tree::Tree;
use tests::harness::wait;
use tests::needs;
use tests::sim::rng::Rng;

const SCENE: &str = "shots/010/scene.blend";

/// Two devices on hosts of their own that both have one scene.
fn two_with_a_scene(site: &Site, net: &Net) -> Result<([Device; 2], [Host; 2])> {
    let hosts = [net.host()?, net.host()?];
    let mut ann = Device::on(site, "Ann", &hosts[0])?;
    let mut bob = Device::on(site, "Bob", &hosts[1])?;
    ann.mount()?;
    bob.join_drive_of(&ann)?;
    fs::create_dir_all(ann.path("shots/010"))?;
    blender::make(&ann.path(SCENE), 20)?;
    agree(&[&ann, &bob])?;
    Ok(([ann, bob], hosts))
}

fn stands(answer: &Answer) -> Result<&Stands> {
    ensure!(answer.failed.is_none(), "Blender failed: {answer:?}");
    answer.stands.as_ref().context("the add-on knows of no drive")
}

fn ensure_theirs(answer: &Answer, holder: &str) -> Result<()> {
    let stands = stands(answer)?;
    ensure!(stands.standing == "theirs" && stands.holder == holder, "{stands:?}, not {holder}'s");
    Ok(())
}

fn ensure_mine(answer: &Answer) -> Result<()> {
    let stands = stands(answer)?;
    ensure!(stands.standing == "mine", "{stands:?}, not mine");
    Ok(())
}

/// Waits until the add-on says so.
fn wait_standing(artist: &mut Artist, standing: &str) -> Result<Stands> {
    let mut last = None;
    wait::until(format!("the scene stands {standing}"), AGREE_BOUND, || {
        let stands = artist.look()?;
        last = Some(stands.clone());
        Ok((stands.standing == standing).then_some(stands))
    })
    .with_context(|| format!("it stands {last:?}"))
}

/// Who has the scene checked out, as a device tells.
fn holder(device: &Device) -> Result<Option<String>> {
    let rows = device.json("ls-locks")?;
    let rows = rows.as_array().context("no list of locks")?;
    let row = rows.iter().find(|row| row["path"] == SCENE && row["kind"] == "checkout");
    Ok(row.and_then(|row| row["holder"].as_str()).map(str::to_owned))
}

fn wait_holder(device: &Device, wanted: Option<&str>) -> Result<()> {
    wait::until(format!("{} says {wanted:?} has the scene", device.name()), AGREE_BOUND, || {
        Ok((holder(device)?.as_deref() == wanted).then_some(()))
    })
}

#[test]
fn who_has_a_scene_is_named_on_the_other_host_until_its_blender_ends() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("ip"), Need::Program("blender"));
    let site = Site::new()?;
    let net = Net::new()?;
    let ([ann, mut bob], _hosts) = two_with_a_scene(&site, &net)?;

    let mut anns = Artist::start(&ann, AddOn::On)?;
    ensure_mine(&anns.open(&ann.path(SCENE))?)?;
    wait_holder(&bob, Some("Ann"))?;
    let mut bobs = Artist::start(&bob, AddOn::On)?;
    ensure_theirs(&bobs.open(&bob.path(SCENE))?, "Ann")?;

    // Bob cannot save over it, can save beside it, and nothing of his is in Ann's way.
    let before = fs::read(bob.path(SCENE))?;
    let refused = bobs.save(1)?;
    ensure!(refused.failed.is_some(), "Bob saved what Ann has checked out: {refused:?}");
    ensure!(fs::read(bob.path(SCENE))? == before);
    let copy = bobs.copy_beside()?;
    ensure_mine(&copy)?;
    ensure!(copy.file.ends_with("scene (copy Bob).blend"), "saved as {}", copy.file);
    ensure_theirs(&bobs.open(&bob.path(SCENE))?, "Ann")?;
    let saved = anns.save(2)?;
    ensure_mine(&saved)?;

    // Ann ends, Bob takes over what she saved.
    anns.quit()?;
    wait_standing(&mut bobs, "free")?;
    bob.wait_bytes(SCENE, &fs::read(ann.path(SCENE))?)?;
    ensure_mine(&bobs.open(&bob.path(SCENE))?)?;
    ensure_mine(&bobs.save(3)?)?;
    wait_holder(&ann, Some("Bob"))?;
    let mut anns = Artist::start(&ann, AddOn::On)?;
    ensure_theirs(&anns.open(&ann.path(SCENE))?, "Bob")?;

    // A crash leaves it with Bob's device; his next Blender goes on and gives it back.
    drop(bobs);
    ensure_theirs(&anns.open(&ann.path(SCENE))?, "Bob")?;
    let mut bobs = Artist::start(&bob, AddOn::On)?;
    ensure_mine(&bobs.open(&bob.path(SCENE))?)?;
    bobs.quit()?;
    wait_standing(&mut anns, "free")?;
    ensure_mine(&anns.open(&ann.path(SCENE))?)?;
    let mut reader = Artist::start(&ann, AddOn::Off)?;
    ensure!(reader.stamp_of(&ann.path(SCENE))? == Some(3), "Ann does not see what Bob saved last");
    anns.quit()?;

    agree(&[&ann, &bob])?;
    wait_holder(&ann, None)?;
    let status = ann.status()?;
    ensure!(status["conflicts"] == 0, "taking turns made {} conflicts", status["conflicts"]);

    // A Blender that listens for news holds up no unmount.
    let mut bobs = Artist::start(&bob, AddOn::On)?;
    ensure_mine(&bobs.open(&bob.path(SCENE))?)?;
    bob.unmount()?;
    ensure!(!bob.log_tail().contains("did not end in time"), "{}", bob.log_tail());
    bobs.quit()
}

#[test]
fn an_owner_breaks_a_checkout_and_its_holders_blender_is_told() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("ip"), Need::Program("blender"));
    let site = Site::new()?;
    let net = Net::new()?;
    let ([ann, bob], _hosts) = two_with_a_scene(&site, &net)?;
    let mut bobs = Artist::start(&bob, AddOn::On)?;
    ensure_mine(&bobs.open(&bob.path(SCENE))?)?;
    wait_holder(&ann, Some("Bob"))?;
    let scene = ann.path(SCENE);
    let scene = scene.to_str().context("a path in UTF-8")?;
    let broken = ann.try_raw(&["unlock", scene, "--break"])?;
    ensure!(broken.code == 0, "unlock --break ended with {}\n{}", broken.code, broken.err);
    let mut anns = Artist::start(&ann, AddOn::On)?;
    ensure_mine(&anns.open(&ann.path(SCENE))?)?;
    let stands = wait_standing(&mut bobs, "theirs")?;
    ensure!(stands.holder == "Ann", "Bob is told that {} has it", stands.holder);
    Ok(())
}

/// Sessions on each host, one after the other and up to [`AT_ONCE`] at the same time.
const SESSIONS: usize = 10;
const AT_ONCE: usize = 3;
/// Kills of a daemon.
const CRASHES: usize = 3;
const SEED: u64 = 5;

/// One host with its device and the Blenders that are open on it.
struct Desk {
    device: Device,
    artists: Vec<Artist>,
    started: usize,
}

/// What somebody was asked to do in a round.
enum Act {
    Open,
    Save(u64),
}

impl Desk {
    fn scene(&self) -> PathBuf {
        self.device.path(SCENE)
    }

    /// Starts the next session with the scene open.
    fn start(&mut self, addon: AddOn) -> Result<()> {
        let mut artist = Artist::spawn(&self.device, addon)?;
        artist.ask(&artist::open(&self.scene()))?;
        self.artists.push(artist);
        self.started += 1;
        Ok(())
    }

    /// Waits until what was saved is more than a draft.
    fn settle(&self) -> Result<()> {
        let what = format!("{} has published what was saved", self.device.name());
        wait::until(what, AGREE_BOUND, || Ok((self.device.status()?["drafts"] == 0).then_some(())))
            .with_context(|| self.device.log_tail())
    }
}

/// What twenty sessions did.
#[derive(Debug, Default)]
struct Tally {
    /// Stamps of the saves that succeeded, and whose they were.
    saved: BTreeMap<u64, String>,
    refused: usize,
    cuts: usize,
    crashes: usize,
    killed: usize,
}

#[test]
fn every_scene_that_twenty_sessions_saved_through_cuts_and_crashes_opens_again() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("ip"), Need::Program("blender"));
    let site = Site::new()?;
    let net = Net::new()?;
    let (devices, hosts) = two_with_a_scene(&site, &net)?;
    let mut desks = devices.map(|device| Desk { device, artists: vec![], started: 0 });
    let mut rng = Rng::new(SEED);
    println!("seed {SEED}");
    let tally = work(&mut desks, &net, &hosts, &mut rng)?;
    println!("{tally:?}");

    for desk in &mut desks {
        for artist in desk.artists.drain(..) {
            artist.quit()?;
        }
    }
    let [ann, bob] = &desks.each_ref().map(|desk| &desk.device);
    agree_within(&[ann, bob], Duration::from_secs(120))?;
    let differences = Tree::read(&ann.mount_dir())?.differences(&Tree::read(&bob.mount_dir())?);
    ensure!(differences.is_empty(), "Ann against Bob: {differences}");
    let (enough, told) = (tally.saved.len() >= 15, tally.refused > 0);
    ensure!(enough && told && tally.cuts > 0 && tally.crashes > 0, "it tests little: {tally:?}");
    ensure_all_are_seen(bob, &tally)
}

/// Rounds of random acts on both hosts at the same time, with faults in between, until all sessions have ended.
fn work(desks: &mut [Desk; 2], net: &Net, hosts: &[Host; 2], rng: &mut Rng) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut cut = false;
    let mut next_stamp = 100;
    while desks.iter().any(|desk| desk.started < SESSIONS || !desk.artists.is_empty()) {
        let mut asked = Vec::new();
        for (at, desk) in desks.iter_mut().enumerate() {
            let room = desk.started < SESSIONS && desk.artists.len() < AT_ONCE;
            if room && (desk.artists.is_empty() || rng.chance(40)) {
                desk.start(if rng.chance(50) { AddOn::On } else { AddOn::Off })?;
                let place = desk.artists.len() - 1;
                // The first answer says that Blender is there.
                desk.artists[place].answer()?;
                asked.push((at, place, Act::Open));
            } else if let Some(act) = end_or_act(desk, rng, &mut next_stamp, &mut tally)? {
                asked.push((at, act.0, act.1));
            }
        }
        for (at, place, act) in asked {
            let desk = &mut desks[at];
            let artist = desk.artists.get_mut(place).context("nobody there")?;
            let answer = artist.answer()?;
            match (act, answer.failed) {
                (Act::Save(stamp), None) => {
                    tally.saved.insert(stamp, desk.device.name().to_owned());
                }
                (Act::Save(_), Some(_)) => tally.refused += 1,
                (Act::Open, None) => {}
                (Act::Open, Some(failed)) => bail!("the scene did not open: {failed}"),
            }
        }
        for desk in desks.iter() {
            desk.settle()?;
        }
        if rng.chance(15) {
            if cut {
                net.heal(&hosts[1])?;
            } else {
                net.cut(&hosts[1])?;
                tally.cuts += 1;
            }
            cut = !cut;
        }
        if tally.crashes < CRASHES && rng.chance(8) {
            let desk = &mut desks[rng.below(2)];
            desk.device.kill()?;
            desk.device.mount()?;
            tally.crashes += 1;
        }
    }
    if cut {
        net.heal(&hosts[1])?;
    }
    Ok(tally)
}

/// One session ends or crashes, or one is asked to do something: its place and what.
fn end_or_act(
    desk: &mut Desk,
    rng: &mut Rng,
    next_stamp: &mut u64,
    tally: &mut Tally,
) -> Result<Option<(usize, Act)>> {
    if desk.artists.is_empty() {
        return Ok(None);
    }
    let place = rng.below(desk.artists.len());
    let chance = rng.below(100);
    if chance < 25 {
        let artist = desk.artists.remove(place);
        if chance < 18 {
            artist.quit()?;
        } else {
            drop(artist);
            tally.killed += 1;
        }
        return Ok(None);
    }
    let scene = desk.scene();
    let artist = desk.artists.get_mut(place).context("nobody there")?;
    let act = if chance < 45 {
        artist.ask(&artist::open(&scene))?;
        Act::Open
    } else {
        *next_stamp += 1;
        artist.ask(&artist::save(*next_stamp))?;
        Act::Save(*next_stamp)
    };
    Ok(Some((place, act)))
}

/// Opens everything that shows a version of the scene, and insists that every save is among it.
fn ensure_all_are_seen(device: &Device, tally: &Tally) -> Result<()> {
    let mut reader = Artist::start(device, AddOn::Off)?;
    let mut seen: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut shown = vec![device.path(SCENE)];
    for entry in fs::read_dir(device.path("shots/010"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("scene (conflict ") && name.ends_with(".blend") {
            shown.push(path);
        }
    }
    let copies = shown.len() - 1;
    for entry in fs::read_dir(device.path(".history").join(SCENE))? {
        shown.push(entry?.path());
    }
    for path in &shown {
        if let Some(stamp) = reader.stamp_of(path)? {
            seen.entry(stamp).or_insert_with(|| path.clone());
        }
    }
    println!("{} copies, {} files opened, {} saves seen", copies, shown.len(), seen.len());
    let lost: Vec<_> = tally.saved.iter().filter(|(stamp, _)| !seen.contains_key(stamp)).collect();
    let history: Vec<Value> = device.history(SCENE)?;
    ensure!(lost.is_empty(), "saves that are nowhere: {lost:?}\nof {seen:?}\nhistory: {history:?}");
    Ok(())
}
