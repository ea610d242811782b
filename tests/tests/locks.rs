//! Who may write what, on two and three hosts with real mounts: locks taken, refused, told, given back, broken and lost.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::harness::device::{AGREE_BOUND, Device, agree, text};
use tests::harness::holder::{Answer, Program};
use tests::harness::netns::{Host, Net};
use tests::harness::site::Site;
use tests::harness::skip::Need;
use tests::harness::{program, wait};
use tests::needs;

/// Permission denied, as programs see it.
const EACCES: i32 = 13;
/// A crashed holder's lock ends within this time; the rest is for a busy machine.
const LEASE_BOUND: Duration = Duration::from_secs(20 + 10);

/// Ann and Bob on this machine, who agree on one file.
fn two(site: &Site, file: &str) -> Result<(Device, Device)> {
    let mut ann = Device::local(site, "Ann")?;
    let mut bob = Device::local(site, "Bob")?;
    ann.mount()?;
    bob.join_drive_of(&ann)?;
    fs::write(ann.path(file), b"first")?;
    agree(&[&ann, &bob])?;
    Ok((ann, bob))
}

/// Ann and Bob on hosts of their own, who agree on one file.
fn two_hosts(site: &Site, net: &Net, file: &str) -> Result<([Device; 2], [Host; 2])> {
    let hosts = [net.host()?, net.host()?];
    let mut ann = Device::on(site, "Ann", &hosts[0])?;
    let mut bob = Device::on(site, "Bob", &hosts[1])?;
    ann.mount()?;
    bob.join_drive_of(&ann)?;
    fs::write(ann.path(file), b"first")?;
    agree(&[&ann, &bob])?;
    Ok(([ann, bob], hosts))
}

fn refused(answer: Answer) -> Result<()> {
    ensure!(answer == Err(EACCES), "not refused: {answer:?}");
    Ok(())
}

fn locks(device: &Device) -> Result<Vec<Value>> {
    Ok(device.json("ls-locks")?.as_array().context("no list of locks")?.clone())
}

/// Waits until a program may open the file for writing there.
fn wait_free(device: &Device, file: &str, bound: Duration) -> Result<Duration> {
    let (started, path) = (Instant::now(), device.path(file));
    wait::until_ok(format!("{file} is free for {}", device.name()), bound, || {
        Ok(fs::OpenOptions::new().write(true).open(&path).map(drop)?)
    })
    .with_context(|| device.log_tail())?;
    Ok(started.elapsed())
}

/// Names in the top folder that are conflict copies, and what they hold.
fn copies(device: &Device) -> Result<Vec<(String, String)>> {
    let mut copies = Vec::new();
    for entry in fs::read_dir(device.mount_dir())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains("(conflict ") {
            copies.push((name, fs::read_to_string(entry.path())?));
        }
    }
    Ok(copies)
}

