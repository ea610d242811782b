//! The mount itself: what fio and plain file operations get from the native file system, from a FUSE file system that
//! does nothing of its own, and from Atelier.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Size;
use super::table::{Better, Table};
use crate::harness::device::Device;
use crate::harness::program::{self, command};
use crate::harness::site::{self, Site};
use crate::harness::{process, tree, wait};

const FILE_LEN: u64 = 1 << 30;
const RANDOM_LEN: u64 = 512 << 20;
const RANDOM_SECONDS: u64 = 10;
const SMALL_COUNT: u64 = 5_000;
const BOUND: Duration = Duration::from_secs(600);

/// A file system under test.
trait Under {
    fn name(&self) -> &'static str;
    fn dir(&self) -> PathBuf;
    /// Nothing is cached any more, neither by the kernel nor by a daemon.
    fn cool(&mut self) -> Result<()>;
}

struct Native(PathBuf);

impl Under for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn dir(&self) -> PathBuf {
        self.0.clone()
    }

    fn cool(&mut self) -> Result<()> {
        drop_caches()
    }
}

struct Plain {
    source: PathBuf,
    at: PathBuf,
    child: Option<Child>,
}

impl Plain {
    fn start(site: &Site) -> Result<Plain> {
        let mut plain =
            Plain { source: site.dir("plain/source")?, at: site.dir("plain/mount")?, child: None };
        plain.mount()?;
        Ok(plain)
    }

    fn mount(&mut self) -> Result<()> {
        let own = std::env::current_exe()?;
        let program = own.with_file_name("passthrough");
        let child =
            Command::new(program).arg(&self.source).arg(&self.at).stdin(Stdio::null()).spawn()?;
        self.child = Some(child);
        let at = self.at.clone();
        wait::until("the pass-through is mounted", BOUND, || {
            Ok(process::is_mounted(&at).then_some(()))
        })
    }

    fn unmount(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        program::ok(command("umount", []).arg(&self.at))?;
        wait::exit_of(&mut child, BOUND)?.context("the pass-through did not end")?;
        Ok(())
    }
}

impl Under for Plain {
    fn name(&self) -> &'static str {
        "pass-through"
    }

    fn dir(&self) -> PathBuf {
        self.at.clone()
    }

    fn cool(&mut self) -> Result<()> {
        self.unmount()?;
        drop_caches()?;
        self.mount()
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        site::detach(&self.at);
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

struct Atelier(Device);

impl Under for Atelier {
    fn name(&self) -> &'static str {
        "Atelier"
    }

    fn dir(&self) -> PathBuf {
        self.0.mount_dir()
    }

    fn cool(&mut self) -> Result<()> {
        self.0.unmount()?;
        drop_caches()?;
        self.0.mount()
    }
}

fn drop_caches() -> Result<()> {
    program::ok_within(&mut command("sync", []), BOUND)?;
    fs::write("/proc/sys/vm/drop_caches", "3").context("drop the kernel's caches (needs root)")
}

/// Runs everything and prints the table.
pub fn run(size: Size) -> Result<()> {
    let site = Site::new()?;
    let mut table = Table::new(
        "The mount against the native file system and a plain FUSE pass-through.",
        &["native", "pass-through", "Atelier"],
    );
    let mut device = Device::local(&site, "a")?;
    device.mount()?;
    let contenders: [Box<dyn Under>; 3] = [
        Box::new(Native(site.dir("native")?)),
        Box::new(Plain::start(&site)?),
        Box::new(Atelier(device)),
    ];
    for mut under in contenders {
        let name = under.name();
        sequential(under.as_mut(), size, &mut table)
            .with_context(|| format!("{name}: sequential"))?;
        random(under.as_mut(), size, &mut table).with_context(|| format!("{name}: random"))?;
        metadata(under.as_mut(), size, &mut table)
            .with_context(|| format!("{name}: small files"))?;
    }
    println!("{table}");
    Ok(())
}

/// One fio job; gives the figures of its direction.
fn fio(dir: &Path, rw: &str, options: &[String]) -> Result<Value> {
    let mut fio = command(
        "fio",
        ["--name=job", "--ioengine=psync", "--output-format=json", "--fallocate=none"],
    );
    fio.arg(format!("--filename={}", dir.join("fio.dat").display()))
        .arg(format!("--rw={rw}"))
        .args(options);
    let out = program::ok_within(&mut fio, BOUND)?;
    let json = out.get(out.find('{').context("fio printed no JSON")?..).unwrap_or_default();
    let report: Value = serde_json::from_str(json).context("read fio's JSON")?;
    let direction = if rw.ends_with("read") { "read" } else { "write" };
    Ok(report["jobs"][0][direction].clone())
}

