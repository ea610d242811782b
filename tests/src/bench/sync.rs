//! How work travels from one host to another: a large file, thousands of small ones, the second save of a Blender
//! scene, and the time until a small change is seen.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Size;
use super::peers::{Atelier, Pair, Rsync, Syncthing};
use super::table::{Better, Table};
use crate::harness::netns::{Host, Net};
use crate::harness::program::{self, command};
use crate::harness::site::Site;
use crate::harness::{blender, tree, wait};

const LARGE_LEN: u64 = 1 << 30;
const SMALL_COUNT: u64 = 5_000;
const SMALL_LEN: usize = 4 << 10;
/// Vertices along each side of the scene's ground: about 50 MB of file.
const SCENE_SIDE: f64 = 650.0;
const LARGE_ROUNDS: usize = 3;
const LATENCY_ROUNDS: u64 = 40;
const BOUND: Duration = Duration::from_secs(900);

/// What all contenders send.
struct Work {
    large: PathBuf,
    small: PathBuf,
    size: Size,
}

/// Runs everything and prints the table. `only` names the contenders to run; empty means all.
pub fn run(size: Size, only: &[String]) -> Result<()> {
    let site = Site::new()?;
    let work = prepare(&site, size)?;
    let mut table = Table::new(
        "From host A to host B over a veth pair, until B has it all and byte for byte the same.",
        &["rsync", "Syncthing", "Atelier"],
    );
    let wanted =
        |name: &str| only.is_empty() || only.iter().any(|one| one.eq_ignore_ascii_case(name));
    let contenders: [(&str, Start); 3] = [
        ("rsync", |site, a, b| Ok(Box::new(Rsync::start(site, a, b)?))),
        ("Syncthing", |site, a, b| Ok(Box::new(Syncthing::start(site, a, b)?))),
        ("Atelier", |site, a, b| Ok(Box::new(Atelier::start(site, a, b)?))),
    ];
    let contenders = contenders.map(|(name, start)| Contender { name, start, speeds: Vec::new() });
    let mut contenders: Vec<Contender> =
        contenders.into_iter().filter(|contender| wanted(contender.name)).collect();
    // In turns, each on a new pair: what a large file costs depends on what the machine's disk and memory went
    // through before.
    for _ in 0..LARGE_ROUNDS {
        for contender in &mut contenders {
            let speed = contender.with_pair(|pair, _| large(pair, &work))?;
            eprintln!("{}: {speed:.0} MB/s", contender.name);
            contender.speeds.push(speed);
        }
        contenders.rotate_left(1);
    }
    for contender in &mut contenders {
        contender.speeds.sort_by(f64::total_cmp);
        let median = contender.speeds.get(LARGE_ROUNDS / 2).copied().unwrap_or(f64::NAN);
        let label =
            format!("random file of {} MiB, median of {LARGE_ROUNDS}", size.of(LARGE_LEN) >> 20);
        table.put(contender.name, &label, "MB/s", Better::Larger, median);
    }
    for contender in &contenders {
        contender.with_pair(|pair, a| measure(pair, a, &work, &mut table))?;
    }
    println!("{table}");
    Ok(())
}

type Start = fn(&Site, &Host, &Host) -> Result<Box<dyn Pair>>;

struct Contender {
    name: &'static str,
    start: Start,
    speeds: Vec<f64>,
}

impl Contender {
    /// Measures on two new hosts.
    fn with_pair<T>(&self, body: impl FnOnce(&dyn Pair, &Host) -> Result<T>) -> Result<T> {
        let site = Site::new()?;
        let net = Net::new()?;
        let (a, b) = (net.host()?, net.host()?);
        let pair = (self.start)(&site, &a, &b).with_context(|| format!("start {}", self.name))?;
        body(pair.as_ref(), &a).with_context(|| format!("measure {}", self.name))
    }
}

fn prepare(site: &Site, size: Size) -> Result<Work> {
    let dir = site.dir("work")?;
    let work = Work { large: dir.join("large.bin"), small: dir.join("small"), size };
    tree::write_random(&work.large, size.of(LARGE_LEN), 1)?;
    fs::create_dir(&work.small)?;
    for number in 0..size.of(SMALL_COUNT) {
        let path = work.small.join(format!("{:02}/{number:05}.dat", number % 50));
        fs::create_dir_all(path.parent().context("a parent")?)?;
        fs::write(path, tree::random_bytes(SMALL_LEN, number))?;
    }
    Ok(work)
}

fn measure(pair: &dyn Pair, a: &Host, work: &Work, table: &mut Table) -> Result<()> {
    small(pair, work, table).context("the small files")?;
    scene(pair, a, work, table).context("the scene")?;
    if pair.watches() {
        latency(pair, work, table).context("the small change")?;
    }
    Ok(())
}

fn copy_in(from: &Path, to: &Path) -> Result<()> {
    program::ok_within(command("cp", ["-r"]).arg(from).arg(to), BOUND).map(drop)
}