#[test]
fn what_one_writes_the_other_is_refused_at_once_and_reads_without_hindrance() -> Result<()> {
    needs!(Need::Fuse, Need::Program("python3"));
    let site = Site::new()?;
    let (ann, bob) = two(&site, "scene.blend")?;
    let (mut hers, mut his) = (Program::start()?, Program::start()?);
    let (ann_scene, scene) = (ann.path("scene.blend"), bob.path("scene.blend"));
    let mode = fs::metadata(&scene)?.mode();
    hers.must("open", &ann_scene, "")?;
    // In every way in which a program begins to change it.
    refused(his.tell("open", &scene, "")?)?;
    refused(his.tell("overwrite", &scene, "lost")?)?;
    refused(his.tell("replace", &scene, "lost")?)?;
    refused(his.tell("unlink", &scene, "")?)?;
    for temp in ["scene.blend@", "~$scene.blend", ".~lock.scene.blend#"] {
        refused(his.tell("make", &bob.path(temp), "")?).context(temp)?;
    }
    ensure!(his.must("access", &scene, "")? == "False", "access(W_OK) says yes");
    let bench = Instant::now();
    for _ in 0..200 {
        refused(his.tell("open", &scene, "")?)?;
    }
    println!("refused in {:?} on average, with the pipe to the program", bench.elapsed() / 200);
    // Nothing of that is seen in the file.
    ensure!(fs::read(&scene)? == b"first" && fs::metadata(&scene)?.mode() == mode);
    // Who has it is found in every place.
    let told = fs::read_to_string(bob.path(".scene.blend.lock"))?;
    ensure!(told.contains("holder: Ann\n") && told.contains("every member agrees"), "{told}");
    let listed = fs::read_dir(bob.mount_dir())?.filter_map(|entry| Some(entry.ok()?.file_name()));
    ensure!(!listed.into_iter().any(|name| name == ".scene.blend.lock"), "it is listed");
    for device in [&ann, &bob] {
        let rows = locks(device)?;
        let row = rows.first().context("no lock listed")?;
        ensure!(row["path"] == "scene.blend" && row["holder"] == "Ann", "{row}");
        ensure!(row["kind"] == "session" && row["unreachable"] == 0, "{row}");
        ensure!(row["mine"] == (device.name() == "Ann"), "{row}");
        ensure!(device.status()?["locks"] == Value::Array(rows.clone()));
    }
    // Others are not affected, and she may go on herself, in another program as well.
    his.must("overwrite", &bob.path("other"), "free")?;
    Program::start()?.must("overwrite", &ann_scene, "second")?;
    // It ends with her program, and what she saved is there.
    hers.must("close", &ann_scene, "")?;
    wait_free(&bob, "scene.blend", Duration::from_secs(5))?;
    ensure!(fs::read(&scene)? == b"second", "free before what was saved had arrived");
    ensure!(bob.status()?["conflicts"] == 0);
    Ok(())
}

#[test]
fn whoever_opens_at_the_same_time_never_both_get_it() -> Result<()> {
    needs!(Need::Fuse, Need::Program("python3"));
    const ROUNDS: u32 = 200;
    let site = Site::new()?;
    let (ann, bob) = two(&site, "scene.blend")?;
    let (mut one, mut two) = (Program::start()?, Program::start()?);
    let (here, there) = (ann.path("scene.blend"), bob.path("scene.blend"));
    let mut won = [0, 0, 0];
    for round in 0..ROUNDS {
        let (first, second) = std::thread::scope(|scope| {
            let other = scope.spawn(|| two.tell("open", &there, ""));
            let first = one.tell("open", &here, "");
            (first, other.join())
        });
        let second = second.map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        match (first?, second) {
            (Ok(_), Ok(_)) => anyhow::bail!("both have it in round {round}"),
            (Ok(_), Err(_)) => {
                won[0] += 1;
                one.must("close", &here, "")?;
            }
            (Err(_), Ok(_)) => {
                won[1] += 1;
                two.must("close", &there, "")?;
            }
            (Err(_), Err(_)) => won[2] += 1,
        }
        let free = || -> Result<bool> { Ok(locks(&ann)?.is_empty() && locks(&bob)?.is_empty()) };
        if round % 20 == 0 {
            wait::until("nobody has it", AGREE_BOUND, || Ok(free()?.then_some(())))?;
        }
    }
    println!("Ann {} times, Bob {}, nobody {}", won[0], won[1], won[2]);
    ensure!(won[0] + won[1] >= ROUNDS * 9 / 10, "too often nobody got it: {won:?}");
    Ok(())
}

