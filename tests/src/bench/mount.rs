//! The mount itself: what fio, SQLite and plain file operations get from the native file system, from a FUSE file
//! system that does nothing of its own, from gocryptfs, and from Atelier.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Size;
use super::table::{Better, Table};
use super::under::{Atelier, BOUND, Gocryptfs, Native, Plain, Under};
use crate::harness::device::Device;
use crate::harness::program::{self, command};
use crate::harness::site::Site;
use crate::harness::{skip, tree};

const FILE_LEN: u64 = 512 << 20;
const RANDOM_LEN: u64 = 256 << 20;
const RANDOM_SECONDS: u64 = 4;
const SMALL_COUNT: u64 = 3_000;
/// Transactions of one row each.
const TRANSACTIONS: u64 = 500;
/// Every measurement is made this often, the contenders taking turns; the table shows medians.
const ROUNDS: usize = 5;

/// One group of measurements: what it is called in errors, and how it is made.
type Step = (&'static str, fn(&mut dyn Under, Size, &mut Table) -> Result<()>);

const STEPS: [Step; 4] = [
    ("sequential", sequential),
    ("random", random),
    ("small files", metadata),
    ("SQLite", database),
];

/// Runs everything and prints the table. `only` names the contenders to run; empty means all.
pub fn run(size: Size, only: &[String]) -> Result<()> {
    let site = Site::new()?;
    let mut table = Table::new(
        "The mount against the native file system, a plain FUSE pass-through and gocryptfs.",
        &["native", "pass-through", "gocryptfs", "Atelier"],
    );
    let mut device = Device::local(&site, "a")?;
    device.mount()?;
    let mut contenders: Vec<Box<dyn Under>> =
        vec![Box::new(Native(site.dir("native")?)), Box::new(Plain::start(&site)?)];
    if let Some(gocryptfs) = Gocryptfs::start(&site)? {
        contenders.push(Box::new(gocryptfs));
    }
    contenders.push(Box::new(Atelier(device)));
    contenders.retain(|under| {
        only.is_empty() || only.iter().any(|one| one.eq_ignore_ascii_case(under.name()))
    });
    for _ in 0..ROUNDS {
        for (what, step) in STEPS {
            for under in &mut contenders {
                let name = under.name();
                step(under.as_mut(), size, &mut table)
                    .with_context(|| format!("{name}: {what}"))?;
            }
            // Nobody always follows the same one.
            contenders.rotate_left(1);
        }
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
        "--end_fsync=1".to_owned(),
    ];
    for (rw, label) in
        [("randread", "random 4 KiB reads, cold"), ("randwrite", "random 4 KiB writes, one fsync")]
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

/// SQLite's own durable transactions, one row each.
fn database(under: &mut dyn Under, size: Size, table: &mut Table) -> Result<()> {
    if skip::which("sqlite3").is_none() {
        eprintln!("sqlite3 is not installed: its rows stay empty");
        return Ok(());
    }
    let count = size.of(TRANSACTIONS);
    for mode in ["DELETE", "WAL"] {
        let file = under.dir().join(format!("{mode}.db"));
        let setup = format!(
            "PRAGMA journal_mode={mode}; PRAGMA synchronous=FULL; CREATE TABLE t(a INTEGER, b TEXT);"
        );
        program::ok_within(command("sqlite3", []).arg(&file).arg(&setup), BOUND)?;
        let mut script = String::from("PRAGMA synchronous=FULL;\n");
        for row in 0..count {
            script.push_str(&format!("INSERT INTO t VALUES({row}, hex(randomblob(50)));\n"));
        }
        let path = under.dir().join("script.sql");
        fs::write(&path, script)?;
        let started = Instant::now();
        let read = format!(".read {}", path.display());
        program::ok_within(command("sqlite3", []).arg(&file).arg(read), BOUND)?;
        let rate = count as f64 / started.elapsed().as_secs_f64();
        let label = format!("SQLite transactions, {mode}");
        table.put(under.name(), &label, "per second", Better::Larger, rate);
        let check = "PRAGMA integrity_check; SELECT count(*) FROM t;";
        let out = program::ok_within(command("sqlite3", []).arg(&file).arg(check), BOUND)?;
        ensure!(out.trim() == format!("ok\n{count}"), "the database is not whole: {out}");
        for left in [format!("{mode}.db"), format!("{mode}.db-wal"), format!("{mode}.db-shm")] {
            let _ = fs::remove_file(under.dir().join(left));
        }
    }
    Ok(())
}