fn number(value: &Value) -> Result<f64> {
    value.as_f64().with_context(|| format!("fio gave no number: {value}"))
}

fn sequential(under: &mut dyn Under, size: Size, table: &mut Table) -> Result<()> {
    let len = format!("--size={}", size.of(FILE_LEN));
    let options = [
        "--bs=1M".to_owned(),
        len.clone(),
        "--end_fsync=1".to_owned(),
        "--refill_buffers".to_owned(),
    ];
    let wrote = fio(&under.dir(), "write", &options)?;
    let speed = number(&wrote["bw_bytes"])? / 1e6;
    table.put(under.name(), "sequential write with fsync", "MB/s", Better::Larger, speed);
    under.cool()?;
    let read = fio(&under.dir(), "read", &["--bs=1M".to_owned(), len])?;
    let speed = number(&read["bw_bytes"])? / 1e6;
    table.put(under.name(), "sequential read, cold", "MB/s", Better::Larger, speed);
    fs::remove_file(under.dir().join("fio.dat"))?;
    Ok(())
}

fn random(under: &mut dyn Under, size: Size, table: &mut Table) -> Result<()> {
    let len = size.of(RANDOM_LEN);
    tree::write_random(&under.dir().join("fio.dat"), len, 3)?;
    let seconds = if size == Size::Full { RANDOM_SECONDS } else { 2 };
    let options = [
        "--bs=4k".to_owned(),
        format!("--size={len}"),
        "--time_based".to_owned(),
        format!("--runtime={seconds}"),
        "--randrepeat=1".to_owned(),
    ];
    for (rw, label) in
        [("randread", "random 4 KiB reads, cold"), ("randwrite", "random 4 KiB writes")]
    {
        under.cool()?;
        let report = fio(&under.dir(), rw, &options)?;
        table.put(under.name(), label, "per second", Better::Larger, number(&report["iops"])?);
    }
    fs::remove_file(under.dir().join("fio.dat"))?;
    Ok(())
}

fn metadata(under: &mut dyn Under, size: Size, table: &mut Table) -> Result<()> {
    let count = size.of(SMALL_COUNT);
    let dir = under.dir().join("many");
    fs::create_dir(&dir)?;
    let path = |number: u64| dir.join(format!("file-{number:05}"));
    let bytes = tree::random_bytes(4096, 5);
    let mut rate =
        |under: &dyn Under, label: &str, work: &mut dyn FnMut() -> Result<()>| -> Result<()> {
            let started = Instant::now();
            work()?;
            let rate = count as f64 / started.elapsed().as_secs_f64();
            table.put(
                under.name(),
                &format!("{label}, {count} files"),
                "per second",
                Better::Larger,
                rate,
            );
            Ok(())
        };
    rate(under, "create and write 4 KiB", &mut || {
        (0..count).try_for_each(|n| Ok(fs::write(path(n), &bytes)?))
    })?;
    under.cool()?;
    rate(under, "stat, cold", &mut || {
        (0..count).try_for_each(|n| Ok(fs::metadata(path(n)).map(|_| ())?))
    })?;
    rate(under, "stat, again", &mut || {
        (0..count).try_for_each(|n| Ok(fs::metadata(path(n)).map(|_| ())?))
    })?;
    rate(under, "list", &mut || {
        let found = fs::read_dir(&dir)?.count() as u64;
        ensure!(found == count, "listed {found} of {count}");
        Ok(())
    })?;
    rate(under, "read 4 KiB", &mut || {
        (0..count).try_for_each(|n| {
            ensure!(fs::read(path(n))? == bytes, "wrong bytes");
            Ok(())
        })
    })?;
    let renamed = |number: u64| dir.join(format!("renamed-{number:05}"));
    rate(under, "rename", &mut || {
        (0..count).try_for_each(|n| Ok(fs::rename(path(n), renamed(n))?))
    })?;
    rate(under, "unlink", &mut || (0..count).try_for_each(|n| Ok(fs::remove_file(renamed(n))?)))?;
    fs::remove_dir(&dir)?;
    Ok(())
}