#[test]
fn a_lock_ends_with_its_program_its_daemon_and_its_machine() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("ip"), Need::Program("python3"));
    let (site, net) = (Site::new()?, Net::new()?);
    let ([mut ann, bob], hosts) = two_hosts(&site, &net, "scene.blend")?;
    // The program is killed: at once.
    let mut hers = Program::start()?;
    hers.must("open", &ann.path("scene.blend"), "")?;
    ensure!(fs::OpenOptions::new().write(true).open(bob.path("scene.blend")).is_err());
    hers.kill()?;
    let took = wait_free(&bob, "scene.blend", Duration::from_secs(5))?;
    println!("free {took:?} after the program was killed");
    // It forks, and dies: the child has the descriptor.
    let mut hers = Program::start()?;
    hers.must("open", &ann.path("scene.blend"), "")?;
    let child: i32 = hers.must("fork", Path::new("/"), "")?.parse()?;
    hers.kill()?;
    let locked = |device: &Device| {
        let opened = fs::OpenOptions::new().write(true).open(device.path("scene.blend"));
        opened.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    };
    for _ in 0..20 {
        ensure!(locked(&bob), "free although a child has it open");
        wait::breathe(Duration::from_millis(50));
    }
    kill_process(Pid::from_raw(child).context("no child")?, Signal::KILL)?;
    wait_free(&bob, "scene.blend", Duration::from_secs(5))?;
    // The daemon is killed: within the lease.
    let mut hers = Program::start()?;
    hers.must("open", &ann.path("scene.blend"), "")?;
    ensure!(locked(&bob));
    ann.kill()?;
    ensure!(locked(&bob), "given up although its holder may be alive");
    let took = wait_free(&bob, "scene.blend", LEASE_BOUND)?;
    println!("free {took:?} after the daemon was killed");
    drop(hers);
    // Its cable is pulled: the same, and it is told how sure that is.
    ann.mount()?;
    ann.wait_online(1)?;
    let mut hers = Program::start()?;
    let mut opened = |path: &Path| Ok(hers.tell("open", path, "")?.ok());
    wait::until("Ann has it", LEASE_BOUND, || opened(&ann.path("scene.blend")))?;
    net.cut(&hosts[0])?;
    ensure!(locked(&bob));
    let took = wait_free(&bob, "scene.blend", LEASE_BOUND)?;
    println!("free {took:?} after the cable was pulled");
    let mut his = Program::start()?;
    his.must("open", &bob.path("scene.blend"), "")?;
    ensure!(locks(&bob)?.iter().any(|lock| lock["unreachable"] == 1), "{:?}", locks(&bob)?);
    Ok(())
}

#[test]
fn a_holder_that_slept_writes_a_conflict_copy() -> Result<()> {
    needs!(Need::Fuse, Need::Program("python3"));
    let site = Site::new()?;
    let (ann, bob) = two(&site, "scene.txt")?;
    let mut hers = Program::start()?;
    hers.must("open", &ann.path("scene.txt"), "")?;
    hers.must("write", &ann.path("scene.txt"), "Ann, early")?;
    let daemon = Pid::from_raw(ann.pid()?.try_into()?).context("no daemon")?;
    kill_process(daemon, Signal::STOP)?;
    wait_free(&bob, "scene.txt", LEASE_BOUND)?;
    let mut his = Program::start()?;
    his.must("overwrite", &bob.path("scene.txt"), "Bob, meanwhile")?;
    wait::until("Bob has saved", AGREE_BOUND, || Ok((bob.status()?["drafts"] == 0).then_some(())))?;
    kill_process(daemon, Signal::CONT)?;
    hers.must("write", &ann.path("scene.txt"), "Ann, late and all")?;
    hers.must("close", &ann.path("scene.txt"), "")?;
    agree(&[&ann, &bob])?;
    for device in [&ann, &bob] {
        ensure!(fs::read(device.path("scene.txt"))? == b"Bob, meanwhile");
        let copies = copies(device)?;
        let [(_, text)] = &copies[..] else { anyhow::bail!("not one copy: {copies:?}") };
        ensure!(text == "Ann, late and all", "{text}");
    }
    Ok(())
}