/// Time to copy `from` into the folder on A and to have it on B; for rsync, which does not look at folders by
/// itself, the time of its own run.
fn timed(
    pair: &dyn Pair,
    from: &Path,
    arrived: &dyn Fn(&Path) -> Result<bool>,
) -> Result<Duration> {
    program::ok_within(&mut command("sync", []), BOUND)?;
    let mut started = Instant::now();
    copy_in(from, &pair.source())?;
    if !pair.watches() {
        started = Instant::now();
    }
    pair.settle(arrived)?;
    Ok(started.elapsed())
}

/// Speed of the large file, MB/s.
fn large(pair: &dyn Pair, work: &Work) -> Result<f64> {
    let len = fs::metadata(&work.large)?.len();
    let there = |target: &Path| {
        Ok(fs::metadata(target.join("large.bin")).is_ok_and(|meta| meta.len() == len))
    };
    let took = timed(pair, &work.large, &there)?;
    let same = tree::hash_of(&work.large)? == tree::hash_of(&pair.target().join("large.bin"))?;
    ensure!(same, "the large file arrived with other bytes");
    Ok(len as f64 / 1e6 / took.as_secs_f64())
}

fn small(pair: &dyn Pair, work: &Work, table: &mut Table) -> Result<()> {
    let count = work.size.of(SMALL_COUNT);
    let there = |target: &Path| {
        let mut found = 0;
        for dir in 0..50 {
            let Ok(entries) = fs::read_dir(target.join(format!("small/{dir:02}"))) else {
                return Ok(false);
            };
            // Syncthing's unfinished files stand beside the others.
            let whole = entries.filter(|entry| {
                entry
                    .as_ref()
                    .is_ok_and(|entry| entry.file_name().to_string_lossy().ends_with(".dat"))
            });
            found += whole.count() as u64;
        }
        Ok(found == count)
    };
    let took = timed(pair, &work.small, &there)?;
    table.put(
        pair.name(),
        &format!("{count} files of 4 KiB"),
        "s",
        Better::Smaller,
        took.as_secs_f64(),
    );
    for number in 0..count {
        let path = pair.target().join(format!("small/{:02}/{number:05}.dat", number % 50));
        ensure!(
            fs::read(&path)? == tree::random_bytes(SMALL_LEN, number),
            "{} differs",
            path.display()
        );
    }
    Ok(())
}

fn scene(pair: &dyn Pair, a: &Host, work: &Work, table: &mut Table) -> Result<()> {
    let side = match work.size {
        Size::Full => SCENE_SIDE,
        Size::Quick => SCENE_SIDE / 4.0,
    };
    let here = pair.source().join("scene.blend");
    let there = pair.target().join("scene.blend");
    let same = |_: &Path| {
        // Lengths first: they differ while a save is on its way, and cost next to nothing to look at.
        let lengths = (
            fs::metadata(&here).map(|meta| meta.len()),
            fs::metadata(&there).map(|meta| meta.len()),
        );
        match lengths {
            (Ok(ours), Ok(theirs)) if ours == theirs => {
                Ok(tree::hash_of(&here)? == tree::hash_of(&there)?)
            }
            _ => Ok(false),
        }
    };
    blender::make(&here, side as u32)?;
    pair.settle(&same)?;
    let len = fs::metadata(&here)?.len();
    let before = a.wire()?;
    blender::edit(&here, "Fox")?;
    let saved = Instant::now();
    pair.settle(&same)?;
    let took = saved.elapsed();
    let bytes = a.wire()?.since(before);
    let label = format!("second save of a {} MB scene, on the wire", len / 1_000_000);
    table.put(pair.name(), &label, "MB", Better::Smaller, bytes as f64 / 1e6);
    let label = "the same, from Blender's end until B has it";
    table.put(pair.name(), label, "s", Better::Smaller, took.as_secs_f64());
    Ok(())
}

fn latency(pair: &dyn Pair, work: &Work, table: &mut Table) -> Result<()> {
    const PAUSE: Duration = Duration::from_millis(150);
    const LOOK_EVERY: Duration = Duration::from_micros(300);
    let rounds = if work.size == Size::Full { LATENCY_ROUNDS } else { 10 };
    let (here, there) = (pair.source().join("change.dat"), pair.target().join("change.dat"));
    fs::write(&here, tree::random_bytes(SMALL_LEN, 0))?;
    pair.settle(&|_| Ok(there.exists()))?;
    let mut times = Vec::new();
    for round in 1..=rounds {
        let bytes = tree::random_bytes(SMALL_LEN, round);
        fs::write(&here, &bytes)?;
        let closed = Instant::now();
        while !fs::read(&there).is_ok_and(|found| found == bytes) {
            ensure!(closed.elapsed() < Duration::from_secs(60), "a change never arrived");
            wait::breathe(LOOK_EVERY);
        }
        times.push(closed.elapsed().as_secs_f64() * 1e3);
        wait::breathe(PAUSE + Duration::from_millis(round * 37 % 100));
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        times.get(((times.len() - 1) as f64 * share) as usize).copied().unwrap_or(f64::NAN)
    };
    let label = "close of a 4 KiB change until it is read on B";
    table.put(pair.name(), &format!("{label}, median of {rounds}"), "ms", Better::Smaller, at(0.5));
    table.put(pair.name(), &format!("{label}, 9 of 10 within"), "ms", Better::Smaller, at(0.9));
    Ok(())
}