#[test]
fn cut_from_each_other_both_save_and_one_official_and_one_copy_are_left() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("ip"), Need::Program("python3"));
    let (site, net) = (Site::new()?, Net::new()?);
    let ([ann, bob], hosts) = two_hosts(&site, &net, "scene.txt")?;
    let (mut hers, mut his) = (Program::start()?, Program::start()?);
    hers.must("open", &ann.path("scene.txt"), "")?;
    net.cut(&hosts[0])?;
    ann.wait_online(0)?;
    bob.wait_online(0)?;
    wait_free(&bob, "scene.txt", LEASE_BOUND)?;
    his.must("open", &bob.path("scene.txt"), "")?;
    hers.must("write", &ann.path("scene.txt"), "Ann's")?;
    hers.must("close", &ann.path("scene.txt"), "")?;
    his.must("write", &bob.path("scene.txt"), "Bob's")?;
    his.must("close", &bob.path("scene.txt"), "")?;
    net.heal(&hosts[0])?;
    ann.wait_online(1)?;
    agree(&[&ann, &bob])?;
    let mut all = Vec::new();
    for device in [&ann, &bob] {
        let copies = copies(device)?;
        ensure!(copies.len() == 1, "{copies:?}");
        let mut texts = vec![fs::read_to_string(device.path("scene.txt"))?, copies[0].1.clone()];
        all.push((texts.clone(), copies));
        texts.sort();
        ensure!(texts == ["Ann's", "Bob's"], "{texts:?}");
    }
    ensure!(all[0] == all[1], "the devices show something else: {all:?}");
    Ok(())
}

#[test]
fn a_checkout_lasts_is_given_back_by_its_device_and_broken_by_an_owner() -> Result<()> {
    needs!(Need::Fuse, Need::Program("python3"), Need::Program("setfattr"));
    let site = Site::new()?;
    let (ann, mut bob) = two(&site, "scene.txt")?;
    let file = |device: &Device| text(&device.path("scene.txt")).map(str::to_owned);
    let cli = |device: &Device, verb: &str, more: &[&str]| -> Result<i32> {
        let file = file(device)?;
        let args: Vec<&str> = [&[verb, file.as_str()], more].concat();
        Ok(device.try_raw(&args)?.code)
    };
    // Bob's, an editor; Ann is an owner.
    ensure!(cli(&bob, "lock", &[])? == 0);
    ensure!(cli(&bob, "lock", &[])? == 0, "taken twice is taken");
    wait::until("Ann knows", AGREE_BOUND, || Ok((!locks(&ann)?.is_empty()).then_some(())))?;
    let (mut hers, mut his) = (Program::start()?, Program::start()?);
    refused(hers.tell("open", &ann.path("scene.txt"), "")?)?;
    ensure!(cli(&ann, "lock", &[])? == 4 && cli(&ann, "unlock", &[])? == 4);
    his.must("overwrite", &bob.path("scene.txt"), "Bob's")?;
    agree(&[&ann, &bob])?;
    // It lasts over days and restarts, here one.
    bob.unmount()?;
    refused(hers.tell("overwrite", &ann.path("scene.txt"), "lost")?)?;
    let row = locks(&ann)?.first().cloned().context("no lock")?;
    ensure!(row["kind"] == "checkout" && row["holder"] == "Bob", "{row}");
    bob.mount()?;
    bob.wait_online(1)?;
    ensure!(locks(&bob)?.first().is_some_and(|row| row["mine"] == true));
    his.must("open", &bob.path("scene.txt"), "")?;
    his.must("append", &bob.path("scene.txt"), ", more")?;
    // Broken: Bob's later work stands beside.
    ensure!(cli(&ann, "unlock", &["--break"])? == 0);
    wait::until("Bob knows", AGREE_BOUND, || {
        Ok(bob.notices()?.iter().any(|what| what.contains("has broken")).then_some(()))
    })?;
    his.must("close", &bob.path("scene.txt"), "")?;
    agree(&[&ann, &bob])?;
    ensure!(fs::read(ann.path("scene.txt"))? == b"Bob's");
    let copies = copies(&ann)?;
    ensure!(copies.len() == 1 && copies[0].1 == "Bob's, more", "{copies:?}");
    // By an editor it is not broken, by nobody what is not there.
    ensure!(cli(&ann, "lock", &[])? == 0);
    wait::until("Bob knows", AGREE_BOUND, || {
        Ok(locks(&bob)?.iter().any(|row| row["holder"] == "Ann").then_some(()))
    })?;
    ensure!(cli(&bob, "unlock", &["--break"])? == 4);
    ensure!(cli(&ann, "unlock", &[])? == 0 && cli(&ann, "unlock", &[])? == 1);
    let missing = ann.path("nothing");
    ensure!(ann.try_raw(&["lock", text(&missing)?])?.code == 1);
    ensure!(ann.try_raw(&["lock", text(&ann.mount_dir())?])?.code == 2);
    // By attribute: `held` and nothing else.
    let attr = |device: &Device, value: Option<&str>| -> Result<i32> {
        let mut command = program::command("setfattr", ["-h"]);
        match value {
            Some(value) => command.args(["-n", "user.atelier.lock", "-v", value]),
            None => command.args(["-x", "user.atelier.lock"]),
        };
        Ok(program::run(command.arg(device.path("scene.txt")), Duration::from_secs(20))?.code)
    };
    ensure!(attr(&ann, Some("rubbish"))? != 0 && attr(&ann, None)? != 0);
    ensure!(attr(&ann, Some("held"))? == 0);
    wait::until("Bob knows", AGREE_BOUND, || Ok((!locks(&bob)?.is_empty()).then_some(())))?;
    ensure!(attr(&bob, None)? != 0 && attr(&bob, Some("held"))? != 0);
    ensure!(attr(&ann, None)? == 0 && locks(&ann)?.is_empty());
    Ok(())
}

#[test]
fn an_owner_breaks_the_lock_of_a_program_and_it_can_still_save_beside() -> Result<()> {
    needs!(Need::Fuse, Need::Program("python3"));
    let site = Site::new()?;
    let (ann, bob) = two(&site, "scene.txt")?;
    let mut his = Program::start()?;
    his.must("open", &bob.path("scene.txt"), "")?;
    his.must("write", &bob.path("scene.txt"), "Bob's, unsaved")?;
    let path = ann.path("scene.txt");
    ensure!(ann.try_raw(&["unlock", text(&path)?])?.code == 4);
    ensure!(ann.try_raw(&["unlock", text(&path)?, "--break"])?.code == 0);
    Program::start()?.must("overwrite", &path, "Ann's")?;
    wait::until("Bob knows", AGREE_BOUND, || {
        Ok(bob.notices()?.iter().any(|what| what.contains("has broken")).then_some(()))
    })?;
    his.must("close", &bob.path("scene.txt"), "")?;
    refused(his.tell("open", &bob.path("scene.txt"), "")?)?;
    ensure!(ann.try_raw(&["unlock", text(&path)?])?.code == 0);
    agree(&[&ann, &bob])?;
    ensure!(fs::read(&path)? == b"Ann's");
    let copies = copies(&ann)?;
    ensure!(copies.len() == 1 && copies[0].1 == "Bob's, unsaved", "{copies:?}");
    Ok(())
}

#[test]
fn a_save_over_what_its_program_has_not_seen_is_told_and_stands_beside() -> Result<()> {
    needs!(Need::Fuse, Need::Program("python3"));
    for verb in ["overwrite", "replace"] {
        let site = Site::new()?;
        let (ann, bob) = two(&site, "scene.txt")?;
        let (mut hers, mut his) = (Program::start()?, Program::start()?);
        hers.must("load", &ann.path("scene.txt"), "")?;
        his.must("load", &bob.path("scene.txt"), "")?;
        his.must(verb, &bob.path("scene.txt"), "Bob's")?;
        ann.wait_bytes("scene.txt", b"Bob's")?;
        let path = ann.path("scene.txt");
        wait::until("it is free", AGREE_BOUND, || Ok(hers.tell(verb, &path, "Ann's")?.ok()))?;
        agree(&[&ann, &bob])?;
        for device in [&ann, &bob] {
            ensure!(fs::read(device.path("scene.txt"))? == b"Bob's", "{verb} overwrote it");
            let copies = copies(device)?;
            ensure!(copies.len() == 1 && copies[0].1 == "Ann's", "{copies:?}");
        }
        let told = ann.notices()?;
        ensure!(told.iter().any(|what| what.contains("Bob had saved it meanwhile")), "{told:?}");
        // Having read what is there she may replace it.
        hers.must("load", &path, "")?;
        hers.must(verb, &path, "both")?;
        agree(&[&ann, &bob])?;
        ensure!(fs::read(bob.path("scene.txt"))? == b"both");
    }
    Ok(())
}

#[test]
fn what_reads_everything_takes_no_lock_and_makes_no_conflict() -> Result<()> {
    needs!(Need::Fuse, Need::Program("python3"), Need::Program("find"));
    let site = Site::new()?;
    let (ann, bob) = two(&site, "scene.blend")?;
    for number in 0..50 {
        fs::write(ann.path(&format!("file{number}.blend")), vec![7; 10_000 * number])?;
    }
    agree(&[&ann, &bob])?;
    // A backup, an index and a scan on both devices, one of which goes on while others write.
    let mut indexer = Program::start()?;
    for device in [&ann, &bob] {
        program::shell(
            &device.mount_dir(),
            "find . -type f -exec cat {} + | wc -c; find . -type f -exec head -c 1000 {} + | wc -c",
        )?;
        for number in 0..50 {
            indexer.must("load", &device.path(&format!("file{number}.blend")), "")?;
        }
        ensure!(locks(device)?.is_empty(), "{:?}", locks(device)?);
    }
    for (turn, device) in [&ann, &bob, &ann].into_iter().enumerate() {
        for number in 0..50 {
            let path = device.path(&format!("file{number}.blend"));
            program::shell(&device.mount_dir(), &format!("echo {turn} >> {}", path.display()))?;
        }
        agree(&[&ann, &bob])?;
    }
    ensure!(ann.status()?["conflicts"] == 0 && bob.status()?["conflicts"] == 0);
    Ok(())
}

#[test]
fn advisory_locks_are_told_and_refuse_nobody() -> Result<()> {
    needs!(Need::Fuse, Need::Program("python3"));
    let site = Site::new()?;
    let (ann, bob) = two(&site, "scene.txt")?;
    let set = bob.try_cli(&["ls-locks", "--policy", "advisory"])?;
    ensure!(set.code == 4, "an editor set the policy");
    ann.cli(&["ls-locks", "--policy", "advisory"])?;
    agree(&[&ann, &bob])?;
    let (mut hers, mut his) = (Program::start()?, Program::start()?);
    hers.must("open", &ann.path("scene.txt"), "")?;
    his.must("open", &bob.path("scene.txt"), "")?;
    ensure!(fs::read_to_string(bob.path(".scene.txt.lock"))?.contains("holder: Ann"));
    hers.must("write", &ann.path("scene.txt"), "Ann's")?;
    hers.must("close", &ann.path("scene.txt"), "")?;
    ann.sync()?;
    his.must("write", &bob.path("scene.txt"), "Bob's")?;
    his.must("close", &bob.path("scene.txt"), "")?;
    agree(&[&ann, &bob])?;
    let copies = copies(&ann)?;
    ensure!(copies.len() == 1, "nobody may overwrite anybody all the same: {copies:?}");
    Ok(())
}
